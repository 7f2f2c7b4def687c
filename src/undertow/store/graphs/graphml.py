"""A dependency map as GraphML: declared keys, then nodes and edges, written and read as a stream.

Nodes are called n0, n1, … as the schema asks for names without spaces; what they are called on the
map stands in their data, as `name`. Reading takes no document type, so no entity is ever expanded
and nothing outside the file is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO
from xml.parsers import expat
from xml.sax.saxutils import escape

import polars as pl

from undertow.errors import StateError, UnreadableFile
from undertow.store.graphs.form import (
    DAMAGED,
    EDGE_COLUMNS,
    NODE_COLUMNS,
    Plain,
    frame_of,
    require_format,
)

_SPACE = "http://graphml.graphdrawing.org/xmlns"
_OPENED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<graphml xmlns="{_SPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    f'xsi:schemaLocation="{_SPACE} {_SPACE}/1.0/graphml.xsd">\n'
)
_HEAD = ("format", "ts", "digest")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_EDGE_ID = re.compile(r"e\d{1,18}")
_ROWS = 50_000  # that are spelled at a time
_NUMBERS = frozenset({"double", "float", "int", "long"})


def write(plain: Plain, path: Path) -> None:
    """Write a file, some rows at a time.

    Raises
    ------
    StateError
        When a name holds a character that XML cannot hold.
    """
    nodes = plain.nodes.rename({"node": "name"})
    edges = plain.edges.drop("ts")
    at = pl.DataFrame({"node": nodes["name"], "at": range(nodes.height)})
    ends = [edges.select(node=end).join(at, on="node", how="left", maintain_order="left")["at"]
            for end in ("source", "target")]  # fmt: skip
    edges = edges.drop("source", "target")
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.write(_OPENED)
        _write_keys(out, "graph", dict.fromkeys(_HEAD, pl.String()))
        _write_keys(out, "node", nodes.schema)
        _write_keys(out, "edge", edges.schema)
        out.write('<graph id="map" edgedefault="directed">\n')
        told = {name: value for name, value in plain.head.items() if value is not None}
        out.write("".join(_data("graph", k, v) for k, v in told.items()) + "\n")
        for row, data in enumerate(_spelled("node", nodes)):
            out.write(f'<node id="n{row}">{data}</node>\n')
        pairs = zip(*ends, _spelled("edge", edges), strict=True)
        for row, (source, target, data) in enumerate(pairs):
            head = f'<edge id="e{row}" source="n{source}" target="n{target}">'
            out.write(f"{head}{data}</edge>\n")
        out.write("</graph>\n</graphml>\n")


def _write_keys(out: TextIO, of: str, kinds: Mapping[str, pl.DataType]) -> None:
    for name, kind in kinds.items():
        typed = "double" if kind == pl.Float64 else "string"
        out.write(f'<key id="{of}_{name}" for="{of}" attr.name="{name}" attr.type="{typed}"/>\n')


def _spelled(of: str, frame: pl.DataFrame) -> Iterator[str]:
    """The data of every row."""
    for part in frame.iter_slices(_ROWS):
        for row in part.iter_rows():
            pairs = zip(frame.columns, row, strict=True)
            yield "".join(_data(of, name, value) for name, value in pairs if value is not None)


def _data(of: str, name: str, value: str | float) -> str:
    return f'<data key="{of}_{name}">{_text(value)}</data>'


def _text(value: str | float) -> str:
    if not isinstance(value, str):
        return repr(value)  # the shortest that reads back as the same number
    if _NOT_XML.search(value):
        raise StateError(
            f"{value!r} holds a character that XML cannot hold",
            hint="export it as JSON or Parquet",
        )
    return escape(value, {"\r": "&#13;"})


def read(path: Path, name: str) -> Plain:
    """Read a file, ours or one from elsewhere."""
    found = _Reader(name)
    raw = path.read_bytes()
    try:
        found.parser.Parse(raw, True)
    except expat.ExpatError as error:
        _refuse_encoding(raw, name, error)
        raise UnreadableFile(
            f"is not XML at line {error.lineno}: {expat.ErrorString(error.code)}", source=name,
            hint=DAMAGED,
        ) from error  # fmt: skip
    except (LookupError, ValueError) as error:  # what its first line says
        raise UnreadableFile(
            f"is in an encoding that is not known: {error}", source=name, hint="save it as UTF-8"
        ) from error
    return found.plain()


def _refuse_encoding(raw: bytes, name: str, error: Exception) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        if wrong.start and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UnreadableFile(
                f"is not UTF-8 at byte {wrong.start + 1}", source=name, hint="save it as UTF-8"
            ) from error


class _Reader:
    """Hears elements as they come, and keeps the rows they make."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: dict[str, tuple[str, str]] = {}  # by id: what it is called, and its type
        self.defaults: dict[str, dict[str, Any]] = {"node": {}, "edge": {}, "graph": {}, "all": {}}
        self.rows: dict[str, list[dict[str, Any]]] = {"graph": [], "node": [], "edge": []}
        self.open: list[str] = []
        self.key, self.of, self.text = "", "", [""]
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._hear
        self.parser.StartDoctypeDeclHandler = self._refuse_type

    def plain(self) -> Plain:
        """What was read, as rows."""
        if not self.rows["graph"]:
            raise self._lost("has no graph in it", "a map is one directed graph")
        head = self.rows["graph"][0]
        require_format(head.get("format"), self.name)
        nodes, edges = self.rows["node"], self.rows["edge"]
        told = all("name" in row for row in nodes)
        for row in nodes:
            row["node"] = str(row["name"]) if told else row["id"]
        called: dict[str, str] = {}
        for row in nodes:
            if row["id"] in called:
                raise self._lost(f"the node id {row['id']!r} stands twice", "name each node once")
            called[row["id"]] = row["node"]
        for place, row in enumerate(edges, start=1):
            for end in ("source", "target"):
                if row.get(end) not in called:
                    raise self._lost(
                        f"edge {place} ends at {row.get(end)!r}, which is no node of the map",
                        "every end is the id of a node",
                    )
                row[end] = called[row[end]]
        if all(_EDGE_ID.fullmatch(str(row.get("id"))) for row in edges):
            edges.sort(key=lambda row: int(row["id"][1:]))  # a tool may have shuffled them
        return Plain(
            {key: head.get(key) for key in _HEAD},
            self._frame(nodes, NODE_COLUMNS, "node"), self._frame(edges, EDGE_COLUMNS, "edge"),
        )  # fmt: skip

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(" ")[2]
        if not self.open and tag != "graphml":
            raise self._wrong(f"begins with <{tag}>", "GraphML begins with <graphml>")
        above = self.open[-1] if self.open else ""
        self.open.append(tag)
        if tag == "key":
            self.key, self.of = attributes.get("id", ""), attributes.get("for", "all")
            called = attributes.get("attr.name", self.key)
            self.keys[self.key] = (called, attributes.get("attr.type", "string"))
        elif tag == "graph":
            self._begin_graph(above, attributes)
        elif tag in ("node", "edge"):
            self._begin_row(tag, attributes)
        elif tag == "hyperedge":
            raise self._wrong("has a hyperedge", "an edge of a map has two ends")
        elif tag in ("data", "default"):
            self.key = attributes.get("key", self.key)
            self.text = []

    def _begin_graph(self, above: str, attributes: dict[str, str]) -> None:
        if above != "graphml" or self.rows["graph"]:
            raise self._wrong("has more than one graph", "a map is one graph")
        if attributes.get("edgedefault") != "directed":
            raise self._wrong("has edges without a direction", 'say edgedefault="directed"')
        self.rows["graph"].append(self._started("graph"))

    def _begin_row(self, tag: str, attributes: dict[str, str]) -> None:
        if attributes.get("directed") == "false":
            raise self._wrong(
                "has edges without a direction", "an edge goes to what is depended on"
            )
        row = self._started(tag)
        row.update(attributes if tag == "edge" else {"id": attributes.get("id", "")})
        self.rows[tag].append(row)

    def _started(self, tag: str) -> dict[str, Any]:
        return {**self.defaults["all"], **self.defaults[tag]}

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(" ")[2]
        self.open.pop()
        above = self.open[-1] if self.open else ""
        if tag == "default" and above == "key":
            called, value = self._told()
            if self.of in self.defaults:
                self.defaults[self.of][called] = value
        elif tag == "data" and above in self.rows:
            if self.key not in self.keys:
                raise self._wrong(f"has data of the key {self.key!r}, which it does not declare",
                                  "declare every key before the graph")  # fmt: skip
            called, value = self._told()
            if above != "node" or called != "id":
                self.rows[above][-1][called] = value

    def _told(self) -> tuple[str, Any]:
        called, typed = self.keys[self.key]
        text = "".join(self.text)
        wanted = (NODE_COLUMNS | EDGE_COLUMNS).get(called)
        if wanted != pl.Float64 and not (wanted is None and typed in _NUMBERS):
            return called, text
        try:
            value = float("no number" if "_" in text else text)
        except ValueError:
            raise self._wrong(f"has {text[:40]!r} as {called}", "it must be a number") from None
        return called, None if value != value else value

    def _hear(self, text: str) -> None:
        if self.open and self.open[-1] in ("data", "default"):
            self.text.append(text)

    def _refuse_type(self, *_: Any) -> None:
        raise self._wrong(
            "has a DOCTYPE, and entities are never expanded", "take it out: a map needs none"
        )

    def _frame(self, rows: list[dict[str, Any]], kinds: dict[str, Any], what: str) -> pl.DataFrame:
        columns = {name: [row.get(name) for row in rows] for name in kinds}
        for name, values in columns.items():
            for place, value in enumerate(values, start=1):
                if isinstance(value, float) and value in (float("inf"), float("-inf")):
                    raise self._lost(f"{what} {place} has an infinite {name}", "a number is needed")
        return frame_of(columns, kinds)

    def _wrong(self, what: str, hint: str) -> UnreadableFile:
        """An error of the line that is being read."""
        return self._lost(f"{what} (line {self.parser.CurrentLineNumber})", hint)

    def _lost(self, what: str, hint: str) -> UnreadableFile:
        return UnreadableFile(what, source=self.name, hint=hint)
