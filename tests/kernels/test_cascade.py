"""The compiled cascade against its own source run by the interpreter, to the bit."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stress.running import Run, run_engine, shocked
from undertow import kernels
from undertow.kernels import rounds
from undertow.rules.snapshot import Snapshot
from undertow.stress.options import Deleveraging, Impact, Options
from undertow.stress.stressed import Stressed
from undertow.worlds import build_world, tiny_world

MODULES = [
    import_module(f"{kernels.__name__}.{found.name}") for found in iter_modules(kernels.__path__)
]
MINUTE = 60_000_000


@cache
def interpreted() -> SimpleNamespace:
    """`rounds` with every kernel, and every kernel that it calls, as plain Python."""
    twins: dict[str, dict[str, Any]] = {module.__name__: vars(module).copy() for module in MODULES}
    made: dict[int, Any] = {}
    for names in twins.values():
        for kernel in names.values():
            if hasattr(kernel, "py_func") and id(kernel) not in made:
                plain = kernel.py_func
                home = twins[plain.__module__]
                made[id(kernel)] = FunctionType(
                    plain.__code__, home, plain.__name__, plain.__defaults__, plain.__closure__
                )
    for names in twins.values():
        names.update({name: made[id(k)] for name, k in names.items() if id(k) in made})
    own = twins[rounds.__name__]
    return SimpleNamespace(start_over=own["start_over"], run_rounds=own["run_rounds"])


def test_the_twin_calls_no_compiled_kernel() -> None:
    reached, todo = set(), [interpreted().run_rounds]
    while todo:
        kernel = todo.pop()
        reached.add(kernel.__name__)
        for name in kernel.__code__.co_names:
            called = kernel.__globals__.get(name)
            assert not hasattr(called, "py_func"), name
            if isinstance(called, FunctionType) and called.__name__ not in reached:
                todo.append(called)
    assert {"close_pair", "close_whole", "band_share", "black76", "curve", "to_counts"} <= reached
    assert len(reached) > 60


@cache
def tiny() -> Snapshot:
    return tiny_world().snapshot()


@cache
def mixed() -> Snapshot:
    """Options, coins, pairs and perps: a small world of every kind of account."""
    return build_world(5, accounts=40, assets=6, venues=8).snapshot()


def bits(run: Run) -> dict[str, bytes]:
    """All that a run wrote."""
    columns = {
        name: getattr(run, name)
        for name in (
            "counts", "path", "acted", "ledger", "qty", "cash", "insurance", "backstop", "receipt",
            "pending",
        )
    }  # fmt: skip
    columns |= {f"log {name}": run.log[name] for name in run.log.dtype.names}
    return {name: np.ascontiguousarray(column).tobytes() for name, column in columns.items()}


def alike(stressed: Stressed, options: Options) -> Run:
    """Run both, and hold them against each other."""
    compiled = run_engine(stressed, options)
    with np.errstate(all="ignore"):
        plain = run_engine(stressed, options, kernels=interpreted())
    assert (plain.rounds, plain.settled) == (compiled.rounds, compiled.settled)
    found, expected = bits(plain), bits(compiled)
    assert [name for name in found if found[name] != expected[name]] == []
    return compiled


@pytest.mark.parametrize("model", list(Impact))
@pytest.mark.parametrize("factor", [0.4, 0.6, 0.8, 1.5, 2.5])
def test_a_hand_made_book_to_the_bit(model: Impact, factor: float) -> None:
    alike(shocked(tiny(), factor), Options(impact=model))


@pytest.mark.parametrize(
    "options",
    [
        Options(profitable=True, recovery=0.3, withdrawal=1.0),
        Options(capacity=True, deleveraging=Deleveraging.PRO_RATA),
        Options(oracles=False, deleveraging=Deleveraging.NONE, coupling=1.0),
        Options(round_us=MINUTE // 3, max_rounds=7),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 0.75, 2.0])
def test_options_to_the_bit(options: Options, factor: float) -> None:
    stressed = shocked(tiny(), factor).put("capacity_mult", slice(None), 0.1)
    stressed = stressed.put("oracle_lag_us", slice(0, None, 2), 2 * MINUTE)
    alike(stressed.put("fund_mult", slice(None), 0.1), options)


@pytest.mark.parametrize("factor", [0.55, 1.6])
def test_every_kind_of_account_to_the_bit(factor: float) -> None:
    run = alike(shocked(mixed(), factor), Options(max_rounds=3))
    assert run.acted.sum() > 10
    assert "emptied" in run.status
    assert math.isfinite(float(run.ledger.sum()))
