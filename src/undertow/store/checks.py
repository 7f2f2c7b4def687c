"""What one file cannot know of itself: names that nothing declares, rows that stand already.

Each check marks rows of a chunk; the caller keeps the rest. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from undertow.schema import TABLES, Table
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
# A feed sees accounts die that no account list ever held.
_FREE = {("liquidations", "account")}
_KNOWN = "__known"


@dataclass(slots=True)
class Names:
    """Names that are declared: by the lake as it stands, and by files that came before."""

    root: Root
    stands: Standing | None
    more: dict[str, list[pl.Series]] = field(default_factory=dict)
    _held: dict[str, pl.Series] = field(default_factory=dict)

    def add(self, table: Table, rows: pl.DataFrame) -> None:
        """Count the names that `rows` declare among the known."""
        if table.name in REFERENCES.values():
            self.more.setdefault(table.name, []).append(rows[table.key[0]])
            self._held.pop(table.name, None)

    def known(self, name: str) -> pl.Series:
        """All names that the table called `name` declares."""
        if name not in self._held:
            key = TABLES[name].key[0]
            parts = list(self.more.get(name, []))
            if self.stands is not None:
                rows = read_rows(self.root, name, self.stands, columns=[key], ordered=False)
                parts.append(rows[key])
            self._held[name] = pl.concat(parts).unique() if parts else pl.Series([], dtype=pl.Null)
        return self._held[name]

    def faults(self, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that name what nothing declares: row, column, reason."""
        found = [no_faults()]
        for column, owner in REFERENCES.items():
            itself = table.name == owner and column == table.key[0]
            if column not in table.column_names or itself or (table.name, column) in _FREE:
                continue
            present = rows[column].drop_nulls().unique()
            known = self.known(owner)
            unknown = (
                present if known.is_empty() else present.filter(~present.is_in(known.implode()))
            )
            if unknown.is_empty():
                continue
            thing = owner.removesuffix("s")
            words = pl.format(
                f"unknown {thing} '{{}}'; ingest it into {owner} first", pl.col(column)
            )
            bad = rows.filter(pl.col(column).is_in(unknown.implode()))
            found.append(
                bad.select(
                    pl.col(ROW).alias("row"), pl.lit(column).alias("column"), words.alias("reason")
                )
            )
        return pl.concat(found)


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


def repetitions(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Faults of rows that repeat the key of an earlier row of the same file."""
    key = identity(table)
    first = pl.col(ROW).min().over(key)
    words = pl.format(f"the key ({', '.join(key)}) stands already in row {{}}", "first")
    return (
        rows.with_columns(first=first)
        .filter(pl.col(ROW) != pl.col("first"))
        .sort(ROW)
        .select(
            pl.col(ROW).alias("row"), pl.lit(table.key[0]).alias("column"), words.alias("reason")
        )
    )
