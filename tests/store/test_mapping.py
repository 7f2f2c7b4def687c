from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_files import STAMP, T0, reference_lake

from undertow.errors import UndertowError, UnusableMapping
from undertow.schema import integer_key, table
from undertow.store import ColumnMap, Lake, ingest_tables
from undertow.store.files import ROW
from undertow.store.recast import recast


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return reference_lake(tmp_path)


def brought(
    lake: Lake, folder: Path, text: str, mapping: str, name: str = "export.csv"
) -> pl.DataFrame:
    path = folder / name
    path.write_text(text)
    (folder / "map.toml").write_text(mapping)
    report = ingest_tables(lake, [path], now=T0, mapping=folder / "map.toml")
    assert report.exit_code == 0, report.files[0].sample
    return lake.read(report.files[0].table)


def test_a_foreign_export_becomes_positions(lake: Lake, tmp_path: Path) -> None:
    """Semicolons, decimal commas, raw chain amounts, epochs in milliseconds, names for accounts."""
    key = integer_key("lend", "0xab", "cross")
    accounts = pl.DataFrame(
        {"ts": [STAMP], "account": [str(key)], "venue": ["lend"], "label": ["0xab"]}
    )
    accounts = accounts.with_columns(margin_group=pl.lit("cross"), mode=pl.lit("cross"))
    accounts.write_csv(tmp_path / "accounts.csv")
    ingest_tables(lake, [tmp_path / "accounts.csv"], now=T0)
    mapping = """
        table = "positions"
        ignore_other_columns = true
        [columns]
        instrument = "market"
        qty = "amount"
        entry = "paid"
        ts = "time"
        [constants]
        kind = "collateral"
        source = "dump"
        evidence = "observed"
        [units]
        qty = { decimals = 18 }
        entry = "cents"
        [time]
        ts = { unit = "ms" }
        [account]
        venue = { constant = "lend" }
        label = "user"
        [text]
        separator = ";"
        decimal = ","
        thousands = "."
        nulls = ["-"]
        [filters]
        status = ["open"]
    """
    text = (
        "time;user;market;amount;paid;status;note\n"
        "1767225600000;0xAB;lend:ETH;1500000000000000000;2.345,6;open;x\n"
        "1767225600000; 0xab ;lend:USDC;123456789012345678901234567890;-;open;y\n"
        "1767225600000;0xab;perps:ETH;1;1;closed;z\n"
    )
    rows = brought(lake, tmp_path, text, mapping)
    assert rows["account"].to_list() == [key, key]
    assert rows["qty"].to_list() == [1.5, 123456789012.34567]
    assert rows["entry"].to_list() == [23.456, None]
    assert rows["ts"].to_physical().to_list() == [T0, T0]


PRICE = "ts,instrument,kind,price,source\n"


@pytest.mark.parametrize(
    ("spelled", "section", "micros"),
    [
        ("1767225600", 'unit = "s"', T0),
        ("1767225600.25", 'unit = "s"', T0 + 250_000),
        ("1767225600000", 'unit = "ms"', T0),
        ("1767225600000001", 'unit = "us"', T0 + 1),
        ("1767225600000001999", 'unit = "ns"', T0 + 1),
        ("2026-01-01 01:00", 'format = "%Y-%m-%d %H:%M", zone = "Europe/Zurich"', T0),
        ("01.01.2026", 'format = "%d.%m.%Y", zone = "UTC"', T0),
        ("2026-01-01 01:00:00 +0100", 'format = "%Y-%m-%d %H:%M:%S %z"', T0),
        ("2026-01-01T01:00:00", 'zone = "Europe/Zurich"', T0),
        ("2026-01-01 00:00:00.5", 'zone = "UTC"', T0 + 500_000),
        ("2026-07-01 02:00", 'zone = "Europe/Zurich"', T0 + 181 * 86_400_000_000),
        ("2026-01-01T00:00:00Z", 'zone = "Europe/Zurich"', T0),
    ],
)
def test_instants_are_read_as_they_are_declared(
    lake: Lake, tmp_path: Path, spelled: str, section: str, micros: int
) -> None:
    mapping = f'table = "prices"\n[time]\nts = {{ {section} }}\n'
    rows = brought(lake, tmp_path, f"{PRICE}{spelled},lend:ETH,oracle,1,feed\n", mapping)
    assert rows["ts"].to_physical().to_list() == [micros]


