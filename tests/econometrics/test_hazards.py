"""Rates of competing acts: worked by hand, against statsmodels, and planted ones found again."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize

from undertow.econometrics.hazards import HazardFit, hazards
from undertow.errors import EstimationError

TINY = 1e-9  # a ridge that holds nothing back


def spans(
    rng: np.random.Generator, owners: int, each: int, slopes: np.ndarray, *, shared: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spans of planted rates: columns, outcome, length and owner."""
    rows = owners * each
    owner = np.repeat(np.arange(owners), each)
    own = rng.standard_normal((owners, slopes.shape[1] - 1))[owner]
    x = own + rng.standard_normal((rows, slopes.shape[1] - 1))
    length = rng.uniform(0.5, 2.0, rows)
    lift = shared * rng.standard_normal(owners)[owner] - 0.5 * shared**2
    rates = np.exp(slopes[:, 0] + x @ slopes[:, 1:].T + lift[:, None])
    first = rng.exponential(1.0 / rates)
    came = first.min(axis=1) < length
    return x, np.where(came, first.argmin(axis=1) + 1, 0), length, owner


def test_without_columns_rates_are_those_of_a_pencil() -> None:
    """10 spans of 2: 3 end in the first cause, 1 in the second, so exp(-2 R) = 6/10."""
    outcome = [1, 1, 1, 2, 0, 0, 0, 0, 0, 0]
    fit = hazards(np.empty((10, 0)), outcome, span=2.0)
    total = -math.log(0.6) / 2.0
    assert fit.rates(np.empty((1, 0)))[0] == pytest.approx([0.75 * total, 0.25 * total])
    assert fit.chances(np.empty((1, 0)), 2.0)[0] == pytest.approx([0.3, 0.1])
    assert fit.status == ""
    assert (fit.events.tolist(), fit.rows, fit.exposure) == ([3, 1], 10, 20.0)
    one = hazards(np.empty((10, 0)), np.minimum(outcome, 1), span=2.0)
    # p = 1 - exp(-2 r), so the error of log r is sqrt(p / (1 - p) / n) / (2 r)
    assert one.error[0, 0] == pytest.approx(math.sqrt(0.4 / 0.6 / 10.0) / (2.0 * total))


def test_incidence_adds_what_is_left_up_by_hand() -> None:
    fit = hazards(np.empty((10, 0)), [1, 1, 1, 2, 0, 0, 0, 0, 0, 0], span=2.0)
    found = fit.incidence(np.empty((3, 0)), 2.0)
    assert found.value[:, 0] == pytest.approx([0.3, 0.3 * 1.6, 0.3 * 1.96])
    assert found.value[:, 1] == pytest.approx([0.1, 0.1 * 1.6, 0.1 * 1.96])
    assert ((found.low < found.value) & (found.value < found.high)).all()


def test_one_cause_is_the_cloglog_regression_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    x, outcome, length, _ = spans(rng, 40, 10, np.array([[-1.5, 0.8, -0.4]]))
    fit = hazards(x, outcome, span=length, ridge=TINY)
    law = sm.families.Binomial(link=sm.families.links.CLogLog())
    scaled = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    other = sm.GLM(outcome, scaled, family=law, offset=np.log(length)).fit(tol=1e-12)
    assert fit.coefficients[0] == pytest.approx(other.params, abs=1e-6)
    # ours is the expected information; theirs too, by default
    assert fit.error[0] == pytest.approx(other.bse, rel=1e-5)


