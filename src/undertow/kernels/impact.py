"""What selling into a pool does to its price, and what the sale brings in.

A pool is wherever sales execute: an exchange's book, an automated market maker, all of them
together. Its state is one number, the volume U that went into it, net, in base units: sold is
positive, bought negative. Its price is g(U) times what it was at U = 0, and all that was sold
brought in G(U), the integral of g from 0 to U, times that price. So a sale from U1 to U2 brings
in G(U2) - G(U1) however it is cut up, and what is bought back undoes it.

Columns of `Pools`, by pool:

    model   one of the constants below
    depth   base units that move the price by one e-fold, at the margin of U = 0: d
    floor   share of the price that LINEAR and EXPONENTIAL never sell below, 0 to 1: B; no model
            is bought above 1 / B
    scale   SQRT: Y * sigma, the order-one constant times the volatility of a day: a
    daily   SQRT: base units that trade in a day: V
    clip    SQRT: share of `daily` within which log price is linear: c
    start   LADDER: pool k is sold into the levels start[2k]:start[2k + 1], nearest first, and
            bought from the levels start[2k + 1]:start[2k + 2]; (2 * pools + 1,)

    model             g(U)
    NONE              1
    LINEAR            1 - U / d, not under B
    EXPONENTIAL       sold: B + (1 - B) * exp(-U / ((1 - B) * d)); bought: exp(-U / d)
    SQRT              log g = -a * sqrt(U / V) past the clip, -a * U / (V * sqrt(c)) within it;
                      bought: the same with the other sign
    CONSTANT_PRODUCT  (x / (x + U)) ** 2 with x = 2 * d, the base units in reserve
    LADDER            ratio of the level that U falls in; past the last, log price goes on falling
                      as it fell over the last level

Columns by level: `reach`, base units from the touch to the level's end, rising; `ratio`, price of
the level over the price at U = 0, which falls on the side that is sold into and rises on the other.

A pool without what its model needs (depth, daily volume, levels) has no impact; a LADDER without
levels on a side is exponential there, if it has a depth. Books end where curves do not, and nobody
who must buy pays any price at all: at 1 / B each curve goes on flat, and so it does at 1e-18 and
1e18 of what the price was. No volume is too large and no price is zero. Volumes are finite: the
caller has checked.

References
----------
Almgren and Chriss (2000), on cumulative linear impact. Cont and Schaanning (2017), equation of the
price with a floor. Toth et al. (2011) and Donier and Bonart (2015), on the square root. Adams et
al. (2020), on the constant product.
"""

from math import exp, expm1, inf, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit

NONE, LINEAR, EXPONENTIAL, SQRT, CONSTANT_PRODUCT, LADDER = range(6)
LEAST, MOST = 1e-18, 1e18  # no price goes beyond these multiples of what it was
_FARTHEST = 41.44653167389282  # log(MOST)


class Pools(NamedTuple):
    """Where sales execute, by pool, and the levels of ladders."""

    model: NDArray[np.int8]
    depth: NDArray[np.float64]
    floor: NDArray[np.float64]
    scale: NDArray[np.float64]
    daily: NDArray[np.float64]
    clip: NDArray[np.float64]
    start: NDArray[np.int64]  # (2 * pools + 1,)
    reach: NDArray[np.float64]  # (levels,)
    ratio: NDArray[np.float64]  # (levels,)


@njit(cache=True, error_model="numpy")
def curve(k, volume, pools):
    """Price multiple and proceeds of pool `k` after `volume`: g and G."""
    model = working_model(k, pools)
    if model == NONE:
        return 1.0, volume
    low, high = bounds(k, pools)
    u = min(max(volume, low), high)
    if u == 0.0:  # nothing was sold, or no purchase moves the price
        return 1.0, volume
    if model == LINEAR:
        g, area = linear(u, pools.depth[k], pools.floor[k])
    elif model == EXPONENTIAL:
        g, area = exponential(u, pools.depth[k], pools.floor[k])
    elif model == SQRT:
        g, area = square_root(u, pools.scale[k], pools.daily[k], pools.clip[k])
    elif model == CONSTANT_PRODUCT:
        g, area = constant_product(u, 2.0 * pools.depth[k])
    else:
        g, area = ladder(k, u, pools)
    if u != volume:  # past the last price there is, all at that price
        area += g * (volume - u)
    return g, area


@njit(cache=True, error_model="numpy")
def multiplier(k, volume, pools):
    """g: the price of pool `k` after `volume`, over its price before any."""
    g, _ = curve(k, volume, pools)
    return g


