"""Five families of measures; each picks columns, calls an estimator or a kernel, and says so.

`MEASURES` is the one table of them: the command line, the report and the docs read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature

from undertow.errors import StateError
from undertow.measures import crowding, interconnection, tandem
from undertow.measures.ground import Ground
from undertow.measures.study import Study
from undertow.rules.leverage import GROUPS
from undertow.stress.scenario import suggested

# What each part of the ground is made of; a part that may be missing is not among them.
_STANDS_ON = {"past": "history", "book": "book", "crowd": "book", "links": "book", "web": "book"}
_BALANCE_SHEETS = ("venue", "protocol", "chain", "cohort", "all")


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: what it is called, what it asks, and how it is made."""

    name: str  # family.measure
    question: str
    made: Callable[..., Study]
    takes: tuple[str, ...] = ("past",)  # the parts of the ground that it is given, in order
    divisions: tuple[str, ...] = GROUPS  # that it knows; the first in place of one that it does not

    @property
    def family(self) -> str:
        """The family that it belongs to."""
        return self.name.partition(".")[0]

    @property
    def needs(self) -> tuple[str, ...]:
        """What there must be: history, book."""
        parts = {_STANDS_ON[part] for part in self.takes if part in _STANDS_ON}
        return tuple(need for need in ("history", "book") if need in parts)

    @property
    def looks_back(self) -> bool:
        """Whether it takes the same book at earlier instants, where there are any."""
        return "earlier" in signature(self.made).parameters

    @property
    def starts_from_a_shock(self) -> bool:
        """Whether it takes a common fall, and a scenario in its place."""
        return {"fall", "scenario"} <= set(signature(self.made).parameters)

    def function(self, ground: Ground) -> Study:
        """The study of that ground; what it may choose (seed, level) is chosen as the ground says.

        Nodes that stand in the book and have no history are left out of it by name. One that does
        not know the division of the ground takes its own, and says so.
        """
        choices = {
            name: value
            for name, each in signature(self.made).parameters.items()
            if each.kind is each.KEYWORD_ONLY and (value := getattr(ground, name, None)) is not None
        }
        if choices.get("by", ground.by) not in self.divisions:
            choices["by"] = self.divisions[0]
        study = self.made(*(getattr(ground, part) for part in self.takes), **choices)
        if (by := choices.get("by", ground.by)) != ground.by:
            instead = f"It is divided by {by}, since it knows no division by {ground.by}."
            study = replace(study, says=(*study.says, instead))
        if "history" not in self.needs:
            return study
        return replace(study, left_out={**ground.without_history, **study.left_out})


