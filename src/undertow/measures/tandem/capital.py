"""What stands before the users of each venue, and what of it a crash of the market would leave.

Equity of a venue is what it can pay out: insurance fund, backstop and reserve. What it owes are the
deposits of its accounts. Both in USD, as a snapshot has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics import hac
from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix
from undertow.econometrics.shortfall import lrmes_by_beta, venue_shortfall
from undertow.measures.tandem.extremes import equal_market
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.words import many, percent
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading, Universe
from undertow.state.arrays import digest
from undertow.state.book import CASH, COLLATERAL, SUPPLY


@dataclass(frozen=True, eq=False)
class Venues:
    """What stands before each venue's users, what they deposited, and what a crash would leave."""

    snapshot: Snapshot
    table: pl.DataFrame  # the venue that lacks most first
    reasons: Mapping[str, str]
    fall: float
    k: float

    @classmethod
    def of(
        cls, snapshot: Snapshot, history: LeverageHistory, fall: float, k: float, level: float
    ) -> Venues:
        """Venues with deposits; those of whose funds nothing is known have no shortfall."""
        universe, funds = snapshot.universe, snapshot.funds
        deposits = deposited(snapshot)
        owed = deposits.sum(axis=1)
        equity = funds.insurance + funds.backstop + funds.treasury
        market = risky_market(history, universe)
        moves, priced = _asset_returns(history, universe)
        reasons, rows = {}, []
        for v in np.flatnonzero(owed > 0.0):
            venue = universe.venues[v]
            basket = np.where(priced, deposits[v], 0.0)
            lost = _crash(basket, moves, market, fall, level)
            if equity[v] <= 0.0:
                reasons[venue] = "no insurance fund, backstop or reserve of it is known"
            elif not math.isfinite(lost[0]):
                reasons[venue] = "what its users deposited has no price history"
            usable = venue not in reasons
            rows.append(
                {
                    "venue": venue,
                    "equity_usd": float(equity[v]),
                    "liabilities_usd": float(owed[v]),
                    "lrmes": lost[1],
                    "lrmes_low": lost[2],
                    "lrmes_high": lost[3],
                    "beta": lost[0],
                    "basket_priced": float(basket.sum() / owed[v]),
                    "funds_known": bool(equity[v] > 0.0),
                    "usable": usable,
                }
            )
        for v in np.flatnonzero((owed <= 0.0) & (equity > 0.0)):
            reasons[universe.venues[v]] = "nobody is known to have deposited anything there"
        return cls(snapshot, _lacking(rows, k), reasons, fall, k)

    def readings(self, history: LeverageHistory, level: float) -> Iterator[Reading]:
        """Shortfall of all venues together, and of each."""
        asked = (
            f"{percent(self.k)} of what users deposited, less {percent(1.0 - self.k)} of insurance "
            f"fund, backstop and reserve that a fall of the market by {percent(self.fall)} leaves"
        )
        told = self.table.filter(pl.col("shortfall_usd").is_not_null())
        lacks, least, most = (
            float(told[name].clip(lower_bound=0.0).sum())
            for name in ("shortfall_usd", "shortfall_low", "shortfall_high")
        )
        sure = "; its band is that of the beta of what is deposited"
        yield self._modelled(
            history, "capital_shortfall_usd", lacks if len(told) else None,
            f"{asked}, added up over venues that lack it; none where no funds are known{sure}, all "
            "betas low or high at once", "", (least, most), level,
        )  # fmt: skip
        unknown = self.table.filter(~pl.col("funds_known"))["liabilities_usd"]
        yield self._modelled(
            history, "capital_unknown_usd", self.k * float(unknown.sum()),
            f"{percent(self.k)} of what users deposited at venues of whose funds nothing is known: "
            "what they would lack if they had none; a sum of what is seen, with no band", "", None,
            level,
        )  # fmt: skip
        for row in told.iter_rows(named=True):
            yield self._modelled(
                history, "capital_shortfall_usd", row["shortfall_usd"],
                f"{asked}; below 0 it is to spare{sure}", row["venue"],
                (row["shortfall_low"], row["shortfall_high"]), level,
            )  # fmt: skip

    def _modelled(
        self, history: LeverageHistory, name: str, value: float | None, words: str, subject: str,
        band: tuple[float, float] | None, level: float,
    ) -> Reading:  # fmt: skip
        told = history.tell(
            name, value, words, subject=subject, unit="usd", evidence="modelled", band=band,
            level=level,
        )  # fmt: skip
        inputs = digest(self.snapshot.digest, history.digest)
        return replace(told, ts=self.snapshot.ts, inputs_hash=inputs, coverage=None)

    def says(self) -> Iterator[str]:
        """Who lacks how much, and of whom that cannot be said."""
        told = self.table.filter(pl.col("shortfall_usd").is_not_null())
        blind = self.table.filter(~pl.col("funds_known"))
        if told.is_empty():
            yield "No venue's shortfall can be told: of none are both funds and deposits known."
        else:
            lacking = told.filter(pl.col("shortfall_usd") > 0.0)
            total = float(lacking["shortfall_usd"].sum())
            said = (
                f"After a fall of the market by {percent(self.fall)}, {len(lacking)} of "
                f"{many(len(told), 'venue')} would lack capital at {percent(self.k)} of deposits, "
                f"{total:,.0f} USD in all"
            )
            if len(lacking):
                top = lacking.row(0, named=True)
                said += f", {top['venue']} {percent(top['share'])} of it"
            yield f"{said}. Funds are taken to be held as deposits are."
        if len(blind):
            asked = self.k * float(blind["liabilities_usd"].sum())
            yield (
                f"Of {many(len(blind), 'venue')} with deposits no fund, backstop or reserve is "
                f"known; had they none, they would lack {asked:,.0f} USD, which is in no total."
            )


