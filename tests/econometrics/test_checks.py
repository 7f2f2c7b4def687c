"""What every estimator says of a series that it cannot use."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics.checks import screen


@pytest.mark.parametrize("gaps", [0, 1, 15])
def test_a_copy_is_named_wherever_both_were_seen(gaps: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 3))
    x[:, 2] = 5.0 - 2.0 * x[:, 0]
    x[rng.choice(100, gaps, replace=False), 0] = np.nan
    x[rng.choice(100, gaps, replace=False), 2] = np.nan
    assert screen(x, least=20).reasons == ("", "", "a copy of column 0")
    x[np.flatnonzero(~np.isnan(x).any(axis=1))[0], 2] += (
        1e-3  # of a deviation of 2: no copy any more
    )
    assert screen(x, least=20).keep.all()


def test_series_that_were_hardly_seen_at_the_same_rows_are_no_copies() -> None:
    x = np.repeat(np.random.default_rng(2).standard_normal((100, 1)), 2, axis=1)
    x[60:, 0] = x[:55, 1] = np.nan
    assert screen(x, least=20, gaps=1.0, late=0.9).keep.all()
