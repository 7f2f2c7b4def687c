"""From lake to assessment: what is measured, on what, and what cannot be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from undertow.assess import assess, leverage_history
from undertow.cli.world import keep_world
from undertow.errors import StateError
from undertow.measures import MEASURES, chosen
from undertow.report import Assessed
from undertow.rules.leverage import Exposures, baskets
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.worlds import History, Tandem, World, build_world, tiny_world

NOW = 1_800_000_000_000_000
STEPS = 260


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(6, accounts=120, history=History(STEPS, tandem=Tandem(correlation=0.5)))


@pytest.fixture(scope="module")
def lake(world: World, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    home = Lake.create(tmp_path_factory.mktemp("assessed") / "lake")
    keep_world(home, "small", world, quiet=True)
    return home


def test_the_history_is_what_was_published_beside_the_prices_of_the_time(
    world: World, lake: Lake
) -> None:
    snapshot = load_snapshot(lake)
    history = leverage_history(lake, snapshot, by="asset")
    panel = world.panels["leverage_asset"].select(history.labels)
    np.testing.assert_allclose(history.level.values, panel.values)
    spot = world.panels["spot"].select(history.labels).values
    np.testing.assert_allclose(
        history.returns, np.diff(np.log(spot), axis=0), rtol=1e-6, atol=1e-12
    )


def test_venues_answer_to_what_they_hold(world: World, lake: Lake) -> None:
    snapshot = load_snapshot(lake)
    held = baskets(Exposures.of(snapshot), "venue")
    history = leverage_history(lake, snapshot, by="venue")
    assert set(history.labels) <= held.keys()
    for node in history.labels:
        assert not any(
            snapshot.universe.stable[snapshot.universe.assets.index(asset)] for asset in held[node]
        )


def test_nothing_later_than_the_instant_is_used(lake: Lake) -> None:
    whole = leverage_history(lake, load_snapshot(lake), by="asset")
    at = int(whole.ts[STEPS // 2])
    cut = leverage_history(lake, load_snapshot(lake, at=load_snapshot(lake).ts), by="asset")
    assert cut.digest == whole.digest
    assert whole.until(at).ts[-1] == at


def test_an_assessment_has_what_a_report_asks_for(lake: Lake) -> None:
    found: Assessed = assess(lake, now=NOW, only=("tandem.matrix", "tandem.index"), notes=("n",))
    assert [study.name for study in found.studies] == ["tandem.matrix", "tandem.index"]
    assert {r.name for r in found.headlines} == {"tandem.correlation", "tandem.index"}
    assert found.headlines[0].subject == "beyond prices"
    assert found.notes == ("n",)
    assert found.quality.height > 5
    assert found.provenance["inputs_hash"] == load_snapshot(lake).digest


def test_a_measure_that_cannot_answer_is_named_with_its_reason(lake: Lake) -> None:
    found = assess(lake, now=NOW, by="sector", only=("tandem.matrix", "tandem.unwind"))
    assert found.not_told.keys() == {"tandem.matrix"}
    assert "no readings of leverage.sector" in found.not_told["tandem.matrix"]
    assert [study.name for study in found.studies] == ["tandem.unwind"]


def test_a_family_stands_for_its_measures_and_the_unknown_is_refused() -> None:
    assert chosen(["tandem"]) == MEASURES
    assert [each.name for each in chosen(["tandem.cycle", "tandem.cycle"])] == ["tandem.cycle"]
    with pytest.raises(StateError, match="no measure called 'tides'"):
        chosen(["tides"])


def test_without_readings_and_with_one_book_there_is_no_history(tmp_path: Path) -> None:
    home = Lake.create(tmp_path / "lake")
    keep_world(home, "tiny", tiny_world(), quiet=True)
    snapshot = load_snapshot(home)
    with pytest.raises(StateError, match="positions at 1 instants"):
        leverage_history(home, snapshot)
