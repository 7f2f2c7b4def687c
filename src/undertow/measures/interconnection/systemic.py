"""Whose failure costs everybody else most: several rankings of nodes, how sure, and how alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.econometrics.debtrank import Spread
from undertow.econometrics.firesales import contagion_index
from undertow.econometrics.partial_links import drawn_from
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ranks import rank_bands, rank_columns
from undertow.measures.crowding.redrawn import FEW, Redrawn, added
from undertow.measures.crowding.sheets import Sheets, overlaps
from undertow.measures.door import require_seed
from undertow.measures.interconnection.agreeing import agreement, placed, spread
from undertow.measures.interconnection.candidates import Candidate, Field, without
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.failing import (
    Bench,
    Cost,
    failures,
    left_out,
    redrawn,
)
from undertow.measures.interconnection.untold import Untold
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.systemic import systemic
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix, Reading
from undertow.stress.contagion import Assumptions, Channels
from undertow.stress.scenario import Scenario
from undertow.stress.shock import MARKET, Price, require_within

_NAME = "interconnection.nodes"
TOP = 5
NO_ORDER = (
    1.0 / 3.0
)  # of Kendall's tau: rankings less alike than this, by the median, have no order
_MARKS = ("debtrank", "single_hit", "diffusion")  # rankings by claims alone
_CIRCLE, _CIRCLE_DRAWN = 1_500, 100  # parties that all reach each other: more take too long
# Rankings: unit and definition; the larger the more systemic, but for delta CoVaR.
RANKINGS: Mapping[str, tuple[str, str]] = {
    "failure": ("USD", "what its failure on a calm day costs all others"),
    "in_stress": ("USD", "what its failure costs all others on top of the scenario"),
    "adds": ("USD", "what the scenario costs less what it costs without the node"),
    "debtrank": ("USD", "what its default marks down at others, by linear marks (corrected)"),
    "single_hit": ("USD", "the same where each party passes stress on once (the original)"),
    "diffusion": ("1", "its part in what travels over claims by any number of steps"),
    "centrality": ("1", "its part in liquidity-weighted overlap of venues' balance sheets"),
    "passes": ("1", "share of what accounts hold that leads through it"),
    "delta_covar": ("1", "how much lower the worst growth of others lies at its own worst"),
}
_READ = (
    "Every column of `nodes` is a ranking of its own, and they answer different questions. "
    "`failure_usd` and `in_stress_usd` follow the failure through all channels; `own_usd` is what "
    "the node itself loses. A venue or a pool that fails keeps `recovery` of what lies there; a "
    "token, keeper or outside party pays so much of what it owes; an oracle shows a price that is "
    "too low by `wrong`; a chain stands still, which costs nothing while no price moves. "
    "`adds_usd` is leave-one-out: below 0 the scenario costs more without the node. `debtrank_usd` "
    "and `single_hit_usd` are valuation losses on the claims alone; `diffusion` is the share of "
    "all walks over claims that the node passes on: how claims lie, not what is lost. `centrality` "
    "is of venues, by the leading eigenvector of overlaps. `ranks` has places with bands; "
    "`agreement` compares rankings two by two; `spread` says how far apart they put each node, 0 "
    "first and 1 last."
)
_MISLEADS = (
    "Being first says nothing of how likely a failure is. Candidates are the largest of each kind "
    "by value that leads through them (keepers also by what they owe): a small node that would "
    "hurt is not there unless named (`among`). Places are among these candidates. Losses of "
    "borrowers and traders by prices alone are in no column. Who fails here fails whole and at "
    "once, and recoveries are assumed. "
    "Bands draw owners (failure, centrality, passes) or claims and missing links (DebtRank, "
    "diffusion), not prices, depths or recoveries."
)


def nodes(
    book: Snapshot | Crowd | Web | Any,
    past: LeverageHistory | None = None,
    *,
    fall: float = 0.2,
    scenario: Scenario | None = None,
    channels: Channels | None = None,
    assumed: Assumptions | None = None,
    recovery: float = 0.0,
    wrong: float = 0.2,
    among: Sequence[str] = (),
    most: int = 4,
    contested: int = 5,
    redraws: int = 19,
    reps: int = 199,
    error: float = 0.1,
    top: int = TOP,
    level: float = 0.9,
    seed: int = 0,
    executor: Executor | None = None,
) -> Study:
    """Whose failure costs everybody else most, by several rankings, and whether they agree.

    Candidates are the `most` largest of each kind, or those named in `among` (`venue:okx`). The
    scenario is a common `fall` unless given. `redraws` books with other owners give bands to the
    places of the `contested` costliest failures; `reps` draws those of the other rankings, with
    claims known to a relative `error`. At 0 redraws places by failure have no band.

    Raises
    ------
    StateError
        When it is no book, a name is no node of the map, or a size is out of range.
    EstimationError
        When the level is out of range or the draws are too few.

    References
    ----------
    Battiston et al. (2012), "DebtRank", Scientific Reports 2; Bardoscia et al. (2015), PLoS ONE
    10; Cont and Schaanning (2019), Journal of Banking and Finance 104; Adrian and Brunnermeier
    (2016), "CoVaR", American Economic Review 106; Silva, Souza and Tabak (2015), Banco Central do
    Brasil 392.
    """
    web = Web.of(book)
    _require(fall, recovery, wrong, error, most, contested, redraws, top, seed, level)
    shock = scenario if scenario is not None else _fallen(fall)
    bench = Bench(web.crowd.plan, shock, channels or Channels(), assumed or Assumptions())
    bench.__dict__["solver"] = web.solver
    calm = bench.before[False]
    field = Field.of(web, calm.settlement.sheet, most, tuple(among), recovery, wrong)
    found = field.every
    failed = failures(bench, found, stressed=False)
    stressed = failures(bench, found, stressed=True)
    adds = left_out(bench, [without(web, each) for each in found], executor)
    net = ClaimsNet.of(calm.settlement, bench.assumed)
    center, drawn_center = _centrality(web, found, reps, seed, level)
    tail, why_not = _covar(web, past, found)
    marks = _marks(net, found, _CIRCLE)
    if len(net.names) and net.impacts.circle > _CIRCLE:
        why_not["diffusion"] = f"more than {_CIRCLE:,} parties have claims on each other in circles"
    values = np.column_stack(
        [
            [np.nan if c is None else c.others for c in failed],
            [np.nan if c is None else c.others for c in stressed],
            [np.nan if x is None else x for x in adds],
            *marks.values(), center, field.passes, tail,
        ]
    ).reshape(len(found), len(RANKINGS))  # fmt: skip
    ordered = values.copy()
    ordered[:, -1] *= -1.0  # the further below 0, the more the others fall with it
    first = _costliest(values[:, 0], contested)
    drawn = {
        "failure": _by_redraws(bench, found, first, redraws, seed, executor),
        "passes": _drawn_passes(web, field, reps, seed, level),
        "centrality": drawn_center,
        **_drawn_marks(calm, net, found, min(reps, 199), error, seed, bench.assumed),
    }
    names = tuple(RANKINGS)
    labels = [each.name for each in found]
    places = _places(labels, names, ordered, drawn, level)
    table = _table(found, values, failed, net)
    pairs, apart = agreement(names, ordered, top), spread(labels, names, ordered)
    verdict = _Verdict.of(labels, names, ordered, pairs, top)
    return Study(
        name=_NAME,
        title="Whose failure costs everybody else most",
        readings=tuple(_readings(web, found, values, net, verdict)),
        tables={"nodes": table, "ranks": places, "agreement": pairs, "spread": apart,
                "definitions": _definitions(shock)},
        says=tuple(_says(web, found, values, failed, places, net, verdict, apart, redraws,
                        _lost(drawn["failure"]))),
        how_to_read=f"{_READ} The scenario is {shock.name}.",
        misleads=_MISLEADS,
        left_out=why_not | {each.name: each.reason for each in found if each.reason},
    )  # fmt: skip


def _marks(net: ClaimsNet, found: Sequence[Candidate], most: int) -> dict[str, FloatColumn]:
    """By candidate: what its default marks down at others, and its part in what travels.

    NaN of who is no party of the claims, and of what travels in circles of more than `most`.
    """
    some = [n for n, each in enumerate(found) if len(each.parties)]
    marks = {name: np.full(len(found), np.nan) for name in _MARKS}
    if some and len(net.names):
        parties = [found[n].parties for n in some]
        marks["debtrank"][some] = net.defaults(parties, Spread.CONTINUOUS)
        marks["single_hit"][some] = net.defaults(parties, Spread.ONCE)
        if net.impacts.circle <= most:
            marks["diffusion"][some] = net.diffusion(parties)
    return marks


def _drawn_marks(
    calm: Any, net: ClaimsNet, found: Sequence[Candidate], draws: int, error: float, seed: int,
    assumed: Assumptions,
) -> dict[str, FloatMatrix | None]:  # fmt: skip
    """The same where missing links are drawn, and every claim is known to an error."""
    if not len(net.usd) or not any(len(each.parties) for each in found):
        return dict.fromkeys(_MARKS)
    rng = np.random.default_rng([seed, 89])
    family = Untold(calm, calm.settlement, 1.0)
    streams = [drawn_from(each, draws, seed=seed + 31 * n) for n, each in enumerate(family.open)]
    rows: dict[str, list[FloatColumn]] = {name: [] for name in _MARKS}
    for _ in range(draws):
        if streams:
            networks = tuple(next(stream) for stream in streams)
            told_net = ClaimsNet.of(family.filled(networks).settlement, assumed)
        else:
            told_net = net
        shaken = told_net.shaken(
            np.exp(error * rng.standard_normal(len(told_net.usd)) - 0.5 * error**2)
        )
        for name, values in _marks(shaken, found, _CIRCLE_DRAWN).items():
            rows[name].append(values)
    drawn = {name: np.array(each) for name, each in rows.items()}
    return {name: x if np.isfinite(x).any(axis=1).all() else None for name, x in drawn.items()}


def _centrality(
    web: Web, found: Sequence[Candidate], reps: int, seed: int, level: float
) -> tuple[FloatColumn, FloatMatrix | None]:
    """Each venue's part in the leading eigenvector of overlaps, and over redrawn owners."""
    values = np.full(len(found), np.nan)
    sheets = Sheets.of(web.crowd, "venue")
    venue = {each.key: n for n, each in enumerate(found) if each.kind == "venue"}
    if not sheets.names or not venue:
        return values, None
    rows = np.array([venue.get(name, -1) for name, _ in sheets.names])

    def parts(held: FloatMatrix) -> FloatColumn:
        matrix = overlaps(sheets, held)
        if not matrix.any():
            return np.full(len(found), np.nan)
        middle = contagion_index(matrix)[1]
        part = added(rows[rows >= 0], middle[rows >= 0], len(found))
        return np.where(np.isin(np.arange(len(found)), rows), part, np.nan)

    values = parts(sheets.held()[0])
    if len(web.snapshot.book.owners) < FEW or not np.isfinite(values).any():
        return values, None
    draws = Redrawn.of(web.crowd, web.crowd.leveraged, reps=reps, seed=seed, level=level)
    cells = draws.sums(sheets.account, sheets.cell, sheets.usd, len(sheets.row))
    return values, np.array([parts(sheets.laid_out(row)) for row in cells])


