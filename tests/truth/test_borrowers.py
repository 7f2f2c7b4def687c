"""Real borrowers of Aave v2: recorded healths, seizures and liquidations, against the rules.

Terms of the day are read off half of the users and tested on the other half, both ways round.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from recorded import Lender
from undertow.rules.profile import load_profile
from undertow.validate.borrowers import (
    explain_false_calls,
    hourly_instants,
    price_path,
    rebuild_borrowers,
    repaid_shares,
    seizure_errors,
    seizures,
    state_legs,
    stated_prices,
    with_thresholds,
)
from undertow.validate.calls import Scorecard, score_calls
from undertow.validate.inferred import half_of, infer_bonuses, infer_thresholds
from undertow.validate.sheets import judge_sheets, sheet_numbers

Say = Callable[..., None]
WRONG_USD = ("ENJ", "xSUSHI")  # the record says of itself that these values are wrong
MONEY = ("USDC", "USDT", "DAI", "TUSD", "BUSD", "GUSD", "sUSD", "USDP", "FRAX", "UST")
PRICED_FROM = pl.datetime(2021, 1, 1, time_zone="UTC")  # recorded prices before repeat this day's


@pytest.fixture(scope="module")
def rebuilt(lender: Lender) -> tuple[pl.DataFrame, pl.DataFrame]:
    return rebuild_borrowers(lender.states, lender.positions, lender.closings)


def test_recorded_healths_come_out_of_positions_and_thresholds_of_other_accounts(
    lender: Lender, say: Say
) -> None:
    judged = pl.concat([health_errors(lender, learn) for learn in halves(lender.states)])
    assert judged.height == lender.states.height  # every state was tested on others' terms
    priced = judged.filter(pl.col("ts") >= PRICED_FROM)
    whole, later = judged["error"].abs(), priced["error"].abs()
    by_user = priced.group_by("user").agg(pl.col("error").abs().median()).sort("user").rows()
    same_side = ((priced["health"] < 1.0) == (priced["health_factor"] < 1.0)).mean()
    say(
        "health of recorded states",
        states=judged.height, judged=judged["error"].count(), median_error=whole.median(),
        q90_error_from_2021=later.quantile(0.9), median_error_from_2021=later.median(),
        same_side_of_1=same_side,
        **{f"from 2021, {user[:10]}": error for user, error in by_user},
    )  # fmt: skip
    assert judged["error"].null_count() <= 0.01 * judged.height  # states that hold nothing
    assert whole.median() <= 0.006
    assert max(error for _, error in by_user) <= 0.01
    assert later.quantile(0.9) <= 0.025
    assert same_side >= 0.97


def test_the_threshold_of_weth_was_lower_than_the_later_list_says(lender: Lender) -> None:
    for learn in halves(lender.states):
        own = pl.col("user").is_in(learn.implode())
        terms = infer_thresholds(
            lender.states.filter(own), lender.positions.filter(own), latest(lender, "threshold")
        )
        early = terms.filter((pl.col("symbol") == "WETH") & pl.col("since").is_not_null())
        assert early.height
        assert early["value"].to_list() == pytest.approx([0.825] * early.height)
    listed = lender.terms.filter(pl.col("symbol") == "WETH")
    assert listed["threshold"].item() == pytest.approx(0.85)


def test_recorded_seizures_are_debt_times_bonus(lender: Lender, say: Say) -> None:
    valued = seizures(lender.closings, lender.prices).filter("recorded")
    usable = valued.filter(~pl.any_horizontal(pl.col("symbol", "debt").is_in(list(WRONG_USD))))
    tested = []
    for learn in halves(usable):
        own = pl.col("user").is_in(learn.implode())
        bonuses = infer_bonuses(usable.filter(own), latest(lender, "bonus"))
        tested.append(seizure_errors(usable.filter(~own), bonuses))
    error = pl.concat(tested)["error"].drop_nulls().abs()
    exact = (error < 1e-6).mean()
    say(
        "seizures with recorded values",
        events=valued.height, values_wrong_in_the_record=valued.height - usable.height,
        bonus_unknown=usable.height - error.len(), tested=error.len(), exact_share=exact,
        within_1_percent=(error < 0.01).mean(), median_error=error.median(),
    )  # fmt: skip
    assert valued.height >= 1_467
    assert error.len() >= 0.9 * valued.height
    assert exact >= 0.9
    assert (error < 0.01).mean() >= 0.95


def test_seizures_without_recorded_values_agree_at_hourly_prices(lender: Lender, say: Say) -> None:
    valued = seizures(lender.closings, lender.prices).filter(~pl.col("recorded"))
    early = seizure_errors(valued, learned_bonuses(lender))
    error = early["error"].drop_nulls().abs()
    say(
        "seizures at the nearest hourly price",
        events=early.height, no_price_or_bonus=early.height - error.len(),
        median_error=error.median(), within_2_5_percent=(error < 0.025).mean(),
        within_10_percent=(error < 0.1).mean(),
    )  # fmt: skip
    assert error.len() >= 0.98 * early.height
    assert error.median() <= 0.02
    assert (error < 0.1).mean() >= 0.92


def test_no_closing_repays_more_than_half_of_a_debt(
    lender: Lender, rebuilt: tuple[pl.DataFrame, pl.DataFrame], say: Say
) -> None:
    spells, holdings = rebuilt
    rules = load_profile("aave-v2", lender.closings["ts"].min()).closing
    shares = repaid_shares(spells, holdings, lender.closings, rules=rules)
    allowed = shares["allowed"]  # half of what is left, each call
    assert allowed.to_list() == pytest.approx((1.0 - 0.5 ** shares["calls"]).to_list())
    say(
        "close factor",
        closings=shares.height, calls=shares["calls"].sum(), median_share=shares["share"].median(),
        at_the_limit=((shares["share"] / allowed - 1.0).abs() < 1e-3).mean(),
        largest_over_limit=(shares["share"] / allowed).max(),
    )  # fmt: skip
    assert shares["calls"].sum() == closings_of(lender).height
    assert (shares["share"] / allowed).max() <= 1.002  # interest since the recorded state
    assert ((shares["share"] / allowed - 1.0).abs() < 1e-3).mean() >= 0.6


def test_closings_replayed_on_the_last_state_lead_to_the_next(
    rebuilt: tuple[pl.DataFrame, pl.DataFrame], say: Say
) -> None:
    closed = rebuilt[0].filter("closed")
    kept = 1.0 - closed["moved"].mean()  # to within a hundredth of every holding
    say("replayed closings", closings=closed.height, next_state_as_replayed=kept)
    assert kept >= 0.75


def test_at_the_price_that_a_closing_states_the_account_is_under_its_limit(
    lender: Lender, rebuilt: tuple[pl.DataFrame, pl.DataFrame], say: Say
) -> None:
    spells, holdings = rebuilt
    bonuses = learned_bonuses(lender)
    valued = seizure_errors(seizures(closings_of(lender), lender.prices), bonuses)
    legs = on_terms_of_others(lender, spells, holdings)
    instants = stated_prices(spells, legs, valued, lender.prices, money=MONEY)
    closed = spells.filter("closed")
    card = score_calls(closed, legs, price_path(lender.prices), instants, profile="aave-v2")
    in_order = card.spells.filter(pl.col("health") >= 1.0)
    pairs = legs.filter(pl.col("qty").abs() > 0.0).group_by("spell").agg(legs=pl.len())
    alone = in_order.join(pairs.filter(pl.col("legs") == 2), on="spell")
    say(
        "closings at the price that they state",
        closings=closed.height, called=card.hits.height, not_called=card.misses.height,
        from_states_in_order=in_order.height, of_these_called=in_order["called"].count(),
        away_median=in_order["nearest"].abs().median(),
        away_q90=in_order["nearest"].abs().quantile(0.9),
        one_collateral_one_debt=alone.height, away_of_these=alone["nearest"].abs().median(),
    )  # fmt: skip
    assert card.hits.height >= 0.85 * closed.height
    assert in_order["nearest"].abs().median() <= 0.02


def test_the_engine_calls_the_liquidations_of_recorded_borrowers(
    lender: Lender, rebuilt: tuple[pl.DataFrame, pl.DataFrame], say: Say
) -> None:
    card, hour_on = called(lender, *rebuilt)
    events = closings_of(lender).join(
        card.spells.filter("closed"), left_on=["user", "ts"], right_on=["user", "until"]
    )
    why = explain_false_calls(card)["why"].value_counts()
    soon = hour_on.spells["called"].count()
    fresh = card.hits["fresh"].sum()
    sound = card.spells.filter((pl.col("health") >= 1.0) & (pl.col("next_health") >= 1.0))
    left_alone = why.filter(pl.col("why") == "under on chain, left alone")["count"].sum()
    unexplained = card.false_calls.height - left_alone
    say(
        "calls of borrowers",
        **card.summary(), events=events.height, events_called=events["called"].count(),
        hits_from_in_order=fresh, misses_called_within_the_hour_after=soon,
        misses_nearest_median=card.misses["nearest"].median(),
        misses_nearest_largest=card.misses["nearest"].max(), **dict(why.iter_rows()),
        spells_sound_at_both_states=sound.height, called_of_these=unexplained / sound.height,
    )  # fmt: skip
    closings = card.hits.height + card.misses.height
    assert events.height == closings_of(lender).height  # none was left out
    assert events["called"].count() >= 0.75 * events.height
    assert card.hits.height + soon >= 0.88 * closings
    assert (fresh + soon) >= 0.7 * (fresh + card.misses.height)
    assert card.misses["nearest"].max() <= 0.07  # every miss stood this near to its limit
    assert left_alone >= 0.9 * card.false_calls.height
    assert unexplained <= 0.08 * sound.height


def halves(rows: pl.DataFrame) -> list[pl.Series]:
    """Both halves of the users: what is learned from the one is tested on the other."""
    first = half_of(rows["user"])
    rest = rows.filter(~pl.col("user").is_in(first.implode()))["user"].unique()
    return [first, rest]


def latest(lender: Lender, name: str) -> pl.DataFrame:
    return lender.terms.select("symbol", value=name)


def closings_of(lender: Lender) -> pl.DataFrame:
    users = lender.states["user"].unique()
    return lender.closings.filter(pl.col("user").is_in(users.implode()))


def health_errors(lender: Lender, learn: pl.Series) -> pl.DataFrame:
    """States of everybody else, judged with the thresholds learned from some."""
    own = pl.col("user").is_in(learn.implode())
    terms = infer_thresholds(
        lender.states.filter(own), lender.positions.filter(own), latest(lender, "threshold")
    )
    states = lender.states.filter(~own)
    legs = with_thresholds(state_legs(states, lender.positions), terms)
    start = int(legs["ts"].dt.epoch("us").to_numpy().min())
    numbers = sheet_numbers(judge_sheets(legs, profile="aave-v2", ts=start))
    judged = states.with_columns(sheet=pl.int_range(pl.len())).join(numbers, on="sheet", how="left")
    return judged.with_columns(error=pl.col("health") - pl.col("health_factor"))


def called(
    lender: Lender, spells: pl.DataFrame, holdings: pl.DataFrame
) -> tuple[Scorecard, Scorecard]:
    """The card along hourly prices up to each closing, and the misses one hour later."""
    legs, path = on_terms_of_others(lender, spells, holdings), price_path(lender.prices)
    card = score_calls(spells, legs, path, hourly_instants(spells), profile="aave-v2")
    missed = card.misses.select(spells.columns)
    an_hour_on = missed.select("spell", ts=pl.col("until") + pl.duration(hours=1))
    return card, score_calls(missed, legs, path, an_hour_on, profile="aave-v2")


def on_terms_of_others(
    lender: Lender, spells: pl.DataFrame, holdings: pl.DataFrame
) -> pl.DataFrame:
    """The holdings with thresholds read off the half of the users that theirs is not of."""
    parts = []
    for learn in halves(lender.states):
        own = pl.col("user").is_in(learn.implode())
        terms = infer_thresholds(
            lender.states.filter(own), lender.positions.filter(own), latest(lender, "threshold")
        )
        tested = spells.filter(~own).select("spell", "ts")
        parts.append(with_thresholds(holdings.join(tested, on="spell"), terms).drop("ts"))
    return pl.concat(parts)


def learned_bonuses(lender: Lender) -> pl.DataFrame:
    """Bonuses of the months in which values were recorded; earlier ones take the nearest."""
    valued = seizures(lender.closings, lender.prices).filter(pl.col("recorded"))
    usable = ~pl.any_horizontal(pl.col("symbol", "debt").is_in(list(WRONG_USD)))
    return infer_bonuses(valued.filter(usable), latest(lender, "bonus"))
