"""Instants as people write them, and answers as people and programs read them."""

from __future__ import annotations

import json

import polars as pl
import pytest

from undertow.cli.options import UnusableOption, instant, iso
from undertow.cli.output import Answer, Progress, cell, number, plain, render

NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01", "2026-01-01T00:00:00Z"),
        ("2026-01-01T12:30Z", "2026-01-01T12:30:00Z"),
        ("2026-01-01T12:30:00+02:00", "2026-01-01T10:30:00Z"),
        ("2026-01-01 12:30:00.000001", "2026-01-01T12:30:00.000001Z"),
        ("now", "2026-01-01T00:00:00Z"),
        ("now-7d", "2025-12-25T00:00:00Z"),
        ("now-90m", "2025-12-31T22:30:00Z"),
        ("1767225600s", "2026-01-01T00:00:00Z"),
        ("1767225600000ms", "2026-01-01T00:00:00Z"),
        ("1767225600000000000ns", "2026-01-01T00:00:00Z"),
    ],
)
def test_an_instant_may_be_written_in_several_ways(text: str, expected: str) -> None:
    found = instant("--at", text, NOW)
    assert found is not None
    assert iso(found) == expected


@pytest.mark.parametrize("text", ["yesterday", "1767225600", "2026-13-01", "now+1d", "", "7d"])
def test_what_is_no_instant_is_refused_with_the_ways_to_write_one(text: str) -> None:
    with pytest.raises(UnusableOption, match="now-7d"):
        instant("--at", text, NOW)


def test_no_instant_is_none() -> None:
    assert instant("--at", None, NOW) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (0.1234567, "0.1235"), (123.456, "123.5"), (12_345.6, "12.35 k"),
        (-4.2e9, "-4.20 B"), (1e-7, "1.00e-07"), (float("inf"), "-"), (9_999.0, "9,999.0"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


def test_json_has_no_nan_and_instants_are_text() -> None:
    rows = pl.DataFrame({"a": [1.5, float("nan"), None]}).with_columns(
        ts=pl.datetime(2026, 1, 1, time_zone="UTC")
    )
    text = json.dumps(plain({"rows": rows.to_dicts()}), allow_nan=False)
    assert json.loads(text)["rows"][1] == {"a": None, "ts": "2026-01-01T00:00:00Z"}


def test_a_table_lines_up() -> None:
    lines = render(pl.DataFrame({"name": ["a", "bcd"], "usd": [1.0, 22_000.0]})).splitlines()
    assert lines == [
        "  name      usd",
        "  ────  ───────",
        "  a           1",
        "  bcd   22.00 k",
    ]
    assert "no rows" in render(pl.DataFrame({"name": []}))
    assert (cell(None), cell(True), cell(12345)) == ("-", "yes", "12,345")


@pytest.mark.parametrize("ending", [".csv", ".json", ".ndjson", ".parquet", ".arrow"])
def test_rows_go_to_a_file_whole(tmp_path, ending: str) -> None:
    file = tmp_path / f"rows{ending}"
    file.write_text("old")
    rows = pl.DataFrame({"a": [1, 2]})
    Answer(file=file, quiet=True).give("t", rows, {"as_of": "x"})
    readers = {".csv": pl.read_csv, ".ndjson": pl.read_ndjson, ".parquet": pl.read_parquet}
    if ending == ".json":
        assert json.loads(file.read_text()) == {"as_of": "x", "rows": rows.to_dicts()}
    else:
        assert readers.get(ending, pl.read_ipc)(file).equals(rows)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("name", ["rows.xlsx", "no/such/folder/rows.csv"])
def test_a_file_that_cannot_be_is_refused_before_any_work(tmp_path, name: str) -> None:
    with pytest.raises(UnusableOption, match="--output"):
        Answer(file=tmp_path / name)


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("work", quiet=False)
    bar(1, 2)
    bar(2, 2)
    assert capsys.readouterr().err == ""
