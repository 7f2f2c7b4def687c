"""Rows that say something that cannot be: each fits its table, and no book could be made of it.

What is refused here would otherwise stop whoever loads the lake later, far from the file at fault.
Rows come here once all names in them are known, a batch at a time: what is wrong only between rows
of two batches is left to whoever loads them.
"""

from __future__ import annotations

import polars as pl

from undertow.rules.params import RANGES
from undertow.rules.profile import profile_names
from undertow.schema import INSTRUMENT_KINDS, POSITION_KINDS, Table
from undertow.state.book import leg_faults
from undertow.state.liquidity import pool_faults
from undertow.state.market import E_FOLD
from undertow.store.checks import Names, no_faults
from undertow.store.files import ROW
from undertow.store.mapping import closest


def row_faults(table: Table, rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Faults of rows that contradict themselves, or what is known of the names in them."""
    check = _CHECKS.get(table.name)
    return no_faults() if check is None or rows.is_empty() else check(rows, names)


def _fault(rows: pl.DataFrame, wrong: pl.Expr | pl.Series, column: str, words: str) -> pl.DataFrame:
    """Faults of the rows that are `wrong`; `{name}` in the words stands for a value of the row."""
    spelled = words.replace("}", "{").split("{")
    values = [pl.col(name).cast(pl.String) for name in spelled[1::2]]
    reason = pl.format("{}".join(spelled[::2]), *values) if values else pl.lit(words)
    return rows.filter(wrong).select(
        pl.col(ROW).alias("row"), pl.lit(column).alias("column"), reason.alias("reason")
    )


def _positions(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    known = names.rows("instruments").select("instrument", at="venue", traded="kind")
    groups = names.rows("accounts").select("account", of="venue")
    legs = rows.select(ROW, "account", "instrument", "kind", "qty", "entry")
    legs = legs.join(known, on="instrument", how="left", maintain_order="left")
    legs = legs.join(groups, on="account", how="left", maintain_order="left")
    found = leg_faults(
        legs["kind"].cast(pl.Enum(POSITION_KINDS)).to_physical().to_numpy(),
        legs["traded"].cast(pl.Enum(INSTRUMENT_KINDS)).to_physical().to_numpy(),
        legs["qty"].to_numpy(),
        legs["entry"].fill_null(0.0).to_numpy(),
        (legs["at"] != legs["of"]).to_numpy(),
    )
    look = "; {instrument} as {kind}, qty {qty}"
    faults = [
        _fault(legs, pl.Series(wrong), column, words + look)
        for wrong, column, words in found
        if wrong.any()
    ]
    return pl.concat([no_faults(), *faults])


def _instruments(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    lacking = pl.any_horizontal(pl.col("strike", "expiry", "option_type").is_null())
    wrong = (pl.col("kind") == "option") & lacking
    return _fault(rows, wrong, "kind", "an option needs all of strike, expiry and option_type")


def _venues(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    profiles = profile_names()
    strange = rows["profile"].drop_nulls().unique()
    strange = strange.filter(~strange.is_in(list(profiles)))
    faults = [
        _fault(
            rows,
            pl.col("profile") == name,
            "profile",
            f"no rule profile is called '{{profile}}'; {closest(name, profiles)}",
        )
        for name in strange
    ]
    return pl.concat([no_faults(), *faults])


def _accounts(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    known = names.rows("accounts").select("account", of="venue")
    both = rows.join(known, on="account", how="inner")
    words = "the account {account} stands already at '{of}'; a margin group is of one venue"
    return _fault(both, pl.col("of") != pl.col("venue"), "venue", words)


def _risk_params(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    bounds = [(name, low, high) for name, (low, high) in RANGES.items()]
    ranges = pl.DataFrame(bounds, schema=["name", "low", "high"], orient="row")
    named = rows.join(ranges, on="name", how="inner")
    inst = names.rows("instruments").select("instrument", of="venue")
    groups = names.rows("accounts").select("account", of="venue")
    elsewhere = pl.col("of") != pl.col("venue")
    return pl.concat(
        [
            _fault(
                named,
                ~pl.col("value").is_between("low", "high"),
                "value",
                "{name} is {value}; it lies between {low} and {high}, "
                "and rates and shares are fractions: 0.05, not 5 or 500",
            ),
            _fault(
                rows.join(inst, on="instrument", how="inner"),
                elsewhere,
                "instrument",
                "'{instrument}' is not an instrument of '{venue}'; it is of '{of}'",
            ),
            _fault(
                rows.join(groups, on="account", how="inner"),
                elsewhere,
                "account",
                "the account {account} is not one of '{venue}'; it is of '{of}'",
            ),
        ]
    )


def _margin_brackets(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    words = "max_notional {max_notional} is not above min_notional {min_notional}"
    wrong = pl.col("max_notional") <= pl.col("min_notional")
    return _fault(rows, wrong, "max_notional", words)


def _oracles(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    inst = names.rows("instruments").select("instrument", of="venue")
    words = (
        "'{instrument}' is an instrument of '{of}', not of '{venue}'; a price elsewhere is a feed"
    )
    both = rows.join(inst, on="instrument", how="inner")
    return _fault(both, pl.col("of") != pl.col("venue"), "venue", words)


def _depth(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Of one side of a book, as one source saw it at once, a wider band holds no less."""
    book = ("instrument", "side", "ts", "source")
    most = pl.col("qty").cum_max().over(book, order_by="band")
    bands = rows.filter(pl.col("band") != E_FOLD).with_columns(nearer=most)
    words = "{qty} within {band} of mid is less than {nearer} nearer to it; quantities add up"
    return _fault(bands, pl.col("qty") < pl.col("nearer"), "qty", words)


def _pools(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    held = rows.filter(pl.col("qty") > 0.0)
    faults = [
        _fault(held, wrong, column, f"the pool '{{pool}}' {words}; {hint}")
        for wrong, column, words, hint in pool_faults("pool", "ts", "source")
    ]
    return pl.concat([no_faults(), *faults])


_CHECKS = {
    "positions": _positions,
    "instruments": _instruments,
    "venues": _venues,
    "accounts": _accounts,
    "risk_params": _risk_params,
    "margin_brackets": _margin_brackets,
    "oracles": _oracles,
    "depth": _depth,
    "pools": _pools,
}
