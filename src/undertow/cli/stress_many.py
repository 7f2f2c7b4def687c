"""`undertow stress sweep` and `reverse`: many cascades, and the one that would be too many."""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl

from undertow.cli.draws import Asked, Drawn, Law, in_words, over, require_rows, taken_from
from undertow.cli.options import UnusableOption
from undertow.cli.output import Answer, Progress, number
from undertow.cli.stress import (
    Loaded,
    Run,
    Source,
    assumptions,
    cascade_notes,
    counted,
    loaded,
    options_as_facts,
    print_assumed,
    seconds_since,
    tell_of_compiling,
    the_scenario,
)
from undertow.fanout import Executor, parse_executor
from undertow.kernels import sweep as kernel
from undertow.rules.coverage import Coverage
from undertow.settings import load_settings
from undertow.state import Universe
from undertow.stress import Cascade, Options, Plan, PricingMap, Scenario
from undertow.stress.cascade import Engine
from undertow.stress.ground import Ground, ground_of
from undertow.stress.nearest import Search
from undertow.stress.reverse import (
    CriticalSize,
    Loss,
    ReverseStress,
    critical_size,
    price_moves,
    reverse,
)
from undertow.stress.sweep import Sweep, run_sweep
from undertow.stress.tails import expected_shortfall, probability_beyond, tails_by

_LOSSES = {
    "insolvency": "insolvency",
    "bad_debt": "bad debt",
    "liquidated": "liquidations",
}
_ASSUMED = {"volatilities": "assumed", "correlations": "assumed"}
_LARGEST = 2.0  # times its size that a named scenario is looked at
_WORST = 5  # scenarios that are told one by one
_MOVED = 4  # assets of them that a person is shown
_STILL = 1e-9  # a move that is none
_SPARE = 0.5  # share of the memory that the results of a sweep may take


@dataclass(frozen=True, slots=True)
class Many:
    """How many scenarios are drawn, how far out the tail begins, and who works on them."""

    count: int
    tail: float
    workers: str | None = None
    ray: str | None = None
    draw_seed: int | None = None

    def executor(self) -> Executor:
        """Where the work is done.

        Raises
        ------
        UnusableOption
            When two places are named.
        SettingsError
            When one is none.
        """
        if self.ray is None:
            return parse_executor(self.workers or "serial")
        if self.workers is not None:
            raise UnusableOption(
                f"--workers was {self.workers!r} and --ray {self.ray!r}",
                hint="give one or the other",
            )
        return parse_executor(f"ray:{self.ray}")


@dataclass(frozen=True, eq=False)
class Told:
    """A sweep with all that is said of it."""

    sweep: Sweep
    drawn: Drawn
    ground: Ground
    scenario: Scenario | None
    many: Many
    seed: int
    book: Mapping[str, Any]
    covered: Coverage

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before believing a number."""
        closed = self.sweep.by_asset[:, kernel.BY_CLOSED].sum(axis=0)
        plan, options = self.ground.plan, self.sweep.options
        sold = plan.gross_usd * closed[plan.snapshot.universe.asset_of]
        return (*self.drawn.notes, *self.ground.notes(options, sold))


def run_many(
    source: Source,
    run: Run,
    many: Many,
    asked: Asked,
    *,
    scenario: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw joint scenarios, follow each to its end, and tell how bad the bad ones are."""
    answer = Answer(as_json, quiet=quiet)
    rows_to = None if out is None else Answer(file=out, quiet=quiet, option="--out")
    law, executor = Law.of(asked), many.executor()
    first = None if scenario is None else the_scenario(scenario)
    options = run.over(Options() if first is None else first.options)
    seed = load_settings().seed if many.draw_seed is None else many.draw_seed
    with executor.running():  # who cannot be reached is known before any work is done
        book = loaded(source, answer)
        _require_memory(many.count, book.snapshot.universe)
        made_of = law.material(book)
        require_rows(many.count, asked, made_of.given)
        compiled = tell_of_compiling(answer, "cascade", "sweep")
        ground = ground_of(
            Plan.of(book.snapshot),
            first,
            options,
            settle=run.settle,
            correlation=made_of.correlation,
        )
        drawn = law.drawn(ground, made_of)
        bar = Progress("scenarios", quiet=quiet)
        bar(0, many.count)
        began = time.monotonic()
        found = run_sweep(
            ground.plan, drawn.draws, many.count, seed=seed, stressed=ground.stressed,
            options=options, settled=False, executor=executor,
            progress=lambda done, total: bar(done, total or many.count),
        )  # fmt: skip
    answer.say(f"{counted(many.count, 'scenario')}, {seconds_since(began, compiled)}")
    covered = Coverage.of(ground.plan.snapshot)
    told = Told(found, drawn, ground, first, many, seed, book.facts, covered)
    if rows_to is not None:
        rows_to.give("scenarios", found.to_polars())
    if as_json:
        answer.give_facts(as_facts(told))
    else:
        _print(told)


