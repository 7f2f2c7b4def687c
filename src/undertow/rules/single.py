"""One account as a book of one, so that a rule at the prompt is the rule of a million accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from undertow.errors import RuleError
from undertow.kernels import margin as kernel
from undertow.rules.brackets import Brackets, terms_of
from undertow.state import FloatColumn


class Basis(Enum):
    """The price at which maintenance is asked: under test, at entry, or the present mark."""

    TESTED = "tested"
    ENTRY = "entry"
    CURRENT = "current"

    @property
    def code(self) -> int:
        """The kernel's number for it."""
        return {"tested": kernel.TESTED, "entry": kernel.ENTRY, "current": kernel.CURRENT}[
            self.value
        ]


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of one account; see `kernels.margin`."""

    assets: float
    debt: float
    equity: float
    cover: float
    asked: float
    notional: float

    @property
    def health(self) -> float | None:
        """Cover over asked; None where nothing is asked."""
        return self.cover / self.asked if self.asked > 0.0 else None


@dataclass(frozen=True, slots=True, eq=False)
class SingleAccount:
    """Legs of one account, each in an instrument of its own."""

    legs: kernel.Legs
    price: FloatColumn
    terms: kernel.Terms

    @classmethod
    def from_columns(
        cls,
        qty: npt.ArrayLike,
        price: npt.ArrayLike,
        role: Sequence[int],
        *,
        weight: npt.ArrayLike = 1.0,
        entry: npt.ArrayLike = 0.0,
        brackets: Sequence[Brackets | None] | None = None,
        closing_fee: npt.ArrayLike = 0.0,
        basis: npt.ArrayLike = kernel.TESTED,
    ) -> SingleAccount:
        """Build one from columns; single numbers stand for all legs.

        Raises
        ------
        RuleError
            Something is not finite, a price is negative, or an INVERSE leg has no entry.
        """
        n = len(role)
        codes = np.array(role, dtype=np.int8)

        def column(name: str, values: npt.ArrayLike) -> FloatColumn:
            filled = np.broadcast_to(np.asarray(values, dtype=np.float64), (n,)).copy()
            if not np.isfinite(filled).all():
                raise RuleError(f"{name} must be finite, not {filled}")
            return filled

        prices, entries = column("price", price), column("entry", entry)
        if (prices < 0.0).any():
            raise RuleError(f"a price must not be negative, as in {prices}")
        if (entries[codes == kernel.INVERSE] == 0.0).any():
            raise RuleError("a coin-margined position needs its entry price")
        inst = np.arange(n, dtype=np.int32)
        legs = kernel.Legs(inst, column("qty", qty), entries, codes, column("weight", weight))
        tables = [None] * n if brackets is None else brackets
        terms = terms_of(tables, closing_fee=column("closing_fee", closing_fee), basis=basis)
        return cls(legs, prices, terms)

    def totals(self) -> Totals:
        """Assets, debt, equity, cover, asked and notional at the given prices."""
        out = kernel.Sums(*(np.empty(1) for _ in kernel.Sums._fields))
        offsets = np.array([0, self.price.size], dtype=np.int64)
        none = np.zeros(self.price.size)
        kernel.account_sums(0, 1, offsets, self.legs, self.price, self.price, none, self.terms, out)
        return Totals(*(float(column[0]) for column in out))

    def liquidation_price(
        self, leg: int, cover: float | None = None, asked: float | None = None
    ) -> float | None:
        """Price of one leg's instrument at which health is 1, all other prices held.

        `cover` and `asked` replace the sums of the legs given, where more stands behind them.
        """
        totals = self.totals() if cover is None or asked is None else None
        price, status = kernel.liquidation_price(
            leg,
            self.legs,
            self.price,
            self.terms,
            totals.cover if cover is None and totals is not None else cover,
            totals.asked if asked is None and totals is not None else asked,
        )
        return float(price) if status == kernel.FOUND else None

    def distance(self, exposure: npt.ArrayLike = 1.0, *, rise: bool = False) -> float | None:
        """Smallest common fall (or rise) that brings health to 1; 0.0 if under already."""
        n = self.price.size
        moves = np.broadcast_to(np.asarray(exposure, dtype=np.float64), (n,)).copy()
        value, status = kernel.account_distance(
            0, n, self.legs, self.price, moves, 1.0 if rise else -1.0, self.terms
        )
        return None if status == kernel.NONE else float(value)
