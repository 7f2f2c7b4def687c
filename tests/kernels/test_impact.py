"""What a sale does to a price and what it brings in, against integrals and walks written apart."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from undertow.kernels import impact as m

MODELS = {
    "none": m.NONE,
    "linear": m.LINEAR,
    "exponential": m.EXPONENTIAL,
    "square root": m.SQRT,
    "constant product": m.CONSTANT_PRODUCT,
    "ladder": m.LADDER,
}
CURVES = [pytest.param(code, id=name) for name, code in MODELS.items()]
MOVING = [each for each in CURVES if each.values[0] != m.NONE]
SMOOTH = [each for each in CURVES if each.values[0] not in (m.NONE, m.LADDER)]
SOLD = [(0.5, 0.999), (2.0, 0.99), (2.5, 0.95)]  # where each level ends, and its price ratio
BOUGHT = [(1.0, 1.002), (4.0, 1.05)]
KINKS = [0.01, -0.01, *(reach for reach, _ in SOLD), *(-reach for reach, _ in BOUGHT), 8.0]
SIZES = st.floats(-40.0, 40.0)


def one_pool(model: int, **changed: Any) -> m.Pools:
    """One pool of e-fold depth 10, floor 0.2, volatility 5 % a day on 10 base units traded."""
    given: dict[str, Any] = {
        "depth": 10.0, "floor": 0.2, "scale": 0.05, "daily": 10.0, "clip": 1e-3,
        "sold": SOLD, "bought": BOUGHT,
    } | changed  # fmt: skip
    levels = [*given["sold"], *given["bought"]] if model == m.LADDER else []
    sold = len(given["sold"]) if levels else 0
    columns = [np.array([given[name]]) for name in ("depth", "floor", "scale", "daily", "clip")]
    rows = np.array(levels, dtype=np.float64).reshape(-1, 2)
    return m.Pools(
        np.array([model], dtype=np.int8),
        *columns,
        np.array([0, sold, len(levels)], dtype=np.int64),
        np.ascontiguousarray(rows[:, 0]),
        np.ascontiguousarray(rows[:, 1]),
    )


def integral(pools: m.Pools, upto: float) -> float:
    lo, hi = min(0.0, upto), max(0.0, upto)
    kinks = {*KINKS, m.bounds(0, pools)[0]}  # and where nobody buys at a higher price
    edges = [lo, *sorted(x for x in kinks if lo < x < hi), hi]
    parts = [
        quad(lambda u: m.multiplier(0, u, pools), a, b, epsabs=1e-13)[0] for a, b in pairwise(edges)
    ]
    return math.copysign(sum(parts), upto)


@pytest.mark.parametrize("model", CURVES)
@pytest.mark.parametrize("volume", [-19.5, -3.0, -0.004, 0.004, 0.7, 3.0, 8.0, 35.0])
def test_proceeds_are_the_integral_of_the_price(model: int, volume: float) -> None:
    pools = one_pool(model)
    assert m.proceeds(0, volume, pools) == pytest.approx(integral(pools, volume), rel=1e-9)


@pytest.mark.parametrize("model", CURVES)
def test_nothing_sold_changes_nothing(model: int) -> None:
    assert m.curve(0, 0.0, one_pool(model)) == (1.0, 0.0)


@pytest.mark.parametrize("model", CURVES)
@given(first=SIZES, second=SIZES)
def test_selling_more_never_raises_the_price(model: int, first: float, second: float) -> None:
    pools = one_pool(model)
    less, more = sorted((first, second))
    assert m.multiplier(0, more, pools) <= m.multiplier(0, less, pools)
    assert m.proceeds(0, more, pools) >= m.proceeds(0, less, pools)


@pytest.mark.parametrize("model", CURVES)
@given(volume=SIZES)
def test_a_sale_fetches_between_its_first_and_its_last_price(model: int, volume: float) -> None:
    pools = one_pool(model)
    g, area = m.curve(0, volume, pools)
    low, high = sorted((1.0, g))
    assert low * abs(volume) <= abs(area) * (1 + 1e-12)
    assert abs(area) <= high * abs(volume) * (1 + 1e-12)


@given(first=st.floats(0.0, 20.0), second=st.floats(0.0, 20.0))
def test_an_exponential_fall_does_not_remember_where_it_began(first: float, second: float) -> None:
    """Without a floor, what was sold before only rescales: g(U1 + U2) = g(U1) * g(U2)."""
    pools = one_pool(m.EXPONENTIAL, floor=0.0)
    (g1, a1), (g2, a2) = m.curve(0, first, pools), m.curve(0, second, pools)
    g, area = m.curve(0, first + second, pools)
    assert g == pytest.approx(g1 * g2, rel=1e-13)
    assert area == pytest.approx(a1 + g1 * a2, rel=1e-12, abs=1e-15)


@given(sales=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8))
def test_a_pool_cares_for_the_total_and_not_for_the_slices(sales: list[float]) -> None:
    """Reserves moved swap by swap end where one swap of the sum puts them."""
    pools = one_pool(m.CONSTANT_PRODUCT)
    base, money = 20.0, 20.0
    for each in sales:
        base, money = base + each, money * base / (base + each)
    g, area = m.curve(0, math.fsum(sales), pools)
    assert g == pytest.approx(money / base, rel=1e-12)
    assert area == pytest.approx(20.0 - money, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("model", SMOOTH)
@pytest.mark.parametrize("volume", [-30.0, -3.0, -0.004, 0.004, 1.0, 5.0])
def test_the_slope_is_the_derivative_of_the_log_price(model: int, volume: float) -> None:
    pools, step = one_pool(model), 1e-6 * abs(volume)
    up, down = (math.log(m.multiplier(0, volume + s, pools)) for s in (step, -step))
    assert m.slope(0, volume, pools) == pytest.approx((up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("model", [m.LINEAR, m.EXPONENTIAL, m.CONSTANT_PRODUCT])
def test_depth_is_the_quantity_of_one_e_fold_at_the_margin(model: int) -> None:
    pools = one_pool(model)
    assert m.slope(0, 0.0, pools) == pytest.approx(-0.1, rel=1e-14)
    assert math.log(m.multiplier(0, 1e-6, pools)) == pytest.approx(-1e-7, rel=1e-6)


def test_the_floor_is_where_sales_end_up() -> None:
    linear, curved = one_pool(m.LINEAR), one_pool(m.EXPONENTIAL)
    assert m.multiplier(0, 8.0, linear) == pytest.approx(0.2, rel=1e-15)
    assert m.curve(0, 100.0, linear) == (pytest.approx(0.2), pytest.approx(4.8 + 0.2 * 92.0))
    assert m.slope(0, 100.0, linear) == 0.0
    assert m.multiplier(0, 1e4, curved) == pytest.approx(0.2, rel=1e-15)
    assert m.multiplier(0, -10.0, curved) == pytest.approx(math.e, rel=1e-15)


def test_a_small_metaorder_pays_two_thirds_of_its_final_impact() -> None:
    """The square root's mark: the mean of sqrt over an order is 2/3 of it (Toth et al. 2011)."""
    pools = one_pool(m.SQRT, scale=1e-3, clip=1e-9)
    for volume in (0.1, 1.0, 10.0):
        g, area = m.curve(0, volume, pools)
        assert (1.0 - area / volume) / (1.0 - g) == pytest.approx(2.0 / 3.0, rel=5e-4)


