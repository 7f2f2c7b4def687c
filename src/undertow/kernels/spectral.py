"""The largest eigenvalues of a matrix that follows a sliding window, step by step.

Each step is solved afresh and exactly, so neither crossings nor jumps of eigenvalues matter: the
co-moments slide (see `rolling`), reflections bring the matrix to three diagonals, and eigenvalues
of those are found by counting signs of pivots, Laguerre's method shortening the way from where
they were one step before. Matrices are stored whole, in rows padded with zeros to a multiple of
PAD: then inner loops run over whole vector registers, and each pass both updates and multiplies.

References
----------
Martin, Reinsch and Wilkinson (1968), "Householder's tridiagonalization of a symmetric matrix".
Barth, Martin and Wilkinson (1967), "Calculation of the eigenvalues of a symmetric tridiagonal
matrix by the method of bisection".
"""

import math

import numpy as np

from undertow.kernels import njit
from undertow.kernels.rolling import centred, empty_sums, quick_sum, slide, start

PAD = 16
_TINY = 1e-140  # what a pivot that is 0 is taken for
_SWEEPS = 200  # counts after which a root is given up; halving alone takes about 50
_NEAR = 1e-8  # of the mean eigenvalue: a step after which none follows


@njit(cache=True, error_model="numpy", nogil=True)
def tridiagonal(a, d, e, work):
    """Reduce a symmetric matrix to diagonal `d` and subdiagonal `e` (e[0] is 0).

    `a` is (n, padded), at least 4 more than n and a multiple of PAD wide; it and `work`
    (4, padded) are overwritten. What one reflection changes is written while the next one is
    multiplied.
    """
    n = d.size
    u, p, old, oldp = work[0], work[1], work[2], work[3]
    work[:] = 0.0
    for i in range(n - 1, 0, -1):
        _row_of(a[i], old, oldp, old[i], oldp[i], i + 1, u)
        d[i] = u[i]
        u[i] = old[i] = oldp[i] = 0.0
        size = _dot(u, u, i)
        f = u[i - 1]
        g = -math.sqrt(size) if f > 0.0 else math.sqrt(size)
        h = size - f * g
        e[i] = g
        u[i - 1] = f - g
        inverse = 1.0 / h if h > 0.0 else 0.0
        width = (i + PAD - 1) // PAD * PAD
        p[:width] = 0.0
        for j in range(i):
            r = a[j]
            mine, minep, c = old[j], oldp[j], u[j]
            for k in range(width):
                v = r[k] - (mine * oldp[k] + minep * old[k])
                r[k] = v
                p[k] += c * v
        half = 0.5 * _dot(u, p, i) * inverse * inverse
        for j in range(i):
            oldp[j] = p[j] * inverse - half * u[j]
            old[j] = u[j]
    d[0] = a[0, 0] - 2.0 * old[0] * oldp[0]
    e[0] = 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def _row_of(row, old, oldp, mine, minep, size, out):
    """The row as it is after the last reflection."""
    for j in range(size):
        out[j] = row[j] - (mine * oldp[j] + minep * old[j])


@njit(cache=True, error_model="numpy", nogil=True)
def _dot(u, v, size):
    """Product of the first `size` entries, in four strands; u is 0 in the three that follow."""
    a = b = c = d = 0.0
    for j in range(0, size, 4):
        a += u[j] * v[j]
        b += u[j + 1] * v[j + 1]
        c += u[j + 2] * v[j + 2]
        d += u[j + 3] * v[j + 3]
    return (a + b) + (c + d)


@njit(cache=True, error_model="numpy", nogil=True)
def count_above(d, squares, at, above, slope, bend, work):
    """How many eigenvalues lie above each of `at`, and how the characteristic polynomial p goes.

    `squares` are those of the subdiagonal. Writes `above`, `slope` = p'/p and `bend` =
    (p'/p)^2 - p''/p, the sums of 1 / (at - eigenvalue) and of its square. `work` is (3, at.size).
    """
    above[:] = 0.0
    slope[:] = 0.0
    bend[:] = 0.0
    work[:] = 0.0
    pivot, ratio, second = work[0], work[1], work[2]
    for i in range(d.size):
        _pivots(d[i], squares[i], at, pivot, ratio, second)
        _count(above, slope, pivot, ratio)
        _bend(bend, ratio, second)


@njit(cache=True, error_model="numpy", nogil=True)
def _pivots(mid, square, at, pivot, ratio, second):
    """The next pivot q of each: 1/q, q'/q and q''/q, out of those of the one before."""
    for k in range(at.size):
        r = square * pivot[k]
        v = mid - at[k] - r
        v = v if abs(v) > _TINY else _TINY
        inverse = 1.0 / v
        second[k] = r * (second[k] - 2.0 * ratio[k] * ratio[k]) * inverse
        ratio[k] = (r * ratio[k] - 1.0) * inverse
        pivot[k] = inverse


@njit(cache=True, error_model="numpy", nogil=True)
def _count(above, slope, pivot, ratio):
    for k in range(above.size):
        above[k] += 1.0 if pivot[k] > 0.0 else 0.0
        slope[k] += ratio[k]


@njit(cache=True, error_model="numpy", nogil=True)
def _bend(bend, ratio, second):
    for k in range(bend.size):
        bend[k] += ratio[k] * ratio[k] - second[k]


