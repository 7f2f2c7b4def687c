"""How long until something happens, without a law: steps at the times at which it did.

Rows are people (or loans): `until` when each was last watched, `cause` what ended the watch (0
nothing: it goes on, unseen), `since` when the watch began, 0 unless said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, series, within
from undertow.errors import EstimationError


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A sum that rises at certain times, with its standard error."""

    times: FloatColumn
    value: FloatMatrix  # (times, causes)
    error: FloatMatrix
    at_risk: FloatColumn  # (times,) how many were watched

    def at(self, time: float) -> FloatColumn:
        """What it had come to by then; 0 before the first time."""
        row = int(np.searchsorted(self.times, time, side="right")) - 1
        return np.asarray(self.value[row] if row >= 0 else np.zeros(self.value.shape[1]))

    def band(self, level: float = 0.9) -> tuple[FloatMatrix, FloatMatrix]:
        """Low and high end, symmetric for the logarithm, so never below 0.

        Rows are news of their own here: where one owner has many, bands are too narrow.
        """
        within("level", level, 0.0, 1.0)
        share = np.divide(self.error, self.value, out=np.zeros_like(self.value),
                          where=self.value > 0.0)  # fmt: skip
        reach = np.exp(float(special.ndtri(0.5 + level / 2.0)) * share)
        return self.value / reach, self.value * reach


def nelson_aalen(until: ArrayLike, cause: ArrayLike, *, since: ArrayLike = 0.0) -> Steps:
    """Cumulative rate of each cause: the sum of deaths over those at risk.

    The error is the root of the sum of deaths over the square of those at risk.

    References
    ----------
    Aalen (1978), Annals of Statistics 6.
    """
    times, at_risk, deaths = _counted(until, cause, since)
    value = np.cumsum(deaths / at_risk[:, None], axis=0)
    error = np.sqrt(np.cumsum(deaths / at_risk[:, None] ** 2, axis=0))
    return Steps(frozen(times), frozen(value), frozen(error), frozen(at_risk))


def aalen_johansen(until: ArrayLike, cause: ArrayLike, *, since: ArrayLike = 0.0) -> Steps:
    """Share of people whom each cause took first by each time, where the others compete.

    The sum of S(before) deaths/at risk, S the share that nothing took. One less Kaplan-Meier of a
    cause alone, with the others taken for ends of watch, would say too much. Errors by the delta
    method.

    References
    ----------
    Aalen and Johansen (1978), Scandinavian Journal of Statistics 5; Marubini and Valsecchi (1995),
    "Analysing survival data from clinical trials and observational studies", for the errors.
    """
    times, at_risk, deaths = _counted(until, cause, since)
    every = deaths.sum(axis=1)
    left = np.cumprod(1.0 - every / at_risk)
    weight = (np.r_[1.0, left[:-1]] / at_risk)[:, None]
    value = np.cumsum(weight * deaths, axis=0)
    spare = at_risk * (at_risk - every)
    green = np.divide(every, spare, out=np.zeros_like(every), where=spare > 0.0)[:, None]
    own = (at_risk[:, None] - deaths) * deaths / at_risk[:, None]
    cross = weight * deaths / at_risk[:, None]
    variance = (
        value**2 * np.cumsum(green, axis=0)
        - 2.0 * value * np.cumsum(value * green, axis=0)
        + np.cumsum(value**2 * green, axis=0)
        + np.cumsum(weight**2 * own, axis=0)
        - 2.0 * value * np.cumsum(cross, axis=0)
        + 2.0 * np.cumsum(value * cross, axis=0)
    )
    error = np.sqrt(np.maximum(variance, 0.0))
    return Steps(frozen(times), frozen(value), frozen(error), frozen(at_risk))


def _counted(
    until: ArrayLike, cause: ArrayLike, since: ArrayLike
) -> tuple[FloatColumn, FloatColumn, FloatMatrix]:
    """Times at which somebody was taken, how many were watched then, and how many each took."""
    ends, kinds = series("until", until, rows=1), series("cause", cause, rows=1)
    begins = np.broadcast_to(np.asarray(since, dtype=np.float64), len(ends))
    if len(kinds) != len(ends) or (kinds < 0.0).any() or (kinds != np.floor(kinds)).any():
        raise EstimationError(f"cause is not 0 or the number of a cause for {len(ends)} rows")
    if not (ends > begins).all():
        raise EstimationError("until is not after since in every row", hint="leave such rows out")
    if not (kinds > 0.0).any():
        raise EstimationError("no cause ever came", hint="there is nothing to add up")
    codes: NDArray[np.int64] = kinds.astype(np.int64)
    times = np.unique(ends[codes > 0])
    entered = np.searchsorted(np.sort(begins), times, side="left")
    gone = np.searchsorted(np.sort(ends), times, side="left")
    deaths = np.zeros((len(times), int(codes.max())))
    took = codes > 0
    np.add.at(deaths, (np.searchsorted(times, ends[took]), codes[took] - 1), 1.0)
    return times, (entered - gone).astype(np.float64), deaths
