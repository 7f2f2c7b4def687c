"""`--draws`, `--history`, `--correlation`: the law of joint moves, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from undertow.cli.options import UnusableOption
from undertow.cli.stress import Loaded
from undertow.errors import UnreadableFile
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatMatrix
from undertow.state.intake import as_frame
from undertow.stress.assumed import DAYS, assumed_correlation, assumed_vols
from undertow.stress.correlation import Repaired
from undertow.stress.draws import Draws, Gaussian, Given, StudentCopula
from undertow.stress.ground import Ground
from undertow.stress.history import FactorHistory, history_from_panel
from undertow.stress.pricing import PricingMap
from undertow.stress.resample import FilteredHistorical, Historical
from undertow.stress.written import (
    given_correlation,
    given_moves,
    given_prices,
    left_out,
    price_panel,
    require_all,
    strangers,
)

DOF, DECAY, PAST_DAYS = 4.0, 0.94, 365.0
_ELLIPTIC, _RESAMPLED = ("gaussian", "student"), ("historical", "filtered")
_FILES = (".csv", ".parquet", ".npy")
_LAWS = "gaussian, student[:DOF], historical[:BLOCK], filtered[:DECAY]"
_DAY_US = 86_400_000_000
_WILD = 3.0  # log move, a price divided by 20, beyond which a file is likely to be in other units
_MOST_DAYS = 36_500.0
_LEAST = {"historical": 4, "filtered": 24}  # instants of a past that can be drawn from
_SHORT = 0.25  # of the past, beyond which horizons overlap too much to say anything new
_FEW = 8  # names in a note


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of the draws."""

    draws: str = "student"
    history: str | None = None
    correlation: Path | None = None
    days: float | None = None
    fill_missing: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """Draws, and the words for them."""

    draws: Draws
    facts: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """Moves of factors as they were, and where they are from."""

    moves: FactorHistory
    days: float  # from its first instant to its last
    facts: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """What a law is made of, as far as it needs it."""

    past: Past | None = None
    ties: Repaired | None = None  # correlations before any scenario
    given: Given | None = None

    @property
    def correlation(self) -> FloatMatrix | None:
        """Correlations that a scenario's shocks start from; None where the law has its own."""
        return None if self.ties is None else self.ties.matrix


