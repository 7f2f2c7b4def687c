"""Where the published and recorded cases live, and how a test asks for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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


def check_all(name: str, check: Callable[[Case, dict[str, Any]], set[str]]) -> None:
    """Run `check` on every case of a file, and see to it that no expected value went unread.

    `check` gets a case and the file, and returns the expected fields that it compared. All
    failures are reported together, with their ids.
    """
    data = oracle(name)
    failures, checked = [], set()
    for case in data["cases"]:
        try:
            compared = check(case, data)
            assert compared == set(case["expected"]), f"compared only {sorted(compared)}"
        except Exception as exc:
            failures.append(f"{case['id']}: {type(exc).__name__}: {exc}")
        checked.add(case["id"])
    assert checked == {case["id"] for case in data["cases"]}
    assert not failures, "\n".join(failures)


def near(got: float, expected: float | str, *, rel: float = 1e-9, unit: float = 0.0) -> None:
    """Compare with a tolerance, `unit` being how far integers of a chain may be off."""
    want = float(expected)
    assert abs(got - want) <= max(rel * abs(want), unit), f"{got!r}, not {want!r}"


def whole(got: float, expected: str | int) -> None:
    """Compare with an exact integer: 1e-9 of it, or one unit where it is small."""
    near(got, expected, rel=1e-9, unit=1.0 if abs(int(expected)) < 1_000_000_000 else 0.0)
