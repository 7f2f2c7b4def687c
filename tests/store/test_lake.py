from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_files import SECOND, T0, listing, prices_frame

from undertow.errors import NoLake, NoRun, SchemaError, StoreError
from undertow.schema import TABLES
from undertow.store import Lake, read_tables
from undertow.store.delta import append
from undertow.store.lake import stamped
from undertow.store.load import position_instants


def put(lake: Lake, rows: list[tuple[int, str, float]], now: int, source: str = "feed") -> str:
    return lake.write({"prices": prices_frame(rows, source)}, kind="ingest", now=now).run


def holdings(ts: int, rows: list[tuple[int, float]], source: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"account": pl.Int64, "qty": pl.Float64}, orient="row").select(
        pl.lit(ts).cast(pl.Datetime("us", "UTC")).alias("ts"),
        "account",
        pl.lit("v:ETH").alias("instrument"),
        pl.lit("perp").alias("kind"),
        "qty",
        pl.lit(None, pl.Float64).alias("entry"),
        pl.lit(source).alias("source"),
        pl.lit("observed").alias("evidence"),
    )


def seen(lake: Lake, **bounds: int) -> list[tuple[str, float]]:
    return lake.read("prices", **bounds).select("instrument", "price").rows()


# --- places ---------------------------------------------------------------------------------------


def test_opening_a_place_without_a_lake_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoLake, match="there is no lake here") as caught:
        Lake.open(tmp_path / "none")
    assert "undertow ingest" in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(StoreError, match=r"holds other things \('thesis.txt'\)"):
        Lake.create(tmp_path)
    assert listing(tmp_path) == before


def test_somebody_elses_delta_table_is_refused(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(tmp_path / "runs", pl.DataFrame({"a": [1]}))
    for opening in (Lake.open, Lake.create):
        with pytest.raises(NoLake, match="undertow did not write"):
            opening(tmp_path)


def test_a_lake_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("undertow.store.delta.FORMAT", "99")
        patch.setattr("undertow.store.runs.FORMAT", "99")
        Lake.create(tmp_path / "lake")
    with pytest.raises(NoLake, match="format 99"):
        Lake.open(tmp_path / "lake")


def test_making_a_lake_twice_keeps_what_is_in_it(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], T0)
    assert seen(Lake.create(tmp_path / "lake")) == [("a", 1.0)]


def test_a_local_folder_may_be_given_as_an_address(tmp_path: Path) -> None:
    lake = Lake.create((tmp_path / "my lake").as_uri())
    put(lake, [(T0, "a", 1.0)], T0)
    assert seen(Lake.open(tmp_path / "my lake")) == [("a", 1.0)]
    with pytest.raises(NoLake, match="address of the lake is empty"):
        Lake.at("")


def test_secrets_of_an_object_store_are_not_shown() -> None:
    lake = Lake.at("s3://bucket/lake", storage_options={"aws_secret_access_key": "hush"})
    assert "hush" not in repr(lake)
    assert lake.root.folder is None
    assert lake.root.table_uri("prices") == "s3://bucket/lake/prices"


# --- two times ------------------------------------------------------------------------------------


def test_what_was_known_and_what_held_are_two_questions(tmp_path: Path) -> None:
    """A price of 9 o'clock is corrected at noon, by a row that says the same instant was wrong."""
    nine, ten, noon = T0, T0 + 3600 * SECOND, T0 + 3 * 3600 * SECOND
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(nine, "eth", 100.0)], now=nine)
    put(lake, [(ten, "eth", 110.0)], now=ten)
    put(lake, [(nine + 1, "eth", 101.0)], now=noon)
    assert seen(lake) == [("eth", 110.0)]
    assert seen(lake, at=nine + 2) == [("eth", 101.0)]  # what held, as it is known now
    assert seen(lake, at=nine + 2, as_of=ten) == [("eth", 100.0)]  # as it was known at ten
    assert seen(lake, as_of=nine) == [("eth", 100.0)]
    assert seen(lake, as_of=noon, at=nine) == [("eth", 100.0)]
    with pytest.raises(NoRun, match="no run was complete at 2025") as caught:
        lake.read("prices", as_of=nine - 86_400 * SECOND)
    assert "the first was committed at 2026-01-01" in str(caught.value)


def test_an_instant_may_be_a_datetime_with_a_zone(tmp_path: Path) -> None:
    from datetime import datetime

    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "eth", 100.0)], now=T0)
    day = datetime.fromisoformat("2026-01-01T01:00:00+01:00")
    assert lake.read("prices", as_of=day, at=day).height == 1
    with pytest.raises(StoreError, match="names no time zone"):
        lake.read("prices", at=day.replace(tzinfo=None))


def test_an_empty_lake_has_no_run(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match="no complete run yet"):
        Lake.create(tmp_path / "lake").read("prices")


