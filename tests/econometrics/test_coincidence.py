"""Unwinding in step is found on the dates at which it was planted, and hardly elsewhere."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from undertow.econometrics.chance import CoincidenceNull
from undertow.econometrics.coincidence import Correction, coincidences
from undertow.econometrics.purging import purge
from undertow.errors import EstimationError
from undertow.kernels import groups as kernel
from undertow.worlds import Prices, Tandem, Unwinding, leverage_panel
from undertow.worlds.names import TS, name_world
from undertow.worlds.returns import simulate_returns

HOUR_US = 3_600_000_000
COINS = [each for each in name_world(1, assets=40, venues=8, ts=TS).assets.values() if each.traded]


def residuals(seed: int, steps: int, nodes: int, tandem: Tandem) -> tuple[np.ndarray, list[int]]:
    """Purged growth of a world of leverage, and the rows of the unwindings in it."""
    made = simulate_returns(seed, COINS[:nodes], steps, HOUR_US, Prices())
    panel, truth = leverage_panel(
        seed,
        "leverage",
        nodes=[each.key for each in COINS[:nodes]],
        drivers=np.array(made.returns),
        ts=TS - HOUR_US * np.arange(steps, 0, -1, dtype=np.int64),
        tandem=tandem,
    )
    purged = purge(np.diff(np.log(panel.values), axis=0), truth.drivers[1:])
    return purged.scaled, [each.step - 1 for each in truth.unwindings]


def planted(strength: float, share: float, steps: int, correlation: float = 0.0) -> Tandem:
    dates = (steps // 3, 2 * steps // 3 + 17)
    unwindings = tuple(Unwinding(date, strength=strength, share=share) for date in dates)
    return replace(Tandem.null(), correlation=correlation, unwindings=unwindings)


def slow_scan(z: np.ndarray, loading: np.ndarray, least: int, cap: float) -> float:
    """The score of a date as its formula stands, with matrices."""
    seen = ~np.isnan(z)
    low, load = np.maximum(z[seen], -cap), loading[seen]
    if seen.sum() < least:
        return -math.inf
    inverse = np.linalg.inv(np.diag(1.0 - load**2) + np.outer(load, load))
    order, best = np.argsort(z[seen]), -math.inf
    for k in range(least, len(order) + 1):
        group = np.zeros(len(order))
        group[order[:k]] = 1.0
        best = max(best, -(group @ inverse @ low) / math.sqrt(group @ inverse @ group))
    return best


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_the_score_of_a_date_is_its_formula(shared: float) -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal((40, 7))
    z[rng.random(z.shape) < 0.2] = np.nan
    loading = shared * rng.uniform(0.5, 1.4, 7)
    score = np.empty(40)
    kernel.worst_groups(z, loading, 3, 4.0, score)
    expected = [slow_scan(row, loading, 3, 4.0) for row in z]
    np.testing.assert_allclose(score, expected, rtol=1e-9)


def test_the_compiled_score_is_the_plain_one_to_the_bit() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((50, 6))
    z[rng.random(z.shape) < 0.1] = np.nan
    loading = rng.uniform(-0.2, 0.9, 6)
    fast, plain = np.empty(50), np.empty(50)
    z.flags.writeable = loading.flags.writeable = False
    kernel.worst_groups(z, loading, 2, 4.0, fast)
    kernel.worst_groups.py_func(z, loading, 2, 4.0, plain)
    assert fast.tobytes() == plain.tobytes()


def test_planted_unwindings_are_found_with_who_took_part() -> None:
    steps = 900
    made = simulate_returns(5, COINS[:10], steps, HOUR_US, Prices())
    panel, truth = leverage_panel(
        5, "leverage", nodes=[each.key for each in COINS[:10]], drivers=np.array(made.returns),
        ts=TS - HOUR_US * np.arange(steps, 0, -1, dtype=np.int64), tandem=planted(5.0, 0.6, steps),
    )  # fmt: skip
    purged = purge(np.diff(np.log(panel.values), axis=0), truth.drivers[1:])
    found = coincidences(purged.scaled, rng=np.random.default_rng(0), reps=199)
    assert found.peak.tolist() == [each.step - 1 for each in truth.unwindings]
    assert found.start.tolist() == found.end.tolist() == found.peak.tolist()
    assert (found.p_value <= 0.05).all()
    for k, each in enumerate(truth.unwindings):
        hit = np.isin(truth.nodes, each.nodes)
        assert found.members[k][hit].all()
        assert found.members[k][~hit].mean() < 0.5
        assert found.depth[k][hit].mean() < -3.0


def test_one_series_that_falls_alone_is_no_coincidence_however_far() -> None:
    x = np.random.default_rng(3).standard_normal((800, 8))
    x[400, 2] = -15.0
    assert len(coincidences(x, rng=np.random.default_rng(0), reps=199)) == 0


def test_an_unwinding_of_three_steps_is_one_event() -> None:
    x = np.random.default_rng(14).standard_normal((600, 8))
    x[300:303, :6] -= 4.0
    found = coincidences(x, rng=np.random.default_rng(0), reps=199, half_life=None)
    assert len(found) == 1
    assert (found.start[0], found.end[0]) == (300, 302)
    slow = np.random.default_rng(4).standard_normal((600, 8))
    slow[300:305, :6] -= 1.5  # too shallow to show step by step
    added = coincidences(slow, rng=np.random.default_rng(0), reps=199, window=5)
    assert len(added) == 1
    assert 300 <= added.peak[0] <= 308


def test_a_second_event_is_not_hidden_by_the_first() -> None:
    x = np.random.default_rng(6).standard_normal((500, 9))
    x[100, :] -= 5.0
    x[300, :5] -= 3.2
    found = coincidences(x, rng=np.random.default_rng(0), reps=399)
    assert found.peak.tolist() == [100, 300]
    assert found.p_value[0] <= found.p_value[1]


def test_ordinary_correlation_is_an_event_only_to_independence() -> None:
    apart = common = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = np.sqrt(0.5) * rng.standard_normal((600, 1)) + np.sqrt(0.5) * rng.standard_normal(
            (600, 8)
        )
        apart += len(coincidences(x, rng=rng, reps=99)) > 0
        common += len(coincidences(x, rng=rng, reps=99, null=CoincidenceNull.COMMON)) > 0
    assert apart == 8
    assert common <= 2


def test_a_group_that_falls_out_of_the_ordinary_is_an_event_among_correlated_series() -> None:
    rng = np.random.default_rng(7)
    x = np.sqrt(0.4) * rng.standard_normal((800, 1)) + np.sqrt(0.6) * rng.standard_normal((800, 10))
    x[500, :6] -= 4.0
    found = coincidences(x, rng=rng, reps=199, null="common", degrees=8.0)
    assert found.peak.tolist() == [500]


def test_the_share_of_false_dates_can_be_held_down_instead_of_the_chance_of_one() -> None:
    x = np.random.default_rng(8).standard_normal((600, 8))
    weak = np.arange(30, 600, 60)
    x[weak, :5] -= 2.6
    family = coincidences(x, rng=np.random.default_rng(0), reps=199)
    shared = coincidences(
        x, rng=np.random.default_rng(0), reps=199, correction=Correction.DISCOVERY, level=0.1
    )
    assert len(shared) >= len(family)
    assert np.isin(shared.peak, weak).mean() > 0.7
    assert np.isin(weak, shared.peak).mean() > 0.6
    p, q = shared.p_dates, shared.p_corrected
    order = np.argsort(p)
    expected = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    np.testing.assert_allclose(q[order], np.minimum(expected, 1.0), rtol=1e-12)


def test_a_late_series_and_a_constant_one_are_told_apart_and_the_rest_is_judged() -> None:
    x = np.random.default_rng(9).standard_normal((500, 7))
    x[:200, 0] = np.nan
    x[:, 1] = 3.0
    x[:, 2] = np.nan
    x[350, 3:] -= 5.0
    found = coincidences(x, rng=np.random.default_rng(0), reps=199)
    assert found.reasons[1] == "constant"
    assert found.reasons[2] == "no value was seen"
    assert found.peak.tolist() == [350]
    assert np.isnan(found.depth[0, 2])
    assert not found.members[0, 1:3].any()
    nobody = coincidences(x[:, 1:4], rng=np.random.default_rng(0))
    assert "2 that are seen together are needed" in nobody.reason
    assert len(nobody) == 0
    assert np.isnan(nobody.score).all()


def test_the_same_seed_gives_the_same_answer_and_order_of_series_gives_the_same_scores() -> None:
    x = np.random.default_rng(10).standard_normal((300, 6))
    first = coincidences(x, rng=np.random.default_rng(3), reps=99)
    again = coincidences(x, rng=np.random.default_rng(3), reps=99)
    assert first.p_corrected.tobytes() == again.p_corrected.tobytes()
    turned = coincidences(x[:, ::-1], rng=np.random.default_rng(3), reps=99)
    np.testing.assert_allclose(turned.score, first.score, atol=1e-12)


def test_misuse_is_refused() -> None:
    x = np.random.default_rng(0).standard_normal((100, 3))
    rng = np.random.default_rng(0)
    with pytest.raises(EstimationError, match="window was 0"):
        coincidences(x, rng=rng, window=0)
    with pytest.raises(EstimationError, match="level was 2"):
        coincidences(x, rng=rng, level=2.0)
    with pytest.raises(ValueError, match="nonsense"):
        coincidences(x, rng=rng, null="nonsense")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strength", "share", "correlation", "null"),
    [
        (4.0, 0.6, 0.0, CoincidenceNull.INDEPENDENT),
        (3.0, 0.6, 0.0, CoincidenceNull.INDEPENDENT),
        (4.0, 0.6, 0.3, CoincidenceNull.COMMON),
    ],
)
def test_nine_in_ten_planted_dates_are_found_and_hardly_any_other(
    strength: float, share: float, correlation: float, null: CoincidenceNull
) -> None:
    seeds, hit, found, false = 60, 0, 0, 0
    for seed in range(seeds):
        x, dates = residuals(seed, 1_000, 8, planted(strength, share, 1_000, correlation))
        events = coincidences(x, rng=np.random.default_rng(seed), null=null, reps=299).peak
        hit += int(np.isin(dates, events).sum())
        found += len(events)
        false += int((~np.isin(events, dates)).sum())
    sys.stdout.write(
        f"\nstrength {strength} share {share} correlation {correlation}, {null.value}: "
        f"hit {hit} of {2 * seeds}, false {false} of {found}\n"
    )
    assert hit >= 0.9 * 2 * seeds
    assert false <= 0.05 * found


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "null"), [(0.0, "independent"), (0.3, "common")])
def test_worlds_without_an_unwinding_have_an_event_one_time_in_twenty(
    correlation: float, null: str
) -> None:
    seeds, false = 200, 0
    tandem = replace(Tandem.null(), correlation=correlation)
    for seed in range(seeds):
        x, _ = residuals(seed, 700, 8, tandem)
        false += len(coincidences(x, rng=np.random.default_rng(seed), null=null, reps=199)) > 0
    sys.stdout.write(f"\ncorrelation {correlation}, {null}: an event in {false} of {seeds}\n")
    assert false <= 20  # of 200 at 5 %: more has a chance of 0.2 %
