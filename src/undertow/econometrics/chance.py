"""How far series fall together by chance: histories without an event.

Rows are dates, columns are series of falls (negative) and rises in standard deviations, NaN where
not seen. A date's score is how far its worst group fell (see `undertow.kernels.groups`). What may
be shared all the same is read from the series: how loud a time is for all of them (`loudness`),
which correlation they have (`ordinary_correlation`), and how much more than that they share of
large moves (`shared_degrees`). `flipped` and `redirected` are nulls for others: sizes stay,
directions are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, lgamma

import numpy as np
from scipy.special import ndtri, stdtrit

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix
from undertow.econometrics.pairwise import repaired_correlation
from undertow.econometrics.shrinkage import Target, shrunk_correlation
from undertow.econometrics.whitening import whitened
from undertow.errors import EstimationError
from undertow.kernels import groups as kernel

_CAP = 4.0  # standard deviations: a larger fall scores no more; one series is no coincidence
_CHUNK = 500_000  # doubles held at once
_HEARD = 80  # values by which the loudness of a time is judged, at least
_USUAL = float(ndtri(0.75))  # median size of a standard normal value
_DEGREES = (3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, inf)


class CoincidenceNull(StrEnum):
    """What series may share by chance alone."""

    INDEPENDENT = "independent"  # nothing, not a loud time: each is shifted round in time
    COMMON = "common"  # their ordinary correlation, and large moves as often as they do share them


@dataclass(frozen=True, slots=True, eq=False)
class Chance:
    """Scores of the dates as they were, and of histories in which chance alone is at work."""

    z: FloatMatrix  # (time, series): NaN where not seen
    correlation: FloatMatrix  # (series, series)
    loading: FloatColumn  # (series,): on the one factor nearest to it, by which falls are weighed
    least: int
    null: CoincidenceNull
    degrees: float  # of the Student law that large moves are shared by; of `COMMON`
    reps: int
    rng: np.random.Generator

    def scores(self) -> FloatColumn:
        """How far the worst group of each date fell together; NaN where too few were seen."""
        return self._scan(self.z)

    def histories(self, open_: BoolColumn) -> Iterator[FloatMatrix]:
        """Scores (histories, open dates) by chance, some histories at a time."""
        z = self.z[open_]
        chunk = max(1, _CHUNK // z.size)
        draw = self._shifted if self.null is CoincidenceNull.INDEPENDENT else self._drawn
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
        """Histories with the correlation and the shared loudness, in own distributions."""
        shape, root = (count, *z.shape), np.linalg.cholesky(self.correlation)
        mixed = self.rng.standard_normal(shape) @ root.T
        if isfinite(self.degrees):
            spread = self.rng.chisquare(self.degrees, (*shape[:2], 1)) / self.degrees
            mixed /= np.sqrt(spread)
        out = np.full(shape, np.nan)
        for j in range(z.shape[1]):
            told = np.flatnonzero(~np.isnan(z[:, j]))
            if len(told):
                edges = _quantiles(np.arange(1, len(told)) / len(told), self.degrees)
                out[:, told, j] = np.sort(z[told, j])[edges.searchsorted(mixed[:, told, j])]
        return out

    def _scan(self, z: FloatMatrix) -> FloatMatrix:
        """How far the worst group fell: (..., series) in, (...,) out."""
        score = np.empty(z.shape[:-1])
        kernel.worst_groups(
            z.reshape(-1, z.shape[-1]), self.loading, self.least, _CAP, score.reshape(-1)
        )
        return score


def flipped(values: FloatMatrix, rng: np.random.Generator, *, block: int = 1) -> FloatMatrix:
    """Each value with its own sign or the other, at random: only how large it was stays.

    A null for ties between series that are loud at the same times: it keeps what was loud, and
    when, and breaks which way each went. Give it shocks that remember nothing, or a `block` much
    longer than their memory: so many rows of a series keep or change their sign together.
    """
    if block < 1:
        raise EstimationError(f"block was {block}; it must be 1 or more")
    rows, series = values.shape
    first = int(rng.integers(block))
    runs = rng.integers(0, 2, (-(-(rows + first) // block), series)) * 2.0 - 1.0
    signs: FloatMatrix = np.repeat(runs, block, axis=0)[first : first + rows]
    return values * signs


def redirected(x: FloatMatrix, rng: np.random.Generator, count: int) -> Iterator[FloatMatrix]:
    """So many panels like `x` that share how loud a time is, and not which way it goes.

    Each series is what its own past (an autoregression) and its shocks make of it; the sign of
    every shock is drawn, see `flipped`. What was not seen stays NaN. Means are near 0.
    """
    own, unseen = [whitened(column) for column in x.T], np.isnan(x)
    shocks = np.column_stack([np.concatenate([a.start, a.shocks[a.order :]]) for a in own])
    shocks, chunk = np.nan_to_num(shocks), max(1, _CHUNK // 4 // x.size)
    for first in range(0, count, chunk):
        signs = rng.integers(0, 2, (min(chunk, count - first), *x.shape), dtype=np.int8) * 2 - 1
        made = shocks * signs
        for j, each in enumerate(own):
            if each.order:
                made[:, :, j] = each.rebuilt(made[:, :, j])
        made[:, unseen] = np.nan
        yield from made


def loudness(z: FloatMatrix, reach: int) -> FloatColumn:
    """How loud all series are around each step, by the steps before or those after it alone.

    The louder of the two, each the median size of all values within reach, in that of a standard
    normal value; a few series that fall together at one step do not make it loud. Few series are
    followed for longer, so that there are enough values to judge by. 1 where none was seen.
    """
    rows, series = z.shape
    reach = max(reach, -(-_HEARD // series))
    size, heard = np.abs(z), np.full((2, rows), np.nan)
    for t in range(rows):
        for side, spell in enumerate((size[max(t - reach, 0) : t], size[t + 1 : t + reach + 1])):
            known = spell[~np.isnan(spell)]
            if len(known) >= _HEARD // 2:
                heard[side, t] = np.median(known)
    loud: FloatColumn = np.fmax(heard[0], heard[1]) / _USUAL
    return np.where(loud > 0.0, loud, 1.0)


def ordinary_correlation(z: FloatMatrix) -> FloatMatrix:
    """Correlation of normal scores, drawn towards one correlation for all pairs.

    Large moves weigh no more than their ranks, so events do not make the correlation that they are
    held against. A pair is judged over the steps at which both were seen.
    """
    scores = _normal_scores(z)
    seen = (~np.isnan(scores)).astype(np.float64)
    filled = np.nan_to_num(scores)
    both = np.maximum(seen.T @ seen, 1.0)
    pairs = (filled.T @ filled) / both
    size = np.sqrt(np.maximum(np.diag(pairs), 1e-300))
    pairs = np.clip(pairs / size / size[:, None], -1.0, 1.0)
    off = ~np.eye(len(pairs), dtype=np.bool_)
    if off.any():
        drawn = shrunk_correlation(filled, target=Target.CONSTANT_CORRELATION)
        if not drawn.status:
            pairs[off] += drawn.intensity * (pairs[off].mean() - pairs[off])
    np.fill_diagonal(pairs, 1.0)
    return np.asarray(repaired_correlation(pairs, floor=1e-4).values)


def shared_degrees(z: FloatMatrix, correlation: FloatMatrix) -> float:
    """Degrees of freedom of the t copula that is likeliest, of a few; infinite for the normal one.

    It is read from the steps at which more rose than fell: with such a copula they are as loud as
    the others, and no unwinding is in them.
    """
    rose = np.nansum(_normal_scores(z), axis=1) > 0.0
    best, found = -inf, inf
    for degrees in _DEGREES[::-1]:
        size = _likelihood(_quantile_scores(z, degrees)[rose], correlation, degrees)
        if size > best:
            best, found = size, degrees
    return found


def _likelihood(scores: FloatMatrix, correlation: FloatMatrix, degrees: float) -> float:
    """Log likelihood of the t copula, of values as its quantiles; NaN where not seen."""
    seen, total = ~np.isnan(scores), 0.0
    kinds, which = np.unique(seen, axis=0, return_inverse=True)
    for k, kind in enumerate(kinds):
        count = int(kind.sum())
        if count < 2:
            continue
        inverse = np.linalg.inv(correlation[np.ix_(kind, kind)])
        g = scores[np.ix_(which.ravel() == k, kind)]
        square = ((g @ inverse) * g).sum(axis=1)
        half = 0.5 * float(np.linalg.slogdet(inverse)[1]) * len(g)
        if not isfinite(degrees):
            total += half - 0.5 * float((square - (g * g).sum(axis=1)).sum())
            continue
        constant = (
            lgamma(0.5 * (degrees + count)) - lgamma(0.5 * degrees)
            - count * (lgamma(0.5 * (degrees + 1.0)) - lgamma(0.5 * degrees))
        )  # fmt: skip
        joint = 0.5 * (degrees + count) * np.log1p(square / degrees)
        own = 0.5 * (degrees + 1.0) * np.log1p(g * g / degrees).sum(axis=1)
        total += half + len(g) * constant + float((own - joint).sum())
    return total


def _quantiles(level: FloatColumn, degrees: float) -> FloatColumn:
    found: FloatColumn = stdtrit(degrees, level) if isfinite(degrees) else ndtri(level)
    return found


def _normal_scores(z: FloatMatrix) -> FloatMatrix:
    return _quantile_scores(z, inf)


def _quantile_scores(z: FloatMatrix, degrees: float) -> FloatMatrix:
    """Each series' ranks as quantiles of the Student law, or of the normal one."""
    out = np.full(z.shape, np.nan)
    for j in range(z.shape[1]):
        place = np.flatnonzero(~np.isnan(z[:, j]))
        ordered = place[np.argsort(z[place, j], kind="stable")]
        out[ordered, j] = _quantiles((np.arange(len(place)) + 0.5) / max(len(place), 1), degrees)
    return out


def one_factor(correlation: FloatMatrix) -> FloatColumn:
    """Loadings of the one factor that comes nearest to all pairwise correlations."""
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
