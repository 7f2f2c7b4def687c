"""When leverage was built up and when it was unwound, node by node, and whether in step."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.econometrics.concordance import Concordance, concordance
from undertow.econometrics.cycles import TurningPoints, Windows
from undertow.econometrics.cycles import turning_points as dated
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.words import corrected, day, known, listed, many, percent, told

_READ = (
    "From a trough to the next peak there is a build-up, from a peak to the next trough an "
    "unwind. Concordance is the share of time that two nodes spend in the same phase, less the "
    "share that two have which turn independently: 0 is chance, 0.5 always in step, -0.5 never, "
    "wherever it stands. A pair counts where its p-value, corrected for all pairs, is below 0.05."
)
_SURE = 0.05
_MISLEADS = (
    "A wandering level has peaks too: a turn is a date, no proof of a cycle. The last turn may "
    "still move as more is seen. Prices are in the level, and so are cycles of prices."
)


def cycle(history: LeverageHistory, *, expected: float | None = None) -> Study:
    """Turning points of log leverage, the phases between them, and concordance of phases.

    `expected` is the length of a cycle in steps, from peak to peak: a sixth of what there is,
    unless given. Turns come of the alternating rises and falls that explain growth best. The test
    of concordance compares with every shift of one node's phases round in time.
    """
    require_history(history)
    used = history.usable()
    length = max(len(used.ts) / 6.0, 12.0) if expected is None else expected
    windows = Windows.expecting(length)
    found = [dated(_filled(column), windows) for column in np.log(used.level.values).T]
    phases = np.column_stack([each.phase for each in found])
    tied = concordance(phases)
    now = phases[-1]
    unwinding = float(np.mean(now[~np.isnan(now)] == 0.0)) if (~np.isnan(now)).any() else np.nan
    i, j = np.triu_indices(len(used.labels), 1)
    adjusted = tied.mean_adjusted[i, j]
    mean = float(np.nanmean(adjusted)) if not np.isnan(adjusted).all() else np.nan
    undated = {n: t.reason for n, t in zip(used.labels, found, strict=True) if t.reason}
    return Study(
        name="tandem.cycle",
        title=f"When {used.called} was built up and unwound",
        readings=(
            used.tell(
                "tandem.concordance",
                mean,
                "share of time that two nodes spend in the same phase of the cycle less what "
                "independent phases would, mean over pairs: 0 is chance, 0.5 always in step",
            ),
            used.tell(
                "tandem.unwinding_share",
                unwinding,
                "share of the nodes that are past their last peak; the last turn may still move",
            ),
        ),
        tables={
            "turns": _turns(used, found),
            "spells": _spells(used, found),
            "concordance": _pairs(used.labels, tied, i, j),
        },
        says=tuple(_says(used, found, tied, mean, unwinding, length)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **undated},
    )


def _filled(x: np.ndarray) -> np.ndarray:
    """Gaps inside a level bridged by straight lines, for dates alone; its ends stay unseen."""
    some = np.flatnonzero(~np.isnan(x))
    out = np.interp(np.arange(len(x)), some, x[some])
    out[: some[0]] = out[some[-1] + 1 :] = np.nan
    return np.asarray(out)


def _turns(history: LeverageHistory, found: list[TurningPoints]) -> pl.DataFrame:
    rows = [
        (node, "peak" if peak else "trough", int(history.level.ts[step]), int(step))
        for node, each in zip(history.labels, found, strict=True)
        for step, peak in zip(each.step, each.peak, strict=True)
    ]
    schema = {"node": pl.String, "kind": pl.String, "ts": pl.Int64, "step": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC"))
    )


def _spells(history: LeverageHistory, found: list[TurningPoints]) -> pl.DataFrame:
    ts = history.level.ts
    rows = [
        (node, "build-up" if s.rising else "unwind", int(ts[s.start]), int(ts[s.end]), s.change,
         s.whole)
        for node, each in zip(history.labels, found, strict=True)
        for s in each.spells
    ]  # fmt: skip
    schema = {
        "node": pl.String, "phase": pl.String, "start": pl.Int64, "end": pl.Int64,
        "log_change": pl.Float64, "whole": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col("start", "end").cast(pl.Datetime("us", "UTC"))
    )


def _pairs(
    labels: tuple[str, ...], tied: Concordance, i: np.ndarray, j: np.ndarray
) -> pl.DataFrame:
    names = pl.Series(labels, dtype=pl.String)
    p = tied.p_shift[i, j]
    sure = corrected(p)
    return pl.DataFrame(
        {
            "a": names.gather(i),
            "b": names.gather(j),
            "in_phase": tied.index[i, j],
            "adjusted": tied.mean_adjusted[i, j],
            "p_value": p,
            "p_corrected": sure,
            "beyond_chance": sure < _SURE,
            "p_hac": tied.p_value[i, j],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _says(
    history: LeverageHistory, found: list[TurningPoints], tied: Concordance, mean: float,
    unwinding: float, length: float,
) -> list[str]:  # fmt: skip
    turned = sum(len(each.step) for each in found)
    if not turned:
        return [f"No node turned: no cycle of about {history.steps(round(length))} can be dated."]
    i, j = np.triu_indices(len(history.labels), 1)
    p = corrected(tied.p_shift[i, j])
    sure = int((p < _SURE).sum())
    says = [
        (
            f"{many(turned, 'turn')} in {many(len(history.labels), 'node')}; concordance of two "
            f"nodes is {told(known(mean))} on average, where 0 is chance and 0.5 always in step, "
            f"and for {sure} of {many(len(p), 'pair')} it is beyond chance (p below 0.05 after "
            "correction for all pairs)."
        )
    ]
    if known(unwinding) is not None:
        says.append(
            f"At the end {percent(unwinding)} of the nodes are unwinding; the last dates may move."
        )
    latest = []
    for node, each in zip(history.labels, found, strict=True):
        if len(each.step):
            kind = "peak" if each.peak[-1] else "trough"
            when = day(int(history.level.ts[each.step[-1]]))
            latest.append((int(each.step[-1]), f"{node} ({kind}, {when})"))
    latest.sort(reverse=True)
    says.append(f"Latest turns: {listed((words for _, words in latest), 3)}.")
    return says
