"""What can be planted in a snapshot: a hub, a loop, a chain of wrappers, a crowd.

Planted accounts come on top of the population, which is the same with and without them.
"""

from __future__ import annotations

from dataclasses import dataclass

from undertow.errors import StateError
from undertow.worlds.catalogue import AssetFacts
from undertow.worlds.names import Listing
from undertow.worlds.seeds import require_known, require_within

LENDER = "aave-v3"


@dataclass(frozen=True, slots=True)
class Hub:
    """A custodian that owes `share` of the value of all claims."""

    share: float = 0.4

    def __post_init__(self) -> None:
        """Refuse a share that no finite claim can have."""
        require_within("hub.share", self.share, 0.0, 1.0, open_low=True, open_high=True)


@dataclass(frozen=True, slots=True)
class Loop:
    """A vault whose shares back the loans that fill it: `base` deposited, `rho` lent on."""

    base: float = 1_000_000.0
    rho: float = 0.75
    asset: str = "USDC"

    def __post_init__(self) -> None:
        """Refuse a loop that has no end or that its lender would close at once."""
        require_within("loop.base", self.base, 0.0, open_low=True)
        require_within("loop.rho", self.rho, 0.0, 0.96, open_low=True)

    @property
    def share_asset(self) -> str:
        """Key of the vault's share."""
        return f"v{self.asset}"

    @property
    def threshold(self) -> float:
        """Liquidation threshold of the share: half way from `rho` to 1."""
        return (1.0 + self.rho) / 2.0


@dataclass(frozen=True, slots=True)
class Chain:
    """`depth` wrappers on top of each other, each worth `rate` of the one below."""

    depth: int = 3
    base: str = "ETH"
    rate: float = 1.05
    supply: float = 1_000.0  # of the top
    locked: float = 0.8  # share of each wrapper that the next one holds

    def __post_init__(self) -> None:
        """Refuse chains that cannot be built."""
        require_within("chain.depth", self.depth, 1, 12)
        require_within("chain.rate", self.rate, 0.0, 100.0, open_low=True)
        require_within("chain.supply", self.supply, 0.0, open_low=True)
        require_within("chain.locked", self.locked, 0.0, 1.0, open_low=True)

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Keys of the wrappers, the lowest first."""
        return tuple(f"{'w' * k}{self.base}" for k in range(1, self.depth + 1))


@dataclass(frozen=True, slots=True)
class Crowd:
    """`share` of all accounts on one side of one perp, to be closed within one narrow band."""

    share: float = 0.1
    asset: str = "ETH"
    side: str = "long"
    venue: str = "hyperliquid"
    distance: float = 0.12  # move of the price to the centre of the band
    band: float = 0.02  # width of the band, as a share of the price

    def __post_init__(self) -> None:
        """Refuse crowds that cannot stand."""
        require_within("crowd.share", self.share, 0.0, 1.0, open_low=True, open_high=True)
        require_within("crowd.distance", self.distance, 0.0, 0.9, open_low=True)
        widest = 2.0 * min(self.distance, 1.0 - self.distance)
        require_within("crowd.band", self.band, 0.0, 0.99 * widest)
        if self.side not in ("long", "short"):
            raise StateError(f"crowd.side was {self.side!r}; it must be long or short")


@dataclass(frozen=True, slots=True)
class Plants:
    """Everything that can be planted in a snapshot; None leaves it out."""

    hub: Hub | None = None
    loop: Loop | None = None
    chain: Chain | None = None
    crowd: Crowd | None = None

    def assets(self, known: dict[str, AssetFacts]) -> tuple[AssetFacts, ...]:
        """Assets beyond the catalogue."""
        extra: list[AssetFacts] = []
        if self.loop:
            require_known("asset", self.loop.asset, tuple(known))
            extra.append(_wrapper(self.loop.share_asset, self.loop.asset, 1.0, "vault_share"))
        if self.chain:
            require_known("asset", self.chain.base, tuple(known))
            below = self.chain.base
            for k, key in enumerate(self.chain.wrappers):
                kind = "wrapped" if k == 0 else "vault_share"
                extra.append(_wrapper(key, below, self.chain.rate, kind))
                below = key
        return tuple(extra)

    @property
    def listings(self) -> tuple[Listing, ...]:
        """Instruments beyond the catalogue."""
        listed = []
        if self.loop:
            share = self.loop.share_asset
            listed.append(Listing(LENDER, share, "share", share))
        if self.chain:
            kind = "reserve" if self.chain.depth == 1 else "share"
            top = self.chain.wrappers[-1]
            listed.append(Listing(LENDER, top, kind, top))
        return tuple(listed)

    @property
    def thresholds(self) -> dict[str, float]:
        """Liquidation thresholds of those instruments."""
        found = {}
        if self.loop:
            found[f"{LENDER}:{self.loop.share_asset}"] = self.loop.threshold
        if self.chain:
            found[f"{LENDER}:{self.chain.wrappers[-1]}"] = 0.72
        return found


def _wrapper(key: str, below: str, rate: float, kind: str) -> AssetFacts:
    return AssetFacts(
        key, kind, "planted", 0.0, 0.02, 0.0, below, rate, issuer=f"{key} issuer", custodian=None
    )