@njit(cache=True, error_model="numpy")
def proceeds(k, volume, pools):
    """G: what `volume` brought in all told, in units of the price before any; bought: negative."""
    _, area = curve(k, volume, pools)
    return area


@njit(cache=True, error_model="numpy")
def slope(k, volume, pools):
    """Marginal impact of pool `k` at `volume`: d log g / dU, never above 0.

    A ladder's price stands still within a level and jumps between two. Its slope is the jump to
    the level that is being eaten, spread over that level.
    """
    model = working_model(k, pools)
    low, high = bounds(k, pools)
    if model == NONE or volume < low or volume > high:
        return 0.0
    depth = pools.depth[k]
    if model == LINEAR:
        g, _ = linear(volume, depth, pools.floor[k])
        return -1.0 / (depth * g)
    if model == EXPONENTIAL:
        if volume <= 0.0:
            return -1.0 / depth
        g, _ = exponential(volume, depth, pools.floor[k])
        return -exp(-volume / ((1.0 - pools.floor[k]) * depth)) / (depth * g)
    if model == SQRT:
        share = max(abs(volume) / pools.daily[k], pools.clip[k], LEAST)
        steepness = 0.5 if share > pools.clip[k] else 1.0
        return -steepness * pools.scale[k] / (sqrt(share) * pools.daily[k])
    if model == CONSTANT_PRODUCT:
        return -2.0 / (2.0 * depth + volume)
    first, last = side(k, volume, pools)
    for j in range(first, last):
        if abs(volume) <= pools.reach[j]:
            return -level_slope(j, first, depth, pools)
    return -level_slope(last - 1, first, depth, pools)


@njit(cache=True, error_model="numpy")
def working_model(k, pools):
    """The model of pool `k`, or NONE where it lacks what the model needs."""
    model = pools.model[k]
    if model == SQRT:
        known = pools.daily[k] > 0.0 and pools.scale[k] > 0.0
    elif model == LADDER:
        known = pools.depth[k] > 0.0 or pools.start[2 * k + 2] > pools.start[2 * k]
    else:
        known = pools.depth[k] > 0.0
    return model if known else NONE


@njit(cache=True, error_model="numpy")
def highest(k, pools):
    """Log of the highest multiple that pool `k` is bought at."""
    floor = pools.floor[k]
    return min(-log(floor), _FARTHEST) if floor > 0.0 else _FARTHEST


@njit(cache=True, error_model="numpy")
def bounds(k, pools):
    """Volumes of pool `k` at which its price is as high and as low as it gets."""
    model = working_model(k, pools)
    depth, floor, up = pools.depth[k], pools.floor[k], highest(k, pools)
    if model == LINEAR:
        return -depth * expm1(up), depth * max(1.0 - floor, 0.0)
    if model == EXPONENTIAL:
        return -depth * up, depth * max(1.0 - floor, 0.0) * _FARTHEST
    if model == SQRT:
        return -root_end(k, up, pools), root_end(k, _FARTHEST, pools)
    if model == CONSTANT_PRODUCT:
        reserve = 2.0 * depth
        return reserve * expm1(-0.5 * up), reserve * (sqrt(MOST) - 1.0)
    if model == LADDER:
        return -ladder_end(k, -1.0, pools), ladder_end(k, 1.0, pools)
    return -inf, inf


@njit(cache=True, error_model="numpy")
def root_end(k, far, pools):
    """Size at which the square root of pool `k` is `far` from its price, in logs."""
    clip, ratio = pools.clip[k], far / pools.scale[k]
    share = ratio * ratio
    return pools.daily[k] * (share if share >= clip else ratio * sqrt(clip))


@njit(cache=True, error_model="numpy")
def linear(u, depth, floor):
    """Price g = 1 - u / d, down to the floor, and its integral."""
    return max(1.0 - u / depth, max(floor, LEAST)), u * (1.0 - 0.5 * u / depth)


@njit(cache=True, error_model="numpy")
def exponential(u, depth, floor):
    """Price and its integral: sales approach the floor, purchases rise until the curve is cut."""
    if u <= 0.0:
        return exp(-u / depth), u * mean_exp(-u / depth)
    y = -u / ((1.0 - floor) * depth)
    return floor + (1.0 - floor) * exp(y), u * (floor + (1.0 - floor) * mean_exp(y))


