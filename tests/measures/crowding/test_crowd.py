"""A book as crowding looks at it: sums by hand and by loops, other depths, evidence, readings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crowds import PRICE, THRESHOLD, crowd
from measures.crowding.extremes import BOOKS, mixed, nothing, small_book, small_world
from measures.crowding.owned import UNKNOWN, owned_by, peopled, under_water
from undertow import schema
from undertow.errors import StateError
from undertow.measures.crowding import Crowd
from undertow.rules.margins import margins
from undertow.state.book import OPTION
from undertow.stress import Plan


def test_what_is_leveraged_is_debt_and_gross_notional_and_leans_by_its_sign() -> None:
    lent = Crowd.of(crowd([0.1, 0.3], [1e3, 2e3], share=0.5))
    debt = THRESHOLD * np.array([1e3 * 0.9, 2e3 * 0.7])
    np.testing.assert_allclose(lent.leveraged, debt)
    np.testing.assert_allclose(lent.debt, debt)
    assert not lent.notional.any()
    np.testing.assert_allclose(np.sort(lent.lean), [0.0, 0.0, 1e3, 2e3])  # what is owed is money
    long = np.array([True, False])
    perps = Crowd.of(crowd([0.1, 0.3], [1e3, 2e3], share=0.5, long=long))
    np.testing.assert_allclose(perps.leveraged, [1e3, 2e3])
    np.testing.assert_allclose(np.sort(perps.lean), [-2e3, 0.0, 0.0, 1e3])
    assert not perps.debt.any()


def test_sums_are_those_of_margins() -> None:
    snapshot = peopled()
    seen, judged = Crowd.of(snapshot), margins(snapshot)
    np.testing.assert_allclose(seen.debt, judged.debt, atol=1e-6)
    np.testing.assert_allclose(seen.notional, judged.notional, atol=1e-6)
    np.testing.assert_allclose(seen.sums.equity, judged.equity, atol=1e-6)
    universe, book, market = snapshot.universe, snapshot.book, snapshot.market
    for leg in range(0, len(book), 7):
        inst = int(book.inst[leg])
        if book.kind[leg] == OPTION:
            continue
        asset = int(universe.asset_of[inst])
        money = bool(universe.stable[universe.root[asset]])
        face = 1.0 if universe.inverse[inst] else market.mark[inst]
        assert seen.lean[leg] == pytest.approx(0.0 if money else book.qty[leg] * face)
        assert seen.asset[leg] == asset


def test_legs_of_an_asset_are_all_of_it_in_order() -> None:
    seen = Crowd.of(peopled())
    every = [seen.legs_of(k) for k in range(len(seen.snapshot.universe.assets))]
    assert sorted(np.concatenate(every).tolist()) == list(range(len(seen.snapshot.book)))
    for k, legs in enumerate(every):
        assert (seen.asset[legs] == k).all()
        assert (np.diff(legs) > 0).all()
    assert seen.legs_of(None).tolist() == np.flatnonzero(seen.lean).tolist()


def test_how_an_account_is_known_is_how_its_weakest_leg_is() -> None:
    snapshot = mixed()
    seen, book = Crowd.of(snapshot), snapshot.book
    for account in range(book.accounts):
        legs = book.evidence[book.offset[account] : book.offset[account + 1]]
        assert seen.evidence_of[account] == max(legs.tolist(), default=0)
    assert seen.evidence == "modelled"
    assert {schema.EVIDENCE[code] for code in seen.evidence_of} == set(schema.EVIDENCE)


def test_owners_that_nobody_knows_are_not_owned() -> None:
    book = owned_by(crowd([0.1, 0.2, 0.3], [1e3] * 3, share=0.5), [4, 4, UNKNOWN])
    seen = Crowd.of(book)
    assert seen.owned.tolist() == [True, True, False]
    assert seen.holder[0] == seen.holder[1] != seen.holder[2]


def test_other_depths_change_depth_alone_also_where_the_book_was_settled_before() -> None:
    seen = Crowd.of(crowd([0.1, 0.2], [1e3, 1e3], share=0.5))
    was = seen.plan.carriers.depth.copy()
    assert was[0] == pytest.approx(2e3 / PRICE / 0.5)
    lean, settled = seen.lean, seen.settled  # the first stays true of other depths
    for times in (0.5, 3.0):
        other = seen.with_depth(times)
        np.testing.assert_allclose(other.plan.carriers.depth, times * was)
        np.testing.assert_allclose(other.settled.plan.carriers.depth, times * was)
        assert other.lean is lean
    assert settled is seen.settled
    np.testing.assert_array_equal(seen.plan.carriers.depth, was)
    with pytest.raises(ValueError, match="read-only"):
        other.plan.carriers.depth[0] = 1.0


def test_what_is_due_is_closed_in_the_settled_book_and_in_no_other() -> None:
    seen = Crowd.of(under_water())
    with seen.at_risk() as before, seen.settled.at_risk() as after:
        calm = np.zeros((1, len(seen.snapshot.universe.assets)))
        assert before.first_called(calm).tolist() == [0]
        assert after.first_called(calm).tolist() == [1]  # never
    calm_book = Crowd.of(crowd([0.1], [1e3], share=0.5))
    assert calm_book.settled.plan is calm_book.plan


def test_books_plans_and_crowds_are_the_same_crowd_and_nothing_else_is() -> None:
    snapshot = small_book()
    seen, plan = Crowd.of(snapshot), Plan.of(snapshot)
    assert Crowd.of(seen) is seen
    assert Crowd.of(plan).plan is plan
    assert Crowd.of(plan).snapshot is snapshot
    for other in (small_world(), None, 3, "book"):
        with pytest.raises(StateError, match="it must be a Snapshot"):
            Crowd.of(other)


def test_what_is_not_finite_is_not_told_and_has_no_band() -> None:
    seen = Crowd.of(mixed())
    for value in (None, math.nan, math.inf):
        bare = seen.reading("crowding.x", value, "1", "", band=(0.0, 1.0), level=0.9)
        assert (bare.value, bare.low, bare.high, bare.level) == (None,) * 4
    half = seen.reading("crowding.x", 1.0, "1", "", band=(0.0, math.nan), level=0.9)
    assert (half.value, half.low, half.high, half.level) == (1.0, None, None, None)
    whole = seen.reading("crowding.x", 1.0, "1", "", band=(0.0, 2.0), level=0.9, subject="s")
    assert (whole.low, whole.high, whole.level, whole.subject) == (0.0, 2.0, 0.9, "s")
    assert whole.ts == seen.snapshot.ts
    assert whole.evidence == "modelled"
    part = seen.reading("crowding.x", 1.0, "1", "", evidence="observed")
    assert part.evidence == "observed"
    assert seen.reading(
        "crowding.x", 1.0, "1", "", modelled=True, evidence="observed"
    ).evidence == ("modelled")


@pytest.mark.parametrize("name", BOOKS)
def test_books_at_the_edge_have_finite_sums(name: str) -> None:
    seen = Crowd.of(BOOKS[name]())
    for column in (seen.debt, seen.notional, seen.leveraged, seen.lean):
        assert np.isfinite(column).all()
    assert (seen.leveraged >= 0.0).all()
    assert len(seen.evidence_of) == seen.snapshot.book.accounts
    assert seen.evidence in schema.EVIDENCE


def test_a_book_without_positions_leans_nowhere() -> None:
    seen = Crowd.of(nothing())
    assert seen.snapshot.book.accounts
    assert not seen.leveraged.any()
    assert not len(seen.legs_of(None))
