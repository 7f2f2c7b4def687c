"""Do nodes delever together more than they build up together, and more than loud times explain?

Growth is negative where a node delevers, so the lower tail is common deleveraging. Three questions
are held apart: are large moves more alike than a normal law has them (loud times alone do that),
are falls more alike than rises (loud times do not do that), and does correlation rise in stressed
times by more than larger shocks explain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.extremes import stress
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.tail_layer import (
    Band,
    Tails,
    count_table,
    exceedance_table,
    kept,
    seen,
)
from undertow.measures.words import banded, chance, many, percent, told
from undertow.state import Reading

FEWEST = 5  # steps of a node that are its worst
_SURE = 0.05


def tails(
    history: LeverageHistory,
    *,
    seed: int = 0,
    level: float = 0.9,
    share: float = 0.05,
    stressed: float = 0.1,
    reps: int = 199,
) -> Study:
    """Whether leverage falls together more than it rises together, and than volatility explains.

    `share` of the steps of each node are its worst; the loudest `stressed` share of steps, by the
    volatility of the market up to the step before, are stressed. Bands are from a stationary
    bootstrap of whole steps, `reps` draws.

    Raises
    ------
    StateError
        When fewer than two nodes can be used.
    EstimationError
        When a share or the level is out of range.

    References
    ----------
    Longin and Solnik (2001), J. Finance 56; Ang and Chen (2002), J. Financial Economics 63; Hong,
    Tu and Zhou (2007), Review of Financial Studies 20; Forbes and Rigobon (2002), J. Finance 57;
    Bae, Karolyi and Stulz (2003), Review of Financial Studies 16.
    """
    require_history(history)
    require_seed(seed)
    within("share", share, 0.0, 0.5)
    within("stressed", stressed, 0.0, 0.5)
    within("level", level, 0.0, 1.0)
    usable = kept(history)
    left_out = dict(history.left_out)
    times = stress(usable.market.values, stressed)
    found = []
    for at, layer in enumerate((Layer.OWN, Layer.RAW)):
        names, x, reasons = seen(usable, layer)
        left_out |= {node: f"{layer.value}: {why}" for node, why in reasons.items()}
        if len(names) < 2:
            continue
        plain = usable.purged.residual if layer is Layer.OWN else usable.growth
        columns = [usable.labels.index(name) for name in names]
        rngs = [np.random.default_rng([seed, 200 + 10 * at + k]) for k in range(6)]
        found.append(Tails(layer, names, x, plain[:, columns], *times, share, reps, level, rngs))
    return Study(
        "tandem.tails",
        f"Does {history.called} fall together more than it rises together?",
        tuple(_readings(usable, found)),
        {
            "exceedance": pl.concat([exceedance_table(each) for each in found]),
            "dependence": found[0].pairs,
            "coexceedance": pl.concat([count_table(each) for each in found]),
            "contagion": pl.concat([each.contagion for each in found]),
        },
        tuple(_says(usable, found, left_out, stressed)),
        "An exceedance correlation is taken over the steps at which both nodes fall (rise) beyond "
        "a threshold, in standard deviations; hold it against the column normal, not against the "
        "plain correlation, from which it differs even when nothing has changed. Tail dependence "
        "is the chance that one node has one of its worst steps, given that the other has. The "
        "adjusted correlation is that of stressed times brought back to calm shocks; only what it "
        f"has over the calm one is more than volatility. {usable.pace}",
        "Few steps decide in the tails: look at count. Raw growth has loud and quiet times, which "
        "look like tail dependence; beyond prices most of that is scaled away. The adjustment "
        "takes all turmoil of the source as common: where nodes are loud each on its own, it errs "
        "towards finding nothing. Where not all pairs are shown, those shown were picked because "
        "they are high, and read too high.",
        left_out,
    )


def _readings(history: LeverageHistory, found: list[Tails]) -> Iterator[Reading]:
    for of in found:
        yield from _told(history, of)


def _told(history: LeverageHistory, of: Tails) -> Iterator[Reading]:
    called, within_layer = history.called, f"({of.layer.words})"

    def tell(name: str, value: float, band: Band | None, definition: str) -> Reading:
        return history.tell(
            name, value, f"{definition} {within_layer}; none where tails are too thin",
            subject=of.layer.value, band=band, level=of.level,
        )  # fmt: skip

    gap, gap_band = of.apart("rises")
    yield tell(
        "fall_rise_gap", gap, gap_band,
        f"correlation of two nodes' growth of {called} over steps at which both fall beyond 0, "
        "0.5, 1 and 1.5 standard deviations, less that over steps at which both rise as far, meant "
        "over thresholds and the pairs with five steps of either kind; above 0 falls are more "
        "alike than rises",
    )  # fmt: skip
    excess, excess_band = of.apart("normal")
    yield tell(
        "fall_excess", excess, excess_band,
        f"correlation of two nodes' growth of {called} over steps at which both fall beyond 0, "
        "0.5, 1 and 1.5 standard deviations, less what a normal law of the same correlation shows "
        "there, meant over thresholds and the pairs with five steps of falls, and five of rises",
    )  # fmt: skip
    for k, (name, word) in enumerate((("fall_dependence", "falls"), ("rise_dependence", "rises"))):
        low, high = of.joint.band(of.level)
        value = float(of.joint.estimate[k]) if of.tail_steps >= FEWEST else np.nan
        yield tell(
            name, value, (float(low[k]), float(high[k])),
            f"of a node's {percent(of.share)} strongest {word} of {called}, the share that another "
            "node has among its own, meant over pairs",
        )  # fmt: skip
    shift, (low, high) = float(of.shift.estimate), of.shift.band(of.level)
    yield tell(
        "stress_shift", shift, (float(low), float(high)),
        f"correlation of a node's growth of {called} with the mean of all others in stressed "
        "times, brought back to calm shocks (Forbes and Rigobon), less that in calm times, meant "
        "over nodes; above 0 it rose by more than larger shocks explain",
    )  # fmt: skip
    p = of.contagion["p_corrected"].drop_nulls()
    sure = int((p < _SURE).sum()) / len(p) if len(p) else np.nan
    yield tell(
        "contagion_share", sure, None,
        f"share of nodes whose growth of {called} is more correlated with all others in stressed "
        "times than larger shocks explain, p below 0.05 after correction for all nodes",
    )  # fmt: skip
    if of.copula is not None:
        fit, band = of.copula
        yield tell(
            "copula_degrees", fit.degrees, band.degrees,
            f"degrees of freedom of a t copula of growth of {called} of all nodes: few, many joint "
            "extremes; none where the normal copula, which has no end of them, fits best",
        )  # fmt: skip


def _says(
    history: LeverageHistory, found: list[Tails], left_out: Mapping[str, str], stressed: float
) -> Iterator[str]:
    first = found[0]
    if first.layer is not Layer.OWN:
        yield (
            f"Beyond prices nothing can be said of the tails of {history.called}: fewer than two "
            "of its nodes have enough steps to take prices out; what follows is of raw growth, "
            "prices and all."
        )
    yield _verdict(history, first)
    for of in found:
        yield from _details(history, of, stressed)
    if left_out:
        yield f"{many(len(left_out), 'node')} left out of a layer, for the reasons given."


def _verdict(history: LeverageHistory, of: Tails) -> str:
    gap, (gap_low, gap_high) = of.apart("rises")
    shift, (low, high) = float(of.shift.estimate), of.shift.band(of.level)
    if np.isnan(gap) and np.isnan(shift):
        return (
            f"Whether {history.called} falls together more than it rises together cannot be told: "
            "no pair has five steps at which both move far, and no node enough stressed ones."
        )
    falls, stays = gap_low > 0.0, low > 0.0
    said = f"{of.layer.value}, {history.called} "
    if falls and stays:
        said += "moves together more on the way down than volatility alone explains, on both counts"
    elif falls:
        said += (
            "moves together more on the way down than on the way up, which volatility alone does "
            "not do; in stressed times it is no more tied than larger shocks explain"
        )
    elif stays:
        said += (
            "is tied more closely in stressed times than larger shocks explain, though joint falls "
            "are no more alike than joint rises"
        )
    else:
        said += "moves together no more on the way down than volatility alone explains"
    return (
        f"{said[0].upper()}{said[1:]}: falls less rises {_banded(gap, (gap_low, gap_high))}, "
        f"stressed less calm after adjustment {_banded(shift, (float(low), float(high)))}, with "
        f"bands of {percent(of.level)}."
    )


def _details(history: LeverageHistory, of: Tails, stressed: float) -> Iterator[str]:
    where = f"In growth of {history.called}, {of.layer.value}: "
    excess, band = of.apart("normal")
    yield (
        f"{where}over joint falls, correlation less what a normal law of the same correlation "
        f"shows is {_banded(excess, band)}."
    )
    if of.tail_steps < FEWEST:
        yield (
            f"{where}{of.tail_steps} steps are a node's worst {percent(of.share)}, and {FEWEST} "
            "are needed to say how often two nodes share them."
        )
    else:
        falls, rises = (float(v) for v in of.joint.estimate)
        yield (
            f"{where}of a node's {percent(of.share)} strongest falls another node shares "
            f"{percent(falls)}, of its rises {percent(rises)}; {of.tail_steps} steps are in "
            "such a tail."
        )
    table, p = of.contagion, of.contagion["p_corrected"].drop_nulls()
    if not len(p):
        yield f"{where}calm and stressed times cannot be compared: {table['reason'][0]}."
    else:
        calm, crisis, adjusted = (
            float(table[name].drop_nulls().to_numpy().mean())
            for name in ("calm", "crisis", "adjusted")
        )
        yield (
            f"{where}correlation with all other nodes is {told(calm)} in calm times, "
            f"{told(crisis)} after the {percent(stressed)} loudest markets, {told(adjusted)} once "
            f"their larger shocks are taken out; {int((p < _SURE).sum())} of {len(p)} nodes "
            "pass the test."
        )
    most = max(2, -(-len(of.names) // 2))
    if of.counts.reason:
        yield f"{where}joint worst steps cannot be counted: {of.counts.reason}."
    elif most < len(of.counts.at_least):
        yield (
            f"{where}{of.counts.at_least[most]} steps have {most} nodes or more among their own "
            f"worst {percent(of.share)} at once; nodes without any tie would have "
            f"{told(of.counts.expected[most])} ({chance(of.counts.p[most])})."
        )


def _banded(value: float, band: Band) -> str:
    return banded(value, *band) if np.isfinite(band).all() else told(value)
