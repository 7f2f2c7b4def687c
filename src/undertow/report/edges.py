"""Figures of how near the edge everybody stands: what is called at which price, where, together.

What was observed, sampled and modelled keeps its colour, stands side by side and is never added up.
"""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    EVIDENCE,
    FAINT,
    GREY,
    RED,
    RED_BAND,
    RISING,
    coloured,
    framed,
)
from undertow.report.scales import band_lines, banded, labels, plain
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS, _LINES, _PANELS = 40, 6, 6  # what a figure can hold and still be read
_MARKET = "market"
_LETTERS = ("", "k", "M", "B", "T")
_DECADES = 5  # of USD that the colours of the map tell apart


def _moved(rows: pl.DataFrame) -> pl.DataFrame:
    """Distances as moves of one price: a fall is below zero, a rise above it."""
    signed = pl.when(pl.col("side") == "fall").then(-pl.col("distance")).otherwise("distance")
    return rows.drop_nulls("distance").with_columns(move=signed).sort("move")


def liquidations(tables: Tables) -> go.Figure:
    """What must be traded up to each price, beside what moves it so far: the market, then assets.

    Falls lie to the left of the price of now, rises to the right.
    """
    rows = _moved(tables["cumulative"])
    lines, every = _largest(rows)
    given = labels(lines)
    deep = 1 + math.ceil((len(lines) - 1) / 2)
    cells = [(1, 1), *((2 + k // 2, 1 + k % 2) for k in range(len(lines) - 1))]
    weights = [1.6, *([1.0] * (deep - 1))]
    figure = make_subplots(
        deep, 2, subplot_titles=[given[line] for line in lines], row_heights=weights,
        specs=[[{"colspan": 2}, None], *([{}, {}] for _ in range(deep - 1))],
        vertical_spacing=0.32 / (deep + 1), horizontal_spacing=0.1,
    )  # fmt: skip
    named: set[str] = set()
    found = []
    for line, (row, col) in zip(lines, cells, strict=True):
        part = rows.filter(pl.col("line") == line)
        for trace in [*_called(part), _depth(part)]:
            trace.showlegend = trace.name not in named
            named.add(trace.name)
            found.append((trace, row, col))
    figure.add_traces(*map(list, zip(*found, strict=True)))
    if (walls := tables.get("crowding.map/dense")) is not None:
        figure.update_layout(shapes=_walls(walls, lines))
    note = f"Drawn: {len(lines)} of {every} prices that are followed." if len(lines) < every else ""
    framed(figure, 150 + 270 + 185 * (deep - 1), legend=True, note=note)
    figure.update_xaxes(tickformat="+.3~p", zeroline=True)
    figure.update_xaxes(title={"text": "move of the price"}, row=deep)
    figure.update_yaxes(rangemode="tozero", exponentformat="B")
    figure.update_yaxes(title={"text": "USD to be traded"}, row=1, col=1)
    return figure


def _largest(rows: pl.DataFrame) -> tuple[list[str], int]:
    """The market, then the prices along which most must be traded; and how many there are."""
    most = rows.group_by("line", "side", "evidence").agg(pl.col("traded_usd").max())
    sums = most.group_by("line").agg(pl.col("traded_usd").sum())
    order = sums.sort("traded_usd", "line", descending=[True, False])["line"].to_list()
    first = [line for line in order if line == _MARKET]
    rest = [line for line in order if line != _MARKET]
    return [*first, *rest][: 1 + _LINES], len(order)


def _called(rows: pl.DataFrame) -> list[go.Scatter]:
    """What is called up to each price, a line for each way in which it is known."""
    found = []
    for word, color in EVIDENCE.items():
        part = rows.filter(pl.col("evidence") == word)
        if not part.height:
            continue
        line = go.Scatter(
            x=plain(part["move"]), y=plain(part["traded_usd"]), name=f"called, {word}",
            legendgroup=word, mode="lines", line={"color": color, "width": 2.2},
            customdata=[
                [number(traded), accounts, number(debt), number(notional)]
                for traded, accounts, debt, notional in part.select(
                    "traded_usd", "accounts", "debt_usd", "notional_usd"
                ).iter_rows()
            ],
            hovertemplate=f"%{{x:+.1%}} calls %{{customdata[1]}} accounts, {word}<br>"
            "%{customdata[0]} USD to be traded<br>"
            "debt %{customdata[2]} USD, notional %{customdata[3]} USD",
        )  # fmt: skip
        found.append(line)
    return found


def _depth(rows: pl.DataFrame) -> go.Scatter:
    depth = rows.group_by("move").agg(pl.col("depth_usd").max()).sort("move")
    return go.Scatter(
        x=plain(depth["move"]), y=plain(depth["depth_usd"]), name="moves the price so far",
        legendgroup="depth", mode="lines", line={"color": GREY, "dash": "dash", "width": 1.8},
        customdata=[number(usd) for usd in depth["depth_usd"]],
        hovertemplate="%{customdata} USD move the price by %{x:+.1%}",
    )  # fmt: skip


def _walls(walls: pl.DataFrame, lines: list[str]) -> list[dict[str, Any]]:
    """A field behind each panel where most is called."""
    panel = {line: "" if k == 0 else str(k + 1) for k, line in enumerate(lines)}
    ends = walls.filter(pl.col("line").is_in(lines)).select("line", "side", "start", "end")
    return [
        {
            "type": "rect", "xref": f"x{panel[line]}", "yref": f"y{panel[line]} domain",
            "x0": -a if side == "fall" else a, "x1": -b if side == "fall" else b, "y0": 0, "y1": 1,
            "fillcolor": RED_BAND, "line": {"width": 0}, "layer": "below",
        }
        for line, side, a, b in ends.iter_rows()
    ]  # fmt: skip


def calling(tables: Tables) -> go.Figure:
    """What each venue calls between one price and the next, in a common move."""
    rows = _moved(tables["ladder"].filter(pl.col("line") == _MARKET))
    rows = rows.with_columns(usd=pl.col("debt_usd").fill_null(0) + pl.col("notional_usd"))
    step = float(rows["distance"].unique().sort().diff().drop_nulls().min() or 0.01)  # type: ignore[arg-type]
    rows = rows.with_columns(
        pl.col("move") + pl.when(pl.col("move") < 0).then(0.5 * step).otherwise(-0.5 * step),
        key=pl.format("{}, {}", "venue", "evidence")
        if rows["evidence"].n_unique() > 1
        else pl.col("venue"),
    )
    sums = rows.group_by("key").agg(pl.col("usd").sum())
    order = sums.sort("usd", "key", descending=[True, False])["key"].to_list()
    kept = order[:_ROWS]
    moves = rows["move"].unique().sort().to_list()
    found = {(key, move): (usd, accounts) for key, move, usd, accounts in
             rows.select("key", "move", "usd", "accounts").iter_rows()}  # fmt: skip
    cells = [[found.get((key, move), (None, 0)) for move in moves] for key in kept]
    given = labels(kept)
    figure = go.Figure(
        go.Heatmap(
            x=plain([100.0 * move for move in moves]),
            y=[given[key] for key in kept],
            z=[plain([math.log10(usd) if usd else None for usd, _ in row]) for row in cells],
            customdata=[[[number(usd), accounts] for usd, accounts in row] for row in cells],
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate="%{y} calls %{customdata[1]} accounts with %{customdata[0]} USD "
            f"within {100.0 * step:.2g} % of a move of %{{x:+.3g}} %",
        )
    )
    top = math.ceil(max((math.log10(usd) for row in cells for usd, _ in row if usd), default=1.0))
    coloured(figure, RISING, "USD", top - _DECADES, top)
    ticks = list(range(top - _DECADES, top + 1))
    bar = figure.layout.coloraxis.colorbar
    bar.update(tickvals=ticks, ticktext=list(map(_power, ticks)))
    note = f"Drawn: the {len(kept)} that call most, of {len(order)}." if kept != order else ""
    framed(figure, 130 + 24 * max(len(kept), 4), note=note)
    figure.update_xaxes(title={"text": "common move, %"}, showgrid=False, zeroline=True)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def _power(of_ten: int) -> str:
    """A power of ten, as short as a scale has room for."""
    return f"{10 ** (of_ten % 3)}{_LETTERS[of_ten // 3]}" if 0 <= of_ten < 15 else ""


def surface(tables: Tables) -> go.Figure:
    """What joint falls call, over a grid of both; a panel a pair and a way of knowing."""
    rows = tables["surface"].drop_nulls(["market", "other"])
    panels = rows.select("surface", "evidence").unique(maintain_order=True).rows()
    kept = panels[:_PANELS]
    wide = min(len(kept), 2)
    deep = math.ceil(len(kept) / wide)
    several = len({evidence for _, evidence in kept}) > 1
    others = [pair.removeprefix(f"{_MARKET} and ").removesuffix(" beyond it") for pair, _ in kept]
    titles = [f"{other}, {word}" if several else other
              for other, (_, word) in zip(others, kept, strict=True)]  # fmt: skip
    figure = make_subplots(
        deep, wide, subplot_titles=list(labels(titles).values()), horizontal_spacing=0.13,
        vertical_spacing=0.2 / deep,
    )  # fmt: skip
    step = _step(max(rows["share"].drop_nulls().to_list(), default=0.0))
    for k, (pair, word) in enumerate(kept):
        part = rows.filter((pl.col("surface") == pair) & (pl.col("evidence") == word))
        row, col = 1 + k // wide, 1 + k % wide
        figure.add_traces(_grid(part, step), rows=row, cols=col)
        text = f"{labels(others)[others[k]]} falls further by"
        figure.update_xaxes(title={"text": text}, row=row, col=col)
    coloured(figure, RISING, "called", 0.0, None)
    figure.layout.coloraxis.colorbar.update(tickformat=".3~p", dtick=step, tick0=0.0)
    note = f"Drawn: {len(kept)} of {len(panels)} surfaces." if len(kept) < len(panels) else ""
    framed(figure, 90 + 320 * deep, note=note)
    figure.update_xaxes(tickformat=".3~p", showgrid=False, zeroline=False)
    figure.update_yaxes(tickformat=".3~p", showgrid=False, zeroline=False)
    figure.update_yaxes(title={"text": "market falls by"}, col=1)
    return figure


def _step(most: float) -> float:
    """A round share of which some six make the largest."""
    return next((step for step in (0.005, 0.01, 0.02, 0.05) if most <= 6.0 * step), 0.1)


def _grid(rows: pl.DataFrame, step: float) -> list[go.Heatmap | go.Contour]:
    """Shares over a grid of both falls, and the lines along which they are alike."""
    market = rows["market"].unique().sort().to_list()
    other = rows["other"].unique().sort().to_list()
    found = {
        (a, b): (share, number(debt), number(notional))
        for a, b, share, debt, notional in rows.select(
            "market", "other", "share", "debt_usd", "notional_usd"
        ).iter_rows()
    }
    nothing = (None, "-", "-")
    cells = [[found.get((a, b), nothing) for b in other] for a in market]
    z = [plain([cell[0] for cell in row]) for row in cells]
    heat = go.Heatmap(
        x=plain(other), y=plain(market), z=z, coloraxis="coloraxis", hoverongaps=False,
        customdata=[[list(cell[1:]) for cell in row] for row in cells],
        hovertemplate="market %{y:.1%} down, the other %{x:.1%} further: %{z:.2%} is called<br>"
        "debt %{customdata[0]} USD, notional %{customdata[1]} USD",
    )  # fmt: skip
    alike = go.Contour(
        x=plain(other), y=plain(market), z=z, hoverinfo="skip", showscale=False,
        line={"color": RED, "width": 1.2},
        contours={"coloring": "none", "start": step, "end": 1.0, "size": step},
    )  # fmt: skip
    return [heat, alike]


def together(tables: Tables) -> go.Figure:
    """Chance that so many venues call in one window, beside what chance alone would make."""
    rows = tables["venues_called"].sort("k")
    k = plain(rows["k"])
    bars = go.Bar(
        x=k, y=plain(rows["probability"]), marker={"color": BLUE, "opacity": FAINT}, width=0.6,
        name="as they stand", customdata=banded(rows, "probability", "low", "high"),
        hovertemplate="%{x} venues or more: %{customdata}",
    )  # fmt: skip
    alone = go.Scatter(
        x=k, y=plain(rows["by_chance"]), mode="markers", name="each on its own",
        marker={"symbol": "line-ew", "size": 26, "line": {"width": 3, "color": RED}},
        hovertemplate="%{x} venues or more, each on its own: %{y:.4g}",
    )  # fmt: skip
    figure = go.Figure([bars, band_lines(rows, "low", "high", k, upright=True), alone])
    framed(figure, 360, legend=True)
    figure.update_xaxes(title={"text": "venues that call, at least"}, dtick=1)
    figure.update_yaxes(title={"text": "probability"}, rangemode="tozero", tickformat=".3~p")
    return figure


def twice(tables: Tables) -> go.Figure:
    """Owners who are called on several venues, from the first of their calls to the last."""
    every = tables["owners"].drop_nulls(["nearest", "farthest"])
    every = every.sort("called_usd", descending=True, nulls_last=True)
    rows = every.head(_ROWS)
    turn = {"fall": -1.0, "rise": 1.0}
    whole = [f"owner {owner}, {side}" for owner, side in rows.select("owner", "side").iter_rows()]
    given = labels(whole)
    names = [given[each] for each in whole]
    signed = rows.with_columns(
        start=pl.col("nearest") * pl.col("side").replace_strict(turn, default=1.0),
        stop=pl.col("farthest") * pl.col("side").replace_strict(turn, default=1.0),
    )
    largest = max((usd or 0.0 for usd in rows["called_usd"]), default=0.0) or 1.0
    said = [
        [", ".join(map(str, labels([str(venues)]).values())), accounts, number(usd)]
        for venues, accounts, usd in rows.select("venues", "accounts", "called_usd").iter_rows()
    ]
    first, last = (
        go.Scatter(
            x=plain(signed[column]), y=names, mode="markers", name=name,
            marker={"color": color, "symbol": symbol, "opacity": 1,
                    "size": [7.0 + 11.0 * (usd or 0.0) / largest for usd in rows["called_usd"]]},
            customdata=said,
            hovertemplate=f"%{{y}}: {name} at %{{x:+.1%}}<br>%{{customdata[0]}}<br>"
            "%{customdata[1]} accounts with %{customdata[2]} USD",
        )
        for column, name, color, symbol in (
            ("start", "first call", RED, "circle"), ("stop", "last call", BLUE, "circle-open"))
    )  # fmt: skip
    note = f"Drawn: the {rows.height} with most that is called, of {every.height}."
    framed(figure := go.Figure([band_lines(signed, "start", "stop", names), last, first]),
           130 + 22 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed", categoryarray=names)
    figure.update_xaxes(title={"text": "common move of prices"}, tickformat="+.3~p", zeroline=True,
                        rangemode="tozero")  # fmt: skip
    return figure
