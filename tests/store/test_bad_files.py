"""What users really send: each kind of bad input, and what it may and may not do to the lake."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from store_files import POSITIONS, PRICES, PRICES_HEADER, SECOND, STAMP, T0, listing, reference_lake

from undertow.errors import SchemaError, SourceError, UndertowError, UnreadableFile
from undertow.store import ColumnMap, Lake, Limits, ingest_tables

HEAD = POSITIONS.splitlines()[0]
GOOD = f"{STAMP},2,lend:ETH,collateral,5,,chain,observed"
GOOD_PRICE = f"{STAMP},perps:ETH,mark,2501,feed"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    reference_lake(folder)
    return folder


@pytest.fixture
def lake(place: Path, tmp_path: Path) -> Lake:
    import shutil

    shutil.copytree(place / "lake", tmp_path / "lake")
    return Lake.open(tmp_path / "lake")


# --- rows that are refused, among rows that are taken ---------------------------------------------


@dataclass(frozen=True)
class BadRow:
    """One bad data line of a positions file (or of another table), at row 2 of 3."""

    line: str
    column: str | None
    words: str
    head: str = HEAD
    good: tuple[str, str] = (GOOD, f"{STAMP},3,perps:ETH,perp,1,2500,desk,observed")
    table: str = "positions"


def position(**changes: str) -> str:
    values = dict(zip(HEAD.split(","), GOOD.replace(",2,", ",1,").split(","), strict=True))
    return ",".join({**values, **changes}.values())


def price(**changes: str) -> str:
    values = dict(zip(PRICES_HEADER.split(","), GOOD_PRICE.split(","), strict=True))
    return ",".join({**values, "kind": "index", **changes}.values())


def price_row(column: str, words: str, **changes: str) -> BadRow:
    good = (GOOD_PRICE, f"{STAMP},lend:ETH,oracle,2500,feed")
    return BadRow(price(**changes), column, words, PRICES_HEADER, good, "prices")


BAD_ROWS = {
    "wrong type": BadRow(position(qty="abc"), "qty", "a number was expected, not 'abc'"),
    "NaN": BadRow(position(qty="NaN"), "qty", "not a finite number"),
    "inf": BadRow(position(qty="inf"), "qty", "not a finite number"),
    "-inf": BadRow(position(qty="-inf"), "qty", "not a finite number"),
    "1e400": BadRow(position(qty="1e400"), "qty", "not a finite number"),
    "a unit behind the number": BadRow(position(qty="5 ETH"), "qty", "not '5 ETH'"),
    "a percent sign": BadRow(position(qty="5%"), "qty", "not '5%'"),
    "thousands separators": BadRow(position(qty='"1,000"'), "qty", "not '1,000'"),
    "decimal comma": BadRow(position(qty='"1,5"'), "qty", "not '1,5'"),
    "a currency sign": BadRow(position(qty="$5"), "qty", "not '$5'"),
    "a hexadecimal number": BadRow(position(qty="0x10"), "qty", "not '0x10'"),
    "a boolean as a number": BadRow(position(qty="true"), "qty", "not 'true'"),
    "no number": BadRow(position(qty=""), "qty", "empty, and a value is needed"),
    "zero entry price": BadRow(position(entry="0"), "entry", "0.0 is not above 0 usd/base"),
    "negative price": price_row("price", "-1.0 is below 0", price="-1"),
    "unknown instrument": price_row(
        "instrument", "unknown instrument 'lend:XXX'", instrument="lend:XXX"
    ),
    "unknown account": BadRow(position(account="77"), "account", "unknown account '77'"),
    "unknown kind": BadRow(position(kind="loan"), "kind", "'loan' is none of"),
    "kind in another case": BadRow(position(kind="Collateral"), "kind", "'Collateral' is none of"),
    "unknown venue": BadRow(
        f"{STAMP},nowhere,insurance,5,desk,observed",
        "venue",
        "unknown venue 'nowhere'; ingest it into venues first",
        "ts,venue,kind,amount_usd,source,evidence",
        (
            f"{STAMP},lend,insurance,5,desk,observed",
            f"{STAMP},perps,insurance,5,desk,observed",
        ),
        "venue_funds",
    ),
    "negative size": BadRow(
        f"{STAMP},lend:USDC,-1,0,feed",
        "supplied",
        "-1.0 is below 0 base",
        "ts,instrument,supplied,borrowed,source",
        (f"{STAMP},lend:ETH,1,0,feed", f"{STAMP},perps:ETH,1,0,feed"),
        "reserves",
    ),
    "a fraction above one": BadRow(
        f"{STAMP},lend:USDC,bid,101,5,feed",
        "band",
        "101.0 is above 1",
        "ts,instrument,side,band,qty,source",
        (f"{STAMP},lend:ETH,bid,0.5,5,feed", f"{STAMP},perps:ETH,bid,0.5,5,feed"),
        "depth",
    ),
    "an account with a letter": BadRow(position(account="1a"), "account", "whole number"),
    "an account that is no whole number": BadRow(
        position(account="1.5"), "account", "whole number"
    ),
    "an account beyond 64 bits": BadRow(
        position(account="18446744073709551617"), "account", "not '18446744073709551617'"
    ),
    "a key that stands already": BadRow(
        GOOD.replace(",5,", ",6,"), "account", "stands already in row 1"
    ),
    "a naive time": BadRow(position(ts="2026-01-01T00:00:00"), "ts", "instant with its time zone"),
    "an epoch without a unit": BadRow(position(ts="1767225600"), "ts", "not '1767225600'"),
    "a date that is none": BadRow(position(ts="2026-02-30T00:00:00Z"), "ts", "not '2026-02-30T"),
    "a time in words": BadRow(position(ts="yesterday"), "ts", "not 'yesterday'"),
    "a day before its month": BadRow(position(ts="31.01.2026 10:00Z"), "ts", "not '31.01.2026"),
    "a path as a name": BadRow(position(source="../../etc"), "source", "start like a path"),
    "an absolute path as a name": BadRow(position(source="/etc/passwd"), "source", "like a path"),
    "control characters": BadRow(position(source="ch\x07ain"), "source", "control characters"),
    "a name too long": BadRow(position(source="x" * 600), "source", "longer than 512 bytes"),
    "no name": BadRow(position(source=""), "source", "empty, and a value is needed"),
    "a blank name": BadRow(position(source="  "), "source", "empty, and a name is needed"),
    "a line too short": BadRow(f"{STAMP},1,lend:ETH", None, "3 fields, and the header has 8"),
    "a line too long": BadRow(position() + ",more", None, "9 fields, and the header has 8"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_place_and_the_good_ones_are_taken(
    lake: Lake, tmp_path: Path, name: str
) -> None:
    case = BAD_ROWS[name]
    path = tmp_path / f"{case.table}.csv"
    path.write_text("\n".join([case.head, case.good[0], case.line, case.good[1]]) + "\n")
    report = ingest_tables(lake, [path], now=T0 + SECOND)
    one = report.files[0]
    assert (one.rows, one.added, one.rejected, report.exit_code) == (3, 2, 1, 4)
    assert lake.read(case.table).height == 2
    (reject,) = lake.read("rejects").iter_rows(named=True)
    assert (reject["row"], reject["column"], reject["file"]) == (2, case.column, path.name)
    assert case.words in reject["reason"]
    if case.column is not None:
        given = dict(json.loads(reject["content"]))
        assert set(given) == set(case.head.split(","))
    else:
        assert reject["content"] == case.line
    (line,) = one.sample
    place = f"{path.name}, row 2" + (f", column {case.column}" if case.column else "")
    assert line.startswith(place + ": ")
    assert "; " in line
    assert "\n" not in line
    assert lake.verify().sound


JSON_GOOD = {"ts": STAMP, "instrument": "lend:ETH", "kind": "oracle", "price": 2500, "source": "f"}
BAD_LINES = {
    "a broken line": ('{"ts": ', None, "not JSON"),
    "a bare number": ("5", None, "not a JSON object"),
    "a list for a number": (
        json.dumps(JSON_GOOD | {"kind": "mark", "price": [1]}),
        "price",
        "not a list",
    ),
    "an object for a number": (
        json.dumps(JSON_GOOD | {"kind": "mark", "price": {"usd": 1}}),
        "price",
        "not an object",
    ),
    "a flag for a number": (
        json.dumps(JSON_GOOD | {"kind": "mark", "price": True}),
        "price",
        "not 'true'",
    ),
    "NaN": (json.dumps(JSON_GOOD | {"kind": "mark", "price": float("nan")}), "price", "finite"),
    "a name twice": ('{"ts": 1, "ts": 2}', None, "a name stands twice"),
    "a missing name": ('{"ts": "2026-01-01T00:00:00Z"}', "instrument", "empty"),
    "half a character": (
        json.dumps(JSON_GOOD | {"kind": "mark", "source": "\ud800"}),
        "source",
        "half a character",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_of_json_is_refused_and_the_others_are_taken(
    lake: Lake, tmp_path: Path, name: str
) -> None:
    line, column, words = BAD_LINES[name]
    path = tmp_path / "prices.ndjson"
    text = json.dumps(JSON_GOOD | {"price": "2500.5"})  # a number as text, in another line's type
    path.write_text("\n".join([json.dumps(JSON_GOOD | {"kind": "spot"}), line, "", text]) + "\n")
    report = ingest_tables(lake, [path], now=T0)
    assert (report.files[0].added, report.files[0].rejected) == (2, 1)
    (reject,) = lake.read("rejects").iter_rows(named=True)
    assert reject["row"] == 2
    assert column in (None, reject["column"])
    assert words in reject["reason"]
    assert lake.read("prices")["price"].to_list() == [2500.5, 2500.0]


def test_numbers_that_json_cannot_spell_are_kept_as_text_among_the_rejects(
    lake: Lake, tmp_path: Path
) -> None:
    frame = pl.DataFrame([JSON_GOOD, JSON_GOOD | {"kind": "mark"}]).with_columns(
        pl.col("ts").str.to_datetime(time_zone="UTC"), price=pl.Series([1.0, float("nan")])
    )
    frame.write_parquet(tmp_path / "prices.parquet")
    ingest_tables(lake, [tmp_path / "prices.parquet"], now=T0)
    (reject,) = lake.read("rejects").iter_rows(named=True)
    assert json.loads(reject["content"])["price"] == "NaN"


# --- files that are refused whole -----------------------------------------------------------------


def parquet(folder: Path, name: str = "prices.parquet", **columns: object) -> Path:
    frame = pl.DataFrame(
        {
            "ts": [datetime(2026, 1, 1, tzinfo=UTC)] * 3,
            "instrument": ["lend:ETH", "lend:USDC", "perps:ETH"],
            "kind": ["oracle"] * 3,
            "price": [1.0, 2.0, 3.0],
            "source": ["feed"] * 3,
        }
    ).with_columns(**columns)  # type: ignore[arg-type]
    path = folder / name
    frame.write_ipc(path) if name.endswith("arrow") else frame.write_parquet(path)
    return path


def text_file(content: str | bytes, name: str = "prices.csv") -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


def cut(name: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = parquet(folder, name)
        path.write_bytes(path.read_bytes()[:-20])
        return path

    return made


def scrambled(folder: Path) -> Path:
    path = parquet(folder)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) - 8):  # the footer, lengths and all
        content[place] ^= 0x5A
    path.write_bytes(bytes(content))
    return path


def zipped(members: dict[str, bytes], name: str = "prices.zip") -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return folder / name

    return made


def inner_zip() -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("prices.csv", PRICES)
    return buffer.getvalue()


def gz_cut(folder: Path) -> Path:
    path = folder / "prices.csv.gz"
    path.write_bytes(gzip.compress(PRICES.encode())[:-12])
    return path


def gz_bomb(folder: Path) -> Path:
    path = folder / "prices.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as packed:
        for _ in range(80):
            packed.write(b"1" * (1 << 20))
    return path


def giant_line(folder: Path) -> Path:
    path = folder / "prices.csv"
    path.write_text(PRICES_HEADER + "\n")
    os.truncate(path, 4 << 30)
    return path


def folder_without_files(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.md").write_text("x")
    return folder / "empty"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "prices.csv")
    return folder / "prices.csv"


def dangling(folder: Path) -> Path:
    (folder / "prices.csv").symlink_to(folder / "gone.csv")
    return folder / "prices.csv"


def unclosed(folder: Path) -> Path:
    return text_file(PRICES + f'{STAMP},"lend:ETH,spot,1,feed\n')(folder)


WIDE = ",".join(f"c{i}" for i in range(600)) + "\n"
BAD_FILES: dict[str, tuple[Callable[[Path], Path], type[UndertowError], str]] = {
    "a missing file": (lambda d: d / "prices.csv", UnreadableFile, "no such file"),
    "a name with NUL": (lambda d: d / "pri\0ces.csv", UnreadableFile, "no such file"),
    "an empty file": (text_file(b""), UnreadableFile, "is empty"),
    "a folder without files": (folder_without_files, UnreadableFile, "holds no file"),
    "a pipe": (fifo, UnreadableFile, "not a plain file"),
    "a device": (lambda _: Path("/dev/null"), UnreadableFile, "not a plain file"),
    "a link to nowhere": (dangling, UnreadableFile, "points nowhere"),
    "an unknown ending": (text_file(PRICES, "prices.xlsx"), UnreadableFile, "'.xlsx' is not known"),
    "a missing column": (
        text_file(PRICES.replace(",price", "").replace(",2500,", ",").replace(",2501,", ",")),
        SchemaError,
        "prices needs this column",
    ),
    "an extra column": (
        text_file(PRICES.replace("source", "source,note").replace("feed", "feed,x")),
        SchemaError,
        "no such column",
    ),
    "a column in another case": (
        text_file(PRICES.replace("price,", "Price,")),
        SchemaError,
        "did you mean 'price'",
    ),
    "a column with a blank": (
        text_file(PRICES.replace(",price", ", price")),
        SchemaError,
        "did you mean 'price'",
    ),
    "two columns of one name": (
        text_file(PRICES.replace("kind", "price")),
        SchemaError,
        "two columns have this name",
    ),
    "a column without a name": (
        text_file(PRICES.replace("kind", "")),
        SchemaError,
        "column 3 has no name",
    ),
    "no header": (text_file("\n" + PRICES), UnreadableFile, "the first line is no header"),
    "another separator": (text_file(PRICES.replace(",", ";")), SchemaError, "separator = ';'"),
    "an unclosed quote": (unclosed, UnreadableFile, "never closed"),
    "a quote in the middle": (
        text_file(f'{PRICES}{STAMP},"a"b,mark,1,f\n{STAMP},c"d",mark,1,f\n'),
        UnreadableFile,
        "not readable as csv",
    ),
    "NUL bytes": (text_file(PRICES.replace("feed", "fe\0ed")), UnreadableFile, "NUL byte"),
    "UTF-16": (text_file(PRICES.encode("utf-16")), UnreadableFile, "is UTF-16"),
    "UTF-16 without a mark": (text_file(PRICES.encode("utf-16-le")), UnreadableFile, "NUL byte"),
    "latin-1": (
        text_file(PRICES.replace("feed", "fèed").encode("latin-1")),
        UnreadableFile,
        "not UTF-8",
    ),
    "half a character at the end": (
        text_file(PRICES.encode() + b"\xc3"),
        UnreadableFile,
        "ends inside a character",
    ),
    "carriage returns alone": (
        text_file(PRICES.replace("\n", "\r")),
        UnreadableFile,
        "carriage returns",
    ),
    "four gigabytes in one line": (giant_line, UnreadableFile, "NUL byte"),
    "a long line": (
        text_file(PRICES + "x" * (3 << 20)),
        UnreadableFile,
        "longer than 1048576 bytes",
    ),
    "a long line of JSON": (
        text_file('{"a": "' + "x" * (3 << 20), "prices.ndjson"),
        UnreadableFile,
        "longer than",
    ),
    "too many columns": (text_file(WIDE), UnreadableFile, "600 columns, and 512 are taken"),
    "Parquet named as CSV": (
        lambda d: parquet(d).rename(d / "prices.csv"),
        UnreadableFile,
        "is Parquet",
    ),
    "CSV named as Parquet": (text_file(PRICES, "prices.parquet"), UnreadableFile, "is not Parquet"),
    "Parquet cut short": (cut("prices.parquet"), UnreadableFile, "cut short"),
    "Parquet of a few bytes": (
        text_file(b"PAR1PAR1", "prices.parquet"),
        UnreadableFile,
        "not readable",
    ),
    "Parquet scrambled": (scrambled, UnreadableFile, "not readable as parquet"),
    "Arrow cut short": (cut("prices.arrow"), UnreadableFile, "cut short"),
    "Arrow that is something else": (
        text_file(PRICES, "prices.feather"),
        UnreadableFile,
        "is not Arrow",
    ),
    "a column of lists": (
        lambda d: parquet(d, price=pl.Series([[1.0]] * 3)),
        SchemaError,
        "one value to a row",
    ),
    "a column of structs": (
        lambda d: parquet(d, price=pl.Series([{"a": 1.0}] * 3)),
        SchemaError,
        "one value to a row",
    ),
    "a column of bytes": (
        lambda d: parquet(d, source=pl.Series([b"\xff"] * 3)),
        SchemaError,
        "one value to a row",
    ),
    "a JSON array": (
        text_file(json.dumps([JSON_GOOD]), "prices.ndjson"),
        UnreadableFile,
        "one JSON array",
    ),
    "JSON over several lines": (
        text_file(json.dumps(JSON_GOOD, indent=1) + "\n", "prices.ndjson"),
        UnreadableFile,
        "no line of it is a JSON object",
    ),
    "JSON cut short": (
        text_file(json.dumps(JSON_GOOD) + '\n{"ts": "2026', "prices.ndjson"),
        UnreadableFile,
        "cut short",
    ),
    "JSON nested without end": (
        text_file("[" * 200_000 + "\n", "prices.ndjson"),
        UnreadableFile,
        "one JSON array",
    ),
    "gzip cut short": (gz_cut, UnreadableFile, "damaged or cut short"),
    "gzip that is none": (
        text_file(PRICES, "prices.csv.gz"),
        UnreadableFile,
        "damaged or cut short",
    ),
    "a gzip bomb": (gz_bomb, UnreadableFile, "unpacks to more than"),
    "a zip bomb": (
        zipped({"prices.csv": b"1" * (80 << 20)}),
        UnreadableFile,
        "unpacks to more than",
    ),
    "a zip that is none": (text_file(PRICES, "prices.zip"), UnreadableFile, "damaged or cut short"),
    "an empty zip": (zipped({}), UnreadableFile, "the archive is empty"),
    "a zip in a zip": (zipped({"prices.zip": inner_zip()}), UnreadableFile, "inside an archive"),
    "a zip in a zip by another name": (
        zipped({"prices.csv": inner_zip()}),
        UnreadableFile,
        "inside an archive",
    ),
    "a zip that climbs out": (
        zipped({"../prices.csv": PRICES.encode()}),
        UnreadableFile,
        "outside the archive",
    ),
    "a zip with an absolute name": (
        zipped({"/tmp/prices.csv": PRICES.encode()}),
        UnreadableFile,
        "outside the archive",
    ),
    "a zip with a backslash": (
        zipped({"a\\..\\..\\prices.csv": PRICES.encode()}),
        UnreadableFile,
        "outside the archive",
    ),
    "a zip with a control character": (
        zipped({"pri\x1bces.csv": PRICES.encode()}),
        UnreadableFile,
        "control characters",
    ),
    "a zip of other things": (zipped({"prices.exe": b"MZ"}), UnreadableFile, "ending is not known"),
    "a table that is none": (text_file(PRICES, "pricez.csv"), SchemaError, "did you mean 'prices'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_changes_nothing_and_says_what_to_do(
    lake: Lake, tmp_path: Path, name: str
) -> None:
    make, error, words = BAD_FILES[name]
    (tmp_path / "sent").mkdir()
    path = make(tmp_path / "sent")
    before = listing(tmp_path / "lake")
    started = time.monotonic()
    with pytest.raises(error) as caught:
        ingest_tables(lake, [path], now=T0 + SECOND)
    assert time.monotonic() - started < 10
    line = str(caught.value)
    assert words in line
    assert "; " in line, "a next step"
    assert "\n" not in line
    assert (path.name or str(path)) in line or "\0" in path.name
    assert str(tmp_path) not in line
    assert listing(tmp_path / "lake") == before
    assert isinstance(caught.value, SourceError | SchemaError)


def test_a_file_without_permission_is_refused() -> None:
    """Root may read everything, so as root the attempt is made as nobody."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = text_file(PRICES)(folder)
        path.chmod(0)
        before = os.geteuid()
        os.seteuid(65_534 if before == 0 else before)
        try:
            with pytest.raises(UnreadableFile, match="may not be read"):
                ingest_tables(Lake.at(folder / "lake"), [path], now=T0)
        finally:
            os.seteuid(before)
        assert not (folder / "lake").exists()


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (Limits(file_bytes=10), "MB are taken"),
        (Limits(rows=1), "more than 1 rows"),
        (Limits(columns=3), "3 are taken"),
        (Limits(line_bytes=20), "longer than 20 bytes"),
    ],
)
def test_limits_are_the_callers_to_set(
    lake: Lake, tmp_path: Path, limit: Limits, words: str
) -> None:
    path = text_file(PRICES)(tmp_path)
    with pytest.raises(UnreadableFile, match=words):
        ingest_tables(lake, [path], now=T0, limits=limit)


