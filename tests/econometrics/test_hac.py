"""Errors under clusters and memory, against another library, plain loops and planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from undertow.econometrics.hac import (
    automatic_lags,
    correlation_band,
    long_run_covariance,
    mean_band,
    ols,
)
from undertow.errors import EstimationError


def autoregression(rng: np.random.Generator, rows: int, phi: float, columns: int = 1) -> np.ndarray:
    shocks = rng.standard_normal((rows + 200, columns))
    return lfilter([1.0], [1.0, -phi], shocks, axis=0)[200:]


def line(rng: np.random.Generator, rows: int = 250) -> tuple[np.ndarray, np.ndarray]:
    x = autoregression(rng, rows, 0.6, 2)
    noise = autoregression(rng, rows, 0.6)[:, 0] * (1.0 + np.abs(x[:, 0]))
    return 0.5 + x @ [1.0, -2.0] + noise, x


@pytest.mark.parametrize("lags", [0, 1, 7])
@pytest.mark.parametrize("constant", [True, False])
def test_regressions_are_those_of_another_library(lags: int, constant: bool) -> None:
    import statsmodels.api as sm

    y, x = line(np.random.default_rng(1))
    ours = ols(y, x, lags=lags, constant=constant)
    theirs = sm.OLS(y, sm.add_constant(x) if constant else x).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True}, use_t=True
    )
    assert ours.coef == pytest.approx(theirs.params, rel=1e-10)
    assert ours.covariance == pytest.approx(theirs.cov_params(), rel=1e-9, abs=1e-15)
    assert ours.t == pytest.approx(theirs.tvalues, rel=1e-9)
    assert ours.p == pytest.approx(theirs.pvalues, rel=1e-7, abs=1e-300)
    assert ours.r2 == pytest.approx(theirs.rsquared, rel=1e-10)
    assert pytest.approx(theirs.conf_int(0.05), rel=1e-9) == np.array(ours.band(0.95)).T
    assert (ours.rows, ours.lags, ours.status) == (250, lags, "")


def test_long_run_covariance_is_the_weighted_sum_of_products() -> None:
    x = autoregression(np.random.default_rng(2), 60, 0.5, 3)
    x[5:9, 1] = np.nan
    counts = (~np.isnan(x)).sum(axis=0)
    e = np.nan_to_num(x - np.nanmean(x, axis=0))
    wanted = np.zeros((3, 3))
    for t in range(60):
        for s in range(60):
            if abs(t - s) <= 4:
                wanted += (1.0 - abs(t - s) / 5.0) * np.outer(e[t], e[s])
    wanted /= np.sqrt(np.outer(counts, counts))
    assert long_run_covariance(x, lags=4) == pytest.approx(wanted, rel=1e-12)
    assert long_run_covariance(x[:, 0], lags=4)[0, 0] == pytest.approx(wanted[0, 0])


def test_long_run_covariance_is_never_negative_however_many_gaps() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        x = autoregression(rng, 40, -0.7, 5)
        x[rng.random(x.shape) < 0.4] = np.nan
        found = long_run_covariance(x, lags=int(rng.integers(0, 39)))
        assert np.linalg.eigvalsh(found).min() > -1e-10


def test_automatic_lags_follow_the_papers_formulas() -> None:
    rng = np.random.default_rng(4)
    for phi in (-0.3, 0.2, 0.6, 0.9):
        x = autoregression(rng, 300, phi)[:, 0]
        z = x - x.mean()
        cov = [float(z[j:] @ z[: 300 - j]) / 300 for j in range(6)]  # 4 (300/100)^(2/9) is 5.1
        s1 = 2.0 * sum(j * cov[j] for j in range(1, 6))
        s0 = cov[0] + 2.0 * sum(cov[1:])
        assert automatic_lags(x) == int(1.1447 * ((s1 / s0) ** 2 * 300) ** (1 / 3))
        r = float(z[1:] @ z[:-1]) / float(z[:-1] @ z[:-1])
        alpha = 4.0 * r * r / ((1.0 - r) ** 2 * (1.0 + r) ** 2)
        assert automatic_lags(x, rule="andrews") == int(1.1447 * (alpha * 300) ** (1 / 3))


def test_automatic_lags_do_not_depend_on_units_or_signs() -> None:
    x = autoregression(np.random.default_rng(5), 200, 0.7, 3)
    for rule in ("newey-west", "andrews"):
        one = automatic_lags(x, rule=rule)
        assert one == automatic_lags(x * [1e-8, -1.0, 1e6] + [0.0, 5.0, 1e3], rule=rule)
        assert one > 3
    assert automatic_lags(np.ones((50, 2))) == 0
    assert automatic_lags(autoregression(np.random.default_rng(6), 8, 0.9)) <= 4


def test_the_variance_of_a_mean_with_memory_is_found() -> None:
    rng = np.random.default_rng(7)
    found = [long_run_covariance(autoregression(rng, 1000, 0.5))[0, 0] for _ in range(60)]
    assert np.mean(found) == pytest.approx(4.0, rel=0.12)  # 1/(1 - phi)^2; the bias is downward
    assert np.mean(found) < 4.1


def test_a_band_of_a_mean_covers_where_the_usual_one_does_not() -> None:
    """400 rows, autocorrelation 0.5, 300 samples: about 88 % for a nominal 90, against 68."""
    rng = np.random.default_rng(8)
    hits, naive = [], []
    for _ in range(300):
        x = autoregression(rng, 400, 0.5)[:, 0]
        found = mean_band(x)
        hits.append(found.low <= 0.0 <= found.high)
        naive.append(abs(x.mean()) <= 1.645 * x.std() / 20.0)
    assert 0.82 < np.mean(hits) < 0.94
    assert np.mean(naive) < 0.75


def test_a_band_of_a_correlation_is_fishers_where_rows_are_independent_and_normal() -> None:
    rng = np.random.default_rng(9)
    common = rng.standard_normal(20_000)
    x, y = common + rng.standard_normal(20_000), common + rng.standard_normal(20_000)
    found = correlation_band(x, y, lags=0)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    assert found.error == pytest.approx((1.0 - found.value**2) / math.sqrt(20_000), rel=0.03)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(
        1.645 / math.sqrt(20_000), rel=0.03
    )


def test_a_band_of_a_correlation_covers_under_clusters_where_fishers_does_not() -> None:
    """Shared volatility with memory, 1,000 rows: about 86 % for a nominal 90, against 56."""
    rng = np.random.default_rng(10)
    hits, fisher = [], []
    for _ in range(300):
        volatility = np.exp(autoregression(rng, 1000, 0.9)[:, 0] * 0.3)
        common = rng.standard_normal(1000)
        x = volatility * (common + rng.standard_normal(1000))
        y = volatility * (common + rng.standard_normal(1000))
        found = correlation_band(x, y)
        hits.append(found.low <= 0.5 <= found.high)
        fisher.append(abs(math.atanh(found.value) - math.atanh(0.5)) <= 1.645 / math.sqrt(997))
    assert 0.80 < np.mean(hits) < 0.94
    assert np.mean(fisher) < np.mean(hits) - 0.1


def test_missing_rows_are_left_out_and_keep_their_place() -> None:
    y, x = line(np.random.default_rng(11), 120)
    y[10:20], x[50, 1] = np.nan, np.nan
    seen = ~np.isnan(y + x.sum(axis=1))
    found, dropped = ols(y, x, lags=0), ols(y[seen], x[seen], lags=0)
    assert found.coef == pytest.approx(dropped.coef)
    assert found.se == pytest.approx(dropped.se)
    assert found.rows == 109
    assert np.isnan(found.residuals).sum() == 11
    assert ols(y, x, lags=3).se != pytest.approx(ols(y[seen], x[seen], lags=3).se, rel=1e-6)
    both = correlation_band(y, x[:, 1], lags=0)
    assert both.value == pytest.approx(np.corrcoef(y[seen], x[seen, 1])[0, 1])


def test_what_cannot_be_estimated_is_an_outcome_with_a_reason() -> None:
    y, x = line(np.random.default_rng(12), 60)
    twin = np.column_stack([x, 2.0 * x[:, 0] - 3.0])
    for fit, words in (
        (ols(y, twin), "column 2 of x is a combination of the columns before it and the constant"),
        (ols(y, np.ones((60, 1))), "column 0 of x is a combination"),
        (ols(y, np.zeros((60, 1)), constant=False), "column 0 of x is a combination"),
        (ols(y[:3], x[:3]), "too short: 3 rows for 3 coefficients"),
        (ols(y, np.random.default_rng(1).standard_normal((60, 80))), "too short: 60 rows for 81"),
    ):
        assert fit.status.startswith(words)
        assert np.isnan(fit.coef).all()
        assert np.isnan(fit.t).all()
        assert np.isnan(fit.p).all()
    near = ols(y, np.column_stack([x, x[:, 0] * (1.0 + 1e-6 * x[:, 1])]))
    assert near.status == ""
    assert np.isfinite(near.se).all()
    flat = ols(np.full(60, 2.0), x)
    assert flat.status == "y is constant: r2 does not exist"
    assert flat.coef == pytest.approx([2.0, 0.0, 0.0], abs=1e-12)
    assert mean_band([1.0, np.nan, 2.0]).status == "too short: 2 values, 3 are needed"
    assert mean_band(np.full(9, 3.0)).error == pytest.approx(0.0, abs=1e-12)
    assert correlation_band(y, np.ones(60)).status == "y is constant"
    assert correlation_band(y[:3], x[:3, 0]).status.startswith("too short")
    same = correlation_band(y, -2.0 * y)
    assert (same.value, same.low, same.high) == (-1.0, -1.0, -1.0)


def test_misuse_is_refused_in_words() -> None:
    y, x = line(np.random.default_rng(13), 40)
    for call, words in (
        (lambda: ols(y[1:], x), "y has 39 rows and x has 40"),
        (lambda: ols(y, x, lags=-1), "lags was -1"),
        (lambda: ols(y, x, lags=40), "lags was 40"),
        (lambda: ols(y, x[:, :0], constant=False), "x has no columns"),
        (lambda: automatic_lags(y, rule="best"), "rule was 'best'"),
        (lambda: mean_band(y, level=90.0), "level was 90"),
        (lambda: correlation_band(y, x[1:, 0]), "x has 40 rows and y has 39"),
    ):
        with pytest.raises(EstimationError, match=words):
            call()


def test_a_regression_on_nothing_is_the_mean() -> None:
    y = autoregression(np.random.default_rng(14), 150, 0.4)[:, 0]
    fit, mean = ols(y, np.empty((150, 0)), lags=5), mean_band(y, lags=5)
    assert fit.coef[0] == pytest.approx(mean.value)
    assert fit.se[0] == pytest.approx(mean.error, rel=1e-10)
