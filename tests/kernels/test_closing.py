"""Sizing and sharing of liquidations: twins to the bit, and what no liquidation may do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from undertow.kernels import closing as kernel
from undertow.rules.closing import venue_columns
from undertow.rules.profile import ClosingRules, Mechanism, load_profile, profile_names
from undertow.rules.rounding import ceil_to, floor_to

AMOUNT = st.floats(1.0, 1e7)
SHARE = st.floats(0.01, 0.99)
PAIRS = [ClosingRules(mechanism=Mechanism.PAIR)] + [
    rules
    for rules in (load_profile(name).closing for name in profile_names())
    if rules is not None and rules.mechanism is Mechanism.PAIR
]


@st.composite
def borrowers(draw: Any) -> tuple[kernel.Standing, kernel.Pair]:
    """An account under water with a pair in it, whose terms let a repayment help."""
    held, debt = draw(AMOUNT), draw(AMOUNT)
    threshold, bonus = draw(st.floats(0.3, 0.9)), draw(st.floats(0.0, 0.1))
    rest, owed = draw(st.floats(0.0, 1e7)), draw(st.floats(0.0, 1e7))
    cover = threshold * held + 0.8 * rest
    standing = kernel.Standing(cover, debt + owed, debt + owed)
    assume(standing.cover < standing.asked)
    return standing, kernel.Pair(held, 1.0, threshold, bonus, debt, 1.0, 1.0)


@given(borrowers(), st.sampled_from(PAIRS), st.sampled_from([0.0, 1e-6, 0.01]))
def test_compiled_and_plain_liquidations_are_the_same_bits(case, rules, quantum) -> None:
    standing, pair = case
    columns, quanta = venue_columns([rules]), kernel.Quanta(quantum, quantum, quantum)
    args = (0, columns, standing, pair)
    assert kernel.attempt(*args, 500.0, quanta) == kernel.attempt.py_func(*args, 500.0, quanta)
    assert kernel.closed_pair(*args, quanta) == kernel.closed_pair.py_func(*args, quanta)
    values = (standing.cover, standing.asked, standing.debt, pair.held, pair.debt,
              pair.threshold, pair.bonus, 1.0)  # fmt: skip
    assert kernel.close_pair(0, columns, *values) == kernel.close_pair.py_func(0, columns, *values)
    assert kernel.protocol_cut(pair.held, 0.05, 0.1, quantum) == kernel.protocol_cut.py_func(
        pair.held, 0.05, 0.1, quantum
    )


@settings(max_examples=20)  # the plain twins of every function at every venue
@given(AMOUNT, AMOUNT, AMOUNT, SHARE, SHARE)
def test_compiled_and_plain_scalars_are_the_same_bits(a, b, c, x, y) -> None:
    columns = venue_columns([load_profile(name).closing for name in profile_names()])
    for v in range(len(profile_names())):
        for function, args in (
            (kernel.close_whole, (a, b, x)),
            (kernel.slice_share, (a, b, c)),
            (kernel.closing_fee, (c, a)),
            (kernel.takes_over, (a, b)),
            (kernel.bonus_at, (x, y)),
        ):
            assert function(v, columns, *args) == function.py_func(v, columns, *args), function
    for function, args in (
        (kernel.band_range, (a, b, 100.0, 10.0, x)),
        (kernel.band_share, (a, b, b * x)),
        (kernel.needed, (a, x - y)),
        (kernel.adl_score, (a - b, b, c, a)),
        (kernel.liability_to_cover, (a, b, 1.0 + x, y, 1.05, 0.01)),
        (kernel.insurance_share, (a, c, x, y, 0.05)),
        (kernel.loss_per_unit, (a, b, -c, 1e-6)),
        (kernel.to_target, (a, b, 1.05, x, 1.0, y)),
        (kernel.seized_for, (a, b, c, x, 1.0)),
        (kernel.repaid_for, (a, b, c, x, 1.0)),
    ):
        assert function(*args) == function.py_func(*args), function


@given(st.floats(-1e12, 1e12), st.sampled_from([1e-8, 0.01, 1.0]))
def test_scalars_round_as_columns_do(value: float, quantum: float) -> None:
    assert kernel.floor_to(value, quantum) == float(floor_to(value, quantum))
    assert kernel.ceil_to(value, quantum) == float(ceil_to(value, quantum))
    assert kernel.floor_to(value, 0.0) == value == kernel.ceil_to(value, 0.0)


@given(borrowers(), st.sampled_from(PAIRS))
def test_no_more_is_taken_or_repaid_than_there_is_and_the_bonus_is_exact(case, rules) -> None:
    standing, pair = case
    repaid, seized, bonus, status = kernel.closed_pair(
        0, venue_columns([rules]), standing, pair, kernel.EXACT
    )
    assert 0.0 <= repaid <= pair.debt
    assert 0.0 <= seized <= pair.held
    assert (repaid > 0.0) == (status == kernel.CLOSED)
    assert seized == pytest.approx(repaid * (1.0 + bonus), rel=1e-12)


@given(borrowers(), st.sampled_from(PAIRS))
def test_what_a_liquidator_leaves_is_nothing_or_enough(case, rules) -> None:
    standing, pair = case
    repaid, seized, _, status = kernel.closed_pair(
        0, venue_columns([rules]), standing, pair, kernel.EXACT
    )
    if status == kernel.CLOSED and repaid < pair.debt and seized < pair.held:
        least = rules.leftover_usd * (1.0 - 1e-9)
        assert pair.debt - repaid >= least
        assert pair.held - seized >= least


@given(borrowers(), st.floats(0.001, 0.2))
def test_health_rises_only_where_it_is_over_threshold_and_bonus(case, part: float) -> None:
    standing, pair = case
    repaid, seized = kernel.trade(part * pair.debt, pair, pair.bonus, kernel.EXACT)
    assume(repaid < standing.asked * 0.999)
    before = standing.cover / standing.asked
    after = (standing.cover - pair.threshold * seized) / (standing.asked - repaid)
    edge = pair.threshold * (1.0 + pair.bonus)
    assume(abs(before - edge) > 1e-6 and abs(after - before) > 1e-12)
    assert (after > before) == (before > edge)


@given(
    AMOUNT, st.floats(0.3, 0.85), st.floats(0.0, 0.1), st.floats(0.05, 0.95), st.floats(1.0, 1.3)
)
def test_a_target_health_is_hit_exactly_where_the_pair_allows(
    debt: float, threshold: float, bonus: float, place: float, target: float
) -> None:
    edge = threshold * (1.0 + bonus)
    health = edge + place * (1.0 - edge)  # over the edge, and so within what the pair allows
    pair = kernel.Pair(health * debt / threshold, 1.0, threshold, bonus, debt, 1.0, 1.0)
    rules = ClosingRules(
        mechanism=Mechanism.PAIR, target_health=target, bonus_start=0.5, bonus_full_at=0.8
    )
    repaid, seized, used, status = kernel.closed_pair(
        0, venue_columns([rules]), kernel.Standing(health * debt, debt, debt), pair, kernel.EXACT
    )
    assert status == kernel.CLOSED
    after = (health * debt - threshold * seized) / (debt - repaid)
    assert after == pytest.approx(target, rel=1e-7)
    assert 0.5 * bonus * (1.0 - 1e-12) <= used <= bonus


@given(st.lists(st.floats(0.1, 2.0), min_size=2, max_size=20), st.floats(4.0, 50.0))
def test_a_ladder_sells_more_the_lower_the_price(moves: list[float], count: float) -> None:
    top, bottom = kernel.band_range(700.0, 1.0, 100.0, count, 0.09)
    assert bottom < 700.0 / 0.91 < top
    assert top / bottom == pytest.approx((100.0 / 99.0) ** count, rel=1e-12)
    shares = [kernel.band_share(700.0 * m, top, bottom) for m in sorted(moves, reverse=True)]
    assert shares == sorted(shares)
    assert kernel.band_share(top, top, bottom) == 0.0
    assert kernel.band_share(bottom, top, bottom) == 1.0
    assert kernel.band_share(math.sqrt(top * bottom), top, bottom) == pytest.approx(0.5)


@given(
    st.sampled_from(["dydx-v4", "drift-v2", "deribit", "hyperliquid"]),
    st.floats(1e3, 1e8), st.floats(0.03, 0.2), st.floats(0.7, 0.99999),
)  # fmt: skip
def test_slices_bring_a_margin_group_back_to_health(name, notional, rate, health) -> None:
    """At prices that stand still equity falls by fees alone, and maintenance with the size."""
    columns = venue_columns([load_profile(name).closing])
    equity = health * rate * notional
    for _ in range(200):
        asked = rate * notional
        share = kernel.slice_share(0, columns, equity, asked, notional)
        if share == 0.0 or equity >= asked * (1.0 - 1e-9):
            break
        equity -= kernel.closing_fee(0, columns, share * notional, equity)
        notional *= 1.0 - share
    assert equity >= rate * notional * (1.0 - 1e-9)


@given(AMOUNT, AMOUNT, st.floats(0.0, 0.2))
def test_what_is_seized_whole_is_all_accounted_for(held, debt, bonus) -> None:
    names = ("compound-v3", "sky", "liquity-v1", "crvusd")
    columns = venue_columns([load_profile(name).closing for name in names])
    for v, name in enumerate(names):
        seized, repaid, penalty, bad, credit = kernel.close_whole(v, columns, held, debt, bonus)
        assert seized <= held * (1.0 + 1e-12), name
        assert repaid + bad == pytest.approx(debt, rel=1e-12)
        assert min(repaid, penalty, bad, credit) >= 0.0
        gain = seized - repaid - penalty - credit
        assert gain >= -1e-9 * debt, name


def test_winners_rank_by_profit_times_leverage() -> None:
    score = kernel.adl_score(10.0, 100.0, 110.0, 20.0)
    assert score == pytest.approx(0.1 * 5.5)
    assert kernel.adl_score(-1.0, 100.0, 99.0, 20.0) == 0.0
    assert kernel.adl_score(1.0, 100.0, 101.0, 0.0) == math.inf


def test_columns_are_documented_one_by_one_and_read_only() -> None:
    words = kernel.__doc__ or ""
    columns = venue_columns([None, load_profile("aave-v3").closing])
    assert [name for name in kernel.Closing._fields if name not in words] == []
    assert columns.mechanism.tolist() == [kernel.NOTHING, kernel.PAIR]
    assert not any(column.flags.writeable for column in columns)
    assert columns.mechanism.dtype == np.int8
    assert columns.delay_us.dtype == np.int64
    assert columns.of_all_debt.dtype == np.bool_
