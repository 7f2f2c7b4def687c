"""What undertow itself writes: completed runs, published readings, refused rows."""

from __future__ import annotations

from undertow.schema.columns import (
    EVIDENCE_COLUMN,
    PRICE_KINDS,
    TS,
    AsOf,
    Table,
    number,
    text,
    time,
    whole,
)

RUNS = Table(
    "runs",
    "A completed act on the lake, written last: the versions of all tables that it stands on.",
    AsOf.LOG,
    ("run",),
    (
        text("run", "identifier; an ingestion's is the hash of its content"),
        time("committed", "when it became visible"),
        text("kind", "what was done", choices=("ingest", "world", "measure", "stress", "compact")),
        text("versions", "JSON: the version of every table, by name"),
        text("detail", "JSON: inputs, seed, configuration, code version"),
    ),
)

READINGS = Table(
    "readings",
    "A published number, with its band and everything needed to make it again.",
    AsOf.LOG,
    ("name", "subject", "ts", "inputs_hash"),
    (
        TS,
        text("name", "name of the measure, `family.measure`"),
        text("subject", "what it speaks of; empty for the whole", null=True),
        number("value", "the number", "1", null=True),
        number("low", "lower end of the band", "1", null=True),
        number("high", "upper end of the band", "1", null=True),
        number("level", "coverage probability of the band", "1", null=True, low=0.0, high=1.0),
        text("unit", "unit of value and band"),
        text("definition", "what it is, in words"),
        whole("window_us", "span of the data it uses", "us", null=True, low=0),
        text("mark_source", "which price it was marked at", null=True, choices=PRICE_KINDS),
        number("coverage", "share of the whole that was seen", "1", null=True, low=0.0, high=1.0),
        EVIDENCE_COLUMN,
        text("inputs_hash", "hash of all inputs"),
    ),
)

REJECTS = Table(
    "rejects",
    "Rows that were offered and could not be taken, with the reason.",
    AsOf.LOG,
    ("run_of", "table", "row"),
    (
        TS,
        text("run_of", "ingestion that refused it"),
        text("table", "table it was meant for"),
        text("file", "name of the file"),
        whole("row", "row of the file, the first data row is 1", low=1),
        text("column", "column at fault", null=True),
        text("reason", "what was wrong"),
        text("content", "the row as it came, as JSON"),
    ),
)
