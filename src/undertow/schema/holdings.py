"""Who holds and owes what; each source publishes its whole view at once."""

from __future__ import annotations

from undertow.schema.columns import (
    ASSET,
    EVIDENCE_COLUMN,
    INSTRUMENT,
    POSITION_KINDS,
    SOURCE,
    TS,
    VENUE,
    AsOf,
    Table,
    number,
    text,
    whole,
)

POSITIONS = Table(
    "positions",
    "One signed quantity in one instrument by one account.",
    AsOf.SNAPSHOT,
    ("account", "instrument", "kind"),
    (
        TS,
        whole("account", "margin group that holds it", ""),
        INSTRUMENT,
        text("kind", "the part it plays in the account", choices=POSITION_KINDS),
        number(
            "qty",
            "signed: long positive, debt negative; signed face in USD where inverse",
            "base",
        ),
        number(
            "entry",
            "average entry price of a derivative; empty for the rest",
            "usd/base",
            null=True,
            low=0.0,
            open_low=True,
        ),
        SOURCE,
        EVIDENCE_COLUMN,
    ),
    ("source",),
)

CLAIMS = Table(
    "claims",
    "Who is owed what by whom: deposits, loans, wrappers, vault shares.",
    AsOf.SNAPSHOT,
    ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind"),
    (
        TS,
        text("debtor_kind", "what the debtor is", choices=("owner", "venue", "asset", "external")),
        text("debtor", "key of the debtor"),
        text(
            "creditor_kind",
            "what the creditor is",
            choices=("owner", "venue", "asset", "external"),
        ),
        text("creditor", "key of the creditor"),
        ASSET,
        text(
            "kind",
            "what sort of claim",
            choices=("deposit", "loan", "backing", "vault_share", "bridge", "custody"),
        ),
        number("qty", "how much is owed", "base", low=0.0),
        whole("seniority", "0 is paid first", null=True, low=0),
        SOURCE,
        EVIDENCE_COLUMN,
    ),
    ("source",),
)

FREE_ASSETS = Table(
    "free_assets",
    "What an owner holds outside any margin group and could top up with.",
    AsOf.SNAPSHOT,
    ("owner", "asset"),
    (
        TS,
        whole("owner", "entity that holds it", ""),
        ASSET,
        number("qty", "how much", "base", low=0.0),
        SOURCE,
        EVIDENCE_COLUMN,
    ),
    ("source",),
)

POOLS = Table(
    "pools",
    "Where forced sales execute: reserves of a pool, or one level of a book ladder.",
    AsOf.SNAPSHOT,
    ("pool", "side", "level"),
    (
        TS,
        text("pool", "key of the pool or book"),
        VENUE,
        text("asset", "asset that is sold into it"),
        text("quote", "asset that is paid"),
        text(
            "model",
            "how it prices size",
            choices=("constant_product", "ladder", "square_root", "linear", "exponential"),
        ),
        text("side", "ladder side; empty otherwise", null=True, choices=("bid", "ask")),
        whole("level", "ladder level from the touch; 0 otherwise", low=0),
        number("price", "price of the level or of the pool", "usd/base", low=0.0, open_low=True),
        number("qty", "quantity of the level, or base reserve, or e-fold depth", "base", low=0.0),
        number("quote_qty", "quote reserve of a constant-product pool", "usd", null=True, low=0.0),
        number("fee", "fee of a trade", "1", null=True, low=0.0, high=1.0),
        SOURCE,
        EVIDENCE_COLUMN,
    ),
    ("source",),
)
