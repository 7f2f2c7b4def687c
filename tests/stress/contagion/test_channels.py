"""Each channel alone does what its words say, and off it does nothing."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from stress.contagion.made import CALM, at, lost, made, price, share, shocked, solved
from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import Cascade, Engine, Impact, Options, Plan, run_cascade, settle
from undertow.stress.contagion import (
    PLAIN,
    Assumptions,
    ChainFailure,
    Channels,
    FeedFailure,
    Solver,
)
from undertow.stress.failures import CustodianFailure, IssuerFailure
from undertow.stress.options import Responses
from undertow.stress.outages import FROZEN, Fund
from undertow.stress.shock import Peg, Price, Rate, WithdrawalRun
from undertow.stress.stressed import AS_GIVEN
from undertow.worlds import World, tiny_world

CRASH = Price(asset="market", move=-0.6)
VAULT = ("vault", "vault_share", "USDC", 1.0)


@cache
def lender() -> Snapshot:
    """A vault with 20,000 of the 50,000 USDC at aave-v3, which is posted against ETH."""
    return lent()


@cache
def rated() -> Snapshot:
    """The same where aave-v3 takes the vault at its rate."""
    return lent(oracles=[("aave-v3", "aave-v3:vault", "exchange_rate", None)])


@cache
def plain_made() -> Snapshot:
    return made()


def lent(**more: object) -> Snapshot:
    more = {"claims": (), **more}
    claims = [("venue:aave-v3", "asset:vault", "USDC", 20_000.0), *more.pop("claims")]
    return made(
        claims, tokens=[VAULT],
        accounts=[(6, 7, [("vault", "collateral", 10_000.0), ("ETH", "debt", -3.0)])], **more,
    )  # fmt: skip


def same(one: Cascade, other: Cascade) -> None:
    for field in fields(Cascade):
        mine, yours = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == yours.dtype, field.name
            assert (mine == yours).all(), field.name
    assert one.outcome is other.outcome
    assert one.rounds == other.rounds
    assert one.notes == other.notes
    assert (one.settled is None) == (other.settled is None)


def test_with_the_engines_own_channels_alone_it_is_the_plain_cascade_to_the_bit(
    market_world: World,
) -> None:
    for snapshot in (market_world.snapshot(), lender()):
        plan = Plan.of(snapshot)
        solver = Solver.of(plan)
        for shocks in ((CRASH,), (CRASH, WithdrawalRun(share=0.3, asset="USDC"))):
            scenario = shocked(*shocks)
            plain = run_cascade(plan, scenario, check=True)
            assert len(plain.touched)
            found = solver.solve(scenario, channels=PLAIN)
            same(found.cascade, plain)
            assert (found.cascade.cash == plain.cash).all()


def test_without_fire_sales_nothing_moves_a_price(market_world: World) -> None:
    plan = Plan.of(market_world.snapshot())
    found = Solver.of(plan).solve(shocked(CRASH), channels=Channels.only("receipts"))
    base = settle(plan, Options()).plan
    still = Engine(base).run(
        shocked(CRASH).apply(base.snapshot), Options(impact=Impact.NONE), check=True
    )
    same(replace(found.cascade, settled=None), still)
    assert (found.cascade.final == found.cascade.shocked).all()
    assert len(found.cascade.hit)


def test_without_receipts_it_is_the_engine_without_claims_on_reserves() -> None:
    plan = Plan.of(lender())
    scenario = shocked(CRASH)
    found = Solver.of(plan).solve(scenario, channels=Channels.only("fire_sales"))
    bare = plan.like(deposits=plan.deposits[:0].copy())
    same(found.cascade, run_cascade(bare, scenario, check=True))
    assert len(plan.deposits)


def test_all_off_closes_accounts_and_nothing_travels() -> None:
    found = solved(lender(), CRASH, channels=Channels.only())
    assert len(found.cascade.hit)
    assert price(found, "vault") == 1.0
    assert len(found.passes) == 1
    assert not found.because
    assert found.state.change(type(found.state).calm(found.cascade.plan.snapshot)) == 0.0


def test_receipts_alone_cut_the_vault_by_what_its_reserve_lost() -> None:
    found = solved(lender(), CRASH, channels=Channels.only("receipts"))
    unpaid = at(found, found.cascade.unpaid, "instrument", "aave-v3:USDC")
    assert unpaid > 0.0
    left = 1.0 - unpaid / 50_000.0
    assert price(found, "vault") == pytest.approx(left)
    assert share(found, "asset:vault") == pytest.approx(left)
    assert lost(found, "asset:vault", "unnamed") == pytest.approx(0.4 * unpaid)
    assert lost(found, "pool:aave-v3:USDC", "unnamed") == pytest.approx(0.6 * unpaid)
    off = solved(lender(), CRASH, channels=Channels.only("claims"))
    assert price(off, "vault") == 1.0
    assert lost(off, "asset:vault", "unnamed") == 0.0


def test_backing_alone_is_a_discount_that_rate_oracles_do_not_see() -> None:
    knobs = {"channels": Channels.only("backing")}
    found = solved(rated(), CRASH, **knobs)
    unpaid = at(found, found.cascade.unpaid, "instrument", "aave-v3:USDC")
    left = 1.0 - unpaid / 50_000.0
    assert price(found, "vault") == pytest.approx(left, rel=1e-6)
    seen = found.cascade.path[-1][
        found.cascade.plan.snapshot.universe.code("instrument", "aave-v3:vault")
    ]
    assert seen == 1.0
    steeper = solved(rated(), CRASH, assumed=Assumptions(elasticity=2.0), **knobs)
    assert price(steeper, "vault") == pytest.approx(left**2, rel=1e-5)
    capped = solved(rated(), CRASH, assumed=Assumptions(elasticity=50.0, furthest=0.1), **knobs)
    assert price(capped, "vault") == pytest.approx(0.9)


def test_with_receipts_on_the_discount_is_only_what_the_receipt_does_not_say() -> None:
    one = solved(lender(), CRASH, channels=Channels.only("receipts", "backing"))
    plain = solved(lender(), CRASH, channels=Channels.only("receipts"))
    assert price(one, "vault") == pytest.approx(price(plain, "vault"))
    assert one.state.peg.min() == 0.0


def test_a_stable_coin_backed_by_eth_falls_with_it_unless_it_has_more_than_enough() -> None:
    stable = made(
        [("external:reserves", "asset:sUSD", "ETH", 100.0, "backing")],
        tokens=[("sUSD", "stable", "USD", 1.0)],
    )
    fall = Price(asset="ETH", move=-0.3)
    found = solved(stable, fall, channels=Channels.only("backing"))
    assert price(found, "sUSD") == pytest.approx(0.7)
    more = Assumptions(ratios={"sUSD": 1.25})
    found = solved(stable, fall, channels=Channels.only("backing"), assumed=more)
    assert price(found, "sUSD") == pytest.approx(1.25 * 0.7)
    enough = Assumptions(ratios={"sUSD": 1.5})
    found = solved(stable, fall, channels=Channels.only("backing"), assumed=enough)
    assert price(found, "sUSD") == 1.0
    with pytest.raises(StateError, match="no asset is called"):
        solved(stable, fall, assumed=Assumptions(ratios={"pUSD": 1.5}))


def test_what_a_scenario_says_of_a_peg_is_not_added_to() -> None:
    stable = made(
        [("external:reserves", "asset:sUSD", "ETH", 100.0, "backing")],
        tokens=[("sUSD", "stable", "USD", 1.0)],
    )
    found = solved(
        stable, Price(asset="ETH", move=-0.3), Peg(asset="sUSD", level=0.6),
        channels=Channels.only("backing"),
    )  # fmt: skip
    assert price(found, "sUSD") == pytest.approx(0.6)


def test_funding_alone_is_a_run_a_lock_and_a_dearer_loan() -> None:
    assumed = Assumptions(run=2.0, optimal=0.8, slope1=0.05, slope2=1.0, hours=8_760.0)
    found = solved(lender(), CRASH, channels=Channels.only("funding"), assumed=assumed)
    units = found.quantities().row(by_predicate=_is("aave-v3:USDC"), named=True)
    k = "aave-v3:USDC"
    lost_share = at(found, found.settlement.losses.taken, "instrument", k)
    assert at(found, found.state.withdrawn, "instrument", k) == pytest.approx(
        min(2.0 * lost_share, 1.0), rel=1e-5
    )
    wanted = at(found, found.state.withdrawn, "instrument", k) * 50_000.0
    assert units["withdrawn"] == pytest.approx(min(wanted, 20_000.0))
    assert units["locked"] == pytest.approx(wanted - units["withdrawn"])
    assert units["locked"] > 0.0
    # 60 % lent before, all of what stays after: 5 % x 3/4 to 105 %
    assert at(found, found.state.rate, "instrument", k) == pytest.approx(1.05 - 0.0375)
    # fewer bear the same loss: the share of those who stay grows
    plain = solved(lender(), CRASH, channels=Channels.only())
    assert lost_share > at(found, plain.settlement.losses.taken, "instrument", k)


def _is(name: str) -> pl.Expr:
    return pl.col("instrument") == name


def test_a_run_that_the_scenario_says_already_is_not_run_again() -> None:
    run = WithdrawalRun(share=1.0, asset="USDC", venue="aave-v3")
    found = solved(lender(), CRASH, run, channels=Channels.only("funding"))
    plain = solved(lender(), CRASH, run, channels=Channels.only())
    k = "aave-v3:USDC"
    column = found.cascade.stressed.withdrawn
    assert at(found, column, "instrument", k) == 1.0
    assert at(plain, plain.cascade.stressed.withdrawn, "instrument", k) == 1.0


def test_debts_charged_in_place_have_the_bits_of_debts_laid_out_anew() -> None:
    solver = Solver.of(lender())
    found = solver.solve(shocked(CRASH))
    assert found.state.rate.any()
    anew = Engine(found.cascade.plan).run(found.cascade.stressed, Options(), check=True)
    again = replace(found.cascade, notes=anew.notes, settled=None)
    same(again, anew)
    assert (found.cascade.hold.legs == anew.hold.legs).all()
    solver.solve(shocked(Price(asset="ETH", move=-0.3)))
    assert (found.cascade.hold.legs == anew.hold.legs).all()  # the next solve wrote elsewhere


def test_a_rate_of_the_scenario_holds_where_it_is_higher() -> None:
    dear = Rate(per_hour=0.01, hours=100.0, asset="USDC")
    found = solved(lender(), CRASH, dear)
    k = "aave-v3:USDC"
    assert at(found, found.cascade.stressed.rate_hours, "instrument", k) == 100.0
    assert at(found, found.state.rate, "instrument", k) < 1.0


def test_claims_alone_cut_a_token_whose_keeper_fails() -> None:
    kept = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
         ("asset:WBTC", "external:fund", "WBTC", 10.0, "vault_share")],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0)],
    )  # fmt: skip
    knobs = {"assumed": Assumptions(capital=0.0, recovery=0.7)}
    found = solved(kept, failed=("external:Keeper",), **knobs)
    assert price(found, "WBTC") == pytest.approx(28_000.0)
    assert lost(found, "external:fund") == pytest.approx(0.3 * 400_000.0)
    assert lost(found, "asset:WBTC", "unnamed") == pytest.approx(0.3 * 1_600_000.0)
    cause = found.causes().filter(_component("receipt")).row(0, named=True)
    assert (cause["channel"], cause["name"], cause["from"]) == ("claims", "WBTC", "external:Keeper")
    assert cause["usd"] == pytest.approx(600_000.0)
    assert (cause["before"], cause["after"]) == pytest.approx((1.0, 0.7))
    off = solved(kept, failed=("external:Keeper",), channels=PLAIN, **knobs)
    assert price(off, "WBTC") == 40_000.0


def _component(name: str) -> pl.Expr:
    return pl.col("component") == name


def test_a_shock_that_wrote_a_claim_down_is_not_charged_twice() -> None:
    kept = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody")],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0)],
    )
    fails = CustodianFailure(name="Keeper", recovery=0.8)
    for found in (solved(kept, fails), solved(kept, failed=(fails,))):
        assert price(found, "WBTC") == pytest.approx(32_000.0)
        assert lost(found, "asset:WBTC", "unnamed") == pytest.approx(400_000.0)
        assert lost(found, "gone", "sink") == pytest.approx(-400_000.0)


def test_a_venue_that_is_not_paid_uses_its_fund_and_then_its_suppliers() -> None:
    # all of the USDC reserve that is not lent is kept by a custodian that gives 75 % back: 5,000
    # are missing, a fund of 2,000 pays first, and 3,000 of 50,000 are the suppliers'.
    kept = lent(
        claims=[("venue:vaults", "venue:aave-v3", "USDC", 20_000.0, "custody")],
        venues=[("vaults", "custodian")], funds=[("aave-v3", "insurance", 2_000.0)],
    )  # fmt: skip
    found = solved(
        kept, failed=("venue:vaults",), assumed=Assumptions(recovery=0.75, run=0.0),
    )  # fmt: skip
    assert share(found, "pool:aave-v3:USDC") == pytest.approx(1.0 - 3_000.0 / 50_000.0)
    assert price(found, "vault") == pytest.approx(0.94)
    assert lost(found, "venue:aave-v3") == pytest.approx(2_000.0)
    assert lost(found, "pool:aave-v3:USDC", "unnamed") == pytest.approx(1_800.0)
    assert lost(found, "asset:vault", "unnamed") == pytest.approx(1_200.0)
    cause = found.causes().filter(_component("receipt")).row(0, named=True)
    assert (cause["name"], cause["from"]) == ("vault", "pool:aave-v3:USDC")
    both = solved(
        kept, Fund(multiplier=0.0, venue="aave-v3"), failed=("venue:vaults",),
        assumed=Assumptions(recovery=0.75, run=0.0),
    )  # fmt: skip
    assert share(both, "pool:aave-v3:USDC") == pytest.approx(0.9)


def test_a_shortfall_at_a_perp_venue_is_borne_by_those_who_have_money_there() -> None:
    from undertow.stress import Deleveraging

    options = Options(impact=Impact.NONE, deleveraging=Deleveraging.NONE)
    # the long of 1 BTC lacks 3,000 at 32,000; the fund has 1,000; 2,000 of 15,000 are missing
    found = solved(
        made([("venue:hyperliquid", "owner:3", "USDC", 10_000.0)]),
        Price(asset="BTC", move=-0.2), options=options,
    )  # fmt: skip
    assert share(found, "venue:hyperliquid") == pytest.approx(13.0 / 15.0)
    assert lost(found, "owner:3") == pytest.approx(2_000.0 * 2 / 3)
    assert lost(found, "venue:hyperliquid", "unnamed") == pytest.approx(2_000.0 / 3)
    assert lost(found, "venues", "cascade") == pytest.approx(0.0)
    off = solved(made(), Price(asset="BTC", move=-0.2), options=options, channels=PLAIN)
    assert lost(off, "venues", "cascade") == pytest.approx(2_000.0)


def test_a_feed_that_fails_stops_all_that_follow_it() -> None:
    follows = [("aave-v3", "aave-v3:BTC", "market", "hyperliquid:BTC/USDC:USDC")]
    book = made(oracles=follows)
    fall = Price(asset="BTC", move=-0.4)
    plain = solved(book, fall)
    stopped = solved(book, fall, failed=("oracle:hyperliquid:BTC/USDC:USDC",))
    k = stopped.cascade.plan.snapshot.universe.code("instrument", "aave-v3:BTC")
    assert stopped.start.oracle_mode[k] == FROZEN
    assert (stopped.cascade.path[:, k] == 40_000.0).all()
    assert plain.cascade.closed[k] > 0.0
    assert stopped.cascade.closed[k] == 0.0
    wrong = FeedFailure(feed="hyperliquid:BTC/USDC:USDC", factor=0.5)
    low = solved(book, failed=(wrong,))
    assert low.cascade.closed[k] > 0.0
    off = solved(book, fall, failed=(wrong,), channels=Channels().without("dependence"))
    assert (off.start.oracle_mode == AS_GIVEN).all()
    assert any("did not fail" in note for note in off.notes)
    with pytest.raises(StateError, match="did you mean"):
        solved(book, failed=("oracle:hyperliquid:BTC",))


def test_a_chain_that_fails_closes_nobody_and_reads_old_prices() -> None:
    fall = Price(asset="ETH", move=-0.5)
    plain = solved(plain_made(), fall)
    assert len(plain.cascade.hit)
    found = solved(
        plain_made(), fall, failed=("chain:ethereum",), assumed=Assumptions(chain_hours=1_000.0)
    )
    assert not len(found.cascade.hit)
    universe = found.cascade.plan.snapshot.universe
    on_chain = universe.venue_of == universe.code("venue", "aave-v3")
    assert (found.start.oracle_mode[on_chain] == FROZEN).all()
    assert (found.start.oracle_mode[~on_chain] == AS_GIVEN).all()
    late = solved(plain_made(), fall, failed=(ChainFailure(chain="ethereum", hours=0.1),))
    assert len(late.cascade.hit)
    with pytest.raises(StateError, match="did you mean ethereum"):
        solved(plain_made(), failed=("chain:etherium",))


def test_what_names_its_keeper_without_a_claim_falls_with_him() -> None:
    kept = made(
        [("external:Keeper", "external:fund", "BTC", 10.0, "custody")],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper")],
    )
    assumed = Assumptions(capital=0.0, recovery=0.75)
    found = solved(kept, failed=("external:Keeper",), assumed=assumed)
    assert price(found, "WBTC") == pytest.approx(30_000.0)
    off = solved(
        kept, failed=(IssuerFailure(name="Issuer", recovery=0.5),), assumed=assumed,
        channels=Channels().without("dependence"),
    )  # fmt: skip
    assert price(off, "WBTC") == 40_000.0
    named = solved(kept, failed=("issuer:Issuer",), assumed=Assumptions(recovery=0.5))
    assert price(named, "WBTC") == pytest.approx(20_000.0)


def test_feeds_of_a_venue_that_defaults_stand_still() -> None:
    follows = [("aave-v3", "aave-v3:BTC", "market", "hyperliquid:BTC/USDC:USDC")]
    found = solved(made(oracles=follows), failed=("venue:hyperliquid",))
    assert share(found, "venue:hyperliquid") == 0.0
    assert at(found, found.state.frozen, "instrument", "aave-v3:BTC") == 1.0


def test_responses_and_channels_go_together() -> None:
    options = Options(responses=Responses(top_up=True, delever=True))
    found = solved(lender(), CRASH, options=options)
    assert lost(found, "owners", "cascade") > 0.0


def test_switches_are_switches() -> None:
    with pytest.raises(StateError, match="claims was 1"):
        Channels(claims=1)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="did you mean claims"):
        Channels.only("claim")
    with pytest.raises(StateError, match="elasticity was -1"):
        Assumptions(elasticity=-1.0)
    assert Channels.only("claims", "funding").on == ("claims", "funding")
    assert Channels().without("claims", "funding").outer == ("dependence", "backing")


def test_the_tiny_world_has_no_channel_to_travel_by_at_rest() -> None:
    found = solved(tiny_world().snapshot())
    assert found.headline()["lost_usd"] == 0.0
    assert len(found.passes) == 1
    assert found.realised()["usd"].abs().max() == 0.0
    assert not found.by_node().height
    assert found.valuation().filter(_total() > 1e-9)["linear_usd"].sum() == 0.0


def _total() -> pl.Expr:
    return pl.col("own_loss_usd") + pl.col("clearing_usd") + pl.col("linear_usd")


@pytest.mark.parametrize("name", ["venue:aave-v3", "instrument:aave-v3:USDC"])
def test_a_lender_or_a_pool_that_fails_takes_what_lies_in_it(name: str) -> None:
    # 50,000 lie in the pool and 30,000 of them are lent: suppliers keep what the failure leaves
    book = made([("venue:aave-v3", "external:s", "USDC", 10_000.0, "deposit")])
    still = Channels().without("funding")
    half = Assumptions(capital=0.0, recovery=0.5)
    found = Solver.of(book).solve(CALM, failed=(name,), channels=still, assumed=half)
    assert found.headline()["pools_lost_usd"] >= 0.5 * 20_000.0
    assert found.leak is not None
    assert found.leak <= 1e-9
