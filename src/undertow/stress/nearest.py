"""The nearest point at which a function of many numbers reaches a target, by its value alone.

Made for losses of cascades: they jump, are flat between jumps, and cost much to ask. Points z lie
in a space whose directions are independent and of deviation 1, so near means plausible. Rays go out
from rest; where one reaches the target is halved in on, and rays are turned until no turn brings
that nearer. What is found is reached; nothing proves that there is nothing nearer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatColumn, FloatMatrix
from undertow.state.arrays import frozen

_STILL = 1e-10  # variance, of the largest, under which a direction does not move
_WIDEST, _NARROWEST = 0.5, 0.01  # angles of steps on the sphere, radians
_APART = 0.94  # starts whose directions are nearer than this cosine are one
_LOOKS = 25  # places of a ray at which its loss is looked at
_NEARER = 5  # places that are tried where the loss of the farthest is unknown


LossOf = Callable[[FloatColumn], float | None]  # None where nobody can tell


class Search(Enum):
    """What came of a search."""

    REACHED = "reached"
    AT_REST = "at rest"  # the loss is there before anything moves
    NOT_REACHED = "not reached"  # nowhere that was looked


@dataclass(frozen=True, eq=False)
class FactorSpace:
    """Independent directions in which factors move, the widest first."""

    root: FloatMatrix  # (factors, components); covariance = root root'
    deviation: FloatColumn  # of each factor; 0 of one that does not move
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, covariance: Any, *, components: int | None = None) -> FactorSpace:
        """Take a covariance apart; directions without variance are left out, and so is what asks
        for more than the widest `components`.

        A matrix with negative variances is replaced by the nearest without any (Frobenius), and
        the notes say so.

        Raises
        ------
        StateError
            When it is not square, symmetric and finite, or nothing in it moves.
        """
        given = np.asarray(covariance, dtype=np.float64)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size:
            raise StateError(
                f"covariance is {' x '.join(map(str, given.shape))}; it must be square"
            )
        if not np.isfinite(given).all() or (
            np.abs(given - given.T).max() > 1e-9 * np.abs(given).max()
        ):
            raise StateError("covariance holds what is not finite, or is not symmetric")
        if components is not None and components < 1:
            raise StateError(f"components was {components}; it must be at least 1")
        value, vector = (part[..., ::-1] for part in np.linalg.eigh(0.5 * (given + given.T)))
        if value[0] <= 0.0:
            raise StateError("nothing moves in this covariance", hint="give factors a variance")
        notes = []
        if value[-1] < -_STILL * value[0]:
            missed = math.sqrt(float((np.minimum(value, 0.0) ** 2).sum()))
            notes.append(
                f"the covariance was none (least eigenvalue {value[-1]:.3g}); the nearest one is "
                f"used, {missed:.3g} away (Frobenius)"
            )
        moving = int((value > _STILL * value[0]).sum())
        kept = moving if components is None else min(moving, components)
        if kept < moving:
            share = float(value[:kept].sum() / value[:moving].sum())
            notes.append(
                f"only the {kept} widest of {moving} directions are searched, {share:.1%} of the "
                "variance; a shock off them may be nearer"
            )
        root = vector[:, :kept] * np.sqrt(value[:kept])
        whole = vector[:, :moving] * np.sqrt(value[:moving])
        deviation = np.sqrt((whole**2).sum(axis=1))
        return cls(frozen(root), frozen(deviation), tuple(notes))

    @property
    def components(self) -> int:
        """How many directions there are."""
        return int(self.root.shape[1])

    def shock(self, z: FloatColumn) -> FloatColumn:
        """Moves of factors at a point."""
        return self.root @ z


class Asked:
    """A loss that counts how often it was asked; once the budget is spent, nothing reaches.

    Nor does a point at which nobody can tell the loss.
    """

    def __init__(self, of: LossOf, target: float, budget: int) -> None:
        self._of = of
        self.target = target
        self.budget = budget
        self.count = 0
        self.most = -math.inf
        self.worst: FloatColumn | None = None  # where the loss was largest
        self.spent = False

    def loss(self, z: FloatColumn) -> float:
        """The loss at a point; less than anything where there is none, or the budget is spent."""
        if self.count >= self.budget:
            self.spent = True
            return -math.inf
        self.count += 1
        told = self._of(z)
        if told is None:
            return -math.inf
        found = float(told)
        if math.isnan(found):
            raise StateError("the loss of a shock is not a number", hint="check what was passed")
        if found > self.most:
            self.most, self.worst = found, z
        return found

    def reaches(self, z: FloatColumn) -> bool:
        """Whether the loss there is the target or more."""
        return self.loss(z) >= self.target


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Where a search ended, and what it saw on the way."""

    search: Search
    z: FloatColumn
    loss: float
    distances: tuple[float, ...] = ()
    monotone: bool = True
    stays: bool = True


