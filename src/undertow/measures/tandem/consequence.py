"""Does knowing yesterday's tandem make tomorrow's loss easier to foretell?

Rows are steps. A portfolio of the market's assets gets its value at risk and expected shortfall one
step ahead, from volatilities (GARCH), correlations (cDCC) and what standardised losses were like
(filtered historical simulation). One forecaster stops there; the other lets correlations stand
higher while leverage moves together. Every forecast uses what was known the step before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binom, binomtest

from undertow.econometrics.checks import screen
from undertow.econometrics.hac import mean_band
from undertow.econometrics.scoring import Comparison, diebold_mariano, joint_score
from undertow.errors import StateError
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.foresight import (
    LEAST_WINDOW,
    PLACEBO,
    PLAIN,
    TANDEM,
    Walk,
    tandem_state,
    walk,
)
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.words import banded, chance, listed, many, percent, span, told
from undertow.state import FloatColumn, FloatMatrix, Reading

_LEAST_JUDGED = 50
_FEW_HITS = 5.0
_STILLEST, _ALIKE = 0.05, 0.98  # of the usual deviation; correlation with another asset
_READ = (
    "Scores are those of Fissler and Ziegel for value at risk and expected shortfall together: "
    "lower is better, and only differences mean anything. The difference counts where its band "
    "does not hold 0. Hits are losses beyond value at risk, beside how many there should have "
    "been. The same forecaster with tandem of long ago shows what flexibility alone brings: a gain "
    "over the plain one that is not a gain over this one is no merit of tandem."
)
_MISLEADS = (
    "At a small tail few steps decide, so a real gain may not show: no better is not no link. The "
    "forecaster given tandem contains the plain one, which it can only beat by more than the noise "
    "of its extra parameters. Tandem is measured beyond prices by fits to past blocks alone, which "
    "is noisier than with all of history. Equal weights are nobody's portfolio; losses are sums of "
    "log returns, rebalanced every step. Bands of the losses to come take volatility and "
    f"correlation as forecast. {ONE_BASKET}"
)


def consequence(
    history: LeverageHistory,
    *,
    weights: Mapping[str, float] | None = None,
    tail: float = 0.01,
    window: int = 500,
    every: int = 250,
    half_life: float = 15.0,
    seed: int = 0,
    level: float = 0.9,
) -> Study:
    """Tail forecasts with correlation given yesterday's tandem, scored against plain cDCC.

    The state is the mean correlation of nodes' growth less what own and market returns explain
    (straight, kinked and late), exponentially weighted with `half_life`; coefficients come from
    past blocks only. Above a threshold of it correlations are R + d (J - R), below it with another
    d, J all ones (towards I where d is negative). Threshold and both d are those of the highest
    likelihood over the past, and used if that beats a constant d by more than log(steps).

    Unless `weights` say otherwise the portfolio holds equal parts of every asset that is neither
    money (it hardly moves) nor a copy of another (it moves as that does), by the first `window`
    steps. Models are fitted to all steps before, from `window` on and again after `every` steps.
    Nothing is drawn at random; `seed` is there for the sake of likeness.

    Raises
    ------
    StateError
        When an option is impossible, or an asset of the portfolio is not there.

    References
    ----------
    Aielli (2013), cDCC. Barone-Adesi, Giannopoulos and Vosper (1999), filtered historical
    simulation. Fissler and Ziegel (2016). Patton (2011), the score of variances. Diebold and
    Mariano (1995).
    """
    require_history(history)
    require_seed(seed)
    _check(tail, window, every, half_life, level)
    used = history.usable()
    assets, left_out = _portfolio(history, weights, window)
    left_out = {**history.left_out, **left_out}
    names = list(assets)
    at = [history.market.labels.index(name) for name in names]
    returns = history.market.values[:, at]
    whole = np.flatnonzero(~np.isnan(returns).any(axis=1))
    first = int(whole[0]) if len(whole) else len(returns)
    short = _too_short(returns[first:], names, window)
    if short:
        return _untold(history, left_out, short)
    share = np.array(list(assets.values()))
    state = tandem_state(used, window=window, every=every, half_life=half_life)[first:]
    run = walk(returns[first:], share, state, tail, window, every)
    return _study(history, run, left_out, tail, level, window)


def _check(tail: float, window: int, every: int, half_life: float, level: float) -> None:
    for name, value, low, high in (
        ("tail", tail, 0.0, 0.5), ("level", level, 0.0, 1.0), ("half_life", half_life, 0.0, 1e6),
    ):  # fmt: skip
        if not low < value < high:
            raise StateError(f"{name} was {value}; it must lie in ({low:g}, {high:g})")
    if window < LEAST_WINDOW:
        raise StateError(
            f"window was {window}; volatilities and correlations need {LEAST_WINDOW} steps"
        )
    if every < 1:
        raise StateError(f"every was {every}; models are fitted again after 1 step or more")


def _portfolio(
    history: LeverageHistory, weights: Mapping[str, float] | None, window: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Assets with their weights, gross sum 1, and why others are not in it."""
    market = history.market
    missing = sorted(set(weights or {}) - set(market.labels))
    if missing:
        raise StateError(
            f"the portfolio holds {missing[0]}, which has no returns",
            hint=f"there are {listed(market.labels, 8)}",
        )
    reasons = list(screen(market.values, least=window, gaps=0.0, late=0.5).reasons)
    early = screen(market.values[:window], least=60, gaps=0.0, late=0.5).reasons
    reasons = [
        why or (f"{soon} in the first {window:,} steps" if soon else "")
        for why, soon in zip(reasons, early, strict=True)
    ]
    if weights is None:
        reasons = _unlike(market.values[:window], market.labels, reasons)
    given = weights if weights is not None else dict.fromkeys(market.labels, 1.0)
    held = {
        name: float(given[name])
        for name, why in zip(market.labels, reasons, strict=True)
        if given.get(name) and not why
    }
    gross = sum(abs(each) for each in held.values())
    left_out = {
        f"returns of {name}": why
        for name, why in zip(market.labels, reasons, strict=True)
        if why and given.get(name)
    }
    return {name: each / gross for name, each in held.items()}, left_out


