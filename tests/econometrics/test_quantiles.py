"""Lines through quantiles: exact, with honest errors; and what a node's bad day adds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.regression.quantile_regression import QuantReg

from shared import Case, check_all, near, shared_folder
from undertow.econometrics import quantiles
from undertow.errors import EstimationError


def _returns(name: str) -> np.ndarray:
    table = pl.read_parquet(shared_folder() / "oracles" / "data_us_stocks_daily.parquet")
    return table[name].to_numpy()


def test_the_published_delta_covars_come_out() -> None:
    def check(case: Case, _: dict[str, Any]) -> set[str]:
        given_, tol, rows = case["inputs"], case["tol"], slice(*case["inputs"]["rows"])
        node = 100.0 * _returns(given_["firm"])[rows]
        system = 100.0 * _returns(given_["market"])[rows]
        found = quantiles.covar(system, node, given_["tau"])
        want = case["expected"]
        assert found.fit.objective <= want["objective"] * (1.0 + tol["objective_rel"])
        near(found.fit.objective, want["objective"], rel=tol["objective_rel"])
        got = {
            "intercept": found.fit.coef[0], "beta": found.fit.coef[1],
            "firm_VaR": found.node_var, "firm_median": found.node_median,
            "CoVaR": found.covar, "CoVaR_median": found.covar_median, "dCoVaR": found.delta,
        }  # fmt: skip
        for name, value in got.items():
            near(value, want[name], rel=tol["rel"], unit=tol["abs"])
        return {*got, "objective"}

    check_all("covar", check)


def _least(y: np.ndarray, x: np.ndarray, q: float) -> float:
    """The least check-loss, by linear programming in its primal form."""
    rows, k = x.shape
    cost = np.concatenate([np.zeros(2 * k), np.full(rows, q), np.full(rows, 1.0 - q)])
    equal = np.hstack([x, -x, np.eye(rows), -np.eye(rows)])
    return float(optimize.linprog(cost, A_eq=equal, b_eq=y, method="highs").fun)


@given(
    seed=st.integers(0, 10_000), rows=st.integers(4, 60), k=st.integers(0, 2),
    q=st.floats(0.02, 0.98), digits=st.sampled_from([0, 1, 8]),
)  # fmt: skip
def test_no_line_has_less_loss_whether_rows_tie_or_not(
    seed: int, rows: int, k: int, q: float, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((rows, k)), digits)
    y = np.round(rng.standard_t(2, rows) + x.sum(axis=1), digits)
    fit = quantiles.quantile_regression(y, x, q)
    if math.isnan(fit.objective):
        assert fit.reason
        return
    near(fit.objective, _least(y, np.column_stack([np.ones(rows), x]), q), rel=1e-9, unit=1e-9)
    assert np.sum(fit.residuals < -1e-9) <= q * rows + 1e-6
    assert np.sum(fit.residuals > 1e-9) <= (1.0 - q) * rows + 1e-6


@pytest.mark.parametrize("q", [0.05, 0.5, 0.9])
def test_lines_agree_with_statsmodels_and_lose_no_more(q: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 3))
    y = x @ [1.0, -0.5, 0.2] + rng.standard_t(4, 400) * (1.0 + 0.3 * np.abs(x[:, 0]))
    design = np.column_stack([np.ones(400), x])
    theirs = QuantReg(y, design).fit(q=q, p_tol=1e-8, max_iter=5000)
    ours = quantiles.quantile_regression(y, x, q)
    assert ours.coef == pytest.approx(theirs.params, abs=2e-3)
    assert ours.objective <= quantiles.check_loss(y - design @ theirs.params, q) + 1e-9
    assert ours.pseudo_r1 == pytest.approx(theirs.prsquared, abs=1e-2)
    assert ours.unique


def test_standard_errors_are_the_spread_of_lines_over_samples() -> None:
    rng = np.random.default_rng(2)
    for q in (0.1, 0.5):
        lines, errors = [], []
        for _ in range(250):
            x = rng.standard_normal(500)
            fit = quantiles.quantile_regression(0.5 * x + rng.standard_normal(500), x, q)
            lines.append(fit.coef)
            errors.append(fit.se)
        assert np.mean(errors, axis=0) == pytest.approx(np.std(lines, axis=0), rel=0.2)


def test_block_bootstrap_bands_hold_the_slope_when_rows_depend_on_each_other() -> None:
    rng = np.random.default_rng(3)
    held, plain = 0, 0
    for _ in range(40):
        x, noise = rng.standard_normal(400), rng.standard_normal(400)
        for t in range(1, 400):
            x[t] += 0.8 * x[t - 1]
            noise[t] += 0.8 * noise[t - 1]
        low, high, _ = quantiles.quantile_band(x + noise, x, 0.5, rng=rng, reps=79, block=20.0)
        fit = quantiles.quantile_regression(x + noise, x, 0.5)
        held += low[1] <= 1.0 <= high[1]
        plain += abs(fit.coef[1] - 1.0) < 1.645 * fit.se[1]
    assert held >= 31
    assert plain < held  # errors for independent rows are too small here


def test_a_planted_quantile_line_is_recovered_without_bias() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(0.0, 2.0, 20_000)
    y = 1.0 + 2.0 * x + (0.5 + x) * rng.standard_normal(20_000)
    fit = quantiles.quantile_regression(y, x, 0.1)
    z = stats.norm.ppf(0.1)
    assert fit.coef == pytest.approx([1.0 + 0.5 * z, 2.0 + z], abs=0.06)


def test_ties_leave_the_line_exact_and_say_that_it_may_not_be_the_only_one() -> None:
    y = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0])
    fit = quantiles.quantile_regression(y, np.empty((8, 0)), 0.5)
    assert not fit.unique
    near(fit.objective, _least(y, np.ones((8, 1)), 0.5))
    odd = quantiles.quantile_regression(y[:7], np.empty((7, 0)), 0.3)
    near(odd.objective, _least(y[:7], np.ones((7, 1)), 0.3), unit=1e-12)


def test_missing_rows_are_left_out_and_keep_their_place() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 200))
    y[10], x[20] = np.nan, np.nan
    keep = ~(np.isnan(x) | np.isnan(y))
    fit = quantiles.quantile_regression(y, x, 0.2)
    assert (fit.coef == quantiles.quantile_regression(y[keep], x[keep], 0.2).coef).all()
    assert np.flatnonzero(np.isnan(fit.residuals)).tolist() == [10, 20]
    assert fit.rows == 198


def test_what_has_no_line_is_an_outcome() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((50, 2))
    y = rng.standard_normal(50)
    twice = np.column_stack([x, x[:, 0] + 2.0 * x[:, 1]])
    for values, target, reason in (
        (twice, y, "column 2 of x is a combination of the columns before it and the constant"),
        (np.ones(50), y, "column 0 of x is a combination"), (x[:3], y[:3], "3 rows for 3 coef"),
        (rng.standard_normal((10, 12)), y[:10], "10 rows for 13 coefficients"),
    ):  # fmt: skip
        fit = quantiles.quantile_regression(target, values, 0.1)
        assert reason in fit.reason
        assert np.isnan(fit.coef).all()
        assert np.isnan(quantiles.quantile_band(target, values, 0.1, rng=rng, reps=5)[0]).all()
    flat = quantiles.quantile_regression(np.ones(50), x, 0.1)
    assert flat.reason.startswith("y is constant")
    assert flat.objective == pytest.approx(0.0, abs=1e-12)
    found = quantiles.covar(y, np.zeros(50), 0.1, rng=rng)
    assert math.isnan(found.delta)
    assert "combination" in found.reason
    near_twin = np.column_stack([x[:, 0], x[:, 0] + 1e-7 * x[:, 1]])
    assert np.isfinite(quantiles.quantile_regression(y, near_twin, 0.1).coef).all()


def _systemic(rng: np.random.Generator, rows: int, share: float) -> np.ndarray:
    node = rng.standard_normal(rows)
    return np.vstack([share * node + rng.standard_normal(rows), node])


def test_delta_covar_of_a_normal_pair_and_its_band() -> None:
    rng = np.random.default_rng(7)
    truth = 0.5 * stats.norm.ppf(0.05)
    held = 0
    for _ in range(40):
        found = quantiles.covar(*_systemic(rng, 500, 0.5), 0.05, rng=rng, reps=79, block=1.0)
        assert found.band is not None
        held += found.band[0] <= truth <= found.band[1]
    assert held >= 31
    assert found.delta < 0.0
    near(found.delta, found.covar - found.covar_median)
    assert quantiles.covar(*_systemic(rng, 300, 0.5), 0.05).band is None


def test_states_move_the_quantiles_and_their_line_is_recovered() -> None:
    rng = np.random.default_rng(8)
    state = rng.uniform(0.5, 2.0, 8000)
    node = state * rng.standard_normal(8000)
    system = 0.4 * node + 0.3 * state + rng.standard_normal(8000)
    path = quantiles.covar_path(system, node, state, 0.1)
    z = stats.norm.ppf(0.1)
    assert path.reason == ""
    assert path.node_var == pytest.approx(state * z, abs=0.15)
    assert path.delta == pytest.approx(0.4 * state * z, abs=0.12)
    assert path.covar - path.covar_median == pytest.approx(path.delta)
    assert path.fit.coef[2] == pytest.approx(0.3, abs=0.12)
    assert path.median_fit.q == 0.5


def test_states_that_say_nothing_leave_the_unconditional_numbers() -> None:
    rng = np.random.default_rng(9)
    system, node = _systemic(rng, 4000, 0.5)
    path = quantiles.covar_path(system, node, rng.standard_normal((4000, 2)), 0.05)
    plain = quantiles.covar(system, node, 0.05)
    assert path.delta.mean() == pytest.approx(plain.delta, abs=0.06)


def test_rows_with_a_missing_state_have_no_path() -> None:
    rng = np.random.default_rng(10)
    system, node = _systemic(rng, 300, 0.5)
    state = rng.standard_normal(300)
    state[17], node[40] = np.nan, np.nan
    path = quantiles.covar_path(system, node, state, 0.1)
    assert np.flatnonzero(np.isnan(path.delta)).tolist() == [17, 40]
    flat = quantiles.covar_path(system, node, np.ones(300), 0.1)
    assert "combination" in flat.reason
    assert np.isnan(flat.delta).all()


def test_misuse_is_refused_by_name() -> None:
    x = np.arange(10.0)
    with pytest.raises(EstimationError, match="q was 1"):
        quantiles.quantile_regression(x, x, 1.0)
    with pytest.raises(EstimationError, match="y has 10 rows and x has 9"):
        quantiles.quantile_regression(x, x[:9], 0.5)
    with pytest.raises(EstimationError, match="node has 2 columns"):
        quantiles.covar(np.sin(x), np.column_stack([x, x**2]), 0.5)
    with pytest.raises(EstimationError, match="node has 9 rows and system 10"):
        quantiles.covar_path(x, x[:9], x, 0.5)
