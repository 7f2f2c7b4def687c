"""Moments and products of pairs over windows that slide.

`x` is (time, series), NaN where nothing was seen. Step s looks at the `window` rows that end at
row s + window - 1. Sums run over x less a `shift` near its present level and carry the part that
rounding took from them; what enters is the same product, to the bit, as what leaves later. So a
spike leaves no trace, and a large level costs no digits as long as the shift is near: where it no
longer is, and every so many steps anyway, sums restart. Pairs i < j stand in the order of rows of
the upper triangle.

References
----------
Knuth (1969), "The art of computer programming" vol. 2, theorem 4.2.2 B: the exact rounding error
of a sum.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit

_FAR = 1e4  # squared distance of the shift from the mean, in variances, at which sums restart
FLAT = 1e-24  # of its squared level: less variance than this is rounding
_WORN = 1e-6  # of a pair's own sum of squares: with less left of it, it is summed afresh


@njit(cache=True, error_model="numpy", nogil=True)
def add_to(sums, lost, values, sign):
    """Add `sign` times `values` to `sums`, and what rounding takes to `lost`."""
    for k in range(values.size):
        v = sign * values[k]
        s = sums[k] + v
        b = s - sums[k]
        lost[k] += (sums[k] - (s - b)) + (v - b)
        sums[k] = s


@njit(cache=True, error_model="numpy", nogil=True)
def add_products(sums, lost, values, factor):
    """Add `factor` times `values` to `sums`, and what rounding takes to `lost`."""
    for k in range(values.size):
        v = factor * values[k]
        s = sums[k] + v
        b = s - sums[k]
        lost[k] += (sums[k] - (s - b)) + (v - b)
        sums[k] = s


@njit(cache=True, error_model="numpy", nogil=True)
def slide_products(sums, lost, new, a, old, b):
    """Add a * new - b * old to `sums`, and what rounding takes to `lost`."""
    for k in range(new.size):
        u = a * new[k]
        v = b * old[k]
        d = u - v
        c = d - u
        e = (u - (d - c)) - (v + c)
        s = sums[k] + d
        c = s - sums[k]
        lost[k] += ((sums[k] - (s - c)) + (d - c)) + e
        sums[k] = s


@njit(cache=True, error_model="numpy", nogil=True)
def shift_to(x, row, window, shift):
    """The last value that each series showed in the window that ends at `row`, or 0."""
    for i in range(shift.size):
        shift[i] = 0.0
        for t in range(row, row - window, -1):
            if x[t, i] == x[t, i]:
                shift[i] = x[t, i]
                break


@njit(cache=True, error_model="numpy", nogil=True)
def shifted(x, row, shift, out, seen):
    """Row `row` of x less the shift, 0 where missing; `seen` is 1 or 0."""
    for i in range(shift.size):
        v = x[row, i]
        there = v == v
        seen[i] = 1.0 if there else 0.0
        out[i] = v - shift[i] if there else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def window_moments(x, window, every, count, mean, square, restart):
    """Count, mean and sum of squared deviations of each series at each step.

    Writes `count`, `mean`, `square` (steps, series) and, at each step, whether sums restarted
    there; they do at multiples of `every`. `square` is 0 where a series stood still.
    """
    steps, n = count.shape
    shift, new, old = np.zeros(n), np.zeros(n), np.zeros(n)
    here, gone = np.zeros(n), np.zeros(n)
    first, first_lost = np.zeros(n), np.zeros(n)
    second, second_lost = np.zeros(n), np.zeros(n)
    seen, same, last = np.zeros(n), np.zeros(n), np.full(n, np.nan)
    for t in range(window - 1):
        _run_on(x, t, last, same)
    for s in range(steps):
        row = s + window - 1
        _run_on(x, row, last, same)
        again = s % every == 0
        if not again:
            shifted(x, row, shift, new, here)
            shifted(x, row - window, shift, old, gone)
            add_to(first, first_lost, new, 1.0)
            add_to(first, first_lost, old, -1.0)
            for i in range(n):
                seen[i] += here[i] - gone[i]
                new[i] *= new[i]
                old[i] *= old[i]
            add_to(second, second_lost, new, 1.0)
            add_to(second, second_lost, old, -1.0)
            again = _far(seen, same, first, first_lost, second, second_lost)
        if again:
            shift_to(x, row, window, shift)
            for i in range(n):
                first[i] = first_lost[i] = second[i] = second_lost[i] = seen[i] = 0.0
            for t in range(row - window + 1, row + 1):
                shifted(x, t, shift, new, here)
                add_to(first, first_lost, new, 1.0)
                for i in range(n):
                    seen[i] += here[i]
                    new[i] *= new[i]
                add_to(second, second_lost, new, 1.0)
        restart[s] = again
        for i in range(n):
            m = (first[i] + first_lost[i]) / max(seen[i], 1.0)
            q = (second[i] + second_lost[i]) - seen[i] * m * m
            level = shift[i] + m
            count[s, i] = int(seen[i])
            mean[s, i] = level
            flat = same[i] >= seen[i] or q <= FLAT * seen[i] * level * level
            square[s, i] = 0.0 if flat else q


@njit(cache=True, error_model="numpy", nogil=True)
def _run_on(x, row, last, same):
    """Follow how many of the values seen last, in each series, are one and the same."""
    for i in range(last.size):
        v = x[row, i]
        if v == v:
            same[i] = same[i] + 1.0 if v == last[i] else 1.0
            last[i] = v


@njit(cache=True, error_model="numpy", nogil=True)
def _far(seen, same, first, first_lost, second, second_lost):
    """Has a series that moves left its shift so far that digits are lost?"""
    for i in range(seen.size):
        if same[i] < seen[i]:
            m = (first[i] + first_lost[i]) / seen[i]
            variance = (second[i] + second_lost[i]) / seen[i] - m * m
            if m * m > max(_FAR, 2.0 * seen[i]) * variance:
                return True
    return False


class Sums(NamedTuple):
    """Running sums of a panel in which nothing is missing, over one window."""

    shift: NDArray[np.float64]  # (series,)
    new: NDArray[np.float64]  # (series,): the row that enters
    old: NDArray[np.float64]  # (series,): the row that leaves
    seen: NDArray[np.float64]  # (series,)
    first: NDArray[np.float64]  # (series,): sums
    first_lost: NDArray[np.float64]
    both: NDArray[np.float64]  # (pairs,): sums of products
    both_lost: NDArray[np.float64]


@njit(cache=True, error_model="numpy", nogil=True)
def empty_sums(n):
    """Room for the sums of n series; `start` fills it."""
    pairs = n * (n - 1) // 2
    return Sums(
        np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n),
        np.zeros(pairs), np.zeros(pairs),
    )  # fmt: skip


@njit(cache=True, error_model="numpy", nogil=True)
def start(x, row, window, sums):
    """Sum the window that ends at `row` afresh."""
    n = sums.new.size
    shift_to(x, row, window, sums.shift)
    sums.first[:] = 0.0
    sums.first_lost[:] = 0.0
    sums.both[:] = 0.0
    sums.both_lost[:] = 0.0
    for t in range(row - window + 1, row + 1):
        shifted(x, t, sums.shift, sums.new, sums.seen)
        add_to(sums.first, sums.first_lost, sums.new, 1.0)
        at = 0
        for i in range(n - 1):
            end = at + n - 1 - i
            add_products(sums.both[at:end], sums.both_lost[at:end], sums.new[i + 1 :], sums.new[i])
            at = end


@njit(cache=True, error_model="numpy", nogil=True)
def slide(x, row, window, sums):
    """Let row `row` in, and the one that left its window out."""
    n = sums.new.size
    new, old = sums.new, sums.old
    shifted(x, row, sums.shift, new, sums.seen)
    shifted(x, row - window, sums.shift, old, sums.seen)
    add_to(sums.first, sums.first_lost, new, 1.0)
    add_to(sums.first, sums.first_lost, old, -1.0)
    at = 0
    for i in range(n - 1):
        end = at + n - 1 - i
        slide_products(
            sums.both[at:end], sums.both_lost[at:end], new[i + 1 :], new[i], old[i + 1 :], old[i]
        )
        at = end


@njit(cache=True, error_model="numpy", nogil=True)
def centred(sums, window, scale, bound, out):
    """Sums of products less those of means, each side times its `scale`, within +-`bound`."""
    n = sums.new.size
    total = sums.old
    for i in range(n):
        total[i] = sums.first[i] + sums.first_lost[i]
    at = 0
    for i in range(n - 1):
        end = at + n - 1 - i
        _centre(
            out[at:end], sums.both[at:end], sums.both_lost[at:end], total[i + 1 :],
            total[i] / window, scale[i + 1 :], scale[i], bound,
        )  # fmt: skip
        at = end


@njit(cache=True, error_model="numpy", nogil=True)
def _centre(out, both, lost, total, mean, scale, mine, bound):
    for k in range(out.size):
        v = ((both[k] + lost[k]) - mean * total[k]) * (mine * scale[k])
        v = bound if v > bound else v
        out[k] = -bound if v < -bound else v


@njit(cache=True, error_model="numpy", nogil=True)
def pair_products(x, window, begin, restart, scale, bound, sums, out):
    """Co-moments of all pairs at the steps of `out`, (steps, pairs), the first of which is `begin`.

    Nothing may be missing. `scale` (steps, series) multiplies each side: 1 / sqrt(square) makes
    correlations, 1 / sqrt(window - 1) covariances; a result stays within +-`bound`. `sums`
    are carried from call to call, and restart where `restart`, (steps,), says so.
    """
    for s in range(out.shape[0]):
        row = begin + s + window - 1
        if restart[s]:
            start(x, row, window, sums)
        else:
            slide(x, row, window, sums)
        centred(sums, window, scale[s], bound, out[s])


@njit(cache=True, error_model="numpy", nogil=True)
def mean_products(x, window, begin, restart, scale, sums, mean):
    """Mean over pairs of what `pair_products` would write, without it; `scale` 0 leaves one out."""
    n = x.shape[1]
    row_of = np.empty(n * (n - 1) // 2)
    for s in range(mean.size):
        row = begin + s + window - 1
        if restart[s]:
            start(x, row, window, sums)
        else:
            slide(x, row, window, sums)
        centred(sums, window, scale[s], 1.0, row_of)
        used = 0
        for i in range(n):
            used += scale[s, i] > 0.0
        pairs = used * (used - 1) // 2
        mean[s] = quick_sum(row_of) / pairs if pairs > 0 else math.nan


@njit(cache=True, error_model="numpy", nogil=True)
def quick_sum(values):
    """Sum in four strands, which a processor can follow at once, added in one order."""
    a = b = c = d = 0.0
    whole = values.size // 4 * 4
    for k in range(0, whole, 4):
        a += values[k]
        b += values[k + 1]
        c += values[k + 2]
        d += values[k + 3]
    for k in range(whole, values.size):
        a += values[k]
    return (a + b) + (c + d)


class GappySums(NamedTuple):
    """Running sums of a panel in which values are missing, over one window."""

    shift: NDArray[np.float64]  # (series,)
    new: NDArray[np.float64]  # (series,)
    here: NDArray[np.float64]  # (series,): 1 where a value is, 0 where it is missing
    seen: NDArray[np.float64]  # (pairs,): rows that both showed
    five: NDArray[np.float64]  # (5, pairs): sums of x, y, xx, yy, xy over them
    five_lost: NDArray[np.float64]


@njit(cache=True, error_model="numpy", nogil=True)
def empty_gappy_sums(n):
    """Room for the sums of n series; a restart fills it."""
    pairs = n * (n - 1) // 2
    return GappySums(
        np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(pairs),
        np.zeros((5, pairs)), np.zeros((5, pairs)),
    )  # fmt: skip


@njit(cache=True, error_model="numpy", nogil=True)
def gappy_products(x, window, least, begin, restart, norm, sums, out, missing):
    """`pair_products` where values may be missing: each pair over the rows that both showed.

    `norm` is 1 for correlations and 0 for covariances. A pair that has fewer than `least` rows,
    or of which one stood still, is NaN, and counted in `missing` (2,). Where little is left of a
    pair's own sum of squares, the window is summed afresh. `sums` as in `pair_products`.
    """
    n = x.shape[1]
    shift, new, here, seen = sums.shift, sums.new, sums.here, sums.seen
    for s in range(out.shape[0]):
        row = begin + s + window - 1
        if restart[s]:
            shift_to(x, row, window, shift)
            sums.five[:] = 0.0
            sums.five_lost[:] = 0.0
            seen[:] = 0.0
            for t in range(row - window + 1, row + 1):
                shifted(x, t, shift, new, here)
                _tally(new, here, 1.0, sums.five, sums.five_lost, seen)
        else:
            shifted(x, row, shift, new, here)
            _tally(new, here, 1.0, sums.five, sums.five_lost, seen)
            shifted(x, row - window, shift, new, here)
            _tally(new, here, -1.0, sums.five, sums.five_lost, seen)
        p = 0
        for i in range(n - 1):
            for j in range(i + 1, n):
                out[s, p] = math.nan
                if seen[p] < least:
                    missing[0] += 1
                else:
                    v = _from_sums(sums.five, sums.five_lost, seen[p], p, norm)
                    if v != v:
                        v = direct_product(x, row - window + 1, row + 1, i, j, norm)
                    out[s, p] = v
                    if v != v:
                        missing[1] += 1
                p += 1


@njit(cache=True, error_model="numpy", nogil=True)
def _tally(new, here, sign, sums, lost, seen):
    """Add a row to, or take it from, the five sums of each pair: x, y, xx, yy, xy."""
    at = 0
    n = new.size
    for i in range(n - 1):
        end = at + n - 1 - i
        if here[i] > 0.0:
            a = new[i]
            y, there = new[i + 1 :], here[i + 1 :]
            for k in range(y.size):
                seen[at + k] += sign * there[k]
            add_products(sums[0, at:end], lost[0, at:end], there, sign * a)
            add_to(sums[1, at:end], lost[1, at:end], y, sign)
            add_products(sums[2, at:end], lost[2, at:end], there, sign * (a * a))
            _add_squares(sums[3, at:end], lost[3, at:end], y, sign)
            add_products(sums[4, at:end], lost[4, at:end], y, sign * a)
        at = end


@njit(cache=True, error_model="numpy", nogil=True)
def _add_squares(sums, lost, values, sign):
    for k in range(values.size):
        v = sign * (values[k] * values[k])
        s = sums[k] + v
        b = s - sums[k]
        lost[k] += (sums[k] - (s - b)) + (v - b)
        sums[k] = s


@njit(cache=True, error_model="numpy", nogil=True)
def _from_sums(sums, lost, seen, p, norm):
    """Correlation or covariance out of a pair's sums; NaN where their digits are not enough."""
    sx, sy = sums[0, p] + lost[0, p], sums[1, p] + lost[1, p]
    sxx, syy = sums[2, p] + lost[2, p], sums[3, p] + lost[3, p]
    vx, vy = sxx - sx * sx / seen, syy - sy * sy / seen
    if vx <= _WORN * sxx or vy <= _WORN * syy:
        return math.nan
    v = (sums[4, p] + lost[4, p]) - sx * sy / seen
    if norm:
        return max(-1.0, min(1.0, v / math.sqrt(vx) / math.sqrt(vy)))
    return v / (seen - 1.0)


@njit(cache=True, error_model="numpy", nogil=True)
def direct_product(x, lo, hi, i, j, norm):
    """Correlation or covariance of columns i and j over rows lo:hi that both showed, in two passes.

    NaN for a correlation with a series that stood still.
    """
    seen = 0
    mx = my = 0.0
    for t in range(lo, hi):
        if x[t, i] == x[t, i] and x[t, j] == x[t, j]:
            seen += 1
            mx += (x[t, i] - mx) / seen
            my += (x[t, j] - my) / seen
    vx = vy = vxy = sx = sy = 0.0
    for t in range(lo, hi):
        if x[t, i] == x[t, i] and x[t, j] == x[t, j]:
            dx, dy = x[t, i] - mx, x[t, j] - my
            sx += dx
            sy += dy
            vx += dx * dx
            vy += dy * dy
            vxy += dx * dy
    vx -= sx * sx / seen
    vy -= sy * sy / seen
    vxy -= sx * sy / seen
    if not norm:
        return vxy / (seen - 1.0)
    if vx <= FLAT * seen * mx * mx or vy <= FLAT * seen * my * my:
        return math.nan
    return max(-1.0, min(1.0, vxy / math.sqrt(vx) / math.sqrt(vy)))
