"""Figures of who wants leverage, and who must trade because a price moved."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.measures.crowding.demand import CUTOFFS, STATES
from undertow.report.ink import BLUE, GREY, MANY, RED, SIGNED, coloured, framed
from undertow.report.scales import labels, plain, stacked, times
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS, _LINES, _ASSETS = 40, 3, 4  # what a figure can hold and still be read
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def over_time(tables: Tables) -> go.Figure:
    """How high demand stood in its own past, of all and of the nodes with the highest, by time."""
    rows = tables["past"].sort("ts")
    every = rows["node"].unique(maintain_order=True).to_list()
    last = dict(rows.drop_nulls("rank").select("node", "rank").iter_rows())  # the newest of each
    first = [node for node in every if node == "all"]
    rest = sorted((n for n in every if n != "all"), key=lambda n: (-last.get(n, -1.0), n))
    kept = [*first, *rest][: _LINES + len(first)]
    given = labels(kept)
    figure = go.Figure()
    for k, node in enumerate(kept):
        part = rows.filter(pl.col("node") == node)
        line = go.Scatter(
            x=times(part["ts"]), y=plain(part["rank"]), name=given[node],
            mode="lines" if part.height > 1 else "markers",
            line={"color": MANY[k % len(MANY)], "dash": _DASHES[k % len(_DASHES)],
                  "width": 2.4 if node == "all" else 1.4},
            customdata=plain(part["known"]),
            hovertemplate=f"{given[node]} %{{y:.3g}}, of %{{customdata}} components",
        )  # fmt: skip
        figure.add_trace(line)
    note = f"Drawn: the {len(kept)} that stand highest, of {len(every)}."
    framed(figure, 400, legend=True, note=note if len(kept) < len(every) else "")
    for bound, state in zip(CUTOFFS, STATES[1:], strict=True):
        figure.add_hline(
            y=bound, line={"color": GREY, "width": 1, "dash": "dash"},
            annotation={"text": f"{state} from here", "font": {"size": 10}, "xanchor": "right",
                        "x": 1.0, "yanchor": "bottom", "showarrow": False},
        )  # fmt: skip
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(range=[0, 1.03], title={"text": "rank in its own past"})
    return figure


def components(tables: Tables) -> go.Figure:
    """Where each component of demand stands in its own past, node by node."""
    every = tables["components"]
    order = every["node"].unique(maintain_order=True).to_list()
    kept = order[:_ROWS]
    parts = every["component"].unique(maintain_order=True).to_list()
    rows = every.filter(pl.col("node").is_in(kept))
    found = {
        (node, part): (rank, value, low, high)
        for node, part, rank, value, low, high in rows.select(
            "node", "component", "rank", "value", "low", "high"
        ).iter_rows()
    }
    down, across = labels(kept), labels(parts)
    nothing = (None, None, None, None)
    figure = go.Figure(
        go.Heatmap(
            x=[across[p] for p in parts],
            y=[down[n] for n in kept],
            z=[plain([found.get((n, p), nothing)[0] for p in parts]) for n in kept],
            customdata=[[list(map(number, found.get((n, p), nothing)[1:])) for p in parts]
                        for n in kept],
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate="%{y}, %{x}: above %{z:.1%} of its own past "
            "(band %{customdata[1]} to %{customdata[2]})<br>it is %{customdata[0]}",
        )
    )  # fmt: skip
    coloured(figure, SIGNED, "rank", 0.0, 1.0)
    note = f"Drawn: {len(kept)} of {len(order)} nodes." if len(kept) < len(order) else ""
    framed(figure, 170 + 22 * max(len(kept), 4), note=note)
    figure.update_xaxes(type="category", tickangle=-30, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def ladder(tables: Tables) -> go.Figure:
    """What must be traded after a move, in USD and in e-folds of depth, a column an asset."""
    rows = tables["ladder"].sort("move")
    sizes = rows.group_by("asset").agg(pl.col("bought_usd").abs().max())
    order = sizes.sort("bought_usd", "asset", descending=[True, False], nulls_last=True)["asset"]
    kept = order.head(_ASSETS).to_list()
    turns = dict(
        tables["crowding.rebalancing/assets"].select("asset", "zero_gamma_move").iter_rows()
        if "crowding.rebalancing/assets" in tables
        else ()
    )
    figure = make_subplots(
        2, len(kept), shared_xaxes=True, row_heights=[0.66, 0.34], vertical_spacing=0.07,
        horizontal_spacing=0.09, subplot_titles=stacked(labels(kept).values()),
    )  # fmt: skip
    found: list[tuple[go.Scatter, int, int]] = []
    for k, asset in enumerate(kept, start=1):
        part = rows.filter(pl.col("asset") == asset)
        for column, name, color, dash, width in (
            ("bought_usd", "both together", BLUE, "solid", 4.0),
            ("dealers_usd", "dealers", RED, "dash", 2.0),
            ("funds_usd", "leveraged tokens", GREY, "dot", 2.0),
        ):
            rung = _rung(part, column, name)
            rung.update(line={"color": color, "dash": dash, "width": width}, showlegend=k == 1)
            found.append((rung, 1, k))
        found.append((_folds(part), 2, k))
        if (turn := turns.get(asset)) is not None:
            named = not any(trace.legendgroup == "turn" for trace, _, _ in found)
            found.append((_turn(turn, named), 1, k))
    figure.add_traces(*map(list, zip(*found, strict=True)))
    for k, asset in enumerate(kept, start=1):
        if (turn := turns.get(asset)) is not None:
            line = {"color": GREY, "width": 1.5, "dash": "dash"}
            figure.add_vline(x=turn, line=line, row=1, col=k)
    note = f"Drawn: the {len(kept)} that trade most, of {len(order)} assets."
    framed(figure, 470, legend=True, note=note if len(kept) < len(order) else "")
    figure.update_xaxes(tickformat="+.3~p", zeroline=True)
    figure.update_xaxes(title={"text": "move of the price"}, row=2)
    figure.update_yaxes(zeroline=True, exponentformat="B")
    figure.update_yaxes(title={"text": "USD bought"}, row=1, col=1)
    figure.update_yaxes(title={"text": "e-folds"}, row=2, col=1)
    return figure


def _rung(rows: pl.DataFrame, column: str, name: str) -> go.Scatter:
    return go.Scatter(
        x=plain(rows["move"]), y=plain(rows[column]), name=name, legendgroup=name, mode="lines",
        customdata=[[number(usd), number(level)]
                    for usd, level in rows.select(column, "level").iter_rows()],
        hovertemplate=f"%{{x:+.1%}}, to %{{customdata[1]}}: {name} buy %{{customdata[0]}} USD",
    )  # fmt: skip


def _folds(rows: pl.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=plain(rows["move"]), y=plain(rows["e_folds"]), mode="lines", showlegend=False,
        fill="tozeroy", line={"color": BLUE, "width": 1.5},
        hovertemplate="%{x:+.1%}: %{y:.3g} e-folds of depth",
    )  # fmt: skip


def _turn(move: float, named: bool) -> go.Scatter:
    return go.Scatter(
        x=[move], y=[0.0], mode="markers", name="dealers' gamma is zero", legendgroup="turn",
        showlegend=named, marker={"symbol": "diamond-open", "size": 10, "color": GREY},
        hovertemplate="at %{x:+.1%} the gamma of dealers changes sign",
    )  # fmt: skip
