"""What came of a scenario when losses travel by several channels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow.errors import NotSettled
from undertow.state import KeyColumn
from undertow.stress.aftermath import Cascade
from undertow.stress.contagion import ledger
from undertow.stress.contagion.channels import Assumptions, Channels
from undertow.stress.contagion.claims import Settlement, settle_claims
from undertow.stress.contagion.stakes import POOL, TOKEN
from undertow.stress.contagion.state import State
from undertow.stress.stressed import Stressed

_LOST = ("gone_usd", "cost_usd", "ruined_usd")  # what is lost on top of insolvency


class Ending(Enum):
    """How the passes ended."""

    SETTLED = "settled"
    PASS_LIMIT = "pass limit"  # channels were still moving after the last pass
    BOUNDS = "bounds"  # a price left all bounds; the pass before that is the outcome


class Cause(NamedTuple):
    """One component of the state that a channel worsened in a pass, and out of whose loss."""

    number: int  # of the pass
    channel: str
    component: str
    name: str  # of the asset or instrument
    source: str  # a party, empty where nobody is named
    usd: float  # that it lost or did not pay
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Contagion:
    """The last pass of a solve, and how it came to it."""

    cascade: Cascade  # forced sales of the last pass; its ledger conserves by itself
    start: Stressed  # the scenario, with what was named as failed, before any channel
    state: State  # what channels had done when the last pass began
    settlement: Settlement  # who paid what after it
    channels: Channels
    assumed: Assumptions
    ending: Ending
    tolerance: float
    passes: tuple[dict[str, float], ...]
    because: tuple[Cause, ...]
    fallen: KeyColumn  # parties that were named as failed
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Contagion({self.ending.value} after {len(self.passes)} passes, "
            f"{', '.join(self.channels.on) or 'no channel'}; .headline(), .realised(), .causes())"
        )

    def require(self) -> Contagion:
        """The outcome itself, if passes and cascade came to rest.

        Raises
        ------
        NotSettled
            When they did not.
        """
        if self.ending is not Ending.SETTLED:
            raise NotSettled(
                f"channels had not come to rest after {len(self.passes)} passes: "
                f"{self.ending.value}",
                hint="allow more with max_passes, or read it as it is",
            )
        if not self.settlement.settled:
            raise NotSettled(
                "payments had not come to rest",
                hint="debts go round in circles that keep nearly all; read it as it is",
            )
        self.cascade.require()
        return self

    @cached_property
    def _realised(self) -> pl.DataFrame:
        return ledger.realised(self.cascade, self.settlement)

    def realised(self) -> pl.DataFrame:
        """Who gained what in USD; the sum is nothing where the cascade was checked."""
        return self._realised

    @property
    def leak(self) -> float | None:
        """Sum of the realised ledger over the book and all that is owed; None unless checked."""
        if not self.cascade.checked:
            return None
        owed = float(self.settlement.owed.face.sum())
        return abs(float(self._realised["usd"].sum())) / max(self.cascade.book_usd + owed, 1.0)

    def handed_on(self) -> pl.DataFrame:
        """Who was not paid by whom."""
        return ledger.handed_on(self.settlement)

    def quantities(self) -> pl.DataFrame:
        """Units of every reserve: robbed, taken out, locked, staying."""
        return ledger.quantities(self.cascade, self.settlement.losses)

    @cached_property
    def marks(self) -> ledger.Valuation:
        """Claims at their marks: a ledger of its own, never added to what was realised."""
        return ledger.Valuation(self.settlement, self.assumed)

    def valuation(self) -> pl.DataFrame:
        """By party, what its claims lose by clearing, ahead, by linear marks and in one hit."""
        return self.marks.table()

    @cached_property
    def least(self) -> Settlement:
        """The least payments that fit the same cascade, beside the greatest in `settlement`."""
        return settle_claims(
            self.settlement.sheet, self.settlement.losses, self.cascade.stressed, self.channels,
            self.assumed, fallen=self.fallen, least=True,
        )  # fmt: skip

    def causes(self) -> pl.DataFrame:
        """Every move of the state, in order: which channel, in which pass, out of whose loss."""
        names = {"number": "pass", "source": "from"}
        schema = {
            names.get(field, field): {"number": pl.Int64}.get(
                field, pl.Float64 if field in ("usd", "before", "after") else pl.String
            )
            for field in Cause._fields
        }
        return pl.DataFrame(list(self.because), schema=schema, orient="row")

    def by_pass(self) -> pl.DataFrame:
        """Pass by pass: what was lost by then, by channel, and by how much the state moved."""
        return pl.DataFrame(list(self.passes))

    def by_node(self) -> pl.DataFrame:
        """Parties that lost or did not pay, with the least that they may be paying."""
        done, sheet = self.settlement, self.settlement.sheet
        loss = np.where(sheet.is_debtor, done.before - done.after, done.unnamed_loss)
        owed = done.owed.held + done.owed.loans
        least = self.least.share if self.channels.claims else done.share
        table = pl.DataFrame(
            {
                "party": pl.Series(sheet.names, dtype=pl.String),
                "sort": [("debtor", "token", "pool")[n] for n in sheet.sort],
                "owed_usd": owed,
                "share": done.share,
                "least_share": least,
                "not_paid_to_it_usd": done.hit,
                "bears_usd": loss,
                "cost_usd": done.cost,
                "defaulted": done.defaulted,
            }
        )
        touched = (pl.col("share") < 1.0) | (pl.col("bears_usd").abs() > 1e-9) | (
            pl.col("least_share") < 1.0)  # fmt: skip
        return table.filter(touched).sort("bears_usd", "party", descending=[True, False])

    def headline(self) -> dict[str, Any]:
        """The numbers that a committee asks for first: those of the cascade, and what came on top.

        `lost_usd` is what was lost for good by anybody but borrowers and traders: insolvency, what
        is gone from who failed, what default used up, and what owners whose own accounts ruined
        them left to their creditors. Valuation losses are not in it.
        """
        done = travelled(self.cascade, self.settlement, self.state)
        return {
            "ending": self.ending.value,
            "passes": len(self.passes),
            "channels": list(self.channels.on),
            **self.cascade.headline(),
            "lost_usd": self.cascade.insolvency_usd + sum(done[name] for name in _LOST),
            **done,
            "defaults": int(self.settlement.defaulted.sum()),
        }


def travelled(cascade: Cascade, done: Settlement, state: State) -> dict[str, float]:
    """What each channel moved in one pass, in USD unless it says otherwise."""
    sheet, owed = done.sheet, done.owed
    tokens, pools = sheet.sort == TOKEN, sheet.sort == POOL
    price = cascade.plan.insts["start"]
    snapshot = cascade.stressed.snapshot
    return {
        "bad_usd": float(cascade.bad.sum() + cascade.short.sum()),
        "not_paid_usd": float(done.lost[sheet.is_debtor[sheet.debtor]].sum()),
        "gone_usd": float(done.gone.sum() + done.under_loans.sum()),
        "cost_usd": float(done.cost.sum()),
        "ruined_usd": float(done.ruined.sum()),
        "pools_lost_usd": float(done.pool_loss[pools].sum()),
        "tokens_lost_usd": float((owed.held * (1.0 - done.share))[tokens].sum()),
        "lowest_peg": float(np.exp(state.peg.min(initial=0.0))),
        "locked_usd": float((done.losses.locked * price).sum()),
        "dearer_usd": float((state.rate * snapshot.liquidity.borrowed * price).sum()),
    }