@dataclass(frozen=True, slots=True)
class Law:
    """A law of joint moves by name, its parameter, and the options that it goes with."""

    name: str  # gaussian, student, historical, filtered, or given by a file
    number: float | None
    asked: Asked

    @classmethod
    def of(cls, asked: Asked) -> Law:
        """Read `--draws` and refuse options that do not go with it.

        Raises
        ------
        UnusableOption
            Saying which may be given.
        """
        name, colon, text = asked.draws.partition(":")
        if Path(asked.draws).suffix.lower() in _FILES:
            name, number = "given", None
        elif name in (*_ELLIPTIC, *_RESAMPLED):
            number = _number(asked.draws, text) if colon else None
        else:
            raise UnusableOption(
                f"--draws was {asked.draws!r}",
                hint=f"it may be {_LAWS}, or a {', '.join(_FILES)} file",
            )
        if name == "gaussian" and number is not None:
            raise UnusableOption(
                f"--draws was {asked.draws!r}, and a gaussian has no parameter", hint=f"say {name}"
            )
        if name not in _ELLIPTIC and asked.correlation is not None:
            raise UnusableOption(
                f"--correlation goes with gaussian and student, and --draws was {asked.draws!r}",
                hint="what is drawn from the past or a file has correlations of its own",
            )
        for option, value in (("--history", asked.history), ("--days", asked.days)):
            if name == "given" and value is not None:
                raise UnusableOption(
                    f"{option} was {value!r}, but --draws is a file of moves",
                    hint="its moves are taken as they are, whatever their horizon",
                )
        if asked.days is not None and not 0.0 < asked.days <= 3_650.0:
            raise UnusableOption(
                f"--days was {asked.days:g}", hint="it must be above 0 and at most 3650"
            )
        return cls(name, number, asked)

    @property
    def days(self) -> float:
        """The horizon of the moves."""
        return 1.0 if self.asked.days is None else self.asked.days

    def material(self, book: Loaded) -> Material:
        """Read what the law is made of, before any work is done.

        Raises
        ------
        UnusableOption
            When there is no history.
        UnreadableFile, SchemaError, StateError
            When a file cannot be read, or does not fit the book.
        """
        if self.name == "given":
            return Material(given=self._moves(book.snapshot))
        past = self._past(book)
        return Material(past, self._ties(book.snapshot, past))

    def drawn(self, ground: Ground, made_of: Material) -> Drawn:
        """The draws, on a book that a scenario has happened to.

        Raises
        ------
        UnusableOption
            When the scenario speaks of correlations, and the law has its own.
        StateError
            When a parameter is impossible.
        """
        past, ties = made_of.past, made_of.ties
        if ties is None and ground.stressed.correlation is not None:
            raise UnusableOption(
                "the scenario has a shock to correlations, which draws from the past or a file "
                f"cannot follow (--draws was {self.asked.draws!r})",
                hint="draw by student or gaussian, or leave the shock out",
            )
        if made_of.given is not None:
            return self._given(made_of.given)
        notes = past.notes if past else ()
        facts = {"law": self.name, "days": self.days, **(past.facts if past else {})}
        if ties is not None:
            return self._elliptic(ground, past, ties, facts, notes)
        assert past is not None
        return self._resampled(past, facts, notes)

    def _past(self, book: Loaded) -> Past | None:
        """The history that the law needs, or was given."""
        source = self.asked.history or ("lake" if self.name in _RESAMPLED else None)
        if source is None:
            return None
        pricing = PricingMap.of(book.snapshot)
        universe = pricing.universe
        ignored: list[str] = []
        own = source.partition(":")[0] == "lake"
        if own:
            days = _days_of(source)
            panel = price_panel(book.prices(days), universe)
            where = f"{days:g} days of the book"
        else:
            table = _table(source, (".csv", ".parquet"))
            panel, where = given_prices(table, universe, source=source), source
            ignored = strangers(table, universe)
        if not len(panel.labels) or len(panel) < 3:
            raise UnusableOption(
                f"--draws was {self.asked.draws!r}, and there is no history in {where}: "
                f"{len(panel)} instants of {len(panel.labels)} assets of the book",
                hint="give past prices with --history FILE, or draw by student or gaussian",
            )
        seen = (int(panel.ts[-1]) - int(panel.ts[0])) / _DAY_US
        if own:
            where = f"{seen:.4g} days of the book"  # that there are, not that were asked for
        has = np.isin(np.array(universe.assets), np.array(panel.labels, dtype=object))
        if not self.asked.fill_missing:
            require_all(has, pricing, where, hint="or let them stand still with --fill-missing")
        found = history_from_panel(panel, universe, pricing=pricing)
        self._require_instants(len(found.moves) + 1, where)
        return Past(found, seen, *_of_past(found, where, seen, left_out(has, pricing), ignored))

    def _require_instants(self, whole: int, where: str) -> None:
        """Refuse a past of fewer rows than the law can work with."""
        least = _LEAST.get(self.name, 0)
        if whole < least:
            raise UnusableOption(
                f"--draws was {self.asked.draws!r}, and {where} has {whole} instants with every "
                f"price; it needs at least {least}",
                hint="give a longer history, or draw by student or gaussian",
            )

    def _ties(self, snapshot: Snapshot, past: Past | None) -> Repaired | None:
        if self.name not in _ELLIPTIC:
            return None
        start = past.moves.correlation if past else assumed_correlation(snapshot)
        if self.asked.correlation is None:
            return Repaired(start, 0.0, 0.0)
        name = str(self.asked.correlation)
        return given_correlation(
            _table(name, (".csv",)),
            start,
            PricingMap.of(snapshot),
            fill_missing=self.asked.fill_missing,
            source=name,
        )

    def _elliptic(
        self,
        ground: Ground,
        past: Past | None,
        ties: Repaired,
        facts: dict[str, Any],
        notes: tuple[str, ...],
    ) -> Drawn:
        snapshot, stressed = ground.plan.snapshot, ground.stressed
        yearly = past.moves.yearly_vols if past else assumed_vols(snapshot)
        matrix = ties.matrix if stressed.correlation is None else stressed.correlation
        scale = yearly * math.sqrt(self.days / DAYS)
        draws: Draws
        if self.name == "gaussian":
            draws = Gaussian.of(scale, matrix)
        else:
            dof = DOF if self.number is None else self.number
            facts["dof"] = dof
            draws = StudentCopula.of(scale, matrix, dof=dof)
        given = "history" if past else "assumed"
        facts["volatilities"] = given
        facts["correlations"] = str(self.asked.correlation or given)
        facts["correlations_shocked"] = _differ(matrix, ties.matrix)
        facts["correlations_repaired"] = ties.distance
        return Drawn(draws, facts, (*notes, *filter(None, (ties.words,))))

    def _resampled(self, seen: Past, facts: dict[str, Any], notes: tuple[str, ...]) -> Drawn:
        """Draws of whole steps of the past; a plain one in runs as long as the horizon."""
        past = seen.moves
        steps = round(self.days * _DAY_US / past.step_us)
        if abs(steps * past.step_us - self.days * _DAY_US) > 0.01 * past.step_us or steps < 1:
            raise UnusableOption(
                f"--days was {self.days:g}, and steps of the history are "
                f"{past.step_us / _DAY_US:g} days long",
                hint="give a whole number of steps",
            )
        facts["steps"] = steps
        if self.days > _SHORT * seen.days:
            said = f"moves over {self.days:g} days come out of a past of {seen.days:.4g} days"
            notes = (*notes, f"{said}: draws are much alike, and say little; shorten --days")
        if self.name == "filtered":
            decay = DECAY if self.number is None else self.number
            facts["decay"] = decay
            return Drawn(FilteredHistorical.of(past, decay=decay, horizon=steps), facts, notes)
        block = min(steps, len(past.moves)) if self.number is None else self.number
        if block != int(block):
            raise UnusableOption(
                f"--draws was {self.asked.draws!r}", hint="a block is a whole number of steps"
            )
        facts["block"] = int(block)
        return Drawn(Historical.of(past, horizon=steps, block=int(block)), facts, notes)

    def _moves(self, snapshot: Snapshot) -> Given:
        pricing, name = PricingMap.of(snapshot), self.asked.draws
        table = _moves_of(name, pricing.universe.assets)
        return given_moves(table, pricing, fill_missing=self.asked.fill_missing, source=name)

    def _given(self, draws: Given) -> Drawn:
        name, farthest = self.asked.draws, float(np.abs(draws.moves).max())
        notes = []
        if farthest > _WILD:
            notes.append(
                f"{name} has a move of exp({farthest:.3g}): are these log moves, and no "
                "percentages?"
            )
        return Drawn(draws, {"law": "given", "file": name, "rows": len(draws.moves)}, tuple(notes))


