"""Correlations over time: all pairs at every step, and what few directions absorb of them."""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from bench.harness import Benchmark, Result, seconds
from undertow.econometrics.absorption import Input, absorption_path
from undertow.econometrics.moments import (
    rolling_correlation,
    rolling_correlation_blocks,
    rolling_mean_correlation,
)

SEED = 1
WINDOW = 250
SERIES, STEPS = 200, 20_000
PANDAS_SERIES = 20  # of the same panel: pandas holds and takes too much for all
LONG, SPARSE = 5_000, 10  # steps of the absorption ratio; the baseline does each tenth


def panel(rows: int, series: int) -> np.ndarray:
    """Returns with fat tails and one factor whose share comes and goes."""
    rng = np.random.default_rng(SEED)
    loud = 0.5 + 0.4 * np.sin(np.arange(rows) / 300.0)[:, None]
    return loud * rng.standard_normal((rows, 1)) + 0.8 * rng.standard_t(4, (rows, series))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rolling_pairs() -> Result:
    """Every pair of 200 series at 20,000 steps; pandas does 20 of the series, scaled by pairs.

    pandas works each pair out, the diagonal included, so 20 series are 210 of its pairs and 200
    are 20,100. Both answers agree to 1e-10 where both exist.
    """
    import pandas as pd

    x = panel(STEPS + WINDOW - 1, SERIES)
    few = x[:, :PANDAS_SERIES]
    ours = rolling_correlation(few, WINDOW)
    frame = pd.DataFrame(few).rolling(WINDOW).corr().to_numpy()
    theirs = frame.reshape(-1, PANDAS_SERIES, PANDAS_SERIES)[WINDOW - 1 :]
    apart = np.abs(theirs[:, ours.pairs[:, 0], ours.pairs[:, 1]] - ours.values).max()
    assert apart < 1e-10
    scaled = seconds(lambda: pd.DataFrame(few).rolling(WINDOW).corr(), warm=0) * 20_100 / 210
    whole = seconds(lambda: rolling_correlation(x, WINDOW, dtype=np.float32))
    blocks = seconds(lambda: [b.values[-1, 0] for b in rolling_correlation_blocks(x, WINDOW)])
    mean = seconds(lambda: rolling_mean_correlation(x, WINDOW))
    pairs = SERIES * (SERIES - 1) // 2
    return Result(
        "rolling_correlation",
        {"series": SERIES, "steps": STEPS, "window": WINDOW, "pairs": pairs},
        {
            "whole_float32_seconds": whole,
            "whole_float32_gib": pairs * STEPS * 4 / 2**30,
            "blocks_float64_seconds": blocks,
            "block_mib": next(rolling_correlation_blocks(x, WINDOW)).values.nbytes / 2**20,
            "mean_only_seconds": mean,
            "largest_difference_from_pandas": float(apart),
        },
        ">= 30x pandas",
        scaled >= 30.0 * max(whole, blocks),
        {"pandas_seconds_scaled": scaled},
        {"whole": scaled / whole, "blocks": scaled / blocks, "mean_only": scaled / mean},
    )


def _plain(x: np.ndarray, top: int) -> tuple[float, np.ndarray]:
    """Seconds for all steps, and the ratios of each tenth."""
    ratios = []
    began = time.perf_counter()
    for step in range(0, LONG, SPARSE):
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(x[step : step + WINDOW], rowvar=False))
        ratios.append(eigenvalues[-top:].sum() / eigenvalues.sum())
    return (time.perf_counter() - began) * SPARSE, np.array(ratios)


def _absorption(series: int) -> Result:
    x = panel(LONG + WINDOW - 1, series)
    top = int(0.2 * series + 0.5)
    taken = {
        threads: seconds(partial(absorption_path, x, WINDOW, of=Input.CORRELATION, threads=threads))
        for threads in sorted({1, _cores()})
    }
    found = absorption_path(x, WINDOW, of=Input.CORRELATION).ratio
    many, plain = _plain(x, top)
    with threadpool_limits(1):  # many threads on small matrices mostly wait for each other
        one, _ = _plain(x, top)
    baseline = min(one, many)
    error = float(np.abs(found[::SPARSE] - plain).max())
    best = min(taken.values())
    return Result(
        f"absorption_path_{series}",
        {"series": series, "steps": LONG, "window": WINDOW, "eigenvalues": top},
        {f"seconds_{threads}_threads": spent for threads, spent in taken.items()}
        | {"microseconds_a_step": best / LONG * 1e6, "largest_error": error},
        ">= 5x corrcoef and eigvalsh, error <= 1e-6",
        baseline >= 5.0 * best and error <= 1e-6,
        {"corrcoef_and_eigvalsh_seconds": baseline},
        {f"{threads}_threads": baseline / spent for threads, spent in taken.items()},
    )


BENCHMARKS: dict[str, Benchmark] = {
    "rolling_correlation": rolling_pairs,
    "absorption_path_50": lambda: _absorption(50),
    "absorption_path_100": lambda: _absorption(100),
}
