"""What the venues of a world ask: thresholds, haircuts, brackets, oracles; as tables and columns.

The columns are what positions are laid out by, so that an account stands where it was meant to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.rules.profile import load_profile
from undertow.state import FloatColumn, FloatMatrix
from undertow.worlds.catalogue import SPOT, AssetFacts, VenueFacts
from undertow.worlds.frames import from_tuples
from undertow.worlds.names import SINCE_US, Names, lendable

TIERS = 5
_TIER_FLOORS = (0.0, 50_000.0, 500_000.0, 5_000_000.0, 50_000_000.0)
_TIER_RATES = (1.0, 1.5, 2.5, 5.0, 12.5)  # of the first tier's
_HIGHEST_RATE = 0.5
TAKER_FEE = 0.0005
ETH_CATEGORY = "eth-correlated"
_CATEGORY_TERMS = {"ltv": 0.93, "liquidation_threshold": 0.95, "liquidation_bonus": 0.01}
# Lenders of whom no list of reserves says what a liquidation takes: their rules do.
_BY_RULE = ("liquity-v1", "morpho-blue")
_PARAM = ("venue", "instrument", "category", "account", "name", "value")
Param = tuple[str, str | None, str | None, int | None, str, float]


@dataclass(frozen=True, eq=False)
class Terms:
    """The venues' numbers by instrument, and the rows that publish them."""

    names: Names
    threshold: FloatColumn  # by instrument; of a reserve or a share
    haircut: FloatColumn  # by instrument; of cash
    rate: FloatMatrix  # (instruments, TIERS): maintenance of a derivative
    amount: FloatMatrix  # (instruments, TIERS): what is deducted
    fee: FloatColumn  # by instrument; what the exit of a derivative is asked for on top
    params: list[Param] = field(default_factory=list)
    brackets: pl.DataFrame = field(default_factory=pl.DataFrame)

    def maintenance(self, inst: np.ndarray, notional: FloatColumn) -> FloatColumn:
        """max_j(rate_j * notional - amount_j) + fee * notional, of each leg."""
        asked = np.zeros(len(notional))
        for tier in range(TIERS):
            np.maximum(asked, self.rate[inst, tier] * notional - self.amount[inst, tier], out=asked)
        asked += self.fee[inst] * notional
        return asked

    def risk_params(self, more: list[Param]) -> pl.DataFrame:
        """The rows of `risk_params`, with those of what was planted."""
        rows = [*self.params, *more]
        return from_tuples("risk_params", _PARAM, rows, ts=self.names.ts - SINCE_US)


def set_terms(names: Names, planted: dict[str, float]) -> Terms:
    """Terms of every venue; `planted` are thresholds of instruments beyond the catalogue."""
    count = len(names.universe.instruments)
    terms = Terms(
        names,
        threshold=np.zeros(count),
        haircut=np.zeros(count),
        rate=np.zeros((count, TIERS)),
        amount=np.zeros((count, TIERS)),
        fee=np.zeros(count),
    )
    for venue in names.venues:
        if venue.kind == "lending":
            _lend(names, venue, terms)
        else:
            _trade(names, venue, terms)
    for key, threshold in planted.items():
        inst = names.universe.code("instrument", key)
        terms.threshold[inst] = threshold
        venue_key = key.partition(":")[0]
        numbers = {"ltv": threshold - 0.01, "liquidation_threshold": threshold}
        if venue_key not in _BY_RULE:
            numbers["liquidation_bonus"] = min(0.05, (1.0 - threshold) / 2.0)
        terms.params.extend((venue_key, key, None, None, k, v) for k, v in numbers.items())
    return replace(terms, brackets=_bracket_rows(names, terms))


def market_name(collateral: str, loan: str) -> str:
    """Name of an isolated market of one collateral against one loan."""
    return f"{collateral}/{loan}"


def market_threshold(collateral: AssetFacts, loan: AssetFacts) -> float:
    """Threshold of an isolated market: the higher, the closer the two are tied."""
    if collateral.sector == "planted":
        return 0.77
    if collateral.kind == "stable" and loan.kind == "stable":
        return 0.945
    if collateral.kind == "staked" and loan.key == "ETH":
        return 0.945
    return 0.86 if collateral.kind != "native" or collateral.key == "ETH" else 0.77