def nearest(
    ask: Asked,
    space: FactorSpace,
    farthest: float,
    directions: int,
    restarts: int,
    tolerance: float,
    seed: int,
) -> Found:
    """The nearest point that reaches the target, within `farthest` of rest.

    `restarts` rays are refined, of those of `space` and so many random `directions`.
    """
    rest = np.zeros(space.components)
    at_rest = ask.loss(rest)
    if at_rest >= ask.target:
        return Found(Search.AT_REST, rest, at_rest)
    rng = np.random.default_rng(seed)
    starts = _starts(ask, _rays(space, directions, rng), farthest, restarts)
    if not starts:
        assert ask.worst is not None  # rest was asked
        return Found(Search.NOT_REACHED, ask.worst, ask.most)
    ends = sorted(
        (_refined(ask, ray, radius, tolerance, rng) for ray, radius in starts),
        key=lambda end: end[1],
    )
    ray, radius = ends[0]
    radius, monotone, stays = _along(ask, ray, radius, tolerance)
    distances = sorted([float(radius), *(float(end[1]) for end in ends[1:])])
    ask.budget += 1  # what comes back is asked once more, whatever was spent
    z = radius * ray
    return Found(Search.REACHED, z, ask.loss(z), tuple(distances), monotone, stays)


def _rays(space: FactorSpace, directions: int, rng: np.random.Generator) -> FloatMatrix:
    """Where to look first: the likeliest way for each factor, and for all, to move; and anywhere.

    Given only that one factor falls, the likeliest z is its row of the root.
    """
    moving = space.root[space.deviation > 0.0]
    moving = moving[np.linalg.norm(moving, axis=1) > 0.0]
    ways = np.vstack([moving, moving.sum(axis=0)])
    ways = ways[np.linalg.norm(ways, axis=1) > 1e-12]
    anywhere = rng.standard_normal((directions, space.components))
    rays = np.vstack([-ways, ways, anywhere])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays


def _starts(
    ask: Asked, rays: FloatMatrix, farthest: float, restarts: int
) -> list[tuple[FloatColumn, float]]:
    """The rays that lose the target soonest and point apart, each with a radius that does."""
    near = 0.0
    for radius in farthest * 0.5 ** np.arange(4, -1, -1):
        known = [(ray, _known(ask, ray, near, radius)) for ray in rays]
        hit = [(ray, at) for ray, at in known if at is not None]
        if hit:
            coarse = [(_crossing(ask, ray, near, at, 0.05), ray) for ray, at in hit]
            break
        near = radius
    else:
        return []
    chosen: list[tuple[FloatColumn, float]] = []
    for at, ray in sorted(coarse, key=lambda each: each[0]):
        if all(ray @ other < _APART for other, _ in chosen):
            chosen.append((ray, at))
        if len(chosen) == restarts:
            break
    return chosen


def _known(ask: Asked, ray: FloatColumn, near: float, far: float) -> float | None:
    """A radius that loses the target: `far`, or nearer where nobody can tell what that loses."""
    loss = ask.loss(far * ray)
    if loss > -math.inf:
        return far if loss >= ask.target else None
    for _ in range(_NEARER):
        if ask.spent:
            break
        middle = 0.5 * (near + far)
        loss = ask.loss(middle * ray)
        if loss >= ask.target:
            return middle
        near, far = (near, middle) if loss == -math.inf else (middle, far)
    return None


def _crossing(ask: Asked, ray: FloatColumn, low: float, high: float, tolerance: float) -> float:
    """A radius at `high` or under it that loses the target, while hardly less does not."""
    while high - low > tolerance * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if ask.reaches(middle * ray) else (middle, high)
        if ask.spent:
            break
    return high


def _inward(ask: Asked, ray: FloatColumn, radius: float, tolerance: float) -> float:
    """The crossing under a radius that is known to lose the target; mostly it is close."""
    near = 0.8 * radius
    if ask.reaches(near * ray):
        return _crossing(ask, ray, 0.0, near, tolerance)
    return _crossing(ask, ray, near, radius, tolerance)


