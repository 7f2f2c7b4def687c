"""Perp accounts rebuilt from what a venue published: trades, transfers, closings.

`trades` are rows of `ts`, `user`, `coin`, `side` (Bid buys), `px`, `sz`; `ledger` of `ts`, `user`,
`delta_usd`; `closings` of `ts`, `user`, with the notional and the account value that were closed.
Fees and funding are not listed, so what they took stays in the rebuilt wallet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import polars as pl

from undertow.validate.calls import Scorecard

MONEY = "USD"
DUST = 1e-9  # of a coin; what is left of sizes that cancel
FUNDING_LIKE = 0.0025  # of notional: eight days at the usual 0.01 % every eight hours
HOLDINGS = {
    "spell": pl.Int64,
    "symbol": pl.String,
    "kind": pl.String,
    "qty": pl.Float64,
    "entry": pl.Float64,
    "max_leverage": pl.Float64,
}


@dataclass
class Wallet:
    """A running account: money without unrealised profit, and positions at average entry."""

    cash: float = 0.0
    held: dict[str, tuple[float, float]] = field(default_factory=dict)  # coin -> qty, entry

    def trade(self, coin: str, qty: float, price: float) -> None:
        """Buy (or sell, below 0): closing realises against the average entry, opening moves it."""
        before, entry = self.held.pop(coin, (0.0, price))
        after = before + qty
        if before * qty >= 0.0:
            entry = (before * entry + qty * price) / after
        else:
            closed = -qty if abs(qty) <= abs(before) else before
            self.cash += closed * (price - entry)
            entry = entry if before * after > 0.0 else price
        if abs(after) > DUST:
            self.held[coin] = (after, entry)


def rebuild_traders(
    trades: pl.DataFrame, ledger: pl.DataFrame, closings: pl.DataFrame, *, max_leverage: float
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spells and holdings of every account, for `calls.score_calls`.

    A spell begins at each instant at which the account traded or moved money, if it then holds
    anything, and ends at the next. It is `closed` if the venue's closing came at its end. Spells
    carry `deposited`, what the ledger had brought in (net) by then, and `open` where they end only
    because the record does.
    """
    closed = set(closings.select("user", "ts").iter_rows())
    acts = _acts(trades, ledger)
    end = acts["ts"].max()
    spells: list[tuple[object, ...]] = []
    legs: list[tuple[object, ...]] = []
    for user, own in groupby(acts.iter_rows(), itemgetter(0)):
        wallet, deposited = Wallet(), 0.0
        instants = [(ts, list(same)) for ts, same in groupby(own, itemgetter(1))]
        ends = [ts for ts, _ in instants[1:]] + [end]
        for (ts, done), until in zip(instants, ends, strict=True):
            for _, _, coin, price, qty, delta in done:
                if coin is None:
                    wallet.cash += delta
                    deposited += delta
                else:
                    wallet.trade(coin, qty, price)
            if wallet.held:
                number = len(spells)
                ended = (user, until) in closed
                spells.append((number, user, ts, until, ended, deposited, until == end))
                legs.append((number, MONEY, "cash", wallet.cash, None, None))
                legs += [
                    (number, coin, "perp", qty, entry, max_leverage)
                    for coin, (qty, entry) in sorted(wallet.held.items())
                ]
    when = trades["ts"].dtype
    columns: dict[str, Any] = {
        "spell": pl.Int64, "user": pl.String, "ts": when, "until": when, "closed": pl.Boolean,
        "deposited": pl.Float64, "open": pl.Boolean,
    }  # fmt: skip
    return (
        pl.DataFrame(spells, schema=columns, orient="row"),
        pl.DataFrame(legs, schema=HOLDINGS, orient="row"),
    )


def trade_path(trades: pl.DataFrame, closings: pl.DataFrame) -> pl.DataFrame:
    """Every price at which the accounts traded, but those of closings.

    The venue hands a closed account over at the price that empties it, which is no price of the
    market and would betray the closing; both sides of such a trade are left out.
    """
    handed = trades.join(closings, on=["user", "ts"], how="semi").select("coin", "ts")
    market = trades.join(handed, on=["coin", "ts"], how="anti")
    return (
        market.group_by("coin", "ts")
        .agg(low=pl.col("px").min(), high=pl.col("px").max(), last=pl.col("px").last())
        .select("ts", "low", "high", "last", symbol="coin", until="ts")
        .sort("symbol", "ts")
    )


def bar_path(bars: pl.DataFrame, hours: float) -> pl.DataFrame:
    """Bars of another venue (`ts` of the open, `symbol`, `high`, `low`, `close`) as a path."""
    length = pl.duration(microseconds=int(hours * 3_600_000_000))
    return bars.select(
        "ts", "symbol", "low", "high", last="close", until=pl.col("ts") + length
    ).sort("symbol", "ts")


def stated_marks(
    spells: pl.DataFrame, holdings: pl.DataFrame, closings: pl.DataFrame
) -> pl.DataFrame:
    """The marks that closings state, as instants for `calls.score_calls`.

    The closed notional over the size held is the mark at which the venue judged. An account in
    several coins gives no single price, and is left out.
    """
    coins = holdings.filter(pl.col("kind") == "perp")
    single = coins.filter(pl.len().over("spell") == 1).select("spell", "symbol", "qty")
    mark = pl.col("liquidated_ntl_pos") / pl.col("qty").abs()
    return (
        spells.filter("closed")
        .join(single, on="spell")
        .join(closings, left_on=["user", "until"], right_on=["user", "ts"])
        .select("spell", "symbol", ts="until", low=mark, high=mark)
    )


def explain_closings(at_mark: Scorecard, closings: pl.DataFrame) -> pl.DataFrame:
    """What sets a rebuilt account apart from the one that its venue closed, one row a closing.

    `gap` is rebuilt equity less the account value that was closed, over the notional; `why` names
    it. `several coins`: the record states no single mark. `isolated`: the position had margin of
    its own, which trades do not show. `money set apart`: more was held than was closed, and mostly
    stayed with the account. `money unseen`: less was held than was closed, so transfers are
    missing. `funding`: the rest, within what funding that is not listed can make.
    """
    value, notional = pl.col("liquidated_account_value"), pl.col("liquidated_ntl_pos")
    gap = (pl.col("equity") - value) / notional
    why = (
        pl.when(pl.col("leverage_type") == "Isolated").then(pl.lit("isolated"))
        .when(pl.col("gap").is_null()).then(pl.lit("several coins"))
        .when(pl.col("gap") > FUNDING_LIKE).then(pl.lit("money set apart"))
        .when(pl.col("gap") < -FUNDING_LIKE).then(pl.lit("money unseen"))
        .otherwise(pl.lit("funding"))
    )  # fmt: skip
    closed = at_mark.spells.filter("closed").select(
        "user", "called", "nearest", "equity", ts="until"
    )
    return (
        closings.join(closed, on=["user", "ts"], how="left")
        .with_columns(gap=gap)
        .with_columns(why=why)
        .sort("ts", "user")
    )


def _acts(trades: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """Trades and transfers in one frame: user, ts, coin, px, qty, delta_usd, as they came."""
    sign = pl.when(pl.col("side") == "Bid").then(1.0).otherwise(-1.0)
    bought = trades.filter(pl.col("sz") > 0.0).select(
        "user", "ts", "coin", "px", qty=sign * pl.col("sz")
    )
    moved = ledger.select("user", "ts", "delta_usd")
    return pl.concat([bought, moved], how="diagonal").sort("user", "ts", maintain_order=True)
