"""A history of leverage: what grows, what prices did of it, and what cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from measures.tandem.past import DAY, past_of
from undertow.errors import EstimationError, StateError
from undertow.measures.tandem import Layer, LeverageHistory
from undertow.state import Panel
from undertow.worlds import Tandem

TS = DAY * np.arange(1, 201)
RNG = np.random.default_rng(5)
WALK = np.exp(0.02 * RNG.standard_normal((200, 3)).cumsum(axis=0))
PRICES = Panel.from_arrays("prices", "usd", TS, ["ETH", "BTC", "SOL"], 100.0 * WALK)


def level(values: np.ndarray, labels: tuple[str, ...] = ("ETH", "BTC", "SOL")) -> Panel:
    return Panel.from_arrays("leverage.asset", "1", TS, labels, values)


def test_growth_is_the_change_of_log_leverage_and_returns_are_those_of_the_basket() -> None:
    history = LeverageHistory.of(level(3.0 * WALK), PRICES, baskets={"ETH": {"ETH": 3, "BTC": 1}})
    np.testing.assert_allclose(history.growth, np.diff(np.log(WALK), axis=0), atol=1e-15)
    moves = np.diff(np.log(WALK), axis=0)
    np.testing.assert_allclose(history.returns[:, 0], 0.75 * moves[:, 0] + 0.25 * moves[:, 1])
    np.testing.assert_allclose(history.returns[:, 1], moves[:, 1])
    assert history.ts.tolist() == TS[1:].tolist()


def test_prices_are_those_that_were_known_at_each_instant() -> None:
    late = Panel.from_arrays("prices", "usd", TS + 1, PRICES.labels, PRICES.values)
    history = LeverageHistory.of(level(WALK), late)
    assert np.isnan(history.returns[0]).all()
    np.testing.assert_allclose(history.returns[1:], np.diff(np.log(WALK), axis=0)[:-1])


def test_a_price_that_was_last_seen_long_ago_makes_no_return() -> None:
    values = PRICES.values.copy()
    values[50:52, 0] = np.nan  # two steps: the newest will do
    values[100:120, 0] = np.nan
    holed = Panel.from_arrays("prices", "usd", TS, PRICES.labels, values)
    got = LeverageHistory.of(level(WALK), holed).returns[:, 0]
    moves = np.diff(np.log(WALK[:, 0]))
    assert got[49:51].tolist() == [0.0, 0.0]
    assert got[51] == pytest.approx(moves[49:52].sum())
    assert got[99:102].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(got[102:120]).all()  # and the first price after it ends no step
    np.testing.assert_allclose(got[120:], moves[120:])
    patient = LeverageHistory.of(level(WALK), holed, stale=30.0).returns[:, 0]
    assert patient[119] == pytest.approx(moves[99:120].sum())
    with pytest.raises(EstimationError, match="stale was -1"):
        LeverageHistory.of(level(WALK), holed, stale=-1.0)


def test_a_history_cut_at_an_instant_is_the_one_known_then() -> None:
    whole, _ = past_of(Tandem(correlation=0.4), steps=300)
    cut = whole.until(int(whole.ts[149]))
    assert len(cut.ts) == 150
    np.testing.assert_array_equal(cut.growth, whole.growth[:150])
    np.testing.assert_array_equal(cut.returns, whole.returns[:150])
    assert cut.digest != whole.digest


def test_what_untouched_quantities_did_can_be_taken_out() -> None:
    held = Panel.from_arrays(
        "revaluation", "1", TS[1:], PRICES.labels, np.diff(np.log(WALK), axis=0)
    )
    history = LeverageHistory.of(level(3.0 * WALK), PRICES, revaluation=held)
    assert np.abs(history.layer(Layer.HELD)).max() < 1e-14
    assert history.layers == tuple(Layer)
    without = LeverageHistory.of(level(3.0 * WALK), PRICES)
    assert Layer.HELD not in without.layers
    with pytest.raises(StateError, match="positions at every instant"):
        without.layer(Layer.HELD)


def test_series_that_cannot_be_used_are_named_with_their_reason() -> None:
    values = np.column_stack([WALK, WALK[:, 0] ** 2, np.full(200, 2.0), WALK[:, 1], WALK[:, 2]])
    values[77, 3] = np.nan  # a copy all the same
    values[:150, 5] = np.nan
    values[20:120, 6] = np.nan
    names = ("ETH", "BTC", "SOL", "copy", "still", "late", "gappy")
    history = LeverageHistory.of(
        level(values, names), PRICES, baskets={key: {"ETH": 1.0} for key in names}
    )
    assert history.usable().labels == ("ETH", "BTC", "SOL")
    assert history.left_out == {
        "copy": "a copy of column 0",
        "still": "constant",
        "late": "too short: 49 values, 60 are needed",
        "gappy": "gappy: 51% missing after its start",
    }
    with pytest.raises(StateError, match="0 of 2 series can be used"):
        history.select(["still", "late"]).usable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: LeverageHistory.of(level(-WALK), PRICES), "has no logarithm"),
        (lambda: LeverageHistory.of(level(WALK, ("a", "b", "c")), PRICES), "a holds a, which has"),
        (
            lambda: LeverageHistory.of(level(WALK), PRICES, baskets={"ETH": {"DOGE": 1.0}}),
            "ETH holds DOGE, which has no price",
        ),
        (lambda: LeverageHistory.of(level(WALK), PRICES, baskets={"ETH": {}}), "is empty"),
        (
            lambda: LeverageHistory.of(
                level(WALK), Panel.from_arrays("p", "usd", TS, ["ETH"], -WALK[:, :1]),
                baskets={key: {"ETH": 1.0} for key in ("ETH", "BTC", "SOL")},
            ),
            "a price is not positive",
        ),
        (
            lambda: LeverageHistory.of(
                level(WALK),
                PRICES,
                revaluation=Panel.from_arrays("r", "1", TS, PRICES.labels, WALK),
            ),
            "does not end its steps",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_history_is_refused_with_a_reason(change, words: str) -> None:
    with pytest.raises(StateError, match=words):
        change()
