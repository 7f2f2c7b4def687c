"""Figures of who stands on whom: keepers, layers of claims, what backs itself, loops and calls."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    FAINT,
    GREY,
    HATCHES,
    MANY,
    RED,
    RISING,
    coloured,
    framed,
    hatch,
)
from undertow.report.scales import labels, logarithmic, plain, stacked, times
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS = 30  # what a figure can hold and still be read
_LAYERS = (("places_usd", "places"), ("loans_usd", "loans"), ("tokens_usd", "tokens"),
           ("keepers_usd", "keepers"))  # fmt: skip


def keepers(tables: Tables) -> go.Figure:
    """What leads through each keeper, and the claims on it."""
    every = tables["keepers"].filter(pl.col("kind") != "venue")
    rows = every.head(_ROWS)
    names = _named(rows["node"])
    bars = go.Bar(
        x=plain(rows["passes"]), y=names, orientation="h", name="leads through it",
        marker={"color": BLUE, "opacity": FAINT},
        customdata=[number(usd) for usd in rows["passes_usd"]],
        hovertemplate="%{y}: %{x:.1%} of what accounts hold, %{customdata} USD",
    )  # fmt: skip
    claims = go.Scatter(
        x=plain(rows["claims_share"]), y=names, mode="markers", name="of all claims told",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}},
        customdata=[number(usd) for usd in rows["claims_usd"]],
        hovertemplate="%{y} owes %{x:.1%} of all claims told, %{customdata} USD",
    )  # fmt: skip
    return _across(go.Figure([bars, claims]), rows.height, every.height, "keepers",
                   "share of the whole", ".3~p")  # fmt: skip


def ends(tables: Tables) -> go.Figure:
    """What all that accounts hold is made of at the bottom."""
    rows = tables["ends"]
    gaps = rows["end"].is_in(["nothing", "untold", "no way out"])
    bars = go.Bar(
        x=plain(rows["share"]), y=_named(rows["end"]), orientation="h",
        marker={"color": [RED if gap else BLUE for gap in gaps],
                "pattern": {"shape": ["/" if gap else "" for gap in gaps], "fillmode": "overlay",
                            "fgcolor": "rgba(255,255,255,0.45)", "size": 7, "solidity": 0.25}},
        customdata=[number(usd) for usd in rows["usd"]],
        hovertemplate="%{y}: %{x:.1%} of what accounts hold, %{customdata} USD",
    )  # fmt: skip
    return _across(go.Figure(bars), rows.height, rows.height, "ends", "share of what is held",
                   ".3~p", legend=False)  # fmt: skip


def layers(tables: Tables) -> go.Figure:
    """Claims of every layer on what lies at the bottom, each over that."""
    every = tables["bases"]
    rows = every.head(_ROWS)
    names = _named(rows["asset"])
    figure = go.Figure()
    for k, (column, name) in enumerate(_LAYERS):
        part = rows[column] / rows["root_usd"]
        figure.add_trace(
            go.Bar(
                x=plain(part), y=names, orientation="h", name=name,
                marker={"color": MANY[k], "pattern": hatch(HATCHES[k])},
                customdata=[[number(usd), number(root)]
                            for usd, root in rows.select(column, "root_usd").iter_rows()],
                hovertemplate=f"%{{y}}: {name} of %{{customdata[0]}} USD<br>%{{x:.2f}} times the "
                "%{customdata[1]} USD at the bottom",
            )
        )  # fmt: skip
    figure.update_layout(barmode="stack")
    return _across(figure, rows.height, every.height, "base assets",
                   "claims on each dollar at the bottom", ".3~g")  # fmt: skip


def self_backed(tables: Tables) -> go.Figure:
    """How much of the claims on a token stands on itself: netted, and pro rata over pools."""
    every = tables["tokens"].filter((pl.col("self_backed") > 0) | (pl.col("backed") < 1 - 1e-6))
    rows = every.head(_ROWS)
    names = _named(rows["asset"])
    figure = go.Figure()
    for column, name, color, symbol in (
        ("self_backed", "on itself, netted", RED, "circle"),
        ("self_backed_pooled", "on itself, pro rata", BLUE, "square"),
    ):
        figure.add_trace(
            go.Scatter(
                x=plain(rows[column]), y=names, mode="markers", name=name,
                marker={"color": color, "symbol": symbol, "size": 11},
                customdata=[number(m) for m in rows[column.replace("self_backed", "multiplier")]],
                hovertemplate=f"%{{y}}: %{{x:.1%}} {name}<br>multiplier %{{customdata}}",
            )
        )  # fmt: skip
    backed = go.Bar(
        x=[1.0 - value for value in rows["backed"]], y=names, orientation="h", name="on nothing",
        marker={"color": GREY, "opacity": FAINT, "pattern": hatch("x")},
        hovertemplate="%{y}: %{x:.1%} of the claims on it stand on nothing that was told",
    )  # fmt: skip
    figure.add_trace(backed)
    return _across(figure, rows.height, every.height, "tokens", "share of claims on the token",
                   ".3~p")  # fmt: skip


def unwinding(tables: Tables) -> go.Figure:
    """What a rise of borrow rates drives out, and what leaving at once costs."""
    rows = tables["unwinding"]
    titles = stacked(["debt of loops that leave", "cost of leaving at once"])
    figure = make_subplots(1, 2, subplot_titles=titles)
    steps = {"mode": "lines+markers", "line": {"shape": "hv", "width": 2}}
    leave = go.Scatter(
        x=plain(rows["rise"]), y=plain(rows["debt_usd"]), marker={"color": BLUE},
        customdata=plain(rows["accounts"]),
        hovertemplate="rates up by %{x:.1%} a year: %{y:.3s} USD of %{customdata} loops", **steps,
    )  # fmt: skip
    cost = go.Scatter(
        x=plain(rows["rise"]), y=plain(rows["cost_usd"] / rows["debt_usd"]), marker={"color": RED},
        customdata=[number(fall) for fall in rows["fall"]],
        hovertemplate="rates up by %{x:.1%} a year: costs %{y:.2%} of the debt<br>the worst price "
        "falls by %{customdata}", **steps,
    )  # fmt: skip
    figure.add_trace(leave, 1, 1)
    figure.add_trace(cost, 1, 2)
    framed(figure, 340)
    figure.update_xaxes(title={"text": "rise of all borrow rates, a year"}, tickformat=".3~p")
    figure.update_yaxes(exponentformat="B", rangemode="tozero", title={"text": "USD"}, col=1)
    figure.update_yaxes(tickformat=".3~p", rangemode="tozero", col=2)
    return figure


def ties(tables: Tables) -> go.Figure:
    """Loops by what is posted and owed: leverage, and how near they are to break-even."""
    every = tables["ties"].filter(pl.col("leverage").is_not_null())
    rows = every.head(_ROWS)
    names = _named(pl.Series([f"{a} against {b}" for a, b in
                              rows.select("collateral", "debt").iter_rows()]))  # fmt: skip
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04,
                           subplot_titles=["leverage", "headroom of borrow rates"])  # fmt: skip
    lever = go.Scatter(
        x=plain(rows["leverage"]), y=names, mode="markers", marker={"color": BLUE, "size": 10},
        customdata=[[number(usd), n] for usd, n in rows.select("debt_usd", "accounts").iter_rows()],
        hovertemplate="%{y}: leverage %{x:.2f}<br>%{customdata[1]} owe %{customdata[0]} USD",
    )  # fmt: skip
    figure.add_trace(lever, 1, 1)
    for column, name, symbol, color in (("headroom_least", "least", "line-ns", RED),
                                        ("headroom_median", "median", "circle", BLUE)):  # fmt: skip
        size = {"size": 14, "line": {"width": 3, "color": color}} if symbol == "line-ns" else {
            "size": 9, "color": color}  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=plain(rows[column]), y=names, mode="markers", name=f"headroom, {name}",
                marker={"symbol": symbol, **size},
                hovertemplate=f"%{{y}}: {name} headroom %{{x:.2%}} a year",
            ), 1, 2,
        )  # fmt: skip
    note = _drawn(rows.height, every.height, "ties")
    framed(figure, 130 + 26 * max(rows.height, 3), note=note)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=True)
    figure.update_xaxes(rangemode="tozero", col=1)
    figure.update_xaxes(tickformat=".3~p", zeroline=True, col=2)
    return figure


def called(tables: Tables) -> go.Figure:
    """Calls in the order of time: what they ask, and how much of it comes with another venue's."""
    rows = tables["rounds"]
    at = plain(rows["after_us"] / 60e6)
    figure = go.Figure()
    alone = rows["need_usd"] - rows["synchronised_need_usd"]
    for usd, name, color, shape in (
        (rows["synchronised_need_usd"], "of several venues at once", RED, "/"),
        (alone, "of one venue", BLUE, ""),
    ):
        figure.add_trace(
            go.Bar(
                x=at, y=plain(usd), name=name, marker={"color": color, "pattern": hatch(shape)},
                customdata=[[calls, owners] for calls, owners in
                            rows.select("calls", "owners").iter_rows()],
                hovertemplate=f"after %{{x:.0f}} minutes: %{{y:.3s}} USD asked in calls {name}<br>"
                "%{customdata[0]} calls on %{customdata[1]} owners in all",
            )
        )  # fmt: skip
    unmet = go.Scatter(
        x=at, y=plain(rows["unmet_usd"]), mode="markers", name="not met by free assets",
        marker={"symbol": "line-ew", "size": 14, "line": {"width": 3, "color": GREY}},
        hovertemplate="after %{x:.0f} minutes: %{y:.3s} USD not met",
    )  # fmt: skip
    figure.add_trace(unmet)
    framed(figure, 360, legend=True)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title={"text": "minutes after the shock"})
    figure.update_yaxes(title={"text": "USD"}, exponentformat="B", rangemode="tozero")
    return figure


