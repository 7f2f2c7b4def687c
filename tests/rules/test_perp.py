"""How perp venues judge, on worked cases and on properties that any of them has."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError
from undertow.rules import perp, scaled
from undertow.rules.brackets import Brackets
from undertow.rules.profile import PerpRules, load_profile
from undertow.rules.single import Basis


def _rules(name: str, as_of: dt.date | None = None) -> PerpRules:
    rules = load_profile(name, as_of).perp
    assert rules is not None
    return rules


DYDX, DRIFT, HYPERLIQUID = _rules("dydx-v4"), _rules("drift-v2"), _rules("hyperliquid")

BTC = Brackets.from_columns(  # Binance USD-M, October 2024
    [0, 50_000, 600_000, 3_000_000, 12_000_000, 70_000_000],
    [50_000, 600_000, 3_000_000, 12_000_000, 70_000_000, None],
    [0.004, 0.005, 0.0065, 0.01, 0.02, 0.025],
    [0, 50, 950, 11_450, 131_450, 481_450],
    [125, 100, 75, 50, 25, 20],
)


def test_a_cross_account_closes_where_the_worked_example_of_binance_says() -> None:
    """Binance support, "How to calculate liquidation price of USD-M futures": 1,153.26."""
    btc = perp.Position(
        size=109.488, entry=32_481.98, mark=31_967.27, brackets=Brackets.flat(0.025, 16_300.0)
    )
    eth = perp.Position(
        size=3_683.979, entry=1_456.84, mark=1_335.18, brackets=Brackets.flat(0.1, 135_365.0)
    )
    judged = perp.account([btc, eth], wallet=1_535_443.01)
    got = perp.liquidation_price(eth, equity=judged.equity, maintenance=judged.maintenance)
    assert got == pytest.approx(1_153.256464239104, rel=1e-12)
    btc_price = perp.liquidation_price(btc, equity=judged.equity, maintenance=judged.maintenance)
    assert btc_price is not None
    moved = perp.account([replace(btc, mark=btc_price), eth], wallet=1_535_443.01)
    assert moved.health == pytest.approx(1.0, rel=1e-12)


def test_one_position_closes_where_the_published_test_says() -> None:
    """freqtrade tests, after Binance's own calculator: 18,778.73."""
    alone = perp.Position(
        size=109.488, entry=32_481.98, mark=32_481.98, brackets=Brackets.flat(0.025, 16_300.0)
    )
    got = perp.liquidation_price(alone, wallet=1_535_443.01)
    assert got == pytest.approx(18_778.73, abs=0.0051)


def test_the_tier_at_liquidation_counts_and_not_the_tier_at_entry() -> None:
    """A short grows as it loses: 624.7 BTC enter at 1.0 and 2.0 % away, and close in the next."""
    short = perp.Position(size=-624.7076871950748, entry=67_000.0, mark=67_000.0, brackets=BTC)
    assert short.bracket.max_leverage == 25.0
    judged = perp.account([short], wallet=1_674_216.6016828003)
    assert judged.maintenance == pytest.approx(705_658.3008414002, rel=1e-12)
    got = perp.liquidation_price(short, wallet=1_674_216.6016828003)
    assert got == pytest.approx(68_520.01805175914, rel=1e-12)
    assert replace(short, mark=got).bracket.rate == 0.02


@pytest.mark.parametrize("venue", ["gate", "okx"])
def test_gate_and_okx_keep_the_fee_of_the_exit_apart(venue: str) -> None:
    """freqtrade tests for Gate and OKX: a 3x short from 10 closes at 13.1935."""
    short = perp.Position(
        size=-1.0, entry=10.0, mark=10.0, brackets=Brackets.flat(0.01),
        closing_fee=_rules(venue).exit_fee(0.0006),
    )  # fmt: skip
    assert _rules("binance-usdm").exit_fee(0.0006) == 0.0
    assert perp.liquidation_price(short, wallet=10.0 / 3.0) == pytest.approx(
        13.193482419684678, rel=1e-12
    )


@pytest.mark.parametrize(("side", "want"), [(1.0, 8.1), (-1.0, 11.9)])
def test_bybit_asked_maintenance_of_the_entry_value(side: float, want: float) -> None:
    """freqtrade tests for Bybit's isolated margin: entry * (1 - side / leverage + side * rate)."""
    position = perp.Position(
        size=side, entry=10.0, mark=10.0, brackets=Brackets.flat(0.01),
        basis=_rules("bybit-isolated-legacy").maintenance_basis,
    )  # fmt: skip
    assert perp.liquidation_price(position, wallet=2.0) == pytest.approx(want, rel=1e-12)


