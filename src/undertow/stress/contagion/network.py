"""Who owes whom in a snapshot, laid out for clearing: parties, rows, and what each party is.

Parties are the nodes of `claims`, every venue, and every reserve as a party of its own
(`pool:INSTRUMENT`), since what one reserve lost is not borne by those who lent to another. A claim
on a venue in an asset of which it has a reserve is a claim on that pool, and what such a venue is
owed in that asset belongs to the pool.

- POOLS pass through: a supplier's claim is a share of what the reserve still has.
- TOKENS pass through: `backing` and `vault_share` of a token are shares of what it holds, after
  its loans. Whoever else holds it (the book, the public) has the rest.
- DEBTORS owe: venues, keepers and issuers outside, owners. What they owe (deposit, loan, custody,
  bridge, and backing that they keep for a token) is a debt, all of one rank.

A loan of an owner that stands in the book as a debt at that venue is secured there and is the
cascade's business: it is taken off before anything clears.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.kernels.margin import INVERSE, LINEAR
from undertow.rules.snapshot import Snapshot
from undertow.state import (
    Book,
    BoolColumn,
    Claims,
    CodeColumn,
    FloatColumn,
    KeyColumn,
    SmallColumn,
    Universe,
)
from undertow.state.arrays import AnyColumn, frozen
from undertow.state.book import CASH, DEBT
from undertow.state.universe import NONE
from undertow.stress.aftermath import Cascade
from undertow.stress.contagion.stakes import DEBTOR, DEPOSIT, LOAN, POOL, TOKEN, Stakes
from undertow.stress.shock import near
from undertow.stress.worth import asset_prices

_LENT = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("share", "reserve")]


@dataclass(frozen=True, eq=False)
class Sheet:
    """The graph of claims as it was found, and what the book says of its parties."""

    snapshot: Snapshot
    names: tuple[str, ...]  # by party
    sort: SmallColumn  # DEBTOR, TOKEN or POOL
    code: CodeColumn  # of the asset of a token, the instrument of a pool, the venue of a venue
    pool_of: CodeColumn  # [I] party of the reserve, or NONE
    venue_party: CodeColumn  # [V]
    row: KeyColumn  # by row: row of the claims
    debtor: CodeColumn  # by row: party
    creditor: CodeColumn
    asset: CodeColumn
    kind: SmallColumn
    qty: FloatColumn  # as found
    unsecured: FloatColumn  # by row: share that no collateral in the book stands behind
    price: FloatColumn  # [A] USD, before any shock
    cash: FloatColumn  # [I] what accounts hold as cash at venues
    owner_row: CodeColumn  # by party: row of `Book.owners` of an owner in the book, or NONE

    @classmethod
    def of(cls, snapshot: Snapshot) -> Sheet:
        """Lay the claims of a snapshot out."""
        claims, universe, book = snapshot.claims, snapshot.universe, snapshot.book
        venues = [f"venue:{name}" for name in universe.venues]
        known = set(claims.nodes)
        lent = [int(k) for kind in _LENT for k in np.flatnonzero(universe.kind == kind)]
        pools = [f"pool:{universe.instruments[k]}" for k in lent]
        names = (*claims.nodes, *(name for name in venues if name not in known), *pools)
        at = {name: party for party, name in enumerate(names)}
        venue_party = np.array([at[name] for name in venues], dtype=np.int32)
        pool_of = np.full(len(universe.instruments), NONE, dtype=np.int32)
        pool_of[lent] = [at[name] for name in pools]
        sort, code = _sorts(universe, names, venue_party, pool_of)
        owners = _owner_rows(names, book.owners)
        pool = _pools_named(universe, claims, names, lent, pool_of)
        debtor = np.where((claims.kind == DEPOSIT) & (pool[0] != NONE), pool[0], claims.debtor)
        creditor = np.where(pool[1] != NONE, pool[1], claims.creditor)
        rows = np.flatnonzero((claims.qty > 0.0) & (debtor != creditor))
        columns = {"debtor": debtor, "creditor": creditor, "asset": claims.asset,
                   "kind": claims.kind, "qty": claims.qty,
                   "unsecured": _unsecured(book, claims, owners, pool[1], code)}  # fmt: skip
        held = book.kind == CASH
        cash = np.bincount(book.inst[held], np.maximum(book.qty[held], 0.0), len(pool_of))
        return cls(
            snapshot=snapshot,
            names=names,
            sort=frozen(sort),
            code=frozen(code),
            pool_of=frozen(pool_of),
            venue_party=frozen(venue_party),
            row=frozen(rows),
            price=frozen(asset_prices(snapshot)),
            cash=frozen(cash.astype(np.float64)),
            owner_row=frozen(owners),
            **{name: frozen(column[rows]) for name, column in columns.items()},
        )

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Sheet({len(self.row):,} claims between {len(self):,} parties)"

    def party(self, name: str) -> int:
        """The party of a name, such as `external:desk`.

        Raises
        ------
        StateError
            When there is none; the message offers the nearest.
        """
        if name not in self.names:
            raise StateError(f"no party is called {name!r}", hint=near(name, self.names))
        return self.names.index(name)

    @cached_property
    def is_debtor(self) -> BoolColumn:
        """By party: it owes, and does not only pass on."""
        return frozen(self.sort == DEBTOR)

    @cached_property
    def stakes(self) -> Stakes:
        """Whose share of a pool or a token each row is."""
        usd = self.qty * self.unsecured * self.price[self.asset]
        supplied, lent = np.zeros(len(self)), self.pool_of != NONE
        supplied[self.pool_of[lent]] = self.snapshot.liquidity.supplied[lent]
        return Stakes.of(self.sort, self.debtor, self.creditor, self.kind, self.qty, usd, supplied)

    @cached_property
    def kept(self) -> FloatColumn:
        """[I] Units of each reserve that lie with others; what is lent to them lies nowhere."""
        rows = np.flatnonzero((self.sort[self.creditor] == POOL) & (self.kind != LOAN))
        units = np.bincount(
            self.code[self.creditor[rows]], self.qty[rows] * self.unsecured[rows], len(self.pool_of)
        )
        return frozen(units.astype(np.float64))

    @cached_property
    def token_party(self) -> CodeColumn:
        """[A] The party that each asset is, or NONE."""
        found = np.full(len(self.price), NONE, dtype=np.int32)
        tokens = np.flatnonzero(self.sort == TOKEN)
        found[self.code[tokens]] = tokens
        return frozen(found)

    def summed(self, party: AnyColumn, usd: FloatColumn) -> FloatColumn:
        """Rows added up by party."""
        return np.bincount(party, usd, len(self)).astype(np.float64)

    def ranks_differ(self) -> tuple[str, ...]:
        """Debtors whose claims are of several ranks; here all are of one."""
        rank = self.snapshot.claims.seniority[self.row]
        low, high = np.full(len(self), 127), np.zeros(len(self), dtype=np.int64)
        np.minimum.at(low, self.debtor, rank)
        np.maximum.at(high, self.debtor, rank)
        return tuple(self.names[n] for n in np.flatnonzero(high > low))

    @cached_property
    def free_usd(self) -> FloatColumn:
        """By party: what owners in the book hold outside it, at the prices of the day."""
        free = self.snapshot.free
        usd = np.bincount(free.owner, free.qty * self.price[free.asset], free.owners)
        return _of_owners(self.owner_row, usd)

    @cached_property
    def owing(self) -> BoolColumn:
        """By party: owners in the book who owe something that is not secured there."""
        owed = self.summed(self.debtor, self.qty * self.unsecured)
        return frozen((self.owner_row != NONE) & (owed > 0.0))

    def owner_equity(self, cascade: Cascade, *, after: bool) -> FloatColumn:
        """By party: equity in the book of owners who owe outside it, before or after a cascade."""
        book = cascade.plan.snapshot.book
        wanted = np.zeros(len(book.owners), dtype=np.bool_)
        wanted[self.owner_row[self.owing]] = True
        if not wanted.any():
            return np.zeros(len(self))
        qty = cascade.remaining if after else cascade.hold.legs["qty"]
        price = cascade.final if after else cascade.plan.insts["start"]
        cash = cascade.cash if after else cascade.hold.accounts["cash"]
        leg = np.flatnonzero(wanted[book.owner[book.leg_account]])
        legs = cascade.hold.legs[leg]
        here, now = qty[leg], price[legs["inst"]]
        worth = here * now
        straight, inverse = legs["role"] == LINEAR, legs["role"] == INVERSE
        worth[straight] = (here * (now - legs["entry"]))[straight]
        worth[inverse] = here[inverse] * (now[inverse] / legs["entry"][inverse] - 1.0)
        usd = np.bincount(book.owner[book.leg_account[leg]], worth, len(book.owners))
        money = np.where(wanted, np.bincount(book.owner, cash, len(book.owners)), 0.0)
        return _of_owners(self.owner_row, usd + money)


def _of_owners(owner_row: CodeColumn, usd: AnyColumn) -> FloatColumn:
    found = np.zeros(len(owner_row))
    here = owner_row != NONE
    found[here] = usd[owner_row[here]]
    return found


def _owner_rows(names: tuple[str, ...], owners: KeyColumn) -> CodeColumn:
    """By party, the row of an owner that has accounts; NONE of all others."""
    rows = {int(key): row for row, key in enumerate(owners) if key >= 0}
    found = np.full(len(names), NONE, dtype=np.int32)
    for party, name in enumerate(names):
        key = name.removeprefix("owner:")
        if name.startswith("owner:") and key.isdecimal():
            found[party] = rows.get(int(key), NONE)
    return found


def _sorts(
    universe: Universe, names: tuple[str, ...], venue_party: CodeColumn, pool_of: CodeColumn
) -> tuple[SmallColumn, CodeColumn]:
    """By party, what it is, and its code among its kind."""
    sort = np.full(len(names), DEBTOR, dtype=np.int8)
    code = np.full(len(names), NONE, dtype=np.int32)
    for party, name in enumerate(names):
        if name.startswith("asset:"):
            sort[party], code[party] = TOKEN, universe.code("asset", name.removeprefix("asset:"))
    code[venue_party] = np.arange(len(venue_party))
    lent = np.flatnonzero(pool_of != NONE)
    sort[pool_of[lent]], code[pool_of[lent]] = POOL, lent
    return sort, code


def _pools_named(
    universe: Universe, claims: Claims, names: tuple[str, ...], lent: list[int],
    pool_of: CodeColumn,
) -> tuple[CodeColumn, CodeColumn]:  # fmt: skip
    """By claim, the pool of its asset at the venue that owes it, and at the one that is owed."""
    nothing = len(universe.venues)
    reserve = np.full((nothing + 1, len(universe.assets)), NONE, dtype=np.int32)
    for k in lent:  # reserves proper stand last and win
        reserve[universe.venue_of[k], universe.asset_of[k]] = pool_of[k]
    venue = np.full(len(claims.nodes), nothing)
    for party, name in enumerate(names[: len(claims.nodes)]):
        if name.startswith("venue:"):
            venue[party] = universe.code("venue", name.removeprefix("venue:"))
    owing, owed = reserve[venue[claims.debtor], claims.asset], reserve[venue[claims.creditor],
                                                                       claims.asset]  # fmt: skip
    return owing, owed


def _unsecured(
    book: Book, claims: Claims, owners: CodeColumn, lender: CodeColumn, code: CodeColumn
) -> FloatColumn:
    """By claim, the share that no position in the book stands for: all but owners' own debts."""
    left = np.ones(len(claims))
    owner = owners[claims.debtor]
    rows = np.flatnonzero((claims.kind == LOAN) & (owner != NONE) & (lender != NONE))
    if not len(rows):
        return left
    legs = np.flatnonzero(book.kind == DEBT)
    size = len(book.universe.instruments)
    key = owner[rows].astype(np.int64) * size + code[lender[rows]]
    held = book.owner[book.leg_account[legs]].astype(np.int64) * size + book.inst[legs]
    wanted, which = np.unique(key, return_inverse=True)
    place = np.minimum(np.searchsorted(wanted, held), len(wanted) - 1)
    here = wanted[place] == held
    in_book = np.bincount(place[here], -book.qty[legs[here]], len(wanted))
    owed = np.bincount(which, claims.qty[rows], len(wanted))
    kept = np.maximum(owed - in_book, 0.0)
    left[rows] = np.divide(kept, owed, out=np.zeros_like(kept), where=owed > 0.0)[which]
    return left
