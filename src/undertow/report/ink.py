"""Colours that keep their meaning, and the frame that every figure stands in.

Green, yellow and purple say how a number is known (observed, sampled, modelled) and nothing else;
figures are drawn in blues, reds and greys, which a colour-blind reader tells apart, on light and
on dark. Figures are transparent: the page gives them the ink of its theme.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

EVIDENCE = {"observed": "#12A37B", "sampled": "#D9A800", "modelled": "#A663CC"}

BLUE, RED, GREY = "#3A82C4", "#CF4F3F", "#8A919B"
MANY = ("#3A82C4", "#CF4F3F", "#8A919B", "#1F4E86", "#8F2A1E", "#8CBCE6", "#EFA294", "#5A616B")
HATCHES = ("", "/", "x", "\\", ".", "-", "+", "|")  # a second sign beside each of MANY
PALE = "#B4BAC2"  # of what is there, and not meant
FAINT = 0.55  # of a bar that a band lies on
BLUE_BAND, GREY_BAND, RED_BAND = (
    "rgba(58,130,196,0.22)",
    "rgba(138,145,155,0.22)",
    "rgba(207,79,63,0.16)",
)


@dataclass(frozen=True)
class Scale:
    """Colours of a heat map: on light, and on dark, where nothing is dark and not white."""

    light: tuple[str, ...]
    dark: tuple[str, ...]


SIGNED = Scale(
    ("#1B5FA8", "#7FB2DE", "#F1F1EE", "#E8937F", "#A8281B"),
    ("#7DBBF0", "#2F6EA8", "#262B33", "#A8503F", "#F59B87"),
)
RISING = Scale(("#EDF3F9", "#6FA8DC", "#123F73"), ("#232B36", "#3A82C4", "#D3E7FA"))

_NEUTRAL = "#7D858F"  # legible on white and on near-black, where no page sets the ink


def config() -> dict[str, Any]:
    """How plotly behaves in this house: nothing is sent anywhere, nothing is advertised."""
    return {
        "showSendToCloud": False,
        "displaylogo": False,
        "responsive": True,
        "scrollZoom": False,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
        "toImageButtonOptions": {"format": "svg"},
    }


def framed(figure: go.Figure, height: int, *, note: str = "", legend: bool = False) -> go.Figure:
    """Set the house's frame round a figure; `note` is what a reader must know of this drawing."""
    figure.layout.template = None  # a global default would change the bytes
    figure.update_annotations(font={"size": 12})
    figure.update_layout(
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": _NEUTRAL},
        margin={"l": 60, "r": 20, "t": _above(figure), "b": 44},
        showlegend=legend,
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 11},
            "traceorder": "normal",
        },
        hovermode="closest",
        bargap=0.25,
        uirevision="kept",
        meta={**(figure.layout.meta or {}), "note": note},
    )
    axis = {"automargin": True, "gridcolor": GREY_BAND, "zerolinecolor": GREY, "ticks": ""}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis, title_standoff=12)
    return figure


def _above(figure: go.Figure) -> int:
    """Room over a figure: for the page's buttons, and for titles of panels of several lines."""
    lines = max((str(each.text).count("<br>") + 1 for each in figure.layout.annotations), default=0)
    return 36 + 17 * lines


def coloured(figure: go.Figure, scale: Scale, title: str, low: float, high: float | None) -> None:
    """Give the heat maps of a figure one scale; the page swaps its colours with the theme."""
    figure.update_layout(
        coloraxis={
            "colorscale": _steps(scale.light),
            "cmin": low,
            "cmax": high,
            "cauto": high is None,
            "colorbar": {
                "title": {"text": title, "side": "right"},
                "thickness": 12,
                "len": 0.9,
                "outlinewidth": 0,
            },
        },
        meta={"light": _steps(scale.light), "dark": _steps(scale.dark)},
    )


def _steps(colors: tuple[str, ...]) -> list[list[Any]]:
    return [[k / (len(colors) - 1), color] for k, color in enumerate(colors)]


def note_of(figure: go.Figure) -> str:
    """What a reader must know of this drawing: what was left out to keep it legible."""
    return str((figure.layout.meta or {}).get("note", ""))


def hatch(shape: str) -> dict[str, Any]:
    """A second sign on a filled colour, for those who cannot tell colours apart."""
    faint = "rgba(255,255,255,0.45)"
    return {"shape": shape, "fillmode": "overlay", "fgcolor": faint, "size": 7, "solidity": 0.25}


def literal(text: str) -> str:
    """Text that a figure shows as it is: neither markup nor a template to be filled in."""
    return html.escape(re.sub(r"[{}%$]", "·", text), quote=False)


def sourced(figure: go.Figure, source: str) -> go.Figure:
    """Say in every hover where the number is from, of when, and how it is known."""
    said = f"<i>{literal(source)}</i>"
    together = figure.layout.hovermode == "x unified"  # one box for all lines: once, on top
    if together:
        figure.update_xaxes(unifiedhovertitle={"text": f"%{{x|%Y-%m-%d %H:%M}}Z<br>{said}"})
    for trace in figure.data:
        # flows hover by their boxes and by what runs between them
        parts = (trace.node, trace.link) if isinstance(trace, go.Sankey) else (trace,)
        for part in parts:
            if part.hoverinfo != "skip":
                part.hovertemplate += (
                    "<extra></extra>" if together else f"<br>{said}<extra></extra>"
                )
    return figure
