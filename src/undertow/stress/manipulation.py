"""What it costs to move the price that a venue believes, and what could be taken at that price.

An attacker trades in one pool that carries the price until it is off by a factor, trades on against
arbitrage for as long as the oracle takes to hear of it and the venue to act on it, and trades back.
Meanwhile, at the wrong price, it borrows against what is overvalued (or what is undervalued) and
leaves the loan behind, and closes accounts that were sound. Where the second is worth more than the
first the venue is attackable: on paper, with the depth and the accounts of this snapshot.

Everything is kind to the attacker: what it posts was bought before at the old price, nobody
withdraws, and the venue does not react. All sums are in USD at the prices before the push.

References
----------
Mackinga, Nadahalli and Wattenhofer (2022), "TWAP oracle attacks: easier done than said?". Qin,
Zhou, Livshits and Gervais (2021), "Attacking the DeFi ecosystem with flash loans for fun and
profit".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.kernels import closing as closing_kernel
from undertow.kernels import impact, margin, prices
from undertow.rules.closing import closing_columns
from undertow.rules.margins import Margins, margins
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.ground import laid_out
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.scenario import suggested
from undertow.stress.setting import in_rounds, pools_of
from undertow.stress.worth import asset_prices

FACTORS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0)
_LENT = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("reserve", "share")]
_HELD = [*_LENT, *(schema.INSTRUMENT_KINDS.index(kind) for kind in ("cash", "spot"))]
_CONTRACTS = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future")]
_SIDES = 2.0  # who makes a price profit of its own pays margin for the loser too


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One factor: what it costs, what it yields, and whether that is worth it."""

    factor: float
    rounds: int  # for how many it has to hold: until the oracle hears, and while it is used
    pool: str  # where the push is cheapest; empty where no market moves the oracle
    push_usd: float  # traded one way to get there; mostly comes back
    hold_usd: float  # lost to arbitrage while it holds
    fees_usd: float
    stake_usd: float  # posted, and left behind with the loan
    borrowable_usd: float  # taken from reserves
    liquidatable_usd: float  # collateral and contracts that would be closed, at the wrong price
    bonus_usd: float  # what that is worth to whoever closes
    why: str = ""  # of an infinite cost

    @property
    def cost_usd(self) -> float:
        """What the round trip costs; infinite where trading does not move the oracle."""
        return self.hold_usd + self.fees_usd

    @property
    def profit_usd(self) -> float:
        """Loan less what backs it, and bonuses, less the cost."""
        return self.borrowable_usd - self.stake_usd + self.bonus_usd - self.cost_usd

    @property
    def attackable(self) -> bool:
        """Whether there is anything in it."""
        return self.profit_usd > 0.0