def _unlike(early: FloatMatrix, labels: tuple[str, ...], reasons: list[str]) -> list[str]:
    """The reasons, and those of assets that hardly move or repeat another, by the first window."""
    rows = early[~np.isnan(early[:, [not why for why in reasons]]).any(axis=1)]
    if len(rows) < 2 or all(reasons):
        return reasons
    spread = rows.std(axis=0)
    usual = float(np.median([each for each, why in zip(spread, reasons, strict=True) if not why]))
    found, kept = list(reasons), list[int]()
    for j, why in enumerate(reasons):
        if why:
            continue
        if spread[j] < _STILLEST * usual:
            found[j] = "it hardly moves, as money does"
            continue
        unit = (rows[:, [*kept, j]] - rows[:, [*kept, j]].mean(axis=0)) / spread[[*kept, j]]
        like = np.abs(unit[:, :-1].T @ unit[:, -1]) / len(rows)
        if (like > _ALIKE).any():
            found[j] = f"it moves as {labels[kept[int(np.argmax(like))]]} does"
        else:
            kept.append(j)
    return found


def _too_short(returns: FloatMatrix, names: list[str], window: int) -> str:
    if len(returns) < window + _LEAST_JUDGED:
        return (
            f"{many(len(returns), 'step')} with all returns; {window:,} to fit and "
            f"{_LEAST_JUDGED} to judge are needed"
        )
    if len(names) < 2:
        return f"{many(len(names), 'asset')} with usable returns, and correlation needs two"
    return ""


def _untold(history: LeverageHistory, left_out: Mapping[str, str], reason: str) -> Study:
    return Study(
        name="tandem.consequence",
        title=_title(history),
        readings=(history.tell("tandem.score_gain", None, _GAIN),),
        tables={},
        says=(
            f"What tandem of {history.called} says of tomorrow's loss cannot be told: {reason}.",
        ),
        how_to_read=f"{_READ} {history.pace}",
        misleads=_MISLEADS,
        left_out=left_out,
    )


_GAIN = (
    "mean score of value at risk and expected shortfall one step ahead (Fissler and Ziegel) given "
    "yesterday's tandem, less that of plain cDCC: negative where tandem helps; none where there "
    "are too few steps or assets to tell"
)


def _title(history: LeverageHistory) -> str:
    return f"Whether tandem of {history.called} foretells losses"


