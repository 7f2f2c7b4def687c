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
_PARTIES = ("owner", "instrument", "venue", "asset", "custodian", "bridge", "external")
_LEG = ((("account",), ("instrument",)),)
_CLAIM = ((_PARTIES, _PARTIES),)
# What an edge says, and the kinds of node that may stand at its ends: (who depends, on what).
EDGE_KINDS: Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "owns": ((("owner",), ("account",)),),
    "collateral": _LEG,
    "cash": _LEG,
    "supply": _LEG,
    "perp": _LEG,
    "future": _LEG,
    "option": _LEG,
    "at": ((("account",), ("venue",)),),
    "loan": ((("instrument",), ("account",)), *_CLAIM),  # lender -> borrower
    "holds": ((_PARTIES, ("asset",)),),  # who has what nobody else keeps for it
    "deposit": _CLAIM,  # creditor -> debtor, here and below
    "backing": _CLAIM,
    "vault_share": _CLAIM,
    "bridge": _CLAIM,
    "custody": _CLAIM,
    "follows": ((("asset",), ("asset",)),),  # its reference, where nobody says what backs it
    "not told": ((_PARTIES, ("unseen",)),),  # value of which nobody says where it stands
    "nothing": ((_PARTIES, ("unseen",)),),  # value that nothing stands behind
    # The value of what depends does not stand on these, nor on derivatives and venues above.
    "quotes": ((("instrument",), ("asset",)),),
    "listed": ((("instrument",), ("venue",)),),
    "priced by": ((("instrument",), ("oracle",)),),
    "issued by": ((("asset",), ("issuer",)),),
    "kept by": ((("asset",), ("custodian",)),),
    "lives on": ((("asset",), ("chain",)),),
    "runs on": ((("venue",), ("chain",)),),
}
KIND_NAMES = tuple(EDGE_KINDS)
ORIGINS = ("positions", "claims", "assets", "venues", "instruments", "oracles", "reserves", "given")
UNTOLD, NOTHING = "not told", "nothing"
_SIGNED = ("collateral", "cash", "supply", "perp", "future", "option")  # quantities may be owed
LEAST_USD = 1e-100  # what is worth less is nothing: one could not be divided by it
_MOST = 1e60  # of any number: squares of sums of it are still numbers


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
        meant = [f"{each}:{name}" for each in NODE_KINDS if self._has(each, name)]
        raise StateError(
            f"{name!r} is no node of a map",
            hint=f"did you mean {' or '.join(meant)}?" if meant else
            f"a node is kind:key, such as asset:stETH; kinds are {', '.join(NODE_KINDS)}",
        )  # fmt: skip

    def _has(self, kind: str, key: str) -> bool:
        return self.keys[kind].cast(pl.String).index_of(key) is not None

    def of_kind(self, *names: str) -> BoolColumn:
        """By edge: whether it is of one of these kinds."""
        found: BoolColumn = np.isin(self.kind, [KIND_NAMES.index(name) for name in names])
        return found

    def at_par(self) -> FloatColumn:
        """By edge: what it is worth if everything tied is worth what it follows.

        Reuse counts promises, so a wrapper that trades below its par is as many claims as before.
        """
        priced = np.where(self.asset == NONE, np.nan, self.par[self.asset])
        found = np.where(np.isnan(self.qty) | ~(priced > 0.0), self.usd, self.qty * priced)
        return np.where(np.abs(found) < LEAST_USD, 0.0, found)

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
                "key": names.str.replace(r"^[a-z]+:", ""),
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
            When a column lacks, a kind is unknown, a node stands twice, an edge ends at none or at
            one of a kind where it cannot, or a number cannot be one of a map.
        """
        rows, lines = _node_rows(as_frame(nodes)), _edge_rows(as_frame(edges))
        keys = {kind: _keys(rows, kind) for kind in NODE_KINDS}
        place = pl.DataFrame({"node": rows["node"], "at": np.arange(rows.height)})
        assets = keys["asset"].cast(pl.String)
        is_asset, is_place = (rows["kind"] == kind for kind in ("asset", "instrument"))
        found = cls(
            ts=_instant(lines),
            keys=keys,
            source=_placed(lines["source"], place), target=_placed(lines["target"], place),
            kind=frozen(_codes(lines["kind"], KIND_NAMES)),
            qty=_numbers(lines["qty"]), asset=_coded(lines["asset"], assets, "edges"),
            usd=_numbers(lines["usd"]),
            evidence=frozen(_codes(lines["evidence"], schema.EVIDENCE)),
            origin=frozen(_codes(lines["origin"], ORIGINS)),
            price=_numbers(rows.filter(is_asset)["price_usd"], 0.0),
            par=_numbers(rows.filter(is_asset)["par_usd"], 0.0),
            size=_numbers(rows.filter(is_place)["size"], 0.0),
            instrument_asset=_coded(rows.filter(is_place)["asset"], assets, "nodes"),
        )  # fmt: skip
        require_sound(found)
        return found


def require_sound(dependencies: DependencyMap) -> None:
    """Refuse edges that turn the wrong way, and numbers that nobody could add up.

    Raises
    ------
    StateError
        When an edge stands between kinds of node where its kind cannot, or a number is infinite,
        too large, or below 0 where it is a value, a price or a claim.
    """
    m = dependencies
    _require_ends(m)
    owed = ~m.of_kind(*_SIGNED)
    for name, values in (("qty", m.qty), ("usd", m.usd)):
        wrong = np.abs(values) > _MOST
        wrong |= (values < 0.0) & (owed | (name == "usd"))
        for row in np.flatnonzero(wrong)[:1]:
            source, target = m.named(np.array([m.source[row], m.target[row]]))
            at = f"edge {row + 1}, {KIND_NAMES[m.kind[row]]} from {source!r} to {target!r},"
            raise _no_number(at, name, values[row])
    for kind, name, values in (("asset", "price_usd", m.price), ("asset", "par_usd", m.par),
                               ("instrument", "size", m.size)):  # fmt: skip
        for row in np.flatnonzero((values < 0.0) | (values > _MOST))[:1]:
            node = m.named(np.array([m.offset[kind] + row]))[0]
            raise _no_number(f"the node {node!r}", name, values[row])


def _no_number(what: str, name: str, value: float) -> StateError:
    if abs(value) > _MOST:
        return StateError(
            f"{what} has {value:g} as {name}", hint=f"no number of a map is above {_MOST:g}"
        )
    return StateError(
        f"{what} has {value:g} as {name}",
        hint="only of what accounts hold may a quantity be below 0"
        if name == "qty"
        else "it must be a number from 0 up",
    )


def _require_ends(m: DependencyMap) -> None:
    allowed = np.zeros((len(KIND_NAMES), len(NODE_KINDS), len(NODE_KINDS)), dtype=np.bool_)
    for code, ways in enumerate(EDGE_KINDS.values()):
        for ends in ways:
            allowed[code][np.ix_(*([NODE_KINDS.index(kind) for kind in end] for end in ends))] = 1
    fits = allowed[m.kind, m.kind_of(m.source), m.kind_of(m.target)]
    for row in np.flatnonzero(~fits)[:1]:
        kind = KIND_NAMES[m.kind[row]]
        source, target = m.named(np.array([m.source[row], m.target[row]]))
        said = ", or ".join(
            f"from {_either(ends[0])} to {_either(ends[1])}" for ends in EDGE_KINDS[kind]
        )
        raise StateError(
            f"edge {row + 1} says {kind!r} from {source!r} to {target!r}",
            hint=f"{kind} goes {said}",
        )


def _either(kinds: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _node_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Nodes by kind, each once and called kind:key, with all columns."""
    _require_columns("nodes", frame, ("node", "kind"))
    lacking = [name for name in ("price_usd", "par_usd", "size", "asset")
               if name not in frame.columns]  # fmt: skip
    rows = frame.with_columns(pl.lit(None).alias(name) for name in lacking)
    _require_known("nodes", rows["kind"], NODE_KINDS)
    rows = rows.with_columns(
        pl.col("node").cast(pl.String), pl.col("kind").cast(pl.String).cast(pl.Enum(NODE_KINDS))
    )
    odd = rows.filter(
        pl.col("node").is_null()
        | ~pl.col("node").str.starts_with(pl.col("kind").cast(pl.String) + ":")
        | pl.col("node").str.ends_with(":") & (pl.col("node").str.count_matches(":") == 1)
    )
    if odd.height:
        name, kind = odd["node"][0], odd["kind"][0]
        raise StateError(
            f"a node of kind {kind} is called {name!r}", hint=f"its name must be {kind}:key"
        )
    twice = rows.filter(pl.col("node").is_duplicated())
    if twice.height:
        raise StateError(f"the node {twice['node'][0]!r} stands twice in the map")
    return rows.sort("kind", maintain_order=True)


