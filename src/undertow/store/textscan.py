"""One pass over a text file before it is parsed: encoding, line lengths, and rows of a wrong width.

Reads the file in chunks, so that a line of four gigabytes is refused after its first megabyte. A
record is what stands between line ends that no quote encloses; record 0 of a CSV is its header.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from undertow.errors import UnreadableFile
from undertow.store.unpack import Limits

_CHUNK = 1 << 20
_NEWLINE, _RETURN, _QUOTE = 10, 13, 34
_WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_BOM = codecs.BOM_UTF8
_SHOWN = 4096


@dataclass(slots=True)
class Scan:
    """What the pass found."""

    digest: str = ""
    records: int = 0
    header: list[str] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)  # records without a single character
    uneven: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # fields, from, to byte


def scan_text(path: Path, name: str, limits: Limits, *, separator: str | None = None) -> Scan:
    """Read through the text file once; with a `separator` it is a CSV, and its rows are measured.

    Raises
    ------
    UnreadableFile
        When it is not UTF-8, holds NUL bytes, has a line too long, or a quote that never closes.
    """
    walk = _Walk(name, limits, separator)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            walk.take(chunk)
    walk.end()
    scan = walk.scan
    if separator is not None:
        with path.open("rb") as stream:
            first = stream.read(walk.first_end).removeprefix(_BOM).decode()
        scan.header = next(csv.reader([first], delimiter=separator), [])
    return scan


def raw_record(path: Path, begin: int, end: int) -> str:
    """The text of one record, shortened if it is very long."""
    with path.open("rb") as stream:
        stream.seek(begin)
        return stream.read(min(end - begin, _SHOWN)).decode("utf-8", "replace").rstrip("\r\n")


class _Walk:
    """The state that the pass carries from chunk to chunk."""

    def __init__(self, name: str, limits: Limits, separator: str | None) -> None:
        self.name, self.limits = name, limits
        self.separator = None if separator is None else ord(separator)
        self.decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self.hash = hashlib.blake2b(digest_size=16)
        self.scan = Scan()
        self.offset = 0  # bytes before this chunk
        self.begin = 0  # first byte of the record that is open
        self.parity = 0  # 1 inside quotes
        self.seps = 0  # separators so far in the record that is open
        self.width = -1
        self.first_end = 0
        self.last = _NEWLINE
        self.returns = False

    def take(self, chunk: bytes) -> None:
        """Look at the next chunk."""
        if self.offset == 0:
            self._check_start(chunk)
        self.hash.update(chunk)
        at = chunk.find(0)
        if at >= 0:
            self._refuse("holds a NUL byte", "it is binary, or damaged; export it again as text")
        try:
            self.decoder.decode(chunk)
        except UnicodeDecodeError as error:
            self._refuse(
                f"is not UTF-8 (byte {self.offset + error.start})",
                "save it as UTF-8, without another encoding",
            )
        data = np.frombuffer(chunk, dtype=np.uint8)
        newline = data == _NEWLINE
        outside = self._outside(data) if self.separator is not None else None
        if outside is not None:
            newline &= outside
        ends = np.flatnonzero(newline)
        self._measure(data, ends, outside)
        self.last = int(data[-1])
        self.returns |= bool(ends.size == 0 and (data == _RETURN).any())
        self.offset += data.size
        if self.offset - self.begin > self.limits.line_bytes:
            self._too_long()

    def end(self) -> None:
        """The file is over."""
        try:
            self.decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self._refuse("ends inside a character", "it is cut short; fetch it again")
        if self.parity:
            self._refuse("a quote is opened and never closed", "close it, or double a quote inside")
        if self.offset > self.begin:
            last = np.array([self.offset]), np.array([self.seps]), np.array([self.last])
            if self.separator is None:
                self._lengths(last[0])
                self.scan.records += 1
            else:
                self._records(*last, closed=False)
        if self.returns and self.scan.records == 1:
            self._refuse("its lines end in carriage returns alone", "save it with line feeds")
        self.scan.digest = self.hash.hexdigest()

    def _check_start(self, chunk: bytes) -> None:
        for mark, encoding in _WIDE.items():
            if chunk.startswith(mark):
                self._refuse(f"is {encoding}", "save it as UTF-8")
        for magic, what in (
            (b"PAR1", "Parquet"),
            (b"ARROW1", "Arrow"),
            (b"\x1f\x8b", "gzip"),
            (b"PK\x03\x04", "zip"),
            (b"\x28\xb5\x2f\xfd", "zstandard"),
        ):
            if chunk.startswith(magic):
                self._refuse(f"is {what}, not text", "give it the ending that says what it is")

    def _outside(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
        quotes = data == _QUOTE
        if not quotes.any():
            if not self.parity:
                return None
            return np.zeros(data.size, dtype=np.bool_)
        parity = (np.cumsum(quotes) + self.parity) & 1
        self.parity = int(parity[-1])
        outside: npt.NDArray[np.bool_] = parity == 0
        return outside

    def _measure(
        self,
        data: npt.NDArray[np.uint8],
        ends: npt.NDArray[np.intp],
        outside: npt.NDArray[np.bool_] | None,
    ) -> None:
        if self.separator is None:
            if ends.size:
                self._lengths(self.offset + ends + 1)
                self.scan.records += ends.size
            return
        seps = data == self.separator
        if outside is not None:
            seps &= outside
        if not ends.size:
            self.seps += int(np.count_nonzero(seps))
            return
        total = np.cumsum(seps)
        counts = np.diff(total[ends], prepend=0)
        counts[0] += self.seps
        self.seps = int(total[-1] - total[ends[-1]])
        before = np.where(ends > 0, data[np.maximum(ends - 1, 0)], self.last)
        self._records(self.offset + ends + 1, counts, before)

    def _lengths(self, ends: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        begins = np.concatenate([[self.begin], ends[:-1]])
        lengths = ends - begins
        if int(lengths.max()) > self.limits.line_bytes:
            self.scan.records += int(lengths.argmax())
            self._too_long()
        self.begin = int(ends[-1])
        return begins

    def _records(
        self,
        ends: npt.NDArray[np.intp],
        counts: npt.NDArray[np.intp],
        before: npt.NDArray[np.integer[Any]],
        *,
        closed: bool = True,
    ) -> None:
        """Take records that end before the bytes `ends`; `before` is each one's last character."""
        begins = self._lengths(ends)
        blank = ends - begins - int(closed) - (before == _RETURN) <= 0
        if self.width < 0:
            self.width = int(counts[0])
            self.first_end = int(ends[0])
            if self.width + 1 > self.limits.columns:
                self._refuse(
                    f"has {self.width + 1} columns, and {self.limits.columns} are taken",
                    "drop columns",
                )
        uneven = np.flatnonzero((counts != self.width) & ~blank)
        if len(self.scan.uneven) + uneven.size > self.limits.rejects:
            self._refuse("too many rows lack or exceed the header's fields", "check the separator")
        for i in uneven.tolist():
            place = (int(counts[i]) + 1, int(begins[i]), int(ends[i]))
            self.scan.uneven[self.scan.records + i] = place
        self.scan.blank.extend((self.scan.records + np.flatnonzero(blank)).tolist())
        self.scan.records += ends.size
        if self.scan.records > self.limits.rows + 1:
            self._refuse(f"has more than {self.limits.rows} rows", "split the file")

    def _too_long(self) -> NoReturn:
        self._refuse(
            f"a line is longer than {self.limits.line_bytes} bytes",
            "it may be binary, or lack line ends; export it again",
        )

    def _refuse(self, what: str, hint: str) -> NoReturn:
        row = self.scan.records if self.scan.records else None
        raise UnreadableFile(what, source=self.name, row=row, hint=hint)
