"""What figures share: names that fit, series in a telling order, bands, and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from undertow.report.ink import GREY, literal
from undertow.report.markup import clean
from undertow.report.words import number

LONGEST = 26  # letters of a name in a figure; tables have all of it
_TAIL = 10  # letters of its last words
_WIDE = 18  # letters of a line over a panel


def short(name: str) -> str:
    """A name that fits beside an axis, and that the figure takes as text and not as markup."""
    whole = " ".join(clean(str(name)).split()) or "(no name)"
    return literal(whole if len(whole) <= LONGEST else _between_words(whole))


def _between_words(whole: str) -> str:
    """The first words and the last ones; of a name that has none short enough, its two ends."""
    words = whole.split()
    last = _fitting(reversed(words), _TAIL)
    first = _fitting(words, LONGEST - 3 - len(" ".join(last)))
    if not last or len(" ".join([*first, *last])) < LONGEST // 2:
        return f"{whole[: LONGEST - 9]}…{whole[-8:]}"
    return f"{' '.join(first)} … {' '.join(reversed(last))}"


def _fitting(words: Iterable[str], room: int) -> list[str]:
    """As many words as there is room for."""
    kept: list[str] = []
    for word in words:
        if len(" ".join([*kept, word])) > room:
            break
        kept.append(word)
    return kept


def labels(names: Sequence[str]) -> dict[str, str]:
    """Short names of series; two that would look the same are numbered apart."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        label, count = short(name), 1
        while label in taken:
            count += 1
            label = f"{short(name)} ({count})"
        taken.add(label)
        given[name] = label
    return given


def stacked(titles: Iterable[str]) -> list[str]:
    """Titles of panels, a word a line where they are long, so that none runs into the next."""
    return ["<br>".join(wrap(title, _WIDE)) for title in titles]


def square(pairs: pl.DataFrame, names: Sequence[str], value: str) -> np.ndarray[Any, Any]:
    """Values of pairs as a symmetric matrix; NaN where a pair is missing, and on the diagonal."""
    place = {name: i for i, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    for a, b, found in pairs.select("a", "b", value).iter_rows():
        if found is not None and a != b and a in place and b in place:
            matrix[place[a], place[b]] = matrix[place[b], place[a]] = found
    return matrix


def alike(matrix: np.ndarray[Any, Any]) -> list[int]:
    """The order that puts series that move together side by side (average linkage on 1 - value)."""
    count = len(matrix)
    if count < 3:
        return list(range(count))
    apart = np.where(np.isfinite(matrix), 1.0 - matrix, 1.0)
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(np.maximum(apart, 0.0), checks=False), "average")
    return [int(i) for i in leaves_list(tree)]


def plain(values: Any) -> list[Any]:
    """Values as plain numbers and text, None where there is none: a figure others can read too."""
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return [plain(row) for row in values]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def times(column: pl.Series) -> list[str | None]:
    """Instants as plotly takes them: UTC without a zone."""
    if column.dtype.is_integer() or column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    elif isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return [None if each is None else _iso(each) for each in column]


def _iso(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(sep=" ")


def milliseconds(text: str) -> float:
    """An instant as plotly measures lengths of time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000.0


def band_lines(
    rows: pl.DataFrame, low: str, high: str, places: Sequence[Any], *, upright: bool = False
) -> go.Scatter:
    """The band of each row as a line at its place; a row without a band has none."""
    along: list[Any] = []
    across: list[Any] = []
    for place, a, b in zip(places, plain(rows[low]), plain(rows[high]), strict=True):
        if a is not None and b is not None:
            along += [a, b, None]
            across += [place, place, None]
    x, y = (across, along) if upright else (along, across)
    line = {"color": GREY, "width": 3}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def logarithmic(*columns: pl.Series) -> dict[str, Any]:
    """An axis on which equal steps multiply, with ticks that say whole numbers and not digits."""
    known = [v for column in columns for v in column.drop_nulls() if v > 0]
    apart = max(known) / min(known) if known else 1.0
    return {
        "type": "log",
        "tickformat": "~g",
        "dtick": 1 if apart > 1e4 else "D2" if apart >= 5.0 else None,
    }


def ribbon(
    at: Sequence[Any], low: pl.Series, high: pl.Series, color: str, name: str
) -> list[go.Scatter]:
    """A band as an area between two lines that are not drawn."""
    shape = {"mode": "lines", "line": {"width": 0}, "x": at, "legendgroup": name}
    return [
        go.Scatter(y=plain(low), hoverinfo="skip", showlegend=False, **shape),
        go.Scatter(
            y=plain(high), fill="tonexty", fillcolor=color, name=name,
            customdata=plain(low), hovertemplate="band %{customdata:.4g} to %{y:.4g}", **shape,
        ),
    ]  # fmt: skip


def banded(rows: pl.DataFrame, value: str, low: str, high: str) -> list[str]:
    """Value and band of each row in words, for hovering."""
    return [
        f"{number(v)}" + ("" if a is None or b is None else f" (band {number(a)} to {number(b)})")
        for v, a, b in rows.select(value, low, high).iter_rows()
    ]
