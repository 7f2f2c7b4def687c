"""What perp and option accounts hold, but for the market makers.

A trader's gross notional is its `size` (Pareto). Equity is

    healthy * maintenance + slack * notional * left / L

with L from a Pareto between 1 and 50 (many at 2 to 5, some at 50) and `left`, the root of a
uniform, the part of it that has not been lost since. Cash is what remains of equity after
unrealised profit, grossed up for haircuts.
"""

from __future__ import annotations

import numpy as np

from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import AnyColumn
from undertow.state.book import CASH, ISOLATED, OPTION, PERP
from undertow.state.book import PORTFOLIO as PORTFOLIO_MODE
from undertow.worlds.catalogue import VenueFacts
from undertow.worlds.legs import (
    NOTHING,
    Legs,
    distinct_picks,
    flattened,
    in_lots,
    leg_counts,
    shares,
    together,
)
from undertow.worlds.names import Names
from undertow.worlds.population import (
    Population,
    Roster,
    Sort,
)
from undertow.worlds.seeds import pareto, stream
from undertow.worlds.terms import Terms

_LEVERAGE_INDEX, _MOST_LEVERAGE = 0.7, 50.0
_LONG_SHARE = 0.55
_COIN_CASH, _COIN_CONTRACT, _ISOLATED = 0.25, 0.25, 0.4
_PERPS = 7
_PROFIT_SPREAD, _MOST_PROFIT = 0.15, 0.4
# What a portfolio margin grid can ask at most: a share of notional of straight legs and short
# options (its far tails move prices sixfold, a tenth counted), all of a bought option's value.
WORST_SHARE = 0.55


def trader_legs(
    seed: int,
    names: Names,
    terms: Terms,
    quotes: FloatColumn,
    roster: Roster,
    population: Population,
) -> list[Legs]:
    """Legs of all accounts at perp and options venues but the makers'; `quotes` are marks."""
    parts = []
    for code, venue in enumerate(names.venues):
        for sort in (Sort.SINGLE, Sort.CROSS, Sort.OPTIONS):
            accounts = roster.of(sort, code)
            if not len(accounts):
                continue
            rng = stream(seed, f"{sort.name} at {venue.key}")
            desk = _Desk(names, terms, quotes, venue, population)
            if sort is Sort.SINGLE:
                parts.append(desk.singles(rng, roster, accounts))
            elif sort is Sort.CROSS:
                parts.append(desk.crosses(rng, roster, accounts))
            else:
                parts.append(desk.optionists(rng, roster, accounts))
    return parts


