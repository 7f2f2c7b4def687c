"""`undertow trace` and `undertow stress contagion`: how losses travel, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from undertow.cli.kept import (
    chosen_channels,
    fixed,
    is_kept,
    keep_run,
    read_kept,
    require_keepable,
    require_known,
)
from undertow.cli.options import UnusableOption, iso
from undertow.cli.output import Answer, Progress, plain, render
from undertow.cli.stress import (
    Loaded,
    Run,
    Source,
    assumptions,
    loaded,
    options_as_facts,
    print_assumed,
    scenario_text,
    tell_of_compiling,
)
from undertow.measures import Study
from undertow.measures.interconnection.candidates import KINDS
from undertow.measures.interconnection.contagion import ENDS, contagion
from undertow.measures.interconnection.paths import paths
from undertow.measures.interconnection.pathwords import bearer, money
from undertow.measures.interconnection.web import Web
from undertow.measures.words import many, percent
from undertow.rules.coverage import Coverage
from undertow.store.causegraph import ENDINGS, graph_text
from undertow.stress import Behaviour, Scenario, read_scenario
from undertow.stress.contagion import CHANNELS, Channels, Solver

_SHOWN = 10  # rows of a table on the terminal
_FAILING = (*KINDS, "issuer")  # kinds of nodes that can fail
_CALM = 'name = "nothing but who fails"\n'


@dataclass(frozen=True, slots=True)
class Asked:
    """What a trace is of, and how much of it is shown."""

    to: str | None
    top: int  # bearers
    chains: int  # to each of them
    target: str
    most: int | None
    draw_seed: int
    only: str | None
    without: str | None
    failed: tuple[str, ...]


def run_contagion(
    name: str | None,
    source: Source,
    run: Run,
    *,
    only: str | None,
    without: str | None,
    failed: Sequence[str],
    ends: bool,
    keep: Path | None,
    force: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Follow a scenario through all channels and tell what it costs, by which, and who bears it."""
    answer = Answer(as_json, quiet=quiet)
    channels = chosen_channels(only, without, Channels())
    to = Answer(file=out, quiet=quiet, option="--out", endings=(".json",)) if out else None
    if name is None and not failed:
        raise UnusableOption(
            "neither a scenario nor who fails was named",
            hint="undertow stress contagion 2025-10-10, or --failed custodian:NAME",
        )
    if keep is not None:
        require_keepable(keep, run, force=force)
        source = fixed(source)
    text = _CALM if name is None else scenario_text(name)
    scenario = _with_options(read_scenario(text, source=name or "--failed"), run)
    book = loaded(source, answer)
    tell_of_compiling(answer)
    web = _web(book, run)
    _require_failing(failed, web)
    study = contagion(web, scenario=scenario, failed=failed, channels=channels,
                      ends=ENDS if ends else {})  # fmt: skip
    if keep is not None:
        keep_run(keep, text, book, source, run, channels=channels, failed=failed, answer=answer)
    facts = _facts(study, scenario, channels, failed, book)
    if to is not None:
        to.give_facts(facts)
    if as_json:
        answer.give_facts(facts)
        return
    _head(scenario, study, book)
    shown = {
        "by channels, USD": study.tables["channels"].drop("dearer_usd", "locked_usd"),
        "who bears what is lost, USD": bearers_table(study.tables["bearers"], _SHOWN),
        "who pays less than it owes, USD": study.tables["parties"]
        .filter(pl.col("share") < 1.0)
        .select("party", "sort", "owed_usd", "share", "least_share", "defaulted"),
        "who did not pay whom, USD (not to be added up)": study.tables["handed_on"],
        "if an assumption were at an end, USD": study.tables["assumptions"],
    }
    for title, rows in shown.items():
        _table(title, rows)
    _foot(study, scenario, book)


