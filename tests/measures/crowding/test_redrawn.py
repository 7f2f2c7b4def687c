"""Owners drawn anew: alone or in blocks, sums vary as those of owners drawn one by one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crowds import crowd
from undertow.errors import EstimationError
from undertow.measures.crowding import Crowd
from undertow.measures.crowding import redrawn as module
from undertow.measures.crowding.redrawn import Redrawn, owners_in


def stand_in(owner: np.ndarray) -> Any:
    """What drawing needs of a book."""
    book = SimpleNamespace(owners=np.unique(owner))
    return SimpleNamespace(holder=owner, snapshot=SimpleNamespace(book=book))


def test_sums_over_blocks_vary_as_sums_over_owners_do() -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 6_000, 9_000)).astype(np.int32)
    owner = np.unique(owner, return_inverse=True)[1].astype(np.int32)
    size = rng.pareto(2.2, len(owner)) + 1.0
    drawn = Redrawn.of(stand_in(owner), size, reps=1_500, seed=1, level=0.9)
    cell = rng.integers(0, 3, len(owner))
    sums = drawn.sums(np.arange(len(owner)), cell, size, 3)
    by_owner = np.stack([np.bincount(owner, size * (cell == c)) for c in range(3)])
    np.testing.assert_allclose(sums.mean(axis=0), by_owner.sum(axis=1), rtol=0.01)
    # Poisson weights of mean 1: covariances are sums of products over owners
    np.testing.assert_allclose(np.diag(np.cov(sums.T)), np.diag(by_owner @ by_owner.T), rtol=0.2)


def test_few_owners_are_drawn_one_by_one() -> None:
    owner = np.repeat(np.arange(40), 2).astype(np.int32)
    drawn = Redrawn.of(stand_in(owner), np.ones(80), reps=50, seed=3, level=0.9)
    assert drawn.units == 40
    sums = drawn.sums(np.arange(80), np.zeros(80, dtype=np.int64), np.ones(80), 1)
    np.testing.assert_allclose(sums[:, 0], 2.0 * drawn.weight.sum(axis=1))


def test_the_largest_are_drawn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALONE", 2)
    monkeypatch.setattr(module, "_BLOCKS", 4)
    owner, size = np.arange(30, dtype=np.int32), np.ones(30)
    size[[7, 21]] = 50.0, 60.0
    drawn = Redrawn.of(stand_in(owner), size, reps=19, seed=0, level=0.9)
    alone = drawn.unit[[7, 21]]
    assert sorted(alone.tolist()) == [0, 1]
    assert not np.isin(np.delete(drawn.unit, [7, 21]), alone).any()
    np.testing.assert_array_equal(drawn.weight[:, 2:].sum(axis=1), 4.0)


def test_a_band_is_of_the_draws_that_have_the_number() -> None:
    drawn = Redrawn(np.zeros(1, dtype=np.int32), np.ones((100, 1)), 0.5)
    values = np.column_stack([np.arange(100.0), np.arange(100.0), np.full(100, np.nan)])
    values[:10, 1] = np.inf
    low, high = drawn.band(values)
    assert (low[0], high[0]) == pytest.approx((24.75, 74.25))
    assert (low[1], high[1]) == pytest.approx((32.25, 76.75))
    assert np.isnan(low[2])


def test_owners_are_counted_where_they_have_rows() -> None:
    book = Crowd.of(crowd([0.3] * 4, [1.0] * 4, share=0.5))
    owner = np.array([0, 0, 1, 2], dtype=np.int32)
    book = replace(book, snapshot=replace(
        book.snapshot, book=replace(book.snapshot.book, owner=owner, owners=np.arange(3))
    ))  # fmt: skip
    account, cell = np.array([0, 0, 1, 2, 3]), np.array([1, 0, 1, 1, 0])
    np.testing.assert_array_equal(owners_in(book, account, cell, 3), [2, 2, 0])


@pytest.mark.parametrize("given", [{"level": 0.0}, {"reps": 5}, {"reps": 19.5}])
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(EstimationError):
        Redrawn.of(
            stand_in(np.zeros(1, dtype=np.int32)), np.ones(1),
            **({"reps": 19, "seed": 0, "level": 0.9} | given),
        )  # fmt: skip
