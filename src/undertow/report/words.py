"""Numbers, units and instants as a person reads them; the same style as on the terminal."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_INSTANTS = frozenset({"ts", "start", "peak", "end", "newest", "oldest"})
_NAMES = frozenset({"account", "owner"})  # integers that are names
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number(value: float | None) -> str:
    """Four significant digits, with thousands as k, M, B, T; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 1e15:
        return f"{value:.2e}"
    for bound, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= bound:
            return f"{value / (bound if letter != 'k' else 1e3):,.2f} {letter}"
    if size >= 100:
        return f"{value:,.1f}"
    return f"{value:.4g}" if size >= 1e-3 or size == 0 else f"{value:.2e}"


def span(us: int | None) -> str:
    """A span in the unit that leaves it between one and a few hundred."""
    if us is None:
        return "-"
    for length, unit in _SPANS:
        if us >= 2 * length * 1_000_000:
            return f"{us / 1e6 / length:,.0f} {unit}"
    return f"{us / 1e6:.3g} s"


def instant(us: int | datetime | None) -> str:
    """An instant to the second, UTC; midnight is a date."""
    if us is None:
        return "-"
    when = us if isinstance(us, datetime) else _EPOCH + timedelta(microseconds=us)
    when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    if when.time() == datetime.min.time():
        return f"{when:%Y-%m-%d}"
    return f"{when:%Y-%m-%d %H:%M}Z" if not when.second else f"{when:%Y-%m-%d %H:%M:%S}Z"


def unit(name: str) -> str:
    """A unit as a word behind a number: USD for usd, nothing for a pure number."""
    return {"usd": "USD", "number": "", "none": ""}.get(name.lower(), name.replace("_", " "))


def measured(value: float | None, of: str) -> str:
    """A number with its unit, or the word for there being none."""
    return f"{number(value)} {unit(of)}".rstrip() if value is not None else "none"


def band(low: float | None, high: float | None, level: float | None) -> str:
    """How sure: the interval and its level, or that none was given."""
    if low is None or high is None or level is None:
        return "no band"
    return f"{number(low)} to {number(high)} at {level * 100:.4g} %"


def heading(column: str) -> str:
    """A column's name as a heading."""
    return column.removesuffix("_us").replace("_", " ")


def cell(column: str, value: Any) -> str:
    """A value of a column as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, timedelta):
        return span(value // timedelta(microseconds=1))
    if isinstance(value, pl.Series | list | tuple):
        return ", ".join(cell("", each) for each in value)
    if isinstance(value, int):
        return _whole(column, value)
    if isinstance(value, float):
        return number(value)
    return str(value)


def _whole(column: str, value: int) -> str:
    if column in _NAMES:
        return str(value)
    if column in _INSTANTS and value > 10**14:  # microseconds; a row number is never so large
        return instant(value)
    return span(value) if column.endswith("_us") else f"{value:,}"
