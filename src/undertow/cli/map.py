"""`undertow map build|show|export`: the dependency map on the terminal, in files, in a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from undertow.assess import INVENTED
from undertow.cli.options import UnusableOption, iso
from undertow.cli.output import Answer, cell, render
from undertow.cli.stress import Source, loaded
from undertow.errors import StateError, StoreError
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.folding import fold, node_of
from undertow.measures.interconnection.mapping import NODE_KINDS, DependencyMap
from undertow.measures.interconnection.surroundings import (
    LookedThrough,
    edge_kinds,
    gaps,
    largest,
    looked_through,
    steps_from,
)
from undertow.measures.interconnection.surveying import survey
from undertow.measures.words import many
from undertow.report.words import number
from undertow.store.graphs import form_of, read_map, require_room, write_map

_SHOWN = 20  # rows of a table on the terminal
_LARGEST = 5  # nodes of a kind
LEAST_USD = 100_000.0  # gross, of an owner that is named where accounts are folded
_EDGES = ["step", "source", "kind", "target", "usd", "evidence", "origin"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Which map: the one of a lake or of an invented world, or one from a file."""

    source: Source
    file: Path | None = None


def run_build(source: Source, *, out: Path | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Survey the book, say what the map holds, and keep it if a folder is named."""
    answer = Answer(as_json, quiet=quiet)
    if out is not None:
        _require_place("--out", out, "parquet", force=force)
    found, facts = _the_map(Seen(source), answer)
    backing = Backing.of(found)
    if out is not None:
        _keep("--out", out, lambda: write_map(found, out, form="parquet", force=force))
        facts["out"] = str(out)
    nodes = pl.DataFrame(
        {"kind": NODE_KINDS, "nodes": [len(found.keys[kind]) for kind in NODE_KINDS]}
    ).filter(pl.col("nodes") > 0)
    edges = edge_kinds(found)
    holes = asdict(gaps(backing))
    told = {**facts, "nodes": found.nodes, "edges": len(found), "digest": found.digest}
    if as_json:
        tables = {"node_kinds": nodes.to_dicts(), "edge_kinds": edges.to_dicts()}
        answer.give_facts({**told, "gaps": holes, **tables})
        return
    _print("nodes", nodes)
    _print("edges, by kind and by how they are known", edges)
    _print_facts({**told, **holes})


def run_show(
    node: str | None, seen: Seen, *, steps: int, kinds: list[str], top: int | None, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Say what a node stands on and what stands on it; without one, which are the largest."""
    answer = Answer(as_json, quiet=quiet)
    found, facts = _the_map(seen, answer)
    if node is None:
        backing = Backing.of(found)
        rows = largest(backing, tuple(kinds), top=top or _LARGEST)
        answer.give("the largest nodes of every kind", rows, {**facts, "nodes": found.nodes})
        return
    place = node_of(found, node)
    edges = steps_from(found, place, steps=steps, kinds=tuple(kinds))
    through = looked_through(Backing.of(found), place)
    if as_json:
        shown = edges if top is None else edges.group_by("way", maintain_order=True).head(top)
        answer.give_facts({"node": node, **facts, "look_through": _plain(through),
                           "edges_in_all": edges.height, "edges": shown.to_dicts()})  # fmt: skip
        return
    print(node)
    _print_through(through, top or _SHOWN)
    for way in ("stands on", "stands on it"):
        mine = edges.filter(pl.col("way") == way)
        title = f"{way}: {many(mine.height, 'edge')}, {number(float(mine['usd'].sum()))} USD"
        _print(title, mine.select(_EDGES), top or _SHOWN)
    _print_facts(facts)


def run_export(
    path: Path | None, seen: Seen, *, form: str | None, accounts: bool | None,
    least_usd: float | None, figure: Path | None, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write the map as a file that other programs read, and draw it."""
    answer = Answer(as_json, quiet=quiet)
    if path is None and figure is None:
        raise UnusableOption(
            "nothing is to be written", hint="name a .graphml or .json file, a folder, or --figure"
        )
    shape = None if path is None else _form(path, form)
    whole = _keeps_accounts(shape, seen, least_usd) if accounts is None else accounts
    if least_usd is not None and (whole or path is None):
        raise UnusableOption(
            f"--least-usd was {least_usd:g}, but no accounts are folded here",
            hint="say --no-accounts too, or leave it out",
        )
    if path is not None and shape is not None:
        _require_place("PATH", path, shape, force=force)
    page = None if figure is None else _page(figure, force=force, quiet=quiet)
    found, facts = _the_map(seen, answer)
    if path is not None:
        facts |= _write(found, path, shape, whole, least_usd, force, answer)
    if page is not None:
        from undertow.report.maps import dependency_picture

        drawing = dependency_picture(Backing.of(found))
        page.keep(lambda part: part.write_text(drawing, encoding="utf-8"))
        answer.say(f"a figure in {figure}")
        facts["figure"] = str(figure)
    if as_json:
        answer.give_facts(facts)


def _keeps_accounts(shape: str | None, seen: Seen, least_usd: float | None) -> bool:
    """Parquet keeps all; a file that is no Parquet was folded when it was written, if at all."""
    if shape == "parquet" or least_usd is not None:
        return shape == "parquet"
    return seen.file is not None and _form(seen.file, None) != "parquet"


def _write(
    found: DependencyMap, path: Path, shape: str | None, whole: bool, least_usd: float | None,
    force: bool, answer: Answer,
) -> dict[str, Any]:  # fmt: skip
    facts: dict[str, Any] = {"path": str(path), "format": shape}
    kept = found
    if not whole:
        folded = fold(found, least_usd=LEAST_USD if least_usd is None else least_usd)
        kept = folded.map
        facts |= {"folded_accounts": folded.accounts, "folded_owners": folded.owners,
                  "folded_owners_usd": folded.others_usd}  # fmt: skip
        answer.say(
            f"{many(folded.accounts, 'account')} became {len(kept.keys['account']):,}, by owner "
            f"and venue; {many(folded.owners, 'owner')} of less than "
            f"{LEAST_USD if least_usd is None else least_usd:,.0f} USD went into the others "
            "(--accounts keeps all, --least-usd draws the line)"
        )
    _keep("PATH", path, lambda: write_map(kept, path, form=shape, force=force))
    answer.say(f"{many(kept.nodes, 'node')} and {many(len(kept), 'edge')} in {path}")
    return {**facts, "nodes": kept.nodes, "edges": len(kept), "digest": kept.digest}


def _the_map(seen: Seen, answer: Answer) -> tuple[DependencyMap, dict[str, Any]]:
    """The map that was asked for, and the words for where it is from."""
    source = seen.source
    if seen.file is None:
        book = loaded(source, answer)
        facts = {**book.facts, "inputs_hash": book.snapshot.digest}
        if "world" in facts:
            facts["note"] = INVENTED
            answer.say(INVENTED)
        return survey(book.snapshot), facts
    given = {"--lake": source.lake, "--world": source.world, "--seed": source.seed,
             "--as-of": source.as_of, "--at": source.at}  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise UnusableOption(
                f"{option} was {value!r}, but --map reads a file", hint="give one or the other"
            )
    found = read_map(seen.file)
    return found, {"at": iso(found.ts) if found.ts else None, "map": str(seen.file)}


def _form(path: Path, form: str | None) -> str:
    try:
        return form_of(path, form)
    except StateError as error:
        raise UnusableOption(error.message, hint=error.hint) from error


def _require_place(option: str, path: Path, form: str, *, force: bool) -> None:
    """Refuse a place that cannot be written before any work is done."""
    if not path.parent.is_dir():
        raise UnusableOption(
            f"{option} was {str(path)!r}, in a folder that is not there",
            hint="make the folder first",
        )
    try:
        require_room(path, form, force=force)
    except StoreError as error:
        raise UnusableOption(f"{option} {error.message}", hint=error.hint) from error


def _page(figure: Path, *, force: bool, quiet: bool) -> Answer:
    page = Answer(file=figure, quiet=quiet, option="--figure", endings=(".svg",))
    if figure.exists() and not force:
        raise UnusableOption(
            f"--figure was {str(figure)!r}, which is there already", hint="--force replaces it"
        )
    return page


def _keep(option: str, path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except StateError as error:
        raise UnusableOption(error.message, hint=error.hint) from error
    except OSError as error:
        why = error.strerror or str(error) or "the system refused"
        raise UnusableOption(f"{option} {str(path)!r} could not be written: {why}") from error


def _plain(through: LookedThrough | None) -> dict[str, Any] | None:
    if through is None:
        return None
    return {
        **_facts(through),
        "ends": through.ends.to_dicts(),
        "keepers": through.keepers.to_dicts(),
    }


def _facts(through: LookedThrough) -> dict[str, Any]:
    return {
        "usd": through.usd,
        "wrappers": through.wrappers,
        "multiplier": through.multiplier,
        "circular_usd": through.circular_usd,
        "taken_at_word": through.taken_at_word,
    }


def _print_through(through: LookedThrough | None, top: int) -> None:
    if through is None:
        print("  it has nothing that could be followed")
        return
    _print_facts(_facts(through))
    _print("what it is in the end", through.ends, top)
    _print("keepers that it leads through", through.keepers, top)


def _print(title: str, rows: pl.DataFrame, top: int | None = None) -> None:
    print(f"\n{title}")
    print(render(rows if top is None else rows.head(top)))
    if top is not None and rows.height > top:
        print(f"  … and {rows.height - top:,} more (--top, --json)")


def _print_facts(facts: Mapping[str, Any]) -> None:
    print()
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {cell(value)}")
