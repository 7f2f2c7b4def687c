"""What a user types, and what comes back: data on stdout, talk on stderr, an exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from cli.typing_in import Run


@pytest.fixture
def tiny(run: Run) -> Run:
    """The same, with the tiny world in the default lake."""
    done = run("world", "tiny", "--json")
    assert done.code == 0, done.err
    assert done.json["accounts"] == 5
    return run


def test_the_demo_runs_and_runs_again_without_adding(run: Run) -> None:
    first = run("demo", "--json", "--no-report")
    assert first.code == 0, first.err
    assert {row["venue"] for row in first.json["rows"]} >= {"aave-v3", "hyperliquid", "all"}
    total = first.json["rows"][-1]
    assert total["accounts"] == first.json["accounts"]
    again = run("demo", "--json", "--no-report")
    assert again.json == first.json
    assert ": 0 new rows" in again.err
    assert "undertow measure crowding.map --lake " in again.err


def test_the_tiny_world_is_judged_as_its_docstring_says(tiny: Run) -> None:
    done = tiny("margins", "--json", "--sort", "equity")
    rows = {row["account"]: row for row in done.json["rows"]}
    assert rows[1]["fall"] == pytest.approx(1 - 1_250 / 2_000)
    assert rows[2]["fall"] == pytest.approx(1 - 35_897.435897 / 40_000)
    assert rows[3]["fall"] == pytest.approx(1 - 26_666.666667 / 40_000)
    assert rows[4]["rise"] == pytest.approx(48_780.487805 / 40_000 - 1)
    assert rows[5]["fall"] is None
    assert rows[5]["health"] is None
    assert done.json["stood_on"]["run"]


def test_accounts_can_be_chosen_added_up_and_kept(tiny: Run, tmp_path: Path) -> None:
    assert len(tiny("margins", "--json", "--venue", "aave-v3").json["rows"]) == 3
    assert len(tiny("margins", "--json", "--owner", "1").json["rows"]) == 2
    by = tiny("margins", "--json", "--by", "venue").json["rows"]
    assert [row["venue"] for row in by] == ["aave-v3", "hyperliquid", "all"]
    assert by[0]["leverage"] == pytest.approx(110_000 / 80_000)  # ratio of sums
    done = tiny("margins", "-o", "accounts.parquet", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert pl.read_parquet(tmp_path / "accounts.parquet").height == 5


def test_a_table_for_people_names_the_instant_and_the_inputs(tiny: Run) -> None:
    done = tiny("margins", "--top", "2")
    assert "at: 2026-11-01T00:00:00Z" in done.out
    assert re.search(r"as of: 20\d\d-", done.out)
    assert re.search(r"inputs hash: [0-9a-f]{24}", done.out)
    assert len([line for line in done.out.splitlines() if "hyperliquid" in line]) == 2


def test_history_says_what_was_written(tiny: Run) -> None:
    done = tiny("lake", "history", "--json")
    assert done.json["runs"] == 1
    assert tiny("lake", "verify").code == 0
    assert tiny("lake", "quality", "--json").code == 0
    assert tiny("lake", "compact", "--json").code == 0
    assert tiny("lake", "verify").code == 0
    assert len(tiny("margins", "--json").json["rows"]) == 5


def test_what_was_known_before_anything_was_is_an_error(tiny: Run) -> None:
    done = tiny("margins", "--as-of", "2020-01-01")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    done = tiny("margins", "--at", "2020-01-01")
    assert done.code == 2
    assert "there are no rows" in done.err


def test_ingest_takes_good_rows_and_keeps_bad_ones_apart(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(
        "ts,instrument,kind,price,source\n"
        "2026-11-02T00:00:00Z,aave-v3:ETH,oracle,1500,desk\n"
        "2026-11-02T00:00:00Z,aave-v3:XYZ,oracle,1500,desk\n"
        "2026-11-02T00:00:00Z,aave-v3:BTC,oracle,-3,desk\n"
    )
    dry = tiny("ingest", "tables", "prices.csv", "--dry-run", "--json")
    assert (dry.code, dry.json["dry_run"]) == (4, True)
    assert tiny("lake", "history", "--json").json["runs"] == 1
    done = tiny("ingest", "tables", "prices.csv")
    assert done.code == 4
    assert "aave-v3:XYZ" in done.err
    assert "row 3" in done.err or "row 2" in done.err
    rows = {row["account"]: row for row in tiny("margins", "--json").json["rows"]}
    assert rows[1]["assets"] == pytest.approx(15_000)
    before = tiny("margins", "--json", "--at", "2026-11-01").json["rows"]
    assert {row["account"]: row for row in before}[1]["assets"] == pytest.approx(20_000)
    again = tiny("ingest", "tables", "prices.csv", "--json")
    assert again.json["files"][0]["added"] == 0
    warned = tiny("margins", "--json")
    assert warned.json["rows_refused"] == 2
    assert "2 rows of the files that this stands on were refused" in warned.err
    refused = tiny("lake", "rejects", "--json").json
    assert refused["rejects"] == 2
    assert {row["column"] for row in refused["rows"]} == {"instrument", "price"}


def test_refused_rows_that_judge_nobody_are_no_warning(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "volumes.csv").write_text(
        "ts,instrument,interval_us,base,source\n"
        "2026-11-01T00:00:00Z,aave-v3:ETH,3600000000,1500,desk\n"
        "2026-11-01T00:00:00Z,aave-v3:XYZ,3600000000,1500,desk\n"
    )
    assert tiny("ingest", "tables", "volumes.csv").code == 4
    assert tiny("lake", "rejects", "--json").json["rejects"] == 1
    judged = tiny("margins", "--json")
    assert "rows_refused" not in judged.json
    assert "warning" not in judged.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["margins"], 1, "there is no lake"),
        (["lake", "verify"], 1, "there is no lake"),
        (["schema", "position"], 2, "no table is called"),
        (["margins", "--top", "0"], 2, "--top"),
        (["margins", "--sort", "beauty"], 2, "beauty"),
        (["world", "demo", "--accounts", "50"], 2, "world sized"),
        (["world", "sized", "--accounts", "4"], 2, "accounts"),
        (["world", "sized", "--accounts", "0"], 2, "accounts"),
        (["world", "tiny", "--seed", "-3"], 2, "--seed"),
        (["margins", "--at", "99999999999999s"], 2, "years 1 to 9999"),
        (["ingest", "tables", "nothing.csv"], 2, "nothing.csv"),
        (["ingest", "tables"], 2, "paths"),
        (["nonsense"], 2, "nonsense"),
        (["margins", "--at", "yesterday"], 2, "now-7d"),
        (["margins", "-o", "x.xlsx"], 2, "--output"),
    ],
)
def test_misuse_is_one_plain_line_and_its_code(
    run: Run, words: list[str], code: int, says: str
) -> None:
    done = run(*words)
    assert done.code == code, done.err
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err


def test_unknown_venue_and_owner_are_errors_not_empty_tables(tiny: Run) -> None:
    done = tiny("margins", "--venue", "aave")
    assert done.code == 2
    assert "did you mean aave-v3" in done.err
    assert tiny("margins", "--owner", "99").code == 2


def test_a_foreign_folder_is_no_lake(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"x")
    done = run("world", "tiny", "--lake", tmp_path / "photos")
    assert done.code == 1
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.png"]


def test_no_command_at_all_shows_the_help(run: Run) -> None:
    done = run()
    assert "Commands:" in done.out + done.err


def test_a_world_is_not_poured_over_another(tiny: Run) -> None:
    assert tiny("world", "tiny").code == 0  # the same one adds nothing
    done = tiny("world", "sized", "--accounts", "50")
    assert done.code == 2
    assert "holds the world 'tiny' of seed 0 already" in done.err
    assert len(tiny("margins", "--json").json["rows"]) == 5


def test_a_world_is_not_poured_over_real_data(run: Run, tmp_path: Path) -> None:
    (tmp_path / "assets.csv").write_text(
        "ts,asset,symbol,kind\n2026-01-01T00:00:00Z,ETH,ETH,native\n"
    )
    assert run("ingest", "tables", "assets.csv").code == 0
    done = run("world", "tiny")
    assert (done.code, "holds data already" in done.err) == (2, True)


def test_the_total_stays_and_a_file_gets_every_row(tiny: Run, tmp_path: Path) -> None:
    rows = tiny("margins", "--json", "--by", "venue", "--top", "1").json["rows"]
    assert [row["venue"] for row in rows] == ["aave-v3", "all"]
    assert rows[-1]["accounts"] == 5
    owners = tiny("margins", "--json", "--by", "owner").json["rows"]
    assert {row["owner"] for row in owners} == {"1", "2", "3", "account 5", "all"}
    tiny("margins", "-o", "two.csv", "--top", "2")
    assert pl.read_csv(tmp_path / "two.csv").height == 2


def test_one_account_is_found_by_key_or_label_and_shows_its_legs(tiny: Run) -> None:
    for name in ("3", "0xb2", "0XB2"):
        done = tiny("margins", "--account", name, "--json")
        assert [row["account"] for row in done.json["rows"]] == [3]
        assert {leg["instrument"] for leg in done.json["legs"]} == {"aave-v3:BTC", "aave-v3:USDC"}
    assert "legs" in tiny("margins", "--account", "3").out
    assert tiny("margins", "--account", "nobody").code == 2


def test_what_was_planted_is_kept_with_the_run(run: Run) -> None:
    run("demo", "--quiet", "--no-report")
    done = run("lake", "history", "--json", "--lake", "undertow-demo/lake")
    detail = json.loads(done.json["rows"][0]["detail"])
    assert detail["truth"]["loop"]["multiplier"] == pytest.approx(4.0, rel=0.1)
    assert len(json.dumps(detail)) < 40_000


def test_ingest_says_what_a_new_view_drops(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "positions.csv").write_text(
        "ts,account,instrument,kind,qty,source,evidence\n"
        "2026-11-02T00:00:00Z,3,aave-v3:BTC,collateral,1,world,observed\n"
    )
    done = tiny("ingest", "tables", "positions.csv")
    assert done.code == 0
    assert "note: " in done.err
    assert "9 legs before, 1 now" in done.err
