"""The cascade in NumPy and scipy.sparse, as a quant would write it: whole columns, no compiler.

Health of all accounts is a sparse matrix times prices: what accounts hold and owe, and maintenance
where it is a straight line, are coefficients of one CSR matrix. It is built once; a leg is one
entry, so closings only write the entries of whoever was closed. Legs whose maintenance may reach a
second bracket are added by `np.add.reduceat`, and portfolio groups by a second sparse product, of
their options with what each option loses at every point of the grid. Who comes out below zero is
judged exactly; then all who are called at one kind of venue are closed at once, column by column.

Prices, funds and the end of a round are the engine's own compiled functions, which are small
beside the accounts: whatever they save is to this version's good.

Sums are floats, rounded to whole counts once by instrument, so answers differ from the engine's in
the last digits only; on the bench book by less than 1e-12 of its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import ndtr

from bench.totals import Totals, owners_called, require_plain
from undertow.kernels import cascade, closing
from undertow.kernels.accounts import CALLED, EMPTIED, KEPT, TAKEN
from undertow.kernels.cascade import (
    BAD,
    BANKRUPT,
    CLOSED,
    CUT,
    GAIN,
    PAID,
    REPAID,
    SHORT,
    SOLD,
)
from undertow.kernels.margin import (
    CASH,
    COLLATERAL,
    DEBT,
    INVERSE,
    LINEAR,
    OPTION,
    SUPPLY,
    TESTED,
)
from undertow.kernels.rounds import begin, end_round, open_round, share_losses
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, common_of, shocks_of, state_of
from undertow.stress.stressed import Stressed

REACH = 3.0  # times its first price: up to there straight maintenance was found to be straight
_NEAR = 1e-9  # of all that health is added up from: who is as near to zero is judged exactly


class Columns(NamedTuple):
    """The book as plain columns, by leg and by account."""

    inst: Any
    role: Any
    entry: Any
    weight: Any
    bonus: Any
    fee: Any
    first: Any  # by account, its legs up to `last`
    last: Any
    venue: Any
    mechanism: Any  # of its venue


class Brackets(NamedTuple):
    """Maintenance by instrument, brackets side by side; what an instrument lacks repeats."""

    rate: Any  # (instruments, brackets)
    amount: Any
    fee: Any
    basis: Any
    start: Any  # price


class Health(NamedTuple):
    """Health of all accounts: matrix @ seen + level, less what `bent` legs and grids ask."""

    matrix: Any  # (accounts, instruments): an entry a leg
    level: Any
    per_unit: Any  # by leg, the entry of one unit of its quantity
    level_per_unit: Any
    scale: Any  # by account, what health is added up from
    bent: Any  # legs that may be in any bracket
    bent_rate: Any  # (bent, brackets)
    bent_amount: Any
    bent_fee: Any
    bent_heads: Any  # where each account's begin, and the accounts
    bent_account: Any


class Grid(NamedTuple):
    """All portfolio groups on one grid. A rung is one underlying of a group."""

    account: Any  # by group
    option: Any  # legs that are options, by rung
    option_rung: Any  # (rungs + 1,)
    option_column: Any  # place among `Plan.grids.options`
    straight: Any  # other contracts, and their rung
    straight_rung: Any
    contract: Any  # all contracts, their group, and what is asked of their notional
    contract_group: Any
    add_on: Any
    minimum: Any
    group_of_rung: Any
    price_move: Any  # by point of the grid, as are the next two
    counted: Any
    vol_move: Any  # (options, points)


@dataclass(eq=False)
class Picked:
    """The legs of some accounts, end to end, as they are now."""

    accounts: Any
    legs: Any
    heads: Any  # where each account's begin
    row: Any  # which of `accounts` a leg belongs to
    inst: Any
    role: Any
    qty: Any
    price: Any
    value: Any

    def sum(self, column: Any) -> Any:
        """Sums by account."""
        return np.add.reduceat(column, self.heads) if len(self.heads) else np.zeros(0)

    def largest(self, column: Any) -> Any:
        """By account, the place of the first largest entry above 0; -1 where there is none."""
        found = np.full(len(self.heads), -1)
        if len(self.heads):
            most = np.maximum.reduceat(column, self.heads)
            at = np.flatnonzero((column == most[self.row]) & (column > 0.0))[::-1]
            found[self.row[at]] = at
        return found

    def where(self, role: int, column: Any) -> Any:
        """A column, 0 in legs of another role."""
        return np.where(self.role == role, column, 0.0)


@dataclass(eq=False)
class Sparse:
    """A plan as columns and matrices, and memory to follow one scenario after another in."""

    plan: Plan
    options: Options
    book: Columns
    brackets: Brackets
    health: Health
    grids: tuple[Grid, ...]
    case: Any
    state: Any
    common: Any
    qty: Any  # what is left of legs
    cash: Any
    ready: Any
    status: Any  # KEPT, CALLED, EMPTIED or TAKEN
    touched: Any
    changed: Any  # by account, whether it was touched since the matrix was last written

    @classmethod
    def of(cls, plan: Plan, options: Options | None = None) -> Sparse:
        """Lay a plan out.

        Raises
        ------
        ValueError
            When it holds what this version does not know.
        """
        options = options or Options()
        book, brackets = _columns(plan), _brackets(plan)
        case = case_of(plan, Stressed.calm(plan.snapshot), options)
        _require_known(book, brackets, case)
        accounts = len(book.first)
        return cls(
            plan=plan, options=options, book=book, brackets=brackets,
            health=_health(plan, book, brackets), grids=_grids(plan, book), case=case,
            state=state_of(case, most_rounds=options.max_rounds),
            common=common_of(plan, options), qty=plan.hold.legs["qty"].copy(),
            cash=plan.hold.accounts["cash"].copy(), ready=np.zeros(accounts, dtype=np.int32),
            status=np.full(accounts, KEPT, dtype=np.int8),
            touched=np.zeros(accounts, dtype=bool), changed=np.zeros(accounts, dtype=bool),
        )  # fmt: skip

    def run(self, stressed: Stressed, options: Options | None = None) -> Totals:
        """Follow one scenario, of factor moves alone, to its end.

        Raises
        ------
        ValueError
            When the scenario says more than moves, or other options were prepared for.
        """
        options = options or self.options
        require_plain(self.plan, stressed, options)
        if options != self.options:
            raise ValueError("options differ from those that the columns were prepared with")
        return self.follow(np.stack(shocks_of(self.plan, stressed)))

    def follow(self, shock: Any) -> Totals:
        """Follow one scenario whose log moves are worked out: what is timed."""
        case, state, common = self.case._replace(shock=shock), self.state, self.common
        funds = self.plan.snapshot.funds
        self._start_over()
        begin(case, state, common, funds.insurance, funds.backstop)
        for r in range(self.options.max_rounds):
            waiting, _ = open_round(r, case, state)
            self.seen, self.forward = state.now["seen"].copy(), state.now["forward"].copy()
            called, cover, asked = self._called()
            late = r < self.ready[called]
            acted = self._close(r, called[~late], cover[~late], asked[~late])
            if share_losses(r, case, state, common):
                self._deleverage()
            self._rewrite()
            pending = end_round(r, case, state, common)
            if acted == 0 and not late.any() and not pending and not waiting:
                break
        usd = common.totals / case.insts["per_usd"]
        hit = np.flatnonzero((self.ready > 0) | (self.status == EMPTIED))
        return Totals(
            usd[cascade.CLOSED], usd[cascade.REPAID], usd[cascade.BAD], r + 1, len(hit),
            *owners_called(self.plan, hit),
        )  # fmt: skip

    def _start_over(self) -> None:
        """Bring back to the start whatever the last scenario touched."""
        accounts = np.flatnonzero(self.touched)
        legs, _, _ = _ranges(self.book.first[accounts], self.book.last[accounts])
        self.qty[legs] = self.plan.hold.legs["qty"][legs]
        self.cash[accounts] = self.plan.hold.accounts["cash"][accounts]
        self.ready[accounts], self.status[accounts], self.touched[accounts] = 0, KEPT, False
        self.changed[accounts] = True
        self._rewrite()

    def _rewrite(self) -> None:
        """Write the entries of the matrix anew for accounts that changed."""
        accounts = np.flatnonzero(self.changed)
        self.changed[accounts] = False
        health = self.health
        legs, heads, _ = _ranges(self.book.first[accounts], self.book.last[accounts])
        health.matrix.data[legs] = health.per_unit[legs] * self.qty[legs]
        if len(accounts):
            level = np.add.reduceat(health.level_per_unit[legs] * self.qty[legs], heads)
            health.level[accounts] = self.cash[accounts] + level

    # ---- who is called

    def _called(self) -> tuple[Any, Any, Any]:
        """Accounts below zero at the seen prices, their cover and what is asked of them."""
        parts, required = self.health, self._required()
        health = parts.matrix @ self.seen + parts.level
        if len(parts.bent):
            health[parts.bent_account] -= np.add.reduceat(self._bent_asks(), parts.bent_heads)
        for grid, more in zip(self.grids, required, strict=True):
            health[grid.account] -= more
        near = health < _NEAR * parts.scale
        self._add_wild(near)
        near &= self.status != EMPTIED
        accounts = np.flatnonzero(near)
        cover, asked = self._judge(accounts, required)
        low = cover < asked
        return accounts[low], cover[low], asked[low]

    def _add_wild(self, near: Any) -> None:
        """Add holders of what rose so far that its maintenance may have left its line."""
        wild = self.seen > REACH * self.brackets.start
        wild[self.case.insts["kind"] != 0] = False
        if wild.any():
            legs = np.flatnonzero(wild[self.book.inst] & (self.book.role >= LINEAR))
            near[np.searchsorted(self.book.first, legs, side="right") - 1] = True

    def _bent_asks(self) -> Any:
        """Maintenance of legs that may be in any bracket, at the seen prices."""
        parts, book = self.health, self.book
        return _maintenance(
            np.abs(self.qty[parts.bent]), self.seen[book.inst[parts.bent]],
            book.role[parts.bent] == INVERSE, parts.bent_rate, parts.bent_amount, parts.bent_fee,
        )  # fmt: skip

    def _judge(self, accounts: Any, required: list[Any]) -> tuple[Any, Any]:
        """Cover and asked of some accounts, from what is left in their legs."""
        some = self._pick(accounts)
        weight, cash = self.book.weight[some.legs], self.cash[accounts]
        short_cash = (some.role == CASH) & (some.qty < 0.0)
        holds = (some.role == COLLATERAL) | ((some.role == CASH) & ~short_cash)
        w = np.where(holds, weight * some.value, 0.0)
        d = some.where(DEBT, weight * np.abs(some.value))
        d[short_cash] = -some.value[short_cash]
        at = np.flatnonzero(some.role >= LINEAR)
        legs, qty, price = some.legs[at], some.qty[at], some.price[at]
        w[at] = _realised(some.role[at], qty, price, self.book.entry[legs])
        d[at] = self._contracts_ask(legs, qty, price)
        cover = np.maximum(cash, 0.0) + some.sum(w)
        asked = np.maximum(-cash, 0.0) + some.sum(d)
        more = np.zeros(len(self.cash))
        for grid, amount in zip(self.grids, required, strict=True):
            more[grid.account] = amount
        return cover, asked + more[accounts]

    def _contracts_ask(self, legs: Any, qty: Any, price: Any) -> Any:
        """Maintenance of contracts, in their own brackets; nothing where a grid asks."""
        inst, weight = self.book.inst[legs], self.book.weight[legs]
        return weight * _maintenance(
            np.abs(qty), price, self.book.role[legs] == INVERSE, self.brackets.rate[inst],
            self.brackets.amount[inst], self.brackets.fee[inst],
        )  # fmt: skip

    def _required(self) -> list[Any]:
        """What each grid asks of its groups, as they are now."""
        options = self.plan.grids.options
        insts, vol = self.case.insts[options], self.state.now["vol"][options]
        forward = self.forward[options]
        terms = insts["kind"], insts["strike"], insts["tau"]
        worth = _black76(*terms, forward, vol)
        found = []
        for grid in self.grids:
            then = _black76(
                *(term[:, None] for term in terms), forward[:, None] * (1.0 + grid.price_move),
                vol[:, None] * np.maximum(1.0 + grid.vol_move, 0.0),
            )  # fmt: skip
            found.append(self._asks(grid, worth[:, None] - then))
        return found

    def _asks(self, grid: Grid, loss: Any) -> Any:
        """By group, the worst loss of each underlying and the add-ons, or the minima."""
        book, rungs, groups = self.book, len(grid.group_of_rung), len(grid.account)
        held = sparse.csr_array(
            (self.qty[grid.option], grid.option_column, grid.option_rung),
            shape=(rungs, len(loss)),
        )
        value = np.where(
            book.role[grid.straight] == INVERSE, 1.0, self.seen[book.inst[grid.straight]]
        )
        exposure = np.bincount(grid.straight_rung, self.qty[grid.straight] * value, rungs)
        worst = held @ (loss * grid.counted)
        there = np.flatnonzero(exposure)
        worst[there] -= exposure[there, None] * (grid.price_move * grid.counted)
        worst = np.maximum(worst.max(axis=1), 0.0)
        inst, role = book.inst[grid.contract], book.role[grid.contract]
        qty = self.qty[grid.contract]
        usd = np.abs(qty) * np.where(role == INVERSE, 1.0, self.seen[inst])
        usd = np.where(role == OPTION, np.maximum(-qty, 0.0) * self.forward[inst], usd)
        asked = np.bincount(grid.group_of_rung, worst, groups)
        asked += np.bincount(grid.contract_group, grid.add_on * usd, groups)
        return np.maximum(asked, np.bincount(grid.contract_group, grid.minimum * usd, groups))

    # ---- what is closed

    def _pick(self, accounts: Any) -> Picked:
        legs, heads, row = _ranges(self.book.first[accounts], self.book.last[accounts])
        inst, qty = self.book.inst[legs], self.qty[legs]
        price = self.seen[inst]
        return Picked(
            accounts, legs, heads, row, inst, self.book.role[legs], qty, price, qty * price
        )

    def _add(self, kind: int, inst: Any, amount: Any) -> None:
        """Add to a kind of flow, by instrument."""
        per = self.case.insts["per_qty" if kind in (SOLD, BANKRUPT) else "per_usd"]
        total = np.bincount(inst, amount, len(per)) * per
        self.state.flows.counts[kind] += np.floor(total + 0.5).astype(np.int64)

    def _close(self, r: int, called: Any, cover: Any, asked: Any) -> int:
        """Close all who are called, one mechanism after the other; how many acted."""
        acted = 0
        for mechanism, close in (
            (closing.PAIR, self._close_pairs), (closing.WHOLE, self._close_whole),
            (closing.SLICES, self._close_slices),
        ):  # fmt: skip
            here = self.book.mechanism[called] == mechanism
            if here.any():
                acted += close(r, self._pick(called[here]), cover[here], asked[here])
        return acted

    def _touch(self, accounts: Any, status: Any, ready: Any = None) -> None:
        self.touched[accounts], self.status[accounts] = True, status
        self.changed[accounts] = True
        if ready is not None:
            self.ready[accounts] = ready

    def _close_pairs(self, r: int, some: Picked, cover: Any, asked: Any) -> int:
        """Repay the largest debt of each against its largest collateral."""
        owed = some.largest(some.where(DEBT, -some.value))
        held = some.largest(some.where(COLLATERAL, some.value))
        acted = self._write_off(self._pick(some.accounts[(owed >= 0) & (held < 0)]))
        both = np.flatnonzero((owed >= 0) & (held >= 0))
        all_debt = some.sum(some.where(DEBT, -some.value))[both]
        accounts, held, owed = some.accounts[both], held[both], owed[both]
        held_leg, owed_leg = some.legs[held], some.legs[owed]
        repaid, seized, bonus = _closed_pairs(
            self.plan.closing[self.book.venue[accounts]], cover[both], asked[both], all_debt,
            some.value[held], -some.value[owed], self.book.weight[held_leg],
            self.book.bonus[held_leg], self.book.weight[owed_leg],
        )  # fmt: skip
        done = repaid > 0.0
        accounts, held, owed = accounts[done], held[done], owed[done]
        held_leg, owed_leg = held_leg[done], owed_leg[done]
        repaid, seized, bonus = repaid[done], seized[done], bonus[done]
        self._touch(accounts, CALLED, r + 1)
        all_held, all_owed = seized >= some.value[held], repaid >= -some.value[owed]
        took = np.where(all_held, some.qty[held], seized / some.price[held])
        paid = np.where(all_owed, some.qty[owed], -repaid / some.price[owed])
        self.qty[held_leg] = np.where(all_held, 0.0, some.qty[held] - took)
        self.qty[owed_leg] -= paid
        k, other = some.inst[held], some.inst[owed]
        cut = self.book.fee[held_leg] * (seized - seized / (1.0 + bonus))
        self._add(SOLD, k, took)
        self._add(SOLD, other, paid)
        self._add(CLOSED, k, seized)
        self._add(REPAID, other, repaid)
        self._add(GAIN, k, seized - repaid - cut)
        self._add(CUT, k, cut)
        left = self._pick(accounts[all_held])
        bare = left.sum(left.where(COLLATERAL, (left.qty > 0.0).astype(float))) == 0.0
        self._write_off(self._pick(left.accounts[bare]))
        return acted + int(done.sum())

    def _write_off(self, some: Picked) -> int:
        """Book debts without collateral as lost, where venues do; how many accounts had any."""
        books_it = self.plan.closing["deficit"][self.book.venue[some.accounts]]
        some = some if books_it.all() else self._pick(some.accounts[books_it])
        debt = some.where(DEBT, -some.value)
        owed, cash = some.sum(debt), self.cash[some.accounts]
        from_cash = np.minimum(np.maximum(cash, 0.0), owed)
        self._touch(some.accounts, EMPTIED)
        self.cash[some.accounts] -= from_cash
        share = np.divide(from_cash, owed, out=np.zeros_like(owed), where=owed > 0.0)[some.row]
        at = debt > 0.0
        self.qty[some.legs[at]] = 0.0
        inst, paid = some.inst[at], share[at] * debt[at]
        self._add(SOLD, inst, -paid / some.price[at])
        self._add(REPAID, inst, paid)
        self._add(BAD, inst, (1.0 - share[at]) * debt[at])
        return int((owed > 0.0).sum())

    def _close_whole(self, r: int, some: Picked, cover: Any, asked: Any) -> int:
        """Close all debt of each against all its collateral, pro rata over the legs."""
        debt = some.sum(some.where(DEBT, -some.value))
        held = some.sum(some.where(COLLATERAL, some.value))
        from_cash = np.minimum(np.maximum(self.cash[some.accounts], 0.0), debt)
        bare = (debt > 0.0) & (held <= 0.0) & (from_cash <= 0.0)
        acted = self._write_off(self._pick(some.accounts[bare]))
        some = self._pick(some.accounts[(debt > 0.0) & ~bare])
        if not len(some.accounts):
            return acted
        collateral, owed = some.where(COLLATERAL, some.value), some.where(DEBT, -some.value)
        held, debt = some.sum(collateral), some.sum(owed)
        from_cash = np.minimum(np.maximum(self.cash[some.accounts], 0.0), debt)
        whole = np.maximum(held, 1e-300)
        bonus = some.sum(collateral * self.book.bonus[some.legs]) / whole
        fee = some.sum(collateral * self.book.fee[some.legs]) / whole
        rules = self.plan.closing[self.book.venue[some.accounts]]
        seized, repaid, penalty, bad, credit = _closed_whole(rules, held, debt - from_cash, bonus)
        gain = seized - repaid - penalty - credit
        kept = np.where(rules["returns_surplus"], 1.0, fee)  # who absorbs an account keeps it all
        cut = penalty + np.where(gain > 0.0, kept * gain, 0.0)
        self._touch(some.accounts, EMPTIED, r + 1)
        self.cash[some.accounts] += credit - from_cash
        at = np.flatnonzero((some.role == COLLATERAL) & (some.qty > 0.0))
        row, inst = some.row[at], some.inst[at]
        share, part = (seized / whole)[row], some.value[at] / whole[row]
        took = np.where(share >= 1.0, some.qty[at], some.qty[at] * share)
        self.qty[some.legs[at]] = some.qty[at] - took
        self._add(SOLD, inst, took)
        self._add(CLOSED, inst, took * some.price[at])
        self._add(CUT, inst, cut[row] * part)
        self._add(GAIN, inst, (seized - repaid - credit - cut)[row] * part)
        at = np.flatnonzero(owed > 0.0)
        row, inst = some.row[at], some.inst[at]
        part = owed[at] / debt[row]
        self.qty[some.legs[at]] = 0.0
        self._add(SOLD, inst, -(repaid + from_cash)[row] * part / some.price[at])
        self._add(REPAID, inst, (repaid + from_cash)[row] * part)
        self._add(BAD, inst, bad[row] * part)
        return acted + len(some.accounts)

    def _close_slices(self, r: int, some: Picked, cover: Any, asked: Any) -> int:
        """Close a share of all contracts of each margin group."""
        cash = self.cash[some.accounts]
        owes = (some.role == DEBT) | ((some.role == CASH) & (some.qty < 0.0))
        owed = np.maximum(-cash, 0.0) + some.sum(np.where(owes, -some.value, 0.0))
        notional = self._notional(some)
        gross, equity = some.sum(notional), self._worth(some)
        acted = self._settle_bare(some.accounts[gross <= 0.0], equity[gross <= 0.0])
        rules = self.plan.closing[self.book.venue[some.accounts]]
        counted = np.minimum(cover - owed, equity)
        share = np.where(gross > 0.0, _slice_shares(rules, counted, asked - owed, gross), 0.0)
        taken = (rules["backstop_below"] > 0.0) & (
            counted < rules["backstop_below"] * (asked - owed)
        )
        fee = np.minimum(rules["fee"] * gross * share, np.maximum(equity, 0.0))
        acts, whole = share > 0.0, share >= 1.0
        short = np.where(whole, np.maximum(-equity, 0.0), 0.0)
        cooldown = self.case.venues["cooldown"][self.book.venue[some.accounts]]
        self._touch(some.accounts[acts], CALLED, r + np.maximum(cooldown[acts], 1))
        at = np.flatnonzero((some.role >= LINEAR) & acts[some.row])
        row, inst, legs = some.row[at], some.inst[at], some.legs[at]
        closed = np.where(whole[row], some.qty[at], some.qty[at] * share[row])
        self.qty[legs] = np.where(whole[row], 0.0, some.qty[at] - closed)
        gained = _realised(some.role[at], closed, some.price[at], self.book.entry[legs])
        self.cash[some.accounts] += np.bincount(row, gained, len(cash)) - np.where(acts, fee, 0.0)
        part = notional[at] / gross[row]
        self._add(SOLD, inst, closed)
        self._add(CLOSED, inst, notional[at] * share[row])
        self._add(CUT, inst, fee[row] * part)
        broke = short[row] > 0.0
        self._add(BANKRUPT, inst[broke], closed[broke])
        self._add(SHORT, inst[broke], (short[row] * part)[broke])
        rest = equity - fee
        gone = whole & ((short > 0.0) | (rest <= 0.0))
        keeps = whole & ~gone & rules["keeps_rest"] & ~taken
        taken_over = whole & ~gone & ~keeps
        main = some.largest(notional)[taken_over]
        self._add(CUT, some.inst[main], rest[taken_over])
        self._empty(some.accounts[gone | taken_over])
        self._cover_from_coins(some.accounts[keeps])
        return acted + int(acts.sum())

    def _settle_bare(self, accounts: Any, equity: Any) -> int:
        """Settle groups that owe without a contract left; how many were."""
        good, bad = accounts[equity >= 0.0], accounts[equity < 0.0]
        self.touched[good], self.changed[good] = True, True
        acted = self._cover_from_coins(good)
        self._add(SHORT, self.book.inst[self.book.first[bad]], -equity[equity < 0.0])
        self._empty(bad)
        return acted + len(bad)

    def _empty(self, accounts: Any) -> None:
        """Take everything out of accounts; their coins are sold."""
        some = self._pick(accounts)
        at = np.flatnonzero((some.qty != 0.0) & (some.role != SUPPLY))
        sold = at[self.case.insts["money"][some.inst[at]] == 0]
        self._add(SOLD, some.inst[sold], some.qty[sold])
        self.qty[some.legs[at]] = 0.0
        self.cash[accounts] = 0.0
        self._touch(accounts, EMPTIED)

    def _cover_from_coins(self, accounts: Any) -> int:
        """Sell coins pro rata for what is owed in money; how many accounts had to."""
        some = self._pick(accounts)
        money = self.case.insts["money"][some.inst] != 0
        own = (some.role == CASH) & (money | (some.value < 0.0))
        coin = ((some.role == CASH) | (some.role == COLLATERAL)) & ~own
        owed = -self.cash[accounts] - some.sum(np.where(own, some.value, 0.0))
        coins = some.sum(np.where(coin, some.value, 0.0))
        acts = (owed > 0.0) & (coins > 0.0)
        share = np.minimum(np.divide(owed, coins, out=np.zeros_like(owed), where=acts), 1.0)
        sells = ((some.role == CASH) & ~money) | (some.role == COLLATERAL)
        at = np.flatnonzero(sells & (some.qty > 0.0) & acts[some.row])
        row, qty = some.row[at], some.qty[at]
        sold = np.where(share[row] >= 1.0, qty, qty * share[row])
        self.qty[some.legs[at]] = qty - sold
        self.cash[accounts] += np.bincount(row, sold * some.price[at], len(accounts))
        self._add(SOLD, some.inst[at], sold)
        return int(acts.sum())

    def _notional(self, some: Picked) -> Any:
        """Gross notional of contracts, 0 of other legs."""
        price = np.where(some.role == OPTION, self.forward[some.inst], some.price)
        price = np.where(some.role == INVERSE, 1.0, price)
        return np.where(some.role >= LINEAR, np.abs(some.qty) * price, 0.0)

    def _worth(self, some: Picked) -> Any:
        """Equity of accounts at the seen prices, without haircuts."""
        at = np.flatnonzero((some.role == LINEAR) | (some.role == INVERSE))
        value = some.value.copy()
        entry = self.book.entry[some.legs[at]]
        value[at] = _realised(some.role[at], some.qty[at], some.price[at], entry)
        return self.cash[some.accounts] + some.sum(value)

    # ---- who pays

    def _deleverage(self) -> None:
        """Close winners against what bankrupt accounts left, the highest rank first."""
        shared, holders = self.common.shared, self.plan.holders
        for k in np.flatnonzero(shared["wanted"] != 0.0):
            rows = slice(holders.start[k], holders.start[k + 1])
            legs, accounts = holders.leg[rows], holders.account[rows]
            qty, role, entry = self.qty[legs], self.book.role[legs], self.book.entry[legs]
            gained = _realised(role, qty, self.seen[k], entry)
            wins = (qty * np.sign(shared["wanted"][k]) < 0.0) & (gained > 0.0)
            if wins.any():
                columns = (legs, accounts, qty, role, entry, gained)
                self._take(k, *(column[wins] for column in columns))

    def _take(
        self, k: int, legs: Any, accounts: Any, qty: Any, role: Any, entry: Any, gained: Any
    ) -> None:
        """Close winners in one instrument, by rank, until what is wanted is covered."""
        shared, price = self.common.shared, self.seen[k]
        wanted, size = abs(shared["wanted"][k]), np.abs(qty)
        inverse = role == INVERSE
        equity = self._worth(self._pick(accounts))
        entered = np.where(inverse, size, size * entry)
        notional = np.where(inverse, size, size * price)
        with np.errstate(divide="ignore"):
            score = np.where(equity > 0.0, gained / entered * (notional / equity), np.inf)
        score[entered <= 0.0] = 0.0
        order = np.argsort(-score, kind="stable")
        reached = np.flatnonzero(np.cumsum(size[order]) >= wanted)
        rank = score[order[reached[0]]] if len(reached) else -np.inf
        at, above = score == rank, score > rank
        taken = min(wanted, float(size.sum()))
        share = (wanted - size[above].sum()) / size[at].sum() if len(reached) else 1.0
        part = np.where(above, 1.0, np.where(at, min(share, 1.0), 0.0))
        some = part > 0.0
        legs, accounts, closed = legs[some], accounts[some], (qty * part)[some]
        gained = _realised(role[some], closed, price, entry[some])
        pays = np.minimum(shared["loss"][k] / taken * np.abs(closed), gained)
        self.qty[legs] = np.where(part[some] >= 1.0, 0.0, qty[some] - closed)
        self.cash[accounts] += gained - pays
        status = self.status[accounts]
        self._touch(accounts, np.where(status == KEPT, TAKEN, status))
        where = np.full(len(legs), k)
        self._add(PAID, where, pays)
        sold = -taken if shared["wanted"][k] > 0.0 else taken
        self._add(SOLD, where[:1], np.array([sold]))


# ---- rules in columns; see `kernels.closing` for their words


def _closed_pairs(
    rules: Any, cover: Any, asked: Any, all_debt: Any, held: Any, debt: Any, threshold: Any,
    full_bonus: Any, debt_weight: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Values repaid and seized of each pair, and its bonus; 0 where nothing may be closed."""
    health = cover / asked
    bonus = _bonus_at(rules, health, full_bonus)
    leftover, sized = rules["leftover_usd"], rules["target_health"] > 0.0
    cap = _caps(rules, cover, asked, health, all_debt, held, debt, threshold, bonus, debt_weight)
    most = np.where(sized & (cap < debt) & (debt - cap < leftover), debt, cap)
    repaid, seized = _trade(most, held, bonus)
    dust = (repaid < debt) & (seized < held)
    dust &= (debt - repaid < leftover) | (held - seized < leftover)
    # a repayment that is sized takes the dust along
    rest = dust & sized
    repaid[rest], seized[rest] = _trade(
        np.minimum(debt[rest], held[rest] / (1.0 + bonus[rest])), held[rest], bonus[rest]
    )
    # any other leaves exactly enough
    less = dust & ~sized
    room = np.minimum(debt - leftover, (held - leftover) / (1.0 + bonus))[less]
    wanted = np.minimum(room, cap[less])
    repaid[less], seized[less] = _trade(np.maximum(wanted, 0.0), held[less], bonus[less])
    return repaid, seized, bonus


