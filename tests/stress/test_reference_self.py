"""The slow cascade against hand-worked numbers, so that it may be held against the fast one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from stress import reference
from stress.reference import Pair, Pool, ReferenceResult, VenueTerms, judge_all, run_reference
from undertow.kernels import closing as closing_kernel
from undertow.kernels import impact as impact_kernel
from undertow.rules.closing import venue_columns
from undertow.rules.margins import margins
from undertow.rules.profile import ClosingRules, Mechanism
from undertow.rules.snapshot import Snapshot
from undertow.stress.options import Deleveraging, Impact, Options, Responses
from undertow.stress.stressed import ORACLE_MODES, Stressed
from undertow.worlds import World, demo_world, tiny_world
from undertow.worlds.frames import from_tuples

PERP, ETH, BTC = "hyperliquid:BTC/USDC:USDC", "aave-v3:ETH", "aave-v3:BTC"
QUIET = Options(impact=Impact.NONE)
MINUTE = 60_000_000


# ---- a tiny world, and what is done to it


@pytest.fixture(scope="module")
def tiny() -> World:
    return tiny_world()


def snapshot_of(world: World, **changes: pl.DataFrame) -> Snapshot:
    return Snapshot.from_tables({**world.present, **changes}, world.ts)


def shocked(snapshot: Snapshot, **prices: float) -> Stressed:
    """The tiny world with ETH or BTC at a price."""
    stressed = Stressed.calm(snapshot)
    start = {"ETH": 2_000.0, "BTC": 40_000.0}
    for asset, price in prices.items():
        where = snapshot.universe.code("asset", asset)
        stressed = stressed.put("factor", where, math.log(price / start[asset]))
    return stressed


def run(stressed: Stressed, options: Options = QUIET) -> ReferenceResult:
    result = run_reference(stressed.snapshot, stressed, options)
    for round_ in result.ledger:
        assert math.fsum(round_.values()) == pytest.approx(0.0, abs=1e-6)
    return result


def inst(result_of: Stressed, name: str) -> int:
    return result_of.universe.code("instrument", name)


def with_numbers(world: World, **given: Any) -> Snapshot:
    """The tiny world with numbers of the lending venue; tables among them take others' place."""
    changes = {name: given.pop(name) for name in tuple(given) if name in world.tables}
    params = world.tables["risk_params"]
    rows = [
        params.head(1).with_columns(
            instrument=pl.lit(None, pl.String), name=pl.lit(name), value=pl.lit(value)
        )
        for name, value in given.items()
    ]
    return snapshot_of(world, risk_params=pl.concat([params, *rows]), **changes)


def with_profile(world: World, venue: str, profile: str) -> dict[str, pl.DataFrame]:
    here = pl.col("venue") == venue
    named = pl.when(here).then(pl.lit(profile)).otherwise(pl.col("profile"))
    return {"venues": world.tables["venues"].with_columns(named.alias("profile"))}


def won(result: ReferenceResult, party: str) -> float:
    return math.fsum(round_[party] for round_ in result.ledger)


# ---- lending


def test_half_of_a_debt_is_repaid_against_collateral_and_bonus(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), ETH=1_200.0)
    result = run(stressed)
    # cover 9,600 under 10,000: half the debt, 5,000, for 5,250 of ETH; then 5,400 over 5,000
    assert result.qty[:2] == pytest.approx([10.0 - 4.375, -5_000.0])
    assert result.acted == [1, 0]
    assert result.settled
    assert result.totals["sold"][inst(stressed, ETH)] == pytest.approx(4.375)
    assert won(result, "liquidators") == pytest.approx(250.0)
    assert won(result, "accounts") == pytest.approx(-250.0)
    assert result.status[0] == "touched"


def test_debt_without_collateral_is_its_suppliers_loss(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), ETH=800.0)
    result = run(stressed)
    assert result.qty[:2].tolist() == [0.0, 0.0]
    assert result.totals["repaid_usd"].sum() == pytest.approx(8_000.0 / 1.05)
    assert won(result, "suppliers") == pytest.approx(8_000.0 / 1.05 - 10_000.0)
    assert result.status[0] == "emptied"


