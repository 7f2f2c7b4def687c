"""What owners of real accounts did: how often they topped up, repaid and sold, and who could tell.

`python -m pytest tests/truth/test_behaviour.py -m "slow or not slow" -rP` prints the tables of
`docs/methods/owner-behaviour.md` and the text of `src/undertow/stress/owners.toml`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import special

from recorded import Lender, PerpVenue, recorded
from undertow.econometrics.hazards import HazardFit
from undertow.econometrics.survival import aalen_johansen
from undertow.stress.owners import COLUMNS, load_owner_rates, read_owner_rates
from undertow.validate.acts import act_skill, fit_acts, hazards_by, rates_as_toml
from undertow.validate.behaviour import (
    block_times,
    lender_periods,
    loan_periods,
    trader_periods,
    trailing_vol,
)
from undertow.validate.traders import rebuild_traders

Say = Callable[..., None]
RESTORES = ("top_up", "repay", "delever")
LENDER_ACTS = (*RESTORES, "raise", "forced")
TRADER_ACTS = ("top_up", "delever", "raise", "forced")
FATES = {"repaid": "repaid", "self-liquidation": "self", "forced-liquidation": "forced"}
LOAN_COLUMNS = ("rise", "log_vol", "log_age")
COLLATERAL = {"weth": "ETH", "sfrxeth": "ETH", "wbtc": "BTC"}
HIGHEST_LEVERAGE = 50.0  # the venue's, of every coin, in 2023
FORGOTTEN = 0.8  # health below which what is held is worth less than what is owed
SOURCES = {
    "lending": "block-level histories of eight Aave v2 accounts (github.com/bhemen/aave-data)",
    "perp": "accounts of Hyperliquid's alpha (github.com/hyperliquid-dex/historical_data)",
}


@pytest.fixture(scope="module")
def vols() -> pl.DataFrame:
    spot = recorded("coinbase_spot_daily/spot_1d")
    wanted = pl.col("symbol").is_in(["ETH", "BTC"])
    return trailing_vol(spot.filter(wanted), days=30.0, bar_days=1.0)


@pytest.fixture(scope="module")
def lenders(lender: Lender, vols: pl.DataFrame) -> pl.DataFrame:
    market = vols.filter(pl.col("symbol") == "ETH")
    return lender_periods(lender.states, lender.positions, lender.closings, market)


@pytest.fixture(scope="module")
def traders(perps: PerpVenue) -> pl.DataFrame:
    spells, holdings = rebuild_traders(
        perps.trades, perps.ledger, perps.closings, max_leverage=HIGHEST_LEVERAGE
    )
    vols = trailing_vol(perps.bars, days=7.0, bar_days=1.0 / 6.0)
    return trader_periods(
        spells, holdings, perps.ledger, perps.closings, perps.bars, vols,
        maintenance=0.5 / HIGHEST_LEVERAGE, bar_days=1.0 / 6.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def loans() -> pl.DataFrame:
    found = recorded("crvusd_loan_fates/loans")
    return found.with_columns(
        start=block_times(found["start_block"]), end=block_times(found["end_block"])
    )


@pytest.fixture(scope="module")
def days(loans: pl.DataFrame, vols: pl.DataFrame) -> pl.DataFrame:
    mint = loans.with_columns(
        symbol=pl.col("market").replace_strict(COLLATERAL, default=None)
    ).drop_nulls("symbol")
    return loan_periods(mint, vols, until=loans["start"].max(), fates=FATES)


def solvent(lenders: pl.DataFrame) -> pl.DataFrame:
    return lenders.filter(pl.col("health") >= FORGOTTEN)


def show(title: str, table: pl.DataFrame) -> None:
    shown = pl.Config(tbl_rows=60, tbl_cols=20, tbl_width_chars=160, float_precision=4)
    with shown:
        sys.stdout.write(f"\n{title}\n{table}\n")


def slopes(fit: HazardFit, columns: Sequence[str], acts: Sequence[str]) -> pl.DataFrame:
    """Hazard ratios of one deviation of each column, with 90 % bands."""
    reach = special.stdtrit(max(fit.clusters - 1, 1), 0.95) * fit.error
    rows: list[dict[str, Any]] = []
    for n, act in enumerate(acts):
        for j, column in enumerate(columns, 1):
            middle = fit.coefficients[n, j]
            rows.append(
                {
                    "act": act, "events": int(fit.events[n]), "column": column,
                    "deviation": float(fit.spread[j - 1]), "ratio": float(np.exp(middle)),
                    "low": float(np.exp(middle - reach[n, j])),
                    "high": float(np.exp(middle + reach[n, j])),
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def skills(rows: pl.DataFrame, columns: Sequence[str], acts: Sequence[Any]) -> pl.DataFrame:
    found = [(act, act_skill(rows, columns, act)) for act in acts]
    return pl.DataFrame(
        [
            {
                "act": act if isinstance(act, str) else " or ".join(act), "foretold": s.rows,
                "events": s.events, "brier_skill": s.brier_skill, "gain": s.gain, "low": s.low,
                "high": s.high,
            }
            for act, s in found
        ]
    )  # fmt: skip


def test_fates_of_loans_are_counted_as_published(loans: pl.DataFrame, days: pl.DataFrame) -> None:
    """Each loan is one row with one status; nothing is inferred."""
    counts = dict(loans["status"].value_counts().iter_rows())
    assert counts["self-liquidation"] == 245
    assert counts["forced-liquidation"] == 150
    assert loans.filter(pl.col("end_block").is_null())["status"].unique().to_list() == ["active"]
    mint = loans.filter(pl.col("market").is_in(list(COLLATERAL)))
    kept = dict(days["act"].drop_nulls().value_counts().iter_rows())
    for status, act in FATES.items():
        assert kept[act] == mint.filter(pl.col("status") == status).height


def test_blocks_fall_on_the_days_on_which_they_were_made(loans: pl.DataFrame) -> None:
    """The upgrade of April 2023 and the last loan of a file of June 2024 are known apart."""
    known = pl.Series([17_034_870])  # 2023-04-12 22:27:35
    at = block_times(known)[0]
    assert abs((at - pl.Series(["2023-04-12T22:27:35Z"]).str.to_datetime()[0]).total_seconds()) < (
        86_400.0
    )
    assert loans["start"].max().date().isoformat() == "2024-06-05"


def test_what_borrowers_did_by_health_volatility_and_size(lenders: pl.DataFrame) -> None:
    counts = dict(lenders["act"].drop_nulls().value_counts().iter_rows())
    show("borrowers of Aave v2, daily rates by health", hazards_by(
        lenders, "health", [1.0, 1.1, 1.25, 1.5], LENDER_ACTS))  # fmt: skip
    sound = solvent(lenders)
    middle = [sound[name].median() for name in ("vol", "size")]
    show("by volatility", hazards_by(sound, "vol", [middle[0]], RESTORES))
    show("by size, USD owed", hazards_by(sound, "size", [middle[1]], RESTORES))
    fit = fit_acts(sound, COLUMNS, [RESTORES])
    show("ratios per deviation, health of 0.8 or more", slopes(fit, COLUMNS, ["restores"]))
    show("skill on later acts", skills(sound, COLUMNS, [RESTORES]))
    assert lenders.height == 960
    assert lenders["owner"].n_unique() == 8
    assert counts == {"raise": 71, "forced": 61, "top_up": 15, "delever": 13, "repay": 3}
    low, high = fit.band([[0.0, np.log(0.9), 4.0]])
    assert high[0, 0] > 3.0 * low[0, 0]  # few events of few owners: the band is wide


def test_neither_health_nor_size_foretells_what_borrowers_do(lenders: pl.DataFrame) -> None:
    """A negative result, held fast: on later acts a constant rate does no worse."""
    assert act_skill(solvent(lenders), COLUMNS, RESTORES).gain < 0.0


def test_what_traders_did_by_health_volatility_and_size(traders: pl.DataFrame) -> None:
    show("traders of Hyperliquid's alpha, daily rates by health (equity over maintenance)",
         hazards_by(traders, "health", [2.0, 5.0, 10.0, 30.0], TRADER_ACTS))  # fmt: skip
    middle = [traders[name].median() for name in ("vol", "size")]
    show("by volatility", hazards_by(traders, "vol", [middle[0]], TRADER_ACTS[:2]))
    show("by size, USD of notional", hazards_by(traders, "size", [middle[1]], TRADER_ACTS[:2]))
    fit = fit_acts(traders, COLUMNS, TRADER_ACTS[:2])
    show("ratios per deviation", slopes(fit, COLUMNS, TRADER_ACTS[:2]))
    show("skill on later acts", skills(traders, COLUMNS, [*TRADER_ACTS[:2], RESTORES]))
    assert fit.events.tolist()[:2] == [21, 168]
    assert fit.clusters == 95
    near = hazards_by(traders, "health", [5.0, 30.0], ["top_up"])
    rates = near["rate"].to_list()
    assert rates[0] > 4.0 * rates[1]  # who stands near the limit brings money in more often
    assert near["low"][0] > near["high"][1]


@pytest.fixture(scope="module")
def ends(days: pl.DataFrame) -> HazardFit:
    return fit_acts(days, LOAN_COLUMNS, list(FATES.values()))


def test_owners_close_loans_themselves_in_falls_and_repay_in_rises(ends: HazardFit) -> None:
    assert ends.events.tolist() == [1_544, 242, 142]
    ratio = np.exp(ends.coefficients[:, 1])
    assert ratio[1] < 1.0 < ratio[0]


@pytest.mark.slow
def test_how_loans_end_by_price_volatility_and_age(days: pl.DataFrame, ends: HazardFit) -> None:
    acts = list(FATES.values())
    show("crvUSD loans, daily rates by log price since the opening", hazards_by(
        days, "rise", [-0.2, -0.1, 0.0, 0.1], acts))  # fmt: skip
    show("ratios per deviation", slopes(ends, LOAN_COLUMNS, acts))
    weeks = days.with_columns(week=pl.col("ts").dt.truncate("1w"))
    by_week = fit_acts(weeks, LOAN_COLUMNS, acts, cluster="week")
    wider = by_week.error[:, 0] / ends.error[:, 0]
    show("error of the rate, by week over by owner", pl.DataFrame({"act": acts, "times": wider}))
    found = skills(days, LOAN_COLUMNS, acts)
    show("skill on later acts", found)
    assert (wider > 2.0).all()  # ends come in crowds: owners are no news of each other
    gain = dict(found.select("act", "gain").iter_rows())
    assert gain["repaid"] > 0.2
    assert gain["self"] < 0.0  # negative results, held fast
    assert gain["forced"] < 0.0


def test_incidence_of_loan_fates_without_a_law(loans: pl.DataFrame, days: pl.DataFrame) -> None:
    lives = days.group_by("loan").agg(
        days=pl.col("span").sum(), act=pl.col("act").drop_nulls().first(), owner=pl.first("owner")
    )
    code = {act: n for n, act in enumerate(FATES.values(), 1)}
    cause = lives["act"].replace_strict(code, default=0).to_numpy()
    steps = aalen_johansen(lives["days"].to_numpy(), cause)
    low, high = steps.band()
    rows = []
    for day in (7.0, 30.0, 90.0, 180.0):
        at = int(np.searchsorted(steps.times, day, side="right")) - 1
        for n, act in enumerate(FATES.values()):
            rows.append({"days": day, "fate": act, "share": steps.value[at, n],
                         "low": low[at, n], "high": high[at, n]})  # fmt: skip
    show("share of crvUSD loans ended by then", pl.DataFrame(rows))
    constant = fit_acts(days, [], list(FATES.values())).incidence(np.empty((90, 0)))
    found = steps.at(90.0)
    # self and forced ends come at nearly constant rates; repayments come early
    assert constant.value[-1, 1:] == pytest.approx(found[1:], rel=0.35)
    assert found[0] > constant.value[-1, 0]


def test_the_packaged_rates_are_those_of_the_records(
    lenders: pl.DataFrame, traders: pl.DataFrame
) -> None:
    text = "\n".join(
        rates_as_toml(rows, acts, kind=kind, source=SOURCES[kind])
        for rows, acts, kind in (
            (solvent(lenders), RESTORES, "lending"),
            (traders, ("top_up", "delever"), "perp"),
        )
    )
    sys.stdout.write(f"\n{text}\n")
    fresh, kept = read_owner_rates(text), load_owner_rates()
    for kind, rates in fresh.items():
        other = kept[kind]
        for name in ("source", "acts", "since", "until", "events", "owners", "columns", "level"):
            assert getattr(rates, name) == getattr(other, name), name
        for name in ("days", "gain", "lowest", "highest", "middle", "spread", "coefficients"):
            assert getattr(rates, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-4)
        assert rates.covariance == pytest.approx(other.covariance, rel=1e-2, abs=1e-4)
