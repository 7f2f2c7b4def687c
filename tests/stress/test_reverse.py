"""Reverse stress tests: against closed forms, books whose breaking point is known, and traps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress.draws import Gaussian
from undertow.stress.nearest import FactorSpace, Search
from undertow.stress.options import Impact, Options
from undertow.stress.outages import Outage
from undertow.stress.reverse import (
    critical_size,
    price_moves,
    reverse,
    reverse_stress,
)
from undertow.stress.scenario import Scenario, load_scenario, scenario_names
from undertow.stress.shock import Depth, Peg, Price, Rate, WithdrawalRun
from undertow.stress.stressed import Stressed
from undertow.worlds import tiny_world


def _world(size: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """A covariance, and two books as weights that lose 1 a few deviations out."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(size, size))
    covariance = loading @ loading.T / size
    first, second = rng.normal(size=(2, size))
    return covariance, *(w / (3.0 * math.sqrt(w @ covariance @ w)) for w in (first, second))


@pytest.mark.parametrize("size", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("jump", [False, True], ids=["straight", "jump"])
def test_of_a_linear_book_the_shock_is_the_analytic_one(size: int, jump: bool) -> None:
    covariance, weight, _ = _world(size)
    found = reverse_stress(
        (lambda s: float(weight @ s >= 1.0)) if jump else (lambda s: weight @ s),
        covariance,
        1.0,
        budget=8_000,
    ).require()
    exact = covariance @ weight / (weight @ covariance @ weight)
    assert found.distance == pytest.approx(3.0, rel=1e-3)
    assert found.distance >= 3.0 - 1e-9  # what was found is reached, so never nearer than the truth
    assert found.loss >= 1.0
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((found.shock - exact) / scale).max() < 0.1
    assert found.beyond == pytest.approx(0.00135, rel=0.01)  # Phi(-3)
    assert (found.monotone, found.stays, found.spent) == (True, True, False)
    assert found.agree == len(found.distances)
    assert found.spread < 1e-3


@pytest.mark.parametrize("size", [2, 5, 12])
def test_of_a_convex_quadratic_loss_the_distance_is_that_of_its_worst_direction(size: int) -> None:
    covariance, _, _ = _world(size, 1)
    curve = np.diag(np.linspace(1.0, 6.0, size))
    worst = np.linalg.eigvals(covariance @ curve).real.max()
    target = 9.0 * worst  # reached at 3 deviations
    found = reverse_stress(lambda s: s @ curve @ s, covariance, target, budget=8_000)
    assert found.distance == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("size", [2, 5, 12])
def test_two_books_that_must_break_together_meet_at_the_kink(size: int) -> None:
    covariance, first, second = _world(size, 2)
    root = np.linalg.cholesky(covariance)
    a, b = root.T @ first, root.T @ second
    best = optimize.minimize(
        lambda z: z @ z,
        np.ones(size),
        constraints=[
            {"type": "ineq", "fun": lambda z: a @ z - 1.0},
            {"type": "ineq", "fun": lambda z: b @ z - 1.0},
        ],
    )
    found = reverse_stress(
        lambda s: min(first @ s, second @ s), covariance, 1.0, budget=8_000, farthest=15.0
    )
    assert found.distance == pytest.approx(math.sqrt(best.fun), rel=5e-3)


def test_of_two_ways_to_break_the_nearer_is_found_though_the_other_breaks_more() -> None:
    def loss(s: Any) -> float:
        return 5.0 if s[0] > 4.0 else float(s[1] < -3.0)

    found = reverse_stress(loss, np.eye(3), 1.0)
    assert found.distance == pytest.approx(3.0, rel=1e-3)
    assert found.shock == pytest.approx([0.0, -3.0, 0.0], abs=0.1)
    assert found.spread > 0.3  # a start that ended at the other


def test_a_loss_that_comes_and_goes_along_the_ray_is_said_to() -> None:
    found = reverse_stress(lambda s: float(2.0 < s[0] < 2.5 or s[0] > 4.0), np.eye(1), 1.0)
    assert found.distance == pytest.approx(2.0, rel=1e-3)
    assert not found.monotone
    assert not found.stays
    falls = reverse_stress(lambda s: 5.0 - abs(s[0] - 4.0), np.eye(1), 3.0)
    assert falls.distance == pytest.approx(2.0, rel=1e-3)
    assert falls.stays


def test_a_target_out_of_reach_and_one_that_is_there_already() -> None:
    far = reverse_stress(lambda s: s[0], np.eye(2), 11.0)
    assert far.search is Search.NOT_REACHED
    assert far.loss == pytest.approx(10.0)  # the most that was seen, ten deviations out
    with pytest.raises(StateError, match="the most was 10"):
        far.require()
    here = reverse_stress(lambda s: 1.0, np.eye(2), 1.0)
    assert (here.search, here.distance, here.evaluations) == (Search.AT_REST, 0.0, 1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_where_nobody_can_tell_the_loss_there_is_no_answer_and_no_harm(size: int) -> None:
    covariance, weight, _ = _world(size)

    def loss(s: Any) -> float | None:
        lost = float(weight @ s)
        return None if lost > 1.2 else lost  # at 3 deviations 1, nothing is known beyond 3.6

    found = reverse_stress(loss, covariance, 1.0, budget=8_000, farthest=24.0).require()
    assert found.distance == pytest.approx(3.0, rel=1e-3)
    assert (found.monotone, found.stays) == (True, True)  # as far as anybody could look
    never = reverse_stress(loss, covariance, 1.5, budget=2_000)
    assert never.search is Search.NOT_REACHED
    assert 0.0 < never.loss <= 1.2


def test_shocks_that_the_engine_refuses_are_told_of(tiny: Snapshot) -> None:
    # Ten deviations over two months are prices times 40: the engine's sums have no room for that.
    found = reverse(tiny, target_usd=1e15, loss="liquidated", days=60.0, budget=200)
    assert found.search is Search.NOT_REACHED
    assert found.loss > 0.0
    assert "of the shocks that were tried: prices left all bounds" in found.notes[-1]


def test_a_search_keeps_to_its_budget_and_says_so() -> None:
    covariance, weight, _ = _world(12)
    asked = []

    def loss(s: Any) -> float:
        asked.append(1)
        return float(weight @ s)

    found = reverse_stress(loss, covariance, 1.0, budget=300)
    assert found.spent
    assert found.evaluations == len(asked) <= 301
    assert found.loss >= 1.0
    assert found.distance >= 3.0


def test_a_shock_is_called_found_where_the_search_itself_leaves_room_for_a_nearer() -> None:
    covariance, weight, _ = _world(5)
    sure = reverse_stress(lambda s: weight @ s, covariance, 1.0, budget=8_000)
    assert sure.called == "the most plausible shock"
    spent = reverse_stress(lambda s: weight @ s, covariance, 1.0, budget=200)
    assert spent.called == "the most plausible shock found"
    alone = reverse_stress(lambda s: weight @ s, covariance, 1.0, budget=8_000, restarts=1)
    assert alone.called == "the most plausible shock found"
    ways = reverse_stress(lambda s: 5.0 if s[0] > 4.0 else float(s[1] < -3.0), np.eye(3), 1.0)
    assert ways.called == "the most plausible shock found"


def test_a_search_is_the_same_every_time() -> None:
    covariance, weight, other = _world(4)

    def loss(s: Any) -> float:
        return float(max(weight @ s, other @ s))

    first, second = (reverse_stress(loss, covariance, 1.0) for _ in range(2))
    assert first.shock.tobytes() == second.shock.tobytes()


def test_factors_that_move_as_one_are_searched_as_one() -> None:
    covariance = 0.01 * np.ones((3, 3))
    covariance[2] = covariance[:, 2] = 0.0  # money
    space = FactorSpace.of(covariance)
    assert (space.components, space.notes) == (1, ())
    found = reverse_stress(lambda s: -s.sum(), covariance, 0.4)
    assert found.shock == pytest.approx([-0.2, -0.2, 0.0], rel=1e-3)
    assert found.distance == pytest.approx(2.0, rel=1e-3)
    table = found.to_polars()
    assert table["deviations"].to_list() == pytest.approx([-2.0, -2.0, 0.0], rel=1e-3)
    assert table["move"].to_list() == pytest.approx([math.expm1(-0.2)] * 2 + [0.0], rel=1e-3)


def test_what_is_no_covariance_is_repaired_and_said() -> None:
    wrong = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    space = FactorSpace.of(wrong)
    value, vector = np.linalg.eigh(wrong)
    nearest = (vector * np.maximum(value, 0.0)) @ vector.T
    assert space.root @ space.root.T == pytest.approx(nearest)
    assert f"{np.linalg.norm(wrong - nearest):.3g} away" in space.notes[0]


def test_a_few_components_are_said_to_be_a_few() -> None:
    covariance, weight, _ = _world(12)
    few = reverse_stress(lambda s: weight @ s, covariance, 1.0, components=6, farthest=40.0)
    assert few.components == 6
    assert few.distance >= 3.0
    assert "only the 6 widest of 12" in few.notes[0]
    # the distance within the plane of those components is analytic too
    root = FactorSpace.of(covariance, components=6).root
    assert few.distance == pytest.approx(1.0 / np.linalg.norm(root.T @ weight), rel=1e-3)


@pytest.mark.parametrize(
    ("covariance", "target", "words"),
    [
        (np.ones((2, 3)), 1.0, "must be square"),
        (np.array([[1.0, 0.5], [0.1, 1.0]]), 1.0, "not symmetric"),
        (np.zeros((2, 2)), 1.0, "nothing moves"),
        (np.eye(2), math.inf, "target was inf"),
    ],
)
def test_what_cannot_be_searched_is_refused(covariance: Any, target: float, words: str) -> None:
    with pytest.raises(StateError, match=words):
        reverse_stress(lambda s: s[0], covariance, target)


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(StateError, match="not a number"):
        reverse_stress(lambda s: math.nan, np.eye(2), 1.0)


@pytest.fixture(scope="module")
def tiny() -> Snapshot:
    return tiny_world().snapshot()


def _btc_and_eth(snapshot: Snapshot) -> Any:
    covariance = np.zeros((4, 4))
    b, e = (snapshot.universe.code("asset", name) for name in ("BTC", "ETH"))
    covariance[b, b], covariance[e, e] = 0.04**2, 0.05**2
    covariance[b, e] = covariance[e, b] = 0.8 * 0.04 * 0.05
    return covariance


def test_the_first_account_to_fall_is_found_at_its_price(tiny: Snapshot) -> None:
    # Account 2 closes at BTC 35,897.4; the likeliest way there takes ETH along by 0.8 * 5 / 4.
    found = reverse(
        tiny,
        target_usd=1.0,
        loss="liquidated",
        covariance=_btc_and_eth(tiny),
        options=Options(impact=Impact.NONE),
    ).require()
    move = math.log(35_897.436 / 40_000.0)
    assert found.distance == pytest.approx(-move / 0.04, rel=1e-3)
    assert found.shock == pytest.approx([move, move, 0.0, 0.0], abs=2e-3)
    assert found.loss == pytest.approx(35_897.4, rel=1e-3)
    falls = price_moves(tiny, found)
    assert falls.filter(falls["asset"] == "BTC")["move"][0] == pytest.approx(-0.1026, abs=1e-3)
    assert found.to_polars()["factor"].to_list() == ["BTC", "ETH", "USD", "USDC"]


def test_a_short_that_a_rise_closes_is_found_too(tiny: Snapshot) -> None:
    # More than 36,500 USD at once is no long of one bitcoin that is called at 35,897; of the other
    # ways the nearest is account 4, a short that closes at BTC 48,780.5.
    found = reverse(
        tiny,
        target_usd=36_500.0,
        loss="liquidated",
        covariance=_btc_and_eth(tiny),
        options=Options(impact=Impact.NONE),
        farthest=20.0,
    )
    assert found.distance == pytest.approx(math.log(48_780.488 / 40_000.0) / 0.04, rel=1e-3)
    assert found.shock[0] > 0.0
    assert found.loss == pytest.approx(48_780.5, rel=1e-3)


def test_draws_and_assumptions_say_what_is_plausible(tiny: Snapshot) -> None:
    scale = np.array([0.04, 0.05, 0.0, 0.0])
    draws = Gaussian.of(scale, np.eye(4))
    plain = Options(impact=Impact.NONE)
    drawn = reverse(tiny, target_usd=1.0, loss="liquidated", draws=draws, options=plain)
    assert drawn.distance == pytest.approx(-math.log(35_897.436 / 40_000.0) / 0.04, rel=0.05)
    assumed = reverse(tiny, target_usd=1.0, loss="liquidated", options=plain, days=4.0)
    assert assumed.search is Search.REACHED
    later = reverse(
        tiny,
        target_usd=1.0,
        loss="liquidated",
        options=plain,
        days=4.0,
        scenario=Scenario(name="a fall first", shocks=(Price(asset="market", move=-0.05),)),
    )
    assert later.distance < assumed.distance
    with pytest.raises(StateError, match="not both"):
        reverse(tiny, target_usd=1.0, draws=draws, covariance=np.eye(4))
    with pytest.raises(StateError, match="it may be liquidated, bad_debt, insolvency"):
        reverse(tiny, target_usd=1.0, loss="hope")
    with pytest.raises(StateError, match="snapshot was of type World; it must be a Snapshot or a"):
        reverse(tiny_world(), target_usd=1.0)  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"pass load_scenario\('2025-10-10'\)"):
        reverse(tiny, target_usd=1.0, scenario="2025-10-10")  # type: ignore[arg-type]
    with pytest.raises(StateError, match="must be 4 x 4"):
        reverse(tiny, target_usd=1.0, covariance=np.eye(3))


def test_the_size_at_which_a_scenario_breaks_is_halved_in_on() -> None:
    found = critical_size(lambda k: k * k, 2.0, 0.0, 3.0)
    assert found.search is Search.REACHED
    assert found.below < math.sqrt(2.0) <= found.size
    assert found.size - found.below <= 3e-4
    assert found.loss >= 2.0
    assert found.monotone
    assert len(found.looked) == 17
    never = critical_size(lambda k: k, 9.0)
    assert (never.search, never.size, never.loss) == (Search.NOT_REACHED, math.inf, 1.0)
    assert critical_size(lambda k: 1.0, 1.0).search is Search.AT_REST


def test_a_size_that_is_refused_ends_the_range() -> None:
    def loss(size: float) -> float:
        if size > 1.3:
            raise StateError("prices left all bounds: ETH rose 9 times", hint="be reasonable")
        return size

    never = critical_size(loss, 9.0, 0.0, 2.0)
    assert (never.search, never.size) == (Search.NOT_REACHED, math.inf)
    assert never.below == pytest.approx(1.3, abs=2e-4)
    assert never.below <= 1.3
    assert never.loss == never.below
    assert never.refused == "prices left all bounds: ETH rose 9 times"
    early = critical_size(loss, 0.5, 0.0, 2.0)
    assert early.size == pytest.approx(0.5, abs=2e-4)
    assert early.refused  # and that beyond it nobody knows
    last = critical_size(loss, 1.28, 0.0, 2.0)  # between the last look and what is refused
    assert last.search is Search.REACHED
    assert last.size == pytest.approx(1.28, abs=2e-4)
    assert critical_size(lambda k: k, 0.5).refused == ""


def test_a_loss_that_is_refused_at_the_least_size_or_is_no_number_is_an_error() -> None:
    def refused(size: float) -> float:
        raise StateError("no such asset")

    with pytest.raises(StateError, match="size 0: no such asset"):
        critical_size(refused, 1.0)
    with pytest.raises(StateError, match="not a number"):
        critical_size(lambda k: math.nan, 1.0)


def test_of_a_loss_that_comes_and_goes_the_first_crossing_counts() -> None:
    found = critical_size(lambda k: math.sin(4.0 * k), 0.9, 0.0, 3.0)
    assert found.size == pytest.approx(math.asin(0.9) / 4.0, abs=3e-4)
    assert not found.monotone
    assert not found.stays


def test_the_critical_fall_of_a_planted_account(tiny: Snapshot) -> None:
    from undertow.stress.cascade import Engine
    from undertow.stress.plan import Plan

    engine, scenario = (
        Engine(Plan.of(tiny)),
        Scenario(name="bitcoin falls", shocks=(Price(asset="BTC", move=-0.2),)),
    )

    def lost(size: float) -> float:
        stressed = scenario.scaled(size).apply(tiny)
        run = engine.run(stressed, Options(impact=Impact.NONE), trace=False, path=False)
        return float(run.headline()["liquidated_usd"])

    found = critical_size(lost, 1.0, 0.0, 2.0)
    fall = 1.0 - 0.8**found.size
    assert fall == pytest.approx(1.0 - 35_897.436 / 40_000.0, abs=1e-4)


def test_a_scenario_grows_in_logs_in_proportion_and_up_to_the_whole() -> None:
    scenario = Scenario(
        name="all sorts",
        shocks=(
            Price(asset="BTC", move=-0.2),
            Peg(asset="USDC", level=0.9),
            Depth(multiplier=0.5),
            Rate(per_hour=0.001, hours=24.0),
            Outage(venue="aave-v3", hours=2.0),
            WithdrawalRun(venue="aave-v3", share=0.6),
        ),
    )
    twice = scenario.scaled(2.0)
    price, peg, depth, rate, outage, run = twice.shocks
    assert isinstance(price, Price)
    assert price.move == pytest.approx(-0.36)
    assert isinstance(peg, Peg)
    assert peg.level == pytest.approx(0.81)
    assert isinstance(depth, Depth)
    assert depth.multiplier == 0.25
    assert isinstance(rate, Rate)
    assert (rate.per_hour, rate.hours) == (0.002, 24.0)
    assert isinstance(outage, Outage)
    assert outage.hours == 4.0
    assert isinstance(run, WithdrawalRun)
    assert run.share == 1.0
    assert twice.name == "all sorts x 2"
    assert scenario.scaled(1.0) is scenario
    assert scenario.scaled(0.0).shocks == ()
    with pytest.raises(StateError, match=r"size was -1\.0"):
        scenario.scaled(-1.0)


@pytest.mark.parametrize("name", scenario_names())
def test_every_replay_can_be_halved(name: str, wide: Snapshot) -> None:
    whole, half, none = (load_scenario(name).scaled(k).apply(wide) for k in (1.0, 0.5, 0.0))
    calm = Stressed.calm(wide)
    assert none.digest == calm.digest
    for column in ("factor", "basis"):
        if not any(isinstance(each, Peg) for each in load_scenario(name).shocks):
            assert getattr(half, column) == pytest.approx(0.5 * getattr(whole, column))
