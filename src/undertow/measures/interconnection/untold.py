"""What the claims of a book leave open: totals that are known while the links are not.

On one side stand parties whose assets lie nobody says where (keepers, venues, issuers: what
matches their debts beyond claims that they are known to hold). On the other stand claims that
nobody is known to hold: suppliers of pools and holders of tokens whom no row names, or whom a row
names only as a crowd that owes nothing itself. Each root asset is a puzzle of its own: what is
owed in coin can only be matched by claims on coin. The public holds what is left.

A link put in place is a row more in the claims; all totals stay as they are. Claims are then
settled again over the same forced sales: prices do not follow links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from undertow.econometrics.debtrank import Spread
from undertow.econometrics.partial_links import Open
from undertow.econometrics.worst_links import Networks
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.margins import NUMBERS
from undertow.state import BoolColumn, Claims, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NONE
from undertow.stress.contagion import Contagion
from undertow.stress.contagion.claims import Settlement, matched_assets, settle_claims
from undertow.stress.contagion.ledger import Valuation
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.stakes import DEBTOR, POOL, TOKEN
from undertow.stress.stressed import Stressed

PUBLIC = "the public"
_DUST = 1.0  # USD: totals of less are left alone
_DEPOSIT, _SHARE = CLAIM_KINDS.index("deposit"), CLAIM_KINDS.index("vault_share")


@dataclass(frozen=True, eq=False)
class Puzzle:
    """What is open in one root asset."""

    root: int
    party: KeyColumn  # by node of `open`: party of the sheet, NONE of the public
    open: Open


@dataclass(frozen=True, eq=False)
class Untold:
    """What a book leaves open, and its contagion numbers once that is filled in."""

    contagion: Contagion
    base: Settlement  # calm: totals are those before any shock
    inside: float  # share of assets of unknown whereabouts that are claims on parties here

    @property
    def sheet(self) -> Sheet:
        """Claims as told."""
        return self.base.sheet

    @cached_property
    def crowd_rows(self) -> BoolColumn:
        """[R] Rows whose creditor is a crowd: outside, and owing nothing itself."""
        sheet = self.sheet
        owes = np.bincount(sheet.debtor, minlength=len(sheet)) > 0
        outside = np.array([name.startswith("external:") for name in sheet.names], dtype=np.bool_)
        found: BoolColumn = (outside & ~owes)[sheet.creditor] & (sheet.sort[sheet.debtor] != DEBTOR)
        return found

    @cached_property
    def held_by_nobody(self) -> FloatColumn:
        """[P] USD of claims on each that nobody is known to hold."""
        sheet, owed = self.sheet, self.base.owed
        open_ = np.where(sheet.sort == DEBTOR, 0.0, owed.unnamed)
        rows = self.crowd_rows
        return open_ + sheet.summed(sheet.debtor[rows], owed.face[rows])

    @cached_property
    def lie_somewhere(self) -> FloatColumn:
        """[P, A] USD by root asset that lie nobody says where."""
        sheet, owed = self.sheet, self.base.owed
        universe = sheet.snapshot.universe
        venues = sheet.venue_party
        root = np.asarray(universe.root)
        faces = np.zeros((len(sheet), len(universe.assets)))
        np.add.at(faces, (sheet.debtor, root[sheet.asset]), owed.face)
        cash = sheet.cash * self.base.losses.price[universe.asset_of]
        np.add.at(faces, (venues[universe.venue_of], root[universe.asset_of]), cash)
        pools = np.flatnonzero(sheet.sort == POOL)
        lends = venues[universe.venue_of[sheet.code[pools]]]
        has = np.where(sheet.sort == DEBTOR, matched_assets(sheet, owed), 0.0)
        has[lends] = 0.0  # what a lending venue has is in its pools, which are parties themselves
        whole = faces.sum(axis=1)
        part = np.divide(has, whole, out=np.zeros_like(has), where=whole > 0.0)
        found: FloatColumn = faces * part[:, None]
        return found

    @cached_property
    def puzzles(self) -> tuple[Puzzle, ...]:
        """One for each root asset in which something may be linked."""
        sheet = self.sheet
        universe = sheet.snapshot.universe
        own = np.full(len(sheet), NONE, dtype=np.int64)
        for sort, of in ((POOL, universe.asset_of), (TOKEN, np.arange(len(universe.assets)))):
            here = np.flatnonzero(sheet.sort == sort)
            own[here] = universe.root[of[sheet.code[here]]]
        listed = self._can_be_listed
        found = []
        for root in np.unique(own[own != NONE]):
            holders = np.flatnonzero(self.lie_somewhere[:, root] > _DUST)
            owing = np.flatnonzero((own == root) & (self.held_by_nobody > _DUST) & listed)
            may = ~self._stands_on[np.ix_(owing, holders)].T
            some = may.any(axis=1)
            if some.any():
                found.append(self._puzzle(int(root), holders[some], owing, may[some]))
        return tuple(found)

    @property
    def open(self) -> tuple[Open, ...]:
        """Totals that are to be matched."""
        return tuple(each.open for each in self.puzzles)

    def _puzzle(self, root: int, holders: KeyColumn, owing: KeyColumn, may: Any) -> Puzzle:
        """Holders first, then who owes, then the public, which may hold anything."""
        has, owes = self.lie_somewhere[holders, root], self.held_by_nobody[owing]
        reach = may @ owes
        has = self.inside * np.minimum(has, reach)
        has = has * min(1.0, float(owes.sum()) / max(float(has.sum()), 1e-300))
        size = len(holders) + len(owing) + 1
        allowed = np.zeros((size, size), dtype=np.bool_)
        owed = slice(len(holders), size - 1)
        allowed[: len(holders), owed] = may
        allowed[-1, owed] = True
        for _ in range(60):  # where few may hold what there is, less of it fits
            rest = max(float(owes.sum() - has.sum()), 0.0)
            rows = np.concatenate([has, np.zeros(len(owing)), [rest]])
            columns = np.concatenate([np.zeros(len(holders)), owes, [0.0]])
            if _fits(has, owes, may):
                break
            has = 0.9 * has
        party = np.concatenate([holders, owing, [NONE]])
        return Puzzle(root, party, Open.of(rows, columns, allowed))

    @cached_property
    def _stands_on(self) -> Any:
        """[P, P] bool: what the first has leads to the second, or is it."""
        sheet = self.sheet
        size = len(sheet)
        found = np.eye(size, dtype=np.bool_)
        found[sheet.creditor, sheet.debtor] = True
        universe = sheet.snapshot.universe
        pools = np.flatnonzero(sheet.sort == POOL)
        coin = sheet.token_party[universe.asset_of[sheet.code[pools]]]
        found[pools[coin != NONE], coin[coin != NONE]] = True
        found[pools, sheet.venue_party[universe.venue_of[sheet.code[pools]]]] = True
        while True:
            then = (found.astype(np.float32) @ found.astype(np.float32)) > 0.0
            if (then == found).all():
                return found
            found = then

    @cached_property
    def _can_be_listed(self) -> BoolColumn:
        """[P] Whether a claim can name it: of pools of one coin at a venue, the last."""
        sheet = self.sheet
        universe = sheet.snapshot.universe
        pools = np.flatnonzero(sheet.sort == POOL)
        last: dict[tuple[int, int], int] = {}
        for party in pools.tolist():
            k = int(sheet.code[party])
            last[int(universe.venue_of[k]), int(universe.asset_of[k])] = party
        found = sheet.sort == TOKEN
        found[list(last.values())] = True
        named: BoolColumn = found & (self._node >= 0)
        return named

    @cached_property
    def _nodes(self) -> tuple[str, ...]:
        """Parties that claims may name; their order is that of the sheet."""
        sheet = self.sheet
        return tuple(name for name in sheet.names if not name.startswith("pool:"))

    @cached_property
    def _node(self) -> KeyColumn:
        """[P] The node of the claims that each party is; of a pool, its venue."""
        sheet, universe = self.sheet, self.sheet.snapshot.universe
        found = np.arange(len(sheet))
        pools = np.flatnonzero(sheet.sort == POOL)
        found[pools] = sheet.venue_party[universe.venue_of[sheet.code[pools]]]
        return found

    def _with(self, claims: Claims, networks: Networks, scale: bool) -> Claims:
        """Claims with crowds taken off and links put in place."""
        sheet, universe = self.sheet, self.sheet.snapshot.universe
        kept = np.ones(len(claims), dtype=np.bool_)
        kept[sheet.row[self.crowd_rows]] = False
        holder, debtor, usd = self._links(networks)
        pool = sheet.sort[debtor] == POOL
        asset = np.where(pool, universe.asset_of[np.where(pool, sheet.code[debtor], 0)],
                         sheet.code[debtor])  # fmt: skip
        qty = usd / sheet.price[asset]
        if scale:  # what a scenario wrote down of a token's claims, it writes down of these
            was = sheet.summed(sheet.debtor, sheet.qty)
            now = sheet.summed(sheet.debtor, claims.qty[sheet.row])
            left = np.divide(now, was, out=np.ones_like(was), where=was > 0.0)
            qty = qty * np.where(pool, 1.0, left[debtor])
        more = {
            "debtor": self._node[debtor], "creditor": self._node[holder], "asset": asset,
            "kind": np.where(pool, _DEPOSIT, _SHARE), "qty": qty,
            "seniority": np.zeros(len(qty)), "evidence": np.full(len(qty), 2),
        }  # fmt: skip
        columns: dict[str, Any] = {
            name: frozen(np.concatenate([old[kept], new.astype(old.dtype)]))
            for name, new in more.items()
            for old in (getattr(claims, name),)
        }
        return replace(claims, nodes=self._nodes, **columns)

    def _links(self, networks: Networks) -> tuple[Any, Any, FloatColumn]:
        """Parties and USD of every link between parties that was put in place."""
        rows: list[Any] = [np.zeros(0, dtype=np.int64)]
        columns, usd = list(rows), [np.zeros(0)]
        for puzzle, links in zip(self.puzzles, networks, strict=True):
            i, j = np.nonzero(links[:-1])  # the public passes nothing on
            rows.append(puzzle.party[i])
            columns.append(puzzle.party[j])
            usd.append(links[i, j])
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(usd)

    def filled(self, networks: Networks) -> Filled:
        """The claims with these links in place, to be settled again."""
        found, laid = self.contagion.settlement.sheet.snapshot, self.contagion.cascade.stressed
        now = replace(laid.snapshot, claims=self._with(laid.snapshot.claims, networks, scale=True))
        sheet = Sheet.of(replace(found, claims=self._with(found.claims, networks, scale=False)))
        return Filled(self.contagion, sheet, replace(laid, snapshot=now))

    def number(self, name: str, networks: Networks) -> float:
        """One contagion number with these links in place."""
        return self.filled(networks).number(name)

    def numbers(self, networks: Networks) -> tuple[dict[str, float], str]:
        """All of them, and the party whose default would cost most."""
        filled = self.filled(networks)
        return {name: filled.number(name) for name in NUMBERS}, filled.net.worst[0]

    def as_told(self) -> dict[str, float]:
        """The numbers with nothing put in place."""
        nothing = tuple(np.zeros(each.open.allowed.shape) for each in self.puzzles)
        return self.numbers(nothing)[0]

    def bounds(self) -> dict[str, float]:
        """No number of a whole book has a proof of how far it can go."""
        return {}

    def totals(self) -> pl.DataFrame:
        """One row a party and side of what is open: what is known in all, and how much is open."""
        sheet, owed = self.sheet, self.base.owed
        rows: list[tuple[str, str, str, float, float]] = []
        assets = sheet.snapshot.universe.assets
        sides = {POOL: "suppliers", TOKEN: "holders"}
        for n in np.flatnonzero(self.held_by_nobody > _DUST):
            side, usd = sides[int(sheet.sort[n])], float(owed.held[n])
            asset = sheet.code[n]
            if sheet.sort[n] == POOL:
                asset = sheet.snapshot.universe.asset_of[asset]
            rows.append((sheet.names[n], side, assets[asset], usd, float(self.held_by_nobody[n])))
        for n, root in zip(*np.nonzero(self.lie_somewhere > _DUST), strict=True):
            usd = float(self.lie_somewhere[n, root])
            rows.append((sheet.names[n], "lies somewhere", assets[root], usd, usd))
        names = {"party": pl.String, "side": pl.String, "asset": pl.String, "total_usd": pl.Float64,
                 "open_usd": pl.Float64}  # fmt: skip
        frame = pl.DataFrame(rows, schema=names, orient="row")
        return frame.sort("open_usd", "party", "side", descending=[True, False, False])

    @property
    def share(self) -> float | None:
        """Share of all claims on pools and tokens that nobody is known to hold."""
        sheet = self.sheet
        whole = float(self.base.owed.held[sheet.sort != DEBTOR].sum())
        return float(self.held_by_nobody.sum()) / whole if whole > 0.0 else None


@dataclass(frozen=True, eq=False)
class Filled:
    """One way in which what is open may be filled in, settled over the same forced sales."""

    contagion: Contagion
    sheet: Sheet
    laid: Stressed

    @cached_property
    def settlement(self) -> Settlement:
        """Who pays what, at the greatest payments that fit."""
        return self._settled(least=False)

    @cached_property
    def net(self) -> ClaimsNet:
        """Claims over buffers."""
        return ClaimsNet.of(self.settlement, self.contagion.assumed)

    def number(self, name: str) -> float:
        """One of `NUMBERS`."""
        rules: dict[str, Callable[[], float]] = {
            "shortfall_usd": lambda: _not_paid(self.settlement),
            "shortfall_least_usd": lambda: _not_paid(self._settled(least=True)),
            "defaults": lambda: float(self.settlement.defaulted.sum()),
            "debtrank_usd": lambda: self.net.on_top(Spread.CONTINUOUS),
            "single_hit_usd": lambda: self.net.on_top(Spread.ONCE),
            "ahead_usd": self._ahead,
            "worst_node_usd": lambda: self.net.worst[1],
            "radius": lambda: self.net.radius,
        }
        return rules[name]()

    def _settled(self, *, least: bool) -> Settlement:
        done = self.contagion
        return settle_claims(
            self.sheet, done.settlement.losses, self.laid, done.channels, done.assumed,
            fallen=done.fallen, least=least,
        )  # fmt: skip

    def _ahead(self) -> float:
        """What claims of debtors lose in expected payments, beyond what they lack on a calm day."""
        table = Valuation(self.settlement, self.contagion.assumed).table()
        kept = ~table["party"].str.contains("^(pool|asset):").to_numpy()
        lost = table["ahead_usd"].to_numpy() - table["ahead_before_usd"].to_numpy()
        return float(lost[kept].sum())


def _not_paid(done: Settlement) -> float:
    sheet = done.sheet
    return float(done.lost[sheet.is_debtor[sheet.debtor]].sum())


def _fits(has: FloatColumn, owes: FloatColumn, may: Any) -> bool:
    """Whether so much can be held of what is owed, by who may; the public takes the rest."""
    whole = float(has.sum())
    if whole <= 0.0:
        return True
    unit = 2**28 / whole
    rows, columns = np.nonzero(may)
    size = len(has) + len(owes) + 2
    room = np.minimum(has[rows], owes[columns]) * unit
    ends = (
        np.concatenate([np.zeros(len(has)), 1 + rows, 1 + len(has) + np.arange(len(owes))]),
        np.concatenate([1 + np.arange(len(has)), 1 + len(has) + columns,
                        np.full(len(owes), size - 1)]),
    )  # fmt: skip
    flow = np.concatenate([has * unit, room, np.minimum(owes * unit, 2.0**28)])
    graph = csr_array((np.ceil(flow).astype(np.int32), ends), shape=(size, size))
    most = maximum_flow(graph, 0, size - 1).flow_value
    return bool(most >= 2**28 * (1.0 - 1e-7))


def kept_numbers(found: Sequence[dict[str, float]]) -> pl.DataFrame:
    """One row a network, one column a number."""
    return pl.DataFrame(list(found), schema=dict.fromkeys(NUMBERS, pl.Float64))
