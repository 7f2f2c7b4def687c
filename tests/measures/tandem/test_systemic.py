from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import EstimationError, StateError
from undertow.measures.study import Study
from undertow.measures.tandem.capital import deposited
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.systemic import systemic
from undertow.state import Funds, Panel
from undertow.worlds import tiny_world

HOUR = 3_600_000_000
SNAPSHOT = tiny_world().snapshot()


def history_from(
    growth: np.ndarray, prices: dict[str, np.ndarray], *, called: str = "leverage"
) -> LeverageHistory:
    """Leverage that grows exactly so, of nodes that hold ETH and BTC in growing parts."""
    steps, nodes = growth.shape
    ts = SNAPSHOT.ts - HOUR * np.arange(steps, 0, -1)
    names = [f"n{k}" for k in range(nodes)]
    level = Panel.from_arrays(called, "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    panel = Panel.from_arrays("p", "usd", ts, list(prices), np.column_stack(list(prices.values())))
    baskets = {name: {"ETH": 1.0 + k, "BTC": float(nodes - k)} for k, name in enumerate(names)}
    return LeverageHistory.of(level, panel, baskets=baskets, called=called)


def walks(steps: int = 700, seed: int = 1) -> dict[str, np.ndarray]:
    """ETH moves twice as much as BTC and with it; money stands still, but for a little."""
    rng = np.random.default_rng(seed)
    market, own = 0.01 * rng.standard_normal(steps), 0.004 * rng.standard_normal((2, steps))
    moves = {"BTC": market + own[0], "ETH": 2.0 * market + own[1]}
    prices = {asset: np.exp(move.cumsum()) for asset, move in moves.items()}
    return prices | {"USDC": np.exp(1e-5 * rng.standard_normal(steps))}


def pulled(steps: int = 700, seed: int = 5) -> np.ndarray:
    """Growth of four nodes; n1 to n3 share a factor, n0 has none of it."""
    rng = np.random.default_rng(seed)
    growth = rng.standard_normal((steps, 4))
    growth[:, 1:] += rng.standard_normal((steps, 1)) * np.array([0.5, 1.0, 1.5])
    return 0.01 * growth


@pytest.fixture(scope="module")
def study() -> Study:
    return systemic(SNAPSHOT, history_from(pulled(), walks()), reps=99)


def test_nodes_that_share_a_factor_drag_the_others_along_and_a_stranger_does_not(
    study: Study,
) -> None:
    nodes = study.tables["nodes"]
    by = {row["node"]: row for row in nodes.iter_rows(named=True)}
    for tied in ("n2", "n3"):
        assert by[tied]["high"] < 0.0
        assert by[tied]["raw_delta_covar"] < -0.1
    assert by["n0"]["low"] < 0.0 < by["n0"]["high"]
    assert nodes["delta_covar"].is_sorted()
    top = study.headline
    assert top is not None
    assert (top.name, top.subject, top.evidence) == ("delta_covar", nodes["node"][0], "observed")
    assert top.subject in ("n2", "n3")
    assert f"{top.subject} most" in study.says[0]


def test_exposure_to_the_market_grows_with_what_moves_more(study: Study) -> None:
    by = {row["node"]: row for row in study.tables["nodes"].iter_rows(named=True)}
    lost = [by[f"n{k}"]["mes"] for k in range(4)]  # from mostly BTC to mostly ETH
    assert lost == sorted(lost, reverse=True)
    assert all(row["mes_low"] <= row["mes"] <= row["mes_high"] < 0.0 for row in by.values())
    assert by["n0"]["market_tail_steps"] == 35  # 5 % of 699, strictly below
    assert "exposure to the market, not what the node adds" in study.says[1]


def test_deposits_are_what_accounts_have_put_there() -> None:
    universe, found = SNAPSHOT.universe, deposited(SNAPSHOT)
    put = {
        (venue, asset): found[v, a]
        for v, venue in enumerate(universe.venues)
        for a, asset in enumerate(universe.assets)
        if found[v, a]
    }
    assert put == pytest.approx(
        {
            ("aave-v3", "ETH"): 20_000.0,
            ("aave-v3", "BTC"): 40_000.0,
            ("aave-v3", "USDC"): 50_000.0,
            ("hyperliquid", "USDC"): 15_000.0,
        }
    )


def funded(**amounts: dict[str, float]) -> Funds:
    """Funds of the tiny world's venues, by column and venue; nothing where not said."""
    columns = {
        name: np.array([amounts.get(name, {}).get(v, 0.0) for v in SNAPSHOT.universe.venues])
        for name in ("insurance", "backstop", "treasury")
    }
    return replace(SNAPSHOT.funds, **columns)


def test_capital_that_is_lacking_is_the_textbook_sum() -> None:
    """Of aave-v3: k D - (1 - k)(1 - LRMES) W, with LRMES from the beta of its basket."""
    funds = funded(insurance={"aave-v3": 1_000.0, "hyperliquid": 2_000.0},
                   treasury={"aave-v3": 500.0})  # fmt: skip
    study = systemic(replace(SNAPSHOT, funds=funds), history_from(pulled(), walks()), reps=19)
    rows = {row["venue"]: row for row in study.tables["shortfall"].iter_rows(named=True)}
    aave, perps = rows["aave-v3"], rows["hyperliquid"]
    assert (aave["equity_usd"], aave["liabilities_usd"]) == pytest.approx((1_500.0, 110_000.0))
    # a market of 1.5 parts: 40/110 in BTC (1), 20/110 in ETH (2)
    assert aave["beta"] == pytest.approx((40 + 2 * 20) / 110 / 1.5, abs=0.02)
    assert aave["lrmes"] == pytest.approx(1.0 - 0.6 ** aave["beta"])
    assert aave["lrmes_low"] < aave["lrmes"] < aave["lrmes_high"]
    lacks = 0.08 * 110_000 - 0.92 * (1.0 - aave["lrmes"]) * 1_500.0
    assert aave["shortfall_usd"] == pytest.approx(lacks)
    assert perps["lrmes"] == pytest.approx(0.0, abs=1e-3)  # all of it money
    assert perps["shortfall_usd"] == pytest.approx(0.08 * 15_000 - 0.92 * 2_000.0, abs=1.0)
    assert (aave["share"], perps["share"]) == (1.0, 0.0)
    total = study.reading("capital_shortfall_usd")
    assert total.value == pytest.approx(lacks)
    assert (total.unit, total.evidence, total.ts) == ("usd", "modelled", SNAPSHOT.ts)
    assert study.reading("capital_shortfall_usd", "hyperliquid").value < 0.0
    assert "1 of 2 venues would lack capital" in study.says[2]


def test_a_venue_of_whose_funds_nothing_is_known_is_told_apart_and_in_no_total() -> None:
    funds = funded(insurance={"hyperliquid": 200.0})
    study = systemic(replace(SNAPSHOT, funds=funds), history_from(pulled(), walks()), reps=19)
    rows = {row["venue"]: row for row in study.tables["shortfall"].iter_rows(named=True)}
    assert rows["aave-v3"]["shortfall_usd"] is None
    assert study.left_out["venue aave-v3"].startswith("no insurance fund")
    assert study.reading("capital_unknown_usd").value == pytest.approx(0.08 * 110_000)
    only = study.reading("capital_shortfall_usd").value
    assert only == pytest.approx(rows["hyperliquid"]["shortfall_usd"])
    assert "which is in no total" in study.says[-1]
    none = systemic(replace(SNAPSHOT, funds=funded()), history_from(pulled(), walks()), reps=19)
    assert none.reading("capital_shortfall_usd").value is None
    assert none.says[2].startswith("No venue's shortfall can be told")


def test_every_number_can_be_published_and_comes_again(study: Study) -> None:
    assert tuple(study.to_polars().columns) == schema.table("readings").column_names
    again = systemic(SNAPSHOT, history_from(pulled(), walks()), reps=99)
    assert again.to_polars().equals(study.to_polars())
    nodes, short = study.tables["nodes"], study.tables["shortfall"]
    wanted = ("node", "covar", "delta_covar", "low", "high", "mes", "mes_low", "mes_high")
    assert tuple(nodes.columns[: len(wanted)]) == wanted
    wanted = ("venue", "equity_usd", "liabilities_usd", "lrmes", "shortfall_usd", "share")
    assert tuple(short.columns[: len(wanted)]) == wanted
    for table in (nodes, short):
        assert not table.select(pl.selectors.float().is_nan().any()).transpose().to_series().any()
    assert all(said.endswith(".") and "nan" not in said for said in study.says)


def test_only_what_was_known_at_the_snapshot_is_used() -> None:
    growth, prices = pulled(), walks()
    history = history_from(growth, prices)
    later = replace(SNAPSHOT, ts=int(history.ts[-101]))
    cut = systemic(later, history, reps=19)
    same = systemic(later, history.until(later.ts), reps=19)
    assert cut.to_polars().equals(same.to_polars())
    assert max(r.ts for r in cut.readings) == later.ts
    with pytest.raises(StateError, match="0 instants of leverage were known"):
        systemic(replace(SNAPSHOT, ts=1), history)


def test_two_short_nodes_are_told_by_their_prices_alone() -> None:
    short = systemic(SNAPSHOT, history_from(pulled(75)[:, :2], walks(75)), reps=19)
    assert short.says[0].startswith("With whom others fall cannot be told")
    nodes = short.tables["nodes"]
    assert nodes["delta_covar"].null_count() == 2
    assert nodes["raw_delta_covar"].null_count() == 0
    assert nodes["mes"].null_count() == 0
    assert "too short" in short.left_out["n0"]


def test_proxies_keep_their_name_and_impossible_shares_are_refused() -> None:
    history = history_from(pulled(300), walks(300), called="utilisation")
    study = systemic(SNAPSHOT, history, reps=19)
    words = (*study.says, study.title, *(r.definition.split(" (")[0] for r in study.readings))
    assert not any("leverage" in said for said in words)
    for knob, value in (("q", 0.6), ("fall", 1.0), ("level", 0.0), ("k", 1.5)):
        with pytest.raises(EstimationError, match=knob):
            systemic(SNAPSHOT, history, reps=19, **{knob: value})
