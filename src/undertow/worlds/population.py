"""Who there is: accounts, the owners behind them, and what sort of account each is.

Rows are accounts, in the order of a Book: market makers first, then accounts of known owners by
owner, then those that nobody could tie to one. A maker has one account at a venue, several in a
large world, and one for each contract where margin is isolated.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from enum import IntEnum

import numpy as np
import polars as pl

from undertow import schema
from undertow.state import CodeColumn, FloatColumn, KeyColumn, ShortColumn, SmallColumn
from undertow.state.book import CROSS
from undertow.worlds.catalogue import FUNDS, MAKER
from undertow.worlds.frames import rows
from undertow.worlds.names import Names
from undertow.worlds.seeds import pareto, require_within, stream

LEAST_ACCOUNTS, MOST_ACCOUNTS = 5, 1_000_000
MAKER_OWNER = 1
MAKER_DERIVATIVES = 7  # of one maker account in a large world, which keeps it within 8 legs
LEAST_TROVE_USD = 6_000.0  # collateral of the smallest trove, which owes 2,000 at least
_MOST_APPEAL = 12.0
_LARGE = 10_000
_NO_LABEL = 0


class Sort(IntEnum):
    """What an account does."""

    PAIR = 0  # one collateral against one debt
    BASKET = 1  # several collaterals, several debts
    SUPPLIER = 2  # a deposit, no debt
    SINGLE = 3  # one perp
    CROSS = 4  # several perps on shared margin
    OPTIONS = 5
    MAKER = 6  # takes the other side of everybody


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of accounts by what they do; they are scaled to sum to 1."""

    pair: float = 0.34
    basket: float = 0.14
    supplier: float = 0.07
    single: float = 0.22
    cross: float = 0.18
    options: float = 0.05


@dataclass(frozen=True, slots=True)
class Population:
    """How many accounts, how large, how close to the edge.

    `slack` scales every distance at once. A lender's log health factor is
    log(healthy) + slack * G with G gamma distributed; a trader's equity is
    healthy * maintenance + slack * notional * left / L with L a truncated Pareto leverage.
    `unhealthy` is the share of accounts that are put under water on purpose.
    """

    accounts: int
    mix: Mix = field(default_factory=Mix)
    tail_index: float = 1.3  # Pareto index of account sizes
    minimum_usd: float = 500.0
    slack: float = 1.0
    healthy: float = 1.02
    unhealthy: float = 0.0
    loops: float = 0.15  # share of pairs that loop a staked asset against what it follows
    shared_owners: float = 0.15  # share of owners with several accounts
    unknown_owners: float = 0.2  # share of accounts whose owner nobody knows

    def __post_init__(self) -> None:
        """Refuse what no population can be."""
        require_within("accounts", self.accounts, LEAST_ACCOUNTS, MOST_ACCOUNTS)
        require_within("tail_index", self.tail_index, 0.5, 20.0)
        require_within("minimum_usd", self.minimum_usd, 1.0, 1e9)
        require_within("slack", self.slack, 0.0, 100.0, open_low=True)
        require_within("healthy", self.healthy, 1.0, 10.0)
        for name in ("unhealthy", "loops", "shared_owners", "unknown_owners"):
            require_within(name, getattr(self, name), 0.0, 1.0)
        for name in Mix.__dataclass_fields__:
            require_within(f"mix.{name}", getattr(self.mix, name), 0.0)
        require_within("the sum of mix", sum(astuple(self.mix)), 0.0, open_low=True)


