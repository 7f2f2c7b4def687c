"""How well a score tells what happened from what did not: the area under the ROC curve.

The area is the chance that a row where it happened scores higher than one where it did not, ties
counting half: 1/2 is blind, 1 is perfect, and no threshold and no share of events enters. Rows are
instants. Rows that follow each other are no independent witnesses: `area_under_curve` knows the
error of independent ones alone, `resampled_areas` draws whole spells of rows together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from undertow.econometrics.bootstrap import Draws
from undertow.econometrics.checks import BoolColumn, FloatColumn, frozen, matrix, series, within
from undertow.errors import EstimationError

_CHUNK = 2_000_000  # cells held at once


@dataclass(frozen=True, slots=True)
class Area:
    """The area under the ROC curve, with the error it would have if rows were independent."""

    value: float  # NaN where a status stands
    error: float
    low: float
    high: float
    positives: int
    negatives: int
    status: str


def area_under_curve(score: ArrayLike, happened: ArrayLike, *, level: float = 0.9) -> Area:
    """Area under the ROC curve of `score` for `happened`, with DeLong's error.

    mean over pairs of [x > y] + [x = y]/2; error^2 = var(placements of positives)/m + var(those of
    negatives)/n. The band is drawn on the log odds of the area, so it stays within (0, 1). It is
    too narrow wherever rows depend on each other, several times so for daily rows of a persistent
    score: see `resampled_areas`.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44; log odds: Pepe (2003), "The
    statistical evaluation of medical tests", chapter 5.
    """
    within("level", level, 0.0, 1.0)
    x, y = _scored(score, happened)
    m, n = int(y.sum()), int((~y).sum())
    if not m or not n:
        words = "it never happened" if not m else "it happened in every row"
        return Area(math.nan, math.nan, math.nan, math.nan, m, n, words)
    above, below = placements(x, y)
    value = float(above.mean())
    if m < 2 or n < 2:
        words = "one row of a kind has no spread: no error"
        return Area(value, math.nan, math.nan, math.nan, m, n, words)
    error = math.sqrt(float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n)
    steep = 1.0 / max(value * (1.0 - value), 0.5 / (m * n))  # of the log odds, by the area
    low, high = odds_band(value, error * steep, level=level, pairs=m * n)
    return Area(value, error, low, high, m, n, "")


def placements(score: ArrayLike, happened: ArrayLike) -> tuple[FloatColumn, FloatColumn]:
    """Where each row stands among those of the other kind; both columns have the area as mean.

    First of each row where it happened, the share of the others that score lower; then of each of
    the others, the share of the former that score higher.
    """
    x, y = _scored(score, happened)
    m, n = int(y.sum()), int((~y).sum())
    if not m or not n:
        raise EstimationError(f"happened is true in {m} rows and false in {n}", hint="give both")
    ranks = stats.rankdata(x)
    above = (ranks[y] - stats.rankdata(x[y])) / n
    below = 1.0 - (ranks[~y] - stats.rankdata(x[~y])) / m
    return above, below


def log_odds(area: ArrayLike, pairs: int) -> FloatColumn:
    """Log odds of areas; 0 and 1 are taken as half a pair away, as `pairs` cannot show more."""
    edge = 0.5 / max(pairs, 1)
    inside = np.clip(np.asarray(area, dtype=np.float64), edge, 1.0 - edge)
    return np.asarray(special.logit(inside), dtype=np.float64)


def odds_band(value: float, error: float, *, level: float, pairs: int) -> tuple[float, float]:
    """Low and high end of an area's band, `error` being that of its log odds."""
    centre = float(log_odds(value, pairs))
    reach = float(special.ndtri(0.5 + level / 2.0)) * error
    return float(special.expit(centre - reach)), float(special.expit(centre + reach))


