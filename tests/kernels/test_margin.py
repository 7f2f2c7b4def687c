"""Health, liquidation price and distance of accounts, against a plain reference written apart."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from undertow.kernels import margin as m

INSTRUMENTS = 10
LENT, COINS, PERPS, INVERSES, OPTIONS = (0, 1, 2), (3, 4), (5, 6), (7, 8), (9,)
SEEDS = st.integers(0, 2**32 - 1)


class World(NamedTuple):
    """Many small accounts on ten instruments: two lent assets, a stable, coins, perps, options."""

    offsets: Any
    legs: m.Legs
    price: Any
    terms: m.Terms
    exposure: Any
    option_notional: Any


def bracket_rows(rng: np.random.Generator, k: int) -> list[tuple[float, float, float, float]]:
    """Continuous tiers: rising maintenance, or falling collateral rates for the coins."""
    n = int(rng.integers(1, 6))
    if k in LENT or (k in COINS and rng.random() < 0.3):
        return []
    floors = np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 4.0, n - 1))])
    rates = np.sort(rng.uniform(0.004, 0.5, n))
    if k in COINS:
        rates = np.sort(rng.uniform(0.1, 1.0, n))[::-1]
    amounts = np.zeros(n)
    for j in range(1, n):
        step = abs(rates[j] - rates[j - 1])
        amounts[j] = amounts[j - 1] + floors[j] * step
    return list(zip(floors, rates, amounts, 1.0 / rates, strict=True))


def make_world(seed: int, accounts: int = 6) -> World:
    rng = np.random.default_rng(seed)
    tables = [bracket_rows(rng, k) for k in range(INSTRUMENTS)]
    rows = np.array([row for table in tables for row in table]).reshape(-1, 4)
    start = np.concatenate([[0], np.cumsum([len(t) for t in tables])]).astype(np.int64)
    fee = np.where(rng.random(INSTRUMENTS) < 0.5, 0.0, 0.0006)
    basis = rng.integers(0, 3, INSTRUMENTS).astype(np.int8)
    terms = m.Terms(start, *(np.ascontiguousarray(rows[:, c]) for c in range(4)), fee, basis)
    price = rng.uniform(0.5, 3.0, INSTRUMENTS)
    exposure = np.ones(INSTRUMENTS)
    exposure[2] = 0.0  # a stable
    legs: list[tuple[int, float, float, int, float]] = []
    offsets = [0]
    for _ in range(accounts):
        size = rng.uniform(0.1, 4.0, INSTRUMENTS)
        if rng.random() < 0.5:
            legs += [(0, size[0], 0.0, m.COLLATERAL, 0.8), (1, -0.6 * size[1], 0.0, m.DEBT, 1.0)]
            legs += [(2, size[2], 0.0, rng.choice([m.COLLATERAL, m.SUPPLY]), 0.9)]
        else:
            for k in rng.choice(range(3, INSTRUMENTS), int(rng.integers(1, 6)), replace=False):
                sign = rng.choice([-1.0, 1.0])
                if k in COINS:
                    legs.append((k, size[k] * rng.choice([1.0, 1.0, -0.3]), 0.0, m.CASH, 0.95))
                    continue
                role = m.LINEAR if k in PERPS else m.INVERSE if k in INVERSES else m.OPTION
                entry = price[k] * rng.uniform(0.8, 1.25)
                legs.append((k, sign * size[k], entry, role, 1.0))
            legs.append((2, size[2] * 3.0, 0.0, m.CASH, 1.0))
        offsets.append(len(legs))
    columns = list(zip(*legs, strict=True))
    return World(
        np.array(offsets, dtype=np.int64),
        m.Legs(
            np.array(columns[0], dtype=np.int32),
            np.array(columns[1], dtype=np.float64),
            np.array(columns[2], dtype=np.float64),
            np.array(columns[3], dtype=np.int8),
            np.array(columns[4], dtype=np.float64),
        ),
        price,
        terms,
        exposure,
        rng.uniform(0.0, 2.0, INSTRUMENTS),
    )


def reference(w: World, account: int, price: Any) -> dict[str, float]:
    """The same account by the venue's words: which tier holds, not which line is highest."""
    out = dict.fromkeys(("assets", "debt", "equity", "cover", "asked", "notional"), 0.0)
    t = w.terms

    def tier(k: int, notional: float) -> tuple[float, float] | None:
        found = None
        for j in range(t.start[k], t.start[k + 1]):
            if found is None or notional > t.floor[j]:
                found = (t.rate[j], t.amount[j])
        return found

    for i in range(w.offsets[account], w.offsets[account + 1]):
        k, qty, role = int(w.legs.inst[i]), w.legs.qty[i], w.legs.role[i]
        entry, weight, p = w.legs.entry[i], w.legs.weight[i], price[k]
        if role in (m.COLLATERAL, m.SUPPLY) or (role == m.CASH and qty >= 0):
            out["assets"] += qty * p
            if role != m.SUPPLY:
                rate, amount = tier(k, qty * p) or (1.0, 0.0)
                out["cover"] += weight * (rate * qty * p + amount)
        elif role in (m.DEBT, m.CASH):
            out["debt"] -= qty * p
            out["asked"] -= qty * p * (weight if role == m.DEBT else 1.0)
        else:
            at = {m.TESTED: p, m.ENTRY: entry, m.CURRENT: w.price[k]}[t.basis[k]]
            if role == m.INVERSE:
                gain, size, unit = (qty / entry - qty / p) * p, abs(qty) / at, at
                if t.basis[k] == m.ENTRY:
                    unit = p
            else:
                gain = qty * p if role == m.OPTION else qty * (p - entry)
                size, unit = abs(qty) * at, 1.0
            rate, amount = tier(k, size) or (0.0, 0.0)
            asked = weight * unit * (rate * size - amount + t.closing_fee[k] * size)
            if role == m.OPTION and qty > 0:
                asked = 0.0
            out["cover"] += gain
            out["equity"] += gain
            out["asked"] += asked
            each = {m.LINEAR: p, m.INVERSE: 1.0, m.OPTION: w.option_notional[k]}[role]
            out["notional"] += abs(qty) * each
    out["equity"] += out["assets"] - out["debt"]
    return out