def _bonus_at(rules: Any, health: Any, bonus: Any) -> Any:
    full_at = rules["bonus_full_at"]
    least = bonus * rules["bonus_start"]
    room = np.where(full_at < 1.0, 1.0 - full_at, 1.0)
    rising = least + (bonus - least) * np.maximum(1.0 - health, 0.0) / room
    return np.where((health <= full_at) | (full_at >= 1.0), bonus, rising)


def _caps(
    rules: Any, cover: Any, asked: Any, health: Any, all_debt: Any, held: Any, debt: Any,
    threshold: Any, bonus: Any, debt_weight: Any,
) -> Any:  # fmt: skip
    """Value of each pair's debt that may be repaid at once."""
    target, share, small = rules["target_health"], rules["close_factor"], rules["small_usd"]
    raised = target * debt_weight - threshold * (1.0 + bonus)
    short = np.maximum(target * asked - cover, 0.0)
    sized = np.divide(short, raised, out=np.full(len(short), np.inf), where=raised > 0.0)
    part = np.where(rules["of_all_debt"], np.minimum(debt, share * all_debt), share * debt)
    full = (share >= 1.0) | (health <= rules["full_below"]) | (debt < small) | (held < small)
    return np.where(target > 0.0, np.minimum(debt, sized), np.where(full, debt, part))


