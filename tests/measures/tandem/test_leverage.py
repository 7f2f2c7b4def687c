"""How leveraged everybody is: by hand, what adds up, and bands that hold what they should."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import undertow as ut
from crowds import crowd
from undertow.errors import EstimationError, StateError
from undertow.rules.leverage import DEFINITIONS, leverage_table
from undertow.worlds import demo_world, tiny_world


def test_by_hand() -> None:
    # 1,000 USD held against debts of 800 * (1 - fall): equity 1,000 - debt
    snapshot = crowd([0.1, 0.3], [1_000.0, 1_000.0], share=0.5)
    found = ut.tandem.leverage(snapshot, by="asset")
    debt = 800.0 * (0.9 + 0.7)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(2_000.0 / (2_000.0 - debt))
    assert found.headline.low is None  # of two accounts
    owed = found.tables["catalogue"].filter(
        (pl.col("definition") == "debt_to_collateral") & (pl.col("node") == "all")
    )
    assert owed["value"].item() == pytest.approx(debt / 2_000.0)


def test_every_definition_is_there_and_says_what_the_table_says() -> None:
    snapshot = demo_world().snapshot()
    found = ut.tandem.leverage(snapshot, by="venue", reps=49)
    told = found.tables["catalogue"]
    assert set(told["definition"]) == {each.name for each in DEFINITIONS if each.of_positions}
    for name in ("leverage", "loop_multiplier"):
        mine = told.filter((pl.col("definition") == name) & (pl.col("node") != "all"))
        table = leverage_table(snapshot, "venue", name)
        assert mine.drop("definition").equals(table)
    nodes = found.tables["nodes"]
    whole, parts = nodes.row(0, named=True), nodes.slice(1)
    assert parts["above_usd"].sum() == pytest.approx(whole["above_usd"])
    assert parts["below_usd"].sum() == pytest.approx(whole["below_usd"])
    inside = nodes.drop_nulls("low")
    assert (inside["low"] <= inside["value"]).all()
    assert (inside["value"] <= inside["high"]).all()
    assert {r.evidence for r in found.readings} == {"modelled"}


@pytest.mark.slow
def test_the_band_holds_the_truth_as_often_as_it_says() -> None:
    rng, inside, trials = np.random.default_rng(0), 0, 60
    usd = (rng.pareto(2.5, 200_000) + 1.0).clip(max=50.0)
    fall = rng.uniform(0.05, 0.6, 200_000)
    truth = usd.sum() / (usd - 0.8 * usd * (1.0 - fall)).sum()
    for trial in range(trials):
        some = rng.integers(0, len(usd), rng.poisson(400))
        book = crowd(fall[some], usd[some], share=0.5)
        reading = ut.tandem.leverage(book, seed=trial, reps=199).readings[0]
        assert reading.low is not None
        assert reading.high is not None
        inside += reading.low <= truth <= reading.high
    assert 0.78 <= inside / trials <= 0.98


def test_what_cannot_be_is_refused_and_nobody_leveraged_is_said() -> None:
    snapshot = tiny_world().snapshot()
    with pytest.raises(StateError, match="division"):
        ut.tandem.leverage(snapshot, by="colour")
    with pytest.raises(EstimationError, match="level"):
        ut.tandem.leverage(snapshot, level=1.5)
    with pytest.raises(StateError, match="Snapshot"):
        ut.tandem.leverage("book")  # type: ignore[arg-type]
