"""April 2026, rsETH: counterfeit collateral at a lender, rebuilt from what was told.

Every number is a fact of docs/methods/cases.md, or is named as an assumption. Run it as it is:
`python examples/counterfeit_collateral.py`. The first run on a machine compiles for a minute or
two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import polars as pl

from undertow.measures import interconnection
from undertow.rules.snapshot import Snapshot
from undertow.stress import Scenario
from undertow.stress.contagion import Assumptions, Channels, Contagion, Solver
from undertow.stress.damage import Counterfeit
from undertow.stress.failures import BridgeFailure, Failure, IssuerFailure
from undertow.worlds.frames import from_tuples

TS = 1_776_470_400_000_000  # 18 April 2026
MILLION = 1e6

RELEASED, POSTED = 116_500.0, 89_567.0  # rsETH (Aave Labs, proposal 477)
WETH_TAKEN, WSTETH_TAKEN = 82_650.0, 821.0  # borrowed against it (Aave's report)
WETH = 190.9 * MILLION / WETH_TAKEN  # USD of one: told values over told units (dn-institute)
WSTETH = 2.3 * MILLION / WSTETH_TAKEN
LTV = 0.93  # loan to value that the category allowed (ForkLog)
SHARED = 0.1512  # short, if all holders share (Aave's report, by rseth-dashboard)
MANTLE, ARBITRUM = 0.7145, 0.2667  # short, if only bridged rsETH bears it (Aave's report)
TOLD = {"all holders share": 123.7, "only bridged rsETH bears it": 230.1}  # bad debt, m USD
FIRST_TOLD = (177.0, 196.0)  # first estimates of it (Bitcoin Suisse)
BEHIND = 5_520.0  # m USD of collateral behind WETH loans, 6 May (tokenintel.org)

# Nobody told what rsETH there was before. 18 % was told of it, and 15.12 % are missing after.
BEFORE = RELEASED / SHARED - RELEASED

# Assumptions of the pool: WETH lent is all that the collateral behind it allowed; liquidators take
# no bonus; the threshold is the loan to value. Who supplied WETH is one account.
LENT = LTV * BEHIND * MILLION / WETH


@dataclass(frozen=True, slots=True)
class Case:
    """One reading of the facts."""

    value: float = 292.0  # m USD of all that was released; 290, 291 and 293 were told as well
    short: float = SHARED  # of what was posted
    bridged: bool = False  # whether it was posted as bridged rsETH, and the bridge is short
    loopers: float = 0.0  # m USD of collateral of others, who owe all that it is good for
    used: float = 0.9  # share of WETH that was lent before; nobody told: an assumption

    @property
    def price(self) -> float:
        """USD of one rsETH."""
        return self.value * MILLION / RELEASED

    @property
    def asset(self) -> str:
        """What was posted."""
        return "bridged rsETH" if self.bridged else "rsETH"

    @property
    def posted_usd(self) -> float:
        """What the counterfeit units were taken for, in m USD."""
        return POSTED * self.price / MILLION

    @property
    def failure(self) -> Failure:
        """Who turns out to be short."""
        left = 1.0 - self.short
        if self.bridged:
            return BridgeFailure(name="the bridge", recovery=left)
        return IssuerFailure(asset="rsETH", recovery=left)


TAKEN_USD = (WETH_TAKEN * WETH + WSTETH_TAKEN * WSTETH) / MILLION


def book(case: Case, counterfeit: float = 0.0) -> Snapshot:
    """One lender, what backs rsETH, and `counterfeit` claims on it that nothing backs."""
    tables: dict[str, Any] = {}

    def put(table: str, columns: str, rows: list[tuple[object, ...]], **rest: object) -> None:
        tables[table] = from_tuples(table, tuple(columns.split()), rows, ts=TS, **rest)

    rate, tokens = case.price / WETH, ("rsETH", "bridged rsETH")
    put("assets", "asset symbol kind reference rate",
        [("ETH", "ETH", "native", None, None), ("WETH", "WETH", "wrapped", "ETH", 1.0),
         ("wstETH", "wstETH", "staked", "ETH", WSTETH / WETH),
         ("rsETH", "rsETH", "staked", "ETH", rate),
         ("bridged rsETH", "rsETH", "wrapped", "rsETH", 1.0)])  # fmt: skip
    put("venues", "venue kind profile", [("lender", "lending", "generic-lending"),
                                         ("market", "spot", None)])  # fmt: skip
    put("instruments", "instrument venue symbol kind asset",
        [("market:ETH", "market", "ETH", "spot", "ETH"),
         *((f"lender:{a}", "lender", a, "reserve", a) for a in ("WETH", "wstETH", *tokens))],
        inverse=False, contract_size=1.0)  # fmt: skip
    put("prices", "instrument kind price",
        [("market:ETH", "spot", WETH), ("lender:WETH", "oracle", WETH),
         ("lender:wstETH", "oracle", WSTETH),
         *((f"lender:{a}", "oracle", case.price) for a in tokens)])  # fmt: skip
    terms = (("ltv", LTV), ("liquidation_threshold", LTV), ("liquidation_bonus", 0.0))
    put(
        "risk_params",
        "venue instrument name value",
        [("lender", f"lender:{a}", name, number) for a in tokens for name, number in terms],
    )
    put("oracles", "venue instrument mode",
        [("lender", f"lender:{a}", "exchange_rate") for a in tokens])  # fmt: skip
    looped, supplied = case.loopers * MILLION / case.price, LENT / case.used
    put(
        "reserves",
        "instrument supplied borrowed",
        [
            ("lender:WETH", supplied, LENT),
            (f"lender:{case.asset}", looped, 0.0),
            ("lender:wstETH", 10.0 * WSTETH_TAKEN, 0.0),
        ],
    )  # the last enough to take 821 from
    put("accounts", "account venue label owner",
        [(1, "lender", "suppliers", 1), (2, "lender", "loopers", 2)],
        margin_group="cross", mode="cross")  # fmt: skip
    owed = LTV * case.loopers * MILLION / WETH * (1.0 - 1e-12)  # at the edge, and not beyond
    put("positions", "account instrument kind qty",
        [(1, "lender:WETH", "supply", supplied),
         *([(2, f"lender:{case.asset}", "collateral", looped), (2, "lender:WETH", "debt", -owed)]
           if looped else [])])  # fmt: skip
    # Nobody told how much was bridged: what of it is short is all that counts.
    put("claims", "debtor_kind debtor creditor_kind creditor asset kind qty",
        [("external", "staked ether", "asset", "rsETH", "ETH", "deposit", BEFORE * rate),
         ("asset", "rsETH", "external", "holders", "rsETH", "backing", BEFORE),
         *([("asset", "rsETH", "external", "thief", "rsETH", "backing", counterfeit)]
           if counterfeit else []),
         ("external", "the bridge", "asset", "bridged rsETH", "rsETH", "bridge", RELEASED)],
    )  # fmt: skip
    return Snapshot.from_tables(tables, TS)


def posted(case: Case) -> Scenario:
    """The counterfeit units are posted, and what was told is borrowed against them.

    Units are shared between the two debts by value: nobody told which stood against which.
    """
    shocks = []
    for asset, units, price in (("WETH", WETH_TAKEN, WETH), ("wstETH", WSTETH_TAKEN, WSTETH)):
        qty = POSTED * units * price / (TAKEN_USD * MILLION)
        good = TAKEN_USD / case.posted_usd
        shocks.append(
            Counterfeit(asset=case.asset, venue="lender", qty=qty, borrow=asset, ltv=good)
        )
    return Scenario(name="counterfeit rsETH", shocks=tuple(shocks))


@cache
def laid_out(case: Case) -> Solver:
    """The solver of a book, for all that may be short of it."""
    return Solver.of(book(case))


def solved(case: Case, *off: str) -> Contagion:
    """What was posted turns out to be short, with all channels but some."""
    found = laid_out(replace(case, short=SHARED)).solve(
        posted(case), failed=(case.failure,), channels=Channels().without(*off),
        assumed=Assumptions(capital=0.0), tolerance=1e-9,
    )  # fmt: skip
    return found.require()


def bad_debt(found: Contagion) -> float:
    """What suppliers lost, in m USD."""
    return float(found.headline()["bad_debt_usd"]) / MILLION


@cache
def by_itself(case: Case) -> float:
    """Bad debt of the counterfeit positions alone, before anybody runs."""
    return bad_debt(solved(replace(case, loopers=0.0), "funding"))


def loopers_for(told: float, case: Case) -> float:
    """Collateral of others, in m USD, that makes up what is told; each owes all it is good for."""
    return (told - by_itself(case)) / (LTV - (1.0 - case.short))


def pool(found: Contagion) -> dict[str, float]:
    """WETH of the lender: what of it is used, and what wanted out and could not."""
    rows = found.quantities()
    row = rows.row(by_predicate=pl.col("instrument") == "lender:WETH", named=True)
    left = row["supplied"] - row["withdrawn"]
    wished = row["withdrawn"] + row["locked"]
    return {"used": row["borrowed"] / left, "wished": wished / row["supplied"],
            "left": row["withdrawn"] * WETH / MILLION,
            "locked": row["locked"] * WETH / MILLION}  # fmt: skip


def priced_at(health: float) -> Case:
    """The reading in which the positions have a health that was told."""
    price = health * TAKEN_USD * MILLION / (LTV * POSTED)
    return Case(value=price * RELEASED / MILLION)


def main() -> None:
    """Print what the released units are of the supply, what they left, and what that explains."""
    case = Case()
    print_supply(case)
    print("\nbad debt of the counterfeit positions alone, m USD")
    for words, each in {
        "all holders share 15.12 %": case,
        "the same, released units worth 290": Case(value=290.0),
        "the same, released units worth 293": Case(value=293.0),
        "the same, at a told health of 1.01": priced_at(1.01),
        "the same, at a told health of 1.03": priced_at(1.03),
        "only bridged bears it, posted on Ethereum": Case(short=0.0),
        "only bridged bears it, posted on Arbitrum": Case(short=ARBITRUM, bridged=True),
        "what was posted is worth nothing": Case(short=1.0),
    }.items():
        print(f"  {words:<43} {by_itself(each):>7.2f}")
    print(f"  told first: {FIRST_TOLD[0]:.0f} to {FIRST_TOLD[1]:.0f}")
    print_needed(case)
    print_pool(case)


def print_supply(case: Case) -> None:
    """Shares, values and health by the facts, and backing by the ledger."""
    row = interconnection.reuse(book(case, counterfeit=RELEASED)).tables["tokens"].row(
        by_predicate=pl.col("asset") == "rsETH", named=True)  # fmt: skip
    print(f"rsETH before, by 15.12 % of all after: {BEFORE:,.0f}; released {RELEASED:,.0f}")
    print(f"  over what was there before: {RELEASED / BEFORE:.4f} (told 0.18)")
    print(f"  over what was there after: {RELEASED / (BEFORE + RELEASED):.4f} (told 0.15)")
    print(f"  backed by the ledger: {row['backed']:.4f}; nothing: {row['nothing']:.4f}")
    print(f"values told: rsETH {case.price:,.1f}, WETH {WETH:,.1f}, wstETH {WSTETH:,.1f} USD")
    allowed = LTV * case.posted_usd
    print(
        f"posted {case.posted_usd:.1f}, borrowed {TAKEN_USD:.1f}, allowed {allowed:.1f} m USD; "
        f"health {allowed / TAKEN_USD:.3f} (told 1.01 to 1.03)"
    )
    low, high = priced_at(1.01).price, priced_at(1.03).price
    print(f"  told healths need rsETH at {low:,.0f} to {high:,.0f} USD")


def print_needed(case: Case) -> None:
    """What was told of bad debt, what of it the positions explain, and what the rest would need."""
    print("\nwhat the rest of the told bad debt would need, at a loan to value of 0.93")
    for words, each in {
        "all holders share": case,
        "only bridged rsETH bears it": Case(short=ARBITRUM, bridged=True),
    }.items():
        alone, told = by_itself(each), TOLD[words]
        need = loopers_for(told, each)
        units = need * MILLION / each.price
        check = bad_debt(solved(replace(each, loopers=need), "funding"))
        print(f"  {words}: {alone:.1f} of {told} explained, {alone / told:.3f} of it")
        print(
            f"    {need:,.0f} m USD or {units:,.0f} rsETH of others, {units / BEFORE:.3f} of all "
            f"before; the solver then finds {check:.1f}"
        )
    need = TOLD["only bridged rsETH bears it"] / (LTV - (1.0 - MANTLE))
    print(
        f"    or, all of it on Mantle: {need:,.0f} m USD, {need * MILLION / case.price:,.0f} rsETH"
    )


def print_pool(case: Case) -> None:
    """What the WETH pool does, by how much of it was used before."""
    print(f"\nWETH pool, lent {LENT * WETH / MILLION:,.0f} m USD (assumed: all that was allowed)")
    print("  used before  bad debt  after the theft  wish to leave  left  used  locked")
    need = loopers_for(TOLD["all holders share"], case)
    for used, loopers in ((0.9, 0.0), (0.8, need), (0.9, need), (0.95, need)):
        found = solved(replace(case, used=used, loopers=loopers))
        after, row = (LENT + WETH_TAKEN) / (LENT / used), pool(found)
        print(
            f"  {used:>11.2f}  {bad_debt(found):>8.1f}  {after:>15.4f}  {row['wished']:>13.4f}"
            f"  {row['left']:>4.0f}  {row['used']:.4f}  {row['locked']:>5.0f}"
        )


if __name__ == "__main__":
    main()
