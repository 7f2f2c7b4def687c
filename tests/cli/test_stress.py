"""`undertow stress`: what a risk committee reads, and what a program gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from undertow.cli.options import UnusableOption
from undertow.cli.stress import with_channels
from undertow.stress import Deleveraging, Options, scenario_names

Typed = Callable[..., tuple[int, str, str]]


def as_json(typed: Typed, *words: object) -> dict[str, Any]:
    code, out, err = typed(*words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_report_says_how_bad_where_who_and_on_what_assumptions(typed: Typed) -> None:
    code, out, err = typed("fall.toml", "--world", "tiny", "--check")
    assert code == 0
    assert out.startswith("a fall: Bitcoin falls by a fifth\nan illustration: an invented book")
    for words in (
        "settled after 2 rounds of 1 min",
        "fell by 17.1% at first and 17.1% in the end, 1 times",
        "32.00 k USD of 1 account of 1 owner, 0 on several venues",
        "3,000.0 USD: 0 bad debt, 3,000.0 shortfall; 3,000.0 with what still stands under water",
        "funds 1,000.0, suppliers 0, winners 2,000.0, nobody 0",
        "by venue, USD",
        "by asset, USD",
        "by round in which anybody was closed, USD",
        "owners, the largest 10, USD",
        "impact none, coupling 0.5",
        "left out: price: no asset is called 'DOGE'",
    ):
        assert words in out, words
    assert "2 rounds" in err


def test_the_word_run_may_be_left_out_wherever_options_stand(typed: Typed) -> None:
    plain = as_json(typed, "fall.toml", "--world", "tiny")
    assert as_json(typed, "run", "fall.toml", "--world", "tiny") == plain
    assert as_json(typed, "--world", "tiny", "fall.toml") == plain
    code, out, _ = typed("--help")
    assert code == 0
    assert "list" in out
    assert "run" in out


def test_json_has_everything_that_the_report_has(typed: Typed) -> None:
    found = as_json(typed, "fall.toml", "--world", "tiny", "--check")
    assert found["scenario"] == "a fall"
    assert found["shortfall_usd"] == pytest.approx(3_000)
    assert found["outcome"] == "settled"
    assert found["due_before"] is None
    assert found["worst_leak"] <= 1e-9
    assert found["world"] == "tiny"
    assert {row["venue"] for row in found["venues"]} == {"aave-v3", "hyperliquid"}
    assert [row["unseen"] for row in found["unseen"]] == [
        "lower bound", "scaled", "modelled residual"
    ]  # fmt: skip
    assert len(found["path"]) == found["rounds"] == 2
    assert found["top_owners"][0]["owner"] == 1
    assert found["options"]["impact"] == "none"
    assert found["options"]["responses"]["top_up"] is False
    assert len(found["inputs_hash"]) > 10


def test_the_book_of_a_lake_is_stressed_as_of_an_instant(
    typed: Typed,
) -> None:
    from undertow.cli.world import run_world

    run_world("tiny", accounts=None, lake=None, seed=None, as_json=True, quiet=True)
    found = as_json(typed, "fall.toml")
    invented = as_json(typed, "fall.toml", "--world", "tiny")
    assert found["liquidated_usd"] == invented["liquidated_usd"]
    assert found["world"] == "tiny"
    assert found["lake"].endswith("undertow-lake")
    code, _, err = typed("fall.toml", "--as-of", "2001-01-01")
    assert code == 1
    assert "undertow: " in err


def test_options_of_the_command_line_take_the_place_of_the_scenarios(typed: Typed) -> None:
    found = as_json(
        typed, "2025-10-10", "--world", "tiny", "--impact", "square-root",
        "--channels", "capacity,no-oracles,recovery=0.5,deleveraging=pro-rata", "--rounds", "7",
    )  # fmt: skip
    options = found["options"]
    assert options["impact"] == "square-root"
    assert options["capacity"] is True
    assert options["oracles"] is False
    assert options["recovery"] == 0.5
    assert options["withdrawal"] == 1.0  # the scenario's own
    assert options["deleveraging"] == "pro-rata"
    assert options["max_rounds"] == 7


def test_channels_are_switched_by_name() -> None:
    there = with_channels(Options(), "top-up, delever=on,no-capacity,withdrawal=off")
    assert there.responses.top_up
    assert there.responses.delever
    assert not there.responses.unwind
    assert there.withdrawal == 0.0
    assert with_channels(Options(), "deleveraging=off").deleveraging is Deleveraging.NONE
    for text, words in (
        ("oracle", "channels are capacity"),
        ("capacity=yes", "on or off"),
        ("recovery=much", "give a number"),
        ("deleveraging=some", "it may be on, off, profile"),
    ):
        with pytest.raises(UnusableOption, match=words):
            with_channels(Options(), text)


def test_the_trace_goes_to_a_file_or_to_a_pipe(typed: Typed, tmp_path: Path) -> None:
    code, out, _ = typed("fall.toml", "--world", "tiny", "--trace", "trace.parquet")
    assert code == 0
    assert "by venue" in out
    rows = pl.read_parquet(tmp_path / "trace.parquet")
    assert rows["account"].to_list() == [2, 4]
    assert rows["reason"].to_list() == ["liquidated", "deleveraged"]
    code, out, _ = typed("fall.toml", "--world", "tiny", "--trace", "-")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["account"] for line in lines] == [2, 4]
    assert lines[0]["share"] == 1.0
    assert lines[1]["health"] is None


def test_what_cannot_be_done_is_said_in_one_line(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "odd.toml").write_bytes(b"name = '\xff'")
    for words, expected in (
        (("nope", "--world", "tiny"), "no scenario is called 'nope'"),
        (("missing.toml", "--world", "tiny"), "could not be read"),
        (("bad.toml", "--world", "tiny"), "not valid TOML"),
        (("odd.toml", "--world", "tiny"), "no UTF-8"),
        (("fall.toml", "--world", "tiny", "--lake", "x"), "give one or the other"),
        (("fall.toml", "--seed", "3"), "say --world too"),
        (("fall.toml", "--world", "demo", "--seed", "-1"), "--seed was -1"),
        (("fall.toml", "--world", "tiny", "--channels", "magic"), "--channels names 'magic'"),
        (("fall.toml", "--world", "tiny", "--trace", "x.txt"), "the ending may be"),
    ):
        code, out, err = typed(*words)
        assert code == 2, (words, err)
        assert not out
        assert expected in err
        assert err.strip().count("\n") == 0
    code, _, err = typed("fall.toml", "--lake", "nowhere")
    assert code == 1
    assert "nowhere" in err


def test_an_unsettled_cascade_is_a_finding_and_a_leak_is_a_failure(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = typed("fall.toml", "--world", "tiny", "--rounds", "1")
    assert code == 0
    assert "round limit after 1 round of" in out
    assert "warning: still selling after 1 round;" in err
    monkeypatch.setattr("undertow.cli.stress.LEAK", -1.0)
    assert typed("fall.toml", "--world", "tiny")[0] == 0  # not checked
    code, out, err = typed("fall.toml", "--world", "tiny", "--check")
    assert code == 1
    assert "by venue" in out
    assert "money leaks" in err


def test_the_list_has_every_replay(typed: Typed) -> None:
    code, out, _ = typed("list")
    assert code == 0
    assert all(name in out for name in scenario_names())
    found = as_json(typed, "list")["scenarios"]
    assert [each["name"] for each in found] == list(scenario_names())
    assert all(fact["source"] for each in found for fact in each["facts"])


@pytest.mark.parametrize("target", ["inf", "nan", 0, -1])
def test_reverse_needs_a_loss_that_can_be_reached(typed: Typed, target: object) -> None:
    for scenario in ((), ("--scenario", "fall.toml")):
        code, out, err = typed("reverse", "--target", target, *scenario, "--world", "tiny")
        assert (code, out) == (2, "")
        assert f"--target was {target}; give a finite loss in USD above 0" in err


def test_reverse_says_how_large_a_scenario_must_be(typed: Typed) -> None:
    asked = ("reverse", "--world", "tiny", "--scenario", "2020-03-12", "--of", "liquidated")
    told = as_json(typed, *asked, "--target", 1_000)
    assert 0.0 < told["size"] <= 2.0
    assert told["loss_usd"] >= 1_000.0
    code, _, err = typed(*asked, "--target", -5)
    assert code == 2
    assert "--target" in err


def test_a_fraud_grows_with_the_size_that_reverse_tries(typed: Typed, tmp_path: Path) -> None:
    # Up to its own size only the counterfeiter leaves bad debt, on an account that the book lacks.
    (tmp_path / "fraud.toml").write_text(
        'name = "fraud"\n[[shock]]\nkind = "counterfeit"\nasset = "ETH"\nvenue = "aave-v3"\n'
        'usd = 20000\nborrow = "USDC"\nltv = 0.75\n[[shock]]\nkind = "price"\nasset = "ETH"\n'
        "move = -0.35\n"
    )
    words = ("reverse", "--world", "tiny", "--scenario", "fraud.toml", "--of", "bad_debt")
    found = as_json(typed, *words, "--target", 100)
    assert found["outcome"] == "reached"
    assert found["size"] < 1.0
    assert found["loss_usd"] >= 100.0
