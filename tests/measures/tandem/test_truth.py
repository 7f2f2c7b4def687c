"""What was planted and what the published readings find, over many seeds; and where they fail.

Every test prints its table (`-m slow -rP`); the tables stand in `docs/methods/tandem-evidence.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

import undertow as ut
from measures.tandem.past import past_of
from measures.tandem.test_consequence import history_of as foretelling
from undertow.econometrics.bootstrap import stationary_bootstrap
from undertow.econometrics.common_factor import common_factor
from undertow.econometrics.comovement import mean_correlation_test
from undertow.econometrics.connectedness_bands import connectedness_null
from undertow.econometrics.exceedances import symmetry_test
from undertow.econometrics.purging import purge
from undertow.measures.tandem import Layer
from undertow.measures.tandem.extremes import THRESHOLDS, exceedance_shape
from undertow.worlds import Tandem

pytestmark = pytest.mark.slow

World = tuple[np.ndarray, np.ndarray]  # growth of log leverage, returns
NODES, EACH, STEPS = 8, 40, 750
CUTS = THRESHOLDS[:3]


def tell(words: str) -> None:
    sys.stdout.write(f"\n{words}")


def by_chance(seeds: int, nominal: float) -> tuple[float, float]:
    """Shares between which a test of that level stays in 99 of 100 runs."""
    low, high = binom.interval(0.99, seeds, nominal)
    return low / seeds, high / seeds


# ---------------------------------------------------------------- accounts that answer to prices


def moves_of(rng: np.random.Generator) -> np.ndarray:
    market, own = rng.standard_t(5, (STEPS, 1)), rng.standard_t(5, (STEPS, NODES))
    return 0.015 * market + 0.01 * own


def answering(seed: int, half_life: float, noise: float) -> World:
    """Nodes of forty accounts, each answering to its node's price in its own way and time.

    An account answers now, and once more up to two steps later, to falls more than to rises; its
    own noise is louder after a large move; and it goes back to its usual leverage with a half-life.
    Nothing but prices is shared. A node's leverage is the mean over accounts, by their equity.
    """
    rng = np.random.default_rng([seed, 91])
    r, at = moves_of(rng), np.repeat(np.arange(NODES), EACH)
    equity, usual = rng.lognormal(0.0, 1.0, at.size), 1.3 + rng.gamma(2.0, 0.5, at.size)
    now, late, fall = (rng.uniform(least, 0.0, at.size) for least in (-0.6, -0.5, -1.0))
    lag, back = rng.integers(0, 3, at.size), 1.0 - 0.5 ** (1.0 / half_life)
    total = np.bincount(at, equity)
    loud = (
        noise * (total / np.sqrt(np.bincount(at, equity**2)))[at] * rng.uniform(0.5, 1.5, at.size)
    )
    before = np.vstack([np.zeros((3, NODES)), r])
    centre, spread = np.minimum(r, 0.0).mean(axis=0)[at], r.std(axis=0)[at]
    x, level = np.zeros(at.size), np.empty(r.shape)
    for t in range(STEPS):
        told = before[t + 3 - lag, at]
        answer = now * r[t, at] + late * told + fall * (np.minimum(told, 0.0) - centre)
        stirred = np.sqrt((1.0 + 0.5 * (before[t + 2, at] / spread) ** 2) / 1.5)
        x = x * (1.0 - back) + answer + loud * stirred * rng.standard_normal(at.size)
        level[t] = np.bincount(at, equity * usual * np.exp(x)) / total
    return np.diff(np.log(level), axis=0), r[1:]


def targeting(seed: int, noise: float) -> World:
    """Nodes of accounts with a debt and a target: prices move leverage, its owner moves it back.

    Above its target by more than some room an account closes a share of the gap, up to two steps
    late; below it, a smaller share. What it answers to is its own past, not a return.
    """
    rng = np.random.default_rng([seed, 92])
    r, at = moves_of(rng), np.repeat(np.arange(NODES), EACH)
    equity, target = rng.lognormal(0.0, 1.0, at.size), 1.3 + rng.gamma(2.0, 0.5, at.size)
    cut, room = rng.uniform(0.1, 0.8, at.size), rng.uniform(0.0, 0.3, at.size)
    add, lag = cut * rng.uniform(0.1, 0.6, at.size), rng.integers(0, 3, at.size)
    total = np.bincount(at, equity)
    loud = noise * (total / np.sqrt(np.bincount(at, equity**2)))[at]
    leverage, level = target.copy(), np.empty(r.shape)
    wanted = [np.zeros(at.size)] * 3
    for t in range(STEPS):
        price = np.exp(r[t, at])
        left = np.maximum(1.0 + leverage * (price - 1.0), 0.05)
        gap = np.log(leverage * price / left / target)
        wish = -cut * np.maximum(gap - room, 0.0) + add * np.maximum(-gap - room, 0.0)
        wanted = [wish, *wanted[:2]]
        act = np.choose(lag, wanted) + loud * rng.standard_normal(at.size)
        leverage = np.clip(leverage * price / left * np.exp(act), 1.01, 20.0)
        level[t] = np.bincount(at, equity * leverage) / total
    return np.diff(np.log(level), axis=0), r[1:]


def same_day(growth: np.ndarray, returns: np.ndarray) -> np.ndarray:
    left = np.empty_like(growth)
    for j in range(growth.shape[1]):
        slope, level = np.polyfit(returns[:, j], growth[:, j], 1)
        left[:, j] = growth[:, j] - level - slope * returns[:, j]
    return left


def level_before(growth: np.ndarray) -> np.ndarray:
    """Log leverage of the step before, in its own deviations."""
    level = np.vstack([np.zeros(growth.shape[1]), growth.cumsum(axis=0)[:-1]])
    return np.asarray((level - level.mean(axis=0)) / level.std(axis=0))


class Found:
    """Runs of one kind of world."""

    def __init__(self, world: Callable[[int], World], seeds: int, *, level: bool = False) -> None:
        """Purge and test each; with `level`, purge of the leverage of the step before too."""
        self.p, self.value, self.r2, self.trapped = [], [], [], 0
        for seed in range(seeds):
            growth, returns = world(seed)
            rng = np.random.default_rng(seed)
            purged = purge(growth, returns, extra=level_before(growth) if level else None)
            found = mean_correlation_test(purged, rng=rng, reps=199)
            self.p.append(found.p_value)
            self.value.append(found.value)
            self.r2.append(float(np.median(purged.r2)))
            left = same_day(growth, returns)
            self.trapped += mean_correlation_test(left, rng=rng, reps=99).p_value <= 0.05

    def share(self, nominal: float) -> float:
        return float(np.mean(np.array(self.p) <= nominal))

    def __str__(self) -> str:
        return (
            f"p <= 0.05 {self.share(0.05):.3f}, p <= 0.10 {self.share(0.10):.3f}, "
            f"mean correlation {np.mean(self.value):.3f}, prices explain {np.mean(self.r2):.2f}, "
            f"same-day regression trapped {self.trapped} of {len(self.p)}"
        )


def test_nodes_of_accounts_that_answer_to_prices_are_seldom_called_tied() -> None:
    """Where they keep their leverage for years of steps and prices explain about half of it."""
    seeds = 500
    found = Found(partial(answering, half_life=1_000.0, noise=0.01), seeds)
    tell(f"{seeds} worlds of accounts, half-life 1000, noise 0.010: {found}")
    low, high = by_chance(seeds, 0.05)
    assert low <= found.share(0.05) <= high
    assert found.trapped == seeds


def test_leverage_that_goes_back_to_its_usual_soon_is_called_tied_unless_its_level_is_known() -> (
    None
):
    """A known limit: the way back answers to returns of long ago, which the purge does not see."""
    seeds, means = 60, {}
    for half_life in (1_000.0, 250.0, 60.0, 20.0):
        for known in (False, True):
            world = partial(answering, half_life=half_life, noise=0.004)
            found = Found(world, seeds, level=known)
            means[half_life, known] = float(np.mean(found.value))
            how = "level of the step before out too" if known else "as it is"
            tell(f"{seeds} worlds, half-life {half_life:.0f}, noise 0.004, {how}: {found}")
    assert means[20.0, False] > 0.05 > means[1_000.0, False]
    assert max(abs(value) for (_, known), value in means.items() if known) < 0.01


def test_accounts_with_targets_are_called_tied() -> None:
    """A known limit, and why no positive finding is more than its size says."""
    seeds = 40
    for noise in (0.004, 0.02, 0.05):
        plain, known = (
            Found(partial(targeting, noise=noise), seeds, level=each) for each in (False, True)
        )
        tell(f"{seeds} worlds of targets, noise {noise:.3f}, as it is: {plain}")
        tell(f"{seeds} worlds of targets, noise {noise:.3f}, level of the step before out: {known}")
        assert 0.0 < np.mean(known.value) < np.mean(plain.value) < 0.5


# ---------------------------------------------------------------- the published readings


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_the_published_band_covers_what_was_planted(correlation: float) -> None:
    seeds, covered, sure, values = 200, 0, 0, []
    for seed in range(seeds):
        tandem = replace(Tandem.null(), correlation=correlation)
        history, _ = past_of(tandem, nodes=6, steps=600, seed=seed)
        study = ut.tandem.matrix(history, seed=seed, reps=99)
        found = study.headline
        assert found is not None
        covered += found.low <= correlation <= found.high
        sure += "moves together beyond prices" in study.says[0]
        values.append(found.value)
    tell(f"planted {correlation}: band covers {covered} of {seeds}, mean {np.mean(values):.3f}, "
         f"said to move together {sure}")  # fmt: skip
    assert covered >= (0.85 if correlation else 0.78) * seeds  # around 0 it is a little narrow
    assert sure == seeds if correlation else sure <= by_chance(seeds, 0.05)[1] * seeds


def test_verdicts_of_null_worlds_are_false_about_as_often_as_they_say() -> None:
    """Six nodes, 600 steps, nothing shared but prices; every verdict as it is published."""
    seeds = 200
    false = dict.fromkeys(("common factor", "connected", "a leader", "unwinding", "falls"), 0)
    for seed in range(seeds):
        history, _ = past_of(Tandem.null(), nodes=6, steps=600, seed=seed)
        factor = ut.tandem.commonality(history, seed=seed, draws=199)
        tied = ut.tandem.connectedness(history, seed=seed, draws=99)
        first = ut.tandem.leadlag(history)
        cut = ut.tandem.unwinding(history, seed=seed, reps=199)
        false["common factor"] += factor.says[0].startswith("A common factor")
        false["connected"] += tied.says[0].endswith(": more than chance.")
        false["a leader"] += first.reading("lead_share", Layer.OWN.value).value > 0.0
        false["unwinding"] += cut.tables["events"].height > 0
        false["falls"] += fall_rise_gap(history.purged.scaled, seed)[0] > 0.0
    for verdict, count in false.items():
        tell(f"null worlds, {verdict}: {count} of {seeds}")
    most = by_chance(seeds, 0.05)[1] * seeds
    assert max(false.values()) <= most


def test_fewer_null_worlds_are_called_connected_where_the_null_is_purged_as_well() -> None:
    """What purges leave of noise is shared: coefficients that err, times returns of one market."""
    seeds = 200
    found = {}
    for name in ("as it is", "purged again"):
        connected = factor = 0
        for seed in range(seeds):
            history, _ = past_of(Tandem.null(), nodes=6, steps=600, seed=1_000 + seed)
            seen, rng = history.usable().together(Layer.OWN), np.random.default_rng([seed, 9])
            again = seen.again if name == "purged again" else None
            connected += (
                connectedness_null(seen.values, rng=rng, draws=99, again=again).p_value <= 0.05
            )
            factor += common_factor(seen.values, rng=rng, draws=99, again=again).p_largest <= 0.05
        tell(f"null worlds, null {name}: connected {connected}, factor {factor} of {seeds}")
        found[name] = connected, factor
    most = by_chance(seeds, 0.05)[1] * seeds
    assert max(found["purged again"]) <= most
    assert found["purged again"][0] < found["as it is"][0]


def test_series_that_were_never_purged_are_called_connected_at_their_level() -> None:
    """Six independent ones, 600 steps: they need no null that was purged."""
    seeds = 300
    for memory in (0.0, 0.3):
        connected = factor = 0
        for seed in range(seeds):
            rng = np.random.default_rng([seed, 8])
            x = lfilter([1.0], [1.0, -memory], rng.standard_normal((600, 6)), axis=0)
            connected += connectedness_null(x, rng=rng, draws=99).p_value <= 0.05
            factor += common_factor(x, rng=rng, draws=99).p_largest <= 0.05
        tell(f"never purged, memory {memory}: connected {connected}, factor {factor} of {seeds}")
        assert max(connected, factor) <= by_chance(seeds, 0.05)[1] * seeds


def fall_rise_gap(growth: np.ndarray, seed: int) -> tuple[float, float]:
    """The band of `tandem.tails` for falls less rises, over all thresholds."""
    rng = np.random.default_rng([seed, 3])
    found = stationary_bootstrap(exceedance_shape, growth, rng=rng, reps=99)
    falls, rises, _ = np.split(found.draws, 3, axis=1)
    gap = falls - rises
    low, high = np.quantile(gap[:, ~np.isnan(gap).any(axis=0)].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def student(rng: np.random.Generator, rows: int, degrees: float) -> np.ndarray:
    """Pairs with correlation 0.5."""
    z = rng.standard_normal((rows, 2)) @ np.linalg.cholesky([[1.0, 0.5], [0.5, 1.0]]).T
    return z * np.sqrt(degrees / rng.chisquare(degrees, (rows, 1))) if degrees else z


def clustered(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Normal pairs whose volatility comes and goes slowly: alike up and down."""
    drift = np.zeros(rows)
    for t in range(1, rows):
        drift[t] = 0.98 * drift[t - 1] + 0.15 * rng.standard_normal()
    return student(rng, rows, 0.0) * np.exp(drift)[:, None]


