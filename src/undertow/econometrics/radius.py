"""Spectral radius of a matrix that is mostly empty: whether what goes round grows or dies out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, eigs

_DENSE = 50  # rows up to which all eigenvalues are found


def radius(matrix: Any) -> float:
    """Size of the largest eigenvalue of a square matrix; 0 of an empty one."""
    here = csr_array(matrix, dtype=np.float64)
    if not here.nnz:
        return 0.0
    if here.shape[0] <= _DENSE:
        return float(np.abs(np.linalg.eigvals(here.toarray())).max())
    try:
        found = eigs(here, k=1, which="LM", v0=np.ones(here.shape[0]), tol=1e-10,
                     return_eigenvectors=False)  # fmt: skip
    except ArpackNoConvergence as stopped:
        found = stopped.eigenvalues
    return float(np.abs(found).max(initial=0.0))
