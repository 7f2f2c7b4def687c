"""An isolated lending market rebuilt at any instant, from its final positions and its log.

`positions` are rows of `user`, `supply_shares`, `borrow_shares`, `collateral`. `acts` are rows of
`ts`, `user`, `kind` (see `MOVES`), `assets` and `shares`: assets in the loan token, or in the
collateral where that moves. `totals` are rows of `ts`, `supplied`, `borrowed`, `collateral`, as
the venue stated them. Shares are exact however much interest came between; what they are worth
needs an index, which is the stated total over the shares rolled to that time.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.errors import StateError

SHARES = ("supply_shares", "borrow_shares", "collateral")
MOVES = {  # signs of supply shares, borrow shares, collateral; then of idle money
    "supply": (1.0, 0.0, 0.0, 1.0),
    "withdraw": (-1.0, 0.0, 0.0, -1.0),
    "borrow": (0.0, 1.0, 0.0, -1.0),
    "repay": (0.0, -1.0, 0.0, 1.0),
    "add_collateral": (0.0, 0.0, 1.0, 0.0),
    "take_collateral": (0.0, 0.0, -1.0, 0.0),
    "repaid_by_liquidator": (0.0, -1.0, 0.0, 1.0),
    "seized": (0.0, 0.0, -1.0, 0.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class RolledMarket:
    """A market at one instant: who has lent, who owes, and what lies idle."""

    ts: dt.datetime
    lenders: pl.DataFrame  # user, claim: in the loan token, largest first
    borrowers: pl.DataFrame  # user, debt, collateral, largest debt first
    supplied: float
    borrowed: float

    @property
    def idle(self) -> float:
        """What could be withdrawn at once."""
        return self.supplied - self.borrowed

    @property
    def utilisation(self) -> float:
        """Share of what was supplied that is lent out; 0 of an empty market."""
        return self.borrowed / self.supplied if self.supplied else 0.0


@dataclass(frozen=True, slots=True)
class RollCheck:
    """How well a log, final positions and stated totals agree; 0 throughout is perfect."""

    stamps: int
    idle_error: float  # largest error of idle money, flows alone, in the loan token
    collateral_error: float  # largest relative error of all collateral
    index_falls: int  # times that an index fell: debts and deposits only grow
    index_error: float  # largest relative distance of an act's own index from its hour's
    overdrawn: float  # most that any holding was below 0, as a share of the total


def moved(acts: pl.DataFrame) -> pl.DataFrame:
    """Acts with what each changes: the three columns of `positions`, and `idle`."""
    unknown = set(acts["kind"].unique()) - MOVES.keys()
    if unknown:
        raise StateError(f"acts had kinds {sorted(unknown)}; known are {sorted(MOVES)}")
    signs = [
        pl.col("kind").replace_strict({kind: row[k] for kind, row in MOVES.items()})
        for k in range(4)
    ]
    return acts.with_columns(
        supply_shares=signs[0] * pl.col("shares").fill_null(0.0),
        borrow_shares=signs[1] * pl.col("shares").fill_null(0.0),
        collateral=signs[2] * pl.col("assets"),
        idle=signs[3] * pl.col("assets"),
    )


def roll_back(positions: pl.DataFrame, acts: pl.DataFrame, at: dt.datetime) -> pl.DataFrame:
    """Positions as they stood at an instant, acts of that very instant included."""
    return _add(positions, acts.filter(pl.col("ts") > at), -1.0)


def roll_forward(
    positions: pl.DataFrame, acts: pl.DataFrame, since: dt.datetime, until: dt.datetime
) -> pl.DataFrame:
    """Positions of `until`, from those of `since`: undoes `roll_back`."""
    between = (pl.col("ts") > since) & (pl.col("ts") <= until)
    return _add(positions, acts.filter(between), 1.0)


def indices(positions: pl.DataFrame, acts: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    """What a share was worth at each stated time: `ts`, `supply_index`, `borrow_index`."""
    end = {name: _total(positions, name) for name in SHARES[:2]}
    change = moved(acts).sort("ts").select("ts", *SHARES[:2])
    later = change.group_by("ts", maintain_order=True).agg(pl.all().sum()).sort("ts").with_columns(
        **{name: end[name] - pl.col(name).sum() + pl.col(name).cum_sum() for name in SHARES[:2]}
    )  # fmt: skip
    first = {name: end[name] - _total(change, name) for name in SHARES[:2]}
    held = totals.sort("ts").join_asof(later, on="ts")
    return held.select(
        "ts",
        supply_index=pl.col("supplied") / pl.col("supply_shares").fill_null(first["supply_shares"]),
        borrow_index=pl.col("borrowed") / pl.col("borrow_shares").fill_null(first["borrow_shares"]),
    )


def rebuild_market(
    positions: pl.DataFrame, acts: pl.DataFrame, totals: pl.DataFrame, at: dt.datetime
) -> RolledMarket:
    """The market at one of the times at which its totals were stated."""
    stated = totals.filter(pl.col("ts") == at)
    if stated.height != 1:
        raise StateError(f"totals have {stated.height} rows of {at}; give a time that is stated")
    rolled = roll_back(positions, acts, at)
    supplied, borrowed = stated["supplied"].item(), stated["borrowed"].item()
    worth = {
        "claim": pl.col("supply_shares") * (supplied / rolled["supply_shares"].sum()),
        "debt": pl.col("borrow_shares") * (borrowed / rolled["borrow_shares"].sum()),
    }
    valued = rolled.with_columns(**worth)
    return RolledMarket(
        at,
        valued.filter(pl.col("claim") > 0.0).select("user", "claim")
        .sort("claim", "user", descending=[True, False]),
        valued.filter((pl.col("debt") > 0.0) | (pl.col("collateral") > 0.0))
        .select("user", "debt", "collateral").sort("debt", "user", descending=[True, False]),
        supplied,
        borrowed,
    )  # fmt: skip


def check_roll(positions: pl.DataFrame, acts: pl.DataFrame, totals: pl.DataFrame) -> RollCheck:
    """Hold a rolled market against everything that must be so.

    Idle money needs no index, as interest raises what is owed and what is due alike. An act states
    an index of its own, assets over shares; acts of less than one token state it too roughly, and
    are passed over.
    """
    change, stated = moved(acts).sort("ts"), totals.sort("ts")
    flows = change.select("ts", pl.col("idle", "collateral").cum_sum())
    seen = stated.join_asof(flows.rename({"collateral": "added"}), on="ts").fill_null(0.0)
    idle = (seen["supplied"] - seen["borrowed"]) - seen["idle"]
    posted = seen["collateral"] - seen["added"]
    end = _total(positions, "collateral") - _total(change, "collateral")
    path = indices(positions, acts, totals)
    falls = sum(int((path[name].diff() < 0.0).sum()) for name in ("supply_index", "borrow_index"))
    return RollCheck(
        stamps=stated.height,
        idle_error=_largest(idle - idle[0]),
        collateral_error=_largest(posted / end - 1.0),
        index_falls=falls,
        index_error=_index_error(change, path),
        overdrawn=_overdrawn(positions, change),
    )


def _index_error(change: pl.DataFrame, path: pl.DataFrame) -> float:
    """Largest relative distance of indices that acts state from the two stated around them."""
    worst = 0.0
    for name, kinds in (
        ("supply_index", ["supply", "withdraw"]),
        ("borrow_index", ["borrow", "repay"]),
    ):
        own = change.filter(pl.col("kind").is_in(kinds) & (pl.col("assets") >= 1.0)).select(
            "ts", own=pl.col("assets") / pl.col("shares")
        )
        around = own.join_asof(path.select("ts", low=name), on="ts").join_asof(
            path.select("ts", high=name), on="ts", strategy="forward"
        )
        out = around.drop_nulls().select(
            pl.max_horizontal(
                1.0 - pl.col("own") / pl.col("low"), pl.col("own") / pl.col("high") - 1.0, 0.0
            ).max()
        )
        worst = max(worst, float(out.item() or 0.0))
    return worst


def _overdrawn(positions: pl.DataFrame, change: pl.DataFrame) -> float:
    """The most below 0 that any holding comes on the way back, as a share of its total."""
    worst = 0.0
    for name in SHARES:
        total = _total(positions, name)
        end = positions.select("user", end=name)
        path = (
            change.join(end, on="user", how="left")
            .sort("ts", descending=True)
            .with_columns(before=pl.col("end").fill_null(0.0) - pl.col(name).cum_sum().over("user"))
        )
        worst = max(worst, _largest(path["before"].clip(upper_bound=0.0)) / (total or 1.0))
    return worst


def _largest(values: pl.Series) -> float:
    return float(np.abs(values.to_numpy()).max(initial=0.0))


def _total(frame: pl.DataFrame, name: str) -> float:
    return float(frame[name].sum())


def _add(positions: pl.DataFrame, acts: pl.DataFrame, sign: float) -> pl.DataFrame:
    change = moved(acts).select("user", *(pl.col(name) * sign for name in SHARES))
    return (
        pl.concat([positions.select("user", *SHARES), change])
        .group_by("user")
        .agg(pl.all().sum())
        .sort("user")
    )
