"""Rankings of systemic nodes: planted costs by hand, bands, and rankings that must disagree."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from measures.interconnection.standing import demo_tables, snapshot_of
from undertow.econometrics.debtrank import Spread
from undertow.errors import StateError
from undertow.measures.interconnection import systemic as module
from undertow.measures.interconnection.agreeing import agreement, placed, spread
from undertow.measures.interconnection.candidates import Field
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.systemic import nodes
from undertow.measures.interconnection.web import Web
from undertow.measures.tandem.history import LeverageHistory
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel
from undertow.stress.contagion import Channels
from undertow.stress.scenario import Scenario
from undertow.stress.shock import Price
from undertow.stress.stressed import Stressed
from undertow.worlds import demo_world

BY_CLAIMS = Channels.only("dependence", "claims", "receipts")
KEEPERS = ("custodian:custodian-1", "custodian:custodians", "external:reserves")
QUICK = {"redraws": 0, "reps": 19}


@pytest.fixture(scope="module")
def web():
    return Web.of(demo_world().snapshot())


@pytest.fixture(scope="module")
def keepers(web):
    return nodes(web, among=KEEPERS, channels=BY_CLAIMS, **QUICK)


@pytest.fixture(scope="module")
def mixed(web):
    """A few nodes of several kinds, with bands."""
    among = ("chain:ethereum", "oracle:coinbase:ETH/USD", "custodian:custodian-1",
             "venue:aave-v3", "venue:hyperliquid", "owner:1")  # fmt: skip
    return nodes(web, among=among, channels=BY_CLAIMS, redraws=19, contested=2, reps=29, seed=3)


def row_of(study, node):
    return study.tables["nodes"].row(by_predicate=pl.col("node") == node, named=True)


def test_the_planted_hub_costs_exactly_what_it_owes_and_more_than_any_keeper():
    tables, world = demo_tables()
    # that a token names the hub takes its price down too; here the hub is its claims alone
    tables["assets"] = tables["assets"].with_columns(custodian=pl.lit(None, dtype=pl.String))
    web = Web.of(snapshot_of(tables))
    found = nodes(web, among=KEEPERS, channels=BY_CLAIMS, **QUICK)
    sheet = web.solver.solve(Stressed.calm(web.snapshot)).settlement.sheet
    owing = sheet.debtor == sheet.names.index("venue:custodian-1")
    by_hand = float((sheet.qty * sheet.price[sheet.asset])[owing].sum())
    row = row_of(found, "custodian:custodian-1")
    assert row["failure_usd"] == pytest.approx(by_hand, rel=1e-12)
    assert by_hand == pytest.approx(world.truth.hub.owed_usd, rel=2e-3)  # at the median of spot
    assert row["failure_usd"] == found.headline.value == found.tables["nodes"]["failure_usd"].max()
    assert "custodian:custodian-1" in found.says[0]


def test_a_token_that_names_its_keeper_falls_with_it(web, keepers):
    sheet = web.solver.solve(Stressed.calm(web.snapshot)).settlement.sheet
    owing = sheet.debtor == sheet.names.index("venue:custodian-1")
    by_claims = float((sheet.qty * sheet.price[sheet.asset])[owing].sum())
    assert row_of(keepers, "custodian:custodian-1")["failure_usd"] > 1.01 * by_claims


def test_what_the_node_loses_itself_stands_apart(keepers):
    row = row_of(keepers, "external:reserves")
    assert row["own_usd"] > 0.0  # its buffer is gone with it
    assert row_of(keepers, "custodian:custodian-1")["own_usd"] == pytest.approx(0.0, abs=1e-6)


def test_rankings_say_which_scenario_they_stand_on(web, keepers):
    def told(study):
        rows = study.tables["definitions"].select("ranking", "definition", "scenario").rows()
        return {name: (words, scenario) for name, words, scenario in rows}

    common = "a common fall of 20 %"
    assert told(keepers)["in_stress"] == (
        f"what its failure costs all others on top of {common}", common
    )  # fmt: skip
    assert told(keepers)["failure"][1] is None  # on a calm day, whatever the scenario
    assert keepers.how_to_read.endswith(f"The scenario is {common}.")
    storm = Scenario(name="a storm", shocks=(Price(asset="ETH", move=-0.3),))
    other = nodes(web, among=KEEPERS[:1], channels=BY_CLAIMS, scenario=storm, **QUICK)
    assert told(other)["adds"][0].startswith("what a storm costs less what it costs without")
    rise = nodes(web, among=KEEPERS[:1], channels=BY_CLAIMS, fall=-0.1, **QUICK)
    assert told(rise)["adds"][1] == "a common rise of 10 %"


def test_tokens_are_ranked_by_the_value_that_leads_through_them(web):
    found = nodes(web, channels=BY_CLAIMS, **QUICK)
    tokens = found.tables["nodes"].filter(pl.col("kind") == "token")
    assert "asset:USDC" in tokens["node"].to_list()
    assert tokens["passes"].min() > 0.0
    # a coin that stands on nothing cannot be let down by what is behind it, so it has no failure
    assert "asset:ETH" not in tokens["node"].to_list()


def test_full_recovery_costs_nobody_anything(web):
    found = nodes(web, among=KEEPERS[:2], channels=BY_CLAIMS, recovery=1.0, **QUICK)
    assert found.tables["nodes"]["failure_usd"].to_list() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert "costs anybody else anything" in found.says[0]


def test_rankings_that_must_disagree_do_and_the_words_say_that_no_order_can_be_told(web):
    among = ("chain:ethereum", "oracle:coinbase:ETH/USD", "custodian:custodian-1")
    found = nodes(web, among=among, **QUICK)
    pair = found.tables["agreement"].filter(
        (pl.col("ranking") == "failure") & (pl.col("other") == "passes")
    )
    # a chain that stands still on a calm day costs nothing, and all but everything lives on it
    assert pair["kendall"][0] == pytest.approx(-1.0)
    assert row_of(found, "chain:ethereum")["failure_usd"] == pytest.approx(0.0, abs=1e-6)
    assert any("no one order can be told" in words for words in found.says)
    assert found.tables["spread"]["apart"].max() == pytest.approx(1.0)


def test_places_lie_within_their_bands_where_owners_are_redrawn(mixed):
    ranks = mixed.tables["ranks"]
    for name in ("passes", "centrality", "failure"):
        told = ranks.filter((pl.col("ranking") == name) & pl.col("rank_low").is_not_null())
        assert told.height >= 2, name
        inside = (told["rank_low"] <= told["rank"]) & (told["rank"] <= told["rank_high"])
        assert inside.mean() >= 0.8, name
    assert ranks.filter(pl.col("ranking") == "in_stress")["rank_low"].null_count() > 0


def test_a_book_seen_in_other_owners_ranks_most_nodes_within_the_bands(web, mixed):
    # redraw once more by hand, with a seed that no draw had
    book = web.snapshot.book
    times = np.random.default_rng(97).poisson(1.0, len(book.owners)).astype(float)
    sheet = web.solver.solve(Stressed.calm(web.snapshot)).settlement.sheet
    ranks = mixed.tables["ranks"].filter(pl.col("ranking") == "passes")
    field = Field.of(web, sheet, 1, tuple(ranks["node"]), 0.0, 0.2)
    usd = times[book.owner] @ field.by_account
    place = placed(usd[:, None])[:, 0]
    inside = (ranks["rank_low"].to_numpy() <= place) & (place <= ranks["rank_high"].to_numpy())
    assert inside.mean() >= 0.7


def test_an_owner_that_owes_nobody_outside_cannot_fail_but_may_add(mixed):
    row = row_of(mixed, "owner:1")
    assert row["failure_usd"] is None
    assert "owes nobody outside" in row["reason"]
    assert row["adds_usd"] is not None
    assert mixed.left_out["owner:1"] == row["reason"]


def test_leaving_a_venue_out_takes_what_its_accounts_lose(web, mixed):
    assert row_of(mixed, "venue:hyperliquid")["adds_usd"] > 0.0
    assert row_of(mixed, "custodian:custodian-1")["adds_usd"] == pytest.approx(0.0, abs=1.0)
    assert row_of(mixed, "oracle:coinbase:ETH/USD")["adds_usd"] is None


def test_corrected_marks_are_no_less_than_those_of_a_single_hit(mixed):
    table = mixed.tables["nodes"].filter(pl.col("debtrank_usd").is_not_null())
    assert table.height >= 3
    assert (table["debtrank_usd"] >= table["single_hit_usd"] - 1e-6).all()


def test_what_a_default_marks_down_is_counted_where_it_stays(web):
    calm = web.solver.solve(Stressed.calm(web.snapshot))
    net = ClaimsNet.of(calm.settlement, calm.assumed)
    every = [np.array([k]) for k in range(len(net.names))]
    cost = net.defaults(every, Spread.CONTINUOUS)
    assert net.worst[1] == pytest.approx(cost.max(), rel=1e-9)
    assert (cost <= net.stays.sum() * (1.0 + 1e-12)).all()


def test_what_travels_over_claims_in_any_number_of_steps_leads_over_those_who_owe(web):
    calm = web.solver.solve(Stressed.calm(web.snapshot))
    net = ClaimsNet.of(calm.settlement, calm.assumed)
    size = len(net.names)
    taken = np.zeros((size, size))
    np.add.at(taken, (net.debtor, net.holder), net.usd / net.buffer[net.holder])
    impacts = np.minimum(taken, 1.0)
    assert net.criticality == pytest.approx(impacts @ net.stays)

    def travels(over):
        power, found = np.eye(size), np.zeros((size, size))
        for k in range(1, 60):
            power = power @ over / k
            found += power
        np.fill_diagonal(found, 0.0)
        return float((found @ net.stays).sum())

    parts = net.diffusion([np.array([k]) for k in range(size)])
    for k in range(size):
        without = impacts.copy()
        without[k] = 0.0
        share = 1.0 - travels(without) / travels(impacts)
        assert parts[k] == pytest.approx(share, abs=1e-12)
    silent = np.setdiff1d(np.arange(size), net.debtor)
    assert len(silent) > 5
    assert (parts[silent] == 0.0).all()
    assert net.names[int(np.argmax(parts))] == "venue:custodian-1"  # the planted hub


def test_the_part_in_what_travels_is_a_ranking_with_bands(web, mixed, monkeypatch):
    row = row_of(mixed, "custodian:custodian-1")
    assert row["diffusion"] == mixed.tables["nodes"]["diffusion"].max()
    assert 0.3 < row["diffusion"] < 0.6
    assert row_of(mixed, "chain:ethereum")["diffusion"] is None  # no party of the claims
    ranks = mixed.tables["ranks"].filter(pl.col("ranking") == "diffusion")
    assert ranks.height == ranks["rank_low"].count() >= 2
    assert ranks["drawn"].unique().to_list() == ["missing links and claims drawn"]
    assert ((ranks["rank_low"] <= ranks["rank"]) & (ranks["rank"] <= ranks["rank_high"])).all()
    assert "diffusion" in mixed.tables["definitions"]["ranking"].to_list()
    monkeypatch.setattr(module, "CIRCLE", 0)  # as if more parties stood in one circle
    found = nodes(web, among=KEEPERS[:2], channels=BY_CLAIMS, **QUICK)
    assert found.tables["nodes"]["diffusion"].null_count() == 2
    assert found.tables["nodes"]["debtrank_usd"].null_count() == 0
    assert "in circles" in found.left_out["diffusion"]


def test_delta_covar_stands_where_a_series_is_called_after_a_node(web):
    rng = np.random.default_rng(5)
    steps, hour = 700, 3_600_000_000
    ts = web.snapshot.ts - hour * np.arange(steps, 0, -1)
    growth = 0.01 * rng.standard_normal((steps, 3))
    growth[:, 1:] += 0.01 * rng.standard_normal((steps, 1))
    names = ["aave-v3", "hyperliquid", "okx"]
    level = Panel.from_arrays("leverage", "1", ts, names, 3.0 * np.exp(growth.cumsum(axis=0)))
    moves = 0.01 * rng.standard_normal((steps, 2))
    prices = Panel.from_arrays("p", "usd", ts, ["ETH", "BTC"], np.exp(moves.cumsum(axis=0)))
    baskets = {name: {"ETH": 1.0 + k, "BTC": 3.0 - k} for k, name in enumerate(names)}
    past = LeverageHistory.of(level, prices, baskets=baskets)
    among = ("venue:aave-v3", "venue:hyperliquid", "venue:okx", "custodian:custodian-1")
    found = nodes(web, past, among=among, channels=BY_CLAIMS, **QUICK)
    assert row_of(found, "venue:hyperliquid")["delta_covar"] is not None
    assert row_of(found, "custodian:custodian-1")["delta_covar"] is None
    assert found.tables["ranks"].filter(pl.col("ranking") == "delta_covar").height == 3
    assert "delta_covar" not in found.left_out


def test_without_a_history_the_reason_is_said(keepers):
    assert keepers.left_out["delta_covar"] == "no history of leverage was given"
    assert keepers.tables["nodes"]["delta_covar"].null_count() == len(KEEPERS)


def test_an_empty_book_has_no_systemic_node():
    tables, _ = demo_tables()
    gone = ("accounts", "positions", "claims", "reserves", "free_assets")
    bare = tables | {name: tables[name].clear() for name in gone}
    found = nodes(Snapshot.from_tables(bare, 1_800_000_000_000_000), most=1, **QUICK)
    assert "costs anybody else anything" in found.says[0]


def test_an_unknown_node_is_refused_and_the_nearest_offered(web):
    with pytest.raises(StateError, match="no custodian 'custodian-2'") as caught:
        nodes(web, among=("custodian:custodian-2",))
    assert "custodian-1" in str(caught.value.hint)
    with pytest.raises(StateError, match="must be a Snapshot"):
        nodes("okx")
    with pytest.raises(StateError, match="most"):
        nodes(web, most=0)


def test_agreement_of_rankings_by_hand():
    values = np.array([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0], [1.0, 3.0, np.nan], [0.0, 4.0, 1.0]])
    pairs = agreement(("a", "b", "c"), values, 2)
    told = dict(zip(zip(pairs["ranking"], pairs["other"], strict=True), pairs["kendall"],
                    strict=True))  # fmt: skip
    assert told["a", "b"] == pytest.approx(-1.0)
    assert told["a", "c"] == pytest.approx(1.0)
    assert pairs["top_shared"][0] == 0.0
    apart = spread(("w", "x", "y", "z"), ("a", "b", "c"), values)
    assert apart["apart"][0] == 1.0
    assert placed(values)[2, 2] != placed(values)[2, 2]  # no value, no place
    flat = agreement(("a", "b"), np.ones((4, 2)), 2)
    assert flat["kendall"][0] is None
