"""Loops: borrowed against what the same money bought; their leverage, carry, and who goes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow.kernels import impact
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.places import SoldAs
from undertow.measures.crowding.redrawn import added
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import known, many, percent, told
from undertow.rules.leverage import LOOPED
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, BoolColumn, FloatColumn, Reading
from undertow.state.arrays import frozen
from undertow.state.book import CASH, COLLATERAL, DEBT, SUPPLY, UNKNOWN_OWNER
from undertow.stress.setting import pools_of
from undertow.stress.shock import require_within

_NAME = "interconnection.loops"
RISES = tuple(k / 100.0 for k in (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80))
_READ = (
    f"A loop owes at least {LOOPED:.0%} of its debt in what its collateral follows to the end "
    "(stETH against ETH, a vault share against its coin, one dollar against another), or has "
    "posted a token of which part stands on itself. Effective leverage is assets over equity: "
    "after n rounds at a ratio r it is (1 - r^(n+1)) / (1 - r), so the ratio, debt over "
    "collateral, says it all. room is the fall of the collateral against the debt at which the "
    "venue calls. Carry is what the collateral earns less what the debt costs, over equity, a "
    "year; headroom is the rise of borrow rates that brings it to 0, and who has least goes first. "
    "break_even_yield is what the collateral would have to earn on its own account. unwinding "
    "closes, for every rise of borrow rates, all loops whose carry is then below 0. What is posted "
    "in the very asset that is owed repays first, without a sale and at no cost (netted_usd); the "
    "rest is sold for, which costs what the price curves of cascades say. Loops of which a borrow "
    "rate is unknown stay out of it: unknown counts them, and where none is known nobody can say "
    "who leaves, so that what leaves is none."
)
_MISLEADS = (
    "Owners may have reasons other than carry (points, airdrops, hedges), and costs of coming and "
    "going keep loops open below break-even. What tokens themselves earn (staking, funding) is in "
    "no table: it is 0 unless yields says otherwise, as is what a reserve pays whose supply rate "
    "is unknown, so carry without it is too low and the order among different tokens is only as "
    "good as what was given. Rates are those of the instant: as "
    "loops unwind, utilisation and rates fall. Costs are those of selling at once at calm depth; a "
    "token that can be redeemed takes longer and costs less."
)


class Loops(NamedTuple):
    """Accounts that loop, one a row."""

    account: AnyColumn  # rows of the book
    collateral: FloatColumn  # USD
    debt: FloatColumn
    posted: AnyColumn  # asset most of it is
    owed: AnyColumn
    netted: FloatColumn  # USD of debt that what is posted in the same asset repays
    sells: AnyColumn  # asset most of what is then left is
    earns: FloatColumn  # USD a year
    costs: FloatColumn  # USD a year; NaN where a borrow rate is unknown
    on_itself: BoolColumn  # posted a token of which part stands on itself
    health: FloatColumn

    @property
    def equity(self) -> FloatColumn:
        """USD that is the owner's own."""
        return self.collateral - self.debt

    @property
    def for_sale(self) -> FloatColumn:
        """USD that it sells to repay what it can: its debt without what is netted."""
        return np.maximum(np.minimum(self.debt, self.collateral) - self.netted, 0.0)

    @property
    def rated(self) -> BoolColumn:
        """Whether the rates of all that it owes are known."""
        found: BoolColumn = ~np.isnan(self.costs)
        return found

    @property
    def headroom(self) -> FloatColumn:
        """Rise of borrow rates at which carry is 0; below 0 it costs already."""
        found: FloatColumn = (self.earns - self.costs) / self.debt
        return found

    @property
    def carry(self) -> FloatColumn:
        """What it earns a year, over equity; NaN where there is none."""
        own = self.equity
        lacking = np.full_like(own, np.nan)
        return np.divide(self.earns - self.costs, own, out=lacking, where=own > 0.0)


