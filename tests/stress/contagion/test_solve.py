"""What holds of every solve: ledgers, order of channels, size of shocks, and how it may end."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import polars as pl
import pytest

from stress.contagion.made import CALM, lost, made, price, share, shocked, solved
from undertow.errors import NotSettled, StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import Options, Plan
from undertow.stress.contagion import CHANNELS, OUTER, Assumptions, Channels, Ending, Solver
from undertow.stress.shock import Price, PriceBeta, WithdrawalRun
from undertow.worlds import World

TOKENS = [
    ("vault", "vault_share", "USDC", 1.0),
    ("WBTC", "wrapped", "BTC", 40_000.0, "ethereum", "Issuer", "Keeper"),
    ("sUSD", "stable", "USD", 1.0),
    ("top", "vault_share", "vault", 1.0),
]
CRASH = Price(asset="market", move=-0.6)


@cache
def woven(seed: int) -> Snapshot:
    """A small world whose every number is drawn: who owes whom, what is lent, who holds tokens."""
    rng = np.random.default_rng(seed)
    tokens = [t[0] for t in TOKENS]
    parties = [f"external:{x}" for x in ("Keeper", "desk", "bank")]
    parties += ["venue:hyperliquid", "owner:1", "owner:2", "owner:3"]
    claims = {("venue:aave-v3", "asset:vault", "USDC", "deposit"): rng.uniform(1e3, 3e4)}
    claims["asset:vault", "asset:top", "vault", "backing"] = rng.uniform(1e2, 2e4)
    claims["external:Keeper", "asset:WBTC", "BTC", "custody"] = rng.uniform(0.1, 2.0)
    claims["external:bank", "asset:sUSD", str(rng.choice(["ETH", "USDC"])), "backing"] = 20.0
    for _ in range(int(rng.integers(0, 10))):
        debtor, creditor = rng.choice(parties, 2, replace=False)
        asset = str(rng.choice(["USDC", "ETH", "BTC", "vault"]))
        worth = {"USDC": 1.0, "ETH": 2_000.0, "BTC": 40_000.0, "vault": 1.0}[asset]
        kind = str(rng.choice(["deposit", "loan", "custody"]))
        claims[debtor, creditor, asset, kind] = rng.exponential(2e4) / worth
    for token in tokens:
        holder = str(rng.choice([p for p in parties if p.startswith(("owner", "external"))]))
        claims[f"asset:{token}", holder, token, "vault_share"] = rng.exponential(1e3)
    claims[str(rng.choice(parties[:3])), "venue:aave-v3", "USDC", "custody"] = rng.uniform(0, 4e4)
    supplied = rng.uniform(3e4, 8e4)
    accounts = [
        (6 + n, int(rng.integers(1, 4)), [
            (str(rng.choice(tokens[:1] + tokens[3:])), "collateral", rng.uniform(1e3, 1e4)),
            ("ETH", "debt", -rng.uniform(0.2, 2.0)),
        ])
        for n in range(4)
    ]  # fmt: skip
    return made(
        [(d, c, a, q, k) for (d, c, a, k), q in claims.items()], tokens=TOKENS,
        reserves=[("USDC", supplied, min(3e4, supplied)), ("ETH", 40.0, rng.uniform(1.0, 39.0))],
        accounts=accounts, funds=[("aave-v3", "insurance", rng.choice([0.0, 2e3]))],
    )  # fmt: skip


def assumed(seed: int) -> Assumptions:
    rng = np.random.default_rng(1_000 + seed)
    keep = rng.choice([1.0, 0.7], 2)
    return Assumptions(
        keep_assets=keep[0], keep_received=keep[1], capital=rng.choice([0.0, 0.05, 0.3]),
        elasticity=rng.choice([0.5, 1.0, 2.0]), run=rng.choice([0.0, 2.0, 20.0]),
        recovery=rng.uniform(),
    )  # fmt: skip


def fails(seed: int) -> tuple[str, ...]:
    names = ("custodian:Keeper", "external:bank", "venue:hyperliquid", "issuer:Issuer",
             "oracle:hyperliquid:BTC/USDC:USDC", "external:Keeper", "asset:vault", "asset:WBTC",
             "instrument:aave-v3:USDC", "venue:aave-v3")  # fmt: skip
    rng = np.random.default_rng(2_000 + seed)
    return tuple(name for name in names if rng.random() < 0.3)


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 80))]
)
def test_cash_and_units_are_conserved_over_all_channels_in_every_woven_world(seed: int) -> None:
    rng = np.random.default_rng(3_000 + seed)
    solver = Solver.of(woven(seed))
    fall = Price(asset="market", move=-rng.uniform(0.0, 0.9))
    run = WithdrawalRun(share=float(rng.choice([0.0, 0.4])), asset="USDC")
    drawn = Channels(**{name: bool(rng.random() < 0.6) for name in CHANNELS})
    for channels in (Channels(), drawn):
        found = solved(
            solver, fall, run, channels=channels, assumed=assumed(seed), failed=fails(seed)
        )
        unnamed = found.realised().filter(pl.col("kind") == "unnamed")["usd"]
        assert unnamed.max() is None or unnamed.max() <= 1e-6  # nobody gains by being unnamed
        mine = pl.col("party") == "own accounts"  # owners may have won there
        sinks = found.realised().filter((pl.col("kind") == "sink") & ~mine)["usd"]
        assert sinks.min() >= -1e-6
        assert found.settlement.settled
        least = found.least.share - found.settlement.share
        assert least.max() <= 1e-9


def test_the_ledger_would_show_a_loss_that_is_forgotten() -> None:
    from dataclasses import replace

    found = solved(woven(1), CRASH, failed=("external:bank", "custodian:Keeper"))
    done = found.settlement
    party = done.sheet.party("external:bank")
    less = done.sink.copy()
    less[party] *= 0.999
    wrong = replace(found, settlement=replace(done, sink=less))
    assert found.leak < 1e-12
    assert wrong.leak > 1e-9


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_the_order_in_which_channels_act_leads_to_the_same_rest(seed: int) -> None:
    solver = Solver.of(woven(seed))
    knobs = {"assumed": Assumptions(recovery=0.5, run=2.0), "failed": ("custodian:Keeper",),
             "tolerance": 1e-11, "max_passes": 400}  # fmt: skip
    together = solved(solver, CRASH, **knobs).require()
    assert together.because
    for order in list(permutations(OUTER))[seed::11]:
        found = solved(solver, CRASH, order=order, **knobs).require()
        assert found.state.change(together.state) <= 1e-7
        far = np.abs(found.settlement.share - together.settlement.share)
        assert far.max() <= 1e-7
        assert found.headline()["lost_usd"] == pytest.approx(together.headline()["lost_usd"])


def test_within_a_pass_no_order_can_matter() -> None:
    knobs = {"assumed": Assumptions(recovery=0.5), "failed": ("custodian:Keeper",)}
    found = solved(woven(2), CRASH, max_passes=1, **knobs)
    assert found.ending is Ending.PASS_LIMIT
    state, other = found.state, found.state
    receipt = np.full(len(state.receipt), 0.9)
    peg = np.full(len(state.peg), -0.1)
    one = state.worsened(receipt=receipt).worsened(peg=peg, receipt=receipt * 1.05)
    two = other.worsened(peg=peg, receipt=receipt * 1.05).worsened(receipt=receipt)
    assert one.change(two) == 0.0
    assert (one.receipt == receipt).all()


def test_a_larger_failure_leaves_nobody_better_off_where_nobody_is_closed() -> None:
    # Monotone where the engine is: without forced closings what is left is claims alone.
    solver = Solver.of(woven(3))
    assets, shares = [], []
    for recovery in (1.0, 0.8, 0.5, 0.2, 0.0):
        found = solved(
            solver, failed=("custodian:Keeper", "external:bank"),
            assumed=Assumptions(recovery=recovery, capital=0.0, run=0.0),
            channels=Channels().without("fire_sales"),
        )  # fmt: skip
        assets.append(found.state.receipt)
        shares.append(found.settlement.share)
    assert (np.diff(assets, axis=0) <= 1e-9).all()
    assert (np.diff(shares, axis=0) <= 1e-9).all()
    assert shares[-1].min() < shares[0].min()


def test_a_larger_fall_loses_no_less_of_a_book_of_longs() -> None:
    book = made(
        [("venue:aave-v3", "asset:vault", "USDC", 20_000.0)], tokens=TOKENS[:1],
        accounts=[(6, 7, [("vault", "collateral", 10_000.0)])],
    )  # fmt: skip
    solver = Solver.of(book)
    falls = np.linspace(0.0, 0.9, 10)
    found = [solved(solver, Price(asset="market", move=-float(f))) for f in falls]
    vault = [price(each, "vault") for each in found]
    assert (np.diff(vault) <= 1e-9).all()
    assert vault[0] == 1.0
    assert vault[-1] < 0.9
    withdrawn = [each.state.withdrawn.max() for each in found]
    assert (np.diff(withdrawn) >= -1e-9).all()


def test_one_solver_serves_all_subsets_of_channels_from_one_settled_book(
    market_world: World,
) -> None:
    plan = Plan.of(market_world.snapshot())
    solver = Solver.of(plan)
    whole = {}
    for mask in range(8):
        on = {name: bool(mask >> n & 1) for n, name in enumerate(("claims", "backing", "funding"))}
        whole[mask] = solved(solver, CRASH, channels=Channels(**on))
    again = solved(Solver.of(plan), CRASH, channels=Channels())
    assert (again.cascade.path == whole[7].cascade.path).all()
    assert (again.realised()["usd"] == whole[7].realised()["usd"]).all()
    plans = {id(each.cascade.plan) for each in whole.values()}
    assert len(plans) == 1


def test_a_book_without_claims_has_nothing_to_carry() -> None:
    found = solved(made(), CRASH)
    assert any("nobody owes anybody" in note for note in found.notes)
    assert found.marks.radius == 0.0
    assert not found.handed_on().height
    assert solved(made()).headline()["lost_usd"] == 0.0


def test_negative_equity_at_the_start_is_said_and_its_lack_is_nobodys_gain() -> None:
    row = made([("external:a", "external:d", "USDC", 100.0, "loan")])
    found = solved(row, assumed=Assumptions(known={"external:a": -30.0}))
    assert any("external:a owed more than they had" in note for note in found.notes)
    assert share(found, "external:a") == pytest.approx(0.7)
    assert lost(found, "external:d") == pytest.approx(30.0)
    assert lost(found, "external:a") == pytest.approx(-30.0)


def test_claims_that_outnumber_what_backs_them_are_shares_of_it() -> None:
    twice = made(
        [("external:Keeper", "asset:WBTC", "BTC", 5.0, "custody"),
         ("asset:WBTC", "external:a", "WBTC", 6.0, "vault_share"),
         ("asset:WBTC", "external:b", "WBTC", 4.0, "vault_share")],
        tokens=TOKENS[1:2],
    )  # fmt: skip
    calm = solved(twice)
    assert any("asset:WBTC outnumber" in note for note in calm.notes)
    assert calm.headline()["lost_usd"] == 0.0  # as it was found; the price knows
    found = solved(
        twice, failed=("external:Keeper",), assumed=Assumptions(capital=0.0, recovery=0.5)
    )
    assert lost(found, "external:a") == pytest.approx(0.6 * 100_000.0)
    assert lost(found, "external:b") == pytest.approx(0.4 * 100_000.0)
    assert price(found, "WBTC") == pytest.approx(20_000.0)


def test_tokens_that_back_each_other_pass_on_what_comes_from_outside() -> None:
    circle = [
        ("asset:vault", "asset:sUSD", "vault", 50.0, "backing"),
        ("asset:sUSD", "asset:vault", "sUSD", 50.0, "backing"),
        ("external:Keeper", "asset:vault", "USDC", 100.0, "custody"),
    ]
    knobs = {"failed": ("external:Keeper",), "assumed": Assumptions(capital=0.0, recovery=0.5)}
    tokens = [TOKENS[0], TOKENS[2]]
    found = solved(made(circle, tokens=tokens), **knobs)
    # vault holds 100 and all of sUSD's 50; sUSD holds a third of the vault: 150 = 100 + 50
    assert share(found, "asset:vault") == pytest.approx(0.5)
    assert share(found, "asset:sUSD") == pytest.approx(0.5)
    assert not found.settlement.owed.circular
    closed = [
        ("asset:vault", "asset:sUSD", "vault", 500.0, "backing"),
        ("asset:sUSD", "asset:vault", "sUSD", 500.0, "backing"),
        ("external:Keeper", "asset:vault", "USDC", 100.0, "custody"),
    ]
    whole = solved(made(closed, tokens=tokens), **knobs)
    assert np.isfinite(whole.settlement.share).all()
    alone = solved(made(closed[:2], tokens=tokens))  # a promise of a promise
    assert np.isfinite(alone.settlement.share).all()


def test_claims_of_several_ranks_clear_as_one_and_it_is_said() -> None:
    row = made([("external:a", "external:d", "USDC", 100.0, "loan"),
                ("external:a", "external:e", "USDC", 100.0, "loan")])  # fmt: skip
    from dataclasses import replace

    rank = row.claims.seniority.copy()
    rank[1] = 1
    ranked = replace(row, claims=replace(row.claims, seniority=rank))
    found = solved(ranked, failed=("external:a",), assumed=Assumptions(recovery=0.5, capital=0.0))
    assert any("external:a are of several ranks" in note for note in found.notes)
    assert lost(found, "external:d") == lost(found, "external:e") == pytest.approx(50.0)


def test_passes_that_do_not_come_to_rest_are_a_finding() -> None:
    book = woven(5)
    found = solved(book, CRASH, max_passes=1, failed=("custodian:Keeper",))
    assert found.ending is Ending.PASS_LIMIT
    assert len(found.passes) == 1
    with pytest.raises(NotSettled, match="pass limit"):
        found.require()
    with pytest.raises(StateError, match="max_passes was 0"):
        Solver.of(book).solve(CALM, max_passes=0)
    with pytest.raises(StateError, match="tolerance was"):
        Solver.of(book).solve(CALM, tolerance=0.0)
    with pytest.raises(StateError, match="order was"):
        Solver.of(book).solve(CALM, order=("claims",))


def test_a_price_that_leaves_all_bounds_ends_with_the_pass_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from undertow.stress.contagion.follower import Follower

    inner, runs = Follower.follow, []

    def follow(self: Follower, *args: object, **knobs: object) -> object:
        runs.append(1)
        if len(runs) == 2:
            raise StateError("prices left all bounds")
        return inner(self, *args, **knobs)

    monkeypatch.setattr(Follower, "follow", follow)
    found = solved(woven(5), CRASH, failed=("custodian:Keeper",))
    assert found.ending is Ending.BOUNDS
    assert found.state.change(type(found.state).calm(found.cascade.plan.snapshot)) == 0.0
    assert len(runs) == 3


def test_every_move_of_the_state_has_a_cause() -> None:
    found = solved(woven(5), CRASH, failed=("custodian:Keeper",))
    causes = found.causes()
    assert causes.columns == ["pass", "channel", "component", "name", "from", "usd", "before",
                              "after"]  # fmt: skip
    assert (causes["from"] != "").all()
    assert (causes["usd"] > 0.0).all()
    universe = found.cascade.plan.snapshot.universe
    for component, column, names in (
        ("receipt", found.state.receipt, universe.assets),
        ("withdrawn", found.state.withdrawn, universe.instruments),
    ):
        last = causes.filter(pl.col("component") == component).group_by("name").last()
        assert dict(zip(last["name"], last["after"], strict=True)) == {
            names[k]: column[k] for k in np.flatnonzero(column != (component == "receipt"))
        }


def test_tables_have_the_passes_and_a_headline() -> None:
    found = solved(woven(5), PriceBeta(move=-0.5), failed=("custodian:Keeper",))
    rows = found.by_pass()
    assert rows["pass"].to_list() == list(range(len(found.passes)))
    assert rows["change"][-1] <= found.tolerance
    head = found.headline()
    assert head["ending"] == "settled"
    assert head["channels"] == list(CHANNELS)
    assert head["lost_usd"] >= head["insolvency_usd"]
    assert "pass" in repr(found)
    solver = Solver.of(woven(5))
    assert repr(solver).startswith("Solver(")
    unchecked = solver.solve(shocked(CRASH), check=False, options=Options())
    assert unchecked.leak is None


def test_grounds_that_are_kept_are_those_of_the_solve_that_asks() -> None:
    solver = Solver.of(woven(5))
    one, two = shocked(CRASH), shocked(Price(asset="ETH", move=-0.3))
    named = {"failed": ("custodian:Keeper",)}
    first = [solver.solve(s, **k) for s in (one, two) for k in ({}, named)]
    again = [solver.solve(s, **k) for s in (one, two) for k in ({}, named)]
    fresh = [Solver.of(woven(5)).solve(s, **k) for s in (one, two) for k in ({}, named)]
    for a, b, c in zip(first, again, fresh, strict=True):
        for other in (b, c):
            assert (a.cascade.path == other.cascade.path).all()
            assert (a.realised()["usd"] == other.realised()["usd"]).all()
            assert a.state.change(other.state) == 0.0
    assert len({each.headline()["lost_usd"] for each in first}) == 4
