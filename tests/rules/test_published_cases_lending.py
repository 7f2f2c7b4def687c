"""Lenders' own results, as their contracts and libraries gave them.

An adapter here changes units and names of fields and nothing else: what a rule decides is asked
of the rule, and what a protocol fixes of its profile.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import Any

import pytest

from shared import Case, check_all, near, whole
from undertow.rules import closing, interest, lending, markets
from undertow.rules.profile import LendingRules, load_profile
from undertow.rules.rounding import ceil_to, floor_to

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


def test_accounts_are_judged_as_the_contracts_of_aave_v3_judge_them() -> None:
    check_all("aave_v3_accounts", _aave)


def _category(code: int, data: dict[str, Any]) -> dict[str, Any]:
    """What the file says of it: "category 1: ltv 9300, ..., assets WETH and wstETH only"."""
    words = r": ltv (\d+), threshold (\d+), bonus (\d+), collateral assets (.+?) only"
    found = re.search(rf"category {code}" + words, data["conventions"]["emode"])
    assert found, f"the file does not describe category {code}"
    members = set(re.findall(r"\w+", found[4])) & {r["symbol"] for r in data["reserves"]}
    assert members
    ltv, threshold, bonus = (int(found[i]) / BPS for i in (1, 2, 3))
    return {"ltv": ltv, "threshold": threshold, "bonus": bonus - 1.0, "members": members}


BASE = 1e-8  # USD, the least unit of the base currency
V37 = load_profile("aave-v3")


@dataclass
class Borrower:
    """An account of the file in the terms of the engine: prices in USD, balances raw."""

    held: list[str]
    owed: list[str]
    index: dict[str, list[float]]
    collateral: Any
    debt: Any
    terms: dict[str, Any]  # what the venue says of each leg
    bonus: list[float]
    fee: list[float]

    @classmethod
    def of(cls, given: dict[str, Any], data: dict[str, Any]) -> Borrower:
        reserves = {r["symbol"]: r for r in data["reserves"]}
        held, owed = list(given["collateral"]), list(given["debt"])
        category = _category(given["emode"], data) if given["emode"] else None
        assert V37.lending is not None
        assert V37.lending.categories or category is None

        def terms(name: str, field: str, less: float = 0.0) -> Any:
            own = [reserves[s][field] / BPS - less for s in held]
            member = [category is not None and s in category["members"] for s in held]
            return lending.with_category(own, member, category[name] if category else None)

        index = {
            "collateral": [int(given["liquidity_index"][s]) / RAY for s in held],
            "debt": [int(given["variable_borrow_index"][s]) / RAY for s in owed],
        }
        scaled = {side: [float(v) for v in given[side].values()] for side in index}
        return cls(
            held,
            owed,
            index,
            *(lending.balance(scaled[side], index[side], quantum=1.0, debt=side == "debt")
              for side in index),
            terms={
                "collateral_price": [given["price_base"][s] * BASE for s in held],
                "debt_price": [given["price_base"][s] * BASE for s in owed],
                "collateral_unit": [10.0 ** reserves[s]["decimals"] for s in held],
                "debt_unit": [10.0 ** reserves[s]["decimals"] for s in owed],
                "threshold": terms("threshold", "liquidation_threshold_bps"),
                "rounding": V37.lending.rounding(BASE),
            },
            bonus=terms("bonus", "liquidation_bonus_bps", 1.0),
            fee=[reserves[s]["liquidation_protocol_fee_bps"] / BPS for s in held],
        )  # fmt: skip

    def ltv(self, given: dict[str, Any], data: dict[str, Any]) -> Any:
        reserves = {r["symbol"]: r for r in data["reserves"]}
        category = _category(given["emode"], data) if given["emode"] else None
        member = [category is not None and s in category["members"] for s in self.held]
        own = [reserves[s]["ltv_bps"] / BPS for s in self.held]
        return lending.with_category(own, member, category["ltv"] if category else None)


def _aave(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    user = Borrower.of(given, data)
    got = lending.account(user.collateral, user.debt, ltv=user.ltv(given, data), **user.terms)
    whole(got.collateral / BASE, expected["total_collateral_base"])
    whole(got.debt / BASE, expected["total_debt_base"])
    near(got.ltv * BPS, expected["avg_ltv_bps"], unit=1e-6)
    near(got.threshold * BPS, expected["avg_liquidation_threshold_bps"], unit=1e-6)
    whole(got.available_borrows / BASE, expected["available_borrows_base"])
    _same(got.health, expected["health_factor_wad"], WAD)
    compared = set(expected) - {"liquidations"}
    for attempt in expected["liquidations"]:
        compared |= {f"liquidations.{name}" for name in _attempt(attempt, given, user)}
    return compared


REVERTS = {
    "HealthFactorNotBelowThreshold": closing.Status.HEALTHY,
    "MustNotLeaveDust": closing.Status.DUST,
}


def _attempt(attempt: Case, given: dict[str, Any], user: Borrower) -> set[str]:
    """One liquidation; whether it is paid in shares of the pool changes no amount."""
    i = user.held.index(attempt["collateral_asset"])
    j = user.owed.index(attempt["debt_asset"])
    cover = attempt["debt_to_cover"]
    assert V37.closing is not None
    got = closing.liquidate(
        user.collateral, user.debt, (i, j), closing=V37.closing, bonus=user.bonus, fee=user.fee,
        debt_to_cover=math.inf if cover == "max" else float(cover), quantum=1.0, **user.terms,
    )  # fmt: skip
    if "revert" in attempt:
        assert got.status is REVERTS[attempt["revert"]], got.status
        return set(attempt)
    assert got.status is closing.Status.CLOSED, got.status
    whole(got.repaid, attempt["debt_repaid"])
    whole(got.to_liquidator, attempt["collateral_to_liquidator"])
    index = user.index["collateral"][i], user.index["debt"][j]
    fee = float(ceil_to(got.protocol_fee / index[0], 1.0))
    whole(fee, attempt["protocol_fee"])
    written_off = {s: v for s, v in zip(user.owed, got.deficit, strict=True) if v}
    assert set(written_off) == set(attempt["deficit"])
    for symbol, amount in written_off.items():
        whole(amount, attempt["deficit"][symbol])
    # the contract keeps scaled balances: what leaves them rounds against the borrower
    gone = float(ceil_to(got.to_liquidator / index[0], 1.0)) + fee
    paid = float(floor_to(got.repaid / index[1], 1.0))
    scaled = {side: [float(v) for v in given[side].values()] for side in user.index}
    scaled["collateral"][i] = max(scaled["collateral"][i] - gone, 0.0) if got.collateral[i] else 0.0
    scaled["debt"] = [v if left else 0.0 for v, left in zip(scaled["debt"], got.debt, strict=True)]
    scaled["debt"][j] -= min(paid, scaled["debt"][j])
    left = lending.account(
        lending.balance(scaled["collateral"], user.index["collateral"], quantum=1.0),
        lending.balance(scaled["debt"], user.index["debt"], quantum=1.0, debt=True),
        **user.terms,
    )
    after = attempt["after"]
    whole(scaled["collateral"][i], after["scaled_collateral"])
    whole(scaled["debt"][j], after["scaled_debt"])
    whole(left.collateral / BASE, after["total_collateral_base"])
    whole(left.debt / BASE, after["total_debt_base"])
    _same(left.health, after["health_factor_wad"], WAD)
    assert set(after) == {"total_collateral_base", "total_debt_base", "health_factor_wad",
                          "scaled_collateral", "scaled_debt"}  # fmt: skip
    return set(attempt)


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
    closed = closing.liquidate_market(
        float(given["collateral"]),
        float(given["borrow_shares"]),
        price=price,
        lltv=lltv,
        total_borrow_assets=pool[0],
        total_borrow_shares=pool[1],
        rules=rules,
        quantum=1.0,
    )
    assert (closed.status is closing.Status.HEALTHY) is expected["is_healthy"]
    _same(closed.seized, expected["seizable_collateral"])
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
    rules, fixed = _rules("liquity-v1"), data["conventions"]["constants"]
    wanted = rules.minimum_ratio, rules.critical_ratio, rules.liquidation_reserve
    assert wanted == tuple(float(fixed[name]) for name in ("MCR", "CCR", "gas"))
    got = markets.trove(*amounts, rules=rules)
    whole_closing = load_profile("liquity-v1").closing
    assert whole_closing is not None
    closed = closing.liquidate_trove(*amounts, rules=rules, closing=whole_closing)
    assert (closed.status is closing.Status.CLOSED) is expected["below_minimum_110"]
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
