"""The series that moves first is found, and chance and memory are not taken for a lead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from undertow.econometrics.leadlag import (
    CrossCorrelation,
    cross_correlation,
    lead_lag,
    procyclicality,
)
from undertow.errors import EstimationError


def led(x: np.ndarray, y: np.ndarray, **knobs: Any) -> CrossCorrelation:
    knobs = {"rng": np.random.default_rng(0), "draws": 999} | knobs
    return cross_correlation(x, y, **knobs)


def follower(rng: np.random.Generator, rows: int, lag: int, tie: float) -> np.ndarray:
    """Two series; the second repeats a part of the first `lag` steps later."""
    first = rng.standard_normal(rows + lag)
    second = tie * first[:rows] + np.sqrt(1.0 - tie**2) * rng.standard_normal(rows)
    return np.column_stack([first[lag:], second])


def test_correlations_are_those_of_shifted_series() -> None:
    x = follower(np.random.default_rng(1), 400, 3, 0.5)
    found = led(x[:, 0], x[:, 1], most=5, whiten=False)
    for lag, value in zip(found.lag, found.correlation, strict=True):
        u, v = (each - each.mean() for each in x.T)
        k = int(lag)
        product = sum(u[t] * v[t + k] for t in range(400) if 0 <= t + k < 400)
        assert value == pytest.approx(product / np.sqrt((u @ u) * (v @ v)), abs=1e-12)
    assert found.peak == 3


def test_the_leader_is_found_with_its_lag() -> None:
    x = follower(np.random.default_rng(2), 600, 4, 0.4)
    found = led(x[:, 0], x[:, 1])
    assert (found.peak, found.p_value < 0.01, found.score > 0.1) == (4, True, True)
    assert found.correlation[14] > found.high[14]
    back = led(x[:, 1], x[:, 0])
    assert back.peak == -4
    assert back.score == pytest.approx(-found.score, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_steps_that_were_not_seen_keep_their_places(share: float) -> None:
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = follower(rng, 900, 3, 0.4)
        x[rng.random(900) < share, 1] = np.nan
        whole = led(x[:, 0], x[:, 1], whiten=False)
        white = led(x[:, 0], x[:, 1])
        assert whole.rows == np.isfinite(x[:, 1]).sum()
        found.append((whole.peak, white.peak, white.p_value < 0.01))
    assert found == [(3, 3, True)] * 10


def test_a_correlation_over_gaps_is_that_of_the_steps_at_which_both_were_seen() -> None:
    rng = np.random.default_rng(8)
    x = follower(rng, 300, 2, 0.5)
    x[rng.random(x.shape) < 0.2] = np.nan
    found = led(x[:, 0], x[:, 1], most=5, whiten=False)
    first, last = np.flatnonzero(~np.isnan(x).any(axis=1))[[0, -1]]
    u, v = ((c - np.nanmean(c)) / np.nanstd(c) for c in x[first : last + 1].T)
    for lag, value in zip(found.lag.astype(int), found.correlation, strict=True):
        products = [u[t] * v[t + lag] for t in range(len(u)) if 0 <= t + lag < len(u)]
        assert value == pytest.approx(np.nanmean(products) * (1.0 - abs(lag) / len(u)), abs=1e-12)


def test_gaps_alone_are_no_lead() -> None:
    ahead, outside = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = lfilter([1.0], [1.0, -0.5], rng.standard_normal((500, 2)), axis=0)
        x[rng.random(500) < 0.3, 1] = np.nan
        x[:40, 0] = np.nan
        found = led(x[:, 0], x[:, 1])
        ahead += found.p_value <= 0.1
        outside.append(float((np.abs(found.correlation) > found.high).mean()))
    assert ahead <= 13  # of 60 at 10 %: more has a chance of 0.4 %
    assert 0.06 < np.mean(outside) < 0.14


def test_the_score_is_the_difference_of_squares_and_p_its_rank_among_drawn_signs() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 90))
    found = led(x, y, most=4, whiten=False, draws=4_000)
    assert found.score == pytest.approx(
        sum(found.correlation[4 + k] ** 2 - found.correlation[4 - k] ** 2 for k in range(1, 5)),
        abs=1e-12,
    )
    u, v = (each - each.mean() for each in (x, y))

    def score(signed: np.ndarray) -> float:
        size = np.sqrt((u @ u) * (v @ v))
        ahead = sum((signed[:-k] @ v[k:] / size) ** 2 for k in range(1, 5))
        return float(ahead - sum((signed[k:] @ v[:-k] / size) ** 2 for k in range(1, 5)))

    assert score(u) == pytest.approx(found.score, abs=1e-12)
    drawn = [abs(score(u * rng.choice([-1.0, 1.0], 90))) for _ in range(2_000)]
    share = float(np.mean(np.array(drawn) >= abs(found.score)))
    assert 0.05 < share < 0.95
    assert found.p_value == pytest.approx(share, rel=0.6)  # 20 draws as far: known to a fifth


@pytest.mark.parametrize("loud", [False, True])
def test_a_lead_by_chance_is_as_seldom_sure_as_its_p_value_says(loud: bool) -> None:
    """Down to one in a hundred, of series that share a loud spell as well."""
    rng, size = np.random.default_rng(9), np.ones((600, 1))
    if loud:
        size[200:240] = 4.0
    pairs = [(size * rng.standard_normal((600, 2))).T for _ in range(300)]
    p = np.array([led(*pair, whiten=False, rng=rng).p_value for pair in pairs])
    for nominal, most in ((0.01, 10), (0.05, 28), (0.2, 82)):
        assert (p <= nominal).sum() <= most  # more has a chance of one in a thousand or so
    assert 0.44 < p.mean() < 0.56


def test_memory_alone_is_no_lead_once_series_are_white() -> None:
    raw = white = 0
    outside: list[float] = []
    for seed in range(60):
        shocks = np.random.default_rng(seed).standard_normal((500, 2))
        x = lfilter([1.0], [1.0, -0.9], shocks, axis=0)
        plain = led(x[:, 0], x[:, 1], whiten=False)
        made = led(x[:, 0], x[:, 1])
        wide = 1.645 / np.sqrt(500)
        raw += bool((np.abs(plain.correlation) > wide).mean() > 0.4)
        white += made.p_value <= 0.1
        outside.append(float((np.abs(made.correlation) > made.high).mean()))
        assert made.orders[0] >= 1
        assert plain.high[10] > 2.0 * made.high[10]  # Bartlett's band knows of the memory
    assert raw >= 15
    assert 0.06 < np.mean(outside) < 0.14
    assert white <= 13  # of 60 at 10 %: more has a chance of 0.4 %


def test_a_chain_of_followers_is_read_in_its_order() -> None:
    rng = np.random.default_rng(4)
    source = rng.standard_normal(1_004)
    x = np.stack([source[4 - k : 1_004 - k] for k in (0, 2, 4)], axis=1)
    x = x + 0.8 * rng.standard_normal(x.shape)
    found = lead_lag(x, rng=np.random.default_rng(0), most=6)
    assert np.argsort(-found.lead).tolist() == [0, 1, 2]
    assert found.lag[0, 1] == 2
    assert found.lag[2, 0] == -4
    np.testing.assert_allclose(found.score, -found.score.T)
    assert np.isnan(np.diag(found.score)).all()


def test_series_of_no_use_are_named_and_the_others_compared() -> None:
    x = np.random.default_rng(5).standard_normal((300, 4))
    x[:, 1] = 2.0
    x[:270, 2] = np.nan
    found = lead_lag(x, rng=np.random.default_rng(0))
    assert found.reasons[0] == found.reasons[3] == ""
    assert found.reasons[1] == "constant"
    assert found.reasons[2].startswith("too short")
    assert np.isfinite(found.score[0, 3])
    assert np.isnan(found.lead[1:3]).all()
    nothing = led(x[:, 0], x[:, 1])
    assert nothing.reason == "constant"
    assert np.isnan(nothing.score)
    with pytest.raises(EstimationError, match="align"):
        led(x[:, 0], x[:50, 1])
    with pytest.raises(EstimationError, match="most was 0"):
        led(x[:, 0], x[:, 3], most=0)


def test_one_who_never_trades_has_the_passive_slope() -> None:
    rng = np.random.default_rng(6)
    assets = 100.0 * np.exp(np.cumsum(1e-3 * rng.standard_normal(500)))
    leverage = assets / (assets - 50.0)
    growth, ours = np.diff(np.log(leverage)), np.diff(np.log(assets))
    found = procyclicality(growth, ours, leverage=leverage)
    assert found.slope == pytest.approx(found.passive, abs=0.02)
    assert found.passive == pytest.approx(1.0 - leverage.mean())
    assert found.high < 0.0


def test_a_planted_slope_lies_in_its_band_nine_times_in_ten() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(300)
        noise = lfilter([1.0], [1.0, -0.3], rng.standard_normal(300))
        found = procyclicality(0.1 + 0.6 * x + noise, x)
        covered += found.low <= 0.6 <= found.high
    assert covered >= 80  # of 100 at 90 %: fewer has a chance of 0.2 %


def test_a_line_needs_assets_that_move() -> None:
    rng = np.random.default_rng(7)
    flat = procyclicality(rng.standard_normal(50), np.ones(50))
    assert flat.reason
    assert np.isnan(flat.slope)
    gaps = rng.standard_normal((200, 2))
    gaps[:30, 0] = np.nan
    assert procyclicality(gaps[:, 0], gaps[:, 1]).rows == 170
    with pytest.raises(EstimationError, match="align"):
        procyclicality(gaps[:, 0], gaps[:50, 1])