def test_debt_that_a_venue_does_not_write_off_stays_under_water(tiny: World) -> None:
    snapshot = snapshot_of(tiny, **with_profile(tiny, "aave-v3", "aave-v2"))
    result = run(shocked(snapshot, ETH=800.0))
    # 8,000 of ETH: halves of 5,000 and 2,500 are repaid, then as much as the last 125 USD pay
    assert result.acted == [1, 1, 1, 0]
    assert result.settled
    assert result.qty[:2] == pytest.approx([0.0, 8_000.0 / 1.05 - 10_000.0])
    assert result.totals["bad_usd"].sum() == 0.0
    assert won(result, "suppliers") == 0.0
    assert result.status[0] == "touched"


@pytest.mark.parametrize(("profile", "acted"), [("aave-v2", [0]), ("aave-v3", [1, 0])])
def test_an_account_found_without_collateral_is_written_off_where_the_venue_does(
    tiny: World, profile: str, acted: list[int]
) -> None:
    backs = (pl.col("account") == 1) & (pl.col("kind").cast(pl.String) == "collateral")
    snapshot = snapshot_of(
        tiny,
        positions=tiny.tables["positions"].filter(~backs),
        **with_profile(tiny, "aave-v3", profile),
    )
    result = run(Stressed.calm(snapshot))
    assert result.acted == acted
    assert result.totals["bad_usd"].sum() == pytest.approx(10_000.0 * acted[0])
    assert result.qty[0] == pytest.approx(-10_000.0 * (1 - acted[0]))


def test_a_vault_loses_the_share_of_a_reserve_that_went_bad(tiny: World) -> None:
    since = tiny.tables["assets"]["ts"][0]
    vault = from_tuples(
        "assets",
        ("asset", "symbol", "kind", "reference", "rate", "sector"),
        [("vUSDC", "vUSDC", "vault_share", "USDC", 1.0, "money")],
        ts=since,
    )
    claim = from_tuples(
        "claims",
        ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty"),
        [("venue", "aave-v3", "asset", "vUSDC", "USDC", "deposit", 30_000.0)],
        seniority=0,
        ts=tiny.ts,
    )
    snapshot = snapshot_of(
        tiny,
        assets=pl.concat([tiny.tables["assets"], vault]),
        claims=pl.concat([tiny.tables["claims"], claim]),
    )
    stressed = shocked(snapshot, ETH=800.0)
    result = run(stressed)
    lost = 10_000.0 - 8_000.0 / 1.05
    left = result.receipt[snapshot.universe.code("asset", "vUSDC")]
    assert left == pytest.approx(1.0 - lost / 50_000.0)


def test_liquidators_carry_no_more_than_their_capacity_a_round(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), ETH=1_200.0).put("capacity_mult", slice(None), 0.02)
    result = run(stressed, Options(impact=Impact.NONE, capacity=True))
    # 2,000 repaid for 1.75 ETH; cover 7,920 of 8,000: again; then 6.5 * 960 = 6,240 over 6,000
    assert result.acted == [1, 1, 0]
    assert result.qty[:2] == pytest.approx([6.5, -6_000.0])


def test_nobody_liquidates_where_gas_costs_more_than_the_bonus_brings(tiny: World) -> None:
    options = Options(impact=Impact.NONE, profitable=True)
    for gas, acted in ((249.0, [1, 0]), (251.0, [0])):
        snapshot = with_numbers(tiny, gas_usd=gas)
        assert run(shocked(snapshot, ETH=1_200.0), options).acted == acted


def test_what_the_protocol_takes_of_the_bonus_is_no_income_of_a_liquidator(tiny: World) -> None:
    options = Options(impact=Impact.NONE, profitable=True)
    for gas, acted in ((149.0, [1, 0]), (151.0, [0])):
        snapshot = with_numbers(tiny, gas_usd=gas, protocol_fee=0.4)
        assert run(shocked(snapshot, ETH=1_200.0), options).acted == acted


def test_a_bidder_in_an_auction_pays_the_penalty_once(tiny: World) -> None:
    options = Options(impact=Impact.NONE, profitable=True)
    gain = 11_300.0 * 0.05
    for gas, acted in ((gain - 1.0, 1), (gain + 1.0, 0)):
        snapshot = with_numbers(tiny, gas_usd=gas, **with_profile(tiny, "aave-v3", "sky"))
        assert run(shocked(snapshot, ETH=1_200.0), options).acted[0] == acted


