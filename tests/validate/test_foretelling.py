"""Whether a number warns is told from whether it seems to; planted skill, and planted none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from undertow.econometrics.auc import area_under_curve
from undertow.errors import EstimationError
from undertow.validate.alarms import trailing_rank, walk_forward_alarms
from undertow.validate.episodes import DAY_US, episodes, outcomes
from undertow.validate.foretelling import Verdict, foretold
from undertow.validate.increments import Addition, beyond
from validate.foretold_worlds import HORIZON_US, clustered_record, remembering

DAYS = np.arange(1, 401) * DAY_US


def marked(*days: int, rows: int = 400) -> np.ndarray:
    hot = np.zeros(rows, dtype=bool)
    hot[[day - 1 for day in days]] = True
    return hot


# ---------------------------------------------------------------- episodes and outcomes


def test_hot_days_less_than_the_gap_apart_are_one_episode() -> None:
    found = episodes(DAYS, marked(10, 11, 13, 16, 40), gap_us=3 * DAY_US)
    assert (found.start // DAY_US).tolist() == [10, 16, 40]
    assert (found.end // DAY_US).tolist() == [13, 16, 40]
    assert len(episodes(DAYS, marked())) == 0


def test_each_row_is_before_an_episode_or_quiet_or_not_judged() -> None:
    found = episodes(DAYS, marked(100, 101, 120))
    rows = outcomes(DAYS, found, horizon_us=7 * DAY_US)
    before = [rows.ahead.tolist().index(0) + 1, 400 - rows.ahead[::-1].tolist().index(1)]
    assert before == [93, 119]  # the day of the start itself is no warning
    assert (rows.ahead == 0).sum() == (rows.ahead == 1).sum() == 7
    neither = np.flatnonzero(~rows.warning & ~rows.quiet) + 1
    during = [100, 101, 102, 103, 104, 120, 121, 122, 123]  # none can begin within the gap
    assert neither.tolist() == during + list(range(394, 401))  # horizons past the record's end


def test_no_row_is_judged_whose_horizon_nobody_watched() -> None:
    there = np.r_[0:200, 230:400]
    found = episodes(DAYS[there], marked(235)[there])
    rows = outcomes(DAYS, found, horizon_us=7 * DAY_US)
    judged = np.flatnonzero(rows.warning | rows.quiet) + 1
    assert not ((judged > 193) & (judged < 230)).any()
    assert judged[judged > 193][0] == 230  # the watch begins a day before its first day ends
    assert found.watched_from.tolist() == [0, 230 * DAY_US]


def test_what_comes_later_changes_no_start_of_the_past() -> None:
    hot = np.random.default_rng(1).random(400) < 0.1
    whole = episodes(DAYS, hot)
    for cut in (50, 200, 399):
        part = episodes(DAYS[:cut], hot[:cut])
        assert part.start.tolist() == whole.start[: len(part)].tolist()


# ---------------------------------------------------------------- alarms


def test_the_threshold_is_the_quantile_of_the_past() -> None:
    x = np.random.default_rng(2).standard_normal(120)
    x[[3, 70]] = np.nan
    found = walk_forward_alarms(x, budget=0.2, run_in=20)
    for row in (25, 71, 119):
        assert found.threshold[row] == pytest.approx(np.nanquantile(x[:row], 0.8))
    assert np.isnan(found.threshold[:21]).all()
    assert not found.heard[70]


def test_a_trailing_rank_is_that_of_its_own_past() -> None:
    x = np.random.default_rng(13).integers(0, 5, 60).astype(float)
    x[[20, 41]] = np.nan
    found = trailing_rank(x, window=10)
    for row in (10, 35, 59):
        assert (
            found[row]
            == stats.percentileofscore(
                x[row - 10 : row][~np.isnan(x[row - 10 : row])], x[row], kind="mean"
            )
            / 100.0
        )
    assert np.isnan(found[[0, 9, 20, 41]]).all()
    drifting = np.arange(60.0)
    assert (trailing_rank(drifting, window=10)[10:] == 1.0).all()


@pytest.mark.parametrize("cut", [300, 650, 999])
def test_changing_the_future_changes_no_alarm_threshold_or_chance_of_the_past(cut: int) -> None:
    rng = np.random.default_rng(3)
    world = clustered_record(rng, days=1000, hot=60.0)
    x, vol = rng.standard_normal(1000), rng.standard_normal(1000)
    other_x, other_vol = x.copy(), vol.copy()
    other_x[cut:], other_vol[cut:] = 50.0, rng.standard_normal(1000 - cut) - 9.0
    hot = np.isin(world.ts, world.begun.start)
    hot[cut:] = rng.random(1000 - cut) < 0.2  # other episodes too
    begun = episodes(world.ts, hot)
    was, is_ = walk_forward_alarms(x), walk_forward_alarms(other_x)
    assert np.array_equal(was.on[:cut], is_.on[:cut])
    assert np.array_equal(was.threshold[: cut + 1], is_.threshold[: cut + 1], equal_nan=True)
    few = {"rng": rng, "placebos": 19, "reps": 9, "refit": 50}
    first = beyond(world.ts, x, {"vol": vol}, episodes(world.ts, np.isin(world.ts, begun.start)),
                   **few)  # fmt: skip
    hot[cut:] = False
    second = beyond(world.ts, other_x, {"vol": other_vol}, episodes(world.ts, hot), **few)
    assert np.array_equal(first.chance[:cut], second.chance[:cut], equal_nan=True)
    assert np.array_equal(first.naive_chance[:cut], second.naive_chance[:cut], equal_nan=True)
    assert cut == 300 or np.isfinite(first.chance[:cut]).any()


# ---------------------------------------------------------------- skill that was planted


def test_a_planted_area_is_found_and_called_a_warning() -> None:
    rng, truth, covered = np.random.default_rng(4), special.ndtr(1.0 / math.sqrt(2.0)), 0
    for _ in range(12):
        world = clustered_record(rng, days=2000, hot=60.0)
        x = rng.standard_normal(2000) + 1.0 * world.ahead.warning
        found = foretold(world.ts, x, world.begun, rng=rng, reps=99, placebos=99)
        assert found.verdict is Verdict.WARNS
        assert found.record.hit_rate > found.record.hit_by_chance
        assert found.record.hit_p <= 0.05
        covered += found.low <= truth <= found.high
    assert covered >= 8
    assert found.says.startswith("It warns: area 0.7")


def test_a_signal_that_knows_nothing_seldom_warns_though_it_remembers() -> None:
    """Where rows are taken as independent, most persistent signals seem to warn, or to do worse."""
    rng, p_values, fooled = np.random.default_rng(5), [], 0
    for _ in range(40):
        world = clustered_record(rng)
        x = remembering(rng, len(world.ts), 0.98)
        found = foretold(world.ts, x, world.begun, rng=rng, reps=49, placebos=99, run_in=1300)
        p_values.append(found.p_value)
        rows = world.ahead.warning | world.ahead.quiet
        plain = area_under_curve(x[rows], world.ahead.warning[rows])
        fooled += not plain.low <= 0.5 <= plain.high
    assert (np.array(p_values) <= 0.05).sum() <= 6  # 99 % of binomial(40, 0.05)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert fooled >= 20  # where 4 are due


def test_a_planted_lead_time_is_found() -> None:
    rng = np.random.default_rng(6)
    begun = episodes(DAY_US * np.arange(1, 3001), np.arange(1, 3001) % 60 == 0)
    ts = DAY_US * np.arange(1, 3001)
    days_to = begun.start[np.minimum(begun.start.searchsorted(ts, "right"), 49)] - ts
    for lead in (2, 5):
        x = rng.standard_normal(3000) + 4.0 * ((days_to > 0) & (days_to <= lead * DAY_US))
        found = foretold(ts, x, begun, horizon_us=14 * DAY_US, rng=rng, reps=199)
        assert found.record.lead_us == lead * DAY_US
        assert found.record.lead_low <= lead * DAY_US <= found.record.lead_high
        assert found.record.hit_rate > 0.9


def test_few_episodes_cannot_tell_however_well_the_signal_did() -> None:
    begun = episodes(DAYS, marked(*range(40, 400, 20)))
    x = outcomes(DAYS, begun, horizon_us=HORIZON_US).warning.astype(float)
    found = foretold(DAYS, x, begun, rng=np.random.default_rng(7), run_in=50)
    assert found.auc == 1.0
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.says.startswith("Cannot tell, 20 episodes are needed: area 1.00")


def test_missing_days_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(8)
    world = clustered_record(rng)
    x = rng.standard_normal(len(world.ts))
    x[::4] = np.nan
    found = foretold(world.ts, x, world.begun, rng=rng, reps=19, placebos=19)
    judged = (world.ahead.warning | world.ahead.quiet).sum()
    assert found.coverage == pytest.approx(0.75, abs=0.01)
    assert found.warning_rows + found.quiet_rows == pytest.approx(0.75 * judged, rel=0.02)
    rows = (world.ahead.warning | world.ahead.quiet) & ~np.isnan(x)
    plain = area_under_curve(x[rows], world.ahead.warning[rows])
    assert found.auc == pytest.approx(plain.value, abs=1e-12)


def test_judged_rows_before_the_first_signal_and_after_the_last_count_as_without_one() -> None:
    world = clustered_record(np.random.default_rng(14), days=1000)
    x = np.random.default_rng(15).standard_normal(1000)
    x[:850] = np.nan
    x[950:] = np.nan
    judged = world.ahead.warning | world.ahead.quiet
    late = foretold(world.ts, x, world.begun, rng=np.random.default_rng(0), reps=9, run_in=20)
    assert late.coverage == pytest.approx(judged[850:950].sum() / judged.sum())
    assert late.coverage < 0.15
    x[0] = 0.0  # one value more, and the record is a thousand days long
    early = foretold(world.ts, x, world.begun, rng=np.random.default_rng(0), reps=9, run_in=20)
    assert early.coverage == pytest.approx(late.coverage, abs=0.002)


def test_what_leaves_no_room_for_a_small_p_value_cannot_be_told() -> None:
    rng = np.random.default_rng(16)
    few = DAYS[:18]  # 17 placings
    begun = episodes(few, marked(6, 12, 18, rows=18), gap_us=DAY_US)
    soon = outcomes(few, begun, horizon_us=2 * DAY_US).warning.astype(float)
    short = foretold(few, soon, begun, horizon_us=2 * DAY_US, rng=rng, run_in=5, least_episodes=2)
    assert short.auc == 1.0
    assert short.p_value == short.least_p == pytest.approx(1.0 / 18.0)
    assert short.verdict is Verdict.CANNOT_TELL
    assert short.says.startswith("Cannot tell, the record has no room for a p-value below 0.056: a")
    more = beyond(few, soon, {"vol": rng.standard_normal(18)}, begun, horizon_us=2 * DAY_US,
                  rng=rng, refit=1, least_fitted=1, least_episodes=2)  # fmt: skip
    assert more.gain > 0.2
    assert more.verdict is Addition.CANNOT_TELL
    assert more.says.startswith("Cannot tell, the record has no room for a p-value below 0.056: a")


def test_episodes_like_a_clock_cannot_be_told_from_themselves_a_period_later() -> None:
    ts = DAY_US * np.arange(1, 402)
    clock = episodes(ts, np.arange(1, 402) % 13 == 0)
    soon = outcomes(ts, clock, horizon_us=7 * DAY_US).warning.astype(float)
    soon[390:] = np.nan  # thirty periods
    found = foretold(ts, soon, clock, rng=np.random.default_rng(18), run_in=50)
    assert found.auc == 1.0
    assert found.p_value == found.least_p == pytest.approx(30.0 / 390.0)
    assert found.verdict is Verdict.CANNOT_TELL


def test_placings_too_few_for_a_small_p_value_are_refused() -> None:
    begun, rng = episodes(DAYS, marked(50)), np.random.default_rng(17)
    with pytest.raises(EstimationError, match="placebos was 18; fewer than 19 make no p-value"):
        foretold(DAYS, np.ones(400), begun, rng=rng, placebos=18)
    with pytest.raises(EstimationError, match="placebos was 9; fewer than 19 make no p-value"):
        beyond(DAYS, np.ones(400), {"vol": np.ones(400)}, begun, rng=rng, placebos=9)


def test_a_record_shorter_than_the_run_in_has_no_alarm() -> None:
    rng = np.random.default_rng(12)
    world = clustered_record(rng)
    x = rng.standard_normal(len(world.ts))
    found = foretold(world.ts, x, world.begun, rng=rng, run_in=1399, least_episodes=2, reps=9)
    assert (found.record.episodes, found.record.hits) == (0, 0)
    assert found.says.endswith("The past was too short for an alarm before any of them.")


def test_no_episode_and_no_signal_are_answers_too() -> None:
    rng, x = np.random.default_rng(9), np.random.default_rng(9).standard_normal(400)
    calm = foretold(DAYS, x, episodes(DAYS, marked()), rng=rng)
    assert (calm.verdict, calm.episodes) == (Verdict.CANNOT_TELL, 0)
    assert math.isnan(calm.auc)
    assert calm.says == "Cannot tell: 0 episodes and 393 quiet rows."
    mute = foretold(DAYS, np.full(400, np.nan), episodes(DAYS, marked(50)), rng=rng)
    assert mute.verdict is Verdict.CANNOT_TELL
    assert mute.coverage == 0.0
    none = beyond(DAYS, x, {"vol": x}, episodes(DAYS, marked()), rng=rng)
    assert none.verdict is Addition.CANNOT_TELL
    assert none.says == "Cannot tell: 0 episodes out of sample."


def test_what_never_changes_cannot_tell() -> None:
    rng = np.random.default_rng(19)
    world = clustered_record(rng)
    flat = np.full(len(world.ts), 3.0)
    found = foretold(world.ts, flat, world.begun, rng=rng, reps=9, placebos=19)
    assert found.episodes >= found.least_episodes
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.says == (
        "Cannot tell, the signal never changes over the rows that are judged: "
        f"{found.episodes} episodes."
    )
    naive = {"vol": rng.standard_normal(len(world.ts))}
    more = beyond(world.ts, flat, naive, world.begun, rng=rng, reps=9, placebos=19, refit=400,
                  least_episodes=2)  # fmt: skip
    assert more.verdict is Addition.CANNOT_TELL
    assert "the signal never changes" in more.says


def test_episodes_before_a_rank_can_be_had_are_counted_and_said() -> None:
    rng = np.random.default_rng(20)
    world = clustered_record(rng)
    x = rng.standard_normal(len(world.ts))
    ranked = trailing_rank(x)
    whole, late = (
        foretold(world.ts, each, world.begun, rng=rng, reps=9, placebos=19) for each in (x, ranked)
    )
    judged = world.ahead.ahead[world.ahead.warning]
    lost = len(np.unique(judged)) - len(
        np.unique(world.ahead.ahead[365:][world.ahead.warning[365:]])
    )
    assert lost > 1
    assert (whole.unheard_episodes, late.unheard_episodes) == (0, lost)
    assert late.episodes + lost == whole.episodes
    words = f" {lost} more episodes are left out: no signal was known in the horizon before."
    assert late.says.endswith(words)
    assert "left out" not in whole.says
    more = beyond(world.ts, x, {"rank": ranked}, world.begun, rng=rng, reps=9, placebos=19,
                  refit=400)  # fmt: skip
    assert more.unheard_episodes == lost
    assert more.says.endswith(words)


# ---------------------------------------------------------------- beyond what is known already


def test_what_adds_is_told_from_what_only_repeats() -> None:
    rng = np.random.default_rng(10)
    world = clustered_record(rng, days=2000, hot=70.0)
    soon = world.ahead.warning
    vol = remembering(rng, 2000, 0.9) + 1.0 * soon
    few = {"rng": rng, "placebos": 19, "reps": 199, "refit": 200}
    new = rng.standard_normal(2000) + 1.0 * soon
    adds = beyond(world.ts, new, {"vol": vol}, world.begun, **few)
    assert adds.verdict is Addition.ADDS
    assert adds.says.startswith("It adds to the naive signals: area 0.8")
    echo = vol + rng.standard_normal(2000)
    repeats = beyond(world.ts, echo, {"vol": vol}, world.begun, **few)
    assert repeats.verdict is Addition.DOES_NOT
    assert repeats.alone[0].gain < 0.0 < repeats.alone[0].auc - 0.55  # it warns, and adds nothing


def test_misuse_is_refused_with_a_next_step() -> None:
    begun, rng = episodes(DAYS, marked(50)), np.random.default_rng(11)
    with pytest.raises(EstimationError, match="leave out instants that nobody saw"):
        episodes(DAYS, np.ones(400))
    with pytest.raises(EstimationError, match="does not rise at row 1"):
        episodes(DAYS[::-1], marked(50))
    with pytest.raises(EstimationError, match="gap_us was 0"):
        episodes(DAYS, marked(50), gap_us=0)
    with pytest.raises(EstimationError, match="horizon_us was 0"):
        foretold(DAYS, np.ones(400), begun, horizon_us=0, rng=rng)
    with pytest.raises(EstimationError, match="horizon_us was 7, which is less than an hour"):
        foretold(DAYS, np.ones(400), begun, horizon_us=7, rng=rng)
    with pytest.raises(EstimationError, match="gap_us was 3, which is less than an hour"):
        episodes(DAYS, marked(50), gap_us=3)
    with pytest.raises(EstimationError, match="hole_us was 2, and instants are 86400000000 apart"):
        episodes(DAYS, marked(50), hole_us=2)
    with pytest.raises(EstimationError, match="look like seconds or days"):
        episodes(DAYS // 1_000_000, marked(50))
    with pytest.raises(EstimationError, match="no row has it watched to its end"):
        foretold(DAYS // 1_000, np.ones(400), begun, rng=rng)  # milliseconds
    with pytest.raises(EstimationError, match="look like nanoseconds"):
        episodes(1_700_000_000_000_000_000 + 1_000 * DAYS, marked(50))
    with pytest.raises(EstimationError, match="naive is of type ndarray; it must hold signals by"):
        beyond(DAYS, np.ones(400), np.ones(400), begun, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(EstimationError, match="window was 1"):
        trailing_rank(np.ones(9), window=1)
    with pytest.raises(EstimationError, match="run_in was 1"):
        walk_forward_alarms(np.ones(9), run_in=1)
    with pytest.raises(EstimationError, match="signal has 3 rows"):
        foretold(DAYS, np.ones(3), begun, rng=rng)
    with pytest.raises(EstimationError, match="name a signal that you already look at"):
        beyond(DAYS, np.ones(400), {}, begun, rng=rng)
