"""What a cascade did: to prices, to venues, to owners, and whose money it was.

Per-instrument columns are USD at the prices that closed accounts, unless said otherwise. Tables
are polars frames with names; a number that does not exist is empty there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow.errors import NotSettled, StateError
from undertow.kernels import accounts, closing
from undertow.kernels import cascade as kernel
from undertow.kernels.accounts import EMPTIED, Holdings
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import idle_after
from undertow.stress.stressed import Stressed

PARTIES = (
    "accounts", "liquidators", "insurance", "backstop", "protocols", "suppliers",
    "counterparties", "venues", "owners", "takers", "market",
)  # fmt: skip
REASONS = ("liquidated", "deleveraged", "converted", "topped up", "unwound", "by owner")
STILL = 1e-9  # a move that is none


def amplification(first: Any, final: Any) -> pl.Series:
    """Final fall of the book's prices over their first, a row a scenario.

    A rise is a negative fall: above 1 what came after took prices further the same way, below 0 it
    turned them round. Empty where nothing moved at first.
    """
    before, after = np.asarray(first, dtype=np.float64), np.asarray(final, dtype=np.float64)
    moved = np.abs(before) > STILL
    ratio = np.divide(after, before, out=np.zeros_like(before), where=moved)
    return pl.Series("amplification", ratio).set(pl.Series(~moved), None)


class Outcome(Enum):
    """How a cascade ended."""

    SETTLED = "settled"
    ROUND_LIMIT = "round limit"  # it was still selling after its last round


@dataclass(frozen=True, eq=False)
class Cascade:
    """What a shock did to a book, round by round."""

    plan: Plan
    stressed: Stressed
    options: Options
    outcome: Outcome
    rounds: int
    path: FloatMatrix  # (rounds, I) prices that closed accounts; no rows where not kept
    acted: KeyColumn  # (rounds,) accounts closed in part or whole
    flows: FloatMatrix  # (rounds, parties) what each gained
    shocked: FloatColumn  # [I] market prices before anybody was closed
    final: FloatColumn  # [I] market prices at the end
    sold: FloatColumn  # [I] quantity brought to market, net; negative where bought
    closed: FloatColumn  # [I] taken from accounts: collateral, or derivative notional
    repaid: FloatColumn  # [I] debt
    bad: FloatColumn  # [I] debt written off, whoever paid for it
    unpaid: FloatColumn  # [I] the part of it that suppliers bear
    short: FloatColumn  # [I] what bankrupt accounts of derivative venues lacked
    paid: FloatColumn  # [I] what winners were made to pay for that
    gain: FloatColumn  # [I] what liquidators took over what they paid
    cut: FloatColumn  # [I] what venues and their funds took
    slipped: FloatColumn  # [I] lost to the market by selling into falling prices
    insurance: FloatColumn  # [V] what is left of the funds
    backstop: FloatColumn  # [V]
    hold: Holdings  # what accounts held when the first round began
    touched: AnyColumn  # TOUCH rows of the accounts that something happened to
    rest: FloatColumn  # what is left of their legs
    log: AnyColumn | None  # NOTE rows; None where no trace was kept
    checked: bool  # the accounts' side of the ledger was kept
    settled: Cascade | None = None  # what was due before the shock, and is not counted here
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Cascade({self.outcome.value} after {self.rounds} rounds, {len(self.hit):,} accounts, "
            f"{self.closed.sum():,.0f} USD closed; .headline(), .by_venue(), .trace() say more)"
        )

    def require(self) -> Cascade:
        """The cascade itself, if it came to rest.

        Raises
        ------
        NotSettled
            When it was still selling after its last round.
        """
        if self.outcome is not Outcome.SETTLED:
            raise NotSettled(
                f"the cascade was still selling after {self.rounds} rounds",
                hint="allow more with max_rounds, or read it as it is",
            )
        return self

    @cached_property
    def hit(self) -> KeyColumn:
        """Rows of the accounts that their venues closed, in part or whole."""
        rows = self.touched
        called = (rows["ready"] > 0) | (rows["state"] == EMPTIED)
        return np.sort(rows["account"][called].astype(np.int64))

    @cached_property
    def emptied(self) -> KeyColumn:
        """Rows of the accounts of which nothing is left to close."""
        return np.sort(self.touched["account"][self.touched["state"] == EMPTIED].astype(np.int64))

    @cached_property
    def remaining(self) -> FloatColumn:
        """What is left of every leg of the book, as a quantity."""
        qty = self.hold.legs["qty"].copy()
        offset = self.plan.snapshot.book.offset
        account = self.touched["account"]
        legs = np.diff(offset)[account]
        nth = np.arange(legs.sum()) - np.repeat(np.cumsum(legs) - legs, legs)
        qty[np.repeat(offset[account], legs) + nth] = self.rest[
            np.repeat(self.touched["first"], legs) + nth
        ]
        return qty

    @cached_property
    def cash(self) -> FloatColumn:
        """USD that every account realised and still has; negative where it owes them."""
        cash = self.hold.accounts["cash"].copy()
        cash[self.touched["account"]] = self.touched["cash"]
        return cash

    @cached_property
    def book_usd(self) -> float:
        """What the book held and owed at the start, gross, in USD."""
        return float(self.plan.gross_usd.sum())

    @property
    def worst_leak(self) -> float | None:
        """Largest sum of a round's transfers over the value of the book; None unless checked.

        Every transfer has two ends, so anything but rounding is a fault of the engine.
        """
        if not self.checked:
            return None
        return float(np.abs(self.flows.sum(axis=1)).max(initial=0.0)) / max(self.book_usd, 1.0)

    @property
    def ledger(self) -> pl.DataFrame:
        """Who gained what in which round; a row sums to nothing where the cascade was checked."""
        columns = {name: self.flows[:, n] for n, name in enumerate(PARTIES)}
        return pl.DataFrame({"round": np.arange(self.rounds), "acted": self.acted, **columns})

    @cached_property
    def _weights(self) -> FloatColumn:
        """Gross USD of each instrument whose price is that of its asset; none of money."""
        insts = self.plan.insts
        plain = (insts["kind"] == 0) & (insts["money"] == 0)
        return np.where(plain, self.plan.gross_usd, 0.0)

    def _fall(self, price: FloatColumn, where: BoolColumn | slice = slice(None)) -> float:
        """Fall of prices since the start, weighted with what the book holds and owes."""
        weights, start = self._weights[where], self.plan.insts["start"][where]
        whole = float(weights.sum())
        return float((weights * (1.0 - price[where] / start)).sum()) / whole if whole else 0.0

    @property
    def first_fall(self) -> float:
        """Fall of the book's prices before anybody was closed, weighted with what is held."""
        return self._fall(self.shocked)

    @property
    def final_fall(self) -> float:
        """Fall of the book's prices at the end."""
        return self._fall(self.final)

    @property
    def amplification(self) -> float | None:
        """Final move of the book's prices over their first; None where nothing moved at first."""
        found: float | None = amplification([self.first_fall], [self.final_fall])[0]
        return found

    @cached_property
    def under_water(self) -> FloatColumn:
        """[V] What accounts that still stand owe beyond what they have, more than at the start.

        At final market prices, against the book before rates were charged on it; negative where
        less is under water than then, since it was written off.
        """
        lack = _lacking(self.hold, self.remaining, self.cash, self.final)
        return frozen(_by_venue(self.plan, lack) - lacking_at_start(self.plan))

    @property
    def insolvency_usd(self) -> float:
        """What accounts came to owe beyond what they had, whether anybody closed them or not.

        Debt written off, shortfall, and what is under water in accounts that still stand.
        """
        return max(float(self.bad.sum() + self.short.sum() + self.under_water.sum()), 0.0)

    def headline(self) -> dict[str, Any]:
        """The numbers that a committee asks for first."""
        book = self.plan.snapshot.book
        owners, first = np.unique(book.owner[self.hit], return_index=True)
        venues = _venues_by_owner(book.owner[self.hit], book.venue[self.hit], len(book.owners))
        locked = self.reserves()["locked_usd"]
        return {
            "outcome": self.outcome.value,
            "rounds": self.rounds,
            "liquidated_usd": float(self.closed.sum()),
            "bad_debt_usd": float(self.bad.sum()),
            "shortfall_usd": float(self.short.sum()),
            "insolvency_usd": self.insolvency_usd,
            "suppliers_bear_usd": float(self.unpaid.sum()),
            "winners_pay_usd": float(self.paid.sum()),
            "slipped_usd": float(self.slipped.sum()),
            "first_fall": self.first_fall,
            "final_fall": self.final_fall,
            "amplification": self.amplification,
            "accounts": len(self.hit),
            "owners": len(first),
            "owners_called_twice": int((venues[owners] > 1).sum()),
            "locked_usd": float(locked.sum()),
        }

    def by_venue(self) -> pl.DataFrame:
        """What each venue closed, what was missing there, and who paid for it."""
        plan, book = self.plan, self.plan.snapshot.book
        names = plan.snapshot.universe.venues
        funds = plan.snapshot.funds
        count = len(names)
        slices = plan.closing["mechanism"] == closing.SLICES
        cut, bad, unpaid, short, paid = (
            self.of_venue(column)
            for column in (self.cut, self.bad, self.unpaid, self.short, self.paid)
        )
        from_funds = (
            (funds.insurance + funds.backstop) * self.stressed.fund_mult
            + np.where(slices, cut, 0.0)
            - self.insurance
            - self.backstop
        )
        for_short = from_funds - (bad - unpaid)
        return pl.DataFrame(
            {
                "venue": pl.Series(names, dtype=pl.String),
                "accounts": np.bincount(book.venue[self.hit], minlength=count),
                "emptied": np.bincount(book.venue[self.emptied], minlength=count),
                "closed_usd": self.of_venue(self.closed),
                "repaid_usd": self.of_venue(self.repaid),
                "bad_debt_usd": bad,
                "shortfall_usd": short,
                "funds_paid_usd": _no_less(from_funds),
                "suppliers_bear_usd": unpaid,
                "winners_paid_usd": paid,
                "uncovered_usd": _no_less(short - paid - for_short, short),
                "liquidators_gain_usd": self.of_venue(self.gain),
                "venue_cut_usd": cut,
                "slipped_usd": self.of_venue(self.slipped),
            }
        ).filter(
            pl.Series(np.isin(np.arange(count), book.venue))
        ).sort("closed_usd", "venue", descending=[True, False])  # fmt: skip

    def by_asset(self) -> pl.DataFrame:
        """What each asset's market took, and where its price went."""
        universe = self.plan.snapshot.universe
        asset, count = universe.asset_of, len(universe.assets)

        def total(column: FloatColumn) -> FloatColumn:
            return frozen(np.bincount(asset, weights=column, minlength=count))

        start = np.where(self.plan.insts["inverse"] != 0, 1.0, self.plan.insts["start"])
        first, final = (
            [self._fall(price, asset == k) for k in range(count)]
            for price in (self.shocked, self.final)
        )
        return pl.DataFrame(
            {
                "asset": pl.Series(universe.assets, dtype=pl.String),
                "held_usd": total(self.plan.gross_usd),
                "first_fall": first,
                "final_fall": final,
                "closed_usd": total(self.closed),
                "sold_usd": total(self.sold * start),
                "slipped_usd": total(self.slipped),
                "bad_debt_usd": total(self.bad),
                "shortfall_usd": total(self.short),
            }
        ).filter(pl.col("held_usd") > 0.0).sort(
            "closed_usd", "asset", descending=[True, False]
        )  # fmt: skip

    def by_round(self) -> pl.DataFrame:
        """Round by round: when, how many accounts, how far prices fell, and who paid.

        `seen_fall` is that of the prices that closed accounts, weighted with what the book holds,
        and empty where no prices were kept.
        """
        flow = dict(zip(PARTIES, self.flows.T, strict=True))
        kept = len(self.path) == self.rounds
        fall = [self._fall(row) if kept else None for row in self.path] or [None] * self.rounds
        return pl.DataFrame(
            {
                "round": np.arange(self.rounds),
                "after_us": np.arange(self.rounds) * self.options.round_us,
                "accounts": self.acted,
                "seen_fall": pl.Series(fall, dtype=pl.Float64),
                "liquidators_gain_usd": flow["liquidators"],
                "funds_pay_usd": 0.0 - (flow["insurance"] + flow["backstop"]),
                "suppliers_lose_usd": 0.0 - flow["suppliers"],
                "winners_pay_usd": 0.0 - flow["counterparties"],
                "slipped_usd": flow["market"],
            }
        )

    def by_owner(self) -> pl.DataFrame:
        """Owners whose accounts were closed, and how many venues called them: ever, and at once.

        An owner that nobody knows stands behind one account each, and has no key. `at_once` is the
        largest number of venues that called in one and the same round.
        """
        called = self._log().filter(pl.col("reason") == REASONS[kernel.LIQUIDATED])
        at_once = (
            called.group_by("owner_row", "round")
            .agg(pl.col("venue").n_unique().alias("at_once"))
            .group_by("owner_row")
            .agg(pl.col("at_once").max())
        )
        found = (
            called.group_by("owner_row")
            .agg(
                pl.col("owner").first(),
                pl.col("account").n_unique().alias("accounts"),
                pl.col("venue").n_unique().alias("venues"),
                pl.col("round").min().alias("first_round"),
                pl.col("value_usd", "lost_usd").sum(),
            )
            .join(at_once, on="owner_row")
            .sort("value_usd", "owner_row", descending=[True, False])
        )
        return found.select(
            "owner", "accounts", "venues", "at_once", "first_round",
            pl.col("value_usd").alias("closed_usd"), "lost_usd",
        )  # fmt: skip

    def trace(self) -> pl.DataFrame:
        """Every closing, in order: whose, where, what for what, at which price, and what was lost.

        `share` is the part of a margin group that was closed, where a venue closes a slice of all
        contracts at once; `instrument` is then the largest of them and `qty` empty. `health` is
        that of an account which its venue closed.
        """
        return self._log().drop("owner_row")

    def reserves(self) -> pl.DataFrame:
        """Reserves that were run on: what left, what could not, and how much is lent out after."""
        snapshot = self.plan.snapshot
        liquidity, price = snapshot.liquidity, self.plan.insts["start"]
        left, locked = idle_after(self.plan, self.stressed)
        rest = liquidity.supplied - left
        used = np.divide(
            liquidity.borrowed, rest, out=np.ones_like(rest), where=rest > liquidity.borrowed
        )
        return pl.DataFrame(
            {
                "instrument": snapshot.universe.instrument_keys,
                "supplied_usd": liquidity.supplied * price,
                "borrowed_usd": liquidity.borrowed * price,
                "withdrawn_usd": left * price,
                "locked_usd": locked * price,
                "utilisation": used,
            }
        ).filter(pl.Series(self.stressed.withdrawn * liquidity.supplied > 0.0))

    def of_venue(self, column: FloatColumn) -> FloatColumn:
        """A column by instrument, added up by venue."""
        universe = self.plan.snapshot.universe
        venues = len(universe.venues)
        return frozen(np.bincount(universe.venue_of, weights=column, minlength=venues))

    def _log(self) -> pl.DataFrame:
        if self.log is None:
            raise StateError("the cascade kept no trace", hint="run it with trace=True")
        book, universe = self.plan.snapshot.book, self.plan.snapshot.universe
        rows = self.log
        names = universe.instrument_keys
        owner_row = book.owner[rows["account"]]
        owner = pl.Series("owner", book.owners[owner_row])
        venue = book.venue[rows["account"]]
        sliced = (self.plan.closing["mechanism"][venue] == closing.SLICES) & (
            rows["reason"] == kernel.LIQUIDATED
        )
        frame = pl.DataFrame(
            {
                "round": rows["round"],
                "account": book.account[rows["account"]],
                "owner": owner.set(owner < 0, None),
                "owner_row": owner_row,
                "venue": pl.Series(universe.venues, dtype=pl.String).gather(venue),
                "instrument": names.gather(_or_none(rows["inst"])),
                "other": names.gather(_or_none(rows["other"])),
                "reason": pl.Series(REASONS).gather(rows["reason"]),
                "health": rows["health"],
                "qty": rows["qty"],
                "price": rows["price"],
                "value_usd": np.abs(rows["value"]),
                "repaid_usd": rows["repaid"],
                "lost_usd": rows["lost"],
                "sliced": sliced,
            }
        )
        share = pl.when("sliced").then("qty").alias("share")
        qty = pl.when(~pl.col("sliced")).then("qty").alias("qty")
        health = pl.when(pl.col("reason") == REASONS[kernel.LIQUIDATED]).then("health")
        return frame.with_columns(share, qty, health.alias("health")).drop("sliced")


