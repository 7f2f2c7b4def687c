"""Joint draws: the same by index, and with the dependence that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel, Universe
from undertow.stress import PricingMap
from undertow.stress.assumed import assumed_correlation, assumed_vols
from undertow.stress.draws import Gaussian, Given, Streams, StudentCopula, assumed_draws
from undertow.stress.history import FactorHistory, history_from_panel
from undertow.stress.resample import FilteredHistorical, Historical
from undertow.worlds import History, World, build_world, tiny_world

SIZE = 5
RNG = np.random.default_rng(11)
LOADING = RNG.standard_normal((SIZE, SIZE))
COVARIANCE = LOADING @ LOADING.T + np.eye(SIZE)
CORRELATION = COVARIANCE / np.sqrt(np.outer(np.diag(COVARIANCE), np.diag(COVARIANCE)))
SCALE = np.array([0.05, 0.03, 0.1, 0.001, 0.0])
PAST = RNG.standard_t(4, (400, SIZE)) @ LOADING.T * 0.01
DRAWS = {
    "gaussian": Gaussian.of(SCALE, CORRELATION),
    "t": StudentCopula.of(SCALE, CORRELATION),
    "empirical": StudentCopula.of(SCALE, CORRELATION, history=PAST),
    "given": Given.of(PAST[:7]),
    "historical": Historical.of(PAST),
    "blocks": Historical.of(PAST, horizon=10, block=4),
    "filtered": FilteredHistorical.of(PAST),
    "filtered path": FilteredHistorical.of(PAST, horizon=5, block=2),
}


@pytest.mark.parametrize("name", DRAWS)
@given(
    seed=st.integers(0, 2**63),
    start=st.integers(0, 10**12),
    count=st.integers(1, 12),
    data=st.data(),
)
def test_a_scenario_is_the_same_in_every_batch(
    name: str, seed: int, start: int, count: int, data: Any
) -> None:
    draws = DRAWS[name]
    whole = draws.draw(seed, start, count)
    assert whole.shape == (count, SIZE)
    assert np.isfinite(whole).all()
    row = data.draw(st.integers(0, count - 1))
    assert draws.draw(seed, start + row, 1)[0].tobytes() == whole[row].tobytes()
    cut = data.draw(st.integers(0, count))
    parts = [draws.draw(seed, start, cut), draws.draw(seed, start + cut, count - cut)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", [name for name in DRAWS if name != "given"])
def test_another_seed_or_index_draws_something_else(name: str) -> None:
    first = DRAWS[name].draw(1, 0, 50)
    assert (first != DRAWS[name].draw(2, 0, 50)).any()
    assert len(np.unique(first[:, 0])) > 40


def test_a_stream_is_a_counter_of_the_seed_and_nothing_else() -> None:
    key = np.random.SeedSequence(9).generate_state(2, np.uint64)
    streams = Streams(9)
    for index in (5, 0, 2**40, 5):
        fresh = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))
        wound = streams.of(index)
        assert (fresh.standard_normal(9) == wound.standard_normal(9)).all()
        assert fresh.integers(0, 7) == wound.integers(0, 7)  # leaves half a word behind
        assert fresh.chisquare(3.0) == wound.chisquare(3.0)


@pytest.mark.parametrize("name", ["gaussian", "t", "empirical"])
def test_the_planted_correlation_and_scale_come_back(name: str) -> None:
    drawn = DRAWS[name].draw(3, 0, 40_000)
    moving = SCALE > 0
    assert (drawn[:, ~moving] == 0.0).all()
    rank = stats.spearmanr(drawn[:, moving]).statistic
    planted = CORRELATION[np.ix_(moving, moving)]
    if name == "gaussian":
        found = np.corrcoef(drawn[:, moving].T)
        assert np.abs(found - planted).max() < 0.02
        assert np.abs(rank - 6.0 / np.pi * np.arcsin(planted / 2.0)).max() < 0.02
    else:  # rank correlations of an elliptical copula depend on its correlation through tau
        tau = stats.kendalltau(drawn[:6_000, 0], drawn[:6_000, 1]).statistic
        assert tau == pytest.approx(2.0 / np.pi * np.arcsin(planted[0, 1]), abs=0.03)
    spread = drawn.std(axis=0)
    assert spread[moving] == pytest.approx(SCALE[moving], rel=0.06)


def test_the_tails_of_a_t_copula_come_together_and_those_of_a_normal_do_not() -> None:
    pair, dof, level = np.array([[1.0, 0.5], [0.5, 1.0]]), 3.0, 0.005
    count = 60_000

    def together(draws: Any) -> float:
        drawn = draws.draw(4, 0, count)
        low = drawn < np.quantile(drawn, level, axis=0)
        return float(low.all(axis=1).mean() / level)

    limit = 2.0 * stats.t.cdf(-np.sqrt((dof + 1.0) * 0.5 / 1.5), dof + 1.0)
    assert together(StudentCopula.of([0.1, 0.1], pair, dof=dof)) == pytest.approx(limit, abs=0.07)
    assert together(Gaussian.of([0.1, 0.1], pair)) < 0.6 * limit


def test_marginals_are_t_or_those_of_the_past() -> None:
    t = StudentCopula.of([1.0], [[1.0]], dof=5.0).draw(5, 0, 20_000)[:, 0]
    assert stats.kstest(t / np.sqrt(3.0 / 5.0), stats.t(5.0).cdf).pvalue > 0.001
    past = np.exp(RNG.standard_normal((500, 1)))  # skewed
    drawn = StudentCopula.of([2.0], [[1.0]], history=past).draw(5, 0, 20_000)[:, 0]
    standard = (past[:, 0] - past.mean()) / past.std()
    for level in (0.01, 0.25, 0.5, 0.9, 0.99):
        assert np.quantile(drawn, level) == pytest.approx(
            2.0 * np.quantile(standard, level), abs=0.15
        )


def test_a_historical_scenario_is_a_day_that_was() -> None:
    days = {row.tobytes() for row in PAST}
    drawn = DRAWS["historical"].draw(6, 0, 200)
    assert all(row.tobytes() in days for row in drawn)


def test_a_block_is_a_run_of_days_that_were() -> None:
    drawn = Historical.of(PAST, horizon=4, block=4).draw(7, 0, 100)
    ring = np.concatenate([PAST, PAST[:3]])
    runs = np.zeros((len(PAST), SIZE))
    for step in range(4):
        runs += ring[step : step + len(PAST)]
    known = {row.tobytes() for row in runs}
    assert all(row.tobytes() in known for row in drawn)


def test_filtered_shocks_are_scaled_to_the_volatility_of_today() -> None:
    rng = np.random.default_rng(8)
    calm, wild = 0.01 * rng.standard_normal((500, 1)), 0.05 * rng.standard_normal((60, 1))
    after = FilteredHistorical.of(np.concatenate([calm, wild])).draw(1, 0, 5_000)
    before = FilteredHistorical.of(np.concatenate([wild, calm])).draw(1, 0, 5_000)
    assert after.std() == pytest.approx(0.05, rel=0.3)
    assert before.std() == pytest.approx(0.01, rel=0.3)
    plain = Historical.of(np.concatenate([calm, wild])).draw(1, 0, 5_000)
    assert before.std() < plain.std() < after.std()


def test_the_filter_is_the_recursion_of_its_reference() -> None:
    found = FilteredHistorical.of(PAST, decay=0.9, burn_in=10)
    variance = np.mean(PAST[:10, 0] ** 2)
    shocks = []
    for move in PAST[10:, 0]:
        shocks.append(move / np.sqrt(variance))
        variance = 0.9 * variance + 0.1 * move**2
    assert found.variance[0] == pytest.approx(variance, rel=1e-12)
    assert found.shocks[:, 0] == pytest.approx(np.array(shocks) / np.std(shocks), rel=1e-12)


def test_written_scenarios_come_in_turn() -> None:
    drawn = DRAWS["given"].draw(0, 5, 4)
    assert (drawn == PAST[[5, 6, 0, 1]]).all()


def test_a_matrix_that_is_no_correlation_is_repaired_and_reported() -> None:
    broken = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    draws = Gaussian.of(np.ones(3), broken)
    assert draws.repaired.distance > 0.5
    found = np.corrcoef(draws.draw(2, 0, 20_000).T)
    assert np.abs(found - draws.repaired.matrix).max() < 0.03
    assert DRAWS["gaussian"].repaired.distance == 0.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian.of(np.ones(3), np.eye(4)), "correlation is 4 x 4; it must be 3 x 3"),
        (lambda: Gaussian.of(np.ones((3, 1)), np.eye(3)), "one standard deviation for each"),
        (lambda: Gaussian.of([-1.0], [[1.0]]), "no standard deviation"),
        (lambda: StudentCopula.of([1.0], [[1.0]], dof=2.0), "dof was 2.0; it must be above 2"),
        (lambda: StudentCopula.of([1.0], [[1.0]], history=PAST), "it needs .* 1 columns"),
        (lambda: Historical.of(PAST[:2]), "history is 2 x 5; it needs at least 3 rows"),
        (lambda: Historical.of(PAST, horizon=0), "horizon was 0"),
        (lambda: Historical.of(PAST, block=401), "block was 401; it must be 1 to 400"),
        (lambda: FilteredHistorical.of(PAST, decay=1.0), "decay was 1.0"),
        (lambda: FilteredHistorical.of(PAST[:20]), "needs at least 23 rows"),
        (lambda: Given.of(np.full((2, 2), np.nan)), "not finite"),
        (lambda: DRAWS["t"].draw(-1, 0, 1), "seed was -1; it must be 0 or more"),
        (lambda: DRAWS["given"].draw(0, 0, -1), "count was -1"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(make: Any, words: str) -> None:
    with pytest.raises(StateError, match=words):
        make()


# Assumptions and histories


def test_without_a_history_draws_rest_on_implied_and_assumed_volatility(
    market_world: World,
) -> None:
    snapshot = market_world.snapshot()
    universe = snapshot.universe
    vols = dict(zip(universe.assets, assumed_vols(snapshot), strict=True))
    assert vols["BTC"] == pytest.approx(0.55, rel=0.05)  # the options of the world say so
    assert vols["USD"] == 0.0
    assert 0.0 < vols["USDC"] < vols["stETH"] < vols["BTC"]
    matrix = assumed_correlation(snapshot)
    btc, eth, link, usdc = (universe.code("asset", a) for a in ("BTC", "ETH", "LINK", "USDC"))
    assert matrix[btc, eth] > matrix[btc, link] > matrix[btc, usdc] > 0.0
    drawn = assumed_draws(snapshot, days=4.0).draw(1, 0, 20_000)
    assert drawn[:, btc].std() == pytest.approx(vols["BTC"] * np.sqrt(4.0 / 365.0), rel=0.1)
    assert (drawn[:, universe.code("asset", "USD")] == 0.0).all()
    with pytest.raises(StateError, match="days was 0"):
        assumed_draws(snapshot, days=0.0)


@pytest.fixture(scope="module")
def storied() -> tuple[World, FactorHistory]:
    world = build_world(3, accounts=30, assets=8, venues=3, history=History(300))
    return world, history_from_panel(world.panels["spot"], world.universe())


def test_a_panel_of_a_world_gives_moves_of_factors(storied: tuple[World, FactorHistory]) -> None:
    world, history = storied
    panel, universe = world.panels["spot"], world.universe()
    assert history.moves.shape == (299, len(universe.assets))
    assert history.missing == ()
    assert history.step_us == 3_600_000_000
    log_price = {label: np.log(panel.select([label]).values[:, 0]) for label in ("ETH", "stETH")}
    eth = np.diff(log_price["ETH"])
    assert (history.moves[:, universe.code("asset", "ETH")] == eth).all()
    peg = np.diff(log_price["stETH"]) - eth
    assert history.moves[:, universe.code("asset", "stETH")] == pytest.approx(peg, abs=1e-15)
    assert Historical.of(history, horizon=24).draw(1, 0, 10).shape == (10, len(universe.assets))
    assert (history.yearly_vols >= 0.0).all()


def test_moves_of_factors_make_the_moves_of_prices_again(
    storied: tuple[World, FactorHistory],
) -> None:
    world, history = storied
    moved = PricingMap.of(world.snapshot()).asset_moves(history.moves)
    panel = world.panels["spot"]
    for label in panel.labels:
        returns = np.diff(np.log(panel.select([label]).values[:, 0]))
        found = moved[:, world.universe().code("asset", label)]
        assert found == pytest.approx(returns, abs=1e-12), label


def test_a_pool_share_keeps_only_what_it_did_of_its_own_accord(wide: Snapshot) -> None:
    eth, usdc = np.array([2_000.0, 1_500.0, 1_800.0]), np.array([1.0, 0.98, 1.0])
    share = np.sqrt(eth * usdc) * np.array([1.0, 1.0, 0.9])  # the last step loses a tenth
    panel = Panel.from_arrays(
        "prices", "usd/base", [0, 1, 2], ["ETH", "USDC", "LP"], np.stack([eth, usdc, share], axis=1)
    )
    history = history_from_panel(panel, wide.universe, pricing=PricingMap.of(wide))
    own = history.moves[:, wide.universe.code("asset", "LP")]
    assert own == pytest.approx([0.0, np.log(0.9)], abs=1e-12)
    assert not history.moves[:, wide.universe.code("asset", "stETH")].any()  # nobody priced it


def tiny_panel(**series: list[float]) -> tuple[Panel, Universe]:
    universe = tiny_world().universe()
    values = np.array(list(series.values())).T
    ts = np.arange(len(values)) * 60_000_000
    return Panel.from_arrays("prices", "usd/base", ts, list(series), values), universe


def test_gaps_are_left_out_and_counted_and_absent_assets_named() -> None:
    nan = float("nan")
    panel, universe = tiny_panel(ETH=[1.0, 2.0, nan, 4.0, 8.0], other=[1.0] * 5)
    history = history_from_panel(panel, universe)
    assert history.dropped == 1
    assert history.missing == ("BTC", "USDC")
    assert history.moves[:, universe.code("asset", "ETH")] == pytest.approx(np.log([2, 2, 2]))
    assert not history.moves[:, universe.code("asset", "BTC")].any()


def test_money_may_stand_still() -> None:
    panel, universe = tiny_panel(ETH=[1.0, 2.0, 3.0], USDC=[1.0, 1.0, 1.0])
    assert not history_from_panel(panel, universe).moves[:, universe.code("asset", "USDC")].any()


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ({"other": [1.0, 2.0, 3.0]}, "no series of 'prices' is called like an asset"),
        ({"ETH": [1.0, float("nan"), 3.0]}, "2 instants of 'prices' have every price"),
        ({"ETH": [1.0, 0.0, 3.0]}, "not positive"),
        ({"ETH": [2.0] * 4, "BTC": [1.0, 2.0, 3.0, 4.0]}, "the price of ETH never moves"),
        ({"ETH": [2.0] * 3, "BTC": [float("nan")] * 3}, "there is none at all of BTC"),
    ],
)
def test_a_panel_without_prices_is_refused(series: dict[str, list[float]], words: str) -> None:
    with pytest.raises(StateError, match=words):
        history_from_panel(*tiny_panel(**series))