@njit(cache=True, error_model="numpy", nogil=True)
def largest(d, squares, near, roots, work):
    """The largest eigenvalues, as many as `roots` holds, which is also where the search begins.

    `near` is the step after which none follows. `work` is (10, roots). Laguerre's step goes from a
    point between two roots towards either and never past it; where the root that is wanted is not
    the next one, brackets, which all points narrow, are halved. What is not found after _SWEEPS
    counts is NaN.
    """
    m = roots.size
    low, high, order = work[0], work[1], work[2]
    outer = 0.0
    for i in range(d.size):
        outer += d[i] * d[i] + 2.0 * squares[i]
    outer = math.sqrt(outer) * (1.0 + 1e-12) + near
    for k in range(m):
        low[k], high[k], order[k] = -outer, outer, k
        roots[k] = roots[k] if -outer <= roots[k] <= outer else 0.0
    left = m
    for _ in range(_SWEEPS):
        if left == 0:
            return
        at, above = work[3, :left], work[4, :left]
        slope, bend = work[5, :left], work[6, :left]
        for k in range(left):
            at[k] = roots[int(order[k])]
        count_above(d, squares, at, above, slope, bend, work[7:, :left])
        for k in range(left):
            split = min(int(above[k]), m)
            _raise(low[:split], at[k])
            _lower(high[split:], at[k])
        still = 0
        for k in range(left):
            j = int(order[k])
            step = _laguerre(d.size, above[k] - j, slope[k], bend[k])
            if high[j] - low[j] <= near:
                roots[j] = 0.5 * (low[j] + high[j])
            elif abs(step) <= near:
                roots[j] = at[k] + step
            else:
                goal = at[k] + step
                roots[j] = goal if low[j] <= goal <= high[j] else 0.5 * (low[j] + high[j])
                order[still] = j
                still += 1
        left = still
    for k in range(left):
        roots[int(order[k])] = math.nan


@njit(cache=True, error_model="numpy", nogil=True)
def _raise(low, at):
    for k in range(low.size):
        low[k] = at if at > low[k] else low[k]


@njit(cache=True, error_model="numpy", nogil=True)
def _lower(high, at):
    for k in range(high.size):
        high[k] = at if at < high[k] else high[k]


@njit(cache=True, error_model="numpy", nogil=True)
def _laguerre(n, place, slope, bend):
    """The step to the next root above (`place` is 1) or below (0); infinite where it is neither."""
    if place != 0.0 and place != 1.0:
        return math.inf
    inside = (n - 1.0) * (n * bend - slope * slope)
    inside = math.sqrt(inside) if inside > 0.0 else 0.0
    under = slope - inside if place == 1.0 else slope + inside
    return -n / under if under != 0.0 else math.inf


@njit(cache=True, error_model="numpy", nogil=True)
def absorbed(x, window, begin, restart, scale, diagonal, top, share, spread):
    """Share of the `top` largest eigenvalues at each step, and trace^2 / sum of squares.

    `x`, `restart` and `scale` as in `rolling.pair_products`; `diagonal` (steps, series) is what
    stands on the diagonal then. Writes `share` and `spread`, NaN where the trace is 0.
    """
    n = x.shape[1]
    wanted = min(top, n - top)  # the smallest where they are fewer
    sign = 1.0 if wanted == top else -1.0
    sums, off = empty_sums(n), np.empty(n * (n - 1) // 2)
    a = np.zeros((n, (n + 4 + PAD - 1) // PAD * PAD))
    d, e, work = np.empty(n), np.empty(n), np.empty((4, a.shape[1]))
    roots, room = np.zeros(wanted), np.empty((10, wanted))
    for k in range(wanted):
        roots[k] = sign
    for s in range(share.size):
        row = begin + s + window - 1
        if s == 0 or restart[s]:
            start(x, row, window, sums)
        else:
            slide(x, row, window, sums)
        centred(sums, window, scale[s], math.inf, off)
        trace = quick_sum(diagonal[s])
        share[s] = spread[s] = math.nan
        if 0.0 < trace < math.inf:
            spread[s] = _lay_out(off, diagonal[s], n / trace, a)
            tridiagonal(a, d, e, work)
            for i in range(n):
                d[i] *= sign
                e[i] *= e[i]
            largest(d, e, _NEAR, roots, room)
            part = quick_sum(roots) / n
            share[s] = part if sign > 0.0 else 1.0 + part


@njit(cache=True, error_model="numpy", nogil=True)
def _lay_out(off, diagonal, factor, a):
    """Write the matrix whole, times `factor`, its trace then n; returns n^2 / sum of squares."""
    n = diagonal.size
    squares = 0.0
    at = 0
    for i in range(n):
        v = diagonal[i] * factor
        a[i, i] = v
        squares += 0.5 * v * v
        end = at + n - 1 - i
        squares += _scaled(a[i, i + 1 : n], off[at:end], factor)
        at = end
    for first in range(0, n, 8):  # a few rows at a time stay near
        for i in range(min(first + 8, n)):
            for j in range(max(first, i + 1), min(first + 8, n)):
                a[j, i] = a[i, j]
    return n * n / (2.0 * squares)


@njit(cache=True, error_model="numpy", nogil=True)
def _scaled(out, values, factor):
    """Write the values times `factor`; returns the sum of their squares."""
    for k in range(values.size):
        out[k] = values[k] * factor
    a = b = c = d = 0.0
    whole = values.size // 4 * 4
    for k in range(0, whole, 4):
        a += out[k] * out[k]
        b += out[k + 1] * out[k + 1]
        c += out[k + 2] * out[k + 2]
        d += out[k + 3] * out[k + 3]
    for k in range(whole, values.size):
        a += out[k] * out[k]
    return (a + b) + (c + d)
