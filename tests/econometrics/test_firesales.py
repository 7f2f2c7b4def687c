"""Fire-sale spillovers: the published case, loops written apart, and what must hold."""

from __future__ import annotations

import numpy as np
import pytest

from shared import oracle
from undertow.econometrics.firesales import (
    FACTORS,
    contagion_index,
    cosine,
    decomposed,
    endogenous_index,
    linear_spillover,
    overlap,
)
from undertow.errors import EstimationError


def banks() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Holdings (cash, corporate, government, other) and equity of the published banks."""
    rows = oracle("fire_sale_cascade")["banks"]
    equity = np.array([row["cet1"] for row in rows])
    assets = equity / (np.array([row["leverage_pct"] for row in rows]) / 100.0)
    gov = np.array([row["gov_bonds"] for row in rows])
    corp = np.array([row["debt_securities"] for row in rows]) - gov
    cash = 0.05 * assets
    held = np.stack([cash, corp, gov, assets - cash - corp - gov], axis=1)
    return [row["id"] for row in rows], held, equity


def test_the_published_case() -> None:
    family = oracle("fire_sale_glt")
    names, held, equity = banks()
    for case in family["cases"]:
        given, expected, rel = case["inputs"], case["expected"], case["tol"]["rel"]
        found = linear_spillover(held, equity, given["asset_shock"], given["price_impact_per_unit"])
        assert found.vulnerability == pytest.approx(expected["aggregate_vulnerability"], rel=rel)
        np.testing.assert_allclose(found.sales, expected["net_sales_by_asset"], rtol=rel)
        assert found.total_direct == pytest.approx(
            expected["total_direct_loss_over_equity"], rel=rel
        )
        for n, row in zip(np.argsort(found.systemic), expected["systemicness_top5"], strict=False):
            assert names[n] == row["bank"]
            assert found.systemic[n] == pytest.approx(row["value"], rel=rel)
        np.testing.assert_allclose(
            found.indirect[:5], expected["indirect_vulnerability_first5"], rtol=rel
        )


def random_books(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    held = rng.gamma(0.6, 100.0, (12, 5))
    equity = held.sum(axis=1) * rng.uniform(0.05, 0.4, 12)
    return held, equity, -rng.uniform(0.0, 0.1, 5), rng.uniform(0.0, 1e-3, 5)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_loops_over_holders_give(seed: int) -> None:
    held, equity, shock, impact = random_books(np.random.default_rng(seed))
    found = linear_spillover(held, equity, shock, impact)
    lost = [sum(h * f for h, f in zip(row, shock, strict=True)) for row in held]
    lost = [max(one, -e) for one, e in zip(lost, equity, strict=True)]
    total = 0.0
    for n, row in enumerate(held):
        debt = row.sum() - equity[n]
        sold = lost[n] * debt / equity[n]  # back to the same debt over equity
        mine = 0.0
        for k, value in enumerate(row):
            fall = impact[k] * sold * value / row.sum()
            mine += fall * held[:, k].sum()
        assert found.systemic[n] == pytest.approx(mine / equity.sum(), rel=1e-10)
        total += mine
    assert found.vulnerability == pytest.approx(total / equity.sum(), rel=1e-10)
    assert found.indirect @ equity == pytest.approx(total, rel=1e-10)


def test_factors_multiply_to_vulnerability_and_changes_add_up() -> None:
    rng = np.random.default_rng(9)
    held, equity, shock, impact = random_books(rng)
    before = decomposed(held, equity, shock, impact)
    after = decomposed(1.3 * held, 1.1 * equity, shock, 2.0 * impact, speed=0.5)
    assert before.names == FACTORS
    first = linear_spillover(held, equity, shock, impact).vulnerability
    then = 0.5 * linear_spillover(1.3 * held, 1.1 * equity, shock, 2.0 * impact).vulnerability
    assert np.prod(before.factors) == pytest.approx(-first, rel=1e-10)
    change = after.change_from(before)
    assert change.sum() == pytest.approx(np.log(then / first), rel=1e-9)
    # impact twice as steep, holdings 1.3 times as large
    assert change[FACTORS.index("illiquidity")] == pytest.approx(np.log(2.6))
    assert change[FACTORS.index("speed")] == pytest.approx(np.log(0.5))
    alike = np.outer(np.arange(1.0, 5.0), [1.0, 2.0])
    same = decomposed(alike, alike.sum(axis=1) / 4, [-0.1, -0.1], [1e-3, 1e-3])
    assert same.factors[FACTORS.index("concentration")] == pytest.approx(1.0)


def test_overlap_is_the_sum_over_assets_and_its_index_names_the_middle() -> None:
    rng = np.random.default_rng(4)
    held, depth = rng.gamma(0.5, 10.0, (6, 4)), rng.uniform(1.0, 9.0, 4)
    found = overlap(held, depth)
    for n in range(6):
        for m in range(6):
            by_hand = sum(held[n, k] * held[m, k] / depth[k] for k in range(4))
            assert found[n, m] == pytest.approx(by_hand, rel=1e-12)
    largest, part = contagion_index(found)
    assert largest == pytest.approx(max(np.linalg.eigvalsh(found)))
    assert part.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found @ part, largest * part, rtol=1e-8)
    hub = np.eye(5) + np.eye(5)[0] * np.array([[5.0], [1.0], [1.0], [1.0], [1.0]])
    assert int(np.argmax(contagion_index(overlap(hub, np.ones(5)))[1])) == 0


def test_cosine_knows_sides_and_the_empty() -> None:
    found = cosine([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(found[0], [1.0, 1.0, -1.0, 0.0, np.sqrt(0.5)])


def test_nobody_sells_more_than_it_has_where_that_is_asked() -> None:
    held, equity = np.array([[100.0, 0.0]]), np.array([2.0])
    wild = linear_spillover(held, equity, [-0.02, 0.0], [1e-4, 0.0])
    tame = linear_spillover(held, equity, [-0.02, 0.0], [1e-4, 0.0], capped=True)
    assert wild.sales[0] == pytest.approx(-98.0)
    assert tame.sales[0] == pytest.approx(-98.0)
    thin = linear_spillover(held, [0.5], [-0.02, 0.0], [1e-4, 0.0], capped=True)
    assert thin.sales[0] == pytest.approx(-99.5)  # the first loss is no more than the equity


def test_who_is_short_buys_back_until_it_is_as_leveraged_as_before() -> None:
    rng = np.random.default_rng(3)
    held = rng.normal(0.0, 100.0, (9, 4))
    equity = np.abs(held).sum(axis=1) * rng.uniform(0.2, 0.6, 9)
    shock = rng.uniform(-0.05, 0.05, 4)
    found = linear_spillover(held, equity, shock, np.full(4, 1e-4))
    gross = np.abs(held).sum(axis=1)
    for n in range(9):
        loss = float(held[n] @ shock)
        after, own = gross[n] + float(np.abs(held[n]) @ shock), equity[n] + loss
        assert after * (1.0 - found.closed[n]) / own == pytest.approx(gross[n] / equity[n])
    assert found.indirect @ equity == pytest.approx(found.vulnerability * equity.sum())


def test_only_losers_act_and_only_their_losses_count_where_that_is_asked() -> None:
    held, equity = np.array([[100.0], [-100.0]]), np.array([25.0, 25.0])
    both = linear_spillover(held, equity, [-0.1], [1e-3])
    assert both.vulnerability == pytest.approx(0.0)  # what one loses the other wins
    worse = linear_spillover(held, equity, [-0.1], [1e-3], losers=True)
    assert worse.closed.tolist() == [pytest.approx(30.0 / 90.0), 0.0]
    assert worse.vulnerability == pytest.approx(-100.0 * 30.0 * 1e-3 / 50.0)
    long_only = np.array([[100.0, 20.0], [10.0, 50.0]])
    given = (long_only, [20.0, 30.0], [-0.1, -0.02], [1e-3, 1e-4])
    assert linear_spillover(*given, losers=True).vulnerability == pytest.approx(
        linear_spillover(*given).vulnerability
    )


def test_no_price_falls_by_more_than_all_of_it_where_sales_are_capped() -> None:
    found = linear_spillover([[100.0]], [10.0], [-0.05], [1.0], capped=True)
    assert found.indirect[0] == pytest.approx(-10.0)  # the whole holding, over the equity
    slow = linear_spillover([[100.0]], [10.0], [-0.05], [1e-3], speed=0.25)
    assert slow.sales[0] == pytest.approx(-0.25 * 45.0)


def test_the_overlap_that_a_scenario_sets_in_motion_has_the_eigenvalues_of_its_losses() -> None:
    rng = np.random.default_rng(6)
    ties = overlap(rng.gamma(0.5, 10.0, (6, 4)), rng.uniform(1.0, 9.0, 4))
    share = np.array([0.0, 0.3, 1.0, 0.1, 0.0, 0.6])
    value, part = endogenous_index(ties, share)
    losses = ties * share  # what n loses when m closes its share
    assert value == pytest.approx(max(np.linalg.eigvals(losses).real))
    assert part[[0, 4]] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert endogenous_index(ties, np.ones(6))[0] == pytest.approx(contagion_index(ties)[0])
    assert endogenous_index(ties, np.zeros(6))[0] == 0.0
    with pytest.raises(EstimationError, match="negative share"):
        endogenous_index(ties, -share)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"equity": [0.0]}, "no equity"),
        ({"shock": [0.1]}, "shock must be 2"),
        ({"impact": [-1.0, 0.0]}, "negative"),
        ({"held": [[np.nan, 0.0]]}, "finite"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], words: str) -> None:
    given: dict[str, object] = {
        "held": [[10.0, 5.0]], "equity": [3.0], "shock": [-0.1, 0.0], "impact": [1e-3, 1e-3]
    }  # fmt: skip
    with pytest.raises(EstimationError, match=words):
        linear_spillover(**(given | changed))  # type: ignore[arg-type]
    with pytest.raises(EstimationError, match="no depth"):
        overlap([[1.0]], [0.0])
    with pytest.raises(EstimationError, match="nothing is lost"):
        decomposed([[10.0]], [5.0], [0.0], [1e-3])
