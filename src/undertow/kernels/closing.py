"""How much of an account is closed, who gets what of it, and which winners pay.

Scalar arithmetic that one account and a whole cascade share. Amounts are in the caller's unit:
USD values at a price of 1, quantities with their prices, or a contract's raw integers with the
contract's own `Quanta`. Nothing here looks at a clock or at another account.

Columns of `Closing`, by venue (a share is a fraction of what its line names):

    mechanism         NOTHING, PAIR, WHOLE, BANDS or SLICES; what the next columns belong to

    PAIR: one debt is repaid against one collateral, which changes hands with a bonus
    close_factor      share of the debt that may be repaid at once
    full_below        health at and below which all of the pair's debt may be
    small_usd         all of it too where the pair's debt or collateral is worth less
    leftover_usd      what is left of the pair's two sides is nothing, or at least this much
    of_all_debt       the share is of all the account's debt, else of the pair's
    target_health     repay as much as brings health here, and no more; 0 where no venue says so
    bonus_start       share of the bonus at health 1; it rises in a straight line to all of it
    bonus_full_at     health at and below which the bonus is whole; 1 where it always is
    deficit           debt without any collateral left is written off at once

    WHOLE: all debt against all collateral
    penalty           asked for on top of the debt, for the protocol
    seize_all         all collateral goes; what it is worth over debt and bonus is the owner's
    returns_surplus   the protocol takes all; collateral less the bonus, less debt, is the owner's
    delay_us          time until what was seized is sold

    BANDS: collateral is sold and bought back along a ladder of prices
    bands_amplification, bands_count   A and N of the ladder
    loan_discount     share of the collateral that the ladder leaves unborrowed
    bands_loss        share lost on what is converted

    SLICES: shares of all derivatives of a margin group
    slice             share closed at a time
    slice_above_usd   gross notional up to which all is closed at once
    cooldown_us       time until the next slice
    backstop_below    share of the maintenance below which a fund takes the account; 0 without one
    to_health         close just enough to restore this health; 0 where it takes slices
    fee               share of the closed notional that goes to the venue's fund
    keeps_rest        the owner of a wholly closed account keeps what is left, else the fund does
    adl               ADL_NONE, ADL_PROFIT_LEVERAGE or ADL_PRORATA: who pays once funds are empty

    gas_usd           what one liquidation costs whoever does it

Every float is finite and every price positive: the caller has checked. Quantities and values of
debt are positive here.

References
----------
Warmuz, Chaudhary and Pinna (2022), "Toxic liquidation spirals": repaying q and seizing
(1 + bonus) * q raises health only where health > threshold * (1 + bonus).
"""

from math import inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit

NOTHING, PAIR, WHOLE, BANDS, SLICES = -1, 0, 1, 2, 3
ADL_NONE, ADL_PROFIT_LEVERAGE, ADL_PRORATA = range(3)
CLOSED, HEALTHY, DUST, EMPTY = range(4)  # what came of an attempt on a pair

_SLACK = 1e-9  # of a unit: what lies nearer to a whole number of units counts as that number
_LAST_BITS = 4.0 * 2.0**-52


class Closing(NamedTuple):
    """How each venue closes an account, one row a venue; the columns are described above."""

    mechanism: NDArray[np.int8]
    close_factor: NDArray[np.float64]
    full_below: NDArray[np.float64]
    small_usd: NDArray[np.float64]
    leftover_usd: NDArray[np.float64]
    of_all_debt: NDArray[np.bool_]
    target_health: NDArray[np.float64]
    bonus_start: NDArray[np.float64]
    bonus_full_at: NDArray[np.float64]
    deficit: NDArray[np.bool_]
    penalty: NDArray[np.float64]
    seize_all: NDArray[np.bool_]
    returns_surplus: NDArray[np.bool_]
    delay_us: NDArray[np.int64]
    bands_amplification: NDArray[np.float64]
    bands_count: NDArray[np.float64]
    loan_discount: NDArray[np.float64]
    bands_loss: NDArray[np.float64]
    slice: NDArray[np.float64]
    slice_above_usd: NDArray[np.float64]
    cooldown_us: NDArray[np.int64]
    backstop_below: NDArray[np.float64]
    to_health: NDArray[np.float64]
    fee: NDArray[np.float64]
    keeps_rest: NDArray[np.bool_]
    adl: NDArray[np.int8]
    gas_usd: NDArray[np.float64]


class Standing(NamedTuple):
    """The account that a pair belongs to: cover W, asked D, and all debt at its price."""

    cover: float
    asked: float
    debt: float