@dataclass(frozen=True, slots=True)
class Manipulation:
    """One instrument's oracle, pushed by many factors."""

    instrument: str
    attacks: tuple[Attack, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Attack:
        """The factor with most in it for the attacker; the first of those without any."""
        return max(self.attacks, key=lambda each: each.profit_usd)

    def to_polars(self) -> pl.DataFrame:
        """One row a factor; what is infinite is empty."""
        names = [each.name for each in fields(Attack)]
        names[names.index("stake_usd") : names.index("stake_usd")] = ["cost_usd"]
        names[names.index("why") : names.index("why")] = ["profit_usd", "attackable"]
        frame = pl.DataFrame([{n: getattr(each, n) for n in names} for each in self.attacks])
        infinite = pl.col(pl.Float64).is_infinite()
        return frame.with_columns(pl.when(~infinite).then(pl.col(pl.Float64)).name.keep())


def manipulation(
    snapshot: Snapshot | Plan,
    *,
    instrument: str,
    factors: Sequence[float] = FACTORS,
    rounds: int = 1,
    inflow: float = 0.5,
    fee: float = 0.001,
    stake_usd: float = math.inf,
    options: Options | None = None,
) -> Manipulation:
    """What it takes to push the oracle of an instrument by each factor, and what there is to gain.

    The venue must believe the price for `rounds`; a late oracle has to be held for its lag before
    that, and where the factor is within its deviation until its heartbeat. In each round arbitrage
    takes the share `inflow` of the displacement away, and the attacker puts it back: 0 is a push
    within one block, which costs the `fee` on turnover alone. `stake_usd` is what the attacker can
    post at most, at the price before.

    Raises
    ------
    StateError
        An unknown instrument, one without a market of its own, or a number outside its range.
    """
    _check(factors, rounds, inflow, fee, stake_usd)
    plan = laid_out(snapshot)
    target = _Target.of(plan, instrument, options or Options())
    before = margins(plan.snapshot)
    terms = _Terms(rounds, inflow, fee, stake_usd)
    return Manipulation(
        instrument,
        tuple(_attack(target, float(factor), terms, before) for factor in factors),
        target.notes,
    )


class _Terms(NamedTuple):
    rounds: int
    inflow: float
    fee: float
    stake_usd: float


class _Push(NamedTuple):
    """The cheapest way to a price: the pool, the volume into it and what the round trip takes."""

    pool: int
    volume: float
    multiplier: float
    push_usd: float
    hold_usd: float
    fees_usd: float


@dataclass(frozen=True, eq=False)
class _Target:
    """An instrument, and how its venue hears of its price."""

    plan: Plan
    options: Options
    k: int
    venue: int
    pools: impact.Pools
    price: FloatColumn  # of one base unit of each pool, before
    mode: KeyColumn  # of every instrument's oracle
    lag: KeyColumn  # rounds
    heartbeat: KeyColumn  # rounds
    power: float  # USD that may be borrowed, or made, on one USD posted, at the price before
    notes: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, instrument: str, options: Options) -> _Target:
        snapshot = plan.snapshot
        universe, oracles = snapshot.universe, snapshot.oracles
        if instrument not in universe.instruments:
            raise StateError(
                f"no instrument is called {instrument!r}",
                hint=suggested(str(instrument), universe.instruments),
            )
        k = universe.code("instrument", instrument)
        kind = int(universe.kind[k])
        if kind not in _HELD + _CONTRACTS or not snapshot.market.mark[k] > 0.0:
            raise StateError(
                f"{instrument} has no market of its own that a trade could push, or no price",
                hint="name what is held, lent or a contract with a price; of an option, its asset",
            )
        mode = oracles.mode if options.oracles else np.zeros_like(oracles.mode)
        power, words = _power(snapshot, k, contract=kind in _CONTRACTS)
        carriers = plan.carriers
        price = np.ones(carriers.pools)
        price[: len(universe.assets)] = asset_prices(snapshot)
        own = np.flatnonzero(carriers.own_pool >= 0)
        price[carriers.own_pool[own]] = snapshot.market.mark[own]
        return cls(
            plan=plan,
            options=options,
            k=k,
            venue=int(universe.venue_of[k]),
            pools=pools_of(plan, np.ones(len(universe.instruments)), options),
            price=price,
            mode=mode.astype(np.int64),
            lag=in_rounds(np.where(mode == prices.LAGGED, oracles.lag_us, 0), options.round_us),
            heartbeat=in_rounds(oracles.heartbeat_us, options.round_us),
            power=power,
            notes=words,
        )

    @property
    def contract(self) -> bool:
        """Whether it is a contract, whose profit is what is borrowed against."""
        return int(self.plan.snapshot.universe.kind[self.k]) in _CONTRACTS

    def pull(self, k: int) -> dict[int, float]:
        """Pools that what the venue believes of an instrument follows, and how hard."""
        if self.mode[k] == prices.FROZEN:
            return {}
        carriers = self.plan.carriers
        first = int(carriers.start[k])
        if self.mode[k] == prices.EXCHANGE_RATE:  # blind to the pool that is its peg
            first += int(carriers.tied[k])
        found: dict[int, float] = {}
        for row in range(first, int(carriers.start[k + 1])):
            pool = int(carriers.pool[row])
            found[pool] = found.get(pool, 0.0) + float(carriers.pull[row])
        return found

    def held_for(self, k: int, factor: float, rounds: int) -> int | None:
        """Rounds for which a price has to hold to be believed for `rounds`; None: it never is."""
        if self.mode[k] != prices.LAGGED:
            return rounds
        if abs(factor - 1.0) > self.plan.snapshot.oracles.deviation[k]:
            return rounds + int(self.lag[k])
        beat = int(self.heartbeat[k])
        return rounds + max(int(self.lag[k]), beat) if beat > 0 else None

    def pool_name(self, pool: int) -> str:
        """An asset, or the contract whose own pool it is."""
        universe, carriers = self.plan.snapshot.universe, self.plan.carriers
        if pool < len(universe.assets):
            return universe.assets[pool]
        return universe.instruments[int(np.flatnonzero(carriers.own_pool == pool)[0])]


