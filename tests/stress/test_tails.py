"""Tails of losses: values that are known, bands that hold what they promise, shares that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undertow.errors import StateError
from undertow.stress.tails import (
    expected_shortfall,
    probability_beyond,
    share_of_tail,
    tails_by,
    value_at_risk,
)

TEN = np.arange(1.0, 11.0)


def test_by_hand_on_ten_losses() -> None:
    var = value_at_risk(TEN[::-1], q=0.8)
    assert (var.value, var.exceedances, var.n, var.effective) == (8.0, 2, 10, pytest.approx(10.0))
    assert expected_shortfall(TEN, q=0.8).value == pytest.approx(9.5)
    # 1.5 of ten scenarios: 10 whole and half of 9
    assert expected_shortfall(TEN, q=0.85).value == pytest.approx((10.0 + 0.5 * 9.0) / 1.5)


def test_the_ranks_of_a_median_are_those_in_the_tables() -> None:
    # n = 20, 95 %: the 6th and the 15th order statistic (David and Nagaraja 2003, 7.1)
    var = value_at_risk(np.arange(1.0, 21.0), q=0.5, level=0.95)
    assert (var.low, var.high) == (6.0, 15.0)
    chance = stats.binom.cdf(14, 20, 0.5) - stats.binom.cdf(5, 20, 0.5)
    assert 0.95 <= chance < 0.96


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [1, 7, 60, 1_000])
def test_ranks_are_the_narrowest_that_hold_their_level(n: int, q: float) -> None:
    var = value_at_risk(np.arange(1.0, n + 1.0), q=q, level=0.9)
    low = 0 if math.isinf(var.low) else int(var.low)
    high = n + 1 if math.isinf(var.high) else int(var.high)
    assert stats.binom.cdf(low - 1, n, q) <= 0.05
    assert high == n + 1 or stats.binom.cdf(high - 1, n, q) >= 0.95
    if var.low < var.value:
        assert stats.binom.cdf(low, n, q) > 0.05
    if var.value < var.high:
        assert stats.binom.cdf(high - 2, n, q) < 0.95


def test_a_sample_too_small_for_its_quantile_has_an_open_band() -> None:
    var = value_at_risk(TEN, q=0.99)
    assert var.value == 10.0
    assert math.isinf(var.high)
    assert any("too few" in words for words in var.words)
    assert math.isinf(expected_shortfall(TEN, q=0.99).high)


def test_mostly_nothing_and_rare_jumps() -> None:
    losses = np.zeros(10_000)
    losses[:60] = 100.0
    var, shortfall = (f(losses, q=0.99) for f in (value_at_risk, expected_shortfall))
    assert (var.value, var.low, var.high) == (0.0, 0.0, 0.0)
    assert var.tied == pytest.approx(0.994)
    assert any("99.4%" in words for words in var.words)
    assert shortfall.value == pytest.approx(60.0)  # the worst 100: 60 jumps and 40 of nothing
    assert shortfall.low < 60.0 < shortfall.high
    chance = probability_beyond(losses)
    assert (chance.value, chance.count) == (0.006, 60)
    exact = stats.binomtest(60, 10_000).proportion_ci(0.95, "exact")
    assert (chance.low, chance.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_a_band_of_what_is_never_negative_does_not_run_below_nothing() -> None:
    # One jump among a hundred: the plain band would reach far below 0, and Hall's did.
    losses = np.zeros(100)
    losses[7] = 1_000.0
    shortfall = expected_shortfall(losses, q=0.9)
    assert (shortfall.low, shortfall.value) == (0.0, pytest.approx(100.0))
    moved = expected_shortfall(losses - 50.0, q=0.9)  # what may be negative, to the least seen
    assert (moved.low, moved.value) == (-50.0, pytest.approx(50.0))
    assert moved.high == pytest.approx(shortfall.high - 50.0)
    weighed = expected_shortfall(losses, q=0.9, weights=np.ones(100))
    assert weighed.low < 0.0 < weighed.high == pytest.approx(shortfall.high)


def test_no_loss_at_all_bounds_the_chance_and_not_the_shortfall() -> None:
    shortfall = expected_shortfall(np.zeros(1_000))
    assert (shortfall.value, shortfall.low, shortfall.high) == (0.0, 0.0, math.inf)
    chance = probability_beyond(np.zeros(1_000))
    assert (chance.low, chance.high) == (0.0, pytest.approx(1.0 - 0.025 ** (1 / 1_000)))
    assert probability_beyond(np.ones(10)).high == 1.0


def _covered(draw: str, seed: int, runs: int = 400, n: int = 2_000) -> tuple[float, float]:
    """How often bands at 95 % hold the true 99 % value at risk and shortfall."""
    rng = np.random.default_rng(seed)
    if draw == "pareto":  # index 4
        var, sample = 0.01 ** (-1 / 4), lambda: rng.random(n) ** (-1 / 4)
        shortfall = var * 4 / 3
    elif draw == "exponential":
        var, sample = -math.log(0.01), lambda: rng.exponential(size=n)
        shortfall = var + 1.0
    else:  # nothing in 97 of 100, else exponential
        var, sample = -math.log(1 / 3), lambda: rng.exponential(size=n) * (rng.random(n) < 0.03)
        shortfall = var + 1.0
    held = np.zeros(2)
    for _ in range(runs):
        losses = sample()
        for k, (f, true) in enumerate(((value_at_risk, var), (expected_shortfall, shortfall))):
            tail = f(losses, q=0.99)
            held[k] += tail.low <= true <= tail.high
    return float(held[0] / runs), float(held[1] / runs)


@pytest.mark.parametrize(
    ("draw", "least"), [("exponential", 0.91), ("pareto", 0.88), ("rare", 0.91)]
)
def test_bands_hold_as_often_as_they_say(draw: str, least: float) -> None:
    # twenty exceedances a sample; a share of 400 has an error of 0.011
    var, shortfall = _covered(draw, 5)
    assert 0.93 <= var <= 0.99
    assert least <= shortfall <= 0.98


def test_weights_take_an_importance_sample_back_to_what_it_was_drawn_for() -> None:
    # Exponential losses, drawn three times as large as they are.
    rng = np.random.default_rng(3)
    held, runs, widths = np.zeros(2), 300, np.zeros(2)
    for _ in range(runs):
        losses = 3.0 * rng.exponential(size=1_000)
        weights = 3.0 * np.exp(-losses * (1.0 - 1.0 / 3.0))
        for k, (f, true) in enumerate(
            ((value_at_risk, math.log(1_000.0)), (expected_shortfall, math.log(1_000.0) + 1.0))
        ):
            tail = f(losses, q=0.999, weights=weights)
            held[k] += tail.low <= true <= tail.high
            widths[k] += (tail.high - tail.low) / runs
    assert (held / runs > 0.9).all()
    assert (held / runs < 0.99).all()
    assert (widths < 1.0).all()  # a plain sample of a thousand has one scenario out there


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.sampled_from([0.5, 0.8, 0.95]))
def test_a_weight_is_a_number_of_equal_scenarios(counts: list[int], q: float) -> None:
    losses, weights = np.arange(len(counts), dtype=float), np.array(counts, dtype=float)
    if not weights.sum():
        return
    spread = np.repeat(losses, counts)
    for f in (value_at_risk, expected_shortfall):
        assert f(losses, q=q, weights=weights).value == pytest.approx(f(spread, q=q).value)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.05, 0.95))
def test_order_changes_nothing_and_the_shortfall_is_no_less(losses: list[float], q: float) -> None:
    var, shortfall = value_at_risk(losses, q=q), expected_shortfall(losses, q=q)
    assert value_at_risk(losses[::-1], q=q) == var
    assert shortfall.value >= var.value
    assert shortfall.value == pytest.approx(expected_shortfall(losses[::-1], q=q).value)
    for tail in (var, shortfall):
        assert tail.low <= tail.value <= tail.high


@given(st.integers(1, 60), st.integers(1, 5), st.floats(0.1, 0.95), st.booleans())
def test_shares_add_up_to_the_shortfall(n: int, parts: int, q: float, weighed: bool) -> None:
    rng = np.random.default_rng(n * 7 + parts)
    lost = np.round(rng.normal(size=(n, parts)), 1)  # many ties
    weights = rng.random(n) + 0.1 if weighed else None
    shares = share_of_tail(lost, [f"venue {k}" for k in range(parts)], q=q, weights=weights)
    whole = expected_shortfall(lost.sum(axis=1), q=q, weights=weights).value
    assert shares.shortfall == math.fsum(shares.mean)
    assert shares.shortfall == pytest.approx(whole, abs=1e-12)


def test_the_venue_that_loses_in_the_tail_carries_it() -> None:
    lost = np.zeros((1_000, 2))
    lost[:, 0] = 1.0  # always, so never the cause of a tail
    lost[:5, 1] = 1_000.0
    table = share_of_tail(lost, ["steady", "jumps"], q=0.99).to_polars()
    assert table["part"].to_list() == ["jumps", "steady"]
    assert table["mean"].to_list() == pytest.approx([500.0, 1.0])
    assert table["share"].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"losses": []}, "at least one"),
        ({"losses": [1.0, math.nan]}, "not finite"),
        ({"q": 1.0}, "q was 1.0"),
        ({"level": 0.0}, "level was 0.0"),
        ({"weights": [1.0]}, "there are 2 losses"),
        ({"weights": [1.0, -1.0]}, "negative"),
        ({"weights": [0.0, 0.0]}, "nothing above 0"),
    ],
)
def test_what_is_no_sample_is_refused(given: dict[str, object], words: str) -> None:
    asked = {"losses": [1.0, 2.0], **given}
    for f in (value_at_risk, expected_shortfall):
        with pytest.raises(StateError, match=words):
            f(**asked)  # type: ignore[arg-type]


def test_parts_need_a_name_each() -> None:
    with pytest.raises(StateError, match="each of 1 names"):
        share_of_tail([[1.0, 2.0]], ["one"])


def test_each_part_has_a_tail_of_its_own_and_a_share_of_the_tail_of_all() -> None:
    lost = np.stack([TEN, TEN[::-1], np.zeros(10)], axis=1)
    lost[9, 0] = 30.0  # so that the worst days of the whole are those of the first
    rows = {row["part"]: row for row in tails_by(lost, ["a", "b", "c"], q=0.8).to_dicts()}
    assert list(rows) == ["a", "b", "c"]
    for k, name in enumerate(rows):
        var, es = value_at_risk(lost[:, k], q=0.8), expected_shortfall(lost[:, k], q=0.8)
        assert [rows[name][key] for key in ("var", "var_low", "var_high")] == [
            var.value, var.low, var.high
        ]  # fmt: skip
        assert [rows[name][key] for key in ("es", "es_low", "es_high")] == [
            es.value, es.low, es.high
        ]  # fmt: skip
    assert rows["b"]["es"] == 9.5
    shares = [rows[name]["share"] for name in rows]
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] > 3.0 * shares[1] > shares[2] == 0.0
