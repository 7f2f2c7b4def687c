"""With whom the others fall, who falls with the market, and which venues would then lack capital.

Three numbers that are often taken for one another. Delta CoVaR: how much worse the worst steps of
all others are when a node is at its own worst. Marginal expected shortfall: what a node's holdings
lose when the market is at its worst. Capital shortfall: what a venue's own funds lack of the share
of its users' deposits that is asked for, once the market has crashed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import FloatMatrix, within
from undertow.econometrics.quantiles import CoVaR, covar
from undertow.econometrics.shortfall import MarginalShortfall, mes
from undertow.errors import StateError
from undertow.measures.door import require_book, require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.capital import Venues, risky_market
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.extremes import rest
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.tail_layer import kept, seen
from undertow.measures.words import percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading, Universe

REQUIRED = 0.08  # of deposits: the capital asked for, as Brownlees and Engle ask of banks
CRASH = 0.4  # of the market, in which a venue's funds are to hold


def systemic(
    snapshot: Snapshot,
    history: LeverageHistory,
    *,
    seed: int = 0,
    level: float = 0.9,
    q: float = 0.05,
    k: float = REQUIRED,
    fall: float = CRASH,
    reps: int = 199,
) -> Study:
    """Delta CoVaR and marginal expected shortfall of nodes, and capital shortfall of venues.

    The system of a node is the mean of all others, so that none is held against itself; the market
    is the mean return of all assets but money. `q` is the share of steps that are worst, `k` the
    capital asked for per unit of deposits, `fall` the crash. Of `history` only what was known at
    the snapshot is used.

    Raises
    ------
    StateError
        When fewer than two nodes can be used.
    EstimationError
        When a share or the level is out of range.

    References
    ----------
    Adrian and Brunnermeier (2016), "CoVaR", American Economic Review 106; Acharya, Pedersen,
    Philippon and Richardson (2017), "Measuring systemic risk", Review of Financial Studies 30;
    Brownlees and Engle (2017), "SRISK", Review of Financial Studies 30.
    """
    require_book(snapshot)
    require_history(history)
    require_seed(seed)
    within("q", q, 0.0, 0.5)
    within("fall", fall, 0.0, 1.0)
    known = history if history.ts[-1] <= snapshot.ts else history.until(snapshot.ts)
    if len(known.level) < 3:
        raise StateError(
            f"{len(known.level)} instants of {history.called} were known at the snapshot",
            source=history.level.name,
            hint="give a history that ends where the snapshot stands",
        )
    left_out = dict(known.left_out)
    usable = kept(known)
    nodes = _Nodes.of(usable, snapshot.universe, q, level, reps, seed)
    left_out |= {node: f"{Layer.OWN.value}: {why}" for node, why in nodes.reasons.items()}
    venues = Venues.of(snapshot, usable, fall, k, level)
    left_out |= {f"venue {venue}": why for venue, why in venues.reasons.items()}
    return Study(
        "tandem.systemic",
        "With whom do the others fall, and who would lack capital?",
        (*_node_readings(usable, nodes, q, level), *venues.readings(usable, level)),
        {"nodes": nodes.table, "shortfall": venues.table},
        (*_node_says(usable, nodes, q, level), *venues.says()),
        "delta_covar is in standard deviations of growth: how much lower the worst steps of all "
        "others lie when this node is at its worst than when it is at its median; the further "
        "below 0, the more they fall with it. mes is a mean return: what the node's holdings make "
        "on the market's worst steps. shortfall_usd is k times deposits less (1 - k) times the "
        "funds that survive the crash; below 0 it is to spare. "
        f"{usable.pace}",
        "It is dependence and no cause: two nodes that follow a third fall with each other. mes "
        "is exposure, not contribution: what the market does to the node. A few steps decide: "
        "tail_steps says how many. The price of a protocol's token is no equity of it, and is not "
        "used: equity is what stands ready to be paid out. What funds are held in is not known; "
        "they are taken to be held as deposits are, and deposits to keep their value in USD. The "
        "beta is that of ordinary steps, and crashes have others; bands of shortfalls are those of "
        f"betas alone. {ONE_BASKET}",
        left_out,
    )


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Every node's tail, with others and with the market."""

    table: pl.DataFrame  # the node with whom the others fall deepest first
    reasons: Mapping[str, str]  # why a node is not in the layer beyond prices
    days: int  # of the market's tail

    @classmethod
    def of(
        cls,
        history: LeverageHistory,
        universe: Universe,
        q: float,
        level: float,
        reps: int,
        seed: int,
    ) -> _Nodes:
        market = np.expm1(risky_market(history, universe))
        names, own, reasons = seen(history, Layer.OWN)
        tied = _covars(names, own, q, level, reps, seed)
        raw = _covars(*seen(history, Layer.RAW)[:2], q, level, 0, seed)
        rows, days = [], 0
        for j, node in enumerate(history.labels):
            rng = np.random.default_rng([seed, 600, j])
            held = np.expm1(history.returns[:, j])
            lost = mes(held, market, q, rng=rng, reps=reps, level=level)
            rows.append(_node_row(node, tied.get(node), raw.get(node), lost, q))
            days = max(days, lost.days)
        kinds: dict[str, Any] = dict.fromkeys(rows[0], pl.Float64)
        kinds |= {"node": pl.String, "reason": pl.String}
        kinds |= dict.fromkeys(("tail_steps", "market_tail_steps"), pl.Int64)
        table = pl.DataFrame(rows, schema=kinds).fill_nan(None)
        return cls(table.sort("delta_covar", "node", nulls_last=True), reasons, days)


