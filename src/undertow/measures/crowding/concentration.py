"""How much of what is leveraged stands with few: who owes, who bets, and at which leverage.

An owner is all accounts of one key; an account of no known owner is an owner of its own, and is
never merged. Brackets and quantiles of leverage are over accounts, since an account is what is
called.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.econometrics.concentration import (
    Concentration,
    Ranking,
    concentration_bands,
    ranking,
)  # fmt: skip
from undertow.econometrics.concentration import (
    concentration as concentration_of,
)
from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ranks import owner_ranks
from undertow.measures.crowding.redrawn import FEW, Redrawn, added
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.leverage import GROUPS, nodes
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, BoolColumn, FloatColumn, Reading

WHOLES = ("debt", "notional", "leveraged")
TOPS = (1, 5, 10)
BRACKETS = (
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    50.0,
)  # leverage at which one ends, the next begins
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
WITHOUT = "without equity"
_MOST = 12  # nodes of a division whose concentration is told
_STEPS = 512  # steps of leverage within which a drawn quantile is told
_DRAWN = (
    "band: percentiles over draws in which every owner comes as often as a Poisson variable of "
    "mean 1 says, one that comes twice being two"
)
_READ = (
    "Effective holders are how many alike would be as concentrated: 1 over the sum of squared "
    "shares. Shares are of the whole that was seen. A bracket holds accounts by (assets held "
    "outright + gross notional) over equity, and quantiles are over what they have leveraged, so "
    "half of it stands at the median or more. The rank of an owner, and how often it stays among "
    "the largest, are over draws of accounts: had other accounts of the same kind been seen."
)
_MISLEADS = (
    "Bands are of a book whose owners were a draw from many: where the largest hold much, other "
    "owners would have had other giants, which no drawing from these can show, and bands of "
    "concentration and of top shares are too narrow: of 400 owners with tail index 1.5, those of "
    "90 % hold the usual index in two of three, and those of the share of the largest hold it in "
    "half to seven of ten whatever the tail. An owner with one account is in a draw of "
    "accounts or is not, so it stays among the largest in two of three at best. Owners whose "
    "accounts nobody tied together count as many: concentration is a lower bound."
)


def concentration(
    book: Snapshot | Crowd | Any,
    *,
    by: str = "venue",
    top: int = 10,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """How much of debt, of notional and of both stands with few owners, and at which leverage.

    `by` is a division in which the same is told node by node, without bands: of an account with
    legs in several nodes, what is leveraged is split as its exposure is. `top` owners are named,
    with their accounts and venues.

    Raises
    ------
    StateError
        When it is no book, the division is unknown or nobody is to be named.
    EstimationError
        When the level is out of range or the draws are too few.

    References
    ----------
    Hirschman (1964), "The paternity of an index". Hall and Miller (2009), on how sure a ranking is.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    if by not in GROUPS:
        raise StateError(f"there is no division by {by!r}", hint=f"have {', '.join(GROUPS)}")
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise StateError(f"top was {top!r}; it must be a whole number from 1 up")
    wholes = [_Whole.of(crowd, name, reps, level, seed) for name in WHOLES]
    ratio = leverage_of(crowd)
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=reps, seed=seed, level=level)
    ranked = ranking(
        crowd.holder, crowd.leveraged, top, reps=reps, level=level, seed=seed
    )  # fmt: skip
    tables = {
        "concentration": pl.DataFrame([each.row() for each in wholes]),
        "owners": owner_rows(crowd, ranked.index.astype(np.int64)).hstack(_ranks(ranked)),
        "brackets": _brackets(crowd, ratio),
        "quantiles": _quantiles(crowd, ratio, drawn),
        "curve": pl.concat([each.curve() for each in wholes]),
        "nodes": _by_node(crowd, by),
    }
    return Study(
        name="crowding.concentration",
        title="How much of what is leveraged stands with few",
        readings=tuple(_readings(crowd, wholes, tables["quantiles"], level)),
        tables=tables,
        says=tuple(_says(crowd, wholes, tables, by)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def leverage_of(crowd: Crowd) -> FloatColumn:
    """(accounts,) Leverage; infinite without equity."""
    seen = crowd.exposures
    size = seen.added(seen.outright) + crowd.notional
    ratio = np.full(len(size), np.inf)
    np.divide(size, seen.equity, out=ratio, where=seen.equity > 0.0)
    return ratio


@dataclass(frozen=True, eq=False)
class _Whole:
    """One thing that owners have, and how it is divided among them."""

    name: str
    found: Concentration
    row_ends: dict[str, tuple[float, float] | None]

    @classmethod
    def of(cls, crowd: Crowd, name: str, reps: int, level: float, seed: int) -> _Whole:
        held = added(crowd.holder, getattr(crowd, name), len(crowd.snapshot.book.owners))
        held = held[held > 0.0]
        found = concentration_of(held)
        bands = concentration_bands(held, TOPS, reps=reps, level=level, seed=seed)
        ends: dict[str, tuple[float, float]] = {
            "hhi": bands.hhi, "effective": bands.effective, "gini": bands.gini,
        }  # fmt: skip
        ends |= {
            f"top_{k}": (float(a), float(b)) for k, (a, b) in zip(TOPS, bands.top, strict=True)
        }
        few = found.holders < FEW
        return cls(name, found, {key: None if few else band for key, band in ends.items()})

    @property
    def values(self) -> dict[str, float | None]:
        """What is told of it; nothing where nobody has any."""
        found = self.found
        if not found.holders:
            return dict.fromkeys(("hhi", "effective", "gini", *(f"top_{k}" for k in TOPS)))
        return {
            "hhi": found.hhi, "effective": found.effective, "gini": found.gini,
            **{f"top_{k}": found.top_share(k) for k in TOPS},
        }  # fmt: skip

    def row(self) -> dict[str, str | float | None]:
        """A row of the table."""
        row: dict[str, str | float | None] = {
            "whole": self.name, "usd": self.found.total, "owners": self.found.holders
        }  # fmt: skip
        for key, value in self.values.items():
            band = self.row_ends[key] or (None, None)
            row |= {key: value, f"{key}_low": band[0], f"{key}_high": band[1]}
        return row

    def curve(self) -> pl.DataFrame:
        """Share that the largest hold together, at so many owners."""
        count = self.found.holders
        at = np.unique(np.geomspace(1, max(count, 1), 60).astype(np.int64))[: max(count, 0)]
        return pl.DataFrame(
            {"whole": [self.name] * len(at), "owners": at, "share": self.found.top[at - 1]}
        )


def owner_rows(crowd: Crowd, owner: AnyColumn) -> pl.DataFrame:
    """What each of some owners has, with its accounts: columns as they are looked up.

    `owner` are codes of the book, in the order of the rows.
    """
    book, seen = crowd.snapshot.book, crowd.exposures
    start = np.searchsorted(book.owner, owner)
    end = np.searchsorted(book.owner, owner, side="right")
    size = seen.added(seen.outright) + crowd.notional
    rows: list[dict[str, Any]] = []
    for a, b in zip(start.tolist(), end.tolist(), strict=True):
        mine = slice(a, b)
        equity = float(seen.equity[mine].sum())
        venues = np.unique(book.venue[mine]).tolist()
        rows.append(
            {
                "owner": name_of(crowd, a),
                "accounts": b - a,
                "account_keys": [int(key) for key in book.account[mine][:20]],
                "venues": [crowd.snapshot.universe.venues[v] for v in venues],
                "debt_usd": float(crowd.debt[mine].sum()),
                "notional_usd": float(crowd.notional[mine].sum()),
                "leveraged_usd": float(crowd.leveraged[mine].sum()),
                "equity_usd": equity,
                "leverage": float(size[mine].sum()) / equity if equity > 0.0 else None,
            }
        )
    return pl.DataFrame(rows, schema=_OWNER)


_OWNER: dict[str, Any] = {
    "owner": pl.String, "accounts": pl.Int64, "account_keys": pl.List(pl.Int64),
    "venues": pl.List(pl.String), "debt_usd": pl.Float64, "notional_usd": pl.Float64,
    "leveraged_usd": pl.Float64, "equity_usd": pl.Float64, "leverage": pl.Float64,
}  # fmt: skip


def name_of(crowd: Crowd, account: int) -> str:
    """What the owner of an account (its row) is called; an unknown one by its account."""
    book = crowd.snapshot.book
    if crowd.owned[account]:
        return f"owner {int(book.owners[book.owner[account]])}"
    return f"account {int(book.account[account])}"


def _ranks(ranked: Ranking) -> pl.DataFrame:
    """The place of each owner; a rank that is past what is told apart is empty."""
    ends = {"leveraged_low": ranked.low, "leveraged_high": ranked.high}
    return owner_ranks(ranked).hstack(pl.DataFrame(ends))


def _brackets(crowd: Crowd, ratio: FloatColumn) -> pl.DataFrame:
    """Who has something leveraged, by leverage; those without equity stand beside, last."""
    some = crowd.leveraged > 0.0
    place = np.searchsorted(BRACKETS, ratio, side="right")
    place[np.isinf(ratio)] = len(BRACKETS) + 1
    ends = [f"{end:g}" for end in BRACKETS]
    names = [f"below {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends))]
    names += [f"{ends[-1]} or more", WITHOUT]

    def total(column: FloatColumn) -> FloatColumn:
        return added(place[some], column[some], len(names))

    leveraged = total(crowd.leveraged)
    whole = leveraged.sum()
    return pl.DataFrame(
        {
            "leverage": names,
            "low": [0.0, *BRACKETS, None],
            "accounts": np.bincount(place[some], minlength=len(names)),
            "debt_usd": total(crowd.debt),
            "notional_usd": total(crowd.notional),
            "leveraged_usd": leveraged,
            "share": leveraged / whole if whole > 0.0 else [None] * len(names),
            "equity_usd": total(crowd.exposures.equity),
        },
        schema_overrides={"share": pl.Float64},
    )


def _quantiles(crowd: Crowd, ratio: FloatColumn, drawn: Redrawn) -> pl.DataFrame:
    """Leverage at or below which such a share of a whole stands, of those with equity."""
    some = np.flatnonzero((crowd.leveraged > 0.0) & np.isfinite(ratio))
    order = some[np.argsort(ratio[some])]
    rows: list[dict[str, Any]] = []
    for name in WHOLES:
        size = getattr(crowd, name)[order]
        if not size.any():
            rows += [{"whole": name, "quantile": q} for q in QUANTILES]
            continue
        cover = np.cumsum(size)
        lows, highs = _quantile_bands(order, ratio, size, drawn, crowd)
        rows += [
            {
                "whole": name, "quantile": q, "leverage": float(ratio[order[_reached(cover, q)]]),
                "low": known(low), "high": known(high),
            }
            for q, low, high in zip(QUANTILES, lows.tolist(), highs.tolist(), strict=True)
        ]  # fmt: skip
    types = {"whole": pl.String} | dict.fromkeys(
        ("quantile", "leverage", "low", "high"), pl.Float64
    )
    return pl.DataFrame(rows, schema=types)


def _reached(cover: FloatColumn, q: float) -> int:
    """Where a running sum reaches a share of its end."""
    return min(int(np.searchsorted(cover, q * cover[-1])), len(cover) - 1)


def _quantile_bands(
    order: AnyColumn, ratio: FloatColumn, size: FloatColumn, drawn: Redrawn, crowd: Crowd
) -> tuple[FloatColumn, FloatColumn]:
    """Bands of the quantiles: leverage, which rises in `order`, is told in steps of neighbours."""
    who = crowd.holder[order[np.flatnonzero(size > 0.0)[: 64 * FEW]]]
    if len(np.unique(who)) < FEW:
        nothing = np.full(len(QUANTILES), np.nan)
        return nothing, nothing
    steps = min(_STEPS, len(order))
    ends = (np.arange(1, steps + 1) * len(order)) // steps
    step = np.repeat(np.arange(steps), np.diff(ends, prepend=0))
    lead = ratio[order[ends - 1]]
    cover = np.cumsum(drawn.sums(order, step, size, steps), axis=1)
    whole = cover[:, -1:]
    found = np.full((len(cover), len(QUANTILES)), np.nan)
    for k, q in enumerate(QUANTILES):
        at = np.minimum((cover < q * whole).sum(axis=1), steps - 1)
        found[:, k] = np.where(whole[:, 0] > 0.0, lead[at], np.nan)
    return drawn.band(found)


def _by_node(crowd: Crowd, by: str) -> pl.DataFrame:
    """Concentration within every node: what each owner has leveraged there."""
    owner, node, usd, names = _held_in(crowd, by)
    rows: list[dict[str, Any]] = []
    order = np.argsort(node.astype(np.int16), kind="stable")  # of short whole numbers: by radix
    ends = np.searchsorted(node[order], np.arange(len(names) + 1))
    total = added(node, usd, len(names))
    largest = np.argsort(-total, kind="stable")
    for n in largest[total[largest] > 0.0].tolist():
        mine = order[ends[n] : ends[n + 1]]
        found = concentration_of(usd[mine])
        first = int(owner[mine[np.argmax(usd[mine])]])
        at = int(np.searchsorted(crowd.snapshot.book.owner, first))
        rows.append(
            {
                "node": names[n], "leveraged_usd": float(total[n]), "owners": found.holders,
                "hhi": found.hhi, "effective": found.effective, "gini": found.gini,
                **{f"top_{k}": found.top_share(k) for k in TOPS}, "largest": name_of(crowd, at),
            }
        )  # fmt: skip
    floats = ("hhi", "effective", "gini", *(f"top_{k}" for k in TOPS))
    types: dict[str, Any] = {"node": pl.String, "leveraged_usd": pl.Float64, "owners": pl.Int64}
    types |= dict.fromkeys(floats, pl.Float64) | {"largest": pl.String}
    return pl.DataFrame(rows, schema=types)


def _held_in(crowd: Crowd, by: str) -> tuple[AnyColumn, AnyColumn, FloatColumn, Any]:
    """Owner, node and USD leveraged, a row for each pair of them; and what nodes are called."""
    book, seen = crowd.snapshot.book, crowd.exposures
    node, names = nodes(seen, by)
    if by in ("asset", "sector"):
        size = seen.outright + seen.notional + seen.delta
        whole = seen.added(size)[book.leg_account]
        part = np.divide(size, whole, out=np.zeros_like(size), where=whole > 0.0)
        usd, at = part * crowd.leveraged[book.leg_account], book.leg_account
    else:
        has = np.flatnonzero(np.diff(book.offset) > 0)
        usd, at, node = crowd.leveraged[has], has.astype(np.int32), node[book.offset[has]]
    some: BoolColumn = (usd > 0.0) & (node >= 0)
    # Owners stand together in the book, so pairs are found within runs without a sort of names.
    key = crowd.holder[at[some]].astype(np.int64) * len(names) + node[some]
    pairs, place = _told_apart(key)
    held = added(place, usd[some], len(pairs))
    return pairs // len(names), pairs % len(names), held, names


def _told_apart(key: AnyColumn) -> tuple[AnyColumn, AnyColumn]:
    """The different keys, rising, and the place of each among them."""
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    head = np.ones(len(key), dtype=np.bool_)
    head[1:] = sorted_key[1:] != sorted_key[:-1]
    place = np.empty(len(key), dtype=np.int64)
    place[order] = np.cumsum(head) - 1
    return sorted_key[head], place


_NAMED = {
    "effective": "effective holders of what is {}: 1 over the sum of squared shares of owners",
    "hhi": "sum of squared shares of owners in what is {}",
    "gini": "Gini coefficient of what is {} over owners with any",
    **{f"top_{k}": f"share of what is {{}} of the {k} largest owners together" for k in TOPS},
}
_MEANT = {
    "debt": "owed",
    "notional": "controlled by derivatives, gross",
    "leveraged": "leveraged (debt and gross notional)",
}


def _readings(
    crowd: Crowd, wholes: list[_Whole], quantiles: pl.DataFrame, level: float
) -> list[Reading]:
    found: list[Reading] = []
    by_name = {each.name: each for each in wholes}
    for name in ("leveraged", "debt", "notional"):
        each = by_name[name]
        subject = "" if name == "leveraged" else name
        for key, words in _NAMED.items():
            found.append(
                crowd.reading(
                    f"crowding.{key}", each.values[key], "1",
                    f"{words.format(_MEANT[name])}; none where nobody has any; {_DRAWN}",
                    subject=subject, band=each.row_ends[key], level=level,
                )
            )  # fmt: skip
        row = quantiles.filter((pl.col("whole") == name) & (pl.col("quantile") == 0.5))
        low, high = row["low"].item(), row["high"].item()
        found.append(
            crowd.reading(
                "crowding.median_leverage", row["leverage"].item(), "1",
                f"leverage of accounts with equity at or below which half of what is "
                f"{_MEANT[name]} stands; none where nobody has any; {_DRAWN}",
                subject=subject, band=None if low is None or high is None else (low, high),
                level=level,
            )
        )  # fmt: skip
    return found


def _says(
    crowd: Crowd, wholes: list[_Whole], tables: dict[str, pl.DataFrame], by: str
) -> list[str]:
    both = wholes[-1]
    if not both.found.holders:
        return ["Nobody owes anything or holds a derivative: there is nothing to be concentrated."]
    values = both.values
    says = [
        (
            f"{many(both.found.holders, 'owner has', 'owners have')} "
            f"{told(both.found.total, 3)} USD leveraged, as concentrated as if "
            f"{told(values['effective'])} held it alike: the largest has "
            f"{percent(values['top_1'])}, the ten largest {percent(values['top_10'])}."
        )
    ]
    owners = tables["owners"]
    first = owners.row(0, named=True)
    held = "no equity" if first["leverage"] is None else f"a leverage of {told(first['leverage'])}"
    says.append(
        f"The largest is {first['owner']}, with {told(first['leveraged_usd'], 3)} USD at {held} in "
        f"{many(first['accounts'], 'account')} on {listed(first['venues'])}; it stays among the "
        f"{owners.height} largest in {percent(first['stays'])} of draws of accounts."
    )
    half = tables["quantiles"].filter(pl.col("whole") == both.name)
    half = half.filter(pl.col("quantile").is_in([0.5, 0.9])).sort("quantile")
    if half["leverage"].null_count() == 0:
        mid, high = half["leverage"].to_list()
        says.append(
            f"Half of it stands at a leverage of {told(mid)} or more, a tenth at {told(high)} or "
            "more."
        )
    gone = tables["brackets"].filter(pl.col("leverage") == WITHOUT).row(0, named=True)
    if gone["accounts"]:
        accounts = many(gone["accounts"], "account has", "accounts have")
        says.append(
            f"{accounts} no equity left and {told(gone['leveraged_usd'], 3)} USD leveraged: they "
            "have no leverage and stand in no quantile."
        )
    inside = tables["nodes"].head(_MOST).filter(pl.col("owners") >= FEW)
    if inside.height:
        most = inside.sort("effective", "node").row(0, named=True)
        says.append(
            f"By {by}, {most['node']} is the most concentrated: as if {told(most['effective'])} of "
            f"{many(most['owners'], 'owner')} held it alike."
        )
    unknown = int((~crowd.owned & (crowd.leveraged > 0.0)).sum())
    if unknown:
        says.append(
            f"{many(unknown, 'account')} with something leveraged "
            f"{'has' if unknown == 1 else 'have'} no known owner and count as "
            f"{'an owner' if unknown == 1 else 'owners'} of their own."
        )
    return says
