"""Books of `crowds` with owners, volumes and volatility put in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from crowds import crowd
from undertow.rules.snapshot import Snapshot
from undertow.state.book import UNKNOWN_OWNER
from undertow.worlds import Plants, build_world
from undertow.worlds.plants import Crowd
from undertow.worlds.population import Population

UNKNOWN = UNKNOWN_OWNER


@cache
def borrower() -> Snapshot:
    """One borrower."""
    return crowd([0.3], [1_000.0], share=0.5)


@cache
def holder() -> Snapshot:
    """One who holds and owes nothing."""
    return crowd([1.0], [1_000.0], share=0.5)


@cache
def under_water() -> Snapshot:
    """One who owes 1,200 USD against 1,000."""
    return crowd([-0.5], [1_000.0], share=0.5)


@cache
def peopled() -> Snapshot:
    """A world of every kind of account."""
    return build_world(4, assets=8, venues=6, population=Population(300)).snapshot()


@cache
def planted(side: str | None) -> Snapshot:
    """A world with a crowd of ETH perps near their edge on that side, or without."""
    plant = None if side is None else Crowd(share=0.15, side=side, distance=0.06, band=0.01)
    population = Population(500, minimum_usd=5_000.0)
    world = build_world(3, assets=8, venues=6, population=population, plants=Plants(crowd=plant))
    return world.snapshot()


@cache
def in_two_orders() -> tuple[Snapshot, Snapshot]:
    """One world, from tables whose rows come in two orders."""
    world = build_world(5, assets=6, venues=5, population=Population(200))
    mixed = {
        name: frame.sample(fraction=1.0, shuffle=True, seed=5)
        if name in ("accounts", "positions") else frame
        for name, frame in world.tables.items()
    }  # fmt: skip
    return world.snapshot(), Snapshot.from_tables(mixed, world.ts)


def owned_by(snapshot: Snapshot, owners: Sequence[int]) -> Snapshot:
    """The same accounts with these owners, which rise; UNKNOWN is nobody's, and comes last."""
    keys, code = [], []
    for owner in owners:
        if not keys or owner == UNKNOWN or owner != keys[-1]:
            keys.append(owner)
        code.append(len(keys) - 1)
    book = replace(
        snapshot.book, owner=np.array(code, dtype=np.int32), owners=np.array(keys, dtype=np.int64)
    )
    return replace(snapshot, book=book)


def traded(snapshot: Snapshot, daily: float | None = None, vol: float | None = None) -> Snapshot:
    """The same book where so many units a day trade on every spot market, so volatile a year."""
    changed: dict[str, Any] = {}
    spot = snapshot.universe.kind == 1
    if daily is not None:
        changed["liquidity"] = replace(snapshot.liquidity, daily=np.where(spot, daily, 0.0))
    if vol is not None:
        changed["market"] = replace(snapshot.market, vol=np.where(spot, vol, 0.0))
    return replace(snapshot, **changed)
