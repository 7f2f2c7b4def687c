"""What can be planted in a snapshot: a hub, a loop, a chain of wrappers, a crowd.

Planted accounts come on top of the population, which is the same with and without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state import FloatColumn
from undertow.state.book import CASH, COLLATERAL, CROSS, DEBT, PERP, SUPPLY
from undertow.worlds.catalogue import CUSTODIAN, AssetFacts
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.legs import Legs, in_lots
from undertow.worlds.names import Listing, Names
from undertow.worlds.seeds import require_known, require_within, stream
from undertow.worlds.terms import Terms, require_venue
from undertow.worlds.truths import ChainTruth, CrowdTruth, HubTruth, LoopTruth

_LENDER = "aave-v3"
# debtor kind, debtor, creditor kind, creditor, asset, kind, quantity
Claim = tuple[str, str, str, str, str, str, float]


@dataclass(frozen=True, slots=True)
class Hub:
    """A custodian that owes `share` of the value of all claims."""

    share: float = 0.4

    def __post_init__(self) -> None:
        """Refuse a share that no finite claim can have."""
        require_within("hub.share", self.share, 0.0, 1.0, open_low=True, open_high=True)


@dataclass(frozen=True, slots=True)
class Loop:
    """A vault whose shares back the loans that fill it: `base` deposited, `rho` lent on."""

    base: float = 1_000_000.0
    rho: float = 0.75
    asset: str = "USDC"

    def __post_init__(self) -> None:
        """Refuse a loop that has no end or that its lender would close at once."""
        require_within("loop.base", self.base, 0.0, open_low=True)
        require_within("loop.rho", self.rho, 0.0, 0.96, open_low=True)

    @property
    def share_asset(self) -> str:
        """Key of the vault's share."""
        return f"v{self.asset}"

    @property
    def threshold(self) -> float:
        """Liquidation threshold of the share: half way from `rho` to 1."""
        return (1.0 + self.rho) / 2.0