def _trade(wanted: Any, held: Any, bonus: Any) -> tuple[Any, Any]:
    """What is repaid and seized of `wanted`, as far as there is collateral."""
    seized = wanted * (1.0 + bonus)
    enough = seized <= held
    repaid = np.where(enough, wanted, np.minimum(wanted, held / (1.0 + bonus)))
    return repaid, np.where(enough, seized, held)


def _closed_whole(rules: Any, held: Any, debt: Any, bonus: Any) -> tuple[Any, ...]:
    """Values seized, repaid, paid as a penalty, lost, and left to the owner."""
    owed = debt * (1.0 + rules["penalty"])
    covers = held >= owed * (1.0 + bonus)
    paid = held / (1.0 + bonus)
    seized = np.where(covers, owed * (1.0 + bonus), held)
    repaid = np.where(covers, debt, np.minimum(debt, paid))
    penalty = np.where(covers, owed - debt, paid - repaid)
    surplus = np.where(
        rules["returns_surplus"], held * (1.0 - bonus) - debt, held - debt * (1.0 + bonus)
    )
    all_of_it = rules["returns_surplus"] | rules["seize_all"]
    return (
        np.where(all_of_it, held, seized),
        np.where(all_of_it, np.minimum(debt, held), repaid),
        np.where(all_of_it, 0.0, penalty),
        np.where(all_of_it, np.maximum(debt - held, 0.0), debt - repaid),
        np.where(all_of_it, np.maximum(surplus, 0.0), 0.0),
    )


