"""Covariance matrices of many series over few rows, drawn towards a simple one.

Rows of `x` are instants, columns are series, nothing is missing. The sample covariance of N series
over T rows has N (N + 1) / 2 entries from N T numbers: with T not far above N its small eigenvalues
are far too small, and whoever inverts it bets on noise. Drawn towards a target that has few
numbers, by the share that loses least in squared error, it can be inverted whatever N and T are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from undertow.econometrics.checks import FloatMatrix, chosen, frozen, matrix


class Target(StrEnum):
    """What the sample covariance is drawn towards."""

    IDENTITY = "identity"  # no correlation, one variance for all: their mean
    CONSTANT_CORRELATION = "constant correlation"  # own variances, one correlation for all


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A covariance matrix drawn towards a target; all NaN where `status` says why."""

    target: Target
    covariance: FloatMatrix  # (series, series)
    intensity: float  # share of the target: 0 is the sample, 1 the target alone
    mean_correlation: float  # of the sample, over all pairs; NaN where a series stood still
    status: str

    @property
    def correlation(self) -> FloatMatrix:
        """The shrunk matrix with its diagonal scaled to 1; NaN in rows that have no variance."""
        variance = np.diag(self.covariance)
        size = np.sqrt(np.where(variance > 0.0, variance, np.nan))
        scaled: FloatMatrix = self.covariance / size[:, None] / size
        return scaled


def shrunk_covariance(x: Any, *, target: Target = Target.IDENTITY) -> Shrunk:
    """The sample covariance (divided by the rows), drawn towards a target by the best share.

    The share is estimated from the spread of products around their means over rows, which are taken
    for independent: serial dependence makes it too small. The identity suits standardised series
    and mixes levels of variance otherwise; a constant correlation suits series of one kind.

    scikit-learn has the first of the two; the package does without so large a library for the ten
    lines that it takes, and its tests hold them against it.

    References
    ----------
    Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
    matrices". Ledoit and Wolf (2004), "Honey, I shrunk the sample covariance matrix".
    """
    given, target = matrix("x", x), chosen("target", Target, target)
    centred = given - given[0]  # a large level costs digits
    centred -= centred.mean(axis=0)
    sample = centred.T @ centred / len(centred)
    average = _mean_correlation(sample)
    if target is Target.IDENTITY:
        aim, intensity = _towards_identity(centred, sample)
    else:
        if np.isnan(average):
            still = np.flatnonzero(np.diag(sample) <= 0.0)
            why = f"column {still[0]} stood still" if still.size else "there is a single series"
            nothing = np.full_like(sample, np.nan)
            return Shrunk(
                target, frozen(nothing), np.nan, np.nan, f"{why}: no correlation to draw towards"
            )
        aim, intensity = _towards_constant(centred, sample, average)
    shrunk = (1.0 - intensity) * sample + intensity * aim
    return Shrunk(target, frozen(shrunk), intensity, average, "")


def shrunk_correlation(x: Any, *, target: Target = Target.IDENTITY) -> Shrunk:
    """`shrunk_covariance` of series scaled to variance 1: a correlation matrix, whatever the units.

    Each series weighs the same in the share. A series that stood still has none, and `status` says
    which.
    """
    given, target = matrix("x", x), chosen("target", Target, target)
    level = given - given[0]
    size = level.std(axis=0)
    still = np.flatnonzero(np.ptp(given, axis=0) == 0.0)
    if still.size:
        nothing = np.full((given.shape[1],) * 2, np.nan)
        why = f"column {still[0]} stood still: it has no correlation"
        return Shrunk(target, frozen(nothing), np.nan, np.nan, why)
    found = shrunk_covariance(level / size, target=target)
    if found.status:
        return found
    exact = found.covariance.copy()
    np.fill_diagonal(exact, 1.0)
    return Shrunk(target, frozen(exact), found.intensity, found.mean_correlation, "")


def _towards_identity(x: FloatMatrix, sample: FloatMatrix) -> tuple[FloatMatrix, float]:
    """Target and share of the first of the two papers: b^2 / d^2, both as mean squares."""
    rows, n = x.shape
    mean = float(np.trace(sample)) / n
    square = float((sample * sample).sum())
    fourth = float(((x * x).sum(axis=1) ** 2).sum())
    noise = (fourth / rows - square) / rows  # of the sample around what it estimates
    gap = square - n * mean * mean  # of the sample from its target
    share = min(max(noise, 0.0), gap) / gap if gap > 0.0 else 0.0
    return mean * np.eye(n), share


def _towards_constant(
    x: FloatMatrix, sample: FloatMatrix, average: float
) -> tuple[FloatMatrix, float]:
    """Target and share of the second: (pi - rho) / gamma / rows, in the paper's letters."""
    rows = len(x)
    size = np.sqrt(np.diag(sample))
    aim = average * np.outer(size, size)
    np.fill_diagonal(aim, np.diag(sample))
    squares = x * x
    pi = squares.T @ squares / rows - sample * sample
    theta = (squares * x).T @ x / rows - np.diag(sample)[:, None] * sample  # theta_ii,ij
    off = average * (theta * (size / size[:, None]))
    np.fill_diagonal(off, 0.0)
    rho = float(np.trace(pi)) + float(off.sum())
    gamma = float(((aim - sample) ** 2).sum())
    share = (float(pi.sum()) - rho) / gamma / rows if gamma > 0.0 else 0.0
    return aim, min(max(share, 0.0), 1.0)


def _mean_correlation(sample: FloatMatrix) -> float:
    variance = np.diag(sample)
    n = len(sample)
    if n < 2 or not (variance > 0.0).all():
        return np.nan
    size = np.sqrt(variance)
    return float(((sample / size[:, None] / size).sum() - n) / (n * (n - 1)))
