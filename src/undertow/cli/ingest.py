"""`undertow ingest tables`: table files into the lake."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from undertow.cli.options import now_us
from undertow.cli.output import Answer, Progress
from undertow.settings import load_settings
from undertow.store import Lake, Limits, ingest_tables

_MIB = 1 << 20
_SHOWN = ("file", "table", "rows", "added", "known", "rejected", "filtered", "run")


def run_ingest(
    paths: list[Path],
    *,
    table: str | None,
    mapping: Path | None,
    dry_run: bool,
    lake: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ingest, say what became of every file, and leave with 4 where rows were refused."""
    answer = Answer(as_json, quiet=quiet)
    settings = load_settings()
    limits = Limits(
        file_bytes=settings.largest_file_mib * _MIB, line_bytes=settings.longest_line_mib * _MIB
    )
    report = ingest_tables(
        Lake.at(lake or settings.lake),
        paths,
        now=now_us,
        table=table,
        mapping=mapping,
        dry_run=dry_run,
        limits=limits,
        progress=Progress("ingesting", quiet=quiet),
    )
    if as_json:
        answer.give_facts(report.as_json())
    else:
        rows = pl.DataFrame([each.as_json() for each in report.files]).select(_SHOWN)
        answer.give("checked, nothing written" if dry_run else "ingested", rows)
        for each in report.files:
            for note in each.notes:
                answer.say(f"note: {note}")
            for line in each.sample:
                answer.say(f"rejected: {line}")
            if each.rejected > len(each.sample):
                answer.say(f"rejected: {each.rejected - len(each.sample)} more of {each.file}")
    sys.exit(report.exit_code)
