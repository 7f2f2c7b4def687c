"""Marks of claims on each other: published cases, clearing, and drawn outcomes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from shared import Case, check_all
from undertow.econometrics.clearing import Debts, clearing
from undertow.econometrics.valuations import (
    Mark,
    Standing,
    ahead,
    by_payment,
    by_recovery,
    either,
    linear,
    valued,
)
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
        assert (found.loss >= 0.0).all()
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
        told = 1.0 - ahead(0.3, recovery)(Standing(equity, owed, assets))(np.zeros(1))
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


def reached(debts: Debts, hit: np.ndarray) -> np.ndarray:
    """Whom a loss of those hit can come to over claims, and those hit."""
    holder = np.repeat(np.arange(len(debts)), np.diff(debts.start))
    found = hit.copy()
    for _ in range(len(debts)):
        found[holder[found[debts.debtor]]] = True
    return found


def thin(seed: int) -> tuple[Debts, np.ndarray, np.ndarray, np.ndarray]:
    """A network of thin equity in two parts: debts, equity, assets that follow, own losses."""
    rng = np.random.default_rng(seed)
    part = rng.integers(3, 8, 2)
    size = int(part.sum())
    owes = rng.uniform(5.0, 10.0, (size, size)) * (rng.random((size, size)) < 0.6)
    owes[: part[0], part[0] :] = 0.0  # the first part owes nothing to the second
    np.fill_diagonal(owes, 0.0)
    scale = 10.0 ** rng.integers(-9, 13)
    ends = np.nonzero(owes)
    outside = rng.uniform(60.0, 90.0, size)
    debts = Debts.of(*ends, owes[ends] * scale, size, outside * scale)
    equity = rng.uniform(0.1, 1.0, size) * 10.0 ** rng.uniform(-3.0, 0.0) * scale
    equity[rng.random(size) < 0.2] = 0.0 if seed % 3 == 0 else 0.01 * scale
    own = np.zeros(size)
    own[rng.integers(part[0])] = 0.3 * equity.max()
    return debts, equity, equity + debts.owed - debts.due, own


def test_parts_that_nothing_hit_lose_nothing_to_the_last_digit() -> None:
    spared, grows, moved = 0, 0, 0
    for seed in range(150):
        debts, equity, assets, own = thin(seed)
        away = ~reached(debts, own > 0.0)
        solid = (equity > 0.0).all()
        marks = [by_payment(), either(np.arange(len(debts)) % 2 == 0, by_payment(), linear(equity))]
        marks += [linear(equity), linear(equity, own), by_recovery(0.4)]
        for mark in marks if solid else marks[:1]:  # the others are below 1 where equity is nothing
            found = valued(debts, assets - own, mark)
            assert found.settled
            assert (found.loss[away] == 0.0).all()
            assert (found.mark[away] == 1.0).all()
        if solid:
            matrix = np.zeros((len(debts), len(debts)))
            holder = np.repeat(np.arange(len(debts)), np.diff(debts.start))
            matrix[holder, debts.debtor] = debts.value / equity[holder]
            grows += bool(np.abs(np.linalg.eigvals(matrix[np.ix_(away, away)])).max() > 1.0)
            moved += bool((valued(debts, assets - own, linear(equity)).loss > 0.0).any())
        spared += int(away.sum())
    assert spared > 500
    assert grows > 60  # what would grow from a last digit
    assert moved > 60


def plainly(debts: Debts, assets: np.ndarray, shares_of: Mark) -> np.ndarray:
    """Losses step by step, and nothing else."""
    face = assets - debts.owed + debts.due
    claims = np.zeros((len(debts), len(debts)))
    claims[np.repeat(np.arange(len(debts)), np.diff(debts.start)), debts.debtor] = debts.value
    shares, lost = shares_of(Standing(face, debts.owed, assets)), np.zeros(len(debts))
    for _ in range(100_000):
        then = np.maximum(shares(claims @ lost), lost)
        if (then == lost).all():
            break
        lost = then
    return claims @ lost


def test_marks_that_are_solved_for_are_where_steps_end() -> None:
    rng = np.random.default_rng(8)
    for _ in range(120):
        size = int(rng.integers(2, 9))
        owes = rng.exponential(4.0, (size, size)) * (rng.random((size, size)) < 0.5)
        np.fill_diagonal(owes, 0.0)
        ends, outside = np.nonzero(owes), rng.exponential(3.0, size) * (rng.random(size) < 0.5)
        debts = Debts.of(*ends, owes[ends], size, outside)
        before = rng.uniform(0.1, 8.0, size)
        assets = before + debts.owed - debts.due
        hit = before * rng.uniform(0.0, 1.5, size) * (rng.random(size) < 0.4)
        passing = rng.random(size) < 0.3
        for mark in (by_payment(), linear(before), either(passing, by_payment(), linear(before))):
            found = valued(debts, assets - hit, mark)
            assert found.settled
            want = plainly(debts, assets - hit, mark)
            assert found.loss == pytest.approx(want, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("leak", [1e-3, 1e-6, 1e-9])
def test_rings_that_keep_nearly_all_come_to_rest(leak: float) -> None:
    ring, size = np.arange(50), 50
    debts = Debts.of(ring, np.roll(ring, -1), np.full(size, 100.0), size, np.full(size, 100 * leak))
    paid = valued(debts, np.full(size, 50.0 * leak), by_payment())
    assert paid.settled
    assert paid.steps < 50
    assert paid.mark == pytest.approx(np.full(size, 0.5), abs=1e-15 / leak)
    for side, mark in ((1.0 - leak, 1.0 - 0.2 / size), (1.0 + leak, 0.0)):  # below and above 1
        before = np.full(size, 100.0 / side)
        hit = np.where(ring == 0, 0.2 * leak * before, 0.0)
        found = valued(debts, before - hit + debts.owed - debts.due, linear(before, hit))
        assert found.settled
        assert found.steps < 100
        assert found.mark == pytest.approx(np.full(size, mark), abs=1e-13 / leak + 2.0 * leak * 30)


def test_marks_have_no_scale() -> None:
    debts, assets = some_debts(11)
    before = np.maximum(1.3 * assets - debts.owed + debts.due, 0.05)
    for mark in (by_payment, lambda: by_recovery(0.4), lambda: ahead(0.2, 0.6), None):
        want = valued(debts, assets, mark() if mark else linear(before))
        assert want.loss.max() > 0.01
        for scale in (1e-12, 1e-9, 1e-3, 1e9, 1e15):
            holder = np.repeat(np.arange(len(debts)), np.diff(debts.start))
            scaled = Debts.of(debts.debtor, holder, debts.value * scale, len(debts),
                              debts.outside * scale)  # fmt: skip
            found = valued(scaled, assets * scale, mark() if mark else linear(before * scale))
            assert found.settled
            assert found.loss / scale == pytest.approx(want.loss, rel=1e-9, abs=1e-11)
            assert found.mark == pytest.approx(want.mark, abs=1e-11)


def test_a_loss_comes_to_the_end_of_a_long_ring_however_it_is_numbered() -> None:
    size = 30_000
    node = np.random.default_rng(2).permutation(size)
    debts = Debts.of(node, np.roll(node, -1), np.full(size, 10.0), size, np.full(size, 5.0))
    before = np.full(size, 10.0 / (1.0 - 1e-6))
    hit = np.zeros(size)
    hit[node[0]] = 1e-3 * before[0]
    found = valued(debts, before - hit + debts.owed - debts.due, linear(before, hit))
    assert found.settled
    assert found.steps < 20
    keeps = 1.0 - 1e-6
    want = 1e-3 * keeps ** np.arange(size) / (1.0 - keeps**size)
    assert 1.0 - found.mark[node] == pytest.approx(want, rel=1e-9)
