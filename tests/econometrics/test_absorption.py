"""The absorption ratio: published runs, every step against LAPACK, hostile panels, its shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.linalg import eigh_tridiagonal

from shared import oracle, shared_folder
from undertow.econometrics.absorption import (
    Input,
    absorption_path,
    absorption_ratio,
    counted,
    standardised_shift,
)
from undertow.errors import EstimationError
from undertow.kernels import spectral

NEAR = 1e-8  # a hundredth of what is promised


def absorption_cases() -> list[dict[str, Any]]:
    cases = oracle("mes_srisk_absorption")["cases"]
    chosen = [case for case in cases if case["id"].startswith("absorption")]
    assert len(chosen) >= 5
    return chosen


def test_published_ratios_are_met_at_once_and_at_the_last_step_of_a_path() -> None:
    for case in absorption_cases():
        given, expected = case["inputs"], dict(case["expected"])
        name = given["data"].split()[0]
        frame = pl.read_parquet(shared_folder() / "oracles" / name).select(given["columns"])
        x = frame.to_numpy()[-given["last_rows"] :]
        wanted = expected.pop("absorption_ratio")
        assert not expected, case["id"]  # no field goes unread
        found = absorption_ratio(x, fraction=given["fraction"])
        assert found.top == given["n_eigenvectors"]
        assert found.ratio == pytest.approx(wanted, rel=case["tol"]["rel"]), case["id"]
        path = absorption_path(frame.to_numpy(), given["last_rows"], fraction=given["fraction"])
        assert path.ratio[-1] == pytest.approx(wanted, rel=case["tol"]["rel"]), case["id"]


# ---- every step against LAPACK


def plain(x: np.ndarray, window: int, of: Input, fraction: float) -> np.ndarray:
    """One covariance or correlation matrix, and all of its eigenvalues, at every step."""
    ratios = []
    top = int(np.floor(fraction * x.shape[1] + 0.5))
    for step in range(len(x) - window + 1):
        part = x[step : step + window] - x[step]
        whole = np.cov if of is Input.COVARIANCE else np.corrcoef
        eigenvalues = np.linalg.eigvalsh(whole(part, rowvar=False))
        ratios.append(eigenvalues[-top:].sum() / eigenvalues.sum())
    return np.array(ratios)


def noise() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((700, 30))


def factors_that_cross() -> np.ndarray:
    """Two groups whose factors swap places again and again, so eigenvalues cross."""
    rng = np.random.default_rng(2)
    t = np.arange(700)
    one = rng.standard_normal(700) * (1.5 + np.sin(t / 20.0))
    two = rng.standard_normal(700) * (1.5 - np.sin(t / 20.0))
    x = 0.3 * rng.standard_normal((700, 30))
    x[:, :15] += one[:, None]
    x[:, 15:] += two[:, None]
    return x


def a_regime_that_breaks() -> np.ndarray:
    """Calm and independent, then one loud factor from a row on, then calm again."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((700, 30))
    x[300:360] = 50.0 * rng.standard_normal((60, 1)) + rng.standard_normal((60, 30))
    return x


def a_single_wild_row() -> np.ndarray:
    x = noise()
    x[333] *= 1e7
    x[450, 4] = -1e9
    return x


def copies_and_mirrors() -> np.ndarray:
    """Eigenvalues that are equal, or 0, many at a time."""
    x = noise()[:, :6]
    return np.column_stack([x, x, -x, x * 3.0, x + 1e-9 * noise()[:, 6:12]])


def rotations() -> np.ndarray:
    """Windows in which all eigenvalues are equal, to rounding."""
    t = np.arange(700)
    k = 2.0 * np.pi * np.arange(1, 16) / 60.0
    return np.column_stack([np.sin(np.outer(t, k)), np.cos(np.outer(t, k))])[:, :29]


def levels_far_away() -> np.ndarray:
    return np.cumsum(noise(), axis=0) + 1e6


HOSTILE = [
    noise, factors_that_cross, a_regime_that_breaks, a_single_wild_row, copies_and_mirrors,
    rotations, levels_far_away,
]  # fmt: skip


@pytest.mark.parametrize("of", Input)
@pytest.mark.parametrize("panel", HOSTILE, ids=lambda panel: panel.__name__)
def test_every_step_is_that_of_a_fresh_decomposition(panel: Any, of: Input) -> None:
    x = panel()
    found = absorption_path(x, 60, of=of)
    assert np.abs(found.ratio - plain(x, 60, of, 0.2)).max() < NEAR
    assert found.status == ""
    assert found.first_row == 59
    assert (found.top == counted(0.2, x.shape[1])).all()


