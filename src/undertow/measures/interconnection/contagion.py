"""Contagion as a study: what a shock costs when losses travel by every channel, and by which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from undertow.measures.crowding.crowd import Crowd
from undertow.measures.interconnection.attributing import BORNE, Case, loss_of
from undertow.measures.interconnection.causes import left_standing, who_bears
from undertow.measures.interconnection.pathwords import bearer, money
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.stress.contagion import CHANNELS, PLAIN, Assumptions, Channels, Contagion, Ending
from undertow.stress.scenario import Scenario
from undertow.stress.shock import Shock, require_within

FALL = 0.2
# The ends between which a careful person would put what nobody says; each is a solve of its own.
ENDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "keep_assets": (0.5, 1.0), "keep_received": (0.8, 1.0), "capital": (0.0, 0.15),
        "elasticity": (0.5, 2.0), "run": (0.0, 20.0), "hours": (1.0, 168.0),
        "recovery": (0.0, 0.5), "chain_hours": (1.0, 72.0),
    }
)  # fmt: skip
_NAME = "interconnection.contagion"
_TOLD = ("lost_usd", "bad_usd", "gone_usd", "cost_usd", "ruined_usd", "not_paid_usd",
         "pools_lost_usd", "tokens_lost_usd", "locked_usd", "dearer_usd", "defaults")  # fmt: skip
_READ = (
    "A shock is followed through all channels that are on to where nothing moves any more. "
    "`lost_usd` is what is lost for good by anybody but borrowers and traders. `realised` says who "
    "gained and lost, and adds up to 0; `handed_on` shows the same losses as they travel, and is "
    "not to be added up. `bearers` says who bears what is lost, and adds up to it: parties of the "
    "claims, those with a claim whom nobody named (`unnamed`), winners and funds of venues, and "
    "accounts under water that nobody closed (`open`); debts that fell away with the coins "
    "behind them are below 0 (`spared`). `parties` says what each pays, and the "
    "least that it may be paying. "
    "`channels` has the plain cascade, each channel added to it alone, each switched off, and "
    "all. `valuation` is a ledger apart, never added to what was realised: what claims lose in "
    "value, between clearing (Eisenberg and Noe), where only who cannot pay costs anything, and "
    "linear marks (corrected DebtRank), where every dollar of a debtor's equity does; a single "
    "hit stands beside them. `assumptions` moves one assumption at a time to its ends: a range "
    "over assumptions, and no band of confidence."
)
_MISLEADS = (
    "What parties have beside what tables tell is assumed, and so is how much they run, what a "
    "failed one still pays, and how far a token falls that lost backing; `assumptions` has each "
    "alone, not two at once. Claims nobody told of carry nothing, so a contagion without claims is "
    "the plain cascade. Nobody acts to save himself or another but by running. All claims on a "
    "party are of one rank. Payments that fit may be several: the greatest are taken, and `least` "
    "says who might be paying less if nobody believed anybody."
)


def contagion(
    book: Snapshot | Crowd | Web | Any,
    *,
    fall: float = FALL,
    scenario: Scenario | None = None,
    failed: str | Shock | Sequence[str | Shock] = (),
    channels: Channels | None = None,
    assumed: Assumptions | None = None,
    ends: Mapping[str, tuple[float, float]] | None = None,
) -> Study:
    """What a shock costs when losses travel by all channels, by which, and who bears it.

    The shock is a common `fall` of all prices but those of money, unless a `scenario` is given;
    `failed` names who fails on top of it, as `custodian:NAME`. `ends` are those of the assumptions
    that are moved (`ENDS` unless given; none where it is empty). The book is settled first.
    `failed` may be one name as well as several.

    Raises
    ------
    StateError
        When it is no book or no scenario, or a name is unknown, or a size out of range.

    References
    ----------
    Eisenberg and Noe (2001); Rogers and Veraart (2013), greatest and least payments; Bardoscia et
    al. (2015), linear marks; Barucca et al. (2020), marks ahead.
    """
    require_within("fall", fall, -10.0, 0.999)
    case = Case.of(Web.of(book), fall=fall, scenario=scenario, failed=all_of(failed),
                   channels=channels, assumed=assumed)  # fmt: skip
    found = case.found
    tables = {
        "channels": _by_channel(case),
        "passes": found.by_pass(),
        "bearers": _bearers(found),
        "parties": found.by_node(),
        "handed_on": found.handed_on(),
        "realised": found.realised(),
        "valuation": found.valuation(),
        "least": _least(found),
        "assumptions": _assumptions(case, ENDS if ends is None else ends),
        "quantities": found.quantities(),
        "causes": found.causes(),
    }
    return Study(
        name=_NAME,
        title="What a shock costs when losses travel",
        readings=tuple(_readings(case, tables)),
        tables=tables,
        says=tuple(_says(case, tables)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def all_of(failed: str | Shock | Sequence[str | Shock]) -> tuple[str | Shock, ...]:
    """Who fails, whether one was named or several."""
    return (failed,) if isinstance(failed, str | Shock) else tuple(failed)


def _bearers(found: Contagion) -> pl.DataFrame:
    """One row each who bears a part of what is lost for good; they add up to it."""
    rows = [(*key, usd) for key, usd in who_bears(found).items()]
    kind, usd = left_standing(found)
    if usd:
        rows.append((kind, "", usd))
    frame = pl.DataFrame(
        rows, schema={"kind": pl.String, "bearer": pl.String, "usd": pl.Float64}, orient="row"
    )
    whole = float(frame["usd"].sum())
    return frame.with_columns(share=pl.col("usd") / (whole or 1.0)).sort(
        "usd", "kind", "bearer", descending=[True, False, False]
    )


def _by_channel(case: Case) -> pl.DataFrame:
    """One row a set of channels: none, the plain cascade, one more, one less, all."""
    on, rows = case.channels, list[tuple[Any, ...]]()
    plain = Channels.only(*(name for name in PLAIN.on if name in on.on))
    sets = [("none", "", Channels.only()), ("plain cascade", "", plain)]
    sets += [
        ("plain and", name, Channels.only(*plain.on, name))
        for name in CHANNELS if name in on.on and name not in plain.on
    ]  # fmt: skip
    sets += [("all but", name, on.without(name)) for name in on.on]
    solved: dict[Channels, Contagion] = {on: case.found}
    for way, name, channels in [*sets, ("all", "", on)]:
        if channels not in solved:
            solved[channels] = case.solve(channels, check=False, trace=False)
        head = solved[channels].headline()
        rows.append((way, name, *(float(head[key]) for key in _TOLD),
                     loss_of(solved[channels], BORNE)))  # fmt: skip
    names = {"way": pl.String, "channel": pl.String, **dict.fromkeys((*_TOLD, BORNE), pl.Float64)}
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("defaults").cast(pl.Int64)
    )


def _least(found: Contagion) -> pl.DataFrame:
    """One row a party that pays less by the least payments that fit than by the greatest."""
    parties = found.by_node().filter(pl.col("least_share") < pl.col("share") - 1e-12)
    apart = pl.col("owed_usd") * (pl.col("share") - pl.col("least_share"))
    return parties.select(
        "party", "sort", "owed_usd", "share", "least_share", less_usd=apart
    ).sort("less_usd", "party", descending=[True, False])  # fmt: skip


def _assumptions(case: Case, ends: Mapping[str, tuple[float, float]]) -> pl.DataFrame:
    """One row an assumption: the loss at each of its ends, all others as they are."""
    rows = []
    for name, (low, high) in ends.items():
        moved: list[dict[str, Any]] = [{name: value} for value in (low, high)]
        at = [
            case.solve(assumed=replace(case.assumed, **each), check=False, trace=False)
            for each in moved
        ]
        lost = [loss_of(each, "lost_usd") for each in at]
        borne = [loss_of(each, BORNE) for each in at]
        rows.append((name, float(getattr(case.assumed, name)), low, high, *lost, *borne))
    names = ("assumption", "taken", "low", "high", "lost_at_low_usd", "lost_at_high_usd",
             "borne_at_low_usd", "borne_at_high_usd")  # fmt: skip
    schema: dict[str, Any] = dict.fromkeys(names, pl.Float64) | {"assumption": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    wide = (pl.col("lost_at_high_usd") - pl.col("lost_at_low_usd")).abs()
    more = (pl.col("borne_at_high_usd") - pl.col("borne_at_low_usd")).abs()
    return frame.sort(wide, more, "assumption", descending=[True, True, False])


def _holders(valuation: pl.DataFrame) -> pl.DataFrame:
    """Those who do not only pass on: a loss of a vault is one of its holders, and counts once."""
    return valuation.filter(~pl.col("party").str.contains("^(asset|pool):"))


def _row(tables: Mapping[str, pl.DataFrame], way: str) -> dict[str, Any]:
    return tables["channels"].row(by_predicate=pl.col("way") == way, named=True)


def _readings(case: Case, tables: Mapping[str, pl.DataFrame]) -> list[Reading]:
    web, name = case.web, case.scenario.name
    whole, plain = _row(tables, "all"), _row(tables, "plain cascade")
    marks, less = _holders(tables["valuation"]), float(tables["least"]["less_usd"].sum())
    times = whole["lost_usd"] / plain["lost_usd"] if plain["lost_usd"] > 0.0 else None
    found = [
        web.reading("interconnection.contagion_loss", whole["lost_usd"], "usd",
                    f"lost for good by anybody but borrowers and traders after {name}, by all "
                    "channels that are on"),
        web.reading("interconnection.contagion_amplification", known(times), "1",
                    "that over the loss of the plain cascade (fire sales and receipts alone); none "
                    "where that loses nothing"),
        web.reading("interconnection.contagion_borne", whole[BORNE], "usd",
                    f"borne after {name} by parties of claims and those whom no claim names"),
        web.reading("interconnection.contagion_defaults", float(whole["defaults"]), "1",
                    f"parties that do not pay all they owe after {name}"),
        web.reading("interconnection.contagion_marked", float(marks["linear_usd"].sum()), "usd",
                    "what claims lose in value by linear marks, a ledger apart, by parties that "
                    "do not only pass on; clearing is its lower end and stands in the table"),
        web.reading("interconnection.contagion_least", less, "usd",
                    "what parties would pay less if nobody believed anybody: least against "
                    "greatest payments that fit"),
    ]  # fmt: skip
    return [replace(each, evidence="modelled") for each in found]


def _says(case: Case, tables: Mapping[str, pl.DataFrame]) -> list[str]:
    found, whole, plain = case.found, _row(tables, "all"), _row(tables, "plain cascade")
    count = int(whole["defaults"])
    broke = many(count, "party defaults", "parties default") if count else "nobody defaults"
    words = [
        (
            f"{money(whole['lost_usd'])} USD are lost for good after {case.scenario.name}, "
            f"{money(plain['lost_usd'])} USD by the plain cascade alone; {broke}."
        )
    ]
    words += _of_failures(case, whole)
    words += _of_channels(tables["channels"], whole)
    words += _of_bearers(tables["bearers"])
    marks = _holders(tables["valuation"])
    if marks.height:
        low, high, once = (
            money(float(marks[column].sum()))
            for column in ("clearing_usd", "linear_usd", "single_hit_usd")
        )
        words.append(
            f"In value claims lose between {low} (clearing) and {high} USD (linear marks), {once} "
            "in a single hit; that is no further loss, but another way to look."
        )
    words += _of_assumptions(tables["assumptions"], whole)
    least = tables["least"]
    if least.height:
        words.append(
            f"If nobody believed anybody, {many(least.height, 'party', 'parties')} would pay "
            f"{money(float(least['less_usd'].sum()))} USD less: the loss has several rests."
        )
    if found.ending is not Ending.SETTLED:
        words.append(f"The channels had not come to rest: {found.ending.value}.")
    return [*words, *(f"{note[0].upper()}{note[1:]}." for note in found.notes)]


def _of_failures(case: Case, whole: dict[str, Any]) -> list[str]:
    """Why a failure may cost less than its name suggests."""
    if not case.failed or not case.channels.dependence:
        return []
    done = case.found.settlement
    sheet, due = done.sheet, done.sheet.summed(done.sheet.creditor, done.owed.face)
    named = [each for each in case.failed if isinstance(each, str) and each in sheet.names]
    words = [
        (
            f"{name} fails with what it has outside, and is still paid the {money(owed)} USD that "
            "others owe to it"
            + ("; where coins of accounts are gone too, give the shock `exploit`, as nodes does."
               if name.startswith("venue:") else ".")
        )
        for name in named if (owed := float(due[sheet.party(name)])) >= 1.0
    ]  # fmt: skip
    if whole["lost_usd"] < 1.0:
        words.append(
            "Nothing that failed costs anybody else anything here: what stands still costs nothing "
            "while no price moves, and debts with collateral in the book are closed there. A shock "
            "in a scenario file says how wrong a feed is or how little is given back."
        )
    return words


def _of_channels(table: pl.DataFrame, whole: dict[str, Any]) -> list[str]:
    """Which channel spares most when it is switched off."""
    off = table.filter(pl.col("way") == "all but")
    spared = whole["lost_usd"] - off["lost_usd"].to_numpy()
    borne = whole[BORNE] - off[BORNE].to_numpy()
    if not len(spared):
        return []
    k, j = int(np.argmax(spared)), int(np.argmax(borne))
    words = []
    if spared[k] > 0.0:
        words.append(f"Without {off['channel'][k]} it would be {money(float(spared[k]))} USD less.")
    if borne[j] > 0.0 and j != k:
        words.append(
            f"Most of what others bear hangs on {off['channel'][j]}: "
            f"{money(float(borne[j]))} USD of {money(whole[BORNE])}."
        )
    return words


def _of_bearers(bearers: pl.DataFrame) -> list[str]:
    """Who bears most by claims, and how much claims have no part in."""
    bears = bearers.filter(pl.col("kind").is_in(("party", "unnamed")))
    if not bears.height:
        return ["Nobody beside borrowers, traders and funds bears anything."]
    first = bears.row(0, named=True)
    share = percent(first["usd"] / float(bears["usd"].sum()))
    most = f"{money(first['usd'])} USD or {share}"
    who = bearer(first["kind"], first["bearer"])
    words = [f"Most of what is handed on, {most}, is borne by {who}."]
    others = {
        "winners": "winners of contracts", "fund": "funds of venues", "nobody": "nobody",
        "open": "accounts under water that nobody closed",
    }  # fmt: skip
    sums = dict(bearers.group_by("kind").agg(pl.col("usd").sum()).iter_rows())
    beside = [f"{name} {money(sums[kind])} USD" for kind, name in others.items() if kind in sums]
    if beside:
        words.append(f"What no claim hands on stays where it fell: {listed(beside)}.")
    if "spared" in sums:
        words.append(
            f"Borrowers need not repay {money(-sums['spared'])} USD since the coins behind it went."
        )
    return words


def _of_assumptions(table: pl.DataFrame, whole: dict[str, Any]) -> list[str]:
    """The range over assumptions, and the one that it hangs on most."""
    if not table.height:
        return []
    ends = table.select("lost_at_low_usd", "lost_at_high_usd").to_numpy()
    low, high = min(float(ends.min()), whole["lost_usd"]), max(float(ends.max()), whole["lost_usd"])
    borne = table.select("borne_at_low_usd", "borne_at_high_usd").to_numpy()
    first = table.row(0, named=True)
    said = (
        f"Over assumptions, one at a time, the loss is {money(low)} to {money(high)} USD and what "
        f"others bear {money(float(borne.min()))} to {money(float(borne.max()))} USD: a range over "
        "assumptions, no band of confidence."
    )
    if high > low:
        said += (
            f" It hangs most on {first['assumption']} ({told(first['low'])} to "
            f"{told(first['high'])})."
        )
    return [said]
