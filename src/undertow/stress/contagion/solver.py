"""Several channels in one solve: lay a state on the scenario, follow the cascade, read it, again.

One pass, in this order: what hangs on who failed (dependence), prices and forced sales (the
cascade), who cannot pay (claims), what reserves and tokens pass on (receipts), discounts (backing),
runs and rates (funding). Each channel proposes columns of a `State`; the state takes the worse. A
pass begins from the book as it was found and settled once, so it is no round on top of the last:
the last pass *is* the outcome. Passes end when no channel moves the state by more than `tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress.aftermath import Cascade, Outcome
from undertow.stress.cascade import Settled, require_same_names, settle
from undertow.stress.cascade import _plan_of as plan_of
from undertow.stress.cascade import _rebased as rebased
from undertow.stress.contagion.backing import propose_pegs, starting_ratios
from undertow.stress.contagion.channels import OUTER, Assumptions, Channels
from undertow.stress.contagion.claims import Settlement, settle_claims
from undertow.stress.contagion.dependence import Named, propose_dependence
from undertow.stress.contagion.follower import Follower
from undertow.stress.contagion.funding import propose_run
from undertow.stress.contagion.losses import Losses
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.outcome import Cause, Contagion, Ending, travelled
from undertow.stress.contagion.proposals import Origin, Proposal, own_receipts
from undertow.stress.contagion.stakes import TOKEN
from undertow.stress.contagion.state import State
from undertow.stress.ground import laid_out
from undertow.stress.options import Impact, Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario, require_scenario
from undertow.stress.shock import Shock, near
from undertow.stress.stressed import Stressed

_MATTERS = 1e-9  # of a buffer: less is rounding
_OUTNUMBER = 0.01  # claims that pass what backs them by less are quotes that differ


class Seen(NamedTuple):
    """One pass."""

    cascade: Cascade
    done: Settlement


@dataclass(frozen=True, eq=False)
class Ground:
    """A scenario on the settled book, with what was named as failed."""

    plan: Plan
    start: Stressed
    named: Named
    engines: dict[bool, Follower]  # by whether claims on reserves are followed

    def engine(self, *, receipts: bool) -> Follower:
        """The engine of this ground, with or without claims that stand in reserves."""
        if receipts not in self.engines:
            plan = self.plan
            bare = plan if receipts else plan.like(deposits=plan.deposits[:0].copy())
            self.engines[receipts] = Follower(bare)
        return self.engines[receipts]


class Solver:
    """Solves one scenario after another, and one set of channels after another, on a book."""

    def __init__(self, plan: Plan, *, settle: bool = True) -> None:
        self.plan = plan
        self.settles = settle
        self._settled: dict[Options, Settled] = {}
        self._sheets: dict[int, Sheet] = {}
        self._ground: tuple[tuple[object, ...], Ground] | None = None

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
        tolerance: float = 1e-6,
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
        if options is None:
            options = scenario.options if isinstance(scenario, Scenario) else Options()
        _require_limits(tolerance, max_passes)
        turns = _turns(channels, order)
        settled = self._settle(options)
        sheet = self._sheet(settled.plan.snapshot)
        for name in assumed.ratios:
            sheet.snapshot.universe.code("asset", name)
        ground = self._lay(scenario, options, settled, sheet, channels, assumed, tuple(failed))
        run = _Run(
            ground=ground, sheet=sheet, channels=channels, assumed=assumed,
            options=options if channels.fire_sales else replace(options, impact=Impact.NONE),
            least=least, check=check, trace=trace,
        )  # fmt: skip
        found = run.passes(turns, tolerance, max_passes)
        due = settled.cascade if settled.plan is not self.plan else None
        notes = (*found.notes, *_notes(found, sheet, channels, failed))
        return replace(found, cascade=replace(found.cascade, settled=due), notes=notes)

    def _settle(self, options: Options) -> Settled:
        if options not in self._settled:
            done = settle(self.plan, options) if self.settles else None
            if done is None:
                engine = Follower(self.plan)
                done = Settled(self.plan, engine.run(Stressed.calm(self.plan.snapshot), options))
            self._settled[options] = done
        return self._settled[options]

    def _sheet(self, snapshot: Snapshot) -> Sheet:
        if id(snapshot) not in self._sheets:
            self._sheets[id(snapshot)] = Sheet.of(snapshot)
        return self._sheets[id(snapshot)]

    def _lay(
        self, scenario: Scenario | Stressed, options: Options, settled: Settled, sheet: Sheet,
        channels: Channels, assumed: Assumptions, failed: tuple[str | Shock, ...],
    ) -> Ground:  # fmt: skip
        """The ground of a scenario; that of the last solve, where it is the same."""
        named = Named.of(failed, sheet, assumed, options.round_us)
        follows = bool(failed) and channels.dependence
        key = (scenario, options, named.shocks if follows else (), settled)
        if self._ground is not None and all(
            a is b or (n == 2 and a == b) for n, (a, b) in enumerate(zip(self._ground[0], key,
                                                                         strict=True))
        ):  # fmt: skip
            ground = self._ground[1]
            return replace(ground, named=named)
        base = settled.plan
        if isinstance(scenario, Stressed):
            require_same_names(base, scenario)
            start = rebased(scenario, self.plan.snapshot, base.snapshot)
        else:
            start = require_scenario(scenario).apply(base.snapshot)
        if follows:
            for each in named.shocks:
                start = each.apply(start)
        ground = Ground(plan_of(start, base), start, named, {})
        self._ground = (key, ground)
        return ground


@dataclass(frozen=True, eq=False)
class _Run:
    """One solve under way."""

    ground: Ground
    sheet: Sheet
    channels: Channels
    assumed: Assumptions
    options: Options
    least: bool
    check: bool
    trace: bool

    def passes(
        self, turns: tuple[tuple[str, ...], ...], tolerance: float, most: int
    ) -> Contagion:  # fmt: skip
        """Pass after pass, until no channel moves the state."""
        state = State.calm(self.ground.start.snapshot)
        seen = self.follow(state)
        rows: list[dict[str, float]] = []
        because: list[Cause] = []
        ending, still = Ending.PASS_LIMIT, 0
        for number in range(most):
            asked = [self.ask(name, seen, state) for name in turns[number % len(turns)]]
            after = state
            for each in asked:
                after = after.worsened(**each.columns)
            change = after.change(state)
            rows.append({"pass": number, "change": change, "moved": _moved(state, after),
                         **travelled(seen.cascade, seen.done, state)})  # fmt: skip
            still = still + 1 if change <= tolerance else 0
            if still == len(turns):
                ending = Ending.SETTLED
                break
            if still or number == most - 1:
                continue
            try:
                then = self.follow(after)
            except StateError:
                ending, seen = Ending.BOUNDS, self.follow(state)
                break
            because += _causes(number, state, after, asked, self.sheet.snapshot)
            state, seen = after, then
        self.ground.engine(receipts=self.channels.receipts).forget()
        return Contagion(
            cascade=seen.cascade, start=self.ground.start, state=state, settlement=seen.done,
            channels=self.channels, assumed=self.assumed, ending=ending, tolerance=tolerance,
            passes=tuple(rows), because=tuple(because), fallen=self._fallen,
        )  # fmt: skip

    @property
    def _fallen(self) -> np.ndarray:
        fallen = self.ground.named.fallen
        return fallen if self.channels.dependence else fallen[:0]

    def follow(self, state: State) -> Seen:
        """Forced sales with a state on the scenario, and who can pay after them."""
        ground, engine = self.ground, self.ground.engine(receipts=self.channels.receipts)
        laid = state.laid(ground.start, self.assumed.hours)
        ran = engine.follow(laid, ground.start, self.options, check=self.check, trace=self.trace)
        losses = Losses.of(self.sheet, ran, engine)
        done = settle_claims(
            self.sheet, losses, laid, self.channels, self.assumed, fallen=self._fallen,
            least=self.least,
        )  # fmt: skip
        return Seen(ran, done)

    def ask(self, channel: str, seen: Seen, state: State) -> Proposal:
        """What one channel asks for after a pass."""
        cascade, done = seen
        rules: dict[str, Callable[[], Proposal]] = {
            "claims": lambda: _propose_claims(done, cascade, self.ground.start),
            "backing": lambda: propose_pegs(
                done, cascade, self.assumed, starting_ratios(self.sheet, self.assumed)
            ),
            "funding": lambda: propose_run(done, cascade.stressed.snapshot, self.assumed),
            "dependence": lambda: propose_dependence(
                done, cascade.plan.pricing, cascade.stressed
            ),
        }  # fmt: skip
        return rules[channel]() if channel in rules else Proposal(channel, {})


def _propose_claims(done: Settlement, cascade: Cascade, start: Stressed) -> Proposal:
    """Receipts of tokens that were not paid."""
    sheet, losses, pricing = done.sheet, done.losses, cascade.plan.pricing
    tokens = np.flatnonzero(sheet.sort == TOKEN)
    whole = np.ones(len(sheet.price))
    whole[sheet.code[tokens]] = done.share[tokens]
    engine = pricing.receipts(losses.receipt)
    receipt = np.where(whole < 1.0, own_receipts(pricing, whole, engine, start.receipt), 1.0)
    origins: dict[tuple[str, int], tuple[Origin, ...]] = {}
    for k in np.flatnonzero(receipt < 1.0):
        origins["receipt", int(k)] = _behind(done, int(sheet.token_party[k]))
    return Proposal("claims", {"receipt": receipt}, origins)


def _behind(done: Settlement, creditor: int) -> tuple[Origin, ...]:
    """Who did not pay a creditor, and how much; the largest first."""
    sheet, lost = done.sheet, done.lost
    rows = np.flatnonzero((sheet.creditor == creditor) & (lost > 0.0))
    usd = sheet.summed(sheet.debtor[rows], lost[rows])
    order = np.argsort(-usd, kind="stable")
    return tuple((sheet.names[n], float(usd[n])) for n in order if usd[n] > 0.0)


def _causes(
    number: int, state: State, after: State, asked: Sequence[Proposal], snapshot: Snapshot
) -> list[Cause]:
    """One row for every component that moved and everybody behind it."""
    universe, found = snapshot.universe, []
    named = {"receipt": universe.assets, "peg": universe.assets}
    for each in fields(State):
        was, now = (np.asarray(getattr(s, each.name)).astype(float) for s in (state, after))
        for k in np.flatnonzero(was != now):
            name = named.get(each.name, universe.instruments)[k]
            for one in asked:
                column = one.columns.get(each.name)
                if column is None or float(column[k]) != now[k]:
                    continue
                for source, usd in one.origins.get((each.name, int(k)), (("", 0.0),)):
                    found.append(Cause(number, one.channel, each.name, name, source, usd,
                                       float(was[k]), float(now[k])))  # fmt: skip
    return found


def _moved(state: State, after: State) -> float:
    return float(
        sum(int((getattr(state, f.name) != getattr(after, f.name)).sum()) for f in fields(state))
    )


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
    if not done.settled:
        said.append("payments had not come to rest after the last sweep")
    if found.cascade.outcome is not Outcome.SETTLED:
        said.append("the cascade of the last pass was still selling after its last round")
    radius = found.marks.radius if len(sheet.row) else 0.0
    if radius > 1.0:
        said.append(
            f"exposures over buffers have a radius of {radius:.3g}: small stress grows round "
            "circles of claims until nothing is left of them"
        )
    return tuple(said)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
