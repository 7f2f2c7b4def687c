"""Figures of crowding keep sides, evidence and doubt apart, and say what could not be told."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
import pytest

from report.made import NODES, reading, study, tables
from undertow.report.family import untold
from undertow.report.ink import BLUE, EVIDENCE, RED, note_of
from undertow.report.pictures import PICTURES, drawn
from undertow.report.scales import LONGEST, short
from undertow.report.words import measured, title


def figure(called: str, held: dict[str, dict[str, pl.DataFrame]] | None = None) -> go.Figure:
    """The figure of that title, of these tables."""
    found = [study(name, part) for name, part in (held or tables()).items()]
    (of,) = [picture.study for picture in PICTURES if picture.title == called]
    mine = next(each for each in found if each.name == of)
    (one,) = [f for picture, f in drawn(mine, found) if picture.title == called]
    return one


def traces(found: go.Figure, name: str) -> list[go.BaseTraceType]:
    return [trace for trace in found.data if trace.name == name]


def test_falls_lie_left_and_rises_right_on_one_axis_of_prices() -> None:
    found = figure("What is called at which price")
    line = traces(found, "called, modelled")[0]
    assert list(line.x) == sorted(line.x)
    assert (min(line.x), max(line.x)) == (-0.5, 0.5)
    assert line.y[0] == line.y[-1] == pytest.approx(1e8)  # 0.5 down and 0.5 up, of the made map


def test_the_market_comes_first_and_what_is_known_otherwise_is_never_added_up() -> None:
    found = figure("What is called at which price")
    assert found.layout.annotations[0].text == "market"
    assert not found.layout.barmode
    colours = {trace.line.color: trace.name for trace in found.data if "called" in trace.name}
    assert colours == {EVIDENCE["observed"]: "called, observed",
                       EVIDENCE["modelled"]: "called, modelled"}  # fmt: skip
    observed, modelled = traces(found, "called, observed")[0], traces(found, "called, modelled")[0]
    assert modelled.y[0] == pytest.approx(2.0 * observed.y[0])
    assert not {trace.stackgroup for trace in found.data} - {None}


def test_depth_is_drawn_once_beside_all_that_is_called() -> None:
    found = figure("What is called at which price")
    depth = traces(found, "moves the price so far")
    assert len(depth) == 1 + len(NODES)
    assert depth[0].y[0] == pytest.approx(3e7 * 0.5)
    assert sum(trace.showlegend for trace in depth) == 1


def test_the_densest_wall_is_marked_on_its_own_side() -> None:
    spans = [(s.x0, s.x1) for s in figure("What is called at which price").layout.shapes]
    assert (-0.2, -0.25) in spans
    assert (0.2, 0.25) in spans
    alone = {"cumulative": tables()["crowding.map"]["cumulative"]}
    bare = figure("What is called at which price", {"crowding.map": alone})
    assert not bare.layout.shapes


def test_a_venue_known_in_two_ways_has_a_row_for_each() -> None:
    heat = figure("Which venue calls at which price").data[0]
    assert set(heat.y) == {f"venue {n}, {word}" for n in NODES for word in ("observed", "modelled")}
    assert (heat.x[0], heat.x[-1]) == (-47.5, 47.5)  # the middle of a step of 5 %
    assert heat.customdata[0][0][0] == "510.00 k"  # debt and notional of one way of knowing


def test_surfaces_of_two_ways_of_knowing_are_two_panels() -> None:
    found = figure("What is called when two things fall")
    assert [a.text for a in found.layout.annotations][:2] == ["aave, observed", "aave, modelled"]
    heat, lines = found.data[:2]
    assert heat.z[-1][-1] == pytest.approx((0.5 + 0.2) / 2.0)
    assert lines.contours.size == found.layout.coloraxis.colorbar.dtick
    assert "of 10 surfaces" in note_of(found)


def test_the_curve_wears_its_knee_and_saturation_where_they_were_found() -> None:
    marks = [a.text for a in figure("The fragility curve").layout.annotations]
    assert marks == ["δ* 22.0%", "knee 21.0%"]
    alone = {"crowding.fragility": tables()["crowding.fragility"]}
    assert not figure("The fragility curve", alone).layout.annotations


def test_a_cascade_that_was_cut_off_has_an_open_sign() -> None:
    (line,) = traces(figure("The fragility curve"), "closed by force")
    assert line.marker.symbol[0] == "circle"
    assert line.marker.symbol[-1] == "circle-open"


def test_each_line_of_the_curve_says_of_which_whole_it_is_a_share() -> None:
    drawing = figure("The fragility curve")
    assert drawing.layout.yaxis.title.text == "share"
    for name, whole in (("closed by force", "all that was held"),
                        ("lost beyond equity", "what is leveraged")):  # fmt: skip
        (line,) = traces(drawing, name)
        assert f"of {whole}, " in line.hovertemplate


def test_a_direction_without_saturation_ends_in_a_triangle() -> None:
    found = figure("How far from selling itself")
    (none,) = traces(found, "none up to here")
    (points,) = traces(found, "δ*")
    assert set(points.y) == {"fall", "rise"}
    assert set(none.y) == {f"{node} fall" for node in NODES}
    assert set(none.x) == {0.5}


def test_rho_stands_against_one_and_a_cross_is_at_saturation() -> None:
    found = figure("The undertow index")
    assert found.layout.shapes[0].y0 == found.layout.shapes[0].y1 == 1.0
    crosses = [t for t in found.data if t.mode == "markers"]
    assert [(t.x[0], t.y[0]) for t in crosses] == [(0.22, 1.0)] * 2


def test_plain_and_weighted_leaning_stand_apart_in_a_row() -> None:
    found = figure("Which way assets lean")
    (plain,), (weighed,) = traces(found, "plain"), traces(found, "weighted by leverage")
    assert plain.y[0] < 0.0 < weighed.y[0]
    assert found.layout.yaxis.ticktext == ("all", *NODES)
    field = found.data[0]
    assert (field.base[0], field.x[0]) == (-0.2, 0.4)


def test_nodes_that_are_assets_are_not_drawn_twice() -> None:
    held = tables()["crowding.sides"]
    apart = study("crowding.sides", held)
    alike = study("crowding.sides", {**held, "nodes": held["assets"].reverse()})
    assert [p.title for p, _ in drawn(apart, [apart])] == [
        "Which way assets lean", "Which way nodes lean",
    ]  # fmt: skip
    assert [p.title for p, _ in drawn(alike, [alike])] == ["Which way assets lean"]


def test_a_side_without_volume_is_counted_as_unknown() -> None:
    found = figure("Days to exit")
    assert "Of 2 more it is not known" in note_of(found)
    assert "0.0" not in note_of(found)
    (longs,), (shorts,) = traces(found, "long"), traces(found, "short")
    assert (longs.marker.color, shorts.marker.color) == (BLUE, RED)
    assert longs.x[0] == 10.0


def test_zero_gamma_is_marked_where_there_is_one() -> None:
    found = figure("Who must trade after a move")
    marks = traces(found, "dealers' gamma is zero")
    assert {mark.x for mark in marks} == {(-0.2,)}
    assert len(marks) == 3  # of the four assets that are drawn one has none
    assert [(s.x0, s.xref) for s in found.layout.shapes] == [(-0.2, x) for x in ("x2", "x3", "x4")]
    (both, *_) = traces(found, "both together")
    assert both.y[-1] == pytest.approx(5e5 * len(NODES))


def test_a_strategy_that_was_not_found_again_is_pale() -> None:
    bars = figure("Places that many stand in").data
    assert len(bars) == 2
    pale = dict(zip(bars[0].y, bars[0].marker.opacity, strict=True))
    assert [name for name, opacity in pale.items() if opacity < 1.0] == ["5 · long loops"]


def test_a_study_that_lacks_a_part_is_not_called_untold() -> None:
    whole = study("crowding.demand", {}, says=("Demand is usual: basis cannot be told.",))
    none = study("crowding.demand", {}, says=("Whether it is cannot be told: there is no past.",))
    assert not untold(whole)
    assert untold(none)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crowding.hhi", "HHI"),
        ("crowding.top_10", "Share of the ten largest owners"),
        ("crowding.days_to_exit", "Days to exit"),
        ("crowding.systemic", "What its sales cost all"),
        ("tandem.systemic", "Systemic"),
        ("crowding.saturation", "Saturation (δ*)"),
    ],
)
def test_readings_of_crowding_have_names_that_a_person_says(name: str, said: str) -> None:
    assert title(name) == said


def test_days_are_said_as_days() -> None:
    days = reading("crowding.days_to_exit", 18.0, "days")
    assert measured(days.value, days.unit) == "18\N{NO-BREAK SPACE}days"


def test_a_long_name_is_cut_between_its_words_and_keeps_its_end() -> None:
    assert short("7 · long BTC and ETH and short SOL") == "7 · long BTC … short SOL"
    for name in ("long stETH and wstETH and short ETH", "12 · long USDe and short ENA and BTC"):
        cut = short(name).split(" … ")
        assert len(short(name)) <= LONGEST
        assert name.startswith(f"{cut[0]} ")
        assert name.endswith(f" {cut[1]}")
    assert short("0x" + "ab" * 20) == "0x" + "ab" * 7 + "a…" + "ab" * 4  # it has no words
