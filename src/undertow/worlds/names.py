"""The names of a world: assets, venues, instruments, the codes of them, and prices at rest.

Which names there are depends on the sizes asked for and on what is planted, never on the seed.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from math import floor, log10

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state import CodeColumn, FloatColumn, Universe
from undertow.state.arrays import frozen
from undertow.worlds.catalogue import (
    POOL,
    SPOT,
    SUPPORT,
    VENUES,
    AssetFacts,
    VenueFacts,
    catalogue,
)
from undertow.worlds.frames import from_tuples
from undertow.worlds.seeds import require_within, stream

DAY_US = 86_400_000_000
TS = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z, when worlds stand unless told otherwise
SINCE_US = 1_095 * DAY_US  # names and rules are three years older than the snapshot
LEAST_ASSETS, LEAST_VENUES = 6, 2

_ON_EVM = ("ethereum", "arbitrum", "optimism", "avalanche", "bnb")
_STRIKES = (0.7, 0.85, 1.0, 1.15, 1.3)
_EXPIRY_DAYS = (30, 90)
_INSTRUMENT = (
    "instrument", "venue", "symbol", "kind", "asset", "quote", "settle", "inverse",
    "contract_size", "expiry", "strike", "option_type",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument beyond the catalogue, for something planted."""

    venue: str
    symbol: str
    kind: str
    asset: str


@dataclass(frozen=True, eq=False)
class Names:
    """All names, as tables and as codes, with the price of every asset in USD."""

    ts: int
    assets: dict[str, AssetFacts]
    venues: tuple[VenueFacts, ...]  # those with accounts
    tables: dict[str, pl.DataFrame]
    universe: Universe
    price: FloatColumn  # by asset

    def instruments(self, venue: str, kind: str) -> CodeColumn:
        """Codes of a venue's instruments of one kind, in key order."""
        universe = self.universe
        of_venue = universe.venue_of == universe.code("venue", venue)
        of_kind = universe.kind == schema.INSTRUMENT_KINDS.index(kind)
        found: CodeColumn = np.flatnonzero(of_venue & of_kind).astype(np.int32)
        return found

    def facts(self, inst: int) -> AssetFacts:
        """What is known of the asset of an instrument."""
        return self.assets[self.universe.assets[self.universe.asset_of[inst]]]

    def price_of(self, asset: str) -> float:
        """Price of one asset."""
        return float(self.price[self.universe.code("asset", asset)])

    def code(self, venue: str, symbol: str) -> int:
        """Code of one instrument."""
        return self.universe.code("instrument", f"{venue}:{symbol}")


def name_world(
    seed: int,
    *,
    assets: int,
    venues: int,
    ts: int = TS,
    extra_assets: tuple[AssetFacts, ...] = (),
    listings: tuple[Listing, ...] = (),
) -> Names:
    """Names and resting prices of a world of some size.

    Raises
    ------
    StateError
        When a size is impossible.
    """
    require_within("assets", assets, LEAST_ASSETS, 1_000)
    require_within("venues", venues, LEAST_VENUES, len(VENUES))
    facts = {each.key: each for each in catalogue(assets)}
    with_accounts = tuple(_settled(v, facts) for v in VENUES[:venues] if _fits(v, facts))
    facts |= {each.key: each for each in extra_assets}
    known = {each.key for each in (*with_accounts, *SUPPORT)}
    for listing in listings:
        if listing.venue not in known:
            raise StateError(
                f"{listing.symbol} is to be listed on {listing.venue!r}, which this world has not",
                hint=f"there are {', '.join(sorted(known))}",
            )
    tuples = [row for venue in with_accounts for row in _listed(venue, facts, assets, ts)]
    tuples += [
        _plain(x.venue, x.symbol, x.kind, x.asset) for x in listings
    ] + _spot_markets(facts)  # fmt: skip
    since = ts - SINCE_US
    tables = {
        "assets": _asset_rows(facts, since),
        "venues": _venue_rows((*with_accounts, *SUPPORT), since),
        "instruments": from_tuples("instruments", _INSTRUMENT, tuples, ts=since).sort("instrument"),
    }
    universe = Universe.from_frames(**tables)
    price = resting_prices(seed, facts)
    by_asset = frozen(np.array([price[key] for key in universe.assets]))
    return Names(ts, facts, with_accounts, tables, universe, by_asset)


def resting_prices(seed: int, facts: dict[str, AssetFacts]) -> dict[str, float]:
    """Price of every asset in USD: a native coin's own, a tied one's from its reference.

    A coin's is its catalogue price times exp(0.1 z); a tied asset is worth rate times its
    reference, times exp(0.0005 z).
    """
    price: dict[str, float] = {}
    for key, each in facts.items():  # a reference always stands before what is tied to it
        draw = float(stream(seed, f"price of {key}").standard_normal())
        if each.reference is None:
            price[key] = each.price * (1.0 if each.kind == "fiat" else float(np.exp(0.1 * draw)))
        else:
            rate = 1.0 if each.rate is None else each.rate
            price[key] = rate * price[each.reference] * float(np.exp(0.0005 * draw))
    return price


