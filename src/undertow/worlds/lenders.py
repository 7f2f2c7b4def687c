"""What borrowers and suppliers of the lending venues hold.

An account has collateral worth `size` (Pareto) and owes cover / health, where cover is
sum(value * threshold) and log(health) = log(healthy) + slack * G, G gamma distributed and bunched
near zero, as borrowers are. Loops of a staked asset against what it follows stand far closer.
"""

from __future__ import annotations

import numpy as np

from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import AnyColumn
from undertow.state.book import COLLATERAL, DEBT, ISOLATED, SUPPLY
from undertow.worlds.catalogue import AssetFacts
from undertow.worlds.legs import NOTHING, Legs, distinct_picks, flattened, leg_counts, shares
from undertow.worlds.names import Names
from undertow.worlds.population import Population, Roster, Sort
from undertow.worlds.seeds import stream
from undertow.worlds.terms import ETH_CATEGORY, Param, Terms, market_name, market_threshold

_SLACK_SHAPE, _SLACK_SCALE = 1.2, 0.30
_LOOP_SCALE = 0.05
_CATEGORY_THRESHOLD = 0.95
_MOST_HEALTH = np.log(12.0)
_COLLATERALS, _DEBTS = 6, 3
_OVERRIDDEN, _MOST_OVERRIDES, _OVERRIDE = 0.01, 200, 0.03


def lender_legs(
    seed: int, names: Names, terms: Terms, roster: Roster, population: Population
) -> tuple[list[Legs], list[Param]]:
    """Legs of all accounts at lending venues, and the terms of those that have their own."""
    parts: list[Legs] = []
    overrides: list[Param] = []
    for code, venue in enumerate(names.venues):
        if venue.kind != "lending":
            continue
        pool = _Pool(names, terms, venue.key)
        for sort, build in ((Sort.PAIR, _pairs), (Sort.BASKET, _baskets)):
            accounts = roster.of(sort, code)
            if len(accounts):
                rng = stream(seed, f"{sort.name} at {venue.key}")
                parts.append(build(rng, pool, roster, accounts, population, overrides))
        accounts = roster.of(Sort.SUPPLIER, code)
        if len(accounts):
            rng = stream(seed, f"SUPPLIER at {venue.key}")
            parts.append(_suppliers(rng, pool, accounts, roster.size[accounts]))
    return parts, overrides


class _Pool:
    """A lending venue's reserves: codes, prices, thresholds, and how often each is chosen."""

    def __init__(self, names: Names, terms: Terms, venue: str) -> None:
        every = names.instruments(venue, "reserve")
        planted = np.array([names.facts(k).sector == "planted" for k in every], dtype=np.bool_)
        self.venue = venue
        self.inst = every[~planted]
        self.keys = [names.universe.instruments[k] for k in self.inst]
        self.facts = [names.facts(k) for k in self.inst]
        self.price = names.price[names.universe.asset_of[self.inst]]
        self.threshold = terms.threshold[self.inst]
        self.as_collateral = np.array([_collateral_weight(venue, f) for f in self.facts])
        self.as_debt = np.array([_debt_weight(venue, f) for f in self.facts])
        self.staked = np.array([f.weight if f.kind == "staked" else 0.0 for f in self.facts])
        self.eth = next((k for k, f in enumerate(self.facts) if f.key == "ETH"), None)

    @property
    def loops(self) -> bool:
        """Whether a staked asset can be looped here on better terms."""
        at_home = self.venue in ("aave-v3", "morpho-blue")
        return at_home and self.eth is not None and bool(self.staked.any())


def _collateral_weight(venue: str, facts: AssetFacts) -> float:
    if venue == "liquity-v1":
        return float(facts.key == "ETH")
    return facts.weight * (0.15 if facts.kind == "stable" else 1.0)


def _debt_weight(venue: str, facts: AssetFacts) -> float:
    if venue == "liquity-v1":
        return float(facts.key == "LUSD")
    if venue == "morpho-blue":
        return facts.weight if facts.kind == "stable" else 4.0 * (facts.key == "ETH")
    return facts.weight * (1.0 if facts.kind == "stable" else 0.12)


def _pairs(
    rng: np.random.Generator,
    pool: _Pool,
    roster: Roster,
    accounts: KeyColumn,
    population: Population,
    overrides: list[Param],
) -> Legs:
    """One collateral against one debt."""
    count = len(accounts)
    picks = distinct_picks(rng, count, [pool.as_collateral, pool.as_debt])
    loop = rng.random(count) < (population.loops if pool.loops else 0.0)
    if pool.loops:
        looped = distinct_picks(rng, count, [pool.staked])[:, 0]
        picks[loop, 0], picks[loop, 1] = looped[loop], pool.eth
    size = roster.size[accounts]
    threshold = pool.threshold[picks[:, 0]].copy()
    if pool.venue == "aave-v3":
        threshold[loop] = _CATEGORY_THRESHOLD
        roster.category[accounts[loop]] = roster.label(ETH_CATEGORY)
        _override(rng, pool, roster, accounts, picks[:, 0], loop, threshold, overrides)
    elif pool.venue == "morpho-blue":
        threshold = _enter_markets(pool, roster, accounts, picks)
    elif pool.venue == "liquity-v1":
        roster.mode[accounts] = ISOLATED
        roster.group[accounts] = roster.label("isolated:ETH")
    scale = np.where(loop, _LOOP_SCALE, _SLACK_SCALE)
    health = _health(rng, population, scale)
    if pool.venue == "liquity-v1":  # a trove owes 2,000 at least
        health = np.minimum(health, size * threshold / 2_000.0)
    value = np.stack([size, -size * threshold / health], axis=1)
    kind = np.array([COLLATERAL, DEBT])
    return flattened(accounts, pool.inst[picks], kind, value / pool.price[picks])


