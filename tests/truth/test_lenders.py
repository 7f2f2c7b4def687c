"""The sdeUSD/USDC market of 2 November 2025, rebuilt from its log, and what was to be seen then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

import polars as pl
import pytest

from truth import lender_records as records
from truth.lender_records import DAY_BEFORE, INSTANT, LAST_HOUR, THRESHOLD, Record
from undertow.rules.adaptive import AdaptiveCurve
from undertow.validate.exits import (
    Lock,
    MarketLoss,
    by_activity,
    exits,
    implied_rate,
    lock,
    locked_debt,
    market_loss,
    net_exits,
)
from undertow.validate.lenders import (
    RolledMarket,
    check_roll,
    rebuild_market,
    roll_back,
    roll_forward,
)
from undertow.validate.vaults import (
    LossScore,
    by_allocation,
    by_deposits,
    claims_left,
    drawdowns,
    marked_losses,
    score_losses,
    share_losses,
)

Say = Callable[..., None]
HOUR, WEEK = dt.timedelta(hours=1), dt.timedelta(days=7)
CURVE = AdaptiveCurve()
RECOVERIES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)


@pytest.fixture(scope="module")
def record() -> Record:
    return records.read_market()


@pytest.fixture(scope="module")
def market(record: Record) -> RolledMarket:
    return rebuild_market(record.positions, record.acts, record.totals, INSTANT)


@dataclass(frozen=True)
class Forecast:
    """All that is said at the instant, of the instant alone; collateral is worth nothing after."""

    lock: Lock
    exits: pl.DataFrame
    loss: MarketLoss
    bad_debt: float  # of all affected markets, USD
    vaults: pl.DataFrame  # vault, assets, loss, run, at first-come exits
    in_proportion: pl.DataFrame


@pytest.fixture(scope="module")
def forecast(record: Record, market: RolledMarket) -> Forecast:
    week = record.acts.filter((pl.col("ts") > INSTANT - WEEK) & (pl.col("ts") <= INSTANT))
    withdrawn = week.filter(pl.col("kind") == "withdraw")["assets"].sum()
    taken = exits(market, by_activity(record.acts, INSTANT - WEEK, INSTANT))
    loss = market_loss(
        market, price=records.collateral_price(INSTANT), recovery=0.0, threshold=THRESHOLD
    )
    usd = records.usd_of_loan(INSTANT)
    elsewhere = records.market_states(INSTANT).filter(pl.col("market") != record.key)
    others = (
        records.allocations(INSTANT)
        .join(elsewhere, on="market")
        .select(
            "vault",
            left="allocated",
            lost=pl.col("borrowed") / pl.col("supplied"),
            # Whoever finds worthless collateral may borrow what is idle at a fixed oracle.
            most=pl.when(pl.col("market").is_in(records.fixed_oracles()))
            .then(1.0)
            .otherwise(pl.col("borrowed") / pl.col("supplied")),
        )
    )

    def losses(how: str) -> pl.DataFrame:
        own = claims_left(taken, loss.lost, how=how, worth=usd)
        return share_losses(pl.concat([own, others]), assets_of(INSTANT))

    return Forecast(
        lock(market, pace=withdrawn / (WEEK / HOUR)),
        taken,
        loss,
        loss.lost * usd + float(elsewhere["borrowed"].sum()),
        losses("first_come"),
        losses("pro_rata"),
    )


def assets_of(at: dt.datetime) -> pl.DataFrame:
    return records.share_prices().filter(pl.col("ts") == at).select("vault", "assets")


def prices_of(at: dt.datetime) -> pl.DataFrame:
    return records.share_prices().filter(pl.col("ts") == at).select("vault", "price", "assets")


@pytest.fixture(scope="module")
def outcomes(record: Record, forecast: Forecast) -> dict[str, pl.DataFrame]:
    """`shown`: the deepest fall of share prices; `marked`: with claims on the market at nothing."""
    held = forecast.vaults.select("vault")
    end = prices_of(LAST_HOUR).join(records.shown_claims(record, LAST_HOUR), on="vault", how="left")
    shown = drawdowns(records.share_prices(), since=INSTANT)
    marked = marked_losses(prices_of(INSTANT).drop("assets"), end)
    return {"shown": shown.join(held, on="vault"), "marked": marked.join(held, on="vault")}


def test_the_rolled_market_keeps_every_identity(
    record: Record, market: RolledMarket, say: Say
) -> None:
    check = check_roll(record.positions, record.acts, record.totals)
    listed = records.allocations(INSTANT).filter(pl.col("market") == record.key)
    usd = records.usd_of_loan(INSTANT)
    apart = listed.join(market.lenders, left_on="vault", right_on="user").with_columns(
        error=(pl.col("allocated") / (pl.col("claim") * usd) - 1.0).abs()
    )
    large = apart.filter(pl.col("claim") > 1.0).sort("error")["error"]
    say("rolled back to hourly totals", acts=record.acts.height, **asdict(check))
    say("claims against the table of allocations", vaults=large.len(), second_worst=large[-2],
        worst=large[-1])  # fmt: skip
    assert check.idle_error < 1e-6  # a millionth of a dollar: the least unit
    assert check.index_falls == 0
    assert check.index_error < 1e-7
    assert check.overdrawn < 1e-7
    assert check.collateral_error < 2e-5
    assert large[-2] < 1e-4  # the worst withdrew 107 seconds after the stamp
    assert market.lenders["claim"].sum() == pytest.approx(market.supplied, rel=1e-12)
    assert market.borrowers["debt"].sum() == pytest.approx(market.borrowed, rel=1e-12)


def test_rolling_forward_again_gives_the_final_positions(record: Record) -> None:
    end = record.acts["ts"].max()
    assert isinstance(end, dt.datetime)
    there = roll_back(record.positions, record.acts, INSTANT)
    back = roll_forward(there, record.acts, INSTANT, end).sort("user")
    final = record.positions.join(back, on="user", how="right", suffix="_back").fill_null(0.0)
    for name in ("supply_shares", "borrow_shares", "collateral"):
        error = (final[name] - final[f"{name}_back"]).abs().max()
        assert error <= 1e-12 * record.positions[name].sum()  # type: ignore[operator]


def test_interest_by_the_curve_follows_recorded_debts(
    record: Record, market: RolledMarket, say: Say
) -> None:
    """From the rate of the hour before the instant alone, at the utilisation that came."""
    rate, at_target = rate_before(record, market)
    debt, errors = market.borrowed, {}
    rows = record.totals.filter(pl.col("ts") >= INSTANT).to_dicts()
    for now, then in pairwise(rows):
        growth, at_target = CURVE.accrue(
            at_target, min(now["borrowed"] / now["supplied"], 1.0), 3_600.0
        )
        debt *= growth
        errors[then["ts"]] = abs(debt / then["borrowed"] - 1.0)
    say("interest hour by hour, 18 days", rate_before=rate,
        after_a_day=errors[INSTANT + dt.timedelta(days=1)], worst=max(errors.values()))  # fmt: skip
    assert errors[INSTANT + dt.timedelta(days=1)] < 1e-6
    assert max(errors.values()) < 5e-4


def rate_before(record: Record, market: RolledMarket) -> tuple[float, float]:
    before = record.totals.filter(pl.col("ts") == INSTANT - HOUR)["borrowed"].item()
    rate = implied_rate(before, market.borrowed, 3_600.0)
    return rate, CURVE.rate_at_target(rate, market.utilisation)


def test_what_was_to_be_seen_at_the_instant(
    record: Record, market: RolledMarket, forecast: Forecast, say: Say
) -> None:
    price = records.collateral_price(INSTANT)
    largest = market.borrowers.row(0, named=True)
    names = records.vault_names()
    vaults = market.lenders.filter(pl.col("user").is_in(list(names)))["claim"].sum()
    say(
        "the market at the instant", supplied=market.supplied, borrowed=market.borrowed,
        idle=market.idle, utilisation=market.utilisation, price=price,
        lenders_above_one=market.lenders.filter(pl.col("claim") > 1.0).height,
        share_of_vaults=vaults / market.supplied,
        largest_lender=market.lenders["claim"][0] / market.supplied,
        largest_debt=largest["debt"] / market.borrowed,
        its_loan_to_value=largest["debt"] / (largest["collateral"] * price),
        fall_that_calls_it=1.0 - largest["debt"] / (largest["collateral"] * price * THRESHOLD),
        rate=rate_before(record, market)[0],
    )  # fmt: skip
    for row in market.lenders.filter(pl.col("claim") > 1_000.0).to_dicts():
        say(names.get(row["user"], row["user"][:10]), claim=row["claim"],
            of_supply=row["claim"] / market.supplied)  # fmt: skip
    assert market.utilisation == pytest.approx(0.9176, abs=1e-4)
    assert largest["debt"] > 0.999 * market.borrowed


def test_the_market_locks_as_said(
    record: Record, market: RolledMarket, forecast: Forecast, say: Say
) -> None:
    states = records.market_states(INSTANT).filter(pl.col("supplied") > 0.0)
    seen = states.join(records.first_locked(INSTANT), on="market", how="left").with_columns(
        said=pl.col("borrowed") > 0.0, was=pl.col("locked").is_not_null()
    )
    own = seen.filter(pl.col("market") == record.key)["locked"].item()
    say("lock", **asdict(forecast.lock), hours_realised=(own - INSTANT) / HOUR)
    for row in seen.to_dicts():
        say(f"{row['pair']} {row['market'][:6]}", supplied=row["supplied"],
            utilisation=row["utilisation"], said=row["said"], locked=row["locked"])  # fmt: skip
    real = seen.filter(pl.col("supplied") > 1_000.0)
    assert forecast.lock.locks
    assert real.height == 2
    assert (real["said"] == real["was"]).all()
    assert (own - INSTANT) / HOUR == 38.0


def test_debt_grows_at_full_utilisation_as_the_curve_says(
    record: Record, market: RolledMarket, forecast: Forecast, say: Say
) -> None:
    """At the curve's own pace from the instant, locked after the hours that were foretold."""
    _, at_target = rate_before(record, market)
    for ts in (LAST_HOUR, record.totals["ts"].max()):
        assert isinstance(ts, dt.datetime)
        hours = (ts - INSTANT) / HOUR
        said = locked_debt(market.borrowed, at_target, hours - forecast.lock.hours, curve=CURVE)
        was = record.totals.filter(pl.col("ts") == ts)["borrowed"].item()
        say(f"debt on {ts:%d %B}", said=said, was=was, error=said / was - 1.0)
        assert abs(said / was - 1.0) < 0.03


