"""A mapping file: how somebody else's columns become a declared table's, as TOML.

    table = "positions"
    ignore_other_columns = true

    [columns]            # target = source column
    instrument = "market"
    qty = "size"
    ts = "time"

    [constants]          # target = value, for what the file leaves unsaid
    source = "desk"
    kind = "perp"
    evidence = "observed"

    [units]              # what a number is in; see UNITS below, or scale and decimals
    qty = { decimals = 18 }
    rate = "bps"
    rate_per_hour = ["percent", "per_8h"]

    [time]               # an instant without a zone, or an epoch, has to say what it is
    ts = { unit = "ms" }
    expiry = { format = "%d.%m.%Y %H:%M", zone = "Europe/Zurich" }

    [account]            # an integer key out of names, the same for whoever derives it
    venue = { constant = "aave-v3" }
    label = "user"
    group = "margin_group"          # if an account has several; `cross` where left out

    [text]               # how numbers and gaps are spelled
    decimal = ","
    thousands = "."
    nulls = ["NA", "-"]
    separator = ";"

    [drop]
    columns = ["note"]

    [filters]            # source column = values that are kept
    status = ["open"]

A key that stands nowhere above is refused, because a misspelt instruction must not pass in silence.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NoReturn

from undertow.errors import UnknownTable, UnusableMapping
from undertow.schema import Kind, Table
from undertow.schema import table as declared
from undertow.store.checksum import content_hash

# Powers of ten; then what a span is multiplied by, and a rate divided by, from the kept unit.
UNITS = {
    "fraction": 0,
    "percent": -2,
    "permille": -3,
    "bps": -4,
    "ppm": -6,
    "cents": -2,
    "thousand": 3,
    "million": 6,
    "billion": 9,
    "gwei": -9,
    "wei": -18,
}
_SPANS = {"us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7, "h": 3.6e9, "day": 8.64e10}
_HOURS = {"per_hour": 1.0, "per_8h": 8.0, "per_day": 24.0, "per_year": 8760.0}
EPOCHS = {"s": 1_000_000, "ms": 1000, "us": 1, "ns": 0}  # microseconds in one; ns are divided
_PARTS = ("venue", "label", "group")
_GROUP = "margin_group"  # what the table calls the group
_KEYS = {
    "": (
        "table",
        "ignore_other_columns",
        "columns",
        "constants",
        "units",
        "time",
        "account",
        "owner",
        "text",
        "drop",
        "filters",
    ),
    "account": (*_PARTS, _GROUP),
    "owner": ("label",),
    "text": ("decimal", "thousands", "nulls", "separator"),
    "drop": ("columns",),
    "time": ("unit", "format", "zone"),
    "units": ("scale", "decimals"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """What turns a number into the table's unit: a power of ten, a factor and a divisor."""

    power: int = 0
    times: float = 1.0
    over: float = 1.0


