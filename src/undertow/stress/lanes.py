"""Room for many scenarios at once, and the bounds that tell who cannot be called."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from undertow.kernels import accounts, atrisk, cascade, rounds, screening, sweep
from undertow.kernels.closing import BANDS
from undertow.kernels.margin import LINEAR
from undertow.state import AnyColumn, BoolColumn, CodeColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.plan import Plan, records

_FLOAT = np.float32


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower bounds of health for every account of a plan, drawn once."""

    lines: screening.Lines
    graded: CodeColumn  # instruments of venues that margin portfolios
    assets: CodeColumn  # their underlyings
    start: int = 0  # the first account that `lines` are of

    @classmethod
    def of(
        cls,
        plan: Plan,
        trigger: float = 1.0,
        *,
        hold: accounts.Holdings | None = None,
        vol: FloatColumn | None = None,
    ) -> Bounds:
        """Draw the lines and ladders of a plan, or of what a scenario made of its holdings.

        `trigger` is the health below which somebody acts. Where `vol` is not that of the plan,
        portfolio groups have no bound: they are always looked at.
        """
        hold = hold or plan.hold
        held, legs = hold.accounts, hold.legs
        level, slope = np.empty(len(held)), np.empty(len(legs))
        screening.draw_lines(hold, plan.insts, plan.brackets, trigger, level, slope)
        groups, rungs, first_leg = _rungs(plan, hold)
        groups["cash"] = level[groups["account"]]
        ladder = np.full((len(rungs), 2, screening.NODES - 1), -np.inf, dtype=_FLOAT)
        options = plan.grids.options
        as_planned = vol is None or (vol[options] == plan.insts["vol"][options]).all()
        if len(groups) and as_planned:
            screening.draw_ladders(
                groups, rungs, first_leg, trigger, hold, plan.insts, plan.grids, ladder
            )
        level[groups["account"]] = np.inf
        banded = plan.closing["mechanism"][held["venue"]] == BANDS
        level[banded] = -np.inf  # always looked at
        graded_venue = np.unique(held["venue"][groups["account"]])
        graded = np.flatnonzero(np.isin(plan.insts["venue"], graded_venue)).astype(np.int32)
        order = np.argsort(legs["inst"], kind="stable")
        account_of = np.repeat(np.arange(len(held), dtype=np.int32), held["last"] - held["first"])
        held_from = np.searchsorted(legs["inst"][order], np.arange(len(plan.insts) + 1))
        return cls(
            lines=screening.Lines(
                first=np.append(held["first"], len(legs)).astype(np.int64),
                level=level.astype(_FLOAT),
                slope=slope.astype(_FLOAT),
                inst=np.ascontiguousarray(legs["inst"]),
                groups=groups,
                rungs=rungs,
                ladder=ladder,
                held_from=held_from,
                holder=account_of[order],
            ),
            graded=graded,
            assets=np.unique(plan.insts["asset"][graded]).astype(np.int32),
        )

    def part(self, first: int, last: int) -> Bounds:
        """The bounds of the accounts from `first` up to `last`."""
        lines, groups = self.lines, self.lines.groups
        groups = groups[(groups["account"] >= first) & (groups["account"] < last)]
        groups["account"] -= first  # a copy: rows of the part
        lines = lines._replace(
            first=lines.first[first : last + 1], level=lines.level[first:last], groups=groups
        )
        return replace(self, lines=lines, start=first)

    def holders(self, inst: int) -> KeyColumn:
        """Rows of the part that hold an instrument."""
        lines = self.lines
        found = lines.holder[lines.held_from[inst] : lines.held_from[inst + 1]]
        ends = np.searchsorted(found, (self.start, self.start + len(lines.level)))
        return found[ends[0] : ends[1]].astype(np.int64) - self.start

    def groups(self) -> Bounds:
        """The bounds of portfolio groups alone."""
        nobody = np.full_like(self.lines.level, np.inf)
        return replace(self, lines=self.lines._replace(level=nobody))

    def box(self, moves: FloatMatrix) -> atrisk.Box:
        """Many points, to be held against the lines of plain accounts."""
        low, high = (moves - 1e-6).astype(_FLOAT), (moves + 1e-6).astype(_FLOAT)
        lowest, highest = low.min(axis=1, initial=np.inf), high.max(axis=1, initial=-np.inf)
        return atrisk.Box(moves, low, high, lowest, highest, _covered(low, high))

    def could_be_called(
        self, insts: AnyColumn, low: FloatMatrix, high: FloatMatrix
    ) -> list[KeyColumn]:
        """By lane, the accounts that could be called in a box of moves (instruments, lanes).

        Everybody, where a box reaches further than the bounds hold.
        """
        lanes, accounts = low.shape[1], len(self.lines.level)
        gaps, apart = self._gaps(insts, low, high)
        listed = np.empty((lanes, accounts), dtype=np.int32)
        found, plain = np.zeros(lanes, dtype=np.int64), np.zeros(lanes, dtype=np.int64)
        screening.screen(
            self.lines, (low - 1e-6).astype(_FLOAT), (high + 1e-6).astype(_FLOAT), gaps[0], gaps[1],
            apart, listed, found, plain,
        )  # fmt: skip
        covered = _covered(low, high)
        near = []
        for lane in range(lanes):
            some = listed[lane, : found[lane]].astype(np.int64) + self.start
            near.append(some if covered[lane] else self._everybody())
        return near

    def _everybody(self) -> KeyColumn:
        """All accounts of the part that these bounds are of."""
        plain = np.flatnonzero(self.lines.level != np.inf)
        return np.sort(np.append(plain, self.lines.groups["account"])) + self.start

    def could_be_called_of(
        self, rows: KeyColumn, insts: AnyColumn, low: FloatMatrix, high: FloatMatrix
    ) -> KeyColumn:
        """Of some rows, the accounts that could be called in a single box of moves."""
        if not _covered(low, high)[0]:
            return rows + self.start
        gaps, apart = self._gaps(insts, low, high)
        listed = np.empty(len(rows), dtype=np.int64)
        count = screening.screen_some(
            rows, self.lines, (low - 1e-6).astype(_FLOAT), (high + 1e-6).astype(_FLOAT), gaps[0],
            gaps[1], apart, listed,
        )  # fmt: skip
        return listed[:count] + self.start

    def _gaps(
        self, insts: AnyColumn, low: FloatMatrix, high: FloatMatrix
    ) -> tuple[AnyColumn, AnyColumn]:
        """Gaps of the ladders that boxes fall in, and how much instruments of an asset differ."""
        assets = int(insts["asset"].max(initial=-1)) + 1
        gaps = np.zeros((2, assets, low.shape[1]), dtype=np.int16)
        apart = np.zeros((assets, low.shape[1]), dtype=_FLOAT)
        for asset in self.assets:
            k = self.graded[insts["asset"][self.graded] == asset]
            ends = np.stack([low[k].min(axis=0), high[k].max(axis=0)])
            node = (ends - screening.LEAST) * (screening.NODES - 1)
            gap = np.floor(node / (screening.MOST - screening.LEAST))
            gaps[:, asset] = np.clip(gap, 0, screening.NODES - 2)
            apart[asset] = np.maximum(np.ptp(low[k], axis=0), np.ptp(high[k], axis=0)) + 1e-6
        return gaps, apart


