"""Is there a common factor, or would as large an eigenvalue come of chance?

Rows of `x` are instants, columns are series, nothing is missing. The test asks how large a share of
the trace of the correlation matrix the largest eigenvalue takes, and the few largest together, and
compares with worlds in which the series have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

import numpy as np
from scipy.stats import gamma

from undertow.econometrics.absorption import counted
from undertow.econometrics.autoregression import FloatStack
from undertow.econometrics.bootstrap import block_shifts
from undertow.econometrics.chance import redirected
from undertow.econometrics.checks import (
    FloatColumn,
    FloatMatrix,
    chosen,
    frozen,
    matrix,
    screen,
    within,
)
from undertow.econometrics.spectrum import EffectiveNumber, effective_number
from undertow.errors import EstimationError

_LEAST = 10  # rows, for a correlation to mean anything
_BATCH = 50  # worlds that are remade together
_MEAN, _VARIANCE, _SKEW = -1.2065335745820, 1.607781034581, 0.29346452408  # of Tracy-Widom, order 1


class FactorNull(StrEnum):
    """The world without a common factor that the data are held against."""

    RANDOM_MATRIX = "random matrix"  # Tracy and Widom's law: independent normal values
    GAUSSIAN = "gaussian"  # the same by simulation, exact for any size
    PERMUTED = "permuted"  # each series' own values in random order: keeps fat tails
    SHIFTED = "shifted"  # each series turned round by a random lag: keeps its serial dependence
    FLIPPED = "flipped"  # the sign of each shock at random: keeps how loud all were when


@dataclass(frozen=True, slots=True, eq=False)
class FactorTest:
    """The largest eigenvalues of a correlation matrix against a world without a common factor.

    Of `RANDOM_MATRIX` there is no law of the absorption: `p_absorption` and its band are NaN, and
    there are no draws. All is NaN where `status` says why: a series that stood still, is
    too short or repeats another, which would make a factor of the two.
    """

    null: FactorNull
    largest: float  # share of the largest eigenvalue in the trace
    absorption: float  # share of the `top` largest
    top: int
    p_largest: float  # chance of so large a share, or a larger one, without a common factor
    p_absorption: float
    band_largest: tuple[float, float]  # where the null keeps it with `level`
    band_absorption: tuple[float, float]
    draws_largest: FloatColumn  # (draws,)
    draws_absorption: FloatColumn  # (draws,)
    high: FloatColumn  # (series,): of each eigenvalue, the largest first, that end of its band
    effective: EffectiveNumber | None
    status: str


def common_factor(
    x: Any,
    *,
    rng: np.random.Generator,
    null: FactorNull = FactorNull.FLIPPED,
    fraction: float = 0.2,
    draws: int = 999,
    level: float = 0.9,
    again: Callable[[FloatStack], FloatStack] | None = None,
) -> FactorTest:
    """Test for a common factor by the share of the largest eigenvalue, and by the absorption ratio.

    A p-value is (1 + draws as large) / (1 + draws). `FLIPPED` takes each series for what its own
    past (an autoregression) and its shocks make of it, and draws the sign of every shock at random.
    How large each was stays, and so does when: where all are loud at once, even unrelated series
    correlate by chance far more than at other times, and the other nulls, which move values in
    time, take that for a factor. It asks that shocks are as likely up as down by the same amount.
    `SHIFTED` turns each series as a ring by a lag of its own and so keeps any memory, but for one
    seam; it is wrong where volatility is shared. The other nulls are for independent rows.

    Where series were made by estimates that all share regressors, hand what made them as `again`
    (`Purged.again`): drawn worlds go through it too, so what its noise ties is in the null.

    Raises
    ------
    EstimationError
        When x has gaps or fewer than two columns, or an argument is out of range.

    References
    ----------
    Johnstone (2001), "On the distribution of the largest eigenvalue in principal components
    analysis". Chiani (2014), "Distribution of the largest eigenvalue for real Wishart and Gaussian
    random matrices and a simple approximation for the Tracy-Widom distribution". Davison and
    Hinkley (1997), "Bootstrap methods and their application", on Monte Carlo tests. Kritzman, Li,
    Page and Rigobon (2011), "Principal components as a measure of systemic risk". Liu (1988),
    "Bootstrap procedures under some non-i.i.d. models", on signs at random.
    """
    given, null = matrix("x", x, rows=4, columns=2), chosen("null", FactorNull, null)
    within("level", level, 0.0, 1.0)
    if draws < 1:
        raise EstimationError(f"draws was {draws}; it needs at least 1")
    top = max(counted(fraction, given.shape[1]), 1)
    still = np.flatnonzero(np.ptp(given, axis=0) == 0.0)
    if still.size:
        return _nothing(null, top, f"column {still[0]} stood still: it has no correlation")
    for column, why in screen(given, least=_LEAST).dropped().items():
        return _nothing(null, top, f"column {column} cannot be used: {why}")
    standard = _standardised(given)
    largest, absorption = _shares(_eigenvalues(standard), top)
    effective = effective_number(standard.T @ standard / len(given))
    if null is FactorNull.RANDOM_MATRIX:
        p, band = _tracy_widom(largest, len(given), given.shape[1], level)
        none = frozen(np.empty(0))
        return FactorTest(
            null, largest, absorption, top, p, np.nan, band, (np.nan, np.nan),
            none, none, none, effective, "",
        )  # fmt: skip
    worlds = _worlds(standard, null, draws, rng)
    worlds = worlds if again is None else _redone(worlds, again)
    drawn = np.array([_eigenvalues(_standardised(w)) for w in worlds])
    one, few = (np.array(column) for column in zip(*(_shares(e, top) for e in drawn), strict=True))
    return FactorTest(
        null,
        largest,
        absorption,
        top,
        _p_value(one, largest),
        _p_value(few, absorption),
        _middle(one, level),
        _middle(few, level),
        frozen(one),
        frozen(few),
        frozen(np.quantile(drawn, 0.5 + 0.5 * level, axis=0)),
        effective,
        "",
    )


def _worlds(
    x: FloatMatrix, null: FactorNull, draws: int, rng: np.random.Generator
) -> Iterator[FloatMatrix]:
    """Panels like x in which no series has to do with another."""
    if null is FactorNull.FLIPPED:
        return redirected(x, rng, draws)
    makers: dict[FactorNull, Callable[[], FloatMatrix]] = {
        FactorNull.GAUSSIAN: lambda: rng.standard_normal(x.shape),
        FactorNull.PERMUTED: lambda: rng.permuted(x, axis=0),
        FactorNull.SHIFTED: lambda: block_shifts(x, rng),
    }
    make = makers[null]
    return (make() for _ in range(draws))


def _redone(
    worlds: Iterator[FloatMatrix], again: Callable[[FloatStack], FloatStack]
) -> Iterator[FloatMatrix]:
    while some := list(islice(worlds, _BATCH)):
        yield from again(np.stack(some))


def _standardised(x: FloatMatrix) -> FloatMatrix:
    centred = x - x[0]
    centred -= centred.mean(axis=0)
    scaled: FloatMatrix = centred / centred.std(axis=0)
    return scaled


def _eigenvalues(standard: FloatMatrix) -> FloatColumn:
    """Of the correlation matrix, the largest first; 0 beyond its rank."""
    rows, n = standard.shape
    small = standard.T @ standard if n <= rows else standard @ standard.T
    found = np.zeros(n)
    found[: min(rows, n)] = np.linalg.eigvalsh(small / rows)[::-1]
    return found


def _shares(eigenvalues: FloatColumn, top: int) -> tuple[float, float]:
    """Of the trace: the largest eigenvalue, and the `top` largest."""
    n = len(eigenvalues)
    return float(eigenvalues[0] / n), float(eigenvalues[:top].sum() / n)


def _tracy_widom(
    largest: float, rows: int, n: int, level: float
) -> tuple[float, tuple[float, float]]:
    """P-value of a largest share, and where chance keeps it; the law as a gamma by its moments."""
    free = rows - 1  # a mean was taken off
    a, b = np.sqrt(free - 1.0), np.sqrt(n)
    centre, scale = (a + b) ** 2, (a + b) * (1.0 / a + 1.0 / b) ** (1.0 / 3.0)
    shape = 4.0 / _SKEW**2
    width = np.sqrt(_VARIANCE / shape)
    law = gamma(shape, loc=_MEAN - shape * width, scale=width)
    tails = law.ppf([0.5 - 0.5 * level, 0.5 + 0.5 * level])
    low, high = (centre + scale * tails) / free / n
    return float(law.sf((largest * n * free - centre) / scale)), (float(low), float(high))


def _p_value(null: FloatColumn, seen: float) -> float:
    return float((1 + (null >= seen).sum()) / (1 + len(null)))


def _middle(null: FloatColumn, level: float) -> tuple[float, float]:
    low, high = np.quantile(null, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    return float(low), float(high)


def _nothing(null: FactorNull, top: int, status: str) -> FactorTest:
    none = (np.nan, np.nan)
    empty = frozen(np.empty(0))
    return FactorTest(
        null, np.nan, np.nan, top, np.nan, np.nan, none, none, empty, empty, empty, None, status
    )
