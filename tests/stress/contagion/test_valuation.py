"""Marks are a ledger of their own; clearing and linear marks bracket, one hit stands beside."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from stress.contagion.made import made, solved
from stress.contagion.test_solve import CRASH, assumed, fails, woven
from undertow.stress.contagion import Assumptions

NEAR = 1e-6


def test_three_in_a_row_marked_by_hand() -> None:
    # buffers of 50, losses of 30 at a: its debt of 100 is marked down by 30/50 = 60; b loses 60 of
    # its 50: all of c's claim. By clearing nobody fails.
    row = made(
        [("external:a", "external:b", "USDC", 100.0, "loan"),
         ("external:b", "external:c", "USDC", 100.0, "loan")]
    )  # fmt: skip
    found = solved(
        row, failed=("external:a",),
        assumed=Assumptions(capital=0.5, recovery=0.8, volatility=0.05),
    )  # fmt: skip
    table = found.valuation()
    of = {row["party"]: row for row in table.iter_rows(named=True)}
    assert of["external:a"]["equity_usd"] == pytest.approx(50.0)
    assert of["external:a"]["own_loss_usd"] == pytest.approx(30.0)
    assert of["external:b"]["linear_usd"] == pytest.approx(60.0)
    assert of["external:c"]["linear_usd"] == pytest.approx(100.0)
    assert of["external:b"]["clearing_usd"] == pytest.approx(0.0)
    assert of["external:b"]["single_hit_usd"] == pytest.approx(50.0)  # of a buffer of 50
    assert 0.0 <= of["external:b"]["ahead_usd"] < 60.0
    assert found.marks.radius == 0.0
    assert found.realised()["usd"].abs().max() == pytest.approx(30.0)  # what is gone; no mark


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 40))]
)
def test_clearing_and_linear_marks_bracket_every_party(seed: int) -> None:
    found = solved(woven(seed), CRASH, assumed=assumed(seed), failed=fails(seed))
    table = found.valuation()
    assert table["settled"].all()
    size = table.select(pl.max_horizontal("owed_usd", "equity_usd", pl.lit(1.0))).to_series()
    sound = (table["equity_usd"] > -NEAR).to_numpy()
    low, mid, high = (
        (table[name] / size).to_numpy() for name in ("clearing_usd", "ahead_usd", "linear_usd")
    )
    if sound.all():
        assert (low <= high + NEAR).all()
    assert (low <= mid + NEAR).all()
    assert (low >= -NEAR).all()


def test_stress_that_grows_round_a_circle_stops_where_nothing_is_left() -> None:
    circle = made(
        [("external:a", "external:b", "USDC", 100.0, "loan"),
         ("external:b", "external:a", "USDC", 100.0, "loan"),
         ("external:a", "external:d", "USDC", 100.0, "loan")]
    )  # fmt: skip
    found = solved(circle, failed=("external:a",), assumed=Assumptions(capital=0.1, recovery=0.99))
    assert found.marks.radius > 1.0
    assert any("radius" in note for note in found.marks.notes)
    table = found.valuation()
    assert table["settled"].all()
    of = {row["party"]: row for row in table.iter_rows(named=True)}
    assert of["external:d"]["linear_usd"] == pytest.approx(100.0)  # nothing is left of its claim
    assert of["external:d"]["single_hit_usd"] < 100.0 - NEAR
    assert of["external:d"]["clearing_usd"] == pytest.approx(0.0)
    assert not found.settlement.defaulted.any()  # and yet everybody pays


def reached(table: pl.DataFrame, claims: list[tuple]) -> set[str]:
    """Parties with own losses, and whom these can come to over claims."""
    found = set(table.filter(pl.col("own_loss_usd") > 0.0)["party"])
    while True:
        more = {creditor for debtor, creditor, *_ in claims if debtor in found} - found
        if not more:
            return found
        found |= more


@pytest.mark.parametrize("seed", range(8))
def test_parts_that_nothing_hit_lose_nothing_to_the_last_digit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    thin = [f"external:a{n}" for n in range(8)]  # owe each other far more than their buffers
    price = {"ETH": 2_000.0, "USDC": 1.0}
    claims: list[tuple] = []
    for debtor in thin:
        for creditor in thin:
            if creditor != debtor and rng.random() < 0.6:
                asset = str(rng.choice(["ETH", "USDC"]))
                usd = rng.uniform(5e5, 1e6)
                claims.append((debtor, creditor, asset, usd / price[asset], "deposit"))
        claims.append((debtor, "external:world", "USDC", rng.uniform(3e6, 4e6), "deposit"))
    claims += [("external:b0", "external:b1", "USDC", 95_000.0, "deposit"),
               ("external:b1", "external:b0", "USDC", 95_000.0, "deposit")]  # fmt: skip
    known = {name: float(rng.uniform(1e3, 2e5)) for name in thin}
    known |= {"external:b0": 1e5, "external:b1": 1e5}
    found = solved(
        made(claims), failed=("external:b0",), assumed=Assumptions(known=known, recovery=0.7)
    )
    assert found.marks.radius > 1.0
    table = found.valuation()
    assert reached(table, claims) == {"external:b0", "external:b1"}
    away = table.filter(~pl.col("party").is_in(["external:b0", "external:b1"]))
    for mark in ("own_loss_usd", "clearing_usd", "linear_usd", "single_hit_usd"):
        assert away[mark].to_list() == [0.0] * away.height
    assert table["settled"].all()
    assert table["linear_usd"].max() > 1_000.0


@pytest.mark.parametrize("seed", [8, 25, 35])
def test_what_rounding_leaves_of_sums_is_no_loss_and_no_equity(seed: int) -> None:
    marks = solved(woven(seed), CRASH, assumed=assumed(seed), failed=fails(seed)).marks
    assert (marks.own[marks.own > 0.0] > 1e-12 * marks.owes[marks.own > 0.0]).all()
    some = marks.before != 0.0
    assert (np.abs(marks.before[some]) > 1e-12 * marks.owes[some]).all()


def test_a_single_hit_is_no_more_than_the_corrected_one() -> None:
    for seed in range(4):
        table = solved(woven(seed), CRASH, failed=fails(seed)).valuation()
        buffered = table.filter(pl.col("equity_usd") > 1.0)
        most = np.minimum(buffered["linear_usd"], buffered["equity_usd"])
        assert (buffered["single_hit_usd"] <= most + NEAR * buffered["equity_usd"] + NEAR).all()


def test_what_is_marked_ahead_is_told_apart_from_what_was_marked_before() -> None:
    row = made([("external:a", "external:b", "USDC", 100.0, "loan")])
    calm = solved(row, assumed=Assumptions(capital=0.05, volatility=0.3)).valuation()
    one = calm.filter(pl.col("party") == "external:b").row(0, named=True)
    assert one["ahead_usd"] == pytest.approx(one["ahead_before_usd"])
    assert one["ahead_usd"] > 1.0
    assert one["clearing_usd"] == one["linear_usd"] == 0.0
