"""Tiers: what a derivative of a size must keep, or what a holding of a size counts for.

One row a tier, smallest first, each from its floor (not in it) to its ceiling (in it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from undertow.errors import RuleError
from undertow.kernels import margin as kernel
from undertow.state import FloatColumn


@dataclass(frozen=True, slots=True)
class Bracket:
    """One tier."""

    floor: float
    ceiling: float
    rate: float
    amount: float
    max_leverage: float


@dataclass(frozen=True, slots=True, eq=False)
class Brackets:
    """A table of tiers whose value is continuous in size.

    With `haircut` false they ask, maintenance = rate * notional - amount, and rates rise with
    size; with it true they count, cover = rate * value + amount, and rates fall. Build it with
    `from_columns`, `flat` or `haircuts`, which check it.
    """

    floor: FloatColumn
    ceiling: FloatColumn
    rate: FloatColumn
    amount: FloatColumn
    max_leverage: FloatColumn  # inf where the venue names none
    haircut: bool = False

    @classmethod
    def from_columns(
        cls,
        min_notional: npt.ArrayLike,
        max_notional: Sequence[float | None] | FloatColumn,
        rate: npt.ArrayLike,
        amount: npt.ArrayLike | None = None,
        max_leverage: npt.ArrayLike | None = None,
    ) -> Brackets:
        """Maintenance tiers as a venue publishes them.

        Amounts follow c_j = c_(j-1) + floor_j * (rate_j - rate_(j-1)), c_0 = 0, which makes
        maintenance continuous; given ones are checked against that.

        Raises
        ------
        RuleError
            Tiers that leave gaps, overlap, do not rise, or jump.
        """
        return _checked(min_notional, max_notional, rate, amount, max_leverage, haircut=False)

    @classmethod
    def haircuts(
        cls,
        min_value: npt.ArrayLike,
        max_value: Sequence[float | None] | FloatColumn,
        rate: npt.ArrayLike,
        amount: npt.ArrayLike | None = None,
    ) -> Brackets:
        """Collateral tiers: the first part of a holding counts at the first rate, and so on."""
        return _checked(min_value, max_value, rate, amount, None, haircut=True)

    @classmethod
    def flat(cls, rate: float, amount: float = 0.0, max_leverage: float | None = None) -> Brackets:
        """One tier for any size; with an amount, the tier that a published example fixed."""
        if not 0.0 <= rate <= 1.0 or not math.isfinite(amount):
            raise RuleError(f"a maintenance rate was {rate}, amount {amount}; 0 to 1, and finite")
        return cls(
            np.zeros(1),
            np.array([math.inf]),
            np.array([float(rate)]),
            np.array([float(amount)]),
            np.array([math.inf if max_leverage is None else float(max_leverage)]),
        )

    def __len__(self) -> int:
        """Number of tiers."""
        return self.floor.size

    def at(self, notional: float) -> Bracket:
        """The tier that holds a notional."""
        j = int(kernel.bracket_at(0, abs(notional), terms_of([self])))
        columns = (self.floor, self.ceiling, self.rate, self.amount, self.max_leverage)
        return Bracket(*(float(column[j]) for column in columns))

    def value(self, notional: float) -> float:
        """Maintenance asked of a notional, or cover given for a holding of that value."""
        if self.haircut:
            return float(kernel.cover_line(0, abs(notional), 1.0, 0.0, 0.0, terms_of([self]))[0])
        line = kernel.maintenance_line(0, abs(notional), False, 1.0, 0.0, 0.0, terms_of([self]))
        return float(line[0])


def terms_of(
    brackets: Sequence[Brackets | None],
    *,
    closing_fee: npt.ArrayLike = 0.0,
    basis: npt.ArrayLike = kernel.TESTED,
) -> kernel.Terms:
    """Tables of several instruments, None for one without, as the kernel's `Terms`."""
    sizes = [0 if table is None else len(table) for table in brackets]

    def joined(column: str) -> FloatColumn:
        parts = [getattr(table, column) for table in brackets if table is not None]
        return np.concatenate(parts) if parts else np.zeros(0)

    return kernel.Terms(
        np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        joined("floor"),
        joined("rate"),
        joined("amount"),
        joined("max_leverage"),
        np.broadcast_to(np.asarray(closing_fee, dtype=np.float64), (len(sizes),)).copy(),
        np.broadcast_to(np.asarray(basis, dtype=np.int8), (len(sizes),)).copy(),
    )


def _checked(
    floor: npt.ArrayLike,
    ceiling: Sequence[float | None] | FloatColumn,
    rate: npt.ArrayLike,
    amount: npt.ArrayLike | None,
    max_leverage: npt.ArrayLike | None,
    *,
    haircut: bool,
) -> Brackets:
    floors = np.atleast_1d(np.array(floor, dtype=np.float64))
    rates = np.atleast_1d(np.array(rate, dtype=np.float64))
    ceilings = np.array([math.inf if c is None else float(c) for c in ceiling], dtype=np.float64)
    leverage = (
        np.full(floors.size, math.inf)
        if max_leverage is None
        else np.atleast_1d(np.array(max_leverage, dtype=np.float64))
    )
    if not 0 < floors.size == rates.size == ceilings.size == leverage.size:
        raise RuleError("the columns of a bracket table differ in length, or are empty")
    if floors[0] != 0.0 or (floors[1:] != ceilings[:-1]).any() or (ceilings <= floors).any():
        raise RuleError("brackets must start at 0 and follow each other without gap or overlap")
    steps = np.diff(rates) * (-1.0 if haircut else 1.0)
    if not ((rates >= 0.0) & (rates <= 1.0)).all() or (steps < 0.0).any():
        way = "fall" if haircut else "rise"
        raise RuleError(f"bracket rates must lie in 0 to 1 and {way} with size, not {rates}")
    if not (leverage > 0.0).all():
        raise RuleError(f"the maximum leverage of a bracket must be above 0, not {leverage}")
    amounts = np.concatenate([[0.0], np.cumsum(floors[1:] * steps)])
    if amount is not None:
        given = np.atleast_1d(np.array(amount, dtype=np.float64))
        if given.size != amounts.size or not np.allclose(given, amounts, rtol=1e-6, atol=1e-6):
            raise RuleError(
                f"bracket amounts were {given}; rates and floors give {amounts}",
                hint="leave the amounts out, or pass the one tier that applies with Brackets.flat",
            )
        amounts = given
    return Brackets(floors, ceilings, rates, amounts, leverage, haircut)
