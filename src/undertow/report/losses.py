"""Figures of losses that travel: by channel, by assumption, by whom, by which way and links."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from undertow.report.ink import (
    BLUE,
    FAINT,
    GREY,
    GREY_BAND,
    PALE,
    RED,
    RISING,
    SIGNED,
    Scale,
    coloured,
    framed,
    hatch,
)
from undertow.report.scales import band_lines, labels, plain, short, square
from undertow.report.together import Tables
from undertow.report.words import number

_ROWS, _CHAINS = 25, 12  # what a figure can hold and still be read
_WHOLE_NODE = "worst_node_usd"  # of a default apart, where the others are of the shock
FALLING = Scale(RISING.light[::-1], RISING.dark[::-1])  # the first place is the strongest
_STEPS = {"shock": RED, "sold": BLUE, "price": GREY, "short": "#1F4E86", "party": PALE}


def by_channel(tables: Tables) -> go.Figure:
    """The loss with no channel, the plain cascade, one more, one less, and all."""
    rows = tables["channels"]
    called = [f"{way} {channel}".strip() for way, channel in
              rows.select("way", "channel").iter_rows()]  # fmt: skip
    names = list(labels(called).values())
    figure = go.Figure()
    for column, name, color, shape in (("lost_usd", "lost for good", RED, "/"),
                                       ("borne_usd", "borne by others", BLUE, "")):  # fmt: skip
        figure.add_trace(
            go.Bar(
                x=plain(rows[column]), y=names, orientation="h", name=name,
                marker={"color": color, "pattern": hatch(shape)},
                hovertemplate=f"%{{y}}: %{{x:.4s}} USD {name}",
            )
        )  # fmt: skip
    framed(figure, 160 + 34 * rows.height, legend=True)
    figure.update_layout(barmode="group")
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "USD"}, exponentformat="B", rangemode="tozero")
    return figure


def by_assumption(tables: Tables) -> go.Figure:
    """How far the loss moves when one assumption goes to its ends; those that do nothing are not
    drawn.
    """
    every = tables["assumptions"]
    apart = (pl.col("borne_at_high_usd") - pl.col("borne_at_low_usd")).abs()
    rows = every.filter(apart > 1e-9 * pl.col("borne_at_high_usd").abs()).sort(
        apart, descending=True
    )
    names = list(labels(rows["assumption"].to_list()).values())
    low, high = rows["borne_at_low_usd"], rows["borne_at_high_usd"]
    spans = band_lines(
        pl.DataFrame({"low": low, "high": high}), "low", "high", names
    )  # fmt: skip
    figure = go.Figure(spans)
    for column, value, symbol, color in (("borne_at_low_usd", "low", "circle-open", BLUE),
                                         ("borne_at_high_usd", "high", "circle", RED)):  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=plain(rows[column]), y=names, mode="markers", name=f"at its {value} end",
                marker={"symbol": symbol, "size": 10, "color": color},
                customdata=[number(v) for v in rows[value]],
                hovertemplate="%{y} = %{customdata}: others bear %{x:.4s} USD",
            )
        )  # fmt: skip
    quiet = every.height - rows.height
    note = (
        f"Not drawn: {quiet} of {every.height} assumptions, which change nothing." if quiet else ""
    )
    framed(figure, 150 + 30 * max(rows.height, 3), legend=True, note=note)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "USD that others bear"}, exponentformat="B")
    return figure


def bearers(tables: Tables) -> go.Figure:
    """Who bears what; and the share that who owes still pays, by greatest and least payments."""
    every = tables["parties"].filter((pl.col("bears_usd") > 1.0) | (pl.col("share") < 1.0))
    rows = every.sort("bears_usd", "party", descending=[True, False]).head(_ROWS)
    names = _named(rows["party"])
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04,
                           subplot_titles=["bears", "pays of what it owes"])  # fmt: skip
    bears = go.Bar(
        x=plain(rows["bears_usd"]), y=names, orientation="h", marker={"color": BLUE},
        hovertemplate="%{y} bears %{x:.4s} USD",
    )  # fmt: skip
    figure.add_trace(bears, 1, 1)
    for column, name, symbol, color in (("share", "greatest", "circle", BLUE),
                                        ("least_share", "least", "line-ns", RED)):  # fmt: skip
        says = f"%{{y}} pays %{{x:.2%}} of what it owes, {name} payments"
        figure.add_trace(_symbols(rows[column], names, symbol, color, says), 1, 2)
    note = f"Drawn: the {rows.height} of {every.height} that bear most."
    framed(figure, 130 + 26 * max(rows.height, 3), note=note if rows.height < every.height else "")
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(exponentformat="B", title={"text": "USD"}, rangemode="tozero", col=1)
    figure.update_xaxes(tickformat=".3~p", rangemode="tozero", title={"text": "share"}, col=2)
    return figure


def marked(tables: Tables) -> go.Figure:
    """What claims lose in value by party, between clearing and linear marks."""
    value = pl.max_horizontal("clearing_usd", "linear_usd", "ahead_usd")
    every = tables["valuation"].filter(value > 1.0).sort(value, descending=True)
    rows = every.head(_ROWS)
    names = _named(rows["party"])
    figure = go.Figure(band_lines(rows, "clearing_usd", "linear_usd", names))
    for column, name, symbol, color in (
        ("clearing_usd", "clearing", "circle", BLUE),
        ("linear_usd", "linear marks", "square", RED),
        ("ahead_usd", "marks ahead", "diamond-open", GREY),
        ("single_hit_usd", "a single hit", "x-thin", GREY),
    ):
        says = f"%{{y}}: claims lose %{{x:.4s}} USD in value by {name}"
        figure.add_trace(_symbols(rows[column], names, symbol, color, says, name))
    note = f"Drawn: the {rows.height} of {every.height} that lose most."
    framed(figure, 150 + 26 * max(rows.height, 3), legend=True,
           note=note if rows.height < every.height else "")  # fmt: skip
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "USD"}, exponentformat="B", rangemode="tozero")
    return figure


def shares(tables: Tables) -> go.Figure:
    """What each channel did to the loss: its Shapley share, alone, and by being off."""
    return _shared(tables["channels"], "channel")


def origins(tables: Tables) -> go.Figure:
    """What each shocked price, or failed node, did to the loss."""
    return _shared(tables["origins"], "origin")


def _shared(every: pl.DataFrame, column: str) -> go.Figure:
    rows = every.sort("shapley_usd", descending=True).head(_ROWS)
    names = [_percents(label, name) for name, label in labels(rows[column].to_list()).items()]
    bars = go.Bar(
        x=plain(rows["shapley_usd"]), y=names, orientation="h", name="its share of the loss",
        marker={"color": BLUE, "opacity": FAINT},
        customdata=[[number(share), number(error)] for share, error in
                    rows.select("share", "error_usd").iter_rows()],
        hovertemplate="%{y}: %{x:.4s} USD, %{customdata[0]} of the loss<br>standard error of the "
        "drawn orders %{customdata[1]} USD",
    )  # fmt: skip
    figure = go.Figure(bars)
    for value, name, symbol, color in (("alone_usd", "alone", "circle", BLUE),
                                       ("off_usd", "less without it", "line-ns", RED)):  # fmt: skip
        says = f"%{{y}}, {name}: %{{x:.4s}} USD"
        figure.add_trace(_symbols(rows[value], names, symbol, color, says, name))
    framed(figure, 150 + 28 * max(rows.height, 3), legend=True)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "USD"}, exponentformat="B", zeroline=True)
    return figure


def chains(tables: Tables) -> go.Figure:
    """The heaviest chains of causes, from the shock to who bears the loss."""
    heaviest = tables["chains"].sort("usd", "bearer", "rank", descending=[True, False, False])
    kept = heaviest.head(_CHAINS).select("bearer", "rank")
    steps = tables["steps"].join(kept, on=["bearer", "rank"], how="semi").sort(
        "bearer", "rank", "step"
    )  # fmt: skip
    place: dict[tuple[str, str], int] = {}
    flows: dict[tuple[int, int], float] = {}
    before: tuple[str, int, int] | None = None
    for bearer, rank, kind, name, said, usd in steps.select(
        "bearer", "rank", "kind", "name", "says", "usd"
    ).iter_rows():
        at = place.setdefault((kind, said if kind == "shock" else name), len(place))
        if before is not None and before[:2] == (bearer, rank) and before[2] != at:
            flows[before[2], at] = flows.get((before[2], at), 0.0) + float(usd or 0.0)
        before = (bearer, rank, at)
    names = [_boxed(name) for _, name in place]
    sankey = go.Sankey(
        arrangement="snap",
        node={"label": names, "color": [_STEPS.get(kind, PALE) for kind, _ in place], "pad": 12,
              "thickness": 12, "line": {"width": 0}, "hovertemplate": "%{label}: %{value:.4s} USD"},
        link={"source": [a for a, _ in flows], "target": [b for _, b in flows],
              "value": [float(f"{usd:.6g}") for usd in flows.values()], "color": GREY_BAND,
              "hovertemplate": "%{source.label} → %{target.label}: %{value:.4s} USD"},
    )  # fmt: skip
    figure = go.Figure(sankey)
    note = f"Drawn: the {kept.height} heaviest of {heaviest.height} chains."
    framed(figure, 460, note=note if kept.height < heaviest.height else "")
    return figure


def ranges(tables: Tables) -> go.Figure:
    """Every contagion number over the networks that fit, as told, searched, and where it is proved
    to end. The default that costs most is of another size, so it is told beside them.
    """
    every = tables["numbers"].filter(pl.col("unit") == "USD")
    rows = every.filter(pl.col("number") != _WHOLE_NODE)
    names = list(
        labels([n.removesuffix("_usd").replace("_", " ") for n in rows["number"]]).values()
    )
    figure = go.Figure(band_lines(rows, "least", "greatest", names))
    inner = band_lines(rows, "low", "high", names)
    inner.line = {"color": BLUE, "width": 9}
    figure.add_trace(inner)
    for column, name, symbol, color in (
        ("even", "spread evenly", "circle", GREY),
        ("few", "few links", "square", GREY),
        ("as_told", "links told alone", "diamond-open", BLUE),
        ("searched", "searched worst", "x-thin", RED),
        ("bound", "proved bound", "line-ns", RED),
    ):
        known = rows.filter(pl.col(column).is_not_null())
        at = [name for name, here in zip(names, rows[column].is_not_null(), strict=True) if here]
        says = f"%{{y}}, {name}: %{{x:.4s}} USD"
        figure.add_trace(_symbols(known[column], at, symbol, color, says, name))
    note = " ".join(
        "Not drawn, since it is of another size: equity of others marked down by the one default "
        f"that costs most, {number(row['least'])} to {number(row['greatest'])} USD over all "
        f"networks drawn, {number(row['low'])} to {number(row['high'])} USD over most of them."
        for row in every.filter(pl.col("number") == _WHOLE_NODE).iter_rows(named=True)
    )
    framed(figure, 150 + 34 * max(rows.height, 3), legend=True, note=note)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title={"text": "USD"}, exponentformat="B", rangemode="tozero")
    return figure


def places(tables: Tables) -> go.Figure:
    """The place of every node by every ranking, those on top that most rankings put there."""
    rows = tables["ranks"].drop_nulls("value")
    mean = rows.group_by("node").agg(pl.col("rank").mean()).sort("rank", "node")
    kept = mean.head(_ROWS)
    ranks = rows["ranking"].unique(maintain_order=True).to_list()
    names = _named(kept["node"])
    at = {(node, ranking): rank for node, ranking, rank in
          rows.select("node", "ranking", "rank").iter_rows()}  # fmt: skip
    band = {(node, ranking): "" if low is None else f" (band {low} to {high})"
            for node, ranking, low, high in
            rows.select("node", "ranking", "rank_low", "rank_high").iter_rows()}  # fmt: skip
    found = [[at.get((node, ranking)) for ranking in ranks] for node in kept["node"]]
    heat = go.Heatmap(
        z=found, x=[each.replace("_", " ") for each in ranks], y=names, coloraxis="coloraxis",
        hoverongaps=False, text=[["" if each is None else str(each) for each in row]
                                 for row in found],
        texttemplate="%{text}",
        customdata=[[band.get((node, ranking), "") for ranking in ranks] for node in kept["node"]],
        hovertemplate="%{y} is number %{z} by %{x}%{customdata}",
    )  # fmt: skip
    figure = go.Figure(heat)
    coloured(figure, FALLING, "place", 1.0, None)
    note = f"Drawn: the {kept.height} of {mean.height} nodes that stand highest on average."
    framed(figure, 170 + 24 * max(kept.height, 3),
           note=note if kept.height < mean.height else "")  # fmt: skip
    small = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_yaxes(autorange="reversed", **small)
    figure.update_xaxes(side="top", **small)
    return figure


def agreement(tables: Tables) -> go.Figure:
    """How alike two rankings are, over the nodes that both rank."""
    pairs = tables["agreement"].rename({"ranking": "a", "other": "b"})
    known = pairs.drop_nulls("kendall")
    names = pl.concat([known["a"], known["b"]]).unique(maintain_order=True).to_list()
    axis = [name.replace("_", " ") for name in names]
    heat = go.Heatmap(
        z=plain(square(pairs, names, "kendall")), x=axis, y=axis, coloraxis="coloraxis",
        hoverongaps=False, hovertemplate="%{y} and %{x}<br>Kendall's tau %{z:.2f}",
    )  # fmt: skip
    figure = go.Figure(heat)
    coloured(figure, SIGNED, "Kendall's tau", -1.0, 1.0)
    framed(figure, 200 + 28 * max(len(names), 3))
    small = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(tickangle=-40, **small)
    figure.update_yaxes(autorange="reversed", **small)
    return figure


def _boxed(name: str) -> str:
    """What stands beside a box: the key of a party, else the words."""
    kind, _, key = name.partition(":")
    parties = ("pool", "owner", "venue", "external", "asset")
    shown = short(key if kind in parties else name.replace("|", " "))
    return _percents(shown, name)


def _percents(shown: str, name: str) -> str:
    """A label whose shares keep their sign, where that cannot be taken for a template."""
    return shown if set(name) & set("{}$·") else shown.replace("·", "%")


def _named(names: pl.Series) -> list[str]:
    """Short names; two kinds that share a key keep theirs."""
    keys = [str(name).partition(":")[2] or str(name) for name in names]
    told = [key if keys.count(key) == 1 else str(name) for key, name in
            zip(keys, names, strict=True)]  # fmt: skip
    given = labels(told)
    return [given[name] for name in told]


def _symbols(
    values: pl.Series, rows: list[str], symbol: str, color: str, says: str, name: str | None = None
) -> go.Scatter:  # fmt: skip
    """One symbol a row, in the legend if it has a name; those without an inside are all line."""
    thin = symbol in ("line-ns", "x-thin")
    look = {"symbol": symbol, "size": 13 if thin else 9, "color": color,
            "line": {"width": 3 if thin else 1, "color": color}}  # fmt: skip
    return go.Scatter(
        x=plain(values), y=rows, mode="markers", name=name, marker=look, hovertemplate=says
    )
