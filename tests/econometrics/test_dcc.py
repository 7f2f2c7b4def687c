"""Moving correlations against recorded fits, a likelihood written apart and planted dynamics."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from shared import check_all, shared_folder
from undertow.econometrics.dcc import DccFit, dcc
from undertow.errors import EstimationError
from undertow.kernels import recursions as kernel


def one_factor(rng: np.random.Generator, n: int) -> np.ndarray:
    loads = np.sqrt(rng.uniform(0.2, 0.7, n))
    target = np.outer(loads, loads)
    np.fill_diagonal(target, 1.0)
    return target


def moving(
    rng: np.random.Generator,
    rows: int,
    target: np.ndarray,
    a: float,
    b: float,
    *,
    corrected: bool = True,
    clusters: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Series that follow the model, with GARCH(0.05, 0.1, 0.85) margins, and their correlations."""
    n = len(target)
    q, h, x, path = target.copy(), np.ones(n), np.empty((rows, n)), np.empty((rows, n, n))
    for t in range(rows):
        d = np.sqrt(np.diag(q))
        path[t] = q / np.outer(d, d)
        z = np.linalg.cholesky(path[t]) @ rng.standard_normal(n)
        x[t] = np.sqrt(h) * z
        if clusters:
            h = 0.05 + 0.1 * x[t] ** 2 + 0.85 * h
        news = z * d if corrected else z
        q = (1.0 - a - b) * target + a * np.outer(news, news) + b * q
    return x, path


def mean_pairwise(path: np.ndarray) -> np.ndarray:
    n = path.shape[1]
    return (path.sum(axis=(1, 2)) - n) / (n * (n - 1))


def by_the_paper(
    z: np.ndarray, target: np.ndarray, a: float, b: float, corrected: bool
) -> tuple[float, np.ndarray]:
    """The correlation part of the likelihood and the path, from conditional normal laws."""
    q, total, path = target.copy(), 0.0, []
    for row in z:
        d = np.sqrt(np.diag(q))
        r = q / np.outer(d, d)
        path.append(r)
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        seen = row[o]
        inverse = np.linalg.inv(r[np.ix_(o, o)])
        total -= 0.5 * (np.linalg.slogdet(r[np.ix_(o, o)])[1] + seen @ inverse @ seen - seen @ seen)
        guess = row.copy()
        guess[m] = r[np.ix_(m, o)] @ inverse @ seen
        news = np.outer(guess, guess)
        news[np.ix_(m, m)] += r[np.ix_(m, m)] - r[np.ix_(m, o)] @ inverse @ r[np.ix_(o, m)]
        news *= np.outer(d, d) if corrected else 1.0
        q = (1.0 - a - b) * target + a * news + b * q
    return total, np.array(path)