def _slice_shares(rules: Any, equity: Any, asked: Any, notional: Any) -> Any:
    """Share of all contracts of each margin group that is closed now."""
    wanted = rules["to_health"] * asked
    freed = wanted - rules["fee"] * notional
    just = np.divide(wanted - equity, freed, out=np.full(len(freed), np.inf), where=freed > 0.0)
    just = np.where(wanted > equity, np.minimum(just, 1.0), 0.0)
    slices = np.where(notional <= rules["slice_above_usd"], 1.0, rules["slice"])
    share = np.where(rules["to_health"] > 0.0, just, slices)
    gone = (equity <= 0.0) | (equity < rules["backstop_below"] * asked)
    return np.where(equity >= asked, 0.0, np.where(gone, 1.0, share))


def _realised(role: Any, qty: Any, price: Any, entry: Any) -> Any:
    """What closing contracts brings in money."""
    inverse = role == INVERSE
    per_unit = np.where(role == LINEAR, price - entry, price)
    return qty * np.where(inverse, price / np.where(inverse, entry, 1.0) - 1.0, per_unit)


def _maintenance(size: Any, price: Any, inverse: Any, rate: Any, amount: Any, fee: Any) -> Any:
    """What brackets and the closing fee ask of contracts; brackets go by column."""
    usd, per_amount = np.where(inverse, size, size * price), np.where(inverse, price, 1.0)
    worst = rate[:, 0] * usd - amount[:, 0] * per_amount
    for j in range(1, rate.shape[1]):
        np.maximum(worst, rate[:, j] * usd - amount[:, j] * per_amount, out=worst)
    return worst + fee * usd