@pytest.mark.parametrize(("spared", "closed"), [(0.99, 0), (1.01, 1)])
def test_a_liquidator_reckons_with_the_fall_of_its_own_sale(
    tiny: World, spared: float, closed: int
) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=26_000.0)
    # 10,500 USD of BTC for 10,000: along a line down from 1, that pays while qty / (2 d) is less
    # than 500 / 10,500; the pool is 10 BTC deep
    depth = 10_500.0 / 26_000.0 * 10_500.0 / 1_000.0
    stressed = stressed.put("depth_mult", slice(None), depth / 10.0 * spared)
    options = Options(impact=Impact.LINEAR, profitable=True, max_rounds=1)
    assert run(stressed, options).status[2] == ("untouched", "touched")[closed]


@pytest.mark.parametrize(("depth", "pays"), [(8.4, False), (8.6, True)])
def test_a_liquidator_reckons_with_what_was_sold_before_and_with_depth_that_left(
    tiny: World, depth: float, pays: bool
) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=27_500.0)
    stressed = stressed.put("depth_mult", slice(None), depth / 10.0)
    options = Options(
        impact=Impact.LINEAR, profitable=True, withdrawal=1.5, max_rounds=2,
        deleveraging=Deleveraging.NONE,
    )  # fmt: skip
    result = run(stressed, options)
    # account 2 loses its contract first: half a BTC at spot, and depth falls to 1 - 1.5 * 0.3125
    fallen = 27_500.0 * (1.0 - 0.5 / depth)
    assert result.path[1][inst(stressed, BTC)] == pytest.approx(fallen)
    volume = 10_500.0 / fallen / 0.53125
    average = 1.0 - volume / (2.0 * (depth - 0.5))
    assert (10_500.0 * average >= 10_000.0) == pays
    assert (result.status[2] == "touched") == pays


def test_a_protocol_that_takes_all_collateral_credits_the_owner(tiny: World) -> None:
    snapshot = snapshot_of(tiny, **with_profile(tiny, "aave-v3", "compound-v3"))
    result = run(shocked(snapshot, ETH=1_200.0))
    assert result.cash[0] == pytest.approx(12_000.0 * 0.95 - 10_000.0)
    assert result.qty[:2].tolist() == [0.0, 0.0]
    assert won(result, "protocol") == pytest.approx(600.0)
    assert result.totals["cut_usd"].sum() == pytest.approx(600.0)
    assert won(result, "liquidators") == 0.0


def test_a_protocol_that_takes_over_by_itself_needs_no_liquidator(tiny: World) -> None:
    snapshot = with_numbers(tiny, gas_usd=1e6, **with_profile(tiny, "aave-v3", "compound-v3"))
    stressed = shocked(snapshot, ETH=1_200.0)
    none = stressed.put("capacity_mult", slice(None), 1e-6)
    options = Options(impact=Impact.NONE, profitable=True, capacity=True)
    assert run(none, options).qty.tolist() == run(stressed).qty.tolist()
    assert run(none, options).acted == [1, 0]


def test_an_auction_sells_forty_one_minutes_later(tiny: World) -> None:
    snapshot = snapshot_of(tiny, **with_profile(tiny, "aave-v3", "sky"))
    stressed = shocked(snapshot, ETH=1_200.0)
    result = run(stressed)
    assert result.rounds == 42  # 40.5 minutes, rounded up, and the first
    seized = 10_000.0 * 1.13 * 1.05 / 1_200.0
    assert result.totals["sold"][inst(stressed, ETH)] == pytest.approx(seized)
    assert won(result, "protocol") == pytest.approx(1_300.0)
    assert won(result, "liquidators") == pytest.approx(11_300.0 * 0.05)
    early = run(stressed, Options(impact=Impact.NONE, max_rounds=41))
    assert not early.settled
    assert early.totals["sold"][inst(stressed, ETH)] == 0.0  # what was repaid is bought at once


