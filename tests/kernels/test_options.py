"""Option values and grid requirements, against closed forms, quadrature and a slow grid."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from undertow.kernels import margin as m
from undertow.kernels import options as o

PRICES = st.floats(10.0, 1_000.0)
VOLS = st.floats(0.05, 3.0)
YEARS = st.floats(0.003, 3.0)


def test_black_76_gives_the_worked_example_of_haug() -> None:
    """Haug (2007), "The Complete Guide to Option Pricing Formulas", section 1.1.3: 1.7011."""
    price = o.black76(o.CALL, 19.0, 19.0, 0.28, 0.75, math.exp(-0.10 * 0.75))
    assert price == pytest.approx(1.7011, abs=5e-5)
    put = o.black76(o.PUT, 19.0, 19.0, 0.28, 0.75, math.exp(-0.10 * 0.75))
    assert put == pytest.approx(1.7011, abs=5e-5)


@given(PRICES, PRICES, VOLS, YEARS, st.sampled_from([o.CALL, o.PUT]))
def test_black_76_is_the_mean_of_the_payoff(
    forward: float, strike: float, vol: float, tau: float, kind: int
) -> None:
    s = vol * math.sqrt(tau)

    def payoff(z: float) -> float:
        end = forward * math.exp(s * z - 0.5 * s * s)
        return float(max(kind * (end - strike), 0.0) * norm.pdf(z))

    corner = (math.log(strike / forward) + 0.5 * s * s) / s
    parts = [-12.0, min(max(corner, -12.0), 12.0), 12.0 + s]
    mean = sum(quad(payoff, lo, hi, limit=200, epsabs=1e-9)[0] for lo, hi in pairwise(parts))
    got = o.black76(kind, forward, strike, vol, tau, 0.97)
    assert got == pytest.approx(0.97 * mean, rel=1e-6, abs=1e-6)


@given(PRICES, PRICES, VOLS, YEARS)
def test_a_call_less_a_put_is_the_forward_and_deltas_differ_by_one(
    forward: float, strike: float, vol: float, tau: float
) -> None:
    call, put = (o.black76(k, forward, strike, vol, tau, 0.99) for k in (o.CALL, o.PUT))
    assert call - put == pytest.approx(0.99 * (forward - strike), rel=1e-9, abs=1e-9)
    up, down = (o.black76_delta(k, forward, strike, vol, tau, 0.99) for k in (o.CALL, o.PUT))
    assert up - down == pytest.approx(0.99, rel=1e-12)
    h = forward * 1e-5
    slope = (
        o.black76(o.CALL, forward + h, strike, vol, tau, 0.99)
        - o.black76(o.CALL, forward - h, strike, vol, tau, 0.99)
    ) / (2.0 * h)
    assert up == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(("vol", "tau"), [(0.0, 1.0), (0.5, 0.0), (0.5, -0.1)])
def test_without_time_or_volatility_an_option_is_its_payoff(vol: float, tau: float) -> None:
    assert o.black76(o.CALL, 120.0, 100.0, vol, tau, 1.0) == 20.0
    assert o.black76(o.PUT, 120.0, 100.0, vol, tau, 1.0) == 0.0
    assert o.black76_delta(o.CALL, 120.0, 100.0, vol, tau, 1.0) == 1.0
    assert o.black76_delta(o.PUT, 120.0, 100.0, vol, tau, 1.0) == 0.0
    assert o.black76_delta(o.PUT, 100.0, 100.0, vol, tau, 1.0) == -0.5


def test_near_expiries_move_more_in_volatility_and_none_without_end() -> None:
    month = 30.0 / 365.0
    assert o.vol_scale(month, month, 0.3, 0.13) == 1.0
    assert o.vol_scale(month / 2.0, month, 0.3, 0.13) == pytest.approx(2.0**0.3)
    assert o.vol_scale(month * 4.0, month, 0.3, 0.13) == pytest.approx(0.25**0.13)
    assert o.vol_scale(0.0, month, 0.3, 0.13) == pytest.approx(30.0**0.3)


GRID = o.Grid(
    np.repeat([-0.16, -0.08, 0.0, 0.08, 0.16], 3),
    np.tile([-0.25, 0.0, 0.5], 5),
    np.ones(15),
)


def make_book(seed: int, accounts: int = 5) -> tuple[Any, m.Legs, Any, o.Chain]:
    """Two underlyings, each with a perp, a coin-margined perp and four options; and cash."""
    rng = np.random.default_rng(seed)
    asset = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0], dtype=np.int32)
    kind = np.array([0, 0, 1, -1, 1, -1, 0, 0, 1, -1, 1, -1, 0], dtype=np.int8)
    n = asset.size
    spot = np.where(asset == 0, 40_000.0, 2_000.0)
    forward = spot * rng.uniform(0.98, 1.05, n)
    vol, tau = rng.uniform(0.3, 1.2, n), rng.uniform(0.01, 0.6, n)
    scale = np.array([o.vol_scale(t, 30.0 / 365.0, 0.3, 0.13) for t in tau])
    chain = o.Chain(
        asset, kind, forward, spot * rng.uniform(0.7, 1.4, n), vol, tau, np.full(n, 0.995), scale,
        np.where(rng.random(n) < 0.5, 0.0, 0.006), np.where(rng.random(n) < 0.5, 0.0, 0.02),
    )  # fmt: skip
    role = np.where(kind != 0, m.OPTION, m.LINEAR).astype(np.int8)
    role[[1, 7]] = m.INVERSE
    role[12] = m.CASH
    inst, offsets = [], [0]
    for _ in range(accounts):
        inst += list(rng.choice(n, int(rng.integers(1, 8)), replace=False))
        offsets.append(len(inst))
    codes = np.array(inst, dtype=np.int32)
    qty = rng.normal(0.0, 3.0, codes.size) * np.where(role[codes] == m.INVERSE, 20_000.0, 1.0)
    legs = m.Legs(codes, qty, spot[codes], role[codes], np.zeros(codes.size))
    return np.array(offsets), legs, spot, chain


def slow(first: int, last: int, legs: m.Legs, price: Any, chain: o.Chain, grid: o.Grid) -> float:
    """The grid written out, an underlying and a point at a time, with scipy's normal."""

    def value(k: int, forward: float, vol: float) -> float:
        s = vol * math.sqrt(chain.tau[k])
        x, w = chain.strike[k], float(chain.kind[k])
        if s == 0.0:
            return float(chain.discount[k] * max(w * (forward - x), 0.0))
        d1 = (math.log(forward / x) + s * s / 2.0) / s
        both = forward * norm.cdf(w * d1) - x * norm.cdf(w * (d1 - s))
        return float(chain.discount[k] * w * both)

    rows = [i for i in range(first, last) if legs.role[i] in (m.LINEAR, m.INVERSE, m.OPTION)]
    asked = least = 0.0
    for asset in {int(chain.asset[legs.inst[i]]) for i in rows}:
        losses = [0.0]
        for move, tilt, counted in zip(*grid, strict=True):
            gain = 0.0
            for i in rows:
                k, qty = int(legs.inst[i]), legs.qty[i]
                if chain.asset[k] != asset:
                    continue
                if legs.role[i] == m.OPTION:
                    vol = chain.vol[k] * max(0.0, 1.0 + tilt * chain.vol_scale[k])
                    f = chain.forward[k]
                    gain += qty * (value(k, f * (1.0 + move), vol) - value(k, f, chain.vol[k]))
                else:
                    gain += qty * (price[k] if legs.role[i] == m.LINEAR else 1.0) * move
            losses.append(-counted * gain)
        asked += max(losses)
    for i in rows:
        k, qty = int(legs.inst[i]), legs.qty[i]
        size = {
            m.LINEAR: abs(qty) * price[k],
            m.INVERSE: abs(qty),
            m.OPTION: max(0.0, -qty) * chain.forward[k],
        }[int(legs.role[i])]
        asked += chain.add_on[k] * size
        least += chain.minimum[k] * size
    return max(asked, least)


