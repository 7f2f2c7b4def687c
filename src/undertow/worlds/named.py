"""The worlds that have a name: a tiny one to do by hand, one to look around in, one to race on."""

from __future__ import annotations

from types import MappingProxyType

import polars as pl

from undertow import schema
from undertow.state.conform import empty
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.history import History
from undertow.worlds.names import SINCE_US, TS
from undertow.worlds.plants import Chain, Crowd, Hub, Loop, Plants
from undertow.worlds.population import Mix, Population
from undertow.worlds.sharing import Attribution
from undertow.worlds.tandem import Cycle, Response, Tandem, Unwinding
from undertow.worlds.ties import Episode, Ties
from undertow.worlds.truths import Truth
from undertow.worlds.world import WORLD_TABLES, World, build_world

_DEMO_STEPS = 90 * 24
_PERP = "hyperliquid:BTC/USDC:USDC"
_ETH_PERP, _DOGE_PERP = "hyperliquid:ETH/USDC:USDC", "binance-usdm:DOGE/USDT:USDT"


def demo_world(seed: int = 7) -> World:
    """A world to look around in: 2,000 accounts and then some, 12 assets, 8 venues, 90 days.

    Everything is planted in it: a custodian behind 40 % of claims, a vault looped four times, a
    wrapper three deep, a crowd of ETH longs, leverage that shares more than prices, a cycle, two
    dates at which three nodes in five (of three, two) unwind at once, and three spells of
    decoupling.
    """
    tandem = Tandem(
        correlation=Attribution(),
        noise=0.003,
        response=Response(up=-0.4, down=-0.8, lags=(-0.1,)),
        cycle=Cycle(first_trough=120, build_up=600, unwind=240, amplitude=0.5, stagger=48),
        unwindings=(Unwinding(900, strength=6.0), Unwinding(1_750, strength=8.0, length=3)),
    )
    ties = Ties(
        half_life=12.0,
        episodes=(
            Episode("hyperliquid:ETH/USDC:USDC", 700, size=0.03, length=36, beta=0.7, noise=0.004),
            Episode(
                "binance-usdm:DOGE/USDT:USDT", 1_300, size=-0.05, length=48, beta=0.6, noise=0.008
            ),
            Episode("stETH", 1_752, size=-0.06, length=72),
        ),
    )
    return build_world(
        seed,
        assets=12,
        venues=8,
        population=Population(2_000, minimum_usd=5_000.0),
        plants=Plants(hub=Hub(0.4), loop=Loop(), chain=Chain(), crowd=Crowd(share=0.05)),
        history=History(_DEMO_STEPS, tandem=tandem, ties=ties),
        depth_ratio=4.0,  # a fall of a tenth is carried on to two; thinner, any fall is a rout
    )


def bench_book(seed: int = 1, *, accounts: int = 1_000_000, slack: float = 3.0) -> World:
    """The world that speed is measured on: 64 assets, 3.3 legs an account, every owner known.

    60 % of the accounts hold one collateral against one debt, the rest 3 to 8 legs. With `slack` as
    it is, scenarios that move each asset by about 12 % breach 2 to 3 % of the accounts at once.
    """
    mix = Mix(pair=0.6, basket=0.18, supplier=0.0, single=0.0, cross=0.2, options=0.02)
    population = Population(
        accounts, mix=mix, slack=slack, loops=0.02, unknown_owners=0.0, shared_owners=0.15
    )
    return build_world(seed, assets=64, venues=14, population=population, depth_ratio=8.0)


