"""Eigenvalues of a correlation matrix: what they would be by chance, cleaned, and counted.

Rows of `x` are instants, columns are series, nothing is missing. Even of series that have nothing
in common, a sample correlation matrix has eigenvalues far from 1: with q = series / rows they fill
(1 - sqrt(q))^2 to (1 + sqrt(q))^2. A common factor is what stands out of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import FloatColumn, FloatMatrix, chosen, frozen, matrix, within
from undertow.econometrics.pairwise import correlation_matrix
from undertow.errors import EstimationError


class Cleaning(StrEnum):
    """What is done to the eigenvalues of a sample correlation matrix."""

    CLIPPED = "clipped"  # those that chance could have made become their mean
    ROTATION_INVARIANT = "rotation invariant"  # each becomes what its eigenvector is worth


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues of a symmetric matrix, largest first, with their vectors."""

    eigenvalues: FloatColumn  # (series,)
    vectors: FloatMatrix  # (series, series): column k belongs to eigenvalue k
    shares: FloatColumn  # (series,): of the trace


@dataclass(frozen=True, slots=True, eq=False)
class EffectiveNumber:
    """How many independent series would be as diverse: 1 to `series`, the last also more."""

    entropy: float  # exp(-sum of p log p) of the eigenvalues' shares p
    participation: float  # 1 / sum of p^2: what is large weighs more
    mean_correlation: float  # N / (1 + (N - 1) mean correlation), above N where that is negative
    series: int


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """A sample correlation matrix without what chance put into its eigenvalues."""

    cleaning: Cleaning
    values: FloatMatrix  # (series, series), 1 on the diagonal
    before: FloatColumn  # (series,): eigenvalues, largest first
    after: FloatColumn  # (series,): what became of them, before the diagonal was scaled to 1
    edge: float  # the largest that chance makes
    beyond: int  # how many stand out of it
    status: str  # why nothing was cleaned; empty where it was


def spectrum(values: Any) -> Spectrum:
    """Eigenvalues and vectors of a symmetric matrix, largest first, and shares of the trace."""
    given = matrix("values", values, rows=1)
    if given.shape[0] != given.shape[1] or np.abs(given - given.T).max() > 1e-9 * (
        1.0 + np.abs(given).max()
    ):
        raise EstimationError(
            f"values is {given.shape[0]} by {given.shape[1]} and must be square and symmetric",
            hint="give a correlation or covariance matrix",
        )
    eigenvalues, vectors = np.linalg.eigh(given)
    largest_first = eigenvalues[::-1].copy()
    total = float(largest_first.sum())
    if not total > 0.0:
        raise EstimationError("the trace of values is not positive", hint="drop flat series first")
    turned = np.ascontiguousarray(vectors[:, ::-1])
    return Spectrum(frozen(largest_first), frozen(turned), frozen(largest_first / total))


def effective_number(correlation: Any) -> EffectiveNumber:
    """How many independent series a correlation matrix amounts to, counted in three ways.

    1 where all are one and the same, N where none has to do with another. Of a sample all three
    are too small: noise spreads the eigenvalues of independent series, so that N of them over T
    rows participate like N / (1 + N / T). The third sees the mean correlation alone, and reads a
    long-short world, whose correlations cancel, as independent or better; it is NaN where the mean
    is so negative that nothing is left to divide by.

    References
    ----------
    Roy and Vetterli (2007), "The effective rank". Bouchaud and Potters (2003), "Theory of
    financial risk and derivative pricing", on the participation ratio.
    """
    given = correlation_matrix("correlation", correlation)
    n = len(given)
    shares = np.maximum(np.linalg.eigvalsh(given), 0.0)
    shares /= shares.sum()
    some = shares[shares > 0.0]
    mean = (float(given.sum()) - n) / (n * (n - 1)) if n > 1 else 0.0
    below = 1.0 + (n - 1) * mean
    return EffectiveNumber(
        float(np.exp(-(some * np.log(some)).sum())),
        float(1.0 / (shares * shares).sum()),
        n / below if below > 1e-12 else np.nan,
        n,
    )