def _black76(kind: Any, strike: Any, tau: Any, forward: Any, vol: Any) -> Any:
    """Undiscounted value of options on a forward."""
    deviation = vol * np.sqrt(np.maximum(tau, 0.0))
    flat = deviation <= 0.0
    spread = np.where(flat, 1.0, deviation)
    d1 = np.log(forward / strike) / spread + 0.5 * spread
    value = kind * (forward * ndtr(kind * d1) - strike * ndtr(kind * (d1 - spread)))
    return np.where(flat, np.maximum(kind * (forward - strike), 0.0), value)


# ---- what is laid out once


def _ranges(first: Any, last: Any) -> tuple[Any, Any, Any]:
    """All of first:last end to end, where each begins, and which of them each entry is of."""
    sizes = last - first
    heads = np.cumsum(sizes) - sizes
    row = np.repeat(np.arange(len(first)), sizes)
    return (first - heads)[row] + np.arange(len(row)), heads, row


def _columns(plan: Plan) -> Columns:
    held, legs = plan.hold.accounts, plan.hold.legs
    by_leg = (
        np.ascontiguousarray(legs[name])
        for name in ("inst", "role", "entry", "weight", "bonus", "fee")
    )
    by_account = (np.ascontiguousarray(held[name]) for name in ("first", "last", "venue"))
    return Columns(*by_leg, *by_account, plan.closing["mechanism"][held["venue"]])


