"""A terminal for tests: type a command, and see what comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.typing_in import Done, Run
from undertow.cli import main

Typed = Callable[..., tuple[int, str, str]]

FALL = """
name = "a fall"
title = "Bitcoin falls by a fifth"

[[shock]]
kind = "price"
asset = "BTC"
move = -0.2

[[shock]]
kind = "price"
asset = "DOGE"
move = -0.2
optional = true

[options]
impact = "none"
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["undertow", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return typed


@pytest.fixture
def typed(run: Run, tmp_path: Path) -> Typed:
    """Type `undertow stress …` in a folder with a scenario: exit code, stdout, stderr."""
    (tmp_path / "fall.toml").write_text(FALL)

    def stressed(*words: object) -> tuple[int, str, str]:
        done = run("stress", *words)
        return done.code, done.out, done.err

    return stressed
