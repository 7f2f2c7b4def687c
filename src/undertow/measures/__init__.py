"""Five families of measures; each picks columns, calls an estimator or a kernel, and says so.

`MEASURES` is the one table of them: the command line, the report and the docs read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from undertow.errors import StateError
from undertow.measures import tandem
from undertow.measures.ground import Ground
from undertow.measures.study import Study


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: what it is called, what it asks, and how it is made."""

    name: str  # family.measure
    question: str
    needs: tuple[str, ...]  # history, book
    function: Callable[[Ground], Study]

    @property
    def family(self) -> str:
        """The family that it belongs to."""
        return self.name.partition(".")[0]


MEASURES = (
    Measure(
        "tandem.matrix",
        "which leverage moves with which, and how much of it prices explain",
        ("history",),
        lambda on: tandem.matrix(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.index",
        "how tightly leverage moves together, step by step",
        ("history",),
        lambda on: tandem.index(on.past, level=on.level),
    ),
    Measure(
        "tandem.commonality",
        "whether there is one thing behind all leverage",
        ("history",),
        lambda on: tandem.commonality(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.connectedness",
        "who passes uncertainty about leverage on to whom",
        ("history",),
        lambda on: tandem.connectedness(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.cycle",
        "when leverage was built up and unwound, and whether in step",
        ("history",),
        lambda on: tandem.cycle(on.past),
    ),
    Measure(
        "tandem.unwinding",
        "at which dates more nodes cut leverage at once than chance allows",
        ("history",),
        lambda on: tandem.unwinding(on.past, seed=on.seed),
    ),
    Measure(
        "tandem.tails",
        "whether leverage falls together more than it rises together",
        ("history",),
        lambda on: tandem.tails(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.leadlag",
        "who leads and who follows",
        ("history",),
        lambda on: tandem.leadlag(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.procyclicality",
        "whether leverage is built up as assets grow",
        ("history",),
        lambda on: tandem.procyclicality(on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.attribution",
        "how much of it shared collateral, venues and owners explain",
        ("history", "book"),
        lambda on: tandem.attribution(on.past, on.links, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.unwind",
        "what unwinds elsewhere when one asset alone falls",
        ("book",),
        lambda on: tandem.unwind_matrix(
            on.book, by=on.by, history=on.history, seed=on.seed, level=on.level
        ),
    ),
    Measure(
        "tandem.systemic",
        "whose trouble is everybody's, and who would lack capital",
        ("history", "book"),
        lambda on: tandem.systemic(on.book, on.past, seed=on.seed, level=on.level),
    ),
    Measure(
        "tandem.consequence",
        "whether yesterday's tandem makes tomorrow's risk of a portfolio better known",
        ("history",),
        lambda on: tandem.consequence(on.past, seed=on.seed, level=on.level),
    ),
)


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
            known = ", ".join(each.name for each in MEASURES)
            raise StateError(f"there is no measure called {name!r}", hint=f"have {known}")
        found += [each for each in some if each not in found]
    return tuple(found)


__all__ = ["MEASURES", "Ground", "Measure", "Study", "chosen", "tandem"]
