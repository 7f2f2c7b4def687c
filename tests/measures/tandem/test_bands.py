"""Bands hold what was planted about as often as they say; which readings have none, and why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import signature

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

import undertow as ut
from measures.tandem.past import past_of
from undertow.econometrics.absorption import Input, absorption_path
from undertow.econometrics.common_factor import common_factor
from undertow.econometrics.concordance import concordance, concordance_bands
from undertow.econometrics.cycles import Windows, clarity, turning_points
from undertow.econometrics.dcc import dcc
from undertow.econometrics.dyads import attribute
from undertow.econometrics.moments import rolling_mean_correlation
from undertow.fanout import Serial
from undertow.measures import MEASURES, Ground, Study
from undertow.measures.tandem.agreement import agreed_band
from undertow.measures.tandem.commonality import _shifted, _Sure, commonality
from undertow.measures.tandem.consequence import _tail_band
from undertow.measures.tandem.cycle import _unwinding
from undertow.measures.tandem.falls import Board
from undertow.measures.tandem.foresight import Walk
from undertow.measures.tandem.history import LeverageHistory, Together
from undertow.measures.tandem.index import _banded, _Expected, _strayed
from undertow.measures.tandem.knockout import knockout
from undertow.measures.tandem.owners import Owned
from undertow.measures.tandem.unwinding import _rate
from undertow.stress import Impact, Options, Plan, settle
from undertow.worlds import Cycle, History, Tandem, build_world

RHO = 0.4


def told(name: str, found: list[tuple[float, float, float, float]]) -> float:
    """Print what a simulation found, and return how often the band held the truth.

    Rows of `found` are truth, value, low and high; bands are to hold nine in ten.
    """
    truth, value, low, high = np.array(found).T
    inside = float(np.mean((low <= truth) & (truth <= high)))
    sys.stdout.write(
        f"\n{name}: truth {truth.mean():.3f}, mean {value.mean():.3f}, band {low.mean():.3f} to "
        f"{high.mean():.3f}, held {inside:.2f} of {len(found)}"
    )
    return inside


def tied(rng: np.random.Generator, rho: np.ndarray, nodes: int, *, heavy: bool) -> np.ndarray:
    """(steps, nodes) Series whose pairs all correlate at `rho`, by step."""
    shared, own = rng.standard_normal((len(rho), 1)), rng.standard_normal((len(rho), nodes))
    x = np.sqrt(rho)[:, None] * shared + np.sqrt(1.0 - rho)[:, None] * own
    return x / np.sqrt(rng.chisquare(6, (len(rho), 1)) / 6) if heavy else x


def seen(x: np.ndarray) -> Together:
    return Together(x, np.arange(len(x)), tuple(f"n{j}" for j in range(x.shape[1])), {})


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("heavy", [False, True])
def test_bands_of_what_is_read_off_eigenvalues(rho: float, heavy: bool) -> None:
    rng, nodes, steps, width = np.random.default_rng(3), 8, 500, 125
    shares = np.array([(1.0 - rho) / nodes] * (nodes - 1) + [(1.0 + (nodes - 1) * rho) / nodes])
    kinds: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in range(120):
        x = seen(tied(rng, np.full(steps, rho), nodes, heavy=heavy))
        sure = _Sure.of(x, 0.2, width, seed, 199, 0.9)
        for name, truth, found in (
            ("largest", shares[-1], sure.largest),
            ("absorbed", shares[-sure.top :].sum(), sure.absorbed),
            ("independent", 1.0 / (shares @ shares), sure.independent),
        ):
            kinds.setdefault(name, []).append((truth, *found))
    words = f"correlation {rho}, {'fat' if heavy else 'thin'} tails"
    held = {name: told(f"{name}, {words}", found) for name, found in kinds.items()}
    if rho:
        assert held["largest"] >= 0.8
        assert held["independent"] >= 0.8
        assert held["absorbed"] >= 0.65  # all directions but one are alike, and the next is noise
        assert 0.0 < np.mean([value - truth for truth, value, _, _ in kinds["absorbed"]]) < 0.04
    else:  # there is no strongest direction: what is left of the bias is more than the band
        assert 0.0 < np.mean([value - truth for truth, value, _, _ in kinds["largest"]]) < 0.03
        assert held["independent"] >= 0.8


def alone(seed: int, correlation: float) -> LeverageHistory:
    return past_of(Tandem(correlation=correlation), nodes=6, steps=300, seed=seed)[0]


def test_shares_have_a_band_where_there_is_a_factor_and_a_reason_where_there_is_none() -> None:
    names = ("tandem.common_factor", "tandem.absorption")
    for correlation in (0.0, 0.4):
        readings = {r.name: r for r in commonality(alone(2, correlation), draws=99).readings}
        for each in (readings[name] for name in names):
            assert each.value is not None
            assert (each.low is None) == (each.high is None) == (correlation == 0.0)
            assert ("no band: the largest share" in each.definition) == (correlation == 0.0)
        assert readings["tandem.effective_number"].low is not None


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.02, 0.05, 0.1, 0.2])
def test_published_bands_of_the_largest_share_where_the_factor_is_weak(rho: float) -> None:
    """Only those that follow a small p-value are published, which favours lucky samples."""
    rng, nodes, found = np.random.default_rng(13), 8, []
    for seed in range(100):
        x = tied(rng, np.full(500, rho), nodes, heavy=False)
        if common_factor(x, rng=np.random.default_rng(seed), draws=99).p_largest < 0.05:
            sure = _Sure.of(seen(x), 0.2, 125, seed, 199, 0.9)
            found.append(((1.0 + (nodes - 1) * rho) / nodes, *sure.largest))
    held = told(f"largest where published, correlation {rho}", found)
    if rho >= 0.1:
        assert held >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("change", [0.0, 0.3])
@pytest.mark.parametrize("heavy", [False, True])
def test_the_band_of_the_shift_of_absorption(change: float, heavy: bool) -> None:
    rng, nodes, steps, width, runs = np.random.default_rng(4), 8, 400, 100, 150
    rho = np.where(np.arange(steps) < steps - 50, RHO, RHO + change)
    gaps, bands = [], []
    for _ in range(runs):
        x = tied(rng, rho, nodes, heavy=heavy)
        path = absorption_path(x, width, fraction=0.2, of=Input.CORRELATION)
        spread = float(np.std(path.ratio[-252:], ddof=1))
        _, (value, low, high) = _shifted(x, path.ratio, width, 0.2, 0.9)
        gaps.append(value * spread)
        bands.append((value * spread, low * spread, high * spread))
    truth = float(np.mean(gaps))
    found = [(truth, *each) for each in bands]
    if not change:
        assert truth == pytest.approx(0.0, abs=0.01)
    held = told(f"shift of absorption, change {change}, {'fat' if heavy else 'thin'} tails", found)
    assert held >= 0.75


PATHS: dict[str, Callable[[int], np.ndarray]] = {
    "constant": lambda steps: np.full(steps, RHO),
    "slow wave": lambda steps: RHO + 0.2 * np.sin(2 * np.pi * np.arange(steps) / 300.0),
    "fast wave": lambda steps: RHO + 0.2 * np.sin(2 * np.pi * np.arange(steps) / 80.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_bands_of_the_correlation_to_come_and_of_the_rank_of_the_index(name: str) -> None:
    rng, steps, width = np.random.default_rng(5), 700, 60
    ahead, ranks = [], []
    for _ in range(60):
        start = int(rng.integers(300))
        rho = PATHS[name](start + steps + 1)[start:]
        x = tied(rng, rho[:-1], 6, heavy=False)
        fit = dcc(x)
        line = fit.mean_off_diagonal()
        value = rolling_mean_correlation(x, width).values
        value, low, high = _banded(x, value, width, 0.9)
        strayed = _strayed(value, high - low, line[:-1], 0.9)
        found = _Expected.of(fit, float(line[-1]), strayed, 0.9, moves=True)
        ahead.append((float(rho[-1]), float(line[-1]), found.low, found.high))
        true = np.convolve(rho[:-1], np.full(width, 1.0 / width), mode="valid")
        rank = [float(np.mean(value <= end)) for end in (value[-1], low[-1], high[-1])]
        ranks.append((float(np.mean(true <= true[-1])), *rank))
    held = told(f"correlation of the next step, {name}", ahead)
    if name == "fast wave":  # shorter than two windows: cDCC sees nothing of it
        assert held < 0.5
    else:
        assert held >= 0.8
    if name != "constant":  # where all windows are alike none has a rank
        assert told(f"rank of the index, {name}", ranks) >= 0.65


def triangles(
    rng: np.random.Generator, drift: float, phase: int, cycles: int, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(steps, nodes) Levels that rise and fall by turns with noise of 1 a step, and which way.

    A third of the variance of noise is the same for all nodes; so is the cycle, but for a shift.
    """
    steps = 2 * phase * cycles
    start = int(rng.integers(2 * phase)) + rng.integers(phase // 2, size=nodes)
    rising = ((np.arange(steps)[:, None] + start) // phase) % 2 == 0
    noise = np.sqrt(1 / 3) * rng.standard_normal((steps, 1))
    noise = noise + np.sqrt(2 / 3) * rng.standard_normal((steps, nodes))
    return np.cumsum(np.where(rising, drift, -drift) + noise, axis=0), rising


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 0.3, 0.5, 1.0])
def test_bands_of_how_clear_a_cycle_is_and_of_how_many_are_unwinding(drift: float) -> None:
    rng, phase, nodes = np.random.default_rng(6), 20, 5
    windows, clear, share, there = Windows.expecting(2 * phase), [], [], 0
    for _ in range(16):
        level, rising = triangles(rng, drift, phase, 6, nodes)
        found = [turning_points(x, windows) for x in level.T]
        for each in found:
            seen = clarity(each)
            if np.isfinite(seen.value):
                clear.append((drift, seen.value, seen.low, seen.high))
                there += seen.there
        dated = -1 - windows.edge
        share.append((1.0 - float(rising[dated].mean()), *_unwinding(found, 0.9)))
    held = told(f"clarity {drift}", clear)
    sys.stdout.write(f"; told from a walk {there / len(clear):.2f}")
    assert held >= 0.75
    assert (there / len(clear) <= 0.15) if not drift else True
    if drift:
        assert told(f"share unwinding, clarity {drift}", share) >= 0.8


