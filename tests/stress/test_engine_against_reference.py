"""The compiled cascade against the slow one, account by account, on every way of closing.

Both are followed through the same shock; what they leave behind must agree to 1e-9 of the book
(prices: relative). Accounts that come within 1e-12 of their threshold may fall on either side of
it; they are left out of the comparison by account, and must be few.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from stress.running import Compared, compare, shocked
from undertow.rules.snapshot import Snapshot
from undertow.stress.options import Deleveraging, Impact, Options
from undertow.stress.stressed import ORACLE_MODES, Stressed
from undertow.worlds import World, bench_book, demo_world, tiny_world

MINUTE = 60_000_000
CROSS_ONLY = ("deribit", "drift-v2", "generic-portfolio")  # no account of theirs is isolated
FROZEN, MIS_SET, LAGGED, RATE = (
    ORACLE_MODES.index(mode) for mode in ("frozen", "mis_set", "lagged", "exchange_rate")
)


@cache
def world_of(name: str) -> World:
    """A world, built once."""
    if name == "tiny":
        return tiny_world()
    return demo_world() if name == "demo" else bench_book(int(name), accounts=700)


@cache
def snapshot_of(name: str) -> Snapshot:
    """The snapshot of a world, built once."""
    return world_of(name).snapshot()


@cache
def with_profile(name: str, venue: str, profile: str) -> Snapshot:
    """A world in which one venue closes by the rules of another."""
    world = world_of(name)
    here = pl.col("venue") == venue

    def set_where(which: pl.Expr, table: str, column: str, value: str) -> pl.DataFrame:
        set_ = pl.when(which).then(pl.lit(value)).otherwise(pl.col(column).cast(pl.String))
        frame = world.present[table]
        return frame.with_columns(set_.cast(frame[column].dtype).alias(column))

    changed = {"venues": set_where(here, "venues", "profile", profile)}
    if profile in CROSS_ONLY:
        isolated = here & (pl.col("mode").cast(pl.String) == "isolated")
        changed["accounts"] = set_where(isolated, "accounts", "mode", "cross")
    return Snapshot.from_tables({**world.present, **changed}, world.ts)


def agreed(stressed: Stressed, options: Options) -> Compared:
    """Hold the two against each other."""
    found = compare(stressed, options)
    far = {name: gap for name, gap in found.differences.items() if not gap <= 1e-9}
    assert not far
    assert found.edge.mean() <= 0.02
    run, slow = found.run, found.reference
    assert (run.rounds, run.settled) == (slow.rounds, slow.settled)
    assert run.acted.tolist() == slow.acted
    emptied = [np.array(status) == "emptied" for status in (run.status, slow.status)]
    assert (emptied[0] == emptied[1])[~found.edge].all()
    return found


# ---- what may be done to a scenario


def with_oracles(stressed: Stressed) -> Stressed:
    """Every seventh oracle frozen, wrong, blind to the peg, or late; half of them mend."""
    k = np.arange(len(stressed.universe.instruments))
    for at, mode in ((0, FROZEN), (1, MIS_SET), (2, RATE), (3, LAGGED)):
        stressed = stressed.put("oracle_mode", k % 7 == at, mode)
    stressed = stressed.put("oracle_rounds", k % 14 == 0, 3).put("oracle_rounds", k % 14 == 1, 2)
    stressed = stressed.put("oracle_factor", k % 7 == 1, 0.9)
    return stressed.put("oracle_lag_us", k % 7 == 3, 3 * MINUTE)


def late_options(stressed: Stressed) -> Stressed:
    """Marks of options come late, those of all else at once."""
    options = stressed.universe.strike > 0.0
    return stressed.put("oracle_lag_us", options, 2 * MINUTE)


def all_late(stressed: Stressed) -> Stressed:
    """Every oracle two rounds later than it is."""
    return stressed.put("oracle_lag_us", slice(None), 2 * MINUTE)


def few_hands(stressed: Stressed) -> Stressed:
    """A tenth of the liquidators."""
    return stressed.put("capacity_mult", slice(None), 0.1)


def no_hands(stressed: Stressed) -> Stressed:
    """No liquidator at all, where they are counted."""
    limited = np.isfinite(stressed.snapshot.funds.liquidator_capacity)
    return stressed.put("capacity_mult", limited, 0.0)


def no_funds(stressed: Stressed) -> Stressed:
    """A tenth of every fund."""
    return stressed.put("fund_mult", slice(None), 0.1)


def half_closed(stressed: Stressed) -> Stressed:
    """Every second venue down for three rounds."""
    return stressed.put("closed_until_us", slice(0, None, 2), 3 * MINUTE)


def torn(stressed: Stressed) -> Stressed:
    """Thin markets, wild options, bases and holes in claims."""
    stressed = stressed.put("depth_mult", slice(0, None, 3), 0.3).put("vol_mult", slice(None), 1.5)
    stressed = stressed.put("basis", slice(0, None, 5), -0.03)
    return stressed.put("receipt", slice(1, None, 4), 0.95)


def dear(stressed: Stressed) -> Stressed:
    """A day of interest and funding at 5 bp an hour; a third of every reserve wants out."""
    stressed = stressed.put("rate_shock", slice(None), 5e-4).put("rate_hours", slice(None), 24.0)
    return stressed.put("withdrawn", slice(None), 0.3)


def as_it_is(stressed: Stressed) -> Stressed:
    """The shock alone."""
    return stressed


SETTINGS = {
    "plain": (as_it_is, Options()),
    **{f"impact {m.value}": (as_it_is, Options(impact=m)) for m in Impact},
    "all oracles read the market": (as_it_is, Options(oracles=False)),
    "broken oracles": (with_oracles, Options()),
    "late options": (late_options, Options()),
    "late oracles": (all_late, Options()),
    "few liquidators": (few_hands, Options(capacity=True, max_rounds=100)),
    "no liquidators": (no_hands, Options(capacity=True, max_rounds=20)),
    "no closing at a loss": (as_it_is, Options(profitable=True)),
    "recovery": (as_it_is, Options(recovery=0.3, max_rounds=200)),
    "withdrawal": (as_it_is, Options(withdrawal=1.5)),
    "empty funds": (no_funds, Options()),
    "losses pro rata": (no_funds, Options(deleveraging=Deleveraging.PRO_RATA)),
    "losses to the venue": (no_funds, Options(deleveraging=Deleveraging.NONE)),
    "outages": (half_closed, Options()),
    "torn markets": (torn, Options(coupling=0.9)),
    "rates": (dear, Options()),
    "contracts alone": (as_it_is, Options(coupling=0.0, floor=0.3)),
    "quick rounds": (as_it_is, Options(round_us=10_000_000, max_rounds=300)),
    "everything": (
        lambda s: with_oracles(few_hands(no_funds(torn(s)))),
        Options(capacity=True, profitable=True, recovery=0.2, withdrawal=1.0, max_rounds=60),
    ),
}
PROFILES = [  # (world, venue, profile of the rules it is given)
    ("demo", "aave-v3", "sky"),
    ("demo", "morpho-blue", "crvusd"),
    ("demo", "liquity-v1", "crvusd"),
    ("demo", "aave-v3", "compound-v3"),
    ("demo", "aave-v3", "liquity-v1"),
    ("demo", "aave-v3", "aave-v4"),
    ("demo", "aave-v3", "generic-lending"),
    ("demo", "binance-usdm", "hyperliquid"),
    ("demo", "binance-usdm", "dydx-v4"),
    ("demo", "hyperliquid", "deribit"),
    ("demo", "hyperliquid", "drift-v2"),
    ("demo", "okx", "gate"),
    ("demo", "deribit", "deribit"),
]


@pytest.mark.parametrize("factor", [0.4, 0.6, 0.75, 1.5, 2.5])
def test_a_hand_made_book_ends_the_same(factor: float) -> None:
    for _, options in SETTINGS.values():
        agreed(shocked(snapshot_of("tiny"), factor), options)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_ends_the_same_after_a_fall(setting: str) -> None:
    change, options = SETTINGS[setting]
    found = agreed(change(shocked(snapshot_of("2"), 0.8)), options)
    assert setting in ("no liquidators",) or found.run.acted.sum() > 50


@pytest.mark.parametrize("setting", ["plain", "broken oracles", "empty funds", "recovery"])
def test_every_setting_ends_the_same_after_a_rise(setting: str) -> None:
    change, options = SETTINGS[setting]
    assert agreed(change(shocked(snapshot_of("2"), 1.4)), options).run.acted.sum() > 10


@pytest.mark.parametrize(("world", "venue", "profile"), PROFILES)
def test_every_way_of_closing_ends_the_same(world: str, venue: str, profile: str) -> None:
    stressed = shocked(with_profile(world, venue, profile), 0.8)
    options = Options(max_rounds=45) if profile == "sky" else Options()
    at = stressed.universe.code("venue", venue)
    found = agreed(stressed, options)
    touched = {a for a, s in enumerate(found.run.status) if s != "untouched"}
    assert touched & set(np.flatnonzero(stressed.snapshot.book.venue == at).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.97, 0.9, 0.7, 0.5, 1.1, 2.0])
@pytest.mark.parametrize("setting", SETTINGS)
def test_large_worlds_end_the_same(setting: str, factor: float) -> None:
    change, options = SETTINGS[setting]
    for name in ("demo", "5"):
        agreed(change(shocked(snapshot_of(name), factor)), options)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["plain", "few liquidators", "no closing at a loss", "rates"])
@pytest.mark.parametrize(("world", "venue", "profile"), PROFILES)
def test_every_way_of_closing_bears_every_setting(
    world: str, venue: str, profile: str, setting: str
) -> None:
    change, options = SETTINGS[setting]
    for factor in (0.9, 0.6, 1.3):
        stressed = shocked(with_profile(world, venue, profile), factor)
        agreed(change(stressed), replace(options, max_rounds=50))