def health(w: World, account: int, price: Any) -> float:
    sums = reference(w, account, price)
    return sums["cover"] - sums["asked"]


def scale(w: World, account: int, price: Any) -> float:
    rows = slice(w.offsets[account], w.offsets[account + 1])
    price = np.maximum(price, w.price)
    face = np.where(w.legs.role[rows] == m.INVERSE, 1.0, price[w.legs.inst[rows]])
    return float(np.sum(np.abs(w.legs.qty[rows]) * np.maximum(face, 1.0)) * 10.0)


def moved(w: World, u: float) -> Any:
    return w.price * np.maximum(1.0 + u * w.exposure, 1e-13)  # coin needs a price to count in


def judge(w: World) -> m.Sums:
    n = w.offsets.size - 1
    out = m.Sums(*(np.full(n, np.nan) for _ in m.Sums._fields))
    m.account_sums(0, n, w.offsets, w.legs, w.price, w.price, w.option_notional, w.terms, out)
    return out


@given(SEEDS)
def test_the_sums_are_those_of_the_venues_words(seed: int) -> None:
    w = make_world(seed)
    shocked = moved(w, -0.23)
    n = w.offsets.size - 1
    out = m.Sums(*(np.full(n, np.nan) for _ in m.Sums._fields))
    m.account_sums(0, n, w.offsets, w.legs, shocked, w.price, w.option_notional, w.terms, out)
    for a in range(n):
        for name, want in reference(w, a, shocked).items():
            assert getattr(out, name)[a] == pytest.approx(want, rel=1e-12, abs=1e-11), name


