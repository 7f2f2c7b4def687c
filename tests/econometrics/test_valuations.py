"""Marks of claims on each other: published cases, clearing, and drawn outcomes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from shared import Case, check_all
from undertow.econometrics.clearing import Debts, clearing
from undertow.econometrics.valuations import Mark, ahead, by_payment, by_recovery, linear, valued
from undertow.errors import EstimationError


def marks_of(name: str, before: np.ndarray) -> Mark:
    if name == "linear_debtrank":
        return linear(before)
    if name == "eisenberg_noe":
        return by_payment()
    numbers = [float(x) for x in re.findall(r"(?:rho|sigma)([\d.]+)", name)]
    if name.startswith("furfine"):
        return by_recovery(numbers[0])
    return ahead(numbers[1], numbers[0])


def published(case: Case, _: Any) -> set[str]:
    """Hold one published network to its equities; the fields that were compared."""
    given = case["inputs"]
    edges = np.array(given["liabilities"], dtype=float).reshape(-1, 3)
    debts = Debts.of(edges[:, 0], edges[:, 1], edges[:, 2], given["n"],
                     given["external_liabilities"])  # fmt: skip
    assets, shock = np.array(given["external_assets"]), np.array(given["shock"])
    before = assets - debts.owed + debts.due
    assert case["expected"]
    for name, want in case["expected"].items():
        found = valued(debts, assets - shock, marks_of(name, before))
        near = {"abs": case["tol"]["abs"], "rel": case["tol"]["rel"]}
        assert found.settled
        assert found.equity == pytest.approx(np.array(want["equity"]), **near), name
        assert (found.loss >= -1e-12).all()
    return set(case["expected"])


def test_published_cases() -> None:
    check_all("neva_valuation", published)


def some_debts(seed: int, nodes: int = 20) -> tuple[Debts, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, nodes, (2, 80))
    ends = ends[:, ends[0] != ends[1]]
    debts = Debts.of(*ends, rng.exponential(1.0, ends.shape[1]), nodes, rng.exponential(1.0, nodes))
    return debts, np.maximum(debts.owed - debts.due, 0.1) * rng.uniform(0.6, 1.4, nodes)


@pytest.mark.parametrize("seed", range(3))
def test_marks_by_payment_are_what_clearing_pays(seed: int) -> None:
    debts, assets = some_debts(seed)
    paid = clearing(debts, assets)
    found = valued(debts, assets, by_payment())
    share = np.divide(paid.paid, paid.owed, out=np.ones(20), where=paid.owed > 0.0)
    assert found.mark == pytest.approx(share, abs=1e-9)
    assert np.maximum(found.equity, 0.0) == pytest.approx(paid.equity, abs=1e-9)
    assert paid.defaulted.any()


def test_linear_marks_lose_no_less_than_payments_do() -> None:
    debts, assets = some_debts(5)
    before = assets * 1.5 - debts.owed + debts.due
    whole = np.maximum(before, 0.05)
    low, high = valued(debts, assets, linear(whole)), valued(debts, assets, by_payment())
    assert (low.equity <= high.equity + 1e-12).all()


def test_a_mark_ahead_is_the_mean_of_drawn_payments() -> None:
    rng = np.random.default_rng(1)
    equity, owed, assets = np.array([0.3]), np.array([4.0]), np.array([5.0])
    for recovery in (1.0, 0.4):
        walk = assets * np.exp(0.3 * rng.standard_normal(400_000) - 0.045)
        then = equity + walk - assets
        paid = np.where(then >= 0.0, 1.0, recovery * np.maximum(1.0 + then / owed, 0.0))
        told = ahead(0.3, recovery)(equity, owed, assets)
        assert told[0] == pytest.approx(paid.mean(), abs=4.0 * paid.std() / 400_000**0.5)


def test_nobody_owes_and_nobody_has() -> None:
    free = Debts.of([], [], [], 2)
    for mark in (linear([1.0, 0.0]), by_payment(), by_recovery(0.5), ahead(0.2)):
        assert valued(free, [1.0, 0.0], mark).equity.tolist() == [1.0, 0.0]
    bare = valued(Debts.of([0], [1], [2.0], 2), [0.0, 1.0], ahead(0.2))
    assert bare.equity.tolist() == [-2.0, 1.0]  # a debtor with nothing pays nothing
    with pytest.raises(EstimationError, match="must be above 0"):
        ahead(0.0)
    with pytest.raises(EstimationError, match="recovery was 2"):
        by_recovery(2.0)
    with pytest.raises(EstimationError, match="2 finite numbers"):
        valued(free, [1.0], by_payment())
