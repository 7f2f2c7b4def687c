"""What the shares of vaults lose when a market that they lent to does, and how well it was said.

`claims` are rows of `vault`, `left` (what it could not take out), `lost` (the share of that which
is gone) and `most` (the largest share that may go); `assets` rows of `vault`, `assets`. Losses are
fractions of a vault's share price, and a vault without assets has none.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from undertow.errors import StateError

SEEN = 0.001  # a loss of a tenth of a per cent is one that a depositor sees


@dataclass(frozen=True, slots=True)
class LossScore:
    """One prediction of losses against what happened, vault by vault."""

    vaults: int
    error: float  # mean absolute error of the loss
    rank: float  # Spearman's; NaN if the prediction, or the outcome, is one number for all
    hits: int  # lost more than `SEEN`, and was said to
    misses: int
    false_alarms: int
    quiet: int  # neither


def claims_left(
    exits: pl.DataFrame, lost: float, *, how: str | None = "first_come", worth: float = 1.0
) -> pl.DataFrame:
    """Claims after exits (of `exits.exits`, by one of its columns), with what is gone of each.

    What the market loses falls on those who are left, so who leaves raises the loss of the rest;
    if all leave in proportion, nobody's loss changes. `worth` turns the loan token into money.
    """
    taken = pl.col(how) if how else pl.lit(0.0)
    after = exits.select(vault="user", left=pl.col("claim") - taken)
    staying = float(after["left"].sum())
    gone = min(lost / staying, 1.0) if staying > 0.0 else 0.0
    return after.select("vault", left=pl.col("left") * worth, lost=pl.lit(gone), most=pl.lit(gone))


def share_losses(claims: pl.DataFrame, assets: pl.DataFrame, *, dust: float = 1.0) -> pl.DataFrame:
    """Loss of each vault with assets: `vault`, `assets`, `loss`, `run`.

    `loss` spreads it over all depositors of that instant. `run` is the other end: depositors who
    leave at par while other markets still pay put it on those who stay, until these have nothing
    but the claim. Claims up to `dust` are worth nobody's run.
    """
    held = claims.group_by("vault").agg(
        gone=(pl.col("left") * pl.col("lost")).sum(),
        worst=(pl.col("left") * pl.col("most")).sum(),
        left=pl.col("left").sum(),
    )
    joined = assets.filter(pl.col("assets") > 0.0).join(held, on="vault", how="left")
    gone, stuck = pl.col("gone").fill_null(0.0), pl.col("left").fill_null(0.0)
    return joined.select(
        "vault",
        "assets",
        loss=(gone / pl.col("assets")).clip(0.0, 1.0),
        run=pl.when(stuck > dust).then((pl.col("worst") / stuck).clip(0.0, 1.0)).otherwise(0.0),
    ).sort("vault")


def by_deposits(lost: float, assets: pl.DataFrame) -> pl.DataFrame:
    """The naive answer: what is lost is spread over all vaults by their assets."""
    held = assets.filter(pl.col("assets") > 0.0)
    return held.select("vault", loss=pl.lit(min(lost / float(held["assets"].sum()), 1.0))).sort(
        "vault"
    )


def by_allocation(lost: float, allocated: pl.DataFrame, assets: pl.DataFrame) -> pl.DataFrame:
    """The better naive answer: by what each had lent out (`vault`, `allocated`) the day before."""
    total = float(allocated["allocated"].sum())
    if total <= 0.0:
        raise StateError("allocations add up to 0: no vault had lent to the market")
    part = pl.col("allocated").fill_null(0.0) / total
    return (
        assets.filter(pl.col("assets") > 0.0)
        .join(allocated, on="vault", how="left")
        .select("vault", loss=(lost * part / pl.col("assets")).clip(0.0, 1.0))
        .sort("vault")
    )


def score_losses(
    predicted: pl.DataFrame, realised: pl.DataFrame, *, seen: float = SEEN
) -> LossScore:
    """Hold predicted losses (`vault`, `loss`) against realised ones; both must name the same."""
    both = predicted.select("vault", said="loss").join(
        realised.select("vault", was="loss"), on="vault", how="inner"
    )
    if both.height != predicted.height or both.height != realised.height:
        raise StateError(
            f"{predicted.height} vaults predicted, {realised.height} realised, {both.height} in "
            "both; give the same vaults to both"
        )
    said, was = both["said"].to_numpy(), both["was"].to_numpy()
    flat = np.ptp(said) == 0.0 or np.ptp(was) == 0.0
    above, lost = said > seen, was > seen
    return LossScore(
        vaults=both.height,
        error=float(np.abs(said - was).mean()),
        rank=math.nan if flat else float(stats.spearmanr(said, was).statistic),
        hits=int((above & lost).sum()),
        misses=int((~above & lost).sum()),
        false_alarms=int((above & ~lost).sum()),
        quiet=int((~above & ~lost).sum()),
    )


def drawdowns(prices: pl.DataFrame, *, since: dt.datetime) -> pl.DataFrame:
    """Deepest fall of each share price (`vault`, `ts`, `price`) below that at `since`."""
    start = prices.filter(pl.col("ts") == since).select("vault", start="price")
    later = prices.filter(pl.col("ts") > since).group_by("vault").agg(low=pl.col("price").min())
    return (
        start.join(later, on="vault")
        .select("vault", loss=(1.0 - pl.col("low") / pl.col("start")).clip(0.0))
        .sort("vault")
    )


def marked_losses(start: pl.DataFrame, end: pl.DataFrame, *, worth: float = 0.0) -> pl.DataFrame:
    """Loss of each share with claims on the market marked at `worth` of what is owed.

    `start` has `vault`, `price`; `end` has `vault`, `price`, `assets`, `claim`. A vault that shows
    such a claim at par, with interest, shows a share price that nobody can be paid.
    """
    held = pl.col("claim").fill_null(0.0) / pl.col("assets")
    marked = pl.col("end_price") * (1.0 - (1.0 - worth) * held.clip(0.0, 1.0))
    return (
        start.join(end.rename({"price": "end_price"}), on="vault")
        .filter(pl.col("assets") > 0.0)
        .select("vault", loss=(1.0 - marked / pl.col("price")).clip(0.0, 1.0))
        .sort("vault")
    )
