"""Stress over exposures: published cases, a plain recursion, and rings that do not die out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared import Case, check_all
from undertow.econometrics.debtrank import Exposures, Spread, stress
from undertow.errors import EstimationError

SPREADS = {
    "debtrank_continuous": Spread.CONTINUOUS,
    "debtrank_single_hit": Spread.ONCE,
    "threshold_cascade": Spread.DEFAULT,
    "debtrank_uniform": Spread.CONTINUOUS,
}


def banks_of(family: dict[str, Any]) -> tuple[Exposures, np.ndarray]:
    """The network that all cases are of, and the weights of its nodes."""
    given = family["network"]
    edges = np.array(given["exposures"])
    found = Exposures.of(edges[:, 0], edges[:, 1], edges[:, 2], given["buffer"])
    return found, np.array(given["weights"])


def first_of(scenario: dict[str, Any], nodes: int) -> np.ndarray:
    if "shock" in scenario:
        return np.full(nodes, scenario["shock"])
    first = np.zeros(nodes)
    first[scenario["shocked"]] = 1.0
    return first


def published(case: Case, family: dict[str, Any]) -> set[str]:
    """Hold one published case to its stress and losses; the fields that were compared."""
    exposures, weight = banks_of(family)
    (spread,) = (s for name, s in SPREADS.items() if case["id"].startswith(name))
    near, read = {"rel": case["tol"]["rel"], "abs": case["tol"]["abs"]}, set()
    for scenario in case["expected"]["scenarios"]:
        read |= {f"scenarios.{name}" for name in scenario}
        found = stress(exposures, first_of(scenario, len(exposures)), spread)
        lost = exposures.buffer @ (found.final - found.first)
        capped = exposures.buffer @ (found.level - found.first)
        assert found.settled
        assert found.rank(weight) == pytest.approx(scenario["additional_stress_weighted"], **near)
        assert lost == pytest.approx(scenario["additional_losses_uncapped"], **near)
        if "additional_defaults" in scenario:
            more = found.defaulted & (found.first < 1.0)
            assert int(more.sum()) == scenario["additional_defaults"]
        if "capped_losses" in scenario:
            assert capped == pytest.approx(scenario["capped_losses"], **near)
        if "final_stress_capped" in scenario:
            assert found.level == pytest.approx(np.array(scenario["final_stress_capped"]), **near)
    return read


def test_published_cases() -> None:
    check_all("debtrank_125", published)


def test_continuous_stress_is_a_plain_recursion() -> None:
    rng = np.random.default_rng(3)
    nodes, edges = 25, 90
    ends = rng.integers(0, nodes, (2, edges))
    ends = ends[:, ends[0] != ends[1]]
    value, buffer = rng.exponential(0.3, ends.shape[1]), rng.uniform(0.5, 2.0, nodes)
    weight = np.zeros((nodes, nodes))
    np.add.at(weight, tuple(ends), value / buffer[ends[0]])
    exposures = Exposures.of(*ends, value, buffer)
    first = np.where(rng.random(nodes) < 0.2, 0.4, 0.0)
    before, here = np.zeros(nodes), first
    for _ in range(2_000):
        before, here = here, np.minimum(here + weight @ (here - before), 1.0)
    found = stress(exposures, first)
    assert found.level == pytest.approx(here, abs=1e-9)
    assert exposures.matrix.toarray() == pytest.approx(weight)
    assert exposures.radius == pytest.approx(np.abs(np.linalg.eigvals(weight)).max())
    once = stress(exposures, first, Spread.ONCE)
    assert (once.level <= found.level + 1e-12).all()  # cycles count once


def test_round_a_ring_stress_dies_out_below_a_radius_of_one_and_takes_all_above() -> None:
    ring = np.arange(10)
    first = np.eye(10)[0] * 0.1
    for exposure, last in ((0.5, False), (1.2, True)):
        exposures = Exposures.of(ring, np.roll(ring, -1), np.full(10, exposure), np.ones(10))
        found = stress(exposures, first)
        assert exposures.radius == pytest.approx(exposure)
        assert found.settled
        assert bool(found.defaulted.all()) is last
    mild = stress(Exposures.of(ring, np.roll(ring, -1), np.full(10, 0.5), np.ones(10)), first)
    assert mild.final[0] == pytest.approx(0.1 / (1.0 - 0.5**10))


def test_claims_that_lead_round_no_circle_leave_the_radius_as_it_is() -> None:
    holder, debtor = np.array([0, 1, 2, 3, 0]), np.array([1, 0, 0, 2, 3])
    exposures = Exposures.of(holder, debtor, [0.4, 0.9, 50.0, 70.0, 0.0], np.ones(4))
    assert exposures.radius == pytest.approx(0.6)  # of 0 and 1: a claim of 0 is none
    tail = Exposures.of(holder[2:4], debtor[2:4], [50.0, 70.0], np.ones(4))
    assert tail.radius == 0.0


def test_a_large_network_has_the_radius_of_its_dense_matrix() -> None:
    rng = np.random.default_rng(5)
    ends = rng.integers(0, 120, (2, 900))
    ends = ends[:, ends[0] != ends[1]]
    exposures = Exposures.of(*ends, rng.exponential(0.2, ends.shape[1]), np.ones(120))
    want = np.abs(np.linalg.eigvals(exposures.matrix.toarray())).max()
    assert exposures.radius == pytest.approx(want, rel=1e-8)


def test_nobody_and_nothing() -> None:
    empty = Exposures.of([], [], [], [])
    assert stress(empty, []).final.tolist() == []
    assert empty.radius == 0.0
    apart = Exposures.of([], [], [], [1.0, 2.0])
    assert stress(apart, [0.3, 1.0]).final.tolist() == [0.3, 1.0]


@pytest.mark.parametrize(
    ("edges", "buffer", "first", "words"),
    [
        (([0], [0], [1.0]), [1.0, 1.0], [0.0, 0.0], "a claim on itself"),
        (([0], [3], [1.0]), [1.0, 1.0], [0.0, 0.0], "none of the 2 nodes"),
        (([0], [1], [-1.0]), [1.0, 1.0], [0.0, 0.0], "negative or not finite"),
        (([0], [1], [1.0]), [1.0, 0.0], [0.0, 0.0], "node 1 has no equity"),
        (([0], [1], [1.0]), [1.0, 1.0], [0.0, 1.5], "2 shares, 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(
    edges: Any, buffer: list[float], first: list[float], words: str
) -> None:
    with pytest.raises(EstimationError, match=words):
        stress(Exposures.of(*edges, buffer), first)


def test_with_a_cap_claims_on_one_debtor_weigh_no_more_than_all_equity() -> None:
    edges = [1, 1, 2], [0, 0, 1], [3.0, 2.0, 0.5]  # node 1 has two claims on 0, of 5 over 1
    free, capped = (Exposures.of(*edges, [10.0, 1.0, 1.0], cap=cap) for cap in (False, True))
    assert capped.matrix.toarray().tolist() == [[0, 0, 0], [1, 0, 0], [0, 0.5, 0]]
    first = [0.2, 0.0, 0.0]
    # Battiston et al. 2012: an impact of min(1, 5/1), so a fifth of node 1 and a tenth of node 2
    assert stress(capped, first, Spread.ONCE).level == pytest.approx([0.2, 0.2, 0.1])
    assert stress(free, first, Spread.ONCE).level == pytest.approx([0.2, 1.0, 0.5])


def test_stress_that_is_linear_before_default_and_whole_from_then_on() -> None:
    rng = np.random.default_rng(4)
    nodes, weight = 12, np.zeros((12, 12))
    ends = rng.integers(0, nodes, (2, 40))
    ends = ends[:, ends[0] != ends[1]]
    value, buffer = rng.exponential(0.4, ends.shape[1]), rng.uniform(0.5, 2.0, nodes)
    np.add.at(weight, tuple(ends), value / buffer[ends[0]])
    exposures = Exposures.of(*ends, value, buffer)
    first = np.eye(nodes)[3] + 0.2 * np.eye(nodes)[5]
    found = {early: stress(exposures, first, early=early) for early in (0.0, 0.3, 1.0)}
    assert found[0.0].final.tolist() == stress(exposures, first, Spread.DEFAULT).final.tolist()
    assert found[1.0].final.tolist() == stress(exposures, first).final.tolist()
    here = first
    for _ in range(3_000):
        here = first + weight @ np.where(here >= 1.0, 1.0, 0.3 * here)
    assert found[0.3].final == pytest.approx(here, abs=1e-10)
    levels = [found[early].level for early in (0.0, 0.3, 1.0)]
    assert (levels[0] <= levels[1] + 1e-12).all()
    assert (levels[1] <= levels[2] + 1e-12).all()
    assert levels[0].sum() < levels[1].sum() - 0.1 < levels[2].sum() - 0.2
    with pytest.raises(EstimationError, match="early was 2"):
        stress(exposures, first, early=2.0)
    with pytest.raises(EstimationError, match="only continuous"):
        stress(exposures, first, Spread.ONCE, early=0.5)
