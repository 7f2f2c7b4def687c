"""Which channels, and which shocks and failures, a loss is due to: solves with some left out.

A loss is a number of `Contagion.headline()` in USD, `borne_usd` (what parties of the claims and
those whom no claim names lost), or the name of a party: then what that party and the unnamed
creditors of it lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow.econometrics.shapley import Members, Shares, shares
from undertow.errors import StateError
from undertow.measures.interconnection.web import Web
from undertow.measures.words import common_fall
from undertow.state import FloatColumn
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.contagion import Assumptions, Channels, Contagion
from undertow.stress.contagion.stakes import POOL, TOKEN
from undertow.stress.options import Impact
from undertow.stress.scenario import Scenario, kind_of
from undertow.stress.shock import MARKET, Price, Shock, near
from undertow.stress.stressed import Stressed

Progress = Callable[[int, int], None]  # told how many solves are done, of how many
BORNE = "borne_usd"
LARGEST = 8  # origins that are looked at one by one; more are put together
_BEARERS = ("party", "unnamed")


@dataclass(frozen=True, eq=False)
class Case:
    """One scenario on one book, to be solved with this or that left out."""

    web: Web
    scenario: Scenario
    failed: tuple[str | Shock, ...]
    channels: Channels
    assumed: Assumptions
    told: Callable[[], None] | None = None  # of every solve

    @classmethod
    def of(
        cls, web: Web, *, fall: float, scenario: Scenario | None, failed: Sequence[str | Shock],
        channels: Channels | None, assumed: Assumptions | None,
    ) -> Case:  # fmt: skip
        """The case of a scenario, or of a common fall of everything but money."""
        if scenario is None:
            shocks = (Price(asset=MARKET, move=-fall),) if fall != 0.0 else ()
            scenario = Scenario(name=common_fall(fall), shocks=shocks)
        if not isinstance(scenario, Scenario):
            raise StateError(
                f"scenario was of type {type(scenario).__name__}; it must be a Scenario",
                hint="load_scenario and read_scenario make one",
            )
        return cls(web, scenario, tuple(failed), channels or Channels(), assumed or Assumptions())

    def solve(
        self,
        channels: Channels | None = None,
        *,
        scenario: Scenario | None = None,
        failed: tuple[str | Shock, ...] | None = None,
        assumed: Assumptions | None = None,
        **knobs: Any,
    ) -> Contagion:
        """The outcome, with something else in place of what the case says where it is given."""
        if self.told is not None:
            self.told()
        return self.web.solver.solve(
            self.scenario if scenario is None else scenario,
            channels=self.channels if channels is None else channels,
            failed=self.failed if failed is None else failed,
            assumed=assumed or self.assumed,
            **knobs,
        )

    @cached_property
    def found(self) -> Contagion:
        """The outcome with all channels of the case."""
        return self.solve()

    @cached_property
    def idle(self) -> frozenset[str]:
        """Channels that have nothing to work on in this book, whatever else is on."""
        found, sheet = self.found, self.found.settlement.sheet
        universe, plan = sheet.snapshot.universe, found.cascade.plan
        named = {name.partition(":")[2] for name in sheet.names}
        keepers = ({*universe.custodian, *universe.issuer} - {""}) & named
        on_pools = bool((sheet.sort[sheet.debtor] == POOL).any())
        supplied = sheet.snapshot.liquidity.supplied[sheet.pool_of != NONE]
        fed = bool((sheet.snapshot.oracles.feed != NONE).any())
        nothing = {
            "dependence": not self.failed and not keepers and not fed,
            "fire_sales": found.cascade.options.impact is Impact.NONE,
            "receipts": not len(plan.deposits) and not on_pools,
            "backing": not bool((sheet.sort == TOKEN).any()),
            "funding": not bool((supplied > 0.0).any()),
        }
        return frozenset(name for name, idle in nothing.items() if idle)

    def by_channel(self, target: str, *, most: int, rng: np.random.Generator) -> Shares:
        """The loss divided among the channels that are on in this case.

        Raises
        ------
        StateError
            When none is on, or prices leave all bounds with some of them.
        """
        players = self.channels.on
        if not players:
            raise StateError("no channel is on, so there is nothing to divide among channels")

        def value(members: Members) -> float:
            on = Channels.only(*(players[k] for k in members))
            return loss_of(self.solve(on, check=False, trace=False), target)

        idle = [k for k, name in enumerate(players) if name in self.idle]
        return shares(len(players), value, idle=idle, most=most, rng=rng)

    @cached_property
    def split(self) -> tuple[list[int], list[int]]:
        """Places of shocks that move prices of assets alone, and of those that do more."""
        return _split(self)

    @cached_property
    def origins(self) -> tuple[Origin, ...]:
        """Everything that the loss could come from, the weightiest first."""
        return _origins(self)

    def by_origin(
        self, target: str, *, most: int, rng: np.random.Generator
    ) -> tuple[tuple[Origin, ...], Shares]:
        """The loss beyond that of nothing at all divided among its origins, and those.

        Where prices leave all bounds in some set of them, moves of prices are put together as one.

        Raises
        ------
        StateError
            When nothing happens, or prices leave all bounds even so.
        """
        origins = self.origins
        if not origins:
            raise StateError("nothing happens in this scenario, so no loss has an origin")
        moved = [each for each in origins if each.assets]
        try:
            return origins, self._among(origins, target, most, rng)
        except StateError:
            if len(moved) < 2:
                raise
        assets = frozenset[str]().union(*(each.assets for each in moved))
        whole = Origin(f"{len(assets)} prices", assets=assets)
        origins = (*(each for each in origins if not each.assets), whole)
        return origins, self._among(origins, target, most, rng)

    def _among(
        self, origins: Sequence[Origin], target: str, most: int, rng: np.random.Generator
    ) -> Shares:
        def value(members: Members) -> float:
            if len(members) == len(origins):
                return loss_of(self.found, target)
            there = [origins[k] for k in sorted(members)]
            failed = tuple(f for each in there for f in each.failed)
            scenario = _part(self, there)
            found = self.solve(scenario=scenario, failed=failed, check=False, trace=False)
            return loss_of(found, target)

        return shares(len(origins), value, most=most, rng=rng)


class Origin(NamedTuple):
    """Something that happens: assets whose own factor moves, shocks of other kinds, failures."""

    name: str
    assets: frozenset[str] = frozenset()
    shocks: frozenset[int] = frozenset()  # places in the scenario
    failed: tuple[str | Shock, ...] = ()


@dataclass(frozen=True, eq=False)
class Divided:
    """A loss divided among channels and among origins, and why where it could not be."""

    by_channel: Shares | None
    by_origin: Shares | None
    origins: tuple[Origin, ...]
    why: Mapping[str, str]

    @classmethod
    def of(
        cls, case: Case, target: str, most: int, rng: np.random.Generator,
        progress: Progress | None = None,
    ) -> Divided:  # fmt: skip
        """Divide the loss of a case both ways; `progress` is told of every solve."""
        loss_of(case.found, target)  # what is no target is refused here
        if progress is not None:
            case = replace(case, told=_Counted(case, most, progress))
        by_channel = by_origin = None
        origins: tuple[Origin, ...] = ()
        why: dict[str, str] = {}
        try:
            by_channel = case.by_channel(target, most=most, rng=rng)
        except StateError as error:
            why["channels"] = error.message
        try:
            origins, by_origin = case.by_origin(target, most=most, rng=rng)
        except StateError as error:
            why["origins"] = error.message
        return cls(by_channel, by_origin, origins, why)


class _Counted:
    """Counts solves, against as many as two divisions take at most."""

    def __init__(self, case: Case, most: int, progress: Progress) -> None:
        players = len(case.channels.on), len(case.origins)
        self.whole = sum(min(2**count, most) for count in players) + 1
        self.done, self.progress = 0, progress

    def __call__(self) -> None:
        """One more."""
        self.done += 1
        self.progress(min(self.done, self.whole), self.whole)


def loss_of(found: Contagion, target: str) -> float:
    """One loss of an outcome in USD; see the module for what it may be.

    Raises
    ------
    StateError
        When it is neither a number of the headline, nor a party.
    """
    if target == BORNE:
        done = found.settlement
        return float(done.borne.sum() + np.maximum(done.unnamed_loss, 0.0).sum())
    sheet = found.settlement.sheet
    if target in sheet.names:
        mine = pl.col("kind").is_in(_BEARERS) & (pl.col("party") == target)
        return 0.0 - float(found.realised().filter(mine)["usd"].sum())
    head = found.headline()
    if not target.endswith("_usd") or target not in head:
        known = [BORNE, *(name for name in head if name.endswith("_usd")), *sheet.names]
        raise StateError(
            f"target was {target!r}; it may be {BORNE}, a headline number in USD, or a party",
            hint=near(target, tuple(known)),
        )
    return float(head[target])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Only(Shock):
    """A shock to prices that reaches the factors of some assets alone."""

    of: Shock
    assets: frozenset[str]

    def apply(self, stressed: Stressed) -> Stressed:
        """Apply the whole shock, and keep what it does to these factors."""
        after = self.of.apply(stressed)
        here = np.array([name in self.assets for name in stressed.universe.assets], dtype=np.bool_)
        return replace(after, factor=frozen(np.where(here, after.factor, stressed.factor)))


def _moves_factors_alone(each: Shock, calm: Stressed) -> bool:
    """Whether prices of assets are all that a shock changes."""
    after = each.apply(calm)
    same = after.snapshot is calm.snapshot and after.correlation is calm.correlation
    return same and all(
        np.array_equal(getattr(after, f.name), getattr(calm, f.name))
        for f in fields(Stressed)
        if f.name not in ("snapshot", "factor", "correlation", "notes")
    )


def _split(case: Case) -> tuple[list[int], list[int]]:
    """Places of shocks that move factors alone, and of others; those left out are in neither."""
    calm = Stressed.calm(case.web.snapshot)
    prices: list[int] = []
    others: list[int] = []
    for place, each in enumerate(case.scenario.shocks):
        try:
            moves = _moves_factors_alone(each, calm)
        except StateError:
            if each.optional:
                continue
            raise
        (prices if moves else others).append(place)
    return prices, others


def _origins(case: Case) -> tuple[Origin, ...]:
    prices, others = case.split
    scenario = replace(case.scenario, shocks=tuple(case.scenario.shocks[k] for k in prices))
    factor = scenario.apply(case.web.snapshot).factor
    names = case.web.snapshot.universe.assets
    weight = _weights(case, factor)
    order = [int(k) for k in np.lexsort((np.arange(len(names)), -weight)) if factor[k] != 0.0]
    fixed = [Origin(_called(case.scenario.shocks[k]), shocks=frozenset({k})) for k in others]
    fixed += [Origin(_failure(each), failed=(each,)) for each in case.failed]
    room = max(LARGEST - len(fixed), 2)
    alone = order if len(order) <= room else order[: room - 1]
    rest = order[len(alone) :]
    moved = [
        Origin(f"{names[k]} {np.expm1(factor[k]):+.0%}", assets=frozenset({names[k]}))
        for k in alone
    ]
    if rest:
        moved.append(Origin(f"{len(rest)} more assets", assets=frozenset(names[k] for k in rest)))
    return (*fixed, *moved)


def _weights(case: Case, factor: FloatColumn) -> FloatColumn:
    """[A] What of the book moves with each factor, by its size: the order of origins."""
    plan, universe = case.web.crowd.plan, case.web.snapshot.universe
    asset = universe.asset_of
    gross = np.bincount(asset, plan.gross_usd, len(factor))
    tied = np.flatnonzero(universe.reference != NONE)
    below = np.bincount(universe.root[tied], gross[tied], len(factor))
    return np.array((gross + below) * np.abs(np.expm1(factor)), dtype=np.float64)


def _called(each: Shock) -> str:
    """A shock in a few words: its kind, and of what."""
    named = [str(getattr(each, word)) for word in ("name", "asset", "venue", "instrument", "feed")
             if getattr(each, word, "")]  # fmt: skip
    return " ".join([_kind(each).replace("_", " "), *named])


def _failure(each: str | Shock) -> str:
    return each if isinstance(each, str) else _called(each)


def _kind(each: Shock) -> str:
    try:
        return kind_of(each)
    except StopIteration:  # one that has no name in files
        return type(each).__name__


def _part(case: Case, there: Sequence[Origin]) -> Scenario:
    """The scenario with these origins alone; shocks stay in their order."""
    assets = frozenset[str]().union(*(each.assets for each in there))
    kept = frozenset[int]().union(*(each.shocks for each in there))
    prices = case.split[0] if assets else []
    shocks: list[Shock] = []
    for place, each in enumerate(case.scenario.shocks):
        if place in kept:
            shocks.append(each)
        elif place in prices:
            shocks.append(_Only(of=each, assets=assets, optional=each.optional))
    return replace(case.scenario, shocks=tuple(shocks))
