"""How often bands of concentration hold what a draw of owners, some 400 of them, usually has."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from undertow.econometrics.concentration import concentration, concentration_bands

OWNERS, TRIALS, USUAL = 400, 300, 4_000
LAWS = {
    "gamma": lambda rng, n: rng.gamma(2.0, 1.0, n),
    "pareto 3": lambda rng, n: 1.0 + rng.pareto(3.0, n),
    "pareto 1.5": lambda rng, n: 1.0 + rng.pareto(1.5, n),
}


def told(sizes: np.ndarray) -> np.ndarray:
    """HHI, Gini and shares of the largest one and ten."""
    found = concentration(sizes)
    return np.array([found.hhi, found.gini, found.top_share(1), found.top_share(10)])


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_how_often_bands_hold_what_is_usual(law: str) -> None:
    rng, draw = np.random.default_rng(21), LAWS[law]
    usual = np.median([told(draw(rng, rng.poisson(OWNERS))) for _ in range(USUAL)], axis=0)
    held = np.zeros(4)
    for trial in range(TRIALS):
        bands = concentration_bands(draw(rng, rng.poisson(OWNERS)), (1, 10), seed=trial)
        ends = np.array([bands.hhi, bands.gini, *bands.top])
        held += (ends[:, 0] <= usual) & (usual <= ends[:, 1])
    shares = held / TRIALS
    names = ("hhi", "gini", "top 1", "top 10")
    sys.stdout.write(
        f"\n{law}: " + ", ".join(f"{n} {s:.2f}" for n, s in zip(names, shares, strict=True))
    )
    assert shares.min() >= 0.45
    assert shares[0] >= (0.8 if law != "pareto 1.5" else 0.55)
