"""Many instants of one venue side by side, judged in one call.

A row is a leg: `sheet` (which account at which instant), `symbol`, `kind`, `qty`, `entry`, `price`,
and any of the risk parameters that its sheet holds for it. Each sheet becomes an account of one
`Snapshot`, and each symbol of a sheet an instrument of its own, so that prices and parameters may
differ from sheet to sheet while the rules stay those of the engine.
"""

from __future__ import annotations

import polars as pl

from undertow import schema
from undertow.errors import SchemaError
from undertow.rules.margins import Margins, margins
from undertow.rules.snapshot import Snapshot
from undertow.worlds.frames import rows

NEEDED = ("sheet", "symbol", "kind", "qty", "price")
_AS_INSTRUMENT = {"collateral": "reserve", "debt": "reserve", "supply": "reserve", "cash": "cash"}
_VENUE, _SOURCE = "venue", "record"


def judge_sheets(
    legs: pl.DataFrame, *, profile: str, ts: int, money: tuple[str, ...] = ()
) -> Margins:
    """Judge every sheet by the rules that `profile` has at `ts`; account keys are sheet numbers.

    Symbols in `money` stand still when a common fall is asked for. A sheet may not hold one symbol
    in two kinds of contract.

    Raises
    ------
    SchemaError
        When a column is missing.
    UndertowError
        Whatever the engine refuses: a price or parameter that is not there, a wrong sign.
    """
    lacking = [name for name in NEEDED if name not in legs.columns]
    if lacking:
        raise SchemaError(
            f"the legs lack {', '.join(lacking)}", hint=f"they need {', '.join(NEEDED)}"
        )
    keyed = legs.sort("sheet", "symbol", "kind").with_columns(
        inst=pl.format("{}:{}@{}", pl.lit(_VENUE), "symbol", "sheet"),
        traded=pl.col("kind").replace(_AS_INSTRUMENT),
    )
    listed = keyed.unique("inst", maintain_order=True)
    tables = {
        **_names(keyed, listed, profile, ts, money),
        "accounts": rows(
            "accounts", ts=ts, account=keyed["sheet"].unique(maintain_order=True), venue=_VENUE,
            label="record", margin_group="main", mode="cross",
        ),
        "positions": rows(
            "positions", ts=ts, account=keyed["sheet"], instrument=keyed["inst"],
            kind=keyed["kind"], qty=keyed["qty"],
            entry=_column(keyed, "entry"), source=_SOURCE, evidence="observed",
        ),
        "prices": rows(
            "prices", ts=ts, instrument=listed["inst"], kind="mark", price=listed["price"],
            source=_SOURCE,
        ),
        "risk_params": _parameters(listed, ts),
    }  # fmt: skip
    return margins(Snapshot.from_tables(tables, ts))


def sheet_numbers(judged: Margins) -> pl.DataFrame:
    """One row a sheet, in order: equity, cover, asked, notional, health, fall, rise, breached."""
    columns = ("equity", "cover", "asked", "notional", "health", "fall", "rise", "breached")
    named = judged.to_polars().rename({"account": "sheet"})
    return named.select("sheet", *columns).sort("sheet")


def _names(
    keyed: pl.DataFrame, listed: pl.DataFrame, profile: str, ts: int, money: tuple[str, ...]
) -> dict[str, pl.DataFrame]:
    symbols = keyed["symbol"].unique().sort()
    stands = symbols.is_in(list(money)).to_list()
    lends = keyed["kind"].is_in(["collateral", "debt"]).any()
    return {
        "assets": rows(
            "assets", ts=ts, asset=symbols, symbol=symbols,
            kind=["fiat" if still else "native" for still in stands],
        ),
        "venues": rows(
            "venues", ts=ts, venue=_VENUE, kind="lending" if lends else "perp", profile=profile
        ),
        "instruments": rows(
            "instruments", ts=ts, instrument=listed["inst"], venue=_VENUE,
            symbol=listed["symbol"], kind=listed["traded"], asset=listed["symbol"],
            inverse=False, contract_size=1.0,
        ),
    }  # fmt: skip


def _column(legs: pl.DataFrame, name: str) -> pl.Series:
    absent = pl.Series(name, [None] * legs.height, dtype=pl.Float64)
    return legs[name] if name in legs.columns else absent


def _parameters(listed: pl.DataFrame, ts: int) -> pl.DataFrame:
    """Whatever columns bear the name of a risk parameter, as rows of that table."""
    known = schema.table("risk_params").column("name").choices
    names = [name for name in listed.columns if name in known]
    long = listed.unpivot(names, index="inst", variable_name="name").drop_nulls("value")
    return rows(
        "risk_params", ts=ts, venue=_VENUE, instrument=long["inst"], name=long["name"],
        value=long["value"].cast(pl.Float64),
    )  # fmt: skip
