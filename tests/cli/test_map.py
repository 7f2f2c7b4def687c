"""`undertow map`, as a new user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from measures.interconnection.mapped import demo_map
from undertow.assess import INVENTED
from undertow.cli.options import iso
from undertow.measures.interconnection.folding import fold
from undertow.measures.interconnection.surveying import survey
from undertow.store import Lake
from undertow.store.graphs import read_map, write_map
from undertow.store.load import load_snapshot
from undertow.worlds import tiny_world


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest world, kept as the world command does."""
    from undertow.cli.world import keep_world

    folder = tmp_path_factory.mktemp("mapped")
    keep_world(Lake.create(folder / "lake"), "tiny", tiny_world(), quiet=True)
    return str(folder / "lake")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The map of the demo world, as Parquet."""
    path = tmp_path_factory.mktemp("kept") / "map.parquet"
    write_map(demo_map(), path)
    return str(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with its accounts folded, as JSON."""
    path = tmp_path_factory.mktemp("small") / "map.json"
    write_map(fold(demo_map(), least_usd=1e5).map, path)
    return str(path)


def test_a_map_is_surveyed_from_the_lake_and_kept(run, lake: str, tmp_path: Path) -> None:
    found = survey(load_snapshot(Lake.open(lake)))
    done = run("map", "build", "--lake", lake, "--out", "kept", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["nodes"], told["edges"]) == (found.nodes, len(found))
    assert told["digest"] == found.digest == read_map(tmp_path / "kept").digest
    assert sum(row["edges"] for row in told["edge_kinds"]) == len(found)
    names = {"not_told_usd", "nothing_usd", "goes_round_usd", "taken_at_word_usd",
             "keepers_at_word_usd"}  # fmt: skip
    assert set(told["gaps"]) == names
    assert told["note"] == INVENTED
    assert INVENTED in done.err
    shown = run("map", "build", "--lake", lake)
    assert "edges, by kind and by how they are known" in shown.out
    assert "taken at word usd: " in shown.out
    assert f"at: {iso(found.ts)}\n" in shown.out


def test_a_map_that_says_no_instant_is_of_none(run, tmp_path: Path) -> None:
    nodes = [{"node": f"asset:{key}", "kind": "asset"} for key in "AB"]
    edge = {"source": "asset:A", "target": "asset:B", "kind": "backing", "usd": 1.0}
    (tmp_path / "a.json").write_text(json.dumps({"nodes": nodes, "edges": [edge]}))
    here = "a.json"
    for name in ("b.json", "c.graphml", "d.parquet"):
        assert run("map", "export", name, "--map", here).code == 0
        assert run("map", "show", "--map", name, "--json").json["at"] is None
        here = name
    assert "\nat: -\n" in run("map", "show", "--map", here).out


