"""Do open interest, funding and utilisation warn of liquidations and of large falls, really.

What is asked, and how, stands in `warning_records`, and was fixed before any answer was seen. The
answers, for the most part no, are in `docs/methods/early-warning.md`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from truth.warning_records import (
    HORIZON_US,
    NAIVE,
    RANKED,
    Trouble,
    days,
    falls,
    listed_trouble,
    signal,
    troubles,
)
from undertow.validate.episodes import DAY_US
from undertow.validate.foretelling import Foretelling, Verdict, foretold
from undertow.validate.increments import Addition, Increment, beyond


@dataclass(frozen=True)
class Answer:
    trouble: str
    signal: str
    alone: Foretelling
    added: Increment | None


def ask(trouble: Trouble, name: str, *, naive: tuple[str, ...]) -> Answer:
    """Of one signal: does it warn, and does it add to `naive` ones, if any."""
    ts, x = days()["ts"].to_physical().to_numpy(), signal(name, trouble.coin)
    alone = foretold(ts, x, trouble.begun, horizon_us=HORIZON_US, rng=np.random.default_rng(0))
    known = {each: signal(each, trouble.coin) for each in naive}
    added = beyond(
        ts, x, known, trouble.begun, horizon_us=HORIZON_US, rng=np.random.default_rng(0)
    ) if known else None  # fmt: skip
    return Answer(trouble.name, name, alone, added)


def banded(value: float, low: float, high: float, spelled: str) -> str:
    """A number with its band; nothing where there is none."""
    if np.isnan(value):
        return ""
    return f"{value:{spelled}} ({low:{spelled}} to {high:{spelled}})"


def line(answer: Answer) -> str:
    """The answer as a row of a table."""
    a, rung, b = answer.alone, answer.alone.record, answer.added
    lead = (each / DAY_US for each in (rung.lead_us, rung.lead_low, rung.lead_high))
    cells = [
        answer.trouble, answer.signal, str(a.episodes), banded(a.auc, a.low, a.high, ".2f"),
        f"{a.p_value:.3f}",
        f"{rung.hits} of {rung.episodes}, {rung.hit_by_chance:.0%}" if rung.episodes else "",
        f"{rung.false_alarm_rate:.0%}" if rung.episodes else "",
        banded(*lead, ".1f"), a.verdict.value,
    ]  # fmt: skip
    if b is not None:
        p_value = "" if np.isnan(b.p_value) else f"{b.p_value:.2f}"
        gain = banded(b.gain, b.low, b.high, "+.2f")
        both = "" if np.isnan(b.gain) else f"{b.naive_auc:.2f}, {b.auc:.2f}"
        cells += [str(b.episodes), both, gain, p_value, b.verdict.value]
    return "| " + " | ".join(cells) + " |\n"


def test_large_falls_of_bitcoin_are_too_few_or_not_foretold_by_their_volatility() -> None:
    by_spread, _ = falls("BTC")
    found = ask(by_spread, "volatility", naive=()).alone
    sys.stdout.write(f"\n{by_spread.name}, volatility: {found.says}\n")
    assert found.episodes >= 20
    assert found.verdict is Verdict.DOES_NOT
    listed = ask(listed_trouble(), "volatility", naive=()).alone
    sys.stdout.write(f"{listed_trouble().name}, volatility: {listed.says}\n")
    assert listed.verdict is Verdict.CANNOT_TELL


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    found = []
    for trouble in troubles():
        for name in (*NAIVE, *trouble.signals):
            naive = {"volatility": (), "recent fall": (), "funding": ("volatility",)}
            found.append(ask(trouble, name, naive=naive.get(name, ("volatility", "funding"))))
    return found


@pytest.mark.slow
def test_what_warns_of_what(answers: list[Answer]) -> None:
    """Funding does, of large falls; volatility of falls that are large in per cent; else nothing.

    Utilisation of stablecoins ranks high before liquidations and adds nothing.
    """
    for answer in answers:
        sys.stdout.write(line(answer))
    warned = {(a.trouble, a.signal) for a in answers if a.alone.verdict is Verdict.WARNS}
    added = {(a.trouble, a.signal) for a in answers if a.added and a.added.verdict is Addition.ADDS}
    assert not [name for _, name in warned | added if name.startswith(("OI growth", "recent fall"))]
    assert not [name for _, name in added if name.startswith("utilisation")]
    for trouble in ("basket, 2.5 deviations", "basket, 8 %"):
        assert (trouble, "funding") in warned
    assert ("basket, 8 %", "volatility") in warned
    assert ("basket, 2.5 deviations", "volatility") not in warned
    for answer in answers:
        if answer.alone.episodes < 20:
            assert answer.alone.verdict is Verdict.CANNOT_TELL


@pytest.mark.slow
def test_what_warned_by_its_level_is_asked_again_by_its_rank() -> None:
    """A second look, at what drifts over the years: funding, stablecoins, volatility."""
    verdicts = {}
    for trouble in troubles():
        names = ["funding", "volatility"]
        names += ["utilisation of stables"] * trouble.name.startswith("Aave")
        for name in names:
            naive = () if name == "volatility" else ("volatility" + RANKED,)
            answer = ask(trouble, name + RANKED, naive=naive)
            sys.stdout.write(line(answer))
            verdicts[trouble.name, name] = answer.alone.verdict
    assert verdicts["basket, 2.5 deviations", "funding"] is Verdict.WARNS
    assert verdicts["Aave v2, list of 2021", "funding"] is Verdict.CANNOT_TELL
    for trouble in ("Aave, top 1 % of hours", "Aave, 1 bp of supply"):
        assert verdicts[trouble, "utilisation of stables"] is Verdict.DOES_NOT
        assert verdicts[trouble, "funding"] is Verdict.DOES_NOT
