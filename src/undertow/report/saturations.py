"""Figures of how much worse a fall becomes, and of where the book sells itself and who carries it.

A direction is a common move, or the fall of one asset alone; a size on it is a share of the price.
"""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    BLUE_BAND,
    FAINT,
    GREY,
    GREY_BAND,
    MANY,
    RED,
    RED_BAND,
    framed,
)
from undertow.report.scales import band_lines, banded, labels, plain, ribbon, stacked
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS, _LINES, _CARRIERS, _MOST = 40, 6, 3, 8  # what a figure can hold and still be read
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKET = "fall"  # of everything


def fragility(tables: Tables) -> go.Figure:
    """What is closed by force and lost in the end, by the size of the first fall, with bands."""
    rows = tables["curve"].sort("shock")
    at = plain(rows["shock"])
    figure = go.Figure()
    for column, low, high, name, whole, color, band, dash in (
        ("liquidated_share", "low", "high", "closed by force", "all that was held", BLUE,
         BLUE_BAND, "solid"),
        ("insolvency_share", "insolvency_low", "insolvency_high", "lost beyond equity",
         "what is leveraged", RED, RED_BAND, "dash"),
    ):  # fmt: skip
        words = banded(rows, column, low, high)
        line = go.Scatter(
            x=at, y=plain(rows[column]), name=name, mode="lines+markers",
            line={"color": color, "width": 2, "dash": dash},
            marker={"size": 5, "symbol": _settled(rows)},
            customdata=list(map(list, zip(words, rows["outcome"], strict=True))),
            hovertemplate=f"a shock of %{{x:.1%}}: {name} %{{customdata[0]}} of {whole}, "
            "%{customdata[1]}",
        )  # fmt: skip
        area = ribbon(at, rows[low], rows[high], band, f"{name}, band")
        figure.add_traces([*area, line])
    edges = _edges(tables)
    framed(figure, 400, legend=True)
    _mark(figure, edges)
    figure.update_xaxes(title={"text": "shock: common move of prices"}, tickformat=".3~p",
                        rangemode="tozero")  # fmt: skip
    figure.update_yaxes(title={"text": "share"}, tickformat=".3~p", rangemode="tozero")  # fmt: skip
    return figure


def _settled(rows: pl.DataFrame) -> list[str]:
    """An open sign where the cascade was still running when it was cut off."""
    return ["circle" if each in ("settled", "") else "circle-open" for each in rows["outcome"]]


def _edges(tables: Tables) -> dict[str, float | None]:
    """Where a fall of the market saturates the book, and where its simulation jumps."""
    rows = tables.get("crowding.saturation/directions")
    if rows is None or not (found := rows.filter(pl.col("direction") == _MARKET)).height:
        return {}
    return found.row(0, named=True)


def _mark(figure: go.Figure, edges: dict[str, float | None]) -> None:
    """Upright lines at saturation, with its band, and at the knee; the nearer is named leftward."""
    at, knee = edges.get("at"), edges.get("knee")
    low, high = edges.get("at_low"), edges.get("at_high")
    if low is not None and high is not None:
        figure.add_vrect(x0=low, x1=high, fillcolor=GREY_BAND, line_width=0, layer="below")
    for place, other, text, dash in ((at, knee, "δ*", "dash"), (knee, at, "knee", "dot")):
        if place is None:
            continue
        left = other is not None and (place < other or (place == other and text == "knee"))
        figure.add_vline(
            x=place, line={"color": GREY, "width": 2, "dash": dash},
            annotation={"text": f"{text} {place:.1%}", "xanchor": "right" if left else "left",
                        "showarrow": False, "font": {"size": 12}, "yanchor": "bottom"},
        )  # fmt: skip


