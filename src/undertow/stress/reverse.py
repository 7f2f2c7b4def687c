"""Stress tests asked backwards: not what a shock loses, but which shock loses that much.

`reverse_stress` looks for the most plausible of all shocks that lose at least a target: the one
nearest to nothing in the Mahalanobis distance sqrt(s' S^-1 s), where S is the covariance of
factors. A cascade has jumps and no derivative, so the loss is only ever asked for its value; a
distance that was found is reached, and the true one may be smaller. `critical_size` asks how many
times a scenario has to happen, and `reverse` puts the first question to a snapshot's cascades.

Shocks are searched in the space z in which factors are independent with deviation 1: s = B z with
B B' = S, so the distance is the length of z, and directions without variance do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np
import polars as pl
from scipy.special import chdtrc, ndtr

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix
from undertow.state.arrays import frozen
from undertow.stress.assumed import DAYS, assumed_correlation, assumed_vols
from undertow.stress.cascade import Engine, plan_of, settle
from undertow.stress.draws import Draws
from undertow.stress.ground import laid_out
from undertow.stress.nearest import Asked, FactorSpace, LossOf, Search, nearest, rises
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.pricing import PricingMap
from undertow.stress.scenario import Scenario, require_scenario
from undertow.stress.stressed import Stressed


class Loss(Enum):
    """Which loss of a cascade is meant; in USD."""

    LIQUIDATED = "liquidated"
    BAD_DEBT = "bad_debt"
    INSOLVENCY = "insolvency"

    @property
    def headline(self) -> str:
        """What a cascade calls it."""
        return f"{self.value}_usd"


class Runs(Protocol):
    """Anything that runs a cascade and says how it ended; `stress.cascade.Engine` does."""

    def run(self, stressed: Stressed, options: Options, *, trace: bool, path: bool) -> Any:
        """The cascade, with `.headline()`: numbers by name."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ReverseStress:
    """The most plausible shock that was found to lose the target, and how far to trust it."""

    search: Search
    shock: FloatColumn  # by factor; where nothing was reached, the one that lost most
    distance: float  # Mahalanobis: how many standard deviations out, along its own direction
    target: float
    loss: float  # at the shock, so at least the target where it was reached
    components: int  # dimension of the space that was searched
    evaluations: int
    spent: bool  # the budget ran out before the search did, and nobody looked along the ray
    monotone: bool  # the loss never falls along the ray through the shock, as far as was looked
    stays: bool  # nor does it fall back under the target beyond the shock
    distances: tuple[float, ...]  # that every start ended at, the best first
    deviation: FloatColumn  # by factor
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def beyond(self) -> float:
        """Chance of the half-space behind the shock, were moves normal: Phi(-distance).

        That is the chance of the loss itself where the loss is linear, and its usual first guess
        elsewhere (the first-order reliability method). Real tails are fatter.
        """
        return float(ndtr(-self.distance))

    @property
    def probability(self) -> float:
        """Chance of any shock this implausible, in whatever direction: a chi-square tail.

        A reading aid, with as many degrees of freedom as directions were searched: in many
        dimensions every day is far from nothing, and `beyond` is the number to read.
        """
        return float(chdtrc(self.components, self.distance**2))

    @property
    def agree(self) -> int:
        """Starts that ended within 1 % of the best distance; one alone proves little."""
        return sum(each <= 1.01 * self.distance for each in self.distances)

    @property
    def spread(self) -> float:
        """How much further out the worst start ended than the best, as a fraction."""
        if len(self.distances) < 2 or self.distances[0] <= 0.0:
            return 0.0
        return self.distances[-1] / self.distances[0] - 1.0

    @property
    def called(self) -> str:
        """What the shock may be called: `found` where the search itself leaves room for a nearer.

        That is where the budget ended it, or its starts did not all end at the same distance.
        """
        sure = not self.spent and 1 < len(self.distances) == self.agree
        return "the most plausible shock" if sure else "the most plausible shock found"

    def require(self) -> ReverseStress:
        """The result itself, or an error where the target was not reached.

        Raises
        ------
        StateError
            Saying how much was lost at most.
        """
        if self.search is Search.NOT_REACHED:
            raise StateError(
                f"no shock that was tried lost {self.target:,.6g}; the most was {self.loss:,.6g}",
                hint="lower the target, look farther out, or allow more evaluations",
            )
        return self

    def to_polars(self) -> pl.DataFrame:
        """One row a factor: its log move, that as a fraction, and in its own deviations."""
        names = self.names or tuple(str(k) for k in range(len(self.shock)))
        moving = self.deviation > 0.0
        own = np.divide(self.shock, self.deviation, out=np.zeros(len(moving)), where=moving)
        frame = pl.DataFrame(
            {"factor": names, "log_move": self.shock, "move": np.expm1(self.shock),
             "deviations": own}
        )  # fmt: skip
        return frame.sort(pl.col("deviations").abs(), "factor", descending=[True, False])


