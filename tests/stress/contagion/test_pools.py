"""What is gone from a pool stays gone whoever leaves, and nobody loses more than he had."""

from __future__ import annotations

import numpy as np
import pytest

from stress.contagion.made import CALM, lost, made, share, shocked, solved
from undertow.rules.snapshot import Snapshot
from undertow.stress.contagion import Assumptions, Channels, Contagion, Solver
from undertow.stress.contagion.stakes import POOL
from undertow.stress.failures import CustodianFailure, Exploit
from undertow.stress.shock import Price

RUNS = (0.0, 0.5, 1.0, 2.0, 5.0, 50.0)


def withdrawn(found: Contagion, instrument: str) -> float:
    rows = found.quantities().rows(named=True)
    return next((row["withdrawn"] for row in rows if row["instrument"] == instrument), 0.0)


@pytest.mark.parametrize("stolen", [0.1, 0.5, 0.9, 1.0])
def test_what_is_robbed_is_lost_however_many_run(stolen: float) -> None:
    # 1 BTC of 40,000 USD, nobody has borrowed of it, a quarter belongs to one owner. Prices are
    # held still: no channel but claims, receipts and funding.
    book = made([("venue:aave-v3", "owner:77", "BTC", 0.25)])
    calm = Channels.only("claims", "receipts", "funding")
    for run in RUNS:
        found = solved(
            book, Exploit(venue="aave-v3", asset="BTC", share=stolen), channels=calm,
            assumed=Assumptions(run=run),
        )  # fmt: skip
        price = found.settlement.losses.price[
            found.settlement.sheet.snapshot.universe.code("asset", "BTC")
        ]
        assert found.headline()["gone_usd"] == pytest.approx(stolen * price)
        assert lost(found, "owner:77") == pytest.approx(0.25 * stolen * price)
        assert lost(found, "pool:aave-v3:BTC", "unnamed") == pytest.approx(0.75 * stolen * price)
        assert share(found, "pool:aave-v3:BTC") == pytest.approx(1.0 - stolen)
        assert withdrawn(found, "aave-v3:BTC") <= 1.0 - stolen + 1e-12


@pytest.mark.parametrize("recovery", [0.0, 0.5])
@pytest.mark.parametrize("run", [0.0, 3.0, 50.0])
def test_coins_that_lie_with_a_failed_keeper_cannot_be_taken_out(
    recovery: float, run: float
) -> None:
    book = made(
        [
            ("venue:aave-v3", "owner:77", "BTC", 0.25),
            ("external:keeper", "venue:aave-v3", "BTC", 0.5, "custody"),
        ]
    )
    assumed = Assumptions(run=run, capital=0.0, recovery=recovery)
    found = solved(book, failed=("external:keeper",), assumed=assumed).require()
    gone = 20_000.0 * (1.0 - recovery)
    assert found.headline()["gone_usd"] == pytest.approx(gone)
    assert lost(found, "owner:77") == pytest.approx(0.25 * gone)
    wanted = min(run * gone / 40_000.0, 1.0)
    assert withdrawn(found, "aave-v3:BTC") == pytest.approx(min(wanted, 0.5))


def test_what_is_robbed_of_loans_that_are_not_paid_either_is_lost_once() -> None:
    # Of 50,000 USDC 30,000 are lent against collateral at the same venue: all of it is robbed.
    book = made([("venue:aave-v3", "owner:77", "USDC", 10_000.0)])
    both = 0.0
    for recovery in (0.0, 1e-6, 0.01, 0.1, 0.3, 0.9):
        found = solved(book, failed=("venue:aave-v3",), assumed=Assumptions(recovery=recovery))
        done, party = found.settlement, found.settlement.sheet.party("pool:aave-v3:USDC")
        unpaid = done.losses.unpaid[done.sheet.code[party]]
        robbed = 50_000.0 * (1.0 - recovery)
        assert done.owed.robbed[party] == pytest.approx(robbed)
        assert done.pool_loss[party] == pytest.approx(min(robbed + unpaid, 50_000.0))
        assert done.overdrawn[party] == 0.0
        assert lost(found, "owner:77") == pytest.approx(0.2 * done.pool_loss[party])
        both = max(both, robbed + unpaid)
    assert both > 50_000.0