def _study(
    history: LeverageHistory,
    run: Walk,
    left_out: Mapping[str, str],
    tail: float,
    level: float,
    window: int,
) -> Study:
    rows = len(run.losses)
    scores = {
        name: joint_score(run.losses, run.var[name][:rows], run.es[name][:rows], tail)
        for name in run.var
    }
    against = {name: diebold_mariano(scores[name], scores[PLAIN]) for name in (TANDEM, PLACEBO)}
    placebo = diebold_mariano(scores[TANDEM], scores[PLACEBO])
    gain = mean_band(scores[TANDEM] - scores[PLAIN], level=level)
    spread = [_variance_score(run, name) for name in (TANDEM, PLAIN)]
    calmer = mean_band(spread[0] - spread[1], level=level)
    judged = _Judged(run, scores, against, placebo, diebold_mariano(*spread), tail, level)
    ahead = (
        "of an equally weighted portfolio unless weights were given, over the step after the last, "
        f"{span(history.step_us)} long"
    )

    def tell(name: str, value: float, definition: str, **more: Any) -> Reading:
        return history.tell(name, value, definition, evidence="modelled", rows=rows, **more)

    readings = [
        tell("tandem.score_gain", gain.value, _GAIN, band=(gain.low, gain.high), level=level)
    ]
    readings.append(
        tell(
            "tandem.variance_gain", calmer.value,
            "mean score of the portfolio's variance one step ahead (log variance plus squared loss "
            "over it) given yesterday's tandem, less that of plain cDCC: negative where it helps",
            band=(calmer.low, calmer.high), level=level,
        )
    )  # fmt: skip
    for name in run.var:
        hits = judged.hits(name)
        ends = binomtest(hits, rows, tail).proportion_ci(level, "wilson")
        readings += [
            tell(
                "tandem.hit_rate", hits / rows,
                f"share of steps with a loss beyond value at risk, which should be {percent(tail)}",
                subject=name, band=(ends.low, ends.high), level=level,
            ),
            tell("tandem.value_at_risk", run.var[name][-1],
                 f"loss that is exceeded with chance {percent(tail)}, {ahead}; its band is that of "
                 "the tail of losses over their deviation, none where too few were judged",
                 subject=name, band=_tail_band(run, name, tail, level), level=level),
            tell("tandem.expected_shortfall", run.es[name][-1],
                 f"mean loss beyond value at risk at {percent(tail)}, {ahead}; a mean of few "
                 "losses, too few for a band", subject=name),
        ]  # fmt: skip
    readings.append(
        tell(
            "tandem.state", run.state[-1],
            f"mean correlation of growth of {history.called} beyond prices, exponentially "
            "weighted, from past fits alone; what the forecaster was given, with no band (see "
            "tandem.index)",
        )
    )  # fmt: skip
    return Study(
        name="tandem.consequence",
        title=_title(history),
        readings=tuple(readings),
        tables={"scores": judged.table(), "forecasts": judged.forecasts(history)},
        says=tuple(judged.says(history, window)),
        how_to_read=f"{_READ} {history.pace}",
        misleads=_MISLEADS,
        left_out=left_out,
    )


def _tail_band(run: Walk, name: str, tail: float, level: float) -> tuple[float, float]:
    """Band of the newest value at risk, by counting: whatever the law of losses over deviations.

    How many of the judged losses lie beyond the true quantile is binomial, so it lies between two
    of them. NaN where the upper one would have to be larger than the largest.

    References
    ----------
    David and Nagaraja (2003), "Order statistics", section 7.1.
    """
    past = (run.losses - run.centre[:-1]) / run.deviation[name][:-1]
    worst = np.sort(past)[::-1]
    few, many_ = (int(binom.ppf(p, len(worst), tail)) for p in (0.5 - level / 2, 0.5 + level / 2))
    if few < 1 or many_ >= len(worst):
        return nan, nan
    low, high = (run.centre[-1] + run.deviation[name][-1] * worst[[many_, few - 1]]).tolist()
    value = float(run.var[name][-1])
    return min(low, value), max(high, value)


def _variance_score(run: Walk, name: str) -> FloatColumn:
    """Score of each variance that was foretold (QLIKE); every step has a say, not only the tail."""
    deviation = run.deviation[name][:-1]
    miss = (run.losses - run.centre[:-1]) / deviation
    return np.asarray(2.0 * np.log(deviation) + miss**2)