@pytest.mark.parametrize("of", Input)
def test_more_series_than_rows_and_many_series_are_met_too(of: Input) -> None:
    x = np.random.default_rng(4).standard_normal((90, 70))
    x += np.random.default_rng(5).standard_normal((90, 1))
    assert np.abs(absorption_path(x, 30, of=of).ratio - plain(x, 30, of, 0.2)).max() < NEAR


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.61, 0.95, 1.0])
def test_any_fraction_is_met_from_whichever_end_is_nearer(fraction: float) -> None:
    x = factors_that_cross()[:150]
    found = absorption_path(x, 60, of=Input.CORRELATION, fraction=fraction)
    wanted = plain(x, 60, Input.CORRELATION, fraction)
    assert np.abs(found.ratio - wanted).max() < NEAR


def test_the_participation_is_the_trace_squared_over_the_sum_of_squares() -> None:
    x = noise()[:100]
    found = absorption_path(x, 60, of=Input.CORRELATION)
    for step in (0, 20, 40):
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(x[step : step + 60], rowvar=False))
        wanted = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert found.participation[step] == pytest.approx(wanted, rel=1e-12)


def test_threads_change_no_bit() -> None:
    x = a_regime_that_breaks()
    one, three = absorption_path(x, 60), absorption_path(x, 60, threads=3)
    assert np.array_equal(one.ratio, three.ratio)
    assert np.array_equal(one.participation, three.participation)


# ---- what a step does not know


def test_a_step_counts_the_series_that_its_window_shows_whole() -> None:
    x = noise()
    x[:200, 3] = np.nan  # starts late
    x[400, 5] = np.nan  # a gap
    x[500:, 7] = 2.0  # stands still
    found = absorption_path(x, 60, of=Input.CORRELATION)
    wanted = np.full(641, 30)
    wanted[:200] -= 1
    wanted[400 - 59 : 401] -= 1
    wanted[500:] -= 1
    assert (found.series == wanted).all()
    for step, without in ((10, [3]), (380, [5]), (620, [7])):
        fresh = np.delete(x[step : step + 60], without, axis=1)
        assert found.ratio[step] == pytest.approx(
            absorption_ratio(fresh, of=Input.CORRELATION).ratio, abs=NEAR
        )
    assert absorption_path(x, 60).series[620] == 30  # its variance is 0, and known


def test_a_step_with_nothing_to_absorb_says_so() -> None:
    x = noise()[:100, :4].copy()
    x[80:, 1:] = np.nan
    found = absorption_path(x, 30, fraction=0.5)
    assert np.isnan(found.ratio[51:]).all()
    assert not np.isnan(found.ratio[:51]).any()
    assert found.status == "20 of 71 steps have too few series that moved"
    flat = absorption_path(np.ones((40, 4)), 30, fraction=0.5)
    assert np.isnan(flat.ratio).all()
    assert "11 of 11" in flat.status


def test_a_flat_series_is_an_outcome_of_the_single_ratio() -> None:
    x = noise()[:50].copy()
    x[:, 2] = 1.0
    found = absorption_ratio(x, of=Input.CORRELATION)
    assert np.isnan(found.ratio)
    assert found.status == "column 2 stood still"
    assert absorption_ratio(x).status == ""


def test_one_factor_absorbs_its_share_and_noise_nearly_its_fraction() -> None:
    """Planted: with correlation rho the largest of N eigenvalues takes rho + (1 - rho) / N."""
    rng = np.random.default_rng(6)
    x = np.sqrt(0.6) * rng.standard_normal((20_000, 1)) + np.sqrt(0.4) * rng.standard_normal(
        (20_000, 10)
    )
    found = absorption_ratio(x, fraction=0.1)
    assert found.ratio == pytest.approx(0.6 + 0.04, abs=0.01)
    assert absorption_ratio(rng.standard_normal((20_000, 10))).ratio == pytest.approx(0.2, abs=0.01)


def test_a_fraction_of_the_series_rounds_a_half_up() -> None:
    assert [counted(0.2, n) for n in (4, 5, 7, 8, 12, 13)] == [1, 1, 1, 2, 2, 3]
    assert counted(0.25, 10) == 3
    assert counted(0.5, 5) == 3
    assert counted(0.0, 5) == 0


# ---- the standardised shift


def test_the_shift_is_a_difference_of_means_over_a_standard_deviation() -> None:
    path = np.cumsum(np.random.default_rng(7).standard_normal(400)) * 0.01 + 0.6
    for short in (15, 1):
        found = standardised_shift(path, short=short, long=252)
        for step in (0, 70, 148):
            year = path[step : step + 252]
            wanted = (year[-short:].mean() - year.mean()) / year.std(ddof=1)
            assert found.values[step] == pytest.approx(wanted, rel=1e-9)
        assert found.first_row == 251
        assert len(found.values) == 149
        assert found.status == ""


def test_the_shift_of_a_path_that_tightens_is_above_one() -> None:
    rng = np.random.default_rng(8)
    path = 0.5 + 0.01 * rng.standard_normal(300)
    path[280:] += 0.05
    found = standardised_shift(path)
    assert found.values[-1] > 1.0
    assert abs(found.values[20]) < 1.0


