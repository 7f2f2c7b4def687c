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
        smiles = _smiles(universe, implied_vols)
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
            index=frozen(_index(universe, given, smiles)),
            spot=frozen(_first_given(given, _FIRST["spot"])),
            oracle=frozen(_first_given(given, _FIRST["oracle"])),
            priced=frozen(priced),
            depth=frozen(_e_fold_depth(universe, depth)),
            vol=frozen(_instrument_vols(universe, smiles)),
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
    rows = require(schema.table("prices"), as_frame(prices))
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


def _index(
    universe: Universe,
    given: dict[str, tuple[FloatColumn, BoolColumn]],
    smiles: pl.DataFrame,
) -> FloatColumn:
    """The basket under each instrument; of an option the forward it is written on, or 0.

    Whose word counts for an option: an index of its own; the forward that came with its volatility;
    the mark of a future on its asset of the same expiry; the index of a perp or spot instrument on
    it. Its own venue goes before others, then the alphabet.
    """
    index = _first_given(given, _FIRST["index"])
    mark = _first_given(given, _TRADED)
    own, has = given["index"]
    future, *others = (schema.INSTRUMENT_KINDS.index(k) for k in ("future", "perp", "spot"))
    stated = _own_points(universe, smiles.filter(pl.col("forward").is_not_null()))
    forward = {int(i): value for i, value in stated.select("inst", "forward").iter_rows()}
    for k in np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("option")):
        if has[k]:
            index[k] = own[k]
            continue
        on_it = universe.asset_of == universe.asset_of[k]
        dated = on_it & (universe.kind == future) & (universe.expiry == universe.expiry[k])
        undated = on_it & np.isin(universe.kind, others)
        ranked = (_nearest(universe, k, dated & (mark > 0), mark),
                  _nearest(universe, k, undated & (index > 0), index))  # fmt: skip
        index[k] = forward.get(int(k)) or ranked[0] or ranked[1]
    return index


def _nearest(universe: Universe, option: Any, among: BoolColumn, price: FloatColumn) -> float:
    """Price of the first instrument `among` some, those of the option's own venue before others."""
    found = np.flatnonzero(among)
    if not len(found):
        return 0.0
    elsewhere = universe.venue_of[found] != universe.venue_of[option]
    return float(price[found[np.argsort(elsewhere, kind="stable")[0]]])


def _e_fold_depth(universe: Universe, depth: Any) -> FloatColumn:
    """E-fold quantity of each instrument: stated, or read off the widest band of the thinner side.

    Within a band b the book holds q; if it stays as dense beyond, exp(-q/d) = 1 - b gives
    d = q / -log(1 - b); on the ask side, where the price rises, d = q / log(1 + b).
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
    reach = np.where(rows["side"] == "bid", -np.log1p(-narrower), np.log1p(narrower))
    np.minimum.at(thin, inst, np.where(stated, qty, qty / reach))
    return np.where(np.isfinite(thin), thin, 0.0)


def _smiles(universe: Universe, implied_vols: Any) -> pl.DataFrame:
    """The table of volatilities in an order in which a later row is to be believed."""
    table = schema.table("implied_vols")
    rows = require(table, empty(table) if implied_vols is None else as_frame(implied_vols))
    for what, names in (("venue", universe.venues), ("asset", universe.assets)):
        encode(rows[what], pl.Series(names, dtype=pl.String), what=what, source=table.name)
    return rows.sort("ts", "source", "venue", "asset", maintain_order=True)


def _own_points(universe: Universe, rows: pl.DataFrame) -> pl.DataFrame:
    """Of each option, the row of its own venue, expiry and strike, or of its expiry."""
    options = _options(universe)
    point = ["venue", "asset", "expiry", "strike"]
    exact = rows.filter(pl.col("strike").is_not_null())
    level = rows.filter(pl.col("strike").is_null()).drop("strike")
    found = [
        options.join(part.unique(on, keep="last", maintain_order=True), on=on)
        for part, on in ((level, point[:3]), (exact, point))
    ]
    columns = ["inst", "vol", "forward"]
    whole = pl.concat([part.select(columns) for part in found])
    return whole.unique("inst", keep="last", maintain_order=True).sort("inst")


def _options(universe: Universe) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "venue": pl.Series(universe.venues, dtype=pl.String).gather(universe.venue_of),
            "asset": pl.Series(universe.assets, dtype=pl.String).gather(universe.asset_of),
            "expiry": pl.Series(universe.expiry).cast(pl.Datetime("us", "UTC")),
            "strike": universe.strike,
        }
    ).with_row_index("inst")
    return frame.filter(pl.Series(universe.kind == schema.INSTRUMENT_KINDS.index("option")))


def _instrument_vols(universe: Universe, smiles: pl.DataFrame) -> FloatColumn:
    """Volatility of each instrument.

    Whose word counts: the venue's own point at the option's expiry and strike; its level for the
    expiry; its level for the asset; any venue's level for the asset, the newest. Between strikes
    nothing is drawn: a smile is interpolated by whoever publishes the points.
    """
    whole = smiles.filter(pl.col("expiry").is_null() & pl.col("strike").is_null())
    asset = encode(
        whole["asset"],
        pl.Series(universe.assets, dtype=pl.String),
        what="asset",
        source="implied_vols",
    )
    venue = encode(
        whole["venue"],
        pl.Series(universe.venues, dtype=pl.String),
        what="venue",
        source="implied_vols",
    )
    anywhere = np.zeros(len(universe.assets))
    anywhere[asset] = whole["vol"].to_numpy()
    here = np.zeros((len(universe.venues), len(universe.assets)))
    here[venue, asset] = whole["vol"].to_numpy()
    local = here[universe.venue_of, universe.asset_of]
    vol = np.where(local > 0.0, local, anywhere[universe.asset_of])
    own = _own_points(universe, smiles.filter(pl.col("expiry").is_not_null()))
    vol[own["inst"].to_numpy()] = own["vol"].to_numpy()
    return vol
