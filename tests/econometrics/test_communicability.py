"""Impacts and walks over them: published figures, a sum of powers, networks known by hand."""

from __future__ import annotations

from math import e, factorial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from undertow.econometrics import communicability as module
from undertow.econometrics.communicability import Impacts
from undertow.errors import EstimationError


def some_claims(seed: int, nodes: int = 14) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    claims = rng.exponential(1.0, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.2)
    np.fill_diagonal(claims, 0.0)
    return claims, rng.uniform(0.5, 4.0, nodes)


def summed(impacts: np.ndarray) -> np.ndarray:
    """Powers over factorials, none from a node to itself."""
    power, found = np.eye(len(impacts)), np.zeros_like(impacts)
    for k in range(1, 80):
        power = power @ impacts
        found += power / factorial(k)
    np.fill_diagonal(found, 0.0)
    return found


def test_the_published_figures_of_three_banks() -> None:
    # worked example of the reference implementation, after Silva, Souza and Tabak (2015)
    claims, buffer = [[0, 1, 0], [10, 0, 3], [3, 2, 0]], [2, 5, 2]
    found = Impacts.of(claims, buffer, binary=True)
    assert found.matrix.toarray().tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert found.susceptibility == pytest.approx([0.0, 1.0, 1.25], abs=1e-15)
    assert found.fluidity == pytest.approx(0.75, abs=1e-15)
    over = found.diffusion()
    assert over.start == pytest.approx([1.25, 1.0, 0.0], abs=1e-15)
    assert over.intermediate == pytest.approx([0.0, 0.5, 0.0], abs=1e-15)
    assert over.total == pytest.approx([1.25, 1.5, 0.0], abs=1e-15)
    valued = Impacts.of(claims, buffer)
    assert valued.matrix.toarray().tolist() == [[0, 1, 1], [0.5, 0, 1], [0, 0.6, 0]]
    assert Impacts.of(claims, buffer, cap=False).matrix.toarray().tolist() == [
        [0, 2, 1.5], [0.5, 0, 1], [0, 0.6, 0],
    ]  # fmt: skip
    assert valued.criticality() == pytest.approx([2.0, 1.5, 0.6])
    assert valued.criticality(buffer) == pytest.approx([7.0, 3.0, 3.0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", [{}, {"binary": True}, {"cap": False}])
def test_walks_are_sums_of_powers(seed: int, how: dict[str, bool]) -> None:
    claims, buffer = some_claims(seed)
    impacts = claims.T / buffer
    if how.get("cap", True):
        impacts = np.minimum(impacts, 1.0)
    if how.get("binary"):
        impacts = np.floor(impacts)
    found, whole = Impacts.of(csr_array(claims), buffer, **how), summed(impacts)
    assert found.matrix.toarray() == pytest.approx(impacts)
    assert found.communicability == pytest.approx(whole, abs=1e-12)
    into = impacts.sum(axis=0)
    want = np.divide(whole.sum(axis=0), into, out=np.zeros_like(into), where=into > 0.0)
    assert found.susceptibility == pytest.approx(want, abs=1e-12)
    assert found.fluidity == pytest.approx(want.mean())
    weight = np.random.default_rng(seed).exponential(1.0, len(buffer))
    weighted, over = found.diffusion(weight=weight), found.diffusion()
    part = found.part([[n] for n in range(len(buffer))], weight)
    for node in range(len(buffer)):
        without = impacts.copy()
        without[node] = 0.0
        lost = whole - summed(without)
        direct = impacts[node].sum() or 1.0
        assert over.start[node] == pytest.approx(lost[node].sum() / direct, abs=1e-11)
        assert over.total[node] == pytest.approx(lost.sum() / direct, abs=1e-11)
        assert weighted.start[node] == pytest.approx(lost[node] @ weight, abs=1e-11)
        assert weighted.total[node] == pytest.approx((lost @ weight).sum(), abs=1e-11)
        assert part[node] == pytest.approx((lost @ weight).sum() / (whole @ weight).sum())
    some = [1, 4, 5]
    without = impacts.copy()
    without[some] = 0.0
    both = (whole - summed(without)).sum() / whole.sum()
    assert found.part([some])[0] == pytest.approx(both)
    assert both <= found.part([[n] for n in some]).sum() + 1e-12
    assert found.part([range(len(buffer))])[0] == pytest.approx(1.0)


def test_a_chain_as_by_hand_and_a_node_without_links() -> None:
    # 1 has claims on 0, 2 on 1, 3 on 2, all of three buffers' worth; 4 has nothing to do with any
    claims, buffer = np.zeros((5, 5)), np.full(5, 2.0)
    claims[[1, 2, 3], [0, 1, 2]] = 6.0
    found = Impacts.of(claims, buffer)
    want = np.zeros((5, 5))
    want[[0, 1, 2], [1, 2, 3]], want[[0, 1], [2, 3]], want[0, 3] = 1.0, 1.0 / 2.0, 1.0 / 6.0
    assert found.communicability == pytest.approx(want, abs=1e-15)
    assert found.susceptibility == pytest.approx([0.0, 1.0, 1.5, 5.0 / 3.0, 0.0])
    over = found.diffusion()
    assert over.start == pytest.approx([5.0 / 3.0, 1.5, 1.0, 0.0, 0.0])
    assert over.intermediate == pytest.approx([0.0, 1.0 / 2 + 1.0 / 6, 1.0 / 2 + 1.0 / 6, 0.0, 0.0])
    assert found.part([[4], [3], [0, 1, 2]]).tolist() == [0.0, 0.0, 1.0]
    half = Impacts.of(claims / 6.0, buffer)
    assert half.communicability[0, 3] == pytest.approx(0.5**3 / 6.0)
    assert not Impacts.of(claims / 6.0, buffer, binary=True).communicability.any()


def test_walks_round_a_pair_that_owe_each_other() -> None:
    pair = Impacts.of([[0.0, 1.0], [1.0, 0.0]], [1.0, 1.0])
    sinh = (e - 1.0 / e) / 2.0
    assert pair.communicability == pytest.approx(np.array([[0.0, sinh], [sinh, 0.0]]))
    assert pair.circle == 2
    assert pair.susceptibility == pytest.approx([sinh, sinh])
    over = pair.diffusion()
    assert over.start == pytest.approx([sinh, sinh])
    assert over.intermediate == pytest.approx([sinh - 1.0] * 2)  # but the one step of the other


def test_a_large_network_is_walked_without_a_matrix_of_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, step = 20_000, np.arange(19_999)
    claims = csr_array((np.full(size - 1, 0.5), (step + 1, step)), shape=(size, size))
    found = Impacts.of(claims, np.ones(size))
    with pytest.raises(EstimationError, match="for 3,000 at most"):
        _ = found.communicability
    assert found.susceptibility[-1] == pytest.approx((np.exp(0.5) - 1.0) / 0.5)
    over = found.diffusion([0, 10_000, size - 1])
    assert over.start == pytest.approx([(np.exp(0.5) - 1.0) / 0.5] * 2 + [0.0])
    claims, buffer = some_claims(3, 30)
    small = Impacts.of(claims, buffer)
    whole = small.diffusion()
    monkeypatch.setattr(module, "_ROOM", 100)  # a few nodes at a time
    assert small.diffusion().total.tolist() == pytest.approx(whole.total.tolist(), rel=1e-14)
    monkeypatch.setattr(module, "_CIRCLE", 5)
    with pytest.raises(EstimationError, match="ways back"):
        _ = Impacts.of(claims, buffer).susceptibility


def test_nobody_and_nothing() -> None:
    nobody = Impacts.of(np.zeros((0, 0)), [])
    assert nobody.communicability.shape == (0, 0)
    assert nobody.susceptibility.tolist() == nobody.diffusion().total.tolist() == []
    assert nobody.fluidity == nobody.circle == 0
    apart = Impacts.of(np.zeros((3, 3)), [0.0, 1.0, 2.0])
    assert not apart.communicability.any()
    assert not apart.criticality().any()
    assert apart.part([[0], [0, 1, 2]]).tolist() == [0.0, 0.0]
    bare = Impacts.of([[0.0, 1e-9], [0.0, 0.0]], [0.0, 1.0])  # no buffer: any claim is all of it
    assert bare.matrix.toarray().tolist() == [[0, 0], [1, 0]]
    assert Impacts.of([[0.0, 1.0], [0.0, 0.0]], [1e-320, 1.0]).criticality().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("claims", "buffer", "how", "words"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], [1.0, 1.0], {}, "node 0 holds a claim on itself"),
        ([[0.0, -1.0], [0.0, 0.0]], [1.0, 1.0], {}, "negative or not finite"),
        ([[0.0, np.nan], [0.0, 0.0]], [1.0, 1.0], {}, "negative or not finite"),
        ([[0.0, 1.0], [0.0, 0.0]], [-1.0, 1.0], {}, "buffer is negative"),
        ([[0.0, 1.0], [0.0, 0.0]], [1.0], {}, "a row, a column and a buffer a node"),
        ([[0.0, 1.0]], [1.0], {}, "a row, a column and a buffer a node"),
        ([[0.0, 1.0], [0.0, 0.0]], [0.0, 1.0], {"cap": False}, "no buffer"),
    ],
)
def test_what_cannot_be_is_refused(
    claims: Any, buffer: list[float], how: dict[str, bool], words: str
) -> None:
    with pytest.raises(EstimationError, match=words):
        Impacts.of(claims, buffer, **how)


def test_what_cannot_be_asked_is_refused() -> None:
    pair = Impacts.of([[0.0, 1.0], [1.0, 0.0]], [1.0, 1.0])
    with pytest.raises(EstimationError, match="2 finite numbers"):
        pair.criticality([1.0])
    with pytest.raises(EstimationError, match="2 finite numbers"):
        pair.diffusion(weight=[1.0, -1.0])
    huge = Impacts.of([[0.0, 2e3], [2e3, 0.0]], [1.0, 1.0], cap=False)
    with pytest.raises(EstimationError, match="beyond all numbers"):
        _ = huge.susceptibility
    before = pair.matrix.toarray()
    with pytest.raises(ValueError, match="read-only"):
        pair.matrix.data[0] = 7.0
    assert (pair.matrix.toarray() == before).all()
