"""125 banks of which every link is published: what their totals alone would have told.

Balance sheets are simulated by the publisher. One network is that of minimum density (251 links),
one that of maximum entropy. Each in turn is the truth that nobody knows; totals, equity and the hit
are known. `pytest -m slow -rP tests/truth/test_missing_links.py` prints the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import polars as pl
import pytest

from recorded import recorded
from undertow.econometrics.partial_links import drawn_from, few_links, spread_over
from undertow.measures.interconnection.links import Plain, Ranges, ranges
from undertow.measures.interconnection.margins import NUMBERS, Linked, Margins

FOLDER = "interbank_debtrank_reference"
TRUTHS = ("md", "me")
HITS = ("a tenth of equity", "the largest borrower loses all")
SPARSE, DENSE = 251 / (125 * 124), 0.3  # chance of a link before totals were known
Say = Callable[..., None]


@cache
def banks() -> pl.DataFrame:
    return recorded(f"{FOLDER}/nodes")


@cache
def network(name: str) -> np.ndarray:
    names = {bank: n for n, bank in enumerate(banks()["bank"])}
    links = recorded(f"{FOLDER}/exposures_{name}")
    found = np.zeros((len(names), len(names)))
    at = [[names[bank] for bank in links[side]] for side in ("lender", "borrower")]
    found[at[0], at[1]] = links["exposure"].to_numpy()
    return found


@cache
def margins(truth: str, hit: str) -> Margins:
    """What is known of a network; half of what is borrowed comes from outside."""
    true, equity = network(truth), banks()["buffer"].to_numpy()
    has, owes = true.sum(axis=1), true.sum(axis=0)
    assets = equity + 2.0 * owes
    lost = 0.1 * equity
    if hit == HITS[1]:
        lost = np.where(np.arange(len(equity)) == np.argmax(owes), assets, 0.0)
    return Margins.of(
        banks()["bank"].to_list(), has, owes, equity, assets=np.maximum(assets, 0.0), hit=lost
    )


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("hit", HITS)
def test_no_published_network_passes_a_bound(truth: str, hit: str) -> None:
    known = margins(truth, hit)
    bounds = known.bounds()
    for name, value in Linked.of(known, network(truth)).numbers().items():
        assert value <= bounds[name] * (1.0 + 1e-9) + 1e-9, name


def test_the_published_network_of_maximum_entropy_is_the_one_that_totals_give() -> None:
    known = margins("md", HITS[0])
    assert np.abs(spread_over(known.open) - network("me")).max() <= 2e-3
    few = few_links(known.open)
    assert (few > 0.0).sum() <= 251 <= (network("md") > 0.0).sum()


def test_draws_keep_the_totals_of_banks() -> None:
    known = margins("md", HITS[0])
    found = next(drawn_from(known.open, 1, density=SPARSE, seed=1))
    assert np.abs(found.sum(axis=1) - known.has).max() <= 1e-9 * known.has.sum()
    assert np.abs(found.sum(axis=0) - known.owes).max() <= 1e-9 * known.has.sum()


@cache
def over_draws(hit: str, density: float) -> Ranges:
    """Both networks have the same totals to 1e-4, so one set of draws does for both."""
    return ranges(Plain(margins("md", hit)), density=density, search=("debtrank_usd",), tries=200,
                  restarts=2, seed=11)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("hit", HITS)
@pytest.mark.parametrize("density", [SPARSE, DENSE])
def test_where_the_truth_lies_among_networks_with_its_totals(
    hit: str, density: float, say: Say
) -> None:
    found = over_draws(hit, density)
    for truth in TRUTHS:
        true = Linked.of(margins(truth, hit), network(truth)).numbers()
        inside = {}
        for name in NUMBERS:
            row, value = found.row(name), true[name]
            slack = 1e-3 * max(abs(value), 1e-12)  # totals of the two differ by 1e-4
            drawn = found.draws[name]
            inside[name] = drawn.min() - slack <= value <= drawn.max() + slack
            verdict = "inside" if inside[name] else "OUTSIDE the draws"
            say(
                f"{name}, {hit}, density {density:.3g}, truth {truth}: {verdict}",
                truth=value, least=float(drawn.min()), middle=row["middle"],
                greatest=float(drawn.max()), even=row["even"], few=row["few"],
                searched=row["searched"], bound=row["bound"],
            )  # fmt: skip
            assert value <= row["bound"] * (1.0 + 1e-3) + 1e-9
        # one number never hangs on links: a hit of equal shares reaches all in one step
        if hit == HITS[0]:
            assert inside["single_hit_usd"]
    say("who is worst", **dict(found.worst.head(5).iter_rows()))
