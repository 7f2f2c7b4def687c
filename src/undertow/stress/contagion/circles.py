"""Circles that keep nearly all of themselves: shares that creep are followed to their end at once.

A token that holds claims on its own issuer, whose assets are the token, loses a little with every
sweep. Within one set of defaults what stands behind each share is a line of all shares: exact for
tokens, for pools that no fund covers and for who is in default; the rest stand where they are. The
greatest shares that fit lie at or below the greatest on these lines, the least at or above the
least, so that nobody defaults for being solved for, and sweeps go on from there.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array

from undertow.econometrics.mutual_shares import mutual_shares
from undertow.state import BoolColumn, FloatColumn
from undertow.stress.contagion.paying import Network, Paid, Shares
from undertow.stress.contagion.stakes import LOAN, POOL, TOKEN, over


def round_circles(network: Network, now: Shares, paid: Paid) -> Shares:
    """Shares where the lines of this sweep settle."""
    slope, base = _lines(network, now, paid)
    found = mutual_shares(slope, base, np.concatenate(now), rising=network.least)
    share, loan = np.split(found.share, 2)
    return Shares(share, loan)


def _lines(network: Network, now: Shares, paid: Paid) -> tuple[csr_array, FloatColumn]:
    """Slopes and bases of all shares, then of all loans."""
    sheet, owed, size = network.sheet, network.owed, len(network.sheet)
    default = sheet.is_debtor & paid.defaulted
    promised, behind = _ends(network, paid, default)
    kept = np.where(network.among, network.assumed.keep_received, network.assumed.keep_assets)
    token, pool = (sheet.sort[sheet.debtor] == sort for sort in (TOKEN, POOL))
    of = sheet.debtor + np.where(token & (sheet.kind == LOAN), size, 0)
    stand: BoolColumn = pool & (not network.channels.receipts)  # those pay in full, come what may
    value = np.where(default[sheet.creditor], kept, 1.0) * np.where(stand, owed.face, owed.due)
    behind += np.tile(sheet.summed(sheet.creditor, np.where(stand, value, 0.0)), 2)
    to = np.concatenate([sheet.creditor[~stand], sheet.creditor[~stand] + size])
    entries = np.tile(value[~stand], 2), (to, np.tile(of[~stand], 2))
    slope = diags_array(over(np.ones(2 * size), promised, 0.0)) @ csr_array(
        entries, shape=(2 * size, 2 * size)
    )
    base = np.where(promised > 0.0, over(behind, promised, 0.0), np.concatenate(now))
    return slope.tocsr(), base


def _ends(network: Network, paid: Paid, default: BoolColumn) -> tuple[FloatColumn, FloatColumn]:
    """What each promises on its shares and loans, 0 where these stand, and what is its own."""
    sheet, owed = network.sheet, network.owed
    token = sheet.sort == TOKEN
    pools = np.flatnonzero(sheet.sort == POOL)
    k = sheet.code[pools]
    alone = network.losses.fund[sheet.snapshot.universe.venue_of[k]] == 0.0
    promised = np.where(token, owed.held, np.where(default, paid.owed, 0.0))
    promised[pools[alone]] = owed.held[pools[alone]]
    own = np.where(token, owed.money - owed.loans, 0.0)
    own = np.where(default, network.assumed.keep_assets * np.maximum(paid.base, 0.0), own)
    own[pools] = owed.held[pools] * (1.0 - network.losses.taken[k])
    own[pools] -= sheet.summed(sheet.creditor, owed.face)[pools]
    loans = np.where(token, owed.loans, 0.0)
    return np.concatenate([promised, loans]), np.concatenate([own, owed.money])
