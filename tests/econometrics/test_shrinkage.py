"""Shrunk covariances: against scikit-learn, against loops over the paper's sums, and the truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from undertow.econometrics.shrinkage import Target, shrunk_correlation, shrunk_covariance
from undertow.errors import EstimationError


def panel(rows: int, series: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.5, 2.0, series)
    return scale * (rng.standard_normal((rows, series)) + 0.6 * rng.standard_normal((rows, 1)))


@pytest.mark.parametrize("shape", [(100, 5), (30, 40), (12, 90), (50, 1), (400, 20)])
def test_towards_the_identity_it_is_scikit_learns(shape: tuple[int, int]) -> None:
    x = panel(*shape)
    wanted, share = ledoit_wolf(x)
    found = shrunk_covariance(x)
    assert found.intensity == pytest.approx(share, abs=1e-12)
    assert np.abs(found.covariance - wanted).max() < 1e-12 * np.abs(wanted).max()


def by_loops(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Appendix B of "Honey, I shrunk the sample covariance matrix", one sum at a time."""
    rows, n = x.shape
    y = x - x.mean(axis=0)
    s = y.T @ y / rows
    r = [s[i, j] / np.sqrt(s[i, i] * s[j, j]) for i in range(n) for j in range(i + 1, n)]
    mean = 2.0 * sum(r) / (n * (n - 1))
    pi = rho = gamma = 0.0
    f = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            f[i, j] = s[i, i] if i == j else mean * np.sqrt(s[i, i] * s[j, j])
            pair = np.mean((y[:, i] * y[:, j] - s[i, j]) ** 2)
            pi += pair
            gamma += (f[i, j] - s[i, j]) ** 2
            cross = y[:, i] * y[:, j] - s[i, j]
            ii = np.mean((y[:, i] ** 2 - s[i, i]) * cross)
            jj = np.mean((y[:, j] ** 2 - s[j, j]) * cross)
            ratio = np.sqrt(s[j, j] / s[i, i])
            rho += pair if i == j else mean / 2.0 * (ratio * ii + jj / ratio)
    share = max(0.0, min(1.0, (pi - rho) / gamma / rows))
    return share * f + (1.0 - share) * s, share


@pytest.mark.parametrize("shape", [(400, 5), (200, 9), (15, 12)])
def test_towards_a_constant_correlation_it_is_the_papers_sums(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    x = panel(*shape) + rng.standard_normal((shape[0], 1)) * (np.arange(shape[1]) % 3 == 0)
    wanted, share = by_loops(x)
    found = shrunk_covariance(x, target=Target.CONSTANT_CORRELATION)
    assert 0.0 < share < 1.0
    assert found.intensity == pytest.approx(share, abs=1e-12)
    assert np.abs(found.covariance - wanted).max() < 1e-12


@pytest.mark.parametrize("target", Target)
def test_shrinking_comes_nearer_to_the_truth_and_can_be_inverted(target: Target) -> None:
    series, rows = 30, 40
    truth = 0.3 + 0.7 * np.eye(series)
    root = np.linalg.cholesky(truth)
    rng = np.random.default_rng(6)
    shrunk, plain = [], []
    for _ in range(40):
        x = rng.standard_normal((rows, series)) @ root.T
        found = shrunk_covariance(x, target=target)
        shrunk.append(np.linalg.norm(found.covariance - truth) ** 2)
        plain.append(np.linalg.norm(np.cov(x, rowvar=False, ddof=0) - truth) ** 2)
        assert np.linalg.eigvalsh(found.covariance)[0] > 0.01
    assert np.mean(shrunk) < {Target.IDENTITY: 0.85, Target.CONSTANT_CORRELATION: 0.6}[
        target
    ] * np.mean(plain)


def test_a_shrunk_correlation_has_no_units_and_a_unit_diagonal() -> None:
    x = panel(50, 8)
    one, other = shrunk_correlation(x), shrunk_correlation(x * np.logspace(-4, 4, 8) + 1e3)
    assert np.abs(one.covariance - other.covariance).max() < 1e-7
    assert (np.diag(one.covariance) == 1.0).all()
    assert 0.0 < one.intensity < 1.0
    sample = np.corrcoef(x, rowvar=False)
    off = ~np.eye(8, dtype=bool)
    assert np.allclose(one.covariance[off], (1.0 - one.intensity) * sample[off], atol=1e-12)
    assert np.abs(one.correlation - one.covariance).max() < 1e-15


def test_a_large_level_costs_no_digits() -> None:
    x = np.round(panel(80, 6), 6)
    high, low = shrunk_covariance(x + 1e6), shrunk_covariance(x)
    assert np.abs(high.covariance - low.covariance).max() < 1e-9


def test_equal_series_are_shrunk_by_nothing_and_a_flat_one_has_a_reason() -> None:
    x = panel(40, 3)
    x[:, 2] = 5.0
    assert shrunk_covariance(x).status == ""
    found = shrunk_covariance(x, target=Target.CONSTANT_CORRELATION)
    assert found.status == "column 2 stood still: no correlation to draw towards"
    assert np.isnan(found.covariance).all()
    assert shrunk_correlation(x).status == "column 2 stood still: it has no correlation"
    flat = shrunk_covariance(np.ones((5, 2)))
    assert (flat.covariance == 0.0).all()
    assert flat.intensity == 0.0
    assert np.isnan(flat.correlation).all()
    copies = shrunk_covariance(x[:, [0, 0]], target=Target.CONSTANT_CORRELATION)
    assert copies.correlation[0, 1] == pytest.approx(1.0)
    single = shrunk_covariance(x[:, :1], target=Target.CONSTANT_CORRELATION)
    assert single.status.startswith("there is a single series")


def test_gaps_and_unknown_targets_are_refused_in_words() -> None:
    x = panel(20, 3)
    x[4, 1] = np.nan
    with pytest.raises(EstimationError, match="row 4 of column 1 is missing"):
        shrunk_covariance(x)
    with pytest.raises(EstimationError, match="target was 'market'; it may be identity, constant"):
        shrunk_correlation(panel(20, 3), target="market")  # type: ignore[arg-type]
