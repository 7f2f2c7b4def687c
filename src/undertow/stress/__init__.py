"""What if: shocks to a snapshot, scenarios that string them together, cascades and joint draws."""

from undertow.stress.behaviour import Behaviour, Worst, worst_cascade
from undertow.stress.cascade import Cascade, Engine, Outcome, Settled, run_cascade, settle
from undertow.stress.options import Deleveraging, End, Impact, Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.pricing import PricingMap
from undertow.stress.scenario import Scenario, load_scenario, read_scenario, scenario_names
from undertow.stress.stressed import AS_GIVEN, ORACLE_MODES, Stressed

__all__ = [
    "AS_GIVEN",
    "ORACLE_MODES",
    "Behaviour",
    "Cascade",
    "Deleveraging",
    "End",
    "Engine",
    "Impact",
    "Options",
    "Outcome",
    "Plan",
    "PricingMap",
    "Responses",
    "Scenario",
    "Settled",
    "Stressed",
    "Worst",
    "load_scenario",
    "read_scenario",
    "run_cascade",
    "scenario_names",
    "settle",
    "worst_cascade",
]
