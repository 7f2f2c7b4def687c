"""One published number, with its band and everything that is needed to make it again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state.conform import require


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that may be published: what it is, how sure, of what, as of when, from what.

    `value` is None where the number does not exist (no debt, nobody under water); the definition
    says when. A band without a `level` is refused: half a statement is none.
    """

    name: str
    value: float | None
    unit: str
    definition: str
    ts: int  # microseconds, UTC: as of when
    evidence: str
    inputs_hash: str
    subject: str = ""
    low: float | None = None
    high: float | None = None
    level: float | None = None
    window_us: int | None = None
    mark_source: str | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        for label in ("value", "low", "high"):
            number = getattr(self, label)
            if number is not None and not math.isfinite(number):
                raise StateError(
                    f"{label} is {number}",
                    source=self.name,
                    hint="a number that does not exist is None, and the definition says when",
                )
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.level is None):
            raise StateError("a band needs low, high and level together", source=self.name)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise StateError(f"the band {self.low}..{self.high} is upside down", source=self.name)
        if self.level is not None and not 0.0 < self.level < 1.0:
            raise StateError(f"the band's level is {self.level}", source=self.name)
        if self.window_us is not None and self.window_us < 0:
            raise StateError(f"the window is {self.window_us} us", source=self.name)
        if self.mark_source is not None and self.mark_source not in schema.PRICE_KINDS:
            raise StateError(f"mark_source is {self.mark_source!r}", source=self.name)
        if self.evidence not in schema.EVIDENCE:
            raise StateError(f"evidence is {self.evidence!r}", source=self.name)
        if self.coverage is not None and not 0.0 <= self.coverage <= 1.0:
            raise StateError(f"coverage is {self.coverage}", source=self.name)

    def as_row(self) -> dict[str, Any]:
        """The reading as a row of the table `readings`."""
        return asdict(self)


def readings_frame(readings: Iterable[Reading]) -> pl.DataFrame:
    """Readings as rows of the table `readings`."""
    table = schema.table("readings")
    rows = [reading.as_row() for reading in readings]
    types = dict.fromkeys(table.column_names)
    frame = pl.DataFrame(rows, schema=list(types), infer_schema_length=None)
    return require(table, frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))))
