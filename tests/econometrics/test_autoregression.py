"""Autoregressions against their definition, statsmodels, scikit-learn and planted coefficients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from undertow.econometrics.autoregression import (
    autoregression,
    choose_lags,
    dies_out,
    largest_root,
    moving_average,
    stack,
    unstack,
)
from undertow.econometrics.equations import (
    SINGULAR,
    ElasticNet,
    LeastSquares,
    Ridge,
    Sums,
    side_by_side,
)
from undertow.econometrics.penalties import Rule, choose_penalty
from undertow.errors import EstimationError
from undertow.kernels import descent

STEP = np.array([[0.5, 0.2, 0.0], [0.0, 0.4, 0.2], [0.1, 0.0, 0.3]])


def followed(step: np.ndarray, rows: int, seed: int, level: float = 0.0) -> np.ndarray:
    """Series that follow (lags, N, N) or (N, N) coefficients, shocks correlated by 0.3."""
    rng = np.random.default_rng(seed)
    lags = step[None] if step.ndim == 2 else step
    n = lags.shape[1]
    shocks = rng.standard_normal((rows + 100, n)) @ np.linalg.cholesky(0.7 * np.eye(n) + 0.3).T
    x = np.zeros_like(shocks)
    for t in range(len(lags), len(x)):
        x[t] = level + shocks[t] + sum(a @ x[t - l] for l, a in enumerate(lags, 1))
    return x[100:]


def plain(x: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and coefficients in one matrix, latest lag first, and residuals; by LAPACK."""
    columns = [x[lags - l : len(x) - l] for l in range(1, lags + 1)]
    z = np.column_stack([np.ones(len(x) - lags), *columns])
    slope = np.linalg.lstsq(z, x[lags:], rcond=None)[0].T
    return slope, x[lags:] - z @ slope.T


@pytest.mark.parametrize("lags", [1, 2, 4])
def test_least_squares_is_what_lapack_finds_equation_by_equation(lags: int) -> None:
    like = followed(STEP, 150, 1, level=3.0)
    units = np.array([1e-3, 1.0, 1e4])
    fit = autoregression(like * units, lags)
    slope, left = plain(like, lags)
    n = like.shape[1]
    assert fit.status == ""
    assert np.allclose(fit.intercept / units, slope[:, 0], atol=1e-11)
    for l in range(lags):
        wanted = slope[:, 1 + l * n : 1 + (l + 1) * n]
        assert np.allclose(fit.coefficients[l] / units[:, None] * units, wanted, atol=1e-12)
    assert np.allclose(fit.residuals / units, left, atol=1e-11)
    shocks = left.T @ left / len(left)
    assert np.allclose(fit.covariance / np.outer(units, units), shocks, atol=1e-12)
    assert not fit.coefficients.flags.writeable


def test_statsmodels_agrees_on_coefficients_roots_and_every_criterion() -> None:
    from statsmodels.tsa.api import VAR

    x = followed(np.array([STEP, -0.3 * np.eye(3)]), 300, 2)
    theirs = VAR(x).fit(2, trend="c")
    fit = autoregression(x, 2)
    assert np.allclose(fit.coefficients, theirs.coefs, atol=1e-11)
    assert np.allclose(fit.covariance, theirs.sigma_u_mle, atol=1e-11)
    assert fit.root == pytest.approx(1.0 / np.abs(theirs.roots).min(), rel=1e-9)
    assert np.allclose(fit.moving_average(8), theirs.ma_rep(7), atol=1e-11)
    criteria = choose_lags(x, 6)
    orders = VAR(x).select_order(6, trend="c").ics
    assert np.allclose(criteria.akaike, orders["aic"][1:], atol=1e-10)
    assert np.allclose(criteria.bayes, orders["bic"][1:], atol=1e-10)
    assert np.allclose(criteria.hannan_quinn, orders["hqic"][1:], atol=1e-10)
    assert criteria.lags == 2


