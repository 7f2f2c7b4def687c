"""Correlation between nodes: equal, given, or made of what they share.

Where it is made of what they share, off the diagonal

    correlation = base + sum_m coefficients[m] * drivers[m]

with drivers the cosines between random holdings of collateral, venues and owners. A cosine matrix
has no negative eigenvalue, so any such sum with coefficients that leave room is a correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatMatrix
from undertow.state.arrays import frozen
from undertow.worlds.seeds import require_within, stream
from undertow.worlds.truths import AttributionTruth

_DRIVERS = ("collateral", "venue", "owner")
_DRIVER_DIMENSIONS, _DRIVER_SHAPE = 12, 0.25
_PSD_SLACK = 1e-9
_LEAST_NODES = 3  # with fewer there is one pair at most, and nothing to correlate


@dataclass(frozen=True, slots=True)
class Attribution:
    """Correlation that comes from what nodes share: collateral, venue and owner.

    `driver_correlation` is the mean correlation of the three over pairs of nodes. It can be raised
    from what independent holdings have by chance, never lowered.
    """

    coefficients: tuple[float, float, float] = (0.35, 0.2, 0.1)
    base: float = 0.0
    driver_correlation: float | None = None

    def __post_init__(self) -> None:
        """Refuse coefficients that add up to more than a whole correlation."""
        for name, value in zip(_DRIVERS, self.coefficients, strict=True):
            require_within(f"attribution coefficient of {name}", value, 0.0, 1.0)
        require_within("attribution.base", self.base, 0.0, 1.0)
        total = self.base + sum(self.coefficients)
        require_within("base plus coefficients of attribution", total, 0.0, 1.0)
        if self.driver_correlation is not None:
            require_within("driver_correlation", self.driver_correlation, 0.0, 0.99)


def correlation_of(
    seed: int, name: str, wanted: float | FloatMatrix | Attribution, size: int
) -> tuple[FloatMatrix, AttributionTruth | None]:
    """The correlation that is wanted as a matrix, and what it is made of where that is known.

    Raises
    ------
    StateError
        When it is none: out of range, of another size, or with a negative eigenvalue.
    """
    if isinstance(wanted, Attribution):
        truth = _attribution(seed, name, wanted, size)
        shared = sum(
            c * driver for c, driver in zip(truth.coefficients, truth.drivers, strict=True)
        )
        matrix = wanted.base + np.asarray(shared)
        np.fill_diagonal(matrix, 1.0)
        return matrix, truth
    if isinstance(wanted, np.ndarray):
        return _require_correlation(np.asarray(wanted, dtype=np.float64), size), None
    lowest = -1.0 / (size - 1) if size > 1 else -1.0
    require_within("correlation", wanted, lowest, 1.0)
    matrix = np.full((size, size), float(wanted))
    np.fill_diagonal(matrix, 1.0)
    return matrix, None


def _require_correlation(matrix: FloatMatrix, size: int) -> FloatMatrix:
    if matrix.shape != (size, size):
        raise StateError(f"correlation is {matrix.shape}; {size} nodes need {(size, size)}")
    if not np.isfinite(matrix).all() or (matrix != matrix.T).any() or (np.diag(matrix) != 1).any():
        raise StateError("correlation must be finite and symmetric with ones on its diagonal")
    least = float(np.linalg.eigvalsh(matrix).min())
    if least < -_PSD_SLACK * size:
        raise StateError(
            f"the least eigenvalue of correlation was {least:.3g}; it must be at least 0",
            hint="a correlation matrix has to be positive semidefinite",
        )
    return matrix


def _attribution(seed: int, name: str, plan: Attribution, size: int) -> AttributionTruth:
    """Similarities of random holdings: one matrix a driver, mixed with a shared one.

    driver_m = w * shared + (1 - w) * own_m; w is such that over all pairs the drivers' mean
    correlation is the one asked for. All are cosines of vectors, so every mix is a correlation.
    """
    own = [_cosines(seed, f"{driver} shared in {name}", size) for driver in _DRIVERS]
    shared = _cosines(seed, f"all shared in {name}", size)
    weight = 0.0
    if plan.driver_correlation is not None:
        weight = _shared_weight(own, shared, plan.driver_correlation)
    drivers = _mixed(own, shared, weight)
    return AttributionTruth(
        names=_DRIVERS,
        coefficients=plan.coefficients,
        base=plan.base,
        drivers=frozen(drivers),
        driver_correlation=frozen(_pair_correlation(drivers)),
    )


def _shared_weight(own: list[FloatMatrix], shared: FloatMatrix, wanted: float) -> float:
    """The weight at which drivers correlate as wanted: none is as they are, all makes them one."""
    size = len(shared)
    if size < _LEAST_NODES:
        raise StateError(
            f"driver_correlation was {wanted:g}, of {size} nodes; pairs of at least "
            f"{_LEAST_NODES} are needed to have one",
            hint="leave driver_correlation out",
        )
    low, high = 0.0, 1.0
    least = _mean_off_diagonal(_pair_correlation(_mixed(own, shared, low)))
    if wanted < least:
        raise StateError(
            f"driver_correlation was {wanted:g}; the drivers of these {size} nodes can have "
            f"{least:.3f} to 0.99",
            hint="ask for more, leave it out, or take another seed or more nodes",
        )
    for _ in range(50):
        weight = 0.5 * (low + high)
        mean = _mean_off_diagonal(_pair_correlation(_mixed(own, shared, weight)))
        low, high = (weight, high) if mean < wanted else (low, weight)
    return high


def _mixed(own: list[FloatMatrix], shared: FloatMatrix, weight: float) -> FloatMatrix:
    return np.stack([weight * shared + (1.0 - weight) * each for each in own])


def _cosines(seed: int, part: str, size: int) -> FloatMatrix:
    held = stream(seed, part).standard_gamma(_DRIVER_SHAPE, (size, _DRIVER_DIMENSIONS)) + 1e-6
    unit = held / np.sqrt((held * held).sum(axis=1, keepdims=True))
    cosines: FloatMatrix = np.einsum("ik,jk->ij", unit, unit)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _pair_correlation(drivers: FloatMatrix) -> FloatMatrix:
    """Correlation of the drivers over all pairs of nodes; of too few nodes, that of nothing."""
    if drivers.shape[1] < _LEAST_NODES:
        return np.eye(len(drivers))
    upper = np.triu_indices(drivers.shape[1], 1)
    flat = np.stack([each[upper] for each in drivers])
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit = flat / np.maximum(np.sqrt((flat * flat).sum(axis=1, keepdims=True)), 1e-300)
    correlation: FloatMatrix = np.einsum("ik,jk->ij", unit, unit)
    return correlation


def _mean_off_diagonal(matrix: FloatMatrix) -> float:
    size = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (size * (size - 1)))


def correlated(
    draws: FloatMatrix, common: FloatMatrix, wanted: object, correlation: FloatMatrix
) -> FloatMatrix:
    """Standard normals with a correlation: by one factor where it is equal, else by its root."""
    if isinstance(wanted, float | int) and wanted >= 0.0:
        mixed: FloatMatrix = sqrt(wanted) * common + sqrt(1.0 - wanted) * draws
        return mixed
    root = _lower_root(correlation)
    mixed = np.zeros_like(draws)
    for j in range(len(root)):  # column by column: no sum depends on threads
        mixed[:, j:] += draws[:, j : j + 1] * root[j:, j]
    return mixed


def _lower_root(matrix: FloatMatrix) -> FloatMatrix:
    """L with L @ L.T = matrix, also where the matrix is singular."""
    root = np.zeros_like(matrix)
    for j in range(len(matrix)):
        pivot = matrix[j, j] - (root[j, :j] ** 2).sum()
        if pivot <= 1e-12:
            continue
        root[j, j] = sqrt(pivot)
        below = matrix[j + 1 :, j] - (root[j + 1 :, :j] * root[j, :j]).sum(axis=1)
        root[j + 1 :, j] = below / root[j, j]
    return root
