"""Does a signal warn beyond what is looked at already: its skill over that of naive signals.

Two answers. Alone: the area of the signal less that of each naive one, over the rows at which both
were known. Together: chances from a logistic regression on the naive signals, and from one on those
and the signal, each fitted on what was known at the time and judged on what came after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.auc import areas, resampled_areas
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, series, within
from undertow.econometrics.logistic import logistic
from undertow.errors import EstimationError
from undertow.state import BoolColumn, KeyColumn
from undertow.validate.episodes import DAY_US, Episodes, Outcomes, outcomes
from undertow.validate.foretelling import (
    LEAST_EPISODES,
    NEVER_CHANGES,
    RARE,
    changes,
    cut,
    even_shifts,
    least_p,
    no_small_p,
    rank_p,
    require_placebos,
    rotated,
    spread,
    unheard,
)


class Addition(StrEnum):
    """Whether a signal adds to what is known already."""

    ADDS = "adds"
    DOES_NOT = "does not add"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Versus:
    """A signal against one naive signal, each alone, over the rows at which all were known."""

    name: str
    auc: float
    naive_auc: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Increment:
    """What a signal adds to naive ones.

    `gain` is the area of chances fitted with the signal less that of chances fitted without, out
    of sample. `p_value` is the share of placings of the signal elsewhere on the record, the true
    one among them, with a gain as large; naive signals and episodes stay together there.
    """

    alone: tuple[Versus, ...]
    naive_auc: float
    auc: float
    gain: float  # NaN where it cannot be had
    low: float
    high: float
    level: float
    p_value: float
    least_p: float  # what any signal's p-value must be at least, of the placings that there are
    episodes: int  # that were judged out of sample
    quiet_rows: int
    naive_chance: FloatColumn  # (rows of ts,): NaN where not fitted or not known
    chance: FloatColumn
    least_episodes: int
    unheard_episodes: int  # with rows before them, at none of which all signals were known
    varies: bool  # the signal, over judged rows

    @property
    def verdict(self) -> Addition:
        """Adds: enough episodes, a small p-value, a band above 0.

        Cannot tell: too few episodes, a signal that never changes, or none could have had a small
        p-value.
        """
        if (
            not self.varies
            or self.episodes < self.least_episodes
            or math.isnan(self.p_value)
            or self.least_p > RARE
        ):
            return Addition.CANNOT_TELL
        sure = self.p_value <= RARE and self.low > 0.0
        return Addition.ADDS if sure else Addition.DOES_NOT

    @property
    def says(self) -> str:
        """The verdict with the numbers it stands on, in a sentence or two."""
        return self._answer + unheard(self.unheard_episodes)

    @property
    def _answer(self) -> str:
        if math.isnan(self.gain):
            return f"Cannot tell: {self.episodes} episodes out of sample."
        few = self.episodes < self.least_episodes
        if not few and not self.varies:
            return f"Cannot tell, {NEVER_CHANGES}: {self.episodes} episodes out of sample."
        why = f"{self.least_episodes} episodes are needed" if few else no_small_p(self.least_p)
        first = {
            Addition.ADDS: "It adds to the naive signals",
            Addition.DOES_NOT: "It does not add to the naive signals",
            Addition.CANNOT_TELL: f"Cannot tell, {why}",
        }[self.verdict]
        return (
            f"{first}: area {self.auc:.2f} with it, {self.naive_auc:.2f} without, gain "
            f"{self.gain:+.3f} ({self.low:+.3f} to {self.high:+.3f}), p {self.p_value:.3f}, "
            f"{self.episodes} episodes out of sample."
        )


def beyond(
    ts: ArrayLike,
    signal: ArrayLike,
    naive: Mapping[str, ArrayLike],
    begun: Episodes,
    *,
    horizon_us: int = 7 * DAY_US,
    rng: np.random.Generator,
    cooldown_us: int | None = None,
    ridge: float = 1.0,
    refit: int = 30,
    least_fitted: int = 5,
    level: float = 0.9,
    reps: int = 999,
    placebos: int = 99,
    least_episodes: int = LEAST_EPISODES,
) -> Increment:
    """What a signal adds to `naive` ones, by name, in foretelling the episodes of `begun`.

    Rows at which any of them is missing are left out. A fit is made anew every `refit` rows, from
    rows whose horizon had ended by then, once `least_fitted` episodes are among them; columns are
    standardised by those rows alone. Errors are as those of `foretold`: by episode, paired, or the
    spread under placebo dates where that is larger.

    It misleads where the signal is a naive one in disguise with less noise: it adds then, and
    rightly so, and says nothing new.
    """
    within("level", level, 0.0, 1.0)
    if not isinstance(naive, Mapping):
        raise EstimationError(
            f"naive is of type {type(naive).__name__}; it must hold signals by name",
            hint='{"volatility": values} is one',
        )
    if not naive:
        raise EstimationError("naive is empty", hint="name a signal that you already look at")
    if refit < 1 or least_fitted < 1:
        raise EstimationError("refit and least_fitted must be 1 or more")
    require_placebos(placebos, usual=99)
    all_rows = outcomes(ts, begun, horizon_us=horizon_us, cooldown_us=cooldown_us)
    columns = [series(name, values, rows=1, missing=True) for name, values in naive.items()]
    columns.append(series("signal", signal, rows=1, missing=True))
    for name, column in zip([*naive, "signal"], columns, strict=True):
        if len(column) != len(all_rows.ts):
            raise EstimationError(f"{name} has {len(column)} rows and ts has {len(all_rows.ts)}")
    x = np.column_stack(columns)
    known: BoolColumn = np.asarray(~np.isnan(x).any(axis=1))
    past, x = cut(all_rows, known), x[known]
    draw = _Judge(past, level, reps, rng)
    shifts = even_shifts(len(x), placebos)
    versus = tuple(
        draw.versus(name, x[:, [k, -1]], even_shifts(len(x), 999)) for k, name in enumerate(naive)
    )
    walk = _Walk.over(past, ridge, refit, least_fitted)
    without, together = walk.chances(x[:, :-1]), walk.chances(x)
    told = ~np.isnan(without)
    yes, no = past.warning & told, past.quiet & told
    found, error = draw.gain(np.column_stack([without, together]), yes, no)
    chance = np.empty(0)
    if not math.isnan(found[1]):
        placed = (walk.chances(np.column_stack([x[:, :-1], np.roll(x[:, -1], s)])) for s in shifts)
        chance = np.array([areas(each[told], yes[told], no[told])[0] for each in placed]) - found[0]
    lost = np.setdiff1d(all_rows.ahead[all_rows.warning], past.ahead[past.warning])
    gain, reach = float(found[1] - found[0]), max(error, spread(chance)) * _quantile(level)
    return Increment(
        versus, float(found[0]), float(found[1]), gain, gain - reach, gain + reach, level,
        rank_p(gain, chance), least_p(chance), len(np.unique(past.ahead[yes])), int(no.sum()),
        _in_places(without, known), _in_places(together, known), least_episodes,
        len(lost), changes(x[yes | no, -1]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """Fits on what was known at the time, and the chances that they gave for what came after."""

    happened: BoolColumn  # (rows,)
    plan: tuple[tuple[slice, KeyColumn], ...]  # rows to judge, and rows that were known by then
    ridge: float

    @classmethod
    def over(cls, past: Outcomes, ridge: float, refit: int, least: int) -> _Walk:
        """A fit every `refit` rows, once `least` episodes were known."""
        judged, plan = np.flatnonzero(past.warning | past.quiet), []
        for first in range(0, len(past.ts), refit):
            # the label of a row is known only once its horizon has ended
            ended = past.ts[judged] + past.horizon_us <= past.ts[first]
            rows = judged[ended]
            numbers = past.ahead[rows]
            if len(np.unique(numbers[numbers >= 0])) >= least and (numbers < 0).any():
                plan.append((slice(first, first + refit), rows))
        return cls(past.warning, tuple(plan), ridge)

    def chances(self, x: FloatMatrix) -> FloatColumn:
        """Out of sample, row by row; NaN until enough episodes were known."""
        out = np.full(len(x), np.nan)
        for part, rows in self.plan:
            fit = logistic(x[rows], self.happened[rows], ridge=self.ridge)
            out[part] = fit.chance(x[part])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """Areas of two scores and the error of their difference, by episode."""

    past: Outcomes
    level: float
    reps: int
    rng: np.random.Generator

    def gain(self, x: FloatMatrix, yes: BoolColumn, no: BoolColumn) -> tuple[FloatColumn, float]:
        """The two areas, and the error of the second less the first."""
        rows = yes | no
        if not yes.any() or not no.any():
            return np.full(2, math.nan), math.nan
        drawn = resampled_areas(
            x[rows], yes[rows], self.past.spell[rows], rng=self.rng, reps=self.reps
        )
        known = drawn.draws[~np.isnan(drawn.draws).any(axis=1)]
        return drawn.estimate, float((known[:, 1] - known[:, 0]).std(ddof=1))

    def versus(self, name: str, x: FloatMatrix, shifts: KeyColumn) -> Versus:
        """The second column against the first, alone; both moved together for placebo dates."""
        past = self.past
        found, error = self.gain(x, past.warning, past.quiet)
        placed = np.empty(0)
        if not math.isnan(error) and len(shifts):
            yes, no = rotated(past.warning, shifts), rotated(past.quiet, shifts)
            placed = areas(x[:, 1], yes, no) - areas(x[:, 0], yes, no)
        reach, gain = max(error, spread(placed)) * _quantile(self.level), float(found[1] - found[0])
        return Versus(name, float(found[1]), float(found[0]), gain, gain - reach, gain + reach)


def _quantile(level: float) -> float:
    return float(special.ndtri(0.5 + level / 2.0))


def _in_places(values: FloatColumn, known: BoolColumn) -> FloatColumn:
    """Values of the known rows, in their places among all rows."""
    out = np.full(len(known), np.nan)
    out[known] = values
    return frozen(out)
