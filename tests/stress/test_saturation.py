"""Where forced sales carry themselves on: closed forms, and what a cascade does there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from crowds import crowd
from undertow.errors import StateError
from undertow.fanout import Threads
from undertow.rules.snapshot import Snapshot
from undertow.stress import Plan
from undertow.stress.options import Impact, Options
from undertow.stress.parts import Part
from undertow.stress.pressure import Pressure
from undertow.stress.saturation import Saturation, index_of, saturation, saturation_at
from undertow.worlds import demo_world

STILL = Options(impact=Impact.NONE)
SMOOTH = Options(floor=0.0)  # exponential without a floor: log price is linear in what was sold


def found(snapshot: object, direction: list[float], **more: object) -> Saturation:
    with Pressure.of(Plan.of(snapshot), None, SMOOTH) as pressure:
        full = np.zeros(len(pressure.plan.snapshot.universe.assets))
        full[: len(direction)] = direction
        return saturation(pressure, full, **more)  # type: ignore[arg-type]


def longs(log_fall: np.ndarray, share: float, **more: Any) -> Snapshot:
    """Longs of one size, called at those log falls and closed whole: F is their distribution."""
    count = len(log_fall)
    return crowd(
        -np.expm1(-log_fall), np.full(count, 1_000.0), share=share,
        long=np.ones(count, dtype=bool), **more,
    )  # fmt: skip


def even(low: float, high: float, count: int) -> np.ndarray:
    """Spread evenly over a stretch."""
    return np.linspace(low, high, count + 1)[1:]


def test_even_thresholds_sell_themselves_at_the_first_where_impact_is_above_one() -> None:
    # all of it moves log price by kappa = 0.45, over a stretch of 0.3: rho = 1.5 from 0.1 on
    seen = found(longs(even(0.1, 0.4, 3_000), 0.45), [1.0])
    assert seen.at == pytest.approx(1.0 - math.exp(-0.1), abs=1e-3)
    assert seen.strongest == pytest.approx(1.5, rel=0.03)
    assert seen.jump == pytest.approx(math.exp(-0.1) - math.exp(-0.55), abs=2e-3)


def test_even_thresholds_below_one_never_do_and_rho_is_their_density() -> None:
    count, kappa, width = 4_000, 0.2, 0.4
    seen = found(longs(even(0.1, 0.1 + width, count), kappa), [1.0], furthest=0.3)
    assert seen.at is None
    inside = seen.path.filter(seen.path["shock"].is_between(0.12, 0.25))
    np.testing.assert_allclose(inside["rho"], kappa / width, rtol=0.01)
    # y = s + rho * (y - 0.1) in logs, beyond the first threshold
    s = -np.log1p(-inside["shock"].to_numpy())
    y = (s - kappa / width * 0.1) / (1.0 - kappa / width)
    np.testing.assert_allclose(-np.log1p(-inside["fall"].to_numpy()), y, rtol=1e-3)


def test_rising_density_breaks_where_rho_reaches_one() -> None:
    # F(y) = kappa (y / w)^2: rho = 2 kappa y / w^2 = 1 at y*, and y* - F(y*) = y* / 2
    count, width, kappa = 40_000, 0.5, 0.8
    y = width * np.sqrt(np.arange(1, count + 1) / count)
    seen = found(longs(y, kappa), [1.0])
    y_star = width**2 / (2.0 * kappa)
    assert seen.at == pytest.approx(1.0 - math.exp(-y_star / 2.0), abs=1e-3)
    assert seen.strongest == pytest.approx(1.0, abs=0.15)  # a secant over the bandwidth


def test_a_shock_to_one_asset_breaks_both_where_both_are_sold() -> None:
    # Half of each: a fall x of C0 alone is x / 2 of the whole, and every close sells both alike,
    # so rho = 1.5 / 2 + 1.5 / 2, from C0 at twice the threshold on (in relative falls)
    count = 3_000
    held = np.full((count, 2), 0.5)
    seen = found(longs(even(0.1, 0.4, count), 0.45, assets=2, held=held), [1.0, 0.0])
    assert seen.at == pytest.approx(2.0 * (1.0 - math.exp(-0.1)), abs=2e-3)
    assert dict(seen.assets.iter_rows()) == {
        "C0": pytest.approx(0.5, abs=0.1), "C1": pytest.approx(0.5, abs=0.1)
    }  # fmt: skip
    assert seen.venues.rows() == [("v", pytest.approx(1.0))]


def test_shorts_are_called_by_rises_alone() -> None:
    count = 500
    snapshot = crowd(
        np.full(count, 0.1), np.full(count, 1_000.0), share=0.6, long=np.zeros(count, dtype=bool)
    )
    assert found(snapshot, [1.0], furthest=0.3).at is None
    rise = found(snapshot, [-1.0], furthest=0.3)
    assert rise.at == pytest.approx(0.1, abs=0.01)
    assert rise.jump is not None
    assert rise.jump < -0.02


def test_the_map_does_not_depend_on_who_holds_which_accounts() -> None:
    rng = np.random.default_rng(2)
    snapshot = crowd(rng.uniform(0.02, 0.5, 900), rng.pareto(1.4, 900) + 1.0, share=0.5)
    plan = Plan.of(snapshot)
    answers = []
    for executor in (None, Threads(1), Threads(3)):
        with Pressure.of(plan, executor=executor) as pressure:
            shock = pressure.shock(np.log1p(-0.1 * (np.arange(3) == 0)))
            rest = pressure.rest(shock)
            feedback = pressure.feedback(shock, rest.volume)
            answers.append((rest.volume.tobytes(), feedback.matrix.tobytes()))
    assert len(set(answers)) == 1


def test_nothing_moves_without_depth_and_rest_is_the_first_sale() -> None:
    snapshot = crowd([0.05, 0.2], [1_000.0, 1_000.0], share=0.5)
    with Pressure.of(Plan.of(snapshot), None, STILL) as pressure:
        shock = pressure.shock(np.log1p(-0.1 * (np.arange(3) == 0)))
        rest = pressure.rest(shock)
        assert rest.settled
        assert rest.times <= 1
        # debt 760 and 5 % bonus, at a price of 90
        assert rest.volume[0] == pytest.approx(760.0 * 1.05 / 90.0)
        assert not pressure.feedback(shock, rest.volume).matrix.any()


@pytest.mark.parametrize(
    ("direction", "more", "words"),
    [
        ([0.0], {}, "moves nothing"),
        ([1.0], {"furthest": 1.0}, "furthest"),
        ([1.0], {"step": 0.0}, "step"),
        ([math.nan], {}, "moves nothing"),
    ],
)
def test_what_cannot_be_is_refused(
    direction: list[float], more: dict[str, float], words: str
) -> None:
    snapshot = crowd([0.1], [1_000.0], share=0.5)
    with pytest.raises(StateError, match=words):
        found(snapshot, direction, **more)


def test_one_account_and_an_empty_stretch_have_an_answer() -> None:
    lone = found(crowd([0.3], [1_000.0], share=0.1), [1.0], furthest=0.2)
    assert lone.at is None
    assert lone.path["rho"].max() == 0.0
    assert lone.assets.is_empty()


def test_who_was_passed_over_could_not_have_been_called(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.of(demo_world().snapshot())
    universe = plan.snapshot.universe
    down = np.where(universe.stable[universe.root], 0.0, np.log(0.9))
    answers = []
    for look in (Part._look, lambda part, *moves: None):  # near stays everybody
        monkeypatch.setattr(Part, "_look", look)
        with Pressure.of(plan) as pressure:
            shock = pressure.shock(down)
            rest = pressure.rest(shock)
            answers.append((rest.volume, pressure.feedback(shock, rest.volume).matrix))
    assert answers[0][1].any()
    for near, everybody in zip(*answers, strict=True):
        assert near.tobytes() == everybody.tobytes()


def test_a_break_of_a_small_asset_is_one_of_its_own_prices() -> None:
    many = 400
    fall = np.append(np.full(many, 0.9), np.linspace(0.05, 0.35, many + 1)[1:])
    usd = np.append(np.full(many, 1e3), np.full(many, 30.0))  # 3 % of what is held
    held = np.repeat(np.eye(2), many, axis=0)
    snapshot = crowd(fall, usd, share=0.8, assets=2, held=held, long=np.ones(2 * many, dtype=bool))
    plan = Plan.of(snapshot)
    alone = np.array([0.0, 1.0, 0.0, 0.0])
    moved = plan.pricing.moves(-alone) != 0.0
    own = np.stack([index_of(plan), index_of(plan, moved)])
    with Pressure.of(plan) as pressure:
        by_book = saturation(pressure, alone, furthest=0.4)
        by_both = saturation(pressure, alone, furthest=0.4, watched=own)
        at = saturation_at(pressure, alone, furthest=0.4, watched=own)
    assert by_book.at is None
    assert by_both.at == at == pytest.approx(0.0505, abs=2e-3)
    assert by_both.jump is not None
    assert by_both.jump > 0.2  # of its own prices, not of the book's


def test_the_furthest_shock_is_looked_at_whatever_the_step() -> None:
    snapshot = crowd([0.045, 0.048], [1e3, 1e3], share=0.8)
    for step in (0.04, 0.03, 0.01):
        found_at = found(snapshot, [1.0, 0.0, 0.0], furthest=0.05, step=step)
        assert found_at.at == pytest.approx(0.045, abs=1e-3)
        assert found_at.path["shock"].max() <= 0.05


def test_volumes_that_go_round_in_circles_are_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = crowd([0.1], [1e3], share=0.5)
    with Pressure.of(Plan.of(snapshot)) as pressure:
        nothing = np.zeros(pressure.plan.carriers.pools)
        much = nothing.copy()
        much[0] = 1.0
        turns = iter([much, nothing] * 50)
        monkeypatch.setattr(Pressure, "forced", lambda *_: next(turns))
        rest = pressure.rest(pressure.shock(np.zeros(3)), nothing)
    assert not rest.settled
    assert rest.times < 10
