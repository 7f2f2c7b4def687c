"""A rate curve that shifts with utilisation, held against its closed form and the contract's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError
from undertow.rules.adaptive import AdaptiveCurve
from undertow.rules.interest import SECONDS_PER_YEAR

CURVE = AdaptiveCurve()
SHARES = st.floats(0.0, 1.0)
RATES = st.floats(0.001, 2.0)


def test_the_curve_passes_through_its_three_points() -> None:
    assert CURVE.borrow_rate(0.04, 0.9) == pytest.approx(0.04)
    assert CURVE.borrow_rate(0.04, 1.0) == pytest.approx(0.16)
    assert CURVE.borrow_rate(0.04, 0.0) == pytest.approx(0.01)


@given(RATES, SHARES)
def test_the_rate_at_target_is_read_back(at_target: float, utilisation: float) -> None:
    paid = CURVE.borrow_rate(at_target, utilisation)
    assert CURVE.rate_at_target(paid, utilisation) == pytest.approx(at_target)


def test_full_utilisation_doubles_the_curve_in_five_days() -> None:
    """ln 2 / 50 years."""
    days = math.log(2.0) / 50.0 * 365.0
    assert CURVE.shifted(0.04, 1.0, days * 86_400) == pytest.approx(0.08)
    assert 5.0 < days < 5.1


@given(RATES, SHARES, st.floats(0.0, 1e8))
def test_the_curve_stays_between_its_bounds(
    at_target: float, utilisation: float, seconds: float
) -> None:
    _, end = CURVE.accrue(at_target, utilisation, seconds)
    assert CURVE.least_at_target <= end <= CURVE.most_at_target


@given(st.floats(0.001, 0.5), SHARES)
def test_many_short_spans_grow_a_debt_as_the_integral_does(
    at_target: float, utilisation: float
) -> None:
    """Over a day, with c the rate over that at target: exp(c r (exp(v t) - 1) / v)."""
    span = 86_400 / SECONDS_PER_YEAR
    speed = CURVE.speed * CURVE.error(utilisation)
    shift = math.expm1(speed * span) / speed if abs(speed) > 1e-9 else span
    clipped = at_target * math.exp(speed * span) < CURVE.least_at_target
    growth, rate = 1.0, at_target
    for _ in range(96):
        step, rate = CURVE.accrue(rate, utilisation, 900.0)
        growth *= step
    integral = CURVE.borrow_rate(1.0, utilisation) * at_target * shift
    if not clipped:
        assert growth == pytest.approx(math.exp(integral), rel=1e-9)


def test_one_long_span_falls_short_of_many() -> None:
    once, _ = CURVE.accrue(0.1, 1.0, 30 * 86_400)
    often, rate = 1.0, 0.1
    for _ in range(30 * 24):
        step, rate = CURVE.accrue(rate, 1.0, 3_600)
        often *= step
    assert 1.0 < once < often


@pytest.mark.parametrize(
    "wrong",
    [{"target": 1.0}, {"steepness": 0.5}, {"speed": -1.0}, {"least_at_target": 0.0}],
)
def test_a_curve_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RuleError):
        AdaptiveCurve(**wrong)


def test_utilisation_above_one_and_time_backwards_are_refused() -> None:
    with pytest.raises(RuleError, match="utilisation"):
        CURVE.error(1.1)
    with pytest.raises(RuleError, match="time runs forward"):
        CURVE.accrue(0.1, 0.5, -1.0)
