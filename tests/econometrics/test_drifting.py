"""The drifting autoregression against a plain filter, its limits, and a planted switch."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics.autoregression import autoregression
from undertow.econometrics.connectedness import Scheme, decomposition, summary
from undertow.econometrics.drifting import (
    DriftingAutoregression,
    drifting_autoregression,
    drifting_connectedness,
)
from undertow.econometrics.priors import Minnesota, Training
from undertow.errors import EstimationError

OWN = 0.3 * np.eye(3)
TIED = np.array([[0.3, 0.0, 0.0], [0.6, 0.3, 0.0], [0.6, 0.0, 0.3]])


def switching(rows: int, at: int, seed: int, before: np.ndarray = OWN) -> np.ndarray:
    """Series that begin to follow the first at row `at`."""
    rng = np.random.default_rng(seed)
    x = np.zeros((rows, 3))
    for t in range(1, rows):
        x[t] = (TIED if t >= at else before) @ x[t - 1] + rng.standard_normal(3)
    return x


def plain(
    x: np.ndarray,
    lags: int,
    keeps: float,
    covers: float,
    start: int,
    mean: np.ndarray,
    spread: np.ndarray,
    shocks: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The printed recursions on the whole state vector, with Kronecker products and inverses."""
    n = x.shape[1]
    b, found = mean.reshape(-1).copy(), []
    for t in range(start, len(x)):
        past = np.concatenate([[1.0], *(x[t - l] for l in range(lags, 0, -1))])
        z = np.kron(np.eye(n), past)
        p = spread / keeps
        e = x[t] - z @ b
        expected = covers * shocks + (1.0 - covers) * np.outer(e, e)
        gain = p @ z.T @ np.linalg.inv(z @ p @ z.T + expected)
        b = b + gain @ e
        spread = (np.eye(len(b)) - gain @ z) @ p
        u = x[t] - z @ b
        shocks = covers * shocks + (1.0 - covers) * np.outer(u, u)
        found.append((b.reshape(n, -1), shocks))
    return found


def agrees(found: DriftingAutoregression, wanted: list[tuple[np.ndarray, np.ndarray]]) -> None:
    lags = found.coefficients.shape[1]
    n = found.intercept.shape[1]
    assert found.status == ""
    assert len(found.rows) == len(wanted)
    for step, (b, shocks) in enumerate(wanted):
        assert np.allclose(found.intercept[step], b[:, 0], atol=1e-10)
        for l in range(1, lags + 1):
            block = b[:, 1 + (lags - l) * n : 1 + (lags - l + 1) * n]
            assert np.allclose(found.coefficients[step, l - 1], block, atol=1e-10)
        assert np.allclose(found.covariance[step], shocks, atol=1e-10)


@pytest.mark.parametrize(("keeps", "covers"), [(0.99, 0.96), (0.96, 0.9), (1.0, 1.0)])
def test_the_filter_is_the_printed_recursion_from_a_minnesota_prior(
    keeps: float, covers: float
) -> None:
    x = switching(160, 80, 1)
    prior = Minnesota(rows=40, tightness=0.2, own=0.1)
    asked = {"coefficient_memory": keeps, "covariance_memory": covers, "prior": prior}
    found = drifting_autoregression(x, 2, **asked)
    s = x[:40].std(axis=0)
    mean, wide = np.zeros((3, 7)), np.zeros((3, 7))
    for i in range(3):
        mean[i, 0], wide[i, 0] = 0.9 * x[:40, i].mean(), 100.0 * s[i] ** 2
        mean[i, 4 + i] = 0.1
        for j in range(3):
            wide[i, 1 + j] = 0.2 / 4.0 * (s[i] / s[j]) ** 2  # the second lag stands first
            wide[i, 4 + j] = 0.2 * (s[i] / s[j]) ** 2
    wanted = plain(x, 2, keeps, covers, 40, mean, np.diag(wide.reshape(-1)), np.diag(s**2))
    agrees(found, wanted)
    assert found.rows.tolist() == list(range(40, 160))


