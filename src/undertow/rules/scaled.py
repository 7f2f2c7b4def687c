"""Margin that grows with size on dYdX and Drift, and how these two size and share a liquidation.

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
from undertow.kernels import closing as kernel
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


def base_to_cover(
    shortage: float,
    price: float,
    margin_ratio: float,
    *,
    liquidation_fee: float = 0.0,
    insurance_fee: float = 0.0,
    quote_price: float = 1.0,
) -> float:
    """Size of a perp whose closing ends a margin shortage; inf where the fees eat what it frees.

    shortage / (price * quote_price * (margin_ratio - liquidation_fee - insurance_fee)).

    References
    ----------
    Drift v2, `calculate_base_asset_amount_to_cover_margin_shortage`.
    """
    _positive(price=price, quote_price=quote_price)
    freed = margin_ratio - liquidation_fee - insurance_fee
    return float(kernel.needed(shortage, price * quote_price * freed))


def liability_to_cover(
    shortage: float,
    price: float,
    *,
    liability_weight: float,
    asset_weight: float,
    liability_multiplier: float = 1.0,
    asset_multiplier: float = 1.0,
    insurance_fee: float = 0.0,
) -> float:
    """Borrowed quantity whose transfer, against an asset, ends a margin shortage; inf where none.

    shortage / (price * (liability_weight - asset_weight * asset_multiplier / liability_multiplier
    - insurance_fee * liability_weight)).

    References
    ----------
    Drift v2, `calculate_liability_transfer_to_cover_margin_shortage`.
    """
    _positive(price=price, liability_multiplier=liability_multiplier)
    multiplier = asset_multiplier / liability_multiplier
    return float(
        kernel.liability_to_cover(
            shortage, price, liability_weight, asset_weight, multiplier, insurance_fee
        )
    )


def implied_liability(
    asset: float,
    asset_price: float,
    liability_price: float,
    *,
    asset_multiplier: float = 1.0,
    liability_multiplier: float = 1.0,
) -> float:
    """Borrowed quantity that a quantity of an asset pays for, after the liquidator's share.

    References
    ----------
    Drift v2, `calculate_liability_transfer_implied_by_asset_amount`.
    """
    _positive(liability_price=liability_price, asset_multiplier=asset_multiplier)
    paid = asset * asset_price * liability_multiplier
    return paid / (liability_price * asset_multiplier)


def insurance_fee(
    shortage: float,
    size: float,
    price: float,
    margin_ratio: float,
    *,
    liquidator_fee: float,
    most: float,
) -> float:
    """Share of a closing's notional that the insurance fund may take without a new shortage.

    0.95 * (margin_ratio - liquidator_fee - shortage / notional), within 0 to `most`.

    References
    ----------
    Drift v2, `calculate_perp_if_fee`.
    """
    _positive(price=price, size=abs(size))
    notional = abs(size) * price
    return float(kernel.insurance_share(shortage, notional, margin_ratio, liquidator_fee, most))


def loss_per_base(loss: float, long: float, short: float, *, quantum: float | None = None) -> float:
    """A loss nothing covers, spread over all open size of its market, rounded up to `quantum`.

    References
    ----------
    Drift v2, `calculate_funding_rate_deltas_to_resolve_bankruptcy`.
    """
    _positive(open_size=abs(long) + abs(short))
    return float(kernel.loss_per_unit(loss, long, short, quantum or 0.0))


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0.0:
            raise RuleError(f"{name} was {value}; it must be above 0")
