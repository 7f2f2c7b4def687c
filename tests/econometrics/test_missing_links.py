"""Networks from totals alone: the published one, few links, and draws that hold the totals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from shared import oracle
from undertow.econometrics.missing_links import concentrated, drawn, fitted, spread_out
from undertow.errors import EstimationError


def totals(seed: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.pareto(1.5, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.3)
    np.fill_diagonal(true, 0.0)
    return true.sum(axis=1), true.sum(axis=0)


def fits(found: np.ndarray, has: np.ndarray, owes: np.ndarray) -> bool:
    near = 1e-9 * has.sum()
    return bool(
        (found >= 0.0).all()
        and (np.diag(found) == 0.0).all()
        and np.abs(found.sum(axis=1) - has).max() <= near
        and np.abs(found.sum(axis=0) - owes).max() <= near
    )


def test_the_published_network_of_maximum_entropy() -> None:
    (case,) = oracle("max_entropy_network")["cases"]
    given = case["inputs"]
    found = spread_out(given["interbank_assets"], given["interbank_liabilities"])
    want = np.array(case["expected"]["matrix_2dp"])
    assert found == pytest.approx(want, abs=case["tol"]["abs"])


@pytest.mark.parametrize("seed", range(5))
def test_every_network_has_the_totals(seed: int) -> None:
    has, owes = totals(seed, 25)
    even, lumpy = spread_out(has, owes), concentrated(has, owes)
    assert fits(even, has, owes)
    assert fits(lumpy, has, owes)
    assert (lumpy > 0.0).sum() <= 2 * 25
    assert (even > 0.0).sum() > 5 * (lumpy > 0.0).sum()
    for found in drawn(has, owes, 5, seed=seed):
        assert fits(found, has, owes)


def test_spread_out_is_the_one_of_most_entropy_among_those_drawn() -> None:
    has, owes = totals(7, 10)

    def entropy(x: np.ndarray) -> float:
        p = x[x > 0.0] / x.sum()
        return float(-(p * np.log(p)).sum())

    most = entropy(spread_out(has, owes))
    others = [entropy(x) for x in drawn(has, owes, 50, density=0.9, seed=1)]
    assert max(others) < most
    assert entropy(concentrated(has, owes)) < min(others)


def test_draws_with_every_link_there_are_even_over_all_that_fits() -> None:
    # four nodes, all totals 1: five entries are free, and draws by chance are kept where they fit
    rng = np.random.default_rng(0)
    a, b, c, d, e = rng.random((5, 400_000))  # links 0-1, 0-2, 1-0, 1-2, 2-0
    last = 1.0 - (1.0 - a - b) - (1.0 - c - d)  # 2-3, so that the last column sums to 1
    rest = (1.0 - a - b, 1.0 - c - d, last, 1.0 - e - last, 1.0 - c - e, e + last - a,
            1.0 - b - d)  # fmt: skip
    kept = np.min(rest, axis=0) >= 0.0
    assert kept.sum() > 1_000
    has = np.ones(4)
    found = np.array(list(drawn(has, has, 1_000, density=1.0, seed=2)))
    assert ks_2samp(found[:, 0, 1], a[kept]).pvalue > 0.01
    assert ks_2samp(found[:, 2, 3], last[kept]).pvalue > 0.01


def test_links_that_were_seldom_there_before_are_seldom_there_after() -> None:
    has = np.ones(6)
    links = [
        np.mean([(x > 0.0).sum() for x in drawn(has, has, 200, density=p, seed=2)])
        for p in (0.2, 0.5, 0.9)
    ]
    assert links[0] < links[1] < links[2] < 30.0


def test_the_same_seed_draws_the_same() -> None:
    has, owes = totals(3, 8)
    one, other = (list(drawn(has, owes, 3, seed=5)) for _ in range(2))
    assert all((x == y).all() for x, y in zip(one, other, strict=True))


def test_who_must_deal_with_one_alone_does() -> None:
    has, owes = np.array([5.0, 1.0, 0.0]), np.array([0.0, 2.0, 4.0])
    lumpy = concentrated(has, owes)
    assert fits(lumpy, has, owes)
    tight = concentrated(np.array([3.0, 2.0, 1.0]), np.array([3.0, 2.0, 1.0]))  # 0 has half of all
    assert fits(tight, np.array([3.0, 2.0, 1.0]), np.array([3.0, 2.0, 1.0]))


def test_nothing_and_what_cannot_be() -> None:
    assert spread_out([], []).shape == (0, 0)
    assert concentrated([0.0, 0.0], [0.0, 0.0]).sum() == 0.0
    for has, owes, words in (
        ([1.0, 2.0], [1.0, 1.0], "must be the same"),
        ([-1.0, 2.0], [0.0, 1.0], "negative or not finite"),
        ([3.0, 0.0], [2.0, 1.0], "it would owe to itself"),
        ([1.0], [1.0, 2.0], "two numbers a node"),
    ):
        with pytest.raises(EstimationError, match=words):
            spread_out(has, owes)
    with pytest.raises(EstimationError, match="density was 0"):
        next(drawn([1.0, 1.0], [1.0, 1.0], density=0.0))


def is_a_product(x: np.ndarray) -> bool:
    """Whether links that are there are a factor of the row times one of the column."""
    i, j = np.nonzero(x)
    ends = np.zeros((len(i), 2 * len(x)))
    ends[np.arange(len(i)), i] = ends[np.arange(len(i)), len(x) + j] = 1.0
    logs = np.log(x[i, j])
    return bool(np.abs(ends @ np.linalg.lstsq(ends, logs, rcond=None)[0] - logs).max() < 1e-6)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_links_that_totals_force_to_nothing_are_dropped(order: list[int]) -> None:
    has, owes = np.array([5.0, 3.0, 2.0]), np.array([5.0, 2.0, 3.0])  # node 0 is in every link
    found = spread_out(has[order], owes[order])
    want = np.array([[0.0, 2.0, 3.0], [3.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert found == pytest.approx(want[np.ix_(order, order)], abs=1e-11)
    assert (found > 0.0).sum() == 4
    for links in drawn(has[order], owes[order], 3):
        assert (links > 0.0).sum() == 4


@pytest.mark.parametrize("more", [1e-10, 1e-8, 1e-6, 1e-4, 1e-2])
def test_links_that_totals_force_to_nearly_nothing_are_there(more: float) -> None:
    has, owes = np.array([5.0 - more, 3.0, 2.0 + more]), np.array([5.0, 2.0, 3.0])
    found = spread_out(has, owes)
    assert (found > 0.0).sum() == 6
    assert np.abs(found.sum(axis=1) - has).max() <= 1e-12 * has.sum()
    assert np.abs(found.sum(axis=0) - owes).max() <= 1e-12 * has.sum()
    assert is_a_product(found)
    # links between 1 and 2 must sum to what node 0 lacks of being in every link
    assert found[1, 2] + found[2, 1] == pytest.approx(more, rel=1e-4)


def test_what_cannot_be_fitted_is_refused() -> None:
    alone = np.array([[False, True], [False, False]])
    with pytest.raises(EstimationError, match="were missed by"):
        fitted(np.array([1.0, 1.0]), np.array([1.0, 1.0]), alone)