def as_facts(told: Told) -> dict[str, Any]:
    """A sweep as one object: tails with their bands, by venue, by asset, and the worst of it."""
    found, settled = told.sweep, told.ground.settled
    return {
        "scenario": told.scenario.name if told.scenario else None,
        "scenarios": len(found),
        "tail": told.many.tail,
        "draws": {**told.drawn.facts, "seed": told.seed},
        **told.book,
        **_headline(told),
        "due_before": settled.headline() if settled is not None else None,
        "coverage": told.covered.share,
        "venues": by_venue(told).to_dicts(),
        "assets": by_asset(told).to_dicts(),
        "worst": _worst(told),
        "notes": list(told.notes),
        "options": options_as_facts(found.options),
        "inputs_hash": told.ground.stressed.digest,
    }


def _headline(told: Told) -> dict[str, Any]:
    """Tails with their bands, and means."""
    found, q = told.sweep, told.many.tail
    rows = found.rows
    twice = rows["called_twice"].astype(np.float64)
    chance, far = probability_beyond(twice), expected_shortfall(twice, q=q)
    facts: dict[str, Any] = {
        "accounts_mean": float(rows["accounts"].mean()),
        "owners_mean": float(rows["owners"].mean()),
        "owners_called_twice_mean": float(twice.mean()),
        "owners_called_twice_most": int(rows["called_twice"].max()),
        "owners_called_twice_es": far.value,
        "owners_called_twice_es_low": far.low,
        "owners_called_twice_es_high": far.high,
        "owners_called_twice_chance": chance.value,
        "owners_called_twice_chance_low": chance.low,
        "owners_called_twice_chance_high": chance.high,
        "most_venues": int(rows["most_venues"].max()),
        "rounds_mean": float(rows["rounds"].mean()),
        "unsettled": int((rows["outcome"] != 0).sum()),
    }
    for of in ("insolvency", "liquidated"):
        for name, tail in (
            ("var", found.value_at_risk(q, of=of)),
            ("es", found.expected_shortfall(q, of=of)),
        ):
            facts[f"{of}_{name}_usd"] = tail.value
            facts[f"{of}_{name}_low_usd"] = max(tail.low, 0.0)  # neither is ever negative
            facts[f"{of}_{name}_high_usd"] = tail.high
            facts[f"{of}_{name}_notes"] = list(tail.words)
    return facts


def by_venue(told: Told) -> pl.DataFrame:
    """Means over scenarios by venue, and the tail of its insolvency on its own."""
    found = told.sweep
    names = found.plan.snapshot.universe.venues
    return _with_tails(found.venues(), found.by_venue, names, told.many.tail)


def by_asset(told: Told) -> pl.DataFrame:
    """The same by asset."""
    found = told.sweep
    names = found.plan.snapshot.universe.assets
    return _with_tails(found.assets(), found.by_asset, names, told.many.tail)


