"""Numbers, units, names and instants as a person reads them, on a page and on the terminal.

Nothing here is slow to import: every command draws on it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_INSTANTS = frozenset({"ts", "start", "peak", "end", "newest", "oldest"})
_NAMES = frozenset({"account", "owner"})  # integers that are names
_UNITS = {"usd": "USD", "number": "", "none": "", "1": "", "count": "", "1/year": "a year"}
_LEAST = 1e-16  # of a chance: what is smaller is no more than rounding
NO_BREAK = "\N{NO-BREAK SPACE}"
_TIED = re.compile(r"(?<=\d) (?=(?:%|USD|[kMBT]|min|days|[dhs])(?![\w]))")

# Names of readings that the rule of `title` would spell badly; without their family, unless the
# word means something else in another.
_TITLES = {
    "above_critical": "Above its critical leverage",
    "at_risk_to_depth": "At risk against depth",
    "at_risk_usd": "At risk",
    "called_together_usd": "Called together",
    "calling_together": "Chance of being called together",
    "capital_shortfall_usd": "Capital shortfall",
    "capital_unknown_usd": "Capital asked for where no funds are known",
    "collateral_similarity": "Likeness of collateral",
    "common_factor": "One common factor",
    "connectedness": "Total connectedness",
    "contagion_index": "Index of indirect contagion",
    "copula_degrees": "Degrees of freedom of the t copula",
    "correlation": "Mean correlation",
    "crowding.demand": "Demand for leverage",
    "crowding.overlap": "Overlap of owners",
    "crowding.rebalancing": "To be traded after 1 %",
    "crowding.systemic": "What its sales cost all",
    "crowding.within": "Called within one stretch",
    "dealer_gamma": "Gamma of dealers",
    "demand_component": "Component of demand",
    "direct_loss": "First loss",
    "effective": "Effective holders",
    "endogenous_risk": "Index of endogenous risk",
    "exit_impact": "Impact of the way out",
    "explained": "Explained by what is shared",
    "explained_by_chance": "Explained by chance",
    "explained_raw": "Explained, prices and all",
    "fund_rebalancing": "Rebalancing of leveraged tokens",
    "gini": "Gini coefficient",
    "index": "Tandem index",
    "insolvency_share": "Lost beyond equity",
    "joint_usd": "Called by both falls only",
    "knee": "Knee of the cascade",
    "largest_place": "In the largest place",
    "liquidated_share": "Closed by force",
    "margin_share": "Share by margin",
    "mes": "Marginal expected shortfall",
    "noise": "Noise of the correlations",
    "one_sidedness": "One-sidedness, weighted by leverage",
    "one_sidedness_plain": "One-sidedness",
    "owner_similarity": "Likeness of owners",
    "owners_called_twice": "Owners called twice",
    "past_kink": "Lent out beyond the kink",
    "protocol_similarity": "Likeness of protocols",
    "rebalancing_e_folds": "To be traded after 1 %, in e-folds",
    "rho": "Undertow index now",
    "rho_strongest": "Undertow index at its largest",
    "saturation": "Saturation (δ*)",
    "strategies_by_entropy": "Effective strategies by entropy",
    "top_1": "Share of the largest owner",
    "top_10": "Share of the ten largest owners",
    "top_5": "Share of the five largest owners",
    "unwinding_rate": "Common unwinds",
    "unwinding_share": "Share of nodes unwinding",
    "unwindings": "Common unwinds",
    "venue_similarity": "Likeness of venues",
    "venues_calling": "Venues that call at once",
    "vulnerability": "Aggregate vulnerability",
    "vulnerability_factor": "Factor of vulnerability",
    "zero_gamma": "Move to zero gamma",
}
_SPELLED = {
    "covar": "CoVaR",
    "var": "VaR",
    "es": "ES",
    "cvar": "CVaR",
    "srisk": "SRISK",
    "dcc": "DCC",
    "ewma": "EWMA",
    "adl": "ADL",
    "usd": "USD",
    "oi": "open interest",
    "hhi": "HHI",
    "ltv": "LTV",
}
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
    return _UNITS.get(name.lower(), name.replace("_", " "))


def title(name: str, subject: str = "") -> str:
    """What a reading is called on a page: without its family, in words; and what it is of."""
    whole = name.rpartition(".")[2]
    spelled = [_SPELLED.get(word, word) for word in whole.split("_") if word]
    said = _TITLES.get(name) or _TITLES.get(whole) or " ".join(spelled) or name
    return f"{said[:1].upper()}{said[1:]}" + (f" · {subject}" if subject else "")


def tied(text: str) -> str:
    """Words in which no line ends between a number and its unit."""
    return _TIED.sub(NO_BREAK, text)


def measured(value: float | None, of: str) -> str:
    """A number with its unit, or the word for there being none."""
    return tied(f"{number(value)} {unit(of)}".rstrip()) if value is not None else "none"


def chance(value: float | None) -> str:
    """A p-value: one so small that it is but rounding is only said to be so small."""
    if value is not None and 0.0 <= value < _LEAST:
        return f"< {_LEAST:.0e}"
    return number(value)


def is_chance(column: str) -> bool:
    """Whether a column holds p-values, by its name."""
    return column == "p" or column.startswith("p_") or column.endswith("_p")


def band(low: float | None, high: float | None, level: float | None) -> str:
    """How sure: the interval and its level, or that none was given."""
    if low is None or high is None or level is None:
        return "no band"
    return tied(f"{number(low)} to {number(high)} at {level * 100:.4g} %")


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
    if isinstance(value, list | tuple) or hasattr(value, "to_list"):
        return ", ".join(cell("", each) for each in value)
    if isinstance(value, int):
        return _whole(column, value)
    if isinstance(value, float):
        return chance(value) if is_chance(column) else number(value)
    return str(value)


def _whole(column: str, value: int) -> str:
    if column in _NAMES:
        return str(value)
    if column in _INSTANTS and value > 10**14:  # microseconds; a row number is never so large
        return instant(value)
    return span(value) if column.endswith("_us") else f"{value:,}"
