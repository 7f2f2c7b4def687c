"""What prices explain is taken out, late and kinked too; what is planted beyond them stays in."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from undertow.econometrics.comovement import mean_correlation_test
from undertow.econometrics.purging import market_returns, purge
from undertow.errors import EstimationError
from undertow.worlds import Prices, Tandem, leverage_panel
from undertow.worlds.names import TS, name_world
from undertow.worlds.returns import simulate_returns

HOUR_US = 3_600_000_000
COINS = [each for each in name_world(1, assets=40, venues=8, ts=TS).assets.values() if each.traded]


def world(
    seed: int, steps: int, nodes: int, tandem: Tandem
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Growth of log leverage, the returns that it answers to, and the residual that was planted."""
    made = simulate_returns(seed, COINS[:nodes], steps, HOUR_US, Prices())
    panel, truth = leverage_panel(
        seed,
        "leverage",
        nodes=[each.key for each in COINS[:nodes]],
        drivers=np.array(made.returns),
        ts=TS - HOUR_US * np.arange(steps, 0, -1, dtype=np.int64),
        tandem=tandem,
    )
    return np.diff(np.log(panel.values), axis=0), truth.drivers[1:], truth.residual[1:]


def same_day(growth: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """What a linear regression on the return of the same step leaves: the trap."""
    left = np.empty_like(growth)
    for j in range(growth.shape[1]):
        slope, level = np.polyfit(returns[:, j], growth[:, j], 1)
        left[:, j] = growth[:, j] - level - slope * returns[:, j]
    return left


def test_growth_on_the_return_of_the_same_step_finds_a_tie_where_there_is_none() -> None:
    trapped = honest = 0
    for seed in range(12):
        growth, returns, _ = world(seed, 800, 8, Tandem.null())
        rng = np.random.default_rng(seed)
        trapped += mean_correlation_test(same_day(growth, returns), rng=rng, reps=99).p_value < 0.05
        honest += mean_correlation_test(purge(growth, returns), rng=rng, reps=99).p_value < 0.05
    assert trapped == 12
    assert honest <= 3  # of 12 at 5 %: more has a chance of 0.2 %


def test_the_residual_is_the_one_that_was_planted() -> None:
    growth, returns, planted = world(3, 4_000, 4, replace(Tandem.null(), correlation=0.4))
    purged = purge(growth, returns)
    seen = ~np.isnan(purged.residual[:, 0])
    assert seen[3:].all()
    for j in range(4):
        assert np.corrcoef(purged.residual[seen, j], planted[seen, j])[0, 1] > 0.99
    assert (purged.r2 > 0.5).all()
    assert 0.985 < purged.kept < 1.0


def test_the_scale_follows_the_noise_that_a_large_move_leaves() -> None:
    growth, returns, planted = world(4, 4_000, 4, Tandem.null())
    purged = purge(growth, returns)
    spread = np.sqrt((returns**2).mean(axis=0))
    true = np.sqrt((1.0 + 0.5 * (returns[2:-1] / spread) ** 2) / 1.5) * planted.std(axis=0)
    told = purged.scale[3:]
    assert np.corrcoef(np.log(told).ravel(), np.log(true).ravel())[0, 1] > 0.9
    loud = np.abs(returns[2:-1]) > 2.0 * spread
    before, after = purged.residual[3:][loud].var(), purged.scaled[3:][loud].var()
    assert before > 1.8 * purged.residual[3:].var()
    assert 0.7 < after < 1.3


def test_a_plain_regression_written_apart_gives_the_same_residuals() -> None:
    rng = np.random.default_rng(5)
    returns = rng.standard_normal((300, 1)) * 0.01
    growth = -0.7 * returns + 0.3 * np.minimum(returns, 0.0) + 0.005 * rng.standard_normal((300, 1))
    purged = purge(growth, returns, lags=1, folds=3, gap=2, ridge=0.0, market=0)
    sd = np.sqrt((returns**2).mean())
    u = returns[:, 0] / sd
    decay, recent, level = 2.0 ** (-1.0 / 20.0), [], float(np.mean(u**2))
    for each in u:
        level = decay * level + (1.0 - decay) * each**2
        recent.append(level)
    terms = [np.ones(299)]
    for lag in (0, 1):
        at = u[1 - lag : 300 - lag]
        terms += [at, np.minimum(at, 0.0), np.clip(at, -4.0, 4.0) ** 2]
    x = np.column_stack([*terms, np.sqrt(np.array(recent)[:-1])])
    edges = np.linspace(0, 300, 4).astype(int)
    for start, end in pairwise(edges.tolist()):
        rows = np.arange(1, 300)
        out = (rows >= start - 2) & (rows < end + 2)
        inside = (rows >= start) & (rows < end)
        beta = np.linalg.lstsq(x[~out], growth[1:][~out, 0], rcond=None)[0]
        left = growth[1:][inside, 0] - x[inside] @ beta
        even = purged.residual[1:][inside, 0]  # weighted by quietness, so near, not equal
        assert np.corrcoef(left, even)[0, 1] > 0.995


def test_no_step_is_judged_by_a_fit_that_saw_it() -> None:
    rng = np.random.default_rng(6)
    returns = rng.standard_normal((400, 2)) * 0.01
    growth = rng.standard_normal((400, 2)) * 0.01
    whole = purge(growth, returns, folds=4, gap=3)
    changed = growth.copy()
    changed[120:180] += rng.standard_normal((60, 2))  # inside the second block, far from its ends
    other = purge(changed, returns, folds=4, gap=3)
    moved = (changed - growth)[120:180]
    # the second block is predicted from the others alone, whose growth did not change
    weights = np.abs(other.residual[120:180] - whole.residual[120:180] - moved)
    assert weights.max() < 0.02 * np.abs(moved).max()
    assert np.abs(other.residual[0:90] - whole.residual[0:90])[3:].max() > 0.0


def test_the_exact_revaluation_given_as_extra_is_taken_out() -> None:
    rng = np.random.default_rng(7)
    returns = rng.standard_normal((600, 3)) * 0.01
    other = rng.standard_normal((600, 3)) * 0.01
    growth = 1.5 * other + 0.002 * rng.standard_normal((600, 3))
    without, given = purge(growth, returns), purge(growth, returns, extra=other)
    assert (given.r2 > 0.97).all()
    assert (without.r2 < 0.1).all()
    assert given.coefficients == without.coefficients + 1


def test_series_that_cannot_be_purged_say_why_and_leave_the_others_as_they_are() -> None:
    growth, returns, _ = world(8, 700, 6, Tandem())
    alone = purge(growth, returns)
    growth = np.column_stack([growth, np.zeros(len(growth)), growth[:, 0], growth[:, 1]])
    returns = np.column_stack([returns, returns[:, :3]])
    growth[:, 7] = np.nan
    growth[:640, 8] = np.nan
    growth[:200, 0] = np.nan  # late, and long enough
    purged = purge(growth, returns)
    assert purged.reasons[:6] == ("",) * 6
    assert purged.reasons[6] == "constant"
    assert purged.reasons[7].startswith("no step")
    assert purged.reasons[8].startswith("too short")
    assert np.isnan(purged.residual[:, 6:]).all()
    assert np.isnan(purged.residual[:200, 0]).all()
    assert not np.isnan(purged.residual[200:, 0]).any()
    assert purged.keep.tolist() == [True] * 6 + [False] * 3
    tie = np.corrcoef(purged.residual[3:, 2], alone.residual[3:, 2])[0, 1]
    assert tie > 0.99  # the market has other returns in it


def test_more_series_than_steps_and_returns_that_repeat_each_other_are_no_obstacle() -> None:
    rng = np.random.default_rng(9)
    one = rng.standard_normal((160, 1)) * 0.01
    returns = np.repeat(one, 200, axis=1)
    growth = -0.5 * returns + 0.003 * rng.standard_normal((160, 200))
    purged = purge(growth, returns, lags=1)
    assert not any(purged.reasons)
    assert np.isfinite(purged.scaled[2:]).all()
    still = purge(growth[:, :3], np.zeros((160, 3)))
    assert not any(still.reasons)
    assert still.market.shape == (160, 0)


def test_the_market_is_what_all_returns_share() -> None:
    rng = np.random.default_rng(10)
    market = rng.standard_normal(500)
    returns = market[:, None] * np.linspace(0.5, 2.0, 10) + 0.5 * rng.standard_normal((500, 10))
    returns[:50, 3] = np.nan
    found = market_returns(returns)
    assert np.corrcoef(found[:, 0], market)[0, 1] > 0.98
    assert found[:, 0].std() == pytest.approx(1.0, abs=0.01)
    assert market_returns(returns[:, :1]).shape == (500, 0)


def test_misuse_is_refused_with_a_way_out() -> None:
    x = np.random.default_rng(0).standard_normal((100, 2))
    with pytest.raises(EstimationError, match="returns are"):
        purge(x, x[:, :1])
    with pytest.raises(EstimationError, match="folds was 1"):
        purge(x, x, folds=1)
    with pytest.raises(EstimationError, match="extra is"):
        purge(x, x, extra=x[:50])
    with pytest.raises(EstimationError, match="reps was 3"):
        mean_correlation_test(x, rng=np.random.default_rng(0), reps=3)
    broken = x.copy()
    broken[7, 1] = np.inf
    with pytest.raises(EstimationError, match="row 7 of column 1"):
        purge(broken, x)


def test_the_mean_correlation_is_the_mean_of_the_correlations() -> None:
    x = np.random.default_rng(11).standard_normal((400, 6))
    x += x[:, :1]
    found = mean_correlation_test(x, rng=np.random.default_rng(0), reps=199)
    tie = np.corrcoef(x.T)
    assert found.value == pytest.approx(tie[np.triu_indices(6, 1)].mean(), abs=1e-12)
    assert found.low < found.value < found.high
    assert found.p_value == 1 / 200
    shifted = mean_correlation_test(3.0 * x - 7.0, rng=np.random.default_rng(0), reps=199)
    assert shifted.value == pytest.approx(found.value, abs=1e-12)
    assert shifted.p_value == found.p_value


def test_a_loud_spell_that_all_share_is_no_tie() -> None:
    """Four times as loud for sixty steps: shifts in time called every fourth of these one."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng([seed, 15])
        x = rng.standard_normal((900, 8))
        x[300:360] *= 4.0
        p.append(mean_correlation_test(x, rng=rng, reps=59).p_value)
    assert (np.array(p) <= 0.05).sum() <= 6  # more has a chance of 0.3 %
    assert 0.35 < np.mean(p) < 0.65


def test_a_series_that_starts_late_counts_for_the_steps_that_it_was_seen() -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_normal((900, 1)) + rng.standard_normal((900, 5))
    x[:400, 4] = np.nan
    x[:, 3] = np.nan
    found = mean_correlation_test(x, rng=rng, reps=199)
    assert found.series == 4
    assert found.low < 0.5 < found.high
    nothing = mean_correlation_test(x[:, 3:4], rng=rng)
    assert nothing.reason.startswith("too little")
    assert np.isnan(nothing.value)


def test_copies_and_short_series_make_no_tie() -> None:
    rng = np.random.default_rng(14)
    x = rng.standard_normal((300, 5))
    x[:, 1] = 7.0 - 2.0 * x[:, 0]
    x[:, 3] = x[:, 2]
    x[9:, 4] = np.nan
    found = mean_correlation_test(x, rng=rng, reps=99)
    assert found.left_out == (
        "", "a copy of column 0", "", "a copy of column 2", "too short: 9 values, 10 are needed"
    )  # fmt: skip
    assert found.series == 2
    assert found.value == pytest.approx(np.corrcoef(x[:, 0], x[:, 2])[0, 1])
    assert found.low < 0.0 < found.high
    one = mean_correlation_test(x[:, :2], rng=rng, reps=99)
    assert np.isnan([one.value, one.p_value]).all()
    assert one.reason.endswith("column 1: a copy of column 0")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [750, 1_500])
def test_null_worlds_are_called_tied_as_often_as_the_level_says(steps: int) -> None:
    seeds, found, trapped = 500, [], 0
    for seed in range(seeds):
        growth, returns, _ = world(seed, steps, 8, Tandem.null())
        rng = np.random.default_rng(seed)
        found.append(mean_correlation_test(purge(growth, returns), rng=rng, reps=199).p_value)
        if seed < 50:
            left = same_day(growth, returns)
            trapped += mean_correlation_test(left, rng=rng, reps=99).p_value <= 0.05
    rates = {nominal: float(np.mean(np.array(found) <= nominal)) for nominal in (0.05, 0.10)}
    sys.stdout.write(
        f"\n{steps} steps, {seeds} null worlds: {rates}; same-step regression {trapped} of 50\n"
    )
    for nominal, rate in rates.items():
        low, high = binom.interval(0.99, seeds, nominal)
        assert low <= rate * seeds <= high
    assert trapped >= 48


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "steps"), [(0.3, 750), (0.5, 750), (0.3, 2_000)])
def test_the_band_covers_the_planted_correlation(correlation: float, steps: int) -> None:
    seeds, covered, values = 200, 0, []
    for seed in range(seeds):
        tandem = replace(Tandem.null(), correlation=correlation)
        growth, returns, _ = world(seed, steps, 8, tandem)
        rng = np.random.default_rng(seed)
        found = mean_correlation_test(purge(growth, returns), rng=rng, reps=199)
        covered += found.low <= correlation <= found.high
        values.append(found.value)
    sys.stdout.write(
        f"\n{correlation} over {steps} steps: covered {covered} of {seeds}, "
        f"mean {np.mean(values):.4f}, sd {np.std(values):.4f}\n"
    )
    assert covered >= 0.85 * seeds
    assert abs(float(np.mean(values)) - correlation) < 0.006
