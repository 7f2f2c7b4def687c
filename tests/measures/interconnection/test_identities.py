"""Owners are joined by what was said, no more, and as sure as was asked."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from measures.interconnection.standing import demo_tables, snapshot_of
from undertow.errors import StateError
from undertow.measures.interconnection import reuse
from undertow.measures.interconnection.identities import link_levels, linked
from undertow.rules.margins import margins
from undertow.state.book import UNKNOWN_OWNER


@pytest.fixture(scope="module")
def found():
    return snapshot_of(demo_tables()[0])


def _unknown(snapshot):
    book = snapshot.book
    rows = np.flatnonzero(book.owners == UNKNOWN_OWNER)
    return book.account[np.searchsorted(book.owner, rows)]


def test_what_is_joined_is_the_book_that_tables_with_that_owner_make(found):
    tables, _ = demo_tables()
    a, b = (int(key) for key in _unknown(found)[:2])
    first, second = 3, 17
    rows = pl.DataFrame({"node": [f"account:{a}", f"owner:{second}"],
                         "same_as": [f"account:{b}", f"owner:{first}"]})  # fmt: skip
    new = int(found.book.owners.max()) + 1
    owner = (pl.when(pl.col("account").is_in([a, b])).then(new)
             .when(pl.col("owner") == second).then(first).otherwise("owner"))  # fmt: skip
    tables["accounts"] = tables["accounts"].with_columns(owner=owner.cast(pl.Int64))
    free = tables["free_assets"].with_columns(
        owner=pl.when(pl.col("owner") == second).then(first).otherwise("owner").cast(pl.Int64)
    )
    same = ("ts", "owner", "asset", "source", "evidence")
    tables["free_assets"] = free.group_by(same, maintain_order=True).agg(pl.col("qty").sum())
    told = snapshot_of(tables)
    joined = linked(found, rows)
    assert joined.book.digest == told.book.digest
    assert joined.free.owners == told.free.owners
    spent = joined.free.usd_by_owner(joined.market)
    assert np.allclose(spent, told.free.usd_by_owner(told.market))
    assert np.allclose(np.sort(margins(joined).equity), np.sort(margins(found).equity))


def test_a_loop_whose_owner_is_joined_with_another_is_still_the_same_loop(found):
    loop = demo_tables()[1].truth.loop
    rows = pl.DataFrame({"node": [f"owner:{loop.looper_owner}"], "same_as": ["owner:1"]})
    joined = linked(found, rows)
    for name in ("self_backed", "multiplier", "claims_usd"):
        before, after = (reuse(each).tables["tokens"].filter(pl.col("asset") == loop.share_asset)
                         for each in (found, joined))  # fmt: skip
        assert after[name][0] == pytest.approx(before[name][0], rel=1e-9)
    was, now = (reuse(each).tables["bases"]["multiplier"].to_list() for each in (found, joined))
    assert now == pytest.approx(was)
    assert "owner:1" in joined.claims.nodes
    assert f"owner:{loop.looper_owner}" not in joined.claims.nodes


def test_only_links_that_are_sure_enough_count(found):
    accounts = [f"account:{key}" for key in _unknown(found)[:4]]
    rows = pl.DataFrame(
        {"node": accounts[:3], "same_as": accounts[1:], "confidence": [1.0, 0.6, 0.9]}
    )
    owners = len(found.book.owners)
    assert len(linked(found, rows).book.owners) == owners - 3
    assert len(linked(found, rows, sure=0.7).book.owners) == owners - 2
    assert linked(found, rows.head(0)) is found
    table = link_levels(found, rows)
    assert table["owners"].to_list() == [owners, owners - 1, owners - 2, owners - 3]
    assert table["sure"].to_list() == [None, 1.0, 0.9, 0.6]
    assert table["at_two_venues"].is_sorted()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"node": ["owner:3"]}, "lack the column 'same_as'"),
        ({"node": ["asset:ETH"], "same_as": ["owner:3"]}, "'asset:ETH' is no owner"),
        ({"node": ["owner:987654"], "same_as": ["owner:3"]}, "no owner 987654"),
        ({"node": ["owner:3"], "same_as": ["owner:17"], "confidence": [1.4]}, "was 1.4"),
        ({"node": ["owner:3"], "same_as": ["owner:17"], "confidence": ["high"]}, "was 'high'"),
    ],
)
def test_identities_that_make_no_sense_are_refused(found, rows, words):
    with pytest.raises(StateError, match=words):
        linked(found, rows)
