"""Nulls of purged series: worlds that are purged again have the noise of the purge in them."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics.common_factor import common_factor
from undertow.econometrics.connectedness_bands import connectedness_null
from undertow.econometrics.connectedness_rolling import window_null
from undertow.econometrics.purging import Purged, purge

ROWS, SERIES = 300, 5
EVERY = np.ones(SERIES, dtype=np.bool_)


def purged_of(seed: int, late: int = 0) -> Purged:
    """Growth that has nothing to do with returns, which share a market; the last begins late."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_normal((ROWS, 1)) + 0.5 * rng.standard_normal((ROWS, SERIES))
    growth = rng.standard_normal((ROWS, SERIES))
    growth[:late, -1] = np.nan
    return purge(growth, returns)


def ties(worlds: np.ndarray) -> float:
    """Mean squared correlation of two series, over worlds."""
    apart = ~np.eye(worlds.shape[2], dtype=np.bool_)
    return float(np.mean([np.corrcoef(w, rowvar=False)[apart] ** 2 for w in worlds]))


def test_worlds_that_are_purged_again_are_tied_by_the_errors_of_their_fits() -> None:
    found = purged_of(1)
    rows = ~np.isnan(found.scaled).any(axis=1)
    white = np.random.default_rng(2).standard_normal((200, int(rows.sum()), SERIES))
    left = found.again(rows, EVERY)(white)
    assert left.shape == white.shape
    assert ties(white) == pytest.approx(1.0 / rows.sum(), rel=0.1)
    assert ties(left) > 1.1 * ties(white)
    assert np.corrcoef(left.ravel(), white.ravel())[0, 1] > 0.9  # else it is as it was


def test_what_the_purge_takes_out_is_taken_out_of_worlds_too() -> None:
    found = purged_of(3)
    rows = ~np.isnan(found.scaled).any(axis=1)
    market = np.repeat(found.market[rows] / found.scale[rows].mean(), SERIES, axis=1)
    left = found.again(rows, EVERY)(market[None])
    assert left.std() < 0.2 * market.std()


def test_a_series_is_purged_over_rows_that_others_lack_and_given_back_without_them() -> None:
    found = purged_of(4, late=60)
    rows = ~np.isnan(found.scaled).any(axis=1)
    white = np.random.default_rng(5).standard_normal((20, int(rows.sum()), SERIES))
    left = found.again(rows, EVERY)(white)
    some = found.again(rows, EVERY & (np.arange(SERIES) > 2))(white[:, :, 3:])
    assert rows.sum() == ROWS - 60
    assert not np.isnan(left).any()
    assert np.array_equal(some, left[:, :, 3:])
    assert ties(left) < 3.0 / rows.sum()


def test_nulls_of_purged_series_reach_higher_and_others_are_as_they_were() -> None:
    found = purged_of(6)
    rows = ~np.isnan(found.scaled).any(axis=1)
    x, again = found.scaled[rows], found.again(rows, EVERY)
    for null in (
        lambda how: connectedness_null(x, rng=np.random.default_rng(7), again=how).totals,
        lambda how: window_null(x, 150, rng=np.random.default_rng(8), again=how).totals,
        lambda how: (
            common_factor(x, rng=np.random.default_rng(9), draws=200, again=how).draws_largest
        ),
    ):
        plain, same, higher = null(None), null(lambda worlds: worlds), null(again)
        assert np.allclose(plain, same)
        assert higher.mean() > plain.mean()


def test_a_series_that_cannot_be_used_does_not_move_the_others_in_the_null() -> None:
    found = purged_of(10)
    rows = ~np.isnan(found.scaled).any(axis=1)
    x = found.scaled[rows].copy()
    some = found.again(rows, EVERY & (np.arange(SERIES) < SERIES - 1))
    fewer = connectedness_null(x[:, :-1], rng=np.random.default_rng(1), draws=40, again=some)
    x[:, -1] = 1.0
    null = connectedness_null(
        x, rng=np.random.default_rng(1), draws=40, again=found.again(rows, EVERY)
    )
    assert null.fit.left_out[-1]
    assert np.allclose(null.totals, fewer.totals)
