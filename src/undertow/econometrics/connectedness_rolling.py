"""Connectedness in a window that moves: who gives uncertainty to whom, and when.

A window's sums of products are those of the window before it, plus the rows that came in, less
those that went out; penalised weights start from the window before. Sums are taken afresh every
so often, so rounding does not pile up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.autoregression import FloatStack, explosive
from undertow.econometrics.chance import flipped
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    within,
)
from undertow.econometrics.connectedness import (
    TOO_FEW,
    UNFOUNDED,
    Scheme,
    connectedness,
    summary,
    variance_shares,
)
from undertow.econometrics.equations import (
    LEAST_SQUARES,
    Estimator,
    Solved,
    Sums,
    refuse_short,
    side_by_side,
    solve_sums,
)
from undertow.econometrics.whitening import whitened
from undertow.errors import EstimationError

_AFRESH = 64  # moves of the window after which its sums are taken again from the rows
_SPENT = 1e-6  # of the largest sum since then: so little left says that a spike took the digits
_COPY = 1e-10  # of 1: what the correlation of a series with its copy may lack
_HELD = 4_000_000  # doubles of drawn series held at once


class LeftOut(IntEnum):
    """Why a series does not stand in a window's table."""

    USED = 0
    MISSING = 1  # a value of the window was not observed
    CONSTANT = 2  # no change inside the window
    COPY = 3  # an earlier series, but for scale and origin


@dataclass(frozen=True, slots=True, eq=False)
class RollingConnectedness:
    """Connectedness of each window, as fractions; windows are in order of time.

    Where `status` is not empty the window's numbers are NaN; where `left_out` is not zero those of
    the series are, and the total is that of the others: follow `corrected` when series come and
    go. Neighbouring windows share most of their rows, so a step in a curve lasts for as long as
    what caused it stays in the window.
    """

    end: NDArray[np.int64]  # (windows,): the row after the last
    total: FloatColumn  # (windows,)
    corrected: FloatColumn  # (windows,)
    to: FloatMatrix  # (windows, N)
    from_: FloatMatrix  # (windows, N)
    net: FloatMatrix  # (windows, N)
    tables: FloatStack | None  # (windows, N, N), where they were asked for
    left_out: NDArray[np.int8]  # (windows, N): a LeftOut each
    status: tuple[str, ...]  # (windows,)


def rolling_connectedness(
    x: Any,
    window: int,
    lags: int = 1,
    horizon: int = 10,
    *,
    step: int = 1,
    estimator: Estimator = LEAST_SQUARES,
    scheme: Scheme = Scheme.GENERALISED,
    tables: bool = False,
) -> RollingConnectedness:
    """Connectedness of rows [end - window, end), `end` moving by `step` from `window` on.

    Each window stands for itself: nothing after its end enters, and the answer is that of
    `connectedness` on its rows (with a penalty, to the estimator's own `near`). Results take
    24 bytes a window and series, `tables` another 8 a window and pair.

    Raises
    ------
    EstimationError
        When the window is too short for the estimator, or longer than the data.
    """
    given = matrix("x", x, columns=2, missing=True)
    if lags < 1 or horizon < 1 or step < 1:
        raise EstimationError(
            f"lags, horizon and step were {lags}, {horizon} and {step}; all begin at 1"
        )
    refuse_short("window", window, given.shape[1], lags, estimator)
    if window > len(given):
        raise EstimationError(f"window was {window}; x has {len(given)} rows")
    end = np.arange(window, len(given) + 1, step)
    left_out = _left_out(given, window, lags, end)
    shape = (len(end), given.shape[1])
    curves = Curves(*shape, tables=tables)
    status, last = [""] * len(end), _Last()
    for place, sums in enumerate(_windows(_filled(given), window, lags, step, len(end))):
        used = _without_copies(sums, left_out[place])
        found = last.solve(sums, used, estimator)
        shares, status[place] = _shares(found, horizon, scheme)
        if shares is not None:
            curves.put(place, used, shares)
    return RollingConnectedness(
        end=frozen(end.astype(np.int64)),
        **curves.closed(),
        left_out=frozen(left_out),
        status=tuple(status),
    )


