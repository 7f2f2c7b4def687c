"""How a perp venue judges an account: equity against maintenance, and the price between them.

Sizes are signed, long positive. Amounts are USD, or the quote currency; of coin-margined
positions sizes are faces in USD and the wallet is in coin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undertow.errors import RuleError
from undertow.kernels.margin import CASH, INVERSE, LINEAR
from undertow.rules.brackets import Bracket, Brackets
from undertow.rules.single import Basis, SingleAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One perp or future, with the terms that hold for it."""

    size: float  # signed; face in USD where inverse
    entry: float
    mark: float
    brackets: Brackets  # in USD, or in coin where inverse
    closing_fee: float = 0.0  # share of notional that the venue keeps apart for the exit
    basis: Basis = Basis.TESTED
    inverse: bool = False
    initial_rate: float = 0.0  # share of notional asked to open

    @classmethod
    def from_value(
        cls,
        size: float,
        value: float,
        brackets: Brackets,
        *,
        basis: Basis = Basis.TESTED,
        entry: float | None = None,
    ) -> Position:
        """A position from its size and its unsigned value at the mark, as some venues report it."""
        if size == 0.0:
            raise RuleError("a position of size 0 has no price; leave it out")
        mark = value / abs(size)
        return cls(
            size=size, entry=mark if entry is None else entry, mark=mark, brackets=brackets,
            basis=basis,
        )  # fmt: skip

    @property
    def notional(self) -> float:
        """Unsigned size at the mark, in what the brackets count: USD, or coin where inverse."""
        return abs(self.size) / self.mark if self.inverse else abs(self.size) * self.mark

    @property
    def bracket(self) -> Bracket:
        """The tier that holds the position at its mark."""
        return self.brackets.at(self.notional)


@dataclass(frozen=True, slots=True)
class PerpAccount:
    """One margin group at a perp venue, in USD."""

    wallet: float
    equity: float  # wallet and unrealised profit
    maintenance: float
    initial: float
    notional: float

    @property
    def health(self) -> float | None:
        """Equity over maintenance; None where nothing is asked."""
        return self.equity / self.maintenance if self.maintenance > 0.0 else None

    @property
    def leverage(self) -> float | None:
        """Gross notional over equity; None where nothing is left of it."""
        return self.notional / self.equity if self.equity > 0.0 else None

    @property
    def free(self) -> float:
        """Equity above initial margin; negative: nothing can be opened or withdrawn."""
        return self.equity - self.initial

    @property
    def liquidatable(self) -> bool:
        """Whether equity is under maintenance."""
        return self.equity < self.maintenance


def maintenance_rate(max_leverage: float, *, of_initial: float | None = None) -> float:
    """Maintenance as a share of the margin that the highest leverage leaves: of_initial / max.

    None, as where a profile has no such share, is all of it.
    """
    share = 1.0 if of_initial is None else of_initial
    if max_leverage <= 0.0 or not 0.0 < share <= 1.0:
        raise RuleError(
            f"max_leverage was {max_leverage} and of_initial {share}; the one must be above 0, and "
            "the other above 0 and at most 1"
        )
    return share / max_leverage


def account(
    positions: Sequence[Position],
    *,
    wallet: float | None = None,
    raw_usd: float | None = None,
) -> PerpAccount:
    """Judge one margin group.

    `wallet` is the balance without unrealised profit; a venue that books each trade in full
    against its quote balance reports `raw_usd` instead, equity less the signed value of all
    positions. Give one of them. Coin-margined positions share one coin, and the wallet is in it.
    """
    if (wallet is None) == (raw_usd is None):
        raise RuleError("pass either wallet or raw_usd")
    coin = _is_coin_margined(positions)
    if wallet is None:
        if coin:
            raise RuleError("a coin-margined account has no raw_usd; pass its wallet in coin")
        assert raw_usd is not None  # narrowed by the first check
        wallet = raw_usd + sum(p.size * p.entry for p in positions)
    price = positions[0].mark if coin else 1.0
    book = _book(positions, wallet, price)
    totals = book.totals()
    return PerpAccount(
        wallet=wallet * price,
        equity=totals.equity,
        maintenance=totals.asked - max(-wallet * price, 0.0),  # a borrowed wallet is asked for too
        initial=sum(p.initial_rate * (abs(p.size) if p.inverse else p.notional) for p in positions),
        notional=totals.notional,
    )


