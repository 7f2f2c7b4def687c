"""What goes round: each circle once, through however many tokens, and among keepers too."""

from __future__ import annotations

import polars as pl
import pytest

from measures.interconnection.standing import claimed, demo_tables, snapshot_of
from undertow.measures.interconnection import Web, reuse
from undertow.measures.interconnection import map as overview
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.reuse import tokens, tokens_on_themselves
from undertow.measures.interconnection.surroundings import gaps, looked_through
from undertow.report.flows import flows_of

ETH = "asset:ETH"


def backing_of(rows: list[tuple[str, str, str, float]]) -> Backing:
    """Claims of so many ETH, which is worth 1, at its par whatever it is a claim on."""
    names = dict.fromkeys([name for row in rows for name in row[:2]] + [ETH])
    nodes = pl.DataFrame({"node": list(names)}).with_columns(
        kind=pl.col("node").str.extract(r"^(\w+)"),
        price_usd=pl.when(pl.col("node").str.starts_with("asset:")).then(1.0),
        par_usd=pl.when(pl.col("node").str.starts_with("asset:")).then(1.0),
    )
    edges = pl.DataFrame(rows, schema=["source", "target", "kind", "usd"], orient="row")
    edges = edges.with_columns(qty=pl.col("usd"), asset=pl.lit("ETH"))
    return Backing.of(DependencyMap.from_frames(nodes, edges))


def ring(*whole: float, usd: float = 60.0) -> Backing:
    """Tokens of which each holds so much of the next, the last of the first, and ETH besides."""
    names = [f"asset:T{k}" for k in range(len(whole))]
    rows = [(name, names[(k + 1) % len(names)], "backing", usd) for k, name in enumerate(names)]
    rows += [(name, ETH, "backing", size - usd)
             for name, size in zip(names, whole, strict=True)]  # fmt: skip
    rows += [("external:holders", name, "vault_share", size - usd)
             for name, size in zip(names, whole, strict=True)]  # fmt: skip
    return backing_of(rows)


@pytest.mark.parametrize(
    ("whole", "share"),
    [
        ((100.0,), 60.0 / 100.0),  # a token that holds itself
        ((100.0, 80.0), 60.0 / (100.0 + 80.0 - 60.0)),
        ((100.0, 80.0, 90.0), 60.0 / (100.0 + 80.0 + 90.0 - 2 * 60.0)),
    ],
)
def test_a_circle_of_tokens_counts_once(whole: tuple[float, ...], share: float) -> None:
    found = ring(*whole)
    table = tokens(found).sort("asset")
    assert table["claims_usd"].to_list() == pytest.approx(list(whole))
    assert table["self_backed"].to_list() == pytest.approx([60.0 / size for size in whole])
    assert found.rounds.once.sum() == pytest.approx(60.0)
    assert gaps(found).goes_round_usd == pytest.approx(60.0)
    assert tokens_on_themselves(found) == pytest.approx(share)


def test_a_wrapper_in_the_loop_changes_nothing_of_how_much_stands_on_itself() -> None:
    plain = [("external:holders", "asset:V", "vault_share", 40.0),
             ("asset:V", ETH, "backing", 40.0)]  # fmt: skip
    once = backing_of([*plain, ("asset:V", "asset:V", "backing", 60.0)])
    led = backing_of([*plain, ("asset:V", "asset:W", "backing", 60.0),
                      ("asset:W", "asset:V", "backing", 60.0)])  # fmt: skip
    assert tokens_on_themselves(once) == pytest.approx(0.6)
    assert tokens_on_themselves(led) == pytest.approx(0.6)


def test_circles_that_meet_share_no_dollar_and_lose_none() -> None:
    """A with B, B with C, C with D: three circles of 60 that no one token has all of."""
    pairs = [("A", "B"), ("B", "C"), ("C", "D")]
    rows = [(f"asset:{x}", f"asset:{y}", "backing", 60.0)
            for pair in pairs for x, y in (pair, pair[::-1])]  # fmt: skip
    found = backing_of([*rows, ("asset:A", ETH, "backing", 10.0)])
    assert found.rounds.once.sum() == pytest.approx(180.0, rel=1e-6)
    assert found.rounds.cancelled.sum() == pytest.approx(360.0, rel=1e-6)
    # P owes A and B, who both hold Q, which holds 60 of P: 60 goes round, whoever it is led by.
    narrow = [("asset:A", "asset:Q", "backing", 60.0), ("asset:B", "asset:Q", "backing", 60.0),
              ("asset:Q", "asset:P", "backing", 60.0), ("asset:Q", ETH, "backing", 60.0),
              ("asset:P", "asset:A", "backing", 60.0),
              ("asset:P", "asset:B", "backing", 60.0)]  # fmt: skip
    found = backing_of(narrow)
    assert tokens(found)["self_backed"].min() > 0.0
    assert found.rounds.once.sum() == pytest.approx(60.0, rel=1e-6)


