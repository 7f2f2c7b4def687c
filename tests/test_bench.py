"""What the benchmark compares the sweep with gives the same answers, or it would prove nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from bench.blocked import Blocked
from bench.cascade import stratified
from bench.sparse import Sparse, _closed_pairs, _closed_whole, _slice_shares
from bench.totals import Totals

from undertow.kernels import closing
from undertow.stress.cascade import Engine
from undertow.stress.draws import Given
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import run_sweep
from undertow.worlds import bench_book

DRAWS = 6  # of 12 %, by severity; the first is the worst of 384
NEAR = 1e-9  # of the book


@cache
def plan() -> Plan:
    return Plan.of(bench_book(seed=1, accounts=4_000).snapshot())


@cache
def moves() -> np.ndarray:
    ranked = stratified(plan(), 384, 384)
    return ranked[np.argsort(ranked.mean(axis=1))][[0, 8, 64, 160, 256, 383]]


def stressed(n: int) -> Stressed:
    return Stressed.calm(plan().snapshot).put("factor", slice(None), moves()[n])


@cache
def engines() -> tuple[Totals, ...]:
    engine = Engine(plan())
    return tuple(Totals.of(engine.run(stressed(n), Options(), trace=False)) for n in range(DRAWS))


@cache
def blocked() -> Blocked:
    return Blocked.of(plan())


@cache
def sparse() -> Sparse:
    return Sparse.of(plan())


def test_the_draws_hold_a_severe_one_and_a_mild_one() -> None:
    closed = [totals.accounts for totals in engines()]
    assert max(closed) > 400
    assert 0 < min(closed) < 60
    assert engines()[0].called_twice > 0
    assert engines()[0].bad.sum() > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("n", range(DRAWS))
def test_blocks_give_the_bits_of_the_engine(n: int) -> None:
    assert blocked().run(stressed(n)).same(engines()[n])


@pytest.mark.parametrize("n", range(DRAWS))
def test_matrices_come_within_a_billionth_of_the_book(n: int) -> None:
    found = sparse().run(stressed(n))
    assert found.counts == engines()[n].counts
    assert found.apart(engines()[n]) <= NEAR * plan().gross_usd.sum()


@pytest.mark.slow
def test_the_size_of_a_block_changes_no_bit_and_a_scenario_leaves_nothing_behind() -> None:
    single = Blocked.of(plan(), block=1)
    for n in (0, 3, 0):
        assert single.run(stressed(n)).same(engines()[n])
    first = sparse().run(stressed(3))
    sparse().run(stressed(0))
    assert sparse().run(stressed(3)).same(first)


@pytest.mark.slow
def test_blocks_spare_most_of_the_book_a_look() -> None:
    mildest = min(range(DRAWS), key=lambda n: engines()[n].accounts)
    blocked().run(stressed(mildest))
    assert blocked().judged < 0.5 * len(plan().hold.accounts) * engines()[mildest].rounds


def test_a_sweep_over_given_moves_is_what_the_baselines_follow() -> None:
    many = run_sweep(plan(), Given.of(moves()), DRAWS, settled=False)
    universe = plan().snapshot.universe
    for n in range(DRAWS):
        one = engines()[n]
        assert (one.by(universe.venue_of) == many.by_venue[n, 0]).all()
        assert one.accounts == many.rows["accounts"][n]


def test_baselines_refuse_what_they_do_not_follow() -> None:
    louder = stressed(1).scaled("vol_mult", slice(None), 1.5)
    with pytest.raises(ValueError, match="moves alone"):
        blocked().run(louder)
    with pytest.raises(ValueError, match="plain cascade"):
        sparse().run(stressed(1), Options(capacity=True))
    with pytest.raises(ValueError, match="prepared"):
        blocked().run(stressed(1), Options(coupling=0.25))


# ---- rules in columns against the kernels, also where the bench book has none of the kind


@cache
def rules(count: int) -> np.recarray:
    rng = np.random.default_rng(4)
    rows = np.repeat(plan().closing[:1], count)
    pick = lambda *values: rng.choice(values, count)  # noqa: E731
    rows["close_factor"], rows["full_below"] = pick(0.5, 0.25, 1.0), pick(0.0, 0.95)
    rows["small_usd"], rows["leftover_usd"] = pick(0.0, 2_000.0), pick(0.0, 1_000.0)
    rows["of_all_debt"] = pick(False, True)
    rows["target_health"] = pick(0.0, 0.0, 1.05, 1.2)
    rows["bonus_start"], rows["bonus_full_at"] = pick(1.0, 0.4), pick(1.0, 0.9)
    rows["penalty"] = pick(0.0, 0.13)
    rows["seize_all"], rows["returns_surplus"] = pick(False, True), pick(False, False, True)
    rows["slice"], rows["slice_above_usd"] = pick(0.2, 1.0), pick(0.0, 5e3)
    rows["backstop_below"], rows["to_health"] = pick(0.0, 2.0 / 3.0), pick(0.0, 1.02)
    rows["fee"] = pick(0.0, 0.01)
    return rows.view(np.recarray)


def test_pairs_in_columns_are_those_of_the_kernel() -> None:
    count = 4_000
    rng = np.random.default_rng(5)
    held, debt = np.exp(rng.normal(7.5, 1.2, count)), np.exp(rng.normal(7.3, 1.2, count))
    all_debt, bonus = debt * rng.choice([1.0, 1.3], count), rng.uniform(0.0, 0.15, count)
    threshold, weight = rng.uniform(0.6, 0.95, count), rng.choice([1.0, 1.1], count)
    asked = all_debt * weight
    cover = asked * rng.uniform(0.5, 0.999, count)
    found = _closed_pairs(
        rules(count), cover, asked, all_debt, held, debt, threshold, bonus, weight
    )
    columns = (cover, asked, all_debt, held, debt, threshold, bonus, weight)
    rows = enumerate(zip(*columns, strict=True))
    wanted = np.array([closing.close_pair(np.int32(v), rules(count), *row) for v, row in rows])
    done = wanted[:, 0] > 0.0
    assert 0.5 < done.mean() < 1.0
    assert ((found[0] > 0.0) == done).all()
    for column, right in zip(found, wanted.T, strict=True):
        assert np.allclose(column[done], right[done], rtol=1e-12, atol=0.0)


def test_wholes_and_slices_in_columns_are_those_of_the_kernel() -> None:
    count = 2_000
    rng = np.random.default_rng(6)
    held, debt = np.exp(rng.normal(8.0, 0.4, count)), np.exp(rng.normal(8.0, 0.4, count))
    bonus = rng.uniform(0.0, 0.15, count)
    whole = _closed_whole(rules(count), held, debt, bonus)
    slices = _slice_shares(rules(count), held - debt, 0.2 * held, held)
    for v in range(count):
        at = np.int32(v)
        right = closing.close_whole.py_func(at, rules(count), held[v], debt[v], bonus[v])
        assert np.allclose([column[v] for column in whole], right, rtol=1e-12, atol=1e-12)
        share = closing.slice_share(at, rules(count), held[v] - debt[v], 0.2 * held[v], held[v])
        assert slices[v] == pytest.approx(share, rel=1e-12, abs=0.0)
    assert len(np.unique(slices)) > 50
