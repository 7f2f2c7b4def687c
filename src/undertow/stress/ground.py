"""The ground that draws fall on: a book, settled, with the shocks of a scenario on it.

`run_sweep` adds joint moves to a `Stressed`; this makes one out of a scenario, in the order in
which a cascade of its own does it: what is due anyway is closed first, then the scenario happens to
what is left, and where it changes what is held or asked, the plan is laid out anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix
from undertow.stress.aftermath import Cascade
from undertow.stress.cascade import notes_of, plan_of
from undertow.stress.cascade import settle as settle_book
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario, require_scenario
from undertow.stress.setting import case_of
from undertow.stress.stressed import Stressed


class Ground(NamedTuple):
    """A book as draws find it; `run_sweep(plan, ..., stressed=stressed, settled=False)`."""

    plan: Plan
    stressed: Stressed
    settled: Cascade | None  # what was due without any shock; None where nothing was

    def notes(self, options: Options, sold: FloatColumn) -> tuple[str, ...]:
        """What a cascade that sold these quantities, by instrument, would say of this ground."""
        case = case_of(self.plan, self.stressed, options)
        return (*self.stressed.notes, *notes_of(self.plan, self.stressed, case, sold))


def laid_out(snapshot: Snapshot | Plan | Any) -> Plan:
    """The plan of a snapshot; one that is laid out already comes back as it is.

    Raises
    ------
    StateError
        When it is neither.
    """
    if isinstance(snapshot, Plan):
        return snapshot
    if isinstance(snapshot, Snapshot):
        return Plan.of(snapshot)
    raise StateError(
        f"snapshot was of type {type(snapshot).__name__}; it must be a Snapshot or a Plan",
        hint="a world makes one by .snapshot(), and load_snapshot reads one from a lake",
    )


def ground_of(
    plan: Plan,
    scenario: Scenario | None = None,
    options: Options | None = None,
    *,
    settle: bool = True,
    correlation: FloatMatrix | None = None,
) -> Ground:
    """Settle a book and put a scenario on it, for draws to come on top.

    `correlation` is what draws would take, which the scenario's shocks to correlations start from;
    what came of it stands in `stressed.correlation`.

    Raises
    ------
    StateError
        When the scenario speaks of what the snapshot does not have, or is none.
    """
    if scenario is not None:
        require_scenario(scenario)
    if options is None:
        options = scenario.options if scenario else Options()
    due = settle_book(plan, options) if settle else None
    base = due.plan if due else plan
    quiet = due is None or base is plan
    stressed = Stressed.calm(base.snapshot, correlation=correlation)
    if scenario is not None:
        stressed = scenario.apply(base.snapshot, correlation=correlation)
    return Ground(plan_of(stressed, base), stressed, None if quiet or not due else due.cascade)
