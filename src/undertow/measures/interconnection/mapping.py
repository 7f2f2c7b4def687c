"""The dependency map: who stands on whom, as one table of nodes and one of typed edges.

An edge points from who depends to what it depends on: owner to account, account to the reserve it
posted in, reserve to the accounts that borrowed from it, token to what backs it, and on to keepers,
issuers, oracles and chains. Every edge has a kind, a quantity of some asset where there is one, its
value, how it is known, and which table said so. Nodes of one kind stand together, so a node is a
number and its name is made only when somebody asks for it: a million accounts cost two columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state import AnyColumn, BoolColumn, CodeColumn, FloatColumn, KeyColumn, SmallColumn
from undertow.state.arrays import digest, frozen
from undertow.state.intake import as_frame
from undertow.state.universe import NONE

NODE_KINDS = (
    "owner", "account", "instrument", "venue", "asset", "custodian", "bridge", "external",
    "issuer", "chain", "oracle", "unseen",
)  # fmt: skip
# What an edge says, and whether the value of what depends stands on what it points at.
EDGE_KINDS: Mapping[str, bool] = {
    "owns": True,  # owner -> account
    "collateral": True,  # account -> instrument
    "cash": True,
    "supply": True,
    "perp": False,
    "future": False,
    "option": False,
    "at": False,  # account -> venue
    "loan": True,  # lender (instrument, token) -> borrower (account, owner)
    "holds": True,  # instrument, keeper -> asset that it has and nobody else keeps for it
    "deposit": True,  # creditor -> debtor, here and below
    "backing": True,
    "vault_share": True,
    "bridge": True,
    "custody": True,
    "follows": True,  # asset -> reference, where nobody says what backs it
    "not told": True,  # value of which nobody says where it stands -> unseen
    "nothing": True,  # value that nothing stands behind -> unseen
    "quotes": False,  # instrument -> asset
    "listed": False,  # instrument -> venue
    "priced by": False,  # instrument -> oracle
    "issued by": False,  # asset -> issuer
    "kept by": False,  # asset -> custodian
    "lives on": False,  # asset -> chain
    "runs on": False,  # venue -> chain
}
KIND_NAMES = tuple(EDGE_KINDS)
ORIGINS = ("positions", "claims", "assets", "venues", "instruments", "oracles", "reserves", "given")
UNTOLD, NOTHING = "not told", "nothing"


@dataclass(frozen=True, eq=False)
class DependencyMap:
    """Nodes and typed edges at one instant."""

    ts: int
    keys: Mapping[str, pl.Series]  # of every kind of node, its keys in order
    # by edge
    source: KeyColumn  # node that depends
    target: KeyColumn  # node that it depends on
    kind: SmallColumn  # into KIND_NAMES
    qty: FloatColumn  # of `asset`; NaN where there is no quantity
    asset: CodeColumn  # into keys of `asset`, or NONE
    usd: FloatColumn  # what it is worth, at the mark where it is a position; NaN where unknown
    evidence: SmallColumn
    origin: SmallColumn  # into ORIGINS: the table that said so
    # by asset
    price: FloatColumn  # USD, 0 where nobody knows
    par: FloatColumn  # USD of what it should be worth by what it follows
    # by instrument
    size: FloatColumn  # units that are owed there, counted once; 0 where none are
    instrument_asset: CodeColumn

    def __len__(self) -> int:
        """Number of edges."""
        return len(self.source)

    def __repr__(self) -> str:
        counts = (f"{len(keys):,} {kind}" for kind, keys in self.keys.items() if len(keys))
        return f"DependencyMap({len(self):,} edges; {', '.join(counts)})"

    @cached_property
    def offset(self) -> Mapping[str, int]:
        """Of every kind of node, the number of its first."""
        lengths = np.cumsum([0, *(len(self.keys[kind]) for kind in NODE_KINDS)])
        return dict(zip(NODE_KINDS, lengths.tolist(), strict=False))

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return sum(len(keys) for keys in self.keys.values())

    @cached_property
    def digest(self) -> str:
        """A hash of all nodes and edges."""
        # Keys as text: whether a file gave them as numbers or as words is no part of the map.
        names = ["\x01".join(keys.cast(pl.String)) for keys in self.keys.values()]
        columns = (self.source, self.target, self.kind, self.qty, self.asset, self.usd)
        return digest(str(self.ts), *names, *columns, self.evidence, self.origin,
                      self.price, self.par, self.size)  # fmt: skip

    def named(self, node: AnyColumn) -> pl.Series:
        """Names of nodes, `kind:key`."""
        at = np.asarray(node, dtype=np.int64)
        found = pl.Series("node", [""] * len(at), dtype=pl.String)
        for kind in NODE_KINDS:
            first, keys = self.offset[kind], self.keys[kind]
            here = np.flatnonzero((at >= first) & (at < first + len(keys)))
            if len(here):
                words = keys.gather(at[here] - first).cast(pl.String)
                named = pl.select(pl.format("{}:{}", pl.lit(kind), words)).to_series()
                found = found.scatter(here, named)
        return found

    def kind_of(self, node: AnyColumn) -> AnyColumn:
        """By node: its kind, into NODE_KINDS."""
        first = np.array([self.offset[kind] for kind in NODE_KINDS])
        found: AnyColumn = np.searchsorted(first, np.asarray(node), side="right") - 1
        while (empty := np.array([len(self.keys[k]) == 0 for k in NODE_KINDS])[found]).any():
            found = np.where(empty, found - 1, found)
        return found

    def node(self, name: str) -> int:
        """Number of the node called `kind:key`.

        Raises
        ------
        StateError
            When there is none; the message offers the nearest.
        """
        kind, _, key = name.partition(":")
        if kind in self.keys and key:
            words = self.keys[kind].cast(pl.String)
            found = words.index_of(key)
            if found is not None:
                return self.offset[kind] + int(found)
            near = _near(key, words)
            raise StateError(f"the map has no {kind} {key!r}", hint=near)
        raise StateError(
            f"{name!r} is no node of a map",
            hint=f"a node is kind:key, such as asset:stETH; kinds are {', '.join(NODE_KINDS)}",
        )

    def of_kind(self, *names: str) -> BoolColumn:
        """By edge: whether it is of one of these kinds."""
        found: BoolColumn = np.isin(self.kind, [KIND_NAMES.index(name) for name in names])
        return found

    def at_par(self) -> FloatColumn:
        """By edge: what it is worth if everything tied is worth what it follows.

        Reuse counts promises, so a wrapper that trades below its par is as many claims as before.
        """
        priced = np.where(self.asset == NONE, np.nan, self.par[self.asset])
        return np.where(np.isnan(self.qty) | ~(priced > 0.0), self.usd, self.qty * priced)

    def around(self, node: int, steps: int = 1) -> DependencyMap:
        """The edges within so many steps of a node, either way."""
        reached = np.zeros(self.nodes, dtype=np.bool_)
        reached[node] = True
        kept = np.zeros(len(self), dtype=np.bool_)
        for _ in range(steps):
            kept = reached[self.source] | reached[self.target]
            reached[self.source[kept]] = True
            reached[self.target[kept]] = True
        return self.only(kept)

    def only(self, edges: BoolColumn) -> DependencyMap:
        """The same nodes with some of the edges."""
        columns: dict[str, Any] = {
            name: frozen(getattr(self, name)[edges])
            for name in ("source", "target", "kind", "qty", "asset", "usd", "evidence", "origin")
        }
        return replace(self, **columns)

    def edges(self) -> pl.DataFrame:
        """One row an edge, spelled out."""
        asset = pl.Series(np.where(self.asset == NONE, 0, self.asset))
        named = self.keys["asset"].gather(asset) if len(self.keys["asset"]) else asset.cast(str)
        return pl.DataFrame(
            {
                "source": self.named(self.source),
                "target": self.named(self.target),
                "kind": pl.Series(KIND_NAMES).gather(self.kind),
                "qty": self.qty,
                "asset": named.cast(pl.String).set(pl.Series(self.asset == NONE), None),
                "usd": self.usd,
                "evidence": pl.Series(schema.EVIDENCE).gather(self.evidence),
                "origin": pl.Series(ORIGINS).gather(self.origin),
                "ts": pl.Series(np.full(len(self), self.ts)).cast(pl.Datetime("us", "UTC")),
            }
        ).with_columns(pl.col("qty", "usd").fill_nan(None))

    def node_frame(self) -> pl.DataFrame:
        """One row a node: its name, kind and key, and what is known of it beside edges."""
        names = self.named(np.arange(self.nodes))
        kinds = np.repeat(np.arange(len(NODE_KINDS)), [len(self.keys[k]) for k in NODE_KINDS])
        price, par, size = (np.full(self.nodes, np.nan) for _ in range(3))
        assets = slice(self.offset["asset"], self.offset["asset"] + len(self.price))
        places = slice(self.offset["instrument"], self.offset["instrument"] + len(self.size))
        price[assets], par[assets], size[places] = self.price, self.par, self.size
        of = np.full(self.nodes, NONE)
        of[places] = self.instrument_asset
        said = self.keys["asset"].cast(pl.String) if len(self.price) else pl.Series([""])
        asset = said.gather(np.where(of == NONE, 0, of)).set(pl.Series(of == NONE), None)
        return pl.DataFrame(
            {
                "node": names,
                "kind": pl.Series(NODE_KINDS).gather(kinds),
                "key": names.str.split_exact(":", 1).struct.field("field_1")
                if not len(names)
                else names.str.replace(r"^[a-z]+:", ""),
                "price_usd": price,
                "par_usd": par,
                "size": size,
                "asset": asset,
            }
        ).with_columns(pl.col("price_usd", "par_usd", "size").fill_nan(None))

    @classmethod
    def from_frames(cls, nodes: Any, edges: Any) -> DependencyMap:
        """A map from the frames that `node_frame` and `edges` give.

        Raises
        ------
        StateError
            When a column lacks, a kind is unknown, a node stands twice, or an edge ends at none.
        """
        rows, lines = as_frame(nodes), as_frame(edges)
        _require_columns("nodes", rows, ("node", "kind"))
        _require_columns("edges", lines, ("source", "target", "kind", "usd"))
        for column, default in (("price_usd", None), ("par_usd", None), ("size", None),
                                ("asset", None)):  # fmt: skip
            if column not in rows.columns:
                rows = rows.with_columns(pl.lit(default).alias(column))
        optional = {"qty": None, "asset": None, "evidence": "observed", "origin": "given"}
        for column, value in optional.items():
            if column not in lines.columns:
                lines = lines.with_columns(pl.lit(value).alias(column))
        _require_known("nodes", rows["kind"], NODE_KINDS)
        _require_known("edges", lines["kind"], KIND_NAMES)
        _require_known("edges", lines["evidence"], schema.EVIDENCE)
        lines = lines.with_columns(
            pl.when(pl.col("origin").is_in(ORIGINS)).then("origin").otherwise(pl.lit("given"))
        )
        order = pl.Enum(NODE_KINDS)
        rows = rows.with_columns(pl.col("kind").cast(pl.String).cast(order)).sort(
            "kind", maintain_order=True
        )
        if rows["node"].n_unique() != rows.height:
            twice = rows.filter(rows["node"].is_duplicated())["node"][0]
            raise StateError(f"the node {twice!r} stands twice in the map")
        keys = {kind: _keys(rows, kind) for kind in NODE_KINDS}
        place = pl.DataFrame({"node": rows["node"], "at": np.arange(rows.height)})
        ends = [_placed(lines[end], place) for end in ("source", "target")]
        assets = keys["asset"].cast(pl.String)
        asset = _coded(lines["asset"], assets, "edges")
        is_asset, is_place = (rows["kind"] == kind for kind in ("asset", "instrument"))
        stamp = lines["ts"][0] if "ts" in lines.columns and lines.height else None
        stated = pl.Series([stamp]).cast(pl.Datetime("us", "UTC"))
        return cls(
            ts=0 if stamp is None else int(stated.to_physical()[0]),
            keys=keys,
            source=ends[0], target=ends[1],
            kind=frozen(_codes(lines["kind"], KIND_NAMES)),
            qty=_numbers(lines["qty"]), asset=asset, usd=_numbers(lines["usd"]),
            evidence=frozen(_codes(lines["evidence"], schema.EVIDENCE)),
            origin=frozen(_codes(lines["origin"], ORIGINS)),
            price=_numbers(rows.filter(is_asset)["price_usd"], 0.0),
            par=_numbers(rows.filter(is_asset)["par_usd"], 0.0),
            size=_numbers(rows.filter(is_place)["size"], 0.0),
            instrument_asset=_coded(rows.filter(is_place)["asset"], assets, "nodes"),
        )  # fmt: skip


def _keys(rows: pl.DataFrame, kind: str) -> pl.Series:
    own = rows.filter(pl.col("kind") == kind)["node"].str.strip_prefix(f"{kind}:")
    if kind in ("owner", "account"):
        whole = own.cast(pl.Int64, strict=False)  # "007" is no 7: it stays a word
        return own if whole.null_count() or (whole.cast(pl.String) != own).any() else whole
    return own


def _placed(names: pl.Series, place: pl.DataFrame) -> KeyColumn:
    joined = pl.DataFrame({"node": names.cast(pl.String)}).join(
        place, on="node", how="left", maintain_order="left"
    )
    lost = joined.filter(pl.col("at").is_null())
    if lost.height:
        raise StateError(f"an edge ends at {lost['node'][0]!r}, which is no node of the map")
    found: KeyColumn = frozen(joined["at"].to_numpy().astype(np.int64))
    return found


def _coded(words: pl.Series, known: pl.Series, source: str) -> CodeColumn:
    place = pl.DataFrame({"key": known, "at": np.arange(len(known))})
    plain = words.cast(pl.String).str.strip_prefix("asset:")
    joined = pl.DataFrame({"key": plain}).join(place, on="key", how="left", maintain_order="left")
    lost = joined.filter(pl.col("at").is_null() & pl.col("key").is_not_null())
    if lost.height:
        raise StateError(f"no asset of the map is called {lost['key'][0]!r}", source=source)
    found: CodeColumn = frozen(joined["at"].fill_null(NONE).to_numpy().astype(np.int32))
    return found


def _codes(words: pl.Series, known: Sequence[str]) -> SmallColumn:
    found = words.cast(pl.String).cast(pl.Enum(known)).to_physical()
    return found.to_numpy().astype(np.int8)


def _numbers(values: pl.Series, lacking: float = np.nan) -> FloatColumn:
    column: FloatColumn = frozen(values.cast(pl.Float64).fill_null(lacking).to_numpy().copy())
    return column


def _require_columns(what: str, frame: pl.DataFrame, needed: Sequence[str]) -> None:
    lacking = [name for name in needed if name not in frame.columns]
    if lacking:
        raise StateError(
            f"the {what} of a map lack the column {lacking[0]!r}",
            hint=f"they have {', '.join(frame.columns) or 'none'}",
        )


def _require_known(what: str, words: pl.Series, known: Sequence[str]) -> None:
    odd = words.cast(pl.String).filter(~words.cast(pl.String).is_in(list(known)))
    if len(odd):
        raise StateError(
            f"{odd[0]!r} is unknown among the {what} of a map", hint=f"have {', '.join(known)}"
        )


def _near(key: str, words: pl.Series) -> str:
    from difflib import get_close_matches

    found = get_close_matches(key, words.head(5_000).to_list(), n=3, cutoff=0.4)
    return f"did you mean {', '.join(found)}?" if found else "`undertow map show` lists them"
