"""Executors of this machine: one thread, several threads, child processes."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any

from undertow.errors import WorkerError
from undertow.fanout.answers import Answer, called, death, foreign, packed, tried
from undertow.fanout.executor import Executor, Factory, Members
from undertow.fanout.machine import checked_workers, environment, limits, usable_cpus

LEAVING_SECONDS = 5.0  # how long a child whose pipe closed may take to go
GUARDED = (
    "a script that starts processes keeps its work under `if __name__ == '__main__':`; "
    "a member that outgrew the machine's memory wants fewer workers"
)


@dataclass(frozen=True, slots=True)
class Serial(Executor):
    """One item after the other, in this very thread."""

    def hire(self, factory: Factory, parts: Sequence[Any], shared: Any) -> Members:
        """Objects of this thread."""
        return _Here(factory, parts, shared)

    def width(self) -> int:
        """How many workers a map uses."""
        return 1


class _Here:
    """Members that are plain objects; an answer is there as soon as it is asked for."""

    def __init__(self, factory: Factory, parts: Sequence[Any], shared: Any) -> None:
        self._built: list[Any] = [None] * len(parts)
        self._answers: deque[tuple[int, Answer]] = deque()
        for member, part in enumerate(parts):
            self._answers.append(
                (member, tried(partial(self._build, member, factory, shared, part)))
            )

    def _build(self, member: int, factory: Factory, shared: Any, part: Any) -> None:
        self._built[member] = factory(shared, part)

    def ask(self, member: int, method: str, args: tuple[Any, ...]) -> None:
        act = partial(called, self._built[member], method, args)
        self._answers.append((member, tried(act)))

    def listen(self) -> tuple[int, Answer]:
        return self._answers.popleft()

    def close(self) -> None:
        self._built.clear()


@dataclass(frozen=True, slots=True)
class Threads(Executor):
    """Threads of this process: for kernels that let go of the interpreter, and for waiting."""

    workers: int

    def __post_init__(self) -> None:
        checked_workers(self.workers)

    def hire(self, factory: Factory, parts: Sequence[Any], shared: Any) -> Members:
        """One thread for each part."""
        return _InThreads(factory, parts, shared)

    def width(self) -> int:
        """How many workers a map uses."""
        return self.workers


class _InThreads:
    """Members with a thread each; closing waits for what a thread is at, which cannot be cut."""

    def __init__(self, factory: Factory, parts: Sequence[Any], shared: Any) -> None:
        self._answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()
        self._inboxes: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in parts]
        self._threads = [
            threading.Thread(
                target=_live,
                args=(member, partial(factory, shared, part), inbox, self._answers),
                name=f"undertow-{member}",
                daemon=True,
            )
            for member, (part, inbox) in enumerate(zip(parts, self._inboxes, strict=True))
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, member: int, method: str, args: tuple[Any, ...]) -> None:
        self._inboxes[member].put((method, args))

    def listen(self) -> tuple[int, Answer]:
        return self._answers.get()

    def close(self) -> None:
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join()


def _live(
    number: int,
    build: Callable[[], Any],
    inbox: queue.SimpleQueue[Any],
    answers: queue.SimpleQueue[tuple[int, Answer]],
) -> None:
    """The life of a thread: build the member, then answer until told to go."""
    built: list[Any] = []
    try:
        answers.put((number, tried(lambda: built.append(build()))))
        while (order := inbox.get()) is not None:
            answers.put((number, tried(partial(called, built[0], *order))))
    except BaseException as error:  # whatever ends a thread must reach who waits for it
        answers.put((number, Answer(error=foreign(error), died=True)))


@dataclass(frozen=True, slots=True)
class Processes(Executor):
    """Fresh child processes of this machine, one for each worker or member."""

    workers: int

    def __post_init__(self) -> None:
        checked_workers(self.workers)

    def hire(self, factory: Factory, parts: Sequence[Any], shared: Any) -> Members:
        """One child process for each part."""
        return _InProcesses(factory, parts, shared)

    def width(self) -> int:
        """How many workers a map uses."""
        return self.workers


class _InProcesses:
    """Members in a child process each, at the other end of a pipe.

    Children are spawned, not forked: a fork of a process with running threads can hang.
    """

    def __init__(self, factory: Factory, parts: Sequence[Any], shared: Any) -> None:
        order = packed((factory, shared), "the function, or what its calls share,")
        own = [packed(part, "a part") for part in parts]
        self._owing: set[int] = set(range(len(own)))
        self._pipes: list[connection.Connection] = []
        self._children: list[multiprocessing.process.BaseProcess] = []
        try:
            with environment(limits(len(own), usable_cpus())):
                for member in range(len(own)):
                    self._spawn(member)
            for member, part in enumerate(own):  # all start up while the first one is told
                self._send(member, order)
                self._send(member, part)
        except BaseException:
            self.close()
            raise

    def _spawn(self, member: int) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._pipes.append(here)
        with there:  # the child has its own end; ours must close, or its death would go unheard
            child = context.Process(
                target=_serve, args=(there,), name=f"undertow-{member}", daemon=True
            )
            child.start()
        self._children.append(child)

    def _send(self, member: int, order: bytes) -> None:
        with suppress(OSError):  # a dead child is heard of by `listen`
            self._pipes[member].send_bytes(order)

    def ask(self, member: int, method: str, args: tuple[Any, ...]) -> None:
        order = packed((method, args), "an item or argument")
        self._owing.add(member)
        self._send(member, order)

    def listen(self) -> tuple[int, Answer]:
        waited = {self._pipes[member]: member for member in sorted(self._owing)}
        pipe = connection.wait(list(waited))[0]
        member = waited[pipe]  # type: ignore[index]  # wait() gives back what it was given
        self._owing.discard(member)
        try:
            return member, pickle.loads(self._pipes[member].recv_bytes())
        except (EOFError, OSError):
            return member, self._obituary(member)

    def _obituary(self, member: int) -> Answer:
        child = self._children[member]
        child.join(LEAVING_SECONDS)
        code = child.exitcode
        if code is not None and code < 0:
            return death(f"killed by {signal.Signals(-code).name}", GUARDED)
        return death(f"exit code {code}", GUARDED)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # tells a waiting child to go
        for member, child in enumerate(self._children):
            if member in self._owing:
                child.kill()  # it holds nothing but copies
        for child in self._children:
            child.join(LEAVING_SECONDS)
            if child.exitcode is None:
                child.kill()
                child.join()
            child.close()
        self._pipes.clear()
        self._children.clear()


def _serve(pipe: connection.Connection) -> None:
    """The life of a child process: build the member, then answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    built: list[Any] = []
    with suppress(EOFError, OSError), pipe:
        answer = _build(built, pipe.recv_bytes(), pipe.recv_bytes())
        while True:
            pipe.send_bytes(_sendable(answer))
            answer = _ask(built[0], pipe.recv_bytes())


def _build(built: list[Any], order: bytes, part: bytes) -> Answer:
    def act() -> None:
        factory, shared = pickle.loads(order)
        built.append(factory(shared, pickle.loads(part)))

    return tried(act)


def _ask(member: Any, order: bytes) -> Answer:
    return tried(lambda: called(member, *pickle.loads(order)))


def _sendable(answer: Answer) -> bytes:
    try:
        return packed(answer, "the answer")
    except WorkerError as error:
        return packed(Answer(error=error), "the error")