@dataclass(frozen=True, slots=True)
class CriticalSize:
    """The least size at which a loss reaches a target, as far as was looked."""

    search: Search
    size: float  # infinite where none does
    below: float  # the largest size before it that was seen to stay under the target
    loss: float  # at the size; the largest seen where nothing was reached
    target: float
    monotone: bool  # no larger size that was looked at lost less
    stays: bool  # nor fell back under the target
    evaluations: int
    looked: tuple[tuple[float, float], ...] = field(repr=False, default=())  # sizes and losses
    refused: str = ""  # why there is no loss of larger sizes than were looked at, if so


def critical_size(
    loss_of_size: Callable[[float], float],
    target: float,
    low: float = 0.0,
    high: float = 1.0,
    *,
    tolerance: float = 1e-4,
    looks: int = 17,
) -> CriticalSize:
    """How large a scenario has to be to lose `target`: the first crossing, and whether it is one.

    The loss is looked at in `looks` evenly spaced places; within the first gap over which it
    reaches the target the crossing is halved in to `tolerance` of the range. A loss need not rise
    with size: a deeper fall may close a short that would have sold later. Then larger sizes may be
    safe again, and a crossing narrower than a gap may be missed; `monotone` and `stays` say whether
    any of that was seen.

    A size of which there is no loss, because the engine refuses it (`StateError`), ends the range:
    `below` is then how far it reached, and `refused` says why it went no further.

    Raises
    ------
    StateError
        An empty range, too few looks, a loss that is no number, or none even of the least size.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise StateError(f"low was {low} and high {high}; low must lie under high")
    if looks < 2:
        raise StateError(f"looks was {looks}; it must be at least 2")
    if not 0.0 < tolerance < 1.0:
        raise StateError(f"tolerance was {tolerance}; it must lie between 0 and 1")
    tight, refusals = tolerance * (high - low), list[str]()

    def loss_at(point: FloatColumn) -> float | None:
        try:
            return loss_of_size(float(point[0]))
        except StateError as exc:
            refusals.append(exc.message)
            return None

    ask = Asked(loss_at, target, budget=10**9)
    seen: list[tuple[float, float]] = []
    for size in np.linspace(low, high, looks).tolist():
        if (loss := ask.loss(np.array([size]))) == -math.inf:
            if not seen:
                raise StateError(f"size {size:g}: {refusals[0]}")
            _up_to(size, seen, ask, tight)
            break
        seen.append((size, loss))
    sizes, losses = ([each[part] for each in seen] for part in (0, 1))
    first = next((k for k, loss in enumerate(losses) if loss >= target), None)

    def ended(search: Search, size: float, below: float, loss: float) -> CriticalSize:
        stays = first is None or min(losses[first:]) >= target
        why = refusals[-1] if refusals else ""
        return CriticalSize(search, size, below, loss, target, rises(losses), stays, ask.count,
                            tuple(seen), why)  # fmt: skip

    if first is None:
        return ended(Search.NOT_REACHED, math.inf, sizes[-1], max(losses))
    if first == 0:
        return ended(Search.AT_REST, low, low, losses[0])
    (below, _), (size, loss) = seen[first - 1], seen[first]
    while size - below > tight:
        middle = 0.5 * (below + size)
        if (found := ask.loss(np.array([middle]))) >= target:
            size, loss = middle, found
        else:
            below = middle
    return ended(Search.REACHED, size, below, loss)


def _up_to(refused: float, seen: list[tuple[float, float]], ask: Asked, tight: float) -> None:
    """Add to `seen` sizes nearer and nearer to one that is refused, until one loses the target."""
    size, loss = seen[-1]
    while refused - size > tight and loss < ask.target:
        middle = 0.5 * (size + refused)
        if (found := ask.loss(np.array([middle]))) == -math.inf:
            refused = middle
        else:
            size, loss = middle, found
            seen.append((size, loss))


def reverse_stress(
    loss: LossOf,
    covariance: Any,
    target: float,
    *,
    components: int | None = None,
    farthest: float = 10.0,
    directions: int = 32,
    restarts: int = 4,
    budget: int = 4_000,
    tolerance: float = 1e-4,
    seed: int = 0,
    names: Sequence[str] = (),
) -> ReverseStress:
    """The most plausible shock that loses at least `target`: min s' S^-1 s with loss(s) >= target.

    `loss` takes the moves of all factors, and answers None where nobody can tell. Rays go out along
    the most plausible fall and rise of every factor, of all together, and along `directions` random
    ones, until some of them lose the target within `farthest` deviations; the nearest `restarts`
    that point apart are then turned, each, until no turn brings the crossing nearer. A turn is
    along the slope of the loss, onto the plane through crossings nearby (where the loss jumps there
    is no slope), or to whatever neighbour loses the target too. What comes back is reached, and is
    nearest as far as was looked: read `agree`, `spread`, `stays` and `spent`.

    Raises
    ------
    StateError
        A matrix that is no covariance, a target or a loss that is no number.

    References
    ----------
    Breuer, Jandacka, Rheinberger and Summer (2009), "How to find plausible, severe and useful
    stress scenarios". Hasofer and Lind (1974) and Rackwitz and Fiessler (1978), on the design
    point, which this is.
    """
    if not math.isfinite(target):
        raise StateError(f"target was {target}; it must be a finite loss")
    for name, value, least in (("directions", directions, 0), ("restarts", restarts, 1),
                               ("budget", budget, 1)):  # fmt: skip
        if value < least:
            raise StateError(f"{name} was {value}; it must be at least {least}")
    space = FactorSpace.of(covariance, components=components)
    if names and len(names) != len(space.deviation):
        raise StateError(f"there are {len(names)} names for {len(space.deviation)} factors")
    ask = Asked(lambda z: loss(space.shock(z)), target, budget)
    found = nearest(ask, space, farthest, directions, restarts, tolerance, seed)
    return ReverseStress(
        shock=frozen(space.shock(found.z)),
        target=target,
        components=space.components,
        evaluations=ask.count,
        spent=ask.spent,
        deviation=space.deviation,
        names=tuple(names),
        notes=space.notes,
        search=found.search,
        distance=float(np.linalg.norm(found.z)),
        loss=found.loss,
        monotone=found.monotone,
        stays=found.stays,
        distances=found.distances,
    )


def reverse(
    snapshot: Snapshot | Plan,
    *,
    target_usd: float,
    loss: Loss | str = Loss.INSOLVENCY,
    scenario: Scenario | None = None,
    covariance: Any = None,
    draws: Draws | None = None,
    days: float = 1.0,
    options: Options | None = None,
    engine: Runs | None = None,
    **search: Any,
) -> ReverseStress:
    """The most plausible joint move of all factors after which cascades lose `target_usd`.

    What is plausible is said by a `covariance` of factors, or by `draws` (that of 4,096 of them),
    or by what `stress.assumed` takes for granted, over `days`. A `scenario` happens first: with
    thinner books or a late oracle, a smaller move does. The book is settled before, as in
    `run_cascade`, unless an `engine` of one's own is passed. Shocks that the engine refuses,
    because prices leave all bounds, are no answer, and the notes say how many. What else `search`
    may hold is what `reverse_stress` takes.

    Raises
    ------
    StateError
        A snapshot, a scenario or a loss that is none, or both a covariance and draws.
    """
    wanted = _loss(loss).headline
    if scenario is not None:
        require_scenario(scenario)
    asked = options or (scenario.options if scenario else Options())
    plan = laid_out(snapshot)
    if engine is None:
        plan = settle(plan, asked).plan
    start = scenario.apply(plan.snapshot) if scenario else Stressed.calm(plan.snapshot)
    runs = engine or Engine(plan_of(start, plan))

    refusals: list[str] = []

    def lost(factor: FloatColumn) -> float | None:
        moved = start.put("factor", slice(None), start.factor + factor)
        try:
            return float(runs.run(moved, asked, trace=False, path=False).headline()[wanted])
        except StateError as exc:
            if not factor.any():
                raise
            refusals.append(exc.message)
            return None

    spread = _covariance(plan.snapshot, covariance, draws, days, start.correlation)
    names = plan.snapshot.universe.assets
    found = reverse_stress(lost, spread, target_usd, names=names, **search)
    if not refusals:
        return found
    words = f"the engine refused {len(refusals)} of the shocks that were tried: {refusals[-1]}"
    return replace(found, notes=(*found.notes, words))


def price_moves(snapshot: Snapshot, found: ReverseStress) -> pl.DataFrame:
    """What a shock of factors does to the price of every asset, the largest fall first."""
    moves = PricingMap.of(snapshot).asset_moves(found.shock)
    frame = pl.DataFrame({"asset": snapshot.universe.assets, "move": np.expm1(moves)})
    return frame.sort("move", "asset")


def _loss(loss: Loss | str) -> Loss:
    names = [each.value for each in Loss]
    if not isinstance(loss, Loss) and loss not in names:
        raise StateError(f"loss was {loss!r}; it may be {', '.join(names)}")
    return Loss(loss)


def _covariance(
    snapshot: Snapshot,
    covariance: Any,
    draws: Draws | None,
    days: float,
    correlation: FloatMatrix | None,
) -> FloatMatrix:
    """The covariance of factors that somebody gave, drew, or that is assumed."""
    size = len(snapshot.universe.assets)
    if covariance is not None and draws is not None:
        raise StateError("pass a covariance or draws, not both: the one follows from the other")
    if covariance is not None:
        given: FloatMatrix = np.asarray(covariance, dtype=np.float64)
        if given.shape != (size, size):
            raise StateError(
                f"covariance is {' x '.join(map(str, given.shape))}; it must be {size} x {size}",
                hint="one row and one column for each asset of the universe, in its order",
            )
        return given
    if draws is not None:
        return np.atleast_2d(np.cov(draws.draw(0, 0, 4_096), rowvar=False))
    if not 0.0 < days <= 3_650.0:
        raise StateError(f"days was {days}; it must be above 0 and at most 3650")
    scale = assumed_vols(snapshot) * math.sqrt(days / DAYS)
    ties = assumed_correlation(snapshot) if correlation is None else correlation
    assumed: FloatMatrix = ties * np.outer(scale, scale)
    return assumed
