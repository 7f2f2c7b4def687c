"""Which study has which figures, and which columns each of them stands on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import plotly.graph_objects as go
import polars as pl
from polars import selectors as cs

from undertow.measures.study import Study
from undertow.report.crowding_pictures import CROWDING
from undertow.report.picture import Picture
from undertow.report.tandem_pictures import TANDEM
from undertow.report.web_pictures import INTERCONNECTION

_INSTANTS = frozenset({"ts", "start", "peak", "end"})

PICTURES: tuple[Picture, ...] = (*TANDEM, *CROWDING, *INTERCONNECTION)


def drawn(study: Study, others: Iterable[Study]) -> list[tuple[Picture, go.Figure]]:
    """The figures of a study that its tables can carry."""
    aside = {
        f"{other.name}/{name}": table for other in others for name, table in other.tables.items()
    }
    found = []
    for picture in PICTURES:
        if picture.study != study.name:
            continue
        own = _carried(study.tables, picture.needs)
        if len(own) == len(picture.needs) and not _repeated(study.tables, picture):
            found.append((picture, picture.draw({**_carried(aside, picture.beside), **own})))
    return found


def _repeated(tables: Mapping[str, pl.DataFrame], picture: Picture) -> bool:
    """Whether another figure says the same already: nodes that are assets, say."""
    if picture.repeats is None:
        return False
    one, other, column = picture.repeats
    return other in tables and set(tables[one][column]) == set(tables[other][column])


def _carried(
    tables: Mapping[str, pl.DataFrame], needs: Mapping[str, tuple[str, ...]]
) -> dict[str, pl.DataFrame]:
    """Those tables that have rows, and every column that is needed of them."""
    return {
        name: sound
        for name, columns in needs.items()
        if name in tables
        and set(columns) <= set(tables[name].columns)
        and _speaks(sound := _sound(tables[name], columns))
    }


def _speaks(table: pl.DataFrame) -> bool:
    """Whether there is anything to draw: rows, and in them a number that was measured."""
    measured = table.select(cs.float() - cs.starts_with("p_"))
    if not measured.width:
        return table.height > 0
    return any(column.null_count() < column.len() for column in measured)


def _sound(table: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns that are needed; what is no number is null, and no row lacks its instant."""
    kept = table.select(columns)
    kept = kept.with_columns(pl.col(pl.Null).cast(pl.Float64))
    kept = kept.with_columns(
        pl.when(cs.float().is_finite()).then(cs.float()), cs.string().fill_null("")
    )
    return kept.drop_nulls([name for name in columns if name in _INSTANTS])
