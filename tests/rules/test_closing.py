"""Liquidation by venue: worked examples of their own documents, and what the rules refuse."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError
from undertow.kernels import closing as kernel
from undertow.rules import closing, markets, scaled
from undertow.rules.closing import Status
from undertow.rules.profile import (
    ClosingRules,
    LendingRules,
    Mechanism,
    load_profile,
    profile_names,
)
from undertow.rules.terms import Rules
from undertow.state import Book, Universe

TS = 1_767_225_600_000_000  # 2026-01-01


def rules_of(name: str, as_of: dt.date | None = None) -> ClosingRules:
    rules = load_profile(name, as_of).closing
    assert rules is not None
    return rules


def lending_of(name: str) -> LendingRules:
    rules = load_profile(name).lending
    assert rules is not None
    return rules


# Aave: the close factor's history, and the fourth version's own examples


def aave(as_of: dt.date, **more: Any) -> closing.Liquidation:
    """One of 10,000 USD of collateral at 0.8 and two debts, of 5,000 and 3,200: health 0.976."""
    given_ = {"collateral_price": 1.0, "threshold": 0.8, "bonus": 0.05, "fee": 0.1, **more}
    return closing.liquidate([10_000.0], [5_000.0, 3_200.0], closing=rules_of("aave-v3", as_of),
                             **given_)  # fmt: skip


def test_half_of_one_debt_became_half_of_all_debt_with_the_third_release_of_aave_v3() -> None:
    before, since = dt.date(2024, 6, 1), dt.date(2025, 6, 1)
    assert aave(before).repaid == pytest.approx(2_500.0)
    assert aave(before, threshold=0.77).repaid == 5_000.0  # health 0.939
    assert aave(since, debt_to_cover=math.inf).status is Status.DUST  # 4,100 leave 900
    assert aave(since).repaid == pytest.approx(4_000.0)
    assert aave(since, debt_to_cover=3_000.0).repaid == 3_000.0


def test_a_pair_with_a_small_side_is_closed_whole_at_any_health() -> None:
    few = {"closing": rules_of("aave-v3"), "threshold": 0.88, "bonus": 0.05}
    assert closing.liquidate([3_000.0], [1_999.0, 700.0], **few).repaid == 1_999.0
    assert closing.liquidate([3_000.0], [2_001.0, 668.0], **few).repaid == pytest.approx(1_001.0)


def test_the_fee_is_part_of_the_bonus_and_the_rest_is_the_liquidators() -> None:
    got = aave(dt.date(2024, 6, 1))
    assert got.seized == pytest.approx(2_625.0)
    assert got.protocol_fee == pytest.approx(12.5)
    assert got.to_liquidator == pytest.approx(2_612.5)
    assert got.deficit.sum() == 0.0


def test_debt_without_collateral_is_a_deficit_since_the_third_release_and_stays_before() -> None:
    def ruined(day: dt.date) -> closing.Liquidation:
        return closing.liquidate([4_000.0], [5_000.0, 3_200.0], closing=rules_of("aave-v3", day),
                                 threshold=0.8, bonus=0.05)  # fmt: skip

    assert ruined(dt.date(2024, 6, 1)).debt.sum() == pytest.approx(8_200.0 - 4_000.0 / 1.05)
    since = ruined(dt.date(2025, 6, 1))
    assert since.debt.sum() == 0.0
    assert since.deficit.sum() == pytest.approx(8_200.0 - 4_000.0 / 1.05)


def v4(**more: Any) -> ClosingRules:
    plain = {"target_health": 1.0, "bonus_start": 0.5, "bonus_full_at": 0.8, "leftover_usd": 1e3}
    return ClosingRules(mechanism=Mechanism.PAIR, **{**plain, **more})


@pytest.mark.parametrize(
    ("health", "most", "full_at", "start", "want"),
    [
        (0.95, 0.05, 0.85, 0.8, 0.0433333333),  # docs/features/LiquidationEngine.md, example 1
        (0.80, 0.05, 0.85, 0.8, 0.05),  # example 2
        (1.0 - 1e-12, 0.10, 0.8, 0.5, 0.05),  # the contract's own tests, and the next
        (0.96, 0.10, 0.8, 0.5, 0.06),
    ],
)
def test_the_bonus_of_aave_v4_is_that_of_its_documents(health, most, full_at, start, want) -> None:
    columns = closing.venue_columns([v4(bonus_full_at=full_at, bonus_start=start)])
    assert kernel.bonus_at(0, columns, health, most) == pytest.approx(want, rel=1e-8)


def test_a_liquidation_of_aave_v4_is_that_of_its_own_tests() -> None:
    """10,000 USD owed at a health of 0.8; factor 0.5, bonus 20 %, target 1, fee 10 %.

    debt = 10,000 * (1 - 0.8) / (1 - 0.6) / 2,000 = 2.5; 6,000 are seized, of which 100 are the
    protocol's.
    """
    got = closing.liquidate(
        [11_000.0, 5_000.0], [5.0], closing=v4(), debt_price=2_000.0, bonus=0.2, fee=0.1,
        threshold=[0.5, 0.5], debt_to_cover=3.0,
    )  # fmt: skip
    assert got.repaid == pytest.approx(2.5)
    assert got.seized == pytest.approx(6_000.0)
    assert got.to_liquidator == pytest.approx(5_900.0)


def test_aave_v4_takes_dust_with_it_and_refuses_who_wants_less() -> None:
    few = {"debt_price": 1.0, "bonus": 0.05, "threshold": 0.8}
    whole = closing.liquidate([3_000.0], [2_500.0], closing=v4(target_health=1.2), **few)
    assert whole.repaid == 2_500.0  # the target asks for 2,200 and would leave 300
    part = closing.liquidate(
        [3_000.0], [2_500.0], closing=v4(target_health=1.2), debt_to_cover=2_000.0, **few
    )
    assert part.status is Status.DUST
    assert part.repaid == 0.0
    first = closing.liquidate(
        [1_500.0, 9_000.0], [9_000.0], closing=v4(target_health=1.02), **few
    )  # 1,058 would be repaid and 389 of the first collateral left
    assert first.seized == 1_500.0
    assert first.repaid == pytest.approx(1_500.0 / (1.0 + first.bonus))


def test_a_healthy_account_an_empty_pair_and_other_mechanisms_are_answered() -> None:
    sound = closing.liquidate([10.0], [5.0], closing=rules_of("aave-v3"), threshold=0.8)
    assert (sound.status, sound.repaid, sound.seized) == (Status.HEALTHY, 0.0, 0.0)
    bare = closing.liquidate([0.0, 9.0], [9.0], closing=rules_of("aave-v3"), threshold=0.8)
    assert bare.status is Status.EMPTY
    with pytest.raises(RuleError, match="whole"):
        closing.liquidate([10.0], [5.0], closing=rules_of("sky"))
    with pytest.raises(RuleError, match="above 0"):
        closing.liquidate([10.0], [5.0], closing=rules_of("aave-v3"), debt_to_cover=0.0)
    with pytest.raises(RuleError, match="one of 1 collaterals"):
        closing.liquidate([10.0], [5.0], (1, 0), closing=rules_of("aave-v3"))


# Morpho, Liquity, Compound, Sky, crvUSD

POOL = {"total_borrow_assets": 1e12, "total_borrow_shares": 1e18}


def market(collateral: float, shares: float, **more: Any) -> closing.MarketLiquidation:
    return closing.liquidate_market(
        collateral, shares, price=2.0, lltv=0.8, rules=lending_of("morpho-blue"), quantum=1.0,
        **POOL, **more,
    )  # fmt: skip


def test_a_market_is_closed_from_either_side_of_the_trade() -> None:
    """100 of collateral at 2 against 170 of debt at lltv 0.8: factor 1 / (1 - 0.3 * 0.2)."""
    by_debt = market(100e6, 170e12, repaid_shares=50e12)
    assert by_debt.repaid_assets == pytest.approx(50e6, rel=1e-6)
    assert by_debt.seized == pytest.approx(50e6 / 0.94 / 2.0, rel=1e-6)
    by_collateral = market(100e6, 170e12, seized=by_debt.seized)
    assert by_collateral.repaid_shares == pytest.approx(50e12, rel=1e-6)
    assert by_collateral.bad_debt == 0.0
    with pytest.raises(RuleError, match="not both"):
        market(100e6, 170e12, seized=1.0, repaid_shares=1.0)


def test_a_market_writes_off_at_once_what_nothing_backs() -> None:
    whole = market(100e6, 250e12)
    assert whole.seized == 100e6
    assert whole.collateral == 0.0 == whole.borrow_shares
    assert whole.repaid_assets == pytest.approx(200e6 * 0.94, rel=1e-6)
    assert whole.bad_debt == pytest.approx(250e6 - 200e6 * 0.94, rel=1e-6)
    full = market(100e6, 165e12)
    assert full.borrow_shares == 0.0 == full.bad_debt
    assert full.collateral == pytest.approx(100e6 - 165e6 / 0.94 / 2.0, rel=1e-6)
    assert market(100e6, 100e12).status is Status.HEALTHY


TROVE = {"rules": lending_of("liquity-v1"), "closing": rules_of("liquity-v1")}


def test_a_trove_is_offset_by_the_pool_and_the_rest_is_spread() -> None:
    """10 of collateral at 210 against 2,000: a ratio of 1.05; half a per cent is the caller's."""
    whole = closing.liquidate_trove(10.0, 2_000.0, 210.0, pool=1e6, **TROVE)
    assert whole.to_pool_debt == 2_000.0
    assert whole.to_pool_collateral == pytest.approx(9.95)
    assert whole.caller_collateral == pytest.approx(0.05)
    assert whole.caller_reserve == 200.0
    part = closing.liquidate_trove(10.0, 2_000.0, 210.0, pool=500.0, **TROVE)
    assert (part.to_pool_debt, part.spread_debt) == (500.0, 1_500.0)
    assert part.spread_collateral == pytest.approx(9.95 * 0.75)
    assert closing.liquidate_trove(11.0, 2_000.0, 200.0, **TROVE).status is Status.HEALTHY


