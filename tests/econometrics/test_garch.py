"""Volatility fits against published digits, another library and planted parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from shared import check_all, shared_folder
from undertow.econometrics.garch import NAMES, garch
from undertow.errors import EstimationError
from undertow.kernels import recursions as kernel


def clustered(
    rng: np.random.Generator,
    rows: int,
    *,
    gamma: float = 0.0,
    dof: float = math.inf,
    law: tuple[float, float, float] = (0.05, 0.08, 0.87),
) -> np.ndarray:
    """A series that follows the model with a mean of 0.3."""
    omega, alpha, beta = law
    shocks = rng.standard_normal(rows + 300)
    if math.isfinite(dof):
        shocks = rng.standard_t(dof, rows + 300) * math.sqrt((dof - 2.0) / dof)
    h, e = omega / (1.0 - alpha - gamma / 2.0 - beta), np.empty(rows + 300)
    for t in range(rows + 300):
        e[t] = math.sqrt(h) * shocks[t]
        h = omega + (alpha + gamma * (e[t] < 0.0)) * e[t] ** 2 + beta * h
    return 0.3 + e[300:]


def close(got: Any, wanted: dict[str, float], rel: float) -> None:
    for name, value in wanted.items():
        assert getattr(got, name) == pytest.approx(value, rel=rel), name


def check(case: dict[str, Any], _: dict[str, Any]) -> set[str]:
    expected, tol = case["expected"], case["tol"]
    folder = shared_folder() / "oracles"
    if case["id"].startswith("dcc"):
        return set()
    if case["id"] == "fcp_benchmark_dmbp":
        fit = garch(pl.read_parquet(folder / case["inputs"]["data"])["dmbp"].to_numpy())
        params = {name: expected[name] for name in ("mu", "omega", "alpha", "beta")}
        close(fit, params, tol["rel"])
        assert fit.loglikelihood == pytest.approx(expected["loglikelihood"], abs=tol["abs"])
        # the digits given as errors are those of the Hessian alone, not the robust ones
        plain = fit.plain_errors[[NAMES.index(name) for name in params]]
        assert plain == pytest.approx(expected["std_errors"], rel=1e-5)
        robust = [0.00918935, 0.00649319, 0.0535317, 0.0724614]  # QMLE column of the benchmark
        assert fit.std_errors[[0, 1, 2, 4]] == pytest.approx(robust, rel=1e-5)
        return set(expected)
    data = pl.read_parquet(folder / "data_us_stocks_daily.parquet")
    x = 100.0 * data[case["inputs"]["column"]].to_numpy()
    for name in ("garch", "gjr"):
        fit = garch(x, asymmetric=name == "gjr", presample="backcast")
        wanted = dict(expected[name])
        for value in (wanted.pop("loglikelihood"), expected["frds_loglikelihood"][name]):
            assert fit.loglikelihood == pytest.approx(value, abs=tol["loglik_abs"])
        close(fit, wanted, tol["param_rel"])
        last = math.sqrt(fit.variance[-1])
        assert last == pytest.approx(expected["last_conditional_vol"][name], rel=tol["vol_rel"])
        assert fit.status == ""
    return set(expected)


def test_published_and_recorded_fits_are_met() -> None:
    check_all("garch_dcc", check, later={"a", "b", "rho_rows", "rho", "rho_mean", "independent"})


@pytest.mark.parametrize(
    ("asymmetric", "student", "mean"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, False)],
)
def test_fits_are_those_of_another_library(asymmetric: bool, student: bool, mean: bool) -> None:
    from arch import arch_model

    x = clustered(np.random.default_rng(1), 1500, gamma=0.06, dof=6.0)
    theirs = arch_model(
        x, mean="Constant" if mean else "Zero", o=int(asymmetric), dist="t" if student else "normal"
    ).fit(disp="off", tol=1e-10)
    fit = garch(x, asymmetric=asymmetric, student=student, mean=mean, presample="backcast")
    names = [NAMES[k] for k, free in enumerate((mean, 1, 1, asymmetric, 1, student)) if free]
    ours = np.array([getattr(fit, name) for name in names])
    assert fit.loglikelihood >= theirs.loglikelihood - 1e-6
    assert fit.loglikelihood == pytest.approx(theirs.loglikelihood, abs=1e-3)
    assert ours == pytest.approx(theirs.params.to_numpy(), rel=2e-3, abs=1e-4)
    errors = fit.std_errors[[NAMES.index(name) for name in names]]
    assert errors == pytest.approx(theirs.std_err.to_numpy(), rel=5e-3)
    theirs_path = theirs.conditional_volatility**2
    assert fit.variance == pytest.approx(theirs_path, rel=2e-3)


def test_planted_parameters_come_back_with_errors_that_tell_their_spread() -> None:
    """60 samples of 1,500 rows: means within 3 Monte Carlo errors and the known small bias."""
    found, said = [], []
    for seed in range(60):
        fit = garch(clustered(np.random.default_rng(seed), 1500))
        assert fit.status == ""
        found.append([fit.mu, fit.alpha, fit.beta])
        said.append(fit.std_errors[[0, 2, 4]])
    means, spread = np.mean(found, axis=0), np.std(found, axis=0)
    assert means == pytest.approx([0.3, 0.08, 0.87], abs=0.02)
    assert np.median(said, axis=0) == pytest.approx(spread, rel=0.35)


def test_falls_that_raise_volatility_and_fat_tails_come_back() -> None:
    x = clustered(np.random.default_rng(2), 12_000, gamma=0.1, dof=5.0, law=(0.05, 0.03, 0.87))
    fit = garch(x, asymmetric=True, student=True)
    got = [fit.alpha, fit.gamma, fit.beta, fit.dof]
    assert got == pytest.approx([0.03, 0.1, 0.87, 5.0], abs=0.5)
    away = (np.array(got) - [0.03, 0.1, 0.87, 5.0]) / fit.std_errors[2:]
    assert np.abs(away).max() < 3.0
    assert fit.loglikelihood > garch(x, student=True).loglikelihood + 20.0
    assert fit.loglikelihood > garch(x, asymmetric=True).loglikelihood + 200.0


@pytest.mark.parametrize("presample", ["mean", "backcast"])
def test_the_top_of_the_likelihood_is_flat_in_every_direction(presample: str) -> None:
    """Against a likelihood written apart, in plain loops; steps off the top go down."""
    x = clustered(np.random.default_rng(3), 600, gamma=0.1, law=(0.05, 0.05, 0.85))
    x[100:110] = np.nan
    fit = garch(x, asymmetric=True, presample=presample)
    top = np.array([fit.mu, fit.omega, fit.alpha, fit.gamma, fit.beta])
    seen = ~np.isnan(x)
    weights = 0.94 ** np.arange(75)
    deviations = (x[seen] - x[seen].mean())[:75] ** 2

    def loglikelihood(theta: np.ndarray) -> float:
        mu, omega, alpha, gamma, beta = theta
        before = np.mean((x[seen] - mu) ** 2)
        if presample == "backcast":
            before = weights @ deviations / weights.sum()
        h, total = omega + (alpha + gamma / 2.0 + beta) * before, 0.0
        for value in x:
            if np.isnan(value):
                h = omega + (alpha + gamma / 2.0 + beta) * h
                continue
            e = value - mu
            total -= 0.5 * (math.log(2.0 * math.pi * h) + e * e / h)
            h = omega + (alpha + gamma * (e < 0.0)) * e * e + beta * h
        return total

    assert loglikelihood(top) == pytest.approx(fit.loglikelihood, rel=1e-12)
    for k in range(5):
        for sign in (-1.0, 1.0):
            moved = top.copy()
            moved[k] += sign * 1e-3 * max(abs(top[k]), 0.05)
            assert loglikelihood(moved) < fit.loglikelihood


def test_loops_and_their_plain_twins_agree_to_the_bit() -> None:
    e = clustered(np.random.default_rng(4), 80) - 0.3
    e[[0, 7, 8]] = np.nan
    fixed = e.copy()
    fixed.flags.writeable = False
    for column in (e, fixed):
        paths, slopes = np.empty((2, 81)), np.empty((2, 81, 5))
        for k, (run, slope) in enumerate(
            (
                (kernel.garch_variance, kernel.garch_slopes),
                (kernel.garch_variance.py_func, kernel.garch_slopes.py_func),
            )
        ):
            run(column, 0.05, 0.04, 0.1, 0.85, 1.1, paths[k])
            slope(column, 0.04, 0.1, 0.85, 1.1, 0.2, paths[k], slopes[k])
        assert np.array_equal(paths[0], paths[1])
        assert np.array_equal(slopes[0], slopes[1])


def test_slopes_are_the_derivatives_of_the_variance() -> None:
    x = clustered(np.random.default_rng(5), 60)
    x[20:23] = np.nan

    def path(theta: np.ndarray) -> np.ndarray:
        e, h = x - theta[0], np.empty(61)
        kernel.garch_variance(e, *theta[1:], float(np.nanmean(e * e)), h)
        return h

    theta, slopes = np.array([0.2, 0.05, 0.06, 0.1, 0.8]), np.empty((61, 5))
    e = x - theta[0]
    kernel.garch_slopes(e, *theta[2:], float(np.nanmean(e * e)), -2.0 * float(np.nanmean(e)),
                        path(theta), slopes)  # fmt: skip
    for k in range(5):
        step = np.zeros(5)
        step[k] = 1e-6
        numeric = (path(theta + step) - path(theta - step)) / 2e-6
        assert slopes[:, k] == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_units_and_origin_change_nothing_but_units() -> None:
    x = clustered(np.random.default_rng(6), 800)
    one, other = garch(x), garch(1e-6 * x + 5.0)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-6)
    assert other.beta == pytest.approx(one.beta, rel=1e-6)
    assert other.mu == pytest.approx(1e-6 * one.mu + 5.0, rel=1e-12)
    assert other.omega == pytest.approx(1e-12 * one.omega, rel=1e-5)
    assert other.std_errors[[2, 4]] == pytest.approx(one.std_errors[[2, 4]], rel=1e-3)
    assert other.standardised == pytest.approx(one.standardised, rel=1e-5, abs=1e-7)
    assert other.loglikelihood == pytest.approx(one.loglikelihood - 800 * math.log(1e-6))


def test_forecasts_begin_at_the_next_variance_and_end_at_the_level() -> None:
    fit = garch(clustered(np.random.default_rng(7), 1000, gamma=0.05), asymmetric=True)
    path = fit.forecast(400)
    assert path[0] == pytest.approx(fit.next_variance)
    assert path[1] == pytest.approx(fit.omega + fit.persistence * path[0])
    assert path[-1] == pytest.approx(fit.long_run_variance, rel=1e-3)
    assert fit.persistence**fit.half_life == pytest.approx(0.5)
    e = fit.residuals[-1]
    wanted = fit.omega + (fit.alpha + fit.gamma * (e < 0.0)) * e * e + fit.beta * fit.variance[-1]
    assert fit.next_variance == pytest.approx(wanted)


def test_a_gap_is_bridged_by_what_was_expected() -> None:
    x = clustered(np.random.default_rng(8), 1000)
    x[400:450] = np.nan
    fit = garch(x)
    assert np.isnan(fit.residuals).sum() == 50
    assert np.isfinite(fit.variance).all()
    away = np.abs(fit.variance[400:450] - fit.long_run_variance)
    assert (np.diff(away) < 0.0).all()
    late = np.r_[np.full(300, np.nan), x[450:]]
    alone = garch(x[450:])
    assert garch(late).alpha == pytest.approx(alone.alpha, abs=0.02)


def test_what_cannot_be_fitted_is_an_outcome_with_a_reason() -> None:
    rng = np.random.default_rng(9)
    for x, words in (
        (np.full(200, 3.0), "constant"),
        (rng.standard_normal(30), "too short: 30 values, 50 are needed"),
        (np.full(100, np.nan), "too short: 0 values"),
    ):
        fit = garch(x)
        assert fit.status.startswith(words)
        assert np.isnan([fit.mu, fit.alpha, fit.loglikelihood, fit.half_life]).all()
        assert len(fit.variance) == len(x)
        assert np.isnan(fit.std_errors).all()


def test_edges_are_named_and_their_errors_do_not_exist() -> None:
    rng = np.random.default_rng(10)
    quiet = garch(np.random.default_rng(0).standard_normal(500))
    assert quiet.status == "no clusters: alpha is at 0, variance is constant"
    assert (quiet.alpha, quiet.beta) == (0.0, 0.0)
    assert quiet.omega == pytest.approx(np.random.default_rng(0).standard_normal(500).var())
    assert np.isfinite(quiet.std_errors[[0, 1]]).all()
    assert np.isnan(quiet.std_errors[[2, 4]]).all()
    assert quiet.half_life == 0.0
    short = garch(clustered(rng, 800, law=(0.5, 0.5, 0.0)))
    assert short.alpha == pytest.approx(0.5, abs=0.2)
    drift = garch(np.cumsum(rng.standard_normal(600)) ** 3)
    assert drift.persistence > 0.9
    assert drift.status
    leaning = garch(clustered(rng, 2000, gamma=0.2, law=(0.05, 0.0, 0.85)), asymmetric=True)
    assert leaning.gamma == pytest.approx(0.2, abs=0.08)
    normal = garch(clustered(rng, 1500), student=True)
    assert normal.dof > 15.0
    spike = np.zeros(300)
    spike[100] = 1.0
    assert garch(spike).status
    assert np.isfinite(garch(spike).variance).all()


def test_misuse_is_refused_in_words() -> None:
    x = np.random.default_rng(11).standard_normal(100)
    for call, words in (
        (lambda: garch(x, presample="zero"), "presample was 'zero'"),
        (lambda: garch(np.r_[x, np.inf]), "row 100 of column 0 is infinite"),
        (lambda: garch(x[:, None]), "x has 2 dimensions"),
        (lambda: garch(x).forecast(0), "horizon was 0"),
    ):
        with pytest.raises(EstimationError, match=words):
            call()


def test_a_search_that_gets_lost_on_series_without_clusters_does_not_carry_the_mean_away() -> None:
    x = 0.01 * np.random.default_rng(553).uniform(-1.0, 1.0, 500)
    fit = garch(x)
    assert "did not converge" not in fit.status
    assert abs(fit.mu) < x.std()
    assert np.abs(fit.standardised).max() < 4.0
