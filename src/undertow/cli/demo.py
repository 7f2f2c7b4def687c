"""`undertow demo`: a demo world into a lake, back out as a state, and what it says.

Two dated replays run on it as well. Nothing of what they say is about those days: the book is
invented, so they only show what an answer looks like.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl

from undertow.assess import assess
from undertow.cli.measure import seed_of_measures, tell_of_measuring, the_page, write_report
from undertow.cli.options import iso, now_us
from undertow.cli.output import Answer
from undertow.cli.stress import tell_of_compiling
from undertow.cli.world import keep_world
from undertow.measures import MEASURES
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.settings import load_settings
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.stress import Plan, load_scenario, run_cascade
from undertow.worlds import demo_world

REPLAYS = ("2020-03-12", "2025-10-10")
_SHOWN = (
    "outcome", "rounds", "first_fall", "final_fall", "accounts", "owners", "liquidated_usd",
    "bad_debt_usd", "shortfall_usd", "insolvency_usd",
)  # fmt: skip


def run_demo(folder: Path, *, seed: int | None, report: bool, as_json: bool, quiet: bool) -> None:
    """Build, keep, load, judge, print the leverage of every venue, and write a report."""
    answer, page = Answer(as_json, quiet=quiet), folder / "report.html"
    chosen = load_settings().seed if seed is None else seed
    began = time.monotonic()
    lake = Lake.create(folder / "lake")
    if report:
        the_page(page)  # before the work
    world = demo_world(seed=chosen)
    written = keep_world(lake, "demo", world, quiet=quiet)
    answer.say(f"world of seed {chosen} in {lake.uri}: {sum(written.added.values()):,} new rows")
    snapshot = load_snapshot(lake)
    judged = margins(snapshot)
    answer.say(f"{snapshot.book} judged, {time.monotonic() - began:.1f} s in all")
    facts: dict[str, Any] = {
        "at": iso(snapshot.ts),
        "accounts": snapshot.book.accounts,
        "owners": len(snapshot.book.owners),
        "legs": len(snapshot.book),
        "breached": int(judged.breached.sum()),
        "inputs_hash": snapshot.digest,
        "note": "a synthetic ecosystem: no real account is in it",
    }
    title = "leverage by venue (assets, debt, notional and equity in USD)"
    if not as_json:
        answer.give(title, judged.add_up("venue"), facts)
    tell_of_compiling(answer)
    replays = replayed(snapshot)
    if as_json:
        facts["replays"] = replays.to_dicts()
        answer.give(title, judged.add_up("venue"), facts)
    else:
        print()
        answer.give("an illustration: two dated shocks on this invented book (USD)", replays)
    if report:
        tell_of_measuring(answer, [measure.name for measure in MEASURES])
        answer.say("measuring what moves together, who is crowded and who hangs on whom: minutes")
        write_report(assess(lake, now=now_us(), seed=seed_of_measures(seed)), the_page(page))
        answer.say(f"a report on all of it: {page}")
    where = f"--lake {lake.uri}"
    answer.say(f"look further: undertow margins {where} --sort distance")
    answer.say(f"              undertow stress {REPLAYS[-1]} {where}")
    answer.say(f"              undertow measure crowding.map {where}")
    answer.say(f"              undertow map show asset:vUSDC {where}")


def replayed(snapshot: Snapshot) -> pl.DataFrame:
    """What the shocks of two dated events do to an invented book, a row each."""
    plan = Plan.of(snapshot)
    rows = []
    for name in REPLAYS:
        head = run_cascade(plan, load_scenario(name), trace=False).headline()
        shown = {key.removesuffix("_usd"): value for key, value in head.items() if key in _SHOWN}
        rows.append({"scenario": name, **shown})
    return pl.DataFrame(rows)
