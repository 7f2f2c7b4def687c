"""Rolling connectedness of sixty series, beside what one would write first."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
from numpy.typing import NDArray

from bench.harness import Benchmark, Result
from undertow.econometrics.connectedness_rolling import (
    RollingConnectedness,
    rolling_connectedness,
)
from undertow.econometrics.equations import ElasticNet, Estimator, LeastSquares

Matrix = NDArray[np.float64]

SERIES, ROWS, WINDOW, HORIZON, LAGS = 60, 1_000, 250, 10, 1
PENALTY, MIX = 0.12, 0.5  # what blocked folds choose on these series
PLAIN_WINDOWS = 12  # the plain way is timed on windows spread over all


def planted(rows: int = ROWS, series: int = SERIES, seed: int = 1) -> Matrix:
    """Series with own dynamics, a few ties and three common shocks."""
    rng = np.random.default_rng(seed)
    step = np.diag(rng.uniform(0.2, 0.6, series))
    for i, j in rng.integers(0, series, (2 * series, 2)):
        step[i, j] += 0.1 * rng.standard_normal()
    common = rng.standard_normal((rows, 3)) @ rng.standard_normal((3, series)) * 0.5
    x = np.zeros((rows, series))
    for t in range(1, rows):
        x[t] = step @ x[t - 1] + common[t] + rng.standard_normal(series)
    return x


def plain_table(rows: Matrix, penalty: float | None, *, exact: bool = False) -> Matrix:
    """One window the plain way: a regression an equation, then shares from moving averages.

    Least squares for all equations in one call of LAPACK; the elastic net by scikit-learn, at its
    own tolerance unless `exact`.
    """
    past, present = rows[:-1], rows[1:]
    z, y = past - past.mean(axis=0), present - present.mean(axis=0)
    scale, now = z.std(axis=0), y.std(axis=0)
    if penalty is None:
        step = np.linalg.lstsq(z, y, rcond=None)[0].T
    else:
        from sklearn.linear_model import ElasticNet as Plain

        model = Plain(
            alpha=penalty, l1_ratio=MIX, fit_intercept=False,
            tol=1e-12 if exact else 1e-4, max_iter=100_000 if exact else 1_000,
        )  # fmt: skip
        like = np.asfortranarray(z / scale)
        weights = np.array([model.fit(like, y[:, i] / now[i]).coef_ for i in range(y.shape[1])])
        step = weights * now[:, None] / scale
    left = y - z @ step.T
    covariance = left.T @ left / len(left)
    moved, given, whole = np.eye(len(step)), np.zeros_like(step), np.zeros(len(step))
    for _ in range(HORIZON):
        given += (moved @ covariance) ** 2 / np.diag(covariance)
        whole += np.diag(moved @ covariance @ moved.T)
        moved = step @ moved
    shares = given / whole[:, None]
    table: Matrix = shares / shares.sum(axis=1, keepdims=True)
    return table


def _roll(x: Matrix, estimator: Estimator, *, tables: bool = False) -> RollingConnectedness:
    return rolling_connectedness(x, WINDOW, LAGS, HORIZON, estimator=estimator, tables=tables)


def _compared(name: str, penalty: float | None, goal: str, least: float, near: float) -> Result:
    x = planted()
    estimator = LeastSquares() if penalty is None else ElasticNet(penalty, MIX)
    found = _roll(x, estimator, tables=True)  # also the warm-up
    assert found.tables is not None
    assert not any(found.status)
    places = np.linspace(0, len(found.end) - 1, PLAIN_WINDOWS).astype(int)
    windows = [x[end - WINDOW : end] for end in found.end[places]]
    exact = np.array([plain_table(rows, penalty, exact=True) for rows in windows])
    apart = float(np.abs(exact - found.tables[places]).max())
    assert apart <= near, apart
    own, plain = [], []
    for _ in range(3):  # turn about, so that a busy machine is as busy for both
        began = time.perf_counter()
        _roll(x, estimator)
        own.append((time.perf_counter() - began) / len(found.end))
        began = time.perf_counter()
        for rows in windows:
            plain_table(rows, penalty)
        plain.append((time.perf_counter() - began) / len(windows))
    tracemalloc.start()
    _roll(x, estimator)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ratio = float(np.median(plain) / np.median(own))
    return Result(
        name,
        {"series": SERIES, "windows": len(found.end), "window": WINDOW, "horizon": HORIZON},
        {
            "seconds_a_window": float(np.median(own)),
            "furthest_from_plain": apart,
            "peak_megabytes": peak / 1e6,
        },
        goal,
        ratio >= least if least else None,
        {"plain_seconds_a_window": float(np.median(plain))},
        {"to_plain": ratio},
    )


def connectedness_elastic_net() -> Result:
    """Sixty series, elastic net; beside scikit-learn for each equation of each window.

    Both solve the same problem; ours to 1e-8 of a weight, scikit-learn to its own looser default.
    Answers are compared at a tight tolerance of both.
    """
    goal = ">= 20x scikit-learn, an equation at a time, with the same answers to 1e-6"
    return _compared("connectedness_elastic_net", PENALTY, goal, 20.0, 1e-6)


def connectedness_least_squares() -> Result:
    """Sixty series, least squares; beside LAPACK's own solver and numpy's matrix products.

    The baseline is vectorised already, so the ratio is what moving sums and half the products
    save.
    """
    return _compared("connectedness_least_squares", None, "same answers to 1e-8", 0.0, 1e-8)


BENCHMARKS: dict[str, Benchmark] = {
    "connectedness_elastic_net": connectedness_elastic_net,
    "connectedness_least_squares": connectedness_least_squares,
}
