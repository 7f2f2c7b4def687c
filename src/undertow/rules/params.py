"""The dated numbers of all venues' rules, and which of them holds for a leg.

A row of `risk_params` speaks of an account, of a category (eMode, Spoke), of an instrument or of a
whole venue. The narrowest that speaks of a leg wins: account and instrument, account, category and
instrument, category, instrument, venue; then what the rule profile takes for granted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import RuleError
from undertow.state import Book, BoolColumn, FloatColumn, Universe, as_frame
from undertow.state.conform import empty, require
from undertow.state.universe import NONE, encode

# Where a number of each name may lie; outside, it is a wrong unit more often than a strange rule.
_FRACTIONS = (
    "ltv",
    "liquidation_threshold",
    "protocol_fee",
    "close_factor",
    "reserve_factor",
    "initial_margin_rate",
    "maintenance_margin_rate",
    "haircut",
    "optimal_utilisation",
    "minimum_margin_rate",
    "liquidation_factor",
    "liquidation_fee",
)
RANGES = dict.fromkeys(_FRACTIONS, (0.0, 1.0))
RANGES |= dict.fromkeys(("liquidation_bonus", "debt_weight", "base_rate"), (0.0, 10.0))
RANGES |= dict.fromkeys(("slope1", "slope2", "imf_factor"), (0.0, 100.0))
RANGES |= {"max_leverage": (1.0, 1000.0), "taker_fee": (-0.01, 0.1), "gas_usd": (0.0, 1e6)}
RANGES |= {"target_health": (1.0, 10.0)}
# Read by instrument alone; one of an account's own would be passed over in silence.
_WHOLE = ("taker_fee", "imf_factor", "minimum_margin_rate")
# Read by venue alone: how much of an account is closed is not a matter of one of its legs.
_VENUE_WIDE = ("close_factor", "target_health", "liquidation_fee", "gas_usd")


@dataclass(frozen=True, eq=False)
class Params:
    """Every dated number that holds at one instant."""

    universe: Universe
    rows: pl.DataFrame  # code of venue and instrument, category, account, name, value
    _plain: dict[str, list[tuple[int, int, float]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def from_frame(cls, universe: Universe, risk_params: Any = None) -> Params:
        """Read the table and check every name, range and pair of numbers.

        Raises
        ------
        SchemaError
            When the table does not fit its declared columns.
        StateError
            When a venue or an instrument is unknown.
        RuleError
            When a number is outside what its name allows, or two contradict each other.
        """
        table = schema.table("risk_params")
        rows = require(table, empty(table) if risk_params is None else as_frame(risk_params))
        venue = encode(rows["venue"], pl.Series(universe.venues), what="venue", source=table.name)
        inst = encode(
            rows["instrument"], universe.instrument_keys, what="instrument", source=table.name
        )
        coded = rows.select(
            pl.Series("venue", venue),
            pl.Series("inst", inst),
            pl.col("category"),
            pl.col("account"),
            pl.col("name"),
            pl.col("value"),
        )
        _check_ranges(coded)
        _check_venues(universe, coded)
        _check_scopes(coded)
        params = cls(universe, coded)
        params._check_pairs()
        return params

    def __repr__(self) -> str:
        return f"Params({self.rows.height:,} numbers)"

    def by_instrument(self, name: str, default: FloatColumn | float = 0.0) -> FloatColumn:
        """The number called `name` of each instrument, apart from categories and accounts."""
        value = np.broadcast_to(default, (len(self.universe.instruments),)).astype(np.float64)
        if name not in self._plain:  # asked for in every pass of a contagion
            alone = pl.col("category").is_null() & pl.col("account").is_null()
            rows = self._named(name).filter(alone).select("venue", "inst", "value").sort("inst")
            self._plain[name] = rows.rows()
        for venue, inst, given in self._plain[name]:
            where = self.universe.venue_of == venue if inst == NONE else inst
            value[where] = given
        return value

    def by_venue(self, name: str, default: FloatColumn) -> FloatColumn:
        """The number called `name` of each venue, `default` by venue where nothing says one."""
        value = np.array(default, dtype=np.float64)
        for venue, given in self._named(name).select("venue", "value").iter_rows():
            value[venue] = given
        return value

    def narrow(self, names: tuple[str, ...]) -> bool:
        """Whether any account or category has one of these numbers of its own."""
        own = pl.col("category").is_not_null() | pl.col("account").is_not_null()
        return self.rows.filter(pl.col("name").is_in(list(names)) & own).height > 0

    def given(self, name: str) -> BoolColumn:
        """Of each instrument, whether anybody gave it the number called `name`."""
        return ~np.isnan(self.by_instrument(name, np.nan))

    def by_leg(self, book: Book, name: str, default: FloatColumn | float = 0.0) -> FloatColumn:
        """The number called `name` that holds for each leg of `book`."""
        value = self.by_instrument(name, default)[book.inst]
        rows = self._named(name)
        categories = rows.filter(pl.col("category").is_not_null() & pl.col("account").is_null())
        if categories.height and book.categories:
            self._by_category(book, categories, value)
        overrides = rows.filter(pl.col("account").is_not_null()).sort("inst", "account")
        if overrides.height:
            self._override(book, overrides, value)
        return value

    def _by_category(self, book: Book, rows: pl.DataFrame, value: FloatColumn) -> None:
        """Write what categories give over `value`: to all of a venue first, then to members."""
        codes = pl.DataFrame({"category": book.categories}).with_row_index("code")
        rows = rows.join(codes, on="category").with_columns(pl.col("code").cast(pl.Int64))
        leg = np.flatnonzero(book.category[book.leg_account] != NONE)
        category = book.category[book.leg_account[leg]].astype(np.int64)
        inst = book.inst[leg]
        for part, of_leg, size in (
            (
                rows.filter(pl.col("inst") == NONE),
                self.universe.venue_of[inst],
                len(self.universe.venues),
            ),
            (rows.filter(pl.col("inst") != NONE), inst, len(self.universe.instruments)),
        ):
            column = "venue" if of_leg is not inst else "inst"
            given = part.select(key=pl.col("code") * size + pl.col(column), value="value").sort(
                "key"
            )
            keys = given["key"].to_numpy()
            if len(keys):
                wanted = category * size + of_leg
                place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                found = keys[place] == wanted
                value[leg[found]] = given["value"].to_numpy()[place[found]]

    def _override(self, book: Book, rows: pl.DataFrame, value: FloatColumn) -> None:
        """Write what single accounts were given over `value`, the widest first."""
        order = np.argsort(book.account, kind="stable")
        wanted = rows["account"].to_numpy()
        place = np.searchsorted(book.account[order], wanted)
        columns = rows.select("account", "venue", "inst", "value")
        for k, (account, venue, inst, given) in enumerate(columns.iter_rows()):
            if place[k] == len(order) or book.account[order[place[k]]] != account:
                continue  # of an account that holds nothing now
            if book.venue[order[place[k]]] != venue:
                raise RuleError(
                    f"the account {account} is not one of {self.universe.venues[venue]}",
                    source="risk_params",
                    column="account",
                    hint="a number of one account is its own venue's",
                )
            first, last = book.offset[order[place[k]]], book.offset[order[place[k]] + 1]
            legs = np.arange(first, last)
            value[legs if inst == NONE else legs[book.inst[first:last] == inst]] = given

    def _named(self, name: str) -> pl.DataFrame:
        return self.rows.filter(pl.col("name") == name)

    def _check_pairs(self) -> None:
        """Borrowing power may not pass the threshold, nor a seizure take more than there is."""
        ltv, threshold = (
            self.by_instrument("ltv", 0.0),
            self.by_instrument("liquidation_threshold", 1.0),
        )
        bonus = self.by_instrument("liquidation_bonus", 0.0)
        both = self.given("ltv") & self.given("liquidation_threshold")
        faults = (
            (both & (ltv > threshold), "ltv {} is above the liquidation threshold {}", ltv),
            (
                self.given("liquidation_bonus") & (bonus > 0.0)
                & self.given("liquidation_threshold") & (threshold * (1.0 + bonus) >= 1.0),
                "bonus {} with threshold {} seizes more than the debt is covered by",
                bonus,
            ),
        )  # fmt: skip
        for fault, words, number in faults:
            if fault.any():
                at = int(np.flatnonzero(fault)[0])
                raise RuleError(
                    words.format(number[at], threshold[at]),
                    source="risk_params",
                    column=self.universe.instruments[at],
                    hint="threshold x (1 + bonus) stays below 1, and ltv at or below the threshold",
                )


def _check_ranges(rows: pl.DataFrame) -> None:
    for name, (low, high) in RANGES.items():
        wrong = rows.with_row_index("row", offset=1).filter(
            (pl.col("name") == name) & ~pl.col("value").is_between(low, high)
        )
        if wrong.height:
            raise RuleError(
                f"{name} is {wrong['value'][0]:g}; it lies between {low:g} and {high:g}",
                source="risk_params",
                row=int(wrong["row"][0]),
                column="value",
                hint="rates and shares are fractions: 0.05, not 5 or 500",
            )


def _check_venues(universe: Universe, rows: pl.DataFrame) -> None:
    """An instrument's number must come from the instrument's own venue."""
    inst = rows["inst"].to_numpy()
    wrong = (inst != NONE) & (universe.venue_of[inst] != rows["venue"].to_numpy())
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RuleError(
            f"{universe.instruments[inst[row]]} is not an instrument of "
            f"{universe.venues[rows['venue'][row]]}",
            source="risk_params",
            row=row + 1,
            column="instrument",
        )


def _check_scopes(rows: pl.DataFrame) -> None:
    own = pl.col("category").is_not_null() | pl.col("account").is_not_null()
    wrong = rows.filter(pl.col("name").is_in(list(_WHOLE)) & own)
    if wrong.height:
        raise RuleError(
            f"{wrong['name'][0]} is given to an account or a category",
            source="risk_params",
            column="name",
            hint="give it to an instrument or a venue",
        )
    wrong = rows.filter(pl.col("name").is_in(list(_VENUE_WIDE)) & (own | (pl.col("inst") != NONE)))
    if wrong.height:
        raise RuleError(
            f"{wrong['name'][0]} is given to something narrower than a venue",
            source="risk_params",
            column="name",
            hint="give it to the venue; leave instrument, category and account empty",
        )
