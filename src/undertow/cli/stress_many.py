"""`undertow stress sweep` and `reverse`: many cascades, and the one that would be too many."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from undertow.cli.draws import Asked, Drawn, Law, in_words, require_rows
from undertow.cli.options import UnusableOption
from undertow.cli.output import Answer, Progress, number
from undertow.cli.stress import (
    Run,
    Source,
    assumptions,
    loaded,
    options_as_facts,
    tell_of_compiling,
    the_scenario,
)
from undertow.fanout import Executor, parse_executor
from undertow.kernels import sweep as kernel
from undertow.settings import load_settings
from undertow.state import Universe
from undertow.stress import Options, Plan, PricingMap, Scenario
from undertow.stress.cascade import Engine
from undertow.stress.coverage import Coverage
from undertow.stress.ground import Ground, ground_of
from undertow.stress.reverse import critical_size, reverse
from undertow.stress.sweep import Sweep, run_sweep
from undertow.stress.tails import expected_shortfall, probability_beyond, tails_by

_LOSSES = ("bad_debt", "liquidated", "insolvency")
_WORST = 5  # scenarios that are told one by one
_MOVED = 4  # assets of them that a person is shown
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
        return (*self.drawn.notes, *self.ground.stressed.notes)


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
    rows_to = None if out is None else Answer(file=out, quiet=quiet)
    law, executor = Law.of(asked), many.executor()
    first = None if scenario is None else the_scenario(scenario)
    options = run.over(Options() if first is None else first.options)
    seed = load_settings().seed if many.draw_seed is None else many.draw_seed
    with executor.running():  # who cannot be reached is known before any work is done
        book = loaded(source)
        _require_memory(many.count, book.snapshot.universe)
        made_of = law.material(book)
        require_rows(many.count, asked, made_of.given)
        tell_of_compiling(answer)
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
    answer.say(f"{many.count:,} scenarios, {time.monotonic() - began:.1f} s")
    covered = Coverage.of(ground.plan)
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
            facts[f"{of}_{name}_low_usd"] = tail.low
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
    print(f"{many.count:,} joint scenarios{under}")
    if "world" in told.book:
        print("an illustration: the book is invented")
    print()
    for of in ("insolvency", "liquidated"):
        for name, words in (("var", "VaR"), ("es", "ES")):
            value, low, high = (facts[f"{of}_{name}{end}_usd"] for end in ("", "_low", "_high"))
            band = f"{number(low)} to {number(high)}"
            print(f"  {of:<11}{words} {many.tail:.1%}: {number(value)} USD ({band} at 95 %)")
            for note in facts[f"{of}_{name}_notes"]:
                print(f"             {note}")
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
        print(f"  unsettled  {facts['unsettled']:,} scenarios still sold at the round limit")
    print()
    answer = Answer()
    for title, rows in (
        ("by venue, means over scenarios and its own tail, USD", _shown(by_venue(told))),
        ("by asset, means over scenarios and its own tail, USD", _shown(by_asset(told))),
        ("the worst scenarios, and the moves of what is held most", _worst_shown(told)),
    ):
        answer.give(title, rows)
        print()
    print("assumed")
    date = told.scenario.date if told.scenario else None
    for note in (
        in_words(told.drawn.facts),
        *assumptions(told.sweep.options, date, told.covered.share),
        *told.notes,
    ):
        print(f"  - {note}")


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
    book = loaded(source)
    tell_of_compiling(answer)
    plan = Plan.of(book.snapshot)
    if scenario is not None:
        _critical(answer, plan, scenario, run, target, of)
        return
    found = reverse(
        plan, target_usd=target, loss=of, days=days, options=run.over(Options()), budget=budget
    )
    facts = {
        "target_usd": target, "of": of, "outcome": found.search.value, "distance": found.distance,
        "loss_usd": found.loss, "evaluations": found.evaluations, "agree": found.agree,
        "spread": found.spread, "monotone": found.monotone, "stays": found.stays,
        "notes": list(found.notes), **book.facts,
    }  # fmt: skip
    if as_json:
        answer.give_facts(facts | {"moves": found.to_polars().to_dicts()})
        return
    answer.give_facts(facts)
    answer.give("moves, the largest first", found.to_polars())


def _critical(answer: Answer, plan: Plan, name: str, run: Run, target: float, of: str) -> None:
    """The least size of a named scenario at which the target is lost."""
    scenario = the_scenario(name)
    options = run.over(scenario.options)
    calm = ground_of(plan, None, options, settle=run.settle).plan

    def lost(size: float) -> float:
        ground = ground_of(calm, scenario.scaled(size), options, settle=False)
        ran = Engine(ground.plan).run(ground.stressed, options, trace=False, path=False)
        return float(ran.headline()[f"{of}_usd"])

    found = critical_size(lost, target, 0.0, 2.0)
    answer.give_facts(
        {
            "scenario": scenario.name, "target_usd": target, "of": of,
            "outcome": found.search.value, "size": found.size, "loss_usd": found.loss,
            "monotone": found.monotone, "stays": found.stays, "evaluations": found.evaluations,
        }
    )  # fmt: skip
