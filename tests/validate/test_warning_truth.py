"""What was planted, what was found: false warnings, bands, leads and additions, as tables."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from undertow.econometrics.auc import area_under_curve
from undertow.validate.alarms import trailing_rank
from undertow.validate.episodes import DAY_US, episodes
from undertow.validate.foretelling import Verdict, foretold
from undertow.validate.increments import Addition, beyond
from undertow.worlds import Tandem, Unwinding, build_panels
from validate.foretold_worlds import clustered_record, fading_record, remembering

MEMORIES = (0.0, 0.9, 0.98)


def allowed(share: float, draws: int) -> tuple[float, float]:
    """The 99 % interval of a share over so many draws."""
    low, high = stats.binom.interval(0.99, draws, share)
    return low / draws, high / draws


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_signal_that_knows_nothing_warns_as_seldom_as_chance_allows(memory: float) -> None:
    rng, draws = np.random.default_rng(round(100 * memory)), 500
    p_values, warned, fooled, counted = [], 0, 0, []
    for _ in range(draws):
        world = clustered_record(rng)
        x = remembering(rng, len(world.ts), memory)
        found = foretold(
            world.ts, x, world.begun, rng=rng, reps=99, placebos=199, run_in=1399, least_episodes=1
        )
        p_values.append(found.p_value)
        counted.append(found.episodes)
        warned += found.verdict is Verdict.WARNS
        rows = world.ahead.warning | world.ahead.quiet
        plain = area_under_curve(x[rows], world.ahead.warning[rows])
        fooled += plain.low > 0.5
    shares = {level: float((np.array(p_values) <= level).mean()) for level in (0.05, 0.1, 0.5)}
    sys.stdout.write(
        f"| {memory} | {np.median(counted):.0f} | {shares[0.05]:.1%} | {shares[0.1]:.1%} | "
        f"{shares[0.5]:.1%} | {warned / draws:.1%} | {fooled / draws:.1%} |\n"
    )
    for level in (0.05, 0.1):
        low, high = allowed(level, draws)
        assert low <= shares[level] <= high, (level, shares[level])
    assert warned / draws <= allowed(0.05, draws)[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["walk", "falls by 4", "its rank in the year before"])
def test_what_drifts_with_the_rate_of_episodes_seems_to_warn(kind: str) -> None:
    """Neither knows of the other; both belong to a market that grows calm. The rank forgets it."""
    rng, draws, small, warned = np.random.default_rng(21), 200, 0, 0
    for _ in range(draws):
        world = fading_record(rng)
        x = remembering(rng, len(world.ts), 0.9) - np.linspace(0.0, 4.0, len(world.ts))
        if kind == "walk":
            x = np.cumsum(rng.standard_normal(len(world.ts)))
        elif kind != "falls by 4":
            x = trailing_rank(x)
        found = foretold(
            world.ts, x, world.begun, rng=rng, reps=99, placebos=199, run_in=1399, least_episodes=1
        )
        small += found.p_value <= 0.05
        warned += found.verdict is Verdict.WARNS
    sys.stdout.write(f"| {kind} | {small / draws:.1%} | {warned / draws:.1%} |\n")
    _, high = allowed(0.05, draws)
    if kind == "its rank in the year before":
        assert warned / draws <= high
    if kind == "falls by 4":
        assert warned / draws > high


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 1.0])
@pytest.mark.parametrize("memory", MEMORIES)
def test_bands_cover_a_planted_area(memory: float, gap: float) -> None:
    rng, draws = np.random.default_rng(round(100 * memory + 7 * gap)), 200
    truth, covered, plain_covered, found_areas = special.ndtr(gap / math.sqrt(2.0)), 0, 0, []
    for _ in range(draws):
        world = clustered_record(rng)
        x = remembering(rng, len(world.ts), memory) + gap * world.ahead.warning
        found = foretold(world.ts, x, world.begun, rng=rng, reps=199, placebos=199, run_in=1399)
        rows = world.ahead.warning | world.ahead.quiet
        plain = area_under_curve(x[rows], world.ahead.warning[rows])
        covered += found.low <= truth <= found.high
        plain_covered += plain.low <= truth <= plain.high
        found_areas.append(found.auc)
    sys.stdout.write(
        f"| {truth:.2f} | {memory} | {np.mean(found_areas):.3f} | {covered / draws:.1%} | "
        f"{plain_covered / draws:.1%} |\n"
    )
    assert 0.8 <= covered / draws <= 0.97
    assert abs(np.mean(found_areas) - truth) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unrelated", "an echo of the naive one"])
def test_a_signal_that_adds_nothing_is_seldom_said_to_add(kind: str) -> None:
    """Naive volatility foretells; the signal remembers, or is volatility seen badly."""
    rng, draws, added, p_values = np.random.default_rng(11), 100, 0, []
    began = time.monotonic()
    for done in range(draws):
        if time.monotonic() - began > 400.0:
            draws = done
            break
        world = clustered_record(rng)
        vol = remembering(rng, len(world.ts), 0.9) + 1.0 * world.ahead.warning
        echo = kind != "unrelated"
        x = vol + rng.standard_normal(len(vol)) if echo else remembering(rng, len(vol), 0.98)
        found = beyond(world.ts, x, {"vol": vol}, world.begun, rng=rng, reps=99, placebos=39,
                       refit=120, least_episodes=1)  # fmt: skip
        p_values.append(found.p_value)
        added += found.verdict is Addition.ADDS
    small = float((np.array(p_values) <= 0.05).mean())
    sys.stdout.write(f"| {kind} | {draws} | {small:.1%} | {added / draws:.1%} |\n")
    assert added / draws <= allowed(0.05, draws)[1]


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.0, 0.9])
@pytest.mark.parametrize("lead", [1, 3, 5, 10])
def test_planted_leads_are_found(lead: int, memory: float) -> None:
    """Four deviations higher for so many days before episodes of every three months."""
    rng = np.random.default_rng(lead)
    ts = DAY_US * np.arange(1, 4501)
    dates = np.cumsum(rng.integers(70, 110, size=48))
    begun = episodes(ts, np.isin(ts, dates * DAY_US))
    to = np.append(begun.start, 0)[begun.start.searchsorted(ts, "right")] - ts
    x = remembering(rng, len(ts), memory) + 4.0 * ((to > 0) & (to <= lead * DAY_US))
    found = foretold(ts, x, begun, horizon_us=14 * DAY_US, rng=rng, budget=0.15).record
    days = [each / DAY_US for each in (found.lead_us, found.lead_low, found.lead_high)]
    sys.stdout.write(
        f"| {lead} | {memory} | {days[0]:.1f} ({days[1]:.1f} to {days[2]:.1f}) | "
        f"{found.hits} of {found.episodes} | {found.hit_by_chance:.0%} |\n"
    )
    assert abs(days[0] - lead) <= 1.0
    assert found.hit_rate > 0.9


# ---------------------------------------------------------------- worlds of the engine

NODES = Tandem(correlation=0.5, noise=0.04, half_life=60.0)
STEPS = 2_500


def world_of(unwound: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days, the mean log leverage of a world's assets, and whether an unwinding was planted."""
    planted = tuple(Unwinding(step=step, strength=3.0) for step in unwound)
    series = build_panels(5, steps=STEPS, step_us=DAY_US, tandem=replace(NODES, unwindings=planted))
    panel = series.panels["leverage_asset"]
    dates = [each.ts for each in series.truth.leverage["leverage_asset"].unwindings]
    return panel.ts, np.log(panel.values).mean(axis=1), np.isin(panel.ts, dates)


def unwinding_dates(rng: np.random.Generator, index: np.ndarray, slope: float) -> tuple[int, ...]:
    """Days on which leverage unwinds: likelier where the index stands high, if there is a slope."""
    chance = np.exp(slope * (index - index.mean()) / index.std())
    drawn = np.flatnonzero(rng.random(STEPS) < 60.0 * chance / chance.sum())
    kept = list[int]()
    for day in drawn.tolist():
        if day > 10 and (not kept or day - kept[-1] > 10):
            kept.append(day)
    return tuple(kept)


@pytest.mark.parametrize(("slope", "verdict"), [(1.5, Verdict.WARNS), (0.0, Verdict.DOES_NOT)])
def test_the_leverage_of_a_world_warns_where_it_was_planted_to(
    slope: float, verdict: Verdict
) -> None:
    _, calm, _ = world_of(())
    dates = unwinding_dates(np.random.default_rng(1), calm, slope)
    ts, index, unwinds = world_of(dates)
    found = foretold(ts, index, episodes(ts, unwinds), rng=np.random.default_rng(2))
    sys.stdout.write(f"slope {slope}: {found.says}\n")
    assert unwinds.sum() == len(dates)
    assert found.episodes >= 30
    assert found.verdict is verdict
