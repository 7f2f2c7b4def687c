"""Leverage of nodes over time, beside the prices that it answers to: what tandem measures.

Rows are instants, columns nodes (assets, venues, protocols, chains, sectors, cohorts). The growth
of a step is the change of log leverage, and it comes in three layers: as it is; less what prices
alone do to quantities that nobody touched; less all that returns explain, whoever acted on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from undertow.econometrics.checks import screen, within
from undertow.econometrics.purging import Again, Purged, purge
from undertow.errors import StateError
from undertow.measures.tandem.pacing import log_returns, paced
from undertow.measures.words import day, listed, many, span
from undertow.state import FloatMatrix, KeyColumn, Panel, Reading
from undertow.state.arrays import digest, frozen

UNPRICED = "no price history is known of the holdings"
LEAST_ROWS = 60  # of growth, for a series to be used at all
_SEEN = 0.8  # of all steps, for a series to stand beside others in one matrix
_STALE = 3.0  # steps: an older price makes no return
_STILL = 0.02  # of all steps, for which one may be silent at the end


class Layer(Enum):
    """What was taken out of the growth of leverage before co-movement is measured."""

    RAW = "raw"
    HELD = "less revaluation"
    OWN = "beyond prices"

    @property
    def words(self) -> str:
        """What the layer says, for a definition."""
        return {
            "raw": "growth (of the log) as it is, prices and all",
            "less revaluation": "growth (of the log) less what prices alone did to quantities "
            "held at the step before",
            "beyond prices": "growth (of the log) less what own and market returns, now and "
            "late, straight, kinked and squared, volatility and the level before the step "
            "explain, fitted on other blocks of time; a lower bound where it moves prices itself",
        }[self.value]


class Together(NamedTuple):
    """Growth of nodes at steps at which all were seen."""

    values: FloatMatrix  # (steps, nodes)
    ts: KeyColumn
    labels: tuple[str, ...]
    left_out: Mapping[str, str]
    again: Again | None = None  # the purge once more, for nulls of growth beyond prices


@dataclass(frozen=True, eq=False)
class LeverageHistory:
    """Leverage of nodes over time, and what each of them answers to.

    `called` is what the series are: leverage, or the name of a proxy, which no text or figure may
    then call leverage.
    """

    level: Panel
    returns: FloatMatrix  # (steps, nodes) log return of what each node holds
    market: Panel  # log returns of assets, by step; its instants are those of the steps
    called: str = "leverage"
    evidence: str = "observed"
    revaluation: FloatMatrix | None = None  # (steps, nodes) growth of untouched quantities
    coverage: float | None = None
    slow: Mapping[str, str] = field(default_factory=dict)  # nodes priced too seldom, and why
    paced: str = ""  # what was done where prices come more seldom than levels

    @classmethod
    def of(
        cls,
        level: Panel,
        prices: Panel,
        *,
        baskets: Mapping[str, Mapping[str, float]] | None = None,
        called: str = "leverage",
        evidence: str = "observed",
        revaluation: Panel | None = None,
        coverage: float | None = None,
        stale: float = _STALE,
    ) -> LeverageHistory:
        """Set a panel of leverage beside prices of assets, each as it was known at its instants.

        A node's own return is that of its basket (weights by asset, brought to a sum of 1), or of
        the asset it is called after. A price older than `stale` steps is not known: carried on, it
        would make returns of 0, and one of many steps at its end. `revaluation` is log growth by
        step, in the row of the step's end, as `rules.leverage.leverage_panel` makes it.

        Where prices come more seldom than levels, only the instants with new prices are used, or,
        where those are too few, a node has no returns and `slow` says why.

        Raises
        ------
        StateError
            When there are too few instants, no price, an unknown asset in a basket, a node with
            neither basket nor price, or a level that is not positive.
        """
        if len(level) < 3 or not level.labels:
            raise StateError(
                f"{level!r} is too short", source=level.name, hint="three instants are the least"
            )
        level = _without_zeros(level)
        if (level.values <= 0.0).any():
            row, column = (int(at[0]) for at in np.nonzero(level.values <= 0.0))
            raise StateError(
                f"{called} is {level.values[row, column]:g}, and its growth has no logarithm",
                source=level.name,
                row=row + 1,
                column=level.labels[column],
                hint="leave it out as NaN",
            )
        within("stale", stale, 0.0, np.inf, closed=True)
        weights = _weights(level.labels, prices.labels, baskets)
        held = None if revaluation is None else _on_steps(revaluation, level)
        found = paced(level.ts, prices, level.labels, weights)
        if len(found.rows) < len(level):
            level, held = _thinned(level, held, found.rows)
        moves = log_returns(prices, level.ts, stale * float(np.median(np.diff(level.ts))))
        moves[:, found.apart] = np.nan
        market = Panel.from_arrays("returns", "1", level.ts[1:], prices.labels, moves)
        return cls(
            level, frozen(_baskets(moves, weights)), market, called, evidence,
            None if held is None else frozen(held), coverage, found.slow, found.said,
        )  # fmt: skip

    def __repr__(self) -> str:
        nodes = len(self.level.labels)
        return f"LeverageHistory({self.called}, {len(self.ts):,} steps x {nodes} nodes)"

    @property
    def labels(self) -> tuple[str, ...]:
        """The nodes."""
        return self.level.labels

    @property
    def ts(self) -> KeyColumn:
        """Microseconds at which each step ends."""
        return self.level.ts[1:]

    @property
    def step_us(self) -> int:
        """Microseconds from one instant to the next, at the median."""
        return int(np.median(np.diff(self.level.ts)))

    def steps(self, count: int) -> str:
        """So many steps, and how long they are: 215 steps of 1 hour (9 days)."""
        one = span(self.step_us)
        return f"{many(count, 'step')} of {one}" + (
            f" ({span(count * self.step_us)})" if count > 1 else ""
        )

    @property
    def pace(self) -> str:
        """How long a step is, as a sentence."""
        gaps = np.diff(self.level.ts)
        uneven = f" at the median, {span(gaps.max())} at most" if gaps.max() > gaps.min() else ""
        long = span(self.level.ts[-1] - self.level.ts[0])
        said = f"A step is {span(self.step_us)}{uneven}; there are {len(self.ts):,}, over {long}."
        return f"{said} {self.paced}".rstrip()

    @cached_property
    def growth(self) -> FloatMatrix:
        """(steps, nodes) Change of log leverage; NaN where either end was not seen."""
        return frozen(np.diff(np.log(self.level.values), axis=0))

    @cached_property
    def purged(self) -> Purged:
        """Growth beyond prices, with what of it prices and its own level before explained.

        Leverage that goes back to its usual answers to returns of long ago, which all nodes share;
        where it stood before the step says so at once.
        """
        before = np.log(self.level.values[:-1])
        extra = [before] if self.revaluation is None else [before, self.revaluation]
        found = purge(self.growth, self.returns, extra=np.stack(extra, axis=2))
        reasons = [
            self.unpriced.get(node, why) if why else why
            for node, why in zip(self.labels, found.reasons, strict=True)
        ]
        return replace(found, reasons=tuple(reasons))

    @cached_property
    def unpriced(self) -> Mapping[str, str]:
        """The nodes of whose holdings no return is known at any step, and why."""
        seen = np.count_nonzero(~np.isnan(self.returns), axis=0).tolist()
        return {
            node: self.slow.get(node, UNPRICED)
            for node, count in zip(self.labels, seen, strict=True)
            if not count
        }

    @cached_property
    def left_out(self) -> Mapping[str, str]:
        """The nodes that cannot be used, and why."""
        reasons = screen(self.growth, least=LEAST_ROWS, name=self.level.name).reasons
        return {node: why for node, why in zip(self.labels, reasons, strict=True) if why}

    @cached_property
    def digest(self) -> str:
        """A hash of all that went in."""
        held = np.empty(0) if self.revaluation is None else self.revaluation
        return digest(self.level.digest, self.market.digest, self.called, self.returns, held)

    def usable(self) -> LeverageHistory:
        """The same without the nodes that cannot be used.

        Raises
        ------
        StateError
            When fewer than two are left.
        """
        kept = [node for node in self.labels if node not in self.left_out]
        if len(kept) < 2:
            why = "; ".join(f"{node}: {reason}" for node, reason in self.left_out.items())
            raise StateError(
                f"{len(kept)} of {len(self.labels)} series can be used, and tandem needs two",
                source=self.level.name,
                hint=why,
            )
        return self.select(kept)

    def select(self, nodes: Any) -> LeverageHistory:
        """Some nodes, in the order given."""
        level = self.level.select(nodes)
        at = [self.labels.index(node) for node in level.labels]
        held = None if self.revaluation is None else frozen(self.revaluation[:, at])
        return replace(self, level=level, returns=frozen(self.returns[:, at]), revaluation=held)

    def until(self, ts: int) -> LeverageHistory:
        """The part that was known at `ts`."""
        level = self.level.until(ts)
        steps = len(level) - 1
        held = None if self.revaluation is None else frozen(self.revaluation[:steps])
        return replace(
            self, level=level, returns=frozen(self.returns[:steps]),
            market=self.market.until(ts), revaluation=held,
        )  # fmt: skip

    def layer(self, layer: Layer) -> FloatMatrix:
        """(steps, nodes) Growth in one layer; beyond prices it is in units of its own deviation.

        Raises
        ------
        StateError
            When quantities are not known, and with them the growth of untouched ones.
        """
        if layer is Layer.RAW:
            return self.growth
        if layer is Layer.OWN:
            return self.purged.scaled
        if self.revaluation is None:
            raise StateError(
                "what prices alone did to held quantities is not known",
                source=self.level.name,
                hint="it takes positions at every instant: see rules.leverage.leverage_panel",
            )
        return self.growth - self.revaluation

    def together(self, layer: Layer) -> Together:
        """One layer at the steps at which all its nodes were seen.

        A node that would cost more than a fifth of the steps is left out first, and so is one that
        fell silent before the end: what is told as of now would else end where it did.

        Raises
        ------
        StateError
            When fewer than two nodes, or fewer than `LEAST_ROWS` steps, are left.
        """
        if layer is Layer.OWN and len(self.unpriced) > len(self.labels) - 2:
            raise StateError(
                f"{'; '.join(sorted(set(self.unpriced.values())))}: growth of {self.called} beyond "
                f"prices of {listed(sorted(self.unpriced))} cannot be told",
                source=self.level.name,
                hint="give prices of what the nodes hold over the time of the history",
            )
        growth = self.layer(layer)
        seen = ~np.isnan(growth)
        steps = max(int(seen.any(axis=1).sum()), 1)
        often = seen.sum(axis=0) >= _SEEN * steps
        last = len(seen) - 1 - np.argmax(seen[::-1], axis=0)  # rows at which each was seen last
        silent = often & (last < len(seen) - max(_STILL * steps, 3.0))
        kept = often & ~silent
        rows = seen[:, kept].all(axis=1)
        if kept.sum() < 2 or rows.sum() < LEAST_ROWS:
            raise StateError(
                f"{int(kept.sum())} series share {int(rows.sum())} steps; two series and "
                f"{LEAST_ROWS} steps are needed",
                source=self.level.name,
                hint=next((each for each in self.purged.reasons if each), None),
            )
        names = [node for node, each in zip(self.labels, kept, strict=True) if each]
        gone = {
            self.labels[k]: f"not seen since {day(int(self.ts[last[k]]))}"
            if silent[k]
            else "too few steps in common with the others"
            for k in np.flatnonzero(~kept).tolist()
        }
        again = self.purged.again(np.asarray(rows), kept) if layer is Layer.OWN else None
        return Together(growth[np.ix_(rows, kept)], self.ts[rows], tuple(names), gone, again)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that can be told."""
        return tuple(each for each in Layer if each is not Layer.HELD or self._knows_quantities)

    @property
    def _knows_quantities(self) -> bool:
        return self.revaluation is not None

    def tell(
        self,
        name: str,
        value: float | None,
        definition: str,
        *,
        subject: str = "",
        unit: str = "1",
        band: tuple[float, float] | None = None,
        level: float = 0.9,
        rows: int | None = None,
        evidence: str | None = None,
    ) -> Reading:
        """A reading of this history, as of its end; one that is not finite is None."""
        told = None if value is None or not np.isfinite(value) else float(value)
        banded = band is not None and told is not None and bool(np.isfinite(band).all())
        steps = len(self.ts) if rows is None else rows
        return Reading(
            name, told, unit, definition, int(self.ts[-1]), evidence or self.evidence, self.digest,
            subject=subject,
            low=float(band[0]) if banded and band else None,
            high=float(band[1]) if banded and band else None,
            level=level if banded else None,
            window_us=int(self.ts[-1] - self.level.ts[-1 - steps]),
            coverage=self.coverage,
        )  # fmt: skip


