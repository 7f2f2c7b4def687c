"""When the engine would have closed an account, scored against when it was closed.

A **spell** is a time in which an account's holdings were left alone: `spell` (its number), `user`,
`ts`, `until`, and `closed`, whether the venue's own closing ended it. Its **holdings** are the legs
held all through it. A **path** is what is known of prices: rows of `symbol`, `ts`, `until`, `low`,
`high`, `last`; a single trade is a row of no length. A **call** is the first instant of a spell at
which the engine finds the account breached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.validate.sheets import judge_sheets, sheet_numbers

US_PER_HOUR = 3_600_000_000.0


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Calls against closings, one row a spell: `called` is empty where the engine kept quiet.

    A hit is a spell that was called and closed, a miss one that was closed uncalled, a false call
    one that was called and that its owner, not the venue, ended.
    """

    spells: pl.DataFrame

    @property
    def hits(self) -> pl.DataFrame:
        """Called and closed; `late_hours` is how long after the call the closing came.

        `fresh` are those that began in order; the others were under already when the spell began
        (left so by the closing before, or by everybody), and their hours say little.
        """
        late = (pl.col("until") - pl.col("called")).dt.total_microseconds() / US_PER_HOUR
        both = self.spells.filter(pl.col("closed") & pl.col("called").is_not_null())
        return both.with_columns(late_hours=late, fresh=pl.col("called") > pl.col("ts"))

    @property
    def misses(self) -> pl.DataFrame:
        """Closed, and never called."""
        return self.spells.filter(pl.col("closed") & pl.col("called").is_null())

    @property
    def false_calls(self) -> pl.DataFrame:
        """Called, and not closed."""
        return self.spells.filter(~pl.col("closed") & pl.col("called").is_not_null())

    @property
    def short_records(self) -> pl.Series:
        """Users who were breached at the very instant of an act of their own.

        A venue lets nobody trade or withdraw below maintenance, so what was rebuilt of them lacks
        money. It is judged without looking at closings.
        """
        own = self.spells.filter(pl.col("called") == pl.col("ts"))
        return own["user"].unique().sort()

    def without(self, users: pl.Series) -> Scorecard:
        """The score of everybody else."""
        return Scorecard(self.spells.filter(~pl.col("user").is_in(users.implode())))

    @property
    def recall(self) -> float | None:
        """Share of closings that were called; None without any."""
        closings = self.hits.height + self.misses.height
        return self.hits.height / closings if closings else None

    @property
    def precision(self) -> float | None:
        """Share of calls that were closings; None without any."""
        calls = self.hits.height + self.false_calls.height
        return self.hits.height / calls if calls else None

    @property
    def false_call_rate(self) -> float | None:
        """Share of the spells that were not closed, and were called all the same."""
        left = self.spells.height - self.hits.height - self.misses.height
        return self.false_calls.height / left if left else None

    def late_hours(self, quantile: float = 0.5) -> float | None:
        """Hours from call to closing, at a quantile of the fresh hits."""
        value = self.hits.filter("fresh")["late_hours"].quantile(quantile)
        return None if value is None else float(value)

    def summary(self) -> dict[str, float | int | None]:
        """The numbers of the card by name, as a row of a table."""
        closed = set(self.spells.filter("closed")["user"])
        return {
            "spells": self.spells.height,
            "closings": self.hits.height + self.misses.height,
            "hits": self.hits.height,
            "misses": self.misses.height,
            "false_calls": self.false_calls.height,
            "users_only_called_falsely": len(set(self.false_calls["user"]) - closed),
            "recall": self.recall,
            "precision": self.precision,
            "false_call_rate": self.false_call_rate,
            "late_hours_median": self.late_hours(),
            "late_hours_q90": self.late_hours(0.9),
        }


