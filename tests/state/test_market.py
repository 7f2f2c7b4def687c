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
    assert found == pytest.approx(700.0 / math.log(1.05))
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
            universe, prices[:1].with_columns(**{k: pl.lit(v) for k, v in change.items()})
        )


def test_two_prices_of_one_source_at_one_instant_are_refused(
    universe: Universe, prices: pl.DataFrame
) -> None:
    twice = pl.concat([prices, prices[:1].with_columns(price=pl.lit(5.0))])
    with pytest.raises(SchemaError, match="stands already"):
        Market.from_frames(universe, twice)


def test_sources_that_disagree_are_believed_in_one_order(
    universe: Universe, prices: pl.DataFrame
) -> None:
    other = prices.with_columns(price=pl.col("price") * 2, source=pl.lit("zzz"))
    both = pl.concat([prices, other])
    one = Market.from_frames(universe, both)
    two = Market.from_frames(universe, both.reverse())
    assert one.digest == two.digest
    assert one.mark[universe.code("instrument", "lend:ETH")] == 4_000.0


EXPIRY = pl.datetime(2026, 6, 26, time_zone="UTC")


def _chain(*prices: tuple[str, str, float], vols: list[tuple[object, ...]]) -> Market:
    """Two ETH calls, a future of their expiry and a perp at one venue, another perp elsewhere."""
    assets = pl.DataFrame({"asset": ["ETH"], "symbol": ["ETH"], "kind": ["native"]})
    venues = pl.DataFrame({"venue": ["opt", "a-perps"], "kind": ["options", "perp"]})
    rows = [
        ("opt:C3", "opt", "option", 3_000.0),
        ("opt:C4", "opt", "option", 4_000.0),
        ("opt:F", "opt", "future", None),
        ("opt:PERP", "opt", "perp", None),
        ("a-perps:ETH", "a-perps", "perp", None),
    ]
    instruments = pl.DataFrame(rows, schema=["instrument", "venue", "kind", "strike"], orient="row")
    instruments = instruments.with_columns(
        symbol=pl.col("instrument"),
        asset=pl.lit("ETH"),
        inverse=False,
        contract_size=1.0,
        expiry=pl.when(pl.col("kind") != "perp").then(EXPIRY),
        option_type=pl.when(pl.col("kind") == "option").then(pl.lit("call")),
    )
    universe = Universe.from_frames(
        *(t.with_columns(ts=DAY) for t in (assets, venues, instruments))
    )
    given = pl.DataFrame(
        prices,
        schema={"instrument": pl.String, "kind": pl.String, "price": pl.Float64},
        orient="row",
    )
    columns = ["venue", "dated", "strike", "vol", "forward"]
    smile = pl.DataFrame(vols, schema=columns, orient="row", infer_schema_length=None).select(
        "venue",
        "vol",
        pl.col("strike").cast(pl.Float64),
        pl.col("forward").cast(pl.Float64),
        asset=pl.lit("ETH"),
        expiry=pl.when("dated").then(EXPIRY),
        ts=DAY,
        source=pl.lit("t"),
    )
    return Market.from_frames(
        universe, given.with_columns(ts=DAY, source=pl.lit("t")), implied_vols=smile
    )


def test_an_option_is_written_on_its_own_forward() -> None:
    perps = [("a-perps:ETH", "mark", 2_900.0), ("opt:PERP", "mark", 3_000.0)]
    future = [("opt:F", "mark", 3_100.0), ("opt:F", "index", 3_000.0)]
    own = [("opt:C3", "index", 3_400.0)]
    level: list[tuple[object, ...]] = [("opt", False, None, 0.6, None)]
    stated = [*level, ("opt", True, 3_000.0, 0.7, 3_200.0)]
    code = 1  # opt:C3, after a-perps:ETH in the alphabet
    assert _chain(perps[0], vols=level).index[code] == 2_900.0
    assert _chain(*perps, vols=level).index[code] == 3_000.0
    assert _chain(*perps, *future, vols=level).index[code] == 3_100.0
    assert _chain(*perps, *future, vols=stated).index[code] == 3_200.0
    assert _chain(*perps, *future, *own, vols=stated).index[code] == 3_400.0
    assert _chain(vols=level).index[code] == 0.0


def test_the_nearest_volatility_counts() -> None:
    price = ("opt:PERP", "mark", 3_000.0)
    far = ("a-perps", False, None, 0.9, None)
    assert _chain(price, vols=[far]).vol[1:3].tolist() == [0.9, 0.9]
    near = ("opt", False, None, 0.6, None)
    assert _chain(price, vols=[near, far]).vol[1:3].tolist() == [0.6, 0.6]
    term = ("opt", True, None, 0.65, None)
    assert _chain(price, vols=[near, far, term]).vol[1:3].tolist() == [0.65, 0.65]
    point = ("opt", True, 3_000.0, 0.7, None)
    assert _chain(price, vols=[near, far, term, point]).vol[1:3].tolist() == [0.7, 0.65]
