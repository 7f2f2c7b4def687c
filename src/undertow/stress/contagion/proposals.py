"""What a channel asks for after a cascade: columns of a `State`, and out of what.

Channels never write a state: they propose, and the worse of the state and all proposals holds, so
that in which order they speak within a pass cannot matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from undertow.state import AnyColumn, FloatColumn
from undertow.stress.pricing import POOLED, ROOT, PricingMap

_NOTHING_LEFT = 1e-6  # share of a claim that stays where nothing backs it, as in the engine
_NOISE = 1e-9  # a haircut that is rounding

Origin = tuple[str, float]  # a party, and USD that it lost or did not pay


@dataclass(frozen=True, eq=False)
class Proposal:
    """Columns of one channel, and by component and row who is behind it."""

    channel: str
    columns: Mapping[str, AnyColumn]
    origins: Mapping[tuple[str, int], tuple[Origin, ...]] = field(default_factory=dict)


def own_receipts(
    pricing: PricingMap, whole: FloatColumn, engine: FloatColumn, laid: FloatColumn
) -> FloatColumn:
    """[A] Receipt factors of assets themselves, so that with all they hang on they come to `whole`.

    What the engine takes off by itself within a cascade (`engine`), and what is laid on them
    already, is not taken off again.
    """
    wanted = np.divide(whole, np.maximum(engine, _NOTHING_LEFT))
    own, total = np.ones(len(whole)), np.ones(len(whole))
    for k in pricing.levels:
        pooled = pricing.hangs[k] == POOLED
        first = np.where(pricing.hangs[k] == ROOT, 1.0, total[pricing.first[k]])
        second = np.where(pooled, total[pricing.second[k]], first)
        below = np.where(pooled, np.sqrt(first * second), first)
        mine = np.clip(wanted[k] / np.maximum(below, _NOTHING_LEFT), _NOTHING_LEFT, 1.0)
        mine = np.where(mine >= 1.0 - _NOISE, 1.0, mine)
        own[k] = mine
        total[k] = np.minimum(mine, laid[k]) * below
    return own
