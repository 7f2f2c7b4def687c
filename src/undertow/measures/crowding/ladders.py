"""Who is called at which distance: one axis of moves for everything, each way.

A *line* is the market (all that is no money falls, or rises, together) or one asset alone. Along it
an account is called at one distance or never; what it holds is taken at today's prices. Nothing is
sold here and no price answers. What was observed, sampled and modelled is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow import schema
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.rules.margins import market_exposure
from undertow.state import AnyColumn, FloatColumn, KeyColumn
from undertow.stress.atrisk import line_of

MARKET = "market"
SIDES = ("fall", "rise")
_KINDS = len(schema.EVIDENCE)
_SCHEMA = {
    "line": pl.String, "side": pl.String, "distance": pl.Float64, "venue": pl.String,
    "evidence": pl.String, "accounts": pl.Int64, "debt_usd": pl.Float64,
    "notional_usd": pl.Float64, "traded_usd": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """Ever larger moves one way, of everything or of one asset."""

    name: str
    asset: int | None  # None of the market
    side: str

    def moves_of(self, crowd: Crowd) -> FloatColumn:
        """By asset, 1 where its own price moves along the line; what hangs on it follows."""
        universe = crowd.snapshot.universe
        every = np.arange(len(universe.assets))
        moved = every == self.asset
        if self.asset is None:
            moved = (universe.root == every) & ~universe.stable
        moves: FloatColumn = moved.astype(np.float64)
        return moves


@dataclass(frozen=True, eq=False)
class Ladders:
    """Where accounts are called along lines."""

    crowd: Crowd
    distances: FloatColumn  # (points,) the first is 0: who is called already
    rows: pl.DataFrame  # one a line, side, distance, venue and evidence: what is called from there
    first: KeyColumn  # (accounts,) point at which a common fall calls each, or their number
    first_rise: KeyColumn

    @classmethod
    def of(
        cls,
        crowd: Crowd,
        furthest: float,
        points: int,
        *,
        assets: int | None = None,
        executor: Executor | None = None,
    ) -> Ladders:
        """Follow the market and the `assets` that most is at stake in (all, unless given)."""
        distances = np.linspace(0.0, furthest, points + 1)
        kind = crowd.evidence_of
        found, calls = [], {}
        with crowd.at_risk(executor) as book:
            for line in lines_of(crowd, assets):
                sign = 1.0 if line.side == "fall" else -1.0
                first = book.first_called(line_of(sign * line.moves_of(crowd), distances))
                if line.asset is None:
                    calls[line.side] = first
                found.append(_rows(crowd, line, first, distances, kind))
        rows = pl.concat(found) if found else pl.DataFrame(schema=_SCHEMA)
        return cls(crowd, distances, rows, calls["fall"], calls["rise"])

    def cumulative(self) -> pl.DataFrame:
        """Called up to each distance, all venues together, beside the depth up to there."""
        sums = ("accounts", "debt_usd", "notional_usd", "traded_usd")
        keys = ("line", "side", "evidence")
        summed = self.rows.group_by(*keys, "distance", maintain_order=True).agg(pl.col(sums).sum())
        grid = self.rows.select(keys).unique(maintain_order=True).join(
            pl.DataFrame({"distance": self.distances}), how="cross"
        )  # fmt: skip
        filled = grid.join(summed, on=[*keys, "distance"], how="left").with_columns(
            pl.col(sums).fill_null(0)
        )
        totals = filled.with_columns(pl.col(sums).cum_sum().over(keys))
        return totals.join(self._depth(), on=["line", "side", "distance"], how="left")

    def _depth(self) -> pl.DataFrame:
        """USD that moves a line's prices up to each distance; none where nothing is known."""
        universe, plan = self.crowd.snapshot.universe, self.crowd.plan
        assets = len(universe.assets)
        price = np.zeros(assets)
        np.maximum.at(price, universe.asset_of, plan.insts["start"] * (plan.insts["kind"] == 0))
        worth = plan.carriers.depth[:assets] * price * (market_exposure_of_assets(self.crowd) > 0)
        code = {name: k for k, name in enumerate(universe.assets)}
        found = []
        for name, side in self.rows.select("line", "side").unique(maintain_order=True).iter_rows():
            there = float(worth.sum() if name == MARKET else worth[code[name]])
            log = np.log1p(-self.distances) if side == "fall" else np.log1p(self.distances)
            usd = there * np.abs(log) if there > 0.0 else np.full(len(log), np.nan)
            found.append(
                pl.DataFrame({"line": name, "side": side, "distance": self.distances,
                              "depth_usd": usd})
            )  # fmt: skip
        empty = {k: _SCHEMA[k] for k in ("line", "side", "distance")} | {"depth_usd": pl.Float64}
        table = pl.concat(found) if found else pl.DataFrame(schema=empty)
        return table.with_columns(pl.col("depth_usd").fill_nan(None))


