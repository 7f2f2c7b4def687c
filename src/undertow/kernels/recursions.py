"""Volatility and correlation that feed on yesterday's: the loops under `garch` and `dcc`.

Rows are instants, oldest first. NaN marks what was not observed; a value not seen counts as what
was expected of it. Variances and correlations at row t use what is known at row t - 1; arrays one
longer than the data end with the forecast for the next row.
"""

import math

import numpy as np

from undertow.kernels import njit


@njit(cache=True, error_model="numpy")
def garch_variance(e, omega, alpha, gamma, beta, first, variance):
    """Write the conditional variances of residuals `e`, and of the row after, to `variance`.

    `first` stands for the square and the variance of the row before the data; half of the
    `gamma` term counts there and where `e` was not seen.
    """
    blind = alpha + 0.5 * gamma
    now = omega + (blind + beta) * first
    variance[0] = now
    for t in range(e.size):
        if math.isnan(e[t]):
            now = omega + (blind + beta) * now
        elif e[t] < 0.0:
            now = omega + (alpha + gamma) * e[t] * e[t] + beta * now
        else:
            now = omega + alpha * e[t] * e[t] + beta * now
        variance[t + 1] = now


@njit(cache=True, error_model="numpy")
def garch_slopes(e, alpha, gamma, beta, first, first_slope, variance, slopes):
    """Write the derivatives of `variance` by (mean, omega, alpha, gamma, beta) to `slopes`.

    `first` is the square and the variance before the data, `first_slope` its derivative by the
    mean.
    """
    blind = alpha + 0.5 * gamma
    slopes[0, 0] = (blind + beta) * first_slope
    slopes[0, 1] = 1.0
    slopes[0, 2] = first
    slopes[0, 3] = 0.5 * first
    slopes[0, 4] = first
    for t in range(e.size):
        keep = beta
        if math.isnan(e[t]):
            square, share, by_mean = variance[t], 0.5, 0.0
            keep = beta + blind
        else:
            square, share = e[t] * e[t], 0.0
            if e[t] < 0.0:
                share = 1.0
            by_mean = -2.0 * e[t] * (alpha + gamma * share)
        slopes[t + 1, 0] = by_mean + keep * slopes[t, 0]
        slopes[t + 1, 1] = 1.0 + keep * slopes[t, 1]
        slopes[t + 1, 2] = square + keep * slopes[t, 2]
        slopes[t + 1, 3] = share * square + keep * slopes[t, 3]
        slopes[t + 1, 4] = variance[t] + keep * slopes[t, 4]


@njit(cache=True, error_model="numpy")
def own_scale(z, a, b, scale):
    """Write the square roots of the diagonal of Q, which each series makes alone, to `scale`."""
    for i in range(z.shape[1]):
        q = 1.0
        for t in range(z.shape[0]):
            scale[t, i] = math.sqrt(q)
            square = 1.0
            if not math.isnan(z[t, i]):
                square = z[t, i] * z[t, i]
            q = 1.0 - a - b + (a * square + b) * q


@njit(cache=True, error_model="numpy")
def pair_likelihood(z, target, a, b, corrected):
    """Sum of the log-likelihoods of neighbouring columns; `target[i]` is that of i with i + 1.

    Of each pair the part that speaks of correlation; rows where one is missing say nothing.
    """
    total = 0.0
    rest = 1.0 - a - b
    for i in range(z.shape[1] - 1):
        x, y, m = 1.0, 1.0, target[i]
        for t in range(z.shape[0]):
            u, v = z[t, i], z[t, i + 1]
            sx, sy = math.sqrt(x), math.sqrt(y)
            r = m / (sx * sy)
            left = 1.0 - r * r
            if not left > 0.0:
                return math.nan
            if math.isnan(u) and math.isnan(v):
                uu, vv, uv = 1.0, 1.0, r
            elif math.isnan(u):
                uu, vv, uv = r * r * v * v + left, v * v, r * v * v
            elif math.isnan(v):
                uu, vv, uv = u * u, r * r * u * u + left, r * u * u
            else:
                uu, vv, uv = u * u, v * v, u * v
                fit = (uu + vv - 2.0 * r * uv) / left
                total -= 0.5 * (math.log(left) + fit - uu - vv)
            if corrected:
                uu, vv, uv = uu * x, vv * y, uv * sx * sy
            x = rest + a * uu + b * x
            y = rest + a * vv + b * y
            m = rest * target[i] + a * uv + b * m
    return total


@njit(cache=True, error_model="numpy")
def correlations(q, r):
    """Write Q, divided by the roots of its diagonal, to `r`."""
    n = q.shape[0]
    for i in range(n):
        for j in range(i):
            r[i, j] = q[i, j] / (math.sqrt(q[i, i]) * math.sqrt(q[j, j]))
            r[j, i] = r[i, j]
        r[i, i] = 1.0


