"""What a measure found: readings to publish, tables behind them, and the words to read them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from undertow.state import Reading, readings_frame


@dataclass(frozen=True, eq=False)
class Study:
    """One measure at one instant.

    `readings` are what may be published; `tables` hold every number behind them under names that
    explain themselves. `says` is what was found in sentences, the verdict first; a thing that could
    not be found out is said there too, with the reason.
    """

    name: str  # family and measure: tandem.matrix
    title: str
    readings: tuple[Reading, ...]
    tables: Mapping[str, pl.DataFrame]
    says: tuple[str, ...]
    how_to_read: str
    misleads: str
    left_out: Mapping[str, str] = field(default_factory=dict)  # series, and why each was not used

    @property
    def headline(self) -> Reading | None:
        """The one reading that stands for the study: its first."""
        return self.readings[0] if self.readings else None

    def reading(self, name: str, subject: str = "") -> Reading:
        """The reading of that name and subject.

        Raises
        ------
        KeyError
            When there is none.
        """
        for each in self.readings:
            if (each.name, each.subject) == (name, subject):
                return each
        raise KeyError(f"{self.name} has no reading {name!r} of {subject!r}")

    def to_polars(self) -> pl.DataFrame:
        """The readings as rows of the table `readings`."""
        return readings_frame(self.readings)

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "says": list(self.says),
            "readings": [reading.as_row() for reading in self.readings],
            "tables": {name: table.to_dicts() for name, table in self.tables.items()},
            "left_out": dict(self.left_out),
            "how_to_read": self.how_to_read,
            "misleads": self.misleads,
        }
