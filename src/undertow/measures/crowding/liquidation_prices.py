"""At which price of one asset each account is called, when that asset alone moves.

Rows are accounts times assets. What follows an asset moves with it, as in the liquidation map;
everything else stands. Prices are solved, not searched for on a grid: health is a line between
brackets, so a fall or a rise has an exact end. Where it is no line (options outside a portfolio
grid, pool shares, leveraged tokens) `exact` is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.kernels import margin as kernel
from undertow.kernels.prices import EXCHANGE_RATE, FROZEN
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ladders import SIDES
from undertow.rules import portfolio
from undertow.rules.margins import option_deltas
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn, KeyColumn, Universe
from undertow.state.book import COLLATERAL, OPTION, PORTFOLIO, UNKNOWN_OWNER
from undertow.stress.setting import shocks_of
from undertow.stress.shock import require_within
from undertow.stress.stressed import Stressed

_TRIED = 0.5  # fall or rise of an asset by which it is seen what moves with it
_EVEN = 1e-9  # from 0 or 1: what moves with it in full, or not at all
_SCHEMA = {
    "account": pl.Int64, "owner": pl.Int64, "venue": pl.String, "mode": pl.String,
    "asset": pl.String, "side": pl.String, "evidence": pl.String, "exact": pl.Boolean,
    "callable_now": pl.Boolean, "price_usd": pl.Float64, "liquidation_price_usd": pl.Float64,
    "distance_share": pl.Float64, "collateral_units": pl.Float64, "exposed_usd": pl.Float64,
    "debt_usd": pl.Float64, "notional_usd": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class LiquidationPrices:
    """Where single accounts are called, and who is called nowhere.

    `rows` has one row an account, asset and side. `exposed_usd` is the signed exposure to all that
    moves with the asset, `collateral_units` what of the asset itself is held as collateral.
    `callable_now` are those whose venue may close them as it is: their distance is 0. A price is
    null where neither the asset nor anything that follows it is quoted.
    """

    crowd: Crowd
    rows: pl.DataFrame
    without: int  # leveraged accounts that no single asset calls

    def known_as(self, evidence: str) -> pl.DataFrame:
        """The rows of what is known in one way.

        Raises
        ------
        StateError
            When there is no such way.
        """
        if evidence not in schema.EVIDENCE:
            raise StateError(
                f"evidence was {evidence!r}", hint=f"it is one of {', '.join(schema.EVIDENCE)}"
            )
        return self.rows.filter(pl.col("evidence") == evidence)


def liquidation_prices(
    book: Snapshot | Crowd | Any, *, furthest: float | None = None
) -> LiquidationPrices:
    """The price of each asset at which each account that leans on it is called.

    Of a receipt that a venue reads at an exchange rate there is none of its own: it falls with what
    it stands for, and that asset has the row. `furthest` leaves out what is further away.

    Raises
    ------
    StateError
        When it is no book, or `furthest` is not above 0.
    """
    crowd = Crowd.of(book)
    if furthest is not None:
        require_within("furthest", furthest, 0.0, open_low=True)
    frames = [_called(crowd, int(k), side) for k in _leaned_on(crowd) for side in SIDES]
    rows = pl.concat([pl.DataFrame(schema=_SCHEMA), *frames])
    leveraged = crowd.snapshot.book.account[crowd.leveraged > 0.0]
    without = len(np.setdiff1d(leveraged, rows["account"].unique().to_numpy()))
    if furthest is not None:
        rows = rows.filter(pl.col("distance_share") <= furthest)
    return LiquidationPrices(crowd, rows.sort("distance_share", "account", "asset"), without)


def _leaned_on(crowd: Crowd) -> KeyColumn:
    """The assets that anybody leans on, and all that those stand for, but money."""
    universe = crowd.snapshot.universe
    found = set(np.unique(crowd.asset[crowd.lean != 0.0]).tolist())
    for k in list(found):
        while universe.reference[k] >= 0:
            k = int(universe.reference[k])
            found.add(k)
    return np.array(sorted(k for k in found if not universe.stable[universe.root[k]]), dtype=int)


def _called(crowd: Crowd, asset: int, side: str) -> pl.DataFrame:
    """Who is called when one asset alone moves one way."""
    snapshot, book = crowd.snapshot, crowd.snapshot.book
    exposure, even = _moved(crowd, asset, side)
    lean = np.bincount(book.leg_account, crowd.lean * exposure[book.inst], book.accounts)
    touched = np.zeros(book.accounts, dtype=np.bool_)
    touched[book.leg_account[exposure[book.inst] != 0.0]] = True
    distance, breached = _distances(snapshot, exposure, side)
    way = -1.0 if side == "fall" else 1.0
    there = touched & np.isfinite(distance) & (1.0 + way * distance > 0.0)
    there &= (crowd.leveraged > 0.0) & (~breached | (lean * way < 0.0))
    at = np.flatnonzero(there)
    price = _price(crowd, asset)[at]
    owner = book.owners[book.owner[at]]
    own = (crowd.asset == asset) & (book.kind == COLLATERAL)
    held = np.bincount(book.leg_account[own], book.qty[own], book.accounts)
    universe = snapshot.universe
    return pl.DataFrame(
        {
            "account": book.account[at],
            "owner": pl.Series(owner).set(pl.Series(owner == UNKNOWN_OWNER), None),
            "venue": pl.Series(universe.venues, dtype=pl.String).gather(book.venue[at]),
            "mode": pl.Series(schema.MARGIN_MODES).gather(book.mode[at]),
            "asset": [universe.assets[asset]] * len(at),
            "side": [side] * len(at),
            "evidence": pl.Series(schema.EVIDENCE).gather(crowd.evidence_of[at]),
            "exact": _exact(crowd, exposure, even)[at],
            "callable_now": breached[at],
            "price_usd": pl.Series(price, nan_to_null=True),
            "liquidation_price_usd": pl.Series(
                price * (1.0 + way * distance[at]), nan_to_null=True
            ),
            "distance_share": distance[at],
            "collateral_units": held[at],
            "exposed_usd": lean[at],
            "debt_usd": crowd.debt[at],
            "notional_usd": crowd.notional[at],
        },
        schema=_SCHEMA,
    )


def _moved(crowd: Crowd, asset: int, side: str) -> tuple[FloatColumn, BoolColumn]:
    """By instrument, its move as venues see it per move of the asset, and whether it is even."""
    stressed = Stressed.calm(crowd.snapshot)
    size = -_TRIED if side == "fall" else _TRIED
    factor = np.zeros(len(crowd.snapshot.universe.assets))
    factor[asset] = np.log1p(size)
    market, rate = shocks_of(crowd.plan, stressed, stressed.factor + factor)
    mode = crowd.snapshot.oracles.mode
    seen = np.where(mode == EXCHANGE_RATE, rate, np.where(mode == FROZEN, 0.0, market))
    exposure: FloatColumn = np.expm1(seen) / size
    whole = np.abs(exposure - np.rint(exposure)) <= _EVEN
    exposure = np.where(whole, np.rint(exposure), exposure)
    return exposure, (exposure == 0.0) | (exposure == 1.0)


def _distances(
    snapshot: Snapshot, exposure: FloatColumn, side: str
) -> tuple[FloatColumn, BoolColumn]:
    """By account, the move along `exposure` that calls it, or inf; and who is called already."""
    book, mark = snapshot.book, snapshot.market.mark
    legs, chain = snapshot.rules.leg_columns(book), portfolio.chain_of(snapshot)
    sign = -1.0 if side == "fall" else 1.0
    forward = np.where(mark > 0.0, chain.forward / np.where(mark > 0.0, mark, 1.0), 0.0)
    slope = exposure * np.where(chain.kind == 0, 1.0, option_deltas(snapshot) * forward)
    value, status = np.empty(book.accounts), np.empty(book.accounts, dtype=np.int8)
    kernel.distances(
        0, book.accounts, book.offset, legs, mark, slope, sign, snapshot.rules.terms, value, status
    )
    portfolio.add_distances(snapshot, legs, exposure, sign, value, status)
    return value, status == kernel.BREACHED


def _exact(crowd: Crowd, exposure: FloatColumn, even: BoolColumn) -> BoolColumn:
    """By account, whether all that moves in it moves along a line that is solved."""
    book = crowd.snapshot.book
    bent = (book.kind == OPTION) | ~even[book.inst]
    some = bent & (exposure[book.inst] != 0.0) & (book.mode[book.leg_account] != PORTFOLIO)
    found = np.ones(book.accounts, dtype=np.bool_)
    found[book.leg_account[some]] = False
    return found


def _price(crowd: Crowd, asset: int) -> FloatColumn:
    """By account, the price that its venue reads of the asset, of its largest leg in it.

    Where it holds none itself, the middle of what is read anywhere; where nothing is, what those
    who follow it are worth of it; NaN where nothing says.
    """
    book, mark = crowd.snapshot.book, crowd.snapshot.market.mark
    plain = _quoted(crowd, asset)
    middle = np.median(mark[plain]) if plain.any() else _implied(crowd, asset)
    found: FloatColumn = np.full(book.accounts, middle)
    own = np.flatnonzero(plain[book.inst])
    own = own[np.argsort(np.abs(crowd.lean[own]), kind="stable")]
    found[book.leg_account[own]] = mark[book.inst[own]]
    return found


def _quoted(crowd: Crowd, asset: int) -> BoolColumn:
    """The instruments that say a price of the asset; an option says one of its own."""
    snapshot = crowd.snapshot
    plain = (crowd.plan.insts["kind"] == 0) & (snapshot.market.mark > 0.0)
    found: BoolColumn = plain & (snapshot.universe.asset_of == asset)
    return found


def _implied(crowd: Crowd, asset: int) -> float:
    """The price of an asset by what follows it, the nearest first: WETH says that of ETH."""
    universe, mark = crowd.snapshot.universe, crowd.snapshot.market.mark
    nearest = {asset: 1.0}  # with how much of the asset one unit should be worth
    while nearest:
        found = [mark[_quoted(crowd, k)] / rate for k, rate in nearest.items()]
        if (prices := np.concatenate(found)).size:
            return float(np.median(prices))
        nearest = {
            k: float(universe.reference_rate[k]) * nearest[int(universe.reference[k])]
            for k in range(len(universe.assets))
            if int(universe.reference[k]) in nearest
        }
    return float("nan")


def collateral_prices(found: LiquidationPrices) -> pl.DataFrame:
    """What is held as collateral, with the price of its own at which its account is called.

    Where no fall of its own calls (a venue reads it at an exchange rate), the price is the one that
    it has when what it stands for falls far enough; `through` says which asset falls.
    """
    crowd = found.crowd
    universe, book = crowd.snapshot.universe, crowd.snapshot.book
    own = np.flatnonzero((book.kind == COLLATERAL) & (book.qty > 0.0))
    held = pl.DataFrame({
        "account": book.account[book.leg_account[own]],
        "asset": pl.Series(universe.assets, dtype=pl.String).gather(crowd.asset[own]),
        "units": book.qty[own],
        "unit_usd": crowd.snapshot.market.mark[book.inst[own]],
    })  # fmt: skip
    ways = pl.DataFrame(_ancestors(universe), schema=["asset", "through", "steps"], orient="row")
    falls = found.rows.filter(pl.col("side") == "fall").select(
        "account", "owner", "venue", "evidence", "exact", "callable_now", "distance_share",
        through="asset",
    )  # fmt: skip
    return (
        held.join(ways, on="asset")
        .join(falls, on=["account", "through"])
        .sort("account", "asset", "steps")
        .group_by("account", "asset", maintain_order=True)
        .first()
        .with_columns(liquidation_price_usd=pl.col("unit_usd") * (1.0 - pl.col("distance_share")))
    )


def _ancestors(universe: Universe) -> list[tuple[str, str, int]]:
    """Of every asset, itself and all that it stands for, the nearest first."""
    found = []
    for k, name in enumerate(universe.assets):
        at, steps = k, 0
        while at >= 0:
            found.append((name, universe.assets[at], steps))
            at, steps = int(universe.reference[at]), steps + 1
    return found


def adapter_entries(
    rows: pl.DataFrame, names: pl.DataFrame
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Collateral in the shape of DefiLlama's liquidation adapters, and what does not fit into it.

    `rows` are those of `collateral_prices` with `label`, the owner as a chain knows it; `names`
    says `asset`, `chain`, `caip19` and `decimals`. Amounts are whole raw units, as text. The shape
    has no place for how a position is known, so each entry says `evidence` beside it.
    """
    tokens = {row["asset"]: row for row in names.iter_rows(named=True)}
    entries, unfit = [], {"no decimals are known": 0, "the price is not exact": 0}
    for row in rows.iter_rows(named=True):
        token = tokens[row["asset"]]
        if token["decimals"] is None:
            unfit["no decimals are known"] += 1
        elif not row["exact"]:
            unfit["the price is not exact"] += 1
        else:
            raw = Decimal(repr(row["units"])).scaleb(token["decimals"])
            entries.append({
                "owner": row["label"],
                "liqPrice": row["liquidation_price_usd"],
                "collateral": token_key(token),
                "collateralAmount": str(int(raw.to_integral_value())),
                "evidence": row["evidence"],
            })  # fmt: skip
    return entries, {why: count for why, count in unfit.items() if count}


def token_key(token: dict[str, Any]) -> str:
    """`chain:address` where the address is known, else `chain:name`.

    The coin of a chain has the address of nobody, as price services call it.
    """
    chain, caip19 = token["chain"], token["caip19"]
    if caip19 is None:
        return f"{chain}:{token['asset']}" if chain else str(token["asset"])
    space, _, reference = caip19.rpartition(":")
    address = "0x" + "0" * 40 if space.endswith("slip44") else reference
    return f"{chain or space.partition('/')[0]}:{address}"
