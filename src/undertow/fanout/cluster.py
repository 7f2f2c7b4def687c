"""Workers on a Ray cluster, and the connection to it; the only `import ray`."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from undertow.errors import SettingsError, UndertowError, WorkerError
from undertow.fanout.answers import Answer, called, death, tried, unsendable
from undertow.fanout.executor import Executor, Factory, Members
from undertow.fanout.machine import checked_workers, environment, limits, usable_cpus

KNOCK_SECONDS = 5.0  # how long an address may take to answer
CHANGED = ("RAY_AUTH_MODE", "RAY_CLIENT_MODE", "PYTHONBREAKPOINT")  # variables that Ray sets
DEATH_NOTICE = "A worker died or was killed"  # Ray prints it among our data; our error says it
PLACING_SECONDS = 120.0  # how long a cluster may take to find room for all workers


@dataclass(frozen=True, slots=True)
class Ray(Executor):
    """Workers of a Ray cluster, on this machine or on many.

    `address` is "local" (start a cluster here for as long as it is needed), "host:port" of a
    running one, or "auto": a running one if `RAY_ADDRESS` or `ray start` on this machine names it,
    else local. What was started here is stopped here; a cluster that ran before runs on.
    """

    address: str = "auto"
    workers: int | None = None  # all CPUs of the cluster

    def __post_init__(self) -> None:
        if self.workers is not None:
            checked_workers(self.workers)
        if self.address not in ("auto", "local"):
            _host_and_port(self.address)

    def hire(self, factory: Factory, parts: Sequence[Any], shared: Any) -> Members:
        """One actor for each part."""
        return _OnRay(self, factory, parts, shared)

    def width(self) -> int:
        """How many workers a map uses."""
        if self.workers is not None:
            return self.workers
        with self.running() as ray:
            return _cluster_cpus(ray)

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Keep the cluster, or the connection to it, up for a block of several calls."""
        ray = _CONNECTION.hold(self)
        try:
            yield ray
        finally:
            _CONNECTION.release()


class _OnRay:
    """Members that are Ray actors, spread over the cluster's machines."""

    def __init__(self, where: Ray, factory: Factory, parts: Sequence[Any], shared: Any) -> None:
        self._ray = ray = _CONNECTION.hold(where)
        self._actors: list[Any] = []
        self._owing: dict[Any, int] = {}
        self._open = True
        try:
            try:
                order = ray.put((factory, shared))
                own = [ray.put(part) for part in parts]
            except TypeError as exc:
                raise unsendable("the function, or what its calls share,", exc) from exc
            self._place(len(own))
            for member, part in enumerate(own):
                self._owing[self._actors[member].build.remote([order, part])] = member
        except BaseException:
            self.close()
            raise

    def _place(self, size: int) -> None:
        ray = self._ray
        settings = limits(size, _cluster_cpus(ray))
        # An actor takes a CPU while it is placed and none while it lives: a crew larger than the
        # cluster works, more slowly, where it would otherwise wait for ever.
        kind = ray.remote(_Actor).options(max_restarts=0, scheduling_strategy="SPREAD")
        self._actors += [kind.remote(settings) for _ in range(size)]
        placed = [actor.placed.remote() for actor in self._actors]
        _, waiting = (
            ray.wait(placed, num_returns=size, timeout=PLACING_SECONDS) if size else ([], [])
        )
        if waiting:
            raise WorkerError(
                f"Ray found no room for {len(waiting)} of {size} workers "
                f"within {PLACING_SECONDS:.0f} s",
                hint="ask for fewer workers, or wait until other work on the cluster is done",
            )

    def ask(self, member: int, method: str, args: tuple[Any, ...]) -> None:
        try:
            self._owing[self._actors[member].ask.remote(method, args)] = member
        except TypeError as exc:
            raise unsendable("an item or argument", exc) from exc

    def listen(self) -> tuple[int, Answer]:
        ray = self._ray
        first = ray.wait(list(self._owing), num_returns=1)[0][0]
        member = self._owing.pop(first)
        try:
            answer: Answer = ray.get(first)
        except ray.exceptions.RayTaskError as exc:
            answer = Answer(error=unsendable("what was asked, or the answer,", exc))
        except ray.exceptions.RayError as exc:
            answer = death(str(exc).strip().partition("\n")[0] or type(exc).__name__)
        return member, answer

    def close(self) -> None:
        if self._open:
            self._open = False
            for actor in self._actors:
                with suppress(Exception):  # gone already, or the cluster is
                    self._ray.kill(actor)
            self._actors.clear()
            self._owing.clear()
            _CONNECTION.release()


