"""A small state in round numbers, with one asset of every way of hanging on others."""

from __future__ import annotations

from types import MappingProxyType

import polars as pl
import pytest

from undertow.rules.snapshot import Snapshot
from undertow.worlds import World, build_world, tiny_world
from undertow.worlds.frames import from_tuples

_ASSETS = [
    ("stETH", "stETH", "staked", "ETH", 1.0, "staked", "ethereum", "Lido", None),
    ("wstETH", "wstETH", "wrapped", "stETH", 1.2, "wrapped", "ethereum", "Lido", None),
    ("WBTC", "WBTC", "wrapped", "BTC", 1.0, "wrapped", "ethereum", "Keeper", "Keeper"),
    ("LP", "LP", "lp", None, None, "lp", "ethereum", None, None),
    ("ETH3L", "ETH3L", "other", "ETH", 0.01, "token", None, "Desk", None),
    ("ETH1S", "ETH1S", "other", "ETH", 0.01, "token", None, "Desk", None),
]
# 1 unit of LP: 1,000 ETH and 2 m USDC. ETH3L: 300 m USD of ETH, 200 m owed, so 100 m at 3 times.
# ETH1S: 200 m USD of USDC, 100 m of ETH owed, so 100 m at -1.
_CLAIMS = [
    ("venue", "pool", "asset", "LP", "ETH", "backing", 1_000.0),
    ("venue", "pool", "asset", "LP", "USDC", "backing", 2e6),
    ("external", "desk", "asset", "ETH3L", "ETH", "backing", 150_000.0),
    ("asset", "ETH3L", "external", "bank", "USDC", "loan", 2e8),
    ("external", "desk", "asset", "ETH1S", "USDC", "backing", 2e8),
    ("asset", "ETH1S", "external", "bank", "ETH", "loan", 50_000.0),
    ("external", "validators", "asset", "stETH", "ETH", "backing", 900.0),
    ("venue", "bridge", "asset", "stETH", "ETH", "bridge", 100.0),
    ("external", "Keeper", "asset", "WBTC", "BTC", "custody", 50.0),
    ("venue", "aave-v3", "asset", "vault", "USDC", "deposit", 30_000.0),
]
_PRICES = {"stETH": 1_980.0, "wstETH": 2_376.0, "WBTC": 40_000.0}


def _joined(world: World) -> World:
    tables, since = dict(world.tables), world.tables["assets"]["ts"][0]
    at = tables["prices"]["ts"][0]

    def add(
        table: str, columns: tuple[str, ...], rows: list[tuple[object, ...]], ts: object
    ) -> None:
        frame = from_tuples(table, columns, rows, ts=0).with_columns(
            pl.lit(ts).cast(tables[table]["ts"].dtype).alias("ts")
        )
        tables[table] = pl.concat([tables[table], frame.select(tables[table].columns)])

    add(
        "assets",
        ("asset", "symbol", "kind", "reference", "rate", "sector", "chain", "issuer", "custodian"),
        [*_ASSETS, ("vault", "vault", "vault_share", "USDC", 1.0, "vault", "ethereum", None, None)],
        since,
    )
    venues = [("pool", "spot", "ethereum"), ("bridge", "bridge", "ethereum")]
    add("venues", ("venue", "kind", "chain"), venues, since)
    listed = [*_PRICES, "LP", "ETH3L", "ETH1S", "vault"]
    names = [(f"aave-v3:{a}", "aave-v3", a, "reserve", a, False, 1.0) for a in listed]
    add(
        "instruments",
        ("instrument", "venue", "symbol", "kind", "asset", "inverse", "contract_size"),
        names,
        since,
    )
    prices = _PRICES | {"LP": 4e6, "ETH3L": 20.0, "ETH1S": 20.0, "vault": 1.0}
    rows = [(f"aave-v3:{a}", "oracle", price) for a, price in prices.items()]
    add("prices", ("instrument", "kind", "price"), rows, at)
    terms = [("ltv", 0.7), ("liquidation_threshold", 0.75), ("liquidation_bonus", 0.05)]
    add(
        "risk_params",
        ("venue", "instrument", "name", "value"),
        [("aave-v3", f"aave-v3:{a}", name, value) for a in listed for name, value in terms],
        since,
    )
    add(
        "claims",
        ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty"),
        _CLAIMS,
        at,
    )
    return World(0, world.ts, MappingProxyType(tables), world.truth)


@pytest.fixture(scope="session")
def wide_world() -> World:
    return _joined(tiny_world())


@pytest.fixture(scope="session")
def wide(wide_world: World) -> Snapshot:
    return wide_world.snapshot()


@pytest.fixture(scope="session")
def market_world() -> World:
    """Twelve assets on eight venues, with options and tied assets."""
    return build_world(7, accounts=60, assets=12, venues=8)
