"""A world is a consistent snapshot at any size, and the same one every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow import schema
from undertow.errors import StateError
from undertow.rules.margins import margins
from undertow.state.conform import require
from undertow.worlds import (
    Mix,
    Plants,
    Population,
    World,
    bench_book,
    build_panels,
    build_world,
    demo_world,
    tiny_world,
)

SOURCE = Path(__file__).parent.parent.parent / "src"


def fingerprint(tables: Mapping[str, pl.DataFrame]) -> dict[str, str]:
    """A hash of every table, of values and of what is empty."""
    found = {}
    for name, frame in tables.items():
        state = hashlib.sha256()
        for column in frame.get_columns():
            state.update(column.name.encode())
            state.update(column.is_null().to_numpy().tobytes())
            if column.dtype == pl.String:
                state.update("\x00".join(column.fill_null("")).encode())
            else:
                physical = column.to_physical()
                state.update(physical.fill_null(0).cast(physical.dtype).to_numpy().tobytes())
        found[name] = state.hexdigest()
    return found


def require_whole(world: World) -> None:
    """Every table fits its declaration, and every noun can be built from them."""
    for name, frame in world.tables.items():
        require(schema.table(name), frame)
    universe, book = world.universe(), world.book()
    assert book.universe == world.market().universe == world.claims().universe == universe
    world.market().require_prices(book.inst)
    assert book.accounts == world.tables["accounts"].height


@pytest.mark.parametrize("accounts", [5, 50, 2_000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tables_fit_their_declarations_and_make_every_noun(accounts: int, seed: int) -> None:
    world = build_world(seed, accounts=accounts)
    require_whole(world)
    assert world.tables["accounts"].height == accounts


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**40),
    accounts=st.integers(5, 400),
    assets=st.integers(6, 90),
    venues=st.integers(2, 14),
    mix=st.tuples(*[st.floats(0.0, 1.0)] * 6).filter(lambda shares: sum(shares) > 0.01),
)
def test_any_size_and_any_mix_makes_a_healthy_balanced_world(
    seed: int, accounts: int, assets: int, venues: int, mix: tuple[float, ...]
) -> None:
    population = Population(accounts, mix=Mix(*mix))
    world = build_world(seed, assets=assets, venues=venues, population=population)
    require_whole(world)
    assert margins(world.snapshot()).health.min() > 1.02
    assert signed_sums(world)["qty"].abs().max() in (0.0, None)


def signed_sums(world: World) -> pl.DataFrame:
    legs = world.tables["positions"].filter(pl.col("kind").is_in(["perp", "option"]))
    return legs.group_by("instrument").agg(pl.col("qty").sum()).sort("instrument")


def test_the_rows_already_stand_in_the_order_of_a_book() -> None:
    world = build_world(4, accounts=2_000, plants=Plants())
    book, positions = world.book(), world.tables["positions"]
    assert book.account.tolist() == world.tables["accounts"]["account"].to_list()
    assert book.qty.tolist() == positions["qty"].to_list()
    assert (np.diff(book.account) > 0).all()


def test_longs_equal_shorts_to_the_bit_and_are_the_open_interest() -> None:
    world = build_world(5, accounts=2_000)
    assert (signed_sums(world)["qty"] == 0.0).all()
    legs = world.tables["positions"].filter((pl.col("kind") == "perp") & (pl.col("qty") > 0))
    longs = legs.group_by("instrument").agg(pl.col("qty").sum())
    interest = world.tables["open_interest"].join(
        world.tables["instruments"].select("instrument", "contract_size"), on="instrument"
    )
    both = interest.join(longs, on="instrument", how="left").with_columns(
        pl.col("qty").fill_null(0.0)
    )
    assert (both["contracts"] * both["contract_size"] == both["qty"]).all()


@pytest.mark.parametrize("index", [1.1, 1.3, 2.0])
def test_account_sizes_have_the_tail_that_was_asked_for(index: float) -> None:
    """Hill's estimate on the largest 5 % of lenders' collateral, within 4 standard errors."""
    mix = Mix(pair=1, basket=0, supplier=0, single=0, cross=0, options=0)
    population = Population(20_000, mix=mix, tail_index=index)
    world = build_world(11, population=population)
    price = world.tables["prices"].filter(pl.col("kind") == "oracle")
    held = world.tables["positions"].filter(pl.col("kind") == "collateral")
    valued = held.join(price.select("instrument", "price"), on="instrument")
    size = np.sort((valued["qty"] * valued["price"]).to_numpy())[::-1]
    k = len(size) // 20
    hill = 1.0 / np.log(size[:k] / size[k]).mean()
    assert abs(hill - index) < 4.0 * index / np.sqrt(k)


def test_distances_are_realistic_lenders_near_the_limit_and_traders_up_to_fifty_times() -> None:
    judged = margins(build_world(6, accounts=5_000).snapshot()).to_polars()
    assert not judged["breached"].any()
    assert judged["health"].min() > 1.02
    lenders = judged.filter(pl.col("debt") > 0)
    assert 1.2 < lenders["health"].median() < 1.6
    traders = judged.filter((pl.col("notional") > 0) & (pl.col("mode") != "portfolio"))
    assert 1.5 < traders["leverage"].median() < 8.0
    assert 10.0 < traders["leverage"].quantile(0.95) <= 50.0


def test_the_unhealthy_share_is_the_share_that_is_breached() -> None:
    population = Population(4_000, unhealthy=0.1)
    judged = margins(build_world(6, population=population).snapshot()).to_polars()
    owing = judged.filter((pl.col("debt") > 0) | (pl.col("notional") > 0))
    owing = owing.filter(pl.col("mode") != "portfolio")
    assert abs(owing["breached"].mean() - 0.1) < 0.02


def test_some_owners_stand_on_several_venues_and_some_are_unknown() -> None:
    accounts = build_world(7, accounts=3_000).tables["accounts"]
    assert abs(accounts["owner"].null_count() / 3_000 - 0.2) < 0.02
    venues = accounts.drop_nulls("owner").group_by("owner").agg(pl.col("venue").n_unique())
    assert (venues["venue"] > 1).sum() > 100


def test_rules_come_by_market_by_category_and_for_single_accounts() -> None:
    world = build_world(8, accounts=3_000)
    params = world.tables["risk_params"]
    assert params.filter(pl.col("category") == "eth-correlated").height
    single = params.filter(pl.col("account").is_not_null())
    assert single["account"].to_list() == list(world.truth.overridden) != []
    modes = world.tables["accounts"]["mode"].unique().to_list()
    assert sorted(modes) == ["cross", "isolated", "portfolio"]
    inverse = world.tables["instruments"].filter("inverse")["instrument"].to_list()
    assert world.tables["positions"].filter(pl.col("instrument").is_in(inverse)).height


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    first, second = (fingerprint(demo_world(seed=3).tables) for _ in range(2))
    assert first == second
    other = fingerprint(demo_world(seed=4).tables)
    changed = {name for name in first if first[name] != other[name]}
    named = {"assets", "venues", "instruments", "oracles", "margin_brackets", "tags"}
    assert changed == set(first) - named


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_threads(threads: int) -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_world_snapshots import fingerprint\n"
        "from undertow.worlds import demo_world\n"
        "print(json.dumps(fingerprint(demo_world(seed=3).tables)))"
    )
    names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(SOURCE)}
    folders = f"{Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", code, folders],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == fingerprint(demo_world(seed=3).tables)


def test_what_is_planted_leaves_the_population_as_it_was() -> None:
    from undertow.worlds import Chain, Crowd, Hub, Loop

    plain = build_world(9, accounts=500)
    plants = Plants(hub=Hub(), loop=Loop(), chain=Chain(), crowd=Crowd())
    planted = build_world(9, accounts=500, plants=plants)
    known = plain.tables["accounts"]["account"].to_list()
    makers = set(plain.truth.makers)
    for table in ("accounts", "positions"):
        mine = pl.col("account").is_in(known) & ~pl.col("account").is_in(makers)
        assert planted.tables[table].filter(mine).equals(plain.tables[table].filter(mine))


def test_the_tiny_world_is_the_one_in_its_table() -> None:
    world = tiny_world()
    require_whole(world)
    judged = margins(world.snapshot()).to_polars().sort("account")
    assert judged["cover"].to_list() == [16_000.0, 5_000.0, 30_000.0, 10_000.0, 0.0]
    assert judged["asked"].to_list() == [10_000.0, 1_000.0, 20_000.0, 1_000.0, 0.0]
    falls = [1 - 1_250 / 2_000, 1 - 35_897.4 / 40_000, 1 - 26_666.7 / 40_000, None, None]
    assert [None if f is None else round(f, 4) for f in judged["fall"]] == [
        None if f is None else round(f, 4) for f in falls
    ]
    assert round(judged["rise"][3], 4) == round(48_780.5 / 40_000 - 1, 4)


def test_the_demo_world_holds_everything_and_is_whole() -> None:
    world = demo_world()
    require_whole(world)
    truth = world.truth
    assert all(each is not None for each in (truth.hub, truth.loop, truth.chain, truth.crowd))
    assert 2_000 <= world.tables["accounts"].height < 2_300
    assert margins(world.snapshot()).health.min() > 1.02
    assert len(world.panels["spot"]) == 90 * 24


def breached_share(world: World, sigma: float, correlation: float, draws: int) -> float:
    """Mean share of accounts under water when every asset moves by about `sigma`.

    An evaluation of its own, from the tables: cover and asked of lenders and perp accounts; options
    are left where they are. A tied asset moves with what it follows, money does not move.
    """
    t = world.tables
    params = t["risk_params"]
    plain = params.filter(pl.col("category").is_null() & pl.col("account").is_null())

    def by_instrument(name: str) -> pl.DataFrame:
        rows = plain.filter((pl.col("name") == name) & pl.col("instrument").is_not_null())
        return rows.select("instrument", pl.col("value").alias(name))

    market = params.filter(
        pl.col("category").is_not_null() & (pl.col("name") == "liquidation_threshold")
    )
    market = market.select("instrument", "category", pl.col("value").alias("own"))
    price = t["prices"].sort("kind").unique("instrument", keep="last", maintain_order=True)
    legs = (
        t["positions"]
        .join(t["accounts"].select("account", "category"), on="account", maintain_order="left")
        .join(t["instruments"].select("instrument", "asset", "inverse"), on="instrument")
        .join(price.select("instrument", "price"), on="instrument")
        .join(by_instrument("liquidation_threshold"), on="instrument", how="left")
        .join(by_instrument("haircut"), on="instrument", how="left")
        .join(market, on=["instrument", "category"], how="left")
        .sort("account", "instrument", "kind")
    )
    brackets = t["margin_brackets"].sort("instrument", "tier")
    tiers = {
        str(key[0]): (part["rate"].to_numpy(), part["amount"].to_numpy())
        for key, part in brackets.group_by("instrument")
    }
    kind = legs["kind"].to_numpy()
    qty, base = legs["qty"].to_numpy(), legs["price"].to_numpy()
    entry = legs["entry"].fill_null(1.0).to_numpy()
    inverse = legs["inverse"].to_numpy()
    threshold = legs["own"].fill_null(legs["liquidation_threshold"]).fill_null(0.0).to_numpy()
    haircut = legs["haircut"].fill_null(0.0).to_numpy()
    reference = {r["asset"]: r["reference"] for r in t["assets"].iter_rows(named=True)}

    def root(asset: str) -> str:
        return asset if reference[asset] is None else root(reference[asset])

    roots = sorted({root(asset) for asset in reference} - {"USD"})
    place = np.array([roots.index(r) if (r := root(a)) != "USD" else -1 for a in legs["asset"]])
    perp = kind == "perp"
    width = max(len(rate) for rate, _ in tiers.values())
    rate, amount = np.zeros((len(legs), width)), np.full((len(legs), width), np.inf)
    for row in np.flatnonzero(perp):
        own_rate, own_amount = tiers[legs["instrument"][int(row)]]
        rate[row, : len(own_rate)], amount[row, : len(own_rate)] = own_rate, own_amount
    number = np.unique(legs["account"].to_numpy(), return_inverse=True)[1]
    rng, found = np.random.default_rng(1), []
    for _ in range(draws):
        z = np.sqrt(correlation) * rng.standard_normal()
        z = z + np.sqrt(1.0 - correlation) * rng.standard_normal(len(roots))
        moved = base * np.where(place < 0, 1.0, np.exp(sigma * z)[place])
        notional = np.where(inverse, np.abs(qty), np.abs(qty) * moved)
        profit = np.where(inverse, qty * (moved / entry - 1.0), qty * (moved - entry))
        asked = np.where(kind == "debt", -qty * moved, 0.0)
        asked += np.where(perp, np.nanmax(rate * notional[:, None] - amount, axis=1), 0.0)
        cover = np.select(
            [kind == "collateral", kind == "cash", perp, kind == "option"],
            [qty * moved * threshold, qty * moved * (1.0 - haircut), profit, np.abs(qty) * moved],
            0.0,
        )
        short = np.bincount(number, cover) < np.bincount(number, asked)
        found.append(short.mean())
    return float(np.mean(found))


def test_the_bench_book_is_mixed_as_stated_and_breached_as_stated() -> None:
    world = bench_book(1, accounts=20_000)
    require_whole(world)
    assert len(world.universe().assets) == 64
    assert len(world.universe().venues) > 12
    legs = np.diff(world.book().offset)
    assert abs((legs == 2).mean() - 0.6) < 0.01
    assert (legs <= 8).all()
    assert 3.1 < legs.mean() < 3.4
    assert world.tables["accounts"]["owner"].null_count() == 0
    assert 0.02 < breached_share(world, 0.12, 0.6, draws=60) < 0.03
    tight = bench_book(1, accounts=20_000, slack=1.5)
    assert breached_share(tight, 0.12, 0.6, draws=20) > 0.035


@pytest.mark.slow
def test_a_million_accounts_are_built_in_a_minute() -> None:
    began = time.perf_counter()
    world = bench_book(1)
    assert time.perf_counter() - began < 60.0
    assert world.tables["accounts"].height == 1_000_000
    assert 3.1e6 < world.tables["positions"].height < 3.4e6
    assert world.book().accounts == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"accounts": 4}, "accounts was 4"),
        (
            {"accounts": 1_000_001},
            "accounts was 1,000,001; it must be at least 5 and at most 1,000,000",
        ),
        ({"assets": 3}, "assets was 3"),
        ({"venues": 99}, "venues was 99"),
        ({"depth_ratio": 0.0}, "depth_ratio was 0"),
    ],
)
def test_impossible_sizes_are_refused_by_name(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(StateError, match=words):
        build_world(1, **arguments)  # type: ignore[arg-type]


def test_impossible_populations_are_refused_by_name() -> None:
    for arguments, words in (
        ({"tail_index": 0.0}, "tail_index was 0"),
        ({"slack": -1.0}, "slack was -1"),
        ({"unhealthy": 1.5}, "unhealthy was 1.5"),
        ({"mix": Mix(0, 0, 0, 0, 0, 0)}, "the sum of mix was 0"),
    ):
        with pytest.raises(StateError, match=words):
            Population(100, **arguments)
    with pytest.raises(StateError, match="accounts was"):
        Population(2_000_000)


@pytest.mark.parametrize(
    "make",
    [
        build_world,
        demo_world,
        lambda seed: bench_book(seed, accounts=100),
        lambda seed: build_panels(seed, steps=10),
    ],
)
def test_a_negative_seed_is_refused_by_name(make: Callable[[int], object]) -> None:
    with pytest.raises(StateError, match="seed was -3; it must be 0 or more"):
        make(-3)


def test_what_was_planted_is_told_in_a_few_plain_values() -> None:
    world = demo_world()
    told = world.truth.as_json()
    text = json.dumps(told, allow_nan=False)
    assert len(text) < 20_000
    assert json.loads(text) == told
    truth = world.truth
    assert truth.loop is not None
    assert truth.series is not None
    assert told["loop"]["multiplier"] == truth.loop.multiplier
    assert told["hub"]["share"] == pytest.approx(0.4)
    made, planted = told["series"]["leverage"]["leverage_venue"], truth.series.leverage
    assert [each["ts"] for each in made["unwindings"]] == [
        each.ts for each in planted["leverage_venue"].unwindings
    ]
    assert len(made["turning_points"]) == len(planted["leverage_venue"].turning_points) > 0
    correlation = planted["leverage_venue"].correlation
    off = correlation[np.triu_indices(len(correlation), 1)]
    assert made["correlation"]["mean"] == pytest.approx(off.mean())
    assert "residual" not in made
    assert told["crowd"]["accounts"]["count"] == len(truth.crowd.accounts)  # type: ignore[union-attr]
    assert tiny_world().truth.as_json() == {"seed": 0, "overridden": [], "makers": []}
