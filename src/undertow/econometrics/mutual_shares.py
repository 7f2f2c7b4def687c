"""What is left of claims that stand on each other: shares that fit, greatest or least.

A share is what stands behind it over what it promises, between nothing and all; what stands behind
it are shares of others. Circles that keep nearly all of themselves creep for thousands of rounds,
so that shares which have stopped changing sides are solved for at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import splu

from undertow.econometrics.checks import BoolColumn, FloatColumn
from undertow.econometrics.leontief import solved

_STILL = 1e-14  # shares that change by less stand
_PATIENCE = 4  # rounds before shares on the move are solved for at once
_MOST = 10_000  # rounds
_SIDES = 50  # times that some share may turn out to be nothing, in one solve
_SMALL = 3_000  # shares that are solved for as they are, in no time
_SLACK = 1e-12  # by which rounding may lift a share


@dataclass(frozen=True, eq=False)
class MutualShares:
    """Shares that fit each other."""

    share: FloatColumn
    rounds: int
    settled: bool


def mutual_shares(
    slope: csr_array, base: FloatColumn, start: FloatColumn, *, rising: bool = False
) -> MutualShares:
    """Shares `z` with `z = base + slope @ z`, cut to 0 and `start`; the greatest of them.

    `slope` has nothing below 0, so that shares fall together. With `rising` they are cut to `start`
    and 1, and the least of them.
    """
    if rising:  # what is missing from 1 falls as shares rise
        missing = 1.0 - base - slope @ np.ones(len(base))
        found = mutual_shares(slope, missing, 1.0 - start)
        return MutualShares(1.0 - found.share, found.rounds, found.settled)
    share, wait, due = start.copy(), _PATIENCE, _PATIENCE
    for rounds in range(1, _MOST + 1):
        line = base + slope @ share
        then = np.clip(line, 0.0, share)
        still = bool((share - then).max(initial=0.0) <= _STILL)
        share = then
        if still:
            return MutualShares(share, rounds, True)
        if rounds >= due:
            solved = _solved(slope, base, share, (line > 0.0) & (line < start))
            wait = 2 * wait if solved is share else _PATIENCE  # what cannot be solved must go round
            share, due = solved, rounds + wait
    return MutualShares(share, _MOST, False)


def _solved(
    slope: csr_array, base: FloatColumn, share: FloatColumn, moving: BoolColumn
) -> FloatColumn:
    """Shares with those that move where their lines meet, or at nothing.

    No fitting share is above that: others only fall, and on the way down a line that is cut at
    nothing stays there. Where a circle leaks without end its lines meet above, which tells it.
    """
    at = np.flatnonzero(moving)
    among = slope[at]
    inner = among[:, at].tocsr()
    fixed = base[at] + among @ np.where(moving, 0.0, share)
    found, ok = lines_meet(inner, fixed)
    falls = found <= share[at] + _SLACK
    while ok and not falls.all() and falls.any():  # leave circles that leak to the next rounds
        kept = np.flatnonzero(falls)
        fixed = fixed[kept] + inner[kept][:, np.flatnonzero(~falls)] @ share[at[~falls]]
        at, inner = at[kept], inner[kept][:, kept]
        found, ok = lines_meet(inner, fixed)
        falls = found <= share[at] + _SLACK
    if not (ok and falls.all()):
        return share
    out = share.copy()
    out[at] = np.minimum(found, share[at])
    return out


def lines_meet(slope: csr_array, base: FloatColumn) -> tuple[FloatColumn, bool]:
    """The `z` with `z = max(base + slope @ z, 0)`, and whether one was found."""
    z, above = np.zeros(len(base)), np.ones(len(base), dtype=np.bool_)
    for _ in range(_SIDES):
        at = np.flatnonzero(above)
        found = _linear(slope[at][:, at], base[at]) if len(at) else base[at]
        if found is None:
            return z, False
        z = np.zeros(len(base))
        z[at] = found
        then: BoolColumn = base + slope @ z > 0.0
        if (then == above).all():
            return z, True
        above = then
    return z, False


def _linear(slope: csr_array, base: FloatColumn) -> FloatColumn | None:
    """The `z` with `z = base + slope @ z`; nothing where there is none, or none to be found."""
    found: FloatColumn | None
    if len(base) > _SMALL:
        found = solved(slope, base)
    else:
        try:
            found = splu((eye_array(len(base)) - slope).tocsc()).solve(base)
        except RuntimeError:  # singular: a circle keeps all of itself
            found = None
    if found is None:
        return None
    size = np.abs(base).sum()
    there = np.isfinite(found).all() and np.abs(found).max(initial=0.0) <= 1e9 * size
    return found if there else None
