"""Recorded signals and troubles, day by day, as known at the end of each day.

Everything here was fixed before any result was seen, and no date was chosen. A day is stamped with
its end. What was withheld of a record is missing, and no difference reaches over it.

Troubles. Aave: an hour is hot when the USD seized as collateral from the reserves of the record
exceeds the 99 % quantile of all hours before it (of 90 days at least), as a share of what is
supplied; or, told otherwise, one hundredth of a per cent of what is supplied. Perpetuals: a day is
hot when its log return is below -2.5 deviations of the 60 days before it; or when the price falls
by more than 8 %. The basket is the mean log return of all perpetuals of the record.

Signals, of which a high value is to warn: growth of open interest in units that no price moves,
over 7 and 30 days; funding, the mean of 7 days; utilisation of the stablecoins and of WETH, both
versions of Aave together, its level and its change over 7 days. Naive: volatility of 7 days of
four-hour returns; how far the price is below its highest close of 7 days.

Added once the answers were seen, as levels drift over these years: ranks in the year before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from recorded import recorded
from undertow.validate.alarms import trailing_rank, walk_forward_alarms
from undertow.validate.episodes import DAY_US, Episodes, episodes

HORIZON_US = 7 * DAY_US
COIN_MARGINED = "USD_PERP"
STABLES = ("DAI", "USDC", "USDT", "USDE")
RUN_IN = pl.duration(days=30)  # first days of a reserve, in which it is filled
PAST_HOURS, HOT_HOURS, HOT_SHARE = 90 * 24, 0.01, 1e-4
DEVIATIONS, PAST_DAYS, FALL = 2.5, 60, 0.08


@dataclass(frozen=True)
class Trouble:
    name: str
    coin: str  # whose price is looked at
    begun: Episodes
    signals: tuple[str, ...]


def end_of_day(name: str = "ts") -> pl.Expr:
    """The end of the day that an instant closes or lies in."""
    return (pl.col(name) - pl.duration(microseconds=1)).dt.truncate("1d") + pl.duration(days=1)


@cache
def days() -> pl.DataFrame:
    """Every day from the first bar to the last, missing ones too."""
    bars = recorded("binance_perp_4h/perp_4h")["ts"].dt.truncate("1d") + pl.duration(days=1)
    found: pl.DataFrame = pl.select(ts=pl.datetime_range(bars.min(), bars.max(), "1d"))
    return found


@cache
def closes() -> pl.DataFrame:
    """(days, coins) log price of the last bar of each day that has all six."""
    bars = recorded("binance_perp_4h/perp_4h").sort("ts")
    coin = pl.col("symbol").str.strip_suffix("USDT").alias("coin")
    ended = (pl.col("ts").dt.truncate("1d") + pl.duration(days=1)).alias("day")
    daily = bars.group_by(coin, ended).agg(pl.col("close").last().log(), bars=pl.len())
    wide = daily.filter(pl.col("bars") == 6).pivot("coin", index="day", values="close")
    return days().join(wide, left_on="ts", right_on="day", how="left", maintain_order="left")


@cache
def fine_returns() -> pl.DataFrame:
    """Sums of squares of four-hour log returns of BTC and ETH, and of the basket, by day."""
    bars = recorded("binance_perp_4h/perp_4h").sort("symbol", "ts")
    step = pl.col("close").log().diff().over("symbol")
    whole = pl.col("ts").diff().over("symbol") == pl.duration(hours=4)
    steps = bars.with_columns(step=pl.when(whole).then(step)).drop_nulls("step")
    basket = steps.group_by("ts").agg(pl.col("step").mean()).with_columns(coin=pl.lit("basket"))
    alone = steps.with_columns(coin=pl.col("symbol").str.strip_suffix("USDT"))
    both = pl.concat([alone.select("ts", "step", "coin"), basket.select("ts", "step", "coin")])
    day = (pl.col("ts").dt.truncate("1d") + pl.duration(days=1)).alias("day")
    squares = both.group_by("coin", day).agg((pl.col("step") ** 2).sum(), n=pl.len())
    wide = squares.filter(pl.col("n") == 6).pivot("coin", index="day", values="step")
    return days().join(wide, left_on="ts", right_on="day", how="left", maintain_order="left")


def basket_steps() -> np.ndarray:
    """Mean log return of a day over the perpetuals that were there."""
    steps = np.diff(closes().drop("ts").to_numpy(), axis=0, prepend=np.nan)
    seen = ~np.isnan(steps)
    total = np.where(seen, steps, 0.0).sum(axis=1)
    return np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.nan)


def daily_steps(coin: str) -> np.ndarray:
    if coin == "basket":
        return basket_steps()
    return np.diff(closes()[coin].to_numpy(), prepend=np.nan)


def volatility(coin: str) -> np.ndarray:
    """Deviation of four-hour returns over 7 days, a day."""
    return fine_returns().select(pl.col(coin).rolling_mean(7).sqrt())[coin].to_numpy()


def recent_fall(coin: str) -> np.ndarray:
    """How far below its highest close of the last 7 days; of the basket, its summed returns."""
    if coin == "basket":
        steps = basket_steps()
        paths = np.lib.stride_tricks.sliding_window_view(steps, 7).cumsum(axis=1)
        low = np.maximum(paths.max(axis=1), 0.0) - paths[:, -1]
        return np.r_[np.full(6, np.nan), low]
    level = closes()[coin]
    return (level.rolling_max(8) - level).to_numpy()


@cache
def units() -> pl.DataFrame:
    """(days, coins) log open interest in units that no price moves; the long records."""
    price = closes().unpivot(index="ts", variable_name="coin", value_name="log_price")
    rows = recorded("open_interest_daily/open_interest_1d").with_columns(
        ts=pl.col("ts") + pl.duration(days=1)
    )
    rows = rows.filter(pl.col("ts").min().over("coin") < pl.datetime(2022, 1, 1, time_zone="UTC"))
    joined = rows.filter(pl.col("oi_close") > 0.0).join(price, on=["coin", "ts"], how="inner")
    coin_margined = pl.col("coinalyze_symbol").str.contains(COIN_MARGINED)
    level = pl.col("oi_close").log() - pl.when(coin_margined).then(0.0).otherwise("log_price")
    wide = joined.with_columns(level=level).pivot("coin", index="ts", values="level")
    return days().join(wide, on="ts", how="left", maintain_order="left")


def open_interest_growth(coin: str, over: int) -> np.ndarray:
    """Log growth over so many days; of the basket, the median over coins."""
    grown = units().drop("ts").select(pl.all().diff(over)).to_numpy()
    if coin != "basket":
        return grown[:, units().columns.index(coin) - 1]
    some = (~np.isnan(grown)).sum(axis=1) >= 10
    out = np.full(len(grown), np.nan)
    out[some] = np.nanmedian(grown[some], axis=1)
    return out


@cache
def funding() -> np.ndarray:
    """Mean rate of bitcoin's perpetual over the 21 payments of 7 days."""
    paid = recorded("binance_funding_8h/funding_8h").filter(pl.col("symbol") == "BTCUSDT")
    by_day = paid.group_by(day=end_of_day()).agg(pl.col("funding_rate").sum(), n=pl.len())
    daily = days().join(by_day, left_on="ts", right_on="day", how="left", maintain_order="left")
    whole = pl.when(pl.col("n") == 3).then("funding_rate")
    return daily.select(rate=whole.rolling_mean(7) / 3.0)["rate"].to_numpy()


