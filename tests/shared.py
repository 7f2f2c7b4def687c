"""Where the published and recorded cases live, and how a test asks for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

Case = dict[str, Any]


def shared_folder() -> Path:
    """The folder of shared data, from UNDERTOW_SHARED or beside the repository.

    Without it a test skips and says why; on a build machine (CI is set) it fails instead, so that
    a green build has always seen the published cases.
    """
    given = os.environ.get("UNDERTOW_SHARED")
    folder = Path(given) if given else Path(__file__).parent.parent.parent / "shared"
    if not folder.is_dir():
        words = f"needs the shared cases, and there is no folder {folder}"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    return folder


def oracle(name: str) -> dict[str, Any]:
    """A file of published cases; a folder that lacks it is an error, never a skip."""
    data: dict[str, Any] = json.loads((shared_folder() / "oracles" / f"{name}.json").read_text())
    assert data["schema"] == "oracle-cases/1"
    assert data["cases"], name
    return data


def fields(expected: dict[str, Any]) -> set[str]:
    """Names of the expected values; of a list of records, of each value in them."""
    names: set[str] = set()
    for name, value in expected.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            names |= {f"{name}.{key}" for row in value for key in row}
        else:
            names.add(name)
    return names


def check_all(
    name: str,
    check: Callable[[Case, dict[str, Any]], set[str]],
    *,
    later: Iterable[str] = (),
) -> None:
    """Run `check` on every case of a file, and see to it that no expected value went unread.

    `check` gets a case and the file, and returns the expected fields that it compared. `later`
    names the fields of what is not built yet; they are left, and a case of nothing else with
    them, but never all cases. All failures are reported together, with their ids.
    """
    data = oracle(name)
    failures, read = [], 0
    for case in data["cases"]:
        try:
            compared, expected = check(case, data), fields(case["expected"])
            assert compared <= expected, f"no such fields: {sorted(compared - expected)}"
            unread = expected - compared - set(later)
            assert not unread, f"did not compare {sorted(unread)}"
            read += bool(compared)
        except Exception as exc:
            failures.append(f"{case['id']}: {type(exc).__name__}: {exc}")
    assert not failures, "\n".join(failures)
    assert read, f"no case of {name} was compared"


def near(got: float, expected: float | str, *, rel: float = 1e-9, unit: float = 0.0) -> None:
    """Compare with a tolerance, `unit` being how far integers of a chain may be off."""
    want = float(expected)
    assert abs(got - want) <= max(rel * abs(want), unit), f"{got!r}, not {want!r}"


def whole(got: float, expected: str | int) -> None:
    """Compare with an exact integer: 1e-9 of it, or one unit where it is small."""
    near(got, expected, rel=1e-9, unit=1.0 if abs(int(expected)) < 1_000_000_000 else 0.0)
