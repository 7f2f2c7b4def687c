"""Figures of the way out: how long it takes, who does not fit, what forced sales cost whom."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.extremes import dots
from undertow.report.ink import BLUE, FAINT, GREY, RED, framed
from undertow.report.scales import band_lines, banded, labels, logarithmic, plain, stacked
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS = 40  # what a figure can hold and still be read
_SIDES = {"long": (BLUE, "circle"), "short": (RED, "square")}


def _named(rows: pl.DataFrame, name: str) -> list[str]:
    """Short names of rows that are a thing and a side of it."""
    whole = [f"{each} {side}" for each, side in rows.select(name, "side").iter_rows()]
    given = labels(whole)
    return [given[each] for each in whole]


def _note(rows: int, every: int, words: str, unknown: int = 0) -> str:
    said = [f"Drawn: the {rows} {words}, of {every}."] if rows < every else []
    if unknown:
        said.append(f"Of {unknown} more it is not known.")
    return " ".join(said)


def days(tables: Tables) -> go.Figure:
    """Days that it takes to close what is leveraged, by asset and side, with bands."""
    every = tables["assets"].drop_nulls("days").sort("days", descending=True)
    rows = every.head(_ROWS)
    order = _named(rows, "asset")
    figure = go.Figure(band_lines(rows, "days_low", "days_high", order))
    for side, (color, symbol) in _SIDES.items():
        part = rows.filter(pl.col("side") == side)
        usd = [number(each) for each in part["closes_usd"]]
        points = go.Scatter(
            x=plain(part["days"]), y=[n for n, s in zip(order, rows["side"], strict=True)
                                      if s == side],
            mode="markers", name=side, marker={"color": color, "symbol": symbol, "size": 10},
            customdata=list(map(list, zip(banded(part, "days", "days_low", "days_high"), usd,
                                          strict=True))),
            hovertemplate="%{y}: %{customdata[0]} days to close %{customdata[1]} USD",
        )  # fmt: skip
        figure.add_trace(points)
    unknown = tables["assets"].height - every.height
    framed(figure, 130 + 24 * max(rows.height, 3), legend=True,
           note=_note(rows.height, every.height, "slowest", unknown))  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=order)
    figure.update_xaxes(title={"text": "days"}, **logarithmic(*rows[["days_low", "days_high"]]))
    return figure


def critical(tables: Tables) -> go.Figure:
    """Leverage as it is beside the leverage above which nobody gets out, and how much is above."""
    every = tables["assets"].drop_nulls("critical_leverage").sort("critical_leverage")
    rows = every.head(_ROWS)
    names = _named(rows, "asset")
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.04,
        subplot_titles=stacked(("leverage", "share above")),
    )  # fmt: skip
    apart = band_lines(rows, "leverage", "critical_leverage", names)
    apart.update(line={"color": GREY, "width": 1.5})
    actual = go.Scatter(
        x=plain(rows["leverage"]), y=names, mode="markers", name="as it is",
        marker={"color": BLUE, "size": 10},
        hovertemplate="%{y} stands at a leverage of %{x:.3g}",
    )  # fmt: skip
    edge = go.Scatter(
        x=plain(rows["critical_leverage"]), y=names, mode="markers", name="critical",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        hovertemplate="%{y}: critical from %{x:.3g}",
    )  # fmt: skip
    above = go.Bar(
        x=plain(rows["above"]), y=names, orientation="h", showlegend=False,
        marker={"color": RED, "opacity": FAINT},
        hovertemplate="%{y}: %{x:.2%} of it stands above its critical leverage",
    )  # fmt: skip
    figure.add_traces([apart, actual, edge], rows=1, cols=1)
    figure.add_trace(above, 1, 2)
    unknown = tables["assets"].height - every.height
    framed(figure, 150 + 24 * max(rows.height, 3), legend=True,
           note=_note(rows.height, every.height, "with the lowest edge", unknown))  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=names)
    axis = logarithmic(rows["leverage"], rows["critical_leverage"])
    figure.update_xaxes(row=1, col=1, **axis)
    figure.update_xaxes(tickformat=".3~p", rangemode="tozero", row=1, col=2)
    return figure


def factors(tables: Tables) -> go.Figure:
    """The five factors whose product is vulnerability, with bands, beside those of before."""
    rows = tables["factors"]
    names = [labels(rows["factor"].to_list())[n] for n in rows["factor"]]
    band, points = dots(rows, "now", "low", "high", names, [True] * rows.height)
    points.update(name="now", showlegend=True, hovertemplate="%{y}: times %{customdata}")
    figure = go.Figure([band])
    if rows["before"].drop_nulls().len():
        before = go.Scatter(
            x=plain(rows["before"]), y=names, mode="markers", name="before",
            marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
            hovertemplate="%{y}: times %{x:.3g} before",
        )  # fmt: skip
        figure.add_trace(before)
    figure.add_trace(points)
    framed(figure, 120 + 34 * max(rows.height, 2), legend=True)
    figure.add_vline(x=1.0, line={"color": GREY, "dash": "dash", "width": 1.5})
    figure.update_yaxes(type="category", autorange="reversed")
    axis = logarithmic(rows["now"], rows["low"], rows["high"], rows["before"])
    figure.update_xaxes(title={"text": "factor (log scale)"}, **axis)
    return figure


def systemic(tables: Tables) -> go.Figure:
    """Whose forced sales cost everybody most, and whom they cost most, with bands."""
    every = tables["nodes"].sort("systemic", descending=True, nulls_last=True)
    rows = every.head(_ROWS)
    names = _named(rows, "node")
    figure = make_subplots(
        1, 2, shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=stacked(("costs all", "loses itself")),
    )  # fmt: skip
    for k, (column, said) in enumerate(
        (("systemic", "its sales cost {} of all equity"), ("indirect", "loses {} of its equity")),
        start=1,
    ):
        low, high = f"{column}_low", f"{column}_high"
        words = banded(rows, column, low, high)
        bars = go.Bar(
            x=plain(rows[column]),
            y=names,
            orientation="h",
            marker={
                "color": [_SIDES.get(side, (GREY, ""))[0] for side in rows["side"]],
                "opacity": FAINT,
            },
            customdata=[
                [said.format(word), number(direct), number(closed), number(usd)]
                for word, (direct, closed, usd) in zip(
                    words, rows.select("direct", "closed", "equity_usd").iter_rows(), strict=True
                )
            ],
            hovertemplate="%{y}: %{customdata[0]}<br>first loss %{customdata[1]} of equity, then "
            "closes %{customdata[2]} of what it has<br>equity %{customdata[3]} USD",
        )
        figure.add_traces([bars, band_lines(rows, low, high, names)], rows=1, cols=k)
    framed(figure, 130 + 24 * max(rows.height, 3),
           note=_note(rows.height, every.height, "that cost most"))  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=names)
    figure.update_xaxes(zeroline=True, rangemode="tozero", tickformat=".3~p")
    return figure


def alone(tables: Tables) -> go.Figure:
    """What a fall of one asset alone costs, at first and by the sales that follow."""
    every = tables["assets"].drop_nulls("alone")
    every = every.sort(pl.col("alone").abs(), "asset", descending=[True, False])
    rows = every.head(_ROWS)
    names = [labels(rows["asset"].to_list())[n] for n in rows["asset"]]
    follows = go.Bar(
        x=plain(rows["alone"]), y=names, orientation="h", name="by forced sales",
        marker={"color": RED, "opacity": FAINT},
        customdata=[number(usd) for usd in rows["depth_usd"]],
        hovertemplate="%{y} alone: forced sales cost %{x:.2%} of all equity<br>"
        "depth %{customdata} USD",
    )  # fmt: skip
    first = go.Scatter(
        x=plain(rows["alone_direct"]), y=names, mode="markers", name="at first",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": BLUE}},
        hovertemplate="%{y} alone: the first loss is %{x:.2%} of all equity",
    )  # fmt: skip
    framed(figure := go.Figure([follows, first]), 130 + 24 * max(rows.height, 3), legend=True,
           note=_note(rows.height, every.height, "that cost most"))  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=names)
    figure.update_xaxes(title={"text": "share of all equity"}, tickformat=".3~p", zeroline=True,
                        rangemode="tozero")  # fmt: skip
    return figure
