"""The cascade once more, slowly: one account after another, in plain floats and dictionaries.

Written from the definition and apart from the engine, so that the two can be held against each
other. It shares with it the nouns (snapshot, rules, options), the way a shock reaches instruments
(`PricingMap.moves`) and the terms of each venue (`closing_columns`, `leg_columns`, `terms`); what
becomes of an account, a price or a fund is worked out here again, with `math.fsum` for every sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, pairwise

import numpy as np

from undertow import schema
from undertow.rules.closing import ClosingColumns, closing_columns
from undertow.rules.profile import GridRules
from undertow.rules.snapshot import Snapshot
from undertow.state.book import PORTFOLIO
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NEVER, NONE
from undertow.stress.options import Deleveraging, Impact, Options
from undertow.stress.pricing import POOLED, PricingMap
from undertow.stress.stressed import AS_GIVEN, ORACLE_MODES, Stressed

COLLATERAL, DEBT, SUPPLY, CASH, LINEAR, INVERSE, OPTION = range(7)  # roles of legs
PAIR, WHOLE, BANDS, SLICES = range(4)  # mechanisms; less than 0: nothing is closed
ADL_NONE, ADL_PROFIT_LEVERAGE, ADL_PRORATA = range(3)
AT_TESTED, AT_ENTRY = range(2)  # price that maintenance is asked at
YEAR_US = 365 * 86_400_000_000
PARTIES = (
    "accounts", "liquidators", "insurance", "backstop", "protocol", "suppliers",
    "counterparties", "venue",
)  # fmt: skip
TOTALS = (
    "sold", "closed_usd", "repaid_usd", "bad_usd", "short_usd", "gain_usd", "cut_usd", "paid_usd",
    "given_usd", "impact_usd",
)  # fmt: skip
_STEP = 1e-4  # of the forward, for the delta of an option that is sold
_STILL = 1e-12  # share of a loan's collateral under which nothing is converted
_GAUSS = np.polynomial.legendre.leggauss(40)


@dataclass(frozen=True)
class Event:
    """Something that happened to an account; `other` is what was owed, or NONE."""

    round: int
    account: int
    inst: int
    other: int
    reason: str
    qty: float
    value: float
    repaid: float
    lost: float


@dataclass
class ReferenceResult:
    """All that a cascade leaves behind; columns by leg, account, instrument or venue."""

    rounds: int  # the last, quiet one included
    settled: bool
    path: list[np.ndarray]  # prices that venues saw, round by round
    market_path: list[np.ndarray]
    acted: list[int]  # accounts that something happened to, round by round
    qty: np.ndarray
    cash: np.ndarray
    status: list[str]  # untouched, touched, emptied
    totals: dict[str, np.ndarray]
    ledger: list[dict[str, float]]  # what each party won, at the prices seen, round by round
    insurance: np.ndarray
    backstop: np.ndarray
    receipt: np.ndarray  # what is left of one unit of each asset, its own losses alone
    nearest: np.ndarray  # by account, least |cover - asked| / max(asked, 1) at any time
    on_edge: np.ndarray  # by account: something brought it to its threshold or buffer exactly
    events: list[Event]

    @property
    def closest(self) -> float:
        """Least distance of any account, but of those that were brought to the edge on purpose."""
        return float(np.min(self.nearest[~self.on_edge], initial=math.inf))


def run_reference(snapshot: Snapshot, stressed: Stressed, options: Options) -> ReferenceResult:
    """Follow a shock through a snapshot until a round is quiet.

    What is held and owed is that of `stressed.snapshot`, which a shock may have changed.
    """
    assert snapshot.universe == stressed.universe
    return _Run(stressed, options).run()


def judge_all(stressed: Stressed) -> list[tuple[float, float, float]]:
    """Cover, asked and equity of every account at the prices of the snapshot."""
    run = _Run(stressed, Options())
    start = list(run.start)
    now = Round(0, start, start, run.index)
    found = [(run.judge(account, now), run.equity(account, now)) for account in run.accounts]
    return [(judged.cover, judged.asked, equity) for judged, equity in found]


# ---- impact


@dataclass(frozen=True)
class Pool:
    """A place where sales execute: log g as a function of what was sold, net."""

    model: Impact
    depth: float
    daily: float
    scale: float  # of the square root: constant times volatility of a day
    floor: float
    clip: float
    bids: tuple[tuple[float, float], ...] = ()  # (reach, ratio), nearest first
    asks: tuple[tuple[float, float], ...] = ()

    def price(self, u: float) -> float:
        """g: price after `u` was sold, over the price before anything was."""
        most = 1.0 / max(self.floor, 1e-18)
        if u < 0.0 and self.model is Impact.LADDER and self.asks:
            most = max(most, self.asks[-1][1])
        return min(max(self._price(u), 1e-18), most if u < 0.0 else 1.0)

    def _bought_out(self) -> float:
        """What must be bought until the price is as high as it gets."""
        low, high = -1e40, -1e-40
        most = self.price(low)
        for _ in range(400):
            middle = -math.sqrt(low * high)
            low, high = (middle, high) if self.price(middle) >= most else (low, middle)
        return high

    def _price(self, u: float) -> float:
        d, b = self.depth, self.floor
        match self.model:
            case Impact.LINEAR if d > 0.0:
                return max(b, 1.0 - u / d)
            case Impact.EXPONENTIAL if d > 0.0 and u >= 0.0:
                return b + (1.0 - b) * math.exp(-u / ((1.0 - b) * d))
            case Impact.EXPONENTIAL if d > 0.0:
                return math.exp(min(-u / d, 50.0))
            case Impact.SQUARE_ROOT if self.daily > 0.0:
                share = abs(u) / self.daily
                root = math.sqrt(share) if share > self.clip else share / math.sqrt(self.clip)
                return math.exp(math.copysign(min(self.scale * root, 50.0), -u))
            case Impact.CONSTANT_PRODUCT if d > 0.0:
                x = 2.0 * d
                return (x / max(x + u, 1e-9 * x)) ** 2
            case Impact.LADDER:
                return self._rung(u)
        return 1.0

    def _rung(self, u: float) -> float:
        levels, size = (self.bids, u) if u >= 0.0 else (self.asks, -u)
        if size == 0.0:
            return 1.0
        for reach, ratio in levels:
            if size <= reach:
                return ratio
        last_reach, last = levels[-1] if levels else (0.0, 1.0)
        before_reach, before = levels[-2] if len(levels) > 1 else (0.0, 1.0)
        step = abs(math.log(last / before)) / (last_reach - before_reach) if levels else 0.0
        if step == 0.0 and self.depth > 0.0:
            step = 1.0 / self.depth
        return last * math.exp(math.copysign(min(step * (size - last_reach), 50.0), -u))

    def average(self, u: float, du: float) -> float:
        """Mean price of selling `du` after `u`, over the price after `u`."""
        if u + du == u:
            return 1.0
        corners = {0.0, self.depth * (1.0 - self.floor), self._bought_out()}
        corners |= {self.clip * self.daily, -self.clip * self.daily}
        corners |= {reach for reach, _ in self.bids} | {-reach for reach, _ in self.asks}
        low, high = sorted((u, u + du))
        if self.depth > 0.0 and self.model is not Impact.LADDER:  # short pieces for the quadrature
            corners |= {low + j * (high - low) / 8 for j in range(1, 8)}
        inside = sorted(c for c in corners if low < c < high)
        pieces = [self._integral(a, b) for a, b in pairwise([low, *inside, high])]
        return math.fsum(pieces) / (high - low) / self.price(u)

    def _integral(self, low: float, high: float) -> float:
        half, middle = 0.5 * (high - low), 0.5 * (high + low)
        points, weights = _GAUSS
        return half * math.fsum(
            w * self.price(middle + half * x) for x, w in zip(points, weights, strict=True)
        )


@dataclass
class Carried:
    """Where an instrument is sold, and which pools its price hangs on: (pool, pull)."""

    chain: list[tuple[str | int, float]]
    spot_pool: int | None
    spot_rate: float
    own_pool: str | None


# ---- margin


@dataclass(eq=False)
class Leg:
    """One position and what it is to its account."""

    row: int
    inst: int
    role: int
    qty: float
    entry: float
    weight: float
    bonus: float
    fee: float
    began: float = 0.0  # quantity once what is owed was charged

    @property
    def derivative(self) -> bool:
        """Whether it is a perp, a future or an option."""
        return self.role >= LINEAR


@dataclass
class Band:
    """The ladder of a loan: between which prices its collateral is sold."""

    top: float
    bottom: float
    qty: float  # collateral at the start
    start: float  # share that was sold at the start already
    done: float = 0.0  # share sold since
    broken: bool = False  # part of the collateral was seized: nothing more is converted

    def share(self, price: float) -> float:
        """Share of the ladder that lies above a price."""
        part = math.log(self.top / price) / math.log(self.top / self.bottom)
        return min(max(part, 0.0), 1.0)

    def wanted(self, price: float) -> float:
        """Share of the collateral that is money at a price, beyond what was so at the start."""
        gone = max(self.share(price) - self.start, 0.0)
        return min(gone / (1.0 - min(self.start, 0.999)), 1.0)


@dataclass(eq=False)
class Account:
    """A margin group: its legs, its realised money, and what became of it."""

    row: int
    venue: int
    owner: int
    portfolio: bool
    legs: list[Leg]
    cash: float = 0.0
    ready_us: int = 0
    status: str = "untouched"
    band: Band | None = None
    nearest: float = math.inf
    on_edge: bool = False

    def of(self, role: int) -> list[Leg]:
        """Its legs of one role that still hold something."""
        return [leg for leg in self.legs if leg.role == role and leg.qty != 0.0]

    @property
    def derivatives(self) -> list[Leg]:
        """Its perps, futures and options that are open."""
        return [leg for leg in self.legs if leg.derivative and leg.qty != 0.0]


@dataclass(frozen=True)
class Terms:
    """What one instrument asks, or counts for, by size."""

    brackets: tuple[tuple[float, float], ...]  # (rate, amount)
    fee: float
    basis: int

    def maintenance(self, size: float, price: float) -> float:
        """Of a straight contract or an option sold, in USD."""
        asked = max((rate * size * price - amount for rate, amount in self.brackets), default=0.0)
        return asked + self.fee * size * price

    def inverse_maintenance(self, face: float, price: float) -> float:
        """Of a coin-margined contract, in USD."""
        asked = max((rate * face - amount * price for rate, amount in self.brackets), default=0.0)
        return asked + self.fee * face

    def counted(self, value: float) -> float:
        """What a holding of a value counts for after haircuts by size."""
        return min((rate * value + amount for rate, amount in self.brackets), default=value)


@dataclass(frozen=True)
class Judged:
    """What counts, and what is asked."""

    cover: float
    asked: float

    @property
    def breached(self) -> bool:
        """Whether the venue may close the account."""
        return self.cover < self.asked


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


@lru_cache(maxsize=200_000)
def black(call: bool, forward: float, strike: float, vol: float, tau: float) -> float:
    """Black (1976), undiscounted."""
    sign = 1.0 if call else -1.0
    deviation = vol * math.sqrt(tau) if vol > 0.0 and tau > 0.0 else 0.0
    if deviation <= 0.0:
        return max(sign * (forward - strike), 0.0)
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    return sign * (forward * _normal(sign * d1) - strike * _normal(sign * (d1 - deviation)))


# ---- the arithmetic of one closing, in USD


@dataclass(frozen=True)
class Pair:
    """One collateral and one debt of an account, and the account around them."""

    held: float
    owed: float
    threshold: float
    debt_weight: float
    bonus: float
    cover: float
    asked: float
    all_debt: float


@dataclass(frozen=True)
class VenueTerms:
    """The closing rules of one venue, by name."""

    values: dict[str, float]

    def __getattr__(self, name: str) -> float:
        """The rule called `name`."""
        return self.values[name]


def bonus_at(terms: VenueTerms, health: float, bonus: float) -> float:
    """Rises in a straight line from a share of it at health 1 to all of it."""
    full, start = terms.bonus_full_at, terms.bonus_start
    if health <= full:
        return bonus
    risen = (1.0 - min(health, 1.0)) / (1.0 - full) if full < 1.0 else 0.0
    return bonus * (start + (1.0 - start) * risen)


def close_pair(terms: VenueTerms, pair: Pair) -> tuple[float, float, float]:
    """(repaid, seized, bonus) when the largest collateral meets the largest debt."""
    health = pair.cover / pair.asked
    bonus = bonus_at(terms, health, pair.bonus)
    small = min(pair.held, pair.owed) < terms.small_usd
    sized = terms.target_health > 0.0
    if sized:  # repay to the target: no close factor on top
        room = terms.target_health * pair.debt_weight - pair.threshold * (1.0 + bonus)
        wanted = (terms.target_health * pair.asked - pair.cover) / room if room > 0.0 else math.inf
        cap = min(pair.owed, wanted)
    elif terms.close_factor >= 1.0 or health <= terms.full_below or small:
        cap = pair.owed
    else:
        part = terms.close_factor * (pair.all_debt if terms.of_all_debt else pair.owed)
        cap = min(pair.owed, part)
    repaid, seized = _traded(pair, cap, bonus)
    left = terms.leftover_usd
    if left <= 0.0 or not _dusty(pair, repaid, seized, left):
        return repaid, seized, bonus
    if sized:  # dust of either side goes with it
        repaid, seized = _traded(pair, pair.owed, bonus)
        if not _dusty(pair, repaid, seized, left):
            return repaid, seized, bonus
    repaid = min(repaid, pair.owed - left, (pair.held - left) / (1.0 + bonus))
    if repaid <= 0.0:
        return 0.0, 0.0, bonus
    return repaid, repaid * (1.0 + bonus), bonus


def _traded(pair: Pair, wanted: float, bonus: float) -> tuple[float, float]:
    seized = wanted * (1.0 + bonus)
    if seized >= pair.held:
        return min(wanted, pair.held / (1.0 + bonus)), pair.held
    return wanted, seized


def _dusty(pair: Pair, repaid: float, seized: float, least: float) -> bool:
    owed, held = pair.owed - repaid, pair.held - seized
    remain = owed > 1e-9 * pair.owed and held > 1e-9 * pair.held
    return remain and (owed < least * (1 - 1e-9) or held < least * (1 - 1e-9))


@dataclass(frozen=True)
class Whole:
    """All debt of an account against all its collateral."""

    seized: float
    repaid: float
    penalty: float
    bad: float
    credit: float

    @property
    def gain(self) -> float:
        """What whoever takes the collateral has from it."""
        return self.seized - self.repaid - self.penalty - self.credit


def close_whole(terms: VenueTerms, held: float, owed: float, bonus: float) -> Whole:
    """Close all of an account at once."""
    if terms.returns_surplus or terms.seize_all:  # whoever takes all of it bears a low price
        owners = (
            held * (1.0 - bonus) - owed if terms.returns_surplus else held - owed * (1.0 + bonus)
        )
        repaid = min(owed, held)
        return Whole(held, repaid, 0.0, owed - repaid, max(owners, 0.0))
    asked = owed * (1.0 + terms.penalty)
    paid = min(asked, held / (1.0 + bonus))
    repaid = min(owed, paid)
    taken = min(held, asked * (1.0 + bonus))
    return Whole(taken, repaid, paid - repaid, owed - repaid, 0.0)


def slice_share(terms: VenueTerms, equity: float, asked: float, gross: float) -> float:
    """Share of every derivative of a margin group that is closed now."""
    if equity >= asked:
        return 0.0
    if equity <= 0.0 or equity < terms.backstop_below * asked:
        return 1.0
    if terms.to_health > 0.0:
        wanted = terms.to_health * asked
        freed = wanted - terms.fee * gross
        return min((wanted - equity) / freed, 1.0) if freed > 0.0 else 1.0
    if gross <= terms.slice_above_usd:
        return 1.0
    return terms.slice


# ---- the run


@dataclass
class Proposal:
    """What is about to be done to an account, unless liquidators cannot carry all of it."""

    account: Account
    demand: float  # USD of a liquidator's capacity
    act: Callable[[float], None]  # with the share that can be carried


@dataclass
class Round:
    """What one round adds up to."""

    number: int
    market: list[float]
    seen: list[float]
    forward: list[float]  # of options
    sold: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    bankrupt: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    short: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    bad: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    fees: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    ledger: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    acted: set[int] = field(default_factory=set)
    closed_by: dict[int, dict[int, float]] = field(default_factory=dict)  # owner, asset: base
    held_back: bool = False


class _Run:
    def __init__(self, stressed: Stressed, options: Options) -> None:
        self.stressed, self.options = stressed, options
        self.snapshot = snapshot = stressed.snapshot
        self.universe = snapshot.universe
        self.count = len(self.universe.instruments)
        self.pricing = PricingMap.of(snapshot)
        mark = snapshot.market.mark
        self.start = [float(p) if p > 0.0 else 1.0 for p in mark]
        self.asset = [int(a) for a in self.universe.asset_of]
        self.venue = [int(v) for v in self.universe.venue_of]
        kinds = schema.INSTRUMENT_KINDS
        self.kind = [kinds[k] for k in self.universe.kind]
        self.is_option = [kind == "option" for kind in self.kind]
        self.money = [bool(self.universe.stable[a]) for a in self.asset]
        self.shock = [float(m) for m in self.pricing.moves(stressed.factor, stressed.basis)]
        self.pools = self._pools()
        self.carried = [self._carried(k) for k in range(self.count)]
        self.sold_into: dict[str | int, float] = dict.fromkeys(self.pools, 0.0)
        self.thin: dict[str | int, float] = dict.fromkeys(self.pools, 1.0)
        self.receipt = [float(x) for x in stressed.receipt]
        self.lost_supply: dict[int, float] = defaultdict(float)  # base units by reserve
        self.deposits = self._read_deposits()  # by asset: (reserve, share of backing, supplied)
        self._options_terms()
        self._terms()
        self._oracles()
        self.accounts = self._accounts()
        funds, mult = snapshot.funds, stressed.fund_mult
        self.insurance = [float(x) for x in funds.insurance * mult]
        self.backstop = [float(x) for x in funds.backstop * mult]
        capacity = funds.liquidator_capacity
        self.capacity = [
            float(c) * float(m) if math.isfinite(c) else math.inf
            for c, m in zip(capacity, stressed.capacity_mult, strict=True)
        ]
        self.free_usd = [0.0] * len(snapshot.book.owners)
        if options.responses.top_up:
            self.free_usd = [float(x) for x in snapshot.free.usd_by_owner(snapshot.market)]
        self.pending: dict[int, dict[int, list[float]]] = {}
        self.totals: dict[str, dict[int, list[float]]] = {
            name: defaultdict(list) for name in TOTALS
        }
        self.events: list[Event] = []

    # -- what is there at the start

    def _pools(self) -> dict[str | int, Pool]:
        """One an asset, and one of its own for every perp and future with depth."""
        market, liquidity, options = self.snapshot.market, self.snapshot.liquidity, self.options
        mult = self.stressed.depth_mult
        pools: dict[str | int, Pool] = {}

        def pool(depth: float, daily: float, vol: float, inst: int, by: float) -> Pool:
            stretch = depth / float(market.depth[inst]) * by if inst != NONE else 0.0
            sides = []
            for sold in (True, False):
                reach, ratio = liquidity.ladders.levels(inst, sold=sold) if inst >= 0 else ((), ())
                sides.append(
                    tuple((float(q) * stretch, float(p)) for q, p in zip(reach, ratio, strict=True))
                )
            return Pool(
                options.impact, depth * by, daily * by, options.root * vol / math.sqrt(365.0),
                options.floor, options.clip, *sides,
            )  # fmt: skip

        for a in range(len(self.universe.assets)):
            on_it = [k for k in range(self.count) if self.asset[k] == a]
            spot = [k for k in on_it if self.kind[k] == "spot"]
            contracts = [k for k in on_it if self.kind[k] in ("perp", "future")]
            depth = math.fsum(market.depth[spot]) or max(market.depth[contracts], default=0.0)
            daily = math.fsum(liquidity.daily[spot]) or max(liquidity.daily[contracts], default=0.0)
            vol = max(market.vol[spot + contracts], default=0.0)
            deepest = max(spot, key=lambda k: (market.depth[k], -k), default=NONE)
            if deepest != NONE and market.depth[deepest] <= 0.0:
                deepest = NONE
            by = min(mult[on_it], default=1.0)
            pools[a] = pool(float(depth), float(daily), float(vol), deepest, float(by))
            for k in contracts:
                if market.depth[k] > 0.0:
                    pools[self._own(k)] = pool(
                        float(market.depth[k]), float(liquidity.daily[k]), float(market.vol[k]),
                        k, float(mult[k]),
                    )  # fmt: skip
        return pools

    def _own(self, k: int) -> str:
        return f"contract {self.universe.instruments[k]}"

    def _carried(self, k: int) -> Carried:
        own = self._own(k) if self._own(k) in self.pools else None
        chain = self._chain(self.asset[k])
        if own is not None:
            chain = [*chain, (own, 1.0)]
        at, rate = self.asset[k], 1.0
        while at != NONE and self.pools[at].depth <= 0.0:  # redeemed, on up the chain
            rate *= float(self.universe.reference_rate[at])
            at = int(self.universe.reference[at])
        return Carried(chain, None if at == NONE else at, rate, own)

    def _chain(self, asset: int) -> list[tuple[str | int, float]]:
        first, second = int(self.pricing.first[asset]), int(self.pricing.second[asset])
        found: list[tuple[str | int, float]] = [(asset, 1.0)]
        if self.pricing.hangs[asset] == POOLED:
            for half in (first, second):
                found += [(pool, 0.5 * pull) for pool, pull in self._chain(half)]
        elif first != NONE:
            by = float(self.pricing.leverage[asset])
            found += [(pool, by * pull) for pool, pull in self._chain(first)]
        return found

    def _options_terms(self) -> None:
        universe, market, stressed = self.universe, self.snapshot.market, self.stressed
        self.tau = [
            0.0 if e == NEVER else max(int(e) - self.snapshot.ts, 0) / YEAR_US
            for e in universe.expiry
        ]
        self.vol0 = [float(v) for v in market.vol]
        self.vol = [
            max(float(v * m + s), 0.0)
            for v, m, s in zip(market.vol, stressed.vol_mult, stressed.vol_shift, strict=True)
        ]
        self.index = [float(x) for x in market.index]
        self.strike = [float(x) for x in universe.strike]
        self.is_call = [bool(x) for x in universe.is_call]

    def _terms(self) -> None:
        rules, book = self.snapshot.rules, self.snapshot.book
        t = rules.terms
        self.terms = [
            Terms(
                tuple(
                    (float(t.rate[j]), float(t.amount[j]))
                    for j in range(t.start[k], t.start[k + 1])
                ),
                float(t.closing_fee[k]),
                int(t.basis[k]),
            )
            for k in range(self.count)
        ]
        self.legs = rules.leg_columns(book)
        self.closing: ClosingColumns = closing_columns(rules, book)
        by_venue = self.closing.by_venue._asdict()
        self.venue_terms = [
            VenueTerms({name: column[v].item() for name, column in by_venue.items()})
            for v in range(len(self.universe.venues))
        ]
        self.grids = [p.grid if p is not None else None for p in rules.profiles]
        self.minimum = [float(x) for x in rules.params.by_instrument("minimum_margin_rate")]

    def _oracles(self) -> None:
        oracles, stressed, options = self.snapshot.oracles, self.stressed, self.options
        self.mode: list[str] = []
        self.lag: list[int] = []
        self.heartbeat: list[int] = []
        self.deviation = [float(x) for x in oracles.deviation]
        for k in range(self.count):
            mode = ORACLE_MODES[int(oracles.mode[k])] if options.oracles else "market"
            more = int(stressed.oracle_lag_us[k])
            if mode == "market" and more > 0:
                mode = "lagged"
            if stressed.oracle_mode[k] != AS_GIVEN:
                mode = ORACLE_MODES[int(stressed.oracle_mode[k])]
            late = int(oracles.lag_us[k]) + more
            self.mode.append(mode)
            self.lag.append(-(-late // options.round_us))
            self.heartbeat.append(-(-int(oracles.heartbeat_us[k]) // options.round_us))
        self.published = list(self.start)
        self.published_at = [0] * self.count

    def _accounts(self) -> list[Account]:
        book = self.snapshot.book
        accounts = []
        for a in range(book.accounts):
            legs = [
                Leg(
                    i, int(self.legs.inst[i]), int(self.legs.role[i]), float(self.legs.qty[i]),
                    float(self.legs.entry[i]), float(self.legs.weight[i]),
                    float(self.closing.bonus[i]), float(self.closing.fee[i]),
                )
                for i in range(int(book.offset[a]), int(book.offset[a + 1]))
            ]  # fmt: skip
            account = Account(
                a, int(book.venue[a]), int(book.owner[a]), bool(book.mode[a] == PORTFOLIO), legs
            )
            self._charge(account)
            for leg in legs:
                leg.began = leg.qty
            if self.venue_terms[account.venue].mechanism == BANDS:
                account.band = self._band(account)
            accounts.append(account)
        return accounts

    def _charge(self, account: Account) -> None:
        """Interest on what is owed, and funding from longs to shorts, before anything moves."""
        stressed = self.stressed
        for leg in account.legs:
            rate = float(stressed.rate_shock[leg.inst] * stressed.rate_hours[leg.inst])
            if leg.role == DEBT:
                leg.qty *= max(1.0 + rate, 0.0)
            elif leg.role in (LINEAR, INVERSE):
                price = self.start[leg.inst] if leg.role == LINEAR else 1.0
                account.cash -= leg.qty * price * rate

    def _band(self, account: Account) -> Band | None:
        terms = self.venue_terms[account.venue]
        held = self._largest(account.of(COLLATERAL), self.start)
        owed = math.fsum(-leg.qty * self.start[leg.inst] for leg in account.of(DEBT))
        if held is None or owed <= 0.0:
            return None
        a, n = terms.bands_amplification, terms.bands_count
        top = owed / (held.qty * (1.0 - terms.loan_discount)) * (a / (a - 1.0)) ** (n / 2.0)
        band = Band(top, top * ((a - 1.0) / a) ** n, held.qty, 0.0)
        band.start = band.share(self.start[held.inst])
        return band

    # -- round after round

    def run(self) -> ReferenceResult:
        path, market_path, acted, ledger = [], [], [], []
        settled = False
        stood = self.start, self.index
        for number in range(self.options.max_rounds):
            market, forward = self._market()
            market_path.append(np.array(market))
            seen, waiting = self._seen(number, market, market_path)
            path.append(np.array(seen))
            r = Round(number, market, seen, forward)
            self._close_all(r)
            self._share_losses(r)
            self._sell(r)
            self._recover(r)
            acted.append(len(r.acted))
            ledger.append({party: math.fsum(r.ledger[party]) for party in PARTIES})
            moved = self._moved(stood, (seen, forward)) if self.options.recovery > 0.0 else 0.0
            stood = seen, forward
            quiet = not r.acted and not waiting and not r.held_back and not self.pending
            if quiet and moved <= 1e-6:
                settled = True
                break
        return ReferenceResult(
            rounds=len(path),
            settled=settled,
            path=path,
            market_path=market_path,
            acted=acted,
            qty=np.array([leg.qty for account in self.accounts for leg in account.legs]),
            cash=np.array([account.cash for account in self.accounts]),
            status=[account.status for account in self.accounts],
            totals={name: self._column(parts) for name, parts in self.totals.items()},
            ledger=ledger,
            insurance=np.array(self.insurance),
            backstop=np.array(self.backstop),
            receipt=np.array(self.receipt) * np.array(self._receipt_factors()),
            nearest=np.array([account.nearest for account in self.accounts]),
            on_edge=np.array([account.on_edge for account in self.accounts]),
            events=self.events,
        )

    def _moved(self, before: tuple[list[float], list[float]],
               now: tuple[list[float], list[float]]) -> float:  # fmt: skip
        """Largest log move of a price seen; of an option its forward's, or its own against that."""
        moves = []
        for k, option in enumerate(self.is_option):
            (p, forward), (q, ahead) = ((prices[k], of[k]) for prices, of in (before, now))
            if not option:
                moves.append(abs(math.log(q / p)))
            elif forward > 0.0:
                moves.append(abs(math.log(ahead / forward)))
                moves.append(math.log1p(abs(q - p) / min(ahead, forward)))
        return max(moves, default=0.0)

    def _column(self, parts: dict[int, list[float]]) -> np.ndarray:
        return np.array([math.fsum(parts.get(k, ())) for k in range(self.count)])

    # -- prices

    def _pulled(self, k: int, *, skip_peg: bool = False) -> float:
        chain = self.carried[k].chain[1:] if skip_peg else self.carried[k].chain
        return math.fsum(
            pull * math.log(self.pools[pool].price(self.sold_into[pool])) for pool, pull in chain
        )

    def _backed(self, asset: int, factors: list[float]) -> float:
        left = 1.0
        while asset != NONE:
            left *= self.receipt[asset] * factors[asset]
            asset = int(self.universe.reference[asset])
        return left

    def _market(self) -> tuple[list[float], list[float]]:
        factors = self._receipt_factors()
        market, forward = [], []
        for k in range(self.count):
            move = self.shock[k] + self._pulled(k)
            if self.is_option[k]:
                ahead = self.index[k] * math.exp(move)
                price = self._option_price(k, ahead)
            else:
                ahead = price = self.start[k] * math.exp(move)
                price *= self._backed(self.asset[k], factors)
            market.append(price)
            forward.append(ahead)
        return market, forward

    def _model(self, k: int, forward: float, vol: float) -> float:
        return black(self.is_call[k], forward, self.strike[k], vol, self.tau[k])

    def _option_price(self, k: int, forward: float) -> float:
        if self.index[k] <= 0.0:
            return self.start[k]
        change = self._model(k, forward, self.vol[k]) - self._model(k, self.index[k], self.vol0[k])
        return max(self.start[k] + change, 1e-12)

    def _seen(
        self, number: int, market: list[float], path: list[np.ndarray]
    ) -> tuple[list[float], bool]:
        """What venues believe, and whether an oracle has yet to say something new."""
        stressed = self.stressed
        factors = self._receipt_factors()
        seen, waiting = [], False
        for k, price in enumerate(market):
            mode = self.mode[k]
            until = int(stressed.oracle_rounds[k])
            over = until > 0 and number >= until
            shown = price
            if mode == "lagged":
                shown, late = self._lagged(k, number, path)
                waiting |= late
            elif mode == "exchange_rate" and self._has_rate(k):
                own = float(stressed.factor[self.asset[k]]) + float(stressed.basis[k])
                move = self.shock[k] - own + self._pulled(k, skip_peg=True)
                shown = self.start[k] * math.exp(move) * self._backed(self.asset[k], factors)
            elif mode in ("frozen", "mis_set") and not over:
                wrong = price * float(stressed.oracle_factor[k])
                shown = self.start[k] if mode == "frozen" else wrong
                waiting |= until > 0 and shown != price
            seen.append(shown)
        return seen, waiting

    def _has_rate(self, k: int) -> bool:
        return self.universe.reference[self.asset[k]] != NONE and not self.is_option[k]

    def _lagged(self, k: int, number: int, path: list[np.ndarray]) -> tuple[float, bool]:
        lag, slack = self.lag[k], self.deviation[k]
        late = self.start[k] if number < lag else float(path[number - lag][k])
        due = self.heartbeat[k] > 0 and number - self.published_at[k] >= self.heartbeat[k]
        if abs(late - self.published[k]) > slack * self.published[k] or due:
            self.published[k], self.published_at[k] = late, number
        shown = self.published[k]
        recent = path[max(number - lag, 0) : number + 1]
        on_its_way = any(abs(float(p[k]) - shown) > slack * shown for p in recent)
        return shown, on_its_way  # what only a heartbeat tells is not waited for

    # -- health

    def judge(self, account: Account, r: Round) -> Judged:
        cover, asked = [], []
        for leg in account.legs:
            if leg.qty == 0.0 or leg.role == SUPPLY:
                continue
            price, size, terms = r.seen[leg.inst], abs(leg.qty), self.terms[leg.inst]
            if leg.role == DEBT:
                asked.append(leg.weight * size * price)
            elif leg.role == CASH and leg.qty < 0.0:
                asked.append(size * price)
            elif leg.role in (COLLATERAL, CASH):
                cover.append(leg.weight * terms.counted(size * price))
            else:
                cover.append(self._profit(leg, price))
                asked.append(leg.weight * self._maintenance(leg, price))
        (cover if account.cash >= 0.0 else asked).append(abs(account.cash))
        if account.portfolio:
            asked.append(self._grid(account, r))
        return Judged(math.fsum(cover), math.fsum(asked))

    def _maintenance(self, leg: Leg, price: float) -> float:
        terms, size = self.terms[leg.inst], abs(leg.qty)
        if leg.role == OPTION and leg.qty >= 0.0:
            return 0.0
        at_entry = terms.basis == AT_ENTRY
        if leg.role == INVERSE:
            if at_entry:  # a fixed amount of coin, which moves with the price
                return terms.inverse_maintenance(size, leg.entry) / leg.entry * price
            return terms.inverse_maintenance(size, price)
        return terms.maintenance(size, leg.entry if at_entry else price)

    def _profit(self, leg: Leg, price: float) -> float:
        """Profit of a contract, or value of an option, in USD."""
        if leg.role == INVERSE:
            return leg.qty * (price / leg.entry - 1.0)
        return leg.qty * price if leg.role == OPTION else leg.qty * (price - leg.entry)

    def _notional(self, leg: Leg, r: Round, qty: float | None = None) -> float:
        qty = leg.qty if qty is None else qty
        if leg.role == INVERSE:
            return abs(qty)
        return abs(qty) * (r.forward if leg.role == OPTION else r.seen)[leg.inst]

    def _grid(self, account: Account, r: Round) -> float:
        """Worst loss of each underlying and add-ons, or the sum of minima."""
        grid = self.grids[account.venue]
        legs = account.derivatives
        if grid is None or not legs:
            return 0.0
        asked, least = [], []
        for asset in sorted({self.asset[leg.inst] for leg in legs}):
            on_it = [leg for leg in legs if self.asset[leg.inst] == asset]
            asked += [self._worst(on_it, grid, r)]
        for leg in legs:
            if leg.role == OPTION and leg.qty > 0.0:
                continue
            notional = self._notional(leg, r)
            asked.append(grid.add_on * notional)
            least.append(self.minimum[leg.inst] * notional)
        return max(math.fsum(asked), math.fsum(least))

    def _worst(self, legs: list[Leg], grid: GridRules, r: Round) -> float:
        points = [(price, vol, 1.0) for price in grid.price_moves for vol in grid.vol_moves]
        points += [(price, max(grid.vol_moves), grid.tail_counted) for price in grid.tail_moves]
        worst = 0.0
        for price_move, vol_move, counted in points:
            losses = [self._grid_loss(leg, price_move, vol_move, grid, r) for leg in legs]
            worst = max(worst, counted * math.fsum(losses))
        return worst

    def _grid_loss(
        self, leg: Leg, price_move: float, vol_move: float, grid: GridRules, r: Round
    ) -> float:
        k = leg.inst
        if leg.role != OPTION:
            exposed = leg.qty if leg.role == INVERSE else leg.qty * r.seen[k]
            return -exposed * price_move
        ratio = grid.vol_reference_days / 365.0 / max(self.tau[k], 1.0 / 365.0)
        scale = ratio ** (grid.vol_near_power if ratio > 1.0 else grid.vol_far_power)
        vol = self.vol[k] * max(1.0 + vol_move * scale, 0.0)
        now = self._model(k, r.forward[k], self.vol[k])
        return leg.qty * (now - self._model(k, r.forward[k] * (1.0 + price_move), vol))

    def equity(self, account: Account, r: Round) -> float:
        """Without haircuts."""
        return math.fsum(
            [account.cash]
            + [self._profit(leg, r.seen[leg.inst]) for leg in account.derivatives]
            + [leg.qty * r.seen[leg.inst] for leg in account.legs if not leg.derivative]
        )

    # -- closing

    def _close_all(self, r: Round) -> None:
        proposals: dict[int, list[Proposal]] = defaultdict(list)
        for account in self.accounts:
            terms = self.venue_terms[account.venue]
            if terms.mechanism < 0:
                continue
            judged = self._look_at(account, r)
            if judged is None:
                continue
            proposal = self._propose(account, judged, r)
            if proposal is not None:
                proposals[account.venue].append(proposal)
        for venue, ready in proposals.items():
            scale = 1.0
            if self.options.capacity:
                demand = math.fsum(p.demand for p in ready)
                if demand > self.capacity[venue]:
                    scale = self.capacity[venue] / demand
            for proposal in ready:
                if scale > 0.0 or proposal.demand == 0.0:
                    proposal.act(1.0 if proposal.demand == 0.0 else scale)
        if self.options.responses.unwind:
            self._unwind(r)

    def _look_at(self, account: Account, r: Round) -> Judged | None:
        """Judge an account, let its owner answer, and say whether its venue may close it now."""
        judged = self.judge(account, r)
        answers = self.options.responses
        trigger = answers.buffer if answers.top_up or answers.delever else 1.0
        for level in {1.0, trigger}:
            if judged.asked > 0.0 or judged.cover < 0.0:
                gap = abs(judged.cover - level * judged.asked) / max(judged.asked, 1.0)
                account.nearest = min(account.nearest, gap)
        now = r.number * self.options.round_us
        is_open = now >= int(self.stressed.closed_until_us[account.venue])
        due = is_open and now >= account.ready_us
        if account.band is not None and due and self._convert_bands(account, r):
            judged = self.judge(account, r)
        if judged.cover < trigger * judged.asked:
            if answers.top_up and self._top_up(account, judged, r):
                judged = self.judge(account, r)
            if answers.delever and self._delever(account, judged, r):
                judged = self.judge(account, r)
        if not judged.breached:
            return None
        r.held_back |= not due
        return judged if due else None

    def _propose(self, account: Account, judged: Judged, r: Round) -> Proposal | None:
        mechanism = self.venue_terms[account.venue].mechanism
        if mechanism == SLICES:
            return self._propose_slice(account, judged, r)
        if not account.of(COLLATERAL) and (mechanism == PAIR or account.cash <= 0.0):
            if not account.of(DEBT) or not self.venue_terms[account.venue].deficit:
                return None  # nothing to take: the debt stays, and the account under water
            return Proposal(account, 0.0, lambda _: self._write_off(account, r))
        if mechanism == PAIR:
            return self._propose_pair(account, judged, r)
        return self._propose_whole(account, r)

    def _largest(self, legs: Iterable[Leg], price: list[float]) -> Leg | None:
        """By value; of equal ones the first."""
        return max(legs, key=lambda g: (abs(g.qty) * price[g.inst], -g.inst), default=None)

    def _propose_pair(self, account: Account, judged: Judged, r: Round) -> Proposal | None:
        terms = self.venue_terms[account.venue]
        held = self._largest(account.of(COLLATERAL), r.seen)
        owed = self._largest(account.of(DEBT), r.seen)
        if held is None or owed is None:
            return None
        value, debt = held.qty * r.seen[held.inst], -owed.qty * r.seen[owed.inst]
        pair = Pair(
            value, debt, held.weight, owed.weight, held.bonus, judged.cover, judged.asked,
            math.fsum(-leg.qty * r.seen[leg.inst] for leg in account.of(DEBT)),
        )  # fmt: skip
        repaid, seized, bonus = close_pair(terms, pair)
        if repaid <= 0.0 or seized <= 0.0:
            return None
        cut = held.fee * (seized - seized / (1.0 + bonus))
        if not self._pays(terms, (held, seized - cut), (owed, repaid), r):
            return None

        def act(scale: float) -> None:
            qty = (
                held.qty if seized >= value and scale == 1.0 else held.qty * seized / value * scale
            )
            paid = owed.qty if repaid >= debt and scale == 1.0 else owed.qty * repaid / debt * scale
            self._seize(account, held, qty, r)
            owed.qty -= paid
            r.sold[owed.inst].append(paid)  # less than 0: whoever repays has to buy it
            self._book("repaid_usd", owed.inst, repaid * scale)
            self._book("gain_usd", held.inst, (seized - cut - repaid) * scale)
            self._book("cut_usd", held.inst, cut * scale)
            self._transfer(
                r, accounts=(repaid - seized) * scale, liquidators=(seized - cut - repaid) * scale,
                protocol=cut * scale,
            )  # fmt: skip
            self._touch(account, r)
            lost = 0.0
            if terms.deficit and not account.of(COLLATERAL):
                lost = self._lose_debts(account, r)
            self._note(r, account, held.inst, owed.inst, "pair", qty, seized * scale,
                       repaid * scale, lost)  # fmt: skip

        return Proposal(account, repaid, act)

    def _propose_whole(self, account: Account, r: Round) -> Proposal | None:
        terms = self.venue_terms[account.venue]
        held, owed = account.of(COLLATERAL), account.of(DEBT)
        values = {leg.row: leg.qty * r.seen[leg.inst] for leg in held}
        debts = {leg.row: -leg.qty * r.seen[leg.inst] for leg in owed}
        all_held, all_debt = math.fsum(values.values()), math.fsum(debts.values())
        if all_debt <= 0.0:
            return None
        own = min(max(account.cash, 0.0), all_debt)
        rest = all_debt - own
        bonus = fee = 0.0
        if held:
            bonus = math.fsum(leg.bonus * values[leg.row] for leg in held) / all_held
            fee = math.fsum(leg.fee * values[leg.row] for leg in held) / all_held
        done = close_whole(terms, all_held, rest, bonus)
        first, dearest = self._largest(held, r.seen), self._largest(owed, r.seen)
        absorbed = bool(terms.returns_surplus)  # by the protocol, which asks nobody for money
        kept = done.gain if absorbed else fee * done.gain
        cut, gain = done.penalty + kept, done.gain - kept
        if first and dearest and not absorbed:
            taken, paid = done.seized - kept, done.repaid + done.penalty + done.credit
            if not self._pays(terms, (first, taken), (dearest, paid), r):
                return None

        def act(scale: float) -> None:
            if account.band is not None:
                account.band.broken = True
            account.cash += (done.credit - own) * scale
            for leg in held:
                if done.seized <= 0.0:
                    break
                share = values[leg.row] / all_held
                every = done.seized >= all_held and scale == 1.0
                qty = leg.qty if every else leg.qty * done.seized / all_held * scale
                self._seize(account, leg, qty, r, late_us=int(terms.delay_us))
                self._book("gain_usd", leg.inst, gain * share * scale)
                self._book("cut_usd", leg.inst, cut * share * scale)
            lost = 0.0
            for leg in owed:
                part = debts[leg.row] / all_debt * scale
                paid, bad = (own + done.repaid) * part, done.bad * part
                leg.qty = 0.0 if scale == 1.0 else leg.qty * (1.0 - scale)
                self._book("repaid_usd", leg.inst, paid)
                r.sold[leg.inst].append(-paid / r.seen[leg.inst])
                self._lose_debt(leg.inst, bad, r)
                lost += bad
            self._transfer(
                r, accounts=(done.repaid + done.credit - done.seized) * scale,
                liquidators=gain * scale, protocol=cut * scale,
            )  # fmt: skip
            self._touch(account, r, emptied=scale == 1.0)
            at = first.inst if first else NONE
            self._note(r, account, at, owed[0].inst, "whole", done.seized * scale,
                       done.seized * scale, done.repaid * scale, lost)  # fmt: skip

        return Proposal(account, 0.0 if absorbed else done.repaid, act)

    def _pays(
        self, terms: VenueTerms, taken: tuple[Leg, float], repaid: tuple[Leg, float], r: Round
    ) -> bool:
        """Whether a liquidator who sells what it keeps, alone, is not left with a loss.

        Of an account with several legs as if all were in the largest, on either side.
        """
        if not self.options.profitable:
            return True
        held, kept = taken
        owed, paid = repaid
        carried, qty = self.carried[held.inst], kept / r.seen[held.inst]
        fetched = qty * r.market[held.inst]
        pool = carried.spot_pool
        if pool is not None:
            volume = qty * carried.spot_rate / self.thin[pool]
            fetched *= self.pools[pool].average(self.sold_into[pool], volume)
        cost = paid / r.seen[owed.inst] * r.market[owed.inst]
        return fetched >= cost + terms.gas_usd

    def _seize(self, account: Account, leg: Leg, qty: float, r: Round, *, late_us: int = 0) -> None:
        """Take `qty` of a leg into the market, at once or later."""
        self._book("closed_usd", leg.inst, abs(qty) * r.seen[leg.inst])
        leg.qty = 0.0 if qty == leg.qty else leg.qty - qty
        rounds = -(-late_us // self.options.round_us)
        if rounds > 0:
            later = self.pending.setdefault(r.number + rounds, defaultdict(list))
            later[leg.inst].append(qty)
        else:
            r.sold[leg.inst].append(qty)
        self._remember(account, leg, qty, r)

    def _write_off(self, account: Account, r: Round) -> None:
        debts = account.of(DEBT)
        lost = self._lose_debts(account, r)
        self._touch(account, r, emptied=True)
        self._note(r, account, debts[0].inst, debts[0].inst, "written off", 0.0, 0.0, 0.0, lost)

    def _lose_debts(self, account: Account, r: Round) -> float:
        """Every debt that is left is its lenders' loss."""
        lost = []
        for leg in account.of(DEBT):
            lost.append(-leg.qty * r.seen[leg.inst])
            leg.qty = 0.0
            self._lose_debt(leg.inst, lost[-1], r)
        account.status = "emptied"
        return math.fsum(lost)

    def _lose_debt(self, inst: int, usd: float, r: Round) -> None:
        r.bad[inst].append(usd)
        self._book("bad_usd", inst, usd)
        self._transfer(r, accounts=usd)

    def _convert_bands(self, account: Account, r: Round) -> bool:
        """Sell, or buy back, as much as the ladder says at the price seen."""
        band, held = account.band, self._largest(account.of(COLLATERAL), r.seen)
        if band is None or band.broken or held is None or not account.of(DEBT):
            return False
        price = r.seen[held.inst]
        wanted = band.wanted(price)
        if abs(wanted - band.done) <= _STILL:
            return False
        qty = band.qty * (wanted - band.done) if wanted < 1.0 else held.qty
        band.done = wanted
        loss = self.venue_terms[account.venue].bands_loss * abs(qty) * price
        account.cash += qty * price - loss
        held.qty = held.qty - qty if wanted < 1.0 else 0.0
        r.sold[held.inst].append(qty)
        self._book("closed_usd", held.inst, abs(qty) * price)
        self._book("gain_usd", held.inst, loss)
        self._transfer(r, accounts=-loss, liquidators=loss)
        self._touch(account, r)
        self._note(r, account, held.inst, NONE, "bands", qty, qty * price, 0.0, loss)
        return True

    # -- slices

    def _propose_slice(self, account: Account, judged: Judged, r: Round) -> Proposal | None:
        terms = self.venue_terms[account.venue]
        borrowed = [-leg.qty * r.seen[leg.inst] for leg in account.legs
                    if leg.role in (CASH, DEBT) and leg.qty < 0.0]  # fmt: skip
        owed = math.fsum([max(-account.cash, 0.0), *borrowed])
        equity = self.equity(account, r)
        gross = math.fsum(self._notional(leg, r) for leg in account.derivatives)
        share = slice_share(terms, min(judged.cover - owed, equity), judged.asked - owed, gross)
        taken_over = min(judged.cover - owed, equity) < terms.backstop_below * (judged.asked - owed)
        if not account.derivatives:
            if equity >= 0.0 and not self._coins(account, r):
                return None
            share = 1.0
        if share <= 0.0:
            return None

        def act(scale: float) -> None:
            self._slice(account, share * scale, share >= 1.0 and scale == 1.0, taken_over, r)

        return Proposal(account, share * gross, act)

    def _coins(self, account: Account, r: Round) -> list[Leg]:
        return [leg for leg in account.of(CASH) if not self.money[leg.inst]]

    def _slice(
        self, account: Account, share: float, whole: bool, taken_over: bool, r: Round
    ) -> None:
        """Close a share of every derivative at the price seen, and settle what that leaves."""
        terms = self.venue_terms[account.venue]
        equity = self.equity(account, r)
        legs = account.derivatives
        notional = {leg.row: self._notional(leg, r) for leg in legs}
        gross = math.fsum(notional.values())
        bankrupt = whole and equity < 0.0
        fee = min(terms.fee * share * gross, max(equity, 0.0))
        for leg in legs:
            qty = leg.qty * share
            profit = self._profit(leg, r.seen[leg.inst]) * share
            account.cash += profit
            self._remember(account, leg, qty, r)
            leg.qty = 0.0 if whole else leg.qty - qty
            account.on_edge |= terms.to_health == 1.0 and not whole
            r.sold[leg.inst].append(qty)
            self._book("closed_usd", leg.inst, notional[leg.row] * share)
            self._pay_fee(account, leg.inst, fee * notional[leg.row] / gross, r)
            if bankrupt:
                r.bankrupt[leg.inst].append(qty)
                self._be_short(r, leg.inst, -equity * notional[leg.row] / gross)
            lost = -equity * notional[leg.row] / gross if bankrupt else 0.0
            self._note(r, account, leg.inst, NONE, "slice", qty, notional[leg.row] * share, 0.0,
                       lost)  # fmt: skip
        account.cash -= fee
        acted = bool(legs)
        if whole:
            acted |= self._settle_whole(account, equity, fee, legs, notional, taken_over, r)
        elif self.options.responses.convert:
            self._sell_coins_for_debt(account, r)
        if acted:
            self._touch(account, r)
            wait = max(int(terms.cooldown_us), self.options.round_us)
            account.ready_us = r.number * self.options.round_us + wait

    def _settle_whole(
        self, account: Account, equity: float, fee: float, legs: list[Leg],
        size: dict[int, float], taken_over: bool, r: Round,
    ) -> bool:  # fmt: skip
        terms = self.venue_terms[account.venue]
        if equity < 0.0:
            if not legs:
                main = max(account.legs, key=lambda leg: self._notional(leg, r, leg.began))
                self._be_short(r, main.inst, -equity)
            self._transfer(r, accounts=-equity)
            self._empty(account, r)
            return True
        if equity <= fee:
            self._empty(account, r)
            return True
        if terms.keeps_rest and not (taken_over and terms.backstop_below > 0.0):
            return self._sell_coins_for_debt(account, r)
        main = max(legs, key=lambda leg: size[leg.row], default=account.legs[0])
        self._pay_fee(account, main.inst, equity - fee, r)
        self._empty(account, r)
        return True

    def _pay_fee(self, account: Account, inst: int, usd: float, r: Round) -> None:
        r.fees[account.venue].append(usd)
        self._book("cut_usd", inst, usd)
        self._transfer(r, accounts=-usd, insurance=usd)

    def _be_short(self, r: Round, inst: int, usd: float) -> None:
        r.short[inst].append(usd)
        self._book("short_usd", inst, usd)

    def _empty(self, account: Account, r: Round) -> None:
        """Coins go to the market, money just goes."""
        for leg in self._coins(account, r):
            r.sold[leg.inst].append(leg.qty)
            self._note(r, account, leg.inst, NONE, "coins", leg.qty, leg.qty * r.seen[leg.inst],
                       0.0, 0.0)  # fmt: skip
        for leg in account.legs:
            leg.qty = 0.0
        account.cash = 0.0
        account.status = "emptied"

    def _sell_coins_for_debt(self, account: Account, r: Round) -> bool:
        """Sell the same share of every coin, as much as money is owed."""
        money = math.fsum(
            [account.cash]
            + [leg.qty * r.seen[leg.inst] for leg in account.of(CASH) if self.money[leg.inst]]
        )
        coins = [leg for leg in self._coins(account, r) if leg.qty > 0.0]
        worth = math.fsum(leg.qty * r.seen[leg.inst] for leg in coins)
        if money >= 0.0 or worth <= 0.0:
            return False
        share = min(-money / worth, 1.0)
        for leg in coins:
            qty = leg.qty * share
            leg.qty = leg.qty - qty if share < 1.0 else 0.0
            account.cash += qty * r.seen[leg.inst]
            r.sold[leg.inst].append(qty)
            self._note(r, account, leg.inst, NONE, "coins", qty, qty * r.seen[leg.inst], 0.0, 0.0)
        return True

    # -- what owners do

    def _top_up(self, account: Account, judged: Judged, r: Round) -> bool:
        """Bring in free assets until health is the buffer, while they last."""
        free, buffer = self.free_usd[account.owner], self.options.responses.buffer
        owed = max(-account.cash, 0.0)  # paid back first: that lowers what is asked
        need = buffer * judged.asked - judged.cover
        need = need / buffer if need <= buffer * owed else owed + (need - buffer * owed)
        usd = min(need, free)
        if usd <= 0.0:
            return False
        account.on_edge = True
        account.cash += usd
        self.free_usd[account.owner] -= usd
        self._book("given_usd", account.legs[0].inst, usd)
        r.acted.add(account.row)  # the money was its owner's before
        self._note(r, account, NONE, NONE, "top up", usd, usd, 0.0, 0.0)
        return True

    def _delever(self, account: Account, judged: Judged, r: Round) -> bool:
        """Sell own collateral for debt, or close a share of all contracts, up to the buffer."""
        buffer = self.options.responses.buffer
        if judged.cover >= buffer * judged.asked:
            return False
        if account.derivatives:
            owed = max(-account.cash, 0.0)
            maintenance = judged.asked - owed
            short = buffer * judged.asked - judged.cover
            share = min(short / (buffer * maintenance), 1.0) if maintenance > 0.0 else 0.0
            for leg in account.derivatives:
                qty = leg.qty * share
                account.cash += self._profit(leg, r.seen[leg.inst]) * share
                leg.qty = leg.qty - qty if share < 1.0 else 0.0
                r.sold[leg.inst].append(qty)
                self._note(r, account, leg.inst, NONE, "delever", qty, 0.0, 0.0, 0.0)
        else:
            share = self._repay_with_collateral(account, judged, r)
        if share > 0.0:
            account.on_edge = True
            r.acted.add(account.row)
        return share > 0.0

    def _repay_with_collateral(self, account: Account, judged: Judged, r: Round) -> float:
        buffer = self.options.responses.buffer
        held, owed = account.of(COLLATERAL), account.of(DEBT)
        worth = math.fsum(leg.qty * r.seen[leg.inst] for leg in held)
        debt = math.fsum(-leg.qty * r.seen[leg.inst] for leg in owed)
        if worth <= 0.0 or debt <= 0.0:
            return 0.0
        counted = math.fsum(
            leg.weight * self.terms[leg.inst].counted(leg.qty * r.seen[leg.inst]) for leg in held
        )
        freed = buffer * judged.asked / debt - counted / worth
        usd = (buffer * judged.asked - judged.cover) / freed if freed > 0.0 else math.inf
        usd = min(usd, worth, debt)
        for leg in held:
            qty = leg.qty * usd / worth
            leg.qty -= qty
            r.sold[leg.inst].append(qty)
            self._note(r, account, leg.inst, NONE, "delever", qty, qty * r.seen[leg.inst], 0, 0)
        for leg in owed:
            leg.qty *= 1.0 - usd / debt
        return usd / worth

    def _remember(self, account: Account, leg: Leg, qty: float, r: Round) -> None:
        """For owners who unwind the other leg of a hedge: what was closed for them."""
        closed = r.closed_by.setdefault(account.owner, defaultdict(float))
        closed[self.asset[leg.inst]] += self._base(leg.inst, leg.role, qty, r)

    def _unwind(self, r: Round) -> None:
        """Where an owner lost one leg of a hedge, close as much of the opposite legs elsewhere."""
        for account in self.accounts:
            if account.row in r.acted or account.owner not in r.closed_by:
                continue
            closed = r.closed_by[account.owner]
            for leg in account.derivatives:
                lost = closed.get(self.asset[leg.inst], 0.0)
                base = self._base(leg.inst, leg.role, leg.qty, r)
                if leg.role == OPTION or lost * base >= 0.0:
                    continue
                share = min(abs(lost / base), 1.0)
                qty = leg.qty * share
                account.cash += self._profit(leg, r.seen[leg.inst]) * share
                leg.qty = leg.qty - qty if share < 1.0 else 0.0
                r.sold[leg.inst].append(qty)
                closed[self.asset[leg.inst]] = lost + base * share
                self._note(r, account, leg.inst, NONE, "unwind", qty, 0.0, 0.0, 0.0)
                r.acted.add(account.row)

    # -- who pays

    def _share_losses(self, r: Round) -> None:
        for venue in range(len(self.universe.venues)):
            self.insurance[venue] += math.fsum(r.fees.get(venue, ()))
            self._share_bad_debt(venue, r)
            self._share_shortfall(venue, r)

    def _of_venue(self, venue: int, parts: dict[int, list[float]]) -> dict[int, float]:
        return {k: math.fsum(v) for k, v in sorted(parts.items()) if self.venue[k] == venue}

    def _share_bad_debt(self, venue: int, r: Round) -> None:
        bad = self._of_venue(venue, r.bad)
        total = math.fsum(bad.values())
        if total <= 0.0:
            return
        paid = min(self.insurance[venue], total)
        self.insurance[venue] -= paid
        unpaid = (total - paid) / total
        for k, usd in bad.items():
            self.lost_supply[k] += usd * unpaid / r.seen[k]
        self._transfer(r, insurance=-paid, suppliers=paid - total)

    def _share_shortfall(self, venue: int, r: Round) -> None:
        short = self._of_venue(venue, r.short)
        total = math.fsum(short.values())
        if total <= 0.0:
            return
        insured = min(self.insurance[venue], total)
        self.insurance[venue] -= insured
        backed = min(self.backstop[venue], total - insured)
        self.backstop[venue] -= backed
        left = total - insured - backed
        paid = 0.0
        chosen = self.options.deleveraging
        how = self.venue_terms[venue].adl
        if chosen is not Deleveraging.PROFILE:
            how = ADL_PRORATA if chosen is Deleveraging.PRO_RATA else ADL_NONE
        if left > 0.0 and how == ADL_PRORATA:
            for k, usd in short.items():
                self._book("paid_usd", k, usd * left / total)
            paid = left
        elif left > 0.0 and how == ADL_PROFIT_LEVERAGE:
            ranked = {k: self._ranked(k, left / total, r) for k in short}  # before anybody pays
            paid = math.fsum(self._deleverage(k, usd * left / total, left / total, ranked[k], r)
                             for k, usd in short.items())  # fmt: skip
        self._transfer(
            r, insurance=-insured, backstop=-backed, counterparties=-paid, venue=paid - left
        )

    def _ranked(self, k: int, share: float, r: Round) -> list[tuple[float, Account, Leg, float]]:
        """Winners of instrument `k` against what bankrupt accounts held, the first to pay first."""
        wanted = math.fsum(r.bankrupt.get(k, ())) * share
        ranked = []
        for account in self.accounts:
            if account.venue != self.venue[k]:
                continue
            for leg in account.derivatives:
                profit = self._profit(leg, r.seen[k]) if leg.inst == k else 0.0
                if leg.role == OPTION or leg.qty * wanted >= 0.0 or profit <= 0.0:
                    continue
                ranked.append((-self._score(account, leg, profit, r), account, leg, profit))
        return sorted(ranked, key=lambda row: row[0])

    def _deleverage(
        self, k: int, loss: float, share: float,
        ranked: list[tuple[float, Account, Leg, float]], r: Round,
    ) -> float:  # fmt: skip
        """Close winners of instrument `k` against what bankrupt accounts held; what they pay."""
        wanted = math.fsum(r.bankrupt.get(k, ())) * share
        if wanted == 0.0:
            return 0.0
        taken: list[tuple[Account, Leg, float, float]] = []
        left = abs(wanted)
        for _, tied in groupby(ranked, key=lambda row: row[0]):
            group = list(tied)
            offered = math.fsum(abs(leg.qty) for _, _, leg, _ in group)
            part = min(left / offered, 1.0)
            if part <= 0.0:
                break
            taken += [(account, leg, part, profit * part) for _, account, leg, profit in group]
            left = max(left - offered, 0.0)
        qty = math.fsum(abs(leg.qty) * part for _, leg, part, _ in taken)
        paid = []
        for account, leg, part, profit in taken:
            closed = leg.qty * part
            pays = min(loss / qty * abs(closed), profit)
            leg.qty = 0.0 if part == 1.0 else leg.qty - closed
            account.cash += profit - pays
            r.sold[k].append(closed)  # of the other sign: it takes from what is sold
            paid.append(pays)
            account.status = "touched" if account.status == "untouched" else account.status
            self._note(r, account, k, NONE, "deleveraged", closed, abs(closed) * r.seen[k], 0.0,
                       pays)  # fmt: skip
        self._book("paid_usd", k, math.fsum(paid))
        return math.fsum(paid)

    def _score(self, account: Account, leg: Leg, profit: float, r: Round) -> float:
        equity = self.equity(account, r)
        if equity <= 0.0:
            return math.inf
        entered = abs(leg.qty) * (1.0 if leg.role == INVERSE else leg.entry)
        return profit / entered * self._notional(leg, r) / equity

    # -- the market

    def _base(self, k: int, role: int, qty: float, r: Round) -> float:
        """Units of the asset that are sold with `qty` of an instrument."""
        if role == OPTION or self.is_option[k]:
            up, down = (self._model(k, r.forward[k] * (1.0 + s), self.vol[k])
                        for s in (_STEP, -_STEP))  # fmt: skip
            return qty * (up - down) / (2.0 * _STEP * r.forward[k])
        if role == INVERSE or self.universe.inverse[k]:
            return qty / r.seen[k]
        return qty

    def _sell(self, r: Round) -> None:
        """All that was closed enters the pools at once and is executed at the average."""
        for k, parts in self.pending.pop(r.number, {}).items():
            r.sold[k] += parts
        sold = {k: math.fsum(parts) for k, parts in sorted(r.sold.items())}
        into: dict[str | int, list[float]] = defaultdict(list)
        base = {k: self._base(k, LINEAR, qty, r) for k, qty in sold.items()}
        for k, qty in base.items():
            carried = self.carried[k]
            to_spot = qty if carried.own_pool is None else qty * self.options.coupling
            if carried.own_pool is not None:
                into[carried.own_pool].append(qty - to_spot)
            if carried.spot_pool is not None:
                into[carried.spot_pool].append(to_spot * carried.spot_rate)
        entering = {pool: math.fsum(v) / self.thin[pool] for pool, v in into.items()}
        average = {
            pool: self.pools[pool].average(self.sold_into[pool], du)
            for pool, du in entering.items()
        }
        for k, qty in sold.items():
            got = math.prod(average.get(pool, 1.0) ** pull for pool, pull in self.carried[k].chain)
            self._book("sold", k, qty)
            self._book("impact_usd", k, self._impact(k, qty, base[k], got, r))
        for pool, du in entering.items():
            self.sold_into[pool] += du

    def _impact(self, k: int, qty: float, base: float, got: float, r: Round) -> float:
        if self.is_option[k]:
            return base * r.forward[k] * (1.0 - got)
        if self.universe.inverse[k]:
            return qty * (1.0 - got * r.market[k] / r.seen[k])
        return qty * (r.seen[k] - r.market[k] * got)

    def _receipt_factors(self) -> list[float]:
        """By asset: what bad debt of reserves leaves of a claim that is deposited in them."""
        return [
            max(1.0 - math.fsum(
                share * min(self.lost_supply.get(k, 0.0) / supplied, 1.0)
                for k, share, supplied in parts
            ), 1e-6)
            for parts in self.deposits
        ]  # fmt: skip

    def _read_deposits(self) -> list[list[tuple[int, float, float]]]:
        claims, universe = self.snapshot.claims, self.universe
        reserves = {
            (self.venue[k], self.asset[k]): k
            for k in range(self.count)
            if self.kind[k] == "reserve"
        }
        found: list[list[tuple[int, float, float]]] = []
        for name in universe.assets:
            worth = []
            for n in range(len(claims)):
                debtor, creditor = (claims.nodes[at[n]] for at in (claims.debtor, claims.creditor))
                at_venue = CLAIM_KINDS[claims.kind[n]] == "deposit" and debtor.startswith("venue:")
                if creditor != f"asset:{name}" or not at_venue:
                    continue
                venue = universe.venues.index(debtor.removeprefix("venue:"))
                k = reserves.get((venue, int(claims.asset[n])))
                if k is not None:
                    worth.append((k, float(claims.qty[n] * self.snapshot.market.mark[k])))
            total = math.fsum(usd for _, usd in worth)
            supplied = self._supplied()
            found.append([
                (k, usd / total, float(supplied[k])) for k, usd in worth if supplied[k] > 0.0
            ])  # fmt: skip
        return found

    def _supplied(self) -> np.ndarray:
        """What is in each reserve once those who ran took what was not lent out."""
        liquidity = self.snapshot.liquidity
        idle = np.maximum(liquidity.supplied - liquidity.borrowed, 0.0)
        return liquidity.supplied - np.minimum(self.stressed.withdrawn * liquidity.supplied, idle)

    def _recover(self, r: Round) -> None:
        options = self.options
        if options.withdrawal > 0.0:
            for k in range(self.count):
                carried = self.carried[k]
                pool = carried.own_pool if carried.own_pool is not None else carried.spot_pool
                if pool is None or self.is_option[k]:
                    continue
                fall = max(1.0 - r.market[k] / self.start[k], 0.0)
                stays = max(1.0 - options.withdrawal * fall, options.thinnest)
                self.thin[pool] = min(self.thin[pool], stays)
        for pool in self.sold_into:
            self.sold_into[pool] *= 1.0 - options.recovery

    # -- books

    def _book(self, name: str, k: int, usd: float) -> None:
        self.totals[name][k].append(usd)

    def _transfer(self, r: Round, **won: float) -> None:
        for party, usd in won.items():
            r.ledger[party].append(usd)

    def _touch(self, account: Account, r: Round, *, emptied: bool = False) -> None:
        r.acted.add(account.row)
        account.ready_us = (r.number + 1) * self.options.round_us
        if emptied or account.status == "emptied":
            account.status = "emptied"
        else:
            account.status = "touched"

    def _note(
        self, r: Round, account: Account, inst: int, other: int, reason: str, qty: float,
        value: float, repaid: float, lost: float,
    ) -> None:  # fmt: skip
        self.events.append(
            Event(r.number, account.row, inst, other, reason, qty, value, repaid, lost)
        )
