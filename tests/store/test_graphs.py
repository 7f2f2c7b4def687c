"""A dependency map leaves as a file and comes back as the same map, or is refused in one line."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError, StoreError, UnreadableFile
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.surveying import survey
from undertow.store.graphs import form_of, read_map, write_map
from undertow.worlds import build_world

NAMES = ("map.parquet", "map.json", "map.graphml")
SPACE = "{http://graphml.graphdrawing.org/xmlns}"
ODD = ('<b> & "quoted"', "two\nlines\r\nand\ttabs ", "Ünïcode 山", "a:b:c", "%{x}", "]]>")
PLAIN = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="k" for="node" attr.name="kind" attr.type="string"/>
<key id="ek" for="edge" attr.name="kind" attr.type="string"><default>backing</default></key>
<key id="u" for="edge" attr.name="usd" attr.type="double"/>
<graph edgedefault="directed">
<node id="stETH"><data key="k">asset</data></node>
<node id="ETH"><data key="k">asset</data></node>
<edge source="stETH" target="ETH"><data key="u">5</data></edge>
</graph></graphml>"""


@pytest.fixture(scope="module")
def found() -> DependencyMap:
    return survey(build_world(3, accounts=40).snapshot())


def odd_map() -> DependencyMap:
    """Names and numbers that a careless writer would bend."""
    rng = np.random.default_rng(5)
    keys = [f"asset:{name}" for name in ODD]
    numbers = np.abs(rng.normal(size=len(ODD))) * 10.0 ** rng.integers(-300, 59, len(ODD))
    nodes = pl.DataFrame(
        {"node": ["owner:007", "owner:7", *keys], "kind": ["owner"] * 2 + ["asset"] * len(ODD),
         "par_usd": [None, None, *numbers]}
    )  # fmt: skip
    edges = pl.DataFrame(
        {"source": keys, "target": keys[1:] + keys[:1], "kind": "backing", "qty": numbers,
         "usd": [None, 0.1 + 0.2, -0.0, 5e-324, 9.999999999999999e59, 1.0],
         "asset": list(ODD), "evidence": "sampled", "origin": "claims",
         "ts": pl.Series([1_793_491_200_000_001] * len(ODD)).cast(pl.Datetime("us", "UTC"))}
    )  # fmt: skip
    return DependencyMap.from_frames(nodes, edges)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_comes_back_from_a_file_to_the_bit(found, name: str, tmp_path: Path) -> None:
    for each in (found, odd_map(), found.only(np.zeros(len(found), dtype=np.bool_))):
        write_map(each, tmp_path / name, force=True)
        again = read_map(tmp_path / name)
        assert (again.digest, again.ts) == (each.digest, each.ts)
        assert (again.instrument_asset == each.instrument_asset).all()
        assert again.edges().equals(each.edges())
        assert again.node_frame().equals(each.node_frame())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_one_form_becomes_another_without_a_loss(found, tmp_path: Path) -> None:
    here = found
    for step, name in enumerate((*NAMES, *NAMES[::-1])):
        write_map(here, tmp_path / f"{step}{name}")
        here = read_map(tmp_path / f"{step}{name}")
    assert here.digest == found.digest
    assert np.array_equal(Backing.of(here).seen.ends, Backing.of(found).seen.ends)


def test_graphml_follows_the_rules_of_its_schema(found, tmp_path: Path) -> None:
    write_map(found, tmp_path / "map.graphml")
    root = ET.parse(tmp_path / "map.graphml").getroot()
    assert root.tag == f"{SPACE}graphml"
    parts = [each.tag.removeprefix(SPACE) for each in root]
    assert parts == ["key"] * (len(parts) - 1) + ["graph"]
    keys = {key.get("id"): key for key in root.iter(f"{SPACE}key")}
    token = re.compile(r"[\w.:-]+")
    for name, key in keys.items():
        assert token.fullmatch(name or "")
        assert token.fullmatch(key.get("attr.name") or "")
        assert key.get("attr.type") in ("boolean", "int", "long", "float", "double", "string")
    (graph,) = root.iter(f"{SPACE}graph")
    assert graph.get("edgedefault") == "directed"
    ids = [node.get("id") or "" for node in graph.iter(f"{SPACE}node")]
    assert len(set(ids)) == len(ids) == found.nodes
    assert all(map(token.fullmatch, ids))
    edges = list(graph.iter(f"{SPACE}edge"))
    assert len(edges) == len(found)
    assert {edge.get(end) for edge in edges for end in ("source", "target")} <= set(ids)
    assert len({edge.get("id") for edge in edges}) == len(edges)
    for part in graph.iter():
        told = [data.get("key") for data in part.findall(f"{SPACE}data")]
        assert len(set(told)) == len(told)
        of = part.tag.removeprefix(SPACE)
        assert all(keys[key].get("for") == of for key in told)
        for data in part.findall(f"{SPACE}data"):
            if keys[data.get("key")].get("attr.type") == "double":
                float(data.text or "")


