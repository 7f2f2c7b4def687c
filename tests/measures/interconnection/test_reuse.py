"""The reuse ledger and loops: multipliers of planted truths, conservation, and stated gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from measures.interconnection.standing import claimed, demo_tables, snapshot_of
from stress.contagion.made import made
from undertow.errors import StateError
from undertow.kernels import impact
from undertow.measures.interconnection import Web, loops, reuse
from undertow.measures.interconnection import map as overview
from undertow.measures.interconnection.reuse import layered
from undertow.rules.snapshot import Snapshot
from undertow.stress.setting import pools_of
from undertow.worlds import demo_world


@pytest.fixture(scope="module")
def world():
    return demo_world()


@pytest.fixture(scope="module")
def web(world):
    return Web.of(world.snapshot())


def _token(study, asset):
    return study.tables["tokens"].row(by_predicate=pl.col("asset") == asset, named=True)


def test_the_ledger_says_the_multiplier_of_a_planted_loop(world, web):
    loop, found = world.truth.loop, reuse(web)
    row = _token(found, loop.share_asset)
    assert row["multiplier"] == pytest.approx(loop.multiplier, rel=1e-8)
    assert row["self_backed"] == pytest.approx(loop.rho, rel=1e-8)
    assert row["multiplier_pooled"] < row["multiplier"]
    assert row["reuse"] == pytest.approx(1.0, rel=1e-12)
    reading = found.reading("interconnection.token_multiplier", loop.share_asset)
    assert reading.value == pytest.approx(loop.multiplier, rel=1e-8)


def test_what_places_hold_beyond_all_claims_is_said(web):
    found = reuse(web)
    over = found.tables["tokens"].filter(pl.col("reuse") > 1.0 + 1e-6)
    words = next(each for each in found.says if each.startswith("Places hold more of"))
    assert over.height
    assert all(name in words for name in over["asset"])
    assert "vUSDC" not in words  # as much as its claims, and no more


def test_pro_rata_shares_of_a_lender_that_has_no_other_money_are_those_of_the_loop():
    tables, world = demo_tables()
    loop = world.truth.loop
    kept = [loop.vault_account, loop.looper_account]
    for name in ("positions", "accounts"):
        tables[name] = tables[name].filter(pl.col("account").is_in(kept))
    tables["claims"] = tables["claims"].filter(
        (pl.col("debtor") == loop.share_asset) | (pl.col("creditor") == loop.share_asset)
        | (pl.col("creditor") == "aave-v3") | (pl.col("creditor") == "USDC")
    )  # fmt: skip
    lent = (pl.col("instrument") == "aave-v3:USDC") | (pl.col("instrument") == "aave-v3:vUSDC")
    whole = pl.when(pl.col("instrument") == "aave-v3:USDC")
    tables["reserves"] = tables["reserves"].filter(lent).with_columns(
        supplied=pl.lit(loop.claims_qty),
        borrowed=whole.then(loop.debt_qty).otherwise(0.0),
    )  # fmt: skip
    row = _token(reuse(snapshot_of(tables)), loop.share_asset)
    assert row["self_backed_pooled"] == pytest.approx(loop.rho, rel=1e-9)
    assert row["multiplier_pooled"] == pytest.approx(loop.limit, rel=1e-9)
    assert row["mostly"] == "USD"


def test_claims_of_every_layer_stand_on_what_lies_at_the_bottom(web):
    root, layers = layered(web.backing)
    found = reuse(web)
    claims = sum(layers.values())
    backing = web.backing
    own = np.zeros(len(backing), dtype=np.bool_)
    own[: len(backing.base)] = backing.base
    loans = float(backing.accounts.lent.sum())
    whole = float(backing.whole[~own].sum()) + loans
    lost = float((backing.whole * (backing.seen.ends[:, -1] + backing.seen.untold))[~own].sum())
    bare = loans - float((np.asarray(backing.accounts.lent.sum(axis=0)).ravel()
                          * backing.accounts.covered).sum())  # fmt: skip
    assert claims.sum() == pytest.approx(whole - lost - bare, rel=1e-9)
    assert (claims >= root - 1e-6).all()  # whatever lies at the bottom is claimed at least once
    told = found.reading("interconnection.claims_per_dollar").value
    assert told == pytest.approx(claims.sum() / root.sum(), rel=1e-6)


def test_multipliers_over_time_are_those_of_every_book(world):
    tables, _ = demo_tables()
    less = tables | {
        "claims": tables["claims"].with_columns(
            qty=pl.when(pl.col("debtor_kind") == "external").then(2.0 * pl.col("qty"))
            .otherwise("qty")
        )
    }  # fmt: skip
    earlier = snapshot_of(less)
    found = reuse(world.snapshot(), earlier=[earlier])
    told = reuse(earlier).tables["bases"].select("asset", "multiplier").sort("asset")
    assert found.tables["over_time"].height == 2 * told.height
    assert set(found.tables["over_time"]["multiplier"]) >= set(told["multiplier"])


def test_a_token_of_which_more_is_claimed_than_backs_it_is_said_to_be_short():
    tables, _ = demo_tables()
    more = claimed(tables, [("asset", "vUSDC", "owner", "7", "vUSDC", "vault_share", 1e6)])
    found = reuse(snapshot_of(more))
    row = _token(found, "vUSDC")
    assert row["backed"] == pytest.approx(0.8)
    assert any("vUSDC is backed to 80 %" in words for words in found.says)


def test_an_empty_book_has_no_multiplier_and_says_why():
    tables, _ = demo_tables()
    gone = ("accounts", "positions", "claims", "reserves", "free_assets")
    bare = Snapshot.from_tables(
        tables | {name: tables[name].clear() for name in gone}, 1_800_000_000_000_000
    )
    found = reuse(bare)
    assert found.reading("interconnection.claims_per_dollar").value is None
    assert "nothing can be used twice" in found.says[0]
    assert loops(bare).says == ("Nobody borrows against what the same money bought.",)
    assert overview(bare).reading("interconnection.through_one_keeper").value in (None, 0.0)


def test_what_is_no_book_is_refused():
    for measure in (reuse, loops, overview):
        with pytest.raises(StateError, match="must be a Snapshot"):
            measure("stETH")


def test_a_loop_has_the_leverage_and_room_of_its_ratio(world, web):
    loop, found = world.truth.loop, loops(web)
    row = found.tables["loops"].row(
        by_predicate=pl.col("account") == loop.looper_account, named=True
    )
    assert row["on_itself"]
    assert row["leverage"] == pytest.approx(1.0 / (1.0 - row["ratio"]), rel=1e-9)
    assert row["ratio"] == pytest.approx(loop.rho, rel=2e-3)  # at the mark of the share
    assert row["health"] == pytest.approx((1.0 + loop.rho) / 2.0 / row["ratio"], rel=1e-6)


def test_carry_breaks_even_where_it_says(web):
    rows = loops(web).tables["loops"].drop_nulls()
    rise = rows["headroom"]
    earned = rows["carry"] * (rows["collateral_usd"] - rows["debt_usd"])
    assert np.allclose(earned - rise * rows["debt_usd"], 0.0, atol=1e-6)
    assert rows["headroom"].is_sorted()
    # With the yield that breaks even on what is posted alone, debt costs what collateral earns.
    name = rows["collateral"][0]
    alone = rows.filter((pl.col("collateral") == name) & pl.col("on_itself"))
    need = float(alone["break_even_yield"][0])
    again = loops(web, yields={name: need}).tables["loops"]
    carried = again.filter(pl.col("account") == alone["account"][0])["carry"][0]
    assert carried == pytest.approx(0.0, abs=1e-9)


def test_unwinding_costs_more_the_more_leave(web):
    table = loops(web).tables["unwinding"]
    for column in ("accounts", "debt_usd", "cost_usd", "fall"):
        assert table[column].is_sorted()
    assert table["cost_usd"][-1] > 0.0


VAULT = [("vault", "vault_share", "USDC", 1.0)]


def _looped(*accounts, borrow=0.05, unknown=()):
    """The tiny world with accounts at aave-v3 of these legs, and its rates."""
    book = made(tokens=VAULT, accounts=[(6 + k, 7 + k, legs) for k, legs in enumerate(accounts)])
    rates = np.full(len(book.liquidity.supplied), borrow)
    rates[[book.universe.code("instrument", f"aave-v3:{asset}") for asset in unknown]] = np.nan
    paid = np.full(len(rates), 0.02)
    return replace(book, liquidity=replace(book.liquidity, borrow_rate=rates, supply_rate=paid))


def _legs(posted, usd, owed, debt):
    price = {"USDC": 1.0, "vault": 1.0, "BTC": 40_000.0, "ETH": 2_000.0}
    return [(posted, "collateral", usd / price[posted]), (owed, "debt", -debt / price[owed])]


def test_where_no_borrow_rate_is_known_nothing_is_said_of_carry():
    book = _looped(_legs("vault", 10_000.0, "USDC", 7_000.0), borrow=np.nan)
    found = loops(book, rises=(0.0, 0.8))
    assert found.reading("interconnection.below_break_even").value is None
    assert found.reading("interconnection.unwind_cost").value is None
    rows = found.tables["unwinding"]
    assert rows["unknown"].to_list() == [1, 1]
    for column in ("accounts", "debt_usd", "netted_usd", "cost_usd", "fall"):
        assert rows[column].to_list() == [None, None]
    assert found.tables["ties"]["net_usd_a_year"].to_list() == [None]
    assert any("Of 1 loop, owing 7,000 USD, a borrow rate is unknown" in w for w in found.says)
    assert not any("carry is below 0" in words or "drives out" in words for words in found.says)


def test_debt_of_unknown_rate_is_on_neither_side():
    dear, cheap = (_legs("vault", 10_000.0, "USDC", debt) for debt in (6_000.0, 3_000.0))
    book = _looped(dear, cheap, _legs("BTC", 20_000.0, "BTC", 12_000.0), unknown=["BTC"])
    found = loops(book, rises=(0.0, 0.5))
    # what 10,000 earn at 2 % pays 5 % on 3,000 but not on 6,000; the 12,000 are left out
    assert found.reading("interconnection.below_break_even").value == pytest.approx(2.0 / 3.0)
    rows = found.tables["unwinding"]
    assert rows["accounts"].to_list() == [1, 2]
    assert rows["unknown"].to_list() == [1, 1]
    assert rows["debt_usd"].to_list() == pytest.approx([6_000.0, 9_000.0])
    assert any("67 % of the debt whose rates are known" in words for words in found.says)


def test_what_is_owed_in_the_asset_that_is_posted_needs_no_sale():
    found = loops(_looped(_legs("BTC", 40_000.0, "BTC", 20_000.0)), rises=(0.5,))
    row = found.tables["unwinding"].row(0, named=True)
    assert row["debt_usd"] == row["netted_usd"] == pytest.approx(20_000.0)
    assert row["cost_usd"] == row["fall"] == 0.0
    assert found.reading("interconnection.unwind_cost").value == 0.0
    assert "of which 20,000 USD are owed in what is posted" in found.says[-1]
    assert found.says[-1].endswith("repaying it moves no price.")


def test_only_what_netting_leaves_is_sold_and_of_what_is_left():
    # 20,000 of the ETH repay ETH; of what is left, 5,000 in ETH and 15,000 in BTC, BTC is sold
    legs = [("ETH", "collateral", 12.5), ("BTC", "collateral", 0.375),
            ("ETH", "debt", -10.0), ("USDC", "debt", -2_000.0)]  # fmt: skip
    book = _looped(legs)
    row = loops(book, rises=(0.5,)).tables["unwinding"].row(0, named=True)
    assert row["netted_usd"] == pytest.approx(20_000.0)
    plan = Web.of(book).crowd.plan
    pools = pools_of(plan, np.ones(len(book.universe.instruments)), Web.of(book).crowd.options)
    btc = book.universe.code("asset", "BTC")
    cost = 2_000.0 - impact.proceeds(btc, 0.05, pools) * 40_000.0
    assert row["cost_usd"] == pytest.approx(cost, rel=1e-9)
    assert row["cost_usd"] > 0.0
    assert row["fall"] == pytest.approx(1.0 - impact.multiplier(btc, 0.05, pools), rel=1e-9)


def test_nobody_sells_more_than_netting_leaves_him():
    found = loops(_looped(_legs("BTC", 20_000.0, "BTC", 21_000.0)), rises=(0.5,))
    row = found.tables["unwinding"].row(0, named=True)
    assert (row["debt_usd"], row["netted_usd"]) == pytest.approx((21_000.0, 20_000.0))
    assert row["cost_usd"] == row["fall"] == 0.0


def test_a_yield_of_an_unknown_asset_is_refused(web):
    with pytest.raises(StateError, match="stETT"):
        loops(web, yields={"stETT": 0.03})


def test_the_hub_is_the_keeper_that_owes_most(world, web):
    hub, found = world.truth.hub, overview(web)
    row = found.tables["keepers"].sort("claims_usd", descending=True).row(0, named=True)
    assert row["node"] == hub.node.replace("venue:", "custodian:")
    twice = world.truth.loop.debt_qty  # which positions say too, so the map has it once
    assert row["claims_share"] == pytest.approx(hub.owed_usd / (hub.total_usd - twice), rel=2e-3)


def test_shares_of_what_is_held_are_whole(web):
    found = overview(web)
    assert found.tables["ends"]["share"].sum() == pytest.approx(1.0, abs=1e-9)
    assert found.tables["keepers"]["passes"].is_between(0.0, 1.0 + 1e-12).all()
    assert found.tables["names"]["hangs"].is_between(0.0, 1.0 + 1e-12).all()


def _with(rows):
    return Web.of(snapshot_of(claimed(demo_tables()[0], rows))).backing


def test_deposits_beyond_what_a_place_is_said_to_hold_lead_where_nobody_told(web):
    before = web.backing
    place = before.names.index("instrument:aave-v3:USDC")
    after = _with([("venue", "aave-v3", "asset", "wETH", "USDC", "deposit", 50_000_000.0)])
    assert before.seen.untold[place] == pytest.approx(0.0, abs=1e-9)
    assert after.whole[place] > 50_000_000.0
    assert after.seen.untold[place] > 0.8


def test_what_only_a_claim_says_was_lent_lies_idle_no_more(web):
    before = web.backing
    place = before.names.index("instrument:aave-v3:USDC")
    after = _with([("owner", "7", "venue", "aave-v3", "USDC", "loan", 1_000_000.0)])
    assert after.whole[place] == pytest.approx(before.whole[place], rel=1e-9)
    assert after.ends_usd[place].sum() <= before.ends_usd[place].sum()


def test_what_an_outsider_borrowed_need_not_be_there(web):
    borrowed = _with([("external", "desk", "owner", "7", "LINK", "loan", 10_000.0)])
    before, after = (layered(each)[0] for each in (web.backing, borrowed))
    assert after == pytest.approx(before, rel=1e-9)


def test_what_an_owner_has_stands_once_behind_all_its_debts():
    found = _with([
        ("owner", "7", "external", "one", "USDC", "loan", 1_000_000.0),
        ("owner", "7", "external", "other", "USDT", "loan", 1_000_000.0),
    ])  # fmt: skip
    rows = [k for k, name in enumerate(found.names) if name.startswith("owner:7")]
    assert len(rows) == 2
    behind = float(found.usd[rows].sum()) + float(found.ends_usd[rows].sum())
    owner = list(found.map.keys["owner"]).index("7")
    assert 0.0 <= behind <= float(found.owner_places[[owner]].sum()) + 1e-6


def test_claims_without_a_price_are_named():
    tables, _ = demo_tables()
    asset = tables["assets"].filter(pl.col("asset") == "ETH").with_columns(asset=pl.lit("odd"))
    tables["assets"] = pl.concat([tables["assets"], asset])
    found = reuse(snapshot_of(claimed(tables, [
        ("external", "vault", "owner", "7", "odd", "custody", 1_000.0)])))  # fmt: skip
    assert found.left_out == {"odd": "no price is known, so claims in it do not count"}
    assert any("No price is known of odd" in words for words in found.says)
