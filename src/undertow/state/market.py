"""What things are worth, how deep they trade and how much they may move, at one instant.

A row is an instrument. Four prices stand side by side; `mark` is the one that the venue judges by:
the oracle's where a protocol lends, the mark where a contract is traded. A price that nobody gave
is taken from the next in line; `priced` says for which instruments anybody gave one at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import MissingPrice
from undertow.state.arrays import BoolColumn, CodeColumn, FloatColumn, digest, frozen
from undertow.state.conform import empty, require
from undertow.state.intake import as_frame
from undertow.state.universe import Universe, encode

# Whose word counts first, by what the instrument is.
_LENT = ("oracle", "mark", "index", "spot")
_TRADED = ("mark", "index", "oracle", "spot")
_FIRST = {"mark": _TRADED, "index": ("index", "oracle", "spot", "mark")}
_FIRST |= {
    "spot": ("spot", "index", "mark", "oracle"),
    "oracle": ("oracle", "index", "mark", "spot"),
}
E_FOLD = 1.0  # the `band` of the depth table that stands for the e-fold quantity


@dataclass(frozen=True, eq=False)
class Market:
    """Prices, depth and volatility of every instrument of a universe."""

    universe: Universe
    mark: FloatColumn
    index: FloatColumn  # of an option, the forward that it is written on; 0 where nobody knows
    spot: FloatColumn
    oracle: FloatColumn
    priced: BoolColumn
    depth: FloatColumn  # base units that move the price by one e-fold; 0 where nobody knows
    vol: FloatColumn  # annualised; 0 where nobody knows

    @classmethod
    def from_frames(
        cls, universe: Universe, prices: Any, depth: Any = None, implied_vols: Any = None
    ) -> Market:
        """Read prices and, where there are any, depth and implied volatility.

        Raises
        ------
        SchemaError
            When a table does not fit its declared columns.
        StateError
            When an instrument is unknown.
        """
        given = _given_prices(universe, prices)
        priced = np.zeros(len(universe.instruments), dtype=np.bool_)
        for _, has in given.values():
            priced |= has
        lent = np.isin(
            universe.kind, [schema.INSTRUMENT_KINDS.index(k) for k in ("reserve", "share")]
        )
        mark = np.where(lent, _first_given(given, _LENT), _first_given(given, _TRADED))
        return cls(
            universe=universe,
            mark=frozen(mark),
            index=frozen(_index(universe, given)),
            spot=frozen(_first_given(given, _FIRST["spot"])),
            oracle=frozen(_first_given(given, _FIRST["oracle"])),
            priced=frozen(priced),
            depth=frozen(_e_fold_depth(universe, depth)),
            vol=frozen(_instrument_vols(universe, implied_vols)),
        )

    def __repr__(self) -> str:
        return f"Market({int(self.priced.sum())} of {len(self.priced)} instruments priced)"

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        columns = (self.mark, self.index, self.spot, self.oracle, self.priced, self.depth, self.vol)
        return digest(self.universe.digest, *columns)

    def require_prices(self, inst: CodeColumn) -> None:
        """Check that every instrument in `inst` has a price.

        Raises
        ------
        MissingPrice
            Naming those that have none.
        """
        lacking = np.unique(inst[~self.priced[inst]])
        if len(lacking):
            names = ", ".join(self.universe.instruments[code] for code in lacking[:3])
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            raise MissingPrice(
                f"{names}{more} are held but have no price",
                source="prices",
                hint="add a mark, index, spot or oracle price for each",
            )


def _given_prices(universe: Universe, prices: Any) -> dict[str, tuple[FloatColumn, BoolColumn]]:
    rows = require(schema.table("prices"), as_frame(prices), keys=False)
    given = {}
    for kind in schema.PRICE_KINDS:
        part = rows.filter(pl.col("kind") == kind)
        inst = encode(
            part["instrument"], universe.instrument_keys, what="instrument", source="prices"
        )
        value = np.zeros(len(universe.instruments))
        has = np.zeros(len(universe.instruments), dtype=np.bool_)
        order = np.lexsort(
            (part["source"].rank("dense").to_numpy(), part["ts"].to_physical().to_numpy())
        )
        for column, new in ((value, part["price"].to_numpy()), (has, True)):
            column[inst[order]] = new[order] if isinstance(new, np.ndarray) else new
        given[kind] = (value, has)
    return given


def _first_given(
    given: dict[str, tuple[FloatColumn, BoolColumn]], order: tuple[str, ...]
) -> FloatColumn:
    first = np.zeros_like(given["mark"][0])
    for kind in reversed(order):
        value, has = given[kind]
        first = np.where(has, value, first)
    return first


def _index(universe: Universe, given: dict[str, tuple[FloatColumn, BoolColumn]]) -> FloatColumn:
    """The basket under each instrument; of an option the forward it is written on, or 0.

    An option without an index of its own takes the price of the first perp, future or spot
    instrument on its asset, at its own venue before others.
    """
    index = _first_given(given, _FIRST["index"])
    straight = np.isin(
        universe.kind, [schema.INSTRUMENT_KINDS.index(k) for k in ("perp", "future", "spot")]
    )
    own, has = given["index"]
    for k in np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("option")):
        index[k] = own[k]
        if not has[k]:
            same = np.flatnonzero(
                straight & (universe.asset_of == universe.asset_of[k]) & (index > 0)
            )
            elsewhere = universe.venue_of[same] != universe.venue_of[k]
            order = np.argsort(elsewhere, kind="stable")
            index[k] = index[same[order[0]]] if len(same) else 0.0
    return index


def _e_fold_depth(universe: Universe, depth: Any) -> FloatColumn:
    """E-fold quantity of each instrument: stated, or read off the widest band of the thinner side.

    Within a band b the book holds q; if it stays as dense beyond, exp(-q/d) = 1 - b gives
    d = q / -log(1 - b).
    """
    thin = np.full(len(universe.instruments), np.inf)
    rows = require(
        schema.table("depth"),
        empty(schema.table("depth")) if depth is None else as_frame(depth),
        keys=False,
    )
    rows = rows.filter(pl.col("band") == pl.col("band").max().over("instrument", "side"))
    inst = encode(rows["instrument"], universe.instrument_keys, what="instrument", source="depth")
    band, qty = rows["band"].to_numpy(), rows["qty"].to_numpy()
    stated = band == E_FOLD
    narrower = np.where(stated, 0.5, band)
    np.minimum.at(thin, inst, np.where(stated, qty, qty / -np.log1p(-narrower)))
    return np.where(np.isfinite(thin), thin, 0.0)


def _instrument_vols(universe: Universe, implied_vols: Any) -> FloatColumn:
    """Volatility of each instrument: its own smile point, or that of its asset at any venue."""
    vol = np.zeros(len(universe.instruments))
    if implied_vols is None:
        return vol
    rows = require(schema.table("implied_vols"), as_frame(implied_vols), keys=False).sort(
        "ts", "venue", "asset", maintain_order=True
    )
    whole = rows.filter(pl.col("expiry").is_null() & pl.col("strike").is_null())
    of_asset = np.zeros(len(universe.assets))
    asset = encode(whole["asset"], pl.Series(universe.assets), what="asset", source="implied_vols")
    of_asset[asset] = whole["vol"].to_numpy()
    vol = of_asset[universe.asset_of]
    point = ["venue", "asset", "expiry", "strike"]
    options = pl.DataFrame(
        {
            "venue": pl.Series(universe.venues, dtype=pl.String).gather(universe.venue_of),
            "asset": pl.Series(universe.assets, dtype=pl.String).gather(universe.asset_of),
            "expiry": pl.Series(universe.expiry).cast(pl.Datetime("us", "UTC")),
            "strike": universe.strike,
        }
    ).with_row_index("inst")
    smile = rows.filter(pl.col("expiry").is_not_null() & pl.col("strike").is_not_null())
    own = options.join(smile.unique(point, keep="last", maintain_order=True), on=point).sort("inst")
    vol[own["inst"].to_numpy()] = own["vol"].to_numpy()
    return vol