def loops(
    book: Snapshot | Crowd | Web | Any,
    *,
    yields: Mapping[str, float] | None = None,
    rises: tuple[float, ...] = RISES,
    most: int | None = 1_000,
) -> Study:
    """Who borrows against what the same money bought, at which leverage, and what unwinds it.

    `yields` is what a unit of an asset earns by itself a year (staking, a vault's strategy), beside
    what reserves pay. `rises` are those of all borrow rates, a year.

    Raises
    ------
    StateError
        When it is no book, or a yield is of no known asset.

    References
    ----------
    Szpruch, Xu, Sabate-Vidales and Aouane (2024), "Leveraged trading via lending platforms".
    """
    web = Web.of(book)
    for rise in rises:
        require_within("rises", rise, 0.0, 100.0)
    found = _found(web, _own_yields(web, yields or {}))
    tables = {
        "loops": _rows(web, found, most), "ties": _ties(web, found),
        "unwinding": _unwinding(web, found, rises),
    }  # fmt: skip
    return Study(
        name=_NAME,
        title="Who borrows against what the same money bought, and what unwinds it",
        readings=tuple(_readings(web, found, tables)),
        tables=tables,
        says=tuple(_says(web, found, tables, yields or {})),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def _own_yields(web: Web, yields: Mapping[str, float]) -> FloatColumn:
    universe = web.snapshot.universe
    found = np.zeros(len(universe.assets))
    for asset, value in yields.items():
        require_within(f"the yield of {asset}", value, -1.0, 100.0)
        found[universe.code("asset", asset)] = value
    return found


def _found(web: Web, own: FloatColumn) -> Loops:
    """The accounts that loop, with what they hold, owe, earn and pay."""
    snapshot, crowd = web.snapshot, web.crowd
    book, universe, liquidity = snapshot.book, snapshot.universe, snapshot.liquidity
    asset = universe.asset_of[book.inst]
    usd = np.abs(book.qty) * snapshot.market.mark[book.inst]
    held = np.where(np.isin(book.kind, (COLLATERAL, SUPPLY, CASH)) & (book.qty > 0.0), usd, 0.0)
    owed = np.where(book.kind == DEBT, usd, 0.0)
    debt = crowd.exposures.added(owed)
    same = _matched(book, asset, held, owed)
    tied = crowd.exposures.added(_matched(book, universe.root[asset], held, owed))
    circles = web.backing.circular[: len(universe.assets)] > 0.0
    on_itself = crowd.exposures.added(np.where(circles[asset], held, 0.0)) > 0.0
    loops = (debt > 0.0) & ((tied >= LOOPED * debt) | on_itself)
    rate_in = np.where(np.isnan(liquidity.supply_rate), 0.0, liquidity.supply_rate)
    earns = crowd.exposures.added(held * (rate_in[book.inst] + own[asset]))
    rate_out = np.where(owed > 0.0, liquidity.borrow_rate[book.inst], 0.0)
    costs = crowd.exposures.added(owed * rate_out)
    rows = np.flatnonzero(loops)
    sums = crowd.sums
    health = np.divide(sums.cover, sums.asked, out=np.full_like(debt, np.nan), where=sums.asked > 0)
    return Loops(
        account=rows, collateral=crowd.exposures.added(held)[rows], debt=debt[rows],
        posted=_largest(book, asset, held)[rows], owed=_largest(book, asset, owed)[rows],
        netted=crowd.exposures.added(same)[rows], sells=_largest(book, asset, held - same)[rows],
        earns=earns[rows], costs=costs[rows], on_itself=on_itself[rows],
        health=frozen(health[rows]),
    )  # fmt: skip


def _matched(book: Any, asset: AnyColumn, held: FloatColumn, owed: FloatColumn) -> FloatColumn:
    """By leg: USD of what is held that its account owes in the same asset."""
    key = book.leg_account * np.int64(asset.max(initial=0) + 1) + asset
    some = (held > 0.0) | (owed > 0.0)
    pairs, at = np.unique(key[some], return_inverse=True)
    mine, debt = (added(at, usd[some], len(pairs)) for usd in (held, owed))
    part = np.divide(np.minimum(mine, debt), mine, out=np.zeros_like(mine), where=mine > 0.0)
    found = np.zeros_like(held)
    found[some] = held[some] * part[at]
    return found


def _largest(book: Any, asset: AnyColumn, usd: FloatColumn) -> AnyColumn:
    """By account: the asset of its largest leg by some column."""
    order = np.lexsort((-asset, usd, book.leg_account))
    found = np.full(book.accounts, -1, dtype=np.int64)
    found[book.leg_account[order]] = asset[order]  # the last written is the largest
    return found


def _rows(web: Web, found: Loops, most: int | None) -> pl.DataFrame:
    """One row a loop, those who go first on top."""
    book, universe = web.snapshot.book, web.snapshot.universe
    owner = pl.Series(book.owners[book.owner[found.account]])
    assets = pl.Series(universe.assets, dtype=pl.String)
    at_rest = np.divide(found.costs, found.collateral)
    lever = np.divide(found.collateral, found.equity, out=np.full_like(found.debt, np.nan),
                      where=found.equity > 0.0)  # fmt: skip
    frame = pl.DataFrame(
        {
            "owner": owner.set(owner == UNKNOWN_OWNER, None),
            "account": book.account[found.account],
            "venue": pl.Series(universe.venues).gather(book.venue[found.account]),
            "collateral": assets.gather(found.posted),
            "debt": assets.gather(found.owed),
            "collateral_usd": found.collateral,
            "debt_usd": found.debt,
            "netted_usd": found.netted,
            "ratio": found.debt / found.collateral,
            "leverage": lever,
            "health": found.health,
            "room": 1.0
            - np.divide(
                1.0, found.health, out=np.full_like(found.health, np.nan), where=found.health > 0.0
            ),
            "on_itself": found.on_itself,
            "carry": found.carry,
            "headroom": found.headroom,
            "break_even_yield": at_rest,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    frame = frame.sort("headroom", "debt_usd", "account", descending=[False, True, False],
                       nulls_last=True)  # fmt: skip
    return frame if most is None else frame.head(most)


def _ties(web: Web, found: Loops) -> pl.DataFrame:
    """One row a pair of what is posted and what is owed."""
    assets = pl.Series(web.snapshot.universe.assets, dtype=pl.String)
    frame = pl.DataFrame(
        {
            "collateral": assets.gather(found.posted), "debt": assets.gather(found.owed),
            "usd": found.collateral, "owed": found.debt, "net": found.earns - found.costs,
            "headroom": found.headroom, "health": found.health,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))  # fmt: skip
    return (
        frame.group_by("collateral", "debt")
        .agg(
            pl.len().alias("accounts"), pl.col("usd").sum().alias("collateral_usd"),
            pl.col("owed").sum().alias("debt_usd"), _sum_of_known("net").alias("net_usd_a_year"),
            pl.col("headroom").min().alias("headroom_least"),
            pl.col("headroom").median().alias("headroom_median"),
            pl.col("health").min().alias("health_least"),
        )
        .with_columns(
            leverage=pl.when(pl.col("collateral_usd") > pl.col("debt_usd")).then(
                pl.col("collateral_usd") / (pl.col("collateral_usd") - pl.col("debt_usd"))
            )
        )
        .sort("debt_usd", "collateral", "debt", descending=[True, False, False])
    )  # fmt: skip


def _sum_of_known(column: str) -> pl.Expr:
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum())


def _unwinding(web: Web, found: Loops, rises: tuple[float, ...]) -> pl.DataFrame:
    """By rise of borrow rates: who has reason to leave, what they sell, and what that costs."""
    plan, universe = web.crowd.plan, web.snapshot.universe
    pools = pools_of(plan, np.ones(len(universe.instruments)), web.crowd.options)
    sold_as, price = SoldAs.of(plan), web.map.price
    place = np.arange(len(universe.assets))
    place[universe.asset_of] = sold_as.asset
    where, for_sale = place[np.maximum(found.sells, 0)], found.for_sale
    unknown = int((~found.rated).sum())
    rows: list[tuple[float | int | None, ...]] = []
    for rise in rises:
        if unknown and not found.rated.any():
            rows.append((rise, None, unknown, None, None, None, None))
            continue
        leaves = found.headroom < rise
        usd = added(where[leaves], for_sale[leaves], len(universe.assets))
        debt, netted = float(found.debt[leaves].sum()), float(found.netted[leaves].sum())
        rows.append((rise, int(leaves.sum()), unknown, debt, netted, *_sold(usd, price, pools)))
    names = {"rise": pl.Float64, "accounts": pl.Int64, "unknown": pl.Int64, "debt_usd": pl.Float64,
             "netted_usd": pl.Float64, "cost_usd": pl.Float64, "fall": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


def _sold(usd: FloatColumn, price: FloatColumn, pools: impact.Pools) -> tuple[float, float]:
    """What selling so much of every asset costs, and how far the worst of them falls."""
    cost = fall = 0.0
    for k in np.flatnonzero((usd > 0.0) & (price > 0.0)):
        qty = float(usd[k] / price[k])
        cost += float(usd[k] - impact.proceeds(k, qty, pools) * price[k])
        fall = max(fall, 1.0 - float(impact.multiplier(k, qty, pools)))
    return cost, fall


def _readings(web: Web, found: Loops, tables: dict[str, pl.DataFrame]) -> list[Reading]:
    debt, held = float(found.debt.sum()), float(found.collateral.sum())
    whole = float(web.crowd.debt.sum())
    unwinding = tables["unwinding"]
    all_out = unwinding.row(-1, named=True) if unwinding.height else None
    return [
        web.reading("interconnection.debt_in_loops", debt / whole if whole > 0.0 else None, "1",
                    "debt of loops over all debt; none without debt"),
        web.reading("interconnection.loop_leverage",
                    held / (held - debt) if held > debt else None, "1",
                    "assets of loops over their equity, a ratio of sums; none without equity"),
        web.reading("interconnection.below_break_even",
                    _below(found), "1",
                    "share of loops' debt whose carry is below 0 at the rates of the instant, by "
                    "the yields that were given; loops of which a borrow rate is unknown are on "
                    "neither side; none without loops whose rates are known"),
        web.reading("interconnection.unwind_cost", _share(all_out), "1",
                    "USD lost to price impact over the debt repaid, if all loops that the largest "
                    "rise of rates drives out leave at once; what is posted in the asset that is "
                    "owed repays without a sale; none where nobody leaves, or no rate is known"),
    ]  # fmt: skip


def _below(found: Loops) -> float | None:
    """Of the debt of loops whose rates are known: the share whose carry is below 0."""
    debt = float(found.debt[found.rated].sum())
    return float(found.debt[found.headroom < 0.0].sum()) / debt if debt > 0.0 else None


def _share(row: dict[str, Any] | None) -> float | None:
    return row["cost_usd"] / row["debt_usd"] if row is not None and row["debt_usd"] else None


def _says(
    web: Web, found: Loops, tables: dict[str, pl.DataFrame], yields: Mapping[str, float]
) -> list[str]:
    if not len(found.account):
        return ["Nobody borrows against what the same money bought."]
    ties, debt = tables["ties"], float(found.debt.sum())
    first = ties.row(0, named=True)
    words = [
        (
            f"{many(len(found.account), 'account loops', 'accounts loop')}, owing {told(debt)} USD "
            f"in all, at a leverage of {told(first['leverage'])} in the largest tie, "
            f"{first['collateral']} against {first['debt']}."
        )
    ]
    own = found.on_itself
    if own.any():
        words.append(
            f"{many(int(own.sum()), 'of them has', 'of them have')} posted a token of which part "
            f"stands on itself, against {told(float(found.debt[own].sum()))} USD."
        )
    rated = found.rated
    if rated.any():
        least = int(np.nanargmin(found.headroom))
        name = web.snapshot.universe.assets[int(found.posted[least])]
        whole = "that debt" if rated.all() else "the debt whose rates are known"
        words.append(
            f"At the rates of the instant carry is below 0 for {percent(_below(found))} of "
            f"{whole}; the first to go has posted {name} "
            f"(headroom {percent(known(float(found.headroom[least])))} a year)."
        )
    if not yields:
        words.append("What tokens earn by themselves was not given and counts as nothing.")
    if not rated.all():
        words.append(
            f"Of {many(int((~rated).sum()), 'loop')}, owing "
            f"{told(float(found.debt[~rated].sum()))} USD, a borrow rate is unknown: what is "
            "said of carry and of leaving has that debt on neither side."
        )
    row = tables["unwinding"].row(-1, named=True) if tables["unwinding"].height else None
    return words if row is None or not row["debt_usd"] else [*words, _leaving(row)]


def _leaving(row: dict[str, Any]) -> str:
    """What the largest rise of rates drives out, and what that costs."""
    out = (
        f"A rise of borrow rates by {percent(row['rise'])} a year drives out "
        f"{told(row['debt_usd'])} USD of debt"
    )
    if row["netted_usd"] > 0.0:
        out += (
            f", of which {told(row['netted_usd'])} USD are owed in what is posted and repaid "
            "without a sale"
        )
    if row["cost_usd"] <= 0.0:
        return f"{out}; repaying it moves no price."
    repay = "repay the rest" if row["netted_usd"] > 0.0 else "repay it"
    return (
        f"{out}; selling at once to {repay} costs {percent(_share(row))} of that debt and takes "
        f"the worst price down by {percent(row['fall'])}."
    )
