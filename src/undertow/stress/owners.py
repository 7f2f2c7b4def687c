"""How often owners who are called act: fitted rates, packaged as data, on what a book shows.

`owners.toml` beside this file holds the rates: for lending and for perp accounts the coefficients
of a hazard fit, their covariance, and what they rest on. Rows here are the owners of a book.
Numbers of one owner are those of its account with the lowest health, the first to be called.
"""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import special

from undertow.errors import StateError
from undertow.rules import portfolio
from undertow.rules.margins import account_sums, market_exposure
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import frozen
from undertow.stress.options import End, Responses

KINDS = ("lending", "perp")
COLUMNS = ("log_health", "log_vol", "log_size")  # natural, natural, and of ten
_DAY_US = 86_400_000_000


@dataclass(frozen=True, eq=False)
class OwnersKnown:
    """What a book shows of each owner, by its account with the lowest health."""

    health: FloatColumn  # (owners,) cover over what is asked; infinite where nothing is
    vol: FloatColumn  # annualised, of what the account holds; NaN where no market knows one
    size: FloatColumn  # USD owed, or gross notional where that is more
    perp: BoolColumn  # whether it is the notional

    @classmethod
    def of(cls, snapshot: Snapshot, cash: FloatColumn) -> OwnersKnown:
        """Read it off a snapshot; `cash` is what accounts have been left with beside their legs."""
        book, sums = snapshot.book, account_sums(snapshot)
        asked = sums.asked.copy()
        portfolio.add_requirements(snapshot, snapshot.rules.leg_columns(book), asked)
        asked += np.maximum(-cash, 0.0)
        cover = np.maximum(sums.cover + np.maximum(cash, 0.0), 0.0)
        health = np.divide(cover, asked, out=np.full(len(asked), np.inf), where=asked > 0.0)
        # of equal healths the first account, so that the order of owners alone decides
        order = np.lexsort((np.arange(len(health)), health, book.owner))
        lowest = order[np.searchsorted(book.owner[order], np.arange(len(book.owners)))]
        size = np.maximum(sums.debt, sums.notional)
        return cls(
            frozen(health[lowest]), frozen(_vol_by_account(snapshot)[lowest]), frozen(size[lowest]),
            frozen(sums.notional[lowest] > sums.debt[lowest]),
        )  # fmt: skip


def _vol_by_account(snapshot: Snapshot) -> FloatColumn:
    """Volatility of what each account holds, weighted with its size; NaN where none is known."""
    book, market = snapshot.book, snapshot.market
    usd = np.abs(book.qty) * np.where(snapshot.universe.inverse, 1.0, market.mark)[book.inst]
    known = (market.vol > 0.0) & (market_exposure(snapshot.universe) > 0.0)
    weight = np.where(known[book.inst], usd, 0.0)
    count = book.accounts
    whole = np.bincount(book.leg_account, weights=weight, minlength=count)
    moves = np.bincount(book.leg_account, weights=weight * market.vol[book.inst], minlength=count)
    vol: FloatColumn = np.divide(moves, whole, out=np.full(count, np.nan), where=whole > 0.0)
    return vol


@dataclass(frozen=True, eq=False)
class OwnerRates:
    """Daily rate of the acts of one kind of account, as fitted, and what the fit rests on."""

    kind: str
    source: str
    acts: tuple[str, ...]
    since: dt.date
    until: dt.date
    events: int
    owners: int
    days: float  # watched, of all owners together
    gain: float  # log score per later act over one constant rate; below 0 says columns do not help
    level: float  # of the band
    columns: tuple[str, ...]
    lowest: FloatColumn  # of each column in the record; nothing is said beyond
    highest: FloatColumn
    middle: FloatColumn
    spread: FloatColumn
    coefficients: FloatColumn  # the constant first
    covariance: FloatMatrix

    def daily(self, known: OwnersKnown, *, buffer: float, end: End = End.MIDDLE) -> FloatColumn:
        """Rate per day of each owner, as if it were called.

        Owners are asked when they are called, so health above `buffer` counts as that. Beyond the
        record a column counts as its end, and an unknown one as its middle.
        """
        size = np.maximum(known.size, 10.0 ** float(self.lowest[COLUMNS.index("log_size")]))
        health = np.clip(known.health, math.exp(float(self.lowest[0])), buffer)
        x = np.column_stack([np.log(health), np.log(known.vol), np.log10(size)])
        z = (np.clip(x, self.lowest, self.highest) - self.middle) / self.spread
        design = np.column_stack([np.ones(len(z)), np.where(np.isnan(z), 0.0, z)])
        line = design @ self.coefficients
        if end is not End.MIDDLE:
            error = np.sqrt(np.einsum("na,ab,nb->n", design, self.covariance, design))
            reach = float(special.stdtrit(self.owners - 1, 0.5 + self.level / 2.0)) * error
            line = line + (reach if end is End.HIGH else -reach)
        return np.asarray(np.exp(line))


