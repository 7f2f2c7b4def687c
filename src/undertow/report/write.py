"""An assessment as the text of one HTML document that opens anywhere and asks nothing."""

from __future__ import annotations

from importlib.resources import files

from undertow.report.assessed import Assessed
from undertow.report.family import family_of, page, title_of
from undertow.report.front import first_page
from undertow.report.ink import EVIDENCE, config
from undertow.report.markup import Anchors, Markup, data_block, join, tag
from undertow.report.pieces import prose
from undertow.report.words import instant

# Nothing may be loaded, sent or embedded; what the page needs stands in it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
_RESERVED = ("glance", "main", "theme", "config", "undertow", "lost")


def html(assessment: Assessed) -> str:
    """The whole report as one document; the same assessment gives the same text."""
    anchors = Anchors()
    for name in _RESERVED:
        anchors.of(name)
    pages, contents = _pages(assessment, anchors)
    figures = 'class="plot"' in pages
    mute = prose("Without its script this page draws no figures: their numbers are in the tables, "
                 "and all pages stand one after the other.", "empty")  # fmt: skip
    lost = prose("There is no such place in this report; this is its first page.", "empty")
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#main", class_="skip"),
        _header(assessment),
        tag("nav", contents, aria_label="Pages"),
        tag(
            "main",
            tag("noscript", mute),
            tag("div", lost, id="lost", role="status", hidden=True),
            pages,
            id="main",
            tabindex=-1,
        ),
        data_block("config", config()),
        plotly_script() if figures else None,
        tag("script", Markup(_static("report.js"))),
    )
    return f'<!doctype html>\n<html lang="en">{_head(_full_title(assessment))}{body}</html>\n'


def _pages(assessment: Assessed, anchors: Anchors) -> tuple[Markup, Markup]:
    """All pages one after the other, and the way to each."""
    studies = tuple(assessment.studies)
    at = [anchors.of(study.name) for study in studies]
    order = list(dict.fromkeys(family_of(study) for study in studies))
    places = {family: anchors.of(family, "page") for family in order}
    placed = list(zip(studies, at, strict=True))
    mine = {f: [(s, a) for s, a in placed if family_of(s) == f] for f in order}
    pages = [first_page(assessment, at, anchors)]
    links = [tag("li", tag("a", "At a glance", href="#glance"))]
    for family in order:
        pages.append(page(family, mine[family], studies, places[family], anchors))
        inner = (tag("li", tag("a", s.title, href=f"#{a}")) for s, a in mine[family])
        short = title_of(family).partition(":")[0]
        links.append(tag("li", tag("a", short, href=f"#{places[family]}"), tag("ul", *inner)))
    return join(*pages), tag("ul", *links)


def _head(title: str) -> Markup:
    colors = "".join(f"--{word}:{color};" for word, color in EVIDENCE.items())
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(f":root{{{colors}}}\n{_static('report.css')}")),
    )


def _full_title(assessment: Assessed) -> str:
    """What tells one tab from the next: what was judged, in which lake, at which instant."""
    lake = str(assessment.provenance.get("lake", "")).rstrip("/")
    place = "/".join(lake.rsplit("/", 2)[-2:])
    parts = (assessment.title, place, instant(assessment.ts))
    return " · ".join(part for part in parts if part)


def _header(assessment: Assessed) -> Markup:
    known = f" · known at {instant(assessment.as_of)}" if assessment.as_of is not None else ""
    lake = f"lake {assessment.provenance['lake']} " if "lake" in assessment.provenance else ""
    return tag(
        "header",
        tag(
            "div",
            tag("h1", assessment.title),
            tag("p", f"{lake}at {instant(assessment.ts)}{known}", class_="small"),
        ),
        tag(
            "button", "Dark or light", type="button", id="theme", aria_pressed="false", hidden=True
        ),
    )


def _static(name: str) -> str:
    return files("undertow.report").joinpath("static", name).read_text(encoding="utf-8")


def plotly_script() -> Markup:
    """plotly.js as the package ships it, once; imported here because it costs seconds."""
    from plotly.offline import get_plotlyjs

    text = get_plotlyjs().replace("</script", "<\\/script")
    return Markup(f'<script id="plotly">{text}</script>')


__all__ = ["html"]
