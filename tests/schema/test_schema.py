"""Tables are declared once, completely, and in words."""

from __future__ import annotations

import pytest

from undertow import schema
from undertow.errors import UnknownTable
from undertow.schema import Kind


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda t: t.name)
def test_a_table_is_complete(table: schema.Table) -> None:
    assert set(table.key) <= set(table.column_names)
    assert set(table.partitions) <= set(table.column_names)
    assert len(set(table.column_names)) == len(table.columns)
    assert "run" not in table.column_names or table.name == "runs"  # the lake adds it
    for column in table.columns:
        assert column.doc
        assert column.unit in schema.UNITS
        if column.kind is Kind.FLOAT:
            assert column.unit, column.name
        if column.name.endswith("_usd"):
            assert column.unit == "usd"
        if column.name.endswith("_us"):
            assert column.unit == "us"


def test_every_table_of_the_data_model_is_there() -> None:
    assert set(schema.TABLES) >= {
        "assets", "instruments", "venues", "accounts", "risk_params", "oracles", "venue_funds",
        "free_assets", "pools", "positions", "claims", "prices", "funding", "open_interest",
        "depth", "volumes", "liquidations", "implied_vols", "reserves", "tags", "runs", "readings",
    }  # fmt: skip


def test_an_unknown_table_is_met_with_those_that_there_are() -> None:
    with pytest.raises(UnknownTable, match="positions"):
        schema.table("position")


def test_integer_keys_are_stable_and_tell_parts_apart() -> None:
    assert schema.integer_key("aave-v3", "0xa", "main") == 6091420234005803792
    assert schema.integer_key("a", "bc") != schema.integer_key("ab", "c")
    assert 0 <= schema.integer_key("x") < 2**63
