"""When leverage was built up and when it was unwound, node by node, and whether in step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from undertow.econometrics.concordance import Concordance, concordance, concordance_bands
from undertow.econometrics.cycles import Clarity, TurningPoints, Windows, clarity
from undertow.econometrics.cycles import turning_points as dated
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.words import banded, corrected, day, known, listed, many, percent, told
from undertow.state import Reading

_READ = (
    "From a trough to the next peak there is a build-up, from a peak to the next trough an "
    "unwind. Concordance is the share of time that two nodes spend in the same phase, less the "
    "share that two have which turn independently: 0 is chance, 0.5 always in step, -0.5 never, "
    "wherever it stands. A pair counts where its p-value, corrected for all pairs, is below 0.05. "
    "Clarity is the drift of a phase over the noise of a step, less what dating finds in noise "
    "alone: at 1 most turns are dated within two steps, at 0.5 about half of them, at 0.3 four in "
    "ten; where its band reaches 0 the dates may be those of a walk without any cycle."
)
_SURE = 0.05
_MISLEADS = (
    "A wandering level has peaks too: a turn is a date, no proof of a cycle. The last turn may "
    "still move as more is seen. Prices are in the level, and so are cycles of prices. Bands of "
    "concordance take phases as they were dated: where clarity is low, dates are off, and "
    "concordance is nearer to 0 than that of the true phases."
)


def cycle(history: LeverageHistory, *, expected: float | None = None, level: float = 0.9) -> Study:
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
    lows, highs, band = concordance_bands(phases, length, level=level)
    clear = [clarity(each, level=level) for each in found]
    unwinding = _unwinding(found, level)
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
                band=band,
                level=level,
            ),
            used.tell(
                "tandem.unwinding_share",
                unwinding[0],
                "share of the nodes that are past their last peak, of those that turned; no turn "
                f"is dated in the last {windows.edge} steps. Its band goes from those of which it "
                "is sure to those of which it cannot be ruled out, node by node",
                band=unwinding[1:],
                level=level,
            ),
            *_clear(used, clear, level),
        ),
        tables={
            "turns": _turns(used, found),
            "spells": _spells(used, found),
            "concordance": _pairs(used.labels, tied, i, j).with_columns(
                pl.Series("low", lows[i, j]).fill_nan(None),
                pl.Series("high", highs[i, j]).fill_nan(None),
            ),
            "clarity": _clarity_table(used, clear),
        },
        says=tuple(_says(used, found, tied, (mean, *band), unwinding, length, clear)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **undated},
    )


Band = tuple[float, float, float]  # value, low, high


def _unwinding(found: list[TurningPoints], level: float) -> Band:
    """Share of nodes in a fall, that of those surely in one, and of those that may be."""
    chances = np.array([each.falling for each in found if len(each.step)])
    now = np.array([each.phase[~np.isnan(each.phase)][-1] for each in found if len(each.step)])
    if not len(now):
        return np.nan, np.nan, np.nan
    sure = 0.5 + 0.5 * level
    value = float(np.mean(now == 0.0))
    low, high = float(np.mean(chances >= sure)), float(np.mean(chances > 1.0 - sure))
    return value, min(low, value), max(high, value)


def _clear(history: LeverageHistory, found: list[Clarity], level: float) -> Iterator[Reading]:
    """How clear the cycle of the median node is, and that of each."""
    words = (
        "mean drift of a step within a phase over the noise of a step, less what dating finds in a "
        "walk without a cycle; none without a whole phase"
    )
    ends = np.array([(each.value, each.low, each.high) for each in found])
    ends = ends[~np.isnan(ends).any(axis=1)]
    middle = np.median(ends, axis=0) if len(ends) else np.full(3, np.nan)
    yield history.tell(
        "tandem.clarity", middle[0], f"{words}; median over nodes, band of the median of ends",
        band=(middle[1], middle[2]), level=level,
    )  # fmt: skip
    for node, each in zip(history.labels, found, strict=True):
        yield history.tell(
            "tandem.clarity", each.value, words, subject=node, band=(each.low, each.high),
            level=level,
        )  # fmt: skip


def _clarity_table(history: LeverageHistory, found: list[Clarity]) -> pl.DataFrame:
    """A row a node: how clear its cycle is, over how many whole phases of what length."""
    return pl.DataFrame(
        {
            "node": pl.Series(history.labels, dtype=pl.String),
            "clarity": [each.value for each in found],
            "low": [each.low for each in found],
            "high": [each.high for each in found],
            "phases": [each.phases for each in found],
            "steps": [each.length for each in found],
            "told_from_a_walk": [each.there for each in found],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


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
    history: LeverageHistory, found: list[TurningPoints], tied: Concordance, mean: Band,
    unwinding: Band, length: float, clear: list[Clarity],
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
            f"nodes is {banded(*mean)} on average, where 0 is chance and 0.5 always in step, "
            f"and for {sure} of {many(len(p), 'pair')} it is beyond chance (p below 0.05 after "
            "correction for all pairs)."
        )
    ]
    says += _clear_words(history, clear)
    if known(unwinding[0]) is not None:
        share, low, high = (percent(each) for each in unwinding)
        says.append(
            f"At the end {share} of the nodes are unwinding ({low} to {high}); the last dates may "
            "move."
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


def _clear_words(history: LeverageHistory, clear: list[Clarity]) -> Iterator[str]:
    """Of how many nodes the cycle can be dated, how nearly, and of which it cannot."""
    there = [each.value for each in clear if each.there]
    blurred = [node for node, each in zip(history.labels, clear, strict=True) if not each.there]
    if there:
        middle = float(np.median(there))
        near = "most" if middle >= 1.0 else "about half" if middle >= 0.5 else "less than half"
        yield (
            f"Of {many(len(there), 'node')} the cycle is clear enough to be dated: their median "
            f"clarity is {told(middle)}, at which {near} of the dates are within two steps."
        )
    if blurred:
        none = (
            f"Of {listed(blurred)} it is not" if there else "No cycle is clear enough to be dated"
        )
        yield (
            f"{none}: a walk without any cycle would show turns as clear "
            "as these, so the dates say little."
        )
