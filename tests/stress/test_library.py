"""The packaged replays load, cite what they know, and run on any snapshot."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import (
    Outcome,
    Plan,
    PricingMap,
    load_scenario,
    run_cascade,
    scenario_names,
)
from undertow.stress.scenario import Certainty
from undertow.worlds import World, demo_world, tiny_world

EVENTS = {
    "2020-03-12", "2021-05-19", "2022-05-ust", "2022-06-steth", "2022-11-09-ftx", "2022-11-22-crv",
    "2023-03-11-usdc", "2024-08-05", "2025-10-10", "2025-11-stream", "2026-03-10-capo",
    "2026-04-18-rseth",
}  # fmt: skip


def run_all(world: World) -> dict[str, bool]:
    """Apply every replay; which of them did something."""
    snapshot = world.snapshot()
    did = {}
    calm = PricingMap.of(snapshot).prices(np.zeros(len(snapshot.universe.instruments)))
    assert (calm == snapshot.market.mark).all()
    for name in scenario_names():
        scenario = load_scenario(name)
        after = scenario.apply(snapshot)
        pricing = PricingMap.of(after.snapshot)
        price = pricing.prices(
            pricing.moves(after.factor, after.basis),
            vol_mult=after.vol_mult,
            vol_shift=after.vol_shift,
            receipt=pricing.receipts(after.receipt),
        )
        assert np.isfinite(price).all()
        assert (price >= 0.0).all()
        left_out = [note for note in after.notes if note.startswith("left out")]
        betas = [note for note in left_out if "the beta of" in note]
        did[name] = len(left_out) - len(betas) < len(scenario.shocks)
    return did


def test_every_event_is_there_oldest_first() -> None:
    names = scenario_names()
    assert set(names) == EVENTS
    days = [load_scenario(name).date for name in names]
    assert days == sorted(days)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_replay_is_dated_cites_facts_and_runs_anywhere(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.date is not None
    assert str(scenario.date).startswith(name[:7])
    assert len(scenario.facts) >= 3
    assert any(fact.certainty is Certainty.CITED for fact in scenario.facts)
    assert all(fact.source and fact.what for fact in scenario.facts)
    assert scenario.shocks
    assert all(shock.optional for shock in scenario.shocks)


def test_replays_run_on_the_tiny_world() -> None:
    did = run_all(tiny_world())
    absent = {"2022-11-22-crv", "2025-11-stream", "2026-03-10-capo"}
    assert {name for name, acted in did.items() if not acted} == absent


def test_replays_run_on_a_world_with_options_and_pegs(market_world: World) -> None:
    did = run_all(market_world)
    assert {name for name, acted in did.items() if not acted} == {"2022-11-22-crv"}


@pytest.mark.slow
def test_replays_run_on_the_demo_world() -> None:
    did = run_all(demo_world())
    assert {name for name, acted in did.items() if not acted} == {"2022-11-22-crv"}


@pytest.mark.parametrize(
    ("name", "asset", "fall"),
    [
        ("2020-03-12", "ETH", 0.43),
        ("2020-03-12", "BTC", 0.39),
        ("2021-05-19", "ETH", 0.43),
        ("2022-06-steth", "ETH", 0.42),
        ("2022-11-09-ftx", "BTC", 0.22),
        ("2024-08-05", "ETH", 0.214),
        ("2025-10-10", "BTC", 0.12),
    ],
)
def test_a_replay_moves_prices_by_what_it_cites(
    wide: Snapshot, name: str, asset: str, fall: float
) -> None:
    factor = load_scenario(name).apply(wide).factor
    moved = exp(factor[wide.universe.code("asset", asset)]) - 1.0
    assert moved == pytest.approx(-fall, abs=2e-3)


def test_the_capped_oracle_shows_what_the_cap_allowed(wide: Snapshot) -> None:
    after = load_scenario("2026-03-10-capo").apply(wide)
    inst = wide.universe.code("instrument", "aave-v3:wstETH")
    assert after.oracle_factor[inst] == pytest.approx(1.0 - 0.0285)
    assert np.count_nonzero(after.oracle_factor != 1.0) == 1
    assert not after.factor.any()


def short_of_crv() -> Snapshot:
    """The loan of November 2022 alone: 92 m CRV owed against 63.6 m USDC, CRV at 0.464 USD."""
    world = tiny_world()
    tables = dict(world.present)

    def put(table: str, names: tuple[str, ...], rows: list[tuple[object, ...]], *, keep: bool,
            **more: object) -> None:  # fmt: skip
        first = tables[table].head(1).select(pl.exclude(*names, *more))
        new = pl.DataFrame(rows, schema=list(names), orient="row")
        new = new.with_columns(**{name: pl.lit(value) for name, value in more.items()})
        new = new.join(first, how="cross").select(tables[table].columns)
        new = new.cast(dict(tables[table].schema))
        tables[table] = pl.concat([tables[table], new]) if keep else new

    put("assets", ("asset", "symbol", "sector"), [("CRV", "CRV", "finance")], keep=True)
    put("venues", ("venue", "kind"), [("books", "spot")], keep=True, profile=None, chain=None)
    named = [("aave-v3:CRV", "aave-v3", "CRV", "reserve"), ("books:CRV", "books", "CRV", "spot")]
    put("instruments", ("instrument", "venue", "symbol", "kind"), named, keep=True, asset="CRV")
    prices = [("aave-v3:CRV", "oracle", 0.464), ("books:CRV", "mark", 0.464)]
    put("prices", ("instrument", "kind", "price"), prices, keep=True)
    sides = [("books:CRV", side, 2e9) for side in ("bid", "ask")]
    put("depth", ("instrument", "side", "qty"), sides, keep=True)
    terms = [("ltv", 0.5), ("liquidation_threshold", 0.6), ("liquidation_bonus", 0.05)]
    put("risk_params", ("name", "value"), terms, keep=True, instrument="aave-v3:CRV")
    money = (pl.col("instrument") == "aave-v3:USDC") & (pl.col("name") == "liquidation_threshold")
    tables["risk_params"] = tables["risk_params"].with_columns(
        value=pl.when(money).then(0.88).otherwise(pl.col("value"))
    )
    put("oracles", ("venue", "instrument"), [("aave-v3", "aave-v3:CRV")], keep=True)
    put("reserves", ("instrument", "supplied", "borrowed"), [("aave-v3:CRV", 1.2e8, 9.2e7)],
        keep=True)  # fmt: skip
    put("venue_funds", ("amount_usd",), [(1e9,)], keep=False)
    put("accounts", ("account",), [(1,)], keep=False, owner=1)
    legs = [("aave-v3:USDC", "collateral", 6.36e7), ("aave-v3:CRV", "debt", -9.2e7)]
    put("positions", ("instrument", "kind", "qty"), legs, keep=False, account=1, entry=None)
    for name in ("claims", "free_assets"):
        tables[name] = tables[name].clear()
    return Snapshot.from_tables(tables, world.ts)


def test_a_short_in_crv_is_closed_and_leaves_bad_debt() -> None:
    scenario = load_scenario("2022-11-22-crv")
    found = run_cascade(short_of_crv(), scenario, check=True)
    k = found.plan.snapshot.universe.code("instrument", "aave-v3:CRV")
    owed = 9.2e7 * (1.0 + 24.0 * 0.000685) * 0.464 * 1.45
    # the collateral of 63.6 m pays for itself less the bonus of 5 %; the rest is the lenders' loss
    assert found.outcome is Outcome.SETTLED
    assert found.bad.sum() == pytest.approx(owed - 6.36e7 / 1.05)
    assert found.closed.sum() == pytest.approx(6.36e7)
    assert found.settled is None
    assert found.final[k] > found.shocked[k]  # who repays has to buy it


def test_an_unknown_replay_is_answered_with_the_nearest() -> None:
    with pytest.raises(StateError, match=r"did you mean .*2025-10-10"):
        load_scenario("2025-10-11")


def test_replays_come_to_rest_and_how_long_a_round_lasts_does_not_matter() -> None:
    plan = Plan.of(demo_world().snapshot())
    for name in scenario_names():
        found = run_cascade(plan, load_scenario(name), trace=False)
        assert found.outcome is Outcome.SETTLED, name
        if name == "2020-03-12":  # each wave of sales is seen half an hour late, or an hour
            assert found.rounds * found.options.round_us > 2 * 3_600_000_000
            assert found.acted[64:].sum() > 0
            slow = replace(found.options, round_us=300_000_000, max_rounds=128)
            again = run_cascade(plan, load_scenario(name), slow, trace=False)
            assert again.outcome is Outcome.SETTLED
            assert again.closed.sum() == pytest.approx(found.closed.sum(), rel=0.01)
            assert again.insolvency_usd == pytest.approx(found.insolvency_usd, rel=0.01)