def deposited(snapshot: Snapshot) -> FloatMatrix:
    """(venues, assets) What accounts have put there, in USD: collateral, supply and cash."""
    universe, book = snapshot.universe, snapshot.book
    put = np.isin(book.kind, (COLLATERAL, SUPPLY, CASH)) & (book.qty > 0.0)
    inst = book.inst[put]
    value = book.qty[put] * snapshot.market.mark[inst]
    venue, asset = book.venue[book.leg_account[put]], universe.asset_of[inst]
    size = len(universe.venues), len(universe.assets)
    place = venue.astype(np.int64) * size[1] + asset
    added = np.bincount(place, value, minlength=size[0] * size[1])
    return np.asarray(added.reshape(size), dtype=np.float64)


def _asset_returns(history: LeverageHistory, universe: Universe) -> tuple[FloatMatrix, BoolColumn]:
    """(steps, assets) Simple returns, own or of what an asset follows; and which are known."""
    place = {label: j for j, label in enumerate(history.market.labels)}
    moves = np.zeros((len(history.ts), len(universe.assets)))
    known = np.zeros(len(universe.assets), dtype=np.bool_)
    for a, asset in enumerate(universe.assets):
        root = int(universe.root[a])
        at = place.get(asset, place.get(universe.assets[root]))
        known[a] = at is not None or bool(universe.stable[root])
        if at is not None:
            moves[:, a] = np.expm1(history.market.values[:, at])
    return moves, known


def _crash(
    basket: FloatColumn, moves: FloatMatrix, market: FloatColumn, fall: float, level: float
) -> tuple[float, float, float, float]:
    """Beta of a basket on the market, and the share of it lost in a crash, with its band."""
    total = float(basket.sum())
    if total <= 0.0:
        return (math.nan,) * 4
    held = np.flatnonzero(basket > 0.0)
    returns = np.log1p(moves[:, held] @ (basket[held] / total))
    fit = hac.ols(returns, market)
    if np.isnan(fit.coef[1]):
        return (math.nan,) * 4
    low, high = fit.band(level)
    lost, least, most = lrmes_by_beta([fit.coef[1], low[1], high[1]], fall=fall)
    return float(fit.coef[1]), float(lost), float(least), float(most)


def _lacking(rows: list[dict[str, object]], k: float) -> pl.DataFrame:
    """The venues with what each lacks, and its share of all that is lacking."""
    kinds: dict[str, Any] = {"venue": pl.String}
    numbers = ("equity_usd", "liabilities_usd", "lrmes", "lrmes_low", "lrmes_high", "beta",
               "basket_priced")  # fmt: skip
    kinds |= dict.fromkeys(numbers, pl.Float64)
    kinds |= {"funds_known": pl.Boolean, "usable": pl.Boolean}
    table = pl.DataFrame(rows, schema=kinds).fill_nan(None)
    told = table.filter("usable")
    sums: dict[str, Any] = dict.fromkeys(
        ("shortfall_usd", "share", "shortfall_low", "shortfall_high"), np.empty(0)
    )
    if len(told):
        found, least, most = (
            venue_shortfall(
                told["liabilities_usd"].to_numpy(), told[name].to_numpy(),
                fund=told["equity_usd"].to_numpy(), k=k,
            )
            for name in ("lrmes", "lrmes_low", "lrmes_high")
        )  # fmt: skip
        ends = (found.srisk, found.share, least.srisk, most.srisk)
        sums = dict(zip(sums, ends, strict=True))
    lacking = told.select("venue").with_columns(
        pl.Series(name, values, dtype=pl.Float64) for name, values in sums.items()
    )
    joined = table.join(lacking, on="venue", how="left", maintain_order="left").drop("usable")
    ordered = ("venue", "equity_usd", "liabilities_usd", "lrmes", "shortfall_usd", "share")
    rest_of = [name for name in joined.columns if name not in ordered]
    return joined.select(*ordered, *rest_of).sort(
        "shortfall_usd", "venue", descending=[True, False], nulls_last=True
    )


def risky_market(history: LeverageHistory, universe: Universe) -> FloatColumn:
    """Mean log return, by step, of all assets but those that are money; of all where all are."""
    money = {
        asset
        for asset, root in zip(universe.assets, universe.root, strict=True)
        if universe.stable[root]
    }
    labels = [label for label in history.market.labels if label not in money]
    return equal_market(history.market.select(labels or history.market.labels).values)
