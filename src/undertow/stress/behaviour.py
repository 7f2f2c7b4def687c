"""What owners are taken to do when called: nothing, what was fitted, or the worse of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress.cascade import Cascade, run_cascade
from undertow.stress.options import End, Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario
from undertow.stress.stressed import Stressed

FLIGHT = Responses(delever=True, unwind=True, convert=True)


class Behaviour(Enum):
    """What owners do when their accounts are called."""

    NONE = "none"  # they are closed by their venues
    FITTED = "fitted"  # they act as often as recorded owners did
    FITTED_LOW = "fitted-low"  # at the low end of the band of those rates
    FITTED_HIGH = "fitted-high"
    WORST = "worst"  # the worse of none and flight; see `worst_cascade`

    @property
    def responses(self) -> Responses:
        """The responses that say the same.

        Raises
        ------
        StateError
            For the worst, which is known only after both of its candidates have run.
        """
        if self is Behaviour.NONE:
            return Responses()
        if self is Behaviour.WORST:
            raise StateError(
                "the worst behaviour is known only after the cascades",
                hint="worst_cascade runs both and answers the worse",
            )
        return Responses(top_up=True, delever=True, fitted=_ENDS[self])


_ENDS = {
    Behaviour.FITTED: End.MIDDLE,
    Behaviour.FITTED_LOW: End.LOW,
    Behaviour.FITTED_HIGH: End.HIGH,
}
CANDIDATES: Mapping[str, Responses] = {"none": Responses(), "flight": FLIGHT}


@dataclass(frozen=True, slots=True, eq=False)
class Worst:
    """The worse of two cascades, and what each of them lost."""

    cascade: Cascade
    behaviour: str  # of CANDIDATES
    insolvency_usd: Mapping[str, float]  # by behaviour
    final_fall: Mapping[str, float]

    def __str__(self) -> str:
        lost = ", ".join(
            f"{name} {usd:,.0f} USD missing and a fall of {self.final_fall[name]:.1%}"
            for name, usd in self.insolvency_usd.items()
        )
        return f"owners: {self.behaviour}, the worse of {lost}"


def worst_cascade(
    snapshot: Snapshot | Plan,
    scenario: Scenario | Stressed,
    options: Options | None = None,
    *,
    run: Callable[..., Cascade] = run_cascade,
    **words: Any,
) -> Worst:
    """Follow a scenario with owners who do nothing, and with owners in flight; answer the worse.

    In flight all who are called sell at once and bring no money in: they sell what they hold for
    what they owe, close the other side of hedges that lost one, and sell coins where money is owed.
    The worse is the one in which more is missing (`insolvency_usd`); of equals, the one after which
    prices stand lower; of equals still, doing nothing. It is the worse of these two, and
    bounds nothing: owners who act in part, late, or some of them alone may do more harm than both.

    `run` and the other words are those of `run_cascade`.
    """
    plan = snapshot if isinstance(snapshot, Plan) else Plan.of(snapshot)
    if options is None:
        options = scenario.options if isinstance(scenario, Scenario) else Options()
    ran = {
        name: run(plan, scenario, replace(options, responses=responses), **words)
        for name, responses in CANDIDATES.items()
    }
    missing = {name: each.insolvency_usd for name, each in ran.items()}
    falls = {name: each.final_fall for name, each in ran.items()}
    chosen = max(ran, key=lambda name: (missing[name], falls[name]))
    return Worst(ran[chosen], chosen, missing, falls)
