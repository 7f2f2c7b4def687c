"""What somebody wrote down about joint moves, as tables: moves, correlations and past prices.

Columns are called like assets. A table may leave out money and whatever follows something else: it
then does what it follows does. What else it leaves out is named in an error, because a sweep in
which an asset stands still by oversight is too kind, unless the caller says that it may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import SchemaError, StateError
from undertow.state import BoolColumn, FloatMatrix, Panel, Universe
from undertow.state.intake import as_frame
from undertow.stress.correlation import Repaired, checked, nearest_correlation
from undertow.stress.draws import Given
from undertow.stress.pricing import ROOT, PricingMap
from undertow.stress.scenario import suggested

TIMES = ("ts", "date", "time", "timestamp")  # what a column of instants may be called
_ASIDE = ("scenario",)  # columns of a table of moves that are no asset
_NAMES = ("", "asset")  # what the column of row names of a matrix may be called
_KINDS = ("spot", "index", "oracle", "mark")  # of prices, whose word counts first
_HOUR_US = 3_600_000_000
_SHOWN = 5  # names in an error


def given_moves(
    table: Any, pricing: PricingMap, *, fill_missing: bool = False, source: str = "moves"
) -> Given:
    """Scenarios out of a table of log moves of prices: a row a scenario, a column an asset.

    A move is that of the price itself, of a tied asset too; one that is left out follows.

    Raises
    ------
    SchemaError
        When a column is no asset, or a value no finite number.
    StateError
        When an asset of its own accord is left out, unless it may stand still.
    """
    frame = as_frame(table)
    names = [name for name in frame.columns if name not in _ASIDE]
    universe = pricing.universe
    has = _has(names, universe, source)
    if not fill_missing:
        require_all(has, pricing, source, hint="or let them stand still with --fill-missing")
    moves = np.zeros((frame.height, len(universe.assets)))
    for name in names:
        moves[:, universe.code("asset", name)] = _numbers(frame[name], source)
    return Given.of(pricing.factors(moves, has))


def given_correlation(
    table: Any,
    start: FloatMatrix,
    pricing: PricingMap,
    *,
    fill_missing: bool = False,
    source: str = "correlation",
) -> Repaired:
    """Correlations out of a square table whose columns are assets, its rows in the same order.

    A first column may name the rows. Pairs that it leaves out keep those of `start`. What is then
    no correlation matrix is replaced by the nearest that is, and the answer says how far that was.

    Raises
    ------
    SchemaError
        When a column is no asset, or a value no finite number.
    StateError
        When the table is not square or symmetric, its diagonal is not 1, or an asset is left out.
    """
    frame, universe = as_frame(table), pricing.universe
    rows = frame.columns[0] if frame.width and frame.columns[0].lower() in _NAMES else None
    names = [name for name in frame.columns if name != rows]
    has = _has(names, universe, source)
    if rows is not None and (called := frame[rows].cast(pl.String).to_list()) != names:
        at = next((n for n, pair in enumerate(zip(called, names, strict=False))
                   if pair[0] != pair[1]), len(names))  # fmt: skip
        raise SchemaError(
            f"rows are called {', '.join(map(str, called[:_SHOWN]))}; they must be called like the "
            "columns, in the same order",
            source=source,
            row=at + 1,
        )
    if not fill_missing:
        hint = "or let the rest be as assumed with --fill-missing"
        require_all(has, pricing, source, hint=hint)
    values = [_numbers(frame[name], source) for name in names]
    part = checked(np.stack(values, axis=1) if values else np.empty((0, 0)), name=source)
    whole = start.copy()
    codes = [universe.code("asset", name) for name in names]
    whole[np.ix_(codes, codes)] = part
    return nearest_correlation(whole)


def given_prices(table: Any, universe: Universe, *, source: str = "history") -> Panel:
    """Past prices as a panel by asset, out of a long or a wide table.

    Wide: a column of instants and one of prices for each asset; empty cells are no price. Long:
    instants, `asset` and `price`, or the columns of the table `prices`. Instants without a zone are
    UTC. Columns that are no asset of the book are left out.

    Raises
    ------
    SchemaError
        When there are no instants, or a price of the book's assets is no number above 0.
    StateError
        When an asset has two prices at one instant.
    """
    frame = as_frame(table)
    when = next((name for name in frame.columns if name.lower() in TIMES), None)
    if when is None:
        raise SchemaError(
            f"no column of instants is among {', '.join(frame.columns[:_SHOWN])}",
            source=source,
            hint=f"call it {' or '.join(TIMES)}",
        )
    frame = frame.with_columns(_instants(frame[when], source).alias("ts"))
    frame = frame if when == "ts" else frame.drop(when)
    if {"instrument", "price"} <= set(frame.columns):
        kind = pl.col("kind") if "kind" in frame.columns else pl.lit(_KINDS[0])
        price = _prices(_of_book(frame, "instrument", universe.instruments), source)
        rows = frame.select("ts", "instrument", kind.alias("kind"), price=pl.Series(price))
        return price_panel(rows, universe)
    if {"asset", "price"} <= set(frame.columns):
        price = _prices(_of_book(frame, "asset", universe.assets), source)
        rows = frame.select("ts", pl.col("asset").cast(pl.String), price=pl.Series(price))
        rows = rows.filter(pl.col("asset").is_in(list(universe.assets)))
        if rows.is_empty():
            return Panel.from_arrays(source, "usd/base", [], [], np.empty((0, 0)))
        return Panel.from_frame(source, "usd/base", rows, series="asset", value="price")
    known = [name for name in frame.columns if name in universe.assets]
    values = [_prices(frame[name], source) for name in known]
    matrix = np.stack(values, axis=1) if known else np.empty((frame.height, 0))
    ts = frame["ts"].to_physical().to_numpy()
    order = np.argsort(ts, kind="stable")
    return Panel.from_arrays(source, "usd/base", ts[order], known, matrix[order])


def strangers(table: Any, universe: Universe) -> list[str]:
    """Series of a table of past prices that are no asset, or instrument, of the book."""
    frame = as_frame(table)
    for column, known in (("instrument", universe.instruments), ("asset", universe.assets)):
        if {column, "price"} <= set(frame.columns):
            named = frame[column].cast(pl.String).drop_nulls().unique(maintain_order=True)
            return [name for name in named if name not in known]
    return [
        name for name in frame.columns if name.lower() not in TIMES and name not in universe.assets
    ]


def price_panel(rows: pl.DataFrame, universe: Universe, *, step_us: int = _HOUR_US) -> Panel:
    """Prices of assets over time, out of rows of the table `prices`: the last up to every step.

    A price stands at the step that it was known by: at an instant nothing later is in the panel.

    Of an asset with several series (venues, kinds of price) the one that covers most steps counts,
    of equals spot before index, oracle and mark; options and other terms on it have no say.
    """
    listed = pl.DataFrame(
        {
            "instrument": list(universe.instruments),
            "asset": [universe.assets[k] for k in universe.asset_of],
            "plain": _plain(universe),
        }
    ).filter("plain")
    order = pl.DataFrame({"kind": list(_KINDS), "order": list(range(len(_KINDS)))})
    step = (-(-pl.col("ts").cast(pl.Int64) // step_us) * step_us).alias("step")
    found = (
        rows.select("ts", "instrument", "kind", "price")
        .join(listed, on="instrument")
        .join(order, on="kind")
        .sort("ts", maintain_order=True)
        .group_by("asset", "instrument", "order", step)
        .agg(pl.col("price").last())
    )
    if found.is_empty():
        return Panel.from_arrays("prices", "usd/base", [], [], np.empty((0, 0)))
    chosen = (
        found.group_by("asset", "instrument", "order")
        .len()
        .sort("asset", pl.col("len"), "order", "instrument", descending=[False, True, False, False])
        .unique("asset", keep="first", maintain_order=True)
    )
    kept = found.join(chosen, on=["asset", "instrument", "order"])
    kept = kept.with_columns(ts=pl.col("step").cast(pl.Datetime("us", "UTC")))
    return Panel.from_frame("prices", "usd/base", kept, series="asset", value="price")


def require_all(has: BoolColumn, pricing: PricingMap, what: str, *, hint: str) -> None:
    """Refuse to let an asset stand still that moves of its own accord and was left out.

    Raises
    ------
    StateError
        Naming those that were.
    """
    lacking = left_out(has, pricing)
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise StateError(
            f"nothing is said of {', '.join(lacking[:_SHOWN])}{more}, which the book holds",
            source=what,
            hint=f"add a column for each, {hint}",
        )


def left_out(has: BoolColumn, pricing: PricingMap) -> list[str]:
    """Assets that move of their own accord, no money, of which nothing is said."""
    own = ~pricing.universe.stable & (pricing.hangs == ROOT)
    return [pricing.universe.assets[k] for k in np.flatnonzero(own & ~has)]


def _has(names: list[str], universe: Universe, source: str) -> BoolColumn:
    """By asset, whether there is a column of it."""
    unknown = [name for name in names if name not in universe.assets]
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN]))
        raise SchemaError(
            f"no asset of the book is called {shown}",
            source=source,
            hint=suggested(unknown[0], universe.assets),
        )
    return np.isin(np.array(universe.assets), np.array(names, dtype=object))


def _plain(universe: Universe) -> BoolColumn:
    """Instruments whose price is that of their asset, in USD."""
    kinds = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("spot", "perp", "reserve", "share")]
    return np.isin(universe.kind, kinds)


def _of_book(frame: pl.DataFrame, column: str, names: tuple[str, ...]) -> pl.Series:
    """The column of prices, empty where it speaks of what the book does not know."""
    known = pl.col(column).cast(pl.String).is_in(list(names))
    return frame.select(pl.when(known).then("price").alias("price")).to_series()


def _prices(series: pl.Series, source: str) -> Any:
    """A column as prices; empty cells are NaN."""
    price = _numbers(series, source, gaps=True)
    wrong = np.flatnonzero(price <= 0.0)
    if len(wrong):
        row = int(wrong[0])
        raise SchemaError(
            f"a price above 0 was expected, not {series[row]!r}",
            source=source,
            row=row + 1,
            column=series.name,
            hint="leave the cell empty where no price is known",
        )
    return price


def _numbers(series: pl.Series, source: str, *, gaps: bool = False) -> Any:
    """A column as finite numbers; with `gaps`, empty cells are NaN."""
    text = series.dtype == pl.String
    value = series.str.strip_chars() if text else series
    cast = value.cast(pl.Float64, strict=False)
    empty = series.is_null() | (value == "") if text else series.is_null()
    wrong = ~(cast.is_finite().fill_null(value=False) | (empty if gaps else pl.Series([False])))
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise SchemaError(
            f"a finite number was expected, not {series[row]!r}",
            source=source,
            row=row + 1,
            column=series.name,
        )
    return cast.fill_null(float("nan")).to_numpy()


def _instants(series: pl.Series, source: str) -> pl.Series:
    """Instants in UTC; what names no zone is taken to be."""
    whole = pl.Datetime("us", "UTC")
    if series.dtype == pl.Date or series.dtype == pl.Datetime:
        zone = getattr(series.dtype, "time_zone", None)
        cast = series.cast(pl.Datetime("us")) if zone is None else series
        return cast.dt.replace_time_zone("UTC") if zone is None else cast.cast(whole)
    if series.dtype.is_integer():
        return series.cast(pl.Int64).cast(whole)
    text = series.cast(pl.String).str.strip_chars().str.replace(" ", "T", literal=True)
    text = text.str.replace(r"(?i)z$", "+00:00")
    text = pl.select(
        pl.when(text.str.contains("T")).then(text).otherwise(text + "T00:00:00")
    ).to_series()
    zoned = text.str.contains(r"[+-]\d\d:?\d\d$")
    text = pl.select(pl.when(zoned).then(text).otherwise(text + "+00:00")).to_series()
    cast = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False, format="%+")
    if cast.null_count():
        row = int(cast.is_null().arg_true()[0])
        raise SchemaError(
            f"an instant was expected (2026-01-31 or 2026-01-31T12:00:00Z), not {series[row]!r}",
            source=source,
            row=row + 1,
            column=series.name,
        )
    return cast
