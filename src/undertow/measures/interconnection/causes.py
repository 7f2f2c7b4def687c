"""What is behind every loss of a contagion, back to the shock: nodes by pass and round.

A node is a party, pool or token that was not paid or lost (`party`), accounts that a venue closed
in a round and that left debt behind (`short`), sold (`sold`) or bought, the price of an asset in
a round (`price`), what a channel moved between passes (`receipt`, `peg`, `withdrawn`, `rate`,
`frozen`), those whom no claim names (`unnamed`), winners and funds of venues that paid, or a root:
`shock` and `failure`. Every node divides what is laid on it among its causes in proportion to USD
(of prices: to logs of what moved them).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from undertow.measures.interconnection.attributing import Case
from undertow.measures.interconnection.passview import PassView
from undertow.measures.interconnection.pushes import of_price, price_cause, scaled, short_nodes
from undertow.measures.interconnection.trails import Cause, Node, Trails
from undertow.state import KeyColumn
from undertow.stress.contagion import Contagion
from undertow.stress.contagion.stakes import POOL, TOKEN

PASSES = 6  # that are told apart; later ones stand for each other
_DUST = 1e-6  # USD


@dataclass(frozen=True, eq=False)
class Causes:
    """All passes of a case, read backwards from who lost in the end."""

    case: Case

    @cached_property
    def said(self) -> dict[Node, str]:
        """What was said of nodes already: words take longer than numbers."""
        return {}

    @cached_property
    def views(self) -> tuple[PassView, ...]:
        """Every pass as it was, the last as the outcome."""
        last = self.case.found
        count = min(len(last.passes), PASSES)
        before = [self.case.solve(max_passes=n + 1) for n in range(count - 1)]
        return tuple(PassView(n, each) for n, each in enumerate((*before, last)))

    @cached_property
    def trails(self) -> Trails:
        """The graph of causes, from the ends back to the roots."""
        last = len(self.views) - 1
        ends = self._ends(last)
        waiting, causes = list(ends), dict[Node, list[Cause]]()
        while waiting:
            node = waiting.pop()
            if node in causes or node.kind in ("shock", "failure", "untold"):
                continue
            causes[node] = [each for each in self._behind(node) if each.weight > 0.0]
            waiting += [each.source for each in causes[node]]
        return Trails(causes, ends)

    def _ends(self, last: int) -> dict[Node, float]:
        """Everybody who lost in the end beside borrowers and traders, and how much."""
        borne = who_bears(self.views[last].found)
        return {Node(kind, name, last): usd for (kind, name), usd in borne.items()}

    def _behind(self, node: Node) -> Iterable[Cause]:
        """The causes of one node."""
        view = self.views[node.passed]
        if node.kind == "party":
            return self._of_party(view, view.found.settlement.sheet.party(node.name))
        if node.kind == "unnamed":
            return [Cause(Node("party", node.name, node.passed), 1.0)]
        if node.kind in ("winners", "fund", "nobody"):
            universe = view.found.cascade.plan.snapshot.universe
            return short_nodes(
                view, view.short(view.venue == universe.code("venue", node.name)), None
            )
        if node.kind in ("short", "sold", "bought"):
            return self._of_accounts(view, node)
        if node.kind == "price":
            return of_price(view, node, self._channel)
        if node.kind == "backing":
            return self._of_backing(view, node)
        return self._of_state(node)

    # Claims.

    def _of_party(self, view: PassView, party: int) -> list[Cause]:
        """What a party was not paid, and what it lost of its own."""
        done = view.found.settlement
        sheet = done.sheet
        rows = np.flatnonzero((sheet.creditor == party) & (done.lost > _DUST))
        causes = [
            Cause(Node("party", sheet.names[sheet.debtor[r]], view.number), float(done.lost[r]),
                  _channel_of(done.sheet.sort[sheet.debtor[r]]))
            for r in rows
        ]  # fmt: skip
        name = sheet.names[party]
        if done.gone[party] > _DUST:
            causes.append(Cause(Node("failure", name), float(done.gone[party]), "dependence"))
        if sheet.sort[party] == POOL:
            inst = int(sheet.code[party])
            unpaid = float(done.losses.unpaid[inst])
            if unpaid > _DUST:
                causes += scaled(short_nodes(view, view.short_of(inst), inst), unpaid)
        elif sheet.sort[party] == TOKEN:
            if done.under_loans[party] > _DUST:
                usd = float(done.under_loans[party])
                causes += scaled(self._held(view, party), usd)
        else:
            causes += self._own(view, party)
        if not causes and sheet.sort[party] == TOKEN:
            causes = self._held(view, party)
        return causes

    def _own(self, view: PassView, party: int) -> list[Cause]:
        """What a debtor lost in the cascade: a venue's shortfall, an owner's accounts."""
        done = view.found.settlement
        sheet, causes = done.sheet, list[Cause]()
        at = np.flatnonzero(sheet.venue_party == party)
        if len(at):
            venue = int(at[0])
            lacking = float(done.losses.uncovered[venue])
            if lacking > _DUST and view.found.channels.claims:
                causes += scaled(short_nodes(view, view.short(view.venue == venue), None), lacking)
            pools = np.flatnonzero((sheet.sort == POOL) & (done.cover > _DUST))
            here = sheet.snapshot.universe.venue_of[sheet.code[pools]] == venue
            causes += [
                Cause(Node("party", sheet.names[p], view.number), float(done.cover[p]), "claims")
                for p in pools[here]
            ]
        if done.losses.own[party] > _DUST and done.defaulted[party]:  # of what he passes on
            book = sheet.snapshot.book
            mine = np.flatnonzero(book.owner == sheet.owner_row[party])
            usd = float(done.losses.own[party])
            causes += scaled(self._pressed(view, mine, -1), usd)
        return causes

    def _held(self, view: PassView, party: int) -> list[Cause]:
        """Falls of prices of what a token holds."""
        done = view.found.settlement
        sheet, losses = done.sheet, done.losses
        rows = np.flatnonzero(sheet.creditor == party)
        fallen = np.maximum(sheet.price - losses.price, 0.0)[sheet.asset[rows]]
        usd = (sheet.qty * sheet.unsecured)[rows] * fallen
        return [
            price_cause(view, int(sheet.asset[r]), -1, float(value))
            for r, value in zip(rows, usd, strict=True)
            if value > _DUST
        ]

    def _of_backing(self, view: PassView, node: Node) -> list[Cause]:
        """Why a token lacks backing: what it was not paid, and what it holds that fell."""
        sheet = view.found.settlement.sheet
        party = sheet.party(node.name)
        unpaid = [
            each for each in self._of_party(view, party) if each.source.kind in ("party", "failure")
        ]
        return unpaid + self._held(view, party)

    # Accounts.

    def accounts_of(self, node: Node) -> KeyColumn:
        """The accounts that a node stands for."""
        view = self.views[node.passed]
        universe = view.found.cascade.plan.snapshot.universe
        at, _, what = node.name.partition("|")
        venue = universe.code("venue", at)
        if node.kind in ("sold", "bought"):
            asset, bought = universe.code("asset", what), node.kind == "bought"
            where, _ = view.traded(venue, node.round, asset, bought=bought)
            return view.accounts(venue, node.round, where)
        where = view.lacks
        if what and len(view.short(view.of == universe.code("instrument", what))):
            where = where & (view.of == universe.code("instrument", what))
        return view.accounts(venue, node.round, where)

    def _of_accounts(self, view: PassView, node: Node) -> list[Cause]:
        return self._pressed(view, self.accounts_of(node), node.round)

    def _pressed(self, view: PassView, accounts: KeyColumn, when: int) -> list[Cause]:
        """Prices that took from accounts, and debts that got dearer."""
        by_asset, dearer = view.pressed(accounts, when)
        universe = view.found.cascade.plan.snapshot.universe
        if not by_asset and not dearer:
            return self._robbed(view, accounts)
        found = [price_cause(view, asset, when, usd) for asset, usd in by_asset.items()]
        for inst, usd in dearer.items():
            name = universe.instruments[inst]
            mine = view.found.state.rate[inst] > 0.0
            node = Node("rate", name, view.number) if mine else Node("shock", f"rates of {name}")
            found.append(Cause(node, usd, "funding" if mine else ""))
        return found

    def _robbed(self, view: PassView, accounts: KeyColumn) -> list[Cause]:
        """Coins of accounts that were gone before any price moved: their venue was robbed."""
        before = view.found.settlement.sheet.snapshot
        book, universe = before.book, before.universe
        after = view.found.cascade.plan.snapshot.book
        if len(book.qty) != len(after.qty):
            return []
        legs = np.flatnonzero(np.isin(book.leg_account, accounts))
        gone = np.maximum(book.qty[legs] - after.qty[legs], 0.0) * view.start[book.inst[legs]]
        by_venue = np.bincount(universe.venue_of[book.inst[legs]], gone, len(universe.venues))
        causes = []
        for venue in np.flatnonzero(by_venue > _DUST).tolist():
            name = f"venue:{universe.venues[venue]}"
            root = Node("failure", name) if name in self.case.failed else Node(
                "shock", f"coins at {universe.venues[venue]} are gone")  # fmt: skip
            channel = "dependence" if root.kind == "failure" else ""
            causes.append(Cause(root, float(by_venue[venue]), channel))
        return causes

    # What channels moved between passes.

    @cached_property
    def _moved(self) -> dict[tuple[str, str], list[tuple[int, str, str, float]]]:
        """By component: passes, channels, sources and weights of everything that moved it."""
        rows = self.case.found.because
        whole: dict[tuple[int, str, str], float] = {}
        for each in rows:
            key = each.number, each.component, each.name
            whole[key] = whole.get(key, 0.0) + max(each.usd, 0.0)
        found: dict[tuple[str, str], list[tuple[int, str, str, float]]] = {}
        for each in rows:
            usd = whole[each.number, each.component, each.name]
            part = max(each.usd, 0.0) / usd if usd > 0.0 else 1.0
            step = abs(each.after - each.before) * part
            row = min(each.number, PASSES - 1), each.channel, each.source, step
            found.setdefault((each.component, each.name), []).append(row)
        return found

    def _channel(self, passed: int, component: str, name: str) -> str:
        """The channel that moved a component most by a pass."""
        rows = [row for row in self._moved.get((component, name), []) if row[0] < passed]
        return max(rows, key=lambda row: row[3])[1] if rows else ""

    def _of_state(self, node: Node) -> list[Cause]:
        """Whose losses moved a component, in which pass."""
        causes, names = list[Cause](), set(self.case.found.settlement.sheet.names)
        last = len(self.views) - 1
        for number, channel, source, step in self._moved.get((node.kind, node.name), []):
            if number >= node.passed and node.passed != last:
                continue
            at = min(number, last)
            if source not in names:
                causes.append(Cause(Node("failure", source or node.name), step, channel))
                continue
            kind = "backing" if node.kind == "peg" else "party"
            causes.append(Cause(Node(kind, source, at), step, channel))
        return causes


def who_bears(outcome: Contagion) -> dict[tuple[str, str], float]:
    """USD that everybody lost beside borrowers and traders, by kind and name.

    What accounts that nobody closed lack (`open`) adds to it, and what borrowers need not repay
    since the coins behind it went (`spared`, below 0) takes away: then it is `lost_usd`.
    """
    found: dict[tuple[str, str], float] = {}
    done = outcome.settlement
    for kind, usd in (("party", done.borne), ("unnamed", done.unnamed_loss)):
        for n in np.flatnonzero(usd > _DUST):
            found[kind, done.sheet.names[n]] = float(usd[n])
    by_venue = outcome.cascade.by_venue()
    columns = {"winners": "winners_paid_usd", "fund": "funds_paid_usd"}
    if not outcome.channels.claims:
        columns["nobody"] = "uncovered_usd"
    for kind, column in columns.items():
        for venue, usd in by_venue.select("venue", column).iter_rows():
            if usd > _DUST:
                found[kind, venue] = float(usd)
    return found


def left_standing(outcome: Contagion) -> tuple[str, float]:
    """What living accounts lack beyond what they lacked before, in USD, and what it is called."""
    cascade = outcome.cascade
    usd = cascade.insolvency_usd - float(cascade.bad.sum() + cascade.short.sum())
    return ("open" if usd >= 0.0 else "spared"), usd if abs(usd) > _DUST else 0.0


def _channel_of(sort: int) -> str:
    """By which channel what one party lost reaches another."""
    return "receipts" if sort == POOL else "claims"
