"""Figures stand on the tables of their studies, stay legible, and show only what is there."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from report.made import NODES, TS, studies, study, tables
from undertow.report.ink import BLUE, RED, literal, note_of, sourced
from undertow.report.pictures import PICTURES, drawn
from undertow.report.scales import LONGEST, alike, labels, square, times

MANY = [f"node-{i:03d}" for i in range(200)]
TITLES = [picture.title for picture in PICTURES]


def figure(title: str, held: dict[str, dict[str, pl.DataFrame]] | None = None) -> go.Figure:
    """The figure of that title, of these tables."""
    found = [study(name, part) for name, part in (held or tables()).items()]
    (of,) = [picture.study for picture in PICTURES if picture.title == title]
    mine = next(each for each in found if each.name == of)
    (one,) = [f for picture, f in drawn(mine, found) if picture.title == title]
    return one


def test_every_picture_is_drawn_of_its_tables() -> None:
    made = studies()
    assert [p.title for s in made for p, _ in drawn(s, made)] == TITLES


@pytest.mark.parametrize("picture", PICTURES, ids=TITLES)
def test_a_picture_is_left_out_where_a_table_column_or_number_is_missing(picture) -> None:
    held = tables()[picture.study]
    for name, columns in picture.needs.items():
        floats = [c for c in columns if held[name][c].dtype.is_float()]
        poorer = [
            {k: v for k, v in held.items() if k != name},
            {**held, name: held[name].drop(columns[-1])},
            {**held, name: held[name].head(0)},
        ]
        if floats:
            empty = held[name].with_columns(pl.lit(None).alias(c) for c in floats)
            poorer.append({**held, name: empty})
        for less in poorer:
            bare = study(picture.study, less)
            assert picture.title not in [p.title for p, _ in drawn(bare, [bare])]


def test_holes_in_numbers_leave_holes_in_figures() -> None:
    # every other number is a hole, of each kind in turn
    row = pl.int_range(pl.len())
    holes = pl.when(row % 6 == 1).then(None).when(row % 6 == 3).then(np.nan).otherwise(np.inf)
    held = {
        name: {
            key: frame.with_columns(
                pl.when(row % 2 == 0).then(pl.col(c)).otherwise(holes).alias(c)
                for c in frame.columns
                if frame[c].dtype.is_float()
            )
            for key, frame in part.items()
        }
        for name, part in tables().items()
    }
    made = [study(name, part) for name, part in held.items()]
    for one in made:
        for _, found in drawn(one, made):
            spelled = found.to_json()
            assert "NaN" not in spelled
            assert "Infinity" not in spelled


def test_all_pairs_lie_below_the_diagonal_and_sure_ones_above() -> None:
    pairs = tables()["tandem.matrix"]["pairs"]
    heat = figure("Who moves with whom").data[0]
    shown = {
        (a, b): heat.z[i][j]
        for i, a in enumerate(heat.y)
        for j, b in enumerate(heat.x)
        if heat.z[i][j] is not None
    }
    place = {name: i for i, name in enumerate(heat.y)}
    sure = 0
    for a, b, rho, p in (
        pairs.filter(pl.col("layer") == "raw")
        .select("a", "b", "correlation", "p_corrected")
        .iter_rows()
    ):
        below, above = sorted((a, b), key=lambda n: -place[n])
        assert shown.pop((below, above)) == pytest.approx(rho, rel=1e-5)
        if p < 0.05:
            sure += 1
            assert shown.pop((above, below)) == pytest.approx(rho, rel=1e-5)
    assert 0 < sure < pairs.height / 3
    assert not shown


def test_layers_share_one_order_that_puts_like_beside_like() -> None:
    panels = figure("Who moves with whom").data
    assert len({panel.y for panel in panels}) == 1
    blocks = np.kron([[1.0, 0.1], [0.1, 1.0]], np.ones((3, 3)))
    mixed = [0, 3, 1, 4, 2, 5]
    order = [mixed[i] // 3 for i in alike(blocks[np.ix_(mixed, mixed)])]
    assert order in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


@pytest.mark.slow
def test_two_hundred_series_stay_light_and_say_what_is_not_drawn() -> None:
    made = studies(MANY)
    every = {picture.title: found for one in made for picture, found in drawn(one, made)}
    assert list(every) == TITLES
    for title, found in every.items():
        assert found.layout.height < 1200, title
        assert len(found.to_json()) < 1_500_000, title
    notes = {title: note_of(found) for title, found in every.items()}
    assert "of 200" in notes["Who passes shocks to whom"]
    assert "of 200" in notes["Givers and takers"]
    assert "of 200" in notes["Phases of every node"]
    assert "of 200" in notes["Where losses arrive"]
    assert not notes["Who moves with whom"]
    for title in ("Which way nodes lean", "Days to exit", "What is called at which price",
                  "Who must trade after a move", "Owners who stand close together at two venues",
                  "How far from selling itself", "The undertow index"):  # fmt: skip
        assert "Drawn: " in notes[title], title


def test_an_arrow_runs_from_giver_to_taker_as_wide_as_its_share() -> None:
    table = pl.DataFrame(
        {"to_node": ["b", "a", "a"], "from_node": ["a", "b", "a"], "share": [0.6, 0.2, 0.9]}
    )
    nodes = pl.DataFrame(
        {"node": ["a", "b"], "to": [0.6, 0.2], "from": [0.2, 0.6], "net": [0.4, -0.4],
         "net_low": [0.1, -0.5], "net_high": [0.5, -0.1]}
    )  # fmt: skip
    *links, dots = figure(
        "Who passes shocks to whom", {"tandem.connectedness": {"nodes": nodes, "table": table}}
    ).data
    assert [link.customdata[0] for link in links] == [
        "b to a<br>share 0.2", "a to b<br>share 0.6",
    ]  # fmt: skip
    assert links[1].line.width > links[0].line.width
    spot = dict(zip(dots.text, zip(dots.x, dots.y, strict=True), strict=True))
    assert (links[1].x[0], links[1].y[0]) == spot["a"]
    assert links[1].marker.size[-1] > 0 == links[1].marker.size[0]
    assert dict(zip(dots.text, dots.marker.color, strict=True)) == {"a": RED, "b": BLUE}


def test_the_share_of_nodes_unwinding_is_counted_between_peak_and_trough() -> None:
    index = figure("Tandem over time")
    (share,) = [t for t in index.data if t.name == "share of nodes unwinding"]
    # every node: trough about day 5, peak about day 20, trough about day 45
    assert share.y[0] == 1.0  # before a trough a node unwinds
    assert share.y[12] == 0.0
    assert share.y[30] == 1.0
    assert share.y[58] == 0.0


def test_a_common_unwind_that_may_be_chance_has_an_open_sign() -> None:
    (mark,) = [t for t in figure("Tandem over time").data if "common unwind" in (t.name or "")]
    assert mark.marker.symbol == ("triangle-down-open",)
    alone = figure("Tandem over time", {"tandem.index": tables()["tandem.index"]})
    assert [t.name for t in alone.data if t.name] == ["band", "rolling", "ewma", "dcc"]


def test_a_phase_reaches_from_turn_to_turn() -> None:
    building, falling = figure("Phases of every node").data
    node = list(building.y).index("aave")
    assert building.customdata[node] == ["2026-05-06 00:00:00", "2026-05-21 00:00:00"]
    assert building.x[node] == 15 * 86_400_000
    assert len(falling.y) == len(NODES)


def test_only_members_of_an_unwind_are_drawn_as_such() -> None:
    rows = pl.DataFrame({"event": ["e"] * 3, "node": list("abc"), "depth": [0.3, 0.2, 0.1],
                         "member": [True, False, True]})  # fmt: skip
    found = figure("Who took part in which unwind", {"tandem.unwinding": {"participants": rows}})
    pale, strong = found.data
    assert (set(strong.y), set(pale.y)) == ({"a", "c"}, {"b"})
    assert strong.marker.color == RED != pale.marker.color
    assert [pale.name, strong.name] == ["fell, but took no part", "took part"]
    assert found.layout.showlegend


def test_falls_stand_left_of_zero_and_rises_right_of_it() -> None:
    found = figure("Falls against rises")
    by_side = {t.name: t for t in found.data if t.name in ("falls", "rises")}
    assert max(by_side["falls"].x) == 0.0 == min(by_side["rises"].x)
    assert min(by_side["falls"].x) == -1.0


def test_a_venue_that_lacks_capital_is_red_and_one_of_unknown_funds_is_said_to_be() -> None:
    found = figure("Who would lack capital")
    (bars,) = found.data
    assert list(bars.marker.color) == [RED if x > 0 else BLUE for x in bars.x]
    assert "Of 1 more" in note_of(found)


def test_a_node_whose_band_holds_zero_has_an_open_sign() -> None:
    found = figure("With whom the others fall, and who falls with the market")
    points = found.data[1]
    assert points.marker.symbol[0] == "circle"
    assert points.marker.symbol[-1] == "circle-open"


def test_losses_add_up_over_channels() -> None:
    heat = figure("Where losses arrive").data[0]
    row = list(heat.y).index("aave")
    assert heat.z[row][list(heat.x).index("bank")] == pytest.approx(0.02)
    assert heat.z[row][list(heat.x).index("aave")] is None
    stack = figure("How losses travel").data
    assert [bar.name for bar in stack] == ["claims", "prices"]
    assert sum(bar.x[list(bar.y).index("loops")] for bar in stack) == pytest.approx(0.4)


def test_a_band_is_drawn_where_it_is_even_if_it_misses_the_value() -> None:
    scores = pl.DataFrame({"model": ["m"], "score": [0.9], "low": [0.5], "high": [0.7],
                           "hits": [1], "expected": [2.0]})  # fmt: skip
    line = figure("Which model foretold better", {"tandem.consequence": {"scores": scores}}).data[0]
    assert line.x == (0.5, 0.7, None)


def test_every_hover_says_where_its_number_is_from() -> None:
    made = studies()
    for one in made:
        for _, found in drawn(one, made):
            given = json.loads(sourced(found, "tandem.x, at 2026-11-01, modelled").to_json())
            parts = [part for t in given["data"] for part in (
                (t["node"], t["link"]) if t["type"] == "sankey" else (t,))]  # fmt: skip
            hovers = [p["hovertemplate"] for p in parts if p.get("hoverinfo") != "skip"]
            titles = json.dumps(given["layout"].get("xaxis", {}).get("unifiedhovertitle", {}))
            assert hovers
            for hover in hovers:
                assert hover.endswith("<extra></extra>")
                assert "at 2026-11-01, modelled" in hover + titles


def test_names_in_figures_are_text_that_fits_and_stays_distinct() -> None:
    given = labels(["<b>bold</b>", "%{x}", "x" * 90, "x" * 45 + "y" + "x" * 44, "", "1"])
    assert len(set(given.values())) == 6
    assert given["<b>bold</b>"] == "&lt;b&gt;bold&lt;/b&gt;"
    assert given["%{x}"] == "··x·"
    assert given[""] == "(no name)"
    assert all(len(label) <= LONGEST + 4 for label in (given["x" * 90], given["1"]))
    assert literal("a%{b}") == "a··b·"


def test_instants_are_utc_whatever_way_they_are_kept() -> None:
    whole = pl.Series([TS, None])
    said = ["2026-11-01 00:00:00", None]
    assert times(whole) == said
    assert times(whole.cast(pl.Datetime("us"))) == said
    assert times(whole.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Asia/Tokyo")) == said
    assert times(whole.cast(pl.Datetime("us")).cast(pl.Datetime("ms", "UTC"))) == said
    assert times(whole.cast(pl.Datetime("us")).dt.date()) == said


def test_pairs_become_a_square_without_a_diagonal() -> None:
    pairs = pl.DataFrame({"a": ["x", "y", "x"], "b": ["y", "z", "x"], "v": [0.5, None, 1.0]})
    square_ = square(pairs, ["x", "y", "z"], "v")
    assert square_[0, 1] == square_[1, 0] == 0.5
    assert np.isnan(square_).sum() == 7
