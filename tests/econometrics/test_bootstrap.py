"""Resampling in blocks keeps what it should keep, and its bands hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from undertow.econometrics.bootstrap import (
    band,
    block_lengths,
    block_shifts,
    circular_bootstrap,
    circular_indices,
    correlation_block,
    stationary_bootstrap,
    stationary_indices,
)
from undertow.econometrics.hac import correlation_band, mean_band
from undertow.errors import EstimationError


def autoregression(rng: np.random.Generator, rows: int, phi: float, columns: int = 1) -> np.ndarray:
    shocks = rng.standard_normal((rows + 200, columns))
    return lfilter([1.0], [1.0, -phi], shocks, axis=0)[200:]


def together(rng: np.random.Generator, rows: int, columns: int, rho: float = 0.5) -> np.ndarray:
    """Columns with autocorrelation 0.5 each, any two correlated by `rho`."""
    common = autoregression(rng, rows, 0.5)
    return np.sqrt(rho) * common + np.sqrt(1.0 - rho) * autoregression(rng, rows, 0.5, columns)


def mean_pairwise(x: np.ndarray) -> float:
    r = np.corrcoef(x.T)
    n = len(r)
    return (r.sum() - n) / (n * (n - 1))


def pearson(x: np.ndarray) -> float:
    return np.corrcoef(x.T)[0, 1]


def test_runs_of_the_stationary_bootstrap_are_geometric_with_the_asked_mean() -> None:
    rng = np.random.default_rng(1)
    rows, block = 200_000, 8.0
    index = stationary_indices(rows, block, rng)
    breaks = np.flatnonzero(np.diff(index) % rows != 1)
    runs = np.diff(breaks)
    assert np.mean(runs) == pytest.approx(block, rel=0.02)
    assert np.mean(runs == 1) == pytest.approx(1.0 / block, rel=0.05)
    assert np.mean(runs > block) == pytest.approx((1.0 - 1.0 / block) ** block, rel=0.03)


def test_every_row_is_as_likely_as_any_other_the_last_ones_too() -> None:
    for draw in (stationary_indices, circular_indices):
        rng = np.random.default_rng(2)
        counts = np.zeros(10)
        for _ in range(5_000):
            counts += np.bincount(draw(10, 4.0, rng), minlength=10)
        assert np.abs(counts / 5_000 - 1.0).max() < 0.08


def test_circular_runs_have_one_length_and_wrap() -> None:
    index = circular_indices(100, 9.5, np.random.default_rng(3))
    runs = np.diff(index) % 100
    assert len(index) == 100
    assert all(runs[k] == 1 for k in range(99) if k % 10 != 9)
    assert len(circular_indices(5, 80.0, np.random.default_rng(3))) == 5


def test_block_lengths_are_those_of_another_implementation() -> None:
    from arch.bootstrap import optimal_block_length

    rng = np.random.default_rng(4)
    x = np.column_stack([autoregression(rng, 400, phi)[:, 0]
                         for phi in (-0.5, -0.2, 0.0, 0.3, 0.5, 0.7, 0.8, 0.9)])  # fmt: skip
    ours, theirs = block_lengths(x), optimal_block_length(x)
    # they judge significance with a slightly other denominator, which may move M by a lag
    assert ours.stationary == pytest.approx(theirs["stationary"].to_numpy(), rel=2e-3)
    assert ours.circular == pytest.approx(theirs["circular"].to_numpy(), rel=2e-3)
    exact = np.isclose(ours.stationary, theirs["stationary"].to_numpy(), rtol=1e-12)
    assert exact.mean() >= 0.75
    assert ours.circular / ours.stationary == pytest.approx(1.5 ** (1 / 3))
    assert ours.joint() == pytest.approx(ours.stationary.mean())


def test_longer_memory_asks_for_longer_blocks() -> None:
    rng = np.random.default_rng(5)
    lengths = [np.median(block_lengths(autoregression(rng, 1000, phi, 20)).stationary)
               for phi in (0.0, 0.5, 0.9)]  # fmt: skip
    assert lengths[0] < 4.0 < lengths[1] < lengths[2]


def test_series_without_a_block_length_say_why() -> None:
    x = autoregression(np.random.default_rng(6), 60, 0.5, 4)
    x[:, 1], x[5:, 2], x[:20, 3] = 7.0, np.nan, np.nan
    found = block_lengths(x)
    assert found.reasons == ("", "constant", "too short: 5 values, 8 are needed", "")
    assert np.isnan(found.stationary).tolist() == [False, True, True, False]
    assert found.joint() == pytest.approx(np.mean(found.stationary[[0, 3]]))
    assert block_lengths(np.ones((50, 1))).joint() == 1.0
    assert block_lengths(np.tile([[1.0], [-1.0]], (50, 1))).stationary[0] >= 1.0 / 3.0


def test_bands_are_quantiles_of_the_draws_or_their_mirror_image() -> None:
    draws = np.random.default_rng(7).standard_normal((500, 2))
    low, high = band(draws, 0.8)
    assert low == pytest.approx(np.quantile(draws, 0.1, axis=0), rel=1e-12)
    assert high == pytest.approx(np.quantile(draws, 0.9, axis=0), rel=1e-12)
    mirrored = band(draws, 0.8, around=[1.0, 2.0])
    assert mirrored[0] == pytest.approx(2.0 * np.array([1.0, 2.0]) - high)
    assert mirrored[1] == pytest.approx(2.0 * np.array([1.0, 2.0]) - low)
    single = band(draws[:, 0])
    assert np.ndim(single[0]) == 0
    assert single[0] < single[1]


def test_draws_without_a_number_are_counted_and_left_out() -> None:
    x = np.random.default_rng(8).standard_normal((40, 1))

    def sometimes(rows: np.ndarray) -> list[float]:
        return [rows.mean(), rows.mean() if rows[0, 0] > 1.5 else np.nan]

    found = stationary_bootstrap(sometimes, x, rng=np.random.default_rng(9), reps=200)
    assert found.status == "the statistic gives no number on the data themselves"
    low, high = found.band()
    assert low[0] < x.mean() < high[0]
    assert np.isnan([low[1], high[1]]).all()  # more than half gave none
    assert np.isfinite(found.error()).all()
    never = stationary_bootstrap(lambda r: r.mean() if r[0, 0] < 1.0 else np.inf, x * 0.0 + x - 2.0,
                                 rng=np.random.default_rng(9), reps=50)  # fmt: skip
    assert never.status == ""
    rarely = stationary_bootstrap(lambda r: r.mean() if r[0, 0] < 1.0 else np.inf,
                                  np.r_[-1.0, x[1:, 0]], rng=np.random.default_rng(9))  # fmt: skip
    lost = int(np.isnan(rarely.draws).sum())
    assert 0 < lost < 400
    assert rarely.status == f"{lost} of 999 draws gave no number"


def test_the_error_of_a_mean_counts_its_memory() -> None:
    rng = np.random.default_rng(10)
    errors = [float(stationary_bootstrap(np.mean, autoregression(rng, 400, 0.5), rng=rng,
                                         reps=200).error()) for _ in range(40)]  # fmt: skip
    truth = 2.0 / np.sqrt(400.0)  # 1 / (1 - phi) over the root of the rows
    assert 0.8 * truth < np.mean(errors) < truth  # small-sample bias is downward: 0.86 here
    alone = stationary_bootstrap(np.mean, rng.standard_normal(400), rng=rng, block=1.0)
    assert float(alone.error()) == pytest.approx(1.0 / 20.0, rel=0.15)
    fixed = circular_bootstrap(np.mean, autoregression(rng, 400, 0.5), rng=rng, block=12.0)
    assert fixed.block == 12.0
    assert float(fixed.error()) == pytest.approx(truth, rel=0.35)


def test_rows_are_drawn_whole_with_their_gaps() -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((80, 3))
    x[::7, 1] = np.nan
    seen: set[tuple[float, ...]] = {tuple(row) for row in np.nan_to_num(x, nan=99.0)}

    def check(rows: np.ndarray) -> float:
        assert {tuple(row) for row in np.nan_to_num(rows, nan=99.0)} <= seen
        return float(np.nanmean(rows))

    assert stationary_bootstrap(check, x, rng=rng, reps=20).status == ""


def test_the_same_seed_gives_the_same_draws() -> None:
    x = np.random.default_rng(12).standard_normal((50, 2))
    twice = [stationary_bootstrap(pearson, x, rng=np.random.default_rng(1), reps=30).draws
             for _ in range(2)]  # fmt: skip
    assert np.array_equal(*twice)
    assert not twice[0].flags.writeable


def test_shifts_keep_each_series_and_break_what_they_share() -> None:
    rng = np.random.default_rng(13)
    x = together(rng, 300, 4, rho=0.9)
    x[:40, 2] = np.nan
    nulls = []
    for _ in range(200):
        moved = block_shifts(x, rng)
        assert np.array_equal(np.sort(moved, axis=0), np.sort(x, axis=0), equal_nan=True)
        nulls.append(np.corrcoef(moved[:, 0], moved[:, 1])[0, 1])
    doubled = np.concatenate([x[:, 3], x[:, 3]])
    assert any(np.array_equal(doubled[k : k + 300], moved[:, 3]) for k in range(300))
    assert pearson(x[:, :2]) > 0.8
    assert abs(np.mean(nulls)) < 0.05
    assert np.std(nulls) > 1.2 / np.sqrt(300.0)  # memory widens the null, as it should


def test_misuse_is_refused_in_words() -> None:
    rng = np.random.default_rng(14)
    for call, words in (
        (lambda: stationary_indices(10, 0.5, rng), "block was 0.5"),
        (lambda: stationary_indices(0, 2.0, rng), "rows was 0"),
        (lambda: stationary_indices(5, float("nan"), rng), "block was nan"),
        (lambda: stationary_bootstrap(np.mean, np.ones((5, 1)), rng=rng, reps=1), "reps was 1"),
        (lambda: stationary_bootstrap(lambda r: r, np.ones((5, 2)), rng=rng), "2 dimensions"),
        (lambda: band(np.ones(1)), "give two draws"),
        (lambda: band(np.ones(5), 1.0), "level was 1"),
        (lambda: block_shifts(np.array([[1.0], [np.inf]]), rng), "is infinite"),
    ):
        with pytest.raises(EstimationError, match=words):
            call()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "columns", "truth"), [("mean", 1, 0.0), ("pearson", 2, 0.5), ("pairs", 10, 0.5)]
)
def test_bands_cover_nearly_what_they_say(what: str, columns: int, truth: float) -> None:
    """Autoregressions of 0.5, 400 rows: nominal 90 %, the table in docs/methods."""
    statistic = {"mean": np.mean, "pearson": pearson, "pairs": mean_pairwise}[what]
    hits = np.zeros((400, 3))
    for s in range(len(hits)):
        rng = np.random.default_rng([s, columns])
        x = together(rng, 400, columns)
        found = stationary_bootstrap(statistic, x, rng=rng, reps=299)
        ends = [found.band(), found.band(basic=True)]
        if columns < 10:
            other = mean_band(x[:, 0]) if columns == 1 else correlation_band(x[:, 0], x[:, 1])
            ends.append((other.low, other.high))
        hits[s, : len(ends)] = [low <= truth <= high for low, high in ends]
    covered = hits.mean(axis=0)[: 2 + (columns < 10)]
    assert (covered > 0.80).all(), covered
    assert (covered < 0.94).all(), covered


def test_the_block_of_a_correlation_is_that_of_products() -> None:
    rng = np.random.default_rng(31)
    x = autoregression(rng, 1_500, 0.9, 4)
    assert 1.0 <= correlation_block(x) < 0.8 * block_lengths(x).joint()
    loud = np.repeat(np.exp(rng.standard_normal(30)), 50)[:, None] * rng.standard_normal((1_500, 4))
    assert correlation_block(loud + loud.mean(axis=1)[:, None]) > 2.0 * block_lengths(loud).joint()
    i, j = np.triu_indices(4, 1)
    centred = x - x.mean(axis=0)
    expected = block_lengths(centred[:, i] * centred[:, j]).joint()
    assert correlation_block(x) == pytest.approx(expected)
    assert correlation_block(7.0 * x + 3.0) == pytest.approx(expected)
    assert correlation_block(x[:, :1]) == 1.0
