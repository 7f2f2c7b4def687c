"""What was owed before anybody lost: rows of a `Sheet` at the prices of the end.

Face values of stakes follow what there is: a row that was a tenth of a token's holders has a tenth
of what the token holds now. Who left a pool in time has his money and no claim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from undertow.econometrics.mutual_shares import lines_meet
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.state.book import DEBT
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.losses import Losses
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.stakes import DEPOSIT, LOAN, POOL, TOKEN, over
from undertow.stress.stressed import Stressed


@dataclass(frozen=True, eq=False)
class Owed:
    """Everything owed, by row [R] or party [P], in USD unless said otherwise."""

    face: FloatColumn  # [R] as found, without what was taken out of pools in time
    due: FloatColumn  # [R] after what the scenario wrote down and robbed
    held: FloatColumn  # [P] claims on it: holders of tokens, who stays in pools, debts
    unnamed: FloatColumn  # [P] the part of them that no row names
    loans: FloatColumn  # [P] of tokens
    money: FloatColumn  # [P] what tokens took out of pools before these lost
    buffer: FloatColumn  # [P] of debtors, over matched assets
    written: FloatColumn  # [P] of what it owes, what the scenario wrote down
    robbed: FloatColumn  # [P] of pools, before anybody could leave
    unrobbed: FloatColumn  # [P] share of a pool that was not robbed
    in_pool: FloatColumn  # [P] all that was left of it, before anybody left
    circular: bool  # tokens back each other without end; those rows are left out
    crowded: bool  # others owe a pool more than all that the book does not; those rows are cut

    @classmethod
    def of(cls, sheet: Sheet, losses: Losses, stressed: Stressed, assumed: Assumptions) -> Owed:
        """Put prices on every row, and say what nobody named owns of each party."""
        loan, of_pool = sheet.kind == LOAN, sheet.sort[sheet.debtor] == POOL
        face = sheet.qty * sheet.unsecured * losses.price[sheet.asset]
        was, unlent, unrobbed = _in_pools(sheet, losses, stressed)
        in_pool = was * unrobbed
        stays, rest = _who_stays(sheet, losses)
        part = np.where(of_pool, sheet.stakes.part, 0.0)
        face[of_pool] = (part * in_pool[sheet.debtor] * stays)[of_pool]
        went = part * in_pool[sheet.debtor] * (1.0 - stays)
        money = np.where(sheet.sort == TOKEN, sheet.summed(sheet.creditor, went), 0.0)
        into = sheet.summed(sheet.creditor, face) * (sheet.sort == POOL)
        fits = np.minimum(over(unlent, into, 1.0), 1.0)
        fit = np.where(sheet.sort[sheet.creditor] == POOL, fits[sheet.creditor], 1.0)
        face *= fit
        loans = sheet.summed(sheet.debtor, np.where(loan, face, 0.0)) * (sheet.sort == TOKEN)
        stolen = part * (was - in_pool)[sheet.debtor]
        face += stolen
        holders, circular = _holders(sheet, face, loans, money, fit)
        now = stressed.snapshot.claims.qty[sheet.row]
        due = np.where(of_pool, face - stolen, face * np.minimum(over(now, sheet.qty, 1.0), 1.0))
        held = np.where(sheet.sort == TOKEN, holders, in_pool * rest)
        named = sheet.summed(sheet.debtor, face - stolen) - loans
        cash = _unnamed_cash(sheet, losses, face)
        unnamed = np.where(sheet.is_debtor, cash, np.maximum(held - named, 0.0))
        held = np.where(sheet.is_debtor, named + cash, held)
        columns = {
            "face": face, "due": due, "held": held, "unnamed": unnamed, "loans": loans,
            "money": money, "buffer": _buffers(sheet, losses, held, face, assumed),
            "written": sheet.summed(sheet.debtor, face - stolen - due), "robbed": was - in_pool,
            "unrobbed": unrobbed, "in_pool": in_pool,
        }  # fmt: skip
        whole = {name: frozen(column) for name, column in columns.items()}
        return cls(**whole, circular=circular, crowded=bool((fits < 1.0 - 1e-9).any()))


def _in_pools(
    sheet: Sheet, losses: Losses, stressed: Stressed
) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """[P] What was in each pool, what of it was not lent to the book, the share not robbed."""
    pools = np.flatnonzero(sheet.sort == POOL)
    k, worth = sheet.code[pools], _unit_worth(sheet, losses)
    found, there = losses.supplied[k], losses.present[k]
    book = stressed.snapshot.book
    debts = np.where(book.kind == DEBT, np.maximum(-book.qty, 0.0), 0.0)
    lent = np.bincount(book.inst, debts, len(worth))[k] * worth[k]
    was, left, unrobbed = np.zeros(len(sheet)), np.zeros(len(sheet)), np.ones(len(sheet))
    was[pools] = np.where(found > 0.0, found, sheet.stakes.whole[pools]) * worth[k]
    unrobbed[pools] = over(there, found, 1.0)
    left[pools] = np.maximum(was[pools] * unrobbed[pools] - lent, 0.0)
    return was, left, unrobbed


def _holders(
    sheet: Sheet, face: FloatColumn, loans: FloatColumn, money: FloatColumn, fit: FloatColumn
) -> tuple[FloatColumn, bool]:
    """[P] What all holders of each token have; writes rows of `face` that are stakes in tokens.

    Of a row only the part `fit` counts, since no more goes into the pool that holds it.
    Tokens may hold each other. Where circles keep more than all of themselves that has no end, and
    rows within a circle are left out.
    """
    stake = (sheet.sort[sheet.debtor] == TOKEN) & (sheet.kind != LOAN)
    face[stake] = 0.0
    token, part = sheet.sort == TOKEN, np.where(stake, sheet.stakes.part * fit, 0.0)
    own = np.where(token, sheet.summed(sheet.creditor, face) + money - loans, 0.0)
    holders, found = lines_meet(_among_tokens(sheet, part), own)
    if not found:
        part[stake & _in_circles(sheet, stake)] = 0.0
        holders, _ = lines_meet(_among_tokens(sheet, part), own)
    face[stake] = (part * holders[sheet.debtor])[stake]
    return holders, not found


def _among_tokens(sheet: Sheet, part: FloatColumn) -> csr_array:
    """Share of each token's holders that another token has: a row a holder."""
    held = np.flatnonzero((part > 0.0) & (sheet.sort[sheet.creditor] == TOKEN))
    ends = sheet.creditor[held], sheet.debtor[held]
    return csr_array((part[held], ends), shape=(len(sheet), len(sheet)))


