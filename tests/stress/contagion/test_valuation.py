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
