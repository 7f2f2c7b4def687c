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
from undertow.rules.single import Basis
from undertow.rules.standing import check_accounts
from undertow.state import AnyColumn, Book, FloatColumn, Universe, as_frame
from undertow.state.arrays import digest
from undertow.state.book import CASH, COLLATERAL, DEBT, FUTURE, OPTION, PERP, PORTFOLIO, SUPPLY
from undertow.state.conform import empty, require
from undertow.state.universe import NONE, encode

_RATES = ("max_leverage", "initial_margin_rate", "maintenance_margin_rate")
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
        _check_categories(universe, profiles, params)
        return cls(universe, profiles, params, _published(universe, margin_brackets))

    def __repr__(self) -> str:
        judged = sum(profile is not None for profile in self.profiles)
        return f"Rules({judged} venues with a profile, {self.params!r})"

    @cached_property
    def digest(self) -> str:
        """A hash of all profiles and numbers."""
        rows = self.params.rows.with_columns(pl.col("category", "name").fill_null(""))
        ordered = rows.sort("venue", "inst", "category", "account", "name")
        values = ordered["value"].to_numpy()  # as bits: text would round them
        words = ordered.drop("value").write_csv()
        return digest(self.universe.digest, repr(self.profiles), words, values, *self.terms)

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
                held_at = profile.perp.maintenance_basis
                # A venue whose published price holds maintenance at the present mark still closes
                # on that of the tested one.
                code = kernel.TESTED if held_at is Basis.CURRENT else held_at.code
                basis[self.universe.venue_of == venue] = code
        return terms_of(tables, closing_fee=np.where(derivative, fee, 0.0), basis=basis)

    @property
    def _derivatives(self) -> AnyColumn:
        kinds = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future", "option")]
        return np.isin(self.universe.kind, kinds)

    def _perp_flag(self, name: str) -> AnyColumn:
        """Of each instrument, whether its venue's perp rules have the flag `name`."""
        by_venue = [bool(p and p.perp and getattr(p.perp, name)) for p in self.profiles]
        return np.array([*by_venue, False], dtype=np.bool_)[self.universe.venue_of]

    def _maintenance_rates(self, book: Book | None = None) -> FloatColumn:
        """Maintenance rate by instrument, or by leg of `book`; NaN where nothing says one."""
        share = np.ones(len(self.universe.instruments))
        for venue, profile in enumerate(self.profiles):
            perp: PerpRules | None = profile.perp if profile else None
            if perp is not None and perp.maintenance_of_initial is not None:
                share[self.universe.venue_of == venue] = perp.maintenance_of_initial
        names = ("max_leverage", "initial_margin_rate", "maintenance_margin_rate")
        if book is None:
            leverage, initial, stated = (self.params.by_instrument(n, np.nan) for n in names)
        else:
            leverage, initial, stated = (self.params.by_leg(book, n, np.nan) for n in names)
            share = share[book.inst]
        initial = np.where(np.isnan(initial), 1.0 / leverage, initial)
        return np.where(np.isnan(stated), initial * share, stated)

    def _thresholds(self) -> FloatColumn:
        """By instrument, the threshold that the profile fixes where no parameter says one."""
        value = np.full(len(self.universe.instruments), np.nan)
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
        check_accounts(self.universe, self.profiles, book)
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
        straight = ((role == kernel.LINEAR) | (role == kernel.INVERSE)) & ~by_grid
        self._require_maintenance(book, straight)
        self._own_rates(book, straight, weight)
        self._add_size_premium(book, straight, weight)
        return kernel.Legs(book.inst, book.qty, book.entry, role, weight)

    def _weigh(self, book: Book, legs: AnyColumn, name: str, weight: FloatColumn) -> None:
        if legs.any():
            default = self._thresholds() if name == "liquidation_threshold" else 1.0
            own = self.params.by_leg(book, name, default)[legs]
            if np.isnan(own).any():
                leg = np.flatnonzero(legs)[np.flatnonzero(np.isnan(own))[0]]
                raise RuleError(
                    f"nothing says the {name} of {self.universe.instruments[book.inst[leg]]}, "
                    "which is held",
                    source="risk_params",
                    hint="add one for the instrument or its venue; 0 where it does not count",
                )
            weight[legs] = own

    def _own_rates(self, book: Book, legs: AnyColumn, weight: FloatColumn) -> None:
        """Where an account or a category has a maintenance rate of its own, as a multiple."""
        if not self.params.narrow(_RATES):
            return
        plain, own = self._maintenance_rates()[book.inst], self._maintenance_rates(book)
        differ = np.flatnonzero(legs & ~np.isnan(own) & (own != plain))
        tiers = np.diff(self.terms.start)[book.inst[differ]]
        unusable = (tiers != 1) | np.isnan(plain[differ])
        if unusable.any():
            name = self.universe.instruments[int(book.inst[differ[np.flatnonzero(unusable)[0]]])]
            raise RuleError(
                f"an account or a category has a maintenance rate of its own for {name}, which is "
                "margined by brackets",
                source="risk_params",
                hint="a rate of one's own needs an instrument with one flat rate",
            )
        weight[differ] = own[differ] / plain[differ]

    def _add_size_premium(self, book: Book, straight: AnyColumn, weight: FloatColumn) -> None:
        """Where maintenance rises with the square root of size, as a multiple of the flat rate."""
        legs = np.flatnonzero(self._perp_flag("size_premium")[book.inst] & straight)
        if not len(legs):
            return
        imf = self.params.by_instrument("imf_factor")[book.inst[legs]]
        rate = self._maintenance_rates()[book.inst[legs]] * weight[legs]
        charged = size_premium(book.qty[legs], imf, rate)
        usable = (imf > 0.0) & (rate > 0.0)
        weight[legs[usable]] *= charged[usable] / rate[usable]

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


def _check_categories(
    universe: Universe, profiles: tuple[Profile | None, ...], params: Params
) -> None:
    """Where accounts choose a category, its terms are those of its members, named one by one."""
    chosen = [v for v, p in enumerate(profiles) if p and p.lending and p.lending.categories]
    loose = params.rows.filter(
        pl.col("venue").is_in(chosen) & pl.col("category").is_not_null() & (pl.col("inst") == NONE)
    )
    if loose.height:
        raise RuleError(
            f"the category {loose['category'][0]!r} of {universe.venues[loose['venue'][0]]} gives "
            f"{loose['name'][0]} to every instrument of the venue",
            source="risk_params",
            column="instrument",
            hint="name each instrument that is a member of the category",
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