def fitted_will(
    known: OwnersKnown, responses: Responses, free: FloatColumn, round_us: int
) -> FloatColumn:
    """Share of what it could that each owner does in a round: the chance that it acts within one.

    Who has both ways, assets outside and something to sell, does each at 1 - sqrt(1 - share), so
    that both together make the share.
    """
    rates, end = load_owner_rates(), responses.fitted or End.MIDDLE
    lending, perp = (rates[kind].daily(known, buffer=responses.buffer, end=end) for kind in KINDS)
    share = -np.expm1(-np.where(known.perp, perp, lending) * (round_us / _DAY_US))
    if responses.top_up and responses.delever:
        both = np.zeros(len(share), dtype=np.bool_)
        both[: len(free)] = free[: len(share)] > 0.0
        share = np.where(both, -np.expm1(0.5 * np.log1p(-share)), share)
    return np.asarray(share)


@lru_cache(maxsize=1)
def load_owner_rates() -> Mapping[str, OwnerRates]:
    """The packaged rates by kind of account."""
    text = (files("undertow.stress") / "owners.toml").read_text(encoding="utf-8")
    return read_owner_rates(text, source="owners.toml")


def read_owner_rates(text: str, *, source: str = "owner rates") -> Mapping[str, OwnerRates]:
    """Rates from their TOML: a table `[[rates]]` for each kind of account.

    Raises
    ------
    StateError
        Not TOML, an unknown or missing key or kind, or numbers of the wrong shape.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise StateError(f"not valid TOML: {exc}", source=source) from exc
    found = {}
    for table in data.get("rates", []):
        rates = _rates(table, source)
        found[rates.kind] = rates
    if set(found) != set(KINDS) or set(data) != {"rates"}:
        raise StateError(
            f"there are rates of {', '.join(sorted(found)) or 'nothing'}",
            source=source,
            hint=f"give [[rates]] of kind {' and '.join(KINDS)}, and nothing else",
        )
    return found


def _rates(table: Mapping[str, Any], source: str) -> OwnerRates:
    names = [each.name for each in fields(OwnerRates)]
    if set(table) != set(names):
        odd = ", ".join(sorted(set(table) ^ set(names)))
        raise StateError(f"keys are missing or unknown: {odd}", source=source)
    size = len(COLUMNS)
    shapes = {"coefficients": (size + 1,), "covariance": (size + 1, size + 1)}
    shapes |= dict.fromkeys(("lowest", "highest", "middle", "spread"), (size,))
    values = dict(table) | {name: tuple(table[name]) for name in ("acts", "columns")}
    if values["columns"] != COLUMNS:
        raise StateError(
            f"columns were {', '.join(values['columns'])}",
            source=source,
            hint=f"they are {', '.join(COLUMNS)}",
        )
    for name, shape in shapes.items():
        column = np.array(table[name], dtype=np.float64)
        if column.shape != shape or not np.isfinite(column).all():
            raise StateError(f"{name} is no {shape} numbers", source=source)
        values[name] = frozen(column)
    if (values["spread"] <= 0.0).any() or not 0.0 < table["level"] < 1.0 or table["owners"] < 2:
        raise StateError(
            "spread must be positive, level a share, and owners at least 2", source=source
        )
    return OwnerRates(**values)