def test_recovery_mode_reaches_troves_up_to_the_ratio_of_the_system() -> None:
    """At 1.2 with the system at 1.4 the pool takes 1.1 of the debt and the owner keeps the rest."""
    args = (12.0, 2_000.0, 200.0)
    assert closing.liquidate_trove(*args, **TROVE).status is Status.HEALTHY
    assert closing.liquidate_trove(*args, system_ratio=1.6, **TROVE).status is Status.HEALTHY
    assert closing.liquidate_trove(*args, system_ratio=1.15, **TROVE).status is Status.HEALTHY
    assert (
        closing.liquidate_trove(*args, system_ratio=1.4, pool=1_999.0, **TROVE).status
        is Status.HEALTHY
    )
    got = closing.liquidate_trove(*args, system_ratio=1.4, pool=2_000.0, **TROVE)
    assert got.surplus == pytest.approx(1.0)
    assert got.caller_collateral == pytest.approx(11.0 * 0.005)
    assert got.to_pool_collateral == pytest.approx(11.0 * 0.995)
    under = closing.liquidate_trove(9.9, 2_000.0, 200.0, system_ratio=1.4, pool=1e6, **TROVE)
    assert (under.to_pool_debt, under.spread_debt) == (0.0, 2_000.0)


@given(st.floats(1.0, 100.0), st.floats(0.5, 1.6), st.floats(0.0, 5e3), st.floats(0.8, 2.0))
def test_a_closed_trove_hands_on_all_its_debt_and_all_its_collateral(
    collateral: float, ratio: float, pool: float, system: float
) -> None:
    debt = collateral * 200.0 / ratio
    got = closing.liquidate_trove(collateral, debt, 200.0, pool=pool, system_ratio=system, **TROVE)
    if got.status is Status.CLOSED:
        assert got.to_pool_debt + got.spread_debt == pytest.approx(debt)
        parts = (got.to_pool_collateral, got.spread_collateral, got.caller_collateral, got.surplus)
        assert sum(parts) == pytest.approx(collateral)
        assert min(parts) >= 0.0


