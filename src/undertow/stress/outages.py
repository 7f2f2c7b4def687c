"""Shocks to what venues and their oracles can still do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.errors import StateError
from undertow.state import KeyColumn, Universe
from undertow.stress.shock import Shock, near, reach, require_within
from undertow.stress.stressed import ORACLE_MODES, Stressed

HOUR_US = 3_600_000_000
FROZEN, MIS_SET, LAGGED = (ORACLE_MODES.index(mode) for mode in ("frozen", "mis_set", "lagged"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage(Shock):
    """A venue, or every venue on a chain, closes nobody for so many hours from the start."""

    hours: float
    venue: str = ""
    chain: str = ""

    def __post_init__(self) -> None:
        """Refuse both a venue and a chain, or neither."""
        require_within("hours", self.hours, 0.0, 24.0 * 365.0, open_low=True)
        _require_one(venue=self.venue, chain=self.chain)

    def apply(self, stressed: Stressed) -> Stressed:
        """Put the reopening off, never forward."""
        where = _venues(stressed.universe, self.venue, self.chain)
        until = np.maximum(stressed.closed_until_us[where], round(self.hours * HOUR_US))
        return stressed.put("closed_until_us", where, until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity(Shock):
    """Liquidators of a venue or chain can do so many times what they could: a congested chain."""

    multiplier: float
    venue: str = ""
    chain: str = ""

    def __post_init__(self) -> None:
        """Refuse both a venue and a chain, or neither."""
        require_within("multiplier", self.multiplier, 0.0, 1_000.0)
        _require_one(venue=self.venue, chain=self.chain)

    def apply(self, stressed: Stressed) -> Stressed:
        """Multiply the capacity."""
        where = _venues(stressed.universe, self.venue, self.chain)
        return stressed.scaled("capacity_mult", where, self.multiplier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund(Shock):
    """The insurance and backstop of a venue are so many times what they were."""

    multiplier: float
    venue: str

    def __post_init__(self) -> None:
        """Refuse a negative fund."""
        require_within("multiplier", self.multiplier, 0.0, 1_000.0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Multiply the funds."""
        where = stressed.universe.code("venue", self.venue)
        return stressed.scaled("fund_mult", where, self.multiplier)


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleLag(Shock):
    """Oracles run so many hours later than they did."""

    hours: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse an oracle that runs ahead."""
        require_within("hours", self.hours, 0.0, 24.0 * 365.0, open_low=True)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the lag; an oracle that is frozen or mis-set stays so."""
        where = reach(stressed.universe, self)
        late = stressed.added("oracle_lag_us", where, round(self.hours * HOUR_US))
        broken = np.isin(stressed.oracle_mode, (FROZEN, MIS_SET))
        return late.put("oracle_mode", where & ~broken, LAGGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleFreeze(Shock):
    """Oracles show the price of the snapshot for so many rounds; 0 is to the end."""

    rounds: int = 0
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a negative number of rounds."""
        require_within("rounds", self.rounds, 0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Freeze."""
        where = reach(stressed.universe, self)
        return stressed.put("oracle_mode", where, FROZEN).put("oracle_rounds", where, self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleManipulation(Shock):
    """Oracles show the market price times `factor` for so many rounds; 0 is to the end."""

    factor: float
    rounds: int = 0
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a price of nothing."""
        require_within("factor", self.factor, 0.0, 1_000.0, open_low=True)
        require_within("rounds", self.rounds, 0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Set the oracle wrong."""
        where = reach(stressed.universe, self)
        wrong = stressed.put("oracle_mode", where, MIS_SET).put("oracle_rounds", where, self.rounds)
        return wrong.scaled("oracle_factor", where, self.factor)


def _venues(universe: Universe, venue: str, chain: str) -> KeyColumn:
    """Codes of one venue, or of all on a chain."""
    if not chain:
        return np.array([universe.code("venue", venue)])
    found = np.flatnonzero([where == chain for where in universe.venue_chain])
    if not len(found):
        chains = tuple(sorted({*universe.venue_chain} - {""}))
        raise StateError(f"no venue is known to run on {chain!r}", hint=near(chain, chains))
    return found


def _require_one(**names: str) -> None:
    if sum(bool(name) for name in names.values()) != 1:
        given = ", ".join(f"{what} {name!r}" for what, name in names.items())
        raise StateError(f"exactly one of {' and '.join(names)} is needed, not {given}")