def test_who_left_and_who_could(
    record: Record, market: RolledMarket, forecast: Forecast, say: Say
) -> None:
    locked = records.first_locked(INSTANT).filter(pl.col("market") == record.key)["locked"].item()
    names = records.vault_names()
    until_lock = net_exits(record.acts, INSTANT, locked)
    both = forecast.exits.join(until_lock, on="user", how="left").fill_null(0.0)
    large = both.filter(pl.col("claim") > 1_000.0)
    for row in large.to_dicts():
        say(names.get(row.pop("user"), "no vault"), **row)
    wrong = {
        how: float((both[how] - both["taken"].clip(0.0)).abs().sum()) / market.idle
        for how in ("first_come", "pro_rata")
    }
    beyond = large.filter(pl.col("taken") > pl.col("most"))
    came = -large["taken"].clip(upper_bound=0.0).sum()
    say("exits until the lock, wrong as a share of idle money", **wrong, beyond=beyond.height,
        came_in=came)  # fmt: skip
    assert both.sort("first_come")["user"][-1] == both.sort("taken")["user"][-1]
    assert wrong["first_come"] < 0.5 * wrong["pro_rata"]
    # Closed to new money nobody gets more than `most`; somebody did, by what came in.
    assert beyond["taken"].sum() - beyond["most"].sum() <= came + 0.02 * market.idle


