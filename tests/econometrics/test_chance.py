"""What histories by chance keep of the series, and what they break."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from undertow.econometrics.chance import (
    Chance,
    CoincidenceNull,
    flipped,
    loudness,
    one_factor,
    ordinary_correlation,
    redirected,
    shared_degrees,
)
from undertow.errors import EstimationError


def sectors(rho: float, series: int = 8) -> np.ndarray:
    """Two halves, correlated within and not between."""
    half = np.arange(series) < series // 2
    tie = np.where(half[:, None] == half, rho, 0.0)
    np.fill_diagonal(tie, 1.0)
    return tie


def students(rng: np.random.Generator, rows: int, tie: np.ndarray, degrees: float) -> np.ndarray:
    z = rng.standard_normal((rows, len(tie))) @ np.linalg.cholesky(tie).T
    return z / np.sqrt(rng.chisquare(degrees, (rows, 1)) / degrees) if degrees < math.inf else z


def test_redirected_series_keep_memory_gaps_and_loud_times_and_lose_their_ties() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((900, 1)) + rng.standard_normal((900, 4))
    x[300:360] *= 4.0
    for t in range(1, 900):
        x[t, 2:] += 0.6 * x[t - 1, 2:]
    x[500:520, 0] = np.nan
    tie, memory, loud = [], [], []
    for made in redirected(x, rng, 60):
        assert (np.isnan(made) == np.isnan(x)).all()
        tie.append(np.corrcoef(made[:, 1:].T)[np.triu_indices(3, 1)])
        memory.append([np.corrcoef(made[1:, j], made[:-1, j])[0, 1] for j in (1, 2, 3)])
        loud.append(made[300:360, 1:].std() / made[600:, 1:].std())
    assert np.abs(np.mean(tie, axis=0)).max() < 0.05  # 0.5 in x
    np.testing.assert_allclose(np.mean(memory, axis=0), [0.0, 0.6, 0.6], atol=0.07)
    assert np.mean(loud) == pytest.approx(4.0, abs=0.6)


def test_flips_keep_sizes_and_places_and_draw_signs() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 6))
    x[3, 2] = np.nan
    turned = flipped(x, rng)
    np.testing.assert_array_equal(np.abs(turned), np.abs(x))
    sign = np.sign(turned * x)
    assert abs(np.nanmean(sign)) < 0.1
    assert np.abs(np.corrcoef(np.nan_to_num(sign).T) - np.eye(6)).max() < 0.2
    runs = np.sign(flipped(np.ones((95, 3)), rng, block=10))
    changes = (np.diff(runs, axis=0) != 0.0).any(axis=1).nonzero()[0]
    assert len(changes) > 3
    assert len(set((changes % 10).tolist())) == 1
    with pytest.raises(EstimationError, match="block was 0"):
        flipped(x, rng, block=0)


def test_loudness_follows_a_spell_from_its_first_step_and_not_a_single_loud_step() -> None:
    z = np.random.default_rng(2).standard_normal((600, 8))
    z[200:260] *= 4.0
    z[400, :6] = -5.0
    z[::7, 3] = np.nan
    loud = loudness(z, 10)
    assert loud[200:260].min() > 2.5
    assert 0.9 < np.median(loud[20:180]) < 1.3
    assert loud[400] < 1.4
    assert loud[100] == loudness(z, 10)[100]
    z[100] = 50.0  # a step itself is not counted
    assert loudness(z, 10)[100] == loud[100]


def test_the_correlation_is_that_of_each_pair_and_events_hardly_move_it() -> None:
    rng, tie = np.random.default_rng(3), sectors(0.6)
    z = students(rng, 2_000, tie, math.inf)
    z[[500, 900]] -= 6.0
    z[rng.random(z.shape) < 0.1] = np.nan
    found = ordinary_correlation(z)
    assert np.abs(found - tie).max() < 0.08
    assert np.linalg.eigvalsh(found)[0] > 0.0
    one = np.outer(np.full(5, 0.7), np.full(5, 0.7))
    np.fill_diagonal(one, 1.0)
    np.testing.assert_allclose(one_factor(one), 0.7, atol=1e-6)


@pytest.mark.parametrize(("degrees", "low", "high"), [(4.0, 3.0, 6.0), (math.inf, 20.0, math.inf)])
def test_shared_degrees_are_read_and_unwindings_do_not_make_them(
    degrees: float, low: float, high: float
) -> None:
    for seed in range(3):
        rng, tie = np.random.default_rng(seed), sectors(0.3)
        z = students(rng, 1_500, tie, degrees)
        z[::100, :6] -= 5.0
        assert low <= shared_degrees(z, tie) <= high


def test_histories_have_the_correlation_the_shared_tails_and_the_own_distributions() -> None:
    rng, tie = np.random.default_rng(5), sectors(0.6)
    z = students(rng, 3_000, tie, math.inf) ** 3
    z[:50, 1] = np.nan
    drawn = {}
    for degrees in (4.0, math.inf):
        chance = Chance(
            z, tie, one_factor(tie), 3, CoincidenceNull.COMMON, degrees, 1, np.random.default_rng(6)
        )
        history = chance._drawn(1, z)[0]
        drawn[degrees] = history
        assert np.isnan(history).tolist() == np.isnan(z).tolist()
        told = ~np.isnan(z[:, 1])
        assert stats.ks_2samp(history[told, 1], z[told, 1]).pvalue > 0.01
        assert set(history[told, 1]) <= set(z[told, 1])
        ranks = stats.spearmanr(history[50:]).statistic
        assert np.abs(ranks - tie).max() < 0.08
    apart = [both_low(history[50:]) for history in drawn.values()]
    assert apart[0] > 3.0 * max(apart[1], 1e-4)


def both_low(x: np.ndarray) -> float:
    """How often two series of different halves have a worst day in a hundred at once."""
    low = x[:, [0, 7]] < np.quantile(x[:, [0, 7]], 0.01, axis=0)
    return float(low.all(axis=1).mean())
