"""How one-sided a book is: who leans which way, asset by asset, and how leveraged those are.

A row is an asset, a node or a pair of them. Only accounts with something leveraged count, and of
them only legs that lean: money does not. Without equity there is no leverage to weigh by, so such
accounts stand beside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.special import ndtri

from undertow import schema
from undertow.errors import StateError
from undertow.measures.crowding.concentration import leverage_of
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.redrawn import FEW, Redrawn, added, owners_in
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.leverage import GROUPS, nodes
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, FloatMatrix, Reading
from undertow.stress.shock import require_within

_TOP = 8  # assets with a reading of their own
_WORDS = (
    "net over gross USD exposure of leveraged accounts{}: 1 where all are long, -1 where all are "
    "short, 0 where sides are even; none where nobody leans"
)
_READ = (
    "One-sidedness is net over gross: 1 is all long, -1 all short. Weighted by leverage, a dollar "
    "at ten times counts ten times, so where every long has its short it tells which side is the "
    "nearer to the edge. Over all assets the sizes of the nets are added up, so that long in one "
    "and short in another do not cancel; `by_chance` is what that would be if each leg had taken "
    "its side by coin. Bands draw owners anew. Drawing makes a size larger, as no net is below "
    "nothing, so its low end adds up what is left of each net less its own error, all of them at "
    "once."
)
_MISLEADS = (
    "A hedge within an account, or of one owner on two venues, counts on both sides. Of a contract "
    "that is seen whole, long and short are equal and only the weighted number says anything; of "
    "one that is seen in part, the plain number says whom the source shows. The size of a net is "
    "never below nothing, so that few accounts look one-sided: hold it against `by_chance`, and "
    "where the low end of its band is near nothing, believe no side. Where margin is isolated, the "
    "leverage of an account is not that of its owner."
)


class _Cells(NamedTuple):
    """Sums by cell (a node and an asset) that every number is made of, the last axis cells."""

    long: Any
    short: Any
    long_weighed: Any
    short_weighed: Any


def sides(
    book: Snapshot | Crowd | Any,
    *,
    by: str = "venue",
    most: float = 100.0,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """Which way leveraged accounts lean in every asset, plain and weighted by their leverage.

    `by` is a division whose nodes are told beside the assets. A weight is the leverage of the
    account, no more than `most`, so that accounts with next to no equity do not decide alone.

    Raises
    ------
    StateError
        When it is no book, the division is unknown or `most` is below 1.
    EstimationError
        When the level is out of range or the draws are too few.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    require_within("most", most, 1.0, 1e6)
    if by not in GROUPS:
        raise StateError(f"there is no division by {by!r}", hint=f"have {', '.join(GROUPS)}")
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=reps, seed=seed, level=level)
    legs = _Legs.of(crowd, by, most)
    tables = legs.tables(drawn)
    tables["modes"] = _modes(crowd, drawn)
    return Study(
        name="crowding.sides",
        title="Which way everybody leans, and at which leverage",
        readings=tuple(_readings(crowd, tables, level, most)),
        tables=tables,
        says=tuple(_says(crowd, tables, legs, by)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


class _Legs(NamedTuple):
    """Legs that lean, of accounts with something leveraged and equity."""

    crowd: Crowd
    account: AnyColumn
    usd: FloatColumn
    weight: FloatColumn  # leverage of the account
    cell: AnyColumn
    node: AnyColumn  # of each cell
    asset: AnyColumn
    names: Any  # of nodes
    without_usd: float  # gross, of accounts without equity

    @classmethod
    def of(cls, crowd: Crowd, by: str, most: float) -> _Legs:
        book = crowd.snapshot.book
        node, names = nodes(crowd.exposures, by)
        ratio = leverage_of(crowd)
        leans = crowd.lean != 0.0
        leveraged = leans & (crowd.leveraged > 0.0)[book.leg_account]
        solvent = np.isfinite(ratio)[book.leg_account]
        some = np.flatnonzero(leveraged & solvent & (node >= 0))
        assets = len(crowd.snapshot.universe.assets)
        key = node[some] * assets + crowd.asset[some]
        seen = np.flatnonzero(np.bincount(key, minlength=1))
        place = np.zeros(int(key.max(initial=0)) + 1, dtype=np.int64)
        place[seen] = np.arange(len(seen))
        account = book.leg_account[some]
        return cls(
            crowd, account, crowd.lean[some], np.minimum(ratio[account], most), place[key],
            seen // assets, seen % assets, names,
            float(np.abs(crowd.lean[leveraged & ~solvent]).sum()),
        )  # fmt: skip

    def tables(self, drawn: Redrawn) -> dict[str, pl.DataFrame]:
        """All tables of exposures: everything, by asset, by node and by both."""
        count = len(self.node)
        # Two sides of a cell stand next to each other: one sum gives both.
        side, usd = 2 * self.cell + (self.usd < 0.0), np.abs(self.usd)
        whole = np.stack([added(side, column, 2 * count) for column in (usd, usd * self.weight)])
        draws = np.stack(
            [drawn.sums(self.account, side, column, 2 * count)
             for column in (usd, usd * self.weight)], axis=1,
        )  # fmt: skip
        found, redrawn = _split(whole), _split(draws)
        squares = added(self.cell, usd * usd, count)
        chance = np.sqrt(2.0 / np.pi) * np.sqrt(squares)
        universe = self.crowd.snapshot.universe
        groups: dict[str, tuple[AnyColumn, list[str]]] = {
            "whole": (np.zeros(count, dtype=np.int64), ["all"]),
            "assets": (self.asset, list(universe.assets)),
            "nodes": (self.node, list(self.names)),
        }
        tables = {
            name: _grouped(found, redrawn, chance, at, names, self, drawn)
            for name, (at, names) in groups.items()
        }
        pairs = _grouped(
            found, redrawn, chance, np.arange(count), [str(c) for c in range(count)], self, drawn
        )
        cell = pairs["name"].cast(pl.Int64).to_numpy()
        labels = [
            pl.Series("node", [self.names[n] for n in self.node[cell]], dtype=pl.String),
            pl.Series("asset", [universe.assets[a] for a in self.asset[cell]], dtype=pl.String),
        ]
        tables["pairs"] = pl.DataFrame(labels).hstack(pairs.drop("name"))
        return tables


def _split(sums: FloatMatrix) -> _Cells:
    """Sums with both sides of a cell next to each other, as the four of a cell."""
    plain, weighed = sums[..., 0, :], sums[..., 1, :]
    return _Cells(plain[..., 0::2], plain[..., 1::2], weighed[..., 0::2], weighed[..., 1::2])


_NUMBERS = ("net", "net_weighed", "size", "size_weighed")


def _ratios(cells: _Cells, spread: FloatMatrix, per_asset: FloatMatrix) -> dict[str, FloatMatrix]:
    """Net over gross of groups of cells, and the sizes of the nets of their assets over gross.

    `spread` (cells, groups) adds cells up into groups, `per_asset` (cells, parts) into what does
    not cancel: the same asset within one group.
    """
    found = {}
    owner = (per_asset.T @ spread) > 0.0  # (parts, groups)
    for name, long, short in (
        ("", cells.long, cells.short), ("_weighed", cells.long_weighed, cells.short_weighed)
    ):  # fmt: skip
        gross = (long + short) @ spread
        nets = np.abs((long - short) @ per_asset) @ owner
        for key, above in (("net", (long - short) @ spread), ("size", nets)):
            ratio = np.full_like(gross, np.nan)
            np.divide(above, gross, out=ratio, where=gross > 0.0)
            found[key + name] = ratio
    return found


def _lowest(
    found: _Cells, redrawn: _Cells, spread: FloatMatrix, per_asset: FloatMatrix, level: float
) -> dict[str, FloatColumn]:
    """Low ends of the sizes: of every net at once what is left of it less its error, added up.

    Bands of all nets of a group hold together in `level` of cases at least (Bonferroni), and so
    does the sum of their low ends, however many of them are noise.
    """
    owner = (per_asset.T @ spread) > 0.0  # (parts, groups)
    if not owner.size:
        return {}
    group, parts = owner.argmax(axis=1), owner.sum(axis=0)
    reach = ndtri(1.0 - 0.5 * (1.0 - level) / parts)
    ends = {}
    for name, sides in (("size", slice(0, 2)), ("size_weighed", slice(2, 4))):
        nets = []
        for long, short in (found[sides], redrawn[sides]):
            gross = ((long + short) @ spread)[..., group]
            share = np.full_like(gross, np.nan)
            np.divide((long - short) @ per_asset, gross, out=share, where=gross > 0.0)
            nets.append(share)
        error = np.ma.masked_invalid(nets[1]).std(axis=0).filled(np.inf)
        ends[name] = np.maximum(np.abs(nets[0]) - reach[group] * error, 0.0) @ owner
    return ends


def _grouped(
    found: _Cells,
    redrawn: _Cells,
    chance: FloatColumn,
    at: AnyColumn,
    names: list[str],
    legs: _Legs,
    drawn: Redrawn,
) -> pl.DataFrame:
    """One row a group, the largest gross first."""
    count = len(at)
    groups, place = np.unique(at, return_inverse=True)
    spread = np.zeros((count, len(groups)))
    spread[np.arange(count), place] = 1.0
    parts, part = np.unique(place * (int(legs.asset.max(initial=0)) + 1) + legs.asset,
                            return_inverse=True)  # fmt: skip
    per_asset = np.zeros((count, len(parts)))
    per_asset[np.arange(count), part] = 1.0
    values = _ratios(found, spread, per_asset)
    draws = _ratios(redrawn, spread, per_asset)
    lowest = _lowest(found, redrawn, spread, per_asset, drawn.level)
    gross = (found.long + found.short) @ spread
    # A net of legs that took sides by coin: sqrt(2 / pi) of the root of their squares added up.
    owner = (per_asset.T @ spread) > 0.0
    coin = np.sqrt((chance**2) @ per_asset) @ owner
    columns: dict[str, Any] = {
        "name": [names[g] for g in groups],
        "gross_usd": gross,
        "long_usd": found.long @ spread,
        "short_usd": found.short @ spread,
        **{
            f"{side}_leverage": np.divide(
                weighed @ spread, plain @ spread, out=np.full(len(groups), np.nan),
                where=(plain @ spread) > 0.0,
            )
            for side, plain, weighed in (
                ("long", found.long, found.long_weighed),
                ("short", found.short, found.short_weighed),
            )
        },
    }  # fmt: skip
    owners = owners_in(legs.crowd, legs.account, place[legs.cell], len(groups))
    for name in _NUMBERS:
        low, high = drawn.band(draws[name])
        if name in lowest:
            low, high = np.minimum(lowest[name], low), np.maximum(high, values[name])
        few = owners < FEW
        columns |= {
            name: values[name],
            f"{name}_low": np.where(few, np.nan, low),
            f"{name}_high": np.where(few, np.nan, high),
        }
    columns["by_chance"] = np.divide(coin, gross, out=np.zeros_like(coin), where=gross > 0.0)
    columns["owners"] = owners
    types: dict[str, Any] = {"name": pl.String, "owners": pl.Int64}
    types |= {key: pl.Float64 for key in columns if key not in types}
    frame = pl.DataFrame(columns, schema=types).with_columns(pl.col(pl.Float64).fill_nan(None))
    return frame.sort(["gross_usd", "name"], descending=[True, False])


def _modes(crowd: Crowd, drawn: Redrawn) -> pl.DataFrame:
    """Shares of what is leveraged by how margin is held."""
    book, count = crowd.snapshot.book, len(schema.MARGIN_MODES)
    mode = book.mode.astype(np.int64)
    usd = added(mode, crowd.leveraged, count)
    draws = drawn.sums(np.arange(book.accounts), mode, crowd.leveraged, count)
    whole = draws.sum(axis=1, keepdims=True)
    shares = np.divide(draws, whole, out=np.full_like(draws, np.nan), where=whole > 0.0)
    low, high = drawn.band(shares)
    total = float(usd.sum())
    some = crowd.leveraged > 0.0
    few = len(np.unique(crowd.holder[np.flatnonzero(some)[: 64 * FEW]])) < FEW
    rows = [
        {
            "mode": name,
            "accounts": int((some & (mode == k)).sum()),
            "leveraged_usd": float(usd[k]),
            "share": float(usd[k]) / total if total > 0.0 else None,
            "low": None if few else known(low[k]),
            "high": None if few else known(high[k]),
        }
        for k, name in enumerate(schema.MARGIN_MODES)
    ]
    types: dict[str, Any] = {"mode": pl.String, "accounts": pl.Int64}
    types |= dict.fromkeys(("leveraged_usd", "share", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=types)


def _readings(
    crowd: Crowd, tables: dict[str, pl.DataFrame], level: float, most: float
) -> list[Reading]:
    weighed = f", each dollar weighted by the leverage of its account (no more than {most:g})"
    sizes = "; over all assets, the sizes of their nets added up (0 to 1)"

    def tell(
        name: str, row: dict[str, Any] | None, column: str, words: str, subject: str
    ) -> Reading:
        row = row or {}
        low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
        return crowd.reading(
            name, row.get(column), "1", words, subject=subject,
            band=None if low is None or high is None else (low, high), level=level,
        )  # fmt: skip

    whole = next(tables["whole"].iter_rows(named=True), None)
    found = [
        tell("crowding.one_sidedness", whole, "size_weighed", _WORDS.format(weighed) + sizes, ""),
        tell("crowding.one_sidedness_plain", whole, "size", _WORDS.format("") + sizes, ""),
    ]
    for row in tables["assets"].head(_TOP).iter_rows(named=True):
        name = row["name"]
        found += [
            tell("crowding.one_sidedness", row, "net_weighed", _WORDS.format(weighed), name),
            tell("crowding.one_sidedness_plain", row, "net", _WORDS.format(""), name),
        ]
    for row in tables["modes"].iter_rows(named=True):
        band = None if row["low"] is None or row["high"] is None else (row["low"], row["high"])
        found.append(
            crowd.reading(
                "crowding.margin_share", row["share"], "1",
                "share of what is leveraged (debt and gross notional) in accounts of this margin "
                "mode; none where nothing is leveraged",
                subject=row["mode"], band=band, level=level,
            )
        )  # fmt: skip
    return found


def _says(crowd: Crowd, tables: dict[str, pl.DataFrame], legs: _Legs, by: str) -> list[str]:
    if tables["whole"].height == 0:
        return _nobody(crowd, legs)
    whole = tables["whole"].row(0, named=True)
    weighed, plain = whole["size_weighed"], whole["size"]
    says = [
        f"Of {told(whole['gross_usd'], 3)} USD that leveraged accounts have in what moves, "
        f"{percent(plain)} is one-sided; weighted by leverage {percent(weighed)}"
        + (
            f" ({percent(whole['size_weighed_low'])} to {percent(whole['size_weighed_high'])})."
            if whole["size_weighed_low"] is not None
            else "."
        )
    ]
    if plain <= 2.0 * whole["by_chance"]:
        says.append(
            f"That is no more than chance may make of so few: sides taken by coin would give "
            f"{percent(whole['by_chance'])}."
        )
    assets = tables["assets"].filter(pl.col("net_weighed").is_not_null()).head(20)
    most = assets.sort(pl.col("net_weighed").abs() * pl.col("gross_usd"), descending=True).head(3)
    leaning = [
        f"{row['name']} ({percent(abs(row['net_weighed']))} "
        f"{'long' if row['net_weighed'] > 0.0 else 'short'})"
        for row in most.iter_rows(named=True)
        if row["net_weighed"] != 0.0
    ]
    if leaning:
        says.append(f"Most leans in {listed(leaning)}, weighted by leverage.")
    if whole["long_leverage"] is not None and whole["short_leverage"] is not None:
        says.append(
            f"Longs stand at a leverage of {told(whole['long_leverage'])}, shorts at "
            f"{told(whole['short_leverage'])}, dollar by dollar."
        )
    modes = tables["modes"].filter(pl.col("share") > 0.0).sort("share", descending=True)
    margin = [f"{name} ({percent(share)})" for name, share in modes.select("mode", "share").rows()]
    says.append(f"By margin, what is leveraged is {listed(margin)}.")
    if legs.without_usd > 0.0:
        says.append(
            f"{told(legs.without_usd, 3)} USD more leans in accounts without equity, which have no "
            "leverage to weigh by."
        )
    return says


def _nobody(crowd: Crowd, legs: _Legs) -> list[str]:
    if not (crowd.leveraged > 0.0).any():
        return ["Nobody owes anything or holds a derivative, so no side is leveraged."]
    if legs.without_usd > 0.0:
        gone = many(int((crowd.leveraged > 0.0).sum()), "leveraged account")
        leaning = told(legs.without_usd, 3)
        return [f"No side can be weighed: {gone} lean by {leaning} USD, and none has equity."]
    return ["What is leveraged leans nowhere: only money is held and owed."]
