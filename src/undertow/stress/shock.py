"""One change to what things cost and how they trade.

Each shock is a value with `apply`: a `Stressed` goes in, another comes out, and the first is as it
was. What breaks venues and oracles is in `stress.outages`, what changes what is held, owed or asked
in `stress.damage` and `stress.failures`. Where a shock speaks of a place, an empty `asset`, `venue`
and `instrument` mean everywhere; together they narrow down.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, Universe
from undertow.state.universe import NONE
from undertow.stress.assumed import assumed_correlation
from undertow.stress.correlation import blended
from undertow.stress.pricing import ROOT, PricingMap
from undertow.stress.stressed import Stressed
from undertow.stress.worth import peg_deviations

MARKET = "market"  # stands for every asset that is no money and follows nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Shock(ABC):
    """One change; an `optional` one is left out where the snapshot lacks what it speaks of."""

    optional: bool = False

    @abstractmethod
    def apply(self, stressed: Stressed) -> Stressed:
        """The stressed snapshot with this shock on top.

        Raises
        ------
        StateError
            When the snapshot has nothing of a name that the shock speaks of.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Shock):
    """An asset moves by a share of its price, what follows it moves along; `market` moves all."""

    asset: str
    move: float

    def __post_init__(self) -> None:
        """Refuse a fall of everything or more."""
        _require_move(self.move)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the log of the move to the factor."""
        universe = stressed.universe
        if self.asset == MARKET:
            where: Any = market_assets(stressed.snapshot)
        else:
            where = universe.code("asset", self.asset)
        return stressed.added("factor", where, math.log1p(self.move))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBeta(Shock):
    """The market moves, and every asset by its beta in logs: (1 + move) ** beta - 1.

    Assets without a beta of their own take `beta`; money and what follows others stay put. Where
    it is optional, betas of assets that the snapshot lacks are left out one by one.
    """

    move: float
    betas: Mapping[str, float] = field(default_factory=dict)
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a fall of everything, and a beta that is no number."""
        _require_move(self.move)
        for name, beta in (*self.betas.items(), ("beta", self.beta)):
            require_within(f"the beta of {name}" if name != "beta" else name, beta, -100.0, 100.0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add beta times the log of the move to every factor."""
        universe = stressed.universe
        beta = np.where(market_assets(stressed.snapshot), self.beta, 0.0)
        for asset, own in self.betas.items():
            if self.optional and asset not in universe.assets:
                stressed = stressed.noted(f"left out: the beta of {asset}, which is not there")
                continue
            beta[universe.code("asset", asset)] = own
        return stressed.added("factor", slice(None), beta * math.log1p(self.move))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peg(Shock):
    """An asset trades at `level` of its par: of what it follows times its rate, or of a dollar.

    It ends up there from wherever it stands in the snapshot. What a failure takes off its backing
    comes on top: redeemed at 0.8, a level of 0.9 is a price of 0.72.
    """

    asset: str
    level: float

    def __post_init__(self) -> None:
        """Refuse a worthless level: a log needs a price; 1e-6 is as good as nothing."""
        require_within("level", self.level, 0.0, 1_000.0, open_low=True)

    def apply(self, stressed: Stressed) -> Stressed:
        """Set the factor so that today's deviation and the move make the level."""
        universe = stressed.universe
        k = universe.code("asset", self.asset)
        if universe.reference[k] == NONE and not universe.stable[k]:
            raise StateError(
                f"the asset {self.asset!r} follows nothing, so it has no peg to lose",
                hint="shock its price",
            )
        today = peg_deviations(stressed.snapshot)[k]
        return stressed.put("factor", k, math.log(self.level) - today)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis(Shock):
    """Instruments move against their asset: a perp under spot, a coin cheap on one venue only."""

    move: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a fall of everything or more."""
        _require_move(self.move)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the log of the move to the basis."""
        return stressed.added("basis", reach(stressed.universe, self), math.log1p(self.move))


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation(Shock):
    """Joint draws under this scenario use correlations taken part of the way to `target`.

    `target` is one number for every pair, or a whole matrix in the order of the universe's assets.
    A matrix that is none is replaced by the nearest one, and the notes say so.
    """

    weight: float
    target: float | tuple[tuple[float, ...], ...] = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight outside 0 to 1, or a single target outside -1 to 1."""
        require_within("weight", self.weight, 0.0, 1.0)
        if isinstance(self.target, int | float):
            require_within("target", self.target, -1.0, 1.0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Blend what draws would take with the target."""
        start = stressed.correlation
        if start is None:
            start = assumed_correlation(stressed.snapshot)
        found = blended(start, self.target, self.weight)
        done = replace(stressed, correlation=found.matrix)
        return done.noted(found.words) if found.words else done


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatility(Shock):
    """Implied volatility is multiplied, then shifted by so many points a year."""

    multiplier: float = 1.0
    shift: float = 0.0
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a negative multiplier."""
        require_within("multiplier", self.multiplier, 0.0, 100.0)
        require_within("shift", self.shift, -10.0, 10.0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Multiply and shift."""
        where = reach(stressed.universe, self)
        shifted = stressed.vol_shift[where] * self.multiplier + self.shift
        return stressed.scaled("vol_mult", where, self.multiplier).put("vol_shift", where, shifted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth(Shock):
    """Markets are so many times as deep as before: 0.1 leaves a tenth."""

    multiplier: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a market without any depth: no price would come out of it."""
        require_within("multiplier", self.multiplier, 0.0, 1_000.0, open_low=True)

    def apply(self, stressed: Stressed) -> Stressed:
        """Multiply the depth."""
        return stressed.scaled("depth_mult", reach(stressed.universe, self), self.multiplier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Shock):
    """Borrowers of reserves pay more per hour than they did, for some hours."""

    per_hour: float
    hours: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a rate or a span that is no number."""
        _require_spell(self.per_hour, self.hours)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the rate to what is lent."""
        return _charge(stressed, self, ("reserve", "share"), self.per_hour, self.hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Funding(Shock):
    """Longs of perps pay more per hour than they did (shorts where negative), for some hours."""

    per_hour: float
    hours: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a rate or a span that is no number."""
        _require_spell(self.per_hour, self.hours)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the rate to perps."""
        return _charge(stressed, self, ("perp",), self.per_hour, self.hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRun(Shock):
    """Suppliers of reserves take out a share of what is supplied."""

    share: float
    asset: str = ""
    venue: str = ""
    instrument: str = ""

    def __post_init__(self) -> None:
        """Refuse a share outside 0 to 1, and a run on everything at once."""
        require_within("share", self.share, 0.0, 1.0)
        if not (self.asset or self.venue or self.instrument):
            raise StateError("a run needs an asset, a venue or an instrument to run on")

    def apply(self, stressed: Stressed) -> Stressed:
        """Take a share of what is left."""
        where = reach(stressed.universe, self, ("reserve", "share"))
        left = 1.0 - (1.0 - stressed.withdrawn[where]) * (1.0 - self.share)
        return stressed.put("withdrawn", where, left)


def market_assets(snapshot: Snapshot) -> BoolColumn:
    """By asset: whether it moves with the market of its own accord: no money, hung on nothing."""
    alone: BoolColumn = (PricingMap.of(snapshot).hangs == ROOT) & ~snapshot.universe.stable
    return alone


def reach(universe: Universe, place: Any, kinds: tuple[str, ...] = ()) -> BoolColumn:
    """Which instruments a shock speaks of, by its `asset`, `venue` and `instrument`.

    Raises
    ------
    StateError
        When a name is unknown, or nothing is left of what the names say together.
    """
    where = np.ones(len(universe.instruments), dtype=np.bool_)
    for what, column in (("asset", universe.asset_of), ("venue", universe.venue_of),
                         ("instrument", np.arange(len(where)))):  # fmt: skip
        name = getattr(place, what)
        if name:
            where &= column == universe.code(what, name)
    if kinds:
        where &= np.isin(universe.kind, [schema.INSTRUMENT_KINDS.index(kind) for kind in kinds])
    if not where.any():
        named = [f"{w} {n!r}" for w in ("asset", "venue", "instrument") if (n := getattr(place, w))]
        sort = f"{' or '.join(kinds)} " if kinds else ""
        raise StateError(f"there is no {sort}instrument of {' and '.join(named) or 'any kind'}")
    return where


def require_within(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Refuse what is no number or outside its range, naming it, its value and the range."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number:
        raise StateError(f"{name} was {value!r}, a {type(value).__name__}; it must be a number")
    above = value > low if open_low else value >= low
    if not (above and value <= high and math.isfinite(value)):
        least = f"{'above' if open_low else 'at least'} {low:g}"
        most = "" if math.isinf(high) else f" and at most {high:g}"
        raise StateError(f"{name} was {value}; it must be {least}{most}")


def near(name: str, names: tuple[str, ...]) -> str:
    """A hint: the names nearest to one that is unknown."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"there are {', '.join(names[:8])}" if names else "nothing of the kind is known"


def _require_move(move: float) -> None:
    if not -1.0 < move <= 1_000.0:
        raise StateError(
            f"move was {move}; it must lie above -1, which is a fall of everything",
            hint="moves are fractions of the price: -0.43 for a fall of 43 %",
        )


def _require_spell(per_hour: float, hours: float) -> None:
    require_within("per_hour", per_hour, -1.0, 1.0)
    require_within("hours", hours, 0.0, 24.0 * 365.0, open_low=True)


def _charge(
    stressed: Stressed, place: Any, kinds: tuple[str, ...], per_hour: float, hours: float
) -> Stressed:
    """Two spells on one instrument last as long as the longer, and cost what both cost."""
    where = reach(stressed.universe, place, kinds)
    cost = stressed.rate_shock[where] * stressed.rate_hours[where] + per_hour * hours
    longest = np.maximum(stressed.rate_hours[where], hours)
    return stressed.put("rate_shock", where, cost / longest).put("rate_hours", where, longest)
