"""Runs of `undertow stress` that were kept: all that it takes to make one again.

A kept run is a folder with `scenario.toml`, the scenario as it was read, and `run.json`: which book
it ran on (a lake as of an instant, with the versions of its tables, or an invented world), how it
ran, and a digest of its inputs. Results are not in it: who asks for them runs it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from undertow import __version__
from undertow.cli.lake import the_lake
from undertow.cli.options import UnusableOption, instant, iso, now_us
from undertow.cli.output import Answer
from undertow.cli.stress import LARGEST_SCENARIO, Loaded, Run, Source, loaded
from undertow.errors import MisalignedState, StateError, UnreadableFile
from undertow.measures.words import listed
from undertow.stress import Behaviour, Scenario, read_scenario, scenario_names
from undertow.stress.contagion import CHANNELS, Channels

FORMAT = "undertow-run/1"
_SCENARIO, _RUN = "scenario.toml", "run.json"
_LARGEST = 1 << 22  # bytes of run.json
_KEEPING = "`undertow stress run NAME --keep FOLDER` keeps a run"


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run as it was kept."""

    scenario: Scenario
    source: Source
    run: Run
    channels: Channels
    failed: tuple[str, ...]
    digest: str  # of the book
    versions: Mapping[str, int]  # of the lake's tables
    code: str  # version of undertow that kept it

    def book(self, answer: Answer, *, lake: str | None = None) -> Loaded:
        """The book again; of another lake where one is named.

        Raises
        ------
        MisalignedState
            When it is another than the one that was kept.
        """
        source = self.source if lake is None else replace(self.source, lake=lake)
        found = loaded(source, answer)
        if found.snapshot.digest != self.digest:
            raise MisalignedState(
                f"the book is another than the one that the run was kept of: its digest is "
                f"{found.snapshot.digest[:12]}, and was {self.digest[:12]}",
                hint="point to the lake that it ran on with --lake, or run it anew",
            )
        if self.code != __version__:
            answer.say(f"kept by undertow {self.code}, made again by {__version__}")
        return found


def fixed(source: Source) -> Source:
    """The same source with instants that stay what they are, not `now-7d`."""
    if source.world is not None:
        return source
    now = now_us()
    known, held = instant("--as-of", source.as_of, now), instant("--at", source.at, now)
    return replace(
        source,
        as_of=None if known is None else iso(known),
        at=None if held is None else iso(held),
    )


