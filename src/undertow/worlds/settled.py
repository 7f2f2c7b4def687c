"""Everybody who stands in a world: the population, what is planted on top, and the makers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from undertow.state import FloatColumn
from undertow.worlds.legs import Legs, joined, position_rows, together
from undertow.worlds.lenders import lender_legs
from undertow.worlds.makers import maker_legs, plant_maker
from undertow.worlds.names import Names
from undertow.worlds.planting import Claim, Planted, plant_chain, plant_crowd, plant_loop
from undertow.worlds.plants import Crowd, Plants
from undertow.worlds.population import (
    Population,
    Roster,
    Sort,
    account_rows,
    draw_roster,
    entity_rows,
)
from undertow.worlds.terms import Param, Terms, require_venue
from undertow.worlds.traders import trader_legs
from undertow.worlds.truths import Truth


@dataclass(frozen=True, eq=False)
class Settled:
    """All accounts with their positions, in the order of a Book."""

    roster: Roster
    own_legs: Legs  # of the roster alone
    legs: Legs  # of everybody
    accounts: pl.DataFrame
    entities: pl.DataFrame
    positions: pl.DataFrame
    claims: list[Claim]
    overrides: list[Param]
    truth: Truth


def settle(
    seed: int,
    names: Names,
    terms: Terms,
    mark: FloatColumn,
    population: Population,
    plants: Plants,
) -> Settled:
    """Draw the population, plant what is planted, and let market makers take the other side."""
    roster = draw_roster(seed, names, population)
    lent, overrides = lender_legs(seed, names, terms, roster, population)
    traded = trader_legs(seed, names, terms, mark, roster, population)
    truth = Truth(
        seed=seed,
        tail_index=population.tail_index,
        minimum_usd=population.minimum_usd,
        overridden=tuple(key for _, _, _, key, _, _ in overrides if key is not None),
        makers=tuple(int(k) for k in roster.account[roster.sort == Sort.MAKER]),
    )
    added, truth = _plant(seed, names, terms, mark, plants, roster, [*lent, *traded], truth)
    making = maker_legs(names, terms, mark, roster, [*lent, *traded, *(p.legs for p in added)])
    own = joined([*lent, *traded, *making])
    known = int((roster.owner > 0).sum())
    first = int(np.searchsorted(own.row, known))
    accounts = account_rows(names, roster)
    positions = position_rows(names.universe, own, roster.account, names.ts)
    planted = [
        position_rows(names.universe, joined([p.legs]), p.accounts["account"].to_numpy(), names.ts)
        for p in added
    ]
    return Settled(
        roster=roster,
        own_legs=own,
        legs=together([own, *(p.legs for p in added)]),
        accounts=pl.concat([accounts[:known], *(p.accounts for p in added), accounts[known:]]),
        entities=pl.concat([entity_rows(seed, names, roster), *(p.entities for p in added)]),
        positions=pl.concat([positions[:first], *planted, positions[first:]]),
        claims=[claim for p in added for claim in p.claims],
        overrides=overrides,
        truth=truth,
    )


def _plant(
    seed: int,
    names: Names,
    terms: Terms,
    mark: FloatColumn,
    plants: Plants,
    roster: Roster,
    legs: list[Legs],
    truth: Truth,
) -> tuple[list[Planted], Truth]:
    """What is planted, one after the other, with keys and owners beyond those of the roster."""
    key, owner = int(roster.account[-1]) + 1, int(roster.owner.max()) + 1
    added: list[Planted] = []
    if plants.loop:
        planted, loop = plant_loop(names, plants.loop, key, owner)
        added.append(planted)
        truth = replace(truth, loop=loop)
        key, owner = key + 2, owner + 2
    if plants.chain:
        planted, chain = plant_chain(names, plants.chain, key, owner)
        added.append(planted)
        truth = replace(truth, chain=chain)
        key, owner = key + 1, owner + 1
    if plants.crowd:
        alone = _needs_maker(names, roster, plants.crowd)
        others = len(roster.account) + sum(p.accounts.height for p in added) + alone
        planted, crowd = plant_crowd(
            seed, names, terms, mark, plants.crowd, key, owner, others, joined(legs)
        )
        added.append(planted)
        truth = replace(truth, crowd=crowd)
        if alone:
            key, owner = key + len(crowd.accounts), owner + len(crowd.accounts)
            added.append(plant_maker(names, terms, mark, plants.crowd.venue, planted, key, owner))
            truth = replace(truth, makers=(*truth.makers, key))
    return added, truth


def _needs_maker(names: Names, roster: Roster, crowd: Crowd) -> bool:
    """Whether nobody of the population makes a market where the crowd stands."""
    venue = require_venue(names, crowd.venue, "perp")
    return not len(roster.of(Sort.MAKER, names.venues.index(venue)))