def test_planted_coefficients_come_back_within_their_sampling_error() -> None:
    """200 rows, 200 times: mean error within 0.03, the bias of least squares in such samples."""
    fits = np.array([autoregression(followed(STEP, 200, s)).coefficients[0] for s in range(200)])
    assert np.abs(fits.mean(axis=0) - STEP).max() < 0.03
    assert fits.std(axis=0).max() < 0.1
    assert (np.diag(fits.mean(axis=0)) < np.diag(STEP)).all()  # persistence is underestimated


def test_stacking_and_sums_undo_themselves() -> None:
    coefficients = np.arange(27.0).reshape(3, 3, 3)
    assert (unstack(stack(coefficients)) == coefficients).all()
    assert (stack(coefficients)[:, -3:] == coefficients[0]).all()
    rows = side_by_side(followed(STEP, 60, 3), 2)
    assert (rows[5, -3:] == rows[6, 3:6]).all()
    whole, part = Sums.of(rows), Sums.of(rows[:20])
    rest = whole - part
    assert rest.count == 38
    assert np.allclose(rest.cross, rows[20:].T @ rows[20:], atol=1e-10)
    assert np.allclose((part + rest).total, whole.total, atol=1e-12)
    moved = part.moved(rows[20:24], rows[:4])
    assert moved.count == 20
    assert np.allclose(moved.cross, Sums.of(rows[4:24]).cross, atol=1e-12)


def test_moving_averages_are_powers_for_one_lag() -> None:
    found = moving_average(STEP[None], 5)
    for h in range(5):
        assert np.allclose(found[h], np.linalg.matrix_power(STEP, h), atol=1e-15)


def test_the_norm_of_a_power_never_calls_an_explosive_map_stable() -> None:
    rng = np.random.default_rng(4)
    seen = set()
    for _ in range(200):
        stacked = rng.standard_normal((3, 6)) * rng.uniform(0.05, 0.6)
        verdict = dies_out(stacked)
        seen.add(verdict)
        assert verdict == (largest_root(stacked) < 1.0)
    assert seen == {True, False}
    assert dies_out(np.eye(2) * 0.9999)
    assert not dies_out(np.eye(2))
    assert not dies_out(np.eye(2) * 1e200)


# ---- penalties


