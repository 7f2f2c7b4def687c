"""The terminal face: `undertow <verb> [what] [--options]`.

Data goes to stdout, talk to stderr. Exit codes: 0 fine; 1 failed, or a source unavailable;
2 misuse, or unreadable or invalid input; 3 a hard limit is breached (only where asked for);
4 ingested with rejects, or the data is stale. An error that undertow raises is one line.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from undertow.errors import SourceError, StoreError, UndertowError

FINE, FAILED, MISUSE, BREACHED, INCOMPLETE = range(5)
STOPPED = 130  # by a person, at the keyboard
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run one command and leave with its exit code."""
    try:
        from undertow.cli.app import app

        try:
            app(prog_name="undertow")
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except UndertowError as error:
        print(f"undertow: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(FINE)
    except KeyboardInterrupt:
        _say_stopped()
        sys.exit(STOPPED)
    except SystemExit as left:
        if left.code == STOPPED:  # typer has caught it
            _say_stopped()
        raise
    except OSError as error:
        if not _stdout_is_lost() and error.errno not in _FULL:
            raise
        print(f"undertow: the answer could not be written: {error.strerror}", file=sys.stderr)
        sys.exit(FAILED)


def _say_stopped() -> None:
    print("undertow: stopped; what was committed stays", file=sys.stderr)


def _stdout_is_lost() -> bool:
    """Whether stdout takes nothing any more; then what is left in it goes nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def exit_code(error: UndertowError) -> int:
    """The exit code that an error stands for: misuse and bad input are 2, the rest 1."""
    bad_input = isinstance(error, ValueError | SourceError)
    return MISUSE if bad_input and not isinstance(error, StoreError) else FAILED
