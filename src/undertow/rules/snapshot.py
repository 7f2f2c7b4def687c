"""One instant, whole: what is held, owed and worth, and the rules that judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undertow.errors import MisalignedState
from undertow.rules.terms import Rules
from undertow.state import (
    Book,
    Claims,
    FreeAssets,
    Funds,
    Liquidity,
    Market,
    Oracles,
    Universe,
)
from undertow.state.arrays import digest

# The tables that make a snapshot, and whether one can do without.
TABLES = {
    "assets": True,
    "venues": True,
    "instruments": True,
    "accounts": True,
    "positions": True,
    "prices": True,
    "depth": False,
    "implied_vols": False,
    "claims": False,
    "risk_params": False,
    "margin_brackets": False,
    "oracles": False,
    "venue_funds": False,
    "free_assets": False,
    "pools": False,
    "volumes": False,
    "reserves": False,
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state at one instant with its rules; what a shock changes."""

    ts: int  # microseconds, UTC
    book: Book
    claims: Claims
    market: Market
    rules: Rules
    liquidity: Liquidity
    oracles: Oracles
    funds: Funds
    free: FreeAssets

    def __post_init__(self) -> None:
        for noun in self._parts[1:]:
            if noun.universe != self.book.universe:
                raise MisalignedState(
                    f"the book and the {type(noun).__name__.lower()} speak of different universes",
                    hint="load both from one snapshot of the lake",
                )
        self.market.require_prices(self.book.inst)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], ts: int) -> Snapshot:
        """Build every noun from tables that hold what is known at `ts`.

        Raises
        ------
        SchemaError, StateError, RuleError
            When a table does not fit, or tables contradict each other.
        MissingPrice
            When something that is held has no price.
        """
        universe = Universe.from_frames(tables["assets"], tables["venues"], tables["instruments"])
        book = Book.from_frames(universe, tables["accounts"], tables["positions"])
        return cls(
            ts=ts,
            book=book,
            claims=Claims.from_frames(universe, tables.get("claims")),
            market=Market.from_frames(
                universe, tables["prices"], tables.get("depth"), tables.get("implied_vols")
            ),
            rules=Rules.from_frames(
                universe, ts, tables.get("risk_params"), tables.get("margin_brackets")
            ),
            liquidity=Liquidity.from_frames(
                universe,
                ts,
                depth=tables.get("depth"),
                pools=tables.get("pools"),
                volumes=tables.get("volumes"),
                reserves=tables.get("reserves"),
            ),
            oracles=Oracles.from_frames(universe, tables.get("oracles")),
            funds=Funds.from_frames(universe, tables.get("venue_funds")),
            free=FreeAssets.from_frames(book, tables.get("free_assets")),
        )

    def __repr__(self) -> str:
        return f"Snapshot({self.book!r}, {self.market!r}, {self.claims!r})"

    @property
    def universe(self) -> Universe:
        """The names that all parts share."""
        return self.book.universe

    @cached_property
    def digest(self) -> str:
        """A hash of everything in it, for `inputs_hash` of what is computed from it."""
        return digest(str(self.ts), *(part.digest for part in self._parts))

    @property
    def _parts(
        self,
    ) -> tuple[Book, Claims, Market, Rules, Liquidity, Oracles, Funds, FreeAssets]:
        nouns = (self.book, self.claims, self.market, self.rules)
        return *nouns, self.liquidity, self.oracles, self.funds, self.free
