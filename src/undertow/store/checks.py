"""What one file cannot know of itself: names that nothing declares, rows that stand already.

Each check marks rows of a chunk; the caller keeps the rest. Nothing here writes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from undertow.schema import TABLES, Table
from undertow.state.conform import empty
from undertow.store.delta import Root
from undertow.store.files import ROW
from undertow.store.reading import identity, read_rows, rows_between
from undertow.store.runs import Standing

# column -> the table whose key it is; a column of that table's own key names itself
REFERENCES = {
    "venue": "venues",
    "instrument": "instruments",
    "feed": "instruments",
    "debt_instrument": "instruments",
    "account": "accounts",
}
# The same where only one table's column means it.
_ASSETS = (
    ("assets", "reference"),
    ("instruments", "asset"),
    ("instruments", "quote"),
    ("instruments", "settle"),
    ("implied_vols", "asset"),
    ("claims", "asset"),
    ("free_assets", "asset"),
    ("pools", "asset"),
    ("pools", "quote"),
)
# A feed sees accounts die that no account list ever held.
_FREE = {("liquidations", "account")}
# What else is asked of a name, once it is known.
_MORE = {"instruments": ("venue", "kind"), "accounts": ("venue",), "assets": ("reference",)}
_NAMING = {*REFERENCES.values(), "assets"}
_GUESSED, _COMPARED = 5, 5_000  # unknown names compared with known ones, at most
_KNOWN = "__known"


@dataclass(slots=True)
class Names:
    """Names that are declared: by the lake as it stands, and by files that came before."""

    root: Root
    stands: Standing | None
    more: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    _held: dict[str, pl.DataFrame] = field(default_factory=dict)
    _own: dict[str, pl.DataFrame] = field(default_factory=dict)

    def add(self, table: Table, rows: pl.DataFrame) -> None:
        """Count the names that `rows` declare among the known."""
        if table.name in _NAMING:
            self.more.setdefault(table.name, []).append(rows.select(_kept(table.name)))
            self._held.pop(table.name, None)

    def begin(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        """Look through a file whose rows speak of names that it declares itself."""
        self._own = {}
        if table.name not in ("assets", "accounts"):
            return
        columns = _kept(table.name)
        own = pl.concat([empty(table).select(columns), *(f.select(columns) for f in frames)])
        while table.name == "assets":  # a row that falls takes those that lean on it with it
            there = pl.concat([self.rows("assets")["asset"], own["asset"]])
            follows = pl.col("reference")
            left = own.filter(follows.is_null() | follows.is_in(there.implode()))
            if left.height == own.height:
                break
            own = left
        together = pl.concat([self.rows(table.name), own])
        first = together.unique(columns[0], keep="first", maintain_order=True)
        self._own = {table.name: first}

    def rows(self, name: str) -> pl.DataFrame:
        """One row for each name that the table called `name` declares, and what is asked of it."""
        if name in self._own:
            return self._own[name]
        if name not in self._held:
            columns = _kept(name)
            parts = list(self.more.get(name, []))
            if self.stands is not None:
                parts.append(
                    read_rows(self.root, name, self.stands, columns=columns, ordered=False)
                )
            found = pl.concat([empty(TABLES[name]).select(columns), *parts])
            self._held[name] = found.unique(columns[0]) if name in self.more else found
        return self._held[name]

    def known(self, name: str) -> pl.Series:
        """All names that the table called `name` declares."""
        return self.rows(name)[TABLES[name].key[0]]

    def faults(self, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that name what nothing declares: row, column, reason."""
        found = [no_faults()]
        wanted = [(c, o) for c, o in REFERENCES.items() if c in table.column_names]
        wanted += [(column, "assets") for name, column in _ASSETS if name == table.name]
        for column, owner in wanted:
            itself = table.name == owner and column == table.key[0]
            if itself or (table.name, column) in _FREE:
                continue
            known = self.known(owner)
            present = rows[column].drop_nulls().unique(maintain_order=True)
            unknown = present.filter(~present.is_in(known.implode()))
            if unknown.is_empty():
                continue
            reasons = unknown.to_frame().with_columns(
                pl.Series("reason", _unknown(owner, unknown, known), dtype=pl.String)
            )
            found.append(
                rows.select(pl.col(ROW).alias("row"), column)
                .join(reasons, on=column, how="inner")
                .select("row", pl.lit(column).alias("column"), "reason")
                .sort("row")
            )
        return pl.concat(found)