def test_a_json_map_is_one_plain_object(found, tmp_path: Path) -> None:
    write_map(found, tmp_path / "map.json")
    told = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
    assert list(told) == ["format", "ts", "digest", "nodes", "edges"]
    assert told["format"] == "undertow-map/1"
    assert len(told["nodes"]) == found.nodes
    assert len(told["edges"]) == len(found)
    value = sum(edge["usd"] or 0.0 for edge in told["edges"])
    assert value == pytest.approx(np.nansum(found.usd), rel=1e-12)


def test_edges_that_a_tool_put_in_another_order_are_put_back(found, tmp_path: Path) -> None:
    path = tmp_path / "map.graphml"
    write_map(found, path)
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("<edge"))
    lines[first : first + len(found)] = reversed(lines[first : first + len(found)])
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_map(path).digest == found.digest


def test_a_graph_from_elsewhere_needs_kinds_and_values_alone(tmp_path: Path) -> None:
    (tmp_path / "other.graphml").write_text(PLAIN, encoding="utf-8")
    rows = {
        "nodes": [{"id": "stETH", "kind": "asset", "colour": 3}, {"id": "ETH", "kind": "asset"}],
        "edges": [{"source": "stETH", "target": "asset:ETH", "kind": "backing", "usd": 5}],
    }
    (tmp_path / "other.json").write_text(json.dumps(rows), encoding="utf-8")
    for name in ("other.graphml", "other.json"):
        read = read_map(tmp_path / name)
        row = read.edges().row(0, named=True)
        assert (row["source"], row["target"]) == ("asset:stETH", "asset:ETH")
        assert (row["kind"], row["usd"], row["evidence"]) == ("backing", 5.0, "observed")
        assert (row["origin"], row["qty"], row["asset"]) == ("given", None, None)
        backing = Backing.of(read)
        assert backing.seen.ends[backing.names.index("asset:stETH")].tolist() == [0.0, 1.0, 0.0]


NODES = [{"node": "asset:A", "kind": "asset"}, {"node": "venue:V", "kind": "venue"}]


def json_with(**changes: object) -> str:
    whole = {
        "format": "undertow-map/1",
        "nodes": NODES,
        "edges": [{"source": "venue:V", "target": "asset:A", "kind": "holds", "usd": 1.0}],
    }
    return json.dumps(whole | changes)


EDGE = {"source": "venue:V", "target": "asset:A", "kind": "holds", "usd": 1.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json_with()[:-40], "is not JSON at line 1"),
        (json_with(format="undertow-map/2"), "is of version '2' of the format, and 1 is read"),
        (json_with(format="other"), "is of format 'other'"),
        (json_with(edges=[EDGE | {"kind": "loves"}]), "'loves' is unknown among the edges"),
        (json_with(nodes=[{"node": "asset:A", "kind": "thing"}]), "'thing' is unknown among"),
        (json_with(edges=[EDGE | {"target": "asset:B"}]), "edge 1 ends at 'asset:B'"),
        (json_with(edges=[EDGE, EDGE | {"kind": None}]), "edge 2 has no kind"),
        (json_with(edges=[EDGE | {"usd": "much"}]), 'edge 1 has "much" as usd; usd is a number'),
        (json_with(edges=[EDGE | {"usd": -2}]), "has -2 as usd; it must be a number from 0 up"),
        (json_with(edges=[EDGE | {"usd": 1e308}]), "has 1e+308 as usd; no number of a map is"),
        (json_with(edges=[EDGE | {"qty": -2}]), "has -2 as qty; only of what accounts hold may"),
        (json_with(nodes=[NODES[0] | {"par_usd": -1}, NODES[1]]), "'asset:A' has -1 as par_usd"),
        (json_with(nodes=[{"node": "A", "kind": "asset"}]), "must be asset:key"),
        (json_with(nodes=[{"node": "venue:A", "kind": "asset"}]), "kind asset is called 'venue:A'"),
        (json_with(nodes=[{"node": "asset:", "kind": "asset"}]), "must be asset:key"),
        (json_with(nodes=[{"kind": "asset"}]), "node 1 has no name; every node needs name, kind"),
        (json_with(nodes=[{"node": "asset:\ud800", "kind": "asset"}]), "is half a character"),
        (json_with(ts=2**62), "its ts is '4611686018427387904', which is no instant"),
        (json_with(ts="0001-01-01T00:00:00+14:00"), "which is no instant"),
        (json_with(edges=[EDGE | {"usd": True}]), "edge 1 has true as usd"),
        (json_with(edges=[EDGE | {"usd": 10**400}]), "too large for a number"),
        (json_with(edges=[EDGE | {"usd": float("nan")}]), "NaN is no number of JSON"),
        (json_with(edges=[EDGE | {"usd": float("inf")}]), "Infinity is no number of JSON"),
        (json_with(edges=[EDGE | {"kind": "at"}]), "'at' from 'venue:V' to 'asset:A'; at goes"),
        (json_with(edges=["x"]), "edge 1 is no object"),
        (json_with(edges={}), "has no list of edges"),
        (json_with(ts="yesterday"), "its ts is 'yesterday', which is no instant"),
        (json_with(digest="0" * 24), "was changed or damaged since it was written"),
        ("[1]", "is no JSON object"),
        ("[" * 100_000, "is not"),
        (json_with(format=None, edges=[{**EDGE, "usd": None}]), "no edge has a value"),
    ],
)
def test_a_bad_json_map_is_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableFile, match=re.escape(words)) as caught:
        read_map(tmp_path / "bad.json")
    assert str(caught.value).startswith("bad.json: ")
    assert caught.value.hint
    assert "\n" not in str(caught.value)


