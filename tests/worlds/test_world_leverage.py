"""Leverage over time moves as planted, arrives at the book, and stays what leverage can be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.rules.margins import margins
from undertow.state import Panel, Reading
from undertow.state.conform import require
from undertow.worlds import (
    Attribution,
    Cycle,
    History,
    Mix,
    Population,
    Response,
    Tandem,
    Unwinding,
    build_panels,
    build_world,
    leverage_panel,
)


def growth(values: np.ndarray) -> np.ndarray:
    return np.diff(np.log(values), axis=0)


def panel_of(tandem: Tandem, *, nodes: int = 12, steps: int = 4_000, seed: int = 1):
    """Leverage of some nodes that answer to unrelated, moving returns."""
    rng = np.random.default_rng(seed)
    drivers = 0.01 * rng.standard_normal((steps, nodes))
    ts = 1_000_000 * np.arange(steps)
    names = [f"node {k}" for k in range(nodes)]
    return leverage_panel(seed, "test", nodes=names, drivers=drivers, ts=ts, tandem=tandem)


def without_prices(panel, truth, keep: int = 5) -> np.ndarray:
    """Residuals of growth on what a node's own price explains, by least squares, node by node."""
    grown, drivers = growth(panel.values), truth.drivers
    left = []
    for k in range(grown.shape[1]):
        r = drivers[:, k]
        lags = [np.concatenate([np.zeros(lag), r[: len(r) - lag]]) for lag in range(keep)]
        columns = [np.ones(len(r)), *lags, np.minimum(r, 0.0)]
        x = np.stack(columns, axis=1)[1:]
        left.append(grown[:, k] - x @ np.linalg.lstsq(x, grown[:, k], rcond=None)[0])
    return np.stack(left, axis=1)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_residual_growth_is_correlated_as_stated_once_prices_are_taken_out(
    correlation: float,
) -> None:
    panel, truth = panel_of(Tandem(correlation=correlation))
    error = 4.0 * (1.0 - correlation**2) / np.sqrt(len(panel) - 1)
    for sample in (truth.residual[1:], without_prices(panel, truth)):
        off = np.corrcoef(sample.T)[np.triu_indices(12, 1)]
        assert np.abs(off - correlation).max() < error + 0.01
    assert truth.residual[1:].std() == pytest.approx(truth.noise, rel=0.1)


def test_a_given_correlation_matrix_comes_back_and_singular_ones_are_taken() -> None:
    rng = np.random.default_rng(3)
    loads = rng.standard_normal((8, 3))
    loads /= np.linalg.norm(loads, axis=1, keepdims=True)
    wanted = loads @ loads.T  # rank 3
    wanted = (wanted + wanted.T) / 2.0
    np.fill_diagonal(wanted, 1.0)
    _, truth = panel_of(Tandem(correlation=wanted), nodes=8)
    error = 4.0 * (1.0 - wanted**2) / np.sqrt(3_999) + 1e-6
    assert (np.abs(np.corrcoef(truth.residual[1:].T) - wanted) < error).all()
    negative = panel_of(Tandem(correlation=-0.05), nodes=12)[1]
    off = np.corrcoef(negative.residual[1:].T)[np.triu_indices(12, 1)]
    assert off.mean() == pytest.approx(-0.05, abs=0.01)


def test_in_a_null_world_nothing_is_left_once_prices_are_taken_out() -> None:
    """Raw growth of assets is strongly correlated; what their own returns leave over is not."""
    series = build_panels(5, steps=6_000, assets=30, tandem=Tandem.null())
    panel, truth = series.panels["leverage_asset"], series.truth.leverage["leverage_asset"]
    pairs = np.triu_indices(len(panel.labels), 1)
    raw = np.corrcoef(growth(panel.values).T)[pairs]
    left = np.corrcoef(without_prices(panel, truth).T)[pairs]
    assert raw.mean() > 0.15
    assert abs(left.mean()) < 0.01
    assert np.abs(left).max() < 5.5 / np.sqrt(len(panel))
    assert (truth.correlation == np.eye(len(panel.labels))).all()
    assert truth.up != truth.down
    assert truth.lags
    spread = np.abs(truth.residual[2:]) / truth.noise
    calm = np.abs(truth.drivers[1:-1]) < truth.drivers.std() * 0.5
    assert spread[~calm].mean() > 1.15 * spread[calm].mean()


def test_growth_adds_up_from_its_parts() -> None:
    cycle = Cycle(first_trough=50, build_up=300, unwind=100)
    tandem = Tandem(correlation=0.2, cycle=cycle, unwindings=(Unwinding(700, nodes=("node 2",)),))
    panel, truth = panel_of(tandem, steps=1_500)
    require_sum_of_parts(panel, truth)


