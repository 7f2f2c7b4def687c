"""Rate curves and the three ways in which pools compound."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError
from undertow.rules import interest
from undertow.rules.profile import Compounding, LendingRules, load_profile

CURVE = interest.RateCurve(base=0.01, slope1=0.04, slope2=0.75, optimal=0.8)


def test_a_curve_gives_the_rates_of_the_contract_of_aave() -> None:
    """aave-v3-origin 3.7, DefaultReserveInterestRateStrategyV2: half lent out, and a deficit."""
    half = interest.pool_rates(CURVE, debt=100.0, liquidity=100.0, reserve_factor=0.1)
    assert half.borrow_rate == pytest.approx(0.035)
    assert half.supply_rate == pytest.approx(0.01575)
    steep = interest.RateCurve(base=0.0, slope1=0.055, slope2=0.6, optimal=0.9)
    got = interest.pool_rates(
        steep,
        debt=2_530_585.479874155831623680,
        liquidity=133_188.709467060776730624,
        reserve_factor=0.1,
        deficit=5_327.548378682433216708,
    )
    assert got.borrow_rate == pytest.approx(0.355000000000000120927122310, rel=1e-12)
    assert got.supply_rate == pytest.approx(0.302919161676646816199659588, rel=1e-12)


@given(st.floats(0.0, 1.0))
def test_a_curve_has_no_jump_at_its_kink_and_never_falls(utilisation: float) -> None:
    beside = min(utilisation + 1e-9, 1.0)
    assert 0.0 <= CURVE.borrow_rate(beside) - CURVE.borrow_rate(utilisation) <= 1e-8


def test_an_empty_pool_charges_its_base_and_pays_nothing() -> None:
    got = interest.pool_rates(CURVE, debt=0.0, liquidity=5.0, reserve_factor=0.2)
    assert (got.borrow_rate, got.supply_rate, got.utilisation) == (0.01, 0.0, 0.0)


def test_growth_is_that_of_the_contract_and_of_the_library_of_aave() -> None:
    """100 % over two years: aave-v3-origin 3.7 MathUtils, @aave/math-utils 1.38.0, and exp."""
    two_years = 2 * interest.SECONDS_PER_YEAR
    assert interest.linear_factor(1.0, two_years) == 3.0
    assert interest.taylor_factor(1.0, two_years) == pytest.approx(6.333333333333333, rel=1e-12)
    assert interest.binomial_factor(1.0, two_years) == pytest.approx(
        6.333352402386929443, rel=1e-12
    )
    exact = interest.compounded_rate(1.0, two_years)
    assert exact == pytest.approx(6.389055864625227041, rel=1e-9)
    assert interest.taylor_factor(1.0, two_years) < 0.86 * math.exp(2.0)


@pytest.mark.parametrize(
    ("venue", "as_of", "want"),
    [
        ("aave-v2", None, 6.333352402386929443),
        ("aave-v3", dt.date(2025, 3, 1), 6.333352402386929443),
        ("aave-v3", dt.date(2025, 9, 1), 6.333333333333333),
        ("morpho-blue", None, 6.333333333333333),
        ("generic-lending", None, 7.389055864625227041),
        ("liquity-v1", None, 1.0),
    ],
)
def test_a_lender_compounds_as_its_profile_says(
    venue: str, as_of: dt.date | None, want: float
) -> None:
    rules = load_profile(venue, as_of).lending
    assert rules is not None
    assert rules.growth(1.0, 2 * interest.SECONDS_PER_YEAR) == pytest.approx(want, rel=1e-9)
    simple = LendingRules(compounding=Compounding.LINEAR)
    assert simple.growth(1.0, 2 * interest.SECONDS_PER_YEAR) == 3.0


@given(st.floats(0.0, 2.0), st.integers(0, 3 * interest.SECONDS_PER_YEAR))
def test_the_approximations_stand_in_order(rate: float, seconds: int) -> None:
    exact = 1.0 + interest.compounded_rate(rate, seconds)
    linear = interest.linear_factor(rate, seconds)
    slack = 1e-9 * exact + 1e-27 * seconds**3 / 6.0  # the older series cuts its cube to a ray
    assert linear <= interest.binomial_factor(rate, seconds) + slack
    assert interest.binomial_factor(rate, seconds) <= exact + slack
    assert linear <= interest.taylor_factor(rate, seconds) + slack
    assert exact <= math.exp(rate * seconds / interest.SECONDS_PER_YEAR) + slack


def test_an_index_grows_and_never_shrinks() -> None:
    assert interest.accrued_index(1.1, 1.05) == pytest.approx(1.155)
    with pytest.raises(RuleError):
        interest.accrued_index(1.1, 0.9)
    assert interest.binomial_factor(0.1, 0) == 1.0


@pytest.mark.parametrize(
    "words", [{"optimal": 0.0}, {"optimal": 1.2}, {"slope1": -0.1}, {"base": -0.01}]
)
def test_a_curve_that_cannot_be_is_refused(words: dict[str, float]) -> None:
    with pytest.raises(RuleError):
        interest.RateCurve(**{"base": 0.0, "slope1": 0.1, "slope2": 1.0, "optimal": 0.8, **words})


def test_a_pool_that_cannot_be_is_refused() -> None:
    with pytest.raises(RuleError):
        interest.pool_rates(CURVE, debt=-1.0, liquidity=1.0)
    with pytest.raises(RuleError):
        interest.pool_rates(CURVE, debt=1.0, liquidity=1.0, reserve_factor=2.0)
    full = interest.RateCurve(base=0.0, slope1=0.1, slope2=0.0, optimal=1.0)
    assert full.borrow_rate(1.0) == 0.1
