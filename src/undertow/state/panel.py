"""Series side by side over time: rows are instants, columns are labelled series.

The only noun that may hold NaN: a series that had no value at an instant has none here. Columns go
by label, not by a code of a Universe, because a series may stand for a sector, a cohort or a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.state.arrays import FloatMatrix, KeyColumn, digest, frozen
from undertow.state.conform import instants
from undertow.state.intake import as_frame


@dataclass(frozen=True, eq=False)
class Panel:
    """A (time, series) matrix with its instants, labels and unit."""

    name: str
    unit: str
    ts: KeyColumn  # microseconds, UTC, strictly increasing
    labels: tuple[str, ...]
    values: FloatMatrix  # (time, series)

    @classmethod
    def from_arrays(cls, name: str, unit: str, ts: Any, labels: Any, values: Any) -> Panel:
        """Check shapes and order, and close the arrays to writing.

        Raises
        ------
        StateError
            When shapes differ, instants do not increase, a label repeats or a value is infinite.
        """
        moments = np.array(ts)  # copies: nobody else may write into a noun
        names = tuple(str(label) for label in labels)
        matrix = np.array(values, dtype=np.float64)
        if moments.size and moments.dtype.kind not in "iu":
            raise StateError(
                f"instants are {moments.dtype}", source=name, hint="give UTC microseconds, int64"
            )
        moments = moments.astype(np.int64)
        if "ts" in names:
            raise StateError("a series cannot be called 'ts'", source=name)
        if matrix.shape != (len(moments), len(names)):
            raise StateError(
                f"values are {matrix.shape}; {len(moments)} instants and {len(names)} labels "
                f"need {(len(moments), len(names))}",
                source=name,
            )
        if (np.diff(moments) <= 0).any():
            at = int(np.flatnonzero(np.diff(moments) <= 0)[0]) + 1
            raise StateError("instants must increase", source=name, row=at + 1, column="ts")
        if len(set(names)) != len(names):
            again = next(n for i, n in enumerate(names) if n in names[:i])
            raise StateError(f"the label {again!r} stands twice", source=name)
        if np.isinf(matrix).any():
            row, column = (int(x[0]) for x in np.nonzero(np.isinf(matrix)))
            raise StateError(
                "a value is infinite",
                source=name,
                row=row + 1,
                column=names[column],
                hint="use NaN where there is no value",
            )
        return cls(name, unit, frozen(moments), names, frozen(matrix))

    @classmethod
    def from_frame(
        cls, name: str, unit: str, table: Any, *, series: str, value: str, ts: str = "ts"
    ) -> Panel:
        """Spread a long table (one row per instant and series) out; what is absent becomes NaN.

        Raises
        ------
        StateError
            When a column is missing, an instant has no zone, or one of a series stands twice.
        """
        frame = as_frame(table)
        absent = [column for column in (ts, series, value) if column not in frame.columns]
        if absent:
            raise StateError(f"there is no column {absent[0]!r}", source=name, column=absent[0])
        rows = frame.select(instants(frame[ts], source=name).alias(ts), series, value)
        twice = rows.filter(pl.struct(ts, series).is_duplicated())
        if twice.height:
            raise StateError(
                f"{twice[series][0]!r} has two values at one instant", source=name, column=value
            )
        wide = rows.pivot(on=series, index=ts, values=value).sort(ts)
        labels = sorted(c for c in wide.columns if c != ts)
        values = wide.select(pl.col(labels).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
        return cls.from_arrays(name, unit, wide[ts].to_physical().to_numpy(), labels, values)

    def __len__(self) -> int:
        return len(self.ts)

    def __repr__(self) -> str:
        return f"Panel({self.name}, {len(self.ts):,} instants x {len(self.labels)} series)"

    @cached_property
    def digest(self) -> str:
        """A hash of all values and names."""
        return digest(self.name, self.unit, "\x00".join(self.labels), self.ts, self.values)

    def until(self, ts: int) -> Panel:
        """The part at or before `ts`: what could have been known then."""
        return self._rows(slice(0, int(np.searchsorted(self.ts, ts, side="right"))))

    def select(self, labels: Any) -> Panel:
        """Some series, in the order given.

        Raises
        ------
        StateError
            When a label is not there.
        """
        wanted = tuple(labels)
        missing = [label for label in wanted if label not in self.labels]
        if missing:
            raise StateError(f"no series is called {missing[0]!r}", source=self.name)
        columns = [self.labels.index(label) for label in wanted]
        return Panel(self.name, self.unit, self.ts, wanted, frozen(self.values[:, columns]))

    def to_polars(self) -> pl.DataFrame:
        """Long form: ts, series, value; absent values are left out."""
        wide = pl.DataFrame(self.values, schema=list(self.labels)).with_columns(
            ts=pl.Series(self.ts).cast(pl.Datetime("us", "UTC"))
        )
        return (
            wide.unpivot(index="ts", variable_name="series", value_name="value")
            .filter(pl.col("value").is_not_nan())
            .with_columns(unit=pl.lit(self.unit))
        )

    def _rows(self, rows: slice) -> Panel:
        return Panel(
            self.name, self.unit, frozen(self.ts[rows]), self.labels, frozen(self.values[rows])
        )
