from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.econometrics.exceedances import Side, exceedance_correlation, normal_exceedance
from undertow.econometrics.tails import tail_dependence
from undertow.errors import EstimationError, StateError
from undertow.measures.study import Study
from undertow.measures.tandem.extremes import (
    THRESHOLDS,
    exceedance_shape,
    rest,
    stress,
    stress_shift,
    tail_shares,
)
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.tails import tails
from undertow.state import Panel
from undertow.worlds import Response, Tandem, Unwinding, leverage_panel

HOUR = 3_600_000_000
OWN, RAW = Layer.OWN.value, Layer.RAW.value


def history_of(tandem: Tandem, *, nodes: int = 4, steps: int = 700, seed: int = 1):
    """Leverage of a few assets whose prices share a market."""
    rng = np.random.default_rng(seed)
    market = rng.standard_normal((steps, 1))
    drivers = 0.007 * (market + rng.standard_normal((steps, nodes)))
    ts, names = HOUR * np.arange(1, steps + 1), [f"node {k}" for k in range(nodes)]
    level, _ = leverage_panel(seed, "leverage", nodes=names, drivers=drivers, ts=ts, tandem=tandem)
    prices = Panel.from_arrays("prices", "usd", ts, names, 100 * np.exp(drivers.cumsum(axis=0)))
    return LeverageHistory.of(level, prices)