def test_a_ladder_turns_collateral_into_money_on_the_way_down(tiny: World) -> None:
    params = tiny.tables["risk_params"]
    high = (pl.col("instrument") == ETH) & (pl.col("name") == "liquidation_threshold")
    value = pl.when(high).then(0.95).otherwise(pl.col("value"))
    snapshot = snapshot_of(
        tiny,
        risk_params=params.with_columns(value=value),
        **with_profile(tiny, "aave-v3", "crvusd"),
    )
    result = run(shocked(snapshot, ETH=1_100.0))
    top = 10_000.0 / 9.1 * (100 / 99) ** 5
    share = math.log(top / 1_100.0) / (10 * math.log(100 / 99))
    assert result.qty[0] == pytest.approx(10.0 * (1.0 - share))
    assert result.cash[0] == pytest.approx(10.0 * share * 1_100.0 * 0.99)
    assert result.acted == [1, 0]


# ---- contracts, and who pays


def test_a_fund_pays_the_loss_beyond_margin(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=34_000.0)
    result = run(stressed)
    k = inst(stressed, PERP)
    assert result.totals["short_usd"][k] == pytest.approx(1_000.0)
    assert result.insurance.sum() == pytest.approx(0.0, abs=1e-9)
    assert result.totals["sold"][k] == pytest.approx(1.0)
    assert won(result, "counterparties") == pytest.approx(0.0, abs=1e-9)
    assert result.status == ["untouched", "emptied", "untouched", "untouched", "untouched"]


def test_a_winner_is_closed_against_what_no_fund_pays(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=32_000.0)
    result = run(stressed, Options())
    k = inst(stressed, PERP)
    # 3,000 short, 1,000 insured: two thirds of the long are taken from the short at 32,000,
    # who has won 5,333 on them and pays 2,000; the last third is sold, half of it at spot
    assert result.totals["paid_usd"][k] == pytest.approx(2_000.0)
    assert result.cash[3] == pytest.approx(8_000.0 * 2 / 3 - 2_000.0)
    assert result.totals["sold"][k] == pytest.approx(1 / 3)
    fallen = 0.05 + 0.95 * math.exp(-(1 / 6) / 9.5)
    assert result.path[1][k] == pytest.approx(32_000.0 * fallen**2)
    assert result.path[1][inst(stressed, BTC)] == pytest.approx(32_000.0 * fallen)
    average = (0.05 / 6 + 0.95**2 * 10 * (1 - math.exp(-(1 / 6) / 9.5))) * 6
    lost = 32_000.0 / 3 * (1.0 - average**2)
    assert result.totals["impact_usd"][k] == pytest.approx(lost)


@pytest.mark.parametrize(
    ("how", "party"), [(Deleveraging.PRO_RATA, "counterparties"), (Deleveraging.NONE, "venue")]
)
def test_without_ranks_nobody_is_closed(tiny: World, how: Deleveraging, party: str) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=32_000.0)
    result = run(stressed, Options(impact=Impact.NONE, deleveraging=how))
    assert won(result, party) == pytest.approx(-2_000.0)
    assert result.totals["sold"][inst(stressed, PERP)] == pytest.approx(1.0)
    assert result.cash[3] == 0.0


def test_a_fifth_is_closed_of_a_large_position(tiny: World) -> None:
    times = pl.when(pl.col("account") == 2).then(4.0).otherwise(1.0)
    positions = tiny.tables["positions"].with_columns(qty=pl.col("qty") * times)
    snapshot = snapshot_of(tiny, positions=positions)
    stressed = shocked(snapshot, BTC=35_700.0)
    result = run(stressed, Options(impact=Impact.NONE, max_rounds=1))
    # equity 2,800 between two thirds of 3,570 and all of it; 142,800 of notional
    assert result.totals["sold"][inst(stressed, PERP)] == pytest.approx(0.8)
    assert result.cash[1] == pytest.approx(-0.8 * 4_300.0)
    whole = run(shocked(snapshot, BTC=35_500.0))
    assert whole.totals["sold"][inst(stressed, PERP)] == pytest.approx(4.0)
    assert whole.insurance.sum() == pytest.approx(1_000.0 + 2_000.0)  # taken over, rest and all


# ---- prices that come late, or wrong


def test_a_late_oracle_closes_late(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), ETH=1_200.0).put("oracle_lag_us", slice(None), 3 * MINUTE)
    result = run(stressed)
    seen = [row[inst(stressed, ETH)] for row in result.path]
    assert seen == pytest.approx([2_000.0] * 3 + [1_200.0] * 2)
    assert result.acted == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("beat", [0, 5])
