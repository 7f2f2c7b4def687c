"""Dates at which more series fall at once than chance allows: unwinding in step.

Rows are instants, columns are series of what is left of leverage growth once prices are out (see
`purging`), each over how loud its time is. A date scores by how far how many series fell; chance is
what the same series show when they are shifted against each other in time, or when they share what
they share at all times: correlation, loud times, and large moves as often. Dates that beat it are
merged into events, with who took part and how deeply.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf, nan

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from undertow.econometrics.chance import (
    Chance,
    CoincidenceNull,
    loudness,
    one_factor,
    ordinary_correlation,
    shared_degrees,
)
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    screen,
    within,
)
from undertow.errors import EstimationError

BoolMatrix = NDArray[np.bool_]
StepColumn = NDArray[np.int64]

_LEAST = 30  # values of a series
_CALM = 9.0  # of a variance: a larger square says no more about how loud a time is
_PASSES = 8  # of rejecting dates and looking again


class Correction(StrEnum):
    """What is held down over all dates together."""

    FAMILY = "family"  # the chance of a single false date (Westfall and Young)
    DISCOVERY = "discovery"  # the share of false dates among those found (Benjamini and Hochberg)


@dataclass(frozen=True, slots=True, eq=False)
class Coincidences:
    """Events in which series fell together, and the score of every date.

    Arrays by date are NaN where fewer than two series were seen. `reason` says why nothing could
    be judged; `reasons` why a series was left out.
    """

    start: StepColumn  # (events,): first step of the event
    peak: StepColumn  # (events,): the date that scored most
    end: StepColumn  # (events,): last step of the event
    p_value: FloatColumn  # (events,): corrected, of the best date
    members: BoolMatrix  # (events, series): fell by more than they do one time in ten
    depth: FloatMatrix  # (events, series): deepest fall, in deviations of its time; NaN unseen
    score: FloatColumn  # (time,): how far how many fell, standardised
    p_dates: FloatColumn  # (time,): chance of such a score on one date
    p_corrected: FloatColumn  # (time,): corrected for all dates
    level: float
    null: CoincidenceNull
    correction: Correction
    reasons: tuple[str, ...]  # (series,)
    degrees: float = nan  # of the law by which `COMMON` lets large moves be shared
    reason: str = ""

    def __len__(self) -> int:
        return len(self.peak)


def coincidences(
    residual: FloatMatrix,
    *,
    rng: np.random.Generator,
    level: float = 0.05,
    window: int = 1,
    gap: int = 2,
    least: int = 3,
    null: CoincidenceNull | str = CoincidenceNull.INDEPENDENT,
    correction: Correction | str = Correction.FAMILY,
    reps: int = 999,
    half_life: float | None = 60.0,
    reach: int | None = 10,
    degrees: float | None = None,
) -> Coincidences:
    """Events in which more series fell at once than chance allows.

    The score of a date is the best case that some group of `least` series or more fell together: of
    the k lowest, the sum of falls over its standard deviation, for the k at which that is greatest.
    Falls are in own standard deviations of their time (with `COMMON` over how loud the time is for
    all series as well) and count up to four. With `Correction.FAMILY` a date is an event when its
    score beats the largest of all dates in all but `level` of the histories by chance; dates found
    are then left out, so that an event does not hide the next one, and the rest looked at again.

    It misleads where series are loud together for a reason that a purge did not see: to
    `INDEPENDENT` their falls are an event. To `COMMON` they are none, unless series fall together
    as a rule more than they rise together; there a joint fall that lasts as long as `reach` makes
    its own time loud and hides. A date with few series seen has less room to score, never more.

    Parameters
    ----------
    residual : (time, series)
        `Purged.scaled`, or any residual of growth; NaN where not seen.
    rng : numpy.random.Generator
        Draws the shifts, or the histories.
    level : float
        Of what `correction` holds down.
    window : int
        Steps over which falls are added up; the date is the last of them.
    gap : int
        Significant dates no further apart are one event.
    least : int
        Series that make a coincidence; both of two.
    null : CoincidenceNull
        With `INDEPENDENT` each series is shifted round in time on its own: it keeps its serial
        dependence and tails, and shares nothing with the others, no loud time either. Series that
        are correlated at all times fall together now and then: shifts call that a coincidence, and
        they are right in that it is not independence. With `COMMON` an event has to be more.
        Histories are drawn with the correlation of all pairs and each series' own distribution,
        from a t copula whose degrees say how much large moves are shared beyond that, read from the
        steps at which more rose than fell. Falls are weighed by the factor nearest to the
        correlation (of a group S, -1_S' R^-1 z over the root of 1_S' R^-1 1_S). Serial dependence
        is not in them.
    correction : Correction
        `DISCOVERY` finds more dates, of which a share of `level` may be false.
    reps : int
        Histories by chance.
    half_life : float, optional
        Steps of memory of each series' own volatility, by which it is divided; None where
        the residuals are to be taken as they are.
    reach : int, optional
        Of `COMMON`: steps before, and after, by which it is judged how loud a time is for all
        series (the louder side counts); None where loud times are to be taken as they are.
    degrees : float, optional
        Of the copula of `COMMON`, where they are known; infinite for the normal one.

    References
    ----------
    Westfall and Young (1993), resampling-based multiple testing. Benjamini and Hochberg (1995).
    Demarta and McNeil (2005), "The t copula and related copulas".
    """
    x = matrix("residual", residual, missing=True)
    null, correction = CoincidenceNull(null), Correction(correction)
    within("level", level, 0.0, 1.0)
    within("degrees", inf if degrees is None else degrees, 2.0, inf, closed=True)
    for name, value, lowest in (
        ("window", window, 1),
        ("reach", 1 if reach is None else reach, 1),
        ("gap", gap, 0),
        ("least", least, 2),
        ("reps", reps, 19),
    ):
        if int(value) != value or value < lowest:
            raise EstimationError(f"{name} was {value}; it must be a whole number from {lowest} up")
    verdict = screen(x, least=_LEAST, gaps=1.0, late=1.0, name="residual")
    z = np.full(x.shape, np.nan)
    for j in np.flatnonzero(verdict.keep):
        z[:, j] = _quiet(x[:, j], half_life)
    if null is CoincidenceNull.COMMON and reach is not None and verdict.keep.any():
        z = z / loudness(z[:, verdict.keep], reach)[:, None]
    for j in np.flatnonzero(verdict.keep):
        z[:, j] = _added(_even(z[:, j]), window)
    used = z[:, verdict.keep]
    fewest = max(2, min(least, used.shape[1]))
    judged = (~np.isnan(used)).sum(axis=1) >= fewest
    if not judged.any():
        reason = f"{used.shape[1]} series can be used; {fewest} that are seen together are needed"
        return _nothing(x.shape, level, null, correction, verdict.reasons, reason)
    tie, freedom = np.eye(used.shape[1]), inf
    if null is CoincidenceNull.COMMON:
        tie = ordinary_correlation(used)
        freedom = shared_degrees(used, tie) if degrees is None else degrees
    load = one_factor(tie)
    chance = Chance(used, tie, load, fewest, null, freedom, reps, rng)
    score, single, corrected = _judge(chance, judged, level, correction)
    start, peak, end = _merged(corrected, score, level, gap)
    members, depth = _members(z, start, end)
    return Coincidences(
        frozen(start), frozen(peak), frozen(end), frozen(corrected[peak]),
        frozen(members), frozen(depth), frozen(score), frozen(single), frozen(corrected),
        level, null, correction, verdict.reasons, freedom,
    )  # fmt: skip


def _nothing(
    shape: tuple[int, ...],
    level: float,
    null: CoincidenceNull,
    correction: Correction,
    reasons: tuple[str, ...],
    reason: str,
) -> Coincidences:
    none, dates = np.empty(0, dtype=np.int64), np.full(shape[0], np.nan)
    return Coincidences(
        none, none, none, np.empty(0), np.empty((0, shape[1]), dtype=np.bool_),
        np.empty((0, shape[1])), dates, dates, dates, level, null, correction, reasons,
        reason=reason,
    )  # fmt: skip


# ---------------------------------------------------------------- series


def _quiet(x: FloatColumn, half_life: float | None) -> FloatColumn:
    """A series in standard deviations of its own time, as seen the step before."""
    seen = ~np.isnan(x)
    kept = x[seen] - float(np.median(x[seen]))
    spread = float(np.sqrt((np.minimum(kept**2, _CALM * (kept**2).mean())).mean()))
    z = kept / spread
    if half_life is not None:
        within("half_life", half_life, 0.0, inf)
        keep = 2.0 ** (-1.0 / half_life)
        calm = np.minimum(z**2, _CALM)
        recent, _ = lfilter([1.0 - keep], [1.0, -keep], calm, zi=[keep])
        z = z / np.sqrt(np.concatenate([[1.0], recent[:-1]]))
    out = np.full(len(x), np.nan)
    out[seen] = z
    return _even(out)


def _even(z: FloatColumn) -> FloatColumn:
    """A series over its standard deviation, in which squares count up to nine."""
    return z / float(np.sqrt(np.nanmean(np.minimum(z**2, _CALM))))


def _added(z: FloatColumn, window: int) -> FloatColumn:
    """Sum of the last `window` steps, in its own standard deviations; NaN until all were seen."""
    if window == 1:
        return z
    out = np.full(len(z), np.nan)
    if len(z) >= window:
        out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(z, window).sum(axis=1)
    kept = out[~np.isnan(out)]
    return out / float(kept.std()) if len(kept) > 1 and kept.std() > 0.0 else out


# ---------------------------------------------------------------- dates and events


def _judge(
    chance: Chance, judged: BoolColumn, level: float, correction: Correction
) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """Score, chance of it on one date, and that corrected for all dates; NaN where not judged."""
    score = np.where(judged, chance.scores(), np.nan)
    single, corrected = np.full(len(score), np.nan), np.full(len(score), np.nan)
    open_, floor = judged.copy(), 0.0
    for _ in range(_PASSES):
        place = np.flatnonzero(open_)
        alone, family = _against(chance, open_, score[place])
        single[place] = alone
        if correction is Correction.DISCOVERY:
            corrected[place] = _stepped_up(alone)
            break
        corrected[place] = np.maximum(family, floor)  # no date beats one that was found before it
        found = corrected[place] <= level
        if not found.any() or found.all():
            break
        floor = float(corrected[place[found]].max())
        open_[place[found]] = False
    return score, single, corrected


def _against(
    chance: Chance, open_: BoolColumn, now: FloatColumn
) -> tuple[FloatColumn, FloatColumn]:
    """How often chance scores as much on one date, and on the best of all dates."""
    beyond, total = np.zeros(len(now), dtype=np.int64), 0
    best: list[FloatColumn] = []
    for part in chance.histories(open_):
        drawn = np.sort(part, axis=None)
        beyond += len(drawn) - np.searchsorted(drawn, now - 1e-12, side="left")
        total += len(drawn)
        best.append(part.max(axis=1))
    most = np.sort(np.concatenate(best))
    family = len(most) - np.searchsorted(most, now - 1e-12, side="left")
    return np.asarray((1 + beyond) / (1 + total)), np.asarray((1 + family) / (1 + len(most)))


def _stepped_up(p: FloatColumn) -> FloatColumn:
    """Benjamini and Hochberg: the least share of false dates at which each would be found."""
    order = np.argsort(p, kind="stable")[::-1]
    share = p[order] * len(p) / np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.minimum.accumulate(share), 1.0)
    return out


def _merged(
    p: FloatColumn, score: FloatColumn, level: float, gap: int
) -> tuple[StepColumn, StepColumn, StepColumn]:
    """Significant dates as events: first, best and last step of each."""
    found = np.flatnonzero(np.nan_to_num(p, nan=1.0) <= level)
    groups = np.split(found, np.flatnonzero(np.diff(found) > gap) + 1) if len(found) else []
    start = np.array([g[0] for g in groups], dtype=np.int64)
    peak = np.array([g[np.argmax(score[g])] for g in groups], dtype=np.int64)
    end = np.array([g[-1] for g in groups], dtype=np.int64)
    return start, peak, end


def _members(z: FloatMatrix, start: StepColumn, end: StepColumn) -> tuple[BoolMatrix, FloatMatrix]:
    """Who fell in each event by more than it does one time in ten, and how deeply each went."""
    ordinary = np.array(
        [np.quantile(c[~np.isnan(c)], 0.1) if (~np.isnan(c)).any() else -inf for c in z.T]
    )
    depth = np.full((len(start), z.shape[1]), np.nan)
    for k, (first, last) in enumerate(zip(start, end, strict=True)):
        spell = z[first : last + 1]
        some = ~np.isnan(spell).all(axis=0)
        depth[k, some] = np.nanmin(spell[:, some], axis=0)
    return np.nan_to_num(depth, nan=inf) < np.minimum(ordinary, 0.0), depth
