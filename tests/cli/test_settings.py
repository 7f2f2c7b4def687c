"""Settings come from the file, then the environment, and unknown ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from undertow.errors import SettingsError
from undertow.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LAKE", "SEED"):
        monkeypatch.delenv(f"UNDERTOW_{name}", raising=False)


def test_defaults_need_nothing() -> None:
    assert load_settings().lake == "undertow-lake"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("undertow.toml").write_text('lake = "here"\nseed = 3\n')
    assert (load_settings().lake, load_settings().seed) == ("here", 3)
    monkeypatch.setenv("UNDERTOW_LAKE", "there")
    assert (load_settings().lake, load_settings().seed) == ("there", 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lakes = 'x'", "lakes"),
        ("seed = 'x'", "seed"),
        ("seed = ", "Invalid|value"),
        ("\x00", "Invalid|value"),
    ],
)
def test_a_bad_file_is_refused(text: str, words: str) -> None:
    Path("undertow.toml").write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings()
    assert "undertow.toml" in str(caught.value)


def test_a_misspelled_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTOW_LAKES", "x")
    with pytest.raises(SettingsError, match="is it UNDERTOW_LAKE"):
        load_settings()


def test_somebody_elses_variable_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTOW_SERVICE_HOST", "x")
    assert load_settings().seed == 7
