"""Why leverage of two nodes moves together: what they share, and what that leaves unexplained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import nan
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.dyads import Dyads, attribute
from undertow.econometrics.pairwise import CorrelationMatrix, pairwise_correlation
from undertow.errors import StateError
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history, require_links
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory
from undertow.measures.tandem.knockout import Knockout, knockout
from undertow.measures.tandem.links import Links
from undertow.measures.words import banded, chance, corrected, listed, many, percent, told
from undertow.state import FloatMatrix, Reading

FEW = 8  # nodes under which hardly any driver can show
_SURE = 0.05
_READ = (
    "Each pair of nodes is one observation: how much growth moves together beyond "
    "prices, against what the two share. A coefficient is correlation per unit of the driver: of "
    "two nodes that share all of it, less two that share none. Shares add up to what is explained "
    "in all; hold that against what relabelled nodes explain by chance, and what is left over "
    "against the noise of the correlations themselves, which nothing can explain."
)
_MISLEADS = (
    "What nodes share is that of one instant, their correlation that of the whole history. "
    "Holdings seen in part pull a coefficient to 0 and hand what it explained to drivers like it. "
    "Drivers that say nearly the same divide what they explain. Something shared that is not among "
    "the drivers (one oracle, one market maker) is left over, or passes for what goes with it. "
    "Where what is measured itself moves prices, the correlation beyond prices is a lower bound. "
    f"{ONE_BASKET}"
)


def attribution(
    history: LeverageHistory,
    links: Links,
    *,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 1999,
) -> Study:
    """How much of the co-movement of pairs is explained by shared collateral, venues and owners.

    excess_ij = intercept + sum of coefficient_m * driver_m,ij + residual_ij over all pairs, excess
    the correlation of growth beyond prices. Pairs that share a node depend on each other, so
    p-values come from relabelling nodes and bands from leaving out a node at a time; see
    `econometrics.dyads.attribute`. Of fewer than eight nodes nothing is told: no coefficient, no
    share, in no table.

    Raises
    ------
    StateError
        When there is no driver, or fewer than two nodes have both a history and links.
    """
    require_history(history)
    require_links(links)
    require_seed(seed)
    if not links.drivers:
        why = "; ".join(f"{name}: {reason}" for name, reason in links.absent.items())
        raise StateError("the links hold no driver", hint=why or "see links_of")
    used, left_out = _matched(history, links)
    shared = links.select(used.labels)
    own, raw = (_Fit.of(used, layer, shared, seed, level, reps) for layer in (Layer.OWN, Layer.RAW))
    return Study(
        name="tandem.attribution",
        title=f"Why {used.called} moves together",
        readings=tuple(_readings(used, shared, own, raw)),
        tables={"drivers": _drivers(shared, own), "pairs": _pairs(shared, own)},
        says=tuple(_says(used, shared, own, raw)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out=left_out,
    )


def _matched(history: LeverageHistory, links: Links) -> tuple[LeverageHistory, dict[str, str]]:
    """The nodes that have both a history that can be used and links."""
    used, left_out = history.usable(), dict(history.left_out)
    for node, why in zip(used.labels, used.purged.reasons, strict=True):
        if why:
            left_out[node] = why
        elif node not in links.nodes:
            left_out[node] = "nothing is known of what it shares with others"
    kept = [node for node in used.labels if node not in left_out]
    if len(kept) < 2:
        raise StateError(
            f"{len(kept)} nodes have both a history and links; pairs need two",
            hint=f"the links know {listed(links.nodes)}; the history {listed(history.labels)}",
        )
    return used.select(kept), left_out


@dataclass(frozen=True, eq=False)
class _Fit:
    """One layer, explained."""

    excess: FloatMatrix  # (nodes, nodes)
    dyads: Dyads
    by_chance: float  # mean R2 of relabelled nodes
    p_value: float  # of an R2 that large
    noise: float  # share of the variance over pairs that is error of the correlations
    sure: Knockout | None  # none where nothing is told

    @classmethod
    def of(
        cls,
        history: LeverageHistory,
        layer: Layer,
        links: Links,
        seed: int,
        level: float,
        reps: int,
    ) -> _Fit:
        kept = history.purged.kept if layer is Layer.OWN else 1.0
        found = pairwise_correlation(history.layer(layer), least=LEAST_ROWS, level=level)
        excess = found.values / kept
        place = list(Layer).index(layer)
        rng = np.random.default_rng([seed, 41, place])
        dyads = attribute(excess, links.cube, rng=rng, reps=reps, level=level)
        if len(excess) < FEW and not dyads.reason:
            dyads = _untold(dyads, len(excess))
        by_chance, p = _by_chance(excess, links, dyads, np.random.default_rng([seed, 42, place]))
        sure = None
        if not dyads.reason:
            sure = knockout(excess, links.cube, dyads.r2, dyads.share, level)
        return cls(excess, dyads, by_chance, p, _noise(found), sure)


def _untold(dyads: Dyads, nodes: int) -> Dyads:
    """The same without its numbers, which so few nodes cannot carry."""
    pairs = many(nodes * (nodes - 1) // 2, "pair")
    reason = f"{many(nodes, 'node')} are {pairs}; a driver can hardly show among fewer than {FEW}"
    blank: dict[str, Any] = {
        each.name: np.full_like(value, nan)
        for each in fields(dyads)
        if isinstance(value := getattr(dyads, each.name), np.ndarray)
    }
    return replace(dyads, **blank, intercept=nan, r2=nan, left_over=nan, reason=reason)


def _by_chance(
    excess: FloatMatrix, links: Links, dyads: Dyads, rng: np.random.Generator, reps: int = 999
) -> tuple[float, float]:
    """Mean R2 when nodes are relabelled at random, and how often it is as large as the found."""
    i, j = np.triu_indices(len(excess), 1)
    if dyads.reason or np.isnan(excess[i, j]).any() or np.isnan(links.cube[:, i, j]).any():
        return nan, nan
    design = np.column_stack([np.ones(len(i)), *links.cube[:, i, j]])
    basis = np.linalg.svd(design - design.mean(axis=0), full_matrices=False)
    q = basis[0][:, basis[1] > 1e-10 * basis[1].max()]
    labels = rng.permuted(np.tile(np.arange(len(excess)), (reps, 1)), axis=1)
    drawn = excess[labels[:, i], labels[:, j]]
    drawn -= drawn.mean(axis=1, keepdims=True)
    r2 = ((drawn @ q) ** 2).sum(axis=1) / (drawn**2).sum(axis=1)
    return float(r2.mean()), (1 + int((r2 >= dyads.r2 - 1e-12).sum())) / (1 + reps)


def _noise(found: CorrelationMatrix) -> float:
    """Variance of a correlation for its rows, over the variance of all pairs; at most 1."""
    at = np.triu_indices(len(found.values), 1)
    value, rows = found.values[at], found.counts[at]
    seen = ~np.isnan(value)
    across = float(np.var(value[seen])) if seen.sum() > 2 else 0.0
    if across <= 0.0:
        return nan
    error = float(((1.0 - value[seen] ** 2) ** 2 / (rows[seen] - 3)).mean())
    return min(error / across, 1.0)


def _readings(history: LeverageHistory, links: Links, own: _Fit, raw: _Fit) -> list[Reading]:
    of_pairs = (
        "of the variance over pairs of nodes of the correlation of their growth of "
        f"{history.called}, {{}}, explained by what they share at one instant"
    )
    fit, shared = own.dyads, ", ".join(links.drivers)
    beyond, as_is = (of_pairs.format(words) for words in ("beyond prices", "prices and all"))
    sure, level = "; band by leaving out a node at a time", fit.level
    whole, as_it_is = (None if each.sure is None else each.sure.r2 for each in (own, raw))
    rest = None if whole is None else (1.0 - whole[1], 1.0 - whole[0])
    found = [
        history.tell("tandem.explained", fit.r2, f"share {beyond} ({shared}){sure}",
                     band=whole, level=level),
        history.tell("tandem.left_over", fit.left_over, f"share not {beyond[3:]} ({shared}){sure}",
                     band=rest, level=level),
        history.tell(
            "tandem.explained_by_chance", own.by_chance,
            f"mean share {beyond}, when nodes are relabelled at random; a yardstick worked out "
            "from what is seen, with no band",
        ),
        history.tell(
            "tandem.noise", own.noise,
            f"share of the variance over pairs of their correlation of {history.called} beyond "
            "prices that is error of estimation for so few steps, which nothing can explain; a "
            "yardstick worked out from the number of steps, with no band",
        ),
        history.tell("tandem.explained_raw", raw.dyads.r2, f"share {as_is} ({shared}){sure}",
                     band=as_it_is, level=level),
    ]  # fmt: skip
    for m, name in enumerate(links.drivers):
        found += [
            history.tell(
                "tandem.explained", fit.share[m],
                f"share {beyond}; what shared {name} adds, averaged over all orders of adding"
                f"{sure}",
                subject=name, band=None if own.sure is None else own.sure.share[m], level=level,
            ),
            history.tell(
                "tandem.coefficient", fit.coefficient[m],
                f"correlation of {history.called} beyond prices of two nodes that share all "
                f"{name}, less that of two that share none, other drivers held",
                subject=name, band=(fit.low[m], fit.high[m]), level=fit.level,
            ),
        ]  # fmt: skip
    return found


def _drivers(links: Links, own: _Fit) -> pl.DataFrame:
    """A row a driver; those that there are none of stand last, with the reason."""
    fit, absent = own.dyads, links.absent
    blank = [nan] * len(absent)

    def column(values: FloatMatrix) -> pl.Series:
        return pl.Series([*values, *blank], dtype=pl.Float64)

    reasons = [why or fit.reason for why in fit.reasons]
    return pl.DataFrame(
        {
            "driver": pl.Series([*links.drivers, *absent], dtype=pl.String),
            "coefficient": column(fit.coefficient),
            "low": column(fit.low),
            "high": column(fit.high),
            "p_value": column(fit.p_value),
            "share": column(fit.share),
            "reason": pl.Series([*reasons, *absent.values()], dtype=pl.String),
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _pairs(links: Links, own: _Fit) -> pl.DataFrame:
    """A row a pair: what they share, how they move together, and what of it is left over."""
    at = np.triu_indices(len(links.nodes), 1)
    fit = own.dyads
    found = {"excess": own.excess[at], "explained": fit.fitted[at], "left_over": fit.residual[at]}
    return links.to_polars().with_columns(
        pl.Series(name, values).fill_nan(None) for name, values in found.items()
    )


def _says(history: LeverageHistory, links: Links, own: _Fit, raw: _Fit) -> list[str]:
    fit, names = own.dyads, list(links.drivers)
    if fit.reason:
        return [
            f"Why {history.called} moves together cannot be told: {fit.reason}.",
            *_unused(links, fit),
        ]
    sure = np.flatnonzero(corrected(fit.p_value) < _SURE)
    told_by = [
        f"shared {names[m]} ({told(fit.coefficient[m])} of correlation from none to all, "
        f"{chance(fit.p_value[m])}, {percent(fit.share[m])} of the differences between pairs)"
        for m in sorted(sure, key=lambda m: -fit.share[m])
    ]
    found = f"{listed(told_by)} {'goes' if len(sure) == 1 else 'go'} with it"
    says = [_verdict(history, fit.pairs, found if len(sure) else "")]
    by_chance = (
        ""
        if np.isnan(own.by_chance)
        else f"; relabelled nodes would explain {percent(own.by_chance)} on average "
        f"({chance(own.p_value)})"
    )
    says.append(
        f"All drivers together explain {percent(fit.r2)} of how pairs differ{by_chance}. "
        f"{percent(fit.left_over)} is left over; the noise of correlations over "
        f"{len(history.ts):,} steps is about {percent(own.noise)} of the whole."
    )
    says.append(
        f"Two nodes that share nothing correlate at {told(fit.intercept)}."
        + (
            f" With prices in it {percent(raw.dyads.r2)} is explained."
            if not raw.dyads.reason
            else ""
        )
    )
    says += [
        f"Shared {names[m]}: {banded(fit.coefficient[m], fit.low[m], fit.high[m])}, "
        f"{chance(fit.p_value[m])}, is not told from nothing."
        for m in range(len(names))
        if not fit.reasons[m] and m not in sure
    ]
    return [*says, *_unused(links, fit)]


def _verdict(history: LeverageHistory, pairs: int, found: str) -> str:
    if found:
        return f"{history.called.capitalize()} moves together where something is shared: {found}."
    return (
        f"Nothing that nodes share was found to go with co-movement of {history.called}: no "
        f"driver is beyond chance among {many(pairs, 'pair')}."
    )


def _unused(links: Links, fit: Dyads) -> list[str]:
    """Drivers that say nothing, and why."""
    idle = {name: why for name, why in zip(links.drivers, fit.reasons, strict=True) if why}
    return [
        f"Shared {name} could not be used: {why}." for name, why in {**idle, **links.absent}.items()
    ]
