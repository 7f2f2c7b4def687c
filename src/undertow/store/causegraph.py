"""A graph of causes as text that other programs read: GraphML, or JSON of nodes and edges.

Nodes are what happened, edges point from a cause to what came of it, and `usd` is what of the
losses at the end leads through each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as Xml

import polars as pl

from undertow.errors import StateError

FORMAT = "undertow-causes/1"
ENDINGS = (".graphml", ".json")
_KINDS = {pl.String: "string", pl.Int64: "long", pl.Float64: "double", pl.Boolean: "boolean"}
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # what XML cannot hold


def graph_text(
    nodes: pl.DataFrame, edges: pl.DataFrame, facts: Mapping[str, Any], ending: str
) -> str:
    """The graph in the form that an ending stands for.

    Raises
    ------
    StateError
        When it stands for none.
    """
    if ending == ".json":
        head = {"format": FORMAT, **facts}
        return json.dumps(
            {**head, "nodes": nodes.to_dicts(), "edges": edges.to_dicts()},
            indent=1, ensure_ascii=False, allow_nan=False,
        )  # fmt: skip
    if ending != ".graphml":
        raise StateError(f"a graph was to end in {ending!r}; it may be {', '.join(ENDINGS)}")
    return _graphml(nodes, edges, facts)


def _graphml(nodes: pl.DataFrame, edges: pl.DataFrame, facts: Mapping[str, Any]) -> str:
    root = Xml.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    told = {"format": FORMAT, **facts}
    for name in told:
        _key(root, "graph", name, "string")
    for what, rows, ids in (("node", nodes, ("node",)), ("edge", edges, ("source", "target"))):
        for name, kind in rows.schema.items():
            if name not in ids:
                _key(root, what, name, _KINDS[type(kind)])
    graph = Xml.SubElement(root, "graph", edgedefault="directed")
    for name, value in told.items():
        _data(graph, "graph", name, value)
    for row in nodes.iter_rows(named=True):
        node = Xml.SubElement(graph, "node", id=_clean(row.pop("node")))
        for name, value in row.items():
            _data(node, "node", name, value)
    for row in edges.iter_rows(named=True):
        ends = {end: _clean(row.pop(end)) for end in ("source", "target")}
        edge = Xml.SubElement(graph, "edge", ends)
        for name, value in row.items():
            _data(edge, "edge", name, value)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _key(root: Xml.Element, what: str, name: str, kind: str) -> None:
    about = {"id": f"{what}_{name}", "for": what, "attr.name": name, "attr.type": kind}
    Xml.SubElement(root, "key", about)


def _data(place: Xml.Element, what: str, name: str, value: Any) -> None:
    if value is None:
        return
    text = str(value).lower() if isinstance(value, bool) else _clean(str(value))
    Xml.SubElement(place, "data", key=f"{what}_{name}").text = text


def _clean(text: str) -> str:
    return _UNFIT.sub("�", text)
