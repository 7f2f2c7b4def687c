"""Past moves of factors, read off prices: what draws are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.errors import StateError
from undertow.state import BoolColumn, FloatMatrix, Panel, Universe
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.pricing import PricingMap

YEAR_US = 365 * 86_400_000_000


@dataclass(frozen=True, eq=False)
class FactorHistory:
    """Log moves of every factor of a universe, one row a step; no gaps."""

    assets: tuple[str, ...]
    moves: FloatMatrix  # (steps, assets); zeros of those in `missing`
    step_us: int  # the usual length of a step
    missing: tuple[str, ...]  # assets of which there is no price, money that stands still aside
    dropped: int  # instants at which some price was absent

    def __repr__(self) -> str:
        steps, assets = self.moves.shape
        return f"FactorHistory({steps:,} steps x {assets} factors, {len(self.missing)} missing)"

    @property
    def yearly_vols(self) -> FloatMatrix:
        """Standard deviation of each factor, a year."""
        vols: FloatMatrix = self.moves.std(axis=0, ddof=1) * np.sqrt(YEAR_US / self.step_us)
        return vols

    @property
    def correlation(self) -> FloatMatrix:
        """Correlations of all factors; one that never moved goes with nothing."""
        centred = self.moves - self.moves.mean(axis=0)
        length = np.sqrt((centred**2).sum(axis=0))
        unit = centred / np.where(length > 0.0, length, 1.0)
        found: FloatMatrix = np.clip(unit.T @ unit, -1.0, 1.0)
        np.fill_diagonal(found, 1.0)
        return found


def history_from_panel(
    panel: Panel, universe: Universe, *, pricing: PricingMap | None = None
) -> FactorHistory:
    """Moves of factors from a panel of prices whose labels are assets.

    A tied asset's factor is its log return less that of what it follows. With the `pricing` of a
    snapshot, pool shares and leveraged tokens too keep only what they did of their own accord;
    without it they count as assets that hang on nothing. An instant at which any price is absent is
    left out, so the return over it spans two steps.

    Raises
    ------
    StateError
        When no label is an asset, a price is not positive, one that is not of money never moved, or
        fewer than three instants are whole.
    """
    known = [label for label in panel.labels if label in universe.assets]
    if not known:
        raise StateError(
            f"no series of {panel.name!r} is called like an asset",
            hint="give a panel of prices whose labels are assets, such as panels['spot']",
        )
    values = panel.select(known).values
    whole = ~np.isnan(values).any(axis=1)
    if whole.sum() < 3:
        empty = [label for label, column in zip(known, values.T, strict=True)
                 if np.isnan(column).all()]  # fmt: skip
        raise StateError(
            f"{int(whole.sum())} instants of {panel.name!r} have every price; three are needed"
            + (f" (there is none at all of {', '.join(empty)})" if empty else ""),
            hint="leave out series that begin late or end early",
        )
    if (values[whole] <= 0.0).any():
        raise StateError(f"{panel.name!r} holds a price that is not positive")
    ts = panel.ts[whole]
    returns = np.zeros((int(whole.sum()) - 1, len(universe.assets)))
    codes = [universe.code("asset", label) for label in known]
    returns[:, codes] = np.diff(np.log(values[whole]), axis=0)
    has = np.zeros(len(universe.assets), dtype=np.bool_)
    has[codes] = True
    _require_moving(returns, has & ~_money(universe), universe, panel.name)
    tied = (universe.reference != NONE) & has
    factor = returns.copy()
    factor[:, tied] -= returns[:, universe.reference[tied]]
    if pricing is not None:
        factor = pricing.factors(returns, has)
    still = universe.stable & (universe.reference == NONE)
    missing = tuple(universe.assets[k] for k in np.flatnonzero(~has & ~still))
    return FactorHistory(
        universe.assets, frozen(factor), int(np.median(np.diff(ts))), missing, int((~whole).sum())
    )


def _money(universe: Universe) -> BoolColumn:
    """Assets that are money, or follow it at the end of what they follow."""
    money = universe.stable.astype(np.bool_)
    for _ in universe.assets:
        money = money | ((universe.reference != NONE) & money[universe.reference])
    return money


def _require_moving(returns: FloatMatrix, which: BoolColumn, universe: Universe, name: str) -> None:
    """Refuse prices that stood still throughout: every draw of them would be no move at all."""
    still = [universe.assets[k] for k in np.flatnonzero(which & ~returns.any(axis=0))]
    if still:
        raise StateError(
            f"the price of {', '.join(still)} never moves in {name!r}: no draw would move it",
            hint="give prices that trade, or leave the series out",
        )
