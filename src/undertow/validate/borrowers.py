"""Borrowers rebuilt from recorded states, and what closings took from them.

`states` are rows of `ts`, `user`, `block`, `health_factor` and the totals of collateral and debt in
the lender's base currency; `positions` of `user`, `block`, `side`, `symbol`, `amount_usd` and
`price_usd`; `closings` of `ts`, `user`, `collateral`, `debt` and both amounts in tokens.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import polars as pl

from undertow.kernels import closing as kernel
from undertow.rules.closing import liquidate
from undertow.rules.profile import ClosingRules
from undertow.validate.calls import Scorecard
from undertow.validate.inferred import MONTH, dated

UNDER = 1.0  # health below which an account may be closed
MOVED = 0.01  # of a holding; interest between two states is far less
_AMPLE = 2.0  # collateral over debt: closings never want for it
_JUST_UNDER = 1.0 - 1e-9


def state_legs(states: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
    """The positions of every recorded state as legs, at the prices recorded with them.

    `sheet` is the row of the state; states of which no positions are recorded have no sheet.
    """
    numbered = states.select("user", "block", sheet=pl.int_range(pl.len()))
    return (
        _signed(positions)
        .join(numbered, on=["user", "block"])
        .select("sheet", "ts", "symbol", "kind", "qty", price="price_usd")
        .sort("sheet", "symbol", "kind")
    )


def with_thresholds(legs: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    """Legs (with ts) and the threshold of each collateral at the time; 0 where no list names it."""
    name = "liquidation_threshold"
    own = pl.when(pl.col("kind") == "collateral").then(pl.col(name).fill_null(0.0))
    return dated(legs, terms, name).with_columns(own.alias(name))


def rebuild_borrowers(
    states: pl.DataFrame, positions: pl.DataFrame, closings: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spells and holdings of every borrower, for `calls.score_calls`.

    A spell begins at a recorded state or a closing, and ends at the next. After a closing what was
    seized and repaid is taken from the holdings; interest between two states is not added. Spells
    carry the recorded `health` at their start and that at the `next_state`, and `moved`: whether
    the owner, not a closing, changed a holding by more than a hundredth before that state.
    """
    legs = dict(_signed(positions).group_by(["user", "block"], maintain_order=True))
    closed = dict(closings.group_by(["user"], maintain_order=True))
    spells: list[tuple[object, ...]] = []
    held: list[tuple[object, ...]] = []
    for (user,), own in states.sort("user", "ts").group_by(["user"], maintain_order=True):
        events = closed.get((user,), closings.clear())
        points = own.select("ts", "block", "health_factor").rows()
        for (ts, block, health), (until, after, next_health) in pairwise(points):
            between = events.filter((pl.col("ts") > ts) & (pl.col("ts") <= until))
            holdings = _as_dict(legs.get((user, block)))
            first = len(spells)
            for start, end, acts in _cut(ts, until, between):
                number = len(spells)
                spells.append((number, user, start, end, acts is not None, health, next_health))
                held += [(number, s, kind, qty) for (s, kind), qty in holdings.items() if qty]
                if acts is not None:
                    holdings = _after(holdings, acts)
            moved = _differ(holdings, _as_dict(legs.get((user, after))))
            spells[first:] = [(*row, moved) for row in spells[first:]]
    when = states["ts"].dtype
    columns: dict[str, Any] = {
        "spell": pl.Int64, "user": pl.String, "ts": when, "until": when, "closed": pl.Boolean,
        "health": pl.Float64, "next_health": pl.Float64, "moved": pl.Boolean,
    }  # fmt: skip
    legs_of: dict[str, Any] = {
        "spell": pl.Int64,
        "symbol": pl.String,
        "kind": pl.String,
        "qty": pl.Float64,
    }
    return (
        pl.DataFrame(spells, schema=columns, orient="row"),
        pl.DataFrame(held, schema=legs_of, orient="row"),
    )


def price_path(prices: pl.DataFrame) -> pl.DataFrame:
    """Single prices (`ts`, `symbol`, `price_usd`) as a path."""
    price = pl.col("price_usd")
    return prices.select(
        "ts", "symbol", low=price, high=price, last=price, until=pl.col("ts")
    ).sort("symbol", "ts")


