"""Lenders with one collateral against one debt: Morpho Blue's markets and Liquity's troves.

What a protocol fixes for ever (virtual shares, incentives, ratios, reserves) comes with its
`rules`, from its profile.
"""

from __future__ import annotations

from dataclasses import dataclass

from undertow.errors import RuleError
from undertow.kernels import closing as kernel
from undertow.rules import lending
from undertow.rules.profile import LendingRules
from undertow.rules.rounding import below, ceil_to, floor_to


def assets_from_shares(
    shares: float,
    total_assets: float,
    total_shares: float,
    *,
    rules: LendingRules,
    quantum: float | None = None,
    up: bool = True,
) -> float:
    """Assets behind shares of a pool; debt rounds up, deposits down.

    shares * (total_assets + virtual_assets) / (total_shares + virtual_shares). The virtual
    amounts, in raw units, keep the first depositor from setting the price of a share.

    References
    ----------
    Morpho Blue, `SharesMathLib`.
    """
    price = (total_assets + rules.virtual_assets) / (total_shares + rules.virtual_shares)
    assets, quantum = shares * price, rules.rounding(quantum).value
    return float(ceil_to(assets, quantum) if up else floor_to(assets, quantum))


def incentive_factor(lltv: float, *, rules: LendingRules) -> float:
    """What a liquidator takes per unit repaid: min(cap, 1 / (1 - cursor * (1 - lltv))).

    The cursor and the cap are the protocol's; without them it takes what it repays.

    References
    ----------
    Morpho Blue, "Liquidation": liquidation incentive factor.
    """
    if not 0.0 < lltv < 1.0:
        raise RuleError(f"lltv was {lltv}; it must lie between 0 and 1")
    return min(rules.incentive_cap, 1.0 / (1.0 - rules.incentive_cursor * (1.0 - lltv)))


@dataclass(frozen=True, slots=True)
class MarketAccount:
    """One borrower in one isolated market; amounts in loan assets unless said otherwise."""

    collateral_value: float
    borrow_assets: float
    max_borrow: float
    ltv: float | None  # None: debt and nothing behind it
    health: float | None  # max_borrow / borrow_assets, None without debt
    is_healthy: bool
    liquidation_price: float | None  # loan assets per unit of collateral
    price_variation: float | None  # liquidation price over price, less 1: a fall is negative
    withdrawable_collateral: float  # units of collateral
    incentive_factor: float
    seizable_collateral: float  # units of collateral; 0 while healthy


def seized_for_shares(
    shares: float,
    price: float,
    lltv: float,
    total_assets: float,
    total_shares: float,
    *,
    rules: LendingRules,
    quantum: float | None = None,
) -> float:
    """Collateral that a liquidator takes for the debt shares it repays."""
    quantum = rules.rounding(quantum).value
    repaid = assets_from_shares(
        shares, total_assets, total_shares, rules=rules, quantum=quantum, up=False
    )
    worth = float(floor_to(repaid * incentive_factor(lltv, rules=rules), quantum))
    return float(kernel.seized_for(worth, 1.0, price, 0.0, quantum or 0.0))


def market_account(
    collateral: float,
    borrow_shares: float,
    *,
    price: float,
    lltv: float,
    total_borrow_assets: float,
    total_borrow_shares: float,
    rules: LendingRules,
    quantum: float | None = None,
) -> MarketAccount:
    """Judge one borrower of an isolated market.

    `price` is loan units per unit of collateral, units being those of the amounts: a raw oracle
    price of scale 1e36 is divided by 1e36. With `quantum` 1.0 raw integers round as the contract
    rounds them. The whole position can be closed as soon as it is unhealthy.
    """
    if price <= 0.0:
        raise RuleError(f"the oracle price was {price}; it must be above 0")
    pool = (total_borrow_assets, total_borrow_shares)
    rounding = rules.rounding(quantum)
    quantum = rounding.value
    debt = assets_from_shares(borrow_shares, *pool, rules=rules, quantum=quantum)
    judged = lending.account(
        collateral, debt, collateral_price=price, threshold=lltv, rounding=rounding
    )
    max_borrow = float(floor_to(judged.cover, quantum))
    closing = None
    if debt > 0.0:
        power = float(floor_to(collateral * lltv, quantum))  # the contract rounds here, not later
        closing = lending.liquidation_price(
            power, price, weight=1.0, cover=power * price, asked=debt
        )
    needed = float(ceil_to(float(ceil_to(debt / price, quantum)) / lltv, quantum))
    healthy = max_borrow >= debt
    seizable = 0.0
    if not healthy:
        whole = seized_for_shares(borrow_shares, price, lltv, *pool, rules=rules, quantum=quantum)
        seizable = min(whole, collateral)
    return MarketAccount(
        collateral_value=judged.collateral,
        borrow_assets=debt,
        max_borrow=max_borrow,
        ltv=0.0 if debt == 0.0 else judged.debt_to_collateral,
        health=max_borrow / debt if debt > 0.0 else None,
        is_healthy=healthy,
        liquidation_price=closing,
        price_variation=None if closing is None else closing / price - 1.0,
        withdrawable_collateral=max(collateral - needed, 0.0),
        incentive_factor=incentive_factor(lltv, rules=rules),
        seizable_collateral=seizable,
    )


@dataclass(frozen=True, slots=True)
class Trove:
    """One borrower against one collateral, judged by ratio."""

    collateral_ratio: float | None  # None without debt
    nominal_ratio: float | None  # collateral per 100 of debt, whatever the price: ranks troves
    below_minimum: bool
    below_critical: bool
    net_debt: float
    liquidation_price: float | None


def trove(collateral: float, debt: float, price: float, *, rules: LendingRules) -> Trove:
    """Judge one trove; `debt` includes the liquidation reserve.

    Below the minimum ratio it can be closed; at it, it cannot. The critical ratio is that of the
    whole system: while the sum of all troves is below it, the protocol is in recovery mode.

    Raises
    ------
    RuleError
        The rules judge by something else than a ratio.

    References
    ----------
    Liquity v1, `LiquityBase` (individual, nominal and total collateral ratio, recovery mode).
    """
    if rules.minimum_ratio is None:
        raise RuleError(
            "these rules have no minimum_ratio, so they judge no trove",
            hint="pass load_profile('liquity-v1').lending",
        )
    weight, critical = 1.0 / rules.minimum_ratio, rules.critical_ratio
    judged = lending.account(collateral, debt, collateral_price=price, threshold=weight)
    net_debt = debt - rules.liquidation_reserve
    if debt == 0.0:
        return Trove(None, None, False, False, net_debt, None)
    ratio = judged.collateral / debt
    return Trove(
        collateral_ratio=ratio,
        nominal_ratio=100.0 * collateral / debt,
        below_minimum=below(ratio, rules.minimum_ratio),
        below_critical=critical is not None and below(ratio, critical),
        net_debt=net_debt,
        liquidation_price=lending.liquidation_price(
            collateral, price, weight=weight, cover=judged.cover, asked=judged.asked
        ),
    )
