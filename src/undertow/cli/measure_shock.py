"""`--fall` and `--scenario` of `undertow measure` and `undertow report`: a shock of one's own.

Some measures start from a shock and have one of their own, a common fall of a fifth. Here it is
another, and `measure` makes only those that have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from undertow.cli.options import UnusableOption
from undertow.cli.stress import the_scenario
from undertow.measures import FAMILIES, MEASURES, Measure, chosen
from undertow.measures.words import listed
from undertow.stress import Scenario

_FURTHEST, _LEAST = 0.999, -10.0  # falls that measures take; below 0 is a rise


@dataclass(frozen=True, slots=True)
class ChosenShock:
    """A common fall, or a scenario."""

    fall: float | None = None
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
    def facts(self) -> dict[str, Any]:
        """It as a program reads it."""
        return {"fall": self.fall} if self.scenario is None else {"scenario": self.scenario.name}


def shocked(names: Sequence[str], shock: ChosenShock) -> tuple[list[Measure], tuple[str, ...]]:
    """The measures among those named that start from a shock, and a note of who is left out.

    A family stands for those of its own that do.

    Raises
    ------
    UnusableOption
        When one was named that does not, or a family has none.
    """
    known = [each.name for each in MEASURES if each.starts_from_a_shock]
    for name in names:
        if not any(each.starts_from_a_shock for each in chosen([name])):
            what = "has no measure that takes a shock" if name in FAMILIES else "takes no shock"
            raise UnusableOption(
                f"{shock.option} was given, but {name} {what}",
                hint=f"{listed(known, len(known))} do",
            )
    every = chosen(names or FAMILIES)
    found = [each for each in every if each.starts_from_a_shock]
    rest = [each.name for each in every if each not in found]
    if not names or not rest:
        return found, ()
    verb = "takes" if len(rest) == 1 else "take"
    return found, (f"{listed(rest, len(rest))} {verb} no shock and are not among these",)