def test_compound_absorbs_an_account_and_credits_what_its_factor_leaves() -> None:
    """Value times the liquidation factor is set against the debt (Compound III docs: absorb)."""
    got = closing.close_whole(10_000.0, 9_000.0, closing=rules_of("compound-v3"))
    assert (got.seized, got.repaid, got.bad_debt) == (10_000.0, 9_000.0, 0.0)
    assert got.credit == pytest.approx(300.0)
    assert got.gain == pytest.approx(700.0)  # the protocol's: 7 % of what it took
    short = closing.close_whole(8_000.0, 9_000.0, closing=rules_of("compound-v3"))
    assert (short.credit, short.bad_debt) == (0.0, 1_000.0)


def test_a_vault_of_sky_is_auctioned_for_its_debt_and_the_penalty() -> None:
    got = closing.close_whole(15_000.0, 10_000.0, closing=rules_of("sky"))
    assert got.seized == pytest.approx(11_300.0)  # 13 % on top; the other 3,700 stay the owner's
    assert (got.repaid, got.bad_debt) == (10_000.0, 0.0)
    assert got.penalty == pytest.approx(1_300.0)
    between = closing.close_whole(10_500.0, 10_000.0, closing=rules_of("sky"))
    assert between.penalty == pytest.approx(500.0)
    assert closing.close_whole(9_000.0, 10_000.0, closing=rules_of("sky")).bad_debt == 1_000.0
    with pytest.raises(RuleError, match="above"):
        closing.close_whole(1.0, 0.0, closing=rules_of("sky"))


