"""Where the randomness of a world comes from, and how its arguments are refused.

Every part of a world (`owners`, `pairs`, `spot returns`) draws from a stream of its own, named by
the seed and the part. Parts that are added, dropped or grown leave the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatColumn


def stream(seed: int, part: str) -> np.random.Generator:
    """Random numbers of one part of the world of `seed`."""
    require_seed(seed)
    sequence = np.random.SeedSequence(seed, spawn_key=tuple(part.encode()))
    return np.random.Generator(np.random.PCG64(sequence))


def require_seed(seed: int) -> None:
    """Refuse what cannot name a stream of random numbers."""
    if seed < 0:
        raise StateError(
            f"seed was {seed}; it must be 0 or more", hint="any whole number from 0 on is a world"
        )


def require_within(
    name: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    hint: str | None = None,
) -> None:
    """Refuse a number outside its range, naming it, its value and the range.

    Raises
    ------
    StateError
        When it lies outside, or is no number.
    """
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if above and below and not math.isnan(value):
        return
    least = f"{'above' if open_low else 'at least'} {_spelled(low)}"
    most = "" if math.isinf(high) else f"{'below' if open_high else 'at most'} {_spelled(high)}"
    allowed = f"{least} and {most}" if most else least
    raise StateError(f"{name} was {_spelled(value)}; it must be {allowed}", hint=hint)


def _spelled(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def require_step(name: str, step: int, steps: int) -> None:
    """Refuse a date that lies outside a panel of `steps` instants."""
    if not 0 <= step < steps:
        raise StateError(
            f"{name} was {step}; the panel has the steps 0 to {steps - 1}",
            hint="dates are given as indices of steps",
        )


def require_known(what: str, name: str, names: Sequence[str]) -> None:
    """Refuse a name that the world does not have."""
    if name not in names:
        some = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        raise StateError(f"no {what} is called {name!r}", hint=f"there are {some}")


def pareto(rng: np.random.Generator, count: int, index: float, minimum: float) -> FloatColumn:
    """Heavy-tailed sizes: P(size > x) = (x / minimum) ** -index for x >= minimum."""
    sizes: FloatColumn = minimum * (1.0 - rng.random(count)) ** (-1.0 / index)
    return sizes
