"""Which ways losses may travel, and what has to be assumed where nobody says.

`fire_sales` and `receipts` are the cascade engine's own channels; with these two alone the result
is the plain cascade, to the bit. The other four are closed around it, pass by pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from undertow.errors import StateError
from undertow.stress.shock import near, require_within


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """A switch for each way; all on unless told otherwise."""

    fire_sales: bool = True  # what is closed is sold, and the sale moves prices
    claims: bool = True  # who cannot pay what it owes pays less, and tokens behind it are cut
    receipts: bool = True  # what a reserve lost cuts the tokens that deposit there
    backing: bool = True  # what lost backing trades at a discount
    funding: bool = True  # suppliers run, what is lent is locked, borrowing gets dearer
    dependence: bool = True  # what hangs on an oracle, bridge, keeper, issuer or chain that failed

    def __post_init__(self) -> None:
        """Refuse what is no switch."""
        for each in fields(self):
            if not isinstance(getattr(self, each.name), bool):
                raise StateError(f"{each.name} was {getattr(self, each.name)!r}; it is on or off")

    @classmethod
    def only(cls, *names: str) -> Channels:
        """These on, all others off.

        Raises
        ------
        StateError
            When there is no channel of a name; the message offers the nearest.
        """
        for name in names:
            if name not in CHANNELS:
                raise StateError(f"no channel is called {name!r}", hint=near(name, CHANNELS))
        return cls(**{name: name in names for name in CHANNELS})

    def without(self, *names: str) -> Channels:
        """The same with these off."""
        known = Channels.only(*names)
        return replace(self, **{name: False for name in CHANNELS if getattr(known, name)})

    @property
    def on(self) -> tuple[str, ...]:
        """Names of those that are on, in the order in which they act."""
        return tuple(name for name in CHANNELS if getattr(self, name))

    @property
    def outer(self) -> tuple[str, ...]:
        """Those on that the engine does not follow by itself within a cascade."""
        return tuple(name for name in OUTER if getattr(self, name))


# In the order in which they act within a pass.
CHANNELS = ("dependence", "fire_sales", "claims", "receipts", "backing", "funding")
OUTER = ("dependence", "claims", "backing", "funding")
PLAIN = Channels.only("fire_sales", "receipts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a careful person would take where nobody says; every number of it is modelled."""

    # claims
    keep_assets: float = 1.0  # share of its own assets that who defaults still pays with
    keep_received: float = 1.0  # the same of what it receives; below 1 default itself costs
    capital: float = 0.05  # buffer over what is owed, of keepers and owners outside the book
    known: Mapping[str, float] = field(default_factory=dict)  # USD of buffer of a party, by name
    # backing
    elasticity: float = 1.0  # log discount of the price per log of what is still backed
    furthest: float = 0.9  # a discount goes no further
    ratios: Mapping[str, float] = field(default_factory=dict)  # backing over par, by asset, found
    # funding
    run: float = 5.0  # share of suppliers who leave per share of the reserve that is lost
    hours: float = 24.0  # how long dearer borrowing lasts
    optimal: float = 0.9  # of venues whose rules do not say: kink, base and slopes a year
    base_rate: float = 0.0
    slope1: float = 0.06
    slope2: float = 0.6
    # dependence
    recovery: float = 0.0  # of what who failed owes
    chain_hours: float = 24.0  # how long a failed chain stands still
    # valuation
    volatility: float = 0.2  # of what nodes have outside, over the horizon of the ex-ante mark

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, low, high in (
            ("keep_assets", 0.0, 1.0), ("keep_received", 0.0, 1.0), ("capital", 0.0, 10.0),
            ("elasticity", 0.0, 100.0), ("furthest", 0.0, 0.999), ("run", 0.0, 1e6),
            ("hours", 1e-6, 24.0 * 365.0), ("optimal", 1e-6, 1.0), ("base_rate", 0.0, 10.0),
            ("slope1", 0.0, 100.0), ("slope2", 0.0, 100.0), ("recovery", 0.0, 1.0),
            ("chain_hours", 1e-6, 24.0 * 365.0), ("volatility", 1e-6, 10.0),
        ):  # fmt: skip
            require_within(name, getattr(self, name), low, high)
        for name, usd in self.known.items():
            require_within(f"known[{name!r}]", usd, -math.inf)
        for name, ratio in self.ratios.items():
            require_within(f"ratios[{name!r}]", ratio, 0.0, 1_000.0, open_low=True)
