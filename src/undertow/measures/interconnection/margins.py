"""Totals of who has and owes how much among each other, and every contagion number of a network.

Row i of a network is what node i has on others, column j what node j owes. A node's equity hangs on
its totals alone; what a network decides is who bears whose losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.clearing import Clearing, Debts, clearing
from undertow.econometrics.debtrank import Exposures, Spread, stress
from undertow.econometrics.link_bounds import (
    defaults_bound,
    radius_bound,
    shortfall_bound,
    stress_bound,
)
from undertow.econometrics.partial_links import Open
from undertow.econometrics.valuations import ahead, valued
from undertow.errors import EstimationError
from undertow.state import AnyColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import digest, frozen

# Every contagion number of a network, its unit and what it says.
NUMBERS: Mapping[str, tuple[str, str]] = {
    "shortfall_usd": ("USD", "what all together fail to pay, at the greatest payments that fit"),
    "shortfall_least_usd": ("USD", "the same at the least payments that fit"),
    "defaults": ("1", "nodes that do not pay all they owe, at the greatest payments"),
    "debtrank_usd": ("USD", "equity marked down on top of the hit, by linear marks (corrected)"),
    "single_hit_usd": ("USD", "the same where each node passes stress on once (the original)"),
    "ahead_usd": ("USD", "what claims lose in expected payments over the horizon"),
    "worst_node_usd": ("USD", "equity of others marked down by the one default that costs most"),
    "radius": ("1", "spectral radius of exposures over equity; above 1 stress grows round circles"),
}


@dataclass(frozen=True, eq=False)
class Margins:
    """Nodes, their totals, what they have outside, and what is known of links."""

    names: tuple[str, ...]
    has: FloatColumn  # on other nodes, in all
    owes: FloatColumn  # to other nodes, in all
    assets: FloatColumn  # outside, after the hit
    outside: FloatColumn  # owed to nobody here
    hit: FloatColumn  # lost of what was outside
    known: FloatMatrix  # links that are known
    allowed: Any  # (nodes, nodes) bool: where an unknown link may be
    keep_assets: float = 1.0
    keep_received: float = 1.0
    volatility: float = 0.2

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        has: ArrayLike,
        owes: ArrayLike,
        equity: ArrayLike,
        *,
        assets: ArrayLike | None = None,
        hit: ArrayLike | float = 0.0,
        known: ArrayLike | None = None,
        allowed: ArrayLike | None = None,
        keep_assets: float = 1.0,
        keep_received: float = 1.0,
        volatility: float = 0.2,
    ) -> Margins:
        """Margins from totals and equity before the `hit`, which is in USD by node.

        Without `assets` a node has outside as little as its equity and debts ask for. `known` are
        links that are known, in USD, and stay as they are; `allowed` is where an unknown one may
        be, which is everywhere else unless said.

        Raises
        ------
        EstimationError
            When lengths differ, a node has no equity, known links exceed totals, or none fits.
        """
        size = len(names)
        if len(set(names)) != size:
            raise EstimationError("two nodes have one name")
        columns = {"has": has, "owes": owes, "equity": equity, "hit": hit}
        found = {name: _column(name, value, size) for name, value in columns.items()}
        if (found["equity"] <= 0.0).any():
            raise EstimationError(
                f"{names[int(np.argmin(found['equity']))]} has no equity",
                hint="it has failed already: leave it out, and hit those who have claims on it",
            )
        if (found["hit"] < 0.0).any():
            raise EstimationError("hit is a loss, at least 0")
        lack = found["equity"] + found["owes"] - found["has"]
        own = np.maximum(lack, 0.0) if assets is None else _column("assets", assets, size)
        outside = own - lack
        if (outside < -1e-9 * np.maximum(own, 1.0)).any():
            raise EstimationError(
                f"{names[int(np.argmin(outside))]} has fewer assets than its equity and debts ask"
            )
        left = own - found["hit"]
        links = np.zeros((size, size)) if known is None else np.array(known, dtype=np.float64)
        may = np.ones((size, size), dtype=np.bool_) if allowed is None else np.array(allowed, bool)
        if links.shape != (size, size) or may.shape != (size, size):
            raise EstimationError(f"known and allowed must be ({size}, {size})")
        may &= links == 0.0
        np.fill_diagonal(may, False)
        margins = cls(
            names=tuple(names), has=frozen(found["has"]), owes=frozen(found["owes"]),
            assets=frozen(np.maximum(left, 0.0)),
            outside=frozen(np.maximum(outside, 0.0) + np.maximum(-left, 0.0)),
            hit=frozen(found["hit"]), known=frozen(links), allowed=frozen(may),
            keep_assets=keep_assets, keep_received=keep_received, volatility=volatility,
        )  # fmt: skip
        _ = margins.open
        return margins

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def open(self) -> Open:
        """Totals of what is not known."""
        has, owes = self.has - self.known.sum(axis=1), self.owes - self.known.sum(axis=0)
        dust = 1e-9 * max(float(self.has.sum()), 1e-300)
        for name, left in (("has", has), ("owes", owes)):
            if (left < -dust).any():
                k = int(np.argmin(left))
                raise EstimationError(f"known links of {self.names[k]} exceed what it {name}")
        if has.sum() <= dust:  # what subtraction leaves of nothing
            has, owes = np.zeros_like(has), np.zeros_like(owes)
        return Open.of(np.maximum(has, 0.0), np.maximum(owes, 0.0), self.allowed)

    @cached_property
    def before(self) -> FloatColumn:
        """By node: equity before the hit."""
        return frozen(self.after + self.hit)

    @property
    def after(self) -> FloatColumn:
        """By node: equity after the hit, claims at face value."""
        return self.assets + self.has - self.owes - self.outside

    @cached_property
    def first(self) -> FloatColumn:
        """By node: the share of its equity that the hit took."""
        return frozen(np.clip(self.hit / self.before, 0.0, 1.0))

    @property
    def digest(self) -> str:
        """A hash of all that was given."""
        kept = f"{self.keep_assets} {self.keep_received} {self.volatility}"
        columns = (self.has, self.owes, self.assets, self.outside, self.hit)
        return digest(kept, *self.names, *columns, self.known, self.allowed)

    def bounds(self) -> dict[str, float]:
        """The most that each number can be on any network with these totals, where it is proved."""
        may = self.allowed | (self.known > 0.0)
        owed = self.owes + self.outside
        unpaid = shortfall_bound(
            self.has, self.owes, self.assets, self.outside, may, keep_assets=self.keep_assets,
            keep_received=self.keep_received,
        )  # fmt: skip
        stressed = stress_bound(self.has, self.before, self.first)
        none = np.zeros(len(self))
        return {
            "shortfall_usd": unpaid,
            "shortfall_least_usd": unpaid,
            "defaults": float(defaults_bound(owed, self.assets)),
            "debtrank_usd": stressed,
            "single_hit_usd": stressed,
            "ahead_usd": float(self.has.sum()),
            "worst_node_usd": stress_bound(self.has, self.before, none),
            "radius": radius_bound(self.has, self.before),
        }


@dataclass(frozen=True, eq=False)
class Linked:
    """One network with the margins, and its contagion numbers, each worked out when asked for."""

    margins: Margins
    links: FloatMatrix  # with those that are known

    @classmethod
    def of(cls, margins: Margins, unknown: FloatMatrix) -> Linked:
        """The network of what is known and what was put in place of what is not."""
        return cls(margins, margins.known + unknown)

    def number(self, name: str) -> float:
        """One of `NUMBERS`."""
        return float(getattr(self, name))

    def numbers(self) -> dict[str, float]:
        """All of them."""
        return {name: self.number(name) for name in NUMBERS}

    @cached_property
    def _edges(self) -> tuple[AnyColumn, AnyColumn, FloatColumn]:
        holder, debtor = np.nonzero(self.links)
        return holder, debtor, self.links[holder, debtor]

    @cached_property
    def debts(self) -> Debts:
        """Who owes whom."""
        holder, debtor, usd = self._edges
        return Debts.of(debtor, holder, usd, len(self.margins), self.margins.outside)

    @cached_property
    def exposures(self) -> Exposures:
        """The same over the equity of the holder."""
        holder, debtor, usd = self._edges
        return Exposures.of(holder, debtor, usd, self.margins.before)

    @property
    def shortfall_usd(self) -> float:
        """What all together fail to pay, at the greatest payments."""
        return float(self._cleared(least=False).shortfall.sum())

    @property
    def shortfall_least_usd(self) -> float:
        """The same at the least payments."""
        return float(self._cleared(least=True).shortfall.sum())

    @property
    def defaults(self) -> int:
        """How many do not pay all they owe."""
        return int(self._cleared(least=False).defaulted.sum())

    @property
    def debtrank_usd(self) -> float:
        """Equity marked down on top of the hit."""
        return self._stressed(Spread.CONTINUOUS)

    @property
    def single_hit_usd(self) -> float:
        """The same where each passes stress on once."""
        return self._stressed(Spread.ONCE)

    @property
    def ahead_usd(self) -> float:
        """What claims lose in expected payments."""
        given, mark = self.margins, ahead(self.margins.volatility)
        then = valued(self.debts, given.assets, mark).loss.sum()
        # what was owed beyond assets after the hit was owed by nobody before it
        calm = valued(self.debts, given.assets + given.hit, mark).loss.sum()
        return float(then - calm)

    @property
    def worst_node_usd(self) -> float:
        """What the default that costs others most costs them."""
        return float(self.by_default.max(initial=0.0))

    @property
    def radius(self) -> float:
        """Spectral radius of exposures over equity."""
        return self.exposures.radius

    @cached_property
    def by_default(self) -> FloatColumn:
        """By node: equity of all others that its default alone marks down, by linear marks."""
        return defaults_one_by_one(self.exposures) @ np.ones(len(self.margins))

    def _cleared(self, *, least: bool) -> Clearing:
        given = self.margins
        return clearing(
            self.debts, given.assets, keep_assets=given.keep_assets,
            keep_received=given.keep_received, least=least,
        )  # fmt: skip

    def _stressed(self, spread: Spread) -> float:
        found = stress(self.exposures, self.margins.first, spread)
        return float((found.level - found.first) @ self.margins.before)


def defaults_one_by_one(exposures: Exposures, most: int = 10_000) -> FloatMatrix:
    """(nodes that default, others) USD of equity marked down by linear marks, one default a row.

    Raises
    ------
    EstimationError
        When stress still creeps round circles after `most` steps.
    """
    size, weights = len(exposures), exposures.matrix
    h = np.eye(size)  # a column a default
    passed = np.zeros_like(h)
    for _ in range(most):
        level = np.minimum(h, 1.0)
        fresh = level - passed
        if fresh.max(initial=0.0) <= 1e-12:
            break
        h += weights @ fresh
        passed = level
    else:
        raise EstimationError(
            f"stress still creeps round circles of claims after {most:,} steps",
            hint=f"their radius is {exposures.radius:.6g}; a buffer a little larger ends it",
        )
    lost = np.minimum(h, 1.0) * exposures.buffer[:, None]
    np.fill_diagonal(lost, 0.0)
    found: FloatMatrix = lost.T
    return found


def _column(name: str, values: ArrayLike | float, size: int) -> FloatColumn:
    x = np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), (size,)))
    if not np.isfinite(x).all():
        raise EstimationError(f"{name} must be {size} finite numbers, one a node")
    return x
