"""Balance sheets of a book, and how thin the markets are in which they would be sold.

A row is a balance sheet: those of a node who lean long, or those who lean short, with something
leveraged and equity left. A column is an asset where it is sold, as cascades have it. Holdings are
signed USD of exposure; money neither falls nor is sold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from undertow import schema
from undertow.econometrics.firesales import overlap
from undertow.kernels import impact
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.places import SoldAs
from undertow.measures.crowding.redrawn import added, owners_in
from undertow.rules.leverage import nodes
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix
from undertow.state.universe import NONE
from undertow.stress.options import Impact
from undertow.stress.setting import pools_of
from undertow.stress.worth import asset_prices

SIDES = ("long", "short")
_SPOT = schema.INSTRUMENT_KINDS.index("spot")


class Sheets(NamedTuple):
    """Balance sheets of a book."""

    crowd: Crowd
    account: AnyColumn  # (some legs,) of those who count
    cell: AnyColumn  # (some legs,) into `row` and `asset`
    row: AnyColumn  # (cells,)
    asset: AnyColumn  # (cells,) into `assets`
    usd: FloatColumn  # (some legs,)
    who: AnyColumn  # accounts that count, and
    sheet: AnyColumn  # their rows
    names: list[tuple[str, str]]  # (rows,) node and side
    assets: list[str]
    shock: FloatMatrix  # (1 + assets, assets) moves of prices: all together, then each alone
    thin: FloatColumn  # (assets,) relative move of a price per USD sold
    owners: AnyColumn  # (rows,)
    left_out: dict[str, str]

    @classmethod
    def of(cls, crowd: Crowd, by: str) -> Sheets:
        """Add legs up by who has them and where they are sold."""
        book, universe = crowd.snapshot.book, crowd.snapshot.universe
        node, words = nodes(crowd.exposures, by)
        has = np.diff(book.offset) > 0
        of_account = np.full(book.accounts, NONE, dtype=np.int64)
        of_account[has] = node[book.offset[:-1][has]]
        counts = (crowd.leveraged > 0.0) & (crowd.exposures.equity > 0.0) & (of_account >= 0)
        lean = added(book.leg_account, crowd.lean, book.accounts)
        row_of, names = _rows(2 * of_account + (lean < 0.0), counts, words)
        legs = np.flatnonzero(counts[book.leg_account] & (crowd.lean != 0.0))
        account = book.leg_account[legs]
        place = SoldAs.of(crowd.plan).asset[book.inst[legs]]
        key = row_of[account] * len(universe.assets) + place
        seen = np.flatnonzero(np.bincount(key, minlength=1)) if len(key) else key
        at = np.zeros(int(key.max(initial=0)) + 1, dtype=np.int64)
        at[seen] = np.arange(len(seen))
        kept = np.unique(seen % len(universe.assets)) if len(seen) else seen
        column = np.zeros(len(universe.assets), dtype=np.int64)
        column[kept] = np.arange(len(kept))
        thin = _thinness(crowd)[kept]
        who = np.flatnonzero(counts)
        return cls(
            crowd, account, at[key], seen // len(universe.assets),
            column[seen % len(universe.assets)], crowd.lean[legs], who, row_of[who], names,
            [universe.assets[k] for k in kept], _shocks(crowd, kept), thin,
            owners_in(crowd, who, row_of[who], len(names)),
            {universe.assets[k]: "no depth is known, so what its sales cost is not counted"
             for k, slope in zip(kept, thin, strict=True) if slope <= 0.0},
        )  # fmt: skip

    def held(self) -> tuple[FloatMatrix, FloatColumn]:
        """Signed USD by row and asset, and equity by row."""
        return (
            self.laid_out(added(self.cell, self.usd, len(self.row))),
            added(self.sheet, self.crowd.exposures.equity[self.who], len(self.names)),
        )

    def laid_out(self, cells: FloatColumn) -> FloatMatrix:
        """Cells as a matrix of rows by assets."""
        matrix = np.zeros((len(self.names), len(self.assets)))
        matrix[self.row, self.asset] = cells
        return matrix


def _rows(key: AnyColumn, counts: Any, words: Any) -> tuple[AnyColumn, list[tuple[str, str]]]:
    """(accounts,) The row of each account that counts, and what rows are called."""
    some = np.unique(key[counts])
    row = np.zeros(len(key), dtype=np.int64)
    row[counts] = np.searchsorted(some, key[counts])
    return row, [(str(words[k // 2]), SIDES[k % 2]) for k in some.tolist()]


def _thinness(crowd: Crowd) -> FloatColumn:
    """(assets,) Relative fall of a price per USD sold, at calm; 0 where no depth is known."""
    plan, universe = crowd.plan, crowd.snapshot.universe
    count = len(universe.assets)
    pools = pools_of(plan, np.ones(len(universe.instruments)), crowd.options)
    slope = np.array([-impact.slope(k, 0.0, pools) for k in range(plan.carriers.pools)])
    deep = np.divide(1.0, slope, out=np.zeros_like(slope), where=slope > 0.0)
    own = np.flatnonzero(plan.carriers.own_pool != NONE)
    each = deep[plan.carriers.own_pool[own]] * crowd.snapshot.market.mark[own]
    contracts = added(SoldAs.of(plan).asset[own], each, count)
    # Where no spot trades, the asset's pool is that of its deepest contract, and counts as that.
    alone = _on_spot(crowd) | (contracts == 0.0)
    usd = np.where(alone, deep[:count] * asset_prices(crowd.snapshot), 0.0) + contracts
    thin: FloatColumn = np.divide(1.0, usd, out=np.zeros_like(usd), where=usd > 0.0)
    return thin


def _on_spot(crowd: Crowd) -> BoolColumn:
    """(assets,) Whether the pool of an asset stands on spot markets."""
    snapshot = crowd.snapshot
    root = crowd.options.impact is Impact.SQUARE_ROOT
    size = snapshot.liquidity.daily if root else snapshot.market.depth
    spot = np.flatnonzero(snapshot.universe.kind == _SPOT)
    traded = added(snapshot.universe.asset_of[spot], size[spot], len(snapshot.universe.assets))
    return traded > 0.0


def _shocks(crowd: Crowd, kept: AnyColumn) -> FloatMatrix:
    """Directions of a unit fall: of everything, then of each asset and what follows it."""
    follows = np.zeros((len(kept) + 1, len(kept)))
    follows[0] = 1.0
    if len(kept):
        small = 1e-4
        factor = np.zeros((len(kept), len(crowd.snapshot.universe.assets)))
        factor[np.arange(len(kept)), kept] = small
        follows[1:] = crowd.plan.pricing.asset_moves(factor)[:, kept] / small
    return follows


def overlaps(sheets: Sheets, held: FloatMatrix) -> FloatMatrix:
    """Liquidity-weighted overlap of balance sheets, over assets whose depth is known."""
    deep = sheets.thin > 0.0
    if not deep.any():
        return np.zeros((len(held), len(held)))
    return overlap(held[:, deep], 1.0 / sheets.thin[deep])
