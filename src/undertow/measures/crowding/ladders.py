"""Who is called at which distance: one axis of moves for everything, each way.

A *line* is the market (all that is no money falls, or rises, together) or one asset alone. Along it
an account is called at one distance or never; what it holds is taken at today's prices. Nothing is
sold here and no price answers. What was observed, sampled and modelled is counted apart. On the
line of an asset `traded_usd` is what is sold as it, where its depth is, and `elsewhere_usd` what
moves with it and is sold elsewhere: receipts with a market of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.places import SoldAs
from undertow.measures.crowding.redrawn import Redrawn, owners_in
from undertow.rules.margins import market_exposure
from undertow.state import AnyColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.atrisk import line_of

MARKET = "market"
SIDES = ("fall", "rise")
_KINDS = len(schema.EVIDENCE)
_SUMS = ("accounts", "debt_usd", "notional_usd", "traded_usd", "elsewhere_usd")
_SCHEMA = {
    "line": pl.String, "side": pl.String, "distance": pl.Float64, "venue": pl.String,
    "evidence": pl.String, "accounts": pl.Int64, "debt_usd": pl.Float64,
    "notional_usd": pl.Float64, "traded_usd": pl.Float64, "elsewhere_usd": pl.Float64,
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

    def legs_of(self, crowd: Crowd) -> tuple[KeyColumn, KeyColumn]:
        """Rows of the legs that are sold as what moves, and of what moves but is sold elsewhere."""
        if self.asset is None:
            return crowd.legs_of(None), np.empty(0, dtype=np.int64)
        universe, place = crowd.snapshot.universe, np.arange(len(crowd.snapshot.universe.assets))
        place[universe.asset_of] = SoldAs.of(crowd.plan).asset
        own = np.zeros(len(place))
        own[self.asset] = 1e-4  # small: pool shares do not follow in a straight line
        follows = crowd.plan.pricing.asset_moves(own) > 0.0
        here = place == self.asset
        return _legs(crowd, here), _legs(crowd, follows & ~here)


def _legs(crowd: Crowd, assets: AnyColumn) -> KeyColumn:
    """Rows of the legs of some assets, rising."""
    rows = [crowd.legs_of(int(k)) for k in np.flatnonzero(assets)]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


class Near(NamedTuple):
    """What must be traded up to a distance along one line, of other owners too."""

    line: Line
    usd: FloatMatrix  # (draws, kinds of evidence)
    owners: AnyColumn  # (kinds of evidence,)


@dataclass(frozen=True, eq=False)
class Ladders:
    """Where accounts are called along lines."""

    crowd: Crowd
    distances: FloatColumn  # (points,) the first is 0: who is called already
    rows: pl.DataFrame  # one a line, side, distance, venue and evidence: what is called from there
    first: KeyColumn  # (accounts,) point at which a common fall calls each, or their number
    first_rise: KeyColumn
    near: tuple[Near, ...]  # of single assets, where it is asked for

    @classmethod
    def of(
        cls,
        crowd: Crowd,
        furthest: float,
        points: int,
        *,
        assets: int | None = None,
        executor: Executor | None = None,
        drawn: Redrawn | None = None,
        step: int = 0,
    ) -> Ladders:
        """Follow the market and the `assets` that most is at stake in (all, unless given).

        With `drawn`, what owners drawn anew would trade up to a step is kept.
        """
        distances = np.linspace(0.0, furthest, points + 1)
        kind = crowd.evidence_of
        found, calls, near = [], {}, []
        with crowd.at_risk(executor) as book:
            for line in lines_of(crowd, assets):
                sign = 1.0 if line.side == "fall" else -1.0
                first = book.first_called(line_of(sign * line.moves_of(crowd), distances))
                if line.asset is None:
                    calls[line.side] = first
                elif drawn is not None:
                    near.append(_near(crowd, line, first <= step, kind, drawn))
                found.append(_rows(crowd, line, first, distances, kind))
        rows = pl.concat(found) if found else pl.DataFrame(schema=_SCHEMA)
        return cls(crowd, distances, rows, calls["fall"], calls["rise"], tuple(near))

    def cumulative(self) -> pl.DataFrame:
        """Called up to each distance, all venues together, beside the depth up to there."""
        keys = ("line", "side", "evidence")
        summed = self.rows.group_by(*keys, "distance", maintain_order=True).agg(pl.col(_SUMS).sum())
        grid = self.rows.select(keys).unique(maintain_order=True).join(
            pl.DataFrame({"distance": self.distances}), how="cross"
        )  # fmt: skip
        filled = grid.join(summed, on=[*keys, "distance"], how="left").with_columns(
            pl.col(_SUMS).fill_null(0)
        )
        totals = filled.with_columns(pl.col(_SUMS).cum_sum().over(keys))
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
    }
    legs = line.legs_of(crowd)
    for name, some in zip(("traded_usd", "elsewhere_usd"), legs, strict=True):
        account, usd = _traded(crowd, line, first < points, some)
        at = (first[account] * venues + book.venue[account]) * _KINDS + kind[account]
        columns[name] = np.bincount(at, usd, size)
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
    crowd: Crowd, line: Line, called: AnyColumn, legs: KeyColumn
) -> tuple[KeyColumn, FloatColumn]:
    """Accounts and USD of the legs that the called would sell in a fall or buy in a rise."""
    lean = crowd.lean[legs] if line.side == "fall" else -crowd.lean[legs]
    account = crowd.snapshot.book.leg_account[legs].astype(np.int64)
    some = (lean > 0.0) & called[account]
    return account[some], lean[some]


def _near(crowd: Crowd, line: Line, called: AnyColumn, kind: AnyColumn, drawn: Redrawn) -> Near:
    """What the called would trade as the asset of a line, by how it is known, in every draw."""
    account, usd = _traded(crowd, line, called, line.legs_of(crowd)[0])
    known = kind[account]
    return Near(
        line, drawn.sums(account, known, usd, _KINDS), owners_in(crowd, account, known, _KINDS)
    )
