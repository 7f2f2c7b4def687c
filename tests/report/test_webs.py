"""Figures of interconnection keep what is told and what is not apart."""

from __future__ import annotations

import polars as pl
import pytest

from report.made import NODES, tables
from report.test_pictures import figure
from undertow.report.ink import RED, note_of


def test_what_ends_in_nothing_or_untold_is_red_and_hatched() -> None:
    bars = figure("What it is made of at the bottom").data[0]
    assert list(bars.y) == ["ETH", "USD", "untold"]
    assert bars.marker.color[2] == RED
    assert bars.marker.pattern.shape[2] == "/"
    assert RED not in bars.marker.color[:2]


def test_layers_are_stacked_over_what_lies_at_the_bottom() -> None:
    found = figure("Claims on each dollar at the bottom")
    assert found.layout.barmode == "stack"
    whole = [sum(trace.x[k] for trace in found.data) for k in range(len(NODES))]
    assert whole == pytest.approx([3.0] * len(NODES))


def test_keepers_alone_are_drawn_and_the_largest_are_on_top() -> None:
    held = tables()
    keepers = held["interconnection.map"]["keepers"]
    venue = keepers.head(1).with_columns(node=pl.lit("venue:desk"), kind=pl.lit("venue"))
    held["interconnection.map"]["keepers"] = pl.concat([venue, keepers])
    bars = figure("What leads through each keeper", held).data[0]
    assert "desk" not in bars.y
    assert bars.y[0] == NODES[0]
    assert list(bars.x) == sorted(bars.x, reverse=True)


def test_tokens_that_neither_back_themselves_nor_lack_backing_are_left_out() -> None:
    held = tables()
    tokens = held["interconnection.reuse"]["tokens"]
    sound = tokens.head(1).with_columns(asset=pl.lit("sound"), self_backed=0.0, backed=1.0)
    held["interconnection.reuse"]["tokens"] = pl.concat([tokens, sound])
    assert all("sound" not in trace.y for trace in figure(
        "Tokens that stand on themselves, or on nothing", held).data)  # fmt: skip


def test_calls_of_one_venue_and_of_several_add_up_to_what_is_asked() -> None:
    found = figure("Calls in the order of time")
    several, alone = found.data[:2]
    need = tables()["interconnection.calls"]["rounds"]["need_usd"]
    assert [a + b for a, b in zip(several.y, alone.y, strict=True)] == need.to_list()
    assert several.marker.color == RED


def test_a_pair_that_was_not_seen_is_a_hole() -> None:
    field = figure("Which venues call together").data[0]
    assert all(field.z[k][k] is None for k in range(len(NODES)))


def test_what_is_not_drawn_is_said() -> None:
    held = tables()
    ties = held["interconnection.loops"]["ties"]
    many = pl.concat([ties.with_columns(collateral=pl.col("collateral") + f"-{k}")
                      for k in range(9)])  # fmt: skip
    held["interconnection.loops"]["ties"] = many
    found = figure("Loops by what is posted and owed", held)
    assert note_of(found) == f"Drawn: the 30 largest of {many.height} ties."


def test_chains_lead_from_the_shock_to_who_bears_it_and_carry_what_they_carry() -> None:
    flow = figure("The heaviest ways from the shock to a loss").data[0]
    held = tables()["interconnection.paths"]
    assert flow.node.label[0] == "ETH -20%"
    assert set(NODES) < set(flow.node.label)
    out = sum(v for s, v in zip(flow.link.source, flow.link.value, strict=True) if s == 0)
    assert out == pytest.approx(held["chains"]["usd"].sum())
    assert len(flow.node.label) == 4 + len(NODES)  # what chains share is one node


def test_origins_say_by_how_much_a_price_fell() -> None:
    held = tables()
    origins = held["interconnection.paths"]["origins"]
    held["interconnection.paths"]["origins"] = origins.head(1).with_columns(
        origin=pl.lit("ETH -20%")
    )
    found = figure("Where it came from", held)
    assert {tuple(trace.y) for trace in found.data} == {("ETH -20%",)}


def test_a_bound_is_drawn_where_there_is_one_and_only_usd_share_the_axis() -> None:
    found = figure("How far it hangs on links that nobody knows")
    by_name = {trace.name: trace for trace in found.data}
    assert list(by_name["proved bound"].y) == ["shortfall"]
    assert list(by_name["searched worst"].y) == ["shortfall", "debtrank"]


def test_the_default_of_a_whole_node_is_told_and_not_drawn_on_the_axis_of_the_others() -> None:
    found = figure("How far it hangs on links that nobody knows")
    assert max(x for trace in found.data for x in trace.x if x is not None) < 1e7
    assert "80.00 M to 720.00 M USD over all networks drawn" in note_of(found)


def test_assumptions_that_change_nothing_are_not_drawn_and_counted() -> None:
    found = figure("What it hangs on that nobody knows")
    assert "hours" not in found.data[1].y
    assert note_of(found) == "Not drawn: 1 of 3 assumptions, which change nothing."


def test_marks_lie_between_clearing_and_linear() -> None:
    found = figure("What claims lose in value")
    by_name = {trace.name: trace for trace in found.data}
    pairs = zip(by_name["clearing"].x, by_name["linear marks"].x, strict=True)
    assert all(low <= high for low, high in pairs)


def test_places_say_their_band_where_there_is_one_and_who_stands_highest_is_on_top() -> None:
    field = figure("Places by every ranking").data[0]
    assert list(field.x) == ["failure", "debtrank", "passes"]
    means = [sum(row) / len(row) for row in field.z]
    assert means == sorted(means)
    first = list(field.y).index(NODES[0])
    assert field.customdata[first][0] == " (band 1 to 2)"


def test_rankings_that_share_no_node_leave_a_hole() -> None:
    field = figure("Do rankings agree?").data[0]
    assert list(field.x) == ["failure", "debtrank", "passes"]
    assert field.z[1][2] is None
    assert field.z[0][1] == field.z[1][0] == 0.9
