"""The contagion study: what travels by which channel, who bears it, and how far assumptions go."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import polars as pl
import pytest

from stress.contagion.made import made
from undertow.errors import StateError
from undertow.measures import Study
from undertow.measures.interconnection.contagion import ENDS, contagion
from undertow.measures.interconnection.web import Web
from undertow.stress.contagion import CHANNELS, Assumptions, Channels
from undertow.worlds import demo_world

VAULT = ("vault", "vault_share", "USDC", 1.0)
ROW = made(
    [("external:a", "external:b", "USDC", 100.0, "loan"),
     ("external:b", "external:c", "USDC", 100.0, "loan"),
     ("external:c", "external:d", "USDC", 100.0, "loan")]
)  # fmt: skip
BARE = Assumptions(capital=0.0, recovery=0.4)


@cache
def web() -> Web:
    return Web.of(demo_world().snapshot())


@cache
def demo() -> Study:
    return contagion(web(), fall=0.4, ends={"run": (0.0, 20.0)})


def one(study: Study, table: str, **at: object) -> dict[str, object]:
    where = pl.all_horizontal(pl.col(name) == value for name, value in at.items())
    return study.tables[table].row(by_predicate=where, named=True)


def test_a_keeper_that_fails_costs_what_hand_counts_say() -> None:
    # a keeps 40 of its 100 and owes 100: d, at the end of three claims, goes without 60
    found = contagion(ROW, fall=0.0, failed=("external:a",), assumed=BARE, ends={})
    assert found.reading("interconnection.contagion_loss").value == pytest.approx(60.0)
    assert found.reading("interconnection.contagion_borne").value == pytest.approx(60.0)
    assert found.reading("interconnection.contagion_defaults").value == 3.0
    assert found.reading("interconnection.contagion_amplification").value is None
    stopped = one(found, "channels", way="all but", channel="claims")
    assert stopped["defaults"] == stopped["not_paid_usd"] == 0.0
    assert stopped["borne_usd"] == pytest.approx(60.0)  # by a itself, who pays all it owes
    assert one(found, "channels", way="all but", channel="dependence")["lost_usd"] == 0.0
    assert one(found, "parties", party="external:d")["bears_usd"] == pytest.approx(60.0)
    assert found.tables["handed_on"]["lost_usd"].to_list() == pytest.approx([60.0] * 3)
    assert abs(found.tables["realised"]["usd"].sum()) < 1e-9
    assert found.tables["assumptions"].height == 0
    assert found.says[0].startswith(
        "60 USD are lost for good after a common fall of 0 %, 0 USD by "
    )
    assert "Most of what is handed on, 60 USD or 100 %, is borne by d." in found.says


def test_the_demo_book_keeps_its_ledger_and_tells_every_channel() -> None:
    found = demo()
    ledger = found.tables["realised"]["usd"]
    assert abs(ledger.sum()) <= 1e-9 * ledger.abs().sum()
    table = found.tables["channels"]
    assert table.filter(pl.col("way") == "all but")["channel"].to_list() == list(CHANNELS)
    whole, none = one(found, "channels", way="all"), one(found, "channels", way="none")
    assert whole["lost_usd"] > one(found, "channels", way="plain cascade")["lost_usd"]
    assert none["lost_usd"] < whole["lost_usd"]
    assert none["tokens_lost_usd"] == none["locked_usd"] == 0.0
    assert found.reading("interconnection.contagion_loss").value == whole["lost_usd"]
    assert all(reading.evidence == "modelled" for reading in found.readings)


@pytest.mark.parametrize("off", ["", "claims", "receipts", "fire_sales"])
@pytest.mark.parametrize("failed", [(), "custodian:custodian-1", "venue:aave-v3"])
def test_who_bears_it_adds_up_to_all_that_is_lost(off: str, failed: str) -> None:
    channels = Channels().without(off) if off else Channels()
    found = contagion(web(), fall=0.4, failed=failed, channels=channels, ends={})
    bearers = found.tables["bearers"]
    lost = one(found, "channels", way="all")["lost_usd"]
    assert bearers["usd"].sum() == pytest.approx(lost, rel=1e-9)
    assert bearers["share"].sum() == pytest.approx(1.0)
    # parties with a claim whom nobody named are told apart from the pool that they claim on
    unnamed = bearers.filter(pl.col("kind") == "unnamed")
    assert "pool:aave-v3:USDC" in unnamed["bearer"].to_list()
    assert one(found, "channels", way="all")["borne_usd"] == pytest.approx(
        bearers.filter(pl.col("kind").is_in(["party", "unnamed"]))["usd"].sum()
    )
    assert {"winners", "fund"} <= set(bearers["kind"])
    assert any(said.startswith("What no claim hands on stays where") for said in found.says)
    spared = bearers.filter(pl.col("usd") < 0.0)["kind"].to_list()
    assert spared == (["spared"] if failed == "venue:aave-v3" else [])


def test_who_has_a_claim_and_no_name_is_not_called_after_the_debtor() -> None:
    book = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody")],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0)],
    )
    found = contagion(book, fall=0.0, failed="external:Keeper", assumed=BARE, ends={})
    assert found.tables["bearers"].rows() == [("unnamed", "asset:WBTC", 1_200_000.0, 1.0)]
    assert any("is borne by others with a claim on WBTC." in said for said in found.says)


def test_one_name_of_who_failed_is_as_good_as_several() -> None:
    one_name = contagion(ROW, fall=0.0, failed="external:a", assumed=BARE, ends={})
    several = contagion(ROW, fall=0.0, failed=("external:a",), assumed=BARE, ends={})
    assert one_name.as_json() == several.as_json()


def test_marks_lie_between_clearing_and_linear_and_stand_apart() -> None:
    marks = demo().tables["valuation"]
    apart = marks["linear_usd"] - marks["clearing_usd"]
    assert apart.min() >= -1e-6 * marks["linear_usd"].max()
    # a vault's loss is its holder's: the sum counts it once
    value = demo().reading("interconnection.contagion_marked").value
    twice = marks["linear_usd"].sum()
    vault = marks.filter(pl.col("party") == "asset:vUSDC")["linear_usd"].sum()
    assert vault > 0.0
    assert value == pytest.approx(twice - vault)


def test_every_end_of_an_assumption_is_a_solve_of_its_own() -> None:
    book = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody")],
        tokens=[("WBTC", "wrapped", "BTC", 40_000.0)],
    )
    knobs = {"fall": 0.0, "failed": ("external:Keeper",)}
    taken = Assumptions(capital=0.0, recovery=0.2)
    found = contagion(book, assumed=taken, ends={"recovery": (0.0, 0.5)}, **knobs)
    row = found.tables["assumptions"].row(0, named=True)
    assert row["lost_at_low_usd"] == pytest.approx(2_000_000.0)
    assert row["lost_at_high_usd"] == pytest.approx(1_000_000.0)
    for end, column in ((0.0, "lost_at_low_usd"), (0.5, "lost_at_high_usd")):
        alone = contagion(book, assumed=replace(taken, recovery=end), ends={}, **knobs)
        assert alone.reading("interconnection.contagion_loss").value == row[column]
    assert any("a range over assumptions, no band of confidence" in said for said in found.says)
    every = contagion(ROW, fall=0.0).tables["assumptions"]["assumption"]
    assert every.sort().to_list() == sorted(ENDS)
    assert all(reading.low is None for reading in found.readings)


def test_a_ring_with_costs_of_default_has_two_rests_and_says_so() -> None:
    ring = made(
        [("external:a", "external:b", "USDC", 100.0, "loan"),
         ("external:b", "external:a", "USDC", 100.0, "loan"),
         ("external:a", "external:d", "USDC", 20.0, "loan")]
    )  # fmt: skip
    assumed = Assumptions(capital=0.0, keep_received=0.5)
    found = contagion(ring, fall=0.0, assumed=assumed, ends={})
    least = found.tables["least"]
    assert set(least["party"]) == {"external:a", "external:b"}
    value = found.reading("interconnection.contagion_least").value
    assert value == pytest.approx(float(least["less_usd"].sum()))
    assert value > 150.0
    assert any("the loss has several rests" in said for said in found.says)


def test_channels_that_are_off_stay_off_in_every_row() -> None:
    only = Channels.only("claims", "dependence")
    found = contagion(ROW, fall=0.0, failed=("external:a",), assumed=BARE, channels=only, ends={})
    ways = found.tables["channels"]
    assert ways.filter(pl.col("way") == "all but")["channel"].to_list() == ["dependence", "claims"]
    assert one(found, "channels", way="all")["borne_usd"] == pytest.approx(60.0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(StateError, match="fall was 1"):
        contagion(ROW, fall=1.0)
    with pytest.raises(StateError, match="scenario was of type str"):
        contagion(ROW, scenario="2025-10-10")  # type: ignore[arg-type]
    with pytest.raises(StateError, match="no party is called"):
        contagion(ROW, failed=("external:z",))
    with pytest.raises(StateError, match="it must be a Snapshot"):
        contagion(7)


def test_a_failure_that_costs_little_says_why() -> None:
    def said(*failed: str) -> str:
        return " ".join(contagion(web(), fall=0.0, failed=failed, ends={}).says)

    assert "venue:hyperliquid fails with what it has outside, and is still paid the" in (
        told := said("venue:hyperliquid")
    )
    assert "give the shock `exploit`" in told
    quiet = said("chain:ethereum")
    assert "costs anybody else anything here" in quiet
    assert "still paid" not in quiet
    assert "costs anybody else anything" not in said("custodian:custodian-1")
