"""Tables of the interconnection family, made up in the shapes that figures stand on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

_KINDS = ("custodian", "bridge", "external")


def interconnection(nodes: Sequence[str], began: datetime) -> dict[str, dict[str, pl.DataFrame]]:
    """Every table that a figure of interconnection stands on, by study."""
    return {
        "interconnection.map": _map(nodes),
        "interconnection.reuse": _reuse(nodes, began),
        "interconnection.loops": _loops(nodes),
        "interconnection.calls": _calls(nodes),
    }


def _map(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    share = np.linspace(0.4, 0.05, len(nodes))
    kinds = [_KINDS[k % 3] for k in range(len(nodes))]
    keepers = pl.DataFrame(
        {"node": [f"{kind}:{node}" for kind, node in zip(kinds, nodes, strict=True)],
         "kind": kinds, "claims_usd": 1e8 * share, "claims_share": share / 2.0,
         "passes_usd": 2e8 * share, "passes": share}
    )  # fmt: skip
    ends = pl.DataFrame({"end": ["ETH", "USD", "untold"], "usd": [6e8, 3e8, 1e8],
                         "share": [0.6, 0.3, 0.1]})  # fmt: skip
    return {"keepers": keepers, "ends": ends}


def _reuse(nodes: Sequence[str], began: datetime) -> dict[str, pl.DataFrame]:
    count = len(nodes)
    root = np.linspace(9e8, 1e8, count)
    bases = pl.DataFrame(
        {"asset": nodes, "root_usd": root, "places_usd": root, "loans_usd": 0.4 * root,
         "tokens_usd": 0.7 * root, "keepers_usd": 0.9 * root}
    )  # fmt: skip
    itself = np.linspace(0.75, 0.1, count)
    tokens = pl.DataFrame(
        {"asset": [f"v{node}" for node in nodes], "backed": np.linspace(0.5, 1.0, count),
         "self_backed": itself, "multiplier": 1.0 / (1.0 - itself),
         "self_backed_pooled": itself / 2.0, "multiplier_pooled": 1.0 / (1.0 - itself / 2.0)}
    )  # fmt: skip
    when = [began + timedelta(days=day) for day in range(12)]
    over_time = pl.concat(
        pl.DataFrame({"ts": when, "asset": node, "claims_usd": 3.0 * root[k],
                      "multiplier": np.linspace(1.5 + k, 3.0 + k, 12)})
        for k, node in enumerate(nodes)
    )  # fmt: skip
    return {"bases": bases, "tokens": tokens, "over_time": over_time}


def _loops(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    count = len(nodes)
    headroom = np.linspace(-0.03, 0.05, count)
    ties = pl.DataFrame(
        {"collateral": [f"w{node}" for node in nodes], "debt": nodes,
         "accounts": np.arange(3, 3 + count), "debt_usd": np.linspace(5e6, 1e6, count),
         "leverage": np.linspace(8.0, 2.0, count), "headroom_least": headroom - 0.01,
         "headroom_median": headroom}
    )  # fmt: skip
    rise = np.array([0.0, 0.01, 0.05, 0.2])
    unwinding = pl.DataFrame(
        {"rise": rise, "accounts": [2, 5, 9, 12], "debt_usd": 1e7 * (1.0 + rise),
         "cost_usd": 1e5 * (1.0 + rise), "fall": 0.1 + rise}
    )  # fmt: skip
    return {"ties": ties, "unwinding": unwinding}


def _calls(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    rounds = pl.DataFrame(
        {"after_us": 60_000_000 * np.arange(5), "calls": [40, 30, 12, 4, 1],
         "owners": [35, 28, 11, 4, 1], "need_usd": [9e6, 7e6, 3e6, 1e6, 1e5],
         "unmet_usd": [8e6, 6e6, 2e6, 9e5, 9e4], "synchronised_need_usd": [2e6, 3e6, 1e6, 0.0, 0.0]}
    )  # fmt: skip
    fall = np.linspace(0.05, 0.5, 10)
    ladder = pl.DataFrame(
        {"fall": fall, "calls": (1_000 * fall).astype(int),
         "synchronised_calls": (100 * fall).astype(int), "synchronised_need_usd": 1e7 * fall,
         "synchronised_share": fall / 3.0}
    )  # fmt: skip
    both = [(a, b, 1e5 * (i + 1)) for i, a in enumerate(nodes) for b in nodes if a != b]
    pairs = pl.DataFrame(both, schema=["venue", "other", "need_usd"], orient="row")
    return {"rounds": rounds, "ladder": ladder, "pairs": pairs}