def test_after_the_lock_nobody_leaves_unless_somebody_comes_in(record: Record, say: Say) -> None:
    """From the last hour before it was full: every larger act, and who made room for whom."""
    locked = records.first_locked(INSTANT).filter(pl.col("market") == record.key)["locked"].item()
    names = records.vault_names()
    acts = record.acts.filter(
        pl.col("ts").is_between(locked - HOUR, LAST_HOUR) & (pl.col("assets") > 500.0)
    ).filter(pl.col("kind").is_in(["supply", "withdraw"]))
    for row in acts.to_dicts():
        say(f"{row['ts']:%d %B %H:%M:%S}", who=names.get(row["user"], row["user"][:10]),
            **{row["kind"]: row["assets"]})  # fmt: skip
    full = acts.filter(pl.col("ts") > locked + HOUR)
    came = full.filter(pl.col("kind") == "supply").select("ts", came="assets")
    left = full.filter(pl.col("kind") == "withdraw").join(came, on="ts", how="left")
    say("after the lock", left=left["assets"].sum(), came=came["came"].sum(), acts=left.height)
    assert left.height >= 4
    assert (left["assets"] == left["came"]).all()


def test_a_price_goes_on_rising_on_interest_that_nobody_pays(record: Record, say: Say) -> None:
    names = records.vault_names()
    prices = records.share_prices().sort("ts").group_by("vault").agg(end=pl.col("price").last())
    stuck = records.shown_claims(record, LAST_HOUR).join(prices, on="vault")
    later = stuck.filter(~pl.col("vault").is_in(records.writes_off()) & (pl.col("claim") > 1.0))
    say("share prices at the end of January", **{names[v]: e for v, e in
        later.select("vault", "end").iter_rows()})  # fmt: skip
    assert later["end"].max() > 2.0  # type: ignore[operator]


