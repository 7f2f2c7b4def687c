"""Open interest, depth, volume, forced closes and funding of perps, step by step.

With g the growth of the asset's log leverage, r its return and s the spread of r:

    log open interest   walks by 0.6 * g + 0.003 * z, and ends at its resting size
    log depth           x_t = 0.97 * x_(t-1) + 0.02 * z_t - 0.05 * max(|r_t| / s - 1, 0)
    volume              open interest * 0.04 * exp(0.4 * z) * (1 + |r| / s)
    liquidated          open interest * min(0.003 * max(|r| / s - 2, 0) * exp(0.5 * z), 0.2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.state import CodeColumn, FloatColumn, FloatMatrix, Panel
from undertow.worlds.frames import rows
from undertow.worlds.markets import FUNDING_HOURS, funding_rate
from undertow.worlds.names import Names
from undertow.worlds.seeds import stream
from undertow.worlds.truths import BasisTruth, PriceTruth

_HOUR_US = 3_600_000_000
_RESTING_USD = 2e5  # open interest of a perp, times the weights of its venue and asset


@dataclass(frozen=True, eq=False)
class Flows:
    """What perps show beside prices, (steps, perps), in base units."""

    premium: FloatMatrix
    hours: FloatColumn  # funding interval of each perp
    open_interest: FloatMatrix
    depth: FloatMatrix
    volume: FloatMatrix
    liquidated: FloatMatrix  # longs positive, shorts negative

    def interval_steps(self, step_us: int) -> FloatColumn:
        """Funding interval of each perp, in steps, at least one."""
        whole: FloatColumn = np.maximum(self.hours * _HOUR_US // step_us, 1).astype(np.int64)
        return whole

    def funding(self, step_us: int) -> FloatMatrix:
        """Funding per hour at each step: of the interval settled last, on its mean premium."""
        rate = np.full(self.premium.shape, np.nan)
        steps = len(self.premium)
        for k, width in enumerate(self.interval_steps(step_us)):
            settled = np.arange(width, steps, width)
            mean = np.add.reduceat(self.premium[:, k], settled - width)[: len(settled)] / width
            if len(settled):  # the last group runs to the end of the panel
                mean[-1] = self.premium[settled[-1] - width : settled[-1], k].mean()
            per_hour = funding_rate(mean, 1)
            held = np.repeat(per_hour, np.diff(np.append(settled, steps)))
            rate[settled[0] if len(settled) else steps :, k] = held
        return rate


def simulate_flows(
    seed: int,
    names: Names,
    perps: CodeColumn,
    made: PriceTruth,
    basis: BasisTruth,
    leverage: Panel,
    *,
    open_interest: FloatColumn | None = None,
    depth: FloatColumn | None = None,
) -> Flows:
    """Flows of all perps; each draws from a stream of its own.

    `open_interest` and `depth` are resting sizes by instrument, taken where they are above zero.
    """
    universe = names.universe
    steps = len(made.returns)
    log_leverage = np.log(leverage.values)
    growth = np.diff(log_leverage, axis=0, prepend=log_leverage[:1])
    spread = np.maximum(np.sqrt((made.returns**2).mean(axis=0)), 1e-300)
    weights = {v.key: v.weight for v in names.venues}
    columns: dict[str, list[FloatColumn]] = {
        name: [] for name in ("open_interest", "depth", "volume", "liquidated")
    }
    for inst in perps:
        asset = universe.assets[universe.asset_of[inst]]
        k = made.assets.index(asset)
        rng = stream(seed, f"flows of {universe.instruments[inst]}")
        draws = rng.standard_normal((4, steps))
        moved = np.abs(made.returns[:, k]) / spread[k]
        venue = universe.venues[universe.venue_of[inst]]
        resting = _RESTING_USD * weights[venue] * names.assets[asset].weight
        resting /= names.price_of(asset)
        deep = 0.5 * resting
        if open_interest is not None and open_interest[inst] > 0.0:
            resting = float(open_interest[inst])
        if depth is not None and depth[inst] > 0.0:
            deep = float(depth[inst])
        walk = np.cumsum(0.6 * growth[:, k] + 0.003 * draws[0])
        interest = resting * np.exp(walk - walk[-1])
        columns["open_interest"].append(interest)
        columns["depth"].append(deep * np.exp(_thinning(moved, draws[1])))
        columns["volume"].append(interest * 0.04 * np.exp(0.4 * draws[2]) * (1.0 + moved))
        forced = 0.003 * np.maximum(moved - 2.0, 0.0) * np.exp(0.5 * draws[3])
        fell = np.where(made.returns[:, k] < 0.0, 1.0, -1.0)  # longs die in a fall
        columns["liquidated"].append(fell * interest * np.minimum(forced, 0.2))
    venue_of = [universe.venues[universe.venue_of[k]] for k in perps]
    stacked = {name: np.stack(column, axis=1) for name, column in columns.items()}
    return Flows(
        premium=np.array(basis.basis[:, : len(perps)]),
        hours=np.array([FUNDING_HOURS.get(key, 8) for key in venue_of]),
        **stacked,
    )


def _thinning(moved: FloatColumn, draws: FloatColumn) -> FloatColumn:
    level, path = 0.0, np.empty(len(moved))
    push = 0.02 * draws - 0.05 * np.maximum(moved - 1.0, 0.0)
    for t, each in enumerate(push.tolist()):
        level = 0.97 * level + each
        path[t] = level
    return path


def flow_rows(
    names: Names, panels: dict[str, Panel], perps: CodeColumn, step_us: int
) -> dict[str, pl.DataFrame]:
    """Flows as rows of their tables, perp by perp."""
    universe = names.universe
    mark = panels["mark"]
    steps, count = mark.values.shape
    ts = np.tile(mark.ts, count)
    inst = np.repeat(perps, steps)
    key = universe.instrument_keys.gather(inst)
    price = mark.values.T.ravel()
    interest, volume = (panels[n].values.T.ravel() for n in ("open_interest", "volume"))
    size, faces = universe.contract_size[inst], universe.inverse[inst]
    depth = panels["depth"].values.T.ravel()
    return {
        "funding": _funding_rows(names, panels["funding"], perps, step_us),
        "open_interest": rows(
            "open_interest",
            ts=ts,
            instrument=key,
            contracts=np.where(faces, interest * price, interest) / size,
            base=interest,
            usd=interest * price,
            source_unit="contracts",
        ),
        "depth": pl.concat(
            [
                rows("depth", ts=ts, instrument=key, side=side, band=1.0, qty=depth)
                for side in ("bid", "ask")
            ]
        ),
        "volumes": rows(
            "volumes",
            ts=ts,
            instrument=key,
            interval_us=step_us,
            base=volume,
            usd=volume * price,
        ),
        "liquidations": _liquidation_rows(names, panels, perps),
    }


def _funding_rows(names: Names, funding: Panel, perps: CodeColumn, step_us: int) -> pl.DataFrame:
    """One row a settlement: where a new interval begins."""
    universe = names.universe
    parts = []
    for k, inst in enumerate(perps):
        hours = FUNDING_HOURS.get(universe.venues[universe.venue_of[inst]], 8)
        width = max(hours * _HOUR_US // step_us, 1)
        settled = np.arange(width, len(funding), width)
        rate = funding.values[settled, k]
        span = width * step_us
        parts.append(
            rows(
                "funding",
                ts=funding.ts[settled],
                instrument=pl.repeat(funding.labels[k], len(settled), dtype=pl.String, eager=True),
                rate=rate * (span / _HOUR_US),
                interval_us=span,
                rate_per_hour=rate,
            )
        )
    return pl.concat(parts)


def _liquidation_rows(names: Names, panels: dict[str, Panel], perps: CodeColumn) -> pl.DataFrame:
    """One row a perp and step in which anything was closed."""
    universe = names.universe
    closed, mark = panels["liquidated"], panels["mark"].values
    column, step = np.nonzero(closed.values.T)
    usd = closed.values[step, column]
    inst, price = perps[column], mark[step, column]
    faces = universe.inverse[inst]
    venues = pl.Series(universe.venues)
    return rows(
        "liquidations",
        ts=closed.ts[step],
        venue=venues.gather(universe.venue_of[inst]),
        instrument=universe.instrument_keys.gather(inst),
        liquidated_side=pl.Series(["long", "short"]).gather((usd < 0.0).astype(np.int8)),
        qty=np.where(faces, np.abs(usd), np.abs(usd) / price),
        price=price,
        usd=np.abs(usd),
        completeness="sampled",
        source_id=pl.select(
            pl.format("s{}-{}", pl.Series("column", column), pl.Series("step", step))
        ).to_series(),
    )
