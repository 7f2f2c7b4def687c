"""Who bought and sold how much, step by step, read off books at many instants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.words import day
from undertow.rules.margins import market_exposure, option_deltas
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import digest, frozen
from undertow.state.book import UNKNOWN_OWNER
from undertow.stress.worth import asset_prices

TRADED = 1e-3  # of a leg, below which a change of quantity is interest and no trade
_CANDIDATES = 3  # times as many as are kept, of whom flow is followed at each instant


@dataclass(frozen=True, eq=False)
class OwnerFlows:
    """Signed flow of the largest owners: rows are steps, columns owners.

    Flow is in USD at the prices before the step, positive where bought; NaN where an owner was not
    among the largest at either end of the step. Money is no flow. An account of no known owner is
    its own, with a negative key.
    """

    ts: KeyColumn  # (steps,) microseconds at which each step ends
    owners: KeyColumn
    flow: FloatMatrix  # (steps, owners)
    returns: FloatMatrix  # (steps, owners) log return of what each is exposed to, on average
    leveraged: FloatColumn  # (owners,) USD, the mean over the instants

    @classmethod
    def from_arrays(
        cls, ts: KeyColumn, owners: KeyColumn, flow: FloatMatrix, returns: FloatMatrix,
        leveraged: FloatColumn,
    ) -> OwnerFlows:  # fmt: skip
        """Check that shapes agree, and close the arrays to writing.

        Raises
        ------
        StateError
            When they do not, or instants do not increase.
        """
        shape = (len(ts), len(owners))
        arrays = [np.array(each, dtype=np.float64) for each in (flow, returns, leveraged)]
        if arrays[0].shape != shape or arrays[1].shape != shape or len(arrays[2]) != shape[1]:
            raise StateError(
                f"flow is {arrays[0].shape}, returns {arrays[1].shape} and leveraged "
                f"{arrays[2].shape}; {shape[0]} steps and {shape[1]} owners were given"
            )
        moments = np.array(ts, dtype=np.int64)
        if (np.diff(moments) <= 0).any():
            raise StateError("instants must increase", source="flows")
        keys = np.array(owners, dtype=np.int64)
        return cls(frozen(moments), frozen(keys), *map(frozen, arrays))

    def __repr__(self) -> str:
        return f"OwnerFlows({len(self.ts):,} steps x {len(self.owners):,} owners)"

    @property
    def digest(self) -> str:
        """A hash of all that is in it."""
        return digest(self.ts, self.owners, self.flow, self.returns, self.leveraged)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is kept of one instant: legs of the largest owners."""

    ts: int
    held: pl.DataFrame  # owner, instrument, qty, price, asset
    owners: KeyColumn
    leveraged: FloatColumn
    prices: dict[str, float]


def owner_flows(snapshots: Iterable[Snapshot], *, top: int = 100) -> OwnerFlows:
    """Flow of the `top` owners with most leveraged USD over all instants, the oldest first.

    A change below a thousandth of a leg is interest. At each instant three times as many owners are
    followed as are kept in the end.

    Raises
    ------
    StateError
        When there are fewer than two snapshots, they do not come in order, or nobody is leveraged.
    """
    if top < 1:
        raise StateError(f"top was {top}; one owner at least is needed")
    keys: list[int] = []
    moved: list[pl.DataFrame] = []
    exposed: list[pl.DataFrame] = []
    sizes: list[pl.DataFrame] = []
    returns: list[dict[str, float]] = []
    for before, after in pairwise(_all_seen(snapshots, top)):
        if after.ts <= before.ts:
            raise StateError(
                f"the snapshot of {day(after.ts)} comes after that of {day(before.ts)}",
                hint="give each instant once, the oldest first",
            )
        step = pl.lit(len(keys)).cast(pl.Int64).alias("step")
        both = np.intersect1d(before.owners, after.owners)
        moved.append(_traded(before, after, both).with_columns(step))
        exposed.append(before.held.select("owner", "asset", usd=(pl.col("qty") * pl.col("price"))))
        sizes += [
            pl.DataFrame({"owner": each.owners, "usd": each.leveraged})
            for each in ([after] if keys else [before, after])
        ]
        returns.append({
            name: float(np.log(after.prices[name] / price))
            for name, price in before.prices.items()
            if price > 0.0 and after.prices.get(name, 0.0) > 0.0
        })  # fmt: skip
        keys.append(after.ts)
    if not keys:
        raise StateError("flow takes two snapshots at least")
    owners = _largest(pl.concat(sizes), len(keys) + 1, top)
    if not owners.height:
        raise StateError("nobody is leveraged at any instant")
    place = owners.select("owner").with_row_index("column")
    flow = np.full((len(keys), owners.height), np.nan)
    rows = pl.concat(moved).join(place, on="owner")
    flow[rows["step"].to_numpy(), rows["column"].to_numpy()] = rows["usd"].to_numpy()
    return OwnerFlows.from_arrays(
        np.array(keys), owners["owner"].to_numpy(), flow,
        _baskets(pl.concat(exposed), place, returns), owners["usd"].to_numpy(),
    )  # fmt: skip


