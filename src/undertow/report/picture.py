"""One figure of a study: its words, what it stands on, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import plotly.graph_objects as go

from undertow.report.together import Tables


@dataclass(frozen=True)
class Picture:
    """One figure of a study: drawn where its tables have rows and these columns, else left out.

    `beside` are tables of other studies, as study/table, that are drawn in where they are there.
    """

    study: str
    title: str
    caption: str  # how to read this one
    draw: Callable[[Tables], go.Figure]
    needs: Mapping[str, tuple[str, ...]]
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeats: tuple[str, str, str] | None = None  # two tables and a column: not drawn if it is alike
