"""Spectral radius of a matrix that is mostly empty: whether what goes round grows or dies out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from undertow.errors import EstimationError

_DENSE = 800  # nodes of a circle up to which all eigenvalues are found
_SURE, _MOST = 1e-9, 50_000  # of the answer: how near its two ends come, and steps until they do


def radius(matrix: Any) -> float:
    """Size of the largest eigenvalue of a square matrix of numbers from 0 up; 0 without circles.

    It is the largest of those of its circles, the sets of nodes that can reach each other.

    Raises
    ------
    EstimationError
        When it did not settle on a circle of many nodes.
    """
    links = csr_array(matrix, dtype=np.float64).tocoo()  # whose arrays may be read-only
    some = links.data != 0.0
    if not some.any():
        return 0.0
    ends = links.row[some], links.col[some]
    here = csr_array((links.data[some], ends), shape=links.shape)
    count, label = connected_components(here, connection="strong")
    size = np.bincount(label, minlength=count)
    alone = size[label] == 1
    largest = float(here.diagonal()[alone].max(initial=0.0))
    for circle in np.flatnonzero(size > 1):
        rows = np.flatnonzero(label == circle)
        largest = max(largest, _of_circle(here[rows][:, rows]))
    return largest


def _of_circle(inner: Any) -> float:
    """Of nodes that all reach each other: between the least and the greatest growth of any vector
    that is positive everywhere (Collatz and Wielandt), which steps bring together.
    """
    nodes = inner.shape[0]
    if nodes <= _DENSE:
        return float(np.abs(np.linalg.eigvals(inner.toarray())).max())
    vector = np.ones(nodes)
    for _ in range(_MOST):
        after = inner @ vector + vector  # what stays put keeps steps from going round for ever
        growth = after / vector
        low, high = float(growth.min()), float(growth.max())
        if high - low <= _SURE * high:
            return 0.5 * (low + high) - 1.0
        vector = np.maximum(after / after.max(), 1e-280)
    raise EstimationError(
        f"the radius of a circle of {nodes:,} nodes lies between {low - 1.0:.6g} and "
        f"{high - 1.0:.6g}, and did not settle",
        hint="leave out links that carry next to nothing",
    )