BOMB = '<!DOCTYPE g [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE g [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN[:-60], "is not XML at line"),
        (PLAIN[:-20], "is not XML at line"),
        ("", "is not XML at line 1: no element found"),
        (BOMB + PLAIN.replace("stETH", "&b;"), "has a DOCTYPE, and entities are never expanded"),
        (OUTSIDE + PLAIN, "has a DOCTYPE"),
        (PLAIN.replace('source="stETH"', 'source="wETH"'), "edge 1 ends at 'wETH'"),
        (PLAIN.replace(">asset<", ">thing<"), "'thing' is unknown among the nodes"),
        (PLAIN.replace(">5<", ">five<"), "has 'five' as usd (line 8)"),
        (PLAIN.replace(">5<", ">INF<"), "edge 1 has an infinite usd"),
        (PLAIN.replace(">5<", ">1_000<"), "has '1_000' as usd (line 8)"),
        (PLAIN.replace(">5<", ">-5<"), "edge 1, backing from 'asset:stETH' to 'asset:ETH', has -5"),
        (PLAIN.replace("backing", "owns"), "edge 1 says 'owns' from 'asset:stETH' to 'asset:ETH'"),
        ('<?xml version="1.0" encoding="klingon"?>' + PLAIN, "is in an encoding that is not known"),
        (PLAIN.replace("edgedefault", "other"), "has edges without a direction"),
        (PLAIN.replace('"directed"', '"undirected"'), "has edges without a direction"),
        (PLAIN.replace('<data key="u">', '<data key="z">'), "data of the key 'z'"),
        (PLAIN.replace("</graph>", "<hyperedge/></graph>"), "has a hyperedge"),
        (PLAIN.replace("</graph>", '</graph><graph edgedefault="directed"/>'), "more than one"),
        (PLAIN.replace('<node id="ETH">', '<node id="stETH">'), "the node id 'stETH' stands twice"),
        ("<svg/>", "begins with <svg>"),
        ("<graphml/>", "has no graph in it"),
    ],
)
def test_a_bad_graphml_map_is_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.graphml").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableFile, match=re.escape(words)) as caught:
        read_map(tmp_path / "bad.graphml")
    assert str(caught.value).startswith("bad.graphml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bad.json", "bad.graphml"])
def test_text_that_is_not_utf8_is_named_as_such(name: str, tmp_path: Path) -> None:
    text = PLAIN if name.endswith("ml") else json_with()
    (tmp_path / name).write_bytes(text.replace("asset", "ass\u00e9t").encode("latin-1"))
    if name.endswith("json"):
        (tmp_path / name).write_bytes(b'{"nodes": "\xff"}')
    with pytest.raises(UnreadableFile, match=r"is not UTF-8 at byte \d+; save it as UTF-8"):
        read_map(tmp_path / name)


def damage(folder: Path, what: str) -> None:
    edges = folder / "edges.parquet"
    if what == "cut":
        edges.write_bytes(edges.read_bytes()[:-30])
    elif what == "gone":
        edges.unlink()
    elif what == "rows":
        pl.read_parquet(edges).head(-1).write_parquet(edges)
    elif what == "value":
        pl.read_parquet(edges).with_columns(usd=pl.col("usd") * 2.0).write_parquet(edges)
    elif what == "type":
        pl.read_parquet(edges).cast({"usd": pl.String}).write_parquet(edges)
    elif what == "turned":
        turned = pl.read_parquet(edges).with_columns(source="target", target="source")
        turned.write_parquet(edges)
    elif what == "deep":
        (folder / "manifest.json").write_text("[" * 100_000)
    elif what == "manifest":
        (folder / "manifest.json").unlink()
    else:
        told = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(told | {"format": "undertow-map/9"}))


