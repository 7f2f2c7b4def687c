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
        "interconnection.contagion": _contagion(nodes),
        "interconnection.paths": _paths(nodes),
        "interconnection.nodes": _nodes(nodes),
        "interconnection.links": {"numbers": _numbers()},
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


_WAYS = (("none", ""), ("plain cascade", ""), ("plain and", "claims"), ("all but", "funding"),
         ("all", ""))  # fmt: skip


def _contagion(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    count = len(nodes)
    lost = np.linspace(1e6, 3e6, len(_WAYS))
    channels = pl.DataFrame(
        {"way": [way for way, _ in _WAYS], "channel": [name for _, name in _WAYS],
         "lost_usd": lost, "borne_usd": lost / 2.0}
    )  # fmt: skip
    assumptions = pl.DataFrame(
        {"assumption": ["run", "capital", "hours"], "low": [0.0, 0.0, 1.0],
         "high": [20.0, 0.15, 168.0], "borne_at_low_usd": [8e5, 9e5, 1e6],
         "borne_at_high_usd": [2e6, 1e6, 1e6]}
    )  # fmt: skip
    share = np.linspace(0.4, 1.0, count)
    parties = pl.DataFrame(
        {"party": [f"venue:{node}" for node in nodes], "share": share,
         "least_share": share - 0.2 * (share < 0.9), "bears_usd": 1e6 * (1.1 - share)}
    )  # fmt: skip
    valuation = pl.DataFrame(
        {"party": [f"venue:{node}" for node in nodes], "clearing_usd": 1e6 * (1.1 - share),
         "ahead_usd": 1.5e6 * (1.1 - share), "linear_usd": 2e6 * (1.1 - share),
         "single_hit_usd": 1.8e6 * (1.1 - share)}
    )  # fmt: skip
    return {"channels": channels, "assumptions": assumptions, "parties": parties,
            "valuation": valuation}  # fmt: skip


def _shared(column: str, names: Sequence[str]) -> pl.DataFrame:
    usd = np.linspace(2e6, 0.0, len(names))
    return pl.DataFrame(
        {column: names, "shapley_usd": usd, "error_usd": 0.01 * usd, "share": usd / usd.sum(),
         "alone_usd": 0.8 * usd, "off_usd": 1.1 * usd}
    )  # fmt: skip


def _paths(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    chains = pl.DataFrame(
        {"bearer": nodes, "rank": [1] * len(nodes), "usd": np.linspace(9e5, 1e5, len(nodes))}
    )
    kinds = ("shock", "sold", "price", "short", "party")
    steps = pl.concat(
        pl.DataFrame(
            {"bearer": bearer, "rank": rank, "step": np.arange(5), "kind": kinds,
             "name": ["ETH -20%", "perps|ETH", "ETH", "aave|aave:USDC", f"owner:{bearer}"],
             "says": ["ETH -20%", "sold ETH", "ETH -31%", "USDC unpaid", f"{bearer} bears it"],
             "usd": usd}
        )
        for bearer, rank, usd in chains.iter_rows()
    )  # fmt: skip
    return {"channels": _shared("channel", ("fire_sales", "claims", "funding", "backing")),
            "origins": _shared("origin", ("ETH -20%", "BTC -20%")), "chains": chains,
            "steps": steps}  # fmt: skip


def _nodes(nodes: Sequence[str]) -> dict[str, pl.DataFrame]:
    count = len(nodes)
    rankings = ("failure", "debtrank", "passes")
    ranks = pl.concat(
        pl.DataFrame(
            {"ranking": ranking, "node": [f"venue:{node}" for node in nodes],
             "value": np.roll(np.linspace(9e6, 1e6, count), k),
             "rank": np.roll(np.arange(1, count + 1), k),
             "rank_low": pl.Series([1] + [None] * (count - 1), dtype=pl.Int64),
             "rank_high": pl.Series([2] + [None] * (count - 1), dtype=pl.Int64)}
        )
        for k, ranking in enumerate(rankings)
    )  # fmt: skip
    agreement = pl.DataFrame(
        {"ranking": ["failure", "failure", "debtrank"], "other": ["debtrank", "passes", "passes"],
         "kendall": [0.9, -0.2, None]}
    )  # fmt: skip
    return {"ranks": ranks, "agreement": agreement}


def _numbers() -> pl.DataFrame:
    middle = np.array([1e6, 2e6, 4e8, 1.2])
    return pl.DataFrame(
        {"number": ["shortfall_usd", "debtrank_usd", "worst_node_usd", "radius"],
         "unit": ["USD", "USD", "USD", "1"],
         "even": middle, "few": 1.4 * middle, "least": 0.2 * middle, "low": 0.5 * middle,
         "high": 1.5 * middle, "greatest": 1.8 * middle, "searched": 2.0 * middle,
         "bound": [3e6, None, None, None], "as_told": 0.3 * middle}
    )  # fmt: skip