def require_keepable(folder: Path, run: Run, *, force: bool = False) -> None:
    """Refuse what cannot be kept before any work is done.

    Raises
    ------
    UnusableOption
        When something else is there, or a kept run that is not to be replaced, or the run is the
        worst of several.
    """
    if run.behaviour == Behaviour.WORST.value:
        raise UnusableOption(
            "--keep keeps one cascade, and --behaviour 'worst' is the worse of several",
            hint="keep a run with --behaviour none, fitted, fitted-low or fitted-high",
        )
    if folder.exists() and not folder.is_dir():
        raise UnusableOption(f"--keep was {str(folder)!r}, which is a file", hint="name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _RUN).is_file():
        raise UnusableOption(
            f"--keep was {str(folder)!r}, which holds something else",
            hint="name a new folder, or one of a kept run",
        )
    if (folder / _RUN).is_file() and not force:
        raise UnusableOption(
            f"--keep was {str(folder)!r}, which holds a kept run already",
            hint="--force replaces it",
        )
    if not folder.parent.is_dir():
        raise UnusableOption(
            f"--keep was {str(folder)!r}, in a folder that is not there",
            hint="make the folder first",
        )


def keep_run(
    folder: Path,
    text: str,
    book: Loaded,
    source: Source,
    run: Run,
    *,
    channels: Channels,
    failed: Sequence[str],
    answer: Answer,
) -> None:
    """Keep what it takes to make a run again; one that is there is replaced."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "undertow": __version__,
        "scenario_sha256": sha256(text.encode()).hexdigest(),
        "book": _book_facts(book, source),
        "inputs": book.snapshot.digest,
        "run": asdict(run),
        "channels": list(channels.on),
        "failed": list(failed),
    }
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UnusableOption(
            f"--keep {str(folder)!r} could not be made: {error.strerror}"
        ) from error
    scenario = Answer(file=folder / _SCENARIO, quiet=True, option="--keep", endings=(".toml",))
    scenario.keep(lambda part: part.write_text(text, encoding="utf-8"))
    # what makes the folder a kept run comes last
    Answer(file=folder / _RUN, quiet=True, option="--keep", endings=(".json",)).give_facts(facts)
    answer.say(f"kept in {folder}: `undertow trace {folder}` says what it came of")


def _book_facts(book: Loaded, source: Source) -> dict[str, Any]:
    if source.world is not None:
        return {"world": source.world, "seed": book.facts["seed"]}
    home = the_lake(source.lake)
    stands = home.standing(as_of=instant("--as-of", book.facts["as_of"], now_us()))
    return {
        "lake": home.uri, "as_of": book.facts["as_of"], "at": source.at, "run": stands.run,
        "versions": dict(stands.versions),
    }  # fmt: skip


def is_kept(name: str) -> bool:
    """Whether a name is that of a folder, and no scenario's."""
    return Path(name).is_dir()


def read_kept(folder: Path) -> KeptRun:
    """A kept run from its folder.

    Raises
    ------
    UnreadableFile
        When the folder holds none, or one that is damaged or of another format.
    """
    told = _told(folder)
    try:
        text = (folder / _SCENARIO).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile("the kept run has no scenario", source=str(folder)) from error
    if len(text) > LARGEST_SCENARIO or sha256(text.encode()).hexdigest() != told["scenario_sha256"]:
        raise UnreadableFile(
            "its scenario is another than the one that was kept",
            source=str(folder / _SCENARIO),
            hint="a changed scenario is a new run: undertow stress run FILE --keep DIR",
        )
    scenario = read_scenario(text, source=str(folder / _SCENARIO))
    book = told["book"]
    try:
        source = Source(book.get("lake"), book.get("world"), book.get("seed"), book.get("as_of"),
                        book.get("at"))  # fmt: skip
        run = Run(**told["run"])
        channels = Channels.only(*told["channels"])
        failed = tuple(str(each) for each in told["failed"])
        scenario = replace(scenario, options=run.over(scenario.options))
        return KeptRun(scenario, source, run, channels, failed, str(told["inputs"]),
                       dict(book.get("versions", {})), str(told["undertow"]))  # fmt: skip
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise _damaged(folder) from error


def require_known(name: str) -> None:
    """Refuse a name that is neither a kept run, nor a scenario, and say what there is.

    Raises
    ------
    UnusableOption
        When it names nothing, or a file that holds neither.
    """
    path = Path(name)
    if path.is_dir() or path.suffix == ".toml" or name in scenario_names():
        return
    if not path.is_file():
        near = get_close_matches(name, [*_kept_in(path.parent), *scenario_names()], cutoff=0.5)
        raise UnusableOption(
            f"no kept run and no scenario is called {name!r}",
            hint=(f"did you mean {', '.join(near)}? " if near else "")
            + f"{_kept_here(path.parent)}; {_KEEPING}; `undertow stress list` names the replays",
        )
    if path.name == _RUN and is_whole(path.parent):
        raise UnusableOption(
            f"{name!r} is a file of a kept run, which is a folder",
            hint=f"undertow trace {path.parent}",
        )
    try:
        read_scenario(path.read_text(encoding="utf-8"), source=name)
    except (UnreadableFile, StateError, OSError, UnicodeDecodeError) as error:
        raise UnusableOption(
            f"{name!r} holds neither a kept run, which is a folder, nor a scenario, which is TOML",
            hint=f"{_kept_here(path.parent)}; what --json or --out gave cannot be traced; "
            f"{_KEEPING}",
        ) from error


def is_whole(folder: Path) -> bool:
    """Whether a folder is that of a kept run."""
    return all((folder / name).is_file() for name in (_RUN, _SCENARIO))


def _kept_in(folder: Path) -> list[str]:
    """Kept runs in a folder, as a command names them from here."""
    try:
        inner = sorted(each for each in folder.iterdir() if each.is_dir())
        return [str(each) for each in inner if is_whole(each)]
    except OSError:  # no folder, or one that may not be looked into
        return []


def _kept_here(folder: Path) -> str:
    where = "here" if folder == Path() else f"in {folder}"
    runs = _kept_in(folder)
    return f"runs kept {where} are {listed(runs)}" if runs else f"no run is kept {where}"


def _told(folder: Path) -> dict[str, Any]:
    path = folder / _RUN
    if not path.is_file():
        inside = _kept_in(folder)
        raise UnreadableFile(
            "holds no kept run" + (f" itself, but {listed(inside)}" if inside else ""),
            source=str(folder),
            hint=f"undertow trace {inside[0]}" if inside
            else f"{_kept_here(folder.parent)}; {_KEEPING}; a scenario goes by its name",
        )  # fmt: skip
    try:
        if path.stat().st_size > _LARGEST:
            raise _damaged(folder)
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        said = told.get("format") if isinstance(told, dict) else None
        raise UnreadableFile(f"is of format {said!r}, and {FORMAT} is read", source=str(path))
    if {"scenario_sha256", "book", "run", "channels", "failed", "inputs", "undertow"} - set(told):
        raise _damaged(folder)
    return told


def _damaged(folder: Path) -> UnreadableFile:
    return UnreadableFile(
        "is damaged or was changed", source=str(folder / _RUN), hint="keep the run again"
    )


def chosen_channels(only: str | None, without: str | None, default: Channels) -> Channels:
    """The channels that `--only` and `--without` leave on.

    Raises
    ------
    StateError
        When there is no channel of a name.
    UnusableOption
        When none is left.
    """
    found = default
    if only is not None:
        found = Channels.only(*(CHANNELS if only.strip() == "all" else _words(only)))
    if without is not None:
        found = found.without(*_words(without))
    if not found.on:
        raise UnusableOption(
            "no channel is left on", hint=f"channels are {', '.join(CHANNELS)}, or all"
        )
    return found


def _words(text: str) -> list[str]:
    return [word for word in (part.strip().replace("-", "_") for part in text.split(",")) if word]
