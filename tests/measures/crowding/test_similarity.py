"""Who stands in the same place: planted clusters and herds, and prices that are no herd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.metrics import adjusted_rand_score, silhouette_score

from crowds import PRICE, crowd
from measures.crowding.extremes import small_book
from undertow.econometrics.clusters import (
    adjusted_rand,
    assigned,
    cluster_directions,
    directions,
    stability,
)
from undertow.econometrics.herds import Herds, herds
from undertow.errors import EstimationError, StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.flows import OwnerFlows, owner_flows
from undertow.measures.crowding.similarity import similarity
from undertow.measures.crowding.strategies import Holdings, VenueHoldings, called, measures_of
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.worlds import build_world, tiny_world

HOUR_US = 3_600_000_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- clusters


def planted(
    members: int, count: int, columns: int = 12, noise: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    draw = rng(1)
    centre = np.linalg.qr(draw.standard_normal((columns, count)))[0].T  # at right angles
    label = draw.integers(count, size=members)
    x = centre[label] + noise * draw.standard_normal((members, columns))
    return x * draw.lognormal(0.0, 2.0, members)[:, None], label


@pytest.mark.parametrize("count", [2, 4, 7])
def test_planted_directions_are_found_whatever_the_sizes(count: int) -> None:
    x, label = planted(400, count)
    found = cluster_directions(x, rng=rng())
    assert len(found) == count
    assert adjusted_rand_score(label, found.label) > 0.98
    sure = stability(x, found, rng=rng(2), reps=19)
    assert (sure.jaccard > 0.9).all()
    assert sure.rand > 0.95


def test_the_silhouette_and_the_index_of_rand_are_those_of_scikit_learn() -> None:
    x, label = planted(120, 3, noise=0.3)
    found = cluster_directions(x, rng=rng())
    k = len(found)
    assert found.tried[k - 2] == pytest.approx(
        silhouette_score(directions(x), found.label, metric="cosine")
    )
    other = rng(3).integers(4, size=120)
    assert adjusted_rand(label, other) == pytest.approx(adjusted_rand_score(label, other))
    assert adjusted_rand(label, label) == 1.0


def test_all_alike_is_one_cluster_and_without_structure_or_a_common_direction_there_is_none() -> (
    None
):
    draw = rng(4)
    tight = np.ones((50, 5)) + 0.05 * draw.standard_normal((50, 5))
    found = cluster_directions(tight, rng=rng())
    assert (len(found), found.why) == (1, "all point one way")
    loose = np.ones((200, 30)) + 0.7 * draw.standard_normal((200, 30))
    found = cluster_directions(loose, rng=rng())
    assert len(found) == 1
    assert 0.75 < found.tight < 0.95
    assert found.why.startswith("no number of clusters has a silhouette")
    assert np.isnan(stability(loose, found, rng=rng(), reps=19).jaccard).all()
    apart = draw.standard_normal((200, 30))
    found = cluster_directions(apart, rng=rng())
    assert (len(found), set(found.label)) == (0, {-1})
    assert found.why.startswith("no number of clusters has a silhouette")
    assert stability(apart, found, rng=rng(), reps=19).centres == ()
    two = cluster_directions(np.eye(2), rng=rng())
    assert (len(two), two.why) == (0, "there are too few to tell apart")


def test_one_who_stands_against_all_others_is_no_part_of_their_place() -> None:
    x = np.ones((100, 3)) + 0.1 * rng(5).standard_normal((100, 3))
    x[7] *= -1_000.0
    found = cluster_directions(x, rng=rng())
    assert found.tight > 0.95
    assert len(found) == 2
    assert np.flatnonzero(found.label == 1).tolist() == [7]
    assert assigned(-x[:3], found.centre[:1]).tolist() == [-1] * 3


def test_who_holds_nothing_has_no_cluster_and_opposites_have_two() -> None:
    x = np.vstack([np.outer(np.append(np.ones(20), -np.ones(20)), [1.0, 2.0]), np.zeros((3, 2))])
    found = cluster_directions(x, rng=rng())
    assert len(found) == 2
    assert (found.label[-3:] == -1).all()
    assert len(set(found.label[:20])) == len(set(found.label[20:40])) == 1
    with pytest.raises(EstimationError, match="no row has a direction"):
        cluster_directions(np.zeros((4, 2)), rng=rng())


def test_a_continuum_is_cut_all_the_same() -> None:
    """A limit that is said: halves of an arc are told apart, and found again."""
    angle = np.linspace(0.0, np.pi, 300)
    x = np.column_stack([np.cos(angle), np.sin(angle)])
    found = cluster_directions(x, rng=rng())
    assert len(found) == 2
    assert stability(x, found, rng=rng(5), reps=19).jaccard.min() > 0.75
    assert "continuum" in similarity(three_places()).misleads


# ---------------------------------------------------------------- herds


def traders(
    seed: int, *, steps: int = 300, members: int = 8, herd: int = 0, follow: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Owners who all answer one price, now and a step late, and more often when it moves.

    The first `herd` answer a signal of their own besides, every second of them a step late.
    """
    draw = rng(seed)
    loud = np.exp(0.5 * np.cumsum(0.05 * draw.standard_normal(steps)))
    move = loud * draw.standard_t(4, steps)
    z = move / move.std()
    late, signal = np.concatenate([[0.0], z[:-1]]), draw.standard_normal(steps)
    flow = np.zeros((steps, members))
    for j in range(members):
        lean = draw.normal(1.0, 0.5) * z + draw.normal(0.5, 0.3) * late
        if j < herd:
            lean = lean + follow * np.roll(signal, j % 2)
        acts = draw.random(steps) < 1.0 / (1.0 + np.exp(1.0 - np.abs(z)))
        buys = draw.random(steps) < 1.0 / (1.0 + np.exp(-lean))
        way = np.where(acts, np.where(buys, 1.0, -1.0), 0.0)
        flow[:, j] = way * draw.lognormal(0.0, 1.0, steps)
    return flow, np.repeat(0.01 * move[:, None], members, axis=1)


