"""`undertow stress`: a scenario on a book, and what a risk committee asks about it.

`loaded` reads the book and `the_scenario` what happens to it; every command of this group starts
with these two.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from undertow.cli import FAILED
from undertow.cli.lake import the_lake
from undertow.cli.margins import left_out
from undertow.cli.options import UnusableOption, instant, iso, now_us
from undertow.cli.output import Answer, number, plain, render
from undertow.errors import UnreadableFile
from undertow.fanout import parse_executor
from undertow.kernels import cascade as notes
from undertow.kernels import is_cached
from undertow.rules.coverage import Coverage
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.settings import load_settings
from undertow.store.load import load_prices, load_snapshot
from undertow.stress import (
    Behaviour,
    Cascade,
    Deleveraging,
    End,
    Impact,
    Options,
    Outcome,
    Responses,
    Scenario,
    load_scenario,
    read_scenario,
    run_cascade,
    scenario_names,
    worst_cascade,
)
from undertow.stress.aftermath import REASONS
from undertow.stress.cascade import LEAK
from undertow.stress.coverage import covered_losses
from undertow.stress.owners import load_owner_rates
from undertow.stress.plan import Plan
from undertow.stress.shards import run_sharded

LARGEST_SCENARIO = 1 << 20  # bytes
_SWITCHES = ("capacity", "profitable", "oracles")
_RESPONSES = ("top-up", "delever", "unwind", "convert")
_SHARES = ("recovery", "withdrawal")
_CHANNELS = (*_SWITCHES, "deleveraging", *_RESPONSES, *_SHARES)
_OWN_ACTS = (notes.TOPPED_UP, notes.BY_OWNER)  # of fitted owners
_TOP = 10
_SHOWN_ROUNDS = 12
_LACKS = "accounts may lack legs, or markets depth"
_PLAIN = 0.005  # an amplification this near to 1 is none
_KERNELS = {
    "cascade": ("rounds", "run_rounds"),
    "sweep": ("sweep", "sweep_batch"),
    "liquidation map": ("atrisk", "first_called"),
    "undertow index": ("pressure", "add_differences"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the book comes from: a lake as of an instant, or an invented world."""

    lake: str | None = None
    world: str | None = None
    seed: int | None = None
    as_of: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A book, and the words for where it came from."""

    snapshot: Snapshot
    facts: Mapping[str, Any]
    prices: Callable[[float], pl.DataFrame]  # rows of the table `prices` of so many days before it


@dataclass(frozen=True, slots=True)
class Run:
    """How the cascade runs, where the command line says otherwise than the scenario."""

    impact: str | None = None
    channels: str | None = None
    rounds: int | None = None
    settle: bool = True
    check: bool = False
    behaviour: str | None = None

    def over(self, options: Options) -> Options:
        """The options of a scenario, with what the command line says in their place."""
        changed: dict[str, Any] = {}
        if self.impact is not None:
            changed["impact"] = Impact(self.impact)
        if self.rounds is not None:
            changed["max_rounds"] = self.rounds
        if self.behaviour is not None:
            changed["responses"] = self._responses(Behaviour(self.behaviour))
        options = replace(options, **changed)
        return with_channels(options, self.channels) if self.channels else options

    def _responses(self, behaviour: Behaviour) -> Responses:
        """What owners do in a behaviour that one cascade can have.

        Raises
        ------
        UnusableOption
            When it is the worst of several, or the channels speak of owners too.
        """
        named = [word.partition("=")[0].strip() for word in (self.channels or "").split(",")]
        both = [word for word in named if word.removeprefix("no-") in _RESPONSES]
        if both:
            raise UnusableOption(
                f"--behaviour was {behaviour.value!r} and --channels names {', '.join(both)}: "
                "both say what owners do",
                hint="give one or the other",
            )
        if behaviour is Behaviour.WORST:
            raise UnusableOption(
                "--behaviour was 'worst', which is known only after several cascades of a scenario",
                hint="only `undertow stress NAME` follows it; here it may be none, fitted, "
                "fitted-low or fitted-high",
            )
        return behaviour.responses


def run_stress(
    name: str,
    source: Source,
    run: Run,
    *,
    trace: str | None,
    top: int,
    shards: int | None,
    workers: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    keep: Path | None = None,
    force: bool = False,
) -> None:
    """Run one scenario on one book and tell what came of it."""
    executor = parse_executor(workers or "serial")
    if workers is not None and shards is None:
        raise UnusableOption(
            f"--workers was {workers!r}, but the accounts are not divided", hint="say --shards too"
        )
    to_stdout = trace == "-"
    if to_stdout and as_json:
        raise UnusableOption(
            "--trace was '-' and --json was given: both would answer on the terminal",
            hint="let the trace go to a file, or leave --json out",
        )
    answer = Answer(as_json, quiet=quiet)
    rows_to = facts_to = None
    if trace is not None and not to_stdout:
        rows_to = Answer(file=Path(trace), quiet=quiet, option="--trace")
    if out is not None:
        facts_to = Answer(file=out, quiet=quiet, option="--out", endings=(".json",))
    if keep is not None:
        from undertow.cli.kept import fixed, require_keepable

        require_keepable(keep, run, force=force)
        source = fixed(source)
    text = scenario_text(name)
    scenario = read_scenario(text, source=name)
    worst = run.behaviour == Behaviour.WORST.value
    options = (replace(run, behaviour=Behaviour.NONE.value) if worst else run).over(
        scenario.options
    )
    book = loaded(source, answer)
    began = time.monotonic()
    compiled = tell_of_compiling(answer)
    plan = Plan.of(book.snapshot)
    shards = shards and _at_most(shards, len(book.snapshot.book.owners), answer)
    follow = partial(run_sharded, shards=shards, executor=executor) if shards else run_cascade
    if worst:
        both = worst_cascade(
            plan, scenario, options, run=follow, settle=run.settle, check=run.check
        )
        note = f"{both}; it bounds nothing"
        cascade = replace(both.cascade, notes=(*both.cascade.notes, note))
    else:
        cascade = follow(plan, scenario, options, settle=run.settle, check=run.check)
    answer.say(f"{counted(cascade.rounds, 'round')}, {seconds_since(began, compiled)}")
    covered = Coverage.of(cascade.plan.snapshot)
    if keep is not None:
        from undertow.cli.kept import keep_run
        from undertow.stress.contagion import PLAIN

        keep_run(keep, text, book, source, run, channels=PLAIN, failed=(), answer=answer)
    if rows_to is not None:
        rows_to.give("trace", cascade.trace())
    facts = partial(as_facts, scenario, cascade, covered, book, top)
    if facts_to is not None:
        facts_to.give_facts(facts())
    if to_stdout:
        print(cascade.trace().write_ndjson(), end="")
    elif as_json:
        answer.give_facts(facts())
    else:
        _print(scenario, cascade, covered, book, top)
    _warn(answer, cascade)


def _at_most(shards: int, owners: int, answer: Answer) -> int:
    """As many shards as there are owners, who are never divided."""
    if shards <= owners:
        return shards
    answer.say(f"--shards was {shards}; there are {counted(owners, 'owner')}, so as many shards")
    return max(owners, 1)


def run_list(*, as_json: bool) -> None:
    """List the packaged replays of dated events, with what they rest on."""
    answer = Answer(as_json)
    known = [load_scenario(name) for name in scenario_names()]
    if as_json:
        facts = [
            {
                "name": each.name,
                "title": each.title,
                "date": each.date,
                "shocks": len(each.shocks),
                "facts": [{**asdict(f), "certainty": f.certainty.value} for f in each.facts],
            }
            for each in known
        ]
        answer.give_facts({"scenarios": facts})
        return
    rows = pl.DataFrame(
        [
            {"scenario": s.name, "shocks": len(s.shocks), "facts": len(s.facts), "title": s.title}
            for s in known
        ]
    )
    answer.give("packaged replays (undertow stress NAME); --json has facts and sources", rows)


def loaded(source: Source, answer: Answer) -> Loaded:
    """Read the book that the options name; say so where rows of its files were refused.

    Raises
    ------
    UnusableOption
        When they contradict each other.
    """
    if source.world is None:
        return _from_lake(source, answer)
    for option, value in (("--lake", source.lake), ("--as-of", source.as_of), ("--at", source.at)):
        if value is not None:
            raise UnusableOption(
                f"{option} was {value!r}, but --world invents a book",
                hint="give one or the other",
            )
    from undertow import worlds

    seed = load_settings().seed if source.seed is None else source.seed
    if seed < 0:
        raise UnusableOption(f"--seed was {seed}", hint="a seed is a whole number from 0 on")
    world = worlds.tiny_world() if source.world == "tiny" else worlds.demo_world(seed=seed)
    snapshot = world.snapshot()
    facts = {"at": iso(snapshot.ts), "world": source.world, "seed": world.seed}

    def prices(days: float) -> pl.DataFrame:
        since = pl.col("ts").cast(pl.Int64) >= snapshot.ts - int(days * 86_400_000_000)
        return world.tables["prices"].filter(since)

    return Loaded(snapshot, facts, prices)


def _from_lake(source: Source, answer: Answer) -> Loaded:
    if source.seed is not None:
        raise UnusableOption(
            f"--seed was {source.seed}, but a lake is what it is", hint="say --world too"
        )
    now = now_us()
    known = instant("--as-of", source.as_of, now)
    home = the_lake(source.lake)
    stands = home.standing(as_of=known)
    held = instant("--at", source.at, now)
    snapshot = load_snapshot(home, as_of=known, at=held)
    facts: dict[str, Any] = {
        "at": iso(snapshot.ts),
        "as_of": iso(stands.committed),
        "lake": home.uri,
    }
    for detail in home.history().runs["detail"]:
        told = json.loads(detail)
        if "world" in told:  # an invented book makes no replay, out of a lake either
            facts |= {"world": told["world"], "seed": told["seed"]}
    facts |= left_out(home, answer, known, held, tables=TABLES, lacks=_LACKS)

    def prices(days: float) -> pl.DataFrame:
        return load_prices(home, snapshot.ts, days=days, as_of=known)

    return Loaded(snapshot, facts, prices)


def the_scenario(name: str) -> Scenario:
    """A packaged replay by its name, or a scenario from a TOML file.

    Raises
    ------
    StateError
        When there is no such replay, or the file is no scenario.
    UnreadableFile
        When the file cannot be read.
    """
    return read_scenario(scenario_text(name), source=name)


def scenario_text(name: str) -> str:
    """The TOML of a packaged replay by its name, or of a file.

    Raises
    ------
    StateError
        When there is no such replay.
    UnreadableFile
        When the file cannot be read.
    """
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        load_scenario(name)  # says what names there are
        return (files("undertow.stress") / "library" / f"{name}.toml").read_text(encoding="utf-8")
    try:
        if path.stat().st_size > LARGEST_SCENARIO:
            raise UnreadableFile("a scenario is a short file", source=name)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableFile(f"could not be read: {error.strerror}", source=name) from error
    except UnicodeDecodeError as error:
        raise UnreadableFile("is no UTF-8 text", source=name) from error


def with_channels(options: Options, text: str) -> Options:
    """Options with channels switched: `capacity,no-oracles,recovery=0.2,deleveraging=none`.

    Raises
    ------
    UnusableOption
        When a channel is unknown or has a value that it cannot have.
    """
    changed: dict[str, Any] = {}
    responses: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = word.partition("=")
        off = name.startswith("no-") and not value
        name = name.removeprefix("no-") if off else name
        value = "off" if off else value or "on"
        if name in _SHARES:
            changed[name] = _share(name, value)
        elif name in _SWITCHES:
            changed[name] = _switch(name, value)
        elif name in _RESPONSES:
            responses[name.replace("-", "_")] = _switch(name, value)
        elif name == "deleveraging":
            changed[name] = _deleveraging(value)
        else:
            raise UnusableOption(
                f"--channels names {word!r}", hint=f"channels are {', '.join(_CHANNELS)}"
            )
    return replace(options, responses=replace(options.responses, **responses), **changed)


def _switch(name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise UnusableOption(f"--channels has {name}={value}", hint="it may be on or off")
    return value == "on"


def _share(name: str, value: str) -> float:
    try:
        return 0.0 if value == "off" else float(value)
    except ValueError:
        raise UnusableOption(
            f"--channels has {name}={value}", hint=f"give a number, as {name}=0.1"
        ) from None


def _deleveraging(value: str) -> Deleveraging:
    known = {"on": Deleveraging.PROFILE, "off": Deleveraging.NONE}
    known |= {each.value: each for each in Deleveraging}
    if value not in known:
        raise UnusableOption(
            f"--channels has deleveraging={value}", hint=f"it may be {', '.join(known)}"
        )
    return known[value]


def is_compiled(what: str) -> bool:
    """Whether something that takes minutes to compile was compiled on this machine before."""
    return is_cached(*_KERNELS[what])


def tell_of_compiling(answer: Answer, *what: str) -> bool:
    """Say so, and answer it, where a first run has to compile: it takes minutes, and only once.

    `what` is run: a cascade, or another of those whose kernels have a cache of their own.
    """
    missing = [each for each in what or ("cascade",) if not is_compiled(each)]
    if missing:
        each = " each" if len(missing) > 1 else ""
        words = f"compiling the {' and the '.join(missing)}: two minutes or so{each}"
        answer.say(f"{words}, once on this machine")
    return bool(missing)


def seconds_since(began: float, compiled: bool) -> str:
    """How long it took, and whether compiling is part of it."""
    return f"{time.monotonic() - began:.1f} s" + (", most of it compiling" if compiled else "")


def as_facts(
    scenario: Scenario, cascade: Cascade, covered: Coverage, book: Loaded, top: int
) -> dict[str, Any]:
    """A cascade as one object."""
    settled = cascade.settled
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "date": scenario.date,
        **book.facts,
        **cascade.headline(),
        "due_before": settled.headline() if settled is not None else None,
        "coverage": covered.share,
        "unseen": covered_losses(cascade, covered).to_dicts(),
        "worst_leak": cascade.worst_leak,
        "venues": cascade.by_venue().to_dicts(),
        "assets": cascade.by_asset().to_dicts(),
        "path": cascade.by_round().to_dicts(),
        "top_owners": cascade.by_owner().head(top).to_dicts(),
        "reserves": cascade.reserves().to_dicts(),
        "notes": list(cascade_notes(cascade)),
        "options": options_as_facts(cascade.options),
        "inputs_hash": cascade.stressed.digest,
    }


def options_as_facts(options: Any) -> dict[str, Any]:
    """How a cascade runs, as one object."""
    found: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if isinstance(value, Enum):
            value = value.value
        found[each.name] = options_as_facts(value) if each.name == "responses" else plain(value)
    return found


def _print(scenario: Scenario, cascade: Cascade, covered: Coverage, book: Loaded, top: int) -> None:
    """The report that a person reads: how bad, where, when, who, and on what assumptions."""
    print(f"{scenario.name}: {scenario.title}" if scenario.title else scenario.name)
    if "world" in book.facts:
        print("an illustration: an invented book makes no replay")
    print()
    for label, words in told(cascade, covered).items():
        print(f"  {label:<12}{words}")
    print()
    tables = (
        ("by venue, USD", _venues(cascade)),
        ("by asset, USD", _assets(cascade)),
        ("by round in which anybody was closed, USD", _rounds(cascade)),
        (f"owners, the largest {top}, USD", cascade.by_owner().head(top)),
        ("reserves that were run on, USD", cascade.reserves()),
    )
    for title, rows in tables:
        if rows.height:
            print(title)
            print(render(_plain_names(rows)))
            print()
    if covered.share is not None and covered.share < 1.0 - 1e-6:
        print("what was not seen, USD")
        print(render(_plain_names(covered_losses(cascade, covered).drop("coverage"))))
        print()
    assumed = assumptions(cascade.options, scenario.date, covered.share)
    print_assumed([*assumed, *cascade_notes(cascade)], book.facts)


def print_assumed(lines: Iterable[str], facts: Mapping[str, Any]) -> None:
    """What a result rests on, as the last part of a report; `facts` are those of the book."""
    print("assumed")
    refused = facts.get("rows_refused", 0)
    if refused:
        print(f"  - {counted(refused, 'row')} of its files were refused: {_LACKS}")
    for line in lines:
        print(f"  - {line}")


def cascade_notes(cascade: Cascade) -> tuple[str, ...]:
    """Notes of a cascade, and what of its scenario one cascade has no use for."""
    if cascade.stressed.correlation is None:
        return cascade.notes
    return (*cascade.notes, "a shock to correlations has a say in draws alone: add --monte-carlo")


def told(cascade: Cascade, covered: Coverage) -> dict[str, str]:
    """The headline in sentences."""
    head = cascade.headline()
    lost = head["bad_debt_usd"] + head["shortfall_usd"]
    more = head["amplification"]
    venues = cascade.by_venue()
    paid = {
        "funds": float(venues["funds_paid_usd"].sum()),
        "suppliers": float(venues["suppliers_bear_usd"].sum()),
        "winners": float(venues["winners_paid_usd"].sum()),
        "nobody": float(venues["uncovered_usd"].sum()),
    }
    minutes = number(cascade.options.round_us / 6e7)
    again = "" if more is None else f", {more:.3g} times"
    if more is not None and abs(more - 1.0) < _PLAIN:
        again = ", not amplified"
    under = number(head["insolvency_usd"])
    limited = cascade.outcome is Outcome.ROUND_LIMIT
    ended = "cut short by the round limit (--rounds)" if limited else "settled"
    still = ", still selling" if limited else ""
    if limited and only_owners_act(cascade):
        ended, still = "watched to the round limit (--rounds),", ", in the last closing nobody"
    lines = {
        "outcome": f"{ended} after {counted(head['rounds'], 'round')} of {minutes} min{still}",
        "prices": f"fell by {head['first_fall']:.1%} at first and {head['final_fall']:.1%} in the "
        f"end{again} (weighted with what is held)",
        "closed": f"{number(head['liquidated_usd'])} USD of {counted(head['accounts'], 'account')} "
        f"of {counted(head['owners'], 'owner')}, {head['owners_called_twice']:,} on several venues",
        "missing": f"{number(lost)} USD: {number(head['bad_debt_usd'])} bad debt, "
        f"{number(head['shortfall_usd'])} shortfall; {under} with what still stands under water",
        "borne by": ", ".join(f"{who} {number(usd)}" for who, usd in paid.items()),
    }
    if head["locked_usd"] > 0.0:
        lines["locked"] = f"{number(head['locked_usd'])} USD of deposits that wanted out"
    if cascade.settled is not None:
        due = cascade.settled.headline()
        lines["due before"] = (
            f"{number(due['liquidated_usd'])} USD of {counted(due['accounts'], 'account')} and "
            f"{number(due['insolvency_usd'])} missing without any shock; not counted above"
        )
    if covered.share is not None:
        lines["seen"] = f"{covered.share:.1%} of what the venues are known to hold"
    return lines


def only_owners_act(cascade: Cascade) -> bool:
    """Whether no venue closed anybody in the last round, and fitted owners alone go on.

    They do a little in every round, so a cascade with them seldom comes to an end.
    """
    if cascade.options.responses.fitted is None:
        return False
    last = cascade.trace().filter(pl.col("round") == cascade.rounds - 1)
    return set(last["reason"]) <= {REASONS[each] for each in _OWN_ACTS}


def counted(count: int, what: str) -> str:
    """A count with its noun."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def assumptions(options: Options, date: dt.date | None, covered: float | None) -> list[str]:
    """What a result rests on, in sentences; `covered` is the share of the venues that was seen."""
    responses = [
        each.name.replace("_", "-")
        for each in fields(options.responses)
        if getattr(options.responses, each.name) is True
    ]
    shown = "as the venues have them" if options.oracles else "read the market"
    carried = "limited" if options.capacity else "not limited"
    prices = f"impact {options.impact.value}, coupling {options.coupling:g}"
    said = [
        f"{prices}, recovery {options.recovery:g}, withdrawal {options.withdrawal:g}",
        f"oracles {shown}; liquidators {carried}"
        + (", never at a loss" if options.profitable else ""),
        f"deleveraging {options.deleveraging.value}; owners respond by "
        + (", ".join(responses) or "nothing"),
    ]
    if options.responses.fitted is not None:
        said.append(fitted_words(options.responses.fitted))
    if date is not None:
        said.append("the falls of a day contain its own forced sales: read a replay as severe")
    if covered is None:
        said.append("a lower bound: nothing says how much of its venues this book holds")
    return said


