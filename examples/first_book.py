"""From hand-made tables to a judged book: the least that undertow needs, and what crowding adds.

A lending account and a perp account of one owner, on two venues. Run it as it is:
`python examples/first_book.py`; it works in a folder that it removes again.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

import undertow as ut
from undertow.measures import crowding

NOW = datetime(2026, 1, 31, tzinfo=UTC)

TABLES = {
    "assets": pl.DataFrame({"asset": ["ETH", "USDC"], "kind": ["native", "stable"]}).with_columns(
        symbol="asset"
    ),
    # The profile says how a venue judges; `undertow schema venues`, docs/methods/rules.md.
    "venues": pl.DataFrame(
        {
            "venue": ["lend", "perps"],
            "kind": ["lending", "perp"],
            "profile": ["aave-v3", "binance-usdm"],
        }
    ),
    # What is lent is a `reserve`, margin is `cash`, a perp is a perp.
    "instruments": pl.DataFrame(
        {
            "instrument": ["lend:ETH", "lend:USDC", "perps:USDC", "perps:ETH/USDC:USDC"],
            "venue": ["lend", "lend", "perps", "perps"],
            "symbol": ["ETH", "USDC", "USDC", "ETH/USDC:USDC"],
            "kind": ["reserve", "reserve", "cash", "perp"],
            "asset": ["ETH", "USDC", "USDC", "ETH"],
        }
    ).with_columns(inverse=False, contract_size=1.0),
    "accounts": pl.DataFrame(
        {"account": [1, 2], "venue": ["lend", "perps"], "label": ["0xa1", "0xa1"], "owner": [1, 1]}
    ).with_columns(margin_group=pl.lit("cross"), mode=pl.lit("cross")),
    "positions": pl.DataFrame(
        {
            "account": [1, 1, 2, 2],
            "instrument": ["lend:ETH", "lend:USDC", "perps:USDC", "perps:ETH/USDC:USDC"],
            "kind": ["collateral", "debt", "cash", "perp"],
            "qty": [10.0, -12_000.0, 5_000.0, 8.0],
            "entry": [None, None, None, 2_050.0],
        }
    ).with_columns(source=pl.lit("me"), evidence=pl.lit("observed")),
    # A lender reads its oracle, a perp is judged at its mark.
    "prices": pl.DataFrame(
        {
            "instrument": ["lend:ETH", "lend:USDC", "perps:USDC", "perps:ETH/USDC:USDC"],
            "kind": ["oracle", "oracle", "index", "mark"],
            "price": [2_000.0, 1.0, 1.0, 2_001.0],
        }
    ).with_columns(source=pl.lit("me")),
    "risk_params": pl.DataFrame(
        {
            "venue": ["lend", "perps"],
            "instrument": ["lend:ETH", "perps:ETH/USDC:USDC"],
            "name": ["liquidation_threshold", "maintenance_margin_rate"],
            "value": [0.83, 0.01],
        }
    ),
    # Margins need no more. What sales do to prices takes depth, how long they take volumes, and
    # how leveraged is too leveraged a volatility; of contracts and spot, never of a reserve.
    "depth": pl.DataFrame({"side": ["bid", "ask"], "qty": [400.0, 400.0]}).with_columns(
        instrument=pl.lit("perps:ETH/USDC:USDC"), band=1.0, source=pl.lit("me")
    ),
    "volumes": pl.DataFrame({"instrument": ["perps:ETH/USDC:USDC"], "base": [90.0]}).with_columns(
        ts=pl.lit(NOW - timedelta(days=1)), interval_us=86_400_000_000, source=pl.lit("me")
    ),
    "implied_vols": pl.DataFrame({"venue": ["perps"], "asset": ["ETH"], "vol": [0.7]}).with_columns(
        source=pl.lit("me")
    ),
}


def main() -> None:
    """Write the tables as files, ingest them, and judge what the lake then holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        folder.mkdir()
        for table, rows in TABLES.items():
            dated = rows if "ts" in rows.columns else rows.with_columns(ts=pl.lit(NOW))
            dated.write_parquet(folder / f"{table}.parquet")
        lake = ut.Lake.create(Path(name) / "lake")
        report = ut.ingest_tables(lake, [folder], now=int(NOW.timestamp() * 1_000_000))
        print(f"{sum(file.added for file in report.files)} rows in {len(report.files)} tables")
        snapshot = ut.load_snapshot(lake)
        judged = ut.margins(snapshot)
        print(judged.to_polars().select("account", "equity", "leverage", "health", "fall"))
        for measure in (crowding.map, crowding.saturation, crowding.exit):
            study = measure(snapshot)
            print(f"{study.name}: {study.says[0]}")


if __name__ == "__main__":
    main()
