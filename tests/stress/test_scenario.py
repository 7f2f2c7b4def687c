"""Scenarios as values and as files."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import Stressed, read_scenario
from undertow.stress.ground import ground_of
from undertow.stress.options import Impact, Options
from undertow.stress.outages import Outage
from undertow.stress.plan import Plan
from undertow.stress.scenario import (
    Certainty,
    Fact,
    Scenario,
    kind_of,
    load_scenario,
    require_scenario,
    scenario_names,
    suggested,
)
from undertow.stress.shock import Correlation, Depth, Peg, Price, PriceBeta

TEXT = """
name = "a bad day"
title = "Ether falls, staked ether more"
date = 2022-06-13

[[fact]]
what = "Ether fell by a half"
source = "a newspaper"
certainty = "cited"

[[shock]]
kind = "price_beta"
move = -0.3
[shock.betas]
ETH = 2

[[shock]]
kind = "peg"
asset = "stETH"
level = 0.92

[[shock]]
kind = "correlation"
weight = 0.5
target = 0.9

[[shock]]
kind = "outage"
venue = "sky"
hours = 1
optional = true

[options]
impact = "square-root"
coupling = 0.25
max_rounds = 10
[options.responses]
top_up = true
"""


def test_a_file_says_what_it_means() -> None:
    scenario = read_scenario(TEXT)
    assert scenario == Scenario(
        name="a bad day",
        title="Ether falls, staked ether more",
        date=dt.date(2022, 6, 13),
        facts=(Fact(what="Ether fell by a half", source="a newspaper", certainty=Certainty.CITED),),
        shocks=(
            PriceBeta(move=-0.3, betas={"ETH": 2.0}),
            Peg(asset="stETH", level=0.92),
            Correlation(weight=0.5, target=0.9),
            Outage(venue="sky", hours=1.0, optional=True),
        ),
        options=scenario.options,
    )
    assert scenario.options.impact is Impact.SQUARE_ROOT
    assert scenario.options.responses.top_up
    assert scenario.options.coupling == 0.25
    assert scenario.max_rounds == 10
    assert scenario.round_us == Options().round_us
    assert [kind_of(shock) for shock in scenario.shocks] == [
        "price_beta", "peg", "correlation", "outage",
    ]  # fmt: skip


def test_shocks_are_applied_in_order(wide: Snapshot) -> None:
    scenario = read_scenario(TEXT)
    by_hand = Stressed.calm(wide)
    for shock in scenario.shocks[:3]:
        by_hand = shock.apply(by_hand)
    after = scenario.apply(wide)
    assert after.digest == by_hand.digest
    assert (after.factor == by_hand.factor).all()


def test_what_is_optional_is_left_out_and_noted(wide: Snapshot) -> None:
    notes = read_scenario(TEXT).apply(wide).notes
    assert notes == ("left out: outage: no venue is called 'sky'",)


def test_everything_that_is_missing_is_named_at_once(wide: Snapshot) -> None:
    scenario = Scenario(
        name="elsewhere",
        shocks=(
            Price(asset="LUNA", move=-0.9),
            Price(asset="ETH", move=-0.2),
            Depth(multiplier=0.5, venue="ftx"),
        ),
    )
    with pytest.raises(StateError) as caught:
        scenario.apply(wide)
    words = str(caught.value)
    assert "scenario elsewhere" in words
    assert "price: no asset is called 'LUNA'" in words
    assert "depth: no venue is called 'ftx'" in words


def test_a_scenario_without_shocks_is_the_snapshot(wide: Snapshot) -> None:
    assert Scenario(name="calm").apply(wide).digest == Stressed.calm(wide).digest


def test_the_order_of_moves_of_different_assets_does_not_matter(wide: Snapshot) -> None:
    shocks = (
        Price(asset="ETH", move=-0.2),
        Price(asset="BTC", move=-0.1),
        Depth(multiplier=0.5, asset="ETH"),
    )
    one = Scenario(name="a", shocks=shocks).apply(wide)
    other = Scenario(name="a", shocks=shocks[::-1]).apply(wide)
    assert one.digest == other.digest


HEAD = 'name = "x"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        ("", r"^bad\.toml: empty: it says nothing; a scenario has a name"),
        ("# a comment", "empty"),
        ('title = "x"', "the key name is missing"),
        ('name = " "', "needs a name"),
        ("name = 7", "name was 7; it may be a text"),
        ('nme = "x"', "unknown key nme; did you mean name"),
        (HEAD + "date = 2020-01-01", "has a date but no facts"),
        (HEAD + 'date = "2020-01-01"', "date was '2020-01-01'; it may be a date"),
        (HEAD + "shock = 3", r"shock was 3; it may be tables \[\[shock\]\]"),
        (HEAD + "options = 3", r"options was 3; it may be a table \[options\]"),
        (HEAD + '[[shock]]\nkind = "pric"', "shock 1: kind was 'pric'; did you mean price"),
        (HEAD + "[[shock]]\nmove = 1.0", "kind was None"),
        (
            HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmoove = -0.1',
            "unknown key moove; did you mean move",
        ),
        (HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"', "the key move is missing"),
        (
            HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = "-10 %"',
            "move was '-10 %'; it may be a number; write -0.1: moves and shares are fractions",
        ),
        (
            HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = "-0.25"',
            "move was '-0.25'; it may be a number; write -0.25: numbers stand without quotes",
        ),
        (
            HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = "a lot"',
            "move was 'a lot'; it may be a number$",
        ),
        (
            HEAD + '[[shock]]\nkind = "Price"\nasset = "ETH"',
            r"kind was 'Price'; did you mean price\?",
        ),
        (HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = -1.2', "must lie above -1"),
        (HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = nan', "move was nan"),
        (
            HEAD + '[[shock]]\nkind = "price"\nasset = "ETH"\nmove = -0.1\noptional = 1',
            "optional was 1; it may be true or false",
        ),
        (
            HEAD + '[[shock]]\nkind = "price_beta"\nmove = -0.1\n[shock.betas]\nETH = "x"',
            "betas.ETH was 'x'; it may be a number",
        ),
        (
            HEAD + '[[shock]]\nkind = "oracle_freeze"\nrounds = 1.5',
            "rounds was 1.5; it may be a whole number",
        ),
        (HEAD + "[options]\nmax_round = 3", "options: unknown key max_round; did you mean max_r"),
        (HEAD + "[options]\nmax_rounds = 0", "max_rounds was 0"),
        (HEAD + '[options]\nimpact = "cubic"', "impact was 'cubic'; it may be none, linear"),
        (HEAD + '[options]\nimpact = ["none"]', r"impact was \['none'\]; it may be none, linear"),
        (HEAD + "[options]\nimpact = {a = 1}", "impact was {'a': 1}; it may be none, linear"),
        (
            HEAD + '[[fact]]\nwhat = "x"\nsource = "y"\ncertainty = ["cited"]',
            r"certainty was \['cited'\]; it may be cited, approximate",
        ),
        (
            HEAD + '[[shock]]\nkind = "price_beta"\nmove = -0.5\nbetas = [1, 2]',
            r"betas was \[1, 2\]; it may be a table .* such as \{ETH = 1.2\}",
        ),
        (
            HEAD + '[[shock]]\nkind = "correlation"\nweight = 1.0\ntarget = [1.0]',
            "target was 1.0; it may be a list of which each is a number",
        ),
        (
            HEAD + '[[shock]]\nkind = "counterfeit"\nasset = "ETH"\nvenue = "v"\nltv = [1.0]',
            r"ltv was \[1.0\]; it may be a number$",
        ),
        (HEAD + "[options.responses]\nbuffer = 0.5", "buffer was 0.5"),
        (
            HEAD + '[[fact]]\nwhat = "x"\nsource = "y"\ncertainty = "sure"',
            "fact 1: certainty was 'sure'; it may be cited, approximate",
        ),
    ],
)
def test_a_file_with_a_fault_says_where_and_what_it_may_be(text: str, words: str) -> None:
    with pytest.raises(StateError, match=words):
        read_scenario(text, source="bad.toml")


def test_an_error_in_a_file_names_the_file() -> None:
    with pytest.raises(StateError, match=r"^bad\.toml"):
        read_scenario("name = ", source="bad.toml")


def test_a_matrix_may_stand_in_a_file(wide: Snapshot) -> None:
    size = len(wide.universe.assets)
    rows = np.eye(size).tolist()
    text = f'name = "apart"\n[[shock]]\nkind = "correlation"\nweight = 1.0\ntarget = {rows}\n'
    after = read_scenario(text).apply(wide)
    assert after.correlation is not None
    assert (after.correlation == np.eye(size)).all()


@pytest.mark.parametrize(
    ("shock", "words"),
    [
        (Peg(asset="stETH", level=92.0), "peg: level was 92; 0.92 is 92 %; a level is a fraction"),
        (Peg(asset="USDC", level=97.5), "level was 97.5; 0.975 is 97.5 %"),
        (Price(asset="USDC", move=25.0), "price: move was 25; 0.25 is 25 %; a move is a fraction"),
        (Peg(asset="USDC", level=92.0, optional=True), "0.92 is 92 %"),  # not just left out
    ],
)
def test_percent_of_what_has_a_peg_are_caught(
    wide: Snapshot, shock: Peg | Price, words: str
) -> None:
    with pytest.raises(StateError, match=words):
        Scenario(name="percent", shocks=(shock,)).apply(wide)


@pytest.mark.parametrize(
    "shock",
    [
        Peg(asset="USDC", level=10.0),
        Price(asset="stETH", move=9.0),
        Price(asset="ETH", move=25.0),  # what follows nothing did rise as far
        Price(asset="market", move=25.0),
    ],
)
def test_what_may_be_meant_as_it_is_written_is_taken_so(wide: Snapshot, shock: Peg | Price) -> None:
    assert Scenario(name="far", shocks=(shock,)).apply(wide).factor.any()


def test_a_name_in_other_letters_is_offered_and_never_dropped_in_silence(wide: Snapshot) -> None:
    for shock, meant in (
        (Price(asset="eth", move=-0.1), "ETH"),
        (Depth(multiplier=0.5, venue="AAVE-V3"), "aave-v3"),
        (PriceBeta(move=-0.1, betas={"steth": 1.2}), "stETH"),
    ):
        with pytest.raises(StateError, match=rf"did you mean {meant}\?$"):
            Scenario(name="letters", shocks=(shock,)).apply(wide)
    left_out = Price(asset="eth", move=-0.1, optional=True)
    notes = Scenario(name="letters", shocks=(left_out,)).apply(wide).notes
    assert notes == ("left out: price: no asset is called 'eth'; did you mean ETH?",)


def test_names_are_suggested_by_letters_by_part_or_all_of_them() -> None:
    names = scenario_names()
    assert suggested("FTX", names) == "did you mean 2022-11-09-ftx?"
    assert suggested("usdc", names) == "did you mean 2023-03-11-usdc?"
    assert suggested("2025-10-1", names).startswith("did you mean 2025-10-10")
    assert suggested("zz", ("one", "two")) == "there are one, two"
    many = tuple(f"name-{k:02}" for k in range(20))
    assert suggested("zz", many) == f"there are {', '.join(many[:12])} and 8 more"
    with pytest.raises(StateError) as caught:
        load_scenario("zz")
    assert all(name in str(caught.value) for name in names)
    assert "`undertow stress list`" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("2025-10-10", r"scenario was '2025-10-10'; .* pass load_scenario\('2025-10-10'\)"),
        ({"name": "x"}, "scenario was of type dict; it must be a Scenario"),
    ],
)
def test_what_is_no_scenario_is_refused_by_name(wide: Snapshot, given: object, words: str) -> None:
    for refused in (
        lambda: require_scenario(given),
        lambda: ground_of(Plan.of(wide), given),  # type: ignore[arg-type]
    ):
        with pytest.raises(StateError, match=words):
            refused()
