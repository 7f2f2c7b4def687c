"""What a followed scenario is compared by, whoever followed it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.state import AnyColumn, CodeColumn, FloatColumn
from undertow.stress.cascade import Cascade
from undertow.stress.options import Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums of one scenario: USD by instrument, then counts."""

    closed: FloatColumn
    repaid: FloatColumn
    bad: FloatColumn
    rounds: int
    accounts: int  # that their venues closed, in part or whole
    owners: int
    called_twice: int  # owners called at two venues or more
    most_venues: int  # that called one owner

    @classmethod
    def of(cls, found: Cascade) -> Totals:
        """Those of the engine's own run."""
        return cls(
            found.closed, found.repaid, found.bad, found.rounds, len(found.hit),
            *owners_called(found.plan, found.hit),
        )  # fmt: skip

    @property
    def counts(self) -> tuple[int, ...]:
        """Everything that is no money."""
        return self.rounds, self.accounts, self.owners, self.called_twice, self.most_venues

    def same(self, other: Totals) -> bool:
        """Whether two agree to the last bit."""
        return self.counts == other.counts and self.apart(other) == 0.0

    def apart(self, other: Totals) -> float:
        """Largest difference of any sum of any instrument, in USD."""
        pairs = ((self.closed, other.closed), (self.repaid, other.repaid), (self.bad, other.bad))
        return max(float(np.abs(one - two).max()) for one, two in pairs)

    def by(self, codes: CodeColumn) -> FloatColumn:
        """Value closed, by what `codes` say of instruments, added in their order as in a sweep."""
        return np.bincount(codes, self.closed, int(codes.max()) + 1)


def owners_called(plan: Plan, hit: AnyColumn) -> tuple[int, int, int]:
    """Owners of the accounts `hit`, those called at two venues or more, and most venues of one."""
    held = plan.hold.accounts
    venues = len(plan.closing)
    pairs = np.unique(held["owner"][hit].astype(np.int64) * venues + held["venue"][hit])
    _, times = np.unique(pairs // venues, return_counts=True)
    return len(times), int((times >= 2).sum()), int(times.max(initial=0))


def require_plain(plan: Plan, stressed: Stressed, options: Options) -> None:
    """Refuse what a baseline does not follow: anything but moves of factors, and owners that act.

    Raises
    ------
    ValueError
        When something else is asked for.
    """
    calm = Stressed.calm(plan.snapshot).put("factor", slice(None), stressed.factor)
    if stressed.digest != calm.digest:
        raise ValueError("stressed says more than `factor`; a baseline follows moves alone")
    plain = Options(
        impact=options.impact, floor=options.floor, root=options.root, clip=options.clip,
        coupling=options.coupling, oracles=options.oracles, round_us=options.round_us,
        max_rounds=options.max_rounds,
    )  # fmt: skip
    if options != plain or options.responses != Responses():
        raise ValueError(f"options was {options}; a baseline follows the plain cascade")
