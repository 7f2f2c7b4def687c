"""Pass after pass, until no channel moves the state; and what each asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import KeyColumn
from undertow.stress.aftermath import Cascade
from undertow.stress.contagion.backing import propose_pegs, starting_ratios
from undertow.stress.contagion.channels import Assumptions, Channels
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
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed


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


@dataclass(frozen=True, eq=False)
class Run:
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
            passes=tuple(rows), because=tuple(because), fallen=self.fallen,
        )  # fmt: skip

    @property
    def fallen(self) -> KeyColumn:
        """Parties that were named as failed, where that is followed."""
        fallen = self.ground.named.fallen
        return fallen if self.channels.dependence else fallen[:0]

    def follow(self, state: State) -> Seen:
        """Forced sales with a state on the scenario, and who can pay after them."""
        ground, engine = self.ground, self.ground.engine(receipts=self.channels.receipts)
        laid = state.laid(ground.start, self.assumed.hours)
        if self.channels.claims and self.sheet.kept.any():
            laid = replace(laid, stuck=self.sheet.kept)
        ran = engine.follow(laid, ground.start, self.options, check=self.check, trace=self.trace)
        losses = Losses.of(self.sheet, ran, engine)
        done = settle_claims(
            self.sheet, losses, laid, self.channels, self.assumed, fallen=self.fallen,
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
