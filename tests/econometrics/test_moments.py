"""Moments over time: against pandas and plain loops, on levels, with gaps, spikes and flats."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from undertow.econometrics import fading, moments
from undertow.econometrics.moments import RollingPairs
from undertow.errors import EstimationError
from undertow.kernels import fading as fading_kernels
from undertow.kernels import ranks, rolling

WINDOW = 40


@cache
def complete() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_t(4, (700, 5)) + 0.7 * rng.standard_normal((700, 1))


@cache
def gappy() -> np.ndarray:
    rng = np.random.default_rng(2)
    x = complete().copy()
    x[rng.random(x.shape) < 0.15] = np.nan
    x[:300, 4] = np.nan  # starts late
    return x


def matrices(found: RollingPairs) -> np.ndarray:
    return np.stack([found.matrix(step) for step in range(len(found.values))])


def same(got: np.ndarray, wanted: np.ndarray, near: float = 1e-12) -> None:
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert np.nanmax(np.abs(got - wanted)) < near


def pandas_pairs(rolled: Any, name: str, series: int) -> np.ndarray:
    return getattr(rolled, name)(pairwise=True).to_numpy().reshape(-1, series, series)


# ---- against pandas, which works everything out in its own way


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
@pytest.mark.parametrize("name", ["corr", "cov"])
def test_pairs_in_a_window_are_those_of_pandas(x: Callable[[], np.ndarray], name: str) -> None:
    function = moments.rolling_correlation if name == "corr" else moments.rolling_covariance
    found = function(x(), WINDOW, least=12)
    wanted = pandas_pairs(pd.DataFrame(x()).rolling(WINDOW, min_periods=12), name, 5)
    off = ~np.eye(5, dtype=bool)
    same(matrices(found)[:, off], wanted[WINDOW - 1 :][:, off])
    assert found.missing == np.isnan(found.values).sum()
    assert bool(found.status) == bool(found.missing)
    assert found.first_row == WINDOW - 1


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
@pytest.mark.parametrize("name", ["corr", "cov"])
def test_pairs_with_a_fading_past_are_those_of_pandas(
    x: Callable[[], np.ndarray], name: str
) -> None:
    function = fading.ewma_correlation if name == "corr" else fading.ewma_covariance
    found = function(x(), 11.0, least=9)
    wanted = pandas_pairs(pd.DataFrame(x()).ewm(halflife=11.0, min_periods=9), name, 5)
    off = ~np.eye(5, dtype=bool)
    same(matrices(found)[:, off], wanted[8:][:, off])
    assert found.first_row == 8
    assert bool(found.status) == bool(found.missing)


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
def test_means_and_variances_are_those_of_pandas(x: Callable[[], np.ndarray]) -> None:
    found = moments.rolling_moments(x(), WINDOW, least=10)
    frame = pd.DataFrame(x()).rolling(WINDOW, min_periods=10)
    same(found.mean, frame.mean().to_numpy()[WINDOW - 1 :])
    same(found.variance, frame.var().to_numpy()[WINDOW - 1 :])
    assert bool(found.status) == bool(np.isnan(found.mean).any())
    faded = fading.ewma_moments(x(), 5.0, least=3)
    frame = pd.DataFrame(x()).ewm(halflife=5.0, min_periods=3)
    same(faded.mean, frame.mean().to_numpy())
    same(faded.variance, frame.var().to_numpy())


def test_ranks_in_a_window_are_correlated_as_scipy_does_it_ties_included() -> None:
    x = np.round(complete()[:200], 0)
    found = moments.rolling_spearman(x, 25)
    for step in range(0, 176, 5):
        wanted = spearmanr(x[step : step + 25]).statistic
        assert np.abs(found.matrix(step) - wanted).max() < 1e-14
    assert found.status == ""


def test_ranks_of_pairs_with_gaps_are_taken_over_the_rows_that_both_showed() -> None:
    x = np.round(gappy()[250:420], 1)
    found = moments.rolling_spearman(x, 30, least=8)
    off = ~np.eye(5, dtype=bool)
    for step in range(0, 141, 10):
        wanted = pd.DataFrame(x[step : step + 30]).corr("spearman", min_periods=8).to_numpy()
        same(found.matrix(step)[off], wanted[off])
    assert "fewer than 8 joint values" in found.status


# ---- digits, against two passes over each window


def in_two_passes(x: np.ndarray, window: int) -> np.ndarray:
    """Correlations of each window, less its own last row first, so that a level costs nothing."""
    parts = [x[step : step + window] for step in range(len(x) - window + 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([np.corrcoef(part - part[-1], rowvar=False) for part in parts])


@pytest.mark.parametrize(
    "level", [0.0, 1e6, -1e9], ids=["no level", "a million", "minus a billion"]
)
def test_a_large_level_costs_no_digits(level: float) -> None:
    x = complete() + level  # the sum itself rounds, and both see what it left
    found = moments.rolling_correlation(x, WINDOW)
    assert np.abs(matrices(found) - in_two_passes(x, WINDOW)).max() < 1e-10


def test_a_walk_far_from_where_it_began_costs_no_digits() -> None:
    x = np.cumsum(complete(), axis=0) * [1.0, 1e3, 1e-3, 1.0, 1.0] + 1e6
    found = moments.rolling_correlation(x, WINDOW)
    assert np.abs(matrices(found) - in_two_passes(x, WINDOW)).max() < 1e-10


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gappy"])
def test_a_jump_to_a_far_level_costs_no_digits_once_it_has_left_the_window(gaps: bool) -> None:
    x = complete().copy()
    x[200:, 1] += 1e8
    x[350:, 2] -= 1e7
    if gaps:
        x[3, 0] = np.nan
    found = matrices(moments.rolling_correlation(x, WINDOW, least=5))[4:]
    assert np.abs(found - in_two_passes(x[4:], WINDOW)).max() < 1e-10


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gappy"])
def test_a_spike_leaves_no_trace_when_it_leaves_the_window(gaps: bool) -> None:
    x = complete().copy()
    x[301, 1] = 1e9
    x[430, 2] += 1e9
    if gaps:
        x[3, 0] = np.nan
    found = matrices(moments.rolling_correlation(x, WINDOW, least=5))[4:]
    assert np.abs(found - in_two_passes(x[4:], WINDOW)).max() < 1e-10


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gappy"])
def test_a_series_that_jumps_between_flat_levels_has_a_correlation_only_where_it_moved(
    gaps: bool,
) -> None:
    x = complete().copy()
    x[:, 3] = 1e6 + np.repeat(np.arange(7) ** 3.0, 100)
    if gaps:
        x[3, 0] = np.nan
    found = moments.rolling_correlation(x, WINDOW, least=5)
    got, wanted = matrices(found)[4:], in_two_passes(x[4:], WINDOW)
    off = ~np.eye(5, dtype=bool)
    same(got[:, off], wanted[:, off], 1e-10)
    assert "stood still" in found.status
    assert found.missing > 0


def test_a_value_repeated_with_rounding_noise_counts_as_standing_still() -> None:
    x = complete().copy()
    x[:, 0] = 1e6 * (1.0 + np.finfo(float).eps * (np.arange(len(x)) % 2))
    found = moments.rolling_correlation(x, WINDOW)
    assert np.isnan(found.values[:, :4]).all()
    assert not np.isnan(found.values[:, 4:]).any()


# ---- the same numbers in other clothes


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
def test_blocks_of_steps_are_the_whole_to_the_bit(
    x: Callable[[], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_BLOCK", 100 * 10 * 8)
    whole = moments.rolling_correlation(x(), WINDOW, least=9)
    blocks = list(moments.rolling_correlation_blocks(x(), WINDOW, least=9))
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate([b.values for b in blocks]), whole.values, equal_nan=True)
    assert [b.first_row for b in blocks] == list(range(WINDOW - 1, len(x()), 100))
    assert sum(b.missing for b in blocks) == whole.missing


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
def test_the_mean_over_pairs_needs_no_pairs_to_be_kept(x: Callable[[], np.ndarray]) -> None:
    found = moments.rolling_mean_correlation(x(), WINDOW, least=9)
    pairs = moments.rolling_correlation(x(), WINDOW, least=9).values
    assert np.abs(found.values - np.nanmean(pairs, axis=1)).max() < 1e-14
    assert (found.used == (~np.isnan(pairs)).sum(axis=1)).all()


def test_the_mean_leaves_out_who_stands_still_and_says_where_nobody_is_left() -> None:
    x = complete()[:200].copy()
    x[60:, 2] = 5.0
    found = moments.rolling_mean_correlation(x, WINDOW)
    pairs = moments.rolling_correlation(x, WINDOW).values
    assert np.abs(found.values - np.nanmean(pairs, axis=1)).max() < 1e-14
    assert found.used[-1] == 6
    flat = moments.rolling_mean_correlation(np.ones((60, 3)), WINDOW)
    assert np.isnan(flat.values).all()
    assert "at 21 of 21 steps" in flat.status


def test_the_mean_by_risk_is_what_the_variance_of_the_sum_implies() -> None:
    x = complete() * [1.0, 2.0, 3.0, 0.5, 7.0] + 1e6
    found = moments.rolling_mean_correlation(x, WINDOW, by_risk=True)
    for step in (0, 100, 660):
        part = np.cov(x[step : step + WINDOW] - 1e6, rowvar=False)
        size = np.sqrt(np.diag(part))
        weights = np.outer(size, size)[np.triu_indices(5, 1)]
        each = (part / np.outer(size, size))[np.triu_indices(5, 1)]
        assert found.values[step] == pytest.approx(each @ weights / weights.sum(), abs=1e-11)


def test_single_precision_is_the_same_rounded() -> None:
    double = moments.rolling_correlation(complete(), WINDOW)
    single = moments.rolling_correlation(complete(), WINDOW, dtype=np.float32)
    assert single.values.dtype == np.float32
    assert np.array_equal(single.values, double.values.astype(np.float32))


def test_a_pair_is_found_in_either_order_and_results_are_closed_to_writing() -> None:
    found = moments.rolling_correlation(complete(), WINDOW)
    assert np.array_equal(found.of(3, 1), found.of(1, 3))
    assert found.of(1, 3)[7] == found.matrix(7)[1, 3]
    with pytest.raises(EstimationError, match="no pair of 2 and 2"):
        found.of(2, 2)
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0] = 1.0


# ---- outcomes and misuse


def test_a_copy_correlates_fully_and_a_mirror_fully_the_other_way() -> None:
    x = complete()[:, :1] * [1.0, 3.0, -2.0]
    found = moments.rolling_correlation(x, WINDOW).values
    assert np.abs(found - [1.0, -1.0, -1.0]).max() < 1e-12
    assert np.abs(found).max() <= 1.0


def test_more_series_than_rows_in_the_window_are_no_matter() -> None:
    x = np.random.default_rng(3).standard_normal((30, 50))
    found = moments.rolling_correlation(x, 5)
    assert np.abs(matrices(found) - in_two_passes(x, 5)).max() < 1e-12


def test_a_series_that_starts_late_has_correlations_once_it_has_enough_values() -> None:
    found = moments.rolling_correlation(gappy(), WINDOW, least=20)
    late = found.of(0, 4)
    first = int(np.flatnonzero(~np.isnan(late))[0])
    assert 20 <= first + WINDOW - 300 <= 35
    assert np.isnan(late[:first]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: moments.rolling_correlation(x[:10], 20), "10 rows by 5 columns; at least 20"),
        (lambda x: moments.rolling_correlation(x[:, :1], 20), "at least 20 by 2"),
        (lambda x: moments.rolling_correlation(x, 2), "window was 2"),
        (lambda x: moments.rolling_correlation(x, 20, least=21), "least was 21; it may be 3 to"),
        (lambda x: moments.rolling_correlation(x, 20, dtype=np.int32), "dtype was int32"),
        (lambda x: moments.rolling_spearman(np.where(x > 3, np.inf, x), 20), "is infinite"),
        (lambda x: fading.ewma_correlation(x, 0.0), "half_life was 0"),
        (lambda x: fading.ewma_correlation(x[:6], 9.0), "least was 9; it may be 3 to 6"),
        (lambda x: moments.rolling_mean_correlation(gappy(), 20, by_risk=True), "is missing"),
    ],
)
def test_misuse_is_refused_in_words(call: Callable[[np.ndarray], Any], words: str) -> None:
    with pytest.raises(EstimationError, match=words):
        call(complete())


# ---- compiled kernels do what their source says, to the bit


def run_moments(window: int, x: np.ndarray, python: bool) -> tuple[np.ndarray, ...]:
    function = rolling.window_moments.py_func if python else rolling.window_moments
    shape = (len(x) - window + 1, x.shape[1])
    count, restart = np.empty(shape, dtype=np.int32), np.empty(shape[0], dtype=np.bool_)
    mean, square = np.empty(shape), np.empty(shape)
    function(x, window, 16, count, mean, square, restart)
    return count, mean, square, restart


@pytest.mark.parametrize("x", [complete, gappy], ids=["complete", "gappy"])
def test_compiled_moments_are_those_of_the_source(x: Callable[[], np.ndarray]) -> None:
    part = x()[280:340].copy()
    part[30:, 1] += 1e7
    part.flags.writeable = False
    for got, wanted in zip(
        run_moments(9, part, python=False), run_moments(9, part, python=True), strict=True
    ):
        assert np.array_equal(got, wanted, equal_nan=True)
    assert run_moments(9, part, python=False)[3].sum() > 4


def test_compiled_pairs_are_those_of_the_source() -> None:
    x = complete()[:40]
    _, _, square, restart = run_moments(9, x, python=False)
    results = []
    for function in (rolling.pair_products, rolling.pair_products.py_func):
        out = np.empty((len(restart), 10))
        sums = rolling.empty_sums(5)
        function(x, 9, 0, restart, 1.0 / np.sqrt(square), 1.0, sums, out)
        mean = np.empty(len(restart))
        other = rolling.mean_products
        other = other if function is rolling.pair_products else other.py_func
        other(x, 9, 0, restart, 1.0 / np.sqrt(square), sums, mean)
        results.append(np.column_stack([out, mean]))
    assert np.array_equal(*results)


def test_compiled_gappy_pairs_are_those_of_the_source() -> None:
    x = gappy()[280:330].copy()
    x[20:34, 0] = 3.0
    _, _, _, restart = run_moments(9, x, python=False)
    results = []
    for function in (rolling.gappy_products, rolling.gappy_products.py_func):
        out, missing = np.empty((len(restart), 10)), np.zeros(2, dtype=np.int64)
        function(x, 9, 4, 0, restart, 1, rolling.empty_gappy_sums(5), out, missing)
        results.append(np.append(out, missing))
    assert np.array_equal(*results, equal_nan=True)
    assert np.isnan(results[0]).any()


def test_compiled_fading_is_that_of_the_source() -> None:
    results = []
    for name in ("fading_complete", "fading_products"):
        for python in (False, True):
            function = getattr(fading_kernels, name)
            function = function.py_func if python else function
            out, missing = np.empty((30, 10)), np.zeros(2, dtype=np.int64)
            if name == "fading_complete":
                function(complete(), 0.9, 0, np.zeros((3, 5)), np.zeros(10), 1, out)
            else:
                function(gappy()[280:], 0.9, 4, 0, np.zeros((10, 8)), 1, out, missing)
            results.append(out)
    assert np.array_equal(results[0], results[1], equal_nan=True)
    assert np.array_equal(results[2], results[3], equal_nan=True)


def test_compiled_small_steps_are_those_of_the_source() -> None:
    rng = np.random.default_rng(8)
    a, b = np.round(rng.standard_normal((2, 23)), 1)
    for name, given in {
        "add_to": (b, -1.0), "add_products": (b, 0.3), "slide_products": (a, 0.3, b, -1.7),
    }.items():  # fmt: skip
        sums = [np.arange(23.0) * 1e9, np.zeros(23)]
        twins = [each.copy() for each in sums]
        getattr(rolling, name)(*sums, *given)
        getattr(rolling, name).py_func(*twins, *given)
        assert np.array_equal(sums, twins)
        assert sums[1].any()
    assert rolling.quick_sum(a) == rolling.quick_sum.py_func(a)
    x = np.column_stack([a, b])
    assert rolling.direct_product(x, 0, 23, 0, 1, 1) == rolling.direct_product.py_func(
        x, 0, 23, 0, 1, 1
    )
    assert np.array_equal(ranks.mean_ranks(a), ranks.mean_ranks.py_func(a))
    assert ranks.ranked_product(a, b) == ranks.ranked_product.py_func(a, b)


def test_compiled_sliding_ranks_are_those_of_the_source_and_of_a_fresh_ranking() -> None:
    x = np.round(complete()[:30], 0)
    values = np.ascontiguousarray(x[:12].T)
    order = np.array([ranks.mean_ranks(column) for column in values])
    twins = values.copy(), order.copy()
    for step in range(1, 19):
        ranks.slide_ranks(values, order, (step - 1) % 12, x[step + 11])
        ranks.slide_ranks.py_func(*twins, (step - 1) % 12, x[step + 11])
        assert np.array_equal(order, twins[1])
        assert np.array_equal(order, [ranks.mean_ranks(column) for column in values])