def _attack(target: _Target, factor: float, terms: _Terms, before: Margins) -> Attack:
    held = target.held_for(target.k, factor, terms.rounds)
    push = None if held is None else _cheapest(target, factor, held, terms)
    if push is None or held is None:
        return Attack(
            factor=factor, rounds=held or 0, pool="", push_usd=math.inf, hold_usd=math.inf,
            fees_usd=math.inf, stake_usd=0.0, borrowable_usd=0.0, liquidatable_usd=0.0,
            bonus_usd=0.0, why=_why(target, held, factor),
        )  # fmt: skip
    believed = _believed(target, push, held)
    stake, borrowed = _loan(target, factor, believed, terms.stake_usd)
    closed, bonus = _closings(target, believed, before)
    return Attack(
        factor=factor,
        rounds=held,
        pool=target.pool_name(push.pool),
        push_usd=push.push_usd,
        hold_usd=push.hold_usd,
        fees_usd=push.fees_usd,
        stake_usd=stake,
        borrowable_usd=borrowed,
        liquidatable_usd=closed,
        bonus_usd=bonus,
    )


def _cheapest(target: _Target, factor: float, held: int, terms: _Terms) -> _Push | None:
    """The pool in which the price is moved at the least cost, if there is any."""
    found = [
        push
        for pool, pull in target.pull(target.k).items()
        if pull != 0.0
        and (push := _push(target, pool, factor ** (1.0 / pull), held, terms)) is not None
    ]
    return min(found, key=lambda push: push.hold_usd + push.fees_usd, default=None)


def _push(target: _Target, pool: int, multiplier: float, held: int, terms: _Terms) -> _Push | None:
    """Move a pool to a multiple of its price, keep it there, and take it back.

    A round's arbitrage takes `inflow` of the volume U out again, at prices between; to put it back
    costs |G(U) - G((1 - inflow) U)|, and what was put back is worth the old price in the end. The
    way there and the way back pass the same prices and cost no more than fees.
    """
    volume = _volume(target.pools, pool, multiplier)
    if volume is None:
        return None
    left = (1.0 - terms.inflow) * volume
    there = abs(impact.proceeds(pool, volume, target.pools))
    again = abs(there - abs(impact.proceeds(pool, left, target.pools)))
    taken = abs(volume - left)
    price = float(target.price[pool])
    turnover = 2.0 * there + held * (again + taken)
    return _Push(
        pool=pool,
        volume=volume,
        multiplier=multiplier,
        push_usd=price * there,
        hold_usd=price * held * abs(again - taken),
        fees_usd=price * terms.fee * turnover,
    )


def _volume(pools: impact.Pools, pool: int, multiplier: float) -> float | None:
    """The least volume, sold or bought, after which a pool is at a multiple of its price."""
    if multiplier == 1.0:
        return 0.0
    if impact.working_model(pool, pools) == impact.NONE:
        return None
    rises = multiplier > 1.0
    bought, sold = impact.bounds(pool, pools)
    end, sign = (-bought, -1.0) if rises else (sold, 1.0)

    def there(size: float) -> bool:
        at = impact.multiplier(pool, sign * size, pools)
        return bool(at >= multiplier if rises else at <= multiplier)

    low, high = 0.0, 1e-6 * float(max(pools.depth[pool], pools.daily[pool], 1e-12))
    while not there(high):
        if high >= end:
            return None  # a floor, or the last price there is
        low, high = high, min(2.0 * high, end)
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (low, middle) if there(middle) else (middle, high)
    return sign * high


