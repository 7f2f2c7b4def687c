"""Small worlds for contagion: the tiny one, with tokens, parties and claims of one's own.

ETH is 2,000 USD, BTC 40,000, USDC 1. `aave-v3` holds 50,000 USDC of which 30,000 are lent, 10 ETH
and 1 BTC; `hyperliquid` has a fund of 1,000 USD and owes 15,000 USDC to accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from undertow.rules.snapshot import Snapshot
from undertow.state import Claims
from undertow.stress import Scenario
from undertow.stress.contagion import Contagion, Solver
from undertow.stress.shock import Shock
from undertow.worlds import tiny_world
from undertow.worlds.frames import from_tuples

TINY = tiny_world()
SINCE = TINY.tables["assets"]["ts"][0]
NOW = TINY.tables["prices"]["ts"][0]


def _stamped(table: str, columns: tuple[str, ...], rows: Sequence[tuple], ts: object, **rest: object
) -> pl.DataFrame:  # fmt: skip
    frame = from_tuples(table, columns, list(rows), ts=0, **rest)
    dtype = TINY.tables[table]["ts"].dtype
    return frame.with_columns(pl.lit(ts).cast(dtype).alias("ts")).select(TINY.tables[table].columns)


def made(
    claims: Iterable[tuple] = (),
    *,
    tokens: Iterable[tuple] = (),
    reserves: Iterable[tuple[str, float, float]] = (),
    accounts: Iterable[tuple[int, int | None, list[tuple[str, str, float]]]] = (),
    venues: Iterable[tuple[str, str]] = (),
    funds: Iterable[tuple[str, str, float]] = (),
    oracles: Iterable[tuple] = (),
) -> Snapshot:
    """The tiny world with these claims in place of its own, and more of everything else.

    A claim is (debtor, creditor, asset, qty[, kind]); a token (name, kind, reference, price[,
    chain, issuer, custodian]); an account (key, owner, legs at aave-v3).
    """
    held = tuple((key, owner, tuple(legs)) for key, owner, legs in accounts)
    base = _base(tuple(tokens), tuple(reserves), held, tuple(venues), tuple(funds), tuple(oracles))
    rows = [(*d.split(":", 1), *c.split(":", 1), a, kind[0] if kind else "deposit", float(q))
            for d, c, a, q, *kind in claims]  # fmt: skip
    columns = ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty")
    frame = _stamped("claims", columns, rows, NOW, seniority=0)
    return replace(base, claims=Claims.from_frames(base.universe, frame))


@cache
def _base(
    tokens: tuple, reserves: tuple, accounts: tuple, venues: tuple, funds: tuple, oracles: tuple
) -> Snapshot:
    tables = dict(TINY.tables)

    def add(name: str, columns: tuple[str, ...], rows: Sequence[tuple], ts: object, **rest: object
    ) -> None:  # fmt: skip
        if rows:
            frame = _stamped(name, columns, rows, ts, **rest)
            tables[name] = pl.concat([tables[name], frame])

    tokens = tuple((*t, *(None,) * (7 - len(t))) for t in tokens)
    names = ("asset", "symbol", "kind", "reference", "rate", "chain", "issuer", "custodian")
    add("assets", names, [
        (t[0], t[0], t[1], t[2], None if t[2] is None else 1.0, t[4], t[5], t[6]) for t in tokens
    ], SINCE, sector="token")  # fmt: skip
    add("venues", ("venue", "kind", "profile", "chain", "quote"),
        [(v, kind, None, "ethereum", "USD") for v, kind in venues], SINCE)  # fmt: skip
    places = [f"aave-v3:{t[0]}" for t in tokens]
    add("instruments", ("instrument", "venue", "symbol", "kind", "asset"),
        [(p, "aave-v3", t[0], "reserve", t[0]) for p, t in zip(places, tokens, strict=True)],
        SINCE, inverse=False, contract_size=1.0)  # fmt: skip
    add("prices", ("instrument", "kind", "price"),
        [(p, "oracle", t[3]) for p, t in zip(places, tokens, strict=True)], NOW)  # fmt: skip
    terms = (("ltv", 0.7), ("liquidation_threshold", 0.75), ("liquidation_bonus", 0.05))
    add("risk_params", ("venue", "instrument", "name", "value"),
        [("aave-v3", p, name, value) for p in places for name, value in terms], SINCE)  # fmt: skip
    add("accounts", ("account", "venue", "label", "owner"),
        [(key, "aave-v3", f"0x{key}", owner) for key, owner, _ in accounts], NOW,
        margin_group="cross", mode="cross")  # fmt: skip
    add("positions", ("account", "instrument", "kind", "qty"),
        [(key, f"aave-v3:{a}", kind, qty) for key, _, legs in accounts for a, kind, qty in legs],
        NOW)  # fmt: skip
    add("venue_funds", ("venue", "kind", "amount_usd"), funds, NOW)
    told = [o[1] for o in oracles]
    tables["oracles"] = tables["oracles"].filter(~pl.col("instrument").is_in(told))
    add("oracles", ("venue", "instrument", "mode", "feed"), oracles, SINCE)
    given = {f"aave-v3:{asset}": (s, b) for asset, s, b in reserves}
    tables["reserves"] = tables["reserves"].filter(~pl.col("instrument").is_in(list(given)))
    add("reserves", ("instrument", "supplied", "borrowed"),
        [(k, s, b) for k, (s, b) in given.items()], NOW)  # fmt: skip
    tables["claims"] = tables["claims"].clear()
    return Snapshot.from_tables(tables, TINY.ts)


CALM = Scenario(name="calm")


def shocked(*shocks: Shock) -> Scenario:
    return Scenario(name="a test", shocks=shocks)


def solved(snapshot: Snapshot | Solver, *shocks: Shock, **knobs: object) -> Contagion:
    """Solve, and hold the outcome to its ledgers."""
    solver = snapshot if isinstance(snapshot, Solver) else Solver.of(snapshot)
    found = solver.solve(shocked(*shocks), **knobs)
    assert found.leak is not None
    assert found.leak <= 1e-9
    units = found.quantities()
    parts = units["withdrawn"] + units["locked"] + units["staying"] + units["robbed"]
    assert ((parts - units["supplied"]).abs() <= 1e-9 * units["supplied"]).all()
    there = units["supplied"] - units["robbed"] - units["borrowed"] - units["kept"]
    assert (units["withdrawn"] <= there.clip(0.0) + 1e-9 * units["supplied"]).all()
    return found


def share(found: Contagion, party: str) -> float:
    """What is left of a claim on a party."""
    return float(found.settlement.share[found.settlement.sheet.party(party)])


def lost(found: Contagion, party: str, kind: str = "party") -> float:
    """What a party lost by the realised ledger, in USD."""
    rows = found.realised().filter((pl.col("party") == party) & (pl.col("kind") == kind))
    return 0.0 - float(rows["usd"].sum())


def at(found: Contagion, column: np.ndarray, what: str, name: str) -> float:
    """One entry of a column by the name of its asset, instrument or venue."""
    return float(column[found.cascade.plan.snapshot.universe.code(what, name)])


def price(found: Contagion, asset: str) -> float:
    """Market price at the end, at aave-v3."""
    return at(found, found.cascade.final, "instrument", f"aave-v3:{asset}")
