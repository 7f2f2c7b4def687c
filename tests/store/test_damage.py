"""A lake with broken files: it says so in one line, and names what is broken."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest
from store_files import POSITIONS, SECOND, T0, prices_frame, reference_lake

from undertow.errors import DamagedLake, UndertowError
from undertow.store import Lake, ingest_tables


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    lake = reference_lake(folder)
    (folder / "positions.csv").write_text(POSITIONS)
    ingest_tables(lake, [folder / "positions.csv"], now=T0)
    for i in range(3):
        rows = prices_frame([(T0 + i, "lend:ETH", 1.5 + i), (T0 + i, "perps:ETH", 2.5)])
        lake.write({"prices": rows}, kind="ingest", now=T0 + i * SECOND)
    return folder


@pytest.fixture
def lake(whole: Path, tmp_path: Path) -> Lake:
    shutil.copytree(whole / "lake", tmp_path / "lake")
    return Lake.open(tmp_path / "lake")


def data_file(lake: Lake, table: str) -> Path:
    return sorted((Path(lake.uri) / table).rglob("*.parquet"))[0]


def problems(lake: Lake) -> list[str]:
    return [str(f) for f in lake.verify().findings]


def test_a_sound_lake_has_no_findings_and_counts_its_rows(lake: Lake) -> None:
    inspection = lake.verify()
    assert inspection.sound
    assert inspection.findings == ()
    assert inspection.rows["prices"] == 6
    assert inspection.rows["positions"] == 4
    assert inspection.runs == 8


def test_a_truncated_data_file_is_named(lake: Lake) -> None:
    path = data_file(lake, "prices")
    path.write_bytes(path.read_bytes()[:-40])
    (line,) = problems(lake)
    assert path.name in line
    assert "the log says" in line
    assert "restore the file" in line
    assert not lake.verify().sound
    with pytest.raises(DamagedLake, match="prices"):
        lake.read("prices")


def test_a_missing_data_file_is_named(lake: Lake) -> None:
    path = data_file(lake, "positions")
    path.unlink()
    assert any(f"{path.name} is gone" in line for line in problems(lake))
    with pytest.raises(DamagedLake, match="undertow lake verify"):
        lake.read("positions")


def test_a_changed_value_is_found_by_the_checksum_of_its_run(lake: Lake) -> None:
    """The file opens, has its size and its rows; one stored price is another."""
    import struct

    path = data_file(lake, "positions")
    content = path.read_bytes()
    frame = pl.read_parquet(path)
    for value in frame["qty"]:
        needle = struct.pack("<d", value)
        if content.count(needle) == 1:  # in the data, not in the statistics
            path.write_bytes(content.replace(needle, struct.pack("<d", value + 1)))
            break
    else:  # the pages are compressed: rewrite the file with one value changed, at the same size
        changed = frame.with_columns(
            qty=pl.when(pl.int_range(pl.len()) == 0).then(pl.col("qty") + 1).otherwise("qty")
        )
        changed.write_parquet(path, compression="zstd", compression_level=1)
        _pretend_size(lake, path)
    found = problems(lake)
    assert any("are not those that were written" in line for line in found), found


def _pretend_size(lake: Lake, path: Path) -> None:
    """Make the log agree with the size of a file that was replaced."""
    for log in (Path(lake.uri) / "positions" / "_delta_log").glob("*.json"):
        lines = []
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if "add" in entry and entry["add"]["path"].endswith(path.name):
                entry["add"]["size"] = path.stat().st_size
            lines.append(json.dumps(entry))
        log.write_text("\n".join(lines))


def test_a_lost_log_entry_is_damage(lake: Lake) -> None:
    log = Path(lake.uri) / "prices" / "_delta_log"
    sorted(log.glob("*.json"))[2].unlink()
    with pytest.raises(DamagedLake):
        lake.read("prices")
    assert not lake.verify().sound
    assert lake.read("positions").height == 4  # other tables are read as before


def test_a_lost_last_log_entry_is_damage(lake: Lake) -> None:
    log = Path(lake.uri) / "prices" / "_delta_log"
    sorted(log.glob("*.json"))[-1].unlink()
    with pytest.raises(DamagedLake):
        lake.read("prices")
    assert any("the log ends before it" in line for line in problems(lake))


def test_a_lost_table_is_damage(lake: Lake) -> None:
    shutil.rmtree(Path(lake.uri) / "prices")
    with pytest.raises(DamagedLake, match="it is gone"):
        lake.read("prices")
    assert any("the table is gone" in line for line in problems(lake))
    with pytest.raises(DamagedLake, match="it is gone"):
        lake.compact(now=T0)


def test_a_broken_registry_of_runs_is_damage(lake: Lake) -> None:
    log = Path(lake.uri) / "runs" / "_delta_log"
    sorted(log.glob("*.json"))[1].write_text("{ not json")
    with pytest.raises(DamagedLake, match="runs"):
        lake.read("prices")
    assert not lake.verify().sound


def test_flipped_bytes_anywhere_end_in_a_plain_error_or_a_finding(
    lake: Lake, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(11)
    expected = {name: lake.read(name) for name in ("prices", "positions", "venues")}
    logs = sorted(Path(lake.uri).rglob("*.json"))
    # data files have names by chance, so their content orders them: each test hits the same bytes
    paths = logs + sorted(Path(lake.uri).rglob("*.parquet"), key=Path.read_bytes)
    silent, lines = [], list[str]()
    for _ in range(40):
        path = chance.choice(paths)
        content = path.read_bytes()
        broken = bytearray(content)
        for _ in range(chance.choice([1, 4])):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        wrong = False
        for name, frame in expected.items():
            try:
                wrong |= not lake.read(name).equals(frame)
            except UndertowError as error:
                lines.append(str(error))
        try:
            found = bool(lake.verify().findings)
        except UndertowError as error:  # what makes the folder a lake may be what was hit
            found = True
            lines.append(str(error))
        if wrong and not found:
            silent.append(path)
        path.write_bytes(content)
    assert silent == [], "damaged data that reads differently is found"
    assert lines
    assert not any("\n" in line for line in lines)
    assert lake.verify().findings == ()
    capfd.readouterr()


def test_a_run_renamed_in_the_statistics_of_the_log_is_found(lake: Lake) -> None:
    """The registry is read from the log's statistics alone, so a file must hold what they say."""
    run = lake.history().runs["run"][2]
    log = next(
        path
        for path in sorted((Path(lake.uri) / "runs" / "_delta_log").glob("*.json"))
        if f'\\"run\\":\\"{run}' in path.read_text()
    )
    other = ("0" if run[0] != "0" else "1") + run[1:]
    log.write_text(log.read_text().replace(f'\\"run\\":\\"{run}', f'\\"run\\":\\"{other}'))
    assert any("other runs" in line for line in problems(lake))
    assert not lake.verify().sound