def test_the_reading_of_a_book_counts_a_planted_circle_once() -> None:
    tables, world = demo_tables()
    before = reuse(snapshot_of(tables))
    asset = tables["assets"].filter(pl.col("asset") == "ETH")
    new = [asset.with_columns(asset=pl.lit(key)) for key in ("one", "two")]
    tables["assets"] = pl.concat([tables["assets"], *new])
    price = tables["prices"].filter(pl.col("instrument") == "aave-v3:USDC")
    inst = tables["instruments"].filter(pl.col("instrument") == "aave-v3:USDC")
    for key in ("one", "two"):
        name = pl.lit(f"aave-v3:{key}")
        tables["instruments"] = pl.concat(
            [tables["instruments"], inst.with_columns(instrument=name, asset=pl.lit(key))]
        )
        tables["prices"] = pl.concat([tables["prices"], price.with_columns(instrument=name)])
    usd = 5e6
    planted = claimed(tables, [
        ("asset", "one", "asset", "two", "one", "backing", usd),
        ("asset", "two", "asset", "one", "two", "backing", usd),
    ])  # fmt: skip
    web = Web.of(snapshot_of(planted))
    after = reuse(web)
    claims = float(before.tables["tokens"]["claims_usd"].sum())
    worth = float(web.backing.whole[web.backing.names.index("asset:one")])
    round_usd = world.truth.loop.debt_qty
    name = "interconnection.tokens_on_themselves"
    assert before.reading(name).value == pytest.approx(round_usd / claims, rel=1e-6)
    expected = (round_usd + worth) / (claims + worth)
    assert after.reading(name).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("keeper", ["custodian", "venue", "external", "bridge"])
def test_keepers_that_keep_with_each_other_stand_on_themselves(keeper: str) -> None:
    """A owes 100 and keeps 60 of it with B, which owes 80 and keeps 60 of it with A."""
    one, other = f"{keeper}:A", f"{keeper}:B"
    found = backing_of([
        (one, other, "custody", 60.0), (other, one, "custody", 60.0),
        ("external:crowd", one, "custody", 40.0), ("external:crowd", other, "custody", 20.0),
    ])  # fmt: skip
    for name in (one, other):
        seen = looked_through(found, found.map.node(name))
        assert seen.circular_usd == pytest.approx(60.0)
        assert seen.taken_at_word  # that the rest is there
        # 40 and 20 are there: all else is each other's
        assert seen.ends["end"].to_list() == ["ETH"]
    assert gaps(found).goes_round_usd == pytest.approx(60.0)
    boxes = {box.name: box for box in flows_of(found).boxes}
    assert boxes["A"].circle
    assert sum(box.round_usd for box in boxes.values()) == pytest.approx(60.0)


def test_keepers_that_owe_each_other_alone_have_no_way_out() -> None:
    names = [f"custodian:{key}" for key in "ABC"]
    found = backing_of([(name, names[(k + 1) % 3], "custody", 60.0)
                        for k, name in enumerate(names)])  # fmt: skip
    seen = looked_through(found, found.map.node("custodian:A"))
    assert seen.ends.rows() == [("no way out", 1.0, 60.0)]
    assert seen.circular_usd == pytest.approx(60.0)
    assert gaps(found).goes_round_usd == pytest.approx(60.0)


def test_a_ring_of_keepers_in_a_book_is_in_the_table_and_in_words() -> None:
    tables, _ = demo_tables()
    plain = overview(snapshot_of(tables))
    assert plain.tables["rings"].height == 0
    assert not any("keep with each other" in words for words in plain.says)
    found = overview(snapshot_of(claimed(tables, [
        ("external", "north", "external", "south", "USDC", "deposit", 7e6),
        ("external", "south", "external", "north", "USDC", "deposit", 5e6),
    ])))  # fmt: skip
    rows = found.tables["rings"].sort("node")
    assert rows["node"].to_list() == ["external:north", "external:south"]
    assert rows["goes_round_usd"].to_list() == pytest.approx([5e6, 5e6], rel=1e-4)
    assert rows["owes_usd"].to_list() == pytest.approx([7e6, 5e6], rel=1e-4)
    said = "so that up to 5,000,000 USD of what one of them owes stands on itself."
    assert f"north and south keep with each other, {said}" in found.says


def test_venues_that_keep_with_each_other_stand_on_themselves() -> None:
    tables, _ = demo_tables()
    book = snapshot_of(claimed(tables, [
        ("venue", "aave-v3", "venue", "morpho-blue", "USDC", "deposit", 4e5),
        ("venue", "morpho-blue", "venue", "aave-v3", "USDC", "deposit", 3e5),
    ]))  # fmt: skip
    web = Web.of(book)
    rows = overview(web).tables["rings"]
    assert sorted(rows["node"]) == ["venue:aave-v3", "venue:morpho-blue"]
    price = web.map.par[list(web.map.keys["asset"]).index("USDC")]
    assert rows["goes_round_usd"].to_list() == pytest.approx([3e5 * price] * 2, rel=1e-6)
    seen = looked_through(web.backing, web.map.node("venue:aave-v3"))
    assert seen.circular_usd == pytest.approx(3e5 * price, rel=1e-6)


def test_borrowing_one_thing_on_another_and_back_is_no_ring_of_a_venue() -> None:
    rows = [("account:1", "instrument:v:A", "collateral", 100.0),
            ("account:2", "instrument:v:B", "collateral", 100.0),
            ("instrument:v:B", "account:1", "loan", 50.0),
            ("instrument:v:A", "account:2", "loan", 50.0),
            ("instrument:v:A", "asset:ETH", "holds", 50.0),
            ("instrument:v:B", "asset:ETH", "holds", 50.0),
            ("instrument:v:A", "venue:v", "listed", 0.0),
            ("instrument:v:B", "venue:v", "listed", 0.0)]  # fmt: skip
    found = backing_of(rows)
    places = [found.names.index(f"instrument:v:{key}") for key in "AB"]
    assert found.seen.in_circle[places].all()
    assert found.circular.sum() == 0.0
    assert looked_through(found, found.map.node("venue:v")).circular_usd == 0.0
