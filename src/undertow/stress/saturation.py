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
from undertow.state import FloatColumn
from undertow.state.universe import NONE
from undertow.stress.pressure import BANDWIDTH, Feedback, Pressure

STEP = 0.01  # between the shocks that are looked at first
EXACT = 5e-4  # to which the shock at saturation is told
FURTHEST = 0.6


class Point(NamedTuple):
    """Where forced sales come to rest after one shock."""

    shock: float
    fall: float  # of the book's prices, weighted with what is held
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
    jump: float | None  # by how much prices fall at once there
    furthest: float  # shock that was looked at
    bandwidth: float
    assets: pl.DataFrame  # share of the feedback that each asset carries, where it was largest
    venues: pl.DataFrame  # and each venue

    @property
    def strongest(self) -> float:
        """The largest rho before saturation."""
        return max(self.path["rho"].to_list(), default=0.0)


def saturation(
    pressure: Pressure,
    direction: FloatColumn,
    *,
    furthest: float = FURTHEST,
    step: float = STEP,
    bandwidth: float = BANDWIDTH,
    progress: Callable[[float], None] | None = None,
) -> Saturation:
    """Follow forced sales from no shock to the one at which they carry themselves on.

    `direction` is by asset: a shock of s takes a share s * direction of each price; below 0 it
    raises it.

    Raises
    ------
    StateError
        When the direction moves nothing, or its shocks would leave nothing of a price.
    """
    _require_direction(direction, step, furthest)
    walk = _Walk(pressure, direction, bandwidth)
    further = bandwidth if direction.max() > 0.0 else -bandwidth  # of a rise, thresholds above
    rows, last = [], walk.point(0.0, None)
    strongest: tuple[float, Feedback | None] = (-1.0, None)
    broken: Point | None = None
    for shock in np.arange(0, int(furthest / step + 1e-9) + 1) * step:
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
        jump=None if broken is None else walk.followed(broken).fall - walk.before.fall,
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
) -> float | None:
    """The shock at saturation alone, and nothing of the way there; None where there is none.

    Raises
    ------
    StateError
        As `saturation` does.
    """
    _require_direction(direction, step, furthest)
    walk = _Walk(pressure, direction, bandwidth)
    last = walk.point(0.0, None)
    for shock in np.arange(0, int(furthest / step + 1e-9) + 1) * step:
        here = walk.point(float(shock), last)
        broken = walk.break_between(last, here)
        if broken is not None:
            return broken.shock
        last = walk.followed(here)
    return None


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

    def __init__(self, pressure: Pressure, direction: FloatColumn, bandwidth: float) -> None:
        self.pressure, self.direction, self.bandwidth = pressure, direction, bandwidth
        plan = pressure.plan
        gross = plan.gross_usd * ((plan.insts["kind"] == 0) & (plan.insts["money"] == 0))
        self.weight = gross / max(float(gross.sum()), 1e-300)
        self.nothing = np.zeros(plan.carriers.pools)
        self.before = Point(0.0, 0.0, self.nothing, settled=True)

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
            size, last.volume, lambda prices: abs(self.fall(prices) - last.fall) >= most
        )

    def followed(self, point: Point) -> Point:
        """The same point, followed to where prices rest."""
        return self._at(point.shock, point.volume, None) if point.cut else point

    def fall(self, prices: FloatColumn) -> float:
        """By how much the book's prices have fallen."""
        return float(self.weight @ (1.0 - prices / self.pressure.plan.insts["start"]))

    def _at(
        self,
        size: float,
        start: FloatColumn | None,
        enough: Callable[[FloatColumn], bool] | None,
    ) -> Point:
        shock = self.shock(size)
        rest = self.pressure.rest(shock, start, enough)
        fall = self.fall(self.pressure.prices(shock, rest.volume))
        cut = enough is not None and not rest.settled
        return Point(size, fall, rest.volume, rest.settled, cut)

    def break_between(self, low: Point, high: Point) -> Point | None:
        """The first point past a break of at least a bandwidth; None where prices went on evenly.

        A break is as large in any half that it falls in, a steep stretch is not. What half of the
        shock itself would move is no break: so long stretches need not be halved to tell.
        """
        need = self.bandwidth + 0.5 * abs(self.direct(high.shock) - self.direct(low.shock))
        if high.cut and abs(high.fall - low.fall) < need:
            high = self.followed(high)
        if abs(high.fall - low.fall) < need:
            return None
        if high.shock - low.shock <= EXACT:
            self.before = low
            return high
        middle = self.point(0.5 * (low.shock + high.shock), low)
        found = self.break_between(low, middle)
        return self.break_between(self.followed(middle), high) if found is None else found

    def direct(self, size: float) -> float:
        """By how much the book's prices fall from a shock alone."""
        return self.fall(self.pressure.prices(self.shock(size), self.nothing))


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
