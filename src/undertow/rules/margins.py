"""Every account of a snapshot, judged: equity, maintenance, leverage, health and distance.

Rows are the accounts of the book, in its order. A number that does not exist is infinite here
(no debt: infinite health; nothing left: infinite leverage; no fall that does it: infinite fall)
and empty in the tables that leave the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow import schema
from undertow.kernels import margin as kernel
from undertow.rules import portfolio
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn, Universe
from undertow.state.arrays import frozen
from undertow.state.book import COLLATERAL, DEBT, SUPPLY


@dataclass(frozen=True, eq=False)
class Margins:
    """What the venues would say of every account at one instant, in USD.

    `leverage` is assets over equity where something is lent or borrowed, gross derivative notional
    over equity where only derivatives are held, and (assets held outright + gross notional) over
    equity where both are. `fall` is the smallest common fall of all prices but those of money
    that leaves no cover over what is asked, `rise` the smallest rise; options in groups that
    are not portfolio margined move along their present delta.
    """

    snapshot: Snapshot
    assets: FloatColumn  # held outright, marked, without haircuts
    debt: FloatColumn
    equity: FloatColumn
    cover: FloatColumn  # what counts, after thresholds and haircuts
    asked: FloatColumn  # debt to be covered, and maintenance
    notional: FloatColumn  # gross, of derivatives
    leverage: FloatColumn
    health: FloatColumn
    fall: FloatColumn
    rise: FloatColumn

    def __repr__(self) -> str:
        counts = f"{len(self.equity):,} accounts, {int(self.breached.sum()):,} breached"
        return f"Margins({counts}; .to_polars() has a row for each)"

    @property
    def breached(self) -> BoolColumn:
        """Which accounts their venue may close now."""
        return self.cover < self.asked

    def add_up(self, by: str, rows: pl.DataFrame | None = None) -> pl.DataFrame:
        """Accounts added up by `venue`, `owner` or `mode`, the largest first, and their total last.

        Leverage is a ratio of sums, never a mean of ratios; quantiles are those of the accounts
        that have equity. `within_10` is the share of assets and notional that a common move of
        10 % either way would put up for closing, `breached` what is up now.
        """
        accounts = (self.to_polars() if rows is None else rows).with_columns(
            gross=pl.col("assets") + pl.col("notional"),
            nearest=pl.min_horizontal("fall", "rise").fill_null(float("inf")),
        )
        total = accounts.with_columns(pl.lit("all", pl.String).alias(by))
        parts = accounts.with_columns(pl.col(by).cast(pl.String))
        if by == "owner":  # an account of no known owner is its own
            alone = pl.format("account {}", "account")
            parts = parts.with_columns(owner=pl.col("owner").fill_null(alone))
        return pl.concat(
            [
                _added_up(parts, by).sort("gross", by, descending=[True, False], nulls_last=True),
                _added_up(total, by),
            ]
        ).drop("gross")

    def to_polars(self) -> pl.DataFrame:
        """One row per account, with names."""
        book = self.snapshot.book
        numbers = (
            "assets",
            "debt",
            "equity",
            "notional",
            "cover",
            "asked",
            "leverage",
            "health",
            "fall",
            "rise",
        )
        owner = pl.Series("owner", book.owners[book.owner])
        columns = [
            pl.Series("account", book.account),
            pl.Series("venue", pl.Series(self.snapshot.universe.venues).gather(book.venue)),
            pl.Series("mode", pl.Series(schema.MARGIN_MODES).gather(book.mode)),
            owner.set(owner < 0, None),
            *(pl.Series(name, getattr(self, name)) for name in numbers),
            pl.Series("breached", self.breached),
        ]
        infinite = pl.col(pl.Float64).is_infinite()
        frame = pl.DataFrame(columns)
        return frame.with_columns(pl.when(~infinite).then(pl.col(pl.Float64)).name.keep())


def margins(snapshot: Snapshot) -> Margins:
    """Judge every account of `snapshot` by the rules of its venue.

    Raises
    ------
    RuleError
        When something is held of which the venue's rules say nothing.
    MissingPrice
        When an option has no underlying price or volatility.
    """
    price = snapshot.market.mark
    legs, chain = snapshot.rules.leg_columns(snapshot.book), portfolio.chain_of(snapshot)
    delta, sums = option_deltas(snapshot), account_sums(snapshot)
    portfolio.require_models(snapshot, chain)
    portfolio.add_requirements(snapshot, legs, sums.asked)
    exposure = market_exposure(snapshot.universe)
    priced = np.where(price > 0.0, price, 1.0)
    slope = np.where(chain.kind == 0, exposure, exposure * delta * chain.forward / priced)
    fall, rise = (_distances(snapshot, legs, slope, exposure, sign) for sign in (-1.0, 1.0))
    return Margins(
        snapshot,
        **{name: frozen(column) for name, column in sums._asdict().items()},
        leverage=frozen(_leverage(snapshot, sums)),
        health=frozen(
            np.where((sums.asked <= 0.0) & (sums.cover < 0.0), 0.0, _ratio(sums.cover, sums.asked))
        ),
        fall=frozen(fall),
        rise=frozen(rise),
    )


def account_sums(snapshot: Snapshot) -> kernel.Sums:
    """Assets, debt, equity and notional of every account, and what each leg alone counts and asks.

    What a portfolio group is asked for as a whole is not in it yet.

    Raises
    ------
    RuleError
        When something is held of which the venue's rules say nothing.
    """
    book, price = snapshot.book, snapshot.market.mark
    legs, chain = snapshot.rules.leg_columns(book), portfolio.chain_of(snapshot)
    sums = kernel.Sums(*(np.empty(book.accounts) for _ in kernel.Sums._fields))
    option_notional = np.abs(option_deltas(snapshot)) * chain.forward
    kernel.account_sums(
        0, book.accounts, book.offset, legs, price, price, option_notional,
        snapshot.rules.terms, sums,
    )  # fmt: skip
    return sums


def market_exposure(universe: Universe) -> FloatColumn:
    """By instrument: 1, or 0 where its asset is money or stands for money all the way down."""
    moves: FloatColumn = np.where(universe.stable[universe.root], 0.0, 1.0)[universe.asset_of]
    return moves


def option_deltas(snapshot: Snapshot) -> FloatColumn:
    """Change of each option per unit of its forward (Black 1976); 0 for everything else."""
    from undertow.kernels.options import black76_delta

    chain = portfolio.chain_of(snapshot)
    delta = np.zeros(len(chain.kind))
    for k in np.flatnonzero((chain.kind != 0) & (chain.forward > 0.0)):
        delta[k] = black76_delta(
            chain.kind[k], chain.forward[k], chain.strike[k], chain.vol[k], chain.tau[k], 1.0
        )
    return delta


def _distances(
    snapshot: Snapshot,
    legs: kernel.Legs,
    slope: FloatColumn,
    exposure: FloatColumn,
    sign: float,
) -> FloatColumn:
    """Common move (fall where `sign` is negative) at which each account is breached, or inf."""
    book = snapshot.book
    value = np.empty(book.accounts)
    status = np.empty(book.accounts, dtype=np.int8)
    kernel.distances(
        0, book.accounts, book.offset, legs, snapshot.market.mark, slope, sign,
        snapshot.rules.terms, value, status,
    )  # fmt: skip
    portfolio.add_distances(snapshot, legs, exposure, sign, value, status)
    return value


def _leverage(snapshot: Snapshot, sums: kernel.Sums) -> FloatColumn:
    book = snapshot.book
    lends = np.isin(book.kind, (COLLATERAL, DEBT, SUPPLY))
    lenders = sums.debt > 0.0  # a negative cash balance is borrowed too
    lenders[book.leg_account[lends]] = True
    outright = np.where(lenders, sums.assets, 0.0)
    return np.where(sums.equity > 0.0, _ratio(outright + sums.notional, sums.equity), np.inf)


def _ratio(above: FloatColumn, below: FloatColumn) -> FloatColumn:
    return np.divide(above, below, out=np.full_like(above, np.inf), where=below > 0.0)


def _added_up(accounts: pl.DataFrame, by: str) -> pl.DataFrame:
    # Sorted first: a grouped float sum is the same bits every time only within one order.
    held = pl.col("equity") > 0.0
    exposed = pl.col("gross") / pl.col("gross").sum()
    return (
        accounts.sort(by, "account")
        .group_by(by, maintain_order=True)
        .agg(
            pl.len().alias("accounts"),
            pl.col("assets", "debt", "notional", "equity", "gross").sum(),
            ((pl.col("leverage") * pl.col("equity")).filter(held).sum()
             / pl.col("equity").filter(held).sum()).alias("leverage"),
            pl.col("leverage").filter(held).median().alias("median_leverage"),
            pl.col("leverage").filter(held).quantile(0.95).alias("q95_leverage"),
            exposed.filter(pl.col("nearest") <= 0.1).sum().alias("within_10"),
            pl.col("breached").sum(),
        )
    )  # fmt: skip
