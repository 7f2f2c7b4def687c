"""Histories of leverage with planted truths, for tests of tandem."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow import schema
from undertow.measures.study import Study
from undertow.measures.tandem.history import LeverageHistory
from undertow.state import Panel
from undertow.worlds import LeverageTruth, Tandem, leverage_panel

DAY = 86_400_000_000


def past_of(
    tandem: Tandem, *, nodes: int = 8, steps: int = 800, seed: int = 1, called: str = "leverage"
) -> tuple[LeverageHistory, LeverageTruth]:
    """Leverage of assets whose prices share a market with fat tails, and what was planted."""
    rng = np.random.default_rng([seed, 17])
    market, own = rng.standard_t(5, (steps, 1)), rng.standard_t(5, (steps, nodes))
    drivers = 0.015 * market + 0.01 * own
    drivers[0] = 0.0
    ts, names = DAY * np.arange(1, steps + 1), [f"node {k}" for k in range(nodes)]
    level, truth = leverage_panel(
        seed, "leverage", nodes=names, drivers=drivers, ts=ts, tandem=tandem
    )
    prices = Panel.from_arrays("prices", "usd", ts, names, 100 * np.exp(drivers.cumsum(axis=0)))
    return LeverageHistory.of(level, prices, called=called), truth


def require_publishable(study: Study) -> None:
    """Readings fit their table, no number is NaN, and a verdict was given in whole sentences."""
    assert tuple(study.to_polars().columns) == schema.table("readings").column_names
    for name, table in study.tables.items():
        floats = table.select(pl.selectors.float())
        assert not any(column.is_nan().any() for column in floats), name
    assert study.says
    assert all(said.endswith(".") and "nan" not in said for said in study.says), study.says
    assert study.how_to_read
    assert study.misleads
