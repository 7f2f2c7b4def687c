"""What comes in where all pass on a part: dense solves, circles worked by hand, many shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from undertow.econometrics import leontief
from undertow.econometrics.leontief import solved


def passing(
    debtor: np.ndarray, creditor: np.ndarray, kept: np.ndarray, rng: np.random.Generator
) -> csr_array:
    """Nodes that keep so much of what comes in, and pass the rest on to others unevenly."""
    size, apart = len(kept), debtor != creditor
    debtor, creditor = debtor[apart], creditor[apart]
    value = rng.uniform(0.1, 1.0, len(debtor))
    whole = np.bincount(debtor, value, size)
    share = value / whole[debtor] * (1.0 - kept)[debtor]
    found = csr_array((share, (creditor, debtor)), shape=(size, size))
    found.sum_duplicates()
    return found


@pytest.mark.parametrize("seed", range(40))
def test_small_ones_are_those_of_a_dense_solve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    dense = rng.random((size, size)) * (rng.random((size, size)) < 0.2) * rng.choice([0.2, 1.0, 3])
    base = rng.random(size)
    want = np.linalg.solve(np.eye(size) - dense, base)
    found = solved(csr_array(dense), base)
    assert found is not None
    assert found == pytest.approx(want, abs=1e-8 * np.abs(want).max())


def shapes(size: int, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    at, side = np.arange(size), int(size**0.5)
    mixed = rng.permutation(size)
    crowd = rng.integers(0, size // 100, 10 * size)
    x, y = (each.ravel() for each in np.mgrid[:side, :side])
    plane = [((x + i) % side * side + (y + j) % side) for i, j in ((0, 1), (1, 0), (0, 2), (2, 1))]
    return {
        "ring": (mixed, np.roll(mixed, 1)),
        "both ways": (np.r_[mixed, np.roll(mixed, 1)], np.r_[np.roll(mixed, 1), mixed]),
        "tree": (np.r_[at[1:], (at[1:] - 1) // 2], np.r_[(at[1:] - 1) // 2, at[1:]]),
        "hub": (np.r_[at[1:], at[1:-1], np.zeros(size - 1, int)],
                np.r_[np.zeros(size - 1, int), at[2:], at[1:]]),
        "random": tuple(rng.integers(0, size, (2, 10 * size))),
        "few": tuple(rng.integers(0, size, (2, 2 * size))),
        "plane": (np.tile(x * side + y, 4), np.concatenate(plane)),
        "crowds": (np.r_[crowd * 100 + rng.integers(0, 100, 10 * size), at[::100]],
                   np.r_[crowd * 100 + rng.integers(0, 100, 10 * size), np.roll(at[::100], 1)]),
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("least", [1e-2, 1e-6])
@pytest.mark.parametrize("shape", list(shapes(100, np.random.default_rng(0))))
def test_large_ones_of_every_shape_add_up(shape: str, least: float) -> None:
    rng, size = np.random.default_rng(4), 8_100
    debtor, creditor = shapes(size, rng)[shape]
    kept = least * rng.random(size)
    kept[np.bincount(debtor[debtor != creditor], minlength=size) == 0] = 1.0
    ways = passing(debtor, creditor, kept, rng)
    base = kept * rng.random(size)
    found = solved(ways, base, kept)
    assert found is not None
    assert np.abs(base + ways @ found - found).max() <= 1e-13 * found.max()
    assert kept @ found == pytest.approx(base.sum(), rel=1e-9)  # all that is put in stays somewhere


def test_a_ring_that_keeps_a_last_digit_is_solved_to_nearly_every_digit() -> None:
    size = 5_000
    at = np.arange(size)
    for keep in (1e-9, 1e-15):
        ways = csr_array((np.full(size, 1.0 - keep), ((at + 1) % size, at)), shape=(size, size))
        found = solved(ways, np.full(size, 0.5 * keep), np.full(size, keep))
        assert found is not None
        assert found == pytest.approx(np.full(size, 0.5), rel=1e-10)


def test_what_cannot_be_solved_is_nothing() -> None:
    closed = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert solved(closed, np.array([1.0, 0.0])) is None
    none = solved(csr_array((0, 0)), np.zeros(0))
    assert none is not None
    assert not len(none)


def test_a_core_too_wide_to_solve_in_order_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, size = np.random.default_rng(4), 8_100
    debtor, creditor = shapes(size, rng)["crowds"]
    kept = np.full(size, 1e-6)
    ways = passing(debtor, creditor, kept, rng)
    monkeypatch.setattr(leontief, "_STEPS", 3)
    assert solved(ways, kept, kept) is not None
    monkeypatch.setattr(leontief, "_ROOM", 1.0)
    assert solved(ways, kept, kept) is None
