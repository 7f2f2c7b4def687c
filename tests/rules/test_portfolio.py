"""A portfolio margin group holds its worst hour; recomputed here from Black (1976) with scipy."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from undertow.errors import MissingPrice, RuleError
from undertow.kernels import portfolio as kernel
from undertow.rules.margins import margins
from undertow.rules.portfolio import add_distances, chain_of, grid_of
from undertow.rules.profile import load_profile
from undertow.rules.snapshot import Snapshot

TS = 1_767_225_600_000_000
DAY = pl.datetime(2026, 1, 1, time_zone="UTC")
EXPIRY = pl.datetime(2026, 3, 2, time_zone="UTC")  # 60 days
FORWARD, TAU = 3_000.0, 60 / 365
OPTIONS = {"opt:C": ("call", 3_300.0, 0.65, 120.0), "opt:P": ("put", 2_600.0, 0.75, 95.0)}
HELD = {"opt:C": -10.0, "opt:P": -15.0, "opt:PERP": 4.0}
CASH = 30_000.0


@pytest.fixture
def tables() -> dict[str, pl.DataFrame]:
    assets = pl.DataFrame({"asset": ["ETH", "USDC"], "kind": ["native", "stable"]})
    venues = pl.DataFrame({"venue": ["opt"], "kind": ["options"], "profile": ["generic-portfolio"]})
    rows = [(n, "option", t, k) for n, (t, k, _, _) in OPTIONS.items()]
    rows += [("opt:PERP", "perp", None, None), ("opt:USDC", "cash", None, None)]
    instruments = pl.DataFrame(
        rows, schema=["instrument", "kind", "option_type", "strike"], orient="row"
    ).with_columns(
        symbol=pl.col("instrument"), venue=pl.lit("opt"), inverse=False, contract_size=1.0,
        asset=pl.when(pl.col("kind") == "cash").then(pl.lit("USDC")).otherwise(pl.lit("ETH")),
        expiry=pl.when(pl.col("kind") == "option").then(EXPIRY),
    )  # fmt: skip
    accounts = pl.DataFrame(
        {
            "account": [1],
            "venue": ["opt"],
            "label": ["a"],
            "margin_group": ["pm"],
            "mode": ["portfolio"],
        }
    )
    held = [*((n, "option" if n in OPTIONS else "perp", q) for n, q in HELD.items())]
    positions = pl.DataFrame(
        [*held, ("opt:USDC", "cash", CASH)], schema=["instrument", "kind", "qty"], orient="row"
    ).with_columns(
        account=pl.lit(1), source=pl.lit("t"), evidence=pl.lit("observed"),
        entry=pl.when(pl.col("kind") == "perp").then(2_900.0),
    )  # fmt: skip
    prices = pl.DataFrame(
        [
            *((n, "mark", m) for n, (_, _, _, m) in OPTIONS.items()),
            ("opt:PERP", "mark", FORWARD), ("opt:USDC", "index", 1.0),
        ],
        schema=["instrument", "kind", "price"], orient="row",
    ).with_columns(source=pl.lit("t"))  # fmt: skip
    vols = pl.DataFrame({"strike": [3_300.0, 2_600.0], "vol": [0.65, 0.75]}).with_columns(
        venue=pl.lit("opt"), asset=pl.lit("ETH"), expiry=EXPIRY, source=pl.lit("t")
    )
    named = {
        "assets": assets.with_columns(symbol=pl.col("asset")), "venues": venues,
        "instruments": instruments, "accounts": accounts, "positions": positions,
        "prices": prices, "implied_vols": vols,
    }  # fmt: skip
    return {name: frame.with_columns(ts=DAY) for name, frame in named.items()}


def black(kind: str, forward: float, strike: float, vol: float) -> float:
    d1 = math.log(forward / strike) / (vol * math.sqrt(TAU)) + 0.5 * vol * math.sqrt(TAU)
    d2 = d1 - vol * math.sqrt(TAU)
    s = 1 if kind == "call" else -1
    return s * (forward * norm.cdf(s * d1) - strike * norm.cdf(s * d2))


def book_value(forward: float, vol_move: float) -> float:
    return sum(
        HELD[n] * black(t, forward, k, v * max(1 + vol_move, 0))
        for n, (t, k, v, _) in OPTIONS.items()
    )


def requirement(forward: float) -> float:
    grid = load_profile("generic-portfolio").grid
    scale = (grid.vol_reference_days / 60) ** grid.vol_far_power
    points = [(p, v * scale, 1.0) for p in grid.price_moves for v in grid.vol_moves]
    points += [(p, max(grid.vol_moves) * scale, grid.tail_counted) for p in grid.tail_moves]
    now = book_value(forward, 0.0)
    losses = [
        counted * (now - book_value(forward * (1 + p), v) - HELD["opt:PERP"] * forward * p)
        for p, v, counted in points
    ]
    notional = (10 + 15 + abs(HELD["opt:PERP"])) * forward
    return max(losses) + grid.add_on * notional


def health(fall: float) -> float:
    forward = FORWARD * (1 - fall)
    marks = {
        n: m + black(t, forward, k, v) - black(t, FORWARD, k, v)
        for n, (t, k, v, m) in OPTIONS.items()
    }
    options = sum(HELD[n] * max(m, 0.0) for n, m in marks.items())
    return CASH + options + HELD["opt:PERP"] * (forward - 2_900.0) - requirement(forward)


def test_what_the_grid_asks_is_the_worst_loss_and_the_add_ons(tables) -> None:
    found = margins(Snapshot.from_tables(tables, TS))
    assert found.asked[0] == pytest.approx(requirement(FORWARD), rel=1e-12)
    assert found.equity[0] == pytest.approx(CASH - 1_200 - 1_425 + 400)
    assert found.cover[0] - found.asked[0] == pytest.approx(health(0.0), rel=1e-10)


def test_the_distance_is_where_the_repriced_group_breaks(tables) -> None:
    found = margins(Snapshot.from_tables(tables, TS))
    assert found.fall[0] == pytest.approx(brentq(health, 0.0, 0.95, xtol=1e-14), rel=1e-9)
    assert found.rise[0] == pytest.approx(-brentq(health, -3.0, 0.0, xtol=1e-14), rel=1e-9)


def _butterfly(
    tables: dict[str, pl.DataFrame], cash: float, side: float
) -> dict[str, pl.DataFrame]:
    """A narrow butterfly of one-day calls under the forward: it turns sharply near its body."""
    expiry = pl.datetime(2026, 1, 2, time_zone="UTC")
    wings = [("opt:A", 2_900.0, 100.0), ("opt:B", 2_937.5, -200.0), ("opt:D", 2_975.0, 100.0)]
    flip = [(name, strike, side * qty) for name, strike, qty in wings]
    instruments = pl.concat(
        [
            tables["instruments"].filter(pl.col("kind") != "option"),
            *(
                tables["instruments"][:1].with_columns(
                    instrument=pl.lit(n), symbol=pl.lit(n), strike=pl.lit(k), expiry=expiry
                )
                for n, k, _ in flip
            ),
        ]
    )
    positions = pl.concat(
        [
            tables["positions"].filter(pl.col("kind") == "cash").with_columns(qty=pl.lit(cash)),
            *(
                tables["positions"][:1].with_columns(instrument=pl.lit(n), qty=pl.lit(q))
                for n, _, q in flip
            ),
        ]
    )
    day = 1 / 365

    def mark(k: float) -> float:
        d1 = math.log(FORWARD / k) / (0.3 * math.sqrt(day)) + 0.15 * math.sqrt(day)
        return FORWARD * norm.cdf(d1) - k * norm.cdf(d1 - 0.3 * math.sqrt(day))

    prices = pl.concat(
        [
            tables["prices"].filter(~pl.col("instrument").is_in(list(OPTIONS))),
            *(
                tables["prices"][:1].with_columns(instrument=pl.lit(n), price=pl.lit(mark(k)))
                for n, k, _ in flip
            ),
        ]
    )
    vols = pl.concat(
        [
            tables["implied_vols"][:1].with_columns(
                strike=pl.lit(k), vol=pl.lit(0.3), expiry=expiry
            )
            for _, k, _ in flip
        ]
    )
    return {
        **tables, "instruments": instruments, "positions": positions, "prices": prices,
        "implied_vols": vols,
    }  # fmt: skip


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_narrow_dip_is_not_stepped_over(tables, side: float) -> None:
    """The engine's own health, at marks moved along the path, is the witness of every breach."""
    for cash in np.linspace(3_000.0, 9_000.0, 17):
        given = _butterfly(tables, float(cash), side)
        found = margins(Snapshot.from_tables(given, TS))
        snapshot = found.snapshot
        legs = snapshot.rules.leg_columns(snapshot.book)
        profile = snapshot.rules.profiles[0]
        chain, grid = chain_of(snapshot, profile.grid), grid_of(profile.grid)
        exposure = np.ones(len(snapshot.universe.instruments))
        exposure[snapshot.universe.code("instrument", "opt:USDC")] = 0.0
        forward = chain.forward.copy()
        moved = kernel.Moved(snapshot.market.mark.copy(), forward, chain._replace(forward=forward))
        scan = np.linspace(0.0, 0.2, 2_001)
        level = np.array(
            [
                kernel._health_at(
                    t, -1.0, 0, len(snapshot.book), legs, snapshot.market.mark, exposure,
                    snapshot.rules.terms, chain, moved, grid,
                )
                for t in scan
            ]
        )  # fmt: skip
        first = scan[np.flatnonzero(level < 0)[0]] if (level < 0).any() else np.inf
        if np.isfinite(first):
            assert first - 1e-4 - 1e-12 <= found.fall[0] <= first + 1e-12, cash
        else:
            assert found.fall[0] > 0.2, cash


