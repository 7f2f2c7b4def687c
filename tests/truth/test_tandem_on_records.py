"""Recorded open interest and utilisation, as proxies of leverage: what moves together, what not.

Open interest is counted in contracts, which no price moves: a coin-margined contract is ten or a
hundred dollars, a USDT-margined one is a coin, so the record's dollars are divided by the price.
Utilisation is borrowed over supplied of one reserve; the price of the token cancels. No option was
chosen for what it finds, nor for a date: options are the defaults, and what happened on the dates
found was looked up afterwards, for `docs/methods/tandem-evidence.md`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import hypergeom

import undertow as ut
from recorded import recorded
from undertow.econometrics.bootstrap import stationary_bootstrap
from undertow.econometrics.coincidence import coincidences
from undertow.econometrics.comovement import MeanCorrelation, mean_correlation_test
from undertow.econometrics.purging import Purged, purge
from undertow.measures.study import Study
from undertow.measures.tandem import Layer, LeverageHistory, Links
from undertow.measures.tandem.extremes import exceedance_shape
from undertow.state import Panel, Reading

Say = Callable[..., None]
OWN, RAW = Layer.OWN.value, Layer.RAW.value
COIN_MARGINED = "USD_PERP"
FACE_USD = 10.0  # of a coin-margined contract; of bitcoin ten times that
RUN_IN = pl.duration(days=30)  # first days of a reserve, in which it is filled
ALIKE = 1e-3  # of a day's return


# ---------------------------------------------------------------- what was recorded


def day_of(name: str = "ts") -> pl.Expr:
    return pl.col(name).dt.truncate("1d")


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    """Daily last, lowest and highest price of each coin, out of bars of four hours."""
    made = recorded("binance_perp_4h/perp_4h").sort("ts")
    coin = pl.col("symbol").str.strip_suffix("USDT")
    return (
        made.group_by(coin.alias("coin"), day_of())
        .agg(pl.col("close").last(), pl.col("low").min(), pl.col("high").max())
        .sort("coin", "ts")
    )


@pytest.fixture(scope="module")
def every_contract(bars: pl.DataFrame) -> pl.DataFrame:
    """Open interest of coins with prices, in units that no price moves; some begin late."""
    days = recorded("open_interest_daily/open_interest_1d").join(bars, on=["coin", "ts"])
    coin_margined = pl.col("coinalyze_symbol").str.contains(COIN_MARGINED)
    units = pl.when(coin_margined).then("oi_close").otherwise(pl.col("oi_close") / pl.col("close"))
    return days.with_columns(units=units, coin_margined=coin_margined).sort("ts")


@pytest.fixture(scope="module")
def contracts(every_contract: pl.DataFrame) -> pl.DataFrame:
    """Those with a long record."""
    early = pl.col("ts").min().over("coin") < pl.datetime(2022, 1, 1, time_zone="UTC")
    return every_contract.filter(early)


@pytest.fixture(scope="module")
def open_interest(contracts: pl.DataFrame, bars: pl.DataFrame) -> LeverageHistory:
    return history_of_contracts(contracts, bars)


def history_of_contracts(contracts: pl.DataFrame, bars: pl.DataFrame) -> LeverageHistory:
    levels = contracts.pivot("coin", index="ts", values="units", sort_columns=True).sort("ts")
    return history_of(levels, closes(bars, levels.columns[1:]), "open interest")


@pytest.fixture(scope="module")
def reserves() -> pl.DataFrame:
    """Utilisation of each reserve at the last hour of each day at which it was seen anew."""
    hours = recorded("aave_reserves_hourly/aave_reserves_1h").sort("ts")
    lent = (pl.col("borrowed_usd") > 0.0) & (pl.col("borrowed_usd") <= pl.col("supplied_usd"))
    filled = pl.col("ts") >= pl.col("ts").min().over("market") + RUN_IN
    return (
        hours.filter(lent & ~pl.col("stale") & filled)
        .group_by(pl.col("market").str.strip_prefix("aave_"), day_of())
        .agg((pl.col("borrowed_usd") / pl.col("supplied_usd")).last().alias("level"))
    )


@pytest.fixture(scope="module")
def utilisation(reserves: pl.DataFrame, bars: pl.DataFrame) -> dict[str, LeverageHistory]:
    """The old reserves over their whole record, all but the latest, and all nine."""
    spans = {
        "v2": ["v2_DAI", "v2_USDC", "v2_USDT", "v2_WETH"],
        "v2 and v3": [f"v{k}_{name}" for k in (2, 3) for name in ("DAI", "USDC", "USDT", "WETH")],
    }
    spans["all nine"] = [*spans["v2 and v3"], "v3_USDE"]
    begun = dict(reserves.group_by("market").agg(pl.col("ts").min()).iter_rows())
    wide = reserves.pivot("market", index="ts", values="level").sort("ts")
    found = {}
    for name, markets in spans.items():
        whole = wide.filter(pl.col("ts") >= max(begun[each] for each in markets))
        baskets = {
            each: {"ETH": 1.0} if each.endswith("WETH") else {"ETH": 0.5, "BTC": 0.5}
            for each in markets
        }
        found[name] = history_of(
            whole.select("ts", *markets), closes(bars, ["BTC", "ETH"]), "utilisation", baskets
        )
    return found


@pytest.fixture(scope="module")
def liquidated() -> pl.DataFrame:
    """Collateral seized by Aave, in USD, of all reserves of the record, day by day."""
    hours = recorded("aave_reserves_hourly/aave_reserves_1h")
    return hours.group_by(day_of()).agg(pl.col("liquidated_usd").sum().alias("usd"))


def closes(bars: pl.DataFrame, coins: list[str]) -> pl.DataFrame:
    """A column a coin; where days are missing the price goes on from where it was."""
    wide = bars.pivot("coin", index="ts", values="close").select("ts", *coins).sort("ts")
    step = pl.when(unbroken()).then(pl.col(coins).log().diff()).otherwise(0.0)
    held = pl.col(coins).drop_nulls().first()
    return wide.with_columns(
        pl.when(pl.col(coins).is_not_null()).then(held * step.fill_null(0.0).cum_sum().exp())
    )


def unbroken() -> pl.Expr:
    """Rows whose day before is there: what was withheld makes the others."""
    return (pl.col("ts").diff() <= pl.duration(days=1)).fill_null(value=True)


def history_of(
    levels: pl.DataFrame,
    prices: pl.DataFrame,
    called: str,
    baskets: dict[str, dict[str, float]] | None = None,
) -> LeverageHistory:
    """A history without growth over days that are missing."""
    nodes = [name for name in levels.columns if name != "ts"]
    kept = levels.with_columns(pl.when(unbroken()).then(pl.col(nodes)))
    level, price = panel("levels", kept), panel("prices", prices)
    return LeverageHistory.of(level, price, baskets=baskets, called=called)


def panel(name: str, wide: pl.DataFrame) -> Panel:
    values = wide.drop("ts").cast(pl.Float64)
    return Panel.from_arrays(
        name, "1", wide["ts"].to_physical().to_numpy(), values.columns,
        values.fill_null(float("nan")).to_numpy(),
    )  # fmt: skip


def banded(reading: Reading) -> str:
    value = f"{reading.value:.3f}"
    return value if reading.low is None else f"{value} ({reading.low:.3f} to {reading.high:.3f})"


def layers(study: Study) -> dict[str, str]:
    """The mean correlation of each layer, to be printed."""
    return {
        row["layer"]: "{mean_correlation:.3f} ({low:.3f} to {high:.3f}), p {p_value:.3f}, "
        "{nodes} nodes, {steps} steps".format(**row)
        for row in study.tables["layers"].to_dicts()
    }


def p_of(study: Study, layer: str) -> float:
    found: float = study.tables["layers"].filter(layer=layer)["p_value"].item()
    return found


def dates(study: Study) -> dict[str, str]:
    return {
        f"{row['peak']:%Y-%m-%d}": f"{row['count']} nodes, p {row['p_value']:.3f}"
        for row in study.tables["events"].to_dicts()
    }


# ---------------------------------------------------------------- the units


def test_open_interest_is_counted_in_units_that_prices_do_not_move(
    contracts: pl.DataFrame, say: Say
) -> None:
    """Dollars of coin-margined contracts are whole contracts; the others are marked at the close.

    Where a day opens with the contracts of the day before at this day's close, the jump between
    the two is the day's return, to the last digit.
    """
    ours = contracts.sort("coin", "ts").with_columns(
        move=pl.col("close").log().diff().over("coin"),
        jump=(pl.col("oi_open") / pl.col("oi_close").shift().over("coin")).log(),
        whole=(pl.col("oi_close") / FACE_USD).round().sub(pl.col("oi_close") / FACE_USD).abs()
        < 1e-6,
        next_day=pl.col("ts").diff().over("coin") == pl.duration(days=1),
    )
    by_coin, linear = (ours.filter(pl.col("coin_margined") == is_it) for is_it in (True, False))
    marked = linear.filter("next_day").drop_nulls(["move", "jump"])
    slope = np.polyfit(marked["move"].to_numpy(), marked["jump"].to_numpy(), 1)[0]
    say(
        "units of open interest",
        coin_margined=by_coin["coin"].n_unique(), usdt_margined=linear["coin"].n_unique(),
        whole_contracts=by_coin["whole"].mean(), jump_on_return=float(slope),
        jump_off_return=(marked["jump"] - marked["move"]).abs().median(),
    )  # fmt: skip
    assert by_coin["whole"].all()
    assert linear["whole"].mean() < 0.01
    assert slope == pytest.approx(1.0, abs=0.01)
    assert (marked["jump"] - marked["move"]).abs().median() < ALIKE


# ---------------------------------------------------------------- open interest


@pytest.mark.slow
def test_coins_that_begin_late_have_a_reason_or_change_little(
    every_contract: pl.DataFrame, open_interest: LeverageHistory, bars: pl.DataFrame, say: Say
) -> None:
    """Of 29 coins in both records 23 begin in 2021; here the other six are in as well.

    Measures of pairs use what two coins share. Those of a matrix need steps at which all were seen,
    and leave out whoever costs too many of them.
    """
    prices = recorded("binance_perp_4h/perp_4h")["symbol"].str.strip_suffix("USDT")
    both = set(prices) & set(recorded("open_interest_daily/open_interest_1d")["coin"])
    history = history_of_contracts(every_contract, bars)
    begun = dict(every_contract.group_by("coin").agg(pl.col("ts").min()).iter_rows())
    study, seen = ut.tandem.matrix(history, reps=199), history.usable().together(Layer.OWN)
    reasons = {**history.left_out, **seen.left_out}
    say("open interest, all coins of both records", coins=len(both), **layers(study),
        nodes_at_common_steps=len(seen.labels), common_steps=len(seen.ts))  # fmt: skip
    for coin in sorted(both - set(open_interest.labels), key=lambda each: begun[each]):
        say(f"{coin}, from {begun[coin]:%Y-%m-%d}", **{
            "measures of pairs": study.left_out.get(coin, "used"),
            "common steps": reasons.get(coin, "used"),
        })  # fmt: skip
    assert set(history.labels) == both
    assert len(both) == 29
    assert not set(reasons) & set(open_interest.labels)
    assert p_of(study, OWN) <= 0.01
    old = ut.tandem.matrix(open_interest, reps=199).reading("tandem.correlation", OWN)
    assert old.low < study.reading("tandem.correlation", OWN).value < old.high


def test_open_interest_moves_together_beyond_prices_but_little(
    open_interest: LeverageHistory, say: Say
) -> None:
    study = ut.tandem.matrix(open_interest, reps=199)
    own, raw = (study.reading("tandem.correlation", layer) for layer in (OWN, RAW))
    by_prices = study.tables["explained"]["by_prices"].median()
    say("open interest, growth of all coins", **layers(study), explained_by_prices=by_prices)
    assert own.low > 0.0
    assert p_of(study, OWN) <= 0.01
    assert 0.02 < own.value < 0.12
    assert raw.value > 1.5 * own.value
    assert by_prices < 0.15  # daily returns say little of contracts


def test_open_interest_has_a_weak_common_factor(open_interest: LeverageHistory, say: Say) -> None:
    study = ut.tandem.commonality(open_interest, draws=199)
    factor, number = (study.reading(f"tandem.{x}") for x in ("common_factor", "effective_number"))
    say("open interest, common factor", factor=banded(factor), independent=number.value)
    say(study.says[0])
    assert study.says[0].startswith("A common factor")
    nodes = len(open_interest.labels) - len(study.left_out)
    assert factor.low > 1.2 / nodes
    assert number.value > 0.8 * nodes


@pytest.mark.slow
def test_dates_of_unwinding_are_few_and_mostly_not_the_worst_days_of_prices(
    open_interest: LeverageHistory, liquidated: pl.DataFrame, say: Say
) -> None:
    """The worst days are named by prices alone, and by what a lender liquidated in another record.

    How many of the dates fall on them is held against luck.
    """
    study = ut.tandem.unwinding(open_interest, reps=499)
    peaks = study.tables["events"]["peak"]
    days = pl.DataFrame({"ts": pl.Series(open_interest.ts).cast(pl.Datetime("us", "UTC"))})
    days = days.with_columns(fall=pl.Series(-np.nanmean(open_interest.market.values, axis=1)))
    days = days.join(liquidated, on="ts", how="left").fill_null(0.0)
    ranked = days.with_columns(pl.col("fall", "usd").rank("min", descending=True).cast(pl.Int64))
    found, worst = ranked.filter(pl.col("ts").is_in(peaks.implode())), days.height // 50
    say("open interest, dates of unwinding", **dates(study))
    hits = {}
    for name, column in (("falls of prices", "fall"), ("liquidations of Aave", "usd")):
        hits[column] = int((found[column] <= worst).sum())
        luck = float(hypergeom.sf(hits[column] - 1, days.height, worst, len(peaks)))
        say(f"their place among days by {name}", days=days.height, worst_2_percent=worst,
            dates_among_them=hits[column], by_luck=luck, ranks=found[column].to_list())  # fmt: skip
    assert {"2021-12-04", "2023-06-10"} <= set(dates(study))
    assert 3 <= len(peaks) <= 10
    assert hits["fall"] < 0.2 * worst  # most crashes of prices are none beyond prices
    assert hits["usd"] >= 2


# ---------------------------------------------------------------- utilisation


def test_comovement_of_utilisation_is_tiny_and_none_unless_its_own_level_is_taken_out(
    utilisation: dict[str, LeverageHistory], say: Say
) -> None:
    """Beyond prices and its level of the day before it is at the edge of being found."""
    for name, history in utilisation.items():
        study = ut.tandem.matrix(history, reps=199)
        own = study.headline
        ups = study.tables["pairs"].filter(pl.col("layer") == OWN)
        sure = ups.filter(pl.col("p_corrected") < 0.05)
        pairs = [f"{a} with {b} {r:.2f}" for a, b, r in sure["a", "b", "correlation"].iter_rows()]
        left = purge(history.growth, history.returns)
        other = mean_correlation_test(left, rng=np.random.default_rng(0), reps=199)
        say(
            f"utilisation, {name}",
            **layers(study),
            level_of_the_day_before_not_out=meant(other),
            sure_pairs=pairs,
        )
        assert abs(other.value) < 0.05
        assert other.low < 0.0 < other.high, name
        assert own is not None
        assert abs(own.value) < 0.03
        assert own.low < 0.01
        assert abs(study.reading("tandem.correlation", RAW).value) < 0.06
        assert study.tables["explained"]["by_prices"].max() < 0.05
        tied = study.says[0].startswith("Utilisation moves together beyond prices")
        assert name != "v2" or not tied


def test_reserves_are_nearly_as_many_independent_ones(
    utilisation: dict[str, LeverageHistory], say: Say
) -> None:
    for name, history in utilisation.items():
        factor = ut.tandem.commonality(history, draws=199)
        tied = ut.tandem.connectedness(history, draws=99)
        number, total = factor.reading("tandem.effective_number"), tied.headline
        assert total is not None
        excess = tied.reading("tandem.connectedness_excess")
        say(f"utilisation, {name}", independent=number.value, nodes=len(history.labels),
            connectedness=banded(total), beyond_unrelated=excess.value)  # fmt: skip
        say(factor.says[0])
        say(tied.says[0])
        assert number.value > 0.95 * len(history.labels)
        assert total.value < 0.1
        assert excess.value < 0.05


def test_utilisation_is_hardly_ever_cut_at_once(
    utilisation: dict[str, LeverageHistory], liquidated: pl.DataFrame, say: Say
) -> None:
    """At most on a few days; their place among days of liquidations is told by another column."""
    rank = liquidated.with_columns(pl.col("usd").rank("min", descending=True).cast(pl.Int64))
    for name, history in utilisation.items():
        study = ut.tandem.unwinding(history, reps=499)
        events = study.tables["events"]
        place = rank.filter(pl.col("ts").is_in(events["peak"].implode()))["usd"].to_list()
        say(f"utilisation, {name}: dates of unwinding in {len(history.ts)} steps", **dates(study),
            places_by_liquidations=place, days_of_the_record=rank.height)  # fmt: skip
        assert events.height <= 3


# ---------------------------------------------------------------- what takes longer


@pytest.mark.slow
def test_open_interest_is_connected_and_nobody_leads(
    open_interest: LeverageHistory, say: Say
) -> None:
    tied = ut.tandem.connectedness(open_interest, draws=99)
    total, excess = tied.headline, tied.reading("tandem.connectedness_excess")
    nets = [r for r in tied.readings if r.name == "tandem.net_connectedness"]
    first = ut.tandem.leadlag(open_interest)
    assert total is not None
    say("open interest, connectedness", total=banded(total), beyond_unrelated=excess.value,
        givers_and_takers=sum(r.low > 0.0 or r.high < 0.0 for r in nets))  # fmt: skip
    say(tied.says[0])
    for said in first.says:
        say(said)
    assert excess.value > 0.02
    assert total.value < 0.2
    assert first.reading("lead_share", OWN).value <= 0.02


@pytest.mark.slow
def test_the_index_of_open_interest_wanders_and_cycles_are_not_in_step(
    open_interest: LeverageHistory, utilisation: dict[str, LeverageHistory], say: Say
) -> None:
    cases = {"open interest": open_interest, **utilisation}
    for name, history in cases.items():
        index, cycle = ut.tandem.index(history), ut.tandem.cycle(history)
        line = index.tables["index"].drop_nulls("rolling")
        pairs = cycle.tables["concordance"]
        sure = pairs.filter(pl.col("p_corrected") < 0.05).height
        top = line.sort("rolling").tail(1)
        concordance = cycle.headline
        assert concordance is not None
        say(
            f"{name}, over time", index=banded(index.readings[0]), lowest=line["rolling"].min(),
            highest=line["rolling"].max(), window_of_highest_ends=f"{top['ts'].item():%Y-%m-%d}",
            share_of_windows_above_0=(line["low"] > 0.0).mean(), moves=index.says[1],
            turns=cycle.tables["turns"].height, adjusted_concordance=concordance.value,
            pairs_in_step=f"{sure} of {pairs.height}",
        )  # fmt: skip
        assert sure <= 0.2 * pairs.height
        assert concordance.value < 0.15
    rolling = ut.tandem.index(open_interest).tables["index"].drop_nulls("rolling")
    assert (rolling["rolling"] > 0.0).mean() > 0.9


@pytest.mark.slow
def test_falls_are_more_alike_than_rises_in_open_interest_and_not_in_utilisation(
    open_interest: LeverageHistory, utilisation: dict[str, LeverageHistory], say: Say
) -> None:
    """And where the few dates of unwinding are left out, not in open interest either."""
    study = ut.tandem.tails(open_interest, reps=199)
    for name, history in {"open interest": open_interest, **utilisation}.items():
        each = study if history is open_interest else ut.tandem.tails(history, reps=99)
        told = {
            f"{what}, {layer}": banded(each.reading(what, layer))
            for what in ("fall_rise_gap", "fall_excess", "fall_dependence", "rise_dependence",
                         "stress_shift", "contagion_share")
            for layer in (OWN, RAW)
        }  # fmt: skip
        say(f"{name}, tails", **told)
        if history is not open_interest:
            assert each.reading("fall_rise_gap", OWN).low < 0.0
    gap = study.reading("fall_rise_gap", OWN)
    assert gap.low > 0.0
    assert study.reading("contagion_share", OWN).value == 0.0
    peaks = ut.tandem.unwinding(open_interest, reps=499).tables["events"]["peak"].to_physical()
    growth = open_interest.purged.scaled.copy()
    growth[np.isin(open_interest.ts, peaks.to_numpy())] = np.nan
    rest = fall_rise_gap(growth)
    mean = mean_correlation_test(growth, rng=np.random.default_rng(0), reps=199)
    say("open interest without its dates of unwinding", dates=len(peaks),
        mean_correlation=meant(mean),
        fall_rise_gap="{:.3f} ({:.3f} to {:.3f})".format(*rest))  # fmt: skip
    assert rest[0] < 0.3 * gap.value
    assert mean.low > 0.0


@pytest.mark.slow
def test_the_tie_of_open_interest_outlives_other_ways_of_taking_prices_out(
    open_interest: LeverageHistory, bars: pl.DataFrame, say: Say
) -> None:
    """More factors and lags, weekdays, halves, ranks; and how far prices went within the day."""
    growth, returns = open_interest.growth, open_interest.returns
    own = open_interest.purged
    half, weekday = len(growth) // 2, open_interest.ts // 86_400_000_000 % 7
    weekdays = (weekday[:, None] == np.arange(6)).astype(float)
    spread = np.repeat(weekdays[:, None], growth.shape[1], axis=1)
    inside = intraday(bars, open_interest)
    ways = {
        "as it is": own,
        "first half": own.scaled[:half],
        "second half": own.scaled[half:],
        "values at most 3 deviations": np.clip(own.scaled, -3.0, 3.0),
        "weekdays out": purge(growth, returns, extra=spread),
        "3 market factors, 5 lags": purge(growth, returns, market=3, lags=5),
        "level of the day before not out": purge(growth, returns),
        "lows and highs of the day out": purge(growth, returns, extra=inside),
    }
    for name, way in ways.items():
        rng = np.random.default_rng(0)
        found = mean_correlation_test(way, rng=rng, reps=199)
        scaled = way.scaled if isinstance(way, Purged) else way
        say(f"open interest, {name}",
            mean_correlation=meant(found),
            fall_rise_gap="{:.3f} ({:.3f} to {:.3f})".format(*fall_rise_gap(scaled)))  # fmt: skip
        assert found.low > 0.0, name
        assert found.p_value <= 0.01, name
    left = ways["lows and highs of the day out"].scaled
    assert fall_rise_gap(left)[1] < 0.0
    cut = coincidences(left, rng=np.random.default_rng(0), null="common", reps=499)
    days = pl.Series(open_interest.ts[cut.peak]).cast(pl.Datetime("us", "UTC"))
    found_on = {f"{day:%Y-%m-%d}": float(p) for day, p in zip(days, cut.p_value, strict=True)}
    say("open interest, dates of unwinding with lows and highs of the day out", **found_on)
    assert {"2021-12-04", "2023-06-10"} & set(found_on)
    held = {"contract": same_contract(open_interest)}
    why = ut.tandem.attribution(open_interest, Links.of(open_interest.labels, held), reps=499)
    say(*why.says[:1])
    assert why.tables["drivers"]["coefficient"].item() > 0.0


@pytest.mark.slow
def test_tandem_of_open_interest_foretells_no_losses(
    open_interest: LeverageHistory, say: Say
) -> None:
    study = ut.tandem.consequence(open_interest, tail=0.05)
    for said in study.says:
        say(said)
    assert study.says[0].startswith("Knowing tandem of open interest is no better than plain cDCC")


def meant(found: MeanCorrelation) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}), p {found.p_value:.3f}"


def fall_rise_gap(growth: np.ndarray) -> tuple[float, float, float]:
    """Exceedance correlation of falls less that of rises, and its band at 90 %."""
    found = stationary_bootstrap(exceedance_shape, growth, rng=np.random.default_rng(0), reps=99)
    falls, rises, _ = np.split(np.vstack([found.estimate, found.draws]), 3, axis=1)
    gap = (falls - rises).mean(axis=1)
    return (float(gap[0]), *(float(end) for end in np.nanquantile(gap[1:], [0.05, 0.95])))


def intraday(bars: pl.DataFrame, history: LeverageHistory) -> np.ndarray:
    """(steps, nodes, terms) How far prices went below and above where a day began and ended.

    Of the coin and of the mean over coins, straight and squared, of that day and the day before.
    """
    ends = [pl.col("close"), pl.col("close").shift().over("coin")]
    beyond = bars.sort("coin", "ts").with_columns(
        down=(pl.col("low") / pl.min_horizontal(ends)).log(),
        up=(pl.col("high") / pl.max_horizontal(ends)).log(),
    )
    days = pl.DataFrame({"ts": pl.Series(history.ts).cast(pl.Datetime("us", "UTC"))})
    terms = []
    for column in ("down", "up"):
        wide = beyond.pivot("coin", index="ts", values=column).select("ts", *history.labels)
        own = days.join(wide, on="ts", how="left", maintain_order="left").drop("ts").to_numpy()
        for each in (own, np.repeat(np.nanmean(own, axis=1, keepdims=True), own.shape[1], axis=1)):
            terms += [each, each * np.abs(each), np.vstack([np.full((1, own.shape[1]), np.nan),
                                                            each[:-1]])]  # fmt: skip
    return np.stack(terms, axis=2)


def same_contract(history: LeverageHistory) -> np.ndarray:
    """1 where two coins' contracts are margined alike."""
    record = recorded("open_interest_daily/open_interest_1d").unique("coin")
    kinds = dict(
        record.select("coin", pl.col("coinalyze_symbol").str.contains(COIN_MARGINED)).rows()
    )
    kind = np.array([kinds[node] for node in history.labels])
    return (kind[:, None] == kind).astype(float)