def _fits(venue: VenueFacts, facts: dict[str, AssetFacts]) -> bool:
    return venue.key != "liquity-v1" or "LUSD" in facts


def _settled(venue: VenueFacts, facts: dict[str, AssetFacts]) -> VenueFacts:
    """The venue with a quote asset that this world has."""
    if venue.quote in facts:
        return venue
    changed = {name: getattr(venue, name) for name in venue.__dataclass_fields__}
    return VenueFacts(**{**changed, "quote": "USDC"})


def lendable(venue: str, facts: dict[str, AssetFacts]) -> tuple[str, ...]:
    """Assets with a reserve at a lending venue."""
    if venue == "liquity-v1":
        return ("ETH", "LUSD")
    wide = venue == "tidepool"
    return tuple(
        key for key, each in facts.items()
        if each.kind in ("native", "stable", "staked", "wrapped")
        and key != "LUSD"
        and each.sector not in ("meme", "planted")
        and (wide or each.chain in _ON_EVM)
        and (venue != "aave-v2" or each.weight >= 1.5)
    )  # fmt: skip


def _listed(
    venue: VenueFacts, facts: dict[str, AssetFacts], assets: int, ts: int
) -> list[tuple[object, ...]]:
    if venue.kind == "lending":
        return [_plain(venue.key, key, "reserve", key) for key in lendable(venue.key, facts)]
    money = dict.fromkeys((venue.quote, "USDC", *(c for c in venue.coins if c in facts)))
    rows = [_plain(venue.key, key, "cash", key) for key in money]
    traded = [key for key, each in facts.items() if each.traded]
    listed = traded[: max(2, round(venue.listed * len(traded)))]
    quote = venue.quote
    rows += [
        (f"{venue.key}:{a}/{quote}:{quote}", venue.key, f"{a}/{quote}:{quote}", "perp", a, quote,
         quote, False, 1.0, None, None, None)
        for a in listed
    ]  # fmt: skip
    rows += [
        (f"{venue.key}:{a}/USD:{a}", venue.key, f"{a}/USD:{a}", "perp", a, "USD", a, True,
         100.0 if a == "BTC" else 10.0, None, None, None)
        for a in venue.inverse if a in facts
    ]  # fmt: skip
    if venue.kind == "options":
        rows += [row for a in listed for row in _options(venue, facts[a], ts)]
    return rows


def _options(venue: VenueFacts, asset: AssetFacts, ts: int) -> list[tuple[object, ...]]:
    """Calls and puts around the money, expiring at 08:00 UTC."""
    rows: list[tuple[object, ...]] = []
    for days in _EXPIRY_DAYS:
        expiry = ts // DAY_US * DAY_US + days * DAY_US + DAY_US // 3
        date = dt.datetime.fromtimestamp(expiry / 1e6, dt.UTC).strftime("%y%m%d")
        for share in _STRIKES:
            strike = _two_digits(share * asset.price)
            for kind in ("call", "put"):
                quote = venue.quote
                symbol = f"{asset.key}/{quote}:{quote}-{date}-{strike:g}-{kind[0].upper()}"
                rows.append(
                    (f"{venue.key}:{symbol}", venue.key, symbol, "option", asset.key, quote, quote,
                     False, 1.0, expiry, strike, kind)
                )  # fmt: skip
    return rows


def _two_digits(value: float) -> float:
    """`value` to two significant digits, as venues space strikes."""
    return round(value, 1 - floor(log10(value)))


def _plain(venue: str, symbol: str, kind: str, asset: str) -> tuple[object, ...]:
    return (f"{venue}:{symbol}", venue, symbol, kind, asset, *[None] * 2, False, 1.0, *[None] * 3)


def _spot_markets(facts: dict[str, AssetFacts]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for key, each in facts.items():
        if each.kind == "fiat":
            continue
        rows.append(
            (f"{SPOT}:{key}/USD", SPOT, f"{key}/USD", "spot", key, "USD", "USD", False, 1.0,
             None, None, None)
        )  # fmt: skip
        if each.chain in _ON_EVM and key != "USDC":
            rows.append(
                (f"{POOL}:{key}/USDC", POOL, f"{key}/USDC", "spot", key, "USDC", "USDC", False,
                 1.0, None, None, None)
            )  # fmt: skip
    return rows


def _asset_rows(facts: dict[str, AssetFacts], since: int) -> pl.DataFrame:
    names = (
        "asset", "symbol", "kind", "reference", "rate", "chain", "decimals", "issuer",
        "custodian", "sector",
    )  # fmt: skip
    tuples = [
        (f.key, f.key, f.kind, f.reference, f.rate, f.chain, 6 if f.kind == "stable" else 18,
         f.issuer, f.custodian, f.sector)
        for f in facts.values()
    ]  # fmt: skip
    return from_tuples("assets", names, tuples, ts=since).sort("asset")


def _venue_rows(venues: tuple[VenueFacts, ...], since: int) -> pl.DataFrame:
    names = ("venue", "kind", "profile", "chain", "quote")
    tuples = [(v.key, v.kind, v.profile, v.chain, v.quote) for v in venues]
    return from_tuples("venues", names, tuples, ts=since).sort("venue")
