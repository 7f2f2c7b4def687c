"""The joint map: by hand, against margins of moved books, and what only two moves together call."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from crowds import THRESHOLD, crowd
from measures.crowding.extremes import BOOKS, mixed, same, small_book, sound
from measures.crowding.owned import in_two_orders, peopled
from undertow.errors import EstimationError, StateError
from undertow.fanout import Threads
from undertow.measures.crowding import Crowd, surface
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state.book import OPTION
from undertow.stress.plan import Plan


def test_by_hand() -> None:
    # the second holds half of each, so C1 beyond the market takes half of what it takes from C1
    held = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    book = crowd([0.25, 0.28, 0.9], [1e3, 2e3, 4e3], share=0.5, assets=2, held=held)
    found = sound(surface(book, assets=("C1",), reps=19))
    debt = THRESHOLD * np.array([1e3 * 0.75, 2e3 * 0.72, 4e3 * 0.1])
    table = found.tables["surface"]
    assert table.height == 20 * 10
    for row in table.iter_rows(named=True):
        own, both = row["market"], 1.0 - (1.0 - row["market"]) * (1.0 - row["other"])
        called = np.array([own > 0.25, 0.5 * (own + both) > 0.28, both > 0.9])
        assert row["debt_usd"] == pytest.approx(debt[called].sum(), abs=1e-6)
        assert row["share"] == pytest.approx(debt[called].sum() / debt.sum(), abs=1e-9)
    joint = found.reading("crowding.joint_usd", "C1 beyond it")
    assert joint.value == 0.0 or joint.value == pytest.approx(debt[1])
    # market down 20 % and C1 20 % more: 0.2 and 0.36, on average 0.28; neither alone does it
    deeper = surface(book, assets=("C1",), furthest=0.44, reps=19)
    assert deeper.headline is not None
    assert deeper.headline.value == pytest.approx(debt[1])
    assert "called by neither alone" in deeper.says[0]


def moved(snapshot: Snapshot, factor: np.ndarray) -> Snapshot:
    """The book where prices went there."""
    pricing = Plan.of(snapshot).pricing
    move = pricing.moves(factor)
    index = snapshot.market.index * np.exp(move)
    return replace(
        snapshot, market=replace(snapshot.market, mark=pricing.prices(move), index=index)
    )


@pytest.mark.parametrize("other", ["ETH", "WBTC"])
def test_a_cell_is_what_the_margins_of_the_moved_book_call(other: str) -> None:
    snapshot = peopled()
    seen, universe, book = Crowd.of(snapshot), snapshot.universe, snapshot.book
    found = sound(surface(snapshot, assets=(other,), furthest=0.5, reps=19))
    plain = np.ones(book.accounts, dtype=bool)
    plain[book.leg_account[book.kind == OPTION]] = False
    options = {universe.venues[v] for v in book.venue[~plain].tolist()}
    venues = found.tables["venues"]
    falls = sorted(set(found.tables["surface"]["market"]))
    further = sorted(set(found.tables["surface"]["other"]))
    root = universe.root == np.arange(len(universe.assets))
    for a, b in ((falls[0], further[-1]), (falls[7], further[3]), (falls[-1], further[-1])):
        factor = np.where(root & ~universe.stable, math.log1p(-a), 0.0)
        factor[universe.code("asset", other)] += math.log1p(-b)
        breached = margins(moved(snapshot, factor)).breached
        rows = venues.filter((pl.col("market") == a) & (pl.col("other") == b))
        told = {row["venue"]: row for row in rows.iter_rows(named=True)}
        for code, venue in enumerate(universe.venues):
            here = breached & (book.venue == code)
            if venue in options:
                continue
            row = told.get(venue, {"debt_usd": 0.0, "notional_usd": 0.0})
            assert row["debt_usd"] == pytest.approx(seen.debt[here].sum(), abs=1e-6)
            assert row["notional_usd"] == pytest.approx(seen.notional[here].sum(), abs=1e-6)


def test_a_peg_that_oracles_do_not_see_calls_nobody_beyond_the_market() -> None:
    table = surface(peopled(), assets=("wstETH",), reps=19).tables["venues"]
    lender = table.filter(pl.col("venue") == "aave-v3").sort("market")
    assert lender.height
    for _, frame in lender.group_by("market"):
        assert frame["debt_usd"].n_unique() == 1


def test_venues_and_ways_of_knowing_add_up_to_the_whole_and_never_mix() -> None:
    book = mixed()
    found = sound(surface(book, reps=19))
    table, venues = found.tables["surface"], found.tables["venues"]
    summed = venues.group_by("surface", "market", "other", "evidence").agg(
        pl.col("debt_usd", "notional_usd").sum()
    )
    joined = table.join(summed, on=["surface", "market", "other", "evidence"], how="left")
    for name in ("debt_usd", "notional_usd"):
        parts = joined[f"{name}_right"].fill_null(0.0)
        np.testing.assert_allclose(joined[name], parts, atol=1e-6)
    seen = Crowd.of(book)
    furthest = table.filter((pl.col("market") == 0.4) & (pl.col("other") == 0.4))
    universe = book.universe
    factor = np.where(
        (universe.root == np.arange(len(universe.assets))) & ~universe.stable, math.log(0.6), 0.0
    )
    factor[universe.code("asset", furthest["surface"][0].split()[2])] += math.log(0.6)
    breached = margins(moved(book, factor)).breached
    plain = np.ones(book.book.accounts, dtype=bool)
    plain[book.book.leg_account[book.book.kind == OPTION]] = False
    for row in furthest.iter_rows(named=True):
        kind = ("observed", "sampled", "modelled").index(row["evidence"])
        mine = np.array([a % 3 == kind for a in book.book.account.tolist()])
        told = row["debt_usd"] + row["notional_usd"]
        size = seen.leveraged
        slack = float(size[mine & ~plain].sum())  # options, whose price is no straight line
        assert told == pytest.approx(size[mine & breached].sum(), abs=slack + 1e-6)


def test_an_edge_of_the_surface_is_the_ladder_of_the_market() -> None:
    book = peopled()
    judged, seen = margins(book), Crowd.of(book)
    table = surface(book, reps=19).tables["surface"]
    edge = table.filter((pl.col("other") == 0.0) & pl.col("surface").str.contains("beyond"))
    for row in edge.iter_rows(named=True):
        called = seen.leveraged[judged.fall <= row["market"]].sum()
        assert row["debt_usd"] + row["notional_usd"] == pytest.approx(called, abs=1e-6)


def test_rows_in_any_order_and_any_worker_make_the_same() -> None:
    one, other = in_two_orders()
    found = surface(one, reps=19)
    assert same(found, surface(other, reps=19, executor=Threads(2)))
    assert not same(found, surface(one, reps=19, seed=1))


def test_bands_widen_with_their_level() -> None:
    wide, narrow = (
        surface(peopled(), assets=("ETH",), level=level, reps=199).readings[0]
        for level in (0.98, 0.5)
    )
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told(name: str) -> None:
    found = sound(surface(BOOKS[name](), reps=19))
    joint = [r.value for r in found.readings]
    if name in ("money alone", "no positions"):
        assert found.says == ("Nothing that anybody leans on moves, so nobody can be called.",)
        assert found.tables["surface"].is_empty()
    if name in ("nobody leveraged", "one bankrupt", "all bankrupt", "shorts alone"):
        assert not any(joint)
    if name in ("one bankrupt", "all bankrupt"):  # called wherever one looks
        assert found.tables["surface"]["share"].to_numpy() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"assets": ("USDC",)}, StateError, "USDC is money"),
        ({"assets": ("EHT",)}, StateError, "did you mean ETH"),
        ({"furthest": 0.96}, StateError, r"furthest was 0\.96"),
        ({"furthest": 0.0}, StateError, r"furthest was 0\.0"),
        ({"seed": 1.5}, StateError, r"seed was 1\.5"),
        ({"level": 0.0}, EstimationError, "level was 0"),
        ({"reps": 5}, EstimationError, "reps was 5"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        surface(small_book(), **options)
