"""What owners did with loans and positions, read off records as spans of watch.

Each reader gives rows of one shape: `owner`, `ts` at which the span began, `span` in days, `act`
(what ended it; empty where nothing did) and what was known at `ts`: `log_health`, `log_vol`,
`log_size` or what the record has in their place. `acts` makes rates of them. Frames come from the
caller; no file is opened.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

MOVED = 0.01  # of what is held or owed: interest within a span is far less
RESIZED = 0.1  # of a trader's positions: less is trading about
LEAST_USD = 10.0  # held and owed; less is what was forgotten
_DAY_US = 86_400_000_000
_YEAR_DAYS = 365.0

# Ethereum since proof of stake: one slot takes 12 s and few are missed, so time goes with blocks.
_MERGE = (15_537_394, 1_663_224_179)  # block and seconds of the first block
_DENCUN = (19_426_587, 1_710_338_135)  # and of the upgrade of March 2024


def block_times(blocks: pl.Series) -> pl.Series:
    """UTC instants of Ethereum blocks after September 2022, along a line through two known ones.

    Missed slots make it wrong by hours, a day at most by the middle of 2024.
    """
    pace = (_DENCUN[1] - _MERGE[1]) / (_DENCUN[0] - _MERGE[0])
    seconds = _MERGE[1] + (blocks.cast(pl.Float64) - _MERGE[0]) * pace
    return (seconds * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))


def trailing_vol(bars: pl.DataFrame, *, days: float, bar_days: float) -> pl.DataFrame:
    """Annualised volatility of closes (`ts` of the open, `symbol`, `close`) over the last `days`.

    `ts` in the answer is when it was known, at the end of the last bar, and `close` that bar's.
    """
    window = max(int(days / bar_days), 2)
    step = pl.col("close").log().diff().over("symbol")
    spread = step.rolling_std(window, min_samples=max(window // 2, 2)).over("symbol")
    return (
        bars.sort("symbol", "ts")
        .with_columns(vol=spread * math.sqrt(_YEAR_DAYS / bar_days))
        .select(pl.col("ts") + pl.duration(microseconds=int(bar_days * _DAY_US)),
                "symbol", "close", "vol")
    )  # fmt: skip


def lender_periods(
    states: pl.DataFrame, positions: pl.DataFrame, closings: pl.DataFrame, vols: pl.DataFrame
) -> pl.DataFrame:
    """Spans between two recorded states of borrowers; the tables are those of `borrowers`.

    Quantities are compared at the prices of the first state. `act` is `forced` where anybody closed
    the account within the span, whatever else was done; else `delever` where both sides shrank,
    `repay` where the debt alone did, `top_up` where collateral grew and the debt did not, `raise`
    where debt grew or collateral shrank. `vols` is of one market for all, from `trailing_vol`.
    """
    later = pl.col("block", "ts").shift(-1).over("user").name.prefix("next_")
    spans = states.sort("user", "ts").with_columns(later).filter(pl.col("next_ts").is_not_null())
    sides = _changes(spans, positions)
    known = spans.join(sides, on=["user", "block"], maintain_order="left")
    known = known.with_columns(forced=_any_within(known, closings))
    held, owed = pl.col("collateral"), pl.col("debt")
    more, less = (
        pl.col("collateral_change") > MOVED * held,
        pl.col("collateral_change") < -MOVED * held,
    )
    grew, shrank = pl.col("debt_change") > MOVED * owed, pl.col("debt_change") < -MOVED * owed
    act = (
        pl.when("forced").then(pl.lit("forced"))
        .when(shrank & less).then(pl.lit("delever"))
        .when(shrank).then(pl.lit("repay"))
        .when(more & ~grew).then(pl.lit("top_up"))
        .when(grew | less).then(pl.lit("raise"))
    )  # fmt: skip
    rows = known.filter((held > LEAST_USD) & (owed > LEAST_USD)).select(
        pl.col("user").alias("owner"), "ts",
        span=(pl.col("next_ts") - pl.col("ts")).dt.total_microseconds() / _DAY_US,
        act=act, health="health_factor", size="debt", symbol=pl.lit(vols["symbol"][0]),
    )  # fmt: skip
    return _logs(_with_vol(rows, vols))


def trader_periods(
    spells: pl.DataFrame,
    holdings: pl.DataFrame,
    ledger: pl.DataFrame,
    closings: pl.DataFrame,
    bars: pl.DataFrame,
    vols: pl.DataFrame,
    *,
    maintenance: float,
    bar_days: float,
) -> pl.DataFrame:
    """Bars at whose start an account of `traders.rebuild_traders` held something.

    `health` is equity over `maintenance` of what is held. `act` is `forced` where the venue closed
    the account within the bar; else `top_up` where money came in, `delever` where positions at the
    end are smaller by more than a tenth, for whatever reason, and `raise` where they are larger or
    money went out. Bars of coins without prices, and of accounts with no equity left, whose
    record lacks money, are no rows. Volatility is that of the largest position.
    """
    length = pl.duration(microseconds=int(bar_days * _DAY_US))
    at = _held_at(spells, holdings, bars)
    accounts = _valued(at, maintenance)
    after = at.select("user", pl.col("ts") - length, "symbol", later=pl.col("qty").abs())
    sizes = (
        at.join(after, on=["user", "ts", "symbol"], how="left")
        .group_by("user", "ts")
        .agg(left=(pl.col("later").fill_null(0.0) * pl.col("price")).sum())
    )
    fresh = at.select("user", pl.col("ts") - length).unique().with_columns(opened=True)
    moved = (
        ledger.join_where(
            accounts.select("user", "ts", until=pl.col("ts") + length),
            pl.col("user") == pl.col("user_right"),
            pl.col("ts") >= pl.col("ts_right"), pl.col("ts") < pl.col("until"),
        )
        .group_by("user", ts="ts_right")
        .agg(paid_in=(pl.col("delta_usd").filter(pl.col("delta_usd") > 0.0)).sum(),
             paid_out=(pl.col("delta_usd").filter(pl.col("delta_usd") < 0.0)).sum())
    )  # fmt: skip
    known = (
        accounts.join(sizes, on=["user", "ts"])
        .join(moved, on=["user", "ts"], how="left")
        .join(fresh, on=["user", "ts"], how="left")
        .with_columns(next_ts=pl.col("ts") + length)
        .filter(pl.col("next_ts") <= bars["ts"].max(), pl.col("health") > 0.0)
    )
    known = known.with_columns(forced=_any_within(known, closings))
    act = (
        pl.when("forced").then(pl.lit("forced"))
        .when(pl.col("paid_in") > 0.0).then(pl.lit("top_up"))
        .when(pl.col("left") < (1.0 - RESIZED) * pl.col("size")).then(pl.lit("delever"))
        .when((pl.col("left") > (1.0 + RESIZED) * pl.col("size")) | (pl.col("paid_out") < 0.0))
        .then(pl.lit("raise"))
    )  # fmt: skip
    rows = known.select(
        pl.col("user").alias("owner"), "ts", "health", "size", "symbol",
        span=pl.lit(bar_days), act=act,
    )  # fmt: skip
    return _logs(_with_vol(rows, vols))


def loan_periods(
    loans: pl.DataFrame, vols: pl.DataFrame, *, until: Any, fates: dict[str, str]
) -> pl.DataFrame:
    """Days of loans (`address`, `symbol`, `start`, `end`, `status`), one row a day of life.

    `fates` names the act that a status is; the rest, and what ends after `until`, goes on. Health
    is not recorded: in its place stands `rise`, the log of the price over that at the opening, and
    `log_age`, of the days since. Loans opened before the first price are left out.
    """
    priced = vols.select("ts", "symbol", "close").drop_nulls().sort("ts")
    opened = loans.sort("start").join_asof(
        priced.rename({"ts": "start", "close": "price_then"}), on="start", by="symbol",
        strategy="backward", check_sortedness=False,
    ).filter(pl.col("price_then").is_not_null() & (pl.col("start") < until))  # fmt: skip
    last = pl.min_horizontal(pl.col("end").fill_null(until), pl.lit(until))
    lives = opened.with_columns(
        loan=pl.int_range(pl.len()), last=last,
        fate=pl.when(pl.col("end") <= until).then(
            pl.col("status").replace_strict(fates, default=None)
        ),
    )  # fmt: skip
    days = lives.with_columns(
        ts=pl.datetime_ranges("start", "last", "1d", closed="left")
    ).explode("ts").drop_nulls("ts")  # fmt: skip
    day = pl.duration(days=1)
    ends_here = pl.col("ts") + day >= pl.col("last")
    whole = pl.col("fate").is_not_null() | ~ends_here
    left = (pl.col("last") - pl.col("ts")).dt.total_microseconds() / _DAY_US
    rows = days.with_columns(
        owner="address",
        span=pl.when(whole).then(1.0).otherwise(left),
        act=pl.when(ends_here).then("fate"),
        log_age=((pl.col("ts") - pl.col("start")).dt.total_days() + 1.0).log(),
    )
    known = _with_vol(rows, vols)
    return known.select(
        "owner", "loan", "ts", "span", "act", "log_age",
        rise=(pl.col("close") / pl.col("price_then")).log(), log_vol=pl.col("vol").log(),
    ).drop_nulls(["rise", "log_vol"]).sort("loan", "ts")  # fmt: skip


def _changes(spans: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
    """USD held and owed at each state, and how both changed by the next, at the first prices."""
    legs = positions.filter(pl.col("price_usd") > 0.0).select(
        "user", "block", "side", "symbol", qty=pl.col("amount_usd") / pl.col("price_usd"),
        price="price_usd",
    )  # fmt: skip
    key = ["user", "block", "side", "symbol"]
    before = spans.select("user", "block").join(legs, on=["user", "block"])
    after = spans.select("user", "block", "next_block").join(
        legs.rename({"block": "next_block", "qty": "later", "price": "next_price"}),
        on=["user", "next_block"],
    )
    both = before.join(after, on=key, how="full", coalesce=True).with_columns(
        pl.col("qty", "later").fill_null(0.0), price=pl.coalesce("price", "next_price")
    )
    usd, change = (
        pl.col("qty") * pl.col("price"),
        (pl.col("later") - pl.col("qty")) * pl.col("price"),
    )
    named = {
        name: what.filter(pl.col("side") == side).sum()
        for side in ("collateral", "debt")
        for name, what in ((side, usd), (f"{side}_change", change))
    }
    return both.group_by("user", "block").agg(**named)


def _any_within(spans: pl.DataFrame, closings: pl.DataFrame) -> pl.Series:
    """Whether the venue closed the user in (ts, next_ts], row by row."""
    hit = (
        spans.select("user", "next_ts", begun="ts")
        .join(closings.select("user", at="ts"), on="user", how="left", maintain_order="left")
        .with_columns(hit=(pl.col("at") > pl.col("begun")) & (pl.col("at") <= pl.col("next_ts")))
        .group_by("user", "begun", maintain_order=True)
        .agg(pl.col("hit").any())
    )
    return hit["hit"]


def _held_at(spells: pl.DataFrame, holdings: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """What each account held at the open of each bar, and the price then; empty without a bar."""
    instants = bars.select("ts").unique()
    own = spells.select("spell", "user", begun="ts", until="until")
    at = instants.join_where(own, pl.col("ts") >= pl.col("begun"), pl.col("ts") < pl.col("until"))
    cash = holdings.filter(pl.col("kind") == "cash").select("spell", cash="qty")
    perps = holdings.filter(pl.col("kind") == "perp").select("spell", "symbol", "qty", "entry")
    prices = bars.select("ts", "symbol", price="open")
    return (
        at.join(perps, on="spell").join(cash, on="spell")
        .join(prices, on=["ts", "symbol"], how="left")
        .select("user", "ts", "symbol", "qty", "entry", "cash", "price")
        .sort("user", "ts", "symbol")
    )  # fmt: skip


def _valued(at: pl.DataFrame, maintenance: float) -> pl.DataFrame:
    """Health and size of each account at each instant at which all that it holds has a price."""
    value, profit = (
        pl.col("qty").abs() * pl.col("price"),
        pl.col("qty") * (pl.col("price") - pl.col("entry")),
    )
    return (
        at.group_by("user", "ts", maintain_order=True)
        .agg(
            size=value.sum(), profit=profit.sum(), cash=pl.col("cash").first(),
            symbol=pl.col("symbol").sort_by(value).last(),
            priced=pl.col("price").is_not_null().all(),
        )
        .filter("priced", pl.col("size") > LEAST_USD)
        .with_columns(
            health=(pl.col("cash") + pl.col("profit")) / (maintenance * pl.col("size"))
        )
    )  # fmt: skip


def _with_vol(rows: pl.DataFrame, vols: pl.DataFrame) -> pl.DataFrame:
    """The last volatility and close that were known when each span began."""
    return rows.sort("ts").join_asof(
        vols.sort("ts").select("ts", "symbol", "vol", "close"), on="ts", by="symbol",
        strategy="backward", check_sortedness=False,
    )  # fmt: skip


def _logs(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.with_columns(
            log_health=pl.col("health").log(), log_vol=pl.col("vol").log(),
            log_size=pl.col("size").log(10.0),
        )
        .filter(pl.col("log_health").is_finite() & pl.col("log_vol").is_finite())
        .select("owner", "ts", "span", "act", "health", "vol", "size",
                "log_health", "log_vol", "log_size")
        .sort("owner", "ts")
    )  # fmt: skip