def test_the_filter_is_the_printed_recursion_from_a_training_prior() -> None:
    x = switching(130, 90, 2)
    found = drifting_autoregression(x, 1, prior=Training(60, slack=2.0))
    z = np.column_stack([np.ones(59), x[:59]])
    slope = np.linalg.lstsq(z, x[1:60], rcond=None)[0].T
    left = x[1:60] - z @ slope.T
    shocks = left.T @ left / 59.0
    spread = 2.0 * np.kron(shocks, np.linalg.inv(z.T @ z))
    agrees(found, plain(x, 1, 0.99, 0.96, 60, slope, spread, shocks))


def test_with_full_memory_and_no_prior_to_speak_of_it_ends_at_least_squares() -> None:
    x = switching(400, 0, 3)
    loose = Minnesota(rows=20, tightness=1e6)
    found = drifting_autoregression(
        x, 1, coefficient_memory=1.0, covariance_memory=1.0, prior=loose
    )
    wanted = autoregression(x[19:])
    assert np.allclose(found.coefficients[-1], wanted.coefficients, atol=1e-4)
    assert np.allclose(found.intercept[-1], wanted.intercept, atol=1e-3)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_each_step_is_the_decomposition_of_what_was_believed(scheme: Scheme) -> None:
    x = switching(150, 100, 4)
    prior = Minnesota(rows=30)
    believed = drifting_autoregression(x, 2, prior=prior)
    found = drifting_connectedness(x, 2, 8, prior=prior, scheme=scheme, tables=True)
    assert found.rows.tolist() == believed.rows.tolist()
    for step in (0, 40, 119):
        table = decomposition(believed.coefficients[step], believed.covariance[step], 8, scheme)
        to, from_, total, corrected = summary(table)
        assert np.allclose(found.tables[step], table, atol=1e-13)
        assert np.allclose(found.to[step], to, atol=1e-13)
        assert np.allclose(found.from_[step], from_, atol=1e-13)
        assert np.allclose(found.net[step], to - from_, atol=1e-13)
        assert found.total[step] == pytest.approx(total, abs=1e-13)
        assert found.corrected[step] == pytest.approx(corrected, abs=1e-13)


def test_nothing_after_a_row_changes_what_was_believed_at_it() -> None:
    x = switching(200, 120, 5)
    whole = drifting_connectedness(x, prior=Minnesota(30))
    cut = drifting_connectedness(x[:140], prior=Minnesota(30))
    assert (whole.total[:110] == cut.total).all()


@pytest.mark.slow
def test_a_spillover_that_begins_at_a_date_is_followed() -> None:
    """12 samples, the memories of the literature: half of the rise takes 100 to 150 rows.

    A memory of 0.96 instead of 0.99 has it within 50.
    """
    truth = [summary(decomposition(step[None], np.eye(3)))[2] for step in (OWN, TIED)]
    paths = [switching(600, 300, seed) for seed in range(12)]
    slow = [drifting_connectedness(x) for x in paths]
    total = np.array([found.total for found in slow])
    at = int(np.searchsorted(slow[0].rows, 300))
    base = np.nanmean(total[:, at - 60 : at])
    half = base + 0.5 * (truth[1] - base)
    assert base < 0.1  # which independent series show
    assert np.nanmean(total[:, at + 50]) < half < np.nanmean(total[:, at + 150])
    assert np.nanmean(total[:, -40:]) == pytest.approx(truth[1], abs=0.04)
    assert all(np.nanmean(found.net[-60:], axis=0).argmax() == 0 for found in slow)
    quick = [drifting_connectedness(x, coefficient_memory=0.96) for x in paths]
    assert np.nanmean([found.total[at + 50] for found in quick]) > half


def test_a_short_memory_follows_faster_and_says_more_of_nothing() -> None:
    x = switching(600, 300, 30)
    slow = drifting_connectedness(x, coefficient_memory=0.995, covariance_memory=0.99)
    fast = drifting_connectedness(x, coefficient_memory=0.96, covariance_memory=0.94)
    at = int(np.searchsorted(slow.rows, 325))
    assert np.nanmean(fast.total[at : at + 10]) > np.nanmean(slow.total[at : at + 10])
    calm = slice(100, 240)
    assert np.nanstd(fast.total[calm]) > np.nanstd(slow.total[calm])


