"""Saturation, from thresholds and depth alone, against the knee of the simulated cascade.

The knee is the first shock at which the final fall of prices rises by 2 % or more over a step of
0.1 %. Nothing was fitted: the bandwidth is that of the definition.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from crowds import PRICE, crowd
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatMatrix
from undertow.stress import Plan
from undertow.stress.pressure import Pressure
from undertow.stress.saturation import saturation
from undertow.stress.sweep import run_sweep

KINDS = ("one asset", "one asset", "many assets", "one of many", "in parts", "long and short")
FURTHEST, STEP = 0.4, 0.001
RISE = 0.02
FINE, GREY = 0.01, 0.05  # by how much the largest account moves its price


@dataclass(frozen=True)
class Given:
    """Factor moves that stand fixed."""

    rows: FloatMatrix

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        return self.rows[start : start + count]


def book(
    rng: np.random.Generator,
    kind: str,
    count: int,
    shares: tuple[float, float],
    largest: float,
) -> tuple[Snapshot, np.ndarray, float]:
    """A random book, the direction of its shock, and how far its largest account moves a price.

    Accounts that would move it by more than `largest` are cut down to that.
    """
    usd = 1e3 * (rng.pareto(rng.uniform(1.1, 1.6), count) + 1.0)
    shape = rng.integers(3)
    if shape == 0:
        fall = rng.uniform(0.02, rng.uniform(0.3, 0.8), count)
    elif shape == 1:
        fall = rng.lognormal(np.log(rng.uniform(0.1, 0.35)), rng.uniform(0.3, 0.8), count)
    else:
        bunched = rng.random(count) < rng.uniform(0.2, 0.6)
        bunch = rng.normal(rng.uniform(0.1, 0.3), rng.uniform(0.005, 0.05), count)
        fall = np.where(bunched, bunch, rng.uniform(0.05, 0.9, count))
    fall, share = np.clip(fall, 0.006, 0.95), rng.uniform(*shares)
    assets = int(rng.integers(2, 5)) if "many" in kind else 1
    for _ in range(20):  # what is cut from one is a larger share of the rest
        usd = np.minimum(usd, largest / share * usd.sum() / (2.0 * assets))
    held = np.eye(assets)[rng.integers(0, assets, count)]
    if assets > 1:
        mixed, other = rng.random(count) < 0.5, np.eye(assets)[rng.integers(0, assets, count)]
        weight = np.where(mixed, rng.uniform(0.2, 0.8, count), 1.0)[:, None]
        held = weight * held + (1.0 - weight) * other
    long = rng.random(count) < rng.uniform(0.5, 0.9) if kind == "long and short" else None
    profile = "aave-v3" if kind == "in parts" else "generic-lending"
    snapshot = crowd(fall, usd, share=share, assets=assets, held=held, long=long, profile=profile)
    direction = np.zeros(len(snapshot.universe.assets))
    direction[: 1 if kind == "one of many" else assets] = 1.0
    owned = usd[:, None] * held
    return snapshot, direction, float((share * owned / owned.sum(axis=0)).max())


def knee(plan: Plan, direction: np.ndarray) -> float | None:
    """The first shock at which the simulated final fall jumps."""
    shocks = np.arange(1, int(FURTHEST / STEP) + 1) * STEP
    moves = np.log1p(-np.outer(shocks, direction))
    found = run_sweep(plan, Given(moves), len(shocks), settled=False)
    rise = np.diff(np.append(0.0, found.rows["final_fall"]))
    at = np.flatnonzero(rise >= RISE)
    return float(shocks[at[0]]) if len(at) else None


def compared(
    worlds: int,
    counts: tuple[int, ...],
    *,
    largest: float = np.inf,
    shares: tuple[float, float] = (0.1, 0.8),
) -> pl.DataFrame:
    """Saturation and knee of random books, a row each."""
    rows = []
    for world in range(worlds):
        rng = np.random.default_rng(world)
        kind = KINDS[world % len(KINDS)]
        snapshot, direction, size = book(rng, kind, int(rng.choice(counts)), shares, largest)
        plan = Plan.of(snapshot)
        with Pressure.of(plan) as pressure:
            seen = saturation(pressure, direction, furthest=FURTHEST)
        grain = "fine" if size <= FINE else "grey" if size <= GREY else "whale"
        swung = bool((seen.path["swing"] > 0.5).any() or not seen.path["settled"].all())
        rows.append((world, kind, grain, swung, seen.at, knee(plan, direction)))
    names = ["world", "kind", "grain", "swung", "saturation", "knee"]
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    error = (pl.col("saturation") / pl.col("knee") - 1.0).abs()
    return frame.with_columns(error.cast(pl.Float64).alias("error"))


def told(frame: pl.DataFrame, *by: str) -> pl.DataFrame:
    """How well saturation foretold the knee, by class."""
    both = pl.col("error").is_not_null()
    return frame.group_by(by).agg(
        pl.len().alias("books"),
        both.sum().alias("both"),
        (pl.col("saturation").is_null() & pl.col("knee").is_null()).sum().alias("neither"),
        (pl.col("saturation").is_not_null() & pl.col("knee").is_null()).sum().alias("false"),
        (pl.col("saturation").is_null() & pl.col("knee").is_not_null()).sum().alias("missed"),
        pl.col("error").median().round(4).alias("median"),
        pl.col("error").quantile(0.9).round(4).alias("q90"),
    ).sort(by)  # fmt: skip


def test_saturation_foretells_the_knee_of_fine_books() -> None:
    frame = compared(6, (1_000,), largest=FINE, shares=(0.4, 0.8))
    both = frame["error"].drop_nulls()
    assert len(both) >= 3
    assert both.median() <= 0.05  # type: ignore[operator]
    assert frame.filter(pl.col("saturation").is_null() != pl.col("knee").is_null()).height <= 1


def test_a_shock_to_one_asset_of_two_that_are_sold_together() -> None:
    rng = np.random.default_rng(7)
    count = 2_000
    usd = 1e3 * (rng.pareto(1.5, count).clip(max=20.0) + 1.0)
    snapshot = crowd(
        rng.uniform(0.05, 0.35, count), usd, share=0.4, assets=2, held=np.full((count, 2), 0.5),
        long=np.ones(count, dtype=bool),
    )  # fmt: skip
    assert snapshot.market.mark[0] == PRICE
    plan, direction = Plan.of(snapshot), np.array([1.0, 0.0, 0.0, 0.0])
    with Pressure.of(plan) as pressure:
        seen = saturation(pressure, direction, furthest=FURTHEST)
    simulated = knee(plan, direction)
    assert seen.at is not None
    assert simulated is not None
    assert seen.at == pytest.approx(simulated, rel=0.05)


@pytest.mark.slow
def test_saturation_foretells_the_knee_of_three_hundred_books() -> None:
    frame = compared(300, (1_000, 3_000, 8_000))
    _show(frame)
    for grain, least in (("fine", 20), ("grey", 100), ("whale", 60)):
        _require_foretold(frame.filter(pl.col("grain") == grain), least)
    assert frame.filter(pl.col("saturation").is_null() & pl.col("knee").is_not_null()).height <= 3
    assert frame.filter(pl.col("saturation").is_not_null() & pl.col("knee").is_null()).height <= 15


@pytest.mark.slow
def test_saturation_foretells_the_knee_of_books_without_large_accounts() -> None:
    frame = compared(90, (1_000, 3_000), largest=FINE)
    _show(frame)
    _require_foretold(frame, 30)


def _show(frame: pl.DataFrame) -> None:
    with pl.Config(tbl_rows=40, tbl_cols=20):
        for by in (("grain",), ("kind", "grain"), ("swung", "grain")):
            sys.stdout.write(f"{told(frame, *by)}\n")


def _require_foretold(frame: pl.DataFrame, least: int) -> None:
    error = frame["error"].drop_nulls()
    assert len(error) >= least
    assert error.median() <= 0.05  # type: ignore[operator]
    assert error.quantile(0.9) <= 0.2  # type: ignore[operator]
