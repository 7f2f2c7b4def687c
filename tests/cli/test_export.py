"""`undertow export`, as a new user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from undertow.assess import INVENTED
from undertow.measures.crowding.liquidation_prices import liquidation_prices
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.worlds import build_world, tiny_world


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest world, kept as the world command does."""
    from undertow.cli.world import keep_world

    folder = tmp_path_factory.mktemp("exported")
    keep_world(Lake.create(folder / "lake"), "tiny", tiny_world(), quiet=True)
    return str(folder / "lake")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, with half of the accounts observed."""
    from undertow.cli.world import keep_world

    world = build_world(3, accounts=40)
    half = pl.when(pl.col("account") % 2 == 0).then(pl.lit("observed")).otherwise("evidence")
    tables = {**world.tables, "positions": world.tables["positions"].with_columns(evidence=half)}
    folder = tmp_path_factory.mktemp("mixed")
    keep_world(Lake.create(folder / "lake"), "tiny", replace(world, tables=tables), quiet=True)
    return str(folder / "lake")


def test_rows_come_back_from_every_file_as_they_were_found(run, lake: str, tmp_path: Path) -> None:
    found = liquidation_prices(load_snapshot(Lake.open(lake))).rows
    assert found.height > 0
    for name, read in (("out.csv", pl.read_csv), ("out.parquet", pl.read_parquet)):
        done = run("export", "liquidations", "--lake", lake, "-o", name)
        assert done.code == 0, done.err
        assert INVENTED in done.err
        kept = read(tmp_path / name)
        for column in ("account", "asset", "side", "evidence"):
            assert kept[column].to_list() == found[column].to_list()
        for column in ("liquidation_price_usd", "distance_share", "exposed_usd"):
            assert kept[column].to_list() == found[column].to_list()
        assert kept["label"].null_count() == 0
    near = run("export", "liquidations", "--lake", lake, "--within", "0.2", "--json")
    assert len(near.json["rows"]) == found.filter(pl.col("distance_share") <= 0.2).height
    assert near.json["modelled_rows"] == len(near.json["rows"])


def test_entries_have_the_shape_that_was_asked_for(run, mixed: str, tmp_path: Path) -> None:
    known = ("--lake", mixed, "--format", "defillama", "--evidence", "modelled")
    done = run("export", "liquidations", *known, "-o", "liqs.json")
    assert done.code == 0, done.err
    entries = json.loads((tmp_path / "liqs.json").read_text(encoding="utf-8"))
    assert entries
    for each in entries:
        assert list(each) == ["owner", "liqPrice", "collateral", "collateralAmount", "evidence"]
        assert each["liqPrice"] > 0.0
        assert int(each["collateralAmount"]) > 0
        assert ":" in each["collateral"]
    printed = run("export", "liquidations", *known)
    assert json.loads(printed.out) == entries
    assert "no address is known of" in printed.err


def test_kinds_of_evidence_never_share_a_file_that_cannot_tell_them(
    run, mixed: str, tmp_path: Path
) -> None:
    words = ("export", "liquidations", "--lake", mixed, "--format", "defillama", "-o", "liqs.json")
    done = run(*words)
    assert done.code == 2
    assert "--evidence modelled, or --evidence observed" in done.err
    assert not (tmp_path / "liqs.json").exists()
    counts = {}
    for kind in ("observed", "modelled"):
        assert run(*words, "--evidence", kind).code == 0
        entries = json.loads((tmp_path / "liqs.json").read_text(encoding="utf-8"))
        assert {each["evidence"] for each in entries} <= {kind}
        counts[kind] = len(entries)
    assert counts["observed"] > 0
    assert counts["modelled"] > 0


def test_the_ladder_is_that_of_the_map(run, lake: str, tmp_path: Path) -> None:
    done = run("export", "ladder", "--lake", lake, "-o", "ladder.csv", "--workers", "threads:2")
    assert done.code == 0, done.err
    kept = pl.read_csv(tmp_path / "ladder.csv")
    study = run("measure", "crowding.map", "--lake", lake, "--json").json["studies"][0]
    rows = pl.DataFrame(study["tables"]["ladder"])
    assert kept["distance_share"].to_list() == rows["distance"].to_list()
    assert kept["debt_usd"].to_list() == rows["debt_usd"].to_list()
    none = run("export", "ladder", "--lake", lake, "--evidence", "observed", "--json")
    assert none.json["rows"] == []
    assert f"no row is observed; there are {kept.height} modelled" in none.err


def test_who_asks_for_a_kind_that_is_not_there_is_told_of_the_others(run, lake: str) -> None:
    there = liquidation_prices(load_snapshot(Lake.open(lake))).rows.height
    words = ("export", "liquidations", "--lake", lake, "--evidence")
    done = run(*words, "observed", "--json")
    assert (done.code, done.json["rows"]) == (0, [])
    assert f"no row is observed; there are {there} modelled" in done.err
    assert "no row is" not in run(*words, "modelled", "--json").err


def test_a_first_run_says_what_it_compiles_and_the_next_says_nothing(
    run, lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export", "ladder", "--lake", lake, "--json")
    monkeypatch.setattr("undertow.cli.stress.is_cached", lambda *_: False)
    assert "compiling the liquidation map: two minutes" in run(*words).err
    assert "compiling" not in run(*words, "--quiet").err
    monkeypatch.setattr("undertow.cli.stress.is_cached", lambda *_: True)
    assert "compiling" not in run(*words).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["liquidations", "-o", "nowhere/out.csv"], "in a folder that is not there"),
        (["liquidations", "-o", "out.xlsx"], "the ending may be .csv"),
        (["liquidations", "-o", "/proc/out.csv"], "could not be written"),
        (["liquidations", "--format", "defillama", "-o", "out.csv"], "the ending may be .json"),
        (["liquidations", "--within", "-1"], "--within was -1"),
        (["liquidations", "--within", "0"], "--within was 0; a share above 0 and up to 1"),
        (["liquidations", "--within", "20"], "--within was 20; a share up to 1: 0.2 is 20 %"),
        (["ladder", "--furthest", "2"], "furthest was 2"),
        (["ladder", "--workers", "many"], "executor was 'many'"),
        (["ladder", "-o", "nowhere/out.csv"], "in a folder that is not there"),
    ],
)
def test_misuse_is_told_in_one_line(run, lake: str, arguments, words: str) -> None:
    done = run("export", *arguments, "--lake", lake)
    assert done.code == 2, done.err
    assert words in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_file_that_was_there_stays_when_writing_fails(
    run, lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "liqs.json"
    kept.write_text("what was there", encoding="utf-8")

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    done = run("export", "liquidations", "--lake", lake, "--format", "defillama", "-o", "liqs.json")
    monkeypatch.undo()
    assert done.code == 2
    assert "No space left on device" in done.err
    assert kept.read_text(encoding="utf-8") == "what was there"
    assert [each.name for each in tmp_path.iterdir()] == ["liqs.json"]


def test_a_table_too_wide_for_a_terminal_is_counted_and_kept_whole(run, lake: str) -> None:
    done = run("measure", "crowding.concentration", "--lake", lake)
    assert "concentration: 3 rows of" in done.out
    tables = [line for line in done.out.splitlines() if "──" in line]
    assert max(map(len, tables)) <= 160
    whole = run("measure", "crowding.concentration", "--lake", lake, "--json").json
    assert len(whole["studies"][0]["tables"]["concentration"]) == 3


def test_measures_say_the_same_on_any_workers(run, lake: str, tmp_path: Path) -> None:
    words = ("measure", "crowding.map", "--lake", lake, "--json")
    one, two = (run(*words, "--workers", each) for each in ("serial", "threads:2"))
    assert one.code == 0, one.err
    assert one.json["studies"] == two.json["studies"]
    bad = run(*words, "--workers", "threads")
    assert (bad.code, bad.err.count("\n")) == (2, 1)
    page = run("report", "crowding.map", "--lake", lake, "-o", "p.html", "--workers", "serial")
    assert page.code == 0, page.err
    assert (tmp_path / "p.html").exists()
