"""What stands on what, drawn together into boxes in columns and flows between them.

Columns run from who holds to what lies at the bottom: owners by size, venues, keepers of tokens,
tokens from the most wrapped to the least, other keepers, base assets and gaps. Every flow is USD at
par with how it is known. What the map's edges say of a flow is known as they are; what they do not
say and the look-through has to take at its word is `assumed`. Nothing of a sum is lost where boxes
are folded. Where claims and holdings tell of the same tokens, they are drawn once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from undertow import schema
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import NODE_KINDS, DependencyMap
from undertow.measures.interconnection.surroundings import whole_of
from undertow.state import AnyColumn, FloatColumn, KeyColumn
from undertow.state.universe import NONE

NOTHING_KNOWN, NOT_TOLD, ASSUMED = "nothing", "not told", "assumed"
_CLAIMS = ("deposit", "backing", "vault_share", "bridge", "custody", "loan", "holds")
_HELD = ("collateral", "cash", "supply")
_SIZES = ((1e7, "10 M or more"), (1e6, "1 to 10 M"), (1e5, "0.1 to 1 M"), (0.0, "less"))
_SPECK = 1e-9  # of the largest flow: what is smaller is rounding


class Box(NamedTuple):
    """Something that stands in a column."""

    column: str  # owners, venues, holders (keepers of tokens), tokens, keepers, bottom
    depth: int  # of tokens: how many stand on each other, at most
    name: str
    round_usd: float = 0.0  # claims that cancel against claims that stand on them
    circle: bool = False
    gap: bool = False


@dataclass(frozen=True, eq=False)
class Flows:
    """Boxes, and flows between them: rows of source, target, known and usd."""

    boxes: tuple[Box, ...]
    flows: pl.DataFrame
    folded: dict[str, int]  # by column: boxes that went into the others


def flows_of(backing: Backing, *, top: int = 10) -> Flows:
    """The boxes and flows of a map, the `top` largest boxes of every column by themselves."""
    reader = _Reader(backing)
    rows = pl.concat([reader.held(), reader.outside(), reader.inside(), reader.unsaid()])
    rows = rows.group_by("source", "target", "known").agg(pl.col("usd").sum())
    most = float(rows["usd"].to_numpy().max(initial=0.0))
    rows = rows.filter(pl.col("usd") > _SPECK * most).sort("source", "target", "known")
    return _folded(_holders_first(reader.boxes, rows), rows, top)


def _holders_first(boxes: list[Box], rows: pl.DataFrame) -> list[Box]:
    """Keepers that have tokens stand before these, so that value runs one way."""
    tokens = [k for k, box in enumerate(boxes) if box.column == "tokens"]
    before = set(rows.filter(pl.col("target").is_in(tokens))["source"])
    return [
        box._replace(column="holders") if box.column == "keepers" and k in before else box
        for k, box in enumerate(boxes)
    ]


class _Reader:
    """Gives every row of a backing, and every node of its map, a box."""

    def __init__(self, backing: Backing) -> None:
        self.backing, self.map = backing, backing.map
        self.boxes: list[Box] = []
        self._at: dict[tuple[str, str], int] = {}
        self.of_node = np.full(self.map.nodes, NONE, dtype=np.int64)
        self.of_row = np.full(len(backing), NONE, dtype=np.int64)
        self.par = np.nan_to_num(self.map.at_par())
        self._rows()
        self._holders()
        self.gaps = {word: self._box(Box("bottom", 0, word, gap=True))
                     for word in (NOTHING_KNOWN, NOT_TOLD)}  # fmt: skip

    def _box(self, box: Box) -> int:
        at = self._at.setdefault((box.column, box.name), len(self.boxes))
        if at == len(self.boxes):
            self.boxes.append(box)
        elif box.circle:
            round_usd = self.boxes[at].round_usd + box.round_usd
            self.boxes[at] = self.boxes[at]._replace(circle=True, round_usd=round_usd)
        return at

    def _rows(self) -> None:
        backing, m = self.backing, self.map
        venue = _venue_of(m)
        for row, node in enumerate(backing.node.tolist()):
            circle = bool(backing.seen.in_circle[row])
            most = backing.circular if backing.is_token[row] else backing.rounds.once
            usd = float(most[row])
            name = str(backing.names[row]).partition(":")[2]
            if backing.is_token[row]:
                deep, base = int(backing.wrappers[row]), bool(backing.base[backing.asset[row]])
                column = "bottom" if base else "tokens"
                box = Box(column, deep, name, usd, circle)
            elif node in venue:
                box = Box("venues", 0, venue[node], usd, circle)
            else:
                kind = NODE_KINDS[int(m.kind_of(np.array([node]))[0])]
                plain = m.named(np.array([node]))[0].partition(":")[2]
                owes = Box("keepers", 0, "owners that owe", usd, circle)
                box = owes if kind == "owner" else Box(
                    "venues" if kind == "venue" else "keepers", 0, plain, usd, circle
                )  # fmt: skip
            self.of_row[row] = self._box(box)
            if self.of_node[node] == NONE:
                self.of_node[node] = self.of_row[row]

    def _holders(self) -> None:
        """Owners by what their accounts hold; whoever else has claims is outside."""
        m = self.map
        first = m.offset["owner"]
        usd = np.asarray(self.backing.owner_places.sum(axis=1)).ravel()
        size = np.array([next(k for k, (least, _) in enumerate(_SIZES) if u >= least)
                         for u in usd], dtype=np.int64)  # fmt: skip
        for k, (_, words) in enumerate(_SIZES):
            here = np.flatnonzero((size == k) & (usd > 0.0))
            if len(here):
                name = f"{len(here):,} owner{'s' if len(here) > 1 else ''}, {words}"
                box = self._box(Box("owners", 0, name))
                mine = here + first
                self.of_node[mine[self.of_node[mine] == NONE]] = box
        self.unowned = self._box(Box("owners", 0, "accounts of nobody named"))
        self.beyond = self._box(Box("owners", 0, "not in the book", gap=True))
        outside = self._box(Box("owners", 0, "others with claims"))
        lost = self.of_node == NONE
        self.of_node[lost] = outside
        begin, total = m.offset["account"], len(m.keys["account"])
        owner = np.full(total, self.unowned, dtype=np.int64)
        owns = m.of_kind("owns")
        held_by = self.of_node[m.source[owns]]
        as_owner = np.isin(held_by, [k for k, b in enumerate(self.boxes) if b.column == "owners"])
        owner[m.target[owns] - begin] = np.where(as_owner, held_by, outside)
        self.of_node[begin : begin + total] = owner

    def _frame(self, source: Any, target: Any, known: Any, usd: Any) -> pl.DataFrame:
        size = len(usd)
        words = [known] * size if isinstance(known, str) else known
        return pl.DataFrame(
            {"source": np.asarray(source, np.int64), "target": np.asarray(target, np.int64),
             "known": pl.Series(words, dtype=pl.String), "usd": np.asarray(usd, np.float64)}
        )  # fmt: skip

    def _of_edges(self, here: AnyColumn) -> pl.DataFrame:
        m = self.map
        known = pl.Series(schema.EVIDENCE).gather(m.evidence[here])
        return self._frame(self.of_node[m.source[here]], self.of_node[m.target[here]], known,
                           self.par[here])  # fmt: skip

    def held(self) -> pl.DataFrame:
        """What accounts hold at venues."""
        return self._of_edges(np.flatnonzero(self.map.of_kind(*_HELD) & (self.par > 0.0)))

    def outside(self) -> pl.DataFrame:
        """Claims of those who owe nothing themselves, and those of whom nobody is named.

        Of claims on a token or a place no more is drawn than stands there beyond what accounts,
        places and keepers are seen to have of it: an owner's share that is posted somewhere is a
        claim in one table and a holding in another.
        """
        m, backing = self.map, self.backing
        tokens, size = len(m.keys["asset"]), len(backing)
        claims = m.of_kind(*_CLAIMS) & (self.par > 0.0)
        kinds = m.kind_of(m.target)
        row = np.full(len(m), NONE, dtype=np.int64)
        for kind, first in (("asset", 0), ("instrument", tokens)):
            here = kinds == NODE_KINDS.index(kind)
            row[here] = m.target[here] - m.offset[kind] + first
        inner = self._has_row(m.source)
        mine, theirs = claims & ~inner & (row != NONE), claims & inner & (row != NONE)
        room = whole_of(backing) - np.bincount(row[theirs], self.par[theirs], size)
        places = slice(tokens, tokens + len(m.keys["instrument"]))
        room[places] -= np.asarray(backing.accounts.held.sum(axis=0)).ravel()
        room = np.maximum(room, 0.0)
        asked = np.bincount(row[mine], self.par[mine], size)
        share = np.minimum(np.divide(room, asked, out=np.zeros(size), where=asked > 0.0), 1.0)
        fits = np.where(row != NONE, share[row], 1.0)
        here = np.flatnonzero(claims & ~inner)
        told = self._of_edges(here).with_columns(usd=pl.col("usd") * fits[here])
        rest = np.maximum(room - asked, 0.0)[places]
        more = self._frame(np.full(len(rest), self.beyond), self.of_row[places], NOT_TOLD, rest)
        return pl.concat([told, more])

    def _has_row(self, nodes: KeyColumn) -> AnyColumn:
        return np.isin(nodes, np.unique(self.backing.node))

    def inside(self) -> pl.DataFrame:
        """What tokens, places and keepers have, as far as somebody said so."""
        m = self.map
        lends = m.of_kind("loan") & (m.kind_of(m.target) == NODE_KINDS.index("account"))
        here = m.of_kind(*_CLAIMS) & (self.par > 0.0) & ~lends & self._has_row(m.source)
        told = self._of_edges(np.flatnonzero(here))
        basket, shape = self.backing.accounts.basket, self.backing.accounts.lent.shape
        frames = [told]
        first = len(m.keys["asset"])
        for code, word in enumerate(schema.EVIDENCE):
            mine = np.flatnonzero(lends & (m.evidence == code) & (self.par > 0.0))
            ends = (m.source[mine] - m.offset["instrument"], m.target[mine] - m.offset["account"])
            on = csr_array(csr_array((self.par[mine], ends), shape=shape) @ basket).tocoo()
            frames.append(self._frame(self.of_row[on.row + first], self.of_row[on.col + first],
                                      word, on.data))  # fmt: skip
        return pl.concat(frames)

    def unsaid(self) -> pl.DataFrame:
        """What the look-through has beyond what was said: assumed, nothing, or not told."""
        backing = self.backing
        inner = backing.usd.tocoo()
        rows, assets = np.nonzero(backing.ends_usd)
        own = rows != assets
        rows, assets = rows[own], assets[own]
        every = pl.concat(
            [self._frame(self.of_row[inner.row], self.of_row[inner.col], "", inner.data),
             self._frame(self.of_row[rows], self.of_row[assets], "",
                         backing.ends_usd[rows, assets])]
        ).group_by("source", "target").agg(pl.col("usd").sum())  # fmt: skip
        said = self.inside().group_by("source", "target").agg(pl.col("usd").sum().alias("said"))
        rest = every.join(said, on=["source", "target"], how="left").with_columns(
            usd=pl.col("usd") - pl.col("said").fill_null(0.0)
        )
        rest = rest.filter(pl.col("usd") > 1e-9 * every["usd"].to_numpy().max(initial=0.0))
        has = np.asarray(backing.usd.sum(axis=1)).ravel() + backing.ends_usd.sum(axis=1)
        untold = np.maximum(backing.whole - has - backing.nothing, 0.0)
        untold[untold <= 1e-9 * backing.whole] = 0.0
        gaps = [
            self._frame(self.of_row, np.full(len(backing), self.gaps[word]), word, usd)
            for word, usd in ((NOTHING_KNOWN, backing.nothing), (NOT_TOLD, untold))
        ]
        assumed = self._frame(rest["source"], rest["target"], ASSUMED, rest["usd"])
        return pl.concat([assumed, *gaps])


def _venue_of(m: DependencyMap) -> dict[int, str]:
    """By place: the venue where it is listed, or its own name."""
    here = np.flatnonzero(m.of_kind("listed"))
    names = m.named(m.target[here]).str.strip_prefix("venue:")
    found = dict(zip(m.source[here].tolist(), names.to_list(), strict=True))
    first = m.offset["instrument"]
    own = m.keys["instrument"].cast(pl.String)
    return {first + k: found.get(first + k, key) for k, key in enumerate(own)}


def box_values(boxes: Iterable[Box], flows: pl.DataFrame) -> FloatColumn:
    """(boxes, 2) USD that each box is made of, which flows out of it, and that lead to it."""
    count = len(list(boxes))
    apart = flows.filter(pl.col("source") != pl.col("target"))
    into = np.bincount(apart["target"].to_numpy(), apart["usd"].to_numpy(), count)
    out = np.bincount(flows["source"].to_numpy(), flows["usd"].to_numpy(), count)
    found: FloatColumn = np.column_stack([out, into])
    return found


def _folded(boxes: list[Box], rows: pl.DataFrame, top: int) -> Flows:
    """The largest boxes of each column and depth; the rest of it in one."""
    value = box_values(boxes, rows).max(axis=1)
    kept: list[Box] = []
    place = np.full(len(boxes), NONE, dtype=np.int64)
    folded: dict[str, int] = {}
    columns = dict.fromkeys((box.column, box.depth if box.column == "tokens" else 0)
                            for box in boxes)  # fmt: skip
    for column, depth in columns:
        mine = [k for k, box in enumerate(boxes) if box.column == column and value[k] > 0.0
                and (column != "tokens" or box.depth == depth)]  # fmt: skip
        mine.sort(key=lambda k: (boxes[k].gap, -value[k], boxes[k].name))
        plain = [k for k in mine if not boxes[k].gap]
        rest = plain[top - 1 :] if len(plain) > top else []
        for k in mine:
            if k not in rest:
                place[k] = len(kept)
                kept.append(boxes[k])
        if rest:
            place[rest] = len(kept)
            folded[column] = folded.get(column, 0) + len(rest)
            circle = any(boxes[k].circle for k in rest)
            kept.append(Box(column, depth, f"{len(rest)} others", circle=circle))
    moved = rows.with_columns(
        source=place[rows["source"].to_numpy()], target=place[rows["target"].to_numpy()]
    )
    by = ("source", "target", "known")
    return Flows(tuple(kept), moved.group_by(by).agg(pl.col("usd").sum()).sort(by), folded)
