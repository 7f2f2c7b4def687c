"""Recorded accounts and their liquidations, as frames; nothing of them is kept in the project."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from shared import shared_folder

UTC = pl.Datetime("us", "UTC")
SPELLED = {"SUSD": "sUSD", "XSUSHI": "xSUSHI", "PAX": "USDP"}  # one token, two spellings


def recorded(name: str) -> pl.DataFrame:
    """A file of the shared data, its times in microseconds; absence is said by `shared_folder`."""
    frame = pl.read_parquet(shared_folder() / "data" / f"{name}.parquet")
    return frame.with_columns(pl.col("ts").cast(UTC)) if "ts" in frame.columns else frame


@dataclass(frozen=True)
class Lender:
    states: pl.DataFrame
    positions: pl.DataFrame
    closings: pl.DataFrame
    prices: pl.DataFrame
    terms: pl.DataFrame  # of a later day: symbol, threshold, bonus


@dataclass(frozen=True)
class PerpVenue:
    trades: pl.DataFrame
    ledger: pl.DataFrame
    closings: pl.DataFrame
    bars: pl.DataFrame


def read_lender() -> Lender:
    lowered = pl.col("user").str.to_lowercase()
    terms = recorded("aave_v2_liquidations/reserve_params_2021").select(
        pl.col("symbol").replace(SPELLED),
        threshold=pl.col("liquidation_threshold_bps") / 1e4,
        bonus=(pl.col("liquidation_bonus_bps") / 1e4 - 1.0).clip(0.0),
    )
    return Lender(
        recorded("aave_v2_account_histories/account_states").with_columns(lowered),
        recorded("aave_v2_account_histories/account_positions").with_columns(lowered),
        recorded("aave_v2_liquidations/liquidations").with_columns(
            lowered, pl.col("collateral", "debt").replace(SPELLED)
        ),
        recorded("token_prices_hourly/token_prices_1h"),
        terms,
    )


def read_perps() -> PerpVenue:
    trades = recorded("hyperliquid_2023_accounts/non_mm_trades")
    coins, day = trades["coin"].unique(), pl.duration(days=1)
    during = pl.col("ts").is_between(trades["ts"].min() - day, trades["ts"].max())
    bars = recorded("binance_perp_4h/perp_4h").with_columns(
        pl.col("symbol").str.strip_suffix("USDT")
    )
    return PerpVenue(
        trades,
        recorded("hyperliquid_2023_accounts/non_mm_ledger_updates"),
        recorded("hyperliquid_2023_accounts/liquidations"),
        bars.filter(during & pl.col("symbol").is_in(coins.implode())),
    )


def read_tiers() -> pl.DataFrame:
    unbounded = pl.col("max_notional") >= 2.0**62
    return recorded("binance_margin_tiers/tiers_monthly").with_columns(
        pl.col("date").str.to_date(),
        max_notional=pl.when(unbounded).then(None).otherwise("max_notional"),
    )
