"""One node of the map: its edges step by step, what it is in the end, and the gaps of all."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from measures.interconnection.mapped import demo_backing, mapped_world
from undertow.errors import StateError
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.surroundings import (
    edge_kinds,
    gaps,
    largest,
    looked_through,
    steps_from,
)


@pytest.fixture(scope="module")
def world():
    return mapped_world()


@pytest.fixture(scope="module")
def backing():
    return demo_backing()


def chain(*pairs: tuple[str, str], kind: str = "backing") -> DependencyMap:
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    nodes = pl.DataFrame({"node": [f"asset:{name}" for name in names], "kind": "asset"})
    ends = [[f"asset:{pair[k]}" for pair in pairs] for k in (0, 1)]
    edges = pl.DataFrame({"source": ends[0], "target": ends[1], "kind": kind, "usd": 1.0})
    return DependencyMap.from_frames(nodes, edges)


def test_steps_go_down_and_up_apart_and_end_in_a_circle():
    found = chain(("a", "b"), ("b", "c"), ("c", "a"), ("z", "a"))
    rows = steps_from(found, found.node("asset:a"), steps=9)
    met = {(row["way"], row["step"], row["source"][-1] + row["target"][-1])
           for row in rows.iter_rows(named=True)}  # fmt: skip
    assert met == {
        ("stands on", 1, "ab"), ("stands on", 2, "bc"), ("stands on", 3, "ca"),
        ("stands on it", 1, "ca"), ("stands on it", 1, "za"), ("stands on it", 2, "bc"),
        ("stands on it", 3, "ab"),
    }  # fmt: skip
    near = steps_from(found, found.node("asset:a"))
    assert near.height == 3
    assert near.columns[:4] == ["way", "step", "source", "target"]


def test_one_step_is_what_touches_the_node(backing):
    m = backing.map
    node = m.node("asset:vUSDC")
    rows = steps_from(m, node)
    assert rows.height == len(m.around(node, 1))
    only = steps_from(m, node, kinds=("deposit",))
    assert only["kind"].to_list() == ["deposit"]
    with pytest.raises(StateError, match="no edge is of kind 'loves'"):
        steps_from(m, node, kinds=("loves",))
    with pytest.raises(StateError, match="steps was 0"):
        steps_from(m, node, steps=0)


def test_a_planted_chain_is_its_base_and_passes_its_escrow(world, backing):
    planted = world.truth.chain
    found = looked_through(backing, backing.map.node(f"asset:{planted.assets[-1]}"))
    assert found.ends["end"].to_list() == [planted.assets[0]]
    assert found.ends["share"].to_list() == pytest.approx([1.0])
    assert found.keepers["node"].to_list() == ["external:ETH escrow"]
    assert found.wrappers == planted.depth
    assert (found.circular_usd, found.taken_at_word) == (0.0, False)


def test_a_planted_loop_says_what_goes_round(world, backing):
    loop = world.truth.loop
    found = looked_through(backing, backing.map.node(f"asset:{loop.share_asset}"))
    assert found.circular_usd == pytest.approx(loop.rho * found.usd, rel=1e-8)
    assert found.multiplier > 1.0
    assert gaps(backing).goes_round_usd == pytest.approx(found.circular_usd)


def test_an_owner_is_what_its_accounts_hold(backing):
    m = backing.map
    owner = m.node("owner:1")
    edges = m.edges().with_columns(usd=pl.Series(m.at_par()))
    mine = edges.filter((pl.col("source") == "owner:1") & (pl.col("kind") == "owns"))["target"]
    kinds = ["collateral", "cash", "supply"]
    held = edges.filter(pl.col("source").is_in(mine.implode()) & pl.col("kind").is_in(kinds))
    found = looked_through(backing, owner)
    assert found.usd == pytest.approx(held.filter(pl.col("usd") > 0.0)["usd"].sum())
    by_account = [looked_through(backing, m.node(name)) for name in mine]
    for end, usd in found.ends.select("end", "usd").iter_rows():
        parts = [each.ends.filter(end=end)["usd"].sum() for each in by_account if each]
        assert sum(parts) == pytest.approx(usd)


def test_a_venue_is_its_places_together(backing):
    found = looked_through(backing, backing.map.node("venue:aave-v3"))
    rows = [k for k, name in enumerate(backing.names) if name.startswith("instrument:aave-v3:")]
    assert found.usd == pytest.approx(backing.whole[rows].sum())
    ends = backing.whole[rows] @ backing.seen.ends[rows]
    top = found.ends.row(0, named=True)
    assert top["usd"] == pytest.approx(ends.max())
    assert found.ends["share"].sum() == pytest.approx(1.0)


def test_what_has_nothing_is_followed_nowhere(backing):
    assert looked_through(backing, backing.map.node("chain:ethereum")) is None
    bare = looked_through(backing, backing.map.node("asset:BTC"))
    assert bare.ends["end"].to_list() == ["BTC"]


def test_the_list_says_of_a_node_what_the_node_says_of_itself(backing):
    m = backing.map
    for name, usd in largest(backing, top=4).select("node", "usd").iter_rows():
        through = looked_through(backing, m.node(name))
        if through is not None:
            assert usd == pytest.approx(through.usd, rel=1e-9, abs=1e-5), name
    listed = dict(largest(backing).select("node", "usd").iter_rows())
    assert listed["custodian:custodian-1"] > 0.0  # that keeps a token by name too
    assert listed["chain:ethereum"] > 0.0  # has nothing, and much hangs on it


def test_the_largest_come_first_and_unknown_kinds_are_refused(backing):
    rows = largest(backing, top=3)
    assert rows.group_by("kind").len()["len"].max() == 3
    for _, part in rows.group_by("kind"):
        assert part["usd"].is_sorted(descending=True)
    owner = rows.filter(kind="owner")["node"][0]
    held = backing.owner_places.sum(axis=1)
    assert backing.map.node(owner) == backing.map.offset["owner"] + int(np.argmax(held))
    assert set(largest(backing, ("venue",))["kind"]) == {"venue"}
    with pytest.raises(StateError, match="no node is of kind 'planet'"):
        largest(backing, ("planet",))
    bare = largest(Backing.of(chain(("a", "b"))))  # without owners and most other kinds
    assert bare["node"].to_list() == ["asset:a", "asset:b"]


def test_gaps_are_what_edges_say_of_them():
    nodes = ["asset:W", "asset:B", "unseen:nothing", "unseen:not told"]
    rows = [("asset:W", "asset:B", "backing", 5.0), ("asset:W", "unseen:nothing", "nothing", 2.0),
            ("asset:W", "unseen:not told", "not told", 3.0)]  # fmt: skip
    found = DependencyMap.from_frames(
        pl.DataFrame({"node": nodes, "kind": [name.partition(":")[0] for name in nodes]}),
        pl.DataFrame(rows, schema=["source", "target", "kind", "usd"], orient="row"),
    )
    told = gaps(Backing.of(found))
    assert (told.nothing_usd, told.not_told_usd, told.goes_round_usd) == (2.0, 3.0, 0.0)
    seen = looked_through(Backing.of(found), found.node("asset:W"))
    shares = dict(seen.ends.select("end", "share").iter_rows())
    assert shares == pytest.approx({"B": 0.5, "untold": 0.3, "nothing": 0.2})


def test_kinds_of_edges_keep_ways_of_knowing_apart(backing):
    rows = edge_kinds(backing.map)
    assert rows["edges"].sum() == len(backing.map)
    assert np.nansum(backing.map.usd) == pytest.approx(rows["usd"].sum())
    assert rows.filter(kind="holds")["evidence"].n_unique() == 2
    assert rows.filter(kind="lives on")["usd"].to_list() == [None]
