"""Shocks in order, with a name, the facts they rest on, and how the cascade runs.

A scenario is a value; `read_scenario` makes one from a short TOML text, and `load_scenario` takes
one of the packaged replays of dated events by its name. A replay holds what is known of the event,
with sources, and says what is approximate; its shocks are optional, so that it runs on any
snapshot, and the notes of the result say what was left out.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from importlib.resources import files
from typing import Any, TypeVar

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatMatrix, Universe
from undertow.state.universe import NONE
from undertow.stress import damage, failures, outages, shock
from undertow.stress.options import Options
from undertow.stress.shock import Shock
from undertow.stress.stressed import Stressed

T = TypeVar("T")

# What a shock is called in a file.
KINDS: Mapping[str, type[Shock]] = {
    "price": shock.Price,
    "price_beta": shock.PriceBeta,
    "peg": shock.Peg,
    "basis": shock.Basis,
    "correlation": shock.Correlation,
    "volatility": shock.Volatility,
    "depth": shock.Depth,
    "rate": shock.Rate,
    "funding": shock.Funding,
    "outage": outages.Outage,
    "capacity": outages.Capacity,
    "fund": outages.Fund,
    "oracle_lag": outages.OracleLag,
    "oracle_freeze": outages.OracleFreeze,
    "oracle_manipulation": outages.OracleManipulation,
    "withdrawal_run": shock.WithdrawalRun,
    "counterfeit": damage.Counterfeit,
    "parameter_error": damage.ParameterError,
    "issuer_failure": failures.IssuerFailure,
    "custodian_failure": failures.CustodianFailure,
    "bridge_failure": failures.BridgeFailure,
    "exploit": failures.Exploit,
}


# How the fields of shocks grow with the size of a scenario: moves and levels in logs, amounts in
# proportion, shares up to the whole. What is not here (a frozen oracle, a parameter) is or is not.
_SCALED: Mapping[str, Callable[[float, float], float]] = {
    "move": lambda value, size: math.expm1(size * math.log1p(value)),
    **dict.fromkeys(("level", "multiplier", "factor"), lambda value, size: value**size),
    **dict.fromkeys(("shift", "per_hour", "hours", "qty", "usd"), lambda value, size: value * size),
    **dict.fromkeys(("share", "weight"), lambda value, size: min(value * size, 1.0)),
    "recovery": lambda value, size: max(1.0 - size * (1.0 - value), 0.0),
}

_HIGHEST = 10.0  # times its par, or its price: where nothing that has a peg ever stood
_SHOWN = 12  # names in a hint


class Certainty(Enum):
    """How far a fact may be relied on."""

    CITED = "cited"  # the source gives the figure
    APPROXIMATE = "approximate"  # sources differ, or give a round figure
    RECALLED = "recalled"  # general knowledge: check it before building on it
    ASSUMED = "assumed"  # nobody published it; a figure of a plausible size


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that is known of an event, and from where."""

    what: str
    source: str
    certainty: Certainty


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens, in order, and what the cascade that follows may do."""

    name: str
    title: str = ""
    date: dt.date | None = None
    facts: tuple[Fact, ...] = ()
    shocks: tuple[Shock, ...] = ()
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Refuse a nameless scenario, and a dated one without facts."""
        if not self.name.strip():
            raise StateError("a scenario needs a name")
        if self.date is not None and not self.facts:
            raise StateError(
                f"the scenario {self.name!r} has a date but no facts",
                hint="say what is known of that day, and from where",
            )

    def __repr__(self) -> str:
        return f"Scenario({self.name}, {len(self.shocks)} shocks)"

    @property
    def round_us(self) -> int:
        """How long a round of the cascade lasts."""
        return self.options.round_us

    @property
    def max_rounds(self) -> int:
        """After how many rounds the cascade is left as it is."""
        return self.options.max_rounds

    def scaled(self, size: float) -> Scenario:
        """The same scenario so many times as large: 0 is calm, 1 is itself.

        Moves, pegs, depth and other multipliers scale in logs (a fall to 0.8 at size 2 is one to
        0.64), amounts, rates and spans in proportion, shares up to the whole. A frozen oracle and a
        wrong parameter are as they are at any size above 0.

        Raises
        ------
        StateError
            When the size is negative or no number, or a shock of that size is impossible.
        """
        if not (math.isfinite(size) and size >= 0.0):
            raise StateError(f"size was {size}; it must be 0 or more")
        if size == 1.0:
            return self
        shocks = tuple(_scaled(each, size) for each in self.shocks) if size > 0.0 else ()
        return replace(self, name=f"{self.name} x {size:g}", shocks=shocks)

    def apply(self, snapshot: Snapshot, *, correlation: FloatMatrix | None = None) -> Stressed:
        """The snapshot with every shock on it, in order.

        Optional shocks that the snapshot has no names for are left out and noted. `correlation` is
        what joint draws would take without this scenario; those that are assumed, if not given.

        Raises
        ------
        StateError
            Naming everything that shocks that are not optional speak of in vain; or that the level,
            or the move, of what has a peg can only be meant in percent.
        """
        stressed, missing = Stressed.calm(snapshot, correlation=correlation), []
        for each in self.shocks:
            _require_fractions(each, snapshot.universe, f"scenario {self.name}")
            try:
                stressed = each.apply(stressed)
            except StateError as exc:
                meant = _meant(each, snapshot.universe)
                if each.optional:
                    words = f"left out: {kind_of(each)}: {exc.message}"
                    stressed = stressed.noted(words + (f"; {meant}" if meant else ""))
                else:
                    missing.append((kind_of(each), exc, meant or exc.hint))
        if missing:
            _, first, hint = missing[0]
            raise StateError(
                "; ".join(f"{kind}: {exc.message}" for kind, exc, _ in missing),
                source=f"scenario {self.name}",
                hint=hint or "say optional = true for what a snapshot may lack",
            ) from first
        return stressed


