"""Is there a common factor, or would as large an eigenvalue come of chance?

Rows of `x` are instants, columns are series, nothing is missing. The test asks how large a share of
the trace of the correlation matrix the largest eigenvalue takes, and the few largest together, and
compares with worlds in which the series have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.stats import gamma

from undertow.econometrics.absorption import counted
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.econometrics.pairwise import chosen
from undertow.econometrics.spectrum import EffectiveNumber, effective_number
from undertow.errors import EstimationError

_MEAN, _VARIANCE, _SKEW = -1.2065335745820, 1.607781034581, 0.29346452408  # of Tracy-Widom, order 1


class Null(StrEnum):
    """The world without a common factor that the data are held against."""

    RANDOM_MATRIX = "random matrix"  # Tracy and Widom's law: independent normal values
    GAUSSIAN = "gaussian"  # the same by simulation, exact for any size
    PERMUTED = "permuted"  # each series' own values in random order: keeps fat tails
    SHIFTED = "shifted"  # each series turned round by a random lag: keeps its serial dependence


@dataclass(frozen=True, slots=True, eq=False)
class FactorTest:
    """The largest eigenvalues of a correlation matrix against a world without a common factor.

    Of `RANDOM_MATRIX` there is no law of the absorption: `p_absorption` and its band are NaN, and
    there are no draws. All is NaN where `status` says why.
    """

    null: Null
    largest: float  # share of the largest eigenvalue in the trace
    absorption: float  # share of the `top` largest
    top: int
    p_largest: float  # chance of so large a share, or a larger one, without a common factor
    p_absorption: float
    band_largest: tuple[float, float]  # where the null keeps it with `level`
    band_absorption: tuple[float, float]
    draws_largest: FloatColumn  # (draws,)
    draws_absorption: FloatColumn  # (draws,)
    effective: EffectiveNumber | None
    status: str


def common_factor(
    x: Any,
    *,
    rng: np.random.Generator,
    null: Null = Null.SHIFTED,
    fraction: float = 0.2,
    draws: int = 999,
    level: float = 0.9,
) -> FactorTest:
    """Test for a common factor by the share of the largest eigenvalue, and by the absorption ratio.

    A p-value is (1 + draws as large) / (1 + draws). Take `SHIFTED` unless rows are known to be
    independent: two slow series correlate by chance far more than two fast ones, and the other
    nulls take that for a factor. It turns each series as a ring by a lag of its own, so everything
    a series does by itself stays, but for one seam, and what happens at the same time is broken.
    That includes volatility which rises everywhere at once: such series have larger correlations by
    chance than the shifted ones, so scale by volatility first.

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
    Page and Rigobon (2011), "Principal components as a measure of systemic risk".
    """
    given, null = matrix("x", x, rows=4, columns=2), chosen("null", Null, null)
    within("level", level, 0.0, 1.0)
    if draws < 1:
        raise EstimationError(f"draws was {draws}; it needs at least 1")
    top = max(counted(fraction, given.shape[1]), 1)
    still = np.flatnonzero(np.ptp(given, axis=0) == 0.0)
    if still.size:
        return _nothing(null, top, f"column {still[0]} stood still: it has no correlation")
    standard = _standardised(given)
    largest, absorption = _shares(standard, top)
    effective = effective_number(standard.T @ standard / len(given))
    if null is Null.RANDOM_MATRIX:
        p, band = _tracy_widom(largest, len(given), given.shape[1], level)
        return FactorTest(
            null, largest, absorption, top, p, np.nan, band, (np.nan, np.nan),
            frozen(np.empty(0)), frozen(np.empty(0)), effective, "",
        )  # fmt: skip
    worlds = (_shares(_standardised(world), top) for world in _worlds(standard, null, draws, rng))
    one, few = (np.array(column) for column in zip(*worlds, strict=True))
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
        effective,
        "",
    )


def _worlds(
    x: FloatMatrix, null: Null, draws: int, rng: np.random.Generator
) -> Iterator[FloatMatrix]:
    """Panels like x in which no series has to do with another."""
    rows, n = x.shape
    at = np.arange(rows)[:, None]
    makers: dict[Null, Callable[[], FloatMatrix]] = {
        Null.GAUSSIAN: lambda: rng.standard_normal((rows, n)),
        Null.PERMUTED: lambda: rng.permuted(x, axis=0),
        Null.SHIFTED: lambda: np.take_along_axis(x, (at + rng.integers(rows, size=n)) % rows, 0),
    }
    make = makers[null]
    return (make() for _ in range(draws))


def _standardised(x: FloatMatrix) -> FloatMatrix:
    centred = x - x[0]
    centred -= centred.mean(axis=0)
    scaled: FloatMatrix = centred / centred.std(axis=0)
    return scaled


def _shares(standard: FloatMatrix, top: int) -> tuple[float, float]:
    """Of the trace of the correlation matrix: the largest eigenvalue, and the `top` largest."""
    rows, n = standard.shape
    small = standard.T @ standard if n <= rows else standard @ standard.T
    eigenvalues = np.linalg.eigvalsh(small / rows)
    return float(eigenvalues[-1] / n), float(eigenvalues[-top:].sum() / n)


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


def _nothing(null: Null, top: int, status: str) -> FactorTest:
    none = (np.nan, np.nan)
    empty = frozen(np.empty(0))
    return FactorTest(
        null, np.nan, np.nan, top, np.nan, np.nan, none, none, empty, empty, None, status
    )
