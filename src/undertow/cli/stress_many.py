"""`undertow stress sweep` and `reverse`: many cascades, and the one that would be too many."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from undertow.cli.options import UnusableOption
from undertow.cli.output import Answer, Progress, number
from undertow.cli.stress import Run, Source, loaded, tell_of_compiling, the_scenario
from undertow.fanout import parse_executor
from undertow.settings import load_settings
from undertow.stress import Options, Plan
from undertow.stress.cascade import Engine, settle
from undertow.stress.draws import assumed_draws
from undertow.stress.reverse import critical_size, reverse
from undertow.stress.sweep import Sweep, run_sweep

_LOSSES = ("bad_debt", "liquidated", "insolvency")


@dataclass(frozen=True, slots=True)
class Many:
    """How many scenarios are drawn, over which horizon, and who works on them."""

    count: int
    days: float
    tail: float
    workers: str


def run_many(
    source: Source, run: Run, many: Many, *, draw_seed: int | None, as_json: bool, quiet: bool
) -> None:
    """Draw joint scenarios, follow each to its end, and tell how bad the bad ones are."""
    answer = Answer(as_json, quiet=quiet)
    book = loaded(source)
    executor = parse_executor(many.workers)
    tell_of_compiling(answer)
    plan = Plan.of(book.snapshot)
    draws = assumed_draws(book.snapshot, days=many.days)
    seed = load_settings().seed if draw_seed is None else draw_seed
    bar = Progress("scenarios", quiet=quiet)
    began = time.monotonic()
    found = run_sweep(
        plan, draws, many.count, seed=seed, options=run.over(Options()), settled=run.settle,
        executor=executor, progress=lambda done, total: bar(done, total or many.count),
    )  # fmt: skip
    answer.say(f"{many.count:,} scenarios, {time.monotonic() - began:.1f} s")
    facts = {
        "scenarios": many.count,
        "days": many.days,
        "seed": seed,
        **book.facts,
        **_told(found, many),
    }
    if as_json:
        facts |= {"venues": found.venues().to_dicts(), "assets": found.assets().to_dicts()}
        answer.give_facts(facts)
        return
    _print(found, many, book.facts)


def _told(found: Sweep, many: Many) -> dict[str, Any]:
    """Tails with their bands, and means, as one object."""
    rows = found.rows
    facts: dict[str, Any] = {
        "accounts_mean": float(rows["accounts"].mean()),
        "owners_mean": float(rows["owners"].mean()),
        "owners_called_twice_mean": float(rows["called_twice"].mean()),
        "most_venues": int(rows["most_venues"].max()),
        "rounds_mean": float(rows["rounds"].mean()),
        "unsettled": int((rows["outcome"] != 0).sum()),
    }
    for of in ("insolvency", "liquidated"):
        for name, tail in (
            ("var", found.value_at_risk(many.tail, of=of)),
            ("es", found.expected_shortfall(many.tail, of=of)),
        ):
            facts[f"{of}_{name}_usd"] = tail.value
            facts[f"{of}_{name}_low_usd"] = tail.low
            facts[f"{of}_{name}_high_usd"] = tail.high
            facts[f"{of}_{name}_notes"] = list(tail.words)
    return facts


def _print(found: Sweep, many: Many, facts: Any) -> None:
    """The report that a person reads."""
    told = _told(found, many)
    print(f"{many.count:,} joint scenarios over {number(many.days)} days")
    if "world" in facts:
        print("an illustration: the book is invented")
    print()
    for of in ("insolvency", "liquidated"):
        for name, words in (("var", "VaR"), ("es", "ES")):
            value, low, high = (told[f"{of}_{name}{end}_usd"] for end in ("", "_low", "_high"))
            band = f"{number(low)} to {number(high)}"
            print(f"  {of:<11}{words} {many.tail:.1%}: {number(value)} USD ({band} at 95 %)")
            for note in told[f"{of}_{name}_notes"]:
                print(f"             {note}")
    print(
        f"  closed     {number(told['accounts_mean'])} accounts of {number(told['owners_mean'])} "
        f"owners on average; {number(told['owners_called_twice_mean'])} owners on several venues, "
        f"{told['most_venues']} venues at most call one owner"
    )
    if told["unsettled"]:
        print(f"  unsettled  {told['unsettled']:,} scenarios still sold at the round limit")
    print()
    answer = Answer()
    answer.give("by venue, means over scenarios, USD", found.venues())
    answer.give("by asset, means over scenarios, USD", found.assets())
    print("assumed: joint moves of a t copula on the volatilities that `stress.assumed` states")


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
    if target <= 0.0:
        raise UnusableOption(f"--target was {target:g}", hint="give a loss in USD above 0")
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
    base = settle(plan, options).plan if run.settle else plan
    engine = Engine(base)

    def lost(size: float) -> float:
        stressed = scenario.scaled(size).apply(base.snapshot)
        ran = engine.run(stressed, options, trace=False, path=False)
        return float(ran.headline()[f"{of}_usd"])

    found = critical_size(lost, target, 0.0, 2.0)
    answer.give_facts(
        {
            "scenario": scenario.name, "target_usd": target, "of": of,
            "outcome": found.search.value, "size": found.size, "loss_usd": found.loss,
            "monotone": found.monotone, "stays": found.stays, "evaluations": found.evaluations,
        }
    )  # fmt: skip
