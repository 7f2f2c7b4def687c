"""The collapse of November 2025 on Morpho, Ethereum alone, as frames of `validate.lenders`.

The instant is midnight at which 2 November begins, UTC: the daily tables of allocations and share
prices have a row there, and it is the last that lies a whole day before 3 November, the first day
of which any source tells the loss. No table that says how it ended was asked.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from recorded import recorded
from undertow.validate.lenders import rebuild_market

FOLDER = "morpho_xusd_contagion"
INSTANT = dt.datetime(2025, 11, 2, tzinfo=dt.UTC)
DAY_BEFORE = INSTANT - dt.timedelta(days=1)
LAST_HOUR = dt.datetime(2025, 11, 15, tzinfo=dt.UTC)  # of the hourly tables
THRESHOLD = 0.915
USDC, TOKEN, SHARE = 1e6, 1e18, 1e12  # least units; shares have six digits more than the asset
FIRST_VAULTS = "0xA9c3D3a366466Fa809d1Ae982Fb2c46E5fC41101"  # version 1.0; 1.1 keeps lost assets
KINDS = {
    "MarketSupply": "supply",
    "MarketWithdraw": "withdraw",
    "MarketBorrow": "borrow",
    "MarketRepay": "repay",
    "MarketSupplyCollateral": "add_collateral",
    "MarketWithdrawCollateral": "take_collateral",
}


def table(name: str) -> pl.DataFrame:
    return recorded(f"{FOLDER}/{name}")


@dataclass(frozen=True)
class Record:
    key: str
    positions: pl.DataFrame
    acts: pl.DataFrame
    totals: pl.DataFrame  # hourly


def read_market() -> Record:
    """The sdeUSD/USDC market: positions of February 2026, its log, its hourly totals."""
    log = table("eth_sdeusd_transactions")
    key = log["market_unique_key"][0]
    hourly = table("eth_sdeusd_market_1h").select(
        "ts",
        supplied=pl.col("supply_assets") / USDC,
        borrowed=pl.col("borrow_assets") / USDC,
        collateral=pl.col("collateral_assets").cast(pl.Float64) / TOKEN,
    )
    kind = pl.col("type").replace_strict(KINDS)
    moves_collateral = kind.str.ends_with("collateral")
    acts = log.select(
        "ts",
        user="user_address",
        kind=kind,
        assets=pl.col("assets").cast(pl.Float64)
        / pl.when(moves_collateral).then(TOKEN).otherwise(USDC),
        shares=pl.col("shares") / SHARE,
    )
    positions = _positions(key)
    # What closings repaid after the log's end, about 1 USDC, is not told in shares: at the index
    # of the last hour it is right to a hundred-millionth of all shares.
    per_share = hourly["borrowed"][-1] / positions["borrow_shares"].sum()
    end = pl.col("ts") > acts["ts"].max()
    closings = table("liquidation_events").filter(end).rename({"user_address": "user"})
    repaid = closings.select(
        "ts", "user", kind=pl.lit("repaid_by_liquidator"),
        assets=pl.col("repaid_assets") / USDC,
        shares=pl.col("repaid_assets") / USDC / per_share,
    )  # fmt: skip
    seized = closings.select(
        "ts", "user", kind=pl.lit("seized"),
        assets=pl.col("seized_assets").cast(pl.Float64) / TOKEN,
        shares=pl.lit(None, pl.Float64),
    )  # fmt: skip
    return Record(key, positions, pl.concat([acts, repaid, seized]).sort("ts"), hourly)


def _positions(key: str) -> pl.DataFrame:
    """Final holdings; a user's shares are its part of all assets, times all shares."""
    total = table("markets").filter(pl.col("market_id") == key).row(0, named=True)
    own = table("borrower_positions").filter(pl.col("market_unique_key") == key)

    def shares(side: str) -> pl.Expr:
        part = pl.col(f"{side}_assets_raw") / pl.col(f"{side}_assets_raw").sum()
        return part * float(total[f"{side}_shares"]) / SHARE

    return own.select(
        user="user_address",
        supply_shares=shares("supply"),
        borrow_shares=shares("borrow"),
        collateral=pl.col("collateral_raw").cast(pl.Float64) / TOKEN,
    )


