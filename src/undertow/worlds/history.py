"""Series that lead up to a snapshot, as panels and as rows of the lake's tables.

Instants are `step_us` apart; the last lies one step before the snapshot, at whose prices all paths
of untied coins arrive. Panels (columns in brackets):

    spot           USD a unit (assets)
    mark, perp     mark, and last trade with a bounce on top (perps)
    basis          log(mark / spot) of perps, log(price / rate / reference) of tied assets
    funding        per hour, positive when longs pay; NaN before the first settlement (perps)
    open_interest, depth, volume    base units; depth is the e-fold quantity (perps)
    liquidated     USD closed by force in the step, longs positive, shorts negative (perps)
    leverage_asset, leverage_venue, leverage_protocol    also rows of the table `readings`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import polars as pl

from undertow.state import CodeColumn, FloatColumn, FloatMatrix, KeyColumn, Panel
from undertow.worlds.catalogue import SPOT
from undertow.worlds.flows import Flows, flow_rows, simulate_flows
from undertow.worlds.frames import rows
from undertow.worlds.levels import LEVERAGE_PANELS, Held, leverage_panels, reading_rows
from undertow.worlds.names import TS, Names, name_world
from undertow.worlds.returns import Prices, simulate_returns
from undertow.worlds.seeds import require_known, require_seed, require_within, stream
from undertow.worlds.tandem import Tandem
from undertow.worlds.ties import Ties, simulate_basis
from undertow.worlds.truths import BasisTruth, PriceTruth, SeriesTruth

HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class History:
    """How long the series are and what is planted in them.

    `tandem` is that of all three panels of leverage, or one for each by the panel's name.
    """

    steps: int
    step_us: int = HOUR_US
    prices: Prices = field(default_factory=Prices)
    tandem: Tandem | Mapping[str, Tandem] = field(default_factory=Tandem)
    ties: Ties = field(default_factory=Ties)
    bounce: float = 2e-5  # standard deviation of log(last trade / mark)

    def __post_init__(self) -> None:
        """Refuse series without length."""
        require_within("steps", self.steps, 3, 5_000_000)
        require_within("step_us", self.step_us, 1)
        require_within("bounce", self.bounce, 0.0, 0.1)
        if isinstance(self.tandem, Mapping):
            for name in self.tandem:
                require_known("panel of leverage", name, LEVERAGE_PANELS)

    def tandem_of(self, panel: str) -> Tandem:
        """What is planted in one panel of leverage."""
        if isinstance(self.tandem, Mapping):
            return self.tandem.get(panel, Tandem())
        return self.tandem


@dataclass(frozen=True, eq=False)
class Paths:
    """Prices and ties, before anything is said of how much was held or traded."""

    ts: KeyColumn
    perps: CodeColumn
    made: PriceTruth
    basis: BasisTruth
    spot: dict[str, FloatColumn]

    def last_basis(self, names: Names) -> dict[str, float]:
        """Log basis of every perp at the last step."""
        keys = names.universe.instruments
        place = {key: k for k, key in enumerate(self.basis.series)}
        return {keys[k]: float(self.basis.basis[-1, place[keys[k]]]) for k in self.perps}

    def last_prices(self, names: Names) -> FloatColumn:
        """Price of every asset at the last step."""
        return np.array([self.spot[key][-1] for key in names.universe.assets])


@dataclass(frozen=True, eq=False)
class Series:
    """Series with what is true of them."""

    panels: Mapping[str, Panel]
    tables: Mapping[str, pl.DataFrame]
    truth: SeriesTruth


def build_panels(
    seed: int,
    *,
    steps: int,
    assets: int = 12,
    venues: int = 8,
    step_us: int = HOUR_US,
    prices: Prices | None = None,
    tandem: Tandem | Mapping[str, Tandem] | None = None,
    ties: Ties | None = None,
    ts: int = TS,
) -> Series:
    """Series alone, without accounts; `tables` then also holds the names that they speak of.

    Raises
    ------
    StateError
        When an argument is impossible or a date lies outside the panel.
    """
    require_seed(seed)
    history = History(
        steps=steps,
        step_us=step_us,
        prices=prices or Prices(),
        tandem=Tandem() if tandem is None else tandem,
        ties=ties or Ties(),
    )
    names = name_world(seed, assets=assets, venues=venues, ts=ts)
    series = publish(seed, names, history, simulate(seed, names, history))
    return replace(series, tables=MappingProxyType({**names.tables, **series.tables}))


def simulate(seed: int, names: Names, history: History) -> Paths:
    """Paths of everything that `names` trades."""
    steps, step = history.steps, history.step_us
    ts = names.ts - step * np.arange(steps, 0, -1, dtype=np.int64)
    coins = [each for each in names.assets.values() if each.traded]
    made = simulate_returns(seed, coins, steps, step, history.prices)
    perps = np.concatenate([names.instruments(v.key, "perp") for v in names.venues])
    perps = np.sort(perps).astype(np.int32)
    basis = _tie(seed, names, made, perps, ts, history.ties)
    return Paths(
        ts=ts,
        perps=perps,
        made=made,
        basis=basis,
        spot=_spot_paths(names, made, basis),
    )


def publish(
    seed: int,
    names: Names,
    history: History,
    paths: Paths,
    *,
    open_interest: FloatColumn | None = None,
    depth: FloatColumn | None = None,
    held: Held | None = None,
) -> Series:
    """The paths as panels and rows; `open_interest` and `depth`, by instrument, are those at rest.

    Open interest ends at its resting size and leverage at that of what is `held`, depth moves about
    it; without them they are invented.
    """
    leverage = leverage_panels(seed, names, history.tandem_of, paths.made, paths.ts, held)
    flows = simulate_flows(
        seed, names, paths.perps, paths.made, paths.basis, leverage["leverage_asset"][0],
        open_interest=open_interest, depth=depth,
    )  # fmt: skip
    panels = _panels(seed, names, history, paths, flows)
    panels |= {name: panel for name, (panel, _) in leverage.items()}
    truth = SeriesTruth(
        ts=paths.ts,
        step_us=history.step_us,
        prices=paths.made,
        basis=paths.basis,
        leverage=MappingProxyType({name: truth for name, (_, truth) in leverage.items()}),
    )
    tables = _tables(names, panels, paths.perps, history.step_us)
    return Series(MappingProxyType(panels), MappingProxyType(tables), truth)


def _tie(
    seed: int, names: Names, made: PriceTruth, perps: CodeColumn, ts: KeyColumn, ties: Ties
) -> BasisTruth:
    """The basis of every perp over its asset, and of every tied asset over its reference.

    What a tied asset follows is itself tied, perhaps: the return is that of the coin at the bottom.
    """
    universe = names.universe
    column = {key: made.returns[:, k] for k, key in enumerate(made.assets)}
    nothing = np.zeros(len(ts))
    tied = [each for each in names.assets.values() if each.reference is not None]
    labels = [universe.instruments[k] for k in perps] + [each.key for each in tied]
    returns = [column[universe.assets[universe.asset_of[k]]] for k in perps]
    for each in tied:
        root = each
        while root.reference is not None:
            root = names.assets[root.reference]
        returns.append(column.get(root.key, nothing))
    return simulate_basis(seed, tuple(labels), np.stack(returns, axis=1), ts, ties)


def _spot_paths(names: Names, made: PriceTruth, basis: BasisTruth) -> dict[str, FloatColumn]:
    """Price paths in USD: coins end at their resting price, tied assets follow their reference."""
    spot: dict[str, FloatColumn] = {}
    for key, each in names.assets.items():
        if each.reference is not None:
            apart = basis.basis[:, basis.series.index(key)]
            rate = 1.0 if each.rate is None else each.rate
            spot[key] = rate * spot[each.reference] * np.exp(apart)
        elif each.traded:
            walk = np.cumsum(made.returns[:, made.assets.index(key)])
            spot[key] = names.price_of(key) * np.exp(walk - walk[-1])
        else:
            spot[key] = np.full(len(made.returns), names.price_of(key))
    return spot


def _panels(
    seed: int, names: Names, history: History, paths: Paths, flows: Flows
) -> dict[str, Panel]:
    universe, ts, spot = names.universe, paths.ts, paths.spot
    basis, perps = paths.basis, paths.perps
    labels = [universe.instruments[k] for k in perps]
    under = np.stack([spot[universe.assets[universe.asset_of[k]]] for k in perps], axis=1)
    mark = under * np.exp(basis.basis[:, : len(perps)])
    bounce = stream(seed, "bounce").standard_normal(mark.shape)
    assets = [key for key, each in names.assets.items() if each.kind != "fiat"]
    made: dict[str, tuple[str, list[str], FloatMatrix]] = {
        "spot": ("usd/base", assets, np.stack([spot[key] for key in assets], axis=1)),
        "mark": ("usd/base", labels, mark),
        "perp": ("usd/base", labels, mark * np.exp(history.bounce * bounce)),
        "basis": ("1", list(basis.series), np.array(basis.basis)),
        "funding": ("1/hour", labels, flows.funding(history.step_us)),
        "open_interest": ("base", labels, flows.open_interest),
        "depth": ("base", labels, flows.depth),
        "volume": ("base", labels, flows.volume),
        "liquidated": ("usd", labels, flows.liquidated * mark),
    }
    return {
        name: Panel.from_arrays(name, unit, ts, keys, values)
        for name, (unit, keys, values) in made.items()
    }


def _tables(
    names: Names, panels: dict[str, Panel], perps: CodeColumn, step_us: int
) -> dict[str, pl.DataFrame]:
    """The panels as rows: spot prices at the spot venue, mark and index of perps, and flows."""
    universe = names.universe
    spot, mark = panels["spot"], panels["mark"]
    index = spot.values[:, [spot.labels.index(universe.assets[universe.asset_of[k]])
                            for k in perps]]  # fmt: skip
    markets = tuple(f"{SPOT}:{key}/USD" for key in spot.labels)
    prices = [
        _long("prices", spot.ts, markets, price=spot.values, kind="spot"),
        _long("prices", mark.ts, mark.labels, price=mark.values, kind="mark"),
        _long("prices", mark.ts, mark.labels, price=index, kind="index"),
    ]
    flows = flow_rows(names, panels, perps, step_us)
    return {"prices": pl.concat(prices), **flows, "readings": reading_rows(panels)}


def _long(
    table: str, ts: KeyColumn, labels: tuple[str, ...], *, kind: str, price: FloatMatrix
) -> pl.DataFrame:
    """A matrix as rows of `table`, series by series."""
    return rows(
        table,
        ts=np.tile(ts, len(labels)),
        instrument=pl.Series(labels).gather(np.repeat(np.arange(len(labels)), len(ts))),
        kind=kind,
        price=price.T.ravel(),
    )
