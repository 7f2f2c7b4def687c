"""Exceedances, symmetry, tails by rank and coexceedances, against laws whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from shared import near
from undertow.econometrics import exceedances, tails
from undertow.econometrics.exceedances import Side
from undertow.errors import EstimationError


def _normal(rng: np.random.Generator, rows: int, rho: float) -> np.ndarray:
    return rng.standard_normal((rows, 2)) @ np.linalg.cholesky([[1.0, rho], [rho, 1.0]]).T


def _student(rng: np.random.Generator, rows: int, rho: float, degrees: float) -> np.ndarray:
    return _normal(rng, rows, rho) / np.sqrt(rng.chisquare(degrees, (rows, 1)) / degrees)


def _clayton(rng: np.random.Generator, rows: int, theta: float) -> np.ndarray:
    """Normal margins, dependence in joint falls only (lower tail dependence 2^(-1/theta))."""
    gamma = rng.gamma(1.0 / theta, size=(rows, 1))
    uniform = (1.0 + rng.exponential(size=(rows, 2)) / gamma) ** (-1.0 / theta)
    return stats.norm.ppf(uniform)


def test_the_exceedance_correlation_is_that_of_the_chosen_rows() -> None:
    x, y = _student(np.random.default_rng(1), 800, 0.5, 4).T
    u, v = (x - x.mean()) / x.std(ddof=1), (y - y.mean()) / y.std(ddof=1)
    cuts = (0.0, 0.7, 1.2)
    low = exceedances.exceedance_correlation(x, y, cuts)
    high = exceedances.exceedance_correlation(x, y, cuts, side="upper")
    for i, cut in enumerate(cuts):
        for found, sign in ((low, -1.0), (high, 1.0)):
            inside = (sign * u > cut) & (sign * v > cut)
            near(found.rho[i], np.corrcoef(x[inside], y[inside])[0, 1], rel=1e-10)
            assert found.counts[i] == inside.sum()
            assert found.low[i] < found.rho[i] < found.high[i]
    assert low.side is Side.LOWER
    assert high.side is Side.UPPER


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("cut", [-0.5, 0.0, 1.0, 2.5])
def test_the_normal_benchmark_has_the_moments_of_rosenbaum(rho: float, cut: float) -> None:
    # closed forms of Rosenbaum (1961) for the moments of a truncated bivariate normal
    s = math.sqrt(1.0 - rho * rho)
    beyond = stats.norm.sf((cut - rho * cut) / s)
    edge = stats.norm.pdf(cut)
    angle, _ = integrate.quad(
        lambda a: math.exp(-cut * cut / (1.0 + math.sin(a))), 0.0, math.asin(rho), epsabs=1e-14
    )
    mass = stats.norm.sf(cut) ** 2 + angle / (2.0 * math.pi)
    corner = s / math.sqrt(2.0 * math.pi) * stats.norm.pdf(math.sqrt(2.0 * cut**2 / (1.0 + rho)))
    first = edge * beyond * (1.0 + rho) / mass
    square = 1.0 + (cut * edge * beyond * (1.0 + rho * rho) + rho * corner) / mass
    cross = rho + (2.0 * rho * cut * edge * beyond + corner) / mass
    got = exceedances.normal_exceedance(rho, cut)
    near(got.probability, mass, rel=1e-9)
    wanted = (cross - first**2) / (square - first**2)
    near(got.correlation, wanted, unit=1e-8 / max(square - first**2, 1e-3))


def test_the_normal_benchmark_fades_as_the_threshold_grows() -> None:
    got = [exceedances.normal_exceedance(0.8, c).correlation for c in (0, 1, 2, 4, 8)]
    assert (np.diff(got) < 0.0).all()
    assert exceedances.normal_exceedance(1.0, 2.0).correlation == 1.0
    none = exceedances.normal_exceedance(-1.0, 0.5)
    assert none.probability == 0.0
    assert math.isnan(none.correlation)
    assert "never" in none.reason
    assert exceedances.normal_exceedance(-0.9, 30.0).reason


def test_bands_of_exceedance_correlations_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    truth = np.array([exceedances.normal_exceedance(0.5, c).correlation for c in (0.0, 1.0)])
    held = np.zeros(2)
    for _ in range(200):
        found = exceedances.exceedance_correlation(*_normal(rng, 1500, 0.5).T, (0.0, 1.0))
        held += (found.low < truth) & (truth < found.high)
    assert (held / 200 > 0.83).all()
    assert (held / 200 < 0.96).all()


def test_too_few_joint_exceedances_are_an_outcome_with_their_count() -> None:
    x, y = _normal(np.random.default_rng(2), 300, 0.2).T
    found = exceedances.exceedance_correlation(x, y, (0.0, 3.0))
    assert found.reasons[0] == ""
    assert found.reasons[1].endswith("joint exceedances, 5 are needed")
    assert math.isnan(found.rho[1])
    test = exceedances.symmetry_test(x, y, (0.0, 3.0))
    assert test.reason.startswith("falls beyond 3")
    assert math.isnan(test.p)


def test_a_constant_a_short_and_a_copied_series_are_outcomes() -> None:
    x = np.random.default_rng(2).standard_normal(200)
    flat = exceedances.exceedance_correlation(x, np.ones(200), 0.5)
    assert flat.reasons == ("y is constant",)
    assert exceedances.symmetry_test(np.ones(200), x).reason == "x is constant"
    assert "4 are needed" in exceedances.exceedance_correlation(x[:3], x[:3], 0.5).reasons[0]
    copy = exceedances.exceedance_correlation(x, 2.0 * x, 0.5)
    near(copy.rho[0], 1.0)
    assert math.isnan(copy.low[0])  # a perfect line has no error


def test_missing_rows_are_left_out_of_pairs() -> None:
    x, y = _normal(np.random.default_rng(3), 400, 0.5).T
    a, b = x.copy(), y.copy()
    a[:30], b[100:120] = np.nan, np.nan
    keep = ~(np.isnan(a) | np.isnan(b))
    whole = exceedances.exceedance_correlation(x[keep], y[keep], 0.5)
    gappy = exceedances.exceedance_correlation(a, b, 0.5)
    assert (gappy.rho, gappy.rows) == (whole.rho, 350)


def test_symmetry_is_rarely_called_asymmetry_and_asymmetry_is_found() -> None:
    rng = np.random.default_rng(9)
    cuts = (0.0, 0.5, 1.0)
    even = [exceedances.symmetry_test(*_student(rng, 1000, 0.5, 6).T, cuts).p for _ in range(150)]
    odd = [exceedances.symmetry_test(*_clayton(rng, 1000, 1.0).T, cuts).p for _ in range(60)]
    assert np.mean(np.array(even) < 0.05) < 0.09
    assert np.mean(np.array(odd) < 0.05) > 0.8


def test_the_symmetry_statistic_is_the_paper_s_written_out() -> None:
    x, y = _student(np.random.default_rng(6), 600, 0.4, 5).T
    u, v = (x - x.mean()) / x.std(ddof=1), (y - y.mean()) / y.std(ddof=1)
    cuts, lags, rows = (0.0, 0.8), 3, 600
    gap, xi = [], []
    for cut in cuts:
        parts = []
        for inside in ((u > cut) & (v > cut), (u < -cut) & (v < -cut)):
            a, b = u[inside], v[inside]
            rho = np.corrcoef(a, b)[0, 1]
            z = (u - a.mean()) / a.std() * (v - b.mean()) / b.std() - rho
            parts.append((rho, rows / inside.sum() * z * inside))
        gap.append(parts[0][0] - parts[1][0])
        xi.append(parts[0][1] - parts[1][1])
    moves = np.array(xi)
    omega = moves @ moves.T / rows
    for lag in range(1, lags + 1):
        product = moves[:, lag:] @ moves[:, :-lag].T / rows
        omega += (1.0 - lag / (lags + 1.0)) * (product + product.T)
    wanted = rows * np.array(gap) @ np.linalg.inv(omega) @ np.array(gap)
    got = exceedances.symmetry_test(x, y, cuts, lags=lags)
    near(got.statistic, wanted, rel=1e-9)
    near(got.p, stats.chi2.sf(wanted, 2), rel=1e-9)


def test_thresholds_that_pick_the_same_rows_have_no_test() -> None:
    x, y = _normal(np.random.default_rng(6), 300, 0.4).T
    assert "same rows" in exceedances.symmetry_test(x, y, (0.5, 0.5)).reason


def test_tail_dependence_counts_ranks_and_forgets_margins() -> None:
    x, y = _student(np.random.default_rng(7), 1000, 0.5, 3).T
    found = tails.tail_dependence(x, y, 0.05, rng=np.random.default_rng(1), reps=99)
    ranks = stats.rankdata(x), stats.rankdata(y)
    assert found.lower == np.sum((ranks[0] <= 50) & (ranks[1] <= 50)) / 50
    assert found.upper == np.sum((ranks[0] > 950) & (ranks[1] > 950)) / 50
    bent = tails.tail_dependence(np.exp(x), y**3, 0.05, rng=np.random.default_rng(1), reps=99)
    assert (bent.lower, bent.upper) == (found.lower, found.upper)
    assert found.lower_band[0] < found.lower < found.lower_band[1]
    assert found.lower > found.normal


def test_bands_of_tail_dependence_hold_the_truth_and_tell_the_sides_apart() -> None:
    rng = np.random.default_rng(12)
    u, theta = 0.05, 1.0
    lower = (2.0 * u**-theta - 1.0) ** (-1.0 / theta) / u  # Clayton's C(u, u)/u
    upper = (2.0 * u - 1.0 + (2.0 * (1.0 - u) ** -theta - 1.0) ** (-1.0 / theta)) / u
    held = np.zeros(2)
    for _ in range(100):
        found = tails.tail_dependence(*_clayton(rng, 1000, theta).T, u, rng=rng, reps=99, block=1.0)
        held += [found.lower_band[0] <= lower <= found.lower_band[1],
                 found.upper_band[0] <= upper <= found.upper_band[1]]  # fmt: skip
    assert (held >= 78).all()
    assert lower > upper


def test_no_joint_tail_day_leaves_the_doubt_of_so_few_days() -> None:
    x = np.linspace(-1.0, 1.0, 400)
    found = tails.tail_dependence(x, -x, 0.05, rng=np.random.default_rng(0), reps=50)
    assert (found.lower, found.lower_count, found.tail_rows) == (0.0, 0, 20)
    near(found.lower_band[1], 1.0 - 0.05 ** (1 / 20))
    same = tails.tail_dependence(x, x, 0.05, rng=np.random.default_rng(0), reps=50)
    assert (same.lower, same.normal) == (1.0, pytest.approx(1.0))
    near(same.lower_band[0], 0.05 ** (1 / 20))


def test_tails_without_points_are_outcomes() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(200)
    tied = np.where(x < 0.0, 0.0, x)
    found = tails.tail_dependence(x, tied, 0.05, rng=rng, reps=9)
    assert "values of y tie as the lowest 10" in found.reason
    assert math.isnan(found.lower)
    short = tails.tail_dependence(x[:40], x[:40], 0.05, rng=rng, reps=9)
    assert short.reason.startswith("2 tail rows of 40")
    assert tails.tail_dependence(x, np.ones(200), rng=rng, reps=9).reason == "y is constant"


def _clustered(rng: np.random.Generator, rows: int, columns: int, shared: float) -> np.ndarray:
    noise = rng.standard_normal((rows, columns))
    for t in range(1, rows):
        noise[t] += 0.5 * noise[t - 1]
    return noise + shared * rng.standard_normal((rows, 1))


def test_coexceedances_count_and_independence_passes() -> None:
    rng = np.random.default_rng(21)
    rejected = 0
    for _ in range(40):
        x = _clustered(rng, 300, 6, 0.0)
        found = tails.coexceedances(x, 0.1, rng=rng, reps=99)
        below = x < np.quantile(x, 0.1, axis=0)
        assert (found.counts == below.sum(axis=1)).all()
        assert found.at_least[3] == (below.sum(axis=1) >= 3).sum()
        rejected += found.p[3] <= 0.05
    assert rejected <= 6


def test_series_that_are_loud_together_fall_together_by_chance_and_tied_ones_do_not() -> None:
    """Four times as loud for sixty rows of all: shifts in time called each of these a tie."""
    p = {0.0: [], 0.3: []}
    for seed in range(20):
        rng = np.random.default_rng([seed, 24])
        own, common = rng.standard_normal((600, 8)), rng.standard_normal((600, 1))
        for rho, found in p.items():
            x = np.sqrt(rho) * common + np.sqrt(1.0 - rho) * own
            x[200:260] *= 4.0
            found.append(tails.coexceedances(x, 0.05, rng=rng, reps=39).p[5])
    assert (np.array(p[0.0]) <= 0.05).sum() <= 4  # more has a chance of 0.3 %
    assert (np.array(p[0.3]) <= 0.05).sum() >= 14


def test_a_common_shock_is_more_than_chance_and_raises_the_alarm() -> None:
    rng = np.random.default_rng(22)
    x = _clustered(rng, 400, 8, 0.0)
    x[200] -= 8.0
    found = tails.coexceedances(x, 0.05, rng=rng, reps=199)
    assert found.counts[200] == 8
    assert found.alarm <= 8
    assert found.p[8] <= 0.02  # one time in 256 all eight go the same way by luck
    rises = tails.coexceedances(-x, 0.05, rng=rng, reps=49, side="upper")
    assert (rises.counts == found.counts).all()


def test_coexceedances_say_which_series_they_could_not_use() -> None:
    rng = np.random.default_rng(23)
    x = np.column_stack([rng.standard_normal((300, 3)), np.zeros(300), np.zeros(300)])
    x[:, 4] = np.where(rng.random(300) < 0.9, 0.0, 1.0)  # ties: nothing below
    late = rng.standard_normal(300)
    late[:200] = np.nan
    x = np.column_stack([x, late, x[:, 0]])
    x[:7, 1] = np.nan
    found = tails.coexceedances(x, 0.05, rng=rng, reps=49)
    said = found.verdict.dropped()
    assert set(said) == {3, 4, 5, 6}
    assert said[3] == "constant"
    assert "ties" in said[4]
    assert said[5].startswith("starts late")
    assert said[6] == "a copy of column 0"
    assert found.seen.tolist() == [2] * 7 + [3] * 293
    none = tails.coexceedances(x[:, 2:4], 0.05, rng=rng, reps=9)
    assert none.reason == "1 of 2 series can be used; 2 are needed"
    assert np.isnan(none.p).all()


def test_misuse_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(50)
    with pytest.raises(EstimationError, match="side was 'both'"):
        exceedances.exceedance_correlation(x, x, 0.5, side="both")
    with pytest.raises(EstimationError, match="x has 50 rows and y 49"):
        tails.tail_dependence(x, x[:49], rng=rng)
    with pytest.raises(EstimationError, match=r"u was 0\.7"):
        tails.tail_dependence(x, x, 0.7, rng=rng)
    with pytest.raises(EstimationError, match="rho was 2"):
        exceedances.normal_exceedance(2.0, 0.0)
    with pytest.raises(EstimationError, match="threshold was inf"):
        exceedances.normal_exceedance(0.5, math.inf)
    with pytest.raises(EstimationError, match="least was 2"):
        exceedances.exceedance_correlation(x, x, 0.5, least=2)


def test_fits_are_closed_to_writing() -> None:
    x, y = _normal(np.random.default_rng(1), 200, 0.5).T
    found = exceedances.exceedance_correlation(x, y, (0.0, 0.5))
    for array in (found.thresholds, found.rho, found.low, found.high, found.counts, found.normal):
        assert not array.flags.writeable
