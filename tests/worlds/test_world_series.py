"""What is planted in the series can be read off them by plain statistics."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.state.conform import require
from undertow.worlds import (
    Episode,
    History,
    Prices,
    Tandem,
    Ties,
    build_panels,
    build_world,
)

ETH = "hyperliquid:ETH/USDC:USDC"


def test_the_basis_reverts_with_its_half_life() -> None:
    """An AR(1) on a long panel, and the plain decay after a jump that dwarfs the noise."""
    series = build_panels(
        8, steps=20_000, ties=Ties(half_life=24.0, episodes=(Episode(ETH, 9_000, size=0.5),))
    )
    truth = series.truth.basis
    other = truth.basis[:, truth.series.index("hyperliquid:BTC/USDC:USDC")]
    phi = (other[1:] * other[:-1]).sum() / (other[:-1] ** 2).sum()
    assert abs(phi - truth.phi) < 4.0 * np.sqrt((1.0 - truth.phi**2) / 20_000)
    jumped = truth.basis[:, truth.series.index(ETH)]
    assert jumped[9_000] - jumped[8_999] == pytest.approx(0.5, abs=0.01)
    assert jumped[9_000 + 24] / jumped[9_000] == pytest.approx(0.5, abs=0.02)
    assert jumped[9_000 + 72] / jumped[9_000] == pytest.approx(0.125, abs=0.02)
    mark, spot = series.panels["mark"], series.panels["spot"]
    measured = np.log(
        mark.values[:, mark.labels.index(ETH)] / spot.values[:, spot.labels.index("ETH")]
    )
    assert np.allclose(measured, jumped, atol=1e-12)


def test_beta_and_correlation_fall_in_an_episode_and_nowhere_else() -> None:
    spell = Episode(ETH, 3_000, size=0.02, length=2_000, beta=0.5, noise=0.004)
    series = build_panels(9, steps=6_000, ties=Ties(half_life=500.0, episodes=(spell,)))
    mark, spot = series.panels["mark"], series.panels["spot"]
    tied = np.diff(np.log(mark.values[:, mark.labels.index(ETH)]))
    base = np.diff(np.log(spot.values[:, spot.labels.index("ETH")]))

    def beta(rows: slice) -> float:
        return float((tied[rows] * base[rows]).sum() / (base[rows] ** 2).sum())

    inside, outside = slice(3_000, 4_998), slice(0, 2_990)
    spread = base[inside].std()
    assert abs(beta(inside) - 0.5) < 4.0 * 0.005 / spread / np.sqrt(2_000)
    assert beta(outside) == pytest.approx(1.0, abs=0.01)
    expected = 0.5 * spread / np.sqrt((0.5 * spread) ** 2 + 0.004**2)
    assert np.corrcoef(tied[inside], base[inside])[0, 1] == pytest.approx(expected, abs=0.1)
    assert np.corrcoef(tied[outside], base[outside])[0, 1] > 0.99
    episode = series.truth.basis.episodes[0]
    assert (episode.step, episode.end, episode.ts) == (3_000, 5_000, int(mark.ts[3_000]))


def test_funding_is_clamped_and_follows_the_basis() -> None:
    spell = Episode("binance-usdm:ETH/USDT:USDT", 400, size=0.01)
    series = build_panels(10, steps=800, ties=Ties(half_life=60.0, noise=5e-5, episodes=(spell,)))
    rates = series.tables["funding"].filter(pl.col("instrument") == spell.series).sort("ts")
    assert (rates["interval_us"] == 8 * 3_600_000_000).all()
    truth = series.truth.basis
    basis = truth.basis[:, truth.series.index(spell.series)]
    mean = np.array([basis[at - 8 : at].mean() for at in range(8, 800, 8)])
    expected = mean + np.clip(1e-4 - mean, -truth.funding_clamp, truth.funding_clamp)
    assert np.allclose(rates["rate"], np.clip(expected, -0.02, 0.02))
    assert np.allclose(rates["rate_per_hour"] * 8, rates["rate"])
    calm = rates["rate"].to_numpy()[:40]
    assert np.median(calm) == pytest.approx(1e-4, abs=1e-6)  # held by the clamp
    assert rates["rate"].max() > 0.005
    panel = series.panels["funding"]
    assert np.isnan(panel.values[0]).all()


def test_returns_cluster_have_fat_tails_and_share_factors() -> None:
    prices = Prices(alpha=0.1, beta=0.85)
    series = build_panels(12, steps=20_000, assets=30, prices=prices)
    truth = series.truth.prices
    returns = truth.returns[1:]
    unconditional = truth.loadings @ truth.loadings.T
    spread = np.sqrt(np.diag(unconditional) + truth.own**2)
    shared = (unconditional / np.outer(spread, spread))[np.triu_indices(len(spread), 1)]
    sample = np.corrcoef(returns.T)[np.triu_indices(len(spread), 1)]
    assert np.abs(sample - shared).max() < 0.12
    kurtosis = (returns**4).mean(axis=0) / (returns**2).mean(axis=0) ** 2
    assert np.median(kurtosis) > 4.0
    squares = returns[:, 0] ** 2
    lagged = np.corrcoef(squares[1:], squares[:-1])[0, 1]
    assert lagged > 0.08
    year = 365.25 * 24
    vol = returns[:, list(truth.assets).index("ETH")].std() * np.sqrt(year)
    assert vol == pytest.approx(0.7, rel=0.15)


def test_the_series_arrive_at_the_snapshot_and_fit_their_tables() -> None:
    spell = Episode(ETH, 295, size=0.02, length=5)
    history = History(300, ties=Ties(episodes=(spell,)))
    world = build_world(13, accounts=200, assets=12, venues=8, history=history)
    for name, frame in world.tables.items():
        require(schema.table(name), frame)
    market, universe = world.market(), world.universe()
    spot = world.panels["spot"]
    for asset in ("ETH", "BTC", "stETH", "USDC"):
        code = universe.code("instrument", f"coinbase:{asset}/USD")
        assert market.spot[code] == spot.values[-1, spot.labels.index(asset)]
    mark = world.panels["mark"]
    code = universe.code("instrument", ETH)
    assert market.mark[code] == pytest.approx(mark.values[-1, mark.labels.index(ETH)], rel=1e-12)
    interest = world.panels["open_interest"]
    held = world.tables["open_interest"].filter(pl.col("instrument") == ETH).sort("ts")["base"]
    assert interest.values[-1, interest.labels.index(ETH)] == pytest.approx(held[-1], rel=1e-12)
    assert world.truth.series is not None
    assert world.truth.series.ts[-1] == world.ts - world.truth.series.step_us


def test_panels_alone_carry_the_names_they_speak_of_and_fit_their_tables() -> None:
    series = build_panels(14, steps=100)
    for name, frame in series.tables.items():
        require(schema.table(name), frame)
    known = set(series.tables["instruments"]["instrument"])
    for name in ("prices", "funding", "open_interest", "depth", "volumes", "liquidations"):
        assert set(series.tables[name]["instrument"]) <= known
    assert set(series.panels) >= {"spot", "mark", "perp", "funding", "open_interest", "depth"}


def test_one_plant_does_not_disturb_another() -> None:
    plain = build_panels(15, steps=200)
    spell = Ties(episodes=(Episode(ETH, 100),))
    other = build_panels(15, steps=200, ties=spell, tandem=Tandem(correlation=0.5))
    assert (plain.panels["spot"].values[:, 1] == other.panels["spot"].values[:, 1]).all()
    same = [k for k, key in enumerate(plain.truth.basis.series) if key != ETH]
    assert (plain.truth.basis.basis[:, same] == other.truth.basis.basis[:, same]).all()
    again = build_panels(15, steps=200)
    assert all(plain.panels[name].digest == again.panels[name].digest for name in plain.panels)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build_panels(1, steps=-5), "steps was -5"),
        (lambda: Ties(half_life=0.0), "half_life was 0"),
        (lambda: build_panels(1, steps=50, ties=Ties(episodes=(Episode(ETH, 50),))), "was 50"),
        (lambda: build_panels(1, steps=50, ties=Ties(episodes=(Episode("x", 5),))), "'x'"),
        (lambda: Prices(degrees=2.0), "prices.degrees was 2"),
        (lambda: Prices(alpha=0.5, beta=0.6), "prices.beta was 0.6"),
    ],
)
def test_impossible_series_are_refused_by_name(make: object, words: str) -> None:
    with pytest.raises(StateError, match=words):
        make()  # type: ignore[operator]
