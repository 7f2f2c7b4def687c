"""Funding: suppliers who saw a loss run, what is lent out is locked, and borrowing gets dearer.

Those who supply a reserve that lost the share x want to take out min(1, run · x) of it. What is
lent cannot be withdrawn: the rest of the wish is locked. With less in the reserve more of it is
used, and borrowers pay what the venue's kinked curve asks for that, for `hours`; it is on their
debts in the next pass.
"""

from __future__ import annotations

import numpy as np

from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn
from undertow.state.universe import NONE
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.claims import Settlement
from undertow.stress.contagion.proposals import Origin, Proposal
from undertow.stress.contagion.stakes import over

_HOURS_A_YEAR = 8_760.0


def propose_run(settlement: Settlement, snapshot: Snapshot, assumed: Assumptions) -> Proposal:
    """Who leaves which reserve, and what borrowing from it costs then."""
    sheet, liquidity = settlement.sheet, snapshot.liquidity
    lent = np.flatnonzero((sheet.pool_of != NONE) & (liquidity.supplied > 0.0))
    pool = sheet.pool_of[lent]
    lost, was = np.zeros(len(sheet.pool_of)), settlement.owed.in_pool + settlement.owed.robbed
    lost[lent] = np.minimum(over(settlement.pool_loss, was, 0.0)[pool], 1.0)
    withdrawn = np.minimum(assumed.run * lost, 1.0)
    cost = dearer(snapshot, withdrawn, assumed)
    usd = settlement.pool_loss
    origins: dict[tuple[str, int], tuple[Origin, ...]] = {}
    for k, party in zip(lent, pool, strict=True):
        because = ((sheet.names[party], float(usd[party])),)
        if withdrawn[k] > 0.0:
            origins["withdrawn", int(k)] = because
        if cost[k] > 0.0:
            origins["rate", int(k)] = because
    return Proposal("funding", {"withdrawn": withdrawn, "rate": cost}, origins)


def dearer(snapshot: Snapshot, withdrawn: FloatColumn, assumed: Assumptions) -> FloatColumn:
    """[I] What borrowers pay on top over `hours` where a share of the supply wants out."""
    if not withdrawn.any():
        return np.zeros_like(withdrawn)
    supplied, borrowed = snapshot.liquidity.supplied, snapshot.liquidity.borrowed
    left = np.minimum(withdrawn * supplied, np.maximum(supplied - borrowed, 0.0))
    before, after = (
        borrow_rates(snapshot, _used(borrowed, size), assumed)
        for size in (supplied, supplied - left)
    )
    spike = np.where(left > 0.0, after - before, 0.0)
    found: FloatColumn = np.maximum(spike, 0.0) * assumed.hours / _HOURS_A_YEAR
    return found


def borrow_rates(snapshot: Snapshot, used: FloatColumn, assumed: Assumptions) -> FloatColumn:
    """[I] A year's rate at a utilisation, along each reserve's kinked curve.

    Numbers come from the venue's rules where they say, else from `assumed`; see
    `rules.interest.RateCurve`.
    """
    params = snapshot.rules.params
    optimal, base, slope1, slope2 = (
        params.by_instrument(name, default)
        for name, default in (
            ("optimal_utilisation", assumed.optimal), ("base_rate", assumed.base_rate),
            ("slope1", assumed.slope1), ("slope2", assumed.slope2),
        )
    )  # fmt: skip
    optimal = np.clip(optimal, 1e-9, 1.0)
    excess = np.divide(used - optimal, 1.0 - optimal, out=np.zeros_like(used), where=optimal < 1.0)
    rate: FloatColumn = (
        base + slope1 * np.minimum(used / optimal, 1.0) + slope2 * np.clip(excess, 0.0, 1.0)
    )
    return rate


def _used(borrowed: FloatColumn, size: FloatColumn) -> FloatColumn:
    """Share of a reserve that is lent; all of it where no more is left than that."""
    used = np.divide(borrowed, size, out=np.ones_like(size), where=size > borrowed)
    return np.where(borrowed > 0.0, used, 0.0)