def _drawn_passes(
    web: Web, field: Field, reps: int, seed: int, level: float
) -> FloatMatrix | None:  # fmt: skip
    """Shares of what accounts hold that lead through each node, over redrawn owners."""
    if len(web.snapshot.book.owners) < FEW or not field.every:
        return None
    draws = Redrawn.of(web.crowd, field.held, reps=reps, seed=seed, level=level)
    by_unit = np.zeros((draws.units, len(field.every) + 1))
    np.add.at(by_unit, draws.unit, np.column_stack([field.by_account, field.held]))
    sums = draws.weight @ by_unit
    whole = sums[:, -1:]
    drawn: FloatMatrix = np.divide(
        sums[:, :-1], whole, out=np.full_like(sums[:, :-1], np.nan), where=whole > 0.0
    )
    return drawn


def _by_redraws(
    bench: Bench, found: Sequence[Candidate], first: Sequence[int], redraws: int, seed: int,
    executor: Executor | None,
) -> FloatMatrix | None:  # fmt: skip
    """What the costliest failures cost on books whose owners were drawn anew; NaN of the others."""
    owners = len(bench.plan.snapshot.book.owners)
    if not redraws or len(first) < 2 or owners < FEW:
        return None
    costs = redrawn(bench, [found[n] for n in first], redraws, seed, executor)
    drawn = np.full((redraws, len(found)), np.nan)
    drawn[:, list(first)] = costs
    return drawn


