"""`undertow measure` and `undertow report`, as a new user types them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from undertow.measures import MEASURES
from undertow.store import Lake
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
    again = run("measure", "tandem.matrix", "tandem.unwinding", "--lake", lake, "--json")
    assert again.json["studies"] == done.json["studies"]


def test_readings_can_be_kept_in_a_file(run, lake: str, tmp_path: Path) -> None:
    done = run("measure", "tandem.cycle", "--lake", lake, "-o", "cycle.parquet", "--quiet")
    assert (done.code, done.out) == (0, "")
    assert set(pl.read_parquet(tmp_path / "cycle.parquet")["name"]) == {
        "tandem.concordance",
        "tandem.unwinding_share",
    }


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
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["measure", "tandem.colour"], 2, "no measure called 'tandem.colour'; have tandem.matrix"),
        (["measure", "--by", "colour"], 2, "colour"),
        (["measure", "--level", "90"], 2, "--level was 90; a share: 0.9 is 90 %"),
        (["report", "-o", "page.pdf"], 2, "the ending may be .html"),
        (["report", "-o", "nowhere/page.html"], 2, "in a folder that is not there"),
        (["measure", "--at", "yesterdayish"], 2, "yesterdayish"),
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
    assert "there are no readings of leverage.asset, and positions at 1 instants" in done.err
    both = run("measure", "tandem.matrix", "tandem.unwind", "--lake", where)
    assert both.code == 0, both.err
    assert "tandem.unwind:" in both.out
    assert "tandem.matrix cannot be told" in both.out
