"""How a cascade runs, apart from the shock: what sales do to prices, and who else acts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from undertow.errors import StateError
from undertow.kernels import impact


class Impact(Enum):
    """What forced sales do to a price."""

    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"
    SQUARE_ROOT = "square-root"
    CONSTANT_PRODUCT = "constant-product"
    LADDER = "ladder"

    @property
    def code(self) -> int:
        """The kernels' number for it."""
        return _CODES[self]


_CODES = {
    Impact.NONE: impact.NONE,
    Impact.LINEAR: impact.LINEAR,
    Impact.EXPONENTIAL: impact.EXPONENTIAL,
    Impact.SQUARE_ROOT: impact.SQRT,
    Impact.CONSTANT_PRODUCT: impact.CONSTANT_PRODUCT,
    Impact.LADDER: impact.LADDER,
}


class Deleveraging(Enum):
    """Which winners pay once a venue's funds are empty."""

    PROFILE = "profile"  # as the venue's rules say
    PRO_RATA = "pro-rata"  # all of them, by profit; nobody's position is closed
    NONE = "none"  # nobody: the venue is left with the loss


class End(Enum):
    """Which end of the band of a fitted rate counts."""

    LOW = "low"
    MIDDLE = "middle"  # the fit itself
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """What owners do when they are called; all of it off unless asked for."""

    top_up: bool = False  # bring in free assets
    delever: bool = False  # sell collateral themselves, without a liquidator's bonus
    unwind: bool = False  # close the other leg of a hedge that lost one
    convert: bool = False  # sell coins where money is owed
    buffer: float = 1.05  # health that they restore
    willing: float = 1.0  # share that they do, each round, of what they could
    fitted: End | None = (
        None  # each owner as often as the packaged rates say, not as `willing` does
    )

    @property
    def any(self) -> bool:
        """Whether owners do anything at all."""
        return self.top_up or self.delever or self.unwind or self.convert


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a careful person would pick, unless told otherwise."""

    impact: Impact = Impact.EXPONENTIAL
    # Share of a price that sales never go below (linear, exponential); purchases stop at 1 / floor.
    floor: float = 0.05
    root: float = 1.0  # the constant of the square root; of order one
    clip: float = 0.01  # share of a day's volume within which the root is a line
    coupling: float = 0.5  # share of a contract's forced sale that arbitrage takes to spot
    recovery: float = 0.0  # share of a displacement that is gone a round later
    withdrawal: float = 0.0  # share of depth that leaves per unit of relative fall
    thinnest: float = 0.02  # share of depth that stays
    oracles: bool = True  # lags and modes as the venues have them; else all read the market
    capacity: bool = False  # liquidators can carry only so much in a round
    profitable: bool = False  # nobody liquidates at a loss
    deleveraging: Deleveraging = Deleveraging.PROFILE
    responses: Responses = field(default_factory=Responses)
    round_us: int = 60_000_000
    max_rounds: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, low, high in (
            ("floor", 0.0, 0.999), ("root", 0.0, 100.0), ("clip", 1e-9, 1.0),
            ("coupling", 0.0, 1.0), ("recovery", 0.0, 0.999), ("withdrawal", 0.0, 100.0),
            ("thinnest", 1e-6, 1.0),
            ("round_us", 1, 10**15), ("max_rounds", 1, 100_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise StateError(f"{name} was {value}; it may be {low:g} to {high:g}")
        if not 1.0 <= self.responses.buffer <= 10.0:
            raise StateError(f"buffer was {self.responses.buffer}; it may be 1 to 10")
        if not 0.0 <= self.responses.willing <= 1.0:
            raise StateError(f"willing was {self.responses.willing}; it may be 0 to 1")
        if self.responses.fitted is not None and not self.responses.any:
            raise StateError(
                f"fitted was {self.responses.fitted.value!r}, and owners do nothing",
                hint="switch on top_up or delever, or both",
            )
