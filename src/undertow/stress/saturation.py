"""Debt saturation: how large a shock may be before forced sales carry themselves on.

A shock of size s along a direction moves prices; `Pressure.rest` says where forced sales take them
from there: Y(s), the least fixed point. The **undertow index** rho(s) is the spectral radius of
`Pressure.feedback` at Y(s): what the next fall forces, times what that does to prices. Below 1
forced sales die out. **Saturation** is the smallest shock at which they do not: the least fixed
point breaks off and prices fall by a whole bandwidth or more at once, so over that stretch each
unit of fall makes another one, an eigenvalue of 1. It is found from thresholds and depth alone; no
cascade is run.

In one dimension, with y the fall, F(y) what is forced by then and kappa the impact: rho = kappa
F'(y), and saturation y* - kappa F(y*) at the first y* where rho reaches 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.state import BoolColumn, FloatColumn, FloatMatrix
from undertow.state.universe import NONE
from undertow.stress.plan import Plan
from undertow.stress.pressure import BANDWIDTH, Feedback, Pressure

STEP = 0.01  # between the shocks that are looked at first
EXACT = 5e-4  # to which the shock at saturation is told
FURTHEST = 0.6


class Point(NamedTuple):
    """Where forced sales come to rest after one shock."""

    shock: float
    fall: float  # of the book's prices, weighted with what is held
    falls: FloatColumn  # of the indices that are watched
    volume: FloatColumn
    settled: bool
    cut: bool = False  # followed no further, since it has broken off already


@dataclass(frozen=True, eq=False)
class Saturation:
    """How a book answers shocks along one direction, up to the one at which it sells itself.

    `path` has a row a shock, the last one right before saturation: `shock`, `fall` at rest, `rho`,
    `swing` (the largest eigenvalue that is negative or complex: sales and purchases that answer
    each other), and `settled`.
    """

    path: pl.DataFrame
    at: float | None  # the shock at saturation; None where none was found up to the furthest
    jump: float | None  # by how much the index that breaks falls at once there
    furthest: float  # shock that was looked at
    bandwidth: float
    assets: pl.DataFrame  # share of the feedback that each asset carries, where it was largest
    venues: pl.DataFrame  # and each venue

    @property
    def strongest(self) -> float:
        """The largest rho of the shocks looked at, up to saturation."""
        return max(self.path["rho"].to_list(), default=0.0)


def saturation(
    pressure: Pressure,
    direction: FloatColumn,
    *,
    furthest: float = FURTHEST,
    step: float = STEP,
    bandwidth: float = BANDWIDTH,
    watched: FloatMatrix | None = None,
    progress: Callable[[float], None] | None = None,
) -> Saturation:
    """Follow forced sales from no shock to the one at which they carry themselves on.

    `direction` is by asset: a shock of s takes a share s * direction of each price; below 0 it
    raises it. A break is one of the book's prices, weighted with what is held of each; or of any of
    the indices `watched`, rows of weights by instrument.

    Raises
    ------
    StateError
        When the direction moves nothing, or its shocks would leave nothing of a price.
    """
    _require_direction(direction, step, furthest)
    walk = _Walk(pressure, direction, bandwidth, watched)
    further = bandwidth if direction.max() > 0.0 else -bandwidth  # of a rise, thresholds above
    rows, last = [], walk.point(0.0, None)
    strongest: tuple[float, Feedback | None] = (-1.0, None)
    broken: Point | None = None
    for shock in _steps(step, furthest):
        here = walk.point(float(shock), last)
        broken = walk.break_between(last, here)
        here = walk.followed(here) if broken is None else walk.before
        feedback = pressure.feedback(walk.shock(here.shock), here.volume, further)
        rho, swing = spectrum(feedback)
        rows.append((here.shock, here.fall, rho, swing, here.settled))
        strongest = max(strongest, (rho, feedback), key=lambda found: found[0])
        if broken is not None:
            break
        last = here
        if progress is not None:
            progress(float(shock) / furthest)
    assets, venues = carried_by(pressure, strongest[1])
    path = pl.DataFrame(rows, schema=["shock", "fall", "rho", "swing", "settled"], orient="row")
    return Saturation(
        path=path,
        at=None if broken is None else broken.shock,
        jump=None if broken is None else walk.jump(broken),
        furthest=furthest if broken is None else broken.shock,
        bandwidth=bandwidth,
        assets=assets,
        venues=venues,
    )


def saturation_at(
    pressure: Pressure,
    direction: FloatColumn,
    *,
    furthest: float = FURTHEST,
    step: float = STEP,
    bandwidth: float = BANDWIDTH,
    watched: FloatMatrix | None = None,
) -> float | None:
    """The shock at saturation alone, and nothing of the way there; None where there is none.

    Raises
    ------
    StateError
        As `saturation` does.
    """
    _require_direction(direction, step, furthest)
    walk = _Walk(pressure, direction, bandwidth, watched)
    last = walk.point(0.0, None)
    for shock in _steps(step, furthest):
        here = walk.point(float(shock), last)
        broken = walk.break_between(last, here)
        if broken is not None:
            return broken.shock
        last = walk.followed(here)
    return None


def _steps(step: float, furthest: float) -> FloatColumn:
    """Shocks from 0 to the furthest, evenly apart by no more than a step."""
    return np.linspace(0.0, furthest, int(np.ceil(furthest / step - 1e-9)) + 1)


def index_of(plan: Plan, some: BoolColumn | None = None) -> FloatColumn:
    """(instruments,) Weights of an index of prices: what is held of each, of `some` or of all."""
    gross = plan.gross_usd * ((plan.insts["kind"] == 0) & (plan.insts["money"] == 0))
    if some is not None:
        gross = gross * some
    return np.asarray(gross / max(float(gross.sum()), 1e-300))


def _require_direction(direction: FloatColumn, step: float, furthest: float) -> None:
    reach = float(direction.max(initial=0.0))
    if not direction.any() or not np.isfinite(direction).all():
        raise StateError("the direction moves nothing", hint="give 1 to each asset that falls")
    if not 0.0 < step <= furthest or furthest * reach >= 1.0:
        raise StateError(
            f"step was {step} and furthest {furthest}; they must lie between 0 and "
            f"{1.0 / max(reach, 1e-300):g}, step below furthest"
        )


class _Walk:
    """Points along one direction, each found from the one before."""

    def __init__(
        self,
        pressure: Pressure,
        direction: FloatColumn,
        bandwidth: float,
        watched: FloatMatrix | None,
    ) -> None:
        self.pressure, self.direction, self.bandwidth = pressure, direction, bandwidth
        plan = pressure.plan
        self.weight = index_of(plan)
        self.watched = self.weight[None, :] if watched is None else watched
        self.nothing = np.zeros(plan.carriers.pools)
        none = np.zeros(len(self.watched))
        self.before = Point(0.0, 0.0, none, self.nothing, settled=True)

    def shock(self, size: float) -> FloatColumn:
        return self.pressure.shock(np.log1p(-size * self.direction))

    def point(self, size: float, last: Point | None) -> Point:
        """Where prices rest after a shock, or a point on the way when they break off from `last`.

        A way out of sight is a break whatever its end is, and the end is far.
        """
        if last is None:
            return self._at(size, None, None)
        most = 2.0 * self.bandwidth + (size - last.shock)
        return self._at(
            size, last.volume, lambda prices: bool((self._gone(prices, last) >= most).any())
        )

    def _gone(self, prices: FloatColumn, last: Point) -> FloatColumn:
        """How far each watched index is from where it rested last."""
        return np.abs(self.falls(prices, self.watched) - last.falls)

    def jump(self, broken: Point) -> float:
        """By how much the index that breaks moves past what it was."""
        moved = self.followed(broken).falls - self.before.falls
        return float(moved[np.argmax(np.abs(moved))])

    def followed(self, point: Point) -> Point:
        """The same point, followed to where prices rest."""
        return self._at(point.shock, point.volume, None) if point.cut else point

    def falls(self, prices: FloatColumn, weights: FloatMatrix) -> FloatColumn:
        """By how much indices of prices have fallen."""
        return np.asarray(weights @ (1.0 - prices / self.pressure.plan.insts["start"]))

    def _at(
        self,
        size: float,
        start: FloatColumn | None,
        enough: Callable[[FloatColumn], bool] | None,
    ) -> Point:
        shock = self.shock(size)
        rest = self.pressure.rest(shock, start, enough)
        prices = self.pressure.prices(shock, rest.volume)
        (fall,) = self.falls(prices, self.weight[None, :])
        cut = enough is not None and not rest.settled
        falls = self.falls(prices, self.watched)
        return Point(size, float(fall), falls, rest.volume, rest.settled, cut)

    def break_between(self, low: Point, high: Point) -> Point | None:
        """The first point past a break of at least a bandwidth; None where prices went on evenly.

        A break is as large in any half that it falls in, a steep stretch is not. What half of the
        shock itself would move is no break: so long stretches need not be halved to tell.
        """
        need = self.bandwidth + 0.5 * np.abs(self.direct(high.shock) - self.direct(low.shock))
        if high.cut and not (np.abs(high.falls - low.falls) >= need).any():
            high = self.followed(high)
        if not (np.abs(high.falls - low.falls) >= need).any():
            return None
        if high.shock - low.shock <= EXACT:
            self.before = low
            return high
        middle = self.point(0.5 * (low.shock + high.shock), low)
        found = self.break_between(low, middle)
        return self.break_between(self.followed(middle), high) if found is None else found

    def direct(self, size: float) -> FloatColumn:
        """By how much the watched indices fall from a shock alone."""
        return self.falls(self.pressure.prices(self.shock(size), self.nothing), self.watched)


def spectrum(feedback: Feedback) -> tuple[float, float]:
    """Largest modulus of an eigenvalue, and the largest of those that are no positive number."""
    found = np.linalg.eigvals(feedback.matrix)
    size = np.abs(found)
    swinging = (found.real < 0.0) | (np.abs(found.imag) > 1e-9 * np.maximum(size, 1e-300))
    return float(size.max(initial=0.0)), float(size[swinging].max(initial=0.0))


def carried_by(pressure: Pressure, feedback: Feedback | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares of the leading eigenvalue by asset and by venue: what it would lose without each.

    With left and right eigenvectors l and r, the eigenvalue is l M r / l r, a sum over instruments
    that are sold and over pools that answer.
    """
    universe = pressure.plan.snapshot.universe
    none = pl.DataFrame(schema={"name": pl.String(), "share": pl.Float64()})
    if feedback is None or not feedback.matrix.any():
        return none.rename({"name": "asset"}), none.rename({"name": "venue"})
    left, right = _leading(feedback.matrix)
    by_pool = left * (feedback.matrix @ right)
    insts = pressure.case.insts
    sold = feedback.sold.T @ right / insts["per_qty"]
    by_inst = np.zeros(len(insts))
    for k in np.flatnonzero(sold):
        own, spot = insts["own_pool"][k], insts["spot_pool"][k]
        share = insts["coupling"][k] if own != NONE else 1.0
        if spot != NONE:
            to_spot = share * sold[k] * insts["spot_rate"][k]
            by_inst[k] += left[spot] * feedback.steep[spot] * to_spot
        if own != NONE:
            by_inst[k] += left[own] * feedback.steep[own] * (1.0 - share) * sold[k]
    contract = np.flatnonzero(pressure.plan.carriers.own_pool != NONE)
    asset_of_pool = np.arange(len(by_pool))
    asset_of_pool[pressure.plan.carriers.own_pool[contract]] = universe.asset_of[contract]
    return (
        _shares("asset", np.array(universe.assets)[asset_of_pool], by_pool),
        _shares("venue", np.array(universe.venues)[universe.venue_of], by_inst),
    )


def _leading(matrix: FloatColumn) -> tuple[FloatColumn, FloatColumn]:
    values, right = np.linalg.eig(matrix)
    r = np.abs(right[:, np.argmax(np.abs(values))])
    values, left = np.linalg.eig(matrix.T)
    return np.abs(left[:, np.argmax(np.abs(values))]), r


def _shares(name: str, of: FloatColumn, size: FloatColumn) -> pl.DataFrame:
    total = float(size.sum())
    frame = pl.DataFrame({name: of, "share": size / total if total else size})
    summed = frame.group_by(name, maintain_order=True).agg(pl.col("share").sum())
    return summed.filter(pl.col("share") != 0.0).sort("share", name, descending=[True, False])
