"""How much leverage is wanted: ranks by counting, bands that hold, states, what is not known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import beta

from crowds import crowd
from undertow.econometrics.standing import ranks_at, standing
from undertow.errors import EstimationError, MisalignedState, StateError
from undertow.measures.crowding.appetite import chained, weighed
from undertow.measures.crowding.demand import demand
from undertow.measures.crowding.markets import HOUR_US, MarketPast
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel
from undertow.worlds import build_world, tiny_world

NAN = float("nan")
STEPS = 400


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- the estimator


def test_a_rank_is_the_share_of_the_past_below_with_ties_by_half() -> None:
    past = np.tile([1.0, 2.0, 2.0, 5.0], 20)
    found = standing(np.append(past, 2.0)[:, None], rng=rng(), least=2)
    assert found.rank[0] == pytest.approx(0.25 + 0.5 * 0.5)
    assert found.low[0] <= found.rank[0] <= found.high[0]


def test_a_mean_of_ranks_counts_a_group_once() -> None:
    past = rng(1).standard_normal((300, 3))
    now = np.array([[9.0, -9.0, 9.0]])  # ranks 1, 0, 1
    alone = standing(np.vstack([past, now]), rng=rng())
    grouped = standing(np.vstack([past, now]), rng=rng(), groups=(0, 1, 0))
    assert alone.whole == pytest.approx(2.0 / 3.0)
    assert grouped.whole == pytest.approx(0.5)


def test_above_all_of_the_past_is_as_sure_as_its_length_allows() -> None:
    ends = []
    for length in (100, 500):
        past = rng(2).standard_normal(length)
        found = standing(np.append(past, 99.0)[:, None], rng=rng(), level=0.9)
        assert (found.rank[0], found.high[0]) == (1.0, 1.0)
        ends.append(found.low[0])
        tie = max(float(np.corrcoef(past[1:], past[:-1])[0, 1]), 0.0)
        runs = length * (1.0 - tie) / (1.0 + tie)
        # Jeffreys: the 5 % quantile of a beta law of runs + 1/2 and 1/2
        assert found.low[0] == pytest.approx(beta.ppf(0.05, runs + 0.5, 0.5))
        assert found.whole_low == pytest.approx(found.low[0], abs=0.5 * (1.0 - found.low[0]))
    assert ends[0] < ends[1] < 1.0


def test_what_cannot_be_ranked_says_why_and_the_rest_is_ranked() -> None:
    x = np.column_stack([
        rng(3).standard_normal(200), np.full(200, 0.7), np.full(200, NAN),
        np.append(rng(4).standard_normal(199), NAN),
        np.append(np.full(190, NAN), np.arange(10.0)),
        np.repeat(np.arange(20.0), 10),
    ])  # fmt: skip
    found = standing(x, rng=rng(), least=60)
    assert found.reasons == (
        "", "constant", "not known", "not known now", "too short: 9 values, 60 are needed",
        "too short: 20 values, 60 are needed",
    )  # fmt: skip
    assert np.isfinite(found.rank[0])
    assert np.isnan(found.rank[1:]).all()
    assert found.whole == found.rank[0]
    nothing = standing(np.full((50, 2), NAN), rng=rng())
    assert np.isnan(nothing.whole)
    with pytest.raises(EstimationError, match="window was 5"):
        standing(x, rng=rng(), window=5)


def test_only_what_lies_before_and_in_the_window_counts() -> None:
    x = rng(5).standard_normal((300, 2)).cumsum(axis=0)
    rows = [150, 299]
    told = ranks_at(x, rows, window=100)
    for i, row in enumerate(rows):
        alone = standing(x[: row + 1], rng=rng(), window=100)
        np.testing.assert_allclose(told[i], alone.rank)
        by_hand = (x[row - 100 : row] < x[row]).mean(axis=0)
        np.testing.assert_allclose(told[i], by_hand)


def test_the_band_of_a_rank_holds_the_truth_though_levels_are_remembered() -> None:
    inside, trials, draw = 0, 80, rng(6)
    for _ in range(trials):
        noise = draw.standard_normal(401)
        x = np.empty(401)
        x[0] = noise[0]
        for t in range(1, 401):
            x[t] = 0.8 * x[t - 1] + 0.6 * noise[t]  # of variance 1
        found = standing(x[:, None], rng=draw, reps=49)
        inside += bool(found.low[0] <= ndtr(x[-1]) <= found.high[0])
    assert inside / trials >= 0.87  # 0.9 is nominal; bands of what is remembered are wide


# ---------------------------------------------------------------- components


def test_open_interest_that_comes_into_view_is_no_growth() -> None:
    held = np.array([[100.0, NAN], [110.0, NAN], [110.0, 900.0], [121.0, 900.0], [NAN, 990.0]])
    level = chained(held)
    growth = np.exp(np.diff(level))
    np.testing.assert_allclose(growth, [1.1, 1.0, (121 + 900) / (110 + 900), 1.1])
    assert level[-1] == 0.0
    assert np.isnan(chained(np.full((3, 2), NAN))).all()
    broken = chained(np.array([[5.0], [NAN], [5.0], [10.0]]))  # nothing links the first to the rest
    np.testing.assert_allclose(broken, [NAN, NAN, -np.log(2.0), 0.0])


def test_a_mean_is_by_weight_and_plain_where_no_weight_is_known() -> None:
    values = np.array([[1.0, 3.0], [1.0, NAN], [1.0, 3.0], [NAN, NAN]])
    weights = np.array([[1.0, 3.0], [1.0, 3.0], [NAN, NAN], [1.0, 1.0]])
    np.testing.assert_allclose(weighed(values, weights), [2.5, 1.0, 2.0, NAN])
    np.testing.assert_allclose(weighed(values, weights, alone=False), [2.5, 1.0, NAN, NAN])


# ---------------------------------------------------------------- the study


@pytest.fixture(scope="module")
def book() -> Snapshot:
    return tiny_world().snapshot()


PERP = "hyperliquid:BTC/USDC:USDC"


def made(
    book: Snapshot, *, funding: np.ndarray | None = None, interest: np.ndarray | None = None
) -> MarketPast:
    """Hourly rates and open interest of the one perp, up to the book."""
    ts = book.ts - HOUR_US * np.arange(STEPS - 1, -1, -1)

    def panel(name: str, column: np.ndarray | None) -> Panel:
        labels = [] if column is None else [PERP]
        values = np.empty((STEPS, 0)) if column is None else column[:, None]
        return Panel.from_arrays(name, "1", ts, labels, values)

    empty = {n: panel(n, None)
             for n in ("basis", "utilisation", "supplied", "long_short", "sentiment")}  # fmt: skip
    return MarketPast(book.universe, book.ts, panel("funding", funding),
                      panel("open_interest", interest), **empty)  # fmt: skip


def planted(book: Snapshot, rank: float) -> MarketPast:
    """A past above `rank` of which everything stands now, by construction."""
    draw = rng(7)
    rates = draw.standard_normal(STEPS) * 1e-5
    rates[-1] = np.quantile(rates[:-1], rank)
    level = np.exp(draw.standard_normal(STEPS) * 0.05)
    level[-1] = np.quantile(level[:-1], rank)
    return made(book, funding=rates, interest=100.0 * level)


@pytest.mark.parametrize(
    ("rank", "state"), [(0.05, "quiet"), (0.5, "usual"), (0.88, "hot"), (0.995, "stretched")]
)
def test_a_planted_place_is_found_and_called_by_its_name(
    book: Snapshot, rank: float, state: str
) -> None:
    found = demand(book, planted(book, rank), change_us=400 * HOUR_US)  # no change can be told
    node = found.tables["nodes"].row(0, named=True)
    assert node["rank"] == pytest.approx(rank, abs=0.01)
    assert node["state"] == state
    assert node["known"] == 2
    assert node["missing"] == "basis, change of open interest, long/short, utilisation"
    assert found.headline is not None
    assert found.headline.value == node["rank"]
    assert found.headline.low is not None
    assert found.says[0].startswith(f"Demand for leverage is {state}:")
    assert "long/short and utilisation cannot be told" in found.says[0]
    asset = found.tables["nodes"].row(1, named=True)
    assert (asset["node"], asset["rank"]) == ("BTC", node["rank"])  # the one asset is everything


def test_funding_is_of_a_year_and_the_change_of_a_week(book: Snapshot) -> None:
    growth = np.concatenate([np.full(STEPS - 1, 1.0), [1.5]])
    wiggle = 1.0 + 0.01 * np.sin(np.arange(STEPS))
    wiggle[-1] = wiggle[-1 - 7 * 24]
    past = made(book, funding=np.linspace(0.0, 1e-5, STEPS), interest=growth * wiggle)
    found = demand(book, past)
    assert found.reading("crowding.funding").value == pytest.approx(1e-5 * 8_760)
    parts = found.tables["components"]
    change = parts.row(3, named=True)
    assert change["component"] == "change of open interest"
    assert change["value"] == pytest.approx(np.log(1.5))
    assert change["rank"] == 1.0


def test_nothing_later_than_the_book_is_used(book: Snapshot) -> None:
    past = planted(book, 0.6)
    earlier = replace(book, ts=book.ts - 100 * HOUR_US)
    whole, cut = (demand(earlier, each) for each in (past, past.until(earlier.ts)))
    assert whole.to_polars().equals(cut.to_polars())
    assert whole.tables["components"].equals(cut.tables["components"])


def test_a_window_forgets_what_is_older(book: Snapshot) -> None:
    level = np.concatenate([np.full(200, 9.0), np.full(200, 1.0)]) + rng(8).normal(0, 0.1, STEPS)
    level[-1] = 5.0
    past = made(book, funding=level)
    assert demand(book, past).headline.value == pytest.approx(199 / 399)  # type: ignore[union-attr]
    short = demand(book, past, window_us=150 * HOUR_US)
    assert short.headline is not None
    assert short.headline.value == 1.0
    assert short.says[1].endswith("the last 6.2 days counts.")


def test_a_constant_past_and_gaps_are_stated(book: Snapshot) -> None:
    still = demand(book, made(book, funding=np.full(STEPS, 1e-5)))
    assert still.headline is not None
    assert still.headline.value is None
    assert "funding: constant" in still.says[0]
    assert still.left_out == {"BTC": "constant"}
    holes = np.where(np.arange(STEPS) % 3 == 0, NAN, rng(9).standard_normal(STEPS))
    holes[-1] = 99.0
    assert demand(book, made(book, funding=holes)).headline.value == 1.0  # type: ignore[union-attr]
    blank = demand(book, made(book, funding=np.full(STEPS, NAN)))
    assert "nothing of it was seen" in blank.says[0]


def test_without_a_past_the_book_says_what_it_shows_of_now() -> None:
    snapshot = build_world(3, accounts=80, assets=8, venues=6).snapshot()
    found = demand(snapshot)
    assert found.headline is not None
    assert found.headline.value is None
    assert found.says[0].endswith("there is no past of markets.")
    most = found.tables["now"]["asset"][0]
    assert found.says[1].startswith(f"Of now alone: {most} is held most")
    reserves = found.tables["reserves"]
    pool, universe = snapshot.liquidity, snapshot.universe
    k = universe.code("instrument", "aave-v3:USDC")
    row = reserves.filter(reserve="aave-v3:USDC").row(0, named=True)
    assert row["utilisation"] == pytest.approx(pool.borrowed[k] / pool.supplied[k])
    kink = snapshot.rules.params.by_instrument("optimal_utilisation")[k]
    assert row["to_kink"] == pytest.approx(kink - row["utilisation"])
    told = reserves.drop_nulls("kink")
    beyond = told.filter(told["utilisation"] >= told["kink"])["supplied_usd"].sum()
    share = found.reading("crowding.past_kink").value
    assert share == pytest.approx(beyond / told["supplied_usd"].sum())
    now = found.tables["now"]
    assert now["long_usd"].to_numpy() == pytest.approx(now["short_usd"].to_numpy())


def test_no_proxy_is_called_leverage(book: Snapshot) -> None:
    found = demand(book, planted(book, 0.9))
    for reading in found.readings:
        assert "leverage" not in reading.definition
    assert "None of it is leverage" in found.misleads


def test_moods_count_once_and_ratios_and_reserves_count_each(book: Snapshot) -> None:
    draw = rng(11)
    past = made(book, funding=draw.standard_normal(STEPS))
    ts = past.instants

    def panel(name: str, labels: list[str], now: list[float]) -> Panel:
        values = draw.standard_normal((STEPS, len(labels)))
        values[-1] = now
        return Panel.from_arrays(name, "1", ts, labels, values)

    lent = panel("utilisation", ["aave-v3:USDC"], [99.0])
    full = replace(
        past,
        sentiment=panel("sentiment", ["fear", "greed", "fear of BTC"], [99.0, 99.0, -99.0]),
        long_short=panel("long_short", [PERP], [-99.0]),
        utilisation=lent,
        supplied=Panel.from_arrays("supplied", "base", ts, lent.labels, np.ones((STEPS, 1))),
    )
    found = demand(book, full)
    funding = demand(book, past).headline
    assert found.headline is not None
    assert found.headline.value is not None
    assert funding is not None
    assert funding.value is not None
    # funding, long/short at the bottom, utilisation at the top, moods of everything at the top
    assert found.headline.value == pytest.approx((funding.value + 0.0 + 1.0 + 1.0) / 4.0)
    btc = found.reading("crowding.demand", "BTC").value
    assert btc == pytest.approx((funding.value + 0.0 + 0.0) / 3.0)
    usdc = found.tables["components"].filter(node="USDC", component="utilisation")
    assert usdc["rank"].item() == 1.0


def test_a_past_of_other_names_is_refused(book: Snapshot) -> None:
    with pytest.raises(MisalignedState, match="different universes"):
        demand(crowd([0.1], [1_000.0], share=0.5), made(book))


def test_misuse_is_refused(book: Snapshot) -> None:
    with pytest.raises(StateError, match="it must be a MarketPast"):
        demand(book, book)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="change_us was 0"):
        demand(book, None, change_us=0)