def test_a_move_within_the_deviation_is_not_waited_for(tiny: World, beat: int) -> None:
    late = tiny.tables["oracles"].with_columns(
        mode=pl.lit("lagged").cast(tiny.tables["oracles"]["mode"].dtype),
        deviation=0.01, lag_us=0, heartbeat_us=beat * MINUTE,
    )  # fmt: skip
    stressed = shocked(snapshot_of(tiny, oracles=late), ETH=1_990.0)
    result = run(stressed)
    assert result.settled
    assert [row[inst(stressed, ETH)] for row in result.path] == pytest.approx([2_000.0])
    # but a heartbeat tells it while something else, a venue that is down, keeps all waiting
    falling = stressed.put("factor", stressed.universe.code("asset", "BTC"), math.log(0.88))
    down = falling.put(
        "closed_until_us", stressed.universe.code("venue", "hyperliquid"), 6 * MINUTE
    )
    result = run(down)
    assert result.settled
    assert result.acted == [0] * 6 + [1, 0]
    told = [2_000.0] * 5 + [1_990.0] * 3 if beat else [2_000.0] * 8
    assert [row[inst(stressed, ETH)] for row in result.path] == pytest.approx(told)


def test_a_frozen_oracle_thaws(tiny: World) -> None:
    frozen = ORACLE_MODES.index("frozen")
    stressed = shocked(snapshot_of(tiny), ETH=1_200.0).put("oracle_mode", slice(None), frozen)
    assert run(stressed).acted == [0]  # for ever
    result = run(stressed.put("oracle_rounds", slice(None), 2))
    assert result.acted == [0, 0, 1, 0]


def test_a_wrong_price_sells_for_more_than_it_says(tiny: World) -> None:
    stressed = Stressed.calm(snapshot_of(tiny))
    k = inst(stressed, ETH)
    stressed = stressed.put("oracle_mode", k, ORACLE_MODES.index("mis_set"))
    stressed = stressed.put("oracle_factor", k, 0.5).put("oracle_rounds", k, 1)
    result = run(stressed)
    # seen 1,000: cover 8,000 of 10,000, all 10,000 repaid needs 10,500: all 10 ETH go
    assert result.totals["sold"][k] == pytest.approx(10.0)
    assert result.totals["impact_usd"][k] == pytest.approx(10.0 * (1_000.0 - 2_000.0))


def test_a_closed_venue_closes_nobody_until_it_opens(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), ETH=1_200.0)
    stressed = stressed.put("closed_until_us", slice(None), 2 * MINUTE)
    assert run(stressed).acted == [0, 0, 1, 0]


def test_prices_recover_by_a_share_a_round(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=34_000.0)
    result = run(stressed, Options(impact=Impact.EXPONENTIAL, recovery=0.5, max_rounds=3))
    k = inst(stressed, BTC)
    for row, left in ((1, 0.25), (2, 0.125)):
        price = 34_000.0 * (0.05 + 0.95 * math.exp(-left / 9.5))
        assert result.path[row][k] == pytest.approx(price)


def test_depth_withdraws_after_a_fall(tiny: World) -> None:
    stressed = shocked(snapshot_of(tiny), BTC=36_000.0)
    options = Options(impact=Impact.LINEAR, withdrawal=2.0, max_rounds=4)
    calm = run(stressed, options)
    assert calm.acted == [0]
    late = stressed.put("closed_until_us", slice(None), MINUTE)
    falling = late.put("factor", late.universe.code("asset", "BTC"), math.log(0.85))
    result = run(falling, options)
    # depth is down to 1 - 2 * 0.15 = 0.7 when the one BTC is sold a round later
    fallen = 1.0 - 0.5 / 0.7 / 10.0
    assert result.path[2][inst(late, PERP)] == pytest.approx(34_000.0 * fallen**2)


# ---- what owners do


def test_an_owner_brings_in_just_what_restores_the_buffer(tiny: World) -> None:
    answers = Responses(top_up=True)
    result = run(shocked(snapshot_of(tiny), ETH=1_200.0), Options(responses=answers))
    assert result.cash[0] == pytest.approx(1.05 * 10_000.0 - 9_600.0)
    assert result.qty[0] == 10.0


