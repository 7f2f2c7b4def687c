"""Who must trade because a price moved: tokens to their wipe-out, dealers by finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from crowds import crowd
from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.dealers import Dealers, Sign, black76_gamma
from undertow.measures.crowding.funds import Funds
from undertow.measures.crowding.rebalancing import rebalancing
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.worlds import tiny_world
from undertow.worlds.frames import from_tuples

YEAR_US = 365 * 86_400_000_000
ETH = 2_000.0
# 300 m USD of ETH against 200 m: 100 m at 3 times; 200 m USD of USDC against 100 m of ETH: at -1.
CLAIMS = [
    ("external", "desk", "asset", "ETH3L", "ETH", "backing", 150_000.0),
    ("asset", "ETH3L", "external", "bank", "USDC", "loan", 2e8),
    ("external", "desk", "asset", "ETH1S", "USDC", "backing", 2e8),
    ("asset", "ETH1S", "external", "bank", "ETH", "loan", 50_000.0),
]
Options = Sequence[tuple[str, float, int, float]]  # type, strike, account, quantity


def made(*, tokens: bool = False, options: Options = (), depth: float = 0.0) -> Snapshot:
    """The tiny world (ETH at 2,000 USD) with leveraged tokens, or half-year options of vol 0.6."""
    world = tiny_world()
    tables, ts = dict(world.tables), world.ts
    since = world.tables["assets"]["ts"][0]

    def add(table: str, columns: str, rows: list[tuple[object, ...]]) -> None:
        frame = from_tuples(table, tuple(columns.split()), rows, ts=0)
        frame = frame.with_columns(pl.lit(since).cast(tables[table]["ts"].dtype).alias("ts"))
        if not tables[table].is_empty():
            tables[table] = pl.concat([tables[table], frame.select(tables[table].columns)])
        else:
            tables[table] = frame

    if tokens:
        add("assets", "asset symbol kind reference rate sector",
            [(t, t, "other", "ETH", 0.01, "token") for t in ("ETH3L", "ETH1S")])  # fmt: skip
        add("claims", "debtor_kind debtor creditor_kind creditor asset kind qty",
            list(CLAIMS))  # fmt: skip
    if options:
        add("venues", "venue kind profile", [("deribit", "options", "deribit")])
        names = {(k, s): f"deribit:ETH-{s:g}-{k[0]}" for k, s, _, _ in options}
        add("instruments",
            "instrument venue symbol kind asset inverse contract_size expiry strike option_type",
            [("deribit:USDC", "deribit", "USDC", "cash", "USDC", False, 1.0, None, None, None),
             *((n, "deribit", n, "option", "ETH", False, 1.0, ts + YEAR_US // 2, s, k)
               for (k, s), n in names.items())])  # fmt: skip
        add("prices", "instrument kind price",
            [(n, kind, p) for n in names.values() for kind, p in (("mark", 90.0), ("index", ETH))]
            + [("deribit:USDC", "spot", 1.0)])  # fmt: skip
        add("implied_vols", "venue asset vol", [("deribit", "ETH", 0.6)])
        accounts = sorted({a for *_, a, _ in options})
        add("accounts", "account venue label margin_group mode owner",
            [(a, "deribit", f"o{a}", "m", "portfolio", a) for a in accounts])  # fmt: skip
        held: dict[tuple[int, str], float] = {}
        for k, s, a, q in options:
            held[a, names[k, s]] = held.get((a, names[k, s]), 0.0) + q
        add("positions", "account instrument kind qty entry evidence",
            [(a, n, "option", q, 90.0, "observed") for (a, n), q in held.items()]
            + [(a, "deribit:USDC", "cash", 1e6, None, "observed") for a in accounts])  # fmt: skip
    if depth:
        add("depth", "instrument side band qty",
            [("aave-v3:ETH", side, 1.0, depth) for side in ("bid", "ask")])  # fmt: skip
    return Snapshot.from_tables(tables, ts)


# ---------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokens() -> Snapshot:
    return made(tokens=True, depth=100_000.0)


def test_tokens_trade_m_times_m_less_one_with_the_move(tokens: Snapshot) -> None:
    found = rebalancing(tokens)
    assert found.headline is not None
    # 3 x 2 x 100 m + -1 x -2 x 100 m = 800 m a unit, 8 m a percent
    assert found.headline.value == pytest.approx(8e6)
    assert found.reading("crowding.fund_rebalancing").value == pytest.approx(8e6)
    assert found.reading("crowding.dealer_gamma").value is None
    assert found.reading("crowding.rebalancing_e_folds", "ETH").value == pytest.approx(
        8e6 / (100_000.0 * ETH)
    )
    rows = {r["token"]: r for r in found.tables["funds"].iter_rows(named=True)}
    assert (rows["ETH3L"]["leverage"], rows["ETH1S"]["leverage"]) == pytest.approx((3.0, -1.0))
    assert rows["ETH3L"]["per_percent_usd"] == pytest.approx(6e6)
    assert rows["ETH3L"]["wiped_out_at"] == pytest.approx(-1.0 / 3.0)
    assert rows["ETH1S"]["wiped_out_at"] == pytest.approx(1.0)
    assert "no options in the book" in found.says[-1]


@given(st.floats(-0.9, 3.0))
def test_a_token_ends_at_its_leverage_or_with_nothing_to_trade(r: float) -> None:
    funds = Funds(
        np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64),
        frozen(np.array([3.0, -1.0, 2.0, -2.0])), frozen(np.array([5.0, 7.0, 11.0, 13.0])),
        np.empty(0, dtype=np.int64),
    )  # fmt: skip
    bought = funds.bought(r)
    for m, a, usd in zip(funds.multiple, funds.net_usd, bought, strict=True):
        exposure, equity = m * a * (1.0 + r), a * (1.0 + m * r)
        # above the wipe-out it is back at its leverage, beyond it is out
        after = m * equity if equity > 0.0 else 0.0
        assert exposure + usd == pytest.approx(after, abs=1e-9)
        assert usd * r >= -1e-12  # always with the move
    assert funds.bought(np.array([r, 0.0])).shape == (2, 4)


def test_the_ladder_stops_at_the_wipe_out(tokens: Snapshot) -> None:
    found = rebalancing(tokens, moves=(-0.5, -1.0 / 3.0 - 1e-9, -0.3, 0.5, 1.0))
    rows = found.tables["ladder"]
    assert rows["move"].is_sorted()
    assert rows["wiped_out"].to_list() == [1, 1, 0, 0, 1]
    long_out, short = -3e8 * 0.5, -2e8 * 0.5  # all 300 m USD, worth half; -1 x -2 x 100 m x -0.5
    assert rows["bought_usd"][0] == pytest.approx(long_out + short)
    assert rows["bought_usd"][2] == pytest.approx(-8e8 * 0.3)
    assert rows["e_folds"][2] == pytest.approx(-8e8 * 0.3 / (100_000.0 * ETH))
    assert (np.sign(rows["bought_usd"]) == np.sign(rows["move"])).all()


def test_a_fund_between_nothing_and_one_trades_against_the_move() -> None:
    half = Funds(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64),
                 frozen(np.array([0.5])), frozen(np.array([100.0])),
                 np.empty(0, dtype=np.int64))  # fmt: skip
    assert half.bought(0.1)[0] == pytest.approx(-0.5 * 0.5 * 100.0 * 0.1)
    assert np.isinf(half.wiped_out_at[0])


# ---------------------------------------------------------------- dealers


def price(kind: int, f: float, k: float, vol: float, tau: float) -> float:
    """Black (1976), written apart."""
    s = vol * np.sqrt(tau)
    d1 = np.log(f / k) / s + s / 2
    return float(kind * (f * norm.cdf(kind * d1) - k * norm.cdf(kind * (d1 - s))))


@given(st.floats(0.5, 2.0), st.floats(0.2, 1.5), st.floats(0.02, 2.0), st.sampled_from([1, -1]))
def test_gamma_is_the_second_difference_of_the_price(
    moneyness: float, vol: float, tau: float, kind: int
) -> None:
    f, k = 100.0, 100.0 * moneyness
    h = 0.02 * f * vol * np.sqrt(tau)
    up, mid, down = (price(kind, f + d, k, vol, tau) for d in (h, 0.0, -h))
    found = black76_gamma(*(np.array([x]) for x in (f, k, vol, tau)))
    peak = 1.0 / (np.sqrt(2 * np.pi) * f * vol * np.sqrt(tau))
    assert found[0] == pytest.approx((up - 2 * mid + down) / h**2, abs=2e-3 * peak)


def test_gamma_is_that_of_quantlib() -> None:
    ql = pytest.importorskip("QuantLib", reason="the extra `options` is not installed")
    f, k, vol, tau = 2_000.0, 2_300.0, 0.6, 0.5
    payoff = ql.PlainVanillaPayoff(ql.Option.Call, k)
    calculator = ql.BlackCalculator(payoff, f, vol * np.sqrt(tau), 1.0)
    found = black76_gamma(*(np.array([x]) for x in (f, k, vol, tau)))
    assert found[0] == pytest.approx(calculator.gammaForward(), rel=1e-10)


def test_gamma_of_a_worked_case() -> None:
    # at the money, vol 0.2, one year: phi(0.1) / (100 * 0.2)
    found = black76_gamma(*(np.array([x]) for x in (100.0, 100.0, 0.2, 1.0)))
    assert found[0] == pytest.approx(norm.pdf(0.1) / 20.0)


CUSTOMERS = (("call", 2_200.0, 50, 400.0), ("put", 1_800.0, 51, -300.0))


def test_dealers_take_the_other_side_of_customers_as_signed() -> None:
    snapshot = made(options=CUSTOMERS, depth=100_000.0)
    found = rebalancing(snapshot)
    gamma = 0.0
    for _, strike, _, qty in CUSTOMERS:
        each = black76_gamma(*(np.array([x]) for x in (ETH, strike, 0.6, 0.5)))[0]
        gamma += -qty * each * ETH * ETH * 0.01
    assert found.reading("crowding.dealer_gamma").value == pytest.approx(gamma, rel=1e-9)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(-gamma, rel=1e-9)
    assert gamma < 0.0
    assert "Dealers are short of gamma" in found.says[2]
    assert not any("assumption" in each for each in found.says)


def test_what_dealers_trade_is_their_change_of_delta() -> None:
    held = Dealers.of(Crowd.of(made(options=CUSTOMERS)))
    for r in (-0.3, 0.01, 0.4):
        want = 0.0
        for kind, strike, _, qty in CUSTOMERS:
            way = 1 if kind == "call" else -1
            h, f = 1e-3, ETH * (1.0 + r)
            now, then = (
                (price(way, x + h, strike, 0.6, 0.5) - price(way, x - h, strike, 0.6, 0.5)) / 2 / h
                for x in (ETH, f)
            )
            want += qty * (then - now) * f  # dealers are short what customers are long
        assert held.bought(r).sum() == pytest.approx(want, rel=1e-5)
    small = held.bought(1e-5).sum() / 1e-5 * 0.01
    assert small == pytest.approx(-held.per_percent().sum(), rel=1e-3)


def test_the_level_without_gamma_has_none_and_is_the_nearest() -> None:
    snapshot = made(options=CUSTOMERS)
    held = Dealers.of(Crowd.of(snapshot))
    zero = held.zero()
    assert zero is not None
    assert held.per_percent(zero).sum() == pytest.approx(0.0, abs=1e-6)
    between = np.linspace(0.0, zero, 50)[:-1]
    assert len(set(np.sign(held.per_percent(between).sum(axis=-1)))) == 1
    found = rebalancing(snapshot)
    assert found.reading("crowding.zero_gamma", "ETH").value == pytest.approx(zero)
    row = found.tables["assets"].row(0, named=True)
    assert row["zero_gamma_level"] == pytest.approx(ETH * (1.0 + zero))
    one_sided = Dealers.of(Crowd.of(made(options=CUSTOMERS[:1])))
    assert one_sided.zero() is None


def test_a_book_of_both_sides_says_so_and_rests_on_an_assumption() -> None:
    both = (*CUSTOMERS, ("call", 2_200.0, 99, -400.0), ("put", 1_800.0, 99, 300.0))
    snapshot = made(options=both)
    found = rebalancing(snapshot)
    assert any("does not say who deals" in each for each in found.says)
    told = found.tables["assumptions"]
    assert sorted(told["sign"].to_list()) == [str(Sign.CALLS_LONG), str(Sign.PUTS_LONG)]
    one, other = told.sort("sign")["gamma_usd"].to_list()
    assert one == pytest.approx(-other)
    named = rebalancing(snapshot, dealers=iter([99]))
    alone = rebalancing(made(options=CUSTOMERS))
    value = named.reading("crowding.dealer_gamma").value
    assert value == pytest.approx(alone.reading("crowding.dealer_gamma").value)
    assert named.tables["assumptions"].height == 3
    assert not any("does not say" in each for each in named.says)
    # customers are long the call and short the put here, so the assumption is right
    assert found.reading("crowding.dealer_gamma").value == pytest.approx(value)


def test_dealers_who_are_named_and_flat_have_no_gamma() -> None:
    held = [("call", 2_200.0, 101, 100.0), ("call", 2_200.0, 102, -100.0),
            ("put", 1_800.0, 101, 50.0), ("put", 1_800.0, 102, -50.0),
            ("call", 2_400.0, 109, 0.0)]  # fmt: skip
    snapshot = made(options=held)
    found = rebalancing(snapshot, dealers=[109])
    assert found.reading("crowding.dealer_gamma").value == 0.0
    assert not any("does not say who deals" in each for each in found.says)
    assert any(each.startswith("Dealers have no gamma") for each in found.says)
    assert rebalancing(snapshot).reading("crowding.dealer_gamma").value != 0.0
    told = found.tables["assumptions"]
    assert told.filter(sign=str(Sign.BOOK)).select("gamma_usd", "assumed").row(0) == (0.0, 0)


def test_a_dealer_who_is_not_in_the_book_is_refused() -> None:
    snapshot = made(options=CUSTOMERS)
    with pytest.raises(StateError, match="dealers named 777, and the book has no such owner"):
        rebalancing(snapshot, dealers=[50, 777])
    with pytest.raises(StateError, match="dealers named -1"):  # whom nobody knows is not one owner
        rebalancing(snapshot, dealers=[-1])


def test_one_unmatched_option_turns_no_other() -> None:
    pair = [("call", 2_200.0, 101, 100.0), ("call", 2_200.0, 102, -100.0)]
    whole = rebalancing(made(options=pair)).reading("crowding.dealer_gamma").value
    odd = rebalancing(made(options=[*pair, ("put", 1_800.0, 101, 0.001)]))
    assert odd.reading("crowding.dealer_gamma").value == pytest.approx(whole, rel=1e-4)
    assert "options held on both sides" in odd.reading("crowding.dealer_gamma").definition
    assert any("holds both sides of 1 of 2 options" in each for each in odd.says)
    told = odd.tables["assumptions"].filter(sign=str(Sign.BOOK))
    assert told.select("options", "assumed").row(0) == (2, 1)
    # within a hundredth of its open interest an option is there with both sides
    for short, sign in ((-99.5, Sign.CALLS_LONG), (-98.0, Sign.BOOK)):
        near = [pair[0], ("call", 2_200.0, 102, short)]
        assert Dealers.of(Crowd.of(made(options=near))).sign is sign


# ---------------------------------------------------------------- outcomes


def test_without_tokens_and_options_nobody_must_trade() -> None:
    found = rebalancing(crowd([0.1], [1_000.0], share=0.5))
    assert found.headline is not None
    assert found.headline.value is None
    assert len(found.says) == 1
    assert found.says[0].startswith("Nobody must trade because a price moved")
    assert found.says[0].endswith("the book has no leveraged tokens and no options.")
    assert found.tables["ladder"].height == 0
    assert found.tables["assets"].height == 0


def test_options_without_a_volatility_are_left_out_and_counted() -> None:
    snapshot = made(options=CUSTOMERS)
    market = snapshot.market
    blind = replace(snapshot, market=replace(market, vol=frozen(np.zeros(len(market.vol)))))
    found = rebalancing(blind)
    assert found.headline is not None
    assert found.headline.value is None
    assert "options are held, of which no volatility" in found.says[0]
    assert rebalancing(snapshot).tables["strikes"].height > 0


def test_misuse_is_refused(tokens: Snapshot) -> None:
    with pytest.raises(StateError, match="moves were"):
        rebalancing(tokens, moves=(-1.0,))
    with pytest.raises(StateError, match="sign was 'up'"):
        rebalancing(tokens, sign="up")
