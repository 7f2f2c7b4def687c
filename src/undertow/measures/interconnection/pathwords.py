"""Nodes of a graph of causes as a reader sees them: one phrase each, and chains with arrows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from undertow.measures.interconnection.causes import Causes
from undertow.measures.interconnection.trails import Chain, Node
from undertow.measures.words import many, percent
from undertow.stress.contagion.stakes import DEBTOR, POOL, TOKEN

_SIZES = ((1e9, "bn"), (1e6, "M"), (1e3, "k"))
_WHOLE = 1.0 - 1e-12
_NOTHING = 1e-6  # USD


def money(usd: float) -> str:
    """USD in three digits: 1.45 M, 300 k, 60."""
    for size, unit in _SIZES:
        if abs(usd) >= 0.9995 * size:
            return f"{_digits(usd / size)} {unit}"
    return _digits(usd)


def _digits(value: float) -> str:
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def phrase(causes: Causes, node: Node) -> str:
    """What happened, in a few words."""
    if node not in causes.said:
        causes.said[node] = _said(causes, node)
    return causes.said[node]


def _said(causes: Causes, node: Node) -> str:
    if node.kind in ("price", "short", "sold", "bought"):
        return _in_markets(causes, node)
    if node.kind in ("party", "backing"):
        return _of_party(causes, node)
    if node.kind in ("receipt", "peg", "withdrawn", "rate", "frozen"):
        return _moved(causes, node)
    lost = f"{money(causes.trails.ends[node])} USD" if node in causes.trails.ends else ""
    rest = {
        "shock": node.name,
        "failure": f"{bare(node.name)} fails",
        "untold": "no cause was found",
        "unnamed": f"{lost} borne by {bearer(node.kind, node.name)}",
        "winners": f"{lost} taken from {bearer(node.kind, node.name)}",
        "fund": f"{lost} paid by {bearer(node.kind, node.name)}",
        "nobody": f"{lost} at {node.name} covered by nobody",
    }
    return rest[node.kind]


def bare(name: str) -> str:
    """A party as it is spoken of: vUSDC, pool aave-v3:USDC, owner 1299, okx."""
    kind, _, rest = name.partition(":")
    if kind in ("asset", "venue", "external"):
        return rest
    return f"{kind} {rest}" if kind in ("pool", "owner") else name


def bearer(kind: str, name: str) -> str:
    """Who bears a loss, as it is spoken of: owner 1299, others with a claim on USDC."""
    said = {
        "unnamed": f"others with a claim on {bare(name)}", "winners": f"winners at {name}",
        "fund": f"the fund of {name}", "nobody": f"nobody, at {name}",
        "open": "accounts under water that nobody closed",
        "spared": "less debts that fell away with the coins behind them",
    }  # fmt: skip
    return said.get(kind, bare(name))


def sentence(causes: Causes, chain: Chain) -> str:
    """A chain with arrows."""
    return " → ".join(words for _, words in steps(causes, chain))


def steps(causes: Causes, chain: Chain) -> list[tuple[Node, str]]:
    """The nodes of a chain that tell something new, and what became of each on the way.

    What stands at the end says what it bears; what comes before, what it did to the next.
    """
    nodes = shown(causes, chain.nodes)
    *before, last = nodes
    said = [(node, _handed_on(causes, node)) for node in before]
    return [*said, (last, phrase(causes, last))]


def _handed_on(causes: Causes, node: Node) -> str:
    """What a node did to the next: who bears a part himself is told by what he leaves unpaid."""
    if node.kind != "party" or node not in causes.trails.ends:
        return phrase(causes, node)
    return _of_debtor(causes, node)


def shown(causes: Causes, nodes: Sequence[Node]) -> list[Node]:
    """The nodes of a chain that tell something new."""
    found: list[Node] = []
    for node in nodes:
        before = found[-1] if found else None
        same = before is not None and before.kind == "shock" and node.kind == "price"
        if same and before is not None and before.name.startswith(f"{node.name} "):
            moved = math.expm1(causes.views[node.passed].move(_asset(causes, node), node.round))
            if before.name == f"{node.name} {moved:+.0%}":
                continue
        found.append(node)
    return found


def _asset(causes: Causes, node: Node) -> int:
    return causes.case.web.snapshot.universe.code("asset", node.name)


def _in_markets(causes: Causes, node: Node) -> str:
    """Prices, and what accounts did."""
    view = causes.views[node.passed]
    if node.kind == "price":
        moved = math.expm1(view.move(_asset(causes, node), node.round))
        when = "at the end" if node.round < 0 else f"by round {node.round}"
        return f"{node.name} {moved:+.1%} {when}"
    at, _, what = node.name.partition("|")
    universe = causes.case.web.snapshot.universe
    venue = universe.code("venue", at)
    accounts = causes.accounts_of(node)
    who = f"{many(len(accounts), 'account')} of {at}"
    here = (view.venue == venue) & (view.rows["round"] == node.round)
    here &= np.isin(view.rows["account"], accounts)
    if node.kind == "short":
        if what and len(view.short(view.of == universe.code("instrument", what))):
            here &= view.of == universe.code("instrument", what)
        closed = view.closed_usd(venue, node.round, accounts)
        lacks = money(float(view.rows["lost"][here & view.lacks].sum()))
        of = f" of {what.partition(':')[2]}" if what else ""
        did = f"closed in round {node.round} ({money(closed)} USD)"
        if closed <= _NOTHING:
            did = f"with nothing left to close in round {node.round}"
        return f"{who} {did}, leaving {lacks} USD{of} unpaid"
    bought = node.kind == "bought"
    _, usd = view.traded(venue, node.round, universe.code("asset", what), bought=bought)
    return f"{who} closed in round {node.round}: {node.kind} {money(usd)} USD of {what}"


def _of_party(causes: Causes, node: Node) -> str:
    """What a party lacks, pays or bears."""
    done = causes.views[node.passed].found.settlement
    party = done.sheet.party(node.name)
    name, share = bare(node.name), float(done.share[party])
    if node.kind == "backing":
        return f"{name} lacks backing"
    if node in causes.trails.ends:
        pays = f", who pays {percent(share)} of what it owes" if share < _WHOLE else ""
        return f"{money(causes.trails.ends[node])} USD borne by {name}{pays}"
    sort = done.sheet.sort[party]
    if sort == POOL:
        return f"{name} lacks {money(float(done.pool_loss[party]))} USD"
    if sort == TOKEN:
        return f"{name} cut to {share:.3g}" if share < _WHOLE else f"{name} holds less"
    assert sort == DEBTOR
    return _of_debtor(causes, node)


def _of_debtor(causes: Causes, node: Node) -> str:
    """What a debtor does to those whom it owes, or else what it loses."""
    done = causes.views[node.passed].found.settlement
    party = done.sheet.party(node.name)
    name, share = bare(node.name), float(done.share[party])
    if share < _WHOLE:
        return f"{name} pays {percent(share)} of what it owes"
    loss = float(done.before[party] - done.after[party])
    unpaid = float(done.lost[done.sheet.debtor == party].sum())
    if loss <= _NOTHING < unpaid:  # what it kept for others is gone, and no loss of its own
        return f"{name} leaves {money(unpaid)} USD unpaid"
    return f"{name} loses {money(loss)} USD" if loss > _NOTHING else f"{name} is in doubt"


def _moved(causes: Causes, node: Node) -> str:
    """What a channel moved before a pass."""
    found = causes.views[node.passed].found
    universe = found.start.universe
    kind = "asset" if node.kind in ("receipt", "peg") else "instrument"
    value = float(getattr(found.state, node.kind)[universe.code(kind, node.name)])
    said = {
        "receipt": f"{node.name} marked at {value:.3g} of its claim",
        "peg": f"{node.name} trades at {math.exp(value):.3g} of its par",
        "withdrawn": f"{percent(value)} of {node.name} wants out",
        "rate": f"debts of {node.name} grow by {percent(value)}",
        "frozen": f"the oracle of {node.name} stands still",
    }
    return f"{said[node.kind]} from pass {node.passed} on"
