"""Scores reward the honest forecast, and comparisons do not see differences that are luck."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from undertow.econometrics.scoring import (
    brier_score,
    coverage,
    diebold_mariano,
    interval_score,
    joint_score,
    quantile_score,
    sample_score,
)
from undertow.errors import EstimationError

Z = np.random.default_rng(1).standard_normal(4000)


def test_the_quantile_score_is_lowest_at_the_quantile() -> None:
    for share in (0.01, 0.5, 0.95):
        best = optimize.minimize_scalar(
            lambda q, share=share: quantile_score(Z, q, share).mean(), bounds=(-4, 4)
        )
        assert best.x == pytest.approx(np.quantile(Z, share), abs=0.02)
    assert quantile_score([1.0, -1.0], 0.0, 0.9) == pytest.approx([0.9, 0.1])


def test_the_joint_score_is_the_papers_with_losses_turned_round() -> None:
    rng = np.random.default_rng(2)
    y, v, alpha = rng.standard_normal(50), -rng.uniform(1.0, 2.0, 50), 0.05
    e = v - rng.uniform(0.1, 1.0, 50)
    paper = -1.0 / (alpha * e) * (y <= v) * (v - y) + v / e + np.log(-e) - 1.0
    assert joint_score(-y, -v, -e, alpha) == pytest.approx(paper, rel=1e-12)


def test_the_joint_score_is_lowest_on_average_at_the_true_pair() -> None:
    tail = 0.025

    def expected(pair: np.ndarray) -> float:
        v, e = pair
        if not 0.0 < v <= e:
            return math.inf
        over = integrate.quad(lambda x: (x - v) * stats.norm.pdf(x), v, 12.0)[0]
        return over / (tail * e) + v / e + math.log(e) - 1.0

    best = optimize.minimize(expected, [1.5, 2.5], method="Nelder-Mead",
                             options={"xatol": 1e-7, "fatol": 1e-12}).x  # fmt: skip
    var = -special.ndtri(tail)
    es = stats.norm.pdf(var) / tail
    assert best == pytest.approx([var, es], abs=1e-4)
    big = np.random.default_rng(3).standard_normal(400_000)
    assert joint_score(big, var, es, tail).mean() == pytest.approx(expected([var, es]), abs=0.01)


def test_differences_of_the_joint_score_do_not_depend_on_the_unit() -> None:
    one = joint_score(Z, 1.6, 2.0, 0.05) - joint_score(Z, 1.8, 2.4, 0.05)
    other = joint_score(9.0 * Z, 14.4, 18.0, 0.05) - joint_score(9.0 * Z, 16.2, 21.6, 0.05)
    assert one == pytest.approx(other, abs=1e-12)


def test_the_score_of_draws_is_the_double_sum() -> None:
    rng = np.random.default_rng(4)
    y, draws = rng.standard_normal(20), rng.standard_normal((20, 7))
    near = np.abs(draws - y[:, None]).mean(axis=1)
    apart = np.abs(draws[:, :, None] - draws[:, None, :]).sum(axis=(1, 2))
    assert sample_score(y, draws) == pytest.approx(near - apart / 98.0)
    assert sample_score(y, draws, fair=True) == pytest.approx(near - apart / 84.0)
    assert sample_score(y, draws[:, :1]) == pytest.approx(np.abs(draws[:, 0] - y))


def test_the_score_of_many_draws_is_that_of_their_law() -> None:
    rng = np.random.default_rng(5)
    y = rng.standard_normal(3000)
    law = y * (2.0 * special.ndtr(y) - 1.0) + 2.0 * stats.norm.pdf(y) - 1.0 / math.sqrt(math.pi)
    assert sample_score(y, rng.standard_normal((3000, 800))) == pytest.approx(law, abs=0.12)
    few = sample_score(y, rng.standard_normal((3000, 3)), fair=True)
    assert few.mean() == pytest.approx(law.mean(), abs=0.03)  # 3 draws, and no handicap
    assert sample_score(y, rng.standard_normal((3000, 3))).mean() > law.mean() + 0.1
    wide = sample_score(y, 2.0 * rng.standard_normal((3000, 400)))
    assert wide.mean() > law.mean() + 0.05


def test_the_interval_score_is_lowest_at_the_true_band() -> None:
    def mean(half: float) -> float:
        return float(interval_score(Z, -half, half, 0.9).mean())

    best = optimize.minimize_scalar(mean, bounds=(0.2, 4.0), method="bounded").x
    assert best == pytest.approx(np.quantile(np.abs(Z), 0.9), abs=0.02)
    assert interval_score([0.0, 3.0], -1.0, 1.0, 0.8) == pytest.approx([2.0, 22.0])


def test_the_brier_score_is_lowest_at_the_true_chance() -> None:
    happened = np.random.default_rng(6).random(5000) < 0.3
    scores = {p: brier_score(happened, p).mean() for p in (0.2, 0.3, 0.4)}
    assert min(scores, key=scores.__getitem__) == 0.3
    assert brier_score([True, False], [0.8, 0.8]) == pytest.approx([0.04, 0.64])


def test_coverage_has_a_band_that_clusters_widen_and_certainty_does_not_close() -> None:
    rng = np.random.default_rng(7)
    spread = coverage(rng.standard_normal(1000), -1.645, 1.645, lags=0)
    assert spread.low < 0.9 < spread.high
    blocks = np.repeat(rng.standard_normal(50), 20)
    clustered = coverage(blocks, -1.645, 1.645)
    assert clustered.high - clustered.low > 2.5 * (spread.high - spread.low)
    sure = coverage(np.zeros(50), -1.0, 1.0)
    q2 = 1.6448536269514722**2
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low == pytest.approx(1.0 / (1.0 + q2 / 50.0))  # Wilson's, all of 50


def test_the_comparison_is_the_papers_at_no_lags() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal(80) ** 2, 1.3 * rng.standard_normal(80) ** 2
    found = diebold_mariano(a, b, lags=0)
    d = a - b
    dm = d.mean() / math.sqrt(((d - d.mean()) ** 2).mean() / 80.0)
    wanted = dm * math.sqrt((80.0 + 1.0 - 2.0) / 80.0)
    assert found.statistic == pytest.approx(wanted)
    assert found.p == pytest.approx(2.0 * stats.t.sf(abs(wanted), 79))
    other = diebold_mariano(b, a, lags=0)
    assert other.statistic == pytest.approx(-found.statistic)
    longer = diebold_mariano(a, b, horizon=5, lags=4)
    shrink = math.sqrt((80.0 + 1.0 - 10.0 + 20.0 / 80.0) / 80.0)
    assert longer.statistic == pytest.approx(longer.difference / longer.error * shrink)
    assert diebold_mariano(a, b, horizon=9).lags >= 8


def test_equal_forecasters_are_told_apart_no_more_often_than_luck_allows() -> None:
    """150 rows of 3-step scores, 400 samples: a nominal 10 % rejects about 13 %."""
    rng = np.random.default_rng(9)
    wrong = 0
    for _ in range(400):
        e = rng.standard_normal((152, 2))
        errors = e[2:] + e[1:-1] + e[:-2]
        found = diebold_mariano(errors[:, 0] ** 2, errors[:, 1] ** 2, horizon=3)
        wrong += found.p < 0.1
    assert 0.06 < wrong / 400 < 0.17


def test_a_better_forecaster_is_found() -> None:
    rng = np.random.default_rng(10)
    losses = rng.standard_normal(2000)
    good, bad = joint_score(losses, 1.645, 2.063, 0.05), joint_score(losses, 1.2, 1.5, 0.05)
    found = diebold_mariano(good, bad)
    assert found.verdict() == "the first is better"
    assert diebold_mariano(bad, good).verdict() == "the second is better"
    assert found.difference < 0.0 < 0.01 > found.p


def test_what_cannot_be_compared_is_an_outcome_with_a_reason() -> None:
    a = np.random.default_rng(11).random(30)
    for found, words in (
        (diebold_mariano(a, a), "the scores are the same"),
        (diebold_mariano(a, a + 1.0), "the scores differ by a constant"),
        (diebold_mariano(a[:3], a[3:6]), "too short: 3 rows with both scores, 4 are needed"),
        (diebold_mariano(a, a[::-1], horizon=20), "too short: 30 rows"),
    ):
        assert found.status.startswith(words)
        assert math.isnan(found.p)
        assert found.verdict() == "no difference that these rows could show"
    b = a[::-1].copy()
    b[4:9] = np.nan
    assert diebold_mariano(a, b).rows == 25


def test_misuse_is_refused_in_words() -> None:
    for call, words in (
        (lambda: joint_score(Z, -1.6, -2.0, 0.05), "es at row 0 is not positive"),
        (lambda: joint_score(Z, 2.0, 1.6, 0.05), "es at row 0 is below value at risk"),
        (lambda: joint_score(Z, 1.6, 2.0, 5.0), "tail was 5"),
        (lambda: quantile_score(Z, Z[1:], 0.5), "forecast has 3999 rows, not 4000"),
        (lambda: quantile_score([np.nan], 0.0, 0.5), "is missing"),
        (lambda: brier_score([2.0], [0.5]), "neither true nor false"),
        (lambda: brier_score([1.0], [50.0]), "outside"),
        (lambda: interval_score(Z, 1.0, -1.0, 0.9), "low is above high at row 0"),
        (lambda: sample_score([1.0], np.ones((2, 3))), "y has 1 rows and draws has 2"),
        (lambda: sample_score([1.0], np.ones((1, 1)), fair=True), "needs two"),
        (lambda: diebold_mariano(Z, Z[1:]), "align them"),
        (lambda: diebold_mariano(Z, -Z, horizon=0), "horizon was 0"),
    ):
        with pytest.raises(EstimationError, match=words):
            call()
