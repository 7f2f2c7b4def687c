"""The mechanisms of real venues, dated, as data.

A profile says how a venue judges an account: which price maintenance is asked at, what rounds
where, which constants the protocol itself fixes. Numbers that governance or a risk desk moves
(thresholds, bonuses, brackets, caps) are not here but in the risk parameters of a date; a number
that stands here is the default under them. One TOML file a venue, one `[[version]]` a change of
rules. Each version says which of its results are exact (at the functions for one account, given
the rules) and which are approximated, and why; also where `margins` of a whole book differs.
"""

from __future__ import annotations

import datetime as dt
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from importlib.resources import files
from typing import Any, TypeVar

from undertow.errors import RuleError
from undertow.kernels import closing as kernel
from undertow.rules import interest
from undertow.rules.lending import Rounding
from undertow.rules.single import Basis

T = TypeVar("T")


class Shape(Enum):
    """What kind of rules a venue has."""

    LENDING = "lending"
    PERP = "perp"


class Compounding(Enum):
    """How a debt index grows between two touches; see `rules.interest`."""

    LINEAR = "linear"
    TAYLOR = "taylor"
    BINOMIAL = "binomial"
    EXACT = "exact"
    NONE = "none"  # no interest, or none that the venue accrues itself


class Mechanism(Enum):
    """What a venue does to an account that it closes; see `kernels.closing`."""

    PAIR = "pair"  # one debt is repaid against one collateral
    WHOLE = "whole"  # all debt against all collateral
    BANDS = "bands"  # collateral is converted along a ladder of prices
    SLICES = "slices"  # shares of all derivatives

    @property
    def code(self) -> int:
        """The kernel's number for it."""
        return {"pair": kernel.PAIR, "whole": kernel.WHOLE, "bands": kernel.BANDS,
                "slices": kernel.SLICES}[self.value]  # fmt: skip


class Deleveraging(Enum):
    """Who pays for a loss that no fund covers."""

    NONE = "none"  # nobody but the venue
    PROFIT_LEVERAGE = "profit_leverage"  # the highest profit times leverage is closed first
    PRORATA = "prorata"  # every winner, in proportion, without being closed

    @property
    def code(self) -> int:
        """The kernel's number for it."""
        return {"none": kernel.ADL_NONE, "profit_leverage": kernel.ADL_PROFIT_LEVERAGE,
                "prorata": kernel.ADL_PRORATA}[self.value]  # fmt: skip