@dataclass(frozen=True, eq=False)
class _Judged:
    """Forecasts held against what came."""

    run: Walk
    scores: dict[str, FloatColumn]
    against: dict[str, Comparison]  # plain
    placebo: Comparison  # tandem against that of long ago
    variance: Comparison  # of variances, against plain
    tail: float
    level: float

    def hits(self, name: str) -> int:
        """Losses beyond value at risk."""
        return int((self.run.losses > self.run.var[name][:-1]).sum())

    def table(self) -> pl.DataFrame:
        """A row a model; the p-value is that of a score unlike that of plain cDCC."""
        rows = []
        for name, score in self.scores.items():
            mean = mean_band(score, level=self.level)
            p = self.against[name].p if name in self.against else nan
            rows.append(
                {
                    "model": name,
                    "score": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "hits": self.hits(name),
                    "expected": self.tail * len(score),
                    "p_value": p,
                }
            )
        return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))

    def forecasts(self, history: LeverageHistory) -> pl.DataFrame:
        """A row a judged step: the state known before it, the loss, and both forecasts."""
        rows = len(self.run.losses)
        ts = pl.Series(history.ts[-rows:]).cast(pl.Datetime("us", "UTC"))
        return pl.DataFrame(
            {
                "ts": ts,
                "state": self.run.state[:rows],
                "loss": self.run.losses,
                "var_plain": self.run.var[PLAIN][:rows],
                "es_plain": self.run.es[PLAIN][:rows],
                "var_tandem": self.run.var[TANDEM][:rows],
                "es_tandem": self.run.es[TANDEM][:rows],
            }
        ).with_columns(pl.col(pl.Float64).fill_nan(None))

    def says(self, history: LeverageHistory, window: int) -> Iterator[str]:
        """The verdict, how sure, and how often the state was used."""
        yield self._verdict(history)
        used = [rule for rule in self.run.rules if rule.used]
        every = many(len(self.run.rules), "refit")
        if used:
            high, low = (np.mean([getattr(r, n) for r in used]) for n in ("high", "low"))
            yield (
                f"The state was used in {len(used)} of {every}: correlations went "
                f"{_way(float(high))} while tandem was high and {_way(float(low))} else."
            )
        if not self.variance.status:
            better = self.variance.verdict(self.level)
            yield (
                "Of the portfolio's variance, in which every step has a say, the forecast given "
                f"tandem is {_VERDICTS[better]} ({chance(self.variance.p)})."
            )
        expected = self.tail * len(self.run.losses)
        yield (
            f"Judged on {history.steps(len(self.run.losses))} after the first {window:,}: "
            f"{told(expected)} losses beyond value at risk were expected, {self.hits(TANDEM)} came "
            f"given tandem and {self.hits(PLAIN)} without."
        )
        if expected < _FEW_HITS:
            yield (
                f"Fewer than {_FEW_HITS:.0f} expected losses beyond value at risk decide little: "
                "take a larger tail or a longer history."
            )

    def _verdict(self, history: LeverageHistory) -> str:
        found, what = self.against[TANDEM], f"tandem of {history.called}"
        if not any(rule.used for rule in self.run.rules):
            return (
                f"Knowing {what} is no better than plain cDCC: over no past did it explain "
                "correlations enough to be used, so both forecast the same."
            )
        if found.status:
            return f"Whether {what} helps cannot be told: {found.status}."
        width = mean_band(self.scores[TANDEM] - self.scores[PLAIN], level=self.level)
        numbers = (
            f"score difference {banded(width.value, width.low, width.high)}, {chance(found.p)}"
        )
        if found.p > 1.0 - self.level:
            return f"Knowing {what} is no better than plain cDCC: {numbers}."
        if found.difference > 0.0:
            return f"Knowing {what} makes forecasts worse than plain cDCC: {numbers}."
        if not self.placebo.status and (
            self.placebo.p > 1.0 - self.level or self.placebo.difference > 0.0
        ):
            return (
                f"Forecasts given {what} beat plain cDCC ({numbers}), but not those given tandem "
                f"of long ago ({chance(self.placebo.p)}): that is flexibility, no merit of tandem."
            )
        return f"Knowing {what} makes tail forecasts better than plain cDCC: {numbers}."


_VERDICTS = {
    "the first is better": "better",
    "the second is better": "worse",
    "no difference that these rows could show": "no better",
}


def _way(shift: float) -> str:
    if abs(shift) < 0.005:
        return "nowhere"
    return f"{percent(abs(shift))} of the way to {'one' if shift > 0.0 else 'zero'}"