def marchenko_pastur(series: int, rows: int, *, variance: float = 1.0) -> tuple[float, float]:
    """Between what eigenvalues lie when nothing is common: variance (1 -+ sqrt(series / rows))^2.

    For independent, identically spread values with finite fourth moments; with fat tails, serial
    dependence or few series the largest often strays beyond, so an eigenvalue just outside proves
    nothing: see `common_factor`. Where there are more series than rows, the rest are 0.

    References
    ----------
    Marchenko and Pastur (1967), "Distribution of eigenvalues for some sets of random matrices".
    """
    if series < 1 or rows < 1:
        raise EstimationError(f"series was {series}, rows {rows}; both must be at least 1")
    within("variance", variance, 0.0, np.inf)
    root = np.sqrt(series / rows)
    return float(variance * (1.0 - root) ** 2), float(variance * (1.0 + root) ** 2)


def cleaned_correlation(
    correlation: Any, rows: int, *, cleaning: Cleaning = Cleaning.CLIPPED
) -> Cleaned:
    """A sample correlation matrix over `rows` rows with its eigenvalues cleaned, vectors kept.

    Clipping puts the mean of all eigenvalues up to the edge of chance in place of each of them.
    The other way estimates for each eigenvector what variance it will have in new data,

        xi = lambda / |1 - q + q z s(z)|^2,    z = lambda - i / sqrt(N),

    s(z) being the mean of 1 / (z - lambda_j) over the other eigenvalues, and lifts small ones by
    the factor that this estimate lacks for a spectrum that is all noise. It asks for fewer series
    than rows; otherwise the matrix comes back as it was, with a `status`. Both keep the trace, and
    are as wrong as the eigenvectors are: they cannot find structure that the sample does not show.

    References
    ----------
    Laloux, Cizeau, Bouchaud and Potters (1999), "Noise dressing of financial correlation matrices".
    Ledoit and Peche (2011), "Eigenvectors of some large sample covariance matrix ensembles". Bun,
    Bouchaud and Potters (2017), "Cleaning large correlation matrices: tools from random matrix
    theory".
    """
    given = correlation_matrix("correlation", correlation)
    cleaning = chosen("cleaning", Cleaning, cleaning)
    n = len(given)
    _, edge = marchenko_pastur(n, rows)
    found = spectrum(given)
    before = found.eigenvalues
    beyond = int((before > edge).sum())
    status = ""
    if cleaning is Cleaning.CLIPPED:
        after = _clipped(before, edge)
    elif n < rows and before[-1] > 0.0:
        after = _rotation_invariant(before, n / rows)
    else:
        after = before.copy()
        status = f"{n} series over {rows} rows: an eigenvalue is 0, so none was cleaned"
    values = _with_unit_diagonal((found.vectors * after) @ found.vectors.T)
    return Cleaned(cleaning, frozen(values), before, frozen(after), edge, beyond, status)


def _clipped(eigenvalues: FloatColumn, edge: float) -> FloatColumn:
    """What lies within the edge becomes its mean."""
    noise = eigenvalues <= edge
    after = eigenvalues.copy()
    if noise.any():
        after[noise] = eigenvalues[noise].mean()
    return after


def _rotation_invariant(eigenvalues: FloatColumn, q: float) -> FloatColumn:
    """The oracle eigenvalues, lifted where the spectrum's small end would come out too low."""
    n = len(eigenvalues)
    z = eigenvalues - 1j / np.sqrt(n)
    apart: NDArray[np.complex128] = z[:, None] - eigenvalues
    np.fill_diagonal(apart, np.inf)
    s = (1.0 / apart).sum(axis=1) / n
    xi = eigenvalues / np.abs(1.0 - q + q * z * s) ** 2
    least = eigenvalues[-1]
    variance = least / (1.0 - np.sqrt(q)) ** 2
    most = variance * (1.0 + np.sqrt(q)) ** 2
    g = z + variance * (q - 1.0) - np.sqrt(z - least) * np.sqrt(z - most)
    g /= 2.0 * q * z * variance
    lift = variance * np.abs(1.0 - q + q * z * g) ** 2 / eigenvalues
    after = xi * np.maximum(lift, 1.0)
    scaled: FloatColumn = after * (eigenvalues.sum() / after.sum())
    return scaled


def _with_unit_diagonal(values: FloatMatrix) -> FloatMatrix:
    size = np.sqrt(np.diag(values))
    scaled: FloatMatrix = np.clip(values / size[:, None] / size, -1.0, 1.0)
    scaled = 0.5 * (scaled + scaled.T)
    np.fill_diagonal(scaled, 1.0)
    return scaled
