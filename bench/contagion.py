"""All channels of contagion in one solve on a million accounts, beside the cascade alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench.cascade import MANY_ACCOUNTS, SEED, _draws, _plan
from bench.harness import Benchmark, Result, seconds
from undertow.state import AnyColumn, Claims
from undertow.state.arrays import frozen
from undertow.state.claims import CLAIM_KINDS
from undertow.stress.cascade import Engine
from undertow.stress.contagion import Contagion, Solver
from undertow.stress.options import Options
from undertow.stress.scenario import Scenario
from undertow.stress.shock import PriceBeta
from undertow.stress.stressed import Stressed

DRAWN, FALL = 16, -0.25
PARTIES, CLAIMS = 20_000, 100_000


def tangled(claims: Claims) -> Claims:
    """The claims of a book and many more: deposits at its venues, debts between parties outside."""
    rng = np.random.default_rng(SEED)
    names = [f"external:party {n}" for n in range(PARTIES)]
    venues = [f"venue:{name}" for name in claims.universe.venues if name != "aave-v3"]
    nodes = sorted({*claims.nodes, *names, *venues})
    at = {name: code for code, name in enumerate(nodes)}
    party = np.array([at[name] for name in names])
    venue = np.array([at[name] for name in venues])
    debtor, creditor = rng.integers(0, PARTIES, (2, CLAIMS))
    deposit = rng.random(CLAIMS) < 0.2
    owes = np.where(deposit, rng.choice(venue, CLAIMS), party[debtor])
    apart = deposit | (debtor != creditor)
    old = np.array([at[name] for name in claims.nodes])
    count = int(apart.sum())
    money = claims.universe.code("asset", "USDC")

    def longer(column: AnyColumn, more: Any) -> AnyColumn:
        new = np.broadcast_to(more, count).astype(column.dtype)
        return frozen(np.concatenate([column, new]))

    kinds = np.where(deposit[apart], CLAIM_KINDS.index("deposit"), CLAIM_KINDS.index("loan"))
    return replace(
        claims, nodes=tuple(nodes), debtor=longer(old[claims.debtor], owes[apart]),
        creditor=longer(old[claims.creditor], party[creditor[apart]]),
        asset=longer(claims.asset, money), kind=longer(claims.kind, kinds),
        qty=longer(claims.qty, 100.0 * (rng.pareto(1.5, count) + 0.1)),
        seniority=longer(claims.seniority, 0), evidence=longer(claims.evidence, 0),
    )  # fmt: skip


def multi_layer() -> Result:
    """Every channel on, a typical draw of 12 % and a fall of 25 %, to where nothing moves.

    The baseline is one cascade of the same draw: what a pass costs without any channel around it.
    """
    plan, prepared = _plan(MANY_ACCOUNTS)
    snapshot = replace(plan.snapshot, claims=tangled(plan.snapshot.claims))
    plan = replace(plan, snapshot=snapshot)
    began = time.perf_counter()
    solver = Solver.of(plan)
    moves = _draws(plan).draw(SEED, 0, DRAWN)
    typical = moves[np.argsort(moves.mean(axis=1))[DRAWN // 2]]
    draw = Stressed.calm(plan.snapshot).put("factor", slice(None), typical)
    fall = Scenario(name="fall", shocks=(PriceBeta(move=FALL),))

    def solve(scenario: Scenario | Stressed) -> Contagion:
        return solver.solve(scenario, options=Options(), trace=False)

    found, severe = solve(draw), solve(fall)
    settled = time.perf_counter() - began
    taken, deep = (seconds(lambda s=s: solve(s), runs=3, warm=0) for s in (draw, fall))
    engine = Engine(plan)
    alone = seconds(lambda: engine.run(draw, Options(), trace=False))
    leak = max(found.leak or 0.0, severe.leak or 0.0)
    return Result(
        "multi_layer",
        {
            "accounts": MANY_ACCOUNTS,
            "claims": len(found.settlement.sheet.row),
            "passes": len(found.passes),
            "passes_of_the_fall": len(severe.passes),
        },
        {
            "seconds": taken,
            "seconds_of_the_fall": deep,
            "prepare_seconds": prepared,
            "settle_and_first_solves_seconds": settled,
            "closed": float(len(found.cascade.hit)),
            "closed_in_the_fall": float(len(severe.cascade.hit)),
            "state_moved": float(found.state.change(type(found.state).calm(plan.snapshot))),
            "state_moved_by_the_fall": float(
                severe.state.change(type(severe.state).calm(plan.snapshot))
            ),
            "parties_in_default": float(severe.settlement.defaulted.sum()),
            "leak": leak,
        },
        "<= 5 s each, preparation apart; cash conserved to 1e-9 of the book",
        max(taken, deep) <= 5.0 and leak <= 1e-9 and severe.ending.value == "settled",
        {"one_cascade_seconds": alone},
        {"to_one_cascade": taken / alone},
    )


BENCHMARKS: dict[str, Benchmark] = {"multi_layer": multi_layer}
