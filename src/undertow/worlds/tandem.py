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
from undertow.worlds.truths import (
    AttributionTruth,
    LeverageTruth,
    TurningPoint,
    UnwindingTruth,
)

_DRIVERS = ("collateral", "venue", "owner")
_DRIVER_DIMENSIONS, _DRIVER_SHAPE = 12, 0.25
_PSD_SLACK = 1e-9


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
class Attribution:
    """Correlation that comes from what nodes share: collateral, venue and owner."""

    coefficients: tuple[float, float, float] = (0.35, 0.2, 0.1)
    base: float = 0.0
    driver_correlation: float | None = None

    def __post_init__(self) -> None:
        """Refuse coefficients that add up to more than a whole correlation."""
        for name, value in zip(_DRIVERS, self.coefficients, strict=True):
            require_within(f"attribution coefficient of {name}", value, 0.0, 1.0)
        require_within("attribution.base", self.base, 0.0, 1.0)
        total = self.base + sum(self.coefficients)
        require_within("base plus coefficients of attribution", total, 0.0, 1.0)
        if self.driver_correlation is not None:
            require_within("driver_correlation", self.driver_correlation, 0.0, 0.99)


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
    correlation, attribution = _correlation(seed, name, tandem.correlation, len(labels))
    cycle, points = _cycle(seed, name, tandem.cycle, labels, ts)
    noise = _noise(tandem)
    draws = stream(seed, f"residuals of {name}").standard_normal((steps, len(labels)))
    common = stream(seed, f"common factor of {name}").standard_normal((steps, 1))
    residual = noise * _volatility(drivers, tandem.response) * _correlated(
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


def _correlation(
    seed: int, name: str, wanted: float | FloatMatrix | Attribution, size: int
) -> tuple[FloatMatrix, AttributionTruth | None]:
    if isinstance(wanted, Attribution):
        truth = _attribution(seed, name, wanted, size)
        shared = sum(
            c * driver for c, driver in zip(truth.coefficients, truth.drivers, strict=True)
        )
        matrix = wanted.base + np.asarray(shared)
        np.fill_diagonal(matrix, 1.0)
        return matrix, truth
    if isinstance(wanted, np.ndarray):
        return _require_correlation(np.asarray(wanted, dtype=np.float64), size), None
    lowest = -1.0 / (size - 1) if size > 1 else -1.0
    require_within("correlation", wanted, lowest, 1.0)
    matrix = np.full((size, size), float(wanted))
    np.fill_diagonal(matrix, 1.0)
    return matrix, None


def _require_correlation(matrix: FloatMatrix, size: int) -> FloatMatrix:
    if matrix.shape != (size, size):
        raise StateError(f"correlation is {matrix.shape}; {size} nodes need {(size, size)}")
    if not np.isfinite(matrix).all() or (matrix != matrix.T).any() or (np.diag(matrix) != 1).any():
        raise StateError("correlation must be finite and symmetric with ones on its diagonal")
    least = float(np.linalg.eigvalsh(matrix).min())
    if least < -_PSD_SLACK * size:
        raise StateError(
            f"the least eigenvalue of correlation was {least:.3g}; it must be at least 0",
            hint="a correlation matrix has to be positive semidefinite",
        )
    return matrix


def _attribution(seed: int, name: str, plan: Attribution, size: int) -> AttributionTruth:
    """Similarities of random holdings: one matrix a driver, mixed with a shared one.

    driver_m = w * shared + (1 - w) * own_m; w is such that over all pairs the drivers' mean
    correlation is the one asked for. All are cosines of vectors, so every mix is a correlation.
    """
    own = [_cosines(seed, f"{driver} shared in {name}", size) for driver in _DRIVERS]
    shared = _cosines(seed, f"all shared in {name}", size)
    weight = 0.0
    if plan.driver_correlation is not None:
        low, high = 0.0, 1.0
        for _ in range(50):
            weight = 0.5 * (low + high)
            mean = _mean_off_diagonal(_pair_correlation(_mixed(own, shared, weight)))
            low, high = (weight, high) if mean < plan.driver_correlation else (low, weight)
    drivers = _mixed(own, shared, weight)
    return AttributionTruth(
        names=_DRIVERS,
        coefficients=plan.coefficients,
        base=plan.base,
        drivers=frozen(drivers),
        driver_correlation=frozen(_pair_correlation(drivers)),
    )


def _mixed(own: list[FloatMatrix], shared: FloatMatrix, weight: float) -> FloatMatrix:
    return np.stack([weight * shared + (1.0 - weight) * each for each in own])


def _cosines(seed: int, part: str, size: int) -> FloatMatrix:
    held = stream(seed, part).standard_gamma(_DRIVER_SHAPE, (size, _DRIVER_DIMENSIONS)) + 1e-6
    unit = held / np.sqrt((held * held).sum(axis=1, keepdims=True))
    cosines: FloatMatrix = np.einsum("ik,jk->ij", unit, unit)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _pair_correlation(drivers: FloatMatrix) -> FloatMatrix:
    """Correlation of the drivers over all pairs of nodes."""
    upper = np.triu_indices(drivers.shape[1], 1)
    flat = np.stack([each[upper] for each in drivers])
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit = flat / np.maximum(np.sqrt((flat * flat).sum(axis=1, keepdims=True)), 1e-300)
    correlation: FloatMatrix = np.einsum("ik,jk->ij", unit, unit)
    return correlation


def _mean_off_diagonal(matrix: FloatMatrix) -> float:
    size = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (size * (size - 1)))


def _correlated(
    draws: FloatMatrix, common: FloatMatrix, wanted: object, correlation: FloatMatrix
) -> FloatMatrix:
    """Standard normals with a correlation: by one factor where it is equal, else by its root."""
    if isinstance(wanted, float | int) and wanted >= 0.0:
        mixed: FloatMatrix = sqrt(wanted) * common + sqrt(1.0 - wanted) * draws
        return mixed
    root = _lower_root(correlation)
    mixed = np.zeros_like(draws)
    for j in range(len(root)):  # column by column: no sum depends on threads
        mixed[:, j:] += draws[:, j : j + 1] * root[j:, j]
    return mixed


def _lower_root(matrix: FloatMatrix) -> FloatMatrix:
    """L with L @ L.T = matrix, also where the matrix is singular."""
    root = np.zeros_like(matrix)
    for j in range(len(matrix)):
        pivot = matrix[j, j] - (root[j, :j] ** 2).sum()
        if pivot <= 1e-12:
            continue
        root[j, j] = sqrt(pivot)
        below = matrix[j + 1 :, j] - (root[j + 1 :, :j] * root[j, :j]).sum(axis=1)
        root[j + 1 :, j] = below / root[j, j]
    return root


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
        for step in range(1, steps - 1):
            if phase[step] in (0, cycle.build_up):
                kind = "trough" if phase[step] == 0 else "peak"
                points.append(TurningPoint(label, kind, step, int(ts[step])))
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