def _scaled(each: Shock, size: float) -> Shock:
    """A shock so many times as large; a rate grows, not the time that it lasts."""
    names = {field.name for field in fields(each)} & set(_SCALED)
    if "per_hour" in names:
        names.remove("hours")
    grown: dict[str, Any] = {name: _SCALED[name](getattr(each, name), size) for name in names}
    return replace(each, **grown)


def _require_fractions(each: Shock, universe: Universe, source: str) -> None:
    """Refuse 92 for 92 %: nothing that is tied or stable ever stood at ten times its par or price.

    Other assets did rise as far, so they may.
    """
    if isinstance(each, shock.Peg):
        key, value, times = "level", each.level, each.level
    elif isinstance(each, shock.Price):
        key, value, times = "move", each.move, 1.0 + each.move
    else:
        return
    pegged = universe.stable | (universe.reference != NONE)
    if times <= _HIGHEST or each.asset not in universe.assets:
        return
    if pegged[universe.code("asset", each.asset)]:
        raise StateError(
            f"{kind_of(each)}: {key} was {value:g}; {value / 100.0:g} is {value:g} %",
            source=source,
            hint=f"a {key} is a fraction, and {each.asset}, which has a peg, may stand at "
            f"{_HIGHEST:g} times as much at most",
        )


def _meant(each: Shock, universe: Universe) -> str | None:
    """The name that was meant, where a shock says one in other letters than the universe does."""
    owed, betas = getattr(each, "borrow", ""), getattr(each, "betas", ())
    named = [(name, universe.assets) for name in (owed, *betas)]
    places = ("asset", "venue", "instrument")
    named += [(getattr(each, what, ""), getattr(universe, f"{what}s")) for what in places]
    for name, known in named:
        if name not in known and _same_letters(name, known):
            return suggested(name, known)
    return None


def kind_of(each: Shock) -> str:
    """What a shock is called in a file."""
    return next(kind for kind, made in KINDS.items() if made is type(each))


def scenario_names() -> tuple[str, ...]:
    """Every packaged replay, the oldest first."""
    folder = files("undertow.stress") / "library"
    return tuple(
        sorted(entry.name[: -len(".toml")] for entry in folder.iterdir()
               if entry.name.endswith(".toml"))
    )  # fmt: skip


def load_scenario(name: str) -> Scenario:
    """A packaged replay by its name.

    Raises
    ------
    StateError
        When there is none of that name.
    """
    names = scenario_names()
    if name not in names:
        raise StateError(
            f"no scenario is called {name!r}",
            hint=f"{suggested(name, names)} (`undertow stress list` says what each is)",
        )
    text = (files("undertow.stress") / "library" / f"{name}.toml").read_text(encoding="utf-8")
    return read_scenario(text, source=f"{name}.toml")