def require_rows(count: int, asked: Asked, given: Given | None) -> None:
    """Refuse more scenarios than a file has: a second look at one says nothing new.

    Raises
    ------
    UnusableOption
        Saying how many there are.
    """
    if given is not None and count > len(given.moves):
        raise UnusableOption(
            f"--monte-carlo was {count:,}, and {asked.draws} holds {len(given.moves):,} scenarios",
            hint="ask for as many at most: bands would take a repeated one for news",
        )


def over(days: float) -> str:
    """A horizon, for a person."""
    return "over a day" if days == 1.0 else f"over {days:g} days"


def in_words(facts: Mapping[str, Any]) -> str:
    """The law of the draws, for a person."""
    if facts["law"] == "given":
        return f"moves as {facts['file']} has them"
    horizon = over(facts["days"])
    if facts["law"] in _RESAMPLED:
        how = (
            f"in runs of {facts['block']}"
            if "block" in facts
            else f"at today's volatility, decay {facts['decay']:g}"
        )
        past = f"{facts['past_steps']:,} steps of {facts['step_hours']:g} h ({facts['history']})"
        return f"moves {horizon} drawn from {past}, {how}"
    law = f"a t copula of {facts['dof']:g} degrees" if "dof" in facts else "a gaussian"
    shocked = ", shocked by the scenario" if facts["correlations_shocked"] else ""
    return f"joint moves {horizon} of {law}: {taken_from(facts)}{shocked}"