@dataclass(frozen=True, slots=True, eq=False)
class WindowNull:
    """What the total of one window is where series have nothing in common at the same time."""

    expected: float
    high: float  # which such a window exceeds with probability 1 - level; NaN where lost
    totals: FloatColumn  # (draws,): sorted
    lost: int  # draws without a table


def window_null(
    x: Any,
    window: int,
    lags: int = 1,
    horizon: int = 10,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.9,
    estimator: Estimator = LEAST_SQUARES,
    scheme: Scheme = Scheme.GENERALISED,
    again: Callable[[FloatStack], FloatStack] | None = None,
) -> WindowNull:
    """The total of a window as long as those that roll, of series that share loud times alone.

    Each draw rebuilds every series by its own autoregression from its own shocks with signs drawn
    anew, and looks at one window of what comes: how large shocks were, and when, stays; which way
    each series went is broken. The short window is what counts: the total of unrelated series
    falls as rows are added, so a null of the whole history lies below nearly every window. One null
    serves all windows. `again` is what made the series, as in `connectedness_null`.

    Raises
    ------
    EstimationError
        As `rolling_connectedness`, when a value is missing, or when level or draws make no sense.
    """
    given = matrix("x", x, columns=2)
    within("level", level, 0.0, 1.0)
    refuse_short("window", window, given.shape[1], lags, estimator)
    if window > len(given):
        raise EstimationError(f"window was {window}; x has {len(given)} rows")
    if draws < 20:
        raise EstimationError(f"draws was {draws}; quantiles need at least 20")
    totals = np.full(draws, np.nan)
    for k, rows in enumerate(_unrelated(given, window, rng, draws, again)):
        totals[k] = connectedness(rows, lags, horizon, estimator=estimator, scheme=scheme).total
    known = np.sort(totals[~np.isnan(totals)])
    lost = draws - len(known)
    if 2 * lost > draws:
        return WindowNull(float("nan"), float("nan"), frozen(known), lost)
    return WindowNull(float(known.mean()), float(np.quantile(known, level)), frozen(known), lost)