def tiny_world() -> World:
    """Five accounts in round numbers, to be checked by hand.

    ETH is 2,000 USD, BTC 40,000, USDC 1; ETH counts for 0.8 of its value, BTC for 0.75, and a perp
    asks 2.5 % of its notional.

    | account | owner | holds                                     | cover  | asked  | closes at    |
    |---------|-------|-------------------------------------------|--------|--------|--------------|
    | 1       | 1     | 10 ETH against 10,000 USDC                | 16,000 | 10,000 | ETH 1,250    |
    | 2       | 1     | 5,000 USDC, long 1 BTC entered at 40,000  | 5,000  | 1,000  | BTC 35,897.4 |
    | 3       | 2     | 1 BTC against 20,000 USDC                 | 30,000 | 20,000 | BTC 26,666.7 |
    | 4       | 3     | 10,000 USDC, short 1 BTC entered at 40,000| 10,000 | 1,000  | BTC 48,780.5 |
    | 5       |       | 50,000 USDC supplied                      |        | 0      | never        |

    Owner 1 stands on both venues: a fall calls both. The pool holds 50,000 USDC of account 5 and
    has lent 30,000 of it.
    """
    since, ts = TS - SINCE_US, TS
    tables = {name: empty(schema.table(name)) for name in WORLD_TABLES}
    tables |= _tiny_names(since) | _tiny_terms(since) | _tiny_holdings(ts) | _tiny_market(ts)
    truth = Truth(seed=0, tail_index=None, minimum_usd=None)
    ordered = {name: tables[name] for name in WORLD_TABLES}
    return World(0, ts, MappingProxyType(ordered), truth)


def _tiny_names(since: int) -> dict[str, pl.DataFrame]:
    instruments = [
        ("aave-v3:BTC", "aave-v3", "BTC", "reserve", "BTC", None, None),
        ("aave-v3:ETH", "aave-v3", "ETH", "reserve", "ETH", None, None),
        ("aave-v3:USDC", "aave-v3", "USDC", "reserve", "USDC", None, None),
        (_PERP, "hyperliquid", "BTC/USDC:USDC", "perp", "BTC", "USDC", "USDC"),
        ("hyperliquid:USDC", "hyperliquid", "USDC", "cash", "USDC", None, None),
    ]
    return {
        "assets": from_tuples(
            "assets",
            ("asset", "symbol", "kind", "reference", "rate", "sector"),
            [
                ("BTC", "BTC", "native", None, None, "layer-1"),
                ("ETH", "ETH", "native", None, None, "layer-1"),
                ("USD", "USD", "fiat", None, None, "money"),
                ("USDC", "USDC", "stable", "USD", 1.0, "money"),
            ],
            ts=since,
        ),
        "venues": from_tuples(
            "venues",
            ("venue", "kind", "profile", "chain", "quote"),
            [
                ("aave-v3", "lending", "aave-v3", "ethereum", "USD"),
                ("hyperliquid", "perp", "hyperliquid", "hyperliquid", "USDC"),
            ],
            ts=since,
        ),
        "instruments": from_tuples(
            "instruments",
            ("instrument", "venue", "symbol", "kind", "asset", "quote", "settle"),
            instruments,
            inverse=False,
            contract_size=1.0,
            ts=since,
        ),
    }


def _tiny_terms(since: int) -> dict[str, pl.DataFrame]:
    lent = {"BTC": (0.7, 0.75, 0.05), "ETH": (0.75, 0.8, 0.05), "USDC": (0.7, 0.75, 0.05)}
    names = ("ltv", "liquidation_threshold", "liquidation_bonus")
    params = [
        ("aave-v3", f"aave-v3:{asset}", name, value)
        for asset, values in lent.items()
        for name, value in zip(names, values, strict=True)
    ]
    params += [
        ("hyperliquid", _PERP, "max_leverage", 20.0),
        ("hyperliquid", _PERP, "maintenance_margin_rate", 0.025),
    ]
    return {
        "risk_params": from_tuples(
            "risk_params", ("venue", "instrument", "name", "value"), params, ts=since
        ),
        "margin_brackets": rows(
            "margin_brackets",
            instrument=[_PERP],
            tier=0,
            min_notional=0.0,
            rate=0.025,
            amount=0.0,
            max_leverage=20.0,
            ts=since,
        ),
        "oracles": from_tuples(
            "oracles",
            ("venue", "instrument"),
            [("aave-v3", f"aave-v3:{asset}") for asset in lent],
            mode="market",
            ts=since,
        ),
        "venue_funds": from_tuples(
            "venue_funds",
            ("venue", "kind", "amount_usd"),
            [("aave-v3", "liquidator_capacity", 100_000.0), ("hyperliquid", "insurance", 1_000.0)],
            ts=since,
        ),
    }


