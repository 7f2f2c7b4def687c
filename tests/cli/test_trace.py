"""`undertow trace`, `undertow stress contagion` and kept runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import polars as pl
import pytest

from cli.typing_in import Run
from undertow.cli.kept import read_kept
from undertow.cli.trace import bearers_table
from undertow.errors import StateError
from undertow.store.causegraph import graph_text

Typed = Callable[..., tuple[int, str, str]]
PATH = """winners at hyperliquid: 2 k USD, of which 100 % by
  1. 100 %, 2 k USD
     BTC -20%
     → 1 account of hyperliquid closed in round 0 (32 k USD), leaving 3 k USD unpaid
     → 2 k USD taken from winners at hyperliquid
"""
PLAIN = ("--only", "fire_sales,receipts")  # the fewest solves
NAMESPACE = "{http://graphml.graphdrawing.org/xmlns}"


def told(run: Run, *words: object) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.code == 0, done.err
    return done.json


def test_a_trace_shows_the_path_and_not_only_the_number(run: Run, typed: Typed) -> None:
    done = run("trace", "fall.toml", "--world", "tiny")
    assert done.code == 0
    assert done.out.startswith("a fall: Bitcoin falls by a fifth\nan illustration: an invented")
    for words in (
        "3 k USD are lost for good after a fall, 3 k USD of it with all channels off.",
        "It comes from BTC -20% 3 k USD.",
        PATH,
        "the fund of hyperliquid: 1 k USD, of which 100 % by",
        "owner       owner:1",
        "assumed\n  - impact none, coupling 0.5",
        "how to read it: The loss is lost_usd",
    ):
        assert words in done.out, words
    # a new machine says first what it compiles
    assert [line for line in done.err.splitlines() if "compiling" not in line] == []


def test_json_and_the_graph_hold_the_same_trace(run: Run, typed: Typed, tmp_path: Path) -> None:
    tiny = ("trace", "fall.toml", "--world", "tiny", *PLAIN)
    found = told(run, *tiny, "--graph", "causes.json")
    assert found["scenario"] == "a fall"
    assert found["world"] == "tiny"
    assert found["channels_on"] == ["fire_sales", "receipts"]
    tables = found["tables"]
    assert [row["origin"] for row in tables["origins"]] == ["BTC -20%"]
    graph = json.loads((tmp_path / "causes.json").read_text())
    assert graph["format"] == "undertow-causes/1"
    assert graph["inputs"] == found["inputs_hash"]
    assert graph["nodes"] == tables["nodes"]
    assert graph["edges"] == tables["edges"]
    done = run(*tiny, "--graph", "causes.graphml", "--quiet")
    assert done.code == 0
    root = Xml.parse(tmp_path / "causes.graphml").getroot()
    nodes = root.findall(f".//{NAMESPACE}node")
    assert [node.get("id") for node in nodes] == [row["node"] for row in tables["nodes"]]
    assert len(root.findall(f".//{NAMESPACE}edge")) == len(tables["edges"])
    usd = [d.text for d in nodes[0].findall(f"{NAMESPACE}data") if d.get("key") == "node_usd"]
    assert float(usd[0]) == tables["nodes"][0]["usd"]


def test_one_bearer_one_loss_and_some_channels_can_be_asked_for(run: Run, typed: Typed) -> None:
    found = told(run, "trace", "fall.toml", "--world", "tiny", "--to", "fund:hyperliquid",
                 "--chains", "1", "--of", "bad_usd", "--only", "fire-sales,claims")  # fmt: skip
    assert [row["bearer"] for row in found["tables"]["bearers"]] == ["hyperliquid"]
    assert [row["kind"] for row in found["tables"]["chains"]] == ["fund"]
    assert found["channels_on"] == ["fire_sales", "claims"]
    assert found["readings"][0]["value"] == pytest.approx(3_000.0)
    less = told(run, "trace", "fall.toml", "--world", "tiny", "--without",
                "funding,backing,claims,dependence")  # fmt: skip
    assert less["channels_on"] == ["fire_sales", "receipts"]


def test_the_largest_bearers_are_shown_and_the_others_in_one_line(run: Run, typed: Typed) -> None:
    few = ("trace", "fall.toml", "--world", "tiny", *PLAIN)
    done = run(*few, "--top", "1")
    assert done.code == 0, done.err
    assert "who bears it, USD\n" in done.out
    assert "  … and 1 more, who bear 1 k USD in all (--top N, or --json)\n" in done.out
    assert "winners at hyperliquid: 2 k USD, of which 100 % by" in done.out
    assert "the fund of hyperliquid: 1 k USD" not in done.out
    both = run(*few)
    assert "more, who bear" not in both.out
    assert "the fund of hyperliquid: 1 k USD, of which 100 % by" in both.out
    # whatever is shown, all of it is in the answer for a program
    found = told(run, *few, "--top", "1", "--chains", "1")
    assert len(found["tables"]["bearers"]) == len(found["tables"]["chains"]) == 2
    named = run(*few, "--to", "hyperliquid")
    assert named.code == 0, named.err
    assert named.out.count(" USD, of which ") == 2


def test_who_bears_it_adds_up_on_the_terminal_too() -> None:
    rows = pl.DataFrame({
        "kind": ["party", "unnamed", "winners", "fund", "open"],
        "bearer": ["owner:7", "pool:aave:USDC", "okx", "okx", ""],
        "usd": [50.0, 20.0, 15.0, 10.0, 5.0],
    })  # fmt: skip
    shown = bearers_table(rows, 2)
    assert shown.rows() == [
        ("owner 7", 50.0, 0.5), ("others with a claim on pool aave:USDC", 20.0, 0.2),
        ("3 others", 30.0, 0.3), ("all", 100.0, 1.0),
    ]  # fmt: skip
    assert bearers_table(rows, 9)["bearer"].to_list()[2:] == [
        "winners at okx", "the fund of okx", "accounts under water that nobody closed", "all"
    ]  # fmt: skip
    assert not bearers_table(rows.clear(), 2).height


def test_debts_that_fell_away_are_none_of_the_others() -> None:
    rows = pl.DataFrame({
        "kind": ["party", "fund", "fund", "spared"], "bearer": ["owner:7", "okx", "desk", ""],
        "usd": [120.0, 20.0, 10.0, -50.0],
    })  # fmt: skip
    assert bearers_table(rows, 1).rows() == [
        ("owner 7", 120.0, 1.2), ("2 others", 30.0, 0.3),
        ("less debts that fell away with the coins behind them", -50.0, -0.5), ("all", 100.0, 1.0),
    ]  # fmt: skip


def test_a_kept_run_is_made_again_as_it_was(run: Run, typed: Typed, tmp_path: Path) -> None:
    code, out, err = typed("fall.toml", "--world", "tiny", "--keep", "kept", "--impact", "linear")
    assert code == 0
    assert "by venue, USD" in out
    assert "kept in kept" in err
    kept = read_kept(tmp_path / "kept")
    assert kept.scenario.options.impact.value == "linear"
    assert kept.channels.on == ("fire_sales", "receipts")
    (tmp_path / "fall.toml").unlink()  # it stands on nothing but the folder
    found = told(run, "trace", "kept")
    assert found["options"]["impact"] == "linear"
    assert found["channels_on"] == ["fire_sales", "receipts"]
    every = told(run, "trace", "kept", "--only", "all", "--without", "funding,backing,claims")
    assert every["channels_on"] == ["dependence", "fire_sales", "receipts"]


def test_a_kept_run_is_replaced_only_by_force(run: Run, typed: Typed, tmp_path: Path) -> None:
    tiny = ("fall.toml", "--world", "tiny", "--keep", "kept")
    assert typed(*tiny)[0] == 0
    first = (tmp_path / "kept" / "run.json").read_text()
    assert typed(*tiny, "--impact", "linear")[0] == 2
    assert (tmp_path / "kept" / "run.json").read_text() == first
    assert typed(*tiny, "--impact", "linear", "--force")[0] == 0
    assert read_kept(tmp_path / "kept").scenario.options.impact.value == "linear"


def test_a_run_on_a_lake_is_traced_as_the_lake_was(run: Run, typed: Typed, tmp_path: Path) -> None:
    from undertow.cli.world import run_world

    run_world("tiny", accounts=None, lake=None, seed=None, as_json=True, quiet=True)
    code, _, err = typed("fall.toml", "--keep", "kept")
    assert code == 0, err
    book = json.loads((tmp_path / "kept" / "run.json").read_text())["book"]
    assert book["lake"].endswith("undertow-lake")
    assert book["versions"]["positions"] >= 0
    first = told(run, "trace", "kept")
    assert first["as_of"] == book["as_of"]
    # what is brought in later changes nothing about it
    run_world("tiny", accounts=None, lake=None, seed=None, as_json=True, quiet=True)
    assert told(run, "trace", "kept")["tables"] == first["tables"]
    run_world("sized", accounts=5, lake="other", seed=3, as_json=True, quiet=True)
    done = run("trace", "kept", "--lake", "other")
    assert done.code != 0
    assert done.err.count("\n") == 1
    told_run = json.loads((tmp_path / "kept" / "run.json").read_text())
    told_run["inputs"] = "0" * 24
    (tmp_path / "kept" / "run.json").write_text(json.dumps(told_run))
    done = run("trace", "kept")
    assert done.code == 2
    assert "the book is another than the one that the run was kept of" in done.err


def test_what_was_kept_and_then_changed_is_refused(run: Run, typed: Typed, tmp_path: Path) -> None:
    assert typed("fall.toml", "--world", "tiny", "--keep", "kept")[0] == 0
    folder = tmp_path / "kept"
    whole = {name: (folder / name).read_text() for name in ("run.json", "scenario.toml")}
    facts = json.loads(whole["run.json"])
    for name, text, words in (
        ("scenario.toml", whole["scenario.toml"].replace("-0.2", "-0.3"), "is another than the"),
        ("run.json", "{", "is damaged or was changed"),
        ("run.json", json.dumps({**facts, "format": "undertow-run/9"}), "is of format"),
        ("run.json", json.dumps({**facts, "channels": ["magic"]}), "is damaged or was changed"),
        ("run.json", json.dumps({**facts, "run": {"speed": 1}}), "is damaged or was changed"),
        ("run.json", json.dumps({"format": facts["format"]}), "is damaged or was changed"),
    ):
        (folder / name).write_text(text)
        done = run("trace", "kept")
        assert done.code == 2, words
        assert words in done.err
        assert done.err.count("\n") == 1
        (folder / name).write_text(whole[name])
    assert run("trace", "kept").code == 0


def test_what_cannot_be_traced_is_said_in_one_line(run: Run, typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "c.json").write_text("{}")
    assert typed("fall.toml", "--world", "tiny", "--keep", "kept")[0] == 0
    tiny = ("fall.toml", "--world", "tiny")
    trace = ("trace", *tiny, *PLAIN)
    for words, expected in (
        (("trace", "nope", "--world", "tiny"), "no kept run and no scenario is called 'nope'"),
        (("trace", "kept2"), "did you mean kept? runs kept here are kept; `undertow stress run"),
        (("trace", "2025-10-1"), "did you mean 2025-10-10"),
        (("trace", "kept/run.json"), "is a file of a kept run, which is a folder; undertow trace"),
        (("trace", "full/note.txt"), "holds neither a kept run, which is a folder, nor a scenario"),
        (("trace", "c.json"), "what --json or --out gave cannot be traced"),
        (("trace", "empty"), "holds no kept run; runs kept here are kept"),
        (("trace", "."), "holds no kept run itself, but kept; undertow trace kept"),
        (
            ("trace", "empty/no"),
            "no run is kept in empty; `undertow stress run NAME --keep FOLDER`",
        ),
        (("trace", "kept", "--world", "tiny"), "--world was given, but 'kept' is a kept run"),
        (("trace", "kept", "--failed", "venue:x"), "--failed was given"),
        (("trace", *tiny, "--only", "magic"), "no channel is called 'magic'"),
        (("trace", *tiny, "--only", ""), "no channel is left on"),
        ((*trace, "--to", "owner:9"), "nobody called 'owner:9' bears a loss here"),
        ((*trace, "--of", "loss"), "target was 'loss'"),
        ((*trace, "--graph", "x.png"), "--graph was 'x.png'; the ending may be .graphml"),
        ((*trace, "--failed", "bank:x"), "failed was 'bank:x'; it may be custodian:NAME"),
        (
            (*trace, "--failed", "hyperliquid"),
            "did you mean venue:hyperliquid or chain:hyperliquid?",
        ),
        (
            ("stress", "contagion", "--failed", "aave-v3:ETH", "--world", "tiny"),
            "which says no kind; did you mean instrument:aave-v3:ETH?",
        ),
        (
            ("stress", "contagion", "--failed", "owner:1", "--world", "demo"),
            "--failed was 'owner:1', who owes nobody outside its venues",
        ),
        (("stress", "contagion"), "neither a scenario nor who fails was named"),
        (("stress", "contagion", *tiny, "--behaviour", "worst"), "--behaviour was 'worst'"),
        (("stress", *tiny, "--keep", "full"), "holds something else"),
        (("stress", *tiny, "--keep", "kept"), "which holds a kept run already; --force replaces"),
        (("stress", "contagion", *tiny, "--keep", "kept"), "holds a kept run already"),
        (("stress", *tiny, "--keep", "full", "--force"), "holds something else"),
        (("stress", *tiny, "--keep", "fall.toml"), "which is a file"),
        (("stress", *tiny, "--keep", "a/b"), "in a folder that is not there"),
        (("stress", *tiny, "--keep", "k", "--behaviour", "worst"), "--keep keeps one cascade"),
    ):
        done = run(*words)
        assert done.code == 2, (words, done.err)
        assert not done.out
        assert expected in done.err
        assert done.err.strip().count("\n") == 0
    assert (tmp_path / "full" / "note.txt").read_text() == "mine"


def test_contagion_tells_what_it_costs_by_which_channel_and_who_bears_it(
    run: Run, typed: Typed
) -> None:
    done = run("stress", "contagion", "fall.toml", "--world", "tiny", "--keep", "kept",
               "--without", "funding,backing,dependence")  # fmt: skip
    assert done.code == 0
    assert done.out.startswith("a fall: Bitcoin falls by a fifth")
    bears = done.out.partition("who bears what is lost, USD\n")[2].partition("\n\n")[0]
    *rows, whole = [line.split() for line in bears.splitlines()[2:]]
    assert [" ".join(row[:-2]) for row in rows] == [
        "winners at hyperliquid", "the fund of hyperliquid"
    ]  # fmt: skip
    assert [row[-2] for row in rows] == ["2,000.0", "1,000.0"]
    assert whole == ["all", "3,000.0", "1"]
    for words in ("3 k USD are lost for good after a fall", "by channels, USD",
                  "if an assumption were at an end, USD"):  # fmt: skip
        assert words in done.out, words
    again = told(run, "trace", "kept")
    assert again["channels_on"] == ["fire_sales", "claims", "receipts"]


def test_help_names_every_kind_that_can_fail(run: Run) -> None:
    told_kinds = " ".join(run("stress", "contagion", "--help").out.replace("│", " ").split())
    assert "custodian, bridge, issuer, chain, oracle, asset, instrument, venue" in told_kinds


def test_a_failure_needs_no_scenario(run: Run, tmp_path: Path) -> None:
    found = told(run, "stress", "contagion", "--failed", "venue:hyperliquid", "--world", "tiny",
                 "--no-assumptions", "--keep", "kept", "--only", "dependence,claims")  # fmt: skip
    assert found["failed"] == ["venue:hyperliquid"]
    assert found["tables"]["assumptions"] == []
    loss = found["readings"][0]["value"]
    assert loss > 0.0
    again = told(run, "trace", "kept")
    assert again["readings"][0]["value"] == loss
    assert again["tables"]["origins"][0]["origin"] == "venue:hyperliquid"
    assert again["tables"]["chains"][0]["says"].startswith("hyperliquid fails → ")


def test_help_is_quick(run: Run) -> None:
    began = time.perf_counter()
    assert run("trace", "--help").code == 0
    assert time.perf_counter() - began < 2.0


def test_a_graph_in_xml_holds_any_name_and_no_other_ending_is_known() -> None:
    nodes = pl.DataFrame({"node": ["a<b>&\x01"], "round": [1], "usd": [0.1], "bears": [True]})
    edges = pl.DataFrame({"source": ["a<b>&\x01"], "target": ["a<b>&\x01"], "share": [None]},
                         schema_overrides={"share": pl.Float64})  # fmt: skip
    root = Xml.fromstring(graph_text(nodes, edges, {}, ".graphml").split("\n", 1)[1])
    node = root.find(f".//{NAMESPACE}node")
    assert node is not None
    assert node.get("id") == "a<b>&�"
    assert root.find(f".//{NAMESPACE}edge/{NAMESPACE}data") is None
    with pytest.raises(StateError, match=r"end in '\.png'"):
        graph_text(nodes, edges, {}, ".png")
