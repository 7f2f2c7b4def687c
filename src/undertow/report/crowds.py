"""Figures of who stands in the same place: how few, at which leverage, on which side, how alike."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    FAINT,
    GREY,
    GREY_BAND,
    HATCHES,
    RED,
    SIGNED,
    coloured,
    framed,
    hatch,
)
from undertow.report.scales import alike, band_lines, banded, labels, plain, square, stacked
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS, _STRATEGIES = 40, 15  # what a figure can hold and still be read
_WHOLES = (("leveraged", BLUE, "solid"), ("debt", RED, "dash"), ("notional", GREY, "dot"))
_TOPS = (1, 5, 10)
_STEPS = ("#B9D6F0", "#7FB2DE", "#3A82C4", "#1F4E86", "#CF4F3F")  # of leverage, low to high
_MIXES = ("gross", "net", "collateral")


def few(tables: Tables) -> go.Figure:
    """How much the largest owners have together, by how many are counted, with bands of three."""
    curve = tables["curve"].sort("owners")
    bands = tables.get("crowding.concentration/concentration")
    figure = go.Figure()
    for whole, color, dash in _WHOLES:
        rows = curve.filter(pl.col("whole") == whole)
        if not rows.height:
            continue
        line = go.Scatter(
            x=plain(rows["owners"]), y=plain(rows["share"]), name=whole, legendgroup=whole,
            mode="lines", line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"the %{{x}} largest have %{{y:.1%}} of what is {_of(whole)}",
        )  # fmt: skip
        figure.add_trace(line)
        if bands is not None and whole == "leveraged":
            figure.add_traces(_tops(bands.filter(pl.col("whole") == whole), color))
    framed(figure, 380, legend=True)
    figure.update_xaxes(type="log", title={"text": "largest owners counted"}, dtick=1)
    figure.update_yaxes(title={"text": "share of the whole"}, tickformat=".3~p", range=[0, 1.02])
    return figure


def _of(whole: str) -> str:
    return {"debt": "owed", "notional": "held in contracts"}.get(whole, whole)


def _tops(bands: pl.DataFrame, color: str) -> list[go.Scatter]:
    """The shares of the one, five and ten largest, each on its band."""
    rows = pl.concat(
        bands.select(value=f"top_{k}", low=f"top_{k}_low", high=f"top_{k}_high") for k in _TOPS
    )
    at = [k for k in _TOPS for _ in range(bands.height)]
    points = go.Scatter(
        x=at, y=plain(rows["value"]), mode="markers", marker={"color": color, "size": 9},
        customdata=banded(rows, "value", "low", "high"), showlegend=False,
        hovertemplate="the %{x} largest: %{customdata} of what is leveraged",
    )  # fmt: skip
    return [band_lines(rows, "low", "high", at, upright=True), points]


def brackets(tables: Tables) -> go.Figure:
    """How much stands at which leverage, debt on notional."""
    rows = tables["brackets"]
    at = labels(rows["leverage"].to_list())
    figure = go.Figure()
    for column, name, color, shape in (
        ("debt_usd", "debt", RED, "/"),
        ("notional_usd", "notional", BLUE, ""),
    ):
        figure.add_trace(
            go.Bar(
                x=[at[each] for each in rows["leverage"]],
                y=plain(rows[column]),
                name=name,
                marker={"color": color, "pattern": hatch(shape)},
                customdata=[
                    [number(usd), accounts, number(share)]
                    for usd, accounts, share in rows.select(column, "accounts", "share").iter_rows()
                ],
                hovertemplate=f"leverage %{{x}}: {name} of %{{customdata[0]}} USD<br>"
                "%{customdata[1]} accounts, %{customdata[2]} of all that is leveraged",
            )
        )
    framed(figure, 360, legend=True)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category", title={"text": "leverage"})
    figure.update_yaxes(title={"text": "USD"}, exponentformat="B")
    return figure


def sides(tables: Tables) -> go.Figure:
    """Which way the assets lean, plain and weighted by leverage, each with its band."""
    whole = tables.get("crowding.sides/whole")
    return _lean(tables["assets"], whole, "assets")


def sides_by_node(tables: Tables) -> go.Figure:
    """Which way the nodes lean, plain and weighted by leverage, each with its band."""
    return _lean(tables["nodes"], None, "nodes")


def _lean(every: pl.DataFrame, whole: pl.DataFrame | None, what: str) -> go.Figure:
    """Two points a row, one above the other, on a field of what chance makes."""
    kept = every.head(_ROWS)
    rows = kept if whole is None else pl.concat([whole, kept])
    places = list(range(rows.height))
    given = labels(rows["name"].to_list())
    names = [given[each] for each in rows["name"]]
    chance = plain(rows["by_chance"])
    field = go.Bar(
        y=places,
        base=[None if c is None else -c for c in chance],
        x=[None if c is None else 2.0 * c for c in chance],
        orientation="h",
        width=0.9,
        name="what chance makes of so few",
        marker={"color": GREY_BAND},
        customdata=[[name, number(c)] for name, c in zip(names, chance, strict=True)],
        hovertemplate="%{customdata[0]}: sides taken by coin give %{customdata[1]}",
    )
    figure = go.Figure(field)
    for column, said, color, symbol, off in (
        ("net", "plain", GREY, "square", -0.17),
        ("net_weighed", "weighted by leverage", BLUE, "circle", 0.17),
    ):
        at = [place + off for place in places]
        low, high = f"{column}_low", f"{column}_high"
        points = go.Scatter(
            x=plain(rows[column]), y=at, mode="markers", name=said,
            marker={"color": color, "symbol": symbol, "size": 9},
            customdata=list(map(list, zip(names, banded(rows, column, low, high), strict=True))),
            hovertemplate=f"%{{customdata[0]}}, {said}: %{{customdata[1]}}",
        )  # fmt: skip
        figure.add_traces([band_lines(rows, low, high, at), points])
    note = f"Drawn: the {kept.height} largest of {every.height} {what}."
    framed(figure, 130 + 24 * max(rows.height, 3), legend=True,
           note=note if kept.height < every.height else "")  # fmt: skip
    figure.update_yaxes(tickvals=places, ticktext=names, autorange="reversed", showgrid=False,
                        zeroline=False)  # fmt: skip
    figure.update_xaxes(range=[-1.05, 1.05], zeroline=True,
                        title={"text": "all short −1, even 0, all long 1"})  # fmt: skip
    return figure


def venues(tables: Tables) -> go.Figure:
    """How alike venues are, a panel a mix, in one order."""
    pairs = tables["venues"].rename({"first": "a", "second": "b"})
    every = pl.concat([pairs["a"], pairs["b"]]).unique().sort().to_list()
    size = dict(
        pl.concat([pairs.select("a", usd="first_usd"),
                   pairs.select(a="b", usd="second_usd")]).unique("a").iter_rows()
    )  # fmt: skip
    kept = sorted(every, key=lambda v: (-(size.get(v) or 0.0), v))[: 2 * _ROWS]
    names = [kept[i] for i in alike(square(pairs, kept, "gross"))]
    given = labels(names)
    axis = [given[name] for name in names]
    mixes = [mix for mix in _MIXES if pairs[mix].drop_nulls().len()]
    titles = {"gross": "gross exposure", "net": "net exposure"}
    figure = make_subplots(
        1, len(mixes), subplot_titles=stacked(titles.get(m, m) for m in mixes),
        shared_yaxes=True, horizontal_spacing=0.02,
    )  # fmt: skip
    for k, mix in enumerate(mixes, start=1):
        heat = go.Heatmap(
            z=plain(square(pairs, names, mix)), x=axis, y=axis, coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate=f"%{{y}} and %{{x}}<br>alike in {titles.get(mix, mix)}: %{{z:.3f}}",
        )  # fmt: skip
        figure.add_trace(heat, 1, k)
    coloured(figure, SIGNED, "cosine", -1.0, 1.0)
    note = f"Drawn: the {len(kept)} largest of {len(every)} venues."
    tall = 180 + min(520, max(160, 22 * len(names)))
    framed(figure, tall, note=note if len(kept) < len(every) else "")
    small = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    figure.update_xaxes(tickangle=-60, **small)
    figure.update_yaxes(autorange="reversed", **small)
    return figure


def places(tables: Tables) -> go.Figure:
    """The strategies that were found, by how much stands in each and at which leverage."""
    clusters = tables["clusters"].sort("share", descending=True, nulls_last=True)
    kept = clusters.filter(pl.col("cluster").is_not_null()).head(_STRATEGIES)
    given = labels(
        [f"{cluster} · {strategy}"
         for cluster, strategy in kept.select("cluster", "strategy").iter_rows()]
    )  # fmt: skip
    names = dict(zip(kept["cluster"], given.values(), strict=True))
    there = dict(kept.select("cluster", "there").iter_rows())
    sure = dict(kept.select("cluster", "stability").iter_rows())
    rows = tables["places"].filter(pl.col("cluster").is_in(kept["cluster"].to_list()))
    figure = go.Figure()
    for k, bracket in enumerate(rows["leverage"].unique(maintain_order=True)):
        part = rows.filter(pl.col("leverage") == bracket)
        figure.add_trace(
            go.Bar(
                x=plain(part["share"]),
                y=[names[c] for c in part["cluster"]],
                name=f"leverage {labels([bracket])[bracket]}",
                orientation="h",
                marker={
                    "color": _STEPS[k % len(_STEPS)],
                    "pattern": hatch(HATCHES[k % len(HATCHES)]),
                    "opacity": [1.0 if there[c] else 0.4 for c in part["cluster"]],
                },
                customdata=[
                    [owners, number(usd), number(sure[c])]
                    for c, owners, usd in part.select(
                        "cluster", "owners", "leveraged_usd"
                    ).iter_rows()
                ],
                hovertemplate="%{y}<br>%{fullData.name}: %{x:.1%} of what is leveraged, "
                "%{customdata[0]} owners, %{customdata[1]} USD<br>"
                "stability of the cluster %{customdata[2]}",
            )
        )
    note = f"Drawn: the {kept.height} largest of {clusters.height}."
    framed(figure, 140 + 28 * max(kept.height, 3), legend=True,
           note=note if kept.height < clusters.height - 1 else "")  # fmt: skip
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title={"text": "share of what is leveraged"}, tickformat=".3~p")
    figure.update_yaxes(type="category", autorange="reversed",
                        categoryarray=list(names.values()))  # fmt: skip
    return figure


def nodes(tables: Tables) -> go.Figure:
    """How much of each node its largest owners hold."""
    every = tables["nodes"].sort("top_10", "node", descending=[True, False], nulls_last=True)
    rows = every.head(_ROWS)
    names = [labels(rows["node"].to_list())[n] for n in rows["node"]]
    bars = go.Bar(
        x=plain(rows["top_10"]),
        y=names,
        orientation="h",
        name="the ten largest",
        marker={"color": BLUE, "opacity": FAINT},
        customdata=[
            [number(usd), owners, number(effective)]
            for usd, owners, effective in rows.select(
                "leveraged_usd", "owners", "effective"
            ).iter_rows()
        ],
        hovertemplate="%{y}: ten hold %{x:.1%} of %{customdata[0]} USD<br>%{customdata[1]} owners, "
        "as concentrated as %{customdata[2]} alike",
    )
    first = go.Scatter(
        x=plain(rows["top_1"]), y=names, mode="markers", name="the largest",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        customdata=[labels(rows["largest"].to_list())[n] for n in rows["largest"]],
        hovertemplate="%{y}: %{customdata} holds %{x:.1%}",
    )  # fmt: skip
    note = f"Drawn: the {rows.height} most concentrated of {every.height} nodes."
    framed(figure := go.Figure([bars, first]), 130 + 24 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "share of what is leveraged on the node"},
                        tickformat=".3~p", rangemode="tozero")  # fmt: skip
    return figure
