"""Who is owed what by whom: deposits, loans, wrappers, vault shares.

A row is one claim. Debtors and creditors are nodes, named `kind:key` (`venue:aave-v3`,
`asset:stETH`, `owner:17`), so that protocols, wrappers and owners can owe each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.state.arrays import CodeColumn, FloatColumn, SmallColumn, digest, frozen
from undertow.state.conform import empty, require
from undertow.state.intake import as_frame
from undertow.state.universe import Universe, encode

CLAIM_KINDS = schema.table("claims").column("kind").choices


@dataclass(frozen=True, eq=False)
class Claims:
    """All claims at one instant."""

    universe: Universe
    nodes: tuple[str, ...]  # `kind:key`, sorted
    debtor: CodeColumn
    creditor: CodeColumn
    asset: CodeColumn
    kind: SmallColumn  # into CLAIM_KINDS
    qty: FloatColumn
    seniority: SmallColumn  # 0 is paid first
    evidence: SmallColumn

    @classmethod
    def from_frames(cls, universe: Universe, claims: Any = None) -> Claims:
        """Read the table of claims; none at all is a state too.

        Raises
        ------
        SchemaError
            When the table does not fit its declared columns.
        StateError
            When an asset or a venue is unknown, or somebody owes to itself.
        """
        table = schema.table("claims")
        rows = require(table, empty(table) if claims is None else as_frame(claims))
        rows = rows.with_columns(
            debtor=pl.format("{}:{}", "debtor_kind", "debtor"),
            creditor=pl.format("{}:{}", "creditor_kind", "creditor"),
        ).sort("debtor", "creditor", "asset", "kind", "source")
        _check_parties(universe, rows)
        nodes = pl.concat([rows["debtor"], rows["creditor"].alias("debtor")]).unique().sort()
        return cls(
            universe=universe,
            nodes=tuple(nodes),
            debtor=_encoded(rows["debtor"], nodes, np.int32),
            creditor=_encoded(rows["creditor"], nodes, np.int32),
            asset=_encoded(rows["asset"], pl.Series(universe.assets, dtype=pl.String), np.int32),
            kind=_encoded(rows["kind"], pl.Series(CLAIM_KINDS), np.int8),
            qty=frozen(rows["qty"].to_numpy()),
            seniority=frozen(
                rows["seniority"].fill_null(0).clip(0, 127).to_numpy().astype(np.int8)
            ),
            evidence=_encoded(rows["evidence"], pl.Series(schema.EVIDENCE), np.int8),
        )

    def __len__(self) -> int:
        return len(self.qty)

    def __repr__(self) -> str:
        return f"Claims({len(self):,} between {len(self.nodes):,} parties)"

    @cached_property
    def digest(self) -> str:
        """A hash of all columns."""
        columns = (self.debtor, self.creditor, self.asset, self.kind, self.qty, self.seniority)
        return digest(self.universe.digest, "\x00".join(self.nodes), *columns, self.evidence)


def _encoded(values: pl.Series, keys: pl.Series, dtype: type) -> Any:
    return frozen(encode(values, keys, what=values.name, source="claims").astype(dtype))


def _check_parties(universe: Universe, rows: pl.DataFrame) -> None:
    own = rows.filter(pl.col("debtor") == pl.col("creditor"))
    if own.height:
        raise StateError(
            f"{own['debtor'][0]} owes to itself",
            source="claims",
            hint="a protocol's own holdings belong in free_assets",
        )
    for side in ("debtor", "creditor"):
        for kind, names in (("venue", universe.venues), ("asset", universe.assets)):
            keys = rows.filter(pl.col(f"{side}_kind") == kind)[side].str.strip_prefix(f"{kind}:")
            unknown = keys.filter(~keys.is_in(list(names)))
            if len(unknown):
                raise StateError(
                    f"no {kind} is called {unknown[0]!r}", source="claims", column=side
                )
