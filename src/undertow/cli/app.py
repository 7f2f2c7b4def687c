"""All commands, in the order in which a new user meets them.

A command here names its options and hands over to a function that is imported when it is called,
so that `--help` stays quick.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from undertow import __version__
from undertow.cli import options
from undertow.cli.options import UnusableOption

if TYPE_CHECKING:
    from undertow.cli.stress import Run, Source

app = typer.Typer(
    name="undertow",
    help="See, measure, stress-test and limit systemic leverage in crypto markets.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _StressGroup(TyperGroup):
    """`undertow stress NAME` is `undertow stress run NAME`, for every NAME that is no command.

    With `--monte-carlo`, or `-n`, anywhere it is `undertow stress sweep NAME`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` or `sweep` where it was left out."""
        many = any(_COUNT.fullmatch(each) for each in args)
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["sweep" if many else "run", *args]
        elif many and args[0] == "run":
            raise UnusableOption(
                "`undertow stress run` follows one scenario, and --monte-carlo asks for many",
                hint="say `undertow stress sweep`, or leave the word `run` out",
            )
        return super().parse_args(ctx, args)


_COUNT = re.compile(r"--monte-carlo(=.*)?|-n.*")  # how many scenarios are drawn


lake_app = typer.Typer(help="Look after the lake.", rich_markup_mode=None, no_args_is_help=True)
ingest_app = typer.Typer(
    help="Bring data into the lake.", rich_markup_mode=None, no_args_is_help=True
)
export_app = typer.Typer(
    help="Give what was measured in a shape that other programs read.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
map_app = typer.Typer(
    help="The dependency map: who stands on whom, as tables, files and a figure.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
stress_app = typer.Typer(
    help="What if: `undertow stress NAME` follows a scenario through the book, to its end.",
    cls=_StressGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"undertow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo lake goes.")] = Path(
        "undertow-demo"
    ),
    seed: options.Seed = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html beside the lake.")
    ] = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build a demo world, keep it in a lake, say how leveraged it is, and write a report on it."""
    from undertow.cli.demo import run_demo

    run_demo(folder, seed=seed, report=report, as_json=as_json, quiet=quiet)


class Size(Enum):
    """The worlds that have a name."""

    tiny = "tiny"
    demo = "demo"
    bench = "bench"
    sized = "sized"


@app.command()
def world(
    name: Annotated[
        Size, typer.Argument(help="Which world; `sized` takes --accounts.")
    ] = Size.demo,
    accounts: Annotated[
        int | None, typer.Option("--accounts", help="How many accounts (5 to 1,000,000).")
    ] = None,
    lake: options.Lake = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build a synthetic ecosystem with known truth and keep it in the lake."""
    from undertow.cli.world import run_world

    run_world(name.value, accounts=accounts, lake=lake, seed=seed, as_json=as_json, quiet=quiet)


@app.command()
def schema(
    table: Annotated[str | None, typer.Argument(help="One table; all without it.")] = None,
    as_json: options.Json = False,
) -> None:
    """Say what tables there are, and what a table's columns, units and keys are."""
    from undertow.cli.schema import run_schema

    run_schema(table, as_json=as_json)


@ingest_app.command("tables")
def ingest_tables(
    paths: Annotated[
        list[Path], typer.Argument(help="CSV, TSV, Parquet, NDJSON or Arrow files, or folders.")
    ],
    table: Annotated[
        str | None,
        typer.Option("--table", help="Table that the rows are for; else the file's name."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="TOML: columns, units, time formats."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, write nothing.")
    ] = False,
    lake: options.Lake = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring table files into the lake; rows that do not fit go to `rejects`, with the reason."""
    from undertow.cli.ingest import run_ingest

    run_ingest(
        paths,
        table=table,
        mapping=mapping,
        dry_run=dry_run,
        lake=lake,
        as_json=as_json,
        quiet=quiet,
    )


class Order(Enum):
    """What a list of accounts may be sorted by."""

    distance = "distance"
    leverage = "leverage"
    equity = "equity"
    debt = "debt"
    health = "health"


class Group(Enum):
    """What accounts may be added up by."""

    venue = "venue"
    owner = "owner"
    mode = "mode"


@app.command()
def margins(
    by: Annotated[
        Group | None, typer.Option("--by", help="Add accounts up instead of listing them.")
    ] = None,
    sort: Annotated[Order, typer.Option("--sort", help="Order of the list.")] = Order.distance,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="How many rows.", show_default="20; all with --output"),
    ] = None,
    venue: Annotated[str | None, typer.Option("--venue", help="Only this venue.")] = None,
    owner: Annotated[int | None, typer.Option("--owner", help="Only this owner.")] = None,
    account: Annotated[
        str | None,
        typer.Option("--account", help="Only this account, by key or label, with its legs."),
    ] = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    as_json: options.Json = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
) -> None:
    """Equity, maintenance, leverage, health and distance to liquidation of every account."""
    from undertow.cli.margins import Choice, run_margins

    run_margins(
        Choice(venue, owner, account),
        by=by.value if by else None,
        sort=sort.value,
        top=top,
        lake=lake,
        as_of=as_of,
        at=at,
        as_json=as_json,
        output=output,
        quiet=quiet,
    )


class Division(Enum):
    """What leverage is divided into."""

    asset = "asset"
    venue = "venue"
    protocol = "protocol"
    chain = "chain"
    sector = "sector"
    cohort = "cohort"


By = Annotated[Division, typer.Option("--by", help="The nodes whose leverage is compared.")]
Level = Annotated[float, typer.Option("--level", help="How sure bands are: 0.9 is 90 %.")]


@app.command()
def measure(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FAMILY|MEASURE]...",
            help="tandem, crowding, crowding.map, ...; `list` names them all.",
        ),
    ] = None,
    by: By = Division.asset,
    level: Level = 0.9,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    seed: options.MeasureSeed = None,
    workers: options.Crew = None,
    identities: options.Identities = None,
    sure: options.Sure = 0.0,
    fall: options.Fall = None,
    scenario: options.Instead = None,
    as_json: options.Json = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Keep the readings alone in a .csv, .json, .ndjson, .parquet or .arrow file; "
            "with --json, all that it prints in a .json file.",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure systemic leverage: what moves together and why, who is crowded and how near."""
    from undertow.cli.measure import run_list, run_measure

    if names == ["list"]:
        run_list(as_json=as_json, output=output, quiet=quiet)
        return
    run_measure(
        names or [],
        by=by.value,
        lake=lake,
        as_of=as_of,
        at=at,
        seed=seed,
        level=level,
        workers=workers,
        identities=identities,
        sure=sure,
        fall=fall,
        scenario=scenario,
        as_json=as_json,
        output=output,
        quiet=quiet,
    )


@app.command()
def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="An .html file.")
    ] = Path("undertow-report.html"),
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY|MEASURE]...", help="Only these; all without."),
    ] = None,
    by: By = Division.asset,
    level: Level = 0.9,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    seed: options.MeasureSeed = None,
    workers: options.Crew = None,
    identities: options.Identities = None,
    sure: options.Sure = 0.0,
    fall: options.Fall = None,
    scenario: options.Instead = None,
    quiet: options.Quiet = False,
) -> None:
    """Write all measures into one HTML file that opens anywhere, without a network."""
    from undertow.cli.measure import run_report

    run_report(
        output,
        names=names or [],
        by=by.value,
        lake=lake,
        as_of=as_of,
        at=at,
        seed=seed,
        level=level,
        workers=workers,
        identities=identities,
        sure=sure,
        fall=fall,
        scenario=scenario,
        quiet=quiet,
    )


class Shape(Enum):
    """The shapes in which single positions leave."""

    rows = "rows"
    defillama = "defillama"


Evidence = Annotated[
    options.Known | None,
    typer.Option("--evidence", help="Only what is known in this way.", show_default="all"),
]


@export_app.command("liquidations")
def export_liquidations(
    form: Annotated[
        Shape,
        typer.Option(
            "--format",
            help="rows: one an account, asset and side, units in the names of columns. "
            "defillama: collateral alone, as DefiLlama's liquidation adapters give it.",
        ),
    ] = Shape.rows,
    evidence: Evidence = None,
    within: Annotated[
        float | None,
        typer.Option("--within", metavar="SHARE", help="Leave out what is further: 0.3 is 30 %."),
    ] = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    as_json: options.Json = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write all rows to a .csv, .json, .ndjson, .parquet or .arrow file; with "
            "--format defillama a .json file.",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """At which price of one asset, moving alone, each account is called."""
    from undertow.cli.export import Seen, run_liquidations

    run_liquidations(
        Seen(lake, as_of, at, evidence.value if evidence else None),
        form=form.value,
        within=within,
        as_json=as_json,
        output=output,
        quiet=quiet,
    )


@export_app.command("ladder")
def export_ladder(
    furthest: Annotated[
        float, typer.Option("--furthest", metavar="SHARE", help="Largest move: 0.5 is 50 %.")
    ] = 0.5,
    points: Annotated[int, typer.Option("--points", min=1, help="Steps up to there.")] = 50,
    evidence: Evidence = None,
    workers: options.Crew = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    as_json: options.Json = False,
    output: options.Output = None,
    quiet: options.Quiet = False,
) -> None:
    """The liquidation map: what is called from each distance on, by line, venue and evidence."""
    from undertow.cli.export import Seen, run_ladder

    run_ladder(
        Seen(lake, as_of, at, evidence.value if evidence else None),
        furthest=furthest,
        points=points,
        workers=workers,
        as_json=as_json,
        output=output,
        quiet=quiet,
    )


def _source(
    lake: str | None, world: options.Invented | None, seed: int | None, as_of: str | None,
    at: str | None,
) -> Source:  # fmt: skip
    """Where the book comes from, as the options say."""
    from undertow.cli.stress import Source

    return Source(lake, world.value if world else None, seed, as_of, at)


def _run(
    impact: options.Curve | None, channels: str | None, rounds: int | None, settle: bool,
    behaviour: options.Conduct | None, *, check: bool = False,
) -> Run:  # fmt: skip
    """How a cascade runs, where the options say otherwise than the scenario."""
    from undertow.cli.stress import Run

    curve, conduct = impact.value if impact else None, behaviour.value if behaviour else None
    return Run(curve, channels, rounds, settle, check, conduct)


@stress_app.command("run")
def stress_run(
    scenario: options.Scenario,
    impact: options.Impact = None,
    channels: options.Channels = None,
    behaviour: options.Behaviour = None,
    rounds: options.Rounds = None,
    settle: options.Settle = True,
    check: Annotated[
        bool, typer.Option("--check", help="Keep both sides of the ledger; exit 1 if money leaks.")
    ] = False,
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="FILE|-",
            help="Write every closing to a .csv, .json, .ndjson, .parquet or .arrow file, or as "
            "NDJSON to the terminal instead of the report.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many owners.")] = 10,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, help="Divide the accounts into so many; the same numbers."),
    ] = None,
    workers: options.Workers = None,
    world: options.World = None,
    seed: options.Seed = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    out: options.Out = None,
    keep: options.Keep = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow one scenario through the book: who is closed, what is missing, who pays.

    The word `run` may be left out: undertow stress 2025-10-10
    """
    from undertow.cli.stress import run_stress

    run_stress(
        scenario,
        _source(lake, world, seed, as_of, at),
        _run(impact, channels, rounds, settle, behaviour, check=check),
        trace=trace,
        top=top,
        shards=shards,
        workers=workers,
        out=out,
        as_json=as_json,
        quiet=quiet,
        keep=keep,
        force=force,
    )


@stress_app.command("contagion")
def stress_contagion(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]", help="A replay or a TOML file; may be left out with --failed."
        ),
    ] = None,
    only: options.Only = None,
    without: options.Without = None,
    failed: options.Failed = None,
    ends: Annotated[
        bool,
        typer.Option("--assumptions/--no-assumptions", help="Move each assumption to its ends."),
    ] = True,
    impact: options.Impact = None,
    channels: options.Channels = None,
    behaviour: options.Behaviour = None,
    rounds: options.Rounds = None,
    settle: options.Settle = True,
    world: options.World = None,
    seed: options.Seed = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    out: options.Out = None,
    keep: options.Keep = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let losses travel by all channels: what it costs, by which of them, and who bears it.

    undertow stress contagion 2025-10-10 --without funding, or, with nothing but a failure,
    undertow stress contagion --failed custodian:NAME
    """
    from undertow.cli.trace import run_contagion

    run_contagion(
        scenario,
        _source(lake, world, seed, as_of, at),
        _run(impact, channels, rounds, settle, behaviour),
        only=only,
        without=without,
        failed=failed or [],
        ends=ends,
        keep=keep,
        force=force,
        out=out,
        as_json=as_json,
        quiet=quiet,
    )


@stress_app.command("sweep")
def stress_sweep(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]", help="A scenario that happens first; draws come on top of it."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--monte-carlo", "-n", min=1, help="How many joint scenarios.")
    ] = 1_000,
    law: options.Law = "student",
    history: options.Past = None,
    correlation: options.Ties = None,
    days: options.Days = None,
    fill_missing: options.FillMissing = False,
    draw_seed: options.DrawSeed = None,
    tail: Annotated[
        float, typer.Option("--tail", min=0.5, max=0.9999, help="Probability of VaR and ES.")
    ] = 0.99,
    workers: options.Workers = None,
    ray: options.Ray = None,
    impact: options.Impact = None,
    channels: options.Channels = None,
    behaviour: options.Behaviour = None,
    rounds: options.Rounds = None,
    settle: options.Settle = True,
    world: options.World = None,
    seed: options.Seed = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="FILE",
            help="Write a row a scenario to a .csv, .json, .ndjson, .parquet or .arrow file.",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw joint scenarios and follow each to its end: VaR and ES with their bands, who is hit.

    The word `sweep` may be left out: undertow stress --monte-carlo 1000, or, on top of a scenario,
    undertow stress 2025-10-10 --monte-carlo 1000
    """
    from undertow.cli.draws import Asked
    from undertow.cli.stress_many import Many, run_many

    run_many(
        _source(lake, world, seed, as_of, at),
        _run(impact, channels, rounds, settle, behaviour),
        Many(count, tail, workers, ray, draw_seed),
        Asked(law, history, correlation, days, fill_missing),
        scenario=scenario,
        out=out,
        as_json=as_json,
        quiet=quiet,
    )


@stress_app.command("reverse")
def stress_reverse(
    target: Annotated[float, typer.Option("--target", help="Loss to be reached, in USD.")],
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="LOSS",
            help="Which loss: insolvency (all that is missing), bad_debt (what is written off) or "
            "liquidated (what is closed).",
        ),
    ] = "insolvency",
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAME|FILE", help="How large must this one be?"),
    ] = None,
    days: options.Days = None,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Cascades to try.")] = 2_000,
    impact: options.Impact = None,
    channels: options.Channels = None,
    behaviour: options.Behaviour = None,
    rounds: options.Rounds = None,
    settle: options.Settle = True,
    world: options.World = None,
    seed: options.Seed = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the most plausible shock that loses a target, or how large a named scenario must be.

    The answer is the nearest that was found: distance is in standard deviations of the shock,
    `agree` of so many starts ended at it and the worst `spread` further out; `stays` says that no
    larger shock that was looked at loses less than the target; `deviations` are the moves of single
    factors in standard deviations of their own.
    """
    from undertow.cli.stress_many import run_reverse

    run_reverse(
        _source(lake, world, seed, as_of, at),
        _run(impact, channels, rounds, settle, behaviour),
        target=target,
        of=of,
        scenario=scenario,
        days=1.0 if days is None else days,
        budget=budget,
        as_json=as_json,
        quiet=quiet,
    )


@stress_app.command("list")
def stress_list(as_json: options.Json = False) -> None:
    """List the packaged replays of dated events."""
    from undertow.cli.stress import run_list

    run_list(as_json=as_json)


MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="FILE|FOLDER",
        help="Read a map (.graphml, .json, a folder of Parquet) instead of a lake.",
    ),
]


@map_app.command("build")
def map_build(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Keep the map there, as Parquet."),
    ] = None,
    force: options.Force = False,
    world: options.World = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Map who stands on whom, and say what the map holds and where it has gaps."""
    from undertow.cli.map import run_build

    run_build(
        _source(lake, world, seed, as_of, at),
        out=out,
        force=force,
        as_json=as_json,
        quiet=quiet,
    )


@map_app.command("show")
def map_show(
    node: Annotated[
        str | None,
        typer.Argument(help="As asset:stETH or venue:aave-v3; without one the largest are shown."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="How far to follow edges.")] = 1,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only edges (without NODE: nodes) of this kind; repeatable."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Rows of a table.", show_default="20; 5 without NODE"),
    ] = None,
    file: MapFile = None,
    world: options.World = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what a node stands on, step by step and in the end, and what stands on it."""
    from undertow.cli.map import Seen, run_show

    run_show(
        node,
        Seen(_source(lake, world, seed, as_of, at), file),
        steps=steps,
        kinds=kind or [],
        top=top,
        as_json=as_json,
        quiet=quiet,
    )


@map_app.command("export")
def map_export(
    path: Annotated[
        Path | None,
        typer.Argument(help="A .graphml or .json file, or a folder (.parquet)."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="graphml|json|parquet", help="Unless the ending says it."),
    ] = None,
    accounts: Annotated[
        bool | None,
        typer.Option(
            "--accounts/--no-accounts",
            help="Every account, or those of an owner at a venue as one.",
            show_default="every one as Parquet only",
        ),
    ] = None,
    least_usd: Annotated[
        float | None,
        typer.Option(
            "--least-usd",
            min=0.0,
            help="Owners of less than this gross go into the others of their venue, where "
            "accounts are folded.",
            show_default="100,000",
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="Draw it, as an .svg file.")
    ] = None,
    force: options.Force = False,
    file: MapFile = None,
    world: options.World = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the map as GraphML, JSON or Parquet, or draw it; --map turns one form into another."""
    from undertow.cli.map import Seen, run_export

    run_export(
        path,
        Seen(_source(lake, world, seed, as_of, at), file),
        form=form,
        accounts=accounts,
        least_usd=least_usd,
        figure=figure,
        force=force,
        as_json=as_json,
        quiet=quiet,
    )


@app.command()
def trace(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|NAME|FILE",
            help="A folder that `undertow stress ... --keep` made, or a scenario, run here.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="NODE",
            help="Only chains to this bearer, as owner:17; a bare name, as okx, is all that go by "
            "it.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, help="Bearers that are shown, the largest first.")
    ] = 10,
    chains: Annotated[int, typer.Option("--chains", min=1, help="Chains to each bearer.")] = 3,
    target: Annotated[
        str,
        typer.Option(
            "--of", metavar="LOSS", help="The loss that is divided: lost_usd, borne_usd, a party."
        ),
    ] = "lost_usd",
    only: options.Only = None,
    without: options.Without = None,
    failed: options.Failed = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--most",
            min=1,
            help="Solves of a division; beyond, orders are drawn.",
            show_default="1024; 64 of a large book",
        ),
    ] = None,
    draw_seed: options.DrawSeed = None,
    graph: Annotated[
        Path | None,
        typer.Option(
            "--graph", metavar="FILE", help="Write the graph of causes: .graphml or .json."
        ),
    ] = None,
    world: options.World = None,
    seed: options.Seed = None,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    at: options.At = None,
    out: options.Out = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the path, not only the number: from a shock to each loss, and what each channel did.

    undertow trace RUN makes a kept run again and refuses where its book is another;
    undertow trace 2025-10-10 runs the scenario through all channels and traces it.
    """
    from undertow.cli.trace import Asked, run_trace

    run_trace(
        run,
        _source(lake, world, seed, as_of, at),
        Asked(to, top, chains, target, most, draw_seed or 0, only, without, tuple(failed or ())),
        graph=graph,
        out=out,
        as_json=as_json,
        quiet=quiet,
    )


@lake_app.command("verify")
def lake_verify(
    lake: options.Lake = None, as_json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Check every file that the log names, and every run; exit 1 where something is wrong."""
    from undertow.cli.lake import run_verify

    run_verify(lake, as_json=as_json, quiet=quiet)


@lake_app.command("history")
def lake_history(
    top: Annotated[int, typer.Option("--top", min=1, help="How many runs.")] = 20,
    lake: options.Lake = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """List the runs that wrote to the lake, newest first."""
    from undertow.cli.lake import run_history

    run_history(lake, top=top, as_json=as_json, output=output)


@lake_app.command("compact")
def lake_compact(
    lake: options.Lake = None, as_json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Join small files; what any run stands on is kept."""
    from undertow.cli.lake import run_compact

    run_compact(lake, as_json=as_json, quiet=quiet)


@lake_app.command("rejects")
def lake_rejects(
    top: Annotated[int, typer.Option("--top", min=1, help="How many rows.")] = 20,
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """List the rows that were refused, newest first, with the reason."""
    from undertow.cli.lake import run_rejects

    run_rejects(lake, top=top, as_of=as_of, as_json=as_json, output=output)


@lake_app.command("quality")
def lake_quality(
    lake: options.Lake = None,
    as_of: options.AsOf = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Rows, age, gaps, sources and rejects of every table."""
    from undertow.cli.lake import run_quality

    run_quality(lake, as_of=as_of, as_json=as_json, output=output)


app.add_typer(ingest_app, name="ingest")
app.add_typer(export_app, name="export")
app.add_typer(map_app, name="map")
app.add_typer(stress_app, name="stress")
app.add_typer(lake_app, name="lake")