def _kept(name: str) -> list[str]:
    return [TABLES[name].key[0], *_MORE.get(name, ())]


def _unknown(owner: str, names: pl.Series, known: pl.Series) -> list[str]:
    """Why each of `names` cannot be taken; the first of them with what was probably meant."""
    thing, words = owner.removesuffix("s"), []
    alike: dict[str, str] = {}
    if known.dtype == pl.String:
        alike = {
            name.lower(): name for name in known.sort().head(_COMPARED)
        }  # in one order, always
    for place, name in enumerate(names):
        near = alike.get(str(name).strip().lower())
        if near is None and alike and place < _GUESSED:
            near = next(iter(difflib.get_close_matches(str(name), alike.values(), 1, 0.75)), None)
        hint = f"did you mean '{near}'?" if near else f"ingest it into {owner} first"
        words.append(f"unknown {thing} '{name}'; {hint}")
    return words


@dataclass(frozen=True, slots=True, eq=False)
class Standings:
    """Rows of complete runs in the span of a file, to tell what is new from what stands already."""

    table: Table
    rows: pl.DataFrame

    @classmethod
    def around(
        cls, root: Root, table: Table, stands: Standing | None, rows: Iterable[pl.Series]
    ) -> Standings:
        """What the lake holds between the first and the last `ts` of a file's chunks."""
        spans = [(each.min(), each.max()) for each in rows if each.len()]
        if stands is None or not spans:
            return cls(table, pl.DataFrame())
        first, last = min(s[0] for s in spans), max(s[1] for s in spans)  # type: ignore[type-var]
        held = rows_between(root, table.name, stands, first, last)  # type: ignore[arg-type]
        return cls(table, held.select(table.column_names))

    def split(self, rows: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
        """Numbers of rows that stand already as they are, and faults of those that contradict."""
        none = pl.Series([], dtype=pl.Int64)
        if self.rows.is_empty() or rows.is_empty():
            return none, no_faults()
        same = identity(self.table)
        rest = [name for name in self.table.column_names if name not in same]
        held = self.rows.with_columns(pl.lit(value=True).alias(_KNOWN))
        both = rows.join(held, on=same, how="inner", nulls_equal=True, suffix=_KNOWN)
        equal = pl.all_horizontal(
            [pl.lit(value=True), *(pl.col(n).eq_missing(pl.col(n + _KNOWN)) for n in rest)]
        )
        words = "already known with other values; give a correction a newer ts"
        faults = both.filter(~equal).select(
            pl.col(ROW).alias("row"),
            pl.lit(self.table.key[0]).alias("column"),
            pl.lit(words).alias("reason"),
        )
        return both.filter(equal)[ROW], faults.sort("row")


def no_faults() -> pl.DataFrame:
    """An empty list of faults."""
    return pl.DataFrame(schema={"row": pl.Int64, "column": pl.String, "reason": pl.String})


def key_hashes(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Row numbers and a hash of what names each row: enough to suspect a repetition."""
    return rows.select(ROW, pl.struct(identity(table)).hash(seed=0).alias("hash"))


def suspects(hashes: list[pl.DataFrame]) -> pl.Series:
    """Numbers of the rows whose hash stands more than once."""
    if not hashes:
        return pl.Series([], dtype=pl.Int64)
    together = pl.concat(hashes)
    return together.filter(pl.col("hash").is_duplicated())[ROW]


def repetitions(table: Table, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that repeat the key of an earlier row of the file: twins of it, and faults of others.

    Of a twin, which says the same in every column, come `row` and the `first` that it repeats.
    """
    key = identity(table)
    rest = [name for name in table.column_names if name not in key]
    first = pl.col(ROW).min().over(key)
    later = rows.with_columns(first=first).filter(pl.col(ROW) != pl.col("first")).sort(ROW)
    both = later.join(
        rows, left_on="first", right_on=ROW, how="inner", suffix=_KNOWN, maintain_order="left"
    )
    alike = pl.all_horizontal(
        [pl.lit(value=True), *(pl.col(n).eq_missing(pl.col(n + _KNOWN)) for n in rest)]
    )
    words = pl.format(f"the key ({', '.join(key)}) stands already in row {{}}", "first")
    faults = both.filter(~alike).select(
        pl.col(ROW).alias("row"), pl.lit(table.key[0]).alias("column"), words.alias("reason")
    )
    return both.filter(alike).select(pl.col(ROW).alias("row"), "first"), faults