def _brackets(plan: Plan) -> Brackets:
    insts = plan.insts
    sizes = insts["last"] - insts["first"]
    columns = np.arange(max(int(sizes.max()), 1))
    row = insts["first"][:, None] + np.minimum(columns, np.maximum(sizes, 1)[:, None] - 1)
    known = sizes[:, None] > 0
    row = np.where(known, row, 0)
    return Brackets(
        np.where(known, plan.brackets["rate"][row], 0.0),
        np.where(known, plan.brackets["amount"][row], 0.0),
        insts["closing_fee"].copy(), insts["basis"].copy(), insts["start"].copy(),
    )  # fmt: skip


def _require_known(book: Columns, brackets: Brackets, case: Any) -> None:
    """Refuse what the bench book does not have and this version does not follow."""
    if (book.mechanism == closing.BANDS).any() or case.venues["delay"].any():
        raise ValueError("the book has venues that close along bands, or sell later")
    haircut = (book.role <= CASH) & (brackets.rate[book.inst] != 0.0).any(axis=1)
    if haircut.any() or (book.last <= book.first).any():
        raise ValueError("the book has haircuts by bracket, or accounts without legs")
    asks = (book.role >= LINEAR) & (book.weight > 0.0)
    if (asks & ((brackets.basis[book.inst] != TESTED) | (book.role == OPTION))).any():
        raise ValueError("the book has maintenance at entry prices, or of options one by one")


