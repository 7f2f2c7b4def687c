"""Dependence: what hangs on an oracle, a bridge, a keeper, an issuer or a chain that failed.

Names in `failed` are `custodian:NAME`, `bridge:NAME`, `issuer:NAME`, `chain:NAME`,
`oracle:INSTRUMENT` (the feed that others follow), `asset:NAME` (who stands behind it pays only
`recovery`), `instrument:NAME` (what lies in it is gone but for that), or a party of the claims
(`venue:okx`, `external:desk`, `owner:17`), which is left with `recovery` of what it has outside,
and a lender of what lies in its pools. A shock in their place says more:
`CustodianFailure(name="Keeper", recovery=0.4)`.

What fails by itself, because it could not pay, is followed too: what names it as its custodian or
issuer without a claim on it, and oracles whose feed is a market of a venue that defaulted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from undertow.errors import StateError
from undertow.state import AnyColumn, KeyColumn, Universe
from undertow.state.universe import NONE
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.claims import Settlement
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.proposals import Origin, Proposal, own_receipts
from undertow.stress.contagion.stakes import POOL, TOKEN
from undertow.stress.failures import (
    BridgeFailure,
    CustodianFailure,
    Exploit,
    Failure,
    IssuerFailure,
    fail,
)
from undertow.stress.outages import FROZEN, HOUR_US, MIS_SET
from undertow.stress.pricing import PricingMap
from undertow.stress.shock import Shock, near, require_within
from undertow.stress.stressed import Stressed

_KEEPERS: dict[str, type[Failure]] = {
    "custodian": CustodianFailure, "bridge": BridgeFailure, "issuer": IssuerFailure,
}  # fmt: skip
_PARTIES = ("venue", "external", "owner")
_KINDS = (*_KEEPERS, "chain", "oracle", "asset", "instrument", *_PARTIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFailure(Shock):
    """A feed stands still, or with a `factor` shows that many times the market, to the end.

    It reaches every instrument that follows the feed, and the instrument itself.
    """

    feed: str
    factor: float | None = None

    def __post_init__(self) -> None:
        """Refuse a price of nothing."""
        if self.factor is not None:
            require_within("factor", self.factor, 0.0, 1_000.0, open_low=True)

    def apply(self, stressed: Stressed) -> Stressed:
        """Freeze or set wrong all that follow."""
        code = stressed.universe.code("instrument", self.feed)
        where = stressed.snapshot.oracles.feed == code
        where[code] = True
        mode = FROZEN if self.factor is None else MIS_SET
        after = stressed.put("oracle_mode", where, mode).put("oracle_rounds", where, 0)
        return after if self.factor is None else after.scaled("oracle_factor", where, self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFailure(Shock):
    """A chain stands still: its venues close nobody, and what is read on it shows the old price.

    Read on it are all prices of its venues, and everywhere those of wrappers that live on it.
    """

    chain: str
    hours: float
    round_us: int = 60_000_000

    def apply(self, stressed: Stressed) -> Stressed:
        """Put reopening off and freeze what is read there, for as long."""
        universe = stressed.universe
        runs = np.array([chain == self.chain for chain in universe.venue_chain])
        lives = np.array([chain == self.chain for chain in universe.chain])
        if not (runs.any() or lives.any()):
            known = {*universe.venue_chain, *universe.chain} - {""}
            raise StateError(
                f"no chain is called {self.chain!r}", hint=near(self.chain, tuple(sorted(known)))
            )
        span = round(self.hours * HOUR_US)
        until = np.where(runs, np.maximum(stressed.closed_until_us, span), stressed.closed_until_us)
        wrapped = lives & (universe.reference != NONE)
        where = runs[universe.venue_of] | wrapped[universe.asset_of]
        rounds = min(-(-span // self.round_us), 2**31 - 2)
        held = where & (stressed.oracle_mode == FROZEN) & (stressed.oracle_rounds == 0)
        where &= ~held  # what stands still to the end goes on standing
        after = stressed.put("closed_until_us", slice(None), until)
        return after.put("oracle_mode", where, FROZEN).put("oracle_rounds", where, rounds)


@dataclass(frozen=True, eq=False)
class Named:
    """What was named as failed: shocks to lay on the scenario, and parties left with little."""

    shocks: tuple[Shock, ...]
    fallen: KeyColumn

    @classmethod
    def of(
        cls, failed: Iterable[str | Shock], sheet: Sheet, assumed: Assumptions, round_us: int
    ) -> Named:
        """Look names up.

        Raises
        ------
        StateError
            When a name is of no kind that can fail, or no party is called so.
        """
        shocks: list[Shock] = []
        keepers: list[Failure] = []
        fallen = []
        seen: set[str] = set()  # who is named twice fails once
        failed, universe = tuple(failed), sheet.snapshot.universe
        for each in failed:
            if isinstance(each, Shock):
                shocks.append(each)
                continue
            if each in seen:
                continue
            seen.add(each)
            kind, _, name = each.partition(":")
            if kind in _KEEPERS and any(f"{party}:{name}" in failed for party in _PARTIES):
                continue  # he fails as the party that he is, with all that he owes
            if kind in _KEEPERS:
                keepers.append(_KEEPERS[kind](name=name, recovery=assumed.recovery))
            elif kind == "chain":
                shocks.append(
                    ChainFailure(chain=name, hours=assumed.chain_hours, round_us=round_us)
                )
            elif kind == "oracle":
                shocks.append(FeedFailure(feed=name))
            elif kind == "asset":
                keepers.append(IssuerFailure(asset=name, recovery=assumed.recovery))
            elif kind == "instrument":
                k = universe.code("instrument", name)
                venue, asset = universe.venue_of[k], universe.asset_of[k]
                gone = f"venue:{universe.venues[venue]}" in failed  # with all that lies there
                if assumed.recovery < 1.0 and not gone:
                    shocks.append(
                        Exploit(venue=universe.venues[venue], asset=universe.assets[asset],
                                share=1.0 - assumed.recovery)
                    )  # fmt: skip
            elif kind in _KINDS:
                party = sheet.party(each)
                if kind == "venue" and assumed.recovery < 1.0 and _lends(sheet, name):
                    shocks.append(Exploit(venue=name, share=1.0 - assumed.recovery))
                fallen.append(party)
            else:
                raise StateError(
                    f"failed was {each!r}; it may be {', '.join(f'{k}:NAME' for k in _KINDS)}",
                    hint=near(kind, _KINDS),
                )
        if keepers:
            shocks.append(_AtOnce(failures=tuple(keepers), recovery=assumed.recovery))
        return cls(tuple(shocks), np.array(sorted(set(fallen)), dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class _AtOnce(Shock):
    """Several who stand behind assets fail together."""

    failures: tuple[Failure, ...]
    recovery: float

    def apply(self, stressed: Stressed) -> Stressed:
        """Write down once what hangs on any of them."""
        return fail(stressed, self.failures, self.recovery)


def _lends(sheet: Sheet, venue: str) -> bool:
    """Whether a venue is a lender: what lies in its pools goes with it."""
    universe = sheet.snapshot.universe
    pools = sheet.code[sheet.sort == POOL]
    return bool((universe.venue_of[pools] == universe.code("venue", venue)).any())


def propose_dependence(settlement: Settlement, pricing: PricingMap, laid: Stressed) -> Proposal:
    """What hangs by name alone on those who could not pay, and feeds of venues that defaulted."""
    sheet, universe = settlement.sheet, laid.universe
    whole = np.ones(len(sheet.price))
    origins: dict[tuple[str, int], tuple[Origin, ...]] = {}
    rows = np.flatnonzero(sheet.sort[sheet.creditor] == TOKEN)
    backs = set(zip(sheet.debtor[rows].tolist(), sheet.creditor[rows].tolist(), strict=True))
    stopped = np.zeros(len(universe.instruments), dtype=np.bool_)
    feed = laid.snapshot.oracles.feed
    for party in np.flatnonzero(settlement.defaulted):
        name, usd = sheet.names[party], float(settlement.owed.held[party])
        because = ((name, usd * float(1.0 - settlement.share[party])),)
        for k in _named_by(universe, name.partition(":")[2]):
            if (int(party), int(sheet.token_party[k])) not in backs:
                whole[k] = min(whole[k], settlement.share[party])
                origins["receipt", k] = because
        at = np.flatnonzero(sheet.venue_party == party)
        if len(at):
            here = (feed != NONE) & (universe.venue_of[feed] == at[0])
            stopped |= here
            origins |= {("frozen", int(k)): because for k in np.flatnonzero(here)}
    engine = pricing.receipts(settlement.losses.receipt)
    columns: dict[str, AnyColumn] = {"frozen": stopped}
    if (whole < 1.0).any():
        columns["receipt"] = np.where(
            whole < 1.0, own_receipts(pricing, whole, engine, laid.receipt), 1.0
        )
    return Proposal("dependence", columns, origins)


def _named_by(universe: Universe, name: str) -> list[int]:
    """Assets that name somebody as their custodian or issuer."""
    roles = zip(universe.custodian, universe.issuer, strict=True)
    return [k for k, named in enumerate(roles) if name and name in named]
