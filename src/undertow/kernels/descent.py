"""Coordinate descent for many penalised regressions that share their regressors.

Rows of `cross` and `weights` are equations, columns are regressors. `gram` holds the products of
the regressors with each other and `cross` those of each equation's own series with them, both
divided by the number of observations: no observation is looked at again, however many there were.
A regressor whose diagonal is not positive is left at weight zero. Every float is finite.

References
----------
Friedman, Hastie and Tibshirani 2010, Journal of Statistical Software (covariance updates).
"""

import numpy as np

from undertow.kernels import njit


@njit(cache=True, error_model="numpy")
def sweep_over(gram, slope, weights, chosen, count, lasso, ridge):
    """One pass over the first `count` regressors in `chosen`; the largest change of a weight.

    Writes `weights`, and keeps `slope`, which is cross - gram @ weights, in step with them.
    """
    largest = 0.0
    for place in range(count):
        j = chosen[place]
        own = gram[j, j]
        if own <= 0.0:
            continue
        old = weights[j]
        pull = slope[j] + own * old
        if pull > lasso:
            new = (pull - lasso) / (own + ridge)
        elif pull < -lasso:
            new = (pull + lasso) / (own + ridge)
        else:
            new = 0.0
        change = new - old
        if change != 0.0:
            weights[j] = new
            for k in range(slope.size):
                slope[k] -= change * gram[j, k]
            largest = max(largest, abs(change))
    return largest


@njit(cache=True, error_model="numpy")
def descend(gram, cross, lasso, ridge, near, most, weights):
    """Minimise w'Gw/2 - c'w + lasso |w|_1 + ridge w'w/2 for each row c of `cross`, from `weights`.

    An equation rests when a pass over all regressors moves no weight by more than `near`. Between
    such passes only weights that are not zero are moved. Writes `weights`; returns how many
    equations had not come to rest after `most` passes.
    """
    equations, size = cross.shape
    everyone = np.arange(size)
    active = np.empty(size, np.int64)
    slope = np.empty(size)
    restless = 0
    for i in range(equations):
        w = weights[i]
        slope[:] = cross[i]
        for j in range(size):
            if w[j] != 0.0:
                for k in range(size):
                    slope[k] -= w[j] * gram[j, k]
        rested, passes = False, 0
        while not rested and passes < most:
            moved = sweep_over(gram, slope, w, everyone, size, lasso[i], ridge[i])
            passes += 1
            rested = moved <= near
            count = 0
            for j in range(size):
                if w[j] != 0.0:
                    active[count] = j
                    count += 1
            while moved > near and passes < most:
                moved = sweep_over(gram, slope, w, active, count, lasso[i], ridge[i])
                passes += 1
        restless += not rested
    return restless
