"""A user's paths as plain files: folders opened, archives unpacked within bounds, nothing followed.

Whatever is wrong with a file is found here before anything is written to the lake: a path that is
no file, a file that is too large, an archive that is damaged, that grows without end, or that names
members outside itself.
"""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from undertow.errors import SourceError, UnreadableFile

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
PACKED = (".gz", ".zip")
_CHUNK = 1 << 20
_NO_JUDGEMENT = 32 << 20  # unpacked bytes under which no ratio is suspicious
_MEGA = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be; beyond, it is refused before it costs memory or disk."""

    file_bytes: int = 20 << 30
    unpacked_bytes: int = 20 << 30
    ratio: float = 200.0  # unpacked over packed
    members: int = 1000
    line_bytes: int = 1 << 20
    columns: int = 512
    rows: int = 500_000_000
    rejects: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """One plain file of rows: where it lies, what a message calls it, what it claims to be."""

    path: Path
    name: str  # as the user knows it; members of archives are `archive.zip/member.csv`
    stem: str  # the table that it is meant for, unless something else says so
    format: str


def sources(paths: Iterable[str | Path], limits: Limits, folder: Path) -> list[Source]:
    """Every plain file that `paths` stand for, in order; archives are unpacked into `folder`.

    Raises
    ------
    UnreadableFile
        At the first path that cannot be taken.
    """
    found: list[Source] = []
    for path in paths:
        for each in _files(Path(path)):
            found.extend(_plain(each, limits, folder / str(len(found))))
    if not found:
        raise SourceError("there is no file to read", hint="name files or a folder that holds them")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        try:
            inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        except PermissionError as error:
            raise _unpermitted(path.name) from error
        files = [p for p in inside if _ending(p.name) is not None]
        if not files:
            raise UnreadableFile(
                "the folder holds no file that can be read",
                source=path.name or str(path),
                hint=f"files end in {_endings()}",
            )
        return files
    return [path]


def _ending(name: str) -> str | None:
    """What `name` claims to be: a format, or `zip`."""
    suffixes = [s.lower() for s in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] == ".zip":
        return "zip"
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _endings() -> str:
    return f"{', '.join(FORMATS)}, each also with .gz, or .zip"


def _stem(name: str) -> str:
    bare = PurePosixPath(name).name
    for ending in (*PACKED, *FORMATS):
        bare = bare[: -len(ending)] if bare.lower().endswith(ending) else bare
    return bare


def _plain(path: Path, limits: Limits, folder: Path) -> Iterator[Source]:
    name = path.name
    _check_file(path, limits)
    ending = _ending(name)
    if ending is None:
        raise UnreadableFile(
            f"the ending {path.suffix!r} is not known", source=name, hint=f"use {_endings()}"
        )
    try:
        if ending == "zip":
            folder.mkdir(parents=True)
            yield from _members(path, limits, folder)
        elif path.suffix.lower() == ".gz":
            folder.mkdir(parents=True)
            target = folder / "0"
            with broken(name), gzip.open(path, "rb") as packed:
                _unpack(packed, target, path.stat().st_size, limits, name)
            _refuse_nested(target, name)
            yield Source(target, name, _stem(name), ending)
        else:
            yield Source(path, name, _stem(name), ending)
    except PermissionError as error:
        raise _unpermitted(name) from error


def _check_file(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
    except PermissionError as error:
        raise _unpermitted(path.name) from error
    except (OSError, ValueError) as error:
        what = "is a link that points nowhere" if path.is_symlink() else "there is no such file"
        raise UnreadableFile(what, source=path.name, hint="check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile("is not a plain file", source=path.name, hint="give a file of rows")
    if status.st_size == 0:
        raise UnreadableFile(
            "is empty", source=path.name, hint="export it again; a file without rows has a header"
        )
    if status.st_size > limits.file_bytes:
        size, most = status.st_size // _MEGA, limits.file_bytes // _MEGA
        raise UnreadableFile(
            f"has {size} MB, and {most} MB are taken", source=path.name, hint="split the file"
        )
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise _unpermitted(path.name) from error
    except OSError as error:
        raise UnreadableFile(
            f"cannot be opened: {error.strerror}", source=path.name, hint="check the disk"
        ) from error


def _unpermitted(name: str) -> UnreadableFile:
    return UnreadableFile(
        "may not be read", source=name, hint="give yourself permission to read the file"
    )


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Whatever a damaged archive makes Python raise, in one line."""
    try:
        yield
    except (
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise UnreadableFile(
            f"the archive is damaged or cut short: {error}",
            source=name,
            hint="fetch or pack it again",
        ) from error
    except RuntimeError as error:  # an encrypted member
        raise UnreadableFile(
            f"the archive cannot be opened: {error}", source=name, hint="unpack it first"
        ) from error


def _members(path: Path, limits: Limits, folder: Path) -> Iterator[Source]:
    with broken(path.name), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        members = [m for m in members if not m.filename.startswith("__MACOSX/")]
        if not members:
            raise UnreadableFile("the archive is empty", source=path.name, hint="pack it again")
        if len(members) > limits.members:
            raise UnreadableFile(
                f"the archive has {len(members)} members, and {limits.members} are taken",
                source=path.name,
                hint="split it",
            )
        names = [m.filename for m in members]
        for member in members:
            _check_member(path.name, member, names)
        room = limits.unpacked_bytes
        for number, member in enumerate(members):
            shown = f"{path.name}/{member.filename}"
            ending = _ending(member.filename)
            if ending in (None, "zip") or member.filename.lower().endswith(PACKED):
                nested = ending == "zip" or member.filename.lower().endswith(PACKED)
                what = "an archive inside an archive" if nested else "its ending is not known"
                raise UnreadableFile(what, source=shown, hint=f"pack plain files: {_endings()}")
            target = folder / str(number)
            with archive.open(member) as packed:
                room -= _unpack(packed, target, member.compress_size, limits, shown, room)
            _refuse_nested(target, shown)
            stem = _stem(path.name) if len(members) == 1 else _stem(member.filename)
            yield Source(target, shown, stem, str(ending))


def _check_member(archive: str, member: zipfile.ZipInfo, names: list[str]) -> None:
    name = member.filename
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\", "~")) or (len(name) > 1 and name[1] == ":"):
        raise UnreadableFile(
            f"a member is named {name!r}, outside the archive",
            source=archive,
            hint="an honest archive names files inside itself; pack it again",
        )
    if not name.isprintable():
        raise UnreadableFile(
            f"a member's name {name!r} holds control characters", source=archive, hint="rename it"
        )
    if names.count(name) > 1:
        raise UnreadableFile(f"two members are named {name!r}", source=archive, hint="keep one")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UnreadableFile(f"the member {name!r} is a link", source=archive, hint="pack the file")
    if member.file_size == 0:
        raise UnreadableFile("is empty", source=f"{archive}/{name}", hint="leave it out")


def _unpack(
    packed: IO[bytes] | gzip.GzipFile,
    target: Path,
    size: int,
    limits: Limits,
    name: str,
    room: int | None = None,
) -> int:
    """Unpack into `target` chunk by chunk, and stop at the first byte too many."""
    most = limits.unpacked_bytes if room is None else room
    written = 0
    with target.open("wb") as plain:
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            grown = written > _NO_JUDGEMENT and written > limits.ratio * max(size, 1)
            if written > most or grown:
                raise UnreadableFile(
                    f"unpacks to more than {written // _MEGA} MB from {size} bytes",
                    source=name,
                    hint="if it is what it should be, unpack it yourself and give the plain file",
                )
            plain.write(chunk)
    if written == 0:
        raise UnreadableFile("is empty", source=name, hint="pack it again")
    return written


def _refuse_nested(path: Path, name: str) -> None:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic[:2] == b"\x1f\x8b" or magic in (b"PK\x03\x04", b"PK\x05\x06"):
        raise UnreadableFile(
            "an archive inside an archive", source=name, hint="unpack it once and try again"
        )
