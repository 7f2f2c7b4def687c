"""Does leverage grow when what is held grows, or shrink: who buys into rises and sells into falls.

A node whose leverage rises with its assets borrows more than its gains when prices rise and sells
more than its losses when they fall: it is procyclical. One who does nothing has the opposite sign
by arithmetic, for equity moves more than assets do. So a slope is told beside the passive one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.econometrics import hac
from undertow.econometrics.bootstrap import Draws, block_lengths, stationary_bootstrap
from undertow.econometrics.checks import FloatColumn, FloatMatrix, screen, within
from undertow.errors import StateError
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LEAST_ROWS, UNPRICED, Layer, LeverageHistory
from undertow.measures.words import banded, corrected, listed, many, percent, told
from undertow.state import Panel, Reading

_SURE = 0.05


def procyclicality(
    history: LeverageHistory,
    assets: Panel | None = None,
    *,
    seed: int = 0,
    level: float = 0.9,
    lags: int | None = None,
    reps: int = 499,
) -> Study:
    """Slope of the growth of leverage on that of assets, node by node, beside the passive slope.

    `assets` is the asset side in USD, by node; the newest value known at each instant of leverage
    is used. For nodes that it does not have, the return of what they hold stands in. Errors of
    slopes are Newey and West's with `lags` (None: the data choose); the band of the median is from
    a stationary bootstrap of whole steps.

    Raises
    ------
    StateError
        When no node can be used, or assets are not in USD or not positive.
    EstimationError
        When the level or `lags` is out of range.

    References
    ----------
    Adrian and Shin (2010), "Liquidity and leverage", J. Financial Intermediation 19.
    """
    require_history(history)
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    grown, known = _asset_growth(history, assets)
    left_out = dict(history.left_out)
    verdict = screen(grown, least=LEAST_ROWS, name="assets")
    for j, why in verdict.dropped().items():
        if not why.startswith("a copy"):  # nodes may well hold the same
            node = history.labels[j]
            missing = node in history.unpriced and not known[j]
            left_out.setdefault(node, history.unpriced[node] if missing else f"assets: {why}")
    names = tuple(node for node in history.labels if node not in left_out)
    if not names:
        why = "; ".join(f"{node}: {reason}" for node, reason in left_out.items())
        if set(left_out.values()) == {UNPRICED}:
            why = f"{UNPRICED} of any node"
        raise StateError(
            f"no node has growth of {history.called} and of assets", source=history.level.name,
            hint=why,
        )  # fmt: skip
    columns = [history.labels.index(node) for node in names]
    found = _Slopes.of(history, names, columns, grown[:, columns], lags, level)
    rng = np.random.default_rng([seed, 300])
    middle = _median(found.growth, found, rng, reps)
    again = np.random.default_rng([seed, 301])
    acted = None if found.left is None else _median(found.left, found, again, reps)
    stand_ins = tuple(node for node in names if not known[history.labels.index(node)])
    table = found.table(stand_ins)
    return Study(
        "tandem.procyclicality",
        f"Does {history.called} rise with what is held?",
        tuple(_readings(history, table, middle, acted, level)),
        {"slopes": table},
        tuple(_says(history, table, middle, stand_ins, left_out, level)),
        "A slope of 1 means that leverage grows as fast as assets: gains are borrowed against in "
        "full and equity stands still. 0 means a target that is kept. The passive slope is what "
        "prices do to leverage if nobody trades, mostly negative; the active slope is what is left "
        "when that is taken out, and says what holders did. "
        f"{history.pace}",
        "Leverage has assets above and equity, with the same prices, below: a passive holder's "
        "slope is negative by arithmetic, and an error in assets alone pushes it towards 1. Where "
        "the return of what is held stands in for assets, purchases and sales are not in it. Where "
        "positions are not known, the passive slope takes everybody as long: shorts and hedges "
        "make it too low, and the active one too high. It is no cause: forced sales move the "
        f"prices that move assets. {ONE_BASKET}",
        left_out,
    )


def _asset_growth(
    history: LeverageHistory, assets: Panel | None
) -> tuple[FloatMatrix, tuple[bool, ...]]:
    """(steps, nodes) Growth of the asset side, or returns in its place; and which it is."""
    grown = np.array(history.returns)
    if assets is None:
        return grown, (False,) * len(history.labels)
    if assets.unit != "usd":
        raise StateError(
            f"assets are in {assets.unit!r}", source=assets.name, hint="give exposure in 'usd'"
        )
    if (assets.values <= 0.0).any():
        row, column = (int(at[0]) for at in np.nonzero(assets.values <= 0.0))
        raise StateError(
            f"assets are {assets.values[row, column]:g}, and their growth has no logarithm",
            source=assets.name, row=row + 1, column=assets.labels[column],
            hint="leave it out as NaN",
        )  # fmt: skip
    there = tuple(node in assets.labels for node in history.labels)
    for j in np.flatnonzero(there):
        size = np.log(assets.values[:, assets.labels.index(history.labels[j])])
        grown[:, j] = np.diff(_as_of(size, assets, history.level))
    return grown, there


def _as_of(column: FloatColumn, assets: Panel, level: Panel) -> FloatColumn:
    """The newest value there was at each instant of leverage, once since the instant before."""
    some = np.flatnonzero(~np.isnan(column))
    at = np.searchsorted(assets.ts[some], level.ts, side="right") - 1
    fresh = at >= 0
    fresh[1:] &= at[1:] > at[:-1]  # an old value seen twice is no growth of zero
    found = np.full(len(level.ts), np.nan)
    found[fresh] = column[some[at[fresh]]]
    return found


@dataclass(frozen=True, eq=False)
class _Slopes:
    """Fits of growth of leverage, and of what of it is active, on growth of assets, by node."""

    names: tuple[str, ...]
    growth: FloatMatrix  # (steps, nodes)
    assets: FloatMatrix
    fits: tuple[hac.OlsFit, ...]
    passive: tuple[float, ...]  # NaN where not known
    active: tuple[hac.OlsFit | None, ...]
    left: FloatMatrix | None  # (steps, nodes) growth less the passive part, where that is known
    level: float

    @classmethod
    def of(
        cls,
        history: LeverageHistory,
        names: tuple[str, ...],
        columns: list[int],
        assets: FloatMatrix,
        lags: int | None,
        level: float,
    ) -> _Slopes:
        growth = history.growth[:, columns]
        untouched = _untouched(history, columns)
        fits = [hac.ols(growth[:, j], assets[:, j], lags=lags) for j in range(len(names))]
        passive: list[float] = [np.nan] * len(names)
        active: list[hac.OlsFit | None] = [None] * len(names)
        left = None
        if untouched is not None:
            left = growth - untouched
            both = np.where(np.isnan(left), np.nan, untouched)
            for j in range(len(names)):
                passive[j] = float(hac.ols(both[:, j], assets[:, j], lags=0).coef[1])
                active[j] = hac.ols(left[:, j], assets[:, j], lags=lags)
        return cls(names, growth, assets, tuple(fits), tuple(passive), tuple(active), left, level)

    def table(self, stand_ins: tuple[str, ...]) -> pl.DataFrame:
        """One row a node, the steepest first."""
        rows = []
        for j, node in enumerate(self.names):
            fit, active = self.fits[j], self.active[j]
            low, high = fit.band(self.level)
            least, most = (np.full(2, np.nan),) * 2 if active is None else active.band(self.level)
            rows.append(
                {
                    "node": node,
                    "slope": float(fit.coef[1]),
                    "low": float(low[1]),
                    "high": float(high[1]),
                    "t": float(fit.t[1]) if np.isfinite(fit.t[1]) else np.nan,
                    "p_value": float(fit.p[1]),
                    "rows": fit.rows,
                    "passive": self.passive[j],
                    "active": np.nan if active is None else float(active.coef[1]),
                    "active_low": float(least[1]),
                    "active_high": float(most[1]),
                    "active_p": np.nan if active is None else float(active.p[1]),
                    "assets": "return of what it holds" if node in stand_ins else "asset side",
                    "reason": fit.status,
                }
            )
        table = pl.DataFrame(rows)
        table = table.with_columns(p_corrected=corrected(table["p_value"].to_numpy())).fill_nan(
            None
        )
        return table.sort("slope", "node", descending=[True, False], nulls_last=True)


def _untouched(history: LeverageHistory, columns: list[int]) -> FloatMatrix | None:
    """(steps, nodes) Growth of leverage had nobody traded: by positions, or by its own arithmetic.

    With debt as it is, equity grows by leverage times the return of what is held, so leverage grows
    by (1 - leverage) times it. Of a proxy nothing of the kind is known.
    """
    if history.revaluation is not None:
        return np.asarray(history.revaluation[:, columns])
    if history.called != "leverage":
        return None
    return np.asarray((1.0 - history.level.values[:-1, columns]) * history.returns[:, columns])


def _median(growth: FloatMatrix, found: _Slopes, rng: np.random.Generator, reps: int) -> Draws:
    """The median slope over nodes, and how it moves when steps are drawn again."""
    rows = np.column_stack([growth, found.assets])
    keep = [j for j, fit in enumerate(found.fits) if np.isfinite(fit.coef[1])]
    run = block_lengths(growth[:, keep] * found.assets[:, keep]).joint() if keep else 1.0
    return stationary_bootstrap(_median_slope, rows, rng=rng, reps=reps, block=run)


def _median_slope(rows: FloatMatrix) -> float:
    y, x = np.split(rows, 2, axis=1)
    both = ~(np.isnan(y) | np.isnan(x))
    count = np.maximum(both.sum(axis=0), 1)
    a, b = (np.where(both, v, 0.0) for v in (x, y))
    a, b = (np.where(both, v - v.sum(axis=0) / count, 0.0) for v in (a, b))
    size = (a * a).sum(axis=0)
    slope = np.divide((a * b).sum(axis=0), size, out=np.full(len(size), np.nan), where=size > 0.0)
    known = slope[~np.isnan(slope)]
    return float(np.median(known)) if known.size else np.nan


def _procyclical(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter((pl.col("slope") > 0.0) & (pl.col("p_corrected") < _SURE))


def _readings(
    history: LeverageHistory,
    table: pl.DataFrame,
    middle: Draws,
    acted: Draws | None,
    level: float,
) -> Iterator[Reading]:
    called = history.called
    words = f"slope of growth of {called} ({Layer.RAW.words}) on growth of assets"
    low, high = middle.band(level)
    yield history.tell(
        "median_slope", float(middle.estimate), f"{words}, median over nodes",
        band=(float(low), float(high)), level=level,
    )  # fmt: skip
    yield history.tell(
        "procyclical_share", len(_procyclical(table)) / len(table),
        f"share of nodes with a positive {words}, p below 0.05 after correction for all nodes; a "
        "count of tests, with no band",
    )  # fmt: skip
    least, most = (np.nan, np.nan) if acted is None else acted.band(level)
    active = table["active"].drop_nulls().to_numpy()
    yield history.tell(
        "median_active_slope", float(np.median(active)) if active.size else None,
        f"{words}, less what prices do to leverage that nobody touches, median over nodes; none "
        "where that is not known",
        band=(float(least), float(most)),
        level=level,
    )  # fmt: skip
    for row in table.iter_rows(named=True):
        yield history.tell(
            "slope", row["slope"], f"{words} ({row['assets']})", subject=row["node"],
            band=None if row["low"] is None else (row["low"], row["high"]), level=level,
            rows=len(history.ts),
        )  # fmt: skip


def _says(
    history: LeverageHistory,
    table: pl.DataFrame,
    middle: Draws,
    stand_ins: tuple[str, ...],
    left_out: Mapping[str, str],
    level: float,
) -> Iterator[str]:
    low, high = (float(end) for end in middle.band(level))
    rising, called = _procyclical(table), history.called
    falling = table.filter((pl.col("slope") < 0.0) & (pl.col("p_corrected") < _SURE))
    said = f"{len(rising)} of {len(table)} nodes are procyclical: their {called} grows with assets"
    if len(rising):
        said += f" ({listed(rising['node'])})"
    yield (
        f"{said}. The median slope is {banded(float(middle.estimate), low, high)}, with a "
        f"band of {percent(level)}; {many(len(falling), 'node')} with a negative one beyond chance."
    )
    split = table.filter(pl.col("active").is_not_null() & pl.col("passive").is_not_null())
    if len(split):
        how = (
            "as positions were" if history.revaluation is not None
            else "at 1 less leverage, as for holders who are long with unchanged debt"
        )  # fmt: skip
        buying = split.filter((pl.col("active") > 0.0) & (pl.col("active_p") < _SURE))
        yield (
            f"Had nobody traded, the median slope would be {told(_median_of(split, 'passive'))} "
            f"({how}); beyond that it is {told(_median_of(split, 'active'))}, and {len(buying)} of "
            f"{len(split)} nodes add to risk as assets grow (p below 0.05 each)."
        )
        if len(buying) > len(rising):
            yield (
                "Both hold at once: prices that rise lower the leverage of who does nothing, and "
                "holders who add to risk take back a part of that; only who takes back more than "
                "all of it is procyclical."
            )
    else:
        yield (
            f"What prices alone would do to {called} is not known, so a slope cannot be split "
            "into arithmetic and what holders did."
        )
    if stand_ins:
        yield (
            f"For {listed(stand_ins)} the asset side is not known, and the return of what they "
            "hold stands in: purchases and sales are not in it."
        )
    if left_out:
        yield f"{many(len(left_out), 'node')} left out, for the reasons given."


def _median_of(table: pl.DataFrame, column: str) -> float:
    return float(np.median(table[column].to_numpy()))
