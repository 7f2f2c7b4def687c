"""Leverage of the nodes of a world's own book, and the panels that arrive at it.

Leverage is a ratio of sums over the accounts that have equity: assets over equity of lenders, gross
notional over equity of traders. An account in several assets has its equity split over them as its
exposure is, so that exposures and equities of all assets add up to those of all venues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.rules.leverage import Exposures, leverage_table
from undertow.rules.snapshot import Snapshot
from undertow.state import KeyColumn, Panel
from undertow.worlds.frames import rows
from undertow.worlds.growth import leverage_panel
from undertow.worlds.names import Names
from undertow.worlds.seeds import stream
from undertow.worlds.tandem import Tandem
from undertow.worlds.truths import LeverageTruth, PriceTruth

LEVERAGE_PANELS = ("leverage_asset", "leverage_venue", "leverage_protocol")
_DEFINITIONS = {
    "leverage_asset": "assets held outright and gross notional of one asset over the equity behind "
    "them, a ratio of sums; an account's equity is split as its exposure is",
    "leverage_venue": "gross derivative notional over equity of a venue, a ratio of sums",
    "leverage_protocol": "assets over equity of a lending protocol, a ratio of sums",
}
_LEAST_LENT = 1.0  # assets over equity


@dataclass(frozen=True, eq=False)
class Held:
    """Leverage of every venue and asset of a book, of those alone where anything is held."""

    venue: Mapping[str, float]
    asset: Mapping[str, float]
    lent: frozenset[str]  # assets that are held outright and nothing else


def book_leverage(snapshot: Snapshot) -> Held:
    """How leveraged the accounts of each venue are, and what stands behind each asset."""
    universe, seen = snapshot.universe, Exposures.of(snapshot)
    of_venue, of_asset = (
        dict(leverage_table(seen, by).select("node", "value").drop_nulls().iter_rows())
        for by in ("venue", "asset")
    )
    traded = np.bincount(
        universe.asset_of[snapshot.book.inst],
        seen.notional + seen.delta,
        minlength=len(universe.assets),
    )
    lent = {key for key, each in zip(universe.assets, traded, strict=True) if not each}
    return Held(of_venue, of_asset, frozenset(lent & of_asset.keys()))


def leverage_panels(
    seed: int,
    names: Names,
    tandem_of: Callable[[str], Tandem],
    made: PriceTruth,
    ts: KeyColumn,
    held: Held | None,
) -> dict[str, tuple[Panel, LeverageTruth]]:
    """Leverage by asset, which answers to its own return; by venue and protocol, to a basket.

    Each ends at what is `held`, where that is known.
    """
    weight = np.array([names.assets[key].weight for key in made.assets])
    panels = {}
    for name in LEVERAGE_PANELS:
        if name == "leverage_asset":
            nodes, drivers = list(made.assets), np.array(made.returns)
            lent = frozenset[str]() if held is None else held.lent
            known = None if held is None else held.asset
        else:
            lending = name == "leverage_protocol"
            nodes = [v.key for v in names.venues if (v.kind == "lending") == lending]
            drivers = np.zeros((len(ts), len(nodes)))
            for k, node in enumerate(nodes):
                tilt = stream(seed, f"basket of {node}").standard_gamma(2.0, len(weight)) * weight
                for j, part in enumerate(tilt / tilt.sum()):
                    drivers[:, k] += part * made.returns[:, j]
            lent = frozenset(nodes if lending else ())
            known = None if held is None else held.venue
        floor = np.array([_LEAST_LENT if node in lent else 0.0 for node in nodes])
        last = np.array([np.nan if known is None else known.get(node, np.nan) for node in nodes])
        panels[name] = leverage_panel(
            seed, name, nodes=nodes, drivers=drivers, ts=ts, tandem=tandem_of(name),
            last=np.maximum(last, floor), floor=floor,
        )  # fmt: skip
    return panels


def reading_rows(panels: Mapping[str, Panel]) -> pl.DataFrame:
    """The panels of leverage as published readings, node by node; each hashes its own panel."""
    return pl.concat(
        [
            rows(
                "readings",
                ts=np.tile(panel.ts, len(panel.labels)),
                name=name.replace("_", "."),
                subject=pl.Series(panel.labels, dtype=pl.String).gather(
                    np.repeat(np.arange(len(panel.labels)), len(panel))
                ),
                value=panel.values.T.ravel(),
                unit=panel.unit,
                definition=_DEFINITIONS[name],
                coverage=1.0,
                inputs_hash=panel.digest,
            )
            for name, panel in panels.items()
            if name in LEVERAGE_PANELS
        ]
    )
