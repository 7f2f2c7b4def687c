"""One change at a time: what each shock does, and that it does nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from math import exp, log
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.errors import RuleError, StateError
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state import Book
from undertow.stress import AS_GIVEN, ORACLE_MODES, PricingMap, Stressed
from undertow.stress.correlation import blended, checked, lower_root, nearest_correlation
from undertow.stress.damage import Counterfeit, ParameterError
from undertow.stress.failures import (
    BridgeFailure,
    CustodianFailure,
    Exploit,
    IssuerFailure,
)
from undertow.stress.outages import (
    HOUR_US,
    Capacity,
    Fund,
    OracleFreeze,
    OracleLag,
    OracleManipulation,
    Outage,
)
from undertow.stress.scenario import KINDS
from undertow.stress.shock import (
    Basis,
    Correlation,
    Depth,
    Funding,
    Peg,
    Price,
    PriceBeta,
    Rate,
    Shock,
    Volatility,
    WithdrawalRun,
)
from undertow.worlds import World
from undertow.worlds.frames import from_tuples

PERP = "hyperliquid:BTC/USDC:USDC"


@pytest.fixture(scope="module")
def calm(wide: Snapshot) -> Stressed:
    return Stressed.calm(wide)


def price_of(stressed: Stressed, instrument: str) -> float:
    pricing = PricingMap.of(stressed.snapshot)
    price = pricing.prices(
        pricing.moves(stressed.factor, stressed.basis),
        receipt=pricing.receipts(stressed.receipt),
    )
    return float(price[stressed.universe.code("instrument", instrument)])


def touched(before: Stressed, after: Stressed) -> set[str]:
    """Names of the parts that differ."""
    names = {f.name for f in fields(Stressed)} - {"snapshot", "notes", "correlation"}
    found = {n for n in names if (getattr(before, n) != getattr(after, n)).any()}
    if before.snapshot.digest != after.snapshot.digest:
        found.add("snapshot")
    return found


@pytest.mark.parametrize(
    ("shock", "parts"),
    [
        (Price(asset="ETH", move=-0.4), {"factor"}),
        (Price(asset="market", move=-0.4), {"factor"}),
        (PriceBeta(move=-0.4, betas={"BTC": 0.8}), {"factor"}),
        (Peg(asset="stETH", level=0.9), {"factor"}),
        (Basis(move=-0.05, instrument=PERP), {"basis"}),
        (Correlation(weight=0.5), set()),
        (Volatility(multiplier=2.0, shift=0.1, asset="BTC"), {"vol_mult", "vol_shift"}),
        (Depth(multiplier=0.1, venue="aave-v3"), {"depth_mult"}),
        (Rate(per_hour=1e-4, hours=24.0, asset="USDC"), {"rate_shock", "rate_hours"}),
        (Funding(per_hour=1e-3, hours=8.0), {"rate_shock", "rate_hours"}),
        (Outage(hours=2.0, chain="ethereum"), {"closed_until_us"}),
        (Capacity(multiplier=0.1, chain="ethereum"), {"capacity_mult"}),
        (Fund(multiplier=0.5, venue="hyperliquid"), {"fund_mult"}),
        (OracleLag(hours=1.0, venue="aave-v3"), {"oracle_lag_us", "oracle_mode"}),
        (OracleFreeze(rounds=3, asset="ETH"), {"oracle_mode", "oracle_rounds"}),
        (
            OracleManipulation(factor=0.97, rounds=5, asset="wstETH"),
            {"oracle_mode", "oracle_rounds", "oracle_factor"},
        ),
        (WithdrawalRun(share=0.4, asset="USDC", venue="aave-v3"), {"withdrawn"}),
        (Counterfeit(asset="stETH", venue="aave-v3", qty=10.0), {"snapshot"}),
        (
            ParameterError(venue="aave-v3", name="ltv", value=0.5, instrument="aave-v3:ETH"),
            {"snapshot"},
        ),
        (IssuerFailure(asset="USDC", recovery=0.9), {"receipt", "snapshot"}),
        (CustodianFailure(name="Keeper", recovery=0.5), {"receipt", "snapshot"}),
        (BridgeFailure(name="bridge", recovery=0.5), {"receipt", "snapshot"}),
        (Exploit(venue="aave-v3", share=0.2), {"receipt", "snapshot"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Shock) else "",
)
def test_a_shock_changes_its_own_columns_and_leaves_what_it_was_given(
    calm: Stressed, shock: Shock, parts: set[str]
) -> None:
    before = calm.digest
    after = shock.apply(calm)
    assert touched(calm, after) == parts
    assert (after.digest != before) == bool(parts or after.correlation is not None)
    assert Stressed.calm(calm.snapshot).digest == before
    for f in fields(Stressed):
        column = getattr(after, f.name)
        if isinstance(column, np.ndarray):
            assert not column.flags.writeable
            assert np.isfinite(column).all()


def test_every_kind_of_shock_is_tested_above_and_has_a_name() -> None:
    def leaves(kind: type[Shock]) -> set[str]:
        below = {name for sub in kind.__subclasses__() for name in leaves(sub)}
        written = kind.__module__.rpartition(".")[0] == "undertow.stress"
        return below or ({kind.__name__} if written else set())

    # the solver of contagion has shocks of its own, which names of nodes stand for
    assert {kind.__name__ for kind in KINDS.values()} == leaves(Shock) - {"Failure"}
    assert len(set(KINDS.values())) == len(KINDS)


@given(st.floats(-0.95, 3.0), st.floats(-0.95, 3.0))
def test_moves_of_one_asset_multiply(calm: Stressed, first: float, second: float) -> None:
    both = Price(asset="ETH", move=second).apply(Price(asset="ETH", move=first).apply(calm))
    expected = 2_000.0 * (1.0 + first) * (1.0 + second)
    assert price_of(both, "aave-v3:ETH") == pytest.approx(expected, rel=1e-9)
    assert price_of(both, "aave-v3:wstETH") == pytest.approx(1.188 * expected, rel=1e-9)
    assert price_of(both, "aave-v3:BTC") == 40_000.0


def test_the_market_is_all_that_is_no_money_and_follows_nothing(calm: Stressed) -> None:
    fallen = Price(asset="market", move=-0.5).apply(calm)
    assert price_of(fallen, "aave-v3:ETH") == pytest.approx(1_000.0)
    assert price_of(fallen, PERP) == pytest.approx(20_000.0)
    assert price_of(fallen, "aave-v3:LP") == pytest.approx(4e6 * 0.5**0.5)  # half of it is money
    assert price_of(fallen, "aave-v3:ETH1S") == pytest.approx(30.0)
    assert price_of(fallen, "aave-v3:USDC") == 1.0


@given(beta=st.floats(-3.0, 5.0), move=st.floats(-0.9, 2.0))
def test_a_beta_is_an_exponent(calm: Stressed, beta: float, move: float) -> None:
    moved = PriceBeta(move=move, betas={"ETH": beta}).apply(calm)
    assert price_of(moved, "aave-v3:ETH") == pytest.approx(2_000.0 * (1.0 + move) ** beta)
    assert price_of(moved, "aave-v3:BTC") == pytest.approx(40_000.0 * (1.0 + move))


@given(level=st.floats(0.01, 2.0), eth=st.floats(-0.9, 2.0))
def test_a_peg_ends_at_its_level_wherever_it_stood(
    calm: Stressed, level: float, eth: float
) -> None:
    broken = Price(asset="ETH", move=eth).apply(Peg(asset="stETH", level=level).apply(calm))
    ratio = price_of(broken, "aave-v3:stETH") / price_of(broken, "aave-v3:ETH")
    assert ratio == pytest.approx(level, rel=1e-9)
    usd = Peg(asset="USDC", level=level).apply(calm)
    assert price_of(usd, "aave-v3:USDC") == pytest.approx(level, rel=1e-9)


def test_a_peg_needs_something_to_follow(calm: Stressed) -> None:
    with pytest.raises(StateError, match="'BTC' follows nothing"):
        Peg(asset="BTC", level=0.9).apply(calm)


@pytest.mark.parametrize("move", [-1.0, -1.5, float("nan"), float("inf")])
def test_a_fall_of_everything_is_refused(move: float) -> None:
    for make in (
        lambda: Price(asset="ETH", move=move),
        lambda: PriceBeta(move=move),
        lambda: Basis(move=move),
    ):
        with pytest.raises(StateError, match="must lie above -1"):
            make()


@pytest.mark.parametrize("level", [0.0, -0.5, float("nan")])
def test_a_level_of_nothing_is_refused(level: float) -> None:
    with pytest.raises(StateError, match=r"level was .*must be above 0"):
        Peg(asset="stETH", level=level)


@pytest.mark.parametrize(
    ("shock", "words"),
    [
        (Price(asset="ETHH", move=-0.1), "no asset is called 'ETHH'; did you mean .*ETH"),
        (PriceBeta(move=-0.1, betas={"BTX": 1.0}), "no asset is called 'BTX'"),
        (Peg(asset="stEHT", level=0.9), "did you mean .*stETH"),
        (Depth(multiplier=0.5, venue="aave"), "no venue is called 'aave'; did you mean aave-v3"),
        (Basis(move=0.1, instrument="BTC"), "no instrument is called 'BTC'"),
        (Outage(hours=1.0, venue="hyper"), "no venue is called"),
        (Outage(hours=1.0, chain="mars"), "no venue is known to run on 'mars'; there are ethereum"),
        (Funding(per_hour=0.1, hours=1.0, venue="aave-v3"), "no perp instrument of venue"),
        (Counterfeit(asset="BTC", venue="hyperliquid", qty=1.0), "no priced reserve of 'BTC'"),
        (CustodianFailure(name="Keepr"), "nothing is known to stand on 'Keepr'.*Keeper"),
        (BridgeFailure(name="brige"), "did you mean bridge"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    calm: Stressed, shock: Shock, words: str
) -> None:
    with pytest.raises(StateError, match=words):
        shock.apply(calm)


def test_where_nobody_says_what_runs_where_no_chain_is_known(wide_world: World) -> None:
    tables = wide_world.present
    silent = tables["venues"].with_columns(chain=pl.lit(None, dtype=pl.String))
    calm = Stressed.calm(Snapshot.from_tables({**tables, "venues": silent}, wide_world.ts))
    with pytest.raises(StateError, match="nothing of the kind is known"):
        Outage(hours=1.0, chain="ethereum").apply(calm)


def test_volatility_shifts_stand_after_multipliers_in_order(calm: Stressed) -> None:
    bumped = Volatility(multiplier=2.0, shift=0.1).apply(calm)
    twice = Volatility(multiplier=1.5, shift=0.05).apply(bumped)
    vol = 0.6
    assert vol * twice.vol_mult[0] + twice.vol_shift[0] == pytest.approx(
        (vol * 2.0 + 0.1) * 1.5 + 0.05
    )


def test_two_spells_of_a_rate_cost_what_both_cost(calm: Stressed) -> None:
    both = Rate(per_hour=1e-4, hours=10.0).apply(Rate(per_hour=3e-4, hours=40.0).apply(calm))
    lent = calm.universe.code("instrument", "aave-v3:USDC")
    assert both.rate_shock[lent] * both.rate_hours[lent] == pytest.approx(1e-3 + 12e-3)
    assert both.rate_hours[lent] == 40.0
    assert both.rate_shock[calm.universe.code("instrument", PERP)] == 0.0


def test_an_outage_of_a_chain_closes_what_runs_on_it_and_no_later_one_reopens_it(
    calm: Stressed,
) -> None:
    long = Outage(hours=2.0, chain="ethereum").apply(calm)
    short = Outage(hours=0.5, venue="aave-v3").apply(long)
    lender = calm.universe.code("venue", "aave-v3")
    assert short.closed_until_us[lender] == 2 * HOUR_US
    assert short.closed_until_us[calm.universe.code("venue", "hyperliquid")] == 0


def test_a_late_oracle_stays_frozen_where_it_was(calm: Stressed) -> None:
    eth, btc = (calm.universe.code("instrument", f"aave-v3:{a}") for a in ("ETH", "BTC"))
    late = OracleLag(hours=0.5, venue="aave-v3").apply(OracleFreeze(asset="ETH").apply(calm))
    assert ORACLE_MODES[late.oracle_mode[eth]] == "frozen"
    assert ORACLE_MODES[late.oracle_mode[btc]] == "lagged"
    assert late.oracle_lag_us[btc] == HOUR_US // 2
    assert late.oracle_mode[calm.universe.code("instrument", PERP)] == AS_GIVEN


def test_runs_in_turn_take_shares_of_what_is_left(calm: Stressed) -> None:
    run = WithdrawalRun(share=0.5, asset="USDC", venue="aave-v3")
    twice = run.apply(run.apply(calm))
    assert twice.withdrawn[calm.universe.code("instrument", "aave-v3:USDC")] == 0.75
    assert twice.withdrawn.sum() == 0.75
    with pytest.raises(StateError, match="a run needs"):
        WithdrawalRun(share=0.5)


# Correlation


@pytest.mark.parametrize("size", [5, 8, 30])
def test_a_matrix_that_is_none_is_repaired_to_the_nearest(size: int) -> None:
    rng = np.random.default_rng(size)
    broken = checked(np.clip(_symmetric(rng.uniform(-1, 1, (size, size))), -1, 1))
    found = nearest_correlation(broken)
    assert found.least_eigenvalue < 0 < found.distance
    assert "nearest one is used" in found.words
    assert np.linalg.eigvalsh(found.matrix)[0] > -1e-8
    assert (np.diag(found.matrix) == 1.0).all()
    value, vector = np.linalg.eigh(broken)
    clipped = (vector * np.maximum(value, 0)) @ vector.T
    scale = np.sqrt(np.diag(clipped))
    assert found.distance <= np.linalg.norm(clipped / np.outer(scale, scale) - broken) + 1e-9


def test_the_nearest_correlation_of_the_published_example_is_found() -> None:
    """Higham (2002), section 4: the tridiagonal matrix whose nearest he gives to four places."""
    given_matrix = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    found = nearest_correlation(given_matrix).matrix
    near = np.array([[1.0, 0.7607, 0.1573], [0.7607, 1.0, 0.7607], [0.1573, 0.7607, 1.0]])
    assert np.abs(found - near).max() < 5e-5


@given(st.floats(0.0, 1.0), st.floats(-0.4, 1.0))
def test_a_blend_lies_on_the_line_between(weight: float, target: float) -> None:
    start = np.array([[1.0, 0.3, 0.2], [0.3, 1.0, -0.1], [0.2, -0.1, 1.0]])
    found = blended(start, target, weight)
    off = (1.0 - weight) * start + weight * target
    np.fill_diagonal(off, 1.0)
    assert found.distance == 0.0
    assert np.abs(found.matrix - off).max() < 1e-12
    root = lower_root(found.matrix)
    assert np.abs(root @ root.T - found.matrix).max() < 1e-9


def test_a_matrix_without_full_rank_has_a_root() -> None:
    assert (lower_root(np.ones((4, 4))) @ lower_root(np.ones((4, 4))).T == 1.0).all()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.zeros((2, 3)), "must be square"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (np.array([[1.0, 1.5], [1.5, 1.0]]), "not within -1 and 1"),
        (np.array([[0.9, 0.5], [0.5, 1.0]]), "diagonal"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "not within"),
    ],
)
def test_what_is_no_matrix_of_correlations_at_all_is_refused(
    matrix: np.ndarray, words: str
) -> None:
    with pytest.raises(StateError, match=words):
        checked(matrix)


def test_a_correlation_shock_says_that_it_repaired(calm: Stressed) -> None:
    size = len(calm.universe.assets)
    broken = np.clip(_symmetric(np.random.default_rng(3).uniform(-1, 1, (size, size))), -1, 1)
    np.fill_diagonal(broken, 1.0)
    target = tuple(map(tuple, broken.tolist()))
    after = Correlation(weight=1.0, target=target).apply(calm)
    assert after.correlation is not None
    assert np.linalg.eigvalsh(after.correlation)[0] > -1e-8
    assert "no correlation matrix" in after.notes[0]
    assert not Correlation(weight=0.7).apply(calm).notes
    with pytest.raises(StateError, match="it must be 11 x 11"):
        Correlation(weight=1.0, target=((1.0,),)).apply(calm)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    found = np.triu(matrix, 1)
    found = found + found.T
    np.fill_diagonal(found, 1.0)
    return found


# Fraud and failure


def test_counterfeit_collateral_makes_the_book_that_the_tables_would(
    wide_world: World, calm: Stressed
) -> None:
    after = Counterfeit(asset="stETH", venue="aave-v3", qty=20.0, borrow="USDC").apply(calm)
    debt = min(0.7 * 20.0 * 1_980.0, 20_000.0)  # the reserve holds 50,000 and lent 30,000
    tables = wide_world.tables
    accounts = from_tuples(
        "accounts",
        ("account", "venue", "label", "margin_group", "mode"),
        [(6, "aave-v3", "x", "cross", "cross")],
        ts=wide_world.ts,
    ).select(tables["accounts"].columns)
    legs = from_tuples(
        "positions",
        ("account", "instrument", "kind", "qty"),
        [(6, "aave-v3:stETH", "collateral", 20.0), (6, "aave-v3:USDC", "debt", -debt)],
        ts=wide_world.ts,
    ).select(tables["positions"].columns)
    expected = Book.from_frames(
        calm.universe,
        pl.concat([tables["accounts"], accounts]),
        pl.concat([tables["positions"], legs]),
    )
    book = after.snapshot.book
    for name in ("account", "venue", "mode", "owner", "offset", "inst", "kind", "qty", "owners"):
        assert (getattr(book, name) == getattr(expected, name)).all(), name
        assert getattr(book, name).dtype == getattr(expected, name).dtype, name
    assert after.snapshot.free.owners == len(book.owners)
    lent = after.snapshot.liquidity
    usdc = calm.universe.code("instrument", "aave-v3:USDC")
    assert lent.borrowed[usdc] == 30_000.0 + debt
    assert "counterfeit" in after.notes[0]


def test_a_reserve_that_was_run_on_has_less_to_lend_to_a_forger(calm: Stressed) -> None:
    run = WithdrawalRun(share=0.3, asset="USDC", venue="aave-v3").apply(calm)
    after = Counterfeit(asset="BTC", venue="aave-v3", qty=10.0, borrow="USDC").apply(run)
    assert after.snapshot.book.qty.min() == -20_000.0  # the debt of owner 2, who was there before
    assert after.snapshot.book.qty[-1] == pytest.approx(-(0.7 * 50_000.0 - 30_000.0))


def test_counterfeit_collateral_is_borrowed_against_up_to_its_ltv(calm: Stressed) -> None:
    after = Counterfeit(asset="wstETH", venue="aave-v3", usd=10_000.0, ltv=0.6).apply(calm)
    judged = margins(after.snapshot)
    assert judged.health[-1] == pytest.approx(0.75 / 0.6)
    assert judged.assets[-1] == pytest.approx(10_000.0)
    before = margins(calm.snapshot)
    assert (judged.health[:-1] == before.health).all()


def test_a_wrong_parameter_is_that_of_everybody_in_its_scope(calm: Stressed) -> None:
    wrong = ParameterError(
        venue="aave-v3", name="liquidation_threshold", value=0.76, instrument="aave-v3:ETH"
    ).apply(calm)
    before, after = margins(calm.snapshot), margins(wrong.snapshot)
    changed = after.health != before.health
    assert changed.sum() == 1  # account 1 alone has posted ETH
    assert after.health[changed][0] == pytest.approx(0.76 * 20_000.0 / 10_000.0)
    assert wrong.notes == ("liquidation_threshold of aave-v3:ETH is 0.76",)


def test_a_wrong_margin_rate_takes_the_place_of_brackets(calm: Stressed) -> None:
    wrong = ParameterError(
        venue="hyperliquid", name="maintenance_margin_rate", value=0.1, instrument=PERP
    ).apply(calm)
    asked = margins(wrong.snapshot).asked - margins(calm.snapshot).asked
    assert sorted(asked[asked != 0.0]) == pytest.approx([3_000.0, 3_000.0])


@pytest.mark.parametrize(
    ("given_values", "error", "words"),
    [
        ({"name": "lvt", "value": 0.5}, StateError, "no parameter is called 'lvt'.*ltv"),
        ({"name": "ltv", "value": 0.5, "category": "eth"}, StateError, "needs an instrument"),
    ],
)
def test_a_parameter_that_no_venue_has_is_refused(
    given_values: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ParameterError(venue="aave-v3", **given_values)


def test_a_parameter_that_cannot_be_is_refused_by_the_rules(calm: Stressed) -> None:
    with pytest.raises(RuleError, match="ltv is 50; it lies between 0 and 1"):
        ParameterError(venue="aave-v3", name="ltv", value=50.0).apply(calm)


def test_a_failed_bridge_takes_its_share_of_what_backs_an_asset(calm: Stressed) -> None:
    after = BridgeFailure(name="bridge", recovery=0.25).apply(calm)
    left = dict(zip(calm.universe.assets, after.receipt, strict=True))
    assert left["stETH"] == pytest.approx(1.0 - 0.75 * 100.0 / 1_000.0)
    assert {k for k, v in left.items() if v != 1.0} == {"stETH"}
    owed = after.snapshot.claims.qty / calm.snapshot.claims.qty
    assert sorted(owed)[:2] == [0.25, 1.0]
    assert price_of(after, "aave-v3:wstETH") == pytest.approx(2_376.0 * left["stETH"])


def test_an_issuer_or_custodian_is_known_by_the_table_of_assets_too(calm: Stressed) -> None:
    desk = IssuerFailure(name="Desk", recovery=0.4).apply(calm)
    left = dict(zip(calm.universe.assets, desk.receipt, strict=True))
    assert left["ETH3L"] == left["ETH1S"] == 0.4
    kept = CustodianFailure(name="Keeper", recovery=0.0).apply(calm)  # by claims alone
    assert kept.receipt[calm.universe.code("asset", "WBTC")] == 0.0
    one = IssuerFailure(asset="USDC", recovery=0.9).apply(calm)
    assert one.receipt[calm.universe.code("asset", "USDC")] == 0.9
    assert one.receipt.sum() == pytest.approx(len(one.receipt) - 0.1)


def test_an_exploit_takes_the_same_share_from_every_deposit(calm: Stressed) -> None:
    after = Exploit(venue="aave-v3", share=0.25, asset="USDC").apply(calm)
    was, now = calm.snapshot.book, after.snapshot.book
    lender = calm.universe.code("instrument", "aave-v3:USDC")
    kept = (was.inst == lender) & (was.qty > 0)
    assert (now.qty[kept] == 0.75 * was.qty[kept]).all()
    assert (now.qty[~kept] == was.qty[~kept]).all()
    assert after.receipt[calm.universe.code("asset", "vault")] == 0.75
    assert after.snapshot.liquidity.supplied[lender] == 0.75 * 50_000.0


def test_an_exploit_by_value_is_a_share_of_what_is_kept(calm: Stressed) -> None:
    worth = 10 * 2_000.0 + 1 * 40_000.0 + 50_000.0
    after = Exploit(venue="aave-v3", usd=11_000.0).apply(calm)
    lost = calm.snapshot.book.qty - after.snapshot.book.qty
    mark = calm.snapshot.market.mark[calm.snapshot.book.inst]
    assert (lost * mark).sum() == pytest.approx(11_000.0)
    assert f"{11_000.0 / worth:.4g}" in after.notes[-1]
    with pytest.raises(StateError, match="keeps 110,000 USD; it cannot lose 200,000"):
        Exploit(venue="aave-v3", usd=200_000.0).apply(calm)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exploit(venue="v"),
        lambda: Exploit(venue="v", share=0.1, usd=1.0),
        lambda: Counterfeit(asset="a", venue="v"),
        lambda: Outage(hours=1.0),
        lambda: Outage(hours=1.0, venue="a", chain="b"),
        lambda: Capacity(multiplier=1.0),
    ],
)
def test_of_two_ways_to_say_it_exactly_one_is_taken(make: Any) -> None:
    with pytest.raises(StateError, match="exactly one of"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Depth(multiplier=0.0), "multiplier was 0.0; it must be above 0"),
        (lambda: Volatility(multiplier=-1.0), "multiplier was -1.0; it must be at least 0"),
        (lambda: WithdrawalRun(share=1.5, asset="a"), "share was 1.5.*at most 1"),
        (lambda: Rate(per_hour=2.0, hours=1.0), "per_hour was 2.0"),
        (lambda: Outage(hours=0.0, venue="v"), "hours was 0.0; it must be above 0"),
        (lambda: OracleManipulation(factor=0.0), "factor was 0.0; it must be above 0"),
        (lambda: Correlation(weight=1.2), "weight was 1.2"),
        (lambda: BridgeFailure(name="b", recovery=-0.1), "recovery was -0.1"),
        (lambda: BridgeFailure(), "needs the name of who fails"),
        (lambda: PriceBeta(move=0.1, betas={"ETH": float("nan")}), "the beta of ETH was nan"),
        (lambda: Depth(multiplier="half"), "multiplier was 'half', a str; it must be a number"),
        (lambda: Volatility(shift=None), "shift was None, a NoneType; it must be a number"),
        (lambda: WithdrawalRun(share=True, asset="a"), "share was True, a bool; it must be a n"),
    ],
)
def test_a_number_outside_its_range_is_refused(make: Any, words: str) -> None:
    with pytest.raises(StateError, match=words):
        make()


def test_a_price_after_all_is_the_product_of_its_causes(calm: Stressed) -> None:
    shocks: list[Shock] = [
        Price(asset="ETH", move=-0.3),
        Peg(asset="stETH", level=0.95),
        Basis(move=-0.02, instrument="aave-v3:stETH"),
        BridgeFailure(name="bridge", recovery=0.0),
    ]
    after = calm
    for shock in shocks:
        after = shock.apply(after)
    expected = 2_000.0 * 0.7 * 0.95 * 0.98 * 0.9
    assert price_of(after, "aave-v3:stETH") == pytest.approx(expected, rel=1e-12)
    assert exp(after.basis.min()) == pytest.approx(0.98)
    assert log(0.95 / 0.99) == pytest.approx(after.factor[calm.universe.code("asset", "stETH")])


def test_the_words_of_notes_do_not_change_what_was_computed(calm: Stressed) -> None:
    assert calm.noted("said").digest == calm.digest
    assert replace(calm, notes=("x",)).digest == calm.digest