class _Desk:
    """A trading venue: what it lists, at what price, and what it asks."""

    def __init__(
        self,
        names: Names,
        terms: Terms,
        quotes: FloatColumn,
        venue: VenueFacts,
        population: Population,
    ) -> None:
        universe = names.universe
        self.terms, self.quotes, self.venue, self.population = terms, quotes, venue, population
        self.cash = names.instruments(venue.key, "cash")
        self.perps = names.instruments(venue.key, "perp")
        self.options = names.instruments(venue.key, "option")
        self.inverse = universe.inverse
        self.size = universe.contract_size
        self.asset_of = universe.asset_of
        cash_keys = [universe.assets[k] for k in universe.asset_of[self.cash]]
        self.quote = cash_keys.index(venue.quote)
        coins = np.array([key in venue.coins for key in cash_keys], dtype=np.float64)
        stables = (1.0 - coins) * (0.25 + (np.arange(len(coins)) == self.quote))
        self.coin_weight, self.stable_weight = coins, stables
        weights = np.array([names.facts(k).weight for k in self.perps])
        self.linear_weight = np.where(self.inverse[self.perps], 0.0, weights)
        self.inverse_weight = np.where(self.inverse[self.perps], weights, 0.0)
        self.underlying = names.price[universe.asset_of]

    def singles(self, rng: np.random.Generator, roster: Roster, accounts: KeyColumn) -> Legs:
        """One perp on one kind of cash; coin-margined where the contract is inverse."""
        count = len(accounts)
        perp = distinct_picks(rng, count, [self.linear_weight])[:, 0]
        cash = distinct_picks(rng, count, [self.stable_weight])[:, 0]
        coin = rng.random(count) < _COIN_CASH
        if self.coin_weight.any():
            cash[coin] = distinct_picks(rng, count, [self.coin_weight])[coin, 0]
        by_coin = rng.random(count) < _COIN_CONTRACT
        if self.inverse_weight.any():
            perp[by_coin] = distinct_picks(rng, count, [self.inverse_weight])[by_coin, 0]
            of_asset = {int(self.asset_of[k]): place for place, k in enumerate(self.cash)}
            place = np.array([of_asset.get(int(self.asset_of[k]), self.quote) for k in self.perps])
            cash[by_coin] = place[perp[by_coin]]
        self._isolate(rng, roster, accounts, perp)
        taken = np.ones((count, 1), dtype=np.bool_)
        return self._on_margin(rng, roster, accounts, perp[:, None], taken, cash[:, None], taken)

    def crosses(self, rng: np.random.Generator, roster: Roster, accounts: KeyColumn) -> Legs:
        """Several perps on one or two kinds of cash."""
        count = len(accounts)
        weight = self.linear_weight + 0.3 * self.inverse_weight
        perps = distinct_picks(rng, count, [weight] * min(_PERPS, len(self.perps)))
        second = self.coin_weight + 0.2 * self.stable_weight
        cash = distinct_picks(rng, count, [self.stable_weight, second])
        wanted = leg_counts(rng, count)
        two = (rng.random(count) < 0.35) & (cash[:, 1] != NOTHING)
        on_cash = np.stack([np.ones(count, dtype=np.bool_), two], axis=1)
        allowed = (wanted - on_cash.sum(axis=1))[:, None]
        taken = (np.arange(perps.shape[1]) < allowed) & (perps != NOTHING)
        return self._on_margin(rng, roster, accounts, perps, taken, cash, on_cash)

    def optionists(self, rng: np.random.Generator, roster: Roster, accounts: KeyColumn) -> Legs:
        """Several options, now and then a perp beside them, margined as a portfolio."""
        count = len(accounts)
        roster.mode[accounts] = PORTFOLIO_MODE
        size = roster.size[accounts]
        listed = np.ones(len(self.options))
        picks = distinct_picks(rng, count, [listed] * 5)
        perp = distinct_picks(rng, count, [self.linear_weight])
        wanted = leg_counts(rng, count)
        hedged = rng.random(count) < 0.3
        taken = np.arange(5) < np.minimum(wanted - 1 - hedged, 5)[:, None]
        inst = np.concatenate([self.options[picks], self.perps[perp]], axis=1)
        taken = np.concatenate([taken, hedged[:, None]], axis=1)
        spot = self.underlying[inst]
        side = np.where(rng.random(inst.shape) < _LONG_SHARE, 1.0, -1.0)
        qty = in_lots(side * shares(rng, taken) * size[:, None] / spot, spot) * taken
        value = qty * self.quotes[inst]
        notional = np.abs(qty) * spot
        is_option = np.arange(6) < 5
        bought = is_option & (qty > 0.0)
        asked = np.where(bought, value, WORST_SHARE * notional).sum(axis=1)
        equity = self._equity(rng, asked, notional.sum(axis=1))
        cash = distinct_picks(rng, count, [self.stable_weight + self.coin_weight])
        needed = equity - (value * is_option).sum(axis=1)
        needed = np.maximum(needed, 0.05 * notional.sum(axis=1))
        entry = self.quotes[inst]
        legs = flattened(
            accounts, np.where(taken, inst, NOTHING), np.where(is_option, OPTION, PERP), qty, entry
        )
        return self._with_cash(legs, accounts, cash, np.ones((count, 1)), needed)

    def _isolate(
        self, rng: np.random.Generator, roster: Roster, accounts: KeyColumn, perp: AnyColumn
    ) -> None:
        if "isolated" not in self.venue.modes:
            return
        apart = rng.random(len(accounts)) < (_ISOLATED if "cross" in self.venue.modes else 1.0)
        assets = self.terms.names.universe.assets
        label = [roster.label(f"isolated:{assets[self.asset_of[k]]}") for k in self.perps]
        roster.mode[accounts[apart]] = ISOLATED
        roster.group[accounts[apart]] = np.array(label)[perp[apart]]

    def _on_margin(
        self,
        rng: np.random.Generator,
        roster: Roster,
        accounts: KeyColumn,
        perps: AnyColumn,
        taken: BoolColumn,
        cash: AnyColumn,
        on_cash: BoolColumn,
    ) -> Legs:
        """Sizes, sides, entries and cash of perp accounts."""
        size = roster.size[accounts]
        inst = np.where(taken, self.perps[perps], NOTHING)
        price, faces = self.quotes[inst], self.inverse[inst]
        side = np.where(rng.random(inst.shape) < _LONG_SHARE, 1.0, -1.0)
        wanted = side * shares(rng, taken) * size[:, None]
        lots = np.maximum(np.rint(np.abs(wanted) / self.size[inst]), 1.0) * self.size[inst]
        qty = np.where(faces, side * lots, in_lots(wanted / price, price)) * taken
        notional = np.where(faces, np.abs(qty), np.abs(qty) * price)
        asked = self._asked(inst, notional)
        equity = self._equity(rng, asked, notional.sum(axis=1))
        draw = np.clip(
            _PROFIT_SPREAD * rng.standard_normal(inst.shape), -_MOST_PROFIT, _MOST_PROFIT
        )
        total = np.maximum(notional.sum(axis=1), 1e-9)[:, None]
        profit = draw * np.minimum(equity[:, None] * notional / total, notional)
        if self.venue.profile == "bybit-isolated-legacy":  # it asks at the entry price
            equity = np.maximum(equity, equity * (1.0 + np.abs(profit).sum(axis=1) / total[:, 0]))
        entry = _entry(qty, price, profit, faces)
        legs = flattened(accounts, inst, np.array([PERP]), qty, entry)
        parts = shares(rng, on_cash)
        return self._with_cash(legs, accounts, cash, parts, equity - profit.sum(axis=1))

    def _asked(self, inst: AnyColumn, notional: FloatMatrix) -> FloatColumn:
        flat = self.terms.maintenance(inst.ravel(), notional.ravel())
        asked: FloatColumn = flat.reshape(notional.shape).sum(axis=1)
        return asked

    def _equity(
        self, rng: np.random.Generator, asked: FloatColumn, notional: FloatColumn
    ) -> FloatColumn:
        """What an account is worth: what is asked and some room, or less for the unhealthy."""
        leverage = pareto(rng, len(asked), _LEVERAGE_INDEX, 1.0)
        left = np.sqrt(rng.random(len(asked)))
        room = self.population.slack * left * notional / np.minimum(leverage, _MOST_LEVERAGE)
        under = rng.random(len(asked)) < self.population.unhealthy
        sunk = rng.uniform(0.85, 0.995, len(asked))
        equity: FloatColumn = np.where(under, sunk * asked, self.population.healthy * asked + room)
        return equity

    def _with_cash(
        self,
        legs: Legs,
        accounts: KeyColumn,
        cash: AnyColumn,
        parts: FloatMatrix,
        counted: FloatColumn,
    ) -> Legs:
        """The legs and cash that counts for `counted` USD after haircuts."""
        inst = self.cash[cash]
        weight = 1.0 - self.terms.haircut[inst]
        held = parts * (counted / (parts * weight).sum(axis=1))[:, None]
        money = flattened(
            accounts,
            np.where(parts > 0.0, inst, NOTHING),
            np.array([CASH]),
            held / self.underlying[inst],
        )
        return together([legs, money])


def _entry(
    qty: FloatMatrix, price: FloatMatrix, profit: FloatMatrix, faces: BoolColumn
) -> FloatMatrix:
    """Entry prices that make the unrealised profit `profit`, linear or in coin."""
    held = np.where(qty == 0.0, 1.0, qty)
    entry: FloatMatrix = np.where(faces, price / (1.0 + profit / held), price - profit / held)
    return entry
