"""The nouns: immutable columns that agree on one Universe.

A noun is built by one named constructor that checks everything once; after that it is trusted.
"""

from undertow.state.arrays import (
    AnyColumn,
    BoolColumn,
    CodeColumn,
    FloatColumn,
    FloatMatrix,
    KeyColumn,
    ShortColumn,
    SmallColumn,
)
from undertow.state.book import Book
from undertow.state.claims import Claims
from undertow.state.intake import as_frame
from undertow.state.market import Market
from undertow.state.network import Network
from undertow.state.panel import Panel
from undertow.state.reading import Reading, readings_frame
from undertow.state.universe import Universe

__all__ = [
    "AnyColumn",
    "Book",
    "BoolColumn",
    "Claims",
    "CodeColumn",
    "FloatColumn",
    "FloatMatrix",
    "KeyColumn",
    "Market",
    "Network",
    "Panel",
    "Reading",
    "ShortColumn",
    "SmallColumn",
    "Universe",
    "as_frame",
    "readings_frame",
]
