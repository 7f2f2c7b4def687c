"""What the venues' rules say at a date, and what stands behind them."""

from __future__ import annotations

from undertow.schema.columns import (
    EVIDENCE_COLUMN,
    INSTRUMENT,
    SOURCE,
    TS,
    VENUE,
    AsOf,
    Table,
    number,
    text,
    whole,
)

RISK_PARAMS = Table(
    "risk_params",
    "One dated number of a venue's rules. The narrowest scope wins: account and instrument, then "
    "category, then instrument, then venue.",
    AsOf.LATEST,
    ("venue", "instrument", "category", "account", "name"),
    (
        TS,
        VENUE,
        text("instrument", "instrument it applies to; empty for all of the venue", null=True),
        text("category", "eMode, Spoke or tier it applies to", null=True),
        whole("account", "account it applies to (a per-position override)", "", null=True),
        text(
            "name",
            "which number",
            choices=(
                "ltv",
                "liquidation_threshold",
                "liquidation_bonus",
                "protocol_fee",
                "debt_weight",
                "close_factor",
                "reserve_factor",
                "initial_margin_rate",
                "maintenance_margin_rate",
                "max_leverage",
                "haircut",
                "taker_fee",
                "optimal_utilisation",
                "base_rate",
                "slope1",
                "slope2",
                "target_health",
                "oi_cap_lower_usd",
                "oi_cap_upper_usd",
                "grid_price_move",
                "grid_vol_move",
                "minimum_margin_rate",
                "imf_factor",
                "scale_start_usd",
                "liquidation_factor",
                "liquidation_fee",
                "gas_usd",
            ),
        ),
        number("value", "the number; fractions, USD where the name ends in _usd", "1"),
    ),
)

MARGIN_BRACKETS = Table(
    "margin_brackets",
    "Tiered maintenance of a derivative, or tiered haircut of a collateral, by notional. Of an "
    "inverse instrument notional and amount are in coin, as its venue publishes them.",
    AsOf.LATEST,
    ("instrument", "tier"),
    (
        TS,
        INSTRUMENT,
        whole("tier", "0 for the smallest", low=0),
        number("min_notional", "the tier holds above this", "usd", low=0.0),
        number(
            "max_notional",
            "and up to and including this; empty for the last",
            "usd",
            null=True,
            low=0.0,
            open_low=True,
        ),
        number(
            "rate",
            "maintenance fraction (or value counted, for collateral) in the tier",
            "1",
            low=0.0,
            high=1.0,
        ),
        number(
            "amount",
            "deduction that makes the tiers join; worked out where empty",
            "usd",
            null=True,
        ),
        number(
            "max_leverage",
            "largest leverage that may be opened",
            "1",
            null=True,
            low=0.0,
            open_low=True,
        ),
    ),
)

ORACLES = Table(
    "oracles",
    "Which price a venue believes, and how late.",
    AsOf.LATEST,
    ("venue", "instrument"),
    (
        TS,
        VENUE,
        INSTRUMENT,
        text(
            "mode",
            "how it is read",
            choices=("market", "lagged", "exchange_rate", "frozen", "mis_set"),
        ),
        text("feed", "instrument whose market it follows", null=True),
        number("deviation", "relative move that triggers an update", "1", null=True, low=0.0),
        whole("lag_us", "delay behind the market", "us", null=True, low=0),
        whole("heartbeat_us", "longest time between updates", "us", null=True, low=0),
    ),
)

VENUE_FUNDS = Table(
    "venue_funds",
    "What stands between a failed account and the others.",
    AsOf.LATEST,
    ("venue", "kind"),
    (
        TS,
        VENUE,
        text(
            "kind",
            "which fund",
            choices=("insurance", "backstop", "liquidator_capacity", "treasury"),
        ),
        number("amount_usd", "size", "usd", low=0.0),
        SOURCE,
        EVIDENCE_COLUMN,
    ),
)
