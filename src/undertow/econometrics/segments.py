"""The alternating rises and falls that explain growth best, at a price for every turn.

Growth is that of a level, one value a step, none missing. A phase is straight (its growth even) or
half a cosine (its growth half a sine), whichever explains more of the whole. Cuts are found by
dynamic programming: exactly the best for a given price, and the price is read from the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix

StepColumn = NDArray[np.int64]

_PRICE = 0.4  # of a turn, in noise variances times the log of the rows
_ODD = 0.7  # of a log length: how far phases usually are from the usual
_STRETCH = (1.0, 1.2, 1.5, 2.0, 3.0)  # of a phase that began before the data, or ends after them
_PASSES = 4  # of reading the noise from the fit and fitting again


@dataclass(frozen=True, slots=True)
class Limits:
    """What a phase may be, in steps."""

    phase: int  # shortest
    edge: int  # no turn nearer to an end
    longest: int | None = None
    usual: float | None = None  # length that is leant to, a little


class Turns(NamedTuple):
    """The turns of the best rises and falls, and how sure it is which way the last of them goes."""

    step: StepColumn
    peak: BoolColumn
    falling: float  # chance that the last phase is a fall; NaN where nothing turned


class _Best(NamedTuple):
    """The best cuts for a price of a turn."""

    net: float  # gain
    step: StepColumn
    peak: BoolColumn
    explained: FloatColumn  # growth
    lean: float  # gain of the best that end in a fall less that of the best that end in a rise


def segments(x: FloatColumn, limits: Limits) -> Turns:
    """The turns of the best alternating rises and falls, straight or curved, whichever fits.

    The gain of cuts over twice the noise is a log-likelihood, so the best cuts that end in a fall
    and the best that end in a rise stand to each other as exp(lean / (2 noise)) to 1.
    """
    growth = np.diff(x)
    noise = 0.5 * float(np.mean(np.diff(growth) ** 2))  # drift changes slowly and drops out
    gains = [_Gains.of(growth, limits, curved=curved) for curved in (False, True)]
    step = np.empty(0, dtype=np.int64)
    for _ in range(_PASSES):
        found = max((each.best(noise) for each in gains), key=lambda found: found.net)
        new, peak = found.step, found.peak
        left = growth - found.explained
        memory = float(left[1:] @ left[:-1]) / max(float(left @ left), 1e-300)
        memory = min(max(memory, 0.0), 0.8)
        noise = float(left @ left) / len(left) * (1.0 + memory) / (1.0 - memory)
        if np.array_equal(new, step):
            break
        step = new
    odds = 0.5 * found.lean / max(noise, 1e-300)
    return Turns(step, peak, 1.0 / (1.0 + exp(min(-odds, 700.0))) if len(step) else nan)


@dataclass(frozen=True, slots=True, eq=False)
class _Gains:
    """How much of the sum of squared growth one rise or fall explains, for every place of it.

    Growth of a straight phase is even, of a half cosine it is a half sine. A phase cut off by an
    end of the data is a part of a longer one.
    """

    growth: FloatColumn
    limits: Limits
    curved: bool
    inner: FloatMatrix  # (length - shortest, start): gain, negative for a fall
    head: FloatColumn  # (end,): of the phase from the beginning to there
    tail: FloatColumn  # (start,): of the phase from there to the end

    @classmethod
    def of(cls, growth: FloatColumn, limits: Limits, *, curved: bool) -> _Gains:
        rows = len(growth)
        longest = min(rows, limits.longest or rows)
        lengths = range(min(limits.phase, longest), longest + 1)
        inner = np.full((len(lengths), rows + 1), np.nan)
        size = 2 ** int(np.ceil(np.log2(2 * rows)))
        there = np.fft.rfft(growth, size)
        for k, length in enumerate(lengths):
            shape = _shape(length, 1.0, curved)
            product = np.fft.irfft(there * np.conj(np.fft.rfft(shape, size)), size)
            product = product[: rows - length + 1]
            inner[k, : rows - length + 1] = product * np.abs(product) / float(shape @ shape)
        head = _open_gains(growth, limits, curved)
        tail = _open_gains(growth[::-1], limits, curved)[::-1]
        return cls(growth, limits, curved, inner, head, tail)

    def best(self, noise: float) -> _Best:
        """Net gain, turns and the growth that they explain, where noise has that variance.

        A turn has its price, and a phase of unusual length costs (log(length / usual) / 0.7)^2
        times the noise.
        """
        rows, edge = len(self.growth), self.limits.edge
        shortest = min(self.limits.phase, rows)
        price = _PRICE * noise * log(rows)
        length = np.arange(shortest, shortest + len(self.inner))
        usual = self.limits.usual
        odd = noise * (np.log(length / usual) / _ODD) ** 2 if usual else np.zeros(len(length))
        value = np.full((2, rows + 1), -inf)  # of ending a fall (0) or a rise (1) there
        origin = np.full((2, rows + 1), -1, dtype=np.int64)
        sign = np.array([-1.0, 1.0])[:, None]
        inside = np.arange(edge, rows + 1 - edge)
        value[:, inside] = np.maximum(sign * self.head[inside], 0.0) - price
        for end in range(shortest + edge, rows + 1 - edge):
            starts = np.arange(end - shortest, max(end - shortest - len(self.inner), edge - 1), -1)
            gain = self.inner[np.arange(len(starts)), starts]
            for up in (0, 1):
                total = value[1 - up, starts] + np.maximum(gain if up else -gain, 0.0)
                total -= odd[: len(starts)]
                best = int(np.argmax(total))
                if total[best] - price > value[up, end]:
                    value[up, end], origin[up, end] = total[best] - price, starts[best]
        final = value + np.maximum(-sign * self.tail, 0.0)
        final[:, :edge] = final[:, rows + 1 - edge :] = -inf
        alone = abs(float(self.tail[0]))
        up, end = (int(k) for k in np.unravel_index(int(np.argmax(final)), final.shape))
        if final[up, end] <= alone:
            none = np.empty(0, np.int64), np.empty(0, np.bool_)
            return _Best(alone, *none, self._explained([]), nan)
        lean = float(final[1].max() - final[0].max())
        turns: list[tuple[int, bool]] = []
        net = float(final[up, end])
        while end >= 0:
            turns.append((end, bool(up)))
            up, end = 1 - up, int(origin[up, end])
        turns.reverse()
        step, peak = zip(*turns, strict=True)
        return _Best(net, np.array(step), np.array(peak), self._explained(list(step)), lean)

    def _explained(self, turns: list[int]) -> FloatColumn:
        """Growth as the phases between the turns explain it."""
        edges = [0, *turns, len(self.growth)]
        out = np.zeros(len(self.growth))
        for k, (start, end) in enumerate(pairwise(edges)):
            spell = self.growth[start:end]
            open_ = k == 0 or k == len(edges) - 2
            shapes = [
                _shape(len(spell), stretch, self.curved)[:: -1 if k else 1]
                for stretch in (_STRETCH if open_ else (1.0,))
            ]
            fits = [float(spell @ u) * u / float(u @ u) for u in shapes]
            out[start:end] = max(fits, key=lambda fit: float(fit @ fit))
        return out


def _shape(length: int, stretch: float, curved: bool) -> FloatColumn:
    """Growth along a phase, of which the last part of so many steps is seen."""
    if not curved:
        return np.ones(length)
    whole = stretch * length
    place = (np.arange(length) + 0.5 + whole - length) / whole
    shape: FloatColumn = np.sin(np.pi * place)
    return shape


def _open_gains(growth: FloatColumn, limits: Limits, curved: bool) -> FloatColumn:
    """Gain of the phase that is cut off at the beginning, by the step at which it ends.

    Of one that is too long to be a phase there is none, but for the one that never ends.
    """
    rows = len(growth)
    gains = np.zeros(rows + 1)
    longest = min(rows, limits.longest or rows)
    for end in {*range(1, longest + 1), rows}:
        for stretch in _STRETCH if curved else (1.0,):
            shape = _shape(end, stretch, curved)
            product = float(growth[:end] @ shape)
            gain = product * abs(product) / float(shape @ shape)
            if abs(gain) > abs(gains[end]):
                gains[end] = gain
    return gains