def test_a_group_that_cannot_break_has_no_distance(tables) -> None:
    rich = tables["positions"].with_columns(
        qty=pl.when(pl.col("kind") == "cash").then(1e9).otherwise("qty")
    )
    found = margins(Snapshot.from_tables({**tables, "positions": rich}, TS))
    assert np.isinf(found.fall[0])
    assert np.isinf(found.rise[0])


def test_a_broke_group_is_breached_at_once(tables) -> None:
    poor = tables["positions"].with_columns(
        qty=pl.when(pl.col("kind") == "cash").then(100.0).otherwise("qty")
    )
    found = margins(Snapshot.from_tables({**tables, "positions": poor}, TS))
    assert (found.fall[0], found.rise[0], found.breached[0]) == (0.0, 0.0, True)


def test_the_compiled_search_is_its_python_twin_to_the_bit(tables) -> None:
    snapshot = Snapshot.from_tables(tables, TS)
    legs = snapshot.rules.leg_columns(snapshot.book)
    exposure = np.ones(len(snapshot.universe.instruments))
    profile = snapshot.rules.profiles[0]
    chain, grid = chain_of(snapshot, profile.grid), grid_of(profile.grid)
    ladder = np.linspace(0, 1, 20)[1:-1]
    found = []
    for search in (kernel.portfolio_distance, kernel.portfolio_distance.py_func):
        forward = chain.forward.copy()
        moved = kernel.Moved(snapshot.market.mark.copy(), forward, chain._replace(forward=forward))
        found.append(
            search(
                0, 4, legs, snapshot.market.mark, exposure, -1.0, ladder, snapshot.rules.terms,
                chain, moved, grid,
            )
        )  # fmt: skip
    assert found[0] == found[1]


