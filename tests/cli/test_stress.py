"""`undertow stress`: what a risk committee reads, and what a program gets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from undertow.cli.options import UnusableOption
from undertow.cli.output import Answer, number
from undertow.cli.stress import tell_of_compiling, with_channels
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
        "fell by 17.1% at first and 17.1% in the end, not amplified",
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


def test_owners_do_nothing_what_was_fitted_or_the_worst(typed: Typed) -> None:
    plain = as_json(typed, "2025-10-10", "--world", "demo")
    idle = as_json(typed, "2025-10-10", "--world", "demo", "--behaviour", "none")
    assert idle == plain
    fitted = as_json(typed, "2025-10-10", "--world", "demo", "--behaviour", "fitted-high")
    assert fitted["options"]["responses"]["fitted"] == "high"
    assert fitted["options"]["responses"]["top_up"]
    assert 0.0 < abs(fitted["insolvency_usd"] - plain["insolvency_usd"]) < 1e4
    calm, worst = (
        as_json(typed, "2023-03-11-usdc", "--world", "demo", "--behaviour", name)
        for name in ("none", "worst")
    )
    assert worst["insolvency_usd"] > calm["insolvency_usd"]
    assert any("flight, the worse of none" in note for note in worst["notes"])
    code, out, err = typed("2025-10-10", "--world", "demo", "--behaviour", "fitted")
    assert code == 0
    assert "watched to the round limit" in out
    assert "28 acts of 8 lending owners and 189 acts of 95 perp owners" in out
    assert "warning" not in err


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
    (tmp_path / "empty.toml").write_text("# nothing yet\n")
    one = 'name = "one"\n[[shock]]\n'
    (tmp_path / "percent.toml").write_text(one + 'kind = "peg"\nasset = "USDC"\nlevel = 92\n')
    (tmp_path / "case.toml").write_text(one + 'kind = "price"\nasset = "eth"\nmove = -0.1\n')
    (tmp_path / "odd.toml").write_bytes(b"name = '\xff'")
    for words, expected in (
        (("nope", "--world", "tiny"), "no scenario is called 'nope'"),
        (("FTX", "--world", "tiny"), "did you mean 2022-11-09-ftx? (`undertow stress list` says"),
        (("empty.toml", "--world", "tiny"), "empty.toml: empty: it says nothing"),
        (("percent.toml", "--world", "tiny"), "level was 92; 0.92 is 92 %"),
        (("case.toml", "--world", "tiny"), "no asset is called 'eth'; did you mean ETH?"),
        (("missing.toml", "--world", "tiny"), "could not be read"),
        (("bad.toml", "--world", "tiny"), "not valid TOML"),
        (("odd.toml", "--world", "tiny"), "no UTF-8"),
        (("fall.toml", "--world", "tiny", "--lake", "x"), "give one or the other"),
        (("fall.toml", "--seed", "3"), "say --world too"),
        (("fall.toml", "--world", "demo", "--seed", "-1"), "--seed was -1"),
        (("fall.toml", "--world", "tiny", "--channels", "magic"), "--channels names 'magic'"),
        (
            ("fall.toml", "--world", "tiny", "--behaviour", "none", "--channels", "no-top-up"),
            "--behaviour was 'none' and --channels names no-top-up: both say what owners do",
        ),
        (
            ("fall.toml", "--world", "tiny", "--behaviour", "worst", "--channels", "delever"),
            "--channels names delever",
        ),
        (
            ("fall.toml", "--world", "tiny", "--behaviour", "worst", "-n", "5"),
            "--behaviour was 'worst', which is known only after several cascades",
        ),
        (("fall.toml", "--world", "tiny", "--trace", "x.xlsx"), "--trace was 'x.xlsx'; the ending"),
        (("fall.toml", "--world", "tiny", "--trace", "-", "--json"), "both would answer on the te"),
        (
            ("fall.toml", "--world", "tiny", "-o", "x.csv"),
            "--out was 'x.csv'; the ending may be .j",
        ),
        (("fall.toml", "--world", "tiny", "--workers", "thread:2"), "executor was 'thread:2'; it"),
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
    assert "cut short by the round limit (--rounds) after 1 round of 1 min, still selling" in out
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


def test_rows_that_were_refused_are_told_of_whatever_is_asked(typed: Typed, tmp_path: Path) -> None:
    from undertow.cli.ingest import run_ingest
    from undertow.cli.world import run_world

    run_world("tiny", accounts=None, lake=None, seed=None, as_json=True, quiet=True)
    assert "rows_refused" not in as_json(typed, "fall.toml")
    prices = tmp_path / "prices.csv"
    prices.write_text(
        "ts,instrument,kind,price,source\n"
        "2026-11-02T00:00:00Z,aave-v3:ETH,oracle,1900,desk\n"
        "2026-11-02T00:00:00Z,aave-v3:XYZ,oracle,1500,desk\n"
        "2026-11-02T00:00:00Z,aave-v3:BTC,oracle,-3,desk\n"
    )
    with pytest.raises(SystemExit):
        run_ingest(
            [prices], table=None, mapping=None, dry_run=False, lake=None, as_json=True, quiet=True
        )
    words = "2 rows of the files that this stands on were refused; accounts may lack legs"
    reverse = ("reverse", "--target", 1_000, "--budget", 40)
    for asked in (("fall.toml",), ("-n", 3), reverse, (*reverse, "--scenario", "fall.toml")):
        assert as_json(typed, *asked)["rows_refused"] == 2
        code, out, err = typed(*asked)
        assert code == 0
        assert f"warning: {words}, or markets depth (undertow lake rejects)" in err
        assert "  - 2 rows of its files were refused: accounts may lack legs" in out


def test_all_that_is_known_goes_to_a_file_beside_the_report(typed: Typed, tmp_path: Path) -> None:
    words = ("fall.toml", "--world", "tiny")
    code, out, err = typed(*words, "-o", "facts.json")
    assert code == 0
    assert "by venue" in out
    assert "all of it in facts.json" in err
    assert json.loads((tmp_path / "facts.json").read_text()) == as_json(typed, *words)


def test_there_are_as_many_shards_as_owners_at_most(typed: Typed) -> None:
    words = ("fall.toml", "--world", "tiny")
    code, out, err = typed(*words, "--shards", 99, "--json")
    assert code == 0
    assert "--shards was 99; there are 4 owners, so as many shards" in err
    assert json.loads(out) == as_json(typed, *words)
    assert "so as many" not in typed(*words, "--shards", 2)[2]


def test_what_compiles_is_said_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    answer = Answer()

    def told(*what: str) -> str:
        compiles = tell_of_compiling(answer, *what)
        said = capsys.readouterr().err
        assert compiles == bool(said)
        return said

    assert "compiling the cascade and the sweep: two minutes or so each" in told("cascade", "sweep")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "rounds.run_rounds-555.py311.nbi").touch()
    assert told() == ""
    assert told("cascade", "sweep").startswith("compiling the sweep: two minutes or so, once")
    (tmp_path / "kernels" / "sweep.sweep_batch-480.py311.nbi").touch()
    assert told("cascade", "sweep") == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"), (9_999.0, "9,999.0"), (-12_340.0, "-12.34 k"), (2.5e9, "2.50 B"),
        (1e12, "1.00 T"), (999.4e12, "999.40 T"), (1e15, "1.00e+15"), (-3e21, "-3.00e+21"),
        (math.inf, "-"),
    ],
)  # fmt: skip
def test_numbers_of_any_size_are_short(value: float, words: str) -> None:
    assert number(value) == words


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


TINY = ("reverse", "--world", "tiny")


def test_reverse_tells_a_person_how_far_to_trust_what_it_found(typed: Typed) -> None:
    code, out, err = typed(*TINY, "--target", 3_000)
    assert code == 0
    for words in (
        "the most plausible shock found to lose 3,000.0 USD of insolvency\nan illustration: the",
        "distance   4.73 standard deviations, along its own direction",
        "(beyond);",
        "of any move as far out (probability)",
        "one alone came this far, which proves little (agree)",
        "the loss never falls (monotone); beyond, it stays over the target (stays)",
        "moves, also in deviations of their own, and what they make of prices",
        "what is plausible over a day: volatilities assumed, correlations assumed",
        "impact exponential, coupling 0.5",
    ):
        assert words in out, words
    assert "cascades, " in err
    found = as_json(typed, *TINY, "--target", 3_000)
    assert (found["outcome"], found["spent"], found["starts"]) == ("reached", False, 1)
    assert found["called"] == "the most plausible shock found"
    assert found["beyond"] == pytest.approx(1.1e-6, rel=0.1)
    assert 0.0 < found["beyond"] < found["probability"] < 1.0
    assert found["loss_usd"] >= 3_000.0
    assert found["moves"][0]["factor"] == "BTC"
    assert found["moves"][0]["price_move"] == pytest.approx(-0.2, abs=1e-3)


def test_reverse_says_that_its_budget_ended_it_and_what_it_therefore_does_not_know(
    typed: Typed,
) -> None:
    words = (*TINY, "--target", 3_000, "--budget", 200)
    found = as_json(typed, *words)
    assert found["spent"] is True
    assert (found["monotone"], found["stays"]) == (None, None)
    assert found["notes"][0] == "200 cascades ended the search: --budget allows more"
    out = typed(*words)[1]
    assert "the most plausible shock found to lose" in out
    assert "201 cascades in 3 directions: --budget ended it" in out
    assert "on its way not looked at: the budget was spent" in out


def test_a_target_out_of_reach_has_a_largest_loss_and_no_table_of_moves(typed: Typed) -> None:
    words = (*TINY, "--target", 1e15)
    code, out, _ = typed(*words)
    assert code == 0
    assert out.startswith("no shock that was tried loses 1.00e+15 USD of insolvency")
    assert "at most    " in out
    assert "deviations out: " in out
    assert "moves, " not in out
    found = as_json(typed, *words)
    assert (found["outcome"], found["moves"], found["distance"]) == ("not reached", [], None)
    assert found["largest_loss"]["loss_usd"] == found["loss_usd"] > 0.0
    assert found["largest_loss"]["moves"]


def test_the_python_and_the_terminal_search_for_the_same_loss(typed: Typed) -> None:
    from undertow.stress.reverse import reverse
    from undertow.worlds import tiny_world

    there = as_json(typed, *TINY, "--target", 3_000)
    here = reverse(tiny_world().snapshot(), target_usd=3_000.0)
    assert there["of"] == "insolvency"
    assert here.distance == pytest.approx(there["distance"])


def test_a_size_that_the_engine_refuses_ends_the_range_and_is_no_error(
    typed: Typed, tmp_path: Path
) -> None:
    (tmp_path / "dear.toml").write_text(
        'name = "dear"\n[[shock]]\nkind = "rate"\nvenue = "aave-v3"\nper_hour = 0.8\nhours = 1\n'
    )
    words = (*TINY, "--scenario", "dear.toml", "--target", 1e9)
    found = as_json(typed, *words)
    assert found["outcome"] == "not reached"
    assert found["size"] is None
    assert found["below"] == pytest.approx(1.25, abs=1e-3)  # a rate of 1 an hour is the most
    assert found["refused"].startswith("per_hour was 1.0")
    code, out, _ = typed(*words)
    assert code == 0
    assert out.startswith(
        "dear: 1.00 B USD of insolvency are not reached up to 1.25 times its size; beyond that the "
        "engine refuses: per_hour was 1.0"
    )
    (tmp_path / "elsewhere.toml").write_text(
        'name = "elsewhere"\n[[shock]]\nkind = "price"\nasset = "LUNA"\nmove = -0.5\n'
    )
    code, out, err = typed(*TINY, "--scenario", "elsewhere.toml", "--target", 1e9)
    assert (code, out) == (2, "")
    assert "no asset is called 'LUNA'" in err


def test_the_size_of_a_scenario_is_told_to_a_person(typed: Typed) -> None:
    code, out, _ = typed(*TINY, "--scenario", "fall.toml", "--target", 1_000)
    assert code == 0
    assert out.startswith("a fall at 0.7")
    assert "times its size loses 1,000.0 USD of insolvency" in out
    assert "the loss never falls (monotone); beyond, it stays over the target (stays)" in out
    assert "  - left out: price: no asset is called 'DOGE'" in out