def test_a_vault_that_leaves_a_robbed_pool_takes_half_and_lost_half() -> None:
    book = made(
        [("venue:aave-v3", "asset:bv", "BTC", 1.0)], tokens=[("bv", "vault_share", "BTC", 40_000.0)]
    )
    for run in RUNS:
        found = solved(
            book, Exploit(venue="aave-v3", asset="BTC", share=0.5), assumed=Assumptions(run=run)
        )
        assert share(found, "asset:bv") == pytest.approx(0.5)
    party = found.settlement.sheet.party("asset:bv")
    assert found.settlement.owed.money[party] == pytest.approx(
        found.settlement.owed.robbed.sum()
    )  # the half that was left, in coins


def test_a_pool_whose_borrowers_and_keeper_both_fail_loses_no_more_than_it_had() -> None:
    # The book owes 44,000 of 50,000 USDC, so that a keeper cannot have more than 6,000 of them.
    for kept in (6_000.0, 20_000.0, 50_000.0):
        book = made(
            [
                ("external:Keeper", "venue:aave-v3", "USDC", kept, "custody"),
                ("venue:aave-v3", "owner:77", "USDC", 10_000.0),
            ],
            accounts=[(6, 7, [("BTC", "collateral", 0.5), ("USDC", "debt", -14_000.0)])],
        )
        found = solved(
            book, Price(asset="market", move=-0.9), failed=("external:Keeper",),
            assumed=Assumptions(capital=0.0, run=0.0),
        )  # fmt: skip
        done, party = found.settlement, found.settlement.sheet.party("pool:aave-v3:USDC")
        unpaid = done.losses.unpaid[done.sheet.code[party]]
        assert done.pool_loss[party] == pytest.approx(unpaid + 6_000.0)
        assert done.pool_loss[party] <= 50_000.0
        assert lost(found, "owner:77") == pytest.approx(0.2 * done.pool_loss[party])
        said = any("owe a pool more than all in it" in note for note in found.notes)
        assert said == (kept > 6_000.0)


def test_who_leaves_with_coins_that_the_book_still_owes_bears_it_unnamed_with_a_note() -> None:
    # The table of reserves says that nobody borrowed ETH, while the book owes some: all leave, and
    # what the book does not pay is lost to those who are gone.
    book = made(
        reserves=[("ETH", 10.0, 0.0)],
        accounts=[(6, 7, [("USDC", "collateral", 9_000.0), ("ETH", "debt", -3.0)])],
    )
    from undertow.stress.shock import WithdrawalRun

    everybody = WithdrawalRun(share=1.0, asset="ETH")
    found = solved(book, everybody, Price(asset="ETH", move=2.0))
    party = found.settlement.sheet.party("pool:aave-v3:ETH")
    assert found.settlement.overdrawn[party] == found.settlement.pool_loss[party] > 0.0
    assert any("others left with those coins" in note for note in found.notes)


def wrapped(kind: str) -> Snapshot:
    return made(
        [
            ("external:Keeper", "asset:WBTC", "BTC", 50.0, kind),
            ("asset:WBTC", "external:fund", "WBTC", 10.0, "vault_share"),
        ],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper")],
    )


