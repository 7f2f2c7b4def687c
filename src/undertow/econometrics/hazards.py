"""How often people do one of several things, by what was known of them: rates from spans of watch.

Rows are spans of time in which one of them was watched; columns what was known when the span began.
`outcome` says what ended a span: 0 nothing, else the number of a cause. Rates are per unit of
`span`, constant within it, so spans may differ in length and an act need not be timed within its
span. `survival` has the companions that assume no law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    series,
    within,
)
from undertow.errors import EstimationError

_ROUNDS, _HALVINGS, _STILL = 60, 30, 1e-8
_FURTHEST = 40.0  # log rate beyond which a step is no number to reckon with
_ALL_ENDED = "every span ended in a cause, so no rate is too high: given are those of even odds"
_NUDGE = 1e-5  # of a coefficient, for the slope of an incidence


@dataclass(frozen=True, slots=True, eq=False)
class Incidence:
    """The chance that each cause has come first by the end of each period, with its band."""

    value: FloatMatrix  # (periods, causes)
    low: FloatMatrix
    high: FloatMatrix


@dataclass(frozen=True, slots=True, eq=False)
class HazardFit:
    """log rate of cause j = coefficients[j] @ (1, (x - middle) / spread)."""

    coefficients: FloatMatrix  # (causes, 1 + columns): the constant first; -inf where it never came
    covariance: FloatMatrix  # of the coefficients row after row; NaN for a cause that never came
    middle: FloatColumn
    spread: FloatColumn
    events: NDArray[np.int64]  # (causes,)
    rows: int
    exposure: float  # units of span that were watched
    clusters: int  # 0 where each row counts as news of its own
    rounds: int
    status: str  # empty where it settled, every cause came, and some span ended in nothing

    @property
    def error(self) -> FloatMatrix:
        """Standard errors of the coefficients, in their shape."""
        spread = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        return np.asarray(spread.reshape(self.coefficients.shape))

    def rates(self, x: ArrayLike) -> FloatMatrix:
        """Rate of each cause per unit of span, (rows, causes)."""
        return np.asarray(np.exp(self._lines(x) @ self.coefficients[:, 1:].T + self._constant))

    def band(self, x: ArrayLike, level: float = 0.9) -> tuple[FloatMatrix, FloatMatrix]:
        """Low and high end of the rates; symmetric for their logarithms.

        With clusters by Student's law with clusters - 1, which is wide where they are few. A cause
        that never came has the low end 0 and the high end that it would have missed with the
        chance (1 - level) / 2, whatever `x` is. Where every span ended in a cause, low ends are
        those at which all would have ended with that chance, and high ends infinite.

        References
        ----------
        For the last, Hanley and Lippman-Hand (1983), J. Am. Med. Assoc. 249.
        """
        within("level", level, 0.0, 1.0)
        design = np.column_stack([np.ones(len(self._lines(x))), self._lines(x)])
        rates, causes = self.rates(x), len(self.events)
        if self._all_ended:
            least = _all_ended(0.5 - level / 2.0, self.rows, self.exposure) / self.rows
            each = np.broadcast_to(least * self.events, rates.shape).copy()
            most = -np.log(0.5 - level / 2.0) / self.exposure
            return each, np.broadcast_to(
                np.where(self.events > 0, np.inf, most), rates.shape
            ).copy()
        blocks = self.covariance.reshape(causes, design.shape[1], causes, design.shape[1])
        low, high = np.zeros_like(rates), np.empty_like(rates)
        most = -np.log(0.5 - level / 2.0) / self.exposure
        for j in range(causes):
            if not self.events[j]:
                high[:, j] = most
                continue
            error = np.sqrt(np.einsum("na,ab,nb->n", design, blocks[j, :, j, :], design))
            reach = np.exp(self._reach(level) * error)
            low[:, j], high[:, j] = rates[:, j] / reach, rates[:, j] * reach
        return low, high

    def chances(self, x: ArrayLike, span: ArrayLike = 1.0) -> FloatMatrix:
        """The chance of each cause to come first within `span`, (rows, causes)."""
        rates = self.rates(x)
        lengths = np.broadcast_to(np.asarray(span, dtype=np.float64), len(rates))
        return _parts(rates, lengths).chance

    def incidence(self, path: ArrayLike, span: ArrayLike = 1.0, level: float = 0.9) -> Incidence:
        """What came first by the end of each period of a path of columns, one row a period.

        Bands are symmetric for log(-log(1 - value)), by the slope of that in the coefficients.
        """
        within("level", level, 0.0, 1.0)
        lines = self._lines(path)
        lengths = np.broadcast_to(np.asarray(span, dtype=np.float64), len(lines))
        if self._all_ended:
            return self._likely_all(lengths, level)
        came = np.flatnonzero(self.events > 0)
        beta = self.coefficients[came]
        value = _accumulated(lines, lengths, beta)
        slope = _slopes(lines, lengths, beta)
        size = beta.shape[1]
        kept = (came[:, None] * size + np.arange(size)).ravel()
        spread = np.einsum(
            "pja,ab,pjb->pj", slope, self.covariance[np.ix_(kept, kept)], slope, optimize=True
        )
        reach = self._reach(level) * np.sqrt(spread)
        shape = (len(lines), len(self.events))
        whole, low, high = (np.zeros(shape) for _ in range(3))
        whole[:, came] = value
        middle = _to_line(value)
        low[:, came], high[:, came] = _from_line(middle - reach), _from_line(middle + reach)
        never = np.flatnonzero(self.events == 0)
        most = -np.log(0.5 - level / 2.0) / self.exposure
        high[:, never] = -np.expm1(-most * np.cumsum(lengths))[:, None]
        return Incidence(frozen(whole), frozen(low), frozen(high))

    def _likely_all(self, span: FloatColumn, level: float) -> Incidence:
        """Incidence where every span ended in a cause: how soon has a low end, and no high one."""
        part = self.events / self.rows
        least = _all_ended(0.5 - level / 2.0, self.rows, self.exposure)
        ends = [
            -np.expm1(-rate * np.cumsum(span))[:, None] * part
            for rate in (float(np.exp(self._constant).sum()), least)
        ]
        never = -np.expm1(np.log(0.5 - level / 2.0) / self.exposure * np.cumsum(span))[:, None]
        high = np.where(self.events > 0, 1.0, never)
        return Incidence(frozen(ends[0]), frozen(ends[1]), frozen(high))

    @property
    def _all_ended(self) -> bool:
        return int(self.events.sum()) == self.rows

    @property
    def _constant(self) -> FloatColumn:
        return np.asarray(self.coefficients[:, 0])

    def _lines(self, x: ArrayLike) -> FloatMatrix:
        values = matrix("x", x, rows=0, columns=len(self.middle), missing=True)
        return np.asarray((values - self.middle) / self.spread)

    def _reach(self, level: float) -> float:
        share = 0.5 + level / 2.0
        if not self.clusters:
            return float(special.ndtri(share))
        return float(special.stdtrit(max(self.clusters - 1, 1), share))


def hazards(
    x: ArrayLike,
    outcome: ArrayLike,
    *,
    span: ArrayLike = 1.0,
    causes: int | None = None,
    cluster: ArrayLike | None = None,
    ridge: float = 1.0,
) -> HazardFit:
    """The likeliest rates of competing causes, less ridge/2 times the squared coefficients.

    With rates r_j = exp(line_j) and R their sum, a span d ends in cause j with the chance
    r_j/R (1 - exp(-R d)) and in nothing with exp(-R d); for one cause this is the complementary
    log-log model of grouped durations, with the logarithm of d added to its line. Columns are
    standardised and held back by `ridge`, the constants are not, so few events, or columns that
    part them, still give finite rates. Scoring steps, halved until the likelihood rises.

    `cluster` says whose span each row is. Errors then are those of leaving one out at a time (one
    step each), which are honest about many rows of few people and too wide rather than too narrow
    where they are few. Without it they are those of the likelihood. A cause that never came has
    the rate 0 and a word in `status`. Where every span ended in a cause the higher the rates the
    likelier, without end: then they are those, alike for all rows, at which so many spans would all
    have ended as often as not, and `status` says so.

    References
    ----------
    Prentice and Gloeckler (1978), Biometrics 34; Holford (1980), Biometrics 36, for rates of
    grouped spans; MacKinnon, Nielsen and Webb (2023), Journal of Econometrics 232, for errors of
    clusters left out.
    """
    values, ended, lengths, owner, count = _checked(x, outcome, span, causes, cluster)
    if not ridge > 0.0:
        raise EstimationError(f"ridge was {ridge}; it must be positive", hint="1 is usual")
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    design = np.column_stack([np.ones(len(values)), (values - middle) / spread])
    events = np.bincount(ended, minlength=count + 1)[1:]
    came = np.flatnonzero(events)
    size = design.shape[1]
    beta = np.zeros((count, size))
    beta[:, 0] = -np.inf
    covariance = np.full((count * size, count * size), np.nan)
    rounds, words = 0, [f"cause {j + 1} never came" for j in np.flatnonzero(events == 0)]
    if ended.all():  # the higher the rates the likelier, without end
        even = _all_ended(0.5, len(values), float(lengths.sum()))
        beta[came, 0] = np.log(even * events[came] / len(values))
        words.append(_ALL_ENDED)
    elif len(came):
        data = _Data(design, _one_hot(ended, came), lengths, np.r_[0.0, np.full(size - 1, ridge)])
        start = np.zeros((len(came), size))
        start[:, 0] = np.log(events[came] / lengths.sum())
        beta[came], rounds, settled = _climb(data, start)
        words += [] if settled else [f"did not settle in {_ROUNDS} rounds"]
        kept = (came[:, None] * size + np.arange(size)).ravel()
        covariance[np.ix_(kept, kept)] = _covariance(data, beta[came], owner)
    return HazardFit(
        frozen(beta), frozen(covariance), frozen(middle), frozen(spread),
        frozen(events.astype(np.int64)), len(values), float(lengths.sum()),
        0 if owner is None else int(owner.max()) + 1, rounds, "; ".join(words),
    )  # fmt: skip


def _all_ended(chance: float, rows: int, exposure: float) -> float:
    """The rate at which so many spans, taken as equally long, all end with a chance."""
    return float(-np.log1p(-(chance ** (1.0 / rows))) * rows / exposure)


class _Data(NamedTuple):
    design: FloatMatrix  # (rows, 1 + columns)
    came: FloatMatrix  # (rows, causes) 1 where the cause ended the span
    span: FloatColumn
    held: FloatColumn  # (1 + columns,) ridge of each coefficient


class _Parts(NamedTuple):
    """What a span of some rates comes to."""

    log_first: FloatColumn  # log of (1 - exp(-R d)) / R: times a rate, the chance of that cause
    bend: FloatColumn  # slope of `log_first` in R
    chance: FloatMatrix


def _parts(rates: FloatMatrix, span: FloatColumn) -> _Parts:
    total = rates.sum(axis=1)
    load = total * span
    small = load < 1e-6
    safe = np.where(small, 1.0, total)
    first = np.where(small, span * (1.0 - 0.5 * load), -np.expm1(-load) / safe)
    bend = np.where(small, -0.5 * span, (span * np.exp(-load) / first - 1.0) / safe)
    return _Parts(np.log(first), bend, rates * first[:, None])


def _lines_of(data: _Data, beta: FloatMatrix) -> FloatMatrix:
    return np.asarray(np.clip(data.design @ beta.T, -_FURTHEST, _FURTHEST))


def _height(data: _Data, beta: FloatMatrix) -> float:
    lines = _lines_of(data, beta)
    rates = np.exp(lines)
    any_came = data.came.sum(axis=1)
    quiet = (1.0 - any_came) * rates.sum(axis=1) * data.span
    found = (data.came * lines).sum() + any_came @ _parts(rates, data.span).log_first - quiet.sum()
    return float(found - 0.5 * (data.held * beta * beta).sum())


def _scores(data: _Data, beta: FloatMatrix) -> tuple[FloatMatrix, NDArray[np.float64]]:
    """By row: slope of the likelihood in each line, (rows, causes), and what is expected of bend.

    With r the rates, g = (1 - exp(-R d))/R and c its log slope: bend = diag(r g) + r r' k,
    k = 2 c g + c^2 (1 - exp(-R d)) + exp(-R d) d^2.
    """
    rates = np.exp(_lines_of(data, beta))
    parts = _parts(rates, data.span)
    any_came = data.came.sum(axis=1)
    push = any_came * parts.bend - (1.0 - any_came) * data.span
    none = np.exp(-rates.sum(axis=1) * data.span)
    first = np.exp(parts.log_first)
    k = 2.0 * parts.bend * first + parts.bend**2 * (1.0 - none) + none * data.span**2
    bend = rates[:, :, None] * rates[:, None, :] * k[:, None, None]
    each = np.arange(rates.shape[1])
    bend[:, each, each] += parts.chance
    return data.came + rates * push[:, None], bend


def _information(design: FloatMatrix, bend: NDArray[np.float64]) -> FloatMatrix:
    causes, size = bend.shape[1], design.shape[1]
    blocks = np.empty((causes, size, causes, size))
    for i in range(causes):
        for j in range(i + 1):
            block = (design * bend[:, i, j, None]).T @ design
            blocks[i, :, j, :] = block
            blocks[j, :, i, :] = block.T
    return blocks.reshape(causes * size, causes * size)


def _climb(data: _Data, beta: FloatMatrix) -> tuple[FloatMatrix, int, bool]:
    held = np.diag(np.tile(data.held, len(beta)))
    height = _height(data, beta)
    for turn in range(_ROUNDS):
        score, bend = _scores(data, beta)
        slope = (score.T @ data.design - data.held * beta).ravel()
        step = np.linalg.solve(_information(data.design, bend) + held, slope).reshape(beta.shape)
        size = float(np.abs(step).max())
        for _ in range(_HALVINGS if size > _STILL else 0):
            if _height(data, beta + step) >= height - 1e-12 * abs(height):
                break
            step = 0.5 * step
        beta = beta + step
        height = _height(data, beta)
        if size < _STILL:
            return beta, turn + 1, True
    return beta, _ROUNDS, False


def _covariance(data: _Data, beta: FloatMatrix, owner: NDArray[np.int64] | None) -> FloatMatrix:
    """Of the coefficients: the inverse of what is known, or what leaving each owner out moves."""
    score, bend = _scores(data, beta)
    whole = _information(data.design, bend) + np.diag(np.tile(data.held, len(beta)))
    if owner is None:
        return np.asarray(np.linalg.inv(whole))
    order = np.argsort(owner, kind="stable")
    cuts = np.flatnonzero(np.diff(owner[order])) + 1
    moves = []
    for rows in np.split(order, cuts):
        own = (score[rows].T @ data.design[rows]).ravel()
        rest = whole - _information(data.design[rows], bend[rows])
        moves.append(np.linalg.solve(rest, -own))
    moved = np.array(moves)
    return np.asarray((len(moved) - 1.0) / len(moved) * moved.T @ moved)


def _accumulated(lines: FloatMatrix, span: FloatColumn, beta: FloatMatrix) -> FloatMatrix:
    rates = np.exp(lines @ beta[:, 1:].T + beta[:, 0])
    left = np.exp(-np.cumsum(rates.sum(axis=1) * span))
    return np.cumsum(np.r_[1.0, left[:-1]][:, None] * _parts(rates, span).chance, axis=0)


def _slopes(lines: FloatMatrix, span: FloatColumn, beta: FloatMatrix) -> NDArray[np.float64]:
    """Of log(-log(1 - incidence)) in every coefficient, (periods, causes, coefficients)."""
    found = []
    for place in range(beta.size):
        nudge = np.zeros(beta.size)
        nudge[place] = _NUDGE
        up, down = (
            _to_line(_accumulated(lines, span, beta + sign * nudge.reshape(beta.shape)))
            for sign in (1.0, -1.0)
        )
        found.append((up - down) / (2.0 * _NUDGE))
    return np.moveaxis(np.array(found), 0, -1)


def _to_line(chance: FloatMatrix) -> FloatMatrix:
    return np.asarray(np.log(-np.log1p(-np.clip(chance, 1e-300, 1.0 - 1e-15))))


def _from_line(line: FloatMatrix) -> FloatMatrix:
    return np.asarray(-np.expm1(-np.exp(line)))


def _one_hot(ended: NDArray[np.int64], came: NDArray[np.int64]) -> FloatMatrix:
    return np.asarray(ended[:, None] == came + 1, dtype=np.float64)


def _checked(
    x: ArrayLike, outcome: ArrayLike, span: ArrayLike, causes: int | None, cluster: Any
) -> tuple[FloatMatrix, NDArray[np.int64], FloatColumn, NDArray[np.int64] | None, int]:
    values = matrix("x", x, columns=0)
    ended = series("outcome", outcome)
    whole: BoolColumn = (ended >= 0.0) & (ended == np.floor(ended))
    if len(ended) != len(values) or not whole.all():
        raise EstimationError(
            f"outcome of shape {ended.shape} is not 0 or the number of a cause for each of "
            f"{len(values)} rows"
        )
    count = int(ended.max()) if causes is None else causes
    if count < max(int(ended.max()), 1):
        raise EstimationError(
            f"causes was {causes}, and the largest outcome is {int(ended.max())}",
            hint="say how many causes there are where none came",
        )
    try:
        lengths = np.array(np.broadcast_to(np.asarray(span, dtype=np.float64), len(values)))
    except ValueError as error:
        raise EstimationError(f"span is none for each of {len(values)} rows") from error
    if not (np.isfinite(lengths) & (lengths > 0.0)).all():
        raise EstimationError("span is not positive in every row", hint="leave such rows out")
    owner = None
    if cluster is not None:
        names, codes = np.unique(np.asarray(cluster), return_inverse=True)
        if codes.shape != (len(values),) or len(names) < 2:
            raise EstimationError(
                f"cluster names {len(names)} owners of {len(values)} rows; two are needed, and a "
                "name for each row"
            )
        owner = codes.astype(np.int64)
    return values, ended.astype(np.int64), lengths, owner, count