def test_units_change_nothing() -> None:
    x = switching(200, 100, 6)
    for prior in (Minnesota(40), Training(40)):
        found = drifting_connectedness(x, prior=prior)
        louder = drifting_connectedness(x * [1e-4, 1.0, -1e3], prior=prior)
        assert np.allclose(found.total, louder.total, atol=1e-8, equal_nan=True)


# ---- what cannot be estimated


def test_series_that_cannot_be_used_are_left_out_with_a_reason() -> None:
    x = switching(150, 100, 7)
    late = x[:, 0].copy()
    late[:90] = np.nan
    wide = np.column_stack([np.ones(150), x, late, 2.0 * x[:, 1]])
    found, alone = drifting_connectedness(wide, tables=True), drifting_connectedness(x)
    assert [bool(reason) for reason in found.left_out] == [True, False, False, False, True, True]
    assert found.left_out[4].startswith("starts late")
    assert found.left_out[5] == "a copy of column 2"
    assert np.allclose(found.total, alone.total, equal_nan=True)
    assert np.isnan(found.to[:, 0]).all()
    assert np.isnan(found.tables[-1, 4]).all()
    lone = drifting_connectedness(wide[:, :2])
    assert set(lone.status) == {"fewer than two series can be used"}
    assert np.isnan(lone.total).all()


def test_steps_that_have_no_limit_have_no_number_but_a_reason() -> None:
    x = switching(160, 0, 8)
    x[:, 2] += np.where(np.arange(160) < 80, 0.0, 1.15 ** np.maximum(np.arange(160) - 80, 0))
    found = drifting_connectedness(x)
    wild = np.array([bool(reason) for reason in found.status])
    assert wild[-20:].all()
    assert not wild[:25].any()
    assert found.status[-1].startswith("not stationary")
    assert (np.isnan(found.total) == wild).all()


def test_a_series_that_stops_moving_for_thousands_of_rows_does_no_harm() -> None:
    """Forgetting what nothing refreshes would otherwise grow without end: 0.9^-6000 is 1e274."""
    x = switching(6200, 0, 9)
    x[120:, 2] = x[120, 2]
    found = drifting_autoregression(x, 1, coefficient_memory=0.9)
    assert found.status == ""
    assert np.isfinite(found.coefficients).all()
    assert np.isfinite(found.covariance).all()
    assert np.diagonal(found.covariance, axis1=1, axis2=2).min() > 0.0
    assert np.abs(found.coefficients[-1, 0, :2, :2] - TIED[:2, :2]).max() < 0.5  # others live on


def test_a_prior_that_the_rows_do_not_give_is_an_outcome() -> None:
    x = switching(120, 60, 10)
    x[:40, 1] = 0.5
    found = drifting_autoregression(x, prior=Minnesota(40))
    assert found.status == "no prior: column 1 is constant over 40 rows"
    assert found.coefficients.shape == (0, 1, 3, 3)
    trained = drifting_connectedness(x, prior=Training(40))
    assert trained.status[0].startswith("no prior from the first 40 rows: column 1 is constant")
    assert set(trained.status) == {trained.status[0]}
    assert np.isnan(trained.total).all()


def test_misuse_is_refused_by_name() -> None:
    x = switching(100, 50, 11)
    holed = x.copy()
    holed[60, 1] = np.nan
    for given, words in (
        (lambda: drifting_autoregression(holed), "row 60 of column 1 is missing"),
        (lambda: drifting_autoregression(x, 0), "lags was 0"),
        (lambda: drifting_autoregression(x, coefficient_memory=1.1), "coefficient_memory was 1.1"),
        (lambda: drifting_connectedness(x, covariance_memory=0.0), "covariance_memory was 0"),
        (lambda: drifting_connectedness(x, horizon=0), "horizon was 0"),
        (lambda: drifting_autoregression(x[:50]), "x is 50 rows, and the prior looks at 50"),
        (lambda: drifting_autoregression(x, 4, prior=Minnesota(5)), "rows of the prior was 5"),
        (lambda: drifting_autoregression(x, 2, prior=Training(9)), "need at least 10"),
    ):
        with pytest.raises(EstimationError, match=words):
            given()
