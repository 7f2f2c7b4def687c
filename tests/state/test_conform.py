"""Every value is cast rightly or named as a fault; nothing is bent to fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from undertow import schema
from undertow.errors import SchemaError
from undertow.state.conform import conform, empty, require

PRICES = schema.table("prices")
GOOD = {"instrument": "a:b", "kind": "mark", "price": 1.0, "source": "s"}
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def frame(**changes: object) -> pl.DataFrame:
    columns = {**GOOD, "ts": MOMENT, **changes}
    return pl.DataFrame({name: [value] for name, value in columns.items()})


def reason(**changes: object) -> str:
    faults = conform(PRICES, frame(**changes)).faults
    assert faults.height == 1, faults
    assert faults["column"][0] in changes
    return str(faults["reason"][0])


@pytest.mark.parametrize(
    "value", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "2025-12-31T19:00:00-05:00",
              "2026-01-01 05:30:00+05:30", "2026-01-01T00:00:00.000000z",
              datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))],
)  # fmt: skip
def test_instants_of_any_zone_become_utc(value: object) -> None:
    assert require(PRICES, frame(ts=value))["ts"].to_list() == [MOMENT]


@pytest.mark.parametrize(
    "value",
    ["2026-01-01T00:00:00", "2026-01-01", "yesterday", datetime(2026, 1, 1), 1_767_225_600, 1.7e9,
     "2026-02-30T00:00:00Z", "", None],
)  # fmt: skip
def test_what_is_no_instant_with_a_zone_is_a_fault(value: object) -> None:
    assert reason(ts=value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("1.5", 1.5),
        (" 2 ", 2.0),
        (3, 3.0),
        ("1e3", 1000.0),
        (pl.Series([7], dtype=pl.UInt8)[0], 7.0),
    ],
)
def test_numbers_may_be_spelled(value: object, got: float) -> None:
    assert require(PRICES, frame(price=value))["price"].to_list() == [got]


@pytest.mark.parametrize(
    "value", ["1,5", "1_000", "0x10", "abc", "", None, True, "nan", "inf", "1e999", [1.0], -1.0]
)
def test_what_is_no_finite_number_in_range_is_a_fault(value: object) -> None:
    assert reason(price=value)


def test_a_categorical_is_what_it_says_not_its_code() -> None:
    for dtype in (pl.Categorical, pl.Enum(["9.5", "3"])):
        column = pl.Series("price", ["3"], dtype=pl.String).cast(dtype)
        assert require(PRICES, frame().with_columns(column))["price"].to_list() == [3.0]


@pytest.mark.parametrize(
    ("value", "fits"),
    [("12", True), (12.0, True), (2**62, True), ("9223372036854775807", True), (12.5, False),
     ("12.5", False), ("9223372036854775808", False), (2.0**53 + 2, False), (True, False),
     ("1e3", False), ("0x1", False)],
)  # fmt: skip
def test_keys_are_whole_numbers_that_fit_exactly(value: object, fits: bool) -> None:
    table = schema.table("entities")
    row = {"ts": MOMENT, "owner": value, "label": "x", "kind": "fund", "evidence": "observed"}
    found = conform(table, pl.DataFrame({name: [v] for name, v in row.items()}))
    assert (found.faults.height == 0) is fits
    assert found.rows.height == int(fits)


@pytest.mark.parametrize(
    ("value", "got"), [("TRUE", True), ("no", False), (1, True), ("0", False), (True, True)]
)
def test_flags_may_be_spelled(value: object, got: bool) -> None:
    rows = _instrument(inverse=value)
    assert require(schema.table("instruments"), rows)["inverse"].to_list() == [got]


@pytest.mark.parametrize("value", ["maybe", 2, None, ""])
def test_what_is_neither_true_nor_false_is_a_fault(value: object) -> None:
    assert conform(schema.table("instruments"), _instrument(inverse=value)).faults.height == 1


def _instrument(**changes: object) -> pl.DataFrame:
    row = {
        "ts": MOMENT, "instrument": "v:x", "venue": "v", "symbol": "x", "kind": "perp",
        "asset": "a", "inverse": False, "contract_size": 1.0, **changes,
    }  # fmt: skip
    return pl.DataFrame({name: [value] for name, value in row.items()})


def test_absent_columns_that_may_be_empty_are_filled() -> None:
    rows = require(schema.table("instruments"), _instrument())
    assert rows.columns == list(schema.table("instruments").column_names)
    assert rows["expiry"].to_list() == [None]


def test_missing_and_undeclared_columns_say_which() -> None:
    with pytest.raises(SchemaError, match="needs the column 'price'"):
        conform(PRICES, frame().drop("price"))
    with pytest.raises(SchemaError, match="no column 'Price'"):
        conform(PRICES, frame(Price=1.0))


def test_a_repeated_key_is_a_fault_of_the_later_row() -> None:
    twice = pl.concat([frame(), frame(price=2.0), frame(kind="index")])
    found = conform(PRICES, twice)
    assert found.rows["price"].to_list() == [1.0, 1.0]
    assert found.faults["row"].to_list() == [2]
    assert "stands already in row 1" in found.faults["reason"][0]


def test_a_faulty_row_does_not_make_a_good_one_a_repetition() -> None:
    found = conform(PRICES, pl.concat([frame(price=-1.0), frame(price=2.0)]))
    assert found.rows["price"].to_list() == [2.0]
    assert found.faults["row"].to_list() == [1]


def test_every_fault_of_a_row_is_named_and_the_row_left_out_once() -> None:
    found = conform(PRICES, pl.concat([frame(price=-1.0, kind="x"), frame()]))
    assert found.faults.select("row", "column").rows() == [(1, "kind"), (1, "price")]
    assert found.rows.height == 1


def test_an_empty_frame_conforms() -> None:
    assert conform(PRICES, empty(PRICES)).rows.height == 0


def test_require_names_the_first_fault_and_counts_the_rest() -> None:
    bad = pl.concat([frame(), frame(price=-1.0), frame(price=-2.0)])
    with pytest.raises(SchemaError, match=r"-1\.0 is below 0 usd/base \(and 1 more\)") as caught:
        require(PRICES, bad, keys=False)
    assert (caught.value.row, caught.value.column) == (2, "price")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", None])
def test_a_moment_outside_the_calendar_is_a_fault_not_a_crash(unit: str, zone: str | None) -> None:
    far = {"ms": 9_223_372_036_854_775, "us": 2**62, "ns": 2**62}[unit]
    column = pl.Series("ts", [far], dtype=pl.Int64).cast(pl.Datetime(unit, zone))  # type: ignore[arg-type]
    found = conform(PRICES, frame().with_columns(column))
    assert found.faults.height == (unit != "ns" or zone is None)


def test_decimals_are_whole_or_faults() -> None:
    table = schema.table("entities")
    row = {"ts": MOMENT, "label": "x", "kind": "fund", "evidence": "observed"}
    for text, fits in (("10", True), ("10.7", False)):
        given = pl.DataFrame({name: [v] for name, v in row.items()}).with_columns(
            owner=pl.Series([text]).cast(pl.Decimal(12, 2))
        )
        assert (conform(table, given).faults.height == 0) is fits
