"""What borrowing costs on an isolated market whose curve moves with the time it is lent out.

A `RateCurve` of `interest` stays where it is. This one is shifted while the market is lent out
more (or less) than it should be, so a market that nobody can leave grows dearer by the day. Rates
are fractions a year of 365 days, spans are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from undertow.errors import RuleError
from undertow.rules.interest import SECONDS_PER_YEAR, taylor_factor


@dataclass(frozen=True, slots=True)
class AdaptiveCurve:
    """Borrow rate as a multiple of the rate at the target, which itself adapts.

    The least and the highest rate follow: `least_at_target / steepness` and
    `most_at_target * steepness`. The defaults are the constants of Morpho's contract.

    References
    ----------
    Morpho Labs, `AdaptiveCurveIrm`, repository morpho-org/morpho-blue-irm (2023).
    """

    target: float = 0.9  # utilisation at which the curve rests
    steepness: float = 4.0  # rate at full utilisation over that at the target
    speed: float = 50.0  # a year: how fast the curve shifts at full utilisation
    least_at_target: float = 0.001
    most_at_target: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a curve that cannot be."""
        if not 0.0 < self.target < 1.0:
            raise RuleError(f"target utilisation was {self.target}; it lies between 0 and 1")
        if self.steepness < 1.0 or self.speed < 0.0:
            raise RuleError(
                f"steepness was {self.steepness} (at least 1), speed {self.speed} (at least 0)"
            )
        if not 0.0 < self.least_at_target <= self.most_at_target:
            raise RuleError(
                f"rates at target run from {self.least_at_target} to {self.most_at_target}; "
                "the first lies above 0 and is at most the second"
            )

    def error(self, utilisation: float) -> float:
        """How far from the target, from -1 (nothing lent) over 0 to 1 (all lent)."""
        if not 0.0 <= utilisation <= 1.0:
            raise RuleError(f"utilisation was {utilisation}; it lies in 0 to 1")
        side = 1.0 - self.target if utilisation > self.target else self.target
        return (utilisation - self.target) / side

    def borrow_rate(self, at_target: float, utilisation: float) -> float:
        """Rate that borrowers pay at this instant, for a given rate at the target."""
        error = self.error(utilisation)
        slope = self.steepness - 1.0 if error > 0.0 else 1.0 - 1.0 / self.steepness
        return (1.0 + slope * error) * at_target

    def rate_at_target(self, borrow_rate: float, utilisation: float) -> float:
        """Where the curve stands, read off a rate that was paid: undoes `borrow_rate`."""
        return borrow_rate / self.borrow_rate(1.0, utilisation)

    def shifted(self, at_target: float, utilisation: float, seconds: float) -> float:
        """Rate at the target after a span at one utilisation."""
        moved = at_target * math.exp(self.speed * self.error(utilisation) * _years(seconds))
        return min(max(moved, self.least_at_target), self.most_at_target)

    def accrue(self, at_target: float, utilisation: float, seconds: float) -> tuple[float, float]:
        """Growth of all debts over a span that nobody interrupts, and the rate at target after it.

        As the contract does: the mean rate by the trapezoid with one point between, growth by
        three terms of the exponential. Over a long span both fall short of continuous growth.
        """
        end = self.shifted(at_target, utilisation, seconds)
        middle = self.shifted(at_target, utilisation, seconds / 2.0)
        mean = (at_target + end + 2.0 * middle) / 4.0
        return taylor_factor(self.borrow_rate(mean, utilisation), seconds), end


def _years(seconds: float) -> float:
    if seconds < 0.0:
        raise RuleError(f"a span was {seconds} seconds; time runs forward")
    return seconds / SECONDS_PER_YEAR