def _all_seen(snapshots: Iterable[Snapshot], top: int) -> Iterator[_Seen]:
    for snapshot in snapshots:
        yield _seen(Crowd.of(snapshot), _CANDIDATES * top)


def _seen(crowd: Crowd, most: int) -> _Seen:
    snapshot, book = crowd.snapshot, crowd.snapshot.book
    universe, market = snapshot.universe, snapshot.market
    size: FloatColumn = np.bincount(
        crowd.holder, crowd.leveraged, minlength=len(book.owners)
    ).astype(np.float64)
    kept = np.flatnonzero(size > 0.0)
    kept = kept[np.argsort(-size[kept], kind="stable")[:most]]
    first = np.searchsorted(book.owner, np.arange(len(book.owners)))
    named = book.owners != UNKNOWN_OWNER
    key = np.where(named, book.owners, -2 - book.account[np.minimum(first, book.accounts - 1)])
    chosen = np.zeros(len(book.owners), dtype=np.bool_)
    chosen[kept] = True
    legs = np.flatnonzero(chosen[book.owner[book.leg_account]])
    face = np.where(universe.inverse, 1.0, market.mark)
    price = np.where(universe.strike > 0.0, option_deltas(snapshot) * market.index, face)
    price = price * market_exposure(universe)
    inst = book.inst[legs]
    held = pl.DataFrame(
        {
            "owner": key[book.owner[book.leg_account[legs]]],
            "instrument": universe.instrument_keys.gather(inst),
            "asset": pl.Series(universe.assets, dtype=pl.String).gather(universe.asset_of[inst]),
            "qty": book.qty[legs],
            "price": price[inst],
        }
    ).filter(pl.col("price") != 0.0)
    by = ["owner", "instrument", "asset"]
    added = held.sort(by).group_by(by, maintain_order=True).agg(
        pl.col("qty").sum(), pl.col("price").first()
    )  # fmt: skip
    prices = dict(zip(universe.assets, asset_prices(snapshot).tolist(), strict=True))
    return _Seen(snapshot.ts, added, key[kept], size[kept], prices)


def _traded(before: _Seen, after: _Seen, owners: KeyColumn) -> pl.DataFrame:
    """Signed USD that each owner seen at both ends bought, at the prices before."""
    on = ["owner", "instrument"]
    both = before.held.join(after.held, on=on, how="full", coalesce=True, suffix="_after")
    now, then = pl.col("qty_after").fill_null(0.0), pl.col("qty").fill_null(0.0)
    change = now - then
    real = change.abs() > TRADED * pl.max_horizontal(now.abs(), then.abs())
    usd = pl.when(real).then(change * pl.coalesce("price", "price_after")).otherwise(0.0)
    sums = both.sort(on).group_by("owner", maintain_order=True).agg(usd.sum().alias("usd"))
    every = pl.DataFrame({"owner": owners}).join(sums, on="owner", how="left")
    return every.with_columns(pl.col("usd").fill_null(0.0))


def _largest(sizes: pl.DataFrame, instants: int, top: int) -> pl.DataFrame:
    """The owners with most leveraged USD, the mean over all instants."""
    mean = sizes.sort("owner").group_by("owner", maintain_order=True).agg(
        (pl.col("usd").sum() / instants).alias("usd")
    )  # fmt: skip
    return mean.sort("usd", "owner", descending=[True, False]).head(top)


def _baskets(
    exposed: pl.DataFrame, place: pl.DataFrame, returns: list[dict[str, float]]
) -> FloatMatrix:
    """(steps, owners) Return of what each was exposed to over all instants, by gross USD."""
    gross = exposed.join(place, on="owner").with_columns(pl.col("usd").abs())
    gross = gross.sort("column", "asset").group_by("column", "asset", maintain_order=True).agg(
        pl.col("usd").sum()
    )  # fmt: skip
    assets = sorted({name for row in returns for name in row})
    column = {name: k for k, name in enumerate(assets)}
    moves = np.array([[row.get(name, 0.0) for name in assets] for row in returns])
    weight = np.zeros((len(assets), place.height))
    for at, asset, usd in gross.iter_rows():
        if asset in column:
            weight[column[asset], at] += usd
    total = weight.sum(axis=0)
    found: FloatMatrix = moves.reshape(len(returns), len(assets)) @ np.divide(
        weight, total, out=np.zeros_like(weight), where=total > 0.0
    )
    return found
