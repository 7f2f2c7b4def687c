"""A terminal for tests: type `undertow stress …`, and see what comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Type `undertow stress …` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fall.toml").write_text(FALL)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["undertow", "stress", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
