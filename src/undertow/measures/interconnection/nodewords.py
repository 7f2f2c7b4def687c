"""What a study of systemic nodes publishes and says: whether its rankings agree, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.measures.interconnection.agreeing import placed
from undertow.measures.interconnection.candidates import Candidate
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.failing import (
    Cost,
)
from undertow.measures.interconnection.rankings import costliest
from undertow.measures.interconnection.web import Web
from undertow.measures.words import known, listed, many, percent, told
from undertow.state import FloatMatrix, Reading

TOP = 5
NO_ORDER = (
    1.0 / 3.0
)  # of Kendall's tau: rankings less alike than this, by the median, have no order
READ = (
    "Every column of `nodes` is a ranking of its own, and they answer different questions. "
    "`failure_usd` and `in_stress_usd` follow the failure through all channels; `own_usd` is what "
    "the node itself loses. A venue or a pool that fails keeps `recovery` of what lies there; a "
    "token, keeper or outside party pays so much of what it owes; an oracle shows a price that is "
    "too low by `wrong`; a chain stands still, which costs nothing while no price moves. "
    "`adds_usd` is leave-one-out: below 0 the scenario costs more without the node. `debtrank_usd` "
    "and `single_hit_usd` are valuation losses on the claims alone; `diffusion` is the share of "
    "all walks over claims that the node passes on: how claims lie, not what is lost. `centrality` "
    "is of venues, by the leading eigenvector of overlaps. `ranks` has places with bands; "
    "`agreement` compares rankings two by two; `spread` says how far apart they put each node, 0 "
    "first and 1 last."
)
MISLEADS = (
    "Being first says nothing of how likely a failure is. Candidates are the largest of each kind "
    "by value that leads through them (keepers also by what they owe): a small node that would "
    "hurt is not there unless named (`among`). Places are among these candidates. Losses of "
    "borrowers and traders by prices alone are in no column. Who fails here fails whole and at "
    "once, and recoveries are assumed. "
    "Bands draw owners (failure, centrality, passes) or claims and missing links (DebtRank, "
    "diffusion), not prices, depths or recoveries."
)


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether rankings agree."""

    tau: float | None  # median over pairs
    pairs: int
    least: tuple[str, str, float] | None  # the two that agree least
    shared: tuple[str, ...]  # nodes among the first of every ranking that has them

    @classmethod
    def of(
        cls, labels: Sequence[str], names: Sequence[str], values: FloatMatrix,
        pairs: pl.DataFrame, top: int,
    ) -> Verdict:  # fmt: skip
        """From places by every ranking, and how they agree two by two."""
        told_of = pairs.filter(pl.col("kendall").is_not_null())
        least = told_of.sort("kendall", "ranking", "other").row(0) if told_of.height else None
        place = placed(values)
        seen = np.isfinite(place).sum(axis=1)
        within_top = ((place <= top) | np.isnan(place)).all(axis=1) & (seen >= 3)
        middle = np.median(told_of["kendall"].to_numpy()) if told_of.height else np.nan
        return cls(
            known(float(middle)), told_of.height,
            None if least is None else (least[0], least[1], float(least[3])),
            tuple(labels[n] for n in np.flatnonzero(within_top).tolist()),
        )  # fmt: skip

    @property
    def no_order(self) -> bool:
        """No one order can be told."""
        return self.tau is not None and self.tau < NO_ORDER

    @property
    def words(self) -> str:
        """How far rankings agree."""
        if self.no_order:
            return "disagree so much that no one order can be told"
        turned = self.least is not None and self.least[2] < 0.0
        return "agree in part, and some run against each other" if turned else "agree in part"


