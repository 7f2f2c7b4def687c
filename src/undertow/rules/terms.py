"""The rules of a snapshot, in the columns that the kernels read.

`Rules` are what the venues say: a profile each, and the numbers of a date. `leg_columns` joins them
with a book: what each leg is to its account, and with which weight it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import RuleError
from undertow.kernels import margin as kernel
from undertow.rules.brackets import Brackets, terms_of
from undertow.rules.params import Params
from undertow.rules.profile import PerpRules, Profile, load_profile
from undertow.rules.scaled import size_premium
from undertow.state import AnyColumn, Book, FloatColumn, Universe, as_frame
from undertow.state.arrays import digest
from undertow.state.book import CASH, COLLATERAL, DEBT, FUTURE, OPTION, PERP, PORTFOLIO, SUPPLY
from undertow.state.conform import empty, require
from undertow.state.universe import encode

_ROLES = {
    COLLATERAL: kernel.COLLATERAL,
    DEBT: kernel.DEBT,
    SUPPLY: kernel.SUPPLY,
    CASH: kernel.CASH,
    PERP: kernel.LINEAR,
    FUTURE: kernel.LINEAR,
    OPTION: kernel.OPTION,
}


@dataclass(frozen=True, eq=False)
class Rules:
    """How every venue of a universe judges, at one instant."""

    universe: Universe
    profiles: tuple[Profile | None, ...]  # by venue; None where it judges nothing
    params: Params
    brackets: tuple[Brackets | None, ...]  # by instrument, as published

    @classmethod
    def from_frames(
        cls, universe: Universe, ts: int, risk_params: Any = None, margin_brackets: Any = None
    ) -> Rules:
        """Read the dated numbers and load the profile that each venue names.

        Raises
        ------
        SchemaError, StateError
            When a table does not fit or names what does not exist.
        RuleError
            When a profile is unknown, or a number is impossible.
        """
        day = np.datetime64(ts, "us").astype("datetime64[D]").item()
        profiles = tuple(load_profile(name, day) if name else None for name in universe.profile)
        params = Params.from_frame(universe, risk_params)
        return cls(universe, profiles, params, _published(universe, margin_brackets))

    @cached_property
    def digest(self) -> str:
        """A hash of all profiles and numbers."""
        rows = self.params.rows.with_columns(pl.col("category", "name").fill_null(""))
        tiers = [f"{k}:{b.floor}{b.rate}{b.amount}" for k, b in enumerate(self.brackets) if b]
        ordered = rows.sort("venue", "inst", "category", "account", "name")
        return digest(self.universe.digest, repr(self.profiles), *tiers, ordered.write_csv())

    @cached_property
    def terms(self) -> kernel.Terms:
        """What the venues ask, by instrument, as the kernels read it.

        An instrument without published brackets takes its maintenance rate from its parameters:
        stated, or the profile's share of the initial rate, or of one over the highest leverage.
        """
        rate = self._maintenance_rates()
        derivative = self._derivatives
        tables = list(self.brackets)
        for k in np.flatnonzero(derivative):
            if tables[k] is None and not np.isnan(rate[k]):
                tables[k] = Brackets.flat(float(rate[k]))
        fee = np.where(self._perp_flag("closing_fee"), self.params.by_instrument("taker_fee"), 0.0)
        basis = np.full(len(self.universe.instruments), kernel.TESTED, dtype=np.int8)
        for venue, profile in enumerate(self.profiles):
            if profile is not None and profile.perp is not None:
                basis[self.universe.venue_of == venue] = profile.perp.maintenance_basis.code
        return terms_of(tables, closing_fee=np.where(derivative, fee, 0.0), basis=basis)

    @property
    def _derivatives(self) -> AnyColumn:
        kinds = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future", "option")]
        return np.isin(self.universe.kind, kinds)

    def _perp_flag(self, name: str) -> AnyColumn:
        """Of each instrument, whether its venue's perp rules have the flag `name`."""
        by_venue = [bool(p and p.perp and getattr(p.perp, name)) for p in self.profiles]
        return np.array([*by_venue, False], dtype=np.bool_)[self.universe.venue_of]

    def _maintenance_rates(self) -> FloatColumn:
        share = np.ones(len(self.universe.instruments))
        for venue, profile in enumerate(self.profiles):
            perp: PerpRules | None = profile.perp if profile else None
            if perp is not None and perp.maintenance_of_initial is not None:
                share[self.universe.venue_of == venue] = perp.maintenance_of_initial
        leverage = self.params.by_instrument("max_leverage", np.nan)
        initial = self.params.by_instrument("initial_margin_rate", np.nan)
        stated = self.params.by_instrument("maintenance_margin_rate", np.nan)
        initial = np.where(np.isnan(initial), 1.0 / leverage, initial)
        return np.where(np.isnan(stated), initial * share, stated)

    def _thresholds(self) -> FloatColumn:
        """By instrument, the threshold that the profile fixes where no parameter says one."""
        value = np.zeros(len(self.universe.instruments))
        for venue, profile in enumerate(self.profiles):
            lending = profile.lending if profile else None
            if lending is not None and lending.minimum_ratio is not None:
                value[self.universe.venue_of == venue] = 1.0 / lending.minimum_ratio
        return value

    def leg_columns(self, book: Book) -> kernel.Legs:
        """What each leg of `book` is to its account, and the weight with which it counts.

        Raises
        ------
        RuleError
            When a derivative is held whose venue says nothing of its maintenance.
        """
        role = np.array([_ROLES[kind] for kind in sorted(_ROLES)], dtype=np.int8)[book.kind]
        inverse = self.universe.inverse[book.inst] & (role == kernel.LINEAR)
        role[inverse] = kernel.INVERSE
        weight = np.ones(len(book))
        self._weigh(book, role == kernel.COLLATERAL, "liquidation_threshold", weight)
        self._weigh(book, role == kernel.DEBT, "debt_weight", weight)
        cash = role == kernel.CASH
        if cash.any():
            weight[cash] = 1.0 - self.params.by_leg(book, "haircut")[cash]
        by_grid = (book.mode == PORTFOLIO)[book.leg_account] & (role >= kernel.LINEAR)
        weight[by_grid] = 0.0
        self._require_maintenance(book, (role >= kernel.LINEAR) & ~by_grid)
        self._add_size_premium(book, role, weight)
        return kernel.Legs(book.inst, book.qty, book.entry, role, weight)

    def _weigh(self, book: Book, legs: AnyColumn, name: str, weight: FloatColumn) -> None:
        if legs.any():
            default = self._thresholds() if name == "liquidation_threshold" else 1.0
            weight[legs] = self.params.by_leg(book, name, default)[legs]

    def _add_size_premium(self, book: Book, role: AnyColumn, weight: FloatColumn) -> None:
        """Where maintenance rises with the square root of size, as a multiple of the flat rate."""
        legs = np.flatnonzero(
            self._perp_flag("size_premium")[book.inst] & (role == kernel.LINEAR) & (weight > 0.0)
        )
        if not len(legs):
            return
        imf = self.params.by_instrument("imf_factor")[book.inst[legs]]
        rate = self._maintenance_rates()[book.inst[legs]]
        charged = size_premium(book.qty[legs], imf, rate)
        usable = (imf > 0.0) & (rate > 0.0)
        weight[legs[usable]] = charged[usable] / rate[usable]

    def _require_maintenance(self, book: Book, legs: AnyColumn) -> None:
        terms = self.terms
        bare = (terms.start[1:] == terms.start[:-1])[book.inst] & legs
        if bare.any():
            name = self.universe.instruments[int(book.inst[np.flatnonzero(bare)[0]])]
            raise RuleError(
                f"{name} is held, but nothing says what maintenance it asks",
                source="margin_brackets",
                hint="add its brackets, or max_leverage or maintenance_margin_rate in risk_params",
            )