def test_an_auction_of_sky_comes_down_to_the_price_step_by_step() -> None:
    """Buffer 1.3, cut 0.99, step 90 s: 1.3 * 0.99 ** 26 is above 1, and one step later below."""
    assert closing.auction_delay_us(1.3, 0.99, 90_000_000) == rules_of("sky").delay_us
    assert 1.3 * 0.99**26 > 1.0 > 1.3 * 0.99**27
    assert closing.auction_delay_us(1.0, 0.99, 90_000_000) == 0
    with pytest.raises(RuleError, match="buffer"):
        closing.auction_delay_us(0.9, 0.99, 90_000_000)


def test_a_loan_of_crvusd_stands_on_bands_of_one_per_cent() -> None:
    """N bands of 1 / A: top to bottom is (A / (A - 1)) ** N, around debt / (1 - discount)."""
    ladder = closing.Ladder.of_loan(10.0, 10_000.0, closing=rules_of("crvusd"))
    assert ladder.top / ladder.bottom == pytest.approx((100.0 / 99.0) ** 10)
    assert math.sqrt(ladder.top * ladder.bottom) == pytest.approx(1_000.0 / 0.91)
    assert [ladder.sold(p) for p in (2_000.0, ladder.top, ladder.bottom, 1.0)] == [0, 0, 1, 1]
    assert ladder.loss == 0.01
    with pytest.raises(RuleError, match="bands"):
        closing.Ladder.of_loan(10.0, 10_000.0, closing=rules_of("sky"))


# margin groups


def test_hyperliquid_closes_a_fifth_of_a_large_group_and_all_of_a_small_one() -> None:
    """Docs, Liquidations: over 100,000 USD a fifth; under two thirds of maintenance the vault."""
    rules = rules_of("hyperliquid")
    large = closing.close_group(19_000.0, 20_000.0, 1e6, closing=rules)
    assert (large.share, large.closed, large.fee) == (0.2, 200_000.0, 0.0)
    assert large.next_after_us == 30_000_000
    assert not large.whole
    small = closing.close_group(1_900.0, 2_000.0, 1e5, closing=rules)
    assert small.whole
    assert (small.to_owner, small.to_fund) == (1_900.0, 0.0)
    vault = closing.close_group(13_000.0, 20_000.0, 1e6, closing=rules)
    assert vault.taken_over
    assert (vault.share, vault.to_owner, vault.to_fund) == (1.0, 0.0, 13_000.0)


def test_a_loss_beyond_the_margin_is_left_to_funds_and_winners() -> None:
    got = closing.close_group(-500.0, 1_000.0, 5e4, closing=rules_of("binance-usdm"))
    assert (got.share, got.fee, got.shortfall, got.to_owner) == (1.0, 0.0, 500.0, 0.0)
    rest = closing.close_group(900.0, 1_000.0, 5e4, closing=rules_of("okx"))
    assert (rest.to_owner, rest.to_fund) == (0.0, 900.0)
    assert rest.fee == pytest.approx(25.0)
    sound = closing.close_group(1_000.0, 1_000.0, 5e4, closing=rules_of("okx"))
    assert (sound.share, sound.closed, sound.to_fund) == (0.0, 0.0, 0.0)
    with pytest.raises(RuleError, match="slices"):
        closing.close_group(1.0, 1.0, 1.0, closing=rules_of("sky"))