def crowded(rows: int = 80, series: int = 12, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    step = np.diag(rng.uniform(0.2, 0.6, series))
    step[0, 1:4] = 0.25
    return followed(step, rows, seed)


def standardised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z, y = x[:-1] - x[:-1].mean(axis=0), x[1:] - x[1:].mean(axis=0)
    return z / z.std(axis=0), y / y.std(axis=0), y.std(axis=0)[:, None] / z.std(axis=0)


@pytest.mark.parametrize(("penalty", "mix"), [(0.05, 0.5), (0.15, 1.0), (0.01, 0.2), (0.4, 0.9)])
def test_scikit_learn_finds_the_same_elastic_net(penalty: float, mix: float) -> None:
    from sklearn.linear_model import ElasticNet as Theirs

    x = crowded()
    z, y, units = standardised(x)
    model = Theirs(alpha=penalty, l1_ratio=mix, fit_intercept=False, tol=1e-13, max_iter=100_000)
    wanted = np.array([model.fit(z, column).coef_ for column in y.T])
    found = autoregression(x, 1, ElasticNet(penalty, mix)).coefficients[0] / units
    assert np.allclose(found, wanted, atol=1e-7)
    assert ((found == 0.0) == (np.abs(wanted) < 1e-9)).mean() > 0.98


def test_scikit_learn_finds_the_same_ridge_also_with_more_series_than_rows() -> None:
    from sklearn.linear_model import Ridge as Theirs

    for rows in (80, 10):
        x = crowded(rows)
        z, y, units = standardised(x)
        wanted = Theirs(alpha=0.3 * len(z), fit_intercept=False, tol=1e-12).fit(z, y).coef_
        for estimator in (Ridge(0.3), ElasticNet(0.3, mix=0.0), Ridge(np.full(12, 0.3))):
            found = autoregression(x, 1, estimator)
            assert np.allclose(found.coefficients[0] / units, wanted, atol=1e-10)


def test_no_weight_can_be_moved_to_lower_the_penalised_error() -> None:
    """The conditions of Karush, Kuhn and Tucker, one penalty for each equation."""
    x = crowded()
    z, y, units = standardised(x)
    penalty = np.linspace(0.05, 0.3, 12)
    weights = autoregression(x, 1, ElasticNet(penalty, 0.7)).coefficients[0] / units
    slope = (y - z @ weights.T).T @ z / len(z) - 0.3 * penalty[:, None] * weights
    edge = 0.7 * penalty[:, None] * np.ones_like(weights)
    idle = weights == 0.0
    assert 0.1 < idle.mean() < 0.95
    assert (np.abs(slope[idle]) <= edge[idle] + 1e-7).all()
    assert np.allclose(slope[~idle], (edge * np.sign(weights))[~idle], atol=1e-7)


def test_the_compiled_descent_is_its_plain_twin_to_the_bit() -> None:
    z, y, _ = standardised(crowded())
    gram, cross = z.T @ z / len(z), np.ascontiguousarray(y.T @ z / len(z))
    gram[5] = gram[:, 5] = 0.0  # a regressor that says nothing
    lasso, ridge = np.full(12, 0.05), np.full(12, 0.02)
    begun = np.random.default_rng(6).standard_normal((12, 12)) * 0.1
    begun[:, 5] = 0.0
    compiled, twin = begun.copy(), begun.copy()
    for frozen in (False, True):  # read-only arrays compile a second signature
        gram.flags.writeable = cross.flags.writeable = not frozen
        compiled[:] = begun
        assert descent.descend(gram, cross, lasso, ridge, 1e-9, 1000, compiled) == 0
    assert descent.descend.py_func(gram, cross, lasso, ridge, 1e-9, 1000, twin) == 0
    assert (compiled == twin).all()
    assert (compiled[:, 5] == 0.0).all()
    assert descent.descend(gram, cross, lasso, ridge, 1e-9, 1, begun.copy()) > 0


def test_a_descent_cut_short_says_so() -> None:
    fit = autoregression(crowded(), 1, ElasticNet(0.01, most=1))
    assert "had not settled after 1 passes" in fit.status


def test_a_choice_of_penalty_is_what_holding_rows_back_by_hand_finds() -> None:
    x = crowded(120)
    like = (x - x.mean(axis=0)) / x.std(axis=0)
    choice = choose_penalty(x, 1, folds=4, penalties=5)
    z, y = like[:-1], like[1:]
    bounds = np.linspace(0, len(z), 5).astype(int)
    wanted = np.zeros((5, 12))
    for first, last in pairwise(bounds):
        held = np.zeros(len(z), dtype=bool)
        held[max(first - 1, 0) : last + 1] = True  # one lag on either side
        zt, yt = z[~held], y[~held]
        zm, zs, ym, ys = zt.mean(axis=0), zt.std(axis=0), yt.mean(axis=0), yt.std(axis=0)
        for g, penalty in enumerate(choice.grid):
            gram = ((zt - zm) / zs).T @ ((zt - zm) / zs) / len(zt)
            cross = np.ascontiguousarray(((yt - ym) / ys).T @ ((zt - zm) / zs) / len(zt))
            w = np.zeros((12, 12))
            half = np.full(12, penalty / 2.0)
            descent.descend(gram, cross, half, half, 1e-9, 10_000, w)
            told = ym + (z[first:last] - zm) @ (w * ys[:, None] / zs).T
            wanted[g] += np.square(y[first:last] - told).mean(axis=0) / 4.0
    assert np.allclose(choice.errors, wanted, atol=1e-4)
    assert choice.penalty[0] == choice.grid[np.argmin(choice.errors.mean(axis=1))]


@pytest.mark.parametrize("rule", list(Rule))
def test_what_the_past_does_not_tell_is_shrunk_away_and_what_it_tells_is_kept(rule: Rule) -> None:
    noise = np.random.default_rng(7).standard_normal((300, 10))
    ties = followed(np.diag([0.7] * 10), 300, 7)
    idle, strong = (choose_penalty(x, rule=rule) for x in (noise, ties))
    assert idle.penalty[0] > 0.5 * idle.grid[0]
    assert strong.penalty[0] < 0.4 * strong.grid[0]
    weights = autoregression(ties, 1, strong.estimator).coefficients[0]
    assert np.diag(weights).min() > 3.0 * np.abs(weights - np.diag(np.diag(weights))).max()


def test_each_equation_may_have_its_own_penalty() -> None:
    x = np.hstack([followed(np.diag([0.8] * 4), 300, 8), crowded(300, 6, 8)])
    choice = choose_penalty(x, each=True, rule=Rule.FORWARD)
    assert len(np.unique(choice.penalty)) > 1
    assert (choice.penalty == choice.grid[np.argmin(choice.errors, axis=0)]).all()
    assert autoregression(x, 1, choice.estimator).status == ""


# ---- what cannot be estimated


def test_too_few_rows_are_refused_with_the_number_that_would_do() -> None:
    x = crowded(14)
    with pytest.raises(EstimationError, match=r"14 rows; 12 series with 1 lags need at least 15"):
        autoregression(x)
    with pytest.raises(EstimationError, match="regularise with ElasticNet"):
        autoregression(x)
    assert (
        autoregression(crowded(15)).status in ("", SINGULAR)
        or "root" in autoregression(crowded(15)).status
    )
    assert LeastSquares().least_rows(12, 1) == 15


def test_a_constant_column_and_a_copy_are_outcomes_with_a_reason() -> None:
    x = followed(STEP, 100, 9)
    flat = x.copy()
    flat[:, 1] = 4.0
    fit = autoregression(flat)
    assert fit.status == "column 1 is constant"
    assert np.isnan(fit.coefficients).all()
    for copy in (x[:, 0], 3.0 * x[:, 0] - 1.0, x[:, 0] + x[:, 1]):
        assert autoregression(np.column_stack([x, copy])).status == SINGULAR
    tied = np.column_stack([x, x[:, 0] + 1e-8 * x[:, 1]])
    assert autoregression(tied).status == SINGULAR
    assert autoregression(tied, 1, ElasticNet(0.05)).status == ""
    assert autoregression(tied, 1, Ridge(0.05)).status == ""
    assert autoregression(tied, 1, Ridge(0.0)).status == SINGULAR


def test_series_that_run_away_are_said_to_and_keep_their_numbers() -> None:
    runaway = np.cumprod(np.full((60, 1), 1.1), axis=0) + followed(np.array([[0.2]]), 60, 1)
    fit = autoregression(np.hstack([runaway, followed(STEP, 60, 2)]))
    assert fit.status.startswith("not stationary: the largest root is 1.")
    assert fit.root > 1.0
    assert np.isfinite(fit.coefficients).all()


def test_misuse_is_refused_by_name() -> None:
    x = followed(STEP, 50, 3)
    holed = x.copy()
    holed[4, 2] = np.nan
    for given, words in (
        (lambda: autoregression(holed), "row 4 of column 2 is missing"),
        (lambda: autoregression(x[:, 0]), "1 dimensions"),
        (lambda: autoregression(x, 0), "lags was 0"),
        (lambda: autoregression(x, 1, ElasticNet(-0.1)), "penalty was -0.1"),
        (lambda: autoregression(x, 1, ElasticNet(0.1, 1.5)), "mix was 1.5"),
        (lambda: autoregression(x, 1, Ridge(np.ones(2))), r"penalty has shape \(2,\)"),
        (lambda: choose_penalty(x, folds=1), "folds was 1"),
        (lambda: choose_penalty(x, folds=20), "49 rows and 1 lags it may be 2 to 8"),
        (lambda: choose_penalty(x, penalties=1), "penalties was 1"),
        (lambda: choose_penalty(np.column_stack([x, np.ones(50)])), "column 3 is constant"),
        (lambda: choose_lags(x, 20), "need at least"),
    ):  # fmt: skip
        with pytest.raises(EstimationError, match=words):
            given()


def test_criteria_of_collinear_series_are_missing_with_a_reason() -> None:
    x = followed(STEP, 80, 4)
    choice = choose_lags(np.column_stack([x, x[:, 0]]), 3)
    assert choice.lags == 0
    assert choice.reasons == (SINGULAR,) * 3