def looked_at(seed: int, **more: float) -> Herds:
    flow, returns = traders(seed, **more)  # type: ignore[arg-type]
    return herds(flow, returns, rng=rng(seed + 1_000), window=1, lags=1, reps=99)


def false_share(worlds: int) -> int:
    return sum(looked_at(seed).count > 0 for seed in range(worlds))


def test_a_common_answer_to_a_price_is_no_herd() -> None:
    worlds = 40
    low, high = binom.ppf([0.005, 0.995], worlds, 0.05)
    assert low <= false_share(worlds) <= high


@pytest.mark.slow
def test_false_herds_are_as_rare_as_they_are_said_to_be() -> None:
    worlds = 400
    low, high = binom.ppf([0.005, 0.995], worlds, 0.05)
    assert low <= false_share(worlds) <= high


def test_a_planted_herd_is_found_with_who_leads() -> None:
    found = looked_at(3, steps=500, members=12, herd=6, follow=4.0)
    assert found.herd.tolist() == [0] * 6 + [-1] * 6
    assert found.lag[0, 1] == 1  # the second follows the first by a step
    assert found.lag[1, 0] == -1
    assert found.p_value[0, 2] <= 0.05
    assert found.p_value[7:, 7:].min() > 0.05
    np.testing.assert_allclose(found.score, found.score.T)


def test_prices_are_taken_out_of_what_they_make_everybody_do() -> None:
    flow, returns = traders(9, steps=2_000, members=6)
    found = herds(flow, returns, rng=rng(), window=1, lags=1, reps=19)
    blind = herds(flow, np.zeros_like(returns), rng=rng(), window=1, lags=1, reps=19)
    pairs = np.triu_indices(6, 1)
    assert blind.beyond[pairs].mean() > 0.05
    assert abs(found.beyond[pairs].mean()) < 0.25 * blind.beyond[pairs].mean()
    assert found.raw[pairs].mean() == pytest.approx(blind.raw[pairs].mean())
    assert (found.explained > blind.explained).all()


