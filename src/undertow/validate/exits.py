"""Who can leave a lending market that stands behind collateral in doubt, and what the rest lose.

Nothing here knows how it ended: all follows from a market at one instant (`lenders.RolledMarket`)
and from a stated recovery, the share of its price then that the collateral turns out to be worth.
Amounts are in the loan token.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from undertow.errors import StateError
from undertow.rules.adaptive import AdaptiveCurve
from undertow.rules.interest import SECONDS_PER_YEAR
from undertow.validate.lenders import RolledMarket

HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class Lock:
    """When a market is lent out to the last: once as much as is idle has been withdrawn."""

    idle: float
    wanted: float  # what all lenders together would take
    locks: bool  # they would take more than is idle
    alone: int  # lenders any one of whom can lock it in one act
    hours: float  # until locked, were nobody to add and all to leave at the usual pace


@dataclass(frozen=True, slots=True)
class MarketLoss:
    """What lenders together lose, and whether anybody would make them see it."""

    recovered: float
    realised: float  # written off as positions are closed
    unrealised: float  # owed for good, as nobody closes

    @property
    def lost(self) -> float:
        """Both together."""
        return self.realised + self.unrealised


def lock(market: RolledMarket, *, pace: float) -> Lock:
    """Will the market lock once its lenders want out; `pace` is withdrawn per hour, usually."""
    if pace < 0.0:
        raise StateError(f"pace was {pace}; what is withdrawn in an hour is at least 0")
    claims = market.lenders["claim"]
    return Lock(
        market.idle,
        float(claims.sum()),
        bool(claims.sum() > market.idle),
        int((claims >= market.idle).sum()),
        market.idle / pace if pace else float("inf"),
    )


def exits(market: RolledMarket, order: Sequence[str] = ()) -> pl.DataFrame:
    """How much each lender can take of what is idle: `user`, `claim`, and four answers.

    `first_come` serves `order`, then the rest by size; `pro_rata` gives each its share; `least`
    and `most` bound every order there is: last of all, first of all.
    """
    claims = market.lenders
    rank = {user: k for k, user in enumerate(order)}
    queue = claims.with_columns(
        turn=pl.col("user").replace_strict(rank, default=len(rank), return_dtype=pl.Int64)
    ).sort("turn", "claim", descending=[False, True], maintain_order=True)
    idle, total = market.idle, float(claims["claim"].sum())
    before = pl.col("claim").cum_sum() - pl.col("claim")
    claim = pl.col("claim")
    return queue.with_columns(
        first_come=pl.min_horizontal(claim, (idle - before).clip(0.0)),
        pro_rata=claim * (min(idle, total) / total if total else 0.0),
        least=pl.min_horizontal(claim, (idle - (total - claim)).clip(0.0)),
        most=pl.min_horizontal(claim, pl.lit(idle)),
    ).drop("turn")


def by_activity(acts: pl.DataFrame, since: dt.datetime, until: dt.datetime) -> list[str]:
    """Lenders in the order of how often they supplied or withdrew, the latest first among equals.

    Who moves money every hour will see first that it must be moved: a guess that needs no outcome.
    """
    lent = pl.col("kind").is_in(["supply", "withdraw"])
    seen = acts.filter(lent & (pl.col("ts") > since) & (pl.col("ts") <= until))
    counted = seen.group_by("user").agg(pl.len(), last=pl.col("ts").max())
    ranked = counted.sort("len", "last", "user", descending=[True, True, False])
    return [str(user) for user in ranked["user"]]


def net_exits(acts: pl.DataFrame, since: dt.datetime, until: dt.datetime) -> pl.DataFrame:
    """What each lender took out, less what it put in, between two times: `user`, `taken`."""
    between = (pl.col("ts") > since) & (pl.col("ts") <= until)
    sign = pl.col("kind").replace_strict({"withdraw": 1.0, "supply": -1.0}, default=0.0)
    return (
        acts.filter(between).group_by("user").agg(taken=(sign * pl.col("assets")).sum())
        .filter(pl.col("taken") != 0.0).sort("taken", "user", descending=[True, False])
    )  # fmt: skip


def market_loss(
    market: RolledMarket,
    *,
    price: float,
    recovery: float,
    threshold: float,
    oracle_follows: bool = True,
) -> MarketLoss:
    """What lenders lose if the collateral is worth `recovery` of `price` from now on.

    A liquidator takes collateral worth his incentive times what he repays, so of a debt under water
    the value over the incentive is recovered. Only positions past `threshold` at the oracle are
    closed, and only if there is value to take. An oracle that stays at `price` shields the others:
    whose collateral is worth less than the debt does not repay, and owes it for good.
    """
    if not 0.0 <= recovery <= 1.0:
        raise StateError(f"recovery was {recovery}; it is a share, 0 to 1")
    worth = pl.col("collateral") * (price * recovery)
    shown = worth if oracle_follows else pl.col("collateral") * price
    closed = (pl.col("debt") > threshold * shown) & (worth > 0.0)
    repaid = pl.when(worth >= pl.col("debt")).then("debt").otherwise(0.0)
    back = pl.when(closed).then(worth / incentive(threshold)).otherwise(repaid)
    rows = market.borrowers.select(
        closed=closed, back=pl.min_horizontal("debt", back), debt="debt"
    ).with_columns(lost=pl.col("debt") - pl.col("back"))
    return MarketLoss(
        recovered=float(rows["back"].sum()),
        realised=float(rows.filter("closed")["lost"].sum()),
        unrealised=float(rows.filter(~pl.col("closed"))["lost"].sum()),
    )


def incentive(threshold: float) -> float:
    """What a liquidator of a Morpho market gets for each unit repaid.

    References
    ----------
    Morpho Labs, *Morpho Blue Whitepaper* (2023): min(1.15, 1 / (1 - 0.3 (1 - threshold))).
    """
    return min(1.15, 1.0 / (1.0 - 0.3 * (1.0 - threshold)))


def locked_debt(
    debt: float, at_target: float, hours: float, *, curve: AdaptiveCurve, every: float = HOUR
) -> float:
    """What debts have grown to after so many hours of full utilisation, touched each `every` s."""
    left = hours * HOUR
    while left > 0.0:
        span = min(left, every)
        growth, at_target = curve.accrue(at_target, 1.0, span)
        debt, left = debt * growth, left - span
    return debt


def implied_rate(before: float, after: float, seconds: float) -> float:
    """Yearly rate that a debt grew at between two times at which nobody borrowed or repaid."""
    if not 0.0 < before <= after or seconds <= 0.0:
        raise StateError(f"a debt went from {before} to {after} in {seconds} s; it only grows")
    return (after / before - 1.0) * SECONDS_PER_YEAR / seconds