@pytest.mark.parametrize("kind", ["custody", "backing"])
@pytest.mark.parametrize(
    "failed",
    [
        ("external:Keeper",),
        ("custodian:Keeper",),
        ("custodian:Keeper", "custodian:Keeper"),
        ("custodian:Keeper", "external:Keeper"),
        ("external:Keeper", "issuer:Issuer"),
        ("issuer:Issuer",),
        ("issuer:Issuer", "custodian:Keeper", "asset:WBTC"),
        ("asset:WBTC",),
    ],
)
def test_one_failure_costs_the_same_under_any_of_its_names(
    kind: str, failed: tuple[str, ...]
) -> None:
    found = solved(wrapped(kind), failed=failed, assumed=Assumptions(capital=0.0, recovery=0.5))
    assert share(found, "asset:WBTC") == pytest.approx(0.5)
    assert found.headline()["gone_usd"] == pytest.approx(1_000_000.0)
    assert lost(found, "external:fund") == pytest.approx(200_000.0)


@pytest.mark.parametrize("capital", [0.0, 0.05, 0.5])
def test_a_keeper_who_is_named_as_a_party_too_fails_as_that(capital: float) -> None:
    # he owes a loan beside what he keeps: all of one rank, so all paid alike
    book = made(
        [
            ("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
            ("external:Keeper", "external:bank", "USDC", 1e6, "loan"),
        ],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper")],
    )
    assumed = Assumptions(capital=capital, recovery=0.5)
    both = solved(book, failed=("custodian:Keeper", "external:Keeper"), assumed=assumed)
    party = solved(book, failed=("external:Keeper",), assumed=assumed)
    part = 0.5 * (1.0 + capital)
    for found in (both, party):
        assert share(found, "asset:WBTC") == pytest.approx(part)
        assert lost(found, "external:bank") == pytest.approx(1e6 * (1.0 - part))
    keeps = solved(book, failed=("custodian:Keeper",), assumed=assumed)
    assert share(keeps, "asset:WBTC") == pytest.approx(0.5)  # what he keeps, and that alone
    assert lost(keeps, "external:bank") == 0.0


def test_creditors_of_an_owner_whose_accounts_ruin_him_are_among_those_who_lose() -> None:
    # He owes a desk 30,000, and all that is seen of him are accounts that lose 11,000 and more.
    from undertow.measures.interconnection.causes import left_standing, who_bears

    book = made([("owner:1", "external:desk", "USDC", 30_000.0, "loan")])
    for fall in (0.3, 0.6, 0.8):
        found = solved(
            book, Price(asset="market", move=-fall), assumed=Assumptions(capital=0.0, recovery=0.0)
        )
        head = found.headline()
        assert head["ruined_usd"] == pytest.approx(lost(found, "external:desk"))
        assert head["ruined_usd"] > 10_000.0
        bears = sum(who_bears(found).values()) + left_standing(found)[1]
        assert bears == pytest.approx(head["lost_usd"])


def test_a_pool_that_lent_to_a_token_conserves_where_claims_outnumber_it() -> None:
    book = made(
        [
            ("asset:WBTC", "venue:aave-v3", "BTC", 0.5, "loan"),
            ("external:bank", "asset:WBTC", "BTC", 1.0, "custody"),
            ("external:K", "venue:aave-v3", "BTC", 1.0, "custody"),
        ],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0)],
    )
    for recovery, gone in ((0.7, 12_000.0), (0.2, 32_000.0)):
        found = solved(
            book, failed=("external:bank",), assumed=Assumptions(capital=0.0, recovery=recovery)
        )  # holds the ledger to nothing
        assert found.headline()["gone_usd"] == pytest.approx(gone)


def test_a_pool_that_fails_with_its_venue_is_robbed_once() -> None:
    book = made([("venue:aave-v3", "external:s", "USDC", 10_000.0, "deposit")])
    assumed = Assumptions(capital=0.0, recovery=0.5)
    one = solved(book, failed=("venue:aave-v3",), assumed=assumed)
    both = solved(book, failed=("instrument:aave-v3:USDC", "venue:aave-v3"), assumed=assumed)
    assert (both.realised()["usd"] == one.realised()["usd"]).all()


def test_shocks_that_are_not_names_are_laid_on_as_often_as_they_are_given() -> None:
    half = CustodianFailure(name="Keeper", recovery=0.5)
    found = solved(wrapped("custody"), failed=(half, half), assumed=Assumptions(capital=0.0))
    assert share(found, "asset:WBTC") == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(6))