def _lost(drawn: FloatMatrix | None) -> int:
    """How many redrawn books gave no number."""
    return 0 if drawn is None else int((~np.isfinite(drawn).any(axis=1)).sum())


def _costliest(cost: FloatColumn, count: int) -> list[int]:
    some = np.flatnonzero(np.isfinite(cost) & (cost > 0.0))
    return [int(n) for n in some[np.argsort(-cost[some], kind="stable")][:count]]


def _covar(
    web: Web, past: LeverageHistory | None, found: Sequence[Candidate]
) -> tuple[FloatColumn, dict[str, str]]:
    """By candidate: delta CoVaR where a series is called after it."""
    values = np.full(len(found), np.nan)
    if past is None:
        return values, {"delta_covar": "no history of leverage was given"}
    try:
        table = systemic(web.snapshot, past, reps=19).tables["nodes"]
    except StateError as error:
        return values, {"delta_covar": str(error)}
    seen = dict(zip(table["node"], table["delta_covar"], strict=True))
    for n, each in enumerate(found):
        value = seen.get(each.key)
        values[n] = np.nan if value is None else float(value)
    if np.isfinite(values).any():
        return values, {}
    return values, {"delta_covar": "no series is called after a candidate, or none has a tail"}


def _places(
    labels: Sequence[str], names: Sequence[str], values: FloatMatrix,
    drawn: Mapping[str, FloatMatrix | None], level: float,
) -> pl.DataFrame:  # fmt: skip
    """One row a ranking and node: value, place, and the band of the place."""
    place, frames = placed(values), []
    why = {
        "failure": "owners redrawn, among the costliest", "passes": "owners redrawn",
        "centrality": "owners redrawn", **dict.fromkeys(_MARKS, "missing links and claims drawn"),
    }  # fmt: skip
    for j, name in enumerate(names):
        some = np.flatnonzero(np.isfinite(values[:, j]))
        sample = drawn.get(name)
        low = high = np.full(len(some), np.nan)
        if sample is not None and len(some):
            told_of = np.isfinite(sample[:, some]).any(axis=0)
            if told_of.any():
                ends = rank_bands(sample[:, some[told_of]], level)
                low, high = low.copy(), high.copy()
                low[told_of], high[told_of] = ends
        frame = pl.DataFrame(
            {
                "ranking": pl.Series([name] * len(some), dtype=pl.String),
                "node": pl.Series([labels[n] for n in some.tolist()], dtype=pl.String),
                "value": np.abs(values[some, j]) if name == "delta_covar" else values[some, j],
            }
        )
        bands = rank_columns(place[some, j], low, high)
        frames.append(
            pl.concat([frame, bands], how="horizontal")
            .with_columns(
                drawn=pl.when(pl.col("rank_low").is_not_null()).then(pl.lit(why.get(name, "")))
            )
            .sort("rank", "node")
        )
    return pl.concat(frames)


