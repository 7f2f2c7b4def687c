"""Circles of claims that keep nearly all of themselves settle, where sweeps alone would creep."""

from __future__ import annotations

import numpy as np
import pytest

from stress.contagion.made import made, share, solved
from undertow.rules.snapshot import Snapshot
from undertow.stress.contagion import Assumptions, Contagion, claims


def circle(kept: float, **more: object) -> Snapshot:
    """A token whose issuer holds most of the token against what he owes to it."""
    return made(
        [
            ("external:issuer", "asset:sUSD", "USDC", 1_000.0, "backing"),
            ("asset:sUSD", "external:issuer", "sUSD", 1_000.0 * kept, "vault_share"),
        ],
        tokens=[("sUSD", "vault_share", "USDC", 1.0)],
        **more,
    )


@pytest.mark.parametrize("kept", [0.5, 0.99, 0.9999, 1.0 - 1e-7])
def test_a_token_of_its_own_issuer_is_worth_what_he_has_left_outside(kept: float) -> None:
    # He has 1,000 (1 - kept) outside and loses half of it: p = (1 - kept) / 2 + kept p, so 1/2.
    assumed = Assumptions(capital=0.0, recovery=0.5)
    found = solved(circle(kept), failed=("external:issuer",), assumed=assumed).require()
    assert share(found, "external:issuer") == pytest.approx(0.5, abs=1e-7)
    assert share(found, "asset:sUSD") == pytest.approx(0.5, abs=1e-7)
    assert found.settlement.steps < 100
    assert share(found, "external:issuer") == pytest.approx(
        share_of(found.least, "external:issuer"), abs=1e-7
    )


def test_a_circle_that_leaks_to_a_loan_outside_ends_at_nothing() -> None:
    # The token owes 5 ahead of its holders and its issuer pays with the token alone: each round
    # round the circle 5 are gone, until the loan has what is left.
    book = made(
        [
            ("external:issuer", "asset:sUSD", "USDC", 1_000.0, "backing"),
            ("asset:sUSD", "external:issuer", "sUSD", 995.0, "vault_share"),
            ("asset:sUSD", "external:lender", "USDC", 5.0, "loan"),
        ],
        tokens=[("sUSD", "vault_share", "USDC", 1.0)],
    )
    assumed = Assumptions(capital=0.0, recovery=0.0)
    found = solved(book, failed=("external:issuer",), assumed=assumed).require()
    assert share(found, "asset:sUSD") == pytest.approx(0.0, abs=1e-9)
    assert share(found, "external:issuer") == pytest.approx(0.0, abs=1e-9)