_GROWTH: Mapping[Compounding, Callable[[float, float], float]] = {
    Compounding.LINEAR: interest.linear_factor,
    Compounding.TAYLOR: interest.taylor_factor,
    Compounding.BINOMIAL: interest.binomial_factor,
    Compounding.EXACT: lambda rate, seconds: 1.0 + interest.compounded_rate(rate, seconds),
    Compounding.NONE: lambda rate, seconds: 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LendingRules:
    """How a lender judges."""

    rounds: bool = True  # collateral down, debt up, in the least unit of the base currency
    share_quantum: float | None = None  # averages are rounded down to this share
    average_first: bool = False  # health from the rounded average threshold
    categories: bool = False  # accounts may choose an asset category with terms of its own
    compounding: Compounding = Compounding.TAYLOR
    virtual_assets: float = 0.0  # raw units
    virtual_shares: float = 0.0
    incentive_cursor: float = 0.0
    incentive_cap: float = 1.0  # what a liquidator takes per unit repaid, at most
    minimum_ratio: float | None = None  # collateral over debt, where a venue judges by it
    critical_ratio: float | None = None
    liquidation_reserve: float = 0.0  # part of each debt that pays for closing it

    def rounding(self, quantum: float | None = None) -> Rounding:
        """How amounts and averages round, `quantum` being the least unit of the amounts given."""
        return Rounding(quantum if self.rounds else None, self.share_quantum, self.average_first)

    def growth(self, rate: float, seconds: float) -> float:
        """Factor by which a debt index grows over a span without a touch, at a yearly rate."""
        return _GROWTH[self.compounding](rate, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerpRules:
    """How a perp venue judges."""

    maintenance_basis: Basis = Basis.TESTED
    closing_fee: bool = False  # the taker fee of the exit is asked for on top
    cross: bool = True
    isolated: bool = True
    maintenance_of_initial: float | None = None  # maintenance over initial, where that is the rule
    open_interest_scaling: bool = False  # what is asked to open rises with the open interest
    fraction_quantum: float | None = None  # margin fractions and weights are rounded down to this
    margin_quantum: float | None = None  # margins are rounded up to this, in USD
    size_premium: bool = False  # weights move with the square root of size
    bankruptcy_adjustment: float = 1.0  # of the rating of an account that is being closed
    spread_to_maintenance: float = 0.0  # of its offers under the oracle price, at a rating of 1

    def exit_fee(self, taker_fee: float) -> float:
        """Share of notional that is asked on top of maintenance: the taker fee, or nothing."""
        return taker_fee if self.closing_fee else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRules:
    """How a portfolio margin group is repriced."""

    price_moves: tuple[float, ...]
    vol_moves: tuple[float, ...]  # each is paired with each price move
    tail_moves: tuple[float, ...] = ()  # far moves, at the highest volatility move
    tail_counted: float = 1.0  # share of a tail loss that is asked for
    vol_reference_days: float = 30.0
    vol_near_power: float = 0.0  # for expiries nearer than the reference
    vol_far_power: float = 0.0
    add_on: float = 0.0  # share of notional of straight legs and short options

    def __post_init__(self) -> None:
        """Refuse an empty grid, and a price or a volatility that would fall below nothing."""
        if not self.price_moves or not self.vol_moves:
            raise RuleError("a grid needs at least one price move and one volatility move")
        if min(*self.price_moves, *self.vol_moves, *self.tail_moves, 0.0) <= -1.0:
            raise RuleError("a grid move must lie above -1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingRules:
    """How a venue closes an account; `kernels.closing` says what each number does.

    `close_factor`, `target_health`, `bonus`, `bonus_fee`, `fee` and `gas_usd` are defaults under
    the risk parameters of a date.
    """

    mechanism: Mechanism
    bonus: float = 0.0  # of a collateral, taken per unit repaid
    bonus_fee: float = 0.0  # share of the bonus that is the protocol's
    gas_usd: float = 0.0
    close_factor: float = 1.0
    full_below: float = 0.0
    small_usd: float = 0.0
    leftover_usd: float = 0.0
    of_all_debt: bool = False
    target_health: float = 0.0
    bonus_start: float = 1.0
    bonus_full_at: float = 1.0
    deficit: bool = False
    penalty: float = 0.0
    seize_all: bool = False
    returns_surplus: bool = False
    caller_share: float = 0.0  # of the collateral, to whoever triggers the closing
    delay_us: int = 0
    bands_amplification: float = 2.0
    bands_count: float = 1.0
    loan_discount: float = 0.0
    bands_loss: float = 0.0
    slice: float = 1.0
    slice_above_usd: float = 0.0
    cooldown_us: int = 0
    backstop_below: float = 0.0
    to_health: float = 0.0  # health that a closing restores; 0.0 where it takes slices
    fee: float = 0.0
    keeps_rest: bool = False
    adl: Deleveraging = Deleveraging.NONE

    def __post_init__(self) -> None:
        """Refuse rules under which nothing could be closed, or nothing repaired."""
        if 0.0 < self.target_health < 1.0:
            raise RuleError(
                f"target_health was {self.target_health}; it is 1 or more, or 0 for none"
            )
        if self.close_factor < 1.0 and self.leftover_usd > self.small_usd:
            raise RuleError(
                f"leftover_usd was {self.leftover_usd} and small_usd {self.small_usd}; a pair "
                "worth between them could be closed neither in part nor whole"
            )
        if self.seize_all and self.returns_surplus:
            raise RuleError("collateral is seized all or taken against a credit, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The rules of one venue from one date on."""

    name: str
    shape: Shape
    since: dt.date
    exact: tuple[str, ...]
    approximated: tuple[str, ...]
    sources: tuple[str, ...]
    lending: LendingRules | None = None
    perp: PerpRules | None = None
    grid: GridRules | None = None
    closing: ClosingRules | None = None  # None: nothing is closed here


# name -> (least, most), ends included, of every number that could be impossible
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "to_health": (0.0, 2.0),
    "share_quantum": (1e-18, 0.01),
    "virtual_assets": (0.0, math.inf),
    "virtual_shares": (0.0, math.inf),
    "incentive_cursor": (0.0, 1.0),
    "incentive_cap": (1.0, 2.0),
    "minimum_ratio": (1.0, 100.0),
    "critical_ratio": (1.0, 100.0),
    "liquidation_reserve": (0.0, math.inf),
    "maintenance_of_initial": (1e-6, 1.0),
    "fraction_quantum": (1e-18, 0.01),
    "margin_quantum": (1e-18, 1.0),
    "bankruptcy_adjustment": (1.0, math.inf),
    "spread_to_maintenance": (0.0, 1.0),
    "tail_counted": (0.0, 1.0),
    "vol_reference_days": (1e-6, math.inf),
    "vol_near_power": (0.0, 1.0),
    "vol_far_power": (0.0, 1.0),
    "add_on": (0.0, 1.0),
    "bonus": (0.0, 1.0),
    "bonus_fee": (0.0, 1.0),
    "gas_usd": (0.0, 1e6),
    "close_factor": (1e-6, 1.0),
    "full_below": (0.0, 1.0),
    "small_usd": (0.0, math.inf),
    "leftover_usd": (0.0, math.inf),
    "target_health": (0.0, 10.0),
    "bonus_start": (0.0, 1.0),
    "bonus_full_at": (0.0, 1.0),
    "penalty": (0.0, 1.0),
    "caller_share": (0.0, 0.5),
    "delay_us": (0, 10**12),
    "bands_amplification": (1.01, 1e5),
    "bands_count": (1.0, 1e3),
    "loan_discount": (0.0, 0.99),
    "bands_loss": (0.0, 0.99),
    "slice": (1e-6, 1.0),
    "slice_above_usd": (0.0, math.inf),
    "cooldown_us": (0, 10**12),
    "backstop_below": (0.0, 1.0),
    "fee": (0.0, 0.5),
}
# which shape of rules each mechanism closes
_CLOSES = {
    Mechanism.PAIR: Shape.LENDING,
    Mechanism.WHOLE: Shape.LENDING,
    Mechanism.BANDS: Shape.LENDING,
    Mechanism.SLICES: Shape.PERP,
}


def profile_names() -> tuple[str, ...]:
    """Every venue with a packaged profile, and the generic ones, in order."""
    folder = files("undertow.rules") / "profiles"
    return tuple(
        sorted(entry.name[: -len(".toml")] for entry in folder.iterdir()
               if entry.name.endswith(".toml"))
    )  # fmt: skip


def load_profile(name: str, as_of: dt.date | dt.datetime | None = None) -> Profile:
    """Rules of a venue as they stood on a day; the newest without one.

    Raises
    ------
    RuleError
        No profile of that name, or no version of it that early.
    """
    if name not in profile_names():
        raise RuleError(
            f"no profile is called {name!r}", hint=f"there are {', '.join(profile_names())}"
        )
    text = (files("undertow.rules") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    versions = read_profiles(text, source=f"{name}.toml")
    day = as_of.date() if isinstance(as_of, dt.datetime) else as_of
    valid = [version for version in versions if day is None or version.since <= day]
    if not valid:
        raise RuleError(f"profile {name} starts on {versions[0].since}, after {day}")
    return valid[-1]


def read_profiles(text: str, *, source: str = "profile") -> tuple[Profile, ...]:
    """All versions in a profile's TOML, oldest first.

    Raises
    ------
    RuleError
        Not TOML, an unknown or missing key, a value of the wrong type or an impossible one.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RuleError(f"not valid TOML: {exc}", source=source) from exc
    _only(data, {"name", "shape", "version"}, source)
    versions = data.get("version")
    if not isinstance(versions, list) or not versions:
        raise RuleError("a profile needs at least one [[version]]", source=source)
    head: dict[str, Any] = {key: data[key] for key in ("name", "shape") if key in data}
    profiles = tuple(_built(Profile, {**head, **version}, source) for version in versions)
    days = [profile.since for profile in profiles]
    if days != sorted(set(days)):
        raise RuleError(f"versions must stand oldest first, one a day, not {days}", source=source)
    for profile in profiles:
        _check(profile, source)
    return profiles


def _check(profile: Profile, source: str) -> None:
    rules = profile.lending if profile.shape is Shape.LENDING else profile.perp
    other = profile.perp if profile.shape is Shape.LENDING else profile.lending
    if rules is None or other is not None:
        table = profile.shape.value
        raise RuleError(
            f"shape {table} needs the table version.{table} and no other", source=source
        )
    if not profile.sources or not (profile.exact or profile.approximated):
        raise RuleError(
            "a version cites its sources and says what is exact or approximated", source=source
        )
    for group in (profile.lending, profile.perp, profile.grid, profile.closing):
        if group is None:
            continue
        for field in fields(group):
            value = getattr(group, field.name)
            least, most = _BOUNDS.get(field.name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not least <= value <= most:
                raise RuleError(
                    f"{field.name} was {value}; it lies in {least:g} to {most:g}", source=source
                )
    if profile.closing and _CLOSES[profile.closing.mechanism] is not profile.shape:
        mechanism = profile.closing.mechanism.value
        raise RuleError(
            f"mechanism {mechanism} closes no account of shape {profile.shape.value}", source=source
        )
    lending = profile.lending
    if lending and lending.critical_ratio is not None:
        minimum = math.inf if lending.minimum_ratio is None else lending.minimum_ratio
        if lending.critical_ratio < minimum:
            raise RuleError(
                "critical_ratio needs a minimum_ratio that is not above it", source=source
            )


def _only(table: Mapping[str, Any], known: set[str], source: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise RuleError(
            f"unknown {'keys' if len(unknown) > 1 else 'key'} {', '.join(unknown)}",
            source=source,
            hint=f"known are {', '.join(sorted(known))}",
        )


def _built(kind: type[T], table: Mapping[str, Any], source: str) -> T:
    """A dataclass from a TOML table: every key known, every value of its field's type."""
    hints = typing.get_type_hints(kind)
    _only(table, set(hints), source)
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # every kind here is a dataclass
        if field.name in table:
            values[field.name] = _typed(hints[field.name], table[field.name], field.name, source)
        elif field.default is MISSING:
            raise RuleError(f"key {field.name} is missing", source=source)
    try:
        return kind(**values)
    except RuleError as exc:
        raise RuleError(exc.message, source=source) from exc


def _typed(hint: Any, value: Any, key: str, source: str) -> Any:
    if isinstance(hint, types.UnionType):  # X | None: TOML has no null, so it is X
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(typing.get_args(hint)[0], item, key, source) for item in value)
    if isinstance(hint, type):
        if issubclass(hint, Enum) and value in {choice.value for choice in hint}:
            return hint(value)
        if isinstance(value, dict) and hint in (LendingRules, PerpRules, GridRules, ClosingRules):
            return _built(hint, value, source)
        if hint is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if type(value) is hint:
            return value
    wanted = [c.value for c in hint] if isinstance(hint, type) and issubclass(hint, Enum) else hint
    raise RuleError(f"{key} was {value!r}; it may be {wanted}", source=source)
