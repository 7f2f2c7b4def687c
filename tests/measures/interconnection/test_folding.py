"""A map without its crowd keeps every dollar, and what everything stands on."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from measures.interconnection.mapped import demo_map
from undertow.errors import StateError
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.folding import fold, node_of
from undertow.measures.interconnection.mapping import DependencyMap


@pytest.fixture(scope="module")
def whole():
    return demo_map()


def sums(found: DependencyMap) -> pl.DataFrame:
    """USD by kind of edge, and by which end of it is no account and no owner."""
    crowd = pl.col("source", "target").str.starts_with("account:")
    owner = pl.col("source", "target").str.starts_with("owner:")
    edges = found.edges().with_columns(
        pl.when(crowd | owner).then(pl.lit("-")).otherwise(pl.col("source", "target")).name.keep()
    )
    by = ("source", "target", "kind", "asset", "evidence", "origin")
    return edges.group_by(by).agg(pl.col("usd", "qty").sum()).sort(by)


@pytest.mark.parametrize("least", [0.0, 2e4, 1e6, 1e12])
def test_a_fold_keeps_every_dollar_by_kind_and_place(whole, least):
    before, after = sums(whole), sums(fold(whole, least_usd=least).map)
    names = ["source", "target", "kind", "asset", "evidence", "origin"]
    assert after.select(names).equals(before.select(names))
    for column in ("usd", "qty"):
        gross = whole.edges()[column].abs().sum()
        assert np.abs(after[column].to_numpy() - before[column].to_numpy()).max() < 1e-12 * gross


@pytest.mark.parametrize("least", [0.0, 2e4, 1e6, 1e12])
def test_a_fold_changes_nothing_of_what_things_stand_on(whole, least):
    before, after = Backing.of(whole), Backing.of(fold(whole, least_usd=least).map)
    assert after.names == before.names
    assert np.allclose(after.seen.ends, before.seen.ends, rtol=0.0, atol=1e-12)
    assert np.allclose(after.seen.returns, before.seen.returns, atol=1e-12)
    assert np.allclose(after.circular, before.circular, atol=1e-6)
    assert np.allclose(after.whole, before.whole, rtol=1e-12)


def test_lending_to_who_has_too_little_stays_as_bare_in_a_crowd(whole):
    """Two who owe 100 on 50 and on 500: of what they owe together a quarter stands on nothing."""
    nodes = pl.DataFrame(
        {"node": ["owner:1", "owner:2", "account:1", "account:2", "instrument:v:USD",
                  "instrument:v:ETH", "venue:v", "asset:USD", "asset:ETH"],
         "size": [None] * 4 + [200.0, 550.0, None, None, None],
         "asset": [None] * 4 + ["USD", "ETH", None, None, None],
         "price_usd": [None] * 7 + [1.0, 1.0], "par_usd": [None] * 7 + [1.0, 1.0]}
    ).with_columns(kind=pl.col("node").str.extract(r"^(\w+)"))  # fmt: skip
    rows = [("owner:1", "account:1", "owns", 150.0), ("owner:2", "account:2", "owns", 600.0),
            ("account:1", "venue:v", "at", 150.0), ("account:2", "venue:v", "at", 600.0),
            ("instrument:v:USD", "account:1", "loan", 100.0),
            ("instrument:v:USD", "account:2", "loan", 100.0),
            ("account:1", "instrument:v:ETH", "collateral", 50.0),
            ("account:2", "instrument:v:ETH", "collateral", 500.0)]  # fmt: skip
    edges = pl.DataFrame(rows, schema=["source", "target", "kind", "usd"], orient="row")
    before = DependencyMap.from_frames(nodes, edges)
    after = fold(before, least_usd=1e3).map
    assert after.keys["account"].to_list() == ["2 others at v", "2 others at v owing USD"]
    assert after.keys["owner"].to_list() == ["2 others at v"]
    for found in (Backing.of(before), Backing.of(after)):
        assert found.nothing[found.names.index("instrument:v:USD")] == pytest.approx(50.0)
    posted = after.edges().filter(kind="collateral").sort("usd")["usd"].to_list()
    assert posted == pytest.approx([150.0, 400.0])  # what loans stand on, and what is left


def test_an_owner_of_one_account_keeps_its_name_and_the_small_are_counted(whole):
    found = fold(whole, least_usd=1e5)
    owners = found.map.keys["owner"].to_list()
    crowds = [name for name in owners if "others at" in name]
    assert 0 < len(crowds) <= len(whole.keys["venue"])
    assert len(owners) - len(crowds) + found.owners == len(whole.keys["owner"])
    assert found.accounts == len(whole.keys["account"])
    assert len(found.map.keys["account"]) < found.accounts / 10
    gross = whole.edges().filter(kind="owns").group_by("source").agg(pl.col("usd").sum())
    small = gross.filter(pl.col("usd") < 1e5)
    assert found.owners == small.height
    assert found.others_usd == pytest.approx(small["usd"].sum())


def test_an_owner_whom_a_claim_names_is_never_one_of_the_others(whole):
    edges = whole.edges()
    named = {
        node
        for end in ("source", "target")
        for node in edges.filter(pl.col("kind") != "owns")[end]
        if node.startswith("owner:")
    }
    assert named
    after = fold(whole, least_usd=1e15).map
    assert {f"owner:{key}" for key in after.keys["owner"]} >= named


def test_a_folded_map_comes_back_from_its_frames(whole):
    once = fold(whole, least_usd=1e5).map
    again = DependencyMap.from_frames(once.node_frame(), once.edges())
    assert again.digest == once.digest


@pytest.mark.parametrize("least", [-1.0, float("nan"), float("inf")])
def test_what_is_no_least_value_is_refused(whole, least):
    with pytest.raises(StateError, match="least_usd was"):
        fold(whole, least_usd=least)


def test_a_map_without_accounts_folds_to_itself():
    nodes = pl.DataFrame({"node": ["asset:A", "asset:B"], "kind": ["asset", "asset"]})
    edges = pl.DataFrame(
        {"source": ["asset:A"], "target": ["asset:B"], "kind": ["backing"], "usd": [5.0]}
    )
    found = DependencyMap.from_frames(nodes, edges)
    assert fold(found, least_usd=10.0).map.digest == found.digest


@pytest.mark.parametrize("least", [0.0, 1e5])
def test_who_went_into_a_group_is_said_to_be_folded(whole, least):
    folded = fold(whole, least_usd=least).map
    for name in ("account:1", "owner:1"):
        assert node_of(whole, name) == whole.node(name)
    with pytest.raises(StateError, match="no account '1', but accounts went into groups") as told:
        node_of(folded, "account:1")
    group = re.search(r"such as '(account:.+? at .+)'$", told.value.message)
    assert group is not None
    assert node_of(folded, group[1]) == folded.node(group[1])
    said = "no owner '-3', but small owners" if least else "no owner '-3'; did you mean"
    with pytest.raises(StateError, match=said):
        node_of(folded, "owner:-3")


def test_a_map_that_was_not_folded_offers_the_nearest(whole):
    with pytest.raises(StateError, match=r"no account '-3'"):
        node_of(whole, "account:-3")
    with pytest.raises(StateError, match=r"asset 'stETT'; did you mean stETH") as told:
        node_of(fold(whole).map, "asset:stETT")
    assert "folded" not in str(told.value)
