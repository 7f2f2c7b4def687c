"""What the map of calls publishes: counts and sums with bands, and how much is known of owners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.redrawn import FEW, Redrawn
from undertow.measures.interconnection.callmap import ALONE, ANYBODY, CallMap
from undertow.state import BoolColumn, FloatColumn, KeyColumn, Reading

_DRAWN = (
    "; band: owners drawn anew in the same cascade, none of fewer than five, nor where it does not "
    "lie round the number"
)
_MOST = "; no band: no draw of owners shows how far a maximum could go"
_COUNTED = "; no band: all are counted"
_END = ", were they tied otherwise; no band: it is an end of what is possible"
_AT_ONCE = ("synchronised_calls", "synchronised_need", "owners_called_at_once",
            "synchronised_share")  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Sums over calls, and their bands where owners are drawn anew."""

    value: dict[str, float | None]
    band: dict[str, tuple[float, float] | None]

    @classmethod
    def of(cls, found: CallMap, *, reps: int, seed: int, level: float) -> Drawn:
        """Draw the owners of a map; its cascade stays the same.

        Raises
        ------
        EstimationError
            When the level is out of range or the draws are too few.
        """
        columns = _columns(found)
        value: dict[str, float | None] = {name: float(each.sum()) for name, each in columns.items()}
        need, both = value["call_need"], value["synchronised_need"]
        value["synchronised_share"] = both / need if need and both is not None else None
        crowd = Crowd(found.cascade.plan.snapshot)
        size = np.zeros(crowd.snapshot.book.accounts)
        size[found.first.account] = found.first.need
        redrawn = Redrawn.of(crowd, size, reps=reps, seed=seed, level=level)
        low, high = _ends(redrawn, found.first.account[found.head], columns)
        band: dict[str, tuple[float, float] | None] = {}
        for n, (name, number) in enumerate(value.items()):
            owners = found.owners_at_once if name in _AT_ONCE else found.owners
            fit = number is not None and low[n] <= number <= high[n]
            band[name] = (float(low[n]), float(high[n])) if fit and owners >= FEW else None
        return cls(value, band)


def _columns(found: CallMap) -> dict[str, FloatColumn]:
    """What each call adds to every sum that is published."""
    owner, both = found.together.owner, found.synchronised
    everybody = np.ones(len(owner), dtype=np.bool_)
    return {
        "synchronised_calls": both.astype(np.float64),
        "synchronised_need": np.where(both, found.need, 0.0),
        "owners_called_at_once": _once(owner, both),
        "calls": everybody.astype(np.float64),
        "owners_called": _once(owner, everybody),
        "call_need": found.need,
        "call_unmet": found.unmet,
    }


def _once(owner: KeyColumn, among: BoolColumn) -> FloatColumn:
    """1 at the first of the calls of each owner that are among some, else 0."""
    rows = np.flatnonzero(among)
    found = np.zeros(len(owner))
    found[rows[np.unique(owner[rows], return_index=True)[1]]] = 1.0
    return found


def _ends(
    redrawn: Redrawn, account: KeyColumn, columns: dict[str, FloatColumn]
) -> tuple[FloatColumn, FloatColumn]:
    """Ends of the band of each column's sum, and last of the share of need that is at once."""
    cells = len(columns)
    cell = np.tile(np.arange(cells), len(account))
    rows = np.stack(list(columns.values()), axis=1).ravel()
    drawn = redrawn.sums(np.repeat(account, cells), cell, rows, cells)
    names = list(columns)
    need, both = (drawn[:, names.index(name)] for name in ("call_need", "synchronised_need"))
    share = np.divide(both, need, out=np.full(len(need), np.nan), where=need > 0.0)
    return redrawn.band(np.column_stack([drawn, share]))


def readings(
    crowd: Crowd, found: CallMap, drawn: Drawn, links: pl.DataFrame, shock: str, window: str,
    level: float,
) -> list[Reading]:  # fmt: skip
    """Everything that may be published, the number of synchronised calls first."""
    at_once = f"calls that come with one of another venue on the same owner {window}"
    nobody = "; none where nobody is called"
    words = {
        "synchronised_calls": ("count", f"number of {at_once}"),
        "synchronised_need": ("usd", f"cash need of {at_once}"),
        "synchronised_share": ("1", f"cash need of {at_once}, over that of all calls{nobody}"),
        "owners_called_at_once": ("count", f"owners whom two venues or more call {window}"),
        "calls": ("count", "calls, each of one venue on one owner in one round"),
        "owners_called": ("count", "owners called; an account of no known owner is its own"),
        "call_need": ("usd", "cash that would have met the first call of every account"),
        "call_unmet": ("usd", "the part of that cash which is more than owners could bring"),
    }
    said = [
        crowd.reading(
            f"interconnection.{name}", drawn.value[name], unit, f"{what}, after {shock}{_DRAWN}",
            band=drawn.band[name], level=level, modelled=True,
        )
        for name, (unit, what) in words.items()
    ]  # fmt: skip
    said.append(
        crowd.reading(
            "interconnection.most_venues_at_once",
            float(found.together.venues_at_once.max(initial=0)), "count",
            f"most venues that call one owner {window}, after {shock}{_MOST}", modelled=True,
        )
    )  # fmt: skip
    for way in (ALONE, ANYBODY):
        row = links.row(by_predicate=pl.col("links") == way, named=True)
        said.append(
            crowd.reading(
                "interconnection.synchronised_accounts", float(row["synchronised_accounts"]),
                "count", f"accounts in {at_once}, after {shock}{_END}", subject=way, modelled=True,
            )
        )  # fmt: skip
    return [*said, *_known(crowd, found, shock)]


def _known(crowd: Crowd, found: CallMap, shock: str) -> list[Reading]:
    """How much is known of who owns what."""
    tied, need = found.known, found.first.need
    whole, name = float(need.sum()), "interconnection.known_owners"
    part = float(need[tied[found.first.account]].sum()) / whole if whole > 0.0 else None
    return [
        crowd.reading(
            name, float(tied.mean()) if len(tied) else None, "1",
            f"share of accounts whose owner is known; none without accounts{_COUNTED}",
            subject="accounts",
        ),
        crowd.reading(
            name, part, "1",
            "share of the cash need of calls whose owner is known; none where nobody is called, "
            f"after {shock}{_COUNTED}", subject="need", modelled=True,
        ),
    ]  # fmt: skip
