"""Tests for a common factor: their size, their power, and what each null keeps."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics.absorption import Input, absorption_ratio
from undertow.econometrics.common_factor import FactorNull, common_factor
from undertow.econometrics.spectrum import effective_number, marchenko_pastur
from undertow.errors import EstimationError


def slow(rows: int, series: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """Independent series that remember themselves."""
    x = rng.standard_normal((rows, series))
    for t in range(1, rows):
        x[t] += phi * x[t - 1]
    return x


def rejections(null: FactorNull, make: object, runs: int, seed: int, draws: int = 59) -> float:
    rng = np.random.default_rng(seed)
    rejected = 0
    for _ in range(runs):
        found = common_factor(make(rng), rng=rng, null=null, draws=draws)  # type: ignore[operator]
        rejected += found.p_largest <= 0.1
    return rejected / runs


@pytest.mark.parametrize("null", FactorNull)
def test_without_a_factor_one_test_in_ten_rejects_at_ten_percent(null: FactorNull) -> None:
    share = rejections(null, lambda rng: rng.standard_normal((120, 12)), 90, 1)
    if (
        null is FactorNull.RANDOM_MATRIX
    ):  # a limit for many series: with a dozen it asks for too much
        assert share < 0.1
    else:
        assert 0.03 < share < 0.19


def test_only_shifts_stand_series_that_remember_themselves() -> None:
    make = lambda rng: slow(150, 10, 0.9, rng)  # noqa: E731
    assert 0.03 < rejections(FactorNull.SHIFTED, make, 60, 2) < 0.21
    assert rejections(FactorNull.PERMUTED, make, 25, 3) > 0.9
    assert rejections(FactorNull.GAUSSIAN, make, 25, 4) > 0.9


@pytest.mark.parametrize("null", FactorNull)
def test_a_planted_factor_is_found(null: FactorNull) -> None:
    def make(rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal((150, 15)) + 0.6 * rng.standard_normal((150, 1))

    assert rejections(null, make, 30, 5) > 0.95


def spells(rng: np.random.Generator, rows: int, series: int, loud: float) -> np.ndarray:
    """Independent series that are all loud in the same tenth of the time."""
    x = rng.standard_normal((rows, series))
    first = int(rng.integers(rows - rows // 10))
    x[first : first + rows // 10] *= loud
    return x


def test_only_flips_stand_series_that_are_loud_at_the_same_time() -> None:
    make = lambda rng: spells(rng, 400, 8, 4.0)  # noqa: E731
    assert 0.03 < rejections(FactorNull.FLIPPED, make, 90, 13) < 0.2
    assert rejections(FactorNull.SHIFTED, make, 25, 14) > 0.5


def test_flips_stand_series_that_remember_themselves_and_find_a_factor_among_them() -> None:
    make = lambda rng: slow(300, 8, 0.7, rng)  # noqa: E731
    assert 0.03 < rejections(FactorNull.FLIPPED, make, 90, 15) < 0.2

    def tied(rng: np.random.Generator) -> np.ndarray:
        return slow(400, 10, 0.7, rng) + 0.7 * slow(400, 1, 0.7, rng)

    assert rejections(FactorNull.FLIPPED, tied, 20, 16) > 0.9


def test_each_eigenvalue_has_the_bound_of_chance_for_its_rank() -> None:
    x = slow(300, 6, 0.5, np.random.default_rng(17))
    found = common_factor(x, rng=np.random.default_rng(1), draws=199, level=0.9)
    assert found.high.shape == (6,)
    assert found.high[0] == pytest.approx(6.0 * found.band_largest[1])
    assert (np.diff(found.high) < 0.0).all()
    assert found.high[0] > marchenko_pastur(6, 300)[1]  # memory makes more than iid noise does
    wide = common_factor(np.random.default_rng(2).standard_normal((10, 14)),
                         rng=np.random.default_rng(1), draws=29)  # fmt: skip
    assert (wide.high[9:] < 1e-9).all()


def test_a_factor_among_slow_series_is_found_by_shifts() -> None:
    def make(rng: np.random.Generator) -> np.ndarray:
        return slow(400, 10, 0.8, rng) + 1.5 * slow(400, 1, 0.8, rng)

    assert rejections(FactorNull.SHIFTED, make, 20, 6) > 0.9


def test_the_random_matrix_law_is_that_of_simulated_noise_for_many_series() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((400, 120))
    law = common_factor(x, rng=rng, null=FactorNull.RANDOM_MATRIX)
    drawn = common_factor(x, rng=rng, null=FactorNull.GAUSSIAN, draws=300)
    assert np.abs(np.subtract(law.band_largest, drawn.band_largest)).max() < 0.04 * law.largest
    _, edge = marchenko_pastur(120, 400)
    assert law.band_largest[0] < edge / 120 < law.band_largest[1] * 1.05
    assert np.isnan(law.p_absorption)
    assert law.draws_largest.size == 0


def test_shares_are_those_of_the_correlation_matrix_and_p_values_those_of_the_draws() -> None:
    rng = np.random.default_rng(8)
    x = slow(80, 8, 0.5, rng) * np.arange(1.0, 9.0) + 1e4
    found = common_factor(x, rng=rng, draws=199, fraction=0.25)
    plain = np.corrcoef(x, rowvar=False)
    eigenvalues = np.linalg.eigvalsh(plain)
    assert found.largest == pytest.approx(eigenvalues[-1] / 8.0)
    assert found.top == 2
    assert found.absorption == pytest.approx(
        absorption_ratio(x, fraction=0.25, of=Input.CORRELATION).ratio
    )
    assert found.p_absorption == (1 + (found.draws_absorption >= found.absorption).sum()) / 200
    assert found.p_largest == (1 + (found.draws_largest >= found.largest).sum()) / 200
    assert found.effective is not None
    assert found.effective.participation == pytest.approx(effective_number(plain).participation)
    low, high = found.band_largest
    assert 0.85 < ((found.draws_largest >= low) & (found.draws_largest <= high)).mean() < 0.95


def test_the_same_generator_gives_the_same_answer() -> None:
    x = slow(60, 5, 0.5, np.random.default_rng(9))
    one, other = (common_factor(x, rng=np.random.default_rng(1), draws=50) for _ in range(2))
    assert np.array_equal(one.draws_largest, other.draws_largest)


def test_more_series_than_rows_are_tested_all_the_same() -> None:
    rng = np.random.default_rng(10)
    x = rng.standard_normal((20, 60))
    found = common_factor(x, rng=rng, draws=99)
    assert found.largest == pytest.approx(
        np.linalg.eigvalsh(np.corrcoef(x, rowvar=False))[-1] / 60.0
    )
    assert 0.0 < found.p_largest <= 1.0


def test_a_copy_a_short_series_and_a_flat_one_are_outcomes() -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((60, 6))
    x[:, 1] = x[:, 0]
    for null in FactorNull:
        copied = common_factor(x, rng=rng, null=null, draws=9)
        assert copied.status == "column 1 cannot be used: a copy of column 0"
        assert np.isnan(copied.p_largest)
    short = common_factor(x[:9, 2:], rng=rng)
    assert short.status == "column 0 cannot be used: too short: 9 values, 10 are needed"
    x[:, 1] = 4.0
    found = common_factor(x, rng=rng)
    assert found.status == "column 1 stood still: it has no correlation"
    assert np.isnan([found.largest, found.p_largest, *found.band_largest]).all()
    assert found.effective is None


def test_misuse_is_refused_in_words() -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_normal((30, 4))
    with pytest.raises(EstimationError, match="draws was 0"):
        common_factor(x, rng=rng, draws=0)
    with pytest.raises(EstimationError, match="null was 'none'; it may be random matrix, gaussian"):
        common_factor(x, rng=rng, null="none")  # type: ignore[arg-type]
    x[3, 2] = np.nan
    with pytest.raises(EstimationError, match="row 3 of column 2 is missing"):
        common_factor(x, rng=rng)
