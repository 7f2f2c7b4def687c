"""Who gives uncertainty about leverage to whom."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.econometrics import connectedness_bands as bands
from undertow.econometrics.connectedness_rolling import rolling_connectedness, window_null
from undertow.econometrics.equations import LEAST_SQUARES, Estimator
from undertow.econometrics.penalties import choose_penalty
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import Layer, LeverageHistory, Together
from undertow.measures.words import banded, chance, known, listed, percent, told

REGULARISED_PAST = 15  # series; more coefficients than that are not worth what they cost
_WINDOWS = 120  # of the rolling curve, at most

_READ = (
    "A share is how much of the uncertainty about one node's growth, ten steps ahead, comes of "
    "shocks to another. Of a net giver others learn more than it learns of them: that is who "
    "comes first in forecasts, and no proof that unwinding starts there. The total says how much "
    "of all uncertainty is shared, less the bias upward that short histories have; so it is 0 "
    "where nothing is shared, and belongs to its band. Shares of nodes and pairs are as "
    "estimated, the bias in them, and so is the total over time: that one is held against what "
    "unrelated nodes show in a window as long as each of those."
)
_MISLEADS = (
    "It is about forecasts, not causes: a node that hears the news first looks like the giver. "
    "Shares of single nodes and pairs are biased upward, in short histories a lot. Shocks are "
    "taken one by one as they come, with what came with them, so shares do not depend on an order "
    f"but overlap. {ONE_BASKET}"
)


def connectedness(
    history: LeverageHistory,
    *,
    lags: int = 1,
    horizon: int = 10,
    window: int | None = None,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.9,
) -> Study:
    """Diebold-Yilmaz connectedness of growth beyond prices: to, from, net and total, with bands.

    Generalised shares, so no order of nodes matters; past 15 nodes the autoregression is an elastic
    net whose penalty is chosen by cross-validation in blocks. Bands are by a bootstrap of its
    residuals, the null keeps each node's own dynamics and nothing between nodes. The total has its
    bias taken out by the same bootstrap. Windows over time have a null of their own length: the
    sign of each shock drawn at random.
    """
    require_history(history)
    require_seed(seed)
    used = history.usable()
    seen = used.together(Layer.OWN)
    x, estimator = seen.values, _estimator(seen, lags)
    first, second, third = (np.random.default_rng([seed, k]) for k in (5, 6, 8))
    found = bands.connectedness_bands(
        x, lags, horizon, rng=first, draws=draws, level=level, estimator=estimator
    )
    null = bands.connectedness_null(
        x, lags, horizon, rng=second, draws=draws, level=level, estimator=estimator,
        again=seen.again,
    )  # fmt: skip
    fit = found.fit
    return Study(
        name="tandem.connectedness",
        title=f"Who passes {used.called} on to whom",
        readings=(
            used.tell(
                "tandem.connectedness",
                found.centred,
                f"share of the {horizon}-step uncertainty about growth beyond prices that comes of "
                "shocks to other nodes, mean over nodes, less the bias of the estimate (bootstrap)",
                band=found.total,
                level=level,
            ),
            used.tell(
                "tandem.connectedness_excess",
                null.excess,
                "the total as estimated, less what it would be on average were the nodes unrelated",
                band=_excess(found, null, level),
                level=level,
            ),
            *(
                used.tell(
                    "tandem.net_connectedness",
                    fit.net[j],
                    "what a node gives of uncertainty to all others less what it takes from them",
                    subject=node,
                    band=(found.net[0, j], found.net[1, j]),
                    level=level,
                )
                for j, node in enumerate(seen.labels)
            ),
        ),
        tables={
            "nodes": pl.DataFrame(
                {
                    "node": seen.labels,
                    "to": fit.to,
                    "from": fit.from_,
                    "net": fit.net,
                    "net_low": found.net[0],
                    "net_high": found.net[1],
                }
            ).with_columns(pl.col(pl.Float64).fill_nan(None)),
            "table": _table(seen.labels, fit.table),
            "rolling": _rolling(seen, lags, horizon, window, estimator, third, draws, level),
        },
        says=tuple(_says(used, seen, found, null)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **seen.left_out},
    )


def _excess(
    found: bands.ConnectednessBands, null: bands.ConnectednessNull, level: float
) -> tuple[float, float]:
    """As far about the excess as the total's draws lie about their mean.

    Where the band of the total is cut off at 0, its lower part is that of unrelated nodes.
    """
    low, high = (end + found.bias - null.expected for end in found.total)
    if found.total[0] <= 0.0 and len(null.totals):
        most = float(np.quantile(null.totals, 0.5 + 0.5 * level))
        low = min(low, null.excess - (most - null.expected))
    return min(low, null.excess), max(high, null.excess)


def _estimator(seen: Together, lags: int) -> Estimator:
    if len(seen.labels) <= REGULARISED_PAST:
        return LEAST_SQUARES
    return choose_penalty(seen.values, lags).estimator


def _table(labels: tuple[str, ...], shares: np.ndarray) -> pl.DataFrame:
    names = pl.Series(labels, dtype=pl.String)
    i, j = np.indices(shares.shape)
    return pl.DataFrame(
        {
            "to_node": names.gather(i.ravel()),
            "from_node": names.gather(j.ravel()),
            "share": shares.ravel(),
        }
    ).with_columns(pl.col("share").fill_nan(None))


def _rolling(
    seen: Together, lags: int, horizon: int, window: int | None, estimator: Estimator,
    rng: np.random.Generator, draws: int, level: float,
) -> pl.DataFrame:  # fmt: skip
    """The total of sliding windows; none where there are too few steps for two windows."""
    steps, nodes = seen.values.shape
    width = max(min(250, steps // 4), 4 * nodes * lags, 100) if window is None else window
    empty = pl.DataFrame(
        schema={"ts": pl.Datetime("us", "UTC"), "total": pl.Float64, "null_high": pl.Float64}
    )
    if width >= steps:
        return empty
    step = max((steps - width) // _WINDOWS, 1)
    curve = rolling_connectedness(seen.values, width, lags, horizon, step=step, estimator=estimator)
    null = window_null(
        seen.values, width, lags, horizon, rng=rng, draws=draws, level=level, estimator=estimator,
        again=seen.again,
    )  # fmt: skip
    return pl.DataFrame(
        {
            "ts": pl.Series(seen.ts[curve.end - 1]).cast(pl.Datetime("us", "UTC")),
            "total": curve.total,
            "null_high": np.full(len(curve.total), null.high),
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _says(
    history: LeverageHistory,
    seen: Together,
    found: bands.ConnectednessBands,
    null: bands.ConnectednessNull,
) -> list[str]:
    fit = found.fit
    if fit.status or known(fit.total) is None:
        return [f"Connectedness cannot be told: {fit.status or found.status}."]
    there = null.p_value < 0.05
    verdict = "more than chance" if there else "no more than chance makes"
    low, high = (percent(each) for each in found.total)
    says = [
        (
            f"{percent(found.centred)} of the uncertainty about {history.called} beyond prices "
            f"comes of other nodes ({low} to {high}), once the bias of the estimate is taken out; "
            f"with it, it is {percent(fit.total)}, where unrelated nodes would show "
            f"{percent(null.expected)} ({chance(null.p_value)}): {verdict}."
        )
    ]
    for word, side in (("giver", 1.0), ("taker", -1.0)):
        beyond = [
            (side * fit.net[j], f"{node} ({banded(fit.net[j], *found.net[:, j])})")
            for j, node in enumerate(seen.labels)
            if side * found.net[0 if side > 0 else 1, j] > 0.0
        ]
        if there and beyond:
            beyond.sort(reverse=True)
            says.append(f"Net {word}s: {listed((name for _, name in beyond), 3)}.")
    if there and len(says) == 1:
        says.append("Who gives and who takes cannot be told: all bands of the nets hold 0.")
    if found.bias > 0.1:
        says.append(f"The window is short for so many nodes: a bias of {told(found.bias)}.")
    return says
