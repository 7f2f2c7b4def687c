"""What things are called and what they are tied to: dated, and rarely changed."""

from __future__ import annotations

from undertow.schema.columns import (
    ASSET,
    ASSET_KINDS,
    EVIDENCE,
    INSTRUMENT,
    INSTRUMENT_KINDS,
    MARGIN_MODES,
    SOURCE,
    TS,
    VENUE,
    VENUE_KINDS,
    AsOf,
    Table,
    flag,
    number,
    text,
    time,
    whole,
)

ASSETS = Table(
    "assets",
    "A thing of value, and what it is tied to.",
    AsOf.LATEST,
    ("asset",),
    (
        TS,
        ASSET,
        text("symbol", "short name that people use"),
        text("kind", "what sort of asset", choices=ASSET_KINDS),
        text("reference", "asset that it should follow (ETH for stETH)", null=True),
        number(
            "rate",
            "units of `reference` that one unit should be worth",
            "1",
            null=True,
            low=0.0,
        ),
        text("chain", "chain it lives on", null=True),
        text("caip19", "CAIP-19 identifier", null=True),
        whole("decimals", "decimal places of the raw on-chain amount", null=True, low=0),
        text("issuer", "who can mint or redeem it", null=True),
        text("custodian", "who holds what backs it", null=True),
        text("sector", "grouping for panels (layer-1, defi, meme)", null=True),
    ),
)

VENUES = Table(
    "venues",
    "Where positions live and what closes them; lending protocols are venues too.",
    AsOf.LATEST,
    ("venue",),
    (
        TS,
        VENUE,
        text("kind", "what sort of venue", choices=VENUE_KINDS),
        text("profile", "name of the rule profile that judges its accounts", null=True),
        text("chain", "chain it runs on", null=True),
        text("quote", "asset that its accounts are settled in", null=True),
    ),
)

INSTRUMENTS = Table(
    "instruments",
    "A tradable or lendable contract on an asset at a venue.",
    AsOf.LATEST,
    ("instrument",),
    (
        TS,
        INSTRUMENT,
        VENUE,
        text("symbol", "symbol at the venue, in ccxt spelling where there is one"),
        text("kind", "what sort of contract", choices=INSTRUMENT_KINDS),
        text("asset", "key of the base asset"),
        text("quote", "key of the quote asset", null=True),
        text("settle", "key of the asset that profit is paid in", null=True),
        flag("inverse", "coin-margined: quantity is signed face in USD"),
        number(
            "contract_size",
            "base units (USD of face where inverse) in one contract",
            "base",
            low=0.0,
            open_low=True,
        ),
        time("expiry", "when a future or an option ends", null=True),
        number("strike", "strike of an option", "usd/base", null=True, low=0.0, open_low=True),
        text("option_type", "call or put", null=True, choices=("call", "put")),
        text("native_id", "the venue's own identifier", null=True),
    ),
)

ENTITIES = Table(
    "entities",
    "The owner that stands behind accounts, and any other named party.",
    AsOf.LATEST,
    ("owner",),
    (
        TS,
        whole("owner", "integer key of the entity", "", low=0),
        text("label", "name or address"),
        text(
            "kind",
            "what sort of entity",
            choices=("person", "fund", "protocol", "vault", "market_maker", "unknown"),
        ),
        text("evidence", "how the identity is known", choices=EVIDENCE),
    ),
)

ACCOUNTS = Table(
    "accounts",
    "One margin group at one venue: what the venue judges as a whole.",
    AsOf.LATEST,
    ("account",),
    (
        TS,
        whole("account", "integer key of the margin group", ""),
        VENUE,
        text("label", "address or account name at the venue, lower case"),
        text("margin_group", "which of the account's groups (`cross`, `isolated:BTC`)"),
        text("mode", "how the group is margined", choices=MARGIN_MODES),
        text("category", "eMode, Spoke or risk tier that the group is in", null=True),
        whole("owner", "entity behind it, where one is known", "", null=True, low=0),
    ),
)

TAGS = Table(
    "tags",
    "A free key and value on an entity, venue or asset (jurisdiction, audited, admin key, sector).",
    AsOf.LATEST,
    ("subject_kind", "subject", "tag"),
    (
        TS,
        text(
            "subject_kind",
            "what is tagged",
            choices=("owner", "venue", "asset", "instrument", "account"),
        ),
        text("subject", "its key"),
        text("tag", "name of the tag"),
        text("value", "its value"),
        SOURCE,
    ),
)
