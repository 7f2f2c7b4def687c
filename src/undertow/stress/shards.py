"""One cascade whose accounts are divided among workers, with the bits of the engine alone.

A shard holds some owners, neighbours in the book: what they have, what is left of it, and who of
them has to be watched. It knows no fund and no ledger. Those are with the one who asks: the market,
an engine without accounts, which makes the prices and settles every round on the sums of all
shards.

What travels between the market and a shard in a round, whatever the number of accounts:

    down    prices, 64 bytes an instrument, and how far they have come: 8 bytes an instrument
            and 8 a root; 16 bytes a pool of what was sold into it and how thin it is
    up      what the round moved, in whole counts: 88 bytes an instrument, 8 more for every round
            that a sale may be late and for this one, 8 a venue, and how many acted

With 640 instruments and 64 assets these are 47 kB down and 62 kB up. There are more calls in rounds
where liquidators have a limit (first up what they would have to bring, with what moved so far, then
down the share that they can carry: 8 bytes a venue), where owners unwind (up once more), and where
winners pay by position: then, for every instrument that this concerns, up go rank and quantity of
each winner, 16 bytes, and down the rank at which it ends. That alone grows with the accounts.

The fate of an account hangs on prices and on its owner's other accounts alone, an owner is in one
shard only, and all sums over accounts are of whole counts: so any division gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.fanout import Crew, Executor, Serial
from undertow.kernels import accounts, cascade, closers, owners, prices, rounds
from undertow.kernels.fixed import to_counts
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.cascade import (
    FIRST_LOG,
    Cascade,
    Left,
    cascade_of,
    follow,
    require_same_names,
)
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario
from undertow.stress.setting import case_of, common_of, state_of
from undertow.stress.stressed import Stressed


class Part(NamedTuple):
    """What a shard starts from: a case whose accounts, legs and owners are counted from its own."""

    case: cascade.Case
    holders: rounds.Holders


class News(NamedTuple):
    """Prices of a round, how far they have come, and what stands behind them."""

    now: AnyColumn  # NOW
    travelled: FloatColumn  # (roots + 1,)
    trail: FloatColumn  # (instruments,)
    sold: FloatColumn  # (pools,) so far: what a liquidator must reckon with
    thin: FloatColumn  # (pools,)


class Moved(NamedTuple):
    """What a shard did."""

    acted: int  # accounts
    held_back: int  # accounts that are due but must wait
    flows: cascade.Flows


class Shard:
    """Some owners' accounts in a scenario, where they live."""

    def __init__(self, part: Part) -> None:
        self._part = _as_laid_out(part)

    def start_over(self, most_rounds: int, log_rows: int) -> None:
        """Bring everything back to its beginning, with everybody watched."""
        case = self._part.case
        self._state = state = state_of(case, most_rounds=most_rounds, log_rows=log_rows)
        rounds.watch_all(case, state)
        owners.gather(case, state)
        self._before = np.empty(len(state.touched.rest) if case.switches.unwind else 0)
        self._known = 0
        self._winning: dict[int, tuple[KeyColumn, FloatColumn]] = {}

    def judge(self, r: int, news: News, limited: bool) -> Moved:
        """Find who is called at new prices, let their owners answer, and close them.

        Where liquidators are `limited`, nobody is closed yet; demand is what they would have to
        bring.
        """
        case, state = self._part.case, self._state
        switches = case.switches
        state.now[:] = news.now
        state.moving.travelled[:] = news.travelled
        state.moving.trail[r] = news.trail
        state.moving.sold[:] = news.sold
        state.moving.thin[:] = news.thin
        state.losses.stamp[1] += 1
        found = cascade.judge(0, int(state.watched[0]), r, case, state)
        self._due = state.due[:found]
        answering = switches.convert or switches.top_up or switches.delever
        if answering:
            self._due.sort()  # owners share what they have among accounts that stand together
        answered = owners.answer(self._due, r, case, state) if answering else 0
        if switches.unwind:
            self._known = owners.remember(self._before, state)
        acted, held_back = closers.close_due(
            self._due, r, np.ones(len(case.venues)), limited, case, state
        )
        return self._moved(answered + acted, 0 if limited else held_back)

    def close(self, r: int, scale: FloatColumn) -> Moved:
        """Close the share of what is due that each venue's liquidators can carry."""
        case, state = self._part.case, self._state
        return self._moved(*closers.close_due(self._due, r, np.array(scale), False, case, state))

    def winners(self, sides: Sequence[tuple[int, float]]) -> list[tuple[FloatColumn, KeyColumn]]:
        """Rank and quantity of those who hold the other side of each instrument at a profit."""
        self._winning.clear()
        return [self._winners(k, side) for k, side in sides]

    def _winners(self, k: int, side: float) -> tuple[FloatColumn, KeyColumn]:
        case, holders = self._part
        size = int(holders.start[k + 1] - holders.start[k])
        holder, score = np.empty(size, dtype=np.int64), np.empty(size)
        counts = np.empty(size, dtype=np.int64)
        found = rounds.winners(k, side, case, self._state, holders, holder, score, counts)
        self._winning[k] = holder[:found], score[:found]
        return score[:found], counts[:found]

    def take(self, r: int, k: int, rank: float, share: float, per_unit: float) -> None:
        """Close the winners above a rank, and a share of those at it."""
        case, holders = self._part
        rounds.take_from_winners(
            r, k, rank, share, per_unit, *self._winning[k], case, self._state, holders
        )

    def finish(self, r: int) -> Moved:
        """Let owners close the other leg of what they lost; what winners were made to pay."""
        case, state = self._part.case, self._state
        if not case.switches.unwind:
            return self._moved(0, 0)
        return self._moved(owners.unwind(r, self._known, self._before, case, state), 0)

    def left(self, trace: bool) -> tuple[int, Left]:
        """How many rows the log would have had, and what is left of the accounts."""
        return int(self._state.log.used[0]), Left.of(self._state, trace=trace)

    def _moved(self, acted: int, held_back: int) -> Moved:
        """What flowed since this was last asked."""
        flows = cascade.Flows(*(part.copy() for part in self._state.flows))
        for part in self._state.flows:
            part[:] = 0
        return Moved(acted, held_back, flows)


