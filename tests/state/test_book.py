"""A book is laid out by what is held, and by nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import SchemaError, StateError
from undertow.state import Book, Universe
from undertow.state.book import UNKNOWN_OWNER


@pytest.fixture(scope="module")
def book(universe: Universe, holdings: dict[str, pl.DataFrame]) -> Book:
    return Book.from_frames(universe, **holdings)


def test_accounts_of_one_owner_stand_together_and_unowned_ones_last(book: Book) -> None:
    assert book.account.tolist() == [11, 12, 13]
    assert book.owner.tolist() == [0, 0, 1]
    assert book.owners.tolist() == [7, UNKNOWN_OWNER]
    assert book.offset.tolist() == [0, 2, 4, 6]


def test_unowned_accounts_are_each_their_own_owner(
    universe: Universe, holdings: dict[str, pl.DataFrame]
) -> None:
    alone = holdings["accounts"].with_columns(owner=pl.lit(None, pl.Int64))
    book = Book.from_frames(universe, alone, holdings["positions"])
    assert book.owner.tolist() == [0, 1, 2]
    assert book.owners.tolist() == [UNKNOWN_OWNER] * 3


def test_legs_stand_by_instrument_within_their_account(book: Book) -> None:
    shown = book.to_polars()
    assert shown["account"].to_list() == [11, 11, 12, 12, 13, 13]
    assert shown["instrument"].to_list() == [
        "lend:ETH", "lend:USDC", "perps:ETH/USDC:USDC", "perps:USDC", "lend:ETH", "lend:stETH",
    ]  # fmt: skip
    assert shown["entry"].to_list() == [0.0, 0.0, 2_100.0, 0.0, 0.0, 0.0]


@given(
    seed=st.integers(0, 2**32 - 1),
    chunks=st.integers(1, 4),
    narrow=st.booleans(),
    column_order=st.permutations(range(8)),
)
def test_same_bits_for_any_row_order_chunking_and_number_type(
    universe: Universe,
    holdings: dict[str, pl.DataFrame],
    book: Book,
    seed: int,
    chunks: int,
    narrow: bool,
    column_order: list[int],
) -> None:
    accounts = holdings["accounts"].sample(fraction=1, shuffle=True, seed=seed)
    positions = holdings["positions"].sample(fraction=1, shuffle=True, seed=seed + 1)
    positions = positions.select([positions.columns[i] for i in column_order])
    size = -(-positions.height // chunks)
    positions = pl.concat([positions[i : i + size] for i in range(0, 6, size)], rechunk=False)
    if narrow:
        positions = positions.with_columns(
            pl.col("account").cast(pl.Int16), pl.col("qty", "entry").cast(pl.Float32)
        )
        accounts = accounts.with_columns(pl.col("account", "owner").cast(pl.UInt8))
    again = Book.from_frames(universe, accounts, positions)
    assert again.digest == book.digest


def test_any_table_that_speaks_arrow_will_do(
    universe: Universe, holdings: dict[str, pl.DataFrame], book: Book, tmp_path
) -> None:
    holdings["positions"].write_parquet(tmp_path / "positions.parquet")
    forms = [
        tmp_path / "positions.parquet",
        str(tmp_path / "positions.parquet"),
        holdings["positions"].lazy(),
        holdings["positions"].to_arrow(),
        pa.table(holdings["positions"]).to_pandas(),
        holdings["positions"].to_dict(),
    ]
    assert isinstance(forms[4], pd.DataFrame)
    for form in forms:
        assert Book.from_frames(universe, holdings["accounts"], form).digest == book.digest


def test_columns_cannot_be_written(book: Book) -> None:
    for column in (book.account, book.offset, book.qty, book.inst, book.owner):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_input_arrays_can_be_written_afterwards_without_changing_the_book(
    universe: Universe, holdings: dict[str, pl.DataFrame], book: Book
) -> None:
    qty = np.array(holdings["positions"]["qty"].to_list())
    frame = holdings["positions"].with_columns(pl.Series("qty", qty))
    built = Book.from_frames(universe, holdings["accounts"], frame)
    qty[:] = 0.0
    assert built.digest == book.digest


def test_an_empty_book_is_a_book(universe: Universe, holdings: dict[str, pl.DataFrame]) -> None:
    book = Book.from_frames(universe, holdings["accounts"].clear(), holdings["positions"].clear())
    assert (len(book), book.accounts, book.offset.tolist()) == (0, 0, [0])


def test_an_account_without_positions_stays(
    universe: Universe, holdings: dict[str, pl.DataFrame]
) -> None:
    few = holdings["positions"].filter(pl.col("account") != 12)
    book = Book.from_frames(universe, holdings["accounts"], few)
    assert book.offset.tolist() == [0, 2, 2, 4]


FAULTS = {
    "unknown account": ({"account": 99}, "no account has the key 99"),
    "unknown instrument": ({"instrument": "lend:WBTC"}, "no instrument is called 'lend:WBTC'"),
    "instrument of another venue": ({"instrument": "perps:USDC"}, "of another venue"),
    "positive debt": ({"kind": "debt"}, "a debt is a negative quantity"),
    "negative deposit": ({"qty": -1.0}, "a deposit cannot be negative"),
    "derivative kind of a reserve": ({"kind": "perp", "entry": 1.0}, "of another kind"),
    "not a number": ({"qty": float("nan")}, "not a finite number"),
    "infinite": ({"qty": float("inf")}, "not a finite number"),
    "no quantity": ({"qty": None}, "a value is needed"),
    "unknown kind": ({"kind": "hodl"}, "'hodl' is none of collateral"),
    "zero entry": ({"entry": 0.0}, "not above 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_position_is_refused_with_its_row(
    universe: Universe, holdings: dict[str, pl.DataFrame], fault: str
) -> None:
    change, words = FAULTS[fault]
    first = holdings["positions"][0].with_columns(
        pl.lit(value).cast(holdings["positions"].schema[name]).alias(name)
        for name, value in change.items()
    )
    positions = pl.concat([holdings["positions"][1:], first])
    with pytest.raises((StateError, SchemaError), match=words) as caught:
        Book.from_frames(universe, holdings["accounts"], positions)
    assert caught.value.row == 6
    assert "\n" not in str(caught.value)


def test_perps_need_their_entry(universe: Universe, holdings: dict[str, pl.DataFrame]) -> None:
    positions = holdings["positions"].with_columns(entry=pl.lit(None, pl.Float64))
    with pytest.raises(StateError, match="needs its entry") as caught:
        Book.from_frames(universe, holdings["accounts"], positions)
    assert caught.value.row == 4


def test_a_leg_that_stands_twice_is_refused_with_both_rows(
    universe: Universe, holdings: dict[str, pl.DataFrame]
) -> None:
    twice = pl.concat([holdings["positions"], holdings["positions"][2]])
    with pytest.raises(StateError, match="stood in row 3 already") as caught:
        Book.from_frames(universe, holdings["accounts"], twice)
    assert caught.value.row == 7


def test_an_account_that_stands_twice_is_refused(
    universe: Universe, holdings: dict[str, pl.DataFrame]
) -> None:
    twice = pl.concat(
        [holdings["accounts"], holdings["accounts"][0].with_columns(owner=pl.lit(8, pl.Int64))]
    )
    with pytest.raises(StateError, match="account 11 stands more than once"):
        Book.from_frames(universe, twice, holdings["positions"])


def test_a_book_costs_at_most_forty_bytes_a_leg(universe: Universe) -> None:
    accounts = 2_000
    groups = pl.DataFrame({"account": np.arange(accounts)}).with_columns(
        venue=pl.lit("lend"), label=pl.lit("x"), margin_group=pl.lit("main"), mode=pl.lit("cross"),
        owner=pl.col("account") // 2, ts=pl.datetime(2026, 1, 1, time_zone="UTC"),
    )  # fmt: skip
    legs = groups.select("account", "ts").with_columns(
        instrument=pl.lit(["lend:ETH", "lend:stETH", "lend:USDC"])
    ).explode("instrument").with_columns(
        kind=pl.lit("collateral"), qty=1.0, source=pl.lit("x"), evidence=pl.lit("modelled")
    )  # fmt: skip
    assert Book.from_frames(universe, groups, legs).bytes_per_leg <= 40
