"""The network on which a number is largest, looked for step by step; no proof that it is.

Every move takes from two or three links and gives to those across, so that all totals stay. What
is found is a network that there could be, so its number is one that there could be; larger ones
there may be too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from undertow.econometrics.checks import FloatMatrix
from undertow.econometrics.partial_links import Open
from undertow.errors import EstimationError

Networks = tuple[FloatMatrix, ...]
_COLD = 1e-3  # last temperature over the first
_WARM = 0.05  # first temperature, over the spread of the number among starts
_FOURS = 0.7  # share of moves that go round four links; the others go round six
_PICKS = 64  # tries to find a move before a start is given up


class Searched(NamedTuple):
    """The best that was found."""

    value: float
    networks: Networks
    start: float  # the largest number among those that it began from
    tries: int  # networks whose number was asked for


def searched(
    given: Sequence[Open],
    number: Callable[[Networks], float],
    starts: Sequence[Networks],
    *,
    tries: int = 1_000,
    restarts: int = 4,
    seed: int = 0,
) -> Searched:
    """Climb from the best of `starts`, at first also downhill at times, then only upwards.

    Raises
    ------
    EstimationError
        When there is nothing to begin from, or fewer tries than restarts.

    References
    ----------
    Kirkpatrick, Gelatt and Vecchi (1983), "Optimization by simulated annealing", Science 220.
    """
    if not starts or not 1 <= restarts <= tries:
        raise EstimationError(
            f"starts were {len(starts)}, restarts {restarts}, tries {tries}; give a start, and no "
            "more restarts than tries"
        )
    values = [number(each) for each in starts]
    order = np.argsort(values, kind="stable")[::-1]
    top, best = float(values[order[0]]), starts[order[0]]
    begun, spent = top, len(starts)
    spread = max(float(np.ptp(values)), 1e-3 * abs(top), 1e-300)
    chosen = order[: min(restarts, len(order))]
    each = tries // len(chosen)
    for turn, place in enumerate(chosen):
        rng = np.random.default_rng([seed, turn])
        here, value = tuple(x.copy() for x in starts[place]), float(values[place])
        for step in range(each):
            then = _moved(given, here, rng)
            if then is None:
                break
            found, spent = number(then), spent + 1
            heat = _WARM * spread * _COLD ** (step / max(each - 1, 1))
            if found >= value or rng.random() < np.exp((found - value) / heat):
                here, value = then, found
            if found > top:
                top, best = found, then
    return Searched(top, best, begun, spent)


def _moved(given: Sequence[Open], here: Networks, rng: np.random.Generator) -> Networks | None:
    """The networks after one move: all that can be moved, or a part of it."""
    sizes = np.array([int((x > 0.0).sum()) for x in here])
    if not sizes.sum():
        return None
    for _ in range(_PICKS):
        which = int(rng.choice(len(here), p=sizes / sizes.sum()))
        matrix, allowed = here[which], given[which].allowed
        rows, columns = np.nonzero(matrix)
        count = 2 if rng.random() < _FOURS else 3
        at = rng.integers(0, len(rows), count)
        row, column = rows[at], columns[at]
        ahead = np.roll(column, -1)
        if len(set(row)) < count or len(set(column)) < count or not allowed[row, ahead].all():
            continue
        least = float(matrix[row, column].min())
        usd = least if rng.random() < 0.5 else least * rng.random()
        then = matrix.copy()
        then[row, column] = np.maximum(then[row, column] - usd, 0.0)
        then[row, ahead] += usd
        return (*here[:which], then, *here[which + 1 :])
    return None