def _covered(low: AnyColumn, high: AnyColumn) -> BoolColumn:
    """By lane, whether the lines below health hold as far out as its box reaches."""
    inside: BoolColumn = np.all((high < screening.MOST) & (low > screening.LEAST), axis=0)
    return inside


def _rungs(plan: Plan, hold: accounts.Holdings) -> tuple[AnyColumn, AnyColumn, AnyColumn]:
    """Portfolio groups, their underlyings, and the first leg on each."""
    held, legs = hold.accounts, hold.legs
    inside = np.flatnonzero(held["grid"] >= 0)
    first = held["first"][inside]
    counts = held["last"][inside] - first
    owner = np.repeat(np.arange(len(inside)), counts)
    leg = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts) + np.arange(counts.sum())
    derivative = legs["role"][leg] >= LINEAR
    owner, leg = owner[derivative], leg[derivative]
    asset = plan.insts["asset"][legs["inst"][leg]].astype(np.int64)
    order = np.lexsort((leg, asset, owner))
    owner, leg, asset = owner[order], leg[order], asset[order]
    head = np.ones(len(owner), dtype=np.bool_)
    head[1:] = (owner[1:] != owner[:-1]) | (asset[1:] != asset[:-1])
    owner, leg, asset = owner[head], leg[head], asset[head]
    start = np.searchsorted(owner, np.arange(len(inside) + 1))
    groups = records(screening.GROUP, account=inside, first=start[:-1], last=start[1:])
    rungs = records(screening.RUNG, asset=asset)
    return groups, rungs, leg.astype(np.int64)


