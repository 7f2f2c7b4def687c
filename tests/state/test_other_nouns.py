"""Claims, panels, networks and readings hold only what makes sense."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import StateError
from undertow.state import Claims, Network, Panel, Reading, Universe, as_frame, readings_frame

DAY = pl.datetime(2026, 1, 1, time_zone="UTC")


@pytest.fixture
def claims() -> pl.DataFrame:
    rows = [
        ("venue", "lend", "owner", "7", "ETH", "deposit", 10.0),
        ("asset", "stETH", "venue", "lend", "ETH", "backing", 5.0),
    ]
    columns = ["debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        ts=DAY, source=pl.lit("test"), evidence=pl.lit("observed")
    )


def test_claims_stand_between_named_parties(universe: Universe, claims: pl.DataFrame) -> None:
    built = Claims.from_frames(universe, claims)
    assert built.nodes == ("asset:stETH", "owner:7", "venue:lend")
    assert [built.nodes[d] for d in built.debtor] == ["asset:stETH", "venue:lend"]
    shuffled = Claims.from_frames(universe, claims.reverse())
    assert shuffled.digest == built.digest


def test_no_claims_is_a_state(universe: Universe) -> None:
    assert len(Claims.from_frames(universe)) == 0


def test_claims_on_nobody_known_and_on_oneself_are_refused(
    universe: Universe, claims: pl.DataFrame
) -> None:
    with pytest.raises(StateError, match="no venue is called 'bank'"):
        Claims.from_frames(
            universe,
            claims.with_columns(
                debtor=pl.when(pl.col("debtor") == "lend").then(pl.lit("bank")).otherwise("debtor")
            ),
        )
    own = claims[:1].with_columns(creditor_kind=pl.lit("venue"), creditor=pl.lit("lend"))
    with pytest.raises(StateError, match="owes to itself"):
        Claims.from_frames(universe, own)


def test_a_panel_keeps_absent_values_as_absent() -> None:
    ts = np.array([1, 2, 3])
    values = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, 6.0]])
    panel = Panel.from_arrays("leverage", "1", ts, ["a", "b"], values)
    assert panel.to_polars().height == 4
    back = Panel.from_frame("leverage", "1", panel.to_polars(), series="series", value="value")
    assert back.digest == panel.digest
    assert panel.until(2).values.shape == (2, 2)
    assert panel.until(0).values.shape == (0, 2)
    assert panel.select(["b"]).labels == ("b",)


@pytest.mark.parametrize(
    ("ts", "labels", "values", "words"),
    [
        ([1, 1], ["a"], [[1.0], [2.0]], "instants must increase"),
        ([2, 1], ["a"], [[1.0], [2.0]], "instants must increase"),
        ([1, 2], ["a", "a"], [[1.0, 1.0], [2.0, 2.0]], "stands twice"),
        ([1, 2], ["a"], [[1.0], [np.inf]], "infinite"),
        ([1, 2], ["a"], [[1.0]], "need"),
    ],
)
def test_a_panel_that_makes_no_sense_is_refused(ts, labels, values, words) -> None:
    with pytest.raises(StateError, match=words):
        Panel.from_arrays("p", "1", ts, labels, values)


def test_a_panel_lacks_a_series_by_name() -> None:
    with pytest.raises(StateError, match="no series is called 'z'"):
        Panel.from_arrays("p", "1", [1], ["a"], [[1.0]]).select(["z"])


@given(
    edges=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=30
    ),
    seed=st.integers(0, 1000),
)
def test_a_network_is_the_same_bits_for_any_edge_order(
    edges: list[tuple[int, int, float]], seed: int
) -> None:
    nodes = list("abcde")
    source, target, weight = zip(*edges, strict=True) if edges else ((), (), ())
    one = Network.from_edges("n", "usd", nodes, source, target, weight)
    order = np.random.default_rng(seed).permutation(len(edges))
    two = Network.from_edges(
        "n",
        "usd",
        nodes,
        *(np.asarray(c)[order] if len(c) else c for c in (source, target, weight)),
    )
    assert one.digest == two.digest
    dense = np.zeros((5, 5))
    np.add.at(dense, (np.asarray(source, int), np.asarray(target, int)), np.asarray(weight, float))
    mine = np.zeros((5, 5))
    mine[one.source, one.target] = one.weight
    assert np.allclose(mine, dense, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "target", "weight", "words"),
    [([0], [2], [1.0], "no node"), ([0], [1], [np.nan], "finite"), ([0], [1, 0], [1.0], "length")],
)
def test_a_network_that_makes_no_sense_is_refused(source, target, weight, words) -> None:
    with pytest.raises(StateError, match=words):
        Network.from_edges("n", "usd", ["a", "b"], source, target, weight)


def _reading(**changes) -> Reading:
    plain = {
        "name": "tandem.index", "value": 0.4, "unit": "1", "definition": "share", "ts": 0,
        "evidence": "observed", "inputs_hash": "abc", "low": 0.3, "high": 0.5, "level": 0.9,
    }  # fmt: skip
    return Reading(**{**plain, **changes})


def test_readings_fit_their_table() -> None:
    frame = readings_frame(
        [_reading(), _reading(name="b", value=None, low=None, high=None, level=None)]
    )
    assert frame.height == 2
    assert readings_frame([]).height == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": float("nan")}, "value is nan"),
        ({"level": None}, "together"),
        ({"low": 0.6}, "upside down"),
        ({"evidence": "guessed"}, "evidence"),
        ({"coverage": 1.2}, "coverage"),
        ({"level": 2.0}, "level"),
        ({"window_us": -5}, "window"),
        ({"mark_source": "guess"}, "mark_source"),
    ],
)
def test_half_a_statement_is_refused(changes, words) -> None:
    with pytest.raises(StateError, match=words):
        _reading(**changes)


def test_a_panel_takes_instants_of_any_unit_and_zone_but_none_without() -> None:
    long = pl.DataFrame(
        {
            "ts": ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00+01:00"],
            "s": ["a", "a"],
            "v": [1.0, 2.0],
        }
    )
    hour = 3_600_000_000
    panel = Panel.from_frame("p", "1", long, series="s", value="v")
    assert np.diff(panel.ts).tolist() == [hour]
    milli = long.with_columns(pl.col("ts").str.to_datetime(time_zone="UTC").dt.cast_time_unit("ms"))
    assert Panel.from_frame("p", "1", milli, series="s", value="v").digest == panel.digest
    naive = milli.with_columns(pl.col("ts").dt.replace_time_zone(None))
    with pytest.raises(ValueError, match="time zone"):
        Panel.from_frame("p", "1", naive, series="s", value="v")
    with pytest.raises(StateError, match="no column 'x'"):
        Panel.from_frame("p", "1", long, series="s", value="x")
    with pytest.raises(StateError, match="float64"):
        Panel.from_arrays("p", "1", [1.9], ["a"], [[1.0]])
    with pytest.raises(StateError, match="cannot be called 'ts'"):
        Panel.from_arrays("p", "1", [1], ["ts"], [[1.0]])


def test_nobody_can_write_into_a_noun_or_loses_his_own_array() -> None:
    values, weight = np.ones((1, 1)), np.ones(1)
    panel = Panel.from_arrays("p", "1", [1], ["a"], values)
    network = Network.from_edges("n", "1", ["a"], [0], [0], weight)
    values[0, 0] = weight[0] = 9.0
    assert (panel.values[0, 0], network.weight[0]) == (1.0, 1.0)


@pytest.mark.parametrize("table", [{"a": [1, 2], "b": [1]}, {"a": [1, "x", [2]]}, 7])
def test_what_is_no_table_is_refused_in_words(table: object) -> None:
    with pytest.raises(ValueError, match="table"):
        as_frame(table)
