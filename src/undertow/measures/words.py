"""Numbers as a sentence says them, and as a table holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
from scipy.stats import false_discovery_control

from undertow.state import FloatColumn


def known(value: float | None) -> float | None:
    """The number, or None where it does not exist."""
    return None if value is None or not math.isfinite(value) else float(value)


def told(value: float | None, digits: int = 2) -> str:
    """A number to so many significant digits: 0.42, 1.3, 120, 0.0031."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0.0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return f"{rounded:,.{max(places, 0)}f}" if abs(rounded) >= 1e-4 else f"{rounded:.{digits - 1}e}"


def common_fall(fall: float) -> str:
    """A common move of prices as a sentence has it: a common fall of 20 %, a common rise of 5 %."""
    return f"a common {'rise' if fall < 0.0 else 'fall'} of {percent(abs(fall))}"


def percent(value: float | None) -> str:
    """A fraction as a percentage: 42 %, 0.31 %."""
    return "unknown" if value is None or not math.isfinite(value) else f"{told(100.0 * value)} %"


def chance(p: float | None) -> str:
    """A p-value as a sentence says it."""
    if p is None or not math.isfinite(p):
        return "p unknown"
    return "p below 0.001" if p < 0.001 else f"p = {told(p)}"


def banded(value: float, low: float, high: float) -> str:
    """A number with its band: 0.42 (0.31 to 0.52)."""
    return f"{told(value)} ({told(low)} to {told(high)})"


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in a sentence: a, b and c; a, b, c and 7 more."""
    every = list(names)
    shown = every[:most] if len(every) > most + 1 else every
    rest = len(every) - len(shown)
    parts = [*shown, f"{rest} more"] if rest else shown
    return " and ".join(p for p in (", ".join(parts[:-1]), parts[-1]) if p) if parts else "none"


def many(count: int, one: str, several: str | None = None) -> str:
    """A count and its noun: 1 node, 3 nodes."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


_UNITS = (("day", 86_400e6), ("hour", 3_600e6), ("minute", 60e6), ("second", 1e6))


def span(us: float) -> str:
    """A length of time: 1 hour, 9 days, 36 hours, 5 minutes."""
    for name, size in _UNITS:
        count = round(us / size, 6)
        if count >= 2.0 or count == 1.0:
            shown = f"{count:,.0f}" if count >= 10.0 else told(count).removesuffix(".0")
            return f"{shown} {name if shown == '1' else name + 's'}"
    return f"{told(us / 1e6)} seconds"


def day(ts: int) -> str:
    """An instant as a date and a time: 2025-10-10 21:00."""
    return f"{datetime.fromtimestamp(ts / 1e6, UTC):%Y-%m-%d %H:%M}"


def corrected(p: Sequence[float] | FloatColumn) -> FloatColumn:
    """P-values corrected over all of them (Benjamini and Hochberg 1995); NaN stays NaN."""
    values = np.asarray(p, dtype=np.float64)
    out, seen = np.full_like(values, np.nan), ~np.isnan(values)
    if seen.any():
        out[seen] = false_discovery_control(np.clip(values[seen], 0.0, 1.0))
    return out
