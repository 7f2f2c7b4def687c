"""Who a joint result is due to: players who may take part or not, and a value of every set of them.

Players are counted from 0; a set is a `frozenset` of them. Values of sets are kept, so no set is
worked out twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import comb, isfinite

import numpy as np

from undertow.errors import EstimationError
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen

Members = frozenset[int]
Value = Callable[[Members], float]
LARGEST = 20  # players of whom every set can be worked out at all


@dataclass(frozen=True, eq=False)
class Shares:
    """What each player has a part in, three ways; `shapley` adds up to `every` less `none`."""

    none: float  # value of nobody
    every: float  # value of all
    shapley: FloatColumn  # mean of what each adds over all orders of joining
    error: FloatColumn  # standard error of it; 0 where every order was looked at
    alone: FloatColumn  # what each adds to nobody
    last: FloatColumn  # what all lose without it
    null: BoolColumn  # it changed no set that was looked at
    exact: bool
    asked: int  # sets that were worked out

    def __repr__(self) -> str:
        how = "exactly" if self.exact else "from drawn orders"
        return f"Shares(of {self.every - self.none:.6g} over {len(self.shapley)} players, {how})"


def shares(
    players: int,
    value: Value,
    *,
    idle: Iterable[int] = (),
    most: int = 1_024,
    rng: np.random.Generator | None = None,
) -> Shares:
    """Divide what all players reach together among them, by the mean over orders of joining.

    `idle` players are known to change nothing: sets that differ in them alone are one set, and they
    get exactly 0. Where all sets of the others are more than `most`, orders are drawn, each with
    its reverse, until `most` sets were worked out; every order adds up by itself, so the sum of the
    shares is exact all the same, and only their sizes have an error.

    When it misleads: what two players reach only together is divided between them alike, whatever
    anybody would call the cause; and a value of a set is what *this* model says of it, though no
    such set could be had in the world.

    Raises
    ------
    EstimationError
        When there are no players, or `most` lets fewer than two orders be drawn, or orders have to
        be drawn and there is no `rng`, or the value of a set is not finite.

    References
    ----------
    Shapley (1953), "A value for n-person games". Castro, Gomez and Tejada (2009), Computers and
    Operations Research 36 (sampled orders). Mitchell, Cooper, Frank and Holmes (2022), JMLR 23
    (orders with their reverse).
    """
    if players < 1:
        raise EstimationError(f"players was {players}; there must be one at least")
    known = _Known(value, frozenset(idle), players)
    active = [each for each in range(players) if each not in known.idle]
    exact = len(active) <= LARGEST and 2 ** len(active) <= most
    if exact:
        found, error = _every_order(active, players, known), np.zeros(players)
    else:
        found, error = _drawn_orders(active, players, known, most, rng)
    whole = frozenset(active)
    none, every = known(frozenset()), known(whole)
    alone, last = np.zeros(players), np.zeros(players)
    for each in active:
        alone[each] = known(frozenset({each})) - none
        last[each] = every - known(whole - {each})
    return Shares(
        none=none, every=every, shapley=frozen(found), error=frozen(error), alone=frozen(alone),
        last=frozen(last), null=frozen(known.null(players)), exact=exact, asked=len(known.seen),
    )  # fmt: skip


class _Known:
    """Values of sets, each worked out once."""

    def __init__(self, value: Value, idle: Members, players: int) -> None:
        if any(not 0 <= each < players for each in idle):
            raise EstimationError(f"idle was {sorted(idle)}; players are 0 to {players - 1}")
        self._value, self.idle = value, idle
        self.seen: dict[Members, float] = {}

    def __call__(self, members: Members) -> float:
        members = members - self.idle
        if members not in self.seen:
            found = float(self._value(members))
            if not isfinite(found):
                raise EstimationError(
                    f"the value of the players {sorted(members)} was {found}, which cannot be "
                    "divided",
                    hint="give every set a finite value, or leave out who makes it none",
                )
            self.seen[members] = found
        return self.seen[members]

    def null(self, players: int) -> BoolColumn:
        """By player, whether no set that was looked at changed by it."""
        found = np.ones(players, dtype=np.bool_)
        for members, value in self.seen.items():
            for each in members:
                without = self.seen.get(members - {each})
                if without is not None and without != value:
                    found[each] = False
        return found


def _every_order(active: list[int], players: int, known: _Known) -> FloatColumn:
    """The mean over all orders, by the number of orders in which a set comes before a player."""
    found, size = np.zeros(players), len(active)
    sets = _all_sets(active)
    for each in active:
        gains = [
            (known(before | {each}) - known(before)) / (size * comb(size - 1, len(before)))
            for before in sets
            if each not in before
        ]
        found[each] = float(np.sum(gains))
    return found


def _all_sets(active: list[int]) -> list[Members]:
    """Every set; neighbours differ in one player, and the first player comes or goes least often.

    A value that is dear to work out anew when a certain player changes has it first.
    """
    return [
        frozenset(each for bit, each in enumerate(active[::-1]) if (n ^ (n >> 1)) >> bit & 1)
        for n in range(2 ** len(active))
    ]


def _drawn_orders(
    active: list[int], players: int, known: _Known, most: int, rng: np.random.Generator | None
) -> tuple[FloatColumn, FloatColumn]:
    """Means over drawn orders, and their standard errors; an order and its reverse are one draw."""
    if rng is None:
        raise EstimationError(
            f"{2 ** min(len(active), 62):,} sets are more than {most:,}, so orders are drawn, and "
            "rng is None",
            hint="give a numpy Generator, or allow more sets with most",
        )
    size = len(active)
    room = most - 2 * size  # those that `alone` and `last` may still ask for
    draws: list[FloatColumn] = []
    while len(known.seen) + 2 * (size - 1) + 2 <= room:
        order = [active[k] for k in rng.permutation(size)]
        draws.append(0.5 * (_gains(order, players, known) + _gains(order[::-1], players, known)))
        if len(draws) >= most:  # all that can be asked is known
            break
    if len(draws) < 2:
        raise EstimationError(
            f"most was {most}; two draws of orders of {size} players need {6 * size}",
            hint="allow more sets, or put players together",
        )
    table = np.array(draws)
    error = table.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return table.mean(axis=0), error


def _gains(order: list[int], players: int, known: _Known) -> FloatColumn:
    """What each adds as it joins in this order."""
    gains, members = np.zeros(players), frozenset[int]()
    for each in order:
        before, members = known(members), members | {each}
        gains[each] = known(members) - before
    return gains
