"""What a scenario made of a snapshot, before anybody was closed: the input of a cascade.

Columns go by asset [A], instrument [I] or venue [V] of the snapshot's universe. Moves are logs and
add up, but a peg is set; multipliers and receipt factors multiply. Of two outages the longer
counts; of two broken oracles the later, and one that is broken does not mend by being late.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from undertow import schema
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, FloatMatrix, KeyColumn, SmallColumn, Universe
from undertow.state.arrays import digest, frozen

ORACLE_MODES = schema.table("oracles").column("mode").choices
AS_GIVEN = -1  # the oracle keeps the mode of its snapshot


@dataclass(frozen=True, eq=False)
class Stressed:
    """A shocked snapshot: what moved, what broke, and for how long, as columns.

    Shocks that change what is held, owed or asked (counterfeit collateral, an exploit, a wrong
    parameter) have changed `snapshot` itself; all others stand in the columns beside it.
    """

    snapshot: Snapshot
    factor: FloatColumn  # [A] log moves; of a tied asset, of its deviation from what it follows
    basis: FloatColumn  # [I] log moves of single instruments against their asset
    vol_mult: FloatColumn  # [I]
    vol_shift: FloatColumn  # [I] added after multiplying, a year
    depth_mult: FloatColumn  # [I]
    oracle_mode: SmallColumn  # [I] into ORACLE_MODES, or AS_GIVEN
    oracle_factor: FloatColumn  # [I] what a mis-set oracle multiplies the market price by
    oracle_rounds: KeyColumn  # [I] for how many rounds it is mis-set or frozen; 0: to the end
    oracle_lag_us: KeyColumn  # [I] delay on top of the snapshot's
    closed_until_us: KeyColumn  # [V] nobody is closed before this, from the start on
    capacity_mult: FloatColumn  # [V] of what liquidators can do in a round
    fund_mult: FloatColumn  # [V] of insurance and backstop
    receipt: FloatColumn  # [A] what one unit of a claim is still backed by, as a share
    withdrawn: FloatColumn  # [I] share of the supply that wants out
    stuck: FloatColumn  # [I] base units of a reserve that lie with others: nobody takes them out
    rate_shock: FloatColumn  # [I] a fraction per hour, on top: what borrowers, or longs, pay
    rate_hours: FloatColumn  # [I] for how long
    correlation: FloatMatrix | None = None  # [A, A] for draws made under this scenario
    notes: tuple[str, ...] = ()

    @classmethod
    def calm(cls, snapshot: Snapshot, *, correlation: FloatMatrix | None = None) -> Stressed:
        """The snapshot as it is: nothing moved, nothing broke."""
        universe = snapshot.universe
        assets, venues = len(universe.assets), len(universe.venues)
        instruments = len(universe.instruments)
        columns: dict[str, Any] = {
            "factor": np.zeros(assets),
            "receipt": np.ones(assets),
            "oracle_mode": np.full(instruments, AS_GIVEN, dtype=np.int8),
            "closed_until_us": np.zeros(venues, dtype=np.int64),
            "capacity_mult": np.ones(venues),
            "fund_mult": np.ones(venues),
        }
        for name in ("basis", "vol_shift", "withdrawn", "stuck", "rate_shock", "rate_hours"):
            columns[name] = np.zeros(instruments)
        for name in ("vol_mult", "depth_mult", "oracle_factor"):
            columns[name] = np.ones(instruments)
        for name in ("oracle_rounds", "oracle_lag_us"):
            columns[name] = np.zeros(instruments, dtype=np.int64)
        columns = {name: frozen(column) for name, column in columns.items()}
        return cls(snapshot, **columns, correlation=correlation)

    def __repr__(self) -> str:
        moved = int((self.factor != 0.0).sum())
        return f"Stressed({moved} of {len(self.factor)} factors moved, {len(self.notes)} notes)"

    @property
    def universe(self) -> Universe:
        """The names of the snapshot."""
        return self.snapshot.universe

    @cached_property
    def digest(self) -> str:
        """A hash of the snapshot and of every column; the words of the notes are left out."""
        columns = [getattr(self, f.name) for f in fields(self)[1:-2]]
        ties = () if self.correlation is None else (self.correlation,)
        return digest(self.snapshot.digest, *columns, *ties)

    def added(self, column: str, where: Any, amount: Any) -> Stressed:
        """A copy in which `amount` is added to some rows of a column."""
        return self.put(column, where, getattr(self, column)[where] + amount)

    def scaled(self, column: str, where: Any, factor: Any) -> Stressed:
        """A copy in which some rows of a column are multiplied by `factor`."""
        return self.put(column, where, getattr(self, column)[where] * factor)

    def put(self, column: str, where: Any, value: Any) -> Stressed:
        """A copy in which some rows of a column are `value`."""
        new: AnyColumn = getattr(self, column).copy()
        new[where] = value
        changed: dict[str, Any] = {column: frozen(new)}
        return replace(self, **changed)

    def noted(self, words: str) -> Stressed:
        """A copy with one more note for the report."""
        return replace(self, notes=(*self.notes, words))
