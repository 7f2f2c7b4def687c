"""The map of simultaneous margin calls: a shock, and which venues call the same owner at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from undertow.econometrics.checks import within
from undertow.errors import MisalignedState, StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.door import require_seed
from undertow.measures.interconnection import calltables as tables
from undertow.measures.interconnection.callmap import CallMap
from undertow.measures.interconnection.callreadings import Drawn, readings
from undertow.measures.interconnection.callwords import says
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import common_fall, span, told
from undertow.rules.snapshot import Snapshot
from undertow.stress.cascade import Cascade, Engine, run_cascade
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario
from undertow.stress.shock import MARKET, Price, require_within
from undertow.stress.stressed import Stressed

FALL = 0.2
FALLS = tuple(k / 20.0 for k in range(1, 11))
BUFFER = 1.05  # health that owners restore
MOST = 10_000  # rows of calls and of owners
_NAME = "interconnection.calls"
_READ = (
    "A shock is followed to its end by the cascade. An account is called in the round in which its "
    "venue first closes any of it. Its need is the cash that would have brought its health back to "
    "what is asked, at the prices of that round, on what it held then; `to_buffer_usd` would have "
    "brought it to {buffer} of that. A call is one venue calling one owner in one round; calls are "
    "synchronised when two venues call the same owner {window}. What an owner holds free, at the "
    "prices of the round, goes to its calls in the order of time, to those of one round in "
    "proportion to their need, and no dollar twice. {excess}What is left of the need is unmet."
)
_EXCESS = (
    "After it comes what the owner's other accounts could spare then, `excess_usd`: cover over "
    "what is asked, no more than is held outright, of accounts that the cascade never touches. "
)
_MISLEADS = (
    "Nobody answers in the cascade: a call that free assets meet is closed all the same, so later "
    "calls are those of a market in which nobody pays. Of an account that is called again, only "
    "the first need counts. Whoever is under what is asked but is not closed (its venue is shut, "
    "or nobody would gain by it) is not called yet. Owners are joined only where they are known: "
    "synchronised calls are a lower bound, and `links` says how far other ties could take them. "
    "Free assets are those that somebody listed; what is not money has to be sold first, at prices "
    "that this leaves alone. Portfolio groups spare nothing here, and taking from another account "
    "brings it nearer to its own call. Bands draw owners, not prices."
)


def calls(
    book: Snapshot | Plan | Crowd | Web | Any,
    *,
    fall: float = FALL,
    scenario: Scenario | Stressed | Cascade | None = None,
    window_us: int = 0,
    elsewhere: bool = False,
    buffer: float = BUFFER,
    falls: tuple[float, ...] = FALLS,
    most: int | None = MOST,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """Who is called by which venues when, what it takes to meet that, and what there is to do so.

    The shock is a common `fall` of all prices but those of money (below 0 a rise), unless a
    `scenario` is given, or a cascade that was run on the book. Calls of two venues count as
    synchronised within `window_us`; at 0, in one round. With `elsewhere`, what an owner's other
    accounts could spare is spent too. `falls` are those of the ladder, which is climbed where no
    scenario is given. The tables of calls and owners hold the `most` largest needs; None is all.

    Raises
    ------
    StateError
        When it is no book or no scenario, a size is out of range, or owners answer in the cascade.
    MisalignedState
        When the cascade was run on another book.
    MissingPrice
        When something held free has no price.
    EstimationError
        When the level is out of range or the draws are too few.
    """
    crowd = book.crowd if isinstance(book, Web) else Crowd.of(book)
    _require(fall, window_us, buffer, falls, most, seed, level)
    cascade = _cascade(crowd, fall, scenario)
    apart = int(window_us // cascade.options.round_us)
    found = CallMap.of(cascade, buffer=buffer, apart=apart, elsewhere=elsewhere)
    drawn = Drawn.of(found, reps=reps, seed=seed, level=level)
    rows = [] if scenario is not None else _ladder(crowd, falls, fall, found, buffer)
    full = {**tables.tables_of(found), "ladder": tables.ladder_table(rows)}
    shock = _shock(fall, scenario)
    window = "in one round" if apart == 0 else f"within {span(apart * cascade.options.round_us)}"
    return Study(
        name=_NAME,
        title="Who is called by several venues at once",
        readings=tuple(readings(crowd, found, drawn, full["links"], shock, window, level)),
        tables=full | {name: _largest(full[name], most) for name in ("calls", "owners")},
        says=tuple(says(found, full, shock, window, most)),
        how_to_read=_READ.format(
            buffer=told(buffer, 3), window=window, excess=_EXCESS if elsewhere else ""
        ),
        misleads=_MISLEADS,
    )


def _require(
    fall: float, window_us: int, buffer: float, falls: Any, most: int | None, seed: int,
    level: float,
) -> None:  # fmt: skip
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    require_within("fall", fall, -10.0, 0.999)
    require_within("window_us", window_us, 0)
    require_within("buffer", buffer, 1.0, 10.0)
    if not isinstance(falls, tuple | list):
        raise StateError(f"falls was {falls!r}; it must be a tuple of falls, or ()")
    for each in falls:
        require_within("a fall of the ladder", each, 0.0, 0.999)
    if most is not None:
        require_within("most", most, 1)


def _cascade(crowd: Crowd, fall: float, scenario: Any) -> Cascade:
    """The cascade that the map is read off, run with its trace unless it is one already."""
    if isinstance(scenario, Cascade):
        theirs, mine = scenario.plan.snapshot, crowd.snapshot
        same = np.array_equal(theirs.book.account[: mine.book.accounts], mine.book.account)
        if theirs.universe != mine.universe or not same:
            raise MisalignedState(
                "the cascade was run on another book", hint="give the book that it was run on"
            )
        return scenario
    if scenario is None:
        return _fallen(crowd, fall)
    options = None if isinstance(scenario, Scenario) else crowd.options
    return run_cascade(crowd.plan, scenario, options)


def _fallen(crowd: Crowd, fall: float, engine: Engine | None = None) -> Cascade:
    """A common fall of the market, followed on the settled book."""
    shocks = (Price(asset=MARKET, move=-fall),) if fall != 0.0 else ()
    stressed = Scenario(name="a common fall", shocks=shocks).apply(crowd.settled.snapshot)
    return (engine or Engine(crowd.settled.plan)).run(stressed, crowd.options)


def _ladder(
    crowd: Crowd, falls: tuple[float, ...], fall: float, found: CallMap, buffer: float
) -> list[dict[str, Any]]:
    """Totals of every fall, of which that of `fall` is known already."""
    engine, rows = Engine(crowd.settled.plan), []
    for each in sorted(set(falls), reverse=True):  # the deepest makes room for every trace
        at = found
        if each != fall:
            at = CallMap.of(
                _fallen(crowd, each, engine), buffer=buffer, apart=found.together.apart,
                elsewhere=found.elsewhere,
            )  # fmt: skip
        rows.append({"fall": float(each), **tables.totals(at)})
    return rows[::-1]


def _largest(frame: Any, most: int | None) -> Any:
    """The rows of the largest needs, in the order in which they stand."""
    if most is None or frame.height <= most:
        return frame
    order = frame.with_row_index("row").sort("need_usd", "row", descending=[True, False])
    return order.head(most).sort("row").drop("row")


def _shock(fall: float, scenario: Any) -> str:
    if scenario is None:
        return common_fall(fall)
    if isinstance(scenario, Scenario):
        return f"the scenario {scenario.name}"
    return "the cascade that was given" if isinstance(scenario, Cascade) else "the given shocks"
