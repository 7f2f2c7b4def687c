"""Moments and products of pairs under weights that fade, a row at a time.

`x` is (time, series), NaN where nothing was seen; ages count rows, seen or not. Nothing is ever
taken out, so means and deviations are updated in place and a large level costs no digits. Pairs
i < j stand in the order of rows of the upper triangle.

References
----------
West (1979), "Updating mean and variance estimates: an improved method".
"""

import math

import numpy as np

from undertow.kernels import njit
from undertow.kernels.rolling import FLAT


@njit(cache=True, error_model="numpy", nogil=True)
def fading_complete(x, decay, begin, series, both, norm, out):
    """`fading_products` where nothing is missing; `series` is (3, series): mean, deviation, square.

    Both are carried from call to call, zeros before row 0; a series that stands still has no
    correlation and makes NaN.
    """
    n = x.shape[1]
    mean, gap, square = series[0], series[1], series[2]
    scale = np.ones(n)
    weight, squares = _weights(decay, begin)
    for s in range(out.shape[0]):
        old = weight * decay
        weight = old + 1.0
        squares = squares * decay * decay + 1.0
        share = old / weight
        for i in range(n):
            gap[i] = x[begin + s, i] - mean[i]
            mean[i] += gap[i] / weight
            square[i] = decay * square[i] + share * gap[i] * gap[i]
        at = 0
        for i in range(n - 1):
            end = at + n - 1 - i
            _fade_row(both[at:end], gap[i + 1 :], decay, share * gap[i])
            at = end
        if norm:
            for i in range(n):
                still = square[i] <= FLAT * weight * mean[i] * mean[i]
                scale[i] = math.nan if still else 1.0 / math.sqrt(square[i])
        free = weight - squares / weight
        whole = 1.0 / free if free > 0.0 else math.nan
        at = 0
        for i in range(n - 1):
            end = at + n - 1 - i
            _scale_row(
                out[s, at:end], both[at:end], scale[i + 1 :],
                scale[i] if norm else whole, 1.0 if norm else math.inf,
            )  # fmt: skip
            at = end


@njit(cache=True, error_model="numpy", nogil=True)
def _weights(decay, rows):
    """Sum of the weights, and of their squares, of so many rows."""
    weight = squares = 0.0
    for _ in range(rows):
        weight = weight * decay + 1.0
        squares = squares * decay * decay + 1.0
    return weight, squares


@njit(cache=True, error_model="numpy", nogil=True)
def _fade_row(both, gap, decay, mine):
    for k in range(both.size):
        both[k] = decay * both[k] + mine * gap[k]


@njit(cache=True, error_model="numpy", nogil=True)
def _scale_row(out, both, scale, mine, bound):
    for k in range(out.size):
        v = both[k] * (mine * scale[k])
        v = bound if v > bound else v
        out[k] = -bound if v < -bound else v


@njit(cache=True, error_model="numpy", nogil=True)
def fading_products(x, decay, least, begin, state, norm, out, missing):
    """Co-moments of pairs with weights that fade by `decay` a row, at rows of x from `begin`.

    `state` is (pairs, 8): count, weight, weight of
    squares, two means, two sums of squares, sum of products; zeros before row 0. It is carried
    from call to call, and rows before `begin` must have been followed. `norm` and `missing` as in
    `rolling.gappy_products`; a row before the `least`-th is NaN.
    """
    n = x.shape[1]
    for s in range(out.shape[0]):
        row = begin + s
        p = 0
        for i in range(n - 1):
            for j in range(i + 1, n):
                both = x[row, i] == x[row, i] and x[row, j] == x[row, j]
                fade(state[p], decay, both, x[row, i], x[row, j])
                out[s, p] = math.nan
                if state[p, 0] < least:
                    missing[0] += 1
                else:
                    v = _from_state(state[p], norm)
                    out[s, p] = v
                    if v != v:
                        missing[1] += 1
                p += 1


@njit(cache=True, error_model="numpy", nogil=True)
def fade(at, decay, both, x, y):
    """Age one pair's state by a row and, where `both` showed a value, let it in."""
    for k in (1, 5, 6, 7):
        at[k] *= decay
    at[2] *= decay * decay
    if both:
        old = at[1]
        at[0] += 1.0
        at[1] += 1.0
        at[2] += 1.0
        dx, dy = x - at[3], y - at[4]
        at[3] += dx / at[1]
        at[4] += dy / at[1]
        share = old / at[1]
        at[5] += share * dx * dx
        at[6] += share * dy * dy
        at[7] += share * dx * dy


@njit(cache=True, error_model="numpy", nogil=True)
def _from_state(at, norm):
    """Correlation, or covariance free of bias, out of a fading state; NaN of what stood still."""
    if not norm:
        free = at[1] - at[2] / at[1]
        return at[7] / free if free > 0.0 else math.nan
    vx, vy = at[5], at[6]
    if vx <= FLAT * at[1] * at[3] * at[3] or vy <= FLAT * at[1] * at[4] * at[4]:
        return math.nan
    return max(-1.0, min(1.0, at[7] / math.sqrt(vx) / math.sqrt(vy)))


@njit(cache=True, error_model="numpy", nogil=True)
def fading_moments(x, decay, count, mean, variance):
    """Count, mean and variance free of bias of each series at each row, weights fading by `decay`.

    The variance is NaN until it has two values.
    """
    rows, n = x.shape
    state = np.zeros((n, 8))
    for row in range(rows):
        for i in range(n):
            v = x[row, i]
            fade(state[i], decay, v == v, v, v)
            free = state[i, 1] - state[i, 2] / state[i, 1] if state[i, 0] > 1.0 else 0.0
            count[row, i] = int(state[i, 0])
            mean[row, i] = state[i, 3] if state[i, 0] > 0.0 else math.nan
            variance[row, i] = state[i, 5] / free if free > 0.0 else math.nan
