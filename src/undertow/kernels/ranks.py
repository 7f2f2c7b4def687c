"""Ranks, in windows that slide and of pairs with gaps, and what correlations they have.

`x` is (time, series), NaN where nothing was seen. A rank is twice the mean rank less (size + 1):
a whole number, and ranks of a window sum to 0. Pairs i < j stand in the order of rows of the upper
triangle.
"""

import math

import numpy as np

from undertow.kernels import njit
from undertow.kernels.rolling import FLAT


@njit(cache=True, error_model="numpy", nogil=True)
def slide_ranks(values, ranks, slot, new):
    """Replace value `slot` of each series' window by `new`; ranks follow, ties sharing theirs.

    `values` and `ranks` are (series, window). A rank is twice the mean rank less (window + 1), so
    it is whole and ranks of a window sum to 0.
    """
    n, window = values.shape
    for i in range(n):
        old, v = values[i, slot], new[i]
        below = same = 0
        for k in range(window):
            w = values[i, k]
            # one less where the old one counted as below, one more where the new one does
            ranks[i, k] += 2.0 * (v < w) - 2.0 * (old < w) + 1.0 * (v == w) - 1.0 * (old == w)
            below += w < v
            same += w == v
        below -= old < v
        same -= old == v
        values[i, slot] = v
        ranks[i, slot] = 2.0 * below + same + 2.0 - (window + 1)


@njit(cache=True, error_model="numpy", nogil=True)
def gappy_ranks(x, window, least, begin, out, missing):
    """Spearman's correlation of all pairs, each ranked over the rows of a window that both showed.

    Writes `out` (steps, pairs) from step `begin`, and `missing` as in `rolling.gappy_products`.
    """
    n = x.shape[1]
    a, b = np.empty(window), np.empty(window)
    for s in range(out.shape[0]):
        p = 0
        for i in range(n - 1):
            for j in range(i + 1, n):
                seen = 0
                for t in range(begin + s, begin + s + window):
                    if x[t, i] == x[t, i] and x[t, j] == x[t, j]:
                        a[seen], b[seen] = x[t, i], x[t, j]
                        seen += 1
                out[s, p] = math.nan
                if seen < least:
                    missing[0] += 1
                else:
                    out[s, p] = ranked_product(a[:seen], b[:seen])
                    if out[s, p] != out[s, p]:
                        missing[1] += 1
                p += 1


@njit(cache=True, error_model="numpy", nogil=True)
def ranked_product(a, b):
    """Correlation of the ranks of two columns; NaN where one is all ties."""
    u, v = mean_ranks(a), mean_ranks(b)
    uu = vv = uv = 0.0
    for k in range(u.size):
        uu += u[k] * u[k]
        vv += v[k] * v[k]
        uv += u[k] * v[k]
    if uu == 0.0 or vv == 0.0:
        return math.nan
    return max(-1.0, min(1.0, uv / math.sqrt(uu) / math.sqrt(vv)))


@njit(cache=True, error_model="numpy", nogil=True)
def mean_ranks(a):
    """Twice the mean rank of each value less (size + 1): whole numbers that sum to 0."""
    order = np.argsort(a, kind="mergesort")
    ranks = np.empty(a.size)
    k = 0
    while k < a.size:
        end = k
        while end + 1 < a.size and a[order[end + 1]] == a[order[k]]:
            end += 1
        for m in range(k, end + 1):
            ranks[order[m]] = k + end + 2.0 - (a.size + 1.0)
        k = end + 1
    return ranks


@njit(cache=True, error_model="numpy", nogil=True)
def pair_table(x, ranked, values, count, spread):
    """Correlation of every pair over the rows that both showed, of ranks where `ranked`.

    Writes the lower and upper triangle of `values`, of `count` and of `spread`: the variance of
    one row's influence on the correlation. NaN where a series stood still or fewer than 2 rows.
    """
    rows, n = x.shape
    a, b = np.empty(rows), np.empty(rows)
    for i in range(n):
        for j in range(i + 1, n):
            seen = 0
            for t in range(rows):
                if x[t, i] == x[t, i] and x[t, j] == x[t, j]:
                    a[seen], b[seen] = x[t, i], x[t, j]
                    seen += 1
            count[i, j] = count[j, i] = seen
            if ranked:
                a[:seen] = mean_ranks(a[:seen])
                b[:seen] = mean_ranks(b[:seen])
            r = _standard_product(a[:seen], b[:seen])
            values[i, j] = values[j, i] = r
            spread[i, j] = spread[j, i] = _influence(a[:seen], b[:seen], r)


@njit(cache=True, error_model="numpy", nogil=True)
def _standard_product(a, b):
    """Correlation of two columns, which are left with mean 0 and mean square 1."""
    if not (_standardise(a) and _standardise(b)):
        return math.nan
    r = 0.0
    for k in range(a.size):
        r += a[k] * b[k]
    return max(-1.0, min(1.0, r / a.size))


@njit(cache=True, error_model="numpy", nogil=True)
def _standardise(a):
    """Bring a column to mean 0 and mean square 1; false where it stood still."""
    if a.size < 2:
        return False
    level = a[0]
    mean = 0.0
    for k in range(a.size):
        mean += a[k] - level
    mean /= a.size
    square = 0.0
    for k in range(a.size):
        a[k] = (a[k] - level) - mean
        square += a[k] * a[k]
    square /= a.size
    if square <= FLAT * (level + mean) * (level + mean):
        return False
    scale = 1.0 / math.sqrt(square)
    for k in range(a.size):
        a[k] *= scale
    return True


@njit(cache=True, error_model="numpy", nogil=True)
def _influence(a, b, r):
    """Mean square of what a standardised row adds to a correlation: ab - r (a^2 + b^2) / 2."""
    total = 0.0
    for k in range(a.size):
        v = a[k] * b[k] - 0.5 * r * (a[k] * a[k] + b[k] * b[k])
        total += v * v
    return total / a.size if a.size > 0 else math.nan
