"""What everything is worth and how deep it trades at the instant of a world.

Columns are instruments. A perp's mark is spot * exp(basis); an option's is Black (1976) on spot.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import ndtr

from undertow import schema
from undertow.state import FloatColumn
from undertow.state.universe import NEVER
from undertow.worlds.frames import rows
from undertow.worlds.names import Names
from undertow.worlds.seeds import stream

_BASIS_SPREAD = 4e-4
_YEAR_US = 365 * 86_400_000_000
_SKEW = 0.15  # implied volatility rises as strikes move away from spot


def mark_prices(seed: int, names: Names, basis: dict[str, float] | None = None) -> FloatColumn:
    """Mark of every instrument; `basis` gives log(mark / spot) of some perps."""
    universe = names.universe
    spot = names.price[universe.asset_of]
    mark = spot.copy()
    known = basis or {}
    for inst in np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("perp")):
        key = universe.instruments[inst]
        drawn = _BASIS_SPREAD * float(stream(seed, f"basis of {key}").standard_normal())
        mark[inst] = spot[inst] * np.exp(known.get(key, drawn))
    options = np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("option"))
    vol = option_vols(names, options)
    tau = (universe.expiry[options] - names.ts) / _YEAR_US
    value = black76(
        spot[options], universe.strike[options], vol, tau, is_call=universe.is_call[options]
    )
    mark[options] = np.maximum(value, 1e-4 * spot[options])
    return mark


def option_vols(names: Names, options: np.ndarray) -> FloatColumn:
    """Implied volatility of options: that of the asset, and a smile in log(strike / spot)."""
    universe = names.universe
    of_asset = np.array([names.facts(inst).vol for inst in options])
    spot = names.price[universe.asset_of[options]]
    vol: FloatColumn = of_asset * (1.0 + _SKEW * np.log(universe.strike[options] / spot) ** 2)
    return vol


def black76(
    forward: FloatColumn,
    strike: FloatColumn,
    vol: FloatColumn,
    tau: FloatColumn,
    *,
    is_call: np.ndarray,
) -> FloatColumn:
    """Undiscounted option values (Black 1976)."""
    deviation = vol * np.sqrt(tau)
    d1 = np.log(forward / strike) / deviation + 0.5 * deviation
    sign = np.where(is_call, 1.0, -1.0)
    value: FloatColumn = sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - deviation)))
    return value


def price_rows(names: Names, mark: FloatColumn) -> pl.DataFrame:
    """Prices of every instrument: oracle where lent, mark and index where traded, else spot."""
    universe = names.universe
    keys = universe.instrument_keys
    spot = names.price[universe.asset_of]
    kinds = np.array(schema.INSTRUMENT_KINDS)[universe.kind]
    parts = []
    for kind, where, price in (
        ("oracle", np.isin(kinds, ("reserve", "share")), spot),
        ("spot", kinds == "spot", spot),
        ("index", np.isin(kinds, ("cash", "perp", "option")), spot),
        ("mark", np.isin(kinds, ("perp", "option")), mark),
    ):
        code = np.flatnonzero(where)
        parts.append(
            rows("prices", ts=names.ts, instrument=keys.gather(code), kind=kind, price=price[code])
        )
    return pl.concat(parts)


def implied_vol_rows(names: Names) -> pl.DataFrame:
    """Volatility of every traded asset as a whole, and of every option."""
    universe = names.universe
    options = np.flatnonzero(universe.expiry != NEVER)
    venues = [v.key for v in names.venues if v.kind == "options"]
    if not venues:
        return rows("implied_vols", ts=names.ts, venue=[], asset=[], vol=[])
    traded = [each for each in names.assets.values() if each.traded]
    whole = rows(
        "implied_vols",
        ts=names.ts,
        venue=venues[0],
        asset=[each.key for each in traded],
        vol=[each.vol for each in traded],
        forward=[names.price_of(each.key) for each in traded],
    )
    assets = pl.Series(universe.assets, dtype=pl.String)
    smile = (
        rows(
            "implied_vols",
            ts=names.ts,
            venue=venues[0],
            asset=assets.gather(universe.asset_of[options]),
            expiry=universe.expiry[options],
            strike=universe.strike[options],
            vol=option_vols(names, options),
            forward=names.price[universe.asset_of[options]],
        )
        # A call and a put of one strike share one volatility.
        .unique(["asset", "expiry", "strike"], keep="first", maintain_order=True)
    )
    return pl.concat([whole, smile])
