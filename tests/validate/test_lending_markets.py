"""Lending markets rebuilt from planted logs; who can leave them, and what their lenders lose."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.errors import StateError
from undertow.rules.adaptive import AdaptiveCurve
from undertow.validate.exits import (
    by_activity,
    exits,
    implied_rate,
    incentive,
    lock,
    locked_debt,
    market_loss,
    net_exits,
)
from undertow.validate.lenders import (
    SHARES,
    RolledMarket,
    check_roll,
    rebuild_market,
    roll_back,
    roll_forward,
)
from undertow.validate.vaults import (
    by_allocation,
    by_deposits,
    claims_left,
    drawdowns,
    marked_losses,
    score_losses,
    share_losses,
)

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
USERS = ("a", "b", "c", "d")
HOURS = 48


def at(hour: float) -> dt.datetime:
    return START + dt.timedelta(hours=hour)


def as_frame(held: dict[str, np.ndarray]) -> pl.DataFrame:
    columns = {name: [row[k] for row in held.values()] for k, name in enumerate(SHARES)}
    return pl.DataFrame({"user": list(held), **columns})


def planted(seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, list[pl.DataFrame]]:
    """A market lived hour by hour, with interest: final positions, log, totals, and the truth."""
    rng = np.random.default_rng(seed)
    supply_index, borrow_index = 1.02, 1.05
    held = {user: np.array([rng.uniform(50.0, 100.0), 0.0, 500.0]) for user in USERS}
    held["d"][1] = 60.0
    acts: list[tuple[object, ...]] = []
    totals: list[tuple[object, ...]] = []
    truth: list[pl.DataFrame] = []
    for hour in range(HOURS):
        supplied, borrowed = (
            sum(row[k] for row in held.values()) * index
            for k, index in ((0, supply_index), (1, borrow_index))
        )
        totals.append((at(hour), supplied, borrowed, sum(row[2] for row in held.values())))
        truth.append(as_frame(held))
        user, kind = rng.choice(USERS), rng.choice(["supply", "withdraw", "borrow", "repay"])
        k, index = (0, supply_index) if kind in ("supply", "withdraw") else (1, borrow_index)
        room = {
            "supply": 20.0,
            "borrow": 0.5 * (supplied - borrowed),
            "withdraw": min(held[user][0] * index, 0.5 * (supplied - borrowed)),
            "repay": held[user][1] * index,
        }[kind]
        amount = rng.uniform(0.1, 0.9) * room
        sign = 1.0 if kind in ("supply", "borrow") else -1.0
        if amount > 1e-6:
            held[user][k] += sign * amount / index
            acts.append((at(hour + 1e-6), str(user), str(kind), amount, amount / index))
        if rng.random() < 0.3:
            held[user][2] += 5.0
            acts.append((at(hour + 2e-6), str(user), "add_collateral", 5.0, None))
        supplied, borrowed = (
            sum(row[k] for row in held.values()) * index
            for k, index in ((0, supply_index), (1, borrow_index))
        )
        interest = borrowed * rng.uniform(0.0, 1e-3)
        borrow_index *= 1.0 + interest / borrowed if borrowed else 1.0
        supply_index *= 1.0 + interest / supplied
    final = as_frame(held)
    log = pl.DataFrame(acts, schema=["ts", "user", "kind", "assets", "shares"], orient="row")
    stated = pl.DataFrame(totals, schema=["ts", "supplied", "borrowed", "collateral"], orient="row")
    return final, log, stated, truth


def made(
    claims: dict[str, float], debts: dict[str, tuple[float, float]], idle: float
) -> RolledMarket:
    """A market with these claims, these debts over collateral, and so much idle on top."""
    owed = sum(debt for debt, _ in debts.values())
    return RolledMarket(
        START,
        pl.DataFrame({"user": list(claims), "claim": list(claims.values())}).sort(
            "claim", "user", descending=[True, False]
        ),
        pl.DataFrame(
            [(user, debt, held) for user, (debt, held) in debts.items()],
            schema={"user": pl.String, "debt": pl.Float64, "collateral": pl.Float64},
            orient="row",
        ),
        owed + idle,
        owed,
    )


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, HOURS - 1))
def test_a_market_rolled_back_is_the_market_that_was(seed: int, hour: int) -> None:
    final, log, stated, truth = planted(seed)
    back = roll_back(final, log, at(hour)).sort("user")
    was = truth[hour].sort("user")
    for name in SHARES:
        assert np.allclose(back[name], was[name], atol=1e-9)
    market = rebuild_market(final, log, stated, at(hour))
    assert market.lenders["claim"].sum() == pytest.approx(market.supplied)
    assert market.borrowers["debt"].sum() == pytest.approx(market.borrowed)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, HOURS - 1))
def test_rolled_forward_again_it_is_where_it_ended(seed: int, hour: int) -> None:
    final, log, _, _ = planted(seed)
    again = roll_forward(roll_back(final, log, at(hour)), log, at(hour), at(HOURS)).sort("user")
    for name in SHARES:
        assert np.allclose(again[name], final.sort("user")[name], atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_whole_log_passes_every_check(seed: int) -> None:
    final, log, stated, _ = planted(seed)
    check = check_roll(final, log, stated)
    assert check.idle_error < 1e-9
    assert check.collateral_error < 1e-12
    assert check.index_falls == 0
    assert check.index_error < 1e-9
    assert check.overdrawn < 1e-9


def test_a_log_that_lacks_an_act_is_found_out() -> None:
    final, log, stated, _ = planted(3)
    lent = log.with_row_index().filter(pl.col("kind") == "supply")["index"]
    holed = log.with_row_index().filter(pl.col("index") != lent[1]).drop("index")
    check = check_roll(final, holed, stated)
    assert check.idle_error > 0.1
    assert check.index_error > 1e-4


def test_an_act_of_unknown_kind_and_a_time_not_stated_are_refused() -> None:
    final, log, stated, _ = planted(0)
    with pytest.raises(StateError, match="flash"):
        roll_back(final, log.with_columns(kind=pl.lit("flash")), at(0))
    with pytest.raises(StateError, match="give a time that is stated"):
        rebuild_market(final, log, stated, at(0.5))


CLAIMS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 1e6), min_size=1)


@given(CLAIMS, st.floats(0.0, 1.5), st.randoms(use_true_random=False))
def test_exits_share_out_what_is_idle_whatever_the_order(
    claims: dict[str, float], part: float, rng: object
) -> None:
    total = sum(claims.values())
    idle = part * total
    order = list(claims)
    rng.shuffle(order)  # type: ignore[attr-defined]
    market = made(claims, {"z": (total, 0.0)}, idle)
    out = exits(market, order)
    paid = min(idle, total)
    for how in ("first_come", "pro_rata"):
        assert out[how].sum() == pytest.approx(paid)
        assert (out[how] <= out["most"] * (1 + 1e-9) + 1e-6).all()
        assert (out[how] >= out["least"] * (1 - 1e-9) - 1e-6).all()
    served = out["first_come"].to_list()
    short = next((k for k, r in enumerate(out.to_dicts()) if r["first_come"] < r["claim"]), None)
    if short is not None:
        assert sum(served[short + 1 :]) == pytest.approx(0.0, abs=1e-6)


def test_the_range_of_exits_is_reached_by_the_first_and_the_last() -> None:
    market = made({"a": 60.0, "b": 50.0, "c": 10.0}, {"z": (60.0, 0.0)}, 60.0)
    rows = {row["user"]: row for row in exits(market).to_dicts()}
    assert (rows["a"]["most"], rows["b"]["most"], rows["c"]["most"]) == (60.0, 50.0, 10.0)
    for last in "abc":
        order = [user for user in "abc" if user != last]
        out = {row["user"]: row["first_come"] for row in exits(market, order).to_dicts()}
        assert out[last] == rows[last]["least"]
        first = {row["user"]: row for row in exits(market, [last]).to_dicts()}
        assert first[last]["first_come"] == rows[last]["most"]


def test_a_market_locks_if_lenders_want_more_than_is_idle() -> None:
    market = made({"a": 60.0, "b": 50.0, "c": 10.0}, {"z": (60.0, 0.0)}, 60.0)
    said = lock(market, pace=15.0)
    assert (said.locks, said.alone, said.hours) == (True, 1, 4.0)
    assert not lock(made({"a": 60.0}, {}, 60.0), pace=1.0).locks
    assert math.isinf(lock(market, pace=0.0).hours)


@given(st.floats(0.0, 1.0), st.floats(0.3, 0.98), st.booleans())
def test_what_is_owed_is_recovered_written_off_or_owed_for_good(
    recovery: float, threshold: float, follows: bool
) -> None:
    debts = {"x": (80.0, 100.0), "y": (10.0, 50.0), "z": (5.0, 1.0)}
    market = made({"a": 120.0}, debts, 25.0)
    found = market_loss(
        market, price=1.0, recovery=recovery, threshold=threshold, oracle_follows=follows
    )
    assert found.recovered + found.lost == pytest.approx(market.borrowed)
    assert min(found.recovered, found.realised, found.unrealised) >= 0.0


def test_only_an_oracle_that_follows_lets_anybody_write_off() -> None:
    market = made({"a": 120.0}, {"x": (80.0, 100.0)}, 40.0)
    ask = {"price": 1.0, "recovery": 0.5, "threshold": 0.86}
    follows = market_loss(market, **ask)  # type: ignore[arg-type]
    stays = market_loss(market, **ask, oracle_follows=False)  # type: ignore[arg-type]
    assert follows.recovered == pytest.approx(50.0 / incentive(0.86))
    assert follows.realised == pytest.approx(80.0 - 50.0 / incentive(0.86))
    assert (stays.recovered, stays.realised, stays.unrealised) == (0.0, 0.0, 80.0)
    nothing = market_loss(market, price=1.0, recovery=0.0, threshold=0.86)
    assert (nothing.realised, nothing.unrealised) == (0.0, 80.0)  # nobody closes for nothing


def test_the_incentive_is_that_of_the_paper() -> None:
    assert incentive(0.86) == pytest.approx(1.0 / (1.0 - 0.3 * 0.14))
    assert incentive(0.385) == 1.15


def test_locked_debts_grow_faster_by_the_day() -> None:
    curve = AdaptiveCurve()
    days = [locked_debt(100.0, 0.1, 24.0 * k, curve=curve) for k in range(4)]
    steps = np.diff(np.log(days))
    assert (np.diff(steps) > 0.0).all()
    assert days[0] == 100.0
    assert implied_rate(100.0, 100.0 * (1.0 + 0.2 / 8_760.0), 3_600.0) == pytest.approx(0.2)


def test_the_busiest_lenders_are_said_to_leave_first() -> None:
    acts = pl.DataFrame(
        [
            (at(1), "a", "supply", 5.0, 5.0),
            (at(2), "b", "supply", 5.0, 5.0),
            (at(3), "a", "withdraw", 2.0, 2.0),
            (at(4), "c", "borrow", 1.0, 1.0),
            (at(9), "b", "withdraw", 4.0, 4.0),
        ],
        schema=["ts", "user", "kind", "assets", "shares"],
        orient="row",
    )
    assert by_activity(acts, at(0), at(5)) == ["a", "b"]
    assert by_activity(acts, at(1), at(9)) == ["b", "a"]
    assert net_exits(acts, at(2), at(9)).rows() == [("b", 4.0), ("a", 2.0)]


@given(CLAIMS, st.floats(0.0, 0.9))
def test_leaving_in_proportion_changes_nobodys_loss(claims: dict[str, float], part: float) -> None:
    total = sum(claims.values())
    market = made(claims, {"z": ((1.0 - part) * total, 0.0)}, part * total)
    out, lost = exits(market), (1.0 - part) * total
    for how in ("pro_rata", None, "first_come"):
        left = claims_left(out, lost, how=how)
        losses = dict(left.select("vault", pl.col("left") * pl.col("lost")).iter_rows())
        assert sum(losses.values()) == pytest.approx(lost)
        if how != "first_come":
            for user, claim in claims.items():
                assert losses[user] == pytest.approx(claim / total * lost)


def test_a_run_leaves_those_who_stay_with_the_claim_alone() -> None:
    claims = pl.DataFrame(
        {"vault": ["a", "b"], "left": [10.0, 0.5], "lost": [0.8, 0.8], "most": [1.0, 0.8]}
    )
    assets = pl.DataFrame({"vault": ["a", "b", "c", "d"], "assets": [100.0, 50.0, 20.0, 0.0]})
    found = share_losses(claims, assets).select("vault", "loss", "run").rows()
    assert found == [("a", 0.08, 1.0), ("b", 0.008, 0.0), ("c", 0.0, 0.0)]


def test_naive_losses_add_up_to_what_is_lost() -> None:
    assets = pl.DataFrame({"vault": ["a", "b"], "assets": [300.0, 100.0]})
    allocated = pl.DataFrame({"vault": ["a", "b"], "allocated": [30.0, 10.0]})
    for said in (by_deposits(20.0, assets), by_allocation(20.0, allocated, assets)):
        both = said.join(assets, on="vault")
        assert (both["loss"] * both["assets"]).sum() == pytest.approx(20.0)
    with pytest.raises(StateError, match="add up to 0"):
        by_allocation(1.0, allocated.with_columns(allocated=0.0), assets)


def test_scores_count_hits_misses_and_alarms() -> None:
    said = pl.DataFrame({"vault": list("abcd"), "loss": [0.5, 0.0, 0.1, 0.0]})
    was = pl.DataFrame({"vault": list("dcba"), "loss": [0.0, 0.0, 0.2, 0.9]})
    score = score_losses(said, was)
    assert (score.hits, score.misses, score.false_alarms, score.quiet) == (1, 1, 1, 1)
    assert score.error == pytest.approx((0.4 + 0.2 + 0.1) / 4)
    assert math.isnan(score_losses(said.with_columns(loss=0.1), was).rank)
    with pytest.raises(StateError, match="same vaults"):
        score_losses(said.head(2), was)


def test_share_prices_fall_below_where_they_stood_and_claims_are_marked() -> None:
    rows = [(0, "a", 2.0), (1, "a", 2.2), (2, "a", 1.0), (0, "b", 1.0), (2, "b", 3.0)]
    prices = pl.DataFrame(
        [(at(hour), *row) for hour, *row in rows], schema=["ts", "vault", "price"], orient="row"
    )
    assert drawdowns(prices, since=at(0)).rows() == [("a", 0.5), ("b", 0.0)]
    start = prices.filter(pl.col("ts") == at(0)).select("vault", "price")
    end = pl.DataFrame(
        {"vault": ["a", "b"], "price": [1.0, 3.0], "assets": [10.0, 10.0], "claim": [None, 8.0]}
    )
    marked = dict(marked_losses(start, end).iter_rows())
    assert marked["a"] == pytest.approx(0.5)
    assert marked["b"] == pytest.approx(1.0 - 3.0 * 0.2)
