"""How venues close accounts: the columns a cascade reads, and one account at the prompt.

Both go through the functions of `kernels.closing`, so that what a liquidation of one account
answers is what happens to it within a book of millions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from undertow.errors import RuleError
from undertow.kernels import closing as kernel
from undertow.kernels import margin
from undertow.rules import lending, markets
from undertow.rules.profile import ClosingRules, Deleveraging, LendingRules, Mechanism
from undertow.rules.rounding import below, ceil_to
from undertow.rules.terms import Rules
from undertow.state import AnyColumn, Book, FloatColumn
from undertow.state.arrays import frozen

_BY_DATE = {  # the venue's number of a date, and the rule it replaces
    "close_factor": "close_factor",
    "target_health": "target_health",
    "liquidation_fee": "fee",
    "gas_usd": "gas_usd",
}


@dataclass(frozen=True, eq=False)
class ClosingColumns:
    """How a book would be closed: by venue, and by leg what taking it yields."""

    by_venue: kernel.Closing
    bonus: FloatColumn  # by leg, taken per unit repaid; 0 of what is no collateral
    fee: FloatColumn  # by leg, the protocol's share of the bonus


def closing_columns(rules: Rules, book: Book) -> ClosingColumns:
    """What `rules` say of closing the accounts of `book`.

    Numbers of a date stand over what profiles take for granted. A bonus is given, or one less
    than a liquidation factor that is, or the incentive of the leg's threshold, or the profile's;
    the last is cut to half of what the threshold leaves where it is more than that leaves.

    Raises
    ------
    RuleError
        A collateral whose seizure leaves bad debt at its own threshold, or no repayment of which
        reaches the venue's target health.
    """
    profiles = [profile.closing if profile else None for profile in rules.profiles]
    columns = venue_columns(profiles)
    dated = {
        column: frozen(rules.params.by_venue(name, getattr(columns, column)))
        for name, column in _BY_DATE.items()
    }
    columns = columns._replace(**dated)
    legs = rules.leg_columns(book)
    held = legs.role == margin.COLLATERAL
    venue = book.venue[book.leg_account]
    default = [(p.bonus, p.bonus_fee) if p else (0.0, 0.0) for p in profiles]
    plain = np.array(default, dtype=np.float64).reshape(-1, 2)[venue]
    bonus = np.where(
        held & (columns.mechanism[venue] == kernel.PAIR),
        _repairing(plain[:, 0], legs.weight),
        plain[:, 0],
    )
    for code, profile in enumerate(rules.profiles):
        if profile and profile.lending and profile.lending.incentive_cursor > 0.0:
            here = held & (venue == code)
            bonus[here] = _incentives(legs.weight[here], profile.lending)
    factor = rules.params.by_leg(book, "liquidation_factor", np.nan)
    bonus = np.where(np.isnan(factor), bonus, 1.0 - factor)
    given = rules.params.by_leg(book, "liquidation_bonus", np.nan)
    bonus = np.where(held, np.where(np.isnan(given), bonus, given), 0.0)
    fee = rules.params.by_leg(book, "protocol_fee", np.nan)
    fee = np.where(held, np.where(np.isnan(fee), plain[:, 1], fee), 0.0)
    _check_repairs(rules, book, columns, legs.weight, bonus, held)
    return ClosingColumns(columns, frozen(bonus), frozen(fee))


def venue_columns(rules: Sequence[ClosingRules | None]) -> kernel.Closing:
    """Closing rules, one row each; None is a venue that closes nothing."""
    plain = ClosingRules(mechanism=Mechanism.PAIR)
    columns: dict[str, AnyColumn] = {}
    for name in kernel.Closing._fields:
        kind = {"bool": np.bool_, "int": np.int64, "float": np.float64}.get(
            type(getattr(plain, name)).__name__, np.int8
        )
        values = [getattr(rule or plain, name) for rule in rules]
        codes = [v.code if isinstance(v, Mechanism | Deleveraging) else v for v in values]
        columns[name] = np.array(codes, dtype=kind)
    columns["mechanism"][[rule is None for rule in rules]] = kernel.NOTHING
    return kernel.Closing(**{name: frozen(column) for name, column in columns.items()})


def _repairing(bonus: FloatColumn, threshold: FloatColumn) -> FloatColumn:
    """A bonus that nobody gave, cut to half of what the threshold leaves if it is past that."""
    room = np.divide(1.0 - threshold, threshold, out=np.full_like(bonus, np.inf),
                     where=threshold > 0.0)  # fmt: skip
    repairing: FloatColumn = np.where(bonus < room, bonus, 0.5 * room)
    return repairing


def _incentives(threshold: FloatColumn, rules: LendingRules) -> FloatColumn:
    """Bonus of an isolated market by its threshold; 0 where the collateral counts for nothing."""
    bonus = np.zeros(len(threshold))
    for lltv in np.unique(threshold):
        if 0.0 < lltv < 1.0:
            bonus[threshold == lltv] = markets.incentive_factor(float(lltv), rules=rules) - 1.0
    return bonus


def _check_repairs(
    rules: Rules,
    book: Book,
    columns: kernel.Closing,
    threshold: FloatColumn,
    bonus: FloatColumn,
    held: npt.NDArray[np.bool_],
) -> None:
    venue = book.venue[book.leg_account]
    taken = threshold * (1.0 + bonus)
    target = columns.target_health[venue]
    pairs = held & (columns.mechanism[venue] == kernel.PAIR)
    for wrong, words in (
        (pairs & (bonus > 0.0) & (taken >= 1.0), "at or above 1"),
        (pairs & (target > 0.0) & (taken >= target), "at or above the target health"),
    ):
        if wrong.any():
            leg = int(np.flatnonzero(wrong)[0])
            raise RuleError(
                f"threshold {threshold[leg]:g} times 1 + bonus {bonus[leg]:g} of "
                f"{rules.universe.instruments[book.inst[leg]]} is {words}; no liquidation of it "
                f"would repair account {book.account[book.leg_account[leg]]}",
                source="risk_params",
                column="liquidation_bonus",
                hint="lower the bonus or the threshold of that instrument, category or account",
            )


class Status(Enum):
    """What came of an attempt to liquidate."""

    CLOSED = "closed"
    HEALTHY = "not liquidatable"
    DUST = "must not leave dust"
    EMPTY = "nothing held or nothing owed"


_STATUS = {
    kernel.CLOSED: Status.CLOSED,
    kernel.HEALTHY: Status.HEALTHY,
    kernel.DUST: Status.DUST,
    kernel.EMPTY: Status.EMPTY,
}


@dataclass(frozen=True, slots=True, eq=False)
class Liquidation:
    """One debt repaid against one collateral; quantities, each in the unit of its asset."""

    status: Status
    bonus: float
    repaid: float  # of the debt
    seized: float  # of the collateral, the protocol's part of it included
    protocol_fee: float
    collateral: FloatColumn  # left, asset by asset
    debt: FloatColumn  # left, asset by asset
    deficit: FloatColumn  # written off, debt by debt

    @property
    def to_liquidator(self) -> float:
        """Collateral that the liquidator receives."""
        return self.seized - self.protocol_fee


def liquidate(
    collateral: npt.ArrayLike,
    debt: npt.ArrayLike,
    pair: tuple[int, int] = (0, 0),
    *,
    closing: ClosingRules,
    debt_to_cover: float | None = None,
    collateral_price: npt.ArrayLike = 1.0,
    debt_price: npt.ArrayLike = 1.0,
    threshold: npt.ArrayLike = 1.0,
    debt_weight: npt.ArrayLike = 1.0,
    bonus: npt.ArrayLike | None = None,
    fee: npt.ArrayLike | None = None,
    collateral_unit: npt.ArrayLike = 1.0,
    debt_unit: npt.ArrayLike = 1.0,
    rounding: lending.Rounding | None = None,
    quantum: float | None = None,
) -> Liquidation:
    """Repay one debt of a borrower against one collateral, as its lender's rules let it be done.

    `pair` are the places of the collateral and of the debt. `debt_to_cover` is what the
    liquidator wants to repay at most; inf asks for the most, which is refused where it leaves
    dust, and None takes as much as leaves none, as liquidators of a book do. Prices are in USD,
    since the rules' least amounts are; a leg is worth balance * price / unit. `bonus` and `fee`
    are by collateral and, where None, the profile's. `rounding` is that of values in USD and
    `quantum` the least unit of balances, as in `lending.account`. Nothing changes where the
    status is not CLOSED.

    Raises
    ------
    RuleError
        The rules close by another mechanism, what is asked to be covered is not positive, or the
        pair is not one of two assets with prices.
    """
    if closing.mechanism is not Mechanism.PAIR:
        raise RuleError(
            f"these rules close by {closing.mechanism.value}; a pair is liquidated by 'pair' alone",
            hint="close_whole and close_group answer for the others",
        )
    if debt_to_cover is not None and not debt_to_cover > 0.0:
        raise RuleError(f"debt_to_cover was {debt_to_cover}; it must be above 0")
    held, owed = _column(collateral), _column(debt)
    unit = _column(collateral_unit, held), _column(debt_unit, owed)
    price = _column(collateral_price, held) / unit[0], _column(debt_price, owed) / unit[1]
    weight = _column(threshold, held), _column(debt_weight, owed)
    judged = lending.account(
        held, owed, collateral_price=price[0], debt_price=price[1], threshold=weight[0],
        debt_weight=weight[1], rounding=rounding,
    )  # fmt: skip
    i, j = pair
    if not (0 <= i < len(held) and 0 <= j < len(owed) and price[0][i] > 0.0 < price[1][j]):
        raise RuleError(
            f"pair was {pair}; it names one of {len(held)} collaterals and one of {len(owed)} "
            "debts, both with prices above 0"
        )
    share = _column(closing.bonus_fee if fee is None else fee, held)[i]
    quanta = kernel.Quanta(quantum or 0.0, quantum or 0.0, (rounding and rounding.value) or 0.0)
    columns = venue_columns([closing])
    standing = kernel.Standing(judged.cover, judged.asked, judged.debt)
    chosen = kernel.Pair(
        held[i], price[0][i], weight[0][i],
        _column(closing.bonus if bonus is None else bonus, held)[i],
        owed[j], price[1][j], weight[1][j],
    )  # fmt: skip
    if debt_to_cover is None:
        found = kernel.closed_pair(0, columns, standing, chosen, quanta)
    else:
        found = kernel.attempt(0, columns, standing, chosen, float(debt_to_cover), quanta)
    repaid, seized, used, code = found
    cut = kernel.protocol_cut(seized, used, share, quanta.held)
    held[i] -= seized
    owed[j] -= repaid
    left = lending.account(held, collateral_price=price[0], rounding=rounding)
    lost = closing.deficit and code == kernel.CLOSED and left.collateral == 0.0
    deficit = owed if lost else np.zeros(len(owed))
    return Liquidation(
        status=_STATUS[code],
        bonus=used,
        repaid=repaid,
        seized=seized,
        protocol_fee=cut,
        collateral=frozen(held),
        debt=frozen(owed - deficit),
        deficit=frozen(deficit),
    )


@dataclass(frozen=True, slots=True)
class MarketLiquidation:
    """A closing in an isolated market; assets are of the loan, collateral in its own units."""

    status: Status
    repaid_assets: float
    repaid_shares: float
    seized: float
    bad_debt: float  # assets that its suppliers lose
    collateral: float  # left
    borrow_shares: float  # left


def liquidate_market(
    collateral: float,
    borrow_shares: float,
    *,
    price: float,
    lltv: float,
    total_borrow_assets: float,
    total_borrow_shares: float,
    rules: LendingRules,
    seized: float | None = None,
    repaid_shares: float | None = None,
    quantum: float | None = None,
) -> MarketLiquidation:
    """Close a part of an isolated market's borrower, given what is seized or what is repaid.

    With neither, as much as there is debt and collateral for. Debt that nothing backs any more
    is the suppliers' loss at once.

    References
    ----------
    Morpho Blue, `Morpho.liquidate`.
    """
    if seized is not None and repaid_shares is not None:
        raise RuleError("pass seized or repaid_shares, not both: the one follows from the other")
    pool = (total_borrow_assets, total_borrow_shares)
    judged = markets.market_account(
        collateral, borrow_shares, price=price, lltv=lltv, total_borrow_assets=pool[0],
        total_borrow_shares=pool[1], rules=rules, quantum=quantum,
    )  # fmt: skip
    if judged.is_healthy:
        return MarketLiquidation(Status.HEALTHY, 0.0, 0.0, 0.0, 0.0, collateral, borrow_shares)
    least = rules.rounding(quantum).value
    if repaid_shares is None and seized is None:
        seized = judged.seizable_collateral
        repaid_shares = borrow_shares
        if seized == collateral:  # it is the collateral that runs out, as far as it reaches
            repaid_shares = min(borrow_shares, _shares_for(seized, price, lltv, pool, rules, least))
    elif seized is not None:
        repaid_shares = _shares_for(seized, price, lltv, pool, rules, least)
    elif repaid_shares is not None:
        seized = markets.seized_for_shares(
            repaid_shares, price, lltv, *pool, rules=rules, quantum=quantum
        )
    assert seized is not None  # one of the three branches has set both
    assert repaid_shares is not None
    if seized > collateral or repaid_shares > borrow_shares:
        raise RuleError(
            f"repaying {repaid_shares:g} shares for {seized:g} of collateral is more than there "
            f"is: {borrow_shares:g} and {collateral:g}"
        )
    paid = markets.assets_from_shares(repaid_shares, *pool, rules=rules, quantum=quantum)
    left, shares = collateral - seized, borrow_shares - repaid_shares
    bad = 0.0
    if left == 0.0 and shares > 0.0:
        after = (max(pool[0] - paid, 0.0), pool[1] - repaid_shares)
        bad = markets.assets_from_shares(shares, *after, rules=rules, quantum=quantum)
        bad, shares = min(bad, after[0]), 0.0
    return MarketLiquidation(Status.CLOSED, paid, repaid_shares, seized, bad, left, shares)


def _shares_for(
    seized: float,
    price: float,
    lltv: float,
    pool: tuple[float, float],
    rules: LendingRules,
    least: float | None,
) -> float:
    """Debt shares that must be repaid for a quantity of collateral, rounded up at each step."""
    worth = float(ceil_to(seized * price, least))
    assets = float(ceil_to(worth / markets.incentive_factor(lltv, rules=rules), least))
    per_asset = (pool[1] + rules.virtual_shares) / (pool[0] + rules.virtual_assets)
    return float(ceil_to(assets * per_asset, least))


@dataclass(frozen=True, slots=True)
class TroveLiquidation:
    """A trove closed whole: who pays its debt, and who takes its collateral."""

    status: Status
    to_pool_debt: float
    to_pool_collateral: float
    spread_debt: float  # over all other troves
    spread_collateral: float
    caller_collateral: float
    caller_reserve: float  # the reserve within the debt, in the money borrowed
    surplus: float  # collateral that the owner may claim


def liquidate_trove(
    collateral: float,
    debt: float,
    price: float,
    *,
    rules: LendingRules,
    closing: ClosingRules,
    pool: float = math.inf,
    system_ratio: float | None = None,
) -> TroveLiquidation:
    """Close one trove against the stability pool, and what the pool cannot pay against the rest.

    `debt` includes the liquidation reserve. `system_ratio` is collateral over debt of all troves:
    below the critical ratio the system is in recovery mode. A trove at 100 % and below is then
    spread over the others, the pool left out; one from the minimum ratio up to the system's is
    closed if the pool can pay all of it, and keeps what it has over the minimum.

    References
    ----------
    Liquity v1, `TroveManager` (liquidation in normal and in recovery mode).
    """
    judged = markets.trove(collateral, debt, price, rules=rules)
    ratio = math.inf if judged.collateral_ratio is None else judged.collateral_ratio
    system = math.inf if system_ratio is None else system_ratio
    recovery = rules.critical_ratio is not None and below(system, rules.critical_ratio)
    rescued = recovery and below(ratio, system) and debt <= pool
    if not (judged.below_minimum or rescued):
        return TroveLiquidation(Status.HEALTHY, *(0.0,) * 7)
    _, _, _, _, credit = kernel.close_whole(
        0, venue_columns([closing]), collateral * price, debt, closing.bonus
    )
    surplus = credit / price
    taken = collateral - surplus
    caller = closing.caller_share * taken
    rest = taken - caller
    paid = 0.0 if recovery and ratio <= 1.0 else min(debt, pool)
    part = paid / debt
    return TroveLiquidation(
        status=Status.CLOSED,
        to_pool_debt=paid,
        to_pool_collateral=rest * part,
        spread_debt=debt - paid,
        spread_collateral=rest - rest * part,
        caller_collateral=caller,
        caller_reserve=rules.liquidation_reserve,
        surplus=surplus,
    )


@dataclass(frozen=True, slots=True)
class WholeClosing:
    """All of an account closed at once, in USD."""

    seized: float
    repaid: float
    penalty: float  # to the protocol
    bad_debt: float
    credit: float  # money that the owner is left with
    sold_after_us: int  # how long the sale of what was seized takes

    @property
    def gain(self) -> float:
        """What whoever takes the collateral has from it, at the price of the closing."""
        return self.seized - self.repaid - self.penalty - self.credit


def close_whole(
    collateral_usd: float, debt_usd: float, *, closing: ClosingRules, bonus: float | None = None
) -> WholeClosing:
    """Close all debt of an account against all its collateral; `bonus` as in the profile if None.

    Raises
    ------
    RuleError
        An amount is negative, or there is no debt.
    """
    if collateral_usd < 0.0 or debt_usd <= 0.0:
        raise RuleError(
            f"collateral was {collateral_usd} and debt {debt_usd}; the one is 0 or more, the other "
            "above 0"
        )
    share = closing.bonus if bonus is None else bonus
    seized, repaid, penalty, bad, credit = kernel.close_whole(
        0, venue_columns([closing]), collateral_usd, debt_usd, share
    )
    return WholeClosing(seized, repaid, penalty, bad, credit, closing.delay_us)


def auction_delay_us(buffer: float, cut: float, step_us: int) -> int:
    """Time until an asking price that starts at buffer * price has come down to the price.

    Each step multiplies it by `cut`; the price stands still.

    References
    ----------
    Maker, "Liquidation 2.0 module": stairstep exponential decrease.
    """
    if buffer < 1.0 or not 0.0 < cut < 1.0 or step_us <= 0:
        raise RuleError(
            f"buffer {buffer}, cut {cut}, step {step_us}: the buffer is 1 or more, the cut "
            "between 0 and 1, the step above 0"
        )
    return step_us * math.ceil(round(math.log(buffer) / -math.log(cut), 9))


@dataclass(frozen=True, slots=True)
class Ladder:
    """Prices between which a loan's collateral is sold, and bought back, bit by bit."""

    top: float
    bottom: float
    loss: float  # share lost on what is converted

    @classmethod
    def of_loan(cls, collateral: float, debt_usd: float, *, closing: ClosingRules) -> Ladder:
        """The ladder that a debt against a quantity of collateral is given."""
        if closing.mechanism is not Mechanism.BANDS or collateral <= 0.0 or debt_usd <= 0.0:
            raise RuleError(
                f"collateral {collateral}, debt {debt_usd}, mechanism {closing.mechanism.value}: a "
                "ladder needs something of both, and rules that close by bands"
            )
        top, bottom = kernel.band_range(
            debt_usd, collateral, closing.bands_amplification, closing.bands_count,
            closing.loan_discount,
        )  # fmt: skip
        return cls(top, bottom, closing.bands_loss)

    def sold(self, price: float) -> float:
        """Share of the collateral that is money at a price, 0 to 1."""
        return float(kernel.band_share(price, self.top, self.bottom))


