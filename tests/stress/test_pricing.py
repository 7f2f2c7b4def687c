"""What factors do to instruments, against formulas written apart."""

from __future__ import annotations

from dataclasses import replace
from math import erf, exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from undertow.errors import StateError
from undertow.kernels import options as kernel
from undertow.kernels.cascade import KEEPER
from undertow.rules.snapshot import Snapshot
from undertow.state import Claims
from undertow.stress.cascade import LEAK, Engine
from undertow.stress.draws import Given
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.pricing import (
    LEVERAGED,
    POOLED,
    ROOT,
    TIED,
    WIPED_OUT,
    PricingMap,
)
from undertow.stress.shards import run_sharded
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import run_sweep
from undertow.stress.worth import asset_prices, peg_deviations
from undertow.worlds import World


@pytest.fixture(scope="module")
def pricing(wide: Snapshot) -> PricingMap:
    return PricingMap.of(wide)


@pytest.fixture(scope="module")
def traded(market_world: World) -> Snapshot:
    return market_world.snapshot()


def factors(snapshot: Snapshot, **moves: float) -> np.ndarray:
    found = np.zeros(len(snapshot.universe.assets))
    for asset, move in moves.items():
        found[snapshot.universe.code("asset", asset)] = move
    return found


def of(snapshot: Snapshot, moves: np.ndarray, instrument: str) -> float:
    return float(moves[snapshot.universe.code("instrument", instrument)])


def test_every_asset_hangs_on_others_as_its_tables_say(wide: Snapshot, pricing: PricingMap) -> None:
    kinds = dict(zip(wide.universe.assets, pricing.hangs.tolist(), strict=True))
    assert kinds == {
        "BTC": ROOT, "ETH": ROOT, "USD": ROOT, "USDC": TIED, "WBTC": TIED, "stETH": TIED,
        "wstETH": TIED, "vault": TIED, "LP": POOLED, "ETH3L": LEVERAGED, "ETH1S": LEVERAGED,
    }  # fmt: skip


def test_a_wrapper_moves_with_all_that_it_stands_on(wide: Snapshot, pricing: PricingMap) -> None:
    factor = factors(wide, ETH=-0.5, stETH=-0.06, wstETH=0.01)
    moves = pricing.moves(factor)
    assert of(wide, moves, "aave-v3:ETH") == -0.5
    assert of(wide, moves, "aave-v3:stETH") == pytest.approx(-0.56, abs=1e-15)
    assert of(wide, moves, "aave-v3:wstETH") == pytest.approx(-0.55, abs=1e-15)
    assert of(wide, moves, "aave-v3:BTC") == 0.0


def test_a_basis_moves_one_instrument_alone(wide: Snapshot, pricing: PricingMap) -> None:
    perp = wide.universe.code("instrument", "hyperliquid:BTC/USDC:USDC")
    basis = np.zeros(len(wide.universe.instruments))
    basis[perp] = -0.02
    moves = pricing.moves(factors(wide, BTC=-0.1), basis)
    assert moves[perp] == pytest.approx(-0.12, abs=1e-15)
    assert of(wide, moves, "aave-v3:BTC") == -0.1


def test_an_exchange_rate_oracle_is_blind_to_the_peg_alone(
    wide: Snapshot, pricing: PricingMap
) -> None:
    seen = pricing.anchors(factors(wide, ETH=-0.5, stETH=-0.06))
    assert of(wide, seen, "aave-v3:stETH") == pytest.approx(-0.5, abs=1e-15)
    assert of(wide, seen, "aave-v3:ETH") == -0.5


@given(
    stnp.arrays(np.float64, (5, 11), elements=st.floats(-1.5, 1.5)),
    st.integers(0, 4),
)
def test_a_scenario_gets_the_same_bits_alone_and_among_others(
    pricing: PricingMap, factor: np.ndarray, row: int
) -> None:
    assert (pricing.moves(factor)[row] == pricing.moves(factor[row])).all()
    price = pricing.prices(pricing.moves(factor))
    assert (price[row] == pricing.prices(pricing.moves(factor[row]))).all()
    assert np.isfinite(price).all()