def test_an_owner_sells_collateral_without_a_bonus(tiny: World) -> None:
    answers = Responses(delever=True)
    result = run(shocked(snapshot_of(tiny), ETH=1_200.0), Options(responses=answers))
    assert result.qty[:2] == pytest.approx([7.0, -6_400.0])  # cover 6,720 is 1.05 times that
    assert won(result, "liquidators") == 0.0


def test_who_loses_one_leg_of_a_hedge_closes_the_other(tiny: World) -> None:
    swapped = {ETH: BTC, BTC: ETH}
    positions = tiny.tables["positions"].with_columns(
        instrument=pl.col("instrument").replace(swapped)
    )
    other = pl.when(pl.col("account") == 1).then(0.45).when(pl.col("account") == 3).then(20.0)
    positions = positions.with_columns(
        qty=pl.when(pl.col("kind") == "collateral").then(other).otherwise(pl.col("qty"))
    )
    short = (pl.col("account") == 2) & (pl.col("kind") == "perp")
    positions = positions.with_columns(qty=pl.when(short).then(-1.0).otherwise(pl.col("qty")))
    stressed = shocked(snapshot_of(tiny, positions=positions), BTC=29_000.0)
    options = Options(impact=Impact.NONE, responses=Responses(unwind=True))
    result = run(stressed, options)
    # account 1 held 0.45 BTC against 10,000: half of that is repaid for 5,250 / 29,000 BTC
    closed = 5_250.0 / 29_000.0
    legs = stressed.snapshot.book.inst
    perp = int(np.flatnonzero(legs == inst(stressed, PERP))[0])
    assert result.qty[perp] == pytest.approx(-1.0 + closed)
    assert result.cash[1] == pytest.approx(closed * 11_000.0)
    alone = run(stressed)
    assert alone.qty[perp] == -1.0


# ---- the arithmetic, against the kernels that the prompt uses


def _terms(**rules: Any) -> tuple[closing_kernel.Closing, VenueTerms]:
    columns = venue_columns([ClosingRules(**rules)])
    return columns, VenueTerms({k: column[0].item() for k, column in columns._asdict().items()})


def test_pairs_close_as_at_the_prompt() -> None:
    rng = np.random.default_rng(3)
    for _ in range(800):
        least = float(rng.choice([0.0, 500.0, 1_000.0]))
        columns, terms = _terms(
            mechanism=Mechanism.PAIR,
            close_factor=float(rng.choice([1.0, 0.5])),
            full_below=float(rng.choice([0.0, 0.95])),
            small_usd=float(rng.choice([least, 2_000.0])),
            leftover_usd=least,
            of_all_debt=bool(rng.integers(2)),
            target_health=float(rng.choice([0.0, 1.05])),
            bonus_start=0.8,
            bonus_full_at=float(rng.choice([1.0, 0.85])),
        )
        held = 10 ** rng.uniform(2.0, 5.0)
        owed = held * rng.uniform(0.5, 1.3)
        all_debt = owed * rng.uniform(1.0, 2.0)
        threshold = rng.uniform(0.4, 0.85)
        cover = min(held * threshold * rng.uniform(1.0, 2.0), 0.999 * all_debt)
        values = (cover, all_debt, all_debt, held, owed, threshold, 0.05, 1.0)
        pair = Pair(held, owed, threshold, 1.0, 0.05, cover, all_debt, all_debt)
        expected = closing_kernel.close_pair(0, columns, *values)
        assert reference.close_pair(terms, pair) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rule", ["penalty", "seize_all", "returns_surplus"])
def test_wholes_close_as_at_the_prompt(rule: str) -> None:
    columns, terms = _terms(
        mechanism=Mechanism.WHOLE, **{rule: 0.13 if rule == "penalty" else True}
    )
    for ratio in (0.5, 0.9, 0.95, 1.01, 1.3):
        done = reference.close_whole(terms, 100.0, 100.0 * ratio, 0.07)
        found = (done.seized, done.repaid, done.penalty, done.bad, done.credit)
        assert found == pytest.approx(
            closing_kernel.close_whole(0, columns, 100.0, 100.0 * ratio, 0.07)
        )


