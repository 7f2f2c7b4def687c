"""Recorded accounts, read once for all tests of the folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from recorded import Lender, PerpVenue, read_lender, read_perps, read_tiers


@pytest.fixture(scope="session")
def lender() -> Lender:
    return read_lender()


@pytest.fixture(scope="session")
def perps() -> PerpVenue:
    return read_perps()


@pytest.fixture(scope="session")
def tiers() -> pl.DataFrame:
    return read_tiers()


@pytest.fixture
def say() -> Callable[..., None]:
    """Print what was measured; `pytest -rP` shows it of tests that passed."""

    def write(title: str, **numbers: Any) -> None:
        sys.stdout.write(f"\n{title}\n")
        for name, value in numbers.items():
            shown = f"{value:,.4g}" if isinstance(value, float) else value
            sys.stdout.write(f"  {name:<28} {shown}\n")

    return write
