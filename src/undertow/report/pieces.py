"""The pieces that pages are made of: a badge, a band, a card, a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from undertow.report.markup import NOTHING, Anchors, Markup, data_block, join, tag
from undertow.report.words import band, cell, heading, instant, number, span, tied, title, unit
from undertow.state import Reading

SHOWN = 20  # rows of a table on the page; all of them are in the download
ON_PAPER = 6  # rows of a table that was folded (report.css)
_LINE = 40  # letters of a text that is not broken in a table


def badge(evidence: str) -> Markup:
    """How a number is known: a word, in the colour that means it."""
    return tag("span", evidence, class_=f"badge {evidence}")


def prose(text: str, class_: str | None = None) -> Markup:
    """A paragraph of words."""
    return tag("p", tied(text), class_=class_)


def folded(summary: object, *inside: object, class_: str | None = None) -> Markup:
    """Something that opens on demand, with the keyboard too; in print if it is `printed`."""
    return tag("details", tag("summary", summary), *inside, class_=class_)


def facts(pairs: Mapping[str, object]) -> Markup:
    """Names and values, one under the other; a mapping inside is set in once more."""
    rows = (join(tag("dt", heading(str(name))), tag("dd", _fact(str(name), value)))
            for name, value in pairs.items())  # fmt: skip
    return tag("dl", *rows, class_="facts")


def _fact(name: str, value: object) -> object:
    if isinstance(value, Markup):
        return value
    if isinstance(value, Mapping):
        return facts(value) if value else "-"
    if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_us"):
        return str(value)  # a seed or a version is a name
    return cell(name, value)


def about(reading: Reading) -> dict[str, object]:
    """What a reading says of itself beside what stands next to its value."""
    said: dict[str, object] = {
        "definition": tied(reading.definition),
        "name": tag("code", reading.name),
    }
    if reading.window_us is not None:
        said["window"] = span(reading.window_us)
    if reading.coverage is not None:
        said["coverage"] = tied(f"{reading.coverage * 100:.4g} % of the whole was seen")
    if reading.mark_source is not None:
        said["priced by"] = reading.mark_source
    said["inputs"] = reading.inputs_hash
    return said


def called(reading: Reading) -> str:
    """A reading's name as a title, and what it is of."""
    return title(reading.name, reading.subject)


def card(reading: Reading) -> Markup:
    """A headline: value, unit, band, how it is known and when; the rest behind `details`."""
    value = tag("span", number(reading.value), class_="value")
    if reading.value is None:
        value = tag("span", "none", class_="value absent")
    return tag(
        "article",
        tag("h4", called(reading)),
        tag("p", value, " ", unit(reading.unit), class_="figure"),
        band_line(reading),
        tag("p", band(reading.low, reading.high, reading.level), class_="band"),
        tag("p", badge(reading.evidence), " ", tag("span", f"at {instant(reading.ts)}")),
        folded("What it is", facts(about(reading))),
        class_=f"card {reading.evidence}",
        title=reading.definition,
    )


def band_line(reading: Reading) -> Markup:
    """Value and band on a line that starts at zero, so that a band's width can be judged."""
    if reading.value is None or reading.low is None or reading.high is None:
        return tag("div", class_="nobar", aria_hidden="true")
    points = (0.0, reading.value, reading.low, reading.high)
    least, most = min(points), max(points)
    width = (most - least) or 1.0

    def at(point: float) -> float:
        return round(4.0 + 192.0 * (point - least) / width, 2)

    low, high = at(reading.low), at(reading.high)
    said = f"{number(reading.value)}, {band(reading.low, reading.high, reading.level)}"
    return tag(
        "svg",
        tag("line", x1=4, x2=196, y1=9, y2=9, class_="rail"),
        tag("line", x1=at(0.0), x2=at(0.0), y1=3, y2=15, class_="zero"),
        tag("rect", x=low, width=max(round(high - low, 2), 1.5), y=5, height=8, rx=2),
        tag("circle", cx=at(reading.value), cy=9, r=4.5),
        viewBox="0 0 200 18",
        class_="bandline",
        role="img",
        aria_label=f"{said}; the upright line is zero",
    )


def readings_table(readings: Iterable[Reading], caption: str, anchor: str) -> Markup:
    """Readings as rows; a name that is hovered over says its definition."""
    rows = list(dict.fromkeys(readings))
    heads = ("reading", "value", "unit", "band", "evidence", "at", "coverage")
    body = (
        tag(
            "tr",
            tag("th", called(r), scope="row"),
            tag("td", number(r.value) if r.value is not None else "none", class_="n"),
            tag("td", unit(r.unit), class_="k"),
            tag("td", band(r.low, r.high, r.level), class_="k b"),
            tag("td", badge(r.evidence), class_="k"),
            tag("td", instant(r.ts), class_="k"),
            tag("td", "-" if r.coverage is None else number(r.coverage), class_="n"),
            title=r.definition,
        )
        for r in rows[:SHOWN]
    )
    table = _framed(caption, heads, body, frozenset({"value", "coverage"}), caption, anchor)
    return join(table, _rest(len(rows)))