@given(SEEDS)
def test_a_liquidation_price_is_where_cover_meets_what_is_asked(seed: int) -> None:
    w = make_world(seed)
    out = judge(w)
    for a in range(w.offsets.size - 1):
        for i in range(w.offsets[a], w.offsets[a + 1]):
            k = w.legs.inst[i]
            p, status = m.liquidation_price(i, w.legs, w.price, w.terms, out.cover[a], out.asked[a])
            at = w.price.copy()
            long = w.legs.qty[i] > 0.0 and w.legs.role[i] != m.DEBT
            if status == m.FOUND:
                assert p > 0.0
                at[k] = p
                assert abs(health(w, a, at)) <= 1e-10 * scale(w, a, at)
                # beyond it the account is under: that is the side it dies on
                at[k] = p * (0.999 if long else 1.001)
                assert health(w, a, at) <= 1e-10 * scale(w, a, at)
            else:
                assert p == 0.0
                ladder = w.price[k] * np.geomspace(1e-9, 1e9, 400)
                signs = []
                for each in ladder:
                    at[k] = each
                    h = health(w, a, at)
                    signs.append(0 if abs(h) <= 1e-9 * scale(w, a, at) else math.copysign(1, h))
                crossings = np.unique([s for s in signs if s])
                assert crossings.size <= 1, (a, i, w.legs.role[i])


def exact_root(w: World, account: int, lo: float, hi: float) -> float:
    """Bisection on the reference, from a sound point to a broken one."""
    for _ in range(200):
        mid = 0.5 * (lo + hi)
        if health(w, account, moved(w, mid)) < 0.0:
            hi = mid
        else:
            lo = mid
    return hi


@given(SEEDS, st.sampled_from([-1.0, 1.0]))
def test_a_distance_is_the_first_common_move_that_breaks_an_account(seed: int, sign: float) -> None:
    w = make_world(seed)
    n = w.offsets.size - 1
    value, status = np.full(n, np.nan), np.full(n, 9, dtype=np.int8)
    m.distances(0, n, w.offsets, w.legs, w.price, w.exposure, sign, w.terms, value, status)
    for a in range(n):
        now = health(w, a, w.price)
        far = 1.0 if sign < 0 else 1e7
        if status[a] == m.BREACHED:
            assert value[a] == 0.0
            assert now <= 1e-12
        elif status[a] == m.NONE:
            assert value[a] == math.inf
            for u in [0.0, *np.geomspace(1e-3, far, 60)]:
                at = moved(w, sign * u)
                assert health(w, a, at) >= -1e-9 * scale(w, a, at)
        else:
            u = value[a]
            assert 0.0 <= u <= far
            at = moved(w, sign * u)
            assert abs(health(w, a, at)) <= 1e-10 * scale(w, a, at)
            if now > 1e-9 and u < far:
                want = exact_root(w, a, 0.0, sign * min(far, u * 1.5 + 1e-6))
                assert sign * u == pytest.approx(want, rel=1e-6, abs=1e-9)


@given(SEEDS)
def test_health_never_turns_up_again_on_a_straight_path(seed: int) -> None:
    w = make_world(seed)
    for a in range(w.offsets.size - 1):
        path = [health(w, a, moved(w, u)) for u in np.linspace(-1.0, 1.0, 41)]
        slack = 1e-9 * scale(w, a, w.price * 2.0)
        assert (np.diff(path, 2) <= slack).all()