def _table(
    found: Sequence[Candidate], values: FloatMatrix, failed: Sequence[Cost | None], net: ClaimsNet
) -> pl.DataFrame:
    """One row a node, a column a ranking."""
    columns: dict[str, Any] = {
        "node": pl.Series([each.name for each in found], dtype=pl.String),
        "kind": pl.Series([each.kind for each in found], dtype=pl.String),
    }
    for j, (name, (unit, _)) in enumerate(RANKINGS.items()):
        columns[f"{name}_usd" if unit == "USD" else name] = values[:, j]
        if name == "failure":
            columns["own_usd"] = np.array(
                [np.nan if cost is None else cost.own for cost in failed], dtype=np.float64
            )
    frame = pl.DataFrame(columns).with_columns(
        pl.col(pl.Float64).fill_nan(None),
        settled=pl.Series([None if c is None else c.settled for c in failed], dtype=pl.Boolean),
        reason=pl.Series([each.reason or None for each in found], dtype=pl.String),
    )
    return frame.sort("failure_usd", "node", descending=[True, False], nulls_last=True)


def _definitions(shock: Scenario) -> pl.DataFrame:
    """One row a ranking; those that stand on the scenario say which it was."""
    rows = []
    for name, (unit, words) in RANKINGS.items():
        said = words.replace("the scenario", shock.name)
        rows.append((name, unit, said, shock.name if said != words else None))
    columns = ("ranking", "unit", "definition", "scenario")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


