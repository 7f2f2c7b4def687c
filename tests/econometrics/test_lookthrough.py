"""What stands on what in the end: chains, circles, and circles without a way out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.econometrics.lookthrough import claims_standing, look_through, passing
from undertow.econometrics.radius import radius
from undertow.errors import EstimationError


def _random(seed, nodes, ends, *, told=0.95):
    rng = np.random.default_rng(seed)
    parts = rng.random((nodes, nodes + ends)) * (rng.random((nodes, nodes + ends)) < 0.3)
    parts[:, -1] += 0.01
    parts *= told / parts.sum(axis=1, keepdims=True)
    return parts[:, :nodes], parts[:, nodes:]


def test_a_chain_of_wrappers_is_made_of_its_base_and_no_link_comes_back():
    shares = np.diag([1.0, 1.0], k=-1)
    found = look_through(shares, [[1.0], [0.0], [0.0]])
    assert found.ends[:, 0].tolist() == [1.0, 1.0, 1.0]
    assert found.depth.tolist() == [0, 1, 2]
    assert not found.in_circle.any()
    assert found.multiplier.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rho", [0.1, 0.75, 0.99])
def test_a_loop_that_lends_rho_on_multiplies_by_one_over_one_less_rho(rho):
    # lender: cash 1 - rho and a loan; looper: shares; vault: a deposit at the lender
    shares = [[0.0, rho, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    found = look_through(shares, [[1.0 - rho], [0.0], [0.0]])
    assert np.allclose(found.multiplier, 1.0 / (1.0 - rho), rtol=1e-12)
    assert np.allclose(found.returns, rho)
    assert np.allclose(found.ends[:, 0], 1.0)
    assert len(set(found.circle)) == 1


def test_a_circle_without_a_way_out_stands_on_nothing_but_itself():
    shares = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]]
    found = look_through(shares, [[0.0], [0.0], [0.5]])
    assert found.circular.tolist() == [1.0, 1.0, 0.5]
    assert found.multiplier[:2].tolist() == [np.inf, np.inf]
    assert found.ends[:, 0].tolist() == [0.0, 0.0, 0.5]
    alone = look_through([[1.0]], [[0.0]])
    assert alone.circular.tolist() == [1.0]
    assert alone.in_circle.all()


def test_nothing_at_all_is_looked_through_to_nothing():
    found = look_through(np.zeros((0, 0)), np.zeros((0, 2)))
    assert found.ends.shape == (0, 2)
    assert claims_standing(np.zeros((0, 0)), []).finite


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3))
def test_it_agrees_with_the_whole_matrix_and_nothing_is_lost(seed, nodes, ends):
    shares, last = _random(seed, nodes, ends)
    found = look_through(shares, last)
    visits = np.linalg.inv(np.eye(nodes) - shares)
    assert np.allclose(found.ends, visits @ last, atol=1e-12)
    assert np.allclose(found.multiplier, np.diag(visits), rtol=1e-9)
    assert np.allclose(found.ends.sum(axis=1) + found.untold + found.circular, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_what_passes_a_node_is_what_would_end_there(seed, nodes):
    shares, last = _random(seed, nodes, 1)
    found = passing(shares, [[k] for k in range(nodes)])
    for k in range(nodes):
        cut = shares.copy()
        cut[k] = 0.0
        stops = np.zeros((nodes, 2))
        stops[:, 0] = np.where(np.arange(nodes) == k, 0.0, cut[:, k])
        cut[:, k] = 0.0
        ends = look_through(cut, stops).ends[:, 0]
        others = np.arange(nodes) != k
        assert np.allclose(found[others, k], ends[others], atol=1e-10)
        assert found[k, k] == pytest.approx(1.0)
    assert last.shape == (nodes, 1)


def test_who_gets_into_an_endless_circle_passes_all_of_it():
    shares = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.25, 0.0, 0.0]]
    found = passing(shares, [[0], [1], [0, 1], []])
    both = [1.0, 1.0, 1.0, 0.0]
    assert np.allclose(found, [both, both, [0.25, 0.25, 0.25, 0.0]])


def test_many_small_circles_and_one_large_are_solved_as_one_matrix_would_be():
    rng = np.random.default_rng(3)
    nodes = 1_700  # more than are solved by a full matrix
    ring = np.roll(np.eye(nodes), 1, axis=1) * rng.uniform(0.2, 0.999, nodes)[:, None]
    ends = (1.0 - ring.sum(axis=1))[:, None]
    found = look_through(ring, ends)
    back = float(np.exp(np.log(ring.sum(axis=1)).sum()))
    assert np.allclose(found.returns, back)
    assert np.allclose(found.ends[:, 0], 1.0 - found.circular)


def test_claims_stand_on_the_base_as_often_as_it_is_used_again():
    rho = 0.75
    reuse = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, rho, 0.0]]
    found = claims_standing(reuse, [1.0, 0.0, 0.0])
    assert np.allclose(found.claims, [4.0, 4.0, 3.0])
    assert found.radius == pytest.approx(rho ** (1.0 / 3.0))


def test_reuse_without_end_is_said_where_it_reaches_and_nowhere_else():
    reuse = np.zeros((5, 5))
    reuse[1, 0], reuse[0, 1] = 1.0, 1.2  # a circle that grows
    reuse[2, 1] = 0.5  # fed by it
    reuse[4, 3] = 0.5
    found = claims_standing(reuse, [1.0, 0.0, 0.0, 2.0, 0.0])
    assert not found.finite
    assert found.radius > 1.0
    assert found.claims.tolist() == [np.inf, np.inf, np.inf, 2.0, 1.0]
    starved = claims_standing(reuse, [0.0, 0.0, 0.0, 2.0, 0.0])
    assert starved.claims.tolist() == [0.0, 0.0, 0.0, 2.0, 1.0]


def test_radius_is_the_same_for_full_and_for_sparse():
    rng = np.random.default_rng(0)
    small = rng.random((300, 300)) * (rng.random((300, 300)) < 0.05)
    large = np.zeros((600, 600))
    large[:300, :300] = small
    assert radius(large) == pytest.approx(radius(small), rel=1e-8)
    assert radius(np.zeros((4, 4))) == 0.0
    assert radius(np.diag(np.full(99, 2.0), k=1)) == 0.0  # a chain has no circle


@pytest.mark.parametrize("nodes", [60, 300, 700])
def test_the_radius_of_a_ring_is_the_mean_of_its_weights_in_logs(nodes):
    weight = np.random.default_rng(nodes).uniform(0.5, 3.0, nodes)
    ring = np.roll(np.diag(weight), 1, axis=1)
    assert radius(ring) == pytest.approx(np.exp(np.log(weight).mean()), rel=1e-8)
    base = np.zeros(nodes)
    base[0] = 1.0
    assert not claims_standing(ring, base).finite
    shrinking = ring / 3.5
    found = claims_standing(shrinking, base)
    again = 1.0 / (1.0 - np.exp(np.log(weight / 3.5).sum()))
    assert found.claims[0] == pytest.approx(again)


@pytest.mark.parametrize(
    ("shares", "ends", "words"),
    [
        ([[0.6]], [[0.6]], "made of 1.2"),
        ([[-0.1]], [[0.0]], "negative"),
        ([[0.1, 0.2]], [[0.0]], "square"),
        ([[0.1]], [[np.nan]], "finite"),
    ],
)
def test_impossible_shares_are_refused(shares, ends, words):
    with pytest.raises(EstimationError, match=words):
        look_through(shares, ends)


def test_impossible_reuse_is_refused():
    with pytest.raises(EstimationError, match="square"):
        claims_standing([[0.1]], [1.0, 2.0])
    with pytest.raises(EstimationError, match="base"):
        claims_standing([[0.1]], [-1.0])


@pytest.mark.parametrize("out", [1e-3, 1e-9, 1e-11])
def test_a_circle_with_a_narrow_way_out_ends_whole(out: float) -> None:
    shares = np.array([[0.0, 0.3, 0.7 - out], [0.6, 0.0, 0.4], [0.2, 0.8, 0.0]])
    ends = np.array([[0.25 * out, 0.75 * out], [0.0, 0.0], [0.0, 0.0]])
    found = look_through(shares, ends)
    assert found.ends == pytest.approx(np.tile([0.25, 0.75], (3, 1)), abs=1e-10)
    sums = found.ends.sum(axis=1) + found.untold + found.circular
    assert sums == pytest.approx(np.ones(3), abs=1e-14)