def _why(target: _Target, held: int | None, factor: float) -> str:
    """Why no trade moves the oracle there."""
    if held is None:
        return "within the oracle's deviation, and it promises no heartbeat"
    if target.mode[target.k] == prices.FROZEN:
        return "the oracle is frozen: no market moves it"
    pull = target.pull(target.k)
    known = [n for n in pull if impact.working_model(n, target.pools) != impact.NONE]
    blind = target.mode[target.k] == prices.EXCHANGE_RATE and target.plan.carriers.tied[target.k]
    if blind and not known:
        return "the oracle reads an exchange rate: no market of its own moves it"
    if not known:
        return "nobody says how deep the market is that the oracle reads"
    return f"no volume takes the price to {factor:g} of what it was under this impact model"


def _believed(target: _Target, push: _Push, held: int) -> FloatColumn:
    """By instrument, what its venue believes over what is so, once the push has held."""
    ratio = np.ones(len(target.mode))
    for k in range(len(ratio)):
        pull = target.pull(k).get(push.pool, 0.0)
        if pull != 0.0:
            moved = push.multiplier**pull
            needed = target.held_for(k, moved, 0)
            ratio[k] = moved if needed is not None and needed <= held else 1.0
    return ratio


def _power(snapshot: Snapshot, k: int, *, contract: bool) -> tuple[float, tuple[str, ...]]:
    """What one USD posted is good for: the loan-to-value ratio, or the leverage of a contract."""
    params, name = snapshot.rules.params, snapshot.universe.instruments[k]
    if contract:
        rate = float(params.by_instrument("initial_margin_rate", np.nan)[k])
        most = float(params.by_instrument("max_leverage", np.nan)[k])
        terms = snapshot.rules.terms
        rows = slice(int(terms.start[k]), int(terms.start[k + 1]))
        brackets = terms.max_leverage[rows]
        known = [x for x in (1.0 / rate if rate > 0.0 else np.nan, most, *brackets[:1])
                 if math.isfinite(x) and x > 0.0]  # fmt: skip
        if known:
            return known[0] / _SIDES, ()
        return 0.0, (f"nothing says how far {name} may be levered: nothing is borrowed on it",)
    share = _loan_to_value(snapshot)[k]
    if np.isnan(share):
        return 0.0, (f"nothing says how much may be borrowed on {name}: nothing is",)
    return float(share), ()


def _loan_to_value(snapshot: Snapshot) -> FloatColumn:
    params = snapshot.rules.params
    return params.by_instrument("ltv", params.by_instrument("liquidation_threshold", np.nan))


def _loan(
    target: _Target, factor: float, believed: FloatColumn, most: float
) -> tuple[float, float]:
    """What to post and what to borrow, at the prices before; only loans worth leaving behind.

    Pushed up, what is held is posted and everything else at the venue borrowed. Pushed down, it is
    itself borrowed, against whatever is worth most there and was not moved. On a contract the
    profit of one of two accounts is borrowed against, and the other left with the loss.
    """
    snapshot = target.plan.snapshot
    universe, liquidity, mark = snapshot.universe, snapshot.liquidity, snapshot.market.mark
    here = (universe.venue_of == target.venue) & np.isin(universe.kind, _LENT)
    idle = np.where(here, np.maximum(liquidity.supplied - liquidity.borrowed, 0.0) * mark, 0.0)
    price = believed.copy()  # what a dollar's worth of each weighs as a debt
    if target.contract:
        power = target.power * abs(factor - 1.0)
    elif factor > 1.0:
        power = target.power * factor
        idle[target.k] = 0.0
    else:
        others = here & (believed == 1.0)
        others[target.k] = False
        shares = np.nan_to_num(_loan_to_value(snapshot), nan=0.0)
        power = float(shares[others].max(initial=0.0)) / factor
        idle[np.arange(len(idle)) != target.k] = 0.0
        price[target.k] = 1.0  # that it is cheap stands in `power`
    stake = borrowed = 0.0
    for j in np.argsort(price, kind="stable"):
        if idle[j] > 0.0 and power > price[j]:
            loan = min(idle[j], (most - stake) * power / price[j])
            borrowed += loan
            stake += loan * price[j] / power
    return float(stake), float(borrowed)