@dataclass(frozen=True, eq=False)
class _Verdict:
    """Whether rankings agree."""

    tau: float | None  # median over pairs
    pairs: int
    least: tuple[str, str, float] | None  # the two that agree least
    shared: tuple[str, ...]  # nodes among the first of every ranking that has them

    @classmethod
    def of(
        cls, labels: Sequence[str], names: Sequence[str], values: FloatMatrix,
        pairs: pl.DataFrame, top: int,
    ) -> _Verdict:  # fmt: skip
        told_of = pairs.filter(pl.col("kendall").is_not_null())
        least = told_of.sort("kendall", "ranking", "other").row(0) if told_of.height else None
        place = placed(values)
        seen = np.isfinite(place).sum(axis=1)
        within_top = ((place <= top) | np.isnan(place)).all(axis=1) & (seen >= 3)
        middle = np.median(told_of["kendall"].to_numpy()) if told_of.height else np.nan
        return cls(
            known(float(middle)), told_of.height,
            None if least is None else (least[0], least[1], float(least[3])),
            tuple(labels[n] for n in np.flatnonzero(within_top).tolist()),
        )  # fmt: skip

    @property
    def no_order(self) -> bool:
        """No one order can be told."""
        return self.tau is not None and self.tau < NO_ORDER

    @property
    def words(self) -> str:
        """How far rankings agree."""
        if self.no_order:
            return "disagree so much that no one order can be told"
        turned = self.least is not None and self.least[2] < 0.0
        return "agree in part, and some run against each other" if turned else "agree in part"


def _readings(
    web: Web, found: Sequence[Candidate], values: FloatMatrix, net: ClaimsNet, verdict: _Verdict
) -> list[Reading]:
    cost = values[:, 0] if len(found) else np.zeros(0)
    some = np.flatnonzero(np.isfinite(cost))
    first = int(some[np.argmax(cost[some])]) if len(some) else None
    readings = [
        web.reading("interconnection.failure_cost",
                    None if first is None else known(float(cost[first])), "USD",
                    "what the failure on a calm day of the node that costs most costs all others; "
                    "none without candidates"),
        web.reading("interconnection.rank_agreement", verdict.tau, "1",
                    "median of Kendall's tau-b over pairs of rankings of nodes; none where fewer "
                    "than three nodes stand in two"),
        web.reading("interconnection.claims_radius", known(net.radius) if len(net.usd) else None,
                    "1", "spectral radius of claims over buffers; above 1 small stress grows round "
                    "circles; none without claims"),
    ]  # fmt: skip
    words = "what its failure on a calm day costs all others"
    return readings + [
        web.reading("interconnection.node_cost", float(cost[n]), "USD", words, found[n].name)
        for n in _costliest(cost, TOP)
    ]


