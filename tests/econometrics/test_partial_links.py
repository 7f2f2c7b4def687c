"""Networks on links that may be, searched ones and bounds: totals hold, and nothing passes one."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from undertow.econometrics.clearing import Debts, clearing
from undertow.econometrics.link_bounds import shortfall_bound
from undertow.econometrics.partial_links import (
    Open,
    corner,
    drawn_from,
    few_links,
    spread_over,
)
from undertow.econometrics.worst_links import searched
from undertow.errors import EstimationError


def puzzle(seed: int, nodes: int, may: float = 0.6) -> Open:
    rng = np.random.default_rng(seed)
    allowed = rng.random((nodes, nodes)) < may
    np.fill_diagonal(allowed, False)
    true = rng.pareto(1.5, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.5) * allowed
    return Open.of(true.sum(axis=1), true.sum(axis=0), allowed)


def fits(found: np.ndarray, given: Open) -> bool:
    near = 1e-9 * given.whole
    return bool(
        (found >= 0.0).all()
        and (found[~given.allowed] == 0.0).all()
        and np.abs(found.sum(axis=1) - given.has).max() <= near
        and np.abs(found.sum(axis=0) - given.owes).max() <= near
    )


def shortfall(links: np.ndarray, assets: np.ndarray, outside: np.ndarray) -> float:
    holder, debtor = np.nonzero(links)
    debts = Debts.of(debtor, holder, links[holder, debtor], len(links), outside)
    return float(clearing(debts, assets).shortfall.sum())


@pytest.mark.parametrize("seed", range(4))
def test_every_network_on_some_links_has_the_totals(seed: int) -> None:
    given = puzzle(seed, 12)
    few = few_links(given)
    assert fits(spread_over(given), given)
    assert fits(few, given)
    assert (few > 0.0).sum() < 24
    for found in drawn_from(given, 10, seed=seed):
        assert fits(found, given)


def test_entropy_is_largest_where_it_is_spread_out() -> None:
    given = puzzle(5, 8, 0.8)

    def entropy(x: np.ndarray) -> float:
        p = x[x > 0.0] / x.sum()
        return float(-(p * np.log(p)).sum())

    most = entropy(spread_over(given))
    assert max(entropy(x) for x in drawn_from(given, 40, density=0.9, seed=1)) < most
    assert entropy(few_links(given)) < most


def test_links_that_are_forced_to_nothing_still_leave_a_network_with_the_totals() -> None:
    # node 0 may only have on 1 or 2; 1 owes 2, of which node 2 alone needs both
    allowed = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    given = Open.of([1.0, 1.0, 2.0, 1.0], [0.0, 2.0, 2.0, 1.0], allowed)
    assert fits(spread_over(given), given)
    assert all(fits(x, given) for x in drawn_from(given, 3))


def most_of_each(given: Open) -> np.ndarray:
    """The most that each link can be in any network that fits, by a linear programme."""
    i, j = np.nonzero(given.allowed)
    size, each = len(given), np.arange(len(i))
    ends = np.zeros((2 * size, len(i)))
    ends[i, each] = ends[size + j, each] = 1.0
    most = np.zeros((size, size))
    for k in each:
        most[i[k], j[k]] = -linprog(
            -(each == k).astype(float), A_eq=ends, b_eq=np.r_[given.has, given.owes]
        ).fun  # fmt: skip
    return most


@pytest.mark.parametrize("seed", range(25))
def test_the_links_there_are_those_that_any_network_can_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 6))
    allowed = rng.random((size, size)) < 0.6
    np.fill_diagonal(allowed, False)
    true = rng.integers(0, 4, (size, size)) * (rng.random((size, size)) < 0.5) * allowed
    given = Open.of(true.sum(axis=1), true.sum(axis=0), allowed)
    found, order = spread_over(given), rng.permutation(size)
    assert np.abs(found.sum(axis=1) - given.has).max() <= 1e-12 * given.whole
    assert np.abs(found.sum(axis=0) - given.owes).max() <= 1e-12 * given.whole
    if given.whole > 0.0:
        assert ((found > 0.0) == (most_of_each(given) > 1e-6)).all()
    again = spread_over(
        Open.of(given.has[order], given.owes[order], allowed[np.ix_(order, order)])
    )  # fmt: skip
    assert again == pytest.approx(found[np.ix_(order, order)], abs=1e-9)


@pytest.mark.parametrize("more", [1e-9, 1e-6])
def test_what_is_spread_over_is_no_middle_of_corners(more: float) -> None:
    given = Open.of([5.0 - more, 3.0, 2.0 + more], [5.0, 2.0, 3.0])  # 1 and 2 hardly meet
    x = spread_over(given)
    assert (x > 0.0).sum() == 6
    # factors of rows and columns fall out of the links round both ways
    assert x[0, 1] * x[1, 2] * x[2, 0] == pytest.approx(x[0, 2] * x[2, 1] * x[1, 0], rel=1e-3)
    assert np.abs(x.sum(axis=1) - given.has).max() <= 1e-12 * given.whole


def test_totals_that_fit_no_network_on_the_links_are_refused() -> None:
    alone = np.array([[False, True, False], [True, False, False], [True, True, False]])
    for has, owes, allowed, words in (
        ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0], alone, "has these totals"),
        ([1.0, 2.0], [1.0, 1.0], None, "must be the same"),
        ([-1.0, 2.0], [0.0, 1.0], None, "negative or not finite"),
        ([1.0], [1.0, 0.0], None, "two numbers a node"),
        ([1.0, 1.0], [1.0, 1.0], [[True]], "it must be"),
        ([3.0, 0.0, 1.0], [3.0, 1.0, 0.0], None, "has these totals"),
    ):
        with pytest.raises(EstimationError, match=words):
            Open.of(has, owes, allowed)
    with pytest.raises(EstimationError, match="density was 2"):
        next(drawn_from(Open.of([1.0, 1.0], [1.0, 1.0]), density=2.0))
    with pytest.raises(EstimationError, match="give a start"):
        searched((), lambda _: 0.0, ())


def test_nothing_owed_is_an_empty_network() -> None:
    nothing = Open.of([0.0, 0.0], [0.0, 0.0])
    assert not spread_over(nothing).any()
    assert not few_links(nothing).any()
    assert not corner(nothing).any()
    assert not np.array(list(drawn_from(nothing, 2))).any()


@cache
def whole_networks(has: tuple[int, ...], owes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Every network of whole numbers with these totals."""
    size = len(has)
    rows = [
        [row for row in product(*(range(min(total, owes[j]) + 1) if j != i else (0,)
                                  for j in range(size))) if sum(row) == total]
        for i, total in enumerate(has)
    ]  # fmt: skip
    every = (np.array(rows, dtype=np.float64) for rows in product(*rows))
    return tuple(x for x in every if (x.sum(axis=0) == np.array(owes)).all())