@dataclass(frozen=True, slots=True)
class When:
    """How an instant is spelled: an epoch's unit, or a format, or at least a time zone."""

    unit: str | None = None
    format: str | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a derived key: a column of the file, or the same for all rows."""

    column: str | None
    constant: str | None


@dataclass(frozen=True, slots=True)
class TextRules:
    """How numbers and gaps are spelled in text."""

    decimal: str = "."
    thousands: str = ""
    nulls: tuple[str, ...] = ()
    separator: str | None = None


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """A mapping file, checked."""

    name: str = ""
    table: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, Unit | tuple[str, ...]] = field(default_factory=dict)
    times: Mapping[str, When] = field(default_factory=dict)
    keys: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    text: TextRules = TextRules()
    drop: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignore_others: bool = False
    digest: str = ""

    @classmethod
    def read(cls, path: str | Path) -> ColumnMap:
        """The mapping in the TOML file at `path`."""
        file = Path(path)
        try:
            text = file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableMapping(
                "the mapping file cannot be read", source=file.name, hint="check the path"
            ) from error
        return cls.from_toml(text, name=file.name)

    @classmethod
    def from_toml(cls, text: str, *, name: str = "mapping") -> ColumnMap:
        """The mapping that `text` spells.

        Raises
        ------
        UnusableMapping
            At the first key that is unknown, or value that cannot be used.
        """
        try:
            entries = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UnusableMapping(
                f"not TOML: {error}", source=name, hint="mend the line and try again"
            ) from error
        return _Reader(name).whole(entries)

    def bound(self, table: Table) -> ColumnMap:
        """The same mapping, checked against the table that it is used for.

        Raises
        ------
        UnusableMapping
            When it names columns that the table does not have, or units that they cannot be in.
        """
        targets = [*self.columns, *self.constants, *self.units, *self.times, *self.keys]
        for target in targets:
            if target not in table.column_names:
                raise UnusableMapping(
                    f"{table.name} has no column {target!r}",
                    source=self.name or None,
                    hint=closest(target, table.column_names),
                )
        for target in self.units:
            self.unit(table, target)
        for target in self.times:
            if table.column(target).kind is not Kind.TIME:
                self._refuse(f"[time] names {target!r}, which is no instant", "see the table")
        twice = [t for t in self.constants if t in self.columns or t in self.keys]
        if twice:
            self._refuse(f"{twice[0]!r} is given twice", "keep the column or the constant")
        return self

    def unit(self, table: Table, target: str) -> Unit:
        """What the column `target` of `table` is multiplied by."""
        column = table.column(target)
        given = self.units[target]
        if column.kind not in (Kind.FLOAT, Kind.INT):
            self._refuse(f"[units] names {target!r}, which is no number", "remove it")
        if isinstance(given, Unit):
            return given
        power, times, over = 0, 1.0, 1.0
        for word in given:
            more = _meaning(word, column.unit)
            if more is None:
                known = (*UNITS, *_SPANS, *_HOURS)
                self._refuse(
                    f"{word!r} is no unit that {target!r} (kept in {column.unit or '1'}) can be in",
                    closest(word, known),
                )
            power, times, over = power + more.power, times * more.times, over * more.over
        return Unit(power, times, over)

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise UnusableMapping(what, source=self.name or None, hint=hint)


def _meaning(word: str, unit: str) -> Unit | None:
    if unit == "us":
        return Unit(times=_SPANS[word]) if word in _SPANS else None
    if word in _HOURS and unit in ("1/hour", "1/year"):
        return Unit(times=1.0 if unit == "1/hour" else 8760.0, over=_HOURS[word])
    return Unit(UNITS[word]) if word in UNITS else None


def closest(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or everything that there is."""
    names = list(known)
    alike = [n for n in names if n.lower() == word.strip().lower()]
    alike = alike or difflib.get_close_matches(word, names, 1)
    return f"did you mean {alike[0]!r}?" if alike else f"choose from: {', '.join(names)}"