def _health(plan: Plan, book: Columns, brackets: Brackets) -> Health:
    """Coefficients of health in prices and its level, of the book as it begins."""
    inst, role, entry, weight = book.inst, book.role, book.entry, book.weight
    qty, start = plan.hold.legs["qty"], brackets.start[book.inst]
    inverse, asks = role == INVERSE, (role >= LINEAR) & (weight > 0.0)
    owed_cash = (role == CASH) & (qty < 0.0)
    spot = (role == COLLATERAL) | (role == DEBT) | ((role == CASH) & ~owed_cash)
    line = asks & (brackets.amount[inst, 0] == 0.0) & _in_first(qty, role, start, inst, brackets)
    rate = np.sign(qty) * weight * (brackets.rate[inst, 0] + brackets.fee[inst]) * line
    per_unit = np.where(spot, weight, (owed_cash | (role == LINEAR) | (role == OPTION)) * 1.0)
    per_unit = np.where(inverse, 1.0 / np.where(inverse, entry, 1.0), per_unit - rate)
    level_per_unit = np.where(role == LINEAR, -entry, np.where(inverse, -1.0 - rate, 0.0))
    bent, accounts = np.flatnonzero(asks & ~line), len(book.first)
    account = np.repeat(np.arange(accounts), book.last - book.first)
    heads = np.flatnonzero(np.diff(account[bent], prepend=-1))
    cash = plan.hold.accounts["cash"]
    size = np.abs(qty) * (2.0 * np.abs(per_unit) * start + np.abs(level_per_unit))
    indptr = np.append(book.first, len(inst)).astype(np.int32)
    return Health(
        matrix=sparse.csr_array(
            (per_unit * qty, inst.astype(np.int32), indptr), shape=(accounts, len(plan.insts))
        ),
        level=np.bincount(account, level_per_unit * qty, accounts) + cash,
        per_unit=per_unit,
        level_per_unit=level_per_unit,
        scale=np.bincount(account, size, accounts) + np.abs(cash),
        bent=bent,
        bent_rate=weight[bent, None] * brackets.rate[inst[bent]],
        bent_amount=weight[bent, None] * brackets.amount[inst[bent]],
        bent_fee=weight[bent] * brackets.fee[inst[bent]],
        bent_heads=heads,
        bent_account=account[bent][heads],
    )


