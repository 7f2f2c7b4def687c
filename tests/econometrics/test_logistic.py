"""The logistic fit is scikit-learn's, and stays finite where events are few or parted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from undertow.econometrics.logistic import logistic
from undertow.errors import EstimationError


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_coefficients_are_those_of_scikit_learn(ridge: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 3)) * [1.0, 20.0, 0.01] + [0.0, 5.0, -1.0]
    y = rng.random(300) < 1.0 / (1.0 + np.exp(2.0 - x[:, 0]))
    found = logistic(x, y, ridge=ridge)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    other = LogisticRegression(C=1.0 / ridge, tol=1e-10, max_iter=500).fit(scaled, y)
    assert found.status == ""
    assert found.coefficients == pytest.approx(other.coef_[0], abs=1e-5)
    assert found.intercept == pytest.approx(other.intercept_[0], abs=1e-5)
    assert found.chance(x) == pytest.approx(other.predict_proba(scaled)[:, 1], abs=1e-5)


def test_columns_that_part_the_events_give_a_finite_fit() -> None:
    x = np.r_[np.linspace(-3.0, 0.0, 50), 1e3, 1e6]
    found = logistic(x[:, None], x > 10.0, ridge=1e-6)
    assert found.status == ""
    assert np.isfinite(found.chance(x[:, None])).all()
    assert found.chance([[1e6]])[0] > 0.99


def test_a_column_without_spread_says_nothing() -> None:
    rng = np.random.default_rng(2)
    x, y = np.column_stack([rng.standard_normal(80), np.ones(80)]), rng.random(80) < 0.3
    found = logistic(x, y)
    assert found.coefficients[1] == 0.0
    assert logistic(x[:, :1], y).chance(x[:, :1]) == pytest.approx(found.chance(x))


def test_missing_columns_give_no_chance_and_what_never_happened_none() -> None:
    found = logistic([[0.0], [1.0], [2.0]], [False, True, False])
    assert math.isnan(found.chance([[math.nan]])[0])
    never = logistic([[0.0], [1.0]], [False, False])
    assert never.status == "it never happened"
    assert never.chance([[5.0]])[0] == 0.0
    with pytest.raises(EstimationError, match="ridge was 0"):
        logistic([[0.0], [1.0]], [False, True], ridge=0.0)
    with pytest.raises(EstimationError, match="a truth or a falsehood"):
        logistic([[0.0], [1.0]], [0.5, 1.0])
