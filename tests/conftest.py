"""What all tests share: hypothesis that runs the same everywhere, and small hand-made states."""

from __future__ import annotations

import os

import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from undertow.state import Universe

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("UNDERTOW_TEST_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

DAY = pl.datetime(2026, 1, 1, time_zone="UTC")


@pytest.fixture(scope="session")
def names() -> dict[str, pl.DataFrame]:
    """Two venues, four assets, five instruments, as tables."""
    assets = pl.DataFrame(
        {
            "asset": ["USDC", "ETH", "stETH", "BTC"],
            "symbol": ["USDC", "ETH", "stETH", "BTC"],
            "kind": ["stable", "native", "staked", "native"],
            "reference": [None, None, "ETH", None],
            "rate": [None, None, 1.15, None],
        }
    ).with_columns(ts=DAY)
    venues = pl.DataFrame(
        {
            "venue": ["lend", "perps"],
            "kind": ["lending", "perp"],
            "profile": ["aave-v3", "binance-usdm"],
        }
    ).with_columns(ts=DAY)
    rows = [
        ("lend:ETH", "lend", "ETH", "reserve", "ETH"),
        ("lend:USDC", "lend", "USDC", "reserve", "USDC"),
        ("lend:stETH", "lend", "stETH", "reserve", "stETH"),
        ("perps:USDC", "perps", "USDC", "cash", "USDC"),
        ("perps:ETH/USDC:USDC", "perps", "ETH/USDC:USDC", "perp", "ETH"),
    ]
    instruments = pl.DataFrame(
        rows, schema=["instrument", "venue", "symbol", "kind", "asset"], orient="row"
    ).with_columns(ts=DAY, inverse=False, contract_size=1.0)
    return {"assets": assets, "venues": venues, "instruments": instruments}


@pytest.fixture(scope="session")
def universe(names: dict[str, pl.DataFrame]) -> Universe:
    return Universe.from_frames(**names)


@pytest.fixture(scope="session")
def holdings() -> dict[str, pl.DataFrame]:
    """Three accounts, two of one owner, with six legs."""
    accounts = pl.DataFrame(
        {
            "account": [11, 12, 13],
            "venue": ["lend", "perps", "lend"],
            "label": ["0xa", "0xa", "0xb"],
            "margin_group": ["main", "cross", "main"],
            "mode": ["cross", "cross", "cross"],
            "category": [None, None, "eth-correlated"],
            "owner": [7, 7, None],
        }
    ).with_columns(ts=DAY)
    rows = [
        (11, "lend:ETH", "collateral", 10.0, None),
        (11, "lend:USDC", "debt", -12_000.0, None),
        (12, "perps:USDC", "cash", 3_000.0, None),
        (12, "perps:ETH/USDC:USDC", "perp", -4.0, 2_100.0),
        (13, "lend:stETH", "collateral", 5.0, None),
        (13, "lend:ETH", "debt", -4.5, None),
    ]
    positions = pl.DataFrame(
        rows, schema=["account", "instrument", "kind", "qty", "entry"], orient="row"
    ).with_columns(ts=DAY, source=pl.lit("test"), evidence=pl.lit("observed"))
    return {"accounts": accounts, "positions": positions}


@pytest.fixture(scope="session")
def prices() -> pl.DataFrame:
    rows = [
        ("lend:ETH", "oracle", 2_000.0),
        ("lend:USDC", "oracle", 1.0),
        ("lend:stETH", "oracle", 2_290.0),
        ("perps:USDC", "index", 1.0),
        ("perps:ETH/USDC:USDC", "mark", 2_005.0),
        ("perps:ETH/USDC:USDC", "index", 2_001.0),
    ]
    return pl.DataFrame(rows, schema=["instrument", "kind", "price"], orient="row").with_columns(
        ts=DAY, source=pl.lit("test")
    )