def without(folder: Path, *names: str) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    kept = {name: value for name, value in told.items() if name not in names}
    (folder / "manifest.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("what", "lacks", "words"),
    [
        ("cut", (), "edges.parquet was changed or damaged since it was written"),
        ("cut", ("digest",), "not readable as parquet"),
        ("gone", (), "has no edges.parquet"),
        ("rows", (), "edges.parquet was changed or damaged"),
        ("rows", ("digest",), "and its manifest says"),
        ("value", (), "edges.parquet was changed or damaged"),
        ("value", ("hashes",), "was changed or damaged since it was written: its hash is"),
        ("type", ("digest",), "has String as usd"),
        ("turned", ("digest",), "says 'owns' from 'account:"),
        ("manifest", (), "has no manifest.json"),
        ("deep", (), "manifest.json is not JSON"),
        ("version", (), "is of version '9'"),
    ],
)
def test_a_damaged_folder_is_refused(
    found, what: str, lacks: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    write_map(found, tmp_path / "map.parquet")
    without(tmp_path / "map.parquet", *lacks)
    damage(tmp_path / "map.parquet", what)
    with pytest.raises(UnreadableFile, match=re.escape(words)):
        read_map(tmp_path / "map.parquet")


def test_bytes_that_a_reader_would_trip_over_are_refused_in_silence(
    found, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some damage makes the reader of Parquet speak for itself; the hash is asked before it."""
    path = tmp_path / "map.parquet"
    write_map(found, path)
    raw = (path / "edges.parquet").read_bytes()
    for at in range(0, len(raw), len(raw) // 12):
        broken = raw[:at] + bytes(byte ^ 255 for byte in raw[at : at + 30]) + raw[at + 30 :]
        (path / "edges.parquet").write_bytes(broken)
        with pytest.raises(UnreadableFile, match=r"edges\.parquet was changed or damaged"):
            read_map(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_replaced_only_when_asked_for(found, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_map(odd_map() if name != "map.graphml" else found.only(found.of_kind("at")), path)
    old = read_map(path).digest
    with pytest.raises(StoreError, match=r"is there already; --force replaces it"):
        write_map(found, path)
    assert read_map(path).digest == old
    write_map(found, path, force=True)
    assert read_map(path).digest == found.digest
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_something_else_is_never_replaced(found, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="is a folder, and no map as parquet"):
        write_map(found, tmp_path / "mine", force=True)
    with pytest.raises(StoreError, match="is a folder, and no map as json"):
        write_map(found, tmp_path / "mine", form="json", force=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    write_map(found, tmp_path / "empty")
    assert read_map(tmp_path / "empty").digest == found.digest


@pytest.mark.parametrize("name", NAMES)
def test_a_write_that_fails_leaves_what_was_there(
    found, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_map(found, tmp_path / name)
    smaller = found.only(found.of_kind("at"))

    def full(self: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    real = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: full(self) if self.name.startswith(".")
                        and not self.name.endswith(".old") else real(self, to))  # fmt: skip
    with pytest.raises(OSError, match="No space left"):
        write_map(smaller, tmp_path / name, force=True)
    monkeypatch.undo()
    assert read_map(tmp_path / name).digest == found.digest
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_xml_cannot_hold_is_refused_and_json_takes_it(tmp_path: Path) -> None:
    nodes = pl.DataFrame({"node": ["asset:a\x01b", "asset:c"], "kind": "asset"})
    edges = pl.DataFrame({"source": ["asset:a\x01b"], "target": ["asset:c"], "kind": "backing",
                          "usd": 1.0})  # fmt: skip
    each = DependencyMap.from_frames(nodes, edges)
    with pytest.raises(StateError, match="XML cannot hold; export it as JSON or Parquet"):
        write_map(each, tmp_path / "map.graphml")
    assert not list(tmp_path.iterdir())
    write_map(each, tmp_path / "map.json")
    assert read_map(tmp_path / "map.json").digest == each.digest


def test_what_could_not_be_read_again_is_refused_before_it_is_written(found, tmp_path) -> None:
    usd = found.usd.copy()
    usd[3] = np.inf
    for name in NAMES:
        with pytest.raises(StateError, match=r"edge 4, .* has inf as usd; no number of a map"):
            write_map(replace(found, usd=usd), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_form_is_that_of_the_ending_unless_it_is_said(tmp_path: Path) -> None:
    assert form_of(Path("a.GraphML")) == "graphml"
    assert form_of(Path("folder")) == "parquet"
    assert form_of(Path("a.txt"), "json") == "json"
    for path, form in ((Path("a.txt"), None), (Path("a.json"), "xlsx")):
        with pytest.raises(StateError, match=r"name a \.graphml or \.json file"):
            form_of(path, form)
    with pytest.raises(UnreadableFile, match="is not there"):
        read_map(tmp_path / "none.json")
