"""The first page: what this is, what was found, on what data, by what code."""

from __future__ import annotations

from collections.abc import Sequence

from undertow.report.assessed import Assessed
from undertow.report.markup import Anchors, Markup, join, tag
from undertow.report.pieces import (
    badge,
    called,
    card,
    downloads,
    facts,
    folded,
    prose,
    readings_kept,
    readings_table,
    sheet,
)
from undertow.report.words import instant, measured, tied
from undertow.state import Reading

_KNOWN = {
    "observed": "made of data that was seen in full",
    "sampled": "made of data that was seen in part",
    "modelled": "made of what a model says, not of data alone",
}
_OF_INPUTS = (
    "That is what a number was made of, and not how sure it is: something that was fitted to data "
    "that was seen in full is “observed” as well. How sure it is, its band says."
)


def first_page(assessment: Assessed, places: Sequence[str], anchors: Anchors) -> Markup:
    """What a committee reads first; `places` says where on the page each study stands."""
    return tag(
        "section",
        tag("h2", "At a glance"),
        tag("div", *map(prose, what_this_is(assessment)), class_="lead"),
        _notes(assessment.notes),
        _key(),
        tag("h3", "Headlines"),
        _cards(assessment.headlines),
        tag("h3", "What was found"),
        _verdicts(assessment, places),
        tag("h3", "Data quality"),
        _quality(assessment, anchors),
        _alone(assessment, anchors),
        tag("h3", "Where it comes from"),
        _provenance(assessment),
        id="glance",
        class_="page",
        data_page=True,
    )


def what_this_is(assessment: Assessed) -> tuple[str, str]:
    """Two sentences for somebody who opens such a page for the first time."""
    known = (
        f", as it was known at {instant(assessment.as_of)}" if assessment.as_of is not None else ""
    )
    found = (
        f"This page says how far leverage stood, moved and could unwind together across the system "
        f"at {instant(assessment.ts)}{known}: what was found, how sure it is, and what would make "
        f"it wrong."
    )
    stands = (
        "Every number carries its unit, its band and how it is known, every table can be kept, and "
        "all of it can be made again from what stands under “Where it comes from”; the page itself "
        "asks nothing of any network."
    )
    return found, stands


def _notes(notes: tuple[str, ...]) -> Markup | None:
    if not notes:
        return None
    return tag(
        "aside",
        tag("p", tag("strong", "Before you read on")),
        tag("ul", *(tag("li", tied(note)) for note in notes)),
        class_="notes",
        aria_label="Before you read on",
    )


def _key() -> Markup:
    entries = (tag("li", badge(word), f" {meaning}") for word, meaning in _KNOWN.items())
    key = tag("ul", *entries, class_="key", aria_label="What a number was made of")
    return join(key, prose(_OF_INPUTS, "small"))


def _cards(headlines: tuple[Reading, ...]) -> Markup:
    if not headlines:
        return prose("No headline could be published.", "empty")
    return tag("div", *map(card, headlines), class_="cards")


def _verdicts(assessment: Assessed, places: Sequence[str]) -> Markup:
    if not assessment.studies:
        return prose("Nothing was measured: there was no study to show.", "empty")
    entries = (
        tag(
            "li",
            tag("a", study.title, href=f"#{anchor}"),
            ": ",
            tied(study.says[0]) if study.says else "nothing was said.",
            " ",
            _headline(study.headline),
        )
        for study, anchor in zip(assessment.studies, places, strict=True)
    )
    return tag("ol", *entries, class_="verdicts")


def _headline(reading: Reading | None) -> Markup | None:
    if reading is None:
        return None
    said = f"{called(reading)}: {measured(reading.value, reading.unit)}"
    return tag("span", said, " ", badge(reading.evidence), class_="small", title=reading.definition)


def _quality(assessment: Assessed, anchors: Anchors) -> Markup:
    quality = assessment.quality
    if not quality.width or not quality.height:
        return prose("Nothing is known of the quality of the data.", "empty")
    caption = "What each table held, and what it lacked"
    source = f"data quality at {instant(assessment.ts)}"
    if assessment.ages_from is not None:
        caption += f"; as old as at {instant(assessment.ages_from)}"
    return join(
        sheet(quality, caption, source, anchors.of("table", "quality"), most=quality.height),
        downloads(quality, "quality", anchors),
    )


def _alone(assessment: Assessed, anchors: Anchors) -> Markup | None:
    """All readings of the assessment, to be kept."""
    if not assessment.readings:
        return None
    frame = readings_kept(assessment.readings)
    table = readings_table(
        assessment.readings, "Those of all studies", anchors.of("table", "readings")
    )
    return folded(f"All {frame.height:,} readings", table, downloads(frame, "readings", anchors))


def _provenance(assessment: Assessed) -> Markup:
    if not assessment.provenance:
        return prose("It was not said where this comes from.", "empty")
    return facts(assessment.provenance)