def read_scenario(text: str, *, source: str = "scenario") -> Scenario:
    """A scenario from its TOML.

    Tables `[[fact]]` and `[[shock]]` stand in order; a shock says its `kind`, and the rest of its
    keys are the fields of that shock; `[options]` and `[options.responses]` are those of `Options`.

    Raises
    ------
    StateError
        Not TOML, an unknown or missing key, a value of the wrong type or outside its range.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise StateError(f"not valid TOML: {exc}", source=source) from exc
    if not data:
        raise StateError(
            "empty: it says nothing",
            source=source,
            hint='a scenario has a name = "..." and its shocks, each under [[shock]]',
        )
    head = {"name", "title", "date"}
    _only(data, head | {"fact", "shock", "options"}, source)
    facts = tuple(
        _built(Fact, table, f"{source}, fact {n}")
        for n, table in enumerate(_tables(data, "fact", source), 1)
    )
    shocks = tuple(
        _shock(table, f"{source}, shock {n}")
        for n, table in enumerate(_tables(data, "shock", source), 1)
    )
    options = _built(Options, _table(data, "options", source), f"{source}, options")
    known = {key: data[key] for key in head if key in data}
    return _built(Scenario, known, source, facts=facts, shocks=shocks, options=options)


def _shock(table: Mapping[str, Any], source: str) -> Shock:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise StateError(f"kind was {kind!r}", source=source, hint=suggested(str(kind), KINDS))
    return _built(KINDS[kind], {k: v for k, v in table.items() if k != "kind"}, source)


def _tables(data: Mapping[str, Any], key: str, source: str) -> list[Mapping[str, Any]]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise StateError(f"{key} was {found!r}; it may be tables [[{key}]]", source=source)
    return found


def _table(data: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise StateError(f"{key} was {found!r}; it may be a table [{key}]", source=source)
    return found


def _only(table: Mapping[str, Any], known: set[str], source: str) -> None:
    for key in table:
        if key not in known:
            raise StateError(
                f"unknown key {key}", source=source, hint=suggested(key, sorted(known))
            )


def _built(kind: type[T], table: Mapping[str, Any], source: str, **given: Any) -> T:
    """A dataclass from a TOML table: every key known, every value of its field's type."""
    hints = typing.get_type_hints(kind)
    names = [each for each in fields(kind) if each.name not in given]  # type: ignore[arg-type]
    _only(table, {each.name for each in names}, source)
    values: dict[str, Any] = dict(given)
    for each in names:
        if each.name in table:
            values[each.name] = _typed(hints[each.name], table[each.name], each.name, source)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise StateError(f"the key {each.name} is missing", source=source)
    try:
        return kind(**values)
    except StateError as exc:
        raise StateError(exc.message, source=source, hint=exc.hint) from exc


def _typed(hint: Any, value: Any, key: str, source: str) -> Any:
    """`value` as its field's type says, or an error that says what it may be."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        choices = [each for each in typing.get_args(hint) if each is not types.NoneType]
        fits = [each for each in choices if _shape_fits(each, value)]
        if fits:
            return _typed(fits[0], value, key, source)
    elif typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(typing.get_args(hint)[0], item, key, source) for item in value)
    elif typing.get_origin(hint) is not None and isinstance(value, dict):
        return {k: _typed(typing.get_args(hint)[1], v, f"{key}.{k}", source)
                for k, v in value.items()}  # fmt: skip
    elif isinstance(hint, type):
        if issubclass(hint, Enum) and value in [choice.value for choice in hint]:
            return hint(value)
        if is_dataclass(hint) and isinstance(value, dict):
            return _built(hint, value, f"{source}, {key}")
        if hint is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if type(value) is hint:
            return value
    spelled = _spelled(hint)
    raise StateError(
        f"{key} was {value!r}; it may be {spelled}",
        source=source,
        hint=_as_number(value) if "a number" in spelled else None,
    )


def _as_number(value: Any) -> str | None:
    """How a number is written that stands in quotes, or with a percent sign."""
    if not isinstance(value, str):
        return None
    text, _, rest = value.strip().partition("%")
    try:
        number = float(text) / (100.0 if "%" in value else 1.0)
    except ValueError:
        return None
    if rest or not math.isfinite(number):
        return None
    said = "moves and shares are fractions" if "%" in value else "numbers stand without quotes"
    return f"write {number:g}: {said}"


def _shape_fits(hint: Any, value: Any) -> bool:
    return isinstance(value, list) == (typing.get_origin(hint) is tuple)


def _spelled(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(str(choice.value) for choice in hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spelled(each) for each in typing.get_args(hint)
                           if each is not types.NoneType)  # fmt: skip
    if origin is tuple:
        return f"a list of which each is {_spelled(typing.get_args(hint)[0])}"
    if origin is not None:
        each = _spelled(typing.get_args(hint)[1])
        return f"a table in which every name has {each}, such as {{ETH = 1.2}}"
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false",
             dt.date: "a date"}  # fmt: skip
    return words.get(hint, str(hint))


def require_scenario(scenario: Any) -> Scenario:
    """The scenario itself, or an error for what is none, such as its name.

    Raises
    ------
    StateError
        Saying what was passed.
    """
    if isinstance(scenario, Scenario):
        return scenario
    if isinstance(scenario, str):
        raise StateError(
            f"scenario was {scenario!r}; it must be a Scenario",
            hint=f"pass load_scenario({scenario!r})",
        )
    raise StateError(
        f"scenario was of type {type(scenario).__name__}; it must be a Scenario",
        hint="load_scenario and read_scenario make one",
    )


def suggested(name: str, names: Iterable[str]) -> str:
    """A hint: the names that may be meant, in another case or by a part; else all there are."""
    known = list(names)
    alike = _same_letters(name, known)
    if not alike:
        folded = {each.casefold(): each for each in known}
        wanted = name.casefold()
        holding = [each for key, each in folded.items() if len(wanted) > 2 and wanted in key]
        close = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.4)
        alike = list(dict.fromkeys([*holding, *(folded[key] for key in close)]))[:3]
    if alike:
        return f"did you mean {', '.join(alike)}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there are {', '.join(known[:_SHOWN])}{more}" if known else "nothing of it is known"


def _same_letters(name: str, names: Iterable[str]) -> list[str]:
    return [each for each in names if each.casefold() == name.casefold()]
