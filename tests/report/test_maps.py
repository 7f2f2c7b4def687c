"""The drawing of a map keeps every dollar, keeps ways of knowing apart, and says what it folds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from measures.interconnection.mapped import demo_backing
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.surroundings import gaps
from undertow.report.flows import ASSUMED, NOT_TOLD, NOTHING_KNOWN, Flows, flows_of
from undertow.report.ink import EVIDENCE
from undertow.report.maps import INK, dependency_picture

SVG = "{http://www.w3.org/2000/svg}"
MANY = 30


@pytest.fixture(scope="module")
def backing() -> Backing:
    return demo_backing()


@pytest.fixture(scope="module")
def drawn(backing) -> ET.Element:
    return ET.fromstring(dependency_picture(backing))


def map_of(rows: list[tuple[str, str, str, float, str]]) -> Backing:
    names = dict.fromkeys(name for row in rows for name in row[:2])
    kinds = [name.partition(":")[0] for name in names]
    nodes = pl.DataFrame({"node": list(names), "kind": kinds})
    columns = ["source", "target", "kind", "usd", "evidence"]
    return Backing.of(DependencyMap.from_frames(nodes, pl.DataFrame(rows, columns, orient="row")))


def priced(rows: list[tuple[str, str, str, float, str]]) -> Backing:
    """The same where every claim is of so many B, which are worth 1."""
    found = map_of(rows).map
    edges = found.edges().with_columns(asset=pl.lit("B"), qty=pl.col("usd"))
    nodes = found.node_frame().with_columns(
        price_usd=pl.when(kind="asset").then(1.0), par_usd=pl.when(kind="asset").then(1.0)
    )
    return Backing.of(DependencyMap.from_frames(nodes, edges))


def gappy(count: int = MANY) -> Backing:
    """Tokens on one base, each with a part that is nothing or that nobody told of."""
    rows: list[tuple[str, str, str, float, str]] = []
    for k in range(count):
        token, usd = f"asset:wrapped <{k}>", float(2 * count - k)
        rows += [
            (f"external:fund {k}", token, "vault_share", usd, "observed"),
            (token, "asset:BASE", "backing", usd / 2, "sampled" if k % 2 else "modelled"),
            (token, "unseen:nothing", "nothing", usd / 4, "modelled"),
            (token, "unseen:not told", "not told", usd / 4, "modelled"),
        ]
    return map_of(rows)


def amounts(flows: Flows, known: str) -> float:
    return float(flows.flows.filter(pl.col("known") == known)["usd"].sum())


def test_what_a_box_is_made_of_is_all_that_the_look_through_has(backing) -> None:
    flows = flows_of(backing, top=100)
    names = {(box.column, box.name): k for k, box in enumerate(flows.boxes)}
    out = np.zeros(len(flows.boxes))
    np.add.at(out, flows.flows["source"].to_numpy(), flows.flows["usd"].to_numpy())
    checked = 0
    for row, name in enumerate(backing.names):
        at = names.get(("tokens", name.partition(":")[2]))
        if backing.is_token[row] and at is not None:
            assert out[at] == pytest.approx(backing.whole[row])
            checked += 1
    assert checked >= 8
    place = [k for k, name in enumerate(backing.names) if name.startswith("instrument:aave-v3:")]
    assert out[names["venues", "aave-v3"]] == pytest.approx(backing.whole[place].sum())


def test_what_owners_hold_leaves_them_whole(backing) -> None:
    flows = flows_of(backing)
    owners = [k for k, box in enumerate(flows.boxes)
              if box.column == "owners" and "owner" in box.name]  # fmt: skip
    venues = [k for k, box in enumerate(flows.boxes) if box.column == "venues"]
    held = flows.flows.filter(pl.col("source").is_in(owners) & pl.col("target").is_in(venues))
    assert held["usd"].sum() == pytest.approx(backing.accounts.held.sum())


def test_folding_boxes_loses_nothing() -> None:
    whole, few = flows_of(gappy(), top=1_000), flows_of(gappy(), top=5)
    for known in ("observed", "sampled", "modelled", NOTHING_KNOWN, NOT_TOLD):
        assert amounts(few, known) == pytest.approx(amounts(whole, known))
        assert amounts(whole, known) > 0.0
    assert few.folded == {"tokens": MANY - 4}
    assert f"{MANY - 4} others" in {box.name for box in few.boxes}
    assert len(few.boxes) < len(whole.boxes)


def test_gaps_are_what_the_map_says_of_them() -> None:
    found = gappy()
    flows = flows_of(found)
    assert amounts(flows, NOTHING_KNOWN) == pytest.approx(found.nothing.sum())
    told = found.map.of_kind("not told")
    assert amounts(flows, NOT_TOLD) == pytest.approx(found.map.usd[told].sum())


def test_no_two_ways_of_knowing_share_a_colour_and_gaps_have_their_own() -> None:
    assert len(set(INK.values())) == len(INK)
    assert {word: INK[word] for word in EVIDENCE} == EVIDENCE
    root = ET.fromstring(dependency_picture(gappy()))
    fills: dict[str, set[str]] = {}
    for path in root.iter(f"{SVG}path"):
        said = path.findtext(f"{SVG}title") or ""
        fills.setdefault(said.rpartition(", ")[2], set()).add(path.get("fill") or "")
    assert fills["observed"] == {EVIDENCE["observed"]}
    assert fills["modelled"] == {EVIDENCE["modelled"]}
    assert fills["nothing behind it"] == {INK[NOTHING_KNOWN]}
    assert fills["nobody told"] == {INK[NOT_TOLD]}
    legend = {rect.get("fill") for rect in root.findall(f"{SVG}rect")}
    assert legend == {colour for each in fills.values() for colour in each}


def test_what_nobody_said_is_drawn_as_taken_at_its_word() -> None:
    found = map_of([("external:fund", "asset:W", "vault_share", 8.0, "observed"),
                    ("asset:W", "asset:B", "follows", 0.0, "observed")])  # fmt: skip
    assert found.assumed.any()
    assert amounts(flows_of(found), ASSUMED) == pytest.approx(8.0)


def test_widths_keep_one_scale(drawn) -> None:
    ratios = []
    for path in drawn.iter(f"{SVG}path"):
        start = re.match(r"M[\d.]+,([\d.]+) .* [\d.]+,([\d.]+) Z$", path.get("d") or "")
        said = re.search(r": ([\d.,]+)( [kMB])? USD", path.findtext(f"{SVG}title") or "")
        if start and said and said[2] == " M":
            wide = float(start[2]) - float(start[1])
            ratios.append(wide / float(said[1].replace(",", "")))
    assert len(ratios) > 20
    assert max(ratios) == pytest.approx(min(ratios), rel=0.05)  # both are rounded


def test_a_circle_is_marked_and_what_leads_back_is_dashed(backing, drawn) -> None:
    words = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
    (share,) = [word for word in words if "vUSDC" in word]
    assert "↻ 3.00 M goes round" in share
    rings = [rect for rect in drawn.iter(f"{SVG}rect") if rect.get("class") == "ring"]
    assert len(rings) == sum(box.circle for box in flows_of(backing).boxes) > 0
    dashed = [path.findtext(f"{SVG}title") for path in drawn.iter(f"{SVG}path")
              if "back" in (path.get("class") or "")]  # fmt: skip
    assert any(title and title.startswith("vUSDC to aave-v3") for title in dashed)
    assert any("leads back to the left" in word for word in words)


def test_value_runs_to_the_right_but_for_what_is_dashed(backing, drawn) -> None:
    tokens = {box.name: box.depth for box in flows_of(backing).boxes if box.column == "tokens"}
    assert tokens["wwwETH"] > tokens["wwETH"] > tokens["wETH"] == 1
    heads = [text.text for text in drawn.iter(f"{SVG}text") if "head" in (text.get("class") or "")]
    assert heads == ["who holds", "venues", "keepers of tokens", "tokens, 3 deep",
                     "tokens, 2 deep", "tokens, 1 deep", "keepers", "what it ends in"]  # fmt: skip


@pytest.mark.parametrize("make", [lambda: None, gappy])
def test_names_do_not_lie_on_each_other_and_stay_in_the_frame(backing, make) -> None:
    root = ET.fromstring(dependency_picture(make() or backing))
    _, _, wide, tall = (float(x) for x in (root.get("viewBox") or "").split())
    spots: dict[float, list[float]] = {}
    for text in root.iter(f"{SVG}text"):
        x, y = float(text.get("x") or 0), float(text.get("y") or 0)
        assert 0.0 < y < tall
        if text.get("class") == "halo":
            spots.setdefault(x, []).append(y)
            letters = len("".join(text.itertext())) - len(text.findtext(f"{SVG}title") or "")
            assert x + 5.5 * letters < wide
    assert spots
    for column in spots.values():
        assert min(np.diff(sorted(column)), default=99.0) >= 16.0


def test_the_drawing_says_what_it_folded_and_takes_names_as_text() -> None:
    drawing = dependency_picture(gappy(), top=5)
    assert f"{MANY - 4} tokens stand together as others" in drawing
    assert "wrapped &lt;0&gt;" in drawing
    assert "wrapped <0>" not in drawing
    assert "All of them are drawn" in dependency_picture(gappy(3))


@pytest.mark.parametrize("which", ["demo", "ties", "gaps"])
def test_grey_flows_are_what_gaps_say_is_taken_at_its_word(which: str, backing) -> None:
    """Of ties: 7 of T follows B; K owes 5 of B and says that it has 2."""
    rows = [("external:holder", "asset:T", "vault_share", 7.0, "observed"),
            ("asset:T", "asset:B", "follows", 0.0, "observed"),
            ("external:holder", "custodian:K", "custody", 5.0, "observed"),
            ("custodian:K", "asset:B", "holds", 2.0, "observed")]  # fmt: skip
    drawn = {"demo": lambda: backing, "ties": lambda: priced(rows), "gaps": gappy}[which]()
    told = gaps(drawn)
    assert amounts(flows_of(drawn, top=100), ASSUMED) == pytest.approx(told.taken_at_word_usd)
    assert told.keepers_at_word_usd <= told.taken_at_word_usd
    if which == "ties":
        assert (told.taken_at_word_usd, told.keepers_at_word_usd) == pytest.approx((10.0, 3.0))


def test_the_drawing_asks_nothing_of_any_network(drawn, backing) -> None:
    drawing = dependency_picture(backing)
    assert set(re.findall(r"https?://[^\"' ]+", drawing)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script|href|url\(|@import", drawing)
    assert drawing == dependency_picture(backing)
    assert drawn.findtext(f"{SVG}title") == "What stands on what, 2026-11-01"


def test_a_map_of_nothing_is_an_empty_drawing_that_says_so() -> None:
    nodes = pl.DataFrame({"node": ["asset:A"], "kind": ["asset"]})
    edges = pl.DataFrame(schema={"source": pl.String, "target": pl.String, "kind": pl.String,
                                 "usd": pl.Float64})  # fmt: skip
    found = Backing.of(DependencyMap.from_frames(nodes, edges))
    assert "Nobody holds anything here." in dependency_picture(found)
