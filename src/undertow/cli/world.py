"""`undertow world`: a synthetic ecosystem with known truth, kept in the lake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from undertow.cli.options import UnusableOption, now_us
from undertow.cli.output import Answer, Progress
from undertow.settings import load_settings

if TYPE_CHECKING:
    from undertow.store import Lake, Written
    from undertow.worlds import World


def run_world(
    name: str,
    *,
    accounts: int | None,
    lake: str | None,
    seed: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build the world called `name` and write it as one run."""
    from undertow.store import Lake

    answer = Answer(as_json, quiet=quiet)
    settings = load_settings()
    chosen = settings.seed if seed is None else seed
    if chosen < 0:
        raise UnusableOption(f"--seed was {chosen}", hint="a seed is a whole number from 0 on")
    world = _built(name, accounts, chosen)
    home = Lake.create(lake or settings.lake)
    written = keep_world(home, name, world, quiet=quiet)
    added = {table: rows for table, rows in written.added.items() if rows}
    answer.give_facts(
        {
            "lake": home.uri,
            "run": written.run,
            "seed": chosen,
            "accounts": world.tables["accounts"].height,
            "legs": world.tables["positions"].height,
            "added": added if as_json else f"{sum(added.values()):,} rows in {len(added)} tables",
        }
    )


def keep_world(lake: Lake, name: str, world: World, *, quiet: bool) -> Written:
    """Write a world's tables as one run; the same world again adds nothing."""
    tables = {table: rows for table, rows in world.tables.items() if rows.height}
    _refuse_other_data(lake, name, world.seed)
    detail = {
        "world": name,
        "seed": world.seed,
        "accounts": world.tables["accounts"].height,
        "truth": world.truth.as_json(),
    }
    progress = Progress("writing", quiet=quiet)
    return lake.write(tables, kind="world", now=now_us, detail=detail, progress=progress)


def _built(name: str, accounts: int | None, seed: int) -> World:
    from undertow import worlds

    if accounts is not None and name != "sized":
        raise UnusableOption(
            f"--accounts was {accounts}, but the world {name!r} has a size of its own",
            hint="say `undertow world sized --accounts N`",
        )
    if name == "tiny":
        return worlds.tiny_world()
    if name == "demo":
        return worlds.demo_world(seed=seed)
    if name == "bench":
        return worlds.bench_book(seed=seed)
    return worlds.build_world(seed, accounts=10_000 if accounts is None else accounts)


def _refuse_other_data(lake: Lake, name: str, seed: int) -> None:
    """An invented world may not be poured over anything else: its accounts are numbered from 1."""
    if not lake.exists():
        return
    for detail in lake.history().runs["detail"]:
        told = json.loads(detail)
        if (told.get("world"), told.get("seed")) != (name, seed):
            what = (
                f"the world {told['world']!r} of seed {told['seed']}" if "world" in told else "data"
            )
            raise UnusableOption(
                f"the lake {lake.uri} holds {what} already",
                hint="give another folder with --lake",
            )