@given(SEEDS, st.floats(1e-6, 50.0))
def test_maintenance_and_haircuts_are_continuous_and_bend_one_way(seed: int, x: float) -> None:
    w = make_world(seed)
    for k in range(INSTRUMENTS):
        edges = w.terms.floor[w.terms.start[k] : w.terms.start[k + 1]]
        for n in [x, *edges[1:]]:
            if k in COINS:
                ends = [m.cover_line(k, v, 1.0, 0.0, 0.0, w.terms)[0] for v in (n, n * (1 + 1e-9))]
                mid = m.cover_line(k, n, 1.0, 0.0, 0.0, w.terms)[0]
                twice = m.cover_line(k, 2.0 * n, 1.0, 0.0, 0.0, w.terms)[0]
                assert twice <= 2.0 * mid * (1 + 1e-12)
            else:
                ends = [
                    m.maintenance_line(k, v, False, 1.0, 0.0, 0.0, w.terms)[0]
                    for v in (n, n * (1 + 1e-9))
                ]
                twice = m.maintenance_line(k, 2.0 * n, False, 1.0, 0.0, 0.0, w.terms)[0]
                assert twice >= 2.0 * ends[0] * (1 - 1e-12)
            assert ends[1] == pytest.approx(ends[0], rel=1e-7)


def test_a_bracket_holds_its_upper_edge_and_not_its_lower() -> None:
    terms = m.Terms(
        np.array([0, 3, 3]),
        np.array([0.0, 10.0, 100.0]),
        np.array([0.01, 0.02, 0.05]),
        np.array([0.0, 0.1, 3.1]),
        np.array([50.0, 25.0, 10.0]),
        np.zeros(2),
        np.zeros(2, dtype=np.int8),
    )
    found = [m.bracket_at(0, n, terms) for n in (0.0, 10.0, 10.0001, 100.0, 1e9)]
    assert found == [0, 0, 1, 1, 2]
    assert m.bracket_at(1, 5.0, terms) == -1


def test_an_account_without_debt_has_no_distance_and_one_under_water_has_none_left() -> None:
    terms = m.Terms(
        np.zeros(3, dtype=np.int64), *(np.zeros(0),) * 4, np.zeros(2), np.zeros(2, "i1")
    )
    legs = m.Legs(
        np.array([0, 0, 1], dtype=np.int32),
        np.array([1.0, 1.0, -2.0]),
        np.zeros(3),
        np.array([m.COLLATERAL, m.COLLATERAL, m.DEBT], dtype=np.int8),
        np.array([0.8, 0.8, 1.0]),
    )
    price, both = np.array([2.0, 1.0]), np.array([1.0, 0.0])
    value, status = np.empty(2), np.empty(2, dtype=np.int8)
    offsets = np.array([0, 1, 3])
    m.distances(0, 2, offsets, legs, price, both, -1.0, terms, value, status)
    assert list(status) == [m.NONE, m.BREACHED]
    assert list(value) == [math.inf, 0.0]


def test_one_collateral_against_one_debt_falls_by_one_less_the_inverse_of_health() -> None:
    terms = m.Terms(
        np.zeros(3, dtype=np.int64), *(np.zeros(0),) * 4, np.zeros(2), np.zeros(2, "i1")
    )
    legs = m.Legs(
        np.array([0, 1], dtype=np.int32),
        np.array([10.0, -12_000.0]),
        np.zeros(2),
        np.array([m.COLLATERAL, m.DEBT], dtype=np.int8),
        np.array([0.825, 1.0]),
    )
    price = np.array([2_000.0, 1.0])
    u, status = m.account_distance(0, 2, legs, price, np.array([1.0, 0.0]), -1.0, terms)
    assert status == m.FOUND
    assert u == pytest.approx(1.0 - 12_000.0 / 16_500.0, rel=1e-14)
    p, status = m.liquidation_price(0, legs, price, terms, 16_500.0, 12_000.0)
    assert status == m.FOUND
    assert p == pytest.approx(12_000.0 / 8.25, rel=1e-14)


def frozen(columns: Any) -> Any:
    """The same columns, closed to writing, which numba compiles apart."""
    copies = [np.array(c) for c in columns]
    for each in copies:
        each.flags.writeable = False
    return type(columns)(*copies)


