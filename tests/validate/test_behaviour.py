"""Acts of planted owners come out of planted records, and their rates out of the acts."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import EstimationError
from undertow.validate.acts import act_skill, fit_acts, hazards_by, outcomes
from undertow.validate.behaviour import (
    lender_periods,
    loan_periods,
    trader_periods,
    trailing_vol,
)
from undertow.validate.traders import rebuild_traders

START = dt.datetime(2021, 2, 1, tzinfo=dt.UTC)


def at(hours: float) -> dt.datetime:
    return START + dt.timedelta(hours=hours)


def vols(*symbols: str, every: float = 1.0) -> pl.DataFrame:
    rows = [(at(h * every - 48.0), s, 100.0, 0.8) for s in symbols for h in range(200)]
    return pl.DataFrame(rows, schema=["ts", "symbol", "close", "vol"], orient="row")


def lent(*states: tuple[float, float, float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """States of one borrower, ten hours apart: ETH held, its price, and USDC owed."""
    rows, legs = [], []
    for n, (held, price, owed) in enumerate(states):
        rows.append((at(10.0 * n), "0xa", n, 0.8 * held * price / owed))
        legs.append(("0xa", n, "collateral", "ETH", held * price, price))
        legs.append(("0xa", n, "debt", "USDC", owed, 1.0))
    names = ["user", "block", "side", "symbol", "amount_usd", "price_usd"]
    return (
        pl.DataFrame(rows, schema=["ts", "user", "block", "health_factor"], orient="row"),
        pl.DataFrame(legs, schema=names, orient="row"),
    )


def closed(*hours: float, user: str = "0xa") -> pl.DataFrame:
    schema: dict[str, Any] = {"ts": pl.Datetime("us", "UTC"), "user": pl.String}
    return pl.DataFrame([(at(h), user) for h in hours], schema=schema, orient="row")


def test_what_a_borrower_did_is_told_from_two_states() -> None:
    states, positions = lent(
        (10.0, 100.0, 500.0),
        (10.0, 80.0, 501.0),  # the price fell, and interest ran: nothing was done
        (12.0, 80.0, 501.0),  # topped up
        (12.0, 80.0, 400.0),  # repaid
        (8.0, 80.0, 200.0),  # both smaller
        (8.0, 80.0, 300.0),  # borrowed more
        (7.0, 80.0, 300.0),  # took out
        (4.0, 80.0, 150.0),  # closed by the venue
    )
    rows = lender_periods(states, positions, closed(65.0), vols("ETH"))
    acts = [None, "top_up", "repay", "delever", "raise", "raise", "forced"]
    assert rows["act"].to_list() == acts
    assert rows["span"].to_list() == pytest.approx([10.0 / 24.0] * 7)
    assert rows["log_health"][0] == pytest.approx(math.log(0.8 * 1_000.0 / 500.0))
    assert rows["log_size"][0] == pytest.approx(math.log10(500.0))
    assert rows["log_vol"][0] == pytest.approx(math.log(0.8))


def test_what_a_trader_did_is_told_bar_by_bar() -> None:
    """100 USD and 1 ETH at 100: 1 % is asked, so health is what is left in USD."""
    prices = [100.0, 90.0, 90.0, 90.0, 90.0, 95.0]
    bars = pl.DataFrame(
        {"ts": [at(4.0 * n) for n in range(6)], "symbol": ["ETH"] * 6, "open": prices,
         "close": prices}
    )  # fmt: skip
    trades = pl.DataFrame(
        [(at(-1.0), "0xa", "ETH", "Bid", 100.0, 1.0), (at(9.0), "0xa", "ETH", "Ask", 90.0, 0.5),
         (at(13.0), "0xa", "ETH", "Bid", 90.0, 0.5), (at(21.0), "0xa", "ETH", "Ask", 95.0, 1.0)],
        schema=["ts", "user", "coin", "side", "px", "sz"], orient="row",
    )  # fmt: skip
    ledger = pl.DataFrame(
        [(at(-2.0), "0xa", 100.0), (at(5.0), "0xa", 20.0)],
        schema=["ts", "user", "delta_usd"], orient="row",
    )  # fmt: skip
    spells, holdings = rebuild_traders(trades, ledger, closed(17.0), max_leverage=50.0)
    rows = trader_periods(
        spells, holdings, ledger, closed(17.0), bars, vols("ETH"),
        maintenance=0.01, bar_days=1.0 / 6.0,
    )  # fmt: skip
    assert rows["act"].to_list() == [None, "top_up", "delever", "raise", "forced"]
    assert rows["health"][:2].to_list() == pytest.approx([100.0, 90.0 / 0.9])
    assert rows["size"].to_list() == pytest.approx([100.0, 90.0, 90.0, 45.0, 90.0])


def test_a_loan_is_watched_day_by_day_to_its_end_or_that_of_the_record() -> None:
    loans = pl.DataFrame(
        [("0xa", "ETH", at(0.0), at(60.0), "repaid"), ("0xb", "ETH", at(12.0), None, "active"),
         ("0xc", "ETH", at(0.0), at(200.0), "self-liquidation"),
         ("0xd", "ETH", at(-500.0), at(10.0), "repaid")],
        schema=["address", "symbol", "start", "end", "status"], orient="row",
    )  # fmt: skip
    rows = loan_periods(
        loans, vols("ETH"), until=at(72.0), fates={"repaid": "repaid", "self-liquidation": "self"}
    )
    own = {owner: part for (owner,), part in rows.group_by("owner")}
    assert set(own) == {"0xa", "0xb", "0xc"}  # no price is known when the fourth was opened
    assert own["0xa"]["act"].to_list() == [None, None, "repaid"]
    assert own["0xa"]["span"].to_list() == [1.0, 1.0, 1.0]
    assert own["0xb"]["act"].null_count() == 3
    assert own["0xb"]["span"].to_list() == pytest.approx([1.0, 1.0, 0.5])
    assert own["0xc"]["act"].null_count() == 3  # what came after the record is unknown
    assert own["0xa"]["rise"].to_list() == [0.0] * 3


def test_volatility_is_known_only_when_its_last_bar_has_ended() -> None:
    closes = [100.0 * math.exp(0.02 * (-1) ** n) for n in range(40)]
    bars = pl.DataFrame({"ts": [at(24.0 * n) for n in range(40)], "symbol": "ETH", "close": closes})
    found = trailing_vol(bars, days=30.0, bar_days=1.0)
    assert found["ts"][0] == at(24.0)
    steps = np.diff(np.log(closes))[-30:]
    assert found["vol"][-1] == pytest.approx(steps.std(ddof=1) * math.sqrt(365.0))
    assert found["vol"][10] is None  # half of the window must have been seen


def planted(slope: float, owners: int = 150, days: int = 20) -> pl.DataFrame:
    """Owners who act more often the larger `x` is, as a record."""
    rng = np.random.default_rng(8)
    count = owners * days
    x = rng.standard_normal(count)
    came = rng.random(count) < -np.expm1(-0.05 * np.exp(slope * x))
    other = ~came & (rng.random(count) < 0.02)
    return pl.DataFrame(
        {
            "owner": np.repeat(np.arange(owners), days), "span": 1.0, "x": x,
            "ts": np.tile(np.arange(days), owners),
            "act": np.where(came, "top_up", np.where(other, "raise", "")),
        }
    ).with_columns(
        pl.col("act").replace("", None),
        ts=pl.lit(START) + pl.duration(days=pl.col("ts")),
    )  # fmt: skip


def test_planted_rates_are_found_and_foretell_what_comes_later() -> None:
    rows = planted(0.9)
    fit = fit_acts(rows, ["x"], ["top_up"])
    assert fit.clusters == 150
    low, high = fit.band([[-1.0], [1.5]], 0.99)
    true = 0.05 * np.exp(0.9 * np.array([-1.0, 1.5]))
    assert (low[:, 0] <= true).all()
    assert (true <= high[:, 0]).all()
    skill = act_skill(rows, ["x"], "top_up")
    assert skill.low > 0.0
    assert skill.brier_skill > 0.02


def test_a_column_that_says_nothing_has_no_skill() -> None:
    skill = act_skill(planted(0.0), ["x"], "top_up")
    assert skill.low < 0.0
    assert abs(skill.brier_skill) < 0.01


def test_acts_are_numbered_in_groups_and_all_others_are_one() -> None:
    rows = pl.DataFrame({"act": [None, "repay", "top_up", "forced"]})
    assert outcomes(rows, [("top_up", "repay")]).tolist() == [0.0, 1.0, 1.0, 2.0]
    assert outcomes(rows, ["repay", "top_up"]).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_rates_of_a_bucket_are_events_over_days() -> None:
    rows = planted(0.9)
    table = hazards_by(rows, "x", [0.0], ["top_up", "raise"])
    assert table["events"].sum() == rows["act"].count()
    below = table.row(0, named=True)
    assert below["rate"] == pytest.approx(below["events"] / below["days"], rel=0.05)
    assert (table["low"] < table["rate"]).all()
    assert (table["rate"] < table["high"]).all()
    assert table.filter(act="top_up")["rate"].is_sorted()
    alone = hazards_by(rows.filter(owner=3), "x", [], ["top_up"])
    assert alone["low"].to_list() == [None]


def test_an_act_that_came_once_is_not_foretold() -> None:
    rows = pl.DataFrame(
        {"owner": [1, 2], "ts": [START, START], "span": 1.0, "x": [0.0, 1.0], "act": ["a", None]}
    )
    with pytest.raises(EstimationError, match="a came 1 times"):
        act_skill(rows, ["x"], "a")
