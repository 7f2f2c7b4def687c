"""Maps and crews, over members that an executor hires."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from undertow.errors import WorkerError
from undertow.fanout.answers import Answer, opened

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int | None], None]  # items answered, items in all where that is known
Factory = Callable[[Any, Any], Any]  # factory(shared, part) -> member

AHEAD = 4  # items in flight or waiting for their turn, per worker
_END = object()  # of the items


class Members(Protocol):
    """Hired members. Each owes one answer for being built, then one for every `ask`."""

    def ask(self, member: int, method: str, args: tuple[Any, ...]) -> None:
        """Let a free member call its `method`; returns at once."""

    def listen(self) -> tuple[int, Answer]:
        """Wait for any member that owes an answer: its number, and the answer."""

    def close(self) -> None:
        """Let all members go; those at work are stopped where that is possible."""


class Executor(Protocol):
    """Where work runs. `Serial`, `Threads`, `Processes` and `Ray` give the same answers."""

    def hire(self, factory: Factory, parts: Sequence[Any], shared: Any) -> Members:
        """One member for each part, built as `factory(shared, part)` where it lives."""

    def width(self) -> int:
        """How many workers a map uses."""

    def running(self) -> AbstractContextManager[Any]:
        """Keep what is slow to start (a Ray cluster) up between the calls of a block."""
        return nullcontext()

    def map(
        self,
        function: Callable[[Any, Item], Result],
        items: Iterable[Item],
        *,
        shared: Any = None,
        progress: Progress | None = None,
    ) -> Iterator[Result]:
        """Answers of `function(shared, item)`, in item order, as a stream.

        `shared` is sent once to each worker. Items are drawn as they are needed: no more than
        `AHEAD` per worker are in flight or wait for their turn. Nothing starts before the first
        answer is asked for; leaving the stream early stops the workers.
        """
        with self.running():
            source = iter(items)
            head = list(islice(source, self.width()))
            if head:
                total = operator.length_hint(items, 0) or None
                members = self.hire(partial(_Task, function), range(len(head)), shared)
                try:
                    told = _counted(progress, total)
                    yield from _stream(members, len(head), chain(head, source), told)
                finally:
                    members.close()

    def crew(self, factory: Factory, parts: Sequence[Any], *, shared: Any = None) -> Crew:
        """One worker for each part; each keeps the object `factory(shared, part)` between calls."""
        return Crew(self.hire(factory, parts, shared), len(parts))


class Crew:
    """Objects that live apart, keep their state, and answer in part order."""

    def __init__(self, members: Members, size: int) -> None:
        self._members: Members | None = members
        self._size = size
        try:
            self._gather("while it was built")
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._size

    def call(self, method: str, *args: Any) -> list[Any]:
        """Call `method(*args)` on every member at once; answers in part order."""
        return self.call_each(method, [args] * self._size)

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call `method` on every member at once, each with its own tuple of arguments."""
        if len(arguments) != self._size:
            raise WorkerError(
                f"arguments held {len(arguments)} tuples; a crew of {self._size} needs one each"
            )
        if self._members is None:
            raise WorkerError(
                f"{method} was called on a crew that is closed", hint="start the crew again"
            )
        try:
            for member, args in enumerate(arguments):
                self._members.ask(member, method, args)
        except BaseException:
            self.close()  # some members owe an answer that nobody will fetch
            raise
        return self._gather(f"in {method}")

    def close(self) -> None:
        """Let all members go."""
        members, self._members = self._members, None
        if members is not None:
            members.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _gather(self, where: str) -> list[Any]:
        """One answer of every member; a death or an interrupt ends the crew."""
        assert self._members is not None
        answers: dict[int, Answer] = {}
        try:
            while len(answers) < self._size:
                member, answer = self._members.listen()
                answers[member] = answer
                if answer.died:
                    opened(answer, f"member {member}", member, where)
        except BaseException:
            self.close()
            raise
        return [opened(answers[k], f"member {k}", k, where) for k in range(self._size)]


@dataclass(slots=True)
class _Task:
    """The member behind a map: a function beside what all items share."""

    function: Callable[[Any, Any], Any]
    shared: Any
    number: int

    def run(self, item: Any) -> Any:
        return self.function(self.shared, item)


def _stream(
    members: Members, size: int, items: Iterator[Any], answered: Callable[[], None]
) -> Iterator[Any]:
    """Give items to free members, and hand their answers on in item order."""
    working: dict[int, int | None] = dict.fromkeys(range(size))  # member -> item; None: being built
    free: deque[int] = deque()
    done: dict[int, Answer] = {}
    given = turn = 0
    more = True
    while True:
        while more and free and given < turn + AHEAD * size:
            item = next(items, _END)
            more = item is not _END
            if more:
                members.ask(free[0], "run", (item,))
                working[free.popleft()] = given
                given += 1
        if turn in done:
            yield opened(done.pop(turn), f"item {turn}", turn)
            turn += 1
            continue
        if turn == given and not more:
            return
        member, answer = members.listen()
        number = working.pop(member)
        free.append(member)
        if number is None:
            opened(answer, f"worker {member}", None, "before its first item")
        elif answer.died:
            opened(answer, f"item {number}", number)
        else:
            done[number] = answer
            more = more and answer.error is None  # no new work once something failed
            answered()


def _counted(progress: Progress | None, total: int | None) -> Callable[[], None]:
    done = 0

    def answered() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return answered
