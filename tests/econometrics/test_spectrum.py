"""Eigenvalues by chance, cleaned and counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from undertow.econometrics.spectrum import (
    Cleaning,
    cleaned_correlation,
    effective_number,
    marchenko_pastur,
    spectrum,
)
from undertow.errors import EstimationError


def one_factor(series: int, rho: float) -> np.ndarray:
    return rho + (1.0 - rho) * np.eye(series)


def sample(truth: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((rows, len(truth))) @ np.linalg.cholesky(truth).T
    return np.corrcoef(x, rowvar=False)


def test_a_spectrum_puts_its_matrix_together_again() -> None:
    given = sample(one_factor(7, 0.3), 50, np.random.default_rng(1))
    found = spectrum(given)
    assert np.abs((found.vectors * found.eigenvalues) @ found.vectors.T - given).max() < 1e-13
    assert (np.diff(found.eigenvalues) <= 0.0).all()
    assert found.shares.sum() == pytest.approx(1.0)


def test_the_edges_of_chance_hold_nearly_all_eigenvalues_of_pure_noise() -> None:
    rng = np.random.default_rng(2)
    low, high = marchenko_pastur(200, 800)
    assert (low, high) == (0.25, 2.25)
    eigenvalues = spectrum(sample(np.eye(200), 800, rng)).eigenvalues
    assert low - 0.05 < eigenvalues[-1]
    assert eigenvalues[0] < high + 0.08
    law = quad(lambda v: np.sqrt((high - v) * (v - low)) / (2.0 * np.pi * 0.25 * v), 1.0, high)[0]
    assert (eigenvalues > 1.0).mean() == pytest.approx(law, abs=0.02)
    assert marchenko_pastur(50, 200, variance=0.5)[1] == pytest.approx(0.5 * 2.25)


@pytest.mark.parametrize("cleaning", Cleaning)
def test_cleaning_comes_nearer_to_the_truth(cleaning: Cleaning) -> None:
    rng = np.random.default_rng(3)
    blocks = np.kron(np.eye(4), one_factor(15, 0.4)) * 0.7 + 0.3 * one_factor(60, 0.2)
    blocks = blocks / np.sqrt(np.outer(np.diag(blocks), np.diag(blocks)))
    cleaned, plain, risk = [], [], []
    for _ in range(20):
        given = sample(blocks, 120, rng)
        found = cleaned_correlation(given, 120, cleaning=cleaning)
        cleaned.append(np.linalg.norm(found.values - blocks) ** 2)
        plain.append(np.linalg.norm(given - blocks) ** 2)
        risk.append([_true_risk(m, blocks) for m in (found.values, given)])
        assert found.status == ""
        assert (np.diag(found.values) == 1.0).all()
        assert found.after.sum() == pytest.approx(60.0)
        assert found.beyond in (3, 4, 5)
    assert np.mean(cleaned) < 0.65 * np.mean(plain)  # 0.48 with eigenvalues that know the truth
    ours, theirs = np.mean(risk, axis=0)
    assert ours < 0.75 * theirs  # of the portfolio that each matrix takes for the least risky


def _true_risk(believed: np.ndarray, truth: np.ndarray) -> float:
    weights = np.linalg.solve(believed, np.ones(len(truth)))
    weights /= weights.sum()
    return float(weights @ truth @ weights)


def test_the_oracle_eigenvalues_of_pure_noise_are_all_near_one() -> None:
    rng = np.random.default_rng(4)
    given = sample(np.eye(100), 250, rng)
    found = cleaned_correlation(given, 250, cleaning=Cleaning.ROTATION_INVARIANT)
    assert found.before.std() > 0.5
    assert found.after.std() < 0.2
    assert np.abs(found.after - 1.0).max() < 0.6


def test_the_oracle_eigenvalues_are_what_the_vectors_are_worth() -> None:
    """Ledoit and Peche's target, which only the truth knows: v' C v for each sample vector v."""
    rng = np.random.default_rng(5)
    truth = np.diag(np.linspace(0.4, 1.6, 150))
    size = np.sqrt(np.diag(truth))
    x = rng.standard_normal((450, 150)) * size
    given = x.T @ x / 450
    scale = np.sqrt(np.diag(given))
    found = cleaned_correlation(
        given / np.outer(scale, scale), 450, cleaning=Cleaning.ROTATION_INVARIANT
    )
    vectors = spectrum(given / np.outer(scale, scale)).vectors
    true = truth / np.outer(size, size)
    worth = np.einsum("ik,ij,jk->k", vectors, true, vectors)
    before, after = np.abs(found.before - worth).mean(), np.abs(found.after - worth).mean()
    assert after < 0.25 * before


def test_clipping_keeps_what_stands_out_and_levels_the_rest() -> None:
    given = sample(one_factor(40, 0.4), 100, np.random.default_rng(6))
    found = cleaned_correlation(given, 100)
    assert found.beyond == 1
    assert found.after[0] == found.before[0]
    assert np.ptp(found.after[1:]) == 0.0
    assert found.edge == marchenko_pastur(40, 100)[1]


def test_more_series_than_rows_are_clipped_but_not_estimated_one_by_one() -> None:
    given = sample(one_factor(40, 0.4), 25, np.random.default_rng(7))
    clipped = cleaned_correlation(given, 25)
    assert np.linalg.eigvalsh(clipped.values)[0] > 0.1
    found = cleaned_correlation(given, 25, cleaning=Cleaning.ROTATION_INVARIANT)
    assert "40 series over 25 rows" in found.status
    assert np.abs(found.values - given).max() < 1e-12


def test_effective_numbers_run_from_one_to_all() -> None:
    for series in (2, 10):
        none, full = effective_number(np.eye(series)), effective_number(np.ones((series, series)))
        for name in ("entropy", "participation", "mean_correlation"):
            assert getattr(none, name) == pytest.approx(series)
            assert getattr(full, name) == pytest.approx(1.0)


def test_effective_numbers_are_their_formulas() -> None:
    found = effective_number(one_factor(5, 0.5))
    shares = np.array([3.0, 0.5, 0.5, 0.5, 0.5]) / 5.0
    assert found.entropy == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found.participation == pytest.approx(1.0 / (shares**2).sum())
    assert found.mean_correlation == pytest.approx(5.0 / 3.0)
    assert found.series == 5
    long_short = one_factor(4, 0.8) * np.outer([1, -1, 1, -1], [1, -1, 1, -1])
    np.fill_diagonal(long_short, 1.0)
    found = effective_number(long_short)
    assert found.participation < 1.5
    assert found.mean_correlation > 20.0  # it reads a long-short world as diverse: no upper limit
    assert np.isnan(effective_number(np.array([[1.0, -1.0], [-1.0, 1.0]])).mean_correlation)


def test_noise_alone_makes_series_seem_fewer_as_the_docstring_says() -> None:
    given = sample(np.eye(50), 100, np.random.default_rng(8))
    assert effective_number(given).participation == pytest.approx(50.0 / 1.5, rel=0.03)


def test_misuse_is_refused_in_words() -> None:
    with pytest.raises(EstimationError, match="square and symmetric"):
        spectrum(np.ones((2, 3)))
    with pytest.raises(EstimationError, match="trace of values is not positive"):
        spectrum(np.zeros((2, 2)))
    with pytest.raises(EstimationError, match="rows 0"):
        marchenko_pastur(5, 0)
    with pytest.raises(EstimationError, match="cleaning was 'ironed'"):
        cleaned_correlation(np.eye(3), 10, cleaning="ironed")  # type: ignore[arg-type]
    with pytest.raises(EstimationError, match="diagonal of correlation"):
        effective_number(2.0 * np.eye(3))
