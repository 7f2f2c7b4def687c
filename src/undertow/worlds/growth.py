"""Growth of leverage, made part by part as `undertow.worlds.tandem` says, and its running sum."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatColumn, FloatMatrix, KeyColumn, Panel
from undertow.state.arrays import frozen
from undertow.worlds.seeds import require_known, require_step, stream
from undertow.worlds.sharing import correlated, correlation_of
from undertow.worlds.tandem import Cycle, Response, Tandem, Unwinding
from undertow.worlds.truths import LeverageTruth, TurningPoint, UnwindingTruth

_TRODDEN = 0.9  # of the way from a level down to its floor, in logs, at most


def leverage_panel(
    seed: int,
    name: str,
    *,
    nodes: Sequence[str],
    drivers: FloatMatrix,  # (steps, nodes)
    ts: KeyColumn,
    tandem: Tandem,
    last: FloatColumn | None = None,  # (nodes,), NaN where unknown
    floor: FloatColumn | float = 0.0,  # (nodes,)
) -> tuple[Panel, LeverageTruth]:
    """Leverage of `nodes` over time, each answering to its column of `drivers`.

    A node ends at its `last`, or starts between 2 and 6 where that is unknown, and stays above its
    `floor`.

    Raises
    ------
    StateError
        When shapes differ, a correlation is none, a date lies outside the panel, or a node is to
        end below its floor.
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
    for part in (response, residual):
        part[0] = 0.0
    kink = 0.5 * (tandem.response.up - tandem.response.down) * np.abs(drivers).mean(axis=0)
    phi = 2.0 ** (-1.0 / tandem.half_life)
    gap, reversion = _reverting(response + residual + events, kink, phi)
    first = stream(seed, f"level of {name}").uniform(2.0, 6.0, len(labels))
    level, amplitude = _above(
        labels, cycle - cycle[0] + gap, first, last, np.broadcast_to(floor, first.shape)
    )
    panel = Panel.from_arrays(name, "1", ts, labels, level)
    truth = LeverageTruth(
        nodes=labels,
        noise=noise,
        correlation=frozen(correlation),
        up=tandem.response.up,
        down=tandem.response.down,
        lags=tandem.response.lags,
        vol_slope=tandem.response.vol_slope,
        half_life=tandem.half_life,
        amplitude=frozen(amplitude),
        drivers=frozen(drivers),
        cycle=frozen(amplitude * cycle),
        response=frozen(amplitude * response),
        reversion=frozen(amplitude * reversion),
        residual=frozen(amplitude * residual),
        events=frozen(amplitude * events),
        turning_points=points,
        unwindings=unwindings,
        attribution=attribution,
    )
    return panel, truth


def _reverting(push: FloatMatrix, kink: FloatColumn, phi: float) -> tuple[FloatMatrix, FloatMatrix]:
    """gap_t = phi * gap_(t-1) - kink + push_t from zero on, and what of each step is no push."""
    gap = np.zeros_like(push)
    reversion = np.zeros_like(push)
    gap[0] = push[0]
    for t in range(1, len(push)):
        reversion[t] = -(1.0 - phi) * gap[t - 1] - kink
        gap[t] = gap[t - 1] + reversion[t] + push[t]
    return gap, reversion


def _above(
    labels: tuple[str, ...],
    path: FloatMatrix,
    first: FloatColumn,
    last: FloatColumn | None,
    floor: FloatColumn,
) -> tuple[FloatMatrix, FloatColumn]:
    """Levels along `path`, a log, and the amplitude at which each node stays above its floor."""
    known = np.zeros(len(first), dtype=np.bool_) if last is None else ~np.isnan(last)
    anchor = first if last is None else np.where(known, last, first)
    path = path - np.where(known, path[-1], path[0])
    amplitude = np.ones(len(first))
    for k in np.flatnonzero(floor > 0.0):
        if anchor[k] < floor[k]:
            raise StateError(
                f"the leverage of {labels[k]} was to be {anchor[k]:g}; it must be at least "
                f"{floor[k]:g}",
                hint="assets over equity cannot lie below 1",
            )
        deepest, room = -float(path[:, k].min()), _TRODDEN * np.log(anchor[k] / floor[k])
        if deepest > room:
            amplitude[k] = room / deepest
    level: FloatMatrix = anchor * np.exp(amplitude * path)
    level[-1, known] = anchor[known]
    return level, amplitude


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
