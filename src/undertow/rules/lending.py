"""How a lender judges an account: what backs the debt, how far it reaches, when it is closed.

Every amount is in the caller's unit: natural numbers, or a chain's raw integers with the
contract's own rounding switched on. One element of a column is one asset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from undertow.errors import RuleError
from undertow.kernels.margin import COLLATERAL, DEBT
from undertow.rules.rounding import ceil_to, floor_to
from undertow.rules.single import SingleAccount, Totals
from undertow.state import FloatColumn


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a pool's contract rounds.

    Collateral is rounded down and debt up to `value`, the least unit of the base currency;
    averages are rounded down to `share`, 0.0001 where a contract counts basis points. With
    `average_first` health is taken from the rounded average, as Aave v2 does.
    """

    value: float | None = None
    share: float | None = None
    average_first: bool = False


@dataclass(frozen=True, slots=True)
class LendingAccount:
    """One borrower at one lender."""

    collateral: float
    debt: float
    ltv: float  # average over the collateral, 0 without any
    threshold: float  # average over the collateral, 0 without any
    cover: float  # collateral times threshold, leg by leg
    asked: float  # debt times debt weight, leg by leg
    health: float | None  # cover / asked, None without debt
    available_borrows: float
    liquidatable: bool

    @property
    def equity(self) -> float:
        """Collateral less debt."""
        return self.collateral - self.debt

    @property
    def leverage(self) -> float | None:
        """Collateral over equity; None where nothing is left of it."""
        return self.collateral / self.equity if self.equity > 0.0 else None

    @property
    def debt_to_collateral(self) -> float | None:
        """Share of the collateral that is owed; None without collateral."""
        return self.debt / self.collateral if self.collateral > 0.0 else None


def balance(
    scaled: npt.ArrayLike, index: npt.ArrayLike, *, quantum: float | None = None, debt: bool = False
) -> FloatColumn:
    """Balances behind scaled ones: scaled * index, debt rounded up and the rest down."""
    grown = np.asarray(scaled, dtype=np.float64) * np.asarray(index, dtype=np.float64)
    return ceil_to(grown, quantum) if debt else floor_to(grown, quantum)


def with_category(own: npt.ArrayLike, member: npt.ArrayLike, category: float | None) -> FloatColumn:
    """Loan-to-values (or thresholds, or bonuses) of an account that chose an asset category.

    A member of the category takes the category's number, every other asset keeps its own (Aave
    v3 eMode). None as category changes nothing.
    """
    values = np.asarray(own, dtype=np.float64)
    if category is None:
        return values
    return np.where(np.asarray(member, dtype=np.bool_), category, values)


def check_threshold(ltv: float, threshold: float, bonus: float) -> None:
    """Refuse terms under which a liquidation cannot repair an account.

    Seizing (1 + bonus) per unit repaid raises health only if threshold * (1 + bonus) < health;
    at 1 or above, closing an account at its threshold leaves bad debt at once.

    Raises
    ------
    RuleError
        ltv above threshold, a share outside 0 to 1, or threshold * (1 + bonus) >= 1.

    References
    ----------
    Warmuz, Chaudhary and Pinna (2022), "Toxic liquidation spirals".
    """
    if not 0.0 <= ltv <= threshold <= 1.0 or bonus < 0.0:
        raise RuleError(
            f"ltv {ltv}, threshold {threshold}, bonus {bonus}: 0 <= ltv <= threshold <= 1 <= 1 + "
            "bonus must hold"
        )
    if threshold * (1.0 + bonus) >= 1.0:
        raise RuleError(
            f"threshold {threshold} times 1 + bonus {bonus} is {threshold * (1.0 + bonus):.6g}; it "
            "must stay under 1, or every liquidation leaves bad debt"
        )


def account(
    collateral: npt.ArrayLike = (),
    debt: npt.ArrayLike = (),
    *,
    collateral_price: npt.ArrayLike = 1.0,
    debt_price: npt.ArrayLike = 1.0,
    threshold: npt.ArrayLike = 1.0,
    ltv: npt.ArrayLike | None = None,
    debt_weight: npt.ArrayLike = 1.0,
    collateral_unit: npt.ArrayLike = 1.0,
    debt_unit: npt.ArrayLike = 1.0,
    rounding: Rounding | None = None,
) -> LendingAccount:
    """Judge one borrower: totals, average terms, health, what could still be borrowed.

    A leg is worth balance * price / unit; `unit` is what the balance counts a whole token in
    (10 ** decimals of raw balances). Without `ltv` the threshold stands for it. Health is
    sum(value * threshold) / debt, and the account can be liquidated when it is under 1.
    """
    rounding = rounding or Rounding()
    held = floor_to(_values(collateral, collateral_price, collateral_unit), rounding.value)
    owed = ceil_to(_values(debt, debt_price, debt_unit), rounding.value)
    if (held < 0.0).any() or (owed < 0.0).any():
        raise RuleError("balances of collateral and debt must not be negative")
    at_threshold = _totals(held, owed, threshold, debt_weight)
    at_ltv = at_threshold if ltv is None else _totals(held, owed, ltv, debt_weight)

    assets, cover, asked = at_threshold.assets, at_threshold.cover, at_threshold.asked
    average = 0.0 if assets == 0.0 else float(floor_to(cover / assets, rounding.share))
    average_ltv = 0.0 if assets == 0.0 else float(floor_to(at_ltv.cover / assets, rounding.share))
    if rounding.average_first:
        cover = assets * average
    room = float(floor_to(assets * average_ltv, rounding.value)) - at_threshold.debt
    health = cover / asked if asked > 0.0 else None
    return LendingAccount(
        collateral=assets,
        debt=at_threshold.debt,
        ltv=average_ltv,
        threshold=average,
        cover=cover,
        asked=asked,
        health=health,
        available_borrows=max(room, 0.0),
        liquidatable=health is not None and health < 1.0,
    )


def liquidation_price(
    qty: float, price: float, *, weight: float, cover: float, asked: float
) -> float | None:
    """Price of one asset at which an account's health is 1, all other prices held.

    `qty` above 0 is collateral and `weight` its threshold; below 0 it is debt and `weight` its
    debt weight. `cover` and `asked` are the whole account's at `price`, this asset included.
    None where no positive price does it.
    """
    role = COLLATERAL if qty >= 0.0 else DEBT
    leg = SingleAccount.from_columns([qty], [price], [role], weight=weight)
    return leg.liquidation_price(0, cover, asked)


def _values(amount: npt.ArrayLike, price: npt.ArrayLike, unit: npt.ArrayLike) -> FloatColumn:
    values: FloatColumn = (
        np.atleast_1d(np.asarray(amount, dtype=np.float64))
        * np.asarray(price, dtype=np.float64)
        / np.asarray(unit, dtype=np.float64)
    )
    return values


def _totals(
    held: FloatColumn, owed: FloatColumn, weight: npt.ArrayLike, debt_weight: npt.ArrayLike
) -> Totals:
    weights = np.concatenate(
        [np.broadcast_to(weight, held.shape), np.broadcast_to(debt_weight, owed.shape)]
    )
    roles = [COLLATERAL] * held.size + [DEBT] * owed.size
    legs = SingleAccount.from_columns(np.concatenate([held, -owed]), 1.0, roles, weight=weights)
    return legs.totals()