def run_trace(
    name: str,
    source: Source,
    asked: Asked,
    *,
    graph: Path | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say which way a shock took to each loss, and what each channel and origin did to it."""
    answer = Answer(as_json, quiet=quiet)
    graph_to = out_to = None
    if graph is not None:
        graph_to = Answer(file=graph, quiet=quiet, option="--graph", endings=ENDINGS)
    if out is not None:
        out_to = Answer(file=out, quiet=quiet, option="--out", endings=(".json",))
    scenario, channels, failed, run, book = _to_trace(name, source, asked, answer)
    tell_of_compiling(answer)
    bar = Progress("tracing", quiet=quiet)
    web = _web(book, run)
    _require_failing(failed, web)
    study = paths(
        web, scenario=scenario, failed=failed, channels=channels, to=asked.to,
        target=asked.target, top=asked.chains, most=asked.most, seed=asked.draw_seed, progress=bar,
    )  # fmt: skip
    if graph_to is not None and graph_to.file is not None:
        nodes, edges = study.tables["nodes"], study.tables["edges"]
        about = {"scenario": scenario.name, "at": book.facts["at"], "target": asked.target,
                 "inputs": book.snapshot.digest}  # fmt: skip
        whole = graph_text(nodes, edges, about, graph_to.file.suffix.lower())
        graph_to.keep(lambda part: part.write_text(whole, encoding="utf-8"))
        answer.say(f"{nodes.height} nodes and {edges.height} edges in {graph_to.file}")
    facts = _facts(study, scenario, channels, failed, book)
    if out_to is not None:
        out_to.give_facts(facts)
    if as_json:
        answer.give_facts(facts)
        return
    _head(scenario, study, book)
    _table("what channels add, USD", study.tables["channels"])
    _table("what it comes from, USD", study.tables["origins"])
    _table("where it began, USD", study.tables["began"].group_by("kind", maintain_order=True)
           .head(3))  # fmt: skip
    _print_bearers(study, asked.top)
    _print_chains(study, asked.top)
    _foot(study, scenario, book)


def _to_trace(
    name: str, source: Source, asked: Asked, answer: Answer
) -> tuple[Scenario, Channels, tuple[str, ...], Run, Loaded]:
    """What is traced: a kept run made again, or a scenario by its name."""
    if not is_kept(name):
        require_known(name)
        channels = chosen_channels(asked.only, asked.without, Channels())
        scenario = read_scenario(scenario_text(name), source=name)
        return scenario, channels, asked.failed, Run(), loaded(source, answer)
    for option, value in (("--world", source.world), ("--seed", source.seed),
                          ("--as-of", source.as_of), ("--at", source.at),
                          ("--failed", asked.failed or None)):  # fmt: skip
        if value is not None:
            raise UnusableOption(
                f"{option} was given, but {name!r} is a kept run, which says it itself",
                hint="leave it out, or trace the scenario by its name",
            )
    kept = read_kept(Path(name))
    channels = chosen_channels(asked.only, asked.without, kept.channels)
    return kept.scenario, channels, kept.failed, kept.run, kept.book(answer, lake=source.lake)


def _with_options(scenario: Scenario, run: Run) -> Scenario:
    if run.behaviour == Behaviour.WORST.value:
        raise UnusableOption(
            "--behaviour was 'worst', which is known only after several cascades",
            hint="here it may be none, fitted, fitted-low or fitted-high",
        )
    return replace(scenario, options=run.over(scenario.options))


def _web(book: Loaded, run: Run) -> Web:
    """The book with its solver; one that is not settled first where the run was not."""
    web = Web.of(book.snapshot)
    if not run.settle:
        web.__dict__["solver"] = Solver.of(web.crowd.plan, settle=False)  # in place of its own
    return web


def _require_failing(failed: Sequence[str], web: Web) -> None:
    """Refuse a name without its kind, offering those that are meant; and who owes nobody."""
    for name in failed:
        kind, _, key = name.partition(":")
        if kind in _FAILING:
            if kind == "owner" and name not in web.snapshot.claims.nodes and _has(web, kind, key):
                raise UnusableOption(
                    f"--failed was {name!r}, who owes nobody outside its venues, so that nobody is "
                    "left unpaid",
                    hint="accounts are closed by a shock to prices: name a scenario",
                )
        elif meant := [f"{each}:{name}" for each in _FAILING if _has(web, each, name)]:
            raise UnusableOption(
                f"--failed was {name!r}, which says no kind",
                hint=f"did you mean {' or '.join(meant)}?",
            )


def _has(web: Web, kind: str, key: str) -> bool:
    return web.map.keys[kind].cast(pl.String).index_of(key) is not None


def _facts(
    study: Study, scenario: Scenario, channels: Channels, failed: Sequence[str], book: Loaded
) -> dict[str, Any]:
    """A study as one object, with what it stands on."""
    told = study.as_json()
    told["readings"] = [{**row, "ts": iso(row["ts"])} for row in told["readings"]]
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "date": scenario.date,
        **book.facts,
        "channels_on": list(channels.on),
        "failed": list(failed),
        "options": options_as_facts(scenario.options),
        "inputs_hash": book.snapshot.digest,
        **plain(told),
    }


def _head(scenario: Scenario, study: Study, book: Loaded) -> None:
    print(f"{scenario.name}: {scenario.title}" if scenario.title else scenario.name)
    if "world" in book.facts:
        print("an illustration: an invented book makes no replay")
    print()
    for sentence in study.says:
        print(f"  {sentence}")
    print()


def _foot(study: Study, scenario: Scenario, book: Loaded) -> None:
    covered = Coverage.of(book.snapshot).share
    print_assumed(assumptions(scenario.options, scenario.date, covered), book.facts)
    print(f"\nhow to read it: {study.how_to_read}")
    print(f"\nwhen it misleads: {study.misleads}")


def _table(title: str, table: pl.DataFrame, rows: int = len(CHANNELS) + 8) -> None:
    if not table.height:
        return
    print(title)
    bare = table.rename({name: name.removesuffix("_usd") for name in table.columns})
    print(render(bare.head(rows)))
    print()


def bearers_table(bearers: pl.DataFrame, top: int) -> pl.DataFrame:
    """The largest bearers by the names that they are spoken of, the others as one, and the sum.

    What is taken off is below 0 and none of the others: it stands by itself, above the sum.
    """
    whole = float(bearers["usd"].sum())
    if not bearers.height:
        return bearers.select("bearer", "usd")
    bear, off = bearers.filter(pl.col("usd") >= 0.0), bearers.filter(pl.col("usd") < 0.0)
    shown, rest = _called(bear.head(top)), bear.slice(top)
    if rest.height:
        shown.append((many(rest.height, "other"), float(rest["usd"].sum())))
    shown += _called(off)
    rows = [(name, usd, usd / whole if whole else None) for name, usd in [*shown, ("all", whole)]]
    names = {"bearer": pl.String, "usd": pl.Float64, "share": pl.Float64}
    return pl.DataFrame(rows, schema=names, orient="row")


def _called(bearers: pl.DataFrame) -> list[tuple[str, float]]:
    rows = bearers.select("kind", "bearer", "usd").iter_rows()
    return [(bearer(kind, name), usd) for kind, name, usd in rows]


def _print_bearers(study: Study, top: int) -> None:
    """Who bears most, and in one line how many more there are and what they bear."""
    bearers = study.tables["bearers"]
    shown = bearers.head(top)
    called = [bearer(kind, name) for kind, name in shown.select("kind", "bearer").iter_rows()]
    _table("who bears it, USD", shown.select(
        pl.Series("bearer", called, dtype=pl.String), "usd", chains_explain="shown"),
        rows=top)  # fmt: skip
    rest = bearers.slice(top)
    if rest.height:
        sum_usd = money(float(rest["usd"].sum()))
        print(f"  … and {rest.height:,} more, who bear {sum_usd} USD in all (--top N, or --json)\n")


def _print_chains(study: Study, top: int) -> None:
    """The heaviest chains of those who bear most, a step a line."""
    bearers, chains, steps = (study.tables[name] for name in ("bearers", "chains", "steps"))
    for row in bearers.head(top).iter_rows(named=True):
        who = bearer(row["kind"], row["bearer"])
        print(f"{who}: {money(row['usd'])} USD, of which {percent(row['shown'])} by")
        mine = chains.filter((pl.col("bearer") == row["bearer"]) & (pl.col("kind") == row["kind"]))
        for chain in mine.iter_rows(named=True):
            print(f"  {chain['rank']}. {percent(chain['share'])}, {money(chain['usd'])} USD")
            here = (pl.col("bearer") == row["bearer"]) & (pl.col("of") == row["kind"])
            path = steps.filter(here & (pl.col("rank") == chain["rank"]))
            for number, words in enumerate(path["says"]):
                print(f"     {'→ ' if number else ''}{words}")
        print()
