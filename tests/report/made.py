"""Studies made up in the shapes that figures stand on, and assessments of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from report.crowded import crowding
from report.woven import interconnection
from undertow.measures.study import Study
from undertow.state import Reading

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
TS = 1_793_491_200_000_000  # 2026-11-01
HOUR = 3_600_000_000
NODES = ("aave", "morpho", "perps", "bank", "loops")


@dataclass(frozen=True)
class Made:
    """An assessment by hand."""

    title: str = "Systemic leverage"
    ts: int = TS
    as_of: int | None = None
    headlines: tuple[Reading, ...] = ()
    readings: tuple[Reading, ...] = ()
    studies: tuple[Study, ...] = ()
    quality: pl.DataFrame = field(default_factory=pl.DataFrame)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ages_from: int | None = None


def reading(name: str, value: float | None, unit: str, **more: Any) -> Reading:
    more = {"evidence": "modelled", "definition": f"What {name} means.", **more}
    return Reading(name=name, value=value, unit=unit, ts=TS, inputs_hash="9f3c2ab1", **more)


HEADLINES = (
    reading("mean_correlation", 0.6123, "correlation", low=0.55, high=0.68, level=0.9,
            window_us=2160 * HOUR, coverage=0.83),
    reading("at_risk", 182.34e9, "usd", evidence="observed", low=1.2e11, high=2.1e11, level=0.975),
    reading("net", -0.21, "fraction", evidence="sampled", subject="aave", mark_source="mark"),
    reading("under_water", None, "accounts", evidence="observed"),
)  # fmt: skip


def study(name: str, tables: Mapping[str, pl.DataFrame], **more: Any) -> Study:
    parts = {
        "title": f"About {name}",
        "readings": (reading(name.replace(".", "_"), 0.5, "fraction"),),
        "says": (f"The verdict of {name}.", "And more."),
        "how_to_read": "From left to right.",
        "misleads": "When one price drives everything.",
        **more,
    }
    return Study(name=name, tables=tables, **parts)


def tables(nodes: Sequence[str] = NODES, seed: int = 3) -> dict[str, dict[str, pl.DataFrame]]:
    """Every table that a figure stands on, by study."""
    rng = np.random.default_rng(seed)
    count = len(nodes)
    both = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
    when = [BEGAN + timedelta(days=day) for day in range(60)]
    move = rng.normal(size=(60, 1)) + rng.normal(size=(60, count))
    rho = [float(np.corrcoef(move[:, i], move[:, j])[0, 1])
           for i in range(count) for j in range(i + 1, count)]  # fmt: skip
    level = np.linspace(0.2, 0.7, 60)
    share = rng.dirichlet(np.ones(count), size=count)
    net = share.sum(0) - share.sum(1)
    matrix = pl.concat(
        pl.DataFrame(
            {
                "a": [a for a, _ in both],
                "b": [b for _, b in both],
                "layer": layer,
                "correlation": rho,
                "low": [r - 0.1 for r in rho],
                "high": [r + 0.1 for r in rho],
                "p_value": [0.001 if r > 0.4 else 0.3 for r in rho],
                "p_corrected": [0.01 if r > 0.4 else 1.0 for r in rho],
                "spearman": rho,
                "steps": 59,
            }
        )
        for layer in ("raw", "less revaluation", "beyond prices")
    )
    turns = [
        (node, kind, when[day], day)
        for k, node in enumerate(nodes)
        for day, kind in ((5 + k % 4, "trough"), (20 + k % 7, "peak"), (45 + k % 9, "trough"))
    ]
    high = np.linspace(1.5, 6.0, count)
    return {
        "tandem.leverage": {
            "nodes": pl.DataFrame({"node": nodes, "value": high, "low": high - 0.3,
                                   "high": high + 0.4, "q90": 2.0 * high}),
        },
        "tandem.matrix": {
            "pairs": matrix,
            "layers": pl.DataFrame(
                {"layer": ["raw", "beyond prices"], "mean_correlation": [0.6, 0.2],
                 "low": [0.5, None], "high": [0.7, None], "p_value": [0.001, 0.2],
                 "nodes": [count, count], "steps": [59, 59]}
            ),
        },
        "tandem.index": {
            "index": pl.DataFrame({"ts": when, "rolling": [None] * 10 + list(level[10:]),
                                   "ewma": level, "dcc": level, "low": level - 0.1,
                                   "high": level + 0.1}),
        },
        "tandem.commonality": {
            "absorption": pl.DataFrame({"ts": when, "ratio": level, "shift": level - 0.5}),
            "spectrum": pl.DataFrame({"rank": range(1, count + 1),
                                      "eigenvalue": np.linspace(3.0, 0.1, count),
                                      "chance_high": [1.5] * count}),
        },
        "tandem.connectedness": {
            "nodes": pl.DataFrame({"node": nodes, "to": share.sum(0), "from": share.sum(1),
                                   "net": net, "net_low": net - 0.1, "net_high": net + 0.1}),
            "table": pl.DataFrame(
                [(a, b, float(share[i, j])) for i, a in enumerate(nodes)
                 for j, b in enumerate(nodes)],
                schema=["to_node", "from_node", "share"], orient="row"),
            "rolling": pl.DataFrame({"ts": when, "total": level, "null_high": [0.4] * 60}),
        },
        "tandem.cycle": {
            "turns": pl.DataFrame(turns, schema=["node", "kind", "ts", "step"], orient="row"),
            "concordance": pl.DataFrame(
                {"a": [a for a, _ in both], "b": [b for _, b in both],
                 "in_phase": [0.5 + r / 2 for r in rho], "adjusted": [r / 2 for r in rho],
                 "low": [r / 2 - 0.1 for r in rho], "high": [r / 2 + 0.1 for r in rho],
                 "p_value": [0.01 if r > 0.4 else 0.4 for r in rho],
                 "p_corrected": [0.02 if r > 0.4 else 0.6 for r in rho]}
            ),
        },
        "tandem.unwinding": {
            "events": pl.DataFrame({"start": [when[10]], "peak": [when[12]], "end": [when[20]],
                                    "p_value": [0.2], "nodes": [list(nodes[:3])], "count": [3]}),
            "participants": pl.DataFrame({"event": [1] * count, "node": nodes,
                                          "depth": np.linspace(0.1, 0.6, count),
                                          "member": [k % 2 == 0 for k in range(count)]}),
        },
        "tandem.tails": {
            "exceedance": pl.DataFrame(
                [(side, cut, layer, 0.5 - cut / 4, 0.3 - cut / 4, 0.7 - cut / 4, 0.4, 30.0)
                 for layer in ("beyond prices", "raw") for side in ("lower", "upper")
                 for cut in (0.0, 0.5, 1.0)],
                schema=["side", "threshold", "layer", "correlation", "low", "high", "normal",
                        "count"], orient="row"),
        },
        "tandem.leadlag": {
            "nodes": pl.DataFrame(
                [(node, layer, 0.1 - 0.2 * k / count, 2 if k == 0 else 0, 0)
                 for layer in ("beyond prices", "raw") for k, node in enumerate(nodes)],
                schema=["node", "layer", "net", "leads", "follows"], orient="row"),
        },
        "tandem.procyclicality": {
            "slopes": pl.DataFrame({"node": nodes, "slope": np.linspace(0.9, -0.4, count),
                                    "low": np.linspace(0.8, -0.6, count),
                                    "high": np.linspace(1.1, -0.2, count),
                                    "passive": np.linspace(-0.5, -0.9, count),
                                    "p_corrected": [0.001] + [0.4] * (count - 1)}),
        },
        "tandem.attribution": {
            "drivers": pl.DataFrame({"driver": ["market", "funding"], "coefficient": [0.6, 0.05],
                                     "low": [0.5, -0.03], "high": [0.7, 0.13],
                                     "p_value": [0.001, 0.3], "share": [0.4, None]}),
        },
        "tandem.unwind": {
            "losses": pl.DataFrame(
                [(a, b, channel, 0.01 * (i + 1)) for i, a in enumerate(nodes) for b in nodes
                 if a != b for channel in ("prices", "claims")],
                schema=["shocked", "node", "channel", "share"], orient="row"),
        },
        "tandem.systemic": {
            "nodes": pl.DataFrame({"node": nodes, "delta_covar": np.linspace(-0.9, 0.1, count),
                                   "low": np.linspace(-1.2, -0.2, count),
                                   "high": np.linspace(-0.4, 0.4, count),
                                   "mes": np.linspace(-0.07, -0.01, count),
                                   "mes_low": np.linspace(-0.09, -0.02, count),
                                   "mes_high": np.linspace(-0.05, 0.01, count)}),
            "shortfall": pl.DataFrame({"venue": nodes,
                                       "shortfall_usd": [*np.linspace(3e8, -1e8, count - 1), None],
                                       "equity_usd": [1e8] * count,
                                       "liabilities_usd": [5e9] * count}),
        },
        "tandem.consequence": {
            "scores": pl.DataFrame({"model": ["index", "chance"], "score": [0.7, 0.5],
                                    "low": [0.6, None], "high": [0.8, None], "hits": [14, 6],
                                    "expected": [11.5, 6.0]}),
        },
        **crowding(nodes, BEGAN),
        **interconnection(nodes, BEGAN),
    }  # fmt: skip


def studies(nodes: Sequence[str] = NODES) -> tuple[Study, ...]:
    return tuple(study(name, held) for name, held in tables(nodes).items())


def whole(nodes: Sequence[str] = NODES) -> Made:
    """An assessment that has everything."""
    made = studies(nodes)
    return Made(
        as_of=TS + HOUR,
        headlines=HEADLINES,
        readings=(*HEADLINES, *(r for s in made for r in s.readings)),
        studies=(*made, study("crowding.holders", {}, readings=(), says=())),
        quality=pl.DataFrame(
            {"table": ["positions", "funding"], "rows": [1_204_331, 0],
             "newest": [BEGAN, None], "stale": [False, True], "rejects": [12, 0]}
        ),
        provenance={"lake": "demo/lake", "seed": 20261101, "code": "0.4.0",
                    "tables": {"positions": 14, "prices": 88}, "options": {"level": 0.9}},
        notes=("illustration: an invented world",),
    )  # fmt: skip
