"""Portfolio margin groups: what their venue's grid asks of them, and how far they stand from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from undertow import schema
from undertow.errors import MissingPrice, RuleError
from undertow.kernels import margin as kernel
from undertow.kernels import options, portfolio
from undertow.rules.profile import GridRules
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, SmallColumn
from undertow.state.book import OPTION, PORTFOLIO
from undertow.state.universe import NEVER

YEAR_US = 365 * 86_400_000_000
_OPTION = schema.INSTRUMENT_KINDS.index("option")
# Falls are searched in steps of 1/24 of the price, rises up to ten times the price.
FALLS = np.linspace(0.0, 1.0, 25)[1:] * (1 - 1e-9)
RISES = np.concatenate([np.linspace(0.0, 1.0, 13)[1:], np.geomspace(1.2, 10.0, 12)])


def chain_of(snapshot: Snapshot, grid: GridRules | None = None) -> options.Chain:
    """Every instrument as the option kernels read it; scales and add-ons are those of `grid`."""
    universe, market = snapshot.universe, snapshot.market
    is_option = universe.kind == _OPTION
    kind = np.where(is_option, np.where(universe.is_call, options.CALL, options.PUT), 0)
    tau = np.where(universe.expiry == NEVER, 0, universe.expiry - snapshot.ts) / YEAR_US
    scale = np.ones(len(kind))
    add_on = np.zeros(len(kind))
    if grid is not None:
        reference = grid.vol_reference_days / 365.0
        for k in np.flatnonzero(is_option):
            scale[k] = options.vol_scale(tau[k], reference, grid.vol_near_power, grid.vol_far_power)
        add_on[:] = grid.add_on
    return options.Chain(
        asset=universe.asset_of,
        kind=kind.astype(np.int8),
        forward=np.where(is_option, market.index, market.mark),
        strike=universe.strike,
        vol=market.vol,
        tau=np.maximum(tau, 0.0),
        discount=np.ones(len(kind)),
        vol_scale=scale,
        add_on=add_on,
        minimum=snapshot.rules.params.by_instrument("minimum_margin_rate"),
    )


def grid_of(rules: GridRules) -> options.Grid:
    """Every price move with every volatility move, then the tails at the highest volatility."""
    price, vol = np.meshgrid(rules.price_moves, rules.vol_moves, indexing="ij")
    tails = np.asarray(rules.tail_moves, dtype=np.float64)
    return options.Grid(
        price_move=np.concatenate([price.ravel(), tails]),
        vol_move=np.concatenate([vol.ravel(), np.full(len(tails), max(rules.vol_moves))]),
        counted=np.concatenate([np.ones(price.size), np.full(len(tails), rules.tail_counted)]),
    )


def add_requirements(snapshot: Snapshot, legs: kernel.Legs, asked: FloatColumn) -> None:
    """Add what the grids ask to the rows of `asked` that are portfolio margin groups."""
    for groups, chain, grid in _by_venue(snapshot):
        offsets = snapshot.book.offset
        for a in groups:
            asked[a] += options.portfolio_requirement(
                offsets[a], offsets[a + 1], legs, snapshot.market.mark, chain, grid
            )


def add_distances(
    snapshot: Snapshot,
    legs: kernel.Legs,
    exposure: FloatColumn,
    sign: float,
    value: FloatColumn,
    status: SmallColumn,
) -> None:
    """Write the distances of portfolio margin groups, by repricing, over those read off lines."""
    ladder = FALLS if sign < 0 else RISES
    mark = snapshot.market.mark
    for groups, chain, grid in _by_venue(snapshot):
        forward = chain.forward.copy()
        moved = portfolio.Moved(mark.copy(), forward, chain._replace(forward=forward))
        portfolio.portfolio_distances(
            groups, snapshot.book.offset, legs, mark, exposure, sign, ladder,
            snapshot.rules.terms, chain, moved, grid, value, status,
        )  # fmt: skip


def _by_venue(
    snapshot: Snapshot,
) -> Iterator[tuple[AnyColumn, options.Chain, options.Grid]]:
    """The portfolio margin groups of each venue, with that venue's chain and grid."""
    book = snapshot.book
    for venue in np.unique(book.venue[book.mode == PORTFOLIO]):
        profile = snapshot.rules.profiles[venue]
        if profile is None or profile.grid is None:
            raise RuleError(
                f"{snapshot.universe.venues[venue]} holds portfolio margin groups, "
                "but its profile has no grid",
                source="venues",
                column="profile",
                hint="name a profile with a grid, such as generic-portfolio",
            )
        chain = chain_of(snapshot, profile.grid)
        groups = np.flatnonzero((book.mode == PORTFOLIO) & (book.venue == venue))
        yield groups, chain, grid_of(profile.grid)


def require_models(snapshot: Snapshot, chain: options.Chain) -> None:
    """An option that is held needs a forward and a volatility, or its risk is unknown.

    Raises
    ------
    MissingPrice
        Naming the first that lacks one.
    """
    book = snapshot.book
    held = np.unique(book.inst[book.kind == OPTION])
    for what, column, table in (
        ("underlying price", chain.forward, "prices"),
        ("implied volatility", chain.vol, "implied_vols"),
    ):
        bare = held[(column[held] <= 0.0) & (chain.tau[held] > 0.0)]
        if len(bare):
            raise MissingPrice(
                f"{snapshot.universe.instruments[bare[0]]} is held but has no {what}"
                + (f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""),
                source=table,
                hint="add one for the option, or for its asset",
            )
