"""From one instant of everything to its dependency map.

Each table says some edges. Where two say the same thing it stands once: what an owner owes a venue
by the positions is taken off what the claims say of the same debt, and the size of a reserve is the
larger of what the venue publishes and what its accounts hold, never their sum. What a lender has
lent to nobody whom the book shows, and what stands behind nothing, are edges too, to nodes of kind
`unseen`: a gap is part of the map.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.interconnection.mapping import (
    KIND_NAMES,
    NODE_KINDS,
    NOTHING,
    ORIGINS,
    UNTOLD,
    DependencyMap,
)
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.book import CASH, COLLATERAL, DEBT, FUTURE, OPTION, PERP, SUPPLY, UNKNOWN_OWNER
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NONE
from undertow.stress.worth import asset_prices

OBSERVED, _, MODELLED = range(len(schema.EVIDENCE))
_LEG_KINDS = {COLLATERAL: "collateral", SUPPLY: "supply", CASH: "cash", PERP: "perp",
              FUTURE: "future", OPTION: "option"}  # fmt: skip
_KEEPER_OF_VENUE = {"custodian": "custodian", "bridge": "bridge"}
_KEEPER_OF_CLAIM = {"custody": "custodian", "bridge": "bridge"}
_PLACES = ("reserve", "share", "cash")
_DUST = 1e-12


class Places(NamedTuple):
    """What stands in every instrument, in units of its asset."""

    held: FloatColumn  # owed to whoever supplied or posted
    lent: FloatColumn  # of it, to borrowers
    owed_by_accounts: FloatColumn  # of that, by accounts of the book
    evidence: AnyColumn


class Draft:
    """Edges as they are found, in whatever order tables come."""

    def __init__(self, offset: dict[str, int]) -> None:
        self.offset = offset
        self._parts: list[tuple[AnyColumn, ...]] = []

    def at(self, kind: str, index: Any) -> KeyColumn:
        """Numbers of the nodes of a kind."""
        found: KeyColumn = np.asarray(index, dtype=np.int64) + self.offset[kind]
        return found

    def add(
        self, kind: Any, source: Any, target: Any, origin: str, *, qty: Any = np.nan,
        asset: Any = NONE, usd: Any = np.nan, evidence: Any = OBSERVED,
    ) -> None:  # fmt: skip
        """Edges of one kind, or of a kind each."""
        size = len(source)
        kinds = KIND_NAMES.index(kind) if isinstance(kind, str) else kind
        typed = ((source, "i8"), (target, "i8"), (kinds, "i1"), (qty, "f8"), (asset, "i4"),
                 (usd, "f8"), (evidence, "i1"), (ORIGINS.index(origin), "i1"))  # fmt: skip
        columns = (np.broadcast_to(np.asarray(value), size).astype(t) for value, t in typed)
        self._parts.append(tuple(columns))

    def columns(self) -> dict[str, AnyColumn]:
        """All edges, column by column."""
        names = ("source", "target", "kind", "qty", "asset", "usd", "evidence", "origin")
        types = ("i8", "i8", "i1", "f8", "i4", "f8", "i1", "i1")
        return {
            name: frozen(np.concatenate([np.empty(0, kind), *(part[k] for part in self._parts)]))
            for k, (name, kind) in enumerate(zip(names, types, strict=True))
        }


def survey(book: Snapshot | Crowd | Any) -> DependencyMap:
    """The dependency map of a snapshot, or of the book in a crowd or a web.

    Raises
    ------
    StateError
        When it is no book.
    """
    held = getattr(book, "snapshot", None)  # a web is built on this, so it is known by what it has
    snapshot = held if isinstance(held, Snapshot) else Crowd.of(book).snapshot
    universe = snapshot.universe
    price = asset_prices(snapshot)
    keys = _keys(snapshot)
    lengths = np.cumsum([0, *(len(keys[kind]) for kind in NODE_KINDS)]).tolist()
    draft = Draft(dict(zip(NODE_KINDS, lengths, strict=False)))
    places = _places(snapshot)
    _positions(draft, snapshot)
    parties = _parties(draft, snapshot, keys)
    idle, shown = _claims(draft, snapshot, parties, price, places)
    _inside(draft, snapshot, places, idle, shown)
    _names(draft, snapshot, keys, price)
    return DependencyMap(
        ts=snapshot.ts, keys=keys, **draft.columns(), price=frozen(price),
        par=frozen(par_prices(snapshot, price)), size=frozen(places.held),
        instrument_asset=universe.asset_of,
    )  # fmt: skip


def par_prices(snapshot: Snapshot, price: FloatColumn) -> FloatColumn:
    """USD price of each asset if everything tied were worth its rate times what it follows."""
    universe = snapshot.universe
    par = np.where(universe.reference == NONE, price, 0.0)
    for _ in universe.assets:
        below = (universe.reference != NONE) & (par == 0.0)
        implied = np.where(below, par[universe.reference] * universe.reference_rate, par)
        if (implied == par).all():
            break
        par = implied
    return np.where(par > 0.0, par, price)


def _keys(snapshot: Snapshot) -> dict[str, pl.Series]:
    """The nodes of every kind that any table speaks of."""
    universe = snapshot.universe
    kinds = [schema.VENUE_KINDS[k] for k in universe.venue_kind]
    keepers = {word: {v for v, kind in zip(universe.venues, kinds, strict=True) if kind == word}
               for word in _KEEPER_OF_VENUE}  # fmt: skip
    keepers["custodian"] |= set(universe.custodian)
    keepers["external"] = set()
    for node, role in _outsiders(snapshot).items():
        keepers[role].add(node.partition(":")[2])
    found = {
        "owner": _owners(snapshot), "account": pl.Series(snapshot.book.account),
        "instrument": universe.instrument_keys, "venue": _words(universe.venues),
        "asset": _words(universe.assets), "issuer": _words(sorted(set(universe.issuer))),
        "chain": _words(sorted({*universe.chain, *universe.venue_chain} - {"none"})),
        "oracle": _words(_feeds(snapshot)[0]), "unseen": _words([UNTOLD, NOTHING]),
    }  # fmt: skip
    found |= {role: _words(sorted(names)) for role, names in keepers.items()}
    return {kind: found[kind] for kind in NODE_KINDS}


def _words(names: Iterable[str]) -> pl.Series:
    return pl.Series([name for name in names if name], dtype=pl.String)


def _owners(snapshot: Snapshot) -> pl.Series:
    """Owners of the book, then those that only claims speak of.

    Who stands behind an account of no known owner stands alone, and goes by that account.
    """
    book, claims = snapshot.book, snapshot.claims
    keys = pl.Series(book.owners)
    nobody = np.flatnonzero(book.owners == UNKNOWN_OWNER)
    if len(nobody):
        first = np.searchsorted(book.owner, nobody)
        alone = pl.select(pl.format("account {}", pl.Series(book.account[first]))).to_series()
        keys = keys.cast(pl.String).scatter(nobody, alone)
    spoken = pl.Series(
        [node.partition(":")[2] for node in claims.nodes if node.startswith("owner:")],
        dtype=pl.String,
    )
    if not len(spoken):
        return keys
    keys = keys.cast(pl.String)
    return pl.concat([keys, spoken.filter(~spoken.is_in(keys.implode())).sort()])


def _outsiders(snapshot: Snapshot) -> dict[str, str]:
    """Of every party of the claims that is no owner, venue or asset: the sort of keeper it is."""
    claims = snapshot.claims
    found: dict[str, str] = {}
    for row in range(len(claims)):
        kind = CLAIM_KINDS[claims.kind[row]]
        for end, role in ((claims.debtor, _KEEPER_OF_CLAIM.get(kind, "external")),
                          (claims.creditor, "external")):  # fmt: skip
            node = claims.nodes[end[row]]
            if node.startswith("external:") and found.get(node, "external") == "external":
                found[node] = role
    return found


def _feeds(snapshot: Snapshot) -> tuple[list[str], KeyColumn]:
    """Names of the oracles, and by instrument the one that prices it, or NONE."""
    universe, oracles = snapshot.universe, snapshot.oracles
    has = oracles.feed != NONE
    used = np.unique(oracles.feed[has])
    at = np.full(len(has), NONE, dtype=np.int64)
    at[has] = np.searchsorted(used, oracles.feed[has])
    return [universe.instruments[k] for k in used], at


def _places(snapshot: Snapshot) -> Places:
    """What every reserve, share and cash instrument holds and has lent."""
    book, universe, liquidity = snapshot.book, snapshot.universe, snapshot.liquidity
    count = len(universe.instruments)
    owed = book.kind == DEBT
    holds = np.isin(book.kind, (COLLATERAL, SUPPLY, CASH)) & (book.qty > 0.0)
    held = np.bincount(book.inst[holds], book.qty[holds], count)
    borrowed = np.bincount(book.inst[owed], -book.qty[owed], count)
    lent = np.maximum(liquidity.borrowed, borrowed)
    told = liquidity.supplied > 0.0
    place = np.isin(universe.kind, [schema.INSTRUMENT_KINDS.index(kind) for kind in _PLACES])
    whole = np.maximum(np.maximum(liquidity.supplied, held), lent)
    return Places(
        held=np.where(place, whole, 0.0), lent=np.where(place, lent, 0.0),
        owed_by_accounts=np.where(place, borrowed, 0.0),
        evidence=np.where(told, OBSERVED, MODELLED),
    )  # fmt: skip


def _positions(draft: Draft, snapshot: Snapshot) -> None:
    """Owners, accounts and their legs."""
    book, universe, market = snapshot.book, snapshot.universe, snapshot.market
    account = np.arange(book.accounts)
    usd = np.abs(book.qty) * np.where(universe.inverse, 1.0, market.mark)[book.inst]
    gross = np.bincount(book.leg_account, usd, book.accounts)
    draft.add("owns", draft.at("owner", book.owner), draft.at("account", account), "positions",
              usd=gross)  # fmt: skip
    draft.add("at", draft.at("account", account), draft.at("venue", book.venue), "positions",
              usd=gross)  # fmt: skip
    leg, place = draft.at("account", book.leg_account), draft.at("instrument", book.inst)
    asset = universe.asset_of[book.inst]
    for code, name in _LEG_KINDS.items():
        here = np.flatnonzero((book.kind == code) & (book.qty != 0.0))
        draft.add(name, leg[here], place[here], "positions", qty=book.qty[here], asset=asset[here],
                  usd=usd[here], evidence=book.evidence[here])  # fmt: skip
    here = np.flatnonzero((book.kind == DEBT) & (book.qty != 0.0))
    draft.add("loan", place[here], leg[here], "positions", qty=-book.qty[here], asset=asset[here],
              usd=usd[here], evidence=book.evidence[here])  # fmt: skip


def _parties(draft: Draft, snapshot: Snapshot, keys: dict[str, pl.Series]) -> KeyColumn:
    """By party of the claims: its node on the map."""
    universe, roles = snapshot.universe, _outsiders(snapshot)
    found: list[tuple[str, str]] = []
    for node in snapshot.claims.nodes:
        kind, _, key = node.partition(":")
        if kind == "venue":
            word = schema.VENUE_KINDS[universe.venue_kind[universe.code("venue", key)]]
            kind = _KEEPER_OF_VENUE.get(word, "venue")
        elif kind == "external":
            kind = roles[node]
        found.append((kind, key))
    place = np.zeros(len(found), dtype=np.int64)
    for kind in {each for each, _ in found}:
        here = [n for n, (each, _) in enumerate(found) if each == kind]
        asked = pl.DataFrame({"key": [found[n][1] for n in here]}, schema={"key": pl.String})
        known = pl.DataFrame({"key": keys[kind].cast(pl.String)}).with_row_index("at")
        at = asked.join(known, on="key", how="left", maintain_order="left")["at"]
        place[here] = draft.offset[kind] + at.to_numpy().astype(np.int64)
    return place


def _claims(
    draft: Draft, snapshot: Snapshot, party: KeyColumn, price: FloatColumn, places: Places
) -> tuple[FloatColumn, FloatColumn]:
    """Edges of the claims; what keepers keep of every place, and debts that only claims show."""
    claims, universe = snapshot.claims, snapshot.universe
    count = len(universe.instruments)
    place_of = _place_of(snapshot)
    kept, shown = np.zeros(count), np.zeros(count)
    owed = _owed_by_owner(snapshot)
    rows = np.argsort([CLAIM_KINDS[kind] != "loan" for kind in claims.kind], kind="stable")
    for row in rows.tolist():  # loans first: what is lent can be kept by nobody
        kind, asset = CLAIM_KINDS[claims.kind[row]], int(claims.asset[row])
        creditor, debtor = claims.nodes[claims.creditor[row]], claims.nodes[claims.debtor[row]]
        source, target = int(party[claims.creditor[row]]), int(party[claims.debtor[row]])
        qty, evidence = float(claims.qty[row]), int(claims.evidence[row])
        near, far = place_of.get((creditor, asset)), place_of.get((debtor, asset))
        if far is not None and kind == "deposit":
            target = draft.offset["instrument"] + far
        parts = [(source, qty)]
        if near is not None and kind == "loan":
            # The positions say it already; what they lack of it is what the claim adds.
            said = min(owed.get((debtor, near), 0.0), qty)
            owed[debtor, near] = owed.get((debtor, near), 0.0) - said
            qty -= said
            shown[near] += qty
            parts = [(draft.offset["instrument"] + near, qty)]
        elif near is not None and kind in ("custody", "bridge", "deposit", "backing"):
            lent = max(places.lent[near], places.owed_by_accounts[near] + shown[near])
            inside = min(qty, max(float(places.held[near] - lent - kept[near]), 0.0))
            kept[near] += inside
            parts = [(draft.offset["instrument"] + near, inside), (source, qty - inside)]
        for start, part in parts:
            if part > 0.0:
                draft.add(kind, [start], [target], "claims", qty=part, asset=asset,
                          usd=part * price[asset] if price[asset] > 0.0 else np.nan,
                          evidence=evidence)  # fmt: skip
    return kept, shown


def _place_of(snapshot: Snapshot) -> dict[tuple[str, int], int]:
    """The instrument in which a venue has an asset: reserves before shares, shares before cash."""
    universe = snapshot.universe
    found: dict[tuple[str, int], int] = {}
    for word in _PLACES:
        for k in np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index(word)):
            node = f"venue:{universe.venues[universe.venue_of[k]]}"
            found.setdefault((node, int(universe.asset_of[k])), int(k))
    return found


def _owed_by_owner(snapshot: Snapshot) -> dict[tuple[str, int], float]:
    """Units that each owner named in a claim owes in an instrument, by the positions."""
    book, claims = snapshot.book, snapshot.claims
    named = {int(node[6:]) for node in claims.nodes
             if node.startswith("owner:") and node[6:].lstrip("-").isdigit()}  # fmt: skip
    owner = book.owners[book.owner][book.leg_account]
    here = np.flatnonzero((book.kind == DEBT) & np.isin(owner, list(named)))
    found: dict[tuple[str, int], float] = {}
    for leg in here:
        key = (f"owner:{owner[leg]}", int(book.inst[leg]))
        found[key] = found.get(key, 0.0) - float(book.qty[leg])
    return found


def _inside(
    draft: Draft, snapshot: Snapshot, places: Places, kept: FloatColumn, shown: FloatColumn
) -> None:
    """What places hold themselves, and what they lent to nobody whom the book shows."""
    universe, mark = snapshot.universe, snapshot.market.mark
    lent = np.maximum(places.lent, places.owed_by_accounts + shown)
    idle = np.maximum(places.held - lent - kept, 0.0)
    here = np.flatnonzero(idle > _DUST * np.maximum(places.held, 1.0))
    draft.add("holds", draft.at("instrument", here), draft.at("asset", universe.asset_of[here]),
              "reserves", qty=idle[here], asset=universe.asset_of[here],
              usd=idle[here] * mark[here], evidence=places.evidence[here])  # fmt: skip
    unseen = np.maximum(lent - places.owed_by_accounts - shown, 0.0)
    here = np.flatnonzero(unseen > 1e-9 * np.maximum(lent, 1.0))
    draft.add(UNTOLD, draft.at("instrument", here), np.full(len(here), draft.offset["unseen"]),
              "reserves", qty=unseen[here], asset=universe.asset_of[here],
              usd=unseen[here] * mark[here], evidence=MODELLED)  # fmt: skip


def _names(
    draft: Draft, snapshot: Snapshot, keys: dict[str, pl.Series], price: FloatColumn
) -> None:
    """What assets, venues and instruments say of themselves: ties, keepers, chains, oracles."""
    universe = snapshot.universe
    assets, insts = np.arange(len(universe.assets)), np.arange(len(universe.instruments))
    tied = np.flatnonzero(universe.reference != NONE)
    draft.add("follows", draft.at("asset", tied), draft.at("asset", universe.reference[tied]),
              "assets")  # fmt: skip
    for kind, node, words in (("issued by", "issuer", universe.issuer),
                              ("kept by", "custodian", universe.custodian),
                              ("lives on", "chain", universe.chain)):  # fmt: skip
        at = _index(keys[node], words)
        some = np.flatnonzero(at != NONE)
        draft.add(kind, draft.at("asset", assets[some]), draft.at(node, at[some]), "assets")
    at = _index(keys["chain"], universe.venue_chain)
    some = np.flatnonzero(at != NONE)
    draft.add("runs on", draft.at("venue", some), draft.at("chain", at[some]), "venues")
    draft.add("quotes", draft.at("instrument", insts), draft.at("asset", universe.asset_of),
              "instruments", asset=universe.asset_of)  # fmt: skip
    draft.add("listed", draft.at("instrument", insts), draft.at("venue", universe.venue_of),
              "instruments")  # fmt: skip
    feed = _feeds(snapshot)[1]
    some = np.flatnonzero(feed != NONE)
    draft.add("priced by", draft.at("instrument", some), draft.at("oracle", feed[some]), "oracles")


def _index(known: pl.Series, words: tuple[str, ...]) -> KeyColumn:
    place = {key: k for k, key in enumerate(known)}
    return np.array([place.get(word, NONE) for word in words], dtype=np.int64)
