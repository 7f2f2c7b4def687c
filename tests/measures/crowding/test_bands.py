"""Which readings of crowding have no band, and why; no value lies outside its band."""

from __future__ import annotations

from inspect import signature

import pytest

from measures.crowding.extremes import shorts, small_book
from measures.crowding.owned import borrower
from undertow.measures import MEASURES, Ground, Study
from undertow.measures.crowding import Crowd, concentration, vulnerability
from undertow.measures.crowding import exit as way_out
from undertow.measures.crowding import map as liquidation_map
from undertow.worlds import build_world
from undertow.worlds.population import Population

NEVER = {  # readings that have no band, and why
    "crowding.cluster_stability": "a mean over draws of owners itself",
    "crowding.overlap": "of the pairs that are there",
    "crowding.venue_similarity": "of the venues that are there",
    "crowding.protocol_similarity": "of the protocols that are there",
    "crowding.within": "the largest of many sums of what is there",
    "crowding.rho": "depth and thresholds are taken as known",
    "crowding.rho_strongest": "depth and thresholds are taken as known",
    "crowding.above_critical": "volume and volatility are taken as known",
    "crowding.critical_leverage": "volume and volatility are taken as known",
    "crowding.past_kink": "a share of reserves that are all seen",
    "crowding.rebalancing": "of tokens, which are no owners, and of dealers, who are assumed",
    "crowding.fund_rebalancing": "a sum over tokens, which are no owners",
    "crowding.dealer_gamma": "it rests on an assumption of who deals, which no draw shows",
    "crowding.rebalancing_e_folds": "as rebalancing, over a depth that is taken as known",
    "crowding.zero_gamma": "it rests on the same assumption of who deals",
}

SOMETIMES = {  # readings of which some have a band, and why not all
    "crowding.knee": "none in the deeper of the markets that the band speaks of",
    "crowding.saturation": "none in deeper markets, nor for assets alone",
    "crowding.vulnerability": "the band is of everything that falls, not of single assets",
    "crowding.vulnerability_factor": "draws of owners do not lie round it",
    "crowding.systemic": "too few owners",
    "crowding.at_risk_usd": "too few owners",
    "crowding.at_risk_to_depth": "too few owners",
}

TOLD = ("crowding.within", "crowding.rho", "crowding.rho_strongest")
FEW = {"reps": 29, "count": 20, "shocks": 5, "points": 20, "assets": 1}


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    world = build_world(4, assets=8, venues=6, population=Population(200))
    ground, made = Ground("venue", world.snapshot()), []
    for each in MEASURES:
        if each.family != "crowding":
            continue
        known = signature(each.made).parameters
        options = {name: number for name, number in FEW.items() if name in known}
        if each.name == "crowding.surface":  # whose assets are names
            del options["assets"]
        made.append(each.made(*(getattr(ground, part) for part in each.takes), **options))
    return made


def test_every_reading_has_a_band_or_a_reason_to_have_none(studies: list[Study]) -> None:
    told = [each for study in studies for each in study.readings if each.value is not None]
    bare = {each.name for each in told if each.low is None}
    assert not bare - NEVER.keys() - SOMETIMES.keys()
    banded = {each.name for each in told if each.low is not None}
    assert not banded & NEVER.keys()
    assert {"crowding.one_sidedness", "crowding.one_sidedness_plain"} <= banded
    assert {"crowding.at_risk_usd", "crowding.joint_usd", "crowding.venues_calling"} <= banded
    assert {"crowding.liquidated_share", "crowding.amplification"} <= banded


def test_no_value_lies_outside_its_band(studies: list[Study]) -> None:
    for study in studies:
        for each in study.readings:
            if each.low is not None and each.high is not None and each.value is not None:
                assert each.low <= each.value <= each.high, (study.name, each)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_value_of_a_small_book_lies_outside_its_band(seed: int) -> None:
    book = Crowd.of(small_book())
    for made in (vulnerability, way_out, concentration, liquidation_map):
        for each in made(book, seed=seed).readings:
            if each.low is not None and each.high is not None and each.value is not None:
                assert each.low <= each.value <= each.high, each


def test_no_band_is_of_fewer_owners_than_five() -> None:
    for book in (borrower(), shorts()):
        for made in (vulnerability, way_out, liquidation_map):
            found = made(book, reps=19)
            assert not [each for each in found.readings if each.low is not None], found.name


def test_a_reading_without_a_band_says_so(studies: list[Study]) -> None:
    for study in studies:
        for each in study.readings:
            if each.name in TOLD:
                assert "no band" in each.definition, each.name


def test_no_two_readings_of_a_study_have_one_name_and_subject(studies: list[Study]) -> None:
    for study in studies:
        names = [(each.name, each.subject) for each in study.readings]
        assert len(names) == len(set(names)), study.name
