"""The fragility curve: what a common fall of each size does in the end, when sales move prices."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.special import ndtri

from undertow.econometrics.checks import within
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ladders import MARKET, SIDES, Line
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, Reading
from undertow.stress.draws import Given
from undertow.stress.shock import require_within
from undertow.stress.sweep import LANES, Sweep, run_sweep

DOUBT = 2.0  # depth is this many times more or less in nine of ten cases: an assumption
FURTHEST, SHOCKS = 0.4, 16
MOST = 100_000  # accounts that are followed
RISE, FINE = 0.02, 0.001  # a knee: the final fall rises by so much over so small a step
_CUTS = 5  # parts that a stretch is divided into
_NEAR = 0.1
_READ = (
    "A row is a common fall of all that is no money, followed to its end by the cascade: what "
    "was closed by force, over all that accounts held outright or as notional; what is lost beyond "
    "what accounts had, over all that is leveraged; and by how much prices fell in the end. "
    "Amplification is the final fall over the first. The knee is the smallest fall at which 0.1 % "
    "more makes the final fall at least 2 % larger. What was due at today's prices is closed first "
    "and does not count."
)
_MISLEADS = (
    "A band is not sampling: it is the same book in markets half and twice as deep (at nine in "
    "ten), the doubt that moves the answer most. Depth on the day that counts is less than on a "
    "calm one. Owners do not answer here, money is as good as ever, and the market does not "
    "recover. What is not seen of the book is in no number: with coverage below 1 losses are "
    "lower bounds."
)


def fragility(
    book: Snapshot | Crowd | Any,
    *,
    side: str = "fall",
    furthest: float = FURTHEST,
    shocks: int = SHOCKS,
    doubt: float = DOUBT,
    most: int | None = MOST,
    seed: int = 0,
    level: float = 0.9,
    executor: Executor | None = None,
) -> Study:
    """Loss, forced closing and amplification against the size of a common move, and the knee.

    `side` is "fall" or "rise". `doubt` is by how many times depth may be off in nine of ten cases,
    for the bands; at 1 there are none. A book of more than `most` accounts is followed by as
    many that stand for all (`stress.standins`).

    Raises
    ------
    StateError
        When it is no book, the side is neither, or a size is out of range.
    EstimationError
        When the level is out of range.
    """
    require_seed(seed)
    if side not in SIDES:
        raise StateError(f"side was {side!r}; it must be fall or rise")
    within("level", level, 0.0, 1.0)
    require_within("furthest", furthest, 0.0, 0.95, open_low=True)
    require_within("doubt", doubt, 1.0, 1e3)
    require_within("shocks", shocks, 2, 10_000)
    require_most(most)
    crowd = Crowd.of(book).settled.stood_for(most)
    sizes = np.linspace(0.0, furthest, int(shocks) + 1)[1:]
    markets = [crowd.with_depth(times) for times in depths(doubt, level)]
    runs = [swept(each, side, sizes, executor) for each in markets]
    knee, *ends = (
        knee_of(each, side, sizes, run, executor)
        for each, run in zip(markets, runs, strict=True)
    )  # fmt: skip
    table = _curve(crowd, sizes, *runs)
    around = np.zeros(0) if knee is None else _around(knee, sizes)
    if len(around):
        more = [swept(each, side, around, executor) for each in markets]
        table = pl.concat([table, _curve(crowd, around, *more)]).sort("shock")
    known = [each for each in (knee, *ends) if each is not None]
    band = (min(known), max(known)) if len(known) == 3 and doubt > 1.0 else None
    return Study(
        name="crowding.fragility",
        title="How much worse a fall becomes",
        readings=tuple(
            _readings(crowd, side, table, knee, band, furthest, level if doubt > 1.0 else None)
        ),
        tables={"curve": table},
        says=tuple(_says(crowd, side, table, knee, ends, furthest)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def require_most(most: int | None) -> None:
    """Refuse fewer than two accounts to stand for a book; None is all of them.

    Raises
    ------
    StateError
        When it is no number of accounts.
    """
    if most is not None:
        require_within("most", most, 2, 10**12)


def _around(knee: float, sizes: FloatColumn) -> FloatColumn:
    """The last shock before a knee and the first past it, where they are not among `sizes`."""
    ends = np.array([knee - FINE, knee])
    known = np.abs(ends[:, None] - sizes).min(axis=1) < 0.5 * FINE
    return np.asarray(ends[(ends > 0.5 * FINE) & ~known])


def depths(doubt: float, level: float) -> tuple[float, float, float]:
    """Depth as it is, thinner and deeper: the ends of a band in which it lies with `level`."""
    times = doubt ** float(ndtri(0.5 + 0.5 * level) / ndtri(0.95))
    return 1.0, 1.0 / times, times


def swept(crowd: Crowd, side: str, sizes: FloatColumn, executor: Executor | None) -> Sweep:
    """Common moves of these sizes, each followed to its end."""
    moves = Line(MARKET, None, side).moves_of(crowd)
    sign = 1.0 if side == "fall" else -1.0
    given = Given.of(np.log1p(-sign * np.outer(sizes, moves)))
    return run_sweep(
        crowd.plan, given, len(sizes), options=crowd.options, settled=False, executor=executor,
        bounds=crowd.bounds, lanes=lanes_for(len(sizes), executor),
    )  # fmt: skip


def lanes_for(count: int, executor: Executor | None) -> int:
    """Scenarios side by side, so that every worker has several turns: the severe take longer."""
    workers = 1 if executor is None else executor.width()
    return max(min(-(-count // (3 * workers)), LANES), 1)


def knee_of(
    crowd: Crowd, side: str, sizes: FloatColumn, run: Sweep, executor: Executor | None
) -> float | None:
    """The first shock at which a little more of it moves prices by 2 % more; None if none does.

    A stretch in which prices move by that much beyond half of what the shock itself moves is
    divided until it is fine; the lowest part first.
    """
    points = [_Point(0.0, 0.0, 0.0), *map(_Point, sizes.tolist(), *_moves(run))]
    for low, high in pairwise(points):
        found = _jump_between(crowd, side, low, high, executor)
        if found is not None:
            return found
    return None


class _Point(NamedTuple):
    """One shock, and how far prices moved by it alone and in the end."""

    shock: float
    first: float
    final: float


def _moves(run: Sweep) -> tuple[list[float], list[float]]:
    return np.abs(run.rows["first_fall"]).tolist(), np.abs(run.rows["final_fall"]).tolist()


def _jump_between(
    crowd: Crowd, side: str, low: _Point, high: _Point, executor: Executor | None
) -> float | None:
    if high.final - low.final < RISE + 0.5 * max(high.first - low.first - FINE, 0.0):
        return None
    if high.shock - low.shock <= FINE * (1.0 + 1e-9):
        return high.shock
    steps = round((high.shock - low.shock) / FINE)
    cuts = np.unique(np.linspace(0, max(steps, 2), _CUTS + 1).astype(np.int64)[1:-1])
    between = low.shock + (high.shock - low.shock) * cuts[cuts > 0] / max(steps, 2)
    inner = map(_Point, between.tolist(), *_moves(swept(crowd, side, between, executor)))
    for pair in pairwise([low, *inner, high]):
        found = _jump_between(crowd, side, *pair, executor)
        if found is not None:
            return found
    return None


def _curve(crowd: Crowd, sizes: FloatColumn, *runs: Sweep) -> pl.DataFrame:
    seen = crowd.exposures
    held = max(float((seen.outright + seen.notional + seen.delta).sum()), 1e-300)
    whole = max(float(crowd.leveraged.sum()), 1e-300)
    middle, thin, deep = (
        {
            "liquidated_share": run.liquidated_usd / held,
            "insolvency_share": run.insolvency_usd / whole,
            "final_fall": np.asarray(run.rows["final_fall"]),
        }
        for run in runs
    )
    found: dict[str, Any] = {"shock": sizes}
    for name, short in (
        ("liquidated_share", ""), ("insolvency_share", "insolvency_"), ("final_fall", "fall_"),
    ):  # fmt: skip
        every = np.stack([middle[name], thin[name], deep[name]])
        found |= {name: middle[name], f"{short}low": every.min(0), f"{short}high": every.max(0)}
    settled = runs[0].rows["outcome"] == 0
    known = bool((crowd.plan.carriers.depth > 0.0).any())  # else nothing says what sales do
    return pl.DataFrame(found).with_columns(
        amplification=runs[0].amplification if known else pl.lit(None, dtype=pl.Float64),
        outcome=pl.Series(np.where(settled, "settled", "round limit")),
    )


def _readings(
    crowd: Crowd, side: str, table: pl.DataFrame, knee: float | None,
    band: tuple[float, float] | None, furthest: float, level: float | None,
) -> list[Reading]:  # fmt: skip
    found = [
        crowd.reading(
            "crowding.knee", knee, "1",
            f"smallest common {side} at which {percent(FINE)} more of it makes the final fall of "
            f"prices at least {percent(RISE)} larger, by the cascade; none up to "
            f"{percent(furthest)}, or none in the deeper of the markets that the band speaks of, "
            "where it has no band",
            subject=side, band=band, level=level, modelled=True,
        )
    ]  # fmt: skip
    marks = [m for m in (_NEAR, 2 * _NEAR, 3 * _NEAR) if m <= furthest + 1e-9]
    nearest = [int(np.argmin(np.abs(table["shock"].to_numpy() - mark))) for mark in marks]
    for k in dict.fromkeys(nearest):
        row = table.row(k, named=True)
        of = f"{percent(row['shock'])} {side}"
        for name, short, what in (
            ("liquidated_share", "",
             ("closed by force in the end, at the prices of the closing, over all that accounts "
              "held outright or as notional")),
            ("insolvency_share", "insolvency_",
             "lost beyond what accounts had (bad debt and shortfall), over all that is leveraged"),
        ):  # fmt: skip
            found.append(
                crowd.reading(
                    f"crowding.{name}", row[name], "1",
                    f"{what}, after a common {side}; the band is of markets thinner and deeper",
                    subject=of, level=level,
                    band=None if level is None else (row[f"{short}low"], row[f"{short}high"]),
                    modelled=True,
                )
            )  # fmt: skip
        if row["amplification"] is not None:
            ends = sorted(row[f"fall_{end}"] / row["final_fall"] * row["amplification"]
                          for end in ("low", "high"))  # fmt: skip
            found.append(
                crowd.reading(
                    "crowding.amplification", row["amplification"], "1",
                    f"final over first move of the book's prices after a common {side}",
                    subject=of, band=None if level is None else (ends[0], ends[1]), level=level,
                    modelled=True,
                )
            )  # fmt: skip
    return found


def _says(
    crowd: Crowd, side: str, table: pl.DataFrame, knee: float | None,
    ends: list[float | None], furthest: float,
) -> list[str]:  # fmt: skip
    if float(crowd.leveraged.sum()) <= 0.0:
        return [f"{crowd.nobody}: no fall closes anybody."]
    if not (crowd.plan.carriers.depth > 0.0).any():
        says = ["No depth is known of anything, so nothing is amplified here."]
    elif knee is None:
        says = [
            f"Up to a common {side} of {percent(furthest)} there is no knee: losses grow evenly."
        ]
    else:
        thin = "none" if ends[0] is None else f"at {percent(ends[0])}"
        deep = "none" if ends[1] is None else f"at {percent(ends[1])}"
        verb = "fall" if side == "fall" else "rise"
        says = [
            (
                f"At a common {side} of {percent(knee)} the book tips: a little more, and prices "
                f"{verb} by {percent(RISE)} and more on their own (in thinner markets {thin}, in "
                f"deeper ones {deep})."
            )
        ]
    rows = table.drop_nulls("amplification")
    if rows.height:
        most = rows.sort("amplification", descending=True).row(0, named=True)
        says.append(
            f"Of the shocks tried, sales multiply that of {percent(most['shock'])} the most: in "
            f"the end prices move {told(most['amplification'])} times as far."
        )
    near = table.row(int(np.argmin(np.abs(table["shock"].to_numpy() - 2 * _NEAR))), named=True)
    says.append(
        f"A {side} of {percent(near['shock'])} closes {percent(near['liquidated_share'])} of all "
        f"that is held by force, and {percent(near['insolvency_share'])} is lost beyond what "
        "accounts had."
    )
    open_ended = table.filter(pl.col("outcome") != "settled").height
    if open_ended:
        says.append(f"{open_ended} of the falls were still selling at the last round.")
    return says
