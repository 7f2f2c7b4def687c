"""Does a number warn of trouble: its skill against dated episodes, and against placebo dates.

A signal is high when it warns; turn the sign of one that warns by being low. Its value at `ts` is
what was known then. The answer is in words too, and "cannot tell" is one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.auc import areas, log_odds, odds_band, resampled_areas
from undertow.econometrics.bootstrap import band
from undertow.econometrics.checks import FloatColumn, series, within
from undertow.errors import EstimationError
from undertow.state import BoolColumn, KeyColumn
from undertow.validate.alarms import AlarmRecord, Alarms, score_alarms, walk_forward_alarms
from undertow.validate.episodes import DAY_US, Episodes, Outcomes, outcomes

LEAST_EPISODES = 20
RARE = 0.05  # a p-value at or below which chance is not believed
NEVER_CHANGES = "the signal never changes over the rows that are judged"
LEAST_PLACEBOS = 19  # of which none as good makes a p-value of 0.05


class Verdict(StrEnum):
    """Whether a number warns."""

    WARNS = "warns"
    DOES_NOT = "does not warn"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, eq=False)
class Foretelling:
    """How well a signal foretold episodes.

    `auc` is the chance that the signal was higher on a day before an episode than on a quiet one.
    `p_value` is the share of placings of the same episodes elsewhere on the record, the true one
    among them, with an area as large. The band is for judging how large the skill is, the p-value
    for whether there is any.
    """

    auc: float  # NaN where it cannot be had
    low: float
    high: float
    level: float
    p_value: float
    least_p: float  # what any signal's p-value must be at least, of the placings that there are
    placebo_low: float  # middle `level` of the areas of placebo dates
    placebo_high: float
    episodes: int  # that a signal came before
    unjudged_episodes: int  # of the record, that none came before, or too near the one before
    unheard_episodes: int  # of these, with rows before them, of which none has a signal
    warning_rows: int
    quiet_rows: int
    coverage: float  # share of judged rows of the whole record that have a signal
    record: AlarmRecord
    alarms: Alarms  # row by row of the ts given
    least_episodes: int
    varies: bool  # the signal, over judged rows

    @property
    def verdict(self) -> Verdict:
        """Warns: enough episodes, a small p-value, a band above 1/2.

        Cannot tell: too few episodes, a signal that never changes, or none could have had a small
        p-value.
        """
        if (
            not self.varies
            or self.episodes < self.least_episodes
            or math.isnan(self.p_value)
            or self.least_p > RARE
        ):
            return Verdict.CANNOT_TELL
        sure = self.p_value <= RARE and self.low > 0.5
        return Verdict.WARNS if sure else Verdict.DOES_NOT

    @property
    def says(self) -> str:
        """The verdict with the numbers it stands on, in a sentence or four."""
        return self._answer + unheard(self.unheard_episodes)

    @property
    def _answer(self) -> str:
        if math.isnan(self.auc):
            return f"Cannot tell: {self.episodes} episodes and {self.quiet_rows} quiet rows."
        area = (
            f"area {self.auc:.2f} ({self.low:.2f} to {self.high:.2f}), p {self.p_value:.3f}, "
            f"{self.episodes} episodes"
        )
        if self.episodes < self.least_episodes:
            return f"Cannot tell, {self.least_episodes} episodes are needed: {area}."
        if not self.varies:
            return f"Cannot tell, {NEVER_CHANGES}: {self.episodes} episodes."
        if self.verdict is Verdict.CANNOT_TELL:
            return f"Cannot tell, {no_small_p(self.least_p)}: {area}."
        first = "It warns" if self.verdict is Verdict.WARNS else "It does not warn"
        rung = self.record
        if not rung.episodes:
            return f"{first}: {area}. The past was too short for an alarm before any of them."
        followed = "" if math.isnan(rung.precision) else (
            f" {rung.precision:.0%} of alarms were followed by one, as are {rung.base_rate:.0%} of "
            "all rows."
        )  # fmt: skip
        return (
            f"{first}: {area}. Alarms on {rung.share_on:.0%} of rows came before {rung.hits} of "
            f"{rung.episodes} episodes, where chance hits {rung.hit_by_chance:.0%} (p "
            f"{rung.hit_p:.3f}).{followed}"
        )


def foretold(
    ts: ArrayLike,
    signal: ArrayLike,
    begun: Episodes,
    *,
    horizon_us: int = 7 * DAY_US,
    rng: np.random.Generator,
    cooldown_us: int | None = None,
    budget: float = 0.1,
    run_in: int = 250,
    level: float = 0.9,
    reps: int = 999,
    placebos: int = 999,
    least_episodes: int = LEAST_EPISODES,
) -> Foretelling:
    """Hold a signal against the episodes that `begun` names, within a horizon.

    Rows without a signal (NaN) are left out and counted. Placebo dates are the same episodes, with
    their lengths, gaps and order, moved round the record by evenly spaced numbers of rows: that
    keeps a persistent signal persistent and clustered episodes clustered, which is what makes
    chance look like skill. The band is drawn on the log odds; its error is that of a bootstrap by
    episode, each with the quiet time before it, or the spread of the placebo areas where that is
    larger. Alarms are walk-forward; see `walk_forward_alarms`.

    It misleads where signal and episodes drift over the whole record (a market that grows up), and
    where a signal is made with knowledge of later days.
    """
    within("level", level, 0.0, 1.0)
    require_placebos(placebos, usual=999)
    all_rows = outcomes(ts, begun, horizon_us=horizon_us, cooldown_us=cooldown_us)
    x = series("signal", signal, rows=1, missing=True)
    if len(x) != len(all_rows.ts):
        raise EstimationError(f"signal has {len(x)} rows and ts has {len(all_rows.ts)}")
    rung = walk_forward_alarms(x, budget=budget, run_in=run_in)
    span = spanned(~np.isnan(x))
    past, heard = cut(all_rows, span), Alarms(rung.threshold[span], rung.on[span], rung.heard[span])
    seen = ~np.isnan(x[span])
    shifts = even_shifts(len(seen), placebos)
    record = score_alarms(heard, past, begun.start, shifts, level=level, rng=rng, reps=reps)
    yes, no = past.warning & seen, past.quiet & seen
    value, drawn = judged_area(x[span], yes, no, past.spell, rng=rng, reps=reps)
    chance = placebo_areas(x[span], seen, past, shifts)
    pairs = int(yes.sum()) * int(no.sum())
    error = max(spread(log_odds(drawn, pairs)), spread(log_odds(chance, pairs)))
    low, high = odds_band(value, error, level=level, pairs=pairs)
    ends = band(chance, level) if len(chance) > 1 else (math.nan, math.nan)
    counted = len(np.unique(past.ahead[yes]))
    ahead = len(np.unique(all_rows.ahead[all_rows.warning]))
    judged = all_rows.warning | all_rows.quiet
    least = least_p(chance, as_placed(seen, past, shifts))
    return Foretelling(
        value, low, high, level, rank_p(value, chance), least, float(ends[0]), float(ends[1]),
        counted, len(begun) - counted, ahead - counted, int(yes.sum()), int(no.sum()),
        float((~np.isnan(x[judged])).mean()) if judged.any() else 0.0, record, rung,
        least_episodes, changes(x[span][yes | no]),
    )  # fmt: skip


def changes(x: FloatColumn) -> bool:
    """Whether there are two values; what never changes says nothing, one way or the other."""
    return len(x) > 0 and bool(x.min() < x.max())


def unheard(count: int) -> str:
    """How many episodes are left out for want of a signal, as a sentence to add."""
    if not count:
        return ""
    return (
        f" {count} more {'episode is' if count == 1 else 'episodes are'} left out: no signal was "
        "known in the horizon before."
    )


def spanned(seen: BoolColumn) -> slice:
    """The rows from the first that was seen to the last."""
    rows = np.flatnonzero(seen)
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)


def cut(rows: Outcomes, part: slice | BoolColumn) -> Outcomes:
    """Some of the rows."""
    return Outcomes(
        rows.ts[part], rows.ahead[part], rows.quiet[part], rows.spell[part], rows.horizon_us
    )


def even_shifts(rows: int, count: int) -> KeyColumn:
    """At most `count` numbers of rows to move by, evenly spaced, none of them 0."""
    moved = np.unique(np.linspace(0, rows, count + 1, endpoint=False).round().astype(np.int64))
    return moved[(moved > 0) & (moved < rows)]


def rotated(column: BoolColumn, shifts: KeyColumn) -> BoolColumn:
    """(shifts, rows): the column moved round by each number of rows."""
    places = (np.arange(len(column)) - shifts[:, None]) % max(len(column), 1)
    return np.asarray(column[places], dtype=np.bool_)


def placebo_areas(
    x: FloatColumn, seen: BoolColumn, past: Outcomes, shifts: KeyColumn
) -> FloatColumn:
    """Area of the signal for the same outcomes moved round the record, one for each shift."""
    if not len(shifts) or not seen.any():
        return np.empty(0)
    found = [
        areas(x[seen], rotated(past.warning, part)[:, seen], rotated(past.quiet, part)[:, seen])
        for part in np.array_split(shifts, -(-len(shifts) * len(x) // 2_000_000))
    ]
    return np.concatenate(found)


def as_placed(seen: BoolColumn, past: Outcomes, shifts: KeyColumn) -> int:
    """How many shifts put the episodes where others were: no signal tells those from the truth.

    Such a placing has an area of 1 for a signal that is high before every true episode alone.
    """
    warns, found = past.warning, 0
    for shift in shifts:
        yes, no = np.roll(warns, shift) & seen, np.roll(past.quiet, shift) & seen
        found += bool(yes.any() and no.any() and warns[yes].all() and not warns[no].any())
    return found


def judged_area(
    x: FloatColumn, yes: BoolColumn, no: BoolColumn, spell: KeyColumn,
    *, rng: np.random.Generator, reps: int,
) -> tuple[float, FloatColumn]:  # fmt: skip
    """The area of a signal, and those of resamples by episode; NaN where a kind is lacking."""
    rows = yes | no
    if not yes.any() or not no.any():
        return math.nan, np.empty(0)
    drawn = resampled_areas(x[rows], yes[rows], spell[rows], rng=rng, reps=reps)
    return float(drawn.estimate[0]), drawn.draws[:, 0]


def spread(draws: FloatColumn) -> float:
    """Standard deviation of the draws that gave a number; 0 where fewer than two did."""
    known = draws[~np.isnan(draws)]
    return float(known.std()) if len(known) > 1 else 0.0


def rank_p(value: float, chance: FloatColumn) -> float:
    """Share of chances at least as large, the value itself among them; NaN where there is none."""
    known = chance[~np.isnan(chance)]
    if math.isnan(value) or not len(known):
        return math.nan
    return (1.0 + float((known >= value - 1e-12).sum())) / (1.0 + len(known))


def least_p(chance: FloatColumn, alike: int = 0) -> float:
    """The smallest p-value that so many chances, some `alike` the truth, leave to any signal."""
    count = int((~np.isnan(chance)).sum())
    return (1.0 + alike) / (1.0 + count) if count else math.nan


def no_small_p(least: float) -> str:
    """Why no signal could have had a small p-value."""
    return f"the record has no room for a p-value below {least:.3f}"


def require_placebos(placebos: int, *, usual: int) -> None:
    """Refuse fewer than make a p-value of 0.05."""
    if placebos < LEAST_PLACEBOS:
        raise EstimationError(
            f"placebos was {placebos}; fewer than {LEAST_PLACEBOS} make no p-value of {RARE}",
            hint=f"{usual} is usual",
        )
