"""What borrowing costs on a pool lender, and how debts and deposits grow with it.

All rates are fractions a year, all spans are seconds, and a year has 365 days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from undertow.errors import RuleError

SECONDS_PER_YEAR = 31_536_000
_RAY = 1e-27  # least unit of a rate or an index on chain


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Borrow rate as a function of how much of a pool is lent out, with one kink."""

    base: float
    slope1: float
    slope2: float
    optimal: float  # utilisation at the kink

    def __post_init__(self) -> None:
        """Refuse a curve that cannot be: a kink outside (0, 1] or a rate that falls."""
        if not 0.0 < self.optimal <= 1.0:
            raise RuleError(f"optimal utilisation was {self.optimal}; it lies above 0, at most 1")
        if min(self.base, self.slope1, self.slope2) < 0.0:
            raise RuleError(f"base {self.base} and slopes {self.slope1}, {self.slope2} start at 0")

    def borrow_rate(self, utilisation: float) -> float:
        """Rate that borrowers pay: base + slope1 * u / optimal, and slope2 on top past the kink.

        References
        ----------
        Aave v3, `DefaultReserveInterestRateStrategyV2`.
        """
        if utilisation <= self.optimal:
            return self.base + self.slope1 * utilisation / self.optimal
        excess = (utilisation - self.optimal) / (1.0 - self.optimal)
        return self.base + self.slope1 + self.slope2 * excess


@dataclass(frozen=True, slots=True)
class PoolRates:
    """What a pool charges and pays at one moment."""

    utilisation: float  # share of debt plus idle liquidity that is lent out: sets the borrow rate
    supply_utilisation: float  # the same with the deficit in the denominator: sets the supply rate
    borrow_rate: float
    supply_rate: float


def pool_rates(
    curve: RateCurve,
    *,
    debt: float,
    liquidity: float,
    reserve_factor: float = 0.0,
    deficit: float = 0.0,
) -> PoolRates:
    """Borrow and supply rate of a pool.

    supply_rate = borrow_rate * debt / (liquidity + debt + deficit) * (1 - reserve_factor): bad
    debt that is carried as a deficit earns nothing, and depositors feel it here first.
    """
    if min(debt, liquidity, deficit) < 0.0 or not 0.0 <= reserve_factor <= 1.0:
        raise RuleError(
            f"debt {debt}, liquidity {liquidity} and deficit {deficit} must not be negative, "
            f"and reserve factor {reserve_factor} must lie in 0 to 1"
        )
    if debt == 0.0:
        return PoolRates(0.0, 0.0, curve.borrow_rate(0.0), 0.0)
    utilisation = debt / (liquidity + debt)
    supply_utilisation = debt / (liquidity + debt + deficit)
    borrow_rate = curve.borrow_rate(utilisation)
    supply_rate = borrow_rate * supply_utilisation * (1.0 - reserve_factor)
    return PoolRates(utilisation, supply_utilisation, borrow_rate, supply_rate)


def linear_factor(rate: float, seconds: float) -> float:
    """Growth of a deposit index over a span: 1 + rate * t."""
    return 1.0 + rate * seconds / SECONDS_PER_YEAR


def taylor_factor(rate: float, seconds: float) -> float:
    """Growth of a debt index as Aave computes it on chain since v3.4: 1 + x + x²/2 + x³/6.

    Third order in x = rate * t. It lags exp(x): 14 % low at a rate of 100 % over two years, if
    nobody touches the reserve in between.
    """
    x = rate * seconds / SECONDS_PER_YEAR
    return 1.0 + x + x * (x / 2.0 + x * (x / 6.0))


def binomial_factor(rate: float, seconds: float) -> float:
    """Growth of a debt index as earlier Aave versions and the SDK compute it.

    The first three terms of (1 + rate / year) ** seconds; a little below `taylor_factor`. The
    rate of a second and its powers are cut to 27 decimals as the contract cuts them, which is
    worth a billionth over a month at 100 %, and up to 1e-4 over years at rates near nought.
    """
    if seconds <= 0:
        return 1.0
    x = math.floor(rate / SECONDS_PER_YEAR / _RAY) * _RAY
    square = math.floor(x * x / _RAY + 0.5) * _RAY
    cube = math.floor(square * x / _RAY + 0.5) * _RAY
    pairs = seconds * (seconds - 1.0) / 2.0
    triples = pairs * max(seconds - 2.0, 0.0) / 3.0
    return 1.0 + seconds * x + pairs * square + triples * cube


def compounded_rate(rate: float, seconds: float) -> float:
    """What a rate that compounds each second comes to over a span: the growth less 1.

    (1 + rate / year) ** seconds - 1, computed without losing the digits of a small rate.
    """
    return math.expm1(seconds * math.log1p(rate / SECONDS_PER_YEAR))


def accrued_index(index: float, factor: float) -> float:
    """An index after growth; balances are scaled balance times index, so they all grow at once."""
    if factor < 1.0:
        raise RuleError(f"an index grows by a factor of at least 1, not {factor}")
    return index * factor
