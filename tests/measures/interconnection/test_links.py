"""Links that nobody knows: ranges hold what they say, bounds hold always, totals never move."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measures.interconnection.standing import demo_tables
from undertow.econometrics.debtrank import Exposures, stress
from undertow.econometrics.partial_links import drawn_from, few_links, spread_over
from undertow.errors import EstimationError, StateError
from undertow.measures.interconnection.links import Plain, links, links_of, ranges
from undertow.measures.interconnection.margins import (
    NUMBERS,
    Linked,
    Margins,
    defaults_one_by_one,
)
from undertow.measures.interconnection.untold import Untold
from undertow.measures.interconnection.web import Web
from undertow.rules.snapshot import Snapshot
from undertow.stress.contagion import Channels
from undertow.stress.scenario import Scenario
from undertow.stress.shock import Price
from undertow.stress.stressed import Stressed
from undertow.worlds import demo_world

FALL = Scenario(name="a fall", shocks=(Price(asset="market", move=-0.2),))


def banks(seed: int, size: int, **more) -> Margins:
    rng = np.random.default_rng(seed)
    true = rng.pareto(1.5, (size, size)) * (rng.random((size, size)) < 0.6)
    np.fill_diagonal(true, 0.0)
    equity = 0.3 * (true.sum(axis=1) + true.sum(axis=0)) + 0.1
    has, owes = true.sum(axis=1), true.sum(axis=0)
    names = [f"bank {n}" for n in range(size)]
    hit = equity * rng.random(size) * 1.5
    return Margins.of(names, has, owes, equity, assets=2.0 * equity + owes, hit=hit, **more)


@pytest.fixture(scope="module")
def plain():
    return links_of(banks(3, 8), tries=60, seed=4)


@pytest.fixture(scope="module")
def web():
    return Web.of(demo_world().snapshot())


@pytest.fixture(scope="module")
def of_book(web):
    return links(web, tries=16, seed=1, failed=("external:reserves",))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 7))
def test_no_network_passes_any_bound(seed, size):
    margins = banks(seed, size)
    bounds = margins.bounds()
    assert set(bounds) == set(NUMBERS)
    found = [spread_over(margins.open), few_links(margins.open)]
    found += drawn_from(margins.open, 3, seed=seed)
    for unknown in found:
        for name, value in Linked.of(margins, unknown).numbers().items():
            assert value <= bounds[name] * (1.0 + 1e-9) + 1e-9, name


def test_draws_keep_totals_and_known_links():
    free = banks(5, 9)
    known = np.zeros((9, 9))
    true = spread_over(free.open)
    known[0, 3], known[4, 1] = 0.5 * true[0, 3], true[4, 1]
    may = np.ones((9, 9), dtype=bool)
    may[2, 5] = False
    given = Margins.of(free.names, free.has, free.owes, free.before, known=known, allowed=may)
    near = 1e-9 * given.has.sum()
    for unknown in drawn_from(given.open, 20, seed=2):
        linked = Linked.of(given, unknown).links
        assert np.abs(linked.sum(axis=1) - given.has).max() <= near
        assert np.abs(linked.sum(axis=0) - given.owes).max() <= near
        assert linked[0, 3] == known[0, 3]
        assert linked[4, 1] == known[4, 1]
        assert linked[2, 5] == 0.0


def test_a_range_holds_every_draw_and_the_search_no_less(plain):
    table, drawn = plain.tables["numbers"], plain.tables["draws"]
    assert drawn.height == 200
    for row in table.iter_rows(named=True):
        values = drawn[row["number"]]
        assert row["least"] <= values.min() <= row["low"] <= row["middle"] <= row["high"]
        assert row["high"] <= values.max() <= row["greatest"]
        assert row["least"] <= min(row["even"], row["few"])
        assert row["greatest"] <= row["bound"] * (1.0 + 1e-9) + 1e-9
        if row["searched"] is not None:
            assert row["greatest"] <= row["searched"] <= row["bound"] * (1.0 + 1e-9)
    assert plain.tables["worst"]["share"].sum() == pytest.approx(1.0)


def test_the_word_bound_stands_only_beside_what_is_proved(plain, of_book):
    assert any("proved" in words and "bound" in words for words in plain.says)
    assert not any("bound" in words for words in of_book.says)
    assert of_book.tables["numbers"]["bound"].null_count() == len(NUMBERS)


def test_the_same_seed_gives_the_same_study(plain):
    family = Plain(banks(3, 8))
    one, other = (ranges(family, draws=12, tries=8, seed=4) for _ in range(2))
    assert one.table.equals(other.table)
    assert one.draws.equals(other.draws)
    assert one.draws.equals(plain.tables["draws"].head(12))


def test_links_that_are_all_known_leave_no_range():
    free = banks(7, 4)
    true = few_links(free.open)
    given = Margins.of(free.names, free.has, free.owes, free.before, known=true, hit=free.hit)
    found = links_of(given, search=("shortfall_usd", "debtrank_usd"), tries=8)
    for row in found.tables["numbers"].iter_rows(named=True):
        assert row["least"] == pytest.approx(row["greatest"], rel=1e-9, abs=1e-12)
    assert any("does not seem to hang on missing links" in words for words in found.says)


def test_all_defaults_at_once_are_those_one_by_one():
    margins = banks(11, 7)
    linked = Linked.of(margins, spread_over(margins.open))
    every = defaults_one_by_one(linked.exposures)
    for k in range(7):
        first = np.zeros(7)
        first[k] = 1.0
        level = stress(linked.exposures, first).level
        level = np.where(np.arange(7) == k, 0.0, level)
        assert every[k] == pytest.approx(level * margins.before, rel=1e-9)
    assert isinstance(linked.exposures, Exposures)


def test_a_single_hit_of_equal_shares_hangs_on_no_link():
    free = banks(13, 8)
    given = Margins.of(free.names, free.has, free.owes, free.before, hit=0.05 * free.before)
    found = [
        Linked.of(given, x).single_hit_usd
        for x in (spread_over(given.open), *drawn_from(given.open, 3))
    ]
    assert found == pytest.approx([0.05 * free.has.sum()] * 4, rel=1e-9)


def test_margins_that_cannot_be_are_refused():
    for change, words in (
        ({"equity": [1.0, 0.0, 1.0]}, "b has no equity"),
        ({"names": ["a", "a", "c"]}, "two nodes have one name"),
        ({"hit": -1.0}, "hit is a loss"),
        ({"assets": [0.0, 0.0, 0.0]}, "fewer assets"),
        ({"known": np.diag([2.0, 2.0], 1)}, "known links of"),
        ({"known": np.zeros((2, 2))}, "must be"),
        ({"has": [np.nan, 1.0, 1.0]}, "finite"),
    ):
        given = {"names": ["a", "b", "c"], "has": [1.0, 1.0, 1.0], "owes": [1.0, 1.0, 1.0],
                 "equity": [1.0, 1.0, 1.0]} | change  # fmt: skip
        with pytest.raises(EstimationError, match=words):
            Margins.of(**given)
    with pytest.raises(StateError, match="must be Margins"):
        links_of("banks")
    good = banks(1, 4)
    for more, words in (({"draws": 10}, "200 networks"), ({"search": ("losses",)}, "no number")):
        with pytest.raises(StateError, match=words):
            links_of(good, **more)


def test_links_put_in_place_leave_every_total_of_the_book_as_it_was(web):
    calm = web.solver.solve(Stressed.calm(web.snapshot))
    family = Untold(calm, calm.settlement, 1.0)
    assert family.puzzles
    for networks in zip(*(drawn_from(each, 3, seed=1) for each in family.open), strict=True):
        done = family.filled(networks).settlement
        told = calm.settlement
        assert done.sheet.names == told.sheet.names
        whole = max(told.owed.held.max(), 1.0)
        assert np.abs(done.owed.held - told.owed.held).max() <= 1e-9 * whole
        named = np.array([name != "external:depositors" for name in told.sheet.names])
        assert np.abs(done.before - told.before)[named].max() <= 1e-9 * whole
        assert (done.owed.unnamed >= -1e-6).all()
        for puzzle, links_ in zip(family.puzzles, networks, strict=True):
            near = 1e-9 * puzzle.open.whole
            assert np.abs(links_.sum(axis=1) - puzzle.open.has).max() <= near
            assert np.abs(links_.sum(axis=0) - puzzle.open.owes).max() <= near


def test_nobody_is_linked_to_what_stands_on_himself(web):
    calm = web.solver.solve(Stressed.calm(web.snapshot))
    family = Untold(calm, calm.settlement, 1.0)
    names = family.sheet.names
    for puzzle in family.puzzles:
        called = [names[n] if n >= 0 else "" for n in puzzle.party]
        for i, holder in enumerate(called):
            owing = {called[j] for j in np.flatnonzero(puzzle.open.allowed[i])}
            if holder == "external:validators":
                assert not owing & {"asset:stETH", "asset:wstETH", "pool:aave-v3:stETH"}
                assert "pool:aave-v3:ETH" in owing
            if holder == "external:reserves":
                assert not {name for name in owing if "USDC" in name}


def test_with_nothing_inside_the_book_is_as_told(web):
    calm = web.solver.solve(Stressed.calm(web.snapshot))
    shock = web.solver.solve(FALL)
    family = Untold(shock, calm.settlement, 0.0)
    told = family.as_told()
    for networks in zip(*(drawn_from(each, 2) for each in family.open), strict=True):
        numbers, _ = family.numbers(networks)
        assert numbers == pytest.approx(told, rel=1e-9, abs=1e-6)
    assert told["shortfall_usd"] == pytest.approx(shock.headline()["not_paid_usd"], abs=1e-6)
    assert told["defaults"] == shock.headline()["defaults"]


def test_a_keeper_that_may_hold_what_lost_all_pays_less_the_more_of_it_it_holds(of_book):
    row = of_book.tables["numbers"].row(by_predicate=pl.col("number") == "shortfall_usd",
                                        named=True)  # fmt: skip
    assert row["as_told"] < row["least"] < row["greatest"] <= row["searched"]
    reading = of_book.reading("interconnection.shortfall_usd", "links")
    assert reading.low <= reading.value <= reading.high
    assert 0.0 < of_book.headline.value < 1.0
    totals = of_book.tables["totals"]
    assert (totals["open_usd"] <= totals["total_usd"] * (1.0 + 1e-9)).all()
    assert {"suppliers", "holders", "lies somewhere"} == set(totals["side"])


def test_links_say_after_which_shock_their_numbers_hold(web):
    claims = Channels.only("dependence", "claims", "receipts")
    knobs = {"channels": claims, "search": (), "seed": 1}
    for asked, shock in (
        ({}, "a common fall of 20 %"),
        ({"fall": -0.1}, "a common rise of 10 %"),
        ({"scenario": FALL}, "a fall"),
        ({"scenario": FALL, "failed": "external:reserves"},
         "a fall and the failure of external:reserves"),
        ({"fall": 0.0, "failed": ["external:reserves"]}, "the failure of external:reserves"),
    ):  # fmt: skip
        found = links(web, **asked, **knobs)
        assert f"What follows is after {shock}." in found.says
        assert f"Every number is after {shock}." in found.how_to_read
        assert found.tables["numbers"]["definition"].str.ends_with(f", after {shock}").all()
        told = [each for each in found.readings if each.name != "interconnection.missing_links"]
        assert all(each.definition.endswith(f", after {shock}") for each in told)


def test_stress_that_creeps_round_a_circle_without_end_is_told():
    # each has claims of all but 1e-6 of its buffer on the other: a little is passed on for ever
    two = Exposures.of([0, 1], [1, 0], [1.0 - 1e-6] * 2, [1.0, 1.0])
    third = Exposures.of([0, 1, 0], [1, 0, 2], [1.0 - 1e-6] * 2 + [1e-9], [1.0, 1.0, 1.0])
    assert defaults_one_by_one(two).max() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(EstimationError, match="still creeps round circles"):
        defaults_one_by_one(third)


def test_a_book_without_claims_has_no_missing_link():
    tables, _ = demo_tables()
    gone = ("accounts", "positions", "claims", "reserves", "free_assets")
    bare = tables | {name: tables[name].clear() for name in gone}
    ts = 1_800_000_000_000_000
    found = links(Snapshot.from_tables(bare, ts))
    assert "No link is missing" in found.says[0]
    assert found.headline.value is None


def test_what_is_no_book_and_who_is_nobody_are_refused(web):
    with pytest.raises(StateError, match="must be a Snapshot"):
        links("stETH")
    with pytest.raises(StateError, match="no party is called") as caught:
        links(web, failed=("external:reserve",), channels=Channels.only("claims", "dependence"))
    assert "external:reserves" in str(caught.value.hint)
