from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_files import (
    ACCOUNTS,
    POSITIONS,
    PRICES,
    PRICES_HEADER,
    SECOND,
    STAMP,
    T0,
    listing,
    reference_lake,
    write_reference,
)

from undertow.errors import SchemaError, SourceError, UnreadableFile
from undertow.store import Lake, Limits, ingest_tables


def lines(text: str) -> list[dict[str, str]]:
    header, *rows = text.strip().splitlines()
    return [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]


def frame_of(text: str) -> pl.DataFrame:
    return pl.read_csv(text.encode(), infer_schema=False)


def typed_prices() -> pl.DataFrame:
    return frame_of(PRICES).with_columns(
        pl.col("ts").str.to_datetime(time_zone="UTC"), pl.col("price").cast(pl.Float64)
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return reference_lake(tmp_path)


# --- formats --------------------------------------------------------------------------------------


def _as_csv(path: Path) -> Path:
    path.write_text(PRICES)
    return path


def _as_ndjson(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines(PRICES)))
    return path


def _as_parquet(path: Path) -> Path:
    typed_prices().write_parquet(path)
    return path


def _as_arrow(path: Path) -> Path:
    typed_prices().write_ipc(path)
    return path


def _as_stream(path: Path) -> Path:
    typed_prices().write_ipc_stream(path)
    return path


def _as_gz(path: Path) -> Path:
    with gzip.open(path, "wb") as packed:
        packed.write(PRICES.encode())
    return path


def _as_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export 2026.csv", PRICES)
    return path


FORMATS = {
    "prices.csv": _as_csv,
    "prices.tsv": lambda p: p.write_text(PRICES.replace(",", "\t")) and p,
    "prices.ndjson": _as_ndjson,
    "prices.jsonl": _as_ndjson,
    "prices.parquet": _as_parquet,
    "prices.arrow": _as_arrow,
    "prices.feather": _as_arrow,
    "prices.ipc": _as_stream,
    "prices.csv.gz": _as_gz,
    "prices.zip": _as_zip,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_brings_the_same_rows(lake: Lake, tmp_path: Path, name: str) -> None:
    report = ingest_tables(lake, [FORMATS[name](tmp_path / name)], now=T0 + SECOND)
    assert report.exit_code == 0
    assert report.files[0].table == "prices"
    assert (report.files[0].rows, report.files[0].added) == (2, 2)
    stored = lake.read("prices")
    assert stored.equals(typed_prices().select(stored.columns).sort("instrument"))


def test_an_archive_of_several_tables_is_taken_in_the_order_of_their_dependence(
    tmp_path: Path,
) -> None:
    write_reference(tmp_path / "ref")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("data/positions.csv", POSITIONS)
        for name in ("accounts", "instruments", "venues", "assets"):
            archive.write(tmp_path / "ref" / f"{name}.csv", f"data/{name}.csv")
        archive.writestr("__MACOSX/._venues.csv", "x")
    lake = Lake.at(tmp_path / "lake")
    report = ingest_tables(lake, [tmp_path / "all.zip"], now=T0)
    names = ["assets", "venues", "instruments", "accounts", "positions"]
    assert [f.table for f in report.files] == names
    assert report.files[4].file == "all.zip/data/positions.csv"
    assert report.exit_code == 0
    assert lake.read("positions").height == 4


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    write_reference(folder)
    typed_prices().write_parquet(folder / "prices.parquet")
    (folder / "README.md").write_text("notes")
    (folder / ".hidden.csv").write_text("x")
    lake = Lake.at(tmp_path / "lake")
    report = ingest_tables(lake, [folder], now=T0)
    names = ["assets", "venues", "instruments", "accounts", "prices"]
    assert [f.table for f in report.files] == names
    assert report.exit_code == 0


def test_the_table_can_be_named_for_a_file_of_another_name(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "export-2026.csv"
    path.write_text(PRICES)
    with pytest.raises(SchemaError, match="no table is called 'export-2026'"):
        ingest_tables(lake, [path], now=T0)
    assert ingest_tables(lake, [path], now=T0, table="prices").files[0].added == 2


# --- the same content gives the same rows ---------------------------------------------------------

_KINDS = st.sampled_from(["spot", "mark", "index", "oracle"])
_PRICES = st.lists(
    st.tuples(
        st.integers(0, 10**12),
        st.sampled_from(["lend:ETH", "lend:USDC", "perps:ETH"]),
        _KINDS,
        st.integers(0, 2**20).map(lambda n: n / 16),  # the same in 32 and 64 bits
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[:3],
)


@settings(max_examples=12)
@given(rows=_PRICES, data=st.data())
def test_order_of_columns_and_rows_width_of_types_and_batches_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str, float]],
    data: st.DataObject,
) -> None:
    frame = pl.DataFrame(rows, schema=["ts", "instrument", "kind", "price"], orient="row")
    frame = frame.with_columns(
        (pl.col("ts") + T0).cast(pl.Datetime("us", "UTC")), source=pl.lit("feed")
    )
    folder = tmp_path_factory.mktemp("width")
    width = data.draw(st.sampled_from([pl.Float32, pl.Float64, pl.Decimal(38, 6), pl.String]))
    names = data.draw(st.sampled_from([pl.String, pl.Categorical]))
    order = data.draw(st.permutations(frame.columns))
    mixed = frame[data.draw(st.permutations(range(frame.height)))].select(order)
    mixed = mixed.cast({"price": width, "instrument": names})
    path = folder / "prices.parquet"
    if width is pl.Float32 or data.draw(st.booleans()):  # a float of 32 bits is spelled shorter
        mixed.write_parquet(path, row_group_size=data.draw(st.integers(1, 10)))
    else:
        path = folder / "prices.csv"
        mixed.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")).write_csv(
            path, quote_style=data.draw(st.sampled_from(["necessary", "always"]))
        )
    lake = Lake.at(folder / "lake")
    ingest_tables(lake, write_reference(folder / "ref"), now=T0)
    size = data.draw(st.integers(1, 30))
    report = ingest_tables(lake, [path], now=T0, batch_rows=size)
    assert report.exit_code == 0
    assert report.files[0].added == frame.height
    newest = frame.sort("ts").unique(["instrument", "kind"], keep="last").sort("instrument", "kind")
    stored = lake.read("prices")
    assert stored.equals(newest.select(stored.columns))
    assert lake.root.at_least("prices").count() == frame.height
    assert lake.verify().findings == ()