def test_runs_committed_at_one_instant_keep_their_order(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    names = [put(lake, [(T0 + i, "eth", float(i))], now=T0) for i in range(4)]
    stood = [lake.standing(run=name) for name in names]
    committed = [each.committed for each in stood]
    assert committed == sorted(set(committed))
    assert [seen(lake, run=name)[0][1] for name in names] == [0.0, 1.0, 2.0, 3.0]  # type: ignore[arg-type]


def test_latest_takes_the_newest_row_of_each_key_and_the_newest_run_where_they_tie(
    tmp_path: Path,
) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0), (T0 + 5, "b", 2.0)], now=T0, source="one")
    put(lake, [(T0, "a", 7.0), (T0, "b", 8.0)], now=T0 + SECOND, source="two")
    assert seen(lake) == [("a", 7.0), ("b", 2.0)]


def test_a_snapshot_is_whole_by_source_and_what_is_gone_is_gone(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    for ts, rows, source in (
        (T0, [(1, 1.0), (2, 2.0)], "chain"),
        (T0 + 10, [(3, 3.0)], "desk"),
        (T0 + 20, [(2, 2.5)], "chain"),
    ):
        lake.write({"positions": holdings(ts, rows, source)}, kind="ingest", now=ts * 2)
    take = ["account", "qty"]
    assert lake.read("positions", columns=take).rows() == [(2, 2.5), (3, 3.0)]
    assert lake.read("positions", columns=take, at=T0 + 19).rows() == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert lake.read("positions", columns=take, at=T0 + 9).rows() == [(1, 1.0), (2, 2.0)]
    assert lake.read("positions", columns=take, at=T0 - 1).rows() == []
    assert position_instants(lake, T0 + 99) == [T0, T0 + 10, T0 + 20]
    assert position_instants(lake, T0 + 19) == [T0, T0 + 10]
    assert position_instants(lake, T0 - 1) == []
    assert position_instants(lake, T0 + 99, as_of=T0 * 2) == [T0]


def test_a_log_keeps_every_row(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    rows = pl.DataFrame(
        {
            "ts": [T0, T0 + 1, T0 + 2],
            "instrument": ["p"] * 3,
            "rate": [0.1, 0.2, 0.3],
            "interval_us": [3_600_000_000] * 3,
            "rate_per_hour": [0.1, 0.2, 0.3],
            "source": ["feed"] * 3,
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    lake.write({"funding": rows}, kind="ingest", now=T0)
    lake.write({"funding": rows.tail(2)}, kind="ingest", now=T0 + SECOND)  # the same rows again
    assert lake.read("funding")["rate"].to_list() == [0.1, 0.2, 0.3]
    assert lake.read("funding", at=T0 + 1)["rate"].to_list() == [0.1, 0.2]


def test_a_table_nobody_wrote_is_empty_with_its_columns(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], now=T0)
    for name, table in TABLES.items():
        frame = lake.read(name)
        assert frame.columns == list(table.column_names)
        assert frame.height == (1 if name in ("prices", "runs") else 0)


def test_columns_are_checked_and_the_run_can_be_asked_for(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    run = put(lake, [(T0, "a", 1.0)], now=T0)
    assert lake.read("prices", columns=["run", "price"]).rows() == [(run, 1.0)]
    with pytest.raises(SchemaError, match="no column 'prize'"):
        lake.read("prices", columns=["prize"])


def test_tables_read_together_stand_on_one_run(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], now=T0)
    stands = lake.standing()
    put(lake, [(T0 + 1, "a", 2.0)], now=T0 + SECOND)
    tables = read_tables(lake, ["prices", "venues"], standing=stands)
    assert tables["prices"]["price"].to_list() == [1.0]
    assert lake.read("prices", version=stands.versions["prices"])["price"].to_list() == [1.0]
    assert lake.read("prices", run=stands.run)["price"].to_list() == [1.0]


def test_a_run_that_never_was_is_refused(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], now=T0)
    with pytest.raises(NoRun, match="no complete run is called 'nope'"):
        lake.read("prices", run="nope")


# --- runs -----------------------------------------------------------------------------------------


def test_a_half_finished_run_under_a_complete_one_is_not_seen(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], now=T0)
    half = stamped(prices_frame([(T0 + 9, "a", 9.0), (T0 + 9, "z", 9.0)]), "half")
    append(lake.root, "prices", half, run="half", batch=0, lineage={})
    put(lake, [(T0 + 1, "b", 2.0)], now=T0 + SECOND)  # names a version that holds the half
    assert seen(lake) == [("a", 1.0), ("b", 2.0)]
    before = lake.verify()
    assert before.sound
    assert [(f.kind, f.table) for f in before.findings] == [("incomplete", "prices")]
    assert "ingest the same files again" in before.findings[0].hint
    lake.compact(now=T0 + 2 * SECOND)  # now the half lies in one file with the others
    assert seen(lake) == [("a", 1.0), ("b", 2.0)]
    assert lake.verify().sound


def test_a_batch_lands_once_whoever_writes_it(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    rows = stamped(prices_frame([(T0, "a", 1.0)]), "r")
    first = append(lake.root, "prices", rows, run="r", batch=0, lineage={})
    assert append(lake.root, "prices", rows, run="r", batch=0, lineage={}) == first
    assert append(lake.root, "prices", rows, run="r", batch=1, lineage={}) == first + 1


def test_a_lost_race_for_one_transaction_is_noticed_and_not_repeated(tmp_path: Path) -> None:
    """Two handles of one version: the second commit of a transaction is refused by Delta."""
    from deltalake.exceptions import CommitFailedError

    from undertow.store.delta import commit

    lake = Lake.create(tmp_path / "lake")
    rows = stamped(prices_frame([(T0, "a", 1.0)]), "r")
    lake.root.ensure("prices")
    quick, slow = lake.root.open("prices"), lake.root.open("prices")
    assert quick is not None
    assert slow is not None
    commit(quick, rows, {"r": 0}, {})
    with pytest.raises(CommitFailedError):
        commit(slow, rows, {"r": 0}, {})
    append(lake.root, "prices", rows, run="r", batch=0, lineage={})
    assert lake.root.at_least("prices").count() == 1


def test_the_same_content_again_adds_nothing(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    rows = prices_frame([(T0, "a", 1.0), (T0, "b", 2.0)])
    first = lake.write({"prices": rows}, kind="world", now=T0)
    shuffled = rows.reverse().select(reversed(rows.columns))
    second = lake.write({"prices": shuffled}, kind="world", now=T0 + SECOND)
    assert first.added == {"prices": 2}
    assert second.added == {"prices": 0}
    assert first.run == second.run
    assert lake.history().runs.height == 1


def test_a_frame_with_a_fault_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    lake = Lake.at(tmp_path / "lake")
    with pytest.raises(SchemaError, match="below 0"):
        lake.write({"prices": prices_frame([(T0, "a", -1.0)])}, kind="world", now=T0)
    assert not (tmp_path / "lake").exists()


def test_a_clock_is_asked_when_the_run_is_complete(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    asked: list[str] = []

    def clock() -> int:
        asked.append("now")
        return T0 + 7 * SECOND

    progress: list[tuple[int, int]] = []
    lake.write(
        {"prices": prices_frame([(T0, "a", 1.0), (T0, "b", 1.0)])},
        kind="world",
        now=clock,
        batch_rows=1,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert asked == ["now"]
    assert lake.standing().committed == T0 + 7 * SECOND
    assert progress == [(1, 2), (2, 2)]


def test_merging_adds_only_what_differs_from_what_holds(tmp_path: Path) -> None:
    lake = Lake.at(tmp_path / "lake")
    first = lake.merge("prices", prices_frame([(T0, "a", 1.0), (T0, "b", 2.0)]), now=T0)
    same = lake.merge("prices", prices_frame([(T0 + 1, "a", 1.0), (T0 + 1, "b", 2.0)]), now=T0 + 1)
    some = lake.merge("prices", prices_frame([(T0 + 2, "a", 1.0), (T0 + 2, "b", 3.0)]), now=T0 + 2)
    assert [w.added["prices"] for w in (first, same, some)] == [2, 0, 1]
    assert same.run == first.run
    assert seen(lake) == [("a", 1.0), ("b", 3.0)]


def test_merging_a_snapshot_adds_all_of_it_or_nothing(tmp_path: Path) -> None:
    lake = Lake.at(tmp_path / "lake")
    take = ["account", "qty"]
    lake.merge("positions", holdings(T0, [(1, 1.0), (2, 2.0)], "s"), now=T0)
    same = lake.merge("positions", holdings(T0 + 1, [(1, 1.0), (2, 2.0)], "s"), now=T0)
    assert same.added == {"positions": 0}
    fewer = lake.merge("positions", holdings(T0 + 2, [(1, 1.0)], "s"), now=T0)
    assert fewer.added == {"positions": 1}
    assert lake.read("positions", columns=take).rows() == [(1, 1.0)]


@pytest.mark.parametrize("name", ["", "x" * 61, "a\nb"])
def test_a_run_has_a_short_plain_name(tmp_path: Path, name: str) -> None:
    lake = Lake.at(tmp_path / "lake")
    rows = {"prices": prices_frame([(T0, "a", 1.0)])}
    if name == "":
        assert len(lake.write(rows, kind="world", now=T0, run=name).run) == 32
        return
    with pytest.raises(SchemaError, match="a run cannot be called"):
        lake.write(rows, kind="world", now=T0, run=name)


# --- layout ---------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 40), st.sampled_from("abcdefgh"), st.sampled_from(["one", "two ü/%"])
        ),
        min_size=1,
        max_size=30,
        unique=True,
    ),
    cut=st.integers(1, 30),
    data=st.data(),
)
def test_what_is_read_does_not_depend_on_files_batches_or_merging(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str]],
    cut: int,
    data: st.DataObject,
) -> None:
    frame = pl.concat(
        [prices_frame([(T0 + ts, name, float(ts))], source) for ts, name, source in rows]
    )
    one = Lake.at(tmp_path_factory.mktemp("one") / "lake")
    one.write({"prices": frame}, kind="world", now=T0)
    many = Lake.at(tmp_path_factory.mktemp("many") / "lake")
    mixed = frame[data.draw(st.permutations(range(frame.height)))]
    size = data.draw(st.integers(1, 5))
    for part in (mixed.head(cut), mixed.slice(cut)):
        if part.height:
            many.write({"prices": part}, kind="world", now=T0, batch_rows=size)
    at = T0 + data.draw(st.integers(-1, 41))
    # equal keys at one instant are a tie between runs; leave the value out where sources tie
    take = ["instrument", "kind", "ts", "price"]
    expected = one.read("prices", at=at, columns=take)
    assert many.read("prices", at=at, columns=take).equals(expected)
    many.compact(now=T0)
    assert many.read("prices", at=at, columns=take).equals(expected)
    assert many.verify().findings == ()


