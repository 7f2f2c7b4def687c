"""What markets and reserves show, instant by instant."""

from __future__ import annotations

from undertow.schema.columns import (
    ASSET,
    COMPLETENESS,
    INSTRUMENT,
    PRICE_KINDS,
    SOURCE,
    TS,
    VENUE,
    AsOf,
    Table,
    number,
    text,
    time,
    whole,
)

PRICES = Table(
    "prices",
    "What an instrument is worth by one of four prices.",
    AsOf.LATEST,
    ("instrument", "kind"),
    (
        TS,
        INSTRUMENT,
        text(
            "kind",
            "mark liquidates; index is the basket; spot trades; oracle is what a protocol reads",
            choices=PRICE_KINDS,
        ),
        number("price", "the price", "usd/base", low=0.0),
        SOURCE,
    ),
    ("kind",),
)

FUNDING = Table(
    "funding",
    "What longs pay shorts.",
    AsOf.LOG,
    ("instrument", "ts", "source"),
    (
        TS,
        INSTRUMENT,
        number("rate", "rate of the interval as the venue quotes it", "1"),
        whole("interval_us", "length of the interval that `rate` covers", "us", low=1),
        number("rate_per_hour", "the same per hour", "1/hour"),
        SOURCE,
    ),
)

OPEN_INTEREST = Table(
    "open_interest",
    "Open contracts, in the source's unit and converted.",
    AsOf.LOG,
    ("instrument", "ts", "source"),
    (
        TS,
        INSTRUMENT,
        number("contracts", "contracts open", "contracts", null=True, low=0.0),
        number("base", "the same in base units", "base", null=True, low=0.0),
        number("usd", "the same in US dollars", "usd", null=True, low=0.0),
        text("source_unit", "unit that the source reported", choices=("contracts", "base", "usd")),
        SOURCE,
    ),
)

DEPTH = Table(
    "depth",
    "How much moves the price: resting quantity within a band, or the e-fold quantity.",
    AsOf.LATEST,
    ("instrument", "side", "band"),
    (
        TS,
        INSTRUMENT,
        text("side", "bid takes sales, ask takes purchases", choices=("bid", "ask")),
        number(
            "band",
            "distance from mid that is counted; 1 means the e-fold quantity",
            "1",
            low=0.0,
            high=1.0,
            open_low=True,
        ),
        number("qty", "quantity", "base", low=0.0),
        SOURCE,
    ),
)

VOLUMES = Table(
    "volumes",
    "What traded in an interval.",
    AsOf.LOG,
    ("instrument", "ts", "source"),
    (
        TS,
        INSTRUMENT,
        whole("interval_us", "length of the interval that starts at `ts`", "us", low=1),
        number("base", "quantity", "base", low=0.0),
        number("usd", "value", "usd", null=True, low=0.0),
        SOURCE,
    ),
)

LIQUIDATIONS = Table(
    "liquidations",
    "Forced closes that were seen.",
    AsOf.LOG,
    ("venue", "source", "source_id"),
    (
        TS,
        VENUE,
        INSTRUMENT,
        whole("account", "account that was closed, where it is known", "", null=True),
        text("liquidated_side", "side of the position that died", choices=("long", "short")),
        number("qty", "quantity closed", "base", low=0.0, open_low=True),
        number("price", "price of the close", "usd/base", null=True, low=0.0, open_low=True),
        number("usd", "value closed", "usd", null=True, low=0.0),
        text("debt_instrument", "instrument repaid, on a lending protocol", null=True),
        number("debt_qty", "quantity repaid", "base", null=True, low=0.0),
        text(
            "completeness",
            "what the feed shows; never summed across without it",
            choices=COMPLETENESS,
        ),
        SOURCE,
        text("source_id", "identifier that the source gives the event"),
    ),
)

IMPLIED_VOLS = Table(
    "implied_vols",
    "Implied volatility of an option; of the whole asset where strike and expiry are empty.",
    AsOf.LATEST,
    ("venue", "asset", "expiry", "strike"),
    (
        TS,
        VENUE,
        ASSET,
        time("expiry", "expiry of the smile", null=True),
        number("strike", "strike", "usd/base", null=True, low=0.0, open_low=True),
        number("vol", "annualised volatility", "1", low=0.0, high=50.0),
        number("forward", "forward price", "usd/base", null=True, low=0.0, open_low=True),
        SOURCE,
    ),
)

RESERVES = Table(
    "reserves",
    "State, rates and caps of a lending reserve.",
    AsOf.LATEST,
    ("instrument",),
    (
        TS,
        INSTRUMENT,
        number("supplied", "total supplied", "base", low=0.0),
        number("borrowed", "total borrowed", "base", low=0.0),
        number("supply_cap", "cap on supply", "base", null=True, low=0.0),
        number("borrow_cap", "cap on borrowing", "base", null=True, low=0.0),
        number("supply_rate", "what suppliers earn", "1/year", null=True),
        number("borrow_rate", "what borrowers pay", "1/year", null=True),
        number("supply_index", "growth of one unit supplied", "1", null=True, low=0.0),
        number("borrow_index", "growth of one unit borrowed", "1", null=True, low=0.0),
        number("deficit", "bad debt on the books", "base", null=True, low=0.0),
        SOURCE,
    ),
)