@njit(cache=True, error_model="numpy")
def seen_first(row, order):
    """Write the columns' numbers to `order`, the observed first; return how many those are."""
    seen = 0
    for i in range(row.size):
        if not math.isnan(row[i]):
            order[seen] = i
            seen += 1
    last = seen
    for i in range(row.size):
        if math.isnan(row[i]):
            order[last] = i
            last += 1
    return seen


@njit(cache=True, error_model="numpy")
def factor(r, row, order, seen, chol, u):
    """Write the Cholesky factor of the observed part of `r`, and it solved for `row`.

    `chol` gets the rows of the missing columns as well, so that chol[m] . u is what is expected
    of column m. A column that the ones before it explain wholly adds nothing there. Returns the
    log determinant of the observed part, NaN where such a column was among them.
    """
    n = r.shape[0]
    logdet = 0.0
    for i in range(n):
        for j in range(min(i, seen)):
            left = 0.0
            if chol[j, j] > 0.0:
                left = r[order[i], order[j]]
                for k in range(j):
                    left -= chol[i, k] * chol[j, k]
                left /= chol[j, j]
            chol[i, j] = left
        if i < seen:
            left = 1.0
            for k in range(i):
                left -= chol[i, k] * chol[i, k]
            if left > 1e-12:
                chol[i, i] = math.sqrt(left)
                logdet += math.log(left)
                value = row[order[i]]
                for k in range(i):
                    value -= chol[i, k] * u[k]
                u[i] = value / chol[i, i]
            else:
                chol[i, i] = 0.0
                u[i] = 0.0
                logdet = math.nan
    return logdet


@njit(cache=True, error_model="numpy")
def expected_products(r, row, order, seen, chol, u, guess, products):
    """Write z z' as expected given what was seen of `row` to `products`; `guess` is overwritten."""
    n = r.shape[0]
    for i in range(n):
        if i < seen:
            guess[i] = row[order[i]]
        else:
            guess[i] = 0.0
            for k in range(seen):
                guess[i] += chol[i, k] * u[k]
    for i in range(n):
        for j in range(i + 1):
            value = guess[i] * guess[j]
            if j >= seen:  # neither was seen: what is unexplained adds to the product
                value += r[order[i], order[j]]
                for k in range(seen):
                    value -= chol[i, k] * chol[j, k]
            products[order[i], order[j]] = value
            products[order[j], order[i]] = value


@njit(cache=True, error_model="numpy")
def step(q, products, target, a, b, corrected):
    """Move Q to the next row, in place."""
    n = q.shape[0]
    rest = 1.0 - a - b
    for i in range(n):
        for j in range(i):
            news = products[i, j]
            if corrected:
                news *= math.sqrt(q[i, i]) * math.sqrt(q[j, j])
            q[i, j] = rest * target[i, j] + a * news + b * q[i, j]
            q[j, i] = q[i, j]
    for i in range(n):
        news = products[i, i]
        if corrected:
            news *= q[i, i]
        q[i, i] = rest * target[i, i] + a * news + b * q[i, i]


@njit(cache=True, error_model="numpy")
def whole_likelihood(z, target, a, b, corrected):
    """Log-likelihood of all columns, the part that speaks of correlation; NaN if one is idle."""
    n = z.shape[1]
    q, r, products, chol = target.copy(), np.empty((n, n)), np.empty((n, n)), np.zeros((n, n))
    order, u, guess = np.empty(n, np.int64), np.empty(n), np.empty(n)
    total = 0.0
    for t in range(z.shape[0]):
        correlations(q, r)
        seen = seen_first(z[t], order)
        logdet = factor(r, z[t], order, seen, chol, u)
        if math.isnan(logdet):
            return math.nan
        fit = logdet
        for k in range(seen):
            fit += u[k] * u[k] - z[t, order[k]] * z[t, order[k]]
        total -= 0.5 * fit
        expected_products(r, z[t], order, seen, chol, u, guess, products)
        step(q, products, target, a, b, corrected)
    return total


@njit(cache=True, error_model="numpy")
def correlation_path(z, target, a, b, corrected, q, path):
    """Write one correlation matrix a row to `path`, as far as it reaches, beginning at Q = `q`.

    `q` is left where the row after the last one written begins, so that a second call goes on.
    """
    n = z.shape[1]
    products, chol = np.empty((n, n)), np.zeros((n, n))
    order, u, guess = np.empty(n, np.int64), np.empty(n), np.empty(n)
    for t in range(path.shape[0]):
        correlations(q, path[t])
        if t < z.shape[0]:
            seen = seen_first(z[t], order)
            if seen < n:
                factor(path[t], z[t], order, seen, chol, u)
            expected_products(path[t], z[t], order, seen, chol, u, guess, products)
            step(q, products, target, a, b, corrected)
