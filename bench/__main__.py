"""`python -m bench [NAME...] [--json]`: run the benchmarks and print one object each."""

from __future__ import annotations

import argparse
import sys

from bench.cascade import BENCHMARKS as CASCADE
from bench.connectedness import BENCHMARKS as CONNECTEDNESS
from bench.contagion import BENCHMARKS as CONTAGION
from bench.correlation import BENCHMARKS as CORRELATION
from bench.crowding import BENCHMARKS as CROWDING
from bench.foundation import BENCHMARKS as FOUNDATION
from bench.harness import run
from bench.networks import BENCHMARKS as NETWORKS

BENCHMARKS = {
    **FOUNDATION, **CASCADE, **CORRELATION, **CONNECTEDNESS, **CROWDING, **NETWORKS, **CONTAGION,
}  # fmt: skip


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--list", action="store_true", help="only name the benchmarks")
    given = parser.parse_args()
    if given.list:
        print("\n".join(BENCHMARKS))
        return 0
    return run(BENCHMARKS, given.names, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
