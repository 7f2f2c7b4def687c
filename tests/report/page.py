"""A page as its reader meets it: elements, text, the data it carries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "br", "hr", "input"}
BLOCKS = {
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "li",
    "dt",
    "dd",
    "tr",
    "caption",
    "summary",
    "div",
    "section",
}


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    text: str = ""  # all of it, that of children too
    inside: list[Element] = field(default_factory=list)


class Page(HTMLParser):
    """Reads a document strictly: what is opened is closed, in order."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.lines: list[str] = [""]
        self.feed(document)
        self.close()
        assert not self.open, [e.name for e in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        above = self.open[-1] if self.open else None
        element = Element(tag, {name: value or "" for name, value in attrs}, above)
        self.elements.append(element)
        if above is not None:
            above.inside.append(element)
        if tag in BLOCKS:
            self.lines.append("")
        if tag in {"td", "th"} and self.lines[-1]:
            self.lines[-1] += " | "
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop().name == tag
        if tag in BLOCKS:
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data
        if not any(e.name in {"script", "style", "title", "nav"} for e in self.open):
            self.lines[-1] += data

    def all(self, name: str, **wanted: str) -> list[Element]:
        """Elements of a name whose attributes have these words."""
        return [
            e
            for e in self.elements
            if e.name == name
            and all(v in e.attributes.get(k.rstrip("_"), "").split() for k, v in wanted.items())
        ]

    def at(self, anchor: str) -> Element:
        (found,) = [e for e in self.elements if e.attributes.get("id") == anchor]
        return found

    def held(self, anchor: str) -> Any:
        """The data block of that name."""
        return json.loads(self.at(anchor).text)

    @property
    def words(self) -> str:
        """What a reader sees, a block a line."""
        return "\n".join(" ".join(line.split()) for line in self.lines if line.strip())