def collateral_price(at: dt.datetime) -> float:
    """USD of one sdeUSD at the stamp, over that of one USDC in the market's own table."""
    hour = table("eth_sdeusd_market_1h").filter(pl.col("ts") == at).row(0, named=True)
    return float(
        hour["collateral_usd"] / float(hour["collateral_assets"]) * TOKEN / usd_of_loan(at)
    )


def share_prices() -> pl.DataFrame:
    """Hourly and daily share prices and assets of all vaults: vault, ts, price, assets in USD."""
    frames = [
        table(f"vault_share_price_{bar}").select(
            "ts", vault="vault_address", price="share_price", assets="total_assets_usd"
        )
        for bar in ("1h", "1d")
    ]
    return pl.concat(frames).unique(["vault", "ts"], keep="first", maintain_order=True)


def allocations(at: dt.datetime) -> pl.DataFrame:
    """What each vault had lent to each affected market: vault, market, allocated in USD."""
    return (
        table("vault_market_allocation")
        .filter((pl.col("ts") == at) & (pl.col("supply_assets_usd") > 0.0))
        .select(vault="vault_address", market="market_unique_key", allocated="supply_assets_usd")
    )


def caps(at: dt.datetime, market: str) -> pl.DataFrame:
    """The most that each vault may supply to a market: vault, cap in USD."""
    listed = (pl.col("ts") == at) & (pl.col("market_unique_key") == market)
    return (
        table("vault_market_allocation")
        .filter(listed)
        .select(vault="vault_address", cap="supply_cap_usd")
    )


def shown_claims(record: Record, at: dt.datetime) -> pl.DataFrame:
    """Claims on affected markets that vaults count in their assets: vault, claim in USD.

    A vault of the first version counts what the table lists, and stops when it writes it off. A
    later one goes on counting lost assets after the market is removed, so its claim is rolled.
    """
    listed = allocations(at)
    first = pl.col("vault").is_in(writes_off())
    elsewhere = pl.col("market") != record.key
    rolled = rebuild_market(record.positions, record.acts, record.totals, at).lenders
    kept = rolled.select(vault="user", claim=pl.col("claim") * usd_of_loan(at))
    return (
        pl.concat(
            [
                listed.filter(first | elsewhere).select("vault", claim="allocated"),
                kept.filter(~first),
            ]
        )
        .group_by("vault")
        .agg(pl.col("claim").sum())
    )


def usd_of_loan(at: dt.datetime) -> float:
    """USD of one USDC, as the market's own table counts it."""
    hour = table("eth_sdeusd_market_1h").filter(pl.col("ts") == at).row(0, named=True)
    return float(hour["supply_usd"] / hour["supply_assets"] * USDC)


def vault_names() -> dict[str, str]:
    named = table("vaults").select("vault_address", "vault_name").unique()
    return dict(named.iter_rows())


def writes_off() -> list[str]:
    """Vaults of the first version, the only ones whose share price falls with what is lost."""
    old = table("vaults").filter(pl.col("factory_address") == FIRST_VAULTS)
    return old["vault_address"].unique().sort().to_list()


def fixed_oracles() -> list[str]:
    """Markets whose oracle shows one price for ever; a market's oracle cannot be changed."""
    fixed = table("bad_debt_by_market").filter("oracle_is_hardcoded")
    return fixed["market_unique_key"].sort().to_list()


def market_states(at: dt.datetime) -> pl.DataFrame:
    """All affected markets at a stamp: market, pair, supplied, borrowed (USD), utilisation."""
    return (
        table("market_utilization_1h")
        .filter(pl.col("ts") == at)
        .select(
            market="market_unique_key",
            pair=pl.col("collateral_symbol") + "/" + pl.col("loan_symbol"),
            supplied="supply_assets_usd",
            borrowed="borrow_assets_usd",
            utilisation="utilization",
        )
        .sort("supplied", descending=True)
    )


def first_locked(at: dt.datetime, *, full: float = 0.999) -> pl.DataFrame:
    """First hour after `at` in which each market was lent out to the last: market, locked."""
    later = table("market_utilization_1h").filter(
        (pl.col("ts") > at) & (pl.col("utilization") >= full)
    )
    return later.group_by(market="market_unique_key").agg(locked=pl.col("ts").min())