def test_nobody_loses_more_than_he_had_in_woven_worlds(seed: int) -> None:
    from stress.contagion.test_solve import assumed, fails, woven

    book = woven(seed)
    found = Solver.of(book).solve(
        shocked(Price(asset="market", move=-0.5)), failed=fails(seed), assumed=assumed(seed)
    )
    done, sheet = found.settlement, found.settlement.sheet
    least = -1e-9 * found.cascade.book_usd
    assert done.unnamed_loss.min() >= least
    assert done.lost.min() >= least
    assert (done.owed.face - done.lost).min() >= least
    # a pool had its units at the start, at what they were worth when prices were at their best
    pools = np.flatnonzero(sheet.sort == POOL)
    code = sheet.code[pools]
    highest = np.maximum(found.cascade.path.max(axis=0), found.cascade.plan.insts["start"])
    had = book.liquidity.supplied[code] * highest[code]
    said = any("others left with those coins" in note for note in found.notes)
    assert said == bool(done.overdrawn.any())
    lost_by = done.pool_loss[pools] - done.overdrawn[pools]
    assert (had - lost_by).min() >= least
    assert (had - done.unnamed_loss[pools] + done.overdrawn[pools]).min() >= least


def test_the_run_channel_makes_no_loss_smaller() -> None:
    book = made(
        [
            ("venue:aave-v3", "owner:77", "USDC", 10_000.0),
            ("external:keeper", "venue:aave-v3", "USDC", 10_000.0, "custody"),
        ]
    )
    assumed = Assumptions(capital=0.0, recovery=0.2)
    without = Channels().without("funding")
    for failed in (("external:keeper",), ("venue:aave-v3",), ("instrument:aave-v3:USDC",)):
        still = Solver.of(book).solve(CALM, failed=failed, channels=without, assumed=assumed)
        runs = Solver.of(book).solve(CALM, failed=failed, assumed=assumed)
        assert runs.headline()["gone_usd"] >= still.headline()["gone_usd"] * (1.0 - 1e-9)
        assert np.isfinite(runs.headline()["lost_usd"])


def test_a_venue_that_lacks_more_than_it_has_owes_the_rest_to_its_accounts() -> None:
    # At 19,000 the long of 1 BTC lacks 16,000, of which the fund pays 1,000. The venue owes 15,000
    # to accounts against 5,000 that a desk owes to it and 10,000 outside. These are gone, 5,000
    # more are owed, and the 5,000 of the desk go to 20,000 of debts.
    from undertow.stress import Deleveraging, Impact, Options

    options = Options(impact=Impact.NONE, deleveraging=Deleveraging.NONE)
    book = made(
        [
            ("external:desk", "venue:hyperliquid", "USDC", 5_000.0, "loan"),
            ("venue:hyperliquid", "owner:3", "USDC", 9_000.0),
        ]
    )
    found = solved(
        book, Price(asset="BTC", move=-0.525), options=options,
        assumed=Assumptions(known={"external:desk": 1e6}),
    )  # fmt: skip
    assert found.settlement.losses.uncovered.sum() == pytest.approx(15_000.0)
    assert share(found, "venue:hyperliquid") == pytest.approx(0.25)
    assert lost(found, "owner:3") == pytest.approx(0.75 * 9_000.0)
    assert lost(found, "venue:hyperliquid", "unnamed") == pytest.approx(0.75 * 11_000.0)
    row = next(r for r in found.valuation().rows(named=True) if r["party"] == "owner:3")
    assert row["clearing_usd"] == pytest.approx(0.75 * 9_000.0)


