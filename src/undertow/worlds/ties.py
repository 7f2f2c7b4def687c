"""Prices that are tied to another, and come loose at known dates.

The log basis b of a tied price over what it follows (a perp over spot, a wrapped coin over its
reference) is an Ornstein-Uhlenbeck process seen step by step:

    b_t = mean + phi * (b_(t-1) - mean) + noise_t * z_t + jump_t - (1 - beta_t) * r_t

with phi = 2 ** (-1 / half_life). An episode adds a jump at its date, after which b reverts with the
same half-life. While it lasts the tied price answers a return r of its reference with beta, and
noise_t may be larger: both loosen the correlation of the two returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.state import FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.worlds.seeds import require_known, require_step, require_within, stream
from undertow.worlds.truths import BasisTruth, EpisodeTruth

FUNDING_CLAMP, FUNDING_CAP = 5e-4, 0.02
FUNDING_INTERVAL_US = 8 * 3_600_000_000  # the interval that clamp and cap speak of


@dataclass(frozen=True, slots=True)
class Episode:
    """A spell of decoupling: the basis jumps by `size` at `step`.

    For `length` steps `beta` holds, and shocks have the standard deviation `noise` where one is
    given.
    """

    series: str
    step: int
    size: float = 0.03
    length: int = 24
    beta: float = 1.0
    noise: float | None = None

    def __post_init__(self) -> None:
        """Refuse a spell without length or a jump without bounds."""
        require_within("episode.size", self.size, -0.9, 0.9)
        require_within("episode.length", self.length, 1)
        require_within("episode.beta", self.beta, -2.0, 2.0)
        if self.noise is not None:
            require_within("episode.noise", self.noise, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Ties:
    """How fast tied prices come back, how much they wander, and when they come loose."""

    half_life: float = 12.0  # in steps
    noise: float = 1.5e-4  # standard deviation of a step's shock to the log basis
    mean: float = 0.0
    episodes: tuple[Episode, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a basis that does not revert."""
        require_within("ties.half_life", self.half_life, 0.0, 1e9, open_low=True)
        require_within("ties.noise", self.noise, 0.0, 1.0)
        require_within("ties.mean", self.mean, -0.5, 0.5)


def simulate_basis(
    seed: int,
    series: tuple[str, ...],
    reference_returns: FloatMatrix,  # (steps, series)
    ts: KeyColumn,
    ties: Ties,
) -> BasisTruth:
    """Log basis of every series over what it follows, with the spells that were planted."""
    steps = len(ts)
    jump = np.zeros((steps, len(series)))
    beta = np.ones((steps, len(series)))
    noise = np.full((steps, len(series)), ties.noise)
    episodes = []
    for each in ties.episodes:
        require_known("tied series", each.series, series)
        require_step("episode.step", each.step, steps)
        require_step("the last step of an episode", each.step + each.length - 1, steps)
        k, end = series.index(each.series), each.step + each.length
        jump[each.step, k] += each.size
        beta[each.step : end, k] = each.beta
        loose = ties.noise if each.noise is None else each.noise
        noise[each.step : end, k] = loose
        at = int(ts[each.step])
        episodes.append(EpisodeTruth(each.series, each.step, at, end, each.size, each.beta, loose))
    phi = 2.0 ** (-1.0 / ties.half_life)
    draws = np.stack(
        [stream(seed, f"basis path of {key}").standard_normal(steps) for key in series], axis=1
    )
    push = noise * draws + jump - (1.0 - beta) * reference_returns
    basis = np.empty_like(push)
    apart = np.zeros(len(series))
    for t in range(steps):
        apart = phi * apart + push[t]
        basis[t] = ties.mean + apart
    return BasisTruth(
        series=series,
        half_life=ties.half_life,
        phi=phi,
        mean=ties.mean,
        noise=ties.noise,
        basis=frozen(basis),
        beta=frozen(beta),
        episodes=tuple(episodes),
        funding_clamp=FUNDING_CLAMP,
        funding_cap=FUNDING_CAP,
        funding_interval_us=FUNDING_INTERVAL_US,
    )
