"""How bad the worst scenarios are, how sure that is, and who carries it.

One number a scenario, a loss positive, in any order; `weights` say how much a scenario counts where
it was drawn more often than it is likely (importance sampling: likelihood over sampling density,
in any unit). The 99 % value at risk is the least loss that at least 99 % of scenarios do not pass;
the expected shortfall is the mean of the worst 1 %, of which the scenarios at the value at risk
itself are given just the share that fills it up. So losses that are mostly 0 with rare jumps need
no special case: the value at risk is then 0, and the expected shortfall is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import bdtr, bdtrik, betaincinv, ndtri

from undertow.errors import StateError
from undertow.state import BoolColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import frozen

FEW = 20  # exceedances under which a band is more hope than statistics
_ROUNDING = 1e-12  # a share this near to `q` has reached it


@dataclass(frozen=True, slots=True)
class Tail:
    """One number of the tail, and the band that holds the true one with probability `level`.

    An end of the band is infinite where the sample has no scenario far enough out to name it.
    """

    value: float
    low: float
    high: float
    level: float  # of the band
    q: float  # the tail begins where this share of scenarios ends
    n: int  # scenarios
    exceedances: int  # scenarios beyond the value at risk
    tied: float  # share of scenarios, by weight, that lost exactly the value at risk
    effective: float  # equally weighted scenarios that would say as much; `n` without weights

    @property
    def words(self) -> tuple[str, ...]:
        """What to know before believing the band; empty where there is nothing."""
        said = []
        if self.tied > 1.5 / self.n:
            said.append(
                f"{self.tied:.1%} of scenarios lost exactly the value at risk: its band is at least"
                " as wide as it says, and says nothing of how bad the rest is"
            )
        if self.exceedances < FEW:
            said.append(f"only {self.exceedances} scenarios lie beyond; draw more")
        if math.isinf(self.high) or math.isinf(self.low):
            said.append(f"{self.n} scenarios are too few to close the band at {self.level:g}")
        if self.effective < 0.1 * self.n:
            said.append(f"the weights leave {self.effective:.0f} scenarios' worth of {self.n}")
        return tuple(said)


@dataclass(frozen=True, slots=True)
class Chance:
    """How often losses are beyond a number, and the band that holds the true probability."""

    value: float
    low: float
    high: float
    level: float
    n: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class TailShares:
    """Who carries the expected shortfall: mean losses of the parts over the worst scenarios."""

    names: tuple[str, ...]
    mean: FloatColumn  # by part; adds up to `shortfall`
    shortfall: float
    value_at_risk: float  # of the total
    exceedances: int

    def to_polars(self) -> pl.DataFrame:
        """One row a part, the largest first; `share` is empty where there is no shortfall."""
        frame = pl.DataFrame({"part": list(self.names), "mean": self.mean})
        share = pl.col("mean") / self.shortfall if self.shortfall != 0.0 else pl.lit(None)
        return frame.with_columns(share.cast(pl.Float64).alias("share")).sort(
            "mean", "part", descending=[True, False]
        )


def value_at_risk(
    losses: Any, *, q: float = 0.99, level: float = 0.95, weights: Any = None
) -> Tail:
    """The loss that only a share 1 - `q` of scenarios goes beyond.

    Without weights the band runs between two order statistics and is exact: how many scenarios
    stay under the true quantile is binomial whatever the losses' distribution, and ties only make
    the band safer. With weights the share under each loss is asymptotically normal, and the band
    is read off where it is `q` give or take its error.

    Raises
    ------
    StateError
        No losses, one that is not finite, a share outside 0 to 1, or weights that are none.

    References
    ----------
    David and Nagaraja (2003), "Order statistics", 7.1. Woodruff (1952), for weighted samples.
    """
    sample = _Sample.of(losses, weights, q, level)
    if sample.even:
        low, high = _ranks(sample.n, q, level)
        return sample.tail(sample.at_risk, sample.loss_at(low), sample.loss_at(high), level)
    below = sample.loss <= sample.at_risk
    error = _error(sample.share, below.astype(np.float64)) * float(ndtri(0.5 + 0.5 * level))
    low, high = (int(np.searchsorted(sample.reached, q + sign * error)) + 1 for sign in (-1, 1))
    return sample.tail(
        sample.at_risk,
        sample.loss_at(low if q > error else 0),
        sample.loss_at(high),
        level,
    )


def expected_shortfall(
    losses: Any, *, q: float = 0.99, level: float = 0.95, weights: Any = None
) -> Tail:
    """The mean loss of the worst share 1 - `q` of scenarios.

    The band rests on the influence function, max(loss - VaR, 0) / (1 - q), whose mean the shortfall
    is. Excesses are skewed: the band is that of Hall's transformation, which is the plain normal
    one where they are not, and reaches further up where few scenarios carry the mean. Open above
    where no scenario lies beyond the value at risk.

    Such a band knows nothing of what a loss can be, and would run below 0 for what is never
    negative. The shortfall lies under the least loss seen only if all n scenarios were among the
    worst 1 - `q`, with probability (1 - q)^n, so the band ends there. Weights say how likely a
    scenario is and not how likely it was to be drawn, so with them it does not.

    Raises
    ------
    StateError
        No losses, one that is not finite, a share outside 0 to 1, or weights that are none.

    References
    ----------
    Rockafellar and Uryasev (2002), on atoms at the value at risk. Chen (2008), on the error of the
    shortfall. Hall (1992), "On the removal of skewness by transformation".
    """
    sample = _Sample.of(losses, weights, q, level)
    excess = np.maximum(sample.loss - sample.at_risk, 0.0) / (1.0 - q)
    value = sample.at_risk + float(sample.share @ excess)
    z = float(ndtri(0.5 + 0.5 * level))
    error = _error(sample.share, excess)
    if error == 0.0:
        return sample.tail(value, value, math.inf, level)
    centred = sample.share * (excess - float(sample.share @ excess))
    skew = float((centred**3).sum()) / error**3
    low, high = (value - error * _unskewed(y, skew) for y in (z, -z))
    if sample.even:
        low = max(low, float(sample.loss[0]))
    return sample.tail(value, low, high, level)


def probability_beyond(losses: Any, beyond: float = 0.0, *, level: float = 0.95) -> Chance:
    """How often a loss is above `beyond`: the number to read where most losses are nothing.

    The band is exact, and for no loss among n scenarios it ends near 3.7 / n at 95 %.

    References
    ----------
    Clopper and Pearson (1934).
    """
    loss = _column("losses", losses)
    _require_share("level", level)
    n, count, alpha = len(loss), int((loss > beyond).sum()), 1.0 - level
    low = float(betaincinv(count, n - count + 1, 0.5 * alpha)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1.0 - 0.5 * alpha)) if count < n else 1.0
    return Chance(count / n, low, high, level, n, count)


def share_of_tail(
    parts: Any, names: Sequence[str], *, q: float = 0.99, weights: Any = None
) -> TailShares:
    """Which venues or assets carry the expected shortfall of the whole.

    `parts` holds a row a scenario and a column a part; the loss of a scenario is the sum of its
    row. A part's share is its mean over the very scenarios whose mean the shortfall is, so shares
    add up; one of a part that gains when the rest loses is negative.

    Raises
    ------
    StateError
        When `parts` is no matrix of finite numbers with one column for each name.

    References
    ----------
    Tasche (1999), "Risk contributions and performance measurement".
    """
    lost: FloatMatrix = np.asarray(parts, dtype=np.float64)
    if lost.ndim != 2 or lost.shape[1] != len(names) or not len(names):
        raise StateError(
            f"parts is {' x '.join(map(str, lost.shape))}; it must hold a row a scenario and a "
            f"column for each of {len(names)} names"
        )
    total = _column("parts", lost.sum(axis=1))
    sample = _Sample.of(total, weights, q, 0.95)
    share = np.empty(len(total))
    share[sample.order] = sample.share
    mass = _tail_mass(total, share, sample.at_risk, q)
    mean = np.array([math.fsum(mass * lost[:, k]) for k in range(lost.shape[1])])
    return TailShares(
        tuple(names), frozen(mean), math.fsum(mean), sample.at_risk, sample.exceedances
    )


def tails_by(
    parts: Any, names: Sequence[str], *, q: float = 0.99, level: float = 0.95
) -> pl.DataFrame:
    """Value at risk and shortfall of each part on its own, with bands, a row each.

    Worst days of different parts are different days, so these do not add up to those of the whole;
    `share` is the part's share of the shortfall of the whole, and does. The largest shortfall
    stands first.

    Raises
    ------
    StateError
        As `share_of_tail`.
    """
    whole = share_of_tail(parts, names, q=q).to_polars()
    lost: FloatMatrix = np.asarray(parts, dtype=np.float64)
    rows = []
    for k, name in enumerate(names):
        risk = value_at_risk(lost[:, k], q=q, level=level)
        fall = expected_shortfall(lost[:, k], q=q, level=level)
        row: dict[str, Any] = {"part": name}
        for what, tail in (("var", risk), ("es", fall)):
            row |= {what: tail.value, f"{what}_low": tail.low, f"{what}_high": tail.high}
        rows.append(row)
    frame = pl.DataFrame(rows).join(whole.select("part", "share"), on="part", how="left")
    return frame.sort("es", "part", descending=[True, False])


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Losses in order, the share of scenarios that each stands for, and their quantile."""

    order: Any
    loss: FloatColumn
    share: FloatColumn
    reached: FloatColumn  # share of scenarios that lost no more
    even: bool
    q: float
    at_risk: float

    @classmethod
    def of(cls, losses: Any, weights: Any, q: float, level: float) -> _Sample:
        loss = _column("losses", losses)
        for name, value in (("q", q), ("level", level)):
            _require_share(name, value)
        order = np.argsort(loss, kind="stable")
        ranked, n = loss[order], len(loss)
        if weights is None:
            share = np.full(n, 1.0 / n)
            reached = np.arange(1, n + 1) / n
        else:
            share = _shares(weights, n)[order]
            reached = np.cumsum(share) / share.sum()
        at = min(int(np.searchsorted(reached, q - _ROUNDING)), n - 1)
        return cls(order, ranked, share, reached, weights is None, q, float(ranked[at]))

    @property
    def n(self) -> int:
        return len(self.loss)

    @property
    def exceedances(self) -> int:
        return int((self.loss > self.at_risk).sum())

    def loss_at(self, rank: int) -> float:
        """The loss of a rank from 1 on; infinite before the first and after the last."""
        if rank < 1:
            return -math.inf
        return math.inf if rank > self.n else float(self.loss[rank - 1])

    def tail(self, value: float, low: float, high: float, level: float) -> Tail:
        tied: BoolColumn = self.loss == self.at_risk
        return Tail(
            value=value,
            low=min(low, value),
            high=max(high, value),
            level=level,
            q=self.q,
            n=self.n,
            exceedances=self.exceedances,
            tied=float(self.share[tied].sum()),
            effective=float(1.0 / (self.share**2).sum()),
        )