def _override(
    rng: np.random.Generator,
    pool: _Pool,
    roster: Roster,
    accounts: KeyColumn,
    collateral: KeyColumn,
    loop: BoolColumn,
    threshold: FloatColumn,
    overrides: list[Param],
) -> None:
    """Give a few accounts an older, lower threshold of their own."""
    chosen = np.flatnonzero((rng.random(len(accounts)) < _OVERRIDDEN) & ~loop)[:_MOST_OVERRIDES]
    threshold[chosen] -= _OVERRIDE
    for row in chosen:
        key = int(roster.account[accounts[row]])
        overrides.append(
            (pool.venue, pool.keys[collateral[row]], None, key, "liquidation_threshold",
             float(threshold[row]))
        )  # fmt: skip


def _enter_markets(
    pool: _Pool, roster: Roster, accounts: KeyColumn, picks: AnyColumn
) -> FloatColumn:
    """Put each account into the isolated market of its two assets; thresholds of the markets."""
    size = len(pool.facts)
    market = picks[:, 0] * size + picks[:, 1]
    threshold = np.zeros(size * size)
    category = np.zeros(size * size, dtype=np.int32)
    group = np.zeros(size * size, dtype=np.int32)
    for each in np.unique(market):
        collateral, loan = pool.facts[each // size], pool.facts[each % size]
        name = market_name(collateral.key, loan.key)
        threshold[each] = market_threshold(collateral, loan)
        category[each] = roster.label(name)
        group[each] = roster.label(f"isolated:{name}")
    roster.mode[accounts] = ISOLATED
    roster.category[accounts] = category[market]
    roster.group[accounts] = group[market]
    own: FloatColumn = threshold[market]
    return own


def _baskets(
    rng: np.random.Generator,
    pool: _Pool,
    roster: Roster,
    accounts: KeyColumn,
    population: Population,
    overrides: list[Param],
) -> Legs:
    """3 to 8 legs: some collaterals, some debts, now and then a deposit that backs nothing."""
    count = len(accounts)
    weights = [pool.as_debt, pool.as_collateral]
    weights += [pool.as_collateral] * (_COLLATERALS - 1) + [pool.as_debt] * (_DEBTS - 1)
    picks = distinct_picks(rng, count, weights)
    wanted = leg_counts(rng, count)
    debts = 1 + rng.binomial(_DEBTS - 1, 0.3, count)
    debts = np.clip(debts, wanted - _COLLATERALS, wanted - 2)
    is_debt = np.array([True] + [False] * _COLLATERALS + [True] * (_DEBTS - 1))
    rank = np.where(is_debt, np.cumsum(is_debt), np.cumsum(~is_debt)) - 1
    allowed = np.where(is_debt, debts[:, None], (wanted - debts)[:, None])
    taken = (rank < allowed) & (picks != NOTHING)
    supplied = np.zeros_like(taken)
    supplied[:, 2] = taken[:, 2] & (rng.random(count) < 0.25)
    size = roster.size[accounts]
    held = shares(rng, taken & ~is_debt) * size[:, None]
    threshold = np.where(picks == NOTHING, 0.0, pool.threshold[picks])
    cover = (held * threshold * ~supplied).sum(axis=1)
    health = _health(rng, population, np.full(count, _SLACK_SCALE))
    owed = shares(rng, taken & is_debt) * (cover / health)[:, None]
    value = np.where(is_debt, -owed, held)
    kind = np.where(is_debt, DEBT, np.where(supplied, SUPPLY, COLLATERAL))
    inst = np.where(taken, pool.inst[picks], NOTHING)
    return flattened(accounts, inst, kind, value / pool.price[picks])


def _suppliers(
    rng: np.random.Generator, pool: _Pool, accounts: KeyColumn, size: FloatColumn
) -> Legs:
    """One deposit and no debt."""
    picks = distinct_picks(rng, len(accounts), [pool.as_debt])
    return flattened(
        accounts, pool.inst[picks], np.array([SUPPLY]), size[:, None] / pool.price[picks]
    )


def _health(rng: np.random.Generator, population: Population, scale: FloatColumn) -> FloatColumn:
    """Health factors: bunched above `healthy`, and `unhealthy` of them below 1."""
    slack = population.slack * scale * rng.standard_gamma(_SLACK_SHAPE, len(scale))
    log_health: FloatMatrix = np.log(population.healthy) + np.minimum(slack, _MOST_HEALTH)
    under = rng.random(len(scale)) < population.unhealthy
    sunk = rng.uniform(0.85, 0.995, len(scale))
    health: FloatColumn = np.where(under, sunk, np.exp(log_health))
    return health
