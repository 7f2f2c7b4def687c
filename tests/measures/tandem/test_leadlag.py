from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import EstimationError, StateError
from undertow.measures.study import Study
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.leadlag import leadlag
from undertow.state import Panel
from undertow.worlds import Response, Tandem, leverage_panel

HOUR = 3_600_000_000
OWN, RAW = Layer.OWN.value, Layer.RAW.value


def history_from(growth: np.ndarray, *, seed: int = 9, called: str = "leverage"):
    """Leverage that grows exactly so, beside prices that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    ts, names = HOUR * np.arange(1, len(growth) + 1), [f"n{k}" for k in range(growth.shape[1])]
    level = Panel.from_arrays(called, "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    walk = 0.01 * rng.standard_normal(growth.shape).cumsum(axis=0)
    return LeverageHistory.of(
        level, Panel.from_arrays("prices", "usd", ts, names, np.exp(walk)), called=called
    )


def led(steps: int = 800, *, lag: int = 3, strength: float = 0.5) -> np.ndarray:
    """Growth of four nodes; n1 does what n0 did some steps before, the others what they like."""
    growth = 0.01 * np.random.default_rng(4).standard_normal((steps, 4))
    growth[lag:, 1] += strength * growth[:-lag, 0]
    return growth


@pytest.fixture(scope="module")
def planted() -> Study:
    return leadlag(history_from(led()))


def test_the_node_that_moves_first_is_found_with_its_lag(planted: Study) -> None:
    for layer in (OWN, RAW):
        top = planted.tables["leads"].filter(layer=layer).row(0, named=True)
        assert (top["leader"], top["follower"], top["lag"]) == ("n0", "n1", 3)
        assert top["correlation"] == pytest.approx(0.45, abs=0.08)
        assert top["correlation"] > top["high"]
        assert top["p_corrected"] < 0.05
    first, *_, last = planted.tables["nodes"].filter(layer=OWN)["node"].to_list()
    assert (first, last) == ("n0", "n1")
    assert planted.reading("net_lead", "n0").value > 0.0 > planted.reading("net_lead", "n1").value
    assert "the surest is n0 before n1 by 3 steps" in planted.says[0]


def test_of_two_alike_the_follower_is_named_second_whichever_column_it_has() -> None:
    swapped = leadlag(history_from(led()[:, [1, 0, 2, 3]]))
    top = swapped.tables["leads"].row(0, named=True)
    assert (top["leader"], top["follower"], top["lag"]) == ("n1", "n0", 3)


def test_nodes_that_move_at_the_same_time_lead_nobody() -> None:
    """Correlated within a step, and answering late to prices: no leader beyond prices."""
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        drivers = 0.01 * rng.standard_normal((800, 4))
        ts, names = HOUR * np.arange(1, 801), [f"n{k}" for k in range(4)]
        tandem = Tandem(correlation=0.6, response=Response.crooked())
        level, _ = leverage_panel(seed, "lev", nodes=names, drivers=drivers, ts=ts, tandem=tandem)
        prices = Panel.from_arrays("p", "usd", ts, names, np.exp(drivers.cumsum(axis=0)))
        found.append(leadlag(LeverageHistory.of(level, prices)).tables["leads"].filter(layer=OWN))
    every = pl.concat(found)
    assert (every["p_value"] < 0.05).sum() <= 6  # of 36: 5 % are 1.8
    assert (every["p_corrected"] < 0.05).sum() <= 1


def test_a_null_is_said_in_words() -> None:
    study = leadlag(history_from(0.01 * np.random.default_rng(0).standard_normal((400, 3))))
    assert study.reading("lead_share", OWN).value == 0.0
    assert "no node leads another within 10 steps by more than chance" in study.says[0]


def test_every_number_can_be_published_and_every_pair_has_a_row(planted: Study) -> None:
    assert tuple(planted.to_polars().columns) == schema.table("readings").column_names
    leads = planted.tables["leads"]
    assert {"leader", "follower", "lag", "correlation", "p_value", "p_corrected"} <= set(
        leads.columns
    )
    assert leads.group_by("layer").len()["len"].to_list() == [6, 6]
    assert not leads.select(pl.selectors.float().is_nan().any()).transpose().to_series().any()
    nets = planted.tables["nodes"].filter(layer=OWN)["net"]
    assert nets.sum() == pytest.approx(0.0, abs=1e-12)  # what one leads another follows


def test_short_series_are_told_raw_and_bad_ones_left_out() -> None:
    short = leadlag(history_from(led(75)))
    assert short.says[0].startswith("Beyond prices nobody can be said to lead")
    assert set(short.tables["leads"]["layer"]) == {RAW}
    far = leadlag(history_from(led(75)), most=25)
    assert "nobody can be said to lead: too short" in far.says[1]
    assert far.reading("lead_share", RAW).value is None
    growth = led(400)
    growth[:, 2] = 0.0
    study = leadlag(history_from(growth))
    assert study.left_out == {"n2": "constant"}
    with pytest.raises(StateError, match="tandem needs two"):
        leadlag(history_from(growth[:, [2, 3]]))


def test_proxies_keep_their_name_and_impossible_lags_are_refused() -> None:
    study = leadlag(history_from(led(400), called="utilisation"))
    words = (*study.says, study.title, *(r.definition.split(" (")[0] for r in study.readings))
    assert not any("leverage" in said for said in words)
    with pytest.raises(EstimationError, match="most was 0"):
        leadlag(history_from(led(400)), most=0)
