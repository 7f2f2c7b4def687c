"""What is planted in a snapshot becomes accounts, legs, claims, and a truth about each."""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.kernels.margin import TESTED
from undertow.rules.terms import Rules
from undertow.state import FloatColumn
from undertow.state.book import CASH, COLLATERAL, CROSS, DEBT, ISOLATED, PERP, SUPPLY
from undertow.worlds.catalogue import CUSTODIAN, VenueFacts
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.legs import Legs, in_lots
from undertow.worlds.names import Names
from undertow.worlds.plants import LENDER, Chain, Crowd, Hub, Loop
from undertow.worlds.seeds import stream
from undertow.worlds.terms import Terms, require_venue
from undertow.worlds.truths import ChainTruth, CrowdTruth, HubTruth, LoopTruth

# debtor kind, debtor, creditor kind, creditor, asset, kind, quantity
Claim = tuple[str, str, str, str, str, str, float]


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
    accounts = _account_rows(names, LENDER, [key, key + 1], [vault, looper])
    reserve = names.code(LENDER, loop.asset)
    share = names.code(LENDER, loop.share_asset)
    legs = _legs(
        [(0, reserve, SUPPLY, claims), (1, share, COLLATERAL, claims), (1, reserve, DEBT, -debt)]
    )
    owed: list[Claim] = [
        ("venue", LENDER, "asset", loop.share_asset, loop.asset, "deposit", claims),
        ("asset", loop.share_asset, "owner", str(looper), loop.share_asset, "vault_share", claims),
        ("owner", str(looper), "venue", LENDER, loop.asset, "loan", debt),
    ]
    entities = rows(
        "entities", ts=names.ts, owner=[vault, looper], label=["Siphon Vault", "Siphon Looper"],
        kind=["vault", "fund"],
    )  # fmt: skip
    truth = LoopTruth(
        asset=loop.asset, share_asset=loop.share_asset, venue=LENDER, rho=loop.rho,
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
    top, money = names.code(LENDER, assets[-1]), names.code(LENDER, "USDC")
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
    accounts = _account_rows(names, LENDER, [key], [owner])
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

    With q signed and c in USD after the haircut, an account closes at p where

        c + q * (p - entry) = M(|q| * b) + fee * |q| * b

    with M the venue's maintenance, fee its taker fee where the profile asks for that of the exit,
    and b the price that the profile asks maintenance at: p, or the entry.
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
    needed = _asked_of(names, terms, inst, np.abs(qty), close, mark) - qty * (close - mark)
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
    accounts = trading_account_rows(names, venue, crowd.asset, list(account), list(owners))
    return Planted(accounts, entities, legs, []), truth


def _asked_of(
    names: Names, terms: Terms, inst: int, size: FloatColumn, close: FloatColumn, entry: float
) -> FloatColumn:
    """Maintenance of positions in a perp at their `close`, by the profile of its venue."""
    rules = Rules.from_frames(names.universe, names.ts, terms.risk_params([]), terms.brackets).terms
    tier = slice(int(rules.start[inst]), int(rules.start[inst + 1]))
    notional = size * (close if rules.basis[inst] == TESTED else entry)
    tiers = np.outer(notional, rules.rate[tier]) - rules.amount[tier]
    asked: FloatColumn = tiers.max(axis=1) + rules.closing_fee[inst] * notional
    return asked


def plant_hub(names: Names, hub: Hub, claims: list[Claim]) -> tuple[list[Claim], HubTruth]:
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


def claim_rows(names: Names, claims: list[Claim]) -> pl.DataFrame:
    """Claims as rows of their table."""
    columns = ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty")
    frame = from_tuples("claims", columns, claims, ts=names.ts, seniority=0)
    return frame.sort(schema.table("claims").key)


def trading_account_rows(
    names: Names, venue: VenueFacts, asset: str, keys: list[int], owners: list[int]
) -> pl.DataFrame:
    """Accounts that hold a perp on `asset`, in the margin mode that their venue has."""
    if venue.isolates:
        return _account_rows(names, venue.key, keys, owners, ISOLATED, f"isolated:{asset}")
    return _account_rows(names, venue.key, keys, owners)


def _account_rows(
    names: Names,
    venue: str,
    keys: list[int],
    owners: list[int],
    mode: int = CROSS,
    group: str = "cross",
) -> pl.DataFrame:
    label = pl.select(pl.format("u{}", pl.Series(keys))).to_series()
    return rows(
        "accounts", ts=names.ts, account=keys, venue=venue, label=label, margin_group=group,
        mode=schema.MARGIN_MODES[mode], owner=owners,
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
