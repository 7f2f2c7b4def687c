"""Paths: the chain of causes from a shock to each loss, and what each channel and origin did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from undertow.econometrics.checks import within
from undertow.econometrics.shapley import Shares
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.door import require_seed
from undertow.measures.interconnection import pathtables as tables
from undertow.measures.interconnection.attributing import BORNE, Case, Divided, Progress, loss_of
from undertow.measures.interconnection.causes import Causes, left_standing
from undertow.measures.interconnection.contagion import all_of
from undertow.measures.interconnection.pathwords import bare, money
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import many, percent
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.stress.contagion import Assumptions, Channels, Contagion, Ending
from undertow.stress.scenario import Scenario
from undertow.stress.shock import Shock, require_within

FALL = 0.2
TOP = 3  # chains of each bearer
MOST, LARGE, FEW = 1_024, 10_000, 64  # solves of one division; in books of so many accounts fewer
TARGET = "lost_usd"
_NAME = "interconnection.paths"
_READ = (
    "The loss is {target}: {meaning}. With all channels off accounts are closed at the prices of "
    "the shock, nobody's sale moves a price, and everybody is paid. `channels` divides what "
    "channels add to that. `alone_usd` is what one adds by itself, `off_usd` what is spared when "
    "it alone is switched off; `shapley_usd` is the mean of what it adds over all orders of "
    "switching on, and adds up. `origins` divides the whole loss in the same way over what "
    "happens: assets whose own price moves, other shocks, failures. `chains` are the heaviest "
    "paths from a shock to each who bears a loss: every node divides what is laid on it among its "
    "causes in proportion to USD (a price among what moved it, in logs), so all chains of a "
    "bearer add up to its loss, and `usd` is what one of them carries."
)
_MISLEADS = (
    "A division is of what this model says, with something left out that in the world cannot be "
    "left out. What two channels do only together is divided alike between them. A share below 0 "
    "is a channel that spared somebody: a run that leaves a loss to others, a cut that stops "
    "another. Chains divide in proportion, which is a convention: without the first link of a "
    "chain more or less than its USD may be spared, and `origins` says how much. Accounts of one "
    "venue and round are put together. Of a slice of contracts the log names the largest, so sales "
    "of smaller ones hang on it. Who left a reserve in time moved a loss to those who stayed: that "
    "stands in the share of funding, not in chains."
)
_MEANINGS = {
    TARGET: "what is lost for good by anybody but borrowers and traders (debt and shortfalls that "
    "nobody can pay, what is gone from who failed, costs of default)",
    BORNE: "what parties of the claims, and those whom no claim names, bear",
}


def paths(
    book: Snapshot | Crowd | Web | Any,
    *,
    fall: float = FALL,
    scenario: Scenario | None = None,
    failed: str | Shock | Sequence[str | Shock] = (),
    channels: Channels | None = None,
    assumed: Assumptions | None = None,
    target: str = TARGET,
    to: str | None = None,
    top: int = TOP,
    most: int | None = None,
    seed: int = 0,
    level: float = 0.9,
    progress: Progress | None = None,
) -> Study:
    """Which way a shock takes to every loss, and what each channel and each origin did to it.

    The shock is a common `fall` of all prices but those of money, unless a `scenario` is given;
    `failed` names who fails on top of it, one or several. `target` is the loss that is divided: a
    number of the headline of a contagion in USD, `borne_usd`, or a party, as `owner:17`. Chains
    lead to all who bear a loss, or to those that `to` names: `okx` and what goes by that name, or
    `fund:okx` alone. A division takes at most `most` solves (1,024; 64 in books of more than 10,000
    accounts): where all sets are more, orders are drawn, and the shares have a band at `level`.
    `progress` is told of every solve of it.

    Raises
    ------
    StateError
        When it is no book or no scenario, or a name is unknown, or a size out of range.
    EstimationError
        When `most` solves are too few.

    References
    ----------
    Shapley (1953). Eisenberg and Noe (2001), for who pays what. Hart, Nilsson and Raphael (1968),
    the search for the heaviest chains.
    """
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    require_within("fall", fall, -10.0, 0.999)
    require_within("top", top, 1)
    case = Case.of(Web.of(book), fall=fall, scenario=scenario, failed=all_of(failed),
                   channels=channels, assumed=assumed)  # fmt: skip
    whole = loss_of(case.found, target)
    causes, rng = Causes(case), np.random.default_rng(seed)
    ends = tables.ends_of(causes, to)
    if most is None:
        most = MOST if case.web.snapshot.book.accounts <= LARGE else FEW
    divided = Divided.of(case, target, most, rng, progress)
    made = tables.tables_of(causes, ends, top, divided)
    meaning = _MEANINGS.get(target, "as the headline of a contagion has it")
    if not target.endswith("_usd"):
        meaning = "what that party and those whom no claim of it names lost"
    return Study(
        name=_NAME,
        title="Which way a shock takes to every loss",
        readings=tuple(_readings(case, target, whole, divided, made, level)),
        tables=made,
        says=tuple(_says(causes, target, whole, divided, made)),
        how_to_read=_READ.format(target=target, meaning=meaning),
        misleads=_MISLEADS,
        left_out={**divided.why, **_cut_short(causes)},
    )


def _cut_short(causes: Causes) -> dict[str, str]:
    """Bearers to whom more chains may lead than the search looked at."""
    ends = sorted(causes.trails.cut_short)
    return {f"{bare(end.name)}: more chains": "too many ways lead there" for end in ends}


def _readings(
    case: Case, target: str, whole: float, divided: Divided, made: tables.Tables, level: float
) -> list[Reading]:
    by_channel, by_origin, origins = divided.by_channel, divided.by_origin, divided.origins
    web, shock = case.web, case.scenario.name
    through = f"{target} after {shock}"
    found = [
        web.reading("interconnection.path_loss", whole, "usd", f"{through}, by all channels on")
    ]
    none = by_channel.none if by_channel is not None else None
    travelled = 1.0 - none / whole if none is not None and whole > 0.0 else None
    found += [
        web.reading("interconnection.travelled", travelled, "1",
                    f"share of {through} that is not there with all channels off; none without "
                    "a loss"),
        web.reading("interconnection.chains_explain", _explained(made), "1",
                    "share of what bearers lost that the chains shown lead to; none where nobody "
                    "bears anything"),
    ]  # fmt: skip
    words = f"USD of {through} that is due to it, the mean over orders of"
    if by_channel is not None:
        found += _shares(web, "interconnection.channel_share", case.channels.on, by_channel,
                          f"{words} switching channels on", level)  # fmt: skip
    if by_origin is not None:
        found += _shares(web, "interconnection.origin_share", [each.name for each in origins],
                          by_origin, f"{words} letting things happen", level)  # fmt: skip
    return [replace(each, evidence="modelled") for each in found]


def _shares(
    web: Web, name: str, players: Sequence[str], found: Shares, words: str, level: float
) -> list[Reading]:
    wide = float(norm.ppf(0.5 + 0.5 * level))
    readings = []
    for player, usd, error in zip(players, found.shapley, found.error, strict=True):
        low = high = None
        if not found.exact:
            low, high = float(usd - wide * error), float(usd + wide * error)
        readings.append(
            web.reading(name, float(usd), "usd", words, player, low=low, high=high, level=level)
        )
    return readings


def _explained(made: tables.Tables) -> float | None:
    bearers = made["bearers"]
    whole = float(bearers["usd"].sum()) if bearers.height else 0.0
    return float(made["chains"]["usd"].sum()) / whole if whole > 0.0 else None


def _says(
    causes: Causes, target: str, whole: float, divided: Divided, made: tables.Tables
) -> list[str]:
    case, by_channel, by_origin = causes.case, divided.by_channel, divided.by_origin
    words = [f"{money(whole)} USD {_spoken(target)} after {case.scenario.name}"]
    if by_channel is not None:
        words[0] += f", {money(by_channel.none)} USD of it with all channels off"
        words.append(_due("channels add", case.channels.on, by_channel))
    words[0] += "."
    if by_origin is not None:
        words.append(_due("it comes from", [each.name for each in divided.origins], by_origin))
    first = made["chains"].head(1)
    if first.height:
        share = percent(float(first["share"][0]))
        words.append(f"The heaviest chain carries {share} of what its bearer lost: "
                     f"{first['says'][0]}.")  # fmt: skip
        count, bearers = made["chains"].height, many(made["bearers"].height, "bearer")
        lead = "chain shown leads" if count == 1 else "chains shown lead"
        words.append(
            f"{count:,} {lead} to {percent(_explained(made))} of what {bearers} lost; the rest "
            "takes smaller ways."
        )
    words += _standing(case, target)
    untold = float((made["bearers"]["usd"] * made["bearers"]["untold"]).sum())
    if untold > 1.0:
        words.append(f"For {money(untold)} USD no cause was found.")
    words += [f"It could not be divided among {what}: {why}." for what, why in divided.why.items()]
    return [*words, *_cautions(case.found, by_channel, by_origin)]


def _standing(case: Case, target: str) -> list[str]:
    """What is in the headline and in no chain: accounts that nobody closed, and debts forgone."""
    kind, usd = left_standing(case.found)
    if target != "lost_usd" or abs(usd) < 1.0:
        return []
    words = (
        f"{money(usd)} USD of the loss stand under water in accounts that nobody closed: who will "
        "bear that is open, and no chain leads to it."
        if kind == "open"
        else f"Bearers lose {money(-usd)} USD more than is lost: borrowers need not repay so much "
        "since the coins behind it went."
    )
    return [words]


def _spoken(target: str) -> str:
    """What becomes of the money, as a sentence has it."""
    if target in _MEANINGS:
        return {TARGET: "are lost for good", BORNE: "are borne by parties of claims"}[target]
    if target.endswith("_usd"):
        return f"are {target.removesuffix('_usd').replace('_', ' ')}"
    return f"are lost by {bare(target)}"


def _due(lead: str, names: Sequence[str], found: Shares) -> str:
    """What players have a part in, the largest first."""
    order = np.lexsort((np.arange(len(names)), -np.abs(found.shapley)))
    told = [f"{names[k]} {money(float(found.shapley[k]))} USD" for k in order if found.shapley[k]]
    idle = [names[k] for k in order if not found.shapley[k]]
    said = f"{lead.capitalize()} {', '.join(told) or 'nothing'}"
    return said + (f"; nothing: {', '.join(sorted(idle))}." if idle and told else ".")


def _cautions(found: Contagion, *divided: Shares | None) -> list[str]:
    """What a reader has to know of how it was worked out."""
    words = []
    if found.ending is not Ending.SETTLED:
        words.append(f"The channels had not come to rest: {found.ending.value}.")
    drawn = [each for each in divided if each is not None and not each.exact]
    if drawn:
        asked = sum(each.asked for each in drawn)
        words.append(f"Orders were drawn ({asked:,} solves): shares have errors, the sums none.")
    return [*words, *(f"{note[0].upper()}{note[1:]}." for note in found.notes)]