def room_of(
    plan: Plan, case: cascade.Case, lanes: int, limit: int, *, path: bool = False
) -> sweep.Room:
    """Room for `lanes` scenarios side by side; most of it is only touched where it is needed."""
    held, legs, count = len(plan.hold.accounts), len(plan.hold.legs), len(plan.insts)
    ring = int(case.venues["delay"].max(initial=0)) + 1
    past = int(case.insts["lag"].max(initial=0)) + 1
    pools, assets = plan.carriers.pools, len(plan.snapshot.universe.assets)
    venues, owners = len(plan.per_demand), len(plan.owner_start) - 1
    n = lanes

    def rows(dtype: np.dtype[np.void], *shape: int) -> AnyColumn:
        return np.zeros(shape, dtype=dtype).view(np.recarray)

    return sweep.Room(
        now=rows(accounts.NOW, n, count),
        history=np.zeros((n, past, count)),
        pool=np.zeros((n, 4, pools)),
        receipt=np.ones((n, assets)),
        pending=np.zeros((n, ring, count), dtype=np.int64),
        travelled=np.zeros((n, assets + 1)),
        farthest=np.zeros((n, assets + 1)),
        trail=np.zeros((n, limit + 1, count)),
        dirty=np.ones((n, pools + 1), dtype=np.int8),
        loss=np.zeros((n, count, int(plan.grids.start[-1]))),
        stamp=np.zeros((n, 2), dtype=np.int64),
        slot=np.full((n, held), -1, dtype=np.int32),
        rows=np.empty((n, held), dtype=accounts.TOUCH).view(np.recarray),
        rest=np.empty((n, legs)),
        used=np.zeros((n, 2), dtype=np.int64),
        counts=np.zeros((n, cascade.KINDS, count), dtype=np.int64),
        later=np.zeros((n, ring, count), dtype=np.int64),
        demand=np.zeros((n, venues), dtype=np.int64),
        watch=np.empty((n, 2 * held), dtype=np.int32),
        root=np.empty((n, 2 * held), dtype=np.int32),
        watched=np.zeros((n, 1), dtype=np.int64),
        keys=np.empty((n, 2 * held)),
        reach=np.empty((n, 2 * held)),
        looked=np.empty((n, 2 * held), dtype=np.int32),
        due=np.empty((n, held), dtype=np.int32),
        free=np.zeros((n, owners)),
        shared=rows(rounds.SHARED, n, count),
        funds=rows(rounds.FUND, n, venues),
        totals=np.zeros((n, cascade.KINDS, count), dtype=np.int64),
        ledger=np.zeros((n, limit, rounds.PARTIES)),
        path=np.zeros((n, limit if path else 0, count)),
        acted=np.zeros((n, limit), dtype=np.int64),
        kept_at=np.zeros((n, len(case.keepers))),
    )


def boxes_of(plan: Plan, bounds: Bounds, lanes: int) -> sweep.Boxes:
    """Boxes of moves for `lanes` scenarios."""
    held, count, assets = (
        len(plan.hold.accounts),
        len(plan.insts),
        len(plan.snapshot.universe.assets),
    )
    return sweep.Boxes(
        low=np.zeros((count, lanes), dtype=_FLOAT),
        high=np.zeros((count, lanes), dtype=_FLOAT),
        gap_low=np.zeros((assets, lanes), dtype=np.int16),
        gap_high=np.zeros((assets, lanes), dtype=np.int16),
        apart=np.zeros((assets, lanes), dtype=_FLOAT),
        listed=np.empty((lanes, held), dtype=np.int32),
        found=np.zeros(lanes, dtype=np.int64),
        plain=np.zeros(lanes, dtype=np.int64),
        member=np.zeros((lanes, held), dtype=np.uint8),
        start=np.zeros((lanes, count)),
        graded=bounds.graded,
        assets=bounds.assets,
        of_grid=np.isin(np.arange(count), bounds.graded).astype(np.uint8),
    )