def require_sum_of_parts(panel, truth) -> None:
    pushed = truth.response + truth.reversion + truth.residual + truth.events
    parts = np.diff(truth.cycle, axis=0) + pushed[1:]
    assert np.allclose(growth(panel.values), parts, rtol=0.0, atol=1e-12)


def test_the_pull_on_growth_is_as_weak_and_the_level_as_bound_as_stated() -> None:
    """Of a walk of unit steps, reversion is 0.35 / half_life of the variance of growth."""
    quiet = Response(up=0.0, down=0.0)
    free, loose = panel_of(Tandem(response=quiet, half_life=math.inf), steps=40_000)
    bound, truth = panel_of(Tandem(response=quiet), steps=40_000)
    assert (truth.residual == loose.residual).all()
    assert (loose.reversion == 0.0).all()
    share = truth.reversion.var() / growth(bound.values).var()
    assert share == pytest.approx(math.log(2) / 2 / 1_000, rel=0.3)
    spread = truth.noise * np.sqrt(1_000 / (2 * math.log(2)))
    assert np.log(bound.values).std(axis=0).mean() == pytest.approx(spread, rel=0.15)
    assert np.log(free.values).std(axis=0).mean() > 2.0 * spread
    steps = growth(bound.values)
    assert abs(np.corrcoef(steps[1:, 0], steps[:-1, 0])[0, 1]) < 4.0 / np.sqrt(40_000)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_leverage_that_reverts_is_correlated_as_if_it_did_not(correlation: float) -> None:
    plan = Tandem(correlation=correlation, response=Response.crooked())
    held, truth = panel_of(plan, steps=20_000)
    free = panel_of(replace(plan, half_life=math.inf), steps=20_000)
    pairs = np.triu_indices(12, 1)
    with_pull = np.corrcoef(without_prices(held, truth).T)[pairs]
    without = np.corrcoef(without_prices(*free).T)[pairs]
    assert np.abs(with_pull - without).max() < 0.004  # a standard error is 0.007
    assert held.values.max() / held.values.min() < 30.0  # a kink alone would pass any bound


def resting(world) -> dict[str, dict[str, float]]:
    """Leverage by venue as the engine adds it up, and by asset from the tables alone."""
    judged = margins(world.snapshot())
    venues = dict(judged.add_up("venue").select("venue", "leverage").iter_rows())
    t = world.tables
    price = world.market().mark
    keys = world.universe().instruments
    legs = t["positions"].join(t["instruments"].select("instrument", "asset", "inverse"),
                               on="instrument", maintain_order="left")  # fmt: skip
    marks = pl.DataFrame({"instrument": keys, "mark": price})
    legs = legs.join(marks, on="instrument").filter(
        pl.col("kind").is_in(["collateral", "supply", "perp"])
    )
    size = pl.col("qty").abs() * pl.when("inverse").then(1.0).otherwise("mark")
    legs = legs.with_columns(size=size).join(
        judged.to_polars().select("account", "equity"), on="account"
    )
    behind = pl.col("equity") * pl.col("size") / pl.col("size").sum().over("account")
    of_asset = legs.with_columns(behind=behind).group_by("asset").agg(
        pl.col("size").sum() / pl.col("behind").sum()
    )  # fmt: skip
    return {"venue": venues, "asset": dict(of_asset.iter_rows())}


@pytest.mark.parametrize(("accounts", "steps"), [(5, 30), (300, 500)])
def test_leverage_ends_at_that_of_the_worlds_own_book(accounts: int, steps: int) -> None:
    population = Population(accounts, mix=Mix(options=0.0))
    tandem = Tandem(cycle=Cycle(first_trough=10, build_up=100, unwind=50))
    world = build_world(
        16, assets=12, venues=9, population=population, history=History(steps, tandem=tandem)
    )
    expected = resting(world)
    told = 0
    for name, kind in (
        ("leverage_venue", "venue"), ("leverage_protocol", "venue"), ("leverage_asset", "asset"),
    ):  # fmt: skip
        panel = world.panels[name]
        assert world.truth.series is not None
        require_sum_of_parts(panel, world.truth.series.leverage[name])
        for k, label in enumerate(panel.labels):
            found = expected[kind].get(label)
            if found:  # a maker with nothing but cash has none
                assert panel.values[-1, k] == pytest.approx(found, rel=1e-9)
                told += 1
    assert told > (10 if accounts > 5 else 2)
    assert (world.panels["leverage_protocol"].values >= 1.0).all()