def test_hyperliquid_answered_these_prices() -> None:
    """Hyperliquid API: a cross short of HYPE, and the isolated long of the documentation."""
    half, fiftieth = (
        Brackets.flat(
            perp.maintenance_rate(leverage, of_initial=HYPERLIQUID.maintenance_of_initial)
        )
        for leverage in (3.0, 50.0)
    )
    hype = perp.Position.from_value(-1.95, 50.26905, half)
    got = perp.liquidation_price(hype, equity=49.589238, maintenance=8.378175)
    assert got == pytest.approx(43.89375297, rel=1e-7)
    eth = perp.Position.from_value(0.0335, 100.02765, fiftieth)
    assert perp.liquidation_price(eth, raw_usd=-95.059824) == pytest.approx(
        2_866.26936529, rel=1e-7
    )
    assert perp.account([eth], raw_usd=-95.059824).equity == pytest.approx(4.967826, rel=1e-7)


SIZES = st.builds(
    lambda sign, size: sign * size, st.sampled_from([-1.0, 1.0]), st.floats(0.01, 50.0)
)


@given(st.lists(st.tuples(SIZES, st.floats(0.5, 100.0)), min_size=2, max_size=12))
def test_a_price_that_holds_maintenance_at_the_mark_is_the_rule_of_2023(
    rows: list[tuple[float, float]],
) -> None:
    """mark - side * (equity - maintenance) / |size|, over a whole cross account."""
    rules = _rules("hyperliquid", dt.date(2023, 4, 1))
    rates = [
        perp.maintenance_rate(leverage, of_initial=rules.maintenance_of_initial)
        for leverage in (50, 20, 10, 5, 3)
    ]
    held = [
        perp.Position.from_value(
            size, abs(size) * mark, Brackets.flat(rates[i % 5]), basis=rules.maintenance_basis
        )
        for i, (size, mark) in enumerate(rows)
    ]
    judged = perp.account(held, raw_usd=500.0 - sum(p.size * p.mark for p in held))
    assert judged.equity == pytest.approx(500.0, rel=1e-9)
    asked = sum(p.notional * p.brackets.rate[0] for p in held)
    for position in held:
        want = position.mark - (500.0 - asked) / position.size
        got = perp.liquidation_price(position, equity=judged.equity, maintenance=judged.maintenance)
        if want > 1e-6:
            assert got == pytest.approx(want, rel=1e-7)
        elif want < -1e-6:
            assert got is None


POSITIONS = st.builds(
    perp.Position,
    size=st.floats(-500.0, 500.0).filter(lambda x: abs(x) > 1e-3),
    entry=st.floats(20_000.0, 90_000.0),
    mark=st.floats(20_000.0, 90_000.0),
    brackets=st.just(BTC),
    closing_fee=st.sampled_from([0.0, 0.0005]),
)


@given(POSITIONS, st.floats(0.01, 1.5))
def test_at_its_liquidation_price_equity_is_maintenance(
    position: perp.Position, margin: float
) -> None:
    wallet = abs(position.size) * position.entry * margin
    got = perp.liquidation_price(position, wallet=wallet)
    if got is None:
        assert position.size > 0.0
        assert perp.account([replace(position, mark=1e-9)], wallet=wallet).equity > 0.0
        return
    then = perp.account([replace(position, mark=got)], wallet=wallet)
    assert then.equity == pytest.approx(then.maintenance, rel=1e-9, abs=1e-9 * wallet)
    beyond = replace(position, mark=got * (0.999 if position.size > 0.0 else 1.001))
    assert perp.account([beyond], wallet=wallet).liquidatable


@given(
    st.floats(-5e6, 5e6).filter(lambda x: abs(x) > 10.0),
    st.floats(20_000.0, 90_000.0),
    st.floats(0.005, 2.0),
    st.sampled_from([Basis.TESTED, Basis.ENTRY]),
)
def test_a_coin_margined_position_closes_where_its_coin_runs_out(
    face: float, entry: float, margin: float, basis: Basis
) -> None:
    """Equity in coin is wallet + face * (1 / entry - 1 / p); tiers count coin."""
    tiers = Brackets.from_columns([0, 5, 20], [5, 20, None], [0.004, 0.01, 0.025])
    wallet = abs(face) / entry * margin
    position = perp.Position(
        size=face, entry=entry, mark=entry, brackets=tiers, basis=basis, inverse=True
    )

    def spare(p: float) -> float:
        coins = abs(face) / (p if basis is Basis.TESTED else entry)
        rates = ((0.004, 0.0), (0.01, 0.03), (0.025, 0.33))
        asked = max(rate * coins - amount for rate, amount in rates)
        return wallet + face * (1.0 / entry - 1.0 / p) - asked

    got = perp.liquidation_price(position, wallet=wallet)
    if got is None:
        assert face < 0.0  # the coin it holds gains what the short loses
        assert spare(1e12) >= -1e-9
    else:
        assert spare(got) == pytest.approx(0.0, abs=1e-9 * (wallet + abs(face) / got))
    if basis is Basis.TESTED:
        judged = perp.account([position], wallet=wallet)
        assert (judged.equity - judged.maintenance) / entry == pytest.approx(
            spare(entry), rel=1e-9, abs=1e-9 * wallet
        )


