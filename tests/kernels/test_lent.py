"""Tuples that are lent to a kernel read and write as they do when they are passed."""

import sys
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from undertow.kernels.lent import lend

_ROW = np.dtype([("size", "f8"), ("kind", "i4")], align=True)


class Inner(NamedTuple):
    table: NDArray[np.float64]
    flag: bool


class Outer(NamedTuple):
    inner: Inner
    rows: Any  # _ROW
    alike: tuple[NDArray[np.int64], NDArray[np.int64]]
    factor: float


class Alike(NamedTuple):
    first: NDArray[np.int64]
    second: NDArray[np.int64]


@njit(error_model="numpy")
def _inner(i: int, outer: Any) -> Any:
    row = outer.rows[i]
    row.size *= outer.factor
    if outer.inner.flag:
        outer.inner.table[0, i] += row.size
    outer.alike.second[i] = outer.alike.first[i] + row.kind


@njit(error_model="numpy")
def _fill(outer: Any, again: bool) -> Any:
    outer = lend(outer)
    if again:
        outer = lend(outer)
    for i in range(outer.rows.size):
        _inner(i, outer)
        outer.inner.table[1, i] = i  # written in a loop, through a chain of fields
    return outer.inner.table.shape[0] + outer.alike.first.size


def _outer(flag: bool = True) -> Outer:
    rows = np.zeros(4, dtype=_ROW).view(np.recarray)
    rows["size"], rows["kind"] = np.arange(4.0), 7
    return Outer(
        Inner(np.ones((2, 4)), flag), rows, Alike(np.arange(4), np.zeros(4, np.int64)), 3.0
    )


def test_a_lent_tuple_reads_and_writes_as_in_python() -> None:
    for flag in (True, False):
        compiled, plain = _outer(flag), _outer(flag)
        assert _fill(compiled, False) == _fill.py_func(plain, False) == 6
        assert (compiled.inner.table == plain.inner.table).all()
        assert (compiled.rows == plain.rows).all()
        assert (compiled.alike.second == plain.alike.second).all()
        assert (compiled.inner.table[0] == (1.0 + 3.0 * np.arange(4) if flag else 1.0)).all()


def test_lending_what_is_lent_changes_nothing() -> None:
    outer, other = _outer(), _outer()
    assert _fill(outer, True) == _fill(other, False)
    assert (outer.inner.table == other.inner.table).all()


def test_no_reference_is_lost_or_kept() -> None:
    outer = _outer()
    before = [sys.getrefcount(x) for x in (outer.inner.table, outer.rows, outer.alike.first)]
    for _ in range(50):
        _fill(outer, False)
    assert before == [
        sys.getrefcount(x) for x in (outer.inner.table, outer.rows, outer.alike.first)
    ]


def test_outside_compiled_code_a_tuple_is_lent_as_it_is() -> None:
    outer = _outer()
    assert lend(outer) is outer
