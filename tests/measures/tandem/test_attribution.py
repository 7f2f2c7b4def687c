"""Planted drivers are found with their coefficients; where none is planted, none is claimed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.measures.study import Study
from undertow.measures.tandem.attribution import attribution
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.links import Links
from undertow.state import Panel
from undertow.worlds import Attribution, Response, Tandem, leverage_panel

HOUR = 3_600_000_000
COLUMNS = ["driver", "coefficient", "low", "high", "p_value", "share", "reason"]


def history_of(
    tandem: Tandem, *, nodes: int = 16, steps: int = 1_200, seed: int = 1, called: str = "leverage"
) -> tuple[LeverageHistory, Links]:
    """Leverage of assets whose prices share a market, and what is planted that they share."""
    rng = np.random.default_rng(seed)
    drivers = 0.007 * (rng.standard_normal((steps, 1)) + rng.standard_normal((steps, nodes)))
    ts, names = HOUR * np.arange(1, steps + 1), [f"n{k}" for k in range(nodes)]
    level, truth = leverage_panel(
        seed, "leverage", nodes=names, drivers=drivers, ts=ts, tandem=tandem
    )
    prices = Panel.from_arrays("prices", "usd", ts, names, 100 * np.exp(drivers.cumsum(axis=0)))
    if truth.attribution is None:
        held = rng.uniform(0.0, 1.0, (2, nodes, nodes))
        links = Links.of(names, dict(zip(("collateral", "owner"), held + held.mT, strict=True)))
    else:
        planted = zip(truth.attribution.names, truth.attribution.drivers, strict=True)
        links = Links.of(names, dict(planted))
    return LeverageHistory.of(level, prices, called=called), links


def require_publishable(study: Study) -> None:
    assert study.to_polars().columns == list(schema.table("readings").column_names)
    for table in study.tables.values():
        floats = table.select(pl.selectors.float())
        assert not floats.select(pl.all().is_nan().any()).transpose().to_series().any()
    assert all(said.endswith(".") and " nan" not in said for said in study.says)


@pytest.fixture(scope="module")
def planted() -> Study:
    plan = Attribution(coefficients=(0.45, 0.25, 0.0))
    return attribution(*history_of(Tandem(correlation=plan, response=Response.crooked())))


def test_planted_coefficients_are_found_and_the_idle_driver_is_not_claimed(planted: Study) -> None:
    drivers = {row["driver"]: row for row in planted.tables["drivers"].to_dicts()}
    for name, true in (("collateral", 0.45), ("venue", 0.25)):
        assert drivers[name]["coefficient"] == pytest.approx(true, abs=0.08)
        assert drivers[name]["p_value"] < 0.01
        assert drivers[name]["low"] > 0.0
    assert abs(drivers["owner"]["coefficient"]) < 0.08
    assert planted.says[0].startswith("Leverage moves together where something is shared: shared c")
    assert any("Shared owner" in said and "not told from nothing" in said for said in planted.says)


def test_shares_add_up_to_what_is_explained_and_chance_explains_less(planted: Study) -> None:
    drivers = planted.tables["drivers"]
    assert drivers.columns == COLUMNS
    explained = planted.reading("tandem.explained").value
    assert planted.headline is planted.reading("tandem.explained")
    assert explained is not None
    assert drivers["share"].sum() == pytest.approx(explained)
    assert planted.reading("tandem.left_over").value == pytest.approx(1.0 - explained)
    by_chance = planted.reading("tandem.explained_by_chance").value
    assert by_chance is not None
    assert by_chance < 0.2 < explained
    require_publishable(planted)


def test_what_is_left_over_of_the_truth_is_about_the_noise_of_the_estimates(
    planted: Study,
) -> None:
    left, noise = (planted.reading(f"tandem.{n}").value for n in ("left_over", "noise"))
    assert left is not None
    assert noise is not None
    assert 0.3 < left / noise < 3.0


def test_every_pair_is_told_with_what_it_shares(planted: Study) -> None:
    pairs = planted.tables["pairs"]
    assert pairs.height == 16 * 15 // 2
    gap = pairs["excess"] - pairs["explained"] - pairs["left_over"]
    assert gap.abs().max() == pytest.approx(0.0, abs=1e-9)
    assert {"collateral", "venue", "owner"} <= set(pairs.columns)


def test_where_nothing_is_planted_nothing_is_claimed() -> None:
    for seed in range(3):
        study = attribution(*history_of(Tandem.null(), seed=seed, nodes=10, steps=500), reps=499)
        assert study.says[0].startswith("Nothing that nodes share was found")
        require_publishable(study)


def test_few_nodes_cannot_tell_and_say_so() -> None:
    history, links = history_of(Tandem.null(), nodes=5, steps=300)
    study = attribution(history, links, reps=99)
    assert "cannot be told: 5 nodes are 10 pairs" in study.says[0]
    drivers = study.tables["drivers"]
    numbers = drivers.select(pl.selectors.float()).null_count().row(0)
    assert set(numbers) == {drivers.height}  # nothing is shown as if it were told
    assert all("fewer than 8" in reason for reason in drivers["reason"])
    assert study.tables["pairs"].select("explained", "left_over").null_count().row(0) == (10, 10)
    assert study.tables["pairs"]["excess"].null_count() == 0
    assert study.headline.value is None
    assert study.reading("tandem.coefficient", "owner").value is None
    assert not any("explain" in said or "%" in said for said in study.says)
    require_publishable(study)
    pair = attribution(history.select(["n0", "n1"]), links)
    assert pair.headline is not None
    assert pair.headline.value is None
    assert "cannot be told: no driver is of use" in pair.says[0]
    assert pair.tables["drivers"]["reason"].to_list() == ["the same for all pairs"] * 2
    require_publishable(pair)


def test_a_driver_that_says_nothing_is_named_with_its_reason() -> None:
    history, links = history_of(Tandem.null(), nodes=9, steps=300)
    first = links.drivers["collateral"]
    more = {"collateral": first, "twice": 2.0 * first, "flat": np.ones((9, 9))}
    study = attribution(history, Links.of(links.nodes, more), reps=99)
    reasons = dict(study.tables["drivers"].select("driver", "reason").iter_rows())
    assert reasons["flat"] == "the same for all pairs"
    assert reasons["twice"] == "a combination of the drivers before it"
    assert any("Shared flat could not be used" in said for said in study.says)
    require_publishable(study)


def test_a_node_without_links_is_left_out_and_a_proxy_is_not_called_leverage() -> None:
    history, links = history_of(Tandem.null(), nodes=10, steps=300, called="utilisation")
    study = attribution(history, links.select(links.nodes[1:]), reps=99)
    assert study.left_out == {"n0": "nothing is known of what it shares with others"}
    assert study.tables["pairs"].height == 9 * 8 // 2
    words = (study.title, study.how_to_read, study.misleads, *study.says)
    said = " ".join((*words, *(r.definition for r in study.readings)))
    assert "utilisation" in said
    assert "leverage" not in said.lower()
    with pytest.raises(StateError, match="no driver"):
        attribution(history, Links.of(links.nodes, {}))
    with pytest.raises(StateError, match="pairs need two"):
        attribution(history, Links.of(["x", "y"], {"owner": np.eye(2)}))


def test_the_same_seed_gives_the_same_study() -> None:
    given = history_of(Tandem.null(), nodes=8, steps=200)
    one, again = (attribution(*given, seed=7, reps=99) for _ in range(2))
    assert one.as_json() == again.as_json()