def test_a_shift_without_a_spread_or_with_a_hole_has_a_reason() -> None:
    path = np.r_[np.full(60, 0.5), np.random.default_rng(9).uniform(0.5, 0.6, 60)]
    path[100] = np.nan
    found = standardised_shift(path, short=5, long=50)
    assert np.isnan(found.values[:11]).all()
    assert np.isnan(found.values[51:]).all()
    assert not np.isnan(found.values[11:51]).any()
    assert found.status == "31 of 71 steps miss a value or stood still"


def test_misuse_is_refused_in_words() -> None:
    x = noise()
    with pytest.raises(EstimationError, match=r"fraction was 0\.01; of 30 series it counts no"):
        absorption_ratio(x, fraction=0.01)
    with pytest.raises(EstimationError, match=r"fraction was 1\.2"):
        absorption_path(x, 60, fraction=1.2)
    with pytest.raises(EstimationError, match="at least 701 by 2"):
        absorption_path(x, 701)
    with pytest.raises(EstimationError, match="window was 2"):
        absorption_path(x, 2)
    with pytest.raises(EstimationError, match="threads was 0"):
        absorption_path(x, 60, threads=0)
    with pytest.raises(EstimationError, match="of was 'beta'; it may be covariance, correlation"):
        absorption_path(x, 60, of="beta")  # type: ignore[arg-type]
    with pytest.raises(EstimationError, match="short was 5, long 5"):
        standardised_shift(np.arange(9.0), short=5, long=5)


# ---- kernels


def reduced(a: np.ndarray, python: bool) -> tuple[np.ndarray, np.ndarray]:
    n = len(a)
    width = (n + 4 + spectral.PAD - 1) // spectral.PAD * spectral.PAD
    wide = np.zeros((n, width))
    wide[:, :n] = a
    d, e = np.empty((2, n))
    function = spectral.tridiagonal.py_func if python else spectral.tridiagonal
    function(wide, d, e, np.empty((4, width)))
    return d, e


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 40])
def test_three_diagonals_keep_all_eigenvalues(n: int) -> None:
    a = np.atleast_2d(np.cov(np.random.default_rng(n).standard_normal((50, n)), rowvar=False))
    d, e = reduced(a, python=False)
    assert np.abs(eigh_tridiagonal(d, e[1:])[0] - np.linalg.eigvalsh(a)).max() < 1e-13


@pytest.mark.parametrize("panel", HOSTILE, ids=lambda panel: panel.__name__)
def test_largest_eigenvalues_are_found_from_any_beginning(panel: Any) -> None:
    a = np.corrcoef(panel()[300:360], rowvar=False)
    d, e = reduced(a, python=False)
    wanted = np.linalg.eigvalsh(a)[::-1][:9]
    for begin in (0.0, -1e6, np.nan, wanted):
        roots = np.empty(9)
        roots[:] = begin
        spectral.largest(d, e * e, 1e-11, roots, np.empty((10, 9)))
        assert np.abs(roots - wanted).max() < 1e-9


def test_a_search_that_cannot_end_is_given_up() -> None:
    roots, never = np.zeros(2), -1.0
    spectral.largest(np.array([1.0, 3.0, 2.0]), np.zeros(3), never, roots, np.empty((10, 2)))
    assert np.isnan(roots).all()


def test_compiled_kernels_do_what_their_source_says_to_the_bit() -> None:
    a = np.corrcoef(noise()[:60, :9], rowvar=False)
    one, other = reduced(a, python=False), reduced(a, python=True)
    assert np.array_equal(one, other)
    found = []
    for function in (spectral.largest, spectral.largest.py_func):
        roots = np.zeros(3)
        function(one[0], one[1] ** 2, 1e-11, roots, np.empty((10, 3)))
        found.append(roots)
    assert np.array_equal(*found)
    at = np.array([0.3, 0.9, 1.4])
    counts = []
    for function in (spectral.count_above, spectral.count_above.py_func):
        out = np.empty((3, 3))
        function(one[0], one[1] ** 2, at, *out, np.empty((3, 3)))
        counts.append(out)
    assert np.array_equal(*counts)
    eigenvalues = np.linalg.eigvalsh(a)
    assert (counts[0][0] == [(eigenvalues > v).sum() for v in at]).all()
    assert np.allclose(counts[0][1], (1.0 / (at[:, None] - eigenvalues)).sum(axis=1))
    assert np.allclose(counts[0][2], (1.0 / (at[:, None] - eigenvalues) ** 2).sum(axis=1))
    x, restart = noise()[:80, :9], np.zeros(21, dtype=np.bool_)
    paths = []
    for function in (spectral.absorbed, spectral.absorbed.py_func):
        share, spread = np.empty((2, 21))
        function(x, 60, 0, restart, np.ones((21, 9)), np.ones((21, 9)), 3, share, spread)
        paths.append(np.r_[share, spread])
    assert np.array_equal(*paths)