def _or_none(codes: AnyColumn) -> pl.Series:
    found = pl.Series(codes)
    return found.set(found < 0, None)


def _no_less(column: FloatColumn, scale: FloatColumn | float = 1.0) -> FloatColumn:
    """A difference of sums that cannot be negative, without the dust that subtraction leaves."""
    dust = 1e-9 * np.maximum(np.abs(scale), 1.0)
    return np.where(column > dust, column, 0.0)


def _venues_by_owner(owner: AnyColumn, venue: AnyColumn, owners: int) -> AnyColumn:
    """Of every owner, how many venues stand in these rows."""
    pairs = np.unique(np.stack([owner, venue]), axis=1)
    return np.bincount(pairs[0], minlength=owners)


def lacking_at_start(plan: Plan) -> FloatColumn:
    """[V] What accounts owe beyond what they have before any shock, in USD."""
    hold = plan.hold
    lack = _lacking(hold, hold.legs["qty"], hold.accounts["cash"], plan.insts["start"])
    return _by_venue(plan, lack * hold.accounts["times"])


def _by_venue(plan: Plan, usd: FloatColumn) -> FloatColumn:
    """Sums over accounts, by venue."""
    venues = len(plan.snapshot.universe.venues)
    return frozen(np.bincount(plan.snapshot.book.venue, weights=usd, minlength=venues))


def _lacking(
    hold: Holdings, qty: FloatColumn, cash: FloatColumn, price: FloatColumn
) -> FloatColumn:
    """By account, what it owes at `price` beyond what it has; 0 where it has enough."""
    lack = np.empty(len(cash))
    qty, cash, price = (np.ascontiguousarray(column) for column in (qty, cash, price))
    accounts.lacking(hold, qty, cash, price, lack)
    return lack
