"""Shocks that take away what stands behind things: failed issuers and keepers, robbed venues.

What they do is done to claims and deposits of the snapshot itself, and to the receipt factors of
what was backed by what is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from undertow.errors import StateError
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.state.book import CASH, COLLATERAL, SUPPLY
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NONE
from undertow.stress.shock import Shock, near, require_within
from undertow.stress.stressed import Stressed
from undertow.stress.worth import asset_codes, asset_prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Shock):
    """Somebody who stands behind assets pays `recovery` of what it owes.

    It is called by its `name`: a key of a debtor in `claims`, or what the table `assets` says; or
    by the one `asset` that it stands behind. What hangs on several is hit by its share. Claims
    on it are written down, and what they back takes a receipt factor.
    """

    name: str = ""
    asset: str = ""
    recovery: float = 0.0

    role: ClassVar[str] = ""  # column of the universe that names it
    kinds: ClassVar[tuple[str, ...]] = ()  # of claims on it

    def __post_init__(self) -> None:
        """Refuse a nameless failure, and a recovery that is no share."""
        require_within("recovery", self.recovery, 0.0, 1.0)
        if not (self.name or self.asset):
            raise StateError("a failure needs the name of who fails, or the asset it stands behind")

    def apply(self, stressed: Stressed) -> Stressed:
        """Write down what it owes and what that backs."""
        return fail(stressed, (self,), self.recovery)

    def reach(self, stressed: Stressed) -> tuple[BoolColumn, BoolColumn, BoolColumn]:
        """Claims on it; assets it stands behind alone; and those it can reach at all."""
        universe = stressed.universe
        owed, every = self._owed(stressed), np.ones(len(universe.assets), dtype=np.bool_)
        alone = np.zeros_like(every)
        if self.name and self.role:
            alone[[named == self.name for named in getattr(universe, self.role)]] = True
        if self.asset:
            every = np.arange(len(every)) == universe.code("asset", self.asset)
            alone = alone & every if self.name else every
            owed &= stressed.snapshot.claims.creditor == _node(stressed, f"asset:{self.asset}")
        if not (owed.any() or alone.any()):
            raise StateError(
                f"nothing is known to stand on {self.name!r}",
                hint=near(self.name, self._names(stressed)),
            )
        return owed, alone, every

    def _owed(self, stressed: Stressed) -> BoolColumn:
        claims = stressed.snapshot.claims
        kinds = [CLAIM_KINDS.index(kind) for kind in self.kinds]
        key = np.array([node.partition(":")[2] for node in claims.nodes], dtype=object)
        by_name = key[claims.debtor] == self.name if self.name else np.ones(len(claims), dtype=bool)
        owed: BoolColumn = np.isin(claims.kind, kinds) & by_name
        return owed

    def _names(self, stressed: Stressed) -> tuple[str, ...]:
        claims = stressed.snapshot.claims
        kinds = [CLAIM_KINDS.index(kind) for kind in self.kinds]
        debtors = np.unique(claims.debtor[np.isin(claims.kind, kinds)])
        names = {claims.nodes[k].partition(":")[2] for k in debtors}
        names |= set(getattr(stressed.universe, self.role)) if self.role else set()
        return tuple(sorted(names - {""}))


def fail(stressed: Stressed, failures: Iterable[Failure], recovery: float) -> Stressed:
    """All of them at once: what hangs on several by as many names is written down once.

    Whoever stands behind an asset alone takes all claims with it that the asset lives on, whatever
    their kind; only what was lent to it stays owed.
    """
    claims, count = stressed.snapshot.claims, len(stressed.universe.assets)
    owed, lost = np.zeros(len(claims), dtype=np.bool_), np.zeros(count)
    alone = np.zeros(count, dtype=np.bool_)
    for each in failures:
        mine, whole, reached = each.reach(stressed)
        owed |= mine
        alone |= whole
        lost = np.where(reached, np.maximum(lost, _backed_by(stressed, owed)), lost)
    behind = np.isin(asset_codes(claims)[claims.creditor], np.flatnonzero(alone))
    owed |= behind & (claims.kind != CLAIM_KINDS.index("loan"))
    lost[alone] = 1.0
    return _written_down(stressed, owed, lost, recovery)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerFailure(Failure):
    """Who issued an asset redeems only a part of it."""

    role: ClassVar[str] = "issuer"
    kinds: ClassVar[tuple[str, ...]] = ("backing", "vault_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodianFailure(Failure):
    """Who keeps coins for others gives only a part of them back."""

    role: ClassVar[str] = "custodian"
    kinds: ClassVar[tuple[str, ...]] = ("custody",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeFailure(Failure):
    """What a bridge locked up is gone in part, and so is what it issued against it."""

    kinds: ClassVar[tuple[str, ...]] = ("bridge",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploit(Shock):
    """A venue is robbed of a share, or so many `usd`, of what it keeps; one `asset`, or all.

    Every deposit there (supplied, posted, or held as cash) shrinks by the same share, claims on the
    venue are written down, and what they back takes a receipt factor.
    """

    venue: str
    share: float = 0.0
    usd: float = 0.0
    asset: str = ""

    def __post_init__(self) -> None:
        """Refuse both a share and a value, or neither."""
        require_within("share", self.share, 0.0, 1.0)
        require_within("usd", self.usd, 0.0)
        if (self.share > 0.0) == (self.usd > 0.0):
            raise StateError(
                f"exactly one of share and usd is needed, not {self.share} and {self.usd}"
            )

    def apply(self, stressed: Stressed) -> Stressed:
        """Take the share out of every deposit."""
        snapshot, universe = stressed.snapshot, stressed.universe
        venue = universe.code("venue", self.venue)
        asset = universe.code("asset", self.asset) if self.asset else NONE
        here = universe.venue_of == venue
        if asset != NONE:
            here &= universe.asset_of == asset
        book, claims = snapshot.book, snapshot.claims
        kept = here[book.inst] & np.isin(book.kind, (SUPPLY, COLLATERAL, CASH)) & (book.qty > 0.0)
        worth = float((book.qty * snapshot.market.mark[book.inst])[kept].sum())
        share = self.share or self._share(worth)
        qty = np.where(kept, book.qty * (1.0 - share), book.qty)
        supplied = snapshot.liquidity.supplied
        robbed = replace(
            snapshot,
            book=replace(book, qty=frozen(qty)),
            liquidity=replace(
                snapshot.liquidity,
                supplied=frozen(np.where(here, supplied * (1.0 - share), supplied)),
            ),
        )
        owed = claims.debtor == _node(stressed, f"venue:{self.venue}")
        if asset != NONE:
            owed &= claims.asset == asset
        lost = _backed_by(stressed, owed)
        after = _written_down(replace(stressed, snapshot=robbed), owed, lost, 1.0 - share)
        return after.noted(f"{self.venue} lost {share:.4g} of deposits, {share * worth:,.0f} USD")

    def _share(self, worth: float) -> float:
        if self.usd > worth:
            raise StateError(
                f"{self.venue!r} keeps {worth:,.0f} USD; it cannot lose {self.usd:,.0f}",
                hint="give a share between 0 and 1 instead",
            )
        return self.usd / worth


def _node(stressed: Stressed, node: str) -> int:
    nodes = stressed.snapshot.claims.nodes
    return nodes.index(node) if node in nodes else NONE


def _backed_by(stressed: Stressed, owed: BoolColumn) -> FloatColumn:
    """Of each asset, the share of what backs it that some claims are, by value."""
    claims, universe = stressed.snapshot.claims, stressed.universe
    price = asset_prices(stressed.snapshot)
    code = asset_codes(claims)
    backs = np.isin(claims.kind, [k for k, kind in enumerate(CLAIM_KINDS) if kind != "loan"])
    asset = code[claims.creditor]
    value = claims.qty * price[claims.asset]
    count = len(universe.assets)
    whole = backs & (asset != NONE)
    part = whole & owed
    total = np.bincount(asset[whole], value[whole], minlength=count)
    some = np.bincount(asset[part], value[part], minlength=count)
    return np.divide(some, total, out=np.zeros(count), where=total > 0.0)


def _written_down(
    stressed: Stressed, owed: BoolColumn, lost: FloatColumn, recovery: float
) -> Stressed:
    """Claims `owed` at their recovery, and receipt factors of what they back."""
    claims = stressed.snapshot.claims
    qty = np.where(owed, claims.qty * recovery, claims.qty)
    snapshot = replace(stressed.snapshot, claims=replace(claims, qty=frozen(qty)))
    after = replace(stressed, snapshot=snapshot)
    return after.scaled("receipt", slice(None), 1.0 - (1.0 - recovery) * lost)