@pytest.mark.parametrize("amplitude", [None, 2.5])
def test_assets_over_equity_stays_above_one_and_correlated_as_planted(
    amplitude: float | None,
) -> None:
    cycle = None if amplitude is None else Cycle(200, 700, 300, amplitude=amplitude, stagger=90)
    tandem = Tandem(correlation=0.6, response=Response.crooked(), cycle=cycle)
    world = build_world(17, accounts=400, venues=13, history=History(20_000, tandem=tandem))
    assert world.truth.series is not None
    panel, truth = world.panels["leverage_protocol"], world.truth.series.leverage[
        "leverage_protocol"
    ]  # fmt: skip
    assert (panel.values > 1.0).all()
    assert (truth.amplitude <= 1.0).all()
    assert (truth.amplitude < 1.0).any() or amplitude is None
    require_sum_of_parts(panel, truth)
    found = without_prices(panel, truth)
    without_cycle = found - np.diff(truth.cycle - truth.cycle.mean(axis=0), axis=0)
    off = np.corrcoef(without_cycle.T)[np.triu_indices(len(panel.labels), 1)]
    assert np.abs(off - 0.6).max() < 0.03
    assert without_cycle.std(axis=0) == pytest.approx(truth.noise * truth.amplitude, rel=0.1)


def test_a_protocol_to_which_nobody_owes_anything_stays_at_one() -> None:
    drivers = np.zeros((50, 2))
    panel, truth = leverage_panel(
        1, "test", nodes=["idle", "busy"], drivers=drivers, ts=np.arange(50), tandem=Tandem(),
        last=np.array([1.0, 2.0]), floor=1.0,
    )  # fmt: skip
    assert (panel.values[:, 0] == 1.0).all()
    assert truth.amplitude.tolist() == [0.0, 1.0]
    with pytest.raises(StateError, match=r"leverage of idle was to be 0\.9; it must be at least 1"):
        leverage_panel(
            1, "test", nodes=["idle", "busy"], drivers=drivers, ts=np.arange(50), tandem=Tandem(),
            last=np.array([0.9, 2.0]), floor=1.0,
        )  # fmt: skip


def test_leverage_is_published_as_readings_where_there_is_a_history() -> None:
    world = build_world(18, accounts=100, assets=8, venues=4, history=History(60))
    rows = require(schema.table("readings"), world.tables["readings"])
    assert "readings" not in build_world(18, accounts=100).tables
    for name in ("leverage_asset", "leverage_venue", "leverage_protocol"):
        panel = world.panels[name]
        mine = rows.filter(pl.col("name") == name.replace("_", "."))
        again = Panel.from_frame(name, "1", mine, series="subject", value="value")
        assert (again.select(panel.labels).values == panel.values).all()
        assert (again.ts == panel.ts).all()
        assert mine["inputs_hash"].unique().to_list() == [panel.digest]
    first = Reading(**{**rows.row(0, named=True), "ts": int(world.panels["spot"].ts[0])})
    assert (first.evidence, first.coverage, first.unit) == ("modelled", 1.0, "1")
    assert rows["definition"].str.contains("ratio of sums").all()
    alone = build_panels(18, steps=60).tables["readings"]
    assert require(schema.table("readings"), alone).height == rows.height + 60 * (
        sum(len(build_panels(18, steps=3).panels[name].labels)
            for name in ("leverage_asset", "leverage_venue", "leverage_protocol"))
        - sum(len(world.panels[name].labels)
              for name in ("leverage_asset", "leverage_venue", "leverage_protocol"))
    )  # fmt: skip


def test_drivers_correlate_as_asked_or_not_at_all() -> None:
    plan = Attribution(driver_correlation=0.0)
    with pytest.raises(StateError, match=r"driver_correlation was 0; .* can have 0\.\d+ to 0\.99"):
        panel_of(Tandem(correlation=plan), nodes=30, steps=10, seed=1)
    asked = Tandem(correlation=replace(plan, driver_correlation=0.9))
    made = panel_of(asked, nodes=30, steps=10, seed=1)[1].attribution
    assert made is not None
    between = made.driver_correlation[np.triu_indices(3, 1)].mean()
    assert between == pytest.approx(0.9, abs=1e-9)
    with pytest.raises(StateError, match=r"driver_correlation was 0\.5, of 2 nodes"):
        panel_of(Tandem(correlation=replace(plan, driver_correlation=0.5)), nodes=2, steps=10)
    for nodes in (1, 2):
        truth = panel_of(Tandem(correlation=Attribution()), nodes=nodes, steps=10)[1]
        assert truth.attribution is not None
        assert (truth.attribution.driver_correlation == np.eye(3)).all()


