"""Paths: chains found are those that were planted, and every division adds up."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise, permutations

import numpy as np
import polars as pl
import pytest

from stress.contagion.made import made
from undertow.errors import EstimationError, StateError
from undertow.measures import Study
from undertow.measures.interconnection import trails as module
from undertow.measures.interconnection.attributing import Case, loss_of
from undertow.measures.interconnection.causes import Causes, left_standing
from undertow.measures.interconnection.paths import paths
from undertow.measures.interconnection.pathtables import ends_of
from undertow.measures.interconnection.pathwords import money, sentence
from undertow.measures.interconnection.trails import UNTOLD, Cause, Node, Trails
from undertow.measures.interconnection.web import Web
from undertow.rules.snapshot import Snapshot
from undertow.stress import Scenario, load_scenario
from undertow.stress.contagion import Assumptions, Channels
from undertow.stress.failures import CustodianFailure, Exploit
from undertow.stress.shock import Depth, Price
from undertow.worlds import demo_world

BARE = Assumptions(capital=0.0, recovery=0.7)
WRAPPED = ("WBTC", "wrapped", "BTC", 40_000.0)


def kept() -> Snapshot:
    """A keeper owes a token, a vault holds the token, an owner the vault: there is no other way."""
    return made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
         ("asset:WBTC", "asset:vault", "WBTC", 50.0, "vault_share"),
         ("asset:vault", "owner:9", "vault", 50.0, "vault_share")],
        tokens=[WRAPPED, ("vault", "vault_share", "WBTC", 40_000.0)],
    )  # fmt: skip


FALL = Scenario(
    name="a deep fall",
    shocks=(Price(asset="ETH", move=-0.4), Price(asset="BTC", move=-0.4)),
)
SOME = Channels.only("fire_sales", "receipts", "claims", "funding")


@cache
def web() -> Web:
    return Web.of(demo_world().snapshot())


@cache
def demo() -> Study:
    """The demo book after a deep fall, divided and traced to everybody."""
    return paths(web(), scenario=FALL, channels=SOME)


def test_the_only_way_is_the_one_that_is_found_with_its_exact_usd() -> None:
    found = paths(kept(), fall=0.0, failed=("external:Keeper",), assumed=BARE)
    says = (
        "Keeper fails → Keeper pays 70 % of what it owes → WBTC cut to 0.7 → vault cut to 0.7 → "
        "600 k USD borne by owner 9"
    )
    assert found.tables["chains"].rows() == [
        ("party", "owner:9", 1, 1.0, 600_000.0, 5,
         says)
    ]  # fmt: skip
    edges = found.tables["edges"]
    assert edges["usd"].to_list() == [600_000.0] * 4
    assert sorted(edges.select("source", "target", "channel").rows()) == [
        ("failure|external:Keeper|-1|-1", "party|external:Keeper|1|-1", "dependence"),
        ("party|asset:WBTC|1|-1", "party|asset:vault|1|-1", "claims"),
        ("party|asset:vault|1|-1", "party|owner:9|1|-1", "claims"),
        ("party|external:Keeper|1|-1", "party|asset:WBTC|1|-1", "claims"),
    ]
    steps = found.tables["steps"]
    assert steps["kind"].to_list() == ["failure", *["party"] * 4]
    assert set(steps["usd"]) == {600_000.0}
    assert found.tables["bearers"].row(0) == ("party", "owner:9", 600_000.0, 1.0, 0.0)
    began = pytest.approx(600_000.0, rel=1e-12)
    assert found.tables["began"].row(0) == ("party", "external:Keeper", began, 1.0)


def test_with_one_channel_behind_it_all_that_channel_has_the_whole_loss() -> None:
    found = paths(kept(), fall=0.0, failed=("external:Keeper",), assumed=BARE, target="owner:9")
    table = {row["channel"]: row for row in found.tables["channels"].iter_rows(named=True)}
    # claims carry what dependence lets fail: neither does anything without the other
    for name in ("claims", "dependence"):
        assert table[name]["shapley_usd"] == pytest.approx(300_000.0)
        assert table[name]["alone_usd"] == 0.0
        assert table[name]["off_usd"] == pytest.approx(600_000.0)
    for name in ("fire_sales", "receipts", "backing", "funding"):
        assert table[name]["shapley_usd"] == 0.0
        assert table[name]["idle"]
    assert found.tables["origins"].row(0)[:2] == ("external:Keeper", pytest.approx(600_000.0))


def test_two_losses_that_have_nothing_to_do_with_each_other_add_up() -> None:
    book = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody"),
         ("external:Bank", "external:fund", "USDC", 1_000_000.0, "loan")],
        tokens=[WRAPPED],
    )  # fmt: skip
    found = paths(book, fall=0.0, failed=("external:Keeper", "external:Bank"), assumed=BARE)
    origins = {row["origin"]: row for row in found.tables["origins"].iter_rows(named=True)}
    for name, usd in (("external:Keeper", 600_000.0), ("external:Bank", 300_000.0)):
        assert origins[name]["shapley_usd"] == pytest.approx(usd)
        assert origins[name]["alone_usd"] == pytest.approx(usd)
        assert origins[name]["off_usd"] == pytest.approx(usd)
    assert found.reading("interconnection.path_loss").value == pytest.approx(900_000.0)
    chains = found.tables["chains"]
    assert dict(chains.select("bearer", "usd").iter_rows()) == {
        "asset:WBTC": pytest.approx(600_000.0), "external:fund": pytest.approx(300_000.0),
    }  # fmt: skip


def test_shares_of_channels_are_those_of_all_orders_of_switching_on() -> None:
    names = ("fire_sales", "receipts", "funding")
    case = Case.of(web(), fall=0.0, scenario=FALL, failed=(),
                   channels=Channels.only(*names), assumed=None)  # fmt: skip

    @cache
    def worth(on: frozenset[str]) -> float:
        return loss_of(case.solve(Channels.only(*on)), "owner:1299")

    by_hand = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        for k, name in enumerate(order):
            by_hand[name] += (worth(frozenset(order[: k + 1])) - worth(frozenset(order[:k]))) / 6.0
    rng = np.random.default_rng(0)
    found = case.by_channel("owner:1299", most=64, rng=rng)
    got = dict(zip(case.channels.on, found.shapley, strict=True))
    assert got == pytest.approx(by_hand, rel=1e-9)
    assert min(by_hand.values()) > 1_000.0


def test_divisions_of_the_demo_book_add_up_and_idle_channels_have_nothing() -> None:
    found = demo()
    loss = dict(found.tables["layers"].iter_rows())
    whole = found.reading("interconnection.path_loss").value
    assert loss["in all"] == whole
    channels, origins = found.tables["channels"], found.tables["origins"]
    added = channels["shapley_usd"].sum()
    assert added == pytest.approx(loss["what channels add"], rel=1e-9)
    assert origins["shapley_usd"].sum() == pytest.approx(whole, rel=1e-9)
    idle = channels.filter("idle")
    assert idle["channel"].to_list() == ["claims", "receipts"]  # they hand on what is lost
    for column in ("shapley_usd", "alone_usd", "off_usd"):
        assert idle[column].to_list() == [0.0, 0.0]
    assert channels["share"].sum() == pytest.approx(1.0)


def test_what_leads_to_bearers_comes_from_roots_in_full() -> None:
    found = demo()
    nodes, edges, bearers = (found.tables[name] for name in ("nodes", "edges", "bearers"))
    into, out = set(edges["target"]), edges.group_by("target").agg(pl.col("share").sum())
    assert (out["share"] - 1.0).abs().max() < 1e-9
    roots = nodes.filter(~pl.col("node").is_in(list(into)))
    assert set(roots["kind"]) <= {"shock", "failure", "untold"}
    assert roots["usd"].sum() == pytest.approx(bearers["usd"].sum(), rel=1e-9)
    assert bearers["untold"].max() < 0.05
    # what flows into a node is what flows out of it, or stays there as a loss
    flows = edges.group_by("target").agg(pl.col("usd").sum().alias("came"))
    both = nodes.join(flows, left_on="node", right_on="target")
    assert ((both["came"] - both["usd"]).abs() <= 1e-6 * both["usd"]).all()
    chains = found.tables["chains"]
    assert chains.filter(pl.col("bearer") == "owner:1299")["share"].is_sorted(descending=True)
    realised = demo_world_losses()
    for name, usd in bearers.filter(pl.col("kind") == "party").select("bearer", "usd").iter_rows():
        assert usd == pytest.approx(realised[name])


def demo_world_losses() -> dict[str, float]:
    case = Case.of(web(), fall=0.0, scenario=FALL, failed=(), channels=SOME, assumed=None)
    rows = case.found.realised().filter(pl.col("kind") == "party")
    return {party: -usd for party, usd in rows.select("party", "usd").iter_rows()}


def test_a_trace_is_the_same_twice_and_reads_like_this() -> None:
    scenario = Scenario(name="fall", shocks=(Price(asset="ETH", move=-0.4),))
    channels = Channels.only("fire_sales", "receipts")
    found, again = (
        paths(book, scenario=scenario, channels=channels, to="owner:1299", top=1)
        for book in (web(), demo_world().snapshot())
    )
    assert found.as_json() == again.as_json()
    assert found.tables["chains"]["says"][0] == (
        "ETH -40% → 84 accounts of aave-v3 closed in round 0 (656 k USD), leaving 134 k USD of "
        "USDC unpaid → pool aave-v3:USDC lacks 172 k USD → vUSDC cut to 0.978 → 86.5 k USD "
        "borne by owner 1299"
    )


def chains_of(failed: str, most: int = 3) -> list[str]:
    """Every chain of a failure on the demo book, as it is said."""
    case = Case.of(web(), fall=0.0, scenario=None, failed=(failed,), channels=SOME_MORE,
                   assumed=None)  # fmt: skip
    causes = Causes(case)
    found = [causes.trails.chains(end, most) for end in ends_of(causes, None)]
    return [sentence(causes, chain) for some in found for chain in some]


SOME_MORE = Channels.only("dependence", "fire_sales", "receipts", "claims")


def test_a_step_never_says_that_nothing_was_lost() -> None:
    said = chains_of("custodian:custodian-1")
    gone = r"custodian-1 fails → custodian-1 leaves [\d.]+ M USD unpaid → "
    assert any(re.match(gone, words) for words in said)
    assert not [words for words in said if "loses 0 USD" in words]
    # who stands between says what he hands on, and who stands last what he bears
    between = [words for words in said if words.endswith("others with a claim on hyperliquid")]
    assert between
    assert re.search(r" → hyperliquid pays [\d.]+ % of what it owes → ", between[0])
    assert all(words.count("borne by") <= 1 for words in said)


def test_accounts_whose_coins_went_with_their_venue_are_traced_to_its_failure() -> None:
    said = chains_of("venue:aave-v3")
    words = (
        r"aave-v3 fails → \d+ accounts of aave-v3 with nothing left to close in round 0, leaving"
    )
    assert any(re.match(words, each) for each in said)
    assert not [each for each in said if "no cause was found" in each or "(0 USD)" in each]
    # the same done by a shock of the scenario is no failure of a name
    scenario = Scenario(name="robbed", shocks=(Exploit(venue="aave-v3", share=1.0),))
    case = Case.of(web(), fall=0.0, scenario=scenario, failed=(), channels=SOME, assumed=None)
    causes = Causes(case)
    ends = ends_of(causes, "pool:aave-v3:USDC")
    every = [sentence(causes, chain) for chain in causes.trails.chains(ends[0], 3)]
    assert any(each.startswith("coins at aave-v3 are gone → ") for each in every)
    assert causes.trails.roots(ends[0]).get(UNTOLD, 0.0) == 0.0


def test_a_bare_name_finds_all_that_go_by_it_and_a_kind_finds_one() -> None:
    causes = Causes(Case.of(web(), fall=0.0, scenario=FALL, failed=(), channels=SOME, assumed=None))
    every = [(end.kind, end.name) for end in ends_of(causes, None)]

    def found(to: str) -> list[tuple[str, str]]:
        return [(end.kind, end.name) for end in ends_of(causes, to)]

    venue = [key for key in every if key[1] in ("okx", "venue:okx")]
    assert len({kind for kind, _ in venue}) > 2
    assert found("okx") == venue
    assert found("venue:okx") == [("party", "venue:okx")]
    assert found("fund:okx") == found("the fund of okx") == [("fund", "okx")]
    assert found("1299") == found("owner 1299") == found("owner:1299") == [("party", "owner:1299")]
    assert ("unnamed", "pool:aave-v3:USDC") in found("aave-v3:USDC")
    with pytest.raises(StateError, match="did you mean fund:okx"):
        ends_of(causes, "fund:okk")


def test_a_peg_that_breaks_is_traced_to_what_backed_it() -> None:
    book = made(
        [("external:reserves", "asset:sUSD", "ETH", 100.0, "backing")],
        tokens=[("sUSD", "stable", "USD", 1.0)],
        accounts=[(6, 7, [("sUSD", "collateral", 40_000.0), ("USDC", "debt", -29_000.0)])],
    )
    scenario = Scenario(name="fall", shocks=(Price(asset="ETH", move=-0.5),))
    found = paths(book, scenario=scenario, top=10)
    kinds = found.tables["steps"]["kind"].to_list()
    assert {"shock", "backing", "peg", "price", "short", "party"} <= set(kinds)
    says = " ".join(found.tables["steps"]["says"])
    assert "sUSD lacks backing" in says
    assert "of its par from pass" in says


def test_shocks_that_move_no_price_are_origins_of_their_own() -> None:
    book = made(
        [("external:Keeper", "asset:WBTC", "BTC", 50.0, "custody")], tokens=[WRAPPED],
        accounts=[(6, 7, [("WBTC", "collateral", 1.0), ("USDC", "debt", -29_000.0)])],
    )  # fmt: skip
    shocks = (
        Price(asset="ETH", move=-0.1), CustodianFailure(name="Keeper", recovery=0.5),
        Depth(multiplier=0.5), Price(asset="DOGE", move=-0.5, optional=True),
    )  # fmt: skip
    found = paths(book, scenario=Scenario(name="both", shocks=shocks))
    assert found.tables["origins"]["origin"].to_list() == [
        "custodian failure Keeper", "depth", "ETH -10%"
    ]  # fmt: skip
    shares = dict(found.tables["origins"].select("origin", "shapley_usd").iter_rows())
    assert shares["custodian failure Keeper"] > 500_000.0 > abs(shares["ETH -10%"])
    assert sum(shares.values()) == pytest.approx(found.reading("interconnection.path_loss").value)


def test_one_name_of_who_failed_is_as_good_as_several() -> None:
    knobs = {"fall": 0.0, "assumed": BARE}
    one, several = (
        paths(kept(), failed=failed, **knobs)  # type: ignore[arg-type]
        for failed in ("external:Keeper", ["external:Keeper"])
    )
    assert one.as_json() == several.as_json()


def test_drawn_orders_have_bands_and_the_sum_is_exact() -> None:
    knobs = {"fall": 0.0, "failed": ("external:Keeper",), "assumed": BARE}
    found = paths(kept(), most=31, seed=1, **knobs)
    loss = dict(found.tables["layers"].iter_rows())
    shares = found.tables["channels"]
    assert shares["shapley_usd"].sum() == pytest.approx(loss["what channels add"], rel=1e-9)
    reading = found.reading("interconnection.channel_share", "dependence")
    assert reading.level == 0.9
    assert reading.low <= reading.value <= reading.high
    assert any("Orders were drawn" in said for said in found.says)
    with pytest.raises(StateError, match="nobody called 'owner:1'"):
        paths(kept(), to="owner:1", **knobs)
    with pytest.raises(EstimationError, match="two draws"):
        paths(kept(), most=15, **knobs)


@pytest.mark.slow
def test_a_replay_on_the_demo_book_adds_up_over_all_channels() -> None:
    found = paths(web(), scenario=load_scenario("2025-10-10"))
    whole, loss = found.reading("interconnection.path_loss").value, found.tables["layers"]["usd"]
    added = found.tables["channels"]["shapley_usd"].sum()
    assert added == pytest.approx(loss[1], rel=1e-9)
    assert found.tables["origins"]["shapley_usd"].sum() == pytest.approx(whole, rel=1e-9)
    # one asset alone leaves all bounds in a market so thin, so prices are one origin there
    assert "5 prices" in found.tables["origins"]["origin"].to_list()


def test_a_calm_book_has_nothing_to_trace() -> None:
    found = paths(made(), fall=0.0)
    assert found.reading("interconnection.path_loss").value == 0.0
    assert found.reading("interconnection.chains_explain").value is None
    assert found.left_out == {"origins": "nothing happens in this scenario, so no loss has an "
                              "origin"}  # fmt: skip
    for name in ("chains", "bearers", "steps", "nodes", "edges", "began"):
        assert found.tables[name].height == 0
    with pytest.raises(StateError, match="did you mean lost_usd"):
        paths(made(), target="loss_usd")


A, B, C, D = (Node("party", name) for name in "abcd")
ROOT, OTHER = Node("shock", "s"), Node("shock", "t")


def test_what_goes_round_a_circle_comes_to_rest_and_no_chain_passes_twice() -> None:
    causes = {
        A: [Cause(B, 1.0), Cause(ROOT, 1.0)],
        B: [Cause(A, 1.0), Cause(OTHER, 3.0)],
    }
    trails = Trails(causes, {A: 70.0})
    # a is half b and half the root; b a quarter a: x = 1/2 + x/8
    assert trails.roots(A) == pytest.approx({ROOT: 40.0, OTHER: 30.0})
    assert [(chain.nodes, chain.share) for chain in trails.chains(A, 9)] == [
        ((ROOT, A), pytest.approx(0.5)), ((OTHER, B, A), pytest.approx(0.375)),
    ]  # fmt: skip


def test_a_circle_that_nothing_leads_into_is_said_to_be_untold() -> None:
    trails = Trails({A: [Cause(B, 1.0)], B: [Cause(A, 1.0)], C: []}, {A: 5.0, C: 2.0, D: 1.0})
    assert trails.roots(A) == {UNTOLD: 5.0}
    assert trails.roots(C) == {UNTOLD: 2.0}
    assert trails.roots(D) == {D: 1.0}


def test_the_heaviest_chains_are_those_of_a_full_search() -> None:
    rng = np.random.default_rng(3)
    layers = [[Node("party", f"{depth}{k}") for k in range(4)] for depth in range(5)]
    causes = {
        node: [Cause(source, float(rng.uniform(0.1, 1.0))) for source in below]
        for below, above in pairwise(layers) for node in above
    }  # fmt: skip
    end = layers[-1][0]
    trails = Trails(causes, {end: 1.0})
    every: list[float] = []

    def walk(node: Node, share: float) -> None:
        if node not in causes:
            every.append(share)
            return
        whole = sum(each.weight for each in causes[node])
        for each in causes[node]:
            walk(each.source, share * each.weight / whole)

    walk(end, 1.0)
    found = [chain.share for chain in trails.chains(end, 25)]
    assert found == pytest.approx(sorted(every, reverse=True)[:25])
    assert sum(every) == pytest.approx(1.0)


def test_an_end_that_too_many_ways_lead_to_is_said_to_be_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    causes = {A: [Cause(Node("shock", f"s{n}"), 1.0) for n in range(20)]}
    whole = Trails(causes, {A: 1.0})
    assert len(whole.chains(A, 30)) == 20
    assert not whole.cut_short
    monkeypatch.setattr(module, "_POPS", 5)
    short = Trails(causes, {A: 1.0})
    assert len(short.chains(A, 30)) == 4
    assert short.cut_short == {A}


def test_what_no_chain_leads_to_is_said_where_nobody_closed_it() -> None:
    knobs = {"scenario": load_scenario("2025-10-10"), "channels": Channels.only("fire_sales")}
    found = paths(web(), most=64, **knobs)
    case = Case.of(web(), fall=0.0, failed=(), assumed=None, **knobs)
    kind, usd = left_standing(case.found)
    assert kind == "open"
    assert usd > 1.0
    assert any(f"{money(usd)} USD of the loss stand under water" in words for words in found.says)
    whole = found.reading("interconnection.path_loss").value
    assert found.tables["bearers"]["usd"].sum() + usd == pytest.approx(whole)


@pytest.mark.parametrize(
    ("fall", "said"), [(-0.1, "a common rise of 10 %"), (0.004, "a common fall of 0.40 %")]
)
def test_the_shock_is_named_with_its_sign_and_without_rounding_it_away(
    fall: float, said: str
) -> None:
    case = Case.of(web(), fall=fall, scenario=None, failed=(), channels=None, assumed=None)
    assert case.scenario.name == said
