"""Kernels compile afresh when anything that they draw on changes, and only then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from undertow import kernels


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the kernels' files that a test may edit."""
    folder = tmp_path / "sources"
    shutil.copytree(Path(kernels.__file__).parent, folder)
    monkeypatch.setattr(kernels, "_HERE", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    kernels._digest.cache_clear()
    kernels._writable.cache_clear()
    return folder


def edited(path: Path) -> None:
    path.write_text(path.read_text() + "\n# another line\n")
    kernels._digest.cache_clear()


def test_a_change_far_below_is_noticed_and_one_beside_is_not(sources: Path) -> None:
    before = {name: kernels.cache_folder(name) for name in ("sweep", "impact", "descent")}
    edited(sources / "impact.py")  # sweep draws on it through rounds and prices
    after = {name: kernels.cache_folder(name) for name in before}
    assert after["sweep"] != before["sweep"]
    assert after["impact"] != before["impact"]
    assert after["descent"] == before["descent"]


def test_every_kernel_file_that_is_imported_by_another_is_seen(sources: Path) -> None:
    for path in sources.glob("*.py"):
        if path.stem == "__init__":
            continue
        told = {
            line.split()[1].rpartition(".")[2]
            for line in path.read_text().splitlines()
            if line.lstrip().startswith(("from undertow.kernels.", "import undertow.kernels"))
        }
        assert told == set(kernels._DRAWS_ON.findall(path.read_text())), path.stem


def test_a_folder_that_cannot_be_written_is_replaced(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = kernels.cache_folder("impact")
    assert str(tmp_path / "file") not in str(folder)
    assert folder.name.startswith("impact-")


def test_what_was_compiled_is_known(sources: Path) -> None:
    assert not kernels.is_cached("impact", "multiplier")
    folder = kernels.cache_folder("impact") / "kernels_0"
    folder.mkdir(parents=True)
    (folder / "impact.multiplier-150.py311.nbi").touch()
    assert kernels.is_cached("impact", "multiplier")
