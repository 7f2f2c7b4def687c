"""A dependency map without its crowd: accounts of one owner at one venue together, and small
owners together by venue.

A million accounts are a table, not a graph to look at. The fold keeps every dollar: edges that
touch an account are added up, kind by kind, by asset, by how they are known and by their sign. It
keeps what everything stands on, too: of what a borrower posted, the part that its loan of a place
stands on goes with that loan, to a node for those who owe that place; the rest stays apart. So a
loan of many who are folded stands on what it stood on, and not on what their neighbours posted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.measures.interconnection.mapping import KIND_NAMES, NODE_KINDS, DependencyMap
from undertow.state import BoolColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.universe import NONE

_OTHERS = -2  # instead of an owner: one of those who are too small to be named
_POSTED = ("collateral", "cash")  # what a loan can be taken from
_FOLDED = {
    "owner": "small owners went into groups",
    "account": "accounts went into groups by owner and venue",
}
_DUST = 1e-12  # of what was posted: a share of less is rounding
_EDGE = ("source", "target", "kind", "qty", "asset", "usd", "evidence", "origin")
_BY = ("source", "target", "kind", "asset", "evidence", "origin", "sign", "no_qty", "no_usd")


class Folded(NamedTuple):
    """The smaller map, and what went into it."""

    map: DependencyMap
    accounts: int  # that there were
    owners: int  # that went into the others
    others_usd: float  # gross value of what they have


class _Lumps(NamedTuple):
    """Accounts of one owner, or of the others, at one venue."""

    of: KeyColumn  # by account: the lump it goes into
    owner: KeyColumn  # by account
    group: KeyColumn  # by lump, and here and below: an owner, _OTHERS or NONE
    venue: KeyColumn
    accounts: KeyColumn  # in it


def fold(dependencies: DependencyMap, *, least_usd: float = 0.0) -> Folded:
    """Add accounts up by owner and venue, owners of less than `least_usd` gross by venue alone.

    An owner whom other edges than its accounts speak of keeps its name, however small.

    Raises
    ------
    StateError
        When `least_usd` is no number from 0 up.
    """
    if not least_usd >= 0.0 or not np.isfinite(least_usd):
        raise StateError(f"least_usd was {least_usd:g}; it must be a number of USD from 0 up")
    m = dependencies
    owner, gross = _first(m, "owns"), _gross(m)
    small = _small(m, owner, gross < least_usd)
    lumps = _lumps(owner, np.append(small, np.False_), _first(m, "at"))
    rows = _touched(m)
    parts = pl.concat([_undivided(rows, lumps), _divided(rows, lumps)])
    nodes = parts.select("lump", "part").unique().sort("lump", "part")
    return Folded(
        _smaller(m, small, lumps, nodes, parts), accounts=len(m.keys["account"]),
        owners=int(small.sum()), others_usd=float(gross[small].sum()),
    )  # fmt: skip


def node_of(dependencies: DependencyMap, name: str) -> int:
    """Number of the node called `kind:key`.

    Raises
    ------
    StateError
        When there is none; of an owner or an account of a map that was folded it says that it may
        be in a group, and where all of them are.
    """
    try:
        return dependencies.node(name)
    except StateError as error:
        kind = name.partition(":")[0]
        group = _group(dependencies, kind)
        if group is None:
            raise
        raise StateError(
            f"{error.message}, but {_FOLDED[kind]} when it was folded, such as '{kind}:{group}'",
            hint=f"a map that keeps all has it, if there is one: `undertow map build --out FOLDER`,"
            f" then `undertow map show {name} --map FOLDER`",
        ) from None


def _group(m: DependencyMap, kind: str) -> str | None:
    """The first node of a kind that a fold put together; none where nothing was folded."""
    if kind not in _FOLDED:
        return None
    keys = m.keys[kind].cast(pl.String)
    venue = keys.str.replace(" owing .*$", "").str.extract(" at (.+)$")
    lumps = venue.is_in(m.keys["venue"].implode()) | keys.str.contains(r"^[\d,]+ others$")
    if kind == "owner":
        lumps &= keys.str.contains(r"^[\d,]+ others( at |$)")
    found = keys.filter(lumps.fill_null(value=False))
    return str(found[0]) if len(found) else None


def _first(m: DependencyMap, kind: str) -> KeyColumn:
    """By account: the owner or the venue that it has, or NONE."""
    here = np.flatnonzero(m.of_kind(kind))[::-1]  # of several the first is written last
    account, other = m.source[here], m.target[here]
    if kind == "owns":
        account, other = other, account
    found = np.full(len(m.keys["account"]), NONE, dtype=np.int64)
    found[account - m.offset["account"]] = other - m.offset["owner" if kind == "owns" else "venue"]
    return found


def _gross(m: DependencyMap) -> FloatColumn:
    owns = m.of_kind("owns")
    usd = np.nan_to_num(m.usd[owns])
    owner = m.source[owns] - m.offset["owner"]
    return np.bincount(owner, usd, len(m.keys["owner"])).astype(np.float64)


def _small(m: DependencyMap, owner: KeyColumn, below: BoolColumn) -> BoolColumn:
    """By owner: whether it goes into the others."""
    count, rest = len(m.keys["owner"]), ~m.of_kind("owns")
    spoken = np.zeros(count, dtype=np.bool_)
    for end in (m.source[rest], m.target[rest]):
        at = end - m.offset["owner"]
        spoken[at[(at >= 0) & (at < count)]] = True
    has = np.bincount(owner[owner != NONE], minlength=count) > 0
    found: BoolColumn = below & has & ~spoken
    return found


def _lumps(owner: KeyColumn, small: BoolColumn, venue: KeyColumn) -> _Lumps:
    """`small` is by owner, and its last answers for NONE."""
    group = np.where(small[owner], _OTHERS, owner)
    each, of = np.unique(np.stack([group, venue], axis=1), axis=0, return_inverse=True)
    of = of.reshape(-1).astype(np.int64)
    return _Lumps(of, owner, each[:, 0], each[:, 1], np.bincount(of, minlength=len(each)))


def _touched(m: DependencyMap) -> pl.DataFrame:
    """Edges of accounts, with the account, which end it is, and what they are worth at par."""
    first, count = m.offset["account"], len(m.keys["account"])
    frame = pl.DataFrame({name: getattr(m, name) for name in _EDGE})
    frame = frame.with_columns(at_par=np.nan_to_num(m.at_par()))
    ends = {end: pl.col(end).is_between(first, first + count - 1) for end in ("source", "target")}
    return frame.filter(ends["source"] | ends["target"]).with_columns(
        owes=ends["target"] & pl.col("kind").is_in(_kinds("loan")),
        account=pl.when(ends["source"]).then("source").otherwise("target") - first,
        leaves=ends["source"],
    )


def _kinds(*names: str) -> list[int]:
    return [KIND_NAMES.index(name) for name in names]


def _undivided(rows: pl.DataFrame, lumps: _Lumps) -> pl.DataFrame:
    """Edges that go into a lump whole; loans of one of several accounts to who owes that place."""
    several = _several(lumps)
    whole = rows.with_columns(lump=pl.Series(lumps.of).gather(rows["account"]))
    crowded = pl.col("account").is_in(several)
    divided = crowded & pl.col("kind").is_in(_kinds(*_POSTED, "owns", "at"))
    part = pl.when(crowded & pl.col("owes")).then("source").otherwise(pl.lit(NONE))
    return whole.filter(~divided).with_columns(part=part.cast(pl.Int64), share=pl.lit(1.0))


def _several(lumps: _Lumps) -> pl.Series:
    return pl.Series(np.flatnonzero(lumps.accounts[lumps.of] > 1)).implode()


def _divided(rows: pl.DataFrame, lumps: _Lumps) -> pl.DataFrame:
    """What accounts of a crowd posted, and are, divided between their loans and the rest."""
    mine = rows.filter(pl.col("account").is_in(_several(lumps)))
    mine = mine.with_columns(lump=pl.Series(lumps.of).gather(mine["account"]))
    posted = pl.col("kind").is_in(_kinds(*_POSTED)) & (pl.col("at_par") > 0.0)
    itself = pl.col("kind").is_in(_kinds("owns", "at"))
    each = mine.group_by("account").agg(
        has=pl.col("at_par").filter(posted).sum(), has_usd=pl.col("usd").filter(posted).sum(),
        gross=pl.col("usd").fill_nan(0.0).filter(~itself).sum(),
        owed=pl.col("at_par").filter("owes").sum(),
    )  # fmt: skip
    loans = mine.filter("owes").group_by("account", pl.col("source").alias("part")).agg(
        loan=pl.col("at_par").sum(), loan_usd=pl.col("usd").fill_nan(0.0).sum()
    )  # fmt: skip
    covered = pl.min_horizontal("has", "owed") / pl.col("owed")
    stands = pl.when((pl.col("has") > 0.0) & (pl.col("owed") > 0.0))
    loans = loans.join(each, on="account").with_columns(
        share=stands.then(pl.col("loan") * covered / pl.col("has")).otherwise(0.0)
    )
    size = (pl.col("loan_usd") + pl.col("share") * pl.col("has_usd")) / pl.col("gross")
    sizes = loans.with_columns(share=pl.when(pl.col("gross") > 0.0).then(size).otherwise(0.0))
    kinds = pl.col("kind").is_in(_kinds(*_POSTED))
    return pl.concat(
        [_shared(mine.filter(posted), loans), _shared(mine.filter(itself), sizes),
         mine.filter(kinds & ~posted).with_columns(
             part=pl.lit(NONE, pl.Int64), share=pl.lit(1.0))],
        how="diagonal",
    ).select([*rows.columns, "lump", "part", "share"])  # fmt: skip


def _shared(rows: pl.DataFrame, shares: pl.DataFrame) -> pl.DataFrame:
    """Each row once for every loan of its account, and once for what no loan stands on."""
    used = shares.group_by("account").agg(pl.col("share").sum().alias("used"))
    rest = rows.join(used, on="account", how="left").with_columns(
        part=pl.lit(NONE, pl.Int64), share=1.0 - pl.col("used").fill_null(0.0)
    )
    lent = rows.join(shares.select("account", "part", "share"), on="account")
    parts = pl.concat([rest.drop("used"), lent.select(rest.drop("used").columns)])
    return parts.filter(pl.col("share") > _DUST)


def _smaller(
    m: DependencyMap, small: BoolColumn, lumps: _Lumps, nodes: pl.DataFrame, parts: pl.DataFrame
) -> DependencyMap:
    """The map of lumps instead of accounts, and of the others instead of small owners."""
    owners, kept = m.keys["owner"].cast(pl.String), np.flatnonzero(~small)
    crowds = np.flatnonzero(lumps.group == _OTHERS)
    keys = dict(m.keys)
    counts = _owners_in(lumps)
    others = [f"{counts[k]:,} {_said('others', m, int(lumps.venue[k]))}" for k in crowds]
    keys["owner"] = pl.concat([owners.gather(kept), pl.Series(others, dtype=pl.String)])
    keys["account"] = _account_names(m, owners, lumps, nodes, parts)
    ends = np.cumsum([0, *(len(keys[kind]) for kind in NODE_KINDS)]).tolist()
    first = dict(zip(NODE_KINDS, ends, strict=False))
    moved = np.concatenate([np.arange(len(m.keys[k])) + first[k] for k in NODE_KINDS])
    begin = m.offset["owner"]
    moved[begin + kept] = np.arange(len(kept)) + first["owner"]
    crowd = np.full(len(lumps.group), NONE, dtype=np.int64)
    crowd[crowds] = np.arange(len(crowds)) + len(kept) + first["owner"]
    nodes = nodes.with_columns(node=np.arange(nodes.height) + first["account"])
    parts = parts.join(nodes, on=["lump", "part"], how="left", maintain_order="left")
    source, target = (moved[parts[end]] for end in ("source", "target"))
    leaves, node = parts["leaves"].to_numpy(), parts["node"].to_numpy()
    source = np.where(leaves, node, source)
    target = np.where(leaves, target, node)
    owns = parts["kind"].is_in(_kinds("owns")).to_numpy()
    of = crowd[parts["lump"].to_numpy()]
    source = np.where(owns & (of != NONE), of, source)
    account = NODE_KINDS.index("account")
    alone = (m.kind_of(m.source) != account) & (m.kind_of(m.target) != account)
    rest = pl.DataFrame({name: getattr(m, name)[alone] for name in _EDGE})
    rest = rest.with_columns(source=moved[rest["source"]], target=moved[rest["target"]])
    summed = _added_up(parts.with_columns(source=source, target=target))
    columns: dict[str, Any] = {
        name: frozen(pl.concat([summed[name], rest[name]]).to_numpy().copy()) for name in _EDGE
    }
    return replace(m, keys=keys, **columns)


def _owners_in(lumps: _Lumps) -> KeyColumn:
    pairs = np.unique(np.stack([lumps.of, lumps.owner], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(lumps.group)).astype(np.int64)


def _account_names(
    m: DependencyMap, owners: pl.Series, lumps: _Lumps, nodes: pl.DataFrame, parts: pl.DataFrame
) -> pl.Series:
    """Who stands there, where, and what they owe if there is a node for those who owe it."""
    counts = parts.filter("owes").group_by("lump", "part").agg(pl.col("account").n_unique())
    owe = {(lump, part): count for lump, part, count in counts.iter_rows()}
    who, found = {_OTHERS: "others", NONE: "nobody"}, []
    for lump, part in nodes.iter_rows():
        group, venue = int(lumps.group[lump]), int(lumps.venue[lump])
        name = _said(who[group] if group in who else owners[group], m, venue)
        if group == _OTHERS:
            name = f"{owe.get((lump, part), lumps.accounts[lump]):,} {name}"
        if part != NONE:
            place = m.named(np.array([part]))[0].partition(":")[2]
            name += f" owing {place.removeprefix(f'{_venue(m, venue)}:')}"
        found.append(name)
    return pl.Series(found, dtype=pl.String)


def _said(who: str, m: DependencyMap, venue: int) -> str:
    where = f" at {_venue(m, venue)}" if venue != NONE else ""
    return who if where and who.endswith(where) else f"{who}{where}"


def _venue(m: DependencyMap, venue: int) -> str:
    return str(m.keys["venue"][venue]) if venue != NONE else ""


def _added_up(parts: pl.DataFrame) -> pl.DataFrame:
    """Edges between the same two, of the same kind, that are known alike and lean alike, as one."""
    qty, usd = pl.col("qty"), pl.col("usd")
    known = parts.with_columns(
        sign=qty.fill_nan(0.0).sign(), no_qty=qty.is_nan(), no_usd=usd.is_nan(),
        qty=qty * pl.col("share"), usd=usd * pl.col("share"),
    )  # fmt: skip
    return known.group_by(_BY).agg(qty.sum(), usd.sum()).sort(_BY).select(_EDGE)
