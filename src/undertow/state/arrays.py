"""Names for the arrays that nouns are made of, and how an array is made read-only."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatColumn = NDArray[np.float64]
FloatMatrix = NDArray[np.float64]
CodeColumn = NDArray[np.int32]
ShortColumn = NDArray[np.int16]
SmallColumn = NDArray[np.int8]
KeyColumn = NDArray[np.int64]
BoolColumn = NDArray[np.bool_]
AnyColumn = NDArray[Any]


def frozen(array: AnyColumn) -> AnyColumn:
    """The same array, contiguous and closed to writing; a view that others can write is copied."""
    owned = np.ascontiguousarray(array)
    if owned.base is not None and owned.flags.writeable:
        owned = owned.copy()
    owned.flags.writeable = False
    return owned


def digest(*parts: AnyColumn | str) -> str:
    """A short hash of columns and words, equal when all bits are equal."""
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        if isinstance(part, str):
            state.update(part.encode())
            state.update(b"\x00")
        else:
            state.update(str((part.dtype.str, part.shape)).encode())
            state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()