def _published(universe: Universe, margin_brackets: Any) -> tuple[Brackets | None, ...]:
    """The bracket table of each instrument that has one; of what is held as cash, a haircut's."""
    table = schema.table("margin_brackets")
    rows = require(table, empty(table) if margin_brackets is None else as_frame(margin_brackets))
    inst = encode(
        rows["instrument"], universe.instrument_keys, what="instrument", source=table.name
    )
    rows = rows.with_columns(pl.Series("inst", inst)).sort("inst", "tier")
    built: list[Brackets | None] = [None] * len(universe.instruments)
    counted = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("cash", "reserve", "share")]
    for (code,), part in rows.group_by("inst", maintain_order=True):
        k = int(str(code))
        amount = None if part["amount"].null_count() else part["amount"].to_numpy()
        ceilings = part["max_notional"].to_list()
        try:
            if universe.kind[k] in counted:
                built[k] = Brackets.haircuts(part["min_notional"], ceilings, part["rate"], amount)
            else:
                leverage = part["max_leverage"].fill_null(np.inf).to_numpy()
                built[k] = Brackets.from_columns(
                    part["min_notional"], ceilings, part["rate"], amount, leverage
                )
        except RuleError as error:
            raise RuleError(
                error.message,
                source=f"margin_brackets of {universe.instruments[k]}",
                hint=error.hint,
            ) from error
    return tuple(built)