def _closings(target: _Target, believed: FloatColumn, before: Margins) -> tuple[float, float]:
    """What of sound accounts is closed at the wrong price, and its worth to whoever closes it."""
    snapshot = target.plan.snapshot
    market = snapshot.market
    wrong = replace(snapshot, market=replace(market, mark=frozen(market.mark * believed)))
    after = margins(wrong)
    closed = gained = 0.0
    rows = np.flatnonzero(after.breached & ~before.breached)
    if not len(rows):
        return 0.0, 0.0
    rules = closing_columns(snapshot.rules, snapshot.book).by_venue
    for a in rows:
        value, gain = _closing(target.plan, wrong, rules, believed, after, int(a))
        closed += value
        gained += max(gain - float(rules.gas_usd[snapshot.book.venue[a]]), 0.0)
    return closed, gained


def _closing(
    plan: Plan,
    wrong: Snapshot,
    rules: closing_kernel.Closing,
    believed: FloatColumn,
    after: Margins,
    a: int,
) -> tuple[float, float]:
    """One account: the value that is closed at the wrong price, and what is gained at the old."""
    v = int(wrong.book.venue[a])
    how = int(rules.mechanism[v])
    if how == closing_kernel.SLICES:
        equity = min(float(after.cover[a]), float(after.equity[a]))
        notional = float(after.notional[a])
        share = closing_kernel.slice_share(v, rules, equity, float(after.asked[a]), notional)
        return share * notional, 0.0  # the fee is the venue's, and no one else's
    legs: Any = plan.hold.legs[wrong.book.offset[a] : wrong.book.offset[a + 1]]
    value = np.abs(legs["qty"]) * wrong.market.mark[legs["inst"]]
    ratio = believed[legs["inst"]]
    coll = np.flatnonzero((legs["role"] == margin.COLLATERAL) & (value > 0.0))
    debt = np.flatnonzero((legs["role"] == margin.DEBT) & (value > 0.0))
    if how == closing_kernel.NOTHING or not (len(coll) and len(debt)):
        return 0.0, 0.0
    owed = float(value[debt].sum())
    if how == closing_kernel.PAIR:
        i, j = coll[value[coll].argmax()], debt[value[debt].argmax()]
        repaid, seized, bonus = closing_kernel.close_pair(
            v, rules, float(after.cover[a]), float(after.asked[a]), owed, float(value[i]),
            float(value[j]), float(legs["weight"][i]), float(legs["bonus"][i]),
            float(legs["weight"][j]),
        )  # fmt: skip
        cut = closing_kernel.protocol_cut(seized, bonus, float(legs["fee"][i]), 0.0)
        return float(seized), float((seized - cut) / ratio[i] - repaid / ratio[j])
    held = float(value[coll].sum())
    bonus = float((value[coll] * legs["bonus"][coll]).sum() / held)
    seized, repaid, penalty, _, credit = closing_kernel.close_whole(v, rules, held, owed, bonus)
    worth = float((value[coll] / ratio[coll]).sum()) * seized / held
    paid = float((value[debt] / ratio[debt]).sum()) / owed * (repaid + penalty) + credit
    return float(seized), worth - paid


def _check(
    factors: Sequence[float], rounds: int, inflow: float, fee: float, stake_usd: float
) -> None:
    if np.ndim(factors) != 1:
        raise StateError(f"factors was {factors!r}; it must be a list", hint="as in [0.5, 2.0]")
    if not len(factors):
        raise StateError("factors is empty; name at least one")
    for factor in factors:
        number = np.isreal(factor) and math.isfinite(factor)
        if not (number and factor > 0.0 and factor != 1.0):
            raise StateError(f"factors held {factor!r}; each must be above 0 and not 1")
    if rounds < 1:
        raise StateError(f"rounds was {rounds}; it must be at least 1")
    for name, value in (("inflow", inflow), ("fee", fee)):
        if not 0.0 <= value <= 1.0:
            raise StateError(f"{name} was {value}; it may be 0 to 1")
    if not stake_usd >= 0.0:
        raise StateError(f"stake_usd was {stake_usd}; it must be 0 or more")
