"""`undertow measure` and `undertow report`, as a new user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from undertow.assess import INVENTED
from undertow.cli.measure import seed_of_measures
from undertow.cli.measure_shock import ChosenShock, shocked
from undertow.cli.measure_tables import MAIN, ROWS, main_tables
from undertow.measures import MEASURES, Study, interconnection
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.stress import read_scenario
from undertow.worlds import History, Tandem, Unwinding, build_world


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small world with leverage that moves together, kept as the world command does."""
    from undertow.cli.world import keep_world

    folder = tmp_path_factory.mktemp("measured")
    tandem = Tandem(correlation=0.5, unwindings=(Unwinding(300, strength=6.0),))
    world = build_world(3, accounts=150, history=History(420, tandem=tandem))
    home = Lake.create(folder / "lake")
    keep_world(home, "small", world, quiet=True)
    return str(folder / "lake")


def test_a_measure_says_what_it_found_how_sure_it_is_and_when_it_misleads(run, lake: str) -> None:
    done = run("measure", "tandem.matrix", "--lake", lake)
    assert done.code == 0, done.err
    assert done.out.count(INVENTED) == 1
    for words in ("moves together beyond prices", "low", "high", "how to read it", "misleads"):
        assert words in done.out, words


def test_a_study_comes_whole_as_json(run, lake: str) -> None:
    done = run("measure", "tandem.matrix", "tandem.unwinding", "--lake", lake, "--json")
    assert done.code == 0, done.err
    matrix, unwinding = done.json["studies"]
    assert (matrix["name"], unwinding["name"]) == ("tandem.matrix", "tandem.unwinding")
    reading = matrix["readings"][0]
    assert reading["low"] < reading["value"] < reading["high"]
    assert {"pairs", "layers"} <= matrix["tables"].keys()
    assert done.json["provenance"]["run"]
    assert done.json["notes"] == [f"{INVENTED} (small, seed 3)"]
    assert reading["ts"].endswith("Z")
    again = run("measure", "tandem.matrix", "tandem.unwinding", "--lake", lake, "--json")
    assert again.json["studies"] == done.json["studies"]


def test_readings_can_be_kept_in_a_file(run, lake: str, tmp_path: Path) -> None:
    done = run("measure", "tandem.cycle", "--lake", lake, "-o", "cycle.parquet", "--quiet")
    assert (done.code, done.out) == (0, "")
    assert set(pl.read_parquet(tmp_path / "cycle.parquet")["name"]) == {
        "tandem.clarity",
        "tandem.concordance",
        "tandem.unwinding_share",
    }


