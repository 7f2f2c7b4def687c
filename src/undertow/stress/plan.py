"""A book laid out for cascades: what does not depend on the scenario, worked out once.

`Plan.of(snapshot)` joins book, rules and market into the columns that the kernels read;
`case_of(plan, stressed, options)` adds one scenario. Accounts stand as in the book, so row a of
anything here is account a there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.kernels import accounts, closing, margin, rounds
from undertow.kernels.fixed import quanta_per_unit
from undertow.rules import portfolio
from undertow.rules.closing import ClosingColumns, closing_columns
from undertow.rules.snapshot import Snapshot
from undertow.state import (
    AnyColumn,
    Book,
    CodeColumn,
    FloatColumn,
    KeyColumn,
    SmallColumn,
    Universe,
)
from undertow.state.arrays import frozen
from undertow.state.book import OPTION as HELD_OPTION
from undertow.state.book import PORTFOLIO
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NONE
from undertow.stress.carriers import Carriers
from undertow.stress.keepers import keepers_of
from undertow.stress.owners import OwnersKnown
from undertow.stress.pricing import PricingMap

_RESERVE = schema.INSTRUMENT_KINDS.index("reserve")
_DEPOSIT = CLAIM_KINDS.index("deposit")
_HEADROOM_QTY, _HEADROOM_USD = 4.0, 64.0  # how far sums may outgrow what is there at the start
_HEADROOM_KEPT = 16.0  # ups and downs, each as large as a price, that keepers of leverage follow


@dataclass(frozen=True, eq=False)
class Plan:
    """One snapshot, ready for any number of scenarios."""

    snapshot: Snapshot
    hold: accounts.Holdings
    insts: AnyColumn  # INSTRUMENT; what depends on a scenario is still as at rest
    brackets: AnyColumn
    grids: accounts.Grids
    closing: AnyColumn  # by venue
    carriers: Carriers
    holders: rounds.Holders
    owner_start: KeyColumn
    per_demand: FloatColumn  # by venue
    deposits: AnyColumn  # claims that stand in reserves
    pricing: PricingMap  # how everything answers factors
    keepers: AnyColumn  # who keeps leveraged tokens at their leverage

    @classmethod
    def of(cls, snapshot: Snapshot | Any) -> Plan:
        """Lay a snapshot out.

        Raises
        ------
        RuleError
            When something is held of which the venue's rules say nothing.
        MissingPrice
            When an option has no underlying price or volatility.
        """
        if not isinstance(snapshot, Snapshot):
            raise StateError(
                f"snapshot was of type {type(snapshot).__name__}; it must be a Snapshot or a Plan",
                hint="a world makes one by .snapshot(), and load_snapshot reads one from a lake",
            )
        book, rules = snapshot.book, snapshot.rules
        legs = rules.leg_columns(book)
        columns = closing_columns(rules, book)
        portfolio.require_models(snapshot, portfolio.chain_of(snapshot))
        grids, grid_of_venue = _grids(snapshot)
        pricing = PricingMap.of(snapshot)
        carriers, keepers = Carriers.of(snapshot, pricing), keepers_of(snapshot, pricing)
        owners = np.searchsorted(book.owner, np.arange(len(book.owners) + 1))
        return cls(
            snapshot=snapshot,
            hold=_holdings(book, legs, columns, grid_of_venue),
            insts=_instruments(snapshot, carriers, keepers),
            brackets=records(accounts.BRACKET, rate=rules.terms.rate, amount=rules.terms.amount),
            grids=grids,
            closing=_closing(columns.by_venue),
            carriers=carriers,
            holders=_holders(snapshot, legs.role),
            owner_start=frozen(owners.astype(np.int64)),
            per_demand=frozen(
                np.full(len(snapshot.universe.venues), quanta_per_unit(_whole(snapshot)))
            ),
            deposits=_deposits(snapshot),
            pricing=pricing,
            keepers=keepers,
        )

    def __repr__(self) -> str:
        return f"Plan({self.snapshot.book!r})"

    def unpacked(self) -> Plan:
        """The same plan with arrays that may be written where they were when it was laid out.

        What travelled to a worker may come back read-only, or no longer so; kernels are compiled
        for the one or the other, and compiling twice costs minutes.
        """
        return self.like(
            hold=accounts.Holdings(*(_writable(part) for part in self.hold)),
            insts=_writable(self.insts),
            brackets=_writable(self.brackets),
            grids=accounts.Grids(*(_writable(part) for part in self.grids)),
            closing=_writable(self.closing),
            holders=rounds.Holders(*(frozen(part) for part in self.holders)),
            owner_start=frozen(self.owner_start),
            deposits=_writable(self.deposits),
            keepers=_writable(self.keepers),
        )

    def with_depth(self, times: float) -> Plan:
        """The same plan in markets that are so many times as deep."""
        depth = frozen(self.carriers.depth * times)
        return self.like(carriers=replace(self.carriers, depth=depth))

    def like(self, **changed: Any) -> Plan:
        """The same plan but for a few parts, of which what is held of an instrument is none."""
        found = replace(self, **changed)
        found.__dict__["gross_usd"] = self.gross_usd
        return found

    @cached_property
    def gross_usd(self) -> FloatColumn:
        """USD held and owed at the start, gross, by instrument."""
        legs = self.hold.legs
        price = np.where(self.insts["inverse"] != 0, 1.0, self.insts["start"])
        usd = np.abs(legs["qty"]) * price[legs["inst"]]
        return frozen(np.bincount(legs["inst"], weights=usd, minlength=len(self.insts)))

    @cached_property
    def owners_known(self) -> OwnersKnown:
        """What decides how likely each owner is to act when it is called."""
        return OwnersKnown.of(self.snapshot, self.hold.accounts["cash"])


def _writable(column: AnyColumn) -> AnyColumn:
    return column if column.flags.writeable else column.copy()


def records(dtype: np.dtype[np.void], **columns: Any) -> AnyColumn:
    """A structured array from its columns; what is not given is 0."""
    size = len(next(iter(columns.values())))
    rows = np.zeros(size, dtype=dtype)
    for name, column in columns.items():
        rows[name] = column
    return rows.view(np.recarray)


def _closing(by_venue: closing.Closing) -> AnyColumn:
    """The columns of `Closing` as one row a venue."""
    columns = by_venue._asdict()
    dtype = np.dtype([(name, column.dtype) for name, column in columns.items()], align=True)
    return records(dtype, **columns)


def _holdings(
    book: Book, legs: margin.Legs, columns: ClosingColumns, grid_of_venue: AnyColumn
) -> accounts.Holdings:
    in_grid = book.mode == PORTFOLIO
    roots = _roots(book.universe)
    return accounts.Holdings(
        records(
            accounts.ACCOUNT,
            first=book.offset[:-1],
            last=book.offset[1:],
            venue=book.venue,
            owner=book.owner,
            grid=np.where(in_grid, grid_of_venue[book.venue], -1),
            root=_account_roots(book, roots),
            times=1,
        ),
        records(
            accounts.LEG,
            inst=legs.inst,
            role=legs.role,
            qty=legs.qty,
            entry=legs.entry,
            weight=legs.weight,
            bonus=columns.bonus,
            fee=columns.fee,
        ),
    )


def _instruments(snapshot: Snapshot, carriers: Carriers, keepers: AnyColumn) -> AnyColumn:
    """What every instrument is, at rest: its oracle reads the market unless a scenario says."""
    universe, market, terms = snapshot.universe, snapshot.market, snapshot.rules.terms
    chain = portfolio.chain_of(snapshot)
    rate, amount = (_largest(terms, column) for column in (terms.rate, terms.amount))
    count = len(market.mark)
    held = np.bincount(snapshot.book.inst, np.abs(snapshot.book.qty), count)
    kept = np.bincount(keepers["inst"], keepers["strength"], count)
    usd = np.maximum(_HEADROOM_USD * _gross(snapshot), _whole(snapshot) / _HEADROOM_USD)
    return records(
        accounts.INSTRUMENT,
        start=np.where(market.mark > 0.0, market.mark, 1.0),
        first=terms.start[:-1],
        last=terms.start[1:],
        closing_fee=terms.closing_fee,
        steepest=rate,
        largest=amount,
        basis=terms.basis,
        money=universe.stable[universe.asset_of],
        inverse=universe.inverse,
        kind=chain.kind,
        asset=universe.asset_of,
        root=_roots(universe),
        venue=universe.venue_of,
        strike=np.where(chain.kind != 0, chain.strike, 1.0),
        tau=chain.tau,
        forward=np.where(chain.forward > 0.0, chain.forward, 1.0),
        vol=chain.vol,
        carrier=carriers.start[:-1],
        carriers=carriers.start[1:],
        tied=carriers.tied,
        spot_pool=carriers.spot_pool,
        own_pool=carriers.own_pool,
        spot_rate=carriers.spot_rate,
        factor=np.ones(len(market.mark)),
        per_qty=[quanta_per_unit(_HEADROOM_QTY * qty) for qty in held + _HEADROOM_KEPT * kept],
        per_usd=[quanta_per_unit(value) for value in usd],
        supplied=snapshot.liquidity.supplied,
    )


def _roots(universe: Universe) -> CodeColumn:
    """By instrument, the asset at the end of what its own follows; NONE where that is money."""
    root = universe.root
    found: CodeColumn = np.where(universe.stable[root], NONE, root).astype(np.int32)
    return found[universe.asset_of]


def _account_roots(book: Book, roots: CodeColumn) -> CodeColumn:
    """By account, the one root of all that it holds but money, or the number of assets."""
    several = len(book.universe.assets)
    root = roots[book.inst]
    least = np.full(book.accounts, several, dtype=np.int32)
    most = np.full(book.accounts, -1, dtype=np.int32)
    volatile = root != NONE
    np.minimum.at(least, book.leg_account[volatile], root[volatile])
    np.maximum.at(most, book.leg_account[volatile], root[volatile])
    found: CodeColumn = np.where(least == most, least, several).astype(np.int32)
    return found


def _largest(terms: margin.Terms, column: FloatColumn) -> FloatColumn:
    """By instrument, the largest entry of a column of its brackets; 0 without any."""
    largest = np.zeros(len(terms.start) - 1)
    owner = np.repeat(np.arange(len(largest)), np.diff(terms.start))
    np.maximum.at(largest, owner, np.abs(column))
    return largest


def _gross(snapshot: Snapshot) -> FloatColumn:
    """USD held and owed, gross, by instrument."""
    book, universe = snapshot.book, snapshot.universe
    price = np.where(universe.inverse, 1.0, snapshot.market.mark)
    gross = np.bincount(book.inst, np.abs(book.qty) * price[book.inst], len(price))
    return gross.astype(np.float64)


def _whole(snapshot: Snapshot) -> float:
    """More USD than a sum over the whole book can come to."""
    return max(_HEADROOM_USD * float(_gross(snapshot).sum()), 1.0)


def _holders(snapshot: Snapshot, role: SmallColumn) -> rounds.Holders:
    """Straight derivative legs by instrument: those who may be deleveraged."""
    book = snapshot.book
    legs = np.flatnonzero((role == margin.LINEAR) | (role == margin.INVERSE))
    order = legs[np.argsort(book.inst[legs], kind="stable")]
    start = np.searchsorted(book.inst[order], np.arange(len(snapshot.universe.instruments) + 1))
    return rounds.Holders(
        frozen(start.astype(np.int64)), frozen(order.astype(np.int64)),
        frozen(book.leg_account[order]), frozen(np.sign(book.qty[order])),
        frozen(book.entry[order].copy()),
    )  # fmt: skip


def _grids(snapshot: Snapshot) -> tuple[accounts.Grids, AnyColumn]:
    """The grids of all venues that margin portfolios, end to end, and the row of each venue."""
    universe = snapshot.universe
    row = np.full(len(universe.venues), -1, dtype=np.int32)
    start: list[int] = [0]
    points: list[AnyColumn] = []
    charges: list[AnyColumn] = []
    for venue, profile in enumerate(snapshot.rules.profiles):
        if profile is None or profile.grid is None:
            continue
        row[venue] = len(charges)
        points.append(records(accounts.POINT, **portfolio.grid_of(profile.grid)._asdict()))
        start.append(start[-1] + len(points[-1]))
        chain = portfolio.chain_of(snapshot, profile.grid)
        charges.append(
            records(
                accounts.CHARGE,
                vol_scale=chain.vol_scale,
                add_on=chain.add_on,
                minimum=chain.minimum,
            )
        )
    count = len(universe.instruments)
    return (
        accounts.Grids(
            np.array(start, dtype=np.int64),
            np.concatenate([np.empty(0, accounts.POINT), *points]).view(np.recarray),
            np.concatenate([np.empty((0, count), accounts.CHARGE), *(c[None] for c in charges)])
            .view(np.recarray),
            np.unique(snapshot.book.inst[snapshot.book.kind == HELD_OPTION]).astype(np.int32),
        ),
        row,
    )  # fmt: skip


def _deposits(snapshot: Snapshot) -> AnyColumn:
    """Which claims stand in which reserves: deposits that an asset has at a venue.

    A vault share is a claim on all that its vault deposited; the share of it that a reserve backs
    is that deposit over all its deposits, each at its mark.
    """
    universe, claims = snapshot.universe, snapshot.claims
    reserve_of = {
        (int(universe.venue_of[k]), int(universe.asset_of[k])): int(k)
        for k in np.flatnonzero(universe.kind == _RESERVE)
    }
    found: list[tuple[int, int, float]] = []
    for row in np.flatnonzero(claims.kind == _DEPOSIT):
        debtor, creditor = claims.nodes[claims.debtor[row]], claims.nodes[claims.creditor[row]]
        if debtor.startswith("venue:") and creditor.startswith("asset:"):
            venue = universe.code("venue", debtor.removeprefix("venue:"))
            k = reserve_of.get((venue, int(claims.asset[row])))
            if k is not None:
                value = float(claims.qty[row] * snapshot.market.mark[k])
                found.append((k, universe.code("asset", creditor.removeprefix("asset:")), value))
    reserve = np.array([f[0] for f in found], dtype=np.int32)
    claim = np.array([f[1] for f in found], dtype=np.int32)
    worth = np.array([f[2] for f in found])
    whole = np.bincount(claim, weights=worth, minlength=len(universe.assets))[claim]
    share = np.divide(worth, whole, out=np.zeros_like(worth), where=whole > 0.0)
    return records(rounds.DEPOSIT, reserve=reserve, claim=claim, share=share)
