"""What sorts of parties there are, and whose share of a pool or a token each claim on it is.

Holders of tokens and suppliers of pools have stakes: shares of what the token holds after its
loans, of what is in the reserve. A stake is worked out at the prices of the day; where rows name
more than there is, all of them are scaled down alike. What no row names belongs to the unnamed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from undertow.econometrics.mutual_shares import mutual_shares
from undertow.state import AnyColumn, FloatColumn, SmallColumn
from undertow.state.arrays import frozen
from undertow.state.claims import CLAIM_KINDS

DEBTOR, TOKEN, POOL = range(3)
LOAN, DEPOSIT = CLAIM_KINDS.index("loan"), CLAIM_KINDS.index("deposit")


@dataclass(frozen=True, eq=False)
class Stakes:
    """Which share of a token's holders, or of a pool's suppliers, each row is."""

    part: FloatColumn  # [R] 0 of rows that are debts
    scale: FloatColumn  # [P] share of named claims that anything stood behind
    whole: FloatColumn  # [P] all holders of a token in USD, all suppliers of a pool in units

    @classmethod
    def of(
        cls,
        sort: SmallColumn,
        debtor: AnyColumn,
        creditor: AnyColumn,
        kind: SmallColumn,
        qty: FloatColumn,
        usd: FloatColumn,
        supplied: FloatColumn,
    ) -> Stakes:
        """Stakes from rows, in base units and in USD; `supplied` is by party, 0 where unknown."""
        loan, size = kind == LOAN, len(sort)
        pools, tokens = sort == POOL, sort == TOKEN
        passed = (sort[debtor] != DEBTOR) & ~loan
        units = np.where(pools[debtor], qty, usd)
        named = np.bincount(debtor, np.where(passed, units, 0.0), size).astype(np.float64)
        loans = np.bincount(debtor, np.where(loan, usd, 0.0), size).astype(np.float64)
        whole = np.where(pools, np.where(supplied > 0.0, supplied, named), 0.0)
        scale = np.where(pools, np.minimum(over(whole, named, 1.0), 1.0), 1.0)
        of_token = passed & tokens[debtor]
        sure = np.where(of_token, 0.0, usd * np.where(passed, scale[debtor], 1.0))
        own = np.bincount(creditor, sure, size) - loans
        stands = over(np.ones(size), np.where(tokens, named, 0.0), 0.0)  # 0: nobody is named
        ends = creditor[of_token], debtor[of_token]
        held = csr_array((usd[of_token], ends), shape=(size, size))
        base = np.where(stands > 0.0, own * stands, scale)
        scale = mutual_shares((diags_array(stands) @ held).tocsr(), base, scale).share
        whole = np.where(tokens, np.maximum(own + held @ scale, 0.0), whole)
        all_of = np.maximum(whole, named * scale)[debtor]
        part = np.where(passed, over(units * scale[debtor], all_of, 0.0), 0.0)
        return cls(frozen(part), frozen(scale), frozen(whole))


def over(part: FloatColumn, whole: FloatColumn, nothing: FloatColumn | float) -> FloatColumn:
    """A share, and `nothing` where there is no whole."""
    out = np.broadcast_to(np.asarray(nothing, dtype=np.float64), np.shape(whole)).copy()
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0.0)
