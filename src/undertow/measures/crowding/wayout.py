"""The way out: how long it takes to close what is leveraged, and what closing it does to a price.

A row is an asset and a side: longs sell, shorts buy. An asset is where it is sold, as cascades have
it: one without depth of its own is redeemed for what it follows, and counts there. To close is to
end all derivatives, and to pay all debt back by selling what is held, pro rata; who owes nothing
sells none of its margin. `stands` is the whole of what leveraged accounts have on that side,
`closes` what closing takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.econometrics.concentration import Ranking, ranking
from undertow.kernels import impact
from undertow.measures.crowding.concentration import leverage_of, name_of
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.places import SoldAs
from undertow.measures.crowding.ranks import owner_ranks
from undertow.measures.crowding.redrawn import FEW, Redrawn, added, owners_in
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import known, listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, Reading
from undertow.state.book import FUTURE, OPTION, PERP
from undertow.state.universe import NONE
from undertow.stress.options import Options
from undertow.stress.setting import pools_of
from undertow.stress.shock import require_within

SIDES = ("long", "short")
_SIGN = (1.0, -1.0)  # longs sell, shorts buy
_CONTRACTS = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future")]
CLOSED, NO_DEPTH, NO_VOLUME, NO_VOL = "told", "no depth", "no volume", "no volatility"
_TOP = 8  # sides of assets with a reading of their own
_READ = (
    "Days are what closes over the share of daily volume that is taken; an impact is the log move "
    "of the price where all of it is closed at once, by the impact model of the cascade that the "
    "table names. Critical leverage is the most at which a position as large as the whole crowd's "
    "can be closed before its own impact has eaten its equity; `above` is the share of what is "
    "leveraged on that side that stands beyond it. Volume is that of spot and contracts together. "
    "Bands draw owners anew; depth and volume are taken as known, and what is in the position as "
    "it stands. The rank of an owner, and how often it stays among the largest, are over draws of "
    "accounts."
)
_MISLEADS = (
    "Depth and volume are of calm days, and on the day that counts both are less. Each asset is "
    "closed alone: who sells stETH also moves ETH, which is not in it. Volume that is traded "
    "between the same few is no way out for others. An asset whose depth or volume nobody knows "
    "has no number here, which is not the same as an easy way out."
)
_DAYS = (
    "days that it takes to close what is leveraged on that side, taking {} of daily volume; none "
    "where no volume is known"
)
_CRITICAL = (
    "3 / (2 I), with I = Y sigma sqrt(Q / V) the square-root impact of closing all Q that "
    "leveraged accounts have on that side, Y = {:g}, sigma the volatility and V the volume of a "
    "day: above that leverage a position of that size cannot be closed; none where V or sigma is "
    "not known"
)
_IMPACT = (
    "log move of the price when all of it is closed at once, by the {} impact model; none where no "
    "depth is known"
)


def way_out(
    book: Snapshot | Crowd | Any,
    *,
    participation: float = 0.1,
    top: int = 10,
    options: Options | None = None,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """How long closing what is leveraged takes, what it does to prices, and who cannot do it.

    `participation` is the share of daily volume that whoever closes takes; `top` owners are told
    one by one, each closing alone. `options` say by which model prices answer.

    Raises
    ------
    StateError
        When it is no book, or the participation is no share.
    EstimationError
        When the level is out of range or the draws are too few.

    References
    ----------
    Toth et al. (2011), Physical Review X 1, on the square root. Caccioli, Bouchaud and Farmer
    (2012), "Impact-adjusted valuation and the criticality of leverage", arXiv:1204.0922.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    require_within("participation", participation, 0.0, 1.0, open_low=True)
    require_within("top", top, 1, 1_000)
    options = options or crowd.options
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=reps, seed=seed, level=level)
    legs = _Legs.of(crowd)
    market = _Markets.of(crowd, options)
    assets = _assets(crowd, legs, market, drawn, participation, options)
    closes = added(legs.account, legs.closes, crowd.snapshot.book.accounts)
    ranked = ranking(crowd.holder, closes, int(top), reps=reps, level=level, seed=seed)
    tables = {
        "assets": assets,
        "owners": _owners(crowd, legs, market, participation, ranked),
        "curve": _curve(assets, options),
    }
    return Study(
        name="crowding.exit",
        title="How long the way out is, and who does not fit through it",
        readings=tuple(_readings(crowd, assets, options, participation, level)),
        tables=tables,
        says=tuple(_says(crowd, tables, participation)),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


class _Legs(NamedTuple):
    """Legs that lean, of accounts with something leveraged."""

    account: AnyColumn
    inst: AnyColumn
    place: AnyColumn  # the asset that it is sold as
    side: AnyColumn  # into SIDES
    stands: FloatColumn  # USD
    closes: FloatColumn  # USD
    stands_qty: FloatColumn  # base units of the place
    closes_qty: FloatColumn

    @classmethod
    def of(cls, crowd: Crowd) -> _Legs:
        book, sold_as = crowd.snapshot.book, SoldAs.of(crowd.plan)
        some = np.flatnonzero((crowd.lean != 0.0) & (crowd.leveraged > 0.0)[book.leg_account])
        account, inst, lean = book.leg_account[some], book.inst[some], crowd.lean[some]
        seen = crowd.exposures
        held = seen.added(seen.outright)
        # What is sold to pay debt back: nothing of who owes nothing, though it may be margin.
        sold = np.minimum(
            np.divide(crowd.debt, held, out=np.zeros_like(held), where=held > 0.0), 1.0
        )
        contract = np.isin(book.kind[some], (PERP, FUTURE, OPTION))
        # Debt itself and contracts are closed whole.
        part = np.where(contract | (lean < 0.0), 1.0, sold[account])
        price, stands = _place_price(crowd)[inst], np.abs(lean)
        qty = np.divide(stands, price, out=np.zeros_like(stands), where=price > 0.0)
        qty *= sold_as.rate[inst]
        return cls(
            account, inst, sold_as.asset[inst], (lean < 0.0).astype(np.int64), stands,
            part * stands, qty, part * qty,
        )  # fmt: skip

    def by_instrument(self, count: int) -> _ByInstrument:
        """What closes by instrument and side, of those in which anything does."""
        key = 2 * self.inst.astype(np.int64) + self.side
        qty, usd = (added(key, c, 2 * count) for c in (self.closes_qty, self.closes))
        place = np.zeros(count, dtype=np.int64)
        place[self.inst] = self.place
        some = np.flatnonzero(usd > 0.0)
        return _ByInstrument(some // 2, 2 * place[some // 2] + some % 2, qty[some], usd[some])


class _ByInstrument(NamedTuple):
    """What closes, added up by instrument and side."""

    inst: AnyColumn
    cell: AnyColumn  # its asset and side
    qty: FloatColumn
    usd: FloatColumn


def _place_price(crowd: Crowd) -> FloatColumn:
    """(instruments,) USD of one base unit: the mark, of an option what it is written on."""
    market = crowd.snapshot.market
    option = crowd.plan.insts["kind"] != 0
    return np.where(option, market.index, market.mark)


class _Markets(NamedTuple):
    """Where assets are closed: pools of the plan, with their impact curves."""

    crowd: Crowd
    pools: impact.Pools
    daily: FloatColumn  # (assets,) base units a day, on spot and contracts together
    vol: FloatColumn  # (assets,) a day
    coupling: float

    @classmethod
    def of(cls, crowd: Crowd, options: Options) -> _Markets:
        plan = crowd.plan
        carriers, universe = plan.carriers, plan.snapshot.universe
        count = len(universe.assets)
        pools = pools_of(plan, np.ones(len(universe.instruments)), options)
        contract = np.isin(universe.kind, _CONTRACTS)
        spot = universe.kind == schema.INSTRUMENT_KINDS.index("spot")
        sold_as, volume = SoldAs.of(plan), plan.snapshot.liquidity.daily
        # A contract is closed where its legs are, whether or not its depth is known.
        daily = added(universe.asset_of[spot], volume[spot], count) + added(
            sold_as.asset[contract], (volume * sold_as.rate)[contract], count
        )
        return cls(crowd, pools, daily, carriers.vol[:count], options.coupling)

    def known(self, place: int) -> bool:
        """Whether the asset's price answers sales at all."""
        return int(impact.working_model(place, self.pools)) != impact.NONE

    def move(
        self, place: int, sign: float, inst: AnyColumn, qty: FloatColumn, usd: FloatColumn
    ) -> float:
        """Log move of an asset's prices when so much of some instruments is closed, by USD closed.

        `sign` is 1 where that is sold. A contract with a pool of its own closes there and, as far
        as arbitrage takes it over, on spot; its price is carried by both.
        """
        own = self.crowd.plan.carriers.own_pool[inst]
        alone = own != NONE
        spot = float((qty * np.where(alone, self.coupling, 1.0)).sum())
        first = (
            _log(impact.multiplier(place, sign * spot, self.pools)) if self.known(place) else 0.0
        )
        moved = np.full(len(inst), first)
        for pool in np.unique(own[alone]).tolist():
            mine = own == pool
            volume = float(qty[mine].sum()) * (1.0 - self.coupling)
            moved[mine] += _log(impact.multiplier(pool, sign * volume, self.pools))
        whole = float(usd.sum())
        return float((moved * usd).sum()) / whole if whole > 0.0 else 0.0


def _log(multiplier: float) -> float:
    return float(np.log(multiplier))


def critical_leverage(size: FloatColumn | float) -> FloatColumn:
    """The leverage above which a position of square-root impact `size` cannot be closed.

    Closing the share x of it, the equity in units of what was held at first is 1 / l - I sqrt(x) +
    I x**1.5 / 3: what is left is marked at the price that closing has made, and what is gone was
    closed at two thirds of its impact. That is least at x = 1, and above nothing as long as l is
    below 3 / (2 I).
    """
    i = np.asarray(size, dtype=np.float64)
    return np.divide(1.5, i, out=np.full_like(i, np.nan), where=i > 0.0)


def _root_impact(market: _Markets, place: AnyColumn, qty: FloatColumn, root: float) -> FloatColumn:
    """Square-root impact of a quantity of each place; NaN where volume or volatility is unknown."""
    daily, vol = market.daily[place], market.vol[place]
    share = np.divide(qty, daily, out=np.full_like(qty, np.nan), where=daily > 0.0)
    return np.where(vol > 0.0, root * vol * np.sqrt(share), np.nan)


def _assets(
    crowd: Crowd,
    legs: _Legs,
    market: _Markets,
    drawn: Redrawn,
    participation: float,
    options: Options,
) -> pl.DataFrame:
    """One row an asset and side with anything to close, the most USD first."""
    names = crowd.snapshot.universe.assets
    cells = 2 * len(names)
    cell = 2 * legs.place + legs.side
    stands, closes, qty = (
        added(cell, column, cells) for column in (legs.stands, legs.closes, legs.closes_qty)
    )
    # Leverage of a leg's account.
    ratio = leverage_of(crowd)[legs.account]
    inverse = added(
        cell, np.divide(legs.closes, ratio, out=legs.closes.copy(), where=ratio > 0.0), cells
    )
    whole_qty = added(cell, legs.stands_qty, cells)
    shown = np.flatnonzero(closes > 0.0)
    shown = shown[np.argsort(-closes[shown], kind="stable")]
    root = np.full(cells, np.nan)
    root[shown] = _root_impact(market, shown // 2, whole_qty[shown], options.root)
    critical = critical_leverage(root)
    above = added(cell, legs.closes * (ratio > critical[cell]), cells)
    draws = drawn.sums(legs.account, cell, legs.closes, cells)[:, shown]
    low, high = drawn.band(draws)
    by_inst = legs.by_instrument(len(crowd.snapshot.universe.instruments))
    few = owners_in(crowd, legs.account, cell, cells) < FEW
    rows: list[dict[str, Any]] = []
    for k, c in enumerate(shown.tolist()):
        place, which = c // 2, np.flatnonzero(by_inst.cell == c)
        scale = (None, None) if few[c] else (low[k] / closes[c], high[k] / closes[c])
        inst, sold, usd = by_inst.inst[which], by_inst.qty[which], by_inst.usd[which]
        deep = market.known(place) or bool((crowd.plan.carriers.own_pool[inst] != NONE).any())
        volume = float(market.daily[place]) * participation
        days = float(qty[c]) / volume if volume > 0.0 else None
        moves = [
            market.move(place, _SIGN[c % 2], inst, f * sold, usd)
            if deep and f is not None
            else None
            for f in (1.0, *scale)
        ]
        ends: list[Any] = sorted(move for move in moves[1:] if move is not None) or [None]
        rows.append(
            {
                "asset": names[place], "side": SIDES[c % 2],
                "stands_usd": float(stands[c]), "closes_usd": float(closes[c]),
                "closes_low": None if few[c] else known(low[k]),
                "closes_high": None if few[c] else known(high[k]),
                "days": days,
                "days_low": None if days is None or scale[0] is None else days * scale[0],
                "days_high": None if days is None or scale[1] is None else days * scale[1],
                "impact": moves[0],
                "impact_low": ends[0],
                "impact_high": ends[-1],
                "root_impact": known(root[c]), "critical_leverage": known(critical[c]),
                "leverage": float(closes[c] / inverse[c]) if inverse[c] > 0.0 else None,
                "above": None if np.isnan(critical[c]) else float(above[c] / closes[c]),
                "model": options.impact.value,
                "outcome": _outcome(deep, market, place),
            }
        )  # fmt: skip
    types: dict[str, Any] = {"asset": pl.String, "side": pl.String}
    types |= dict.fromkeys(_FLOATS, pl.Float64) | {"model": pl.String, "outcome": pl.String}
    return pl.DataFrame(rows, schema=types)


_FLOATS = (
    "stands_usd", "closes_usd", "closes_low", "closes_high", "days", "days_low", "days_high",
    "impact", "impact_low", "impact_high", "root_impact", "critical_leverage", "leverage", "above",
)  # fmt: skip


def _outcome(deep: bool, market: _Markets, place: int) -> str:
    """Everything that is not known of an asset, or that all of it is told."""
    lacking = [
        word
        for word, there in (
            (NO_DEPTH, deep),
            (NO_VOLUME, market.daily[place] > 0.0),
            (NO_VOL, market.vol[place] > 0.0),
        )
        if not there
    ]
    return ", ".join(lacking) if lacking else CLOSED


def _owners(
    crowd: Crowd, legs: _Legs, market: _Markets, participation: float, ranked: Ranking
) -> pl.DataFrame:
    """The owners with most to close, each closing alone: how long, and in what it moves most."""
    names = crowd.snapshot.universe.assets
    owner = crowd.holder[legs.account]
    rows: list[dict[str, Any]] = []
    ratio = crowd.exposures.added(crowd.exposures.outright) + crowd.notional
    for one, closes in zip(ranked.index.astype(np.int64).tolist(), ranked.size, strict=True):
        mine = np.flatnonzero(owner == one)
        accounts = np.flatnonzero(crowd.holder == one)
        equity = float(crowd.exposures.equity[accounts].sum())
        cell = 2 * legs.place[mine] + legs.side[mine]
        days, moves, unknown = {}, {}, []
        for c in np.unique(cell).tolist():
            which = mine[cell == c]
            label = f"{names[c // 2]} {SIDES[c % 2]}"
            volume = float(market.daily[c // 2]) * participation
            if volume > 0.0:
                days[label] = float(legs.closes_qty[which].sum()) / volume
            own = bool((crowd.plan.carriers.own_pool[legs.inst[which]] != NONE).any())
            if market.known(c // 2) or own:
                moves[label] = market.move(
                    c // 2, _SIGN[c % 2], legs.inst[which], legs.closes_qty[which],
                    legs.closes[which],
                )  # fmt: skip
            if volume <= 0.0 or label not in moves:
                unknown.append(label)
        far = max(moves, key=lambda label: abs(moves[label]), default=None)
        slow = max(days, key=lambda label: days[label], default=None)
        rows.append(
            {
                "owner": name_of(crowd, int(accounts[0])), "accounts": len(accounts),
                "closes_usd": float(closes), "equity_usd": equity,
                "leverage": float(ratio[accounts].sum()) / equity if equity > 0.0 else None,
                "days": None if slow is None else days[slow], "slowest": slow,
                "impact": None if far is None else moves[far], "moves_most": far,
                "unknown": ", ".join(unknown) or None,
            }
        )  # fmt: skip
    types: dict[str, Any] = {"owner": pl.String, "accounts": pl.Int64}
    types |= dict.fromkeys(("closes_usd", "equity_usd", "leverage", "days"), pl.Float64)
    types |= {"slowest": pl.String, "impact": pl.Float64, "moves_most": pl.String}
    table = pl.DataFrame(rows, schema=types | {"unknown": pl.String})
    return table.hstack(owner_ranks(ranked))


def _curve(assets: pl.DataFrame, options: Options) -> pl.DataFrame:
    """What is left of a position's equity as it is closed, at leverages round the critical one."""
    rows: list[dict[str, Any]] = []
    for row in assets.filter(pl.col("root_impact").is_not_null()).head(3).iter_rows(named=True):
        share, size = np.linspace(0.0, 1.0, 41), row["root_impact"]
        for times in (0.5, 1.0, 1.5):
            ratio = times * row["critical_leverage"]
            left = 1.0 / ratio - size * np.sqrt(share) + size * share**1.5 / 3.0
            rows += [
                {
                    "asset": row["asset"], "side": row["side"], "leverage": ratio,
                    "closed": float(x), "equity": float(e),
                }
                for x, e in zip(share, left, strict=True)
            ]  # fmt: skip
    types: dict[str, Any] = {"asset": pl.String, "side": pl.String}
    return pl.DataFrame(
        rows, schema=types | dict.fromkeys(("leverage", "closed", "equity"), pl.Float64)
    )


def _readings(
    crowd: Crowd, assets: pl.DataFrame, options: Options, participation: float, level: float
) -> list[Reading]:
    days = _DAYS.format(percent(participation))
    slowest = assets.filter(pl.col("days").is_not_null()).sort(
        "days", "asset", "side", descending=[True, False, False]
    )
    rows = list(assets.head(_TOP).iter_rows(named=True))
    worst = next(slowest.iter_rows(named=True), None)
    found = [_told(crowd, worst, "days", "days", f"{days}; the slowest of all", "", level)]
    shares = assets.filter(pl.col("above").is_not_null())
    above = None
    if shares.height:
        closes = float(shares["closes_usd"].sum())
        above = float((shares["above"] * shares["closes_usd"]).sum()) / closes
    found.append(
        crowd.reading(
            "crowding.above_critical", above, "1",
            "share of what closes that stands at more than its critical leverage; "
            + _CRITICAL.format(options.root),
            modelled=True,
        )
    )  # fmt: skip
    for row in rows:
        subject = f"{row['asset']} {row['side']}"
        critical = _CRITICAL.format(options.root)
        moved = _IMPACT.format(options.impact.value)
        found += [
            _told(crowd, row, "days", "days", days, subject, level),
            _told(crowd, row, "impact", "1", moved, subject, level),
            _told(crowd, row, "critical_leverage", "1", critical, subject, level),
        ]
    return found


def _told(
    crowd: Crowd,
    row: dict[str, Any] | None,
    column: str,
    unit: str,
    words: str,
    subject: str,
    level: float,
) -> Reading:
    row = row or {}
    name = {"days": "days_to_exit", "impact": "exit_impact"}.get(column, column)
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return crowd.reading(
        f"crowding.{name}", row.get(column), unit, words, subject=subject,
        band=None if low is None or high is None else (low, high), level=level, modelled=True,
    )  # fmt: skip


def _says(crowd: Crowd, tables: dict[str, pl.DataFrame], participation: float) -> list[str]:
    assets = tables["assets"]
    if not assets.height:
        if not (crowd.leveraged > 0.0).any():
            return ["Nobody owes anything or holds a derivative: there is nothing to close."]
        return ["What is leveraged is money alone: closing it moves nothing."]
    says = []
    known_days = assets.filter(pl.col("days").is_not_null()).sort("days", descending=True)
    if known_days.height:
        row = known_days.row(0, named=True)
        rest = [
            f"{each['asset']} {each['side']} ({told(each['days'])})"
            for each in known_days.slice(1, 2).iter_rows(named=True)
        ]
        says.append(
            f"Taking {percent(participation)} of daily volume, the slowest to close is "
            f"{row['asset']} {row['side']}: {told(row['days'])} days"
            + (f"; then {listed(rest)}." if rest else ".")
        )
    else:
        says.append("How long closing takes cannot be told: no daily volume is known of anything.")
    moved = assets.filter(pl.col("impact").is_not_null())
    if moved.height:
        most = moved.sort(pl.col("impact").abs(), descending=True).row(0, named=True)
        says.append(
            f"Closed all at once, {most['asset']} {most['side']} moves its price by "
            f"{percent(float(np.expm1(most['impact'])))} under the {most['model']} model."
        )
    judged = assets.filter(pl.col("above").is_not_null())
    if judged.height:
        closes = float(judged["closes_usd"].sum())
        share = float((judged["above"] * judged["closes_usd"]).sum()) / closes
        least = judged.sort("critical_leverage").row(0, named=True)
        says.append(
            f"{percent(share)} of it stands above its critical leverage, the lowest of which is "
            f"{told(least['critical_leverage'])}, of {least['asset']} {least['side']}."
        )
    else:
        says.append(
            "Critical leverage cannot be told: nothing has both a daily volume and a volatility."
        )
    lacking = assets.filter(pl.col("outcome") != CLOSED)
    if lacking.height:
        rows = lacking.iter_rows(named=True)
        names = [f"{row['asset']} {row['side']} ({row['outcome']})" for row in rows]
        says.append(f"Not known of everything: {listed(names, 3)}.")
    gone = int(((crowd.leveraged > 0.0) & (crowd.exposures.equity <= 0.0)).sum())
    if gone:
        says.append(
            f"{many(gone, 'account')} without equity {'closes' if gone == 1 else 'close'} too, and "
            f"{'stands' if gone == 1 else 'stand'} above any critical leverage."
        )
    return says