def _without_zeros(level: Panel) -> Panel:
    """A level of 0 has no growth to it and none from it: it counts as not seen."""
    if not (level.values == 0.0).any():
        return level
    values = np.where(level.values == 0.0, np.nan, level.values)
    return Panel.from_arrays(level.name, level.unit, level.ts, level.labels, values)


def _thinned(
    level: Panel, held: FloatMatrix | None, rows: KeyColumn
) -> tuple[Panel, FloatMatrix | None]:
    """Some instants of a level, and what untouched quantities grew by between them."""
    kept = Panel.from_arrays(
        level.name, level.unit, level.ts[rows], level.labels, level.values[rows]
    )
    return kept, None if held is None else np.add.reduceat(held[: rows[-1]], rows[:-1], axis=0)


def _weights(nodes: tuple[str, ...], assets: tuple[str, ...], baskets: Any) -> FloatMatrix:
    """(nodes, assets) What each node holds, as shares."""
    place = {asset: j for j, asset in enumerate(assets)}
    weights = np.zeros((len(nodes), len(assets)))
    for i, node in enumerate(nodes):
        basket = (baskets or {}).get(node, {node: 1.0})
        for asset, weight in basket.items():
            if asset not in place:
                raise StateError(
                    f"{node} holds {asset}, which has no price",
                    hint="give a basket of assets that have one, or leave the node out",
                )
            weights[i, place[asset]] += weight
        total = np.abs(weights[i]).sum()
        if not total > 0.0:
            raise StateError(f"the basket of {node} is empty")
        weights[i] /= total
    return weights


def _baskets(moves: FloatMatrix, weights: FloatMatrix) -> FloatMatrix:
    """Returns of baskets; one is missing where an asset in it is."""
    seen = ~np.isnan(moves)
    returns = np.where(seen, moves, 0.0) @ weights.T
    short = (~seen).astype(np.float64) @ (weights != 0.0).T.astype(np.float64) > 0.0
    returns[short] = np.nan
    return np.asarray(returns)


def _on_steps(revaluation: Panel, level: Panel) -> FloatMatrix:
    held = revaluation.select(level.labels)
    if held.ts.tolist() != level.ts[1:].tolist():
        raise StateError(
            f"{revaluation!r} does not end its steps where {level.name} does",
            hint="one row for each instant of the levels but the first",
        )
    return held.values