@given(stnp.arrays(np.float64, (3, 11), elements=st.floats(-0.3, 0.3)))
def test_factors_come_back_from_the_moves_they_made(
    pricing: PricingMap, factor: np.ndarray
) -> None:
    assert np.abs(pricing.factors(pricing.asset_moves(factor)) - factor).max() < 1e-12


@given(eth=st.floats(-1.0, 1.0), usdc=st.floats(-0.3, 0.1))
def test_a_pool_share_is_worth_twice_the_root_of_both_its_reserves(
    wide: Snapshot, pricing: PricingMap, eth: float, usdc: float
) -> None:
    before = 2.0 * sqrt(1_000.0 * 2e6 * 2_000.0 * 1.0)
    after = 2.0 * sqrt(1_000.0 * 2e6 * 2_000.0 * exp(eth) * exp(usdc))
    moves = pricing.moves(factors(wide, ETH=eth, USDC=usdc))
    assert exp(of(wide, moves, "aave-v3:LP")) == pytest.approx(after / before, rel=1e-12)


@given(st.floats(-0.3, 0.5))
def test_leveraged_tokens_answer_a_return_by_their_leverage(
    wide: Snapshot, pricing: PricingMap, r: float
) -> None:
    moves = pricing.moves(factors(wide, ETH=log(1.0 + r)))
    assert exp(of(wide, moves, "aave-v3:ETH3L")) == pytest.approx(1.0 + 3.0 * r, rel=1e-9)
    assert exp(of(wide, moves, "aave-v3:ETH1S")) == pytest.approx(1.0 - r, rel=1e-9)


@given(st.floats(-0.3, 0.5))
def test_leveraged_tokens_trade_what_brings_their_balance_sheet_back(
    wide: Snapshot, pricing: PricingMap, r: float
) -> None:
    sold = pricing.rebalancing_usd(factors(wide, ETH=log(1.0 + r)))
    long = 3e8 * (1.0 + r) - 3.0 * (3e8 * (1.0 + r) - 2e8)  # exposure, less 3 times net value
    short = -1e8 * (1.0 + r) + 1.0 * (2e8 - 1e8 * (1.0 + r))
    eth = wide.universe.code("asset", "ETH")
    assert sold[eth] == pytest.approx(long + short, abs=1.0)
    assert np.count_nonzero(sold) <= 1
    if abs(r) > 1e-6:
        assert np.sign(sold[eth]) == -np.sign(r)  # both sell into a fall


def test_managers_of_leveraged_tokens_trade_units_of_what_their_reference_is_sold_as(
    wide: Snapshot, pricing: PricingMap
) -> None:
    plan = Plan.of(wide)
    rows = plan.keepers
    assert rows.dtype == KEEPER
    assert [wide.universe.instruments[k] for k in rows["inst"]] == ["aave-v3:ETH"] * 2
    # 3 x 2 x 100 m USD and -1 x -2 x 100 m USD, in ETH of 2,000 USD
    assert sorted(rows["strength"]) == pytest.approx([100_000.0, 300_000.0])
    for r in (-0.3, 0.01, 0.5):
        sold = pricing.rebalancing_usd(factors(wide, ETH=log(1.0 + r)))
        traded = (rows["strength"] * plan.insts["start"][rows["inst"]]).sum() * r
        assert -sold[wide.universe.code("asset", "ETH")] == pytest.approx(traded, rel=1e-12)


