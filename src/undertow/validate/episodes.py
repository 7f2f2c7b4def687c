"""When trouble began: marked instants merged into episodes, and what lay ahead of each row.

`ts` is in microseconds, UTC, rising. An instant that was marked is `hot`: an hour of large
liquidations, a day of a large fall. Hot instants near each other are one episode, as the second of
them needs no warning. An instant stands for the time since the one before it, so give the end of
an hour or a day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import frozen
from undertow.errors import EstimationError
from undertow.state import BoolColumn, KeyColumn

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_SECOND_US = 1_000_000
_FAR_US = 20_000_000_000 * _SECOND_US  # in the year 2603
_UNITS = "times and spans are in microseconds: a day is DAY_US, 86,400,000,000 of them"


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """Spells of trouble, oldest first, and the stretches of time in which one would be seen."""

    start: KeyColumn  # (episodes,): first hot instant
    end: KeyColumn  # (episodes,): last hot instant
    gap_us: int  # quiet for so long ends an episode
    watched_from: KeyColumn  # (stretches,)
    watched_to: KeyColumn  # (stretches,)

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What lay ahead of each row. A row that is neither is not judged.

    Neither are rows during an episode and in the time after it in which none can begin, and rows
    whose horizon was not watched to its end.
    """

    ts: KeyColumn  # (rows,)
    ahead: KeyColumn  # (rows,): number of the episode that begins within the horizon; -1: none
    quiet: BoolColumn  # (rows,): nothing began within the horizon
    spell: KeyColumn  # (rows,): number of the next episode, however far: rows between two episodes
    horizon_us: int

    @property
    def warning(self) -> BoolColumn:
        """(rows,): an episode begins within the horizon."""
        return self.ahead >= 0


def episodes(
    ts: ArrayLike, hot: ArrayLike, *, gap_us: int = 3 * DAY_US, hole_us: int | None = None
) -> Episodes:
    """Merge hot instants that are less than `gap_us` apart.

    Instants further apart than `hole_us` (by default `gap_us`) leave a hole in which nobody
    watched; rows whose horizon reaches into one are not judged.
    """
    when = instants("ts", ts)
    marked = np.asarray(hot)
    if marked.dtype != np.bool_ or marked.shape != when.shape:
        raise EstimationError(
            f"hot is {marked.dtype} of shape {marked.shape}; it must be true or false for each of "
            f"{len(when)} instants",
            hint="leave out instants that nobody saw",
        )
    if gap_us <= 0 or (hole_us is not None and hole_us <= 0):
        raise EstimationError(f"gap_us was {gap_us} and hole_us {hole_us}; they must be positive")
    _require_span("gap_us", gap_us)
    steps = np.diff(when)
    usual = int(np.median(steps)) if len(steps) else 0
    if len(steps) and (gap_us if hole_us is None else hole_us) < usual:
        name, size = ("gap_us", gap_us) if hole_us is None else ("hole_us", hole_us)
        raise EstimationError(
            f"{name} was {size}, and instants are {usual} apart: every step would be a hole",
            hint=_UNITS if hole_us is not None else f"give hole_us, or a longer gap; {_UNITS}",
        )
    torn = np.flatnonzero(steps > (gap_us if hole_us is None else hole_us))
    found = when[marked]
    apart = np.flatnonzero(np.diff(found) >= gap_us)
    some = len(found) > 0
    return Episodes(
        frozen(found[np.r_[0, apart + 1]] if some else found),
        frozen(found[np.r_[apart, len(found) - 1]] if some else found),
        int(gap_us),
        frozen(when[np.r_[0, torn + 1]] - usual),
        frozen(when[np.r_[torn, len(when) - 1]]),
    )


def outcomes(
    ts: ArrayLike, begun: Episodes, *, horizon_us: int, cooldown_us: int | None = None
) -> Outcomes:
    """What lay ahead of each instant of `ts`: an episode within the horizon, quiet, or neither.

    A row at t warns of an episode that begins in (t, t + horizon]. Rows from the start of an
    episode to `cooldown_us` after its end (by default its gap, in which none can begin) are left
    out. An episode whose rows are all left out, or that was not preceded by any, is not counted.
    """
    when = instants("ts", ts)
    if horizon_us <= 0 or (cooldown_us is not None and cooldown_us < 0):
        raise EstimationError(
            f"horizon_us was {horizon_us} and cooldown_us {cooldown_us}; the first must be "
            "positive, the second at least 0"
        )
    _require_span("horizon_us", horizon_us)
    if len(when) > 1 and when[-1] - when[0] < horizon_us:
        raise EstimationError(
            f"ts spans {when[-1] - when[0]} and the horizon {horizon_us}: no row has it watched to "
            "its end",
            hint=_UNITS,
        )
    rest = begun.gap_us if cooldown_us is None else cooldown_us
    following = begun.start.searchsorted(when, "right")
    never = np.iinfo(np.int64).max
    start, end = np.append(begun.start, never), np.append(begun.end, never)
    soon = start[following] - when <= horizon_us
    before = np.maximum(following - 1, 0)
    during = (following > 0) & (when <= end[before] + rest)
    stretch = begun.watched_from.searchsorted(when, "right") - 1
    seen = (stretch >= 0) & (when + horizon_us <= begun.watched_to[np.maximum(stretch, 0)])
    judged = seen & ~during
    return Outcomes(
        frozen(when),
        frozen(np.where(judged & soon, following, -1).astype(np.int64)),
        frozen(judged & ~soon),
        frozen(following.astype(np.int64)),
        int(horizon_us),
    )


def instants(name: str, ts: ArrayLike) -> KeyColumn:
    """`ts` as rising microseconds; raises where it is not."""
    when = np.array(ts)
    if when.ndim != 1 or not len(when) or not np.issubdtype(when.dtype, np.integer):
        raise EstimationError(
            f"{name} is {when.dtype} of shape {when.shape}; it must be a column of microseconds"
        )
    if (np.diff(when) <= 0).any():
        row = int(np.argmax(np.diff(when) <= 0)) + 1
        raise EstimationError(f"{name} does not rise at row {row}", hint="sort it, once an instant")
    if len(when) > 1 and np.median(np.diff(when)) < _SECOND_US:
        raise EstimationError(
            f"{name} rises by {np.median(np.diff(when)):.0f} a row, which is less than a second",
            hint=f"{_UNITS}; these look like seconds or days",
        )
    if when[-1] > _FAR_US:
        raise EstimationError(
            f"{name} ends at {when[-1]}, centuries from now",
            hint=f"{_UNITS}; these look like nanoseconds",
        )
    return when.astype(np.int64)


def _require_span(name: str, us: int) -> None:
    """Refuse a span so short that it was meant in another unit."""
    if us < HOUR_US:
        raise EstimationError(f"{name} was {us}, which is less than an hour", hint=_UNITS)
