"""How tightly leverage moves together, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import ndtri

from undertow.econometrics.dcc import DccFit, dcc
from undertow.econometrics.fading import ewma_correlation
from undertow.econometrics.hac import bartlett_sum
from undertow.econometrics.influence import mean_correlation_moves, weighted_error
from undertow.econometrics.moments import rolling_mean_correlation
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory, Together
from undertow.measures.words import banded, known, percent, told
from undertow.state import FloatColumn, FloatMatrix

_READ = (
    "A rising index says that the same few causes move more and more of the leverage: less is "
    "gained by spreading it. Compare it with its own past, not with 1. Three lines: rolling is "
    "the mean over a sliding window, answers late and forgets at once; ewma weighs steps less the "
    "older they are, and answers sooner; dcc is what dynamic conditional correlation expected at "
    "the step before, and says how much of the other two is more than noise."
)
_MISLEADS = (
    "Neighbouring windows share nearly all of their steps, so runs look like trends. Beyond "
    "prices the index is a lower bound while forced sales move prices: it can fall when prices "
    "take over. What cDCC expects misses, band and all, what comes and goes within a window. "
    f"{ONE_BASKET}"
)


def index(
    history: LeverageHistory,
    *,
    window: int | None = None,
    half_life: float | None = None,
    level: float = 0.9,
) -> Study:
    """Mean correlation over all pairs beyond prices: rolling, ewma (fading) and dcc (expected).

    `window` is a tenth of the steps, 60 to 250, unless given; `half_life` a third of that. The band
    of a window is r +- q sd(m) / sqrt(window), where m is what each step moves the mean correlation
    by (the delta method) and sd its long-run deviation. The line dcc is the mean of the
    correlations that corrected dynamic conditional correlation (Aielli 2013) expected at the step
    before; the band of the newest is that of the weights that it gives to steps of the past, and of
    how far windows strayed from the line beyond their own noise.
    """
    require_history(history)
    used = history.usable()
    seen = used.together(Layer.OWN)
    steps = len(seen.ts)
    width = min(max(steps // 10, LEAST_ROWS), 250) if window is None else window
    fading = width / 3.0 if half_life is None else half_life
    rolled = rolling_mean_correlation(seen.values, width)
    value, low, high = _banded(seen.values, rolled.values, width, level)
    faded = ewma_correlation(seen.values, fading, least=LEAST_ROWS)
    fitted = dcc(seen.values)
    means = fitted.mean_off_diagonal()
    lines = pl.DataFrame(
        {
            "ts": pl.Series(seen.ts).cast(pl.Datetime("us", "UTC")),
            "rolling": _padded(value, steps),
            "low": _padded(low, steps),
            "high": _padded(high, steps),
            "ewma": _padded(faded.values.mean(axis=1), steps),
            "dcc": means[:-1],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    layers = _layers(used, width)
    rank = float(np.mean(value <= value[-1]))
    moves = fitted.gain > 6.0 and not fitted.status
    strayed = _strayed(value, high - low, means[:-1], level)
    expected = _Expected.of(fitted, float(means[-1]), strayed, level, moves=moves)
    return Study(
        name="tandem.index",
        title=f"How tightly {used.called} moves together, over time",
        readings=(
            used.tell(
                "tandem.index",
                value[-1],
                f"mean correlation over all pairs in the last {width} steps of the "
                f"{Layer.OWN.words}",
                band=(low[-1], high[-1]),
                level=level,
                rows=width,
            ),
            *(
                used.tell(
                    "tandem.index",
                    now,
                    f"mean correlation over all pairs in the last {width} steps of the "
                    f"{layer.words}",
                    subject=layer.value,
                    band=band,
                    level=level,
                    rows=width,
                )
                for layer, now, band in _newest(layers, used, width, level)
            ),
            used.tell(
                "tandem.index_rank",
                rank,
                "share of all windows so far in which the index was no higher than now; a count of "
                "windows, whose band is what it would be at either end of the band of the index",
                band=(float(np.mean(value <= low[-1])), float(np.mean(value <= high[-1]))),
                level=level,
            ),
            used.tell(
                "tandem.index_expected",
                expected.next,
                "mean correlation over all pairs that cDCC expects of the next step, beyond "
                "prices; its band takes how fast correlations move as fitted, and adds how far "
                "windows strayed from what was expected of them",
                band=(expected.low, expected.high),
                level=level,
                evidence="modelled",
            ),
        ),
        tables={"index": lines, "layers": layers},
        says=tuple(_says(used, seen, lines, layers, rank, width, expected)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **seen.left_out},
    )


def _layers(history: LeverageHistory, width: int) -> pl.DataFrame:
    """The rolling line of every layer that can be told."""
    frames = []
    for layer in history.layers:
        seen = history.together(layer)
        if len(seen.ts) >= width:
            rolled = rolling_mean_correlation(seen.values, width)
            ts = pl.Series(seen.ts[width - 1 :]).cast(pl.Datetime("us", "UTC"))
            frames.append(pl.DataFrame({"ts": ts, "layer": layer.value, "rolling": rolled.values}))
    return pl.concat(frames).with_columns(pl.col("rolling").fill_nan(None))


def _newest(
    layers: pl.DataFrame, history: LeverageHistory, width: int, level: float
) -> Iterator[tuple[Layer, float, tuple[float, float]]]:
    """Where the layers but the last stand now, with their bands."""
    for layer in history.layers:
        line = layers.filter(pl.col("layer") == layer.value)["rolling"].to_numpy()
        if layer is not Layer.OWN and len(line):
            rows = history.together(layer).values[-width:]
            value, low, high = _banded(rows, line[-1:], width, level)
            yield layer, float(value[0]), (float(low[0]), float(high[0]))


def _banded(
    x: FloatMatrix, value: FloatColumn, width: int, level: float
) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """The mean correlation of each window with its band, by the delta method.

    What each step moves the mean correlation by is a series, whose long-run variance is that of the
    window (Bartlett weights, so a step may have something of the one before it).
    """
    spread = np.empty(len(value))
    lags = int(1.5 * width ** (1.0 / 3.0))
    for k in range(len(value)):
        spread[k] = (
            bartlett_sum(mean_correlation_moves(x[k : k + width])[:, None], lags)[0, 0] / width
        )
    reach = ndtri(0.5 + level / 2.0) * np.sqrt(np.maximum(spread, 0.0) / width)
    return value, np.maximum(value - reach, -1.0), np.minimum(value + reach, 1.0)


def _strayed(
    rolled: FloatColumn, across: FloatColumn, expected: FloatColumn, level: float
) -> float:
    """Deviation of the means of windows from what was expected in them, beyond their own noise.

    `across` is how wide the band of each window is.
    """
    width = len(expected) - len(rolled) + 1
    line = np.convolve(expected, np.full(width, 1.0 / width), mode="valid")
    noise = (0.5 * across / float(ndtri(0.5 + level / 2.0))) ** 2
    beyond = float(np.nanmean((rolled - line) ** 2 - noise))
    return math.sqrt(max(beyond, 0.0))


def _padded(values: FloatColumn, steps: int) -> FloatColumn:
    return np.concatenate([np.full(steps - len(values), np.nan), values])


@dataclass(frozen=True, slots=True)
class _Expected:
    """What cDCC says of correlations."""

    next: float  # their mean at the step after the last
    low: float
    high: float
    moves: bool  # whether it explains more than constant ones

    @classmethod
    def of(
        cls, fit: DccFit, mean: float, strayed: float, level: float, *, moves: bool
    ) -> _Expected:
        """The mean with the band of what it weighs: news of k steps ago by a b^k, the rest evenly.

        `strayed` is how far, beyond noise, correlations were from what was expected before.
        """
        if not np.isfinite(mean):
            return cls(mean, np.nan, np.nan, moves)
        rows, a, b = len(fit.z), float(np.nan_to_num(fit.a)), float(np.nan_to_num(fit.b))
        weights = a * b ** np.arange(rows)[::-1]
        weights += (1.0 - weights.sum()) / rows
        error = weighted_error(mean_correlation_moves(fit.z[:, fit.kept()]), weights)
        reach = float(ndtri(0.5 + level / 2.0)) * float(np.hypot(error, strayed))
        return cls(mean, max(mean - reach, -1.0), min(mean + reach, 1.0), moves)


def _says(
    history: LeverageHistory, seen: Together, lines: pl.DataFrame, layers: pl.DataFrame,
    rank: float, width: int, expected: _Expected,
) -> list[str]:  # fmt: skip
    state = "high" if rank > 0.9 else "low" if rank < 0.1 else "neither high nor low"
    value, low, high = (
        float(lines[name].fill_null(np.nan)[-1]) for name in ("rolling", "low", "high")
    )
    says = [
        (
            f"The index of {history.called} stands at {banded(value, low, high)} over the last "
            f"{history.steps(width)}: {state}, {percent(rank)} of all windows were no higher."
        ),
        (
            "Correlations do move over time (cDCC explains more than constant ones)."
            if expected.moves
            else "That correlations move at all cannot be told from noise: cDCC explains no more "
            "than constant ones, so ups and downs of the rolling line mean little."
        ),
    ]
    if known(expected.next) is not None and not low <= expected.next <= high:
        side = "above" if expected.next > high else "below"
        why = (
            "it weighs all of the past, the newest steps most"
            if expected.moves
            else "it takes the whole history for one kind, and the window is a part of it that may "
            "differ by chance"
        )
        says.append(
            f"cDCC expects {banded(expected.next, expected.low, expected.high)} of the next step, "
            f"{side} the band of the rolling line: {why}."
        )
    raw = layers.filter(pl.col("layer") == Layer.RAW.value)["rolling"].drop_nulls()
    if len(raw):
        says.append(f"With prices and all it stands at {told(float(raw[-1]))}.")
    rolling = lines["rolling"].drop_nulls().to_numpy()
    least, most = told(float(rolling.min())), told(float(rolling.max()))
    says.append(f"Over all {len(seen.ts):,} steps the rolling line lay between {least} and {most}.")
    return says