def drawn(seed: int) -> Snapshot:
    """Four tokens and four issuers who keep most of what they owe in each other's tokens.

    One of them keeps a reserve's coins, and the first token is a supplier of that reserve.
    """
    rng = np.random.default_rng(seed)
    names = [f"t{n}" for n in range(4)]
    rows = [("external:bank", "external:i0", "USDC", 40.0, "loan"),
            ("external:i0", "external:i1", "USDC", 30.0, "loan")]  # fmt: skip
    for n, name in enumerate(names):
        rows.append((f"external:i{n}", f"asset:{name}", "USDC", 1_000.0, "backing"))
        rows.append((f"asset:{name}", "external:lender", "USDC", rng.choice([0.0, 50.0]), "loan"))
        other = names[(n + int(rng.integers(n == 0, 2))) % 4]
        rows.append((f"asset:{other}", f"external:i{n}", other, rng.uniform(300.0, 480.0),
                     "vault_share"))  # fmt: skip
        rows.append((f"asset:{names[(n + 1) % 4]}", f"asset:{name}", names[(n + 1) % 4],
                     rng.uniform(0.0, 200.0), "vault_share"))  # fmt: skip
    rows.append(("external:i0", "venue:aave-v3", "USDC", 15_000.0, "custody"))
    rows.append(("venue:aave-v3", "asset:t0", "USDC", 10_000.0, "deposit"))
    rows.append(("asset:t0", "external:i0", "t0", 9_000.0, "vault_share"))
    return made(
        rows, tokens=[(name, "vault_share", "USDC", 1.0) for name in names],
        funds=[("aave-v3", "insurance", rng.choice([0.0, 0.0, 200.0, 1e6]))],
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_circles_solved_at_once_end_where_sweeps_alone_end(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = np.random.default_rng(100 + seed).choice([1.0, 0.8], 2)
    knobs = {
        "assumed": Assumptions(capital=0.0, recovery=0.3, keep_assets=keep[0],
                               keep_received=keep[1]),
        "failed": ("external:bank", "external:i1", "external:i3"),
    }  # fmt: skip
    monkeypatch.setattr(claims, "_PATIENCE", 3)
    quick = solved(drawn(seed), **knobs)
    monkeypatch.setattr(claims, "_PATIENCE", 10**9)
    monkeypatch.setattr(claims, "_MOST", 30_000)
    slow = solved(drawn(seed), **knobs)
    assert ends(quick) == pytest.approx(ends(slow), abs=1e-9)
    assert quick.least.share == pytest.approx(slow.least.share, abs=1e-9)
    assert quick.settlement.settled
    assert quick.settlement.steps <= slow.settlement.steps
    assert ends(quick).min() < 0.9  # somebody lost


def ends(found: Contagion) -> np.ndarray:
    return np.concatenate([found.settlement.share, found.settlement.loan])


def share_of(settlement: claims.Settlement, party: str) -> float:
    return float(settlement.share[settlement.sheet.party(party)])


def pair(outside: float, held: float) -> Snapshot:
    """Two tokens that hold each other, and each a little at a bank."""
    both = [("a", "b"), ("b", "a")]
    rows = [("external:bank", f"asset:{one}", "USDC", outside, "backing") for one, _ in both]
    rows += [(f"asset:{one}", f"asset:{other}", one, held, "vault_share") for one, other in both]
    return made(rows, tokens=[(name, "vault_share", "USDC", 1.0) for name in "ab"])


@pytest.mark.parametrize("kept", [0.5, 0.97, 0.9999])
def test_tokens_that_hold_each_other_are_worth_what_stands_outside(kept: float) -> None:
    # each holds 1,000 kept of the other and 1,000 (1 - kept) at the bank; the bank pays 0.3
    book = pair(1_000.0 * (1.0 - kept), 1_000.0 * kept)
    found = solved(book, failed=("external:bank",), assumed=Assumptions(capital=0.0, recovery=0.3))
    owed, sheet = found.require().settlement.owed, found.settlement.sheet
    assert not owed.circular
    at = [sheet.party("asset:a"), sheet.party("asset:b")]
    assert owed.held[at] == pytest.approx([1_000.0, 1_000.0])
    assert found.settlement.share[at] == pytest.approx([0.3, 0.3], abs=1e-9)


def test_tokens_that_are_named_for_more_than_each_other_hold_stand_on_nothing() -> None:
    # Of b there is only what stands in it: 990 of a, which holds b alone. Named are 1,000 of each,
    # so that every round round the circle a hundredth of the named is too many.
    rows = [
        ("asset:a", "asset:b", "a", 990.0, "vault_share"),
        ("asset:b", "asset:a", "b", 990.0, "vault_share"),
        ("asset:a", "external:fund", "a", 10.0, "vault_share"),
        ("asset:b", "external:fund", "b", 10.0, "vault_share"),
    ]
    book = made(rows, tokens=[(name, "vault_share", "USDC", 1.0) for name in "ab"])
    sheet = solved(book).settlement.sheet
    at = [sheet.party("asset:a"), sheet.party("asset:b")]
    assert sheet.stakes.scale[at] == pytest.approx([0.0, 0.0], abs=1e-9)
