"""What everything on a dependency map stands on: one row of shares a token, a place, a keeper.

Accounts are taken out first, exactly: a loan of a reserve stands on what its borrower posted, pro
rata where the borrower posted several things. What is left is small: tokens, the places that hold
them (reserves, shares, cash), and keepers, one row for each asset that a keeper owes. Everything is
counted at par, so that a wrapper that trades below what it promises is no less of a claim.

A token is made of what the claims say stands behind it; where they say nothing, of what it follows,
taken at its word. More claims on a token than stand behind it stand on nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array

from undertow.econometrics.lookthrough import LookThrough, look_through, passing
from undertow.measures.interconnection.circles import Round, counted_once, round_trip
from undertow.measures.interconnection.mapping import (
    LEAST_USD,
    NODE_KINDS,
    NOTHING,
    UNTOLD,
    DependencyMap,
)
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.universe import NONE

_CLAIMED = ("deposit", "backing", "vault_share", "bridge", "custody", "loan")
_POSTED = ("collateral", "cash")  # what a loan can be taken from
_KEEPERS = ("venue", "custodian", "bridge", "external", "owner")
_NOMINAL = 1e-9  # USD of what nobody claims, so that it has a row at all


class Accounts(NamedTuple):
    """Accounts, as what stands between those who lend and what was posted."""

    lent: Any  # (places, accounts) USD
    posted: Any  # (accounts, places) USD that a loan can be taken from
    held: Any  # (accounts, places) USD of everything there, posted or not

    @property
    def covered(self) -> FloatColumn:
        """By account: the share of what it owes that what it posted covers."""
        owes = np.asarray(self.lent.sum(axis=0)).ravel()
        has = np.asarray(self.posted.sum(axis=1)).ravel()
        covered: FloatColumn = np.divide(
            np.minimum(has, owes), owes, out=np.ones_like(owes), where=owes > 0.0
        )
        return covered

    @property
    def basket(self) -> Any:
        """(accounts, places) What a dollar owed stands on; rows sum to what is covered."""
        has = np.asarray(self.posted.sum(axis=1)).ravel()
        part = np.divide(self.covered, has, out=np.zeros_like(has), where=has > 0.0)
        return csr_array(diags_array(part) @ self.posted)


@dataclass(frozen=True, eq=False)
class Backing:
    """Claims and what stands behind them, in USD at par; a row and a column a node."""

    map: DependencyMap
    names: tuple[str, ...]
    node: KeyColumn  # of the map, that each is or belongs to
    asset: KeyColumn  # a token's own, the one that a place holds, or a keeper owes; NONE of others
    is_token: BoolColumn
    usd: Any  # (nodes, nodes) what of a row's assets is a claim on the column
    lent_on: Any  # (nodes, nodes) the part of it that stands there as what borrowers posted
    ends_usd: FloatMatrix  # (nodes, assets) what of it is a base asset
    nothing: FloatColumn  # what of it is nothing at all
    whole: FloatColumn  # claims on each, or what it has where that is more
    claimed: FloatColumn  # claims on each that somebody told of, counted once
    assumed: BoolColumn  # a token of which nobody says what backs it
    at_word: FloatColumn  # what of it stands where it does because nobody said otherwise
    base: BoolColumn  # by asset: one of which nobody asks what it is made of
    accounts: Accounts
    unpriced: tuple[str, ...]  # assets in which somebody claims or holds, and of which no price is

    @classmethod
    def of(cls, dependencies: DependencyMap) -> Backing:
        """Read what stands behind what off a map."""
        return _Reader(dependencies).backing()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _per_claim(self) -> FloatColumn:
        """By row: one over the claims on it; 0 where there are none."""
        whole = self.whole
        found: FloatColumn = np.divide(1.0, whole, out=np.zeros_like(whole), where=whole > 0.0)
        return found

    @cached_property
    def shares(self) -> Any:
        """(nodes, nodes) What stands behind one unit of each row."""
        return csr_array(diags_array(self._per_claim) @ self.usd)

    @cached_property
    def seen(self) -> LookThrough:
        """Where everything ends; the last end is nothing at all."""
        ends = np.column_stack([self.ends_usd, self.nothing]) * self._per_claim[:, None]
        return look_through(self.shares, ends)

    @cached_property
    def circular(self) -> FloatColumn:
        """By node: USD of claims on it that can be cancelled against claims that stand on it.

        The most that flows from the node back to it while no claim carries more than it is: the
        money that went round. Pro rata (`seen.returns`) is less where a pool mixes it with others.
        Of places and keepers it is what they keep with each other. What goes round a token shows
        there, and that somebody borrows one thing on another, and another borrows that one, is no
        claim of theirs.
        """
        found = np.zeros(len(self))
        for row in np.flatnonzero(self.seen.in_circle).tolist():
            found[row] = self.round_of(np.array([row]))
        return found

    def round_of(self, rows: AnyColumn) -> float:
        """USD of claims on some nodes together that stand on any of them, as `circular` says it."""
        usd = self.usd if self.is_token[rows].all() else self.kept
        near = rows
        if len(rows) == 1:
            near = np.flatnonzero(self.seen.circle == self.seen.circle[rows[0]])
        elif len(rows):
            near = np.arange(len(self))
        mine = np.flatnonzero(np.isin(near, rows))
        return round_trip(usd[near][:, near], mine, float(self.whole[rows].sum()))

    @cached_property
    def rounds(self) -> Round:
        """What goes round with every circle counted once, at the token where most goes round.

        What goes round no token comes after that, at places and keepers.
        """
        order = np.argsort(-self.circular, kind="stable")
        order = order[self.circular[order] > 0.0]
        token = self.is_token[order]
        tokens = counted_once(self.usd, order[token].tolist(), self.whole)
        rest = csr_array(tokens.left.minimum(self.kept))
        others = counted_once(rest, order[~token].tolist(), self.whole)
        once, cancelled = tokens.once + others.once, tokens.cancelled + others.cancelled
        return Round(once, cancelled, others.left)

    @cached_property
    def direct(self) -> Any:
        """(nodes, nodes) Claims without what lies behind loans to accounts."""
        direct = csr_array(self.usd - self.lent_on)
        direct.data[direct.data < 1e-9 * self.whole.max(initial=1.0)] = 0.0
        direct.eliminate_zeros()
        return direct

    @cached_property
    def kept(self) -> Any:
        """(nodes, nodes) What places and keepers have of each other, and no token between."""
        return csr_array(diags_array(np.where(self.is_token, 0.0, 1.0)) @ self.direct)

    @cached_property
    def wrappers(self) -> KeyColumn:
        """By node: how many tokens stand on each other below and with it, at most.

        What borrowers posted is no wrapper of what was lent to them, so loans are no steps here.
        """
        rows = csr_array(diags_array(self._per_claim) @ self.direct)
        seen = look_through(rows, np.zeros((len(self), 0)))
        wraps = self.is_token & ~np.append(self.base, np.zeros(len(self) - len(self.base), bool))
        deep = np.zeros(len(self), dtype=np.int64)
        for level in range(int(seen.depth.max(initial=-1)) + 1):
            here = np.flatnonzero(seen.depth == level)
            below = np.array([_largest(deep, rows, row, seen.circle) for row in here.tolist()])
            for circle in np.unique(seen.circle[here]):
                mine = seen.circle[here] == circle
                deep[here[mine]] = below[mine].max() + int(wraps[here[mine]].sum())
        return deep

    def through(self, sets: Sequence[AnyColumn]) -> FloatMatrix:
        """(rows, sets) Share of each row's value that leads through any row of each set.

        Base assets are rows too: value that ends in one leads through it.
        """
        bottom = csr_array(self.ends_usd * self._per_claim[:, None])
        bottom.resize(self.usd.shape)
        inner = csr_array(self.shares + bottom)
        inner.setdiag(0.0)  # a base asset is made of nothing further
        return passing(inner, sets)

    @cached_property
    def owner_places(self) -> Any:
        """(owners, places) USD that every owner holds in every place, through its accounts."""
        return csr_array(_belongs(self.map) @ self.accounts.held)


def _belongs(m: DependencyMap) -> Any:
    """(owners, accounts) 1 where an account is an owner's."""
    owns = m.of_kind("owns")
    ends = m.source[owns] - m.offset["owner"], m.target[owns] - m.offset["account"]
    shape = len(m.keys["owner"]), len(m.keys["account"])
    return csr_array((np.ones(len(ends[0])), ends), shape=shape)