@given(st.floats(1e-6, 0.5), st.floats(0.02, 0.2))
def test_a_group_closed_to_health_is_the_sizing_of_drift(missing: float, ratio: float) -> None:
    price, size = 100.0, 1_000.0
    asked = ratio * price * size
    got = closing.close_group(
        asked * (1.0 - missing), asked, price * size, closing=rules_of("drift-v2")
    )
    # A health of 1.02, the protocol's buffer, is restored: as if the ratio were that much higher.
    short = (0.02 + missing) * asked
    base = scaled.base_to_cover(short, price, 1.02 * ratio, liquidation_fee=0.01)
    assert got.share * size == pytest.approx(min(base, size))


def test_deribit_reduces_a_group_just_enough() -> None:
    rules = rules_of("deribit")
    got = closing.close_group(95_000.0, 100_000.0, 1e6, closing=rules)
    assert got.share == pytest.approx(7_000.0 / (102_000.0 - 7_500.0))
    left = 95_000.0 - got.fee
    assert left == pytest.approx(102_000.0 * (1.0 - got.share))
    grid = load_profile("deribit").grid
    assert grid is not None
    assert (min(grid.price_moves), max(grid.price_moves)) == (-0.16, 0.16)


def test_a_sizing_without_an_answer_says_so() -> None:
    assert scaled.base_to_cover(10.0, 100.0, 0.01, liquidation_fee=0.02) == math.inf
    assert scaled.base_to_cover(0.0, 100.0, 0.01) == 0.0
    with pytest.raises(RuleError, match="price was 0"):
        scaled.base_to_cover(10.0, 0.0, 0.1)


# what a cascade reads


def test_every_packaged_profile_says_how_it_closes_and_which_legs_it_takes() -> None:
    for name in profile_names():
        profile = load_profile(name)
        assert profile.closing is not None, name
        said = " ".join((*profile.exact, *profile.approximated))
        assert "A liquidation takes" in said or "a liquidation takes that pair" in said, name


VENUES = ("comet", "iso", "lend", "old", "quiet")  # in the order of their codes


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    day = pl.datetime(2025, 12, 1, time_zone="UTC")
    assets = pl.DataFrame({"asset": ["USDC", "ETH"], "symbol": ["USDC", "ETH"],
                           "kind": ["stable", "native"]})  # fmt: skip
    profiles = {"lend": "aave-v3", "iso": "morpho-blue", "comet": "compound-v3",
                "old": "liquity-v1", "quiet": None}  # fmt: skip
    venues = pl.DataFrame(
        {"venue": list(profiles), "kind": "lending", "profile": list(profiles.values())}
    )
    rows = [(f"{v}:{a}", v, a, "reserve", a) for v in profiles for a in ("USDC", "ETH")]
    instruments = pl.DataFrame(
        rows, schema=["instrument", "venue", "symbol", "kind", "asset"], orient="row"
    )
    same = {"inverse": False, "contract_size": 1.0}
    return {
        "assets": assets.with_columns(reference=None, rate=None, ts=day),
        "venues": venues.with_columns(ts=day),
        "instruments": instruments.with_columns(ts=day, **{k: pl.lit(v) for k, v in same.items()}),
    }


