"""The house stands as it is drawn."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "undertow").rglob("*.py"))


def test_imports_run_one_way_and_every_module_has_its_floor() -> None:
    done = subprocess.run(
        ["lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "wing",
    [
        *("kernels", "econometrics", "state", "rules", "measures", "stress", "worlds", "validate"),
        "limits",
    ],
)
def test_computing_modules_touch_no_clock_socket_or_environment(wing: str) -> None:
    """Only the faces, the store and the sources see the outside; a table's path may be read."""
    allowed = {("kernels", "__init__.py"): {"os", "tempfile"}}
    for path in SOURCES:
        if path.relative_to(ROOT / "src" / "undertow").parts[0].removesuffix(".py") != wing:
            continue
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
        outside = {"os", "time", "socket", "subprocess", "requests", "httpx2", "urllib", "tempfile"}
        assert not (found & outside) - allowed.get((wing, path.name), set()), path


def test_no_drawer_for_odds_and_ends() -> None:
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "util", "common", "helpers", "helper", "misc", "tools"}


def test_core_dependencies_are_few_and_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    assert names == {
        "numpy", "scipy", "polars", "deltalake", "numba", "typer", "plotly", "pydantic-settings",
    }  # fmt: skip
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text, lock
        assert "--index-url" not in text, lock
        pins = re.findall(r"^([a-zA-Z0-9_.-]+)==[^\n]*\\\n    --hash", text, flags=re.M)
        every = re.findall(r"^[a-zA-Z0-9_.-]+==", text, flags=re.M)
        assert len(pins) == len(every) > 0, lock


def test_importing_undertow_loads_nothing_heavy() -> None:
    words = (
        "import sys, undertow; heavy = {'numpy', 'polars', 'numba', 'scipy', 'deltalake', 'plotly',"
        " 'typer', 'pydantic'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_help_loads_nothing_heavy() -> None:
    words = (
        "import sys; sys.argv = ['undertow', '--help']\n"
        "from undertow.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'polars', 'numba', 'scipy', 'deltalake', 'plotly'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Commands" in done.stdout
