"""Who is the same owner, as far as somebody said so, and how sure that is.

An identity is a row: two names (`owner:17`, `account:42`), how sure it is that both are one owner,
and who says so. Nothing is guessed: accounts are joined only by rows that were given, and what
hangs on the unsure ones shows when the same measure is taken with and without them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, Book, Claims, FloatColumn, FreeAssets, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.book import UNKNOWN_OWNER
from undertow.state.intake import as_frame
from undertow.stress.shock import require_within

_COLUMNS = ("node", "same_as")


class Identities(NamedTuple):
    """Pairs of rows of owners that are said to be one, and how sure that is."""

    one: AnyColumn  # rows of `Book.owners`
    other: AnyColumn
    confidence: FloatColumn
    source: tuple[str, ...]  # who says so; empty where nobody is named

    @classmethod
    def of(cls, book: Book, table: Any) -> Identities:
        """Read identities off a table with the columns node, same_as, confidence and source.

        The last two may be missing: what is given without a word is sure, and nobody is named.

        Raises
        ------
        SchemaError, UnreadableFile
            When it is no table.
        StateError
            When a column lacks, a name is none of the book's, or a confidence is no share.
        """
        rows = as_frame(table)
        lacking = [name for name in _COLUMNS if name not in rows.columns]
        if lacking:
            raise StateError(
                f"identities lack the column {lacking[0]!r}",
                hint="a row is node, same_as, confidence (0 to 1) and source",
            )
        given = "confidence" in rows.columns
        sure = rows["confidence"] if given else pl.Series(np.ones(rows.height))
        confidence = sure.cast(pl.Float64, strict=False)
        bad = ~confidence.is_between(0.0, 1.0).fill_null(value=False)
        if bad.any():
            at = int(bad.arg_true()[0])
            raise StateError(
                f"the confidence of row {at + 1} was {sure[at]!r}; it must be 0 to 1",
                source="identities",
            )
        ends = [_owner_rows(book, rows[name].cast(pl.String)) for name in _COLUMNS]
        named = "source" in rows.columns
        said = rows["source"].cast(pl.String).fill_null("") if named else [""] * rows.height
        return cls(ends[0], ends[1], confidence.to_numpy(), tuple(said))

    def sources(self, sure: float = 0.0) -> list[str]:
        """Who says what is at least so sure, each once."""
        here = {who for who, c in zip(self.source, self.confidence, strict=True) if c >= sure}
        return sorted(here - {""})

    def groups(self, owners: int, sure: float = 0.0) -> KeyColumn:
        """By row of owners: its group, when pairs at least so sure are one."""
        here = self.confidence >= sure
        edges = (np.ones(int(here.sum())), (self.one[here], self.other[here]))
        found: KeyColumn = connected_components(coo_array(edges, shape=(owners, owners)))[1]
        return found.astype(np.int64)


def linked(snapshot: Snapshot, identities: Any, *, sure: float = 0.0) -> Snapshot:
    """The snapshot with owners joined who are said to be one, by rows at least so `sure`.

    A joined owner goes by the least of its keys; where none has one, by a new key above all others.

    Raises
    ------
    StateError
        As `Identities.of` does.
    """
    require_within("sure", sure, 0.0, 1.0)
    book = snapshot.book
    found = identities if isinstance(identities, Identities) else Identities.of(book, identities)
    group = found.groups(len(book.owners), sure)
    if len(np.unique(group)) == len(book.owners):
        return snapshot
    key = _keys(book, group)
    known = key[book.owner] != UNKNOWN_OWNER
    order = np.lexsort((book.account, np.where(known, key[book.owner], book.account), ~known))
    return replace(
        snapshot, book=_reordered(book, order, key, known), free=_joined(snapshot, order, key),
        claims=_renamed(snapshot.claims, dict(zip(book.owners.tolist(), key.tolist(),
                                                  strict=True))),
    )  # fmt: skip


def link_levels(snapshot: Snapshot, identities: Any) -> pl.DataFrame:
    """How many owners there are, and at how many venues, by how sure a link has to be to count.

    The first row counts no link; the last all of them.
    """
    book = snapshot.book
    found = identities if isinstance(identities, Identities) else Identities.of(book, identities)
    levels = [None, *sorted(set(found.confidence.tolist()), reverse=True)]
    rows = []
    for level in levels:
        group = np.arange(len(book.owners)) if level is None else found.groups(
            len(book.owners), level
        )  # fmt: skip
        of_account = group[book.owner]
        pairs = np.unique(np.stack([of_account, book.venue.astype(np.int64)]), axis=1)
        venues = np.bincount(pairs[0], minlength=1)
        links = 0 if level is None else int((found.confidence >= level).sum())
        rows.append((level, links, len(np.unique(group)), int((venues >= 2).sum())))
    names = {"sure": pl.Float64, "links": pl.Int64, "owners": pl.Int64, "at_two_venues": pl.Int64}
    return pl.DataFrame(rows, schema=names, orient="row")


def _owner_rows(book: Book, names: pl.Series) -> AnyColumn:
    """Rows of owners behind names like `owner:17` and `account:42`."""
    parts = names.str.split_exact(":", 1).struct.unnest()
    kind, key = parts["field_0"], parts["field_1"].cast(pl.Int64, strict=False)
    odd = ~kind.is_in(["owner", "account"]) | key.is_null()
    if odd.fill_null(value=True).any():
        name = names[int(odd.fill_null(value=True).arg_true()[0])]
        raise StateError(
            f"{name!r} is no owner and no account", source="identities",
            hint="names are owner:17 or account:42, with the keys of the tables",
        )  # fmt: skip
    owners = pl.DataFrame({"key": book.owners, "row": np.arange(len(book.owners))})
    owners = owners.filter(pl.col("key") != UNKNOWN_OWNER)
    accounts = pl.DataFrame({"key": book.account, "row": book.owner.astype(np.int64)})
    by_kind = {"owner": owners, "account": accounts}
    found = np.full(len(names), -1, dtype=np.int64)
    for word, table in by_kind.items():
        here = (kind == word).to_numpy()
        asked = pl.DataFrame({"key": key.filter(pl.Series(here))})
        rows = asked.join(table, on="key", how="left", maintain_order="left")["row"]
        found[here] = rows.fill_null(-1).to_numpy()
    lost = np.flatnonzero(found < 0)
    if len(lost):
        raise StateError(
            f"the book has no {names[int(lost[0])].replace(':', ' ')}", source="identities",
            hint="leave the row out, or give identities of this instant",
        )  # fmt: skip
    return found


def _keys(book: Book, group: KeyColumn) -> KeyColumn:
    """By old row of owners: the key of the owner that it now is."""
    count = int(group.max(initial=-1)) + 1
    none = np.iinfo(np.int64).max
    least = np.full(count, none)
    known = book.owners != UNKNOWN_OWNER
    np.minimum.at(least, group[known], book.owners[known])
    several = np.bincount(group, minlength=count) > 1
    nameless = np.flatnonzero(several & (least == none))
    first = int(book.owners.max(initial=0)) + 1
    least[nameless] = first + np.arange(len(nameless))
    found: KeyColumn = np.where(least[group] == none, UNKNOWN_OWNER, least[group])
    return found


def _reordered(book: Book, order: AnyColumn, key: KeyColumn, known: AnyColumn) -> Book:
    """The book with its accounts in another order and owners of these keys."""
    legs = np.diff(book.offset)[order]
    offset = np.concatenate([[0], np.cumsum(legs)])
    leg = np.repeat(book.offset[order] - offset[:-1], legs) + np.arange(int(legs.sum()))
    owner, named = key[book.owner][order], known[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (owner[1:] != owner[:-1]) | ~(named[1:] & named[:-1])
    by_account = {n: frozen(getattr(book, n)[order]) for n in ("account", "venue", "mode",
                                                               "category")}  # fmt: skip
    by_leg = {n: frozen(getattr(book, n)[leg]) for n in ("inst", "kind", "qty", "entry",
                                                         "evidence")}  # fmt: skip
    changed: dict[str, Any] = {
        **by_account, **by_leg, "offset": frozen(offset.astype(np.int64)),
        "owner": frozen((np.cumsum(first) - 1).astype(np.int32)), "owners": frozen(owner[first]),
    }  # fmt: skip
    return replace(book, **changed)


def _renamed(claims: Claims, key: dict[int, int]) -> Claims:
    """Claims with owners called as they now are; what one owes to itself is no claim."""

    def now(node: str) -> str:
        kind, _, own = node.partition(":")
        known = kind == "owner" and own.isdigit() and int(own) in key
        return f"owner:{key[int(own)]}" if known else node

    called = [now(node) for node in claims.nodes]
    nodes = sorted(set(called))
    place = {node: at for at, node in enumerate(nodes)}
    code = np.array([place[node] for node in called], dtype=np.int32)
    debtor, creditor = code[claims.debtor], code[claims.creditor]
    order = np.lexsort((claims.kind, claims.asset, creditor, debtor))
    order = order[debtor[order] != creditor[order]]
    rest: dict[str, Any] = {name: frozen(getattr(claims, name)[order])
            for name in ("asset", "kind", "qty", "seniority", "evidence")}  # fmt: skip
    return replace(
        claims, nodes=tuple(nodes), debtor=frozen(debtor[order]), creditor=frozen(creditor[order]),
        **rest,
    )  # fmt: skip


def _joined(snapshot: Snapshot, order: AnyColumn, key: KeyColumn) -> FreeAssets:
    """Free assets of the owners as they now are."""
    book, free = snapshot.book, snapshot.free
    owner = key[book.owner][order]
    keys = np.unique(owner[owner != UNKNOWN_OWNER])
    row = np.searchsorted(keys, key[free.owner])
    by = np.lexsort((free.asset, row))
    unknown = int((owner == UNKNOWN_OWNER).sum())
    return replace(
        free, owners=len(keys) + unknown, owner=frozen(row[by].astype(np.int32)),
        asset=frozen(free.asset[by]), qty=frozen(free.qty[by]),
    )  # fmt: skip
