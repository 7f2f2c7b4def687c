"""Venues, assets and instruments, and the integer codes that stand for them.

Codes are positions in the sorted list of keys, so they depend on the set of names alone and never
on the order in which rows arrived. Every noun of one snapshot speaks of one Universe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state.arrays import AnyColumn, BoolColumn, CodeColumn, FloatColumn, KeyColumn, frozen
from undertow.state.arrays import digest as digest_of
from undertow.state.conform import empty, require
from undertow.state.intake import as_frame

NONE = -1  # code of "there is none" in a reference to another key
NEVER = np.iinfo(np.int64).max  # expiry of what does not expire


@dataclass(frozen=True, eq=False)
class Universe:
    """The names of one snapshot and how they hang together.

    Two universes are equal when all their keys and references are.
    """

    assets: tuple[str, ...]
    venues: tuple[str, ...]
    instruments: tuple[str, ...]
    # by asset
    asset_kind: CodeColumn  # into schema.ASSET_KINDS
    reference: CodeColumn  # asset that it should follow, or NONE
    reference_rate: FloatColumn  # units of the reference that one unit should be worth
    sector: tuple[str, ...]  # empty words, here and below, where nobody said
    issuer: tuple[str, ...]  # who can mint or redeem it
    custodian: tuple[str, ...]  # who holds what backs it
    chain: tuple[str, ...]  # where it lives
    # by venue
    venue_kind: CodeColumn  # into schema.VENUE_KINDS
    profile: tuple[str, ...]  # rule profile; empty where the venue judges nothing
    venue_chain: tuple[str, ...]  # where it runs
    # by instrument
    venue_of: CodeColumn
    asset_of: CodeColumn
    quote_of: CodeColumn  # asset, or NONE
    settle_of: CodeColumn  # asset, or NONE
    kind: CodeColumn  # into schema.INSTRUMENT_KINDS
    inverse: BoolColumn
    contract_size: FloatColumn
    expiry: KeyColumn  # microseconds, or NEVER
    strike: FloatColumn  # 0 where it is no option
    is_call: BoolColumn
    _codes: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_frames(cls, assets: Any, venues: Any, instruments: Any) -> Universe:
        """Read the three tables of names and check that they refer to each other rightly.

        Raises
        ------
        SchemaError
            When a table does not fit its declared columns.
        StateError
            When a reference leads nowhere or an asset follows itself.
        """
        asset = require(schema.table("assets"), as_frame(assets)).sort("asset")
        venue = require(schema.table("venues"), as_frame(venues)).sort("venue")
        inst = require(schema.table("instruments"), as_frame(instruments)).sort("instrument")
        for name, frame in (("asset", asset), ("venue", venue), ("instrument", inst)):
            _refuse_repeats(name, frame[name])
        asset_keys, venue_keys = asset["asset"], venue["venue"]
        universe = cls(
            assets=tuple(asset_keys),
            venues=tuple(venue_keys),
            instruments=tuple(inst["instrument"]),
            asset_kind=_codes(asset["kind"], pl.Series(schema.ASSET_KINDS), "assets"),
            reference=_codes(asset["reference"], asset_keys, "assets"),
            reference_rate=frozen(asset["rate"].fill_null(1.0).to_numpy()),
            sector=_words(asset["sector"]),
            issuer=_words(asset["issuer"]),
            custodian=_words(asset["custodian"]),
            chain=_words(asset["chain"]),
            venue_kind=_codes(venue["kind"], pl.Series(schema.VENUE_KINDS), "venues"),
            profile=_words(venue["profile"]),
            venue_chain=_words(venue["chain"]),
            venue_of=_codes(inst["venue"], venue_keys, "instruments"),
            asset_of=_codes(inst["asset"], asset_keys, "instruments"),
            quote_of=_codes(inst["quote"], asset_keys, "instruments"),
            settle_of=_codes(inst["settle"], asset_keys, "instruments"),
            kind=_codes(inst["kind"], pl.Series(schema.INSTRUMENT_KINDS), "instruments"),
            inverse=frozen(inst["inverse"].to_numpy()),
            contract_size=frozen(inst["contract_size"].to_numpy()),
            expiry=frozen(inst["expiry"].to_physical().fill_null(NEVER).to_numpy()),
            strike=frozen(inst["strike"].fill_null(0.0).to_numpy()),
            is_call=frozen((inst["option_type"] == "call").fill_null(value=False).to_numpy()),
        )
        universe._check_references()
        _check_options(inst)
        return universe

    @classmethod
    def empty(cls) -> Universe:
        """A universe without names."""
        return cls.from_frames(
            *(empty(schema.table(t)) for t in ("assets", "venues", "instruments"))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Universe):
            return NotImplemented
        return self is other or self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        counts = (len(self.assets), len(self.venues), len(self.instruments))
        return "Universe({} assets, {} venues, {} instruments)".format(*counts)

    @cached_property
    def digest(self) -> str:
        """A hash of all keys and references."""
        by_asset = (*self.assets, *self.sector, *self.issuer, *self.custodian, *self.chain)
        by_venue = (*self.venues, *self.profile, *self.venue_chain)
        words = "\x00".join((*by_asset, *by_venue, *self.instruments))
        return digest_of(
            words,
            *(self.asset_kind, self.reference, self.reference_rate, self.venue_kind),
            *(self.venue_of, self.asset_of, self.quote_of, self.settle_of, self.kind),
            *(self.inverse, self.contract_size, self.expiry, self.strike, self.is_call),
        )

    @cached_property
    def stable(self) -> BoolColumn:
        """By asset: whether it is money (fiat, stable coin), which a market shock leaves alone."""
        kinds = [schema.ASSET_KINDS.index(kind) for kind in ("stable", "fiat")]
        return frozen(np.isin(self.asset_kind, kinds))

    @cached_property
    def root(self) -> CodeColumn:
        """By asset: what it follows all the way down; itself where it follows nothing."""
        root = np.arange(len(self.assets), dtype=np.int32)
        while True:
            further = np.where(self.reference[root] == NONE, root, self.reference[root])
            if (further == root).all():
                return frozen(root)
            root = further

    @cached_property
    def instrument_keys(self) -> pl.Series:
        """The instrument keys as a series, to look names up in bulk."""
        return pl.Series(self.instruments, dtype=pl.String)

    def code(self, what: str, key: str) -> int:
        """Code of one name: `what` is `asset`, `venue` or `instrument`.

        Raises
        ------
        StateError
            When there is no such name; the message offers the nearest.
        """
        names: tuple[str, ...] = getattr(self, f"{what}s")
        if what not in self._codes:
            self._codes[what] = {name: position for position, name in enumerate(names)}
        found = self._codes[what].get(key)
        if found is None:
            raise StateError(f"no {what} is called {key!r}", hint=_nearest(key, names))
        return found

    def _check_references(self) -> None:
        """Walk from asset to reference; a walk longer than the number of assets goes round."""
        at = self.reference.copy()
        for _ in range(len(self.assets)):
            at = np.where(at == NONE, NONE, self.reference[at])
        if (at == NONE).all():
            return
        name = self.assets[int(np.flatnonzero(at != NONE)[0])]
        raise StateError(
            f"the asset {name!r} follows itself through its references",
            source="assets",
            column="reference",
            hint="leave `reference` empty on one of them",
        )


def encode(values: pl.Series, keys: pl.Series, *, what: str, source: str) -> CodeColumn:
    """Codes of many names at once.

    Raises
    ------
    StateError
        At the first name that is not among `keys`, with its row.
    """
    codes = _lookup(values, keys)
    unknown = codes.is_null() & values.is_not_null()
    if unknown.any():
        row = int(unknown.arg_true()[0])
        raise StateError(
            f"no {what} is called {values[row]!r}",
            source=source,
            row=row + 1,
            column=what,
            hint=_nearest(str(values[row]), tuple(keys)),
        )
    found: CodeColumn = codes.fill_null(NONE).cast(pl.Int32).to_numpy()
    return found


def _lookup(values: pl.Series, keys: pl.Series) -> pl.Series:
    if keys.is_empty():
        return pl.repeat(None, len(values), dtype=pl.UInt32, eager=True)
    if values.dtype == pl.String:
        values = values.cast(pl.Enum(keys), strict=False)
        return values.to_physical()
    return values.cast(pl.String).cast(pl.Enum(keys), strict=False).to_physical()


def _codes(values: pl.Series, keys: pl.Series, source: str) -> AnyColumn:
    return frozen(encode(values, keys, what=values.name, source=source))


def _words(column: pl.Series) -> tuple[str, ...]:
    return tuple(column.fill_null(""))


def _refuse_repeats(name: str, keys: pl.Series) -> None:
    repeated = keys.filter(keys.is_duplicated())
    if len(repeated):
        raise StateError(
            f"{repeated[0]!r} stands more than once",
            source=f"{name}s",
            column=name,
            hint="keep the row that holds at the instant you want",
        )


def _check_options(inst: pl.DataFrame) -> None:
    needs = (pl.col("kind") == "option") & (
        pl.col("strike").is_null() | pl.col("expiry").is_null() | pl.col("option_type").is_null()
    )
    lacking = inst.filter(needs)
    if lacking.height:
        raise StateError(
            f"the option {lacking['instrument'][0]!r} lacks its strike, expiry or type",
            source="instruments",
            hint="an option needs all three",
        )


def _nearest(key: str, names: tuple[str, ...]) -> str:
    import difflib

    near = difflib.get_close_matches(key, names[:20_000], n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"{len(names)} names are known"
