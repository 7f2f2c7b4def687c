"""Concentration by hand, its limits, and rankings whose bands hold what would be seen again."""

from __future__ import annotations

import numpy as np
import pytest

from undertow.econometrics import concentration as module
from undertow.econometrics.concentration import concentration, concentration_bands, ranking
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


def plain_ranking(
    group: np.ndarray, size: np.ndarray, order: np.ndarray, reps: int, seed: int
) -> np.ndarray:
    """Ranks of some groups in draws of all members, one by one."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(reps):
        sums = np.bincount(group, size * rng.poisson(1.0, len(size)))
        found.append([1 + int((sums > sums[g]).sum()) for g in order])
    return np.array(found)


def test_groups_too_small_to_matter_are_left_out_and_nothing_changes() -> None:
    rng = np.random.default_rng(5)
    group = np.sort(rng.integers(0, 12_000, 24_000))
    group = np.unique(group, return_inverse=True)[1]
    size = rng.pareto(1.1, len(group)) + 1.0
    found = ranking(group, size, 5, reps=200, seed=6)
    order = found.index.astype(int)
    assert found.farthest == 100
    whole = np.bincount(group, size)
    assert order.tolist() == np.argsort(-whole)[:5].tolist()
    plain = plain_ranking(group, size, order, 200, 7)
    stays = (plain <= 5).mean(axis=0)
    np.testing.assert_allclose(found.stays, stays, atol=0.12)
    far = np.where(plain > 100, np.inf, plain)
    best = np.quantile(far, 0.05, axis=0, method="lower")
    np.testing.assert_allclose(found.best, best, atol=1.0)
    kept, place = module._drawn(group, size, whole, 100, 19, 0)
    assert kept.shape[1] < 0.6 * len(whole)
    assert place[order].max() < kept.shape[1]


def test_few_groups_are_ranked_as_they_would_be_one_by_one() -> None:
    rng = np.random.default_rng(8)
    group, size = rng.integers(0, 30, 200), rng.gamma(1.0, 1.0, 200)
    found = ranking(group, size, 4, reps=99, seed=9)
    plain = plain_ranking(group, size, found.index.astype(int), 99, 9)
    np.testing.assert_allclose(found.stays, (plain <= 4).mean(axis=0))
    np.testing.assert_array_equal(found.worst, np.quantile(plain, 0.95, axis=0, method="higher"))


def test_a_rank_past_what_is_told_apart_is_infinite() -> None:
    size = np.concatenate([[1.5], np.ones(500)])
    found = ranking(np.arange(501), size, 1, seed=1)
    assert np.isinf(found.worst[0])  # in three draws of eight it is not there at all
    assert found.stays[0] == pytest.approx(0.0, abs=0.2)


def plain_draw(size: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Index, Gini coefficient and top shares of holders who come as often as a Poisson says."""
    found = concentration(np.repeat(size, rng.poisson(1.0, len(size))))
    return found.hhi, found.gini, found.top_share(1), found.top_share(10)


@pytest.mark.parametrize("shape", [1.6, 4.0])
def test_bands_are_those_of_holders_drawn_one_by_one(shape: float) -> None:
    rng = np.random.default_rng(int(10 * shape))
    size = rng.pareto(shape, 5_000) + 1.0
    found = concentration_bands(size, (1, 10), reps=800, seed=3)
    plain = np.array([plain_draw(size, rng) for _ in range(400)])
    low, high = np.quantile(plain, (0.05, 0.95), axis=0)
    mine = np.array([found.hhi, found.gini, *found.top])
    np.testing.assert_allclose(mine[:, 0], low, rtol=0.08)
    np.testing.assert_allclose(mine[:, 1], high, rtol=0.08)
    assert found.effective[0] == pytest.approx(1.0 / found.hhi[1], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("gamma", 0.85, 0.95), ("pareto 3", 0.80, 0.90), ("pareto 1.5", 0.55, 0.80)],
)
def test_how_often_the_band_of_the_index_holds_it(name: str, least: float, most: float) -> None:
    """Bands of 0.9 are right for thin tails and too narrow for thick ones, as the measure says."""
    rng, count, trials = np.random.default_rng(11), 400, 300

    def book() -> np.ndarray:
        if name == "gamma":
            return rng.gamma(2.0, 1.0, rng.poisson(count))
        return rng.pareto(float(name.split()[1]), rng.poisson(count)) + 1.0

    many = [concentration(book()) for _ in range(3_000)]
    truth = float(np.median([found.hhi for found in many]))
    largest = float(np.median([found.top_share(1) for found in many]))
    if name == "gamma":
        truth = 1.5 / count
    inside, first = 0, 0
    for trial in range(trials):
        found = concentration_bands(book(), (1,), seed=trial)
        inside += found.hhi[0] <= truth <= found.hhi[1]
        first += found.top[0, 0] <= largest <= found.top[0, 1]
    assert 0.45 <= first / trials <= 0.8
    assert least <= inside / trials <= most


def test_bands_of_nobody_and_of_one() -> None:
    assert concentration_bands([]).hhi == (0.0, 0.0)
    one = concentration_bands([5.0])
    assert one.top[0].max() == 1.0
    assert one.hhi[1] == 1.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: concentration([-1.0]), "negative"),
        (lambda: concentration([1.0]).top_share(0), "at least 1"),
        (lambda: ranking([0], [1.0, 2.0]), "group"),
        (lambda: ranking([0], [np.inf]), "finite"),
        (lambda: ranking([0], [1.0], 0), "k was 0"),
        (lambda: concentration_bands([1.0], ()), "tops"),
        (lambda: concentration_bands([1.0], reps=2), "reps was 2"),
        (lambda: concentration_bands([1.0], level=1.0), "level"),
    ],
)
def test_what_cannot_be_is_refused(call, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EstimationError, match=words):
        call()


def test_nothing_ranks_as_nothing() -> None:
    assert len(ranking([0, 1], [0.0, 0.0]).index) == 0