def test_owners_who_seldom_trade_are_left_out_by_name() -> None:
    flow, returns = traders(4, members=5)
    flow[:, 1] = 0.0
    flow[:, 2] = 1.0
    flow[:200, 3] = np.nan
    found = herds(flow, returns, rng=rng(), lags=1, reps=19)
    assert found.reasons[1].startswith("too few trades: 0")
    assert found.reasons[2] == "constant"
    assert found.reasons[0] == found.reasons[3] == ""
    nobody = herds(np.full((300, 3), np.nan), np.zeros((300, 3)), rng=rng())
    assert nobody.count == 0
    assert nobody.reason.startswith("0 of 3 members trade often enough")
    busy = np.sign(rng(6).standard_normal((40, 3)))
    short = herds(busy, rng(7).standard_normal((40, 3)), rng=rng(), lags=2)
    assert short.reasons == ("too short: 40 steps, 165 are needed",) * 3
    with pytest.raises(EstimationError, match="returns are"):
        herds(flow, returns[:, :2], rng=rng())


def test_who_only_buys_while_it_is_seen_is_constant_and_unseen_steps_are_no_record() -> None:
    flow, returns = traders(4, members=5)
    flow[1::2, 1] = np.nan
    flow[::2, 1] = 1.0  # a sale or a rest was never seen
    flow[50:, 2] = np.nan
    flow[:50, 2] = np.sign(rng(8).standard_normal(50))
    found = herds(flow, returns, rng=rng(), lags=1, reps=19)
    assert found.reasons[1] == "constant"
    assert found.reasons[2] == "too short: 50 steps, 55 are needed"
    assert np.isnan(found.explained[1:3]).all()
    assert found.reasons[0] == found.reasons[3] == ""


# ---------------------------------------------------------------- flows


def at(snapshot: Snapshot, hours: int, qty: np.ndarray) -> Snapshot:
    book = replace(snapshot.book, qty=frozen(np.asarray(qty, dtype=np.float64)))
    return replace(snapshot, ts=snapshot.ts + hours * HOUR_US, book=book)


def test_flow_is_what_was_bought_at_the_prices_before_and_interest_is_none() -> None:
    start = crowd([0.2, 0.3, 0.1], [1_000.0, 2_000.0, 500.0], share=0.5)
    qty = np.array(start.book.qty)
    rows = Crowd.of(start).lean != 0.0
    first = int(np.flatnonzero(rows)[0])
    more = qty.copy()
    more[first] += 3.0
    mark = start.market.mark.copy()
    mark[start.book.inst[first]] *= 1.1
    after = replace(at(start, 1, more), market=replace(start.market, mark=frozen(mark)))
    found = owner_flows([start, after, at(after, 1, more * 1.0001)])
    assert found.owners.tolist() == [1, 0, 2]  # by leveraged USD
    np.testing.assert_allclose(found.flow, [[0.0, 3.0 * PRICE, 0.0], [0.0, 0.0, 0.0]])
    assert np.diff(found.ts) == [HOUR_US]
    assert found.leveraged[0] > found.leveraged[1] > found.leveraged[2]


def test_flows_need_two_books_in_order_and_somebody_leveraged() -> None:
    start = crowd([0.2], [1_000.0], share=0.5)
    with pytest.raises(StateError, match="two snapshots"):
        owner_flows([start])
    with pytest.raises(StateError, match="comes after"):
        owner_flows([start, start])
    with pytest.raises(StateError, match="top was 0"):
        owner_flows([start], top=0)
    with pytest.raises(StateError, match="flow is"):
        OwnerFlows.from_arrays(np.arange(3), np.arange(2), np.zeros((2, 2)), np.zeros((3, 2)),
                               np.ones(2))  # fmt: skip


# ---------------------------------------------------------------- the study


