"""Whether an account may hold what it holds, where it holds it, by its venue's kind of rules."""

from __future__ import annotations

import numpy as np

from undertow import schema
from undertow.errors import RuleError
from undertow.rules.profile import Profile, Shape
from undertow.state import AnyColumn, Book, Universe
from undertow.state.book import (
    CASH,
    COLLATERAL,
    CROSS,
    DEBT,
    FUTURE,
    ISOLATED,
    OPTION,
    PERP,
    PORTFOLIO,
    SUPPLY,
)

_LENT, _TRADED = (COLLATERAL, DEBT, SUPPLY), (CASH, PERP, FUTURE, OPTION)


def check_accounts(universe: Universe, profiles: tuple[Profile | None, ...], book: Book) -> None:
    """Refuse what no rule of the venue speaks of.

    Raises
    ------
    RuleError
        When a venue with accounts has no profile, lacks the account's margin mode, or judges
        another kind of position; or when an option is sold outside a portfolio margin group.
    """
    for venue in np.unique(book.venue):
        profile = profiles[venue]
        if profile is None:
            raise RuleError(
                f"{universe.venues[venue]} has accounts, but no rule profile",
                source="venues",
                column="profile",
                hint="name one, such as generic-lending or generic-perp",
            )
        _check_modes(universe, profile, book, int(venue))
    shape = np.array([p is not None and p.shape is Shape.LENDING for p in profiles], dtype=np.bool_)
    lends = shape[book.venue][book.leg_account]
    strange = np.where(lends, np.isin(book.kind, _TRADED), np.isin(book.kind, _LENT))
    _refuse(universe, book, strange, "is held as {kind} at a venue whose profile knows none")
    grouped = (book.mode == PORTFOLIO)[book.leg_account]
    sold = (book.kind == OPTION) & (book.qty < 0.0) & ~grouped
    _refuse(universe, book, sold, "is an option sold outside a portfolio margin group")


def _check_modes(universe: Universe, profile: Profile, book: Book, venue: int) -> None:
    has = {
        CROSS: profile.perp is None or profile.perp.cross,
        ISOLATED: profile.perp is None or profile.perp.isolated,
        PORTFOLIO: profile.grid is not None,
    }
    here = book.venue == venue
    for mode, allowed in has.items():
        wrong = here & (book.mode == mode)
        if not allowed and wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise RuleError(
                f"the account {book.account[at]} at {universe.venues[venue]} is margined "
                f"{schema.MARGIN_MODES[mode]}, which the profile {profile.name} does not have",
                source="accounts",
                column="mode",
                hint="correct the mode or the venue's profile"
                + ("; generic-portfolio has a grid" if mode == PORTFOLIO else ""),
            )


def _refuse(universe: Universe, book: Book, legs: AnyColumn, words: str) -> None:
    if legs.any():
        leg = int(np.flatnonzero(legs)[0])
        kind = schema.POSITION_KINDS[book.kind[leg]]
        raise RuleError(
            f"{universe.instruments[book.inst[leg]]} {words.format(kind=kind)}",
            source="positions",
            column="kind",
            hint=f"account {book.account[book.leg_account[leg]]}",
        )