def liquidation_price(
    position: Position,
    *,
    wallet: float | None = None,
    raw_usd: float | None = None,
    equity: float | None = None,
    maintenance: float | None = None,
) -> float | None:
    """Mark of one contract at which the account is closed, all other prices held.

    Isolated: pass `wallet` (or `raw_usd`), the margin of this position alone. Cross: pass
    `equity` and `maintenance` of the whole account at the mark, this position included. Solves

        equity + size * (p - mark) = maintenance - m(mark) + m(p)

    exactly, with the tier that holds at p and not the one that holds at entry. None where the
    price would not be positive: that contract alone cannot close the account. A coin-margined
    position moves its own wallet, so it is solved isolated only.

    References
    ----------
    Binance, "How to calculate liquidation price of USD-M futures contracts"; Hyperliquid docs,
    "Liquidations".
    """
    if position.inverse:
        if wallet is None or equity is not None or maintenance is not None:
            raise RuleError("a coin-margined position is judged isolated: pass its wallet in coin")
        return _coin_liquidation_price(position, wallet)
    if equity is None:
        if maintenance is not None:
            raise RuleError("maintenance of the whole account needs its equity beside it")
        alone = account([position], wallet=wallet, raw_usd=raw_usd)
        equity, maintenance = alone.equity, alone.maintenance
    elif wallet is not None or raw_usd is not None:
        raise RuleError("pass equity of the whole account, or the margin of this position")
    book = _book([position], 0.0, 1.0)
    if maintenance is None:
        maintenance = book.totals().asked
    return book.liquidation_price(0, equity, maintenance)


def funding_payment(size: float, rate: float, oracle: float, samples: float = 1.0) -> float:
    """What an account receives in funding; negative: it pays. Longs pay when the rate is positive.

    -size * rate * oracle * samples, size and rate being averages over the samples.
    """
    return -size * rate * oracle * samples


def funding_rate(
    premium: float, interest: float, *, band: float = 0.0005, cap: float | None = None
) -> float:
    """Funding rate of one interval: premium + clamp(interest - premium, band), capped.

    The rate sticks to the interest until the premium leaves the band around it.
    """
    rate = premium + max(-band, min(band, interest - premium))
    return rate if cap is None else max(-cap, min(cap, rate))


def _is_coin_margined(positions: Sequence[Position]) -> bool:
    kinds = {p.inverse for p in positions}
    if kinds == {True, False} or (True in kinds and len({p.mark for p in positions}) > 1):
        raise RuleError("one margin group is all USD-margined, or all in one coin at one mark")
    return True in kinds


def _book(positions: Sequence[Position], wallet: float, price: float) -> SingleAccount:
    """Positions first, the wallet as the last leg."""
    return SingleAccount.from_columns(
        [p.size for p in positions] + [wallet],
        [p.mark for p in positions] + [price],
        [INVERSE if p.inverse else LINEAR for p in positions] + [CASH],
        entry=[p.entry for p in positions] + [0.0],
        brackets=[p.brackets for p in positions] + [None],
        closing_fee=[p.closing_fee for p in positions] + [0.0],
        basis=[p.basis.code for p in positions] + [Basis.TESTED.code],
    )


def _coin_liquidation_price(position: Position, wallet: float) -> float | None:
    """Fold the wallet into the entry: in USD both are coin times price.

    wallet * p + size * (p / entry - 1) is size * (p / e - 1) with size / e = size / entry + wallet.
    A maintenance that is fixed in coin at entry is so much less wallet.
    """
    weight = 1.0
    if position.basis is Basis.ENTRY:
        held = abs(position.size) / position.entry
        wallet -= position.brackets.value(held) + position.closing_fee * held
        weight = 0.0
    coin = position.size / position.entry + wallet
    if coin == 0.0:  # a short against its own coin: worth the same in USD at any price
        return None
    book = SingleAccount.from_columns(
        [position.size],
        [position.mark],
        [INVERSE],
        weight=weight,
        entry=[position.size / coin],
        brackets=[position.brackets],
        closing_fee=[position.closing_fee],
        basis=[position.basis.code],
    )
    return book.liquidation_price(0)
