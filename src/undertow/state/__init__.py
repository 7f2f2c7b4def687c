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
from undertow.state.funds import FreeAssets, Funds
from undertow.state.intake import as_frame
from undertow.state.liquidity import Ladders, Liquidity
from undertow.state.market import Market
from undertow.state.network import Network
from undertow.state.oracles import Oracles
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
    "FreeAssets",
    "Funds",
    "KeyColumn",
    "Ladders",
    "Liquidity",
    "Market",
    "Network",
    "Oracles",
    "Panel",
    "Reading",
    "ShortColumn",
    "SmallColumn",
    "Universe",
    "as_frame",
    "readings_frame",
]
