"""Figures of phases and unwinds: when each node turned, who took part, where losses went."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import polars as pl

from undertow.report.ink import BLUE, HATCHES, MANY, PALE, RED, RISING, coloured, framed, hatch
from undertow.report.scales import labels, milliseconds, plain, times
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS = 40  # what a figure can hold and still be read


def phases(tables: Tables) -> go.Figure:
    """Building up and unwinding of every node over time, from turn to turn."""
    turns = tables["turns"].sort("ts")
    every = turns["node"].unique().sort().to_list()
    kept = every[:_ROWS]
    given = labels(kept)
    both: dict[str, list[tuple[str, str, str]]] = {"building up": [], "unwinding": []}
    for name in kept:
        one = turns.filter(pl.col("node") == name)
        when = [at for at in times(one["ts"]) if at is not None]
        for kind, start, end in zip(one["kind"], when, when[1:], strict=False):
            both["unwinding" if kind == "peak" else "building up"].append((given[name], start, end))
    figure = go.Figure(
        [
            _spans("building up", both["building up"], BLUE, ""),
            _spans("unwinding", both["unwinding"], RED, "/"),
        ]
    )
    note = f"Drawn: {len(kept)} of {len(every)} nodes." if len(kept) < len(every) else ""
    framed(figure, 110 + 18 * max(len(kept), 4), note=note, legend=True)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(type="date")
    figure.update_yaxes(type="category", autorange="reversed",
                        categoryarray=[given[n] for n in kept])  # fmt: skip
    return figure


def _spans(name: str, rows: list[tuple[str, str, str]], color: str, shape: str) -> go.Bar:
    return go.Bar(
        name=name,
        orientation="h",
        y=[node for node, _, _ in rows],
        base=[start for _, start, _ in rows],
        x=[milliseconds(end) - milliseconds(start) for _, start, end in rows],
        marker={"color": color, "pattern": hatch(shape)},
        customdata=[[start, end] for _, start, end in rows],
        hovertemplate=f"%{{y}} {name}<br>%{{customdata[0]}} to %{{customdata[1]}}",
    )


def participants(tables: Tables) -> go.Figure:
    """Who took part in which common unwind, and how deep each fell; pale, who fell but did not."""
    rows = (
        tables["participants"].drop_nulls("depth").with_columns(pl.col("member").fill_null(False))
    )
    often = rows.group_by("node").agg(pl.col("member").sum().alias("times"), pl.col("depth").max())
    order = often.sort("times", "depth", "node", descending=[True, True, False])
    kept = order["node"].head(_ROWS).to_list()
    given = labels(kept)
    shown = rows.filter(pl.col("node").is_in(kept))
    events = [str(each) for each in rows["event"].unique(maintain_order=True)]
    called = labels(events)
    deepest = max((abs(d) for d in shown["depth"]), default=1.0) or 1.0
    figure = go.Figure()
    for member, name, color, symbol in (
        (False, "fell, but took no part", PALE, "circle-open"),
        (True, "took part", RED, "circle"),
    ):
        part = shown.filter(pl.col("member") == member)
        points = go.Scatter(
            x=[called[str(each)] for each in part["event"]],
            y=[given[each] for each in part["node"]],
            name=name,
            mode="markers",
            marker={
                "size": [6 + 16 * abs(d) / deepest for d in part["depth"]],
                "color": color,
                "symbol": symbol,
                "opacity": 0.85,
                "line": {"width": 0 if member else 1},
            },
            customdata=[number(d) for d in part["depth"]],
            hovertemplate=f"event %{{x}}<br>%{{y}} {name}: depth %{{customdata}}",
        )
        figure.add_trace(points)
    note = f"Drawn: the {len(kept)} that took part most often, of {order.height}."
    framed(figure, 140 + 20 * max(len(kept), 4), legend=True,
           note=note if len(kept) < order.height else "")  # fmt: skip
    figure.update_xaxes(type="category", title={"text": "event"},
                        categoryarray=[called[e] for e in events])  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed",
                        categoryarray=[given[n] for n in kept])  # fmt: skip
    return figure


def losses(tables: Tables) -> go.Figure:
    """How much of a first node's unwind each other node bears, all channels together."""
    rows = tables["losses"]
    shocked = rows["shocked"].unique(maintain_order=True).to_list()
    hit = _largest(rows, "node")
    sums = rows.group_by("shocked", "node", maintain_order=True).agg(pl.col("share").sum())
    found = {(a, b): share for a, b, share in sums.iter_rows()}
    across, down = labels(hit), labels(shocked)
    figure = go.Figure(
        go.Heatmap(
            x=[across[n] for n in hit],
            y=[down[n] for n in shocked],
            z=[plain([found.get((a, b)) for b in hit]) for a in shocked],
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate="%{y} unwinds: %{x} bears a share of %{z:.4g}",
        )
    )
    coloured(figure, RISING, "share", 0.0, None)
    every = rows["node"].n_unique()
    note = f"Drawn: the {len(hit)} nodes that lose most, of {every}." if len(hit) < every else ""
    framed(figure, min(820, 150 + 24 * max(len(shocked), 3)), note=note)
    figure.update_xaxes(type="category", tickangle=-60, showgrid=False, title={"text": "bears"})
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False,
                        title={"text": "unwinds first"})  # fmt: skip
    return figure


def _largest(rows: pl.DataFrame, column: str) -> list[Any]:
    """The values of a column with the largest sums of shares, largest first."""
    sums = rows.group_by(column, maintain_order=True).agg(pl.col("share").sum())
    return sums.sort("share", column, descending=[True, False])[column].head(_ROWS).to_list()


def channels(tables: Tables) -> go.Figure:
    """Through which channel losses travel, for each node that unwinds first."""
    rows = tables["losses"]
    shocked = _largest(rows, "shocked")
    down = labels(shocked)
    sums = rows.group_by("channel", "shocked", maintain_order=True).agg(pl.col("share").sum())
    figure = go.Figure()
    for k, channel in enumerate(rows["channel"].unique().sort().to_list()):
        part = dict(
            sums.filter(pl.col("channel") == channel).select("shocked", "share").iter_rows()
        )
        name = labels([str(channel)])[str(channel)]
        figure.add_trace(
            go.Bar(
                name=name,
                orientation="h",
                y=[down[n] for n in shocked],
                x=plain([part.get(n) for n in shocked]),
                marker={
                    "color": MANY[k % len(MANY)],
                    "pattern": hatch(HATCHES[k % len(HATCHES)]),
                },
                hovertemplate=f"%{{y}} unwinds: {name} carries %{{x:.4g}}",
            )
        )
    every = rows["shocked"].n_unique()
    note = f"Drawn: {len(shocked)} of {every} first nodes." if len(shocked) < every else ""
    framed(figure, 130 + 26 * max(len(shocked), 3), note=note, legend=True)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title={"text": "share, summed over nodes"})
    figure.update_yaxes(type="category", autorange="reversed",
                        categoryarray=[down[n] for n in shocked])  # fmt: skip
    return figure
