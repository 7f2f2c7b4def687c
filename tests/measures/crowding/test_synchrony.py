"""Who is called at once: by hand, by loops over margins, and with a planted wall."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from crowds import crowd
from measures.crowding.extremes import BOOKS, mixed, same, small_book, sound
from measures.crowding.owned import UNKNOWN, in_two_orders, peopled
from undertow.errors import EstimationError, StateError
from undertow.fanout import Threads
from undertow.measures import Study
from undertow.measures.crowding import Crowd, synchrony
from undertow.measures.crowding.synchrony import _against_chance, _at_least
from undertow.rules.margins import Margins, margins
from undertow.rules.snapshot import Snapshot
from undertow.stress import Impact, Options
from undertow.stress.draws import Given
from undertow.worlds import Plants, build_world
from undertow.worlds.plants import Crowd as Planted
from undertow.worlds.population import Population

STILL = Options(impact=Impact.NONE)
FALLS = np.linspace(0.02, 0.4, 20)


def falls(snapshot: Snapshot, sizes: np.ndarray) -> Given:
    """Common falls of those sizes, one a window."""
    universe = snapshot.universe
    moves = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
    return Given.of(np.outer(np.log1p(-sizes), moves))


def test_by_hand() -> None:
    book = crowd([0.1, 0.2, 0.3], [1e3, 2e3, 4e3], share=0.5)
    found = sound(
        synchrony(Crowd(book, STILL), draws=falls(book, FALLS), count=20, near=0.1, level=0.9)
    )
    calling = int((FALLS > 0.1 + 1e-9).sum())
    assert found.headline is not None
    assert found.headline.value == pytest.approx(calling / 20)
    assert not [r for r in found.readings if r.name == "crowding.calling_together"]
    assert found.says[0] == (
        f"In {calling / 20:.0%} of 20 drawn windows the one venue with leverage calls; no other "
        "could call with it."
    ).replace("%", " %")
    row = found.tables["venues_called"].row(0, named=True)
    exact = binomtest(calling, 20).proportion_ci(0.9, method="exact")
    assert (row["probability"], row["low"], row["high"], row["by_chance"]) == pytest.approx(
        (calling / 20, exact.low, exact.high, calling / 20)
    )
    # debts of 720, 1280 and 2240: no two stand within 0.1
    wall = found.tables["windows"].row(0, named=True)
    assert wall["share"] == pytest.approx(2_240.0 / 4_240.0)
    assert wall["start"] < 0.3 <= wall["end"]
    assert wall["end"] - wall["start"] == pytest.approx(0.1)
    assert found.tables["owners"].is_empty()


def test_a_venue_calls_where_it_closes_enough_of_what_is_leveraged() -> None:
    book = crowd([0.1, 0.25], [1e3, 9e3], share=0.5)
    few, half = (
        synchrony(Crowd(book, STILL), draws=falls(book, FALLS), count=20, least=least).headline
        for least in (0.01, 0.5)
    )
    assert few is not None
    assert half is not None
    assert few.value == pytest.approx((FALLS > 0.1 + 1e-9).mean())
    assert half.value == pytest.approx((FALLS > 0.25 + 1e-9).mean())


@cache
def still() -> tuple[Snapshot, Margins, Study]:
    """A world in which nothing answers sales, its margins, and who is called at once in falls."""
    book = peopled()
    found = synchrony(Crowd(book, STILL), draws=falls(book, FALLS), count=20, least=1e-9, near=0.06)
    return book, margins(book), sound(found)


def test_venues_and_owners_that_are_called_together_are_those_that_margins_call() -> None:
    snapshot, judged, found = still()
    book = snapshot.book
    assert not judged.breached.any()
    number, twice, by_venue = [], [], np.zeros(len(snapshot.universe.venues))
    for fall in FALLS.tolist():
        called = judged.fall < fall
        venues = set(book.venue[called].tolist())
        number.append(len(venues))
        for v in venues:
            by_venue[v] += 1.0 / len(FALLS)
        of: dict[int, set[int]] = defaultdict(set)
        for a in np.flatnonzero(called).tolist():
            if book.owners[book.owner[a]] != UNKNOWN:
                of[book.owner[a]].add(book.venue[a])
        twice.append(sum(len(each) > 1 for each in of.values()))
    assert found.headline is not None
    assert found.headline.value == pytest.approx(np.mean(number))
    told = found.reading("crowding.owners_called_twice")
    assert told.value == pytest.approx(np.mean(twice))
    for k in (2, 3):
        chance = found.reading("crowding.calling_together", f"{k} or more").value
        assert chance == pytest.approx(np.mean(np.array(number) >= k))
    seen = dict(found.tables["venues"].select("venue", "probability").iter_rows())
    want = {v: p for v, p in zip(snapshot.universe.venues, by_venue, strict=True) if p > 0.0}
    assert seen == pytest.approx(want)
    alone = np.zeros(len(want) + 1)  # each on its own: all ways in which they may call
    for way in product((0, 1), repeat=len(want)):
        chance = [p if calls else 1.0 - p for p, calls in zip(want.values(), way, strict=True)]
        alone[sum(way)] += math.prod(chance)
    for row in found.tables["venues_called"].iter_rows(named=True):
        assert row["by_chance"] == pytest.approx(alone[row["k"] :].sum(), abs=1e-12)


def test_owners_called_at_two_venues_within_one_stretch_are_found_by_loops() -> None:
    snapshot, judged, found = still()
    book, size = snapshot.book, Crowd.of(snapshot).leveraged
    step, width = 0.5 / 250, 30
    for side, exact in (("fall", judged.fall), ("rise", judged.rise)):
        want = {}
        for owner in np.unique(book.owner).tolist():
            mine = np.flatnonzero((book.owner == owner) & (exact <= 0.5))
            at = np.ceil(exact[mine] / step - 1e-9).astype(int)
            best = 0.0
            for end in at.tolist():
                there = mine[(at > end - width) & (at <= end)]
                if len(set(book.venue[there].tolist())) > 1:
                    best = max(best, float(size[there].sum()))
            if best > 0.0 and book.owners[owner] != UNKNOWN:
                want[int(book.owners[owner])] = best
        told = found.tables["owners"].filter(pl.col("side") == side)
        assert want or side == "rise"
        assert dict(told.select("owner", "called_usd").iter_rows()) == pytest.approx(want)
        assert ((told["farthest"] - told["nearest"]) < 0.06).all()
        assert told["called_usd"].is_sorted(descending=True)


def test_who_is_called_far_apart_is_not_called_within_one_stretch() -> None:
    snapshot, _, wide = still()
    law = falls(snapshot, FALLS)
    near = synchrony(Crowd(snapshot, STILL), draws=law, count=20, near=0.002)
    assert near.tables["owners"].height < wide.tables["owners"].height


@pytest.mark.parametrize("side", ["long", "short"])
def test_the_window_is_the_one_in_which_a_crowd_was_planted(side: str) -> None:
    plant = Planted(share=0.3, side=side, distance=0.155, band=0.008)
    world = build_world(3, assets=8, venues=6, population=Population(300, minimum_usd=5_000.0),
                        plants=Plants(crowd=plant))  # fmt: skip
    snapshot = world.snapshot()
    found = synchrony(snapshot, count=10, near=0.02)
    way = "fall" if side == "long" else "rise"
    wall = found.tables["windows"].filter(pl.col("side") == way).row(0, named=True)
    assert wall["start"] <= 0.151
    assert wall["end"] >= 0.159
    judged, size = margins(snapshot), Crowd.of(snapshot).leveraged
    exact = judged.fall if way == "fall" else judged.rise
    there = size[(exact > wall["start"]) & (exact <= wall["end"])].sum()
    assert wall["called_usd"] == pytest.approx(there)
    assert wall["share"] == pytest.approx(there / size[exact <= 0.5].sum())
    assert found.reading("crowding.within", way).value == pytest.approx(wall["share"])


@pytest.mark.slow
def test_rows_in_any_order_and_any_worker_make_the_same() -> None:
    one, other = in_two_orders()
    found = synchrony(one, count=16, seed=3)
    assert same(found, synchrony(other, count=16, seed=3, executor=Threads(2)))
    assert not same(found, synchrony(one, count=16, seed=4))


def test_bands_narrow_with_more_draws_and_widen_with_their_level() -> None:
    book = small_book()

    def width(name: str, **options: Any) -> float:
        reading = synchrony(book, days=3.0, **options).reading(*name.split("|"))
        assert reading.low is not None
        assert reading.high is not None
        return reading.high - reading.low

    for name in ("crowding.venues_calling", "crowding.calling_together|2 or more"):
        few, many, sure = (
            width(name, count=40), width(name, count=160), width(name, count=40, level=0.5)
        )  # fmt: skip
        assert many == pytest.approx(few / 2.0, rel=0.3)
        assert sure < 0.6 * few


def test_what_was_observed_and_what_was_not_is_called_modelled_where_moves_are_drawn() -> None:
    found = sound(synchrony(mixed(), count=10))
    assert {r.evidence for r in found.readings} == {"modelled"}


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told(name: str) -> None:
    found = sound(synchrony(BOOKS[name](), count=10))
    assert found.tables["owners"].is_empty()
    assert found.headline is not None
    if name in ("nobody leveraged", "no positions"):
        assert found.says == ("Nobody owes anything or holds a derivative: no venue can call.",)
    if name in ("nobody leveraged", "no positions", "money alone", "all bankrupt"):
        assert found.headline.value == 0.0  # what was due is closed before
        assert found.tables["windows"].is_empty()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"count": 5}, StateError, "count was 5"),
        ({"least": 0.0}, StateError, r"least was 0\.0"),
        ({"near": 0.6}, StateError, r"near was 0\.6"),
        ({"days": -1.0}, StateError, r"days was -1\.0"),
        ({"draws": 3}, StateError, "draws was of type int"),
        ({"seed": True}, StateError, "seed was True"),
        ({"level": 1.0}, EstimationError, "level was 1"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        synchrony(small_book(), **options)


@pytest.mark.parametrize("near", [0.0005, 0.003, 0.0071])
def test_a_stretch_is_as_wide_as_it_was_asked_to_be(near: float) -> None:
    book = crowd([0.1, 0.2, 0.3], [1e3, 2e3, 4e3], share=0.5)
    found = synchrony(Crowd(book, STILL), draws=falls(book, FALLS), count=20, near=near)
    wall = found.tables["windows"].row(0, named=True)
    assert wall["end"] - wall["start"] == pytest.approx(near)
    assert wall["start"] - 1e-9 <= 0.3 <= wall["end"] + 1e-9


def test_where_every_draw_says_the_same_there_is_no_band() -> None:
    book = crowd([0.9], [1e3], share=0.5)
    found = sound(synchrony(Crowd(book, STILL), draws=falls(book, FALLS), count=10))
    assert found.reading("crowding.venues_calling").value == 0.0
    assert found.reading("crowding.venues_calling").low is None


def test_words_say_where_venues_call_more_and_where_less_often_than_by_chance() -> None:
    rng = np.random.default_rng(0)
    together, alone = rng.random((400, 1)) < 0.15, rng.random((400, 6)) < 0.1
    table = _at_least(together | alone, 0.9)
    words = _against_chance(table)
    below = table.filter(pl.col("by_chance") > pl.col("high"))["k"].to_list()
    above = table.filter(pl.col("by_chance") < pl.col("low"))["k"].to_list()
    assert 1 in below
    assert 6 in above
    for said, way, some in zip(words, ("often", "seldom"), (above, below), strict=True):
        assert said.startswith(f"More {way} than by chance: ")
        assert [k for k in table["k"].to_list() if f" {k} or more call in " in said] == some
    found = still()[2]
    assert [each for each in found.says if "by chance" in each] == _against_chance(
        found.tables["venues_called"]
    )
    assert "as frequent as by chance" in _against_chance(_at_least(alone, 0.9))[0]


def test_owners_of_a_drawn_window_and_of_a_stretch_go_by_different_words() -> None:
    _, _, found = still()
    assert found.tables["owners"].height
    stretch, drawn = found.says[-2:]
    assert "stand close together at two venues or more, within 6.0 % of price" in stretch
    assert "in one drawn window, however far apart" in drawn
    assert "drawn window" in found.reading("crowding.owners_called_twice").definition
    assert not any("called twice" in each for each in found.says)


def test_what_was_due_today_is_in_no_share() -> None:
    sound_ones, due = np.full(50, 0.2), np.full(50, -0.1)
    both = crowd(np.append(due, sound_ones), np.full(100, 1e3), share=0.1)
    alone = crowd(sound_ones, np.full(50, 1e3), share=0.1)
    walls = [
        synchrony(Crowd(each, STILL), draws=falls(each, FALLS), count=20).tables["windows"]
        for each in (both, alone)
    ]
    assert walls[0]["of_all"].to_list() == pytest.approx(walls[1]["of_all"].to_list(), rel=1e-6)
    settled = Crowd.of(both).settled
    assert settled.digest == both.digest
    assert settled.leveraged.sum() < Crowd.of(both).leveraged.sum()
