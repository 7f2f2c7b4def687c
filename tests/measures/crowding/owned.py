"""Books of `crowds` with owners, volumes and volatility put in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from undertow.rules.snapshot import Snapshot
from undertow.state.book import UNKNOWN_OWNER

UNKNOWN = UNKNOWN_OWNER


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
