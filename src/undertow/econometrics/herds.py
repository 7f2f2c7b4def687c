"""Who buys and sells with whom, at once or shortly after, beyond what prices make everybody do.

Rows of `flow` are steps, columns members: signed, positive where bought; only the sign counts, and
NaN is a step at which a member was not seen. `returns` are of what each member holds, at the same
steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.errors import EstimationError

LEAST_TRADES = 20  # of a member, to be looked at
_ROWS_A_TERM = 5  # steps that each coefficient of the purge must have
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Herds:
    """Members that trade together beyond prices."""

    herd: NDArray[np.int64]  # (members,): its herd, the largest first; -1 of none
    score: FloatMatrix  # (members, members): studentised co-movement at the best lag
    lag: NDArray[np.int64]  # (members, members): steps by which the second follows the first
    correlation: FloatMatrix  # (members, members): at that lag, beyond prices
    raw: FloatMatrix  # (members, members): at once, prices and all
    beyond: FloatMatrix  # (members, members): at once, beyond prices
    p_value: FloatMatrix  # (members, members): corrected over all pairs and lags
    threshold: float  # score that chance beats in `level` of all histories
    explained: FloatColumn  # (members,): share of the variance of the sign that prices explain
    reasons: tuple[str, ...]  # (members,): empty where looked at
    level: float
    reason: str = ""  # why nothing could be judged

    @property
    def count(self) -> int:
        """How many herds there are."""
        return int(self.herd.max(initial=-1)) + 1


def herds(
    flow: FloatMatrix,
    returns: FloatMatrix,
    *,
    rng: np.random.Generator,
    window: int = 2,
    lags: int = 2,
    level: float = 0.05,
    reps: int = 199,
    least: int = 2,
) -> Herds:
    """Groups whose signs of flow agree, within `window` steps of each other, beyond chance.

    First the price is taken out: the sign of each member's flow is regressed on returns of its own
    holdings and of everybody's, now and `lags` steps back, straight, kinked, in size and bounded,
    and what went before times what is now.
    What is left of two members is multiplied, summed over steps and divided by the root of the sum
    of squares, which loud times do not inflate; the best lag counts. Chance is what the same
    members show when each is shifted round in time on its own, and a pair counts when it beats the
    largest of all pairs in all but `level` of those histories (pairs that were not shifted apart do
    not count): the chance of a single false tie is `level`. Herds are what ties connect.

    A herd that moves the price is taken for an answer to it, as far as it does: what is found is a
    lower bound. What answers a price that was not given passes for a herd.

    Raises
    ------
    EstimationError
        When shapes differ or an option is impossible.

    References
    ----------
    Lakonishok, Shleifer and Vishny (1992), J. Financial Economics 32 (herding). Westfall and Young
    (1993), resampling-based multiple testing.
    """
    x = matrix("flow", flow, missing=True)
    r = matrix("returns", returns, missing=True)
    if r.shape != x.shape:
        raise EstimationError(f"returns are {r.shape}; flow is {x.shape}")
    within("level", level, 0.0, 1.0)
    for name, value, lowest in (("window", window, 0), ("lags", lags, 0), ("reps", reps, 19)):
        if int(value) != value or value < lowest:
            raise EstimationError(f"{name} was {value}; it must be a whole number from {lowest} up")
    seen = ~np.isnan(x)
    sign = np.sign(np.where(seen, x, 0.0))
    terms = _terms(np.nan_to_num(r), lags)
    reasons = [_reason(sign[seen[:, j], j], terms[j].shape[1]) for j in range(x.shape[1])]
    used = np.flatnonzero([not each for each in reasons])
    size = x.shape[1]
    if len(used) < 2 or len(x) <= 2 * window + 2:
        why = f"{len(used)} of {size} members trade often enough; two are needed"
        return _nothing(size, reasons, level, why)
    left, explained = _purged(sign[:, used], seen[:, used], [terms[j] for j in used])
    score, lag, tie = _scores(left, window)
    most = np.array([_largest(*_shifted(left, rng), window) for _ in range(reps)])
    p = (1.0 + (most[:, None, None] >= score).sum(axis=0)) / (1.0 + reps)
    joined = (p <= level) & ~np.eye(len(used), dtype=np.bool_)
    threshold = float(np.quantile(most, 1.0 - level, method="higher"))
    middle = np.where(seen[:, used], sign[:, used] - _mean(sign[:, used], seen[:, used]), 0.0)
    return Herds(
        herd=frozen(_groups(joined, used, size, least)),
        score=_spread(score, used, size),
        lag=_spread(lag, used, size).astype(np.int64),
        correlation=_spread(tie, used, size),
        raw=_spread(_correlation(middle), used, size),
        beyond=_spread(_correlation(left), used, size),
        p_value=_spread(p, used, size, 1.0),
        threshold=threshold,
        explained=_column(explained, used, size),
        reasons=tuple(reasons),
        level=level,
    )


def _reason(sign: FloatColumn, terms: int) -> str:
    """Why a member is not looked at; `sign` is of the steps at which it was seen."""
    traded = int((sign != 0.0).sum())
    if traded < LEAST_TRADES:
        return f"too few trades: {traded}, {LEAST_TRADES} are needed"
    if np.ptp(sign) == 0.0:
        return "constant"
    if len(sign) < _ROWS_A_TERM * terms:
        return f"too short: {len(sign)} steps, {_ROWS_A_TERM * terms} are needed"
    return ""


def _terms(returns: FloatMatrix, lags: int) -> list[FloatMatrix]:
    """Of each member, what its sign is regressed on: own and common returns, in four shapes."""
    spread = returns.std(axis=0)
    z = np.divide(returns, spread, out=np.zeros_like(returns), where=spread > 0.0)
    common = z.mean(axis=1)
    size = common.std()
    common = common / size if size > 0.0 else common
    made: dict[bytes, FloatMatrix] = {}
    out = []
    for j in range(returns.shape[1]):
        key = z[:, j].tobytes()
        if key not in made:
            own = [z[:, j]] if np.allclose(z[:, j], common) else [z[:, j], common]
            columns = [np.ones(len(z))]
            for each in own:
                size = np.minimum(np.abs(each), 3.0)
                for lag in range(lags + 1):
                    late = np.concatenate([np.zeros(lag), each[: len(each) - lag]])
                    columns += [late, np.minimum(late, 0.0), np.minimum(late**2, 9.0),
                                np.tanh(2.0 * late)]  # fmt: skip
                    if lag:  # who trades more when a price moves answers the last move more too
                        columns += [size * late, each * np.minimum(np.abs(late), 3.0)]
            made[key] = np.stack(columns, axis=1)
        out.append(made[key])
    return out


def _purged(
    sign: FloatMatrix, seen: NDArray[np.bool_], terms: list[FloatMatrix]
) -> tuple[FloatMatrix, FloatColumn]:
    """What returns leave of each sign, 0 where not seen, and the share that they explain."""
    left, explained = np.zeros_like(sign), np.zeros(sign.shape[1])
    for j, x in enumerate(terms):
        rows = seen[:, j]
        part = x[rows]
        gram = part.T @ part
        gram.flat[:: len(gram) + 1] += _RIDGE * np.trace(gram) / len(gram)
        fit = part @ np.linalg.solve(gram, part.T @ sign[rows, j])
        left[rows, j] = sign[rows, j] - fit
        explained[j] = 1.0 - left[rows, j].var() / sign[rows, j].var()
    return left, np.clip(explained, 0.0, 1.0)


def _scores(left: FloatMatrix, window: int) -> tuple[FloatMatrix, NDArray[np.int64], FloatMatrix]:
    """Best studentised product of each pair over lags, its lag, and the correlation there."""
    size, squares = left.shape[1], left * left
    score, tie = np.full((2, size, size), -np.inf)
    best = np.zeros((size, size), dtype=np.int64)
    for lag in range(window + 1):
        first, second = left[: len(left) - lag], left[lag:]
        product = first.T @ second
        spread = np.sqrt(squares[: len(left) - lag].T @ squares[lag:])
        t = np.divide(product, spread, out=np.zeros_like(product), where=spread > 0.0)
        whole = np.sqrt(np.outer((first * first).sum(axis=0), (second * second).sum(axis=0)))
        rho = np.divide(product, whole, out=np.zeros_like(product), where=whole > 0.0)
        # t[i, j]: j follows i; its transpose: j leads i
        for way, value, share in ((lag, t, rho), (-lag, t.T, rho.T)):
            better = value > score
            score[better], tie[better], best[better] = value[better], share[better], way
    np.fill_diagonal(score, -np.inf)
    return score, best, tie


def _largest(left: FloatMatrix, start: NDArray[np.int64], window: int) -> float:
    """The largest score of all pairs and lags, of pairs that were shifted apart."""
    squares, most = left * left, 0.0
    apart = np.abs(start[:, None] - start[None, :])
    together = np.minimum(apart, len(left) - apart) <= 2 * window + 2
    for lag in range(window + 1):
        product = left[: len(left) - lag].T @ left[lag:]
        spread = np.sqrt(squares[: len(left) - lag].T @ squares[lag:])
        product[together] = 0.0
        t = np.divide(product, spread, out=np.zeros_like(product), where=spread > 0.0)
        most = max(most, float(t.max()))
    return most


def _shifted(left: FloatMatrix, rng: np.random.Generator) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """A history in which every member is rotated on its own, and by how much."""
    steps, size = left.shape
    start = np.asarray(rng.integers(steps, size=size), dtype=np.int64)
    rows = (np.arange(steps)[:, None] + start) % steps
    return np.take_along_axis(left, rows, axis=0), start


def _groups(
    joined: NDArray[np.bool_], used: NDArray[np.int64], size: int, least: int
) -> NDArray[np.int64]:
    """What ties connect, the largest group first; -1 of those in none."""
    _, part = connected_components(csr_array(joined | joined.T), directed=False)
    counts = np.bincount(part)
    order = np.argsort(-counts, kind="stable")
    place = np.argsort(order)
    place[counts < max(least, 2)] = -1
    out = np.full(size, -1, dtype=np.int64)
    out[used] = place[part]
    return out


def _mean(values: FloatMatrix, seen: NDArray[np.bool_]) -> FloatColumn:
    return np.asarray(values.sum(axis=0) / np.maximum(seen.sum(axis=0), 1))


def _correlation(centred: FloatMatrix) -> FloatMatrix:
    size = np.sqrt((centred * centred).sum(axis=0))
    whole = np.outer(size, size)
    return np.divide(centred.T @ centred, whole, out=np.zeros_like(whole), where=whole > 0.0)


def _spread(
    part: NDArray[np.float64] | NDArray[np.int64],
    used: NDArray[np.int64],
    size: int,
    empty: float = 0.0,
) -> FloatMatrix:
    out = np.full((size, size), empty)
    out[np.ix_(used, used)] = part
    return frozen(out)


def _column(part: FloatColumn, used: NDArray[np.int64], size: int) -> FloatColumn:
    out = np.full(size, np.nan)
    out[used] = part
    return frozen(out)


def _nothing(size: int, reasons: list[str], level: float, why: str) -> Herds:
    blank = np.zeros((size, size))
    return Herds(
        np.full(size, -1, dtype=np.int64), blank, blank.astype(np.int64), blank, blank, blank,
        np.ones((size, size)), np.nan, np.full(size, np.nan), tuple(reasons), level, why,
    )  # fmt: skip
