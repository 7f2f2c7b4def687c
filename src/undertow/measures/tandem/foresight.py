"""Tail forecasts one step ahead, with and without yesterday's tandem, each from the past alone.

Rows are steps. Volatilities are GARCH's, correlations cDCC's, tails those of past losses over
their deviation (filtered historical simulation). Given tandem, correlations are shifted towards
one or zero by how tightly leverage moved together the step before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, isnan, nan

import numpy as np

from undertow.econometrics.checks import frozen
from undertow.econometrics.dcc import DccFit, dcc
from undertow.measures.tandem.history import LeverageHistory
from undertow.state import BoolColumn, FloatColumn, FloatMatrix

PLAIN, TANDEM, PLACEBO = "plain cDCC", "cDCC given tandem", "cDCC given tandem of long ago"
LEAST_WINDOW = 200
_SHIFTS = (-0.6, -0.45, -0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75)
_PARTS = (0.5, 0.65, 0.8, 0.9)  # quantiles of the state above which it counts as high
_BURN = 60  # first steps, of which the state says nothing yet
_CLIP = 4.0  # deviations: no single step may rule the state


def tandem_state(
    history: LeverageHistory, *, window: int, every: int, half_life: float
) -> FloatColumn:
    """(steps,) Mean correlation of growth beyond prices, from what was known at each step.

    NaN in the first steps, and until two nodes were seen. The first `window` steps are purged by
    one fit to themselves: they only ever serve to fit.
    """
    residual = _purged_by_past(history, window, every)
    fade = 0.5 ** (1.0 / half_life)
    scaled = np.clip(residual / _known_scale(residual, fade), -_CLIP, _CLIP)
    seen = ~np.isnan(scaled)
    count = seen.sum(axis=1)
    values = np.where(seen, scaled, 0.0)
    squares = (values * values).sum(axis=1)
    pairs = np.where(count > 1, count * (count - 1.0), 1.0)
    both = (values.sum(axis=1) ** 2 - squares) / pairs
    own = squares / np.maximum(count, 1)
    state, top, bottom = np.full(len(scaled), nan), 0.0, 0.0
    for t in range(len(scaled)):
        if count[t] > 1:
            top, bottom = fade * top + both[t], fade * bottom + own[t]
        if bottom > 0.0 and t >= _BURN:
            state[t] = top / bottom
    return state


def _purged_by_past(history: LeverageHistory, window: int, every: int) -> FloatMatrix:
    """Growth less what own and market returns say of it, by fits to earlier blocks alone."""
    growth, returns = history.growth, history.returns
    seen = ~np.isnan(returns)
    count = np.maximum(seen.sum(axis=1), 1)
    market = np.where(seen.any(axis=1), np.where(seen, returns, 0.0).sum(axis=1) / count, nan)
    residual = np.full_like(growth, nan)
    starts = [0, *range(window, len(growth), every)]
    for j in range(growth.shape[1]):
        x = np.column_stack([np.ones(len(growth)), *_terms(returns[:, j]), *_terms(market)])
        whole = ~(np.isnan(growth[:, j]) | np.isnan(x).any(axis=1))
        for start, end in zip(starts, [*starts[1:], len(growth)], strict=True):
            past = whole.copy()
            past[start or window :] = False
            if past.sum() < 3 * x.shape[1]:
                continue
            beta = np.linalg.lstsq(x[past], growth[past, j], rcond=None)[0]
            rows = np.arange(start, end)[whole[start:end]]
            residual[rows, j] = growth[rows, j] - x[rows] @ beta
    return residual


def _terms(r: FloatColumn) -> Iterator[FloatColumn]:
    """A return as it is, its falls, and both a step late."""
    late = np.concatenate([[nan], r[:-1]])
    for each in (r, late):
        yield each
        yield np.minimum(each, 0.0)


def _known_scale(residual: FloatMatrix, fade: float) -> FloatMatrix:
    """Deviation of each series as it was known the step before."""
    scale = np.full_like(residual, nan)
    square = np.zeros(residual.shape[1])
    weight = np.zeros(residual.shape[1])
    slow = fade**0.25  # volatility is told more surely over a longer time
    for t, row in enumerate(residual):
        known = (weight > 0.0) & (square > 0.0)
        scale[t, known] = np.sqrt(square[known] / weight[known])
        seen = ~np.isnan(row)
        square[seen] = slow * square[seen] + row[seen] ** 2
        weight[seen] = slow * weight[seen] + 1.0
    return scale


@dataclass(frozen=True, slots=True)
class Rule:
    """How far correlations shift above and below a threshold of the state."""

    threshold: float = nan
    high: float = 0.0
    low: float = 0.0

    @property
    def used(self) -> bool:
        """Whether the state decides anything."""
        return not isnan(self.threshold)

    def shifts(self, state: FloatColumn) -> FloatColumn:
        """The shift of every step; none where there is no state."""
        if not self.used:
            return np.zeros(len(state))
        shift = np.where(state > self.threshold, self.high, self.low)
        return np.where(np.isnan(state), 0.0, shift)


@dataclass(frozen=True, eq=False)
class Walk:
    """Forecasts of every model over the steps that judge them; the last row is yet to come."""

    losses: FloatColumn  # (steps,)
    var: dict[str, FloatColumn]  # (steps + 1,) by model
    es: dict[str, FloatColumn]
    deviation: dict[str, FloatColumn]  # of the portfolio
    centre: FloatColumn  # (steps + 1,) expected loss
    state: FloatColumn  # (steps + 1,) of the step before
    rules: tuple[Rule, ...]  # by refit, of the forecaster given tandem
    start: int  # row of the first


def walk(
    returns: FloatMatrix,
    share: FloatColumn,
    state: FloatColumn,
    tail: float,
    window: int,
    every: int,
) -> Walk:
    """Forecast every step after the first `window`, fitting again after `every` steps.

    `share` is the portfolio; `state` what was known at the end of each step.
    """
    before = np.concatenate([[nan], state])  # known the step before; one row ahead
    long_ago = np.concatenate([np.full(window // 2, nan), before[: -(window // 2)]])
    given = {PLAIN: np.full(len(before), nan), TANDEM: before, PLACEBO: long_ago}
    var, es, deviation = ({name: np.full(len(before), nan) for name in given} for _ in range(3))
    centre, rules = np.full(len(before), nan), []
    for start in range(window, len(returns), every):
        end = min(start + every, len(returns))
        last = end + (end == len(returns))
        made = _Block.of(returns[:end], share, start)
        for name, states in given.items():
            rule = _rule(made.logs, states[:start])
            if name == TANDEM:
                rules.append(rule)
            spread = made.deviation(rule.shifts(states[: end + 1]))
            both = made.tails(spread, start, tail)
            for column, found in zip((var, es, deviation), (*both, spread), strict=True):
                column[name][start:last] = found[start:last]
        centre[start:last] = made.centre
    losses = -(returns @ share)
    var, es, deviation = (
        {name: column[window:] for name, column in each.items()} for each in (var, es, deviation)
    )
    rest = (centre[window:], before[window:], tuple(rules), window)
    return Walk(losses[window:], var, es, deviation, *rest)


@dataclass(frozen=True, eq=False)
class _Block:
    """One fit to the past, run on over the block that follows it and the step after."""

    losses: FloatColumn  # (rows,)
    centre: float  # expected loss
    plain: FloatColumn  # (rows + 1,) variance of the portfolio under cDCC
    tight: FloatColumn  # (rows + 1,) were all correlations 1
    loose: FloatColumn  # (rows + 1,) were they 0
    logs: FloatMatrix  # (past rows, shifts) log-likelihood of each shift

    @classmethod
    def of(cls, returns: FloatMatrix, share: FloatColumn, start: int) -> _Block:
        mean = returns[:start].mean(axis=0)
        fit = dcc(returns[:start] - mean, mean=False)
        z, volatility = _run_on(fit, returns[start:] - mean)
        paths = replace(fit, z=frozen(z)).path(0, len(z) + 1)
        exposed = volatility * share
        return cls(
            losses=-(returns @ share),
            centre=-float(mean @ share),
            plain=np.einsum("ti,tij,tj->t", exposed, paths, exposed),
            tight=exposed.sum(axis=1) ** 2,
            loose=(exposed**2).sum(axis=1),
            logs=_likelihoods(paths[:start], z[:start]),
        )

    def deviation(self, shifts: FloatColumn) -> FloatColumn:
        """(rows + 1,) Deviation of the portfolio were its correlations shifted."""
        towards = np.where(shifts >= 0.0, self.tight, self.loose)
        variance = (1.0 - np.abs(shifts)) * self.plain + np.abs(shifts) * towards
        return np.asarray(np.sqrt(np.maximum(variance, 1e-300)))

    def tails(
        self, deviation: FloatColumn, start: int, tail: float
    ) -> tuple[FloatColumn, FloatColumn]:
        """Value at risk and expected shortfall of every row, tails as they were up to `start`."""
        past = np.sort((self.losses[:start] - self.centre) / deviation[:start])
        beyond = past[-max(ceil(tail * start), 1) :]
        var, es = self.centre + deviation * beyond[0], self.centre + deviation * beyond.mean()
        least = 1e-9 * deviation  # a loss: a trend may outweigh the tail, and no score has that
        return np.maximum(var, least), np.maximum(es, least)


def _run_on(fit: DccFit, later: FloatMatrix) -> tuple[FloatMatrix, FloatMatrix]:
    """Standardised returns to the end, and volatilities to the step after, by the fit as it is.

    `later` is what comes after the fit, less the mean that the fit was made without.
    """
    omega, alpha, gamma, beta = (
        np.array([getattr(margin, name) for margin in fit.margins])
        for name in ("omega", "alpha", "gamma", "beta")
    )
    variance, new = [fit.next_volatility**2], []
    for row in later:
        new.append(row / np.sqrt(variance[-1]))
        variance.append(omega + (alpha + gamma * (row < 0.0)) * row**2 + beta * variance[-1])
    ahead = np.sqrt(np.array(variance))
    z = np.vstack([fit.z, *new]) if new else np.array(fit.z)
    return z, np.vstack([fit.volatility, ahead])


def _likelihoods(paths: FloatMatrix, z: FloatMatrix) -> FloatMatrix:
    """(rows, shifts) Gaussian log-likelihood of each row were its correlations shifted."""
    n = z.shape[1]
    tight, loose = np.ones((n, n)), np.eye(n)
    found = np.empty((len(z), len(_SHIFTS)))
    for k, shift in enumerate(_SHIFTS):
        towards = tight if shift > 0.0 else loose
        moved = (1.0 - abs(shift)) * paths + abs(shift) * towards
        sign, logdet = np.linalg.slogdet(moved)
        solved = np.linalg.solve(moved, z[:, :, None])[:, :, 0]
        logs = -0.5 * (logdet + (z * solved).sum(axis=1))
        found[:, k] = np.where(sign > 0.0, logs, -np.inf)
    return found


def _rule(logs: FloatMatrix, state: FloatColumn) -> Rule:
    """The best threshold and shifts over the past, if the state earns its keep there."""
    seen = ~np.isnan(state)
    if seen.sum() < LEAST_WINDOW // 2:
        return Rule()
    logs, state = logs[seen], state[seen]
    bar = float(logs.sum(axis=0).max()) + float(np.log(len(logs)))
    best = Rule()
    for threshold in np.quantile(state, _PARTS):
        above: BoolColumn = state > threshold
        up, down = logs[above].sum(axis=0), logs[~above].sum(axis=0)
        both = np.where(np.tri(len(_SHIFTS), k=-1) > 0.0, up[:, None] + down[None, :], -np.inf)
        high, low = np.unravel_index(int(np.argmax(both)), both.shape)
        if both[high, low] > bar:
            bar = float(both[high, low])
            best = Rule(float(threshold), _SHIFTS[high], _SHIFTS[low])
    return best
