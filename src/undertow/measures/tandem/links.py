"""What pairs of nodes share: collateral, venue, platform, owners; from positions at one instant.

A driver is a symmetric (nodes, nodes) matrix between 0 (nothing shared) and 1 (all of it), with 1
on the diagonal. Exposure is what `leverage` counts: assets held outright, gross notional, and
delta equivalents of options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from undertow import schema
from undertow.errors import StateError
from undertow.rules.leverage import GROUPS, Exposures, nodes
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.book import UNKNOWN_OWNER
from undertow.state.universe import NONE

_OF_VENUES = ("venue", "protocol", "chain")  # divisions whose nodes are whole venues
_SPOT = schema.INSTRUMENT_KINDS.index("spot")
_OWNERS = 8_192  # that are compared at a time


@dataclass(frozen=True, eq=False)
class Links:
    """What each pair of nodes has in common, by what it is."""

    nodes: tuple[str, ...]
    drivers: Mapping[str, FloatMatrix]  # (nodes, nodes) each
    absent: Mapping[str, str] = field(default_factory=dict)  # drivers that there are none of, why
    owned: FloatColumn | None = None  # (nodes,) share of exposure whose owner is known

    @classmethod
    def of(cls, nodes: Iterable[str], drivers: Mapping[str, Any]) -> Links:
        """Check that every driver is a symmetric matrix of these nodes, and close it to writing.

        Raises
        ------
        StateError
            When one is not, or a node stands twice.
        """
        names = tuple(nodes)
        if len(set(names)) != len(names):
            raise StateError("a node of the links stands twice", hint="give each node once")
        found = {}
        for name, given in drivers.items():
            matrix = np.array(given, dtype=np.float64)
            if matrix.shape != (len(names), len(names)):
                raise StateError(
                    f"the driver {name!r} is {matrix.shape}; {len(names)} nodes need "
                    f"{(len(names), len(names))}"
                )
            if np.isinf(matrix).any() or not np.allclose(matrix, matrix.T, equal_nan=True):
                raise StateError(
                    f"the driver {name!r} is not symmetric and finite", hint="give (m + m.T) / 2"
                )
            found[name] = frozen(matrix)
        return cls(names, found)

    def __repr__(self) -> str:
        return f"Links({len(self.nodes)} nodes by {', '.join(self.drivers) or 'nothing'})"

    @property
    def cube(self) -> FloatMatrix:
        """(drivers, nodes, nodes) All drivers, in their order."""
        count = len(self.nodes)
        return np.reshape([*self.drivers.values()], (len(self.drivers), count, count))

    def select(self, wanted: Iterable[str]) -> Links:
        """Some nodes, in the order given.

        Raises
        ------
        StateError
            When one is not there.
        """
        names = tuple(wanted)
        missing = [name for name in names if name not in self.nodes]
        if missing:
            raise StateError(f"the links say nothing of {missing[0]!r}")
        at = [self.nodes.index(name) for name in names]
        drivers = {name: frozen(each[np.ix_(at, at)]) for name, each in self.drivers.items()}
        owned = None if self.owned is None else frozen(self.owned[at])
        return replace(self, nodes=names, drivers=drivers, owned=owned)

    def to_polars(self) -> pl.DataFrame:
        """One row a pair: node, other, and a column a driver."""
        i, j = np.triu_indices(len(self.nodes), 1)
        keys = pl.Series(self.nodes, dtype=pl.String)
        pairs = {"node": keys.gather(i), "other": keys.gather(j)}
        return pl.DataFrame(pairs | {name: each[i, j] for name, each in self.drivers.items()})


def links_of(snapshot: Snapshot | Exposures, by: str = "venue", *, by_depth: bool = False) -> Links:
    """What the nodes of a division share at one instant.

    `collateral`: of every node, what the accounts that stand in it are exposed to, by the asset at
    the root of each (staked ether counts as ether; money, whose fall calls nobody, not at all), an
    account counting with the share of its exposure that stands in the node. Two nodes share the
    cosine of theirs. With `by_depth` each asset is divided by the root of its market depth in USD,
    so what cannot be sold counts for more (the overlap of Cont and Schaanning, as a cosine), and
    what has no known depth not at all. A node that is left with nothing shares none.

    `venue`: the shares of their exposures that stand at the same venues, sum of min(share, share).
    Nodes that are whole venues share none by construction; they have `platform` instead: 1 where
    they run on the same chain.

    `owner`: the same sum over known owners, of shares of all exposure in the node. Exposure whose
    owner is not known counts in the whole and is shared by nobody, so this is a lower bound; nobody
    is guessed.

    Raises
    ------
    StateError
        When the division is unknown, or fewer than two nodes have exposure.

    References
    ----------
    Cont and Schaanning (2019), "Monitoring indirect contagion", J. Banking and Finance 104.
    """
    if by not in GROUPS:
        raise StateError(f"there is no division by {by!r}", hint=f"have {', '.join(GROUPS)}")
    seen = snapshot if isinstance(snapshot, Exposures) else Exposures.of(snapshot)
    parts = _Parts.of(seen, by)
    if len(parts.names) < 2:
        raise StateError(
            f"{len(parts.names)} nodes by {by} have exposure; pairs need two",
            hint="take another division",
        )
    book = seen.snapshot.book
    drivers: dict[str, FloatMatrix] = {}
    absent: dict[str, str] = {}
    held = parts.holdings(by_depth=by_depth)
    if (held > 0.0).any():
        drivers["collateral"] = _cosines(held)
    else:
        absent["collateral"] = (
            f"nothing {'of known depth ' if by_depth else ''}is held but money, which calls nobody"
        )
    if by in _OF_VENUES:
        absent["venue"] = "the nodes are whole venues, and no two stand at the same one"
        _add_platform(seen, by, parts.names, drivers, absent)
    else:
        drivers["venue"] = _overlaps(parts.shares(book.venue, len(book.universe.venues)))
    known = book.owners[book.owner] != UNKNOWN_OWNER
    owners = parts.shares(np.where(known, book.owner, NONE), len(book.owners))
    owned = np.asarray(owners.sum(axis=1)).ravel()
    if owned.any():
        drivers["owner"] = _overlaps(owners)
    else:
        absent["owner"] = "no owner of any account is known"
    made = Links.of(parts.names, drivers)
    return replace(made, absent=absent, owned=frozen(np.minimum(owned, 1.0)))


def exposure(seen: Exposures) -> FloatColumn:
    """(legs,) What `leverage` counts of every leg, in USD."""
    return np.asarray(seen.outright + seen.notional + seen.delta)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Exposures by node: one row a leg that is exposed and stands in a node."""

    seen: Exposures
    names: tuple[str, ...]
    node: KeyColumn  # (rows,)
    account: KeyColumn  # (rows,)
    size: FloatColumn  # (rows,) USD

    @classmethod
    def of(cls, seen: Exposures, by: str) -> _Parts:
        size, (code, names) = exposure(seen), nodes(seen, by)
        leg = np.flatnonzero((size > 0.0) & (code >= 0))
        used, node = np.unique(code[leg], return_inverse=True)
        account = seen.snapshot.book.leg_account[leg].astype(np.int64)
        return cls(seen, tuple(names[k] for k in used), node.astype(np.int64), account, size[leg])

    def shares(self, place: AnyColumn, count: int) -> Any:
        """(nodes, places) Share of each node's exposure in each place of accounts; sparse."""
        whole = np.bincount(self.node, self.size, minlength=len(self.names))
        at = np.flatnonzero(place[self.account] >= 0)
        where = (self.node[at], place[self.account[at]])
        value = self.size[at] / whole[self.node[at]]
        return sparse.coo_array((value, where), shape=(len(self.names), count)).tocsr()

    def holdings(self, *, by_depth: bool) -> FloatMatrix:
        """(nodes, assets) What accounts of each node are exposed to, by root, money left out."""
        book, universe = self.seen.snapshot.book, self.seen.snapshot.universe
        size = exposure(self.seen)
        root = universe.root[universe.asset_of[book.inst]]
        at = np.flatnonzero((size > 0.0) & ~universe.stable[root])
        held = sparse.coo_array(
            (size[at], (book.leg_account[at], root[at])), (book.accounts, len(universe.assets))
        )
        part = sparse.coo_array(
            (self.size / self.seen.added(size)[self.account], (self.node, self.account)),
            (len(self.names), book.accounts),
        )
        table: FloatMatrix = np.asarray((part.tocsr() @ held.tocsr()).todense())
        if not by_depth:
            return table
        depth = _depth_usd(self.seen.snapshot)
        return np.divide(table, np.sqrt(depth), out=np.zeros_like(table), where=depth > 0.0)