def test_losses_of_the_market_over_a_grid_of_recoveries(
    record: Record, market: RolledMarket, say: Say
) -> None:
    price = records.collateral_price(INSTANT)
    last = float("inf")
    for recovery in RECOVERIES:
        follows, stays = (
            market_loss(market, price=price, recovery=recovery, threshold=THRESHOLD,
                        oracle_follows=follows)
            for follows in (True, False)
        )  # fmt: skip
        say(f"recovery {recovery}", recovered=follows.recovered, realised=follows.realised,
            unrealised=follows.unrealised, unrealised_if_oracle_stays=stays.unrealised,
            lost_of_supply=follows.lost / market.supplied)  # fmt: skip
        assert follows.lost <= last + 1e-6
        assert follows.lost <= stays.lost + 1e-6
        last = follows.lost
    assert last == 0.0


def test_share_losses_said_and_seen(
    forecast: Forecast, outcomes: dict[str, pl.DataFrame], say: Say
) -> None:
    names, first = records.vault_names(), records.writes_off()
    table = forecast.vaults
    naive = {
        "by_deposits": by_deposits(forecast.bad_debt, assets_of(INSTANT)),
        "by_allocation": day_before(forecast),
    }
    for name, losses in (outcomes | naive).items():
        table = table.join(losses.rename({"loss": name}), on="vault")
    for row in table.sort("assets", descending=True).to_dicts():
        vault = row.pop("vault")
        say(names[vault], writes_off=vault in first, **row)
    within = table.filter(
        (pl.col("marked") >= pl.col("loss") - 1e-3) & (pl.col("marked") <= pl.col("run") + 1e-3)
    )
    out = [names[v] for v in table.join(within, on="vault", how="anti")["vault"]]
    say("marked loss within loss and run", within=within.height, of=table.height, out=out)
    assert within.height >= table.height - 1


def test_predictions_of_share_losses_against_the_naive(
    forecast: Forecast, outcomes: dict[str, pl.DataFrame], say: Say
) -> None:
    scores = scored(forecast, outcomes)
    large = scored(forecast, outcomes, least=10_000.0)
    for (outcome, name), score in scores.items():
        of_large = large[outcome, name]
        say(f"{outcome}: {name}", **asdict(score), large_vaults=of_large.vaults,
            error_of_large=of_large.error, rank_of_large=of_large.rank)  # fmt: skip
    shown = {name: score for (outcome, name), score in scores.items() if outcome == "shown"}
    marked = {name: score for (outcome, name), score in scores.items() if outcome == "marked"}
    # The spread over all depositors is no better than one number for all, on what was shown ...
    assert shown["claims"].error > shown["by deposits"].error
    # ... and better with the one rule that says who shows a loss at all.
    assert shown["claims that are written off"].error < shown["by deposits"].error
    assert marked["claims"].error < marked["by deposits"].error
    assert marked["claims"].rank > 0.7
    assert marked["claims after a run"].error < marked["by allocation the day before"].error
    assert marked["claims"].misses == shown["claims"].misses == 0


def day_before(forecast: Forecast) -> pl.DataFrame:
    allocated = records.allocations(DAY_BEFORE).group_by("vault").agg(pl.col("allocated").sum())
    said = by_allocation(forecast.bad_debt, allocated, assets_of(DAY_BEFORE))
    return said.join(forecast.vaults.select("vault"), on="vault")


