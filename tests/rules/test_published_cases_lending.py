"""Lenders' own results, as their contracts and libraries gave them.

An adapter here changes units and names of fields and nothing else: what a rule decides is asked
of the rule.
"""

from __future__ import annotations

from typing import Any

import pytest

from shared import Case, check_all, near, whole
from undertow.rules import interest, lending, markets
from undertow.rules.profile import load_profile

RAY, WAD, BPS = 1e27, 1e18, 1e4
UNLIMITED = {str(2**256 - 1), "inf", None}

# Aave's category 1 of the file: terms that its members take
CATEGORY = {1: {"members": {"WETH", "wstETH"}, "ltv": 0.93, "threshold": 0.95}}


def test_accounts_are_judged_as_the_contracts_of_aave_v3_judge_them() -> None:
    check_all("aave_v3_accounts", _aave)


def _aave(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    reserves = {r["symbol"]: r for r in data["reserves"]}
    held, owed = list(given["collateral"]), list(given["debt"])
    category = CATEGORY.get(given["emode"])

    def terms(name: str, field: str) -> Any:
        own = [reserves[s][field] / BPS for s in held]
        member = [category is not None and s in category["members"] for s in held]
        return lending.with_category(own, member, category[name] if category else None)

    def balances(side: str, index: str, symbols: list[str]) -> Any:
        return lending.balance(
            [float(given[side][s]) for s in symbols],
            [int(given[index][s]) / RAY for s in symbols],
            quantum=1.0,
            debt=side == "debt",
        )

    rules = load_profile("aave-v3").lending
    assert rules is not None
    got = lending.account(
        balances("collateral", "liquidity_index", held),
        balances("debt", "variable_borrow_index", owed),
        collateral_price=[given["price_base"][s] for s in held],
        debt_price=[given["price_base"][s] for s in owed],
        threshold=terms("threshold", "liquidation_threshold_bps"),
        ltv=terms("ltv", "ltv_bps"),
        collateral_unit=[10.0 ** reserves[s]["decimals"] for s in held],
        debt_unit=[10.0 ** reserves[s]["decimals"] for s in owed],
        rounding=lending.Rounding(
            value=1.0, share=rules.share_quantum, average_first=rules.average_first
        ),
    )
    whole(got.collateral, expected["total_collateral_base"])
    whole(got.debt, expected["total_debt_base"])
    near(got.ltv * BPS, expected["avg_ltv_bps"], unit=1e-6)
    near(got.threshold * BPS, expected["avg_liquidation_threshold_bps"], unit=1e-6)
    whole(got.available_borrows, expected["available_borrows_base"])
    if expected["health_factor_wad"] in UNLIMITED:
        assert got.health is None
    else:
        assert got.health is not None
        whole(got.health * WAD, expected["health_factor_wad"])
    for attempt in expected["liquidations"]:
        refused = attempt.get("revert") == "HealthFactorNotBelowThreshold"
        assert got.liquidatable is not refused
    return set(expected)


def test_rates_and_interest_are_those_of_the_contracts_and_of_the_library() -> None:
    check_all("lending_interest_rates", _interest)


def _interest(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    if "curve" in given:
        curve = interest.RateCurve(
            base=given["base_bps"] / BPS,
            slope1=given["slope1_bps"] / BPS,
            slope2=given["slope2_bps"] / BPS,
            optimal=given["optimal_bps"] / BPS,
        )
        got = interest.pool_rates(
            curve,
            debt=float(given["total_debt"]),
            liquidity=float(given["available_liquidity"]),
            reserve_factor=given["reserve_factor_bps"] / BPS,
            deficit=float(given["deficit"]),
        )
        whole(got.borrow_rate * RAY, expected["variable_borrow_rate_ray"])
        whole(got.supply_rate * RAY, expected["liquidity_rate_ray"])
        return {"variable_borrow_rate_ray", "liquidity_rate_ray"}
    if "liquidation_threshold_bps" in given:
        account = lending.account(
            float(given["collateral"]),
            float(given["debt"]),
            threshold=given["liquidation_threshold_bps"] / BPS,
        )
        if expected["health_factor"] in UNLIMITED:
            assert account.health is None
        else:
            assert account.health is not None
            near(account.health, expected["health_factor"], rel=case["tol"]["rel"])
        return {"health_factor"}
    if "scaled" in given or "index" in given:
        raise AssertionError(f"a kind of case that no adapter knows: {sorted(given)}")
    if "rate_ray" in given or "rate" in given:
        rate = int(given.get("rate_ray", given.get("rate"))) / RAY
        seconds = given["seconds"] if "seconds" in given else given["now"] - given["last_update"]
        factors = {
            "compounded_taylor3_onchain": interest.taylor_factor(rate, seconds),
            "compounded_binomial_sdk": interest.binomial_factor(rate, seconds),
            "compounded": interest.binomial_factor(rate, seconds),
            "compounded_rate_exact_sdk": interest.compounded_rate(rate, seconds),
            "compounded_rate": interest.compounded_rate(rate, seconds),
            "linear": interest.linear_factor(rate, seconds),
        }
        for field, want in expected.items():
            whole(factors[field] * RAY, want)
        return set(expected) & set(factors)
    raise AssertionError(f"a kind of case that no adapter knows: {sorted(given)}")


def test_isolated_markets_are_judged_as_the_library_of_morpho_judges_them() -> None:
    check_all("lending_morpho_blue", _morpho)


def _morpho(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    pool = (float(given["total_borrow_assets"]), float(given["total_borrow_shares"]))
    price, lltv = int(given["oracle_price"]) / 1e36, int(given["lltv_wad"]) / WAD
    got = markets.market_account(
        float(given["collateral"]),
        float(given["borrow_shares"]),
        price=price,
        lltv=lltv,
        total_borrow_assets=pool[0],
        total_borrow_shares=pool[1],
        quantum=1.0,
    )
    seized = markets.seized_for_shares(
        float(given["repaid_shares"]), price, lltv, *pool, quantum=1.0
    )
    numbers = {
        "liquidation_incentive_factor_wad": (got.incentive_factor, WAD),
        "collateral_value": (got.collateral_value, 1.0),
        "max_borrow_assets": (got.max_borrow, 1.0),
        "borrow_assets": (got.borrow_assets, 1.0),
        "ltv_wad": (got.ltv, WAD),
        "health_factor_wad": (got.health, WAD),
        "liquidation_price": (got.liquidation_price, 1e36),
        "price_variation_to_liquidation_wad": (got.price_variation, WAD),
        "withdrawable_collateral": (got.withdrawable_collateral, 1.0),
        "seized_for_repaid_shares": (seized, 1.0),
        "seizable_collateral": (got.seizable_collateral, 1.0),
    }
    assert got.is_healthy is expected["is_healthy"]
    for field, (value, unit) in numbers.items():
        if expected[field] in UNLIMITED:
            assert value is None, field
        else:
            assert value is not None, field
            try:
                whole(value * unit, expected[field])
            except AssertionError as exc:
                raise AssertionError(f"{field}: {exc}") from exc
    return {"is_healthy", *numbers}


def test_troves_are_judged_as_the_library_of_liquity_judges_them() -> None:
    check_all("lending_liquity", _liquity)


def _liquity(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, rel = case["inputs"], case["expected"], case["tol"]["rel"]
    rules = load_profile("liquity-v1").lending
    assert rules is not None
    assert rules.minimum_ratio is not None
    assert rules.critical_ratio is not None
    got = markets.trove(
        given["collateral_eth"],
        given["debt_lusd"],
        given["price"],
        minimum_ratio=rules.minimum_ratio,
        critical_ratio=rules.critical_ratio,
        reserve=rules.liquidation_reserve,
    )
    near(got.net_debt, expected["net_debt"], rel=rel)
    assert got.below_minimum is expected["below_minimum_110"]
    assert got.below_critical is expected["below_critical_150"]
    for field, value in (
        ("collateral_ratio", got.collateral_ratio),
        ("nominal_collateral_ratio", got.nominal_ratio),
    ):
        if expected[field] in UNLIMITED:
            assert value is None
        else:
            assert value is not None
            near(value, expected[field], rel=rel)
    return {
        "net_debt",
        "below_minimum_110",
        "below_critical_150",
        "collateral_ratio",
        "nominal_collateral_ratio",
    }


@pytest.mark.parametrize(
    ("name", "constant", "field"),
    [("MCR", 1.1, "minimum_ratio"), ("CCR", 1.5, "critical_ratio"),
     ("gas", 200.0, "liquidation_reserve"), ("min_net", 1800.0, "minimum_net_debt")],
)  # fmt: skip
def test_the_profile_of_liquity_has_the_constants_of_its_library(
    name: str, constant: float, field: str
) -> None:
    assert getattr(load_profile("liquity-v1").lending, field) == constant, name
