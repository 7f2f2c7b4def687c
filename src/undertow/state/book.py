"""Who holds what, at one instant, as columns.

A row of the account columns is one margin group at one venue, judged as a whole. Its legs stand
together: `offset[a]:offset[a + 1]` of the leg columns. Accounts are sorted by owner, then by key
(those of no known owner come last, each its own owner), legs by instrument and kind: the layout
depends on what is held alone, never on the order, chunking or number types of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state.arrays import (
    BoolColumn,
    CodeColumn,
    FloatColumn,
    KeyColumn,
    ShortColumn,
    SmallColumn,
    frozen,
)
from undertow.state.arrays import digest as digest_of
from undertow.state.conform import require
from undertow.state.intake import as_frame
from undertow.state.universe import NONE, Universe, encode

(COLLATERAL, DEBT, SUPPLY, CASH, PERP, FUTURE, OPTION) = range(len(schema.POSITION_KINDS))
(CROSS, ISOLATED, PORTFOLIO) = range(len(schema.MARGIN_MODES))
UNKNOWN_OWNER = -1
_DERIVATIVES = (PERP, FUTURE, OPTION)


@dataclass(frozen=True, eq=False)
class Book:
    """All positions at one instant, account by account."""

    universe: Universe
    # by account
    account: KeyColumn  # the integer key of the lake
    venue: ShortColumn
    mode: SmallColumn  # CROSS, ISOLATED or PORTFOLIO
    category: CodeColumn  # into `categories`, or NONE
    owner: CodeColumn  # into `owners`; never decreasing
    offset: KeyColumn  # (accounts + 1,)
    # by leg
    inst: CodeColumn
    kind: SmallColumn  # into schema.POSITION_KINDS
    qty: FloatColumn
    entry: FloatColumn  # 0 where the kind has none
    evidence: SmallColumn  # into schema.EVIDENCE
    # names
    owners: KeyColumn  # integer key of each owner, or UNKNOWN_OWNER
    categories: tuple[str, ...]

    @classmethod
    def from_frames(cls, universe: Universe, accounts: Any, positions: Any) -> Book:
        """Lay accounts and positions out, checking every value and every reference once.

        Raises
        ------
        SchemaError
            When a table does not fit its declared columns.
        StateError
            When a key stands twice, a position belongs to no account, an instrument is of another
            venue, or a quantity has the wrong sign for its kind.
        """
        held = require(schema.table("positions"), as_frame(positions), keys=False)
        groups = require(schema.table("accounts"), as_frame(accounts), keys=False)
        account_columns, row_of = _lay_out_accounts(universe, groups)
        leg_columns = _lay_out_legs(universe, held, account_columns["venue"], row_of)
        return cls(universe=universe, **account_columns, **leg_columns)

    def __len__(self) -> int:
        """Number of legs."""
        return len(self.qty)

    def __repr__(self) -> str:
        return f"Book({self.accounts:,} accounts, {len(self):,} legs, {len(self.owners):,} owners)"

    @property
    def accounts(self) -> int:
        """Number of accounts (margin groups)."""
        return len(self.account)

    @property
    def bytes_per_leg(self) -> float:
        """Memory of all columns over the number of legs."""
        columns = (self.account, self.venue, self.mode, self.category, self.owner, self.offset)
        legs = (self.inst, self.kind, self.qty, self.entry, self.evidence)
        return sum(c.nbytes for c in (*columns, *legs, self.owners)) / max(len(self), 1)

    @cached_property
    def leg_account(self) -> CodeColumn:
        """Of every leg, the row of its account."""
        counts = np.diff(self.offset)
        return frozen(np.repeat(np.arange(self.accounts, dtype=np.int32), counts))

    @cached_property
    def digest(self) -> str:
        """A hash of all columns, equal when the same things are held."""
        return digest_of(
            self.universe.digest,
            "\x00".join(self.categories),
            *(self.account, self.venue, self.mode, self.category, self.owner, self.offset),
            *(self.inst, self.kind, self.qty, self.entry, self.evidence, self.owners),
        )

    def row_of(self, account: int) -> int:
        """Row of the account with the integer key `account`.

        Raises
        ------
        StateError
            When the book has no such account.
        """
        row = np.flatnonzero(self.account == account)
        if not len(row):
            raise StateError(f"the book has no account {account}", hint=f"it holds {self.accounts}")
        return int(row[0])

    def to_polars(self) -> pl.DataFrame:
        """The legs with their account, instrument and kind spelled out."""
        return pl.DataFrame(
            {
                "account": self.account[self.leg_account],
                "instrument": self.universe.instrument_keys.gather(self.inst),
                "kind": pl.Series(schema.POSITION_KINDS).gather(self.kind),
                "qty": self.qty,
                "entry": self.entry,
            }
        )


def _lay_out_accounts(
    universe: Universe, groups: pl.DataFrame
) -> tuple[dict[str, Any], tuple[KeyColumn, KeyColumn]]:
    """The account columns in their order, and (sorted keys, their rows) to find them by."""
    account = groups["account"].to_numpy()
    known = groups["owner"].is_not_null().to_numpy()
    owner = groups["owner"].fill_null(0).to_numpy()
    order = np.arange(len(account))
    owner_or_self = np.where(known, owner, account)
    if not _is_sorted((account, owner_or_self, ~known)):
        order = np.lexsort((account, owner_or_self, ~known))
    account, known, owner_or_self = account[order], known[order], owner_or_self[order]
    by_key = np.arange(len(account)) if _increasing(account) else np.argsort(account, kind="stable")
    keys = account[by_key]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise StateError(
            f"the account {keys[twice[0]]} stands more than once",
            source="accounts",
            column="account",
            hint="each margin group needs a key of its own",
        )
    new_owner = np.ones(len(account), dtype=np.bool_)
    same = (owner_or_self[1:] == owner_or_self[:-1]) & known[1:] & known[:-1]
    new_owner[1:] = ~same
    names = groups["category"].drop_nulls().unique().sort()
    if len(universe.venues) > np.iinfo(np.int16).max:
        raise StateError(
            f"{len(universe.venues):,} venues are more than a book can tell apart", source="venues"
        )
    venue = encode(groups["venue"], pl.Series(universe.venues), what="venue", source="accounts")
    category = encode(groups["category"], names, what="category", source="accounts")
    mode = encode(groups["mode"], pl.Series(schema.MARGIN_MODES), what="mode", source="accounts")
    columns = {
        "account": frozen(account),
        "venue": frozen(venue[order].astype(np.int16)),
        "mode": frozen(mode[order].astype(np.int8)),
        "category": frozen(category[order]),
        "owner": frozen((np.cumsum(new_owner) - 1).astype(np.int32)),
        "owners": frozen(np.where(known, owner_or_self, UNKNOWN_OWNER)[new_owner]),
        "categories": tuple(names),
    }
    return columns, (keys, by_key)


def _lay_out_legs(
    universe: Universe,
    held: pl.DataFrame,
    venue: ShortColumn,
    row_of: tuple[KeyColumn, KeyColumn],
) -> dict[str, Any]:
    """The leg columns in their order, with every reference and sign checked."""
    row = _account_rows(held["account"].to_numpy(), *row_of)
    keys = universe.instrument_keys
    inst = encode(held["instrument"], keys, what="instrument", source="positions")
    kinds = pl.Series(schema.POSITION_KINDS)
    kind = encode(held["kind"], kinds, what="kind", source="positions").astype(np.int8)
    qty = held["qty"].to_numpy()
    entry = held["entry"].fill_null(0.0).to_numpy()
    evidence = encode(
        held["evidence"], pl.Series(schema.EVIDENCE), what="evidence", source="positions"
    ).astype(np.int8)
    _check_legs(universe, held, (row, inst, kind, qty, entry), venue)
    rank = (row * len(universe.instruments) + inst) * len(schema.POSITION_KINDS) + kind
    if not _increasing(rank):
        order = np.argsort(rank, kind="stable")
        rank = rank[order]
        twice = np.flatnonzero(rank[1:] == rank[:-1])
        if len(twice):
            again = int(order[twice[0] + 1])
            raise StateError(
                "the same account, instrument and kind stood in row "
                f"{int(order[twice[0]]) + 1} already",
                source="positions",
                row=again + 1,
                hint="add them up, or keep one",
            )
        row, inst, kind = row[order], inst[order], kind[order]
        qty, entry, evidence = qty[order], entry[order], evidence[order]
    offset = np.zeros(len(venue) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=len(venue)), out=offset[1:])
    return {
        "offset": frozen(offset),
        "inst": frozen(inst),
        "kind": frozen(kind),
        "qty": frozen(qty),
        "entry": frozen(entry),
        "evidence": frozen(evidence),
    }


def _account_rows(account: KeyColumn, keys: KeyColumn, rows: KeyColumn) -> KeyColumn:
    """Row of each leg's account; legs mostly come in runs, so only heads of runs are looked up."""
    head = np.ones(len(account), dtype=np.bool_)
    head[1:] = account[1:] != account[:-1]
    wanted = account[head]
    place = np.searchsorted(keys, wanted)
    found = np.zeros(len(wanted), dtype=np.bool_)
    inside = place < len(keys)
    found[inside] = keys[place[inside]] == wanted[inside]
    if not found.all():
        first = int(np.flatnonzero(head)[np.flatnonzero(~found)[0]])
        raise StateError(
            f"no account has the key {account[first]}",
            source="positions",
            row=first + 1,
            column="account",
            hint="add it to the table `accounts`",
        )
    run = np.cumsum(head) - 1
    located: KeyColumn = rows[place][run]
    return located


