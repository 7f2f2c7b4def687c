"""Pairwise correlations with gaps: against pandas and scipy, their bands by simulation, repair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from undertow.econometrics.pairwise import (
    Band,
    Method,
    pairwise_correlation,
    repaired_correlation,
)
from undertow.errors import EstimationError
from undertow.kernels import ranks


def panel(rows: int = 200, series: int = 5, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, series)) + 0.8 * rng.standard_normal((rows, 1))


def with_gaps() -> np.ndarray:
    x = np.round(panel(), 1)
    x[np.random.default_rng(2).random(x.shape) < 0.2] = np.nan
    return x


@pytest.mark.parametrize("method", Method)
def test_pairs_with_gaps_are_those_of_pandas(method: Method) -> None:
    x = with_gaps()
    found = pairwise_correlation(x, method=method)
    assert np.abs(found.values - pd.DataFrame(x).corr(method.value).to_numpy()).max() < 1e-14
    seen = ~np.isnan(x)
    assert (found.counts == seen.T.astype(int) @ seen.astype(int)).all()
    assert found.status == ""
    assert found.least_eigenvalue == pytest.approx(np.linalg.eigvalsh(found.values)[0])


def test_fishers_band_is_that_of_scipy() -> None:
    x = panel()
    found = pairwise_correlation(x, level=0.95)
    wanted = pearsonr(x[:, 1], x[:, 4]).confidence_interval(0.95)
    assert found.low[1, 4] == pytest.approx(wanted.low, abs=1e-12)
    assert found.high[4, 1] == pytest.approx(wanted.high, abs=1e-12)


def test_the_asymptotic_band_is_that_of_a_regression_on_its_influence() -> None:
    x = panel()
    found = pairwise_correlation(x, band=Band.ASYMPTOTIC, level=0.9)
    a, b = ((x[:, k] - x[:, k].mean()) / x[:, k].std() for k in (0, 3))
    psi = a * b - 0.5 * found.values[0, 3] * (a * a + b * b)
    half = 1.6448536269514722 * psi.std() / np.sqrt(len(x))
    assert found.high[0, 3] - found.values[0, 3] == pytest.approx(half, abs=1e-12)


@pytest.mark.parametrize(
    ("method", "band", "tails", "lowest", "highest"),
    [
        (Method.PEARSON, Band.FISHER, "normal", 0.875, 0.925),
        (Method.SPEARMAN, Band.FISHER, "normal", 0.875, 0.925),
        (Method.PEARSON, Band.ASYMPTOTIC, "fat", 0.845, 0.91),
        (Method.PEARSON, Band.FISHER, "fat", 0.68, 0.8),  # as its docstring says: for near normal
    ],
)
def test_a_band_of_nine_in_ten_holds_the_truth_about_as_often(
    method: Method, band: Band, tails: str, lowest: float, highest: float
) -> None:
    rng = np.random.default_rng(3)
    held, runs, rho = 0, 1_200, 0.6
    truth = rho if method is Method.PEARSON else 6.0 / np.pi * np.arcsin(rho / 2.0)
    for _ in range(runs):
        z = rng.standard_normal((300, 2))
        z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho * rho) * z[:, 1]
        if tails == "fat":  # both are loud in the same rows
            z *= np.sqrt(5.0 / rng.chisquare(5.0, size=(300, 1)))
        found = pairwise_correlation(z, method=method, band=band)
        held += found.low[0, 1] <= truth <= found.high[0, 1]
    assert lowest < held / runs < highest


def test_pairs_without_a_correlation_say_why() -> None:
    x = panel(60, 4)
    x[:, 1] = 7.0
    x[8:, 2] = np.nan
    found = pairwise_correlation(x)
    assert found.reasons[0, 1].startswith("one of them stood still")
    assert found.reasons[0, 2] == "seen together in 8 rows; 10 are needed"
    assert found.status == "5 of 6 pairs have none"
    assert np.isnan(found.values[[0, 1], [1, 2]]).all()
    assert np.isnan(found.low[0, 1])
    assert np.isnan(found.least_eigenvalue)
    assert not np.isnan(found.values[0, 3])


def test_copies_and_levels_are_no_matter() -> None:
    x = panel(100, 3)
    found = pairwise_correlation(np.column_stack([x, -x[:, 0], x[:, 0] * 1e-9 + 1e3]))
    assert np.abs(found.values[0, 3:] - [-1.0, 1.0]).max() < 1e-6
    assert found.least_eigenvalue == pytest.approx(0.0, abs=1e-6)
    level = pairwise_correlation(x + 1e6)
    assert np.abs(level.values - pairwise_correlation(x).values).max() < 1e-9


def test_a_repair_makes_pairs_that_contradict_each_other_possible() -> None:
    asked = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    found = repaired_correlation(asked)
    assert np.linalg.eigvalsh(found.values)[0] > -1e-12
    assert (np.diag(found.values) == 1.0).all()
    assert found.clipped == 1
    assert found.least_eigenvalue == pytest.approx(-0.8)  # 1 - 2 * 0.9
    assert found.distance == pytest.approx(np.linalg.norm(found.values - asked))
    assert found.largest_change == pytest.approx(np.abs(found.values - asked).max())
    assert found.values[0, 1] == pytest.approx(0.5)  # the vector (1, -1, 1) is taken out
    raised = repaired_correlation(asked, floor=0.1)
    assert np.linalg.eigvalsh(raised.values)[0] > 0.05


def test_what_is_a_correlation_matrix_comes_back_as_it_was() -> None:
    good = pairwise_correlation(panel()).values
    found = repaired_correlation(good)
    assert np.array_equal(found.values, good)
    assert (found.clipped, found.distance) == (0, 0.0)


def test_the_repair_of_a_gappy_panel_is_no_further_than_the_fault_is_large() -> None:
    x = panel(40, 30)
    x[np.random.default_rng(5).random(x.shape) < 0.4] = np.nan
    pairs = pairwise_correlation(x, least=4)
    found = repaired_correlation(pairs.values)
    assert pairs.least_eigenvalue < -0.1
    missing = np.minimum(np.linalg.eigvalsh(pairs.values), 0.0)
    assert found.distance < 3.0 * np.linalg.norm(missing)
    assert np.linalg.eigvalsh(found.values)[0] > -1e-12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.ones((2, 3)), "must be square"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (np.array([[2.0, 0.5], [0.5, 1.0]]), "diagonal"),
        (np.array([[1.0, 1.5], [1.5, 1.0]]), "beyond -1 and 1"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "is missing"),
    ],
)
def test_a_repair_refuses_what_is_no_matrix_of_correlations(given: np.ndarray, words: str) -> None:
    with pytest.raises(EstimationError, match=words):
        repaired_correlation(given)


def test_misuse_is_refused_in_words() -> None:
    with pytest.raises(EstimationError, match="least was 3"):
        pairwise_correlation(panel(), least=3)
    with pytest.raises(EstimationError, match="ranks have no such band; take fisher"):
        pairwise_correlation(panel(), method=Method.SPEARMAN, band=Band.ASYMPTOTIC)
    with pytest.raises(EstimationError, match="method was 'kendall'; it may be pearson, spearman"):
        pairwise_correlation(panel(), method="kendall")  # type: ignore[arg-type]
    with pytest.raises(EstimationError, match="level was 1"):
        pairwise_correlation(panel(), level=1.0)


def test_the_compiled_table_of_pairs_is_that_of_the_source() -> None:
    x = with_gaps()[:30]
    x[:, 2] = 4.0
    results = []
    for function in (ranks.pair_table, ranks.pair_table.py_func):
        values, spread, counts = np.eye(5), np.zeros((5, 5)), np.zeros((5, 5), dtype=np.int64)
        function(x, True, values, counts, spread)
        results.append(np.stack([values, spread, counts]))
    assert np.array_equal(*results, equal_nan=True)
    out = [np.empty((22, 10)), np.empty((22, 10))]
    for function, into in zip((ranks.gappy_ranks, ranks.gappy_ranks.py_func), out, strict=True):
        function(x, 9, 4, 0, into, np.zeros(2, dtype=np.int64))
    assert np.array_equal(*out, equal_nan=True)
