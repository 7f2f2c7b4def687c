"""The group of series that fell together by most, date by date.

`z` is (dates, series): falls are negative, in standard deviations, NaN where a series was not seen.
`loading` is each series' loading on the one factor that all share, so that their correlation is
R = diag(1 - loading^2) + loading loading'. Every loading lies inside (-1, 1).
"""

import math

import numpy as np

from undertow.kernels import njit


@njit(cache=True, error_model="numpy")
def worst_groups(z, loading, least, cap, score):
    """Write the likeliest common fall of each date's k lowest series, over k >= `least`.

    Of a group S: -1_S' R^-1 z over the root of 1_S' R^-1 1_S, with z at least -`cap`. A date at
    which fewer than `least` series were seen gets minus infinity. Writes `score`.
    """
    dates, series = z.shape
    order = np.empty(series, dtype=np.int64)
    for t in range(dates):
        seen, tied, pull = 0, 1.0, 0.0
        for j in range(series):
            value = z[t, j]
            if math.isnan(value):
                continue
            place = seen  # insertion sort: a date has few series
            while place > 0 and z[t, order[place - 1]] > value:
                order[place] = order[place - 1]
                place -= 1
            order[place] = j
            seen += 1
            weight = loading[j] / (1.0 - loading[j] * loading[j])
            tied += weight * loading[j]
            pull += weight * max(value, -cap)
        pull /= tied
        best, fall, size, shared = -math.inf, 0.0, 0.0, 0.0
        for k in range(seen):
            j = order[k]
            weight = 1.0 / (1.0 - loading[j] * loading[j])
            fall -= weight * (max(z[t, j], -cap) - loading[j] * pull)
            size += weight
            shared += weight * loading[j]
            if k + 1 >= least:
                left = size - shared * shared / tied
                best = max(best, fall / math.sqrt(left))
        score[t] = best
