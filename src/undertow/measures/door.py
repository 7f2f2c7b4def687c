"""What any measure refuses at its door, in the words of who calls it."""

from __future__ import annotations

from typing import Any

import numpy as np

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress.plan import Plan


def require_book(snapshot: Any) -> None:
    """Refuse what is no book at one instant.

    Raises
    ------
    StateError
        When it is something else.
    """
    if not isinstance(snapshot, Snapshot | Plan):
        raise StateError(
            f"snapshot was of type {type(snapshot).__name__}; it must be a Snapshot",
            hint="load_snapshot reads one from a lake, and a world has .snapshot()",
        )


def require_seed(seed: Any) -> None:
    """Refuse a seed that starts no generator.

    Raises
    ------
    StateError
        When it is no whole number from 0 up.
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or seed < 0:
        raise StateError(f"seed was {seed!r}; it must be a whole number from 0 up")