class Pair(NamedTuple):
    """One collateral and one debt of an account."""

    held: float
    held_price: float
    threshold: float
    bonus: float
    debt: float  # positive
    debt_price: float
    debt_weight: float


class Quanta(NamedTuple):
    """Least units: of quantities of collateral and debt, and of values; 0.0 rounds nothing."""

    held: float
    debt: float
    value: float


EXACT = Quanta(0.0, 0.0, 0.0)


@njit(cache=True, error_model="numpy")
def floor_to(value, quantum):
    """Largest multiple of `quantum` that is not above `value`; `value` itself at 0.0."""
    if quantum == 0.0:
        return value
    units = value / quantum
    whole = np.rint(units)
    if abs(units - whole) <= max(_SLACK, _LAST_BITS * abs(units)):
        return whole * quantum
    return np.floor(units) * quantum


@njit(cache=True, error_model="numpy")
def ceil_to(value, quantum):
    """Smallest multiple of `quantum` that is not under `value`; `value` itself at 0.0."""
    if quantum == 0.0:
        return value
    units = value / quantum
    whole = np.rint(units)
    if abs(units - whole) <= max(_SLACK, _LAST_BITS * abs(units)):
        return whole * quantum
    return np.ceil(units) * quantum


@njit(cache=True, error_model="numpy")
def bonus_at(v, closing, health, bonus):
    """Bonus at a health: bonus * bonus_start at 1, all of it at bonus_full_at and below."""
    full_at = closing.bonus_full_at[v]
    if health <= full_at or full_at >= 1.0:
        return bonus
    least = bonus * closing.bonus_start[v]
    return least + (bonus - least) * max(1.0 - health, 0.0) / (1.0 - full_at)


@njit(cache=True, error_model="numpy")
def to_target(cover, asked, target, threshold, debt_weight, bonus):
    """Value to repay that brings health to `target`; inf where no repayment does.

    (target * asked - cover) / (target * debt_weight - threshold * (1 + bonus)).
    """
    raised = target * debt_weight - threshold * (1.0 + bonus)
    if raised <= 0.0:
        return inf
    return max(target * asked - cover, 0.0) / raised


@njit(cache=True, error_model="numpy")
def pair_cap(v, closing, standing, pair, bonus, quanta):
    """Quantity of the pair's debt that the venue lets be repaid at once."""
    owed = ceil_to(pair.debt * pair.debt_price, quanta.value)
    backed = floor_to(pair.held * pair.held_price, quanta.value)
    health = standing.cover / standing.asked
    if closing.target_health[v] > 0.0:
        repay = to_target(
            standing.cover, standing.asked, closing.target_health[v],
            pair.threshold, pair.debt_weight, bonus,
        )  # fmt: skip
        if repay >= owed:
            return pair.debt
        return min(pair.debt, ceil_to(repay / pair.debt_price, quanta.debt))
    share = closing.close_factor[v]
    small = closing.small_usd[v]
    if share >= 1.0 or health <= closing.full_below[v] or owed < small or backed < small:
        return pair.debt
    if not closing.of_all_debt[v]:
        return floor_to(share * pair.debt, quanta.debt)
    most = floor_to(share * standing.debt, quanta.value)
    return min(pair.debt, floor_to(most / pair.debt_price, quanta.debt))


@njit(cache=True, error_model="numpy")
def seized_for(repaid, debt_price, held_price, bonus, quantum):
    """Collateral of the value of what was repaid, and the bonus on top; each rounded down."""
    bare = floor_to(repaid * debt_price / held_price, quantum)
    return floor_to(bare * (1.0 + bonus), quantum)


@njit(cache=True, error_model="numpy")
def repaid_for(seized, held_price, debt_price, bonus, quantum):
    """What must be repaid for a quantity of collateral, rounded up."""
    worth = floor_to(seized * held_price / debt_price, quantum)
    return ceil_to(worth / (1.0 + bonus), quantum)


@njit(cache=True, error_model="numpy")
def trade(wanted, pair, bonus, quanta):
    """Repay `wanted`, or as much of it as there is collateral for; (repaid, seized)."""
    seized = seized_for(wanted, pair.debt_price, pair.held_price, bonus, quanta.held)
    if seized <= pair.held:
        return wanted, seized
    most = repaid_for(pair.held, pair.held_price, pair.debt_price, bonus, quanta.debt)
    return min(wanted, most), pair.held