def test_a_day_s_volume_moves_the_price_by_a_day_s_volatility() -> None:
    pools = one_pool(m.SQRT)
    assert math.log(m.multiplier(0, 10.0, pools)) == pytest.approx(-0.05, rel=1e-14)
    assert math.log(m.multiplier(0, -10.0, pools)) == pytest.approx(0.05, rel=1e-14)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_clip_joins_a_line_to_the_root_without_a_jump(sign: float) -> None:
    pools, edge = one_pool(m.SQRT, clip=0.04), sign * 0.4
    inside, outside = (m.curve(0, edge * (1.0 + s), pools) for s in (-1e-12, 1e-12))
    assert inside == pytest.approx(outside, rel=1e-11)
    assert math.log(m.multiplier(0, edge / 4, pools)) == pytest.approx(-sign * 0.0025, rel=1e-13)
    line, root = (m.slope(0, edge * (1.0 + s), pools) for s in (-1e-12, 1e-12))
    assert root == pytest.approx(0.5 * line, rel=1e-10)


def test_without_a_clip_the_root_starts_at_once_and_its_slope_stays_a_number() -> None:
    pools = one_pool(m.SQRT, clip=0.0)
    assert m.proceeds(0, 3.0, pools) == pytest.approx(integral(pools, 3.0), rel=1e-8)
    assert -math.inf < m.slope(0, 0.0, pools) < -1e6


