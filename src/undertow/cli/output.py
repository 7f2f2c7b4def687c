"""How an answer leaves: a table for a person, JSON for a program, a file for later."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undertow.cli.options import UnusableOption
from undertow.report.words import chance, is_chance, number, span

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ENDINGS", "Answer", "Progress", "cell", "key", "number", "plain", "render", "span"]

_WRITERS = {
    ".csv": "write_csv",
    ".parquet": "write_parquet",
    ".arrow": "write_ipc",
    ".ndjson": "write_ndjson",
}
ENDINGS = (*_WRITERS, ".json")
_INSTANT = "%Y-%m-%dT%H:%M:%S%.fZ"  # in .csv, as JSON and the terminal spell it


@dataclass(frozen=True, slots=True)
class Answer:
    """Where and in which form a command answers."""

    as_json: bool = False
    file: Path | None = None
    quiet: bool = False
    option: str = "--output"  # by which the file was named
    endings: tuple[str, ...] = ENDINGS  # that it may have

    def __post_init__(self) -> None:
        """Refuse a file that cannot be written before any work is done."""
        if self.file is None:
            return
        if self.file.suffix.lower() not in self.endings:
            raise UnusableOption(
                f"{self.option} was {str(self.file)!r}",
                hint=f"the ending may be {', '.join(self.endings)}",
            )
        if not self.file.parent.is_dir():
            raise UnusableOption(
                f"{self.option} was {str(self.file)!r}, in a folder that is not there",
                hint="make the folder first",
            )
        if self.file.is_dir():
            raise UnusableOption(
                f"{self.option} was {str(self.file)!r}, which is a folder", hint="name a file"
            )
        self.keep(lambda part: part.touch(), only_try=True)

    def say(self, words: str) -> None:
        """Talk, on stderr."""
        if not self.quiet:
            print(words, file=sys.stderr)

    def give(self, title: str, rows: pl.DataFrame, facts: Mapping[str, Any] | None = None) -> None:
        """Answer with rows, and with facts about the whole of them."""
        if self.file is not None:
            self._write(rows, facts or {})
            self.say(f"{rows.height} rows in {self.file}")
        elif self.as_json:
            self.give_facts({**(facts or {}), "rows": rows.to_dicts()})
        else:
            print(title)
            print(render(rows))
            for name, value in (facts or {}).items():
                print(f"{name.replace('_', ' ')}: {cell(value)}")

    def give_facts(self, facts: Mapping[str, Any]) -> None:
        """Answer with one object."""
        if self.file is not None:
            self.keep(lambda part: part.write_text(_as_json(facts), encoding="utf-8"))
            self.say(f"all of it in {self.file}")
        elif self.as_json:
            print(_as_json(facts))
        else:
            for name, value in facts.items():
                print(f"{name.replace('_', ' ')}: {cell(value)}")

    def _write(self, rows: pl.DataFrame, facts: Mapping[str, Any]) -> None:
        assert self.file is not None
        ending = self.file.suffix.lower()
        if ending == ".json":
            whole = _as_json({**facts, "rows": rows.to_dicts()})
            self.keep(lambda part: part.write_text(whole, encoding="utf-8"))
        elif ending == ".csv":
            self.keep(lambda part: rows.write_csv(part, datetime_format=_INSTANT))
        else:
            self.keep(getattr(rows, _WRITERS[ending]))

    def keep(self, write: Callable[[Path], Any], *, only_try: bool = False) -> None:
        """All or nothing: a file of this name is replaced only by a whole new one.

        `only_try` leaves nothing behind: it says before the work whether there is room for it.
        """
        assert self.file is not None
        part = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            try:
                write(part)
                if not only_try:
                    part.replace(self.file)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            why = error.strerror or str(error) or "the system refused"
            raise UnusableOption(
                f"{self.option} {str(self.file)!r} could not be written: {why}"
            ) from error


def _as_json(facts: Mapping[str, Any]) -> str:
    return json.dumps(plain(facts), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: instants as text, what is no number as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    if hasattr(value, "item"):
        return plain(value.item())
    return value


def cell(value: Any) -> str:
    """A value as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    return str(value)


def key(value: int | None) -> str:
    """An integer that is a name."""
    return "-" if value is None else str(value)


_SHOWN = {"account": key, "owner": key}


def _shower(column: str) -> Callable[[Any], str]:
    """How the values of a column are spelled."""
    if column in _SHOWN:
        return _SHOWN[column]
    if column.endswith("_us"):
        return span
    return chance if is_chance(column) else cell


def render(rows: pl.DataFrame) -> str:
    """Rows as an aligned table; numbers to the right."""
    if not rows.height:
        return "  (no rows)"
    heads = [name.removesuffix("_us").replace("_", " ") for name in rows.columns]
    shown = [_shower(name) for name in rows.columns]
    body = [[show(v) for show, v in zip(shown, row, strict=True)] for row in rows.iter_rows()]
    right = [dtype.is_numeric() for dtype in rows.dtypes]
    widths = [max(len(h), *(len(r[i]) for r in body)) for i, h in enumerate(heads)]

    def line(cells: list[str]) -> str:
        placed = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(cells, widths, right, strict=True)
        )
        return ("  " + "  ".join(placed)).rstrip()

    rule = "  " + "  ".join("─" * width for width in widths)
    return "\n".join([line(heads), rule, *map(line, body)])


class Progress:
    """A bar on stderr with the time left; silent where nobody looks (no terminal, or --quiet)."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what = what
        self._shown = not quiet and sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Draw `done` of `total`, at most ten times a second."""
        now = time.monotonic()
        finished = done >= total
        if not self._shown or (now - self._drawn < 0.1 and not finished):
            return
        self._drawn = now
        share = done / total if total else 1.0
        left = (now - self._began) * (1 - share) / share if share else math.inf
        bar = "█" * round(24 * share) + "·" * (24 - round(24 * share))
        tail = "" if finished or not math.isfinite(left) else f" {span(int(left * 1e6))} left"
        sys.stderr.write(f"\r{self._what} {bar} {share:4.0%}{tail}\x1b[K")
        sys.stderr.write("\n" if finished else "")
        sys.stderr.flush()