def _edge_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Edges in their order, with all columns; what nobody said is `observed` and `given`."""
    _require_columns("edges", frame, ("source", "target", "kind", "usd"))
    lacking = [name for name in ("qty", "asset", "evidence", "origin")
               if name not in frame.columns]  # fmt: skip
    lines = frame.with_columns(pl.lit(None).alias(name) for name in lacking)
    lines = lines.with_columns(pl.col("evidence", "origin").cast(pl.String)).with_columns(
        pl.col("evidence").fill_null("observed"),
        pl.when(pl.col("origin").is_in(ORIGINS)).then("origin").otherwise(pl.lit("given")),
    )
    _require_known("edges", lines["kind"], KIND_NAMES)
    _require_known("edges", lines["evidence"], schema.EVIDENCE)
    return lines


def _instant(lines: pl.DataFrame) -> int:
    """The one instant of all edges, in microseconds; 0 where they tell none."""
    if "ts" not in lines.columns or not lines.height:
        return 0
    try:
        told = lines["ts"].cast(pl.Datetime("us", "UTC")).unique()
    except pl.exceptions.PolarsError:
        raise StateError(
            f"the ts of edge 1 is {lines['ts'][0]!r}, which is no instant",
            hint="give UTC microseconds or leave it out",
        ) from None
    if len(told) > 1:
        raise StateError("edges tell of several instants", hint="a map is of one instant")
    if not told.dt.year().is_between(1, 9999).fill_null(value=True).all():
        raise StateError("the ts of edges is beyond the year 9999", hint="give UTC microseconds")
    return 0 if told[0] is None else int(told.to_physical()[0])


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
    lost = joined["at"].is_null().arg_true()
    if len(lost):
        raise StateError(
            f"edge {lost[0] + 1} ends at {joined['node'][lost[0]]!r}, which is no node of the map"
        )
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
    if values.dtype.is_numeric() or values.dtype in (pl.String, pl.Null):
        found = values.cast(pl.Float64, strict=False)
    else:
        found = pl.Series(values.name, [None] * len(values), dtype=pl.Float64)
    odd = values.filter(found.is_null() & values.is_not_null())
    if len(odd):
        raise StateError(
            f"{odd[0]!r} is no number among {values.name} of a map", hint="leave it empty instead"
        )
    column: FloatColumn = frozen(found.fill_nan(None).fill_null(lacking).to_numpy().copy())
    return column


def _require_columns(what: str, frame: pl.DataFrame, needed: Sequence[str]) -> None:
    lacking = [name for name in needed if name not in frame.columns]
    if lacking:
        raise StateError(
            f"the {what} of a map lack the column {lacking[0]!r}",
            hint=f"they have {', '.join(frame.columns) or 'none'}",
        )


def _require_known(what: str, words: pl.Series, known: Sequence[str]) -> None:
    said = words.cast(pl.String)
    odd = said.filter(~said.is_in(list(known)).fill_null(value=False))
    if len(odd):
        raise StateError(
            f"{odd[0]!r} is unknown among the {what} of a map", hint=f"have {', '.join(known)}"
        )


def _near(key: str, words: pl.Series) -> str:
    from difflib import get_close_matches

    some = words.head(5_000).to_list()
    found = [word for word in some if word.casefold() == key.casefold()]
    found = found or get_close_matches(key, some, n=3, cutoff=0.4)
    return f"did you mean {', '.join(found)}?" if found else "`undertow map show` lists them"
