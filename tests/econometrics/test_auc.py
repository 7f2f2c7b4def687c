"""The area under the ROC curve is what others compute, and resampled spells carry its error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from undertow.econometrics.auc import (
    area_under_curve,
    areas,
    odds_band,
    placements,
    resampled_areas,
)
from undertow.errors import EstimationError

scores = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({kind for _, kind in rows}) == 2
)


@settings(max_examples=25)
@given(scores)
def test_the_area_is_that_of_mann_and_whitney_and_of_scikit_learn(
    rows: list[tuple[int, bool]],
) -> None:
    x, y = np.array([v for v, _ in rows], dtype=float), np.array([k for _, k in rows])
    rank = stats.mannwhitneyu(x[y], x[~y]).statistic / (y.sum() * (~y).sum())
    for found in (area_under_curve(x, y).value, areas(x, y, ~y)[0]):
        assert found == pytest.approx(rank, abs=1e-12)
        assert found == pytest.approx(roc_auc_score(y, x), abs=1e-12)
    above, below = placements(x, y)
    assert above.mean() == pytest.approx(below.mean(), abs=1e-12)


@settings(max_examples=25)
@given(scores)
def test_turning_the_score_round_turns_the_area_round(rows: list[tuple[int, bool]]) -> None:
    x, y = np.array([v for v, _ in rows], dtype=float), np.array([k for _, k in rows])
    there, back = area_under_curve(x, y), area_under_curve(-x, y)
    assert there.value + back.value == pytest.approx(1.0)
    if not there.status:
        assert there.error == pytest.approx(back.error)
        assert area_under_curve(np.exp(x), y).value == there.value


def test_the_error_is_the_double_sum_of_delong() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    psi = (x[y][:, None] > x[~y]) + 0.5 * (x[y][:, None] == x[~y])
    variance = psi.mean(axis=1).var(ddof=1) / y.sum() + psi.mean(axis=0).var(ddof=1) / (~y).sum()
    assert area_under_curve(x, y).error == pytest.approx(math.sqrt(variance))


def test_the_band_of_independent_rows_covers_a_binormal_area() -> None:
    rng, gap, hits = np.random.default_rng(2), 1.0, 0
    truth = special.ndtr(gap / math.sqrt(2.0))
    for _ in range(300):
        y = np.arange(120) < 30
        found = area_under_curve(rng.standard_normal(120) + gap * y, y)
        hits += found.low <= truth <= found.high
    assert 0.9 - 0.05 <= hits / 300 <= 0.9 + 0.045  # 99 % binomial interval


def test_a_score_that_parts_all_rows_still_has_a_band_within_0_and_1() -> None:
    found = area_under_curve([1.0, 2.0, 3.0, 4.0, 5.0], [False, False, False, True, True])
    assert (found.value, found.error) == (1.0, 0.0)
    low, high = odds_band(1.0, 0.4, level=0.9, pairs=6)
    assert 0.0 < low < 11 / 12 < high < 1.0


def test_labellings_leave_out_rows_that_are_neither() -> None:
    x = np.array([1.0, 5.0, 2.0, 3.0, 4.0])
    yes = np.array([[0, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
    no = np.array([[1, 0, 1, 0, 0], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], dtype=bool)
    assert areas(x, yes, no) == pytest.approx([1.0, 1.0, math.nan], nan_ok=True)


def test_resampled_spells_draw_the_areas_of_the_rows_drawn() -> None:
    """With weights of whole rows repeated, by hand."""
    rng = np.random.default_rng(3)
    spell = np.repeat(np.arange(12), 10)
    y = (np.arange(120) % 10 >= 7) & (spell < 10)
    x = np.column_stack([rng.standard_normal(120) + y, rng.integers(0, 3, 120)])
    found = resampled_areas(x, y, spell, rng=np.random.default_rng(4), reps=20)
    again = np.random.default_rng(4)
    with_event = again.multinomial(10, np.full(10, 0.1), size=20)
    without = again.multinomial(2, np.full(2, 0.5), size=20)
    for r in range(20):
        weights = np.r_[with_event[r], without[r]]
        rows = np.repeat(np.arange(120), weights[spell])
        for k in (0, 1):
            assert found.draws[r, k] == pytest.approx(roc_auc_score(y[rows], x[rows, k]))
    assert found.estimate == pytest.approx([roc_auc_score(y, x[:, k]) for k in (0, 1)])


def test_spells_of_equal_rows_have_the_error_of_spells_not_of_rows() -> None:
    rng = np.random.default_rng(5)
    y, x = np.arange(80) < 40, rng.standard_normal(80)
    spell = np.arange(80)
    many = (np.repeat(each, 10) for each in (x, y, spell))
    alone = float(resampled_areas(x, y, spell, rng=rng).error()[0])
    rows, marks, spells = many
    together = float(resampled_areas(rows, marks, spells, rng=rng).error()[0])
    assert together == pytest.approx(alone, rel=0.1)
    assert area_under_curve(rows, marks).error == pytest.approx(alone / math.sqrt(10), rel=0.1)


def test_what_never_happened_is_a_status_and_misuse_is_refused() -> None:
    assert area_under_curve([1.0, 2.0], [False, False]).status == "it never happened"
    assert area_under_curve([1.0, 2.0], [True, True]).status == "it happened in every row"
    with pytest.raises(EstimationError, match="align them"):
        area_under_curve([1.0, 2.0], [True])
    with pytest.raises(EstimationError, match="neither true nor false"):
        area_under_curve([1.0, 2.0], [0.5, 1.0])
    with pytest.raises(EstimationError, match="a row a labelling"):
        areas([1.0, 2.0], [True], [False])