def leg_faults(
    kind: Any, traded: Any, qty: FloatColumn, entry: FloatColumn, elsewhere: BoolColumn
) -> tuple[tuple[BoolColumn, str, str], ...]:
    """What no leg may be: which legs are, the column at fault, and the words for it.

    `kind` are codes of position kinds, `traded` codes of the instruments' kinds, `entry` is 0
    where there is none, and `elsewhere` says whose instrument is not of the account's venue.
    """
    names = [schema.INSTRUMENT_KINDS.index(name) for name in ("perp", "future", "option")]
    derivative = np.isin(kind, _DERIVATIVES)
    as_instrument = np.zeros(len(schema.POSITION_KINDS), dtype=np.int32)
    as_instrument[list(_DERIVATIVES)] = names
    return (
        (elsewhere, "instrument", "the instrument is of another venue"),
        (derivative & (as_instrument[kind] != traded), "kind", "the instrument is of another kind"),
        (~derivative & np.isin(traded, names), "kind", "a derivative is held as money"),
        ((kind == DEBT) & (qty > 0), "qty", "a debt is a negative quantity"),
        (np.isin(kind, (COLLATERAL, SUPPLY)) & (qty < 0), "qty", "a deposit cannot be negative"),
        (np.isin(kind, (PERP, FUTURE)) & (entry <= 0), "entry", "a perp or future needs its entry"),
    )


def _check_legs(
    universe: Universe, held: pl.DataFrame, legs: tuple[Any, ...], venue: ShortColumn
) -> None:
    row, inst, kind, qty, entry = legs
    if (inst == NONE).any():
        raise StateError("a position names no instrument", source="positions")
    elsewhere = universe.venue_of[inst] != venue[row]
    checks = leg_faults(kind, universe.kind[inst], qty, entry, elsewhere)
    for fault, column, words in checks:
        if fault.any():
            at = int(np.flatnonzero(fault)[0])
            raise StateError(
                words,
                source="positions",
                row=at + 1,
                column=column,
                hint=f"{held['instrument'][at]} as {held['kind'][at]}, qty {held['qty'][at]}",
            )


def _increasing(column: KeyColumn) -> bool:
    return bool((column[1:] > column[:-1]).all())


def _is_sorted(columns: tuple[Any, ...]) -> bool:
    """Whether rows are in ascending order, the last column ruling (as in `numpy.lexsort`)."""
    tied = np.ones(max(len(columns[0]) - 1, 0), dtype=np.bool_)
    for column in reversed(columns):
        if (tied & (column[1:] < column[:-1])).any():
            return False
        tied &= column[1:] == column[:-1]
    return True