def hourly_instants(spells: pl.DataFrame) -> pl.DataFrame:
    """The start and the end of each spell, and every hour from its start."""
    hours = spells.select("spell", ts=pl.datetime_ranges("ts", "until", "1h")).explode("ts")
    return pl.concat([hours, spells.select("spell", ts="until")]).unique().sort("spell", "ts")


def repaid_shares(
    spells: pl.DataFrame, holdings: pl.DataFrame, closings: pl.DataFrame, *, rules: ClosingRules
) -> pl.DataFrame:
    """What closings repaid of one debt at one instant, as a share of it, and in how many calls.

    `allowed` is the largest share that `rules` let so many calls repay of an account just under its
    limit, where they let least.
    """
    debts = holdings.filter(pl.col("kind") == "debt")
    owed = debts.select("spell", owed=-pl.col("qty"), debt="symbol")
    ended = spells.filter("closed").select("spell", "user", ts="until")
    return (
        closings.join(ended, on=["user", "ts"])
        .join(owed, on=["spell", "debt"])
        .group_by("user", "ts", "debt", "owed")
        .agg(repaid=pl.col("debt_amount").sum(), calls=pl.len())
        .with_columns(
            share=pl.col("repaid") / pl.col("owed"),
            allowed=pl.struct("owed", "calls").map_elements(
                lambda row: _most_repaid(row["owed"], row["calls"], rules), return_dtype=pl.Float64
            ),
        )
        .sort("user", "ts", "debt")
    )


def _most_repaid(owed: float, calls: int, rules: ClosingRules) -> float:
    """Share of a debt that so many closings in a row may repay, each as much as it may."""
    left = owed
    for _ in range(calls):
        closed = liquidate(
            _AMPLE * left, left, closing=rules, debt_to_cover=math.inf,
            threshold=_JUST_UNDER / _AMPLE,
        )  # fmt: skip
        left = float(closed.debt[0])
    return 1.0 - left / owed