@given(st.integers(0, 2**32 - 1))
def test_a_group_must_hold_its_worst_point_on_the_grid(seed: int) -> None:
    offsets, legs, price, chain = make_book(seed)
    out = np.full(offsets.size - 1, np.nan)
    o.portfolio_requirements(0, out.size, offsets, legs, price, chain, GRID, out)
    for a in range(out.size):
        want = slow(offsets[a], offsets[a + 1], legs, price, chain, GRID)
        assert out[a] == pytest.approx(want, rel=1e-9, abs=1e-7)


def one_group(rows: list[tuple[int, float]], **changes: Any) -> float:
    """A group on the first underlying, without add-ons, in instruments of the seed's chain."""
    _, _, price, chain = make_book(3)
    none = np.zeros(price.size)
    chain = chain._replace(add_on=none, minimum=none, **changes)
    role = np.where(chain.kind != 0, m.OPTION, m.LINEAR).astype(np.int8)
    inst = np.array([k for k, _ in rows], dtype=np.int32)
    qty = np.array([q for _, q in rows])
    legs = m.Legs(inst, qty, price[inst], role[inst], np.zeros(inst.size))
    return float(o.portfolio_requirement(0, inst.size, legs, price, chain, GRID))


def test_a_straight_position_holds_the_widest_move_and_a_hedge_nothing() -> None:
    assert one_group([(0, 2.0)]) == pytest.approx(2.0 * 40_000.0 * 0.16)
    assert one_group([(0, 2.0), (0, -2.0)]) == 0.0


