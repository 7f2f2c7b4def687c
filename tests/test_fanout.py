"""One function over many items gives the same answers wherever it runs, and never a wait."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertow import errors
from undertow.errors import SettingsError, StateError, UndertowError, WorkerError
from undertow.fanout import (
    Crew,
    Executor,
    Processes,
    Ray,
    Serial,
    Threads,
    cluster,
    machine,
    parse_executor,
)

LOCAL: list[Executor] = [Serial(), Threads(3), Processes(2)]
APART = pytest.mark.parametrize("executor", LOCAL, ids=lambda each: type(each).__name__)
SHARED = np.arange(1_000.0)


def weighed(shared: np.ndarray, item: int) -> float:
    time.sleep(0.002 * (item % 3))  # so that answers arrive out of turn
    return float(shared @ np.full(shared.size, 1.0 / (item + 1)))


def fussy(shared: Any, item: int) -> int:
    if item == 4:
        raise StateError("the book is empty", source="book", row=7, column="qty", hint="fill it")
    if item == 6:
        return 1 // (item - 6)
    return item


def mortal(shared: Any, item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def quitting(shared: Any, item: int) -> int:
    sys.exit("enough")


def secretive(shared: Any, item: int) -> Any:
    return threading.Lock()


def sleeping(shared: Any, item: int) -> None:
    time.sleep(60)


def whereabouts(shared: Any, item: int) -> tuple[int, dict[str, str | None]]:
    return os.getpid(), {name: os.environ.get(name) for name in machine.THREAD_LIMITS}


class StubbornError(UndertowError):
    """An error that cannot be unpickled, for want of its second argument."""

    def __init__(self, message: str, detail: object) -> None:
        super().__init__(message)


def stubborn(shared: Any, item: int) -> None:
    raise StubbornError("no way back", item)


class Till:
    """A member with a state: it counts what it was paid."""

    def __init__(self, shared: float, part: int) -> None:
        if part < 0:
            raise StateError(f"part was {part}; it is 0 or more")
        self.rate = shared
        self.held = float(part)

    def pay(self, amount: float) -> float:
        self.held += self.rate * amount
        return self.held

    def refuse(self) -> None:
        raise StateError("no change given") if self.held > 15 else ValueError("closed")

    def pid(self) -> int:
        return os.getpid()

    def thread(self) -> int:
        return threading.get_ident()

    def die(self, doomed: float) -> float:
        if self.held == doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.held


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def check_map(executor: Executor) -> None:
    seen: list[tuple[int, int | None]] = []
    answers = executor.map(
        weighed, range(25), shared=SHARED, progress=lambda done, total: seen.append((done, total))
    )
    assert list(answers) == [weighed(SHARED, item) for item in range(25)]
    assert seen == [(done, 25) for done in range(1, 26)]


def check_errors(executor: Executor) -> None:
    answers = executor.map(fussy, range(8))
    assert [next(answers) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(StateError, match=r"book, row 7, column qty: the book is empty") as caught:
        next(answers)
    assert type(caught.value) is StateError
    assert (caught.value.row, caught.value.hint) == (7, "fill it")
    assert "raised by item 4" in caught.value.__notes__
    with pytest.raises(WorkerError, match=r"^item 1: ZeroDivisionError: ") as wrapped:
        list(executor.map(fussy, [5, 6, 7]))
    assert wrapped.value.item == 1
    assert "in fussy" in wrapped.value.__notes__[0]


def check_crew(executor: Executor) -> None:
    with executor.crew(Till, [10, 20, 30], shared=0.5) as crew:
        assert len(crew) == 3
        assert crew.call("pay", 2.0) == [11.0, 21.0, 31.0]
        assert crew.call_each("pay", [(2.0,), (4.0,), (6.0,)]) == [12.0, 23.0, 34.0]
        with pytest.raises(WorkerError, match=r"^member 0 in refuse: ValueError: closed") as caught:
            crew.call("refuse")
        assert caught.value.item == 0
        assert crew.call("pay", 0.0) == [12.0, 23.0, 34.0]  # an error ends nothing
        with pytest.raises(WorkerError, match="2 tuples; a crew of 3"):
            crew.call_each("pay", [(1.0,), (1.0,)])
    with pytest.raises(WorkerError, match="closed; start the crew again"):
        crew.call("pay", 1.0)


def check_crew_death(crew: Crew) -> None:
    pids = crew.call("pid")
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"^member 1 in die: its worker died") as caught:
        crew.call("die", 20.0)
    assert time.monotonic() - start < 30
    assert caught.value.item == 1
    assert all(gone(pid) for pid in pids)
    with pytest.raises(WorkerError, match="closed"):
        crew.call("pid")


@APART
def test_answers_come_in_item_order_and_do_not_depend_on_where_they_were_found(
    executor: Executor,
) -> None:
    check_map(executor)
    assert list(executor.map(weighed, [], shared=SHARED)) == []
    assert list(executor.map(weighed, iter([2]), shared=SHARED)) == [weighed(SHARED, 2)]


@APART
def test_an_error_keeps_its_type_and_its_fields_or_is_wrapped_with_its_item(
    executor: Executor,
) -> None:
    check_errors(executor)
    with pytest.raises(WorkerError, match="item 0: SystemExit: enough"):
        list(executor.map(quitting, [1]))
    with pytest.raises(WorkerError, match="item 0: StubbornError: no way back"):
        list(executor.map(stubborn, [1]))


@APART
def test_a_crew_keeps_its_state_between_calls(executor: Executor) -> None:
    check_crew(executor)


@APART
def test_a_crew_that_cannot_be_built_raises_the_error_of_its_member(executor: Executor) -> None:
    with pytest.raises(StateError, match="part was -1"):
        executor.crew(Till, [1, -1], shared=1.0)


@APART
def test_items_are_drawn_no_further_ahead_than_the_bound(executor: Executor) -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for item in range(1_000):
            drawn += 1
            yield item

    answers = executor.map(fussy_never, items())
    assert drawn == 0
    for turn in range(50):
        assert next(answers) == turn
        assert drawn - turn <= 4 * executor.width()
    answers.close()
    assert drawn < 100


def fussy_never(shared: Any, item: int) -> int:
    return item


def test_threads_share_the_object_and_each_member_has_its_own_thread() -> None:
    seen = list(Threads(2).map(lambda shared, item: id(shared), range(4), shared=SHARED))
    assert set(seen) == {id(SHARED)}
    with Threads(1).crew(Till, [1, 2, 3], shared=1.0) as crew:
        threads = crew.call("thread")
        assert len(set(threads)) == 3
        assert crew.call("thread") == threads
    assert not [each for each in threading.enumerate() if each.name.startswith("undertow-")]


def test_processes_are_apart_limit_their_threads_and_leave_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in machine.THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # what the user has set stands
    answers = list(Processes(2).map(whereabouts, range(6)))
    pids = {pid for pid, _ in answers}
    share = str(max(1, machine.usable_cpus() // 2))
    assert os.getpid() not in pids
    assert answers[0][1]["OMP_NUM_THREADS"] == "7"
    assert answers[0][1]["NUMBA_NUM_THREADS"] == share
    assert "NUMBA_NUM_THREADS" not in os.environ
    assert all(gone(pid) for pid in pids)


def test_a_killed_process_is_an_error_that_names_its_item() -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"^item 3: its worker died \(killed by SIGKILL\)"):
        list(Processes(2).map(mortal, range(8)))
    assert time.monotonic() - start < 30


def test_a_killed_member_ends_its_crew() -> None:
    check_crew_death(Processes(1).crew(Till, [10, 20, 30], shared=1.0))


def test_leaving_a_stream_stops_the_processes_at_work() -> None:
    answers = Processes(2).map(sometimes_sleeping, range(3))
    pid = next(answers)
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 20
    assert gone(pid)


def sometimes_sleeping(shared: Any, item: int) -> int:
    if item:
        time.sleep(60)
    return os.getpid()


def test_ctrl_c_stops_the_processes_and_is_the_caller_s_to_see() -> None:
    threading.Timer(1.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(Processes(2).map(sleeping, range(2)))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("function", "items", "words"),
    [
        (lambda shared, item: item, [1], "the function, or what its calls share, cannot be sent"),
        (fussy_never, [threading.Lock()], "an item or argument cannot be sent"),
        (secretive, [1], "item 0: the answer cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_said_in_words(
    function: Any, items: Sequence[Any], words: str
) -> None:
    with pytest.raises(WorkerError, match=words):
        list(Processes(1).map(function, items))


def every_error(root: type[UndertowError]) -> Iterator[type[UndertowError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


@pytest.mark.parametrize(
    "kind", [kind for kind in every_error(UndertowError) if kind.__module__ == errors.__name__]
)
def test_every_error_travels_with_all_it_knows(kind: type[UndertowError]) -> None:
    error = kind("x was 2; it is 1", hint="say 1")
    error.source, error.row, error.column = "a.csv", 3, "qty"
    error.add_note("far away")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error) == "a.csv, row 3, column qty: x was 2; it is 1; say 1"
    assert back.__dict__ == error.__dict__


def test_the_command_line_names_an_executor() -> None:
    assert parse_executor("serial") == Serial()
    assert parse_executor("threads:4") == Threads(4)
    assert parse_executor("processes:2") == Processes(2)
    assert parse_executor("ray") == Ray("auto")
    assert parse_executor("ray:local") == Ray("local")
    assert parse_executor("ray:10.0.0.7:6379") == Ray("10.0.0.7:6379")


@pytest.mark.parametrize(
    "text", ["", "parallel", "serial:2", "threads", "threads:0", "processes:-1", "processes:x"]
)
def test_any_other_name_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"it is (serial, threads:4|a whole number, 1 or more)"):
        parse_executor(text)


@pytest.mark.parametrize("address", ["somewhere", "host:", ":1", "host:0", "host:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"auto, local, host:port"):
        Ray(address)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkerError, match=r"pip install 'undertow\[ray\]'"):
        list(Ray("local").map(fussy_never, [1]))


def test_an_address_that_does_not_answer_is_an_error_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(WorkerError, match=f"{address} did not answer"):
            cluster._knock(address)
        assert time.monotonic() - start < 10


def test_auto_passes_over_the_note_of_a_cluster_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._running_cluster("auto") is None
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        note.write_text(address)
        assert cluster._running_cluster("auto") == address
    assert cluster._running_cluster("auto") is None
    monkeypatch.setenv("RAY_ADDRESS", address)  # but a name that someone gave must answer
    with pytest.raises(WorkerError, match="did not answer"):
        cluster._running_cluster("auto")


def descendants() -> set[int]:
    """Processes below this one."""
    done = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in map(str.split, done.stdout.splitlines())}
    family = {os.getpid()}
    for _ in range(4):  # this process, raylet, worker, and one to spare
        family |= {pid for pid, parent in parents.items() if parent in family}
    return family - {os.getpid()}


@pytest.mark.ray
def test_ray_gives_the_same_answers_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, for a cluster takes ten seconds to start, and every new actor two."""
    monkeypatch.setenv("HOME", str(tmp_path))  # to see what is written there
    cluster._ray()  # its import alone sets a variable
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    children = descendants()
    executor = Ray("local", workers=2)
    with executor.running() as ray:
        check_map(executor)
        check_errors(executor)
        check_crew(executor)  # of three, on a cluster of two
        check_crew_death(executor.crew(Till, [10, 20], shared=1.0))
        with pytest.raises(WorkerError, match="one cluster at a time"):
            list(Ray("10.0.0.7:6379").map(fussy_never, [1]))
        started = descendants() - children
    assert not ray.is_initialized()
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
    assert len(started) >= 3
    assert all(gone(pid) for pid in started)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""  # stdout is for data
