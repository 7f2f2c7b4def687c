"""Connectedness: how much of each series' uncertainty comes from shocks to the others.

A forecast of series i over `horizon` steps misses by what shocks do to it meanwhile. Row i of the
table shares the variance of that miss out over the series whose shocks it came from: every row
adds up to 1, `table[i, j]` is what j gives to i.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.linalg import lapack

from undertow.econometrics.autoregression import (
    Autoregression,
    FloatStack,
    autoregression,
    respond,
    stack,
)
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    Verdict,
    frozen,
    matrix,
    screen,
)
from undertow.econometrics.equations import LEAST_SQUARES, Estimator, refuse_short
from undertow.errors import EstimationError

TOO_FEW = "fewer than two series can be used"
UNFOUNDED = "the covariance of shocks is singular: no Cholesky factor"


class Scheme(StrEnum):
    """How correlated shocks are told apart.

    `generalised`: each shock comes with what usually comes with it, whatever the order of columns
    (Koop, Pesaran and Potter 1996; Pesaran and Shin 1998); shares do not add up to 1 by
    themselves, so rows are normalised. `cholesky`: earlier columns move later ones at once, never
    the other way, so the order of columns is an assumption.
    """

    GENERALISED = "generalised"
    CHOLESKY = "cholesky"


@dataclass(frozen=True, slots=True, eq=False)
class Connectedness:
    """Who gives uncertainty to whom, as fractions.

    Series that cannot be used have a reason in `left_out` and NaN in every array. With a `status`
    all numbers are NaN. `total` cannot exceed (k - 1) / k for k series, so compare panels of
    different size by `corrected`; in short windows both are biased upward, so hold them against
    `connectedness_null`.
    """

    table: FloatMatrix  # (N, N): [i, j] from j to i
    to: FloatColumn  # (N,): what j gives to all others: may exceed 1
    from_: FloatColumn  # (N,): what i takes from all others
    net: FloatColumn  # (N,): to - from_
    pairwise: FloatMatrix  # (N, N): table[i, j] - table[j, i]; positive where j gives more to i
    transmissions: FloatColumn  # (N,): to how many others it gives more than it takes
    total: float  # mean of from_
    corrected: float  # total * k / (k - 1)
    root: float  # of the autoregression
    left_out: tuple[str, ...]  # (N,): empty where used
    status: str

    @property
    def used(self) -> BoolColumn:
        """Which series stand in the table."""
        return np.array([not reason for reason in self.left_out], dtype=np.bool_)


def decomposition(
    coefficients: FloatStack,
    covariance: FloatMatrix,
    horizon: int = 10,
    scheme: Scheme = Scheme.GENERALISED,
    *,
    normalise: bool = True,
) -> FloatMatrix:
    """Forecast-error variance shares of an autoregression, row i for the variance of series i.

        theta[i, j] = sum over h < horizon of (A_h S)[i, j]^2 / S[j, j]
                      / sum over h < horizon of (A_h S A_h')[i, i]

    in the generalised scheme, each row then divided by its sum unless `normalise` is off; with a
    Cholesky factor P, (A_h P)[i, j]^2 over the same sum.

    Raises
    ------
    EstimationError
        When shapes disagree, a variance is not positive, or shocks grow past all numbers.

    References
    ----------
    Diebold and Yilmaz 2009, 2012, 2014; Pesaran and Shin 1998.
    """
    _horizon(horizon)
    series = len(covariance)
    if coefficients.shape[1:] != (series, series) or covariance.shape != (series, series):
        raise EstimationError(
            f"coefficients have shape {coefficients.shape} and covariance {covariance.shape}",
            hint="give (lags, N, N) and (N, N)",
        )
    if not (np.diag(covariance) > 0.0).all():
        raise EstimationError("covariance has a variance that is not positive")
    stacked = stack(coefficients)
    with np.errstate(over="ignore", invalid="ignore"):  # judged by what comes out
        shares = variance_shares(stacked, covariance, horizon, scheme)
        if not normalise and scheme is Scheme.GENERALISED:
            shares = shares * _explained(stacked, covariance, horizon)[:, None]
    if not np.isfinite(shares).all():
        raise EstimationError(
            "coefficients and covariance give no finite decomposition",
            hint="the largest root must be below 1, and Cholesky needs a covariance of full rank",
        )
    return shares


def variance_shares(
    stacked: FloatMatrix, covariance: FloatMatrix, horizon: int, scheme: Scheme
) -> FloatMatrix:
    """Normalised shares of a stacked autoregression; NaN where the covariance has no factor.

    The common variance of a row drops out when the row is normalised, so the generalised scheme
    needs the responses to the columns of the covariance and nothing else.
    """
    if scheme is Scheme.CHOLESKY:
        shocks, failed = lapack.dpotrf(covariance, lower=1, clean=1)
        if failed:
            return np.full_like(covariance, np.nan)
        squares = np.square(respond(stacked, shocks, horizon)).sum(axis=0)
    else:
        squares = np.square(respond(stacked, covariance, horizon)).sum(axis=0)
        squares /= np.diag(covariance)
    shares: FloatMatrix = squares / squares.sum(axis=1, keepdims=True)
    return shares


def _explained(stacked: FloatMatrix, covariance: FloatMatrix, horizon: int) -> FloatColumn:
    """What the generalised shares of each row add up to before they are normalised."""
    moved = respond(stacked, np.eye(len(covariance)), horizon)
    whole = np.einsum("hij,jk,hik->i", moved, covariance, moved)
    parts = np.square(moved @ covariance) / np.diag(covariance)
    told: FloatColumn = parts.sum(axis=(0, 2)) / whole
    return told


def connectedness(
    x: Any,
    lags: int = 1,
    horizon: int = 10,
    *,
    estimator: Estimator = LEAST_SQUARES,
    scheme: Scheme = Scheme.GENERALISED,
) -> Connectedness:
    """Connectedness over all rows of `x`, by an autoregression of `lags` and shares at `horizon`.

    Past about 15 series, or with fewer than some five rows a coefficient of one equation, give a
    regularised `estimator`. Series with gaps, constant ones and copies are left out, with a
    reason. An autoregression that is not stationary has no table: its shares describe the
    horizon and nothing else.

    Raises
    ------
    EstimationError
        When there are too few rows for the estimator and the series that can be used.

    References
    ----------
    Diebold and Yilmaz 2012, International Journal of Forecasting; 2014, Journal of Econometrics.
    """
    _horizon(horizon)
    verdict = complete_series(x, lags)
    given = matrix("x", x, missing=True)[:, verdict.keep]
    if given.shape[1] < 2:
        return unread(verdict.reasons, TOO_FEW)
    refuse_short("x", len(given), given.shape[1], lags, estimator)
    fit = autoregression(given, lags, estimator)
    return read_fit(fit, horizon, scheme, verdict.reasons)


def complete_series(x: Any, lags: int) -> Verdict:
    """Which columns have every row and something to say."""
    return screen(x, least=lags + 2, gaps=0.0, late=0.0)


def read_fit(
    fit: Autoregression, horizon: int, scheme: Scheme, left_out: tuple[str, ...]
) -> Connectedness:
    """The connectedness of a fit to the series that were not left out."""
    if fit.status:
        return unread(left_out, fit.status, fit.root)
    shares = variance_shares(fit.stacked, fit.covariance, horizon, scheme)
    if np.isnan(shares).any():
        return unread(left_out, UNFOUNDED, fit.root)
    table = np.full((len(left_out), len(left_out)), np.nan)
    kept = np.array([not reason for reason in left_out])
    table[np.ix_(kept, kept)] = shares
    to, from_, total, corrected = summary(shares)
    wide = np.full((3, len(left_out)), np.nan)
    pairwise = table - table.T
    wide[:, kept] = to, from_, (shares > shares.T).sum(axis=0)
    return Connectedness(
        table=frozen(table),
        to=frozen(wide[0].copy()),
        from_=frozen(wide[1].copy()),
        net=frozen(wide[0] - wide[1]),
        pairwise=frozen(pairwise),
        transmissions=frozen(wide[2].copy()),
        total=total,
        corrected=corrected,
        root=fit.root,
        left_out=left_out,
        status="",
    )


def summary(shares: FloatMatrix) -> tuple[FloatColumn, FloatColumn, float, float]:
    """To, from, total and corrected total of a table without gaps."""
    own = np.diag(shares)
    to, from_ = shares.sum(axis=0) - own, shares.sum(axis=1) - own
    total = float(from_.mean())
    return to, from_, total, total * len(own) / (len(own) - 1)


def unread(left_out: tuple[str, ...], status: str, root: float = float("nan")) -> Connectedness:
    """A connectedness that does not exist, and why."""
    series = len(left_out)
    square, row = frozen(np.full((series, series), np.nan)), frozen(np.full(series, np.nan))
    nothing = float("nan")
    return Connectedness(
        square, row, row, row, square, row, nothing, nothing, root, left_out, status
    )


def _horizon(horizon: int) -> None:
    if horizon < 1:
        raise EstimationError(f"horizon was {horizon}; a forecast looks at least 1 step ahead")
