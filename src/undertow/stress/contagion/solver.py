"""Several channels in one solve: lay a state on the scenario, follow the cascade, read it, again.

One pass, in this order: what hangs on who failed (dependence), prices and forced sales (the
cascade), who cannot pay (claims), what reserves and tokens pass on (receipts), discounts (backing),
runs and rates (funding). Each channel proposes columns of a `State`; the state takes the worse. A
pass begins from the book as it was found and settled once, so it is no round on top of the last:
the last pass *is* the outcome. Passes end when no channel moves the state by more than `tolerance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress.aftermath import Cascade, Outcome
from undertow.stress.cascade import plan_of, rebased, require_same_names
from undertow.stress.cascade import settle as settle_book
from undertow.stress.contagion.channels import OUTER, Assumptions, Channels
from undertow.stress.contagion.dependence import Named
from undertow.stress.contagion.follower import Follower
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.outcome import Contagion
from undertow.stress.contagion.passes import Ground, Run
from undertow.stress.ground import laid_out
from undertow.stress.options import Impact, Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario, require_scenario
from undertow.stress.shock import Shock, near
from undertow.stress.stressed import Stressed

_MATTERS = 1e-9  # of a buffer: less is rounding
_OUTNUMBER = 0.01  # claims that pass what backs them by less are quotes that differ


class _Key(NamedTuple):
    """What a ground hangs on."""

    scenario: Scenario | Stressed
    options: Options
    shocks: tuple[Shock, ...]
    base: Plan

    def same(self, other: _Key) -> bool:
        """Whether both lay the same things on the same book."""
        mine = self.scenario is other.scenario and self.base is other.base
        return mine and self.options == other.options and self.shocks == other.shocks


class Solver:
    """Solves one scenario after another, and one set of channels after another, on a book."""

    def __init__(self, plan: Plan, *, settle: bool = True) -> None:
        self.plan = plan
        self.settles = settle
        self._settled: dict[Options, tuple[Plan, Cascade | None]] = {}
        self._sheets: dict[int, Sheet] = {}
        self._engines: dict[int, dict[bool, Follower]] = {}
        self._grounds: list[tuple[_Key, Ground]] = []

    @classmethod
    def of(cls, snapshot: Snapshot | Plan, *, settle: bool = True) -> Solver:
        """Lay a book out once; it is settled once for each way of running a cascade.

        Raises
        ------
        StateError, RuleError, MissingPrice
            When it is no snapshot, or something is held that cannot be judged.
        """
        return cls(laid_out(snapshot), settle=settle)

    def __repr__(self) -> str:
        return f"Solver({self.plan!r})"

    def solve(
        self,
        scenario: Scenario | Stressed,
        *,
        channels: Channels | None = None,
        assumed: Assumptions | None = None,
        failed: Sequence[str | Shock] = (),
        options: Options | None = None,
        order: Sequence[str] | None = None,
        tolerance: float = 1e-5,
        max_passes: int = 100,
        least: bool = False,
        check: bool = True,
        trace: bool = True,
    ) -> Contagion:
        """Follow a scenario through all channels that are on, to where nothing moves any more.

        `failed` names who fails on top of the scenario (see `contagion.dependence`). With `order`
        the outer channels take turns, one a pass, instead of all in each; they come to the same
        rest. `least` takes the least payments that fit. Passes that do not come to rest within
        `max_passes`, or leave all bounds, are a finding: see `Contagion.ending`.

        Raises
        ------
        StateError
            When a name is unknown, or the scenario speaks of what the book does not have.
        """
        channels, assumed = channels or Channels(), assumed or Assumptions()
        failed = (failed,) if isinstance(failed, str | Shock) else tuple(failed)
        if options is None:
            options = scenario.options if isinstance(scenario, Scenario) else Options()
        _require_limits(tolerance, max_passes)
        turns = _turns(channels, order)
        base, due = self._base(options)
        sheet = self._sheet(base.snapshot)
        for name in assumed.ratios:
            sheet.snapshot.universe.code("asset", name)
        ground = self._lay(scenario, options, base, sheet, channels, assumed, tuple(failed))
        run = Run(
            ground=ground, sheet=sheet, channels=channels, assumed=assumed,
            options=options if channels.fire_sales else replace(options, impact=Impact.NONE),
            least=least, check=check, trace=trace,
        )  # fmt: skip
        found = run.passes(turns, tolerance, max_passes)
        notes = (*found.notes, *_notes(found, sheet, channels, failed))
        return replace(found, cascade=replace(found.cascade, settled=due), notes=notes)

    def _base(self, options: Options) -> tuple[Plan, Cascade | None]:
        """What is left of the book once what was due anyway is closed, and what that took."""
        if not self.settles:
            return self.plan, None
        if options not in self._settled:
            done = settle_book(self.plan, options)
            quiet = done.plan is self.plan
            self._settled[options] = (done.plan, None if quiet else done.cascade)
        return self._settled[options]

    def _sheet(self, snapshot: Snapshot) -> Sheet:
        if id(snapshot) not in self._sheets:
            self._sheets[id(snapshot)] = Sheet.of(snapshot)
        return self._sheets[id(snapshot)]

    def _lay(
        self, scenario: Scenario | Stressed, options: Options, base: Plan, sheet: Sheet,
        channels: Channels, assumed: Assumptions, failed: tuple[str | Shock, ...],
    ) -> Ground:  # fmt: skip
        """The ground of a scenario; one of the last two, with and without who failed, if it is."""
        named = Named.of(failed, sheet, assumed, options.round_us)
        follows = bool(failed) and channels.dependence
        key = _Key(scenario, options, named.shocks if follows else (), base)
        for known, ground in self._grounds:
            if known.same(key):
                return replace(ground, named=named)
        if isinstance(scenario, Stressed):
            require_same_names(base, scenario)
            start = rebased(scenario, self.plan.snapshot, base.snapshot)
        else:
            start = require_scenario(scenario).apply(base.snapshot)
        for each in key.shocks:
            start = each.apply(start)
        plan = plan_of(start, base)
        engines = self._engines.setdefault(id(base), {}) if plan is base else {}
        ground = Ground(plan, start, named, engines)
        self._grounds = [*self._grounds[-1:], (key, ground)]
        return ground


def _turns(channels: Channels, order: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
    """Which outer channels speak in which pass."""
    if order is None:
        return (channels.outer,)
    unknown = [name for name in order if name not in OUTER]
    if unknown or set(order) != set(OUTER) or len(order) != len(OUTER):
        raise StateError(
            f"order was {', '.join(order)}; it must hold each of {', '.join(OUTER)} once",
            hint=near(unknown[0], OUTER) if unknown else None,
        )
    return tuple((name,) for name in order if name in channels.outer) or ((),)


def _require_limits(tolerance: float, max_passes: int) -> None:
    if not 0.0 < tolerance <= 1e-2:
        raise StateError(f"tolerance was {tolerance}; it must be above 0 and at most 0.01")
    if not 1 <= max_passes <= 100_000:
        raise StateError(f"max_passes was {max_passes}; it must be 1 to 100,000")


def _notes(
    found: Contagion, sheet: Sheet, channels: Channels, failed: Sequence[object]
) -> tuple[str, ...]:  # fmt: skip
    """Outcomes that a reader should know of."""
    said, done = [], found.settlement
    if not len(sheet.row):
        said.append("nobody owes anybody here: claims, receipts and backing have nothing to carry")
    if failed and not channels.dependence:
        said.append("dependence is off: what was named as failed did not fail")
    ranks = sheet.ranks_differ()
    if ranks:
        said.append(f"claims on {_listed(ranks)} are of several ranks; they clear as one")
    short = [sheet.names[n] for n in np.flatnonzero(done.sheet.stakes.scale < 1.0 - _OUTNUMBER)]
    if short:
        said.append(f"claims on {_listed(short)} outnumber what backs them: they are shares of it")
    broke = [sheet.names[n] for n in np.flatnonzero(done.before < -_MATTERS)]
    if broke:
        said.append(f"{_listed(broke)} owed more than they had before any shock")
    if done.owed.circular:
        said.append("tokens back each other without end; what they hold in a circle is left out")
    if done.owed.crowded:
        said.append(
            "keepers and others owe a pool more than all in it that the book does not owe; they "
            "count for no more"
        )
    drawn = [sheet.names[n] for n in np.flatnonzero(done.overdrawn > _MATTERS)]
    if drawn:
        said.append(
            f"{_listed(drawn)} lost more than those had who stayed: others left with those coins "
            "while the book owes more than the table of reserves says; they bear the rest unnamed"
        )
    if not done.settled:
        said.append("payments had not come to rest after the last sweep")
    if found.cascade.outcome is not Outcome.SETTLED:
        said.append("the cascade of the last pass was still selling after its last round")
    return tuple(said)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
