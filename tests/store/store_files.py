"""Small honest files that the tests of the store begin with, and a look at a lake's folder."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from undertow.store import Lake, ingest_tables

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
STAMP = "2026-01-01T00:00:00Z"
SECOND = 1_000_000

ASSETS = f"""ts,asset,symbol,kind
{STAMP},ETH,ETH,native
{STAMP},USDC,USDC,stable
"""
VENUES = f"""ts,venue,kind,profile
{STAMP},lend,lending,aave-v3
{STAMP},perps,perp,binance-usdm
"""
INSTRUMENTS = f"""ts,instrument,venue,symbol,kind,asset,inverse,contract_size
{STAMP},lend:ETH,lend,ETH,reserve,ETH,false,1
{STAMP},lend:USDC,lend,USDC,reserve,USDC,false,1
{STAMP},perps:ETH,perps,ETH/USDC:USDC,perp,ETH,false,1
"""
ACCOUNTS = f"""ts,account,venue,label,margin_group,mode
{STAMP},1,lend,0xa,cross,cross
{STAMP},2,lend,0xb,cross,cross
{STAMP},3,perps,desk,cross,cross
"""
POSITIONS = f"""ts,account,instrument,kind,qty,entry,source,evidence
{STAMP},1,lend:ETH,collateral,10,,chain,observed
{STAMP},1,lend:USDC,debt,-9000,,chain,observed
{STAMP},2,lend:ETH,collateral,5,,chain,observed
{STAMP},3,perps:ETH,perp,-4,2500,desk,observed
"""
PRICES_HEADER = "ts,instrument,kind,price,source"
PRICES = f"""{PRICES_HEADER}
{STAMP},lend:ETH,oracle,2500,feed
{STAMP},perps:ETH,mark,2501,feed
"""


def write_reference(folder: Path) -> list[Path]:
    """Assets, venues, instruments and accounts as CSV files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    texts = {
        "assets": ASSETS,
        "venues": VENUES,
        "instruments": INSTRUMENTS,
        "accounts": ACCOUNTS,
    }
    for name, text in texts.items():
        path = folder / f"{name}.csv"
        path.write_text(text)
        paths.append(path)
    return paths


def reference_lake(folder: Path) -> Lake:
    """A lake that knows two assets, two venues, three instruments and three accounts."""
    lake = Lake.at(folder / "lake")
    ingest_tables(lake, write_reference(folder / "reference"), now=T0)
    return lake


def listing(folder: Path) -> dict[str, int]:
    """Every file under `folder` with its size: two equal listings mean nothing was touched."""
    return {
        str(p.relative_to(folder)): p.stat().st_size
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def prices_frame(rows: list[tuple[int, str, float]], source: str = "feed") -> pl.DataFrame:
    """Oracle prices: (ts, instrument, price)."""
    frame = pl.DataFrame(rows, schema=["ts", "instrument", "price"], orient="row")
    return frame.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.col("price").cast(pl.Float64),
        kind=pl.lit("oracle"),
        source=pl.lit(source),
    )
