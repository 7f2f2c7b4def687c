"""What markets showed up to an instant: funding, open interest, basis, utilisation, moods.

Rows are instants, `step_us` apart, the last of them the instant itself; all panels share them. A
cell is the newest value that was there by then, NaN where that is older than its kind may be.
Nothing later than its instant is in any row, so that a row is what could have been known.

    funding        per hour, positive when longs pay (perps)
    open_interest  base units (perps and dated futures)
    basis          log(mark / index), or over spot where nobody gives an index (the same)
    utilisation    borrowed over supplied (reserves); `supplied` is in base units
    long_short     log(longs / shorts), from readings `long_short.accounts`, else `.notional`
    sentiment      readings `sentiment.*`, a column a name and subject ("fear" or "fear of BTC")

The subject of a reading is an instrument, an asset, or nothing. Panels may be empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state import CodeColumn, KeyColumn, Panel, Universe
from undertow.state.arrays import digest
from undertow.state.universe import NONE

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
YEAR_HOURS = 8_760.0
TABLES = ("funding", "open_interest", "prices", "reserves", "readings")  # that it is made of
PANELS = (
    *("funding", "open_interest", "basis", "utilisation", "supplied", "long_short", "sentiment"),
)
LONG_SHORT = ("long_short.accounts", "long_short.notional")  # whose word counts first
SENTIMENT = "sentiment."
_CONTRACTS = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future")]
_SPOT = schema.INSTRUMENT_KINDS.index("spot")
_LIFE_US = DAY_US  # of open interest and prices
_SLOW_US = 3 * DAY_US  # of what is published once a day, or when it changes
_INTERVALS = 2  # of funding, until a rate says nothing of now
_CELLS = 40_000_000  # of a panel, past which its steps are made longer


@dataclass(frozen=True, eq=False)
class MarketPast:
    """What markets showed at every step up to `ts`, as it was known then."""

    universe: Universe
    ts: int  # microseconds, UTC; nothing later is in it
    funding: Panel
    open_interest: Panel
    basis: Panel
    utilisation: Panel
    supplied: Panel
    long_short: Panel
    sentiment: Panel

    @classmethod
    def from_frames(
        cls,
        universe: Universe,
        ts: int,
        tables: Mapping[str, pl.DataFrame],
        *,
        step_us: int = HOUR_US,
    ) -> MarketPast:
        """Spread rows of the lake's tables out over steps; a table may be absent.

        Rows after `ts`, of names that the universe does not know, or of no use (open interest
        without a quantity) are left out. Steps are made longer where the panels would not fit.

        Raises
        ------
        StateError
            When a step is no length of time.
        """
        if isinstance(step_us, bool) or int(step_us) != step_us or step_us < 1:
            raise StateError(f"step_us was {step_us!r}; it must be a whole number from 1 up")
        rows = {name: frame for name, frame in tables.items() if name in TABLES}
        series = _all_series(universe, rows)
        kept = {
            name: part.filter((pl.col("ts") <= ts) & pl.col("value").is_finite())
            for name, part in series.items()
        }
        instants = _instants(kept, ts, int(step_us))
        panels = {name: _panel(name, part, instants) for name, part in kept.items()}
        panels["basis"] = _basis(universe, panels.pop("mark"), panels.pop("index"),
                                 panels.pop("spot"))  # fmt: skip
        panels |= _used(panels.pop("borrowed"), panels.pop("supplied"))
        return cls(universe, ts, **panels)

    def __repr__(self) -> str:
        held = ", ".join(f"{len(panel.labels)} {name}" for name, panel in self.parts.items())
        return f"MarketPast({len(self.instants):,} instants of {held})"

    @property
    def parts(self) -> dict[str, Panel]:
        """Every panel by its name."""
        return {name: getattr(self, name) for name in PANELS}

    @property
    def instants(self) -> KeyColumn:
        """Microseconds of the rows."""
        return self.funding.ts

    @property
    def step_us(self) -> int:
        """Microseconds from one row to the next; 0 of a single one."""
        ts = self.instants
        return int(ts[-1] - ts[-2]) if len(ts) > 1 else 0

    @property
    def empty(self) -> bool:
        """Whether nothing at all was seen."""
        return all(np.isnan(panel.values).all() for panel in self.parts.values())

    @cached_property
    def digest(self) -> str:
        """A hash of all that is in it."""
        return digest(str(self.ts), *(panel.digest for panel in self.parts.values()))

    def until(self, ts: int) -> MarketPast:
        """The part that was known at `ts`."""
        if ts >= self.ts:
            return self
        cut: dict[str, Any] = {name: panel.until(ts) for name, panel in self.parts.items()}
        return replace(self, ts=ts, **cut)

    def assets(self, panel: Panel) -> CodeColumn:
        """(columns,) The asset that each column of a panel is of, or NONE."""
        return np.array([_asset(self.universe, label) for label in panel.labels], dtype=np.int32)


def _asset(universe: Universe, label: str) -> int:
    """The asset of an instrument, or of that name, or that a label ends on ("x of BTC")."""
    name = label.rpartition(" of ")[2]
    for what in ("instrument", "asset"):
        try:
            k = universe.code(what, name)
        except StateError:
            continue
        return int(universe.asset_of[k]) if what == "instrument" else k
    return NONE


# ---------------------------------------------------------------- rows


def _all_series(universe: Universe, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Rows (series, ts, source, value, life) of every panel, before anything is left out."""
    kind = dict(zip(universe.instruments, universe.kind.tolist(), strict=True))
    contracts = [name for name, code in kind.items() if code in _CONTRACTS]
    spots = [name for name, code in kind.items() if code == _SPOT]
    funding = _of(tables, "funding", contracts)
    interest = _of(tables, "open_interest", contracts)
    prices = _of(tables, "prices", [*contracts, *spots])
    reserves = _of(tables, "reserves", list(universe.instruments))
    long_short, sentiment = _told(universe, tables)
    life = pl.col("interval_us") * _INTERVALS if funding.width > 1 else pl.lit(0)

    def price(name: str) -> pl.DataFrame:
        part = prices if prices.width == 1 else prices.filter(pl.col("kind") == name)
        return _rows(part, "price", _LIFE_US)

    return {
        "funding": _rows(funding, "rate_per_hour", life),
        "open_interest": _rows(interest, "base", _LIFE_US),
        "mark": price("mark"),
        "index": price("index"),
        "spot": price("spot"),
        "borrowed": _rows(reserves, "borrowed", _SLOW_US),
        "supplied": _rows(reserves, "supplied", _SLOW_US),
        "long_short": long_short,
        "sentiment": sentiment,
    }