def test_managers_of_leveraged_tokens_sell_in_the_cascade(wide: Snapshot) -> None:
    plan = Plan.of(wide)
    nobody = replace(plan, keepers=plan.keepers[:0])
    k, strength = int(plan.keepers["inst"][0]), float(plan.keepers["strength"].sum())
    fallen = Stressed.calm(wide).put("factor", wide.universe.code("asset", "ETH"), log(0.99))
    alone = Engine(nobody).run(fallen, Options(), check=True)
    kept = Engine(plan).run(fallen, Options(), check=True)
    assert kept.sold[k] - alone.sold[k] == pytest.approx(0.01 * strength, rel=1e-9)
    assert kept.outcome.value == "settled"
    assert kept.rounds == 2  # ETH has no depth here: the sale moves nothing, and they are done
    assert kept.worst_leak is not None
    assert kept.worst_leak < LEAK
    divided = run_sharded(plan, fallen, Options(), shards=2, settle=False)
    many = run_sweep(plan, Given.of(fallen.factor[None, :]), 1, settled=False)
    assert (divided.sold == kept.sold).all()
    assert many.rows["rounds"][0] == kept.rounds


def test_nobody_rebalances_where_no_token_is_leveraged(traded: Snapshot) -> None:
    rows = Plan.of(traded).keepers
    assert rows.dtype == KEEPER
    assert rows.shape == (0,)


def test_a_token_that_lost_everything_keeps_a_price(wide: Snapshot, pricing: PricingMap) -> None:
    moves = pricing.moves(factors(wide, ETH=log(0.5)))
    assert of(wide, moves, "aave-v3:ETH3L") == pytest.approx(log(WIPED_OUT))


def test_what_hangs_on_a_loss_loses_with_it(wide: Snapshot, pricing: PricingMap) -> None:
    receipt = np.ones(len(wide.universe.assets))
    receipt[wide.universe.code("asset", "stETH")] = 0.9
    receipt[wide.universe.code("asset", "USDC")] = 0.64
    left = dict(zip(wide.universe.assets, pricing.receipts(receipt), strict=True))
    assert left["stETH"] == left["wstETH"] == 0.9
    assert left["vault"] == 0.64
    assert left["LP"] == pytest.approx(0.8)
    assert left["BTC"] == left["ETH"] == left["WBTC"] == 1.0


def test_options_follow_black_on_their_moved_forwards(traded: Snapshot) -> None:
    universe, market = traded.universe, traded.market
    pricing = PricingMap.of(traded)
    moves = pricing.moves(factors(traded, BTC=log(0.8), ETH=log(1.3)))
    price = pricing.prices(moves, vol_mult=1.5, vol_shift=0.05)

    def normal(x: float) -> float:
        return 0.5 * (1.0 + erf(x / sqrt(2.0)))

    def black(k: int, forward: float, vol: float) -> float:
        years = (universe.expiry[k] - traded.ts) / (365 * 86_400_000_000)
        spread = vol * sqrt(years)
        d1 = log(forward / universe.strike[k]) / spread + spread / 2
        call = forward * normal(d1) - universe.strike[k] * normal(d1 - spread)
        return call if universe.is_call[k] else call - forward + universe.strike[k]

    options = np.flatnonzero(universe.strike > 0.0)
    assert len(options) > 10
    for k in options:
        forward, vol = market.index[k], market.vol[k]
        expected = market.mark[k] + black(k, forward * exp(moves[k]), vol * 1.5 + 0.05)
        expected = max(expected - black(k, forward, vol), 0.0)
        assert price[k] == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_without_a_move_every_price_is_its_mark(traded: Snapshot) -> None:
    pricing = PricingMap.of(traded)
    price = pricing.prices(np.zeros(len(traded.universe.instruments)))
    assert (price == traded.market.mark).all()


def test_many_scenarios_of_options_are_priced_as_one_by_one(traded: Snapshot) -> None:
    pricing = PricingMap.of(traded)
    rng = np.random.default_rng(1)
    factor = 0.2 * rng.standard_normal((40, len(traded.universe.assets)))
    moves = pricing.moves(factor)
    price = pricing.prices(moves, vol_mult=1.2)
    for row in range(0, 40, 7):
        assert (price[row] == pricing.prices(moves[row], vol_mult=1.2)).all()


