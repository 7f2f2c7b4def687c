"""What shows that leverage is wanted, step by step, of one asset or of all: rates, open interest.

None of it is leverage: open interest has two sides and no equity, utilisation no collateral.
A node is an asset, or everything; its contracts and reserves are weighed by USD at the prices of
now, so that a price that moves is no demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undertow.measures.crowding.markets import PANELS, YEAR_HOURS, MarketPast
from undertow.state import BoolColumn, FloatColumn, FloatMatrix
from undertow.state.universe import NONE

EVERYTHING = ""
FUNDING, BASIS, INTEREST, CHANGE, LONG_SHORT, UTILISATION = range(6)
COMPONENTS = (
    "funding", "basis", "open interest", "change of open interest", "long/short", "utilisation",
)  # fmt: skip
GROUPS = (0, 1, 2, 2, 3, 4)  # open interest counts once, its level and its change alike
_MOOD = 5  # the group of all moods
SHOWN = ("1/year", "1", "log", "log", "log", "1")  # their units


@dataclass(frozen=True, eq=False)
class Appetite:
    """The components of demand of one node."""

    node: str  # an asset, or EVERYTHING
    names: tuple[str, ...]
    groups: tuple[int, ...]
    values: FloatMatrix  # (instants, components); NaN where nobody said
    interest_usd: float  # open interest now, at prices of now


def appetites(past: MarketPast, price: FloatColumn, change_us: int) -> list[Appetite]:
    """Demand of everything, then of every asset of which anything is known, largest first.

    `price` is by instrument, in USD; `change_us` the span of the change of open interest.
    """
    universe = past.universe
    panels = {name: past.parts[name] for name in PANELS}
    of = {name: past.assets(panel) for name, panel in panels.items()}
    known = np.unique(np.concatenate([codes[codes != NONE] for codes in of.values()]))
    lag = max(round(change_us / past.step_us), 1) if past.step_us else 1
    usd = {
        name: np.array([price[universe.code("instrument", label)] for label in panels[name].labels])
        for name in ("open_interest", "supplied")
    }

    def node(name: str, asset: int | None) -> Appetite:
        here = {
            key: np.full(len(codes), True) if asset is None else np.asarray(codes == asset)
            for key, codes in of.items()
        }
        if asset is None:
            here["sentiment"] = of["sentiment"] == NONE  # of an asset, it says nothing of the rest
        return _appetite(past, name, here, usd, lag)

    parts = [node(universe.assets[k], int(k)) for k in known]
    some = [part for part in parts if not np.isnan(part.values).all()]
    some.sort(key=lambda part: (-part.interest_usd, part.node))
    return [node(EVERYTHING, None), *some]


def _appetite(
    past: MarketPast,
    name: str,
    here: dict[str, BoolColumn],
    usd: dict[str, FloatColumn],
    lag: int,
) -> Appetite:
    values = {key: panel.values[:, here[key]] for key, panel in past.parts.items()}
    held = values["open_interest"] * usd["open_interest"][here["open_interest"]]
    columns = np.full((len(past.instants), len(COMPONENTS)), np.nan)
    for at, key in ((FUNDING, "funding"), (BASIS, "basis")):
        panel = past.parts[key]
        labels = [label for label, some in zip(panel.labels, here[key], strict=True) if some]
        columns[:, at] = weighed(values[key], _beside(past, held, here, labels))
    columns[:, FUNDING] *= YEAR_HOURS
    columns[:, INTEREST] = chained(held)
    if len(columns) > lag:
        columns[lag:, CHANGE] = columns[lag:, INTEREST] - columns[:-lag, INTEREST]
    columns[:, LONG_SHORT] = weighed(values["long_short"], None)
    supplied = values["supplied"] * usd["supplied"][here["supplied"]]
    columns[:, UTILISATION] = weighed(values["utilisation"], supplied, alone=False)
    moods = values["sentiment"]
    called = [
        f"sentiment: {label.partition(' of ')[0]}"
        for label, some in zip(past.sentiment.labels, here["sentiment"], strict=True)
        if some
    ]
    now = held[-1] if len(held) else np.empty(0)
    return Appetite(
        name,
        (*COMPONENTS, *called),
        (*GROUPS, *(_MOOD for _ in called)),
        np.hstack([columns, moods]),
        float(np.nansum(now)),
    )


def _beside(
    past: MarketPast, held: FloatMatrix, here: dict[str, BoolColumn], labels: Sequence[str]
) -> FloatMatrix:
    """(instants, labels) Open interest in USD of contracts; NaN of those whose is not known."""
    some = np.flatnonzero(here["open_interest"])
    place = {past.open_interest.labels[k]: j for j, k in enumerate(some)}
    out = np.full((len(held), len(labels)), np.nan)
    for j, label in enumerate(labels):
        if label in place:
            out[:, j] = held[:, place[label]]
    return out


def weighed(values: FloatMatrix, weights: FloatMatrix | None, *, alone: bool = True) -> FloatColumn:
    """Mean of each row by weight; a plain mean where no weight is known, if `alone` allows it."""
    seen = ~np.isnan(values)
    count = seen.sum(axis=1)
    plain = np.full(len(values), np.nan)
    np.divide(np.where(seen, values, 0.0).sum(axis=1), count, out=plain, where=count > 0)
    if weights is None:
        return plain
    used = seen & (np.nan_to_num(weights) > 0.0)
    weight = np.where(used, weights, 0.0)
    total = weight.sum(axis=1)
    out = plain if alone else np.full(len(values), np.nan)
    np.divide((np.where(used, values, 0.0) * weight).sum(axis=1), total, out=out, where=total > 0.0)
    return out


def chained(held: FloatMatrix) -> FloatColumn:
    """Log level of a sum, its growth that of the series seen at both ends; 0 at the last row.

    A series that comes into view or goes out of it is no growth. NaN before the first that was seen
    and where nothing was.
    """
    out = np.full(len(held), np.nan)
    seen = np.nan_to_num(held) > 0.0
    if not seen.any():
        return out
    both = seen[1:] & seen[:-1]
    before = np.where(both, held[:-1], 0.0).sum(axis=1)
    after = np.where(both, held[1:], 0.0).sum(axis=1)
    step = np.zeros(len(before))
    linked = before > 0.0
    step[linked] = np.log(after[linked] / before[linked])
    level = np.concatenate([[0.0], np.cumsum(step)])
    some = np.asarray(seen.any(axis=1))
    last = int(np.flatnonzero(some)[-1])
    # a level from before a spell in which nothing was seen cannot be linked to the one after
    gaps = np.flatnonzero(~linked & (np.arange(len(linked)) < last))
    first = int(gaps[-1]) + 1 if len(gaps) else 0
    out[first:] = np.where(some[first:], level[first:] - level[last], np.nan)
    return out
