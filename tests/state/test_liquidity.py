"""What a snapshot knows of where sales can go, which prices are believed and what stands ready."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import MisalignedState, MissingPrice, SchemaError, StateError
from undertow.kernels import impact
from undertow.state import Book, FreeAssets, Funds, Ladders, Liquidity, Market, Oracles, Universe
from undertow.state.oracles import LAGGED, MARKET, ORACLE_MODES
from undertow.state.universe import NONE
from undertow.worlds.frames import from_tuples

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TS = int(NOW.timestamp()) * 1_000_000
PERP = "perps:ETH/USDC:USDC"


def table(name: str, columns: str, *tuples: tuple[Any, ...], **rest: Any) -> pl.DataFrame:
    names = tuple(columns.split())
    constants = rest if "ts" in names else {"ts": TS, **rest}
    return from_tuples(name, names, list(tuples), **constants)


def depth_rows(*tuples: tuple[str, float, float], **rest: Any) -> pl.DataFrame:
    return table("depth", "side band qty", *tuples, instrument=PERP, **rest)


def volume_rows(*tuples: tuple[float, float, float], **rest: Any) -> pl.DataFrame:
    """Rows of (hours before now that the span began, its length in hours, base)."""
    spans = [
        (TS - round(before * 3.6e9), round(hours * 3.6e9), base) for before, hours, base in tuples
    ]
    return table("volumes", "ts interval_us base", *spans, **{"instrument": PERP, **rest})


def pool_rows(*tuples: tuple[Any, ...], **rest: Any) -> pl.DataFrame:
    names = "pool model side level price qty quote_qty"
    constants = {"venue": "perps", "asset": "ETH", "quote": "USDC", "fee": 0.003}
    return table("pools", names, *tuples, **{**constants, **rest})


def built(universe: Universe, **tables: pl.DataFrame) -> Liquidity:
    return Liquidity.from_frames(universe, TS, **tables)


def code(universe: Universe, instrument: str = PERP) -> int:
    return universe.code("instrument", instrument)


def test_without_tables_there_is_nothing_to_sell_into(universe: Universe) -> None:
    nothing = built(universe)
    assert len(nothing.pools) == len(nothing.ladders.reach) == 0
    assert not nothing.daily.any()
    assert not nothing.supplied.any()
    assert nothing.ladders.start.tolist() == [0] * (2 * len(universe.instruments) + 1)
    assert repr(nothing) == "Liquidity(0 ladders, 0 volumes, 0 reserves, 0 pools)"


def test_bands_become_a_ladder_with_each_band_at_its_far_edge(universe: Universe) -> None:
    rows = depth_rows(
        ("bid", 0.02, 30.0), ("bid", 0.01, 10.0), ("bid", 1.0, 900.0),
        ("ask", 0.01, 8.0), ("ask", 0.05, 8.0),
    )  # fmt: skip
    ladders = built(universe, depth=rows).ladders
    reach, ratio = ladders.levels(code(universe))
    assert (reach.tolist(), ratio.tolist()) == ([10.0, 30.0], [0.99, 0.98])
    reach, ratio = ladders.levels(code(universe), sold=False)
    assert (reach.tolist(), ratio.tolist()) == ([8.0], [1.01])  # nothing rests beyond 1 %


def test_a_ladder_is_what_the_impact_kernels_walk(universe: Universe) -> None:
    """A book as dense as its e-fold depth says falls on along exp(-q / d) past its last band."""
    bands = [(side, b, -math.log1p(-b) * 50.0) for side in ("bid", "ask") for b in (0.01, 0.02)]
    ladders = built(universe, depth=depth_rows(*bands)).ladders
    count, k = len(universe.instruments), code(universe)
    zeros = [np.zeros(count) for _ in range(5)]
    pools = impact.Pools(np.full(count, impact.LADDER, dtype=np.int8), *zeros, *ladders.columns)
    assert impact.multiplier(k, 25.0, pools) == pytest.approx(math.exp(-0.5), rel=1e-12)
    assert impact.multiplier(k, bands[0][2], pools) == pytest.approx(0.99)
    assert impact.multiplier(k - 1, 25.0, pools) == 1.0


def test_only_bands_of_one_instant_make_a_ladder(universe: Universe) -> None:
    older = depth_rows(("bid", 0.01, 99.0), ("bid", 0.1, 100.0), ts=TS - 1)
    newer = depth_rows(("bid", 0.01, 5.0), ("bid", 0.02, 9.0))
    ladders = built(universe, depth=pl.concat([newer, older])).ladders
    assert ladders.levels(code(universe))[0].tolist() == [5.0, 9.0]


def test_a_wider_band_cannot_hold_less(universe: Universe) -> None:
    with pytest.raises(StateError, match="holds less within 0"):
        built(universe, depth=depth_rows(("bid", 0.01, 5.0), ("bid", 0.02, 4.0)))


def test_levels_are_laid_out_alike_whatever_their_order() -> None:
    side, qty = np.array([3, 0, 0, 3, 0]), np.array([1.0, 2.0, 4.0, 3.0, 0.0])
    ratio = np.array([1.1, 0.8, 0.9, 1.1, 0.7])
    ladders = Ladders.from_levels(2, side, qty, ratio)
    assert ladders.start.tolist() == [0, 2, 2, 2, 3]
    assert ladders.reach.tolist() == [4.0, 6.0, 4.0]  # one price, one level; empty ones go
    assert ladders.ratio.tolist() == [0.9, 0.8, 1.1]
    again = Ladders.from_levels(2, side[::-1], qty[::-1], ratio[::-1])
    assert all((a == b).all() for a, b in zip(ladders.columns, again.columns, strict=True))


@pytest.mark.parametrize(
    ("spans", "daily"),
    [
        ([(24, 24, 60.0)], 60.0),
        ([(1, 1, 5.0)], 120.0),  # an hour, on at its pace
        ([(168, 168, 70.0)], 10.0),  # a week
        ([(h, 1, float(h)) for h in range(1, 30)], 300.0),  # the last 24 of 29 hours
        ([(48, 24, 60.0)], 60.0),  # yesterday's is the newest
        ([(12, 24, 60.0)], 0.0),  # not over yet
        ([(24 * 40, 24, 60.0)], 0.0),  # long ago
        ([(24, 24, 0.0)], 0.0),
    ],
)
def test_volumes_of_any_span_are_made_a_day(
    universe: Universe, spans: list[tuple[float, float, float]], daily: float
) -> None:
    rows = volume_rows(*spans)
    assert built(universe, volumes=rows).daily[code(universe)] == pytest.approx(daily, rel=1e-12)
    assert built(universe, volumes=rows.reverse()).digest == built(universe, volumes=rows).digest


def test_two_sources_of_volume_are_not_added_up(universe: Universe) -> None:
    other = volume_rows((25, 24, 10.0), source="another")
    rows = pl.concat([other, volume_rows((24, 24, 60.0))])
    assert built(universe, volumes=rows).daily[code(universe)] == 60.0


def test_a_span_longer_than_time_is_not_counted(universe: Universe) -> None:
    rows = volume_rows((24, 24, 60.0)).with_columns(interval_us=pl.lit(2**63 - 1))
    assert built(universe, volumes=rows).daily[code(universe)] == 0.0


def test_the_newest_state_of_a_reserve_holds(universe: Universe) -> None:
    columns = "ts supplied borrowed"
    rows = table("reserves", columns, (TS, 90.0, 40.0), (TS - 1, 10.0, 1.0), instrument="lend:ETH")
    found, k = built(universe, reserves=rows), code(universe, "lend:ETH")
    assert (found.supplied[k], found.borrowed[k]) == (90.0, 40.0)
    assert found.supplied.sum() == 90.0


def test_pools_are_read_by_what_they_are(universe: Universe) -> None:
    found = built(
        universe,
        pools=pool_rows(
            ("swap", "constant_product", None, 0, 2_000.0, 100.0, 200_000.0),
            ("curve", "exponential", None, 0, 2_001.0, 70.0, None),
            ("root", "square_root", None, 0, 2_001.0, 30.0, None),
            ("empty", "linear", None, 0, 2_000.0, 0.0, None),
        ),
    )
    assert found.pools == ("curve", "root", "swap")
    assert found.model.tolist() == [impact.EXPONENTIAL, impact.SQRT, impact.CONSTANT_PRODUCT]
    assert found.depth.tolist() == [70.0, 30.0, 50.0]  # half a reserve is an e-fold at the margin
    assert found.reserve.tolist() == [0.0, 0.0, 100.0]
    assert found.quote_reserve.tolist() == [0.0, 0.0, 200_000.0]
    assert found.fee.tolist() == [0.003] * 3
    assert {universe.assets[a] for a in found.asset} == {"ETH"}


def test_the_levels_of_a_book_are_set_around_its_mid(universe: Universe) -> None:
    found = built(
        universe,
        pools=pool_rows(
            ("book", "ladder", "bid", 0, 1_990.0, 3.0, None),
            ("book", "ladder", "bid", 1, 1_980.0, 4.0, None),
            ("book", "ladder", "ask", 0, 2_010.0, 5.0, None),
            ("lone", "ladder", "bid", 0, 1_000.0, 1.0, None),
            ("lone", "ladder", "bid", 1, 900.0, 1.0, None),
        ),
    )
    assert found.price.tolist() == [2_000.0, 1_000.0]
    reach, ratio = found.books.levels(0)
    assert (reach.tolist(), ratio.tolist()) == ([3.0, 7.0], [0.995, 0.99])
    assert found.books.levels(0, sold=False)[1].tolist() == [1.005]
    assert found.books.levels(1)[1].tolist() == [1.0, 0.9]  # one side only: around its best
    assert found.depth.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("tuples", "words"),
    [
        ([("b", "ladder", "bid", 0, 9.0, 1.0, None), ("b", "ladder", "ask", 0, 9.0, 1.0, None)],
         "crossed: a bid at or above an ask"),
        ([("b", "ladder", None, 0, 9.0, 1.0, None)], "a level without a side"),
        ([("b", "linear", None, 0, 9.0, 1.0, None), ("b", "linear", None, 1, 9.0, 1.0, None)],
         "several rows"),
        ([("b", "ladder", "bid", 0, 9.0, 1.0, None), ("b", "linear", None, 1, 9.0, 1.0, None)],
         "described in two ways"),
    ],
)  # fmt: skip
def test_rows_of_a_pool_that_contradict_each_other_are_refused(
    universe: Universe, tuples: list[tuple[Any, ...]], words: str
) -> None:
    with pytest.raises(StateError, match=words):
        built(universe, pools=pool_rows(*tuples))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("depth", depth_rows(("bid", 0.1, 1.0)).with_columns(instrument=pl.lit("perps:X"))),
        ("volumes", volume_rows((24, 24, 1.0), instrument="perps:X")),
        ("pools", pool_rows(("b", "linear", None, 0, 9.0, 1.0, None), asset="X")),
        ("pools", pool_rows(("b", "linear", None, 0, 9.0, 1.0, None), venue="X")),
    ],
)
def test_unknown_names_are_refused(universe: Universe, name: str, rows: pl.DataFrame) -> None:
    with pytest.raises(StateError, match="is called"):
        built(universe, **{name: rows})


def test_each_of_its_tables_is_in_the_digest(universe: Universe) -> None:
    tables = {
        "depth": depth_rows(("bid", 0.1, 1.0)),
        "volumes": volume_rows((24, 24, 1.0)),
        "reserves": table("reserves", "supplied borrowed", (9.0, 4.0), instrument="lend:ETH"),
        "pools": pool_rows(("b", "ladder", "bid", 0, 9.0, 1.0, None)),
    }
    digests = {built(universe).digest, built(universe, **tables).digest}
    digests |= {built(universe, **{name: rows}).digest for name, rows in tables.items()}
    assert len(digests) == 6


def test_the_market_at_once_is_the_oracle_of_whoever_names_none(universe: Universe) -> None:
    found = Oracles.from_frames(universe)
    assert set(found.mode) == {MARKET}
    assert set(found.feed) == {NONE}
    assert not found.lag_us.any()
    assert repr(found) == f"Oracles({len(universe.instruments)} market)"


def test_an_oracle_keeps_what_is_said_of_it(universe: Universe) -> None:
    rows = table(
        "oracles",
        "ts instrument mode feed deviation lag_us heartbeat_us",
        (TS - 9, "lend:ETH", "frozen", None, None, None, None),
        (TS, "lend:ETH", "lagged", PERP, 0.005, 60, 3_600),
        (TS, "lend:stETH", "exchange_rate", None, None, None, None),
        venue="lend",
    )
    found, k = Oracles.from_frames(universe, rows), code(universe, "lend:ETH")
    assert (found.mode[k], found.feed[k], found.deviation[k]) == (LAGGED, code(universe), 0.005)
    assert (found.lag_us[k], found.heartbeat_us[k]) == (60, 3_600)
    tied = found.mode[code(universe, "lend:stETH")]
    assert ORACLE_MODES[tied] == "exchange_rate"
    assert found.digest != Oracles.from_frames(universe).digest


def test_an_oracle_is_of_the_venue_that_judges_by_it(universe: Universe) -> None:
    rows = table("oracles", "venue instrument mode", ("perps", "lend:ETH", "market"))
    with pytest.raises(StateError, match="an instrument of lend, not of perps"):
        Oracles.from_frames(universe, rows)
    rows = table("oracles", "venue instrument mode feed", ("lend", "lend:ETH", "market", "no:X"))
    with pytest.raises(StateError, match="no feed is called"):
        Oracles.from_frames(universe, rows)


def test_a_venue_without_funds_has_none_and_liquidators_without_end(universe: Universe) -> None:
    rows = table(
        "venue_funds",
        "ts venue kind amount_usd",
        (TS - 1, "perps", "insurance", 1.0),
        (TS, "perps", "insurance", 700.0),
        (TS, "perps", "treasury", 50.0),
        (TS, "lend", "liquidator_capacity", 1_000.0),
    )
    found = Funds.from_frames(universe, rows)
    lend, perps = (universe.code("venue", name) for name in ("lend", "perps"))
    assert (found.insurance[perps], found.insurance[lend]) == (700.0, 0.0)
    assert (found.treasury[perps], found.backstop[perps]) == (50.0, 0.0)
    assert found.liquidator_capacity[[lend, perps]].tolist() == [1_000.0, math.inf]
    assert found.digest != Funds.from_frames(universe).digest
    assert math.isinf(Funds.from_frames(universe).liquidator_capacity.min())


@pytest.fixture
def book(universe: Universe, holdings: dict[str, pl.DataFrame]) -> Book:
    return Book.from_frames(universe, holdings["accounts"], holdings["positions"])


def free_rows(*tuples: tuple[Any, ...], **rest: Any) -> pl.DataFrame:
    return table("free_assets", "owner asset qty", *tuples, **rest)


def test_free_assets_are_of_owners_in_the_book(
    book: Book, universe: Universe, prices: pl.DataFrame
) -> None:
    rows = free_rows((7, "USDC", 100.0), (7, "ETH", 2.0), (8, "USDC", 5.0))
    found = FreeAssets.from_frames(book, rows)
    assert (len(found), found.owners) == (2, 2)
    assert book.owners[found.owner].tolist() == [7, 7]
    held = found.usd_by_owner(Market.from_frames(universe, prices))
    assert held.tolist() == [100.0 + 2.0 * 2_000.0, 0.0]
    assert found.digest == FreeAssets.from_frames(book, rows.reverse()).digest
    assert found.digest != FreeAssets.from_frames(book).digest


def test_sources_that_each_see_a_part_of_what_is_free_add_up(
    book: Book, universe: Universe, prices: pl.DataFrame
) -> None:
    rows = pl.concat([free_rows((7, "USDC", 1.0)), free_rows((7, "USDC", 2.0), source="another")])
    found = FreeAssets.from_frames(book, rows)
    assert found.usd_by_owner(Market.from_frames(universe, prices)).tolist() == [3.0, 0.0]


def test_an_owner_that_nobody_knows_has_nothing_free(book: Book) -> None:
    assert book.owners.tolist() == [7, -1]
    assert len(FreeAssets.from_frames(book, free_rows((-1, "USDC", 5.0)))) == 0


def test_free_assets_without_a_price_are_not_counted_as_nothing(
    book: Book, universe: Universe, prices: pl.DataFrame
) -> None:
    found = FreeAssets.from_frames(book, free_rows((7, "BTC", 1.0)))
    with pytest.raises(MissingPrice, match="BTC"):
        found.usd_by_owner(Market.from_frames(universe, prices))
    with pytest.raises(MisalignedState, match="different universes"):
        found.usd_by_owner(Market.from_frames(Universe.empty(), prices.clear()))


def test_a_table_that_does_not_fit_is_refused(book: Book) -> None:
    with pytest.raises(SchemaError, match="below 0"):
        FreeAssets.from_frames(book, free_rows((7, "USDC", -1.0)))
    twice = free_rows((7, "USDC", 1.0), (7, "USDC", 2.0))
    with pytest.raises(SchemaError, match="stands already"):
        FreeAssets.from_frames(book, twice)
