"""A page for each family of measures, and a chapter on it for each study."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from undertow.measures.study import Study
from undertow.report.ink import note_of, sourced
from undertow.report.markup import NOTHING, Anchors, Markup, data_block, join, tag
from undertow.report.picture import Picture
from undertow.report.pictures import drawn
from undertow.report.pieces import (
    ON_PAPER,
    badge,
    definitions,
    downloads,
    folded,
    prose,
    readings_kept,
    readings_table,
    sheet,
)
from undertow.report.words import heading, instant, tied
from undertow.schema import EVIDENCE

_TITLES = {
    "tandem": "Tandem: leverage that moves together, and unwinds together",
    "crowding": "Crowding: who stands in the same place, and how near the edge",
    "decoupling": "Decoupling: derivative against spot",
    "cross_asset": "Cross-asset: collateral in one asset, position in another",
    "interconnection": "Interconnection: the same owner, collateral and plumbing",
}


_UNTOLD = "The verdict is that this cannot be told; what there is of it is drawn all the same."


def untold(study: Study) -> bool:
    """Whether the verdict is that there is none."""
    return bool(study.says) and "cannot be told" in study.says[0].partition(":")[0]


def family_of(study: Study) -> str:
    """The family that a study belongs to."""
    return study.name.partition(".")[0]


def title_of(family: str) -> str:
    """A family's name as a heading."""
    return _TITLES.get(family, heading(family).capitalize() or "Other")


def page(
    family: str,
    studies: Sequence[tuple[Study, str]],
    everything: Sequence[Study],
    anchor: str,
    anchors: Anchors,
) -> Markup:
    """All studies of one family, each beside the anchor that leads to it."""
    chapters = (_chapter(study, at, everything, anchors) for study, at in studies)
    return tag("section", tag("h2", title_of(family)), *chapters,
               id=anchor, class_="page", data_page=True)  # fmt: skip


def _chapter(study: Study, anchor: str, everything: Sequence[Study], anchors: Anchors) -> Markup:
    known = [word for word in EVIDENCE if word in {r.evidence for r in study.readings}]
    when = max((r.ts for r in study.readings), default=None)
    source = f"{study.name}, at {instant(when)}, {' and '.join(known) or 'evidence not stated'}"
    verdict, *more = study.says or ("Nothing was said.",)
    return tag(
        "article",
        tag("h3", study.title, id=f"{anchor}-title"),
        tag("p", tag("code", study.name), " ", *(join(badge(word), " ") for word in known),
            f"at {instant(when)}" if when is not None else None, class_="small"),
        prose(verdict, "verdict"),
        *map(prose, more),
        *_figures(study, everything, known, source, anchors),
        _numbers(study, anchors),
        tag("h4", "How to read it"),
        prose(study.how_to_read.replace("`", "") or "Nothing is written about it."),
        tag("h4", "When it misleads"),
        prose(study.misleads.replace("`", "") or "Nothing is written about it."),
        _left_out(study, anchors),
        _tables(study, source, anchors),
        id=anchor,
        class_="study",
        aria_labelledby=f"{anchor}-title",
    )  # fmt: skip


def _figures(
    study: Study, everything: Sequence[Study], known: Sequence[str], source: str, anchors: Anchors
) -> list[Markup]:
    found = drawn(study, everything)
    return [_figure(picture, figure, study, known, source, anchors) for picture, figure in found]


def _figure(
    picture: Picture,
    figure: object,
    study: Study,
    known: Sequence[str],
    source: str,
    anchors: Anchors,
) -> Markup:
    """A figure's place on the page, and its data; the page draws it when it comes in sight."""
    anchor = anchors.of("figure", study.name, picture.title)
    drawing = sourced(figure, source)
    height = int(drawing.layout.height)
    place = tag(
        "div",
        tag("p", "The figure is drawn when the page may run its script; its numbers are in the "
            "tables below.", class_="empty"),
        id=anchor,
        class_="plot",
        role="img",
        aria_label=f"{picture.title}. {picture.caption}",
        style=f"min-height:{height}px",
        data_figure=f"{anchor}-data",
    )  # fmt: skip
    parts = (_UNTOLD if untold(study) else "", picture.caption, note_of(drawing))
    words = tied(" ".join(part for part in parts if part))
    caption = tag(
        "figcaption",
        tag("strong", picture.title),
        " ",
        *(join(badge(w), " ") for w in known),
        words,
    )
    spelled = Markup(drawing.to_json())
    # where a study knows its numbers in several ways, the figure wears the weakest
    edge = f"plotted {known[-1]}" if known else "plotted"
    return tag("figure", caption, place, data_block(f"{anchor}-data", spelled), class_=edge)


def _on_paper(rows: int) -> Markup | None:
    if rows <= ON_PAPER:
        return None
    return prose(f"On paper the first {ON_PAPER} of {rows:,} rows.", "small paper")


def _numbers(study: Study, anchors: Anchors) -> Markup:
    if not study.readings:
        return prose("No reading of this study could be published.", "empty")
    table = readings_table(
        study.readings, "What was found, and how sure it is",
        anchors.of("table", study.name, "readings"),
    )  # fmt: skip
    kept = downloads(readings_kept(study.readings), f"{study.name}.readings", anchors)
    return join(tag("h4", "Readings"), table, kept, definitions(study.readings))


def _left_out(study: Study, anchors: Anchors) -> Markup:
    if not study.left_out:
        return NOTHING
    rows = pl.DataFrame(
        {"series": list(study.left_out), "reason": list(study.left_out.values())},
        schema={"series": pl.String, "reason": pl.String},
    )
    name = f"{study.name}.left_out"
    table = sheet(rows, "Series that were not used, and why", name, anchors.of("table", name))
    return join(
        tag("h4", "Left out"),
        folded(
            f"{rows.height:,} series left out", table, downloads(rows, name, anchors),
            class_="printed",
        ),
    )  # fmt: skip


def _tables(study: Study, source: str, anchors: Anchors) -> Markup:
    if not study.tables:
        return prose("This study keeps no tables.", "empty")
    parts = (
        folded(
            join(heading(name), tag("span", f" {frame.height:,} rows", class_="small")),
            sheet(frame, heading(name), f"{source}, table {name}",
                  anchors.of("table", study.name, name)),
            _on_paper(frame.height),
            downloads(frame, f"{study.name}.{name}", anchors),
            class_="printed short",
        )
        for name, frame in study.tables.items()
    )  # fmt: skip
    return join(tag("h4", "Tables"), *parts)
