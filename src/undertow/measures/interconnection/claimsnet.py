"""The claims of a book as exposures: who marks down what when somebody is stressed.

Pools, tokens and debtors without equity pass stress on as it comes. A loss is counted where it
stays: at equity, and at creditors whom no row names; so no dollar of it is counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from undertow.econometrics.communicability import Impacts
from undertow.econometrics.debtrank import Exposures, Spread, stress
from undertow.measures.interconnection.margins import defaults_one_by_one
from undertow.state import FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.claims import Settlement
from undertow.stress.contagion.ledger import Valuation

_BY_DEFAULT = 600  # parties up to which all defaults are followed at once


@dataclass(frozen=True, eq=False)
class ClaimsNet:
    """Parties, who holds claims on whom, and where losses stay."""

    names: tuple[str, ...]
    holder: KeyColumn  # by claim
    debtor: KeyColumn
    usd: FloatColumn
    buffer: FloatColumn  # by party
    equity: FloatColumn  # by party: USD; none of those who pass losses on
    unnamed: FloatColumn  # by party: USD owed to creditors whom no row names
    first: FloatColumn  # by party: stress of its own

    @classmethod
    def of(cls, settlement: Settlement, assumed: Assumptions) -> ClaimsNet:
        """Read the exposures after a settlement."""
        marks, sheet = Valuation(settlement, assumed), settlement.sheet
        own = np.where(marks.passes, 0.0, np.maximum(marks.before, 0.0))
        some = settlement.owed.due > 0.0
        return cls(
            names=sheet.names,
            holder=frozen(sheet.creditor[some].astype(np.int64)),
            debtor=frozen(sheet.debtor[some].astype(np.int64)),
            usd=frozen(settlement.owed.due[some]),
            buffer=frozen(marks.buffer),
            equity=frozen(own),
            unnamed=frozen(marks.debts.outside),
            first=frozen(np.clip(marks.own / marks.buffer, 0.0, 1.0)),
        )

    @property
    def stays(self) -> FloatColumn:
        """By party: USD that its stress costs equity, and creditors without a name."""
        return self.equity + self.unnamed

    @cached_property
    def exposures(self) -> Exposures:
        """Claims over the buffers of who holds them."""
        return Exposures.of(self.holder, self.debtor, self.usd, self.buffer)

    @cached_property
    def impacts(self) -> Impacts:
        """What the default of each takes of the buffers of others, at most all."""
        return Impacts.of(self.exposures.matrix, np.ones(len(self.names)))

    @property
    def criticality(self) -> FloatColumn:
        """By party: USD that its default takes at once from those who hold claims on it."""
        return self.impacts.criticality(self.stays)

    def diffusion(self, parties: Sequence[KeyColumn]) -> FloatColumn:
        """By set of parties: its share of what travels over claims by any number of steps.

        Walks of k steps count 1/k!, by the USD that stay where they end.
        """
        return self.impacts.part(parties, self.stays)

    @property
    def radius(self) -> float:
        """Spectral radius; above 1 small stress grows round circles of claims; 0 without any."""
        return self.exposures.radius

    def shaken(self, times: FloatColumn) -> ClaimsNet:
        """The same with every claim so many times as large."""
        return replace(self, usd=frozen(self.usd * times))

    def on_top(self, spread: Spread) -> float:
        """USD that stress adds to what each lost of its own."""
        found = stress(self.exposures, self.first, spread)
        return float((found.level - found.first) @ self.stays)

    def defaults(self, parties: Sequence[KeyColumn], spread: Spread) -> FloatColumn:
        """By set of parties that default at once: USD that it costs all others.

        The creditors without a name of those who default are among the others.
        """
        found = np.empty(len(parties))
        for place, some in enumerate(parties):
            first = np.zeros(len(self.names))
            first[some] = 1.0
            level = stress(self.exposures, first, spread).level
            found[place] = float(level @ self.stays) - float(self.equity[some].sum())
        return found

    @cached_property
    def worst(self) -> tuple[str, float]:
        """The party whose default costs all others most, and how much."""
        if not len(self.names):
            return "", 0.0
        if len(self.names) > _BY_DEFAULT:
            some = np.unique(self.debtor)
            cost = np.zeros(len(self.names))
            cost[some] = self.defaults(list(some[:, None]), Spread.CONTINUOUS)
        else:
            share = defaults_one_by_one(self.exposures) / self.buffer
            cost = share @ self.stays + self.unnamed
        k = int(np.argmax(cost))
        return self.names[k], float(cost[k])
