from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.procyclicality import procyclicality
from undertow.state import Panel
from undertow.worlds import Response, Tandem, leverage_panel

HOUR = 3_600_000_000


def history_of(response: Response, *, nodes: int = 4, steps: int = 700, seed: int = 1):
    """Leverage of a few assets that answers to their prices as said."""
    rng = np.random.default_rng(seed)
    drivers = 0.007 * (rng.standard_normal((steps, 1)) + rng.standard_normal((steps, nodes)))
    ts, names = HOUR * np.arange(1, steps + 1), [f"node {k}" for k in range(nodes)]
    tandem = Tandem(response=response)
    level, _ = leverage_panel(seed, "lev", nodes=names, drivers=drivers, ts=ts, tandem=tandem)
    prices = Panel.from_arrays("prices", "usd", ts, names, 100 * np.exp(drivers.cumsum(axis=0)))
    return LeverageHistory.of(level, prices)


def held(steps: int = 500, *, target: bool = False, seed: int = 3):
    """Two holders of one asset each: debt left as it is, or leverage brought back to 3 each step.

    Gives the history, and the asset side in USD.
    """
    rng = np.random.default_rng(seed)
    returns = 0.004 * rng.standard_normal((steps, 2))
    price = np.exp(returns.cumsum(axis=0))
    assets, debt = np.full((steps, 2), 3.0), np.full((steps, 2), 2.0)
    for t in range(1, steps):
        before = assets[t - 1] * price[t] / price[t - 1]
        assets[t], debt[t] = before, debt[t - 1]
        if target:  # all but a noise of its own
            equity = before - debt[t]
            assets[t] = 3.0 * equity * np.exp(0.002 * rng.standard_normal(2))
            debt[t] = assets[t] - equity
    ts = HOUR * np.arange(1, steps + 1)
    level = Panel.from_arrays("leverage", "1", ts, ["a", "b"], assets / (assets - debt))
    prices = Panel.from_arrays("prices", "usd", ts, ["a", "b"], price)
    side = Panel.from_arrays("assets", "usd", ts, ["a", "b"], assets)
    return LeverageHistory.of(level, prices), side


def test_leverage_that_rises_with_prices_is_procyclical_with_the_slope_that_was_planted() -> None:
    study = procyclicality(history_of(Response(up=0.5, down=0.5)))
    middle = study.headline
    assert middle is not None
    assert (middle.name, middle.evidence) == ("median_slope", "observed")
    assert middle.value == pytest.approx(0.5, abs=0.03)
    assert middle.low < middle.value < middle.high
    assert study.reading("procyclical_share").value == 1.0
    assert study.says[0].startswith("4 of 4 nodes are procyclical")
    slopes = study.tables["slopes"]
    assert (slopes["low"] < 0.55).all()
    assert (slopes["high"] > 0.45).all()


def test_leverage_that_falls_with_prices_is_not_and_a_mere_target_is_seldom() -> None:
    falling = procyclicality(history_of(Response(up=-0.6, down=-0.6)))
    assert falling.reading("median_slope").value == pytest.approx(-0.6, abs=0.03)
    assert falling.reading("procyclical_share").value == 0.0
    assert "4 nodes with a negative one beyond chance" in falling.says[0]
    still = [
        procyclicality(history_of(Response(up=0.0, down=0.0), seed=s), reps=19).tables["slopes"]
        for s in range(12)
    ]
    found = pl.concat(still)
    assert (found["p_value"] < 0.05).sum() <= 7  # of 48: 5 % are 2.4, and 8 come once in 300
    assert (found["p_corrected"] < 0.05).sum() <= 3


def test_who_never_trades_has_the_passive_slope_and_no_active_one() -> None:
    history, side = held()
    study = procyclicality(history, side)
    slopes = study.tables["slopes"]
    assert (slopes["slope"] < -1.5).all()
    assert slopes["passive"].to_list() == pytest.approx(slopes["slope"].to_list(), rel=0.03)
    assert slopes["active"].abs().max() < 0.06
    assert study.reading("procyclical_share").value == 0.0
    assert slopes["assets"].to_list() == ["asset side"] * 2
    assert not any("stands in" in said for said in study.says)


