"""The figures of leverage that moves together, and the columns each of them stands on."""

from __future__ import annotations

from undertow.report import extremes, spillovers, together, unwinds
from undertow.report.picture import Picture

_TURNS = ("node", "kind", "ts")
_EVENTS = ("start", "peak", "end", "p_value", "count")

TANDEM: tuple[Picture, ...] = (
    Picture(
        "tandem.leverage",
        "Who is how leveraged",
        "A point is the leverage of all accounts of a node together, the grey line its band; the "
        "red mark is where its most leveraged tenth (of what is owed) begins. The largest first.",
        extremes.heights,
        {"nodes": ("node", "value", "low", "high", "q90")},
    ),
    Picture(
        "tandem.matrix",
        "Who moves with whom",
        "Every pair lies below the diagonal. Above it only those pairs are drawn that stay "
        "distinct from chance (p below 0.05) after correction for having looked at all of them. "
        "One order in all panels: series that move together stand side by side. Blue moves "
        "against, red moves with.",
        together.matrix,
        {"pairs": ("a", "b", "layer", "correlation", "low", "high", "p_corrected")},
    ),
    Picture(
        "tandem.matrix",
        "What is left when prices are taken out",
        "Bars are mean correlations, the grey line is the band. What falls from one layer to the "
        "next was the work of prices.",
        together.layers,
        {"layers": ("layer", "mean_correlation", "low", "high", "p_value", "nodes", "steps")},
    ),
    Picture(
        "tandem.index",
        "Tandem over time",
        "The solid line is the rolling mean correlation, with its band. The grey field is the "
        "share of nodes that unwind (right axis). Red fields are common unwinds, a triangle their "
        "peak; an open one may be chance.",
        together.index,
        {"index": ("ts", "rolling", "ewma", "dcc", "low", "high")},
        {"tandem.cycle/turns": _TURNS, "tandem.unwinding/events": _EVENTS},
    ),
    Picture(
        "tandem.commonality",
        "How much one tide carries",
        "Above: share of all movement in the strongest common directions. Below: its shift "
        "against its own past, red where it rises.",
        together.absorption,
        {"absorption": ("ts", "ratio", "shift")},
    ),
    Picture(
        "tandem.commonality",
        "Common directions against chance",
        "A filled point above the dashed line is a common direction that chance does not make.",
        together.scree,
        {"spectrum": ("rank", "eigenvalue", "chance_high")},
    ),
    Picture(
        "tandem.connectedness",
        "Who passes shocks to whom",
        "An arrow runs from the giver to the taker, as wide as the share. Red nodes give more than "
        "they take, blue nodes take more; a larger node is further from even.",
        spillovers.graph,
        {
            "nodes": ("node", "to", "from", "net", "net_low", "net_high"),
            "table": ("to_node", "from_node", "share"),
        },
    ),
    Picture(
        "tandem.connectedness",
        "Givers and takers",
        "Red gives more than it takes, blue takes more. A band that crosses zero leaves it open.",
        spillovers.net,
        {"nodes": ("node", "to", "from", "net", "net_low", "net_high")},
    ),
    Picture(
        "tandem.connectedness",
        "Connectedness over time",
        "Below the dashed line the total is no more than chance would make.",
        spillovers.total,
        {"rolling": ("ts", "total", "null_high")},
    ),
    Picture(
        "tandem.cycle",
        "Phases of every node",
        "Blue: leverage builds up, from a trough to a peak. Red and hatched: it unwinds. Before "
        "the first turn and after the last nothing is drawn.",
        unwinds.phases,
        {"turns": _TURNS},
    ),
    Picture(
        "tandem.cycle",
        "Who is in phase with whom",
        "Share of time in the same phase, less what chance makes: 0 is chance, 0.5 always in step. "
        "Every pair below the diagonal, above it only those beyond chance (p corrected over all "
        "pairs below 0.05).",
        together.concordance,
        {"concordance": ("a", "b", "adjusted", "p_corrected", "low", "high")},
    ),
    Picture(
        "tandem.unwinding",
        "Who took part in which unwind",
        "A red point is a node that took part in a common unwind; the larger, the deeper it fell. "
        "Pale rings fell at the time and were not part of it.",
        unwinds.participants,
        {"participants": ("event", "node", "depth", "member")},
    ),
    Picture(
        "tandem.tails",
        "Falls against rises",
        "Left of zero the correlation over steps at which both nodes fall further than the "
        "threshold (in standard deviations), right of it over those at which both rise; upright "
        "lines are bands. Hold both against the dashed line, which a normal law of the same "
        "correlation has.",
        extremes.exceedance,
        {
            "exceedance": (
                "side",
                "threshold",
                "layer",
                "correlation",
                "low",
                "high",
                "normal",
                "count",
            )
        },
    ),
    Picture(
        "tandem.leadlag",
        "Who moves first",
        "Red leads the others on the whole, blue follows them. A pale bar leads and follows nobody "
        "beyond chance.",
        extremes.leads,
        {"nodes": ("node", "layer", "net", "leads", "follows")},
    ),
    Picture(
        "tandem.procyclicality",
        "Leverage as assets grow",
        "A point is a slope with its band: right of zero leverage rises with what is held, an open "
        "one may be chance. The red mark is where it would lie had nobody traded.",
        extremes.slopes,
        {"slopes": ("node", "slope", "low", "high", "passive", "p_corrected")},
    ),
    Picture(
        "tandem.attribution",
        "What is shared, and what it goes with",
        "Left: coefficient and band; an open point is not distinct from zero (p 0.05 or more). "
        "Right: share of the differences between pairs that goes with it.",
        spillovers.drivers,
        {"drivers": ("driver", "coefficient", "low", "high", "p_value", "share")},
    ),
    Picture(
        "tandem.unwind",
        "Where losses arrive",
        "A row is the node that unwinds first, a column one that bears losses. An "
        "empty cell was not worked out.",
        unwinds.losses,
        {"losses": ("shocked", "node", "channel", "share")},
    ),
    Picture(
        "tandem.unwind",
        "How losses travel",
        "Shares of all nodes added up, by the channel that carried them.",
        unwinds.channels,
        {"losses": ("shocked", "node", "channel", "share")},
    ),
    Picture(
        "tandem.systemic",
        "With whom the others fall, and who falls with the market",
        "Left, in standard deviations: how much worse the worst steps of all others are at the "
        "node's own worst. Right, a return: what its holdings make on the market's worst steps. "
        "An open point has a band that holds zero, or none.",
        extremes.covar,
        {"nodes": ("node", "delta_covar", "low", "high", "mes", "mes_low", "mes_high")},
    ),
    Picture(
        "tandem.systemic",
        "Who would lack capital",
        "After a crash of the market: red is what a venue lacks of the capital asked for, blue "
        "what it has to spare.",
        extremes.lacking,
        {"shortfall": ("venue", "shortfall_usd", "equity_usd", "liabilities_usd")},
    ),
    Picture(
        "tandem.consequence",
        "Which model foretold better",
        "Left: score and band. Right: bars are the hits that came, the red mark those that were "
        "expected.",
        spillovers.scores,
        {"scores": ("model", "score", "low", "high", "hits", "expected")},
    ),
)