def _tiny_holdings(ts: int) -> dict[str, pl.DataFrame]:
    accounts = [
        (1, "aave-v3", "0xa1", 1),
        (2, "hyperliquid", "0xa1", 1),
        (3, "aave-v3", "0xb2", 2),
        (4, "hyperliquid", "0xc3", 3),
        (5, "aave-v3", "0xd4", None),
    ]
    legs = [
        (1, "aave-v3:ETH", "collateral", 10.0, None),
        (1, "aave-v3:USDC", "debt", -10_000.0, None),
        (2, _PERP, "perp", 1.0, 40_000.0),
        (2, "hyperliquid:USDC", "cash", 5_000.0, None),
        (3, "aave-v3:BTC", "collateral", 1.0, None),
        (3, "aave-v3:USDC", "debt", -20_000.0, None),
        (4, _PERP, "perp", -1.0, 40_000.0),
        (4, "hyperliquid:USDC", "cash", 10_000.0, None),
        (5, "aave-v3:USDC", "supply", 50_000.0, None),
    ]
    owners = [(1, "owner 1", "fund"), (2, "owner 2", "person"), (3, "owner 3", "person")]
    return {
        "entities": from_tuples("entities", ("owner", "label", "kind"), owners, ts=ts),
        "accounts": from_tuples(
            "accounts",
            ("account", "venue", "label", "owner"),
            accounts,
            margin_group="cross",
            mode="cross",
            ts=ts,
        ),
        "positions": from_tuples(
            "positions", ("account", "instrument", "kind", "qty", "entry"), legs, ts=ts
        ),
        "free_assets": rows("free_assets", owner=[1], asset="USDC", qty=2_000.0, ts=ts),
        "claims": from_tuples(
            "claims",
            ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty"),
            [
                ("external", "issuer", "asset", "USDC", "USD", "backing", 65_000.0),
                ("owner", "1", "venue", "aave-v3", "USDC", "loan", 10_000.0),
                ("owner", "2", "venue", "aave-v3", "USDC", "loan", 20_000.0),
                ("venue", "aave-v3", "external", "account 5", "USDC", "deposit", 50_000.0),
                ("venue", "hyperliquid", "owner", "1", "USDC", "deposit", 5_000.0),
                ("venue", "hyperliquid", "owner", "3", "USDC", "deposit", 10_000.0),
            ],
            seniority=0,
            ts=ts,
        ),
    }


def _tiny_market(ts: int) -> dict[str, pl.DataFrame]:
    prices = [
        ("aave-v3:BTC", "oracle", 40_000.0),
        ("aave-v3:ETH", "oracle", 2_000.0),
        ("aave-v3:USDC", "oracle", 1.0),
        (_PERP, "mark", 40_000.0),
        (_PERP, "index", 40_000.0),
        ("hyperliquid:USDC", "index", 1.0),
    ]
    return {
        "prices": from_tuples("prices", ("instrument", "kind", "price"), prices, ts=ts),
        "depth": from_tuples(
            "depth",
            ("instrument", "side", "qty"),
            [(_PERP, "bid", 10.0), (_PERP, "ask", 10.0)],
            band=1.0,
            ts=ts,
        ),
        "open_interest": rows(
            "open_interest",
            instrument=[_PERP],
            contracts=1.0,
            base=1.0,
            usd=40_000.0,
            source_unit="base",
            ts=ts,
        ),
        "funding": rows(
            "funding",
            instrument=[_PERP],
            rate=1.25e-5,
            interval_us=3_600_000_000,
            rate_per_hour=1.25e-5,
            ts=ts,
        ),
        "reserves": from_tuples(
            "reserves",
            ("instrument", "supplied", "borrowed"),
            [
                ("aave-v3:BTC", 1.0, 0.0),
                ("aave-v3:ETH", 10.0, 0.0),
                ("aave-v3:USDC", 50_000.0, 30_000.0),
            ],
            ts=ts,
        ),
    }