def _with_tails(means: pl.DataFrame, sums: Any, names: tuple[str, ...], q: float) -> pl.DataFrame:
    lost = sums[:, [kernel.BY_BAD, kernel.BY_SHORT, kernel.BY_LACKING]].sum(axis=1)
    tails = tails_by(lost, names, q=q)
    called = {
        name: "share_of_es" if name == "share" else f"insolvency_{name}_usd"
        for name in tails.columns
        if name != "part"
    }
    key = means.columns[0]
    return means.join(
        tails.rename({"part": key, **called}), on=key, how="left", maintain_order="left"
    )


def _worst(told: Told) -> list[dict[str, Any]]:
    """The scenarios that lost most, with the moves of prices that they began with."""
    found, ground = told.sweep, told.ground
    order = np.lexsort((-found.liquidated_usd, -found.insolvency_usd))[:_WORST]
    order = order[(found.insolvency_usd + found.liquidated_usd)[order] > 0.0]
    pricing, universe = PricingMap.of(ground.plan.snapshot), ground.plan.snapshot.universe
    worst = []
    for n in order:
        factor = told.drawn.draws.draw(told.seed, int(n), 1)[0] + ground.stressed.factor
        moves = np.expm1(pricing.asset_moves(factor))
        worst.append(
            {
                "scenario": int(n),
                "insolvency_usd": float(found.insolvency_usd[n]),
                "liquidated_usd": float(found.liquidated_usd[n]),
                "accounts": int(found.rows["accounts"][n]),
                "rounds": int(found.rows["rounds"][n]),
                "moves": {universe.assets[k]: float(moves[k]) for k in np.flatnonzero(moves)},
            }
        )
    return worst


def _print(told: Told) -> None:
    """The report that a person reads."""
    many, facts = told.many, _headline(told)
    under = f" on top of {told.scenario.name}" if told.scenario else ""
    print(f"{counted(many.count, 'joint scenario')}{under}")
    if "world" in told.book:
        print("an illustration: the book is invented")
    print()
    for of in ("insolvency", "liquidated"):
        for name, words in (("var", "VaR"), ("es", "ES")):
            value, low, high = (facts[f"{of}_{name}{end}_usd"] for end in ("", "_low", "_high"))
            print(f"  {of:<11}{words} {many.tail:.1%}: {number(value)} USD ({_band(low, high)})")
    for note, which in _said_of(facts).items():
        print(f"             {which}: {note}")
    print(
        f"  closed     {number(facts['accounts_mean'])} accounts of {number(facts['owners_mean'])} "
        "owners on average"
    )
    print(
        f"  twice      {number(facts['owners_called_twice_mean'])} owners are called on several "
        f"venues on average, {number(facts['owners_called_twice_es'])} in the tail; "
        f"{facts['most_venues']} venues at most call one owner"
    )
    if told.ground.settled is not None:
        due = told.ground.settled.headline()
        print(
            f"  due before {number(due['liquidated_usd'])} USD closed and "
            f"{number(due['insolvency_usd'])} missing without any shock; not counted above"
        )
    if facts["unsettled"]:
        print(
            f"  unsettled  {counted(facts['unsettled'], 'scenario')} still sold when cut short by "
            f"the limit of {counted(told.sweep.options.max_rounds, 'round')}, --rounds"
        )
    print()
    answer = Answer()
    for title, rows in (
        ("by venue, means over scenarios and its own tail, USD", _shown(by_venue(told))),
        ("by asset, means over scenarios and its own tail, USD", _shown(by_asset(told))),
        ("the worst scenarios, and the moves of what is held most", _worst_shown(told)),
    ):
        if rows.height:
            answer.give(title, rows)
            print()
    date = told.scenario.date if told.scenario else None
    assumed = assumptions(told.sweep.options, date, told.covered.share)
    print_assumed([in_words(told.drawn.facts), *assumed, *told.notes], told.book)


def _band(low: float, high: float) -> str:
    """A band in words."""
    if math.isfinite(high):
        return f"{number(low)} to {number(high)} at 95 %"
    return f"at least {number(low)} at 95 %, no upper bound"


