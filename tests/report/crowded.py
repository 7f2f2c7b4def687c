"""Tables of the crowding family, made up in the shapes that figures stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

SIDES = ("long", "short")
WAYS = ("fall", "rise")
DISTANCES = np.linspace(0.0, 0.5, 11)


def crowding(nodes: Sequence[str], began: datetime) -> dict[str, dict[str, pl.DataFrame]]:
    """Every table that a figure of crowding stands on, by study."""
    return {
        "crowding.concentration": _concentration(nodes),
        "crowding.sides": {"whole": _leaning(["all"]), "assets": _leaning(nodes),
                           "nodes": _leaning([f"venue {node}" for node in nodes])},
        "crowding.exit": {"assets": _ways_out(nodes)},
        "crowding.vulnerability": _vulnerability(nodes),
        "crowding.demand": _demand(nodes, began),
        "crowding.rebalancing": _rebalancing(nodes),
        "crowding.similarity": _similarity(nodes),
        "crowding.map": _map(nodes),
        "crowding.surface": {"surface": _surface(nodes)},
        "crowding.synchrony": _synchrony(nodes),
        "crowding.fragility": {"curve": _curve()},
        "crowding.saturation": _saturation(nodes),
    }  # fmt: skip


def _rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=list(names), orient="row", infer_schema_length=None)


def _banded(name: str, value: Any, off: float) -> Mapping[str, Any]:
    return {name: value, f"{name}_low": value - off, f"{name}_high": value + off}


def _concentration(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    count = np.array([1, 2, 5, 10, 50, 200])
    wholes = ("debt", "notional", "leveraged")
    curve = pl.concat(
        pl.DataFrame({"whole": whole, "owners": count, "share": count ** (0.1 * (k + 1)) / 5.0})
        for k, whole in enumerate(wholes)
    )
    top = np.array([0.2, 0.2, 0.2])
    tops = {}
    for k in (1, 5, 10):
        tops |= _banded(f"top_{k}", top + 0.03 * k, 0.1)
    share = np.linspace(0.9, 0.3, len(nodes))
    return {
        "concentration": pl.DataFrame({"whole": wholes, **tops}),
        "curve": curve,
        "brackets": pl.DataFrame(
            {"leverage": ["below 2", "2 or more", "without equity"], "accounts": [30, 9, 1],
             "share": [0.3, 0.65, 0.05], "debt_usd": [2e6, 1e6, 0.0],
             "notional_usd": [1e6, 5.5e6, 5e5]}
        ),
        "nodes": pl.DataFrame(
            {"node": nodes, "leveraged_usd": 1e9 * share, "owners": 20, "effective": 5.0,
             "largest": "owner 1", "top_1": share / 3.0, "top_10": share}
        ),
    }  # fmt: skip


def _leaning(names: Sequence[str]) -> pl.DataFrame:
    net = np.linspace(0.9, -0.6, len(names))
    return pl.DataFrame({"name": names, **_banded("net", net, 0.1),
                         **_banded("net_weighed", net / 2.0, 0.2), "by_chance": 0.2})  # fmt: skip


def _ways_out(nodes: Sequence[str]) -> pl.DataFrame:
    rows = [
        (node, side, 1e6, 10.0 / (k + 1), 8.0 / (k + 1), 14.0 / (k + 1), 5.0 + k, 3.0, 0.02)
        if k + 1 < len(nodes)
        else (node, side, 1e6, None, None, None, None, 3.0, None)
        for k, node in enumerate(nodes)
        for side in SIDES
    ]
    names = ("asset", "side", "closes_usd", "days", "days_low", "days_high", "critical_leverage",
             "leverage", "above")  # fmt: skip
    return _rows(names, rows)


def _vulnerability(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    both = [(node, side) for node in nodes for side in SIDES]
    cost = np.linspace(0.2, -0.01, len(both))
    alone = np.linspace(0.1, -0.02, len(nodes))
    return {
        "nodes": pl.DataFrame(
            {"node": [n for n, _ in both], "side": [s for _, s in both], "equity_usd": 1e6,
             "direct": 0.1, "closed": 0.2, **_banded("systemic", cost, 0.02),
             **_banded("indirect", 2.0 * cost, 0.1)}
        ),
        "assets": pl.DataFrame({"asset": nodes, "depth_usd": 1e7, "alone": alone,
                                "alone_direct": alone / 2.0}),
        "factors": pl.DataFrame(
            {"factor": ["size", "leverage", "speed"], "now": [0.1, 2.0, 1.0],
             "low": [0.08, 1.5, 1.0], "high": [0.12, 2.5, 1.0], "before": [0.2, None, 1.0]}
        ),
    }  # fmt: skip


def _demand(nodes: Sequence[str], began: datetime) -> dict[str, pl.DataFrame]:
    places = ["all", *nodes]
    past = [
        (began + timedelta(days=day), node, 3, 0.5 + 0.4 * np.sin(day + k))
        for k, node in enumerate(places)
        for day in range(20)
    ]
    parts = [
        (node, part, 0.01 * k, k / len(places), 0.0, 1.0)
        for k, node in enumerate(places)
        for part in ("funding", "basis")
    ]
    return {
        "past": _rows(("ts", "node", "known", "rank"), past),
        "components": _rows(("node", "component", "value", "rank", "low", "high"), parts),
    }


def _rebalancing(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    moves = np.linspace(-0.5, 0.5, 11)
    rows = [
        (node, move, 100.0 * (1.0 + move), 1e6 * (k + 1) * move, 4e5 * move, 6e5 * move, move)
        for k, node in enumerate(nodes)
        for move in moves
    ]
    names = ("asset", "move", "level", "bought_usd", "funds_usd", "dealers_usd", "e_folds")
    turns = pl.DataFrame({"asset": nodes, "zero_gamma_move": [-0.2] * (len(nodes) - 1) + [None]})
    return {"ladder": _rows(names, rows), "assets": turns}


def _similarity(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    pairs = [
        (a, b, 1e9 / (i + 1), 1e8, 0.9 - 0.01 * (j - i), None if j % 2 else -0.5, 0.4)
        for i, a in enumerate(nodes)
        for j, b in enumerate(nodes)
        if i < j
    ]
    names = ("first", "second", "first_usd", "second_usd", "gross", "net", "collateral")
    many = range(1, len(nodes) + 1)
    size = 1.0 / np.array([2.0 * k for k in many])
    return {
        "venues": _rows(names, pairs),
        "clusters": pl.DataFrame(
            {"cluster": [*many, None], "strategy": [*(f"long {n}" for n in nodes), "the rest"],
             "share": [*size, 0.01], "stability": [0.9] * (len(nodes) - 1) + [0.3, None],
             "there": [True] * (len(nodes) - 1) + [False, None]}
        ),
        "places": _rows(
            ("cluster", "leverage", "owners", "leveraged_usd", "share"),
            [(k, bracket, 7, 1e6 * s, s / 2.0) for k, s in zip(many, size, strict=True)
             for bracket in ("below 2", "2 or more")],
        ),
    }  # fmt: skip


def _map(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    lines = ["market", *nodes]
    known = ("observed", "modelled")
    cumulative = [
        (line, side, word, d, int(100 * d), 1e6 * d, 2e6 * d, 1e8 * d * (k + 1) / (n + 1), 3e7 * d)
        for n, line in enumerate(lines)
        for side in WAYS
        for k, word in enumerate(known)
        for d in DISTANCES
    ]
    ladder = [
        (line, side, word, d, f"venue {node}", 3, 1e4, 1e6 * d, 9e5 * d)
        for line in lines[:2]
        for side in WAYS
        for word in known
        for node in nodes
        for d in DISTANCES[1:]
    ]
    names = ("line", "side", "evidence", "distance", "accounts", "debt_usd", "notional_usd",
             "traded_usd")  # fmt: skip
    dense = [(line, side, 0.2, 0.25) for line in lines for side in WAYS]
    return {
        "cumulative": _rows((*names, "depth_usd"), cumulative),
        "ladder": _rows((*names[:4], "venue", *names[4:]), ladder),
        "dense": _rows(("line", "side", "start", "end"), dense),
    }


def _surface(nodes: Sequence[str]) -> pl.DataFrame:
    rows = [
        (f"market and {node} beyond it", a, b, word, 1e6 * a, 1e6 * b, (a + b) / 2.0)
        for node in nodes
        for a in DISTANCES
        for b in DISTANCES[:5]
        for word in ("observed", "modelled")
    ]
    names = ("surface", "market", "other", "evidence", "debt_usd", "notional_usd", "share")
    return _rows(names, rows)


def _synchrony(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    called = [(k, 1.0 / k, 0.9 / k, min(1.1 / k, 1.0), 1.0 / k**2) for k in (1, 2, 3, 4)]
    owners = [
        (100 + k, WAYS[k % 2], "aave, okx", 3, 1e6 / (k + 1), 0.1, 0.12) for k in range(len(nodes))
    ]
    return {
        "venues_called": _rows(("k", "probability", "low", "high", "by_chance"), called),
        "owners": _rows(("owner", "side", "venues", "accounts", "called_usd", "nearest",
                         "farthest"), owners),
    }  # fmt: skip


def _curve() -> pl.DataFrame:
    shock = np.linspace(0.025, 0.5, 20)
    jumped = np.where(shock > 0.2, 0.5, 0.05)
    final = shock + jumped / 4.0
    return pl.DataFrame(
        {"shock": shock, "liquidated_share": jumped, "low": jumped / 2.0, "high": jumped * 1.5,
         "insolvency_share": jumped / 8.0, "insolvency_low": jumped / 9.0,
         "insolvency_high": jumped / 5.0, "final_fall": final, "fall_low": final - 0.02,
         "fall_high": final + 0.05, "amplification": final / shock,
         "outcome": ["settled"] * 19 + ["round limit"]}
    )  # fmt: skip


def _saturation(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    lines = ["fall", "rise", *(f"{node} fall" for node in nodes)]
    path = [
        (line, s, 1.2 * s, 0.4 + 2.0 * s, 0.1, True)
        for line in lines
        for s in np.linspace(0.0, 0.2, 9)
    ]
    none = (None,) * 5
    places = [
        (line, *((0.22, 0.15, 0.3, 0.3, 0.21) if k < 2 else none), 0.8, 0.4, 0.22 if k < 2 else 0.5)
        for k, line in enumerate(lines)
    ]
    shares = [0.7, 0.2, 0.1]
    carried = [(line, f"carrier {k}", s) for line in lines for k, s in enumerate(shares)]
    return {
        "path": _rows(("direction", "shock", "fall", "rho", "swing", "settled"), path),
        "directions": _rows(("direction", "at", "at_low", "at_high", "jump", "knee", "strongest",
                             "now", "furthest"), places),
        "assets": _rows(("direction", "asset", "share"), carried),
        "venues": _rows(("direction", "venue", "share"), carried),
    }  # fmt: skip
