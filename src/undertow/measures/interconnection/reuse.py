"""The reuse ledger: how many claims stand on each unit of what is there at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from undertow.measures.crowding.crowd import Crowd
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.web import Web
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, Reading

_NAME = "interconnection.reuse"
_LEAST = 1.0  # USD: what holds less is left out of tables
_READ = (
    "Everything is counted at par: what a wrapper promises, not what it trades at. Of a base "
    "asset, root_usd is what lies at the bottom, counted once, and claims on it are counted at "
    "every layer that stands on it: places (deposits and what was posted), loans, tokens and "
    "keepers; the multiplier is their sum over the root. Of a token, claims_usd is what was told "
    "of claims on it, or what stands behind it where that is more; posted_usd is what places hold "
    "of it, so a share that is posted twice counts once at the root and twice as posted. "
    "self_backed is the share of a token's claims that can be cancelled against claims that stand "
    "on the token itself, and the multiplier is 1 / (1 - that): a vault that lends rho of each "
    "deposit on against its own shares has 1 / (1 - rho). pooled says the same pro rata: where the "
    "lender's pool mixes that money with others', each claim on it stands on the same mix, so, "
    "where tables agree, the pooled number is the smaller. Which dollar of a pool is whose nobody "
    "can know: the two are ends of a range. tokens_on_themselves counts a circle once, through "
    "however many tokens it leads. backed is at most 1: where more stands behind a token than "
    "claims on it were told, claims_usd is what stands behind it, and backing_per_told, the same "
    "over claims told, is above 1. wrappers is the longest stack of tokens on tokens."
)
_MISLEADS = (
    "Supply is not exposure: what is kept idle or belongs to the issuer is counted as a claim here "
    "if a table says so. What nobody told of is not there: untold is how much of a token leads to "
    "where no table goes on, and a token that follows another with nothing said of its backing is "
    "taken at its word (assumed). Claims of different layers are not losses: a dollar lost at the "
    "root is one dollar, whoever bears it. A loan counts as standing on what its borrower posted "
    "even where lenders may take only part of it. Derivatives are no claims here: their money is."
)


def reuse(book: Snapshot | Crowd | Web | Any, *, earlier: Sequence[Snapshot | Web] = ()) -> Study:
    """Claims on each unit of base collateral, how much backs itself, and how deep wrappers stack.

    `earlier` is the same book at instants before, for multipliers over time.

    Raises
    ------
    StateError
        When it is no book.

    References
    ----------
    Singh (2011), "Velocity of pledged collateral", IMF WP/11/256. Luu, Napoletano, Barucca and
    Battiston (2021), "Collateral unchained", J. Economic Dynamics and Control 123. Luo, Feng, Xu
    and Tasca (2024), "Piercing the veil of TVL: DeFi reappraised".
    """
    web = Web.of(book)
    backing = web.backing
    tables = {
        "bases": bases(backing), "tokens": tokens(backing), "made_of": made_of(backing),
        "over_time": _over_time([*(Web.of(each) for each in earlier), web]),
    }  # fmt: skip
    return Study(
        name=_NAME,
        title="How many claims stand on each unit of collateral",
        readings=tuple(_readings(web, tables)),
        tables=tables,
        says=tuple(_says(backing, tables)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out=dict.fromkeys(backing.unpriced, "no price is known, so claims in it do not count"),
    )


def bases(backing: Backing) -> pl.DataFrame:
    """One row a base asset: what lies at the bottom, and the claims of every layer on it."""
    root, layers = layered(backing)
    total = sum(layers.values(), np.zeros_like(root))
    ratio = np.divide(total, root, out=np.full_like(root, np.nan), where=root >= _LEAST)
    names = backing.map.keys["asset"].cast(pl.String)
    frame = pl.DataFrame(
        {"asset": names, "root_usd": root, **{f"{k}_usd": v for k, v in layers.items()},
         "claims_usd": total, "multiplier": ratio}
    )  # fmt: skip
    return (
        frame.filter(pl.col("root_usd") >= _LEAST)
        .with_columns(pl.col("multiplier").fill_nan(None))
        .sort("claims_usd", "asset", descending=[True, False])
    )


def layered(backing: Backing) -> tuple[FloatColumn, dict[str, FloatColumn]]:
    """By base asset: USD at the bottom, and USD of claims on it by layer."""
    ends = backing.seen.ends[:, :-1]
    own = np.zeros(len(backing), dtype=np.bool_)
    own[: len(backing.base)] = backing.base
    count = len(backing.base)
    lent = backing.accounts.lent
    place = slice(count, count + lent.shape[0])
    owed = np.asarray(lent.sum(axis=0)).ravel() @ backing.accounts.basket
    is_place = np.zeros(len(backing), dtype=np.bool_)
    is_place[place] = True
    rows = {
        "tokens": backing.is_token & ~own, "places": is_place,
        "keepers": ~backing.is_token & ~is_place,
    }  # fmt: skip
    layers = {name: backing.whole[where] @ ends[where] for name, where in rows.items()}
    layers["loans"] = np.asarray(owed).ravel() @ ends[place]
    return backing.ends_usd[~own].sum(axis=0), layers


def tokens(backing: Backing) -> pl.DataFrame:
    """One row a token that stands on something: its claims, what backs it, and how much itself."""
    count = len(backing.base)
    rows = np.flatnonzero(~backing.base & (backing.whole[:count] >= _LEAST))
    seen, m = backing.seen, backing.map
    places = slice(count, count + backing.accounts.lent.shape[0])
    # Of a token, what places hold themselves and what they say is owed there, whichever is lent on.
    posted = np.bincount(
        np.maximum(backing.asset[places], 0),
        np.where(backing.asset[places] >= 0, backing.whole[places], 0.0), count,
    )  # fmt: skip
    whole, circular = backing.whole[rows], backing.circular[rows]
    told_usd = backing.claimed[rows]
    backed = whole - backing.nothing[rows]
    self_backed = np.divide(circular, whole, out=np.zeros_like(whole), where=whole > 0.0)
    first = seen.ends[rows, :-1].argmax(axis=1) if count else np.zeros(0, dtype=np.int64)
    names = m.keys["asset"].cast(pl.String)
    main = seen.ends[rows, first] if len(rows) else np.zeros(0)
    return pl.DataFrame(
        {
            "asset": names.gather(rows),
            "claims_usd": whole,
            "told_usd": told_usd,
            "backing_usd": backed,
            "backed": np.divide(backed, whole, out=np.ones_like(whole), where=whole > 0.0),
            "backing_per_told": np.divide(backed, told_usd, out=np.full_like(whole, np.nan),
                                          where=told_usd > 0.0),
            "assumed": backing.assumed[rows],
            "posted_usd": posted[rows],
            "reuse": posted[rows] / whole,
            "self_backed": self_backed,
            "multiplier": _over_one_less(self_backed),
            "self_backed_pooled": seen.returns[rows],
            "multiplier_pooled": _over_one_less(seen.returns[rows]),
            "in_circle": seen.in_circle[rows],
            "no_way_out": seen.circular[rows],
            "nothing": seen.ends[rows, -1],
            "untold": seen.untold[rows],
            "wrappers": backing.wrappers[rows],
            "mostly": names.gather(first).set(pl.Series(main <= 0.0), None),
            "mostly_share": main,
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None) + 0.0).sort(
        "claims_usd", "asset", descending=[True, False]
    )  # fmt: skip


def made_of(backing: Backing) -> pl.DataFrame:
    """What every token and place is made of in the end, in long form."""
    seen, m = backing.seen, backing.map
    ends = np.column_stack([seen.ends, seen.untold, seen.circular])
    words = [*m.keys["asset"].cast(pl.String), "nothing", "untold", "no way out"]
    row, end = np.nonzero((ends > 1e-9) & (backing.whole >= _LEAST)[:, None])
    keep = np.ones(len(row), dtype=np.bool_)
    count = len(backing.base)
    token = row < count
    keep[token] = ~backing.base[row[token]]
    row, end = row[keep], end[keep]
    frame = pl.DataFrame(
        {
            "node": pl.Series(backing.names, dtype=pl.String).gather(row),
            "end": pl.Series(words, dtype=pl.String).gather(end),
            "share": ends[row, end],
            "usd": ends[row, end] * backing.whole[row],
        }
    )
    return frame.sort("node", "share", "end", descending=[False, True, False])


def _over_one_less(share: FloatColumn) -> FloatColumn:
    left = 1.0 - share
    return np.divide(1.0, left, out=np.full_like(left, np.nan), where=left > 1e-9)


def _over_time(webs: Sequence[Web]) -> pl.DataFrame:
    """The multiplier of every base asset at every instant; nothing where there is one alone."""
    parts = []
    for web in webs:
        stamp = datetime.fromtimestamp(web.snapshot.ts / 1e6, UTC)
        frame = bases(web.backing).select("asset", "root_usd", "claims_usd", "multiplier")
        parts.append(frame.with_columns(ts=pl.lit(stamp).cast(pl.Datetime("us", "UTC"))))
    found = pl.concat(parts).select("ts", "asset", "root_usd", "claims_usd", "multiplier")
    return found.sort("ts", "asset") if len(webs) > 1 else found.clear()


def tokens_on_themselves(backing: Backing) -> float | None:
    """Share of claims on tokens that goes round, every circle counted once; None without claims.

    A dollar that goes round stands as a claim on every token of its circle. Here it is one claim,
    so that a circle says the same through however many tokens it is led.
    """
    rows = np.flatnonzero(~backing.base & (backing.whole[: len(backing.base)] >= _LEAST))
    once = float(backing.rounds.once[rows].sum())
    again = float(backing.rounds.cancelled[rows].sum()) - once
    claims = float(backing.whole[rows].sum()) - again
    return min(once / claims, 1.0) if claims >= _LEAST else None


def _sums(tables: dict[str, pl.DataFrame]) -> tuple[float, float, float]:
    """USD at the bottom, USD of claims, and of claims on tokens."""
    base, token = tables["bases"], tables["tokens"]
    sums = (base["root_usd"].sum(), base["claims_usd"].sum(), token["claims_usd"].sum())
    root, claims, on_tokens = (float(each) for each in sums)
    return root, claims, on_tokens


def _readings(web: Web, tables: dict[str, pl.DataFrame]) -> list[Reading]:
    root, claims, on_tokens = _sums(tables)
    token = tables["tokens"]
    found = [
        web.reading(
            "interconnection.claims_per_dollar", claims / root if root >= _LEAST else None, "1",
            "claims of every layer (places, loans, tokens, keepers) over base assets at the "
            "bottom, at par; none where nothing lies at the bottom",
        ),
        web.reading(
            "interconnection.tokens_on_themselves", tokens_on_themselves(web.backing), "1",
            "share of claims on tokens that goes round and comes back to the token, a circle of "
            "several tokens counted once; none without tokens that stand on something",
        ),
        web.reading(
            "interconnection.wrappers", float(token["wrappers"].to_numpy().max(initial=0)), "1",
            "longest stack of tokens on tokens",
        ),
    ]  # fmt: skip
    lost = float((token["claims_usd"] * (token["nothing"] + token["no_way_out"])).sum())
    found.append(
        web.reading(
            "interconnection.unbacked", lost / on_tokens if on_tokens >= _LEAST else None, "1",
            "share of claims on tokens that stand on nothing, or on a circle without a way out",
        )
    )  # fmt: skip
    for asset, root_usd, multiplier in (
        tables["bases"].select("asset", "root_usd", "multiplier").iter_rows()
    ):
        if root_usd >= 0.01 * root:
            found.append(web.reading("interconnection.claims_per_dollar", known(multiplier), "1",
                                     "claims of every layer over what lies at the bottom",
                                     asset))  # fmt: skip
    for row in token.filter(pl.col("self_backed") > 0.0).iter_rows(named=True):
        found.append(web.reading("interconnection.token_multiplier", known(row["multiplier"]), "1",
                                 "claims on the token over those that do not stand on itself; none "
                                 "where all of them do", row["asset"]))  # fmt: skip
        found.append(web.reading("interconnection.token_multiplier_pooled",
                                 known(row["multiplier_pooled"]), "1",
                                 "the same where every claim on a pool stands on the same mix",
                                 row["asset"]))  # fmt: skip
    return found


def _says(backing: Backing, tables: dict[str, pl.DataFrame]) -> list[str]:
    root, claims, _ = _sums(tables)
    base, token = tables["bases"], tables["tokens"]
    if root < _LEAST:
        return ["Nothing lies at the bottom of this book, so nothing can be used twice."]
    top = base.row(0, named=True)
    words = [
        (
            f"{told(claims / root)} USD of claims stand on each dollar at the bottom "
            f"({told(claims)} on {told(root)}); on {top['asset']} it is {told(top['multiplier'])}."
        )
    ]
    loops = token.filter(pl.col("self_backed") > 0.0).sort("self_backed", descending=True)
    if loops.height:
        first = loops.row(0, named=True)
        words.append(
            f"{many(loops.height, 'token backs', 'tokens back')} itself in part: "
            f"{percent(first['self_backed'])} of the claims on {first['asset']} stand on "
            f"{first['asset']} itself, a multiplier of {told(first['multiplier'])} (pro rata over "
            f"the pools it goes through, {told(first['multiplier_pooled'])})."
            if loops.height == 1 else
            f"{many(loops.height, 'token backs', 'tokens back')} themselves in part, most of all "
            f"{first['asset']}: {percent(first['self_backed'])} of the claims on it stand on "
            f"itself, a multiplier of {told(first['multiplier'])} (pro rata over the pools it goes "
            f"through, {told(first['multiplier_pooled'])})."
        )  # fmt: skip
    else:
        words.append("No token stands on itself.")
    endless = token.filter(pl.col("no_way_out") > 0.0)["asset"].to_list()
    if endless:
        words.append(f"{listed(endless)} lead into a circle without a way out.")
    short = token.filter(pl.col("backed") < 1.0 - 1e-6)
    if short.height:
        worst = short.sort("backed").row(0, named=True)
        words.append(
            f"More is claimed on {listed(short['asset'].to_list())} than is told to stand behind; "
            f"{worst['asset']} is backed to {percent(worst['backed'])}."
        )
    deep = token.sort("wrappers", descending=True)
    if deep.height and deep["wrappers"][0] > 1:
        words.append(f"The deepest stack is {deep['asset'][0]}, {deep['wrappers'][0]} tokens high.")
    over = token.filter(pl.col("backing_usd") > 1.05 * pl.col("told_usd"))
    if over.height:
        words.append(
            f"More stands behind {listed(over['asset'].to_list())} than claims on them were told: "
            "either holders are not named, or backing is told twice."
        )
    again = token.filter(pl.col("reuse") > 1.0 + 1e-6).sort("reuse", descending=True)
    if again.height:
        most = again.row(0, named=True)
        words.append(
            f"Places hold more of {listed(again['asset'].to_list())} than all claims on them, of "
            f"{most['asset']} {told(most['reuse'])} times as much: lent coins are posted again, or "
            "tables contradict each other; they cannot tell which."
        )
    taken = token.filter("assumed")["asset"].to_list()
    if taken:
        words.append(f"Nobody told what backs {listed(taken)}: taken at its word.")
    if backing.unpriced:
        words.append(f"No price is known of {listed(backing.unpriced)}: claims in it do not count.")
    return words