def _said_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is to be known of VaR and ES, each thing once, and of which losses."""
    which: dict[str, list[str]] = {}
    for of in ("insolvency", "liquidated"):
        for name in ("var", "es"):
            for note in facts[f"{of}_{name}_notes"]:
                losses = which.setdefault(note, [])
                losses += [of] if of not in losses else []
    return {note: " and ".join(losses) for note, losses in which.items()}


def _shown(rows: pl.DataFrame) -> pl.DataFrame:
    """A table without its bands, which --json has, and without units in its heads."""
    kept = [name for name in rows.columns if not name.endswith(("_low_usd", "_high_usd"))]
    return rows.select(kept).rename({name: name.removesuffix("_usd") for name in kept})


def _worst_shown(told: Told) -> pl.DataFrame:
    plan = told.ground.plan
    universe = plan.snapshot.universe
    held = np.bincount(universe.asset_of, weights=plan.gross_usd, minlength=len(universe.assets))
    held[universe.stable] = 0.0
    most = [universe.assets[k] for k in np.argsort(-held, kind="stable")[:_MOVED]]
    rows = [
        {
            **{key.removesuffix("_usd"): value for key, value in each.items() if key != "moves"},
            **{name: f"{each['moves'].get(name, 0.0):+.1%}" for name in most},
        }
        for each in _worst(told)
    ]
    return pl.DataFrame(rows)


def _require_memory(count: int, universe: Universe) -> None:
    """Refuse a sweep whose results alone do not fit into this machine.

    Raises
    ------
    UnusableOption
        Saying how much they take, and how many would fit.
    """
    each = kernel.SUMMARY.itemsize + 8 * kernel.SUMS * (len(universe.assets) + len(universe.venues))
    room = int(_SPARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if count * each > room:
        raise UnusableOption(
            f"--monte-carlo was {count:,}: its results alone take {count * each / 2**30:,.0f} GiB",
            hint=f"this machine has room for {room // each:,} at most",
        )


Found = TypeVar("Found", bound=ReverseStress | CriticalSize)


@dataclass(frozen=True, eq=False)
class Sought(Generic[Found]):
    """A search, what it found, and the cascade there."""

    found: Found
    there: Cascade  # at what was found; where the target was not reached, at the largest loss
    ground: Ground
    of: str
    notes: tuple[str, ...]
    book: Mapping[str, Any]

    @property
    def target(self) -> str:
        """The loss that was to be reached, in words."""
        return f"{number(self.found.target)} USD of {_LOSSES[self.of]}"

    @cached_property
    def covered(self) -> float | None:
        """The share of its venues that the book holds."""
        return Coverage.of(self.ground.plan.snapshot).share

    def facts(self) -> dict[str, Any]:
        """What either search is told with."""
        settled = self.ground.settled
        return {
            "target_usd": self.found.target, "of": self.of, "outcome": self.found.search.value,
            "loss_usd": self.found.loss, "monotone": self.found.monotone,
            "stays": self.found.stays, "evaluations": self.found.evaluations, **self.book,
            "due_before": settled.headline() if settled is not None else None,
            "coverage": self.covered, "notes": list(self.notes),
            "options": options_as_facts(self.there.options),
            "inputs_hash": self.there.stressed.digest,
        }  # fmt: skip

    def print_head(self, title: str, lines: Mapping[str, str]) -> None:
        """The first part of the report."""
        print(title)
        if "world" in self.book:
            print("an illustration: the book is invented")
        print()
        for label, words in lines.items():
            print(f"  {label:<11}{words}")
        print()

    def print_foot(self, first: Sequence[str], date: dt.date | None) -> None:
        """The last."""
        assumed = assumptions(self.there.options, date, self.covered)
        print_assumed([*first, *assumed, *self.notes], self.book)


def run_reverse(
    source: Source,
    run: Run,
    *,
    target: float,
    of: str,
    scenario: str | None,
    days: float,
    budget: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the most plausible shock that loses a target, or how large a named one has to be."""
    if not 0.0 < target < math.inf:
        raise UnusableOption(f"--target was {target:g}", hint="give a finite loss in USD above 0")
    if of not in _LOSSES:
        raise UnusableOption(f"--of was {of!r}", hint=f"it may be {', '.join(_LOSSES)}")
    answer = Answer(as_json, quiet=quiet)
    named = None if scenario is None else the_scenario(scenario)
    options = run.over(Options() if named is None else named.options)
    book = loaded(source, answer)
    began = time.monotonic()
    compiled = tell_of_compiling(answer)
    ground = ground_of(Plan.of(book.snapshot), None, options, settle=run.settle)
    if named is None:
        shock = _plausible(ground, options, target, of, days, budget, book)
        facts, show = _shock_as_facts(shock, days, budget), partial(_print_shock, shock, days)
    else:
        size = _critical(ground, named, options, target, of, book)
        facts, show = _size_as_facts(size, named), partial(_print_size, size, named)
    answer.say(f"{counted(facts['evaluations'], 'cascade')}, {seconds_since(began, compiled)}")
    if as_json:
        answer.give_facts(facts)
    else:
        show()


