"""The dependency map as a study: what hangs on whom, and what leads through each keeper."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.econometrics.concentration import concentration
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.interconnection.identities import link_levels
from undertow.measures.interconnection.mapping import KIND_NAMES, NODE_KINDS, ORIGINS
from undertow.measures.interconnection.surroundings import KEEPERS, rows_of
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, Reading
from undertow.state.book import UNKNOWN_OWNER

_NAME = "interconnection.map"
_GAPS = ["nothing", "untold", "no way out"]
_NAMED = {"issuer": "issued by", "custodian": "kept by", "chain": "lives on", "oracle": "priced by"}
_READ = (
    "The map joins positions, claims, assets, venues and oracles: an edge points from who depends "
    "to what it depends on. held_usd is what accounts hold at venues, at par, and every row says "
    "how much of that hangs on a node. For keepers (passes) value is followed: the share of it "
    "that leads through the keeper on its way to what lies at the bottom, loans followed to what "
    "their borrowers posted. For issuers, chains and oracles (names) it is what stands in tokens "
    "or places that name them, or in tokens that stand on such tokens. Shares of different nodes "
    "may add up to more than 1, since one dollar can hang on many. rings has keepers and venues "
    "that keep with each other, and what of the claims on each stands on itself in this way."
)
_MISLEADS = (
    "It shows what tables tell. A keeper that nobody named is not there, and untold is how much of "
    "what accounts hold leads to where no table goes on. Two names of one party are two nodes. "
    "Shares say what stands in the way, not what would be lost: what a keeper that fails still "
    "pays, nobody knows before. Owners are joined only where they are known: owners gives the "
    "number that stand at several venues, with every account its own owner and as they were told."
)


def dependency_map(book: Snapshot | Crowd | Web | Any, *, identities: Any = None) -> Study:
    """Who stands on whom, and how much of what accounts hold leads through each keeper.

    With a table of `identities` it also says how many owners there are by how sure a link must be.

    Raises
    ------
    StateError
        When it is no book.
    """
    web = Web.of(book)
    tables = {
        "keepers": _passes(web), "names": _named(web), "ends": _ends(web),
        "nodes": _nodes(web), "edges": _edges(web), "owners": _owners(web),
        "rings": _rings(web),
    }  # fmt: skip
    if identities is not None:
        tables["links"] = link_levels(web.snapshot, identities)
    return Study(
        name=_NAME,
        title="Who stands on whom",
        readings=tuple(_readings(web, tables)),
        tables=tables,
        says=tuple(_says(web, tables)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def _held(web: Web) -> FloatColumn:
    """By row of the backing: USD at par that accounts hold there."""
    held = np.zeros(len(web.backing))
    first = len(web.map.keys["asset"])
    by_place = np.asarray(web.backing.accounts.held.sum(axis=0)).ravel()
    held[first : first + len(by_place)] = by_place
    return held


def _passes(web: Web) -> pl.DataFrame:
    """One row a keeper: claims on it, and how much of what accounts hold leads through it."""
    m, backing, held = web.map, web.backing, _held(web)
    nodes = np.unique(backing.node[~backing.is_token])
    nodes = nodes[np.isin(m.kind_of(nodes), [NODE_KINDS.index(kind) for kind in KEEPERS])]
    through = backing.through([np.flatnonzero(backing.node == node) for node in nodes])
    whole, claims = float(held.sum()), _claims_on(web, nodes)
    every = float(np.nansum(m.usd[_of_claims(web)]))
    passes = held @ through
    return pl.DataFrame(
        {
            "node": m.named(nodes),
            "kind": pl.Series(NODE_KINDS).gather(m.kind_of(nodes)),
            "claims_usd": claims,
            "claims_share": claims / every if every > 0.0 else claims * 0.0,
            "passes_usd": passes,
            "passes": passes / whole if whole > 0.0 else passes,
        },
        schema_overrides={"node": pl.String, "kind": pl.String},
    ).sort("passes_usd", "claims_usd", "node", descending=[True, True, False])


def _rings(web: Web) -> pl.DataFrame:
    """One row a keeper or venue that stands on itself: what it owes, and how much goes round."""
    m, backing = web.map, web.backing
    kinds = [NODE_KINDS.index(kind) for kind in KEEPERS]
    nodes = np.union1d(backing.node[~backing.is_token], m.target[m.of_kind("listed")])
    rows = []
    for node in nodes[np.isin(m.kind_of(nodes), kinds)].tolist():
        mine = rows_of(backing, node)
        usd = backing.round_of(mine)
        if usd > 0.0:
            rows.append((m.named(np.array([node]))[0], float(backing.claimed[mine].sum()), usd))
    names = {"node": pl.String, "owes_usd": pl.Float64, "goes_round_usd": pl.Float64}
    frame = pl.DataFrame(rows, schema=names, orient="row")
    return frame.sort("goes_round_usd", "node", descending=[True, False])


def _of_claims(web: Web) -> AnyColumn:
    """Edges that the table of claims said."""
    return np.flatnonzero(web.map.origin == ORIGINS.index("claims"))


def _claims_on(web: Web, nodes: AnyColumn) -> FloatColumn:
    m, here = web.map, _of_claims(web)
    on = np.zeros(m.nodes)
    np.add.at(on, m.target[here], np.nan_to_num(m.usd[here]))
    return on[nodes]


def _named(web: Web) -> pl.DataFrame:
    """One row an issuer, keeper, chain or oracle by name: what hangs on the tokens that name it."""
    m, backing, held = web.map, web.backing, _held(web)
    count, whole = len(backing.base), float(held.sum())
    named = [
        (node, kind, m.source[m.of_kind(edge) & (m.target == node)])
        for kind, edge in _NAMED.items() for node in np.unique(m.target[m.of_kind(edge)])
    ]  # fmt: skip
    first = {"oracle": m.offset["instrument"] - count}
    sets = [mine - first.get(kind, m.offset["asset"]) for _, kind, mine in named]
    tokens = [mine for (_, kind, _), mine in zip(named, sets, strict=True) if kind != "oracle"]
    hangs = iter((held @ backing.through(tokens)).tolist())
    called = m.named(np.array([node for node, _, _ in named], dtype=np.int64))
    rows = [
        (name, kind, float(held[mine].sum()) if kind == "oracle" else next(hangs))
        for name, (_, kind, _), mine in zip(called, named, sets, strict=True)
    ]
    names = {"node": pl.String, "kind": pl.String, "hangs_usd": pl.Float64}
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        hangs=pl.col("hangs_usd") / (whole or 1.0)
    )
    return frame.sort("hangs_usd", "node", descending=[True, False])


def _ends(web: Web) -> pl.DataFrame:
    """What all that accounts hold is made of in the end."""
    seen, held = web.backing.seen, _held(web)
    ends = np.column_stack([seen.ends, seen.untold, seen.circular])
    words = [*web.map.keys["asset"].cast(pl.String), "nothing", "untold", "no way out"]
    usd = held @ ends
    whole = float(held.sum())
    frame = pl.DataFrame({"end": words, "usd": usd, "share": usd / whole if whole else usd * 0.0})
    return frame.filter(pl.col("usd") > 0.0).sort("usd", "end", descending=[True, False])


def _nodes(web: Web) -> pl.DataFrame:
    keys = web.map.keys
    return pl.DataFrame({"kind": list(keys), "nodes": [len(keys[kind]) for kind in keys]})


def _edges(web: Web) -> pl.DataFrame:
    """Edges of every kind and how they are known."""
    m = web.map
    frame = pl.DataFrame(
        {
            "kind": pl.Series(KIND_NAMES).gather(m.kind),
            "evidence": pl.Series(schema.EVIDENCE).gather(m.evidence),
            "usd": pl.Series(m.usd).fill_nan(None),
        }
    )
    return frame.group_by("kind", "evidence").agg(
        pl.len().alias("edges"), pl.col("usd").sum()
    ).sort("usd", "kind", "evidence", descending=[True, False, False])  # fmt: skip


def _owners(web: Web) -> pl.DataFrame:
    """How many owners stand at so many venues, and what they have leveraged.

    With every account its own owner nobody stands at two; as told, those of known owners may.
    """
    book, leveraged = web.snapshot.book, web.crowd.leveraged
    pair = np.unique(np.stack([book.owner, book.venue.astype(np.int64)]), axis=1)
    venues = np.bincount(pair[0], minlength=len(book.owners))
    usd = np.bincount(book.owner, leveraged, len(book.owners))
    known_owner = book.owners != UNKNOWN_OWNER
    rows = []
    for count in range(1, int(venues.max(initial=0)) + 1):
        here = venues >= count
        alone = book.accounts if count == 1 else 0
        both = int(here.sum()), int((here & known_owner).sum())
        rows.append((count, *both, float(usd[here].sum()), alone))
    names = {"venues_or_more": pl.Int64, "owners": pl.Int64, "known_owners": pl.Int64,
             "leveraged_usd": pl.Float64, "if_each_account_alone": pl.Int64}  # fmt: skip
    return pl.DataFrame(rows, schema=names, orient="row")


def _readings(web: Web, tables: dict[str, pl.DataFrame]) -> list[Reading]:
    keepers, ends, owners = tables["keepers"], tables["ends"], tables["owners"]
    apart = keepers.filter(pl.col("kind") != "venue")
    top = apart.row(0, named=True) if apart.height else None
    by_claims = apart.sort("claims_usd", "node", descending=[True, False])
    hub = by_claims.row(0, named=True) if by_claims.height else None
    usd = apart["passes_usd"].to_numpy()
    spread = concentration(usd[usd > 0.0]).effective if (usd > 0.0).any() else None
    gaps = float(ends.filter(pl.col("end").is_in(_GAPS))["share"].sum())
    held = float(ends["usd"].sum())
    both = owners.filter(pl.col("venues_or_more") == 2)
    whole = float(web.crowd.leveraged.sum())
    shared = float(both["leveraged_usd"].sum()) if both.height else 0.0
    found = [
        web.reading("interconnection.through_one_keeper", top["passes"] if top else None, "1",
                    "largest share of what accounts hold that leads through one keeper; none "
                    "without keepers"),
        web.reading("interconnection.hub_claims", hub["claims_share"] if hub else None, "1",
                    "largest share of the value of all claims told that one keeper owes; none "
                    "without keepers"),
        web.reading("interconnection.effective_keepers", known(spread), "1",
                    "how many alike keepers would be as concentrated, by value that leads through; "
                    "none without"),
        web.reading("interconnection.gaps", gaps if held > 0.0 else None, "1",
                    "share of what accounts hold that ends in nothing, in a circle without a way "
                    "out, or where no table goes on; none where nothing is held"),
        web.reading("interconnection.several_venues", shared / whole if whole > 0.0 else None, "1",
                    "share of what is leveraged that belongs to known owners at two venues or "
                    "more; a lower bound, since accounts of unknown owners are never joined; none "
                    "where nothing is leveraged"),
    ]  # fmt: skip
    says = "share of what accounts hold that leads through the keeper"
    return found + [
        web.reading("interconnection.passes", row["passes"], "1", says, row["node"])
        for row in apart.head(5).iter_rows(named=True)
    ]


def _says(web: Web, tables: dict[str, pl.DataFrame]) -> list[str]:
    m, keepers, ends = web.map, tables["keepers"], tables["ends"]
    words = [f"{many(m.nodes, 'node')} and {many(len(m), 'edge')} at one instant."]
    apart = keepers.filter((pl.col("kind") != "venue") & (pl.col("passes_usd") > 0.0))
    if apart.height:
        share, name = percent(apart["passes"][0]), _key(apart["node"][0])
        words.insert(0, f"{share} of what accounts hold leads through {name}, more than through "
                        "any other keeper.")  # fmt: skip
    hub = keepers.filter(pl.col("kind") != "venue")
    hub = hub.sort("claims_usd", "node", descending=[True, False])
    if hub.height and hub["claims_usd"][0] > 0.0:
        share, name = percent(hub["claims_share"][0]), _key(hub["node"][0])
        words.append(f"{share} of the value of all claims is owed by {name}.")
    rings = tables["rings"]
    if rings.height:
        names_of = listed([_key(node) for node in rings["node"]])
        most = told(float(rings["goes_round_usd"][0]))
        words.append(f"{names_of} keep with each other, so that up to {most} USD of what one of "
                     "them owes stands on itself.")  # fmt: skip
    names = tables["names"].filter((pl.col("kind") == "chain") & (pl.col("hangs_usd") > 0.0))
    if names.height:
        share, name = percent(names["hangs"][0]), _key(names["node"][0])
        words.append(f"{share} of what accounts hold hangs on the chain {name}.")
    if ends.height:
        first = ends.row(0, named=True)
        words.append(f"In the end {percent(first['share'])} of it is {first['end']}.")
    lost = ends.filter(pl.col("end").is_in(_GAPS))
    words.append(
        f"{percent(float(lost['share'].sum()))} ends in nothing, in circles, or untold."
        if lost.height else "All of it can be followed to its end."
    )  # fmt: skip
    several = tables["owners"].filter(pl.col("venues_or_more") == 2)
    if several.height:
        count, usd = several["owners"][0], told(several["leveraged_usd"][0])
        stand = many(count, "owner stands", "owners stand")
        words.append(f"{stand} at two venues or more, with {usd} USD leveraged.")
    return words


def _key(node: str) -> str:
    return node.partition(":")[2]
