"""Correlation matrices: the nearest one to a matrix that is none, and blends of two.

What a stress desk writes down ("take every correlation to 0.9, but leave these three") is often no
correlation matrix: some portfolio would have a negative variance. It is repaired, and the report
says how far the repair had to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatMatrix
from undertow.state.arrays import frozen

_SLACK = 1e-10  # an eigenvalue above -_SLACK is rounding, not a fault


@dataclass(frozen=True, eq=False)
class Repaired:
    """A correlation matrix, and how far it is from what was asked for."""

    matrix: FloatMatrix
    distance: float  # Frobenius; 0 where nothing had to be repaired
    least_eigenvalue: float  # of what was asked for

    @property
    def words(self) -> str:
        """What was done, for the notes of a report; empty where nothing was."""
        if self.distance == 0.0:
            return ""
        return (
            f"the correlations asked for were no correlation matrix (least eigenvalue "
            f"{self.least_eigenvalue:.3g}); the nearest one is used, {self.distance:.3g} away "
            "(Frobenius)"
        )


def checked(matrix: Any, size: int | None = None, *, name: str = "correlation") -> FloatMatrix:
    """A square, symmetric matrix with a unit diagonal and entries in [-1, 1].

    Raises
    ------
    StateError
        Saying which of these it is not.
    """
    given = np.array(matrix, dtype=np.float64)
    wanted = given.shape[:1] * 2 if size is None else (size, size)
    if given.ndim != 2 or given.shape != wanted or not given.size:
        shape = f"{size} x {size}" if size else "square"
        raise StateError(
            f"{name} is {' x '.join(map(str, given.shape))}; it must be {shape}",
            hint="one row and one column for each asset, in the order of the universe",
        )
    if not np.isfinite(given).all() or np.abs(given).max() > 1.0 + 1e-9:
        raise StateError(f"{name} holds a number that is not within -1 and 1")
    if np.abs(given - given.T).max() > 1e-9:
        raise StateError(f"{name} is not symmetric", hint="give each pair one number")
    if np.abs(np.diag(given) - 1.0).max() > 1e-9:
        raise StateError(f"the diagonal of {name} is not 1")
    whole: FloatMatrix = np.clip(0.5 * (given + given.T), -1.0, 1.0)
    np.fill_diagonal(whole, 1.0)
    return whole


def nearest_correlation(matrix: FloatMatrix, *, max_steps: int = 1_000) -> Repaired:
    """The correlation matrix nearest to a symmetric one with a unit diagonal.

    Projects in turn onto the matrices without negative eigenvalues and onto those with a unit
    diagonal, with Dykstra's correction, until a step moves nothing by more than 1e-10. What
    rounding leaves is taken off by clipping the spectrum once and scaling the diagonal back.

    References
    ----------
    Higham (2002), "Computing the nearest correlation matrix: a problem from finance".
    """
    asked = checked(matrix)
    least = float(np.linalg.eigvalsh(asked)[0])
    if least >= -_SLACK:
        return Repaired(frozen(asked), 0.0, least)
    at, correction = asked, np.zeros_like(asked)
    for _ in range(max_steps):
        held = at - correction
        positive = _without_negative(held)
        correction = positive - held
        moved = positive.copy()
        np.fill_diagonal(moved, 1.0)
        step, at = float(np.abs(moved - at).max()), moved
        if step < 1e-10:
            break
    found = _without_negative(at)
    scale = 1.0 / np.sqrt(np.diag(found))
    found = checked(found * scale[:, None] * scale[None, :])
    return Repaired(frozen(found), float(np.linalg.norm(found - asked)), least)


def blended(start: FloatMatrix, target: Any, weight: float) -> Repaired:
    """`start` taken the share `weight` of the way to `target`: a matrix, or one number for all."""
    if np.ndim(target) == 0:
        target = np.full_like(start, float(target))
        np.fill_diagonal(target, 1.0)
    end = checked(target, len(start))
    return nearest_correlation((1.0 - weight) * start + weight * end)


def lower_root(matrix: FloatMatrix) -> FloatMatrix:
    """A lower-triangular L with L L' = `matrix`, whether or not it has full rank.

    Cholesky by outer products; a pivot of nothing leaves its column empty.
    """
    rest = matrix.copy()
    size = len(rest)
    root = np.zeros_like(rest)
    for k in range(size):
        if rest[k, k] > 1e-12:
            root[k:, k] = rest[k:, k] / np.sqrt(rest[k, k])
            rest[k:, k:] -= np.outer(root[k:, k], root[k:, k])
    return frozen(root)


def _without_negative(matrix: FloatMatrix) -> FloatMatrix:
    value, vector = np.linalg.eigh(0.5 * (matrix + matrix.T))
    kept: FloatMatrix = (vector * np.maximum(value, 0.0)) @ vector.T
    return kept
