"""November 2025, xUSD and deUSD: two tokens that backed each other, rebuilt from what was told.

Every number is a fact of docs/methods/cases.md, in millions of USD, or is named as an assumption.
Run it as it is: `python examples/circular_backing.py`. The first run on a machine compiles for a
minute or two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import polars as pl

from undertow.econometrics.clearing import Debts, clearing
from undertow.measures import interconnection
from undertow.measures.study import Study
from undertow.rules.snapshot import Snapshot
from undertow.state import Claims
from undertow.stress import Scenario
from undertow.stress.contagion import Assumptions, Channels, Contagion, Solver
from undertow.worlds.frames import from_tuples

TS = 1_762_214_400_000_000  # 4 November 2025
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Case:
    """One reading of the facts; the defaults are the first of each that was told."""

    own: float = 170.0  # own assets, days before (a trader); 162 and 160 were told as well
    claims: float = 530.0  # on them; 520 was told as well
    lost: float = 93.0  # by an external manager (Stream, 4 November)
    supply: float = 121.0  # market value of deUSD
    lent: float = 0.65  # of deUSD's backing, to Stream (Yields and More, Nansen); 0.56 (gtgt.live)
    held: float = 75.0  # deUSD that Stream held (Elixir, 6 November)
    redeemed: float = 0.0  # deUSD that others took out at par before
    first: bool = False  # whether Stream pays what deUSD lent to it before all others
    within: bool = False  # whether the deUSD that it held is part of its own assets
    retired: bool = False  # whether the deUSD that it held is cancelled (Elixir, 6 November)

    @property
    def lent_usd(self) -> float:
        """What deUSD had lent to Stream; who redeems is paid from the rest."""
        return self.lent * self.supply

    @property
    def rest(self) -> float:
        """What else stands behind deUSD. Assumption: it is good."""
        return self.supply - self.lent_usd - self.redeemed

    @property
    def outside(self) -> float:
        """What Stream has beside deUSD and what the manager lost."""
        return self.own - self.lost - (self.held if self.within else 0.0)


# Debt to lenders of xUSD and its like (Yields and More, 4 November): 284.9 in all. Assumption: what
# they lent is a claim on xUSD at par, paid alike with all others.
ALL_LENT, TELOSC, MEV, ELIXIR = 284.9, 123.6, 25.4, 68.0
LENDERS = {"TelosC": TELOSC, "MEV Capital": MEV, "other lenders": ALL_LENT - TELOSC - MEV - ELIXIR}

# On 6 November 75 were 90 % of deUSD still outstanding: the rest of 121 had been redeemed.
REDEEMED = 121.0 - 75.0 / 0.9

TOLD_PRICE, TOLD_PAR = (0.26, 0.30), (1.27, 1.0)  # of xUSD; of deUSD 0.015 to 0.03

READINGS = {
    "170 under 530, 65 % lent": Case(),
    "56 % of deUSD's backing lent": Case(lent=0.56),
    "162 under 530": Case(own=162.0),
    "160 under 520": Case(own=160.0, claims=520.0),
    "deUSD is part of the 170": Case(within=True),
    "what deUSD lent is paid first": Case(first=True),
    "others had redeemed deUSD before": Case(redeemed=REDEEMED),
    "the same, 56 % lent": Case(redeemed=REDEEMED, lent=0.56),
    "others had redeemed, deUSD is retired": Case(redeemed=REDEEMED, retired=True),
}


class Worth(NamedTuple):
    """What a unit of par of both tokens is worth."""

    xusd: float
    deusd: float | None  # of what is retired, nothing can be said


@cache
def bare() -> Snapshot:
    """A book without accounts or claims: the dollar and two tokens.

    A unit of each token is a dollar of par; what is no token counts as dollars.
    """
    names = ("asset", "symbol", "kind", "reference", "rate")
    assets = [("USD", "USD", "fiat", None, None), ("xUSD", "xUSD", "stable", "USD", 1.0),
              ("deUSD", "deUSD", "stable", "USD", 1.0)]  # fmt: skip
    tables = {"assets": from_tuples("assets", names, assets, ts=TS)}
    for empty in ("venues", "instruments", "accounts", "positions", "prices"):
        tables[empty] = from_tuples(empty, (), [])
    return Snapshot.from_tables(tables, TS)


def snapshot(claims: list[tuple[str, str, str, str, float]]) -> Snapshot:
    """Who owes whom what, in millions of dollars; nothing that is nothing."""
    names = ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty")
    rows = [(*debtor.split(":"), *creditor.split(":"), asset, kind, usd * MILLION)
            for debtor, creditor, asset, kind, usd in claims if usd > 0.0]  # fmt: skip
    table = from_tuples("claims", names, rows, ts=TS)
    return replace(bare(), claims=Claims.from_frames(bare().universe, table))


def book(case: Case) -> Snapshot:
    """Who has a claim on what."""
    public = case.claims - case.lent_usd - sum(LENDERS.values())
    loan = "loan" if case.first else "backing"
    rows = [
        ("external:manager", "asset:xUSD", "USD", "deposit", case.lost),
        ("external:other assets", "asset:xUSD", "USD", "deposit", case.outside),
        ("asset:xUSD", "external:other holders of xUSD", "xUSD", "backing", public),
        *(("asset:xUSD", f"external:{name}", "xUSD", "backing", usd)
          for name, usd in LENDERS.items()),
    ]  # fmt: skip
    if case.retired:
        return snapshot([*rows, ("asset:xUSD", "external:Elixir", "xUSD", loan, case.lent_usd)])
    others = case.supply - case.redeemed - case.held
    return snapshot([
        *rows,
        ("asset:deUSD", "asset:xUSD", "deUSD", "backing", case.held),
        ("asset:xUSD", "asset:deUSD", "xUSD", loan, case.lent_usd),
        ("external:rest of deUSD", "asset:deUSD", "USD", "deposit", case.rest),
        ("asset:deUSD", "external:other holders of deUSD", "deUSD", "backing", others),
    ])  # fmt: skip


def mints(came_in: float, minted: float) -> Snapshot:
    """A chain of mints alone: all but what came in stands on the token itself."""
    round_trip = minted - came_in
    return snapshot([
        ("external:came in", "asset:xUSD", "USD", "deposit", came_in),
        ("asset:deUSD", "asset:xUSD", "deUSD", "backing", round_trip),
        ("asset:xUSD", "asset:deUSD", "xUSD", "backing", round_trip),
        ("asset:xUSD", "external:holders", "xUSD", "backing", came_in),
    ])  # fmt: skip


def token(study: Study, name: str) -> dict[str, float]:
    """The row of a token in the ledger of reuse."""
    return study.tables["tokens"].row(by_predicate=pl.col("asset") == name, named=True)


def solved(case: Case, channels: Channels | None = None) -> Contagion:
    """The manager pays nothing. Assumption: nobody here has a buffer."""
    told = channels or Channels.only("claims", "dependence")
    return Solver.of(book(case)).solve(
        Scenario(name="the manager's loss"), failed=("external:manager",), channels=told,
        assumed=Assumptions(capital=0.0),
    ).require()  # fmt: skip


def worth(found: Contagion) -> Worth:
    """What is left of a unit of par: what backed it before, times what is left of that."""
    done = found.settlement
    at = [done.sheet.party(name) for name in ("asset:xUSD", "asset:deUSD")
          if name in done.sheet.names]  # fmt: skip
    each = [float(done.sheet.stakes.scale[n] * done.share[n]) for n in at]
    return Worth(each[0], each[1] if len(each) > 1 else None)


def cleared(case: Case) -> Worth:
    """The same by clearing alone: two debtors who owe each other and others, all of one rank."""
    debts = Debts.of(
        [0, 1], [1, 0], [case.lent_usd, case.held], 2,
        [case.claims - case.lent_usd, case.supply - case.redeemed - case.held],
    )  # fmt: skip
    found = clearing(debts, [case.outside, case.rest])
    xusd, deusd = (float(each) for each in found.paid / found.owed)
    return Worth(xusd, deusd)


def lost_for(price: float, case: Case) -> float:
    """The loss at which a unit of xUSD is worth so much, by the same two lines."""
    deusd = (case.rest + case.lent_usd * price) / (case.supply - case.redeemed)
    return case.own + case.held * deusd - case.claims * price


def main() -> None:
    """Print the map, the leverages, the loss, and how far facts that disagree move it."""
    case = Case()
    study = interconnection.reuse(book(case))
    print_ledger(study)
    print_leverage(case, study)
    found = solved(case)
    print_bearers(found)
    print("\nworth of a unit of par after the loss      xUSD   deUSD")
    worst = 1e-12
    for words, each in READINGS.items():
        engine = worth(solved(each))
        deusd = f"{engine.deusd:.4f}" if engine.deusd is not None else "     -"
        print(f"  {words:<38}  {engine.xusd:.4f}  {deusd}")
        if engine.deusd is not None and not each.first:
            alone = cleared(each)
            worst = max(worst, abs(engine.xusd - alone.xusd), abs(engine.deusd - alone.deusd))
    print(f"  the solver and clearing alone differ by no more than {worst:.0e}")
    last = replace(case, redeemed=REDEEMED, retired=True)
    behind = last.rest + last.lent_usd * worth(solved(last)).xusd
    print(f"  once deUSD is retired, {behind:.1f} stand behind {75.0 / 0.9 - 75.0:.1f} of others")
    for par in TOLD_PAR:
        low, high = (price / par for price in TOLD_PRICE)
        least, most = lost_for(high, case), lost_for(low, case)
        print(f"told, of {par}: xUSD {low:.3f} to {high:.3f}, a loss of {least:.1f} to {most:.1f}")
    print("told: deUSD 0.015 to 0.030")
    after = (case.own - case.lost) / case.own
    print(f"if the 530 were borrowed against assets of 700 in all, own assets keep {after:.3f}")


def print_ledger(study: Study) -> None:
    """What tokens are made of, and how much they back themselves."""
    for name in ("xUSD", "deUSD"):
        row, usd = token(study, name), token(study, name)["claims_usd"] / MILLION
        made = ", ".join(f"{share:.3f} {end}" for end, share in ends(study, name).items())
        print(f"{name}: {usd:.0f} of claims, backed {row['backed']:.3f}; {made}")
        print(
            f"  in a circle: {row['in_circle']}; self-backed {row['self_backed']:.4f} netted, "
            f"{row['self_backed_pooled']:.4f} pooled; multiplier {row['multiplier']:.3f} and "
            f"{row['multiplier_pooled']:.3f}"
        )
    bottom = study.tables["bases"]
    ratio = bottom["claims_usd"].sum() / bottom["root_usd"].sum()
    print(f"all layers: {ratio:.3f} of claims on 1 at the bottom")


def ends(study: Study, name: str) -> dict[str, float]:
    """What a token is made of in the end."""
    rows = study.tables["made_of"].filter(pl.col("node") == f"asset:{name}")
    return dict(rows.select("end", "share").iter_rows())


def print_leverage(case: Case, study: Study) -> None:
    """The quotes, and what the ledger says of the same tokens."""
    row = token(study, "xUSD")
    chain, whole = (token(interconnection.reuse(mints(*each)), "xUSD")["multiplier"]
                    for each in ((1.9, 14.5), (case.own, case.claims)))  # fmt: skip
    print("\nleverage of xUSD")
    for words, value in (
        ("(own + claims) / own, 170 and 530", (case.own + case.claims) / case.own),
        ("claims / own, 170 and 530", case.claims / case.own),
        ("claims / own, 160 and 520", 520.0 / 160.0),
        ("claims / all that was told to back them", 1.0 / row["backed"]),
        ("claims / dollars at the bottom", 1.0 / ends(study, "xUSD")["USD"]),
        ("multiplier, netted", row["multiplier"]),
        ("multiplier, pooled", row["multiplier_pooled"]),
        ("multiplier of one chain, 1.9 and 14.5", chain),
        ("multiplier, if all but 170 were such mints", whole),
    ):
        print(f"  {words:<43} {value:.2f}")
    gap = case.claims - case.own
    print(f"  of {gap:.0f} beyond own assets the circle through deUSD is {case.held:.0f}")


def print_bearers(found: Contagion) -> None:
    """Who had what of the hole that was there before, and who bears the loss."""
    done = found.settlement
    sheet, owed = done.sheet, done.owed
    print("\nwho bears it                      par   short before   of the loss")
    rows = []
    for n in range(len(sheet)):
        mine = (sheet.creditor == n) & ~sheet.is_debtor[sheet.debtor]
        if sheet.is_debtor[n] and mine.any():
            par, had = (float(each[mine].sum()) / MILLION for each in (sheet.qty, owed.face))
            name = sheet.names[n].removeprefix("external:")
            rows.append((name, par, par - had, float(done.hit[n]) / MILLION))
    for row in sorted(rows, key=lambda row: -row[3]):
        print("  {:<27} {:>7.2f} {:>14.2f} {:>13.2f}".format(*row))
    sums = [sum(row[k] for row in rows) for k in (1, 2, 3)]
    print("  {:<27} {:>7.2f} {:>14.2f} {:>13.2f}".format("all", *sums))


if __name__ == "__main__":
    main()
