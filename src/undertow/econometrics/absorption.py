"""How much of all movement a few common directions absorb, at one instant and over time.

Rows of `x` are instants, columns are series. Where a few eigenvectors absorb most of the variance,
whatever moves one series moves all: the state in which shocks spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import (
    FloatColumn,
    FloatMatrix,
    chosen,
    frozen,
    matrix,
    series,
    within,
)
from undertow.econometrics.moments import rolling_moments, window_moments
from undertow.errors import EstimationError
from undertow.kernels import spectral

_BLOCK = 256  # steps that are worked out together


class Input(StrEnum):
    """The matrix whose eigenvalues are counted."""

    COVARIANCE = "covariance"  # loud series weigh more, as in the literature
    CORRELATION = "correlation"  # all series weigh the same


@dataclass(frozen=True, slots=True, eq=False)
class Absorption:
    """Share of the variance of all series that the `top` largest eigenvalues take."""

    ratio: float  # NaN where `status` says why
    top: int
    series: int
    eigenvalues: FloatColumn  # (series,), largest first
    status: str


@dataclass(frozen=True, slots=True, eq=False)
class AbsorptionPath:
    """The absorption ratio at every step of a sliding window.

    A step knows the series that its window shows whole and, of a correlation, that moved: `series`
    of them. Where their number changes, the ratio jumps for that reason alone. It is NaN where
    fewer than two are left, or the fraction of them is less than one half.
    """

    first_row: int  # of x, to which step 0 belongs
    ratio: FloatColumn  # (steps,)
    participation: FloatColumn  # (steps,): effective number of series, trace^2 / sum of squares
    series: NDArray[np.int64]  # (steps,)
    top: NDArray[np.int64]  # (steps,): eigenvalues counted
    status: str


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """How far the recent mean of a path is from its longer one, in standard deviations of it."""

    first_row: int  # of the path, to which step 0 belongs
    values: FloatColumn  # (steps,): NaN where a value was missing or the path stood still
    status: str


def absorption_ratio(x: Any, *, fraction: float = 0.2, of: Input = Input.COVARIANCE) -> Absorption:
    """Sum of the largest eigenvalues over the sum of all, of the sample matrix of `x`.

    As many are counted as `fraction` of the series, a half rounded up. High and rising means one
    bet in many names. Levels that drift are absorbed almost wholly whatever they share: give
    growth or returns. With rows not far above series noise alone absorbs much more than
    `fraction`; hold it against `common_factor`.

    References
    ----------
    Kritzman, Li, Page and Rigobon (2011), "Principal components as a measure of systemic risk".
    """
    given, of = matrix("x", x, columns=2), chosen("of", Input, of)
    top = counted(fraction, given.shape[1])
    if top < 1:
        raise EstimationError(
            f"fraction was {fraction:g}; of {given.shape[1]} series it counts no eigenvalue",
            hint=f"take at least {0.5 / given.shape[1]:g}",
        )
    centred = given - given[0]
    centred -= centred.mean(axis=0)
    still = np.ptp(given, axis=0) == 0.0
    if still.all() or (of is Input.CORRELATION and still.any()):
        nothing = np.full(given.shape[1], np.nan)
        words = f"column {int(np.argmax(still))} stood still"
        return Absorption(np.nan, top, given.shape[1], frozen(nothing), words)
    if of is Input.CORRELATION:
        centred /= centred.std(axis=0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / (len(given) - 1))[::-1].copy()
    ratio = float(eigenvalues[:top].sum() / eigenvalues.sum())
    return Absorption(ratio, top, given.shape[1], frozen(eigenvalues), "")


def absorption_path(
    x: Any,
    window: int,
    *,
    fraction: float = 0.2,
    of: Input = Input.COVARIANCE,
    threads: int = 1,
) -> AbsorptionPath:
    """The absorption ratio of the last `window` rows, at every row.

    Every step stands on its own, within 1e-8 at worst and 1e-14 as a rule: co-moments slide, each
    matrix is brought to three diagonals, and its largest eigenvalues are found from where they were
    one step before. Steps are split in fixed blocks, so any number of `threads` gives the same
    bits.

    Raises
    ------
    EstimationError
        When x is no matrix of at least `window` rows and two columns, or a number is out of range.

    References
    ----------
    Kritzman, Li, Page and Rigobon (2011), "Principal components as a measure of systemic risk".
    """
    given, of = matrix("x", x, rows=window, columns=2, missing=True), chosen("of", Input, of)
    if window < 3:
        raise EstimationError(f"window was {window}; it needs at least 3 rows")
    if threads < 1:
        raise EstimationError(f"threads was {threads}; it needs at least 1")
    counted(fraction, given.shape[1])
    count, _, square, restart = window_moments(given, window)
    used = count == window
    if of is Input.CORRELATION:
        used &= square > 0.0
    steps = len(restart)
    ratio, participation = np.full(steps, np.nan), np.full(steps, np.nan)
    sizes = used.sum(axis=1)
    tops = np.array([counted(fraction, int(n)) for n in range(given.shape[1] + 1)])[sizes]
    blocks = _Blocks(given, window, of, square, restart, used, tops, ratio, participation)
    bounds = list(_bounds(used))
    if threads == 1:
        for lo, hi in bounds:
            blocks.fill(lo, hi)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda each: blocks.fill(*each), bounds))
    short = int(np.isnan(ratio).sum())
    status = f"{short:,} of {steps:,} steps have too few series that moved" if short else ""
    return AbsorptionPath(
        window - 1, frozen(ratio), frozen(participation), frozen(sizes), frozen(tops), status
    )


def standardised_shift(path: Any, *, short: int = 15, long: int = 252) -> Shift:
    """(mean of the last `short` values - mean of the last `long`) / sd of the last `long`.

    Above 1 the state has tightened faster than it used to within the year. The long window holds
    the short one; its standard deviation divides by long - 1. Ratios of neighbouring steps share
    nearly all of their rows, so runs above 1 are long, and few of them are independent.

    References
    ----------
    Kritzman, Li, Page and Rigobon (2011), "Principal components as a measure of systemic risk".
    """
    if not 1 <= short < long:
        raise EstimationError(f"short was {short}, long {long}; short must be less, at least 1")
    given = series("path", path, rows=long, missing=True)[:, None]
    whole = rolling_moments(given, long, least=long)
    late = given[long - max(short, 2) :]
    recent = rolling_moments(late, short, least=short).mean if short > 1 else late[1:]
    spread = np.sqrt(whole.variance[:, 0])
    some = spread > 0.0
    gap = recent[:, 0] - whole.mean[:, 0]
    values = np.where(some, gap / np.where(some, spread, 1.0), np.nan)
    empty = int(np.isnan(values).sum())
    status = f"{empty:,} of {len(values):,} steps miss a value or stood still" if empty else ""
    return Shift(long - 1, frozen(values), status)


def counted(fraction: float, series: int) -> int:
    """How many eigenvalues a fraction of the series is: a half rounds up."""
    within("fraction", fraction, 0.0, 1.0, closed=True)
    return int(Decimal(fraction * series).to_integral_value(rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """What a block of steps is worked out from, and where its results go."""

    x: FloatMatrix
    window: int
    of: Input
    square: FloatMatrix
    restart: NDArray[np.bool_]
    used: NDArray[np.bool_]
    tops: NDArray[np.int64]
    ratio: FloatColumn
    participation: FloatColumn

    def fill(self, lo: int, hi: int) -> None:
        """The steps lo:hi, throughout which the same series are used."""
        used = self.used[lo]
        if used.sum() < 2 or self.tops[lo] < 1:
            return
        x = np.ascontiguousarray(self.x[lo : hi + self.window - 1, used])
        square = self.square[lo:hi, used]
        ones = np.ones_like(square)
        scale = ones if self.of is Input.COVARIANCE else 1.0 / np.sqrt(square)
        diagonal = np.ascontiguousarray(square) if self.of is Input.COVARIANCE else ones
        spectral.absorbed(
            x,
            self.window,
            0,
            self.restart[lo:hi],
            scale,
            diagonal,
            int(self.tops[lo]),
            self.ratio[lo:hi],
            self.participation[lo:hi],
        )


def _bounds(used: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Blocks of steps: at most _BLOCK long, cut where the series change."""
    changes = np.flatnonzero((used[1:] != used[:-1]).any(axis=1)) + 1
    regular = np.arange(0, len(used), _BLOCK)
    cuts = np.union1d(np.union1d(regular, changes), [len(used)])
    return pairwise(int(cut) for cut in cuts)