def test_an_invented_world_needs_no_lake(run) -> None:
    done = run("map", "show", "--world", "tiny", "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.json["world"] == "tiny"
    assert {row["kind"] for row in done.json["rows"]} >= {"owner", "venue", "asset"}


def test_a_node_is_shown_with_all_that_it_stands_on(run, small: str) -> None:
    done = run("map", "show", "asset:vUSDC", "--map", small, "--json")
    told = done.json
    through = told["look_through"]
    assert sum(row["share"] for row in through["ends"]) == pytest.approx(1.0)
    assert through["circular_usd"] == pytest.approx(3_000_000.0)
    ways = {(row["way"], row["kind"]) for row in told["edges"]}
    assert ("stands on", "deposit") in ways
    assert ("stands on it", "vault_share") in ways
    assert len(told["edges"]) == told["edges_in_all"]
    people = run("map", "show", "asset:vUSDC", "--map", small, "--top", "2")
    for words in ("what it is in the end", "keepers that it leads through", "stands on: 4 edges",
                  "… and 2 more", "circular usd: 3.00 M", "multiplier: "):  # fmt: skip
        assert words in people.out
    none = run("map", "show", "chain:ethereum", "--map", small)
    assert "it has nothing that could be followed" in none.out


def test_steps_and_kinds_narrow_what_is_shown(run, small: str) -> None:
    words = ("map", "show", "asset:vUSDC", "--map", small, "--json")
    near, far = (run(*words, "--steps", k).json["edges_in_all"] for k in (1, 2))
    assert near < far
    only = run(*words, "--kind", "deposit", "--kind", "follows").json["edges"]
    assert {row["kind"] for row in only} == {"deposit", "follows"}
    rows = run("map", "show", "--map", small, "--kind", "venue", "--top", "2", "--json").json[
        "rows"
    ]
    assert [row["kind"] for row in rows] == ["venue", "venue"]


def test_every_form_comes_back_as_the_same_map(run, kept: str, small: str, tmp_path: Path) -> None:
    whole = run("map", "export", "whole.json", "--map", kept, "--accounts", "--json").json
    assert whole["digest"] == demo_map().digest == read_map(tmp_path / "whole.json").digest
    digest, here = read_map(Path(small)).digest, small
    for name in ("a.graphml", "b.json", "c.parquet", "d.graphml"):
        done = run("map", "export", name, "--map", here, "--accounts", "--json")
        assert done.code == 0, done.err
        assert done.json["digest"] == digest
        here = name
    assert read_map(tmp_path / "d.graphml").digest == digest


def test_accounts_are_folded_for_graphs_unless_they_are_asked_for(
    run, kept: str, tmp_path: Path
) -> None:
    whole = read_map(Path(kept))
    done = run("map", "export", "a.graphml", "--map", kept)
    assert done.code == 0, done.err
    assert "went into the others" in done.err
    folded = read_map(tmp_path / "a.graphml")
    assert len(folded.keys["account"]) < len(whole.keys["account"]) / 10
    more = run("map", "export", "b.json", "--map", kept, "--least-usd", "1e4", "--json").json
    assert more["folded_accounts"] == len(whole.keys["account"])
    assert more["nodes"] > folded.nodes
    again = run("map", "export", "c.json", "--map", "a.graphml", "--json").json
    assert again["digest"] == folded.digest  # what was folded is not folded again
    parquet = run("map", "export", "d.parquet", "--map", kept, "--json").json
    assert parquet["digest"] == whole.digest
    small = run("map", "export", "e.parquet", "--map", kept, "--no-accounts", "--json").json
    assert small["nodes"] == folded.nodes


def test_a_figure_is_drawn_beside_a_file_or_alone(run, small: str, tmp_path: Path) -> None:
    done = run("map", "export", "a.json", "--map", small, "--figure", "a.svg")
    assert done.code == 0, done.err
    root = ET.parse(tmp_path / "a.svg").getroot()
    assert root.tag.endswith("svg")
    assert run("map", "export", "--map", small, "--figure", "b.svg", "--json").json["figure"]
    assert (tmp_path / "b.svg").read_bytes() == (tmp_path / "a.svg").read_bytes()


def test_what_is_there_is_replaced_only_with_force(
    run, lake: str, small: str, tmp_path: Path
) -> None:
    here = ("--map", small)
    for words in (("export", "a.json", *here), ("export", "--figure", "a.svg", *here),
                  ("build", "--out", "a", "--lake", lake)):  # fmt: skip
        assert run("map", *words).code == 0
        again = run("map", *words)
        assert (again.code, again.err.count("\n")) == (2, 1)
        assert "is there already; --force replaces it" in again.err
        assert again.err.startswith(("undertow: PATH 'a", "undertow: --"))
        assert run("map", *words, "--force").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.json", "a.svg"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "asset:vUSDD"], "the map has no asset 'vUSDD'; did you mean vUSDC"),
        (["show", "asset:eth"], "the map has no asset 'eth'; did you mean ETH?"),
        (["show", "ETH"], "'ETH' is no node of a map; did you mean asset:ETH?"),
        (["show", "aave-v3:ETH"], "did you mean instrument:aave-v3:ETH?"),
        (["show", "nowhere"], "a node is kind:key, such as asset:stETH"),
        (["show", "account:42"], "accounts went into groups by owner and venue when it was folded"),
        (["show", "owner:none"], "small owners went into groups when it was folded, such as"),
        (["show", "owner:none"], "`undertow map show owner:none --map FOLDER`"),
        (["show", "asset:vUSDC", "--kind", "loves"], "no edge is of kind 'loves'; have owns"),
        (["show", "--kind", "planet"], "no node is of kind 'planet'; have owner"),
        (["show", "--world", "tiny"], "--world was 'tiny', but --map reads a file"),
        (["show", "--at", "2026-01-01"], "--at was '2026-01-01', but --map reads a file"),
        (["export"], "nothing is to be written; name a .graphml or .json file"),
        (["export", "a.xlsx"], "ends in no form of a map"),
        (["export", "a.json", "--format", "gexf"], "no form 'gexf'"),
        (["export", "nowhere/a.json"], "in a folder that is not there"),
        (["export", "a.parquet", "--least-usd", "5"], "but no accounts are folded here"),
        (["export", "--figure", "a.png"], "the ending may be .svg"),
        (["export", "/proc/a.json"], "could not be written"),
    ],
)
def test_misuse_is_told_in_one_line(run, small: str, words: list[str], said: str) -> None:
    done = run("map", *words, "--map", small)
    assert done.code == 2, done.err
    assert said in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_bad_file_is_told_in_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"nodes": [')
    (tmp_path / "no.json").write_text(json.dumps({"nodes": [], "edges": [1]}))
    nodes = [{"node": "asset:ETH", "kind": "asset"}, {"node": "venue:V", "kind": "venue"}]
    turned = {"source": "asset:ETH", "target": "venue:V", "kind": "listed", "usd": 1.0}
    huge = {"source": "venue:V", "target": "asset:ETH", "kind": "holds", "usd": 1e308}
    for name, edge in (("turned.json", turned), ("huge.json", huge)):
        (tmp_path / name).write_text(json.dumps({"nodes": nodes, "edges": [edge]}))
    for name, said in (("cut.json", "is not JSON at line 1"), ("no.json", "edge 1 is no object"),
                       ("turned.json", "'asset:ETH' to 'venue:V'; listed goes from instrument to"),
                       ("huge.json", "has 1e+308 as usd; no number of a map is above 1e+60"),
                       ("none.json", "is not there"), ("none.txt", "ends in no form")):  # fmt: skip
        for words in (["show"], ["show", "asset:ETH"], ["export", "a.json"]):
            done = run("map", *words, "--map", name)
            assert (done.code, done.err.count("\n")) == (2, 1)
            assert said in done.err


def test_help_is_quick_for_it_imports_no_work() -> None:
    code = (
        "import sys; from undertow.cli import app; "
        "print([m for m in ('polars', 'numpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