def _of(tables: Mapping[str, pl.DataFrame], name: str, keys: list[str]) -> pl.DataFrame:
    """The rows of some instruments; one empty column where there is no table."""
    frame = tables.get(name)
    if frame is None or frame.is_empty():
        return pl.DataFrame({"series": []}, schema={"series": pl.String})
    return frame.filter(pl.col("instrument").is_in(keys)).rename({"instrument": "series"})


def _rows(frame: pl.DataFrame, value: str, life: pl.Expr | int) -> pl.DataFrame:
    if value not in frame.columns:
        types = {"series": pl.String, "ts": pl.Int64, "source": pl.String, "value": pl.Float64}
        return pl.DataFrame(schema={**types, "life": pl.Int64})
    known = frame.filter(pl.col(value).is_not_null())
    return known.select(
        "series",
        pl.col("ts").dt.epoch("us"),
        pl.col("source") if "source" in frame.columns else pl.lit("").alias("source"),
        pl.col(value).cast(pl.Float64).alias("value"),
        (pl.lit(life) if isinstance(life, int) else life).cast(pl.Int64).alias("life"),
    )


def _told(
    universe: Universe, tables: Mapping[str, pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Published long/short ratios and sentiment; of the first, accounts before notional."""
    readings = tables.get("readings")
    if readings is None or readings.is_empty():
        return _rows(pl.DataFrame(), "value", 0), _rows(pl.DataFrame(), "value", 0)
    subject = pl.col("subject").fill_null("")
    ratio = readings.filter(pl.col("name").is_in(LONG_SHORT) & (pl.col("value") > 0.0))
    known = [*universe.instruments, *universe.assets]
    ratio = ratio.filter(subject.is_in(known)).select(
        subject.alias("series"), "ts", pl.col("value").log(),
        # the last by name is believed: accounts must sort after notional
        pl.when(pl.col("name") == LONG_SHORT[0]).then(1).otherwise(0).cast(pl.String)
        .alias("source"),
    )  # fmt: skip
    mood = readings.filter(pl.col("name").str.starts_with(SENTIMENT))
    called = pl.col("name").str.strip_prefix(SENTIMENT)
    whole = pl.when(subject == "").then(called).otherwise(called + " of " + subject)
    mood = mood.select(whole.alias("series"), "ts", "value")
    return _rows(ratio, "value", _SLOW_US), _rows(mood, "value", _SLOW_US)


# ---------------------------------------------------------------- panels


def _instants(series: Mapping[str, pl.DataFrame], ts: int, step: int) -> KeyColumn:
    """The steps up to `ts`, from the first row on, no more than fit."""
    firsts = [part["ts"].min() for part in series.values() if part.height]
    first = min((int(each) for each in firsts if isinstance(each, int)), default=ts)
    widest = max((part["series"].n_unique() for part in series.values()), default=1)
    while (ts - first) // step * max(widest, 1) > _CELLS:
        step *= 2
    count = -(-(ts - first) // step) + 1 if first < ts else 1
    return ts - step * np.arange(count - 1, -1, -1, dtype=np.int64)


_UNITS = {"funding": "1/hour", "mark": "usd/base", "index": "usd/base", "spot": "usd/base"}
_UNITS |= {"open_interest": "base", "borrowed": "base", "supplied": "base", "long_short": "1"}


class _Grid(NamedTuple):
    value: Any  # (instants, series)
    until: Any  # microseconds to which each value is good; 0 where there is none


def _panel(name: str, rows: pl.DataFrame, ts: KeyColumn) -> Panel:
    """The newest value of each series at each instant, while it is good."""
    labels = sorted(rows["series"].unique())
    grid = _newest(rows, labels, ts)
    row = np.where(grid.until > 0, np.arange(len(ts))[:, None], -1)
    held = np.maximum.accumulate(row, axis=0)
    values = np.take_along_axis(grid.value, np.maximum(held, 0), axis=0)
    good = (held >= 0) & (
        np.take_along_axis(grid.until, np.maximum(held, 0), axis=0) >= ts[:, None]
    )
    found = np.where(good, values, np.nan)
    return Panel.from_arrays(name, _UNITS.get(name, "1"), ts, labels, found)


def _newest(rows: pl.DataFrame, labels: list[str], ts: KeyColumn) -> _Grid:
    """Of each series and step, the last row that fell into it."""
    value = np.full((len(ts), len(labels)), np.nan)
    until = np.zeros((len(ts), len(labels)), dtype=np.int64)
    if rows.height:
        step = int(ts[-1] - ts[-2]) if len(ts) > 1 else 1
        back = (int(ts[-1]) - pl.col("ts")) // step
        last = (
            rows.with_columns(back=back)
            .sort("ts", "source")
            .unique(["series", "back"], keep="last", maintain_order=True)
            .filter(pl.col("back") < len(ts))
        )
        order = pl.DataFrame({"series": labels}).with_row_index("column")
        last = last.join(order, on="series", how="left")
        at = len(ts) - 1 - last["back"].to_numpy(), last["column"].to_numpy()
        value[at] = last["value"].to_numpy()
        until[at] = (last["ts"] + last["life"]).to_numpy()
    return _Grid(value, until)


def _basis(universe: Universe, mark: Panel, index: Panel, spot: Panel) -> Panel:
    """Log of mark over index; over the median spot price of its asset where there is no index."""
    kind = dict(zip(universe.instruments, universe.kind.tolist(), strict=True))
    contracts = [label for label in mark.labels if kind[label] in _CONTRACTS]
    of_spot = np.array([universe.code("instrument", label) for label in spot.labels], dtype=int)
    values = np.full((len(mark), len(contracts)), np.nan)
    for j, label in enumerate(contracts):
        above = mark.values[:, mark.labels.index(label)]
        below = np.full(len(mark), np.nan)
        if label in index.labels:
            below = index.values[:, index.labels.index(label)].copy()
        asset = universe.asset_of[universe.code("instrument", label)]
        here = spot.values[:, universe.asset_of[of_spot] == asset]
        lacking = np.isnan(below) & ~np.isnan(here).all(axis=1)
        below[lacking] = np.nanmedian(here[lacking], axis=1)
        there = (above > 0.0) & (below > 0.0)
        values[there, j] = np.log(above[there] / below[there])
    return Panel.from_arrays("basis", "1", mark.ts, contracts, values)


def _used(borrowed: Panel, supplied: Panel) -> dict[str, Panel]:
    """Share of each reserve that is lent out, and how much was supplied."""
    lent, whole = borrowed.values, supplied.values
    share = np.divide(lent, whole, out=np.full(whole.shape, np.nan), where=whole > 0.0)
    used = Panel.from_arrays("utilisation", "1", supplied.ts, supplied.labels, share)
    return {"utilisation": used, "supplied": supplied}
