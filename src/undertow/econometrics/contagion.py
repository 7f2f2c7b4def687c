"""Is a correlation that rose in a crisis more than the larger shocks explain?

A source market is hit; a target moves with it. When the source's shocks grow and the link stays
as it was, the correlation rises all the same: the target's own noise did not grow with them. What
is left after that is taken out may be called contagion; the rest is interdependence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.checks import FloatColumn, paired, within
from undertow.errors import EstimationError

_FLAT = 1e-12  # of a series' own size: less spread than this is rounding


class Decision(Enum):
    """What a one-sided test says."""

    CONTAGION = "contagion"  # more correlation than the larger shocks explain
    INTERDEPENDENCE = "interdependence"  # the same link, larger shocks: not rejected
    UNDECIDED = "undecided"  # no test could be made: a reason stands beside it


@dataclass(frozen=True, slots=True)
class ContagionTest:
    """A correlation in a calm time and in a crisis, with and without what shocks alone explain.

    Numbers that do not exist are NaN, and then `reason` is not empty.
    """

    rho_calm: float
    rho_crisis: float
    n_calm: int
    n_crisis: int
    delta: float  # variance of the source in the crisis over that in the calm, less one
    rho_adjusted: float  # the crisis correlation, brought back to calm shocks
    z_adjusted: float
    p_adjusted: float  # chance of so much, or more, were the link the same (one-sided)
    z_raw: float  # the same without the adjustment: biased towards contagion
    p_raw: float
    decision: Decision  # by the adjusted test
    raw_decision: Decision
    threshold: float  # least share of the source's own shocks that turns it into contagion
    reason: str  # empty where there is a test


@dataclass(frozen=True, slots=True)
class Interdependence:
    """The crisis correlation that an unchanged link would give, and whether it was passed."""

    expected: float  # the correlation that larger shocks alone would bring
    z: float
    p: float  # one-sided
    decision: Decision


def adjusted_correlation(rho_crisis: float, delta: float) -> float:
    """A correlation seen under larger shocks, as it would be under calm ones.

    rho / sqrt(1 + delta (1 - rho^2)), `delta` the relative increase in the source's variance
    (Forbes and Rigobon 2002, eq. 11). It assumes that the source is moved by nothing from the
    target, and that neither is moved by a third.
    """
    _check_rho("rho_crisis", rho_crisis)
    _check_delta(delta)
    return rho_crisis / math.sqrt(1.0 + delta * (1.0 - rho_crisis * rho_crisis))


def expected_correlation(
    rho_calm: float, delta: float, *, ratio_calm: float = 0.0, ratio_crisis: float | None = None
) -> float:
    """The crisis correlation that an unchanged link would give.

    The source is r = a + g f + e, with f the common factor and `ratio` = Var(e) / (g^2 Var(f)):
    how much of its variance is its own affair. With l and l' that ratio in the calm and in the
    crisis (the same unless given),

        rho m sqrt((1 + delta) / (1 + rho^2 (1 + l) ((1 + delta) m - 1))),  m = (1 + l)/(1 + l')

    At ratios of 0 this is the assumption of Forbes and Rigobon, and the highest: the more of the
    source's turmoil is its own, the less of it an unchanged link passes on.

    References
    ----------
    Corsetti, Pericoli and Sbracia (2005), J. Int. Money and Finance 24, eq. 5.
    """
    _check_rho("rho_calm", rho_calm)
    _check_delta(delta)
    after = ratio_calm if ratio_crisis is None else ratio_crisis
    if not (0.0 <= ratio_calm < math.inf and 0.0 <= after < math.inf):
        raise EstimationError(
            f"ratio_calm was {ratio_calm:g} and ratio_crisis {after:g}; both must be 0 or more"
        )
    square = rho_calm * rho_calm * (1.0 + ratio_calm)
    if square > 1.0 + 1e-12:
        raise EstimationError(
            f"ratio_calm was {ratio_calm:g}; a source of correlation {rho_calm:g} has at most "
            f"{1.0 / rho_calm**2 - 1.0:g}",
            hint="see `variance_ratio`",
        )
    swell = (1.0 + ratio_calm) / (1.0 + after)
    variance = 1.0 + square * ((1.0 + delta) * swell - 1.0)
    return rho_calm * swell * math.sqrt((1.0 + delta) / variance)


def variance_ratio(source: ArrayLike, factor: ArrayLike) -> float:
    """How much of a source's variance is its own: (1 - R^2)/R^2 on a common `factor`.

    Rows with a missing value are left out. Infinite where the factor explains nothing.

    Raises
    ------
    EstimationError
        When the lengths differ, fewer than three rows are left, or one of them is constant.
    """
    a, b = paired("source", source, "factor", factor)
    rho, reason = _correlation(a, b)
    if reason:
        raise EstimationError(f"source and factor have no ratio: {reason}")
    return (1.0 - rho * rho) / (rho * rho) if rho else math.inf


def forbes_rigobon(
    source_calm: ArrayLike,
    target_calm: ArrayLike,
    source_crisis: ArrayLike,
    target_crisis: ArrayLike,
    *,
    size: float = 0.05,
) -> ContagionTest:
    """Test whether a target moves with a source more than the source's larger shocks explain.

    Returns of both, in a calm time and in a crisis; variances divide by n - 1. Rows with a
    missing value are left out, in both series of that time. `size` is the chance of a false
    alarm that the decision is made at.

    It misleads towards *no* contagion when the source has turmoil of its own (Corsetti and
    others 2005: hence `threshold`), and either way when a third market moves both or the target
    moves the source; rows are taken as independent and normal; and a crisis picked because
    correlation was high finds what it was picked for.

    References
    ----------
    Forbes and Rigobon (2002), "No contagion, only interdependence", J. Finance 57.
    """
    calm = paired("source_calm", source_calm, "target_calm", target_calm)
    crisis = paired("source_crisis", source_crisis, "target_crisis", target_crisis)
    rho_calm, reason_calm = _correlation(*calm)
    rho_crisis, reason_crisis = _correlation(*crisis)
    if reason_calm or reason_crisis:
        said = [f"calm: {reason_calm}"] * bool(reason_calm)
        said += [f"crisis: {reason_crisis}"] * bool(reason_crisis)
        return _no_test(rho_calm, rho_crisis, len(calm[0]), len(crisis[0]), "; ".join(said))
    delta = float(crisis[0].var(ddof=1) / calm[0].var(ddof=1)) - 1.0
    return contagion_test(
        rho_calm, rho_crisis, delta, n_calm=len(calm[0]), n_crisis=len(crisis[0]), size=size
    )


def contagion_test(
    rho_calm: float,
    rho_crisis: float,
    delta: float,
    *,
    n_calm: int,
    n_crisis: int,
    size: float = 0.05,
) -> ContagionTest:
    """As `forbes_rigobon`, from published correlations instead of returns.

    z = (atanh(adjusted) - atanh(calm)) / sqrt(1/(n_calm - 3) + 1/(n_crisis - 3)), one-sided.
    """
    within("size", size, 0.0, 1.0)
    adjusted = adjusted_correlation(rho_crisis, delta)
    _check_rho("rho_calm", rho_calm)
    reason = _untestable(rho_calm, rho_crisis, n_calm, n_crisis)
    if reason:
        return _no_test(rho_calm, rho_crisis, n_calm, n_crisis, reason, delta, adjusted)
    z_adjusted, p_adjusted = fisher_test(adjusted, n_crisis, rho_calm, n_calm)
    z_raw, p_raw = fisher_test(rho_crisis, n_crisis, rho_calm, n_calm)
    return ContagionTest(
        rho_calm, rho_crisis, n_calm, n_crisis, delta, adjusted, z_adjusted, p_adjusted,
        z_raw, p_raw, _decide(p_adjusted, size), _decide(p_raw, size),
        _threshold(rho_calm, rho_crisis, delta, n_calm, n_crisis, size), "",
    )  # fmt: skip


def interdependence_test(
    rho_calm: float,
    rho_crisis: float,
    delta: float,
    *,
    n_calm: int,
    n_crisis: int,
    ratio_calm: float = 0.0,
    ratio_crisis: float | None = None,
    size: float = 0.05,
) -> Interdependence:
    """Test a crisis correlation against what an unchanged link would give, own shocks counted.

    The general form: at ratios of 0 it asks what Forbes and Rigobon ask, on the crisis' side
    (`expected_correlation` against the crisis, not the adjusted one against the calm).

    References
    ----------
    Corsetti, Pericoli and Sbracia (2005).
    """
    within("size", size, 0.0, 1.0)
    _check_rho("rho_crisis", rho_crisis)
    expected = expected_correlation(
        rho_calm, delta, ratio_calm=ratio_calm, ratio_crisis=ratio_crisis
    )
    if _untestable(expected, rho_crisis, n_calm, n_crisis):
        return Interdependence(expected, math.nan, math.nan, Decision.UNDECIDED)
    z, p = fisher_test(rho_crisis, n_crisis, expected, n_calm)
    return Interdependence(expected, z, p, _decide(p, size))


def fisher_test(rho: float, n: int, other: float, n_other: int) -> tuple[float, float]:
    """Z and one-sided p of `rho`, from `n` rows, being larger than `other` (Fisher 1921).

    Raises
    ------
    EstimationError
        When a correlation is not inside (-1, 1) or fewer than four rows stand behind it.
    """
    for name, value in (("rho", rho), ("other", other)):
        within(name, value, -1.0, 1.0)
    if min(n, n_other) < 4:
        raise EstimationError(f"n was {n} and n_other {n_other}; each must be 4 or more")
    z = (math.atanh(rho) - math.atanh(other)) / _spread(n, n_other)
    return z, float(special.ndtr(-z))


def _spread(n: int, n_other: int) -> float:
    return math.sqrt(1.0 / (n - 3) + 1.0 / (n_other - 3))


def _threshold(
    rho: float, rho_crisis: float, delta: float, n_calm: int, n_crisis: int, size: float
) -> float:
    """The ratio, the same in both times, from which `interdependence_test` says contagion.

    0 where it says so at any ratio; infinite where it does at none. A source can have 1/rho^2 - 1
    at most, so a larger threshold is never reached either.
    """
    reach = float(special.ndtri(1.0 - size)) * _spread(n_crisis, n_calm)
    bound = math.tanh(math.atanh(rho_crisis) - reach)  # reject where expected is below
    if bound > expected_correlation(rho, delta):
        return 0.0
    if rho <= 0.0 or delta <= 0.0 or bound <= 0.0:
        return math.inf
    return (rho * rho * (1.0 + delta) / (bound * bound) - 1.0) / (rho * rho * delta) - 1.0


def _decide(p: float, size: float) -> Decision:
    return Decision.CONTAGION if p < size else Decision.INTERDEPENDENCE


def _correlation(a: FloatColumn, b: FloatColumn) -> tuple[float, str]:
    if len(a) < 3:
        return math.nan, f"{len(a)} rows in common, 3 are needed"
    for name, x in (("source", a), ("other", b)):
        if float(np.ptp(x)) <= _FLAT * float(np.abs(x).max()):
            return math.nan, f"the {name} is constant"
    u, v = a - a.mean(), b - b.mean()
    rho = float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))
    return min(max(rho, -1.0), 1.0), ""


def _untestable(rho: float, other: float, n_calm: int, n_crisis: int) -> str:
    if min(n_calm, n_crisis) < 4:
        return f"{n_calm} calm and {n_crisis} crisis rows; each must be 4 or more"
    if max(abs(rho), abs(other)) >= 1.0 - 1e-15:
        return "a correlation of one has no error to test with: the series are the same"
    return ""


def _no_test(
    rho_calm: float, rho_crisis: float, n_calm: int, n_crisis: int, reason: str,
    delta: float = math.nan, adjusted: float = math.nan,
) -> ContagionTest:  # fmt: skip
    none = math.nan
    return ContagionTest(
        rho_calm, rho_crisis, n_calm, n_crisis, delta, adjusted, none, none, none, none,
        Decision.UNDECIDED, Decision.UNDECIDED, none, reason,
    )  # fmt: skip


def _check_rho(name: str, rho: float) -> None:
    within(name, rho, -1.0, 1.0, closed=True)


def _check_delta(delta: float) -> None:
    if not -1.0 < delta < math.inf:
        raise EstimationError(
            f"delta was {delta:g}; a variance ratio less one is above -1",
            hint="give var(crisis)/var(calm) - 1 of the source",
        )
