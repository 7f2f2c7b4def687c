"""Lenders' own results, as their contracts and libraries gave them.

An adapter here changes units and names of fields and nothing else: what a rule decides is asked
of the rule, and what a protocol fixes of its profile.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest

from shared import Case, check_all, near, whole
from undertow.rules import interest, lending, markets
from undertow.rules.profile import LendingRules, load_profile

RAY, WAD, BPS = 1e27, 1e18, 1e4
UNLIMITED = {str(2**256 - 1), "inf", None}


def _rules(name: str, as_of: dt.date | None = None) -> LendingRules:
    rules = load_profile(name, as_of).lending
    assert rules is not None
    return rules


def _same(got: float | None, want: Any, unit: float = 1.0, *, rel: float | None = None) -> None:
    """Compare what may not exist: within `rel`, or without one as a whole number of `unit`s."""
    if want in UNLIMITED:
        assert got is None
        return
    assert got is not None
    whole(got * unit, want) if rel is None else near(got, want, rel=rel)


# of an attempt to liquidate: what it asks for, and what would size it, which nothing does yet;
# of its outcome only a refusal on health is read, one over the dust it would leave is not
LATER = {
    f"liquidations.{name}"
    for name in ("collateral_asset", "debt_asset", "debt_to_cover", "receive_atoken",
                 "debt_repaid", "collateral_to_liquidator", "protocol_fee", "deficit", "after")
}  # fmt: skip


def test_accounts_are_judged_as_the_contracts_of_aave_v3_judge_them() -> None:
    check_all("aave_v3_accounts", _aave, later=LATER)


def _category(code: int, data: dict[str, Any]) -> dict[str, Any]:
    """What the file says of it: "category 1: ltv 9300, ..., assets WETH and wstETH only"."""
    words = r": ltv (\d+), threshold (\d+), bonus \d+, collateral assets (.+?) only"
    found = re.search(rf"category {code}" + words, data["conventions"]["emode"])
    assert found, f"the file does not describe category {code}"
    members = set(re.findall(r"\w+", found[3])) & {r["symbol"] for r in data["reserves"]}
    assert members
    return {"ltv": int(found[1]) / BPS, "threshold": int(found[2]) / BPS, "members": members}


def _aave(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    reserves = {r["symbol"]: r for r in data["reserves"]}
    held, owed = list(given["collateral"]), list(given["debt"])
    rules = _rules("aave-v3")
    rounding = rules.rounding(1.0)
    category = _category(given["emode"], data) if given["emode"] else None
    assert rules.categories or category is None

    def terms(name: str, field: str) -> Any:
        own = [reserves[s][field] / BPS for s in held]
        member = [category is not None and s in category["members"] for s in held]
        return lending.with_category(own, member, category[name] if category else None)

    def balances(side: str, index: str, symbols: list[str]) -> Any:
        return lending.balance(
            [float(given[side][s]) for s in symbols],
            [int(given[index][s]) / RAY for s in symbols],
            quantum=rounding.value,
            debt=side == "debt",
        )

    got = lending.account(
        balances("collateral", "liquidity_index", held),
        balances("debt", "variable_borrow_index", owed),
        collateral_price=[given["price_base"][s] for s in held],
        debt_price=[given["price_base"][s] for s in owed],
        threshold=terms("threshold", "liquidation_threshold_bps"),
        ltv=terms("ltv", "ltv_bps"),
        collateral_unit=[10.0 ** reserves[s]["decimals"] for s in held],
        debt_unit=[10.0 ** reserves[s]["decimals"] for s in owed],
        rounding=rounding,
    )
    whole(got.collateral, expected["total_collateral_base"])
    whole(got.debt, expected["total_debt_base"])
    near(got.ltv * BPS, expected["avg_ltv_bps"], unit=1e-6)
    near(got.threshold * BPS, expected["avg_liquidation_threshold_bps"], unit=1e-6)
    whole(got.available_borrows, expected["available_borrows_base"])
    _same(got.health, expected["health_factor_wad"], WAD)
    for attempt in expected["liquidations"]:
        refused = attempt.get("revert") == "HealthFactorNotBelowThreshold"
        assert got.liquidatable is not refused
    compared = set(expected) - {"liquidations"}
    judged = any("revert" in attempt for attempt in expected["liquidations"])
    return compared | ({"liquidations.revert"} if judged else set())


def test_rates_and_interest_are_those_of_the_contracts_and_of_the_library() -> None:
    check_all("lending_interest_rates", _interest)


def _interest(case: Case, data: dict[str, Any]) -> set[str]:
    given = case["inputs"]
    if "curve" in given:
        return _curve(case)
    if "collateral" in given:
        return _basic_account(case)
    if {*BALANCE, *INDEX} & set(given):
        return _indexed_balance(case)
    return _growth(case)


def _curve(case: Case) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    names = ("base", "slope1", "slope2", "optimal")
    curve = interest.RateCurve(**{name: given[f"{name}_bps"] / BPS for name in names})
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


def _basic_account(case: Case) -> set[str]:
    """Health and what may still be borrowed, from totals; the library says -1 for no debt."""
    given, expected, rel = case["inputs"], case["expected"], case["tol"].get("rel", 1e-9)
    names = {"liquidation_threshold_bps": "threshold", "threshold_bps": "threshold",
             "ltv_bps": "ltv", "current_ltv_bps": "ltv"}  # fmt: skip
    terms = {names[name]: given[name] / BPS for name in names if name in given}
    got = lending.account(float(given["collateral"]), float(given["debt"]), **terms)
    if "health_factor" in expected:
        want = expected["health_factor"]
        _same(got.health, None if want in {"-1", -1} else want, rel=rel)
    if "available_borrows" in expected:
        assert "ltv" in terms
        near(got.available_borrows, expected["available_borrows"], rel=rel, unit=1.0)
    return {"health_factor", "available_borrows"} & set(expected)


# what a balance, its index, its rate and its time may be called
BALANCE = ("scaled", "scaled_balance", "principal", "principal_balance", "balance")
INDEX = ("index", "reserve_index", "liquidity_index", "variable_borrow_index")
RATE = ("rate", "rate_ray", "reserve_rate", "liquidity_rate", "stable_rate")


def _named(given: dict[str, Any], names: tuple[str, ...], default: Any) -> Any:
    return next((given[name] for name in names if name in given), default)


def _rate_and_span(given: dict[str, Any]) -> tuple[float, float]:
    rate = int(_named(given, RATE, 0)) / RAY
    return rate, given["seconds"] if "seconds" in given else (
        given.get("now", 0) - given.get("last_update", 0)
    )


def _indexed_balance(case: Case) -> set[str]:
    """A balance, or an index itself, after growth: compounded where a name speaks of debt."""
    given, expected = case["inputs"], case["expected"]
    index, scaled = int(_named(given, INDEX, RAY)) / RAY, _named(given, BALANCE, None)
    for field, want in expected.items():
        owed = re.search("compound|debt|borrow|principal|stable", " ".join([field, *given]))
        grow = SDK.growth if owed else interest.linear_factor
        grown = interest.accrued_index(index, grow(*_rate_and_span(given)))
        whole(grown * RAY if scaled is None else float(lending.balance(int(scaled), grown)), want)
    return set(expected)


# the library still computes as the contracts did before
ON_CHAIN, SDK = _rules("aave-v3"), _rules("aave-v3", dt.date(2023, 1, 1))


def _growth(case: Case) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    rate, seconds = _rate_and_span(given)
    factors = {
        "compounded_taylor3_onchain": ON_CHAIN.growth(rate, seconds),
        "compounded_binomial_sdk": SDK.growth(rate, seconds),
        "compounded": SDK.growth(rate, seconds),
        "compounded_rate_exact_sdk": interest.compounded_rate(rate, seconds),
        "compounded_rate": interest.compounded_rate(rate, seconds),
        "linear": interest.linear_factor(rate, seconds),
    }
    for field, want in expected.items():
        whole(factors[field] * RAY, want)
    return set(expected)


AGO = {"last_update": 1_629_942_200, "now": 1_729_942_300}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scaled": "161316503206059870", "index": "1001723339432542553527150680",
          "rate": "22461916953455574582370088", "last_update": 1609673617, "now": 1609675535},
         {"balance": "161594727054623229"}),
        ({"principal": 10_000, "index": "1048540642417873765200833079",
          "rate": 500_000_000_000_000_000, **AGO}, {"balance": "10485"}),
        ({"index": "1048540642417873765200833079", "rate": 500_000_000_000_000_000, **AGO},
         {"normalized_income": "1048540644080325710530799122"}),
        ({"principal": 2 * 10**18, "stable_rate": 500_000_000_000_000_000, "seconds": 120_000_000},
         {"balance": "2000000003805175038"}),
        ({"collateral": 10**17, "debt": 5 * 10**16, "liquidation_threshold_bps": 5000},
         {"health_factor": "1"}),
        ({"collateral": 10**17, "debt": 0, "liquidation_threshold_bps": 5000},
         {"health_factor": "-1"}),
        ({"collateral": 10**18, "debt": 5 * 10**16, "ltv_bps": 0.5}, {"available_borrows": "0"}),
    ],
    ids=["supply", "debt", "index", "stable", "health", "no debt", "room"],
)  # fmt: skip
def test_balances_and_accounts_are_those_of_the_tests_of_the_library(
    given: Case, expected: Case
) -> None:
    """aave/aave-utilities, pool-math tests; the first is a user of YFI, January 2021."""
    case = {"inputs": given, "expected": expected, "tol": {"rel": 1e-9}}
    assert _interest(case, {}) == set(expected)


def test_isolated_markets_are_judged_as_the_library_of_morpho_judges_them() -> None:
    check_all("lending_morpho_blue", _morpho)


def _morpho(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    pool = (float(given["total_borrow_assets"]), float(given["total_borrow_shares"]))
    price, lltv = int(given["oracle_price"]) / 1e36, int(given["lltv_wad"]) / WAD
    rules = _rules("morpho-blue")
    got = markets.market_account(
        float(given["collateral"]),
        float(given["borrow_shares"]),
        price=price,
        lltv=lltv,
        total_borrow_assets=pool[0],
        total_borrow_shares=pool[1],
        rules=rules,
        quantum=1.0,
    )
    seized = markets.seized_for_shares(
        float(given["repaid_shares"]), price, lltv, *pool, rules=rules, quantum=1.0
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
        try:
            _same(value, expected[field], unit)
        except AssertionError as exc:
            raise AssertionError(f"{field}: {exc}") from exc
    return {"is_healthy", *numbers}


def test_troves_are_judged_as_the_library_of_liquity_judges_them() -> None:
    check_all("lending_liquity", _liquity)


def _liquity(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, rel = case["inputs"], case["expected"], case["tol"]["rel"]
    amounts = (given["collateral_eth"], given["debt_lusd"], given["price"])
    got = markets.trove(*amounts, rules=_rules("liquity-v1"))
    near(got.net_debt, expected["net_debt"], rel=rel)
    assert got.below_minimum is expected["below_minimum_110"]
    assert got.below_critical is expected["below_critical_150"]
    _same(got.collateral_ratio, expected["collateral_ratio"], rel=rel)
    _same(got.nominal_ratio, expected["nominal_collateral_ratio"], rel=rel)
    return {
        "net_debt",
        "below_minimum_110",
        "below_critical_150",
        "collateral_ratio",
        "nominal_collateral_ratio",
    }