@pytest.mark.parametrize("stagger", [0, 40])
def test_turning_points_are_extremes_of_the_noiseless_path(stagger: int) -> None:
    cycle = Cycle(first_trough=80, build_up=300, unwind=120, amplitude=0.9, stagger=stagger)
    panel, truth = panel_of(Tandem(cycle=cycle), steps=1_600)
    assert len(truth.turning_points) > 5 * 12
    for point in truth.turning_points:
        path = truth.cycle[:, truth.nodes.index(point.series)]
        near = path[max(point.step - 40, 0) : point.step + 41]
        assert path[point.step] == (near.max() if point.kind == "peak" else near.min())
        assert abs(abs(path[point.step]) - 0.45) < 1e-12
        assert panel.ts[point.step] == point.ts
    steps = {p.step for p in truth.turning_points if p.series == truth.nodes[0]}
    others = {p.step for p in truth.turning_points if p.series == truth.nodes[-1]}
    assert (steps == others) is (stagger == 0)


def test_the_noise_ratio_is_the_walk_of_a_phase_over_the_amplitude() -> None:
    cycle = Cycle(first_trough=10, build_up=300, unwind=100, amplitude=0.8, noise_ratio=0.25)
    _, truth = panel_of(Tandem(cycle=cycle), steps=2_000)
    assert truth.noise * np.sqrt(200) / 0.8 == pytest.approx(0.25)


def test_unwindings_hit_their_nodes_at_their_date_with_their_strength() -> None:
    tandem = Tandem(unwindings=(Unwinding(500, strength=6.0, share=0.5), Unwinding(900, length=3)))
    panel, truth = panel_of(tandem, steps=1_200)
    first, second = truth.unwindings
    assert (len(first.nodes), len(second.nodes)) == (6, 7)
    hit = [truth.nodes.index(node) for node in first.nodes]
    spared = [k for k in range(12) if k not in hit]
    left = without_prices(panel, truth)[499] / truth.noise  # differences are one row short
    assert left[hit].mean() == pytest.approx(-6.0, abs=4.0 / np.sqrt(6))
    assert abs(left[spared].mean()) < 4.0 / np.sqrt(6)
    assert (truth.events[500, hit] == -6.0 * truth.noise).all()
    assert (truth.events != 0).sum() == 6 + 3 * 7
    assert panel.ts[500] == first.ts


@pytest.mark.parametrize("wanted", [None, 0.7])
def test_attributed_correlation_is_the_stated_sum_of_its_drivers(wanted: float | None) -> None:
    plan = Attribution((0.3, 0.25, 0.15), base=0.05, driver_correlation=wanted)
    _, truth = panel_of(Tandem(correlation=plan), nodes=30, steps=6_000)
    made = truth.attribution
    assert made is not None
    pairs = np.triu_indices(30, 1)
    stated = 0.05 + np.einsum("m,mij->ij", made.coefficients, made.drivers)
    assert np.allclose(stated[pairs], truth.correlation[pairs])
    assert np.linalg.eigvalsh(truth.correlation).min() > -1e-10
    x = np.stack([np.ones(435), *(driver[pairs] for driver in made.drivers)], axis=1)
    sample = np.corrcoef(truth.residual[1:].T)[pairs]
    found = np.linalg.lstsq(x, sample, rcond=None)[0]
    assert np.abs(found - [0.05, 0.3, 0.25, 0.15]).max() < 0.05
    between = np.corrcoef(x[:, 1:].T)
    assert np.allclose(between, made.driver_correlation)
    if wanted is not None:
        assert between[np.triu_indices(3, 1)].mean() == pytest.approx(wanted, abs=1e-6)


BAD = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: panel_of(Tandem(correlation=BAD), nodes=3), "eigenvalue of correlation"),
        (lambda: panel_of(Tandem(correlation=BAD), nodes=4), "correlation is"),
        (lambda: panel_of(Tandem(correlation=1.5)), "correlation was 1.5"),
        (lambda: panel_of(Tandem(correlation=-0.5)), "correlation was -0.5"),
        (lambda: panel_of(Tandem(unwindings=(Unwinding(9_999),))), "unwinding.step was 9999"),
        (lambda: panel_of(Tandem(cycle=Cycle(9_999, 5, 5))), "cycle.first_trough was 9999"),
        (lambda: panel_of(Tandem(unwindings=(Unwinding(5, nodes=("x",)),))), "'x'"),
        (lambda: build_panels(1, steps=50, tandem={"leverage_moon": Tandem()}), "'leverage_moon'"),
        (lambda: Tandem(noise=0.0), "tandem.noise was 0"),
        (lambda: Tandem(half_life=0.0), "tandem.half_life was 0"),
        (lambda: Attribution((0.9, 0.9, 0.1)), "coefficients of attribution was 1.9"),
        (lambda: Response(vol_slope=-1.0), "vol_slope was -1"),
        (lambda: Cycle(0, 1, 5), "cycle.build_up was 1"),
    ],
)
def test_impossible_leverage_is_refused_by_name(make: object, words: str) -> None:
    with pytest.raises(StateError, match=words):
        make()  # type: ignore[operator]
