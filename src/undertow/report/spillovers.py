"""Figures of who moves whom: the graph, net givers and takers, drivers, scores."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import BLUE, FAINT, GREY, RED, framed
from undertow.report.scales import band_lines, banded, labels, plain, stacked, times
from undertow.report.together import Tables
from undertow.report.words import chance, number

_NODES, _EDGES, _ROWS = 30, 60, 40  # what a figure can hold and still be read


def graph(tables: Tables) -> go.Figure:
    """Who passes shocks to whom: the strongest links between the largest nodes, on a circle."""
    every = tables["nodes"].with_columns(weight=pl.col("to").abs() + pl.col("from").abs())
    nodes = every.sort("weight", descending=True).head(_NODES).sort("net", descending=True)
    names = nodes["node"].to_list()
    turn = 2.0 * math.pi / max(len(names), 1)
    spot = {n: (math.sin(i * turn), math.cos(i * turn)) for i, n in enumerate(names)}
    across = tables["table"].filter(
        pl.col("to_node").is_in(names)
        & pl.col("from_node").is_in(names)
        & (pl.col("to_node") != pl.col("from_node"))
        & (pl.col("share") > 0)
    )
    links = across.sort("share", descending=True).head(_EDGES)
    figure = go.Figure()
    widest = max(links["share"].to_list(), default=1.0)
    given = labels(names)
    for to, source, share in links.reverse().select("to_node", "from_node", "share").iter_rows():
        said = f"{given[source]} to {given[to]}<br>share {number(share)}"
        figure.add_trace(_link(spot[source], spot[to], share / widest, said))
    figure.add_trace(_circle(nodes, spot, given))
    framed(figure, 620, note=_left_out(every.height, len(names), across.height, links.height))
    figure.update_xaxes(visible=False, range=[-1.75, 1.75])
    figure.update_yaxes(visible=False, range=[-1.25, 1.25], scaleanchor="x")
    return figure


def _link(
    start: tuple[float, float], end: tuple[float, float], weight: float, said: str
) -> go.Scatter:
    """An arrow that bends to the middle, so that two ways of one pair lie apart."""
    middle = (0.32 * (start[0] + end[0]) + 0.12 * (end[1] - start[1]),
              0.32 * (start[1] + end[1]) - 0.12 * (end[0] - start[0]))  # fmt: skip
    steps = [k / 16 for k in range(16)]  # stops short of the node, where the arrow's head is
    x, y = (
        [round((1 - s) ** 2 * start[d] + 2 * s * (1 - s) * middle[d] + s * s * end[d], 4)
         for s in steps]
        for d in (0, 1)
    )  # fmt: skip
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        opacity=0.25 + 0.6 * weight,
        line={"color": GREY, "width": 0.6 + 4.4 * weight},
        marker={
            "symbol": "arrow",
            "angleref": "previous",
            "color": GREY,
            "size": [0] * 15 + [8 + 8 * weight],
        },
        customdata=[said] * 16,
        hovertemplate="%{customdata}",
    )


def _circle(
    nodes: pl.DataFrame, spot: dict[str, tuple[float, float]], given: dict[str, str]
) -> go.Scatter:
    names = nodes["node"].to_list()
    largest = nodes["net"].abs().max()
    scale = float(largest) if isinstance(largest, float | int) and largest else 1.0
    return go.Scatter(
        x=[round(spot[n][0], 4) for n in names],
        y=[round(spot[n][1], 4) for n in names],
        mode="markers+text",
        text=[given[n] for n in names],
        textposition=[_beside(*spot[n]) for n in names],
        textfont={"size": 11},
        marker={
            "color": [RED if (v or 0) > 0 else BLUE for v in nodes["net"]],
            "size": [10 + 18 * abs(v or 0) / scale for v in nodes["net"]],
            "line": {"width": 0},
            "opacity": 1,
        },
        customdata=_flows(nodes),
        hovertemplate="%{text}<br>gives %{customdata[0]}, takes %{customdata[1]}<br>"
        "net %{customdata[2]}",
        cliponaxis=False,
    )


def _beside(x: float, y: float) -> str:
    if abs(x) < 0.12:
        return "top center" if y > 0 else "bottom center"
    return "middle right" if x > 0 else "middle left"


def _flows(nodes: pl.DataFrame) -> list[list[str]]:
    words = banded(nodes, "net", "net_low", "net_high")
    return [
        [number(to), number(source), net]
        for (to, source), net in zip(nodes.select("to", "from").iter_rows(), words, strict=True)
    ]


def _left_out(nodes: int, kept: int, links: int, drawn: int) -> str:
    words = []
    if nodes > kept:
        words.append(f"the {kept} nodes that give and take most, of {nodes}")
    if links > drawn:
        words.append(f"the {drawn} strongest of {links} links")
    return f"Drawn: {' and '.join(words)}." if words else ""


def net(tables: Tables) -> go.Figure:
    """What each node gives less what it takes, with its band."""
    every = tables["nodes"].sort("net", descending=True)
    rows = ends(every)
    names = [labels(rows["node"].to_list())[n] for n in rows["node"]]
    bars = go.Bar(
        y=names,
        x=plain(rows["net"]),
        orientation="h",
        marker={
            "color": [RED if (v or 0) > 0 else BLUE for v in rows["net"]],
            "opacity": FAINT,
        },
        customdata=_flows(rows),
        hovertemplate="%{y}<br>net %{customdata[2]}<br>gives %{customdata[0]}, "
        "takes %{customdata[1]}",
    )
    figure = go.Figure([bars, band_lines(rows, "net_low", "net_high", names)])
    note = f"Drawn: both ends of {every.height} nodes." if rows.height < every.height else ""
    framed(figure, 100 + 22 * max(rows.height, 3), note=note)
    figure.update_xaxes(title={"text": "gives less takes"}, zeroline=True)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def ends(rows: pl.DataFrame) -> pl.DataFrame:
    """All rows, or as many from either end as a figure can hold."""
    if rows.height <= _ROWS:
        return rows
    return pl.concat([rows.head(_ROWS // 2), rows.tail(_ROWS // 2)])


def total(tables: Tables) -> go.Figure:
    """Connectedness of all nodes over time, against what chance reaches."""
    rows = tables["rolling"].sort("ts")
    at = times(rows["ts"])
    figure = go.Figure(
        [
            go.Scatter(
                x=at, y=plain(rows["total"]), name="total", mode="lines",
                line={"color": BLUE, "width": 1.8}, hovertemplate="%{x}<br>total %{y:.4g}",
            ),
            go.Scatter(
                x=at, y=plain(rows["null_high"]), name="chance, upper bound", mode="lines",
                line={"color": GREY, "dash": "dash"}, hovertemplate="chance reaches %{y:.4g}",
            ),
        ]
    )  # fmt: skip
    framed(figure, 340, legend=True)
    figure.update_yaxes(title={"text": "total connectedness"}, rangemode="tozero")
    return figure


def drivers(tables: Tables) -> go.Figure:
    """What moves leverage: coefficients with bands, and how much each explains."""
    every = tables["drivers"].sort("share", descending=True, nulls_last=True)
    rows = every.head(_ROWS)
    names = [labels(rows["driver"].to_list())[n] for n in rows["driver"]]
    sure = [p is not None and p < 0.05 for p in rows["p_value"]]
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.66, 0.34], horizontal_spacing=0.03,
        subplot_titles=stacked(("coefficient", "share explained")),
    )  # fmt: skip
    figure.add_trace(band_lines(rows, "low", "high", names), 1, 1)
    figure.add_trace(
        go.Scatter(
            x=plain(rows["coefficient"]),
            y=names,
            mode="markers",
            marker={"size": 10, "color": BLUE,
                    "symbol": ["circle" if s else "circle-open" for s in sure]},
            customdata=[[w, chance(p)] for w, p in
                        zip(banded(rows, "coefficient", "low", "high"), rows["p_value"],
                            strict=True)],
            hovertemplate="%{y}<br>coefficient %{customdata[0]}<br>p %{customdata[1]}",
        ), 1, 1,
    )  # fmt: skip
    figure.add_trace(
        go.Bar(
            x=plain(rows["share"]), y=names, orientation="h", marker={"color": GREY},
            hovertemplate="%{y}<br>share explained %{x:.3g}",
        ), 1, 2,
    )  # fmt: skip
    note = f"Drawn: the {rows.height} that explain most, of {every.height}."
    framed(figure, 110 + 26 * max(rows.height, 3), note=note if rows.height < every.height else "")
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(zeroline=True)
    return figure


def scores(tables: Tables) -> go.Figure:
    """How well each model foretold: its score with band, and its hits beside what was expected."""
    rows = tables["scores"].head(_ROWS)
    names = [labels(rows["model"].to_list())[n] for n in rows["model"]]
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.6, 0.4], horizontal_spacing=0.03,
        subplot_titles=stacked(("score", "hits; mark: expected")),
    )  # fmt: skip
    figure.add_trace(band_lines(rows, "low", "high", names), 1, 1)
    figure.add_trace(
        go.Scatter(
            x=plain(rows["score"]), y=names, mode="markers", marker={"size": 10, "color": BLUE},
            customdata=banded(rows, "score", "low", "high"),
            hovertemplate="%{y}<br>score %{customdata}",
        ), 1, 1,
    )  # fmt: skip
    figure.add_trace(
        go.Bar(
            x=plain(rows["hits"]), y=names, orientation="h", marker={"color": GREY}, width=0.5,
            hovertemplate="%{y}<br>%{x} hits",
        ), 1, 2,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=plain(rows["expected"]), y=names, mode="markers",
            marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": RED}},
            hovertemplate="%{y}<br>%{x:.4g} expected",
        ), 1, 2,
    )  # fmt: skip
    framed(figure, 110 + 32 * max(rows.height, 2))
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