@pytest.mark.parametrize(
    ("spelled", "section"),
    [
        ("2026-03-29 02:30", 'zone = "Europe/Zurich"'),  # skipped by the change to summer time
        ("2026-10-25 02:30", 'zone = "Europe/Zurich"'),  # stands twice on that night's clocks
        ("yesterday", 'unit = "s"'),
        ("1e30", 'unit = "s"'),
        ("31.02.2026", 'format = "%d.%m.%Y", zone = "UTC"'),
    ],
)
def test_an_instant_that_is_none_is_refused_as_it_came(
    lake: Lake, tmp_path: Path, spelled: str, section: str
) -> None:
    path = tmp_path / "export.csv"
    path.write_text(f"{PRICE}{spelled},lend:ETH,oracle,1,feed\n")
    mapping = ColumnMap.from_toml(f'table = "prices"\n[time]\nts = {{ {section} }}\n')
    report = ingest_tables(lake, [path], now=T0, mapping=mapping)
    assert report.files[0].rejected == 1
    assert f"not '{spelled}'" in report.files[0].sample[0]


def test_naive_datetimes_of_a_parquet_file_take_the_zone_of_the_mapping(
    lake: Lake, tmp_path: Path
) -> None:
    frame = pl.DataFrame(
        {"instrument": ["lend:ETH"], "kind": ["oracle"], "price": [1], "source": ["f"]}
    )
    frame = frame.with_columns(
        pl.lit("2026-01-01T01:00:00").str.to_datetime(time_unit="ms").alias("ts")
    )
    frame.write_parquet(tmp_path / "x.parquet")
    mapping = ColumnMap.from_toml('table = "prices"\n[time]\nts = { zone = "Europe/Zurich" }\n')
    ingest_tables(lake, [tmp_path / "x.parquet"], now=T0, mapping=mapping)
    assert lake.read("prices")["ts"].to_physical().to_list() == [T0]


def _scaled(target_table: str, column: str, unit: str, values: pl.Series) -> list[float]:
    given = f'table = "{target_table}"\nignore_other_columns = true\n[units]\n{column} = {unit}\n'
    mapping = ColumnMap.from_toml(given)
    declared = table(target_table)
    missing = [c.name for c in declared.columns if not c.null and c.name != column]
    frame = pl.DataFrame({ROW: range(1, values.len() + 1), column: values})
    frame = frame.with_columns(pl.lit("x").alias(name) for name in missing)
    return recast(declared, mapping, frame, "x.csv")[column].cast(pl.Float64).to_list()


@pytest.mark.parametrize(
    ("place", "unit", "spelled", "kept"),
    [
        ("funding.rate", '"bps"', "1", 0.0001),
        ("funding.rate", '"percent"', "5.1", 0.051),
        ("funding.rate_per_hour", '"per_8h"', "0.0008", 0.0001),
        ("funding.rate_per_hour", '["percent", "per_year"]', "87.6", 0.0001),
        ("reserves.supply_rate", '["percent", "per_day"]', "1", 3.65),
        ("funding.interval_us", '"h"', "8", 28_800_000_000),
        ("prices.price", '"cents"', "250050", 2500.5),
        ("positions.qty", "{ scale = 1e-18 }", "1000000000000000001", 1.0),
        ("positions.qty", "{ scale = 0.125 }", "8", 1.0),
        ("positions.qty", '"wei"', "-1", -1e-18),
        ("venue_funds.amount_usd", '"million"', "1.5", 1_500_000.0),
    ],
)
def test_units_are_brought_to_the_tables(place: str, unit: str, spelled: str, kept: float) -> None:
    name, column = place.split(".")
    assert _scaled(name, column, unit, pl.Series([spelled])) == [kept]
    number = pl.Series([float(spelled)])
    assert _scaled(name, column, unit, number) == pytest.approx([kept], rel=1e-15)


@given(st.integers(-(2**200), 2**200), st.integers(0, 30))
def test_a_raw_amount_is_divided_exactly_once(raw: int, decimals: int) -> None:
    from fractions import Fraction

    (kept,) = _scaled("positions", "qty", f"{{ decimals = {decimals} }}", pl.Series([str(raw)]))
    assert kept == float(Fraction(raw, 10**decimals))


def test_a_value_without_sense_keeps_its_spelling_through_units_and_marks() -> None:
    mapping = ColumnMap.from_toml(
        'table = "positions"\nignore_other_columns = true\n[units]\nqty = "bps"\n'
        '[text]\ndecimal = ","\nthousands = "."\n'
    )
    values = ["1.234,5", "1,5", "1.23,4", "1.5", "abc", "12.345", "", "NaN"]
    frame = pl.DataFrame({ROW: range(1, 9), "qty": values})
    missing = ("ts", "account", "instrument", "kind", "source", "evidence")
    frame = frame.with_columns(pl.lit("x").alias(name) for name in missing)
    kept = recast(table("positions"), mapping, frame, "x.csv")["qty"].to_list()
    assert kept[0] == "1234.5e-4"
    assert kept[1] == "1.5e-4"
    assert kept[5] == "12345e-4"
    assert kept[4] == "abc"
    assert kept[6] is None
    assert "1.23,4" in kept[2]  # neither grouped by thousands nor a number
    assert "1.5" in kept[3]
    assert kept[3] not in ("1.5", "1.5e-4")