def test_an_account_says_what_it_has_and_what_it_may_do() -> None:
    long = perp.Position(size=2.0, entry=100.0, mark=110.0, brackets=Brackets.flat(0.05),
                         initial_rate=0.1)  # fmt: skip
    got = perp.account([long], wallet=30.0)
    assert (got.equity, got.notional) == (50.0, 220.0)
    assert got.maintenance == pytest.approx(11.0)
    assert got.free == pytest.approx(28.0)
    assert got.leverage == pytest.approx(4.4)
    assert got.health == pytest.approx(50.0 / 11.0)
    assert not got.liquidatable
    same = perp.account([long], raw_usd=30.0 - 200.0)
    assert same == got
    gone = perp.account([replace(long, mark=80.0)], wallet=30.0)
    assert gone.leverage is None
    assert gone.liquidatable
    borrowed = perp.account([long], wallet=-5.0)
    assert borrowed.equity == 15.0
    assert borrowed.maintenance == pytest.approx(11.0)
    assert perp.account([], wallet=5.0).health is None


@pytest.mark.parametrize(
    "words",
    [{}, {"wallet": 1.0, "raw_usd": 1.0}, {"wallet": 1.0, "equity": 1.0}, {"maintenance": 1.0}],
)
def test_totals_that_do_not_fit_together_are_refused(words: dict[str, float]) -> None:
    one = perp.Position(size=1.0, entry=1.0, mark=1.0, brackets=Brackets.flat(0.1))
    with pytest.raises(RuleError):
        perp.liquidation_price(one, **words)


def test_coin_and_dollar_margin_do_not_share_an_account() -> None:
    dollar = perp.Position(size=1.0, entry=1.0, mark=1.0, brackets=Brackets.flat(0.1))
    coin = replace(dollar, inverse=True)
    with pytest.raises(RuleError):
        perp.account([dollar, coin], wallet=1.0)
    with pytest.raises(RuleError):
        perp.account([coin], raw_usd=1.0)
    with pytest.raises(RuleError):
        perp.liquidation_price(coin, equity=1.0)
    with pytest.raises(RuleError):
        perp.Position.from_value(0.0, 1.0, Brackets.flat(0.1))
    with pytest.raises(RuleError):
        perp.maintenance_rate(0.0)
    assert perp.maintenance_rate(20.0) == 0.05


def test_longs_pay_when_the_rate_is_positive() -> None:
    """Hyperliquid, recorded April 2023: a short of 0.68582 BTC received 5.95 over three hours."""
    got = perp.funding_payment(-0.68582, 0.00010081, 28_688.978619174402, 3)
    assert got == pytest.approx(5.950454, rel=1e-6)
    assert perp.funding_payment(1.0, 0.0001, 100.0) < 0.0
    assert perp.funding_rate(0.0002, 0.0001) == pytest.approx(0.0001)
    assert perp.funding_rate(0.002, 0.0001) == pytest.approx(0.0015)
    assert perp.funding_rate(0.02, 0.0001, cap=0.003) == 0.003


