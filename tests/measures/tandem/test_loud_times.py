"""Nodes that share loud times, sectors or tails, and nothing else that a verdict may call tandem.

Every test prints its table (`-m slow -rP`) with the band of a binomial share; the tables stand in
`docs/methods/co-movement.md`, `correlation.md` and `tandem-evidence.md`.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import binom, binomtest

import undertow as ut
from undertow.econometrics.comovement import mean_correlation_test
from undertow.econometrics.tails import coexceedances
from undertow.measures.tandem import Layer, LeverageHistory
from undertow.state import Panel

DAY = 86_400_000_000
NODES, STEPS = 8, 900
DATES, STRENGTH, MEMBERS = (300, 617), 4.0, 5


def tie_of(rho: float, sectors: int = 1) -> np.ndarray:
    which = np.arange(NODES) * sectors // NODES
    tie = np.where(which[:, None] == which, rho, 0.0)
    np.fill_diagonal(tie, 1.0)
    return tie


def shocks(world: str, rng: np.random.Generator) -> np.ndarray:
    """What nodes do by themselves, in a world of that name."""
    tie = {"sectors .3": tie_of(0.3, 2), "sectors .6": tie_of(0.6, 2), "correlated .3": tie_of(0.3),
           "t(4), sectors .3": tie_of(0.3, 2),
           "correlated .03": tie_of(0.03),
           "correlated .1": tie_of(0.1)}.get(world, np.eye(NODES))  # fmt: skip
    z = rng.standard_normal((STEPS, NODES)) @ np.linalg.cholesky(tie).T
    if world.startswith("volatility x"):
        first = int(rng.integers(100, STEPS - 160))
        z[first : first + 60] *= float(world[-1])
    if world == "stochastic volatility":
        drift = np.zeros(STEPS)
        for t in range(1, STEPS):
            drift[t] = 0.98 * drift[t - 1] + 0.1 * rng.standard_normal()
        z *= np.exp(drift)[:, None]
    if world.startswith("t(4)"):
        z *= np.sqrt(2.0 / rng.chisquare(4.0, (STEPS, 1)))
    if world == "own t(4)":
        z *= np.sqrt(2.0 / rng.chisquare(4.0, z.shape))
    if world == "skewed":
        z = (2.0 - rng.gamma(2.0, 1.0, z.shape)) / np.sqrt(2.0)
    if world == "memory .5":
        for t in range(1, STEPS):
            z[t] += 0.5 * z[t - 1]
    return z


def history_of(world: str, seed: int, dates: tuple[int, ...] = ()) -> LeverageHistory:
    """Leverage that answers to prices of its own and of the market, late, and to falls by more."""
    rng = np.random.default_rng([seed, 55])
    r = 0.015 * rng.standard_t(5, (STEPS, 1)) + 0.01 * rng.standard_t(5, (STEPS, NODES))
    own = shocks(world, rng)
    for date in dates:
        own[date, rng.permutation(NODES)[:MEMBERS]] -= STRENGTH
    late = np.vstack([np.zeros(NODES), r[:-1]])
    growth = -0.3 * r - 0.8 * np.minimum(r, 0.0) - 0.3 * late + 0.004 * own
    ts, names = DAY * np.arange(1, STEPS + 2), [f"node {k}" for k in range(NODES)]
    level, price = (np.vstack([np.zeros(NODES), x.cumsum(axis=0)]) for x in (growth, r))
    return LeverageHistory.of(
        Panel.from_arrays("leverage", "1", ts, names, 3.0 * np.exp(level)),
        Panel.from_arrays("prices", "usd", ts, names, 100.0 * np.exp(price)),
    )


def steps_of(history: LeverageHistory, study: ut.Study) -> list[int]:
    peaks = study.tables["events"]["peak"].dt.epoch("us").to_numpy()
    return np.searchsorted(history.ts, peaks).tolist()


def told(count: int, of: int) -> str:
    band = binomtest(count, of).proportion_ci(0.95, "exact")
    return f"{count:>4} of {of} = {count / of:6.1%}  ({band.low:.1%} to {band.high:.1%})"


def most(of: int, nominal: float = 0.05) -> int:
    """More false verdicts than so many have a chance of one in a thousand."""
    return int(binom.isf(0.001, of, nominal))


QUIET = ("nothing shared", "volatility x2", "volatility x4", "stochastic volatility", "t(4)",
         "own t(4)", "skewed", "memory .5")  # fmt: skip
TIED = ("correlated .3", "sectors .3", "sectors .6", "t(4), sectors .3")


@pytest.mark.slow
@pytest.mark.parametrize("world", QUIET)
def test_a_common_factor_is_seldom_found_where_only_loud_times_are_shared(world: str) -> None:
    seeds = 150
    found = 0
    for seed in range(seeds):
        study = ut.tandem.commonality(history_of(world, seed), seed=seed, draws=99)
        found += study.says[0].startswith("A common factor")
    sys.stdout.write(f"\n{world}: a common factor in {told(found, seeds)}\n")
    assert found <= most(seeds, 0.1 if world == "memory .5" else 0.05)  # the purge adds to memory


@pytest.mark.slow
@pytest.mark.parametrize("world", [*QUIET, "correlated .03", "correlated .1", "correlated .3"])
def test_series_that_are_loud_at_the_same_times_are_seldom_called_tied(world: str) -> None:
    """The mean correlation, and steps at which half of all are among their worst 5 %."""
    seeds, mean, half = 200, 0, 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 56])
        x = shocks(world, rng)
        mean += mean_correlation_test(x, rng=rng, reps=99).p_value <= 0.05
        half += coexceedances(x, 0.05, rng=rng, reps=99).p[NODES // 2] <= 0.05
    sys.stdout.write(f"\n{world}: correlated in {told(mean, seeds)}, fall at once in "
                     f"{told(half, seeds)}\n")  # fmt: skip
    if world in QUIET:
        assert max(mean, half) <= most(seeds)
    elif world != "correlated .03":
        assert mean >= 0.99 * seeds
        assert half >= (0.25 if world == "correlated .1" else 0.9) * seeds


@pytest.mark.slow
@pytest.mark.parametrize("world", QUIET + TIED)
def test_a_leader_is_seldom_named_where_nobody_leads(world: str) -> None:
    """Of 28 pairs, corrected; verdicts in 5 of 100 worlds are due."""
    seeds, found = 200, 0
    for seed in range(seeds):
        study = ut.tandem.leadlag(history_of(world, seed), seed=seed)
        share = study.reading("lead_share", Layer.OWN.value).value
        found += share is not None and share > 0.0
    low, high = binom.interval(0.99, seeds, 0.05)
    sys.stdout.write(f"\n{world}: a leader in {told(found, seeds)}; due {low:.0f} to {high:.0f}\n")
    assert found <= high


@pytest.mark.slow
@pytest.mark.parametrize("world", QUIET + TIED)
def test_an_unwinding_is_seldom_dated_where_there_was_none(world: str) -> None:
    seeds = 100
    found = 0
    for seed in range(seeds):
        study = ut.tandem.unwinding(history_of(world, seed), seed=seed, reps=99)
        found += study.tables["events"].height > 0
    sys.stdout.write(f"\n{world}: an unwinding in {told(found, seeds)}\n")
    assert found <= most(seeds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "share"), [("nothing shared", 0.9), ("correlated .3", 0.9), ("sectors .3", 0.75)]
)
def test_unwindings_of_five_in_eight_are_dated_and_hardly_any_other(
    world: str, share: float
) -> None:
    seeds, hit, false = 40, 0, 0
    for seed in range(seeds):
        history = history_of(world, seed, DATES)
        dates = steps_of(history, ut.tandem.unwinding(history, seed=seed, reps=99))
        hit += sum(date in dates for date in DATES)
        false += sum(date not in DATES for date in dates)
    sys.stdout.write(
        f"\n{world}, strength {STRENGTH}: dated {told(hit, 2 * seeds)}; "
        f"false {false} of {hit + false}\n"
    )
    assert hit >= share * 2 * seeds
    assert false <= 0.05 * (hit + false)
