"""Figures of hard times: falls against rises, with whom others fall, who lacks capital."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import BLUE, FAINT, GREY, RED, framed
from undertow.report.scales import band_lines, banded, labels, logarithmic, plain, stacked
from undertow.report.together import Tables
from undertow.report.words import chance, number

_ROWS = 40  # what a figure can hold and still be read
_SURE = 0.05


def dots(
    rows: pl.DataFrame, value: str, low: str, high: str, names: Sequence[str], sure: Sequence[bool]
) -> list[go.Scatter]:
    """A point a row on its band: filled where it is told from nothing."""
    points = go.Scatter(
        x=plain(rows[value]),
        y=names,
        mode="markers",
        marker={
            "size": 10,
            "color": BLUE,
            "symbol": ["circle" if each else "circle-open" for each in sure],
        },
        customdata=banded(rows, value, low, high),
        hovertemplate=f"%{{y}}<br>{value.replace('_', ' ')} %{{customdata}}",
        showlegend=False,
    )
    return [band_lines(rows, low, high, names), points]


def away(rows: pl.DataFrame, low: str, high: str) -> list[bool]:
    """Which rows have a band that leaves zero out."""
    return [
        a is not None and b is not None and (a > 0.0 or b < 0.0)
        for a, b in rows.select(low, high).iter_rows()
    ]


def exceedance(tables: Tables) -> go.Figure:
    """Correlation over joint falls and joint rises, beside what a normal law has; a panel a layer.

    Falls stand left of zero, by how far both nodes fell, rises right of it.
    """
    rows = tables["exceedance"].with_columns(
        at=pl.when(pl.col("side") == "lower")
        .then(-pl.col("threshold").abs())
        .otherwise(pl.col("threshold").abs()),
        side=pl.when(pl.col("side") == "lower").then(pl.lit("falls")).otherwise(pl.lit("rises")),
    )
    layers = rows["layer"].unique(maintain_order=True).to_list()
    figure = make_subplots(
        1, len(layers), shared_yaxes=True, horizontal_spacing=0.05,
        subplot_titles=stacked(labels(layers).values()),
    )  # fmt: skip
    for k, layer in enumerate(layers, start=1):
        for side, color, symbol in (("falls", RED, "circle"), ("rises", BLUE, "square")):
            part = rows.filter((pl.col("layer") == layer) & (pl.col("side") == side)).sort("at")
            at = plain(part["at"])
            normal = go.Scatter(
                x=at, y=plain(part["normal"]), name="normal law", legendgroup="normal",
                mode="lines", line={"color": GREY, "dash": "dash"},
                showlegend=k == 1 and side == "falls",
                hovertemplate="a normal law has %{y:.3g}",
            )  # fmt: skip
            found = go.Scatter(
                x=at, y=plain(part["correlation"]), name=side, legendgroup=side,
                mode="lines+markers", line={"color": color}, marker={"symbol": symbol, "size": 9},
                showlegend=k == 1,
                customdata=[
                    [words, number(count)]
                    for words, count in zip(
                        banded(part, "correlation", "low", "high"), part["count"], strict=True
                    )
                ],
                hovertemplate=f"{side} beyond %{{x}}: correlation %{{customdata[0]}}<br>"
                "%{customdata[1]} steps a pair",
            )  # fmt: skip
            bands = band_lines(part, "low", "high", at, upright=True)
            figure.add_traces([normal, bands, found], rows=1, cols=k)
    framed(figure, 380, legend=True)
    figure.update_xaxes(title={"text": "threshold"}, zeroline=True)
    figure.update_yaxes(title={"text": "correlation"}, col=1)
    return figure


def covar(tables: Tables) -> go.Figure:
    """With whom the others fall, and who falls with the market, each with its band."""
    every = tables["nodes"].sort("delta_covar", "mes", nulls_last=True)
    rows = every.head(_ROWS)
    names = [labels(rows["node"].to_list())[n] for n in rows["node"]]
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.56, 0.44], horizontal_spacing=0.04,
        subplot_titles=stacked(("delta CoVaR", "marginal expected shortfall")),
    )  # fmt: skip
    sides = (("delta_covar", "low", "high"), ("mes", "mes_low", "mes_high"))
    for k, (value, low, high) in enumerate(sides, start=1):
        traces = dots(rows, value, low, high, names, away(rows, low, high))
        figure.add_traces(traces, rows=1, cols=k)
    note = f"Drawn: the {rows.height} that drag most, of {every.height}."
    framed(figure, 120 + 24 * max(rows.height, 3), note=note if rows.height < every.height else "")
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(zeroline=True, rangemode="tozero")
    return figure


def lacking(tables: Tables) -> go.Figure:
    """What each venue lacks of the capital that is asked for after a crash, or has to spare."""
    every = tables["shortfall"].drop_nulls("shortfall_usd")
    every = every.sort("shortfall_usd", "venue", descending=[True, False])
    rows = every.head(_ROWS)
    names = [labels(rows["venue"].to_list())[n] for n in rows["venue"]]
    lacks = [value > 0 for value in rows["shortfall_usd"]]
    figure = go.Figure(
        go.Bar(
            x=plain(rows["shortfall_usd"]),
            y=names,
            orientation="h",
            marker={"color": [RED if each else BLUE for each in lacks], "opacity": FAINT},
            customdata=[
                ["lacks" if each else "has to spare", *map(number, (abs(value), held, owed))]
                for each, (value, held, owed) in zip(
                    lacks,
                    rows.select("shortfall_usd", "equity_usd", "liabilities_usd").iter_rows(),
                    strict=True,
                )
            ],
            hovertemplate="%{y} %{customdata[0]} %{customdata[1]} USD<br>"
            "funds %{customdata[2]}, deposits %{customdata[3]} USD",
        )
    )
    notes = []
    if rows.height < every.height:
        notes.append(f"Drawn: the {rows.height} that lack most, of {every.height}.")
    if unknown := tables["shortfall"].height - every.height:
        notes.append(f"Of {unknown} more the funds or deposits are not known.")
    framed(figure, 110 + 26 * max(rows.height, 2), note=" ".join(notes))
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title={"text": "USD lacking; below 0 to spare"}, zeroline=True)
    return figure


def slopes(tables: Tables) -> go.Figure:
    """How fast leverage grows with assets, node by node, beside what prices alone would do."""
    every = tables["slopes"].sort("slope", descending=True, nulls_last=True)
    rows = every.head(_ROWS)
    names = [labels(rows["node"].to_list())[n] for n in rows["node"]]
    sure = [p is not None and p < _SURE for p in rows["p_corrected"]]
    passive = go.Scatter(
        x=plain(rows["passive"]), y=names, mode="markers", name="had nobody traded",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        hovertemplate="%{y}<br>had nobody traded %{x:.3g}",
    )  # fmt: skip
    band, points = dots(rows, "slope", "low", "high", names, sure)
    points.update(
        showlegend=True,
        name="slope (open: may be chance)",
        customdata=[
            f"{words}, p {chance(p)} after correction"
            for words, p in zip(points.customdata, rows["p_corrected"], strict=True)
        ],
    )
    figure = go.Figure([band, passive, points])
    note = f"Drawn: the {rows.height} steepest, of {every.height}."
    framed(figure, 120 + 24 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title={"text": "growth of leverage per growth of assets"}, zeroline=True,
                        rangemode="tozero")  # fmt: skip
    return figure


def leads(tables: Tables) -> go.Figure:
    """Who moves first on the whole: a panel a layer, one order of nodes in all."""
    every = tables["nodes"]
    layers = every["layer"].unique(maintain_order=True).to_list()
    first = every.filter(pl.col("layer") == layers[0])
    order = first.sort("net", "node", descending=[True, False], nulls_last=True)["node"].to_list()
    order += [node for node in every["node"].unique().sort() if node not in set(order)]
    half = _ROWS // 2
    kept = order if len(order) <= _ROWS else [*order[:half], *order[-half:]]
    given = labels(kept)
    figure = make_subplots(
        1, len(layers), shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=stacked(labels(layers).values()),
    )  # fmt: skip
    for k, layer in enumerate(layers, start=1):
        part = every.filter((pl.col("layer") == layer) & pl.col("node").is_in(kept))
        sure = [bool(a or b) for a, b in part.select("leads", "follows").iter_rows()]
        bars = go.Bar(
            x=plain(part["net"]),
            y=[given[node] for node in part["node"]],
            orientation="h",
            marker={
                "color": [RED if (net or 0) > 0 else BLUE for net in part["net"]],
                "opacity": [1.0 if each else 0.35 for each in sure],
            },
            customdata=part.select("leads", "follows").fill_null(0).rows(),
            hovertemplate="%{y}<br>net %{x:.3g}<br>leads %{customdata[0]} and follows "
            "%{customdata[1]} others beyond chance",
        )
        figure.add_trace(bars, 1, k)
    note = f"Drawn: both ends of {len(order)} nodes." if len(kept) < len(order) else ""
    framed(figure, 120 + 22 * max(len(kept), 3), note=note)
    figure.update_yaxes(autorange="reversed", type="category",
                        categoryarray=[given[node] for node in kept])  # fmt: skip
    figure.update_xaxes(zeroline=True)
    return figure


def heights(tables: Tables) -> go.Figure:
    """How leveraged every node is, with its band, and where its most leveraged tenth begins."""
    every = tables["nodes"].drop_nulls("value")
    rows = every.head(_ROWS)
    names = [labels(rows["node"].to_list())[n] for n in rows["node"]]
    band, points = dots(rows, "value", "low", "high", names, [True] * rows.height)
    points.update(name="all of it together", showlegend=True)
    tenth = go.Scatter(
        x=plain(rows["q90"]), y=names, mode="markers", name="a tenth of what is owed: at least",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        hovertemplate="%{y}<br>a tenth of what is owed stands at %{x:.3g} or more",
    )  # fmt: skip
    figure = go.Figure([band, tenth, points])
    note = f"Drawn: the {rows.height} largest, of {every.height}."
    framed(figure, 120 + 24 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title={"text": "leverage"}, **logarithmic(rows["value"], rows["q90"]))
    return figure
