"""The liquidation map: by hand, against margins account by account, and a wall that was planted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from crowds import MAINTENANCE, THRESHOLD, crowd
from measures.crowding.extremes import (
    BOOKS,
    mixed,
    same,
    small_book,
    small_world,
    sound,
    without_depth,
)
from measures.crowding.owned import in_two_orders, peopled
from undertow import schema
from undertow.errors import EstimationError, StateError
from undertow.fanout import Threads
from undertow.measures.crowding import Crowd
from undertow.measures.crowding import map as liquidation_map
from undertow.measures.crowding.ladders import Ladders
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state.book import OPTION
from undertow.state.universe import NONE
from undertow.worlds import Plants, build_world, demo_world
from undertow.worlds.plants import Crowd as Planted
from undertow.worlds.population import Population

_SUMS = ("accounts", "debt_usd", "notional_usd", "traded_usd", "elsewhere_usd")


def test_by_hand() -> None:
    found = sound(liquidation_map(crowd([0.05, 0.105, 0.3], [1e3, 2e3, 4e3], share=0.5)))
    rows = found.tables["ladder"].filter((pl.col("line") == "C0") & (pl.col("side") == "fall"))
    debt = [1e3 * THRESHOLD * 0.95, 2e3 * THRESHOLD * 0.895, 4e3 * THRESHOLD * 0.7]
    np.testing.assert_allclose(rows["distance"], [0.06, 0.11, 0.31])  # the first step past each
    np.testing.assert_allclose(rows["debt_usd"], debt)
    np.testing.assert_allclose(rows["traded_usd"], [1e3, 2e3, 4e3])
    assert rows["notional_usd"].sum() == 0.0
    near = found.reading("crowding.at_risk_usd", "fall, modelled")
    assert near.value == pytest.approx(debt[0])
    assert near.evidence == "modelled"
    # of 14,000 USD an e-fold, a fall of 10 % takes log(1 / 0.9)
    share = found.reading("crowding.at_risk_to_depth", "C0 fall, modelled").value
    assert share == pytest.approx(1e3 / (14_000.0 * math.log(1.0 / 0.9)))
    wall = found.tables["dense"].row(0, named=True)
    assert (wall["line"], wall["side"], wall["traded_usd"]) == ("C0", "fall", 4e3)
    assert (wall["start"], wall["end"]) == (pytest.approx(0.3), pytest.approx(0.31))


def test_longs_stand_on_the_way_down_and_shorts_on_the_way_up() -> None:
    move, long = np.array([0.045, 0.08, 0.21]), np.array([True, False, False])
    found = liquidation_map(crowd(move, [1e3, 2e3, 4e3], share=0.5, long=long))
    whole = found.tables["ladder"].filter(pl.col("line") == "market")
    seen = {row["side"]: row for row in whole.head(2).iter_rows(named=True)}
    assert seen["fall"]["distance"] == pytest.approx(0.05)
    assert seen["fall"]["notional_usd"] == pytest.approx(1e3)
    assert seen["rise"]["distance"] == pytest.approx(0.09)  # the first step past 0.08
    assert seen["rise"]["traded_usd"] == pytest.approx(2e3)
    assert MAINTENANCE < 0.045


def world_of(accounts: int) -> Snapshot:
    return build_world(11, accounts=accounts).snapshot()


@pytest.mark.parametrize("book", [lambda: demo_world().snapshot(), lambda: world_of(4_000)])
def test_along_the_market_it_calls_whom_margins_say_step_by_step(
    book: Callable[[], Snapshot],
) -> None:
    snapshot = book()
    judged = margins(snapshot)
    found = Ladders.of(Crowd.of(snapshot), 0.5, 50, assets=0)
    for first, exact in ((found.first, judged.fall), (found.first_rise, judged.rise)):
        for account, step in enumerate(first.tolist()):
            if judged.breached[account]:
                assert step == 0
            elif step == len(found.distances):
                assert exact[account] > found.distances[-1]
            else:
                assert found.distances[step - 1] < exact[account] <= found.distances[step]
    rows: dict[tuple[str, float, str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    venues, book_ = snapshot.universe.venues, snapshot.book
    for side, first in (("fall", found.first), ("rise", found.first_rise)):
        for account in np.flatnonzero(first < len(found.distances)).tolist():
            kind = max(book_.evidence[book_.offset[account] : book_.offset[account + 1]])
            at = float(found.distances[first[account]])
            row = rows[side, at, venues[book_.venue[account]], schema.EVIDENCE[kind]]
            row[0] += 1
            row[1] += judged.debt[account]
            row[2] += judged.notional[account]
    table = found.rows.filter(pl.col("line") == "market")
    assert table.height == len(rows)
    for row in table.iter_rows(named=True):
        there = rows[row["side"], row["distance"], row["venue"], row["evidence"]]
        told = [row[name] for name in ("accounts", "debt_usd", "notional_usd")]
        assert told == pytest.approx(there, abs=1e-6)


@pytest.mark.parametrize("side", ["fall", "rise"])
def test_along_one_asset_it_calls_whom_margins_of_the_moved_book_call(side: str) -> None:
    snapshot = peopled()
    universe, book = snapshot.universe, snapshot.book
    eth = universe.code("asset", "ETH")

    def follows(asset: int) -> bool:
        while asset not in (NONE, eth):
            asset = int(universe.reference[asset])
        return asset == eth

    moving = np.array([follows(int(asset)) for asset in universe.asset_of])
    steps = np.linspace(0.0, 0.5, 11)
    want = np.full(book.accounts, len(steps))
    for at in range(len(steps) - 1, -1, -1):
        times = np.where(moving, 1.0 - steps[at] if side == "fall" else 1.0 + steps[at], 1.0)
        market = snapshot.market
        moved = replace(market, mark=market.mark * times, index=market.index * times)
        want[margins(replace(snapshot, market=moved)).breached] = at
    plain = np.ones(book.accounts, dtype=bool)
    plain[book.leg_account[book.kind == OPTION]] = False  # whose price does not move in proportion
    found = liquidation_map(snapshot, points=10, assets=2, reps=19)
    rows = found.tables["ladder"].filter((pl.col("line") == "ETH") & (pl.col("side") == side))
    crowded = Crowd.of(snapshot)
    sums: dict[tuple[float, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0])
    sold = np.where(
        (pool := crowded.plan.carriers.spot_pool) == NONE, universe.asset_of, pool
    )  # a wrapper without depth is sold as what it wraps
    for account in np.flatnonzero(plain & (want < len(steps))).tolist():
        row = sums[float(steps[want[account]]), universe.venues[book.venue[account]]]
        row[0] += 1
        row[1] += crowded.debt[account]
        row[2] += crowded.notional[account]
        for leg in range(book.offset[account], book.offset[account + 1]):
            lean = crowded.lean[leg] if side == "fall" else -crowded.lean[leg]
            place = int(sold[book.inst[leg]])
            if lean > 0.0 and (place == eth or moving[book.inst[leg]]):
                row[3 if place == eth else 4] += lean
    options = {universe.venues[v] for v in book.venue[~plain].tolist()}
    assert sums
    for row in rows.filter(~pl.col("venue").is_in(options)).iter_rows(named=True):
        there = sums.pop((row["distance"], row["venue"]))
        told = [row[name] for name in _SUMS]
        assert told == pytest.approx(there, abs=1e-6)
    assert any(row["elsewhere_usd"] for row in rows.iter_rows(named=True))
    assert {venue for _, venue in sums} <= options


def test_a_wrapper_without_depth_is_sold_as_what_it_wraps() -> None:
    snapshot = peopled()
    universe, depth = snapshot.universe, snapshot.market.depth.copy()
    wraps = [universe.code("asset", name) for name in ("stETH", "wstETH")]
    depth[np.isin(universe.asset_of, wraps)] = 0.0
    bare = replace(snapshot, market=replace(snapshot.market, depth=depth))
    found = [liquidation_map(book, near=0.3, reps=19) for book in (snapshot, bare)]
    sums = []
    for study in found:
        rows = study.tables["cumulative"].filter(
            (pl.col("line") == "ETH") & (pl.col("side") == "fall")
            & (pl.col("distance") == pl.col("distance").max())
        )  # fmt: skip
        sums.append((rows["traded_usd"].sum(), rows["elsewhere_usd"].sum()))
    (deep, apart), (sold, left) = sums
    assert apart > 0.0
    assert sold > deep
    assert sold + left == pytest.approx(deep + apart)  # the same is sold, in one market or in two
    shares = [s.reading("crowding.at_risk_to_depth", "ETH fall, modelled").value for s in found]
    assert shares[1] > shares[0]


def test_sides_are_ranked_against_their_depth_with_bands() -> None:
    rng = np.random.default_rng(1)
    held, usd = np.repeat(np.eye(3), 60, axis=0), np.repeat([1_000.0, 990.0, 10.0], 60)
    fall = np.where(np.arange(180) % 2, 0.05, rng.uniform(0.2, 0.4, 180))
    book = crowd(fall, usd, share=0.5, assets=3, held=held)
    depth = book.market.depth.copy()
    first = book.universe.code("instrument", "x:C0")
    for k in range(3):  # as deep as the first, so that shares are as sizes are
        depth[book.universe.code("instrument", f"x:C{k}")] = depth[first]
    found = sound(
        liquidation_map(replace(book, market=replace(book.market, depth=depth)), reps=199)
    )
    rows = found.tables["against_depth"].filter(side="fall")
    assert rows["line"].to_list() == ["C0", "C1", "C2"]
    assert rows.select("rank", "rank_low", "rank_high").rows() == [(1, 1, 2), (2, 1, 2), (3, 3, 3)]
    reading = found.reading("crowding.at_risk_to_depth", "C0 fall, modelled")
    spread = 2.0 * 1.645 / math.sqrt(30.0)  # of a sum of 30 Poisson counts alike
    assert (reading.high - reading.low) / reading.value == pytest.approx(spread, rel=0.25)
    few = liquidation_map(crowd([0.05] * 4, [1e3] * 4, share=0.5), reps=19)
    assert few.reading("crowding.at_risk_to_depth", "C0 fall, modelled").low is None
    assert few.reading("crowding.at_risk_usd", "fall, modelled").low is None


def test_what_is_called_up_to_there_is_the_sum_of_what_is_called_from_each_step() -> None:
    found = liquidation_map(mixed(), points=20, reps=19)
    ladder, whole = found.tables["ladder"], found.tables["cumulative"]
    for row in whole.gather_every(23).iter_rows(named=True):
        part = ladder.filter(
            (pl.col("line") == row["line"]) & (pl.col("side") == row["side"])
            & (pl.col("evidence") == row["evidence"]) & (pl.col("distance") <= row["distance"])
        )  # fmt: skip
        assert part["accounts"].sum() == row["accounts"]
        assert part["notional_usd"].sum() == pytest.approx(row["notional_usd"], abs=1e-6)
    steps = whole.sort("distance").group_by("line", "side", "evidence", maintain_order=True)
    for _, frame in steps:
        assert (frame["debt_usd"].diff().drop_nulls() >= 0.0).all()


def test_what_is_known_in_different_ways_is_added_up_apart() -> None:
    book = mixed()
    judged = margins(book)
    found = sound(liquidation_map(book, reps=19))
    for side, exact in (("fall", judged.fall), ("rise", judged.rise)):
        called = judged.breached | (exact <= 0.1)
        size = Crowd.of(book).leveraged
        told = [r for r in found.readings if r.subject.startswith(f"{side}, ")]
        assert [r.evidence for r in told] == list(schema.EVIDENCE)
        for kind, reading in enumerate(told):
            mine = np.array([a % 3 == kind for a in book.book.account.tolist()])
            assert reading.value == pytest.approx(size[called & mine].sum(), abs=1e-6)
        assert sum(r.value for r in told) == pytest.approx(size[called].sum())
    whole = found.tables["cumulative"].filter(pl.col("line") != "market")
    for name in ("dense", "against_depth"):
        rows = found.tables[name]
        assert rows["evidence"].n_unique() > 1
        assert rows.select("line", "side", "evidence").is_unique().all()
    for row in found.tables["against_depth"].iter_rows(named=True):
        same_row = whole.filter(
            (pl.col("line") == row["line"]) & (pl.col("side") == row["side"])
            & (pl.col("evidence") == row["evidence"]) & ((pl.col("distance") - 0.1).abs() < 1e-9)
        )  # fmt: skip
        assert same_row["traded_usd"].item() == pytest.approx(row["traded_usd"])
    single = [r for r in found.readings if r.name == "crowding.at_risk_to_depth"]
    assert all(r.subject.endswith(f", {r.evidence}") for r in single)
    assert len({r.evidence for r in single}) > 1
    assert "observed, " in found.says[0]
    assert " modelled)" in found.says[0]


def test_accounts_without_positions_are_no_evidence() -> None:
    book = BOOKS["money alone"]()
    assert (np.diff(book.book.offset) == 0).any()
    assert {r.evidence for r in liquidation_map(book, reps=19).readings} == {"modelled"}


@pytest.mark.parametrize("side", ["long", "short"])
def test_the_densest_wall_is_the_one_that_was_planted(side: str) -> None:
    plant = Planted(share=0.3, side=side, distance=0.155, band=0.008)
    world = build_world(3, assets=8, venues=6, population=Population(300, minimum_usd=5_000.0),
                        plants=Plants(crowd=plant))  # fmt: skip
    found = liquidation_map(world.snapshot(), reps=19, assets=2)
    way = "fall" if side == "long" else "rise"
    wall = found.tables["dense"].filter((pl.col("line") == "ETH") & (pl.col("side") == way))
    assert wall["start"].item() == pytest.approx(0.15)
    assert wall["end"].item() == pytest.approx(0.16)
    rows = found.tables["ladder"].filter(
        (pl.col("line") == "ETH") & (pl.col("side") == way) & (pl.col("venue") == "hyperliquid")
    )
    assert rows.sort("accounts")["distance"][-1] == pytest.approx(0.16)
    assert rows["accounts"].max() >= 0.3 / 0.7 * 300 * 0.95


def test_rows_in_any_order_and_any_worker_make_the_same() -> None:
    one, other = in_two_orders()
    found = liquidation_map(one, points=8, reps=19)
    assert same(found, liquidation_map(other, points=8, reps=19, executor=Threads(2)))
    assert not same(found, liquidation_map(one, points=8, reps=19, seed=1))


def test_bands_come_of_draws_and_widen_with_their_level() -> None:
    book = peopled()
    narrow, wide, more = (
        liquidation_map(book, points=10, assets=0, **options).reading(
            "crowding.at_risk_usd", "fall, modelled"
        )
        for options in ({"level": 0.5}, {"level": 0.99}, {"level": 0.99, "reps": 999})
    )
    assert wide.low < narrow.low < narrow.high < wide.high
    assert more.high - more.low == pytest.approx(wide.high - wide.low, rel=0.35)
    size = Crowd.of(book).leveraged[margins(book).fall <= 0.1]
    spread = 2.0 * 2.576 * math.sqrt(float((size**2).sum()))  # of a sum of Poisson counts
    assert more.high - more.low == pytest.approx(spread, rel=0.25)


def test_a_distance_between_steps_is_told_as_the_step_below() -> None:
    book = crowd([0.1, 0.15], [1e3, 1e3], share=0.5)
    found = liquidation_map(book, near=0.19, points=4, reps=19)  # steps of 12.5 %
    reading = found.reading("crowding.at_risk_usd", "fall, modelled")
    assert reading.value == pytest.approx(1e3 * THRESHOLD * 0.9)
    assert "12 %" in reading.definition
    with pytest.raises(StateError, match=r"near was 0\.1, and the first step of 4 is 0\.125"):
        liquidation_map(book, near=0.1, points=4)


def test_what_nobody_knows_the_depth_of_is_named() -> None:
    found = sound(liquidation_map(without_depth(), reps=19))
    assert list(found.left_out) == ["C0"]
    assert found.tables["cumulative"]["depth_usd"].null_count() == found.tables["cumulative"].height
    assert not any(r.name == "crowding.at_risk_to_depth" for r in found.readings)
    assert not liquidation_map(crowd([0.1], [1e3], share=0.5), reps=19).left_out


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told(name: str) -> None:
    found = sound(liquidation_map(BOOKS[name](), points=10, reps=19))
    usd = [r.value for r in found.readings if r.name == "crowding.at_risk_usd"]
    if name == "all bankrupt":
        assert usd[0] == pytest.approx(float(Crowd.of(BOOKS[name]()).leveraged.sum()))
        assert "3 accounts may be closed before anything moves." in found.says
    if name in ("nobody leveraged", "no positions"):
        assert found.says[0].startswith("Nobody owes anything")
        assert not any(usd)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"near": 0.6}, StateError, "near was 0.6"),
        ({"near": math.nan}, StateError, "near was nan"),
        ({"furthest": 0.0}, StateError, "furthest was 0"),
        ({"furthest": 1.0}, StateError, "furthest was 1"),
        ({"points": 0}, StateError, "points was 0"),
        ({"assets": -1}, StateError, "assets was -1"),
        ({"seed": -1}, StateError, "seed was -1"),
        ({"level": 1.0}, EstimationError, "level was 1"),
        ({"reps": 3}, EstimationError, "reps was 3"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        liquidation_map(small_book(), **options)
    with pytest.raises(StateError, match="was of type World"):
        liquidation_map(small_world())