def test_holdings_are_the_legs_added_up_by_owner_and_root() -> None:
    snapshot = build_world(2, accounts=200, assets=8, venues=6).snapshot()
    seen = Crowd.of(snapshot)
    book, universe = snapshot.book, snapshot.universe
    frame = pl.DataFrame({
        "owner": book.owner[book.leg_account], "usd": seen.lean,
        "root": universe.root[seen.asset], "venue": book.venue[book.leg_account],
    })  # fmt: skip
    found = Holdings.of(seen)
    net = found.dense(found.order)
    for rank in (0, 7, len(found.order) - 1):
        mine = frame.filter(pl.col("owner") == int(found.order[rank]))
        for root, total in mine.group_by("root").agg(pl.col("usd").sum()).iter_rows():
            assert net[rank, root] == pytest.approx(total, abs=1e-6)
    assert (np.diff(found.leveraged[found.order]) <= 0.0).all()
    whole = VenueHoldings.of(seen)
    usd = pl.col("usd")
    by = frame.group_by("venue", "root").agg(usd.sum(), usd.abs().sum().alias("gross"))
    for venue, root, total, gross in by.iter_rows():
        assert whole.net[venue, root] == pytest.approx(total, abs=1e-6)
        assert whole.gross[venue, root] == pytest.approx(gross, abs=1e-6)


def three_places() -> Snapshot:
    """60 % of USD long of C0, 30 % short of C1, 10 % long of C2 and C1; of equal accounts each."""
    size = [100.0] * 30 + [50.0] * 30 + [50.0 / 3.0] * 30
    held = np.zeros((90, 3))
    held[:30, 0] = held[30:60, 1] = 1.0
    held[60:, 1:] = 0.5
    long = np.repeat([True, False, True], 30)
    return crowd(np.full(90, 0.2), size, share=0.5, assets=3, held=held, long=long)


def test_planted_places_are_found_with_their_shares() -> None:
    found = similarity(three_places())
    clusters = found.tables["clusters"]
    assert clusters["strategy"].to_list() == ["long C0", "short C1", "long C1 and C2"]
    assert clusters["share"].to_list() == pytest.approx([0.6, 0.3, 0.1])
    assert clusters["stability"].to_list() == pytest.approx([1.0] * 3)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(0.6)
    assert found.headline.low is not None
    assert found.headline.low < 0.6 < (found.headline.high or 0.0)
    several = found.reading("crowding.effective_strategies").value
    assert several == pytest.approx(1.0 / (0.36 + 0.09 + 0.01))
    shares = np.array([0.6, 0.3, 0.1])
    assert found.reading("crowding.strategies_by_entropy").value == pytest.approx(
        np.exp(-(shares * np.log(shares)).sum())
    )
    assert found.tables["places"]["share"].sum() == pytest.approx(1.0)
    assert found.says[0].startswith("60 % (")


def test_closeness_and_overlap_of_owners_are_by_hand() -> None:
    snapshot = three_places()
    found = similarity(snapshot, top=90)
    usd = Crowd.of(snapshot).leveraged
    held = np.zeros((90, 3))
    lean = Crowd.of(snapshot).lean
    book, universe = snapshot.book, snapshot.universe
    for leg in np.flatnonzero(lean != 0.0):
        coin = int(universe.assets[universe.asset_of[book.inst[leg]]][1])
        held[book.leg_account[leg], coin] += lean[leg]
    unit = held / np.linalg.norm(held, axis=1)[:, None]
    weight = np.outer(usd, usd)
    np.fill_diagonal(weight, 0.0)
    want = float((weight * (unit @ unit.T)).sum() / weight.sum())
    assert found.reading("crowding.owner_similarity").value == pytest.approx(want)
    assert found.reading("crowding.collateral_similarity").value == pytest.approx(1.0)  # all USDC
    depth = np.array([snapshot.market.depth[universe.code("instrument", f"x:C{k}")] * PRICE
                      for k in range(3)])  # fmt: skip
    common = (held / depth) @ held.T
    np.fill_diagonal(common, 0.0)
    value = found.reading("crowding.overlap").value
    assert value == pytest.approx(common.sum() / np.abs(held).sum())


