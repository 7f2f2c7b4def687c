"""The terminal face: `undertow <verb> [what] [--options]`.

Data goes to stdout, talk to stderr. Exit codes: 0 fine; 1 failed, or a source unavailable;
2 misuse, or unreadable or invalid input; 3 a hard limit is breached (only where asked for);
4 ingested with rejects, or the data is stale. An error that undertow raises is one line.
"""

from __future__ import annotations

import sys

from undertow.errors import SourceError, StoreError, UndertowError

FINE, FAILED, MISUSE, BREACHED, INCOMPLETE = range(5)


def main() -> None:
    """Run one command and leave with its exit code."""
    from undertow.cli.app import app

    try:
        app(prog_name="undertow")
    except UndertowError as error:
        print(f"undertow: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(FINE)
    except KeyboardInterrupt:
        print("undertow: stopped; what was committed stays", file=sys.stderr)
        sys.exit(130)


def exit_code(error: UndertowError) -> int:
    """The exit code that an error stands for: misuse and bad input are 2, the rest 1."""
    bad_input = isinstance(error, ValueError | SourceError)
    return MISUSE if bad_input and not isinstance(error, StoreError) else FAILED
