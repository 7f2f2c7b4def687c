"""The options that many commands share, spelled once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from undertow.errors import UndertowError

Lake = Annotated[
    str | None,
    typer.Option(
        "--lake", metavar="FOLDER|URL", help="The lake to use.", show_default="undertow-lake"
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="INSTANT",
        help="Use only what the lake knew then: 2026-01-31, 2026-01-31T12:00Z, now-7d.",
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="INSTANT", help="The instant that is looked at; as INSTANT above."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of everything random.", show_default="7"),
]
MeasureSeed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of bands and draws.", show_default="0"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the rows to a .csv, .json, .ndjson, .parquet or .arrow file.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no talk.")]


class Curve(Enum):
    """What forced sales do to a price."""

    none = "none"
    linear = "linear"
    exponential = "exponential"
    square_root = "square-root"
    constant_product = "constant-product"
    ladder = "ladder"


class Known(Enum):
    """How a position is known."""

    observed = "observed"
    sampled = "sampled"
    modelled = "modelled"


class Invented(Enum):
    """The worlds that a scenario may run on without a lake."""

    tiny = "tiny"
    demo = "demo"


class Conduct(Enum):
    """What owners do when their accounts are called."""

    none = "none"
    fitted = "fitted"
    fitted_low = "fitted-low"
    fitted_high = "fitted-high"
    worst = "worst"


Scenario = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="A packaged replay (`undertow stress list`) or a TOML file of shocks.",
    ),
]
Impact = Annotated[
    Curve | None,
    typer.Option("--impact", help="What sales do to prices.", show_default="the scenario's"),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="LIST",
        help="Switch channels, as `capacity,no-oracles,recovery=0.1`: capacity, profitable, "
        "oracles, top-up, delever, unwind, convert, deleveraging=profile|pro-rata|none, "
        "recovery=SHARE, withdrawal=SHARE.",
    ),
]
Behaviour = Annotated[
    Conduct | None,
    typer.Option(
        "--behaviour",
        help="What owners do when called: nothing; act as often as recorded ones did, in the "
        "middle or at an end of the band; or the worse of nothing and all selling at once "
        "(one scenario alone). Not with owners' channels.",
        show_default="the scenario's",
    ),
]
Rounds = Annotated[
    int | None, typer.Option("--rounds", min=1, help="Leave it as it is after so many.")
]
Settle = Annotated[
    bool, typer.Option("--settle/--no-settle", help="Close first what is due anyway.")
]
World = Annotated[
    Invented | None, typer.Option("--world", help="Run on an invented book, not on a lake.")
]
Days = Annotated[
    float | None, typer.Option("--days", help="Horizon of the moves.", show_default="1")
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="KIND",
        help="serial, threads:N, processes:N, ray or ray:ADDRESS.",
        show_default="serial",
    ),
]
Crew = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="KIND",
        help="serial, threads:N, processes:N, ray or ray:ADDRESS; the same numbers.",
        show_default="a thread a CPU",
    ),
]
Identities = Annotated[
    Path | None,
    typer.Option(
        "--identities",
        metavar="FILE",
        help="Owners that are one: node, same_as, confidence, source; a node is owner:17 or "
        "account:42.",
        show_default=False,
    ),
]
Sure = Annotated[
    float,
    typer.Option(
        "--sure",
        min=0.0,
        max=1.0,
        help="Identities count from this confidence on; from 0 on every one counts.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Work on a Ray cluster: auto, local, host:port; as --workers ray:ADDRESS.",
    ),
]
Law = Annotated[
    str,
    typer.Option(
        "--draws",
        metavar="LAW|FILE",
        help="Law of the moves: gaussian, student[:DOF], historical[:BLOCK], filtered[:DECAY], or "
        "a .csv, .parquet or .npy file of log moves of prices, a row a scenario.",
    ),
]
Past = Annotated[
    str | None,
    typer.Option(
        "--history",
        metavar="FILE|lake[:DAYS]",
        help="Past prices: a wide or long table, or those of the lake. `historical` and `filtered` "
        "take lake:365 without it; gaussian and student then take their volatilities and "
        "correlations from it.",
    ),
]
Ties = Annotated[
    Path | None,
    typer.Option(
        "--correlation",
        metavar="FILE",
        help="Correlations for gaussian and student: a square .csv with a header of assets.",
    ),
]
FillMissing = Annotated[
    bool,
    typer.Option(
        "--fill-missing", help="Let assets that a file leaves out stand still, or be as assumed."
    ),
]
DrawSeed = Annotated[int | None, typer.Option("--draw-seed", min=0, help="Seed of the draws.")]
Fall = Annotated[
    float | None,
    typer.Option(
        "--fall",
        metavar="SHARE",
        help="For measures that start from a shock: a common fall of all prices but those of "
        "money; below 0 a rise.",
        show_default="0.2",
    ),
]
Instead = Annotated[
    str | None,
    typer.Option(
        "--scenario", metavar="NAME|FILE", help="The same from a replay or a TOML file of shocks."
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="LIST",
        help="Only these channels: dependence, fire_sales, claims, receipts, backing, funding; "
        "or all.",
    ),
]
Without = Annotated[
    str | None, typer.Option("--without", metavar="LIST", help="All channels but these.")
]
Failed = Annotated[
    list[str] | None,
    typer.Option(
        "--failed",
        metavar="KIND:NAME",
        help="Who fails on top: custodian, bridge, issuer, chain, oracle, asset, instrument, "
        "venue, external or owner; may be given again.",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep", metavar="FOLDER", help="Keep what it takes to run it again: `undertow trace`."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "--output",
        "-o",
        metavar="FILE",
        help="Keep all that --json prints in a .json file, beside the report.",
    ),
]

_SPAN = re.compile(r"now(?:-(\d+)(s|m|h|d|w))?")
_EPOCH = re.compile(r"(-?\d+)(s|ms|us|ns)")
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class UnusableOption(UndertowError, ValueError):
    """An option has a value that it cannot have."""


def now_us() -> int:
    """The present, in microseconds; only the faces look at a clock."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def instant(option: str, text: str | None, now: int) -> int | None:
    """Microseconds of an instant as a user writes it, or None where none is given.

    Raises
    ------
    UnusableOption
        When it is no instant; the message shows the three ways to write one.
    """
    if text is None:
        return None
    found = _parsed(option, text, now)
    if not _EARLIEST <= found <= _LATEST:
        raise UnusableOption(
            f"{option} was {text!r}, which lies outside the years 1 to 9999",
            hint="write 2026-01-31, 2026-01-31T12:00:00Z, now-7d or 1769860800s",
        )
    return found


def _parsed(option: str, text: str, now: int) -> int:
    span = _SPAN.fullmatch(text)
    if span:
        back = int(span[1]) * _SECONDS[span[2]] if span[1] else 0
        return now - back * 1_000_000
    epoch = _EPOCH.fullmatch(text)
    if epoch:
        value, unit = int(epoch[1]), epoch[2]
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(unit)
        return value * scale if scale else value // 1_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnusableOption(
            f"{option} was {text!r}, which is no instant",
            hint="write 2026-01-31, 2026-01-31T12:00:00Z, now-7d or 1769860800s",
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def require_share(option: str, value: float | None) -> None:
    """Refuse what is no share above 0: who writes 20 most likely means 20 %.

    Raises
    ------
    UnusableOption
        When it is not above 0, or above 1.
    """
    if value is None or 0.0 < value <= 1.0:
        return
    hint = "a share above 0 and up to 1: 0.2 is 20 %"
    if 1.0 < value <= 100.0:
        hint = f"a share up to 1: {value / 100.0:g} is {value:g} %"
    raise UnusableOption(f"{option} was {value:g}", hint=hint)


def iso(ts: int) -> str:
    """Microseconds as ISO-8601 with a Z."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts)
    return moment.isoformat().replace("+00:00", "Z")
