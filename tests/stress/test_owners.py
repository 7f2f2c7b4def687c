"""Fitted owners, owners in flight, and owners who do nothing."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from undertow.errors import StateError
from undertow.kernels import cascade
from undertow.rules.margins import margins
from undertow.stress import (
    Behaviour,
    Cascade,
    End,
    Impact,
    Options,
    Plan,
    Responses,
    load_scenario,
    run_cascade,
    scenario_names,
    worst_cascade,
)
from undertow.stress.aftermath import REASONS
from undertow.stress.behaviour import FLIGHT
from undertow.stress.owners import (
    COLUMNS,
    KINDS,
    OwnerRates,
    OwnersKnown,
    fitted_will,
    load_owner_rates,
    read_owner_rates,
)
from undertow.stress.setting import case_of
from undertow.stress.shards import run_sharded
from undertow.stress.stressed import Stressed
from undertow.worlds import World, demo_world

DAY_US = 86_400_000_000
NO_FREE = np.empty(0)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.of(demo_world(seed=7).snapshot())


def fallen(plan: Plan, by: float) -> Stressed:
    """All that is no money falls by a share."""
    stressed, universe = Stressed.calm(plan.snapshot), plan.snapshot.universe
    for code, stable in enumerate(universe.stable):
        if not stable:
            stressed = stressed.put("factor", code, math.log(1.0 - by))
    return stressed


def some(**columns: list[float]) -> OwnersKnown:
    """Owners of given health, volatility and size; those with `perp` hold contracts."""
    perp = np.array(columns.pop("perp", [0.0] * len(columns["health"]))) > 0.0
    return OwnersKnown(*(np.array(columns[name]) for name in ("health", "vol", "size")), perp)


def bits(ran: Cascade) -> list[bytes]:
    names = ("path", "acted", "flows", "final", "sold", "closed", "bad", "short", "remaining")
    return [getattr(ran, name).tobytes() for name in names]


def own_acts(ran: Cascade) -> float:
    """USD that owners brought in or sold themselves."""
    log = ran.trace()
    own = [REASONS[cascade.TOPPED_UP], REASONS[cascade.BY_OWNER]]
    return float(log.filter(log["reason"].is_in(own))["value_usd"].sum())


def test_rates_are_those_of_a_pencil() -> None:
    rates = load_owner_rates()["lending"]
    known = some(health=[1.02], vol=[0.9], size=[20_000.0])
    x = np.array([math.log(1.02), math.log(0.9), math.log10(20_000.0)])
    z = np.r_[1.0, (x - rates.middle) / rates.spread]
    assert rates.daily(known, buffer=1.05) == pytest.approx([math.exp(z @ rates.coefficients)])
    error = math.sqrt(z @ rates.covariance @ z)
    reach = 1.894578605  # of Student's law with 7 degrees of freedom, the 0.95 quantile
    ends = [rates.daily(known, buffer=1.05, end=end)[0] for end in (End.LOW, End.HIGH)]
    middle = math.exp(z @ rates.coefficients)
    assert ends == pytest.approx(
        [middle * math.exp(-reach * error), middle * math.exp(reach * error)]
    )


def test_a_round_has_its_part_of_a_day_and_two_ways_share_it() -> None:
    rates = load_owner_rates()
    known = some(health=[1.02, 1.02], vol=[0.9, 0.9], size=[20_000.0, 20_000.0], perp=[0.0, 1.0])
    asked = Responses(delever=True, fitted=End.MIDDLE)
    each = [rates[kind].daily(known, buffer=1.05)[n] for n, kind in enumerate(KINDS)]
    share = fitted_will(known, asked, NO_FREE, DAY_US // 24)
    assert share == pytest.approx([1.0 - math.exp(-rate / 24.0) for rate in each])
    both = fitted_will(known, replace(asked, top_up=True), np.array([5.0, 0.0]), DAY_US // 24)
    assert both[1] == share[1]  # without free assets there is one way
    assert 1.0 - (1.0 - both[0]) ** 2 == pytest.approx(share[0])


def test_nobody_is_asked_before_it_is_called_and_the_record_has_ends() -> None:
    rates = load_owner_rates()["perp"]

    def one(health: float, vol: float = 0.6, size: float = 1_000.0) -> float:
        return float(rates.daily(some(health=[health], vol=[vol], size=[size]), buffer=1.05)[0])

    assert one(1.05) == one(4.0) == one(math.inf)
    assert one(1.0) > one(1.05)  # traders nearer to the limit act more often
    assert one(0.0) == one(math.exp(rates.lowest[0]))
    assert one(1.0, size=1e12) == one(1.0, size=10.0 ** rates.highest[2])
    assert one(1.0, size=0.0) == one(1.0, size=10.0 ** rates.lowest[2])
    assert one(1.0, vol=math.nan) == pytest.approx(one(1.0, vol=math.exp(rates.middle[1])))


def test_what_is_known_of_owners_is_what_margins_say(plan: Plan) -> None:
    snapshot, known = plan.snapshot, plan.owners_known
    judged, owner = margins(snapshot), snapshot.book.owner
    lowest = np.full(len(snapshot.book.owners), np.inf)
    np.minimum.at(lowest, owner, judged.health)
    assert known.health == pytest.approx(lowest)
    for o in np.random.default_rng(1).choice(len(lowest), 50, replace=False):
        own = np.flatnonzero(owner == o)
        a = own[np.argmin(judged.health[own])]
        assert known.size[o] == pytest.approx(max(judged.debt[a], judged.notional[a]))
        assert known.perp[o] == (judged.notional[a] > judged.debt[a])
    assert 0.1 < known.perp.mean() < 0.9
    seen = known.vol[~np.isnan(known.vol)]
    assert ((seen > 0.0) & (seen <= snapshot.market.vol.max() * (1.0 + 1e-12))).all()


def test_the_will_of_a_case_is_the_fitted_one_and_grows_with_the_round(plan: Plan) -> None:
    stressed = fallen(plan, 0.2)
    minute = Options(responses=Behaviour.FITTED.responses)
    hour = replace(minute, round_us=60 * minute.round_us)
    short, long = (case_of(plan, stressed, each).switches.willing for each in (minute, hour))
    free = plan.snapshot.free.usd_by_owner(plan.snapshot.market)
    direct = fitted_will(plan.owners_known, minute.responses, free, minute.round_us)
    assert short.tobytes() == direct.tobytes()
    assert (short > 0.0).all()
    assert (short < long).all()
    assert (long < 1.0).all()
    assert np.ptp(short) > 0.0  # each its own


def test_no_behaviour_is_no_response_to_the_bit(plan: Plan) -> None:
    assert Behaviour.NONE.responses == Responses() == Options().responses
    stressed = fallen(plan, 0.3)
    idle = run_cascade(plan, stressed, Options(responses=Behaviour.NONE.responses))
    assert bits(idle) == bits(run_cascade(plan, stressed, Options()))
    assert own_acts(idle) == 0.0


def test_the_higher_end_of_the_band_does_more(plan: Plan) -> None:
    stressed = fallen(plan, 0.3)
    done = [
        own_acts(run_cascade(plan, stressed, Options(responses=each.responses, impact=Impact.NONE)))
        for each in (Behaviour.FITTED_LOW, Behaviour.FITTED, Behaviour.FITTED_HIGH)
    ]
    assert 0.0 < done[0] < done[1] < done[2]


def test_fitted_owners_are_the_same_in_shards(market_world: World) -> None:
    small = Plan.of(market_world.snapshot())
    stressed, options = fallen(small, 0.4), Options(responses=Behaviour.FITTED.responses)
    whole = run_cascade(small, stressed, options)
    assert bits(run_sharded(small, stressed, options, shards=3)) == bits(whole)
    assert own_acts(whole) > 0.0


@pytest.mark.parametrize("by", [0.1, 0.4])
def test_the_worst_is_the_worse_of_nothing_and_flight(plan: Plan, by: float) -> None:
    stressed = fallen(plan, by)
    found = worst_cascade(plan, stressed, Options())
    idle, fled = (
        run_cascade(plan, stressed, Options(responses=each)) for each in (Responses(), FLIGHT)
    )
    assert found.insolvency_usd == {"none": idle.insolvency_usd, "flight": fled.insolvency_usd}
    assert found.cascade.insolvency_usd == max(found.insolvency_usd.values())
    assert idle.insolvency_usd != fled.insolvency_usd
    assert bits(found.cascade) == bits(idle if found.behaviour == "none" else fled)
    assert str(found).startswith(f"owners: {found.behaviour}, the worse of none ")


def test_where_nothing_is_lost_the_worst_is_nothing(plan: Plan) -> None:
    found = worst_cascade(plan, Stressed.calm(plan.snapshot), Options(impact=Impact.NONE))
    assert set(found.insolvency_usd.values()) == {0.0}
    assert found.behaviour == "none"


def test_the_worst_has_no_responses_of_its_own() -> None:
    with pytest.raises(StateError, match="known only after the cascades"):
        _ = Behaviour.WORST.responses


def test_fitted_owners_who_may_do_nothing_are_refused() -> None:
    with pytest.raises(StateError, match="fitted was 'low', and owners do nothing"):
        Options(responses=Responses(fitted=End.LOW))


def written(rates: OwnerRates, **changed: object) -> str:
    """One table of a file of rates."""
    lines = ["[[rates]]"]
    values = {name: getattr(rates, name) for name in OwnerRates.__dataclass_fields__} | changed
    for name, value in values.items():
        if value is None:
            continue
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        plain = list(plain) if isinstance(plain, tuple) else plain
        text = str(plain) if name in ("since", "until") else json.dumps(plain)
        lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"


def test_rates_survive_being_written() -> None:
    rates = load_owner_rates()
    again = read_owner_rates("\n".join(written(each) for each in rates.values()))
    for kind, each in rates.items():
        assert again[kind].coefficients.tolist() == each.coefficients.tolist()
        assert again[kind].since == each.since


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"events": None}, "missing or unknown: events"),
        ({"extra": 1}, "missing or unknown: extra"),
        ({"kind": "options"}, "there are rates of options, perp"),
        ({"columns": COLUMNS[::-1]}, "columns were log_size"),
        ({"middle": [0.0, 0.0]}, "middle is no"),
        ({"spread": [1.0, 0.0, 1.0]}, "spread must be positive"),
        ({"owners": 1}, "owners at least 2"),
    ],
)
def test_rates_that_cannot_be_are_refused(changed: dict[str, object], message: str) -> None:
    rates = load_owner_rates()
    with pytest.raises(StateError, match=message):
        read_owner_rates(written(rates["lending"], **changed) + written(rates["perp"]))


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(StateError, match="not valid TOML"):
        read_owner_rates("[[rates")


@pytest.mark.slow
def test_what_owners_do_to_the_packaged_replays(plan: Plan) -> None:
    """The table of `docs/methods/owner-behaviour.md`: USD missing on the demo world."""
    names = ("none", "fitted-low", "fitted", "fitted-high")
    sys.stdout.write("\nreplay, m USD missing" + "".join(f"  {n}" for n in (*names, "flight\n")))
    worse = 0
    for name in scenario_names():
        scenario = load_scenario(name)
        lost = [
            run_cascade(
                plan, scenario, replace(scenario.options, responses=Behaviour(each).responses)
            ).insolvency_usd
            for each in names
        ]
        found = worst_cascade(plan, scenario)
        worse += found.behaviour == "flight"
        lost.append(found.insolvency_usd["flight"])
        sys.stdout.write(f"{name:<18}" + "".join(f"{usd / 1e6:10.4f}" for usd in lost) + "\n")
        assert found.insolvency_usd["none"] == lost[0]
        assert abs(lost[2] - lost[0]) <= 0.01 * max(lost[0], 1.0)  # a rate a day is little an hour
    assert 0 < worse < len(scenario_names())  # neither is always the worse
