"""Shocks that change what is held and what is asked: counterfeit collateral, wrong parameters.

What they do is done to the book, the reserves and the rules of the snapshot itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.rules.brackets import Brackets
from undertow.rules.params import Params
from undertow.state import Book, FloatColumn
from undertow.state.arrays import frozen
from undertow.state.book import COLLATERAL, CROSS, DEBT, UNKNOWN_OWNER
from undertow.state.universe import NONE
from undertow.stress.shock import Shock, near, require_within
from undertow.stress.stressed import Stressed

_MODELLED = schema.EVIDENCE.index("modelled")
_RATES = ("max_leverage", "initial_margin_rate", "maintenance_margin_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfeit(Shock):
    """Collateral that backs nothing is posted at a lender, and all it is good for is borrowed.

    A new account of a new owner posts `qty` (or so many `usd`) of `asset` and takes `borrow`, up to
    `ltv` of its value and no more than the reserve still holds. Without `ltv` the venue's own
    holds; without `borrow` the reserve with most left is emptied first.
    """

    asset: str
    venue: str
    qty: float = 0.0
    usd: float = 0.0
    borrow: str = ""
    ltv: float | None = None

    def __post_init__(self) -> None:
        """Refuse both a quantity and a value, or neither."""
        require_within("qty", self.qty, 0.0)
        require_within("usd", self.usd, 0.0)
        if (self.qty > 0.0) == (self.usd > 0.0):
            raise StateError(f"exactly one of qty and usd is needed, not {self.qty} and {self.usd}")
        if self.ltv is not None:
            require_within("ltv", self.ltv, 0.0, 1.0)

    def apply(self, stressed: Stressed) -> Stressed:
        """Add the account, and what it did to the two reserves."""
        snapshot = stressed.snapshot
        mark, idle = snapshot.market.mark, _idle(stressed)
        posted = _reserve(stressed, self.venue, self.asset)
        qty = self.qty or self.usd / mark[posted]
        taken = self._taken(stressed, posted, idle)
        room = self._share(stressed, posted) * qty * mark[posted] / mark[taken]
        debt = min(room, idle[taken]) if snapshot.liquidity.supplied[taken] > 0.0 else room
        book = _with_account(
            snapshot.book,
            snapshot.universe.code("venue", self.venue),
            [(posted, COLLATERAL, qty), (taken, DEBT, -debt)],
        )
        liquidity = snapshot.liquidity
        supplied, borrowed = liquidity.supplied.copy(), liquidity.borrowed.copy()
        supplied[posted] += qty
        borrowed[taken] += debt
        new = replace(
            snapshot,
            book=book,
            free=replace(snapshot.free, owners=len(book.owners)),
            liquidity=replace(liquidity, supplied=frozen(supplied), borrowed=frozen(borrowed)),
        )
        names = snapshot.universe.instruments
        return replace(stressed, snapshot=new).noted(
            f"{qty:,.6g} counterfeit units posted in {names[posted]}; {debt:,.6g} borrowed from "
            f"{names[taken]}, {debt * mark[taken]:,.0f} USD"
        )

    def _taken(self, stressed: Stressed, posted: int, idle: FloatColumn) -> int:
        if self.borrow:
            return _reserve(stressed, self.venue, self.borrow)
        universe, mark = stressed.universe, stressed.snapshot.market.mark
        left = np.where(universe.venue_of == universe.venue_of[posted], idle * mark, 0.0)
        left[posted] = 0.0
        if not left.max() > 0.0:
            raise StateError(
                f"nobody says what the reserves of {self.venue!r} still hold",
                hint="name the asset to `borrow`",
            )
        return int(left.argmax())

    def _share(self, stressed: Stressed, posted: int) -> float:
        if self.ltv is not None:
            return self.ltv
        params = stressed.snapshot.rules.params
        threshold = params.by_instrument("liquidation_threshold", np.nan)
        share = params.by_instrument("ltv", threshold)[posted]
        if np.isnan(share):
            raise StateError(
                f"nothing says how much {stressed.universe.instruments[posted]} is good for",
                hint="give the shock an `ltv`",
            )
        return float(share)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterError(Shock):
    """A number of a venue's rules is set wrong, for everybody, or for one instrument or category.

    It replaces every number of that name in its scope, the narrower ones too: a threshold set on an
    instrument is then that of all its categories. A margin rate takes the place of brackets.
    """

    venue: str
    name: str
    value: float
    instrument: str = ""
    category: str = ""

    def __post_init__(self) -> None:
        """Refuse a number that no venue has, and a category without an instrument."""
        known = schema.table("risk_params").column("name").choices
        if self.name not in known:
            raise StateError(f"no parameter is called {self.name!r}", hint=near(self.name, known))
        if self.category and not self.instrument:
            raise StateError(f"the category {self.category!r} needs an instrument of its own")

    def apply(self, stressed: Stressed) -> Stressed:
        """Put the number in the place of all it overrides.

        Raises
        ------
        RuleError
            When the number is impossible, or contradicts another.
        """
        snapshot, universe = stressed.snapshot, stressed.universe
        venue = universe.code("venue", self.venue)
        inst = universe.code("instrument", self.instrument) if self.instrument else NONE
        rows = snapshot.rules.params.rows
        covered = (pl.col("name") == self.name) & (pl.col("venue") == venue)
        if inst != NONE:
            covered &= pl.col("inst") == inst
        if self.category:
            covered &= pl.col("category") == self.category
        wrong = pl.DataFrame(
            [(venue, inst, self.category or None, None, self.name, self.value)],
            schema=rows.schema,
            orient="row",
        )
        params = Params.from_frame(universe, _named(stressed, rows.filter(~covered), wrong))
        rules = replace(snapshot.rules, params=params, brackets=self._brackets(stressed, inst))
        where = self.instrument or self.venue
        return replace(stressed, snapshot=replace(snapshot, rules=rules)).noted(
            f"{self.name} of {where} is {self.value:g}"
        )

    def _brackets(self, stressed: Stressed, inst: int) -> tuple[Brackets | None, ...]:
        brackets = stressed.snapshot.rules.brackets
        if self.name not in _RATES or self.category:
            return brackets
        universe = stressed.universe
        here = universe.venue_of == universe.code("venue", self.venue)
        if inst != NONE:
            here = np.arange(len(here)) == inst
        perps = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future")]
        here &= np.isin(universe.kind, perps)
        return tuple(None if here[k] else each for k, each in enumerate(brackets))


def _idle(stressed: Stressed) -> FloatColumn:
    """What each reserve has left to lend, after those who ran."""
    liquidity = stressed.snapshot.liquidity
    stayed = liquidity.supplied * (1.0 - stressed.withdrawn)
    left: FloatColumn = np.maximum(stayed - liquidity.borrowed, 0.0)
    return left


def _reserve(stressed: Stressed, venue: str, asset: str) -> int:
    universe = stressed.universe
    lent = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("reserve", "share")]
    here = (universe.venue_of == universe.code("venue", venue)) & np.isin(universe.kind, lent)
    found = np.flatnonzero(here & (universe.asset_of == universe.code("asset", asset)))
    priced = found[stressed.snapshot.market.mark[found] > 0.0]
    if not len(priced):
        names = tuple(universe.assets[k] for k in np.unique(universe.asset_of[here]))
        raise StateError(f"{venue!r} has no priced reserve of {asset!r}", hint=near(asset, names))
    return int(priced[0])


def _with_account(book: Book, venue: int, legs: list[tuple[int, int, float]]) -> Book:
    """The book with one more account, of an owner that nobody knows: it stands last."""
    inst, kind, qty = zip(*sorted(legs), strict=True)

    def longer(column: np.ndarray, *values: float) -> np.ndarray:
        return frozen(np.append(column, np.array(values, dtype=column.dtype)))

    none = (0.0,) * len(legs)
    return replace(
        book,
        account=longer(book.account, book.account.max(initial=0) + 1),
        venue=longer(book.venue, venue),
        mode=longer(book.mode, CROSS),
        category=longer(book.category, NONE),
        owner=longer(book.owner, len(book.owners)),
        owners=longer(book.owners, UNKNOWN_OWNER),
        offset=longer(book.offset, book.offset[-1] + len(legs)),
        inst=longer(book.inst, *inst),
        kind=longer(book.kind, *kind),
        qty=longer(book.qty, *qty),
        entry=longer(book.entry, *none),
        evidence=longer(book.evidence, *(_MODELLED,) * len(legs)),
    )


def _named(stressed: Stressed, *frames: pl.DataFrame) -> pl.DataFrame:
    """Coded parameters as rows of their table."""
    universe, rows = stressed.universe, pl.concat(frames)
    inst = rows["inst"]
    return rows.select(
        pl.lit(stressed.snapshot.ts).cast(pl.Datetime("us", "UTC")).alias("ts"),
        pl.Series("venue", [universe.venues[k] for k in rows["venue"]], dtype=pl.String),
        pl.Series(
            "instrument",
            [None if k == NONE else universe.instruments[k] for k in inst],
            dtype=pl.String,
        ),
        "category",
        "account",
        "name",
        "value",
    )