def lines_of(crowd: Crowd, assets: int | None = None) -> Iterator[Line]:
    """The market both ways, then each asset that anybody leans on, the largest first."""
    names = crowd.snapshot.universe.assets
    at_stake = np.bincount(crowd.asset, np.abs(crowd.lean), len(names))
    some = [int(k) for k in np.argsort(-at_stake, kind="stable") if at_stake[k] > 0.0]
    for side in SIDES:
        yield Line(MARKET, None, side)
    for k in some[:assets]:
        for side in SIDES:
            yield Line(names[k], k, side)


def market_exposure_of_assets(crowd: Crowd) -> FloatColumn:
    """By asset, 1 where its price is none of money."""
    universe = crowd.snapshot.universe
    found = np.zeros(len(universe.assets))
    np.maximum.at(found, universe.asset_of, market_exposure(universe))
    return found


def _rows(
    crowd: Crowd, line: Line, first: KeyColumn, distances: FloatColumn, kind: AnyColumn
) -> pl.DataFrame:
    """What is called from each distance on, by venue and by how it is known."""
    universe, book = crowd.snapshot.universe, crowd.snapshot.book
    points, venues = len(distances), len(universe.venues)
    called = np.flatnonzero(first < points)
    cell = (first[called] * venues + book.venue[called]) * _KINDS + kind[called]
    size = points * venues * _KINDS
    columns = {
        "accounts": np.bincount(cell, minlength=size),
        "debt_usd": np.bincount(cell, crowd.debt[called], size),
        "notional_usd": np.bincount(cell, crowd.notional[called], size),
        "traded_usd": _traded(crowd, line, first, kind, points),
    }
    at = np.flatnonzero(columns["accounts"])
    names = pl.Series(universe.venues, dtype=pl.String)
    words = pl.Series(schema.EVIDENCE, dtype=pl.String)
    return pl.DataFrame(
        {
            "line": [line.name] * len(at),
            "side": [line.side] * len(at),
            "distance": distances[at // (venues * _KINDS)],
            "venue": names.gather(at // _KINDS % venues),
            "evidence": words.gather(at % _KINDS),
            **{name: column[at] for name, column in columns.items()},
        },
        schema=_SCHEMA,
    )


def _traded(
    crowd: Crowd, line: Line, first: KeyColumn, kind: AnyColumn, points: int
) -> FloatColumn:
    """What the called would have to sell in a fall or buy in a rise, of what moves."""
    book = crowd.snapshot.book
    venues = len(crowd.snapshot.universe.venues)
    legs = crowd.legs_of(line.asset)
    lean = crowd.lean[legs] if line.side == "fall" else -crowd.lean[legs]
    account = book.leg_account[legs]
    some = (lean > 0.0) & (first[account] < points)
    account, lean = account[some], lean[some]
    cell = (first[account] * venues + book.venue[account]) * _KINDS + kind[account]
    return np.bincount(cell, lean, points * venues * _KINDS).astype(np.float64)
