"""Compiled loops on plain arrays; they know no venue, no label, no file.

numba reuses a cached kernel as long as the kernel's own file is unchanged, also when a kernel
that it calls from another file has changed. The cache therefore lives in a folder named by the
hash of all kernel sources: edit one, and all compile afresh.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numba


def _cache_dir() -> Path:
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    wanted = Path(home) / "undertow" / "kernels" / digest.hexdigest()
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:  # a read-only home: compile into a folder of this user's own instead
        return Path(tempfile.gettempdir()) / f"undertow-{os.getuid()}" / digest.hexdigest()


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_dir())