def with_gaps(rng: np.random.Generator, rows: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    target = one_factor(rng, n)
    z, _ = moving(rng, rows, target, 0.05, 0.9, clusters=False)
    z[rng.random(z.shape) < 0.15] = np.nan
    z[5], z[6, 1:] = np.nan, np.nan
    return z, target


def check(case: dict[str, Any], _: dict[str, Any]) -> set[str]:
    expected, tol = case["expected"], case["tol"]
    if not case["id"].startswith("dcc"):
        return set()
    data = pl.read_parquet(shared_folder() / "oracles" / "data_us_stocks_daily.parquet")
    x = 100.0 * data.select(case["inputs"]["columns"]).to_numpy()
    fit = dcc(x, corrected=False, presample="backcast")
    rho = fit.pair(0, 1)
    for wanted in (expected, expected["independent"]):
        assert fit.a == pytest.approx(wanted["a"], abs=tol["a_abs"])
        assert fit.b == pytest.approx(wanted["b"], abs=tol["b_abs"])
        assert rho[expected["rho_rows"]] == pytest.approx(wanted["rho"], abs=tol["rho_abs"])
        assert rho[:-1].mean() == pytest.approx(wanted["rho_mean"], abs=tol["rho_mean_abs"])
    # the independent likelihood is met to five digits, far inside the tolerance
    assert rho[expected["rho_rows"]] == pytest.approx(expected["independent"]["rho"], abs=1e-5)
    return set(expected)


GARCH_FIELDS = {"mu", "omega", "alpha", "beta", "std_errors", "loglikelihood", "garch", "gjr",
                "frds_loglikelihood", "last_conditional_vol"}  # fmt: skip


def test_recorded_fits_are_met() -> None:
    check_all("garch_dcc", check, later=GARCH_FIELDS)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_likelihood_and_the_path_are_those_of_the_papers_gaps_or_not(corrected: bool) -> None:
    z, target = with_gaps(np.random.default_rng(1), 60, 4)
    for rows in (z, np.nan_to_num(z)):
        total, wanted = by_the_paper(rows, target, 0.07, 0.88, corrected)
        found = kernel.whole_likelihood(rows, target, 0.07, 0.88, corrected)
        assert found == pytest.approx(total, rel=1e-11)
        path, q = np.empty((60, 4, 4)), target.copy()
        kernel.correlation_path(rows, target, 0.07, 0.88, corrected, q, path)
        assert path == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_likelihood_of_pairs_is_the_sum_over_pairs(corrected: bool) -> None:
    z, target = with_gaps(np.random.default_rng(2), 80, 5)
    beside = np.diag(target, 1).copy()
    wanted = 0.0
    for i in range(4):
        two = np.ascontiguousarray(z[:, i : i + 2])
        both = np.ascontiguousarray(target[i : i + 2, i : i + 2])
        wanted += kernel.whole_likelihood(two, both, 0.06, 0.9, corrected)
    # a row with one value says nothing of the pair, and adds nothing to either
    found = kernel.pair_likelihood(z, beside, 0.06, 0.9, corrected)
    assert found == pytest.approx(wanted, rel=1e-11)


def test_loops_and_their_plain_twins_agree_to_the_bit() -> None:
    z, target = with_gaps(np.random.default_rng(3), 30, 4)
    twin = np.column_stack([z[:, 0], z])  # a copy of a column: the singular branch
    double = np.ones((5, 5))
    double[1:, 1:] = target
    double[0, 1:], double[1:, 0] = target[0], target[0]
    for rows, aim in ((z, target), (twin, double)):
        aim.flags.writeable = rows.flags.writeable = False
        for corrected in (True, False):
            args = (rows, aim, 0.07, 0.88, corrected)
            for name in ("whole_likelihood", "correlation_path"):
                function, extra = getattr(kernel, name), []
                for run in (function, function.py_func):
                    more = (aim.copy(), np.empty((31, len(aim), len(aim))))
                    more = more if name == "correlation_path" else ()
                    extra.append((run(*args, *more), *more))
                for one, other in zip(*extra, strict=True):
                    assert one is None or np.array_equal(one, other, equal_nan=True)
            beside = np.diag(aim, 1).copy()
            pair = kernel.pair_likelihood
            one = pair(rows, beside, 0.07, 0.88, corrected)
            other = pair.py_func(rows, beside, 0.07, 0.88, corrected)
            assert np.array_equal(one, other, equal_nan=True)
        scales = np.empty((2, *rows.shape))
        kernel.own_scale(rows, 0.07, 0.88, scales[0])
        kernel.own_scale.py_func(rows, 0.07, 0.88, scales[1])
        assert np.array_equal(*scales)


def test_planted_dynamics_come_back_in_a_few_series() -> None:
    """One sample of 3 series and 3,000 rows; `slow` has the table over many."""
    rng = np.random.default_rng(4)
    target = one_factor(rng, 3)
    x, path = moving(rng, 3000, target, 0.05, 0.92)
    fit = dcc(x)
    assert fit.status == ""
    assert fit.a == pytest.approx(0.05, abs=0.015)
    assert fit.b == pytest.approx(0.92, abs=0.03)
    assert fit.target == pytest.approx(target, abs=0.12)
    assert fit.gain > 100.0
    away = fit.mean_off_diagonal()[:-1] - mean_pairwise(path)
    assert np.sqrt(np.mean(away**2)) < 0.04
    assert np.corrcoef(fit.mean_off_diagonal()[:-1], mean_pairwise(path))[0, 1] > 0.97


def test_the_sum_over_pairs_finds_the_dynamics_of_many_series() -> None:
    """40 series and 800 rows, volatilities known: within 0.01 and 0.03."""
    rng = np.random.default_rng(5)
    z, path = moving(rng, 800, one_factor(rng, 40), 0.04, 0.94, clusters=False)
    fit = dcc(z, standardised=True)
    assert fit.composite
    assert fit.a == pytest.approx(0.04, abs=0.01)
    assert fit.b == pytest.approx(0.94, abs=0.03)
    assert np.corrcoef(fit.mean_off_diagonal()[:-1], mean_pairwise(path))[0, 1] > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("n", "samples", "bounds"), [(2, 40, (0.006, 0.015)),
                                                      (10, 15, (0.003, 0.005)),
                                                      (60, 6, (0.003, 0.005))])  # fmt: skip
