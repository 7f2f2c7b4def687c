"""One node of a dependency map: what it stands on step by step and in the end, and what stands on
it; and, of the whole map, the largest nodes and the gaps.

What a node stands on in the end is asked of what it has: a token, a place or a keeper of itself, a
venue of its places and of what it owes, an owner or an account of what it holds. An issuer, a
chain or an oracle has nothing, so that nothing of it is followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import (
    KIND_NAMES,
    NODE_KINDS,
    NOTHING,
    UNTOLD,
    DependencyMap,
)
from undertow.measures.words import known
from undertow.state import FloatColumn, KeyColumn

KEEPERS = ("custodian", "bridge", "external", "venue")  # kinds that keep what is others'
# Edges that say that the value of one hangs on another.
_NAMED = ("issued by", "kept by", "lives on", "priced by", "listed")
_SPECK = 1e-6  # USD: what nobody holds counts as a speck, so that it has shares
_LEAST = 1e-9  # of a share that is listed


@dataclass(frozen=True, eq=False)
class LookedThrough:
    """What a node stands on in the end."""

    usd: float  # at par, of all that is followed
    ends: pl.DataFrame  # end, share, usd: assets, then what is nothing, untold or without a way out
    keepers: pl.DataFrame  # node, share, usd that lead through each; shares may add up to more
    wrappers: int  # tokens that stand on each other below and with it, at most
    multiplier: float | None  # claims on it for one that is no claim on itself, pro rata
    circular_usd: float | None  # claims that cancel against claims that stand on it
    taken_at_word: bool  # nobody says what is behind it, or behind part of it


def steps_from(
    dependencies: DependencyMap, node: int, *, steps: int = 1, kinds: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Edges on the way down from a node and up from it, with the step in which each is met.

    With `kinds` only edges of these kinds are followed.

    Raises
    ------
    StateError
        When there is no such kind of edge, or no step.
    """
    if steps < 1:
        raise StateError(f"steps was {steps}; it must be a whole number from 1 up")
    for kind in kinds:
        if kind not in KIND_NAMES:
            raise StateError(f"no edge is of kind {kind!r}", hint=f"have {', '.join(KIND_NAMES)}")
    m = dependencies.only(dependencies.of_kind(*kinds)) if kinds else dependencies
    frames = []
    for way, down in (("stands on", True), ("stands on it", False)):
        met = _met(m, node, steps, down=down)
        here = met > 0
        step = pl.DataFrame({"way": [way] * int(here.sum()), "step": met[here]},
                            schema_overrides={"way": pl.String})  # fmt: skip
        frames.append(step.hstack(m.only(here).edges().drop("ts")))
    return pl.concat(frames).sort(
        "step", "usd", descending=[False, True], nulls_last=True, maintain_order=True
    )


def _met(m: DependencyMap, node: int, steps: int, *, down: bool) -> KeyColumn:
    """By edge: the step in which it is met, 0 where it is not."""
    near, far = (m.source, m.target) if down else (m.target, m.source)
    met = np.zeros(len(m), dtype=np.int64)
    reached = np.zeros(m.nodes, dtype=np.bool_)
    front = np.array([node])
    for step in range(1, steps + 1):
        reached[front] = True
        new = np.zeros(m.nodes, dtype=np.bool_)
        new[front] = True
        here = new[near] & (met == 0)
        met[here] = step
        front = np.unique(far[here])
        front = front[~reached[front]]
        if not len(front):
            break
    return met


def looked_through(backing: Backing, node: int) -> LookedThrough | None:
    """What a node stands on in the end; None where it has nothing that could be followed."""
    m, seen = backing.map, backing.seen
    usd = _has(backing, node)
    total = float(usd.sum())
    if total <= 0.0:
        return None
    rows, share = np.flatnonzero(usd), usd / total
    words = [*m.keys["asset"].cast(pl.String), "nothing", "untold", "no way out"]
    ends = share @ np.column_stack([seen.ends, seen.untold, seen.circular])
    nodes, passes = _passes(backing, node, share)
    own = len(rows_of(backing, node)) > 0  # not of an owner or an account
    alone = own and len(rows) == 1 and node in backing.node[rows]
    return LookedThrough(
        usd=total if total > _SPECK else 0.0,
        ends=_shares("end", words, ends, total),
        keepers=_shares("node", m.named(nodes).to_list(), passes, total),
        wrappers=int(backing.wrappers[rows].max()),
        multiplier=known(float(seen.multiplier[rows[0]])) if alone else None,
        circular_usd=backing.round_of(rows) if own else None,
        taken_at_word=bool(backing.at_word[rows].any()),
    )


def _has(backing: Backing, node: int) -> FloatColumn:
    """By row of the backing: USD at par that a node has there."""
    m, found = backing.map, np.zeros(len(backing))
    kind = NODE_KINDS[int(m.kind_of(np.array([node]))[0])]
    first = len(m.keys["asset"])
    places = slice(first, first + len(m.keys["instrument"]))
    if kind in ("owner", "account"):
        held = backing.owner_places if kind == "owner" else backing.accounts.held
        row = node - m.offset[kind]
        found[places] = held[[row]].toarray()[0]
        return found
    mine = rows_of(backing, node)
    found[mine] = backing.whole[mine]
    return found