def areas(score: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> FloatColumn:
    """The area of one score for many labellings, a row of `positive` and `negative` each.

    Rows of the score that are neither are left out; NaN where a labelling lacks a kind.
    """
    x = series("score", score, rows=1)
    yes, no = np.atleast_2d(positive), np.atleast_2d(negative)
    if yes.shape != no.shape or yes.shape[1] != len(x):
        raise EstimationError(
            f"score has {len(x)} rows, positive {yes.shape[1]}, negative {no.shape[1]}",
            hint="give a row a labelling, a column a row of the score",
        )
    order = np.argsort(x, kind="stable")
    begins = np.flatnonzero(np.r_[True, np.diff(x[order]) > 0.0])  # ties count half
    found = np.empty(len(yes))
    step = max(1, _CHUNK // len(x))
    for first in range(0, len(yes), step):
        part = slice(first, first + step)
        up = np.add.reduceat(yes[part][:, order], begins, axis=1, dtype=np.float64)
        down = np.add.reduceat(no[part][:, order], begins, axis=1, dtype=np.float64)
        wins = (up * (np.cumsum(down, axis=1) - 0.5 * down)).sum(axis=1)
        pairs = up.sum(axis=1) * down.sum(axis=1)
        found[part] = np.where(pairs > 0.0, wins / np.where(pairs > 0.0, pairs, 1.0), np.nan)
    return found


def resampled_areas(
    scores: ArrayLike,
    happened: ArrayLike,
    spell: ArrayLike,
    *,
    rng: np.random.Generator,
    reps: int = 999,
) -> Draws:
    """The areas of several scores, and on resamples of whole spells, the same for all scores.

    `scores` is (rows, scores) and `spell` numbers each row's spell: a quiet time and the event at
    its end, say. Spells in which it happened are drawn among themselves, and so are the others, so
    that every resample has as many events as the record. The draws are (reps, scores): differences
    between columns are paired.

    References
    ----------
    The clusters of Obuchowski (1997), Biometrics 53, resampled.
    """
    x = matrix("scores", np.asarray(scores)[:, None] if np.ndim(scores) == 1 else scores)
    number = np.unique(np.asarray(spell), return_inverse=True)[1].ravel()
    y = _scored(x[:, 0], happened)[1]
    if len(number) != len(y):
        raise EstimationError(f"spell has {len(number)} rows and scores has {len(y)}")
    if reps < 2:
        raise EstimationError(f"reps was {reps}; at least 2 are needed", hint="999 is usual")
    count = int(number.max()) + 1
    up = np.bincount(number[y], minlength=count).astype(np.float64)
    down = np.bincount(number[~y], minlength=count).astype(np.float64)
    weights = np.zeros((reps, count))
    for kind in (np.flatnonzero(up > 0), np.flatnonzero(up == 0)):
        if len(kind):
            even = np.full(len(kind), 1.0 / len(kind))
            weights[:, kind] = rng.multinomial(len(kind), even, size=reps)
    pairs = (weights @ up) * (weights @ down)
    estimate, draws = np.empty(x.shape[1]), np.full((reps, x.shape[1]), np.nan)
    for k in range(x.shape[1]):
        wins = _wins(x[:, k], y, number, count)
        estimate[k] = wins.sum() / (up.sum() * down.sum()) if y.any() and not y.all() else np.nan
        won = ((weights @ wins) * weights).sum(axis=1)
        np.divide(won, pairs, out=draws[:, k], where=pairs > 0.0)
    lost = int(np.isnan(draws).any(axis=1).sum())
    status = f"{lost} of {reps} draws gave no number" if lost else ""
    return Draws(frozen(estimate), frozen(draws), len(y) / count, status)


def _wins(
    x: FloatColumn, y: BoolColumn, number: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """(spells, spells): pairs that a positive of the one wins against negatives of the other."""
    found = np.zeros((count, count))
    yes, of = x[y], number[y]
    for b in range(count):
        other = np.sort(x[~y & (number == b)])
        if len(other):
            won = other.searchsorted(yes, "left") + other.searchsorted(yes, "right")
            found[:, b] = np.bincount(of, 0.5 * won, minlength=count)
    return found


def _scored(score: ArrayLike, happened: ArrayLike) -> tuple[FloatColumn, BoolColumn]:
    x = series("score", score, rows=1)
    truth = np.asarray(happened)
    if truth.shape != x.shape:
        raise EstimationError(
            f"score has {len(x)} rows and happened {truth.shape}", hint="align them row by row"
        )
    if truth.dtype != np.bool_ and not np.isin(truth, (0, 1)).all():
        raise EstimationError("happened is neither true nor false in every row")
    return x, truth.astype(np.bool_)