def deepened(tables: Tables) -> go.Figure:
    """How far prices fall in the end for a first fall, and how many times that is."""
    rows = tables["curve"].sort("shock")
    at = plain(rows["shock"])
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.66, 0.34],
                           vertical_spacing=0.06)  # fmt: skip
    fallen = go.Scatter(
        x=at, y=plain(rows["final_fall"]), name="in the end", mode="lines+markers",
        line={"color": RED, "width": 2}, marker={"size": 5, "symbol": _settled(rows)},
        customdata=banded(rows, "final_fall", "fall_low", "fall_high"),
        hovertemplate="a shock of %{x:.1%} ends at %{customdata}",
    )  # fmt: skip
    turn = -1.0 if (rows["final_fall"].sum() or 0.0) < 0.0 else 1.0  # falls of a rise are negative
    same = go.Scatter(
        x=at, y=plain(turn * rows["shock"]), name="were nothing sold", mode="lines",
        line={"color": GREY, "dash": "dash"},
        hovertemplate="were nothing sold: %{y:.1%}",
    )  # fmt: skip
    times = go.Scatter(
        x=at, y=plain(rows["amplification"]), name="amplification", mode="lines",
        line={"color": BLUE, "width": 2}, hovertemplate="a shock of %{x:.1%}: times %{y:.3g}",
    )  # fmt: skip
    band = ribbon(at, rows["fall_low"], rows["fall_high"], RED_BAND, "band")
    figure.add_traces([*band, same, fallen], rows=1, cols=1)
    figure.add_trace(times, 2, 1)
    framed(figure, 460, legend=True)
    figure.update_xaxes(tickformat=".3~p")
    figure.update_xaxes(title={"text": "shock: common move of prices"}, row=2)
    figure.update_yaxes(title={"text": "final fall"}, tickformat=".3~p", rangemode="tozero", row=1)
    figure.update_yaxes(title={"text": "times the first"}, row=2)
    return figure


def rho(tables: Tables) -> go.Figure:
    """The undertow index along each direction, up to where forced sales carry themselves on."""
    rows = tables["path"].sort("shock")
    every = tables["path"]["direction"].unique(maintain_order=True).to_list()
    kept = every[:_LINES]
    given = labels(kept)
    places = tables.get("crowding.saturation/directions")
    ends = {} if places is None else dict(places.select("direction", "at").iter_rows())
    figure = go.Figure()
    for k, direction in enumerate(kept):
        part = rows.filter(pl.col("direction") == direction)
        color, name = MANY[k % len(MANY)], given[direction]
        line = go.Scatter(
            x=plain(part["shock"]), y=plain(part["rho"]), name=name, legendgroup=name,
            mode="lines", line={"color": color, "dash": _DASHES[k % len(_DASHES)], "width": 2},
            customdata=[
                [f"{number(100.0 * fall)} %" if fall is not None else "-", number(swing),
                 "at rest" if settled else "not at rest"]
                for fall, swing, settled in part.select("fall", "swing", "settled").iter_rows()
            ],
            hovertemplate=f"{name} of %{{x:.1%}}: rho %{{y:.3g}}, %{{customdata[2]}}<br>"
            "prices end %{customdata[0]} off, swing %{customdata[1]}",
        )  # fmt: skip
        figure.add_trace(line)
        if (at := ends.get(direction)) is not None:
            figure.add_trace(_end(at, name, color))
    note = f"Drawn: {len(kept)} of {len(every)} directions." if len(kept) < len(every) else ""
    framed(figure, 420, legend=True, note=note)
    figure.add_hline(y=1.0, line={"color": GREY, "dash": "dash", "width": 1.5})
    figure.update_xaxes(title={"text": "shock"}, tickformat=".3~p", rangemode="tozero")
    figure.update_yaxes(title={"text": "rho"}, rangemode="tozero")
    return figure


def _end(at: float, name: str, color: str) -> go.Scatter:
    return go.Scatter(
        x=[at], y=[1.0], mode="markers", showlegend=False, legendgroup=name,
        marker={"symbol": "x", "size": 11, "color": color},
        hovertemplate=f"{name}: forced sales carry themselves on from %{{x:.2%}}",
    )  # fmt: skip