TABLES: dict[str, tuple[Any, ...]] = {
    "gap": ([0, 10], [9, None], [0.01, 0.02]),
    "no start at 0": ([1, 10], [10, None], [0.01, 0.02]),
    "falling rates": ([0, 10], [10, None], [0.02, 0.01]),
    "above 1": ([0, 10], [10, None], [0.02, 1.01]),
    "jump": ([0, 10], [10, None], [0.01, 0.02], [0.0, 0.3]),
    "lengths": ([0, 10], [10, None], [0.01]),
    "leverage": ([0, 10], [10, None], [0.01, 0.02], None, [10.0, 0.0]),
    "empty": ([], [], []),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_that_jumps_or_leaves_a_gap_is_refused(table: tuple[Any, ...]) -> None:
    with pytest.raises(RuleError):
        Brackets.from_columns(*table)


def test_amounts_follow_from_rates_and_a_table_is_read_at_both_ends() -> None:
    table = Brackets.from_columns(BTC.floor, BTC.ceiling, BTC.rate)
    assert list(table.amount) == pytest.approx(list(BTC.amount))
    assert table.at(50_000.0).rate == 0.004
    assert table.at(50_000.01).rate == 0.005
    assert table.at(1e12).rate == 0.025
    assert BTC.value(1_000_000.0) == pytest.approx(6_500.0 - 950.0)
    with pytest.raises(RuleError):
        Brackets.flat(1.5)


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_haircut_tiers_count_a_holding_part_by_part(one: float, other: float) -> None:
    tiers = Brackets.haircuts([0, 1e6, 1e7], [1e6, 1e7, None], [0.98, 0.9, 0.5])
    want = 0.98 * min(one, 1e6) + 0.9 * min(max(one - 1e6, 0.0), 9e6) + 0.5 * max(one - 1e7, 0.0)
    assert tiers.value(one) == pytest.approx(want, rel=1e-12)
    whole = tiers.value(one + other)
    assert whole <= (tiers.value(one) + tiers.value(other)) * (1 + 1e-12)
    assert whole >= max(tiers.value(one), tiers.value(other)) * (1 - 1e-12)


def test_dydx_scales_what_it_asks_to_open_and_not_what_it_asks_to_stay() -> None:
    """dydxprotocol/v4-chain, lib_test: 20 % scaled to just under 60 %, and 10 % to stay."""
    crowd = {"open_interest": 14_999_999.98875, "lower_cap": 1e7, "upper_cap": 2e7}
    rules = replace(DYDX, maintenance_of_initial=0.5)
    got = scaled.margin_requirement(0.012 * 36_750.0, 0.2, rules=rules, **crowd)
    assert got.initial == pytest.approx(264.599559, abs=1e-9)
    assert got.maintenance == pytest.approx(44.1, abs=1e-9)
    before = _rules("dydx-v4", dt.date(2023, 12, 1))
    unscaled = scaled.margin_requirement(0.012 * 36_750.0, 0.2, rules=before, **crowd)
    assert unscaled.initial == pytest.approx(88.2, abs=1e-9)
    assert unscaled.maintenance == pytest.approx(0.6 * 88.2, abs=1e-9)
    least = replace(DYDX, margin_quantum=1.0)
    assert scaled.margin_requirement(1, 0.1, rules=least).initial == 1.0
    assert scaled.margin_requirement(100, 0.07, rules=least).initial == 7.0
    plain = scaled.margin_requirement(1, 0.1, rules=PerpRules())
    assert (plain.initial, plain.maintenance) == (0.1, 0.1)
    assert scaled.open_interest_fraction(0.2, 5e7, 1e7, 2e7) == 1.0


def test_dydx_prices_a_bankruptcy_and_an_offer_over_the_whole_account() -> None:
    """dydxprotocol/v4-chain, liquidations_test: two longs; and a long just under its margin."""

    def held(size: float, mark: float) -> perp.Position:
        return perp.Position(size=size, entry=mark, mark=mark, brackets=Brackets.flat(0.1))

    two = [held(0.004, 50_000.0), held(0.1, 3_000.0)]
    got = scaled.bankruptcy_price(two, 1, -0.1, raw_usd=-490.0, rules=DYDX)
    assert got.quote == pytest.approx(294.0, abs=1e-6)
    assert got.per_unit == pytest.approx(2_940.0, abs=1e-5)
    for wide, price in ((replace(DYDX, spread_to_maintenance=0.2), 49_998.0), (DYDX, 49_999.0)):
        offer = scaled.fillable_price([held(0.1, 50_000.0)], 0, raw_usd=-4_501.0, rules=wide)
        assert offer.price == pytest.approx(price, rel=1e-12)
        assert offer.rating == pytest.approx(0.002, rel=1e-9)
    for delta in (0.0, 0.1, -0.2):
        with pytest.raises(RuleError):
            scaled.bankruptcy_price(two, 1, delta, raw_usd=-490.0, rules=DYDX)


def test_drift_asks_more_of_size() -> None:
    """drift-labs/protocol-v2, margin tests: 1,000 units at 1.1 weigh 1.1962."""
    quantum = DRIFT.fraction_quantum
    assert scaled.size_premium(1_000.0, 0.01, 1.1, quantum=quantum) == pytest.approx(1.1962)
    assert scaled.size_premium(1.0, 0.01, 1.1) == 1.1
    assert scaled.size_premium(1_000.0, 0.0, 1.1) == 1.1
    assert scaled.size_discount(1_000.0, 0.01, 0.9) == pytest.approx(
        1.1 / (1.0 + 0.01 * 1_000.0**0.5)
    )
    assert scaled.size_discount(0.0, 0.0, 0.9) == 0.9
    assert scaled.scaled_asset_weight(60_000.0, 25.0, 500_000.0, 0.9) == pytest.approx(0.3)
    assert scaled.scaled_asset_weight(20_000.0, 25.0, 500_000.0, 0.9) == 0.9