def _refined(
    ask: Asked, ray: FloatColumn, radius: float, tolerance: float, rng: np.random.Generator
) -> tuple[FloatColumn, float]:
    """Turn a ray until no turn brings the crossing nearer; steps narrow as turns fail."""
    radius = _inward(ask, ray, radius, tolerance)
    angle, planes = _WIDEST, 2
    while angle > _NARROWEST and len(ray) > 1 and not ask.spent:
        inner = radius * (1.0 - 2.0 * tolerance)
        basis = _tangents(ray, rng)
        better = _turned(ask, ray, inner, angle, basis)
        if better is None and planes:
            planes -= 1
            onto = _onto_plane(ask, ray, radius, angle, basis, tolerance)
            better = onto if ask.reaches(inner * onto) else None
        if better is None:
            angle *= 0.5
        else:
            ray, radius = better, _inward(ask, better, inner, tolerance)
    return ray, radius


def _turned(
    ask: Asked, ray: FloatColumn, inner: float, angle: float, basis: FloatMatrix
) -> FloatColumn | None:
    """A ray that still loses the target a little further in, or None.

    Every way to turn is asked for its loss. Together they give the slope of the loss, and so the
    normal of the surface on which it is the target; failing that, the neighbour that loses most.
    """
    side = math.sin(angle)
    around = [math.cos(angle) * ray + sign * side * way for way in basis for sign in (1.0, -1.0)]
    losses = np.array([ask.loss(inner * each) for each in around])
    reach = 0.5 * side
    outer, closer = (ask.loss(inner * (1.0 + sign * reach) * ray) for sign in (1.0, -1.0))
    if ask.spent:
        return None
    if np.isfinite([*losses, outer, closer]).all():
        slope = (losses[0::2] - losses[1::2]) / (2.0 * side * inner)
        steep = (outer - closer) / (2.0 * reach * inner)
        normal = steep * ray + slope @ basis
        if steep >= 0.0 and (length := float(np.linalg.norm(normal))) > 0.0:
            toward = normal / length
            for each in (toward, _unit(ray + toward)):
                if ask.reaches(inner * each):
                    return each
    best = int(losses.argmax())
    return around[best] if losses[best] >= ask.target else None


def _onto_plane(
    ask: Asked,
    ray: FloatColumn,
    radius: float,
    angle: float,
    basis: FloatMatrix,
    tolerance: float,
) -> FloatColumn:
    """The ray square to the plane through this crossing and those of its neighbours.

    With the plane n z = 1 the crossing along the ray gives its part 1 / radius of n, and that at
    radius p on a ray turned by the angle towards a way gives (1 / p - cos / radius) / sin of it.
    """
    normal = ray / radius
    for way in basis:
        for sign in (1.0, -1.0):
            turned = math.cos(angle) * ray + sign * math.sin(angle) * way
            if ask.reaches(2.0 * radius * turned):
                at = _crossing(ask, turned, 0.0, 2.0 * radius, tolerance)
                part = (1.0 / at - math.cos(angle) / radius) / math.sin(angle)
                normal = normal + sign * part * way
                break
    return _unit(normal)


def _along(
    ask: Asked, ray: FloatColumn, radius: float, tolerance: float
) -> tuple[float, bool, bool]:
    """The first crossing of a ray that looks show, and whether its loss rises, and stays up."""
    looks = [(r, ask.loss(r * ray)) for r in np.linspace(0.0, 1.5, _LOOKS) * radius]
    if ask.spent:
        return radius, True, True
    radii, losses = zip(*(each for each in looks if each[1] > -math.inf), strict=True)
    first = next(k for k, loss in enumerate(losses) if loss >= ask.target)
    if radii[first] < radius:
        radius = _crossing(ask, ray, radii[first - 1], radii[first], tolerance)
    return radius, rises(losses), min(losses[first:]) >= ask.target


def _tangents(ray: FloatColumn, rng: np.random.Generator) -> FloatMatrix:
    """Ways square to a ray and to each other, turned at random: kinks hide from fixed ones."""
    start = rng.standard_normal((len(ray), len(ray)))
    start[:, 0] = ray
    square, _ = np.linalg.qr(start)
    ways: FloatMatrix = square[:, 1:].T
    return ways


def rises(losses: Sequence[float]) -> bool:
    """Whether no loss is under one before it, but for rounding."""
    slack = 1e-9 * max(abs(loss) for loss in losses)
    return all(b >= a - slack for a, b in pairwise(losses))


def _unit(z: FloatColumn) -> FloatColumn:
    unit: FloatColumn = z / np.linalg.norm(z)
    return unit
