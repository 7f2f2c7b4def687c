"""Two public cases, rebuilt: examples agree with hand results, and pages with examples."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from undertow.measures import interconnection
from undertow.stress.contagion import Channels

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "methods" / "cases.md").read_text()


def _example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


circular = _example("circular_backing")
counterfeit = _example("counterfeit_collateral")


def _by_hand(own, claims, supply, lent, held, redeemed=0.0):
    """p_x = (own - 93 + held p_d) / claims, p_d = (rest + lent p_x) / what is outstanding."""
    system = [[claims, -held], [-lent * supply, supply - redeemed]]
    return np.linalg.solve(system, [own - 93.0, (1.0 - lent) * supply - redeemed])


def test_tokens_that_back_each_other_are_worth_what_two_lines_say() -> None:
    found = circular.worth(circular.solved(circular.Case()))
    # 0.35 + 0.65 of what xUSD is worth: p_x = (77 + 75 * 0.35) / (530 - 75 * 0.65)
    assert found.xusd == pytest.approx(103.25 / 481.25, abs=1e-9)
    assert found.deusd == pytest.approx(0.35 + 0.65 * 103.25 / 481.25, abs=1e-9)


@pytest.mark.parametrize("words", ["56 % of deUSD's backing lent", "160 under 520",
                                   "others had redeemed deUSD before"])  # fmt: skip
def test_facts_that_disagree_give_the_ends_of_a_range(words) -> None:
    case = circular.READINGS[words]
    hand = _by_hand(case.own, case.claims, case.supply, case.lent, case.held, case.redeemed)
    assert circular.worth(circular.solved(case)) == pytest.approx(tuple(hand), abs=1e-9)
    assert circular.cleared(case) == pytest.approx(tuple(hand), abs=1e-9)


def test_a_loan_that_is_paid_first_leaves_holders_less() -> None:
    found = circular.worth(circular.solved(circular.Case(first=True)))
    lent = 0.65 * 121.0
    assert found.deusd == 1.0
    assert found.xusd == pytest.approx((77.0 + 75.0 - lent) / (530.0 - lent), abs=1e-9)


def test_what_is_lost_is_borne_to_the_dollar_whichever_channels_are_on() -> None:
    case = circular.Case()
    plain, every = circular.solved(case), circular.solved(case, Channels())
    assert circular.worth(every) == pytest.approx(circular.worth(plain), abs=1e-9)
    rows = plain.realised().filter(pl.col("kind") == "party")
    assert rows["usd"].sum() == pytest.approx(-93e6, rel=1e-9)


def test_the_ledger_says_how_much_of_each_token_is_a_circle() -> None:
    case = circular.Case()
    study = interconnection.reuse(circular.book(case))
    xusd, deusd = (circular.token(study, name) for name in ("xUSD", "deUSD"))
    # 75 of 530 go to deUSD, which lent 78.65 back; pooled, 65 % of those 75
    assert xusd["self_backed"] == pytest.approx(75.0 / 530.0, abs=1e-9)
    assert deusd["self_backed"] == pytest.approx(75.0 / 121.0, abs=1e-9)
    assert xusd["self_backed_pooled"] == pytest.approx(75.0 * 0.65 / 530.0, abs=1e-9)
    assert xusd["backed"] == pytest.approx(245.0 / 530.0, abs=1e-9)
    assert xusd["nothing"] == pytest.approx(1.0 - 196.25 / 481.25, abs=1e-9)


def test_a_chain_of_mints_has_the_leverage_that_was_quoted() -> None:
    row = circular.token(interconnection.reuse(circular.mints(1.9, 14.5)), "xUSD")
    assert row["multiplier"] == pytest.approx(14.5 / 1.9, rel=1e-7)
    assert row["multiplier_pooled"] == pytest.approx(14.5 / 1.9, rel=1e-9)


def test_what_keepers_hold_of_a_token_taken_at_its_word_lies_at_the_bottom() -> None:
    # A keeper has 100 that it owes. That they are of a token which follows the dollar, and not of
    # the dollar itself, changes neither what lies at the bottom nor the claims of keepers.
    claims = [("external:keeper", "asset:xUSD", "deUSD", "deposit", 100.0),
              ("asset:xUSD", "external:holders", "xUSD", "backing", 100.0)]  # fmt: skip
    rows = interconnection.reuse(circular.snapshot(claims)).tables["bases"]
    assert rows["asset"].to_list() == ["USD"]
    assert rows["root_usd"].item() == pytest.approx(100e6, rel=1e-9)
    assert rows["keepers_usd"].item() == pytest.approx(100e6, rel=1e-9)


@pytest.mark.parametrize("example", [circular, counterfeit], ids=lambda each: each.__name__)
def test_the_page_says_what_the_example_prints(example, capsys) -> None:
    example.main()
    said = capsys.readouterr().out
    assert f"```\n{said}```\n" in PAGE


def test_counterfeit_positions_lack_what_their_collateral_is_short_of_their_debts() -> None:
    case = counterfeit.Case()
    debts, posted = 190.9 + 2.3, 89_567.0 * 292.0 / 116_500.0
    assert counterfeit.by_itself(case) == pytest.approx(debts - posted * (1.0 - 0.1512), abs=1e-9)
    arbitrum = counterfeit.Case(short=0.2667, bridged=True)
    assert counterfeit.by_itself(arbitrum) == pytest.approx(debts - posted * 0.7333, abs=1e-9)
    assert counterfeit.by_itself(counterfeit.Case(short=0.0)) == 0.0


def test_what_is_lost_is_borne_by_suppliers_of_what_was_lent() -> None:
    found = counterfeit.solved(counterfeit.Case(), "funding")
    assert found.leak <= 1e-9
    lines = found.realised().filter(pl.col("kind") == "unnamed")
    weth, wsteth = (-lines.filter(pl.col("party") == f"pool:lender:{asset}")["usd"].item() / 1e6
                    for asset in ("WETH", "wstETH"))  # fmt: skip
    assert weth + wsteth == pytest.approx(counterfeit.by_itself(counterfeit.Case()), abs=1e-9)
    assert weth / wsteth == pytest.approx(190.9 / 2.3, rel=1e-9)


def test_the_shortage_travels_by_dependence_alone() -> None:
    case = counterfeit.Case()
    assert counterfeit.bad_debt(counterfeit.solved(case, "dependence")) == 0.0
    bare = counterfeit.bad_debt(counterfeit.solved(case, "funding", "claims", "backing"))
    assert bare == pytest.approx(counterfeit.by_itself(case), abs=1e-9)


def test_loopers_of_the_size_that_is_told_make_up_the_rest() -> None:
    case, told = counterfeit.Case(), counterfeit.TOLD["all holders share"]
    need = counterfeit.loopers_for(told, case)
    assert need == pytest.approx((told - counterfeit.by_itself(case)) / (0.93 - 0.8488), rel=1e-9)
    more = counterfeit.Case(loopers=need)
    assert counterfeit.bad_debt(counterfeit.solved(more, "funding")) == pytest.approx(
        told, rel=1e-9
    )
    row = counterfeit.pool(counterfeit.solved(more))
    assert row["used"] == pytest.approx(1.0, abs=1e-9)
    # who wants out is five times the share that the pool lost; what is lent cannot be taken out
    lent = counterfeit.LENT + counterfeit.WETH_TAKEN
    idle = (counterfeit.LENT / 0.9 - lent) * counterfeit.WETH / 1e6
    assert row["left"] == pytest.approx(idle, rel=1e-9)
