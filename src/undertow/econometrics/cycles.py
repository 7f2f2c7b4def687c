"""Build-up, peak, unwind, trough: the dates at which a level turns.

A level is log leverage, one value an instant, NaN before it starts and after it ends. Phase is 1 on
the way up, 0 on the way down. Two methods date the turns:

    bry_boschan  highest and lowest points among their neighbours, thinned until phases are long
                 enough; reads every wiggle as it stands
    segments     the alternating rises and falls, straight or half a cosine, that explain growth
                 best for a price per turn; averages over whole phases, so noise moves dates less
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    frozen,
    series,
    within,
)
from undertow.econometrics.segments import Limits, segments
from undertow.errors import EstimationError

StepColumn = NDArray[np.int64]


class Method(StrEnum):
    """How turning points are found."""

    BRY_BOSCHAN = "bry_boschan"
    SEGMENTS = "segments"


@dataclass(frozen=True, slots=True)
class Windows:
    """How far apart turns are, in steps."""

    reach: int  # a peak is the highest this far to either side
    phase: int  # shortest rise or fall
    cycle: int  # shortest way from peak to peak, or trough to trough
    edge: int  # no turn nearer to an end
    smooth: int = 1  # steps of the moving average that candidates are sought on; odd
    longest: int | None = None  # longest phase that `segments` considers
    usual: float | None = None  # length of a phase that `segments` leans to, a little

    def __post_init__(self) -> None:
        """Refuse windows in which nothing could turn."""
        for name, least in (("reach", 1), ("phase", 1), ("cycle", 2), ("edge", 1), ("smooth", 1)):
            if getattr(self, name) < least:
                raise EstimationError(
                    f"windows.{name} was {getattr(self, name)}; it must be {least} or more"
                )
        if self.smooth % 2 == 0:
            raise EstimationError(f"windows.smooth was {self.smooth}; it must be odd")
        if self.longest is not None and self.longest < 2 * self.phase:
            raise EstimationError(
                f"windows.longest was {self.longest}; it must be twice the shortest phase or more"
            )

    @classmethod
    def quarterly(cls) -> Windows:
        """The business cycle in quarters, of Harding and Pagan (2002): 2, 2, 5."""
        return cls(reach=2, phase=2, cycle=5, edge=2)

    @classmethod
    def monthly(cls) -> Windows:
        """The business cycle in months, of Bry and Boschan (1971): 5, 5, 15, ends of 6."""
        return cls(reach=5, phase=5, cycle=15, edge=6, smooth=13)

    @classmethod
    def expecting(cls, cycle: float) -> Windows:
        """Windows for a cycle of so many steps from peak to peak: the rule for other samplings.

        In proportion to the monthly windows at a business cycle of five years: a twelfth of the
        cycle for reach, phase and edge, a quarter for the shortest cycle, a smoothing over a
        twelfth. A phase is at most one and a half cycles long.
        """
        within("cycle", cycle, 4.0, inf)
        twelfth = max(2, round(cycle / 12.0))
        return cls(
            reach=twelfth, phase=twelfth, cycle=max(5, round(cycle / 4.0)), edge=twelfth,
            smooth=2 * (twelfth // 2) + 1, longest=max(2 * twelfth, round(1.5 * cycle)),
            usual=0.5 * cycle,
        )  # fmt: skip

    @property
    def limits(self) -> Limits:
        """What of these `segments` goes by."""
        return Limits(self.phase, self.edge, self.longest, self.usual)


@dataclass(frozen=True, slots=True)
class Spell:
    """One phase, from the turn that starts it to the turn that ends it."""

    rising: bool  # a build-up; else an unwind
    start: int
    end: int
    change: float  # of the level
    whole: bool  # begins and ends at a turn, not at an end of the data


@dataclass(frozen=True, slots=True, eq=False)
class TurningPoints:
    """When a level turned. `reason` says why there is no turn, where there is none."""

    step: StepColumn  # (turns,)
    peak: BoolColumn  # (turns,): a peak; else a trough
    phase: FloatColumn  # (time,): 1 rising, 0 falling; NaN unseen, or all where nothing turned
    spells: tuple[Spell, ...]
    method: Method
    windows: Windows
    clarity: float  # drift of a whole phase over noise, both of a step; NaN without a whole phase
    falling: float = nan  # chance that the last phase is a fall; NaN where it is not known
    reason: str = ""

    @property
    def peaks(self) -> StepColumn:
        """Steps of the peaks."""
        return self.step[self.peak]

    @property
    def troughs(self) -> StepColumn:
        """Steps of the troughs."""
        return self.step[~self.peak]


def turning_points(
    level: ArrayLike, windows: Windows, *, method: Method | str = Method.SEGMENTS
) -> TurningPoints:
    """Peaks and troughs of a level, which alternate.

    A step is the last of a phase and the first of the next: at a peak the level stops rising.
    How near to the truth depends on the drift of a phase over the noise of a step; the page on
    cycles has a table. Levels that wander without a cycle have peaks too, and read a `clarity` of
    about 2.2 / sqrt(steps of a phase): a turn is a date, no proof of a cycle (see `clarity`). Give
    the level with prices taken out (the running sum of purged growth) where cycles of prices are
    not what is asked for.

    Raises
    ------
    EstimationError
        When the level is no series, or holds an infinite value.

    References
    ----------
    Bry and Boschan (1971), NBER. Harding and Pagan (2002), J. Monetary Economics 49. Segments by
    dynamic programming: Bai and Perron (2003), with signs that alternate.
    """
    x = series("level", level, missing=True)
    method = Method(method)
    seen = np.flatnonzero(~np.isnan(x))
    reason = _unusable(x, seen, windows)
    step, peak, falling = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_), nan
    if not reason:
        level = x[seen[0] : seen[-1] + 1]
        if method is Method.BRY_BOSCHAN:
            step, peak = _bry_boschan(level, windows)
        else:
            step, peak, falling = segments(level, windows.limits)
        step = step + seen[0]
        reason = "" if len(step) else "nothing turned"
    phase, spells = _phases(x, seen, step, peak)
    clarity = _clarity(x[seen], spells)
    return TurningPoints(
        frozen(step), frozen(peak), frozen(phase), spells, method, windows, clarity, falling,
        reason,
    )  # fmt: skip


def _unusable(x: FloatColumn, seen: StepColumn, windows: Windows) -> str:
    least = 2 * windows.edge + windows.phase + 2
    if len(seen) < least:
        return f"too short: {len(seen)} values, {least} are needed"
    if int(seen[-1] - seen[0]) + 1 != len(seen):
        return "gappy: values are missing inside; fill them first"
    return "constant" if np.ptp(x[seen]) <= 1e-12 * np.abs(x[seen]).max() else ""


def _phases(
    x: FloatColumn, seen: StepColumn, step: StepColumn, peak: BoolColumn
) -> tuple[FloatColumn, tuple[Spell, ...]]:
    """Which way the level goes at each step, and the spells of one way."""
    phase = np.full(len(x), np.nan)
    if not len(step):
        return phase, ()
    edges = [int(seen[0]), *step.tolist(), int(seen[-1])]
    spells = []
    for k, (start, end) in enumerate(pairwise(edges)):
        rising = bool(peak[k]) if k < len(peak) else not peak[-1]
        phase[start + (k > 0) : end + 1] = float(rising)
        whole = 0 < k < len(step)
        spells.append(Spell(rising, start, end, float(x[end] - x[start]), whole))
    return phase, tuple(spells)


def _clarity(x: FloatColumn, spells: tuple[Spell, ...]) -> float:
    """Mean drift of a step of whole phases over the noise of a step."""
    drift = [abs(each.change) / (each.end - each.start) for each in spells if each.whole]
    noise = 0.5 * float(np.mean(np.diff(x, 2) ** 2)) if len(x) > 2 else 0.0
    return float(np.mean(drift)) / noise**0.5 if drift and noise > 0.0 else nan


_WALK = 2.2  # amplitude over noise that dating finds in a walk without any cycle
_BEND = 3.0  # how fast that fades as there is more of a cycle


@dataclass(frozen=True, slots=True)
class Clarity:
    """Drift of a phase over the noise of a step, less what dating finds in noise alone."""

    value: float  # NaN without a whole phase
    low: float
    high: float
    phases: int  # whole ones
    length: float  # of them, mean steps

    @property
    def there(self) -> bool:
        """Whether there is more of a cycle than a walk without one would show."""
        return self.low > 0.0


def clarity(turns: TurningPoints, *, level: float = 0.9) -> Clarity:
    """How clear a dated cycle is, with its band.

    s = clarity times the root of the steps of a phase is the amplitude of a phase over the noise
    that adds up along it, whatever the sampling. Cuts are chosen where drift was large, so what is
    read is about (s^3 + 2.2^3)^(1/3), 2.2 of a walk, with a deviation of sqrt((1 + s^2 / 40) /
    phases): a rule of thumb, and taken out here. The page on cycles has how it stands up to
    simulated cycles: a half cosine of middling s reads a tenth more, so its band holds the truth
    too seldom. Noise is taken to have no memory.
    """
    within("level", level, 0.0, 1.0)
    whole = [each.end - each.start for each in turns.spells if each.whole]
    if not whole or not turns.clarity > 0.0:
        return Clarity(nan, nan, nan, len(whole), nan)
    root = float(np.mean(whole)) ** 0.5
    read = turns.clarity * root
    reach = float(ndtri(0.5 + 0.5 * level)) * ((1.0 + _cycle(read) ** 2 / 40.0) / len(whole)) ** 0.5
    value, low, high = (_cycle(each) / root for each in (read, read - reach, read + reach))
    return Clarity(value, low, high, len(whole), root * root)


def _cycle(read: float) -> float:
    """Amplitude over noise of a cycle that reads so; 0 where a walk would read as much."""
    return float((max(read, _WALK) ** _BEND - _WALK**_BEND) ** (1.0 / _BEND))


# ---------------------------------------------------------------- Bry and Boschan


def _bry_boschan(x: FloatColumn, windows: Windows) -> tuple[StepColumn, BoolColumn]:
    """Local extremes of the smoothed level, moved to those of the level itself, thinned."""
    turns = _alternating(_extremes(_smoothed(x, windows.smooth), windows.reach), x)
    if windows.smooth > 1:
        turns = _alternating([(_moved(x, t, up, windows.reach), up) for t, up in turns], x)
    last = len(x) - 1 - windows.edge
    turns = _alternating([each for each in turns if windows.edge <= each[0] <= last], x)
    turns = _long_enough(_beyond_ends(turns, x), x, windows.phase, windows.cycle)
    turns = _beyond_ends(turns, x)
    step = np.array([t for t, _ in turns], dtype=np.int64)
    return step, np.array([up for _, up in turns], dtype=np.bool_)


Turn = tuple[int, bool]


def _smoothed(x: FloatColumn, length: int) -> FloatColumn:
    if length == 1:
        return x
    half = length // 2
    total = np.convolve(np.pad(x, half, mode="edge"), np.ones(length) / length, mode="valid")
    smooth: FloatColumn = total[: len(x)]
    return smooth


def _extremes(x: FloatColumn, reach: int) -> list[Turn]:
    """Steps higher, or lower, than all within reach; of equal ones the first."""
    padded = np.pad(x, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    before, after = around[:, :reach], around[:, reach + 1 :]
    turns: list[Turn] = []
    for up in (True, False):
        sign = 1.0 if up else -1.0
        level, earlier, later = sign * x, sign * before, sign * after
        top = (np.nan_to_num(earlier, nan=-inf).max(axis=1) < level) & (
            np.nan_to_num(later, nan=-inf).max(axis=1) <= level
        )
        turns += [(int(t), up) for t in np.flatnonzero(top[reach : len(x) - reach]) + reach]
    return sorted(turns)


def _moved(x: FloatColumn, step: int, up: bool, reach: int) -> int:
    """The extreme of the level itself within reach of one of the smoothed level."""
    first = max(0, step - reach)
    spell = x[first : step + reach + 1]
    return first + int(np.argmax(spell) if up else np.argmin(spell))


def _alternating(turns: list[Turn], x: FloatColumn) -> list[Turn]:
    """Of peaks in a row the highest, of troughs the lowest; a trough no higher than its peaks."""
    kept: list[Turn] = []
    for step, up in sorted(set(turns)):
        if kept and kept[-1][0] == step:
            continue
        if kept and kept[-1][1] == up:
            better = x[step] > x[kept[-1][0]] if up else x[step] < x[kept[-1][0]]
            if better:
                kept[-1] = (step, up)
            continue
        kept.append((step, up))
    return kept


def _beyond_ends(turns: list[Turn], x: FloatColumn) -> list[Turn]:
    """Without first and last turns that values nearer the end outdo: no peak below where it began.

    Taking one out makes the next one first, or last, so it goes on until none is outdone.
    """
    kept = list(turns)
    while kept and _outdone(x[: kept[0][0]], x, kept[0]):
        del kept[0]
    while kept and _outdone(x[kept[-1][0] + 1 :], x, kept[-1]):
        del kept[-1]
    return kept


def _outdone(outer: FloatColumn, x: FloatColumn, turn: Turn) -> bool:
    step, up = turn
    return bool((outer > x[step]).any() if up else (outer < x[step]).any())


def _long_enough(turns: list[Turn], x: FloatColumn, phase: int, cycle: int) -> list[Turn]:
    """Take out turns until every phase and every cycle is long enough.

    A short cycle loses the lower of its two peaks, or the higher of its troughs. A short phase, or
    one that goes the wrong way, loses both its ends, or the outer one at the edge of the data.
    """
    while True:
        for k in range(len(turns) - 2):
            first, second = turns[k][0], turns[k + 2][0]
            if second - first < cycle:
                higher = x[first] >= x[second]
                gone = k + 2 if higher == turns[k][1] else k
                turns = _alternating(turns[:gone] + turns[gone + 1 :], x)
                break
        else:
            for k, ((start, _), (end, up)) in enumerate(pairwise(turns)):
                wrong = (x[end] > x[start]) != up
                if end - start < phase or wrong:
                    if k == 0:
                        turns = turns[1:]
                    elif k == len(turns) - 2:
                        turns = turns[:-1]
                    else:
                        turns = turns[:k] + turns[k + 2 :]
                    break
            else:
                return turns
