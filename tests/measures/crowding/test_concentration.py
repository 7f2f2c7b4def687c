"""Concentration of what is leveraged: by hand, by loops, in degenerate books, and its bands."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from crowds import crowd
from measures.crowding.owned import UNKNOWN, borrower, in_two_orders, owned_by, peopled, planted
from undertow.errors import EstimationError, StateError
from undertow.measures.crowding import Crowd
from undertow.measures.crowding.concentration import WITHOUT, concentration
from undertow.rules.snapshot import Snapshot


def many_owners(seed: int = 0, count: int = 60) -> Snapshot:
    rng = np.random.default_rng(seed)
    book = crowd(rng.uniform(0.05, 0.6, count), rng.pareto(1.5, count) * 1e4 + 1e3, share=0.3)
    return owned_by(book, [*sorted(rng.integers(0, 20, count - 5).tolist()), *[UNKNOWN] * 5])


def test_by_hand() -> None:
    book = crowd([0.5, 0.5, 0.5], [1_000.0, 3_000.0, 6_000.0], share=0.5)
    found = concentration(book)
    debt = np.array([400.0, 1_200.0, 2_400.0])
    row = found.tables["concentration"].filter(pl.col("whole") == "debt").row(0, named=True)
    assert row["usd"] == pytest.approx(debt.sum())
    assert row["hhi"] == pytest.approx(0.01 + 0.09 + 0.36)
    assert row["effective"] == pytest.approx(1.0 / 0.46)
    assert row["top_1"] == pytest.approx(0.6)
    assert row["top_5"] == pytest.approx(1.0)
    assert row["hhi_low"] is None  # of three owners
    assert found.headline is not None
    assert found.headline.value == pytest.approx(1.0 / 0.46)
    # 1,000 held against 400 owed
    half = found.reading("crowding.median_leverage")
    assert half.value == pytest.approx(1_000.0 / 600.0)
    held = found.tables["brackets"].filter(pl.col("leveraged_usd") > 0.0)
    assert held["leverage"].to_list() == ["1.5 to 2"]
    assert held["equity_usd"].item() == pytest.approx(6_000.0)


def test_it_is_what_loops_over_owners_give() -> None:
    book = many_owners()
    found = concentration(book, top=8)
    seen = Crowd.of(book)
    by_owner: dict[object, list[int]] = {}
    for account in range(book.book.accounts):
        owner = int(book.book.owners[book.book.owner[account]])
        name = f"account {book.book.account[account]}" if owner < 0 else f"owner {owner}"
        by_owner.setdefault(name, []).append(account)
    sizes = {name: sum(float(seen.debt[a]) for a in rows) for name, rows in by_owner.items()}
    total = sum(sizes.values())
    row = found.tables["concentration"].row(0, named=True)
    assert row["owners"] == len(sizes)
    assert row["hhi"] == pytest.approx(sum((s / total) ** 2 for s in sizes.values()))
    gaps = sum(abs(a - b) for a in sizes.values() for b in sizes.values())
    assert row["gini"] == pytest.approx(gaps / (2.0 * len(sizes) * total))
    owners = found.tables["owners"]
    assert owners["owner"].to_list() == sorted(sizes, key=lambda n: -sizes[n])[:8]
    for each in owners.iter_rows(named=True):
        mine = by_owner[each["owner"]]
        assert each["accounts"] == len(mine)
        assert each["account_keys"] == [int(book.book.account[a]) for a in mine[:20]]
        assert each["equity_usd"] == pytest.approx(
            sum(float(seen.exposures.equity[a]) for a in mine)
        )
        assert each["venues"] == ["v"]
    leverage = [float(seen.exposures.outright[2 * a : 2 * a + 2].sum()) / float(
        seen.exposures.equity[a]) for a in range(book.book.accounts)]  # fmt: skip
    order = np.argsort(leverage)
    cover = np.cumsum(seen.debt[order]) / seen.debt.sum()
    told = found.tables["quantiles"].filter(pl.col("whole") == "debt")
    for q, value in told.select("quantile", "leverage").iter_rows():
        assert value == pytest.approx(leverage[order[np.argmax(cover >= q)]])


def test_an_account_of_no_known_owner_is_never_merged() -> None:
    same = crowd([0.4] * 4, [1_000.0] * 4, share=0.5)
    apart = concentration(owned_by(same, [1, 1, UNKNOWN, UNKNOWN]))
    assert apart.tables["owners"]["owner"].to_list() == ["owner 1", "account 2", "account 3"]
    assert apart.tables["concentration"]["owners"][0] == 3
    assert any("no known owner" in sentence for sentence in apart.says)


def test_nodes_hold_what_owners_have_there() -> None:
    book = peopled()
    seen = Crowd.of(book)
    for by in ("venue", "asset"):
        nodes = concentration(book, by=by, reps=19).tables["nodes"]
        assert nodes["leveraged_usd"].sum() == pytest.approx(float(seen.leveraged.sum()))
    venue = concentration(book, by="venue", reps=19).tables["nodes"].row(0, named=True)
    code = book.universe.code("venue", venue["node"])
    sums: dict[int, float] = {}
    for account in np.flatnonzero(book.book.venue == code):
        owner = int(book.book.owner[account])
        sums[owner] = sums.get(owner, 0.0) + float(seen.leveraged[account])
    total = sum(sums.values())
    assert venue["hhi"] == pytest.approx(sum((s / total) ** 2 for s in sums.values()))
    assert venue["top_1"] == pytest.approx(max(sums.values()) / total)


@pytest.mark.slow
def test_bands_hold_the_index_of_the_whole_from_which_owners_came() -> None:
    rng, inside = np.random.default_rng(4), 0
    trials, count = 40, 300
    # of a gamma, E[x^2] / E[x]^2 is 1.5: n owners are as concentrated as n / 1.5 alike
    for trial in range(trials):
        usd = rng.gamma(2.0, 1_000.0, rng.poisson(count))
        reading = concentration(
            crowd(np.full(len(usd), 0.4), usd, share=0.5), seed=trial
        ).reading("crowding.hhi")  # fmt: skip
        assert reading.low is not None
        assert reading.high is not None
        inside += reading.low <= 1.5 / count <= reading.high
    assert 0.75 <= inside / trials <= 1.0


def test_a_planted_crowd_shows_in_the_brackets() -> None:
    with_it, without = (
        concentration(planted(side), reps=19).tables["brackets"] for side in ("long", None)
    )
    high = pl.col("low") >= 5.0
    assert with_it.filter(high)["accounts"].sum() > 1.3 * without.filter(high)["accounts"].sum()


def test_rows_in_any_order_make_the_same() -> None:
    found, again = (concentration(book, reps=19).as_json() for book in in_two_orders())
    assert found == again


def test_degenerate_books_are_told() -> None:
    one = concentration(borrower())
    assert one.reading("crowding.effective").value == pytest.approx(1.0)
    assert one.reading("crowding.effective").low is None
    unlevered = concentration(crowd([1.0, 1.0], [1_000.0, 500.0], share=0.5))
    assert unlevered.headline is not None
    assert unlevered.headline.value is None
    assert "Nobody owes" in unlevered.says[0]
    bankrupt = concentration(crowd([-0.5, -0.6], [1_000.0, 500.0], share=0.5))
    gone = bankrupt.tables["brackets"].filter(pl.col("leverage") == WITHOUT)
    assert gone["accounts"].item() == 2
    assert bankrupt.reading("crowding.median_leverage").value is None
    assert bankrupt.reading("crowding.hhi").value is not None
    assert any("no equity" in sentence for sentence in bankrupt.says)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"by": "colour"}, StateError, "division"),
        ({"top": 0}, StateError, "top was 0"),
        ({"seed": -1}, StateError, "seed"),
        ({"level": 1.0}, EstimationError, "level"),
        ({"reps": 3}, EstimationError, "reps"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, object], error: type[Exception], words: str
) -> None:
    book = borrower()
    with pytest.raises(error, match=words):
        concentration(book, **given)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="Snapshot"):
        concentration("book")