@dataclass(eq=False)
class Roster:
    """Every account of a population, while its positions are being written."""

    account: KeyColumn
    owner: KeyColumn  # 0 where unknown
    size: FloatColumn  # USD: collateral of a lender, gross notional of a trader
    sort: SmallColumn
    venue: ShortColumn  # into names.venues
    mode: SmallColumn
    group: CodeColumn  # into labels
    category: CodeColumn  # into labels
    labels: list[str | None]
    codes: dict[str | None, int]

    def label(self, text: str) -> int:
        """Code of a margin group or category."""
        if text not in self.codes:
            self.codes[text] = len(self.labels)
            self.labels.append(text)
        return self.codes[text]

    def of(self, sort: Sort, venue: int) -> KeyColumn:
        """Rows of the accounts of one sort at one venue."""
        found: KeyColumn = np.flatnonzero((self.sort == sort) & (self.venue == venue))
        return found


def draw_roster(seed: int, names: Names, population: Population) -> Roster:
    """Owners, venues and sorts of all accounts."""
    trading, makers = _desks(names, population.accounts)
    free = population.accounts - len(makers)
    sort = _sorts(seed, names, population, trading, free)
    drawn = stream(seed, "sizes")
    size = pareto(drawn, free, population.tail_index, population.minimum_usd)
    venue = _venues(seed, names, sort, size, trading)
    owner = _owners(seed, population, free)
    count = population.accounts
    roster = Roster(
        account=np.arange(1, count + 1, dtype=np.int64),
        owner=np.concatenate([np.full(len(makers), MAKER_OWNER, dtype=np.int64), owner]),
        size=np.concatenate([np.zeros(len(makers)), size]),
        sort=np.concatenate([np.full(len(makers), Sort.MAKER, dtype=np.int8), sort]),
        venue=np.concatenate([np.array(makers, dtype=np.int16), venue]),
        mode=np.full(count, CROSS, dtype=np.int8),
        group=np.zeros(count, dtype=np.int32),
        category=np.zeros(count, dtype=np.int32),
        labels=[None],
        codes={None: _NO_LABEL},
    )
    roster.group[:] = roster.label("cross")
    return roster


def derivatives(names: Names, venue: str) -> CodeColumn:
    """Codes of a venue's perps and options."""
    both = [names.instruments(venue, kind) for kind in ("perp", "option")]
    return np.sort(np.concatenate(both))


def account_rows(names: Names, roster: Roster) -> pl.DataFrame:
    """The accounts as rows of their table."""
    labels = pl.Series(roster.labels, dtype=pl.String)
    owner = pl.Series(roster.owner)
    return rows(
        "accounts",
        ts=names.ts,
        account=roster.account,
        venue=pl.Series([v.key for v in names.venues]).gather(roster.venue),
        label=pl.select(pl.format("u{}", pl.Series(roster.account))).to_series(),
        margin_group=labels.gather(roster.group),
        mode=pl.Series(schema.MARGIN_MODES).gather(roster.mode),
        category=labels.gather(roster.category),
        owner=owner.set(owner == 0, None),
    )


def entity_rows(seed: int, names: Names, roster: Roster) -> pl.DataFrame:
    """The known owners as rows of their table; the first few are funds with invented names."""
    owner = np.unique(roster.owner[roster.owner > 0])
    draw = stream(seed, "entities").random(len(owner))
    kinds = pl.Series(["person", "fund", "unknown", "market_maker"])
    code = np.where(draw < 0.9, 0, np.where(draw < 0.94, 1, 2))
    named = owner <= MAKER_OWNER + len(FUNDS)
    code = np.where(owner == MAKER_OWNER, 3, np.where(named, 1, code))
    label = pl.select(pl.format("owner {}", pl.Series(owner))).to_series()
    spelled = [MAKER, *FUNDS]
    head = [spelled[k - 1] for k in owner[named]]
    label = pl.concat([pl.Series(head, dtype=pl.String), label.slice(len(head))])
    return rows("entities", ts=names.ts, owner=owner, label=label, kind=kinds.gather(code))


