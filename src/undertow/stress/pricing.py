"""From factors to instruments: what a move of some assets does to everything that hangs on them.

A factor is an asset. Of an asset that follows nothing it is the log move of its price; of a tied
one (stETH, USDC) the log move of its deviation from what it follows. The last axis of a matrix of
factors is assets, of a matrix of moves instruments; any axes before it are scenarios, and a
scenario gets the same bits alone and among thousands.

How an asset hangs on others is read off the tables:

- TIED: `assets.reference`; it moves with the reference, and by its own deviation.
- POOLED: kind `lp`, with claims of two assets behind it: a constant-product share, worth
  2 sqrt(x y p q), so its log move is the mean of those of p and q.
- LEVERAGED: tied, and a debtor of claims of kind `loan`: what it holds less what it owes is its net
  value, and what of that is in its reference over the net value is its leverage L. Its worth is
  1 + L r after a return r of the reference, and never less than 1e-6 of what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.kernels import options as kernel
from undertow.rules.portfolio import chain_of
from undertow.rules.snapshot import Snapshot
from undertow.state import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    KeyColumn,
    SmallColumn,
    Universe,
)
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.worth import asset_prices, balance_sheets, leverage_of

ROOT, TIED, POOLED, LEVERAGED = range(4)
WIPED_OUT = 1e-6  # what is left of a leveraged token that lost everything, as a share
_LP, _TOKEN = (schema.ASSET_KINDS.index(kind) for kind in ("lp", "other"))


@dataclass(frozen=True, eq=False)
class PricingMap:
    """How every asset and instrument of a snapshot answers factors."""

    universe: Universe
    snapshot: Snapshot
    hangs: SmallColumn  # [A] ROOT, TIED, POOLED or LEVERAGED
    first: KeyColumn  # [A] what it follows, or one half of the pool; NONE of a root
    second: KeyColumn  # [A] the other half of the pool, or NONE
    leverage: FloatColumn  # [A] of LEVERAGED, else 1
    net_usd: FloatColumn  # [A] net value of LEVERAGED, else 0
    levels: tuple[KeyColumn, ...]  # assets, those that others hang on first

    @classmethod
    def of(cls, snapshot: Snapshot) -> PricingMap:
        """Read how assets hang together off references and claims.

        Raises
        ------
        StateError
            When an asset hangs on itself, or a leveraged token owes as much as it holds.
        """
        universe = snapshot.universe
        tied = universe.reference != NONE
        hangs = np.where(tied, TIED, ROOT).astype(np.int8)
        first = universe.reference.astype(np.int64)
        second = np.full(len(hangs), NONE, dtype=np.int64)
        leverage, net = np.ones(len(hangs)), np.zeros(len(hangs))
        held, owed = balance_sheets(snapshot)
        for k, parts in held.items():
            if universe.asset_kind[k] == _LP and len(parts) == 2:
                hangs[k] = POOLED
                first[k], second[k] = sorted(parts)
        price = asset_prices(snapshot) if owed else net
        for k, parts in owed.items():
            if hangs[k] == TIED:
                hangs[k] = LEVERAGED
                leverage[k], net[k] = leverage_of(universe, price, k, held.get(k, {}), parts)
        return cls(
            universe=universe,
            snapshot=snapshot,
            hangs=frozen(hangs),
            first=frozen(first),
            second=frozen(second),
            leverage=frozen(leverage),
            net_usd=frozen(net),
            levels=_levels(universe, first, second),
        )

    def __repr__(self) -> str:
        counts = [int((self.hangs == kind).sum()) for kind in (ROOT, TIED, POOLED, LEVERAGED)]
        return "PricingMap({} roots, {} tied, {} pooled, {} leveraged)".format(*counts)

    def asset_moves(self, factor: Any) -> FloatMatrix:
        """Log moves of all assets: own factor and whatever they hang on.

        Raises
        ------
        StateError
            When the last axis is not one factor for each asset, or a factor is not finite.
        """
        moves = _factors(factor, len(self.hangs)).copy()
        for k in self.levels:
            moves[..., k] += self._below(moves, k)
        return moves

    def factors(self, moves: Any, known: BoolColumn | None = None) -> FloatMatrix:
        """The factors that make these log moves of all assets: `asset_moves` the other way round.

        With `known`, by asset, the others have no move of their own: they do what they hang on
        does, and what hangs on them moves as it is told all the same.

        Raises
        ------
        StateError
            When the last axis is not one move for each asset, or a move is not finite.
        """
        found = _factors(moves, len(self.hangs), name="moves").copy()
        if known is not None:
            for k in self.levels:
                lacking = k[~known[k]]
                found[..., lacking] = self._below(found, lacking)
        own: FloatMatrix = found - self._below(found, np.arange(len(self.hangs)))
        return own

    def _below(self, moves: FloatMatrix, k: KeyColumn) -> FloatMatrix:
        """What the assets `k` move by because of what they hang on."""
        below = np.zeros((*moves.shape[:-1], len(k)))
        for kind in (TIED, POOLED, LEVERAGED):
            at = np.flatnonzero(self.hangs[k] == kind)
            if not len(at):
                continue
            move = moves[..., self.first[k[at]]]
            if kind == POOLED:
                move = 0.5 * (move + moves[..., self.second[k[at]]])
            elif kind == LEVERAGED:
                worth = 1.0 + self.leverage[k[at]] * np.expm1(move)
                move = np.log(np.maximum(worth, WIPED_OUT))
            below[..., at] = move
        return below

    def moves(self, factor: Any, basis: Any = 0.0) -> FloatMatrix:
        """Log moves of all instruments: those of their assets, and their own basis.

        Of an option it is the move of the forward it is written on.
        """
        moves: FloatMatrix = self.asset_moves(factor)[..., self.universe.asset_of] + basis
        return moves

    def anchors(self, factor: Any) -> FloatMatrix:
        """Log moves of all instruments as an exchange-rate oracle sees them: blind to the peg."""
        of_asset = self.asset_moves(factor)
        tied = self.hangs == TIED
        of_asset[..., tied] -= _factors(factor, len(self.hangs))[..., tied]
        return of_asset[..., self.universe.asset_of]

    def receipts(self, receipt: Any) -> FloatMatrix:
        """What is left of one unit of each asset when it and all it hangs on lost some backing.

        A wrapper of what lost a tenth has lost a tenth; a pool loses the geometric mean of its
        halves; of what is leveraged only its own loss and its reference's count.
        """
        left = _factors(receipt, len(self.hangs), name="receipt").copy()
        for assets in self.levels:
            k = assets[self.hangs[assets] != ROOT]
            pooled = self.hangs[k] == POOLED
            first = left[..., self.first[k]]
            second = left[..., np.where(pooled, self.second[k], self.first[k])]
            left[..., k] *= np.where(pooled, np.sqrt(first * second), first)
        return left

    def prices(
        self, moves: Any, *, vol_mult: Any = 1.0, vol_shift: Any = 0.0, receipt: Any = 1.0
    ) -> FloatMatrix:
        """Prices of all instruments after `moves` of instruments.

        An option's mark moves by as much as Black (1976) does, on its forward times the move and on
        its volatility times `vol_mult` plus `vol_shift`; it never falls below nothing. `receipt` is
        by asset, as `receipts` gives it.
        """
        market, chain = self.snapshot.market, chain_of(self.snapshot)
        move = _factors(moves, len(market.mark), name="moves")
        left = np.broadcast_to(receipt, (*move.shape[:-1], len(self.hangs)))
        price: FloatMatrix = market.mark * np.exp(move) * left[..., self.universe.asset_of]
        k = np.flatnonzero(chain.kind)
        if len(k):
            bumped = chain.vol * np.asarray(vol_mult) + vol_shift
            vol = np.maximum(np.broadcast_to(bumped, move.shape)[..., k], 0.0)
            now = _black(chain, k, chain.forward[k] * np.exp(move[..., k]), vol)
            then = _black(chain, k, chain.forward[k], chain.vol[k])
            price[..., k] = np.maximum(market.mark[k] + now - then, 0.0)
        return price

    def rebalancing_usd(self, factor: Any) -> FloatMatrix:
        """What leveraged tokens sell of each asset to be at their leverage again, in USD.

        A token of kind `other` with leverage L and net value N sells -L (L - 1) N r of its
        reference after a return r: after a fall it sells whether it is long (L > 1) or short
        (L < 0). Negative where it buys. Divide by the price after the move for a quantity.

        References
        ----------
        Cheng and Madhavan (2009), "The dynamics of leveraged and inverse exchange-traded funds".
        """
        moves = self.asset_moves(factor)
        sold = np.zeros_like(moves)
        size = self.rebalancing_size
        for k in np.flatnonzero(self.rebalanced):
            sold[..., self.first[k]] -= size[k] * np.expm1(moves[..., self.first[k]])
        return sold

    @property
    def rebalanced(self) -> BoolColumn:
        """[A] Leveraged tokens that a manager keeps at their leverage."""
        tokens: BoolColumn = (self.hangs == LEVERAGED) & (self.universe.asset_kind == _TOKEN)
        return tokens

    @property
    def rebalancing_size(self) -> FloatColumn:
        """[A] USD of its reference that a token buys per unit of its return: L (L - 1) N, or 0."""
        size = self.leverage * (self.leverage - 1.0) * self.net_usd
        return np.where(self.rebalanced, size, 0.0)


def _factors(values: Any, count: int, *, name: str = "factor") -> FloatMatrix:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim == 0 or found.shape[-1] != count:
        raise StateError(
            f"{name} is {' x '.join(map(str, found.shape)) or 'one number'}; its last axis must "
            f"hold {count}",
            hint="one for each name of the universe, in its order",
        )
    if not np.isfinite(found).all():
        raise StateError(f"{name} holds a number that is not finite")
    return found


def _black(chain: kernel.Chain, k: KeyColumn, forward: FloatMatrix, vol: FloatMatrix) -> Any:
    shape = np.broadcast_shapes(forward.shape, vol.shape)
    out = np.empty(shape)
    rows = (-1, len(k))
    kernel.option_prices(
        chain.kind[k],
        np.ascontiguousarray(np.broadcast_to(forward, shape)).reshape(rows),
        chain.strike[k],
        np.ascontiguousarray(np.broadcast_to(vol, shape)).reshape(rows),
        chain.tau[k],
        chain.discount[k],
        out.reshape(rows),
    )
    return out


def _levels(universe: Universe, first: KeyColumn, second: KeyColumn) -> tuple[KeyColumn, ...]:
    """Assets in an order in which everything comes after what it hangs on."""
    waiting = np.ones(len(first), dtype=np.bool_)
    levels = []
    while waiting.any():
        blocked = (first != NONE) & waiting[first] | (second != NONE) & waiting[second]
        free = np.flatnonzero(waiting & ~blocked)
        if not len(free):
            name = universe.assets[int(np.flatnonzero(waiting)[0])]
            raise StateError(
                f"the asset {name!r} hangs on itself through what backs it", source="claims"
            )
        waiting[free] = False
        levels.append(frozen(free))
    return tuple(levels)