def semicycles(
    rng: np.random.Generator, steps: int, phase: float, nodes: int, apart: float
) -> np.ndarray:
    """(steps, nodes) Phases of random lengths that nodes share, but for turns that lie `apart`.

    In lengths of a phase; infinitely far, and they share nothing.
    """
    turns, columns = 4 + int(2.5 * steps / phase), []
    shared = np.cumsum(rng.uniform(0.5, 1.5, turns)) * phase
    for _ in range(nodes):
        own = np.cumsum(rng.uniform(0.5, 1.5, turns)) * phase
        at = own if np.isinf(apart) else shared + apart * phase * rng.standard_normal(turns)
        columns.append(np.searchsorted(np.sort(at), 3 * phase + np.arange(steps)) % 2)
    return np.column_stack(columns).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.1, 0.4, np.inf])
@pytest.mark.parametrize("cycles", [6, 12])
def test_bands_of_concordance(apart: float, cycles: int) -> None:
    rng, at = np.random.default_rng(7), np.triu_indices(5, 1)
    long = [
        float(np.mean(concordance(semicycles(rng, 6000, 20, 5, apart)).mean_adjusted[at]))
        for _ in range(4)
    ]
    truth, pairs, means = float(np.mean(long)), [], []
    for _ in range(150):
        phases = semicycles(rng, cycles * 40, 20, 5, apart)
        value = concordance(phases).mean_adjusted
        low, high, mean = concordance_bands(phases, 40)
        pairs.append((truth, value[0, 1], low[0, 1], high[0, 1]))
        means.append((truth, float(value[at].mean()), *mean))
    words = f"{cycles} cycles, turns {apart} phases apart"
    assert told(f"concordance of a pair, {words}", pairs) >= 0.75
    assert told(f"concordance on average, {words}", means) >= 0.75