def rows_of(backing: Backing, node: int) -> KeyColumn:
    """Rows of a token, a place or a keeper; of a venue its places too."""
    m = backing.map
    listed = m.source[m.of_kind("listed") & (m.target == node)] - m.offset["instrument"]
    own = np.flatnonzero(backing.node == node)
    return np.union1d(own, listed + len(m.keys["asset"])).astype(np.int64)


def _passes(backing: Backing, node: int, share: FloatColumn) -> tuple[KeyColumn, FloatColumn]:
    """Keepers other than the node, and the share of what it has that leads through each."""
    m = backing.map
    kinds = [NODE_KINDS.index(kind) for kind in KEEPERS]
    nodes = np.unique(backing.node[~backing.is_token])
    nodes = nodes[np.isin(m.kind_of(nodes), kinds) & (nodes != node)]
    if not len(nodes):
        return nodes, np.zeros(0)
    passes: FloatColumn = share @ backing.through(
        [np.flatnonzero(backing.node == k) for k in nodes]
    )
    return nodes, passes


def _shares(name: str, words: list[str], share: FloatColumn, usd: float) -> pl.DataFrame:
    frame = pl.DataFrame(
        {name: words, "share": share, "usd": share * usd}, schema_overrides={name: pl.String}
    )
    kept = frame.filter(pl.col("share") > _LEAST)
    return kept.sort("share", descending=True, maintain_order=True)


def largest(backing: Backing, kinds: tuple[str, ...] = (), *, top: int = 3) -> pl.DataFrame:
    """The largest nodes of every kind, by what they have, or by what hangs on their name.

    Raises
    ------
    StateError
        When there is no such kind of node.
    """
    for kind in kinds:
        if kind not in NODE_KINDS:
            raise StateError(f"no node is of kind {kind!r}", hint=f"have {', '.join(NODE_KINDS)}")
    m, frames = backing.map, []
    usd = node_values(backing)
    for kind in kinds or NODE_KINDS:
        first, count = m.offset[kind], len(m.keys[kind])
        mine = usd[first : first + count]
        order = np.argsort(-mine, kind="stable")[:top]
        names = m.named(order + first)
        typed = pl.Series([kind] * len(order), dtype=pl.String)  # one word beside no rows is none
        frames.append(
            pl.DataFrame(
                {
                    "kind": typed,
                    "node": names,
                    "usd": mine[order],
                    "of": pl.Series([count] * len(order), dtype=pl.Int64),
                }
            )
        )
    return pl.concat(frames)


def node_values(backing: Backing) -> FloatColumn:
    """By node: USD at par of what it has, as it is looked through; of who has nothing that could
    be followed, what hangs on its name.
    """
    m = backing.map
    par = np.nan_to_num(m.at_par())
    found = np.zeros(m.nodes)
    np.add.at(found, backing.node, whole_of(backing))
    for kind, held in (("owner", backing.owner_places), ("account", backing.accounts.held)):
        first = m.offset[kind]
        found[first : first + len(m.keys[kind])] = np.asarray(held.sum(axis=1)).ravel()
    untold = m.of_kind(UNTOLD)
    np.add.at(found, m.target[untold], par[untold])
    if len(m.keys["unseen"]):
        nothing = m.keys["unseen"].index_of(NOTHING)
        if nothing is not None:
            found[m.offset["unseen"] + nothing] = backing.nothing.sum()
    has, hangs = found.copy(), np.zeros(m.nodes)
    for end, here in ((has, m.of_kind("listed")), (hangs, m.of_kind(*_NAMED))):
        np.add.at(end, m.target[here], found[m.source[here]])
    return np.where(has > 0.0, has, hangs)


def whole_of(backing: Backing) -> FloatColumn:
    """By row: what it has; a base asset of which nobody holds anything has none."""
    bare = np.zeros(len(backing), dtype=np.bool_)
    bare[: len(backing.base)] = backing.base
    held: FloatColumn = np.where(bare, backing.claimed, backing.whole)
    return held


@dataclass(frozen=True)
class Gaps:
    """What of a map cannot be followed to something that is there, in USD at par."""

    not_told_usd: float  # lent or kept where nobody says to whom
    nothing_usd: float  # with nothing behind it
    goes_round_usd: float  # claims that cancel against what stands on them, a circle counted once
    taken_at_word_usd: float  # of tokens and keepers, of which nobody says what is behind them
    keepers_at_word_usd: float  # the part of it that keepers are taken to keep


def gaps(backing: Backing) -> Gaps:
    """The gaps of a map."""
    m = backing.map
    par = np.nan_to_num(m.at_par())
    return Gaps(
        not_told_usd=float(par[m.of_kind(UNTOLD)].sum()),
        nothing_usd=float(backing.nothing.sum()),
        goes_round_usd=float(backing.rounds.once.sum()),
        taken_at_word_usd=float(backing.at_word.sum()),
        keepers_at_word_usd=float(backing.at_word[~backing.is_token].sum()),
    )


def edge_kinds(dependencies: DependencyMap) -> pl.DataFrame:
    """One row a kind of edge and a way of knowing: how many there are, and their value."""
    edges = dependencies.edges()
    return edges.group_by("kind", "evidence").agg(
        pl.len().cast(pl.Int64).alias("edges"),
        pl.when(pl.col("usd").count() > 0).then(pl.col("usd").sum()),
    ).sort("usd", "edges", "kind", "evidence", descending=[True, True, False, False],
           nulls_last=True)  # fmt: skip