def test_two_causes_reach_the_height_that_an_independent_climb_reaches() -> None:
    rng = np.random.default_rng(5)
    x, outcome, length, _ = spans(rng, 50, 8, np.array([[-2.0, 0.9, 0.0], [-1.0, -0.5, 0.3]]))
    z = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])

    def lost(flat: np.ndarray) -> float:
        r = np.exp(z @ flat.reshape(2, 3).T)
        total = r.sum(axis=1)
        chance = np.column_stack([np.exp(-total * length), *(
            (r / total[:, None] * -np.expm1(-total * length)[:, None]).T
        )])  # fmt: skip
        seen = chance[np.arange(len(z)), outcome]
        return float(
            -np.log(np.maximum(seen, 1e-300)).sum()
            + 0.5 * 2.0 * (flat.reshape(2, 3)[:, 1:] ** 2).sum()
        )

    best = minimize(lost, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
    fit = hazards(x, outcome, span=length, ridge=2.0)
    assert fit.status == ""
    assert fit.coefficients.ravel() == pytest.approx(best.x, abs=2e-4)
    assert lost(fit.coefficients.ravel()) <= best.fun + 1e-9


def test_short_spans_give_the_slope_of_a_proportional_hazards_regression() -> None:
    """Watched in slices so thin that only their order counts, Cox's partial likelihood agrees."""
    rng = np.random.default_rng(11)
    z = rng.standard_normal(400)
    time = rng.exponential(1.0 / (0.5 * np.exp(0.7 * z)))
    until, died = np.minimum(time, 2.0), time < 2.0
    slices = np.arange(0.0, 2.0, 0.05)
    at = until[:, None] > slices
    ends = died[:, None] & at & (until[:, None] <= slices + 0.05)
    who, _ = np.nonzero(at)
    fit = hazards(z[who, None], ends[at], span=0.05, ridge=TINY)
    cox = sm.PHReg(until, z[:, None], status=died, ties="breslow").fit()
    assert fit.coefficients[0, 1] / fit.spread[0] == pytest.approx(cox.params[0], abs=0.03)
    assert fit.error[0, 1] / fit.spread[0] == pytest.approx(cox.bse[0], rel=0.05)


def test_errors_of_clusters_are_those_of_leaving_each_out() -> None:
    rng = np.random.default_rng(7)
    x, outcome, length, owner = spans(rng, 25, 12, np.array([[-1.5, 0.6], [-2.0, 0.0]]), shared=1.5)
    fit = hazards(x, outcome, span=length, cluster=owner)
    moved = []
    for o in range(25):
        rest = owner != o
        again = hazards(x[rest], outcome[rest], span=length[rest], causes=2)
        slope = again.coefficients[:, 1] / again.spread[0]
        moved.append(slope - fit.coefficients[:, 1] / fit.spread[0])
    by_hand = np.sqrt(24.0 / 25.0 * (np.array(moved) ** 2).sum(axis=0))
    assert fit.error[:, 1] / fit.spread[0] == pytest.approx(by_hand, rel=0.1)
    alone = hazards(x, outcome, span=length)
    assert fit.error[0, 0] > 1.2 * alone.error[0, 0]  # owners differ: not every row is news


def test_neither_the_order_of_rows_nor_the_scale_of_columns_matters() -> None:
    rng = np.random.default_rng(9)
    x, outcome, length, owner = spans(rng, 30, 6, np.array([[-1.2, 0.5, 0.2]]))
    fit = hazards(x, outcome, span=length, cluster=owner)
    order = rng.permutation(len(x))
    again = hazards(
        x[order] * [10.0, 0.1] + 3.0, outcome[order], span=length[order], cluster=owner[order]
    )
    assert again.rates(x * [10.0, 0.1] + 3.0) == pytest.approx(fit.rates(x), rel=1e-9)
    assert again.covariance == pytest.approx(fit.covariance, rel=1e-6, abs=1e-12)
    days = hazards(x, outcome, span=length * 24.0, cluster=owner)
    assert days.rates(x) * 24.0 == pytest.approx(fit.rates(x), rel=1e-6)


def test_a_column_that_parts_the_events_gives_finite_rates() -> None:
    x = np.linspace(-1.0, 1.0, 60)[:, None]
    fit = hazards(x, x[:, 0] > 0.9)
    low, high = fit.band(x)
    assert np.isfinite(high).all()
    assert (low > 0.0).all()
    assert fit.rates([[1.0]])[0, 0] > 5.0 * fit.rates([[-1.0]])[0, 0]


def test_a_cause_that_never_came_has_a_rate_of_0_and_a_band_that_says_how_long_was_watched() -> (
    None
):
    rng = np.random.default_rng(2)
    x, outcome, length, owner = spans(rng, 20, 5, np.array([[-1.0, 0.5]]))
    fit = hazards(x, outcome, span=length, causes=2, cluster=owner)
    assert fit.status == "cause 2 never came"
    assert (fit.rates(x)[:, 1] == 0.0).all()
    low, high = fit.band(x, 0.9)
    assert (low[:, 1] == 0.0).all()
    assert high[:, 1] == pytest.approx(-math.log(0.05) / length.sum())
    grown = fit.incidence(x[:4], 1.0)
    assert (grown.value[:, 1] == 0.0).all()
    assert (grown.high[:, 1] > 0.0).all()


def covered(fit: HazardFit, slopes: np.ndarray, at: np.ndarray, level: float) -> np.ndarray:
    """Whether the bands at some columns hold the planted rates."""
    true = np.exp(slopes[:, 0] + at @ slopes[:, 1:].T)
    low, high = fit.band(at, level)
    return (low <= true) & (true <= high)


def test_bands_hold_planted_rates_about_as_often_as_they_say() -> None:
    slopes, at = np.array([[-2.0, 0.7], [-2.5, -0.4]]), np.array([[-1.0], [0.0], [1.5]])
    seen = []
    for seed in range(60):
        rng = np.random.default_rng([13, seed])
        x, outcome, length, owner = spans(rng, 60, 5, slopes)
        fit = hazards(x, outcome, span=length, cluster=owner, causes=2)
        seen.append(covered(fit, slopes, at, 0.9))
    share = np.mean(seen)
    assert 0.84 <= share <= 0.96


@pytest.mark.slow
def test_how_often_bands_hold_the_truth_by_owners_and_events() -> None:
    """The table of `docs/methods/owner-behaviour.md`: 90 % bands of a rate, and of an incidence."""
    slopes, at = np.array([[-4.0, 0.7], [-4.5, -0.4]]), np.array([[-1.0], [0.0], [1.5]])
    path = np.zeros((10, 1))
    true = -np.expm1(-10.0 * np.exp(slopes[:, 0]).sum()) * np.exp(slopes[:, 0]) / np.exp(
        slopes[:, 0]
    ).sum()  # fmt: skip
    sys.stdout.write("\nowners  spans each  owners alike  events  rates  incidence\n")
    found = {}
    for owners, each, shared in (
        (8, 120, 0.0), (8, 120, 0.5), (30, 40, 0.0), (100, 30, 0.0), (100, 30, 0.5),
        (500, 30, 0.0), (500, 30, 0.5),
    ):  # fmt: skip
        rates, grown, events = [], [], []
        for seed in range(300):
            rng = np.random.default_rng([17, owners, each, seed])
            x, outcome, length, owner = spans(rng, owners, each, slopes, shared=shared)
            fit = hazards(x, outcome, span=length, cluster=owner, causes=2)
            events.append((outcome > 0).sum())
            if (fit.events > 0).all():
                rates.append(covered(fit, slopes, at, 0.9))
                end = fit.incidence(path)
                grown.append((end.low[-1] <= true) & (true <= end.high[-1]))
        found[owners, shared] = (float(np.mean(rates)), float(np.mean(grown)))
        alike = "yes" if not shared else "no"
        sys.stdout.write(
            f"{owners:6d}  {each:10d}  {alike:>12}  {np.mean(events):6.0f}"
            f"  {found[owners, shared][0]:5.3f}  {found[owners, shared][1]:9.3f}\n"
        )
    assert all(0.8 <= rate <= 0.99 for rate, _ in found.values())
    assert 0.87 <= found[500, 0.0][0] <= 0.93


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"outcome": [0, 1, -1]}, "outcome of shape"),
        ({"outcome": [0, 1]}, "outcome of shape"),
        ({"outcome": [0, 1, 2], "causes": 1}, "causes was 1"),
        ({"outcome": [0, 1, 0], "span": [1.0, 0.0, 1.0]}, "span is not positive"),
        ({"outcome": [0, 1, 0], "span": [1.0, 1.0]}, "span is none for each"),
        ({"outcome": [0, 1, 0], "cluster": ["a", "a", "a"]}, "cluster names 1 owners"),
        ({"outcome": [0, 1, 0], "ridge": 0.0}, "ridge was"),
        ({"outcome": [0, 0, 0]}, "causes was None"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        hazards([[1.0], [2.0], [3.0]], **words)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_where_every_span_ended_no_rate_is_too_high_and_it_says_so() -> None:
    x, outcome = np.arange(50.0)[:, None], 1 + np.arange(50) % 2
    fit = hazards(x, outcome, span=0.5, causes=3, cluster=np.arange(50) % 5)
    assert "every span ended in a cause" in fit.status
    assert "cause 3 never came" in fit.status
    rates = fit.rates(x[:2])
    assert rates[0] == pytest.approx(rates[1])
    assert (1.0 - np.exp(-rates[0].sum() * 0.5)) ** 50 == pytest.approx(0.5)
    low, high = fit.band(x[:1], 0.9)
    assert (1.0 - np.exp(-low.sum() * 0.5)) ** 50 == pytest.approx(0.05)
    assert low[0, 0] == pytest.approx(low[0, 1])
    assert np.isinf(high[0, :2]).all()
    assert high[0, 2] == pytest.approx(-np.log(0.05) / 25.0)
    came = fit.incidence(x[:3], 0.5)
    assert (came.low <= came.value).all()
    assert (came.value <= came.high).all()
    assert came.high[:, :2] == pytest.approx(np.ones((3, 2)))
    assert came.value[-1].sum() == pytest.approx(1.0 - np.exp(-rates[0].sum() * 1.5))


def test_spans_of_which_one_ended_in_nothing_have_likeliest_rates() -> None:
    fit = hazards(np.empty((50, 0)), [0] + [1] * 49)
    assert fit.status == ""
    assert fit.rates(np.empty((1, 0)))[0, 0] == pytest.approx(np.log(50.0))
