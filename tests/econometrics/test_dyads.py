"""What nodes share is told apart by pair regression, and nothing is where nothing was planted."""

from __future__ import annotations

import sys
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binom

from undertow.econometrics.dyads import Permutation, attribute
from undertow.errors import EstimationError
from undertow.worlds import Attribution, Tandem, leverage_panel


def world(
    seed: int, nodes: int, coefficients: tuple[float, float, float], *, steps: int = 1_000
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of residuals as estimated, and the drivers (correlated 0.7) that made them."""
    plan = Attribution(coefficients, base=0.05, driver_correlation=0.7)
    _, truth = leverage_panel(
        seed,
        "leverage",
        nodes=[f"node {k}" for k in range(nodes)],
        drivers=np.zeros((steps, nodes)),
        ts=np.arange(steps, dtype=np.int64),
        tandem=Tandem(correlation=plan),
    )
    assert truth.attribution is not None
    return np.corrcoef(truth.residual[1:].T), truth.attribution.drivers


def symmetric(rng: np.random.Generator, nodes: int) -> np.ndarray:
    half = rng.standard_normal((nodes, nodes))
    return half + half.T


def test_coefficients_and_fit_are_those_of_a_plain_regression_over_pairs() -> None:
    rng = np.random.default_rng(1)
    drivers = np.stack([symmetric(rng, 9) for _ in range(3)])
    y = 0.2 + 0.5 * drivers[0] - 0.3 * drivers[2] + symmetric(rng, 9)
    found = attribute(y, drivers, rng=rng, reps=99)
    i, j = np.triu_indices(9, 1)
    x = np.column_stack([np.ones(36), drivers[:, i, j].T])
    beta = np.linalg.solve(x.T @ x, x.T @ y[i, j])
    left = y[i, j] - x @ beta
    np.testing.assert_allclose(found.coefficient, beta[1:], rtol=1e-10)
    assert found.intercept == pytest.approx(beta[0], rel=1e-10)
    assert found.r2 == pytest.approx(1.0 - left.var() / y[i, j].var(), rel=1e-10)
    np.testing.assert_allclose(found.residual[i, j], left, atol=1e-12)
    np.testing.assert_allclose(found.fitted + found.residual, y * np.where(np.eye(9), np.nan, 1.0))
    assert found.pairs == 36


def test_shares_are_mean_gains_over_all_orders_and_add_up() -> None:
    rng = np.random.default_rng(2)
    shared = symmetric(rng, 12)
    drivers = np.stack([shared + 0.7 * symmetric(rng, 12) for _ in range(3)])
    y = drivers[0] + 0.5 * drivers[1] + symmetric(rng, 12)
    found = attribute(y, drivers, rng=rng, reps=19)
    i, j = np.triu_indices(12, 1)

    def r2(chosen: tuple[int, ...]) -> float:
        x = np.column_stack([np.ones(len(i)), *(drivers[m, i, j] for m in chosen)])
        left = y[i, j] - x @ np.linalg.lstsq(x, y[i, j], rcond=None)[0]
        return 1.0 - left @ left / ((y[i, j] - y[i, j].mean()) ** 2).sum()

    share = np.zeros(3)
    for order in permutations(range(3)):
        for k, m in enumerate(order):
            share[m] += (r2(order[: k + 1]) - r2(order[:k])) / 6.0
    np.testing.assert_allclose(found.share, share, atol=1e-12)
    assert found.share.sum() == pytest.approx(found.r2)
    assert found.left_over == pytest.approx(1.0 - found.r2)


def slow_t(y: np.ndarray, x: np.ndarray, others: np.ndarray, ends: list[tuple[int, int]]) -> float:
    """t of x beside others, allowing for pairs that share a node, by double loop."""
    design = np.column_stack([x, others])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    own = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    score = own * (y - design @ beta)
    tied = sum(
        score[a] * score[b]
        for a in range(len(y))
        for b in range(len(y))
        if set(ends[a]) & set(ends[b])
    )
    return float(beta[0] * (own @ own) / np.sqrt(max(tied, 0.25 * (score**2).sum())))


def test_five_nodes_are_relabelled_in_all_ways() -> None:
    rng = np.random.default_rng(3)
    drivers = np.stack([symmetric(rng, 5), symmetric(rng, 5)])
    y = symmetric(rng, 5) + drivers[0]
    found = attribute(y, drivers, rng=rng)
    i, j = np.triu_indices(5, 1)
    ends = list(zip(i.tolist(), j.tolist(), strict=True))
    others = np.column_stack([np.ones(10), drivers[1, i, j]])
    own = np.zeros((5, 5))
    flat = drivers[0, i, j]
    own[i, j] = own[j, i] = flat - others @ np.linalg.lstsq(others, flat, rcond=None)[0]
    all_t = [
        abs(slow_t(y[i, j], own[np.ix_(order, order)][i, j], others, ends))
        for order in permutations(range(5))
    ]
    assert found.p_value[0] == pytest.approx(np.mean(np.array(all_t) >= all_t[0] - 1e-9))


def test_planted_drivers_are_found_and_the_one_without_part_is_not() -> None:
    names = ("collateral", "venue", "owner")
    hits = np.zeros(3)
    for seed in range(20):
        y, drivers = world(seed, 12, (0.5, 0.25, 0.0))
        found = attribute(y, drivers, rng=np.random.default_rng(seed), reps=199)
        hits += found.p_value < 0.05
        assert not any(found.reasons)
    told = dict(zip(names, hits.tolist(), strict=True))
    assert told["collateral"] == 20
    assert told["venue"] >= 15
    assert told["owner"] <= 4  # of 20 at 5 %: more has a chance of 0.3 %


def test_order_of_nodes_changes_nothing_but_the_labels() -> None:
    y, drivers = world(4, 9, (0.4, 0.0, 0.0))
    order = np.random.default_rng(5).permutation(9)
    turned = (y[np.ix_(order, order)], drivers[:, order][:, :, order])
    first = attribute(y, drivers, rng=np.random.default_rng(0), reps=1999)
    other = attribute(*turned, rng=np.random.default_rng(1), reps=1999)
    np.testing.assert_allclose(first.coefficient, other.coefficient, rtol=1e-9)
    np.testing.assert_allclose(first.low, other.low, rtol=1e-9)
    np.testing.assert_allclose(first.p_value, other.p_value, atol=0.05)


def test_drivers_of_no_use_are_named_and_the_others_fitted() -> None:
    rng = np.random.default_rng(6)
    one, two = symmetric(rng, 10), symmetric(rng, 10)
    y = one + 0.1 * symmetric(rng, 10)
    drivers = np.stack([one, np.ones((10, 10)), 2.0 * one - 3.0, two, one + two])
    found = attribute(y, drivers, rng=rng, reps=99)
    assert found.reasons == (
        "",
        "the same for all pairs",
        "a combination of the drivers before it",
        "",
        "a combination of the drivers before it",
    )
    assert np.isnan(found.coefficient).tolist() == [False, True, True, False, True]
    assert found.coefficient[0] == pytest.approx(1.0, abs=0.1)
    assert found.p_value[0] == 0.01


def test_pairs_that_were_not_seen_are_left_out() -> None:
    rng = np.random.default_rng(7)
    driver = symmetric(rng, 10)
    y = 2.0 * driver + symmetric(rng, 10)
    y[0, 1] = y[1, 0] = y[4, 7] = y[7, 4] = np.nan
    found = attribute(y, driver, rng=rng, reps=99)
    assert found.pairs == 43
    assert np.isnan(found.residual[0, 1])
    assert found.low[0] < 2.0 < found.high[0]


def test_too_few_nodes_or_nothing_to_explain_come_back_with_a_reason() -> None:
    rng = np.random.default_rng(8)
    three = attribute(symmetric(rng, 3), symmetric(rng, 3), rng=rng)
    assert three.reason.startswith("too few: 3 pairs of 3 nodes")
    assert np.isnan(three.coefficient).all()
    flat = attribute(np.ones((8, 8)), symmetric(rng, 8), rng=rng)
    assert flat.reason == "excess is the same for all pairs"
    useless = attribute(symmetric(rng, 8), np.zeros((8, 8)), rng=rng)
    assert useless.reason == "no driver is of use"
    assert np.isnan(useless.r2)


def test_misuse_is_refused() -> None:
    rng = np.random.default_rng(9)
    y = symmetric(rng, 6)
    with pytest.raises(EstimationError, match="not symmetric"):
        attribute(rng.standard_normal((6, 6)), y, rng=rng)
    with pytest.raises(EstimationError, match="drivers are"):
        attribute(y, symmetric(rng, 5), rng=rng)
    with pytest.raises(EstimationError, match="reps was 5"):
        attribute(y, y, rng=rng, reps=5)


@pytest.mark.slow
@pytest.mark.parametrize("permutation", list(Permutation))
@pytest.mark.parametrize("coefficients", [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.2, 0.0)])
def test_a_driver_without_part_is_blamed_as_often_as_the_level_says(
    coefficients: tuple[float, float, float], permutation: Permutation
) -> None:
    seeds = 500
    p, covered = [], np.zeros(3)
    for seed in range(seeds):
        y, drivers = world(seed, 10, coefficients)
        rng = np.random.default_rng(seed)
        found = attribute(y, drivers, rng=rng, reps=399, permutation=permutation)
        p.append(found.p_value)
        covered += (found.low <= coefficients) & (coefficients <= found.high)
    blamed = (np.array(p) <= 0.05).mean(axis=0)
    sys.stdout.write(
        f"\n{coefficients} {permutation.value}: p <= 0.05 {blamed.round(3)}, "
        f"band covers {(covered / seeds).round(3)}\n"
    )
    low, high = binom.interval(0.99, seeds, 0.05)
    for part, rate in zip(coefficients, blamed, strict=True):
        if part == 0.0:
            assert low <= rate * seeds <= high
        else:
            assert rate > 0.8