def test_merging_files_keeps_every_run_and_every_version_readable(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    names = [
        put(lake, [(T0 + i, "eth", float(i)), (T0 + i, f"x{i}", 1.0)], T0 + i * SECOND)
        for i in range(6)
    ]
    lake.write({"positions": holdings(T0, [(1, 1.0)], "a b")}, kind="ingest", now=T0 + 9 * SECOND)
    lake.write({"positions": holdings(T0, [(1, 1.0)], "c")}, kind="ingest", now=T0 + 9 * SECOND)
    before = {run: lake.read("prices", run=run) for run in names}
    newest = {name: lake.read(name) for name in ("prices", "positions")}
    versions = {v: lake.read("prices", version=v) for v in range(1, 7)}
    after = lake.compact(now=T0 + 20 * SECOND)
    assert after.kind == "compact"
    put(lake, [(T0 + 7, "eth", 7.0)], T0 + 30 * SECOND)
    again = lake.compact(now=T0 + 40 * SECOND)
    assert lake.compact(now=T0 + 50 * SECOND).run == again.run  # nothing left to merge
    for run, frame in before.items():
        assert lake.read("prices", run=run).equals(frame)
    for version, frame in versions.items():
        assert lake.read("prices", version=version).equals(frame)
    for name, frame in newest.items():
        assert lake.read(name, as_of=T0 + 19 * SECOND).equals(frame)
        assert lake.read(name, run=after.run).equals(frame)
    assert lake.verify().findings == ()
    live = lake.root.at_least("prices").file_uris()
    assert len(live) == 1


def test_merging_removes_what_no_run_can_reach(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    put(lake, [(T0, "a", 1.0)], T0)
    for batch in range(3):
        half = stamped(prices_frame([(T0 + 9 + batch, "a", 9.0)]), "half")
        append(lake.root, "prices", half, run="half", batch=batch, lineage={})
    lake.compact(now=T0)
    left = list((tmp_path / "lake" / "prices").rglob("*.parquet"))
    assert len(left) == 2  # the file that the first run names, and the merged one
    assert seen(lake) == [("a", 1.0)]
    assert seen(lake, as_of=T0) == [("a", 1.0)]


def test_many_runs_survive_checkpoints_and_their_transactions_with_them(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    names = [put(lake, [(T0 + i, "eth", float(i))], T0 + i * SECOND) for i in range(45)]
    logs = {p.name for p in (tmp_path / "lake" / "runs" / "_delta_log").iterdir()}
    assert any(name.endswith(".checkpoint.parquet") for name in logs)
    assert put(lake, [(T0, "eth", 0.0)], T0 + 999 * SECOND) == names[0]
    assert lake.history().runs.height == 45
    for place in (0, 27, 44):
        assert seen(lake, as_of=T0 + place * SECOND) == [("eth", float(place))]
    assert lake.verify().findings == ()


def test_history_tells_where_rows_came_from(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    run = put(lake, [(T0, "a", 1.0)], T0)
    history = lake.history()
    assert history.runs["run"].to_list() == [run]
    assert json.loads(history.runs["versions"][0]) == {"prices": 1}
    line = history.commits.filter(pl.col("operation") == "WRITE", pl.col("table") == "prices")
    assert line.select("run", "rows", "kind").rows() == [(run, "1", "ingest")]
