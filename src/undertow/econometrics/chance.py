"""How far series fall together by chance: histories in which nothing or one factor is shared.

Rows are dates, columns are series of falls (negative) and rises in standard deviations, NaN where
not seen. A date's score is how far its worst group fell (see `undertow.kernels.groups`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix
from undertow.kernels import groups as kernel

_CAP = 4.0  # standard deviations: a larger fall scores no more; one series is no coincidence
_CHUNK = 500_000  # doubles held at once


class Null(StrEnum):
    """What series may share by chance alone."""

    INDEPENDENT = "independent"  # nothing: each is shifted round in time on its own
    COMMON = "common"  # their ordinary correlation, as one factor makes it


@dataclass(frozen=True, slots=True, eq=False)
class Chance:
    """Scores of the dates as they were, and of histories in which chance alone is at work."""

    z: FloatMatrix  # (time, series): NaN where not seen
    loading: FloatColumn  # (series,): on the one factor that all share; 0 where they share nothing
    least: int
    null: Null
    degrees: float
    reps: int
    rng: np.random.Generator

    def scores(self) -> FloatColumn:
        """How far the worst group of each date fell together; NaN where too few were seen."""
        return self._scan(self.z)

    def histories(self, open_: BoolColumn) -> Iterator[FloatMatrix]:
        """Scores (histories, open dates) by chance, some histories at a time."""
        z = self.z[open_]
        chunk = max(1, _CHUNK // z.size)
        draw = self._shifted if self.null is Null.INDEPENDENT else self._drawn
        for first in range(0, self.reps, chunk):
            yield self._scan(draw(min(chunk, self.reps - first), z))

    def _shifted(self, count: int, z: FloatMatrix) -> FloatMatrix:
        """Each series shifted round in time within the steps at which it was seen."""
        out = np.full((count, *z.shape), np.nan)
        for j in range(z.shape[1]):
            told = np.flatnonzero(~np.isnan(z[:, j]))
            place = slice(None) if len(told) == len(z) else told
            twice = np.tile(z[told, j], 2)
            starts = self.rng.integers(0, max(len(told), 1), count).tolist()
            for k, start in enumerate(starts):
                out[k, place, j] = twice[start : start + len(told)]
        return out

    def _drawn(self, count: int, z: FloatMatrix) -> FloatMatrix:
        """Histories with the factor that makes the ordinary correlation, in own distributions."""
        shape, fat = (count, len(z)), isfinite(self.degrees)
        factor = self.rng.standard_normal(shape)
        heavy = np.sqrt(self.degrees / self.rng.chisquare(self.degrees, shape)) if fat else 1.0
        out = np.full((count, *z.shape), np.nan)
        for j, load in enumerate(self.loading):
            told = np.flatnonzero(~np.isnan(z[:, j]))
            own = self.rng.standard_normal(shape)
            mixed = ((load * factor + np.sqrt(1.0 - load**2) * own) * heavy)[:, told]
            level = stdtr(self.degrees, mixed) if fat else ndtr(mixed)
            order = np.sort(z[told, j])
            place = np.minimum((level * len(told)).astype(np.int64), len(told) - 1)
            out[:, told, j] = order[place]
        return out

    def _scan(self, z: FloatMatrix) -> FloatMatrix:
        """How far the worst group fell: (..., series) in, (...,) out."""
        score = np.empty(z.shape[:-1])
        kernel.worst_groups(
            z.reshape(-1, z.shape[-1]), self.loading, self.least, _CAP, score.reshape(-1)
        )
        return score


def _normal_scores(z: FloatMatrix) -> FloatMatrix:
    """Each series' ranks as quantiles of the standard normal."""
    out = np.full(z.shape, np.nan)
    for j in range(z.shape[1]):
        place = np.flatnonzero(~np.isnan(z[:, j]))
        rank = np.empty(len(place))
        rank[np.argsort(z[place, j], kind="stable")] = np.arange(len(place))
        out[place, j] = ndtri((rank + 0.5) / len(place))
    return out


def one_factor(z: FloatMatrix) -> FloatColumn:
    """Loadings of one factor that come nearest to all pairwise correlations of normal scores.

    Large moves weigh no more than their ranks, so events do not make the correlation that they are
    held against.
    """
    scores = _normal_scores(z)
    seen = (~np.isnan(scores)).astype(np.float64)
    filled = np.nan_to_num(scores)
    both = np.maximum(seen.T @ seen, 1.0)
    correlation = (filled.T @ filled) / both
    size = np.sqrt(np.diag(correlation))
    correlation = correlation / size / size[:, None]
    off = correlation - np.diag(np.diag(correlation))
    load: FloatColumn = np.sqrt(np.clip(np.abs(off).max(axis=1), 0.0, 0.9))
    for _ in range(100):
        values, vectors = np.linalg.eigh(off + np.diag(load**2))
        new = np.sqrt(max(float(values[-1]), 0.0)) * vectors[:, -1]
        new = np.clip(new * (-1.0 if new.sum() < 0.0 else 1.0), -0.995, 0.995)
        if float(np.abs(new - load).max()) < 1e-8:
            break
        load = new
    return load
