"""What stands ready when accounts fail: funds of venues, and what owners hold outside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import MisalignedState, MissingPrice
from undertow.state.arrays import CodeColumn, FloatColumn, digest, frozen
from undertow.state.book import UNKNOWN_OWNER, Book
from undertow.state.market import Market
from undertow.state.present import believed, given_rows
from undertow.state.universe import Universe, encode

# Whose price stands for an asset held outright, first to last.
_PRICED_BY = ("spot", "cash", "reserve", "perp", "future")


@dataclass(frozen=True, eq=False)
class Funds:
    """What a venue has to take losses, and how much its liquidators can take at once, in USD."""

    universe: Universe
    # by venue; 0 where nobody says
    insurance: FloatColumn
    backstop: FloatColumn
    treasury: FloatColumn
    liquidator_capacity: FloatColumn  # by round of liquidation; inf where nobody says

    @classmethod
    def from_frames(cls, universe: Universe, venue_funds: Any = None) -> Funds:
        """Read the table of funds; of several rows for one fund the newest holds.

        Raises
        ------
        SchemaError
            When the table does not fit its declared columns.
        StateError
            When a venue is unknown.
        """
        rows = believed(given_rows("venue_funds", venue_funds), "venue", "kind")
        venues = pl.Series(universe.venues, dtype=pl.String)
        venue = encode(rows["venue"], venues, what="venue", source="venue_funds")
        amount, kind = rows["amount_usd"].to_numpy(), rows["kind"]
        columns = {}
        for name in schema.table("venue_funds").column("kind").choices:
            column = np.full(len(venues), np.inf if name == "liquidator_capacity" else 0.0)
            here = (kind == name).to_numpy()
            column[venue[here]] = amount[here]
            columns[name] = frozen(column)
        return cls(universe=universe, **columns)

    def __repr__(self) -> str:
        return (
            f"Funds(insurance {self.insurance.sum():,.0f} USD, "
            f"backstop {self.backstop.sum():,.0f} USD, "
            f"{int(np.isfinite(self.liquidator_capacity).sum())} venues with capacity)"
        )

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        columns = (self.insurance, self.backstop, self.treasury, self.liquidator_capacity)
        return digest(self.universe.digest, *columns)


@dataclass(frozen=True, eq=False)
class FreeAssets:
    """What owners of accounts hold outside any margin group, and could top up with.

    A row is one owner, asset and source, in that order. Owners without an account in the book are
    left out: they have nothing to top up.
    """

    universe: Universe
    owners: int  # how many the book has
    owner: CodeColumn  # row of `Book.owners`, never decreasing
    asset: CodeColumn
    qty: FloatColumn

    @classmethod
    def from_frames(cls, book: Book, free_assets: Any = None) -> FreeAssets:
        """Read the table of free assets for the owners of `book`.

        Raises
        ------
        SchemaError
            When the table does not fit its declared columns.
        StateError
            When an asset is unknown.
        """
        universe = book.universe
        rows = given_rows("free_assets", free_assets).sort("owner", "asset", "source")
        assets = pl.Series(universe.assets, dtype=pl.String)
        asset = encode(rows["asset"], assets, what="asset", source="free_assets")
        known = book.owners[book.owners != UNKNOWN_OWNER]  # ascending, before all others
        key = rows["owner"].to_numpy()
        at = np.searchsorted(known, key)
        here = np.zeros(len(key), dtype=np.bool_)
        inside = at < len(known)
        here[inside] = known[at[inside]] == key[inside]
        return cls(
            universe=universe,
            owners=len(book.owners),
            owner=frozen(at[here].astype(np.int32)),
            asset=frozen(asset[here]),
            qty=frozen(rows["qty"].to_numpy()[here]),
        )

    def __len__(self) -> int:
        return len(self.qty)

    def __repr__(self) -> str:
        return f"FreeAssets({len(self):,} of {len(np.unique(self.owner)):,} owners)"

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        return digest(self.universe.digest, str(self.owners), self.owner, self.asset, self.qty)

    def usd_by_owner(self, market: Market) -> FloatColumn:
        """What each owner of the book holds outside, in USD.

        Raises
        ------
        MisalignedState
            When `market` speaks of another universe.
        MissingPrice
            When something held has no price anywhere.
        """
        if market.universe != self.universe:
            raise MisalignedState(
                "the free assets and the market speak of different universes",
                hint="load both from one snapshot of the lake",
            )
        price = _asset_prices(market)
        lacking = np.unique(self.asset[(price[self.asset] == 0.0) & (self.qty > 0.0)])
        if len(lacking):
            names = ", ".join(self.universe.assets[code] for code in lacking[:3])
            raise MissingPrice(
                f"{names} are held outside but have no price",
                source="prices",
                hint="price an instrument on each",
            )
        value = self.qty * price[self.asset]
        return frozen(np.bincount(self.owner, weights=value, minlength=self.owners))


def _asset_prices(market: Market) -> FloatColumn:
    """USD for one unit of each asset, by the first priced instrument on it; 0 where none is."""
    universe = market.universe
    price = np.zeros(len(universe.assets))
    for kind in reversed(_PRICED_BY):
        code = schema.INSTRUMENT_KINDS.index(kind)
        inst = np.flatnonzero((universe.kind == code) & market.priced)[::-1]
        price[universe.asset_of[inst]] = market.spot[inst]
    return price