class _Actor:
    """What lives on Ray: a member beside its answers. Limits are set before numba is loaded."""

    def __init__(self, settings: dict[str, str]) -> None:
        os.environ.update(settings)
        self._built: list[Any] = []

    def placed(self) -> bool:
        return True

    def build(self, refs: list[Any]) -> Answer:
        return tried(lambda: self._built.append(self._made(refs)))

    def _made(self, refs: list[Any]) -> Any:
        (factory, shared), part = _ray().get(refs)
        return factory(shared, part)

    def ask(self, method: str, args: tuple[Any, ...]) -> Answer:
        return tried(partial(called, self._built[0], method, args))


class _Connection:
    """The one connection of a process to Ray: made by the first who needs it, cut by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._address = ""
        self._undo = ExitStack()

    def hold(self, where: Ray) -> Any:
        ray = _ray()
        with self._lock:
            if self._holders == 0:
                self._undo = _connect(ray, where)
                self._address = where.address
            elif where.address not in ("auto", self._address):
                raise WorkerError(
                    f"address was {where.address!r}, and this process is connected to Ray at "
                    f"{self._address!r}",
                    hint="a process speaks to one cluster at a time; finish that work first",
                )
            self._holders += 1
        return ray

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._undo.close()


_CONNECTION = _Connection()


def _ray() -> Any:
    try:
        with environment({"RAY_DEDUP_LOGS_SKIP_REGEX": DEATH_NOTICE}):  # read once, on import
            import ray
    except ImportError as exc:
        raise WorkerError("Ray is not installed", hint="pip install 'undertow[ray]'") from exc
    _without_notices()
    return ray


def _without_notices() -> None:
    """Keep notices of death off our data, also where the program had imported Ray before us."""
    from ray._private import ray_logging

    for name in ("stdout_deduplicator", "stderr_deduplicator"):
        dedup = getattr(ray_logging, name, None)
        if dedup is not None and getattr(dedup, "skip_re", ...) is None:
            dedup.skip_re = re.compile(DEATH_NOTICE)


def _cluster_cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _connect(ray: Any, where: Ray) -> ExitStack:
    """Connect to the cluster that `where` names; closing the result undoes just that."""
    if ray.is_initialized():  # by the program we are part of: it is theirs to stop
        return ExitStack()
    with ExitStack() as undo:
        undo.enter_context(environment({"RAY_USAGE_STATS_ENABLED": "0"}, also=CHANGED))
        found = _running_cluster(where.address)
        if found is None:
            arguments = undo.enter_context(_private_cluster(where.workers or usable_cpus()))
        else:
            arguments = {"address": found}
        undo.callback(ray.shutdown)
        with _left_alone():
            try:
                ray.init(**arguments, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
                raise WorkerError(
                    f"Ray at {found or 'this machine'} could not be used ({exc})",
                    hint="see that it runs, and that its Ray and Python versions are these",
                ) from exc
        return undo.pop_all()


def _running_cluster(address: str) -> str | None:
    """The address to connect to, once it has answered; None where one must be started."""
    if address == "local":
        return None
    if address != "auto":
        _knock(address)
        return address
    if named := os.environ.get("RAY_ADDRESS"):
        _knock(named)
        return named
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    with suppress(OSError, UndertowError):  # no note, or one that a dead cluster left
        started = note.read_text().strip()
        _knock(started)
        return started
    return None


def _knock(address: str) -> None:
    """See that something listens; Ray itself would try for minutes."""
    try:
        socket.create_connection(_host_and_port(address), timeout=KNOCK_SECONDS).close()
    except OSError as exc:
        raise WorkerError(
            f"Ray at {address} did not answer within {KNOCK_SECONDS:.0f} s ({exc})",
            hint="see that the cluster runs and the address is right, or use ray:local",
        ) from exc


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(
            f"address was {address!r}; it is auto, local, host:port or ray://host:port"
        )
    return host.strip("[]"), int(port)


@contextmanager
def _private_cluster(cpus: int) -> Iterator[dict[str, Any]]:
    """Arguments that start a cluster of this process alone, whose files vanish with it.

    Without a token of its own Ray would write one into the user's home.
    """
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    token = {} if named else {"RAY_AUTH_TOKEN": _token()}
    base = tempfile.gettempdir()
    base = base if len(base) < 32 else "/tmp"  # a socket's path is 107 bytes at most
    with (
        tempfile.TemporaryDirectory(
            prefix="undertow-ray-", dir=base, ignore_cleanup_errors=True
        ) as at,
        environment(token),
    ):
        yield {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "_temp_dir": at,
        }


@cache
def _token() -> str:
    """One token for the life of this process: Ray remembers the first that it has seen."""
    return secrets.token_hex(32)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Keep Ray's start from talking, and from taking over the program's SIGTERM."""
    log = getLogger("ray")
    level, ours = log.level, signal.getsignal(signal.SIGTERM)
    log.setLevel(ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)
