"""How a benchmark is declared, timed and reported."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """What one benchmark found; `holds` is whether its goal is met, None where there is none."""

    name: str
    size: Mapping[str, int]
    figures: Mapping[str, float]
    goal: str = ""
    holds: bool | None = None
    baseline: Mapping[str, float] = field(default_factory=dict)
    ratio: Mapping[str, float] = field(default_factory=dict)


Benchmark = Callable[[], Result]


def seconds(work: Callable[[], Any], *, runs: int = 3, warm: int = 1) -> float:
    """Median seconds of `work` over some runs after a warm-up."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numba
    import numpy
    import polars

    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "polars": polars.__version__,
        "numba": numba.__version__,
    }


def run(benchmarks: Mapping[str, Benchmark], wanted: list[str], *, as_json: bool) -> int:
    """Run the benchmarks called `wanted`, or all, and print each; 1 if one misses its goal."""
    unknown = [name for name in wanted if name not in benchmarks]
    if unknown:
        print(f"bench: no benchmark is called {unknown[0]!r}; there are {', '.join(benchmarks)}",
              file=sys.stderr)  # fmt: skip
        return 2
    missed = 0
    for name in wanted or benchmarks:
        result = benchmarks[name]()
        missed |= result.holds is False
        if as_json:
            print(json.dumps({**asdict(result), "machine": machine()}), flush=True)
        else:
            print(_sentence(result), flush=True)
    return missed


def _sentence(result: Result) -> str:
    verdict = {True: "holds", False: "MISSED", None: ""}[result.holds]
    lines = [f"{result.name}  ({', '.join(f'{v:,} {k}' for k, v in result.size.items())})"]
    lines += [f"    {k.replace('_', ' ')}: {v:.4g}" for k, v in result.figures.items()]
    lines += [f"    baseline {k.replace('_', ' ')}: {v:.4g}" for k, v in result.baseline.items()]
    lines += [f"    ratio {k.replace('_', ' ')}: {v:.3g}x" for k, v in result.ratio.items()]
    if result.goal:
        lines.append(f"    goal: {result.goal}  {verdict}")
    return "\n".join(lines)
