"""Shares that stand on each other: held to plain rounds, and to circles worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from undertow.econometrics.mutual_shares import lines_meet, mutual_shares


def plainly(
    slope: np.ndarray, base: np.ndarray, start: np.ndarray, *, rising: bool = False
) -> np.ndarray:
    """The same by rounds alone, a great many of them."""
    z = start
    low, high = (start, np.ones_like(start)) if rising else (np.zeros_like(start), start)
    for _ in range(200_000):
        then = np.clip(base + slope @ z, low, high)
        if np.abs(then - z).max() <= 1e-16:
            return then
        z = then
    return z


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of ten, some cut off from each other, whose circles keep 0.2 to 1.3 of themselves."""
    rng = np.random.default_rng(seed)
    slope = rng.uniform(size=(10, 10)) * (rng.uniform(size=(10, 10)) < 0.3)
    slope[:4, 4:] = 0.0
    np.fill_diagonal(slope, 0.0)
    radius = np.abs(np.linalg.eigvals(slope)).max()
    slope *= rng.uniform(0.2, 1.3) / max(radius, 0.1)
    return slope, rng.uniform(-0.4, 0.9, 10)


@pytest.mark.parametrize("seed", range(60))
def test_shares_solved_at_once_are_those_of_many_rounds(seed: int) -> None:
    slope, base = drawn(seed)
    for rising in (False, True):
        start = np.full(10, 0.0 if rising else 1.0)
        found = mutual_shares(csr_array(slope), base, start, rising=rising)
        assert found.settled
        want = plainly(slope, base, start, rising=rising)
        assert found.share == pytest.approx(want, abs=1e-9)


def test_a_circle_that_keeps_nearly_all_is_solved_in_a_few_rounds() -> None:
    # z = 1e-9 + (1 - 2e-9) z, so a half; rounds alone would take ten thousand million
    kept = 1.0 - 2e-9
    slope = csr_array(np.array([[0.0, kept], [1.0, 0.0]]))
    found = mutual_shares(slope, np.array([1e-9, 0.0]), np.ones(2))
    assert found.settled
    assert found.rounds < 20
    assert found.share == pytest.approx([0.5, 0.5], abs=1e-5)


def test_a_circle_that_leaks_goes_down_step_by_step_beside_one_that_creeps() -> None:
    # the first pair loses 0.01 with every round until nothing is left; the second ends at a half
    slope = np.zeros((4, 4))
    slope[0, 1] = slope[1, 0] = slope[3, 2] = 1.0
    slope[2, 3] = 0.99998
    found = mutual_shares(csr_array(slope), np.array([-0.01, 0.0, 1e-5, 0.0]), np.ones(4))
    assert found.settled
    assert 100 <= found.rounds <= 300
    assert found.share == pytest.approx([0.0, 0.0, 0.5, 0.5], abs=1e-7)


def test_a_circle_that_leaks_too_slowly_is_said_not_to_have_settled() -> None:
    slope = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    found = mutual_shares(slope, np.array([-1e-7, 0.0]), np.ones(2))
    assert not found.settled
    assert (found.share < 1.0).all()  # as far as it came


def test_of_two_answers_falling_takes_the_greatest_and_rising_the_least() -> None:
    slope = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    nothing = np.zeros(2)
    assert mutual_shares(slope, nothing, np.ones(2)).share.tolist() == [1.0, 1.0]
    assert mutual_shares(slope, nothing, np.zeros(2), rising=True).share.tolist() == [0.0, 0.0]


def test_nobody_at_all() -> None:
    found = mutual_shares(csr_array((0, 0)), np.zeros(0), np.zeros(0))
    assert found.settled
    assert not len(found.share)


def test_lines_meet_at_or_above_nothing() -> None:
    # a = 2 + b / 2, b = max(a / 2 - 4, 0): b is nothing, so a is 2
    slope = csr_array(np.array([[0.0, 0.5], [0.5, 0.0]]))
    z, found = lines_meet(slope, np.array([2.0, -4.0]))
    assert found
    assert z == pytest.approx([2.0, 0.0])
    closed = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert not lines_meet(closed, np.array([1.0, 0.0]))[1]


def test_many_shares_are_solved_for_without_a_direct_solve() -> None:
    n = 5_000  # one long circle, each worth 0.9999 of the next and a little of its own
    at = np.arange(n)
    slope = csr_array((np.full(n, 0.9999), (at, (at + 1) % n)), shape=(n, n))
    found = mutual_shares(slope, np.full(n, 5e-5), np.ones(n))
    assert found.settled
    assert found.share == pytest.approx(np.full(n, 0.5), abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_long_circle_that_keeps_nearly_all_is_solved_either_way_round() -> None:
    n = 20_000
    at = np.arange(n)
    for onward in ((at + 1) % n, (at - 1) % n):
        slope = csr_array((np.full(n, 1.0 - 1e-6), (at, onward)), shape=(n, n))
        found = mutual_shares(slope, np.full(n, 5e-7), np.ones(n))
        assert found.settled
        assert found.rounds < 20
        assert found.share == pytest.approx(np.full(n, 0.5), abs=1e-8)