@njit(cache=True, error_model="numpy")
def leaves_dust(pair, repaid, seized, leftover, quanta):
    """Whether both sides of the pair would remain, and one of them worth less than `leftover`."""
    debt = floor_to((pair.debt - repaid) * pair.debt_price, quanta.value)
    held = floor_to((pair.held - seized) * pair.held_price, quanta.value)
    remain = repaid < pair.debt and seized < pair.held
    return remain and (debt < leftover or held < leftover)


@njit(cache=True, error_model="numpy")
def attempt(v, closing, standing, pair, wanted, quanta):
    """One attempt to repay up to `wanted` of a pair's debt: (repaid, seized, bonus, status).

    Quantities. What would leave dust is refused where the venue refuses it (DUST); where a
    target health sizes the repayment, dust of the debt is repaid too and dust of the collateral
    taken too, and only a liquidator who wanted less than that is refused. HEALTHY: it may not
    be closed. EMPTY: nothing is held or nothing owed.
    """
    bonus = 0.0
    if standing.asked <= 0.0 or standing.cover >= standing.asked:
        return 0.0, 0.0, bonus, HEALTHY
    if pair.held <= 0.0 or pair.debt <= 0.0:
        return 0.0, 0.0, bonus, EMPTY
    bonus = bonus_at(v, closing, standing.cover / standing.asked, pair.bonus)
    leftover = closing.leftover_usd[v]
    cap = pair_cap(v, closing, standing, pair, bonus, quanta)
    sized = closing.target_health[v] > 0.0
    if sized and cap < pair.debt and (pair.debt - cap) * pair.debt_price < leftover:
        cap = pair.debt
    repaid, seized = trade(min(cap, wanted), pair, bonus, quanta)
    dust = leaves_dust(pair, repaid, seized, leftover, quanta)
    if dust and sized and wanted >= cap:  # no dust of debt remains, so it is the collateral's
        most = repaid_for(pair.held, pair.held_price, pair.debt_price, bonus, quanta.debt)
        if most >= pair.debt:
            repaid, seized = trade(pair.debt, pair, bonus, quanta)
        else:
            repaid, seized = most, pair.held
        dust = wanted < repaid
    if dust:
        return 0.0, 0.0, bonus, DUST
    return repaid, seized, bonus, CLOSED


@njit(cache=True, error_model="numpy")
def closed_pair(v, closing, standing, pair, quanta):
    """What a liquidator repays who takes as much as it may: (repaid, seized, bonus, status).

    Where the most would leave dust, it repays as much less as leaves exactly enough.
    """
    repaid, seized, bonus, status = attempt(v, closing, standing, pair, inf, quanta)
    if status != DUST:
        return repaid, seized, bonus, status
    leftover = closing.leftover_usd[v]
    debt_value = pair.debt * pair.debt_price
    held_value = pair.held * pair.held_price
    room = min(debt_value - leftover, (held_value - leftover) / (1.0 + bonus))
    wanted = floor_to(room / pair.debt_price, quanta.debt)
    if wanted <= 0.0:
        return 0.0, 0.0, bonus, DUST
    wanted = min(wanted, pair_cap(v, closing, standing, pair, bonus, quanta))
    repaid, seized = trade(wanted, pair, bonus, quanta)
    return repaid, seized, bonus, CLOSED


@njit(cache=True, error_model="numpy")
def close_pair(
    v, closing, cover, asked, all_debt, coll_value, debt_value, threshold, bonus, debt_weight
):
    """`closed_pair` in values: (repaid, seized, bonus); all of them 0 where nothing is closed."""
    repaid, seized, used, status = closed_pair(
        v,
        closing,
        Standing(cover, asked, all_debt),
        Pair(coll_value, 1.0, threshold, bonus, debt_value, 1.0, debt_weight),
        Quanta(0.0, 0.0, 0.0),
    )
    if status != CLOSED:
        return 0.0, 0.0, 0.0
    return repaid, seized, used


@njit(cache=True, error_model="numpy")
def protocol_cut(seized, bonus, fee, quantum):
    """Part of what was seized that goes to the protocol: `fee` of the bonus, rounded up."""
    bare = floor_to(seized / (1.0 + bonus), quantum)
    return ceil_to(fee * (seized - bare), quantum)


