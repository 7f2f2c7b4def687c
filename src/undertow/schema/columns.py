"""The parts that tables are made of: columns with units, and how a table is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

UNITS = {
    "1": "a pure number; rates and shares are fractions (0.01, never 1 or 100)",
    "base": "units of the instrument's base asset",
    "contracts": "contracts of the instrument",
    "usd": "US dollars",
    "usd/base": "US dollars for one unit of the base asset",
    "1/year": "a fraction per year",
    "1/hour": "a fraction per hour; positive when longs pay",
    "us": "microseconds",
    "utc": "an instant, UTC, microsecond resolution",
    "": "a name or a label",
}


class Kind(Enum):
    """What a column holds; the store and the state turn this into an Arrow type."""

    TEXT = "text"
    INT = "int64"
    FLOAT = "float64"
    FLAG = "bool"
    TIME = "timestamp"


class AsOf(Enum):
    """How the rows that hold at an instant are found."""

    LATEST = "latest"
    SNAPSHOT = "snapshot"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its kind, its unit, and what values are allowed in it."""

    name: str
    kind: Kind
    doc: str
    unit: str = ""
    null: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    open_low: bool = False  # `low` itself is not allowed

    def as_json(self) -> dict[str, Any]:
        """What a reader needs to write this column."""
        record: dict[str, Any] = {
            "name": self.name,
            "type": self.kind.value,
            "unit": self.unit,
            "null": self.null,
            "doc": self.doc,
        }
        if self.choices:
            record["choices"] = list(self.choices)
        if self.low is not None:
            record["above" if self.open_low else "at_least"] = self.low
        if self.high is not None:
            record["at_most"] = self.high
        return record


@dataclass(frozen=True, slots=True)
class Table:
    """One stored table: what a row is, which columns name it, and how it is laid out on disk."""

    name: str
    doc: str
    as_of: AsOf
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partitions: tuple[str, ...] = ()
    column_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "column_names", tuple(c.name for c in self.columns))

    def column(self, name: str) -> Column:
        """The column called `name`."""
        return self.columns[self.column_names.index(name)]

    @property
    def dated(self) -> bool:
        """Whether rows carry `ts`; all but the registry of runs do."""
        return "ts" in self.column_names

    def as_json(self) -> dict[str, Any]:
        """What a reader needs to write this table."""
        return {
            "table": self.name,
            "doc": self.doc,
            "as_of": self.as_of.value,
            "key": list(self.key),
            "partitions": list(self.partitions),
            "columns": [c.as_json() for c in self.columns],
        }


def text(name: str, doc: str, *, null: bool = False, choices: tuple[str, ...] = ()) -> Column:
    """A column of names."""
    return Column(name, Kind.TEXT, doc, null=null, choices=choices)


def number(
    name: str,
    doc: str,
    unit: str,
    *,
    null: bool = False,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
) -> Column:
    """A column of finite floats."""
    return Column(name, Kind.FLOAT, doc, unit, null, (), low, high, open_low)


def whole(
    name: str, doc: str, unit: str = "1", *, null: bool = False, low: int | None = None
) -> Column:
    """A column of 64-bit integers."""
    return Column(name, Kind.INT, doc, unit, null, (), low)


def flag(name: str, doc: str, *, null: bool = False) -> Column:
    """A column of true and false."""
    return Column(name, Kind.FLAG, doc, null=null)


def time(name: str, doc: str, *, null: bool = False) -> Column:
    """A column of UTC instants."""
    return Column(name, Kind.TIME, doc, "utc", null)


TS = time("ts", "from when this holds")
SOURCE = text("source", "who says so; one source publishes one consistent view")
ASSET = text("asset", "key of the asset")
VENUE = text("venue", "key of the venue or protocol")
INSTRUMENT = text("instrument", "key of the instrument, `venue:symbol`")

EVIDENCE = ("observed", "sampled", "modelled")
COMPLETENESS = ("all", "sampled", "unknown")
POSITION_KINDS = ("collateral", "debt", "supply", "cash", "perp", "future", "option")
ASSET_KINDS = (
    "native",
    "stable",
    "staked",
    "wrapped",
    "vault_share",
    "lp",
    "receipt",
    "fiat",
    "other",
)
VENUE_KINDS = ("lending", "perp", "options", "spot", "bridge", "custodian", "issuer")
INSTRUMENT_KINDS = ("reserve", "spot", "perp", "future", "option", "cash", "share")
MARGIN_MODES = ("cross", "isolated", "portfolio")
PRICE_KINDS = ("mark", "index", "spot", "oracle")

EVIDENCE_COLUMN = text("evidence", "how it is known; never mixed in one number", choices=EVIDENCE)
