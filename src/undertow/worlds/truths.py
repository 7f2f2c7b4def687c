"""What was planted in a world, exactly: the answers that an estimator has to find.

Dates are given twice, as steps of the panels and as microseconds; shares and sums are computed from
the very numbers that stand in the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from undertow.state import AnyColumn, FloatColumn, FloatMatrix, KeyColumn


@dataclass(frozen=True, slots=True)
class HubTruth:
    """One keeper stands behind a share of all claims."""

    node: str  # as a node of Claims
    share: float  # of the value of all claims
    owed_usd: float
    total_usd: float
    creditors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopTruth:
    """One base deposit, lent, posted and lent again until it stands behind many claims."""

    asset: str  # base
    share_asset: str  # the vault's share
    venue: str
    rho: float  # share of each round that is lent again
    base_qty: float
    claims_qty: float  # shares that the vault owes
    debt_qty: float
    multiplier: float  # claims_qty / base_qty
    limit: float  # 1 / (1 - rho)
    vault_owner: int
    looper_owner: int
    vault_account: int
    looper_account: int


@dataclass(frozen=True, slots=True)
class ChainTruth:
    """A wrapper of a wrapper, down to a base asset."""

    assets: tuple[str, ...]  # base first
    depth: int  # wrappers on top of the base
    rates: tuple[float, ...]  # units of the one below that each stands for
    supply: tuple[float, ...]  # of each wrapper
    base_per_top: float  # product of the rates
    account: int  # which posts the top as collateral


@dataclass(frozen=True, slots=True)
class CrowdTruth:
    """Many accounts on one side of one perp, on one kind of cash, that close together."""

    instrument: str
    side: str
    collateral: str  # instrument of the cash
    accounts: KeyColumn
    share: float  # of all accounts of the world
    side_share: float  # of accounts on that side of that perp, those of the crowd
    qty: float  # exact sum of their signed quantities
    notional_usd: float
    liquidation_prices: FloatColumn  # of each account, by its venue's rules, other prices held
    distance: float  # centre of the band, as a move of the price
    band: float  # width of the band, as a share of the price


@dataclass(frozen=True, slots=True)
class PriceTruth:
    """How prices were made: r = loadings @ factors + own, all clustered and fat-tailed."""

    assets: tuple[str, ...]
    factor_names: tuple[str, ...]
    loadings: FloatMatrix  # (assets, factors), in standard deviations of a step
    own: FloatColumn  # (assets,), likewise
    returns: FloatMatrix  # (steps, assets); the first row is zero
    degrees: float  # of the Student t shocks
    alpha: float  # h = (1 - alpha - beta) + alpha * shock^2 + beta * h
    beta: float


@dataclass(frozen=True, slots=True)
class TurningPoint:
    """A date at which the noiseless path of a series turns."""

    series: str
    kind: str  # peak or trough
    step: int
    ts: int


@dataclass(frozen=True, slots=True)
class UnwindingTruth:
    """A date at which some nodes delever at once."""

    step: int
    ts: int
    length: int
    nodes: tuple[str, ...]
    strength: float  # in standard deviations of the residual, a step


@dataclass(frozen=True, slots=True)
class AttributionTruth:
    """What the pairwise correlation of residuals is made of.

    correlation = base * 11' + sum_m coefficients[m] * drivers[m], off the diagonal.
    """

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    base: float
    drivers: FloatMatrix  # (drivers, nodes, nodes), 1 on the diagonal
    driver_correlation: FloatMatrix  # (drivers, drivers), over pairs of nodes


@dataclass(frozen=True, slots=True)
class LeverageTruth:
    """How a panel of leverage was made.

    growth = diff(cycle) + response + reversion + residual + events, all (steps, nodes), and zero
    in the first row but for an event there; log leverage is its running sum. Of each node all of
    them are already times its `amplitude`, and so are `noise`, `up`, `down` and `lags` to be read.
    `correlation` is that of the residual before its volatility moves.
    """

    nodes: tuple[str, ...]
    noise: float  # standard deviation of the residual, a step, at amplitude 1
    correlation: FloatMatrix  # (nodes, nodes)
    up: float
    down: float
    lags: tuple[float, ...]
    vol_slope: float
    half_life: float  # in steps, of what is neither anchor nor cycle
    amplitude: FloatColumn  # (nodes,): 1, or less where the level would meet its floor
    drivers: FloatMatrix  # (steps, nodes): the price return that each node answers to
    cycle: FloatMatrix
    response: FloatMatrix
    reversion: FloatMatrix
    residual: FloatMatrix
    events: FloatMatrix
    turning_points: tuple[TurningPoint, ...] = ()
    unwindings: tuple[UnwindingTruth, ...] = ()
    attribution: AttributionTruth | None = None


@dataclass(frozen=True, slots=True)
class EpisodeTruth:
    """A spell in which a tied price is loose."""

    series: str
    step: int
    ts: int
    end: int  # first step after it
    size: float  # jump of the log basis at `step`
    beta: float  # of the tied return to that of what it follows, while it lasts
    noise: float  # standard deviation of a step's shock to the log basis, while it lasts


@dataclass(frozen=True, slots=True)
class BasisTruth:
    """How log(tied) - log(reference) was made.

    b_t = mean + phi * (b_(t-1) - mean) + noise_t * z_t + jump_t - (1 - beta_t) * r_t, with
    phi = 2 ** (-1 / half_life); noise_t is `noise` outside episodes.
    """

    series: tuple[str, ...]
    half_life: float  # in steps
    phi: float
    mean: float
    noise: float
    basis: FloatMatrix  # (steps, series)
    beta: FloatMatrix  # (steps, series): 1 outside episodes
    episodes: tuple[EpisodeTruth, ...]
    funding_clamp: float  # of interest - premium, per interval
    funding_cap: float  # of the rate, per interval
    funding_interval_us: int


@dataclass(frozen=True, slots=True)
class SeriesTruth:
    """What was planted in the series."""

    ts: KeyColumn
    step_us: int
    prices: PriceTruth
    basis: BasisTruth
    leverage: Mapping[str, LeverageTruth]  # by panel


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted in a world; None or empty where nothing was."""

    seed: int
    tail_index: float | None  # Pareto index of account sizes
    minimum_usd: float | None  # smallest account size
    hub: HubTruth | None = None
    loop: LoopTruth | None = None
    chain: ChainTruth | None = None
    crowd: CrowdTruth | None = None
    series: SeriesTruth | None = None
    overridden: tuple[int, ...] = ()  # accounts with terms of their own
    makers: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The planted facts as plain values, small enough to keep beside a run.

        What was not planted is left out, and so are series. A column is told by its length, least
        and greatest; a correlation by its size and the least, mean and greatest off its diagonal.
        """
        plain: dict[str, Any] = _plain(self)
        return plain


_LEFT_OUT = object()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        told = {str(key): _plain(each) for key, each in value.items() if each is not None}
        return {key: each for key, each in told.items() if each is not _LEFT_OUT}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return _told(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _told(array: AnyColumn) -> Any:
    """A column or a correlation in a few numbers; nothing else is told."""
    if array.ndim == 1 and array.size:
        return {"count": array.size, "least": array.min().item(), "greatest": array.max().item()}
    if array.ndim != 2 or array.shape[0] != array.shape[1] or (np.diag(array) != 1.0).any():
        return _LEFT_OUT
    off = array[~np.eye(len(array), dtype=np.bool_)]
    if not off.size:
        return {"size": len(array)}
    return {
        "size": len(array),
        "least": off.min().item(),
        "mean": off.mean().item(),
        "greatest": off.max().item(),
    }
