"""Some accounts of a large book that stand for all of it.

The largest accounts stand for themselves. Of the others, put in order of size, every k-th stands
for the k around it: so every size has its share, thresholds and brackets are those of real
accounts, and sums stay whole counts. What is forced, sold and lost is then that of the whole book;
who stands behind an account is not, so nobody's owner acts in it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from undertow.errors import StateError
from undertow.kernels import rounds
from undertow.state import Book, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.options import Options
from undertow.stress.plan import Plan


def stood_for(plan: Plan, most: int) -> Plan:
    """A plan in which about `most` accounts stand for all; the plan itself where it has no more."""
    if most >= len(plan.hold.accounts):
        return plan
    return stand_ins(plan, _times(plan, most))


def stand_ins(plan: Plan, times: KeyColumn) -> Plan:
    """The plan of those accounts that stand for any, each for so many `times` (accounts,).

    Quanta of sums, and what is held of each instrument, are those of the whole book.
    """
    rows = np.flatnonzero(times > 0)
    accounts, holders = plan.hold.accounts[rows], plan.holders
    count = accounts["last"] - accounts["first"]
    offset = np.append(0, np.cumsum(count)).astype(np.int64)
    legs = np.repeat(accounts["first"] - offset[:-1], count) + np.arange(offset[-1])
    accounts["first"], accounts["last"], accounts["times"] = offset[:-1], offset[1:], times[rows]
    kept = times[holders.account] > 0
    row = np.cumsum(times > 0) - 1
    leg = holders.leg[kept] - plan.hold.accounts["first"][holders.account[kept]]
    account = row[holders.account[kept]]
    return plan.like(
        snapshot=replace(plan.snapshot, book=_rows(plan.snapshot.book, rows, legs, offset)),
        hold=plan.hold._replace(accounts=accounts, legs=plan.hold.legs[legs]),
        holders=rounds.Holders(
            frozen(np.append(0, np.cumsum(kept))[holders.start].astype(np.int64)),
            frozen(leg + offset[account]), frozen(account.astype(holders.account.dtype)),
            frozen(holders.side[kept]), frozen(holders.entry[kept]),
        ),
        owner_start=frozen(np.append(0, np.cumsum(times > 0))[plan.owner_start].astype(np.int64)),
    )  # fmt: skip


def _rows(book: Book, rows: KeyColumn, legs: KeyColumn, offset: KeyColumn) -> Book:
    """Some accounts of a book, with their legs."""
    by_account = {n: getattr(book, n)[rows] for n in ("account", "venue", "mode", "category")}
    by_leg = {n: getattr(book, n)[legs] for n in ("inst", "kind", "qty", "entry", "evidence")}
    return replace(book, owner=book.owner[rows], offset=offset, **by_account, **by_leg)


def is_whole(plan: Plan) -> bool:
    """Whether every account stands for itself."""
    return bool((plan.hold.accounts["times"] == 1).all())


def require_whole(plan: Plan, what: str) -> None:
    """Refuse a plan in which accounts stand for others, where each one's own fate is asked for.

    Raises
    ------
    StateError
        When some accounts stand for others.
    """
    if not is_whole(plan):
        raise StateError(
            f"accounts of this plan stand for others; {what} asks for each one's own",
            hint="take the plan of the whole book",
        )


def require_passive(plan: Plan, options: Options) -> None:
    """Refuse owners who act, where accounts stand for others.

    Raises
    ------
    StateError
        When owners act and some accounts stand for others.
    """
    if options.responses.any:
        require_whole(plan, "what owners do")


def _times(plan: Plan, most: int) -> KeyColumn:
    """(accounts,) How many each account stands for."""
    legs = plan.hold.legs
    price = np.where(plan.insts["inverse"] != 0, 1.0, plan.insts["start"])
    size = np.bincount(plan.snapshot.book.leg_account, np.abs(legs["qty"]) * price[legs["inst"]],
                       len(plan.hold.accounts))  # fmt: skip
    order = np.argsort(-size, kind="stable")
    large, small = np.split(order, [most // 2])
    every = -(-len(small) // max(most - len(large), 1))
    times = np.zeros(len(size), dtype=np.int64)
    times[large] = 1
    times[small[every // 2 :: every]] = every
    return times
