"""How often series are at their worst together, by rank alone, and how often chance has that.

Rows are instants, oldest first; columns are series of returns or growth, a fall negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from undertow.econometrics import bootstrap
from undertow.econometrics.chance import redirected
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    Verdict,
    frozen,
    matrix,
    paired,
    screen,
    within,
)
from undertow.econometrics.exceedances import (
    CountColumn,
    Side,
    normal_exceedance,
    side_of,
    unfit,
)


@dataclass(frozen=True, slots=True, eq=False)
class TailDependence:
    """Chance that one series is among its own worst (best) rows, given that the other is.

    NaN throughout where a reason stands.
    """

    u: float  # share of rows that are called worst
    lower: float  # of falls
    upper: float  # of rises
    lower_band: tuple[float, float]
    upper_band: tuple[float, float]
    normal: float  # what a normal copula of the same Kendall's tau would show, at this u
    tail_rows: int  # rows that are worst, in each
    lower_count: int  # in both
    upper_count: int
    block: float  # mean run length of the bootstrap
    reason: str  # empty where there is a number


def tail_dependence(
    x: ArrayLike,
    y: ArrayLike,
    u: float = 0.05,
    *,
    rng: np.random.Generator,
    reps: int = 499,
    block: float | None = None,
    level: float = 0.9,
) -> TailDependence:
    """How often two series have their worst days together, by rank alone.

    lambda(u) = rows among the worst floor(u n) of both / floor(u n). Bands are percentiles of a
    stationary bootstrap of rows with mean run `block` (None: as long as the tail days of each
    series cluster); where no row is in both tails, or every row is, resampling knows no doubt,
    and the band is Clopper and Pearson's for as many independent days.

    It is the dependence at this `u`, not its limit at 0: a normal copula has a limit of 0 and
    still some 0.25 at u = 0.05 and correlation 0.5, hence `normal`. It needs some 5 tail rows to
    say anything and some 50 to say it well.

    References
    ----------
    Schmid and Schmidt (2007), J. Multivariate Analysis 98; Frahm, Junker and Schmidt (2005),
    Insurance: Mathematics and Economics 37, on what small samples cannot tell.
    """
    within("u", u, 0.0, 0.5, closed=False)
    within("level", level, 0.0, 1.0)
    a, b = paired("x", x, "y", y)
    k = int(u * len(a) + 1e-9)
    reason = unfit(a, b) or _tied(a, b, k)
    if reason:
        none = (math.nan, math.nan)
        return TailDependence(u, *none, none, none, math.nan, k, 0, 0, 1.0, reason)
    falls, rises = _joint(a, b, k), _joint(-a, -b, k)
    run = _tail_block(a, b, k) if block is None else float(block)
    draws = np.empty((reps, 2))
    for r in range(reps):
        rows = bootstrap.stationary_indices(len(a), run, rng)
        draws[r] = _share(a[rows], b[rows], k), _share(-a[rows], -b[rows], k)
    low, high = bootstrap.band(draws, level)
    bands = [_sure(int(c), k, (float(low[i]), float(high[i])), level)
             for i, c in enumerate((falls.sum(), rises.sum()))]  # fmt: skip
    rho = math.sin(math.pi / 2.0 * float(stats.kendalltau(a, b).statistic))
    normal = normal_exceedance(rho, float(special.ndtri(1.0 - u))).probability / u
    return TailDependence(
        u, _share(a, b, k), _share(-a, -b, k), bands[0], bands[1], normal, k,
        int(falls.sum()), int(rises.sum()), run, "",
    )  # fmt: skip


def _worst(x: FloatColumn, k: int) -> BoolColumn:
    """Rows at or below the k-th lowest value; more than k of them where values tie there."""
    inside: BoolColumn = x <= np.partition(x, k - 1)[k - 1]
    return inside


def _joint(a: FloatColumn, b: FloatColumn, k: int) -> BoolColumn:
    return _worst(a, k) & _worst(b, k)


def _share(a: FloatColumn, b: FloatColumn, k: int) -> float:
    left, right = _worst(a, k), _worst(b, k)
    return float(2.0 * (left & right).sum() / (left.sum() + right.sum()))


def _tail_block(a: FloatColumn, b: FloatColumn, k: int) -> float:
    marks = [_worst(s, k).astype(np.float64) for s in (a, b, -a, -b)]
    return bootstrap.block_lengths(np.column_stack(marks)).joint()


def _tied(a: FloatColumn, b: FloatColumn, k: int) -> str:
    if k < 5:
        return f"{k} tail rows of {len(a)}; 5 are needed: raise u or give more rows"
    for name, x in (("x", a), ("y", b)):
        for word, side in (("lowest", x), ("highest", -x)):
            count = int(_worst(side, k).sum())
            if count > 1.5 * k:
                return f"{count} values of {name} tie as the {word} {k}: there is no tail to rank"
    return ""


def _sure(count: int, k: int, drawn: tuple[float, float], level: float) -> tuple[float, float]:
    beta = (1.0 - level) / 2.0
    if count == 0:
        return 0.0, 1.0 - beta ** (1.0 / k)
    if count >= k:
        return beta ** (1.0 / k), 1.0
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Coexceedances:
    """How many series are in their own tail at once, and how often chance alone does that."""

    counts: CountColumn  # (T,) series in their tail at each row
    seen: CountColumn  # (T,) usable series seen there
    at_least: CountColumn  # (N + 1,) rows with k series or more, k = 0 .. N usable series
    expected: FloatColumn  # (N + 1,) by the null, on average
    low: FloatColumn  # (N + 1,) band of the null
    high: FloatColumn  # (N + 1,)
    p: FloatColumn  # (N + 1,) chance of so many rows, or more, under the null
    alarm: int  # least count that the null passes on any row at all with chance 1 - level
    verdict: Verdict  # which series were used
    reason: str  # empty where there is a null; else expected, low, high and p are NaN


def coexceedances(
    x: ArrayLike,
    q: float = 0.05,
    *,
    rng: np.random.Generator,
    side: Side | str = Side.LOWER,
    reps: int = 499,
    level: float = 0.9,
    least: int = 60,
) -> Coexceedances:
    """Count the series that are below their own `q`-quantile (type 7) at each row.

    The null rebuilds each series from its own past and shocks with the sign of every shock drawn:
    gaps, memory and how loud all were when stay, and only which way each went at the same time is
    broken. As many rows of each are in its tail as were. It asks that shocks are as likely up as
    down by the same amount.
    `alarm` holds for all rows together, `p` for each k by itself. Missing values are allowed;
    series that cannot be used are left out, and `verdict` says why.

    References
    ----------
    Bae, Karolyi and Stulz (2003), "A new approach to measuring financial contagion", Review of
    Financial Studies 16, for coexceedances.
    """
    within("q", q, 0.0, 0.5)
    within("level", level, 0.0, 1.0)
    values = matrix("x", x, rows=2, missing=True)
    signed = values if side_of(side) is Side.LOWER else -values
    marks, verdict = _marks(signed, q, least)
    seen = np.asarray((~np.isnan(marks)).sum(axis=1), dtype=np.int64)
    counts = _counted(marks)
    most = marks.shape[1]
    at_least = _at_least(counts, most)
    if most < 2:
        none = frozen(np.full(most + 1, np.nan))
        reason = f"{most} of {values.shape[1]} series can be used; 2 are needed"
        return Coexceedances(frozen(counts), frozen(seen), frozen(at_least), none, none, none,
                             none, most + 1, verdict, reason)  # fmt: skip
    tails = np.nansum(marks, axis=0).astype(np.int64).tolist()
    worlds = redirected(signed[:, verdict.keep], rng, reps)
    draws = np.array([_at_least(_lowest(made, tails, rng), most) for made in worlds], dtype=float)
    low, high = bootstrap.band(draws, level)
    p = (1.0 + (draws >= at_least).sum(axis=0)) / (1.0 + reps)
    reached = (draws > 0).mean(axis=0) > 1.0 - level
    alarm = int(reached.nonzero()[0].max()) + 1
    return Coexceedances(
        frozen(counts), frozen(seen), frozen(at_least), frozen(draws.mean(axis=0)), frozen(low),
        frozen(high), frozen(p), alarm, verdict, "",
    )  # fmt: skip


def _marks(x: FloatMatrix, q: float, least: int) -> tuple[FloatMatrix, Verdict]:
    """1 in the tail, 0 outside, NaN where not seen; of the series that have a tail."""
    verdict = screen(x, least=least)
    reasons, columns = list(verdict.reasons), []
    for j in np.flatnonzero(verdict.keep):
        column = x[:, j]
        inside = column < np.nanquantile(column, q)
        if not inside.any():
            reasons[j] = f"no value lies below its {q:g} quantile: ties"
            continue
        columns.append(np.where(np.isnan(column), np.nan, inside))
    keep = np.array([not reason for reason in reasons], dtype=np.bool_)
    marks = np.column_stack(columns) if columns else np.empty((len(x), 0))
    return marks, Verdict(frozen(keep), tuple(reasons))


def _lowest(x: FloatMatrix, tails: list[int], rng: np.random.Generator) -> CountColumn:
    """Series in their tail at each row, so many rows of each; what ties falls as luck has it."""
    counts = np.zeros(len(x), dtype=np.int64)
    loose = x + 1e-9 * np.nanmax(np.abs(x), axis=0) * rng.random(x.shape)
    for j, size in enumerate(tails):
        counts[np.argpartition(loose[:, j], size)[:size]] += 1
    return counts


def _counted(marks: FloatMatrix) -> CountColumn:
    return np.asarray(np.nansum(marks, axis=1), dtype=np.int64)


def _at_least(counts: CountColumn, most: int) -> CountColumn:
    exactly = np.bincount(counts, minlength=most + 1)
    return np.asarray(exactly[::-1].cumsum()[::-1], dtype=np.int64)