def ladder(tables: Tables) -> go.Figure:
    """Synchronised calls against the size of a common fall: how many, and how much they ask."""
    rows = tables["ladder"].sort("fall")
    titles = stacked(["calls of several venues at once", "share of all that is asked"])
    figure = make_subplots(1, 2, subplot_titles=titles)
    lines = {"mode": "lines+markers", "x": plain(rows["fall"])}
    count = go.Scatter(
        y=plain(rows["synchronised_calls"]), line={"color": BLUE},
        customdata=plain(rows["calls"]),
        hovertemplate="a fall of %{x:.0%}: %{y} of %{customdata} calls", **lines,
    )  # fmt: skip
    share = go.Scatter(
        y=plain(rows["synchronised_share"]), line={"color": RED, "dash": "dash"},
        customdata=[number(usd) for usd in rows["synchronised_need_usd"]],
        hovertemplate="a fall of %{x:.0%}: %{y:.1%} of the need, %{customdata} USD", **lines,
    )  # fmt: skip
    figure.add_trace(count, 1, 1)
    figure.add_trace(share, 1, 2)
    framed(figure, 340)
    figure.update_xaxes(title={"text": "common fall"}, tickformat=".0%")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".3~p", col=2)
    return figure


def pairs(tables: Tables) -> go.Figure:
    """Which two venues call the same owners at once, and what the first then asks."""
    rows = tables["pairs"]
    every = pl.concat([rows["venue"], rows["other"]]).unique().sort().to_list()
    names = labels(every)
    axis = [names[each] for each in every]
    asked = {(a, b): usd for a, b, usd in rows.select("venue", "other", "need_usd").iter_rows()}
    heat = go.Heatmap(
        z=[plain([asked.get((a, b)) for b in every]) for a in every], x=axis, y=axis,
        coloraxis="coloraxis", hoverongaps=False,
        hovertemplate="%{y} asks %{z:.3s} USD of owners that %{x} calls at the same time",
    )  # fmt: skip
    figure = go.Figure(heat)
    coloured(figure, RISING, "USD", 0.0, None)
    framed(figure, 180 + min(520, max(160, 26 * len(every))))
    small = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(tickangle=-60, title={"text": "also called by"}, **small)
    figure.update_yaxes(autorange="reversed", title={"text": "called by"}, **small)
    return figure