@njit(cache=True, error_model="numpy")
def close_whole(v, closing, held, debt, bonus):
    """Close all of an account: (seized, repaid, penalty, bad, credit), all of them values.

    `repaid` of the debt and `penalty` to the protocol are paid for with `seized`, in which the
    bonus is; `bad` is debt that nothing paid, `credit` what the owner is left with as money.
    seized = repaid + penalty + credit + what whoever takes it gains.
    """
    if closing.returns_surplus[v]:
        counted = held * (1.0 - bonus)
        return held, min(debt, held), 0.0, max(debt - held, 0.0), max(counted - debt, 0.0)
    if closing.seize_all[v]:
        surplus = max(held - debt * (1.0 + bonus), 0.0)
        return held, min(debt, held), 0.0, max(debt - held, 0.0), surplus
    owed = debt * (1.0 + closing.penalty[v])
    if held >= owed * (1.0 + bonus):
        return owed * (1.0 + bonus), debt, owed - debt, 0.0, 0.0
    paid = held / (1.0 + bonus)
    repaid = min(debt, paid)
    return held, repaid, paid - repaid, debt - repaid, 0.0


@njit(cache=True, error_model="numpy")
def band_range(debt, held, amplification, count, loan_discount):
    """Prices at which the ladder starts to sell and has sold all: (top, bottom).

    `debt` is a value, `held` a quantity. top = debt / (held * (1 - loan_discount)) *
    (A / (A - 1)) ** (N / 2), bottom = top * ((A - 1) / A) ** N.

    References
    ----------
    Egorov (2022), "Curve stablecoin design".
    """
    step = amplification / (amplification - 1.0)
    middle = debt / (held * (1.0 - loan_discount))
    top = middle * step ** (0.5 * count)
    return top, top / step**count


@njit(cache=True, error_model="numpy")
def band_share(price, top, bottom):
    """Share of the collateral that the ladder has turned into money at a price, 0 to 1."""
    if price >= top:
        return 0.0
    if price <= bottom:
        return 1.0
    return log(top / price) / log(top / bottom)


@njit(cache=True, error_model="numpy")
def needed(shortage, freed):
    """Units that free a shortage, each freeing `freed` of it; inf where none do."""
    if shortage <= 0.0:
        return 0.0
    if freed <= 0.0:
        return inf
    return shortage / freed


@njit(cache=True, error_model="numpy")
def slice_share(v, closing, equity, asked, notional):
    """Share of every derivative of a margin group that is closed now, 0 to 1."""
    if equity >= asked:
        return 0.0
    if equity <= 0.0 or equity < closing.backstop_below[v] * asked:
        return 1.0
    if closing.to_health[v] > 0.0:
        wanted = closing.to_health[v] * asked
        return min(1.0, needed(wanted - equity, wanted - closing.fee[v] * notional))
    if notional <= closing.slice_above_usd[v]:
        return 1.0
    return closing.slice[v]


@njit(cache=True, error_model="numpy")
def takes_over(v, closing, equity, asked):
    """Whether the venue's backstop fund takes the account instead of the market."""
    return equity < closing.backstop_below[v] * asked


@njit(cache=True, error_model="numpy")
def closing_fee(v, closing, notional, equity):
    """What a closed notional pays to the venue's fund, as far as the equity reaches."""
    return min(closing.fee[v] * notional, max(equity, 0.0))


@njit(cache=True, error_model="numpy")
def adl_score(profit, entry_notional, notional, equity):
    """Rank among winners: profit over entry notional, times leverage; the highest pays first.

    0 without profit; inf where a winner has profit but no equity.
    """
    if profit <= 0.0 or entry_notional <= 0.0:
        return 0.0
    if equity <= 0.0:
        return inf
    return profit / entry_notional * (notional / equity)


@njit(cache=True, error_model="numpy")
def liability_to_cover(shortage, price, liability_weight, asset_weight, multiplier, fee):
    """Quantity of a borrowed token whose transfer, against collateral, ends a margin shortage.

    `multiplier` is what the liquidator takes of the asset per value of liability, `fee` goes to
    the insurance fund. inf where no transfer ends it.
    """
    freed = liability_weight - asset_weight * multiplier - fee * liability_weight
    return needed(shortage, price * freed)


@njit(cache=True, error_model="numpy")
def insurance_share(shortage, notional, margin_ratio, fee, most):
    """Fee to the insurance fund that a closing can bear: 0.95 of the room, within 0 to `most`.

    The room is margin_ratio - fee - shortage / notional; the rest is kept for rounding.
    """
    room = margin_ratio - fee - shortage / notional
    return min(max(0.95 * room, 0.0), most)


@njit(cache=True, error_model="numpy")
def loss_per_unit(loss, long, short, quantum):
    """A loss spread over all open size, long and short alike, rounded up."""
    return ceil_to(abs(loss) / (abs(long) + abs(short)), quantum)