def fitted_words(end: End) -> str:
    """What fitted responses rest on, in a sentence."""
    rates = load_owner_rates()
    seen = " and ".join(
        f"{each.events} acts of {each.owners} {kind} owners" for kind, each in rates.items()
    )
    where = "in the middle" if end is End.MIDDLE else f"at the {end.value} end"
    return (
        f"owners act as often as {seen} say, {where} of the band: a rate a day, so little a round"
    )


def _venues(cascade: Cascade) -> pl.DataFrame:
    return cascade.by_venue().drop("repaid_usd", "liquidators_gain_usd", "venue_cut_usd")


def _assets(cascade: Cascade) -> pl.DataFrame:
    touched = pl.any_horizontal(pl.col("closed_usd", "sold_usd", "bad_debt_usd") != 0.0)
    moved = (pl.col("final_fall") != 0.0) | touched
    return cascade.by_asset().filter(moved).head(_TOP)


def _rounds(cascade: Cascade) -> pl.DataFrame:
    """The rounds in which anybody was closed: the first of them, and the last."""
    rows = cascade.by_round().filter(pl.col("accounts") > 0)
    if rows.height <= _SHOWN_ROUNDS:
        return rows
    return pl.concat([rows.head(_SHOWN_ROUNDS - 1), rows.tail(1)])


def _plain_names(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.rename({name: name.removesuffix("_usd") for name in rows.columns})


def _warn(answer: Answer, cascade: Cascade) -> None:
    if cascade.outcome is Outcome.ROUND_LIMIT and not only_owners_act(cascade):
        rounds = counted(cascade.rounds, "round")
        answer.say(f"warning: still selling after {rounds}; allow more with --rounds")
    leak = cascade.worst_leak
    if leak is not None and leak > LEAK:
        print(
            f"undertow: money leaks: a round's transfers sum to {leak:.2e} of the book, which is "
            f"more than the {LEAK:.0e} that rounding explains",
            file=sys.stderr,
        )
        sys.exit(FAILED)
