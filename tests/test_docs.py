"""The documentation says what is there, and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import undertow
from undertow import schema
from undertow.cli.app import app
from undertow.rules.profile import profile_names
from undertow.store import ColumnMap

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in listed


def test_every_table_and_profile_is_in_the_docs() -> None:
    model = (ROOT / "docs" / "data-model.md").read_text()
    assert not [name for name in schema.TABLES if f"`{name}`" not in model]
    rules = (ROOT / "docs" / "methods" / "rules.md").read_text()
    assert not [name for name in profile_names() if f"`{name}`" not in rules]


def test_the_mapping_in_the_docs_is_one() -> None:
    text = (ROOT / "docs" / "data-model.md").read_text()
    example = re.findall(r"```toml\n(.*?)```", text, flags=re.S)[0]
    assert ColumnMap.from_toml(example).table == "positions"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_run(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run_as_scripts(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())


def test_commands_in_the_docs_exist() -> None:
    verbs = set()
    for page in PAGES:
        text = page.read_text()
        code = re.findall(r"```\n(.*?)```", text, flags=re.S) + re.findall(r"`([^`\n]+)`", text)
        for block in code:
            verbs |= set(re.findall(r"^undertow ([a-z]+)(?: ([a-z]+))?", block, flags=re.M))
    assert len(verbs) > 8
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {
        group.name: {c.name for c in group.typer_instance.registered_commands}
        for group in app.registered_groups
    }
    for verb, what in verbs:
        assert verb in known | set(groups), verb
        if verb in groups and verb != "stress":  # which takes the name of a scenario as well
            assert what in groups[verb], (verb, what)


def test_public_names_are_what_the_facade_says() -> None:
    assert sorted(undertow.__all__) == undertow.__all__
    assert set(undertow.__all__) == set(undertow._HOME)
    for name in undertow.__all__:
        assert getattr(undertow, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = undertow.nothing
    assert set(undertow.__all__) <= set(dir(undertow))


def test_help_of_every_command_speaks() -> None:
    runner = CliRunner()
    paths = [["demo"], ["world"], ["schema"], ["margins"], ["ingest", "tables"]]
    paths += [["stress"], ["stress", "run"], ["stress", "list"], ["stress", "sweep"],
              ["stress", "reverse"]]  # fmt: skip
    paths += [["lake", name] for name in ("verify", "history", "compact", "quality")]
    paths += [["measure"], ["report"], ["export"], ["export", "liquidations"], ["export", "ladder"]]
    for path in paths:
        done = runner.invoke(app, [*path, "--help"])
        assert done.exit_code == 0
        assert "Usage:" in done.output


def test_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    done = CliRunner().invoke(app, ["--version"])
    assert done.output == f"undertow {undertow.__version__}\n"
