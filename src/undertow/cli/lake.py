"""`undertow lake verify|history|compact|quality`: look after the lake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl

from undertow.cli import FAILED
from undertow.cli.options import instant, iso, now_us
from undertow.cli.output import Answer
from undertow.settings import load_settings
from undertow.store import Lake
from undertow.store.quality import table_quality


def the_lake(uri: str | None) -> Lake:
    """The lake that an option names, or the one of the settings; it must be there."""
    return Lake.open(uri or load_settings().lake)


def run_verify(uri: str | None, *, as_json: bool, quiet: bool) -> None:
    """Print what is wrong with the lake; exit code 1 if anything is."""
    answer = Answer(as_json, quiet=quiet)
    lake = the_lake(uri)
    inspection = lake.verify()
    findings = [str(finding) for finding in inspection.findings]
    if as_json:
        answer.give_facts({"lake": lake.uri, "sound": inspection.sound, "findings": findings})
    else:
        print("\n".join(findings) if findings else f"{lake.uri}: sound")
    if not inspection.sound:
        sys.exit(FAILED)


def run_history(uri: str | None, *, top: int, as_json: bool, output: Path | None) -> None:
    """Print the newest runs, with what each added."""
    answer = Answer(as_json, output)
    lake = the_lake(uri)
    history = lake.history()
    runs = history.runs.head(top)
    if not (as_json or output):
        runs = runs.select("run", "committed", "kind", pl.col("detail").map_elements(
            _in_words, return_dtype=pl.String).alias("brought"))  # fmt: skip
    answer.give(f"runs of {lake.uri}, newest first", runs, {"runs": history.runs.height})


def _in_words(detail: str) -> str:
    """What a run's detail comes to: of what it is, and how many rows it brought to which table."""
    told = json.loads(detail)
    rows = {name: part["rows"] for name, part in told.get("tables", {}).items()}
    most = sorted(rows, key=lambda name: (-rows[name], name))[:3]
    named = [f"{told[name]}" for name in ("world", "file") if told.get(name)]
    named += [f"{rows[name]:,} {name}" for name in most]
    named += [f"{len(rows) - 3} more tables"] if len(rows) > 3 else []
    return ", ".join(named)


def run_compact(uri: str | None, *, as_json: bool, quiet: bool) -> None:
    """Join small files and say what the lake stands on afterwards."""
    answer = Answer(as_json, quiet=quiet)
    lake = the_lake(uri)
    after = lake.compact(now=now_us)
    answer.give_facts({"lake": lake.uri, "run": after.run, "committed": iso(after.committed)})


def run_quality(uri: str | None, *, as_of: str | None, as_json: bool, output: Path | None) -> None:
    """Print rows, age, gaps, sources and rejects of every table."""
    answer = Answer(as_json, output)
    now = now_us()
    known = instant("--as-of", as_of, now)
    lake = the_lake(uri)
    rows = table_quality(lake, now=now, as_of=known)
    answer.give(f"tables of {lake.uri}", rows.filter(pl.col("rows") > 0))


def run_rejects(
    uri: str | None, *, top: int, as_of: str | None, as_json: bool, output: Path | None
) -> None:
    """Print refused rows, newest first."""
    answer = Answer(as_json, output)
    known = instant("--as-of", as_of, now_us())
    rows = the_lake(uri).read("rejects", as_of=known)
    newest = rows.sort("ts", "file", "row", descending=[True, False, False])
    columns = ["ts", "table", "file", "row", "column", "reason", "content"]
    shown = newest.select(columns) if output else newest.select(columns).head(top)
    answer.give("refused rows, newest first", shown, {"rejects": rows.height})