def scored(
    forecast: Forecast, outcomes: dict[str, pl.DataFrame], *, least: float = 0.0
) -> dict[tuple[str, str], LossScore]:
    claims = forecast.vaults.select("vault", "loss")
    run = forecast.vaults.select("vault", loss="run")
    first = pl.col("vault").is_in(records.writes_off())

    def written(losses: pl.DataFrame) -> pl.DataFrame:
        return losses.with_columns(loss=pl.when(first).then("loss").otherwise(0.0))

    held = forecast.vaults.filter(pl.col("assets") >= least).select("vault")
    said = {
        "claims": claims,
        "claims, exits in proportion": forecast.in_proportion.select("vault", "loss"),
        "claims after a run": run,
        "claims that are written off": written(claims),
        "the same after a run": written(run),
        "by deposits": by_deposits(forecast.bad_debt, assets_of(INSTANT)),
        "by allocation the day before": day_before(forecast),
    }
    return {
        (name, how): score_losses(losses.join(held, on="vault"), outcome.join(held, on="vault"))
        for name, outcome in outcomes.items()
        for how, losses in said.items()
    }


def test_some_had_left_in_the_days_before(record: Record, say: Say) -> None:
    """What a table a day old still shows, and what caps had to do with it."""
    names = records.vault_names()
    days = (DAY_BEFORE - dt.timedelta(days=1), DAY_BEFORE, INSTANT)
    own = [
        records.allocations(day)
        .filter(pl.col("market") == record.key)
        .select("vault", pl.col("allocated").alias(f"{day:%d_%B}"))
        for day in days
    ]
    table = own[0].join(own[1], on="vault", how="full", coalesce=True)
    table = table.join(own[2], on="vault", how="full", coalesce=True).fill_null(0.0)
    caps = records.caps(INSTANT, record.key)
    both = table.join(caps, on="vault", how="left")
    for row in both.filter(pl.max_horizontal(pl.selectors.float()) > 1_000.0).to_dicts():
        say(names[row.pop("vault")], **row)
    gone = table.filter((pl.col(f"{DAY_BEFORE:%d_%B}") > 1e6) & (pl.col(f"{INSTANT:%d_%B}") < 1.0))
    assert [names[vault] for vault in gone["vault"]] == ["Hyperithm USDC Degen"]


def test_a_run_on_the_vault_explains_what_the_spread_missed(record: Record, say: Say) -> None:
    """Known only afterwards: claims over assets as each vault wrote off.

    Vault tables stamp with an hour what they saw later in it, the market's table does not: assets
    of the stamp before the fall stand beside the claim of the stamp after it.
    """
    names = records.vault_names()
    prices = records.share_prices().filter(pl.col("ts").is_between(INSTANT, LAST_HOUR))
    fell = prices.sort("vault", "ts").with_columns(
        fall=1.0 - pl.col("price") / pl.col("price").shift(1).over("vault"),
        held=pl.col("assets").shift(1).over("vault"),
    )
    start = assets_of(INSTANT).rename({"assets": "at_instant"})
    deepest = fell.sort("fall", descending=True, nulls_last=True).unique(
        "vault", keep="first", maintain_order=True
    )
    written = deepest.filter(pl.col("fall") > 0.001).join(start, on="vault")
    for row in written.to_dicts():
        then = rebuild_market(record.positions, record.acts, record.totals, row["ts"])
        claim = then.lenders.filter(pl.col("user") == row["vault"])["claim"].item()
        explained = claim * records.usd_of_loan(row["ts"]) / row["held"]
        say(names[row["vault"]], written_off=row["ts"], fell=row["fall"], explained=explained,
            assets_left=row["held"] / row["at_instant"])  # fmt: skip
        assert explained == pytest.approx(row["fall"], abs=0.01)
    assert set(written["vault"]) <= set(records.writes_off())
    assert written.height == 2


def test_two_tables_tell_the_same_assets() -> None:
    daily = records.table("vault_tvl_1d").filter(pl.col("ts") == INSTANT)
    both = daily.select(pl.col("vault_address").str.to_lowercase(), "tvl_usd").join(
        assets_of(INSTANT).with_columns(vault_address=pl.col("vault").str.to_lowercase()),
        on="vault_address",
    )
    assert both.height == 2
    assert ((both["tvl_usd"] / both["assets"] - 1.0).abs() < 1e-3).all()
