"""The tables of a trace: divisions, where losses began, who bears them, chains, and the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.shapley import Shares
from undertow.errors import StateError
from undertow.kernels import cascade as notes
from undertow.measures.interconnection.attributing import Divided
from undertow.measures.interconnection.causes import Causes
from undertow.measures.interconnection.pathwords import bare, bearer, phrase, sentence, steps
from undertow.measures.interconnection.trails import UNTOLD, Chain, Node
from undertow.state.book import UNKNOWN_OWNER
from undertow.stress.shock import near

Tables = Mapping[str, pl.DataFrame]
_BEGAN = 20  # rows of each kind


def ends_of(causes: Causes, to: str | None) -> list[Node]:
    """Who bears a loss, the largest first; or those of one name.

    A name with its kind (`venue:okx`, `fund:okx`) is that node alone; a bare one (`okx`) is every
    bearer that is called so: the venue, its fund, its winners, those with a claim on it.

    Raises
    ------
    StateError
        When nobody of that name bears anything.
    """
    ends = causes.trails.ends
    every = sorted(ends, key=lambda node: (-ends[node], node))
    if to is None:
        return every
    found = [node for node in every if to in _called(node)]
    if not found:
        keys, spoken = map(_key, every), (bare(node.name) for node in every)
        names = tuple(dict.fromkeys([*keys, *spoken]))
        raise StateError(
            f"nobody called {to!r} bears a loss here",
            hint=near(to, names) if names else "nobody bears any",
        )
    return found


def _key(node: Node) -> str:
    """A bearer by its kind and name; parties are of a kind already."""
    return node.name if node.kind == "party" else f"{node.kind}:{node.name}"


def _called(node: Node) -> set[str]:
    """By what a bearer may be asked for: kind and name, the bare name, and as it is spoken of."""
    kind, _, rest = node.name.partition(":")
    tied = kind in ("asset", "external", "owner", "pool", "venue")
    return {
        node.name, f"{node.kind}:{node.name}", rest if tied else node.name, bare(node.name),
        bearer(node.kind, node.name),
    }  # fmt: skip


def tables_of(
    causes: Causes, ends: Sequence[Node], top: int, division: Divided
) -> dict[str, pl.DataFrame]:
    """Every table of a trace."""
    chains = {end: causes.trails.chains(end, top) for end in ends}
    players = [each.name for each in division.origins]
    return {
        "channels": divided("channel", causes.case.channels.on, division.by_channel),
        "origins": divided("origin", players, division.by_origin),
        "layers": _layers(division.by_channel),
        "began": began(causes),
        "bearers": _bearers(causes, chains),
        "chains": _chains(causes, chains),
        "steps": _steps(causes, chains),
        "rounds": _rounds(causes),
        "passes": causes.case.found.by_pass(),
        **graph_of(causes, ends),
    }


def divided(what: str, names: Sequence[str], found: Shares | None) -> pl.DataFrame:
    """One row a player: what it has a part in, alone, left out, and on average over orders."""
    kinds = {what: pl.String} | dict.fromkeys(
        ("shapley_usd", "error_usd", "share", "alone_usd", "off_usd"), pl.Float64
    ) | {"idle": pl.Boolean}  # fmt: skip
    if found is None:
        return pl.DataFrame(schema=kinds)
    whole = found.every - found.none
    share = found.shapley / whole if whole != 0.0 else np.full(len(names), np.nan)
    columns: dict[str, Any] = {
        what: list(names), "shapley_usd": found.shapley, "error_usd": found.error, "share": share,
        "alone_usd": found.alone, "off_usd": found.last, "idle": found.null,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=kinds).with_columns(pl.col("share").fill_nan(None))


def _layers(found: Shares | None) -> pl.DataFrame:
    """What was lost before anything travelled, and after."""
    rows = []
    if found is not None:
        rows = [("with all channels off", found.none), ("what channels add",
                found.every - found.none), ("in all", found.every)]  # fmt: skip
    return pl.DataFrame(rows, schema={"loss": pl.String, "usd": pl.Float64}, orient="row")


def began(causes: Causes) -> pl.DataFrame:
    """Where the realised loss began: accounts, owners, venues and reserves, and who failed.

    Kinds tell the same losses again and are not to be added to each other.
    """
    view, done = causes.views[-1], causes.case.found.settlement
    plan = view.found.cascade.plan
    book, universe = plan.snapshot.book, plan.snapshot.universe
    here = np.flatnonzero(view.lacks)
    rows, lost = view.rows[here], view.rows["lost"][here]
    account = rows["account"]
    owners = book.owners[book.owner[account]].tolist()
    found = {
        "account": [f"account:{key}" for key in book.account[account].tolist()],
        "instrument": [universe.instruments[k] for k in view.of[here].tolist()],
        "owner": [f"owner:{o}" if o != UNKNOWN_OWNER else "unknown owners" for o in owners],
        "party": [],
        "venue": [universe.venues[v] for v in book.venue[account].tolist()],
    }
    whole = float(lost.sum() + done.gone.sum())
    told: list[tuple[str, str, float, float]] = []
    for kind, names in found.items():
        usd = dict[str, float]()
        for name, value in zip(names, lost.tolist(), strict=False):
            usd[name] = usd.get(name, 0.0) + value
        if kind == "party":
            gone = np.flatnonzero(done.gone > 0.0).tolist()
            usd = {done.sheet.names[p]: float(done.gone[p]) for p in gone}
        largest = sorted(usd.items(), key=lambda row: (-row[1], row[0]))[:_BEGAN]
        told += [(kind, name, value, value / whole) for name, value in largest]
    schema = {"kind": pl.String, "name": pl.String, "usd": pl.Float64, "share": pl.Float64}
    return pl.DataFrame(told, schema=schema, orient="row")


def _bearers(causes: Causes, chains: Mapping[Node, Sequence[Chain]]) -> pl.DataFrame:
    """One row a bearer: what it lost, how much of that the chains shown lead to, and what none."""
    rows = []
    for end, some in chains.items():
        usd = causes.trails.ends[end]
        untold = causes.trails.roots(end).get(UNTOLD, 0.0) / usd
        rows.append((end.kind, end.name, usd, sum(each.share for each in some), untold))
    names = {"kind": pl.String, "bearer": pl.String, "usd": pl.Float64, "shown": pl.Float64,
             "untold": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


def _chains(causes: Causes, chains: Mapping[Node, Sequence[Chain]]) -> pl.DataFrame:
    """One row a chain, of the largest bearer first."""
    rows = [
        (end.kind, end.name, rank, each.share, each.share * causes.trails.ends[end],
         len(steps(causes, each)), sentence(causes, each))
        for end, some in chains.items() for rank, each in enumerate(some, 1)
    ]  # fmt: skip
    names = {"kind": pl.String, "bearer": pl.String, "rank": pl.Int64, "share": pl.Float64,
             "usd": pl.Float64, "steps": pl.Int64, "says": pl.String}  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


def _steps(causes: Causes, chains: Mapping[Node, Sequence[Chain]]) -> pl.DataFrame:
    """One row a step of every chain shown."""
    rows = []
    for end, some in chains.items():
        for rank, each in enumerate(some, 1):
            usd = each.share * causes.trails.ends[end]
            for step, (node, says) in enumerate(steps(causes, each)):
                rows.append((end.kind, end.name, rank, step, *_told(node), usd, says))
    names = {"of": pl.String, "bearer": pl.String, "rank": pl.Int64, "step": pl.Int64, **_NODE,
             "usd": pl.Float64, "says": pl.String}  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


_NODE = {"kind": pl.String, "name": pl.String, "pass": pl.Int64, "round": pl.Int64}


def _told(node: Node) -> tuple[str, str, int | None, int | None]:
    passed, when = (None if n < 0 else n for n in (node.passed, node.round))
    return node.kind, node.name, passed, when


def key(node: Node) -> str:
    """A node in one word, as the graph names it."""
    return f"{node.kind}|{node.name}|{node.passed}|{node.round}"


def graph_of(causes: Causes, ends: Sequence[Node]) -> dict[str, pl.DataFrame]:
    """Nodes and edges behind these bearers, with the USD of their losses through each."""
    trails = causes.trails
    through = trails.through_from({end: trails.ends[end] for end in ends})
    here = [node for node in trails.nodes if through[node] > 0.0]
    nodes = [(key(n), *_told(n), through[n], n in ends, phrase(causes, n)) for n in here]
    edges = [
        (key(each.source), key(node), each.channel, each.weight, each.weight * through[node])
        for node in here for each in trails.behind.get(node, ())
    ]  # fmt: skip
    of_nodes = {"node": pl.String, **_NODE, "usd": pl.Float64, "bears": pl.Boolean,
                "says": pl.String}  # fmt: skip
    of_edges = {"source": pl.String, "target": pl.String, "channel": pl.String,
                "share": pl.Float64, "usd": pl.Float64}  # fmt: skip
    return {
        "nodes": pl.DataFrame(nodes, schema=of_nodes, orient="row"),
        "edges": pl.DataFrame(edges, schema=of_edges, orient="row"),
    }


def _rounds(causes: Causes) -> pl.DataFrame:
    """By round of the last pass: accounts closed, and what was left unpaid.

    What is left in the first round no sale of anybody's brought about.
    """
    view = causes.views[-1]
    closed = np.flatnonzero(view.rows["reason"] == notes.LIQUIDATED)
    when = view.rows["round"][closed]
    rows = []
    for number in np.unique(when).tolist():
        here = closed[when == number]
        usd = float(np.abs(view.rows["value"][here]).sum())
        unpaid = float(view.rows["lost"][here][view.lacks[here]].sum())
        rows.append((number, len(np.unique(view.rows["account"][here])), usd, unpaid))
    names = {"round": pl.Int64, "accounts": pl.Int64, "closed_usd": pl.Float64,
             "unpaid_usd": pl.Float64}  # fmt: skip
    whole = pl.col("unpaid_usd").sum()
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        share=pl.when(whole > 0.0).then(pl.col("unpaid_usd") / whole)
    )
