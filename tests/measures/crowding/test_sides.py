"""Sides: by hand, by loops, with a planted crowd, and where nobody leans."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest

from crowds import MAINTENANCE, crowd
from measures.crowding.owned import (
    borrower,
    holder,
    in_two_orders,
    owned_by,
    peopled,
    planted,
    under_water,
)
from undertow.errors import EstimationError, StateError
from undertow.measures.crowding import Crowd
from undertow.measures.crowding.sides import sides
from undertow.rules.snapshot import Snapshot


def test_by_hand() -> None:
    fall, usd = np.array([0.1, 0.3, 0.2]), np.array([1_000.0, 3_000.0, 2_000.0])
    long = np.array([True, True, False])
    found = sides(crowd(fall, usd, share=0.5, long=long))
    side = np.where(long, 1.0, -1.0)
    weight = 1.0 / (fall + MAINTENANCE * (1.0 - side * fall))
    net = float((side * usd * weight).sum() / (usd * weight).sum())
    assert found.reading("crowding.one_sidedness", "C0").value == pytest.approx(net)
    assert found.reading("crowding.one_sidedness_plain", "C0").value == pytest.approx(1.0 / 3.0)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(abs(net))
    assert found.headline.low is None  # of three owners
    whole = found.tables["whole"].row(0, named=True)
    assert whole["by_chance"] == pytest.approx(np.sqrt(2.0 / np.pi) * np.sqrt(14.0) / 6.0)
    modes = found.tables["modes"]
    assert modes.filter(pl.col("mode") == "cross")["share"].item() == 1.0


def test_the_weight_of_next_to_no_equity_is_bounded() -> None:
    book = crowd([0.0001, 0.3], [1_000.0, 1_000.0], share=0.5, long=np.array([True, False]))
    weight = 1.0 / (0.3 + MAINTENANCE * 1.3)
    net = sides(book, most=10.0).reading("crowding.one_sidedness", "C0").value
    assert net == pytest.approx((10.0 - weight) / (10.0 + weight))


def test_it_is_what_loops_over_legs_give() -> None:
    book = peopled()
    seen, universe = Crowd.of(book), book.universe
    found = sides(book, reps=29)
    size = seen.exposures.outright + seen.exposures.notional + seen.exposures.delta
    sums: dict[tuple[str, str], list[float]] = {}
    for leg in range(len(book.book)):
        a = int(book.book.leg_account[leg])
        equity, lean = float(seen.exposures.equity[a]), float(seen.lean[leg])
        if lean == 0.0 or seen.leveraged[a] <= 0.0 or equity <= 0.0:
            continue
        held = float(size[book.book.offset[a] : book.book.offset[a + 1]].sum())
        weight = min(held / equity, 100.0)
        key = (universe.venues[book.book.venue[a]], universe.assets[seen.asset[leg]])
        row = sums.setdefault(key, [0.0, 0.0, 0.0, 0.0])
        row[0] += lean
        row[1] += abs(lean)
        row[2] += weight * lean
        row[3] += weight * abs(lean)
    pairs = found.tables["pairs"]
    assert pairs.height == len(sums)
    for row in pairs.iter_rows(named=True):
        net, gross, weighed, heavy = sums[row["node"], row["asset"]]
        assert row["net"] == pytest.approx(net / gross, abs=1e-9)
        assert row["net_weighed"] == pytest.approx(weighed / heavy, abs=1e-9)
    by_asset: dict[str, list[float]] = {}
    for (_, asset), row in sums.items():
        mine = by_asset.setdefault(asset, [0.0, 0.0])
        mine[0] += row[2]
        mine[1] += row[3]
    told = sum(abs(r[0]) for r in by_asset.values()) / sum(r[1] for r in by_asset.values())
    assert found.headline is not None
    assert found.headline.value == pytest.approx(told)
    for row in found.tables["nodes"].iter_rows(named=True):
        mine = [r for (node, _), r in sums.items() if node == row["name"]]
        value = sum(abs(r[0]) for r in mine) / sum(r[1] for r in mine)
        assert row["size"] == pytest.approx(value)


@pytest.mark.slow
def test_the_band_holds_the_lean_of_the_whole_from_which_owners_came() -> None:
    rng, inside, trials = np.random.default_rng(1), 0, 40
    for trial in range(trials):
        count = int(rng.poisson(250))
        long = rng.random(count) < 0.65
        usd = rng.gamma(1.5, 1_000.0, count)
        book = crowd(np.full(count, 0.2), usd, share=0.5, long=long)
        reading = sides(book, seed=trial).reading("crowding.one_sidedness_plain", "C0")
        assert reading.low is not None
        assert reading.high is not None
        inside += reading.low <= 0.3 <= reading.high
    assert 0.75 <= inside / trials <= 1.0


def leaning(seed: int, owners: int, leans: list[float]) -> Snapshot:
    """Owners of one asset each, long in so many more cases than short."""
    rng = np.random.default_rng(seed)
    coin = rng.integers(len(leans), size=owners)
    long = rng.random(owners) < 0.5 * (1.0 + np.array(leans)[coin])
    held = np.eye(len(leans))[coin]
    return crowd(np.full(owners, 0.2), rng.gamma(1.5, 1_000.0, owners), share=0.5,
                 assets=len(leans), held=held, long=long)  # fmt: skip


@pytest.mark.parametrize("leans", [[0.0] * 5, [0.6, 0.0, 0.0, 0.0, 0.0], [0.3]])
def test_the_size_of_a_net_lies_in_its_band_and_so_does_what_it_would_be_of_more(
    leans: list[float],
) -> None:
    held, truth = 0, float(np.mean(leans))
    for seed in range(6):
        found = sides(leaning(seed, 60, leans), seed=seed, reps=99)
        for name in ("crowding.one_sidedness", "crowding.one_sidedness_plain"):
            reading = found.reading(name)
            assert reading.value is not None
            assert reading.low is not None
            assert reading.high is not None
            assert reading.low <= reading.value <= reading.high <= 1.0
        held += reading.low <= truth <= reading.high
    assert held >= 4


@pytest.mark.slow
@pytest.mark.parametrize("owners", [40, 250])
@pytest.mark.parametrize("leans", [[0.0] * 5, [0.6, 0.0, 0.0, 0.0, 0.0], [0.3] * 5, [0.3]])
def test_bands_of_sizes_hold_the_lean_from_which_owners_came(
    owners: int, leans: list[float]
) -> None:
    inside, trials, truth = 0, 60, float(np.mean(leans))
    for trial in range(trials):
        found = sides(leaning(trial, owners, leans), seed=trial, reps=99)
        reading = found.reading("crowding.one_sidedness_plain")
        assert reading.low is not None
        assert reading.high is not None
        inside += reading.low <= truth <= reading.high
    sys.stdout.write(f"{owners} owners, {leans}: {inside / trials:.0%}\n")
    assert inside / trials >= 0.75


def test_owners_are_drawn_whole() -> None:
    rng = np.random.default_rng(2)
    book = crowd(np.full(200, 0.2), rng.gamma(2.0, 500.0, 200), share=0.5,
                 long=np.repeat(rng.random(10) < 0.5, 20))  # fmt: skip
    apart, together = (
        sides(each).reading("crowding.one_sidedness_plain", "C0")
        for each in (book, owned_by(book, np.repeat(np.arange(10), 20).tolist()))
    )
    assert apart.value == together.value
    widths = [r.high - r.low for r in (apart, together) if r.low is not None and r.high is not None]
    assert widths[1] > 2.0 * widths[0]


@pytest.mark.parametrize("side", ["long", "short"])
def test_a_planted_crowd_leans_its_way(side: str) -> None:
    with_it, without = (
        sides(planted(each), reps=19)
        .tables["pairs"]
        .filter((pl.col("node") == "hyperliquid") & (pl.col("asset") == "ETH"))["net_weighed"]
        .item()
        for each in (side, None)
    )
    assert (with_it > without + 0.05) if side == "long" else (with_it < without - 0.05)


def test_rows_in_any_order_make_the_same() -> None:
    found, again = (sides(book, reps=19).as_json() for book in in_two_orders())
    assert found == again


def test_degenerate_books_are_told() -> None:
    one = sides(crowd([0.3], [1_000.0], share=0.5, long=np.array([False])))
    assert one.reading("crowding.one_sidedness", "C0").value == -1.0
    assert one.reading("crowding.one_sidedness").value == 1.0
    assert any("chance" in sentence for sentence in one.says)
    nobody = sides(holder())
    assert nobody.headline is not None
    assert nobody.headline.value is None
    assert "Nobody owes" in nobody.says[0]
    bankrupt = sides(under_water())
    assert bankrupt.headline is not None
    assert bankrupt.headline.value is None
    assert "none has equity" in bankrupt.says[0]
    nowhere = sides(borrower(), by="chain")
    assert nowhere.tables["pairs"].height == 0


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"by": "colour"}, StateError, "division"),
        ({"most": 0.5}, StateError, "most was"),
        ({"level": 0.0}, EstimationError, "level"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        sides(borrower(), **given)  # type: ignore[arg-type]
