"""How leveraged everybody is now: every definition side by side, for any division of a book."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow import schema
from undertow.econometrics.checks import within
from undertow.measures.door import require_book, require_seed
from undertow.measures.study import Study
from undertow.measures.words import listed, many, percent, told
from undertow.rules.leverage import DEFINITIONS, Exposures, leverage_parts, leverage_table
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading

_TOP = 12  # nodes with a reading of their own
_FEW = 5  # accounts, for a band and for a place among the most leveraged
_WHOLE = "all"
_READ = (
    "A value is a ratio of sums: what everybody in a node holds or owes over what stands behind "
    "it, so the parts add up to the whole and large accounts count for what they are. Quantiles "
    "are over accounts, weighted by what they owe. The band is what other accounts of the same "
    f"kind would have made of it (accounts drawn anew); of fewer than {_FEW} there is none. "
    "Definitions of market series (open interest over reserves, capitalisation or depth) need "
    "series and are not in it."
)
_MISLEADS = (
    "Accounts without equity have no leverage and are counted beside it. A hedge counts on both "
    "sides. Two definitions may move against each other: a fall of prices raises assets over "
    "equity and leaves debt where it is. What was not seen of the book is in no number here."
)


def leverage(
    snapshot: Snapshot,
    *,
    by: str = "asset",
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """Leverage of every node of a division, by every definition that positions give.

    Bands of the first definition are the percentiles of `reps` draws in which every account counts
    as often as a Poisson variable of mean 1 says: the bootstrap of sums.

    Raises
    ------
    StateError
        When the division is unknown.
    EstimationError
        When the level is out of range.
    """
    require_book(snapshot)
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    seen = Exposures.of(snapshot)
    named = [each.name for each in DEFINITIONS if each.of_positions]
    tables = [leverage_table(seen, by, name) for name in named]
    whole = [leverage_table(seen, _WHOLE, name) for name in named]
    catalogue = pl.concat(
        frame.select(pl.lit(name).alias("definition"), pl.all())
        for name, parts, total in zip(named, tables, whole, strict=True)
        for frame in (total, parts)
    )
    nodes = pl.concat([whole[0], tables[0]])
    banded = _with_bands(seen, by, nodes, seed, level, reps)
    return Study(
        name="tandem.leverage",
        title=f"How leveraged everybody is, by {by}",
        readings=tuple(_readings(snapshot, banded, level)),
        tables={"nodes": banded, "catalogue": catalogue},
        says=tuple(_says(banded, whole[named.index("debt_to_collateral")])),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def _with_bands(
    seen: Exposures, by: str, table: pl.DataFrame, seed: int, level: float, reps: int
) -> pl.DataFrame:
    """The table with a band of each value."""
    low = np.full(table.height, np.nan)
    high = low.copy()
    rng = np.random.default_rng(seed)
    places = {node: k for k, node in enumerate(table["node"])}
    parts = pl.concat(
        [leverage_parts(seen, _WHOLE), leverage_parts(seen, by)] if by != _WHOLE
        else [leverage_parts(seen, _WHOLE)]
    ).filter("solvent")  # fmt: skip
    at = parts["node"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
    account, above, below = (parts[c].to_numpy() for c in ("account", "above", "below"))
    drawn = np.full((reps, table.height), np.nan)
    for rep in range(reps):
        weight = rng.poisson(1.0, len(seen.equity))[account]
        top = np.bincount(at, weight * above, table.height)
        bottom = np.bincount(at, weight * below, table.height)
        np.divide(top, bottom, out=drawn[rep], where=bottom > 0.0)
    many_seen = (~np.isnan(drawn)).sum(axis=0) >= reps // 2
    enough = np.flatnonzero(many_seen & (table["accounts"] >= _FEW).to_numpy())
    tails = (0.5 * (1.0 - level), 0.5 * (1.0 + level))
    if len(enough):
        low[enough], high[enough] = np.nanquantile(drawn[:, enough], tails, axis=0)
    return table.rename({"low": "q10", "median": "q50", "high": "q90"}).with_columns(
        pl.Series("low", low).fill_nan(None), pl.Series("high", high).fill_nan(None)
    )


def _readings(snapshot: Snapshot, table: pl.DataFrame, level: float) -> list[Reading]:
    evidence = schema.EVIDENCE[int(snapshot.book.evidence.max(initial=0))]
    found = []
    for row in table.head(_TOP + 1).iter_rows(named=True):
        banded = None not in (row["value"], row["low"], row["high"])
        found.append(
            Reading(
                "tandem.leverage", row["value"], "1", DEFINITIONS[0].formula, snapshot.ts,
                evidence, snapshot.digest,
                subject="" if row["node"] == _WHOLE else row["node"],
                low=row["low"] if banded else None, high=row["high"] if banded else None,
                level=level if banded else None, coverage=row["coverage"],
            )
        )  # fmt: skip
    return found


def _says(table: pl.DataFrame, owed: pl.DataFrame) -> list[str]:
    whole = table.row(0, named=True)
    if whole["value"] is None:
        return ["Nobody with equity holds anything that is leveraged."]
    says = [
        (
            f"Everybody together holds {told(whole['value'])} times what is theirs "
            f"({told(whole['low'])} to {told(whole['high'])}); half of all that is owed is owed at "
            f"{told(whole['q50'])} or more, a tenth at {told(whole['q90'])} or more."
        )
    ]
    nodes = table.slice(1).filter(pl.col("accounts") >= _FEW).drop_nulls("value")
    nodes = nodes.sort("value", "node", descending=[True, False])
    if nodes.height > 1:
        most = [f"{n} ({told(v)})" for n, v in nodes.head(3).select("node", "value").iter_rows()]
        says.append(f"The most leveraged are {listed(most)}.")
    if owed.height and owed["value"][0] is not None:
        says.append(f"Who borrows owes {percent(owed['value'][0])} of what it holds.")
    if whole["without_equity"]:
        says.append(
            f"{many(whole['without_equity'], 'account')} have no equity left and owe "
            f"{told(whole['owed_without_equity_usd'], 3)} USD: they are in no ratio."
        )
    return says
