"""Profiles are dated, cited, and refuse what they do not know."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import fields
from pathlib import Path

import pytest

from undertow.errors import RuleError
from undertow.rules import profile
from undertow.rules.profile import (
    ClosingRules,
    GridRules,
    LendingRules,
    PerpRules,
    Profile,
    Shape,
    load_profile,
    profile_names,
    read_profiles,
)
from undertow.rules.single import Basis

GOOD = """
name = "x"
shape = "lending"
[[version]]
since = 2024-01-01
exact = ["a"]
approximated = []
sources = ["b"]
[version.lending]
minimum_ratio = 1.2
"""


def test_every_profile_loads_and_says_what_it_stands_on() -> None:
    assert len(profile_names()) >= 19
    for name in profile_names():
        one = load_profile(name)
        assert one.name == name
        assert one.sources
        assert one.exact
        assert all(s.endswith(".") for s in (*one.exact, *one.approximated)), name


@pytest.mark.parametrize("kind", [LendingRules, PerpRules, GridRules, ClosingRules])
def test_no_number_of_a_profile_is_left_that_no_rule_reads(kind: type) -> None:
    folder = Path(profile.__file__).parent
    kernels = folder.parent / "kernels"
    text = "".join(path.read_text() for at in (folder, kernels) for path in at.glob("*.py"))
    names = [field.name for field in fields(kind)]
    assert not [n for n in names if not re.search(rf'\.{n}\b|_flag\("{n}"\)', text)]


def test_the_version_is_that_of_the_day() -> None:
    def basis(as_of: dt.date) -> Basis:
        rules = load_profile("hyperliquid", as_of).perp
        assert rules is not None
        return rules.maintenance_basis

    assert basis(dt.date(2023, 4, 1)) is Basis.CURRENT
    assert basis(dt.datetime(2025, 10, 10, 21, tzinfo=dt.UTC)) is Basis.TESTED
    with pytest.raises(RuleError, match="starts on"):
        load_profile("hyperliquid", dt.date(2022, 1, 1))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RuleError, match="aave-v3"):
        load_profile("aave-v9")


def test_a_good_profile_is_read_with_its_defaults() -> None:
    (one,) = read_profiles(GOOD)
    assert isinstance(one, Profile)
    assert one.shape is Shape.LENDING
    assert one.lending is not None
    assert one.lending.minimum_ratio == 1.2
    assert one.lending.rounds
    assert one.perp is None


RULES = "[version.lending]\nminimum_ratio = 1.2"
CLOSING = GOOD + '[version.closing]\nmechanism = "pair"\n'
BAD = {
    "not TOML": "name = ",
    "no version": 'name = "x"\nshape = "perp"',
    "unknown at the top": 'colour = "red"\n' + GOOD,
    "unknown in the version": GOOD.replace("exact =", 'mood = "good"\nexact ='),
    "unknown in the rules": GOOD + "speed = 3\n",
    "unknown shape": GOOD.replace('"lending"\n[[', '"casino"\n[['),
    "missing name": GOOD.replace('name = "x"', ""),
    "wrong type": GOOD.replace("minimum_ratio = 1.2", 'minimum_ratio = "high"'),
    "a truth for a number": GOOD.replace("minimum_ratio = 1.2", "minimum_ratio = true"),
    "a number for a truth": GOOD.replace("minimum_ratio = 1.2", "rounds = 1"),
    "not finite": GOOD.replace("minimum_ratio = 1.2", "minimum_ratio = nan"),
    "impossible": GOOD.replace("minimum_ratio = 1.2", "minimum_ratio = 0.9"),
    "critical alone": GOOD.replace("minimum_ratio", "critical_ratio"),
    "critical below": GOOD + "critical_ratio = 1.1\n",
    "no sources": GOOD.replace('sources = ["b"]', "sources = []"),
    "nothing said": GOOD.replace('exact = ["a"]', "exact = []"),
    "rules of another shape": GOOD.replace(RULES, "[version.perp]"),
    "both rules": GOOD + "[version.perp]\n",
    "twice a day": GOOD + GOOD[GOOD.index("[[version]]") :],
    "unknown basis": GOOD.replace('"lending"\n[[', '"perp"\n[[').replace(
        RULES, '[version.perp]\nmaintenance_basis = "mood"'
    ),
    "unknown mechanism": CLOSING.replace("pair", "magic"),
    "no mechanism": GOOD + "[version.closing]\nbonus = 0.05\n",
    "a mechanism of another shape": CLOSING.replace("pair", "slices"),
    "nothing may be closed": CLOSING + "close_factor = 0.0\n",
    "no slice": CLOSING + "slice = 0.0\n",
    "a target under water": CLOSING + "target_health = 0.99\n",
    "what can be closed neither way": CLOSING
    + "close_factor = 0.5\nsmall_usd = 500.0\nleftover_usd = 1000.0\n",
    "two ways to take all": CLOSING + "seize_all = true\nreturns_surplus = true\n",
    "a bonus in percent": CLOSING + "bonus = 5.0\n",
    "half a microsecond": CLOSING + "delay_us = 0.5\n",
    "no amplification": CLOSING + "bands_amplification = 1.0\n",
    "empty grid": GOOD + "[version.grid]\nprice_moves = []\nvol_moves = [0.1]\n",
    "a fall of everything": GOOD + "[version.grid]\nprice_moves = [-1.0]\nvol_moves = [0.1]\n",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(RuleError, match=r"x\.toml"):
        read_profiles(text, source="x.toml")
