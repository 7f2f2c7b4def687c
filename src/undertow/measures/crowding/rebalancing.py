"""Who must trade because a price moved: managers of leveraged tokens, and dealers in options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.dealers import Dealers, Sign
from undertow.measures.crowding.funds import Funds
from undertow.measures.crowding.places import Places
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, Reading

MOVES = (-0.5, -0.4, -0.3, -0.25, -0.2, -0.15, -0.1, -0.05, -0.02, -0.01,
         0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)  # fmt: skip
_TOP = 12  # assets with readings of their own
_BOTH = (
    "USD that managers of leveraged tokens and dealers in options must trade with a move of 1 % of "
    "every price: m (m - 1) A / 100 of a token of leverage m and net value A, less the gamma of "
    "dealers; none where there are neither tokens nor options"
)
_READ = (
    "A number is what must be traded because the price moved and for no other reason: positive "
    "with the move, which pushes it on, negative against it, which holds it. Tokens of leverage "
    "above 1 or below 0 always trade with the move. Dealers short of gamma trade with it, dealers "
    "long of gamma against. E-folds are what is traded over the depth of the deepest place where "
    "the asset is sold: 0.1 moves a price by about a tenth. Past a wipe-out a token has all of "
    "its exposure to trade. The level without gamma is where dealers turn from holding the price "
    "to pushing it."
)
_MISLEADS = (
    "It supposes that managers rebalance at once and dealers hedge all of it, in the coin itself; "
    "who hedges option against option, or late, trades less. How dealers are signed is an "
    "assumption where the book does not show it, and the opposite one turns every sign. Gamma is "
    "that of volatilities as they are; they seldom stay. Tokens off the book, and options on "
    "venues that were not seen, are in no number here."
)


def rebalancing(
    book: Crowd | Snapshot,
    *,
    sign: Sign | str = Sign.BOOK,
    dealers: Iterable[int] = (),
    moves: Sequence[float] = MOVES,
) -> Study:
    """What leveraged tokens and options dealers must trade after a move of prices, by asset.

    `dealers` are keys of owners who deal in options: the rest of the book are customers. Where
    nobody is named, customers are assumed to be long the calls and short the puts of which the
    book holds both sides (within 1 % of open interest); `sign` says otherwise, of all. Moves are
    returns of the reference, above -1.

    Raises
    ------
    StateError
        When a move is impossible, the sign is unknown, a dealer is not in the book, or a token
        owes as much as it holds.

    References
    ----------
    Cheng and Madhavan (2009), "The dynamics of leveraged and inverse exchange-traded funds".
    Barbon and Buraschi (2021), "Gamma fragility".
    """
    crowd = Crowd.of(book)
    ladder = _checked(moves)
    try:
        chosen = Sign(sign)
    except ValueError:
        raise StateError(
            f"sign was {sign!r}", hint=f"choose from {', '.join(repr(str(s)) for s in Sign)}"
        ) from None
    funds = Funds.of(crowd.snapshot)
    named = tuple(dealers)
    hedged = Dealers.of(crowd, chosen, named)
    places = Places.of(crowd.snapshot)
    assets = _assets(crowd, funds, hedged, places)
    return Study(
        name="crowding.rebalancing",
        title="Who must trade because a price moved",
        readings=tuple(_readings(crowd, assets, hedged)),
        tables={
            "assets": assets,
            "ladder": _ladder(crowd, funds, hedged, places, ladder),
            "funds": _funds(crowd, funds),
            "assumptions": _assumptions(crowd, named),
            "strikes": _strikes(crowd, hedged),
        },
        says=tuple(_says(crowd, assets, funds, hedged)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out={
            crowd.snapshot.universe.assets[k]: "nothing is left of it" for k in funds.bust.tolist()
        },
    )


def _checked(moves: Sequence[float]) -> FloatColumn:
    ladder = np.unique(np.asarray(moves, dtype=np.float64))
    if not len(ladder) or not np.isfinite(ladder).all() or (ladder <= -1.0).any():
        raise StateError(f"moves were {list(moves)}; give returns above -1, one at least")
    return ladder


# ---------------------------------------------------------------- tables


def _assets(crowd: Crowd, funds: Funds, hedged: Dealers, places: Places) -> pl.DataFrame:
    """One row an asset that tokens or options are on: what 1 % makes them trade with the move."""
    universe = crowd.snapshot.universe
    size = len(universe.assets)
    of_funds = np.bincount(funds.reference, funds.per_percent, minlength=size)
    gamma = np.bincount(hedged.asset, hedged.per_percent(), minlength=size)
    some = np.unique(np.concatenate([funds.reference, hedged.asset]).astype(np.int64))
    both = of_funds - gamma
    rows = []
    for k in some.tolist():
        zero = hedged.only(k).zero()
        rows.append((
            universe.assets[k], both[k], of_funds[k], gamma[k], zero,
            None if zero is None else places.price[k] * (1.0 + zero),
            known(both[k] / places.depth_usd[k]), known(both[k] / places.daily_usd[k]),
            float(places.price[k]), int((funds.reference == k).sum()),
            int((hedged.asset == k).sum()),
        ))  # fmt: skip
    types = {
        "asset": pl.String, "with_move_usd": pl.Float64, "funds_usd": pl.Float64,
        "gamma_usd": pl.Float64, "zero_gamma_move": pl.Float64, "zero_gamma_level": pl.Float64,
        "e_folds": pl.Float64, "of_daily": pl.Float64, "price": pl.Float64, "tokens": pl.Int64,
        "options": pl.Int64,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema=types, orient="row")
    return frame.sort(pl.col("with_move_usd").abs(), "asset", descending=[True, False])


def _ladder(
    crowd: Crowd, funds: Funds, hedged: Dealers, places: Places, moves: FloatColumn
) -> pl.DataFrame:
    """One row an asset and move: what is bought (sold negative), over depth and volume."""
    universe = crowd.snapshot.universe
    some = np.unique(np.concatenate([funds.reference, hedged.asset]).astype(np.int64))
    bought = funds.bought(moves)
    parts = []
    for k in some.tolist():
        mine = hedged.only(k)
        by_funds = bought[:, funds.reference == k].sum(axis=-1)
        by_dealers = mine.bought(moves).sum(axis=-1)
        gone = funds.wiped_out_at[funds.reference == k]
        out = ((gone < 0.0) & (moves[:, None] <= gone)) | ((gone > 0.0) & (moves[:, None] >= gone))
        both = by_funds + by_dealers
        parts.append(pl.DataFrame({
            "asset": universe.assets[k],
            "move": moves,
            "level": places.price[k] * (1.0 + moves),
            "bought_usd": both,
            "funds_usd": by_funds,
            "dealers_usd": by_dealers,
            "gamma_usd": mine.per_percent(moves).sum(axis=-1),
            "e_folds": both / places.depth_usd[k],
            "of_daily": both / places.daily_usd[k],
            "wiped_out": (out & np.isfinite(gone)).sum(axis=1),
        }))  # fmt: skip
    if not parts:
        names = ("move", "level", "bought_usd", "funds_usd", "dealers_usd", "gamma_usd",
                 "e_folds", "of_daily")  # fmt: skip
        types = {"asset": pl.String(), **dict.fromkeys(names, pl.Float64())}
        return pl.DataFrame(schema={**types, "wiped_out": pl.Int64()})
    return pl.concat(parts).fill_nan(None)


def _funds(crowd: Crowd, funds: Funds) -> pl.DataFrame:
    """One row a token, the one that trades most first."""
    names = pl.Series(crowd.snapshot.universe.assets, dtype=pl.String)
    gone = funds.wiped_out_at
    return pl.DataFrame(
        {
            "token": names.gather(funds.token),
            "asset": names.gather(funds.reference),
            "leverage": funds.multiple,
            "net_usd": funds.net_usd,
            "per_percent_usd": funds.per_percent,
            "wiped_out_at": np.where(np.isfinite(gone), gone, np.nan),
        }
    ).fill_nan(None).sort("per_percent_usd", "token", descending=[True, False])  # fmt: skip


def _assumptions(crowd: Crowd, dealers: tuple[int, ...]) -> pl.DataFrame:
    """Gamma of dealers by asset under every assumption on who is on which side."""
    types = {"asset": pl.String, "sign": pl.String, "gamma_usd": pl.Float64,
             "zero_gamma_move": pl.Float64, "options": pl.Int64, "assumed": pl.Int64}  # fmt: skip
    rows = []
    for sign in Sign:
        held = Dealers.of(crowd, sign, dealers)
        for k in np.unique(held.asset).tolist():
            mine = held.only(k)
            if sign is Sign.BOOK and mine.both.all():
                continue  # the book does not show it
            rows.append((crowd.snapshot.universe.assets[k], str(sign),
                         float(mine.per_percent().sum()), mine.zero(), len(mine),
                         mine.assumed))  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _strikes(crowd: Crowd, hedged: Dealers) -> pl.DataFrame:
    """Gamma of dealers by asset, expiry and strike."""
    universe = crowd.snapshot.universe
    frame = pl.DataFrame(
        {
            "asset": pl.Series(universe.assets, dtype=pl.String).gather(hedged.asset),
            "expiry": pl.Series(universe.expiry[hedged.inst]).cast(pl.Datetime("us", "UTC")),
            "strike": hedged.strike,
            "qty": hedged.qty,
            "gamma_usd": hedged.per_percent(),
        }
    )
    by = ["asset", "expiry", "strike"]
    return frame.sort(by).group_by(by, maintain_order=True).agg(pl.col("qty", "gamma_usd").sum())


# ---------------------------------------------------------------- readings and words


def _readings(crowd: Crowd, assets: pl.DataFrame, hedged: Dealers) -> list[Reading]:
    there = assets.height > 0
    whole = float(assets["with_move_usd"].sum()) if there else None
    found = [crowd.reading("crowding.rebalancing", whole, "usd", _BOTH, modelled=True)]
    funds = float(assets["funds_usd"].sum()) if there else None
    found.append(
        crowd.reading("crowding.fund_rebalancing", funds, "usd",
                      "USD that managers of leveraged tokens trade with a move of 1 %: the sum of "
                      "m (m - 1) A / 100", modelled=True)
    )  # fmt: skip
    gamma = float(assets["gamma_usd"].sum()) if len(hedged) else None
    words = (
        f"USD of delta that 1 % more adds to dealers in options, {hedged.signed}; they sell as "
        "much; none without options"
    )
    found.append(crowd.reading("crowding.dealer_gamma", gamma, "usd", words, modelled=True))
    for row in assets.head(_TOP).iter_rows(named=True):
        asset = row["asset"]
        found.append(
            crowd.reading("crowding.rebalancing", row["with_move_usd"], "usd",
                          _BOTH.replace("every price", "its price"), subject=asset,
                          modelled=True)
        )  # fmt: skip
        found.append(
            crowd.reading("crowding.rebalancing_e_folds", row["e_folds"], "1",
                          "the same over the depth of the deepest place where it is sold; none "
                          "where no depth is known", subject=asset, modelled=True)
        )  # fmt: skip
        if row["options"]:
            found.append(
                crowd.reading("crowding.zero_gamma", row["zero_gamma_move"], "1",
                              f"nearest move at which dealers have no gamma, {hedged.signed}; none "
                              "where their gamma keeps its sign from -60 % to +100 %",
                              subject=asset, modelled=True)
            )  # fmt: skip
    return found


def _says(crowd: Crowd, assets: pl.DataFrame, funds: Funds, hedged: Dealers) -> list[str]:
    if not assets.height:
        why = "the book has no leveraged tokens and no options"
        if hedged.unknown:
            why = (
                f"{many(hedged.unknown, 'option')} are held, of which no volatility, forward or "
                "time is known, and there are no leveraged tokens"
            )
        return [f"Nobody must trade because a price moved, as far as is known: {why}."]
    whole = float(assets["with_move_usd"].sum())
    way = "pushes it on" if whole > 0.0 else "holds it"
    top = assets.row(0, named=True)
    says = [
        f"A move of 1 % makes leveraged tokens and dealers trade {told(abs(whole), 3)} USD "
        f"{'with' if whole > 0.0 else 'against'} it, which {way}; most in {top['asset']}"
        + (
            f", by {told(abs(top['e_folds']))} e-folds of its depth."
            if top["e_folds"] is not None
            else ", whose depth is not known."
        )
        if top["with_move_usd"]
        else "A move of 1 % makes leveraged tokens and dealers trade nothing."
    ]
    says += _of_funds(crowd, funds)
    says += _of_dealers(assets, hedged)
    return says


def _of_funds(crowd: Crowd, funds: Funds) -> list[str]:
    if not len(funds):
        return ["There are no leveraged tokens that a manager keeps at their leverage."]
    names = crowd.snapshot.universe.assets
    order = np.argsort(-funds.net_usd, kind="stable")
    gone = funds.wiped_out_at
    ends = [
        f"{names[funds.token[k]]} ({told(funds.multiple[k])} times) at {percent(gone[k])}"
        for k in order
        if isfinite(gone[k])
    ]
    words = (
        f"{many(len(funds), 'token')} of {told(float(funds.net_usd.sum()), 3)} USD trade "
        f"{told(float(funds.per_percent.sum()), 3)} USD a percent"
    )
    return [f"{words}; nothing would be left of {listed(ends, 4)}." if ends else f"{words}."]


def _of_dealers(assets: pl.DataFrame, hedged: Dealers) -> list[str]:
    if not len(hedged):
        return ["There are no options in the book, so what dealers would trade cannot be told."]
    held = assets.filter(pl.col("options") > 0)
    gamma = float(held["gamma_usd"].sum())
    side = "long" if gamma > 0.0 else "short"
    says = [
        f"Dealers are {side} of gamma, {told(abs(gamma), 3)} USD a percent, {hedged.signed}."
        if gamma
        else f"Dealers have no gamma, {hedged.signed}."
    ]
    both = int(hedged.both.sum())
    if both:
        which = "its" if both == len(hedged) else f"{both:,} of {len(hedged):,}"
        says.append(
            f"The book holds both sides of {which} options and does not say who deals, so that is "
            "an assumption; the opposite one turns the sign."
        )
    turns = [
        f"{row['asset']} at {told(row['zero_gamma_level'], 4)} ({percent(row['zero_gamma_move'])})"
        for row in held.iter_rows(named=True)
        if row["zero_gamma_move"] is not None
    ]
    if turns:
        says.append(f"Their gamma changes sign nearest {listed(turns)}.")
    if hedged.unknown:
        says.append(
            f"{many(hedged.unknown, 'option')} lack a forward, a volatility or time, and are left "
            "out."
        )
    return says
