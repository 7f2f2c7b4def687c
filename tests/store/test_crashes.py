"""Killed, racing and starved writers: what readers see is always a whole number of runs."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pytest
from store_files import PRICES_HEADER, STAMP, T0, prices_frame, reference_lake

from undertow.errors import NoRun, StoreError
from undertow.store import Lake, ingest_tables
from undertow.store.upkeep import commits_of

WORKER = Path(__file__).with_name("ingest_worker.py")
ROWS = 200  # five batches


class Worker:
    """A process that has imported everything and waits for the word."""

    def __init__(self, lake: Path, *paths: Path) -> None:
        command = [sys.executable, "-W", "error", str(WORKER), str(lake), *map(str, paths)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.answer() == "ready"

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def answer(self) -> str:
        return self._pipe(self.process.stdout).readline().strip()

    def say(self, word: str) -> None:
        self._pipe(self.process.stdin).write(word + "\n")
        self._pipe(self.process.stdin).flush()

    def stop(self) -> None:
        if self._pipe(self.process.stdin).closed:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._pipe(self.process.stdin).close()
        self._pipe(self.process.stdout).close()


@pytest.fixture
def hire() -> Iterator[Callable[..., Worker]]:
    """Workers that are sent home whatever happens."""
    hired: list[Worker] = []

    def one(lake: Path, *paths: Path) -> Worker:
        hired.append(Worker(lake, *paths))
        return hired[-1]

    yield one
    for worker in hired:
        worker.stop()


def price_file(path: Path, first: int, rows: int = ROWS) -> Path:
    lines = [
        f"{STAMP[:-3]}{n % 60:02}.{first + n:06}Z,lend:ETH,spot,{n + 1},feed" for n in range(rows)
    ]
    bad = f"{STAMP},lend:ETH,spot,not a number,feed"
    path.write_text("\n".join([PRICES_HEADER, *lines, bad]) + "\n")
    return path


def funding_file(path: Path) -> Path:
    head = "ts,instrument,rate,interval_us,rate_per_hour,source\n"
    lines = [f"2026-01-01T00:00:00.{n:06}Z,perps:ETH,0.1,1,0.1,feed" for n in range(ROWS)]
    path.write_text(head + "\n".join(lines) + "\n")
    return path


def visible(lake: Lake) -> dict[str, int]:
    """Rows of complete runs, all of them, by table."""
    from undertow.store.quality import table_quality

    try:
        quality = table_quality(lake, now=T0)
    except NoRun:
        return {}
    return {n: r for n, r in quality.select("table", "rows").iter_rows() if r}


def stored(lake: Lake, table: str) -> int:
    """Rows of any run, complete or not."""
    handle = lake.root.open(table)
    return 0 if handle is None else handle.count()


@pytest.mark.parametrize("kills", [16, pytest.param(51, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_lake_shows_whole_runs_and_a_second_try_completes_them(
    tmp_path: Path,
    hire: Callable[..., Worker],
    kills: int,
) -> None:
    start = tmp_path / "start"
    reference_lake(start)
    paths = [price_file(tmp_path / "prices.csv", 0), funding_file(tmp_path / "funding.csv")]
    names = visible(Lake.open(start / "lake"))
    whole = {**names, "prices": ROWS, "funding": ROWS}
    allowed = [names, {**names, "prices": ROWS}, whole]

    def fresh(place: str) -> Path:
        shutil.copytree(start / "lake", tmp_path / place)
        return tmp_path / place

    timed = hire(fresh("timed"), *paths)
    timed.say("go")
    begun = time.monotonic()
    assert timed.answer() == f"done prices={ROWS}/1,funding={ROWS}/0"
    span = time.monotonic() - begun
    timed.stop()

    chance = random.Random(20260101)
    moments = [span * (k + chance.random()) / (kills - 1) for k in range(kills)]
    seen: list[int] = []
    for number, moment in enumerate([*moments, None]):
        folder = fresh(f"lake{number}")
        worker = hire(folder, *paths)
        worker.say("go")
        if moment is None:  # the last one is killed when all is done
            worker.answer()
        else:
            time.sleep(moment)
        worker.stop()
        lake = Lake.open(folder)
        now = visible(lake)
        assert now in allowed, f"killed after {moment} s of {span:.3f} s"
        seen.append(allowed.index(now))
        report = ingest_tables(lake, paths, now=T0, batch_rows=40)
        assert [(f.rows, f.rejected) for f in report.files] == [(ROWS + 1, 1), (ROWS, 0)]
        assert visible(lake) == whole
        assert (stored(lake, "prices"), stored(lake, "funding")) == (ROWS, ROWS)
        assert stored(lake, "rejects") == 1
        assert lake.verify().findings == ()
        shutil.rmtree(folder)
    assert set(seen) == {0, 1, 2}, "the kills met every stage"


def test_two_writers_of_different_content_lose_nothing(
    tmp_path: Path, hire: Callable[..., Worker]
) -> None:
    lake = reference_lake(tmp_path)
    files = [price_file(tmp_path / "prices.csv", 0)]
    (tmp_path / "second").mkdir()
    files.append(price_file(tmp_path / "second" / "prices.csv", 1000))
    workers = [hire(tmp_path / "lake", path) for path in files]
    for worker in workers:
        worker.say("go")
    assert [worker.answer() for worker in workers] == [f"done prices={ROWS}/1"] * 2
    for worker in workers:
        worker.stop()
    assert visible(lake)["prices"] == stored(lake, "prices") == 2 * ROWS
    assert stored(lake, "rejects") == 2
    assert lake.verify().findings == ()


def test_two_writers_of_the_same_content_store_it_once(
    tmp_path: Path, hire: Callable[..., Worker]
) -> None:
    for attempt in range(3):
        start = tmp_path / str(attempt)
        start.mkdir()
        lake = reference_lake(start)
        path = price_file(start / "prices.csv", 0)
        workers = [hire(start / "lake", path) for _ in range(2)]
        for worker in workers:
            worker.say("go")
        answers = [worker.answer() for worker in workers]
        for worker in workers:
            worker.stop()
        assert all(answer.startswith("done") for answer in answers), answers
        assert visible(lake)["prices"] == stored(lake, "prices") == ROWS
        assert stored(lake, "rejects") == 1
        assert lake.verify().findings == ()


def test_two_writers_may_make_the_lake_at_once(tmp_path: Path, hire: Callable[..., Worker]) -> None:
    from store_files import write_reference

    paths = write_reference(tmp_path / "reference")
    workers = [hire(tmp_path / "lake", *paths) for _ in range(2)]
    for worker in workers:
        worker.say("go")
    answers = [worker.answer() for worker in workers]
    for worker in workers:
        worker.stop()
    assert all(answer.startswith("done") for answer in answers), answers
    lake = Lake.open(tmp_path / "lake")
    assert visible(lake) == {"assets": 2, "venues": 2, "instruments": 3, "accounts": 3}
    assert stored(lake, "venues") == 2


def test_merging_files_while_others_write_loses_nothing(
    tmp_path: Path, hire: Callable[..., Worker]
) -> None:
    lake = reference_lake(tmp_path)
    for i in range(4):
        rows = prices_frame([(T0 + i, "lend:USDC", 1.0)])
        lake.write({"prices": rows}, kind="ingest", now=T0)
    worker = hire(tmp_path / "lake", price_file(tmp_path / "prices.csv", 0))
    worker.say("go")
    for _ in range(3):
        lake.compact(now=T0)
    assert worker.answer() == f"done prices={ROWS}/1"
    worker.stop()
    lake.compact(now=T0)
    assert visible(lake)["prices"] == ROWS + 4
    assert lake.verify().findings == ()


def test_commits_that_land_while_the_log_is_read_do_not_shift_its_versions(tmp_path: Path) -> None:
    lake = reference_lake(tmp_path)
    for i in range(2):
        lake.write({"prices": prices_frame([(T0 + i, "lend:USDC", 1.0)])}, kind="ingest", now=T0)
    early = lake.root.at_least("prices")
    before = commits_of("prices", early)
    lake.write({"prices": prices_frame([(T0 + 2, "lend:USDC", 1.0)])}, kind="ingest", now=T0)
    lake.compact(now=T0)
    assert commits_of("prices", early) == before
    assert [e["version"] for e in before] == list(range(early.version(), -1, -1))
    assert [e["operation"] for e in before] == ["WRITE", "WRITE", "CREATE TABLE"]


STARVED = """
import resource, sys
from undertow.errors import StoreError
from undertow.store import Lake, ingest_tables
from undertow.store.upkeep import commits_of

