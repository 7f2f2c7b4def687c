"""Cumulative rates and incidences without a law: by hand, against statsmodels, and the fits."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import CumIncidenceRight

from undertow.econometrics.hazards import hazards
from undertow.econometrics.survival import aalen_johansen, nelson_aalen
from undertow.errors import EstimationError

UNTIL, CAUSE = [1.0, 2.0, 2.0, 3.0, 4.0], [1, 2, 0, 1, 0]


def test_cumulative_rates_of_five_people_by_hand() -> None:
    steps = nelson_aalen(UNTIL, CAUSE)
    assert steps.times.tolist() == [1.0, 2.0, 3.0]
    assert steps.at_risk.tolist() == [5.0, 4.0, 2.0]
    assert steps.value[:, 0] == pytest.approx([1 / 5, 1 / 5, 1 / 5 + 1 / 2])
    assert steps.value[:, 1] == pytest.approx([0.0, 1 / 4, 1 / 4])
    assert steps.error[-1, 0] == pytest.approx(np.sqrt(1 / 25 + 1 / 4))


def test_incidence_of_five_people_by_hand() -> None:
    steps = aalen_johansen(UNTIL, CAUSE)
    # S before: 1, 4/5, 4/5 * 3/4
    assert steps.value[:, 0] == pytest.approx([0.2, 0.2, 0.2 + 0.6 / 2])
    assert steps.value[:, 1] == pytest.approx([0.0, 0.2, 0.2])
    assert steps.at(2.5) == pytest.approx([0.2, 0.2])
    assert steps.at(0.5) == pytest.approx([0.0, 0.0])


def test_incidence_and_its_error_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    until = np.ceil(rng.exponential(8.0, 300))
    cause = rng.choice([0, 1, 2], 300, p=[0.4, 0.35, 0.25])
    steps, other = aalen_johansen(until, cause), CumIncidenceRight(until, cause)
    rows = np.searchsorted(other.times, steps.times)
    for j in range(2):
        assert steps.value[:, j] == pytest.approx(other.cinc[j][rows], abs=1e-12)
        assert steps.error[:-1, j] == pytest.approx(other.cinc_se[j][rows][:-1], abs=1e-9)


def test_who_comes_late_is_not_at_risk_before() -> None:
    late = nelson_aalen([2.0, 3.0, 3.0], [1, 1, 0], since=[0.0, 0.0, 2.0])
    assert late.at_risk.tolist() == [2.0, 2.0]


def test_where_rates_are_constant_the_fit_says_the_same() -> None:
    rng = np.random.default_rng(6)
    first = rng.exponential([1 / 0.05, 1 / 0.02], (4_000, 2))
    until = np.minimum(first.min(axis=1), 20.0)
    cause = np.where(until < 20.0, first.argmin(axis=1) + 1, 0)
    steps = aalen_johansen(until, cause)
    weeks = np.ceil(until).astype(int)
    outcome = np.zeros(weeks.sum(), dtype=int)
    outcome[np.cumsum(weeks) - 1] = cause
    fit = hazards(np.empty((len(outcome), 0)), outcome)
    grown = fit.incidence(np.empty((15, 0)))
    assert grown.value[-1] == pytest.approx(steps.at(15.0), abs=0.015)
    assert nelson_aalen(until, cause).at(15.0) == pytest.approx([0.75, 0.30], abs=0.05)
    low, high = steps.band()
    assert ((low <= steps.value) & (steps.value <= high)).all()


@pytest.mark.parametrize(
    ("until", "cause", "message"),
    [
        ([1.0, 2.0], [0, 0], "no cause ever came"),
        ([1.0, 0.0], [1, 0], "not after since"),
        ([1.0, 2.0], [1, 0.5], "cause is not 0"),
    ],
)
def test_what_cannot_be_is_refused(until: list[float], cause: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        nelson_aalen(until, cause)
