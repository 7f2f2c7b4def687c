"""Who cannot pay: worked by hand on three parties in a row."""

from __future__ import annotations

import pytest

from stress.contagion.made import CALM, lost, made, share, solved
from undertow.errors import StateError
from undertow.stress.contagion import Assumptions, Channels, Solver
from undertow.stress.shock import Price

ROW = made(
    [
        ("external:a", "external:b", "USDC", 100.0, "loan"),
        ("external:b", "external:c", "USDC", 100.0, "loan"),
        ("external:c", "external:d", "USDC", 100.0, "loan"),
    ]
)
BARE = Assumptions(capital=0.0, recovery=0.4)


def test_three_in_a_row_pass_on_what_the_first_does_not_pay() -> None:
    # a has 100 outside and loses 60 of it; b and c have nothing but what they are owed.
    found = solved(ROW, failed=("external:a",), assumed=BARE)
    assert [share(found, f"external:{x}") for x in "abc"] == pytest.approx([0.4, 0.4, 0.4])
    assert lost(found, "external:d") == pytest.approx(60.0)
    assert lost(found, "gone", "sink") == pytest.approx(-60.0)
    assert lost(found, "external:a") == lost(found, "external:b") == 0.0
    assert found.headline()["defaults"] == 3
    assert found.handed_on()["lost_usd"].to_list() == pytest.approx([60.0] * 3)


def test_a_buffer_stops_what_it_can() -> None:
    assumed = Assumptions(capital=0.0, recovery=0.4, known={"external:b": 20.0})
    found = solved(ROW, failed=("external:a",), assumed=assumed)
    assert [share(found, f"external:{x}") for x in "abc"] == pytest.approx([0.4, 0.6, 0.6])
    assert lost(found, "external:b") == pytest.approx(20.0)
    assert lost(found, "external:d") == pytest.approx(40.0)


def test_default_costs_go_to_a_sink_of_their_own() -> None:
    # a has 40 left and pays 0.5 of it: 20. b pays 0.5 of its 20 outside and 0.9 of what it got:
    # 10 + 18 = 28; c pays 0.9 of that, 25.2. Costs are 20, 10 + 2 and 2.8.
    assumed = Assumptions(
        capital=0.0, recovery=0.4, known={"external:b": 20.0}, keep_assets=0.5, keep_received=0.9
    )
    found = solved(ROW, failed=("external:a",), assumed=assumed)
    assert [share(found, f"external:{x}") for x in "abc"] == pytest.approx([0.2, 0.28, 0.252])
    assert lost(found, "bankruptcy_cost", "sink") == pytest.approx(-34.8)
    assert lost(found, "external:d") == pytest.approx(74.8)
    assert lost(found, "external:b") == pytest.approx(20.0)
    assert found.headline()["cost_usd"] == pytest.approx(34.8)
    assert found.headline()["lost_usd"] == pytest.approx(60.0 + 34.8)


def test_with_costs_who_owes_in_a_ring_may_pay_all_or_little() -> None:
    ring = made(
        [
            ("external:a", "external:b", "USDC", 100.0, "loan"),
            ("external:b", "external:a", "USDC", 100.0, "loan"),
            ("external:a", "external:d", "USDC", 20.0, "loan"),
        ]
    )
    assumed = Assumptions(capital=0.0, keep_received=0.5)
    greatest = solved(ring, assumed=assumed)
    assert share(greatest, "external:a") == 1.0
    # nothing is believed: a has 20 outside, pays 1/2 of what it gets on top of it, and so does b
    least = greatest.least
    a, b = (least.sheet.party(f"external:{x}") for x in "ab")
    paid = 20.0 / (1.0 - 0.25 * 100.0 / 120.0)
    assert least.share[a] == pytest.approx(paid / 120.0)
    assert least.share[b] == pytest.approx(0.5 * least.share[a])
    chosen = solved(ring, assumed=assumed, least=True)
    assert share(chosen, "external:a") == pytest.approx(paid / 120.0)
    assert chosen.headline()["cost_usd"] > 0.0
    told = greatest.by_node()
    assert told["share"].to_list() == [1.0, 1.0]
    assert (told["least_share"] < 0.25).all()


def test_with_claims_off_everybody_pays() -> None:
    found = solved(ROW, failed=("external:a",), assumed=BARE, channels=Channels().without("claims"))
    assert lost(found, "external:d") == 0.0
    assert not found.settlement.defaulted.any()


def test_what_stands_in_the_book_is_not_owed_twice() -> None:
    # account 1 owes 10,000 USDC at aave-v3 against its ETH: the cascade's business. Of a claim of
    # 12,000 only 2,000 are unsecured, and owner 1 has far more than that.
    book = made([("owner:1", "venue:aave-v3", "USDC", 12_000.0, "loan")])
    sheet = Solver.of(book).solve(CALM).settlement.sheet
    assert sheet.unsecured == pytest.approx([1.0 / 6.0])
    assert sheet.names[sheet.creditor[0]] == "pool:aave-v3:USDC"
    whole = made([("owner:1", "venue:aave-v3", "USDC", 10_000.0, "loan")])
    assert Solver.of(whole).solve(CALM).settlement.sheet.unsecured == pytest.approx([0.0])


def test_an_owner_who_loses_his_equity_cannot_pay_what_is_not_secured() -> None:
    # owner 2: 1 BTC of 40,000 against 20,000 at aave-v3, and 19,000 owed to a desk on top. It is
    # taken to have 20,000 for that. At 24,000 it is closed whole at a bonus of 5 %, and 3,000 are
    # left; it lost 17,000.
    book = made([("owner:2", "external:desk", "USDC", 19_000.0, "loan")])
    assert share(solved(book), "owner:2") == 1.0
    found = solved(book, Price(asset="BTC", move=-0.4), channels=Channels.only("claims"))
    left = float(found.settlement.losses.equity.max() - found.settlement.losses.own.max())
    assert left == pytest.approx(3_000.0)
    assert share(found, "owner:2") == pytest.approx(3_000.0 / 19_000.0)
    assert lost(found, "external:desk") == pytest.approx(16_000.0)
    assert lost(found, "own accounts", "sink") == pytest.approx(-17_000.0)


def test_who_owes_to_itself_is_refused_at_the_door() -> None:
    with pytest.raises(StateError, match="owes to itself"):
        made([("external:a", "external:a", "USDC", 1.0)])


def test_an_unknown_party_is_named_with_its_nearest() -> None:
    solver = Solver.of(ROW)
    with pytest.raises(StateError, match="external:a"):
        solver.solve(CALM, failed=("external:aa",))
    with pytest.raises(StateError, match="did you mean chain"):
        solver.solve(CALM, failed=("chian:ethereum",))
    with pytest.raises(StateError, match="no party is called"):
        solver.solve(CALM, assumed=Assumptions(known={"external:z": 1.0}))


def test_a_pool_loses_no_more_than_is_in_it_whatever_its_keeper_owes() -> None:
    # 50,000 are the pool's, of which the book owes 30,000, and its keeper says that he owes 60,000
    book = made([("external:k", "venue:aave-v3", "USDC", 60_000.0, "custody")])
    nothing = Assumptions(capital=0.0, recovery=0.0)
    still = Channels().without("funding")
    found = Solver.of(book).solve(CALM, failed="external:k", assumed=nothing, channels=still)
    assert found.headline()["pools_lost_usd"] == pytest.approx(20_000.0)
    assert found.leak is not None
    assert found.leak <= 1e-9
    assert any("owe a pool more than all in it" in note for note in found.notes)