def test_a_root_s_integral_keeps_its_digits_for_small_sales() -> None:
    """Against its own series, 1 + 2y/3 + y^2/4 + ..., where the closed form would lose half."""
    for y in (-1e-9, 1e-5, -1e-3):
        assert m.mean_exp_root(y) == pytest.approx(1 + 2 * y / 3 + y * y / 4 + y**3 / 15, rel=1e-15)
    for y in (-0.5 - 1e-9, -0.5, 0.5, 0.5 + 1e-9, -20.0, 5.0):
        mean = quad(lambda r, y=y: 2.0 * r * math.exp(y * r), 0.0, 1.0, epsabs=1e-14)[0]
        assert m.mean_exp_root(y) == pytest.approx(mean, rel=1e-13)


def walked(levels: list[tuple[float, float]], size: float) -> tuple[float, float]:
    """A book eaten level by level: last price and money."""
    money, begin, ratio = 0.0, 0.0, 1.0
    for reach, ratio in levels:
        take = min(size, reach) - begin
        money += take * ratio
        if size <= reach:
            return ratio, money
        begin = reach
    raise AssertionError("the book is exhausted")


@given(size=st.floats(0.001, 2.5))
def test_a_ladder_is_eaten_level_by_level(size: float) -> None:
    pools = one_pool(m.LADDER)
    assert m.curve(0, size, pools) == pytest.approx(walked(SOLD, size), rel=1e-14)
    price, money = walked(BOUGHT, size)
    assert m.curve(0, -size, pools) == pytest.approx((price, -money), rel=1e-14)


def test_beyond_the_visible_book_the_price_falls_on_as_over_the_last_level() -> None:
    pools = one_pool(m.LADDER)
    density = math.log(0.99 / 0.95) / 0.5
    assert m.slope(0, 2.2, pools) == m.slope(0, 9.0, pools) == pytest.approx(-density)
    assert m.multiplier(0, 4.5, pools) == pytest.approx(0.95 * math.exp(-2.0 * density), rel=1e-14)
    assert m.slope(0, 1.0, pools) == pytest.approx(-math.log(0.999 / 0.99) / 1.5)


def test_a_ladder_without_a_side_falls_back_on_its_depth_and_without_that_stands_still() -> None:
    deep = one_pool(m.LADDER, sold=[])
    assert m.multiplier(0, 10.0, deep) == pytest.approx(math.exp(-1.0), rel=1e-15)
    assert m.multiplier(0, -1.0, deep) == 1.002
    flat = one_pool(m.LADDER, sold=[], depth=0.0)
    assert m.curve(0, 10.0, flat) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("model", "lacking"),
    [
        (m.LINEAR, {"depth": 0.0}),
        (m.EXPONENTIAL, {"depth": 0.0}),
        (m.CONSTANT_PRODUCT, {"depth": 0.0}),
        (m.SQRT, {"daily": 0.0}),
        (m.SQRT, {"scale": 0.0}),
        (m.LADDER, {"sold": [], "bought": [], "depth": 0.0}),
    ],
)
def test_a_pool_without_what_its_model_needs_has_no_impact(
    model: int, lacking: dict[str, Any]
) -> None:
    pools = one_pool(model, **lacking)
    assert m.curve(0, 7.0, pools) == (1.0, 7.0)
    assert m.slope(0, 7.0, pools) == 0.0


@pytest.mark.parametrize("model", CURVES)
@given(
    volume=st.floats(-1e300, 1e300),
    depth=st.floats(1e-9, 1e15),
    floor=st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
    scale=st.floats(1e-9, 1e3),
    daily=st.floats(1e-9, 1e15),
    clip=st.sampled_from([0.0, 1e-6, 0.5]),
)
def test_no_volume_makes_a_price_that_is_no_price(
    model: int, volume: float, **numbers: float
) -> None:
    pools = one_pool(model, **numbers)
    g, area = m.curve(0, volume, pools)
    assert 0.999 * m.LEAST <= g <= 1.001 * m.MOST
    assert not math.isnan(area)
    assert area * volume >= 0.0
    assert -math.inf < m.slope(0, volume, pools) <= 0.0