MEASURES = (
    Measure(
        "tandem.leverage",
        "how leveraged everybody is, by every definition",
        tandem.leverage,
        ("book",),
    ),
    Measure(
        "tandem.matrix",
        "which leverage moves with which, and how much of it prices explain",
        tandem.matrix,
    ),
    Measure(
        "tandem.index",
        "how tightly leverage moves together, step by step",
        tandem.index,
    ),
    Measure(
        "tandem.commonality",
        "whether there is one thing behind all leverage",
        tandem.commonality,
    ),
    Measure(
        "tandem.connectedness",
        "who passes uncertainty about leverage on to whom",
        tandem.connectedness,
    ),
    Measure(
        "tandem.cycle",
        "when leverage was built up and unwound, and whether in step",
        tandem.cycle,
    ),
    Measure(
        "tandem.unwinding",
        "at which dates more nodes cut leverage at once than chance allows",
        tandem.unwinding,
    ),
    Measure(
        "tandem.tails",
        "whether leverage falls together more than it rises together",
        tandem.tails,
    ),
    Measure(
        "tandem.leadlag",
        "who leads and who follows",
        tandem.leadlag,
    ),
    Measure(
        "tandem.procyclicality",
        "whether leverage is built up as assets grow",
        tandem.procyclicality,
    ),
    Measure(
        "tandem.attribution",
        "how much of it shared collateral, venues and owners explain",
        tandem.attribution,
        ("past", "links"),
    ),
    Measure(
        "tandem.unwind",
        "what unwinds elsewhere when one asset alone falls",
        tandem.unwind,
        ("book",),
    ),
    Measure(
        "tandem.systemic",
        "whose trouble is everybody's, and who would lack capital",
        tandem.systemic,
        ("book", "past"),
    ),
    Measure(
        "tandem.consequence",
        "whether yesterday's tandem makes tomorrow's risk of a portfolio better known",
        tandem.consequence,
    ),
    Measure(
        "crowding.concentration",
        "how much of what is leveraged stands with few, and at which leverage",
        crowding.concentration,
        ("crowd",),
    ),
    Measure(
        "crowding.sides",
        "which way leveraged accounts lean, and at which leverage",
        crowding.sides,
        ("crowd",),
    ),
    Measure(
        "crowding.similarity",
        "who stands in the same place, and who trades together",
        crowding.similarity,
        ("crowd", "flows"),
    ),
    Measure(
        "crowding.map",
        "what is called at which distance, by asset and venue, either way",
        crowding.map,
        ("crowd",),
    ),
    Measure(
        "crowding.surface",
        "what is called when the market and one thing more move at once",
        crowding.surface,
        ("crowd",),
    ),
    Measure(
        "crowding.synchrony",
        "which venues and owners are called in the same window",
        crowding.synchrony,
        ("crowd",),
    ),
    Measure(
        "crowding.fragility",
        "how much worse a fall becomes when forced sales move prices",
        crowding.fragility,
        ("crowd",),
    ),
    Measure(
        "crowding.saturation",
        "how near the book is to selling itself, and who carries that",
        crowding.saturation,
        ("crowd",),
    ),
    Measure(
        "crowding.exit",
        "how long closing everything takes and what it does to prices",
        crowding.exit,
        ("crowd",),
    ),
    Measure(
        "crowding.vulnerability",
        "what forced sales cost everybody, why, and through whom",
        crowding.vulnerability,
        ("crowd",),
        _BALANCE_SHEETS,
    ),
    Measure(
        "crowding.demand",
        "how much leverage is wanted, against its own past",
        crowding.demand,
        ("crowd", "markets"),
    ),
    Measure(
        "crowding.rebalancing",
        "who must trade because a price moved",
        crowding.rebalancing,
        ("crowd",),
    ),
    Measure(
        "interconnection.map",
        "who stands on whom, and what leads through each keeper",
        interconnection.map,
        ("web",),
    ),
    Measure(
        "interconnection.reuse",
        "how many claims stand on each unit of collateral",
        interconnection.reuse,
        ("web",),
    ),
    Measure(
        "interconnection.loops",
        "who borrows against what the same money bought, and what unwinds it",
        interconnection.loops,
        ("web",),
    ),
    Measure(
        "interconnection.calls",
        "which venues call the same owner at once, and what it takes to meet that",
        interconnection.calls,
        ("crowd",),
    ),
    Measure(
        "interconnection.contagion",
        "what a shock costs when losses travel by several channels, and who bears it",
        interconnection.contagion,
        ("web",),
    ),
    Measure(
        "interconnection.paths",
        "which way a shock takes to every loss, and what each channel did to it",
        interconnection.paths,
        ("web",),
    ),
    Measure(
        "interconnection.nodes",
        "whose failure costs everybody else most, and whether rankings agree",
        interconnection.nodes,
        ("web", "history"),
    ),
    Measure(
        "interconnection.links",
        "how far contagion hangs on links that nobody knows",
        interconnection.links,
        ("web",),
    ),
)

FAMILIES = tuple(dict.fromkeys(each.family for each in MEASURES))


def chosen(names: Sequence[str]) -> tuple[Measure, ...]:
    """The measures of those names; a family stands for all of its own.

    Raises
    ------
    StateError
        When a name is neither.
    """
    found: list[Measure] = []
    for name in names:
        some = [each for each in MEASURES if name in (each.name, each.family)]
        if not some:
            known = [word for each in MEASURES for word in (each.family, each.name)]
            raise StateError(
                f"there is no measure called {name!r}",
                hint=f"{suggested(name, dict.fromkeys(known))} (`undertow measure list` says what "
                "each is)",
            )
        found += [each for each in some if each not in found]
    return tuple(found)


__all__ = [
    "FAMILIES",
    "MEASURES",
    "Ground",
    "Measure",
    "Study",
    "chosen",
    "crowding",
    "interconnection",
    "tandem",
]