def test_limits_of_archives_and_rejects(lake: Lake, tmp_path: Path) -> None:
    many = zipped({f"{i}/prices.csv": PRICES.encode() for i in range(5)})(tmp_path)
    with pytest.raises(UnreadableFile, match="5 members, and 4 are taken"):
        ingest_tables(lake, [many], now=T0, limits=Limits(members=4))
    with pytest.raises(UnreadableFile, match="unpacks to more than 0 MB"):
        ingest_tables(lake, [many], now=T0, limits=Limits(unpacked_bytes=300))
    bad = text_file(PRICES_HEADER + "\n" + f"{STAMP},lend:ETH,mark,x,feed\n" * 5)(tmp_path)
    with pytest.raises(UnreadableFile, match="more than 4 rows cannot be taken"):
        ingest_tables(lake, [bad], now=T0, limits=Limits(rejects=4))
    rows = parquet(tmp_path)
    with pytest.raises(UnreadableFile, match="5 columns and 3 rows"):
        ingest_tables(lake, [rows], now=T0, limits=replace(Limits(), rows=2))


# --- odd but honest -------------------------------------------------------------------------------

ODD = {
    "a byte order mark": b"\xef\xbb\xbf" + PRICES.encode(),
    "carriage returns": PRICES.replace("\n", "\r\n").encode(),
    "no end to the last line": PRICES.rstrip("\n").encode(),
    "blank lines": PRICES.replace("\n", "\n\n").encode(),
    "quotes around everything": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in PRICES.splitlines()
    ).encode(),
    "time zones of two kinds": PRICES.replace(STAMP, "2026-01-01T01:00:00+01:00", 1).encode(),
    "a blank for the T": PRICES.replace("T00:", " 00:").encode(),
    "leading zeros and signs": PRICES.replace(",2500,", ",+0002500.0,").encode(),
    "exponents": PRICES.replace(",2500,", ",2.5e3,").encode(),
    "blanks around numbers": PRICES.replace(",2500,", ", 2500 ,").encode(),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_honest_files_bring_the_same_rows(lake: Lake, tmp_path: Path, name: str) -> None:
    report = ingest_tables(lake, [text_file(ODD[name])(tmp_path)], now=T0)
    assert (report.files[0].added, report.exit_code) == (2, 0), report.files[0].sample
    stored = lake.read("prices", columns=["ts", "instrument", "price"])
    assert stored["price"].to_list() == [2500.0, 2501.0]
    assert stored["ts"].to_physical().to_list() == [T0, T0]


