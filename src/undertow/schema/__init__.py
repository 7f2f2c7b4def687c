"""Every stored table as a value: columns, units, keys, partitions, and how it is read as of a day.

A row of any table says what held from `ts` on (UTC). Nothing is ever changed in place: a correction
is a newer row. How the rows that hold at an instant are found is the table's `as_of`:

    LATEST    the newest row of each key at or before the instant (prices, parameters, names)
    SNAPSHOT  of each `source`, all rows of its newest `ts` (positions, claims: a source publishes
              its whole view at once, so that what is gone from it is gone)
    LOG       every row at or before the instant (liquidations, funding, readings)

The lake adds one column to each table, `run`, naming the ingestion that brought the row.
Keys that name things (`asset`, `venue`, `instrument`) are text and stand in the file as they are
read by a person; accounts and owners, of which there are millions, are 64-bit integers.
"""

from __future__ import annotations

import hashlib

from undertow.errors import UnknownTable
from undertow.schema.columns import (
    ASSET_KINDS,
    COMPLETENESS,
    EVIDENCE,
    INSTRUMENT_KINDS,
    MARGIN_MODES,
    POSITION_KINDS,
    PRICE_KINDS,
    UNITS,
    VENUE_KINDS,
    AsOf,
    Column,
    Kind,
    Table,
)
from undertow.schema.holdings import CLAIMS, FREE_ASSETS, POOLS, POSITIONS
from undertow.schema.records import READINGS, REJECTS, RUNS
from undertow.schema.reference import ACCOUNTS, ASSETS, ENTITIES, INSTRUMENTS, TAGS, VENUES
from undertow.schema.series import (
    DEPTH,
    FUNDING,
    IMPLIED_VOLS,
    LIQUIDATIONS,
    OPEN_INTEREST,
    PRICES,
    RESERVES,
    VOLUMES,
)
from undertow.schema.terms import MARGIN_BRACKETS, ORACLES, RISK_PARAMS, VENUE_FUNDS

__all__ = [
    "ASSET_KINDS",
    "COMPLETENESS",
    "EVIDENCE",
    "INSTRUMENT_KINDS",
    "MARGIN_MODES",
    "POSITION_KINDS",
    "PRICE_KINDS",
    "TABLES",
    "UNITS",
    "VENUE_KINDS",
    "AsOf",
    "Column",
    "Kind",
    "Table",
    "integer_key",
    "table",
]

TABLES: dict[str, Table] = {
    each.name: each
    for each in (
        ASSETS,
        VENUES,
        INSTRUMENTS,
        ENTITIES,
        ACCOUNTS,
        TAGS,
        RISK_PARAMS,
        MARGIN_BRACKETS,
        ORACLES,
        VENUE_FUNDS,
        POSITIONS,
        CLAIMS,
        FREE_ASSETS,
        POOLS,
        PRICES,
        FUNDING,
        OPEN_INTEREST,
        DEPTH,
        VOLUMES,
        LIQUIDATIONS,
        IMPLIED_VOLS,
        RESERVES,
        RUNS,
        READINGS,
        REJECTS,
    )
}


def table(name: str) -> Table:
    """The declared table called `name`.

    Raises
    ------
    UnknownTable
        When there is none; the message lists those that there are.
    """
    try:
        return TABLES[name]
    except KeyError:
        known = ", ".join(TABLES)
        raise UnknownTable(f"no table is called {name!r}", hint=f"choose one of: {known}") from None


def integer_key(*parts: str) -> int:
    """A stable 63-bit integer for a name, so that writers agree on keys without talking.

    Used for `account` (venue, label, margin group) and `owner` (label) where a source has no
    integers of its own. Two of a million names collide with probability 5e-8.
    """
    text = "\x1f".join(parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
