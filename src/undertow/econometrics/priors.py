"""What to believe of an autoregression before a filter runs, from the rows before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from undertow.econometrics.autoregression import autoregression
from undertow.econometrics.checks import FloatMatrix
from undertow.econometrics.equations import LEAST_SQUARES, refuse_short, side_by_side

_WIDE = 100.0  # prior variance of an intercept, in units of the series' own variance


class Belief(NamedTuple):
    """What is believed of the state before a row is seen."""

    mean: FloatMatrix  # (N, K): intercept, then the past, the oldest lag first
    spread: FloatMatrix  # (N * K, N * K), equation by equation
    shocks: FloatMatrix  # (N, N)


class Prior(Protocol):
    """What to believe before the filter runs, from the `rows` before it."""

    @property
    def rows(self) -> int:
        """How many rows it looks at; the filter begins after them."""
        ...

    def belief(self, x: FloatMatrix, lags: int) -> Belief | str:
        """From those rows; or why they say nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Training:
    """A constant autoregression of the first rows; `slack` widens its sampling variance."""

    rows: int
    slack: float = 4.0

    def belief(self, x: FloatMatrix, lags: int) -> Belief | str:
        """Least squares, its coefficients' covariance times `slack`."""
        refuse_short("rows of the prior", len(x), x.shape[1], lags, LEAST_SQUARES)
        fit = autoregression(x, lags)
        if np.isnan(fit.root):
            return f"no prior from the first {self.rows} rows: {fit.status}"
        before = side_by_side(x, lags)[:, : fit.stacked.shape[1]]
        past = np.hstack([np.ones((len(before), 1)), before])
        spread = np.kron(fit.covariance, np.linalg.inv(past.T @ past)) * self.slack
        mean = np.hstack([fit.intercept[:, None], fit.stacked])
        return Belief(mean, (spread + spread.T) / 2.0, fit.covariance.copy())


@dataclass(frozen=True, slots=True)
class Minnesota:
    """Every series follows itself, by `own` of its last value, and nobody else, until shown.

    The first `rows` give each series' scale. A coefficient's prior variance is `tightness` over
    the squared lag, in units of the two series' standard deviations. For levels take `own` = 1.

    References
    ----------
    Litterman 1986; in this form Koop and Korobilis 2010.
    """

    rows: int = 50
    tightness: float = 0.1
    own: float = 0.0

    def belief(self, x: FloatMatrix, lags: int) -> Belief | str:
        """Coefficients around `own`, shocks as the rows' own covariance, without ties."""
        series = x.shape[1]
        scale = x.std(axis=0)
        flat = np.ptp(x, axis=0) == 0.0
        if flat.any():
            return f"no prior: column {int(np.argmax(flat))} is constant over {self.rows} rows"
        steps = np.repeat(np.arange(lags, 0, -1), series)
        wide = self.tightness * np.square(scale[:, None] / np.tile(scale, lags) / steps)
        spread = np.hstack([_WIDE * np.square(scale)[:, None], wide])
        mean = np.zeros_like(spread)
        last = 1 + (lags - 1) * series
        mean[:, last:] = self.own * np.eye(series)
        mean[:, 0] = (1.0 - self.own) * x.mean(axis=0)
        return Belief(mean, np.diag(spread.reshape(-1)), np.diag(np.square(scale)))
