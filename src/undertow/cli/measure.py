"""`undertow measure` and `undertow report`: what the lake shows, in numbers, words and pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from undertow.assess import Assessment, assess
from undertow.cli import FAILED
from undertow.cli.lake import the_lake
from undertow.cli.measure_shock import ChosenShock, shocked
from undertow.cli.measure_tables import MAIN, main_tables
from undertow.cli.options import UnusableOption, instant, iso, now_us
from undertow.cli.output import Answer, Progress, render
from undertow.cli.stress import is_compiled, tell_of_compiling
from undertow.fanout import Executor, Serial, Threads, parse_executor
from undertow.fanout.machine import usable_cpus
from undertow.measures import FAMILIES, MEASURES, Measure, Study, chosen
from undertow.measures.words import many
from undertow.report.words import unit
from undertow.settings import load_settings
from undertow.state import Reading, readings_frame
from undertow.store import Lake

_SHOWN = 8  # rows of a table on the terminal
# What measures run that compiles for minutes, the first time on a machine: first what they always
# run, then what they run in some books.
_RUNS = {
    "tandem.unwind": ("cascade",),
    "interconnection.calls": ("cascade",),
    "interconnection.contagion": ("cascade",),
    "interconnection.paths": ("cascade",),
    "interconnection.links": ("cascade",),
    "interconnection.nodes": ("cascade",),
    "crowding.map": ("liquidation map",),
    "crowding.surface": ("liquidation map",),
    "crowding.synchrony": ("sweep", "cascade"),
    "crowding.fragility": ("sweep", "cascade"),
    "crowding.saturation": ("undertow index", "cascade", "sweep"),
}
_WIDEST = 160  # characters of a table on the terminal, beyond which its lines would only be broken


def run_list(*, as_json: bool, output: Path | None = None, quiet: bool = False) -> None:
    """Print every measure and what it asks, or keep the list in a file."""
    answer = Answer(as_json, output, quiet)
    rows = pl.DataFrame(
        {
            "measure": [each.name for each in MEASURES],
            "asks": [each.question for each in MEASURES],
            "needs": [" and ".join(each.needs) for each in MEASURES],
        }
    )
    answer.give("measures", rows)


def run_measure(
    names: list[str],
    *,
    by: str,
    lake: str | None,
    as_of: str | None,
    at: str | None,
    seed: int | None,
    level: float,
    workers: str | None,
    identities: Path | None = None,
    sure: float = 0.0,
    fall: float | None = None,
    scenario: str | None = None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
) -> None:
    """Print the studies of the measures asked for, after a shock of the user's where one is chosen.

    A file keeps their readings alone; with `as_json` it keeps all that would be printed.
    """
    answer = Answer(as_json, output, quiet)
    if as_json and output is not None and output.suffix.lower() != ".json":
        raise UnusableOption(
            f"--json with --output keeps whole studies, and --output was {str(output)!r}",
            hint="name a .json file, or leave --json out to keep the readings alone",
        )
    links, shock = (identities, sure), ChosenShock.of(fall, scenario)
    found = _assessed(
        the_lake(lake), names, by, as_of, at, seed, level, workers, links, answer, shock
    )
    if not found.studies:
        for sentence in found.untold:
            print(sentence, file=sys.stderr)  # --quiet too: it is why nothing comes
        sys.exit(FAILED)
    facts: dict[str, Any] = {
        "at": iso(found.ts),
        "as_of": iso(found.as_of) if found.as_of is not None else None,
        "by": by,
        **(shock.facts if shock is not None else {}),
        "notes": list(found.notes),
        "not_told": dict(found.not_told),
        "provenance": dict(found.provenance),
    }
    if as_json:
        answer.give_facts({**facts, "studies": [_plain(study) for study in found.studies]})
    elif output is not None:
        answer.give("readings", readings_frame(found.readings), facts)
        answer.say("it keeps readings alone; for tables and words too: --json -o FILE.json")
        for note in found.notes:
            answer.say(note)
    else:
        print(f"{found.title} at {iso(found.ts)}")
        for note in found.notes:
            if note not in found.untold:
                print(f"  {note}")
        for study in found.studies:
            _print(study)
        for sentence in found.untold:
            print(f"\n{sentence}")


def run_report(
    file: Path,
    *,
    names: list[str],
    by: str,
    lake: str | None,
    as_of: str | None,
    at: str | None,
    seed: int | None,
    level: float,
    workers: str | None,
    identities: Path | None = None,
    sure: float = 0.0,
    fall: float | None = None,
    scenario: str | None = None,
    quiet: bool,
) -> None:
    """Write everything that was found into one HTML file."""
    answer = the_page(file, quiet=quiet)
    links, shock = (identities, sure), ChosenShock.of(fall, scenario)
    found = _assessed(
        the_lake(lake), names, by, as_of, at, seed, level, workers, links, answer, shock,
        narrow=False,
    )  # fmt: skip
    write_report(found, answer)
    answer.say(f"{len(found.readings)} readings of {len(found.studies)} measures in {file}")
    for note in found.notes:
        answer.say(note)


def the_page(file: Path, *, quiet: bool = False) -> Answer:
    """Where a report goes; refused before any work where it cannot be written."""
    return Answer(file=file, quiet=quiet, endings=(".html", ".htm"))


def write_report(found: Assessment, page: Answer) -> None:
    """Write an assessment as one HTML file, whole or not at all."""
    from undertow.report.write import html

    whole = html(found)
    page.keep(lambda part: part.write_text(whole, encoding="utf-8"))


def _assessed(
    lake: Lake, names: list[str], by: str, as_of: str | None, at: str | None,
    seed: int | None, level: float, workers: str | None, links: tuple[Path | None, float],
    answer: Answer, shock: ChosenShock | None = None, *, narrow: bool = True,
) -> Assessment:  # fmt: skip
    if not 0.0 < level < 1.0:
        raise UnusableOption(f"--level was {level:g}", hint="a share: 0.9 is 90 %")
    executor, now = executor_of(workers), now_us()
    measures: Sequence[Measure] = chosen(names or FAMILIES)
    notes: tuple[str, ...] = ()
    if shock is not None and narrow:
        measures, notes = shocked(names, shock)
    only = [measure.name for measure in measures]
    tell_of_measuring(answer, only)
    bar = Progress("measuring", quiet=answer.quiet)
    with executor.running():  # who cannot be reached is known before any work is done
        return assess(
            lake,
            now=now,
            as_of=instant("--as-of", as_of, now),
            at=instant("--at", at, now),
            by=by,
            only=only,
            seed=seed_of_measures(seed),
            level=level,
            identities=links[0],
            sure=links[1],
            fall=shock.fall if shock is not None else None,
            scenario=shock.scenario if shock is not None else None,
            notes=notes,
            executor=executor,
            progress=lambda done, total, _: bar(done, total),
        )


def tell_of_measuring(answer: Answer, names: Sequence[str]) -> None:
    """Say so where the first run of these measures has to compile: it stands still for minutes."""
    new = [_RUNS[name] for name in names if name in _RUNS and not is_compiled(_RUNS[name][0])]
    if new:
        tell_of_compiling(answer, *dict.fromkeys(what for runs in new for what in runs))


def seed_of_measures(seed: int | None) -> int:
    """The seed that was asked for, here or in the settings, else that of Python's own default."""
    if seed is not None:
        return seed
    settings = load_settings()
    return settings.seed if "seed" in settings.model_fields_set else 0


