"""What dating reads of cycles whose clarity is known: the constants that `clarity` takes out."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from undertow.econometrics.cycles import Windows, clarity, turning_points

CYCLES, RECORDS = 6, 40


def cycle(
    rng: np.random.Generator, phase: int, amplitude: float, *, half_cosine: bool
) -> np.ndarray:
    """A level of whole cycles, noise of 1 a step; `amplitude` of a phase over its summed noise."""
    at = np.arange(2 * phase * CYCLES) / phase + rng.uniform(0.0, 2.0)
    path = 0.5 - 0.5 * np.cos(np.pi * at) if half_cosine else np.abs((at + 1.0) % 2.0 - 1.0)
    planted: np.ndarray = amplitude * phase**0.5 * path
    return planted + np.cumsum(rng.standard_normal(len(at)))


@pytest.mark.slow
@pytest.mark.parametrize("half_cosine", [False, True], ids=["straight", "half cosine"])
@pytest.mark.parametrize("phase", [20, 40])
def test_what_is_read_of_a_planted_amplitude(phase: int, half_cosine: bool) -> None:
    rng, shape = np.random.default_rng(12), "half cosine" if half_cosine else "straight"
    for amplitude in (0.0, 1.0, 2.0, 3.0, 4.5, 6.0):
        read, spread, held = [], [], []
        for _ in range(RECORDS):
            found = turning_points(
                cycle(rng, phase, amplitude, half_cosine=half_cosine), Windows.expecting(2 * phase)
            )
            told = clarity(found)
            if np.isfinite(told.value):
                read.append(found.clarity * told.length**0.5)
                spread.append(((1.0 + amplitude**2 / 40.0) / told.phases) ** 0.5)
                held.append(told.low <= amplitude / told.length**0.5 <= told.high)
        expected = (amplitude**3 + 2.2**3) ** (1.0 / 3.0)
        sys.stdout.write(
            f"\n{shape} {phase}, planted {amplitude}: read {np.mean(read):.2f} (rule "
            f"{expected:.2f}), deviation {np.std(read):.2f} (rule {np.mean(spread):.2f}), "
            f"held {np.mean(held):.2f}"
        )
        assert abs(np.mean(read) / expected - 1.0) < 0.15