def _unrelated(
    x: FloatMatrix,
    window: int,
    rng: np.random.Generator,
    draws: int,
    again: Callable[[FloatStack], FloatStack] | None,
) -> Iterator[FloatMatrix]:
    """One window each of so many panels like `x` that share loud times alone."""
    own = [whitened(column) for column in x.T]
    shocks = np.column_stack([np.nan_to_num(each.shocks) for each in own])
    chunk = max(1, _HELD // x.size)
    for first in range(0, draws, chunk):
        starts, made = [], np.empty((min(chunk, draws - first), *x.shape))
        for panel in made:
            starts.append(int(rng.integers(len(x) - window + 1)))
            for j, (each, column) in enumerate(zip(own, flipped(shocks, rng).T, strict=True)):
                panel[:, j] = each.rebuilt(column)
        made = made if again is None else again(made)
        for start, panel in zip(starts, made, strict=True):
            yield np.ascontiguousarray(panel[start : start + window])


class Curves:
    """Connectedness over time while it is filled in: NaN where nothing was put."""

    def __init__(self, count: int, series: int, *, tables: bool) -> None:
        self.totals = np.full((2, count), np.nan)
        self.shares = np.full((2, count, series), np.nan)
        self.tables = np.full((count, series, series), np.nan) if tables else None

    def put(self, place: int, used: BoolColumn, shares: FloatMatrix) -> None:
        """The table of the series that were used, at one place."""
        to, from_, total, corrected = summary(shares)
        self.totals[:, place] = total, corrected
        self.shares[:, place, used] = to, from_
        if self.tables is not None:
            self.tables[place][np.ix_(used, used)] = shares

    def closed(self) -> dict[str, Any]:
        """All that was put, by the names of the fits' own fields, closed to writing."""
        to, from_ = self.shares
        found = {
            "total": self.totals[0], "corrected": self.totals[1],
            "to": to, "from_": from_, "net": to - from_,
        }  # fmt: skip
        closed: dict[str, Any] = {name: frozen(values) for name, values in found.items()}
        closed["tables"] = None if self.tables is None else frozen(self.tables)
        return closed


class _Last:
    """The window before: where the next one's descent starts."""

    def __init__(self) -> None:
        self.used: BoolColumn | None = None
        self.weights: FloatMatrix | None = None

    def solve(self, sums: Sums, used: BoolColumn, estimator: Estimator) -> Solved | None:
        count = int(used.sum())
        if count < 2:
            return None
        if not used.all():
            sums = sums.pick(np.flatnonzero(np.tile(used, len(sums.total) // len(used))))
        same = self.used is not None and bool((self.used == used).all())
        solved = solve_sums(sums, count, estimator, self.weights if same else None)
        self.used = used
        self.weights = None if np.isnan(solved.weights).any() else solved.weights
        return solved


def _shares(found: Solved | None, horizon: int, scheme: Scheme) -> tuple[FloatMatrix | None, str]:
    if found is None:
        return None, TOO_FEW
    reason = found.reason or explosive(found.stacked)
    if reason:
        return None, reason
    shares = variance_shares(found.stacked, found.covariance, horizon, scheme)
    return (None, UNFOUNDED) if np.isnan(shares).any() else (shares, "")


# ---- windows


def _filled(x: FloatMatrix) -> FloatMatrix:
    """Columns made comparable, and zero where nothing was seen; shares do not depend on it.

    Their medians go to zero: a mean would let one spike push all windows away from it.
    """
    seen = ~np.isnan(x)
    count = np.maximum(seen.sum(axis=0), 1)
    middle = [
        np.median(column[there]) if there.any() else 0.0
        for column, there in zip(x.T, seen.T, strict=True)
    ]
    about = np.where(seen, x - middle, 0.0)
    spread = np.sqrt(np.square(about).sum(axis=0) / count)
    spread[spread == 0.0] = 1.0
    like: FloatMatrix = about / spread
    return like


def _windows(like: FloatMatrix, window: int, lags: int, step: int, count: int) -> Iterator[Sums]:
    """Sums of each window; what a window shares with the one before it is not added up again."""
    rows = side_by_side(like, lags)
    length = window - lags
    sums = Sums.of(rows[:length])
    most = np.diag(sums.cross)
    for place in range(count):
        first = place * step
        if place:
            came = rows[first - step + length : first + length]
            sums = sums.moved(came, rows[first - step : first])
        own = np.diag(sums.cross)
        spent = bool((own < _SPENT * most).any())
        if place and (spent or 2 * step >= length or place % _AFRESH == 0):
            sums = Sums.of(rows[first : first + length])
            most = own = np.diag(sums.cross)
        most = np.maximum(most, own)
        yield sums


def _left_out(x: FloatMatrix, window: int, lags: int, end: NDArray[np.int64]) -> NDArray[np.int8]:
    """What can be told without arithmetic: gaps, and series that do not move.

    A series must move among the rows that every lag of the regression shares.
    """
    seen = ~np.isnan(x)
    moved = np.zeros(x.shape, dtype=np.int64)
    moved[1:] = x[1:] != x[:-1]
    holes, moves = _running(~seen), _running(moved)
    start = end - window
    codes = np.zeros((len(end), x.shape[1]), dtype=np.int8)
    codes[moves[end - lags] == moves[start + lags + 1]] = LeftOut.CONSTANT
    codes[holes[end] > holes[start]] = LeftOut.MISSING
    return codes


def _running(flags: NDArray[Any]) -> NDArray[np.int64]:
    counts = np.zeros((len(flags) + 1, flags.shape[1]), dtype=np.int64)
    np.cumsum(flags, axis=0, out=counts[1:])
    return counts


def _without_copies(sums: Sums, codes: NDArray[np.int8]) -> BoolColumn:
    """Which series to use; writes COPY, or CONSTANT where rounding is all there is, to `codes`."""
    series = len(codes)
    centre = sums.total[-series:] / sums.count
    present = sums.cross[-series:, -series:] / sums.count
    spread = present - np.outer(centre, centre)
    own = np.diag(spread)
    codes[(codes == 0) & (own <= 1e-12 * np.diag(present))] = LeftOut.CONSTANT
    used: BoolColumn = codes == 0
    scale = np.sqrt(np.where(used, own, 1.0))
    alike = np.abs(spread) >= (1.0 - _COPY) * np.outer(scale, scale)
    if int(np.count_nonzero(alike[np.ix_(used, used)])) > int(used.sum()):
        for j in np.flatnonzero(used):
            if (alike[j, :j] & used[:j]).any():
                codes[j], used[j] = LeftOut.COPY, False
    return used
