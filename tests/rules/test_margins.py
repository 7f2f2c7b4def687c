"""Every account of a snapshot is judged by its venue's rules, and by hand it comes out the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from undertow.errors import MisalignedState, MissingPrice, RuleError
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state import Claims, Universe

TS = 1_767_225_600_000_000
DAY = pl.datetime(2026, 1, 1, time_zone="UTC")


def params(*rows: tuple[object, ...]) -> pl.DataFrame:
    columns = ["venue", "instrument", "category", "account", "name", "value"]
    types = {
        "instrument": pl.String,
        "category": pl.String,
        "account": pl.Int64,
        "value": pl.Float64,
    }
    return pl.DataFrame(rows, schema=columns, schema_overrides=types, orient="row").with_columns(
        ts=DAY
    )


PARAMS = params(
    ("lend", "lend:ETH", None, None, "liquidation_threshold", 0.83),
    ("lend", "lend:stETH", None, None, "liquidation_threshold", 0.81),
    ("lend", "lend:stETH", "eth-correlated", None, "liquidation_threshold", 0.95),
)
BRACKETS = pl.DataFrame(
    {
        "tier": [0, 1],
        "min_notional": [0.0, 5_000.0],
        "max_notional": [5_000.0, None],
        "rate": [0.01, 0.025],
    }
).with_columns(ts=DAY, instrument=pl.lit("perps:ETH/USDC:USDC"))


@pytest.fixture
def tables(names, holdings, prices) -> dict[str, pl.DataFrame]:
    return {
        **names, **holdings, "prices": prices, "risk_params": PARAMS, "margin_brackets": BRACKETS
    }  # fmt: skip


def judged(tables: dict[str, pl.DataFrame]) -> dict[str, list[object]]:
    return margins(Snapshot.from_tables(tables, TS)).to_polars().to_dict(as_series=False)


def test_by_hand(tables: dict[str, pl.DataFrame]) -> None:
    """10 ETH against 12,000 USDC; 4 ETH short at 2,100 with 3,000; 5 stETH against 4.5 ETH."""
    found = judged(tables)
    assert found["account"] == [11, 12, 13]
    assert found["assets"] == pytest.approx([20_000, 3_000, 11_450])
    assert found["debt"] == pytest.approx([12_000, 0, 9_000])
    profit = -4 * (2_005 - 2_100)
    assert found["equity"] == pytest.approx([8_000, 3_000 + profit, 2_450])
    maintenance = 0.025 * 8_020 - 5_000 * 0.015
    assert found["asked"] == pytest.approx([12_000, maintenance, 9_000])
    assert found["cover"] == pytest.approx([16_600, 3_000 + profit, 0.95 * 11_450])
    assert found["health"] == pytest.approx(
        [16_600 / 12_000, 3_380 / maintenance, 0.95 * 11_450 / 9_000]
    )
    assert found["leverage"] == pytest.approx([20_000 / 8_000, 8_020 / 3_380, 11_450 / 2_450])
    # 16,600 (1 - u) = 12,000; the looped account moves with ETH on both sides, and never breaks.
    assert found["fall"] == [pytest.approx(1 - 12_000 / 16_600), None, None]
    # 3,380 - 8,020 u = 0.025 * 8,020 (1 + u) - 75
    rise = (3_380 - maintenance) / (8_020 * 1.025)
    assert found["rise"] == [None, pytest.approx(rise), None]
    assert found["owner"] == [7, 7, None]
    assert found["breached"] == [False, False, False]


def test_a_number_of_one_account_goes_before_its_category_and_its_market(
    tables: dict[str, pl.DataFrame],
) -> None:
    own = params(("lend", "lend:stETH", None, 13, "liquidation_threshold", 0.5))
    whole = params(("lend", None, None, 11, "liquidation_threshold", 0.6))
    found = judged({**tables, "risk_params": pl.concat([PARAMS, own, whole])})
    assert found["cover"] == pytest.approx([0.6 * 20_000, 3_380, 0.5 * 11_450])
    assert found["breached"] == [False, False, True]
    assert found["fall"][2] == 0.0


def test_an_override_of_an_account_that_is_gone_changes_nothing(
    tables: dict[str, pl.DataFrame],
) -> None:
    own = params(("lend", "lend:ETH", None, 999, "liquidation_threshold", 0.5))
    assert judged({**tables, "risk_params": pl.concat([PARAMS, own])}) == judged(tables)


def test_a_category_may_speak_of_one_instrument_or_of_all(tables: dict[str, pl.DataFrame]) -> None:
    generic = tables["venues"].with_columns(
        profile=pl.col("profile").replace("aave-v3", "generic-lending")
    )
    tables = {**tables, "venues": generic}
    narrow = params(
        ("lend", None, "eth-correlated", None, "liquidation_threshold", 0.90),
        ("lend", "lend:stETH", "eth-correlated", None, "liquidation_threshold", 0.93),
        ("lend", "lend:ETH", None, None, "liquidation_threshold", 0.83),
    )
    found = judged({**tables, "risk_params": narrow})
    assert found["cover"][2] == pytest.approx(0.93 * 11_450)


def test_collateral_of_a_perp_venue_counts_less_its_haircut(
    tables: dict[str, pl.DataFrame],
) -> None:
    cut = params(("perps", "perps:USDC", None, None, "haircut", 0.1))
    found = judged({**tables, "risk_params": pl.concat([PARAMS, cut])})
    assert found["cover"][1] == pytest.approx(0.9 * 3_000 + 380)
    assert found["equity"][1] == pytest.approx(3_380)


def test_tiered_haircuts_count_the_first_part_most(tables: dict[str, pl.DataFrame]) -> None:
    tiers = pl.DataFrame(
        {
            "tier": [0, 1],
            "min_notional": [0.0, 1_000.0],
            "max_notional": [1_000.0, None],
            "rate": [0.95, 0.8],
        }
    ).with_columns(ts=DAY, instrument=pl.lit("perps:USDC"))
    found = judged({**tables, "margin_brackets": pl.concat([BRACKETS, tiers])})
    assert found["cover"][1] == pytest.approx(950 + 0.8 * 2_000 + 380)


def test_a_highest_leverage_serves_where_brackets_are_not_published(
    tables: dict[str, pl.DataFrame],
) -> None:
    plain = params(("perps", "perps:ETH/USDC:USDC", None, None, "maintenance_margin_rate", 0.02))
    found = judged(
        {**tables, "margin_brackets": BRACKETS.clear(), "risk_params": pl.concat([PARAMS, plain])}
    )
    assert found["asked"][1] == pytest.approx(0.02 * 8_020)
    venues = tables["venues"].with_columns(
        profile=pl.when(pl.col("venue") == "perps").then(pl.lit("hyperliquid")).otherwise("profile")
    )
    highest = params(("perps", None, None, None, "max_leverage", 20.0))
    found = judged(
        {
            **tables,
            "venues": venues,
            "margin_brackets": BRACKETS.clear(),
            "risk_params": pl.concat([PARAMS, highest]),
        }
    )
    assert found["asked"][1] == pytest.approx(8_020 / 20 / 2)


def test_a_derivative_without_any_maintenance_is_refused(tables: dict[str, pl.DataFrame]) -> None:
    with pytest.raises(RuleError, match="nothing says what maintenance"):
        judged({**tables, "margin_brackets": BRACKETS.clear()})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("lend", "lend:ETH", None, None, "liquidation_threshold", 83.0), "lies between 0 and 1"),
        (("lend", "perps:USDC", None, None, "haircut", 0.1), "not an instrument of lend"),
        (("lend", "lend:ETH", None, None, "ltv", 0.9), "above the liquidation threshold"),
        (("lend", "lend:ETH", None, None, "liquidation_bonus", 0.25), "seizes more"),
    ],
)
def test_impossible_numbers_are_refused(tables, row, words) -> None:
    given = PARAMS.filter(pl.col("instrument") != "lend:ETH") if "threshold" in row[4] else PARAMS
    with pytest.raises(RuleError, match=words):
        judged({**tables, "risk_params": pl.concat([given, params(row)])})


def test_an_unknown_profile_is_refused(tables: dict[str, pl.DataFrame]) -> None:
    venues = tables["venues"].with_columns(profile=pl.lit("aave-v33"))
    with pytest.raises(RuleError, match="aave-v3"):
        judged({**tables, "venues": venues})


def test_parts_of_different_universes_make_no_snapshot(tables: dict[str, pl.DataFrame]) -> None:
    whole = Snapshot.from_tables(tables, TS)
    other = Universe.empty()
    with pytest.raises(MisalignedState, match="different universes"):
        replace(whole, claims=Claims.from_frames(other))


def test_what_is_held_needs_a_price(tables: dict[str, pl.DataFrame]) -> None:
    some = tables["prices"].filter(pl.col("instrument") != "lend:stETH")
    with pytest.raises(MissingPrice, match="lend:stETH"):
        judged({**tables, "prices": some})


def test_an_empty_book_is_judged_too(tables: dict[str, pl.DataFrame]) -> None:
    found = judged({**tables, "positions": tables["positions"].clear()})
    assert found["equity"] == [0.0, 0.0, 0.0]
    assert found["leverage"] == [None, None, None]


def test_the_distance_brings_every_account_to_its_edge(tables: dict[str, pl.DataFrame]) -> None:
    found = judged(tables)
    for row, (fall, rise) in enumerate(zip(found["fall"], found["rise"], strict=True)):
        for move in (-fall if fall else None, rise):
            if move is None:
                continue
            money = pl.col("instrument").is_in(["lend:USDC", "perps:USDC"])
            moved = tables["prices"].with_columns(
                price=pl.when(money).then("price").otherwise(pl.col("price") * (1 + move))
            )
            again = judged({**tables, "prices": moved})
            assert again["cover"][row] == pytest.approx(again["asked"][row], rel=1e-9)


def test_digest_covers_rules_and_market(tables: dict[str, pl.DataFrame]) -> None:
    one = Snapshot.from_tables(tables, TS)
    assert Snapshot.from_tables(tables, TS).digest == one.digest
    shuffled = {k: v.sample(fraction=1, shuffle=True, seed=1) for k, v in tables.items()}
    assert Snapshot.from_tables(shuffled, TS).digest == one.digest
    other = PARAMS.with_columns(value=pl.col("value") - 0.01)
    assert Snapshot.from_tables({**tables, "risk_params": other}, TS).digest != one.digest
    assert np.isfinite(one.market.mark).all()


def test_terms_of_a_category_are_those_of_its_members(tables: dict[str, pl.DataFrame]) -> None:
    loose = params(("lend", None, "eth-correlated", None, "liquidation_threshold", 0.95))
    with pytest.raises(RuleError, match="name each instrument that is a member"):
        judged({**tables, "risk_params": loose})


def test_what_is_borrowed_on_margin_is_leverage(tables: dict[str, pl.DataFrame]) -> None:
    """6 ETH held against 8,000 USDC borrowed at a perp venue: assets over equity."""
    positions = tables["positions"].filter(pl.col("account") != 12)
    held = tables["positions"][:2].with_columns(
        account=pl.lit(12, pl.Int64),
        instrument=pl.Series(["perps:ETH", "perps:USDC"]),
        kind=pl.lit("cash"),
        qty=pl.Series([6.0, -8_000.0]),
    )
    instruments = pl.concat(
        [
            tables["instruments"],
            tables["instruments"].filter(pl.col("instrument") == "perps:USDC").with_columns(
                instrument=pl.lit("perps:ETH"), symbol=pl.lit("ETH"), asset=pl.lit("ETH")
            ),
        ]
    )  # fmt: skip
    prices = pl.concat(
        [
            tables["prices"],
            tables["prices"][:1].with_columns(instrument=pl.lit("perps:ETH"), kind=pl.lit("index")),
        ]
    )
    found = judged(
        {
            **tables,
            "instruments": instruments,
            "prices": prices,
            "positions": pl.concat([positions, held]),
        }
    )
    assert found["leverage"][1] == pytest.approx(12_000 / 4_000)
    assert found["fall"][1] == pytest.approx(1 - 8_000 / 12_000)


def test_collateral_without_a_threshold_is_refused(tables: dict[str, pl.DataFrame]) -> None:
    some = PARAMS.filter(pl.col("instrument") != "lend:ETH")
    with pytest.raises(RuleError, match="nothing says the liquidation_threshold of lend:ETH"):
        judged({**tables, "risk_params": some})


def test_an_account_may_have_a_maintenance_rate_of_its_own(tables: dict[str, pl.DataFrame]) -> None:
    flat = {**tables, "margin_brackets": BRACKETS.clear()}
    plain = params(("perps", None, None, None, "maintenance_margin_rate", 0.02))
    own = params(("perps", "perps:ETH/USDC:USDC", None, 12, "maintenance_margin_rate", 0.1))
    given = {**flat, "risk_params": pl.concat([PARAMS, plain, own])}
    assert judged(given)["asked"][1] == pytest.approx(0.1 * 8_020)
    with pytest.raises(RuleError, match="margined by brackets"):
        judged({**tables, "risk_params": pl.concat([PARAMS, own])})


def test_a_number_of_an_account_of_another_venue_is_refused(tables) -> None:
    astray = params(("perps", None, None, 11, "haircut", 0.5))
    with pytest.raises(RuleError, match="account 11 is not one of perps"):
        judged({**tables, "risk_params": pl.concat([PARAMS, astray])})


def test_a_number_that_is_read_by_instrument_alone_has_no_owner(tables) -> None:
    own = params(("perps", None, None, 12, "taker_fee", 0.001))
    with pytest.raises(RuleError, match="taker_fee is given to an account"):
        judged({**tables, "risk_params": pl.concat([PARAMS, own])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "portfolio"}, "margined portfolio, which the profile"),
        ({"venue_profile": None}, "no rule profile"),
        ({"venue_profile": "generic-lending"}, "at a venue whose profile knows none"),
        ({"venue_profile": "bybit-isolated-legacy"}, "margined cross, which the profile"),
    ],
)
def test_what_no_rule_of_the_venue_speaks_of_is_refused(tables, change, words) -> None:
    here = pl.col("venue") == "perps"
    if "mode" in change:
        accounts = tables["accounts"].with_columns(
            mode=pl.when(here).then(pl.lit(change["mode"])).otherwise("mode")
        )
        tables = {**tables, "accounts": accounts}
    else:
        venues = tables["venues"].with_columns(
            profile=pl.when(here).then(pl.lit(change["venue_profile"])).otherwise("profile")
        )
        tables = {**tables, "venues": venues}
    with pytest.raises(RuleError, match=words):
        judged(tables)


def test_brackets_of_an_inverse_instrument_are_in_coin(tables: dict[str, pl.DataFrame]) -> None:
    """Face 40,000 USD short at 2,000 is 20 coin: 1 % of it, 4 % of what passes 10 coin."""
    instruments = tables["instruments"].with_columns(inverse=pl.col("kind") == "perp")
    legs = tables["positions"].with_columns(
        qty=pl.when(pl.col("kind") == "perp").then(-40_000.0).otherwise("qty"),
        entry=pl.when(pl.col("kind") == "perp").then(2_500.0).otherwise("entry"),
    )
    prices = tables["prices"].with_columns(
        price=pl.when(pl.col("kind") == "mark").then(2_000.0).otherwise("price")
    )
    tiers = BRACKETS.with_columns(
        min_notional=pl.Series([0.0, 10.0]), max_notional=pl.Series([10.0, None]),
        rate=pl.Series([0.01, 0.04]),
    )  # fmt: skip
    given = {
        **tables, "instruments": instruments, "positions": legs, "prices": prices,
        "margin_brackets": tiers,
    }  # fmt: skip
    found = judged(given)
    profit = -40_000 * (2_000 / 2_500 - 1)
    assert found["equity"][1] == pytest.approx(3_000 + profit)
    assert found["asked"][1] == pytest.approx((0.01 * 10 + 0.04 * 10) * 2_000)
    assert found["notional"][1] == pytest.approx(40_000)
    # Cover falls by 16 USD a USD; what is asked is 0.04 * 40,000 - 0.3 p.
    rise = ((3_000 + profit) - (1_600 - 0.3 * 2_000)) / (16 - 0.3) / 2_000
    assert found["rise"][1] == pytest.approx(rise)


def test_a_price_of_the_present_mark_is_published_but_not_closed_upon(tables) -> None:
    """Hyperliquid in 2023 held maintenance at the present mark in the price that it published."""
    venues = tables["venues"].with_columns(
        profile=pl.col("profile").replace("binance-usdm", "hyperliquid")
    )
    flat = params(("perps", None, None, None, "max_leverage", 50.0))
    given = {
        **tables, "venues": venues, "margin_brackets": BRACKETS.clear(),
        "risk_params": pl.concat([PARAMS, flat]),
    }  # fmt: skip
    early = margins(Snapshot.from_tables(given, 1_680_000_000_000_000))
    assert early.rise[1] == pytest.approx((3_380 - 80.2) / (8_020 * 1.01))


def test_the_digest_sees_every_bit_of_a_bracket(tables: dict[str, pl.DataFrame]) -> None:
    def of(rate: float) -> str:
        one = BRACKETS[:1].with_columns(rate=pl.lit(rate), max_notional=pl.lit(None, pl.Float64))
        return Snapshot.from_tables({**tables, "margin_brackets": one}, TS).digest

    before = np.get_printoptions()["precision"]
    first = of(0.0123456781)
    assert first != of(0.0123456784)
    np.set_printoptions(precision=3)
    try:
        assert of(0.0123456781) == first
    finally:
        np.set_printoptions(precision=before)
