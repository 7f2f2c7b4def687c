"""Figures of leverage that moves together: who with whom, when, and in how many directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    BLUE_BAND,
    FAINT,
    GREY,
    GREY_BAND,
    RED,
    RED_BAND,
    SIGNED,
    coloured,
    framed,
)
from undertow.report.scales import (
    alike,
    band_lines,
    banded,
    labels,
    plain,
    ribbon,
    square,
    stacked,
    times,
)
from undertow.report.words import chance as p_value
from undertow.report.words import number

Tables = Mapping[str, pl.DataFrame]

_SURE = 0.05  # a pair below it, after correction for all pairs, is drawn above the diagonal too
_ROOMY = 45  # up to so many series a cell's hover also says band and chance


def matrix(tables: Tables) -> go.Figure:
    """Correlation of every pair, a panel per layer, in one order that puts like beside like."""
    pairs = tables["pairs"]
    layers = pairs["layer"].unique(maintain_order=True).to_list()
    parts = {layer: pairs.filter(pl.col("layer") == layer) for layer in layers}
    names = _in_order(parts[layers[0]], pairs)
    figure = make_subplots(
        1,
        len(layers),
        subplot_titles=stacked(labels(layers).values()),
        shared_yaxes=True,
        horizontal_spacing=0.02,
    )
    for k, layer in enumerate(layers, start=1):
        heat = _heat(parts[layer], names, "correlation", "p_corrected", ("low", "high"))
        heat.update(coloraxis="coloraxis")
        figure.add_trace(heat, 1, k)
    coloured(figure, SIGNED, "correlation", -1.0, 1.0)
    framed(figure, _tall(names, len(layers)))
    _square_axes(figure)
    return figure


def _in_order(first: pl.DataFrame, pairs: pl.DataFrame) -> list[str]:
    names = pl.concat([pairs["a"], pairs["b"]]).unique(maintain_order=True).sort().to_list()
    return [names[i] for i in alike(square(first, names, "correlation"))]


def _heat(
    pairs: pl.DataFrame,
    names: Sequence[str],
    value: str,
    chance: str,
    interval: tuple[str, str] | None = None,
) -> go.Heatmap:
    """All pairs below the diagonal; above it only those that are more than chance."""
    shown = square(pairs, names, value)
    chances = square(pairs, names, chance)
    upper = np.triu(np.ones(shown.shape, dtype=bool))
    shown[upper & ~(chances < _SURE)] = np.nan
    given = labels(names)
    hover = f"%{{y}} and %{{x}}<br>{value} %{{z:.3f}}"
    behind = None
    if len(names) <= _ROOMY:
        behind = _in_words(pairs, names, chance, interval)
        hover += "<br>%{text}"
    axis = [given[name] for name in names]
    return go.Heatmap(
        z=plain(shown), x=axis, y=axis, text=behind, hoverongaps=False, hovertemplate=hover
    )


def _in_words(
    pairs: pl.DataFrame, names: Sequence[str], chance: str, interval: tuple[str, str] | None
) -> list[list[str]]:
    """Band and chance of each cell, in words."""
    place = {name: i for i, name in enumerate(names)}
    words = [[""] * len(names) for _ in names]
    low, high = interval or (chance, chance)
    for a, b, p, least, most in pairs.select("a", "b", p=chance, s=low, t=high).iter_rows():
        band = f"band {number(least)} to {number(most)}, " if interval else ""
        said = f"{band}p {p_value(p)} after correction" if interval else f"p {p_value(p)}"
        words[place[a]][place[b]] = words[place[b]][place[a]] = said
    return words


def _tall(names: Sequence[str], panels: int) -> int:
    """Height of a row of square panels with room for names, never much taller than a screen."""
    widest = {1: 760, 2: 520}.get(panels, 400)
    room = 5 * max(len(label) for label in labels(names).values())
    return int(min(widest, max(240, 22 * len(names)))) + 80 + room


def _square_axes(figure: go.Figure) -> None:
    """Names on both sides, thinned where they would overlap; the first series on top."""
    figure.update_xaxes(
        type="category", tickangle=-60, showgrid=False, zeroline=False, tickfont={"size": 10}
    )
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, zeroline=False, tickfont={"size": 10}
    )


def layers(tables: Tables) -> go.Figure:
    """Mean correlation of each layer, with its band."""
    rows = tables["layers"]
    names = [labels(rows["layer"].to_list())[name] for name in rows["layer"]]
    bars = go.Bar(
        y=names,
        x=plain(rows["mean_correlation"]),
        orientation="h",
        width=0.5,
        marker={"color": BLUE, "opacity": FAINT},
        customdata=[
            [words, p_value(p), nodes, steps]
            for words, p, nodes, steps in zip(
                banded(rows, "mean_correlation", "low", "high"),
                rows["p_value"],
                rows["nodes"],
                rows["steps"],
                strict=True,
            )
        ],
        hovertemplate="%{y}<br>mean correlation %{customdata[0]}<br>p %{customdata[1]}, "
        "%{customdata[2]} series, %{customdata[3]} steps",
    )
    figure = go.Figure([bars, band_lines(rows, "low", "high", names)])
    framed(figure, 90 + 44 * rows.height)
    figure.update_xaxes(title="mean correlation of all pairs", zeroline=True)
    figure.update_yaxes(autorange="reversed")
    return figure


def index(tables: Tables) -> go.Figure:
    """The tandem index over time with its band, phases behind it and common unwinds marked."""
    rows = tables["index"].sort("ts")
    at = times(rows["ts"])
    figure = go.Figure()
    if (turns := tables.get("tandem.cycle/turns")) is not None and turns.height:
        figure.add_trace(_unwinding_share(turns, at))
    figure.add_traces(ribbon(at, rows["low"], rows["high"], BLUE_BAND, "band"))
    for column, dash, color in (("rolling", "solid", BLUE), ("ewma", "dot", GREY),
                                ("dcc", "dash", RED)):  # fmt: skip
        if rows[column].drop_nulls().len():
            figure.add_trace(_line(at, rows[column], column, color, dash))
    if (events := tables.get("tandem.unwinding/events")) is not None and events.height:
        _mark(figure, events)
    framed(figure, 420, legend=True)
    figure.update_layout(
        yaxis2={
            "overlaying": "y", "side": "right", "range": [0, 1], "showgrid": False,
            "title": {"text": "share of nodes unwinding"}, "automargin": True,
            "tickmode": "linear", "tick0": 0, "dtick": 0.25,
        },
        hovermode="x unified",
    )  # fmt: skip
    figure.layout.yaxis.title.text = "mean correlation"
    return figure


def _line(
    at: Sequence[Any], values: pl.Series, name: str, color: str, dash: str = "solid"
) -> go.Scatter:
    return go.Scatter(
        x=at,
        y=plain(values),
        name=name,
        mode="lines",
        line={"color": color, "width": 1.8, "dash": dash},
        hovertemplate=f"{name} %{{y:.4g}}",
    )


def _unwinding_share(turns: pl.DataFrame, at: Sequence[Any]) -> go.Scatter:
    """Share of nodes between a peak and their next trough, at each instant."""
    instants = np.array(at, dtype="datetime64[us]")
    falling = np.zeros(instants.size)
    nodes = turns.sort("ts").partition_by("node", maintain_order=True)
    for one in nodes:
        when = np.array(times(one["ts"]), dtype="datetime64[us]")
        peaks = (one["kind"] == "peak").to_numpy()
        last = np.searchsorted(when, instants, side="right") - 1
        falling += np.where(last >= 0, peaks[np.maximum(last, 0)], ~peaks[0])
    return go.Scatter(
        x=at,
        y=plain(falling / len(nodes)),
        yaxis="y2",
        name="share of nodes unwinding",
        mode="lines",
        line={"width": 0, "shape": "hv"},
        fill="tozeroy",
        fillcolor=GREY_BAND,
        hovertemplate="%{y:.3g} of nodes unwinding",
    )


def _mark(figure: go.Figure, events: pl.DataFrame) -> None:
    """A field from start to end of each common unwind, a sign at its peak."""
    start, peak, end = (times(events[column]) for column in ("start", "peak", "end"))
    for a, b in zip(start, end, strict=True):
        figure.add_vrect(x0=a, x1=b, fillcolor=RED_BAND, line_width=0, layer="below")
    sure = [p is not None and p < _SURE for p in events["p_value"]]
    figure.add_trace(
        go.Scatter(
            x=peak,
            y=[1.0] * events.height,
            yaxis="y2",
            name="common unwind (open: may be chance)",
            mode="markers",
            marker={
                "symbol": ["triangle-down" if s else "triangle-down-open" for s in sure],
                "size": 11,
                "color": RED,
            },
            cliponaxis=False,
            customdata=[
                [a, b, p_value(p), count]
                for a, b, p, count in zip(
                    start, end, events["p_value"], events["count"], strict=True
                )
            ],
            hovertemplate="unwind of %{customdata[3]} nodes, %{customdata[0]} to %{customdata[1]}, "
            "p %{customdata[2]}",
        )
    )


def absorption(tables: Tables) -> go.Figure:
    """Share of all movement that a few common directions carry, and how fast it changes."""
    rows = tables["absorption"].sort("ts")
    at = times(rows["ts"])
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    figure.add_trace(_line(at, rows["ratio"], "absorption ratio", BLUE), 1, 1)
    shift = rows["shift"]
    bars = go.Bar(
        x=at,
        y=plain(shift),
        marker={"color": [RED if (v or 0) > 0 else GREY for v in shift], "line": {"width": 0}},
        hovertemplate="%{x}<br>shift %{y:.3g}",
    )
    figure.add_trace(bars, 2, 1)
    framed(figure, 420)
    figure.update_layout(bargap=0)
    figure.update_yaxes(title={"text": "ratio"}, row=1, col=1)
    figure.update_yaxes(title={"text": "shift"}, row=2, col=1)
    return figure


def scree(tables: Tables) -> go.Figure:
    """Strength of each common direction against what chance alone would make."""
    rows = tables["spectrum"].sort("rank")
    rank = plain(rows["rank"])
    above = [v is not None and n is not None and v > n
             for v, n in rows.select("eigenvalue", "chance_high").iter_rows()]  # fmt: skip
    figure = go.Figure(
        [
            go.Scatter(
                x=rank,
                y=plain(rows["chance_high"]),
                name="chance, upper bound",
                mode="lines",
                line={"color": GREY, "dash": "dash"},
                hovertemplate="chance reaches %{y:.4g}",
            ),
            go.Scatter(
                x=rank,
                y=plain(rows["eigenvalue"]),
                name="eigenvalue (filled: more than chance)",
                mode="markers",
                marker={"color": BLUE, "size": 9,
                        "symbol": ["circle" if a else "circle-open" for a in above]},
                hovertemplate="direction %{x}: eigenvalue %{y:.4g}",
            ),
        ]
    )  # fmt: skip
    framed(figure, 340, legend=True)
    figure.update_xaxes(title={"text": "rank of the common direction"})
    figure.update_yaxes(title={"text": "eigenvalue"}, rangemode="tozero")
    return figure


def concordance(tables: Tables) -> go.Figure:
    """Time in which two nodes are in the same phase beyond chance; 0.5 is always in step."""
    pairs = tables["concordance"]
    names = pl.concat([pairs["a"], pairs["b"]]).unique().sort().to_list()
    names = [names[i] for i in alike(2.0 * square(pairs, names, "adjusted"))]
    heat = _heat(pairs, names, "adjusted", "p_corrected", ("low", "high"))
    heat.update(coloraxis="coloraxis")
    figure = go.Figure(heat)
    coloured(figure, SIGNED, "in step", -0.5, 0.5)
    framed(figure, _tall(names, 2))
    _square_axes(figure)
    return figure