def taken_from(facts: Mapping[str, Any]) -> str:
    """Where volatilities and correlations are from, for a person."""
    return f"volatilities {facts['volatilities']}, correlations {facts['correlations']}"


def _of_past(
    found: FactorHistory, where: str, days: float, still: list[str], ignored: list[str]
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    follow = [name for name in found.missing if name not in still]
    facts = {
        "history": where,
        "past_days": days,
        "past_steps": len(found.moves),
        "step_hours": found.step_us / 3.6e9,
        "past_gaps": found.dropped,
        "stands_still": still,
        "only_follows": follow,
        "ignored": ignored,
    }
    notes = []
    if found.dropped:
        notes.append(f"{found.dropped:,} instants of the history lack a price and are left out")
    if still:
        notes.append(f"no history of {_few(still)}: draws leave them where they are")
    if follow:
        notes.append(f"no history of {_few(follow)}: draws let them do what they follow does")
    if ignored:
        notes.append(f"the history of {_few(ignored)} is ignored: no assets of the book")
    return facts, tuple(notes)


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:_FEW])
    return shown if len(names) <= _FEW else f"{shown} and {len(names) - _FEW} more"


def _differ(one: FloatMatrix, other: FloatMatrix) -> bool:
    return bool((one != other).any())


def _days_of(source: str) -> float:
    """Days of `lake:DAYS`."""
    _, colon, text = source.partition(":")
    days = _number(source, text, option="--history") if colon else PAST_DAYS
    if not 0.0 < days <= _MOST_DAYS:
        raise UnusableOption(
            f"--history was {source!r}", hint=f"days are above 0 and at most {_MOST_DAYS:g}"
        )
    return days


def _number(given: str, text: str, *, option: str = "--draws") -> float:
    try:
        return float(text)
    except ValueError:
        raise UnusableOption(
            f"{option} was {given!r}, and {text!r} is no number",
            hint="write it as student:4 or lake:90",
        ) from None


def _table(name: str, endings: tuple[str, ...]) -> pl.DataFrame:
    """A table that a user named; the error says which file, and what is wrong with it."""
    path = Path(name)
    if path.suffix.lower() not in endings:
        raise UnreadableFile("is no table", source=name, hint=f"give a {' or '.join(endings)} file")
    if not path.is_file():
        raise UnreadableFile("there is no such file", source=name)
    return as_frame(path)


def _moves_of(name: str, assets: tuple[str, ...]) -> pl.DataFrame:
    """Moves as a table; a bare matrix has a column for every asset, in the order of the book."""
    path = Path(name)
    if path.suffix.lower() != ".npy":
        return _table(name, _FILES)
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFile(f"not readable as npy: {error}", source=name) from error
    if matrix.ndim != 2 or matrix.shape[1] != len(assets) or matrix.dtype.kind not in "fiu":
        raise UnreadableFile(
            f"holds {' x '.join(map(str, matrix.shape))} of {matrix.dtype}; it must hold numbers, "
            f"a row a scenario and {len(assets)} columns",
            source=name,
            hint=f"in this order: {', '.join(assets)}",
        )
    return pl.DataFrame(matrix.astype(np.float64), schema=list(assets), orient="row")