def _depth_usd(snapshot: Snapshot) -> FloatColumn:
    """By asset, what moves its price by one e-fold: all spot books, or the deepest contract's."""
    universe, market = snapshot.universe, snapshot.market
    usd = market.depth * np.where(universe.inverse, 1.0, market.mark)
    spot, count = universe.kind == _SPOT, len(universe.assets)
    books = np.bincount(universe.asset_of[spot], usd[spot], minlength=count)
    deepest = np.zeros(count)
    np.maximum.at(deepest, universe.asset_of[~spot], usd[~spot])
    depth: FloatColumn = np.where(books > 0.0, books, deepest)
    return depth


def _add_platform(
    seen: Exposures,
    by: str,
    names: tuple[str, ...],
    drivers: dict[str, FloatMatrix],
    absent: dict[str, str],
) -> None:
    """Say which nodes run on the same chain, where that tells some of them apart."""
    universe = seen.snapshot.universe
    runs = dict(zip(universe.venues, universe.venue_chain, strict=True))
    chains = [name if by == "chain" else runs[name] for name in names]
    same = np.array([[float(a == b and a != "") for b in chains] for a in chains])
    pairs = same[np.triu_indices(len(names), 1)]
    if pairs.min() == pairs.max():
        absent["platform"] = f"{'all' if pairs.all() else 'no two'} nodes run on the same chain"
        return
    np.fill_diagonal(same, 1.0)
    drivers["platform"] = same


def _cosines(held: FloatMatrix) -> FloatMatrix:
    size = np.sqrt((held * held).sum(axis=1, keepdims=True))
    unit = np.divide(held, size, out=np.zeros_like(held), where=size > 0.0)
    products = np.einsum("ik,jk->ij", unit, unit)
    found: FloatMatrix = np.clip(0.5 * (products + products.T), 0.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def _overlaps(shares: Any) -> FloatMatrix:
    """Sum over places of min(share, share), by pair; places that one node alone has add nothing."""
    count = shares.shape[0]
    found = np.zeros((count, count))
    met = shares.tocsc()[:, np.flatnonzero(np.diff(shares.tocsc().indptr) > 1)]
    for first in range(0, met.shape[1], _OWNERS):
        block = np.asarray(met[:, first : first + _OWNERS].todense())
        for i, j in combinations(range(count), 2):
            found[i, j] += np.minimum(block[i], block[j]).sum()
    whole: FloatMatrix = np.minimum(found + found.T, 1.0)
    np.fill_diagonal(whole, 1.0)
    return whole
