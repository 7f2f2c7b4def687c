"""Sums that do not depend on the order of their terms: whole counts of a small quantum.

A float sum changes in its last bits with the order, so threads, shards and batches would each give
their own. Here every term is rounded to a power-of-two quantum once and added as an integer, which
is exact: any order, any grouping, any prefix sum gives the same bits. The quantum of a column is
chosen from the largest total that the column can ever hold, so that 62 bits are enough for it.
"""

from math import floor, frexp

import numpy as np

from undertow.kernels import njit

BITS = 61  # of a total; one is the sign's, two are spare


@njit(cache=True, error_model="numpy")
def quanta_per_unit(total):
    """Counts that one unit stands for, so that `total` units fit; 1 where nothing is expected."""
    if not total > 0.0:
        return 1.0
    _, exponent = frexp(total)
    return 2.0 ** (BITS - exponent)


@njit(cache=True, error_model="numpy", inline="always")
def to_counts(value, per_unit):
    """The whole number of quanta nearest to `value`."""
    return np.int64(floor(value * per_unit + 0.5))