def _plausible(
    ground: Ground,
    options: Options,
    target: float,
    of: str,
    days: float,
    budget: int,
    book: Loaded,
) -> Sought[ReverseStress]:
    """The most plausible shock that loses the target."""
    engine = Engine(ground.plan)
    found = reverse(
        ground.plan, target_usd=target, loss=of, days=days, options=options, engine=engine,
        budget=budget,
    )  # fmt: skip
    moved = ground.stressed.put("factor", slice(None), found.shock)
    there = engine.run(moved, options, trace=False, path=False)
    notes = (*found.notes, *cascade_notes(there))
    if found.spent:
        notes = (f"{counted(budget, 'cascade')} ended the search: --budget allows more", *notes)
    return Sought(found, there, ground, of, notes, book.facts)


def _shock_as_facts(sought: Sought[ReverseStress], days: float, budget: int) -> dict[str, Any]:
    """The most plausible shock as one object; where there is none, the largest loss apart."""
    found = sought.found
    reached = found.search is not Search.NOT_REACHED
    facts: dict[str, Any] = {
        "called": found.called if reached else None,
        "distance": found.distance if reached else None,
        "beyond": found.beyond if reached else None,
        "probability": found.probability if reached else None,
        "agree": found.agree, "starts": len(found.distances), "spread": found.spread,
        "spent": found.spent, "budget": budget, "components": found.components,
        "days": days, **_ASSUMED,
    }  # fmt: skip
    if found.spent:  # nobody looked
        facts |= {"monotone": None, "stays": None}
    moves = _moves(sought).to_dicts()
    most = {"loss_usd": found.loss, "distance": found.distance, "moves": moves}
    facts |= {"moves": moves} if reached else {"moves": [], "largest_loss": most}
    return sought.facts() | facts


def _moves(sought: Sought[ReverseStress]) -> pl.DataFrame:
    """The moves of factors, and of the prices that they make."""
    prices = price_moves(sought.ground.plan.snapshot, sought.found)
    moves = sought.found.to_polars()
    return moves.join(
        prices.rename({"asset": "factor", "move": "price_move"}), on="factor", maintain_order="left"
    )


def _print_shock(sought: Sought[ReverseStress], days: float) -> None:
    """The report that a person reads."""
    found = sought.found
    moves = _moves(sought).filter(pl.col("log_move").abs() > _STILL)
    plausible = f"what is plausible {over(days)}: {taken_from(_ASSUMED)}"
    tried = f"{counted(found.evaluations, 'cascade')} in {counted(found.components, 'direction')}"
    lines = {"searched": tried + (": --budget ended it" if found.spent else "")}
    if found.search is Search.AT_REST:
        title = f"{sought.target} are lost before anything moves"
        lines = {"loses": f"{number(found.loss)} USD at rest"}
    elif found.search is Search.NOT_REACHED:
        title = f"no shock that was tried loses {sought.target}"
        largest = ", ".join(
            f"{name} {move:+.1%}"
            for name, move in moves.select("factor", "price_move").rows()[:_MOVED]
        )
        where = f", {found.distance:.3g} deviations out: {largest}" if largest else ", at rest"
        lines = {"at most": f"{number(found.loss)} USD{where}", **lines}
    else:
        title = f"{found.called} to lose {sought.target}"
        lines = {**_trust(found), **lines}
    sought.print_head(title, lines)
    if found.search is Search.REACHED:
        Answer().give(
            "moves, also in deviations of their own, and what they make of prices",
            moves.drop("log_move"),
        )
        print()
    sought.print_foot([plausible], None)


