"""Published margin tiers of Binance, month by month, as dated risk parameters."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from undertow.errors import RuleError
from undertow.rules.brackets import Brackets
from undertow.rules.perp import Position, account, liquidation_price
from undertow.rules.terms import Rules
from undertow.state import Universe
from undertow.worlds.frames import rows

Say = Callable[..., None]


def test_every_monthly_version_joins_its_tiers(tiers: pl.DataFrame, say: Say) -> None:
    """c_j = c_(j-1) + floor_j (r_j - r_(j-1)): tables that break it would be refused."""
    tables, refused = 0, []
    for (date, symbol), part in tiers.sort("tier").group_by(["date", "symbol"]):
        tables += 1
        try:
            table_of(part)
        except RuleError as error:
            refused.append((date, symbol, error.message))
    say("margin tiers", versions=tiers["date"].n_unique(), tables=tables, exceptions=len(refused))
    assert tables > 5_000
    assert not refused


@pytest.mark.parametrize("date", [dt.date(2022, 2, 16), dt.date(2023, 3, 28), dt.date(2024, 6, 27)])
def test_a_version_loads_as_dated_rules_of_a_universe(tiers: pl.DataFrame, date: dt.date) -> None:
    part = tiers.filter(pl.col("date") == date).sort("symbol", "tier")
    ts = int(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp() * 1e6)
    symbols = part["symbol"].unique().sort()
    universe = Universe.from_frames(
        rows("assets", ts=ts, asset=symbols, symbol=symbols, kind="native"),
        rows("venues", ts=ts, venue="binance", kind="perp", profile="binance-usdm"),
        rows(
            "instruments", ts=ts, instrument=symbols, venue="binance", symbol=symbols,
            kind="perp", asset=symbols, inverse=False, contract_size=1.0,
        ),
    )  # fmt: skip
    published = rows(
        "margin_brackets", ts=ts, instrument=part["symbol"],
        tier=part["tier"].cast(pl.Int64) - part["tier"].cast(pl.Int64).min(),
        min_notional=part["min_notional"], max_notional=part["max_notional"],
        rate=part["maint_margin_rate"], amount=part["maint_amount_cum"],
        max_leverage=part["max_leverage"],
    )  # fmt: skip
    rules = Rules.from_frames(universe, ts, margin_brackets=published)
    assert [table is not None for table in rules.brackets] == [True] * len(symbols)
    assert np.diff(rules.terms.start).sum() == part.height
    assert (rules.terms.rate == part["maint_margin_rate"].to_numpy()).all()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_liquidation_prices_on_published_tiers_are_continuous_in_size(
    tiers: pl.DataFrame, side: float, say: Say
) -> None:
    """Across the joins of every fourth table a size a millionth larger moves the price as little.

    At the price itself the account's equity is what the tier there asks, to rounding.
    """
    newest = tiers.filter(pl.col("date") == tiers["date"].max()).sort("symbol", "tier")
    some = newest["symbol"].unique().sort().gather_every(4)
    newest = newest.filter(pl.col("symbol").is_in(some.implode()))
    joins, worst, jump = 0, 0.0, 0.0
    for (_,), part in newest.group_by(["symbol"], maintain_order=True):
        table = table_of(part)
        for floor, leverage in zip(table.floor[1:], table.max_leverage[1:], strict=True):
            around = [
                closing_price(side * floor * (1.0 + step) / 100.0, leverage, table)
                for step in (-1e-6, 1e-6)
            ]
            if None in around:  # a long that no price can close, at a leverage of 1
                continue
            joins += 1
            jump = max(jump, abs(around[1] / around[0] - 1.0))
            worst = max(worst, residual(side * floor * (1.0 + 1e-6) / 100.0, leverage, table))
    say(f"liquidation prices, side {side:+g}", joins=joins, largest_jump=jump, worst_residual=worst)
    assert joins > 300
    assert jump < 1e-5
    assert worst < 1e-9


def table_of(part: pl.DataFrame) -> Brackets:
    return Brackets.from_columns(
        part["min_notional"],
        part["max_notional"].to_list(),
        part["maint_margin_rate"],
        part["maint_amount_cum"],
        part["max_leverage"],
    )


def closing_price(size: float, leverage: float, table: Brackets) -> float | None:
    """Of a position entered at 100 with margin for the leverage, isolated."""
    position = Position(size=size, entry=100.0, mark=100.0, brackets=table)
    return liquidation_price(position, wallet=abs(size) * 100.0 / leverage)


def residual(size: float, leverage: float, table: Brackets) -> float:
    price = closing_price(size, leverage, table)
    assert price is not None
    at = Position(size=size, entry=100.0, mark=price, brackets=table)
    judged = account([at], wallet=abs(size) * 100.0 / leverage)
    return abs(judged.equity - judged.maintenance) / judged.notional
