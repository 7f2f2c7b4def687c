"""Perp venues' own results: published examples, recorded answers, chains' own test tables.

An adapter here changes units and names of fields and nothing else: what a rule decides is asked
of the rule, and what a venue fixes of its profile.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from shared import Case, check_all, near
from undertow.rules import perp, scaled
from undertow.rules.brackets import Brackets
from undertow.rules.profile import PerpRules, load_profile

SIDE = {"long": 1.0, "short": -1.0}
VENUE = {
    "binance": "binance-usdm",
    "gate_okx": "gate",
    "gate": "gate",
    "okx": "okx",
    "bybit": "bybit-isolated-legacy",
}


def _rules(name: str, as_of: dt.date | None = None) -> PerpRules:
    rules = load_profile(name, as_of).perp
    assert rules is not None
    return rules


def _same(got: float | None, want: float | None, tol: dict[str, float]) -> None:
    if want is None:
        assert got is None
    else:
        assert got is not None
        near(got, want, rel=tol.get("rel", 0.0), unit=tol.get("abs", 0.0))


def test_liquidation_prices_are_those_of_the_exchanges() -> None:
    check_all("perp_liquidation_cex", _exchange)


def _exchange(case: Case, data: dict[str, Any]) -> set[str]:
    given = case["inputs"]
    if "symbol" in given:
        return _tiered(case, data)
    if "positions" in given:
        return _cross(case)
    return _isolated(case)


def _isolated(case: Case) -> set[str]:
    given, expected = case["inputs"], case["expected"]
    rules = _rules(VENUE[given.get("formula", "binance")])
    position = perp.Position(
        size=SIDE[given["side"]] * given["size"],
        entry=given["entry_price"],
        mark=given["entry_price"],
        brackets=Brackets.flat(given["maintenance_rate"], given["maintenance_amount"]),
        closing_fee=rules.exit_fee(given.get("taker_fee", 0.0)),
        basis=rules.maintenance_basis,
    )
    wallet = given["isolated_wallet"] if "isolated_wallet" in given else given["wallet_balance"]
    got = perp.liquidation_price(position, wallet=wallet)
    return _prices(got, expected, case["tol"])


def _prices(got: float | None, expected: dict[str, Any], tol: dict[str, float]) -> set[str]:
    if "liquidation_price" in expected:
        _same(got, expected["liquidation_price"], {"rel": tol["rel"]})
    if "liquidation_price_2dp" in expected:
        _same(got, expected["liquidation_price_2dp"], {"abs": tol["abs_2dp"]})
    return {"liquidation_price", "liquidation_price_2dp"} & set(expected)


def _cross(case: Case) -> set[str]:
    given = case["inputs"]
    held = {
        row["symbol"]: perp.Position(
            size=SIDE[row["side"]] * row["size"],
            entry=row["entry_price"],
            mark=row["mark_price"],
            brackets=Brackets.flat(row["maintenance_rate"], row["maintenance_amount"]),
            basis=_rules("binance-usdm").maintenance_basis,
        )
        for row in given["positions"]
    }
    judged = perp.account(list(held.values()), wallet=given["wallet_balance"])
    got = perp.liquidation_price(
        held[given["target"]], equity=judged.equity, maintenance=judged.maintenance
    )
    return _prices(got, case["expected"], case["tol"])


def _tiered(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, tol = case["inputs"], case["expected"], case["tol"]
    table = data["tier_tables"][given["symbol"]]
    names = ("min_notional", "max_notional", "maintenance_rate", "maintenance_amount",
             "max_leverage")  # fmt: skip
    position = perp.Position(
        size=SIDE[given["side"]] * given["size"],
        entry=given["entry_price"],
        mark=given["mark_price"],
        brackets=Brackets.from_columns(*([tier[name] for tier in table] for name in names)),
        basis=_rules("binance-usdm").maintenance_basis,
    )
    judged = perp.account([position], wallet=given["isolated_wallet"])
    near(judged.maintenance, expected["maintenance_margin_at_mark"], rel=tol["rel"])
    near(position.bracket.max_leverage, expected["tier_max_leverage"])
    got = perp.liquidation_price(position, wallet=given["isolated_wallet"])
    _same(got, expected["liquidation_price"], tol)
    rate = None if got is None else replace(position, mark=got).bracket.rate
    assert rate == expected["tier_at_liquidation_rate"]
    return set(expected) & {
        "maintenance_margin_at_mark",
        "tier_max_leverage",
        "liquidation_price",
        "tier_at_liquidation_rate",
    }


def test_liquidation_prices_and_funding_are_those_hyperliquid_answered() -> None:
    check_all("perp_liquidation_hyperliquid", _hyperliquid)


def _hyperliquid(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, tol = case["inputs"], case["expected"], case["tol"]
    if "events" in given:
        for event, oracle_price, usdc in zip(
            given["events"], expected["implied_oracle_price"], expected["usdc"], strict=True
        ):
            assert oracle_price > 0.0
            got = perp.funding_payment(
                event["size"], event["rate"], oracle_price, event["n_samples"]
            )
            assert (got > 0.0) == (usdc > 0.0)
            near(got, usdc, rel=1e-6)
        return {"usdc", "implied_oracle_price"}

    now = given["rule"].startswith("current")
    rules = _rules("hyperliquid", None if now else dt.date(2023, 4, 15))
    rate = perp.maintenance_rate(given["max_leverage"], of_initial=rules.maintenance_of_initial)
    position = perp.Position.from_value(
        given["size"], given["position_value"], Brackets.flat(rate), basis=rules.maintenance_basis
    )
    if "raw_usd" in given:
        judged = perp.account([position], raw_usd=given["raw_usd"])
        near(judged.equity, expected["margin_used"], rel=tol["rel"])
        got = perp.liquidation_price(position, raw_usd=given["raw_usd"])
        _same(got, expected["liquidation_price"], tol)
        return {"margin_used", "liquidation_price"}
    got = perp.liquidation_price(
        position, equity=given["account_value"], maintenance=given["total_maintenance"]
    )
    _same(got, expected["liquidation_price"], tol)
    return {"liquidation_price"}


QUANTUM = 1e-6  # USD, the unit in which these chains write their own amounts


def test_margins_and_prices_are_those_of_the_tables_of_dydx() -> None:
    check_all("perp_margin_dydx", _dydx)


def _dydx(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, tol = case["inputs"], case["expected"], case["tol"]
    rules = _rules("dydx-v4", dt.date(2025, 1, 1))
    # the chain's own tests try other constants than those it runs on
    for name, field in (
        ("maintenance_fraction_of_initial", "maintenance_of_initial"),
        ("bankruptcy_adjustment", "bankruptcy_adjustment"),
        ("spread_to_maintenance_ratio", "spread_to_maintenance"),
    ):
        rules = replace(rules, **{field: given[name]}) if name in given else rules
    if "notional_quantums" in given:
        got = scaled.margin_requirement(
            given["notional_quantums"] * QUANTUM,
            given["base_imf"],
            rules=rules,
            open_interest=given["open_interest_notional_quantums"] * QUANTUM,
            lower_cap=given["lower_cap"] * QUANTUM,
            upper_cap=given["upper_cap"] * QUANTUM,
        )
        near(got.initial / QUANTUM, expected["initial_margin_quantums"], rel=1e-12)
        return {"initial_margin_quantums"}
    if "base_imf" in given:
        got = scaled.margin_requirement(
            given["size"] * given["price"],
            given["base_imf"],
            rules=rules,
            open_interest=given["open_interest_notional_usd"],
            lower_cap=given["lower_cap_usd"],
            upper_cap=given["upper_cap_usd"],
        )
        near(got.initial, expected["initial_margin_usd"], unit=tol["abs"])
        near(got.maintenance, expected["maintenance_margin_usd"], unit=tol["abs"])
        return {"initial_margin_usd", "maintenance_margin_usd"}
    names = [row["market"] for row in given["positions"]]
    positions = [
        perp.Position(
            size=row["size"],
            entry=given["oracle_price"][row["market"]],
            mark=given["oracle_price"][row["market"]],
            brackets=Brackets.flat(given["maintenance_fraction"]),
        )
        for row in given["positions"]
    ]
    which = names.index(given["close_market"])
    if "fillable_price" in expected:
        offer = scaled.fillable_price(positions, which, raw_usd=given["usdc"], rules=rules)
        near(offer.price, expected["fillable_price"], rel=tol["rel"])
        near(offer.rating, expected["adjusted_bankruptcy_rating"], rel=tol["rel"])
        return {"fillable_price", "adjusted_bankruptcy_rating"}
    price = scaled.bankruptcy_price(
        positions, which, given["close_delta"], raw_usd=given["usdc"], rules=rules
    )
    near(price.quote, expected["bankruptcy_price_quote"], unit=tol["abs"])
    near(price.per_unit, expected["per_unit"], unit=tol["abs"])
    return {"bankruptcy_price_quote", "per_unit"}


def test_weights_and_liquidations_are_those_of_the_tests_of_drift() -> None:
    check_all("perp_liquidation_drift", _drift)


def _drift(case: Case, data: dict[str, Any]) -> set[str]:
    given, expected, tol = case["inputs"], case["expected"], case["tol"]
    (field,) = expected
    _same(_SIZED[field](given), expected[field], tol)
    return {field}


def _weight(given: dict[str, Any]) -> float:
    rules = _rules("drift-v2")
    if "scale_start_usd" in given:
        return scaled.scaled_asset_weight(
            given["deposits"],
            given["oracle_price"],
            given["scale_start_usd"],
            given["initial_weight"],
        )
    if "liability_weight" in given:
        assert rules.size_premium
        sizes = given["size"], given["imf_factor"], given["liability_weight"]
        return float(scaled.size_premium(*sizes, quantum=rules.fraction_quantum))
    sizes = given["size"], given["imf_factor"], given["asset_weight"]
    return scaled.size_discount(*sizes, quantum=rules.fraction_quantum)


def _base(given: dict[str, Any]) -> float:
    return scaled.base_to_cover(
        given["margin_shortage"],
        given["oracle_price"],
        given["margin_ratio"],
        liquidation_fee=given["liquidation_fee"],
        insurance_fee=given["insurance_fee"],
        quote_price=given["quote_price"],
    )


def _liability(given: dict[str, Any]) -> float:
    multipliers = {
        "asset_multiplier": given["asset_liq_multiplier"],
        "liability_multiplier": given["liability_liq_multiplier"],
    }
    if "asset_amount" in given:
        return scaled.implied_liability(
            given["asset_amount"], given["asset_price"], given["liability_price"], **multipliers
        )
    return scaled.liability_to_cover(
        given["margin_shortage"],
        given["liability_price"],
        liability_weight=given["liability_weight"],
        asset_weight=given["asset_weight"],
        insurance_fee=given["insurance_fee"],
        **multipliers,
    )


def _per_base(given: dict[str, Any]) -> float:
    return scaled.loss_per_base(
        given["loss"], given["base_long"], given["base_short"], quantum=QUANTUM
    )


def _fund_fee(given: dict[str, Any]) -> float:
    return scaled.insurance_fee(
        given["margin_shortage"],
        given["base"],
        given["oracle_price"],
        given["margin_ratio"],
        liquidator_fee=given["liquidator_fee"],
        most=given["max_if_fee"],
    )


_SIZED = {
    "weight": _weight,
    "base_amount": _base,
    "liability_amount": _liability,
    "per_base": _per_base,
    "if_fee": _fund_fee,
}
