"""Margin that grows with size: open-interest scaling on dYdX, size premia and scaling on Drift.

A flat share of notional lets a large position be as levered as a small one, though it cannot be
closed as fast. Both chains scale the share instead, with the crowd (dYdX) or the size (Drift).
What a chain fixes itself comes with its `rules`, from its profile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from undertow.errors import RuleError
from undertow.rules.perp import Position, account
from undertow.rules.profile import PerpRules
from undertow.rules.rounding import ceil_to, floor_to
from undertow.state import FloatColumn


def open_interest_fraction(
    base: float,
    open_interest: float,
    lower_cap: float,
    upper_cap: float,
    *,
    quantum: float | None = None,
) -> float:
    """Initial margin fraction of a market at an open interest: `base` below the lower cap, 1 above.

    base + clamp((open_interest - lower) / (upper - lower), 0, 1) * (1 - base), rounded down to
    `quantum`. Equal caps switch the scaling off.

    References
    ----------
    dYdX v4, `LiquidityTier`: open interest margin fraction.
    """
    if not 0.0 <= base <= 1.0 or lower_cap > upper_cap:
        raise RuleError(f"base {base} must lie in 0 to 1, and caps {lower_cap}, {upper_cap} rise")
    if upper_cap == lower_cap:
        return base
    share = max(0.0, min(1.0, (open_interest - lower_cap) / (upper_cap - lower_cap)))
    return float(floor_to(base + share * (1.0 - base), quantum))


@dataclass(frozen=True, slots=True)
class Requirement:
    """Margin asked of one position."""

    initial: float
    maintenance: float


def margin_requirement(
    notional: float,
    base: float,
    *,
    rules: PerpRules,
    open_interest: float = 0.0,
    lower_cap: float = 0.0,
    upper_cap: float = 0.0,
) -> Requirement:
    """Initial and maintenance margin of a position, each rounded up to the venue's quantum.

    Only the initial margin scales with open interest, where the rules say so: maintenance is
    base * maintenance_of_initial, so that a crowd arriving closes nobody.
    """
    size, fraction = abs(notional), base
    if rules.open_interest_scaling:
        fraction = open_interest_fraction(
            base, open_interest, lower_cap, upper_cap, quantum=rules.fraction_quantum
        )
    share = 1.0 if rules.maintenance_of_initial is None else rules.maintenance_of_initial
    return Requirement(
        float(ceil_to(size * fraction, rules.margin_quantum)),
        float(ceil_to(size * base * share, rules.margin_quantum)),
    )


@dataclass(frozen=True, slots=True)
class BankruptcyPrice:
    """What closing a part of a position must bring so that the rest keeps its share of equity."""

    quote: float  # received when positive (selling), paid when negative (buying)
    per_unit: float


def bankruptcy_price(
    positions: Sequence[Position],
    which: int,
    delta: float,
    *,
    raw_usd: float,
    rules: PerpRules,
) -> BankruptcyPrice:
    """Quote amount at which closing `delta` of a position uses up its share of the equity.

    -delta_notional - equity * |delta_maintenance| / maintenance, the account being the whole
    subaccount; rounded up to the venue's quantum of margin. A position that cannot be closed at a
    loss has a negative price.

    References
    ----------
    dYdX v4, `GetBankruptcyPriceInQuoteQuantums`.
    """
    before = account(positions, raw_usd=raw_usd)
    position = positions[which]
    left = position.size + delta
    if delta == 0.0 or left * position.size < 0.0 or abs(left) > abs(position.size):
        raise RuleError(f"delta was {delta}; it must close a part of a size of {position.size}")
    if before.maintenance <= 0.0:
        raise RuleError("the account asks for no maintenance, so it has no bankruptcy price")
    asked = position.brackets.value(position.notional)
    still = position.brackets.value(replace(position, size=left).notional)
    share = abs(asked - still) / before.maintenance
    quote = float(ceil_to(-delta * position.mark - before.equity * share, rules.margin_quantum))
    return BankruptcyPrice(quote, -quote / delta)


@dataclass(frozen=True, slots=True)
class FillablePrice:
    """Price at which the chain offers a position it liquidates."""

    price: float
    rating: float  # 0 at the maintenance margin, 1 from the bankruptcy point on


def fillable_price(
    positions: Sequence[Position], which: int, *, raw_usd: float, rules: PerpRules
) -> FillablePrice:
    """Offer price of a liquidation: the oracle price less a part of the maintenance margin.

    mark * (1 - side * rating * spread_to_maintenance * rate), rating = clamp(
    bankruptcy_adjustment * (1 - equity / maintenance), 0, 1) over the whole subaccount, `rate` the
    position's own maintenance rate.

    References
    ----------
    dYdX v4, `GetFillablePrice` (bankruptcy adjustment, spread to maintenance margin ratio).
    """
    judged = account(positions, raw_usd=raw_usd)
    if judged.maintenance <= 0.0:
        raise RuleError("the account asks for no maintenance, so nothing of it is liquidated")
    missing = 1.0 - judged.equity / judged.maintenance
    rating = max(0.0, min(1.0, rules.bankruptcy_adjustment * missing))
    position = positions[which]
    spread = rating * rules.spread_to_maintenance * position.bracket.rate
    return FillablePrice(position.mark * (1.0 - math.copysign(spread, position.size)), rating)


def size_premium(
    size: npt.ArrayLike,
    imf_factor: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    quantum: float | None = None,
) -> FloatColumn:
    """Weight of liabilities of a size: max(weight, 0.8 * weight + imf_factor * sqrt(size)).

    A factor of 0 switches it off.

    References
    ----------
    Drift v2, `calculate_size_premium_liability_weight`.
    """
    plain = np.asarray(weight, dtype=np.float64)
    scaled = 0.8 * plain + np.asarray(imf_factor) * np.sqrt(np.abs(size))
    return np.maximum(plain, floor_to(scaled, quantum))


def size_discount(
    size: float, imf_factor: float, weight: float, *, quantum: float | None = None
) -> float:
    """Weight of an asset of a size: min(weight, 1.1 / (1 + imf_factor * sqrt(size))).

    References
    ----------
    Drift v2, `calculate_size_discount_asset_weight`.
    """
    if imf_factor == 0.0:
        return weight
    scaled = 1.1 / (1.0 + imf_factor * math.sqrt(abs(size)))
    return min(weight, float(floor_to(scaled, quantum)))


def scaled_asset_weight(deposits: float, price: float, scale_start: float, weight: float) -> float:
    """Initial weight of an asset whose deposits, venue-wide, outgrow `scale_start` in USD.

    weight * min(1, scale_start / (deposits * price)); a scale_start of 0 switches it off.

    References
    ----------
    Drift v2, `SpotMarket.get_scaled_initial_asset_weight`.
    """
    value = deposits * price
    if scale_start == 0.0 or value <= scale_start:
        return weight
    return weight * scale_start / value
