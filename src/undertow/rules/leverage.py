"""Every definition of leverage, side by side, of whatever a book can be divided into.

A definition sets what legs are exposed to against what stands behind them. What stands behind an
account (its equity, its debt) is split over its legs as their exposure is, so the parts of any
division add up to the whole. A value is a ratio of sums, never a mean of ratios, which explodes
where equity is near zero. An account without equity has no leverage: it is counted beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.rules.coverage import Coverage
from undertow.rules.margins import account_sums, option_deltas
from undertow.rules.snapshot import Snapshot
from undertow.state import (
    BoolColumn,
    CodeColumn,
    FloatColumn,
    FloatMatrix,
    KeyColumn,
    Panel,
    ShortColumn,
)
from undertow.state.arrays import frozen
from undertow.state.book import CASH, COLLATERAL, DEBT, FUTURE, OPTION, PERP, SUPPLY
from undertow.state.universe import NONE

GROUPS = ("asset", "venue", "protocol", "chain", "sector", "cohort", "all")
COHORTS = (1e3, 1e4, 1e5, 1e6, 1e7)  # USD of equity at which one cohort ends and the next begins
LOOPED = 0.9  # share of its debt that an account owes in what its collateral follows, to be a loop


@dataclass(frozen=True, slots=True)
class Definition:
    """One way to say how leveraged somebody is.

    Of `who` it speaks, the legs' exposures named in `legs` are added up and set against what of
    `against` stands behind them; `inverted` turns the ratio round.
    """

    name: str
    formula: str
    valid: str  # when it means something, and when it misleads
    legs: tuple[str, ...] = ()
    against: str = "equity"
    who: str = "all"
    inverted: bool = False
    unit: str = "1"

    @property
    def of_positions(self) -> bool:
        """Whether positions give it; if not, it is made of market series."""
        return bool(self.legs)


DEFINITIONS = (
    Definition(
        "leverage",
        "(assets held outright by those who lend or borrow + gross derivative notional) / equity",
        "of everybody: assets over equity where only something is lent, gross notional over equity "
        "where only derivatives are held. A hedge counts on both sides",
        ("outright", "notional", "delta"),
    ),
    Definition(
        "assets_to_equity",
        "assets held outright / equity",
        "of lenders and borrowers: at least 1, and no more than its rules let it begin at",
        ("outright",),
        who="lenders",
    ),
    Definition(
        "gross_notional_to_equity",
        "(gross notional + delta equivalents of options) / equity",
        "of traders: long and short of one contract are counted twice, as two who may be closed; "
        "on coin margin it moves with the price though nobody trades",
        ("notional", "delta"),
        who="traders",
    ),
    Definition(
        "debt_to_collateral",
        "debt / assets held outright",
        "of lenders and borrowers: between 0 and the loan-to-value of the rules unless under water",
        ("outright",),
        "debt",
        "lenders",
        inverted=True,
    ),
    Definition(
        "option_leverage",
        "sum of |delta| * underlying / value of the options",
        "of option holders, long and short: far out of the money it grows without bound as the "
        "value goes to nothing, and delta says nothing of gamma",
        ("delta",),
        "premium",
        "option holders",
    ),
    Definition(
        "loop_multiplier",
        "assets held outright / equity",
        f"of those who owe at least {LOOPED:.0%} of their debt in what their collateral follows "
        "(stETH against ETH): price risk is the tie's, not the market's",
        ("outright",),
        who="loops",
    ),
    Definition(
        "oi_to_reserve",
        "open interest / coins held at the venue",
        "of a venue or coin: the reserve also backs spot, and open interest is one number with two "
        "sides; moving coins to another address looks like leverage",
    ),
    Definition(
        "oi_to_market_cap",
        "open interest / market capitalisation",
        "of a coin: supply that never trades makes it look calm",
    ),
    Definition(
        "oi_to_depth",
        "open interest / quantity that moves the price by one e-fold or within a stated band",
        "of an instrument: depth of calm days is the wrong depth on the day that counts",
    ),
)


def definition(name: str) -> Definition:
    """The definition of that name.

    Raises
    ------
    StateError
        When there is none.
    """
    for each in DEFINITIONS:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in DEFINITIONS)
    raise StateError(f"there is no definition of leverage called {name!r}", hint=f"have {names}")


@dataclass(frozen=True, eq=False)
class Exposures:
    """What legs are exposed to and what stands behind accounts, in USD."""

    snapshot: Snapshot
    outright: FloatColumn  # (legs,) held outright by accounts that lend or borrow
    owed: FloatColumn  # (legs,) debt
    notional: FloatColumn  # (legs,) gross, of perps and futures
    delta: FloatColumn  # (legs,) what options are worth in their underlying, gross
    premium: FloatColumn  # (legs,) what the options themselves are worth, gross
    equity: FloatColumn  # (accounts,)
    debt: FloatColumn  # (accounts,)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Exposures:
        """Mark every leg and every account."""
        universe, book, market = snapshot.universe, snapshot.book, snapshot.market
        sums = account_sums(snapshot)
        face = np.where(universe.inverse, 1.0, market.mark)[book.inst]
        value = np.abs(book.qty) * face
        by_delta = np.abs(book.qty) * (np.abs(option_deltas(snapshot)) * market.index)[book.inst]
        lent = np.isin(book.kind, (COLLATERAL, SUPPLY))
        borrowed = (book.kind == DEBT) | ((book.kind == CASH) & (book.qty < 0.0))
        lends = np.zeros(book.accounts, dtype=np.bool_)
        lends[book.leg_account[lent | borrowed]] = True
        outright = lent | ((book.kind == CASH) & (book.qty > 0.0) & lends[book.leg_account])
        straight, option = np.isin(book.kind, (PERP, FUTURE)), book.kind == OPTION
        return cls(
            snapshot,
            outright=frozen(np.where(outright, value, 0.0)),
            owed=frozen(np.where(borrowed, value, 0.0)),
            notional=frozen(np.where(straight, value, 0.0)),
            delta=frozen(np.where(option, by_delta, 0.0)),
            premium=frozen(np.where(option, value, 0.0)),
            equity=frozen(sums.equity),
            debt=frozen(sums.debt),
        )

    def added(self, column: FloatColumn) -> FloatColumn:
        """A column of legs added up by account."""
        book = self.snapshot.book
        added = np.bincount(book.leg_account, column, minlength=book.accounts)
        return added.astype(np.float64)

    def who(self, name: str) -> BoolColumn:
        """(accounts,) Those that a definition speaks of, whether or not they have equity."""
        if name == "lenders":
            lends, trades = self.added(self.outright) > 0.0, self.who("traders")
            return lends & ~trades
        if name == "traders":
            return np.asarray(self.added(self.notional + self.delta) > 0.0)
        if name == "option holders":
            return np.asarray(self.added(self.premium) > 0.0)
        if name == "loops":
            return self._loops()
        return np.ones(self.snapshot.book.accounts, dtype=np.bool_)

    def _loops(self) -> BoolColumn:
        """Those who owe mostly what their collateral follows, where that is not money."""
        universe, book = self.snapshot.universe, self.snapshot.book
        root = universe.root[universe.asset_of[book.inst]]
        key = book.leg_account * np.int64(len(universe.assets)) + root
        held, owed = self.outright, np.where(universe.stable[root], 0.0, self.owed)
        pairs, at = np.unique(key[(held > 0.0) | (owed > 0.0)], return_inverse=True)
        some = (held > 0.0) | (owed > 0.0)
        both = np.minimum(np.bincount(at, held[some]), np.bincount(at, owed[some]))
        tied = np.bincount(pairs // len(universe.assets), both, minlength=book.accounts)
        loops: BoolColumn = (self.debt > 0.0) & (tied >= LOOPED * self.debt)
        return loops


def leverage_parts(
    snapshot: Snapshot | Exposures,
    by: str = "venue",
    named: str = "leverage",
    *,
    coverage: Coverage | None = None,
) -> pl.DataFrame:
    """What every account puts into every node, by one definition: a row for each pair of them.

    Columns: node, account (row of the book), above and below (their sums over the solvent make the
    value), owes, solvent, and share (of its venue's known total that was seen, NaN where unknown).

    Raises
    ------
    StateError
        When the division or the definition is unknown, or is none of positions.
    """
    what = definition(named)
    if by not in GROUPS:
        raise StateError(f"there is no division by {by!r}", hint=f"have {', '.join(GROUPS)}")
    if not what.of_positions:
        raise StateError(
            f"{named} is made of market series, not of positions", hint="see market_leverage"
        )
    seen = snapshot if isinstance(snapshot, Exposures) else Exposures.of(snapshot)
    return _parts(seen, what, by, Coverage.of(seen.snapshot) if coverage is None else coverage)


def leverage_table(
    snapshot: Snapshot | Exposures,
    by: str = "venue",
    named: str = "leverage",
    *,
    coverage: Coverage | None = None,
) -> pl.DataFrame:
    """Leverage of every node of a division, by one definition; one row a node, largest first.

    Columns: node, value, above_usd and below_usd (their ratio is the value), low, median and high
    (quantiles 0.1, 0.5 and 0.9 over accounts, each weighted by what it owes), accounts,
    without_equity (accounts left out) and their owed_without_equity_usd, coverage (share of the
    known totals of its venues that was seen, empty where one of them is not known). A value
    without anything below is empty.

    Raises
    ------
    StateError
        When the division or the definition is unknown, or is none of positions.
    """
    parts = leverage_parts(snapshot, by, named, coverage=coverage)
    solvent = pl.col("solvent")
    weighed = parts.filter(solvent & (pl.col("below") > 0.0)).with_columns(
        ratio=pl.col("above") / pl.col("below")
    )
    ranked = weighed.sort("node", "ratio", "account")
    quantiles = ranked.group_by("node").agg(
        _quantile(q).alias(name) for name, q in (("low", 0.1), ("median", 0.5), ("high", 0.9))
    )
    above, below = (pl.col(name).filter(solvent).sum() for name in ("above", "below"))
    size = pl.col("above").filter(solvent)
    covered = (size * pl.col("share").filter(solvent)).sum() / size.sum()  # NaN where one is
    table = parts.group_by("node").agg(
        above.alias("above_usd"),
        below.alias("below_usd"),
        pl.when(below > 0.0).then(above / below).alias("value"),
        solvent.sum().alias("accounts"),
        (~solvent).sum().alias("without_equity"),
        pl.col("owes").filter(~solvent).sum().alias("owed_without_equity_usd"),
        covered.fill_nan(None).alias("coverage"),
    )
    return (
        table.join(quantiles, on="node", how="left")
        .sort(["above_usd", "node"], descending=[True, False])
        .select(
            *("node", "value", "above_usd", "below_usd", "low", "median", "high", "accounts"),
            *("without_equity", "owed_without_equity_usd", "coverage"),
        )
    )


class LeveragePanels(NamedTuple):
    """Leverage of nodes over time."""

    value: Panel
    coverage: Panel  # share of the known totals that was seen
    revaluation: Panel  # from the second instant on: log growth had nobody traded since the last


def leverage_panel(
    snapshots: Iterable[Snapshot], by: str = "venue", named: str = "leverage"
) -> LeveragePanels:
    """Leverage of every node over time, each instant from what was known then and nothing later.

    Raises
    ------
    StateError
        As `leverage_table` does, when there is no snapshot, or instants do not increase.
    """
    values: dict[int, dict[str, float]] = {}
    covered: dict[int, dict[str, float]] = {}
    held: dict[int, dict[str, float]] = {}
    last: Snapshot | None = None
    for snapshot in snapshots:
        if last is not None and snapshot.ts <= last.ts:
            raise StateError(
                f"the snapshot of {snapshot.ts} comes after that of {last.ts}",
                hint="give each instant once, the oldest first",
            )
        table = leverage_table(snapshot, by, named)
        values[snapshot.ts] = _by_node(table, "value")
        covered[snapshot.ts] = _by_node(table, "coverage")
        if last is not None:
            held[snapshot.ts] = _untouched(last, snapshot, by, named, values[last.ts])
        last = snapshot
    if last is None:
        raise StateError("there is no snapshot to measure leverage of")
    nodes = sorted({node for row in values.values() for node in row})
    name = f"{named}.{by}"
    return LeveragePanels(
        _spread(name, nodes, values),
        _spread(f"coverage of {name}", nodes, covered),
        _spread(f"revaluation of {name}", nodes, held),
    )


def _untouched(
    before: Snapshot, after: Snapshot, by: str, named: str, values: Mapping[str, float]
) -> dict[str, float]:
    """Log growth of leverage had the quantities of `before` met the prices of `after`."""
    now = dict(zip(after.universe.instruments, range(len(after.market.mark)), strict=True))
    place = np.array([now.get(key, NONE) for key in before.universe.instruments])
    prices = {
        name: np.where(place >= 0, getattr(after.market, name)[place], getattr(before.market, name))
        for name in ("mark", "index", "vol")
    }
    moved = replace(before, ts=after.ts, market=replace(before.market, **prices))
    then = _by_node(leverage_table(moved, by, named), "value")
    return {
        node: float(np.log(then[node] / value))
        for node, value in values.items()
        if value > 0.0 and then.get(node, 0.0) > 0.0
    }


def _by_node(table: pl.DataFrame, column: str) -> dict[str, float]:
    return dict(table.select("node", column).drop_nulls().iter_rows())


def _spread(name: str, nodes: list[str], rows: Mapping[int, Mapping[str, float]]) -> Panel:
    values = [[row.get(node, np.nan) for node in nodes] for row in rows.values()]
    ts = np.array(list(rows), dtype=np.int64)
    return Panel.from_arrays(name, "1", ts, nodes, np.reshape(values, (len(rows), len(nodes))))


def market_leverage(
    named: str, open_interest: Panel, against: Panel, *, stale_us: int = 86_400_000_000
) -> Panel:
    """Open interest over reserve, market capitalisation or depth, both in one unit, by series.

    At each instant of `open_interest` the newest value of `against` that was there by then is
    used, unless it is older than `stale_us`: then there is none. Series go by label.

    Raises
    ------
    StateError
        When the definition is none of market series, the units differ, or no label is in both.
    """
    what = definition(named)
    if what.of_positions:
        raise StateError(f"{named} is made of positions", hint="see leverage_table")
    if open_interest.unit != against.unit:
        raise StateError(
            f"{open_interest.name} is in {open_interest.unit!r} and {against.name} in "
            f"{against.unit!r}",
            hint="convert one; a ratio of two units is no leverage",
        )
    labels = [label for label in open_interest.labels if label in against.labels]
    if not labels:
        raise StateError(f"{open_interest.name} and {against.name} have no series in common")
    above = open_interest.select(labels).values
    below = _as_of(against.select(labels), open_interest.ts, stale_us)
    ratio = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)
    return Panel.from_arrays(named, what.unit, open_interest.ts, labels, ratio)


def _as_of(panel: Panel, ts: KeyColumn, stale_us: int) -> FloatMatrix:
    """(ts, series) The newest value of each series at or before each instant, or NaN."""
    values = np.full((len(ts), len(panel.labels)), np.nan)
    for j in range(len(panel.labels)):
        some = np.flatnonzero(~np.isnan(panel.values[:, j]))
        if not some.size:
            continue
        at = np.searchsorted(panel.ts[some], ts, side="right") - 1
        row = some[np.maximum(at, 0)]
        fresh = (at >= 0) & (ts - panel.ts[row] <= stale_us)
        values[fresh, j] = panel.values[row[fresh], j]
    return values


def _parts(seen: Exposures, what: Definition, by: str, coverage: Coverage) -> pl.DataFrame:
    """One row for each account and node that it is exposed to; `share` is that of its venue."""
    book = seen.snapshot.book
    size = np.sum([getattr(seen, name) for name in what.legs], axis=0)
    node, names = nodes(seen, by)
    whole = seen.added(size)[book.leg_account]
    leg = np.flatnonzero((size > 0.0) & seen.who(what.who)[book.leg_account] & (node >= 0))
    account, part = book.leg_account[leg], size[leg] / whole[leg]
    owes = part * (seen.debt + seen.added(seen.notional + seen.delta))[account]
    if what.against == "equity":
        solvent, behind = seen.equity[account] > 0.0, part * seen.equity[account]
    elif what.against == "debt":
        solvent, behind = np.ones(len(leg), dtype=np.bool_), part * seen.debt[account]
    else:
        solvent, behind = seen.premium[leg] > 0.0, seen.premium[leg]
    above, below = (behind, size[leg]) if what.inverted else (size[leg], behind)
    rows = pl.DataFrame(
        {"node": node[leg], "account": account, "above": above, "below": below, "owes": owes}
        | {"solvent": solvent, "share": coverage.by_venue[book.venue[account]]}
    )
    parts = rows.group_by("node", "account", "solvent", "share", maintain_order=True).sum()
    keys = pl.Series("node", names, dtype=pl.String)
    return parts.with_columns(keys.gather(parts["node"]))


def nodes(seen: Exposures, by: str) -> tuple[KeyColumn, Sequence[str]]:
    """(legs,) The node that each leg belongs to, or NONE, and what the nodes are called."""
    universe, book = seen.snapshot.universe, seen.snapshot.book
    asset, venue = universe.asset_of[book.inst], book.venue[book.leg_account]
    if by == "asset":
        return asset.astype(np.int64), universe.assets
    if by == "venue":
        return venue.astype(np.int64), universe.venues
    if by == "protocol":
        lends = universe.venue_kind == schema.VENUE_KINDS.index("lending")
        return np.where(lends[venue], venue, NONE).astype(np.int64), universe.venues
    if by == "chain":
        return _named(universe.venue_chain, venue)
    if by == "sector":
        return _named(universe.sector, asset)
    if by == "cohort":
        ends = [f"{end:,.0f}" for end in COHORTS]
        spans = zip(["0", *ends], [*ends, "more"], strict=True)
        names = [f"equity of {low} to {high} USD" for low, high in spans]
        return np.searchsorted(COHORTS, seen.equity, side="right")[book.leg_account], names
    return np.zeros(len(book.inst), dtype=np.int64), ("all",)


def _named(words: Sequence[str], code: CodeColumn | ShortColumn) -> tuple[KeyColumn, list[str]]:
    """Codes of the words that stand behind other codes; those without a word belong nowhere."""
    names = sorted(set(words) - {""})
    place = np.array([names.index(word) if word else NONE for word in words], dtype=np.int64)
    return place[code], names


def _quantile(q: float) -> pl.Expr:
    """The ratio below which the share `q` of what is owed lies, of rows that ascend by ratio."""
    reached = pl.col("owes").cum_sum() >= q * pl.col("owes").sum()
    return pl.col("ratio").filter(reached).first()


def baskets(seen: Exposures, by: str) -> dict[str, dict[str, float]]:
    """What the nodes of a division are exposed to, in USD by asset; money only where all is money.

    The return of such a basket is the price return that the node answers to.
    """
    universe, book = seen.snapshot.universe, seen.snapshot.book
    node, names = nodes(seen, by)
    asset = universe.asset_of[book.inst]
    size = seen.outright + seen.notional + seen.delta
    found: dict[str, dict[str, float]] = {}
    key = node * np.int64(len(universe.assets)) + asset
    held = np.flatnonzero((node >= 0) & (size > 0.0))
    pairs, at = np.unique(key[held], return_inverse=True)
    for pair, usd in zip(pairs.tolist(), np.bincount(at, size[held]).tolist(), strict=True):
        place, k = divmod(pair, len(universe.assets))
        found.setdefault(names[place], {})[universe.assets[k]] = usd
    for basket in found.values():
        coins = [a for a in basket if not universe.stable[universe.root[universe.assets.index(a)]]]
        if coins:
            for money in basket.keys() - set(coins):
                del basket[money]
    return found
