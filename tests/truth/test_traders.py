"""Real accounts of Hyperliquid's alpha of 2023: rebuilt from trades and transfers, and called."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from recorded import PerpVenue
from undertow.validate.calls import Scorecard, path_instants, score_calls
from undertow.validate.traders import (
    MONEY,
    bar_path,
    explain_closings,
    rebuild_traders,
    stated_marks,
    trade_path,
)

Say = Callable[..., None]
BASIS_LIKE = 0.004  # of notional: unlisted funding, and the other venue's price
HIGHEST_LEVERAGE = 50.0  # the venue's, of every coin, in 2023


@pytest.fixture(scope="module")
def rebuilt(perps: PerpVenue) -> tuple[pl.DataFrame, pl.DataFrame]:
    return rebuild_traders(
        perps.trades, perps.ledger, perps.closings, max_leverage=HIGHEST_LEVERAGE
    )


@pytest.fixture(scope="module")
def cards(perps: PerpVenue, rebuilt: tuple[pl.DataFrame, pl.DataFrame]) -> dict[str, Scorecard]:
    """Called for certain, called where a bar reaches over an end, and called at the stated mark."""
    spells, holdings = rebuilt
    trades = trade_path(perps.trades, perps.closings)
    path = pl.concat([trades, bar_path(perps.bars, 4.0).select(trades.columns)])
    instants = {
        "certain": path_instants(spells, holdings, path),
        "possible": path_instants(spells, holdings, path, reaching=True),
        "at mark": stated_marks(spells, holdings, perps.closings),
    }
    return {
        name: score_calls(spells, holdings, path, each, profile="hyperliquid", money=(MONEY,))
        for name, each in instants.items()
    }


def test_every_liquidation_ends_a_rebuilt_spell(
    perps: PerpVenue, rebuilt: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    spells, _ = rebuilt
    assert spells.filter("closed").height == perps.closings.height


def test_no_account_was_closed_above_the_maintenance_of_the_profile(perps: PerpVenue) -> None:
    """Half of one over the highest leverage, 1 %: what is left at a closing comes up to it."""
    cross = perps.closings.filter(pl.col("leverage_type") == "Cross")
    left = cross["liquidated_account_value"] / cross["liquidated_ntl_pos"]
    assert left.max() < 0.5 / HIGHEST_LEVERAGE
    assert left.quantile(0.9) > 0.97 * 0.5 / HIGHEST_LEVERAGE


def test_at_the_mark_of_the_closing_the_rebuilt_account_is_at_its_limit(
    perps: PerpVenue, cards: dict[str, Scorecard], say: Say
) -> None:
    explained = explain_closings(cards["at mark"], perps.closings)
    why = explained["why"].value_counts()
    alike = explained.filter(pl.col("why") == "funding")
    away = alike["nearest"].abs()
    say(
        "closings at the mark that they state",
        closings=explained.height, called=explained["called"].count(),
        **dict(why.iter_rows()), alike_called=alike["called"].count(),
        alike_within=away.median(), alike_within_at_most=away.max(),
        alike_equity_error=alike["gap"].abs().median(),
    )  # fmt: skip
    assert alike.height >= 0.5 * explained.height  # rebuilt to within what funding can explain
    assert alike["called"].count() >= 0.8 * alike.height
    assert away.median() <= 0.0015  # of notional, from the price at which the engine would close
    assert away.max() <= 0.004
    assert alike["gap"].abs().median() <= 0.0005


def test_the_engine_calls_the_liquidations_of_rebuilt_traders(
    perps: PerpVenue, cards: dict[str, Scorecard], say: Say
) -> None:
    short = cards["certain"].short_records
    for name in ("certain", "possible"):
        say(f"calls of traders, {name}", **cards[name].summary())
        say(f"calls of traders, {name}, whole records", **cards[name].without(short).summary())
    users = perps.trades["user"].n_unique()
    say("records", users=users, users_with_short_records=short.len())
    certain, possible = (cards[name].without(short) for name in ("certain", "possible"))
    assert short.len() <= 0.08 * users
    assert cards["possible"].recall >= 0.7
    assert possible.recall >= 0.65
    assert possible.false_call_rate <= 0.008
    assert certain.false_call_rate <= 0.002
    assert certain.false_calls["user"].n_unique() <= 0.05 * users
    closings = cards["certain"].hits.height + cards["certain"].misses.height
    assert closings == perps.closings.height


def test_every_miss_among_whole_records_has_its_reason(
    perps: PerpVenue,
    rebuilt: tuple[pl.DataFrame, pl.DataFrame],
    cards: dict[str, Scorecard],
    say: Say,
) -> None:
    """Either no bars show the coin between trades, or the account held more than was closed."""
    card = cards["possible"].without(cards["certain"].short_records)
    coins = rebuilt[1].filter(pl.col("kind") == "perp").select("spell", "symbol")
    unseen = coins.filter(~pl.col("symbol").is_in(perps.bars["symbol"].unique().implode()))
    explained = explain_closings(cards["at mark"], perps.closings).select("user", "why", until="ts")
    misses = card.misses.join(explained, on=["user", "until"]).with_columns(
        why=pl.when(pl.col("spell").is_in(unseen["spell"].implode()))
        .then(pl.lit("no bars of the coin"))
        .otherwise("why")
    )
    near = card.false_calls.filter(pl.col("nearest") >= -BASIS_LIKE)
    say(
        "misses among whole records", **dict(misses["why"].value_counts().iter_rows()),
        false_calls_near_the_limit=near.height,
    )  # fmt: skip
    assert misses.height == card.misses.height
    assert set(misses["why"]) <= {"no bars of the coin", "money set apart"}
    certain = cards["certain"].without(cards["certain"].short_records).false_calls
    assert (certain["nearest"] >= -BASIS_LIKE).mean() >= 0.75


def test_calls_do_not_look_past_the_end_of_a_spell(cards: dict[str, Scorecard]) -> None:
    for name in ("certain", "possible"):
        seen = cards[name].spells.drop_nulls("called")
        assert (seen["called"] >= seen["ts"]).all()
        assert (seen["called"] <= seen["until"]).all()


def test_a_price_of_a_closing_is_no_price_of_the_market(perps: PerpVenue) -> None:
    path = trade_path(perps.trades, perps.closings)
    handed = perps.trades.join(perps.closings, on=["user", "ts"], how="semi")
    assert handed.height >= perps.closings.height
    assert path.join(handed, left_on=["symbol", "ts"], right_on=["coin", "ts"]).is_empty()