def score_calls(
    spells: pl.DataFrame,
    holdings: pl.DataFrame,
    path: pl.DataFrame,
    instants: pl.DataFrame,
    *,
    profile: str,
    money: tuple[str, ...] = (),
) -> Scorecard:
    """Call every spell at its `instants` and score the calls.

    `instants` come from `path_instants`, or are rows of spell and ts.

    Each spell comes back with `called`, the first instant at which it was breached; `judged`, at
    how many instants it could be judged; `nearest`, the smallest cover less asked, over the
    notional or what is asked; and `equity`, that of the same instant. Instants at which a symbol
    has no price yet are passed over. The rules are those of the day on which the first spell began:
    a record that runs over a change of the venue's mechanism is scored in two parts.
    """
    legs = priced_legs(spells, holdings, path, instants)
    if legs.is_empty():
        never = pl.lit(None, dtype=spells["ts"].dtype)
        none = pl.lit(None, dtype=pl.Float64)
        return Scorecard(spells.with_columns(called=never, judged=0, nearest=none, equity=none))
    start = int(spells["ts"].dt.epoch("us").to_numpy().min())
    numbers = sheet_numbers(judge_sheets(legs, profile=profile, ts=start, money=money))
    scale = pl.max_horizontal("asked", "notional")
    judged = (
        legs.select("sheet", "spell", "instant")
        .unique("sheet")
        .join(numbers, on="sheet")
        .with_columns(room=(pl.col("cover") - pl.col("asked")) / scale)
        .sort("spell", "instant")
        .group_by("spell", maintain_order=True)
        .agg(
            called=pl.col("instant").filter("breached").first(),
            judged=pl.len(),
            nearest=pl.col("room").min(),
            equity=pl.col("equity").get(pl.col("room").arg_min()),
        )
    )
    found = spells.join(judged, on="spell", how="left", maintain_order="left")
    return Scorecard(found.with_columns(pl.col("judged").fill_null(0)))


def path_instants(
    spells: pl.DataFrame, holdings: pl.DataFrame, path: pl.DataFrame, *, reaching: bool = False
) -> pl.DataFrame:
    """The instants at which the path speaks of a spell: its start, and the end of each row in it.

    A row that reaches over an end of the spell may have seen its extreme before or after. Such
    rows are passed over, so that a call is certain; with `reaching` they count, cut at the end of
    the spell, so that a call is possible. What happened lies between the two.
    """
    held = spells.select("spell", "ts", "until").join(
        holdings.select("spell", "symbol").unique(), on="spell"
    )
    begin, end = pl.col("row_ts"), pl.col("row_until")
    inside = (
        ((end > pl.col("ts")) | (begin >= pl.col("ts"))) & (begin <= pl.col("until"))
        if reaching
        else (begin >= pl.col("ts")) & (end <= pl.col("until"))
    )
    within = (
        _near_rows(held, path)
        .filter(inside)
        .group_by("spell", "symbol", ts=pl.min_horizontal("row_until", "until"))
        .agg(pl.col("low").min(), pl.col("high").max())
    )
    starts = spells.select("spell", "ts")
    return pl.concat([starts, within], how="diagonal").sort("spell", "ts", "symbol")


def priced_legs(
    spells: pl.DataFrame, holdings: pl.DataFrame, path: pl.DataFrame, instants: pl.DataFrame
) -> pl.DataFrame:
    """The legs of every spell at each of its instants, numbered by `sheet`, each with its price.

    A price is the newest that was known. Where the instant itself brings a range of the symbol, it
    is the end of the range that hurts: the low of what is held, the high of what is owed.
    """
    sheets = instants.select("spell", "ts").unique().sort("spell", "ts").with_row_index("sheet")
    legs = sheets.with_columns(pl.col("sheet").cast(pl.Int64)).join(holdings, on="spell")
    known = path.sort("until", "ts", maintain_order=True)
    priced = legs.sort("ts").join_asof(
        known.select("symbol", "last", "until"),
        left_on="ts", right_on="until", by="symbol", check_sortedness=False,
    )  # fmt: skip
    if "low" in instants.columns:
        ranges = instants.drop_nulls("symbol").select("spell", "ts", "symbol", "low", "high")
        priced = priced.join(ranges, on=["spell", "ts", "symbol"], how="left")
        hurting = pl.when(pl.col("qty") > 0.0).then("low").otherwise("high")
        priced = priced.with_columns(last=pl.coalesce(hurting, "last"))
    money = pl.when(pl.col("kind") == "cash").then(1.0)
    together = priced.with_columns(price=money.otherwise("last")).rename({"ts": "instant"})
    whole = pl.col("price").is_not_null().all().over("sheet")
    return together.filter(whole).sort("sheet", "symbol", "kind")


def _near_rows(held: pl.DataFrame, path: pl.DataFrame) -> pl.DataFrame:
    """Each holding beside every row of its symbol that ends in its spell, or might begin in it."""
    longest = (path["until"] - path["ts"]).max()
    found: list[pl.DataFrame] = []
    for (symbol,), part in held.group_by(["symbol"], maintain_order=True):
        rows = path.filter(pl.col("symbol") == symbol).sort("until", "ts")
        first = rows["until"].search_sorted(part["ts"], side="left").to_numpy()
        last = rows["until"].search_sorted(part["until"] + longest, side="right").to_numpy()
        count = (last - first).astype(np.int64)
        holding = np.repeat(np.arange(part.height), count)
        row = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
        taken = rows.select("low", "high", row_ts="ts", row_until="until")[row]
        found.append(pl.concat([part[holding], taken], how="horizontal"))
    together: pl.DataFrame = pl.concat(found)
    return together
