"""How far contagion hangs on links that nobody knows: its range over networks with known totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.econometrics.partial_links import Open, drawn_from, few_links, spread_over
from undertow.econometrics.worst_links import Networks, Searched, searched
from undertow.errors import StateError
from undertow.fanout import Executor, Serial
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.door import require_seed
from undertow.measures.interconnection.margins import NUMBERS, Linked, Margins
from undertow.measures.interconnection.untold import Untold, kept_numbers
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import common_fall, known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.stress.contagion import Assumptions, Channels
from undertow.stress.scenario import Scenario
from undertow.stress.shock import MARKET, Price, near, require_within
from undertow.stress.stressed import Stressed

_NAME = "interconnection.links"
DRAWS = 200
LEAST_DRAWS = 200
SEARCHED = ("shortfall_usd", "debtrank_usd")
_SAME = 1e-6  # of a number: a range of less is none
_READ = (
    "Totals are known and links are not: every network here has the same totals and known links. "
    "`even` is the network of maximum entropy, `few` one of few links; `least` to `greatest` are "
    "of all drawn networks, `even` and `few`; `low`, `middle`, `high` are quantiles of drawn ones. "
    "`searched` is the largest that was found by looking for it: there is a network "
    "with that number, and there may be a worse one. `bound` is proved: no network with these "
    "totals passes it; where it is empty nothing is proved. `worst` says in which share of drawn "
    "networks each node's default costs the others most. Marks (`debtrank_usd`, `single_hit_usd`, "
    "`ahead_usd`) are valuation losses and are never added to what is not paid."
)
_MISLEADS = (
    "Draws follow a prior (how likely a link is there at all, and how large), so their quantiles "
    "are beliefs and not frequencies, and their greatest is no end of what is possible. Real "
    "networks have cores and habits that no total tells; maximum entropy hides them. "
)
_OF_BOOK = (
    "Forced sales and prices are those of the book as told: links move who bears losses, not what "
    "is sold. That assets of unknown whereabouts lie with parties of this book at all is assumed "
    "(`inside`); what nobody named in the claims, such as a lender outside, cannot be linked."
)


class Family(Protocol):
    """All networks with some totals."""

    @property
    def open(self) -> tuple[Open, ...]:
        """Totals of what is not known, one for each part that is apart."""

    def number(self, name: str, networks: Networks) -> float:
        """One contagion number of a network."""

    def numbers(self, networks: Networks) -> tuple[dict[str, float], str]:
        """All of them, and the node whose default costs the others most."""

    def bounds(self) -> dict[str, float]:
        """The most that numbers can be, where it is proved."""


@dataclass(frozen=True, eq=False)
class Plain:
    """Networks of plain margins."""

    margins: Margins

    @property
    def open(self) -> tuple[Open, ...]:
        """One part."""
        return (self.margins.open,)

    def number(self, name: str, networks: Networks) -> float:
        """One contagion number of a network."""
        return Linked.of(self.margins, networks[0]).number(name)

    def numbers(self, networks: Networks) -> tuple[dict[str, float], str]:
        """All of them, and the node whose default costs the others most."""
        found = Linked.of(self.margins, networks[0])
        worst = self.margins.names[int(np.argmax(found.by_default))] if len(self.margins) else ""
        return found.numbers(), worst

    def bounds(self) -> dict[str, float]:
        """The most that numbers can be."""
        return self.margins.bounds()


@dataclass(frozen=True, eq=False)
class Ranges:
    """Every contagion number over networks with the same totals."""

    table: pl.DataFrame  # a row a number
    draws: pl.DataFrame  # a row a drawn network
    worst: pl.DataFrame  # a row a node that is worst in some network
    found: Mapping[str, Searched]

    def row(self, number: str) -> dict[str, Any]:
        """The range of one number.

        Raises
        ------
        StateError
            When there is no number of the name.
        """
        if number not in NUMBERS:
            raise StateError(f"no number is called {number!r}", hint=near(number, tuple(NUMBERS)))
        return self.table.row(by_predicate=pl.col("number") == number, named=True)


def links(
    book: Snapshot | Crowd | Web | Any,
    *,
    fall: float = 0.2,
    scenario: Scenario | Stressed | None = None,
    failed: str | Sequence[str] = (),
    channels: Channels | None = None,
    assumed: Assumptions | None = None,
    inside: float = 1.0,
    draws: int = DRAWS,
    density: float = 0.3,
    search: Sequence[str] = SEARCHED,
    tries: int = 200,
    level: float = 0.9,
    seed: int = 0,
    executor: Executor | None = None,
) -> Study:
    """How far contagion over the claims of a book hangs on links that no table tells.

    The shock is a common `fall` of prices unless a `scenario` is given; `failed` fail on top.
    `inside` is the share of assets of unknown whereabouts that are taken to be claims on parties
    of the book, as far as these owe so much to nobody known. `search` are the numbers whose worst
    network is looked for, with so many `tries` each.

    Raises
    ------
    StateError
        When it is no book, a name is unknown, or a size is out of range.
    """
    web = Web.of(book)
    _require(draws, search, tries, seed, level)
    require_within("fall", fall, -10.0, 0.999)
    require_within("inside", inside, 0.0, 1.0)
    solve = partial(web.solver.solve, channels=channels, assumed=assumed, trace=False)
    failed = (failed,) if isinstance(failed, str) else tuple(failed)
    done = solve(_fallen(fall) if scenario is None else scenario, failed=failed)
    shock = _called(fall, scenario, failed)
    calm = solve(Stressed.calm(web.snapshot))
    family = Untold(done, calm.settlement, inside)
    totals = family.totals()
    if not family.puzzles:
        return _nothing_open(web, family, totals)
    found = ranges(
        family, draws=draws, density=density, search=search, tries=tries, restarts=2, seed=seed,
        level=level, executor=executor,
    )  # fmt: skip
    as_told = family.as_told()
    table = found.table.with_columns(
        as_told=pl.col("number").replace_strict(as_told, return_dtype=pl.Float64),
        definition=pl.col("definition") + f", after {shock}",
    )
    readings = [_share_reading(web, family)]
    readings += [
        web.reading(f"interconnection.{name}", row["value"], row["unit"],
                    f"{row['words']}, after {shock}", "links", low=row["low"],
                    high=row["high"], level=level)
        for name, row in _told(found, level).items()
    ]  # fmt: skip
    says = [_open_words(family), f"What follows is after {shock}.", *_says(found)]
    return Study(
        name=_NAME,
        title="How far contagion hangs on links that nobody knows",
        readings=tuple(readings),
        tables={"numbers": table, "totals": totals, "worst": found.worst, "draws": found.draws},
        says=tuple(says),
        how_to_read=f"{_READ} Every number is after {shock}. `as_told` is without any link put in "
        "place.",
        misleads=_MISLEADS + _OF_BOOK,
    )


def links_of(
    margins: Margins,
    *,
    draws: int = DRAWS,
    density: float = 0.3,
    search: Sequence[str] = SEARCHED,
    tries: int = 1_000,
    level: float = 0.9,
    seed: int = 0,
    ts: int = 0,
    evidence: str = "modelled",
    executor: Executor | None = None,
) -> Study:
    """The range of every contagion number over networks with plain margins, as of banks.

    Raises
    ------
    StateError
        When it is no set of margins, or a size is out of range.

    References
    ----------
    Upper (2011), Journal of Financial Stability 7; Anand, Craig and von Peter (2015), Quantitative
    Finance 15; Gandy and Veraart (2017), Management Science 63.
    """
    if not isinstance(margins, Margins):
        raise StateError(
            f"margins was of type {type(margins).__name__}; it must be Margins",
            hint="Margins.of(names, has, owes, equity) makes them",
        )
    _require(draws, search, tries, seed, level)
    found = ranges(
        Plain(margins), draws=draws, density=density, search=search, tries=tries, seed=seed,
        level=level, executor=executor,
    )  # fmt: skip
    readings = tuple(
        Reading(
            name=f"interconnection.{name}", value=row["value"], unit=row["unit"],
            definition=row["words"], ts=ts, evidence=evidence, inputs_hash=margins.digest,
            subject="links", low=row["low"], high=row["high"],
            level=None if row["low"] is None else level,
        )
        for name, row in _told(found, level).items()
    )  # fmt: skip
    totals = pl.DataFrame(
        {
            "node": margins.names, "has_usd": margins.has, "owes_usd": margins.owes,
            "open_has_usd": margins.open.has, "open_owes_usd": margins.open.owes,
            "equity_usd": margins.before, "hit_usd": margins.hit,
        },
        schema_overrides={"node": pl.String},
    )  # fmt: skip
    return Study(
        name=_NAME,
        title="How far contagion hangs on links that nobody knows",
        readings=readings,
        tables={"numbers": found.table, "totals": totals, "worst": found.worst,
                "draws": found.draws},
        says=tuple(_says(found)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )  # fmt: skip


def ranges(
    family: Family,
    *,
    draws: int = DRAWS,
    density: float = 0.3,
    search: Sequence[str] = SEARCHED,
    tries: int = 1_000,
    restarts: int = 4,
    seed: int = 0,
    level: float = 0.9,
    executor: Executor | None = None,
) -> Ranges:
    """Numbers of the even network, of the one of few links, of those drawn, and the worst found."""
    given = family.open
    even = tuple(spread_over(each) for each in given)
    few = tuple(few_links(each) for each in given)
    parts = (
        drawn_from(each, draws, density=density, seed=seed + 7_919 * part)
        for part, each in enumerate(given)
    )
    networks: list[Networks] = [even, few, *zip(*parts, strict=True)]
    answers = list((executor or Serial()).map(_asked, networks, shared=family))
    numbers = [each for each, _ in answers]
    found = {
        name: searched(given, _Number(family, name), _largest(networks, numbers, name, restarts),
                       tries=tries, restarts=restarts, seed=seed)
        for name in search
    }  # fmt: skip
    drawn = kept_numbers(numbers[2:])
    return Ranges(
        table=_table(numbers, drawn, found, family.bounds(), level),
        draws=drawn,
        worst=_worst([name for _, name in answers[2:]]),
        found=found,
    )


@dataclass(frozen=True, eq=False)
class _Number:
    """One number as a function of networks."""

    family: Family
    name: str

    def __call__(self, networks: Networks) -> float:
        return self.family.number(self.name, networks)


def _asked(family: Family, networks: Networks) -> tuple[dict[str, float], str]:
    return family.numbers(networks)


def _largest(
    networks: Sequence[Networks], numbers: Sequence[Mapping[str, float]], name: str, count: int
) -> list[Networks]:
    order = np.argsort([-each[name] for each in numbers], kind="stable")
    return [networks[k] for k in order[:count]]


def _table(
    numbers: Sequence[Mapping[str, float]], drawn: pl.DataFrame, found: Mapping[str, Searched],
    bounds: Mapping[str, float], level: float,
) -> pl.DataFrame:  # fmt: skip
    rows = []
    for name, (unit, words) in NUMBERS.items():
        values = drawn[name].to_numpy()
        every = np.append(values, [numbers[0][name], numbers[1][name]])
        tails = np.quantile(values, [0.5 - 0.5 * level, 0.5, 0.5 + 0.5 * level])
        best = found[name].value if name in found else None
        rows.append(
            (name, unit, numbers[0][name], numbers[1][name], float(every.min()),
             *map(float, tails), float(every.max()), best, bounds.get(name), words)
        )  # fmt: skip
    columns = ("even", "few", "least", "low", "middle", "high", "greatest", "searched", "bound")
    schema: dict[str, Any] = {"number": pl.String, "unit": pl.String}
    schema |= dict.fromkeys(columns, pl.Float64) | {"definition": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _worst(names: Sequence[str]) -> pl.DataFrame:
    count = Counter(name for name in names if name)
    rows = [(name, seen / max(len(names), 1)) for name, seen in count.items()]
    frame = pl.DataFrame(rows, schema={"node": pl.String, "share": pl.Float64}, orient="row")
    return frame.sort("share", "node", descending=[True, False])


def _told(found: Ranges, level: float) -> dict[str, dict[str, Any]]:
    """By number: the median of drawn networks and the band of them, as readings hold them."""
    rows = {}
    for row in found.table.iter_rows(named=True):
        rows[row["number"]] = {
            "value": known(row["middle"]), "unit": row["unit"], "low": known(row["low"]),
            "high": known(row["high"]),
            "words": f"{row['definition']}; median, and {percent(level)} of networks drawn given "
            "the totals, where links are not known",
        }  # fmt: skip
    return rows


def _says(found: Ranges) -> list[str]:
    words = []
    for name, what in (
        ("shortfall_usd", "What is not paid"),
        ("debtrank_usd", "What is marked down on top (DebtRank, corrected)"),
    ):
        row = found.row(name)
        top = max(row["greatest"], row["searched"] or 0.0)
        if top - row["least"] <= _SAME * max(abs(top), 1e-300):
            words.append(
                f"{what} is {told(top)} USD on every network that was tried, those of the search "
                "for a worse one among them: it does not seem to hang on missing links."
            )
        else:
            words.append(
                f"{what} is {told(row['least'])} to {told(row['greatest'])} USD over "
                f"{many(found.draws.height, 'drawn network')}, the even one and one of few links."
            )
            if row["searched"] is not None:
                words.append(
                    f"A search for the worst found {told(row['searched'])} USD, which is no end of "
                    "what is possible."
                )
        if row["bound"] is not None:
            words.append(
                f"It is proved that no network passes {told(row['bound'], 3)} USD (a bound)."
            )
    radius = found.row("radius")
    if radius["greatest"] > 1.0:
        over = float((found.draws["radius"].to_numpy() > 1.0).mean())
        words.append(
            f"On {percent(over)} of drawn networks the radius is above 1: small stress would grow "
            "round circles."
        )
    if found.worst.height:
        first = found.worst.row(0, named=True)
        sure = (
            "whatever the links" if first["share"] >= 1.0
            else f"on {percent(first['share'])} of drawn networks, and others on the rest"
        )  # fmt: skip
        words.append(f"The default of {first['node']} costs the others most {sure}.")
    return words


def _open_words(family: Untold) -> str:
    names = [family.sheet.names[n] for each in family.puzzles for n in each.party[:-1]]
    holders = [
        family.sheet.names[n]
        for each in family.puzzles
        for n in each.party[: int((each.open.has[:-1] > 0.0).sum())]
    ]
    return (
        f"Nobody is known to hold {percent(family.share)} of the claims on pools and tokens; "
        f"assets of {listed(sorted(set(holders)), 4)} lie nobody says where and may be "
        f"among them ({many(len(set(names)), 'party', 'parties')} in "
        f"{many(len(family.puzzles), 'puzzle')})."
    )


def _share_reading(web: Web, family: Untold) -> Reading:
    return web.reading(
        "interconnection.missing_links", known(family.share), "1",
        "share of claims on pools and tokens that nobody is known to hold; none without claims",
    )  # fmt: skip


def _nothing_open(web: Web, family: Untold, totals: pl.DataFrame) -> Study:
    return Study(
        name=_NAME,
        title="How far contagion hangs on links that nobody knows",
        readings=(_share_reading(web, family),),
        tables={"totals": totals},
        says=(
            (
                "No link is missing that could carry losses on: whoever may hold what nobody is "
                "known to hold owes nothing himself."
            ),
        ),
        how_to_read=_READ,
        misleads=_MISLEADS + _OF_BOOK,
    )


def _called(fall: float, scenario: Scenario | Stressed | None, failed: Sequence[str]) -> str:
    """The shock after which numbers hold, as a sentence has it."""
    said = ["the shocks that were given"] if scenario is not None else []
    if isinstance(scenario, Scenario):
        said = [scenario.name]
    elif scenario is None and (fall != 0.0 or not failed):
        said = [common_fall(fall)]
    return listed([*said, *([f"the failure of {listed(failed)}"] if failed else [])])


def _fallen(fall: float) -> Scenario:
    shocks = (Price(asset=MARKET, move=-fall),) if fall != 0.0 else ()
    return Scenario(name="a common fall", shocks=shocks)


def _require(draws: int, search: Sequence[str], tries: int, seed: int, level: float) -> None:
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < LEAST_DRAWS:
        raise StateError(f"draws was {draws!r}; a range asks for {LEAST_DRAWS} networks or more")
    require_within("tries", tries, 8)
    for name in search:
        if name not in NUMBERS:
            raise StateError(f"no number is called {name!r}", hint=near(name, tuple(NUMBERS)))
