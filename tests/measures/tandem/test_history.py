"""A history of leverage: what grows, what prices did of it, and what cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from measures.tandem.past import DAY, past_of
from undertow.errors import EstimationError, StateError
from undertow.measures.tandem import Layer, LeverageHistory, matrix
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
    assert got[98] == pytest.approx(moves[98])
    assert got[51] == pytest.approx(moves[49:52].sum())
    assert np.isnan(got[99:120]).all()  # nor before it was old: what ends those steps is missing
    np.testing.assert_allclose(got[120:], moves[120:])
    patient = LeverageHistory.of(level(WALK), holed, stale=30.0).returns[:, 0]
    assert patient[119] == pytest.approx(moves[99:120].sum())
    with pytest.raises(EstimationError, match="stale was -1"):
        LeverageHistory.of(level(WALK), holed, stale=-1.0)


HOUR = DAY // 24
NAMES = ("ETH", "BTC", "SOL", "XRP")


def hourly(
    every: int, shared: float = 0.0, steps: int = 2400, slow: int = 4, offset: int = 0
) -> LeverageHistory:
    """Leverage by the hour that answers to prices, the first `slow` of which come more seldom."""
    rng = np.random.default_rng(1)
    r = 0.01 * rng.standard_normal((steps, 1)) + 0.005 * rng.standard_normal((steps, 4))
    own = rng.standard_normal((steps, 4))
    own = np.sqrt(1.0 - shared) * own + np.sqrt(shared) * rng.standard_normal((steps, 1))
    ts = HOUR * np.arange(1, steps + 1)
    seen = np.exp(r.cumsum(axis=0))
    missed = (np.arange(steps)[:, None] - offset * np.arange(slow)) % every != 0
    seen[:, :slow] = np.where(missed, np.nan, seen[:, :slow])
    grown = np.exp((0.01 * own - 0.8 * r).cumsum(axis=0))
    levels = Panel.from_arrays("leverage", "1", ts, NAMES, grown)
    prices = Panel.from_arrays("prices", "usd", ts, NAMES, seen)
    held = Panel.from_arrays("revaluation", "1", ts[1:], NAMES, -0.8 * r[1:])
    return LeverageHistory.of(levels, prices, revaluation=held)


@pytest.mark.parametrize(("every", "offset"), [(4, 0), (8, 0), (4, 1)])
def test_prices_that_come_seldom_make_no_tie_beyond_them(every: int, offset: int) -> None:
    history = hourly(every, offset=offset)
    assert len(history.ts) == pytest.approx(2400 / every, abs=2)
    assert (history.returns[1:] != 0.0).all()
    mean = matrix(history, reps=99).tables["layers"].rows_by_key("layer", named=True, unique=True)
    assert mean["raw"]["mean_correlation"] > 0.2
    beyond = mean["beyond prices"]
    assert beyond["low"] < 0.0 < beyond["high"]
    assert beyond["p_value"] > 0.05
    assert f"Prices come every {every} hours and levels every 1 hour" in history.pace


def test_a_tie_is_found_though_prices_come_seldom() -> None:
    study = matrix(hourly(4, shared=0.4), reps=99)
    reading = study.readings[0]
    assert reading.low <= 0.4 <= reading.high
    assert "moves together beyond prices" in study.says[0]
    assert "only instants with new prices count" in study.how_to_read


def test_what_untouched_quantities_did_is_summed_between_prices() -> None:
    all_steps, some = hourly(1), hourly(4)
    assert not all_steps.paced
    np.testing.assert_allclose(
        some.revaluation, all_steps.revaluation[:2396].reshape(-1, 4, 4).sum(axis=1)
    )
    np.testing.assert_allclose(
        some.growth, all_steps.growth[:2396].reshape(-1, 4, 4).sum(axis=1), atol=1e-13
    )


def test_nodes_whose_prices_come_too_seldom_to_thin_the_history_are_unpriced() -> None:
    blind = hourly(24)  # a hundred steps would be left
    assert len(blind.ts) == 2399
    assert (
        "prices come every 1 day, too seldom for steps of 1 hour" in matrix(blind, reps=99).says[0]
    )
    with pytest.raises(StateError, match="prices come every 1 day, too seldom"):
        blind.together(Layer.OWN)
    part = hourly(24, slow=2)
    assert tuple(part.unpriced) == ("ETH", "BTC")
    assert [bool(why) for why in part.purged.reasons] == [True, True, False, False]
    assert "too seldom" in part.purged.reasons[0]
    assert "Prices of what BTC and ETH hold come too seldom" in part.pace


def test_a_hole_in_the_prices_of_one_asset_holds_up_none_of_the_others() -> None:
    ts = HOUR * np.arange(1, 1201)
    prices = np.exp(0.01 * RNG.standard_normal((1200, 2)).cumsum(axis=0))
    prices[np.arange(1200) % 4 != 0] = np.nan
    prices[400:600, 0] = np.nan
    history = LeverageHistory.of(
        Panel.from_arrays("leverage", "1", ts, NAMES[:2], np.exp(RNG.standard_normal((1200, 2)))),
        Panel.from_arrays("prices", "usd", ts, NAMES[:2], prices),
    )
    assert len(history.ts) == 299  # one step is two hours longer, and the next shorter
    assert np.isnan(history.returns[:, 0]).sum() == pytest.approx(50, abs=1)
    assert not np.isnan(history.returns[:, 1]).any()


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
