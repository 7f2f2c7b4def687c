"""Panels of leverage that move together for known reasons, or for none but prices.

    growth_t   = cycle_t - cycle_(t-1) + response_t + residual_t + events_t
    response_t = up * max(r_t, 0) + down * min(r_t, 0) + sum_l lags[l] * r_(t-1-l)
    residual_t = noise * scale_t * (correlated standard normals)
    scale_t    = sqrt((1 + vol_slope * (r_(t-1) / sd(r))^2) / (1 + vol_slope))

growth is that of log leverage and r the price return that the node answers to. With correlation 0
the nodes share nothing but prices: a null world, however crooked the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatColumn, FloatMatrix, KeyColumn, Panel
from undertow.state.arrays import frozen
from undertow.worlds.seeds import require_known, require_step, require_within, stream
from undertow.worlds.sharing import Attribution, correlated, correlation_of
from undertow.worlds.truths import (
    LeverageTruth,
    TurningPoint,
    UnwindingTruth,
)


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
    peak. With `noise_ratio`, the residual's random walk over a mean phase is that share of the
    amplitude. `stagger` shifts series by up to that many steps either way.
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
    """All that may move leverage beyond prices; the default is a null world of plain response."""

    correlation: float | FloatMatrix | Attribution = 0.0
    noise: float = 0.004  # standard deviation of the residual, a step
    response: Response = field(default_factory=Response)
    cycle: Cycle | None = None
    unwindings: tuple[Unwinding, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a residual without variance."""
        require_within("tandem.noise", self.noise, 0.0, 1.0, open_low=True)

    @classmethod
    def null(cls) -> Tandem:
        """Only prices co-move; leverage answers them late, kinked and with moving volatility."""
        return cls(correlation=0.0, response=Response.crooked())


def leverage_panel(
    seed: int,
    name: str,
    *,
    nodes: Sequence[str],
    drivers: FloatMatrix,  # (steps, nodes)
    ts: KeyColumn,
    tandem: Tandem,
) -> tuple[Panel, LeverageTruth]:
    """Leverage of `nodes` over time, each answering to its column of `drivers`.

    Raises
    ------
    StateError
        When shapes differ, a correlation is none, or a date lies outside the panel.
    """
    labels, steps = tuple(nodes), len(ts)
    if drivers.shape != (steps, len(labels)):
        raise StateError(
            f"drivers are {drivers.shape}; {steps} instants and {len(labels)} nodes need "
            f"{(steps, len(labels))}"
        )
    correlation, attribution = correlation_of(seed, name, tandem.correlation, len(labels))
    cycle, points = _cycle(seed, name, tandem.cycle, labels, ts)
    noise = _noise(tandem)
    draws = stream(seed, f"residuals of {name}").standard_normal((steps, len(labels)))
    common = stream(seed, f"common factor of {name}").standard_normal((steps, 1))
    residual = noise * _volatility(drivers, tandem.response) * correlated(
        draws, common, tandem.correlation, correlation
    )  # fmt: skip
    response = _answer(drivers, tandem.response)
    events, unwindings = _events(seed, name, tandem.unwindings, labels, ts, noise)
    drift = np.diff(cycle, axis=0, prepend=cycle[:1])
    for part in (response, residual):
        part[0] = 0.0
    start = np.log(stream(seed, f"level of {name}").uniform(2.0, 6.0, len(labels)))
    level = start + np.cumsum(drift + response + residual + events, axis=0)
    panel = Panel.from_arrays(name, "1", ts, labels, np.exp(level))
    truth = LeverageTruth(
        nodes=labels,
        noise=noise,
        correlation=frozen(correlation),
        up=tandem.response.up,
        down=tandem.response.down,
        lags=tandem.response.lags,
        vol_slope=tandem.response.vol_slope,
        drivers=frozen(drivers),
        cycle=frozen(cycle),
        response=frozen(response),
        residual=frozen(residual),
        events=frozen(events),
        turning_points=points,
        unwindings=unwindings,
        attribution=attribution,
    )
    return panel, truth


