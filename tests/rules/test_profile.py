"""Profiles are dated, cited, and refuse what they do not know."""

from __future__ import annotations

import datetime as dt

import pytest

from undertow.errors import RuleError
from undertow.rules.profile import Profile, Shape, load_profile, profile_names, read_profiles
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
    assert len(profile_names()) >= 14
    for name in profile_names():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.sources
        assert profile.exact
        assert all(s.endswith(".") for s in (*profile.exact, *profile.approximated)), name


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
    (profile,) = read_profiles(GOOD)
    assert isinstance(profile, Profile)
    assert profile.shape is Shape.LENDING
    assert profile.lending is not None
    assert profile.lending.minimum_ratio == 1.2
    assert profile.lending.rounds
    assert profile.perp is None


RULES = "[version.lending]\nminimum_ratio = 1.2"
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
    "empty grid": GOOD + "[version.grid]\nprice_moves = []\nvol_moves = [0.1]\n",
    "a fall of everything": GOOD + "[version.grid]\nprice_moves = [-1.0]\nvol_moves = [0.1]\n",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(RuleError, match=r"x\.toml"):
        read_profiles(text, source="x.toml")
