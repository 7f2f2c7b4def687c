"""One round of forced sales between balance sheets, of a book and of books of other owners."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from undertow.econometrics.firesales import (
    FACTORS,
    Decomposition,
    Spillover,
    contagion_index,
    decomposed,
    endogenous_index,
    linear_spillover,
)
from undertow.errors import EstimationError
from undertow.measures.crowding.ranks import rank_bands, ranks
from undertow.measures.crowding.redrawn import FEW, Redrawn
from undertow.measures.crowding.sheets import Sheets, overlaps
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix

_RANKED = 50  # assets among which a place has a band
Ends = tuple[FloatColumn, FloatColumn]


class Found(NamedTuple):
    """What one fall does to balance sheets."""

    sheets: Sheets
    fall: float
    speed: float
    held: FloatMatrix
    equity: FloatColumn
    spill: Spillover | None  # None where there is nobody
    parts: Decomposition | None  # None where nothing is lost
    seen: float  # share of what is sold of which depth is known; NaN where nothing is sold
    tied: float  # the contagion index; NaN where no depth is known of anything held
    middle: FloatColumn  # parts of rows in the contagion index
    moved: float  # the endogenous index; NaN where no depth is known of anything sold
    moving: FloatColumn

    @classmethod
    def of(cls, sheets: Sheets, fall: float, speed: float) -> Found:
        """What it does to the balance sheets of the book itself."""
        return cls.of_held(sheets, *sheets.held(), fall, speed)

    @classmethod
    def of_held(
        cls, sheets: Sheets, held: FloatMatrix, equity: FloatColumn, fall: float, speed: float
    ) -> Found:
        """What it does to any balance sheets."""
        given, nobody = (sheets, fall, speed, held, equity), np.zeros(len(equity))
        spill = spilled(sheets, held, equity, fall, speed)
        if spill is None:
            return cls(*given, None, None, np.nan, np.nan, nobody, np.nan, nobody)
        matrix, parts = overlaps(sheets, held), _parts(sheets, held, equity, fall, speed)
        seen, unknown = _seen(sold(held, spill), sheets.thin), (np.nan, nobody * np.nan)
        index, middle = contagion_index(matrix) if matrix.any() else unknown
        moved, moving = unknown if seen == 0.0 else endogenous_index(matrix, spill.closed)
        whole = float(equity.sum())
        return cls(*given, spill, parts, seen, index / whole, middle, moved / whole, moving)

    @property
    def cost(self) -> float:
        """What forced sales cost, over all equity; NaN where nobody knows, or there is nobody."""
        return np.nan if self.spill is None else _cost(self.held, self.spill, self.sheets.thin)

    @property
    def systemic(self) -> FloatColumn:
        """(rows,) What its sales cost everybody; NaN where no depth is known of any of them."""
        if self.spill is None:
            return np.full(len(self.equity), np.nan)
        blind = _blind(sold(self.held, self.spill), self.sheets.thin)
        return np.where(blind, np.nan, 0.0 - self.spill.systemic)

    @property
    def indirect(self) -> FloatColumn:
        """(rows,) What all sales cost it; NaN where no depth is known of any that it holds."""
        if self.spill is None:
            return np.full(len(self.equity), np.nan)
        shared = np.abs(self.held) * (sold(self.held, self.spill).sum(axis=0) > 0.0)
        return np.where(_blind(shared, self.sheets.thin), np.nan, 0.0 - self.spill.indirect)

    def alone(self, assets: AnyColumn) -> FloatColumn:
        """What the fall of each of these assets alone costs; NaN where nobody is, or knows."""
        given = (self.sheets, self.held, self.equity, self.fall, self.speed)
        spills = [spilled(*given, 1 + asset) for asset in assets.tolist()]
        thin = self.sheets.thin
        return np.array([np.nan if s is None else _cost(self.held, s, thin) for s in spills])

    @property
    def numbers(self) -> dict[str, float]:
        """What is told of the whole, and has a band; NaN where it does not exist."""
        none = float("nan")
        parts = [none] * len(FACTORS) if self.parts is None else self.parts.factors.tolist()
        return {
            "vulnerability": self.cost,
            "direct": none if self.spill is None else direct_loss(self.spill),
            "contagion": self.tied,
            "endogenous": self.moved,
            **dict(zip(FACTORS, parts, strict=True)),
        }


def spilled(
    sheets: Sheets,
    held: FloatMatrix,
    equity: FloatColumn,
    fall: float,
    speed: float,
    shock: int = 0,
) -> Spillover | None:
    """One round; nothing where there is nobody."""
    if not held.size or not (equity > 0.0).all():
        return None
    down = np.expm1(np.log1p(-fall) * sheets.shock[shock])
    given = (held, equity, down, sheets.thin)
    return linear_spillover(*given, speed=speed, capped=True, losers=True)


def _parts(
    sheets: Sheets, held: FloatMatrix, equity: FloatColumn, fall: float, speed: float
) -> Decomposition | None:
    """Factors of the round in which everything falls; nothing where nobody loses."""
    if not held.size or not (equity > 0.0).all():
        return None
    down = np.expm1(np.log1p(-fall) * sheets.shock[0])
    try:
        return decomposed(held, equity, down, sheets.thin, speed, capped=True, losers=True)
    except EstimationError:
        return None


def direct_loss(spill: Spillover) -> float:
    """First losses of those who lose, over all equity."""
    return 0.0 - float(np.minimum(spill.direct * spill.equity, 0.0).sum() / spill.equity.sum())


def sold(held: FloatMatrix, spill: Spillover) -> FloatMatrix:
    """What each row closes of each asset, at prices of before, bought or sold."""
    return np.asarray(np.abs(held) * spill.closed[:, None])


def cost_of(found: Found, fall: float) -> tuple[float, float] | None:
    """First loss, and what forced sales cost on top, of another fall; nothing where nobody is."""
    spill = spilled(found.sheets, found.held, found.equity, fall, found.speed)
    if spill is None:
        return None
    return direct_loss(spill), _cost(found.held, spill, found.sheets.thin)


def _cost(held: FloatMatrix, spill: Spillover, thin: FloatColumn) -> float:
    """Cost of all sales, over all equity; NaN where no depth is known of anything that is sold."""
    return np.nan if _seen(sold(held, spill), thin) == 0.0 else 0.0 - spill.vulnerability


def _seen(usd: FloatMatrix, thin: FloatColumn) -> float:
    """The share of it of which depth is known; NaN of nothing."""
    whole = float(usd.sum())
    return float(usd[:, thin > 0.0].sum()) / whole if whole > 0.0 else np.nan


def _blind(usd: FloatMatrix, thin: FloatColumn) -> BoolColumn:
    """(rows,) There is something, and no depth is known of any of it."""
    return np.asarray((usd.sum(axis=1) > 0.0) & (usd[:, thin > 0.0].sum(axis=1) == 0.0))


class Bands(NamedTuple):
    """Ends of the bands of what is told; none where there are too few owners."""

    whole: dict[str, tuple[float, float]]
    systemic: Ends | None = None  # by row
    indirect: Ends | None = None
    node_rank: Ends | None = None
    asset_rank: Ends | None = None  # by asset; NaN of those that are not among the largest

    @classmethod
    def of(cls, found: Found, drawn: Redrawn) -> Bands:
        """Draw owners anew; a band that does not lie round its number is none."""
        sheets = found.sheets
        owners = len(np.unique(sheets.crowd.holder[sheets.who[: 64 * FEW]]))
        if owners < FEW or not len(sheets.assets) or found.spill is None:
            return cls({})
        alone = found.alone(np.arange(len(sheets.assets)))
        draws = _Draws.of(found, drawn, np.argsort(-alone, kind="stable")[:_RANKED])
        numbers = found.numbers
        low, high = _round(
            np.array(list(numbers.values())),
            drawn.band(np.stack([draws.whole[name] for name in numbers], axis=1)),
        )
        whole = {
            name: (float(a), float(b))
            for name, a, b in zip(numbers, low, high, strict=True)
            if np.isfinite(a)
        }
        place = np.full((2, len(sheets.assets)), np.nan)
        place[:, draws.ranked] = rank_bands(draws.alone, drawn.level)
        few = sheets.owners < FEW
        systemic, indirect = (
            np.where(few, np.nan, loss) for loss in (found.systemic, found.indirect)
        )
        rank = np.where(np.isnan(systemic), np.nan, ranks(found.systemic[None])[0])
        return cls(
            whole,
            _round(systemic, drawn.band(draws.systemic)),
            _round(indirect, drawn.band(draws.indirect)),
            _round(rank, rank_bands(draws.systemic, drawn.level)),
            _round(np.where(np.isnan(alone), np.nan, ranks(alone[None])[0]), (place[0], place[1])),
        )


def _round(value: FloatColumn, ends: Ends) -> Ends:
    """The ends of bands that lie round a number; NaN of others."""
    low, high = ends
    slack = 1e-9 * np.abs(value)  # of draws that are all alike but for rounding
    inside = (low - slack <= value) & (value <= high + slack)
    return (
        np.where(inside, np.minimum(low, value), np.nan),
        np.where(inside, np.maximum(high, value), np.nan),
    )


class _Draws(NamedTuple):
    """The same numbers of books of other owners."""

    whole: dict[str, FloatColumn]  # (draws,)
    systemic: FloatMatrix  # (draws, rows)
    indirect: FloatMatrix
    alone: FloatMatrix  # (draws, assets that are ranked)
    ranked: AnyColumn  # into the assets

    @classmethod
    def of(cls, found: Found, drawn: Redrawn, ranked: AnyColumn) -> _Draws:
        """Work every number out again of every draw."""
        sheets, rows, reps = found.sheets, len(found.sheets.names), len(drawn.weight)
        held = drawn.sums(sheets.account, sheets.cell, sheets.usd, len(sheets.row))
        own = sheets.crowd.exposures.equity[sheets.who]
        equity = drawn.sums(sheets.who, sheets.sheet, own, rows)
        systemic, indirect = np.full((reps, rows), np.nan), np.full((reps, rows), np.nan)
        alone = np.full((reps, len(ranked)), np.nan)
        whole = {name: np.full(reps, np.nan) for name in found.numbers}
        for rep in range(reps):
            there = equity[rep] > 0.0
            matrix, left = sheets.laid_out(held[rep])[there], equity[rep][there]
            again = Found.of_held(sheets, matrix, left, found.fall, found.speed)
            if again.spill is None:
                continue
            for name, number in again.numbers.items():
                whole[name][rep] = number
            systemic[rep, there] = again.systemic
            indirect[rep, there] = again.indirect
            alone[rep] = again.alone(ranked)
        return cls(whole, systemic, indirect, alone, ranked)