def read(tables: dict[str, pl.DataFrame], *params: tuple[Any, ...]) -> closing.ClosingColumns:
    """A loan of ETH against USDC at each venue, under the given numbers beside thresholds."""
    universe = Universe.from_frames(**tables)
    day = pl.datetime(2025, 12, 1, time_zone="UTC")
    venues = ["lend", "iso", "comet", "old"]
    accounts = pl.DataFrame({"account": [1, 2, 3, 4], "venue": venues}).with_columns(
        owner=pl.lit(None, pl.Int64),
        category=pl.lit(None, pl.String),
        mode=pl.lit("cross"),
        ts=day,
        label=pl.lit("desk"),
        margin_group=pl.lit("all"),
    )
    held = pl.DataFrame(
        {
            "account": [1, 1, 2, 2, 3, 3, 4, 4],
            "instrument": [f"{v}:{a}" for v in venues for a in ("ETH", "USDC")],
            "kind": ["collateral", "debt"] * 4,
            "qty": [1.0, -1_000.0] * 4,
        }
    ).with_columns(
        entry=pl.lit(None, pl.Float64), ts=day, source=pl.lit("desk"), evidence=pl.lit("sampled")
    )
    thresholds = [(v, f"{v}:ETH", None, "liquidation_threshold", 0.86) for v in venues[:3]]
    rows = [*thresholds, *params]
    given_ = pl.DataFrame(
        rows, schema=["venue", "instrument", "account", "name", "value"], orient="row"
    ).with_columns(
        ts=day, category=pl.lit(None, pl.String), account=pl.col("account").cast(pl.Int64)
    )
    book = Book.from_frames(universe, accounts, held)
    return closing.closing_columns(Rules.from_frames(universe, TS, given_), book)


def test_a_bonus_is_the_one_given_or_the_incentive_or_the_profiles(tables) -> None:
    plain = read(tables)
    factor = markets.incentive_factor(0.86, rules=lending_of("morpho-blue"))
    assert plain.bonus.tolist() == pytest.approx([0.05, 0, factor - 1, 0, 0.07, 0, 0.1, 0])
    assert dict(zip(VENUES, plain.by_venue.mechanism.tolist(), strict=True)) == {
        "comet": kernel.WHOLE, "iso": kernel.PAIR, "lend": kernel.PAIR, "old": kernel.WHOLE,
        "quiet": kernel.NOTHING,
    }  # fmt: skip
    dated = read(
        tables,
        ("lend", "lend:ETH", None, "liquidation_bonus", 0.06),
        ("lend", "lend:ETH", None, "protocol_fee", 0.2),
        ("comet", "comet:ETH", None, "liquidation_factor", 0.9),
        ("iso", None, 2, "liquidation_bonus", 0.01),
    )
    assert dated.bonus.tolist() == pytest.approx([0.06, 0, 0.01, 0, 0.1, 0, 0.1, 0])
    assert dated.fee.tolist() == [0.2, 0, 0, 0, 0, 0, 0, 0]
    assert not dated.bonus.flags.writeable


def test_a_bonus_that_nobody_gave_leaves_room_under_the_threshold(tables) -> None:
    tight = read(tables, ("lend", None, 1, "liquidation_threshold", 0.96))
    assert tight.bonus[0] == pytest.approx(0.5 * 0.04 / 0.96)
    none = read(tables, ("lend", None, 1, "liquidation_threshold", 0.0))
    assert none.bonus[0] == 0.05


def test_a_venues_number_of_a_date_stands_over_its_profile(tables) -> None:
    plain = read(tables).by_venue
    dated = read(
        tables, ("lend", None, None, "close_factor", 0.25), ("old", None, None, "gas_usd", 30.0)
    ).by_venue
    lend = VENUES.index("lend")
    assert (plain.close_factor[lend], dated.close_factor[lend]) == (0.5, 0.25)
    assert dated.close_factor[VENUES.index("iso")] == 1.0
    assert [v for v, cost in zip(VENUES, dated.gas_usd, strict=True) if cost] == ["old"]
    assert dated.gas_usd.sum() == 30.0
    assert np.array_equal(plain.leftover_usd, dated.leftover_usd)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("lend", "lend:ETH", None, "liquidation_bonus", 0.2), "seizes more"),
        (("lend", None, 1, "liquidation_bonus", 0.2), "no liquidation of it would repair"),
        (("lend", None, None, "target_health", 0.9), "lies between"),
        (("lend", "lend:ETH", None, "close_factor", 0.5), "narrower than a venue"),
        (("lend", None, 1, "target_health", 1.05), "narrower than a venue"),
        (("lend", None, None, "gas_usd", -1.0), "lies between"),
        (("comet", "comet:ETH", None, "liquidation_factor", 93.0), "lies between"),
    ],
)
def test_numbers_under_which_no_liquidation_repairs_are_refused(tables, row, words) -> None:
    with pytest.raises(RuleError, match=words):
        read(tables, row)