def is_eth_like(facts: AssetFacts) -> bool:
    """Whether the asset is ETH or follows it, and may enter the category of those."""
    return facts.key == "ETH" or facts.kind == "staked"


def _lend(names: Names, venue: VenueFacts, terms: Terms) -> None:
    key = venue.key
    terms.params.append((key, None, None, None, "close_factor", 0.5 if "aave" in key else 1.0))
    assets = lendable(key, names.assets)
    for asset in assets:
        facts = names.assets[asset]
        name = f"{key}:{asset}"
        threshold, bonus = _reserve_terms(key, facts)
        terms.threshold[names.universe.code("instrument", name)] = threshold
        numbers = {
            "ltv": threshold - 0.03,
            "liquidation_threshold": threshold,
            "liquidation_bonus": bonus,
            "protocol_fee": 0.1,
            "reserve_factor": 0.1 if facts.money else 0.2,
            "optimal_utilisation": 0.9 if facts.money else 0.45,
            "base_rate": 0.0,
            "slope1": 0.055 if facts.money else 0.07,
            "slope2": 0.6 if facts.money else 3.0,
        }
        if key in _BY_RULE:
            del numbers["liquidation_bonus"], numbers["protocol_fee"]
        terms.params.extend((key, name, None, None, k, v) for k, v in numbers.items())
        if key == "aave-v3" and is_eth_like(facts):
            terms.params.extend(
                (key, name, ETH_CATEGORY, None, k, v) for k, v in _CATEGORY_TERMS.items()
            )
    if key == "morpho-blue":
        for collateral in assets:
            for loan in assets:
                if collateral != loan:
                    terms.params.append(
                        (key, f"{key}:{collateral}", market_name(collateral, loan), None,
                         "liquidation_threshold",
                         market_threshold(names.assets[collateral], names.assets[loan]))
                    )  # fmt: skip


def _reserve_terms(venue: str, facts: AssetFacts) -> tuple[float, float]:
    """Threshold and bonus of a reserve."""
    if venue == "liquity-v1":
        return 1.0 / 1.1, 0.0
    if venue == "morpho-blue":
        return 0.77, 0.0
    if facts.kind == "stable":
        threshold, bonus = 0.78, 0.045
    elif is_eth_like(facts):
        threshold, bonus = (0.83, 0.05) if facts.key == "ETH" else (0.80, 0.06)
    elif facts.kind == "wrapped":
        threshold, bonus = 0.78, 0.05
    else:
        threshold, bonus = 0.65 if facts.weight >= 2.0 else 0.6, 0.075
    return threshold - (0.02 if venue == "aave-v2" else 0.0), bonus


def _trade(names: Names, venue: VenueFacts, terms: Terms) -> None:
    key = venue.key
    terms.params.append((key, None, None, None, "taker_fee", TAKER_FEE))
    for inst in names.instruments(key, "cash"):
        facts = names.facts(inst)
        haircut = 0.0 if facts.kind == "stable" else 0.05 if facts.vol < 0.8 else 0.1
        terms.haircut[inst] = haircut
        terms.params.append((key, names.universe.instruments[inst], None, None, "haircut", haircut))
    inverse = names.universe.inverse
    fee = TAKER_FEE if _asks_exit_fee(venue, names.ts) else 0.0
    for kind in ("perp", "option"):
        for inst in names.instruments(key, kind):
            terms.fee[inst] = fee
            rate = venue.rate * _first_rate(names.facts(inst))
            tiers = 1 if inverse[inst] else TIERS  # coin brackets would need coin floors
            _set_tiers(terms, inst, rate, tiers)
            if kind == "perp":
                name = names.universe.instruments[inst]
                for what, value in (
                    ("initial_margin_rate", 2.0 * rate),
                    ("maintenance_margin_rate", rate),
                    ("max_leverage", 0.5 / rate),
                ):
                    terms.params.append((key, name, None, None, what, value))