def seizures(closings: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """What each closing seized and repaid in USD: as recorded, or at the nearest hourly prices."""
    valued = closings.sort("ts").with_columns(
        recorded=pl.col("collateral_usd").is_not_null() & pl.col("debt_usd").is_not_null(),
        symbol="collateral",
    )
    for side in ("collateral", "debt"):
        listed = prices.sort("ts").select("ts", "price_usd", pl.col("symbol").alias(side))
        valued = valued.join_asof(
            listed, on="ts", by=side, strategy="nearest", check_sortedness=False
        ).rename({"price_usd": f"{side}_price"})
    return valued.with_columns(
        seized_usd=pl.coalesce(
            "collateral_usd", pl.col("collateral_amount") * pl.col("collateral_price")
        ),
        repaid_usd=pl.coalesce("debt_usd", pl.col("debt_amount") * pl.col("debt_price")),
    )


def seizure_errors(valued: pl.DataFrame, bonuses: pl.DataFrame) -> pl.DataFrame:
    """How far each seizure lies from what the rules give, relative; empty without a price."""
    known = dated(valued, bonuses, "bonus", period=MONTH)
    given = _given_for(known["repaid_usd"], known["bonus"])
    return known.with_columns(error=pl.col("seized_usd") / given - 1.0)


def _given_for(repaid: pl.Series, bonus: pl.Series) -> pl.Series:
    """What a closing takes for what it repaid, at a price of 1; empty where either is."""
    taken = [
        None if paid is None or more is None else kernel.seized_for(paid, 1.0, 1.0, more, 0.0)
        for paid, more in zip(repaid, bonus, strict=True)
    ]
    return pl.Series(taken, dtype=pl.Float64)


def stated_prices(
    spells: pl.DataFrame,
    holdings: pl.DataFrame,
    valued: pl.DataFrame,
    prices: pl.DataFrame,
    *,
    money: tuple[str, ...],
) -> pl.DataFrame:
    """The prices at which closings were judged, as instants for `calls.score_calls`.

    What was seized is worth the debt repaid and the bonus, so a closing states the lender's own
    price of one token in the other. Of the two the one that is `money` keeps its hourly price, or
    the debt if neither is; every other holding takes the hourly price nearest in time. `valued`
    comes from `seizure_errors`.
    """
    in_debt = _given_for(valued["debt_amount"], valued["bonus"]) / valued["collateral_amount"]
    settled = pl.col("collateral").is_in(list(money)) & ~pl.col("debt").is_in(list(money))
    stated = valued.select(
        "user", "ts",
        symbol=pl.when(settled).then("debt").otherwise("collateral"),
        stated=pl.when(settled).then(pl.col("collateral_price") / in_debt)
        .otherwise(pl.col("debt_price") * in_debt),
    ).drop_nulls().unique(["user", "ts", "symbol"], keep="first", maintain_order=True)  # fmt: skip
    held = holdings.select("spell", "symbol").unique()
    ended = spells.filter("closed").select("spell", "user", ts="until").join(held, on="spell")
    listed = prices.sort("ts").select("ts", "symbol", "price_usd")
    near = ended.sort("ts", "spell", "symbol").join_asof(
        listed, on="ts", by="symbol", strategy="nearest", check_sortedness=False
    )
    price = pl.coalesce("stated", "price_usd")
    return near.join(stated, on=["user", "ts", "symbol"], how="left").select(
        "spell", "ts", "symbol", low=price, high=price
    )


def explain_false_calls(card: Scorecard) -> pl.DataFrame:
    """Why accounts that were called were not closed, as `why`.

    `under on chain, left alone`: the chain itself held them below 1 at the state before or after,
    and nobody came. `owner acted`: holdings changed before the next state. `price between states`:
    neither; the index fell further than the oracle, or came back before anybody acted.
    """
    under = (pl.col("health") < UNDER) | (pl.col("next_health") < UNDER)
    why = (
        pl.when(under).then(pl.lit("under on chain, left alone"))
        .when(pl.col("moved")).then(pl.lit("owner acted"))
        .otherwise(pl.lit("price between states"))
    )  # fmt: skip
    return card.false_calls.with_columns(why=why)


def _signed(positions: pl.DataFrame) -> pl.DataFrame:
    sign = pl.when(pl.col("side") == "debt").then(-1.0).otherwise(1.0)
    qty = sign * pl.col("amount_usd") / pl.col("price_usd")
    priced = positions.filter(pl.col("price_usd") > 0.0)
    return priced.with_columns(qty=qty, kind="side").filter(pl.col("qty") != 0.0)


def _cut(
    ts: object, until: object, between: pl.DataFrame
) -> list[tuple[object, object, pl.DataFrame | None]]:
    """The span between two states, cut at each instant of a closing, with what was closed there."""
    cuts: list[tuple[object, object, pl.DataFrame | None]] = []
    start = ts
    for (at,), acts in between.sort("ts").group_by(["ts"], maintain_order=True):
        cuts.append((start, at, acts))
        start = at
    return [*cuts, (start, until, None)] if start != until else cuts


def _as_dict(legs: pl.DataFrame | None) -> dict[tuple[str, str], float]:
    if legs is None:
        return {}
    return {(s, kind): qty for s, kind, qty in legs.select("symbol", "kind", "qty").iter_rows()}


def _after(
    holdings: dict[tuple[str, str], float], acts: pl.DataFrame
) -> dict[tuple[str, str], float]:
    left = dict(holdings)
    columns = ("collateral", "debt", "collateral_amount", "debt_amount")
    for collateral, debt, seized, repaid in acts.select(columns).iter_rows():
        have, owe = (collateral, "collateral"), (debt, "debt")
        left[have] = max(left.get(have, 0.0) - seized, 0.0)
        left[owe] = min(left.get(owe, 0.0) + repaid, 0.0)
    return left


def _differ(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> bool:
    for key in before.keys() | after.keys():
        was, now = before.get(key, 0.0), after.get(key, 0.0)
        if abs(now - was) > MOVED * max(abs(was), abs(now)):
            return True
    return False