@pytest.mark.parametrize("model", CURVES)
@given(volume=st.floats(1e-3, 1e30), floor=st.sampled_from([0.01, 0.05, 0.5, 1.0]))
def test_nobody_who_must_buy_pays_more_than_one_over_the_floor(
    model: int, volume: float, floor: float
) -> None:
    pools = one_pool(model, floor=floor)
    end = -m.bounds(0, pools)[0]
    g, paid = m.curve(0, -volume, pools)
    assert g <= max(1.0 / floor, float(pools.ratio.max(initial=0.0))) * (1.0 + 1e-12)
    assert -paid <= g * volume * (1.0 + 1e-12)
    if volume > end:
        assert g == m.multiplier(0, -end, pools)
        assert m.slope(0, -volume, pools) == 0.0


def test_a_pool_bought_out_sells_the_rest_at_the_highest_price_there_is() -> None:
    pools = one_pool(m.CONSTANT_PRODUCT, floor=0.0)
    g, area = m.curve(0, -19.0, pools)
    assert (g, area) == (pytest.approx(400.0), pytest.approx(-380.0))
    out, cost = m.curve(0, -25.0, pools)
    assert out == pytest.approx(m.MOST, rel=1e-6)
    assert cost == pytest.approx(-5.0 * m.MOST, rel=1e-6)


@pytest.mark.parametrize("model", CURVES)
@given(volume=st.floats(-1e6, 1e6), depth=st.floats(1e-3, 1e6), scale=st.floats(1e-4, 10.0))
def test_the_compiled_kernel_and_its_python_twin_agree_to_the_bit(
    model: int, volume: float, depth: float, scale: float
) -> None:
    pools = one_pool(model, depth=depth, scale=scale)
    for kernel in (m.curve, m.slope, m.multiplier, m.proceeds, m.bounds):
        arguments = (0, pools) if kernel is m.bounds else (0, volume, pools)
        assert kernel(*arguments) == kernel.py_func(*arguments)
    for column in pools:
        column.flags.writeable = False
    assert m.curve(0, volume, pools) == m.curve.py_func(0, volume, pools)


def test_every_pool_keeps_to_its_own_levels() -> None:
    each = [one_pool(code) for code in MODELS.values()]
    each.insert(1, one_pool(m.LADDER, sold=[(3.0, 0.5)], bought=[]))
    starts = [np.diff(pools.start) for pools in each]
    joined = [np.concatenate(c) for c in zip(*(p[:6] for p in each), strict=True)]
    together = m.Pools(
        *joined,
        np.concatenate([[0], np.cumsum(np.concatenate(starts))]),
        np.concatenate([p.reach for p in each]),
        np.concatenate([p.ratio for p in each]),
    )
    for k, alone in enumerate(each):
        for volume in (-3.0, 2.2, 9.0):
            assert m.curve(k, volume, together) == m.curve(0, volume, alone)
            assert m.slope(k, volume, together) == m.slope(0, volume, alone)


@given(size=st.floats(0.01, 2.5))
def test_an_order_in_base_or_in_money_gets_what_the_ladder_pays(size: float) -> None:
    pools = one_pool(m.LADDER)
    price, held = pools.ratio[:3], np.diff(pools.reach[:3], prepend=0.0)
    filled, money, worst = m.walk(price, held, size, math.inf)
    assert (filled, worst) == (pytest.approx(size), m.multiplier(0, size, pools))
    assert money == pytest.approx(m.proceeds(0, size, pools), rel=1e-14)
    assert m.walk(price, held, math.inf, money)[0] == pytest.approx(size, rel=1e-12)
    assert m.walk(price, held, size, math.inf) == m.walk.py_func(price, held, size, math.inf)


def test_a_book_that_runs_out_fills_what_it_has() -> None:
    price, held = np.array([10.0, 9.0, 8.0]), np.array([1.0, 0.0, 2.0])
    assert m.walk(price, held, math.inf, 100.0) == (3.0, 26.0, 8.0)
    assert m.walk(price, held, 1.0, math.inf) == (1.0, 10.0, 10.0)
    assert m.walk(price, held, 0.0, math.inf) == (0.0, 0.0, 0.0)