def definitions(readings: Iterable[Reading]) -> Markup:
    """What readings mean: each definition once, however many nodes it is told of."""
    every = list(dict.fromkeys(readings))
    of: dict[tuple[str, str], list[str]] = {}
    for reading in every:
        of.setdefault((reading.name, reading.definition), []).append(reading.subject)
    names = [name for name, _ in of]
    terms = (
        join(
            tag("dt", title(name, subjects[0] if names.count(name) > 1 == len(subjects) else ""),
                " ", tag("code", name)),
            tag("dd", tied(words)),
        )
        for (name, words), subjects in of.items()
    )  # fmt: skip
    rest: dict[str, object] = {}
    for word in ("window", "coverage", "priced by", "inputs"):
        held = [said[word] for each in every if word in (said := about(each))]
        rest |= {word: ", ".join(dict.fromkeys(map(str, held)))} if held else {}
    return folded(
        "What the readings mean", tag("dl", *terms, class_="terms"), facts(rest), class_="printed"
    )


def readings_kept(readings: Iterable[Reading]) -> pl.DataFrame:
    """Readings as rows for a download, as they came; one that was given twice stands once."""
    rows = [reading.as_row() for reading in dict.fromkeys(readings)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def sheet(frame: pl.DataFrame, caption: str, source: str, anchor: str, most: int = SHOWN) -> Markup:
    """The first rows of a table."""
    numeric = frozenset(n for n, t in zip(frame.columns, frame.dtypes, strict=True)
                        if t.is_numeric())  # fmt: skip
    body = (
        tag("tr", *(_value(name, value, name in numeric)
                    for name, value in zip(frame.columns, row, strict=True)))
        for row in frame.head(most).iter_rows()
    )  # fmt: skip
    if not frame.height:
        return prose(f"{caption}: no rows.", "empty")
    framed = _framed(caption, frame.columns, body, numeric, source, anchor)
    return join(framed, _rest(frame.height, most))


def _value(column: str, value: Any, numeric: bool) -> Markup:
    worrying = value is True or (isinstance(value, int) and value > 0)
    warn = worrying and column in ("stale", "rejects", "gaps", "missing", "late")
    said = cell(column, value)
    line = not numeric and len(said) <= _LINE
    classes = " ".join(["n"] * numeric + ["k"] * line + ["warn"] * warn) or None
    return tag("td", "▲ " if warn else None, said, class_=classes)


def _rest(rows: int, most: int = SHOWN) -> Markup:
    if rows <= most:
        return NOTHING
    return prose(f"The first {most} of {rows:,} rows; the download has all of them.", "small rest")


def _framed(
    caption: str,
    heads: Iterable[str],
    body: Iterable[Markup],
    numeric: frozenset[str],
    source: str,
    anchor: str,
) -> Markup:
    """A table in a box that scrolls sideways, also by keyboard."""
    columns = (tag("th", heading(h), scope="col", class_="n" if h in numeric else None)
               for h in heads)  # fmt: skip
    table = tag(
        "table",
        tag("caption", caption, id=anchor),
        tag("thead", tag("tr", *columns)),
        tag("tbody", *body),
        title=source,
    )
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_labelledby=anchor)


def downloads(frame: pl.DataFrame, name: str, anchors: Anchors) -> Markup:
    """All rows of a table, to be kept as CSV or as JSON; made by the page from one copy."""
    anchor = anchors.of("data", name)
    buttons = (
        tag("button", kind.upper(), type="button", data_from=anchor, data_as=kind, data_name=name,
            aria_label=f"Keep {name} as {kind.upper()}")
        for kind in ("csv", "json")
    )  # fmt: skip
    held = {
        "csv": csv(frame),
        "kinds": ["number" if t.is_numeric() else "flag" if t == pl.Boolean else "text"
                  for t in frame.dtypes],
    }  # fmt: skip
    size = f"all {frame.height:,} rows" if frame.height != 1 else "the row"
    return join(tag("p", f"Keep {size}: ", *buttons, class_="downloads"), data_block(anchor, held))


def csv(frame: pl.DataFrame) -> str:
    """A table as text: every digit, instants in UTC, lists with a semicolon between."""
    columns = zip(frame.columns, frame.dtypes, strict=True)
    return frame.select(_flat(name, dtype) for name, dtype in columns).write_csv()


def _flat(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join("; ")
    if isinstance(dtype, pl.Struct):
        return column.struct.json_encode()
    if isinstance(dtype, pl.Datetime):
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return column
