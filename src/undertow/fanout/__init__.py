"""One function over many items; where it runs (here, threads, processes, Ray) is a value.

    executor = parse_executor("processes:4")
    for loss in executor.map(worst_loss, scenarios, shared=snapshot): ...

    with executor.crew(Shard, parts, shared=universe) as crew:
        volumes = crew.call("sell", prices)  # every member at once, answers in part order

Everything rests on *members*: objects that `factory(shared, part)` builds where they live, and that
answer method calls, one at a time each. A crew hands out its members; a map gives each of a few
members the next item as soon as it is free. An executor only says how members are hired.

What is sent must be treated as read-only: in threads it is the caller's own object, on Ray arrays
arrive without a copy. For processes and Ray, functions and factories stand at the top of a module.
An `UndertowError` of a worker is raised here as it was; any other failure as a `WorkerError` that
names the item. A worker that dies is a `WorkerError` too, never a wait.
"""

from __future__ import annotations

from undertow.errors import SettingsError
from undertow.fanout.cluster import Ray
from undertow.fanout.executor import Crew, Executor
from undertow.fanout.local import Processes, Serial, Threads

__all__ = ["Crew", "Executor", "Processes", "Ray", "Serial", "Threads", "parse_executor"]


def parse_executor(text: str) -> Executor:
    """The executor that a command line names.

    "serial", "threads:4", "processes:2", "ray", "ray:local" or "ray:host:port".
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "serial" and not rest:
        return Serial()
    if kind == "ray":
        return Ray(rest or "auto")
    if kind in ("threads", "processes") and rest.isdecimal():
        return Threads(int(rest)) if kind == "threads" else Processes(int(rest))
    raise SettingsError(
        f"executor was {text!r}; it is serial, threads:4, processes:4, ray, ray:local or "
        "ray:HOST:PORT"
    )