def readings_of(
    web: Web, found: Sequence[Candidate], values: FloatMatrix, net: ClaimsNet, verdict: Verdict
) -> list[Reading]:
    """What is published: the costliest failure, how rankings agree, circles, and five nodes."""
    cost = values[:, 0] if len(found) else np.zeros(0)
    some = np.flatnonzero(np.isfinite(cost))
    first = int(some[np.argmax(cost[some])]) if len(some) else None
    readings = [
        web.reading("interconnection.failure_cost",
                    None if first is None else known(float(cost[first])), "USD",
                    "what the failure on a calm day of the node that costs most costs all others; "
                    "none without candidates"),
        web.reading("interconnection.rank_agreement", verdict.tau, "1",
                    "median of Kendall's tau-b over pairs of rankings of nodes; none where fewer "
                    "than three nodes stand in two"),
        web.reading("interconnection.claims_radius", known(net.radius) if len(net.usd) else None,
                    "1", "spectral radius of claims over buffers; above 1 small stress grows round "
                    "circles; none without claims"),
    ]  # fmt: skip
    words = "what its failure on a calm day costs all others"
    return readings + [
        web.reading("interconnection.node_cost", float(cost[n]), "USD", words, found[n].name)
        for n in costliest(cost, TOP)
    ]


def says_of(
    web: Web, found: Sequence[Candidate], values: FloatMatrix, failed: Sequence[Cost | None],
    places: pl.DataFrame, net: ClaimsNet, verdict: Verdict, apart: pl.DataFrame, redraws: int,
    lost: int,
) -> list[str]:  # fmt: skip
    """The sentences: the costliest, bands, agreement, claims, and what did not come to rest."""
    first = costliest(values[:, 0], TOP) if len(found) else []
    if not first:
        return ["No failure of any candidate costs anybody else anything on a calm day."]
    words = [_first_words(found, values, first, places)]
    if not redraws:
        words.append("Places by failure have no band: no book was redrawn.")
    elif lost:
        words.append(
            f"On {lost} of {redraws} redrawn books prices left all bounds; they are left out."
        )
    if verdict.tau is not None and verdict.least is not None:
        one, other, tau = verdict.least
        words.append(
            f"Rankings {verdict.words}: over {many(verdict.pairs, 'pair')} of rankings the median "
            f"of Kendall's tau is {told(verdict.tau)}; {one} and {other} agree least ({told(tau)})."
        )
    else:
        words.append("Rankings have too few nodes in common to be compared.")
    if verdict.shared:
        words.append(f"Among the first in every ranking that has them: {listed(verdict.shared)}.")
    if apart.height and apart["apart"][0] > 0.5:
        row = apart.row(0, named=True)
        words.append(
            f"Rankings put {row['node']} furthest apart: near the top by {row['highest_by']}, near "
            f"the bottom by {row['lowest_by']}."
        )
    if len(net.usd):
        radius = net.radius
        words.append(
            f"Claims over buffers have a radius of {told(radius)}"
            + (": above 1, small stress grows round circles and DebtRank stops only where nothing "
               "is left." if radius > 1.0 else ", so small stress dies out.")
        )  # fmt: skip
    unsettled = [each.name for each, cost in zip(found, failed, strict=True)
                 if cost is not None and not cost.settled]  # fmt: skip
    if unsettled:
        words.append(
            f"After the failure of {listed(unsettled)} channels had not come to rest, or prices "
            "left all bounds."
        )
    if web.told < 0.999:
        words.append(f"{percent(1.0 - web.told)} of what accounts hold leads where no table goes.")
    return words


def _first_words(
    found: Sequence[Candidate], values: FloatMatrix, first: Sequence[int], places: pl.DataFrame
) -> str:
    top = found[first[0]]
    words = (
        f"The failure of {top.name} on a calm day costs all others {told(values[first[0], 0])} USD"
        f", more than that of any other of {many(len(found), 'candidate')}"
    )
    row = places.filter((pl.col("ranking") == "failure") & (pl.col("node") == top.name))
    low, high = row["rank_low"][0], row["rank_high"][0]
    if low is not None:
        words += f" (place {low}" + (f" to {high}" if high != low else "")
        words += " over books with other owners)"
    rest = [f"{found[n].name} {told(values[n, 0])}" for n in first[1:3]]
    return words + (f"; then {listed(rest)}." if rest else ".")