def _trust(found: ReverseStress) -> dict[str, str]:
    """How far out a shock is, and how far to believe that, in sentences."""
    starts = len(found.distances)
    ended = "one alone came this far, which proves little (agree)"
    if starts > 1:
        ended = (
            f"{found.agree} of {starts} ended within 1 % of it (agree), the farthest "
            f"{found.spread:.1%} further out (spread)"
        )
    return {
        "loses": f"{number(found.loss)} USD",
        "distance": f"{found.distance:.3g} standard deviations, along its own direction",
        "chance": f"{found.beyond:.2g} of losing as much, were moves normal and losses straight "
        f"(beyond); {found.probability:.2g} of any move as far out (probability)",
        "starts": ended,
        "on its way": "not looked at: the budget was spent"
        if found.spent
        else _rising(found.monotone, found.stays),
    }


def _rising(monotone: bool, stays: bool) -> str:
    """Whether more is always worse, as far as was looked."""
    on = "never falls (monotone)" if monotone else "falls at times (not monotone)"
    back = "stays over the target (stays)" if stays else "comes back under the target (stays not)"
    return f"the loss {on}; beyond, it {back}"


def _critical(
    ground: Ground,
    scenario: Scenario,
    options: Options,
    target: float,
    of: str,
    book: Loaded,
) -> Sought[CriticalSize]:
    """The least size of a named scenario at which the target is lost."""
    scenario.apply(ground.plan.snapshot)  # what it speaks of in vain is an error, not a size

    def at(size: float) -> Cascade:
        happened = ground_of(ground.plan, scenario.scaled(size), options, settle=False)
        return Engine(happened.plan).run(happened.stressed, options, trace=False, path=False)

    loss = Loss(of).headline
    found = critical_size(lambda size: float(at(size).headline()[loss]), target, 0.0, _LARGEST)
    there = at(_worst_size(found) if found.search is Search.NOT_REACHED else found.size)
    return Sought(found, there, ground, of, cascade_notes(there), book.facts)


def _worst_size(found: CriticalSize) -> float:
    """The size that lost most."""
    return max(found.looked, key=lambda each: each[1])[0]


def _size_as_facts(sought: Sought[CriticalSize], scenario: Scenario) -> dict[str, Any]:
    """The critical size as one object."""
    found = sought.found
    return {
        "scenario": scenario.name, **sought.facts(), "size": found.size, "below": found.below,
        "refused": found.refused or None, "largest_loss_at": _worst_size(found),
    }  # fmt: skip


def _print_size(sought: Sought[CriticalSize], scenario: Scenario) -> None:
    """The report that a person reads."""
    found, name = sought.found, scenario.name
    far = found.looked[-1][0]
    tried = f"{counted(found.evaluations, 'cascade')}, up to {far:.4g} times its size"
    lines = {"searched": tried}
    if found.search is Search.AT_REST:
        title = f"{sought.target} are lost without {name}"
        lines = {"loses": f"{number(found.loss)} USD at rest"}
    elif found.search is Search.NOT_REACHED:
        title = f"{name}: {sought.target} are not reached up to {found.below:.4g} times its size"
        if found.refused:
            title += f"; beyond that the engine refuses: {found.refused}"
        at = f"at {_worst_size(found):.4g} times its size"
        lines = {"at most": f"{number(found.loss)} USD, {at}", **lines}
    else:
        title = f"{name} at {found.size:.4g} times its size loses {sought.target}"
        how = _rising(found.monotone, found.stays)
        lines = {"loses": f"{number(found.loss)} USD", "on its way": how, **lines}
    sought.print_head(title, lines)
    sought.print_foot([], scenario.date)