def test_a_bought_option_holds_no_more_than_it_is_worth_and_offsets_what_it_covers() -> None:
    _, _, _, chain = make_book(3)
    worth = o.black76(1, chain.forward[2], chain.strike[2], chain.vol[2], chain.tau[2], 0.995)
    assert 0.0 < one_group([(2, 1.0)]) <= worth
    assert one_group([(2, -1.0), (0, 1.0)]) < one_group([(2, -1.0)]) + one_group([(0, 1.0)])


@given(st.integers(0, 2**32 - 1))
def test_compiled_and_plain_agree_to_the_bit(seed: int) -> None:
    offsets, legs, price, chain = make_book(seed, accounts=2)
    results = []
    for kernel in (o.portfolio_requirements, o.portfolio_requirements.py_func):
        out = np.full(2, np.nan)
        kernel(0, 2, offsets, legs, price, chain, GRID, out)
        results.append(out.tobytes())
    assert results[0] == results[1]
    first, last = offsets[0], offsets[1]
    for args in (
        (o.portfolio_requirement, (first, last, legs, price, chain, GRID)),
        (o.worst_loss, (first, last, 0, legs, price, chain, GRID)),
        (o.black76, (1, chain.forward[2], chain.strike[2], chain.vol[2], chain.tau[2], 0.9)),
        (o.black76_delta, (-1, chain.forward[2], chain.strike[2], chain.vol[2], 0.1, 0.9)),
        (o.normal_cdf, ((seed % 1000) / 100.0 - 5.0,)),
        (o.vol_scale, (chain.tau[2], 0.08, 0.3, 0.13)),
    ):
        kernel, given_ = args
        assert (
            np.float64(kernel(*given_)).tobytes() == np.float64(kernel.py_func(*given_)).tobytes()
        )


def test_read_only_columns_give_the_same_bits() -> None:
    offsets, legs, price, chain = make_book(11)
    out, again = np.empty(offsets.size - 1), np.empty(offsets.size - 1)
    o.portfolio_requirements(0, out.size, offsets, legs, price, chain, GRID, out)
    for column in (offsets, price, *legs, *chain):
        column.flags.writeable = False
    grid = o.Grid(*(c.copy() for c in GRID))
    for column in grid:
        column.flags.writeable = False
    o.portfolio_requirements(0, out.size, offsets, legs, price, chain, grid, again)
    assert out.tobytes() == again.tobytes()
