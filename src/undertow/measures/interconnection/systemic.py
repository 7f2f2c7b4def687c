"""Whose failure costs everybody else most: several rankings of nodes, how sure, and how alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from undertow.econometrics.checks import within
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.door import require_seed
from undertow.measures.interconnection.agreeing import agreement, spread
from undertow.measures.interconnection.candidates import Field, without
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.failing import (
    Bench,
    failures,
    left_out,
)
from undertow.measures.interconnection.nodetables import definitions, nodes_table, places_of
from undertow.measures.interconnection.nodewords import (
    MISLEADS,
    READ,
    TOP,
    Verdict,
    readings_of,
    says_of,
)
from undertow.measures.interconnection.rankings import (
    CIRCLE,
    RANKINGS,
    by_redraws,
    centrality,
    costliest,
    delta_covar,
    drawn_marks,
    drawn_passes,
    lost_draws,
    marks,
)
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.words import common_fall
from undertow.rules.snapshot import Snapshot
from undertow.stress.contagion import Assumptions, Channels
from undertow.stress.scenario import Scenario
from undertow.stress.shock import MARKET, Price, require_within

_NAME = "interconnection.nodes"


def nodes(
    book: Snapshot | Crowd | Web | Any,
    past: LeverageHistory | None = None,
    *,
    fall: float = 0.2,
    scenario: Scenario | None = None,
    channels: Channels | None = None,
    assumed: Assumptions | None = None,
    recovery: float = 0.0,
    wrong: float = 0.2,
    among: Sequence[str] = (),
    most: int = 4,
    contested: int = 5,
    redraws: int = 19,
    reps: int = 199,
    error: float = 0.1,
    top: int = TOP,
    level: float = 0.9,
    seed: int = 0,
    executor: Executor | None = None,
) -> Study:
    """Whose failure costs everybody else most, by several rankings, and whether they agree.

    Candidates are the `most` largest of each kind, or those named in `among` (`venue:okx`). The
    scenario is a common `fall` unless given. `redraws` books with other owners give bands to the
    places of the `contested` costliest failures; `reps` draws those of the other rankings, with
    claims known to a relative `error`. At 0 redraws places by failure have no band.

    Raises
    ------
    StateError
        When it is no book, a name is no node of the map, or a size is out of range.
    EstimationError
        When the level is out of range or the draws are too few.

    References
    ----------
    Battiston et al. (2012), "DebtRank", Scientific Reports 2; Bardoscia et al. (2015), PLoS ONE
    10; Cont and Schaanning (2019), Journal of Banking and Finance 104; Adrian and Brunnermeier
    (2016), "CoVaR", American Economic Review 106; Silva, Souza and Tabak (2015), Banco Central do
    Brasil 392.
    """
    web = Web.of(book)
    _require(fall, recovery, wrong, error, most, contested, redraws, top, seed, level)
    shock = scenario if scenario is not None else _fallen(fall)
    bench = Bench(
        web.crowd.plan, shock, channels or Channels(), assumed or Assumptions(), laid=web.solver
    )
    calm = bench.before[False]
    field = Field.of(web, calm.settlement.sheet, most, tuple(among), recovery, wrong)
    found = field.every
    failed = failures(bench, found, stressed=False)
    stressed = failures(bench, found, stressed=True)
    adds = left_out(bench, [without(web, each) for each in found], executor)
    net = ClaimsNet.of(calm.settlement, bench.assumed)
    center, drawn_center = centrality(web, found, reps, seed, level)
    tail, why_not = delta_covar(web, past, found)
    by_claims = marks(net, found, CIRCLE)
    if len(net.names) and net.impacts.circle > CIRCLE:
        why_not["diffusion"] = f"more than {CIRCLE:,} parties have claims on each other in circles"
    values = np.column_stack(
        [
            [np.nan if c is None else c.others for c in failed],
            [np.nan if c is None else c.others for c in stressed],
            [np.nan if x is None else x for x in adds],
            *by_claims.values(), center, field.passes, tail,
        ]
    ).reshape(len(found), len(RANKINGS))  # fmt: skip
    ordered = values.copy()
    ordered[:, -1] *= -1.0  # the further below 0, the more the others fall with it
    first = costliest(values[:, 0], contested)
    drawn = {
        "failure": by_redraws(bench, found, first, redraws, seed, executor),
        "passes": drawn_passes(web, field, reps, seed, level),
        "centrality": drawn_center,
        **drawn_marks(calm, net, found, min(reps, 199), error, seed, bench.assumed),
    }
    names = tuple(RANKINGS)
    labels = [each.name for each in found]
    places = places_of(labels, names, ordered, drawn, level)
    table = nodes_table(found, values, failed, net)
    pairs, apart = agreement(names, ordered, top), spread(labels, names, ordered)
    verdict = Verdict.of(labels, names, ordered, pairs, top)
    return Study(
        name=_NAME,
        title="Whose failure costs everybody else most",
        readings=tuple(readings_of(web, found, values, net, verdict)),
        tables={"nodes": table, "ranks": places, "agreement": pairs, "spread": apart,
                "definitions": definitions(shock)},
        says=tuple(says_of(web, found, values, failed, places, net, verdict, apart, redraws,
                        lost_draws(drawn["failure"]))),
        how_to_read=f"{READ} The scenario is {shock.name}.",
        misleads=MISLEADS,
        left_out=why_not | {each.name: each.reason for each in found if each.reason},
    )  # fmt: skip


def _fallen(fall: float) -> Scenario:
    shocks = (Price(asset=MARKET, move=-fall),) if fall != 0.0 else ()
    return Scenario(name=common_fall(fall), shocks=shocks)


def _require(
    fall: float, recovery: float, wrong: float, error: float, most: int, contested: int,
    redraws: int, top: int, seed: int, level: float,
) -> None:  # fmt: skip
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    require_within("fall", fall, -10.0, 0.999)
    require_within("recovery", recovery, 0.0, 1.0)
    require_within("wrong", wrong, 0.0, 0.999)
    require_within("error", error, 0.0, 2.0)
    for name, value in (("most", most), ("contested", contested), ("top", top)):
        require_within(name, value, 1)
    require_within("redraws", redraws, 0)
