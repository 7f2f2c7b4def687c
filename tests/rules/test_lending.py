"""How lenders judge, on worked cases and on properties that any lender has."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError
from undertow.rules import lending, markets
from undertow.rules.profile import LendingRules, load_profile
from undertow.rules.rounding import ceil_to, floor_to


def _rules(name: str, as_of: dt.date | None = None) -> LendingRules:
    rules = load_profile(name, as_of).lending
    assert rules is not None
    return rules


MORPHO, LIQUITY = _rules("morpho-blue"), _rules("liquity-v1")
AMOUNT = st.floats(0.01, 1e9)
SHARE = st.floats(0.05, 0.95)


def test_health_is_that_of_the_published_test_of_aave_utilities() -> None:
    """aave/aave-utilities, pool-math tests: 0.1 of collateral at 50 % against 0.03 of debt."""
    got = lending.account(1e17, 3e16, threshold=0.5)
    assert got.health == pytest.approx(1.6666666666666667, rel=1e-15)
    assert not got.liquidatable


def test_an_account_of_aave_v3_rounds_as_its_contract_does() -> None:
    """aave-v3-origin 3.7, GenericLogic: 0.10478982 scaled WBTC against 3,856.29 scaled USDC."""
    held = lending.balance(10_478_982.0, 1.0352655567343254, quantum=1.0)
    owed = lending.balance(3_856_290_806.0, 1.1967348106112172, quantum=1.0, debt=True)
    got = lending.account(
        held,
        owed,
        collateral_price=7_755_998_072_673.0,
        debt_price=99_779_999.0,
        threshold=0.78,
        ltv=0.73,
        collateral_unit=1e8,
        debt_unit=1e6,
        rounding=_rules("aave-v3").rounding(1.0),
    )
    assert got.collateral == 841_411_700_153
    assert got.debt == 460_480_449_547
    assert got.available_borrows == 153_750_091_564
    assert got.health == pytest.approx(1.425252965169269603, rel=1e-12)
    assert (got.ltv, got.threshold) == (pytest.approx(0.73), pytest.approx(0.78))


def test_averages_weigh_each_asset_by_its_value_and_once_gave_health_when_rounded() -> None:
    """Aave v2, and v3 up to v3.4, took health from the average cut to a basis point."""
    columns = {"collateral_price": [2.0, 1.0], "threshold": [0.83, 0.7777], "ltv": [0.8, 0.6]}
    rounding = _rules("aave-v3").rounding()
    exact = lending.account([1.0, 1.0], 1.0, rounding=rounding, **columns)
    assert exact.threshold == pytest.approx(0.8125)
    assert exact.health == pytest.approx(2.0 * 0.83 + 0.7777)
    exact = lending.account([1.0, 1.0], 1.0, **columns)
    assert exact.threshold == pytest.approx((2.0 * 0.83 + 0.7777) / 3.0)
    assert exact.health == pytest.approx(2.0 * 0.83 + 0.7777)
    for rules in (_rules("aave-v2"), _rules("aave-v3", dt.date(2025, 3, 1))):
        older = lending.account([1.0, 1.0], 1.0, rounding=rules.rounding(), **columns)
        assert older.threshold == pytest.approx(0.8125)
        assert older.health == pytest.approx(3.0 * 0.8125)
    assert _rules("generic-lending").rounding(1.0) == lending.Rounding()


def test_without_debt_there_is_no_health_and_without_collateral_health_is_nought() -> None:
    free = lending.account(5.0, threshold=0.8)
    assert free.health is None
    assert not free.liquidatable
    assert free.leverage == 1.0
    assert free.available_borrows == pytest.approx(4.0)
    bare = lending.account((), 5.0)
    assert bare.health == 0.0
    assert bare.liquidatable
    assert bare.leverage is None
    assert bare.debt_to_collateral is None
    empty = lending.account()
    assert (empty.health, empty.collateral, empty.available_borrows) == (None, 0.0, 0.0)


def test_a_category_lifts_the_terms_of_its_members_only() -> None:
    own = lending.with_category([0.8, 0.7], [True, False], 0.95)
    assert list(own) == [0.95, 0.7]
    assert list(lending.with_category([0.8, 0.7], [True, False], None)) == [0.8, 0.7]


@given(AMOUNT, AMOUNT, SHARE, st.floats(0.1, 1e5))
def test_at_its_liquidation_price_an_account_has_health_one(
    qty: float, debt: float, threshold: float, price: float
) -> None:
    now = lending.account(qty, debt, collateral_price=price, threshold=threshold)
    closing = lending.liquidation_price(
        qty, price, weight=threshold, cover=now.cover, asked=now.asked
    )
    assert closing is not None
    then = lending.account(qty, debt, collateral_price=closing, threshold=threshold)
    assert then.health == pytest.approx(1.0, rel=1e-9)
    dearer = lending.liquidation_price(-debt, 1.0, weight=1.0, cover=now.cover, asked=now.asked)
    assert dearer == pytest.approx(now.cover / debt, rel=1e-9)


def test_an_asset_that_the_rest_can_do_without_has_no_liquidation_price() -> None:
    assert lending.liquidation_price(1.0, 10.0, weight=0.8, cover=108.0, asked=50.0) is None
    assert lending.liquidation_price(0.0, 10.0, weight=0.8, cover=108.0, asked=50.0) is None
    assert lending.liquidation_price(-1.0, 10.0, weight=1.0, cover=5.0, asked=60.0) is None


@pytest.mark.parametrize(
    ("ltv", "threshold", "bonus"), [(0.9, 0.8, 0.05), (0.8, 0.96, 0.05), (0.5, 0.8, -0.1)]
)
def test_terms_that_no_liquidation_could_repair_are_refused(
    ltv: float, threshold: float, bonus: float
) -> None:
    lending.check_threshold(0.8, 0.83, 0.05)
    with pytest.raises(RuleError):
        lending.check_threshold(ltv, threshold, bonus)


@pytest.mark.parametrize(
    "columns",
    [{"collateral": -1.0}, {"debt": -1.0}, {"collateral": math.nan},
     {"collateral": 1.0, "collateral_price": math.inf}],
)  # fmt: skip
def test_balances_that_cannot_be_are_refused(columns: dict[str, float]) -> None:
    with pytest.raises(RuleError):
        lending.account(**columns)


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_rounding_forgives_the_last_bits_and_nothing_more(units: int, part: int) -> None:
    for value in (units * 1e-6, np.nextafter(units * 1e-6, np.inf), units / 1e6):
        assert round(float(floor_to(value, 1e-6)) * 1e6) == units
        assert round(float(ceil_to(value, 1e-6)) * 1e6) == units
    between = units + part / (10**6 + 1)
    if between != math.floor(between) and units < 10**6:
        assert float(floor_to(between, 1.0)) == units
        assert float(ceil_to(between, 1.0)) == units + 1


def test_a_market_of_morpho_is_judged_as_its_library_judges_it() -> None:
    """morpho-org/sdks, blue-sdk 6.4.0 MarketUtils: WBTC against USDC at 62.5 %."""
    got = markets.market_account(
        3_415_616_700.0,
        1_158_108_081_704_526_300.0,
        price=686.14151000976,
        lltv=0.625,
        total_borrow_assets=963_490_104_000.0,
        total_borrow_shares=952_233_649_114_968_000.0,
        rules=MORPHO,
        quantum=1.0,
    )
    assert got.borrow_assets == pytest.approx(1_171_798_200_076, rel=1e-9)
    assert got.max_borrow == pytest.approx(1_464_747_750_095, rel=1e-9)
    assert got.health == pytest.approx(1.25, rel=1e-9)
    assert got.incentive_factor == pytest.approx(1.126760563380281690, rel=1e-15)
    assert got.liquidation_price == pytest.approx(548.913208136243907, rel=1e-9)
    assert got.withdrawable_collateral == pytest.approx(683_123_340, abs=1.0)
    assert got.seizable_collateral == 0.0
    assert got.is_healthy


@given(st.floats(0.1, 0.98), st.floats(0.2, 2.0))
def test_a_market_is_healthy_exactly_above_its_liquidation_price(lltv: float, used: float) -> None:
    got = markets.market_account(
        10.0, 1e6 * 1_000.0 * lltv * used, price=100.0, lltv=lltv,
        total_borrow_assets=1e9, total_borrow_shares=1e15, rules=MORPHO,
    )  # fmt: skip
    assert got.liquidation_price is not None
    assert got.price_variation is not None
    if abs(used - 1.0) > 1e-6:
        assert got.is_healthy is (used < 1.0)
        assert got.is_healthy is (got.liquidation_price < 100.0)
        assert (got.seizable_collateral > 0.0) is not got.is_healthy
    assert got.liquidation_price == pytest.approx(100.0 * (1.0 + got.price_variation))


def test_a_market_account_without_debt_may_take_everything_out() -> None:
    market = {"price": 100.0, "lltv": 0.86}
    pool = {"total_borrow_assets": 1e9, "total_borrow_shares": 1e15}
    got = markets.market_account(10.0, 0.0, **market, **pool, rules=MORPHO)
    assert (got.liquidation_price, got.price_variation, got.health) == (None, None, None)
    assert (got.ltv, got.withdrawable_collateral, got.is_healthy) == (0.0, 10.0, True)
    bare = markets.market_account(0.0, 1e12, **market, **pool, rules=MORPHO)
    assert (bare.ltv, bare.is_healthy, bare.liquidation_price) == (None, False, None)
    with pytest.raises(RuleError):
        markets.incentive_factor(1.2, rules=MORPHO)


def test_the_first_share_of_a_market_costs_a_millionth_of_a_unit() -> None:
    """morpho-org/morpho-blue, SharesMathLib: (assets + 1) / (shares + 1e6), of an empty one."""
    shares = {"total_assets": 0.0, "total_shares": 0.0, "rules": MORPHO}
    assert markets.assets_from_shares(5e6, **shares) == 5.0
    assert markets.assets_from_shares(5_000_001.0, quantum=1.0, **shares) == 6.0
    assert markets.assets_from_shares(5_999_999.0, quantum=1.0, up=False, **shares) == 5.0


def test_the_incentive_of_a_market_has_a_ceiling() -> None:
    assert markets.incentive_factor(0.385, rules=MORPHO) == 1.15
    assert markets.incentive_factor(0.86, rules=MORPHO) == pytest.approx(1.0438413361169103)
    assert markets.incentive_factor(0.86, rules=LendingRules()) == 1.0


def test_a_trove_is_judged_by_ratio_and_its_debt_holds_the_reserve() -> None:
    """liquity/dev, lib-base 3.0.0: 87.489 ETH at 986.40 against 75,026.13 LUSD."""
    got = markets.trove(87.489355, 75_026.13, 986.4, rules=LIQUITY)
    assert got.collateral_ratio == pytest.approx(1.150259246638471156, rel=1e-12)
    assert got.nominal_ratio == pytest.approx(0.116611845766268365, rel=1e-12)
    assert (got.below_minimum, got.below_critical) == (False, True)
    assert got.net_debt == pytest.approx(74_826.13)
    assert got.liquidation_price is not None
    closing = markets.trove(87.489355, 75_026.13, got.liquidation_price, rules=LIQUITY)
    assert closing.collateral_ratio == pytest.approx(1.1, rel=1e-12)
    assert markets.trove(1.0, 0.0, 10.0, rules=LIQUITY).liquidation_price is None
    with pytest.raises(RuleError, match="minimum_ratio"):
        markets.trove(1.0, 5.0, 10.0, rules=MORPHO)


@given(st.integers(2_000, 10**8), st.integers(1, 10**6))
def test_a_trove_at_its_limit_is_not_below_it(debt: int, cents: int) -> None:
    """liquity/dev, TroveManager and Trove: below is ICR < MCR, and at the ratio nobody is."""
    price = cents / 100.0

    def judged(percent: float) -> markets.Trove:
        return markets.trove(debt * percent / cents, float(debt), price, rules=LIQUITY)

    assert not judged(110.0).below_minimum
    assert judged(110.0 * (1.0 - 1e-12)).below_minimum
    assert (judged(150.0).below_minimum, judged(150.0).below_critical) == (False, False)
    assert judged(150.0 * (1.0 - 1e-12)).below_critical
    uncritical = replace(LIQUITY, critical_ratio=None)
    assert not markets.trove(1.0, 9.0, 5.0, rules=uncritical).below_critical
