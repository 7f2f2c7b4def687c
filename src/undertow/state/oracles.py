"""Which price a venue believes of each instrument, and how late it hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.state.arrays import CodeColumn, FloatColumn, KeyColumn, SmallColumn, digest, frozen
from undertow.state.present import believed, given_rows
from undertow.state.universe import NONE, Universe, encode

ORACLE_MODES = schema.table("oracles").column("mode").choices
(MARKET, LAGGED, EXCHANGE_RATE, FROZEN, MIS_SET) = range(len(ORACLE_MODES))


@dataclass(frozen=True, eq=False)
class Oracles:
    """How each instrument's price is read; where nobody says, it is the market's, at once."""

    universe: Universe
    # by instrument
    mode: SmallColumn  # into ORACLE_MODES
    feed: CodeColumn  # instrument whose market it follows, or NONE
    deviation: FloatColumn  # relative move that triggers an update; 0: any
    lag_us: KeyColumn
    heartbeat_us: KeyColumn  # longest time between updates; 0: none is promised

    @classmethod
    def from_frames(cls, universe: Universe, oracles: Any = None) -> Oracles:
        """Read the table of oracles; of several rows for an instrument the newest holds.

        Raises
        ------
        SchemaError
            When the table does not fit its declared columns.
        StateError
            When a name is unknown, or an instrument is of another venue.
        """
        rows = believed(given_rows("oracles", oracles), "instrument")
        keys = universe.instrument_keys
        inst = encode(rows["instrument"], keys, what="instrument", source="oracles")
        _check_venues(universe, inst, rows["venue"].to_list())
        feed = encode(rows["feed"], keys, what="feed", source="oracles")
        count = len(universe.instruments)

        def spread(values: Any, default: Any, dtype: Any) -> Any:
            column = np.full(count, default, dtype=dtype)
            column[inst] = values
            return frozen(column)

        return cls(
            universe=universe,
            mode=spread([ORACLE_MODES.index(name) for name in rows["mode"]], MARKET, np.int8),
            feed=spread(feed, NONE, np.int32),
            deviation=spread(rows["deviation"].fill_null(0.0).to_numpy(), 0.0, np.float64),
            lag_us=spread(rows["lag_us"].fill_null(0).to_numpy(), 0, np.int64),
            heartbeat_us=spread(rows["heartbeat_us"].fill_null(0).to_numpy(), 0, np.int64),
        )

    def __repr__(self) -> str:
        counts = np.bincount(self.mode, minlength=len(ORACLE_MODES))
        said = ", ".join(
            f"{n} {name}" for name, n in zip(ORACLE_MODES, counts, strict=True) if n
        )  # fmt: skip
        return f"Oracles({said})"

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        columns = (self.mode, self.feed, self.deviation, self.lag_us, self.heartbeat_us)
        return digest(self.universe.digest, *columns)


def _check_venues(universe: Universe, inst: CodeColumn, venues: list[str]) -> None:
    for code, venue in zip(inst, venues, strict=True):
        own = universe.venues[universe.venue_of[code]]
        if own != venue:
            raise StateError(
                f"{universe.instruments[code]} is an instrument of {own}, not of {venue}",
                source="oracles",
                column="venue",
                hint="name the venue that judges by this price; a price elsewhere is its `feed`",
            )