class _Reader:
    """Checks the entries of one mapping file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def refuse(self, what: str, hint: str) -> NoReturn:
        raise UnusableMapping(what, source=self.name, hint=hint)

    def whole(self, entries: dict[str, Any]) -> ColumnMap:
        self.known("", entries)
        table = entries.get("table")
        if table is not None:
            try:
                declared(self.text_of("table", table))
            except UnknownTable as error:
                raise UnusableMapping(error.message, source=self.name, hint=error.hint) from error
        ignore = entries.get("ignore_other_columns", False)
        if not isinstance(ignore, bool):
            self.refuse("ignore_other_columns is not true or false", "write true or false")
        drop = self.section(entries, "drop")
        self.known("drop", drop)
        found = ColumnMap(
            name=self.name,
            table=table,
            columns=self.columns(self.section(entries, "columns")),
            constants=self.constants(self.section(entries, "constants")),
            units={t: self.unit(t, v) for t, v in self.section(entries, "units").items()},
            times={t: self.when(t, v) for t, v in self.section(entries, "time").items()},
            keys={t: self.key(t, entries[t]) for t in ("account", "owner") if t in entries},
            text=self.rules(self.section(entries, "text")),
            drop=self.words("[drop] columns", drop.get("columns", [])),
            filters={
                c: self.words(f"[filters] {c}", v)
                for c, v in self.section(entries, "filters").items()
            },
            ignore_others=ignore,
            digest=content_hash([repr(_canonical(entries))]),
        )
        return found.bound(declared(table)) if table else found

    def known(self, where: str, entries: Mapping[str, Any]) -> None:
        for key in entries:
            if key not in _KEYS[where]:
                place = f" in [{where}]" if where else ""
                self.refuse(f"unknown key {key!r}{place}", closest(key, _KEYS[where]))

    def section(self, entries: Mapping[str, Any], name: str) -> dict[str, Any]:
        found = entries.get(name, {})
        if not isinstance(found, dict):
            self.refuse(f"{name} is not a section", f"write [{name}] and its keys below")
        return dict(found)

    def text_of(self, what: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            self.refuse(f"{what} is {value!r}, not a name", "put the name in quotes")
        return str(value)

    def words(self, what: str, value: Any) -> tuple[str, ...]:
        found = value if isinstance(value, list) else [value]
        for each in found:
            if not isinstance(each, str | int | float) or isinstance(each, bool):
                self.refuse(f"{what} holds {each!r}", "give a list of names in quotes")
        return tuple(str(each) for each in found)

    def columns(self, entries: dict[str, Any]) -> dict[str, str]:
        return {t: self.text_of(f"[columns] {t}", source) for t, source in entries.items()}

    def constants(self, entries: dict[str, Any]) -> dict[str, Any]:
        for target, value in entries.items():
            naive = isinstance(value, date | time) and getattr(value, "tzinfo", None) is None
            if isinstance(value, list | dict) or naive:
                hint = "write one value; an instant ends in Z (2026-01-31T12:00:00Z)"
                self.refuse(f"[constants] {target} is {value}", hint)
        return entries

    def unit(self, target: str, value: Any) -> Unit | tuple[str, ...]:
        if not isinstance(value, dict):
            return self.words(f"[units] {target}", value)
        self.known("units", value)
        if len(value) != 1:
            self.refuse(f"[units] {target} needs scale or decimals", "give one of the two")
        ((key, number),) = value.items()
        if isinstance(number, bool) or not isinstance(number, int | float):
            self.refuse(f"[units] {target} {key} is {number!r}, not a number", "write a number")
        if key == "decimals":
            if not isinstance(number, int) or not 0 <= number <= 77:
                self.refuse(f"[units] {target} decimals is {number!r}", "write 0 to 77")
            return Unit(power=-int(number))
        if not math.isfinite(number) or number == 0:
            self.refuse(f"[units] {target} scale is {number!r}", "write a number other than 0")
        power = round(math.log10(abs(number)))
        return Unit(power=power) if number == float(f"1e{power}") else Unit(times=float(number))

    def when(self, target: str, value: Any) -> When:
        if not isinstance(value, dict):
            self.refuse(f"[time] {target} is {value!r}", 'write { unit = "ms" }')
        self.known("time", value)
        given = {key: self.text_of(f"[time] {target} {key}", text) for key, text in value.items()}
        if "unit" in given and ("format" in given or given["unit"] not in EPOCHS):
            self.refuse(
                f"[time] {target} unit is {given['unit']!r} with {sorted(given)}",
                f"an epoch has a unit alone: {', '.join(EPOCHS)}",
            )
        if "zone" in given:
            try:
                zoneinfo.ZoneInfo(given["zone"])
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise UnusableMapping(
                    f"[time] {target} zone is {given['zone']!r}, which is no time zone",
                    source=self.name,
                    hint="write UTC or a name like Europe/Zurich",
                ) from error
        directives = given.get("format", "%z")
        if "zone" not in given and "unit" not in given and "%z" not in directives:
            self.refuse(f"[time] {target} names no zone", 'add zone = "UTC" or another')
        return When(**given)

    def key(self, target: str, value: Any) -> tuple[Part, ...]:
        if not isinstance(value, dict):
            self.refuse(f"{target} is not a section", f"write [{target}] and its keys below")
        self.known(target, value)
        if _GROUP in value:
            if "group" in value:
                self.refuse(f"[{target}] has group and {_GROUP}", "keep one of the two")
            value = {("group" if name == _GROUP else name): v for name, v in value.items()}
        needed = ("venue", "label") if target == "account" else ("label",)
        for name in needed:
            if name not in value:
                self.refuse(f"[{target}] lacks {name}", "name the column, or { constant = ... }")
        parts = {name: self.part(f"[{target}] {name}", v) for name, v in value.items()}
        if target == "account":
            parts.setdefault("group", Part(None, "cross"))
            return tuple(parts[name] for name in _PARTS)
        return (parts["label"],)

    def part(self, what: str, value: Any) -> Part:
        if isinstance(value, dict):
            if list(value) != ["constant"]:
                self.refuse(f"{what} is {value!r}", "name a column, or write { constant = ... }")
            return Part(None, self.text_of(what, value["constant"]))
        return Part(self.text_of(what, value), None)

    def rules(self, entries: dict[str, Any]) -> TextRules:
        self.known("text", entries)
        decimal, thousands = entries.get("decimal", "."), entries.get("thousands", "")
        if decimal not in (".", ",") or thousands == decimal or thousands not in _THOUSANDS:
            self.refuse(
                f"[text] decimal is {decimal!r} and thousands is {thousands!r}",
                "decimal is . or , and thousands another one of . , ' _ or a blank",
            )
        separator = entries.get("separator")
        if separator is not None and separator not in (",", ";", "\t", "|", " "):
            self.refuse(f"[text] separator is {separator!r}", "use one of , ; | a tab or a blank")
        return TextRules(
            decimal, thousands, self.words("[text] nulls", entries.get("nulls", [])), separator
        )


_THOUSANDS = ("", ".", ",", "'", "_", " ", "\u00a0", "\u202f", "\u2019")


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _canonical(each)) for key, each in value.items())
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value