def _noise(tandem: Tandem) -> float:
    cycle = tandem.cycle
    if cycle is None or cycle.noise_ratio is None:
        return tandem.noise
    return cycle.noise_ratio * cycle.amplitude / sqrt(0.5 * (cycle.build_up + cycle.unwind))


def _volatility(drivers: FloatMatrix, response: Response) -> FloatMatrix:
    before = np.concatenate([np.zeros_like(drivers[:1]), drivers[:-1]])
    spread = np.maximum(np.sqrt((drivers**2).mean(axis=0)), 1e-300)
    slope = response.vol_slope
    scale: FloatMatrix = np.sqrt((1.0 + slope * (before / spread) ** 2) / (1.0 + slope))
    return scale


def _answer(drivers: FloatMatrix, response: Response) -> FloatMatrix:
    answer = response.up * np.maximum(drivers, 0.0) + response.down * np.minimum(drivers, 0.0)
    for lag, weight in enumerate(response.lags, start=1):
        answer[lag:] += weight * drivers[:-lag]
    return answer


def _cycle(
    seed: int, name: str, cycle: Cycle | None, labels: tuple[str, ...], ts: KeyColumn
) -> tuple[FloatMatrix, tuple[TurningPoint, ...]]:
    """The noiseless path of log leverage, and every turn inside the panel."""
    steps = len(ts)
    path = np.zeros((steps, len(labels)))
    if cycle is None:
        return path, ()
    require_step("cycle.first_trough", cycle.first_trough, steps)
    spread = np.rint(np.linspace(-cycle.stagger, cycle.stagger, len(labels))).astype(np.int64)
    shift = stream(seed, f"stagger of {name}").permutation(spread)
    period = cycle.build_up + cycle.unwind
    points: list[TurningPoint] = []
    for k, label in enumerate(labels):
        phase = (np.arange(steps) - cycle.first_trough - shift[k]) % period
        rising = phase < cycle.build_up
        angle = np.where(rising, phase / cycle.build_up, (phase - cycle.build_up) / cycle.unwind)
        path[:, k] = 0.5 * cycle.amplitude * np.where(rising, -1.0, 1.0) * np.cos(np.pi * angle)
        for step in np.flatnonzero((phase == 0) | (phase == cycle.build_up)):
            if 0 < step < steps - 1:
                kind = "trough" if phase[step] == 0 else "peak"
                points.append(TurningPoint(label, kind, int(step), int(ts[step])))
    return path, tuple(points)


def _events(
    seed: int,
    name: str,
    unwindings: tuple[Unwinding, ...],
    labels: tuple[str, ...],
    ts: KeyColumn,
    noise: float,
) -> tuple[FloatMatrix, tuple[UnwindingTruth, ...]]:
    events = np.zeros((len(ts), len(labels)))
    truths = []
    for number, each in enumerate(unwindings):
        require_step("unwinding.step", each.step, len(ts))
        require_step("the last step of an unwinding", each.step + each.length - 1, len(ts))
        hit = _hit(seed, f"unwinding {number} of {name}", each, labels)
        events[each.step : each.step + each.length, hit] -= each.strength * noise
        truths.append(
            UnwindingTruth(
                step=each.step,
                ts=int(ts[each.step]),
                length=each.length,
                nodes=tuple(labels[k] for k in hit),
                strength=each.strength,
            )
        )
    return events, tuple(truths)


def _hit(seed: int, part: str, each: Unwinding, labels: tuple[str, ...]) -> FloatColumn:
    if each.nodes is None:
        count = max(1, round(each.share * len(labels)))
        chosen: FloatColumn = np.sort(stream(seed, part).permutation(len(labels))[:count])
        return chosen
    for node in each.nodes:
        require_known("node", node, labels)
    return np.sort(np.array([labels.index(node) for node in each.nodes]))
