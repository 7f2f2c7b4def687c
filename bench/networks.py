"""Large graphs of who owes and who stands on whom: payments, the dependency map, its ledger."""

from __future__ import annotations

import numpy as np

from bench.foundation import SEED
from bench.harness import Benchmark, Result, seconds
from undertow.econometrics.clearing import Debts, clearing
from undertow.measures import Study
from undertow.measures.interconnection import Backing, Web, reuse, survey
from undertow.worlds import bench_book

NODES, EDGES = 100_000, 1_000_000
COST = {"keep_assets": 0.9, "keep_received": 0.8}  # of what a node has left once it defaults


def network_clearing() -> Result:
    """Lay out 1 M debts between 100,000 nodes and clear them, with and without default costs."""
    rng = np.random.default_rng(SEED)
    debtor, creditor = rng.integers(0, NODES, (2, EDGES))
    apart = debtor != creditor
    edges = debtor[apart], creditor[apart], rng.pareto(1.5, int(apart.sum())) + 0.1
    outside = rng.exponential(1.0, NODES)
    debts = Debts.of(*edges, NODES, outside)
    assets = np.maximum(debts.owed - debts.due, 0.0) * rng.uniform(0.7, 1.3, NODES)
    lay_out = seconds(lambda: Debts.of(*edges, NODES, outside))
    clean = seconds(lambda: clearing(debts, assets))
    costly = seconds(lambda: clearing(debts, assets, **COST))
    found = clearing(debts, assets)
    paid = debts.owed
    rows = np.repeat(np.arange(NODES), np.diff(debts.start))

    def iterate() -> None:
        nonlocal paid
        paid, still = debts.owed, False
        while not still:
            got = np.bincount(rows, debts.share * paid[debts.debtor], NODES)
            then = np.minimum(debts.owed, assets + got)
            still, paid = bool(np.abs(then - paid).max() <= 1e-10), then

    plain = seconds(iterate, runs=1, warm=0)
    error = float(np.abs(found.paid - paid).max())
    return Result(
        "network_clearing",
        {"nodes": NODES, "edges": len(edges[0])},
        {
            "seconds": lay_out + max(clean, costly),
            "lay_out_seconds": lay_out,
            "without_costs_seconds": clean,
            "with_costs_seconds": costly,
            "defaults": float(found.defaulted.sum()),
            "largest_error": error,
        },
        "<= 2 s, the payments of plain iteration",
        lay_out + max(clean, costly) <= 2.0 and error <= 1e-6,
        {"plain_iteration_seconds": plain},
        {"to_plain_iteration": plain / clean},
    )


def dependency_map() -> Result:
    """Survey a book of 1 M accounts, look through it, and keep the ledger of reuse."""
    snapshot = bench_book(seed=SEED).snapshot()
    found = survey(snapshot)

    def ledger() -> Study:
        return reuse(Web.of(snapshot))

    surveyed = seconds(lambda: survey(snapshot), runs=3, warm=1)
    whole = seconds(ledger, runs=3, warm=1)
    study = ledger()
    kept = Backing.of(found)
    sums = kept.seen.ends.sum(axis=1) + kept.seen.untold + kept.seen.circular
    error = float(np.abs(sums[kept.whole >= 1.0] - 1.0).max(initial=0.0))
    return Result(
        "dependency_map",
        {"accounts": snapshot.book.accounts, "nodes": found.nodes, "edges": len(found)},
        {
            "seconds": whole,
            "survey_seconds": surveyed,
            "multiplier": float(study.readings[0].value or 0.0),
            "largest_error": error,
        },
        "map and reuse ledger in <= 10 s, shares of everything whole to 1e-9",
        whole <= 10.0 and error <= 1e-9,
    )


BENCHMARKS: dict[str, Benchmark] = {
    "network_clearing": network_clearing,
    "dependency_map": dependency_map,
}
