"""Who is called where: by hand, and against the margins of the same book moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crowds import TS, crowd
from undertow.errors import StateError
from undertow.fanout import Threads
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.stress import Plan
from undertow.stress.atrisk import AtRisk, line_of
from undertow.worlds import demo_world
from undertow.worlds.frames import from_tuples


def test_each_account_is_called_at_its_own_fall() -> None:
    fall = np.array([0.05, 0.1, 0.249, 0.6])
    snapshot = crowd(fall, np.full(4, 1_000.0), share=0.5)
    falls = np.linspace(0.0, 0.5, 51)
    with AtRisk.of(Plan.of(snapshot)) as book:
        first = book.first_called(line_of(np.array([1.0, 0.0, 0.0]), falls))
    assert list(first) == [6, 11, 25, 51]  # the first point past each, or none


@pytest.mark.parametrize("executor", [None, Threads(3)])
def test_a_surface_is_what_the_margins_of_a_moved_book_say(executor: Threads | None) -> None:
    snapshot = demo_world().snapshot()
    plan = Plan.of(snapshot)
    universe = snapshot.universe
    rng = np.random.default_rng(3)
    factors = rng.normal(0.0, 0.12, (20, len(universe.assets)))
    factors[:, universe.stable | (universe.reference >= 0)] = 0.0  # rate oracles see no peg
    judged = margins(snapshot)
    weight = np.stack([judged.debt, judged.notional], axis=1)
    group = snapshot.book.venue.astype(np.int64)
    with AtRisk.of(plan, executor=executor) as book:
        found = book.called(factors, group, weight)
    for point in (0, 7, 19):
        price = plan.pricing.prices(plan.pricing.moves(factors[point]))
        moved = replace(snapshot, market=_moved(snapshot, plan, factors[point], price))
        breached = margins(moved).breached
        straight = ~np.isin(snapshot.book.mode, [2])  # portfolios reprice volatility too
        assert found.accounts[point] == pytest.approx(breached.sum(), abs=int((~straight).sum()))
        for venue in np.unique(group):
            here = breached & (group == venue)
            if straight[group == venue].all():
                np.testing.assert_allclose(
                    found.total[point, venue], weight[here].sum(axis=0), rtol=1e-9, atol=1e-6
                )


def test_moves_beyond_the_lines_are_asked_of_everybody() -> None:
    snapshot = demo_world().snapshot()
    universe, plan = snapshot.universe, Plan.of(snapshot)
    whole = ((universe.root == np.arange(len(universe.assets))) & ~universe.stable).astype(float)
    factors = np.outer(np.log([0.9, 0.1, 4.0]), whole)  # the last two are out of their reach
    group, one = (
        np.zeros(snapshot.book.accounts, dtype=np.int64),
        np.ones((snapshot.book.accounts, 1)),
    )
    with AtRisk.of(plan) as book:
        together = book.called(factors, group, one).accounts
        apart = [(book.first_called(row[None, :]) == 0).sum() for row in factors]
    assert together.tolist() == apart
    judged = margins(snapshot)
    assert together[1] >= (judged.fall <= 0.9 - 1e-9).sum() - (snapshot.book.mode == 2).sum()


def _moved(snapshot: object, plan: Plan, factor: np.ndarray, price: np.ndarray) -> object:
    market = plan.snapshot.market
    move = np.exp(plan.pricing.moves(factor))
    return replace(market, mark=price, index=market.index * move)


def test_weights_must_be_sums() -> None:
    snapshot = crowd([0.1], [1_000.0], share=0.5)
    with AtRisk.of(Plan.of(snapshot)) as book, pytest.raises(StateError, match="weight"):
        book.called(np.zeros((1, 3)), np.zeros(1, dtype=np.int64), np.array([[-1.0]]))


def with_a_floor() -> Snapshot:
    """A long perp and bought puts: the venue calls it between falls of 12 and 24 %, and no more."""
    names = [
        ("C0", "C0", "native", None, None, "coin"),
        ("USDC", "USDC", "stable", "USD", 1.0, "stable"),
        ("USD", "USD", "fiat", None, None, "fiat"),
    ]
    month = 365 * 86_400_000_000 // 12
    plain = (None, None, None)
    rows = {
        "assets asset symbol kind reference rate sector": names,
        "venues venue kind profile": [("v", "perp", "generic-perp"), ("x", "spot", None)],
        "instruments instrument venue symbol kind asset inverse contract_size expiry strike "
        "option_type": [
            ("x:C0", "x", "C0", "spot", "C0", False, 1.0, *plain),
            ("v:C0", "v", "C0", "perp", "C0", False, 1.0, *plain),
            ("v:P", "v", "P", "option", "C0", False, 1.0, TS + month, 80.0, "put"),
            ("v:USDC", "v", "USDC", "cash", "USDC", False, 1.0, *plain),
        ],
        "prices instrument kind price": [
            ("x:C0", "spot", 100.0), ("v:C0", "mark", 100.0), ("v:P", "mark", 0.5),
            ("v:P", "index", 100.0), ("v:USDC", "spot", 1.0),
        ],
        "implied_vols venue asset vol": [("v", "C0", 0.5)],
        "accounts account venue label margin_group mode owner": [(0, "v", "a", "main", "cross", 0)],
        "positions account instrument kind qty entry": [
            (0, "v:C0", "perp", 100.0, 100.0), (0, "v:P", "option", 240.0, 0.5),
            (0, "v:USDC", "cash", 900.0, None),
        ],
        "risk_params venue instrument name value": [
            ("v", "v:C0", "maintenance_margin_rate", 0.025)
        ],
        "depth instrument band side qty": [("x:C0", 1.0, s, 1_000.0) for s in ("bid", "ask")],
    }  # fmt: skip
    tables = {}
    for heading, given in rows.items():
        table, *columns = heading.split()
        tables[table] = from_tuples(table, tuple(columns), given, ts=TS)
    return Snapshot.from_tables(tables, TS)


def test_who_holds_options_is_asked_at_every_point_of_a_line() -> None:
    snapshot = with_a_floor()
    universe = snapshot.universe
    down = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
    with AtRisk.of(Plan.of(snapshot)) as book:
        for furthest in (0.2, 0.5):
            points = line_of(down.astype(float), np.linspace(0.0, furthest, 51))
            each = [book.first_called(row[None, :])[0] == 0 for row in points]
            assert any(each)
            assert book.first_called(points)[0] == each.index(True)
        assert not each[-1]  # far out the puts pay for the loss
