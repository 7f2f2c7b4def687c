"""How tightly leverage moves together, step by step."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import ndtri

from undertow.econometrics.dcc import dcc
from undertow.econometrics.moments import rolling_mean_correlation
from undertow.measures.study import Study
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory, Together
from undertow.measures.words import banded, known, percent, told
from undertow.state import FloatColumn, FloatMatrix

_READ = (
    "A rising index says that the same few causes move more and more of the leverage: less is "
    "gained by spreading it. Compare it with its own past, not with 1. The rolling line answers "
    "late and forgets at once, the fading one answers sooner, the fitted one says how much of "
    "either is more than noise."
)
_MISLEADS = (
    "Neighbouring windows share nearly all of their steps, so runs look like trends. Beyond prices "
    "the index is a lower bound while forced sales move prices: it can fall when prices take over."
)


def index(
    history: LeverageHistory,
    *,
    window: int | None = None,
    half_life: float | None = None,
    level: float = 0.9,
) -> Study:
    """Mean correlation over all pairs beyond prices: rolling, fading and by cDCC.

    `window` is a tenth of the steps, 60 to 250, unless given; `half_life` a third of that. The band
    of a window is r +- q sd(m) / sqrt(window), where m is what each step moves the mean correlation
    by (the delta method). The fitted line is the mean of the correlations that corrected dynamic
    conditional correlation (Aielli 2013) expected at the step before.
    """
    used = history.usable()
    seen = used.together(Layer.OWN)
    steps = len(seen.ts)
    width = min(max(steps // 10, LEAST_ROWS), 250) if window is None else window
    fading = width / 3.0 if half_life is None else half_life
    rolled = rolling_mean_correlation(seen.values, width)
    value, low, high = _banded(seen.values, rolled.values, width, level)
    fitted = dcc(seen.values)
    expected = fitted.mean_off_diagonal()[:-1]
    lines = pl.DataFrame(
        {
            "ts": pl.Series(seen.ts).cast(pl.Datetime("us", "UTC")),
            "rolling": _padded(value, steps),
            "low": _padded(low, steps),
            "high": _padded(high, steps),
            "ewma": _faded(seen.values, fading),
            "dcc": expected,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    rank = float(np.mean(value <= value[-1]))
    moves = fitted.gain > 6.0 and not fitted.status
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
            used.tell(
                "tandem.index_rank",
                rank,
                "share of all windows so far in which the index was no higher than now",
            ),
            used.tell(
                "tandem.index_expected",
                float(fitted.mean_off_diagonal()[-1]),
                "mean correlation over all pairs that cDCC expects of the next step, beyond prices",
                evidence="modelled",
            ),
        ),
        tables={"index": lines},
        says=tuple(_says(used, seen, value, low, high, rank, width, moves)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out={**history.left_out, **seen.left_out},
    )


def _banded(
    x: FloatMatrix, value: FloatColumn, width: int, level: float
) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """The mean correlation of each window with its band.

    A step moves the mean of products p by p - r s, with s its mean square: the delta method for
    a correlation, of values in standard deviations.
    """
    n = x.shape[1]
    z = x / np.sqrt(np.mean(x * x, axis=0))
    product = (z.sum(axis=1) ** 2 - (z * z).sum(axis=1)) / (n * (n - 1))
    square = (z * z).mean(axis=1)
    sums = [_summed(a * b, width) for a, b in (
        (product, product), (product, square), (square, square),
        (product, np.ones(len(x))), (square, np.ones(len(x))),
    )]  # fmt: skip
    pp, ps, ss, p, s = (each / width for each in sums)
    spread = (pp - p * p) - 2.0 * value * (ps - p * s) + value**2 * (ss - s * s)
    reach = ndtri(0.5 + level / 2.0) * np.sqrt(np.maximum(spread, 0.0) / width)
    return value, np.maximum(value - reach, -1.0), np.minimum(value + reach, 1.0)


def _summed(x: FloatColumn, width: int) -> FloatColumn:
    total = np.concatenate([[0.0], np.cumsum(x)])
    return np.asarray(total[width:] - total[:-width])


def _faded(x: FloatMatrix, half_life: float) -> FloatColumn:
    """Mean correlation under weights that halve every `half_life` steps, without keeping pairs."""
    decay, n = 0.5 ** (1.0 / half_life), x.shape[1]
    z = np.zeros_like(x)
    square = np.mean(x[:LEAST_ROWS] ** 2, axis=0)
    product, out = 0.0, np.full(len(x), np.nan)
    for t, row in enumerate(x):
        square = decay * square + (1.0 - decay) * row**2
        z[t] = row / np.sqrt(square)
        now = (z[t].sum() ** 2 - (z[t] ** 2).sum()) / (n * (n - 1))
        product = decay * product + (1.0 - decay) * now
        if t >= LEAST_ROWS:
            out[t] = product / (1.0 - decay ** (t + 1))
    return np.asarray(np.clip(out, -1.0, 1.0))


def _padded(values: FloatColumn, steps: int) -> FloatColumn:
    return np.concatenate([np.full(steps - len(values), np.nan), values])


def _says(
    history: LeverageHistory, seen: Together, value: FloatColumn, low: FloatColumn,
    high: FloatColumn, rank: float, width: int, moves: bool,
) -> list[str]:  # fmt: skip
    state = "high" if rank > 0.9 else "low" if rank < 0.1 else "neither high nor low"
    first = (
        f"The index of {history.called} stands at {banded(value[-1], low[-1], high[-1])} over the "
        f"last {width} steps: {state}, {percent(rank)} of all windows were no higher."
    )
    dynamic = (
        "Correlations do move over time (cDCC explains more than constant ones)."
        if moves
        else "That correlations move at all cannot be told from noise: cDCC explains no more than "
        "constant ones, so ups and downs of the rolling line mean little."
    )
    wide = f"Over all {len(seen.ts):,} steps it went from {told(known(float(np.nanmin(value))))} "
    return [first, dynamic, f"{wide}to {told(known(float(np.nanmax(value))))}."]
