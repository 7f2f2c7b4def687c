"""Who may be systemic: venues, tokens, keepers, pools, the largest owners, oracles and chains.

A candidate is a node of the dependency map with what its failure is to the solver, which parties
of the claims it is, and what is left of the book without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from undertow import schema
from undertow.measures.interconnection.mapping import NODE_KINDS
from undertow.measures.interconnection.web import Web
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import frozen
from undertow.state.book import UNKNOWN_OWNER
from undertow.state.claims import CLAIM_KINDS
from undertow.stress.contagion import FeedFailure
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.stakes import POOL
from undertow.stress.failures import (
    BridgeFailure,
    CustodianFailure,
    Exploit,
    Failure,
    IssuerFailure,
)
from undertow.stress.plan import Plan
from undertow.stress.shock import Shock
from undertow.stress.standins import stand_ins

# Kinds of nodes of the map, and what they are called here.
KINDS = {
    "venue": "venue", "asset": "token", "custodian": "keeper", "bridge": "keeper",
    "external": "keeper", "instrument": "pool", "owner": "owner", "oracle": "oracle",
    "chain": "chain",
}  # fmt: skip
_LENT = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("share", "reserve")]
_SOUND = "external:somebody sound"
_ALONE = "account "
_OUTSIDE = "it owes nobody outside its venues: what it adds says what its closing does"


@dataclass(frozen=True, eq=False)
class Candidate:
    """One node that may be systemic."""

    name: str  # kind:key
    kind: str  # of KINDS
    node: int  # of the map
    failure: str | Shock | None  # to the solver
    parties: AnyColumn  # of the sheet, that default with it
    rows: AnyColumn  # of the backing, that its value leads through
    reason: str = ""  # why it cannot fail

    @property
    def key(self) -> str:
        """Its name without the kind."""
        return self.name.partition(":")[2]


@dataclass(frozen=True, eq=False)
class Field:
    """All candidates of a book, and the value that leads through each."""

    web: Web
    every: tuple[Candidate, ...]
    by_account: FloatMatrix  # (accounts, candidates) USD held that leads through each
    held: FloatColumn  # (accounts,)

    @classmethod
    def of(
        cls, web: Web, sheet: Sheet, most: int, among: Sequence[str], recovery: float, wrong: float
    ) -> Field:
        """The `most` largest of every kind by value that leads through or that they owe, or those
        named.

        Raises
        ------
        StateError
            When a name is no node of the map; the message offers the nearest.
        """
        maker = _Maker(web, sheet, recovery, wrong)
        if among:
            found = [maker.candidate(web.map.node(name)) for name in dict.fromkeys(among)]
        else:
            found = maker.all()
        if not among:
            size, kept = _sizes(web, found), list[int]()
            for kind in dict.fromkeys(KINDS.values()):
                mine = [n for n, each in enumerate(found) if each.kind == kind]
                kept += sorted(mine, key=lambda n: (-size[n], found[n].name))[:most]
            found = [found[n] for n in kept]
        return cls(web, tuple(found), *_through(web, found))

    @property
    def passes(self) -> FloatColumn:
        """By candidate: share of what accounts hold that leads through it."""
        whole = float(self.held.sum())
        usd: FloatColumn = self.by_account.sum(axis=0)
        return usd / whole if whole > 0.0 else usd * np.nan


class _Maker:
    """Makes candidates of nodes."""

    def __init__(self, web: Web, sheet: Sheet, recovery: float, wrong: float) -> None:
        self.web, self.sheet = web, sheet
        self.recovery, self.wrong = recovery, wrong
        self.party = {name: n for n, name in enumerate(sheet.names)}

    def all(self) -> list[Candidate]:
        """Every node that may be one."""
        m, web = self.web.map, self.web
        universe, book = web.snapshot.universe, web.snapshot.book
        used = np.bincount(book.venue, minlength=len(universe.venues)) > 0
        lends = np.isin(universe.kind, _LENT)
        used[universe.venue_of[lends]] = True
        known = book.owners != UNKNOWN_OWNER
        usd = np.bincount(book.owner, web.crowd.leveraged, len(book.owners))
        largest = {str(book.owners[k]) for k in np.argsort(-usd * known, kind="stable")[:64]
                   if known[k] and usd[k] > 0.0}  # fmt: skip
        wraps = ~web.backing.base
        chosen: dict[str, Callable[[str], Any]] = {
            "venue": lambda key: used[universe.code("venue", key)],
            "asset": lambda key: wraps[universe.code("asset", key)],
            "instrument": lambda key: lends[universe.code("instrument", key)],
            "owner": lambda key: key in largest,
        }
        found = []
        for kind in KINDS:
            keys = m.keys[kind].cast(pl.String).to_list()
            fits = chosen.get(kind, _anybody)
            found += [self.candidate(m.offset[kind] + n) for n, key in enumerate(keys) if fits(key)]
        return found

    def candidate(self, node: int) -> Candidate:
        """The candidate that a node is."""
        m = self.web.map
        kind = NODE_KINDS[int(m.kind_of(np.array([node]))[0])]
        name = str(m.named(np.array([node]))[0])
        key = name.partition(":")[2]
        failure, reason = self._failure(kind, key)
        parties = self._parties(kind, key)
        return Candidate(
            name, KINDS.get(kind, kind), node, failure, parties, self._rows(kind, key, node), reason
        )

    def _failure(self, kind: str, key: str) -> tuple[str | Shock | None, str]:
        lost, universe = 1.0 - self.recovery, self.web.snapshot.universe
        if kind == "venue":
            return Exploit(venue=key, share=lost), ""
        if kind == "instrument":
            k = universe.code("instrument", key)
            venue, asset = universe.venues[universe.venue_of[k]], universe.assets[
                universe.asset_of[k]]  # fmt: skip
            return Exploit(venue=venue, share=lost, asset=asset), ""
        if kind == "asset":
            return IssuerFailure(asset=key, recovery=self.recovery), ""
        if kind in ("custodian", "bridge"):
            shape = CustodianFailure if kind == "custodian" else BridgeFailure
            if key not in self._kept_by(shape):
                return None, f"nothing is known to stand on {key}"
            return shape(name=key, recovery=self.recovery), ""
        if kind in ("external", "owner"):
            name = f"{kind}:{key}"
            return (name, "") if name in self.party else (None, _OUTSIDE)
        if kind == "oracle":
            return FeedFailure(feed=key, factor=1.0 - self.wrong), ""
        return (f"chain:{key}", "") if kind == "chain" else (None, f"a {kind} cannot fail here")

    def _kept_by(self, shape: type[Failure]) -> set[str]:
        """Names that such a failure reaches: debtors of its claims, and what assets say."""
        claims, universe = self.web.snapshot.claims, self.web.snapshot.universe
        kinds = [CLAIM_KINDS.index(kind) for kind in shape.kinds]
        owing = np.unique(claims.debtor[np.isin(claims.kind, kinds)])
        names = {claims.nodes[k].partition(":")[2] for k in owing}
        return names | (set(getattr(universe, shape.role)) if shape.role else set())

    def _parties(self, kind: str, key: str) -> AnyColumn:
        """Who defaults in the claims when the node does; a lending venue with its pools."""
        sheet, universe = self.sheet, self.web.snapshot.universe
        names = {
            "custodian": ("venue", "external"), "bridge": ("venue", "external"),
            "instrument": ("pool",),
        }.get(kind, (kind,))  # fmt: skip
        found = [self.party[f"{n}:{key}"] for n in names if f"{n}:{key}" in self.party]
        if kind == "venue":
            pools = np.flatnonzero(sheet.sort == POOL)
            code = universe.code("venue", key)
            found += pools[universe.venue_of[sheet.code[pools]] == code].tolist()
        return np.array(found, dtype=np.int64)

    def _rows(self, kind: str, key: str, node: int) -> AnyColumn:
        """Rows of the backing that are the node, live on it, or are priced by it."""
        web, universe = self.web, self.web.snapshot.universe
        tokens = len(web.backing.base)
        places = np.zeros(len(universe.instruments), dtype=np.bool_)
        own = np.zeros(tokens, dtype=np.bool_)
        if kind == "venue":
            places = universe.venue_of == universe.code("venue", key)
        elif kind == "oracle":
            places = web.snapshot.oracles.feed == universe.code("instrument", key)
        elif kind == "chain":
            runs = np.array([chain == key for chain in universe.venue_chain], dtype=np.bool_)
            places = runs[universe.venue_of]
            own = np.array([chain == key for chain in universe.chain], dtype=np.bool_)
        named = np.flatnonzero(web.backing.node == node)
        return np.unique(
            np.concatenate([named, np.flatnonzero(own), tokens + np.flatnonzero(places)])
        )


def _anybody(key: str) -> bool:
    return bool(key)


def _shares(web: Web, found: Sequence[Candidate]) -> FloatMatrix:
    """(places, candidates) Share of what lies in each place that leads through each."""
    backing = web.backing
    tokens, places = len(backing.base), backing.accounts.held.shape[1]
    return backing.through([each.rows for each in found])[tokens : tokens + places]


def _sizes(web: Web, found: Sequence[Candidate]) -> FloatColumn:
    """By candidate: USD that leads through it, or that it holds; keepers no less than they owe."""
    held = csr_array(web.backing.accounts.held)
    usd = np.asarray(held.sum(axis=0)).ravel() @ _shares(web, found)
    by_account = np.zeros(held.shape[0])
    by_account[_accounts_of_map(web)] = np.asarray(held.sum(axis=1)).ravel()
    for n, each in enumerate(found):
        if each.kind == "owner":
            usd[n] = by_account[owned_by(web, each)].sum()
        elif each.kind == "keeper":
            usd[n] = max(usd[n], float(web.backing.claimed[each.rows].sum()))
    return usd


def _through(web: Web, found: Sequence[Candidate]) -> tuple[FloatMatrix, FloatColumn]:
    """(accounts, candidates) USD that leads through each, and what accounts hold in all."""
    held = csr_array(web.backing.accounts.held)
    order = _accounts_of_map(web)
    usd = np.zeros((web.snapshot.book.accounts, len(found)))
    whole = np.zeros(len(usd))
    usd[order] = np.asarray(held @ _shares(web, found))
    whole[order] = np.asarray(held.sum(axis=1)).ravel()
    for n, each in enumerate(found):
        if each.kind == "owner":
            usd[:, n] = np.where(owned_by(web, each), whole, 0.0)
    return usd, whole


def _accounts_of_map(web: Web) -> AnyColumn:
    """By account of the map: its row in the book."""
    book = web.snapshot.book
    row = {int(key): n for n, key in enumerate(book.account)}
    return np.array([row[int(key)] for key in web.map.keys["account"]], dtype=np.int64)


def owned_by(web: Web, owner: Candidate) -> BoolColumn:
    """(accounts,) Whether each account of the book belongs to an owner."""
    book = web.snapshot.book
    whose, key = book.owners[book.owner], owner.key
    if key.startswith(_ALONE):  # of no known owner: the account is its own
        return np.asarray(book.account == int(key.removeprefix(_ALONE)))
    found: BoolColumn = whose == int(key)
    return found


def without(web: Web, gone: Candidate) -> Plan | None:
    """The book with a node taken out; None where there is nothing to take.

    Accounts of an owner, at a venue, on a chain or with anything in a pool are removed. Claims on a
    keeper or a venue, and what a token holds, are made safe: somebody sound owes them instead.
    """
    plan, book = web.crowd.plan, web.snapshot.book
    away, safe = _accounts_of(web, gone), _claims_of(web, gone)
    if not (away.any() or safe.any()):
        return None
    if safe.any():
        claims = web.snapshot.claims
        sound = replace(
            claims,
            nodes=(*claims.nodes, _SOUND),
            debtor=frozen(np.where(safe, len(claims.nodes), claims.debtor).astype(np.int32)),
        )
        plan = Plan.of(replace(web.snapshot, claims=sound))
    if away.all() and book.accounts:
        away[0] = False  # one account is left, so that there is a book
    return stand_ins(plan, (~away).astype(np.int64)) if away.any() else plan


def _accounts_of(web: Web, gone: Candidate) -> BoolColumn:
    """(accounts,) Whether each goes with the node."""
    universe, book = web.snapshot.universe, web.snapshot.book
    if gone.kind == "owner":
        return owned_by(web, gone)
    if gone.kind == "venue":
        return np.asarray(book.venue == universe.code("venue", gone.key))
    if gone.kind == "chain":
        runs = np.array([chain == gone.key for chain in universe.venue_chain], dtype=np.bool_)
        return np.asarray(runs[book.venue])
    away = np.zeros(book.accounts, dtype=np.bool_)
    if gone.kind == "pool":
        away[book.leg_account[book.inst == universe.code("instrument", gone.key)]] = True
    return away


def _claims_of(web: Web, gone: Candidate) -> BoolColumn:
    """By claim: whether somebody sound owes it once the node is gone."""
    claims = web.snapshot.claims
    node = np.array([*claims.nodes, ""])
    owing, owed = node[claims.debtor], node[claims.creditor]
    if gone.kind == "token":
        return np.asarray(owed == gone.name)
    if gone.kind in ("venue", "owner"):
        return np.asarray(owing == gone.name)
    if gone.kind == "keeper":
        return np.isin(owing, [f"{kind}:{gone.key}" for kind in ("venue", "external")])
    return np.zeros(len(claims), dtype=np.bool_)
