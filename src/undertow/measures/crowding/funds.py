"""Leveraged tokens whose managers trade to be at their leverage again, and what they must trade.

Rows are tokens. After a return r of the reference a token of leverage m and net value A trades
m (m - 1) A r of it: with the move whether it is long (m > 1) or short (m < 0). It is wiped out
where 1 + m r = 0; there it has traded all it held, and beyond it holds that much still to trade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.pricing import PricingMap


@dataclass(frozen=True, eq=False)
class Funds:
    """Who is kept at a leverage, on what."""

    token: KeyColumn  # code of the asset that it is
    reference: KeyColumn  # code of the asset that it is leveraged on
    multiple: FloatColumn  # m
    net_usd: FloatColumn  # A, above 0
    bust: KeyColumn  # tokens of which nothing is left: they trade no more

    @classmethod
    def of(cls, snapshot: Snapshot) -> Funds:
        """Read the leveraged tokens of a snapshot off its claims.

        Raises
        ------
        StateError
            When a token owes as much as it holds, or an asset hangs on itself.
        """
        pricing = PricingMap.of(snapshot)
        there = np.flatnonzero(pricing.rebalanced)
        alive = there[pricing.net_usd[there] > 0.0]
        return cls(
            token=frozen(alive),
            reference=frozen(pricing.first[alive]),
            multiple=frozen(pricing.leverage[alive]),
            net_usd=frozen(pricing.net_usd[alive]),
            bust=frozen(there[pricing.net_usd[there] <= 0.0]),
        )

    def __len__(self) -> int:
        return len(self.token)

    @property
    def per_percent(self) -> FloatColumn:
        """(tokens,) USD traded with a move of 1 %; negative of those that trade against it."""
        return self.multiple * (self.multiple - 1.0) * self.net_usd * 0.01

    @property
    def wiped_out_at(self) -> FloatColumn:
        """(tokens,) The return of the reference that leaves nothing; -1 or more, or infinite."""
        out = np.full(len(self), np.inf)
        some = (self.multiple > 1.0) | (self.multiple < 0.0)
        out[some] = -1.0 / self.multiple[some]
        return out

    def bought(self, move: Any) -> FloatMatrix:
        """(..., tokens) USD bought of the reference after each move, at the price after it.

        What is sold is negative. Past the wipe-out it is all of the exposure that is left.
        """
        r = np.asarray(move, dtype=np.float64)[..., None]
        m, a = self.multiple, self.net_usd
        alive = 1.0 + m * r > 0.0
        found: FloatMatrix = np.where(alive, m * (m - 1.0) * a * r, -m * a * (1.0 + r))
        return found