def test_the_band_of_phases_that_are_alike_is_as_wide_as_turns_are_sure() -> None:
    one = (np.arange(120) // 20 % 2).astype(float)  # five turns
    low, high, mean = concordance_bands(np.column_stack([one, one, 1.0 - one]), 40)
    step = 5.0 / 120.0
    assert (low[0, 1], high[0, 1]) == pytest.approx((0.5 - step, 0.5))
    assert (low[0, 2], high[0, 2]) == pytest.approx((-0.5, -0.5 + step))
    assert mean[1] - mean[0] >= 2.0 * step - 1e-12
    other = np.roll(one, 7)
    apart = concordance_bands(np.column_stack([one, other]), 40)
    assert apart[1][0, 1] - apart[0][0, 1] > 2.0 * step


@pytest.mark.slow
@pytest.mark.parametrize("accounts", [150, 600])
def test_bands_of_what_a_fall_unwinds(accounts: int) -> None:
    """Books of many sizes of one kind of owners, in markets so deep that size does not matter."""
    options = Options(impact=Impact.NONE)
    found = []
    for seed in range(40):
        world = build_world(seed, accounts=accounts)
        board = Board.of(settle(Plan.of(world.snapshot()), options).plan, "asset", 0.25, options)
        owned = Owned.of(board, Serial(), seed, 0.9)
        found.append((owned.run.spill(), *owned.spill()))
    truth = float(np.mean([value for value, _, _ in found]))  # of books of that size
    held = told(f"spill, {accounts} accounts", [(truth, *each) for each in found])
    assert held >= 0.8


def ties(rng: np.random.Generator, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of pairs that share traits of nodes, and a part of each pair."""
    shared = rng.standard_normal((nodes, nodes))
    one, two = (
        shared + 0.7 * (a[:, None] + a) + rng.standard_normal((nodes, nodes))
        for a in 0.5 * rng.standard_normal((2, nodes)) + rng.standard_normal(nodes)
    )
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [6, 10, 20])
def test_bands_of_rank_agreement(nodes: int) -> None:
    rng = np.random.default_rng(8)
    one, two = ties(rng, 600)
    off = ~np.eye(600, dtype=bool)
    truth, found = float(spearmanr(one[off], two[off]).statistic), []
    for _ in range(200):
        one, two = ties(rng, nodes)
        off = ~np.eye(nodes, dtype=bool)
        value = float(spearmanr(one[off], two[off]).statistic)
        found.append((truth, value, *agreed_band(one, two, 0.9)))
    assert told(f"rank agreement of {nodes} nodes", found) >= 0.8


def test_one_order_twice_has_no_band() -> None:
    closed, other = ties(np.random.default_rng(14), 6)
    for same in (closed, np.exp(closed), -closed):
        assert np.isnan(agreed_band(closed, same, 0.9)).all()
    low, high = agreed_band(closed, other, 0.9)
    assert -1.0 < low < high < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [10, 20])
def test_bands_of_what_drivers_explain(nodes: int) -> None:
    rng, reps = np.random.default_rng(9), 100

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        kinds, trait = rng.integers(3, size=count), rng.standard_normal(count)
        driver = (kinds[:, None] == kinds) + rng.uniform(0.0, 0.5, (count, count))
        driver = 0.5 * (driver + driver.T)
        noise = rng.standard_normal((count, count))
        tie = 0.3 * driver + 0.05 * (trait[:, None] + trait) + 0.1 * (noise + noise.T)
        return tie, driver

    tie, driver = drawn(400)
    at = np.triu_indices(400, 1)
    found, truth = [], float(np.corrcoef(tie[at], driver[at])[0, 1] ** 2)
    for _ in range(reps):
        tie, driver = drawn(nodes)
        fit = attribute(tie, driver, rng=rng, reps=19)
        sure = knockout(tie, driver[None], fit.r2, fit.share, 0.9)
        found.append((truth, fit.r2, *sure.r2))
    assert told(f"explained, {nodes} nodes", found) >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize("tail", [0.01, 0.05])
def test_bands_of_the_loss_to_come(tail: float) -> None:
    rng, rows = np.random.default_rng(10), 600
    truth, found = float(student.isf(tail, 5)), []
    for _ in range(300):
        losses = rng.standard_t(5, rows)
        flat, var = np.zeros(rows + 1), float(np.quantile(rng.standard_t(5, 500), 1.0 - tail))
        run = Walk(losses, {"m": flat + var}, {}, {"m": flat + 1.0}, flat, flat, (), 0)
        found.append((truth, var, *_tail_band(run, "m", tail, 0.9)))
    assert told(f"value at risk at {tail}", found) >= 0.85


@pytest.mark.slow
def test_bands_of_the_rate_of_unwindings() -> None:
    rng, years, truth = np.random.default_rng(11), 2.0, 3.0
    counts = rng.poisson(truth * years, 500)
    found = [(truth, count / years, *_rate(int(count), years, 0.9)) for count in counts]
    assert told("unwindings a year", found) >= 0.9


COUNTED = {  # readings that have no band, and why
    "tandem.unwindings": "a count of what was found",
    "procyclical_share": "a count of tests",
    "contagion_share": "a count of tests",
    "lead_share": "a count of tests",
    "copula_degrees": "none where the tail of the fit is as thin as the normal one",
    "net_lead": "no band of it is known to hold",
    "tandem.explained_by_chance": "a yardstick, worked out from what is seen",
    "tandem.noise": "a yardstick, worked out from the number of steps",
    "capital_unknown_usd": "a sum of what is seen",
    "tandem.expected_shortfall": "a mean of few losses",
    "tandem.state": "what a forecaster was given",
}


SOMETIMES = {  # readings of which some have a band, and why not all
    "tandem.leverage": "too few accounts",
    "tandem.spill": "nothing is closed",
    "tandem.clarity": "no whole phase",
}


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    tandem = Tandem(0.5, cycle=Cycle(20, 30, 20, stagger=5, noise_ratio=0.3))
    world = build_world(5, accounts=80, history=History(300, tandem=tandem))
    history = LeverageHistory.of(world.panels["leverage_asset"], world.panels["spot"])
    ground = Ground("asset", world.snapshot(), history.select(history.labels[:8]))
    few = {"reps": 49, "draws": 40}
    made = []
    for each in MEASURES:
        options = {k: v for k, v in few.items() if k in signature(each.made).parameters}
        if each.name == "tandem.consequence":
            options |= {"window": 200, "tail": 0.05}
        if each.family == "tandem":
            made.append(each.made(*(getattr(ground, part) for part in each.takes), **options))
    agreed = ut.tandem.unwind(ground.book, history=ground.past, reps=49)
    return [*made, agreed]


def test_every_reading_has_a_band_or_a_reason_to_have_none(studies: list[Study]) -> None:
    told = [each for study in studies for each in study.readings if each.value is not None]
    bare = {each.name for each in told if each.low is None}
    assert not bare - COUNTED.keys() - SOMETIMES.keys()
    assert {"tandem.agreement", "tandem.value_at_risk"} <= {r.name for r in told} - bare
    assert SOMETIMES.keys() <= {each.name for each in told if each.low is not None}


def test_no_value_lies_outside_its_band(studies: list[Study]) -> None:
    for study in studies:
        for each in study.readings:
            if each.low is not None:
                assert each.low <= each.value <= each.high, (study.name, each)


def test_a_reading_without_a_band_says_so(studies: list[Study]) -> None:
    mine = COUNTED.keys() - {"contagion_share", "lead_share", "net_lead", "copula_degrees"}
    for study in studies:
        for each in study.readings:
            if each.name in mine:
                assert "no band" in each.definition or "for a band" in each.definition, each.name
