"""Margin calls at once: by hand, against slow loops over public tables, and at the edges."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest

from crowds import crowd
from measures.crowding.extremes import BOOKS, same, sound
from measures.crowding.owned import in_two_orders
from measures.interconnection.linked import (
    ACCOUNTS,
    FREE,
    NEEDS,
    TS,
    Account,
    Free,
    book,
    planted,
    tables,
)
from undertow import schema
from undertow.errors import EstimationError, MisalignedState, StateError
from undertow.measures import Study
from undertow.measures.crowding import Crowd
from undertow.measures.interconnection.calls import calls
from undertow.measures.interconnection.needs import FirstCalls
from undertow.measures.interconnection.web import Web
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.state.book import CASH, DEBT, OPTION, PORTFOLIO
from undertow.stress import Cascade, Impact, Options, Responses, Scenario
from undertow.stress import run_cascade as follow
from undertow.stress.outages import OracleLag
from undertow.stress.shock import Price
from undertow.worlds import build_world
from undertow.worlds.population import Population

MINUTE = 60_000_000
STILL = Options(impact=Impact.NONE)
# L2 sees the fall two rounds late.
LATE = Scenario(
    name="late", shocks=(Price(asset="ETH", move=-0.2), OracleLag(hours=2.0 / 60.0, venue="L2"))
)


def row(study: Study, table: str, **at: Any) -> dict[str, Any]:
    """The one row of a table that says so."""
    return study.tables[table].row(
        by_predicate=pl.all_horizontal(pl.col(name) == value for name, value in at.items()),
        named=True,
    )


def value(study: Study, name: str, subject: str = "") -> float | None:
    return study.reading(f"interconnection.{name}", subject).value


@cache
def mapped() -> Study:
    """The planted book after a fall of a fifth."""
    return sound(calls(planted(), falls=()))


def test_needs_and_calls_are_those_of_the_book_by_hand() -> None:
    found = mapped()
    table = found.tables["calls"]
    assert dict(table.select("account", "need_usd").iter_rows()) == pytest.approx(NEEDS)
    # health at L1: 10 * 80 * 0.8 over 680; at P: 245 - 400 over 0.025 * 1,600
    assert row(found, "calls", account=0)["health"] == pytest.approx(640.0 / 680.0)
    assert row(found, "calls", account=2)["health"] == pytest.approx(-155.0 / 40.0)
    assert row(found, "calls", account=0)["to_buffer_usd"] == pytest.approx(1.05 * 680.0 - 640.0)
    assert row(found, "calls", account=2)["closed_usd"] == pytest.approx(1_600.0)
    assert table["round"].to_list() == [0] * 10
    assert value(found, "synchronised_calls") == 7.0
    assert value(found, "synchronised_need") == pytest.approx(452.5)
    assert value(found, "synchronised_share") == pytest.approx(452.5 / 520.0)
    assert value(found, "owners_called_at_once") == 3.0
    assert value(found, "most_venues_at_once") == 3.0
    assert value(found, "owners_called") == 6.0  # two of them are accounts of nobody
    assert found.says[0] == (
        "A common fall of 20 % calls 6 owners at 3 venues: 10 calls over 1 round. They need 520 "
        "USD, of which owners cannot bring 150."
    )


def test_free_assets_go_to_the_calls_of_a_round_in_proportion_to_their_need() -> None:
    found = mapped()
    for account in (0, 1, 2):  # 100 USDC, and an ETH at 80
        call = row(found, "calls", account=account)
        assert call["free_usd"] == pytest.approx(180.0)
        assert call["met_usd"] == pytest.approx(NEEDS[account] * 180.0 / 243.0)
    assert row(found, "owners", owner=1)["unmet_usd"] == pytest.approx(63.0)
    assert row(found, "owners", owner=2)["unmet_usd"] == 0.0
    assert row(found, "owners", owner=4)["met_usd"] == 0.0
    assert found.tables["calls"]["excess_usd"].null_count() == 10


def test_the_same_dollar_is_spent_once_and_on_the_first_call() -> None:
    found = sound(calls(planted(), scenario=LATE))
    first, then = (row(found, "calls", account=account) for account in (5, 6))
    assert (first["round"], then["round"]) == (0, 2)
    assert then["after_us"] == 2 * MINUTE
    assert (first["free_usd"], first["met_usd"]) == pytest.approx((60.0, 40.0))
    assert (then["free_usd"], then["met_usd"]) == pytest.approx((20.0, 20.0))
    assert row(found, "owners", owner=3)["unmet_usd"] == pytest.approx(20.0)


def test_what_is_not_money_is_spent_at_the_price_of_the_round_and_in_proportion() -> None:
    free = (Free(3, "USDC", 20.0), Free(3, "ETH", 0.5))  # 60 USD at 80 an ETH
    found = calls(book(ACCOUNTS, free), scenario=LATE)
    assert row(found, "calls", account=5)["free_usd"] == pytest.approx(60.0)
    # two thirds of both are gone; what is left is a third, and prices stayed
    assert row(found, "calls", account=6)["free_usd"] == pytest.approx(20.0)


def test_other_accounts_give_what_they_can_spare_and_no_more() -> None:
    found = sound(calls(planted(), elsewhere=True, falls=()))
    call = row(found, "calls", account=7)
    # 10 * 80 * 0.8 less 10 * 64 * 0.8
    assert (call["excess_usd"], call["met_usd"]) == pytest.approx((128.0, 40.0))
    assert row(found, "calls", account=0)["excess_usd"] == 0.0  # all others are called themselves
    deeper = calls(planted(), elsewhere=True, fall=0.36, falls=())
    assert row(deeper, "calls", account=7)["excess_usd"] == pytest.approx(0.0, abs=1e-9)


def test_what_another_account_spared_is_not_spared_twice() -> None:
    accounts = (
        Account(1, "L1", 10.0, 85.0),
        Account(1, "L2", 10.0, 85.0),
        Account(1, "P", 2.0, 50.0),
    )
    found = calls(book(accounts), scenario=LATE, elsewhere=True)
    first, then = (row(found, "calls", account=account) for account in (0, 1))
    # at P: 102.5 of cash less a loss of 40, less 4 that is asked
    assert (first["excess_usd"], first["met_usd"]) == pytest.approx((58.5, 40.0))
    assert (then["excess_usd"], then["met_usd"]) == pytest.approx((18.5, 18.5))
    assert then["unmet_usd"] == pytest.approx(21.5)


def test_profit_that_is_not_realised_cannot_leave_an_account() -> None:
    accounts = (Account(1, "L1", 1e3, 85.0), Account(1, "P", -10.0, 130.0))
    found = calls(book(accounts), elsewhere=True, falls=())
    # 332.5 of cash, and 200 of profit of which 20 is asked
    assert row(found, "calls", account=0)["excess_usd"] == pytest.approx(332.5)


def test_a_window_joins_calls_that_rounds_keep_apart() -> None:
    alone, joined = (sound(calls(planted(), scenario=LATE, window_us=us)) for us in (0, 2 * MINUTE))
    assert value(alone, "synchronised_calls") == 4.0  # 1 and 2, at L1 and P
    assert value(joined, "synchronised_calls") == 7.0
    short = calls(planted(), scenario=LATE, window_us=2 * MINUTE - 1)
    assert value(short, "synchronised_calls") == 4.0
    assert row(alone, "owners", owner=1)["at_once"] == 2
    assert row(joined, "owners", owner=1)["at_once"] == 3
    windows = joined.tables["windows"]
    assert windows["start_us"].to_list() == [0, 2 * MINUTE]
    assert windows["end_us"].to_list() == [2 * MINUTE, 4 * MINUTE]
    assert windows["calls"].to_list() == [10, 2]
    assert windows["owners_at_once"].to_list() == [3, 0]
    assert windows["at_once_need_usd"][0] == pytest.approx(452.5)
    rounds = alone.tables["rounds"]
    assert rounds["round"].to_list() == [0, 2]
    assert rounds["calls"].to_list() == [8, 2]
    assert rounds["synchronised_calls"].to_list() == [4, 0]


def test_the_matrix_of_venues_holds_what_both_call_of_the_same_owners() -> None:
    found = mapped()
    pairs = found.tables["pairs"]
    told = {(a, b): (o, n) for a, b, o, _, n, _ in pairs.iter_rows()}
    assert told["L1", "P"] == (2, pytest.approx(40.0 + 32.0))
    assert told["P", "L1"] == (2, pytest.approx(195.0 + 97.5))
    assert told["L1", "L2"] == (2, pytest.approx(80.0))
    assert told["L2", "P"] == (1, pytest.approx(8.0))
    assert len(told) == 6


def test_links_say_how_far_the_count_would_go_if_accounts_were_tied_otherwise() -> None:
    found = mapped()
    assert row(found, "links", links="as given")["synchronised_accounts"] == 7
    assert value(found, "synchronised_accounts", "every account its own owner") == 0.0
    # the two accounts of nobody would then be one owner's, at L1 and at P
    assert (
        row(found, "links", links="all unknown accounts of one owner")["synchronised_accounts"] == 9
    )
    # or that at P is 4's, who is called at L1
    assert value(found, "synchronised_accounts", "unknown accounts of anybody") == 10.0
    assert value(found, "known_owners", "accounts") == pytest.approx(10.0 / 12.0)
    assert value(found, "known_owners", "need") == pytest.approx(492.5 / 520.0)


def test_the_ladder_begins_where_thresholds_say() -> None:
    found = calls(planted(), falls=(0.2, 0.09, 0.12, 0.16))
    ladder = found.tables["ladder"]
    assert ladder["fall"].to_list() == [0.09, 0.12, 0.16, 0.2]
    # P calls under 90, L1 and L2 under 85, 1 at L2 under 82
    assert ladder["calls"].to_list() == [0, 3, 9, 10]
    assert ladder["synchronised_calls"].to_list() == [0, 0, 6, 7]
    assert ladder["need_usd"].to_list()[3] == pytest.approx(520.0)
    assert any("begin at a fall of 16 % with 6" in words for words in found.says)
    assert calls(planted(), scenario=LATE).tables["ladder"].is_empty()


def test_cash_of_the_need_makes_an_account_healthy_to_the_last_digit() -> None:
    run = follow(planted(), Scenario(name="fall", shocks=(Price(asset="ETH", move=-0.2),)))
    first = FirstCalls.of(run, 1.05)
    snapshot = run.plan.snapshot
    held, qty = snapshot.book, snapshot.book.qty.copy()
    for account, need in zip(first.account, first.need, strict=True):
        legs = np.arange(held.offset[account], held.offset[account + 1])
        money = legs[np.isin(held.kind[legs], (CASH, DEBT))]
        assert len(money) == 1
        qty[money] += need  # paid in, or paid back: USDC at 1
    market = replace(snapshot.market, mark=frozen(run.path[0]))
    judged = margins(replace(snapshot, book=replace(held, qty=frozen(qty)), market=market))
    room = (judged.cover - judged.asked)[first.account]
    assert np.abs(room).max() < 1e-9
    before = margins(replace(snapshot, market=market))
    assert set(np.flatnonzero(before.breached)) == set(first.account.tolist())


@cache
def busy() -> tuple[Snapshot, Cascade]:
    """A world of every kind of account, and what a fall of it did."""
    snapshot = build_world(5, assets=8, venues=6, population=Population(600)).snapshot()
    return snapshot, follow(
        snapshot, Scenario(name="x", shocks=(Price(asset="market", move=-0.3),))
    )


def slow(run: Cascade, apart: int) -> dict[str, Any]:
    """The map by loops over the trace, with every account judged by `margins`."""
    snapshot = run.plan.snapshot
    rows = {int(key): a for a, key in enumerate(snapshot.book.account)}
    judged, changed, seen = {}, set(), {}
    for note in run.trace().iter_rows(named=True):
        a = rows[note["account"]]
        if note["reason"] != "liquidated":
            changed.add(a)
        elif a not in seen:
            r = note["round"]
            if r not in judged:
                judged[r] = margins(
                    replace(snapshot, market=replace(snapshot.market, mark=frozen(run.path[r])))
                )
            seen[a] = (r, None if a in changed else judged[r].asked[a] - judged[r].cover[a])
    at = defaultdict(set)
    for a, (r, _) in seen.items():
        at[int(snapshot.book.owner[a])].add((int(snapshot.book.venue[a]), r))
    both = {
        (o, v, r)
        for o, some in at.items()
        for v, r in some
        if any(w != v and abs(q - r) <= apart for w, q in some)
    }
    return {"first": seen, "calls": {(o, v, r) for o in at for v, r in at[o]}, "both": both}


@pytest.mark.parametrize("apart", [0, 2])
def test_the_bound_over_ties_holds_whoever_some_tie_makes_synchronised(apart: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        owners = rng.choice(np.array([1, 2, 3, None]), 5).tolist()
        venues = rng.choice(["L1", "L2", "P"], 5).tolist()
        at = rng.choice([70.0, 85.0], 5, p=[0.3, 0.7]).tolist()
        accounts = [Account(o, v, 10.0, p) for o, v, p in zip(owners, venues, at, strict=True)]
        found = calls(book(accounts), scenario=LATE, window_us=apart * MINUTE)
        when = {n: 2 if venues[n] == "L2" else 0 for n in range(5) if at[n] > 80.0}
        unknown = [n for n in when if owners[n] is None]
        reached = set()
        for ties in product((1, 2, 3, 4), repeat=len(unknown)):
            tied = {n: owners[n] for n in when} | dict(zip(unknown, ties, strict=True))
            reached |= {
                n
                for n, m in product(when, when)
                if tied[m] == tied[n] and venues[m] != venues[n]
                if abs(when[m] - when[n]) <= apart
            }
        bound = value(found, "synchronised_accounts", "unknown accounts of anybody")
        assert bound == len(reached)


@pytest.mark.parametrize("apart", [0, 1])
def test_a_world_is_called_as_slow_loops_over_its_trace_say(apart: int) -> None:
    snapshot, run = busy()
    found = sound(calls(snapshot, scenario=run, window_us=apart * MINUTE, most=None))
    want, after = slow(run, apart), run.plan.snapshot
    assert value(found, "calls") == len(want["calls"])
    assert value(found, "synchronised_calls") == len(want["both"]) > 10
    assert found.tables["calls"]["synchronised"].sum() == len(want["both"])
    by_round = {r: sum(1 for call in want["calls"] if call[2] == r) for r in range(run.rounds)}
    told = dict(found.tables["rounds"].select("round", "calls").iter_rows())
    assert told == {r: n for r, n in by_round.items() if n}
    first = FirstCalls.of(run, 1.05)
    plain = after.book.mode[first.account] != PORTFOLIO
    compared = 0
    for a, r, need in zip(first.account[plain], first.round[plain], first.need[plain], strict=True):
        assert want["first"][a][0] == r
        if want["first"][a][1] is not None:
            assert need == pytest.approx(want["first"][a][1], rel=1e-9)
            compared += 1
    assert compared > 250
    assert len(first) == len(want["first"])


def test_free_assets_of_a_world_are_spent_as_a_slow_loop_spends_them() -> None:
    snapshot, run = busy()
    found = calls(snapshot, scenario=run, most=None)
    after, first = run.plan.snapshot, FirstCalls.of(run, 1.05)
    universe, spot = after.universe, {}
    for k, asset in enumerate(universe.asset_of):  # the first spot of each asset prices it
        if universe.kind[k] == 1 and after.market.priced[k]:
            spot.setdefault(int(asset), k)
    left = defaultdict(dict)
    for o, asset, qty in zip(after.free.owner, after.free.asset, after.free.qty, strict=True):
        left[int(o)][int(asset)] = left[int(o)].get(int(asset), 0.0) + float(qty)
    met, asked = defaultdict(float), defaultdict(lambda: defaultdict(float))
    for a, r, need in zip(first.account, first.round, first.need, strict=True):
        asked[int(r)][int(after.book.owner[a])] += float(need)
    for r in sorted(asked):
        for o, need in asked[r].items():
            start = run.plan.insts["start"]
            worth = sum(
                qty * after.market.spot[spot[asset]] * run.path[r, spot[asset]] / start[spot[asset]]
                for asset, qty in left[o].items()
            )
            paid = min(worth, need)
            met[o] += paid
            for asset in left[o]:
                left[o][asset] *= 1.0 - paid / worth if worth > 0.0 else 1.0
    told = found.tables["owners"].filter(pl.col("owner").is_not_null())
    keys = after.book.owners
    want = {int(keys[o]): usd for o, usd in met.items() if keys[o] >= 0}
    assert sum(usd > 0.0 for usd in want.values()) > 20
    assert dict(told.select("owner", "met_usd").iter_rows()) == pytest.approx(
        want, rel=1e-9, abs=1e-9
    )
    assert value(found, "call_unmet") == pytest.approx(first.need.sum() - sum(met.values()))


def test_health_is_what_the_cascade_wrote_down_also_where_an_account_was_changed_before() -> None:
    _, run = busy()
    first = FirstCalls.of(run, 1.05)
    written = first.noted != 0.0
    health = first.cover[written] / first.asked[written]
    assert health == pytest.approx(first.noted[written], rel=1e-9)
    log = run.log
    at = dict(zip(first.account.tolist(), first.round.tolist(), strict=True))
    earlier = [n for n in log if n["reason"] == 1 and n["round"] < at.get(int(n["account"]), -1)]
    assert earlier  # winners who paid for others, and were called themselves later


def test_a_ladder_that_was_sold_down_is_judged_on_what_is_left_of_it() -> None:
    falls = np.linspace(0.02, 0.3, 60)
    snapshot = crowd(falls, np.full(60, 1e4), share=0.4, profile="crvusd")
    run = follow(snapshot, Scenario(name="x", shocks=(Price(asset="market", move=-0.4),)))
    reasons = run.trace()["reason"].to_list()
    first = FirstCalls.of(run, 1.05)
    assert "converted" in reasons
    assert len(first)
    written = first.noted != 0.0
    assert written.any()
    assert first.cover[written] / first.asked[written] == pytest.approx(
        first.noted[written], rel=1e-9
    )


@pytest.mark.parametrize(("seed", "move"), [(6, -0.5), (5, 0.3)])
def test_portfolio_groups_need_what_their_grid_asks(seed: int, move: float) -> None:
    snapshot = build_world(seed, assets=8, venues=6, population=Population(600)).snapshot()
    shock = Price(asset="market", move=move)
    run = follow(snapshot, Scenario(name="x", shocks=(shock,), options=STILL))
    after, first = run.plan.snapshot, FirstCalls.of(run, 1.05)
    option = after.universe.kind == schema.INSTRUMENT_KINDS.index("option")
    index = frozen(np.where(option, after.market.index * (1.0 + move), after.market.index))
    moved = replace(after.market, mark=frozen(run.path[0]), index=index)
    judged = margins(replace(after, market=moved))
    who = np.flatnonzero((after.book.mode[first.account] == PORTFOLIO) & (first.round == 0))
    assert len(who) == 4
    assert np.isin(first.account[who], after.book.leg_account[after.book.kind == OPTION]).all()
    want = (judged.asked - judged.cover)[first.account[who]]
    assert first.need[who] == pytest.approx(want, rel=1e-9)


def test_rows_in_another_order_and_other_names_of_owners_change_nothing() -> None:
    one, other = (calls(each, falls=(0.2,), elsewhere=True) for each in in_two_orders())
    assert same(one, other)
    names = {1: 900, 2: 41, 3: 7, 4: 1_000, 5: 3}
    renamed = book(
        [each._replace(owner=names.get(each.owner)) for each in ACCOUNTS],
        [each._replace(owner=names[each.owner]) for each in FREE],
    )
    plain, mapped = (calls(each, falls=()).tables["calls"] for each in (planted(), renamed))
    wanted = plain.with_columns(pl.col("owner").replace(names)).sort("account")
    assert mapped.sort("account").equals(wanted)


def test_a_cascade_and_the_scenario_that_it_is_of_give_the_same_map() -> None:
    run = follow(planted(), LATE)
    one, other = (calls(planted(), scenario=each) for each in (LATE, run))
    assert all(one.tables[name].equals(other.tables[name]) for name in one.tables)
    assert one.says[0].startswith("The scenario late calls 6 owners at 3 venues: 10 calls over 2 ")
    assert "the last after 2 minutes" in one.says[0]
    applied = calls(planted(), scenario=LATE.apply(planted()))
    assert applied.tables["calls"].equals(one.tables["calls"])


def test_tables_hold_the_largest_needs_and_sums_hold_all() -> None:
    whole, part = (calls(planted(), falls=(), most=most) for most in (None, 3))
    assert part.tables["calls"]["account"].to_list() == [2, 4, 0]
    assert value(part, "call_need") == value(whole, "call_need")
    assert "The table of calls holds the 3 largest of 10." in part.says


def test_no_shock_calls_nobody() -> None:
    found = sound(calls(planted(), fall=0.0, falls=()))
    assert found.says[0] == "A common fall of 0 % calls nobody."
    assert found.headline is not None
    assert found.headline.value == 0.0
    assert value(found, "synchronised_share") is None
    assert all(found.tables[name].is_empty() for name in ("calls", "owners", "pairs", "rounds"))


def test_what_is_due_today_is_no_call_of_the_shock() -> None:
    due = crowd([-0.1, 0.15, 0.3], [1e3] * 3, share=0.01)
    assert value(calls(Crowd(due, STILL), falls=()), "calls") == 1.0


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_are_told_soundly(name: str) -> None:
    found = sound(calls(BOOKS[name](), fall=0.3, falls=(0.1,)))
    assert value(found, "synchronised_calls") == 0.0  # all of one account an owner, or of nobody


def test_a_book_without_accounts_calls_nobody() -> None:
    empty = {**tables((), ())}
    found = sound(calls(Snapshot.from_tables(empty, TS), falls=(0.1,)))
    assert found.says[0] == "A common fall of 20 % calls nobody."
    assert value(found, "known_owners", "accounts") is None


def test_bands_hold_the_number_and_few_owners_have_none() -> None:
    snapshot, run = busy()
    many = calls(snapshot, scenario=run).reading("interconnection.synchronised_need")
    assert many.low is not None
    assert many.low < many.value < many.high
    few = mapped()
    assert few.reading("interconnection.synchronised_calls").low is None  # three owners
    assert few.reading("interconnection.calls").low is not None  # six


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scenario": "2022-05-ust"}, StateError, "it must be a Scenario"),
        ({"scenario": 3}, StateError, "scenario was of type int"),
        ({"fall": 1.0}, StateError, r"fall was 1\.0"),
        ({"fall": float("nan")}, StateError, "fall was nan"),
        ({"window_us": -1}, StateError, "window_us was -1"),
        ({"buffer": 0.9}, StateError, r"buffer was 0\.9"),
        ({"falls": 0.2}, StateError, r"falls was 0\.2"),
        ({"falls": (2.0,)}, StateError, r"a fall of the ladder was 2\.0"),
        ({"most": 0}, StateError, "most was 0"),
        ({"seed": -1}, StateError, "seed was -1"),
        ({"level": 1.0}, EstimationError, "level was 1"),
        ({"reps": 3}, EstimationError, "reps was 3"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        calls(planted(), **options)


def test_cascades_that_do_not_say_who_was_called_are_refused() -> None:
    fall = Scenario(name="fall", shocks=(Price(asset="ETH", move=-0.2),))
    with pytest.raises(StateError, match="no trace"):
        calls(planted(), scenario=follow(planted(), fall, trace=False))
    answering = replace(fall, options=Options(responses=Responses(top_up=True)))
    with pytest.raises(StateError, match="owners answer"):
        calls(planted(), scenario=answering)
    with pytest.raises(MisalignedState, match="another book"):
        calls(busy()[0], scenario=follow(planted(), fall))
    with pytest.raises(StateError, match="no asset is called 'UST'"):
        calls(planted(), scenario=Scenario(name="x", shocks=(Price(asset="UST", move=-0.5),)))


def test_a_cascade_that_was_cut_short_says_so() -> None:
    snapshot, _ = busy()
    short = Scenario(
        name="x", shocks=(Price(asset="market", move=-0.3),), options=Options(max_rounds=1)
    )
    found = sound(calls(snapshot, scenario=short))
    assert any("still selling after its last round, 1." in words for words in found.says)


def test_a_web_round_the_book_is_as_good_as_the_book() -> None:
    snapshot = book([Account(1, "L1", 10.0, 90.0), Account(1, "L2", 10.0, 90.0)])
    plain, web = (calls(each, fall=0.2, falls=()) for each in (snapshot, Web.of(snapshot)))
    assert web.tables["calls"].equals(plain.tables["calls"])
