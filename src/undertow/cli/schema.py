"""`undertow schema`: what the lake's tables hold."""

from __future__ import annotations

import json

from undertow import schema
from undertow.schema import Column, Table


def run_schema(name: str | None, *, as_json: bool) -> None:
    """Print all tables, or one with its columns."""
    if as_json:
        if name is None:
            whole = {"units": schema.UNITS, "tables": [t.as_json() for t in schema.TABLES.values()]}
            print(json.dumps(whole, indent=2))
        else:
            print(json.dumps(schema.table(name).as_json(), indent=2))
    elif name is None:
        width = max(map(len, schema.TABLES))
        for table in schema.TABLES.values():
            print(f"{table.name:<{width}}  {table.doc}")
    else:
        _print_table(schema.table(name))


def _print_table(table: Table) -> None:
    print(f"{table.name}: {table.doc}")
    print(f"key: {', '.join(table.key)}    read as of an instant: {table.as_of.value}")
    width = max(len(column.name) for column in table.columns)
    for column in table.columns:
        print(f"  {column.name:<{width}}  {_describe(column)}")


def _describe(column: Column) -> str:
    kind = column.kind.value + (f" [{column.unit}]" if column.unit else "")
    parts = [f"{kind}{' or empty' if column.null else ''}: {column.doc}"]
    if column.choices:
        parts.append(f"one of {', '.join(column.choices)}")
    if column.low is not None:
        parts.append(f"{'above' if column.open_low else 'at least'} {column.low:g}")
    if column.high is not None:
        parts.append(f"at most {column.high:g}")
    return "; ".join(parts)
