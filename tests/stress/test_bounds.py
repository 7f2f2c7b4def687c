"""What outgrows a book: rates of a year charged at once, and counterfeits of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import (
    Cascade,
    Impact,
    Options,
    Plan,
    Scenario,
    Stressed,
    read_scenario,
    run_cascade,
)
from undertow.stress.cascade import LEAK
from undertow.stress.damage import Counterfeit
from undertow.stress.ground import ground_of
from undertow.stress.setting import case_of, charged, growth
from undertow.stress.shock import Funding, Price, Rate, Shock
from undertow.worlds import demo_world, tiny_world

YEAR = 8_760.0
STILL = Options(impact=Impact.NONE)


@pytest.fixture(scope="module")
def tiny() -> Snapshot:
    return tiny_world().snapshot()


@pytest.fixture(scope="module")
def demo() -> Plan:
    return Plan.of(demo_world().snapshot())


def under(plan: Plan, *shocks: Shock) -> Stressed:
    return Scenario(name="a test", shocks=shocks).apply(plan.snapshot)


def ran(book: Snapshot | Plan, *shocks: Shock) -> Cascade:
    found = run_cascade(book, Scenario(name="a test", shocks=shocks), STILL, check=True)
    assert found.worst_leak is not None
    assert found.worst_leak <= LEAK
    return found


def gross(plan: Plan, qty: np.ndarray) -> np.ndarray:
    return np.bincount(plan.hold.legs["inst"], weights=np.abs(qty), minlength=len(plan.insts))


def test_what_rates_put_under_water_is_insolvent(tiny: Snapshot, demo: Plan) -> None:
    cases: tuple[tuple[Snapshot | Plan, Shock], ...] = (
        (tiny, Rate(per_hour=0.1, hours=YEAR)), (demo, Funding(per_hour=0.01, hours=72.0))
    )  # fmt: skip
    for book, shock in cases:
        found = ran(book, shock)
        lost = float(found.bad.sum() + found.short.sum())
        assert lost > 0.0
        assert found.insolvency_usd >= lost * (1.0 - 1e-12)


def test_ten_thousand_dollars_owed_are_millions_after_a_year_at_a_tenth_an_hour(
    tiny: Snapshot,
) -> None:
    # Account 1 owes 10,000 USDC on 20,000 USD of ETH, another 20,000 on 40,000 of BTC. At a tenth
    # an hour for a year, debts are 877 times as large. Seized is all they have, at 5 % and 5 %
    # bonus: that repays 20,000 / 1.05 + 40,000 / 1.05 USD; the rest is bad debt.
    found = ran(tiny, Rate(per_hour=0.1, hours=YEAR))
    repaid = 60_000.0 / 1.05
    assert found.repaid.sum() == pytest.approx(repaid, rel=1e-12)
    assert found.bad.sum() == pytest.approx(30_000.0 * 877.0 - repaid, rel=1e-12)
    assert found.insolvency_usd == pytest.approx(30_000.0 * 877.0 - repaid, rel=1e-12)


def test_all_that_is_owed_is_repaid_or_bad_however_much_was_charged(demo: Plan) -> None:
    owed = 0.0
    found = ran(demo, Rate(per_hour=0.1, hours=YEAR))
    legs, start = found.hold.legs, found.plan.insts["start"]
    for k in np.flatnonzero(legs["qty"] < 0.0):
        if legs["role"][k] == 1:
            owed += -float(legs["qty"][k]) * float(start[legs["inst"][k]])
    left = np.where(legs["role"] == 1, -found.remaining * start[legs["inst"]], 0.0)
    known = math.fsum(found.repaid) + math.fsum(found.bad) + math.fsum(left)
    assert known == pytest.approx(owed, rel=1e-9)


def test_funding_of_a_quarter_at_a_twentieth_an_hour_is_what_longs_lack(tiny: Snapshot) -> None:
    # The long of 40,000 USD pays 108 times that, and has 5,000.
    found = ran(tiny, Funding(per_hour=0.05, hours=2_160.0))
    assert found.short.sum() == pytest.approx(108.0 * 40_000.0 - 5_000.0, rel=1e-12)
    assert found.insolvency_usd == pytest.approx(found.short.sum(), rel=1e-12)


@pytest.mark.parametrize(
    "shock",
    [
        Price(asset="market", move=-0.6),
        Price(asset="market", move=9.0),
        Funding(per_hour=0.01, hours=72.0),
        Rate(per_hour=0.002, hours=72.0),
        Rate(per_hour=-1.0, hours=YEAR),
    ],
)
def test_an_ordinary_shock_leaves_every_quantum_as_it_is(demo: Plan, shock: Shock) -> None:
    case = case_of(demo, under(demo, shock), STILL)
    assert (case.insts["per_usd"] == demo.insts["per_usd"]).all()
    assert (case.insts["per_qty"] == demo.insts["per_qty"]).all()
    assert (case.venues["per_demand"] == demo.per_demand).all()


def test_quanta_are_coarser_by_a_power_of_two_at_least_half_of_the_growth(demo: Plan) -> None:
    stressed = under(demo, Rate(per_hour=0.1, hours=YEAR))
    hold = charged(demo, stressed)
    grown = growth(demo, stressed, hold)
    before, after = gross(demo, demo.hold.legs["qty"]), gross(demo, hold.legs["qty"])
    times = np.divide(after, before, out=np.ones(len(before)), where=before > 0.0)
    assert times.max() > 100.0
    assert (grown.qty >= times / 2.0).all()
    assert (grown.qty <= np.maximum(times, 1.0)).all()
    for found in (grown.usd, *grown.qty):
        assert math.frexp(found)[0] == 0.5
    book = demo.gross_usd
    assert grown.usd >= float((times * book).sum() / book.sum()) / 2.0


@pytest.mark.parametrize(
    "shock", [Rate(per_hour=1.0, hours=YEAR), Funding(per_hour=1.0, hours=YEAR)]
)
def test_a_rate_beyond_any_sense_is_refused_by_name(
    tiny: Snapshot, demo: Plan, shock: Shock
) -> None:
    for book in (tiny, demo):
        with pytest.raises(
            StateError, match=r"times as large.* 1 an hour for 8760 hours on"
        ) as bad:
            ran(book, shock)
        assert "`rate` and `funding`" in str(bad.value)


@pytest.mark.parametrize("usd", [1e15, 1e30, 1e300])
def test_a_counterfeit_that_leaves_nothing_of_the_book_is_refused_by_name(
    tiny: Snapshot, usd: float
) -> None:
    fake = Counterfeit(asset="ETH", venue="aave-v3", usd=usd, borrow="USDC")
    scenario = Scenario(name="a test", shocks=(fake, Price(asset="market", move=-0.6)))
    for run in (run_cascade, lambda book, what: ground_of(Plan.of(book), what)):
        with pytest.raises(StateError, match="posts makes the book") as refused:
            run(tiny, scenario)
        assert "`counterfeit`" in str(refused.value)


def test_a_counterfeit_a_thousand_times_the_book_changes_no_sum_of_the_rest(
    tiny: Snapshot,
) -> None:
    fall = Price(asset="market", move=-0.45)
    fake = Counterfeit(asset="ETH", venue="aave-v3", usd=2e8, borrow="USDC", ltv=0.0)
    plain, beside = ran(tiny, fall), ran(tiny, fake, fall)
    for name in ("closed", "repaid", "bad", "short", "gain"):
        one, other = (float(getattr(found, name).sum()) for found in (plain, beside))
        assert other == pytest.approx(one, rel=1e-9, abs=1e-4)
    assert plain.closed.sum() > 0.0


def test_a_scenario_file_with_a_senseless_rate_says_what_to_lower(tiny: Snapshot) -> None:
    text = 'name = "x"\n[[shock]]\nkind = "funding"\nper_hour = 1.0\nhours = 8760.0\n'
    with pytest.raises(StateError, match="lower per_hour or hours"):
        run_cascade(tiny, read_scenario(text))
