"""A book whose owners stand at several venues, with thresholds, needs and free assets by hand.

`L1` and `L2` lend against ETH at a threshold of 0.8, `P` trades ETH perps at a maintenance of
0.025. Nobody knows any depth, so prices stay where a shock puts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from undertow.rules.snapshot import Snapshot
from undertow.worlds.frames import from_tuples

TS = 1_760_000_000_000_000
PRICE, THRESHOLD, MAINTENANCE = 100.0, 0.8, 0.025


class Account(NamedTuple):
    """ETH at a venue, called when the price passes `called_at`; of `owner`, or of nobody."""

    owner: int | None
    venue: str
    eth: float
    called_at: float


class Free(NamedTuple):
    """What an owner holds outside."""

    owner: int
    asset: str
    qty: float


def book(accounts: Sequence[Account], free: Sequence[Free] = ()) -> Snapshot:
    """The book of these accounts, which are numbered from 0."""
    return Snapshot.from_tables(tables(accounts, free), TS)


def tables(accounts: Sequence[Account], free: Sequence[Free] = ()) -> Mapping[str, Any]:
    """Its tables."""
    found: dict[str, Any] = {}

    def put(table: str, columns: str, rows: list[tuple[object, ...]]) -> None:
        found[table] = from_tuples(table, tuple(columns.split()), rows, ts=TS)

    put("assets", "asset symbol kind reference rate sector",
        [("ETH", "ETH", "native", None, None, "coin"),
         ("USDC", "USDC", "stable", "USD", 1.0, "stable"),
         ("USD", "USD", "fiat", None, None, "fiat")])  # fmt: skip
    put("venues", "venue kind profile",
        [("L1", "lending", "generic-lending"), ("L2", "lending", "generic-lending"),
         ("P", "perp", "generic-perp"), ("x", "spot", None)])  # fmt: skip
    put("instruments", "instrument venue symbol kind asset inverse contract_size",
        [("x:ETH", "x", "ETH", "spot", "ETH", False, 1.0),
         ("x:USDC", "x", "USDC", "spot", "USDC", False, 1.0),
         ("P:ETH", "P", "ETH", "perp", "ETH", False, 1.0),
         ("P:USDC", "P", "USDC", "cash", "USDC", False, 1.0),
         *((f"{v}:{a}", v, a, "reserve", a, False, 1.0)
           for v in ("L1", "L2") for a in ("ETH", "USDC"))])  # fmt: skip
    put("prices", "instrument kind price",
        [("x:ETH", "spot", PRICE), ("x:USDC", "spot", 1.0), ("P:ETH", "mark", PRICE),
         ("P:USDC", "spot", 1.0), ("L1:ETH", "oracle", PRICE), ("L2:ETH", "oracle", PRICE),
         ("L1:USDC", "oracle", 1.0), ("L2:USDC", "oracle", 1.0)])  # fmt: skip
    put(
        "accounts",
        "account venue label margin_group mode owner",
        [(n, a.venue, f"a{n}", "main", "cross", a.owner) for n, a in enumerate(accounts)],
    )
    put("positions", "account instrument kind qty entry",
        [leg for n, a in enumerate(accounts) for leg in _legs(n, a)])  # fmt: skip
    terms = (("ltv", 0.75), ("liquidation_threshold", THRESHOLD), ("liquidation_bonus", 0.05))
    put("risk_params", "venue instrument name value",
        [("P", "P:ETH", "maintenance_margin_rate", MAINTENANCE),
         *((v, f"{v}:{a}", name, value) for v in ("L1", "L2") for a in ("ETH", "USDC")
           for name, value in terms)])  # fmt: skip
    put("free_assets", "owner asset qty source", [(*each, "test") for each in free])
    return found


def _legs(n: int, account: Account) -> list[tuple[object, ...]]:
    eth, at = account.eth, account.called_at
    if account.venue != "P":
        debt = eth * at * THRESHOLD
        return [(n, f"{account.venue}:ETH", "collateral", eth, None),
                (n, f"{account.venue}:USDC", "debt", -debt, None)]  # fmt: skip
    cash = eth * (PRICE - at) + MAINTENANCE * abs(eth) * at
    return [(n, "P:ETH", "perp", eth, PRICE), (n, "P:USDC", "cash", cash, None)]


# At 80: 1 lacks 40 at L1, 8 at L2 and 195 at P, and has 100 USDC and an ETH. 2 lacks 32 and 97.5
# and has more. 3 lacks 40 at L1 and 40 at L2 and has 60. 4 lacks 40 at L1, and could spare 128 at
# L2. Nobody knows who lacks 8 at L1 and 19.5 at P.
ACCOUNTS = (
    Account(1, "L1", 10.0, 85.0),
    Account(1, "L2", 5.0, 82.0),
    Account(1, "P", 20.0, 90.0),
    Account(2, "L1", 8.0, 85.0),
    Account(2, "P", 10.0, 90.0),
    Account(3, "L1", 10.0, 85.0),
    Account(3, "L2", 10.0, 85.0),
    Account(4, "L1", 10.0, 85.0),
    Account(4, "L2", 10.0, 64.0),
    Account(None, "L1", 2.0, 85.0),
    Account(None, "P", 2.0, 90.0),
    Account(5, "L2", 10.0, 50.0),
)
FREE = (
    Free(1, "USDC", 100.0),
    Free(1, "ETH", 1.0),
    Free(2, "USDC", 1_000.0),
    Free(3, "USDC", 60.0),
)
NEEDS = {0: 40.0, 1: 8.0, 2: 195.0, 3: 32.0, 4: 97.5, 5: 40.0, 6: 40.0, 7: 40.0, 9: 8.0, 10: 19.5}


@cache
def planted() -> Snapshot:
    """The book of the numbers above."""
    return book(ACCOUNTS, FREE)