def starve(done, total):  # once the file is read and set aside
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))

try:
    ingest_tables(Lake.at(sys.argv[1]), [sys.argv[2]], now=1_767_225_600_000_000, progress=starve)
except StoreError as error:
    print(error)
    raise SystemExit(1)
"""


@pytest.mark.parametrize("most", [600, 1500, 4000])
def test_a_full_disk_leaves_the_lake_readable_and_the_ingestion_can_be_repeated(
    tmp_path: Path, most: int
) -> None:
    lake = reference_lake(tmp_path)
    before = visible(lake)
    frame = prices_frame([(T0 + n, "lend:ETH", 1 / (n + 1)) for n in range(3000)])
    path = tmp_path / "prices.parquet"
    frame.write_parquet(path)
    command = [sys.executable, "-c", STARVED, str(tmp_path / "lake"), str(path), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "run the same command again" in done.stdout
    assert done.stdout.count("\n") == 1
    assert visible(lake) == before
    assert lake.verify().sound
    ingest_tables(lake, [path], now=T0)
    assert visible(lake) == {**before, "prices": 3000}
    assert lake.verify().findings == ()


def test_a_full_temporary_folder_is_a_plain_error_too(tmp_path: Path) -> None:
    lake = reference_lake(tmp_path)
    path = price_file(tmp_path / "prices.csv", 0)
    command = [
        sys.executable,
        "-c",
        STARVED.replace("progress=starve)", ")").replace("try:", "starve(0, 0)\ntry:"),
    ]
    command += [str(tmp_path / "lake"), str(path), "600"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "temporary folder" in done.stdout
    assert "prices" not in visible(lake)


def test_a_folder_that_may_not_be_written_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file where the lake should be")
    with pytest.raises(StoreError, match="is a file, not a folder"):
        Lake.create(tmp_path / "plain")
    with pytest.raises(StoreError) as caught:
        Lake.create(tmp_path / "plain" / "lake")
    assert "\n" not in str(caught.value)


def test_a_table_folder_that_may_not_be_written_is_a_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = reference_lake(tmp_path)
    (tmp_path / "lake" / "prices").write_text("in the way")
    rows = pl.DataFrame(prices_frame([(T0, "lend:ETH", 1.0)]))
    with pytest.raises(StoreError) as caught:
        lake.write({"prices": rows}, kind="ingest", now=T0)
    assert "\n" not in str(caught.value)
    assert lake.read("venues").height == 2
