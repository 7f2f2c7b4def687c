"""What is taken for granted about joint moves where a snapshot comes without a history.

Assumptions, not estimates: round numbers of the size that years of daily moves show, on the severe
side, because correlations rise when it matters. Replace them as soon as there is a history.
"""

from __future__ import annotations

import numpy as np

from undertow import schema
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn, FloatMatrix
from undertow.stress.correlation import nearest_correlation
from undertow.stress.pricing import ROOT, PricingMap

SAME_SECTOR, OTHER_SECTOR = 0.8, 0.65  # between assets that move of their own accord
SAME_PEG, OTHER_PEG = 0.5, 0.2  # between deviations from one reference, and from others
PEG_TO_MARKET = 0.3  # between a deviation and the market: discounts open when prices fall
ROOT_VOL = 0.9  # a year, where no implied volatility is known
STABLE_VOL, TIED_VOL = 0.02, 0.05  # a year, of deviations from a peg
DAYS = 365.0


def assumed_correlation(snapshot: Snapshot) -> FloatMatrix:
    """Correlations of all factors, in blocks: by sector among roots, by reference among pegs."""
    universe, tied = snapshot.universe, _deviates(snapshot)
    sector = np.array([name or f" {k}" for k, name in enumerate(universe.sector)])
    same_sector = sector[:, None] == sector[None, :]
    same_peg = (universe.reference[:, None] == universe.reference[None, :]) & tied
    roots = np.where(same_sector, SAME_SECTOR, OTHER_SECTOR)
    pegs = np.where(same_peg, SAME_PEG, OTHER_PEG)
    both, neither = tied[:, None] & tied[None, :], ~tied[:, None] & ~tied[None, :]
    matrix = np.where(both, pegs, np.where(neither, roots, PEG_TO_MARKET))
    np.fill_diagonal(matrix, 1.0)
    return nearest_correlation(matrix).matrix


def assumed_vols(snapshot: Snapshot) -> FloatColumn:
    """Volatility of every factor, a year: implied where the market says one, else assumed.

    Fiat does not move.
    """
    universe, market, tied = snapshot.universe, snapshot.market, _deviates(snapshot)
    vol = np.where(universe.stable, STABLE_VOL, np.where(tied, TIED_VOL, ROOT_VOL))
    for k in np.flatnonzero(~tied):
        known = market.vol[(universe.asset_of == k) & (market.vol > 0.0)]
        if len(known):
            vol[k] = np.median(known)
    fiat = universe.asset_kind == schema.ASSET_KINDS.index("fiat")
    return np.where(fiat, 0.0, vol)


def _deviates(snapshot: Snapshot) -> BoolColumn:
    """By asset: whether its factor is a deviation: it is money, or hangs on something."""
    hung: BoolColumn = (PricingMap.of(snapshot).hangs != ROOT) | snapshot.universe.stable
    return hung
