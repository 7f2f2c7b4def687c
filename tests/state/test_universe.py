"""Names become codes in one way only."""

from __future__ import annotations

import polars as pl
import pytest

from undertow.errors import SchemaError, StateError
from undertow.state import Universe
from undertow.state.universe import NEVER, NONE


def test_codes_follow_the_alphabet_whatever_the_row_order(
    names: dict[str, pl.DataFrame], universe: Universe
) -> None:
    assert universe.assets == ("BTC", "ETH", "USDC", "stETH")
    shuffled = {k: v.sample(fraction=1, shuffle=True, seed=3) for k, v in names.items()}
    assert Universe.from_frames(**shuffled) == universe
    assert hash(Universe.from_frames(**shuffled)) == hash(universe)


def test_references_lead_to_codes(universe: Universe) -> None:
    steth = universe.code("asset", "stETH")
    assert universe.assets[universe.reference[steth]] == "ETH"
    assert universe.reference_rate[steth] == 1.15
    assert universe.reference[universe.code("asset", "BTC")] == NONE
    perp = universe.code("instrument", "perps:ETH/USDC:USDC")
    assert universe.venues[universe.venue_of[perp]] == "perps"
    assert universe.assets[universe.asset_of[perp]] == "ETH"
    assert universe.expiry[perp] == NEVER
    assert universe.stable.tolist() == [False, False, True, False]


def test_an_unknown_name_is_met_with_the_nearest_ones(universe: Universe) -> None:
    with pytest.raises(StateError, match="did you mean stETH"):
        universe.code("asset", "stETHH")


def test_a_universe_that_differs_in_one_reference_is_another(
    names: dict[str, pl.DataFrame], universe: Universe
) -> None:
    other = names["assets"].with_columns(rate=pl.lit(1.0))
    assert Universe.from_frames(other, names["venues"], names["instruments"]) != universe


@pytest.mark.parametrize(
    ("table", "column"),
    [("assets", "issuer"), ("assets", "custodian"), ("assets", "chain"), ("venues", "chain")],
)
def test_who_keeps_an_asset_and_what_runs_where_is_part_of_it(
    names: dict[str, pl.DataFrame], universe: Universe, table: str, column: str
) -> None:
    first = pl.int_range(pl.len()) == 0
    told = names[table].with_columns(pl.when(first).then(pl.lit("Somebody")).alias(column))
    other = Universe.from_frames(**{**names, table: told})
    field = "venue_chain" if table == "venues" else column
    said = sorted(getattr(other, field))
    assert said == [""] * (len(said) - 1) + ["Somebody"]
    assert other != universe


def test_an_empty_universe_is_one() -> None:
    assert Universe.empty().assets == ()


def test_an_asset_cannot_follow_itself(names: dict[str, pl.DataFrame]) -> None:
    circle = names["assets"].with_columns(
        reference=pl.col("asset").replace_strict(
            {"ETH": "stETH", "stETH": "ETH"}, default=None, return_dtype=pl.String
        )
    )
    with pytest.raises(StateError, match="follows itself"):
        Universe.from_frames(circle, names["venues"], names["instruments"])


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("assets", {"reference": "WETH"}, "no reference is called 'WETH'"),
        ("instruments", {"asset": "DOGE"}, "no asset is called 'DOGE'"),
        ("instruments", {"venue": "dex"}, "no venue is called 'dex'"),
        ("instruments", {"kind": "option"}, "lacks its strike, expiry or type"),
        ("instruments", {"contract_size": 0.0}, "not above 0"),
        ("venues", {"kind": "casino"}, "'casino' is none of"),
        ("venues", {"venue": "../etc"}, "a name may not hold"),
        ("venues", {"venue": ""}, "a name is needed"),
    ],
)
def test_a_bad_name_is_refused(
    names: dict[str, pl.DataFrame], table: str, change: dict[str, object], words: str
) -> None:
    changed = names[table].with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in change.items()
    )
    with pytest.raises((StateError, SchemaError), match=words):
        Universe.from_frames(**{**names, table: changed})


def test_a_name_that_stands_twice_is_refused(names: dict[str, pl.DataFrame]) -> None:
    later = names["assets"][:1].with_columns(ts=pl.datetime(2026, 2, 1, time_zone="UTC"))
    with pytest.raises(StateError, match="'USDC' stands more than once"):
        Universe.from_frames(
            pl.concat([names["assets"], later]), names["venues"], names["instruments"]
        )
