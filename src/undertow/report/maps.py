"""The dependency map as one drawing: who holds on the left, what it all stands on at the right.

A drawing is SVG text that opens anywhere and asks nothing of any network. Width is USD at par, and
one scale holds for all of it; colour says how a flow is known, and red that nothing is there or
nobody told. It follows the reader's light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.measures.interconnection.backing import Backing
from undertow.report.flows import ASSUMED, NOT_TOLD, NOTHING_KNOWN, Box, Flows, box_values, flows_of
from undertow.report.ink import EVIDENCE, RED
from undertow.report.markup import NOTHING, Markup, clean, tag
from undertow.report.words import instant, number
from undertow.state import FloatColumn

INK = {**EVIDENCE, ASSUMED: "#8A919B", NOTHING_KNOWN: RED, NOT_TOLD: "#EFA294"}
_SAID = {
    "observed": "observed", "sampled": "sampled", "modelled": "modelled",
    ASSUMED: "taken at its word: nobody said", NOTHING_KNOWN: "nothing behind it",
    NOT_TOLD: "nobody told",
}  # fmt: skip
_HEADS = {"owners": "who holds", "venues": "venues", "holders": "keepers of tokens",
          "tokens": "tokens", "keepers": "keepers", "bottom": "what it ends in"}  # fmt: skip
_WIDE, _TOP, _TALL, _BAR = 1500, 96, 620, 14
_LEFT, _RIGHT = 24, 190
_LINE, _GAP = 17, 7  # least room for a name, and between boxes
_FIRST = 0.4  # of a step: more room behind the first column, whose names are long
_LETTERS = 26
_STUB = 30  # how far a flow to its own box sticks out
_STYLE = """
svg { background: #fbfbf9; font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
text { fill: #1d2126; font-size: 12px; }
.halo { stroke: #fbfbf9; stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; }
.soft { fill: #59616b; } .head { font-weight: 600; } .title { font-size: 18px; font-weight: 600; }
.box { fill: #39414b; } .ring { fill: none; stroke: #1b5fa8; stroke-width: 2.5px; }
.loop { fill: #1b5fa8; font-weight: 600; }
.flow { fill-opacity: .5; } .flow:hover { fill-opacity: .85; }
.back { stroke: #1b5fa8; stroke-width: 1.2px; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
  svg { background: #14171b; } text { fill: #e6e8ea; } .halo { stroke: #14171b; }
  .flow { fill-opacity: .65; } .soft { fill: #a2aab4; } .box { fill: #c3c9d0; }
  .ring { stroke: #8cbce6; }
  .loop { fill: #8cbce6; } .back { stroke: #8cbce6; }
}
"""


def dependency_picture(backing: Backing, *, top: int = 10) -> Markup:
    """A map as SVG, the `top` largest of every column by themselves and the rest in one box."""
    flows = flows_of(backing, top=top)
    laid = _Laid.of(flows)
    ts = backing.map.ts
    title = f"What stands on what, {instant(ts)}" if ts else "What stands on what"
    body = [
        tag("title", title), tag("desc", _READ), tag("style", Markup(_STYLE)),
        tag("text", title, x=_LEFT, y=30, class_="title"),
        *(tag("text", line, x=_LEFT, y=50 + 16 * k, class_="soft")
          for k, line in enumerate(_says(flows))),
        *_heads(laid),
        tag("g", *_ribbons(flows, laid)),
        tag("g", *_boxes(flows, laid)),
        *_legend(flows, laid.tall),
    ]  # fmt: skip
    height = round(laid.tall + 58)
    return tag(
        "svg", *body, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDE} {height}",
        width=_WIDE, height=height, role="img",
    )  # fmt: skip


_READ = (
    "Read from left to right: what a box is made of flows out of it to the right. Width is USD at "
    "par. Colour says how a flow is known. A dashed flow leads back to the left, a short one that "
    "ends beside its box is lent on, to borrowers of the same venue, on what they posted there."
)


def _says(flows: Flows) -> list[str]:
    """What a reader must know of this drawing."""
    first = "Width is USD at par; what a box is made of leaves it to the right."
    if not flows.flows.height:
        return [first, "Nobody holds anything here."]
    rest = ", ".join(f"{count} {_words(column)}" for column, count in flows.folded.items())
    drawn = f"The largest are drawn; {rest} stand together as others." if rest else (
        "All of them are drawn."
    )  # fmt: skip
    return [f"{first} {drawn}"]


def _words(column: str) -> str:
    return {"bottom": "base assets", "holders": "keepers of tokens", "owners": "holders"}.get(
        column, column
    )


@dataclass(frozen=True, eq=False)
class _Laid:
    """Where boxes stand."""

    x: FloatColumn  # left edge, by box
    y: FloatColumn
    height: FloatColumn
    scale: float  # px a USD
    heads: tuple[tuple[float, str], ...]
    column: np.ndarray[tuple[int], np.dtype[np.int64]]
    tall: float  # where the lowest box ends

    @classmethod
    def of(cls, flows: Flows) -> _Laid:
        """Boxes in columns, in the order in which what flows into them comes from the left."""
        column, names = _columns(flows.boxes)
        value = _stacks(flows, column).max(axis=1) if flows.boxes else np.zeros(0)
        scale = _scale(value, column)
        height = np.maximum(value * scale, 2.0)
        step = (_WIDE - _LEFT - _RIGHT - _BAR) / max(len(names) - 1 + _FIRST, 1.0)
        edge = [_LEFT + step * (k + _FIRST * (k > 0)) for k in range(len(names))]
        x = np.array(edge)[column] if len(column) else np.zeros(0)
        y, bottom = np.zeros(len(value)), float(_TOP)
        for k in range(len(names)):
            mine = _ordered(flows, np.flatnonzero(column == k), column, y + height / 2)
            at = float(_TOP)
            for box in mine:
                y[box] = at
                at += max(height[box], _room(flows.boxes[box])) + _GAP
            bottom = max(bottom, at)
        heads = tuple(zip(edge, names, strict=True))
        return cls(x, y, height, scale, heads, column, bottom)


def _room(box: Box) -> int:
    return _LINE * (2 if box.round_usd > 0.0 else 1)


def _columns(
    boxes: Sequence[Box],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    order = list(_HEADS)
    places = {(order.index(b.column), -b.depth if b.column == "tokens" else 0) for b in boxes}
    each = sorted(places)
    at = [each.index((order.index(b.column), -b.depth if b.column == "tokens" else 0))
          for b in boxes]  # fmt: skip
    heads = [
        f"tokens, {-deep} deep" if order[k] == "tokens" else _HEADS[order[k]] for k, deep in each
    ]  # fmt: skip
    return np.array(at, dtype=np.int64), heads


def _stacks(flows: Flows, column: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatColumn:
    """(boxes, left and right edge) What is joined to each edge of each box."""
    found = np.zeros((len(flows.boxes), 2))
    for source, target, _, usd in flows.flows.iter_rows():
        back = column[target] < column[source]
        found[source, 0 if back else 1] += usd
        if source != target:
            found[target, 1 if column[target] <= column[source] else 0] += usd
    return found


def _scale(value: FloatColumn, column: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    """Px a USD, so that the fullest column fits."""
    best = 1.0
    for k in np.unique(column):
        mine = value[column == k]
        room = max(_TALL - (_LINE + _GAP) * len(mine), _TALL / 3)
        best = min(best, room / max(float(mine.sum()), 1e-9))
    return best


def _ordered(
    flows: Flows, mine: np.ndarray[tuple[int], np.dtype[np.int64]],
    column: np.ndarray[tuple[int], np.dtype[np.int64]], middle: FloatColumn,
) -> list[int]:  # fmt: skip
    """Boxes of a column by where their flows come from; the largest first in the first one."""
    if not len(mine):
        return []
    if column[mine[0]] == 0:
        return sorted(mine.tolist(), key=lambda k: (flows.boxes[k].gap, k))
    rows = flows.flows.filter(pl.col("target").is_in(mine.tolist()))
    weight, pull = dict.fromkeys(mine.tolist(), 0.0), dict.fromkeys(mine.tolist(), 0.0)
    for source, target, _, usd in rows.iter_rows():
        if column[source] < column[target]:
            weight[target] += usd
            pull[target] += usd * float(middle[source])
    return sorted(
        mine.tolist(),
        key=lambda k: (flows.boxes[k].gap, pull[k] / weight[k] if weight[k] else 1e9, k),
    )


def _heads(laid: _Laid) -> Iterable[Markup]:
    for x, name in laid.heads:
        yield tag("text", name, x=round(x, 1), y=_TOP - 12, class_="head soft")


def _ribbons(flows: Flows, laid: _Laid) -> Iterable[Markup]:
    """Flows, those of one box stacked in the order of where they go."""
    at = np.stack([laid.y, laid.y], axis=1)  # where the next flow is joined: left and right edge
    y = laid.y
    rows = sorted(
        flows.flows.iter_rows(), key=lambda r: (r[0] == r[1], y[r[1]], y[r[0]], str(r[2]))
    )
    ends = {}
    for row in sorted(rows, key=lambda r: (r[0] == r[1], laid.column[r[1]], y[r[1]])):
        source, target, _, usd = row
        edge = 0 if laid.column[target] < laid.column[source] else 1
        ends[row] = [at[source, edge]]
        at[source, edge] += usd * laid.scale
    for row in sorted(rows, key=lambda r: (laid.column[r[0]], y[r[0]])):
        source, target, _, usd = row
        if source == target:
            continue
        edge = 1 if laid.column[target] <= laid.column[source] else 0
        ends[row].append(at[target, edge])
        at[target, edge] += usd * laid.scale
    for row in rows:
        yield _ribbon(flows, laid, row, *ends[row])


def _ribbon(
    flows: Flows, laid: _Laid, row: tuple[int, int, str, float], y0: float, y1: float | None = None
) -> Markup:
    source, target, known, usd = row
    width = max(usd * laid.scale, 0.6)
    names = (flows.boxes[source].name, flows.boxes[target].name)
    said = tag("title", f"{names[0]} to {names[1]}: {number(usd)} USD, {_SAID[known]}")
    x0, x1 = laid.x[source] + _BAR, laid.x[target]
    if y1 is None:
        path = _stub(x0, y0, width)
    elif laid.column[target] > laid.column[source]:
        path = _band(x0, y0, x1, y1, width)
    elif laid.column[target] < laid.column[source]:
        path = _band(laid.x[source], y0, x1 + _BAR, y1, width)
    else:
        path = _bulge(x0, y0, y1, width)
    back = " back" if laid.column[target] <= laid.column[source] and y1 is not None else ""
    return tag("path", said, d=path, fill=INK[known], class_=f"flow{back}")


def _band(x0: float, y0: float, x1: float, y1: float, width: float) -> str:
    middle = (x0 + x1) / 2
    return (
        f"M{x0:.1f},{y0:.1f} C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f} "
        f"V{y1 + width:.1f} C{middle:.1f},{y1 + width:.1f} {middle:.1f},{y0 + width:.1f} "
        f"{x0:.1f},{y0 + width:.1f} Z"
    )


def _stub(x: float, y: float, width: float) -> str:
    """A flow that ends beside its own box."""
    bend = min(width / 2, _STUB / 2)
    out = x + _STUB - bend
    return (
        f"M{x:.1f},{y:.1f} H{out:.1f} Q{x + _STUB:.1f},{y:.1f} {x + _STUB:.1f},{y + bend:.1f} "
        f"V{y + width - bend:.1f} Q{x + _STUB:.1f},{y + width:.1f} {out:.1f},{y + width:.1f} "
        f"H{x:.1f} Z"
    )


def _bulge(x: float, y0: float, y1: float, width: float) -> str:
    """A flow between two boxes of one column."""
    out, low = x + 70 + width, y1 + width
    return (
        f"M{x:.1f},{y0:.1f} C{out:.1f},{y0:.1f} {out:.1f},{low:.1f} {x:.1f},{low:.1f} "
        f"V{y1:.1f} C{out - width:.1f},{y1:.1f} {out - width:.1f},{y0 + width:.1f} "
        f"{x:.1f},{y0 + width:.1f} Z"
    )


def _boxes(flows: Flows, laid: _Laid) -> Iterable[Markup]:
    made, into = box_values(flows.boxes, flows.flows).T
    for k, box in enumerate(flows.boxes):
        x, y, height = laid.x[k], laid.y[k], laid.height[k]
        ink = {"fill": INK[box.name if box.name in INK else NOT_TOLD]} if box.gap else {}
        place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": _BAR, "height": f"{height:.1f}"}
        yield tag("rect", **place, **ink, class_=None if box.gap else "box")
        if box.circle:
            yield tag("rect", **place, class_="ring")
        middle = y + max(height, _room(box)) / 2 + 4 - (_room(box) - _LINE) / 2
        usd, said = float(made[k] or into[k]), f"{number(float(into[k]))} USD lead here"
        yield _label(box, usd, said if into[k] else "", x + _BAR + 5, middle)


def _label(box: Box, usd: float, into: str, x: float, y: float) -> Markup:
    """Its name and what it is made of; under the pointer also what leads to it."""
    loop: Markup = NOTHING
    if box.round_usd > 0.0:
        said = f"↻ {number(box.round_usd)} goes round"
        loop = tag("tspan", said, x=f"{x:.1f}", dy=15, class_="loop")
    elif box.circle:
        loop = tag("tspan", " ↻", class_="loop")
    return tag(
        "text", tag("title", "; ".join(filter(None, (clean(box.name), into)))), _cut(box.name),
        tag("tspan", f"  {number(usd)}", class_="soft"), loop,
        x=f"{x:.1f}", y=f"{y:.1f}", class_="halo",
    )  # fmt: skip


def _cut(name: str) -> str:
    whole = " ".join(clean(name).split()) or "(no name)"
    return whole if len(whole) <= _LETTERS else f"{whole[: _LETTERS - 9]}…{whole[-8:]}"


def _legend(flows: Flows, tall: float) -> Iterable[Markup]:
    there = set(flows.flows["known"]) if flows.flows.height else set()
    x, y = float(_LEFT), round(tall + 26)
    for word, ink in INK.items():
        if word in there:
            yield tag("rect", x=round(x), y=y - 10, width=18, height=11, fill=ink)
            yield tag("text", _SAID[word], x=round(x) + 24, y=y, class_="soft")
            x += 48 + 6.6 * len(_SAID[word])
    signs = ["↻ in a circle"] if any(box.circle for box in flows.boxes) else []
    if any(source == target for source, target, *_ in flows.flows.iter_rows()):
        signs.append("a short end: lent on, to borrowers of the same venue")
    column, _ = _columns(flows.boxes)
    ends = flows.flows.select("source", "target").iter_rows()
    if any(source != target and column[target] <= column[source] for source, target in ends):
        signs.append("dashed: leads back to the left")
    yield tag("text", "   ·   ".join(signs), x=_LEFT, y=y + 20, class_="soft")