def executor_of(workers: str | None) -> Executor:
    """The workers that were named; unless any were, a thread for each usable CPU."""
    if workers is not None:
        return parse_executor(workers)
    cpus = usable_cpus()
    return Threads(cpus) if cpus > 1 else Serial()


def _print(study: Study) -> None:
    print(f"\n{study.name}: {study.title}")
    for sentence in study.says:
        print(f"  {sentence}")
    for title, rows, of in main_tables(study):
        print(f"{title}\n{render(rows)}")
        if of > rows.height:
            print(f"  … and {of - rows.height:,} more (--json)")
    if study.readings:
        print(render(_readings(study.readings[:_SHOWN])))
        if len(study.readings) > _SHOWN:
            print(f"  … and {len(study.readings) - _SHOWN} more (--json)")
    told = {each.table for each in MAIN.get(study.name, ())}
    for name, table in study.tables.items():
        if name in told:
            continue
        drawn = render(table) if 0 < table.height <= _SHOWN else ""
        if drawn and max(map(len, drawn.splitlines())) <= _WIDEST:
            print(f"{name}\n{drawn}")
        elif table.height:
            print(f"{name}: {many(table.height, 'row')} of {table.width} columns (--json)")
    for node, why in study.left_out.items():
        print(f"  left out: {node}: {why}")
    print(f"  how to read it: {study.how_to_read}")
    print(f"  when it misleads: {study.misleads}")


def _plain(study: Study) -> dict[str, Any]:
    """A study as plain values, with every instant in the one shape that answers have."""
    told = study.as_json()
    told["readings"] = [{**row, "ts": iso(row["ts"])} for row in told["readings"]]
    return told


def _readings(readings: tuple[Reading, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "reading": [r.name for r in readings],
            "of": [r.subject or "all" for r in readings],
            "value": [r.value for r in readings],
            "low": [r.low for r in readings],
            "high": [r.high for r in readings],
            "unit": [unit(r.unit) for r in readings],
        },
        schema_overrides=dict.fromkeys(("value", "low", "high"), pl.Float64),
    )