@njit(cache=True, error_model="numpy")
def square_root(u, scale, daily, clip):
    """Price and its integral: log price linear within the clip, a square root past it."""
    a = -scale if u > 0.0 else scale
    share = abs(u) / daily
    if share <= clip:
        y = a * share / sqrt(clip)
        return exp(y), u * mean_exp(y)
    y, y_clip = a * sqrt(share), a * sqrt(clip)
    within = clip * mean_exp(y_clip)
    past = share * mean_exp_root(y) - clip * mean_exp_root(y_clip)
    area = daily * (within + past)
    return exp(y), area if u > 0.0 else -area


@njit(cache=True, error_model="numpy")
def constant_product(u, reserve):
    """Price g = (x / (x + u)) ** 2 and its integral x * u / (x + u)."""
    part = reserve / (reserve + u)
    return part * part, part * u


@njit(cache=True, error_model="numpy")
def ladder(k, u, pools):
    """Price and its integral, level by level, then on from the last level as it fell over it."""
    first, last = side(k, u, pools)
    size = abs(u)
    sign = 1.0 if u > 0.0 else -1.0
    begin, area, at = 0.0, 0.0, 1.0
    for j in range(first, last):
        at = pools.ratio[j]
        if size <= pools.reach[j]:
            return at, sign * (area + (size - begin) * at)
        area += (pools.reach[j] - begin) * at
        begin = pools.reach[j]
    rest = size - begin
    y = -sign * rest * level_slope(last - 1, first, pools.depth[k], pools)
    return at * exp(y), sign * (area + rest * at * mean_exp(y))


@njit(cache=True, error_model="numpy")
def side(k, volume, pools):
    """Rows of the levels that `volume` of pool `k` eats: those below the price, or those above."""
    at = 2 * k + (1 if volume < 0.0 else 0)
    return pools.start[at], pools.start[at + 1]


@njit(cache=True, error_model="numpy")
def level_slope(j, first, depth, pools):
    """Distance of level `j` from the one before it, in log price, over its quantity.

    Where it is no further out, or there is no level, one over the depth; 0 without a depth.
    """
    if j >= first:
        before, begin = (pools.ratio[j - 1], pools.reach[j - 1]) if j > first else (1.0, 0.0)
        fall = abs(log(pools.ratio[j] / before))
        if fall > 0.0:
            return fall / (pools.reach[j] - begin)
    return 1.0 / depth if depth > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def ladder_end(k, sign, pools):
    """Size at which pool `k` is as far from its price as it gets, sold (1) or bought (-1)."""
    first, last = side(k, sign, pools)
    far = _FARTHEST if sign > 0.0 else highest(k, pools)
    tail = level_slope(last - 1, first, pools.depth[k], pools)
    if tail == 0.0:
        return inf
    if last == first:
        return far / tail
    return pools.reach[last - 1] + max(far - abs(log(pools.ratio[last - 1])), 0.0) / tail


@njit(cache=True, error_model="numpy")
def mean_exp(y):
    """Mean of exp between 0 and `y`: (exp(y) - 1) / y."""
    return expm1(y) / y if y != 0.0 else 1.0


@njit(cache=True, error_model="numpy")
def mean_exp_root(y):
    """Mean of exp(y * sqrt(t)) over t in [0, 1]: 2 * (1 - (1 - y) * exp(y)) / y ** 2.

    Near 0 the difference loses its digits, so there the series sum 2 * y ** n / (n! * (n + 2)).
    """
    if abs(y) > 0.5:
        return 2.0 * (1.0 - (1.0 - y) * exp(y)) / (y * y)
    total, power = 1.0, 1.0
    for n in range(1, 16):
        power *= y / n
        total += 2.0 * power / (n + 2.0)
    return total


@njit(cache=True, error_model="numpy")
def walk(price, size, qty, notional):
    """Fill `qty` base units or `notional` money, whichever is less, on one side, best level first.

    Returns base units and money that were filled, and the worst price that was paid (0 if none).
    """
    filled, money, worst = 0.0, 0.0, 0.0
    for j in range(price.size):
        room = min(qty - filled, (notional - money) / price[j])
        if room <= 0.0:
            break
        if size[j] <= 0.0:
            continue
        worst = price[j]
        if size[j] < room:
            filled += size[j]
            money += size[j] * worst
        elif notional - money <= (qty - filled) * worst:
            return filled + (notional - money) / worst, notional, worst
        else:
            return qty, money + (qty - filled) * worst, worst
    return filled, money, worst
