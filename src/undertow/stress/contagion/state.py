"""What channels did so far, as columns that only worsen, and how they lie on a scenario.

Columns go by asset [A] or instrument [I]. A state is laid on a `Stressed` by the worse of the two,
so nothing that the scenario says already is added again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.stress.outages import FROZEN, MIS_SET
from undertow.stress.stressed import Stressed

_LOWEST = ("receipt", "peg")  # the worse is the smaller


@dataclass(frozen=True, eq=False)
class State:
    """Where channels stand."""

    receipt: FloatColumn  # [A] share still backed, on top of what the engine takes off by itself
    peg: FloatColumn  # [A] log deviation, at most 0
    withdrawn: FloatColumn  # [I] share of the supply that wants out
    rate: FloatColumn  # [I] what borrowers pay on top, as a share of their debt
    frozen: BoolColumn  # [I] the oracle stands still

    @classmethod
    def calm(cls, snapshot: Snapshot) -> State:
        """Nothing happened yet."""
        universe = snapshot.universe
        assets, count = len(universe.assets), len(universe.instruments)
        columns: dict[str, Any] = {
            "receipt": np.ones(assets), "peg": np.zeros(assets),
            "withdrawn": np.zeros(count), "rate": np.zeros(count),
            "frozen": np.zeros(count, dtype=np.bool_),
        }  # fmt: skip
        return cls(**{name: frozen(column) for name, column in columns.items()})

    def worsened(self, **columns: Any) -> State:
        """The worse of this state and each of these columns."""
        changed: dict[str, Any] = {}
        for name, column in columns.items():
            mine = getattr(self, name)
            if name == "frozen":
                changed[name] = frozen(mine | column)
            else:
                worse = np.minimum if name in _LOWEST else np.maximum
                changed[name] = frozen(worse(mine, column))
        return replace(self, **changed)

    def change(self, other: State) -> float:
        """Largest difference of any component: shares, logs, shares of a debt."""
        return max(
            float(np.abs(getattr(self, f.name).astype(float) - getattr(other, f.name)).max(
                initial=0.0))
            for f in fields(self)
        )  # fmt: skip

    def laid(self, stressed: Stressed, hours: float) -> Stressed:
        """The scenario with this state on it; itself where the state adds nothing."""
        there: dict[str, Any] = {
            "receipt": np.minimum(stressed.receipt, self.receipt),
            "factor": np.where(
                self.peg < 0.0, np.minimum(stressed.factor, self.peg), stressed.factor
            ),
            "withdrawn": np.maximum(stressed.withdrawn, self.withdrawn),
        }
        dearer = self.rate > np.maximum(stressed.rate_shock * stressed.rate_hours, 0.0)
        there["rate_shock"] = np.where(dearer, self.rate / hours, stressed.rate_shock)
        there["rate_hours"] = np.where(dearer, hours, stressed.rate_hours)
        stopped = self.frozen & ~np.isin(stressed.oracle_mode, (FROZEN, MIS_SET))
        there["oracle_mode"] = np.where(stopped, np.int8(FROZEN), stressed.oracle_mode)
        there["oracle_rounds"] = np.where(stopped, 0, stressed.oracle_rounds)
        moved: dict[str, Any] = {
            name: frozen(column)
            for name, column in there.items()
            if not np.array_equal(column, getattr(stressed, name))
        }
        return replace(stressed, **moved) if moved else stressed