def history_from(growth: np.ndarray, drivers: np.ndarray, called: str = "leverage"):
    """A history that grows exactly so; the first row of each is before its first step."""
    ts, names = HOUR * np.arange(1, len(growth) + 1), [f"n{k}" for k in range(growth.shape[1])]
    level = Panel.from_arrays(called, "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    prices = Panel.from_arrays("prices", "usd", ts, names, np.exp(drivers.cumsum(axis=0)))
    return LeverageHistory.of(level, prices, called=called)


def require_publishable(study: Study) -> None:
    """Readings fit their table, no number is NaN, and a verdict was given in whole sentences."""
    assert tuple(study.to_polars().columns) == schema.table("readings").column_names
    for table in study.tables.values():
        floats = table.select(pl.selectors.float())
        assert not floats.select(pl.all().is_nan().any()).transpose().to_series().any()
    assert study.says
    assert all(said.endswith(".") and "nan" not in said for said in study.says)


@pytest.fixture(scope="module")
def symmetric() -> Study:
    return tails(history_of(Tandem(correlation=0.5, response=Response.crooked())), reps=59)


@pytest.fixture(scope="module")
def unwinding() -> Study:
    dates = np.random.default_rng(3).choice(np.arange(50, 650), 16, replace=False)
    events = tuple(Unwinding(int(step), strength=4.0, share=0.8) for step in dates)
    return tails(history_of(Tandem(correlation=0.3, unwindings=events)), reps=59)


def test_nodes_that_unwind_together_are_found_to_fall_more_alike_than_they_rise(
    unwinding: Study,
) -> None:
    gap = unwinding.headline
    assert gap is not None
    assert (gap.name, gap.subject, gap.evidence) == ("fall_rise_gap", OWN, "observed")
    assert gap.value > gap.low > 0.1
    excess = unwinding.reading("fall_excess", OWN)
    assert excess.low > 0.1
    falls, rises = (unwinding.reading(f"{side}_dependence", OWN) for side in ("fall", "rise"))
    assert falls.value > 1.4 * rises.value
    assert "moves together more on the way down than" in unwinding.says[0]


def test_nodes_of_a_normal_law_are_not_found_to_fall_together_more(symmetric: Study) -> None:
    for name in ("fall_rise_gap", "fall_excess"):
        reading = symmetric.reading(name, OWN)
        assert reading.low < 0.0
    assert symmetric.reading("contagion_share", OWN).value == 0.0
    assert "no more on the way down than volatility alone explains" in symmetric.says[0]


def test_every_number_can_be_published(symmetric: Study, unwinding: Study) -> None:
    for study in (symmetric, unwinding):
        require_publishable(study)
        assert study.name == "tandem.tails"
        assert {r.subject for r in study.readings} == {OWN, RAW}


def test_tables_have_their_columns_and_a_row_for_every_pair_and_node(symmetric: Study) -> None:
    tables = symmetric.tables
    wanted = {
        "exceedance": ("side", "threshold", "correlation", "low", "high", "normal", "count"),
        "dependence": ("a", "b", "lower", "low", "high", "copula", "degrees"),
        "contagion": ("a", "b", "calm", "crisis", "adjusted", "statistic", "p_value"),
    }
    for name, columns in wanted.items():
        assert set(columns) <= set(tables[name].columns)
    assert tables["exceedance"].height == 2 * 2 * len(THRESHOLDS)  # layers, sides
    assert tables["dependence"].height == 6
    assert tables["contagion"].height == 2 * 4
    assert (tables["dependence"]["low"] <= tables["dependence"]["lower"]).all()
    thin = tables["exceedance"].filter(layer=OWN, side="lower").sort("threshold")["count"]
    assert (thin.diff().drop_nulls() < 0.0).all()


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(symmetric: Study) -> None:
    short = history_of(Tandem(correlation=0.5), nodes=2, steps=250)
    first, again, other = (tails(short, seed=seed, reps=19).to_polars() for seed in (4, 4, 5))
    assert first.equals(again)
    assert not first["low"].equals(other["low"])


def test_means_over_pairs_are_those_of_the_estimators_pair_by_pair() -> None:
    x = np.random.default_rng(2).standard_normal((400, 3))
    x[:, 1] += x[:, 0]
    falls, rises, normal = np.split(exceedance_shape(x), 3)
    pairs = [(0, 1), (0, 2), (1, 2)]
    single = [
        np.array(
            [exceedance_correlation(*x[:, pair].T, THRESHOLDS, side=side).rho for pair in pairs]
        )
        for side in Side
    ]
    alike = np.where(np.isnan(single).any(axis=0), np.nan, single)  # pairs told on either side
    assert np.isnan(alike).any()
    for found, wanted in zip((falls, rises), alike, strict=True):
        assert found == pytest.approx(np.nanmean(wanted, axis=0))
    rho = np.corrcoef(x.T)
    exact = [normal_exceedance(float(rho[i, j]), 1.0).correlation for i, j in pairs]
    assert normal[2] == pytest.approx(np.mean(exact), abs=2e-3)
    found = tail_dependence(x[:, 0], x[:, 1], 0.05, rng=np.random.default_rng(0), reps=9)
    assert tail_shares(x, 0.05)[0, 1] == pytest.approx(found.lower)


def test_falls_are_held_against_rises_and_the_normal_law_of_the_same_pairs() -> None:
    """Two halves: one tied, the other not, in which hardly two fall or rise far at one step."""
    rng = np.random.default_rng(12)
    tied = np.sqrt(0.9) * rng.standard_normal((300, 1)) + np.sqrt(0.1) * rng.standard_normal(
        (300, 3)
    )
    loose = rng.standard_normal((300, 3))
    falls, rises, normal = np.split(exceedance_shape(np.hstack([tied, loose])), 3)
    alone = np.split(exceedance_shape(tied), 3)
    at = THRESHOLDS.index(1.5)  # where the loose pairs have fewer than five steps
    for found, wanted in zip((falls, rises, normal), alone, strict=True):
        assert found[at] == pytest.approx(wanted[at])
    assert abs(falls[at] - normal[at]) < 0.3 < normal[at]


def test_stress_is_known_a_step_before_and_covers_the_share_asked_for() -> None:
    rng = np.random.default_rng(5)
    moves = 0.01 * rng.standard_normal((600, 2))
    moves[400:450] *= 8.0
    loud, quiet = stress(moves, 0.1)
    assert loud[20:].mean() == pytest.approx(0.1, abs=0.01)
    assert not (loud & quiet).any()
    assert not (loud | quiet)[:20].any()
    assert loud[415:450].all()
    shocked = moves.copy()
    shocked[300] = 1.0
    assert stress(shocked, 0.1)[0][300] == loud[300]  # its own step is not yet known
    assert stress(shocked, 0.1)[0][301]


def test_larger_common_shocks_alone_are_not_called_contagion_but_a_closer_tie_is() -> None:
    """Stressed steps have a factor four times as large; where nodes get closer, less of their own.

    Of the shift alone, as bands of the whole study take long: columns as `stress_shift` has them.
    """
    rng = np.random.default_rng(8)
    loud = np.repeat(rng.random(60) < 0.2, 50)[:, None]
    factor = rng.standard_normal((3_000, 1)) * np.where(loud, 4.0, 1.0)
    own = rng.standard_normal((3_000, 8))

    def shift(x: np.ndarray) -> float:
        return stress_shift(np.column_stack([x, rest(x), loud, ~loud]))

    def raw(x: np.ndarray) -> float:
        return np.mean([np.corrcoef(x[loud[:, 0], k], rest(x)[loud[:, 0], k])[0, 1]
                        - np.corrcoef(x[~loud[:, 0], k], rest(x)[~loud[:, 0], k])[0, 1]
                        for k in range(8)])  # fmt: skip

    swollen, closer = factor + own, factor + own * np.where(loud, 0.4, 1.0)
    assert raw(swollen) > 0.2
    assert abs(shift(swollen)) < 0.05
    assert shift(closer) > 0.1


def test_two_nodes_are_enough_and_short_ones_are_told_apart_from_bad_ones() -> None:
    rng = np.random.default_rng(6)
    short = tails(history_from(*(0.01 * rng.standard_normal((2, 75, 2)))), reps=39)
    require_publishable(short)
    assert "Beyond prices nothing can be said" in short.says[0]
    assert "too short" in short.left_out["n0"]
    assert short.reading("fall_dependence", RAW).value is None  # 3 steps are the worst 5 %
    growth = 0.01 * rng.standard_normal((400, 4))
    growth[:, 2] = 0.0
    growth[:, 3] = growth[:, 0]
    study = tails(history_from(growth, 0.01 * rng.standard_normal((400, 4))), reps=39)
    require_publishable(study)
    assert study.left_out == {"n2": "constant", "n3": "a copy of column 0"}
    with pytest.raises(StateError, match="1 of 2 series can be used"):
        tails(history_from(growth[:, [0, 2]], growth[:, :2]))


def test_too_few_stressed_steps_are_counted_and_no_argument_of_the_inside_is_named() -> None:
    """A market that never moves, and a short history whose resamples may hold no stressed step."""
    rng = np.random.default_rng(11)
    growth = 0.02 * rng.standard_normal((90, 3))
    still = tails(history_from(growth, np.zeros((90, 3))), reps=19)
    short = tails(history_from(growth[:64], 0.01 * rng.standard_normal((64, 3))), reps=199)
    for study in (still, short):
        require_publishable(study)
        assert not any("source" in said for said in study.says)
    reasons = set(still.tables["contagion"]["reason"])
    assert reasons == {"0 steps in stressed times; 4 are needed"}
    assert any("0 steps in stressed times; 4 are needed" in said for said in still.says)


def test_many_gappy_nodes_are_told_by_their_top_pairs_and_proxies_by_their_own_name() -> None:
    rng = np.random.default_rng(7)
    growth = 0.01 * (rng.standard_normal((300, 1)) + rng.standard_normal((300, 14)))
    history = history_from(growth, 0.01 * rng.standard_normal((300, 14)), called="utilisation")
    holes = history.level.values.copy()
    holes[100:110, 3] = np.nan
    level = Panel.from_arrays("utilisation", "1", history.level.ts, history.labels, holes)
    walk = 0.01 * rng.standard_normal((300, 14)).cumsum(axis=0)
    prices = Panel.from_arrays("prices", "usd", level.ts, level.labels, np.exp(walk))
    study = tails(LeverageHistory.of(level, prices, called="utilisation"), reps=39)
    require_publishable(study)
    assert study.tables["dependence"].height == 12
    assert not any(r.name == "copula_degrees" for r in study.readings)
    words = (*study.says, study.title, *(r.definition.split(" (")[0] for r in study.readings))
    assert not any("leverage" in said for said in words)


@pytest.mark.parametrize(("knob", "value"), [("share", 0.6), ("stressed", 0.0), ("level", 1.0)])
def test_impossible_shares_are_refused(knob: str, value: float) -> None:
    with pytest.raises(EstimationError, match=knob):
        tails(history_of(Tandem(), nodes=2, steps=400), reps=19, **{knob: value})
