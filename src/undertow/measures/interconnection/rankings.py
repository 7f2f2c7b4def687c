"""Rankings of nodes: what each is, and what it gives, once and over draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from undertow.econometrics.debtrank import Spread
from undertow.econometrics.firesales import contagion_index
from undertow.econometrics.partial_links import drawn_from
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.redrawn import FEW, Redrawn, added
from undertow.measures.crowding.sheets import Sheets, overlaps
from undertow.measures.interconnection.candidates import Candidate, Field
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.failing import Bench, redrawn
from undertow.measures.interconnection.untold import Untold
from undertow.measures.interconnection.web import Web
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.systemic import systemic
from undertow.state import FloatColumn, FloatMatrix
from undertow.stress.contagion import Assumptions

MARKS = ("debtrank", "single_hit", "diffusion")  # rankings by claims alone
CIRCLE, _CIRCLE_DRAWN = 1_500, 100  # parties that all reach each other: more take too long
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


def marks(net: ClaimsNet, found: Sequence[Candidate], most: int) -> dict[str, FloatColumn]:
    """By candidate: what its default marks down at others, and its part in what travels.

    NaN of who is no party of the claims, and of what travels in circles of more than `most`.
    """
    some = [n for n, each in enumerate(found) if len(each.parties)]
    marks = {name: np.full(len(found), np.nan) for name in MARKS}
    if some and len(net.names):
        parties = [found[n].parties for n in some]
        marks["debtrank"][some] = net.defaults(parties, Spread.CONTINUOUS)
        marks["single_hit"][some] = net.defaults(parties, Spread.ONCE)
        if net.impacts.circle <= most:
            marks["diffusion"][some] = net.diffusion(parties)
    return marks


def drawn_marks(
    calm: Any, net: ClaimsNet, found: Sequence[Candidate], draws: int, error: float, seed: int,
    assumed: Assumptions,
) -> dict[str, FloatMatrix | None]:  # fmt: skip
    """The same where missing links are drawn, and every claim is known to an error."""
    if not len(net.usd) or not any(len(each.parties) for each in found):
        return dict.fromkeys(MARKS)
    rng = np.random.default_rng([seed, 89])
    family = Untold(calm, calm.settlement, 1.0)
    streams = [drawn_from(each, draws, seed=seed + 31 * n) for n, each in enumerate(family.open)]
    rows: dict[str, list[FloatColumn]] = {name: [] for name in MARKS}
    for _ in range(draws):
        if streams:
            networks = tuple(next(stream) for stream in streams)
            told_net = ClaimsNet.of(family.filled(networks).settlement, assumed)
        else:
            told_net = net
        shaken = told_net.shaken(
            np.exp(error * rng.standard_normal(len(told_net.usd)) - 0.5 * error**2)
        )
        for name, values in marks(shaken, found, _CIRCLE_DRAWN).items():
            rows[name].append(values)
    drawn = {name: np.array(each) for name, each in rows.items()}
    return {name: x if np.isfinite(x).any(axis=1).all() else None for name, x in drawn.items()}


def centrality(
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


def drawn_passes(
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


def by_redraws(
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


def lost_draws(drawn: FloatMatrix | None) -> int:
    """How many redrawn books gave no number."""
    return 0 if drawn is None else int((~np.isfinite(drawn).any(axis=1)).sum())


def costliest(cost: FloatColumn, count: int) -> list[int]:
    """The candidates that cost most, of those that cost anything."""
    some = np.flatnonzero(np.isfinite(cost) & (cost > 0.0))
    return [int(n) for n in some[np.argsort(-cost[some], kind="stable")][:count]]


def delta_covar(
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
