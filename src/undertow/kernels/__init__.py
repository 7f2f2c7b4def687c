"""Compiled loops on plain arrays; they know no venue, no label, no file.

numba reuses a cached kernel as long as the kernel's own file is unchanged, also when a kernel
that it calls from another file has changed. So the kernels of a file are cached in a folder named
by the hash of that file and of all kernel files that it draws on: edit one, and those that could
notice compile afresh, the others stay. `njit` is numba's, with that folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba

_HERE = Path(__file__).parent
_DRAWS_ON = re.compile(r"^from undertow\.kernels\.(\w+) import", re.MULTILINE)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, its cache in the folder of the module that the kernel stands in."""

    def compiled(function: Callable[..., Any]) -> Any:
        if options.get("cache") and not os.environ.get("NUMBA_CACHE_DIR"):
            numba.config.CACHE_DIR = str(cache_folder(function.__module__.rpartition(".")[2]))
        return numba.njit(**options)(function)

    return compiled


def is_cached(module: str, kernel: str) -> bool:
    """Whether a kernel of a module has been compiled on this machine before."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_folder(module))
    return any(folder.rglob(f"{module}.{kernel}-*"))


def cache_folder(module: str) -> Path:
    """Where the kernels of a module are kept, in a home that may be read-only."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return _writable(home) / f"{module}-{_digest(module)}"


@lru_cache
def _writable(home: str) -> Path:
    wanted = Path(home) / "undertow" / "kernels"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:  # compile into a folder of this user's own instead
        return Path(tempfile.gettempdir()) / f"undertow-{os.getuid()}"


@lru_cache
def _digest(module: str) -> str:
    found, waiting = dict[str, bytes](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = (_HERE / f"{name}.py").read_bytes()
            waiting += _DRAWS_ON.findall(found[name].decode())
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(found):
        digest.update(found[name])
    return digest.hexdigest()
