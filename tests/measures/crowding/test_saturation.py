"""The undertow index of a whole book: closed forms, depth, and the knee that is simulated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from crowds import crowd
from measures.crowding.extremes import BOOKS, same, small_book, sound
from measures.crowding.owned import in_two_orders, peopled
from undertow.errors import EstimationError, StateError
from undertow.fanout import Threads
from undertow.measures import Study
from undertow.measures.crowding import Crowd, saturation
from undertow.stress import Options

SMOOTH = Options(floor=0.0)  # log price is linear in what was sold


def longs(log_fall: np.ndarray, kappa: float, **more: Any) -> Crowd:
    """Longs of one size, called at those log falls and closed whole."""
    count = len(log_fall)
    book = crowd(-np.expm1(-log_fall), np.full(count, 1e3), share=kappa,
                 long=np.ones(count, dtype=bool), **more)  # fmt: skip
    return Crowd(book, SMOOTH)


def row_of(study: Study, direction: str) -> dict[str, Any]:
    table = study.tables["directions"]
    return table.filter(pl.col("direction") == direction).row(0, named=True)


def test_where_density_rises_the_band_is_of_half_and_of_twice_the_depth() -> None:
    # F(y) = kappa (y / w)^2 breaks at y* = w^2 / (2 kappa), which a shock of y* / 2 reaches
    count, width, kappa = 2_000, 0.5, 0.8
    book = longs(width * np.sqrt(np.arange(1, count + 1) / count), kappa)
    found = sound(saturation(book, assets=1, doubt=2.0, level=0.9))
    low, at, high = (-math.expm1(-(width**2) / (4.0 * k)) for k in (2 * kappa, kappa, kappa / 2))
    told = found.reading("crowding.saturation", "fall")
    assert told.value == pytest.approx(at, abs=2e-3)
    assert told.low == pytest.approx(low, abs=2e-3)
    assert told.high == pytest.approx(high, abs=4e-3)
    row = row_of(found, "fall")
    assert (row["at_thin"], row["at_deep"]) == (told.low, told.high)
    assert row["knee"] == pytest.approx(at, rel=0.05)
    lone = found.reading("crowding.saturation", "C0 fall")  # all there is: the same fall
    assert lone.value == pytest.approx(told.value, abs=5e-4)  # to which it is told
    assert lone.low is None
    assert [row_of(found, "C0 fall")[f"at_{end}"] for end in ("thin", "deep", "low", "high")] == [
        None
    ] * 4
    assert found.reading("crowding.saturation", "rise").value is None


def test_where_all_markets_break_at_the_first_threshold_the_band_is_a_point() -> None:
    # all move log price by 1.2 over a stretch of 0.3: rho is 4, and 2 at twice the depth
    found = saturation(longs(np.linspace(0.1, 0.4, 501)[1:], 1.2), assets=0)
    told = found.reading("crowding.saturation", "fall")
    assert told.value == pytest.approx(-math.expm1(-0.1), abs=1e-3)
    assert told.low == pytest.approx(told.value, abs=1e-3)
    assert told.high == pytest.approx(told.value, abs=1e-3)
    assert found.reading("crowding.rho_strongest", "fall").value == pytest.approx(4.0, rel=0.03)


def test_where_a_deeper_market_never_breaks_the_band_has_no_end() -> None:
    # rho is 1.5 as it is, and 0.75 at twice the depth
    found = sound(saturation(longs(np.linspace(0.1, 0.4, 501)[1:], 0.45), assets=0))
    told, row = found.reading("crowding.saturation", "fall"), row_of(found, "fall")
    assert told.value == pytest.approx(-math.expm1(-0.1), abs=1e-3)
    assert told.low is None
    assert row["at_deep"] is None
    assert row["at_high"] is None
    assert row["at_low"] == pytest.approx(told.value, abs=1e-3)
    deeper = saturation(longs(np.linspace(0.1, 0.4, 501)[1:], 0.225), assets=0)
    assert deeper.reading("crowding.saturation", "fall").value is None
    assert deeper.reading("crowding.rho_strongest", "fall").value == pytest.approx(0.75, rel=0.03)
    assert "nothing sells itself" in deeper.says[0]


def test_rho_of_today_is_what_the_next_stretch_forces_times_what_that_does() -> None:
    # evenly spread from here on: a density of kappa / width wherever one looks
    found = saturation(longs(np.linspace(0.0, 0.5, 801)[1:], 0.3), assets=0, doubt=1.0)
    assert found.reading("crowding.rho", "fall").value == pytest.approx(0.6, rel=0.03)
    assert all(r.low is None for r in found.readings)


def test_rho_of_today_on_the_way_up_counts_shorts_as_it_counts_longs_on_the_way_down() -> None:
    move = np.linspace(0.0, 0.5, 501)[1:]
    book = crowd(move, np.full(500, 1e3), share=0.3, long=np.zeros(500, dtype=bool))
    found = saturation(Crowd(book, SMOOTH), assets=0, doubt=1.0, furthest=0.06, step=0.03)
    assert found.reading("crowding.rho", "rise").value == pytest.approx(0.6, rel=0.1)


def test_deeper_markets_break_later() -> None:
    rng = np.random.default_rng(5)
    book = Crowd.of(crowd(rng.uniform(0.02, 0.5, 500), rng.pareto(2.0, 500) + 1.0, share=0.8))
    assert book.settled.plan is book.plan
    found = [
        saturation(book.with_depth(times), assets=0, doubt=1.0, furthest=0.3)
        for times in (1.0, 2.0, 20.0)
    ]
    at = [each.reading("crowding.saturation", "fall").value for each in found]
    ends = [1.0 if each is None else each for each in at]
    assert ends == sorted(ends)
    assert ends[0] < ends[-1] == 1.0
    rho = [each.reading("crowding.rho", "fall").value for each in found]
    assert rho == pytest.approx([rho[0], rho[0] / 2.0, rho[0] / 20.0], rel=0.1)


@pytest.mark.slow
def test_saturation_foretells_the_knee_that_is_simulated() -> None:
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        usd = 1e3 * (rng.pareto(1.5, 600).clip(max=10.0) + 1.0)
        fall = np.clip(rng.lognormal(np.log(rng.uniform(0.1, 0.3)), 0.5, 600), 0.006, 0.95)
        found = saturation(crowd(fall, usd, share=0.7), assets=0, doubt=1.0)
        row = row_of(found, "fall")
        assert row["at"] is not None
        errors.append(abs(row["at"] / row["knee"] - 1.0))
    assert np.median(errors) <= 0.05
    assert max(errors) <= 0.2


def test_who_carries_it_is_who_is_sold() -> None:
    held = np.array([[1.0, 0.0]] * 900 + [[0.0, 1.0]] * 300)
    fall = np.concatenate([np.linspace(0.1, 0.3, 900), np.full(300, 0.9)])
    book = longs(-np.log1p(-fall), 0.6, assets=2, held=held)
    found = sound(saturation(book, assets=2, doubt=1.0))
    carried = found.tables["assets"].filter(pl.col("direction") == "fall")
    shares = dict(carried.select("asset", "share").iter_rows())
    assert shares["C0"] == pytest.approx(1.0, abs=1e-6)
    assert shares.get("C1", 0.0) == pytest.approx(0.0, abs=1e-6)
    assert found.tables["venues"]["venue"].unique().to_list() == ["v"]
    assert "runs through C0 (100 %)" in found.says[-1]
    assert found.reading("crowding.saturation", "C0 fall").value == pytest.approx(0.1, abs=2e-3)
    assert found.reading("crowding.saturation", "C1 fall").value is None


def test_the_largest_assets_are_shocked_alone() -> None:
    names = [
        saturation(small_book(), assets=n, doubt=1.0, furthest=0.06, step=0.03).tables[
            "directions"
        ]["direction"]
        for n in (0, 3)
    ]
    assert names[0].to_list() == ["fall", "rise"]
    assert names[1].len() == 5
    assert names[1][2:].str.ends_with(" fall").all()


@pytest.mark.slow
def test_rows_in_any_order_and_any_worker_make_the_same() -> None:
    one, other = in_two_orders()
    way: dict[str, Any] = {"assets": 1, "furthest": 0.1, "step": 0.05}
    found = saturation(one, **way)
    assert same(found, saturation(other, **way, executor=Threads(2)))
    # nothing is drawn, and a small book is looked at whole
    assert same(found, saturation(one, **way, seed=5, most=None))


def test_a_world_of_all_kinds_is_told() -> None:
    said: list[str] = []
    found = sound(saturation(peopled(), assets=1, progress=said.append))
    assert said == found.tables["directions"]["direction"].to_list()
    path = found.tables["path"]
    assert (path["rho"] >= 0.0).all()
    for _, frame in path.group_by("direction"):
        assert frame["shock"].is_sorted()


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told(name: str) -> None:
    found = sound(saturation(BOOKS[name](), assets=1, step=0.05))
    told = found.reading("crowding.saturation", "fall")
    if name in ("nobody leveraged", "no positions"):
        assert found.says[0].startswith("Nobody owes anything or holds a derivative")
    if name == "no depth":
        assert "no depth is known of anything" in found.says[0]
        assert len(found.readings) == 6
        assert all(r.value is None for r in found.readings)  # unknown, not safe
    if name == "shorts alone":
        assert found.reading("crowding.saturation", "rise").value == pytest.approx(0.1, abs=1e-3)
    if name in ("one account", "no owners"):
        assert told.value == pytest.approx(0.3 if name == "one account" else 0.1, abs=1e-3)
    else:
        assert told.value is None
        assert told.low is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"assets": -1}, StateError, "assets was -1"),
        ({"step": 0.6}, StateError, r"step was 0\.6"),
        ({"furthest": 0.0}, StateError, r"furthest was 0\.0"),
        ({"bandwidth": 0.0}, StateError, r"bandwidth was 0\.0"),
        ({"doubt": 0.1}, StateError, r"doubt was 0\.1"),
        ({"most": 1}, StateError, "most was 1"),
        ({"seed": "x"}, StateError, "seed was 'x'"),
        ({"level": 1.5}, EstimationError, r"level was 1\.5"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        saturation(small_book(), **options)
