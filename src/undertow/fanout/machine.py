"""The machine's CPUs and the process's environment, as workers should find them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from undertow.errors import SettingsError

THREAD_LIMITS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def usable_cpus() -> int:
    """CPUs this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limits(workers: int, cpus: int) -> dict[str, str]:
    """Settings under which `workers` together use no more threads than there are CPUs."""
    return dict.fromkeys(THREAD_LIMITS, str(max(1, cpus // max(1, workers))))


@contextmanager
def environment(wanted: dict[str, str], also: Sequence[str] = ()) -> Iterator[None]:
    """Set variables that nobody has set, for a while; `also` are only put back."""
    before = {name: os.environ.get(name) for name in (*wanted, *also)}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def checked_workers(workers: object) -> None:
    """Refuse a count of workers that is no count."""
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise SettingsError(f"workers was {workers!r}; it is a whole number, 1 or more")