def test_overlap_of_thin_markets_is_more_than_is_held_and_called_no_share() -> None:
    book = small_book()
    thin = replace(book, market=replace(book.market, depth=frozen(book.market.depth * 1e-3)))
    found = similarity(thin, reps=19)
    pairs = found.tables["venues"].drop_nulls("overlap_to_first")
    assert pairs["overlap_to_first"].max() > 1.0
    assert pairs["overlap_to_first"].to_list() == pytest.approx(
        (pairs["overlap_usd"] / pairs["first_usd"]).to_list()
    )
    assert "no share" in found.misleads


def test_places_of_pairs_are_as_sure_as_their_distance_to_others() -> None:
    usd = np.append([1e6, 2e6], rng(6).uniform(10.0, 20.0, 18))
    found = similarity(crowd(np.full(20, 0.2), usd, share=0.5), reps=19).tables["pairs"]
    assert found["rank"].to_list() == list(range(1, 101))
    assert (found["rank_low"] <= found["rank"]).all()
    assert (found["rank_high"] >= found["rank"]).all()
    giants, close = found.row(0, named=True), found.row(10, named=True)
    assert {giants["first"], giants["second"]} == {"0", "1"}
    assert (giants["rank_low"], giants["rank_high"]) == (1, 1)
    assert close["rank_low"] <= 5
    assert close["rank_high"] >= 15
    few = similarity(crowd(np.full(9, 0.2), usd[:9], share=0.5), reps=19).tables["pairs"]
    assert few["rank"].to_list() == list(range(1, 37))
    assert few["rank_low"].null_count() == few["rank_high"].null_count() == 36
    alike = similarity(crowd(np.full(20, 0.2), np.full(20, 5.0), share=0.5), reps=19)
    assert set(alike.tables["pairs"]["rank"]) == {1}
    thin = crowd(np.full(12, 0.2), usd[:12], share=0.5)
    nothing = frozen(np.zeros_like(thin.market.depth))
    blind = similarity(replace(thin, market=replace(thin.market, depth=nothing)), reps=19)
    assert blind.tables["pairs"]["rank"].null_count() == blind.tables["pairs"].height


def test_a_short_only_book_stands_in_one_place() -> None:
    book = crowd(np.full(20, 0.2), np.full(20, 10.0), share=0.5, long=np.zeros(20, dtype=bool))
    found = similarity(book)
    assert found.says[0].startswith("There is one place: short C0, with 100 % of leveraged USD")
    assert found.reading("crowding.cluster_stability").value is None
    assert found.tables["clusters"].select("stability", "there").rows() == [(None, True)]
    assert found.reading("crowding.effective_strategies").value == pytest.approx(1.0)
    assert found.reading("crowding.owner_similarity").value == pytest.approx(1.0)


def scattered(assets: int, owners: int = 150) -> Snapshot:
    """Owners of perps on random sides, in random amounts."""
    held, long = np.full((owners, assets), 1.0 / assets), np.ones(owners, dtype=bool)
    usd = np.full(owners, 1e3)
    book = crowd(np.full(owners, 0.3), usd, share=0.3, assets=assets, held=held, long=long)
    legs = Crowd.of(book).lean != 0.0
    qty = book.book.qty.copy()
    qty[legs] *= rng(3).standard_normal(int(legs.sum()))
    return replace(book, book=replace(book.book, qty=frozen(qty)))


def test_owners_who_point_anywhere_stand_in_no_place() -> None:
    found = similarity(scattered(10), reps=19)
    for name in ("largest_place", "effective_strategies", "strategies_by_entropy"):
        reading = found.reading(f"crowding.{name}")
        assert (reading.value, reading.low) == (None, None)
        assert "no clusters can be told apart" in reading.definition
    assert found.reading("crowding.cluster_stability").value is None
    assert found.says[0].startswith("No places can be told apart, and owners have little")
    assert found.tables["clusters"].select("cluster", "owners", "share").rows() == [
        (None, 150, 1.0)
    ]
    assert found.tables["places"].height == 0