@dataclass(frozen=True, slots=True)
class GroupClosing:
    """What a perp venue closes of a margin group now, in USD."""

    share: float  # of every derivative
    closed: float  # notional
    fee: float
    shortfall: float  # loss beyond the margin, for funds and winners
    to_owner: float  # of a group that is closed whole
    to_fund: float  # of one whose rest is not the owner's, and the fee
    taken_over: bool  # by the backstop fund, instead of the market
    next_after_us: int

    @property
    def whole(self) -> bool:
        """Whether nothing of the group is left open."""
        return self.share >= 1.0


def close_group(
    equity: float, asked: float, notional: float, *, closing: ClosingRules
) -> GroupClosing:
    """Close as much of a margin group as the venue does at a time, at the price that judges it.

    Equity at or above what is asked closes nothing.
    """
    if closing.mechanism is not Mechanism.SLICES or asked < 0.0 or notional < 0.0:
        raise RuleError(
            f"asked {asked}, notional {notional}, mechanism {closing.mechanism.value}: neither is "
            "negative, and a margin group is closed by slices"
        )
    columns = venue_columns([closing])
    share = kernel.slice_share(0, columns, equity, asked, notional)
    closed = share * notional
    fee = kernel.closing_fee(0, columns, closed, equity)
    left = equity - fee
    whole = share >= 1.0
    rest = max(left, 0.0) if whole else 0.0
    taken = share > 0.0 and bool(kernel.takes_over(0, columns, equity, asked))
    owners = closing.keeps_rest and not taken
    return GroupClosing(
        share=share,
        closed=closed,
        fee=fee,
        shortfall=max(-left, 0.0) if whole else 0.0,
        to_owner=rest if owners else 0.0,
        to_fund=fee + (0.0 if owners else rest),
        taken_over=taken,
        next_after_us=0 if whole else closing.cooldown_us,
    )


def _column(values: npt.ArrayLike, like: FloatColumn | None = None) -> FloatColumn:
    column = np.atleast_1d(np.asarray(values, dtype=np.float64))
    return column.copy() if like is None else np.broadcast_to(column, like.shape).copy()
