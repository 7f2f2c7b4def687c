"""One asset of a book falls alone: what is closed of every node, and through which channel.

An asset falls against what it follows: a root with all that hangs on it, a tied one alone. Where
every venue takes a tied one at an exchange rate, which does not see it fall alone, there is nothing
to follow: it is a node, and is not shocked. Money, and what is a receipt of money, is neither.

The cascade follows every fall twice: as it is, and in markets so deep that sales move no price.
What the second closes is the fall's own doing; what the first closes on top came through prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.tandem.links import exposure
from undertow.rules.leverage import Exposures, nodes
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.oracles import EXCHANGE_RATE
from undertow.stress.cascade import Engine, Outcome
from undertow.stress.options import Impact, Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario
from undertow.stress.setting import carriers_tied, shocks_of
from undertow.stress.shock import Price
from undertow.stress.stressed import Stressed

MONEY = "money: it is not shocked, and repaying it is no unwinding of it"
UNSEEN = (
    "it unwinds as others fall, but is not let fall alone: every venue that holds it takes it at "
    "an exchange rate, which does not see that"
)
CHANNELS = ("own price", "tie", "shared account", "winners closed", "impact")
OWN, TIE, SHARED, WINNERS, IMPACT = range(len(CHANNELS))


@dataclass(eq=False)
class Board:
    """A settled book, what is shocked in it, and where its legs belong."""

    plan: Plan
    by: str
    fall: float
    options: Options
    size: FloatColumn  # (legs,) USD
    node: KeyColumn  # (legs,), or -1
    asset: KeyColumn  # (legs,)
    names: tuple[str, ...]  # nodes
    shocked: tuple[int, ...]  # assets
    unseen: tuple[str, ...]  # assets among the nodes that no venue would see fall alone
    left_out: dict[str, str]
    _engines: list[Engine] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, by: str, fall: float, options: Options) -> Board:
        """Say what may fall in a settled book, and where its legs belong.

        Raises
        ------
        StateError
            When nothing can fall.
        """
        snapshot = plan.snapshot
        universe, book = snapshot.universe, snapshot.book
        seen = Exposures.of(snapshot)
        size = exposure(seen) + seen.owed
        asset = universe.asset_of[book.inst].astype(np.int64)
        held = np.bincount(asset, size, minlength=len(universe.assets))
        priced = np.bincount(
            universe.asset_of, snapshot.market.priced, minlength=len(universe.assets)
        )
        standing, shocked, left_out = [], [], {}
        for k, name in enumerate(universe.assets):
            if universe.stable[k]:
                left_out[name] = MONEY
            elif universe.stable[universe.root[k]]:
                left_out[name] = (
                    f"a receipt of {universe.assets[universe.root[k]]}, which is {MONEY}"
                )
            elif not held[k]:
                left_out[name] = "nothing is held or owed in it"
            elif not priced[k]:
                left_out[name] = "it has no price"
            else:
                standing.append(k)
                if _seen_falling(plan, k, fall, options, size):
                    shocked.append(k)
                else:
                    left_out[name] = UNSEEN
        if not shocked:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise StateError("there is no asset that could fall", hint=why or "the book is empty")
        code, names = nodes(seen, by)
        if by == "asset":
            code = np.where(np.isin(code, standing), code, -1)
        at = (code >= 0) & (size > 0.0)
        used, place = np.unique(code[at], return_inverse=True)
        node = np.full(len(size), -1, dtype=np.int64)
        node[at] = place
        kept = tuple(names[k] for k in used)
        unseen = tuple(name for name, why in left_out.items() if why == UNSEEN)
        return cls(
            plan, by, fall, options, size, node, asset, kept, tuple(shocked), unseen, left_out
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": []}

    @cached_property
    def held(self) -> FloatColumn:
        """(nodes,) USD that stand in each node."""
        return self.added(self.size)

    def added(self, usd: FloatColumn) -> FloatColumn:
        """USD by leg, added up by node."""
        at = self.node >= 0
        total = np.bincount(self.node[at], usd[at], minlength=len(self.names))
        return total.astype(np.float64)

    def unwound(self, k: int) -> tuple[FloatMatrix, bool]:
        """(channels, nodes) USD closed when asset `k` falls alone, and whether it came to rest."""
        stressed = _alone(self.plan, k, self.fall)
        engine = self._engines.pop() if self._engines else Engine(self.plan.unpacked())
        deep = replace(self.options, impact=Impact.NONE)
        still = engine.run(stressed, deep, trace=False, path=False)
        direct, called = self._closed(still.remaining), still.hit
        full = engine.run(stressed, self.options, trace=False, path=False)
        self._engines.append(engine)
        channel = self._channels(k, stressed.factor, called)
        parts = [self.added(np.where(channel == c, direct, 0.0)) for c in range(IMPACT)]
        on_top = self.added(self._closed(full.remaining)) - np.sum(parts, axis=0)
        settled = full.outcome is Outcome.SETTLED
        return np.stack([*parts, on_top]), settled

    def _closed(self, remaining: FloatColumn) -> FloatColumn:
        """(legs,) USD, at prices before the shock, of what is no longer there."""
        qty = self.plan.hold.legs["qty"]
        left = np.divide(remaining, qty, out=np.ones(len(qty)), where=qty != 0.0)
        return np.asarray(self.size * (1.0 - np.clip(left, 0.0, 1.0)))

    def _channels(self, k: int, factor: FloatColumn, called: KeyColumn) -> KeyColumn:
        """(legs,) How the shock itself reaches each leg."""
        moved = self.plan.pricing.asset_moves(factor)
        follows: BoolColumn = np.abs(moved) > 0.0
        channel = np.where(follows, TIE, SHARED)
        channel[k] = OWN
        book = self.plan.snapshot.book
        was_called = np.zeros(book.accounts, dtype=np.bool_)
        was_called[called] = True
        return np.where(was_called[book.leg_account], channel[self.asset], WINNERS)


def _alone(plan: Plan, k: int, fall: float) -> Stressed:
    name = plan.snapshot.universe.assets[k]
    scenario = Scenario(name=f"{name} alone", shocks=(Price(asset=name, move=-fall),))
    return scenario.apply(plan.snapshot)


def _seen_falling(plan: Plan, k: int, fall: float, options: Options, size: FloatColumn) -> bool:
    """Whether a venue values anything that is held or owed at a price that a fall of `k` moves."""
    snapshot = plan.snapshot
    market, anchor = shocks_of(plan, _alone(plan, k, fall))
    rated = options.oracles & (snapshot.oracles.mode == EXCHANGE_RATE) & carriers_tied(plan)
    moved = np.where(rated, anchor, market) != 0.0
    return bool(moved[snapshot.book.inst[size > 0.0]].any())


def _follow(board: Board, k: int) -> tuple[FloatMatrix, bool]:
    return board.unwound(k)


def run_all(board: Board, executor: Executor) -> Run:
    """Let every asset fall, each alone."""
    usd, settled = zip(*executor.map(_follow, board.shocked, shared=board), strict=True)
    names = board.plan.snapshot.universe.assets
    return Run(board, tuple(names[k] for k in board.shocked), np.stack(usd), settled)


@dataclass(frozen=True, eq=False)
class Run:
    """What every shock closed."""

    board: Board
    shocked: tuple[str, ...]
    usd: FloatMatrix  # (shocked, channels, nodes)
    settled: tuple[bool, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """What delevers."""
        return self.board.names

    @property
    def share(self) -> FloatMatrix:
        """(shocked, nodes) Of each node's exposure."""
        return np.asarray(self.usd.sum(axis=1) / self.board.held)

    @property
    def off(self) -> BoolColumn:
        """(shocked, nodes) Pairs of two; among nodes that are no assets, all of them."""
        return np.array([[a != b for b in self.nodes] for a in self.shocked])

    def spill(self, channel: int | None = None) -> float:
        """Mean share over pairs of two, in all or through one channel."""
        usd = self.usd.sum(axis=1) if channel is None else self.usd[:, channel]
        found = (usd / self.board.held)[self.off]
        return float(found.mean()) if len(found) else nan

    def losses(self) -> pl.DataFrame:
        """A row a shock, node and channel; 0 where it closes nothing there."""
        rows, channels, columns = (each.ravel() for each in np.indices(self.usd.shape))
        usd = self.usd[rows, channels, columns]
        usd = np.where(np.abs(usd) > 1e-9 * self.board.held[columns], usd, 0.0)
        return pl.DataFrame(
            {
                "shocked": gathered(self.shocked, rows),
                "node": gathered(self.nodes, columns),
                "channel": gathered(CHANNELS, channels),
                "share": usd / self.board.held[columns],
                "usd": usd,
            }
        )

    def matrix(self) -> pl.DataFrame:
        """A row a shock and node."""
        rows, columns = (each.ravel() for each in np.indices(self.share.shape))
        return pl.DataFrame(
            {
                "shocked": gathered(self.shocked, rows),
                "node": gathered(self.nodes, columns),
                "share": self.share.ravel(),
                "usd": self.usd.sum(axis=1).ravel(),
            }
        )

    def channels(self) -> pl.DataFrame:
        """A row a channel: the mean share that it closes in nodes other than the shocked."""
        spill = [self.spill(c) for c in range(len(CHANNELS))]
        return pl.DataFrame(
            {"channel": pl.Series(CHANNELS, dtype=pl.String), "spill": spill}
        ).with_columns(pl.col("spill").fill_nan(None))

    def top(self) -> Iterator[tuple[str, str, float]]:
        """Pairs of two with the largest shares, largest first."""
        share = np.where(self.off, self.share, -np.inf)
        for at in np.argsort(-share, axis=None, kind="stable"):
            i, j = divmod(int(at), len(self.nodes))
            if share[i, j] <= 0.0:
                return
            yield self.shocked[i], self.nodes[j], float(share[i, j])


def gathered(names: tuple[str, ...], at: KeyColumn) -> pl.Series:
    """Names by their places."""
    return pl.Series(names, dtype=pl.String).gather(at)
