"""Price returns that cluster, have fat tails, and move together by sector.

r = loadings @ factors + own * shock. Every factor and every own shock is a GARCH(1,1) of its own,
with Student t innovations scaled to unit variance:

    shock_t = sqrt(h_t) * z_t,    h_t = (1 - alpha - beta) + alpha * shock_(t-1)^2 + beta * h_(t-1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.state import FloatColumn
from undertow.state.arrays import frozen
from undertow.worlds.catalogue import AssetFacts
from undertow.worlds.seeds import require_within, stream
from undertow.worlds.truths import PriceTruth

YEAR_US = 365.25 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """How prices move: shares of variance by factor, tails and clustering."""

    market_share: float = 0.5  # of each coin's variance
    sector_share: float = 0.15
    degrees: float = 5.0  # of the Student t innovations
    alpha: float = 0.06
    beta: float = 0.92

    def __post_init__(self) -> None:
        """Refuse variances that do not add up or do not exist."""
        require_within("prices.market_share", self.market_share, 0.0, 1.0)
        require_within("prices.sector_share", self.sector_share, 0.0, 1.0 - self.market_share)
        require_within("prices.degrees", self.degrees, 2.0, 1e6, open_low=True)
        require_within("prices.alpha", self.alpha, 0.0, 1.0, open_high=True)
        require_within("prices.beta", self.beta, 0.0, 1.0 - self.alpha, open_high=True)


def simulate_returns(
    seed: int, coins: list[AssetFacts], steps: int, step_us: int, prices: Prices
) -> PriceTruth:
    """Log returns of untied coins, a step a row; the first row is zero."""
    sectors = sorted({coin.sector for coin in coins})
    deviation = np.array([coin.vol for coin in coins]) * np.sqrt(step_us / YEAR_US)
    loadings = np.zeros((len(coins), 1 + len(sectors)))
    loadings[:, 0] = deviation * np.sqrt(prices.market_share)
    for k, coin in enumerate(coins):
        loadings[k, 1 + sectors.index(coin.sector)] = deviation[k] * np.sqrt(prices.sector_share)
    own = deviation * np.sqrt(1.0 - prices.market_share - prices.sector_share)
    names = ("market", *sectors)
    factors = np.stack([_shocks(seed, f"factor {n}", steps, prices) for n in names], axis=1)
    returns = np.stack(
        [_shocks(seed, f"shocks of {c.key}", steps, prices) for c in coins], axis=1
    ) * own  # fmt: skip
    for k in range(len(names)):  # one factor after the other: no sum depends on threads
        returns += factors[:, k : k + 1] * loadings[:, k]
    returns[0] = 0.0
    return PriceTruth(
        assets=tuple(coin.key for coin in coins),
        factor_names=names,
        loadings=frozen(loadings),
        own=frozen(own),
        returns=frozen(returns),
        degrees=prices.degrees,
        alpha=prices.alpha,
        beta=prices.beta,
    )


def _shocks(seed: int, part: str, steps: int, prices: Prices) -> FloatColumn:
    """One clustered, fat-tailed series of unit variance."""
    rng = stream(seed, part)
    scale = np.sqrt((prices.degrees - 2.0) / prices.degrees)
    draws = (scale * rng.standard_t(prices.degrees, steps)).tolist()
    omega, alpha, beta = 1.0 - prices.alpha - prices.beta, prices.alpha, prices.beta
    level, shocks = 1.0, np.empty(steps)
    for t, draw in enumerate(draws):
        shock = level**0.5 * draw
        shocks[t] = shock
        level = omega + alpha * shock * shock + beta * level
    return shocks