def _desks(names: Names, accounts: int) -> tuple[list[int], list[int]]:
    """Venues where anybody trades, and the venue of each maker account.

    One venue for every twenty accounts, as long as makers stay a tenth of all.
    """
    trading: list[int] = []
    makers: list[int] = []
    able = [k for k, v in enumerate(names.venues) if v.kind in ("perp", "options")]
    for k in able[: max(1, accounts // 20)]:
        listed = len(derivatives(names, names.venues[k].key))
        if names.venues[k].isolates:
            needed = listed
        else:
            needed = -(-listed // MAKER_DERIVATIVES) if accounts >= _LARGE else 1
        if not trading or len(makers) + needed <= accounts // 10:
            trading.append(k)
            makers += [k] * needed
    return trading, makers


def _sorts(
    seed: int, names: Names, population: Population, trading: list[int], free: int
) -> SmallColumn:
    """Sorts of the accounts that are no makers: counts by largest remainder, order at random."""
    share = np.array(astuple(population.mix))
    if not any(names.venues[k].kind == "options" for k in trading):
        share[Sort.CROSS] += share[Sort.OPTIONS]
        share[Sort.OPTIONS] = 0.0
    exact = share / share.sum() * free
    counts = np.floor(exact).astype(np.int64)
    most = np.argsort(-(exact - counts), kind="stable")
    counts[most[: free - int(counts.sum())]] += 1
    sort = np.repeat(np.arange(len(share), dtype=np.int8), counts)
    return stream(seed, "sorts").permutation(sort)


def _venues(
    seed: int, names: Names, sort: SmallColumn, size: FloatColumn, trading: list[int]
) -> ShortColumn:
    """Venues by their weights; a trove is for the large alone, who then take it more often."""
    venue = np.zeros(len(sort), dtype=np.int16)
    for each in list(Sort)[:-1]:
        fit = [k for k, v in enumerate(names.venues) if _takes(v.kind, v.key, v.modes, each)]
        if each >= Sort.SINGLE:
            fit = [k for k in fit if k in trading]
        where = np.flatnonzero(sort == each)
        if not fit or not len(where):
            continue
        weight = np.array([names.venues[k].weight for k in fit])
        troves = np.array([names.venues[k].key == "liquity-v1" for k in fit])
        draw = stream(seed, f"venues of {each.name}").random(len(where))
        large = size[where] >= LEAST_TROVE_USD
        small = _picked(weight * ~troves, draw)
        appeal = min(_MOST_APPEAL, len(where) / max(1, int(large.sum())))
        big = _picked(weight * np.where(troves, appeal, 1.0), draw)
        venue[where] = np.array(fit)[np.where(large, big, small)]
    return venue


def _takes(kind: str, key: str, modes: tuple[str, ...], sort: Sort) -> bool:
    if sort in (Sort.PAIR, Sort.SUPPLIER):
        return kind == "lending" and not (sort is Sort.SUPPLIER and key == "liquity-v1")
    if sort is Sort.BASKET:
        return kind == "lending" and key not in ("morpho-blue", "liquity-v1")
    if sort is Sort.OPTIONS:
        return kind == "options"
    return kind == "perp" and (sort is Sort.SINGLE or "cross" in modes)


def _picked(weight: FloatColumn, draw: FloatColumn) -> KeyColumn:
    edges = np.cumsum(weight) / weight.sum()
    edges[-1] = 1.0
    picked: KeyColumn = np.searchsorted(edges, draw, side="right")
    return picked


def _owners(seed: int, population: Population, free: int) -> KeyColumn:
    """Owners in runs of 1 to 4 accounts, then zeros for those that nobody knows."""
    unknown = round(population.unknown_owners * free)
    known = free - unknown
    rng = stream(seed, "owners")
    several = rng.random(known) < population.shared_owners
    size = np.where(several, 2 + rng.binomial(2, 0.3, known), 1)
    owner = MAKER_OWNER + 1 + np.repeat(np.arange(known, dtype=np.int64), size)[:known]
    return np.concatenate([owner, np.zeros(unknown, dtype=np.int64)])
