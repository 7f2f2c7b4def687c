"""Some accounts of a large book that stand for all of it.

The largest accounts stand for themselves. The others are put in order of what they hold and of how
near the edge they are, and cut into stretches of as many USD; of each stretch the middle account,
at the mean size, stands for all. So what is forced at any price is that of the whole book to within
a stretch, thresholds are those of real accounts, and sums stay whole counts.
Who stands behind an account is not known then, so nobody's owner acts in it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from undertow.errors import StateError
from undertow.kernels import rounds
from undertow.rules.margins import account_sums
from undertow.state import Book, BoolColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.options import Options
from undertow.stress.plan import Plan


def stood_for(plan: Plan, most: int) -> Plan:
    """A plan in which about `most` accounts stand for all; the plan itself where it has no more."""
    if most >= len(plan.hold.accounts):
        return plan
    return stand_ins(plan, *_chosen(plan, most))


def stand_ins(plan: Plan, times: KeyColumn, scale: FloatColumn | None = None) -> Plan:
    """The plan of those accounts that stand for any, each for so many `times` (accounts,).

    With `scale` (accounts,) each is so much larger than it was. Quanta of sums, and what is held of
    each instrument, are those of the whole book.
    """
    rows = np.flatnonzero(times > 0)
    accounts, holders = plan.hold.accounts[rows], plan.holders
    count = accounts["last"] - accounts["first"]
    offset = np.append(0, np.cumsum(count)).astype(np.int64)
    legs = np.repeat(accounts["first"] - offset[:-1], count) + np.arange(offset[-1])
    accounts["first"], accounts["last"], accounts["times"] = offset[:-1], offset[1:], times[rows]
    held, book = plan.hold.legs[legs], _rows(plan.snapshot.book, rows, legs, offset)
    if scale is not None:
        accounts["cash"] *= scale[rows]
        held["qty"] *= np.repeat(scale[rows], count)
        book = replace(book, qty=frozen(held["qty"].copy()))
    kept = times[holders.account] > 0
    row = np.cumsum(times > 0) - 1
    leg = holders.leg[kept] - plan.hold.accounts["first"][holders.account[kept]]
    account = row[holders.account[kept]]
    return plan.like(
        snapshot=replace(plan.snapshot, book=book),
        hold=plan.hold._replace(accounts=accounts, legs=held),
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


def _chosen(plan: Plan, most: int) -> tuple[KeyColumn, FloatColumn]:
    """(accounts,) How many each account stands for, and at how many times its size."""
    legs = plan.hold.legs
    price = np.where(plan.insts["inverse"] != 0, 1.0, plan.insts["start"])
    usd = np.abs(legs["qty"]) * price[legs["inst"]]
    accounts = len(plan.hold.accounts)
    size = np.bincount(plan.snapshot.book.leg_account, usd, accounts).astype(np.float64)
    alone, stretch = _cut(size, most)
    times, scale = alone.astype(np.int64), np.ones(accounts)
    rest = np.flatnonzero(~alone & (size > 0.0))
    if not len(rest):
        return times, scale
    rest = rest[np.argsort(_alike(plan, usd)[rest], kind="stable")]
    place = np.floor(np.cumsum(size[rest]) / stretch)
    first = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
    count = np.diff(np.append(first, len(rest)))
    chosen = rest[first + count // 2]
    times[chosen] = count
    scale[chosen] = np.add.reduceat(size[rest], first) / (count * size[chosen])
    return times, scale


def _cut(size: FloatColumn, most: int) -> tuple[BoolColumn, float]:
    """Who is as large as a stretch of the others, and how many USD such a stretch has."""
    alone = np.zeros(len(size), dtype=np.bool_)
    while True:
        stretch = float(size[~alone].sum()) / max(most - int(alone.sum()), 1)
        larger = size >= max(stretch, 1e-300)
        if (larger == alone).all():
            return alone, max(stretch, 1e-300)
        alone = larger


def _alike(plan: Plan, usd: FloatColumn) -> FloatColumn:
    """(accounts,) A number that is near for accounts that hold the same and are as near the edge.

    What is largest in an account comes first, then what is next, then asked over cover.
    """
    legs, accounts = plan.hold.legs, plan.hold.accounts
    owner = plan.snapshot.book.leg_account
    count, left, key = len(plan.insts), usd.copy(), np.zeros(len(accounts))
    for _ in range(2):
        most = np.zeros(len(accounts))
        np.maximum.at(most, owner, left)
        here = np.flatnonzero((left == most[owner]) & (left > 0.0))
        inst = np.full(len(accounts), count)
        inst[owner[here]] = legs["inst"][here]
        left[here] = 0.0
        key = key * (count + 1) + inst
    sums = account_sums(plan.snapshot)
    near = np.clip(sums.asked / np.maximum(sums.cover, 1e-300), 0.0, 1.0)
    return key + 0.999 * near