def _says(
    web: Web, found: Sequence[Candidate], values: FloatMatrix, failed: Sequence[Cost | None],
    places: pl.DataFrame, net: ClaimsNet, verdict: _Verdict, apart: pl.DataFrame, redraws: int,
    lost: int,
) -> list[str]:  # fmt: skip
    first = _costliest(values[:, 0], TOP) if len(found) else []
    if not first:
        return ["No failure of any candidate costs anybody else anything on a calm day."]
    words = [_first_words(found, values, first, places)]
    if not redraws:
        words.append("Places by failure have no band: no book was redrawn.")
    elif lost:
        words.append(
            f"On {lost} of {redraws} redrawn books prices left all bounds; they are left out."
        )
    if verdict.tau is not None and verdict.least is not None:
        one, other, tau = verdict.least
        words.append(
            f"Rankings {verdict.words}: over {many(verdict.pairs, 'pair')} of rankings the median "
            f"of Kendall's tau is {told(verdict.tau)}; {one} and {other} agree least ({told(tau)})."
        )
    else:
        words.append("Rankings have too few nodes in common to be compared.")
    if verdict.shared:
        words.append(f"Among the first in every ranking that has them: {listed(verdict.shared)}.")
    if apart.height and apart["apart"][0] > 0.5:
        row = apart.row(0, named=True)
        words.append(
            f"Rankings put {row['node']} furthest apart: near the top by {row['highest_by']}, near "
            f"the bottom by {row['lowest_by']}."
        )
    if len(net.usd):
        radius = net.radius
        words.append(
            f"Claims over buffers have a radius of {told(radius)}"
            + (": above 1, small stress grows round circles and DebtRank stops only where nothing "
               "is left." if radius > 1.0 else ", so small stress dies out.")
        )  # fmt: skip
    unsettled = [each.name for each, cost in zip(found, failed, strict=True)
                 if cost is not None and not cost.settled]  # fmt: skip
    if unsettled:
        words.append(
            f"After the failure of {listed(unsettled)} channels had not come to rest, or prices "
            "left all bounds."
        )
    if web.told < 0.999:
        words.append(f"{percent(1.0 - web.told)} of what accounts hold leads where no table goes.")
    return words


def _first_words(
    found: Sequence[Candidate], values: FloatMatrix, first: Sequence[int], places: pl.DataFrame
) -> str:
    top = found[first[0]]
    words = (
        f"The failure of {top.name} on a calm day costs all others {told(values[first[0], 0])} USD"
        f", more than that of any other of {many(len(found), 'candidate')}"
    )
    row = places.filter((pl.col("ranking") == "failure") & (pl.col("node") == top.name))
    low, high = row["rank_low"][0], row["rank_high"][0]
    if low is not None:
        words += f" (place {low}" + (f" to {high}" if high != low else "")
        words += " over books with other owners)"
    rest = [f"{found[n].name} {told(values[n, 0])}" for n in first[1:3]]
    return words + (f"; then {listed(rest)}." if rest else ".")


def _fallen(fall: float) -> Scenario:
    shocks = (Price(asset=MARKET, move=-fall),) if fall != 0.0 else ()
    way = "rise" if fall < 0.0 else "fall"
    return Scenario(name=f"a common {way} of {percent(abs(fall))}", shocks=shocks)


def _require(
    fall: float, recovery: float, wrong: float, error: float, most: int, contested: int,
    redraws: int, top: int, seed: int, level: float,
) -> None:  # fmt: skip
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    require_within("fall", fall, -10.0, 0.999)
    require_within("recovery", recovery, 0.0, 1.0)
    require_within("wrong", wrong, 0.0, 0.999)
    require_within("error", error, 0.0, 2.0)
    for name, value in (("most", most), ("contested", contested), ("top", top)):
        require_within(name, value, 1)
    require_within("redraws", redraws, 0)