def test_the_kernel_of_options_and_its_plain_twin_agree_to_the_bit(traded: Snapshot) -> None:
    rng = np.random.default_rng(2)
    kind = np.array([1, -1, 1, -1], dtype=np.int8)
    strike, tau, discount = rng.uniform(50, 150, 4), np.array([0.0, 0.1, 1.0, 2.0]), np.ones(4)
    forward, vol = rng.uniform(50, 150, (6, 4)), rng.uniform(0.0, 1.5, (6, 4))
    vol[0] = 0.0
    for closed in (False, True):
        forward.flags.writeable = not closed
        compiled, plain = np.empty((6, 4)), np.empty((6, 4))
        kernel.option_prices(kind, forward, strike, vol, tau, discount, compiled)
        kernel.option_prices.py_func(kind, forward, strike, vol, tau, discount, plain)
        assert compiled.tobytes() == plain.tobytes()


def test_prices_of_assets_come_from_quotes_then_from_what_they_follow(wide: Snapshot) -> None:
    price = dict(zip(wide.universe.assets, asset_prices(wide), strict=True))
    assert price["USD"] == price["USDC"] == 1.0
    assert price["ETH"] == 2_000.0
    assert price["stETH"] == 1_980.0


def test_a_deviation_is_the_log_of_price_over_par(wide: Snapshot) -> None:
    deviation = dict(zip(wide.universe.assets, peg_deviations(wide), strict=True))
    assert deviation["stETH"] == pytest.approx(log(0.99))
    assert deviation["wstETH"] == pytest.approx(0.0, abs=1e-12)
    assert deviation["ETH"] == deviation["LP"] == 0.0


def test_an_asset_that_backs_itself_is_refused(wide_world: World) -> None:
    from undertow.worlds.frames import from_tuples

    claims = from_tuples(
        "claims",
        ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty"),
        [
            ("venue", "pool", "asset", "LP", "ETH3L", "backing", 1.0),
            ("venue", "pool", "asset", "LP", "vault", "backing", 1.0),
            ("venue", "pool", "asset", "ETH", "BTC", "backing", 1.0),
        ],
        ts=wide_world.ts,
    )
    snapshot = wide_world.snapshot()
    universe = snapshot.universe
    around = replace(
        universe,
        reference=np.where(
            np.arange(len(universe.assets)) == universe.code("asset", "vault"),
            universe.code("asset", "LP"),
            universe.reference,
        ).astype(np.int32),
    )
    ring = replace(
        snapshot,
        **{
            name: replace(getattr(snapshot, name), universe=around)
            for name in ("book", "market", "rules", "liquidity", "oracles", "funds", "free")
        },
        claims=Claims.from_frames(around, claims),
    )
    with pytest.raises(StateError, match="hangs on itself"):
        PricingMap.of(ring)


def test_a_token_that_owes_what_it_holds_is_refused(wide: Snapshot) -> None:
    claims = wide.claims
    loans = claims.kind == 1
    broke = replace(claims, qty=np.where(loans, 10.0 * claims.qty, claims.qty))
    with pytest.raises(StateError, match=r"ETH(1S|3L)' owes as much as it holds"):
        PricingMap.of(replace(wide, claims=broke))


@pytest.mark.parametrize("wrong", [np.zeros(3), 0.0, np.zeros((2, 4))])
def test_factors_of_a_wrong_size_are_refused(pricing: PricingMap, wrong: np.ndarray) -> None:
    with pytest.raises(StateError, match="its last axis must hold 11"):
        pricing.moves(wrong)


def test_factors_that_are_no_numbers_are_refused(pricing: PricingMap) -> None:
    with pytest.raises(StateError, match="not finite"):
        pricing.moves(np.full(11, np.nan))