@pytest.mark.parametrize("to_health", [0.0, 1.0, 1.02])
def test_slices_are_cut_as_at_the_prompt(to_health: float) -> None:
    columns, terms = _terms(
        mechanism=Mechanism.SLICES, slice=0.2, slice_above_usd=1e5, backstop_below=0.6,
        to_health=to_health, fee=0.01,
    )  # fmt: skip
    for gross in (9e4, 2e5):
        for equity in (-0.1, 0.3, 0.7, 0.95, 1.0):
            asked = 0.03 * gross
            expected = closing_kernel.slice_share(0, columns, equity * asked, asked, gross)
            found = reference.slice_share(terms, equity * asked, asked, gross)
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("model", list(Impact))
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_sales_fetch_what_the_curves_say(model: Impact, levels: int) -> None:
    reach, ratio = np.array([1.0, 3.0, 7.0])[:levels], np.array([0.99, 0.95, 0.9])[:levels]
    depth, daily, scale, floor, clip = 12.0, 80.0, 0.2, 0.3, 0.01
    pools = impact_kernel.Pools(
        *(np.array([x]) for x in (np.int8(model.code), depth, floor, scale, daily, clip)),
        np.array([0, levels, 2 * levels]), np.tile(reach, 2),
        np.concatenate([ratio, 1.0 / ratio]),
    )  # fmt: skip
    bids = tuple(zip(reach.tolist(), ratio.tolist(), strict=True))
    asks = tuple((q, 1.0 / p) for q, p in bids)
    pool = Pool(model, depth, daily, scale, floor, clip, bids, asks)
    for before in (0.0, 0.3, 4.0, 11.0, -0.3, -4.0):
        for sold in (0.4, 3.0, 9.0, -0.5, -3.0):
            price, start = impact_kernel.curve(0, before, pools)
            _, end = impact_kernel.curve(0, before + sold, pools)
            assert pool.price(before) == pytest.approx(price, rel=1e-12)
            expected = (end - start) / sold / price
            assert pool.average(before, sold) == pytest.approx(expected, rel=1e-9)


# ---- a world with everything in it


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    return demo_world().snapshot()


def test_every_account_is_judged_as_the_margins_are(demo: Snapshot) -> None:
    judged = np.array(judge_all(Stressed.calm(demo)))
    expected = margins(demo)
    columns = (expected.cover, expected.asked, expected.equity)
    for found, right in zip(judged.T, columns, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-6)


def test_what_one_party_loses_others_win_in_every_round(demo: Snapshot) -> None:
    roots = np.flatnonzero(demo.universe.reference < 0)
    roots = roots[[demo.universe.assets[k] != "USD" for k in roots]]
    stressed = Stressed.calm(demo).put("factor", roots, math.log(0.75))
    result = run(stressed, Options())
    assert result.settled
    assert result.acted[0] > 500
    for round_ in result.ledger:
        gross = max(map(abs, round_.values()))
        assert abs(math.fsum(round_.values())) <= 1e-12 * max(gross, 1.0)
    unpaid = result.totals["short_usd"].sum() - result.totals["paid_usd"].sum()
    assert unpaid >= 0.0
    assert (result.insurance >= 0.0).all()
    assert (result.backstop >= 0.0).all()
    lost = result.totals["bad_usd"].sum() + result.totals["short_usd"].sum()
    payers = ("insurance", "backstop", "suppliers", "counterparties", "venue")
    borne = math.fsum(-won(result, party) for party in payers)
    fees = result.totals["cut_usd"].sum() - won(result, "protocol")
    assert borne + fees == pytest.approx(lost)


def test_an_oracle_of_exchange_rates_is_blind_to_the_peg(demo: Snapshot) -> None:
    universe = demo.universe
    blind = demo.oracles.mode == ORACLE_MODES.index("exchange_rate")
    blind &= universe.reference[universe.asset_of] >= 0
    tied = int(universe.asset_of[np.flatnonzero(blind)[0]])
    stressed = Stressed.calm(demo).put("factor", tied, math.log(0.8))
    result = run(stressed, Options(max_rounds=1))
    on_it = universe.asset_of == tied
    seen, start = result.path[0], demo.market.mark
    assert seen[on_it & blind] == pytest.approx(start[on_it & blind])
    others = on_it & (demo.oracles.mode == ORACLE_MODES.index("market"))
    assert seen[others] == pytest.approx(0.8 * start[others])
    assert result.market_path[0][on_it] == pytest.approx(0.8 * start[on_it])
    assert others.any()
