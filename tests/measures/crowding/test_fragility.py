"""The fragility curve: closed forms, depth halved and doubled, and a knee found by looking."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from crowds import crowd
from measures.crowding.extremes import BOOKS, same, small_book, sound
from measures.crowding.owned import in_two_orders, peopled
from undertow.errors import EstimationError, StateError
from undertow.fanout import Threads
from undertow.measures.crowding import Crowd, fragility
from undertow.rules.snapshot import Snapshot
from undertow.stress import Options, Plan
from undertow.stress.draws import Given
from undertow.stress.sweep import run_sweep

SMOOTH = Options(floor=0.0)  # log price is linear in what was sold


def wall(at: float, kappa: float, *, side: str = "long") -> Crowd:
    """Perps of one size that are all called at one move; all of them move log price by `kappa`."""
    count = 200
    long = np.full(count, side == "long")
    return Crowd(crowd(np.full(count, at), np.full(count, 1e3), share=kappa, long=long), SMOOTH)


def even(low: float, high: float, kappa: float, count: int = 1_000) -> Crowd:
    """Longs whose log distances are spread evenly."""
    fall = -np.expm1(-np.linspace(low, high, count + 1)[1:])
    return Crowd(crowd(fall, np.full(count, 1e3), share=kappa, long=np.ones(count, bool)), SMOOTH)


def test_beyond_a_wall_all_is_sold_and_the_fall_is_the_shock_and_the_impact() -> None:
    kappa = 0.3
    found = sound(fragility(wall(0.15, kappa), doubt=2.0, level=0.9))
    for row in found.tables["curve"].iter_rows(named=True):
        if row["shock"] < 0.15:
            assert row["final_fall"] == pytest.approx(row["shock"])
            assert row["liquidated_share"] == row["high"] == 0.0
            assert row["amplification"] == pytest.approx(1.0)
        elif row["shock"] > 0.151:
            for name, size in (("final_fall", 1.0), ("fall_low", 0.5), ("fall_high", 2.0)):
                fall = 1.0 - (1.0 - row["shock"]) * np.exp(-size * kappa)
                assert row[name] == pytest.approx(fall, rel=1e-6)
            assert row["amplification"] == pytest.approx(row["final_fall"] / row["shock"])
    knee = found.headline
    assert knee is not None
    assert knee.value == pytest.approx(0.15, abs=1.1e-3)
    assert (knee.low, knee.high) == (pytest.approx(0.15, abs=1.1e-3),) * 2
    at = found.reading("crowding.amplification", "20 % fall")
    assert at.low == pytest.approx((1.0 - 0.8 * np.exp(-0.15)) / 0.2)
    assert at.high == pytest.approx((1.0 - 0.8 * np.exp(-0.6)) / 0.2)


def test_even_thresholds_below_saturation_amplify_by_the_same_factor() -> None:
    # y = s + rho (y - 0.1) in logs, beyond the first threshold; rho = kappa / width = 0.5
    found = fragility(even(0.1, 0.5, 0.2), furthest=0.24, shocks=12, doubt=1.0)
    for row in found.tables["curve"].iter_rows(named=True):
        s = -np.log1p(-row["shock"])
        y = s if s < 0.1 else (s - 0.5 * 0.1) / 0.5
        assert row["final_fall"] == pytest.approx(-np.expm1(-y), abs=3e-3)
    assert found.headline is not None
    assert found.headline.value is None
    assert "no knee" in found.says[0]


def test_rises_are_to_shorts_what_falls_are_to_longs() -> None:
    book = wall(0.15, 0.3, side="short")
    found = sound(fragility(book, side="rise"))
    assert found.headline is not None
    assert found.headline.value == pytest.approx(0.15, abs=1.1e-3)
    last = found.tables["curve"].row(-1, named=True)
    assert -last["final_fall"] == pytest.approx((1.0 + last["shock"]) * np.exp(0.3) - 1.0)
    fall = sound(fragility(book))
    assert fall.headline is not None
    assert fall.headline.value is None
    assert fall.tables["curve"]["liquidated_share"].sum() == 0.0


def knee_by_looking(book: Snapshot, furthest: float) -> float | None:
    """The first shock at which the final fall jumps, all of them simulated."""
    shocks = np.arange(1, round(furthest / 0.001) + 1) * 0.001
    universe = book.universe
    moves = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
    given = Given.of(np.outer(np.log1p(-shocks), moves))
    run = run_sweep(Plan.of(book), given, len(shocks), settled=False)
    at = np.flatnonzero(np.diff(np.append(0.0, run.rows["final_fall"])) >= 0.02)
    return float(shocks[at[0]]) if len(at) else None


@pytest.mark.parametrize("seed", [1, 2])
def test_the_knee_is_the_one_that_is_found_by_simulating_every_shock(seed: int) -> None:
    rng = np.random.default_rng(seed)
    usd = 1e3 * (rng.pareto(1.5, 200).clip(max=20.0) + 1.0)
    fall = np.clip(rng.lognormal(np.log(rng.uniform(0.1, 0.3)), 0.5, 200), 0.006, 0.95)
    book = crowd(fall, usd, share=rng.uniform(0.3, 0.8))
    found = fragility(book, shocks=8, doubt=1.0).headline
    want = knee_by_looking(book, 0.4)
    assert found is not None
    assert (found.value is None) == (want is None)
    if want is not None:
        assert found.value == pytest.approx(want, abs=1.1e-3)


def test_deeper_markets_close_less_and_tip_later() -> None:
    rng = np.random.default_rng(5)
    book = Crowd.of(crowd(rng.uniform(0.05, 0.5, 500), rng.pareto(2.0, 500) + 1.0, share=0.6))
    runs = [fragility(book.with_depth(times), doubt=1.0) for times in (0.5, 1.0, 2.0)]
    for thin, deep in pairwise(runs):  # USD closed may be more: it is sold at better prices
        both = thin.tables["curve"].join(deep.tables["curve"], on="shock", suffix="_deep")
        assert both.height >= 16
        assert (both["final_fall_deep"] <= both["final_fall"] + 1e-9).all()
    knees = [run.headline.value if run.headline else None for run in runs]
    ends = [k if k is not None else 1.0 for k in knees]
    assert ends == sorted(ends)
    assert ends[0] < 1.0
    banded = fragility(book, doubt=2.0, level=0.9)  # the very markets between which the band is
    for end, run in (("fall_high", runs[0]), ("fall_low", runs[2])):
        both = banded.tables["curve"].join(run.tables["curve"], on="shock", suffix="_own")
        assert both.height >= 16
        assert both[end].to_list() == both["final_fall_own"].to_list()


def test_without_depth_nothing_is_said_of_what_sales_multiply() -> None:
    found = fragility(BOOKS["no depth"](), shocks=4)
    assert found.tables["curve"]["amplification"].null_count() == found.tables["curve"].height
    assert not [r for r in found.readings if r.name == "crowding.amplification"]
    assert found.headline is not None
    assert found.headline.value is None


def test_the_curve_has_the_jump_that_the_knee_tells() -> None:
    found = fragility(wall(0.15, 0.3), doubt=1.0)
    assert found.headline is not None
    assert found.headline.value is not None
    curve = found.tables["curve"]
    rise = curve["final_fall"].diff().to_numpy()
    (at,) = np.flatnonzero(np.abs(curve["shock"].to_numpy() - found.headline.value) < 1e-9)
    assert curve["shock"][int(at)] - curve["shock"][int(at) - 1] == pytest.approx(0.001)
    assert rise[at] >= 0.02


def test_a_band_is_as_wide_as_its_level_says() -> None:
    book = wall(0.15, 0.3)
    for level in (0.5, 0.9, 0.99):
        times = 2.0 ** (norm.ppf(0.5 + 0.5 * level) / norm.ppf(0.95))
        row = fragility(book, level=level).tables["curve"].row(-1, named=True)
        assert row["fall_high"] == pytest.approx(1.0 - 0.6 * np.exp(-0.3 * times))
        assert row["fall_low"] == pytest.approx(1.0 - 0.6 * np.exp(-0.3 / times))


def test_without_doubt_there_are_no_bands() -> None:
    found = sound(fragility(wall(0.15, 0.3), doubt=1.0))
    assert found.readings
    assert all(r.low is None and r.level is None for r in found.readings)


def test_few_shocks_are_told_once_each() -> None:
    found = sound(fragility(small_book(), shocks=2, furthest=0.5))
    assert {r.subject for r in found.readings} == {"fall", "25 % fall"}


@pytest.mark.slow
def test_rows_in_any_order_and_any_worker_make_the_same() -> None:
    one, other = in_two_orders()
    found = fragility(one, shocks=8)
    assert same(found, fragility(other, shocks=8, executor=Threads(2)))
    assert same(found, fragility(one, shocks=8, seed=9))  # nothing is drawn


def test_every_shock_of_a_world_of_all_kinds_is_told() -> None:
    found = sound(fragility(peopled()))
    curve = found.tables["curve"]
    assert (curve["final_fall"] >= curve["shock"] * 0.5).all()
    assert curve["insolvency_share"].is_between(0.0, 1.0).all()
    assert curve.select(pl.col("low") <= pl.col("liquidated_share"))["low"].all()


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told(name: str) -> None:
    found = sound(fragility(BOOKS[name](), shocks=4))
    assert found.headline is not None
    told = {
        "nobody leveraged": "Nobody owes anything",
        "no positions": "Nobody owes anything",
        "no depth": "No depth is known of anything",
        "shorts alone": "there is no knee",
        "all bankrupt": "Once what is due today is closed, nobody owes",
        "money alone": "Once what is due today is closed, nobody owes",
        "one account": "the book tips",
    }
    if name in told:
        assert told[name] in found.says[0]
        assert (found.headline.value is None) == (name != "one account")
    if name in ("all bankrupt", "money alone", "no positions", "nobody leveraged"):
        assert found.tables["curve"]["liquidated_share"].sum() == 0.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"side": "sideways"}, StateError, "side was 'sideways'; it must be fall or rise"),
        ({"shocks": 1}, StateError, "shocks was 1"),
        ({"doubt": 0.5}, StateError, r"doubt was 0\.5"),
        ({"furthest": 1.0}, StateError, r"furthest was 1\.0"),
        ({"seed": -2}, StateError, "seed was -2"),
        ({"level": 0.0}, EstimationError, "level was 0"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fragility(small_book(), **options)