def test_no_share_is_above_one_and_all_of_it_is_one() -> None:
    for seed in range(4):
        sizes = rng(seed).lognormal(0.0, 2.0, 40 + seed)
        found = similarity(crowd(np.full(len(sizes), 0.2), sizes, share=0.5), reps=19)
        place = found.reading("crowding.largest_place")
        assert (place.value, place.low, place.high) == (1.0, 1.0, 1.0)
        for name in ("owner_similarity", "collateral_similarity"):
            alike = found.reading(f"crowding.{name}")
            assert alike.value is not None
            assert alike.high is not None
            assert 0.999 < alike.value <= alike.high <= 1.0
        assert found.tables["clusters"]["share"].to_list() == [1.0]


@pytest.mark.parametrize("accounts", [1, 2, 9])
def test_few_accounts_are_a_stated_outcome(accounts: int) -> None:
    found = similarity(crowd([0.2] * accounts, [10.0] * accounts, share=0.5))
    assert found.headline is not None
    assert found.headline.value is None
    assert found.says[0].startswith("Whether leverage stands in one place cannot be told")
    similar = found.reading("crowding.owner_similarity").value
    assert similar is None if accounts == 1 else similar == pytest.approx(1.0)
    assert found.tables["clusters"].height == 0


def test_nobody_leveraged_is_a_stated_outcome() -> None:
    snapshot = tiny_world().snapshot()
    idle = replace(snapshot, book=replace(snapshot.book, qty=frozen(np.maximum(snapshot.book.qty, 0)
                   * (snapshot.book.kind < 4))))  # fmt: skip
    found = similarity(idle)
    assert all(r.value is None for r in found.readings[:6])
    assert found.tables["pairs"].height == 0


def test_flows_say_who_herds_and_without_them_it_cannot_be_told() -> None:
    book = three_places()
    without = similarity(book)
    assert without.says[-1].endswith("it takes books at many instants.")
    flow, returns = traders(3, steps=500, members=12, herd=6, follow=4.0)
    ts = HOUR_US * np.arange(1, 501)
    flows = OwnerFlows.from_arrays(ts, np.arange(12), flow, returns, np.arange(12.0, 0.0, -1.0))
    found = similarity(book, flows, window=1)
    table = found.tables["herds"]
    assert table["owners"].to_list() == [6]
    share = (12 + 11 + 10 + 9 + 8 + 7) / 78.0
    assert found.reading("crowding.herd_share").value == pytest.approx(share)
    assert table["leader"][0] in {"0", "2", "4"}  # who trade a step before the others
    assert found.tables["herders"]["herd"].to_list() == [1] * 6 + [None] * 6
    assert any("herd of owners trade together beyond prices" in each for each in found.says)
    assert found.reading("crowding.herd_share").inputs_hash != book.digest
    empty = OwnerFlows.from_arrays(ts, np.arange(2), np.zeros((500, 2)), np.zeros((500, 2)),
                                   np.ones(2))  # fmt: skip
    assert "0 of 2 members trade often enough" in similarity(book, empty).says[-1]


def test_words_and_counts_of_clusters() -> None:
    assert called(np.array([0.9, -0.4, 0.1]), ("A", "B", "C")) == "long A, short B"
    assert called(np.full(16, 0.25), tuple("ABCDEFGHIJKLMNOP")) == "long A among others"
    assert measures_of(np.array([1.0, 1.0]), 2.0) == pytest.approx((0.25, 2.0, 2.0))
    assert np.isnan(measures_of(np.zeros(2), 0.0)).all()


def test_misuse_is_refused() -> None:
    book = three_places()
    with pytest.raises(StateError, match="top was 1"):
        similarity(book, top=1)
    with pytest.raises(StateError, match="must be OwnerFlows"):
        similarity(book, np.zeros((3, 3)))  # type: ignore[arg-type]