def test_a_file_says_what_it_keeps_and_has_one_shape_of_instants(
    run, lake: str, tmp_path: Path
) -> None:
    done = run("measure", "tandem.cycle", "--lake", lake, "-o", "cycle.csv")
    assert done.code == 0, done.err
    assert "it keeps readings alone" in done.err
    assert INVENTED in done.err
    stamps = pl.read_csv(tmp_path / "cycle.csv", infer_schema=False)["ts"]
    assert stamps.str.contains(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$").all()
    whole = run("measure", "tandem.cycle", "--lake", lake, "--json", "-o", "cycle.json")
    assert whole.code == 0, whole.err
    kept = json.loads((tmp_path / "cycle.json").read_text(encoding="utf-8"))
    assert kept == run("measure", "tandem.cycle", "--lake", lake, "--json").json
    assert run("measure", "list", "-o", "list.csv").code == 0
    assert pl.read_csv(tmp_path / "list.csv").height == len(MEASURES)


def test_readings_that_are_not_shown_are_counted(run, lake: str) -> None:
    done = run("measure", "tandem.procyclicality", "--lake", lake, "--by", "asset")
    whole = run("measure", "tandem.procyclicality", "--lake", lake, "--json")
    more = len(whole.json["studies"][0]["readings"]) - 8
    assert more > 0
    assert f"… and {more} more (--json)" in done.out


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run, lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.setattr("undertow.cli.measure.assess", nothing)
    (tmp_path / "folder.html").mkdir()
    before = sorted(tmp_path.iterdir())
    for words in (["report", "-o", "folder.html"], ["report", "-o", "/proc/page.html"],
                  ["measure", "-o", "/proc/out.csv"],
                  ["measure", "--json", "-o", "out.csv"]):  # fmt: skip
        done = run(*words, "--lake", lake)
        assert done.code == 2, done.err
        assert done.err.count("\n") == 1
        assert "None" not in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_and_a_hand_at_the_keyboard_are_one_line_each(lake: str) -> None:
    begun = [sys.executable, "-m", "undertow", "measure", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(begun, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ("undertow: the answer could not be written: No space left on device\n")


class _Begun(Exception):
    """The work was reached."""


def test_what_a_first_run_compiles_is_told_before_the_work(
    run, lake: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object, **given: object) -> None:
        raise _Begun(given["seed"])

    monkeypatch.setattr("undertow.cli.measure.assess", begun)
    for cached, name, told in (
        ((), "crowding.saturation", "the undertow index and the cascade and the sweep"),
        (("pressure",), "crowding.saturation", ""),  # no book has to be swept for it
        (("sweep",), "crowding.saturation", "the undertow index and the cascade"),
        ((), "tandem.matrix", ""),
    ):
        monkeypatch.setattr("undertow.cli.stress.is_cached", lambda m, _, had=cached: m in had)
        for verb in ("measure", "report"):
            with pytest.raises(_Begun, match="0"):
                run(verb, name, "--lake", lake)
            said = capsys.readouterr().err
            assert said == (f"compiling {told}: two minutes or so each, once on this machine\n"
                            if told else "")  # fmt: skip


INTERCONNECTION = [each for each in MEASURES if each.family == "interconnection"]
FALL = """
name = "a storm"
[[shock]]
kind = "price"
asset = "ETH"
move = -0.3
"""


def test_a_measure_can_start_from_another_fall_or_scenario(run, lake: str, tmp_path: Path) -> None:
    name = "interconnection.calls"
    done = run("measure", name, "--fall", "0.4", "--lake", lake)
    assert done.code == 0, done.err
    assert done.out.startswith("Interconnection of leverage after a common fall of 40 % at 20")
    assert INVENTED in done.out
    found = run("measure", name, "--fall", "0.4", "--lake", lake, "--json").json
    snapshot = load_snapshot(Lake.open(lake))
    mine = interconnection.calls(snapshot, fall=0.4).as_json()
    assert found["studies"][0]["says"] == mine["says"]
    assert found["fall"] == found["provenance"]["fall"] == 0.4
    assert found["provenance"]["inputs_hash"] == snapshot.digest
    other = run("measure", name, "--lake", lake, "--json").json
    assert other["studies"][0]["says"] != mine["says"]
    assert "fall" not in other
    (tmp_path / "storm.toml").write_text(FALL)
    storm = run("measure", name, "--scenario", "storm.toml", "--lake", lake, "--json").json
    scenario = read_scenario(FALL)
    says = interconnection.calls(snapshot, scenario=scenario).as_json()["says"]
    assert storm["studies"][0]["says"] == says
    assert says[0].startswith("The scenario a storm calls")
    assert storm["scenario"] == "a storm"


def test_a_shock_reaches_a_book_whose_owners_were_joined(run, lake: str, tmp_path: Path) -> None:
    head = "node,same_as,confidence,source\n"
    rows = [f"owner:{n},owner:1,1.0,a register\n" for n in range(2, 60)]
    (tmp_path / "one.csv").write_text(head + "".join(rows))
    asked = ("measure", "interconnection.calls", "--fall", "0.4", "--lake", lake, "--json")
    apart, joined = run(*asked).json, run(*asked, "--identities", "one.csv").json
    assert any("owners were joined with others" in note for note in joined["notes"])

    def owners(found: dict[str, Any]) -> float:
        rows = found["studies"][0]["readings"]
        return next(r["value"] for r in rows if r["name"] == "interconnection.owners_called")

    assert owners(joined) < owners(apart)


def test_what_takes_a_shock_is_known_by_name_and_anything_else_is_refused(
    run, lake: str, tmp_path: Path
) -> None:
    assert [each.name.partition(".")[2] for each in MEASURES if each.starts_from_a_shock] == [
        "calls", "contagion", "paths", "nodes", "links"
    ]  # fmt: skip
    found, notes = shocked(["interconnection"], ChosenShock(0.3))
    assert len(found) == 5
    without = "interconnection.map, interconnection.reuse and interconnection.loops"
    assert notes == (f"{without} take no shock and are not among these",)
    assert len(shocked([], ChosenShock(0.3))[0]) == 5
    (tmp_path / "odd.toml").write_text(FALL.replace("ETH", "NONESUCH"))
    one = "interconnection.calls"
    for words, expected in (
        (("crowding.map", "--fall", "0.3"), "crowding.map takes no shock; interconnection.calls, "),
        (("tandem", "--fall", "0.3"), "tandem has no measure that takes a shock"),
        (("interconnection.reuse", one, "--scenario", "2025-10-10"),
         "--scenario was given, but interconnection.reuse takes no shock"),
        ((one, "--fall", "20"), "--fall was 20; it may be -10, a rise, to 0.999; it is a"),
        ((one, "--fall", "1"), "--fall was 1; it may be"),
        ((one, "--fall", "nan"), "--fall was nan; it may be"),
        ((one, "--fall", "0.2", "--scenario", "2025-10-10"), "give one or the other"),
        ((one, "--scenario", "nope"), "no scenario is called 'nope'"),
        ((one, "--scenario", "odd.toml"), "NONESUCH"),
        (("interconnection.nope", "--fall", "0.3"), "there is no measure called"),
    ):  # fmt: skip
        done = run("measure", *words, "--lake", lake)
        assert done.code == 2, (words, done.err)
        assert not done.out
        assert expected in done.err
        assert done.err.count("\n") == 1


def test_a_report_starts_from_a_shock_of_ones_own_where_measures_have_one(
    run, lake: str, tmp_path: Path
) -> None:
    asked = ("report", "interconnection.calls", "interconnection.reuse", "--fall", "0.37")
    done = run(*asked, "-o", "after.html", "--lake", lake)
    assert done.code == 0, done.err
    page = (tmp_path / "after.html").read_text(encoding="utf-8")
    assert "37 %" in page
    assert "interconnection.reuse" in page  # what takes no shock is there too
    refused = run("report", "--fall", "37", "-o", "after.html", "--lake", lake)
    assert refused.code == 2
    assert "0.37 is 37 %" in refused.err


def test_main_tables_come_before_readings_and_are_not_shown_twice(run, lake: str) -> None:
    done = run("measure", "interconnection.reuse", "interconnection.calls", "--lake", lake)
    assert done.code == 0, done.err
    reuse, _, calls = done.out.partition("interconnection.calls: Who")
    for text, title in ((reuse, "reuse by token\n  asset"), (reuse, "reuse by base asset\n"),
                        (calls, "calls by the size of a common fall\n  fall"),
                        (calls, "the owners who need most\n  owner")):  # fmt: skip
        assert text.count(title) == 1
        assert text.index(title) < text.index("  reading ")
    for table in ("tokens", "bases", "ladder", "owners"):
        assert f"\n{table}\n" not in done.out
        assert f"\n{table}: " not in done.out
    assert "\nrounds\n" in calls  # others stand where they stood


def test_a_table_of_the_terminal_holds_twenty_rows_and_says_how_many_more() -> None:
    count = ROWS + 5
    table = pl.DataFrame({
        "node": [f"venue:{n}" for n in range(count)], "failure_usd": [1.0] * count,
        "own_usd": pl.Series([None] * count, dtype=pl.Float64),
    })  # fmt: skip
    study = Study("interconnection.nodes", "nodes", (), {"nodes": table}, (), "", "")
    (shown,) = main_tables(study)
    assert (shown.rows.height, shown.of) == (ROWS, count)
    assert shown.rows.columns == ["node", "failure_usd"]  # what is nowhere has no column
    assert not main_tables(Study("tandem.matrix", "", (), {"nodes": table}, (), "", ""))


def test_main_tables_name_tables_and_columns_that_there_are() -> None:
    web = interconnection.Web.of(build_world(5, accounts=150).snapshot())
    said = pl.DataFrame({"node": ["owner:2"], "same_as": ["owner:1"], "confidence": [1.0],
                         "source": ["a register"]})  # fmt: skip
    few = {"nodes": {"redraws": 0, "reps": 19}, "links": {"tries": 8}, "paths": {"most": 64},
           "map": {"identities": said}}  # fmt: skip
    for each in INTERCONNECTION:
        short = each.name.partition(".")[2]
        study = each.made(web, **few.get(short, {}))
        assert MAIN[each.name]
        for main in MAIN[each.name]:
            assert set(main.columns) <= set(study.tables[main.table].columns), main
            assert not main.largest or main.largest in main.columns


def test_measures_have_the_seed_of_python_unless_one_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert seed_of_measures(None) == 0
    monkeypatch.setenv("UNDERTOW_SEED", "5")
    assert (seed_of_measures(None), seed_of_measures(3)) == (5, 3)


def test_a_page_of_crowding_alone_is_titled_so(run, lake: str) -> None:
    done = run("measure", "crowding.concentration", "--lake", lake)
    assert done.out.startswith("Crowding of leverage at ")
    both = run("measure", "crowding.concentration", "tandem.leverage", "--lake", lake)
    assert both.out.startswith("Leverage by asset at ")


def test_who_stops_a_command_is_told(run, lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("undertow.cli.measure.assess", stopped)
    done = run("measure", "--lake", lake)
    assert done.code == 130
    *first, last = done.err.splitlines()  # a new machine says first what it compiles
    assert last == "undertow: stopped; what was committed stays"
    assert all(line.startswith("compiling ") for line in first)


def test_the_list_has_every_measure(run) -> None:
    done = run("measure", "list", "--json")
    assert [row["measure"] for row in done.json["rows"]] == [each.name for each in MEASURES]


def test_a_report_is_one_file_that_asks_nothing_of_a_network(
    run, lake: str, tmp_path: Path
) -> None:
    done = run("report", "tandem.matrix", "tandem.index", "--lake", lake, "-o", "page.html")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "How much leverage moves together" in page
    assert "Content-Security-Policy" in page
    assert page.count(INVENTED) == 1
    assert INVENTED in done.err
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["measure", "tandem.colour"], 2, "no measure called 'tandem.colour'"),
        (["measure", "--by", "colour"], 2, "colour"),
        (["measure", "--seed", "-1"], 2, "--seed"),
        (["report", "--seed", "-1"], 2, "--seed"),
        (["measure", "--level", "90"], 2, "--level was 90; a share: 0.9 is 90 %"),
        (["report", "-o", "page.pdf"], 2, "the ending may be .html"),
        (["report", "-o", "nowhere/page.html"], 2, "in a folder that is not there"),
        (["measure", "--at", "yesterdayish"], 2, "yesterdayish"),
        (["measure", "--at", "2099-01-01"], 2, "was 2099-01-01T00:00:00Z, and the newest price"),
        (["report", "--at", "1999-01-01"], 2, "there is a whole book from 20"),
    ],
)
def test_misuse_is_told_in_one_line(run, lake: str, arguments, code: int, words: str) -> None:
    done = run(*arguments, "--lake", lake)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err


def test_without_a_history_measures_say_so_and_those_that_need_none_answer(run, tmp_path) -> None:
    from undertow.cli.world import keep_world
    from undertow.worlds import tiny_world

    home = Lake.create(tmp_path / "tiny")
    keep_world(home, "tiny", tiny_world(), quiet=True)
    where = str(tmp_path / "tiny")
    done = run("measure", "tandem.matrix", "--lake", where)
    assert done.code == 1
    assert "there are no readings of leverage.asset, and positions at 1 instant" in done.err
    both = run("measure", "tandem.matrix", "tandem.unwind", "--lake", where)
    assert both.code == 0, both.err
    assert "tandem.unwind:" in both.out
    assert "tandem.matrix cannot be told" in both.out


def test_owners_are_joined_by_a_file_of_identities(run, lake: str, tmp_path: Path) -> None:
    rows = tmp_path / "identities.csv"
    rows.write_text("node,same_as,confidence,source\nowner:1,owner:2,0.9,labels\n")
    asked = ("measure", "interconnection.map", "--lake", lake, "--identities", str(rows))
    joined = run(*asked)
    assert "1 owner was joined with others, as identities by labels say" in joined.out
    assert (
        "0 owners were joined with others, as identities say" in run(*asked, "--sure", "0.95").out
    )
    (study,) = run(*asked, "--json").json["studies"]
    none, all_of_them = study["tables"]["links"]
    assert (none["sure"], none["links"]) == (None, 0)
    assert (all_of_them["sure"], all_of_them["links"]) == (0.9, 1)
    assert all_of_them["owners"] == none["owners"] - 1
    assert "owners, by how sure an identity has to be to count" in joined.out
    rows.write_text("node,same_as\nasset:ETH,owner:2\n")
    odd = run(*asked)
    assert odd.code == 2
    assert "'asset:ETH' is no owner and no account" in odd.err