def over_time(tables: Tables) -> go.Figure:
    """Claims on each dollar at the bottom, instant by instant, of the largest base assets."""
    rows = tables["over_time"].drop_nulls("multiplier")
    size = rows.group_by("asset").agg(pl.col("claims_usd").max()).sort(
        "claims_usd", "asset", descending=[True, False]
    )  # fmt: skip
    figure = go.Figure()
    for k, asset in enumerate(size["asset"].head(len(MANY))):
        part = rows.filter(pl.col("asset") == asset).sort("ts")
        line = {"color": MANY[k], "dash": ("solid", "dash", "dot", "dashdot")[k % 4]}
        figure.add_trace(
            go.Scatter(
                x=times(part["ts"]), y=plain(part["multiplier"]), mode="lines+markers",
                name=labels([asset])[asset], line=line,
                hovertemplate="%{fullData.name} at %{x}: %{y:.2f} claims on each dollar",
            )
        )  # fmt: skip
    framed(figure, 340, legend=True,
           note=_drawn(min(len(MANY), size.height), size.height, "base assets"))  # fmt: skip
    figure.update_yaxes(title={"text": "claims on each dollar"}, **logarithmic(rows["multiplier"]))
    return figure


def _named(names: pl.Series) -> list[str]:
    """Short names, without the kind that a map puts before them."""
    plain_names = [str(name).partition(":")[2] or str(name) for name in names]
    given = labels(plain_names)
    return [given[name] for name in plain_names]


def _drawn(shown: int, every: int, what: str) -> str:
    return f"Drawn: the {shown} largest of {every} {what}." if shown < every else ""


def _across(
    figure: go.Figure, shown: int, every: int, what: str, title: str, form: str, *,
    legend: bool = True,
) -> go.Figure:  # fmt: skip
    """The frame of bars that lie on their side, the largest on top."""
    framed(figure, 130 + 26 * max(shown, 3), legend=legend, note=_drawn(shown, every, what))
    figure.update_yaxes(type="category", autorange="reversed")
    layout: dict[str, Any] = {"title": {"text": title}, "tickformat": form, "rangemode": "tozero"}
    figure.update_xaxes(**layout)
    return figure