def _in_circles(sheet: Sheet, stake: BoolColumn) -> BoolColumn:
    ends = sheet.debtor[stake], sheet.creditor[stake]
    graph = csr_array((np.ones(len(ends[0])), ends), shape=(len(sheet), len(sheet)))
    _, part = connected_components(graph, directed=True, connection="strong")
    inside: BoolColumn = part[sheet.debtor] == part[sheet.creditor]
    return inside


def _who_stays(sheet: Sheet, losses: Losses) -> tuple[FloatColumn, FloatColumn]:
    """[R] Share of a supplier's claim that is still in the pool, and [P] of the whole pool.

    Tokens are the last to leave, as in the engine: what they deposit bears what is lost.
    """
    part = np.where(sheet.sort[sheet.debtor] == POOL, sheet.stakes.part, 0.0)
    of_tokens = part * (sheet.sort[sheet.creditor] == TOKEN)
    slow = np.minimum(sheet.summed(sheet.debtor, of_tokens), 1.0)
    gone, pools = np.zeros(len(sheet)), np.flatnonzero(sheet.sort == POOL)
    k = sheet.code[pools]
    gone[pools] = over(losses.left[k], losses.present[k], 0.0)
    quick = np.clip(over(1.0 - slow - gone, 1.0 - slow, 0.0), 0.0, 1.0)
    patient = np.clip(over(1.0 - gone, slow, 1.0), 0.0, 1.0)
    stays = np.where(of_tokens > 0.0, patient[sheet.debtor], quick[sheet.debtor])
    return stays, 1.0 - gone


def _buffers(
    sheet: Sheet, losses: Losses, owed: FloatColumn, face: FloatColumn, assumed: Assumptions
) -> FloatColumn:
    """[P] What debtors have on top of what matches their debts.

    An owner in the book has what is seen of it (equity and free assets) in place of what would
    match its debts, or those and the buffer that is assumed, whichever is more.
    """
    buffer = assumed.capital * owed
    buffer[sheet.venue_party] = losses.fund + sheet.snapshot.funds.treasury
    matched = np.maximum(owed - sheet.summed(sheet.creditor, face), 0.0)
    seen = losses.equity + sheet.free_usd - matched
    buffer = np.where(sheet.owing, np.maximum(seen, buffer), buffer)
    for name, usd in assumed.known.items():
        buffer[sheet.party(name)] = usd
    return np.where(sheet.is_debtor, buffer, 0.0)


def _unit_worth(sheet: Sheet, losses: Losses) -> FloatColumn:
    """[I] USD of a unit of each reserve: where it lost, as the cascade booked the loss."""
    price = losses.price[sheet.snapshot.universe.asset_of]
    return over(losses.unpaid, losses.lost, price)


def _unnamed_cash(sheet: Sheet, losses: Losses, face: FloatColumn) -> FloatColumn:
    """[P] What venues owe to accounts as cash beyond deposits that a row names."""
    universe = sheet.snapshot.universe
    usd = sheet.cash * losses.price[universe.asset_of]
    cash = np.bincount(sheet.venue_party[universe.venue_of], usd, len(sheet))
    deposits = sheet.summed(sheet.debtor, np.where(sheet.kind == DEPOSIT, face, 0.0))
    return np.where(sheet.is_debtor, np.maximum(cash - deposits, 0.0), 0.0)