@cache
def reserves() -> pl.DataFrame:
    """Supplied and borrowed of each market at its last update of each day, kept for 3 days."""
    hours = recorded("aave_reserves_hourly/aave_reserves_1h").sort("ts")
    lent = (pl.col("borrowed_usd") > 0.0) & (pl.col("borrowed_usd") <= pl.col("supplied_usd"))
    filled = pl.col("ts") >= pl.col("ts").min().over("market") + RUN_IN
    seen = hours.filter(lent & ~pl.col("stale") & filled).group_by("market", day=end_of_day())
    daily = seen.agg(pl.col("supplied_usd", "borrowed_usd").last()).rename({"day": "ts"})
    grid = days().join(daily.select("market").unique(), how="cross")
    return (
        grid.join(daily, on=["ts", "market"], how="left")
        .sort("market", "ts")
        .with_columns(pl.col("supplied_usd", "borrowed_usd").forward_fill(3).over("market"))
    )


@cache
def utilisation(kind: str) -> np.ndarray:
    """Borrowed over supplied, sums over both versions: a proxy, and no leverage."""
    names = list(STABLES) if kind == "stables" else [kind]
    chosen = pl.col("market").str.split("_").list.last().is_in(names)
    both = pl.col("supplied_usd", "borrowed_usd").sum()
    sums = reserves().filter(chosen).drop_nulls().group_by("ts").agg(both)
    daily = days().join(sums, on="ts", how="left", maintain_order="left")
    return daily.select(level=pl.col("borrowed_usd") / pl.col("supplied_usd"))["level"].to_numpy()


