"""What nodes lose with the system, the capital that they then lack, and creditors' claims."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import optimize, stats

from shared import Case, check_all, near, shared_folder
from undertow.econometrics import longrun, shortfall
from undertow.errors import EstimationError

LINK = longrun.Link(a=0.03, b=0.95, target=0.6, correlation=0.6)
LAW = longrun.Volatility(mu=0.0, omega=1e-6, alpha=0.03, gamma=0.05, beta=0.93, variance=2e-4)


def _returns(name: str, last: int) -> np.ndarray:
    table = pl.read_parquet(shared_folder() / "oracles" / "data_us_stocks_daily.parquet")
    return table[name].to_numpy()[-last:]


def _got(given: dict[str, Any]) -> dict[str, float]:
    if "q" in given:
        pair = (_returns(given[who], given["last_rows"]) for who in ("firm", "market"))
        return {"mes": shortfall.mes(*pair, given["q"]).mes}
    if "ses_training" in given:
        line = shortfall.ses_line(
            given["mes_training"], given["leverage_training"], given["ses_training"]
        )
        return {"ses": float(line.score(given["mes_firm"], given["leverage_firm"]))}
    if "lrmes" in given:
        found = shortfall.srisk(given["equity"], given["debt"], given["lrmes"], k=given["k"])
        return {"srisk": found.srisk[0]}
    if "crisis_return" in given:
        pair = (_returns(given[who], given["last_rows"]) for who in ("firm", "market"))
        run = longrun.lrmes(
            *pair, rng=np.random.default_rng(1), horizon=given["horizon"],
            crisis=given["crisis_return"], corrected=False,
        )  # fmt: skip
        return {"lrmes": run.lrmes}
    assert "fraction" in given  # the absorption ratio, of which `spectrum` speaks
    return {}


def test_the_published_shortfalls_come_out() -> None:
    def check(case: Case, _: dict[str, Any]) -> set[str]:
        got = _got(case["inputs"])
        for name, value in got.items():
            tol = case["tol"]
            near(value, case["expected"][name], rel=tol.get("rel", 0.0),
                 unit=tol.get(f"{name}_abs", 0.0))  # fmt: skip
        return set(got)

    check_all("mes_srisk_absorption", check, later={"absorption_ratio"})


def test_contingent_claims_are_those_of_the_survey_s_program() -> None:
    # published with Bisias, Flood, Lo and Valavanis (2012), at these arguments
    found = shortfall.contingent_claims(5.0, 1.2, 0.02, 10.0, 20.0, 1.5e-4)
    near(found.put, 6.659378336338627, rel=1e-9)
    near(found.contribution, 3.3467523905471133, rel=1e-9)


@pytest.mark.parametrize("volatility", [0.05, 0.4, 0.9, 3.0])
@pytest.mark.parametrize("barrier", [0.01, 8.0, 400.0])
def test_implied_assets_give_the_equity_back(volatility: float, barrier: float) -> None:
    equity, rate, years = 5.0, 0.03, 1.5
    found = shortfall.contingent_claims(equity, volatility, rate, barrier, years, 0.01)
    width = found.volatility * math.sqrt(years)
    safe = barrier * math.exp(-rate * years)
    d1 = math.log(found.assets / safe) / width + width / 2.0
    call = found.assets * stats.norm.cdf(d1) - safe * stats.norm.cdf(d1 - width)
    near(call, equity, rel=1e-9)
    near(found.volatility * found.assets * stats.norm.cdf(d1), equity * volatility, rel=1e-9)
    near(found.put, call - found.assets + safe, rel=1e-6, unit=1e-9 * safe)  # put-call parity


def test_contingent_claims_agree_with_a_joint_solution_and_say_when_there_is_no_loss() -> None:
    def gaps(x: np.ndarray) -> list[float]:
        a, s = np.exp(x)
        d1 = (math.log(a / 10.0) + 0.02 + s * s / 2.0) / s
        call = a * stats.norm.cdf(d1) - 10.0 * math.exp(-0.02) * stats.norm.cdf(d1 - s)
        return [call - 4.0, s * a * stats.norm.cdf(d1) - 4.0 * 0.5]

    a, s = np.exp(optimize.fsolve(gaps, np.log([13.0, 0.2]), xtol=1e-13))
    found = shortfall.contingent_claims(4.0, 0.5, 0.02, 10.0, 1.0, 0.02)
    assert (found.assets, found.volatility) == (pytest.approx(a), pytest.approx(s))
    assert 0.0 < found.guarantee < 1.0
    safe = shortfall.contingent_claims(100.0, 0.1, 0.0, 1.0, 1.0, 0.0)
    assert safe.reason.startswith("creditors lose nothing")
    assert math.isnan(safe.guarantee)


def test_mes_is_the_mean_of_the_worst_days_and_its_band_holds_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = -0.6 * stats.norm.pdf(stats.norm.ppf(0.05)) / 0.05
    held = 0
    for _ in range(100):
        market = rng.standard_normal(500)
        node = 0.6 * market + 0.8 * rng.standard_normal(500)
        found = shortfall.mes(node, market, rng=rng, reps=99, block=1.0)
        assert found.band is not None
        held += found.band[0] <= truth <= found.band[1]
    assert found.days == 25
    assert found.mes == node[market < np.quantile(market, 0.05)].mean()
    assert 78 <= held <= 98
    assert shortfall.mes(node, market).band is None


def test_a_market_without_worst_days_is_an_outcome() -> None:
    flat = shortfall.mes([0.1, -0.2, 0.3], [0.0, 0.0, 0.0])
    assert "ties" in flat.reason
    assert math.isnan(flat.mes)
    assert shortfall.mes([0.1, np.nan], [0.0, 0.1]).reason == "1 rows, 2 are needed"
    gappy = shortfall.mes([0.1, np.nan, -0.3, 0.2], [0.0, -9.0, -0.1, 0.1], 0.3)
    assert (gappy.mes, gappy.rows, gappy.days) == (-0.3, 3, 1)


def test_the_ses_line_is_least_squares_and_refuses_what_it_cannot_fit() -> None:
    rng = np.random.default_rng(2)
    mes, leverage = rng.standard_normal((2, 40))
    line = shortfall.ses_line(mes, leverage, 0.1 + 0.5 * mes - 0.2 * leverage)
    assert (line.mes, line.leverage) == (pytest.approx(0.5), pytest.approx(-0.2))
    assert line.r2 == pytest.approx(1.0)
    twin = shortfall.ses_line(mes, 2.0 * mes, leverage)
    assert "make up each other" in twin.reason
    with pytest.raises(EstimationError, match="no score: mes, leverage"):
        twin.score(0.1, 2.0)
    assert "2 firms" in shortfall.ses_line(mes[:2], leverage[:2], mes[:2]).reason


def test_capital_that_is_lacking_is_the_published_identity_and_is_shared_out() -> None:
    w, d, loss = np.array([50.0, 80.0, 10.0]), np.array([600.0, 100.0, 200.0]), 0.4
    found = shortfall.srisk(w, d, loss, k=0.08)
    lvg = (d + w) / w
    assert found.srisk == pytest.approx(w * (0.08 * lvg + 0.92 * loss - 1.0))
    assert found.srisk[1] < 0.0
    assert found.share[1] == 0.0
    assert found.share.sum() == pytest.approx(1.0)
    assert found.total == pytest.approx(found.srisk[[0, 2]].sum())
    calm = shortfall.srisk(100.0, 10.0, 0.1)
    assert (calm.total, calm.share[0]) == (0.0, 0.0)


def test_a_venue_s_capital_is_what_can_be_paid_out() -> None:
    found = shortfall.venue_shortfall(
        [1000.0, 500.0], 0.5, fund=[40.0, 0.0], reserve=[10.0, 0.0], junior=[30.0, 0.0], k=0.1
    )
    assert found.srisk == pytest.approx([0.1 * 1000 - 0.9 * 40.0, 50.0])
    assert found.leverage[1] == math.inf
    sunk = shortfall.srisk(-20.0, 100.0, 0.5, k=0.1)
    assert sunk.srisk[0] == pytest.approx(10.0 + 0.9 * 20.0)  # a deficit is not halved by a crisis


def test_shortcuts_to_a_crisis_are_what_they_say() -> None:
    near(float(shortfall.lrmes_by_mes(-0.03)), 1.0 - math.exp(-0.54))
    near(float(shortfall.lrmes_by_beta(1.0)), 0.4)
    near(float(shortfall.lrmes_by_beta(0.0)), 0.0)


def test_simulated_losses_are_those_of_a_normal_walk_where_nothing_moves() -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal((4000, 2))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    rho = 0.5
    joint = np.column_stack([rho * z[:, 1] + math.sqrt(1.0 - rho * rho) * z[:, 0], z[:, 1]])
    still = longrun.Volatility(0.0, 0.02**2, 0.0, 0.0, 0.0, 0.02**2)
    link = longrun.Link(0.0, 0.0, rho, rho)
    run = longrun.simulate_lrmes(
        joint, np.full(4000, rho), still, still, link, rng=rng, horizon=16, crisis=-0.1
    )
    spread = 0.02 * math.sqrt(16.0)
    cut = math.log(0.9) / spread
    assert run.crises / run.reps == pytest.approx(stats.norm.cdf(cut), rel=0.03)
    # E exp(s n) given m < cut, n = rho m + rest
    kept = math.exp(spread**2 / 2.0) * stats.norm.cdf(cut - rho * spread) / stats.norm.cdf(cut)
    assert run.lrmes == pytest.approx(1.0 - kept, abs=0.004)
    assert run.band[0] < run.lrmes < run.band[1]


def test_steps_of_the_simulation_follow_the_recursions_row_by_row() -> None:
    z = np.array([[0.4, -1.1], [-0.7, 0.6], [1.2, 0.3], [-0.2, -0.9]])
    past = np.array([0.5, 0.4, 0.6, 0.55])
    link = longrun.Link(0.05, 0.9, 0.5, 0.45, corrected=True)
    run = longrun.simulate_lrmes(
        z, past, LAW, LAW, link, rng=np.random.default_rng(4), horizon=3, crisis=-1e-9, reps=40
    )
    rng = np.random.default_rng(4)
    picks = [rng.integers(4, size=40) for _ in range(3)]
    alone = (z[:, 0] - past * z[:, 1]) / np.sqrt(1.0 - past**2)
    losses = []
    for path in range(40):
        h, q = [LAW.variance] * 2, np.array([[1.0, 0.45], [0.45, 1.0]])
        total = np.zeros(2)
        for step in range(3):
            row = picks[step][path]
            rho = q[0, 1] / math.sqrt(q[0, 0] * q[1, 1])
            news = np.array([rho * z[row, 1] + math.sqrt(1 - rho**2) * alone[row], z[row, 1]])
            for j in (0, 1):
                e = math.sqrt(h[j]) * news[j]
                total[j] += e
                h[j] = LAW.omega + (LAW.alpha + LAW.gamma * (e < 0)) * e * e + LAW.beta * h[j]
            star = news * np.sqrt(np.diag(q))
            q = 0.05 * np.array([[1.0, 0.5], [0.5, 1.0]]) + 0.05 * np.outer(star, star) + 0.9 * q
        if math.expm1(total[1]) < -1e-9:
            losses.append(-math.expm1(total[0]))
    assert run.losses == pytest.approx(np.array(losses), rel=1e-12)


def test_a_crisis_that_never_comes_is_an_outcome() -> None:
    rng = np.random.default_rng(5)
    z = rng.standard_normal((300, 2))
    none = longrun.simulate_lrmes(
        z, np.full(300, 0.5), LAW, LAW, LINK, rng=rng, horizon=2, crisis=-0.6, reps=500
    )
    assert none.status.startswith("no crisis on 500 paths")
    assert math.isnan(none.lrmes)
    few = longrun.simulate_lrmes(
        z, np.full(300, 0.5), LAW, LAW, LINK, rng=rng, horizon=5, crisis=-0.06, reps=400
    )
    assert 0 < few.crises < 30
    assert "raise reps" in few.status
    one = longrun.simulate_lrmes(z, np.ones(300), LAW, LAW, LINK, rng=rng)
    assert "move as one" in one.status


def test_a_node_that_cannot_be_fitted_is_an_outcome() -> None:
    rng = np.random.default_rng(6)
    market = 0.01 * rng.standard_normal(300)
    assert longrun.lrmes(np.zeros(300), market, rng=rng).status == "node: constant"
    assert "copy" in longrun.lrmes(market, market, rng=rng, reps=10).status
    assert longrun.lrmes(market[:30], market[:30], rng=rng).status.startswith("node: too short")


def test_misuse_is_refused_by_name() -> None:
    rng = np.random.default_rng(7)
    z = rng.standard_normal((50, 2))
    with pytest.raises(EstimationError, match="node has a return of -1 or less at row 3"):
        longrun.lrmes([0.1, 0.0, 0.1, -1.0], [0.1, 0.0, 0.1, 0.2], rng=rng)
    with pytest.raises(EstimationError, match="z is 50 by 2 and rho has 49 rows"):
        longrun.simulate_lrmes(z, np.zeros(49), LAW, LAW, LINK, rng=rng)
    with pytest.raises(EstimationError, match=r"crisis was 0\.1"):
        longrun.simulate_lrmes(z, np.zeros(50), LAW, LAW, LINK, rng=rng, crisis=0.1)
    with pytest.raises(EstimationError, match="horizon was 0"):
        longrun.simulate_lrmes(z, np.zeros(50), LAW, LAW, LINK, rng=rng, horizon=0)
    with pytest.raises(EstimationError, match="debt of node 1"):
        shortfall.srisk([1.0, 1.0], [1.0, -1.0], 0.3)
    with pytest.raises(EstimationError, match="lrmes of node 0"):
        shortfall.srisk(1.0, 1.0, 1.3)
    with pytest.raises(EstimationError, match="fund is negative"):
        shortfall.venue_shortfall(10.0, 0.1, fund=-1.0)
    with pytest.raises(EstimationError, match="equity was 0"):
        shortfall.contingent_claims(0.0, 0.5, 0.0, 1.0, 1.0, 0.0)
