"""The dependency map: what every table says, once, and what everything on it stands on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from measures.interconnection.standing import (
    claimed,
    demo_tables,
    snapshot_of,
    with_every_account,
    with_rows,
)
from undertow.errors import StateError
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.folding import fold
from undertow.measures.interconnection.mapping import DependencyMap, require_sound
from undertow.measures.interconnection.reuse import layered, tokens
from undertow.measures.interconnection.surveying import survey
from undertow.measures.interconnection.web import Web
from undertow.rules.snapshot import Snapshot
from undertow.worlds import demo_world


@pytest.fixture(scope="module")
def world():
    return demo_world()


@pytest.fixture(scope="module")
def found(world):
    return survey(world.snapshot())


@pytest.fixture(scope="module")
def backing(found):
    return Backing.of(found)


def test_a_planted_loop_is_worth_its_claims_over_what_is_no_promise(world, backing):
    loop = world.truth.loop
    row = backing.names.index(f"asset:{loop.share_asset}")
    claims, round_trip = backing.claimed[row], backing.circular[row]
    assert claims == pytest.approx(loop.claims_qty, rel=1e-12)
    assert claims / (claims - round_trip) == pytest.approx(loop.multiplier, rel=1e-8)
    assert round_trip / claims == pytest.approx(loop.rho, rel=1e-8)


def test_a_planted_chain_ends_in_its_base_at_its_exact_rate(world, found, backing):
    chain = world.truth.chain
    top = backing.names.index(f"asset:{chain.assets[-1]}")
    base = list(found.keys["asset"]).index(chain.assets[0])
    assert backing.seen.ends[top, base] == pytest.approx(1.0, abs=1e-12)
    assert backing.wrappers[top] == chain.depth
    assert found.par[top] / found.par[base] == pytest.approx(chain.base_per_top, rel=1e-12)
    rows = [backing.names.index(f"asset:{asset}") for asset in chain.assets[1:]]
    standing = np.array(chain.supply) * np.cumprod(
        chain.rates
    )  # each wrapper, in units of the base
    assert np.allclose(backing.whole[rows], standing * found.par[base], rtol=1e-12)
    escrow = backing.whole[backing.names.index("external:ETH escrow")]
    assert escrow == pytest.approx(standing[0] * found.par[base], rel=1e-12)


def test_a_planted_hub_keeps_its_exact_share_of_all_claims(world, found):
    hub = world.truth.hub
    usd = np.where(found.origin == 1, np.nan_to_num(found.usd), 0.0)
    node = found.node(hub.node.replace("venue:", "custodian:"))
    owed = usd[(found.target == node) & found.of_kind("custody")].sum()
    assert owed == pytest.approx(hub.owed_usd, rel=1e-3)  # at the median of spot markets
    qty = found.qty[(found.target == node) & found.of_kind("custody")]
    truth = world.tables["claims"].filter(pl.col("debtor") == hub.node[6:])["qty"]
    assert qty.sum() == pytest.approx(truth.sum(), rel=1e-12)


def test_a_share_that_is_posted_twice_counts_once_at_the_root_and_twice_as_claims():
    tables, world = demo_tables()
    loop = world.truth.loop
    before = Backing.of(survey(snapshot_of(tables)))
    ts = tables["positions"]["ts"][0]
    inst = tables["instruments"].filter(pl.col("instrument") == "aave-v3:vUSDC")
    tables["instruments"] = pl.concat(
        [tables["instruments"],
         inst.with_columns(instrument=pl.lit("morpho-blue:vUSDC"), venue=pl.lit("morpho-blue"))]
    )  # fmt: skip
    price = tables["prices"].filter(pl.col("instrument") == "aave-v3:vUSDC")
    tables["prices"] = pl.concat(
        [tables["prices"], price.with_columns(instrument=pl.lit("morpho-blue:vUSDC"))]
    )
    mine = tables["accounts"].filter(pl.col("account") == loop.looper_account)
    tables["accounts"] = pl.concat(
        [
            tables["accounts"],
            mine.with_columns(account=pl.lit(90_000, pl.Int64), venue=pl.lit("morpho-blue")),
        ]
    )
    tables["positions"] = with_rows(
        tables["positions"], ts=[ts], account=[90_000], instrument=["morpho-blue:vUSDC"],
        kind=["collateral"], qty=[loop.claims_qty], source=["world"], evidence=["observed"],
    )  # fmt: skip
    after = Backing.of(survey(snapshot_of(tables)))
    row = after.names.index("asset:vUSDC")
    assert after.claimed[row] == before.claimed[row] == pytest.approx(4_000_000.0)
    posted = [after.whole[k] for k, name in enumerate(after.names)
              if name.startswith("instrument:") and name.endswith(":vUSDC")]  # fmt: skip
    assert sum(posted) == pytest.approx(8_000_000.0)
    assert after.ends_usd.sum() == pytest.approx(before.ends_usd.sum())  # the bottom is as it was
    # and so says the ledger: one supply, posted twice; roots as before, one more layer of claims
    once, twice = (tokens(each).row(by_predicate=pl.col("asset") == "vUSDC", named=True)
                   for each in (before, after))  # fmt: skip
    assert (once["reuse"], twice["reuse"]) == (pytest.approx(1.0), pytest.approx(2.0))
    assert twice["claims_usd"] == once["claims_usd"] == pytest.approx(loop.claims_qty)
    assert twice["multiplier"] == pytest.approx(loop.multiplier, rel=1e-8)
    root, layers = layered(before)
    again, more = layered(after)
    assert again == pytest.approx(root)
    added = more["places"].sum() - layers["places"].sum()
    assert added == pytest.approx(loop.claims_qty, rel=1e-6)


def test_what_two_tables_say_of_one_debt_stands_once(world, found):
    loop = world.truth.loop
    usd = found.at_par()
    debt = found.of_kind("loan") & (found.target == found.node(f"account:{loop.looper_account}"))
    assert usd[debt].sum() == pytest.approx(loop.debt_qty, rel=1e-12)
    again = found.of_kind("loan") & (found.target == found.node(f"owner:{loop.looper_owner}"))
    assert not again.any()


def test_a_debt_that_only_claims_show_is_what_they_show_beyond_positions():
    tables, world = demo_tables()
    loop = world.truth.loop
    rows = tables["claims"].with_columns(
        qty=pl.when(pl.col("kind") == "loan").then(pl.col("qty") + 500.0).otherwise("qty")
    )
    found = survey(snapshot_of(tables | {"claims": rows}))
    again = found.of_kind("loan") & (found.target == found.node(f"owner:{loop.looper_owner}"))
    assert found.qty[again].tolist() == [pytest.approx(500.0, rel=1e-6)]


def test_value_ends_somewhere_and_none_of_it_twice(backing):
    seen = backing.seen
    held = backing.whole > 1.0
    total = seen.ends.sum(axis=1) + seen.untold + seen.circular
    assert np.allclose(total[held], 1.0, atol=1e-9)


def test_taking_accounts_out_first_changes_nothing(backing):
    kept = with_every_account(backing)
    assert np.allclose(kept, backing.seen.ends[:, :-1], atol=1e-9)


def test_frames_and_back_is_the_same_map(found):
    again = DependencyMap.from_frames(found.node_frame(), found.edges())
    assert again.digest == found.digest
    assert np.allclose(Backing.of(again).seen.ends, Backing.of(found).seen.ends)


def test_the_order_of_rows_changes_nothing():
    tables, _ = demo_tables()
    shuffled = {
        name: table.sample(fraction=1.0, shuffle=True, seed=3) for name, table in tables.items()
    }
    assert survey(snapshot_of(tables)).digest == survey(snapshot_of(shuffled)).digest


def test_tokens_that_back_each_other_stand_on_nothing_but_themselves():
    tables, _ = demo_tables()
    asset = tables["assets"].filter(pl.col("asset") == "stETH")
    alone = asset.with_columns(reference=pl.lit(None, pl.String), rate=pl.lit(None, pl.Float64))
    new = [alone.with_columns(asset=pl.lit(key)) for key in ("ouro", "boros")]
    tables["assets"] = pl.concat([tables["assets"], *new])
    price = tables["prices"].filter(pl.col("instrument") == "aave-v3:stETH")
    inst = tables["instruments"].filter(pl.col("instrument") == "aave-v3:stETH")
    for key in ("ouro", "boros"):
        name = pl.lit(f"aave-v3:{key}")
        tables["instruments"] = pl.concat(
            [tables["instruments"], inst.with_columns(instrument=name, asset=pl.lit(key))]
        )
        tables["prices"] = pl.concat([tables["prices"], price.with_columns(instrument=name)])
    tables = claimed(tables, [
        ("asset", "ouro", "asset", "boros", "ouro", "backing", 100.0),
        ("asset", "boros", "asset", "ouro", "boros", "backing", 100.0),
    ])  # fmt: skip
    backing = Backing.of(survey(snapshot_of(tables)))
    for key in ("ouro", "boros"):
        row = backing.names.index(f"asset:{key}")
        assert backing.seen.circular[row] == 1.0
        assert backing.circular[row] == pytest.approx(backing.whole[row])
        assert backing.seen.multiplier[row] == np.inf


def test_more_claims_than_stand_behind_a_token_stand_on_nothing():
    tables, world = demo_tables()
    more = claimed(tables, [("asset", "vUSDC", "owner", "7", "vUSDC", "vault_share", 1e6)])
    backing = Backing.of(survey(snapshot_of(more)))
    row = backing.names.index("asset:vUSDC")
    assert backing.nothing[row] == pytest.approx(1_000_000.0)
    assert backing.seen.ends[row, -1] >= 0.2
    assert world.truth.loop is not None


def test_a_web_and_a_crowd_are_surveyed_as_the_book_in_them(world, found):
    web = Web.of(world.snapshot())
    assert survey(web).digest == survey(web.crowd).digest == found.digest
    for odd in (world, "stETH"):
        with pytest.raises(StateError, match="it must be a Snapshot"):
            survey(odd)


def test_an_empty_book_is_a_map_without_owners():
    tables, _ = demo_tables()
    gone = ("accounts", "positions", "claims", "reserves", "free_assets")
    bare = tables | {name: tables[name].clear() for name in gone}
    found = survey(Snapshot.from_tables(bare, 1_800_000_000_000_000))
    assert len(found.keys["owner"]) == 0
    assert Backing.of(found).claimed.sum() == 0.0
    assert found.node_frame().height == found.nodes


def test_a_node_is_found_by_its_name_and_an_unknown_one_offers_the_nearest(found):
    node = found.node("asset:stETH")
    assert found.named([node]).to_list() == ["asset:stETH"]
    with pytest.raises(StateError, match="no asset 'stETT'") as caught:
        found.node("asset:stETT")
    assert "stETH" in str(caught.value.hint)
    with pytest.raises(StateError, match="'stETH' is no node of a map; did you mean asset:stETH"):
        found.node("stETH")
    with pytest.raises(StateError, match="a node is kind:key"):
        found.node("stETT")


def test_around_a_node_is_what_touches_it(found):
    near = found.around(found.node("asset:vUSDC"), 1)
    node = found.node("asset:vUSDC")
    assert ((near.source == node) | (near.target == node)).all()
    assert len(near) > 3
    assert len(found.around(node, 2)) > len(near)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, e: (n.drop("kind"), e), "lack the column 'kind'"),
        (lambda n, e: (n, e.with_columns(kind=pl.lit("loves"))), "'loves' is unknown"),
        (lambda n, e: (n, e.with_columns(target=pl.lit("asset:none"))), "ends at 'asset:none'"),
        (lambda n, e: (pl.concat([n, n.head(1)]), e), "stands twice"),
        (lambda n, e: (n.with_columns(kind=pl.lit(None, pl.String)), e), "None is unknown"),
        (lambda n, e: (n.with_columns(node=pl.col("node").str.slice(2)), e), "its name must be"),
        (lambda n, e: (n, e.with_columns(usd=pl.lit(np.inf))), "inf as usd; no number of a map"),
        (lambda n, e: (n, e.with_columns(usd=pl.lit(1e308))), r"1e\+308 as usd"),
        (lambda n, e: (n, e.with_columns(usd=pl.lit("much"))), "'much' is no number among usd"),
        (lambda n, e: (n, e.with_columns(usd=pl.col("usd") > 1.0)), "is no number among usd"),
        (lambda n, e: (n, e.with_columns(qty=-pl.col("qty").abs())), "only of what accounts hold"),
        (lambda n, e: (n.with_columns(size=-pl.col("size")), e), "size; it must be a number from"),
        (lambda n, e: (n, e.with_columns(ts=pl.lit("soon"))), "'soon', which is no instant"),
        (lambda n, e: (n, e.with_columns(ts=pl.lit(2**62))), "beyond the year 9999"),
        (lambda n, e: (n, e.with_columns(ts=pl.int_range(pl.len()))), "of several instants"),
    ],
)
def test_frames_that_are_no_map_are_refused(found, change, words):
    with pytest.raises(StateError, match=words):
        DependencyMap.from_frames(*change(found.node_frame(), found.edges()))


def test_every_edge_that_is_turned_round_is_refused_or_says_something_else(found):
    """Of each kind the first edge, turned: only claims and ties can run both ways."""
    nodes, edges = found.node_frame(), found.edges()
    for kind in edges["kind"].unique():
        at = edges["kind"].index_of(kind)
        here = pl.int_range(pl.len()) == at
        turned = edges.with_columns(
            source=pl.when(here).then("target").otherwise("source"),
            target=pl.when(here).then("source").otherwise("target"),
        )
        if kind in ("backing", "custody", "deposit", "follows", "vault_share"):
            assert len(DependencyMap.from_frames(nodes, turned)) == len(found)
            continue
        with pytest.raises(StateError) as caught:
            DependencyMap.from_frames(nodes, turned)
        row = turned.row(at, named=True)
        said = f"edge {at + 1} says {kind!r} from {row['source']!r} to {row['target']!r}"
        assert caught.value.message == said
        assert str(caught.value.hint).startswith(f"{kind} goes from ")


def test_every_map_that_is_surveyed_or_folded_is_sound(found):
    for each in (found, fold(found, least_usd=1e5).map, survey(snapshot_of(demo_tables()[0]))):
        require_sound(each)


def test_what_says_that_nothing_is_behind_a_keeper_is_behind_all_that_it_owes():
    """A keeper owes 30 of A and 10 of B, and 8 of it is gone: 6 and 2, and none elsewhere."""
    nodes = ["owner:1", "custodian:K", "asset:A", "asset:B", "unseen:nothing", "unseen:not told",
             "external:last"]  # fmt: skip
    rows = [("owner:1", "custodian:K", "custody", 30.0, 30.0, "A"),
            ("owner:1", "custodian:K", "custody", 10.0, 10.0, "B"),
            ("owner:1", "external:last", "custody", 5.0, 5.0, "A"),
            ("custodian:K", "unseen:nothing", "nothing", 8.0, None, None),
            ("custodian:K", "unseen:not told", "not told", 4.0, None, None)]  # fmt: skip
    names = ["source", "target", "kind", "usd", "qty", "asset"]
    backing = Backing.of(
        DependencyMap.from_frames(
            pl.DataFrame({"node": nodes, "kind": [name.partition(":")[0] for name in nodes]}),
            pl.DataFrame(rows, schema=names, orient="row"),
        )
    )
    of = dict(zip(backing.names, zip(backing.nothing, backing.seen.untold, strict=True),
                  strict=True))  # fmt: skip
    assert of["custodian:K (A)"] == pytest.approx((6.0, 0.1))
    assert of["custodian:K (B)"] == pytest.approx((2.0, 0.1))
    assert of["external:last"] == (0.0, 0.0)