def bits(result: Any) -> Any:
    """A result down to its last bit, whatever scalar types it came in."""
    if isinstance(result, tuple | list):
        return [bits(each) for each in result]
    return np.float64(result).tobytes()


def answers(w: World, *, plain: bool) -> list[Any]:
    """Every kernel's answers, compiled or as plain Python."""
    f = (lambda kernel: kernel.py_func) if plain else (lambda kernel: kernel)
    n = w.offsets.size - 1
    out = m.Sums(*(np.full(n, np.nan) for _ in m.Sums._fields))
    shocked = moved(w, -0.3)
    f(m.account_sums)(0, n, w.offsets, w.legs, shocked, w.price, w.option_notional, w.terms, out)
    got: list[Any] = [column.tobytes() for column in out]
    for sign in (-1.0, 1.0):
        value, status = np.full(n, np.nan), np.full(n, 9, dtype=np.int8)
        f(m.distances)(0, n, w.offsets, w.legs, w.price, w.exposure, sign, w.terms, value, status)
        got += [value.tobytes(), status.tobytes()]
        got.append(
            [
                f(m.account_distance)(
                    w.offsets[a], w.offsets[a + 1], w.legs, w.price, w.exposure, sign, w.terms
                )
                for a in range(n)
            ]
        )
        got.append(f(m.health_line)(0, w.offsets[1], w.legs, w.price, w.exposure, sign, 0.4,
                                    w.terms))  # fmt: skip
    for i in range(w.legs.inst.size):
        k = w.legs.inst[i]
        got.append(f(m.liquidation_price)(i, w.legs, w.price, w.terms, 3.0, 1.0))
        for t in (0.0, 0.7, math.inf):
            got.append(f(m.leg_lines)(i, w.legs, w.terms, 0.3, 1.1, t, w.price[k]))
            got.append(f(m.cover_line)(k, 2.0, 0.3, 1.1, t, w.terms))
            for inverse in (False, True):
                got.append(f(m.maintenance_line)(k, 2.0, inverse, 0.3, 1.1, t, w.terms))
        got.append(f(m.bracket_at)(k, 1.7, w.terms))
    return [each if isinstance(each, bytes) else bits(each) for each in got]


@given(SEEDS)
def test_compiled_and_plain_agree_to_the_bit(seed: int) -> None:
    w = make_world(seed)
    assert answers(w, plain=False) == answers(w, plain=True)


def test_read_only_columns_give_the_same_bits() -> None:
    w = make_world(7)
    closed = World(*(c if isinstance(c, tuple) else np.array(c) for c in w))
    closed = closed._replace(legs=frozen(w.legs), terms=frozen(w.terms))
    for column in (closed.offsets, closed.price, closed.exposure, closed.option_notional):
        column.flags.writeable = False
    assert answers(closed, plain=False) == answers(w, plain=False)


def test_the_whole_chain_of_kernels_agrees_with_plain_python_to_the_bit() -> None:
    """`py_func` still calls compiled kernels inside; with numba switched off nothing does."""
    words = (
        "from test_margin import answers, make_world\n"
        "print([answers(make_world(s), plain=False) for s in range(12)])"
    )
    folders = [os.path.dirname(__file__), *sys.path]  # noqa: PTH120
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    here = [answers(make_world(s), plain=False) for s in range(12)]
    assert done.stdout.strip() == repr(here)


@given(SEEDS)
def test_rows_outside_the_range_are_left_alone(seed: int) -> None:
    w = make_world(seed)
    n = w.offsets.size - 1
    assume(n >= 3)
    out = m.Sums(*(np.full(n, -7.0) for _ in m.Sums._fields))
    m.account_sums(1, n - 1, w.offsets, w.legs, w.price, w.price, w.option_notional, w.terms, out)
    for column in out:
        assert column[0] == column[-1] == -7.0
    whole = judge(w)
    for got, want in zip(out, whole, strict=True):
        assert got[1:-1].tobytes() == want[1:-1].tobytes()
