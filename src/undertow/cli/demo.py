"""`undertow demo`: a demo world into a lake, back out as a state, and what it says."""

from __future__ import annotations

import time
from pathlib import Path

from undertow.cli.options import iso
from undertow.cli.output import Answer
from undertow.cli.world import keep_world
from undertow.rules.margins import margins
from undertow.settings import load_settings
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.worlds import demo_world


def run_demo(folder: Path, *, seed: int | None, as_json: bool, quiet: bool) -> None:
    """Build, keep, load, judge, and print the leverage of every venue."""
    answer = Answer(as_json, quiet=quiet)
    chosen = load_settings().seed if seed is None else seed
    began = time.monotonic()
    world = demo_world(seed=chosen)
    lake = Lake.create(folder / "lake")
    written = keep_world(lake, "demo", world, quiet=quiet)
    answer.say(f"world of seed {chosen} in {lake.uri}: {sum(written.added.values()):,} new rows")
    snapshot = load_snapshot(lake)
    judged = margins(snapshot)
    answer.say(f"{snapshot.book} judged, {time.monotonic() - began:.1f} s in all")
    answer.give(
        "leverage by venue (assets, debt, notional and equity in USD)",
        judged.add_up("venue"),
        {
            "at": iso(snapshot.ts),
            "accounts": snapshot.book.accounts,
            "owners": len(snapshot.book.owners),
            "legs": len(snapshot.book),
            "breached": int(judged.breached.sum()),
            "inputs_hash": snapshot.digest,
            "note": "a synthetic ecosystem: no real account is in it",
        },
    )
    answer.say(f"look further: undertow margins --lake {lake.uri} --sort distance")