def test_a_keeper_who_is_owed_what_he_keeps_gains_nothing_by_failing() -> None:
    # A bank owes him the 50 BTC that he owes to the token: what he does not give back is gone.
    book = made(
        [
            ("external:bank", "external:Keeper", "BTC", 50.0, "loan"),
            ("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
            ("asset:WBTC", "external:fund", "WBTC", 10.0, "vault_share"),
        ],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper")],
    )
    nothing = Assumptions(capital=0.0, recovery=0.0)
    found = solved(book, failed=("custodian:Keeper",), assumed=nothing)
    assert lost(found, "external:Keeper") == 0.0
    assert found.headline()["gone_usd"] == pytest.approx(2_000_000.0)
    assert lost(found, "external:fund") == pytest.approx(400_000.0)
    # with nothing of the bank's either there was only what he had outside: nothing
    both = solved(book, failed=("custodian:Keeper", "external:bank"), assumed=nothing)
    assert lost(both, "external:fund") == pytest.approx(400_000.0)
    assert lost(both, "external:Keeper") == 0.0
    assert both.headline()["gone_usd"] == pytest.approx(2_000_000.0)


def test_a_token_that_is_cut_while_what_it_holds_is_cut_is_booked_at_its_worth() -> None:
    # the keeper of WBTC gives half back, and who stands behind the vault of it half of that
    book = made(
        [
            ("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
            ("asset:WBTC", "asset:vault", "WBTC", 10.0, "backing"),
        ],
        tokens=[
            ("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper"),
            ("vault", "vault_share", "USDC", 1.0),
        ],
    )
    half = Assumptions(capital=0.0, recovery=0.5)
    found = solved(book, failed=("custodian:Keeper", "asset:vault"), assumed=half)
    assert lost(found, "asset:WBTC", "unnamed") == pytest.approx(800_000.0)
    assert lost(found, "asset:vault", "unnamed") == pytest.approx(300_000.0)
    assert found.headline()["gone_usd"] == pytest.approx(1_100_000.0)


def test_the_more_is_robbed_the_more_is_lost_and_never_more_than_there_was() -> None:
    # borrowers who cannot pay and a robber of what they owe: 50,000 can be lost once
    book = made(
        [("venue:aave-v3", "owner:77", "USDC", 10_000.0)],
        accounts=[(6, 7, [("BTC", "collateral", 0.5), ("USDC", "debt", -14_000.0)])],
    )
    losses = []
    for stolen in (0.1, 0.5, 0.8, 0.9, 0.99, 0.999, 1.0):
        found = solved(
            book, Price(asset="market", move=-0.7),
            Exploit(venue="aave-v3", asset="USDC", share=stolen),
        )  # fmt: skip
        party = found.settlement.sheet.party("pool:aave-v3:USDC")
        losses.append(float(found.settlement.pool_loss[party]))
        assert lost(found, "owner:77") == pytest.approx(0.2 * losses[-1])
    assert (np.diff(losses) >= -1e-6).all()
    assert losses[-1] == pytest.approx(50_000.0)
    assert losses[0] < 49_000.0


def test_a_pool_that_is_said_to_hold_more_of_a_token_than_is_in_it_loses_what_is_in_it() -> None:
    book = made(
        [
            ("external:bank", "asset:vault", "USDC", 10_000.0, "backing"),
            ("asset:vault", "venue:aave-v3", "vault", 8_000.0, "vault_share"),
            ("venue:aave-v3", "owner:77", "vault", 1_000.0),
        ],
        tokens=[("vault", "vault_share", "USDC", 1.0)], reserves=[("vault", 5_000.0, 0.0)],
    )  # fmt: skip
    nothing = Assumptions(capital=0.0, recovery=0.0, run=0.0)
    found = solved(book, failed=("external:bank",), assumed=nothing)
    done, party = found.settlement, found.settlement.sheet.party("pool:aave-v3:vault")
    assert done.pool_loss[party] == pytest.approx(5_000.0)
    assert done.overdrawn[party] == 0.0
    assert lost(found, "owner:77") == pytest.approx(1_000.0)
    assert lost(found, "asset:vault", "unnamed") == pytest.approx(5_000.0)
    assert any("owe a pool more than all in it" in note for note in found.notes)