def reach(tables: Tables) -> go.Figure:
    """How far every direction is from saturation, with its band, beside the simulated knee."""
    every = tables["directions"].sort("at", nulls_last=True, maintain_order=True)
    rows = every.head(_ROWS)
    given = labels(rows["direction"].to_list())
    names = [given[each] for each in rows["direction"]]
    known = rows.drop_nulls("at")
    said = [
        [words, number(now), number(strongest), number(jump)]
        for words, (now, strongest, jump) in zip(
            banded(known, "at", "at_low", "at_high"),
            known.select("now", "strongest", "jump").iter_rows(),
            strict=True,
        )
    ]
    points = go.Scatter(
        x=plain(known["at"]), y=[given[d] for d in known["direction"]], mode="markers", name="δ*",
        marker={"color": BLUE, "size": 10}, customdata=said,
        hovertemplate="%{y}: saturates at %{customdata[0]}, and prices jump by %{customdata[3]}"
        "<br>rho %{customdata[1]} now, %{customdata[2]} at most before",
    )  # fmt: skip
    knees = go.Scatter(
        x=plain(rows["knee"]), y=names, mode="markers", name="knee of the simulated cascade",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        hovertemplate="%{y}: the simulated cascade jumps at %{x:.2%}",
    )  # fmt: skip
    never = rows.filter(pl.col("at").is_null())
    none = go.Scatter(
        x=plain(never["furthest"]), y=[given[d] for d in never["direction"]], mode="markers",
        name="none up to here", marker={"symbol": "triangle-right-open", "size": 11, "color": GREY},
        customdata=[[number(now), number(most)]
                    for now, most in never.select("now", "strongest").iter_rows()],
        hovertemplate="%{y}: no saturation up to %{x:.1%}<br>rho %{customdata[0]} now, "
        "%{customdata[1]} at most",
    )  # fmt: skip
    note = f"Drawn: the {rows.height} nearest of {every.height} directions."
    figure = go.Figure([band_lines(rows, "at_low", "at_high", names), none, knees, points])
    framed(figure, 130 + 24 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=names)
    figure.update_xaxes(title={"text": "shock"}, tickformat=".3~p", rangemode="tozero")
    return figure


def carriers(tables: Tables) -> go.Figure:
    """Which assets and venues carry forced sales on, a row a direction."""
    parts = (("asset", tables["assets"], BLUE), ("venue", tables["venues"], RED))
    every = tables["assets"]["direction"].unique(maintain_order=True).to_list()
    kept = every[:_CARRIERS]
    given = labels(kept)
    figure = make_subplots(
        len(kept), 2, horizontal_spacing=0.2, vertical_spacing=0.36 / max(len(kept), 2),
        subplot_titles=stacked(
            f"{given[each]}: {what}s" for each in kept for what in ("asset", "venue")
        ),
    )  # fmt: skip
    for row, direction in enumerate(kept, start=1):
        for col, (what, table, color) in enumerate(parts, start=1):
            most = table.filter(pl.col("direction") == direction)
            most = most.sort("share", what, descending=[True, False], nulls_last=True).head(_MOST)
            names = labels(most[what].to_list())
            bars = go.Bar(
                x=plain(most["share"]), y=[names[each] for each in most[what]], orientation="h",
                marker={"color": color, "opacity": FAINT},
                hovertemplate=f"without %{{y}}, the {given[direction]} would lose a share of "
                "%{x:.3g} of rho",
            )  # fmt: skip
            figure.add_trace(bars, row, col)
    note = f"Drawn: {len(kept)} of {len(every)} directions." if len(kept) < len(every) else ""
    framed(figure, 100 + 230 * len(kept), note=note)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(tickformat=".3~p", rangemode="tozero")
    return figure