def signal(name: str, coin: str) -> np.ndarray:
    """A column of the days; NaN where it was not known."""
    if name.endswith(RANKED):
        return trailing_rank(signal(name.removesuffix(RANKED), coin))
    found: np.ndarray = {
        "volatility": lambda: volatility(coin),
        "recent fall": lambda: recent_fall(coin),
        "funding": funding,
        "OI growth, 7 days": lambda: open_interest_growth(coin, 7),
        "OI growth, 30 days": lambda: open_interest_growth(coin, 30),
        "OI growth of all, 7 days": lambda: open_interest_growth("basket", 7),
        "utilisation of stables": lambda: utilisation("stables"),
        "utilisation of WETH": lambda: utilisation("WETH"),
        "utilisation of stables, change": lambda: change(utilisation("stables")),
        "utilisation of WETH, change": lambda: change(utilisation("WETH")),
    }[name]()
    return np.asarray(found, dtype=np.float64)


def change(level: np.ndarray) -> np.ndarray:
    return np.r_[np.full(7, np.nan), level[7:] - level[:-7]]


RANKED = ", rank in its year"
NAIVE = ("volatility", "funding", "recent fall")
GROWTH = ("OI growth, 7 days", "OI growth, 30 days")
AAVE = (
    *GROWTH,
    "OI growth of all, 7 days",
    "utilisation of stables",
    "utilisation of stables, change",
    "utilisation of WETH",
    "utilisation of WETH, change",
)


def aave_hours() -> tuple[np.ndarray, np.ndarray]:
    """Every hour of the record, and the share of what is supplied that was seized in it."""
    hours = recorded("aave_reserves_hourly/aave_reserves_1h")
    fresh = pl.when(~pl.col("stale")).then("liquidated_usd").otherwise(0.0)
    sums = hours.group_by("ts").agg(
        (fresh.sum() / pl.col("supplied_usd").sum()).alias("share"), pl.col("supplied_usd").sum()
    )
    seen = sums.filter(pl.col("supplied_usd") > 1e6).sort("ts")
    return seen["ts"].to_physical().to_numpy(), seen["share"].to_numpy()


def aave_troubles() -> list[Trouble]:
    ts, share = aave_hours()
    top = walk_forward_alarms(share, budget=HOT_HOURS, run_in=PAST_HOURS)
    told = top.heard
    return [
        Trouble("Aave, top 1 % of hours", "ETH", episodes(ts[told], top.on[told]), AAVE),
        Trouble("Aave, 1 bp of supply", "ETH", episodes(ts, share > HOT_SHARE), AAVE),
    ]


def listed_trouble() -> Trouble:
    """Of the list of single liquidations of 2021: hours by WETH seized, top 1 % of those before."""
    events = recorded("aave_v2_liquidations/liquidations").filter(pl.col("collateral") == "WETH")
    hour = pl.col("ts").dt.truncate("1h") + pl.duration(hours=1)
    sums = events.group_by(hour.alias("hour")).agg(pl.col("collateral_amount").sum())
    first, last = sums["hour"].min(), sums["hour"].max()
    grid = pl.select(hour=pl.datetime_range(first, last, "1h"))
    each = grid.join(sums, on="hour", how="left").sort("hour").fill_null(0.0)
    amount = each["collateral_amount"].to_numpy()
    top = walk_forward_alarms(amount, budget=HOT_HOURS, run_in=PAST_HOURS)
    ts = each["hour"].to_physical().to_numpy()
    return Trouble("Aave v2, list of 2021", "ETH",
                   episodes(ts[top.heard], top.on[top.heard]), AAVE)  # fmt: skip


def falls(coin: str) -> list[Trouble]:
    """Days of large falls of a coin, by either rule."""
    step, ts = daily_steps(coin), days()["ts"].to_physical().to_numpy()
    past = pl.Series(step).fill_nan(None).rolling_std(PAST_DAYS, min_samples=PAST_DAYS // 2)
    spread = past.shift(1).fill_null(float("nan")).to_numpy()
    seen, usual = ~np.isnan(step), ~np.isnan(step) & ~np.isnan(spread)
    deep = step < -DEVIATIONS * spread
    large = np.expm1(step) < -FALL
    return [
        Trouble(f"{coin}, 2.5 deviations", coin, episodes(ts[usual], deep[usual]), GROWTH),
        Trouble(f"{coin}, 8 %", coin, episodes(ts[seen], large[seen]), GROWTH),
    ]


def troubles() -> list[Trouble]:
    """All that is asked about, in order."""
    perps = [each for coin in ("BTC", "ETH", "basket") for each in falls(coin)]
    return [*aave_troubles(), listed_trouble(), *perps]
