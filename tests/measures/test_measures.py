"""The table of measures: every name can be called, and what is no measure is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

import undertow as ut
from measures.tandem.past import past_of
from undertow.errors import StateError
from undertow.measures import FAMILIES, MEASURES, Ground, chosen
from undertow.measures.tandem import Links
from undertow.measures.words import span
from undertow.worlds import Tandem, demo_world

HOUR = 3_600e6


@pytest.mark.parametrize("measure", MEASURES, ids=lambda each: each.name)
def test_every_measure_is_a_function_of_its_family_and_refuses_what_it_cannot_take(measure) -> None:
    made = getattr(getattr(ut, measure.family), measure.name.partition(".")[2])
    assert made is measure.made
    with pytest.raises(StateError, match="was of type World; it must be a"):
        made(*[demo_world()] * len(measure.takes))
    assert set(measure.needs) <= {"history", "book"}


def test_what_is_needed_follows_from_what_is_taken() -> None:
    needs = {each.name: each.needs for each in MEASURES}
    assert needs["tandem.matrix"] == ("history",)
    assert needs["tandem.unwind"] == ("book",)
    assert needs["tandem.attribution"] == needs["tandem.systemic"] == ("history", "book")


def test_a_seed_that_starts_nothing_is_refused() -> None:
    history, _ = past_of(Tandem(), nodes=2, steps=100)
    links = Links.of(history.labels, {"owner": np.eye(2)})
    for seed in ("x", -1, 1.5, None, True):
        for measure in (ut.tandem.matrix, ut.tandem.tails, ut.tandem.leadlag):
            with pytest.raises(StateError, match="seed was"):
                measure(history, seed=seed)
        with pytest.raises(StateError, match="seed was"):
            ut.tandem.attribution(history, links, seed=seed)


def test_an_unknown_measure_is_answered_with_what_may_be_meant() -> None:
    for family in FAMILIES:
        assert chosen([family]) == tuple(each for each in MEASURES if each.family == family)
    assert chosen(FAMILIES) == MEASURES
    assert [each.name for each in chosen(["tandem.cycle", "tandem.cycle"])] == ["tandem.cycle"]
    with pytest.raises(StateError, match=r"did you mean tandem\.matrix"):
        chosen(["tandem.matrx"])


def test_nodes_of_the_book_without_a_history_are_left_out_by_name() -> None:
    snapshot = demo_world().snapshot()
    history, _ = past_of(Tandem(), nodes=3, steps=120)
    venues = ("binance-usdm", "hyperliquid", "okx")
    level = history.level.select(history.labels)
    renamed = ut.state.Panel.from_arrays("leverage", "1", level.ts, venues, level.values)
    walk = np.exp(np.vstack([np.zeros(3), history.market.values]).cumsum(axis=0))
    prices = ut.state.Panel.from_arrays("prices", "usd", level.ts, venues, walk)
    past = ut.measures.tandem.LeverageHistory.of(renamed, prices)
    ground = Ground("venue", snapshot, past)
    (leads,) = chosen(["tandem.leadlag"])
    left_out = leads.function(ground).left_out
    assert {"aave-v3", "liquity-v1", "morpho-blue", "deribit", "dydx-v4"} == set(left_out)
    assert left_out["aave-v3"].endswith("it lends, and may have one by protocol")
    assert "protocol" not in left_out["deribit"]
    assert not Ground("venue", None, past).without_history


def test_a_measure_that_does_not_know_a_division_says_which_it_took() -> None:
    (vulnerability,) = chosen(["crowding.vulnerability"])
    snapshot = demo_world().snapshot()
    said = {by: vulnerability.function(Ground(by, snapshot)) for by in ("asset", "venue", "cohort")}
    assert said["asset"].says[:-1] == said["venue"].says
    assert said["asset"].says[-1] == "It is divided by venue, since it knows no division by asset."
    assert not any("division" in sentence for sentence in said["cohort"].says)


def test_a_span_is_told_in_the_unit_that_fits() -> None:
    told = {1: "1 hour", 8: "8 hours", 24: "1 day", 36: "36 hours", 100: "4.2 days", 215: "9 days"}
    assert {hours: span(hours * HOUR) for hours in told} == told
    assert span(5 * 60e6) == "5 minutes"
    assert span(2_160 * HOUR) == "90 days"
