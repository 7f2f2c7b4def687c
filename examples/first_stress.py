"""A shock of one's own on an invented book: who is closed, what is missing, who pays for it.

Run it as it is: `python examples/first_stress.py`. The first run on a machine compiles for a minute
or two.
"""

from __future__ import annotations

import undertow as ut
from undertow.stress import Impact, Options, Plan, read_scenario

ETHER_FALLS = """
name = "ether falls, and its depth with it"

[[shock]]
kind = "price"
asset = "ETH"
move = -0.3

[[shock]]
kind = "depth"
multiplier = 0.5
"""


def main() -> None:
    """Lay a book out once, and run a shock on it with and without the impact of sales."""
    scenario = read_scenario(ETHER_FALLS)
    plan = Plan.of(ut.demo_world(seed=7).snapshot())
    alone = ut.run_cascade(plan, scenario, Options(impact=Impact.NONE))
    together = ut.run_cascade(plan, scenario, check=True).require()
    for words, found in (("prices stay", alone), ("sales move prices", together)):
        head = found.headline()
        print(
            f"{words}: {head['liquidated_usd']:,.0f} USD closed of {head['accounts']} accounts, "
            f"{head['insolvency_usd']:,.0f} USD missing"
        )
    print(together.by_venue().select("venue", "accounts", "closed_usd", "suppliers_bear_usd"))
    print(together.by_round().select("round", "accounts", "seen_fall").head(5))


if __name__ == "__main__":
    main()
