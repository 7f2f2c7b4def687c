"""How much an owner brings in or closes: exactly what is lacking, whatever is owed already."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from undertow.kernels import owners as kernel

USD = st.floats(-1e6, 1e6).map(lambda x: round(x, 2))
ASKED = st.floats(1.0, 1e6).map(lambda x: round(x, 2))
AIM = st.floats(1.0, 3.0)


def room(money: float, counts: float, asked: float, aim: float) -> float:
    """What counts less `aim` times what is asked, with money on its own side of the two."""
    return counts + max(money, 0.0) - aim * (asked + max(-money, 0.0))


@given(money=USD, counts=USD, asked=ASKED, aim=AIM)
def test_money_brought_in_closes_the_gap_to_the_cent(
    money: float, counts: float, asked: float, aim: float
) -> None:
    short = -room(money, counts, asked, aim)
    assume(short > 0.0)
    usd = kernel.money_for(short, money, aim)
    assert usd > 0.0
    left = room(money + usd, counts, asked, aim)
    assert left == pytest.approx(0.0, abs=1e-9 * (abs(money) + abs(counts) + asked) * aim)


@given(money=USD, profit=USD, others=USD, asked=ASKED, aim=AIM)
def test_the_share_of_contracts_closed_closes_the_gap_or_is_all_of_them(
    money: float, profit: float, others: float, asked: float, aim: float
) -> None:
    def after(share: float) -> float:
        """Room once a share of the contracts is closed, at prices that stay."""
        counts = others + (1.0 - share) * profit
        return room(money + share * profit, counts, (1.0 - share) * asked, aim)

    short = -after(0.0)
    assume(short > 0.0)
    share = kernel.share_to_close(short, asked, money, profit, aim)
    scale = (abs(money) + abs(profit) + abs(others) + asked) * aim
    assert 0.0 < share <= 1.0
    if share < 1.0:
        assert after(share) == pytest.approx(0.0, abs=1e-9 * scale)
    else:
        least = np.linspace(0.0, 1.0 - 1e-6, 50)
        assert max(after(float(s)) for s in least) <= 1e-6 * scale


@given(short=ASKED, asked=ASKED, money=USD, profit=USD, aim=AIM)
def test_compiled_and_plain_sizes_are_the_same_bits(
    short: float, asked: float, money: float, profit: float, aim: float
) -> None:
    for function, args in (
        (kernel.money_for, (short, money, aim)),
        (kernel.share_to_close, (short, asked, money, profit, aim)),
    ):
        one, two = function(*args), function.py_func(*args)
        assert np.float64(one).tobytes() == np.float64(two).tobytes()


@pytest.mark.parametrize(
    ("money", "profit", "share"),
    [
        (500.0, -100.0, 0.25),  # money stays: 100 of 1.25 * 320
        (0.0, -400.0, 1.0 / 3.0),  # every USD of loss is owed: 100 of 400 - 0.25 * 400
        (50.0, -400.0, 0.125 + 50.0 / 300.0),  # 50 by the eighth that uses up the money
        (-50.0, 400.0, 50.0 / 400.0 + 37.5 / 400.0),  # an eighth frees 50 and saves 12.5
    ],
)
def test_profit_and_loss_turn_into_money_as_contracts_close(
    money: float, profit: float, share: float
) -> None:
    assert kernel.share_to_close(100.0, 320.0, money, profit, 1.25) == pytest.approx(share)
