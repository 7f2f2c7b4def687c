"""What nodes share, worked by hand on a book of three accounts and held to the demo's sums."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.measures.tandem.links import Links, exposure, links_of
from undertow.rules.leverage import GROUPS, Exposures
from undertow.rules.snapshot import Snapshot
from undertow.worlds import demo_world, tiny_world


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    return demo_world().snapshot()


def shared(links: Links, driver: str, one: str, other: str) -> float:
    return float(links.drivers[driver][links.nodes.index(one), links.nodes.index(other)])


def without_owners(snapshot_tables: dict[str, pl.DataFrame], ts: int) -> Snapshot:
    accounts = snapshot_tables["accounts"].with_columns(owner=pl.lit(None, dtype=pl.Int64))
    return Snapshot.from_tables({**snapshot_tables, "accounts": accounts}, ts)


def test_the_tiny_book_shares_what_can_be_counted_by_hand() -> None:
    # Owner 1: 10 ETH lent at 2,000, and 1 BTC of perps at 40,000. Owner 2: 1 BTC lent. Nobody
    # known: 50,000 of USDC lent.
    by_venue = links_of(tiny_world().snapshot(), "venue")
    assert by_venue.nodes == ("aave-v3", "hyperliquid")
    # aave-v3 holds 20,000 of ETH and 40,000 of BTC, money aside; hyperliquid 40,000 of BTC
    cosine = 40.0 / np.sqrt(20.0**2 + 40.0**2)
    assert shared(by_venue, "collateral", "aave-v3", "hyperliquid") == pytest.approx(cosine)
    # owner 1 has two elevenths of aave-v3 and all of hyperliquid
    assert shared(by_venue, "owner", "aave-v3", "hyperliquid") == pytest.approx(2.0 / 11.0)
    by_asset = links_of(tiny_world().snapshot(), "asset")
    assert by_asset.nodes == ("BTC", "ETH", "USDC")
    assert shared(by_asset, "venue", "BTC", "ETH") == pytest.approx(1.0 / 3.0)
    assert shared(by_asset, "owner", "BTC", "ETH") == pytest.approx(1.0 / 3.0)
    assert shared(by_asset, "owner", "USDC", "ETH") == 0.0
    assert shared(by_asset, "collateral", "BTC", "ETH") == 0.0  # no account holds both


def test_accounts_of_no_known_owner_share_nothing() -> None:
    world = tiny_world()
    found = links_of(without_owners(dict(world.tables), world.ts), "venue")
    assert "owner" not in found.drivers
    assert found.absent["owner"] == "no owner of any account is known"
    tables = dict(world.tables)
    half = tables["accounts"].with_columns(
        owner=pl.when(pl.col("venue") == "hyperliquid").then(None).otherwise(pl.col("owner"))
    )
    known = links_of(Snapshot.from_tables({**tables, "accounts": half}, world.ts), "venue")
    assert shared(known, "owner", "aave-v3", "hyperliquid") == 0.0
    assert known.owned is not None
    assert known.owned.tolist() == pytest.approx([6.0 / 11.0, 0.0])


@pytest.mark.parametrize("by", [each for each in GROUPS if each != "all"])
def test_every_driver_is_a_share_of_one_and_the_same_in_both_directions(
    demo: Snapshot, by: str
) -> None:
    links = links_of(demo, by)
    assert links.drivers
    for name, each in links.drivers.items():
        assert (each == each.T).all(), name
        assert each.min() >= 0.0, name
        assert each.max() <= 1.0, name
        assert (np.diag(each) == 1.0).all(), name
    assert not set(links.drivers) & set(links.absent)


def test_owners_overlap_by_what_a_count_over_all_of_them_says(demo: Snapshot) -> None:
    links, seen = links_of(demo, "venue"), Exposures.of(demo)
    book, size = demo.book, exposure(Exposures.of(demo))
    venue = book.venue[book.leg_account]
    owner = book.owners[book.owner[book.leg_account]]
    frame = pl.DataFrame({"venue": venue, "owner": owner, "size": size})
    whole = dict(frame.group_by("venue").agg(pl.col("size").sum()).iter_rows())
    parts = {
        (v, o): each / whole[v]
        for v, o, each in frame.filter(pl.col("owner") >= 0)
        .group_by("venue", "owner")
        .agg(pl.col("size").sum())
        .iter_rows()
    }
    names = [seen.snapshot.universe.venues.index(name) for name in links.nodes]
    owners = {o for _, o in parts}
    a, b = names[0], names[-1]
    expected = sum(min(parts.get((a, o), 0.0), parts.get((b, o), 0.0)) for o in owners)
    assert expected > 0.0
    assert shared(links, "owner", links.nodes[0], links.nodes[-1]) == pytest.approx(expected)


def test_nodes_that_are_venues_have_platforms_and_no_shared_venue(demo: Snapshot) -> None:
    links = links_of(demo, "venue")
    assert "whole venues" in links.absent["venue"]
    assert shared(links, "platform", "aave-v3", "liquity-v1") == 1.0
    assert shared(links, "platform", "aave-v3", "binance-usdm") == 0.0


def test_what_is_thinly_traded_counts_for_more_by_depth(demo: Snapshot) -> None:
    plain, deep = links_of(demo), links_of(demo, by_depth=True)
    assert not np.allclose(plain.drivers["collateral"], deep.drivers["collateral"])
    world = tiny_world()
    tables = {name: table for name, table in world.tables.items() if name != "depth"}
    bare = links_of(Snapshot.from_tables(tables, world.ts), by_depth=True)
    assert "of known depth" in bare.absent["collateral"]


def test_links_can_be_narrowed_and_read_as_pairs(demo: Snapshot) -> None:
    links = links_of(demo, "asset").select(["ETH", "BTC", "SOL"])
    pairs = links.to_polars()
    assert pairs.select("node", "other").rows() == [("ETH", "BTC"), ("ETH", "SOL"), ("BTC", "SOL")]
    assert pairs["owner"][0] == shared(links, "owner", "ETH", "BTC")
    assert links.cube.shape == (3, 3, 3)
    with pytest.raises(StateError, match="say nothing of 'GOLD'"):
        links.select(["GOLD"])


def test_links_that_are_none_are_refused(demo: Snapshot) -> None:
    with pytest.raises(StateError, match="no division by 'colour'"):
        links_of(demo, "colour")
    with pytest.raises(StateError, match="pairs need two"):
        links_of(demo, "all")
    with pytest.raises(StateError, match="not symmetric"):
        Links.of(["a", "b"], {"owner": [[1.0, 0.2], [0.3, 1.0]]})
    with pytest.raises(StateError, match="2 nodes need"):
        Links.of(["a", "b"], {"owner": np.eye(3)})
    with pytest.raises(StateError, match="stands twice"):
        Links.of(["a", "a"], {"owner": np.eye(2)})