def test_who_keeps_a_target_buys_as_prices_rise_and_stands_over_the_passive_slope() -> None:
    history, side = held(target=True)
    slopes = procyclicality(history, side).tables["slopes"]
    assert slopes["slope"].to_list() == pytest.approx([0.0, 0.0], abs=0.2)
    assert (slopes["active_low"] > 0.4).all()  # sold and bought, three times what prices did
    assert (slopes["active_p"] < 1e-6).all()


def test_positions_known_at_every_step_say_what_is_passive() -> None:
    history, side = held()
    exact = history.growth  # nobody traded, so all of it is revaluation
    revaluation = Panel.from_arrays("revaluation", "1", history.ts, history.labels, exact)
    prices = Panel.from_arrays(
        "prices", "usd", history.level.ts, history.labels,
        np.exp(np.vstack([[0.0, 0.0], history.market.values]).cumsum(axis=0)),
    )  # fmt: skip
    known = LeverageHistory.of(history.level, prices, revaluation=revaluation)
    study = procyclicality(known, side)
    slopes = study.tables["slopes"]
    assert slopes["active"].abs().max() < 1e-12
    assert slopes["passive"].to_list() == pytest.approx(slopes["slope"].to_list())
    assert "(as positions were)" in study.says[1]


def test_nodes_without_an_asset_side_are_told_by_what_they_hold_and_it_is_said() -> None:
    history, side = held()
    study = procyclicality(history, side.select(["b"]))
    by = dict(study.tables["slopes"].select("node", "assets").iter_rows())
    assert by == {"a": "return of what it holds", "b": "asset side"}
    assert "For a the asset side is not known" in study.says[-1]


def test_an_asset_side_seen_seldom_gives_no_growth_of_zero() -> None:
    history, side = held()
    sparse = Panel.from_arrays(
        "assets", "usd", side.ts[::2], side.labels, side.values[::2]
    )  # every other instant
    with pytest.raises(StateError, match="no value was seen"):
        procyclicality(history, sparse)
    mostly = np.delete(np.arange(500), np.arange(100, 500, 10))
    gaps = Panel.from_arrays("assets", "usd", side.ts[mostly], side.labels, side.values[mostly])
    slopes = procyclicality(history, gaps).tables["slopes"]
    assert slopes["rows"].to_list() == [499 - 80, 499 - 80]
    assert slopes["active"].abs().max() < 0.06


def test_bad_nodes_are_left_out_with_reasons_and_bad_assets_refused() -> None:
    history, side = held()
    flat = side.values.copy()
    flat[:, 0] = 5.0
    still = Panel.from_arrays("assets", "usd", side.ts, side.labels, flat)
    study = procyclicality(history, still)
    assert study.left_out == {"a": "assets: constant"}
    assert study.tables["slopes"]["node"].to_list() == ["b"]  # one node is enough
    with pytest.raises(StateError, match="assets are in 'base'"):
        procyclicality(history, Panel.from_arrays("n", "base", side.ts, side.labels, side.values))
    zero = side.values.copy()
    zero[2, 0] = 0.0
    with pytest.raises(StateError, match="row 3, column a: assets are 0"):
        procyclicality(history, Panel.from_arrays("n", "usd", side.ts, side.labels, zero))


def test_of_a_proxy_no_passive_slope_is_told_and_nothing_is_called_leverage() -> None:
    history, _ = held()
    level = Panel.from_arrays(
        "use", "1", history.level.ts, history.labels, history.level.values / 10
    )
    prices = Panel.from_arrays(
        "prices", "usd", level.ts, level.labels,
        np.exp(np.vstack([[0.0, 0.0], history.market.values]).cumsum(axis=0)),
    )  # fmt: skip
    study = procyclicality(LeverageHistory.of(level, prices, called="utilisation"))
    assert study.tables["slopes"]["passive"].null_count() == 2
    assert study.reading("median_active_slope").value is None
    assert "is not known" in study.says[1]
    words = (*study.says, study.title, *(r.definition.split(" (")[0] for r in study.readings))
    assert "leverage" not in " ".join(words).replace("do to leverage that nobody touches", "")


def test_every_number_can_be_published_and_comes_again() -> None:
    history, side = held()
    first, again = (procyclicality(history, side, seed=2) for _ in range(2))
    assert tuple(first.to_polars().columns) == schema.table("readings").column_names
    assert first.to_polars().equals(again.to_polars())
    wanted = {"node", "slope", "low", "high", "t", "p_value", "rows"}
    assert wanted <= set(first.tables["slopes"].columns)
    assert {r.subject for r in first.readings} == {"", "a", "b"}
