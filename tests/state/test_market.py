"""Every venue judges by the price that it believes."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from undertow.errors import MissingPrice, SchemaError, StateError
from undertow.state import Market, Universe

DAY = pl.datetime(2026, 1, 1, time_zone="UTC")


@pytest.fixture
def market(universe: Universe, prices: pl.DataFrame) -> Market:
    return Market.from_frames(universe, prices)


def test_a_perp_is_judged_by_its_mark_and_a_reserve_by_its_oracle(
    universe: Universe, prices: pl.DataFrame
) -> None:
    both = pl.concat(
        [
            prices,
            prices.filter(pl.col("kind") == "oracle").with_columns(
                kind=pl.lit("mark"), price=pl.lit(5.0)
            ),
        ]
    )
    market = Market.from_frames(universe, both)
    assert market.mark[universe.code("instrument", "lend:ETH")] == 2_000.0
    perp = universe.code("instrument", "perps:ETH/USDC:USDC")
    assert (market.mark[perp], market.index[perp]) == (2_005.0, 2_001.0)


def test_a_price_that_nobody_gave_is_the_next_in_line(universe: Universe, market: Market) -> None:
    perp = universe.code("instrument", "perps:ETH/USDC:USDC")
    assert market.spot[perp] == market.index[perp] == 2_001.0
    cash = universe.code("instrument", "perps:USDC")
    assert market.mark[cash] == 1.0


def test_the_newest_price_holds_whatever_the_row_order(
    universe: Universe, prices: pl.DataFrame, market: Market
) -> None:
    older = prices.with_columns(ts=DAY - pl.duration(days=1), price=pl.lit(1.5))
    mixed = pl.concat([prices, older]).sample(fraction=1, shuffle=True, seed=5)
    assert Market.from_frames(universe, mixed).digest == market.digest


def test_what_is_held_needs_a_price(universe: Universe, prices: pl.DataFrame) -> None:
    market = Market.from_frames(universe, prices.filter(pl.col("instrument") != "lend:ETH"))
    code = universe.code("instrument", "lend:ETH")
    with pytest.raises(MissingPrice, match="lend:ETH"):
        market.require_prices(np.array([code], dtype=np.int32))
    market.require_prices(np.array([code + 1], dtype=np.int32))


def test_depth_of_a_band_becomes_the_e_fold_quantity_of_the_thinner_side(
    universe: Universe, prices: pl.DataFrame
) -> None:
    name = "perps:ETH/USDC:USDC"
    depth = pl.DataFrame(
        {
            "instrument": [name] * 4,
            "side": ["bid", "bid", "ask", "ask"],
            "band": [0.01, 0.05, 0.01, 0.05],
            "qty": [100.0, 900.0, 80.0, 700.0],
        }
    ).with_columns(ts=DAY, source=pl.lit("test"))
    market = Market.from_frames(universe, prices, depth)
    found = market.depth[universe.code("instrument", name)]
    assert found == pytest.approx(700.0 / -math.log(0.95))
    assert market.depth[universe.code("instrument", "lend:ETH")] == 0.0
    stated = depth.with_columns(band=pl.lit(1.0)).unique(
        ["side"], keep="first", maintain_order=True
    )
    again = Market.from_frames(universe, prices, stated)
    assert again.depth[universe.code("instrument", name)] == 80.0


def test_an_option_takes_its_own_volatility_before_that_of_its_asset() -> None:
    day = pl.datetime(2026, 6, 26, time_zone="UTC")
    assets = pl.DataFrame({"asset": ["ETH"], "symbol": ["ETH"], "kind": ["native"]})
    venues = pl.DataFrame({"venue": ["opt"], "kind": ["options"]})
    instruments = pl.DataFrame(
        {
            "instrument": ["opt:ETH-3000-C", "opt:ETH-3500-C"],
            "symbol": ["a", "b"],
            "strike": [3000.0, 3500.0],
        }
    ).with_columns(
        venue=pl.lit("opt"), kind=pl.lit("option"), asset=pl.lit("ETH"), inverse=False,
        contract_size=1.0, expiry=day, option_type=pl.lit("call"),
    )  # fmt: skip
    universe = Universe.from_frames(
        *(t.with_columns(ts=DAY) for t in (assets, venues, instruments))
    )
    prices = pl.DataFrame({"instrument": ["opt:ETH-3000-C"], "kind": ["mark"], "price": [90.0]})
    vols = pl.DataFrame({"expiry": [None, 1], "strike": [None, 3000.0], "vol": [0.6, 0.75]})
    vols = vols.with_columns(
        ts=DAY, venue=pl.lit("opt"), asset=pl.lit("ETH"), source=pl.lit("t"),
        expiry=pl.when(pl.col("expiry") == 1).then(day),
    )  # fmt: skip
    market = Market.from_frames(
        universe, prices.with_columns(ts=DAY, source=pl.lit("t")), implied_vols=vols
    )
    assert market.vol.tolist() == [0.75, 0.6]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"price": -1.0}, SchemaError),
        ({"price": float("nan")}, SchemaError),
        ({"kind": "guess"}, SchemaError),
        ({"instrument": "lend:XYZ"}, StateError),
    ],
)
def test_a_bad_price_is_refused(
    universe: Universe, prices: pl.DataFrame, change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Market.from_frames(
            universe, prices.with_columns(**{k: pl.lit(v) for k, v in change.items()})
        )
