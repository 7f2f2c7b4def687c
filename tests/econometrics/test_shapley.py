"""Shares of a joint result: against an average over permutations written apart, and its axioms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from undertow.econometrics.shapley import shares
from undertow.errors import EstimationError


def game(players: int, seed: int) -> dict[frozenset[int], float]:
    """A value for every set, of no structure at all."""
    rng = np.random.default_rng(seed)
    sets = [frozenset(i for i in range(players) if n >> i & 1) for n in range(2**players)]
    return dict(zip(sets, rng.normal(size=len(sets)) * 1e6, strict=True))


def by_hand(players: int, worth: dict[frozenset[int], float]) -> np.ndarray:
    """The definition: what each adds, over every order in which all may come."""
    total, orders = np.zeros(players), list(permutations(range(players)))
    for order in orders:
        for place, each in enumerate(order):
            total[each] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
    return total / len(orders)


@pytest.mark.parametrize(("players", "seed"), [(1, 0), (2, 1), (4, 2), (6, 3)])
def test_exact_shares_are_the_average_over_all_orders_and_add_up(players: int, seed: int) -> None:
    worth = game(players, seed)
    found = shares(players, worth.__getitem__)
    assert found.exact
    assert found.asked == 2**players
    assert found.shapley == pytest.approx(by_hand(players, worth), rel=1e-9, abs=1e-6)
    assert found.shapley.sum() == pytest.approx(found.every - found.none, rel=1e-9, abs=1e-6)
    assert (found.error == 0.0).all()


def test_alike_players_have_alike_shares_and_idle_ones_have_none() -> None:
    def worth(members: frozenset[int]) -> float:
        return 10.0 if {0, 1} <= members else 3.0 * (2 in members)

    found = shares(4, worth)
    assert found.shapley[0] == pytest.approx(found.shapley[1], rel=1e-12)
    assert found.shapley[3] == 0.0
    assert found.null.tolist() == [False, False, False, True]
    told = shares(4, worth, idle=(3,))
    assert told.asked == 8
    assert told.shapley == pytest.approx(found.shapley)
    assert told.shapley[3] == 0.0
    assert found.alone.tolist() == [0.0, 0.0, 3.0, 0.0]
    assert found.last.tolist() == [7.0, 7.0, 0.0, 0.0]


def test_drawn_orders_add_up_exactly_and_their_errors_are_of_the_right_size() -> None:
    worth = game(7, 5)
    right = shares(7, worth.__getitem__).shapley
    far = []
    for seed in range(30):
        found = shares(7, worth.__getitem__, most=100, rng=np.random.default_rng(seed))
        assert not found.exact
        assert found.asked <= 100
        assert found.shapley.sum() == pytest.approx(found.every - found.none, rel=1e-9)
        far.append((found.shapley - right) / found.error)
    # of a normal law 68 % lie within one error; of few draws somewhat fewer
    assert 0.4 < (np.abs(far) < 1.0).mean() < 0.9


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(EstimationError, match="players was 0"):
        shares(0, lambda _: 0.0)
    with pytest.raises(EstimationError, match="rng is None"):
        shares(6, lambda _: 0.0, most=40)
    with pytest.raises(EstimationError, match="two draws"):
        shares(6, lambda _: 0.0, most=20, rng=np.random.default_rng(0))
    with pytest.raises(EstimationError, match="players are 0 to 1"):
        shares(2, lambda _: 0.0, idle=(2,))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(EstimationError, match=r"value of the players \[0, 1\] was"):
        shares(3, lambda members: value if members == {0, 1} else 1.0)
