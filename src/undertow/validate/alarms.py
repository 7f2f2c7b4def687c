"""Alarms that could have been rung at the time, scored against the episodes that came.

The threshold of a row is a quantile of what the signal had been before it, so nothing that came
later moves an alarm. Rows are instants; `Outcomes` says what lay ahead of each.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.checks import FloatColumn, frozen, series, within
from undertow.errors import EstimationError
from undertow.state import BoolColumn, KeyColumn
from undertow.validate.episodes import Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class Alarms:
    """When an alarm rang."""

    threshold: FloatColumn  # (rows,): NaN where the past was too short
    on: BoolColumn  # (rows,)
    heard: BoolColumn  # (rows,): there was a signal and a threshold


@dataclass(frozen=True, slots=True, eq=False)
class AlarmRecord:
    """What alarms were worth: episodes hit, quiet rows disturbed, and how early."""

    episodes: int  # with a row before them at which an alarm could have rung
    hits: int  # with an alarm within the horizon
    hit_rate: float
    hit_low: float
    hit_high: float
    hit_by_chance: float  # mean hit rate of the same alarms against episodes placed elsewhere
    hit_p: float  # share of those placings, the true one among them, hit as often
    false_alarm_rate: float  # share of quiet rows with an alarm
    precision: float  # share of judged alarms that an episode followed
    base_rate: float  # share of judged rows that an episode followed
    share_on: float  # share of all rows with an alarm: the budget, as it was kept
    lead_us: float  # median over hits; NaN without any
    lead_low: float
    lead_high: float
    leads_us: FloatColumn  # (hits,)


def walk_forward_alarms(signal: ArrayLike, *, budget: float = 0.1, run_in: int = 250) -> Alarms:
    """Ring where the signal is above the 1 - `budget` quantile of its own past.

    The past of a row is every earlier row that has a signal, at least `run_in` of them. A signal
    that is as it used to be rings in `budget` of the rows; one that drifts upward rings more often,
    and `share_on` of the record says so.
    """
    within("budget", budget, 0.0, 1.0)
    x = series("signal", signal, rows=1, missing=True)
    if run_in < 2:
        raise EstimationError(f"run_in was {run_in}; it must be 2 rows or more")
    threshold, past = np.full(len(x), np.nan), list[float]()
    for row, value in enumerate(x.tolist()):
        if len(past) >= run_in:
            place = (1.0 - budget) * (len(past) - 1)
            left = int(place)
            right = min(left + 1, len(past) - 1)
            threshold[row] = past[left] + (place - left) * (past[right] - past[left])
        if not math.isnan(value):
            insort(past, value)
    heard = ~np.isnan(x) & ~np.isnan(threshold)
    on = np.zeros(len(x), dtype=np.bool_)
    on[heard] = x[heard] > threshold[heard]
    return Alarms(frozen(threshold), frozen(on), frozen(heard))


def trailing_rank(signal: ArrayLike, *, window: int = 365) -> FloatColumn:
    """Where each value stands among those of the `window` rows before it: share below, ties half.

    The remedy for a level that drifts over the years: a rank says high for these times. NaN where
    the value, or half of its window, is missing, and in the first `window` rows: episodes there are
    left out, and `foretold` says how many.
    """
    if window < 2:
        raise EstimationError(f"window was {window}; it must be 2 rows or more")
    x = series("signal", signal, rows=1, missing=True)
    out = np.full(len(x), np.nan)
    for row in range(window, len(x)):
        past = x[row - window : row]
        past = past[~np.isnan(past)]
        if not math.isnan(x[row]) and 2 * len(past) >= window:
            out[row] = float((past < x[row]).mean() + 0.5 * (past == x[row]).mean())
    return out


def score_alarms(
    alarms: Alarms,
    outcomes: Outcomes,
    starts: KeyColumn,
    shifts: KeyColumn,
    *,
    level: float,
    rng: np.random.Generator,
    reps: int = 999,
) -> AlarmRecord:
    """Alarms against episodes that begin at `starts`, and against the same placed elsewhere.

    An episode's lead is the time from the beginning of the last unbroken run of alarms before it,
    within the horizon, so it is at most the horizon. Chance rings too: read the hit rate beside
    `hit_by_chance`, the mean over placings moved by each of `shifts` rows.
    """
    on, heard, ahead = alarms.on, alarms.heard, outcomes.ahead
    judged = heard & (outcomes.warning | outcomes.quiet)
    known = np.unique(ahead[heard & outcomes.warning])
    leads = np.array([_lead(k, alarms, outcomes, starts) for k in known])
    hit = leads[~np.isnan(leads)]
    low, high = _share_band(len(hit), len(known), level)
    rate, chance = _share(len(hit), len(known)), _chance_hits(on, heard, ahead, shifts)
    some = len(chance) > 0 and len(known) > 0
    median, first, last = _median_band(hit, level, rng, reps)
    return AlarmRecord(
        len(known), len(hit), rate, low, high,
        float(chance.mean()) if some else math.nan,
        (1.0 + float((chance >= rate).sum())) / (1.0 + len(chance)) if some else math.nan,
        _share(int((on & outcomes.quiet).sum()), int((heard & outcomes.quiet).sum())),
        _share(int((on & outcomes.warning).sum()), int((on & judged).sum())),
        _share(int((outcomes.warning & heard).sum()), int(judged.sum())),
        _share(int(on.sum()), int(heard.sum())),
        median, first, last, frozen(hit),
    )  # fmt: skip


def _lead(k: int, alarms: Alarms, outcomes: Outcomes, starts: KeyColumn) -> float:
    """Microseconds from the beginning of the last run of alarms to the episode; NaN without one."""
    rows = np.flatnonzero((outcomes.ahead == k) & alarms.heard)
    rung = alarms.on[rows]
    if not rung.any():
        return math.nan
    last = int(np.flatnonzero(rung)[-1])
    still = np.flatnonzero(~rung[:last])
    first = int(still[-1]) + 1 if len(still) else 0
    return float(starts[k] - outcomes.ts[rows[first]])


def _chance_hits(
    on: BoolColumn, heard: BoolColumn, ahead: KeyColumn, shifts: KeyColumn
) -> FloatColumn:
    """Hit rate of the alarms for the episodes moved round the record, one for each shift."""
    rates = []
    for shift in shifts:
        moved = np.roll(ahead, int(shift))
        known = np.unique(moved[heard & (moved >= 0)])
        if len(known):
            rates.append(len(np.unique(moved[on & (moved >= 0)])) / len(known))
    return np.array(rates)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _share_band(part: int, whole: int, level: float) -> tuple[float, float]:
    """Band of a share of so many, all independent: Clopper and Pearson (1934), Biometrika 26."""
    if not whole:
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    low = float(special.betaincinv(part, whole - part + 1, tail)) if part else 0.0
    high = float(special.betaincinv(part + 1, whole - part, 1.0 - tail)) if part < whole else 1.0
    return low, high


def _median_band(
    values: FloatColumn, level: float, rng: np.random.Generator, reps: int
) -> tuple[float, float, float]:
    """Median over episodes, and over resamples of episodes."""
    if not len(values):
        return math.nan, math.nan, math.nan
    drawn = np.median(values[rng.integers(len(values), size=(reps, len(values)))], axis=1)
    low, high = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(np.median(values)), float(low), float(high)