CASES = (
    ((2, 3, 1), (3, 1, 2), (1.0, 0.0, 0.5), (1.0, 2.0, 1.0)),
    ((2, 2, 2, 2), (3, 1, 3, 1), (0.5, 1.0, 0.0, 2.0), (1.0, 1.0, 1.0, 1.0)),
    ((4, 1, 2, 3), (1, 4, 3, 2), (0.0, 2.0, 1.0, 0.0), (2.0, 1.0, 0.0, 3.0)),
)


@pytest.mark.parametrize("case", CASES)
def test_the_search_finds_what_trying_every_network_finds(case: tuple) -> None:
    has, owes, assets, outside = (np.array(x, dtype=np.float64) for x in case)
    every = [shortfall(x, assets, outside) for x in whole_networks(case[0], case[1])]
    given = Open.of(has, owes)
    starts = [(x,) for x in drawn_from(given, 6, seed=1)]
    found = searched(
        (given,), lambda x: shortfall(x[0], assets, outside), starts, tries=400, seed=2
    )
    assert len(every) > 1
    assert found.value >= max(every) - 1e-9
    assert fits(found.networks[0], given)
    assert found.value == pytest.approx(shortfall(found.networks[0], assets, outside), abs=1e-12)
    bound = shortfall_bound(has, owes, assets, outside)
    assert found.value <= bound
    again = searched(
        (given,), lambda x: shortfall(x[0], assets, outside), starts, tries=400, seed=2
    )
    assert again.value == found.value


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), nodes=st.integers(2, 7), keep=st.sampled_from([1.0, 0.7]))
def test_no_network_passes_the_bound_of_what_is_not_paid(
    seed: int, nodes: int, keep: float
) -> None:
    given = puzzle(seed, nodes, 0.8)
    rng = np.random.default_rng(seed)
    assets, outside = rng.random(nodes) * 2.0, rng.random(nodes)
    bound = shortfall_bound(
        given.has, given.owes, assets, outside, given.allowed, keep_assets=keep,
        keep_received=keep,
    )  # fmt: skip
    found = [spread_over(given), few_links(given), *drawn_from(given, 4, seed=seed)]
    for links in found:
        holder, debtor = np.nonzero(links)
        debts = Debts.of(debtor, holder, links[holder, debtor], nodes, outside)
        for least in (False, True):
            paid = clearing(debts, assets, keep_assets=keep, keep_received=keep, least=least)
            assert paid.shortfall.sum() <= bound * (1.0 + 1e-9) + 1e-12


def test_the_programme_is_sharper_than_own_assets_alone() -> None:
    # 0 lacks 2; 1 and 2 are sound enough to take it, so nobody else can fail
    has, owes = np.array([1.0, 2.0, 2.0]), np.array([3.0, 1.0, 1.0])
    assets, outside = np.array([0.0, 4.0, 4.0]), np.zeros(3)
    assert shortfall_bound(has, owes, assets, outside) == pytest.approx(2.0, abs=1e-5)