def test_planted_dynamics_come_back_on_average(
    n: int, samples: int, bounds: tuple[float, float]
) -> None:
    """2,000 rows, (0.04, 0.94), volatilities estimated: the table in docs/methods."""
    found = []
    for seed in range(samples):
        rng = np.random.default_rng(100 + seed)
        fit = dcc(moving(rng, 2000, one_factor(rng, n), 0.04, 0.94)[0])
        found.append([fit.a, fit.b])
    assert (np.abs(np.mean(found, axis=0) - [0.04, 0.94]) < bounds).all(), np.mean(found, axis=0)


@pytest.fixture(scope="module")
def fit() -> DccFit:
    rng = np.random.default_rng(6)
    return dcc(moving(rng, 500, one_factor(rng, 4), 0.06, 0.9)[0])


def test_every_view_of_the_path_shows_the_same_matrices(fit: DccFit) -> None:
    path = fit.path(0, 501)
    assert path.shape == (501, 4, 4)
    assert np.array_equal(fit.path(), path[:500])
    assert np.array_equal(fit.path(130, 200), path[130:200])
    assert np.array_equal(np.array(list(fit.walk())), path[:500])
    for row in (0, 63, 64, 499, 500):
        assert np.array_equal(fit.at(row), path[row])
    assert np.array_equal(fit.at(-1), path[499])
    assert np.array_equal(fit.forecast(), path[500])
    assert np.array_equal(fit.pair(0, 2), path[:, 0, 2])
    assert fit.mean_off_diagonal() == pytest.approx(mean_pairwise(path), abs=1e-14)
    assert path[0] == pytest.approx(fit.target)
    assert np.linalg.eigvalsh(path).min() > 0.0
    assert np.abs(path).max() <= 1.0


def test_the_forecast_covariance_puts_volatilities_back(fit: DccFit) -> None:
    found = fit.covariance_forecast()
    assert np.sqrt(np.diag(found)) == pytest.approx(fit.next_volatility)
    assert fit.next_volatility**2 == pytest.approx([m.next_variance for m in fit.margins])
    assert found == pytest.approx(found.T)


def test_order_and_units_of_series_change_nothing() -> None:
    rng = np.random.default_rng(7)
    x, _ = moving(rng, 600, one_factor(rng, 3), 0.06, 0.9)
    one, other = dcc(x), dcc(x[:, [2, 0, 1]] * [1e-4, 1.0, 1e5])
    assert other.a == pytest.approx(one.a, abs=1e-5)
    assert other.b == pytest.approx(one.b, abs=1e-4)
    assert other.pair(1, 2) == pytest.approx(one.pair(0, 1), abs=1e-4)
    assert dcc(x * [1.0, -1.0, 1.0]).pair(0, 1) == pytest.approx(-one.pair(0, 1), abs=0.05)


def test_correlations_that_do_not_move_are_said_not_to() -> None:
    gains = []
    for seed in range(12):
        z = np.random.default_rng(seed).standard_normal((600, 3))
        fit = dcc(z, standardised=True)
        gains.append(fit.gain)
        if fit.status:
            assert fit.status == "no dynamics: a is at 0, correlations are constant"
            assert (fit.a, fit.b, fit.gain) == (0.0, 0.0, 0.0)
            assert np.array_equal(fit.at(0), fit.at(600))
    assert np.mean(np.array(gains) > 6.0) <= 0.1
    assert min(gains) == 0.0


