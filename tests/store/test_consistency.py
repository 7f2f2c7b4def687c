"""Rows that fit their table and say what cannot be; rows that can be, and are odd."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from store_files import (
    ACCOUNTS,
    ASSETS,
    INSTRUMENTS,
    POSITIONS,
    PRICES,
    PRICES_HEADER,
    SECOND,
    STAMP,
    T0,
    VENUES,
    reference_lake,
    write_reference,
)

from undertow.errors import SchemaError, UnusableMapping
from undertow.schema import integer_key
from undertow.store import ColumnMap, FileReport, Lake, ingest_tables

POSITION = POSITIONS.splitlines()[0]
INSTRUMENT = INSTRUMENTS.splitlines()[0]
OPTION = f"{INSTRUMENT},expiry,strike,option_type"
PARAM = "ts,venue,instrument,account,name,value"
BRACKET = "ts,instrument,tier,min_notional,max_notional,rate"
ORACLE = "ts,venue,instrument,mode,feed"
FREE = "ts,owner,asset,qty,source,evidence"
POOL = "ts,pool,venue,asset,quote,model,side,level,price,qty,source,evidence"
DEPTH = "ts,instrument,side,band,qty,source"
LATER = "2026-01-01T00:00:01Z"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return reference_lake(tmp_path)


def given(
    lake: Lake, table: str, *lines: str, mapping: ColumnMap | None = None, dry_run: bool = False
) -> FileReport:
    path = Path(lake.uri).parent / f"{table}.csv"
    path.write_text("\n".join(lines) + "\n")
    report = ingest_tables(lake, [path], now=T0 + SECOND, mapping=mapping, dry_run=dry_run)
    return report.files[0]


SENSELESS = {
    "a debt above nothing": (
        "positions", POSITION, "1,lend:USDC,debt,9000,,chain,observed",
        "qty", "a debt is a negative quantity; lend:USDC as debt, qty 9000",
    ),
    "a collateral below nothing": (
        "positions", POSITION, "1,lend:ETH,collateral,-1,,chain,observed",
        "qty", "a deposit cannot be negative",
    ),
    "a supply below nothing": (
        "positions", POSITION, "1,lend:ETH,supply,-1,,chain,observed",
        "qty", "a deposit cannot be negative",
    ),
    "a perp without entry": (
        "positions", POSITION, "3,perps:ETH,perp,1,,desk,observed",
        "entry", "a perp or future needs its entry",
    ),
    "a perp in a reserve": (
        "positions", POSITION, "1,lend:ETH,perp,1,2500,chain,observed",
        "kind", "the instrument is of another kind",
    ),
    "a perp held as money": (
        "positions", POSITION, "3,perps:ETH,cash,1,,desk,observed",
        "kind", "a derivative is held as money",
    ),
    "an instrument of another venue": (
        "positions", POSITION, "3,lend:ETH,collateral,1,,desk,observed",
        "instrument", "the instrument is of another venue",
    ),
    "an unknown asset": (
        "instruments", INSTRUMENT, "lend:X,lend,X,reserve,XXX,false,1",
        "asset", "unknown asset 'XXX'; ingest it into assets first",
    ),
    "an unknown quote": (
        "instruments", f"{INSTRUMENT},quote", "lend:X,lend,X,reserve,ETH,false,1,usdc",
        "quote", "unknown asset 'usdc'; did you mean 'USDC'?",
    ),
    "an unknown settle": (
        "instruments", f"{INSTRUMENT},settle", "lend:X,lend,X,reserve,ETH,false,1,DOLLARS",
        "settle", "unknown asset 'DOLLARS'",
    ),
    "an option without strike": (
        "instruments", OPTION, f"perps:O,perps,O,option,ETH,false,1,{STAMP},,call",
        "kind", "an option needs all of strike, expiry and option_type",
    ),
    "an unknown reference": (
        "assets", f"{ASSETS.splitlines()[0]},reference", "stETH,stETH,staked,ETHER",
        "reference", "unknown asset 'ETHER'",
    ),
    "an unknown profile": (
        "venues", VENUES.splitlines()[0], "aave,lending,aave_v3",
        "profile", "no rule profile is called 'aave_v3'; did you mean 'aave-v3'?",
    ),
    "a venue in capitals": (
        "accounts", ACCOUNTS.splitlines()[0], "9,LEND,0xd,cross,cross",
        "venue", "unknown venue 'LEND'; did you mean 'lend'?",
    ),
    "an account of two venues": (
        "accounts", ACCOUNTS.splitlines()[0], "1,perps,0xa,cross,cross",
        "venue", "the account 1 stands already at 'lend'",
    ),
    "a percentage for a share": (
        "risk_params", PARAM, "lend,lend:ETH,,ltv,80",
        "value", "ltv is 80.0; it lies between 0.0 and 1.0",
    ),
    "a number for another venue's instrument": (
        "risk_params", PARAM, "lend,perps:ETH,,ltv,0.8",
        "instrument", "'perps:ETH' is not an instrument of 'lend'",
    ),
    "a number for another venue's account": (
        "risk_params", PARAM, "lend,,3,ltv,0.8",
        "account", "the account 3 is not one of 'lend'",
    ),
    "a tier that ends before it begins": (
        "margin_brackets", BRACKET, "perps:ETH,0,1000,1000,0.01",
        "max_notional", "max_notional 1000.0 is not above min_notional 1000.0",
    ),
    "an oracle of another venue's instrument": (
        "oracles", ORACLE, "perps,lend:ETH,market,", "venue",
        "'lend:ETH' is an instrument of 'lend', not of 'perps'; a price elsewhere is a feed",
    ),
    "an oracle that follows nothing known": (
        "oracles", ORACLE, "lend,lend:ETH,market,spot:ETH",
        "feed", "unknown instrument 'spot:ETH'",
    ),
    "a pool of an unknown asset": (
        "pools", POOL, "p,perps,XXX,USDC,linear,,0,2500,10,book,observed",
        "asset", "unknown asset 'XXX'",
    ),
    "a pool that pays an unknown asset": (
        "pools", POOL, "p,perps,ETH,DOLLARS,linear,,0,2500,10,book,observed",
        "quote", "unknown asset 'DOLLARS'",
    ),
    "free assets of no name": (
        "free_assets", FREE, "1,XXX,5,book,observed",
        "asset", "unknown asset 'XXX'",
    ),
    "a level of a book without a side": (
        "pools", POOL, "p,perps,ETH,USDC,ladder,,0,2500,10,book,observed",
        "side", "the pool 'p' has a level without a side; say bid or ask",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SENSELESS)
def test_a_row_that_no_book_could_hold_is_refused_when_it_is_given(lake: Lake, name: str) -> None:
    table, head, line, column, words = SENSELESS[name]
    line = f"{LATER},{line}"
    rehearsal = given(lake, table, head, line, dry_run=True)
    report = given(lake, table, head, line)
    assert report == rehearsal
    assert (report.added, report.rejected) == (0, 1)
    (reject,) = lake.read("rejects").iter_rows(named=True)
    assert reject["column"] == column
    assert words in reject["reason"]


LADDER = "p,perps,ETH,USDC,ladder"


@pytest.mark.parametrize(
    ("lines", "refused", "column", "words"),
    [
        ((f"{LADDER},bid,0,2501,1", f"{LADDER},bid,1,2400,1", f"{LADDER},ask,0,2500,1"), 3,
         "price", "the pool 'p' is crossed: a bid at or above an ask; take bids and asks of one"),
        ((f"{LADDER},bid,0,2501,0", f"{LADDER},bid,1,2400,1", f"{LADDER},ask,0,2500,1"), 0, "", ""),
        ((f"{LADDER},bid,0,2400,1", "p,lend,ETH,USDC,ladder,ask,0,2500,1"), 2,
         "model", "the pool 'p' is described in two ways; give one venue, asset, quote and model"),
        ((f"{LADDER},bid,0,2400,1", "q,lend,ETH,USDC,ladder,ask,0,2300,1"), 0, "", ""),
        (("p,perps,ETH,USDC,linear,,0,2500,1", "p,perps,ETH,USDC,linear,,1,2500,1"), 2,
         "level", "the pool 'p' has several rows; only a ladder has several levels"),
    ],
    ids=["crossed", "crossed by nothing", "of two venues", "two pools", "two reserves"],
)  # fmt: skip
def test_rows_of_one_pool_are_refused_together(
    lake: Lake, lines: tuple[str, ...], refused: int, column: str, words: str
) -> None:
    report = given(lake, "pools", POOL, *(f"{LATER},{line},book,observed" for line in lines))
    assert (report.added, report.rejected) == (len(lines) - refused, refused)
    rejects = lake.read("rejects")
    assert set(rejects["column"]) == ({column} if refused else set())
    assert all(words in reason for reason in rejects["reason"])


def test_two_sources_or_instants_of_a_pool_may_differ(lake: Lake) -> None:
    bid, ask = f"{LADDER},bid,0,2501,1", f"{LADDER},ask,0,2500,1"
    lines = [f"{STAMP},{bid},book,observed", f"{LATER},{ask},book,observed",
             f"{LATER},{bid},other,observed"]  # fmt: skip
    report = given(lake, "pools", POOL, *lines)
    assert (report.added, report.rejected) == (3, 0)


def test_a_band_that_holds_less_than_a_nearer_one_is_refused_alone(lake: Lake) -> None:
    bands = ["bid,0.05,6", "bid,0.01,5", "bid,0.02,4.5", "bid,1,2", "ask,0.02,3"]
    lines = [f"{STAMP},perps:ETH,{band},book" for band in bands]
    lines += [f"{LATER},perps:ETH,bid,0.1,1,book", f"{STAMP},perps:ETH,bid,0.1,1,other"]
    report = given(lake, "depth", DEPTH, *lines)
    assert (report.added, report.rejected) == (6, 1)
    (reject,) = lake.read("rejects").iter_rows(named=True)
    assert (reject["row"], reject["column"]) == (3, "qty")
    assert "4.5 within 0.02 of mid is less than 5.0 nearer to it" in reject["reason"]


def test_an_asset_may_refer_to_one_of_its_own_file_unless_that_one_falls(lake: Lake) -> None:
    head = f"{ASSETS.splitlines()[0]},reference"
    rows = ["wstETH,w,wrapped,stETH", "stETH,s,staked,ETH", "a,a,other,b", "b,b,other,nothing"]
    report = given(lake, "assets", head, *(f"{STAMP},{row}" for row in rows))
    assert (report.added, report.rejected) == (2, 2)
    assert {"wstETH", "stETH"} < set(lake.read("assets")["asset"])


def test_one_file_cannot_put_an_account_at_two_venues(lake: Lake) -> None:
    head = ACCOUNTS.splitlines()[0]
    lines = [f"{STAMP},9,lend,0xd,cross,cross", f"{LATER},9,perps,0xd,cross,cross"]
    report = given(lake, "accounts", head, *lines)
    assert (report.added, report.rejected) == (1, 1)
    assert "stands already at 'lend'" in report.sample[0]


# --- twins ----------------------------------------------------------------------------------------


def test_a_row_that_stands_twice_in_a_file_is_known_the_second_time(lake: Lake) -> None:
    lines = PRICES.strip().splitlines()
    report = given(lake, "prices", *lines, lines[1], lines[1])
    assert (report.rows, report.added, report.known, report.rejected) == (4, 2, 2, 0)
    again = given(lake, "prices", *lines, lines[1], lines[1])
    assert (again.added, again.known, again.rejected) == (0, 4, 0)


def test_a_twin_of_a_refused_row_is_refused_with_it(lake: Lake) -> None:
    line = f"{STAMP},lend:XXX,oracle,2500,feed"
    report = given(lake, "prices", PRICES_HEADER, line, line)
    assert (report.rows, report.added, report.known, report.rejected) == (2, 0, 0, 2)


# --- notes ----------------------------------------------------------------------------------------


def test_a_source_that_spans_instants_is_noted(lake: Lake) -> None:
    lines = POSITIONS.strip().splitlines()
    lines[-2] = lines[-2].replace(STAMP, LATER)
    report = given(lake, "positions", *lines)
    assert report.notes == ("only the newest of 2 instants will hold for source chain",)
    assert report.as_json()["notes"] == list(report.notes)


def test_a_view_that_lacks_accounts_of_the_view_before_is_noted(lake: Lake) -> None:
    lines = POSITIONS.strip().splitlines()
    assert given(lake, "positions", *lines).notes == ()
    shorter = [lines[0], lines[1].replace(STAMP, LATER)]
    rehearsal = given(lake, "positions", *shorter, dry_run=True)
    report = given(lake, "positions", *shorter)
    words = "source chain: 3 legs before, 1 now; what is not in this view is gone"
    assert report.notes == rehearsal.notes == (words,)
    assert given(lake, "positions", *shorter).notes == ()


@pytest.mark.parametrize(
    ("stamp", "unit"),
    [("1970-01-21T10:53:45Z", "s, not ms"), ("2040-01-01T00:00:00Z", "ms, not s")],
)
def test_an_instant_far_away_is_noted(lake: Lake, stamp: str, unit: str) -> None:
    report = given(lake, "prices", PRICES_HEADER, f"{stamp},lend:ETH,oracle,1,feed")
    (note,) = report.notes
    assert report.added == 1
    assert f"the first {stamp}; is the unit {unit}?" in note


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "unit"), [("1767225600", "s"), ("1767225600000", "ms")])
def test_an_epoch_without_a_unit_is_told_how_to_declare_it(
    lake: Lake, number: str, unit: str
) -> None:
    report = given(lake, "prices", PRICES_HEADER, f"{number},lend:ETH,oracle,1,feed")
    assert f'declare [time] ts = {{ unit = "{unit}" }}' in report.sample[0]
    mapping = ColumnMap.from_toml(f'[time]\nts = {{ unit = "{unit}" }}')
    line = f"{number},lend:ETH,oracle,1,feed"
    assert given(lake, "prices", PRICES_HEADER, line, mapping=mapping).added == 1


def test_a_number_with_the_wrong_point_is_shown_as_it_came(lake: Lake) -> None:
    mapping = ColumnMap.from_toml('[text]\ndecimal = ","\nseparator = ";"')
    lines = [PRICES_HEADER, f"{STAMP},lend:ETH,oracle,1.5,feed"]
    report = given(lake, "prices", *(x.replace(",", ";") for x in lines), mapping=mapping)
    assert "a number was expected, not '1.5'; " in report.sample[0]
    assert lake.read("rejects")["reason"].str.ends_with("not '1.5'").all()


def test_a_strange_column_is_refused_in_one_sentence(lake: Lake) -> None:
    with pytest.raises(SchemaError) as caught:
        given(lake, "prices", f"{PRICES_HEADER},xyz", f"{STAMP},lend:ETH,oracle,1,feed,1")
    assert "source; rename it, drop it, or map it" in str(caught.value)


def test_the_group_of_an_account_may_be_called_as_the_table_calls_it(tmp_path: Path) -> None:
    write_reference(tmp_path)
    for name in ("group", "margin_group"):
        keys = f'[account]\nvenue = "venue"\nlabel = "label"\n{name} = "margin_group"\n'
        mapping = ColumnMap.from_toml(f'{keys}[drop]\ncolumns = ["account"]')
        lake = Lake.at(tmp_path / name)
        ingest_tables(lake, [tmp_path / f"{n}.csv" for n in ("assets", "venues")], now=T0)
        path = tmp_path / "accounts.csv"
        assert ingest_tables(lake, [path], now=T0, mapping=mapping).exit_code == 0
        keys_of = lake.read("accounts").select(pl.col("account"))["account"].to_list()
        assert integer_key("lend", "0xa", "cross") in keys_of
    with pytest.raises(UnusableMapping, match="keep one of the two"):
        ColumnMap.from_toml(
            '[account]\nvenue = "v"\nlabel = "l"\ngroup = "g"\nmargin_group = "m"\n'
        )
