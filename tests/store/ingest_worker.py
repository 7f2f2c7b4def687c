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


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    uri, *paths = sys.argv[1:]
    assert warm.BATCH_ROWS
    say("ready")
    for line in sys.stdin:
        if line.strip() == "stop":
            return
        try:
            report = ingest_tables(Lake.at(uri), paths, now=NOW, batch_rows=BATCH)
        except Exception as error:
            say(f"failed {type(error).__name__}: {error}")
            continue
        added = ",".join(f"{f.table}={f.added}/{f.rejected}" for f in report.files)
        say(f"done {added}")


if __name__ == "__main__":
    main()