def test_gaps_and_late_starts_are_lived_with() -> None:
    rng = np.random.default_rng(8)
    x, path = moving(rng, 1200, one_factor(rng, 5), 0.05, 0.92)
    whole = dcc(x)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:500, 2], x[300:304] = np.nan, np.nan
    fit = dcc(x)
    assert fit.status == ""
    assert fit.reasons == ("",) * 5
    assert fit.a == pytest.approx(whole.a, abs=0.02)
    assert fit.b == pytest.approx(whole.b, abs=0.06)
    found = fit.path()
    assert np.isfinite(found).all()
    assert np.linalg.eigvalsh(found).min() > 0.0
    truth = path[600:, 0, 1]
    assert np.sqrt(np.mean((found[600:, 0, 1] - truth) ** 2)) < 0.1


def test_series_that_cannot_be_used_are_left_out_with_their_reasons() -> None:
    rng = np.random.default_rng(9)
    x, _ = moving(rng, 300, one_factor(rng, 4), 0.06, 0.9)
    x[:, 1], x[:250, 3] = 2.0, np.nan
    x = np.column_stack([x, 3.0 * x[:, 0] - 1.0])
    fit = dcc(x)
    assert fit.reasons == ("", "constant", "", "too short: 50 values, 100 are needed",
                           "a copy of column 0")  # fmt: skip
    alone = dcc(x[:, [0, 2]])
    assert (fit.a, fit.b) == (alone.a, alone.b)
    at = fit.at(-1)
    assert np.isfinite(at[np.ix_([0, 2], [0, 2])]).all()
    assert np.isnan(at[[1, 3, 4]]).all()
    assert fit.mean_off_diagonal() == pytest.approx(alone.pair(0, 1), rel=1e-12)
    none = dcc(x[:, :2])
    assert none.status == "1 usable series"
    assert np.isnan([none.a, none.b, none.gain]).all()
    assert np.isnan(none.mean_off_diagonal()).all()


def test_series_that_explain_each_other_need_a_target_or_pairs() -> None:
    rng = np.random.default_rng(10)
    z = rng.standard_normal((400, 2))
    z = np.column_stack([z, (z[:, 0] + z[:, 1]) / np.sqrt(2.0)])
    fit = dcc(z, standardised=True)
    assert fit.status.startswith("series explain each other wholly")
    assert np.isnan(fit.a)
    shrunk = 0.9 * np.corrcoef(z.T) + 0.1 * np.eye(3)
    assert np.isfinite(dcc(z, standardised=True, target=shrunk).forecast()).all()
    pairs = dcc(z, standardised=True, composite=True)
    assert np.isfinite(pairs.path()).all()


def test_more_series_than_rows_still_have_a_path() -> None:
    rng = np.random.default_rng(11)
    z, _ = moving(rng, 110, one_factor(rng, 130), 0.05, 0.85, clusters=False)
    fit = dcc(z, standardised=True)
    assert fit.composite
    assert 0.0 < fit.a < 0.15
    at = fit.forecast()
    assert np.isfinite(at).all()
    assert np.linalg.eigvalsh(at).min() > -1e-8
    z[50, 3] = np.nan
    assert np.isfinite(dcc(z, standardised=True).forecast()).all()


def test_a_given_target_is_kept() -> None:
    rng = np.random.default_rng(12)
    z, _ = moving(rng, 500, one_factor(rng, 3), 0.06, 0.9, clusters=False)
    target = np.full((3, 3), 0.4)
    np.fill_diagonal(target, 1.0)
    for composite in (False, True):
        fit = dcc(z, standardised=True, target=target, composite=composite)
        assert np.array_equal(fit.target, target)
        assert np.array_equal(fit.at(0), target)
        assert fit.margins == ()


def test_misuse_is_refused_in_words(fit: DccFit) -> None:
    x = np.random.default_rng(13).standard_normal((120, 2))
    for call, words in (
        (lambda: dcc(x[:, :1]), "at least 2 by 2"),
        (lambda: dcc(x, target=np.eye(3)), "target is 3 by 3; x has 2 series"),
        (lambda: dcc(x, target=[[1.0, 0.2], [0.3, 1.0]]), "no correlation matrix"),
        (lambda: dcc(x, target=[[1.0, 1.5], [1.5, 1.0]]), "not positive semi-definite"),
        (lambda: dcc(x, presample="none"), "presample was 'none'"),
        (lambda: fit.at(501), "row was 501"),
        (lambda: fit.path(5, 5), "rows were"),
        (lambda: fit.pair(0, 4), "pair was 0, 4"),
    ):
        with pytest.raises(EstimationError, match=words):
            call()
