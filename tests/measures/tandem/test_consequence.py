"""A state that foretells correlation is found, one that does not is not; nothing looks ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from undertow import schema
from undertow.errors import StateError
from undertow.measures.study import Study
from undertow.measures.tandem.consequence import consequence
from undertow.measures.tandem.foresight import PLACEBO, PLAIN, TANDEM, tandem_state
from undertow.measures.tandem.history import LeverageHistory
from undertow.state import Panel

HOUR = 3_600_000_000


def spells(rng: np.random.Generator, steps: int, length: float) -> np.ndarray:
    """A state that is on or off, changing with chance 1 / length."""
    return np.cumsum(rng.random(steps) < 1.0 / length) % 2 == 1


def alike(rng: np.random.Generator, columns: int, correlation: np.ndarray) -> np.ndarray:
    """Standard normals whose common correlation changes from row to row."""
    rows, share = len(correlation), correlation[:, None]
    common, own = rng.standard_normal((rows, 1)), rng.standard_normal((rows, columns))
    return np.sqrt(share) * common + np.sqrt(1.0 - share) * own


def history_of(
    seed: int,
    *,
    foretells: bool,
    steps: int = 1_000,
    nodes: int = 30,
    assets: int = 6,
    called: str = "leverage",
) -> LeverageHistory:
    """Growth that is alike in some spells; returns are so a step later, or in spells of their own.

    The growth of leverage answers to no price at all.
    """
    rng = np.random.default_rng([seed, 7])
    tight = spells(rng, steps, 10.0)
    told = np.concatenate([[False], tight[:-1]]) if foretells else spells(rng, steps, 10.0)
    growth = 0.01 * alike(rng, nodes, np.where(tight, 0.8, 0.05))
    moves = 0.01 * alike(rng, assets, np.where(told, 0.9, 0.0))
    ts = HOUR * np.arange(steps + 1)
    names, coins = [f"n{k}" for k in range(nodes)], [f"a{k}" for k in range(assets)]
    level, price = (
        np.exp(np.vstack([np.zeros(each.shape[1]), each.cumsum(axis=0)]))
        for each in (growth, moves)
    )
    baskets = {name: {coins[k % assets]: 1.0} for k, name in enumerate(names)}
    return LeverageHistory.of(
        Panel.from_arrays(called, "1", ts, names, 3.0 * level),
        Panel.from_arrays("prices", "usd", ts, coins, 100.0 * price),
        baskets=baskets,
        called=called,
    )


def require_publishable(study: Study) -> None:
    assert study.to_polars().columns == list(schema.table("readings").column_names)
    for table in study.tables.values():
        floats = table.select(pl.selectors.float())
        assert not floats.select(pl.all().is_nan().any()).transpose().to_series().any()
    assert all(said.endswith(".") and " nan" not in said for said in study.says)


@pytest.fixture(scope="module")
def found() -> Study:
    history = history_of(1, foretells=True, steps=3_000)
    return consequence(history, tail=0.1, half_life=3.0, every=1_000)


@pytest.fixture(scope="module")
def null() -> Study:
    return consequence(history_of(1, foretells=False), tail=0.05, half_life=3.0, every=500)


def test_tandem_that_foretells_correlation_makes_better_forecasts(found: Study) -> None:
    assert found.says[0].startswith("Knowing tandem of leverage makes tail forecasts better")
    gain = found.reading("tandem.score_gain")
    assert found.headline is gain
    assert gain.value is not None
    assert gain.high is not None
    assert gain.high < 0.0
    assert gain.evidence == "modelled"
    variance = found.reading("tandem.variance_gain")
    assert variance.high is not None
    assert variance.high < 0.0
    assert "in 3 of 3 refits" in found.says[1]


def test_tandem_of_long_ago_does_not_help(found: Study) -> None:
    scores = {row["model"]: row for row in found.tables["scores"].to_dicts()}
    assert list(scores) == [PLAIN, TANDEM, PLACEBO]
    assert scores[TANDEM]["p_value"] < 0.1
    assert scores[TANDEM]["score"] < scores[PLACEBO]["score"]


def test_hits_come_about_as_often_as_they_should(found: Study) -> None:
    for name in (PLAIN, TANDEM):
        rate = found.reading("tandem.hit_rate", name)
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low - 0.02 < 0.1 < rate.high + 0.02
    assert found.tables["scores"]["expected"].to_list() == pytest.approx([250.0] * 3)


def test_the_forecast_of_tomorrow_is_told_with_its_state(found: Study) -> None:
    for name in (PLAIN, TANDEM):
        var = found.reading("tandem.value_at_risk", name).value
        es = found.reading("tandem.expected_shortfall", name).value
        assert var is not None
        assert es is not None
        assert 0.0 < var < es < 0.1
    assert found.reading("tandem.state").value is not None
    require_publishable(found)


def test_tandem_that_says_nothing_is_no_better_than_plain(null: Study) -> None:
    assert null.says[0].startswith("Knowing tandem of leverage is no better than plain cDCC")
    require_publishable(null)


def test_the_test_keeps_its_size_where_tandem_says_nothing() -> None:
    better = 0
    for seed in range(2, 8):
        history = history_of(seed, foretells=False, steps=700, nodes=10, assets=4)
        study = consequence(history, tail=0.1, window=400, every=300, half_life=3.0)
        better += "makes tail forecasts better" in study.says[0]
    assert better <= 1


def test_no_forecast_knows_what_comes_after_it() -> None:
    history = history_of(3, foretells=True, steps=700, nodes=8, assets=3)
    cut = history.until(int(history.ts[-101]))
    options = {"tail": 0.1, "window": 300, "every": 200, "half_life": 3.0}
    whole, short = consequence(history, **options), consequence(cut, **options)
    early = short.tables["forecasts"]
    same = whole.tables["forecasts"].head(early.height)
    for name in ("state", "var_plain", "es_plain", "var_tandem", "es_tandem"):
        assert same[name].to_list() == pytest.approx(early[name].to_list(), rel=1e-9), name
    last = short.reading("tandem.value_at_risk", PLAIN).value
    assert last == pytest.approx(whole.tables["forecasts"]["var_plain"][early.height])


def test_the_state_follows_how_alike_growth_is() -> None:
    rng = np.random.default_rng([1, 7])
    tight = spells(rng, 1_000, 10.0)
    state = tandem_state(history_of(1, foretells=True), window=500, every=100, half_life=3.0)
    seen = ~np.isnan(state)
    assert seen[100:].all()
    assert state[seen & tight].mean() > 0.5 > 0.35 > state[seen & ~tight].mean()


def test_prices_alone_make_no_state() -> None:
    history = history_of(4, foretells=False, nodes=10)
    moved = history.growth - 0.8 * history.returns  # leverage answers to prices in all nodes
    path = np.exp(np.vstack([np.zeros(10), moved.cumsum(axis=0)]))
    answering = replace(
        history, level=Panel.from_arrays("leverage", "1", history.level.ts, history.labels, path)
    )
    plain, purged = (
        np.nanmean(tandem_state(each, window=500, every=100, half_life=15.0))
        for each in (history, answering)
    )
    assert purged == pytest.approx(plain, abs=0.02)


def test_too_few_steps_or_assets_cannot_tell_and_say_so() -> None:
    history = history_of(5, foretells=False, steps=300, nodes=4, assets=3)
    for study in (
        consequence(history),
        consequence(history, window=200, weights={"a0": 1.0}),
    ):
        assert "cannot be told" in study.says[0]
        assert study.headline is not None
        assert study.headline.value is None
        assert not study.tables
        require_publishable(study)


def test_an_asset_that_stands_still_is_left_out_and_a_proxy_keeps_its_name() -> None:
    given = history_of(6, foretells=False, steps=600, nodes=5, assets=3, called="utilisation")
    market = given.market
    values = np.column_stack([market.values, np.zeros(len(market))])
    wide = Panel.from_arrays("returns", "1", market.ts, [*market.labels, "USD"], values)
    study = consequence(replace(given, market=wide), tail=0.1, window=300, every=300)
    assert study.left_out == {"returns of USD": "constant"}
    words = (study.title, study.how_to_read, study.misleads, *study.says)
    said = " ".join((*words, *(reading.definition for reading in study.readings)))
    assert "leverage" not in said.lower()
    assert "utilisation" in said
    require_publishable(study)


def test_weights_are_those_of_the_portfolio() -> None:
    history = history_of(7, foretells=False, steps=500, nodes=4, assets=3)
    options = {"tail": 0.1, "window": 400, "every": 100}
    study = consequence(history, weights={"a0": 3.0, "a1": -1.0}, **options)
    market = history.market.values
    expected = -(0.75 * market[400:, 0] - 0.25 * market[400:, 1])
    assert study.tables["forecasts"]["loss"].to_list() == pytest.approx(expected.tolist())
    with pytest.raises(StateError, match="holds GOLD"):
        consequence(history, weights={"GOLD": 1.0})


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"tail": 0.6}, "tail was 0.6"),
        ({"window": 100}, "window was 100"),
        ({"every": 0}, "every was 0"),
        ({"half_life": 0.0}, "half_life was 0"),
    ],
)
def test_impossible_options_are_refused(option: dict[str, float], words: str) -> None:
    history = history_of(8, foretells=False, steps=300, nodes=3, assets=2)
    with pytest.raises(StateError, match=words.replace(".", r"\.")):
        consequence(history, **option)


def test_money_and_copies_are_not_in_the_portfolio_unless_asked_for() -> None:
    history = history_of(9, foretells=False, steps=500, nodes=4, assets=3)
    market, rng = history.market, np.random.default_rng(1)
    noise = 1e-5 * rng.standard_normal((len(market), 2))
    more = np.column_stack([market.values, noise[:, 0], market.values[:, 0] + noise[:, 1]])
    wide = Panel.from_arrays("returns", "1", market.ts, [*market.labels, "USDC", "wa0"], more)
    options = {"tail": 0.1, "window": 300, "every": 300}
    study = consequence(replace(history, market=wide), **options)
    assert study.left_out == {
        "returns of USDC": "it hardly moves, as money does",
        "returns of wa0": "it moves as a0 does",
    }
    plain = consequence(history, **options)
    assert study.tables["forecasts"].equals(plain.tables["forecasts"])
    asked = consequence(replace(history, market=wide), weights={"a0": 1.0, "USDC": 1.0}, **options)
    assert asked.left_out == {}
