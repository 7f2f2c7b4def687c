"""Co-movement beyond prices: found where it was planted, not where only prices move."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from measures.tandem.past import DAY, past_of, require_publishable
from undertow.errors import StateError
from undertow.measures.study import Study
from undertow.measures.tandem import (
    Layer,
    LeverageHistory,
    commonality,
    connectedness,
    cycle,
    index,
    matrix,
    procyclicality,
    unwinding,
)
from undertow.measures.tandem.index import _banded
from undertow.state import Panel
from undertow.worlds import Cycle, LeverageTruth, Response, Tandem, Unwinding

EVENTS = (300, 600)
PLANTED = Tandem(correlation=0.4, unwindings=tuple(Unwinding(at, strength=6.0) for at in EVENTS))


@pytest.fixture(scope="module")
def planted() -> tuple[LeverageHistory, LeverageTruth]:
    return past_of(PLANTED)


@pytest.fixture(scope="module")
def null() -> LeverageHistory:
    return past_of(Tandem.null(), seed=2)[0]


@pytest.fixture(scope="module")
def tied(planted: tuple[LeverageHistory, LeverageTruth]) -> Study:
    return matrix(planted[0], reps=299)


def test_planted_correlation_lies_in_the_band_and_that_of_prices_is_in_the_raw_layer(
    tied: Study,
) -> None:
    require_publishable(tied)
    own = tied.reading("tandem.correlation", Layer.OWN.value)
    raw = tied.reading("tandem.correlation", Layer.RAW.value)
    assert tied.headline is own
    assert own.low < 0.4 < own.high
    assert raw.value > own.value + 0.1
    assert "moves together beyond prices" in tied.says[0]
    pairs = tied.tables["pairs"]
    assert pairs.height == 2 * 28
    assert (pairs.filter(pl.col("layer") == Layer.OWN.value)["p_corrected"] < 0.05).all()


def test_where_only_prices_move_nothing_is_found_beyond_them(null: LeverageHistory) -> None:
    study = matrix(null, reps=299)
    require_publishable(study)
    own = study.reading("tandem.correlation", Layer.OWN.value)
    assert own.low < 0.0 < own.high
    assert study.reading("tandem.correlation", Layer.RAW.value).value > 0.3
    assert "no co-movement of leverage was found" in study.says[0]
    assert (study.tables["explained"]["by_prices"] > 0.5).all()


def test_a_proxy_is_never_called_leverage() -> None:
    history, _ = past_of(Tandem(correlation=0.4), called="utilisation", steps=400)
    for study in (matrix(history, reps=99), index(history), cycle(history), unwinding(history)):
        words = " ".join([study.title, *study.says, *(r.definition for r in study.readings)])
        assert "utilisation" in words
        assert "leverage" not in words.lower().replace("log leverage", "")


def test_the_same_seed_gives_the_same_study(planted: tuple[LeverageHistory, object]) -> None:
    one, two = (matrix(planted[0], seed=3, reps=99) for _ in range(2))
    assert one.readings == two.readings
    assert matrix(planted[0], seed=4, reps=99).readings != one.readings


def test_the_index_holds_what_was_planted_and_knows_its_past(
    planted: tuple[LeverageHistory, LeverageTruth],
) -> None:
    study = index(planted[0], window=200)
    require_publishable(study)
    lines = study.tables["index"].drop_nulls()
    inside = (lines["low"] < 0.4) & (lines["high"] > 0.4)
    assert inside.mean() > 0.7  # windows overlap: of a few independent ones most
    assert abs(lines["dcc"].mean() - 0.4) < 0.1
    assert abs(lines["ewma"].mean() - lines["rolling"].mean()) < 0.1
    assert 0.0 < study.reading("tandem.index_rank").value <= 1.0


def test_the_band_of_a_window_holds_the_truth_about_as_often_as_it_says() -> None:
    hits = []
    for seed in range(25):
        history, _ = past_of(Tandem(correlation=0.4), seed=100 + seed, steps=260, nodes=5)
        last = index(history, window=200).headline
        hits.append(last.low <= 0.4 <= last.high)
    assert np.mean(hits) >= 0.75  # of 25 at 90 %: less has a chance of 1 in 30


def test_a_common_factor_is_there_or_not(
    planted: tuple[LeverageHistory, LeverageTruth], null: LeverageHistory
) -> None:
    there, none = (commonality(each, draws=199) for each in (planted[0], null))
    require_publishable(there)
    require_publishable(none)
    assert "A common factor of leverage" in there.says[0]
    assert "No common factor" in none.says[0]
    share = (1.0 + 7 * 0.4) / 8  # largest eigenvalue of an equal correlation, over the nodes
    reading = there.reading("tandem.common_factor")
    assert reading.value == pytest.approx(share, abs=0.06)
    assert reading.low <= reading.value <= reading.high
    assert none.headline.low is None  # noise decides which direction is the strongest
    assert "not distinct from chance" in none.headline.definition
    few = there.reading("tandem.effective_number").value
    assert few < none.reading("tandem.effective_number").value <= 8.0
    assert there.tables["spectrum"]["eigenvalue"].sum() == pytest.approx(8.0)


def test_connectedness_is_more_than_chance_where_shocks_are_shared(
    planted: tuple[LeverageHistory, LeverageTruth], null: LeverageHistory
) -> None:
    there, none = (connectedness(each, draws=60) for each in (planted[0], null))
    require_publishable(there)
    require_publishable(none)
    assert "more than chance" in there.says[0]
    assert "no more than chance makes" in none.says[0]
    nodes = there.tables["nodes"]
    assert nodes["net"].sum() == pytest.approx(0.0, abs=1e-9)
    table = there.tables["table"].group_by("to_node").agg(pl.col("share").sum())
    np.testing.assert_allclose(table["share"], 1.0, rtol=1e-9)
    for study in (there, none):
        total = study.headline
        assert total.low <= total.value <= total.high
        assert total.value < study.tables["nodes"]["from"].mean()  # as estimated, bias and all
    assert none.headline.value < 0.5 * none.tables["nodes"]["from"].mean()


def test_planted_unwindings_are_dated_and_the_nodes_named(
    planted: tuple[LeverageHistory, LeverageTruth], null: LeverageHistory
) -> None:
    history, truth = planted
    study = unwinding(history, reps=299)
    require_publishable(study)
    found = study.tables["events"]
    peaks = {int(ts.timestamp() * 1e6) for ts in found["peak"]}
    assert {event.ts for event in truth.unwindings} <= peaks
    for event in truth.unwindings:
        row = found.row(
            by_predicate=pl.col("peak") == datetime.fromtimestamp(event.ts / 1e6, UTC), named=True
        )
        named = set(row["nodes"].split(", "))
        assert len(named & set(event.nodes)) >= len(event.nodes) - 1
    assert unwinding(null, reps=299).readings[0].value == 0.0


def test_a_cycle_is_dated_and_phases_that_share_it_agree() -> None:
    history, truth = past_of(
        Tandem(
            cycle=Cycle(40, 100, 60, amplitude=0.8, noise_ratio=0.05),
            response=Response(up=0.0, down=0.0),
        ),
        nodes=4,
    )
    study = cycle(history, expected=160.0)
    require_publishable(study)
    turns = study.tables["turns"]
    for point in truth.turning_points[:8]:
        same = turns.filter((pl.col("node") == point.series) & (pl.col("kind") == point.kind))
        assert (same["step"] - point.step).abs().min() <= 8
    assert study.reading("tandem.concordance").value > 0.3
    pairs = study.tables["concordance"]
    assert (pairs["p_value"] < 0.05).all()
    assert pairs["adjusted"].mean() == pytest.approx(study.headline.value)
    assert pairs["adjusted"].is_between(-0.5, 0.5).all()
    assert pairs["beyond_chance"].to_list() == (pairs["p_corrected"] < 0.05).to_list()
    apart = past_of(Tandem.null(), nodes=4, seed=9)[0]
    assert cycle(apart).reading("tandem.concordance").value < 0.3


@pytest.mark.parametrize("measure", [matrix, index, commonality, connectedness, cycle, unwinding])
def test_series_of_no_use_are_left_out_and_named(measure) -> None:
    history, _ = past_of(Tandem(correlation=0.3), nodes=3, steps=300)
    values = np.column_stack([history.level.values, history.level.values[:, 0], np.full(300, 2.0)])
    values[:250, 2] = np.nan
    labels = [*history.labels, "copy", "still"]
    level = Panel.from_arrays("leverage", "1", history.level.ts, labels, values)
    walk = np.exp(np.vstack([np.zeros(3), history.market.values]).cumsum(axis=0))
    prices = Panel.from_arrays("prices", "usd", level.ts, history.labels, walk)
    own = {"copy": {"node 0": 1.0}, "still": {"node 1": 1.0}}
    study = measure(LeverageHistory.of(level, prices, baskets=own))
    require_publishable(study)
    assert {"copy", "still", "node 2"} <= study.left_out.keys()
    assert all(study.left_out.values())


@pytest.mark.parametrize("measure", [index, commonality, unwinding])
def test_more_series_than_steps_are_an_outcome(measure) -> None:
    history, _ = past_of(Tandem(correlation=0.3), nodes=130, steps=125)
    require_publishable(measure(history))


@pytest.mark.parametrize("measure", [index, commonality, connectedness])
def test_too_few_steps_for_the_purge_are_refused_with_the_reason(measure) -> None:
    history, _ = past_of(Tandem(correlation=0.3), nodes=3, steps=64)
    with pytest.raises(StateError, match="steps are needed"):
        measure(history)


def test_days_are_told_as_they_are() -> None:
    history, _ = past_of(Tandem(), steps=100, nodes=2)
    reading = matrix(history, reps=99).headline
    assert reading.ts == 100 * DAY
    assert reading.window_us == 99 * DAY


def test_a_step_is_told_by_its_length_and_a_range_as_a_range() -> None:
    history, _ = past_of(Tandem(correlation=0.4), steps=400, nodes=3)
    for study in (matrix(history, reps=99), index(history), cycle(history), unwinding(history)):
        assert "A step is 1 day; there are 399, over 399 days." in study.how_to_read
    study = index(history)
    assert "over the last 60 steps of 1 day (60 days)" in study.says[0]
    line = study.tables["index"]["rolling"]
    assert study.says[-1].endswith(f"lay between {line.min():.2f} and {line.max():.2f}.")


@pytest.mark.parametrize("last", [0, 60])
def test_an_expected_value_outside_the_band_is_commented_on(last: int) -> None:
    """Correlation of 0.05, and of 0.8 in the last window, which the whole past does not expect."""
    rng, steps = np.random.default_rng(2), 600
    rho = np.where(np.arange(steps) < steps - last, 0.05, 0.8)[:, None]
    own, shared = rng.standard_normal((steps, 4)), rng.standard_normal((steps, 1))
    growth = 0.02 * (np.sqrt(rho) * shared + np.sqrt(1.0 - rho) * own)
    moves = 0.01 * rng.standard_normal((steps, 4))
    ts, names = DAY * np.arange(1, steps + 1), list("abcd")
    level = Panel.from_arrays("leverage", "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    prices = Panel.from_arrays("prices", "usd", ts, names, np.exp(moves.cumsum(axis=0)))
    study = index(LeverageHistory.of(level, prices))
    expected, found = study.reading("tandem.index_expected").value, study.headline
    comments = [said for said in study.says if said.startswith("cDCC expects")]
    assert (found.low <= expected <= found.high) == (not comments)
    assert bool(comments) == bool(last)
    assert all("below the band of the rolling line" in said for said in comments)


def test_without_a_price_every_measure_says_that_prices_are_missing() -> None:
    history, _ = past_of(Tandem(correlation=0.4), steps=200, nodes=3)
    before = Panel.from_arrays(
        "prices", "usd", history.level.ts[-1:] + DAY, history.labels, np.ones((1, 3))
    )
    blind = LeverageHistory.of(history.level, before)
    assert "no price history is known" in matrix(blind, reps=99).says[0]
    for measure in (index, commonality, connectedness, procyclicality):
        with pytest.raises(StateError, match="no price history is known"):
            measure(blind)


def test_the_index_stands_in_every_layer(planted: tuple[LeverageHistory, LeverageTruth]) -> None:
    found = index(planted[0], window=200)
    assert set(found.tables["layers"]["layer"]) == {layer.value for layer in planted[0].layers}
    raw = found.reading("tandem.index", "raw")
    assert raw.low < raw.value < raw.high
    assert raw.value > found.headline.value


@pytest.mark.parametrize(("size", "memory"), [(1.0, 0.0), (1.0 / 3.0, 0.0), (1.0, 0.5)])
def test_the_band_of_a_window_holds_the_truth_as_often_as_it_says(
    size: float, memory: float
) -> None:
    rng, truth, inside = np.random.default_rng(5), 0.64 / 1.64, []
    for _ in range(150):
        shock = rng.normal(size=(230, 6)) + 0.8 * rng.normal(size=(230, 1))
        for t in range(1, len(shock)):
            shock[t] += memory * shock[t - 1]
        rows = size * shock[30:]
        r = np.corrcoef(rows.T)[np.triu_indices(6, 1)].mean()
        _, low, high = _banded(rows, np.array([r]), 200, 0.9)
        inside.append(low[0] <= truth <= high[0])
    assert 0.8 <= np.mean(inside) <= 0.96


def test_a_node_that_fell_silent_is_left_out_by_name() -> None:
    history, _ = past_of(Tandem(correlation=0.4), seed=4)
    values = history.level.values.copy()
    values[-60:, 0] = np.nan
    level = Panel.from_arrays("leverage", "1", history.level.ts, history.labels, values)
    silent = replace(history, level=level)
    seen = silent.together(Layer.OWN)
    assert history.labels[0] in seen.left_out
    assert "not seen since" in seen.left_out[history.labels[0]]
    assert seen.ts[-1] == history.ts[-1]