class Keeper:
    """The shards of one worker."""

    def __init__(self, shared: None, number: int) -> None:
        self._shards: list[Shard] = []

    def take_over(self, parts: list[Part]) -> None:
        """Keep these accounts, and no others."""
        self._shards = [Shard(part) for part in parts]

    def ask(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """What `method` of every shard gives, each asked with its own arguments."""
        return [
            getattr(shard, method)(*args)
            for shard, args in zip(self._shards, arguments, strict=True)
        ]


class Shards:
    """Runs one scenario after another, with the accounts of each divided among a crew."""

    def __init__(self, crew: Crew, count: int) -> None:
        self._crew = crew
        self._deal = [len(dealt) for dealt in np.array_split(np.arange(count), len(crew))]

    def __len__(self) -> int:
        return sum(self._deal)

    def __repr__(self) -> str:
        return f"Shards({len(self)} on {len(self._crew)} workers)"

    def __call__(
        self, plan: Plan, stressed: Stressed, options: Options, *, check: bool, trace: bool
    ) -> Cascade:
        """Follow one scenario to its end, as `Engine.run` does."""
        require_same_names(plan, stressed)
        case = case_of(plan, stressed, options, check=check)
        ends = list(pairwise(cuts(case, len(self))))
        parts = [part_of(case, plan.holders, *end) for end in ends]
        self._crew.call_each("take_over", [(some,) for some in self._dealt(parts)])
        market = _Market(self, part_of(case, plan.holders, 0, 0).case, plan, stressed, options)
        rows = FIRST_LOG if trace else 0
        while True:
            self.ask("start_over", options.max_rounds, rows)
            shocked = market.start_over()
            done, status = market.run_rounds()
            used, left = zip(*self.ask("left", trace), strict=True)
            if not trace or max(used) <= rows:
                break
            rows = max(used)
        firsts = [int(case.owner_start[first]) for first, _ in ends]
        return cascade_of(
            plan, stressed, options, case, market.common, _joined(left, firsts),
            done=done, status=status, shocked=shocked, final=market.prices(),
        )  # fmt: skip

    def ask(self, method: str, *args: Any) -> list[Any]:
        """Call a method on all shards; their answers in order."""
        asked = [(method, some) for some in self._dealt([args] * len(self))]
        return list(chain.from_iterable(self._crew.call_each("ask", asked)))

    def _dealt(self, things: list[Any]) -> list[list[Any]]:
        """One thing a shard, dealt to the workers that keep them."""
        some = iter(things)
        return [list(islice(some, count)) for count in self._deal]


@contextmanager
def divided(shards: int, executor: Executor | None = None) -> Iterator[Shards]:
    """Hire workers for a number of shards: one each, or as many as the executor has.

    Raises
    ------
    StateError
        When there is to be no shard.
    """
    if shards < 1:
        raise StateError(f"shards was {shards}; it must be at least 1")
    executor = executor or Serial()
    with (
        executor.running(),  # or its width would start a cluster, and the crew another
        executor.crew(Keeper, range(min(shards, executor.width()))) as crew,
    ):
        yield Shards(crew, shards)


def run_sharded(
    snapshot: Snapshot | Plan,
    scenario: Scenario | Stressed,
    options: Options | None = None,
    *,
    shards: int,
    executor: Executor | None = None,
    settle: bool = True,
    check: bool = False,
    trace: bool = True,
) -> Cascade:
    """Follow a scenario as `run_cascade` does, with the accounts divided into `shards`.

    Prices, sums, the ledger and what is left of every account have the same bits. The trace stands
    by round and account, where that of the engine alone stands by round and step.

    Raises
    ------
    WorkerError
        When a worker dies.
    StateError, RuleError, MissingPrice
        As `run_cascade` does.
    """
    with divided(shards, executor) as run:
        return follow(run, snapshot, scenario, options, settle=settle, check=check, trace=trace)


def cuts(case: cascade.Case, shards: int) -> list[int]:
    """Owners at which shards begin, and at which the last ends.

    Each gets as many legs as whole owners allow; one may be left without any.
    """
    legs_before = np.append(case.hold.accounts["first"], len(case.hold.legs))[case.owner_start]
    inner = np.arange(1, shards) * legs_before[-1] // shards
    return [0, *np.searchsorted(legs_before, inner).tolist(), len(case.owner_start) - 1]


def part_of(case: cascade.Case, holders: rounds.Holders, first: int, last: int) -> Part:
    """What the owners from `first` up to `last` hold, counted from the first of them."""
    a, b = case.owner_start[[first, last]]
    i, j = np.append(case.hold.accounts["first"], len(case.hold.legs))[[a, b]]
    held = case.hold.accounts[a:b].copy()
    held["first"] -= i
    held["last"] -= i
    held["owner"] -= first
    mine = (holders.leg >= i) & (holders.leg < j)
    switches = case.switches
    return Part(
        case._replace(
            hold=accounts.Holdings(held, case.hold.legs[i:j]),
            switches=switches._replace(
                free=switches.free[first:last], willing=switches.willing[first:last]
            ),
            owner_start=frozen(case.owner_start[first : last + 1] - a),
        ),
        rounds.Holders(
            frozen(np.append(0, np.cumsum(mine))[holders.start]),
            frozen(holders.leg[mine] - i),
            frozen((holders.account[mine] - a).astype(np.int32)),
            frozen(holders.side[mine]),
            frozen(holders.entry[mine]),
        ),
    )


def _as_laid_out(part: Part) -> Part:
    """The part with arrays that may be written where those of a case of one's own may.

    See `Plan.unpacked`; nobody writes them.
    """
    case = _each(part.case, lambda array: array if array.flags.writeable else array.copy())
    reference = frozen(case.places.reference.copy())
    return Part(
        case._replace(
            places=case.places._replace(reference=reference),
            owner_start=frozen(case.owner_start),
        ),
        _each(part.holders, frozen),
    )


def _each(thing: Any, act: Callable[[AnyColumn], AnyColumn]) -> Any:
    """The same named tuples with every array exchanged for what `act` makes of it."""
    if isinstance(thing, np.ndarray):
        return act(thing)
    return type(thing)(*(_each(part, act) for part in thing)) if isinstance(thing, tuple) else thing


def _joined(left: tuple[Left, ...], firsts: list[int]) -> Left:
    """What shards left, as one: touched accounts in order, the log by round and account."""
    touched = np.concatenate([each.touched for each in left])
    sizes = [len(each.touched) for each in left]
    legs = np.cumsum([0, *(len(each.rest) for each in left)])[:-1]
    touched["account"] += np.repeat(firsts, sizes)
    touched["first"] += np.repeat(legs, sizes)
    logs = [each.log for each in left if each.log is not None]
    log = None
    if logs:
        log = np.concatenate(logs)
        log["account"] += np.repeat(firsts, [len(rows) for rows in logs])
        log = log[np.lexsort((log["account"], log["round"]))]
    return Left(
        touched[np.argsort(touched["account"])],
        frozen(np.concatenate([each.rest for each in left])),
        log,
    )


@dataclass(eq=False)
class _Market:
    """Prices, funds and the ledger of one scenario: an engine without accounts of its own."""

    shards: Shards
    case: cascade.Case  # of no accounts
    plan: Plan
    stressed: Stressed
    options: Options

    def __post_init__(self) -> None:
        self.state = state_of(self.case, most_rounds=self.options.max_rounds)
        self.common = common_of(self.plan, self.options, path=True)
        self.limited = bool(rounds.limited(self.case))

    def prices(self) -> FloatColumn:
        """Market prices as they stand."""
        found: FloatColumn = self.state.now["market"].copy()
        return found

    def start_over(self) -> FloatColumn:
        """Bring everything back to its beginning; market prices before anybody is closed."""
        case, state = self.case, self.state
        funds, scale = self.plan.snapshot.funds, self.stressed.fund_mult
        rounds.start_over(case, state, self.common, funds.insurance * scale, funds.backstop * scale)
        prices.market_prices(case.insts, case.shock, case.places, state.now, state.moving)
        return self.prices()

    def run_rounds(self) -> tuple[int, int]:
        """Follow the scenario to its end, as `rounds.run_rounds`; (rounds, outcome)."""
        for r in range(self.options.max_rounds):
            waiting, most = rounds.open_round(r, self.case, self.state)
            self.common.path[r] = self.state.now["seen"]
            still = self.options.recovery == 0.0 or most <= rounds.FADED
            if not self._close_round(r) and waiting == 0 and still:
                return r + 1, rounds.SETTLED
        return self.options.max_rounds, rounds.ROUND_LIMIT

    def _close_round(self, r: int) -> bool:
        """Close those due and settle the round, as `rounds.close_round`; whether more follows."""
        case, state, common, ask = self.case, self.state, self.common, self.shards.ask
        moving = state.moving
        news = News(state.now, moving.travelled, moving.trail[r], moving.sold, moving.thin)
        acted, held_back = self._add(ask("judge", r, news, self.limited))
        if self.limited:
            scale = np.ones(len(case.venues))
            rounds.carry(case, state, scale)
            closed, held_back = self._add(ask("close", r, scale))
            acted += closed
        winners_pay = rounds.share_losses(r, case, state, common)
        if winners_pay:
            self._deleverage(r)
        if winners_pay or case.switches.unwind:
            acted += self._add(ask("finish", r))[0]
        pending = rounds.end_round(r, case, state, common)
        common.acted[r] = acted
        return acted > 0 or held_back > 0 or pending > 0

    def _deleverage(self, r: int) -> None:
        """Close winners against what bankrupt accounts left, as `rounds.deleverage`."""
        shared, insts = self.common.shared, self.case.insts
        asked = np.flatnonzero(shared["wanted"]).tolist()
        sides = [(k, 1.0 if shared["wanted"][k] > 0.0 else -1.0) for k in asked]
        answers = self.shards.ask("winners", sides)
        for (k, side), found in zip(sides, zip(*answers, strict=True), strict=True):
            score, counts = (np.concatenate(column) for column in zip(*found, strict=True))
            wanted, per_qty = abs(float(shared["wanted"][k])), float(insts["per_qty"][k])
            rank, share, taken = rounds.cut_off(score, counts, to_counts(wanted, per_qty))
            if taken > 0:
                per_unit = float(shared["loss"][k]) / (taken / per_qty)
                self.shards.ask("take", r, k, rank, share, per_unit)
                self.state.flows.counts[cascade.SOLD, k] -= taken if side > 0.0 else -taken

    def _add(self, answers: list[Moved]) -> tuple[int, int]:
        """Add what shards moved to the flows of the round; (acted, held back)."""
        for answer in answers:
            for whole, part in zip(self.state.flows, answer.flows, strict=True):
                whole += part
        return sum(a.acted for a in answers), sum(a.held_back for a in answers)
