"""Dated terms of a lender, read off what happened to some of its accounts.

A list of parameters is a snapshot of one day; what held on another is in no file, but it shows in
recorded healths and in seizures. What is read off one half of the users is tested on the other.
Terms are rows of `symbol`, `since` and `value`; without `since` they come from the later list.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

STEP = 0.005  # governance moves thresholds and bonuses by half points
LEAST_HEALTH = 0.25  # below, two decimals of health say too little of the threshold
LEAST_WEIGHT = 3.0  # states, wholly in one collateral at health 1, that make evidence
PRIOR_WEIGHT = 0.1  # of the later list, against that many such states
QUARTER, MONTH = "1q", "1mo"


def half_of(users: pl.Series) -> pl.Series:
    """Every other user in the order of their addresses: one half to learn from, one to test on."""
    ordered = users.str.to_lowercase().unique().sort()
    return ordered.gather_every(2)


def infer_thresholds(
    states: pl.DataFrame, positions: pl.DataFrame, latest: pl.DataFrame
) -> pl.DataFrame:
    """Liquidation thresholds by symbol and quarter, read off recorded healths.

    Health times debt over collateral is the average threshold of an account; over many accounts
    and mixes that gives each symbol's own, by least squares with a weak pull to `latest` (symbol,
    value), the list of a later day, and rounded to half points. Quarters without evidence take
    those of the nearest quarter that has some.
    """
    total = pl.col("collateral_eth_wei")
    usable = states.filter((pl.col("health_factor") >= LEAST_HEALTH) & (total > 0.0))
    averages = usable.select(
        "user", "block",
        since=pl.col("ts").dt.truncate(QUARTER),
        average=pl.col("health_factor") * pl.col("debt_eth_wei") / total,
        weight=total / pl.col("debt_eth_wei"),  # two decimals of health are that much sharper
    )  # fmt: skip
    held = positions.filter((pl.col("side") == "collateral") & (pl.col("amount_usd") > 0.0))
    shares = held.select(
        "user", "block", "symbol",
        share=pl.col("amount_usd") / pl.col("amount_usd").sum().over("user", "block"),
    )  # fmt: skip
    return _by_period(averages.join(shares, on=["user", "block"]), latest)


def infer_bonuses(seizures: pl.DataFrame, latest: pl.DataFrame) -> pl.DataFrame:
    """Liquidation bonuses by collateral and month: the median of value seized over value repaid.

    `seizures` are rows of `ts`, `symbol`, `seized_usd`, `repaid_usd`. Rounded to half points;
    months with fewer than three events take the nearest month's.
    """
    medians = (
        seizures.drop_nulls(["seized_usd", "repaid_usd"])
        .group_by("symbol", since=pl.col("ts").dt.truncate(MONTH))
        .agg(value=(pl.col("seized_usd") / pl.col("repaid_usd")).median() - 1.0, n=pl.len())
        .filter(pl.col("n") >= LEAST_WEIGHT)
    )
    return _with_latest(medians.with_columns(_to_step("value")), latest)


def dated(
    rows: pl.DataFrame, terms: pl.DataFrame, name: str, *, period: str = QUARTER
) -> pl.DataFrame:
    """`rows` (with ts and symbol) and the term that held: of its period, or the nearest known."""
    keyed = rows.with_row_index("_row").with_columns(_mid=pl.col("ts").dt.truncate(period))
    found = (
        keyed.select("_row", "symbol", "_mid")
        .join(terms, on="symbol")
        .with_columns(away=(pl.col("since") - pl.col("_mid")).abs())
        .sort("_row", "away", "since", nulls_last=True)
        .unique("_row", keep="first", maintain_order=True)
        .select("_row", pl.col("value").alias(name))
    )
    return keyed.join(found, on="_row", how="left", maintain_order="left").drop("_row", "_mid")


def _by_period(rows: pl.DataFrame, latest: pl.DataFrame) -> pl.DataFrame:
    """Weighted least squares of average thresholds on shares, quarter by quarter."""
    found = []
    for (since,), part in rows.group_by(["since"], maintain_order=True):
        wide = part.pivot(
            "symbol", index=["user", "block", "average", "weight"], values="share"
        ).fill_null(0.0)
        symbols = sorted(set(wide.columns) - {"user", "block", "average", "weight"})
        weight = wide["weight"].to_numpy()
        shares = wide.select(symbols).to_numpy() * weight[:, None]
        start = pl.DataFrame({"symbol": symbols}).join(latest, on="symbol", how="left")
        prior = start["value"].fill_null(0.0).to_numpy()
        normal = shares.T @ shares + PRIOR_WEIGHT * np.eye(len(symbols))
        value = np.linalg.solve(
            normal, shares.T @ (wide["average"].to_numpy() * weight) + PRIOR_WEIGHT * prior
        )
        found += [
            (symbol, since, float(each))
            for symbol, each, strength in zip(symbols, value, np.diag(normal), strict=True)
            if strength >= LEAST_WEIGHT + PRIOR_WEIGHT
        ]
    schema: dict[str, Any] = {
        "symbol": pl.String,
        "since": rows["since"].dtype,
        "value": pl.Float64,
    }
    inferred = pl.DataFrame(found, schema=schema, orient="row").with_columns(_to_step("value"))
    return _with_latest(inferred, latest)


def _to_step(name: str) -> pl.Expr:
    return (pl.col(name) / STEP).round().clip(0.0) * STEP


def _with_latest(inferred: pl.DataFrame, latest: pl.DataFrame) -> pl.DataFrame:
    """What was inferred; symbols of which nothing was learned keep the later list's value."""
    rest = latest.join(inferred, on="symbol", how="anti").with_columns(
        since=pl.lit(None, dtype=inferred["since"].dtype)
    )
    columns = ["symbol", "since", "value"]
    return pl.concat([inferred.select(columns), rest.select(columns)]).sort("symbol", "since")