def _in_first(qty: Any, role: Any, start: Any, inst: Any, brackets: Brackets) -> Any:
    """Whether a contract's first bracket is in force at any price up to REACH times the first."""
    usd = np.abs(qty) * start * REACH
    asked = brackets.rate[inst] * usd[:, None] - brackets.amount[inst]
    only = (brackets.rate == brackets.rate[:, :1]).all(axis=1)[inst]
    return np.where(role == LINEAR, asked[:, 0] >= asked.max(axis=1), only)


def _grids(plan: Plan, book: Columns) -> tuple[Grid, ...]:
    """The portfolio groups of every grid; legs of a rung stand together."""
    found = []
    for number in range(len(plan.grids.charges)):
        accounts = np.flatnonzero(plan.hold.accounts["grid"] == number)
        legs, _, group = _ranges(book.first[accounts], book.last[accounts])
        contract = book.role[legs] >= LINEAR
        legs, group = legs[contract], group[contract]
        asset = plan.insts["asset"][book.inst[legs]].astype(np.int64)
        assets = len(plan.snapshot.universe.assets)
        names, rung = np.unique(group * assets + asset, return_inverse=True)
        option = book.role[legs] == OPTION
        order = np.argsort(rung[option], kind="stable")
        counts = np.bincount(rung[option], minlength=len(names))
        points = plan.grids.points[plan.grids.start[number] : plan.grids.start[number + 1]]
        charges = plan.grids.charges[number]
        vol_scale = charges["vol_scale"][plan.grids.options]
        found.append(
            Grid(
                account=accounts,
                option=legs[option][order],
                option_rung=np.append(0, np.cumsum(counts)),
                option_column=np.searchsorted(plan.grids.options, book.inst[legs[option]][order]),
                straight=legs[~option],
                straight_rung=rung[~option],
                contract=legs,
                contract_group=group,
                add_on=charges["add_on"][book.inst[legs]],
                minimum=charges["minimum"][book.inst[legs]],
                group_of_rung=names // assets,
                price_move=points["price_move"].copy(),
                counted=points["counted"].copy(),
                vol_move=vol_scale[:, None] * points["vol_move"],
            )
        )
    return tuple(found)
