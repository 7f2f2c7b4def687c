"""`undertow stress --monte-carlo`: which law, on top of what, and what a committee reads of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.cli.output import Progress
from undertow.worlds import demo_world, tiny_world

Typed = Callable[..., tuple[int, str, str]]

ROWS = 40
RNG = np.random.default_rng(4)
MOVES = pl.DataFrame(
    {"BTC": 0.15 * RNG.standard_normal(ROWS), "ETH": 0.2 * RNG.standard_normal(ROWS)}
)
DAYS = pl.datetime_range(
    pl.datetime(2026, 1, 1), pl.datetime(2026, 3, 31), "1d", time_zone="UTC", eager=True
)
PRICES = pl.DataFrame(
    {
        "date": DAYS.dt.strftime("%Y-%m-%d"),
        "BTC": 40_000.0 * np.exp(np.cumsum(0.04 * RNG.standard_normal(len(DAYS)))),
        "ETH": 2_000.0 * np.exp(np.cumsum(0.06 * RNG.standard_normal(len(DAYS)))),
    }
)
TIED = """
name = "tied"

[[shock]]
kind = "price"
asset = "market"
move = -0.4

[options]
impact = "none"

[[shock]]
kind = "correlation"
weight = 1.0
target = 1.0
"""


@pytest.fixture
def files(typed: Typed, tmp_path: Path) -> Typed:
    """The same in a folder with files of moves, of prices and of correlations."""
    MOVES.write_csv(tmp_path / "moves.csv")
    MOVES.write_parquet(tmp_path / "moves.parquet")
    PRICES.write_csv(tmp_path / "prices.csv")
    long = PRICES.unpivot(index="date", variable_name="asset", value_name="price")
    long.write_parquet(tmp_path / "long.parquet")
    (tmp_path / "ties.csv").write_text("BTC,ETH\n1,0.25\n0.25,1\n")
    (tmp_path / "tied.toml").write_text(TIED)
    (tmp_path / "loose.toml").write_text(TIED.rpartition("[[shock]]")[0])
    return typed


def swept(typed: Typed, *words: object, count: int = ROWS) -> dict[str, Any]:
    """What a sweep on the tiny world told, as one object."""
    code, out, err = typed("--monte-carlo", count, "--world", "tiny", *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_sweep_tells_tails_with_their_bands_by_venue_and_by_asset(typed: Typed) -> None:
    found = json.loads(typed("--monte-carlo", 60, "--world", "demo", "--days", 10, "--json")[1])
    assert (found["scenarios"], found["tail"]) == (60, 0.99)
    assert found["draws"] == {
        "law": "student", "days": 10.0, "dof": 4.0, "volatilities": "assumed",
        "correlations": "assumed", "correlations_shocked": False, "correlations_repaired": 0.0,
        "seed": 7,
    }  # fmt: skip
    for of in ("insolvency", "liquidated"):
        for what in ("var", "es"):
            low, value = found[f"{of}_{what}_low_usd"], found[f"{of}_{what}_usd"]
            assert low is None or low <= value
            assert found[f"{of}_{what}_notes"]  # 60 scenarios say little of the worst in a hundred
        assert found[f"{of}_es_usd"] >= found[f"{of}_var_usd"] >= 0.0
    for part, name in (("venues", "venue"), ("assets", "asset")):
        rows = found[part]
        assert len(rows) > 5
        assert sum(row["share_of_es"] for row in rows) == pytest.approx(1.0)
        assert {row[name] for row in rows} >= {"hyperliquid" if name == "venue" else "ETH"}
        for row in rows:
            assert row["insolvency_es_usd"] >= row["insolvency_var_usd"] >= 0.0
            assert row["insolvency_es_low_usd"] <= row["insolvency_es_usd"]
    assert found["owners_called_twice_most"] >= found["owners_called_twice_mean"] > 1.0
    assert 0.5 < found["owners_called_twice_chance_low"] <= found["owners_called_twice_chance"]
    assert found["most_venues"] >= 2
    assert found["coverage"] == pytest.approx(1.0)
    assert found["options"]["impact"] == "exponential"
    worst = found["worst"]
    lost = [each["insolvency_usd"] for each in worst]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] == pytest.approx(found["insolvency_es_usd"])  # the worst one in sixty
    assert max(abs(move) for move in worst[0]["moves"].values()) > 0.05
    assert (
        json.loads(typed("sweep", "-n", 60, "--world", "demo", "--days", 10, "--json")[1]) == found
    )


def test_the_report_of_a_sweep_is_for_a_person(typed: Typed) -> None:
    code, out, err = typed("--monte-carlo", 30, "--world", "tiny", "--tail", 0.9)
    assert code == 0
    for words in (
        "30 joint scenarios\nan illustration: the book is invented",
        "insolvency ES 90.0%",
        "by venue, means over scenarios and its own tail, USD",
        "the worst scenarios, and the moves of what is held most",
        "joint moves over a day of a t copula of 4 degrees: volatilities assumed",
        "owners respond by nothing",
    ):
        assert words in out, words
    assert "30 scenarios, " in err


@pytest.mark.parametrize(
    ("words", "law_is"),
    [
        (("--draws", "gaussian"), {"law": "gaussian", "volatilities": "assumed"}),
        (("--draws", "student:3", "--days", 10), {"law": "student", "dof": 3.0, "days": 10.0}),
        (("--draws", "historical", "--history", "prices.csv"),
         {"law": "historical", "block": 1, "steps": 1, "past_steps": 89, "step_hours": 24.0}),
        (("--draws", "historical:5", "--history", "long.parquet", "--days", 10),
         {"law": "historical", "block": 5, "steps": 10}),
        (("--draws", "filtered:0.9", "--history", "prices.csv"), {"law": "filtered", "decay": 0.9}),
        (("--history", "prices.csv"), {"law": "student", "volatilities": "history"}),
        (("--draws", "moves.csv"), {"law": "given", "rows": ROWS}),
    ],
)  # fmt: skip
def test_the_law_of_the_draws_is_chosen_and_told(
    files: Typed, words: tuple[object, ...], law_is: dict[str, Any]
) -> None:
    found = swept(files, *words)
    assert found["draws"].items() >= law_is.items()
    assert swept(files, *words) == found
    other = swept(files, *words, "--draw-seed", 3)
    assert other["draws"]["seed"] == 3
    assert (other["worst"] == found["worst"]) == (law_is["law"] == "given")
    assert any(each["moves"] for each in found["worst"])


def test_a_file_of_moves_moves_prices_by_what_it_says(files: Typed, tmp_path: Path) -> None:
    found = swept(files, "--draws", "moves.csv")
    for each in found["worst"]:
        row = MOVES.row(each["scenario"], named=True)
        for asset, move in row.items():
            assert each["moves"][asset] == pytest.approx(np.expm1(move), rel=1e-9)
    parquet = swept(files, "--draws", "moves.parquet")
    assert parquet["liquidated_es_usd"] == found["liquidated_es_usd"]
    universe = tiny_world().universe()
    matrix = np.zeros((ROWS, len(universe.assets)))
    for asset in MOVES.columns:
        matrix[:, universe.code("asset", asset)] = MOVES[asset].to_numpy()
    np.save(tmp_path / "moves.npy", matrix)
    bare = swept(files, "--draws", "moves.npy")
    assert bare["liquidated_es_usd"] == found["liquidated_es_usd"]


def test_correlations_come_from_a_file_and_their_repair_is_told(
    files: Typed, tmp_path: Path
) -> None:
    assert swept(files, "--correlation", "ties.csv")["draws"]["correlations"] == "ties.csv"
    (tmp_path / "named.csv").write_text("asset,BTC,ETH\nBTC,1,0.25\nETH,0.25,1\n")
    (tmp_path / "broken.csv").write_text("BTC,ETH,USDC\n1,0.9,-0.9\n0.9,1,0.9\n-0.9,0.9,1\n")
    named = swept(files, "--correlation", "named.csv")
    assert named["worst"] == swept(files, "--correlation", "ties.csv")["worst"]
    found = swept(files, "--draws", "gaussian", "--correlation", "broken.csv")
    assert found["draws"]["correlations_repaired"] > 0.5
    assert "were no correlation matrix" in found["notes"][0]
    assert "away (Frobenius)" in found["notes"][0]


def test_draws_come_on_top_of_a_scenario_whose_correlations_they_take(files: Typed) -> None:
    words = ("--monte-carlo", ROWS, "--world", "tiny", "--draws", "gaussian", "--days", 0.001)
    found, tied = (
        json.loads(files(name, *words, "--json")[1]) for name in ("loose.toml", "tied.toml")
    )
    assert tied["scenario"] == "tied"
    assert tied["draws"]["correlations_shocked"] is True
    assert found["draws"]["correlations_shocked"] is False
    assert tied["options"]["impact"] == "none"
    for each in tied["worst"]:
        assert each["moves"]["ETH"] == pytest.approx(-0.4, abs=0.01)
        assert each["moves"]["ETH"] == pytest.approx(each["moves"]["BTC"], abs=1e-12)
    assert any(abs(each["moves"]["ETH"] - each["moves"]["BTC"]) > 1e-4 for each in found["worst"])
    code, _, err = files("sweep", "tied.toml", "-n", 9, "--world", "tiny", "--draws", "moves.csv")
    assert code == 2
    assert "shock to correlations, which draws from the past or a file cannot follow" in err
    alone = files("tied.toml", "--world", "tiny")
    assert "a shock to correlations has a say in draws alone" in alone[1]


def test_every_scenario_goes_to_a_file(files: Typed, tmp_path: Path) -> None:
    code, out, err = files(
        "--monte-carlo", ROWS, "--world", "tiny", "--out", "rows.parquet", "--days", 9
    )
    assert code == 0, err
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert rows["scenario"].to_list() == list(range(ROWS))
    assert {"insolvency_usd", "liquidated_usd", "called_twice", "outcome"} <= set(rows.columns)
    assert "by venue" in out
    assert f"{ROWS} rows in rows.parquet" in err


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo world in a lake: 90 days of hourly prices."""
    from undertow.cli.world import keep_world
    from undertow.store import Lake

    home = tmp_path_factory.mktemp("lake") / "lake"
    keep_world(Lake.create(home), "demo", demo_world(), quiet=True)
    return home


