"""A process that ingests when told to, for tests that kill it or let two of them race.

    python ingest_worker.py LAKE FILE [FILE ...]

Imports everything, says `ready`, waits for a line on its input, ingests with small batches, says
`done` and waits for the next line.
"""

from __future__ import annotations

import sys

from undertow.store import Lake, ingest_tables
from undertow.store import lake as warm

NOW = 1_767_225_600_000_000
BATCH = 40


def main() -> None:
    uri, *paths = sys.argv[1:]
    assert warm.BATCH_ROWS
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            return
        try:
            report = ingest_tables(Lake.at(uri), paths, now=NOW, batch_rows=BATCH)
        except Exception as error:
            print(f"failed {type(error).__name__}: {error}", flush=True)
            continue
        added = ",".join(f"{f.table}={f.added}/{f.rejected}" for f in report.files)
        print(f"done {added}", flush=True)


if __name__ == "__main__":
    main()