@settings(max_examples=40)
@given(
    cells=st.lists(
        st.lists(
            st.text(
                st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n"),
                max_size=8,
            ),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=12,
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_a_csv_is_split_as_the_standard_library_splits_it(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], ending: str, last: bool
) -> None:
    import csv
    import io

    from undertow.store.files import ROW, open_file
    from undertow.store.unpack import Source

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b"], *cells])
    content = text.getvalue() if last else text.getvalue().removesuffix(ending)
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(content.encode())
    opened = open_file(Source(path, "x.csv", "x", "csv"), Limits(), rows=3)
    rows = [row for chunk in opened.chunks for row in chunk.frame.drop(ROW).rows()]
    assert [[v or "" for v in row] for row in rows] == cells


# --- again, and again with changes ----------------------------------------------------------------


def test_the_same_file_again_adds_nothing(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "positions.csv"
    path.write_text(POSITIONS + f"{STAMP},1,lend:ETH,debt,x,,chain,observed\n")
    first = ingest_tables(lake, [path], now=T0 + SECOND)
    before = listing(tmp_path / "lake")
    again = ingest_tables(lake, [path], now=T0 + 2 * SECOND)
    assert listing(tmp_path / "lake") == before
    assert (first.files[0].added, first.files[0].rejected, first.exit_code) == (4, 1, 4)
    one = again.files[0]
    assert (one.rows, one.added, one.known, one.rejected, again.exit_code) == (5, 0, 4, 1, 4)
    assert one.sample == first.files[0].sample
    assert first.files[0].run == one.run


def test_rows_refused_for_a_missing_name_are_taken_once_the_name_is_known(tmp_path: Path) -> None:
    lake, path = Lake.create(tmp_path / "lake"), tmp_path / "positions.csv"
    path.write_text(POSITIONS)
    early = ingest_tables(lake, [path], now=T0).files[0]
    assert (early.added, early.rejected) == (0, 4)
    before = listing(tmp_path / "lake")
    assert ingest_tables(lake, [path], now=T0).files[0] == early
    assert listing(tmp_path / "lake") == before
    ingest_tables(lake, write_reference(tmp_path / "ref"), now=T0)
    rehearsal = ingest_tables(lake, [path], now=T0, dry_run=True)
    report = ingest_tables(lake, [path], now=T0)
    assert report.files == rehearsal.files
    late = report.files[0]
    assert (late.added, late.known, late.rejected, report.exit_code) == (4, 0, 0, 0)
    assert late.run != early.run
    before = listing(tmp_path / "lake")
    rehearsal = ingest_tables(lake, [path], now=T0, dry_run=True)
    again = ingest_tables(lake, [path], now=T0)
    assert again.files == rehearsal.files
    assert listing(tmp_path / "lake") == before
    one = again.files[0]
    assert (one.run, one.added, one.known, one.rejected) == (late.run, 0, 4, 0)
    assert again.exit_code == 0
    assert lake.read("positions").height == 4
    assert lake.verify().findings == ()


def test_a_further_attempt_adds_what_is_new_and_refuses_the_rest_with_todays_reasons(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "positions.csv"
    more = f"{STAMP},9,lend:ETH,supply,1,,chain,observed\n"
    path.write_text(POSITIONS + more + more.replace(",9,", ",8,"))
    first = ingest_tables(lake, [path], now=T0).files[0]
    assert (first.added, first.known, first.rejected) == (4, 0, 2)
    names = tmp_path / "accounts.csv"
    names.write_text(ACCOUNTS.splitlines()[0] + f"\n{STAMP},9,lend,0xc,cross,cross\n")
    ingest_tables(lake, [names], now=T0)
    rehearsal = ingest_tables(lake, [path], now=T0, dry_run=True)
    second = ingest_tables(lake, [path], now=T0)
    assert second.files == rehearsal.files
    one = second.files[0]
    assert (one.added, one.known, one.rejected, second.exit_code) == (1, 4, 1, 4)
    assert "unknown account '8'" in one.sample[0]
    assert len({one.run, first.run}) == 2
    third = ingest_tables(lake, [path], now=T0).files[0]
    assert (third.run, third.added, third.known, third.rejected) == (one.run, 0, 5, 1)
    assert lake.read("rejects")["run_of"].to_list().count(one.run) == 1
    assert lake.verify().findings == ()


def test_a_further_attempt_cut_short_is_completed_by_giving_the_file_again(tmp_path: Path) -> None:
    from undertow.store import runs

    class Stopped(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    lake, path = Lake.create(tmp_path / "lake"), tmp_path / "positions.csv"
    path.write_text(POSITIONS)
    ingest_tables(lake, [path], now=T0)
    ingest_tables(lake, write_reference(tmp_path / "ref"), now=T0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "conclude", stop)
        with pytest.raises(Stopped):
            ingest_tables(lake, [path], now=T0, batch_rows=1)
    assert lake.read("positions").is_empty()
    report = ingest_tables(lake, [path], now=T0, batch_rows=1).files[0]
    assert (report.added, report.rejected) == (4, 0)
    assert lake.root.at_least("positions").count() == 4
    assert lake.verify().findings == ()


def test_an_attempt_opened_before_the_names_were_known_is_completed_and_judged_again(
    tmp_path: Path,
) -> None:
    from undertow.store import runs

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    lake, path = Lake.create(tmp_path / "lake"), tmp_path / "positions.csv"
    path.write_text(POSITIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "conclude", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest_tables(lake, [path], now=T0)
    ingest_tables(lake, write_reference(tmp_path / "ref"), now=T0)
    report = ingest_tables(lake, [path], now=T0)
    assert (report.files[0].added, report.exit_code) == (4, 0)
    assert lake.verify().findings == ()


def test_the_same_content_in_another_wrapping_is_the_same_run(lake: Lake, tmp_path: Path) -> None:
    first = ingest_tables(lake, [_as_csv(tmp_path / "prices.csv")], now=T0)
    packed = ingest_tables(lake, [_as_gz(tmp_path / "prices.csv.gz")], now=T0)
    assert packed.files[0].run == first.files[0].run
    assert packed.files[0].added == 0


def test_rows_known_from_another_file_are_counted_and_new_ones_added(
    lake: Lake, tmp_path: Path
) -> None:
    ingest_tables(lake, [_as_csv(tmp_path / "prices.csv")], now=T0)
    more = tmp_path / "more.csv"
    more.write_text(PRICES + f"{STAMP},lend:USDC,oracle,1,feed\n")
    report = ingest_tables(lake, [more], now=T0 + SECOND, table="prices")
    assert (report.files[0].added, report.files[0].known) == (1, 2)
    assert lake.root.at_least("prices").count() == 3


def test_a_row_that_contradicts_a_known_one_is_refused_and_a_newer_ts_corrects_it(
    lake: Lake, tmp_path: Path
) -> None:
    ingest_tables(lake, [_as_csv(tmp_path / "prices.csv")], now=T0)
    other = tmp_path / "other.csv"
    other.write_text(f"{PRICES_HEADER}\n{STAMP},lend:ETH,oracle,2400,feed\n")
    report = ingest_tables(lake, [other], now=T0 + SECOND, table="prices")
    assert (report.files[0].added, report.files[0].rejected) == (0, 1)
    assert (
        "already known with other values; give a correction a newer ts" in report.files[0].sample[0]
    )
    other.write_text(f"{PRICES_HEADER}\n2026-01-01T00:00:01Z,lend:ETH,oracle,2400,feed\n")
    assert ingest_tables(lake, [other], now=T0 + SECOND, table="prices").files[0].added == 1
    assert lake.read("prices", columns=["price"]).to_series().to_list() == [2400.0, 2501.0]


def test_a_repeated_key_is_found_across_batches_and_the_first_row_is_kept(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES + PRICES.splitlines()[1].replace("2500", "2600") + "\n")
    report = ingest_tables(lake, [path], now=T0, batch_rows=1)
    assert (report.files[0].added, report.files[0].rejected) == (2, 1)
    reject = lake.read("rejects").row(0, named=True)
    assert (reject["row"], reject["table"], reject["file"]) == (3, "prices", "prices.csv")
    assert "stands already in row 1" in reject["reason"]
    assert json.loads(reject["content"])["price"] == "2600"
    assert lake.read("prices")["price"].to_list() == [2500.0, 2501.0]


def test_an_ingestion_taken_up_again_cuts_the_same_batches(lake: Lake, tmp_path: Path) -> None:
    """Between the first try and the second, another file brought some of the same rows."""
    from undertow.store import ingest

    rows = [f"{STAMP},lend:ETH,{kind},{n + 1},feed" for n, kind in enumerate(("mark", "spot"))]
    rows += [f"{STAMP},lend:USDC,{kind},{n + 1},feed" for n, kind in enumerate(("mark", "spot"))]
    path = tmp_path / "prices.csv"
    path.write_text("\n".join([PRICES_HEADER, *rows]) + "\n")
    taken: list[int] = []
    real = ingest._Taker._append

    class Stopped(Exception):
        pass

    def short(self: ingest._Taker, made: object, name: str, frame: object, batch: int) -> int:
        if batch == 2:
            raise Stopped
        taken.append(batch)
        return real(self, made, name, frame, batch)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest._Taker, "_append", short)
        with pytest.raises(Stopped):
            ingest_tables(lake, [path], now=T0 + SECOND, batch_rows=1)
    assert taken == [0, 1]
    assert lake.read("prices").height == 0
    assert [f.kind for f in lake.verify().findings] == ["incomplete"]
    other = tmp_path / "some.csv"
    other.write_text("\n".join([PRICES_HEADER, rows[0], rows[3]]) + "\n")
    ingest_tables(lake, [other], now=T0 + 2 * SECOND, table="prices")
    report = ingest_tables(lake, [path], now=T0 + 3 * SECOND, batch_rows=1)
    assert (report.files[0].added, report.exit_code) == (4, 0)
    assert lake.read("prices")["price"].to_list() == [1.0, 2.0, 1.0, 2.0]
    assert lake.verify().findings == ()


# --- several files at once ------------------------------------------------------------------------


def test_one_bad_file_keeps_all_the_others_out(tmp_path: Path) -> None:
    good = write_reference(tmp_path / "ref")
    bad = tmp_path / "prices.parquet"
    bad.write_bytes(b"PAR1 but not really")
    with pytest.raises(UnreadableFile, match="is cut short"):
        ingest_tables(Lake.at(tmp_path / "lake"), [*good, bad], now=T0)
    assert not (tmp_path / "lake").exists()


def test_names_may_come_in_the_same_call_in_any_order(tmp_path: Path) -> None:
    positions = tmp_path / "positions.csv"
    positions.write_text(POSITIONS)
    paths = [positions, *reversed(write_reference(tmp_path / "ref"))]
    lake = Lake.at(tmp_path / "lake")
    rehearsal = ingest_tables(lake, paths, now=T0, dry_run=True)
    report = ingest_tables(lake, paths, now=T0)
    assert report.exit_code == rehearsal.exit_code == 0
    assert report.files == rehearsal.files


def test_a_rehearsal_writes_nothing_not_even_the_folder(tmp_path: Path) -> None:
    paths = write_reference(tmp_path / "ref")
    bad = tmp_path / "accounts.csv"
    bad.write_text(
        ACCOUNTS + f"{STAMP},7,nowhere,0xc,cross,cross\n{STAMP},1,lend,0xz,cross,cross\n"
    )
    report = ingest_tables(Lake.at(tmp_path / "lake"), [*paths, bad], now=T0, dry_run=True)
    assert not (tmp_path / "lake").exists()
    assert report.dry_run
    assert report.exit_code == 4
    assert report.files[4].rejected == 2  # an unknown venue; an account that contradicts the first
    assert report.files[4].known == 3
    assert report.as_json()["files"][0]["table"] == "assets"
    assert json.dumps(report.as_json())


def test_a_rehearsal_leaves_a_lake_as_it_is(lake: Lake, tmp_path: Path) -> None:
    before = listing(tmp_path / "lake")
    report = ingest_tables(lake, [_as_csv(tmp_path / "prices.csv")], now=T0, dry_run=True)
    assert report.files[0].added == 2
    assert listing(tmp_path / "lake") == before


def test_progress_runs_to_the_end(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    ingest_tables(
        Lake.at(tmp_path / "lake"),
        write_reference(tmp_path / "ref"),
        now=T0,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1]


def test_nothing_to_ingest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file to read"):
        ingest_tables(Lake.at(tmp_path / "lake"), [], now=T0)


@pytest.mark.parametrize("name", ["runs", "rejects"])
def test_what_undertow_writes_itself_cannot_be_ingested(
    lake: Lake, tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text("run\nx\n")
    with pytest.raises(SchemaError, match="written by undertow alone"):
        ingest_tables(lake, [path], now=T0)


def test_a_header_without_rows_brings_nothing_and_is_no_fault(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES_HEADER + "\n")
    report = ingest_tables(lake, [path], now=T0)
    assert (report.files[0].rows, report.exit_code) == (0, 0)


def test_history_names_the_file_and_its_rejects(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES + f"{STAMP},lend:XXX,oracle,1,feed\n")
    run = ingest_tables(lake, [path], now=T0 + SECOND).files[0].run
    detail = json.loads(lake.history().runs.row(0, named=True)["detail"])
    assert (detail["file"], detail["rows"], detail["rejected"]) == ("prices.csv", 3, 1)
    commits = lake.history().commits.filter(pl.col("run") == run)
    assert set(commits["source"].drop_nulls()) == {"prices.csv"}
    assert set(commits["table"]) == {"rejects", "prices", "runs"}
