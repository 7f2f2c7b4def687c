"""Clearing: published cases, a linear programme, plain iteration, and books without an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from shared import Case, check_all
from undertow.econometrics import payments
from undertow.econometrics.clearing import Clearing, Debts, clearing, failing
from undertow.errors import EstimationError


def debts_of(given: dict[str, Any]) -> tuple[Debts, np.ndarray]:
    edges = np.array(given["liabilities"], dtype=float).reshape(-1, 3)
    debts = Debts.of(edges[:, 0], edges[:, 1], edges[:, 2], given["n"],
                     given["external_liabilities"])  # fmt: skip
    return debts, np.array(given["external_assets"], dtype=float)


def balanced(found: Clearing, assets: np.ndarray) -> Clearing:
    """All that nodes had is with the outside, with owners, or used up by default."""
    left = found.outside.sum() + found.equity.sum() + found.cost.sum()
    assert left == pytest.approx(assets.sum(), rel=1e-9)
    assert (found.paid <= found.owed + 1e-12).all()
    assert found.settled
    return found


def published(case: Case, _: Any) -> set[str]:
    """Hold one published network to its payments and defaults; the fields that were compared."""
    debts, assets = debts_of(case["inputs"])
    close = {"abs": case["tol"]["abs"], "rel": case["tol"].get("rel", 1e-8)}
    expected, read = case["expected"], set()
    if "eisenberg_noe" in expected:
        want = expected["eisenberg_noe"]
        found = balanced(clearing(debts, assets), assets)
        assert found.paid == pytest.approx(np.array(want["payments"]), **close)
        assert (found.shortfall > 1e-7).astype(int).tolist() == want["defaults"]
        assert found.shortfall.sum() == pytest.approx(want["total_shortfall"], **close)
        read |= {"eisenberg_noe"}
    for want in expected.get("rogers_veraart", []):
        kept = {"keep_assets": want["alpha"], "keep_received": want["beta"]}
        found = balanced(clearing(debts, assets, **kept), assets)
        assert found.paid == pytest.approx(np.array(want["payments"]), **close)
        assert (found.shortfall > 1e-7).astype(int).tolist() == want["defaults"]
        low = balanced(clearing(debts, assets, least=True, **kept), assets)
        assert (low.paid <= found.paid + 1e-9).all()
        read |= {f"rogers_veraart.{name}" for name in want}
    for want in expected.get("furfine_cascade", []):
        assert failing(debts, assets, want["recovery"]).astype(int).tolist() == want["defaults"]
        read |= {f"furfine_cascade.{name}" for name in want}
    return read


def test_published_cases() -> None:
    check_all("clearing_vectors", published)


def random_debts(rng: np.random.Generator, nodes: int, edges: int) -> tuple[Debts, np.ndarray]:
    ends = rng.integers(0, nodes, (2, edges))
    ends = ends[:, ends[0] != ends[1]]
    value = rng.pareto(1.5, ends.shape[1]) + 0.1
    debts = Debts.of(ends[0], ends[1], value, nodes, rng.exponential(1.0, nodes))
    need = np.maximum(debts.owed - debts.due, 0.0)
    return debts, need * rng.uniform(0.3, 1.3, nodes)


@pytest.mark.parametrize("seed", range(4))
def test_payments_are_those_of_a_linear_programme(seed: int) -> None:
    debts, assets = random_debts(np.random.default_rng(seed), 30, 150)
    found = balanced(clearing(debts, assets), assets)
    pulled = np.zeros((30, 30))
    rows = np.repeat(np.arange(30), np.diff(debts.start))
    np.add.at(pulled, (rows, debts.debtor), debts.share)
    best = linprog(-np.ones(30), np.eye(30) - pulled, assets,
                   bounds=np.stack([np.zeros(30), debts.owed], axis=1))  # fmt: skip
    assert found.paid == pytest.approx(best.x, abs=1e-7)
    assert found.defaulted.any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("least", [False, True])
def test_costs_of_default_end_where_plain_iteration_ends(seed: int, *, least: bool) -> None:
    debts, assets = random_debts(np.random.default_rng(seed), 40, 300)
    kept = {"keep_assets": 0.8, "keep_received": 0.6}
    found = balanced(clearing(debts, assets, least=least, **kept), assets)
    owed, paid = debts.owed, np.zeros(40) if least else debts.owed
    rows = np.repeat(np.arange(40), np.diff(debts.start))
    for _ in range(5_000):
        got = np.bincount(rows, debts.share * paid[debts.debtor], 40)
        paid = np.where(assets + got >= owed * (1.0 - 1e-12), owed, 0.8 * assets + 0.6 * got)
    assert found.paid == pytest.approx(paid, abs=1e-9)


def test_believing_in_each_other_saves_two_who_would_fail_together() -> None:
    debts = Debts.of([0, 1], [1, 0], [10.0, 10.0], 2)
    assets = np.array([1.0, 1.0])
    kept = {"keep_assets": 0.5, "keep_received": 0.5}
    assert clearing(debts, assets, **kept).paid.tolist() == [10.0, 10.0]
    low = clearing(debts, assets, least=True, **kept)
    assert low.paid == pytest.approx([1.0, 1.0])  # p = 0.5 + 0.5 p
    assert low.defaulted.all()


def test_a_ring_that_pays_round_and_round_is_solved_at_once() -> None:
    nodes = 2_000  # each passes on what it gets and keeps next to nothing: sweeps alone would creep
    ring = np.arange(nodes)
    debts = Debts.of(ring, (ring + 1) % nodes, np.full(nodes, 100.0), nodes, np.full(nodes, 1e-3))
    assets = np.full(nodes, 5e-4)
    found = balanced(clearing(debts, assets), assets)
    assert found.paid == pytest.approx(np.full(nodes, 0.5 * 100.001), rel=1e-6)
    assert found.sweeps < 100


def test_who_fails_drags_down_whom_it_owes_more_than_their_equity() -> None:
    debts = Debts.of([0, 1, 2], [1, 2, 3], [4.0, 4.0, 1.0], 4, [1.0, 0.0, 0.0, 0.0])
    assets = [0.0, 3.0, 3.0, 2.0]  # equity -5, 3, 6, 3: claims at face value
    assert failing(debts, assets, 0.0).tolist() == [True, True, False, False]
    assert failing(debts, assets, 0.5).tolist() == [True, False, False, False]
    with pytest.raises(EstimationError, match="recovery was -1"):
        failing(debts, assets, -1.0)


def test_who_owes_nothing_never_defaults_and_pays_no_cost() -> None:
    debts = Debts.of([0, 1], [1, 2], [4.0, 2.0], 3)
    for least in (False, True):
        found = clearing(debts, [1.0, 0.0, 5.0], keep_assets=0.5, keep_received=0.5, least=least)
        assert found.defaulted.tolist() == [True, True, False]
        assert found.paid == pytest.approx([0.5, 0.25, 0.0])
        assert found.cost == pytest.approx([0.5, 0.25, 0.0])
        assert found.equity == pytest.approx([0.0, 0.0, 5.25])


def test_nobody_and_nothing() -> None:
    empty = Debts.of([], [], [], 0)
    assert clearing(empty, []).paid.tolist() == []
    alone = clearing(Debts.of([], [], [], 2, [3.0, 0.0]), [2.0, 5.0])
    assert alone.paid.tolist() == [2.0, 0.0]
    assert alone.equity.tolist() == [0.0, 5.0]
    bare = clearing(Debts.of([0, 1], [1, 0], [4.0, 4.0], 2), [0.0, 0.0])
    assert bare.paid.tolist() == [4.0, 4.0]  # each pays with what the other pays


@pytest.mark.parametrize(
    ("edges", "assets", "kept", "words"),
    [
        (([0], [0], [1.0]), [1.0, 1.0], {}, "owes to itself"),
        (([0], [2], [1.0]), [1.0, 1.0], {}, "none of the 2 nodes"),
        (([0], [1], [-1.0]), [1.0, 1.0], {}, "negative or not finite"),
        (([0], [1], [1.0]), [-1.0, 1.0], {}, "below nothing"),
        (([0], [1], [1.0]), [1.0], {}, "2 finite numbers"),
        (([0], [1], [1.0]), [1.0, 1.0], {"keep_assets": 1.1}, "must be a share"),
    ],
)
def test_what_cannot_be_is_refused(
    edges: Any, assets: list[float], kept: dict[str, float], words: str
) -> None:
    with pytest.raises(EstimationError, match=words):
        clearing(Debts.of(*edges, 2), assets, **kept)


def test_least_payments_make_no_money_where_little_is_owed_outside() -> None:
    # a ring that pays in full only if more is passed on than is owed; 2 is all there is
    debts = Debts.of([0, 0, 1, 2], [1, 2, 0, 3], [99.0, 1.0, 200.0, 50.0], 4)
    assets = np.array([2.0, 0.0, 0.0, 0.0])
    least, greatest = (clearing(debts, assets, least=each) for each in (True, False))
    assert least.equity.sum() + least.outside.sum() == pytest.approx(2.0)
    assert (least.paid <= greatest.paid + 1e-9).all()
    assert least.paid == pytest.approx(greatest.paid, abs=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_least_payments_are_those_of_plain_iteration_from_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, 6, (2, 14))
    ends = ends[:, ends[0] != ends[1]]
    outside = rng.exponential(0.3, 6) * (rng.random(6) < 0.7)
    debts = Debts.of(*ends, rng.exponential(10.0, ends.shape[1]), 6, outside)
    assets = rng.exponential(2.0, 6) * (rng.random(6) < 0.6)
    found = clearing(debts, assets, least=True)
    rows = np.repeat(np.arange(6), np.diff(debts.start))
    paid = np.zeros(6)
    for _ in range(200_000):
        then = np.minimum(
            debts.owed, assets + np.bincount(rows, debts.share * paid[debts.debtor], 6)
        )
        if np.abs(then - paid).max() <= 1e-13:
            break
        paid = then
    assert found.paid == pytest.approx(paid, abs=1e-6)
    assert (found.equity + found.outside).sum() == pytest.approx(assets.sum(), abs=1e-9)


NUMBERINGS = {
    "with the flow": np.arange,
    "against it": lambda nodes: np.arange(nodes)[::-1].copy(),
    "anyhow": lambda nodes: np.random.default_rng(1).permutation(nodes),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("nodes", [3_001, 20_000])
@pytest.mark.parametrize("least", [False, True])
def test_a_long_ring_is_solved_however_its_nodes_are_numbered(
    nodes: int, numbering: str, *, least: bool
) -> None:
    number = NUMBERINGS[numbering](nodes)
    owes = np.roll(number, -1)
    debts = Debts.of(number, owes, np.full(nodes, 10.0), nodes, np.full(nodes, 1e-4))
    assets = np.full(nodes, 0.5e-4)
    found = balanced(clearing(debts, assets, least=least), assets)
    assert found.paid == pytest.approx(np.full(nodes, 5.00005), rel=1e-9)
    assert found.sweeps < 20


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("kept", [{}, {"keep_assets": 0.8, "keep_received": 0.9}])
def test_a_long_chain_fails_to_its_end_however_it_is_numbered(
    numbering: str, kept: dict[str, float]
) -> None:
    nodes = 20_000  # each has enough, if the one before pays all; the first has nothing
    number = NUMBERINGS[numbering](nodes)
    debts = Debts.of(
        number[:-1], number[1:], np.full(nodes - 1, 10.0), nodes, np.full(nodes, 0.01)
    )  # fmt: skip
    assets = np.full(nodes, 0.0101)
    assets[number[0]] = 0.0
    found = balanced(clearing(debts, assets, **kept), assets)
    paid, last = np.empty(nodes), 0.0
    owed = np.full(nodes, 10.01)
    owed[-1] = 0.01
    for k in range(nodes):
        got, own = last, 0.0101 if k else 0.0
        share = kept or {"keep_assets": 1.0, "keep_received": 1.0}
        paid[k] = owed[k] if own + got >= owed[k] else (
            share["keep_assets"] * own + share["keep_received"] * got
        )  # fmt: skip
        last = paid[k] * 10.0 / 10.01
    assert found.paid[number] == pytest.approx(paid, abs=1e-9)
    assert found.sweeps < 20 + payments._PLAIN


def test_debts_that_go_both_ways_or_by_way_of_one_are_the_same_however_numbered() -> None:
    nodes, rng = 4_000, np.random.default_rng(2)
    at = np.arange(nodes)
    hub = (np.r_[at[1:], at[1:-1], np.zeros(nodes - 1, int)],
           np.r_[np.zeros(nodes - 1, int), at[2:], at[1:]])  # fmt: skip
    both = np.r_[at[:-1], at[1:]], np.r_[at[1:], at[:-1]]
    for debtor, creditor in (hub, both):
        value = rng.uniform(5.0, 10.0, len(debtor))
        outside, assets = rng.uniform(0.0, 1e-3, nodes), rng.uniform(0.0, 1e-3, nodes)
        want = None
        for number in (each(nodes) for each in NUMBERINGS.values()):
            out, own = np.empty(nodes), np.empty(nodes)
            out[number], own[number] = outside, assets
            debts = Debts.of(number[debtor], number[creditor], value, nodes, out)
            for least in (False, True):
                found = balanced(clearing(debts, own, least=least), own)
                want = found.paid[number] if want is None else want
                assert found.paid[number] == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_network_that_keeps_nearly_all_to_itself_settles(seed: int) -> None:
    nodes, rng = 5_000, np.random.default_rng(seed)
    ends = rng.integers(0, nodes, (2, 50_000))
    ends = ends[:, ends[0] != ends[1]]
    value = rng.pareto(1.5, ends.shape[1]) + 0.1
    debts = Debts.of(*ends, value, nodes, np.full(nodes, 1e-3))
    assets = np.full(nodes, 0.9e-3)
    greatest = balanced(clearing(debts, assets), assets)
    least = balanced(clearing(debts, assets, least=True), assets)
    assert least.paid == pytest.approx(greatest.paid, rel=1e-9)  # an asset reaches everybody
    kept = {"keep_assets": 0.9, "keep_received": 0.999}
    costly = balanced(clearing(debts, assets, **kept), assets)
    low = balanced(clearing(debts, assets, least=True, **kept), assets)
    assert (low.paid <= costly.paid + 1e-9 * debts.owed).all()


@pytest.mark.parametrize("kept", [{}, {"keep_assets": 0.9, "keep_received": 0.8}])
def test_payments_that_did_not_settle_are_such_as_everybody_can_make(
    kept: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "_MOST", 2)
    debts, assets = random_debts(np.random.default_rng(0), 300, 3_000)
    found = clearing(debts, assets, **kept)
    assert not found.settled
    assert (found.paid + found.cost <= assets + found.received + 1e-9).all()
    left = found.outside.sum() + found.equity.sum() + found.cost.sum()
    assert left == pytest.approx(assets.sum(), rel=1e-12)
    monkeypatch.undo()
    assert (found.paid <= clearing(debts, assets, **kept).paid + 1e-9).all()


def test_where_no_asset_reaches_the_least_is_nothing() -> None:
    # 0 and 1 owe each other and have nothing; 2 has some and owes to 3, which owes it back
    debts = Debts.of([0, 1, 1, 2, 3], [1, 0, 2, 3, 2], [5.0, 4.0, 1.0, 8.0, 8.0], 4)
    found = clearing(debts, [0.0, 0.0, 3.0, 0.0], least=True)
    assert found.paid == pytest.approx([0.0, 0.0, 8.0, 8.0])
    assert found.equity == pytest.approx([0.0, 0.0, 3.0, 0.0])
