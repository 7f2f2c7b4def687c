"""The liquidation map: what is called at which distance, everything on one axis, each way."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ladders import MARKET, Ladders
from undertow.measures.crowding.ranks import rank_bands, rank_columns, ranks
from undertow.measures.crowding.redrawn import FEW, Redrawn, owners_in
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.state.universe import NONE
from undertow.stress.shock import require_within

NEAR = 0.1  # the distance that readings speak of
FURTHEST, POINTS = 0.5, 50
_TOP = 6  # sides of assets with a reading of their own
_DRAWN = "band: owners drawn anew, none of fewer than five"
_READ = (
    "A row is what venues would call between one distance and the next, if prices went there and "
    "nobody sold: debt and gross notional of the accounts, and what they would have to sell in a "
    "fall or buy in a rise, at today's prices. `cumulative` adds up towards larger distances and "
    "stands beside the depth up to there (e-fold depth of the asset's market, in a straight line "
    "in logs). Along `market` all that is no money moves together; along an asset it moves alone, "
    "and with it whatever follows it. There `traded_usd` is what is sold as the asset, with what "
    "follows it and is redeemed because it has no depth of its own; what follows it and has, is "
    "sold in its own market and stands in `elsewhere_usd`. How a position is known (observed, "
    "sampled, modelled) is never added up across in a table or a reading. Distance 0 is who may be "
    "closed already. Ranks in `against_depth` are over owners drawn anew."
)
_MISLEADS = (
    "It is no forecast and no cascade: what is sold moves prices, and others are called then "
    "(crowding.fragility follows that). A position near its threshold is often the one that is "
    "watched and topped up. Oracles that read an exchange rate do not see a receipt fall, so it "
    "calls nobody. Bands draw owners anew, of five at least, and take depth as known; they say "
    "nothing of positions that were never seen: for those, coverage."
)


def liquidation_map(
    book: Snapshot | Crowd | Any,
    *,
    near: float = NEAR,
    furthest: float = FURTHEST,
    points: int = POINTS,
    assets: int | None = None,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
    executor: Executor | None = None,
) -> Study:
    """What is called by distance: of the market and of each asset, by venue, falling and rising.

    Readings are of the step at `near` or next below it. `assets` limits how many assets are
    followed alone, the largest exposures first. Distances go up to `furthest` in `points` steps.

    Raises
    ------
    StateError
        When it is no book, or a distance is out of range or nearer than the first step.
    EstimationError
        When the level is out of range or the draws are too few.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    require_within("furthest", furthest, 0.0, 0.95, open_low=True)
    require_within("near", near, 0.0, furthest, open_low=True)
    require_within("points", points, 1, 10_000)
    if assets is not None:
        require_within("assets", assets, 0)
    near = _step_at(near, furthest, int(points))
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=reps, seed=seed, level=level)
    step = int(np.flatnonzero(np.linspace(0.0, furthest, int(points) + 1) == near)[0])
    ladders = Ladders.of(
        crowd, furthest, int(points), assets=assets, executor=executor, drawn=drawn, step=step
    )
    cumulative = ladders.cumulative()
    against = against_depth(ladders, cumulative, drawn, near)
    tables = {
        "ladder": ladders.rows, "cumulative": cumulative, "dense": _densest(cumulative),
        "against_depth": against,
    }  # fmt: skip
    readings = [*_whole(ladders, drawn, near), *_single(crowd, against, near, level)]
    return Study(
        name="crowding.map",
        title="What is called at which distance",
        readings=tuple(readings),
        tables=tables,
        says=tuple(_says(ladders, cumulative, near)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out=_left_out(crowd),
    )


def _step_at(near: float, furthest: float, points: int) -> float:
    """The largest step up to `near`: what is called is known at steps alone."""
    step = furthest / points
    if near < step * (1.0 - 1e-9):
        raise StateError(
            f"near was {near}, and the first step of {points} is {step:g}",
            hint="set near further out, or more points",
        )
    steps = np.linspace(0.0, furthest, points + 1)
    return float(steps[steps <= near + 1e-12][-1])


def _whole(ladders: Ladders, drawn: Redrawn, near: float) -> list[Reading]:
    """What a common move calls, each way: a number for each way in which it is known."""
    crowd, found = ladders.crowd, []
    for side, first in (("fall", ladders.first), ("rise", ladders.first_rise)):
        called = np.flatnonzero(first <= np.flatnonzero(ladders.distances == near)[0])
        kind = crowd.evidence_of[called]
        size = crowd.leveraged[called]
        sums = drawn.sums(called, kind, size, len(schema.EVIDENCE))
        low, high = drawn.band(sums)
        few = owners_in(crowd, called, kind, len(schema.EVIDENCE)) < FEW
        for code in np.unique(crowd.evidence_of[np.diff(crowd.snapshot.book.offset) > 0]):
            word = schema.EVIDENCE[int(code)]
            value = float(size[kind == code].sum())
            ends = (min(float(low[code]), value), max(float(high[code]), value))
            found.append(
                crowd.reading(
                    "crowding.at_risk_usd", value, "usd",
                    f"debt and gross notional of accounts that venues would call in a common "
                    f"{side} of {percent(near)} of all that is no money, were nothing sold; of "
                    f"what was {word}; {_DRAWN}",
                    subject=f"{side}, {word}",
                    band=None if few[code] else ends,
                    level=drawn.level, evidence=word,
                )
            )  # fmt: skip
    return found


def _single(crowd: Crowd, against: pl.DataFrame, near: float, level: float) -> list[Reading]:
    """What would be traded when one asset alone moves so far, against its depth."""
    found = []
    for row in against.head(_TOP).iter_rows(named=True):
        verb, word = "sold" if row["side"] == "fall" else "bought", row["evidence"]
        low, high = row["share_low"], row["share_high"]
        found.append(
            crowd.reading(
                "crowding.at_risk_to_depth", row["share"], "1",
                f"what would have to be {verb} as this asset of accounts that a {row['side']} of "
                f"{percent(near)} of it alone, and of what follows it, calls, over the depth that "
                f"moves its price as far; of what was {word}; {_DRAWN}; depth is taken as known",
                subject=f"{row['line']} {row['side']}, {word}",
                band=None if low is None or high is None else (low, high),
                level=level, evidence=word,
            )
        )  # fmt: skip
    return found


def against_depth(
    ladders: Ladders, cumulative: pl.DataFrame, drawn: Redrawn, near: float
) -> pl.DataFrame:
    """What each asset alone would make trade up to a distance over its depth, the most first."""
    kinds = pl.Series(schema.EVIDENCE, dtype=pl.String)
    keys = ("line", "side", "evidence")
    rows = (
        cumulative.filter((pl.col("distance") == near) & (pl.col("line") != MARKET))
        .filter(pl.col("depth_usd") > 0.0)
        .select(*keys, "traded_usd", "depth_usd", share=pl.col("traded_usd") / pl.col("depth_usd"))
        .sort("share", *keys, descending=[True, False, False, False])
    )
    column = {(each.line.name, each.line.side): each for each in ladders.near}
    code = {word: k for k, word in enumerate(kinds)}
    draws, few = np.empty((len(drawn.weight), rows.height)), np.zeros(rows.height, dtype=np.bool_)
    for k, row in enumerate(rows.iter_rows(named=True)):
        each, kind = column[row["line"], row["side"]], code[row["evidence"]]
        draws[:, k] = each.usd[:, kind] / row["depth_usd"]
        few[k] = each.owners[kind] < FEW
    share = rows["share"].to_numpy()
    low, high = drawn.band(draws)
    there = ~few & (low <= share) & (share <= high)
    ends = {"share_low": np.where(there, low, np.nan), "share_high": np.where(there, high, np.nan)}
    place = ranks(share[None])[0]
    return rows.hstack(pl.DataFrame(ends).fill_nan(None)).hstack(
        rank_columns(place, *rank_bands(draws, drawn.level))
    )


def _densest(cumulative: pl.DataFrame) -> pl.DataFrame:
    """Of each line and way of knowing, the step in which most is called."""
    keys = ("line", "side", "evidence")
    summed = cumulative.group_by(*keys, "distance", maintain_order=True).agg(
        pl.col("traded_usd").sum(), pl.col("debt_usd").sum(), pl.col("notional_usd").sum(),
        pl.col("depth_usd").first(),
    )  # fmt: skip
    steps = summed.with_columns(
        (pl.col("traded_usd", "debt_usd", "notional_usd", "depth_usd").diff().over(keys)),
        start=pl.col("distance").shift(1).over(keys),
    ).drop_nulls("start")
    return (
        steps.sort("traded_usd", descending=True)
        .group_by(keys, maintain_order=True)
        .first()
        .filter(pl.col("traded_usd") > 0.0)
        .rename({"distance": "end"})
        .select(*keys, "start", "end", "traded_usd", "debt_usd", "notional_usd", "depth_usd")
        .sort(*keys)
    )


def _left_out(crowd: Crowd) -> dict[str, str]:
    universe, carriers = crowd.snapshot.universe, crowd.plan.carriers
    at_stake = np.bincount(crowd.asset, np.abs(crowd.lean), len(universe.assets))
    sold = np.zeros(len(universe.assets), dtype=np.bool_)  # itself, or as what it is redeemed for
    pool = carriers.spot_pool
    sold[universe.asset_of[(pool != NONE) & (carriers.depth[pool] > 0.0)]] = True
    return {
        universe.assets[k]: "no depth is known of it, so nothing says what its sale would do"
        for k in np.flatnonzero((at_stake > 0.0) & ~sold)
    }


def _says(ladders: Ladders, cumulative: pl.DataFrame, near: float) -> list[str]:
    crowd = ladders.crowd
    whole = float(crowd.leveraged.sum())
    if whole <= 0.0:
        return ["Nobody owes anything or holds a derivative: there is nothing to call."]
    says = []
    for side in ("fall", "rise"):
        rows = cumulative.filter(
            (pl.col("line") == MARKET) & (pl.col("side") == side) & (pl.col("distance") == near)
        )
        usd = float((rows["debt_usd"] + rows["notional_usd"]).sum())
        count, depth = int(rows["accounts"].sum()), rows["depth_usd"].drop_nulls()
        verb = "sell" if side == "fall" else "buy"
        if not count:
            says.append(f"A common {side} of {percent(near)} calls nobody.")
            continue
        against = (
            f"; they would {verb} {told(float(rows['traded_usd'].sum()), 3)} USD where "
            f"{told(float(depth[0]), 3)} USD moves prices as far"
            if len(depth) and depth[0] > 0.0
            else ""
        )
        says.append(
            f"A common {side} of {percent(near)} calls {many(count, 'account')} with "
            f"{told(usd, 3)} USD{_apart(rows)}, {percent(usd / whole)} of all that is "
            f"leveraged{against}."
        )
    dense = _densest(cumulative).filter(pl.col("line") != MARKET)
    ratio = dense.filter(pl.col("depth_usd") > 0.0).with_columns(
        ratio=pl.col("traded_usd") / pl.col("depth_usd")
    )
    mixed = cumulative["evidence"].n_unique() > 1  # what is known in one way needs no saying
    top = [
        f"{row['line']} between {percent(row['start'])} and {percent(row['end'])} of a "
        f"{row['side']} ({told(row['ratio'])} times its depth there"
        + (f", {row['evidence']})" if mixed else ")")
        for row in ratio.sort("ratio", descending=True).head(3).iter_rows(named=True)
    ]
    if top:
        says.append(f"The densest walls against depth: {listed(top)}.")
    already = int(cumulative.filter((pl.col("distance") == 0.0) & (pl.col("line") == MARKET)
                                    & (pl.col("side") == "fall"))["accounts"].sum())  # fmt: skip
    if already:
        says.append(f"{many(already, 'account')} may be closed before anything moves.")
    return says


def _apart(rows: pl.DataFrame) -> str:
    """How much of a sum is known in which way, where it is known in several."""
    sums = rows.select("evidence", usd=pl.col("debt_usd") + pl.col("notional_usd"))
    usd = {word: size for word, size in sums.iter_rows() if size > 0.0}
    parts = [f"{told(usd[word], 3)} {word}" for word in schema.EVIDENCE if word in usd]
    return f" ({listed(parts)})" if len(parts) > 1 else ""