class _Reader:
    """Lays the rows of a backing out, kind of node by kind of node."""

    def __init__(self, dependencies: DependencyMap) -> None:
        self.map = dependencies
        self.usd = np.nan_to_num(dependencies.at_par())
        self.tokens = len(dependencies.keys["asset"])
        self.places = len(dependencies.keys["instrument"])
        self.first = {kind: dependencies.offset[kind] for kind in dependencies.keys}
        self.pairs = self._keeper_rows()
        self.size = self.tokens + self.places + len(self.pairs)

    def backing(self) -> Backing:
        m = self.map
        accounts = self.accounts = self._accounts()
        rows, columns, usd = self._edges()
        basket = accounts.basket
        through = csr_array(accounts.lent @ basket).tocoo()
        rows = np.concatenate([rows, through.row + self.tokens])
        columns = np.concatenate([columns, through.col + self.tokens])
        usd = np.concatenate([usd, through.data])
        bare = np.asarray(accounts.lent @ (1.0 - accounts.covered)).ravel()
        nothing = np.zeros(self.size)
        nothing[self.tokens : self.tokens + self.places] += bare
        nothing += self._gap(NOTHING)
        untold = self._gap(UNTOLD)
        claimed = self._claimed()
        has = np.bincount(rows, usd, self.size) + nothing + untold
        told = len(rows)
        rows, columns, usd, has = self._keepers_rest(rows, columns, usd, has, claimed)
        claimed += self._kept_besides(columns[told:], usd[told:], has)
        rows, columns, usd, assumed = self._taken_at_word(rows, columns, usd, has, claimed)
        at_word = np.bincount(rows[told:], usd[told:], self.size).astype(np.float64)
        has = np.bincount(rows, usd, self.size) + nothing + untold
        token = np.arange(self.size) < self.tokens
        base = has[: self.tokens] <= 0.0
        lacking = np.where(token & (has > 0.0), np.maximum(claimed - has, 0.0), 0.0)
        lacking[lacking <= 1e-9 * np.maximum(claimed, 1.0)] = 0.0
        whole = np.maximum(claimed, has)
        ends = np.zeros((self.size, self.tokens))
        ended = np.append(base, np.zeros(self.size - self.tokens, dtype=np.bool_))[columns]
        np.add.at(ends, (rows[ended], columns[ended]), usd[ended])
        own = np.flatnonzero(base)
        whole[own] = np.maximum(whole[own], _NOMINAL)
        ends[own, own] = whole[own]
        shape = (self.size, self.size)
        inner = csr_array((usd[~ended], (rows[~ended], columns[~ended])), shape=shape)
        inner.sum_duplicates()
        place = self.tokens
        lent_on = csr_array((through.data, (through.row + place, through.col + place)), shape=shape)
        return Backing(
            map=m, names=self._names(), node=self._nodes(), asset=self._assets(), is_token=token,
            usd=inner, lent_on=lent_on, ends_usd=ends, nothing=nothing + lacking, whole=whole,
            claimed=claimed, assumed=assumed, at_word=at_word, base=base, accounts=accounts,
            unpriced=self._unpriced(),
        )  # fmt: skip

    def _unpriced(self) -> tuple[str, ...]:
        m = self.map
        lacking = np.isnan(m.at_par()) & (m.asset != NONE) & (np.nan_to_num(m.qty) > 0.0)
        codes = np.unique(m.asset[lacking]).tolist()
        return tuple(str(m.keys["asset"][code]) for code in codes)

    def _accounts(self) -> Accounts:
        m, count = self.map, len(self.map.keys["account"])
        lent = m.of_kind("loan") & (m.kind_of(m.target) == _kind("account"))
        shape = (self.places, count)
        loans = csr_array(
            (self.usd[lent], (m.source[lent] - self.first["instrument"],
                              m.target[lent] - self.first["account"])), shape=shape,
        )  # fmt: skip
        both = []
        for names in (_POSTED, (*_POSTED, "supply")):
            here = m.of_kind(*names) & (self.usd > 0.0)
            ends = (m.source[here] - self.first["account"],
                    m.target[here] - self.first["instrument"])  # fmt: skip
            both.append(csr_array((self.usd[here], ends), shape=shape[::-1]))
        return Accounts(loans, both[0], both[1])

    def _keeper_rows(self) -> dict[tuple[int, int], int]:
        """The row of every asset that a keeper owes."""
        m = self.map
        kinds = m.kind_of(m.target)
        owed = m.of_kind(*_CLAIMED) & np.isin(kinds, [_kind(name) for name in _KEEPERS])
        pairs = np.unique(np.stack([m.target[owed], m.asset[owed]]), axis=1).T.tolist()
        first = self.tokens + self.places
        return {(int(node), int(asset)): first + k for k, (node, asset) in enumerate(pairs)}

    def _row(self, node: AnyColumn) -> KeyColumn:
        """Rows of tokens and places; NONE of other nodes."""
        at = np.asarray(node, dtype=np.int64)
        token, place = at - self.first["asset"], at - self.first["instrument"]
        found = np.full(len(at), NONE, dtype=np.int64)
        is_token = (token >= 0) & (token < self.tokens)
        is_place = (place >= 0) & (place < self.places)
        found[is_token] = token[is_token]
        found[is_place] = place[is_place] + self.tokens
        return found

    def _edges(self) -> tuple[KeyColumn, KeyColumn, FloatColumn]:
        """Claims and holdings between tokens, places and keepers."""
        m = self.map
        here = np.flatnonzero(m.of_kind("holds", *_CLAIMED) & (self.usd > 0.0))
        here = here[m.kind_of(m.target[here]) != _kind("account")]
        target = self._row(m.target[here])
        for k in np.flatnonzero(target == NONE):
            edge = here[k]
            target[k] = self.pairs.get((int(m.target[edge]), int(m.asset[edge])), NONE)
        rows, edge, part = self._dependents(here[target != NONE])
        return rows, target[target != NONE][edge], self.usd[here[target != NONE]][edge] * part

    def _dependents(self, edges: AnyColumn) -> tuple[KeyColumn, KeyColumn, FloatColumn]:
        """Rows that depend by these edges, which of the edges each does by, and its part of it.

        What a keeper has, or lacks, is behind all that it owes, pro rata.
        """
        source = self._row(self.map.source[edges])
        plain = np.flatnonzero(source != NONE)
        found = [(source[plain], plain, np.ones(len(plain)))]
        owed = self._owed_by_keeper()
        of: dict[int, list[int]] = {}
        for (party, _), row in self.pairs.items():
            of.setdefault(party, []).append(row)
        for k in np.flatnonzero(source == NONE):
            mine = of.get(int(self.map.source[edges[k]]))
            if mine and (total := float(owed[mine].sum())) > 0.0:
                found.append((np.array(mine), np.full(len(mine), k), owed[mine] / total))
        rows, edge, part = (np.concatenate(column) for column in zip(*found, strict=True))
        return rows, edge, part

    def _gap(self, kind: str) -> FloatColumn:
        """By row: USD of which edges say that nothing, or nobody knows what, stands behind it."""
        here = np.flatnonzero(self.map.of_kind(kind))
        rows, edge, part = self._dependents(here)
        return np.bincount(rows, self.usd[here][edge] * part, self.size).astype(np.float64)

    def _owed_by_keeper(self, *kinds: str) -> FloatColumn:
        m, owed = self.map, np.zeros(self.size)
        here = np.flatnonzero(m.of_kind(*(kinds or _CLAIMED)))
        for edge in here[np.isin(m.kind_of(m.target[here]), [_kind(k) for k in _KEEPERS])]:
            row = self.pairs[int(m.target[edge]), int(m.asset[edge])]
            owed[row] += self.usd[edge]
        return owed

    def _claimed(self) -> FloatColumn:
        """Claims on every row, counted once: what was told of tokens, sizes of places."""
        m = self.map
        found = self._owed_by_keeper()
        row = self._row(m.target)
        told = m.of_kind(*_CLAIMED) & (row != NONE) & (row < self.tokens)
        found[: self.tokens] = np.bincount(row[told], self.usd[told], self.tokens)
        par = m.par[np.maximum(m.instrument_asset, 0)] if len(m.par) else np.zeros(self.places)
        places = slice(self.tokens, self.tokens + self.places)
        size = m.size * np.where(m.instrument_asset == NONE, 0.0, par)
        owed = m.of_kind(*_CLAIMED) & (row >= self.tokens)
        told_there = np.bincount(row[owed] - self.tokens, self.usd[owed], self.places)
        # Claims beyond what a place is said to hold lead to where nobody told.
        found[places] = np.maximum(size, told_there)
        held = m.of_kind("holds") & (row != NONE) & (row < self.tokens)
        kept = np.bincount(row[held], self.usd[held], self.tokens)
        # Of what nobody issued claims, what is kept somewhere is all that is known.
        found[: self.tokens] = np.where(found[: self.tokens] > 0.0, found[: self.tokens], kept)
        return np.where(found < LEAST_USD, 0.0, found)

    def _keepers_rest(
        self, rows: KeyColumn, columns: KeyColumn, usd: FloatColumn, has: FloatColumn,
        claimed: FloatColumn,
    ) -> tuple[KeyColumn, KeyColumn, FloatColumn, FloatColumn]:  # fmt: skip
        """A keeper has what it keeps, as far as it said of nothing else; an owner its accounts.

        What was borrowed from somebody need not be there: where a loan leads nobody told.
        """
        more: list[tuple[int, int, float]] = []
        lent = self._owed_by_keeper("loan")
        owners: dict[int, list[tuple[int, float]]] = {}
        for (node, asset), row in self.pairs.items():
            rest = max(float(claimed[row] - has[row]), 0.0)
            if self.is_owner(node):
                owners.setdefault(node - self.first["owner"], []).append((row, rest))
            elif asset != NONE and (kept := min(rest, float(claimed[row] - lent[row]))) > 0.0:
                more.append((row, asset, kept))
        more += self._owner_rows(owners)
        if not more:
            return rows, columns, usd, has
        r, c, u = (np.array(column) for column in zip(*more, strict=True))
        return (
            np.concatenate([rows, r.astype(np.int64)]),
            np.concatenate([columns, c.astype(np.int64)]),
            np.concatenate([usd, u.astype(np.float64)]),
            has + np.bincount(r.astype(np.int64), u, self.size),
        )

    def _kept_besides(
        self, columns: KeyColumn, usd: FloatColumn, has: FloatColumn
    ) -> FloatColumn:  # fmt: skip
        """Claims that keepers' rest is on tokens of which nobody issued any, or says what backs."""
        m = self.map
        row = self._row(m.target[m.of_kind(*_CLAIMED)])
        found = np.bincount(columns, usd, self.size).astype(np.float64)
        found[self.tokens :] = 0.0
        found[has > 0.0] = 0.0
        found[row[(row != NONE) & (row < self.tokens)]] = 0.0
        return found

    def is_owner(self, node: int) -> bool:
        """Whether a node is an owner."""
        return 0 <= node - self.first["owner"] < len(self.map.keys["owner"])

    def _owner_rows(
        self, owners: dict[int, list[tuple[int, float]]]
    ) -> list[tuple[int, int, float]]:
        """What owners that borrowed without posting have at venues, beyond what they owe there.

        It stands behind all such debts of an owner pro rata; where it ends, nobody told.
        """
        if not owners:
            return []
        belongs = _belongs(self.map)[list(owners)]
        held = csr_array(belongs @ self.accounts.held)
        owed = belongs @ np.asarray(self.accounts.lent.sum(axis=0)).ravel()
        found: list[tuple[int, int, float]] = []
        for n, debts in enumerate(owners.values()):
            here = slice(held.indptr[n], held.indptr[n + 1])
            usd, places = held.data[here], held.indices[here] + self.tokens
            total, due = float(usd.sum()), sum(rest for _, rest in debts)
            free = max(total - float(owed[n]), 0.0)
            if free <= 0.0 or due <= 0.0:
                continue
            part = min(free / due, 1.0) / total
            found += [(row, int(k), float(u) * rest * part) for row, rest in debts
                      for k, u in zip(places, usd, strict=True)]  # fmt: skip
        return found

    def _taken_at_word(
        self, rows: KeyColumn, columns: KeyColumn, usd: FloatColumn, has: FloatColumn,
        claimed: FloatColumn,
    ) -> tuple[KeyColumn, KeyColumn, FloatColumn, BoolColumn]:  # fmt: skip
        """Tokens of which nobody says what backs them stand on what they follow."""
        m = self.map
        follows = m.of_kind("follows")
        token = m.source[follows] - self.first["asset"]
        below = m.target[follows] - self.first["asset"]
        bare = has[token] <= 0.0
        assumed = np.zeros(self.size, dtype=np.bool_)
        assumed[token[bare]] = True
        amount = np.maximum(claimed[token[bare]], _NOMINAL)
        return (
            np.concatenate([rows, token[bare]]), np.concatenate([columns, below[bare]]),
            np.concatenate([usd, amount]), assumed,
        )  # fmt: skip

    def _names(self) -> tuple[str, ...]:
        m = self.map
        nodes = self._nodes()
        words = m.named(nodes).to_list()
        several = Counter(node for node, _ in self.pairs)
        for (node, asset), row in self.pairs.items():
            if several[node] > 1 and asset != NONE:
                words[row] = f"{words[row]} ({m.keys['asset'][asset]})"
        return tuple(words)

    def _nodes(self) -> KeyColumn:
        keepers = np.array([node for node, _ in self.pairs], dtype=np.int64)
        return np.concatenate([
            np.arange(self.tokens) + self.first["asset"],
            np.arange(self.places) + self.first["instrument"], keepers,
        ])  # fmt: skip

    def _assets(self) -> KeyColumn:
        owed = np.array([asset for _, asset in self.pairs], dtype=np.int64)
        places = self.map.instrument_asset.astype(np.int64)
        return np.concatenate([np.arange(self.tokens), places, owed])


def _kind(name: str) -> int:
    return NODE_KINDS.index(name)


def _largest(deep: KeyColumn, rows: Any, row: int, circle: AnyColumn) -> int:
    below = rows.indices[rows.indptr[row] : rows.indptr[row + 1]]
    return int(deep[below[circle[below] != circle[row]]].max(initial=0))