def test_an_account_with_leading_zeros_is_the_number(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "positions.csv"
    path.write_text(f"{HEAD}\n{position(account='0001')}\n")
    assert ingest_tables(lake, [path], now=T0).exit_code == 0
    assert lake.read("positions")["account"].to_list() == [1]


def test_a_price_of_zero_is_a_price(lake: Lake, tmp_path: Path) -> None:
    """A worthless token has a price; only a negative one is impossible."""
    path = tmp_path / "prices.csv"
    path.write_text(f"{PRICES_HEADER}\n{price(price='0')}\n")
    assert ingest_tables(lake, [path], now=T0).exit_code == 0


def test_an_extra_column_may_be_ignored_when_the_mapping_says_so(
    lake: Lake, tmp_path: Path
) -> None:
    path = text_file(PRICES.replace("source", "source,note").replace("feed", "feed,x"))(tmp_path)
    mapping = ColumnMap.from_toml("ignore_other_columns = true")
    assert ingest_tables(lake, [path], now=T0, mapping=mapping).files[0].added == 2


def test_an_instant_outside_the_calendar_is_refused(lake: Lake, tmp_path: Path) -> None:
    stamps = pl.Series([T0, 2**62, T0]).cast(pl.Datetime("us", "UTC"))
    report = ingest_tables(lake, [parquet(tmp_path, ts=stamps)], now=T0)
    assert (report.files[0].added, report.files[0].rejected) == (2, 1)
    assert "row 2, column ts: an instant" in report.files[0].sample[0]
    assert "declare" not in report.files[0].sample[0]


@pytest.mark.parametrize("name", ["prices.parquet", "prices.arrow", "prices.csv", "prices.zip"])
def test_flipped_bytes_end_in_a_plain_error_or_in_rejects(
    lake: Lake, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import random

    if name == "prices.csv":
        path = text_file(PRICES)(tmp_path)
    elif name == "prices.zip":
        path = zipped({"prices.csv": PRICES.encode()})(tmp_path)
    else:
        path = parquet(tmp_path, name)
    whole, chance = path.read_bytes(), random.Random(7)
    lines: list[str] = []
    for _ in range(40):
        broken = bytearray(whole)
        for _ in range(chance.choice([1, 3, 20])):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(bytes(broken[: chance.choice([len(broken), len(broken) // 2])]))
        try:
            report = ingest_tables(lake, [path], now=T0, dry_run=True)
            assert report.exit_code in (0, 4)
        except UndertowError as error:
            lines.append(str(error))
    assert lines
    assert not any("\n" in line for line in lines)
    capfd.readouterr()  # the reader's own complaints over damaged Arrow
