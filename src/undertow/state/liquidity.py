"""Where a forced sale can go: ladders, pools, what trades in a day, what a reserve has lent.

The e-fold depth of an instrument stands in `Market`, where a shock can thin it; here is all that
says more than one number does. Ladders are of instruments (from bands of depth) or of pools (from
levels of a book); a pool is a place where an asset is sold, whatever instruments lean on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.kernels import impact
from undertow.state.arrays import (
    CodeColumn,
    FloatColumn,
    KeyColumn,
    ShortColumn,
    SmallColumn,
    digest,
    frozen,
)
from undertow.state.market import E_FOLD
from undertow.state.present import believed, given_rows
from undertow.state.universe import Universe, encode

DAY_US = 86_400_000_000
STALE_VOLUME_US = 31 * DAY_US  # what traded before that says nothing of today
POOL_MODELS = {
    "constant_product": impact.CONSTANT_PRODUCT,
    "ladder": impact.LADDER,
    "square_root": impact.SQRT,
    "linear": impact.LINEAR,
    "exponential": impact.EXPONENTIAL,
}


@dataclass(frozen=True, eq=False)
class Ladders:
    """Resting quantity by price, on both sides of many books, in the layout of the impact kernels.

    Book k takes sales in the levels start[2k]:start[2k + 1] and purchases in those from
    start[2k + 1] to start[2k + 2], nearest first.
    """

    start: KeyColumn  # (2 * books + 1,)
    reach: FloatColumn  # base units from the touch to the end of the level
    ratio: FloatColumn  # price of the level over the mid price

    @classmethod
    def from_levels(
        cls, books: int, side: CodeColumn, qty: FloatColumn, ratio: FloatColumn
    ) -> Ladders:
        """Lay levels out by `side`, which is 2k where book k is sold into and 2k + 1 beyond.

        Levels may come in any order; those of one price are added up, empty ones left out.
        """
        held = qty > 0.0
        side, qty, ratio = side[held], qty[held], ratio[held]
        far = np.where(side % 2 == 0, -ratio, ratio)
        order = np.lexsort((qty, far, side))
        side, qty, ratio = side[order], qty[order], ratio[order]
        head = np.ones(len(side), dtype=np.bool_)
        head[1:] = (side[1:] != side[:-1]) | (ratio[1:] != ratio[:-1])
        level = np.flatnonzero(head)
        merged = np.add.reduceat(qty, level) if len(level) else qty
        start = np.zeros(2 * books + 1, dtype=np.int64)
        np.cumsum(np.bincount(side[level], minlength=2 * books), out=start[1:])
        # Each side's own sum, in its order: the bits do not depend on what other books hold.
        levels = pl.DataFrame({"side": side[level], "qty": merged})
        reach = levels.select(pl.col("qty").cum_sum().over("side"))["qty"].to_numpy()
        return cls(frozen(start), frozen(reach), frozen(ratio[level]))

    @property
    def columns(self) -> tuple[KeyColumn, FloatColumn, FloatColumn]:
        """All three columns."""
        return self.start, self.reach, self.ratio

    def levels(self, book: int, *, sold: bool = True) -> tuple[FloatColumn, FloatColumn]:
        """`reach` and `ratio` of the levels that sales into `book`, or purchases from it, eat."""
        at = 2 * book + (not sold)
        rows = slice(self.start[at], self.start[at + 1])
        return self.reach[rows], self.ratio[rows]


@dataclass(frozen=True, eq=False)
class Liquidity:
    """What a sale meets, by instrument and by pool."""

    universe: Universe
    # by instrument
    ladders: Ladders  # each band at its far edge, so that a sale fetches no more than was shown
    daily: FloatColumn  # base units that trade in a day; 0 where nobody knows
    supplied: FloatColumn  # base units in the reserve; 0 where it is none, or nobody knows
    borrowed: FloatColumn
    supply_rate: FloatColumn  # what suppliers earn a year; NaN where nobody says
    borrow_rate: FloatColumn  # what borrowers pay a year; NaN where nobody says
    # by pool
    pools: tuple[str, ...]  # keys, sorted
    venue: ShortColumn
    asset: CodeColumn  # what is sold into it
    quote: CodeColumn  # what it pays
    model: SmallColumn  # a model of the impact kernels
    price: FloatColumn  # of a ladder, its mid
    depth: FloatColumn  # e-fold base units at the margin; 0 of a ladder
    reserve: FloatColumn  # base units in a constant-product pool, 0 elsewhere
    quote_reserve: FloatColumn  # 0 where there is none, or nobody knows
    fee: FloatColumn
    books: Ladders  # of the pools that are ladders

    @classmethod
    def from_frames(
        cls,
        universe: Universe,
        ts: int,
        *,
        depth: Any = None,
        pools: Any = None,
        volumes: Any = None,
        reserves: Any = None,
    ) -> Liquidity:
        """Read what is known at `ts`; any table may be absent.

        Raises
        ------
        SchemaError
            When a table does not fit its declared columns.
        StateError
            When a name is unknown, bands or levels of a book contradict each other, or the rows of
            one pool do.
        """
        lent = _reserves(universe, given_rows("reserves", reserves))
        return cls(
            universe=universe,
            ladders=_bands(universe, given_rows("depth", depth)),
            daily=_daily(universe, given_rows("volumes", volumes), ts),
            **lent,
            **_pools(universe, given_rows("pools", pools)),
        )

    def __repr__(self) -> str:
        laddered = int((np.diff(self.ladders.start[::2]) > 0).sum())
        return (
            f"Liquidity({laddered} ladders, {int((self.daily > 0).sum())} volumes, "
            f"{int((self.supplied > 0).sum())} reserves, {len(self.pools)} pools)"
        )

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        return digest(
            self.universe.digest,
            "\x00".join(self.pools),
            *(*self.ladders.columns, self.daily, self.supplied, self.borrowed),
            *(self.supply_rate, self.borrow_rate),
            *(self.venue, self.asset, self.quote, self.model, self.price, self.depth),
            *(self.reserve, self.quote_reserve, self.fee, *self.books.columns),
        )


def _bands(universe: Universe, rows: pl.DataFrame) -> Ladders:
    """Ladders from cumulative quantities within bands; the e-fold quantity is no band."""
    rows = believed(rows.filter(pl.col("band") != E_FOLD), "instrument", "side")
    rows = rows.sort("instrument", "side", "band")
    within = pl.col("qty").shift(1, fill_value=0.0).over("instrument", "side")
    rows = rows.with_columns(added=pl.col("qty") - within)
    less = rows.filter(pl.col("added") < 0.0)
    if less.height:
        at = less.row(0, named=True)
        raise StateError(
            f"{at['instrument']} holds less within {at['band']:g} of mid than nearer to it "
            f"on the {at['side']} side",
            source="depth",
            column="qty",
            hint="give quantities that add up from mid outwards",
        )
    inst = _encoded(universe, rows, "instrument", "depth")
    band, bid = rows["band"].to_numpy(), (rows["side"] == "bid").to_numpy()
    ratio = np.where(bid, 1.0 - band, 1.0 + band)
    side = 2 * inst + np.where(bid, 0, 1)
    return Ladders.from_levels(len(universe.instruments), side, rows["added"].to_numpy(), ratio)


def _daily(universe: Universe, rows: pl.DataFrame, ts: int) -> FloatColumn:
    """Base units a day: the mean rate over the last day that the newest source speaks of.

    A span that is not over at `ts` is not known then; one that began a month before is stale.
    """
    age = ts - pl.col("ts").to_physical()
    rows = rows.filter(age.is_between(pl.col("interval_us"), STALE_VOLUME_US))
    rows = rows.with_columns(end=pl.col("interval_us") - age)  # at most 0, which is now
    newest = rows.group_by("instrument", "source").agg(pl.col("end").max().alias("last"))
    newest = newest.sort("instrument", "last", "source")
    newest = newest.unique("instrument", keep="last", maintain_order=True)
    recent = rows.join(newest, on=["instrument", "source"]).filter(
        pl.col("end") > pl.col("last") - DAY_US
    )
    per_day = recent.sort("instrument", "ts").group_by("instrument", maintain_order=True).agg(
        (pl.col("base").sum() * DAY_US / pl.col("interval_us").sum()).alias("base")
    )  # fmt: skip
    daily = np.zeros(len(universe.instruments))
    daily[_encoded(universe, per_day, "instrument", "volumes")] = per_day["base"].to_numpy()
    return frozen(daily)


def _reserves(universe: Universe, rows: pl.DataFrame) -> dict[str, Any]:
    """What each instrument has lent and at which rates; 0 and NaN where it is no reserve."""
    rows = believed(rows, "instrument")
    inst = _encoded(universe, rows, "instrument", "reserves")
    found: dict[str, Any] = {}
    for name, lacking in (("supplied", 0.0), ("borrowed", 0.0), ("supply_rate", np.nan),
                          ("borrow_rate", np.nan)):  # fmt: skip
        column = np.full(len(universe.instruments), lacking)
        column[inst] = rows[name].cast(pl.Float64).fill_null(lacking).to_numpy()
        found[name] = frozen(column)
    return found


def _pools(universe: Universe, rows: pl.DataFrame) -> dict[str, Any]:
    """The columns by pool; what holds nothing takes no sale and is left out."""
    rows = believed(rows.filter(pl.col("qty") > 0.0), "pool").sort("pool", "side", "level")
    _check_pools(rows)
    each = rows.unique("pool", keep="first", maintain_order=True)
    model = np.array([POOL_MODELS[name] for name in each["model"]], dtype=np.int8)
    qty = each["qty"].to_numpy()
    swaps, laddered = model == impact.CONSTANT_PRODUCT, model == impact.LADDER
    books, mid = _books(each["pool"], rows.filter(pl.col("model") == "ladder"))
    return {
        "pools": tuple(each["pool"]),
        "venue": frozen(_encoded(universe, each, "venue", "pools").astype(np.int16)),
        "asset": frozen(_encoded(universe, each, "asset", "pools")),
        "quote": frozen(_encoded(universe, each, "quote", "pools")),
        "model": frozen(model),
        "price": frozen(np.where(laddered, mid, each["price"].to_numpy())),
        "depth": frozen(np.where(laddered, 0.0, np.where(swaps, 0.5 * qty, qty))),
        "reserve": frozen(np.where(swaps, qty, 0.0)),
        "quote_reserve": frozen(np.where(swaps, each["quote_qty"].fill_null(0.0).to_numpy(), 0.0)),
        "fee": frozen(each["fee"].fill_null(0.0).to_numpy()),
        "books": books,
    }


def pool_faults(*pool: str) -> tuple[tuple[pl.Expr, str, str, str], ...]:
    """Which rows of pools cannot be, as (wrong, column, words, hint).

    A pool is of one model at one venue, only a ladder has levels and sides, and its bids stand
    below its asks. Rows that agree in the columns `pool` are of one pool; empty ones are left out.
    """
    ladder, side, price = pl.col("model") == "ladder", pl.col("side"), pl.col("price")
    bid = price.filter(side == "bid").max().over(pool)
    ask = price.filter(side == "ask").min().over(pool)
    return (
        (pl.struct("venue", "asset", "quote", "model").n_unique().over(pool) > 1,
         "model", "is described in two ways", "give one venue, asset, quote and model"),
        (~ladder & (pl.len().over(pool) > 1),
         "level", "has several rows", "only a ladder has several levels"),
        (ladder & side.is_null(), "side", "has a level without a side", "say bid or ask"),
        (ladder & (bid >= ask),
         "price", "is crossed: a bid at or above an ask", "take bids and asks of one instant"),
    )  # fmt: skip


def _check_pools(rows: pl.DataFrame) -> None:
    for fault, column, words, hint in pool_faults("pool"):
        wrong = rows.filter(fault)
        if wrong.height:
            name = wrong["pool"][0]
            raise StateError(f"the pool {name!r} {words}", source="pools", column=column, hint=hint)


def _books(pools: pl.Series, rows: pl.DataFrame) -> tuple[Ladders, FloatColumn]:
    """Ladders around the mid of best bid and best ask; of a one-sided book, around its best."""
    pool = encode(rows["pool"], pools, what="pool", source="pools")
    price, bid = rows["price"].to_numpy(), (rows["side"] == "bid").to_numpy()
    best_bid, best_ask = np.zeros(len(pools)), np.full(len(pools), np.inf)
    np.maximum.at(best_bid, pool[bid], price[bid])
    np.minimum.at(best_ask, pool[~bid], price[~bid])
    two_sided = (best_bid > 0.0) & np.isfinite(best_ask)
    lone = np.where(best_bid > 0.0, best_bid, best_ask)
    mid = np.where(two_sided, 0.5 * (best_bid + best_ask), lone)
    side = 2 * pool + np.where(bid, 0, 1)
    qty = rows["qty"].to_numpy()
    return Ladders.from_levels(len(pools), side, qty, price / mid[pool]), mid


def _encoded(universe: Universe, rows: pl.DataFrame, column: str, source: str) -> CodeColumn:
    """Codes of a column of names; `quote` names an asset."""
    names = {"instrument": universe.instruments, "venue": universe.venues}
    keys = pl.Series(names.get(column, universe.assets), dtype=pl.String)
    return encode(rows[column], keys, what=column, source=source)
