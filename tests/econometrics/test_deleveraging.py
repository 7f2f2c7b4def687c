"""Sales of balance sheets step by step: published runs on real banks, and what must hold in any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared import Case, check_all
from undertow.econometrics.deleveraging import Sheets, fire_sale
from undertow.errors import EstimationError

ASSETS = ("gov", "corp")


def sheets(rows: list[dict[str, Any]]) -> Sheets:
    """The banks as the cases lay them out."""
    equity, bonds, gov = (np.array([bank[k] for bank in rows], dtype=float)
                          for k in ("cet1", "debt_securities", "gov_bonds"))  # fmt: skip
    assets = 100.0 * equity / np.array([bank["leverage_pct"] for bank in rows])
    debt = 0.5 * (assets - equity)
    return Sheets(
        np.stack([gov, bonds - gov], axis=1), 0.05 * assets, 0.95 * assets - bonds, debt, debt
    )


def published(case: Case, family: dict[str, Any]) -> set[str]:
    """Hold one published run to its sales, prices and defaults; the fields that were compared."""
    given, want, near = case["inputs"], case["expected"], {"rel": case["tol"]["rel"]}
    shock = [given["shock"] * (name == given["shocked_asset"]) for name in ASSETS]
    found = fire_sale(
        sheets(family["banks"]), shock, -np.log(1.0 - given["price_impact"]) / 0.05,
        least=given["leverage_min"], buffer=given["leverage_buffer"],
        target=given["leverage_target"], steps=given["steps"],
    )  # fmt: skip
    names = np.array([bank["id"] for bank in family["banks"]])
    assert [0, *found.defaults.sum(axis=1).tolist()] == want["defaults_per_step"]
    assert found.share_sold.tolist() == pytest.approx(want["fraction_sold_by_step"], **near)
    for k, name in enumerate(ASSETS):
        assert found.prices[-1, k] == pytest.approx(want["final_price"][name], **near)
        assert found.sold[-1, k] == pytest.approx(want["cumulative_sold"][name], **near)
    assert names[found.defaulted].tolist() == want["defaulted"]
    assert found.equity.sum() == pytest.approx(want["total_final_equity"], **near)
    return {"defaults_per_step", "fraction_sold_by_step", "final_price", "cumulative_sold",
            "defaulted", "total_final_equity"}  # fmt: skip


def test_published_runs() -> None:
    check_all("fire_sale_cascade", published)


def test_one_holder_by_hand() -> None:
    one = np.array([1.0])
    book = Sheets(np.array([[100.0]]), 0.0 * one, 0.0 * one, 90.0 * one, 0.0 * one)
    # 95 left against 90: equity of 5 carries 50 at a tenth, so 45 of 95 are put up for sale
    found = fire_sale(book, 0.05, 0.0, least=0.01, buffer=0.08, target=0.1, steps=3)
    assert found.sold[:, 0] == pytest.approx([0.0, 100.0 * 45.0 / 95.0, 100.0 * 45.0 / 95.0])
    assert found.equity[0] == pytest.approx(5.0)
    assert not found.defaulted.any()


def test_nobody_sells_more_than_it_has_and_prices_only_fall() -> None:
    rng = np.random.default_rng(2)
    units = rng.pareto(1.5, (60, 4))
    worth = units.sum(axis=1)
    book = Sheets(units, 0.02 * worth, 0.3 * worth, 0.8 * worth, 0.45 * worth)
    found = fire_sale(book, 0.06, 1.5)
    assert (np.diff(found.prices, axis=0) <= 0.0).all()
    assert (found.sold[-1] <= units.sum(axis=0) * (1.0 + 1e-12)).all()
    assert found.defaults.sum(axis=0).max() == 1  # nobody defaults twice
    calm = fire_sale(book, 0.0, 1.5, buffer=0.03)  # equity is 5 % of assets
    assert calm.share_sold[-1] == 0.0


def test_empty_sheets_and_what_cannot_be() -> None:
    nothing = Sheets(np.zeros((0, 2)), *(np.zeros(0) for _ in range(4)))
    assert fire_sale(nothing, 0.1, 1.0).equity.tolist() == []
    one = np.ones(1)
    book = Sheets(np.ones((1, 1)), one, one, one, one)
    for more, words in (({"shock": 1.0}, "takes all"), ({"impact": -1.0}, "impact is negative"),
                        ({"least": 0.2}, "ratios must be")):  # fmt: skip
        with pytest.raises(EstimationError, match=words):
            fire_sale(book, **({"shock": 0.1, "impact": 1.0} | more))
    with pytest.raises(EstimationError, match="negative or none"):
        Sheets(np.ones((1, 1)), -one, one, one, one)
    with pytest.raises(EstimationError, match="one number a holder"):
        Sheets(np.ones((2, 1)), one, one, one, one)