GOOD = 'table = "prices"\n'
BAD_MAPPINGS = {
    "bad TOML": ("table = ", "not TOML"),
    "unknown key": (GOOD + "ignore_other_colums = true", "did you mean 'ignore_other_columns'"),
    "unknown table": ('table = "price"', "no table is called 'price'"),
    "unknown target": (GOOD + '[columns]\nprise = "p"', "did you mean 'price'"),
    "unknown unit": (GOOD + '[units]\nprice = "percents"', "'percents' is no unit"),
    "unit of a name": (GOOD + '[units]\ninstrument = "percent"', "which is no number"),
    "unit of another kind": ('table = "funding"\n[units]\ninterval_us = "percent"', "is no unit"),
    "scale of nothing": (GOOD + "[units]\nprice = { scale = 0.0 }", "scale is 0.0"),
    "scale as text": (GOOD + '[units]\nprice = { scale = "1" }', "not a number"),
    "decimals too many": (GOOD + "[units]\nprice = { decimals = 400 }", "write 0 to 77"),
    "two unit words": (GOOD + "[units]\nprice = { decimals = 1, scale = 1 }", "one of the two"),
    "time of a number": (GOOD + '[time]\nprice = { unit = "s" }', "which is no instant"),
    "unknown epoch": (GOOD + '[time]\nts = { unit = "minutes" }', "an epoch has a unit"),
    "no zone": (GOOD + '[time]\nts = { format = "%Y" }', "names no zone"),
    "unknown zone": (GOOD + '[time]\nts = { zone = "Mars/Olympus" }', "no time zone"),
    "time as text": (GOOD + '[time]\nts = "ms"', "write { unit"),
    "naive constant": (GOOD + "[constants]\nts = 2026-01-01T00:00:00", "ends in Z"),
    "twice": (GOOD + '[columns]\nprice = "p"\n[constants]\nprice = 1', "given twice"),
    "no label": ('table = "positions"\n[account]\nvenue = "v"', "lacks label"),
    "odd part": ('table = "positions"\n[account]\nvenue = 1\nlabel = "l"', "not a name"),
    "same marks": (GOOD + '[text]\ndecimal = ","\nthousands = ","', "decimal is"),
    "odd separator": (GOOD + '[text]\nseparator = "ab"', "separator is 'ab'"),
    "section as value": (GOOD + "columns = 3", "not a section"),
    "no flag": (GOOD + 'ignore_other_columns = "yes"', "true or false"),
    "list of lists": (GOOD + "[drop]\ncolumns = [[1]]", "list of names"),
}


@pytest.mark.parametrize("name", BAD_MAPPINGS)
def test_a_mapping_that_cannot_be_used_is_refused_with_a_next_step(name: str) -> None:
    text, words = BAD_MAPPINGS[name]
    with pytest.raises(UnusableMapping) as caught:
        ColumnMap.from_toml(text, name="map.toml")
    line = str(caught.value)
    assert words in line
    assert line.startswith("map.toml")
    assert "; " in line
    assert "\n" not in line


def test_a_mapping_that_reads_a_missing_column_says_which_there_are(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"{PRICE}{STAMP},lend:ETH,oracle,1,feed\n")
    mapping = ColumnMap.from_toml('[columns]\nprice = "Price"', name="map.toml")
    with pytest.raises(UnusableMapping, match="reads column 'Price'") as caught:
        ingest_tables(lake, [path], now=T0, mapping=mapping)
    assert "did you mean 'price'" in str(caught.value)


def test_a_mapping_without_a_table_is_bound_to_the_one_the_file_is_named_for(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"{PRICE}{STAMP},lend:ETH,oracle,1,feed\n")
    with pytest.raises(UnusableMapping, match="prices has no column 'qty'"):
        ingest_tables(lake, [path], now=T0, mapping=ColumnMap.from_toml('[columns]\nqty = "price"'))


def test_the_table_asked_for_and_the_table_of_the_mapping_must_agree(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(PRICE)
    with pytest.raises(UndertowError, match="the mapping is for prices, and funding was asked for"):
        ingest_tables(lake, [path], now=T0, table="funding", mapping=ColumnMap.from_toml(GOOD))


def test_a_mapping_file_that_is_not_there_is_an_error(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UnusableMapping, match="cannot be read"):
        ingest_tables(lake, [tmp_path], now=T0, mapping=tmp_path / "none.toml")


def test_the_same_file_with_another_mapping_is_another_run(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"{PRICE}{STAMP},lend:ETH,oracle,1,feed\n")
    runs = [
        ingest_tables(lake, [path], now=T0, dry_run=True, mapping=ColumnMap.from_toml(text))
        .files[0]
        .run
        for text in ("", '[units]\nprice = "cents"', '[units]\nprice = "cents"')
    ]
    assert runs[0] != runs[1] == runs[2]
