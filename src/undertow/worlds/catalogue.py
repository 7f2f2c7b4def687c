"""What a world may be made of: assets, venues, and what they are like at rest.

Tickers and rule profiles are real, so that a reader feels at home; every number is invented, of a
plausible size. The order is the order in which a world of a given size takes them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AssetFacts:
    """One asset: its price in USD, how much it moves in a year, how often it is held."""

    key: str
    kind: str
    sector: str
    price: float  # of a tied asset: worked out from its reference
    vol: float  # annualised; of a tied asset: of its deviation from the reference
    weight: float
    reference: str | None = None
    rate: float | None = None
    chain: str = "ethereum"
    issuer: str | None = None
    custodian: str | None = None

    @property
    def traded(self) -> bool:
        """Whether perps are written on it."""
        return self.kind == "native"

    @property
    def money(self) -> bool:
        """Whether it is money, or stands for money."""
        return self.sector == "money"


def _native(
    key: str, sector: str, price: float, vol: float, weight: float, chain: str = "ethereum"
) -> AssetFacts:
    return AssetFacts(key, "native", sector, price, vol, weight, chain=chain)


def _tied(key: str, kind: str, reference: str, rate: float, weight: float) -> AssetFacts:
    sector = {"staked": "staked", "wrapped": "wrapped", "stable": "money"}.get(kind, "money")
    keeper = "custodian-1" if kind == "wrapped" else None
    return AssetFacts(
        key, kind, sector, 0.0, 0.01 if kind == "stable" else 0.02, weight, reference, rate,
        issuer=f"{key} issuer", custodian=keeper,
    )  # fmt: skip


ASSETS: tuple[AssetFacts, ...] = (
    AssetFacts("USD", "fiat", "money", 1.0, 0.0, 0.0, chain="none"),
    _tied("USDC", "stable", "USD", 1.0, 30.0),
    _native("ETH", "layer-1", 3_000.0, 0.70, 30.0),
    _native("BTC", "layer-1", 90_000.0, 0.55, 25.0, "bitcoin"),
    _tied("stETH", "staked", "ETH", 1.0, 4.0),
    _tied("wstETH", "staked", "ETH", 1.20, 12.0),
    _tied("WBTC", "wrapped", "BTC", 1.0, 9.0),
    _native("SOL", "layer-1", 150.0, 0.90, 10.0, "solana"),
    _tied("USDT", "stable", "USD", 1.0, 18.0),
    _native("LINK", "infrastructure", 14.0, 0.95, 4.0),
    _tied("LUSD", "stable", "USD", 1.0, 1.0),
    _native("DOGE", "meme", 0.16, 1.10, 4.0, "dogecoin"),
    _tied("DAI", "stable", "USD", 1.0, 6.0),
    _native("ARB", "layer-2", 0.35, 1.05, 2.5, "arbitrum"),
    _native("AVAX", "layer-1", 18.0, 0.95, 2.5, "avalanche"),
    _tied("cbBTC", "wrapped", "BTC", 1.0, 4.0),
    _tied("rETH", "staked", "ETH", 1.14, 3.0),
    _native("AAVE", "defi", 190.0, 1.0, 2.0),
    _native("BNB", "layer-1", 850.0, 0.65, 3.5, "bnb"),
    _native("XRP", "payments", 2.2, 0.90, 4.0, "xrpl"),
    _native("ADA", "layer-1", 0.5, 0.95, 2.0, "cardano"),
    _native("UNI", "defi", 6.5, 1.0, 2.0),
    _tied("weETH", "staked", "ETH", 1.07, 4.0),
    _native("OP", "layer-2", 0.45, 1.05, 2.0, "optimism"),
    _native("LTC", "payments", 95.0, 0.80, 1.5, "litecoin"),
    _native("SUI", "layer-1", 2.0, 1.05, 2.5, "sui"),
    _native("HYPE", "defi", 38.0, 1.10, 3.0, "hyperliquid"),
    _native("CRV", "defi", 0.5, 1.10, 1.0),
    _native("NEAR", "layer-1", 2.1, 1.0, 1.2, "near"),
    _native("PEPE", "meme", 6.0e-6, 1.30, 1.5),
    _tied("tBTC", "wrapped", "BTC", 1.0, 1.0),
    _tied("cbETH", "staked", "ETH", 1.10, 1.5),
    _native("LDO", "defi", 0.9, 1.05, 1.0),
    _native("DOT", "layer-1", 3.0, 0.95, 1.2, "polkadot"),
    _native("ATOM", "layer-1", 3.1, 0.95, 1.0, "cosmos"),
    _native("APT", "layer-1", 3.2, 1.05, 1.0, "aptos"),
    _native("TIA", "infrastructure", 1.0, 1.15, 1.0, "celestia"),
    _native("INJ", "defi", 8.0, 1.10, 1.0, "injective"),
    _native("TON", "layer-1", 2.0, 0.95, 1.2, "ton"),
    _native("TRX", "layer-1", 0.3, 0.60, 1.2, "tron"),
    _native("BCH", "payments", 500.0, 0.80, 1.0, "bitcoin-cash"),
    _native("SEI", "layer-1", 0.19, 1.10, 0.8, "sei"),
    _native("ENA", "defi", 0.4, 1.25, 1.2),
    _native("PENDLE", "defi", 3.0, 1.15, 0.8),
    _native("GMX", "defi", 11.0, 1.05, 0.5, "arbitrum"),
    _native("SNX", "defi", 0.9, 1.10, 0.5),
    _native("COMP", "defi", 40.0, 1.0, 0.6),
    _native("FIL", "infrastructure", 1.8, 1.0, 0.8, "filecoin"),
    _native("WIF", "meme", 0.5, 1.35, 0.9, "solana"),
    _native("ORDI", "meme", 6.0, 1.30, 0.5, "bitcoin"),
    _native("RUNE", "defi", 0.9, 1.15, 0.5, "thorchain"),
    _native("GRT", "infrastructure", 0.06, 1.05, 0.5),
    _native("ONDO", "defi", 0.7, 1.10, 0.7),
    _native("FET", "infrastructure", 0.35, 1.20, 0.7),
    _native("WLD", "infrastructure", 0.8, 1.20, 0.8),
    _native("JUP", "defi", 0.4, 1.15, 0.6, "solana"),
    _native("STX", "layer-2", 0.45, 1.10, 0.5, "stacks"),
    _native("IMX", "layer-2", 0.4, 1.10, 0.5, "immutable"),
    _native("HBAR", "layer-1", 0.18, 0.95, 0.6, "hedera"),
    _native("ICP", "layer-1", 4.5, 1.0, 0.5, "internet-computer"),
    _native("ALGO", "layer-1", 0.18, 0.95, 0.4, "algorand"),
    _native("ETC", "layer-1", 16.0, 0.85, 0.5, "ethereum-classic"),
    _native("XLM", "payments", 0.3, 0.90, 0.5, "stellar"),
    _native("BONK", "meme", 1.5e-5, 1.40, 0.7, "solana"),
)


def catalogue(count: int) -> tuple[AssetFacts, ...]:
    """The first `count` assets; past the list, small coins with made-up tickers."""
    made_up = tuple(
        _native(f"TKN{k:03d}", "long-tail", 0.5 + 0.25 * (k % 16), 1.2, 0.3)
        for k in range(len(ASSETS) + 1, count + 1)
    )
    return ASSETS[:count] + made_up


@dataclass(frozen=True, slots=True)
class VenueFacts:
    """One venue: the rules that judge its accounts and what it lists."""

    key: str
    kind: str
    profile: str | None
    chain: str
    quote: str
    weight: float = 0.0
    coins: tuple[str, ...] = ()  # collateral beside the quote
    inverse: tuple[str, ...] = ()  # assets with a coin-margined perp
    modes: tuple[str, ...] = ("cross",)
    rate: float = 1.0  # maintenance against that of the mildest venue
    listed: float = 1.0  # share of the traded assets that it lists, the largest first

    @property
    def isolates(self) -> bool:
        """Whether every position has margin of its own: no account holds two contracts."""
        return self.modes == ("isolated",)


VENUES: tuple[VenueFacts, ...] = (
    VenueFacts("aave-v3", "lending", "aave-v3", "ethereum", "USD", 30.0),
    VenueFacts(
        "hyperliquid", "perp", "hyperliquid", "hyperliquid", "USDC", 25.0,
        modes=("cross", "isolated"), rate=2.5,
    ),
    VenueFacts("morpho-blue", "lending", "morpho-blue", "ethereum", "USD", 14.0),
    VenueFacts(
        "binance-usdm", "perp", "binance-usdm", "none", "USDT", 25.0,
        ("BTC", "ETH"), modes=("cross", "isolated"),
    ),
    VenueFacts(
        "deribit", "options", "generic-portfolio", "none", "USDC", 5.0, ("BTC", "ETH"),
        modes=("portfolio",), rate=1.5, listed=0.01,
    ),
    VenueFacts("liquity-v1", "lending", "liquity-v1", "ethereum", "USD", 3.0),
    VenueFacts(
        "okx", "perp", "okx", "none", "USDT", 14.0, ("BTC", "ETH", "SOL"), ("BTC", "ETH"),
        ("cross", "isolated"), listed=0.9,
    ),
    VenueFacts("dydx-v4", "perp", "dydx-v4", "dydx", "USDC", 6.0, rate=3.0, listed=0.7),
    VenueFacts("aave-v2", "lending", "aave-v2", "ethereum", "USD", 8.0),
    VenueFacts(
        "gate", "perp", "gate", "none", "USDT", 8.0, ("BTC",), ("BTC",), ("cross", "isolated"),
        rate=1.25,
    ),
    VenueFacts(
        "drift-v2", "perp", "drift-v2", "solana", "USDC", 5.0, ("SOL", "BTC"), rate=3.0, listed=0.6
    ),
    VenueFacts(
        "bybit", "perp", "bybit-isolated-legacy", "none", "USDT", 8.0, modes=("isolated",),
        listed=0.9,
    ),
    VenueFacts("tidepool", "lending", "generic-lending", "base", "USD", 6.0),
    VenueFacts(
        "reefline", "perp", "generic-perp", "arbitrum", "USDC", 4.0, modes=("cross", "isolated"),
        rate=2.0, listed=0.5,
    ),
)  # fmt: skip

# Venues without accounts: where spot trades, where coins are kept, how they cross chains.
SPOT, POOL, CUSTODIAN, BRIDGE = "coinbase", "uniswap", "custodian-1", "bridge-1"
SUPPORT: tuple[VenueFacts, ...] = (
    VenueFacts(SPOT, "spot", None, "none", "USD"),
    VenueFacts(POOL, "spot", None, "ethereum", "USDC"),
    VenueFacts(CUSTODIAN, "custodian", None, "none", "USD"),
    VenueFacts(BRIDGE, "bridge", None, "ethereum", "USD"),
)

FUNDS = tuple(f"fund {number:02d}" for number in range(1, 21))
MAKER = "market maker"