def test_symmetry_is_called_asymmetry_no_more_often_than_the_level_says() -> None:
    seeds, rows = 500, 1_000
    most = by_chance(seeds, 0.05)[1]
    laws = {
        "normal": lambda rng: student(rng, rows, 0.0),
        "Student, 5 degrees": lambda rng: student(rng, rows, 5.0),
        "normal, volatility in clusters": lambda rng: clustered(rng, rows),
    }
    for name, law in laws.items():
        p, bands = [], []
        for seed in range(seeds):
            x = law(np.random.default_rng([seed, 19]))
            p.append(symmetry_test(*x.T, CUTS).p)
            if seed < 200:
                bands.append(fall_rise_gap(x, seed))
        rate = float(np.mean(np.array(p) <= 0.05))
        above, below = (float(np.mean(each)) for each in (
            [low > 0.0 for low, _ in bands], [high < 0.0 for _, high in bands],
        ))  # fmt: skip
        tell(f"{name}: symmetry rejected at 5 % {rate:.3f} of {seeds}; band of falls less rises "
             f"above 0 {above:.3f}, below 0 {below:.3f} of {len(bands)}")  # fmt: skip
        assert rate <= most, name


# ---------------------------------------------------------------- consequence


def test_only_a_state_that_foretells_makes_forecasts_better_and_its_placebo_does_not() -> None:
    cases = {
        False: (200, {"steps": 700, "nodes": 10, "assets": 4}, 400, 300),
        True: (30, {"steps": 3_000, "nodes": 30, "assets": 6}, 500, 1_000),
    }
    better = {}
    for foretells, (seeds, size, window, every) in cases.items():
        won = placebo = worse = 0
        for seed in range(seeds):
            history = foretelling(100 + seed, foretells=foretells, **size)
            study = ut.tandem.consequence(
                history, tail=0.1, window=window, every=every, half_life=3.0
            )
            rows = {row["model"]: row for row in study.tables["scores"].to_dicts()}
            plain, given, old = rows.values()
            won += "makes tail forecasts better" in study.says[0]
            worse += "makes forecasts worse" in study.says[0]
            p = old["p_value"]
            placebo += p is not None and p <= 0.1 and old["score"] < plain["score"]
            assert given["model"].endswith("given tandem")
        better[foretells] = won / seeds
        word = "that foretells" if foretells else "that says nothing"
        tell(f"a state {word}: better {won}, worse {worse}, placebo better than plain {placebo}, "
             f"of {seeds}")  # fmt: skip
        assert placebo <= by_chance(seeds, 0.05)[1] * seeds
    assert better[False] <= by_chance(200, 0.05)[1]
    assert better[True] >= 0.7