@dataclass(frozen=True, slots=True)
class Chain:
    """`depth` wrappers on top of each other, each worth `rate` of the one below."""

    depth: int = 3
    base: str = "ETH"
    rate: float = 1.05
    supply: float = 1_000.0  # of the top
    locked: float = 0.8  # share of each wrapper that the next one holds

    def __post_init__(self) -> None:
        """Refuse chains that cannot be built."""
        require_within("chain.depth", self.depth, 1, 12)
        require_within("chain.rate", self.rate, 0.0, 100.0, open_low=True)
        require_within("chain.supply", self.supply, 0.0, open_low=True)
        require_within("chain.locked", self.locked, 0.0, 1.0, open_low=True)

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Keys of the wrappers, the lowest first."""
        return tuple(f"{'w' * k}{self.base}" for k in range(1, self.depth + 1))


@dataclass(frozen=True, slots=True)
class Crowd:
    """`share` of all accounts on one side of one perp, to be closed within one narrow band."""

    share: float = 0.1
    asset: str = "ETH"
    side: str = "long"
    venue: str = "hyperliquid"
    distance: float = 0.12  # move of the price to the centre of the band
    band: float = 0.02  # width of the band, as a share of the price

    def __post_init__(self) -> None:
        """Refuse crowds that cannot stand."""
        require_within("crowd.share", self.share, 0.0, 1.0, open_low=True, open_high=True)
        require_within("crowd.distance", self.distance, 0.0, 0.9, open_low=True)
        widest = 2.0 * min(self.distance, 1.0 - self.distance)
        require_within("crowd.band", self.band, 0.0, 0.99 * widest)
        if self.side not in ("long", "short"):
            raise StateError(f"crowd.side was {self.side!r}; it must be long or short")


@dataclass(frozen=True, slots=True)
class Plants:
    """Everything that can be planted in a snapshot; None leaves it out."""

    hub: Hub | None = None
    loop: Loop | None = None
    chain: Chain | None = None
    crowd: Crowd | None = None

    def assets(self, known: dict[str, AssetFacts]) -> tuple[AssetFacts, ...]:
        """Assets beyond the catalogue."""
        extra: list[AssetFacts] = []
        if self.loop:
            require_known("asset", self.loop.asset, tuple(known))
            extra.append(_wrapper(self.loop.share_asset, self.loop.asset, 1.0, "vault_share"))
        if self.chain:
            require_known("asset", self.chain.base, tuple(known))
            below = self.chain.base
            for k, key in enumerate(self.chain.wrappers):
                kind = "wrapped" if k == 0 else "vault_share"
                extra.append(_wrapper(key, below, self.chain.rate, kind))
                below = key
        return tuple(extra)

    @property
    def listings(self) -> tuple[Listing, ...]:
        """Instruments beyond the catalogue."""
        listed = []
        if self.loop:
            share = self.loop.share_asset
            listed.append(Listing(_LENDER, share, "share", share))
        if self.chain:
            kind = "reserve" if self.chain.depth == 1 else "share"
            top = self.chain.wrappers[-1]
            listed.append(Listing(_LENDER, top, kind, top))
        return tuple(listed)

    @property
    def thresholds(self) -> dict[str, float]:
        """Liquidation thresholds of those instruments."""
        found = {}
        if self.loop:
            found[f"{_LENDER}:{self.loop.share_asset}"] = self.loop.threshold
        if self.chain:
            found[f"{_LENDER}:{self.chain.wrappers[-1]}"] = 0.72
        return found


class Planted(NamedTuple):
    """Accounts, legs and claims of one thing planted; `legs.row` counts within `accounts`."""

    accounts: pl.DataFrame
    entities: pl.DataFrame
    legs: Legs
    claims: list[Claim]


def plant_loop(names: Names, loop: Loop, key: int, owner: int) -> tuple[Planted, LoopTruth]:
    """A vault, a looper and the lender between them, at the end of all rounds.

    `claims` = base / (1 - rho) shares are owed by the vault to the looper, who owes rho of that to
    the lender, who owes all of it to the vault: of it only `base` is anything but a promise.
    """
    claims = loop.base / (1.0 - loop.rho)
    debt = claims - loop.base
    vault, looper = owner, owner + 1
    accounts = _account_rows(names, _LENDER, [key, key + 1], [vault, looper])
    reserve = names.code(_LENDER, loop.asset)
    share = names.code(_LENDER, loop.share_asset)
    legs = _legs(
        [(0, reserve, SUPPLY, claims), (1, share, COLLATERAL, claims), (1, reserve, DEBT, -debt)]
    )
    owed: list[Claim] = [
        ("venue", _LENDER, "asset", loop.share_asset, loop.asset, "deposit", claims),
        ("asset", loop.share_asset, "owner", str(looper), loop.share_asset, "vault_share", claims),
        ("owner", str(looper), "venue", _LENDER, loop.asset, "loan", debt),
    ]
    entities = rows(
        "entities", ts=names.ts, owner=[vault, looper], label=["Siphon Vault", "Siphon Looper"],
        kind=["vault", "fund"],
    )  # fmt: skip
    truth = LoopTruth(
        asset=loop.asset, share_asset=loop.share_asset, venue=_LENDER, rho=loop.rho,
        base_qty=loop.base, claims_qty=claims, debt_qty=debt, multiplier=claims / loop.base,
        limit=1.0 / (1.0 - loop.rho), vault_owner=vault, looper_owner=looper, vault_account=key,
        looper_account=key + 1,
    )  # fmt: skip
    return Planted(accounts, entities, legs, owed), truth


def plant_chain(names: Names, chain: Chain, key: int, owner: int) -> tuple[Planted, ChainTruth]:
    """Wrappers that hold each other, and one account that posts the top one."""
    assets = (chain.base, *chain.wrappers)
    supply = [chain.supply]
    for _ in range(chain.depth - 1):
        supply.append(supply[-1] * chain.rate / chain.locked)
    supply.reverse()
    held = [each * chain.rate for each in supply]
    owed: list[Claim] = [
        ("external", f"{chain.base} escrow", "asset", assets[1], chain.base, "backing", held[0])
    ]
    owed += [
        ("asset", assets[k], "asset", assets[k + 1], assets[k], "backing", held[k])
        for k in range(1, chain.depth)
    ]
    top, money = names.code(_LENDER, assets[-1]), names.code(_LENDER, "USDC")
    value = 0.5 * chain.supply * names.price_of(assets[-1])
    debt = 0.55 * value / names.price_of("USDC")
    legs = _legs([(0, top, COLLATERAL, 0.5 * chain.supply), (0, money, DEBT, -debt)])
    owed.append(
        ("asset", assets[-1], "owner", str(owner), assets[-1], "vault_share", 0.5 * chain.supply)
    )
    entities = rows("entities", ts=names.ts, owner=[owner], label=["Nested Fund"], kind=["fund"])
    truth = ChainTruth(
        assets=assets, depth=chain.depth, rates=(chain.rate,) * chain.depth,
        supply=tuple(supply), base_per_top=prod([chain.rate] * chain.depth), account=key,
    )  # fmt: skip
    accounts = _account_rows(names, _LENDER, [key], [owner])
    return Planted(accounts, entities, legs, owed), truth


def plant_crowd(
    seed: int,
    names: Names,
    terms: Terms,
    quotes: FloatColumn,
    crowd: Crowd,
    key: int,
    owner: int,
    others: int,
    present: Legs,
) -> tuple[Planted, CrowdTruth]:
    """Accounts with cash such that each closes at a price of its own within the band.

    With q signed, c in USD after the haircut and m the first maintenance rate, an account closes at
    p where c + q * (p - entry) = m * |q| * p. Sizes stay within the first bracket.
    """
    venue = require_venue(names, crowd.venue, "perp")
    inst = names.code(venue.key, f"{crowd.asset}/{venue.quote}:{venue.quote}")
    cash = names.code(venue.key, venue.quote)
    count = ceil(crowd.share / (1.0 - crowd.share) * others)
    rng = stream(seed, "crowd")
    sign = 1.0 if crowd.side == "long" else -1.0
    mark = float(quotes[inst])
    qty = in_lots(sign * rng.uniform(2_000.0, 40_000.0, count) / mark, np.full(count, mark))
    move = crowd.distance + crowd.band * (rng.random(count) - 0.5)
    close = mark * (1.0 - sign * move)
    rate = float(terms.rate[inst, 0])
    needed = rate * np.abs(qty) * close - qty * (close - mark)
    money = needed / (1.0 - float(terms.haircut[cash])) / names.price_of(venue.quote)
    account = np.arange(key, key + count)
    owners = np.arange(owner, owner + count)
    row = np.arange(count)
    legs = Legs(
        np.repeat(row, 2),
        np.tile(np.array([inst, cash], dtype=np.int32), count),
        np.tile(np.array([PERP, CASH], dtype=np.int8), count),
        np.stack([qty, money], axis=1).ravel(),
        np.tile([mark, np.nan], count),
    )
    before = present.row[(present.inst == inst) & (np.sign(present.qty) == sign)]
    entities = rows(
        "entities", ts=names.ts, owner=owners,
        label=pl.select(pl.format("owner {}", pl.Series(owners))).to_series(), kind="person",
    )  # fmt: skip
    truth = CrowdTruth(
        instrument=names.universe.instruments[inst], side=crowd.side,
        collateral=names.universe.instruments[cash], accounts=account,
        share=count / (count + others), side_share=count / (count + len(before)),
        qty=float(qty.sum()), notional_usd=float((np.abs(qty) * mark).sum()),
        liquidation_prices=close, distance=crowd.distance, band=crowd.band,
    )  # fmt: skip
    accounts = _account_rows(names, venue.key, list(account), list(owners))
    return Planted(accounts, entities, legs, []), truth


def plant_hub(
    names: Names, hub: Hub, claims: list[Claim]
) -> tuple[list[Claim], HubTruth]:
    """Custody claims of the trading venues on one custodian, `share` of the value of all."""
    others = sum(qty * names.price_of(asset) for *_, asset, _, qty in claims)
    wanted = hub.share / (1.0 - hub.share) * others
    keepers = [v.key for v in names.venues if v.kind != "lending"]
    weight = np.arange(len(keepers), 0.0, -1.0)
    coins = [key for key in ("BTC", "ETH", "USDC") if key in names.assets]
    new: list[Claim] = []
    for key, part in zip(keepers, weight / weight.sum(), strict=True):
        for coin in coins:
            qty = wanted * float(part) / len(coins) / names.price_of(coin)
            new.append(("venue", CUSTODIAN, "venue", key, coin, "custody", qty))
    owed = sum(qty * names.price_of(asset) for *_, asset, _, qty in new)
    creditors = tuple(f"venue:{key}" for key in sorted(keepers))
    return new, HubTruth(
        f"venue:{CUSTODIAN}", owed / (owed + others), owed, owed + others, creditors
    )


def claim_rows(
    names: Names, claims: list[Claim]
) -> pl.DataFrame:
    """Claims as rows of their table."""
    columns = ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty")
    frame = from_tuples("claims", columns, claims, ts=names.ts, seniority=0)
    return frame.sort(schema.table("claims").key)


def _wrapper(key: str, below: str, rate: float, kind: str) -> AssetFacts:
    return AssetFacts(
        key, kind, "planted", 0.0, 0.02, 0.0, below, rate, issuer=f"{key} issuer", custodian=None
    )


def _account_rows(names: Names, venue: str, keys: list[int], owners: list[int]) -> pl.DataFrame:
    label = pl.select(pl.format("u{}", pl.Series(keys))).to_series()
    return rows(
        "accounts", ts=names.ts, account=keys, venue=venue, label=label, margin_group="cross",
        mode=schema.MARGIN_MODES[CROSS], owner=owners,
    )  # fmt: skip


def _legs(tuples: list[tuple[int, int, int, float]]) -> Legs:
    row, inst, kind, qty = zip(*tuples, strict=True)
    return Legs(
        np.array(row, dtype=np.int64),
        np.array(inst, dtype=np.int32),
        np.array(kind, dtype=np.int8),
        np.array(qty, dtype=np.float64),
        np.full(len(qty), np.nan),
    )