def test_the_past_is_that_of_the_lake_where_no_file_is_given(typed: Typed, lake: Path) -> None:
    words = ("--monte-carlo", 20, "--lake", lake, "--draws", "historical", "--json")
    code, out, err = typed(*words)
    assert code == 0, err
    found = json.loads(out)["draws"]
    assert (found["past_steps"], found["step_hours"]) == (2_160, 1.0)
    assert (found["steps"], found["block"]) == (24, 24)  # a day as it was, hour by hour
    assert found["stands_still"] == []
    assert (found["history"], found["past_days"]) == ("90 days of the book", 90.0)  # not 365
    found = json.loads(typed(*words, "--history", "lake:10")[1])["draws"]
    assert found["past_steps"] == 240
    code, _, err = typed(*words, "--history", "lake:0.05")
    assert code == 2
    assert "there is no history in 0.05 days of the book: 2 instants of" in err


WRONG = {
    "no law": (("--draws", "studnt"), "it may be gaussian, student[:DOF], historical[:BLOCK]"),
    "no number": (("--draws", "student:x"), "'x' is no number"),
    "few degrees": (("--draws", "student:-3"), "dof was -3.0; it must be above 2"),
    "a parameter too many": (("--draws", "gaussian:2"), "a gaussian has no parameter"),
    "no file": (("--draws", "nowhere.csv"), "nowhere.csv: there is no such file"),
    "no matrix file": (("--draws", "nowhere.npy"), "not readable as npy"),
    "a hole": (("--draws", "hole.csv"), "hole.csv, row 2, column ETH: a finite number was"),
    "a stranger": (("--draws", "strange.csv"), "no asset of the book is called 'XYZ'"),
    "an asset left out": (("--draws", "few.csv"), "nothing is said of ETH, which the book holds"),
    "too few rows": (("--draws", "moves.csv"), "moves.csv holds 40 scenarios"),
    "a horizon of a file": (("--draws", "moves.csv", "--days", 2), "--draws is a file of moves"),
    "a history of a file": (("--draws", "moves.csv", "--history", "lake"), "taken as they are"),
    "no horizon": (("--days", 0), "--days was 0"),
    "a horizon of nothing": (("--days", "nan"), "--days was nan"),
    "part of a step": (
        ("--draws", "historical", "--history", "prices.csv", "--days", 0.5), "whole number of steps"
    ),
    "a block of nothing": (
        ("--draws", "historical:0", "--history", "prices.csv"), "block was 0; it must be 1 to 89"
    ),
    "part of a block": (
        ("--draws", "historical:1.5", "--history", "prices.csv"), "a whole number of steps"
    ),
    "no decay": (
        ("--draws", "filtered:2", "--history", "prices.csv"), "decay was 2.0; it must lie between"
    ),
    "a short past": (
        ("--draws", "filtered", "--history", "short.csv"),
        "short.csv has 20 instants with every price; it needs at least 24",
    ),
    "a very short past": (
        ("--draws", "historical", "--history", "three.csv"),
        "three.csv has 3 instants with every price; it needs at least 4",
    ),
    "a price of nothing": (
        ("--draws", "historical", "--history", "free.csv"),
        "free.csv, row 1, column ETH: a price above 0 was expected",
    ),
    "a past that stood still": (
        ("--draws", "historical", "--history", "still.csv"), "the price of BTC, ETH never moves"
    ),
    "a past without a price": (
        ("--draws", "historical", "--history", "void.csv"), "there is none at all of ETH"
    ),
    "no past": (("--draws", "historical"), "there is no history in 365 days of the book"),
    "no such past": (("--history", "nowhere.csv"), "nowhere.csv: there is no such file"),
    "another ending": (("--history", "prices.xls"), "give a .csv or .parquet file"),
    "no days": (("--history", "lake:-3"), "days are above 0"),
    "no prices": (("--history", "hole.csv"), "no column of instants is among BTC, ETH"),
    "no instant": (("--history", "undated.csv"), "an instant was expected"),
    "crossed ties": (("--correlation", "crossed.csv"), "crossed.csv is not symmetric"),
    "part of ties": (("--correlation", "part.csv"), "nothing is said of ETH"),
    "ties that are not square": (("--correlation", "wide.csv"), "wide.csv is 1 x 2"),
    "ties out of order": (("--correlation", "order.csv"), "rows are called ETH, BTC"),
    "ties of the past": (
        ("--draws", "historical", "--history", "prices.csv", "--correlation", "ties.csv"),
        "--correlation goes with gaussian and student",
    ),
    "two places": (("--ray", "auto", "--workers", "serial"), "give one or the other"),
    "no place": (("--workers", "somewhere"), "it is serial, threads:4"),
    "no address": (("--ray", "somewhere"), "address was 'somewhere'; it is auto, local, host:port"),
    "no table": (("--out", "rows.txt"), "the ending may be"),
    "no scenario": (("nope",), "no scenario is called 'nope'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_drawn_is_said_in_one_line(files: Typed, tmp_path: Path, case: str) -> None:
    words, expected = WRONG[case]
    for name, text in {
        "hole": "BTC,ETH\n0.1,0.1\n0.1,\n", "strange": "BTC,ETH,XYZ\n1,1,1\n", "few": "BTC\n0.1\n",
        "crossed": "BTC,ETH\n1,0.5\n0.4,1\n", "part": "BTC\n1\n", "wide": "BTC,ETH\n1,0.5\n",
        "order": "asset,BTC,ETH\nETH,1,0.5\nBTC,0.5,1\n",
        "undated": "date,BTC,ETH\nyesterday,1,2\n",
        "short": PRICES.head(20).write_csv(), "three": PRICES.head(3).write_csv(),
        "free": PRICES.with_columns(ETH=0.0).write_csv(),
        "still": PRICES.with_columns(BTC=1.0, ETH=1.0).write_csv(),
        "void": PRICES.with_columns(ETH=pl.lit("")).write_csv(),
    }.items():  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(text)
    code, out, err = files("--monte-carlo", 100, "--world", "tiny", *words)
    assert code == 2, err
    assert not out
    assert expected in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize(("draws", "least"), [("historical", 4), ("filtered", 24)])
def test_a_past_that_is_just_long_enough_is_drawn_from(
    files: Typed, tmp_path: Path, draws: str, least: int
) -> None:
    PRICES.head(least).write_csv(tmp_path / "least.csv")
    found = swept(files, "--draws", draws, "--history", "least.csv", count=2)
    assert found["draws"]["past_steps"] == least - 1
    PRICES.head(least - 1).write_csv(tmp_path / "least.csv")
    words = ("--draws", draws, "--history", "least.csv")
    assert files("--monte-carlo", 2, "--world", "tiny", *words)[0] == 2


@pytest.mark.parametrize("draws", ["historical", "filtered"])
def test_a_horizon_of_more_than_a_quarter_of_the_past_is_warned_of(
    files: Typed, draws: str
) -> None:
    words = ("--draws", draws, "--history", "prices.csv")
    said = "days come out of a past of 89 days: draws are much alike"
    fewer = swept(files, *words, "--days", 22, count=2)["notes"]
    assert not any(said in note for note in fewer)
    more = swept(files, *words, "--days", 23, count=2)["notes"]
    assert sum(f"moves over 23 {said}" in note for note in more) == 1


def test_what_is_to_be_known_of_tails_is_said_once(typed: Typed) -> None:
    calm = ("--monte-carlo", 20, "--world", "tiny", "--days", 0.001)
    code, out, _ = typed(*calm)
    assert code == 0
    assert out.count("100.0% of scenarios lost exactly the value at risk") == 1
    assert "insolvency and liquidated: 100.0% of scenarios" in out
    assert "insolvency VaR 99.0%: 0 USD (at least 0 at 95 %, no upper bound)" in out
    assert "the worst scenarios" not in out
    found = swept(typed, "--days", 0.001, count=20)
    assert found["worst"] == []
    assert (found["insolvency_var_low_usd"], found["insolvency_var_high_usd"]) == (0.0, None)


def test_the_worst_scenarios_are_those_that_cost_something(files: Typed, tmp_path: Path) -> None:
    (tmp_path / "three.csv").write_text("BTC,ETH\n0,0\n-0.3,0\n0.001,0\n")
    found = swept(files, "--draws", "three.csv", count=3)
    assert [each["scenario"] for each in found["worst"]] == [1]
    assert found["insolvency_es_usd"] > 0.0
    assert found["insolvency_es_low_usd"] >= 0.0


def test_a_sweep_says_what_one_scenario_says(files: Typed, tmp_path: Path) -> None:
    # Nobody knows how deep ETH trades in the tiny world, and it is sold where it falls by half.
    (tmp_path / "half.csv").write_text("BTC,ETH\n0,-0.7\n")
    (tmp_path / "half.toml").write_text(
        'name = "half"\n[[shock]]\nkind = "price"\nasset = "ETH"\nmove = -0.5034\n'
    )
    words = "no depth is known of ETH: sales of it move no price"
    alone = json.loads(files("half.toml", "--world", "tiny", "--json")[1])
    found = swept(files, "--draws", "half.csv", count=1)
    assert words in alone["notes"]
    assert words in found["notes"]
    assert words not in swept(files, "--days", 0.001, count=2)["notes"]
    reverse = ("reverse", "--world", "tiny", "--of", "liquidated")
    size = files(*reverse, "--scenario", "half.toml", "--target", 100, "--json")
    assert words in json.loads(size[1])["notes"]
    shock = json.loads(files(*reverse, "--target", 1_000, "--budget", 400, "--json")[1])
    assert (shock["volatilities"], shock["correlations"]) == ("assumed", "assumed")


def test_a_sweep_that_was_cut_short_says_so(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "fall.csv").write_text("BTC,ETH\n-0.3,0\n")
    words = ("--monte-carlo", 1, "--world", "tiny", "--draws", "fall.csv", "--rounds", 1)
    code, out, err = typed(*words)
    assert code == 0
    assert out.startswith("1 joint scenario\n")
    assert "1 scenario still sold when cut short by the limit of 1 round, --rounds" in out
    assert err.startswith("1 scenario, ") or "\n1 scenario, " in err


def test_a_count_has_a_short_name_wherever_it_stands(typed: Typed) -> None:
    long = json.loads(typed("fall.toml", "--monte-carlo", 3, "--world", "tiny", "--json")[1])
    assert long["scenarios"] == 3
    for words in (
        ("fall.toml", "-n", 3), ("fall.toml", "-n3"), ("-n", 3, "fall.toml"),
        ("sweep", "fall.toml", "-n", 3),
    ):  # fmt: skip
        code, out, err = typed(*words, "--world", "tiny", "--json")
        assert code == 0, err
        assert json.loads(out) == long
    for count in ("-n", "--monte-carlo"):
        code, out, err = typed("run", "fall.toml", count, 3, "--world", "tiny")
        assert (code, out) == (2, "")
        assert "say `undertow stress sweep`" in err


def test_a_count_that_is_none_or_too_large_is_refused(typed: Typed) -> None:
    assert typed("--monte-carlo", 0, "--world", "tiny")[0] == 2
    code, _, err = typed("--monte-carlo", 10**13, "--world", "tiny")
    assert code == 2
    assert "--monte-carlo was 10,000,000,000,000: its results alone take" in err
    assert "this machine has room for" in err


def test_a_cluster_that_does_not_answer_is_known_before_the_book_is_read(typed: Typed) -> None:
    pytest.importorskip("ray")
    code, out, err = typed("--monte-carlo", 10, "--lake", "nowhere", "--ray", "127.0.0.1:1")
    assert code == 1
    assert not out
    assert "Ray at 127.0.0.1:1 did not answer" in err


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_on_a_cluster_tells_the_same(files: Typed) -> None:
    assert swept(files, "--ray", "local") == swept(files, "--workers", "serial")


def test_assets_without_moves_stand_still_where_that_is_asked_for(
    files: Typed, tmp_path: Path
) -> None:
    PRICES.drop("ETH").with_columns(XYZ=pl.lit(1.0)).write_csv(tmp_path / "btc.csv")
    words = ("--draws", "historical", "--history", "btc.csv")
    assert files("--monte-carlo", 10, "--world", "tiny", *words)[0] == 2
    found = swept(files, *words, "--fill-missing")
    assert found["draws"]["stands_still"] == ["ETH"]
    assert found["draws"]["ignored"] == ["XYZ"]
    assert "no history of ETH: draws leave them where they are" in found["notes"]
    assert all(set(each["moves"]) == {"BTC"} for each in found["worst"])


def test_percentages_given_for_log_moves_are_wondered_at(files: Typed, tmp_path: Path) -> None:
    (tmp_path / "percent.csv").write_text("BTC,ETH\n-20,-25\n1,2\n")
    found = swept(files, "--draws", "percent.csv", count=2)
    assert "are these log moves" in found["notes"][0]


def test_progress_tells_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    bar = Progress("scenarios", quiet=False)
    bar(0, 1_000)
    clock.now = 60.0
    bar(100, 1_000)
    clock.now = 600.0
    bar(1_000, 1_000)
    drawn = capsys.readouterr().err.split("\r")
    assert drawn[-2].startswith("scenarios ██")
    assert "10% 9 min left" in drawn[-2]
    assert "100%" in drawn[-1]