def _asks_exit_fee(venue: VenueFacts, ts: int) -> bool:
    """Whether the rules of that day ask for the taker fee of the exit beside maintenance."""
    if venue.profile is None:
        return False
    day = np.datetime64(ts, "us").astype("datetime64[D]").item()
    rules = load_profile(venue.profile, day).perp
    return rules is not None and rules.closing_fee


def _first_rate(facts: AssetFacts) -> float:
    """Maintenance of the smallest positions, at the mildest venue."""
    if facts.key in ("BTC", "ETH"):
        return 0.005
    return 0.01 if facts.weight >= 2.0 else 0.02


def _set_tiers(terms: Terms, inst: int, rate: float, tiers: int) -> None:
    """amount_j = amount_(j-1) + floor_j * (rate_j - rate_(j-1)): maintenance does not jump."""
    rates = np.minimum(rate * np.array(_TIER_RATES), _HIGHEST_RATE)
    if tiers == 1:
        rates = np.full(TIERS, rate)
    terms.rate[inst] = rates
    terms.amount[inst, 1:] = np.cumsum(np.array(_TIER_FLOORS[1:]) * np.diff(rates))


def _bracket_rows(names: Names, terms: Terms) -> pl.DataFrame:
    columns = ("instrument", "tier", "min_notional", "max_notional", "rate", "amount",
               "max_leverage")  # fmt: skip
    perps = np.flatnonzero(names.universe.kind == schema.INSTRUMENT_KINDS.index("perp"))
    rows = []
    for inst in perps:
        rates, amounts = terms.rate[inst], terms.amount[inst]
        tiers: list[tuple[float, float | None, float, float]]
        if names.universe.inverse[inst]:
            tiers = [(0.0, None, rates[0], 0.0)]
        else:
            tops: list[float | None] = [*_TIER_FLOORS[1:], None]
            tiers = [(*tier,) for tier in zip(_TIER_FLOORS, tops, rates, amounts, strict=True)]
        rows += [
            (names.universe.instruments[inst], j, low, high, float(r), float(c), 0.5 / float(r))
            for j, (low, high, r, c) in enumerate(tiers)
        ]
    return from_tuples("margin_brackets", columns, rows, ts=names.ts - SINCE_US)


def oracle_rows(names: Names) -> pl.DataFrame:
    """Which price each lending venue believes: the market, or an exchange rate where tied."""
    rows = []
    universe = names.universe
    lent = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("reserve", "share")]
    for inst in np.flatnonzero(np.isin(universe.kind, lent)):
        facts = names.facts(int(inst))
        key = universe.instruments[inst]
        venue = universe.venues[universe.venue_of[inst]]
        if facts.sector in ("staked", "planted"):
            feed = f"{SPOT}:{root_of(names, facts)}/USD"
            rows.append((venue, key, "exchange_rate", feed, 0.005, 0))
        elif facts.kind == "stable":
            rows.append((venue, key, "lagged", f"{SPOT}:{facts.key}/USD", 0.0025, 60_000_000))
        else:
            rows.append((venue, key, "market", f"{SPOT}:{facts.key}/USD", 0.005, 12_000_000))
    columns = ("venue", "instrument", "mode", "feed", "deviation", "lag_us")
    return from_tuples("oracles", columns, rows, heartbeat_us=3_600_000_000, ts=names.ts - SINCE_US)


def root_of(names: Names, facts: AssetFacts) -> str:
    """The asset that another follows in the end, short of fiat money."""
    while facts.reference is not None and names.assets[facts.reference].kind != "fiat":
        facts = names.assets[facts.reference]
    return facts.key


def require_venue(names: Names, key: str, kind: str) -> VenueFacts:
    """The venue called `key`, which must be of `kind`."""
    of_kind = [venue for venue in names.venues if venue.kind == kind]
    for venue in of_kind:
        if venue.key == key:
            return venue
    raise StateError(
        f"no {kind} venue of this world is called {key!r}",
        hint=f"there are {', '.join(v.key for v in of_kind)}",
    )
