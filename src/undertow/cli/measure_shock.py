"""`undertow measure --fall` and `--scenario`: what is measured after a shock that the user chose.

Some measures start from a shock and have one of their own, a common fall of a fifth. Here it is
another, and only measures that have one are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from undertow.assess import Assessment, assess, leverage_history
from undertow.cli.options import UnusableOption
from undertow.cli.stress import the_scenario
from undertow.errors import EstimationError, StateError
from undertow.fanout import Executor
from undertow.measures import FAMILIES, MEASURES, Ground, Measure, Study, chosen
from undertow.measures.interconnection.contagion import FALL
from undertow.measures.interconnection.identities import Identities, linked
from undertow.measures.words import listed, percent
from undertow.rules.snapshot import Snapshot
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.stress import Scenario

_FURTHEST, _LEAST = 0.999, -10.0  # falls that measures take; below 0 is a rise


@dataclass(frozen=True, slots=True)
class ChosenShock:
    """A common fall, or a scenario."""

    fall: float = FALL
    scenario: Scenario | None = None

    @classmethod
    def of(cls, fall: float | None, scenario: str | None) -> ChosenShock | None:
        """What the options choose; None where they choose nothing.

        Raises
        ------
        UnusableOption
            When they are both given, or the fall is none.
        StateError, UnreadableFile
            When there is no such scenario.
        """
        if scenario is not None:
            if fall is not None:
                raise UnusableOption(
                    "--fall and --scenario are both a shock, and one is measured at a time",
                    hint="give one or the other",
                )
            return cls(scenario=the_scenario(scenario))
        if fall is None:
            return None
        if not _LEAST <= fall <= _FURTHEST:
            share = 1.0 < fall <= 100.0
            raise UnusableOption(
                f"--fall was {fall:g}; it may be {_LEAST:g}, a rise, to {_FURTHEST:g}",
                hint=f"it is a fraction: {fall / 100.0:g} is {fall:g} %" if share
                else "it is a fraction: 0.2 is 20 %",
            )  # fmt: skip
        return cls(fall=fall)

    @property
    def option(self) -> str:
        """The option that chose it."""
        return "--fall" if self.scenario is None else "--scenario"

    @property
    def words(self) -> str:
        """It as a sentence has it."""
        if self.scenario is not None:
            return self.scenario.name
        way = "rise" if self.fall < 0.0 else "fall"
        return f"a common {way} of {percent(abs(self.fall))}"

    @property
    def facts(self) -> dict[str, Any]:
        """It as a program reads it."""
        return {"fall": self.fall} if self.scenario is None else {"scenario": self.scenario.name}


@dataclass(frozen=True, eq=False)
class _Shocked(Ground):
    """A ground that says which shock its measures start from."""

    fall: float = FALL
    scenario: Scenario | None = None


def starts_from_a_shock(measure: Measure) -> bool:
    """Whether a measure takes a common fall, and a scenario in its place."""
    return {"fall", "scenario"} <= set(signature(measure.made).parameters)


def shocked(names: Sequence[str], shock: ChosenShock) -> tuple[list[Measure], tuple[str, ...]]:
    """The measures among those named that start from a shock, and a note of who is left out.

    A family stands for those of its own that do.

    Raises
    ------
    UnusableOption
        When one was named that does not, or a family has none.
    """
    known = [each.name for each in MEASURES if starts_from_a_shock(each)]
    for name in names:
        if not any(starts_from_a_shock(each) for each in chosen([name])):
            what = "has no measure that takes a shock" if name in FAMILIES else "takes no shock"
            raise UnusableOption(
                f"{shock.option} was given, but {name} {what}",
                hint=f"{listed(known, len(known))} do",
            )
    every = chosen(names or FAMILIES)
    found = [each for each in every if starts_from_a_shock(each)]
    rest = [each.name for each in every if each not in found]
    if not names or not rest:
        return found, ()
    verb = "takes" if len(rest) == 1 else "take"
    return found, (f"{listed(rest, len(rest))} {verb} no shock and are not among these",)


def assess_after(
    shock: ChosenShock,
    lake: Lake,
    *,
    names: Sequence[str],
    now: int,
    as_of: int | None,
    at: int | None,
    by: str,
    seed: int,
    level: float,
    links: tuple[Path | None, float],
    executor: Executor,
    progress: Callable[[int, int, str], None],
) -> Assessment:
    """What `assess` says of measures that start from a shock, after the one that was chosen.

    Raises
    ------
    StoreError, StateError
        As `assess`, and when the book has nothing of what the scenario changes.
    UnusableOption
        When a measure was named that does not start from a shock.
    """
    measures, left_out = shocked(names, shock)
    frame = assess(
        lake, now=now, as_of=as_of, at=at, by=by, only=(), seed=seed, level=level,
        identities=links[0], sure=links[1],
    )  # fmt: skip
    snapshot = load_snapshot(lake, as_of=as_of, at=at)
    if links[0] is not None:
        snapshot = linked(snapshot, Identities.of(snapshot.book, links[0]), sure=links[1])
    if shock.scenario is not None:
        shock.scenario.apply(snapshot)  # what it names and the book lacks is misuse
    ground = _Shocked(
        by, snapshot, seed=seed, level=level, executor=executor, fall=shock.fall,
        scenario=shock.scenario,
    )  # fmt: skip
    history: Mapping[str, Any] = {}
    if any("history" in measure.takes for measure in measures):
        ground = replace(ground, history=_history(lake, snapshot, by, as_of))
        if ground.history is not None:
            history = {"history_hash": ground.history.digest}
    studies, not_told = list[Study](), dict[str, str]()
    for place, measure in enumerate(measures):
        progress(place, len(measures), measure.name)
        try:
            studies.append(measure.function(ground))
        except (StateError, EstimationError, np.linalg.LinAlgError) as error:
            not_told[measure.name] = str(error)
    progress(len(measures), len(measures), "")
    return replace(
        frame,
        title=f"Interconnection of leverage after {shock.words}",
        studies=tuple(studies),
        not_told=not_told,
        notes=(*frame.notes, *left_out),
        provenance={**frame.provenance, **history, **shock.facts},
    )


def _history(lake: Lake, snapshot: Snapshot, by: str, as_of: int | None) -> Any:
    """The history of leverage up to a book, or None where the lake has none."""
    try:
        return leverage_history(lake, snapshot, by=by, as_of=as_of)
    except StateError:
        return None