def _ranks(n: int, q: float, level: float) -> tuple[int, int]:
    """Ranks between which the quantile lies with probability `level` or more.

    With B binomial(n, q): the largest l with P(B < l) <= alpha / 2, and the least u with
    P(B < u) >= 1 - alpha / 2.
    """
    alpha = 0.5 * (1.0 - level)
    return _least(n, q, alpha), _least(n, q, 1.0 - alpha) + 1


def _least(n: int, q: float, chance: float) -> int:
    """The least k with P(B <= k) >= `chance`."""
    k = max(math.floor(float(np.nan_to_num(bdtrik(chance, n, q)))) - 1, 0)
    while k < n and bdtr(k, n, q) < chance:
        k += 1
    return k


def _error(share: FloatColumn, value: FloatColumn) -> float:
    """Standard error of a mean of values that stand for shares of scenarios."""
    return math.sqrt(float(((share * (value - float(share @ value))) ** 2).sum()))


def _unskewed(y: float, skew: float) -> float:
    """Hall's inverse of y = x + a x^2 / 3 + a^2 x^3 / 27 + a / 6, a the skewness of the mean."""
    if abs(skew) < 1e-6:
        return y
    return 3.0 / skew * (float(np.cbrt(1.0 + skew * (y - skew / 6.0))) - 1.0)


def _tail_mass(total: FloatColumn, share: FloatColumn, at_risk: float, q: float) -> FloatColumn:
    """How much each scenario counts in the shortfall; what ties at its start takes the rest."""
    mass = np.where(total > at_risk, share / (1.0 - q), 0.0)
    tied = total == at_risk
    mass[tied] = share[tied] / share[tied].sum() * max(1.0 - math.fsum(mass), 0.0)
    return mass


def _shares(weights: Any, n: int) -> FloatColumn:
    weight = _column("weights", weights)
    if len(weight) != n:
        raise StateError(f"weights holds {len(weight)} numbers; there are {n} losses")
    if (weight < 0.0).any() or not weight.sum() > 0.0:
        raise StateError("weights holds a negative number, or nothing above 0")
    share: FloatColumn = weight / weight.sum()
    return share


def _column(name: str, values: Any) -> FloatColumn:
    found: FloatColumn = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise StateError(f"{name} must be one number for each scenario, and at least one")
    if not np.isfinite(found).all():
        raise StateError(f"{name} holds a number that is not finite")
    return found


def _require_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise StateError(f"{name} was {value}; it must lie between 0 and 1")
