"""What a file says without being wrong: it is taken, and whoever gave it should know.

A source of a snapshot table publishes its whole view at once, so a view that is cut in pieces, or
that lacks what stood before, is taken at its word; an instant far away is mostly a wrong unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import polars as pl

from undertow.schema import AsOf
from undertow.state.conform import empty
from undertow.store.delta import Root
from undertow.store.files import ROW
from undertow.store.prepare import Prepared, all_rejects
from undertow.store.reading import read_rows
from undertow.store.runs import Standing, microseconds

_WHO = {
    "positions": ["account"],
    "claims": ["debtor_kind", "debtor"],
    "free_assets": ["owner"],
    "pools": ["pool"],
}
_EARLIEST = microseconds(datetime(2009, 1, 1, tzinfo=UTC))
_DAY = 86_400_000_000


def notes_on(made: Prepared, now: int) -> list[str]:
    """What is odd about a file by itself."""
    stamps = pl.concat([empty(made.table)["ts"], *(frame["ts"] for frame in made.frames())])
    found = []
    for odd, when, unit in (
        (stamps.filter(stamps.to_physical() < _EARLIEST), "before 2009", "s, not ms"),
        (stamps.filter(stamps.to_physical() > now + _DAY), "more than a day ahead", "ms, not s"),
    ):
        if odd.len():
            first = odd.head(1).dt.strftime("%Y-%m-%dT%H:%M:%SZ")[0]
            rows = "1 row has" if odd.len() == 1 else f"{odd.len()} rows have"
            found.append(f"{rows} a ts {when}, the first {first}; is the unit {unit}?")
    if made.table.as_of is AsOf.SNAPSHOT:
        views = _columns(made.frames(), made, ["source", "ts"]).unique()
        counts = views.group_by("source").len().filter(pl.col("len") > 1).sort("source")
        found += [
            f"only the newest of {count} instants will hold for source {source}"
            for source, count in counts.iter_rows()
        ]
    return found


def notes_on_views(
    made: Prepared, root: Root, stands: Standing | None, earlier: Iterable[pl.DataFrame]
) -> list[str]:
    """What the new view of a source leaves out of what its view before had.

    `earlier` are rows that count as standing although they are not written.
    """
    who = _WHO.get(made.table.name)
    if who is None:
        return []
    columns = ["source", "ts", *who]
    before = _columns(earlier, made, columns)
    if stands is not None:
        held = read_rows(root, made.table.name, stands, columns=columns, ordered=False)
        before = pl.concat([before, held])
    refused = all_rejects(made)["row"]
    kept = (f.filter(~pl.col(ROW).is_in(refused.implode())) for f in made.frames())
    view = _newest(_columns(kept, made, columns))
    found = []
    for (source,), now in sorted(view.partition_by("source", as_dict=True).items()):
        was = _newest(before.filter(pl.col("source") == source))
        newer = was.height and now["ts"][0] > was["ts"][0]
        if newer and was.join(now, on=who, how="anti").height:
            things = "legs" if made.table.name == "positions" else "rows"
            found.append(
                f"source {source}: {was.height} {things} before, {now.height} now; "
                "what is not in this view is gone"
            )
    return found


def _columns(frames: Iterable[pl.DataFrame], made: Prepared, columns: list[str]) -> pl.DataFrame:
    nothing = empty(made.table).select(columns)
    return pl.concat([nothing, *(frame.select(columns) for frame in frames)])


def _newest(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("ts") == pl.col("ts").max().over("source"))
