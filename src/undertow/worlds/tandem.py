"""Panels of leverage that move together for known reasons, or for none but prices.

    growth_t    = cycle_t - cycle_(t-1) + response_t + reversion_t + residual_t + events_t
    response_t  = up * max(r_t, 0) + down * min(r_t, 0) + sum_l lags[l] * r_(t-1-l)
    reversion_t = -(1 - phi) * gap_(t-1) - kink, with phi = 2 ** (-1 / half_life)
    residual_t  = noise * scale_t * (correlated standard normals)
    scale_t     = sqrt((1 + vol_slope * (r_(t-1) / sd(r))^2) / (1 + vol_slope))

growth is that of log leverage, r the price return that the node answers to, gap what of log
leverage is neither its start nor its cycle, kink = (up - down) / 2 * mean(|r|) what a kinked
response adds a step on average. With correlation 0 the nodes share nothing but prices: a null
world, however crooked the response.

The level is an anchor times exp(amplitude * sum of growth), and every component in the truth is
already times `amplitude`, a constant of each node. It is 1 but for a node under a floor: assets
over equity cannot fall below 1, so a node that only lends takes as much of everything, up to the
whole, as leaves a tenth of its way to 1 untrodden. One constant a node leaves every correlation,
date and sign as they are. An exponent of leverage - 1 would not: growth of leverage would then
carry a weight that moves with each node's level, and be correlated less than was planted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from undertow.state import FloatMatrix
from undertow.worlds.seeds import require_within
from undertow.worlds.sharing import Attribution


@dataclass(frozen=True, slots=True)
class Response:
    """How log leverage answers to the price return of a step, and to those before it."""

    up: float = -0.6
    down: float = -0.6
    lags: tuple[float, ...] = ()
    vol_slope: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a negative variance."""
        require_within("response.vol_slope", self.vol_slope, 0.0, 100.0)

    @classmethod
    def crooked(cls) -> Response:
        """Lagged, kinked at zero and noisier after large moves: the response of null worlds."""
        return cls(up=-0.3, down=-1.1, lags=(-0.35, 0.2), vol_slope=0.5)


@dataclass(frozen=True, slots=True)
class Cycle:
    """Build-up from trough to peak, unwind from peak to trough, over and over.

    The path is a half cosine between turning points, `amplitude` in log leverage from trough to
    peak. With `noise_ratio`, the residual summed over a mean phase is that share of the amplitude.
    `stagger` shifts series by up to that many steps either way.
    """

    first_trough: int
    build_up: int
    unwind: int
    amplitude: float = 0.7
    stagger: int = 0
    noise_ratio: float | None = None

    def __post_init__(self) -> None:
        """Refuse phases that are no phases."""
        require_within("cycle.build_up", self.build_up, 2)
        require_within("cycle.unwind", self.unwind, 2)
        require_within("cycle.amplitude", self.amplitude, 0.0, 10.0, open_low=True)
        require_within("cycle.stagger", self.stagger, 0, self.build_up + self.unwind)
        if self.noise_ratio is not None:
            require_within("cycle.noise_ratio", self.noise_ratio, 0.0, 100.0)


@dataclass(frozen=True, slots=True)
class Unwinding:
    """A date at which `nodes`, or a share of them, delever by `strength` residual deviations."""

    step: int
    strength: float = 4.0
    share: float = 0.6
    nodes: tuple[str, ...] | None = None
    length: int = 1

    def __post_init__(self) -> None:
        """Refuse an unwinding of nobody."""
        require_within("unwinding.share", self.share, 0.0, 1.0, open_low=True)
        require_within("unwinding.length", self.length, 1)


@dataclass(frozen=True, slots=True)
class Tandem:
    """All that may move leverage beyond prices; the default is a null world of plain response.

    `half_life` keeps the level from walking off. Its pull is a share of about 0.35 / half_life of
    the variance of growth, and leaves an autocorrelation of that size there: 0.00035 as it is. A
    correlation of 0.5 of what is left once prices are taken out reads 0.001 less for it, a tenth of
    a standard error over 5,000 steps. An unwinding wears off at that pace too; a cycle does not.
    """

    correlation: float | FloatMatrix | Attribution = 0.0
    noise: float = 0.004  # standard deviation of the residual, a step
    response: Response = field(default_factory=Response)
    cycle: Cycle | None = None
    unwindings: tuple[Unwinding, ...] = ()
    half_life: float = 1_000.0  # in steps, of what is neither anchor nor cycle; inf: for ever

    def __post_init__(self) -> None:
        """Refuse a residual without variance, and a level that jumps back."""
        require_within("tandem.noise", self.noise, 0.0, 1.0, open_low=True)
        require_within("tandem.half_life", self.half_life, 1.0)

    @classmethod
    def null(cls) -> Tandem:
        """Only prices co-move; leverage answers them late, kinked and with moving volatility."""
        return cls(correlation=0.0, response=Response.crooked())
