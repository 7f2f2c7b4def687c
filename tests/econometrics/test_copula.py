"""The t copula: its likelihood, its degrees, and what they say of joint extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from shared import near
from undertow.econometrics import copula
from undertow.errors import EstimationError


def _student(
    rng: np.random.Generator, rows: int, size: int, rho: float, degrees: float
) -> np.ndarray:
    shape = np.full((size, size), rho)
    np.fill_diagonal(shape, 1.0)
    z = rng.standard_normal((rows, size)) @ np.linalg.cholesky(shape).T
    if math.isinf(degrees):
        return z
    return z / np.sqrt(rng.chisquare(degrees, (rows, 1)) / degrees)


def test_log_likelihoods_are_those_of_scipy_s_densities() -> None:
    x = _student(np.random.default_rng(1), 300, 3, 0.4, 5)
    fit = copula.fit_t_copula(x)
    u = copula.pseudo_observations(x)
    z = stats.norm.ppf(u)
    normal = stats.multivariate_normal(cov=fit.correlation).logpdf(z) - stats.norm.logpdf(z).sum(1)
    near(fit.normal_log_likelihood, normal.sum(), rel=1e-9)
    q = stats.t(fit.degrees).ppf(u)
    joint = stats.multivariate_t(shape=fit.correlation, df=fit.degrees).logpdf(q)
    near(fit.log_likelihood, (joint - stats.t(fit.degrees).logpdf(q).sum(1)).sum(), rel=1e-8)
    near(fit.correlation[0, 1], math.sin(math.pi / 2 * stats.kendalltau(*x.T[:2]).statistic))


def test_the_degrees_are_the_best_and_the_band_is_where_the_likelihood_falls_off() -> None:
    x = _student(np.random.default_rng(2), 400, 2, 0.5, 5)
    fit = copula.fit_t_copula(x, level=0.9)
    u = copula.pseudo_observations(x)

    def likelihood(degrees: float) -> float:
        q = stats.t(degrees).ppf(u)
        joint = stats.multivariate_t(shape=fit.correlation, df=degrees).logpdf(q)
        return float((joint - stats.t(degrees).logpdf(q).sum(1)).sum())

    assert likelihood(fit.degrees) >= max(likelihood(fit.degrees * f) for f in (0.98, 1.02))
    for end in (fit.degrees_low, fit.degrees_high):
        near(likelihood(end), fit.log_likelihood - stats.chi2.ppf(0.9, 1) / 2.0, unit=1e-3)


def test_planted_degrees_are_recovered() -> None:
    rng = np.random.default_rng(3)
    found = [copula.fit_t_copula(_student(rng, 800, 4, 0.5, 4)).degrees for _ in range(20)]
    assert np.median(found) == pytest.approx(4.0, rel=0.1)
    assert np.quantile(found, 0.9) < 5.5


def test_a_normal_copula_is_mostly_seen_as_one() -> None:
    rng = np.random.default_rng(4)
    fits = [copula.fit_t_copula(_student(rng, 500, 3, 0.5, math.inf)) for _ in range(30)]
    assert sum(fit.p_normal < 0.05 for fit in fits) <= 5
    assert sum(math.isinf(fit.degrees_high) for fit in fits) >= 24
    assert np.median([fit.tail[0, 1] for fit in fits]) < 0.02


def test_tail_dependence_is_the_limit_of_the_copula_s_own_corner() -> None:
    rho, degrees, u = 0.5, 4.0, 1e-5
    q = stats.t(degrees).ppf(u)
    inner = stats.t(degrees + 1.0)

    def chance(y: float) -> float:  # P(X < q | Y = y) of a bivariate t
        scale = math.sqrt((degrees + y * y) / (degrees + 1.0) * (1.0 - rho * rho))
        return float(inner.cdf((q - rho * y) / scale) * stats.t(degrees).pdf(y))

    corner, _ = integrate.quad(lambda w: chance(q / w) * -q / w**2, 0.0, 1.0)
    near(copula.t_tail_dependence(rho, degrees), corner / u, rel=2e-2)
    assert copula.t_tail_dependence(0.5, math.inf) == 0.0
    assert copula.t_tail_dependence(1.0, math.inf) == 1.0
    assert copula.t_tail_dependence(-1.0, 3.0) == 0.0


def test_margins_do_not_matter() -> None:
    x = _student(np.random.default_rng(5), 300, 2, 0.6, 4)
    bent = np.column_stack([np.exp(x[:, 0]), x[:, 1] ** 3])
    assert copula.fit_t_copula(x).degrees == copula.fit_t_copula(bent).degrees


def test_ties_and_gaps_are_survived_and_told() -> None:
    x = _student(np.random.default_rng(6), 1500, 2, 0.6, 4)
    plain = copula.fit_t_copula(x)
    rounded = np.round(x, 1)
    rounded[:40, 0] = np.nan
    fit = copula.fit_t_copula(rounded)
    assert (fit.rows, fit.reason) == (1460, "")
    assert 0.03 < fit.tied < 0.05
    assert fit.degrees == pytest.approx(plain.degrees, rel=0.35)
    assert fit.correlation[0, 1] == pytest.approx(plain.correlation[0, 1], abs=0.03)


def test_a_correlation_that_is_none_is_mended_and_told() -> None:
    rng = np.random.default_rng(7)
    base = rng.standard_normal((40, 3))
    x = np.column_stack([base, base[:, 0] - base[:, 1], base[:, 1] + base[:, 2], base.sum(axis=1)])
    fit = copula.fit_t_copula(x)
    assert fit.repaired > 0.0
    assert np.linalg.eigvalsh(fit.correlation)[0] > 0.0
    assert np.isfinite(fit.log_likelihood)


def test_what_cannot_be_fitted_is_an_outcome() -> None:
    x = _student(np.random.default_rng(8), 200, 2, 0.5, 4)
    flat, copy = np.column_stack([x, np.ones(200)]), np.column_stack([x, 3.0 * x[:, 0]])
    zeros = np.where(x < 0.5, 0.0, x)
    for values, reason in (
        (flat, "column 2 is constant"), (copy, "column 2 is a copy of column 0"),
        (x[:20], "20 rows with all series seen, 30 are needed"), (zeros, "are the same"),
    ):  # fmt: skip
        fit = copula.fit_t_copula(values)
        assert reason in fit.reason
        assert math.isnan(fit.degrees)
        band = copula.copula_band(values, rng=np.random.default_rng(0), reps=5)
        assert reason in band.reason


def test_the_bootstrap_band_is_wider_than_the_profile_and_holds_the_plant() -> None:
    rng = np.random.default_rng(9)
    x = _student(rng, 500, 2, 0.5, 4)
    fit, band = copula.fit_t_copula(x), copula.copula_band(x, rng=rng, reps=99, block=1.0)
    assert band.degrees[0] < 4.0 < band.degrees[1]
    assert band.degrees[0] < fit.degrees < band.degrees[1]
    truth = float(copula.t_tail_dependence(0.5, 4.0))
    assert band.tail_low[0, 1] < truth < band.tail_high[0, 1]
    assert 1.0 / band.degrees[0] - 1.0 / band.degrees[1] > 0.9 * (
        1.0 / fit.degrees_low - 1.0 / fit.degrees_high
    )
    own = copula.copula_band(x, rng=rng, reps=19)
    assert own.block >= 1.0


@pytest.mark.slow
def test_bootstrap_bands_hold_planted_degrees_in_nine_of_ten_samples() -> None:
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(100):
        band = copula.copula_band(_student(rng, 500, 2, 0.5, 4), rng=rng, reps=99, block=1.0)
        held += band.degrees[0] <= 4.0 <= band.degrees[1]
    assert 82 <= held <= 98


def test_misuse_is_refused_by_name() -> None:
    with pytest.raises(EstimationError, match="x is 50 rows by 1 columns"):
        copula.fit_t_copula(np.zeros((50, 1)))
    with pytest.raises(EstimationError, match="degrees was 0"):
        copula.t_tail_dependence(0.5, 0.0)
    with pytest.raises(EstimationError, match=r"outside \[-1, 1\]"):
        copula.t_tail_dependence(1.5, 4.0)
    with pytest.raises(EstimationError, match="level was 1"):
        copula.fit_t_copula(np.zeros((50, 2)), level=1.0)
