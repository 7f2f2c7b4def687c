"""Concentration by hand, its limits, and rankings whose bands hold what would be seen again."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics.concentration import concentration, ranking
from undertow.errors import EstimationError


def test_by_hand() -> None:
    found = concentration([50.0, 30.0, 20.0, 0.0])
    assert found.holders == 3
    assert found.hhi == pytest.approx(0.25 + 0.09 + 0.04)
    assert found.effective == pytest.approx(1.0 / 0.38)
    assert found.top_share(1) == pytest.approx(0.5)
    assert found.top_share(2) == pytest.approx(0.8)
    assert found.top_share(9) == pytest.approx(1.0)
    mean_difference = np.abs(np.subtract.outer([50, 30, 20], [50, 30, 20])).mean()
    assert found.gini == pytest.approx(mean_difference / (2 * 100 / 3))


def test_limits() -> None:
    alike, alone = concentration(np.full(1_000, 7.0)), concentration([5.0])
    assert alike.effective == pytest.approx(1_000.0)
    assert alike.gini == pytest.approx(0.0, abs=1e-12)
    assert (alone.hhi, alone.gini, alone.effective) == (1.0, 0.0, 1.0)
    nobody = concentration([])
    assert (nobody.holders, nobody.hhi, nobody.top_share(3), nobody.effective) == (0, 0.0, 0.0, 0.0)


def test_gini_of_a_pareto_is_the_known_one() -> None:
    rng = np.random.default_rng(0)
    found = concentration(rng.pareto(3.0, 400_000) + 1.0)
    assert found.gini == pytest.approx(1.0 / (2.0 * 3.0 - 1.0), abs=0.01)


def test_a_clear_leader_stays_and_equals_change_places() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(6), 400)
    size = rng.gamma(2.0, 1.0, len(group)) * np.repeat([5.0, 1.0, 1.0, 1.0, 1.0, 0.01], 400)
    found = ranking(group, size, 3, seed=2)
    assert found.index[0] == 0
    assert (found.best[0], found.worst[0], found.stays[0]) == (1.0, 1.0, 1.0)
    assert found.worst[1] > found.best[1]
    assert (found.stays[1:] < 1.0).all()
    assert (found.low <= found.size).all()
    assert (found.size <= found.high).all()


def test_the_band_of_a_sum_holds_it_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(3), 0
    for trial in range(120):
        size = rng.gamma(1.0, 1.0, rng.poisson(300))  # who is there is by chance too
        found = ranking(np.zeros(len(size), dtype=int), size, 1, reps=199, level=0.9, seed=trial)
        inside += bool(found.low[0] <= 300.0 <= found.high[0])  # the mean of such a sum
    assert 0.8 <= inside / 120 <= 0.97


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: concentration([-1.0]), "negative"),
        (lambda: concentration([1.0]).top_share(0), "at least 1"),
        (lambda: ranking([0], [1.0, 2.0]), "group"),
        (lambda: ranking([0], [np.inf]), "finite"),
        (lambda: ranking([0], [1.0], 0), "k was 0"),
    ],
)
def test_what_cannot_be_is_refused(call, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EstimationError, match=words):
        call()


def test_nothing_ranks_as_nothing() -> None:
    assert len(ranking([0, 1], [0.0, 0.0]).index) == 0
