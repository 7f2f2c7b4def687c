"""What is planted in a snapshot stands in its tables, to the last digit."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.errors import StateError
from undertow.rules.margins import margins
from undertow.worlds import Chain, Crowd, Hub, Loop, Plants, World, build_world
from undertow.worlds.catalogue import VENUES


@cache
def planted(accounts: int = 800) -> World:
    plants = Plants(hub=Hub(0.35), loop=Loop(), chain=Chain(depth=4), crowd=Crowd(0.08))
    return build_world(21, accounts=accounts, plants=plants)


def claimed_usd(world: World) -> pl.DataFrame:
    """Claims with their value at the prices of their assets."""
    price = {"USD": 1.0}
    spot = world.tables["prices"].join(world.tables["instruments"], on="instrument")
    spot = spot.filter(pl.col("kind").is_in(["spot", "oracle", "index"]))
    price |= dict(spot.select("asset", "price").iter_rows())
    claims = world.tables["claims"]
    return claims.with_columns(
        usd=claims["qty"] * pl.Series([price[asset] for asset in claims["asset"]])
    )


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_the_hub_owes_its_share_of_all_claims(share: float) -> None:
    world = build_world(22, accounts=300, plants=Plants(hub=Hub(share)))
    claims, truth = claimed_usd(world), world.truth.hub
    assert truth is not None
    owed = claims.filter(
        (pl.col("debtor_kind") == "venue") & (pl.col("debtor") == truth.node.removeprefix("venue:"))
    )
    assert owed["usd"].sum() == pytest.approx(truth.owed_usd, rel=1e-12)
    assert claims["usd"].sum() == pytest.approx(truth.total_usd, rel=1e-12)
    assert truth.owed_usd / truth.total_usd == truth.share == pytest.approx(share, rel=1e-12)
    assert sorted(f"venue:{v}" for v in owed["creditor"].unique()) == list(truth.creditors)


@settings(max_examples=12)
@given(rho=st.floats(0.05, 0.95), base=st.floats(1e3, 1e9))
def test_the_loop_has_the_multiplier_of_its_claims(rho: float, base: float) -> None:
    world = build_world(23, accounts=20, plants=Plants(loop=Loop(base=base, rho=rho)))
    truth = world.truth.loop
    assert truth is not None
    shares = world.tables["claims"].filter(pl.col("kind") == "vault_share")
    assert shares["qty"].sum() == truth.claims_qty
    assert shares["qty"].sum() / truth.base_qty == truth.multiplier
    assert truth.multiplier == pytest.approx(1.0 / (1.0 - rho), rel=1e-12)
    deposits = world.tables["claims"].filter(pl.col("creditor") == truth.share_asset)["qty"].sum()
    loans = world.tables["claims"].filter(
        (pl.col("debtor_kind") == "owner") & (pl.col("kind") == "loan")
    )["qty"].sum()  # fmt: skip
    assert deposits - loans == pytest.approx(base, rel=1e-9)  # what is no promise
    looper = world.tables["positions"].filter(pl.col("account") == truth.looper_account)
    assert dict(looper.select("kind", "qty").iter_rows()) == {
        "collateral": truth.claims_qty,
        "debt": -truth.debt_qty,
    }
    judged = margins(world.snapshot()).to_polars()
    health = judged.filter(pl.col("account") == truth.looper_account)["health"][0]
    assert health == pytest.approx((1.0 + rho) / (2.0 * rho), rel=2e-2)


def test_a_loop_of_three_quarters_multiplies_by_four_exactly() -> None:
    world = build_world(24, accounts=20, plants=Plants(loop=Loop(base=1e6, rho=0.75)))
    assert world.truth.loop is not None
    assert world.truth.loop.multiplier == 4.0


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_chain_is_as_deep_as_it_says_and_each_wrapper_is_backed(depth: int) -> None:
    plants = Plants(chain=Chain(depth=depth, base="BTC", rate=1.1, locked=0.5))
    world = build_world(25, accounts=50, plants=plants)
    truth = world.truth.chain
    assert truth is not None
    references = dict(world.tables["assets"].select("asset", "reference").iter_rows())
    at, steps = truth.assets[-1], 0
    while references[at] is not None:
        at, steps = references[at], steps + 1
    assert (at, steps) == ("BTC", depth) == (truth.assets[0], truth.depth)
    assert truth.base_per_top == pytest.approx(1.1**depth)
    backing = world.tables["claims"].filter(pl.col("kind") == "backing")
    held = dict(backing.select("creditor", "qty").iter_rows())
    for wrapper, rate, supply in zip(truth.assets[1:], truth.rates, truth.supply, strict=True):
        assert held[wrapper] == supply * rate
    posted = world.tables["positions"].filter(pl.col("account") == truth.account)
    assert posted.filter(pl.col("kind") == "collateral").height == 1


def crowded(crowd: Crowd, *, accounts: int = 300, seed: int = 26, **sizes: int) -> World:
    return build_world(seed, accounts=accounts, plants=Plants(crowd=crowd), **sizes)


@pytest.mark.parametrize("side", ["long", "short"])
def test_the_crowd_is_its_share_of_accounts_and_of_its_side(side: str) -> None:
    world = crowded(Crowd(share=0.15, side=side, distance=0.1, band=0.03), accounts=600)
    truth, accounts = world.truth.crowd, world.tables["accounts"]
    assert truth is not None
    assert len(truth.accounts) / accounts.height == truth.share
    assert 0.15 <= truth.share < 0.152
    mine = world.tables["positions"].filter(pl.col("account").is_in(truth.accounts.tolist()))
    perps = mine.filter(pl.col("instrument") == truth.instrument)
    assert perps["qty"].sum() == truth.qty
    assert mine.filter(pl.col("kind") == "cash")["instrument"].unique().to_list() == [
        truth.collateral
    ]
    sign = 1.0 if side == "long" else -1.0
    same = world.tables["positions"].filter(
        (pl.col("instrument") == truth.instrument)
        & (pl.col("qty").sign() == sign)
        & ~pl.col("account").is_in(world.truth.makers)
    )
    assert len(truth.accounts) / same.height == truth.side_share


def require_closes_where_it_says(world: World, crowd: Crowd) -> None:
    """Each account of the crowd is closed by the engine at its planted price, within the band."""
    truth = world.truth.crowd
    assert truth is not None
    sign = 1.0 if crowd.side == "long" else -1.0
    mark = world.market().mark[world.universe().code("instrument", truth.instrument)]
    move = sign * (1.0 - truth.liquidation_prices / mark)
    assert abs(move - crowd.distance).max() <= 0.5 * crowd.band + 1e-12
    judged = margins(world.snapshot()).to_polars()
    judged = judged.filter(pl.col("account").is_in(truth.accounts.tolist())).sort("account")
    engine = judged["fall" if crowd.side == "long" else "rise"].to_numpy()
    assert np.allclose(engine, move, rtol=1e-9)
    assert not judged["breached"].any()


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("venue", [v.key for v in VENUES if v.kind == "perp"])
def test_a_crowd_closes_within_its_band_by_the_rules_of_its_venue(venue: str, side: str) -> None:
    """Closing fees and maintenance at the entry price are those of the profile."""
    for distance in (0.1, 0.85):  # a rise that far leaves the first bracket
        crowd = Crowd(share=0.15, side=side, venue=venue, distance=distance, band=0.03)
        require_closes_where_it_says(crowded(crowd), crowd)


def test_a_crowd_closes_by_the_rules_of_its_day() -> None:
    for ts in (1_680_000_000_000_000, 1_700_000_000_000_000):  # either side of 2023-06-01
        crowd = Crowd(share=0.2)
        plants = Plants(crowd=crowd)
        world = build_world(3, accounts=60, assets=8, venues=2, plants=plants, ts=ts)
        require_closes_where_it_says(world, crowd)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**40),
    accounts=st.integers(5, 400),
    assets=st.integers(6, 40),
    side=st.sampled_from(["long", "short"]),
    venue=st.sampled_from([v.key for v in VENUES if v.kind == "perp"]),
    share=st.floats(0.01, 0.9),
)
def test_longs_equal_shorts_whatever_is_planted_and_wherever(
    seed: int, accounts: int, assets: int, side: str, venue: str, share: float
) -> None:
    plants = Plants(hub=Hub(), loop=Loop(), chain=Chain(), crowd=Crowd(share, "ETH", side, venue))
    world = build_world(seed, accounts=accounts, assets=assets, plants=plants)
    legs = world.tables["positions"].filter(pl.col("kind").is_in(["perp", "option"]))
    net = legs.group_by("instrument").agg(pl.col("qty").sum())["qty"]
    assert (net == 0.0).all()
    truth = world.truth.crowd
    assert truth is not None
    assert len(truth.accounts) / world.tables["accounts"].height == truth.share
    assert margins(world.snapshot()).health.min() > 1.0
    book = world.book()
    assert book.account.tolist() == world.tables["accounts"]["account"].to_list()


def test_a_crowd_alone_at_its_venue_gets_a_maker() -> None:
    world = crowded(Crowd(share=0.5, venue="binance-usdm"), accounts=20, seed=3)
    truth = world.truth
    assert truth.crowd is not None
    made = world.tables["positions"].filter(
        (pl.col("account") == truth.makers[-1]) & (pl.col("kind") == "perp")
    )
    assert made["qty"].to_list() == [-truth.crowd.qty]
    kinds = world.tables["accounts"].join(world.tables["entities"], on="owner")
    kind = kinds.filter(pl.col("account") == truth.makers[-1])["kind"].to_list()
    assert kind == ["market_maker"]


@pytest.mark.parametrize("accounts", [300, 12_000])
def test_no_account_is_in_a_mode_that_its_venue_does_not_have(accounts: int) -> None:
    world = crowded(Crowd(venue="bybit"), accounts=accounts, assets=24)
    modes = world.tables["accounts"].select("account", "venue", "mode", "margin_group")
    at_home = modes.filter(pl.col("venue") == "bybit")
    assert at_home["mode"].unique().to_list() == ["isolated"]
    held = world.tables["positions"].filter(pl.col("kind") == "perp").join(at_home, on="account")
    assert held["account"].is_unique().all()
    asset = held["instrument"].str.extract(r":(\w+)/")
    assert ("isolated:" + asset == held["margin_group"]).all()
    for key in {v.key for v in VENUES if v.kind == "perp" and "isolated" not in v.modes}:
        assert modes.filter(pl.col("venue") == key)["mode"].unique().to_list() == ["cross"]


def test_all_plants_stand_together() -> None:
    world = planted()
    snapshot = world.snapshot()
    assert margins(snapshot).health.min() > 1.02
    assert world.truth.loop is not None
    assert world.truth.chain is not None
    assert f"owner:{world.truth.loop.looper_owner}" in snapshot.claims.nodes
    owners = world.tables["entities"]["owner"].to_list()
    assert world.truth.loop.vault_owner in owners


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Hub(1.0), "hub.share was 1"),
        (lambda: Loop(rho=1.2), "loop.rho was 1.2"),
        (lambda: Loop(base=0.0), "loop.base was 0"),
        (lambda: Chain(depth=0), "chain.depth was 0"),
        (lambda: Crowd(share=1.0), "crowd.share was 1"),
        (lambda: Crowd(side="both"), "crowd.side was 'both'"),
        (lambda: Crowd(distance=0.05, band=0.2), "crowd.band was 0.2"),
        (lambda: build_world(1, plants=Plants(chain=Chain(base="GOLD"))), "'GOLD'"),
        (lambda: build_world(1, plants=Plants(crowd=Crowd(venue="bazaar"))), "'bazaar'"),
        (lambda: build_world(1, plants=Plants(crowd=Crowd(asset="GOLD"))), "GOLD"),
    ],
)
def test_impossible_plants_are_refused_by_name(make: object, words: str) -> None:
    with pytest.raises(StateError, match=words):
        make()  # type: ignore[operator]