def test_scratch_leaves_nothing_behind(tables) -> None:
    snapshot = Snapshot.from_tables(tables, TS)
    legs = snapshot.rules.leg_columns(snapshot.book)
    exposure = np.ones(len(snapshot.universe.instruments))
    runs = []
    for _ in range(2):
        value, status = np.full(1, np.nan), np.zeros(1, np.int8)
        add_distances(snapshot, legs, exposure, -1.0, value, status)
        runs.append((value[0], status[0]))
    assert runs[0] == runs[1]


def test_an_option_needs_volatility_and_a_forward(tables) -> None:
    with pytest.raises(MissingPrice, match="implied volatility"):
        margins(Snapshot.from_tables({k: v for k, v in tables.items() if k != "implied_vols"}, TS))
    bare = tables["prices"].filter(pl.col("instrument") != "opt:PERP")
    legs = tables["positions"].filter(pl.col("instrument") != "opt:PERP")
    with pytest.raises(MissingPrice, match="underlying price"):
        margins(Snapshot.from_tables({**tables, "prices": bare, "positions": legs}, TS))


def test_a_portfolio_group_needs_a_grid(tables) -> None:
    venues = tables["venues"].with_columns(profile=pl.lit("binance-usdm"))
    with pytest.raises(RuleError, match="margined portfolio, which the profile"):
        margins(Snapshot.from_tables({**tables, "venues": venues}, TS))