def _covars(
    names: tuple[str, ...], x: FloatMatrix, q: float, level: float, reps: int, seed: int
) -> dict[str, CoVaR]:
    """Each node against the mean of all others; without draws, without a band."""
    if len(names) < 2:
        return {}
    others, found = rest(x), {}
    for j, node in enumerate(names):
        rng = np.random.default_rng([seed, 400, j]) if reps else None
        found[node] = covar(others[:, j], x[:, j], q, rng=rng, reps=reps, level=level)
    return found


def _node_row(
    node: str, tied: CoVaR | None, raw: CoVaR | None, lost: MarginalShortfall, q: float
) -> dict[str, object]:
    nan = (math.nan, math.nan)
    low, high = nan if tied is None or tied.band is None else tied.band
    least, most = nan if lost.band is None else lost.band
    said = {each.reason for each in (tied, lost) if each is not None} - {""}
    return {
        "node": node,
        "covar": math.nan if tied is None else tied.covar,
        "delta_covar": math.nan if tied is None else tied.delta,
        "low": low,
        "high": high,
        "mes": lost.mes,
        "mes_low": least,
        "mes_high": most,
        "raw_delta_covar": math.nan if raw is None else raw.delta,
        "tail_steps": 0 if tied is None else int(q * tied.fit.rows),
        "market_tail_steps": lost.days,
        "reason": "; ".join(sorted(said)),
    }


def _node_readings(
    history: LeverageHistory, nodes: _Nodes, q: float, level: float
) -> Iterator[Reading]:
    for row in nodes.table.iter_rows(named=True):
        yield history.tell(
            "delta_covar", row["delta_covar"],
            f"{percent(q)} quantile of mean growth of {history.called} of all other nodes, in "
            f"standard deviations, when this node is at its own {percent(q)} quantile, less that "
            f"when it is at its median; below 0 they fall with it ({Layer.OWN.words}); none where "
            "prices could not be taken out",
            subject=row["node"], level=level,
            band=None if row["low"] is None else (row["low"], row["high"]),
        )  # fmt: skip
    for row in nodes.table.iter_rows(named=True):
        yield history.tell(
            "mes", row["mes"],
            "mean return of what the node holds on steps on which the market is below its "
            f"{percent(q)} quantile; a fall is negative, and it is exposure, not contribution",
            subject=row["node"], level=level,
            band=None if row["mes_low"] is None else (row["mes_low"], row["mes_high"]),
        )  # fmt: skip


def _node_says(history: LeverageHistory, nodes: _Nodes, q: float, level: float) -> Iterator[str]:
    tied = nodes.table.filter(pl.col("delta_covar").is_not_null())
    if tied.is_empty():
        yield (
            "With whom others fall cannot be told: fewer than two nodes have enough steps to take "
            f"prices out of {history.called}."
        )
    else:
        top = tied.row(0, named=True)
        sure = tied.filter(pl.col("high") < 0.0)
        yield (
            f"With {len(sure)} of {len(tied)} nodes the others fall, beyond prices (band of delta "
            f"CoVaR below 0, {percent(level)}, each by itself); with {top['node']} most: at its "
            f"own worst {percent(q)}, the worst {percent(q)} of all others lie "
            f"{_moved(top['delta_covar'])}{_ends(top)}, with {top['tail_steps']} steps in its tail."
        )
    hit = nodes.table.filter(pl.col("mes").is_not_null()).sort("mes", "node")
    if hit.is_empty():
        yield f"What nodes lose with the market cannot be told: {nodes.table['reason'][0]}."
    else:
        top = hit.row(0, named=True)
        yield (
            f"On the market's {nodes.days} worst steps the holdings of {top['node']} return "
            f"{percent(top['mes'])} on average ({percent(top['mes_low'])} to "
            f"{percent(top['mes_high'])}), the least of all nodes; that is exposure to "
            "the market, not what the node adds to it."
        )


def _moved(delta: float) -> str:
    return f"{told(abs(delta))} standard deviations {'lower' if delta < 0.0 else 'higher'}"


def _ends(row: Mapping[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else f" (delta {told(low)} to {told(high)})"
