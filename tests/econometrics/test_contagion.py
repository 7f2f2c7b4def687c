"""Correlations in a crisis, with and without what larger shocks alone explain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from shared import Case, check_all, near, shared_folder
from undertow.econometrics import contagion, exceedances
from undertow.econometrics.contagion import Decision
from undertow.errors import EstimationError


def _column(name: str) -> np.ndarray:
    table = pl.read_parquet(shared_folder() / "oracles" / "data_us_stocks_daily.parquet")
    return table[name].to_numpy()


def _crisis(case: Case) -> dict[str, float]:
    given = case["inputs"]
    calm, crisis = slice(*given["calm_rows"]), slice(*given["crisis_rows"])
    source, target = _column(given["source_market"]), _column(given["target"])
    test = contagion.forbes_rigobon(source[calm], target[calm], source[crisis], target[crisis])
    assert not test.reason
    return {
        "rho_calm": test.rho_calm, "rho_crisis": test.rho_crisis, "delta": test.delta,
        "rho_adjusted": test.rho_adjusted, "fisher_z_adjusted": test.z_adjusted,
        "p_one_sided": test.p_adjusted, "fisher_z_raw": test.z_raw, "p_raw": test.p_raw,
        "n_calm": test.n_calm, "n_crisis": test.n_crisis,
    }  # fmt: skip


def _got(case: Case) -> dict[str, float]:
    given = case["inputs"]
    if "source_market" in given:
        return _crisis(case)
    if "delta" in given:
        adjusted = contagion.adjusted_correlation(given["rho_crisis"], given["delta"])
        return {"rho_adjusted": adjusted}
    if "rho" in given:
        tail = exceedances.normal_exceedance(given["rho"], given["c"])
        return {
            "joint_probability": tail.probability,
            "exceedance_correlation": tail.correlation,
        }
    found = exceedances.exceedance_correlation(
        _column(given["x"]), _column(given["y"]), given["c"], side=given["side"]
    )
    return {"n": found.counts[0], "rho": found.rho[0]}


def test_the_published_correlations_and_tests_come_out() -> None:
    def check(case: Case, _: dict[str, Any]) -> set[str]:
        got = _got(case)
        for name, want in case["expected"].items():
            near(got[name], want, rel=case["tol"]["rel"])
        return set(got)

    check_all("correlation_contagion", check)


def _pair(rng: np.random.Generator, rows: int, scale: float, own: float = 0.0) -> np.ndarray:
    """A source of variance scale^2, a share of it its own; a target that follows the factor."""
    factor = rng.standard_normal(rows) * scale
    source = factor + math.sqrt(own) * scale * rng.standard_normal(rows)
    return np.vstack([source, 0.6 * factor + rng.standard_normal(rows)])


def _rejected(own: float, *, raw: bool = False, runs: int = 400) -> float:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(runs):
        test = contagion.forbes_rigobon(*_pair(rng, 400, 1.0, own), *_pair(rng, 100, 3.0, own))
        hits += (test.raw_decision if raw else test.decision) is Decision.CONTAGION
    return hits / runs


def test_larger_shocks_alone_look_like_contagion_until_adjusted() -> None:
    assert _rejected(0.0, raw=True) > 0.9
    assert _rejected(0.0) < 0.08  # at a size of 5 %


def test_own_turmoil_of_the_source_hides_contagion_from_the_adjusted_test() -> None:
    rng = np.random.default_rng(5)
    found = np.zeros(2)
    for _ in range(300):
        calm = _pair(rng, 400, 1.0, 0.5)
        crisis = _pair(rng, 100, 2.0, 0.5)
        crisis[1] += 0.15 * crisis[0]  # the source now moves the target as well
        test = contagion.forbes_rigobon(*calm, *crisis)
        general = contagion.interdependence_test(
            test.rho_calm, test.rho_crisis, test.delta, n_calm=400, n_crisis=100, ratio_calm=0.5
        )
        found += [test.decision is Decision.CONTAGION, general.decision is Decision.CONTAGION]
    assert found[1] > found[0] + 30, found
    assert found[1] > 150, found


def test_the_expected_correlation_is_that_of_the_factor_model() -> None:
    own, crisis_own, delta = 0.3, 0.8, 2.5
    link, noise = 0.6, 1.0
    factor = (1.0 + delta) * (1.0 + own) / (1.0 + crisis_own)  # its variance in the crisis

    def rho(f: float, e: float) -> float:
        return link * f / math.sqrt((f + e) * (link**2 * f + noise))

    calm = rho(1.0, own)
    got = contagion.expected_correlation(calm, delta, ratio_calm=own, ratio_crisis=crisis_own)
    near(got, rho(factor, crisis_own * factor), rel=1e-12)


def test_without_own_turmoil_the_expectation_undoes_the_adjustment() -> None:
    expected = contagion.expected_correlation(0.4, 3.0)
    near(contagion.adjusted_correlation(expected, 3.0), 0.4, rel=1e-12)


def test_the_threshold_is_where_the_general_test_turns() -> None:
    test = contagion.contagion_test(0.35, 0.62, 6.0, n_calm=400, n_crisis=60)
    assert test.decision is Decision.INTERDEPENDENCE
    assert 0.0 < test.threshold < math.inf

    def decide(ratio: float) -> Decision:
        return contagion.interdependence_test(
            0.35, 0.62, 6.0, n_calm=400, n_crisis=60, ratio_calm=ratio
        ).decision

    assert decide(test.threshold * 0.999) is Decision.INTERDEPENDENCE
    assert decide(test.threshold * 1.001) is Decision.CONTAGION


def test_the_threshold_is_nought_or_endless_where_no_ratio_matters() -> None:
    always = contagion.contagion_test(0.2, 0.9, 0.5, n_calm=400, n_crisis=200)
    never = contagion.contagion_test(0.5, 0.1, 0.5, n_calm=400, n_crisis=200)
    unreachable = contagion.contagion_test(0.5, 0.45, 0.5, n_calm=400, n_crisis=200)
    assert (always.decision, always.threshold) == (Decision.CONTAGION, 0.0)
    assert (never.decision, never.threshold) == (Decision.INTERDEPENDENCE, math.inf)
    assert unreachable.threshold > 1.0 / 0.5**2 - 1.0


# Correlation with Hong Kong before and in the crisis of October 1997, the ratio from which on
# the authors call it contagion, and whether the plain Fisher test does: two-day averages, 207 and
# 30 of them, delta 8.72. Corsetti, Pericoli and Sbracia, table 1 (Bank of Italy working paper 408)
HONG_KONG = {
    "Korea": (0.16, 0.07, math.inf, False), "Malaysia": (0.20, 0.43, 64.5, False),
    "Philippines": (0.22, 0.66, 2.6, True), "Singapore": (0.36, 0.76, 1.5, True),
    "Thailand": (0.11, 0.01, math.inf, False), "Argentina": (0.26, 0.21, math.inf, False),
    "Mexico": (0.29, 0.45, 49.3, False), "Russia": (0.19, 0.53, 13.8, True),
    "Germany": (0.24, 0.63, 4.4, True), "France": (0.17, 0.66, 1.2, True),
    "United Kingdom": (0.17, 0.63, 2.3, True), "Italy": (0.00, 0.63, 0.0, True),
    "Canada": (0.27, 0.37, 389.8, False),
}  # fmt: skip


def _hong_kong(calm: float, crisis: float) -> contagion.ContagionTest:
    return contagion.contagion_test(calm, crisis, 8.72, n_calm=207, n_crisis=30)


@pytest.mark.parametrize("country", HONG_KONG)
def test_the_published_thresholds_of_hong_kong_come_out_up_to_rounding(country: str) -> None:
    calm, crisis, threshold, rejected = HONG_KONG[country]
    half = 0.005  # correlations are published to two decimals
    corners = [_hong_kong(max(calm + i * half, 0.0), crisis + j * half).threshold
               for i in (-1, 0, 1) for j in (-1, 0, 1)]  # fmt: skip
    assert min(corners) - 0.05 <= threshold <= max(corners) + 0.05
    assert (_hong_kong(calm, crisis).raw_decision is Decision.CONTAGION) == rejected


def test_the_published_decisions_of_hong_kong_depend_on_its_own_turmoil() -> None:
    def called(ratio: float) -> set[str]:
        return {
            country
            for country, (calm, crisis, *_) in HONG_KONG.items()
            if contagion.interdependence_test(
                calm, crisis, 8.72, n_calm=207, n_crisis=30, ratio_calm=ratio
            ).decision
            is Decision.CONTAGION
        }

    assert called(0.0) == {"Italy"}
    # 3.6: estimated from the world index; "at least five countries"
    assert called(3.6) == {"Italy", "United Kingdom", "Singapore", "France", "Philippines"}


def test_the_ratio_of_own_shocks_is_recovered_from_a_factor() -> None:
    rng = np.random.default_rng(3)
    factor = rng.standard_normal(20_000)
    source = factor + math.sqrt(0.4) * rng.standard_normal(20_000)
    assert contagion.variance_ratio(source, factor) == pytest.approx(0.4, abs=0.02)


def test_the_correlations_agree_with_scipy_and_ignore_missing_rows() -> None:
    rng = np.random.default_rng(8)
    calm, crisis = _pair(rng, 90, 1.0), _pair(rng, 40, 2.0)
    calm[0, 5] = crisis[1, 7] = np.nan
    test = contagion.forbes_rigobon(*calm, *crisis)
    seen = np.delete(calm, 5, axis=1)
    near(test.rho_calm, stats.pearsonr(*seen).statistic, rel=1e-12)
    assert (test.n_calm, test.n_crisis) == (89, 39)


@pytest.mark.parametrize(
    ("calm", "crisis", "reason"),
    [
        ([[1, 2], [2, 1]], [[1, 2, 3, 5], [2, 1, 3, 4]], "calm: 2 rows"),
        ([[1, 2, 4], [2, 1, 1]], [[1, 2, 3, 5], [2, 1, 3, 4]], "each must be 4"),
        ([[1, 1, 1, 1], [2, 1, 3, 4]], [[1, 2, 3, 5], [2, 1, 3, 4]], "calm: the source is const"),
        ([[1, 2, 3, 5], [2, 1, 3, 4]], [[1, 2, 3, 5], [7, 7, 7, 7]], "crisis: the other is const"),
        ([[1, 2, 3, 5], [1, 2, 3, 5]], [[1, 2, 3, 5], [2, 1, 3, 4]], "correlation of one"),
    ],
)
def test_what_cannot_be_tested_is_undecided_with_a_reason(calm, crisis, reason) -> None:
    test = contagion.forbes_rigobon(*np.array(calm, float), *np.array(crisis, float))
    assert test.decision is Decision.UNDECIDED
    assert reason in test.reason
    assert math.isnan(test.p_adjusted)


def test_impossible_numbers_are_refused_by_name() -> None:
    with pytest.raises(EstimationError, match="delta was -1"):
        contagion.adjusted_correlation(0.5, -1.0)
    with pytest.raises(EstimationError, match=r"rho_crisis was 1\.2"):
        contagion.adjusted_correlation(1.2, 1.0)
    with pytest.raises(EstimationError, match="has at most 3"):
        contagion.expected_correlation(0.5, 1.0, ratio_calm=3.5)
    with pytest.raises(EstimationError, match="4 rows and target_calm 3"):
        contagion.forbes_rigobon([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 5])
    with pytest.raises(EstimationError, match="each must be 4 or more"):
        contagion.fisher_test(0.5, 3, 0.4, 10)
