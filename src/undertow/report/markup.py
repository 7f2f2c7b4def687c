"""HTML as values: what is not markup already is text, and text is always escaped."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_VOID = frozenset({"meta", "input", "br", "hr"})


class Markup(str):
    """HTML that is meant as HTML."""

    __slots__ = ()


NOTHING = Markup("")


def clean(text: str) -> str:
    """Text without what no page may hold: lone surrogates, control and direction characters."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", whole)


def escaped(child: object) -> Markup:
    """A child of an element: markup as it is, anything else as text."""
    if isinstance(child, Markup):
        return child
    return Markup(html.escape(clean(str(child))))


def join(*children: object) -> Markup:
    """Several children, one after the other; None is left out."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` and `for_` lose their last underscore, others turn it into a dash.

    True is an attribute without a value; None and False leave it out.
    """
    spelled = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        spelled.append(f" {label}" if value is True else f' {label}="{escaped(str(value))}"')
    opened = f"<{name}{''.join(spelled)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(*children)}</{name}>")


def data_block(anchor: str, value: Any) -> Markup:
    """Data for the page's own script, as JSON that cannot end the block it stands in."""
    spelled = value if isinstance(value, Markup) else Markup(json.dumps(value))
    return Markup(f'<script type="application/json" id="{anchor}">{inert(spelled)}</script>')


def inert(spelled: str) -> str:
    """JSON without a character that HTML or an old script engine could take for its own."""
    for letter in "<>&\u2028\u2029":
        spelled = spelled.replace(letter, f"\\u{ord(letter):04x}")
    return spelled.encode("utf-8", "replace").decode("utf-8")


class Anchors:
    """Names of places in one document: readable, and never given twice."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, *words: str) -> str:
        """A name made of `words`, with a number behind it where it was taken."""
        stem = re.sub(r"[^a-z0-9.]+", "-", ".".join(words).lower()).strip("-.") or "part"
        if not stem[0].isalpha():
            stem = f"s-{stem}"
        name, count = stem, 1
        while name in self._given:
            count += 1
            name = f"{stem}-{count}"
        self._given.add(name)
        return name
