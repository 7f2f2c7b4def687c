"""From lake to assessment: what is measured, on what, and what cannot be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from undertow import assess as assessing
from undertow.assess import INVENTED, assess, leverage_history
from undertow.cli.world import keep_world
from undertow.errors import StateError
from undertow.measures import FAMILIES, MEASURES, chosen
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
    assert found.notes == (f"{INVENTED} (small, seed 6)", "n")
    assert found.quality.height > 5
    assert found.provenance["inputs_hash"] == load_snapshot(lake).digest


def test_a_measure_that_cannot_answer_is_named_with_its_reason(lake: Lake) -> None:
    found = assess(lake, now=NOW, by="sector", only=("tandem.matrix", "tandem.unwind"))
    assert found.not_told.keys() == {"tandem.matrix"}
    assert "no readings of leverage.sector" in found.not_told["tandem.matrix"]
    assert "there are readings by asset" in found.not_told["tandem.matrix"]
    assert found.untold == (f"tandem.matrix cannot be told: {found.not_told['tandem.matrix']}",)
    assert found.notes[-1] == found.untold[0]
    assert [study.name for study in found.studies] == ["tandem.unwind"]


def test_a_family_stands_for_its_measures_and_the_unknown_is_refused() -> None:
    assert chosen(["tandem"]) == tuple(each for each in MEASURES if each.family == "tandem")
    assert chosen(FAMILIES) == MEASURES
    assert [each.name for each in chosen(["tandem.cycle", "tandem.cycle"])] == ["tandem.cycle"]
    with pytest.raises(StateError, match="no measure called 'tides'"):
        chosen(["tides"])


def test_one_reason_is_told_once_however_many_measures_it_keeps_silent(lake: Lake) -> None:
    found = assess(lake, now=NOW, by="sector", only=("tandem.matrix", "tandem.index"))
    (sentence,) = found.untold
    assert sentence.startswith("2 measures cannot be told: there are no readings")
    assert sentence.endswith("They are tandem.matrix and tandem.index.")


@pytest.mark.parametrize("years", [-10, 70])
def test_an_instant_outside_the_time_of_the_data_is_refused(lake: Lake, years: int) -> None:
    newest = load_snapshot(lake).ts
    at = newest + years * 31_557_600_000_000
    with pytest.raises(StateError, match="is of 20") as caught:
        assess(lake, now=NOW, at=at, only=("tandem.cycle",))
    assert assessing.iso(at) in str(caught.value)
    assert assessing.iso(newest) in str(caught.value)
    assert ("whole book from" in str(caught.value)) == (years < 0)


def test_data_are_as_old_as_they_were_at_the_instant(lake: Lake) -> None:
    newest = load_snapshot(lake).ts
    at = newest - 3_600_000_000 * 30
    then = assess(lake, now=NOW, at=newest, only=("tandem.cycle",)).quality
    now = assess(lake, now=NOW, only=("tandem.cycle",))
    ages = dict(then.select("table", "age_us").iter_rows())
    assert ages["prices"] == 0
    assert dict(now.quality.select("table", "age_us").iter_rows())["prices"] == NOW - newest
    assert now.ages_from == NOW
    stands = lake.standing()
    earlier = assessing._quality(lake, stands, NOW, None, at)
    assert all(age is None or age >= 0 for age in earlier["age_us"])
    assert (earlier["newest"].drop_nulls().dt.epoch("us") <= at).all()


def test_a_history_is_made_of_positions_where_nothing_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Lake.create(tmp_path / "lake")
    world = tiny_world()
    keep_world(home, "tiny", world, quiet=True)
    with pytest.raises(StateError, match="positions at 1 instant;"):
        leverage_history(home, load_snapshot(home))
    later = world.tables["positions"].with_columns(pl.col("ts") + pl.duration(hours=1))
    prices = world.tables["prices"].with_columns(pl.col("ts") + pl.duration(hours=1))
    home.write({"positions": later, "prices": prices}, kind="ingest", now=lambda: NOW)
    monkeypatch.setattr(assessing, "LEAST_INSTANTS", 2)
    snapshots = assessing._snapshots(home, load_snapshot(home), "asset", None)
    assert [s.ts for s in snapshots][1] - snapshots[0].ts == 3_600_000_000


def test_without_readings_and_with_one_book_there_is_no_history(tmp_path: Path) -> None:
    home = Lake.create(tmp_path / "lake")
    keep_world(home, "tiny", tiny_world(), quiet=True)
    snapshot = load_snapshot(home)
    with pytest.raises(StateError, match="positions at 1 instant"):
        leverage_history(home, snapshot)


def test_a_number_is_no_better_known_than_what_it_is_made_of(lake: Lake) -> None:
    rows = lake.read("readings", columns=["name", "evidence", "coverage"])
    rows = rows.filter(pl.col("name") == "leverage.asset")
    assert "modelled" in rows["evidence"]
    history = leverage_history(lake, load_snapshot(lake), by="asset")
    assert history.evidence == "modelled"
    assert history.coverage == rows["coverage"].min()
    found = assess(lake, now=NOW, only=("tandem.matrix",))
    assert {r.evidence for r in found.readings} == {"modelled"}


def test_owners_are_joined_by_identities_and_reuse_is_told_over_time(lake: Lake) -> None:
    owners = load_snapshot(lake).book.owners
    one, other = (f"owner:{key}" for key in owners[:2])
    given = pl.DataFrame({"node": [one], "same_as": [other], "source": ["a label"]})
    names = ["interconnection.map", "interconnection.reuse"]
    apart = assess(lake, now=NOW, only=names)
    joined = assess(lake, now=NOW, only=names, identities=given)
    counts = [found.studies[0].tables["owners"]["owners"][0] for found in (apart, joined)]
    assert counts[1] == counts[0] - 1
    assert any("1 owner was joined" in note and "a label" in note for note in joined.notes)
    assert apart.studies[1].tables["over_time"].is_empty()  # positions stand at one instant
