"""Means, variances and correlations over time, in a window that slides.

Rows of `x` are instants, oldest first, columns are series, NaN is a value that was not observed. A
pair is judged over the rows that both showed. Windows are always whole: the first result stands at
the row that completes the first one, `first_row`. Levels may be as large as they like: sums run
over differences from a level nearby, and carry what rounding took from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix
from undertow.errors import EstimationError
from undertow.kernels import ranks as rank_kernels
from undertow.kernels import rolling

IntMatrix = NDArray[np.int32]

_SEEN = 0.8  # share of a window that has to be seen, unless `least` says otherwise
_EVERY = 1024  # steps after which sums restart in any case
_BLOCK = 16 * 2**20  # bytes of a block of steps
FEWEST = 3  # joint values under which no correlation is formed


@dataclass(frozen=True, slots=True, eq=False)
class RollingMoments:
    """Mean and variance of each series, step by step; NaN where fewer than `least` were seen."""

    first_row: int  # of x, to which step 0 belongs
    mean: FloatMatrix  # (steps, series)
    variance: FloatMatrix  # (steps, series): divided by count - 1
    count: IntMatrix  # (steps, series): values seen
    status: str  # why some are NaN; empty where none is


@dataclass(frozen=True, slots=True, eq=False)
class RollingPairs:
    """One number for each pair of series, step by step.

    `values` is NaN where a pair showed fewer than `least` values together, and of a correlation
    where one of the two stood still; `status` says how many there are of each.
    """

    first_row: int  # of x, to which step 0 belongs
    pairs: IntMatrix  # (pairs, 2): columns i < j of x
    values: NDArray[Any]  # (steps, pairs), of the dtype that was asked for
    diagonal: FloatMatrix  # (steps, series): ones, or variances
    missing: int  # how many of `values` are NaN
    status: str

    def of(self, i: int, j: int) -> NDArray[Any]:
        """The path of one pair, in either order."""
        wanted = np.sort([i, j])
        at = np.flatnonzero((self.pairs == wanted).all(axis=1))
        if not at.size:
            raise EstimationError(
                f"there is no pair of {i} and {j} among {self.diagonal.shape[1]} series",
                hint="name two different columns of x",
            )
        path: NDArray[Any] = self.values[:, at[0]]
        return path

    def matrix(self, step: int) -> FloatMatrix:
        """All pairs at one step, symmetric; with gaps it may have negative eigenvalues."""
        i, j = self.pairs.T
        whole = np.diag(self.diagonal[step])
        whole[i, j] = whole[j, i] = self.values[step]
        return whole


@dataclass(frozen=True, slots=True, eq=False)
class RollingMeanCorrelation:
    """Mean correlation over all pairs, step by step; NaN where no pair has one."""

    first_row: int
    values: FloatColumn  # (steps,)
    used: NDArray[np.int64]  # (steps,): pairs that entered
    status: str


def rolling_moments(x: Any, window: int, *, least: int | None = None) -> RollingMoments:
    """Mean and variance of each series over the last `window` rows."""
    given = matrix("x", x, rows=window, missing=True)
    least = _least(window, least, fewest=2)
    count, mean, square, _ = window_moments(given, window)
    few = count < least
    mean[few] = square[few] = np.nan
    square /= np.maximum(count, 2) - 1
    status = too_few(few, least)
    return RollingMoments(window - 1, frozen(mean), frozen(square), frozen(count), status)


def rolling_correlation(
    x: Any, window: int, *, least: int | None = None, dtype: DTypeLike = np.float64
) -> RollingPairs:
    """Pearson's correlation of every pair over the last `window` rows.

    A correlation over w independent rows has a standard error near (1 - rho^2) / sqrt(w); with 20
    rows a true 0 wanders within +-0.4. It rises when volatility does, although nothing else
    changed, and neighbouring steps share all but one row. A pair needs `least` joint values, four
    fifths of the window unless said.

    200 series over 20,000 steps are 3.2 GB as float64: ask for float32, or walk through
    `rolling_correlation_blocks`, or for the mean alone (`rolling_mean_correlation`).

    Raises
    ------
    EstimationError
        When x is no matrix of at least `window` rows and two columns, or a number is out of range.
    """
    return _rolled(x, window, least, dtype, norm=True)


def rolling_covariance(
    x: Any, window: int, *, least: int | None = None, dtype: DTypeLike = np.float64
) -> RollingPairs:
    """Covariance of every pair over the last `window` rows, divided by the joint count - 1."""
    return _rolled(x, window, least, dtype, norm=False)


def rolling_correlation_blocks(
    x: Any, window: int, *, least: int | None = None, dtype: DTypeLike = np.float64
) -> Iterator[RollingPairs]:
    """`rolling_correlation`, bit for bit, a block of steps at a time.

    A block holds as many steps as fit into 16 MiB, and says with `first_row` where it begins, so a
    reducer need not hold more than one.
    """
    panel = _Panel.of(x, window, least)
    sums = panel.empty_sums()
    n = panel.x.shape[1]
    size = max(1, _BLOCK // (n * (n - 1) // 2 * real_of(dtype).itemsize))
    for lo in range(0, panel.steps, size):
        yield panel.pairs_between(lo, min(lo + size, panel.steps), dtype, sums, norm=True)


def rolling_mean_correlation(
    x: Any, window: int, *, least: int | None = None, by_risk: bool = False
) -> RollingMeanCorrelation:
    """Mean correlation over all pairs in the last `window` rows, without keeping any pair.

    Every pair counts the same: a step costs one update of each pair. `by_risk` weights a pair by
    the product of its standard deviations instead, (Var(sum) - sum of Var) / ((sum of sd)^2 - sum
    of Var), which takes only the variances of N + 1 series, needs complete rows, and is what the
    risk of an equally held portfolio implies.
    """
    if by_risk:
        return _risk_weighted(x, window)
    panel = _Panel.of(x, window, least)
    if panel.gappy:
        blocks = rolling_correlation_blocks(x, window, least=least)
        parts = [(np.nansum(b.values, axis=1), (~np.isnan(b.values)).sum(axis=1)) for b in blocks]
        used = np.concatenate([count for _, count in parts])
        values = _ratio(np.concatenate([total for total, _ in parts]), used)
    else:
        scale = _inverse(panel.square, still=0.0)
        moving = (scale > 0.0).sum(axis=1)
        used = moving * (moving - 1) // 2
        values = np.empty(panel.steps)
        rolling.mean_products(panel.x, window, 0, panel.restart, scale, panel.empty_sums(), values)
    empty = int((used == 0).sum())
    status = f"at {empty:,} of {panel.steps:,} steps no pair has a correlation" * bool(empty)
    return RollingMeanCorrelation(window - 1, frozen(values), frozen(used.astype(np.int64)), status)


def rolling_spearman(x: Any, window: int, *, least: int | None = None) -> RollingPairs:
    """Spearman's rank correlation of every pair over the last `window` rows, ties sharing ranks.

    What one wild value does to Pearson's, it cannot do here. Where rows are complete, ranks slide
    from step to step and a step costs one product of matrices; where values are missing, each pair
    is ranked again over the rows that both showed, which is much slower.
    """
    given = matrix("x", x, rows=window, columns=2, missing=True)
    least = _least(window, least, fewest=FEWEST)
    steps, n = len(given) - window + 1, given.shape[1]
    out = np.empty((steps, n * (n - 1) // 2))
    missing = np.zeros(2, dtype=np.int64)
    if np.isnan(given).any():
        rank_kernels.gappy_ranks(given, window, least, 0, out, missing)
    else:
        _slide_ranks(given, window, out)
        missing[1] = np.isnan(out).sum()
    return pairs_of(window - 1, n, out, None, missing, least)


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """A checked panel, with what each of its series is on its own."""

    x: FloatMatrix
    window: int
    least: int
    count: IntMatrix
    square: FloatMatrix  # (steps, series): sums of squared deviations
    restart: NDArray[np.bool_]

    @classmethod
    def of(cls, x: Any, window: int, least: int | None) -> _Panel:
        given = matrix("x", x, rows=window, columns=2, missing=True)
        needed = _least(window, least, fewest=FEWEST)
        count, _, square, restart = window_moments(given, window)
        return cls(given, window, needed, count, square, restart)

    @property
    def steps(self) -> int:
        return len(self.restart)

    @property
    def gappy(self) -> bool:
        return bool((self.count < self.window).any())

    def empty_sums(self) -> rolling.Sums | rolling.GappySums:
        """Room for the running sums that blocks of steps hand on."""
        make = rolling.empty_gappy_sums if self.gappy else rolling.empty_sums
        sums: rolling.Sums | rolling.GappySums = make(self.x.shape[1])
        return sums

    def pairs_between(
        self,
        lo: int,
        hi: int,
        dtype: DTypeLike,
        sums: rolling.Sums | rolling.GappySums,
        *,
        norm: bool,
    ) -> RollingPairs:
        """What pairs are at the steps lo:hi; `sums` are as the step before `lo` left them."""
        n = self.x.shape[1]
        out = np.empty((hi - lo, n * (n - 1) // 2), dtype=real_of(dtype))
        missing = np.zeros(2, dtype=np.int64)
        square, restart = self.square[lo:hi], self.restart[lo:hi]
        if self.gappy:
            rolling.gappy_products(
                self.x, self.window, self.least, lo, restart, int(norm), sums, out, missing
            )
        else:
            scale = _inverse(square) if norm else np.full_like(square, (self.window - 1) ** -0.5)
            bound = 1.0 if norm else np.inf
            rolling.pair_products(self.x, self.window, lo, restart, scale, bound, sums, out)
            still = np.isnan(scale).sum(axis=1)
            missing[1] = (still * (n - still) + still * (still - 1) // 2).sum()
        variance = None if norm else self._variance(lo, hi)
        return pairs_of(lo + self.window - 1, n, out, variance, missing, self.least)

    def _variance(self, lo: int, hi: int) -> FloatMatrix:
        count = self.count[lo:hi]
        enough = np.maximum(count, 2) - 1
        variance: FloatMatrix = np.where(count < self.least, np.nan, self.square[lo:hi] / enough)
        return variance


def _rolled(
    x: Any, window: int, least: int | None, dtype: DTypeLike, *, norm: bool
) -> RollingPairs:
    panel = _Panel.of(x, window, least)
    return panel.pairs_between(0, panel.steps, dtype, panel.empty_sums(), norm=norm)


def too_few(few: NDArray[np.bool_], least: int) -> str:
    """How many results lack the values they need, in words; empty where none does."""
    return f"{int(few.sum()):,} of {few.size:,} have fewer than {least} values" if few.any() else ""


def pairs_of(
    first_row: int,
    series: int,
    values: NDArray[Any],
    variance: FloatMatrix | None,
    missing: NDArray[np.int64],
    least: int,
) -> RollingPairs:
    """The result of pairs, and in words how much of it is NaN and why."""
    few, still = (int(count) for count in missing)
    words = [f"{few:,} have fewer than {least} joint values"] * bool(few)
    words += [f"{still:,} have a series that stood still"] * bool(still)
    status = f"of {values.size:,} values " + ", ".join(words) if words else ""
    ones = np.broadcast_to(np.float64(1.0), (len(values), series))
    diagonal = ones if variance is None else variance
    pairs = np.column_stack(np.triu_indices(series, 1)).astype(np.int32)
    return RollingPairs(first_row, frozen(pairs), frozen(values), diagonal, few + still, status)


def window_moments(
    x: FloatMatrix, window: int
) -> tuple[IntMatrix, FloatMatrix, FloatMatrix, NDArray[np.bool_]]:
    """Count, mean and sum of squared deviations at each step, and where sums restart."""
    shape = (len(x) - window + 1, x.shape[1])
    count, mean, square = np.empty(shape, dtype=np.int32), np.empty(shape), np.empty(shape)
    restart = np.empty(shape[0], dtype=np.bool_)
    every = max(_EVERY, 4 * window)  # a restart costs about as much as `window` steps
    rolling.window_moments(x, window, every, count, mean, square, restart)
    return count, mean, square, restart


def _risk_weighted(x: Any, window: int) -> RollingMeanCorrelation:
    given = matrix("x", x, rows=window, columns=2)
    _least(window, None, fewest=FEWEST)
    _, _, square, _ = window_moments(given, window)
    centre = given - given[:1]
    _, _, whole, _ = window_moments(centre.sum(axis=1, keepdims=True), window)
    alone = square.sum(axis=1)
    most = np.sqrt(square).sum(axis=1) ** 2 - alone
    moving = (square > 0.0).sum(axis=1)
    used = (moving * (moving - 1) // 2).astype(np.int64)
    values = _ratio(whole[:, 0] - alone, np.where(used > 0, most, 0.0))
    empty = int((used == 0).sum())
    status = f"at {empty:,} of {len(used):,} steps fewer than two series moved" * bool(empty)
    return RollingMeanCorrelation(window - 1, frozen(values), frozen(used), status)


def _slide_ranks(x: FloatMatrix, window: int, out: FloatMatrix) -> None:
    i, j = np.triu_indices(x.shape[1], 1)
    values = np.ascontiguousarray(x[:window].T)
    ranks = np.array([rank_kernels.mean_ranks(column) for column in values])
    for step in range(len(out)):
        if step:
            rank_kernels.slide_ranks(values, ranks, (step - 1) % window, x[step + window - 1])
        products = ranks @ ranks.T
        size = _inverse(np.diag(products))
        out[step] = np.clip((products * size[:, None] * size)[i, j], -1.0, 1.0)


def _inverse(square: FloatMatrix, still: float = np.nan) -> FloatMatrix:
    """1 / sqrt(square), and `still` where it is 0."""
    moved = square > 0.0
    inverse: FloatMatrix = np.where(moved, 1.0 / np.sqrt(np.where(moved, square, 1.0)), still)
    return inverse


def _ratio(above: FloatColumn, below: NDArray[Any]) -> FloatColumn:
    """Their ratio, NaN where there is nothing to divide by."""
    some = below > 0
    ratio: FloatColumn = np.where(some, above / np.where(some, below, 1), np.nan)
    return ratio


def _least(window: int, least: int | None, *, fewest: int) -> int:
    if window < fewest:
        raise EstimationError(f"window was {window}; it needs at least {fewest} rows")
    if least is None:
        return max(fewest, int(np.ceil(_SEEN * window)))
    if not fewest <= least <= window:
        raise EstimationError(f"least was {least}; it may be {fewest} to the window, {window}")
    return least


def real_of(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype that results are to have; refuses what is neither of the two floats."""
    found = np.dtype(dtype)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise EstimationError(f"dtype was {found}; it may be float64 or float32")
    return found
