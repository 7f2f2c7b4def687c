"""What a report is made of: anything that has these columns can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # so that words and numbers can be had without seconds of imports
    from collections.abc import Mapping

    import polars as pl

    from undertow.measures.study import Study
    from undertow.state import Reading


class Assessed(Protocol):
    """One instant, judged: what was found, on which data, by which code."""

    @property
    def title(self) -> str:
        """What was judged, in a few words."""

    @property
    def ts(self) -> int:
        """The instant that is looked at, in microseconds, UTC."""

    @property
    def as_of(self) -> int | None:
        """When the newest of what was used became known, in microseconds, UTC."""

    @property
    def headlines(self) -> tuple[Reading, ...]:
        """The readings that stand on the first page."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every reading, those of the studies and those that stand alone."""

    @property
    def studies(self) -> tuple[Study, ...]:
        """What was measured, in the order in which it is to be read."""

    @property
    def quality(self) -> pl.DataFrame:
        """One row a table of the data: rows, newest, stale, rejects, whatever is known."""

    @property
    def ages_from(self) -> int | None:
        """The instant at which tables are as old as `quality` says; None where nobody said."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is needed to make every number again: lake, versions, code, seed, options."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before any number: an invented world, a table that is late."""
