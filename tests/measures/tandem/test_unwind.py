"""One asset falls alone: worked by hand, held to the cascade itself, and beside history."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.fanout import Threads
from undertow.measures.study import Study
from undertow.measures.tandem.agreement import agreed
from undertow.measures.tandem.falls import CHANNELS
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.unwind import unwind
from undertow.rules.leverage import Exposures
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel
from undertow.stress import Impact, Options, Plan, Scenario, run_cascade, settle
from undertow.stress.shock import Price
from undertow.worlds import demo_world, tiny_world
from undertow.worlds.frames import from_tuples

HOUR = 3_600_000_000
DEEP = Options(impact=Impact.NONE)


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    return demo_world().snapshot()


@pytest.fixture(scope="module")
def assets(demo: Snapshot) -> Study:
    return unwind(demo)


def book_of(held: list[tuple[object, ...]]) -> Snapshot:
    """The tiny world with other positions: account 3 stands at the perp venue, others lend."""
    world = tiny_world()
    keys = sorted({row[0] for row in held})
    rows = [
        (k, "hyperliquid" if k == 3 else "aave-v3", f"0x{k}", "cross", "cross", k) for k in keys
    ]
    names = ("account", "venue", "label", "margin_group", "mode", "owner")
    columns = ("account", "instrument", "kind", "qty", "entry")
    tables = {
        "accounts": from_tuples("accounts", names, rows, ts=world.ts, category=None),
        "positions": from_tuples("positions", columns, held, ts=world.ts),
    }
    return Snapshot.from_tables({**world.tables, **tables}, world.ts)


@pytest.fixture(scope="module")
def two() -> Snapshot:
    """One borrower against ETH, one against BTC and ETH, and a trader of BTC who owes little."""
    return book_of(
        [
            (1, "aave-v3:ETH", "collateral", 10.0, None),
            (1, "aave-v3:USDC", "debt", -15_000.0, None),
            (2, "aave-v3:BTC", "collateral", 0.5, None),
            (2, "aave-v3:ETH", "collateral", 5.0, None),
            (2, "aave-v3:USDC", "debt", -22_000.0, None),
            (3, "hyperliquid:BTC/USDC:USDC", "perp", 1.0, 40_000.0),
            (3, "hyperliquid:USDC", "cash", 50_000.0, None),
        ]
    )


def cells(study: Study) -> dict[tuple[str, str], float]:
    rows = study.tables["matrix"].select("shocked", "node", "share").iter_rows()
    return {(shocked, node): share for shocked, node, share in rows}


def usd(study: Study, shocked: str, node: str) -> dict[str, float]:
    table = study.tables["losses"].filter(pl.col("shocked") == shocked, pl.col("node") == node)
    return dict(table.filter(pl.col("usd") != 0.0).select("channel", "usd").iter_rows())


def require_publishable(study: Study) -> None:
    assert study.to_polars().columns == list(schema.table("readings").column_names)
    for table in study.tables.values():
        floats = table.select(pl.selectors.float())
        assert not floats.select(pl.all().is_nan().any()).transpose().to_series().any()
    assert all(said.endswith(".") and " nan" not in said for said in study.says)


def test_a_fall_of_ether_unwinds_bitcoin_through_the_account_that_holds_both(two: Snapshot) -> None:
    """Worked by hand, ETH from 2,000 to 1,500.

    The first borrower has 15,000 of cover at 0.8 against 15,000 owed: all 10 ETH are taken. The
    second has 15,000 + 6,000 against 22,000, a health of 0.95 and more, so half may be repaid:
    11,000 for 11,550 of the larger collateral, BTC.
    """
    study = unwind(two, options=DEEP)
    assert usd(study, "ETH", "ETH") == pytest.approx({"own price": 20_000.0})
    assert usd(study, "ETH", "BTC") == pytest.approx({"shared account": 11_550.0}, rel=1e-6)
    share = cells(study)
    assert share["ETH", "ETH"] == pytest.approx(20_000.0 / 30_000.0)
    assert share["ETH", "BTC"] == pytest.approx(11_550.0 / 60_000.0, rel=1e-6)
    assert study.headline is not None
    assert study.headline.evidence == "modelled"
    both = 0.5 * (share["ETH", "BTC"] + share["BTC", "ETH"])
    assert study.headline.value == pytest.approx(both)


def test_the_matrix_is_what_single_cascades_leave_behind(demo: Snapshot, assets: Study) -> None:
    settled = settle(Plan.of(demo)).plan
    book, seen = settled.snapshot.book, Exposures.of(settled.snapshot)
    size = seen.outright + seen.notional + seen.delta + seen.owed
    asset = demo.universe.asset_of[book.inst]
    scenario = Scenario(name="x", shocks=(Price(asset="ETH", move=-0.25),))
    ran = run_cascade(settled, scenario, settle=False)
    lost = size * (1.0 - ran.remaining / np.where(book.qty == 0.0, 1.0, book.qty))
    for node in ("BTC", "ETH", "wstETH"):
        here = asset == demo.universe.code("asset", node)
        expected = lost[here & (book.qty != 0.0)].sum() / size[here].sum()
        assert cells(assets)["ETH", node] == pytest.approx(expected, rel=1e-9), node


def test_channels_add_up_to_the_matrix_and_shares_stay_shares(assets: Study) -> None:
    losses = assets.tables["losses"]
    assert losses.columns == ["shocked", "node", "channel", "share", "usd"]
    assert set(losses["channel"]) <= set(CHANNELS)
    sums = losses.group_by("shocked", "node").agg(pl.col("share").sum())
    share = cells(assets)
    for shocked, node, total in sums.iter_rows():
        assert total == pytest.approx(share[shocked, node], abs=1e-9)
    assert min(share.values()) >= 0.0
    assert max(share.values()) <= 1.0
    spill = assets.tables["channels"]["spill"].sum()
    assert spill == pytest.approx(assets.reading("tandem.spill").value)
    require_publishable(assets)


def test_what_follows_an_asset_falls_by_the_tie_and_never_the_other_way(assets: Study) -> None:
    assert usd(assets, "ETH", "wstETH")["tie"] > 0.0
    assert "tie" not in usd(assets, "wstETH", "ETH")
    assert "own price" not in usd(assets, "ETH", "wstETH")


def test_money_and_what_nobody_holds_are_left_out_with_a_reason(assets: Study) -> None:
    assert "money" in assets.left_out["USDC"]
    assert assets.left_out["wETH"] == "nothing is held or owed in it"
    assert not {"USDC", "wETH"} & set(assets.tables["matrix"]["node"])


def test_only_what_venues_would_see_fall_is_let_fall(demo: Snapshot, assets: Study) -> None:
    """Staked ether is taken at its exchange rate everywhere; wrapped bitcoin is not."""
    matrix = assets.tables["matrix"]
    assert set(matrix["shocked"]) == {"BTC", "DOGE", "ETH", "LINK", "SOL", "WBTC"}
    for name in ("stETH", "wstETH", "wwwETH"):
        assert "exchange rate" in assets.left_out[name]
        assert matrix.filter(pl.col("node") == name, pl.col("share") > 0.0).height >= 1
    assert "a receipt of USD, which is money" in assets.left_out["vUSDC"]
    assert "vUSDC" not in set(matrix["node"])
    losses = assets.tables["losses"]
    assert losses.height == matrix.height * len(CHANNELS)
    assert not losses["share"].null_count()
    share = cells(assets)
    off = [value for (a, b), value in share.items() if a != b]
    assert assets.headline.value == pytest.approx(np.mean(off))
    assert "stETH, wstETH and wwwETH did not" in assets.says[1]
    market = unwind(demo, options=Options(oracles=False))
    assert "wstETH" in set(market.tables["matrix"]["shocked"])  # once venues look at the market


def test_without_impact_nothing_is_closed_through_impact(demo: Snapshot) -> None:
    study = unwind(demo, options=DEEP)
    losses = study.tables["losses"]
    assert not losses.filter(pl.col("channel") == "impact")["usd"].abs().max()
    assert study.reading("tandem.spill", "impact").value == pytest.approx(0.0, abs=1e-12)


def test_venues_and_sectors_unwind_too(demo: Snapshot) -> None:
    for by in ("venue", "sector"):
        study = unwind(demo, by=by)
        assert study.tables["matrix"]["shocked"].n_unique() == 6
        assert max(cells(study).values()) <= 1.0
        require_publishable(study)


def test_a_fall_that_calls_nobody_is_said_to_unwind_nothing(two: Snapshot) -> None:
    study = unwind(two, fall=1e-6)
    assert study.says[0].startswith("Nothing unwinds")
    assert study.reading("tandem.spill").value == 0.0
    assert study.tables["losses"]["share"].to_list() == [0.0] * (2 * 2 * len(CHANNELS))
    require_publishable(study)


def test_what_cannot_be_asked_is_refused(two: Snapshot) -> None:
    with pytest.raises(StateError, match="fall was 1"):
        unwind(two, fall=1.2)
    with pytest.raises(StateError, match="no division by 'colour'"):
        unwind(two, by="colour")
    with pytest.raises(StateError, match="no asset that could fall"):
        unwind(book_of([(1, "aave-v3:USDC", "collateral", 10.0, None)]))


def history_of(correlation: np.ndarray, names: list[str], *, steps: int = 600) -> LeverageHistory:
    """Growth with a given correlation, and prices that have nothing to do with it."""
    rng = np.random.default_rng(5)
    root = np.linalg.cholesky(correlation)
    growth = 0.01 * rng.standard_normal((steps, len(names))) @ root.T
    moves = 0.01 * rng.standard_normal((steps, len(names)))
    ts = HOUR * np.arange(1, steps + 1)
    level = Panel.from_arrays("leverage", "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    prices = Panel.from_arrays("prices", "usd", ts, names, np.exp(moves.cumsum(axis=0)))
    return LeverageHistory.of(level, prices)


def test_a_history_tied_as_venues_unwind_agrees_and_one_tied_at_random_does_not(
    demo: Snapshot,
) -> None:
    plain = unwind(demo, by="venue")
    wide = plain.tables["matrix"].pivot(on="node", index="shocked", values="share")
    share = wide.drop("shocked").to_numpy()
    names = [name for name in wide.columns if name != "shocked"]
    unit = share / np.sqrt((share**2).sum(axis=0))
    alike = unit.T @ unit
    spread = (alike - alike.min()) / (1.0 - alike.min())
    tied = 0.05 * np.eye(len(names)) + 0.95 * _correlation(spread**2)
    agreeing = unwind(demo, by="venue", history=history_of(tied, names))
    found = agreeing.tables["agreement"].row(0, named=True)
    assert found["statistic"] == "spearman"
    assert found["value"] > 0.6
    assert found["p_value"] < 0.02
    assert any("agree: rank correlation" in said for said in agreeing.says)
    assert agreeing.tables["compared"].height == len(names) * (len(names) - 1)
    require_publishable(agreeing)
    loose = unwind(demo, by="venue", history=history_of(np.eye(len(names)), names))
    assert loose.tables["agreement"]["p_value"][0] > 0.05
    assert any("no more than chance" in said for said in loose.says)


def _correlation(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    raised = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    size = np.sqrt(np.diag(raised))
    return raised / size[:, None] / size


def test_too_few_nodes_in_common_cannot_be_held_against_history(two: Snapshot) -> None:
    study = unwind(two, history=history_of(np.eye(2), ["BTC", "ETH"], steps=100))
    assert study.tables["agreement"]["reason"][0] == "only 2 nodes in both; four are needed"
    assert study.reading("tandem.agreement").value is None
    assert "cannot be told" in study.says[-1]
    require_publishable(study)


def test_agreement_of_a_matrix_with_itself_is_whole_and_its_p_value_keeps_its_size() -> None:
    rng = np.random.default_rng(0)
    closed = rng.uniform(size=(8, 8))
    same = agreed(closed, np.exp(closed), np.random.default_rng(1), 199)
    assert same[0] == pytest.approx(1.0)
    assert same[2] == pytest.approx(1.0)
    assert same[1] == same[3] == pytest.approx(1 / 200)
    p = [
        agreed(closed, rng.uniform(size=(8, 8)), np.random.default_rng(k), 59)[1] for k in range(40)
    ]
    assert np.mean(np.array(p) < 0.1) < 0.25


def test_where_it_runs_changes_nothing(two: Snapshot) -> None:
    alone, beside = unwind(two), unwind(two, executor=Threads(2))
    assert alone.as_json() == beside.as_json()
