"""The figures of who stands in the same place, and the columns each of them stands on."""

from __future__ import annotations

from undertow.report import crowds, edges, exits, saturations, wants
from undertow.report.picture import Picture

_NET = ("net", "net_low", "net_high", "net_weighed", "net_weighed_low", "net_weighed_high")
_LEAN = ("name", *_NET, "by_chance")
_TOPS = tuple(f"top_{k}{end}" for k in (1, 5, 10) for end in ("", "_low", "_high"))
_CARRIED = "Shares of rho that would be gone without the asset or the venue; those of"
_CURVE = (
    "shock", "liquidated_share", "low", "high", "insolvency_share", "insolvency_low",
    "insolvency_high", "final_fall", "fall_low", "fall_high", "amplification", "outcome",
)  # fmt: skip
_MAP = (
    "line", "side", "evidence", "distance", "accounts", "debt_usd", "notional_usd", "traded_usd",
)  # fmt: skip

CROWDING: tuple[Picture, ...] = (
    Picture(
        "crowding.concentration",
        "How few hold how much",
        "A line says what the largest owners hold together, from the largest alone to all. Points "
        "with upright bands are the one, five and ten largest of what is leveraged. The sooner a "
        "line is at the top, the fewer decide.",
        crowds.few,
        {"curve": ("whole", "owners", "share")},
        {"crowding.concentration/concentration": ("whole", *_TOPS)},
    ),
    Picture(
        "crowding.concentration",
        "At which leverage it stands",
        "Debt (red, hatched) on notional (blue), by the leverage of the account that has it.",
        crowds.brackets,
        {"brackets": ("leverage", "accounts", "share", "debt_usd", "notional_usd")},
    ),
    Picture(
        "crowding.concentration",
        "Where few hold most",
        "Bars are what the ten largest owners of a node hold of what is leveraged on it, the red "
        "mark what the largest holds alone.",
        crowds.nodes,
        {"nodes": ("node", "leveraged_usd", "owners", "effective", "largest", "top_1", "top_10")},
    ),
    Picture(
        "crowding.sides",
        "Which way assets lean",
        "Squares are net over gross of leveraged accounts, circles the same with every dollar "
        "weighted by its leverage; the grey lines are bands. Within the grey field sides taken by "
        "coin would lean as far.",
        crowds.sides,
        {"assets": _LEAN},
        {"crowding.sides/whole": _LEAN},
    ),
    Picture(
        "crowding.sides",
        "Which way nodes lean",
        "Read like the figure of assets. On a venue that is seen whole the square of a contract "
        "is at zero, and only the circle says which side is nearer to the edge.",
        crowds.sides_by_node,
        {"nodes": _LEAN},
        repeats=("nodes", "assets", "name"),
    ),
    Picture(
        "crowding.exit",
        "Days to exit",
        "A point is how long closing that side of an asset takes (log scale), the grey line its "
        "band. The slowest first.",
        exits.days,
        {"assets": ("asset", "side", "closes_usd", "days", "days_low", "days_high")},
    ),
    Picture(
        "crowding.exit",
        "Leverage as it is, and the most that gets out",
        "Left (log scale): the point is the leverage of all who stand there, the red mark the "
        "leverage from which a position as large cannot be closed. Right: how much of it stands "
        "above its mark.",
        exits.critical,
        {"assets": ("asset", "side", "leverage", "above", "critical_leverage")},
    ),
    Picture(
        "crowding.vulnerability",
        "What vulnerability is the product of",
        "Right of the dashed line a factor makes it larger, left of it smaller; what is added on "
        "this scale multiplies. Grey lines are bands, a red mark is the book of before.",
        exits.factors,
        {"factors": ("factor", "before", "now", "low", "high")},
    ),
    Picture(
        "crowding.vulnerability",
        "Whose sales cost everybody, and whom they cost",
        "Left: what the forced sales of a node cost all others and itself, of all equity. Right: "
        "what it loses of its own by the sales of all. Blue is long, red is short, grey lines are "
        "bands.",
        exits.systemic,
        {
            "nodes": (
                *("node", "side", "equity_usd", "direct", "closed"),
                *("systemic", "systemic_low", "systemic_high"),
                *("indirect", "indirect_low", "indirect_high"),
            )
        },
    ),
    Picture(
        "crowding.vulnerability",
        "When one asset falls alone",
        "Bars are what forced sales cost after the fall of one asset alone, of all equity; the "
        "blue mark is the loss that comes first. A negative one is a gain.",
        exits.alone,
        {"assets": ("asset", "depth_usd", "alone_direct", "alone")},
    ),
    Picture(
        "crowding.demand",
        "Demand for leverage in its own past",
        "A line is the mean rank of all components that are known: at 0.9 demand stands above "
        "nine tenths of its past. Dashed lines are where the next state begins.",
        wants.over_time,
        {"past": ("ts", "node", "known", "rank")},
    ),
    Picture(
        "crowding.demand",
        "What demand is made of",
        "Red stands high in its own past, blue low. An empty cell cannot be told.",
        wants.components,
        {"components": ("node", "component", "value", "low", "high", "rank")},
    ),
    Picture(
        "crowding.rebalancing",
        "Who must trade after a move",
        "Above: what is bought (below zero sold) after a move of the price, by whom. A line that "
        "rises to the right pushes the move on, one that falls holds it. The dashed upright is "
        "where dealers turn from one to the other. Below: the same in e-folds of depth.",
        wants.ladder,
        {
            "ladder": (
                *("asset", "move", "level", "funds_usd", "dealers_usd", "e_folds"),
                "bought_usd",
            )
        },
        {"crowding.rebalancing/assets": ("asset", "zero_gamma_move")},
    ),
    Picture(
        "crowding.similarity",
        "Which venues hold the same",
        "Red: the same mix, no colour: nothing in common, blue: the opposite side; an empty cell "
        "cannot be told. One order in all panels: venues that are alike stand side by side.",
        crowds.venues,
        {
            "venues": (
                *("first", "second", "first_usd", "second_usd"),
                *("collateral", "net", "gross"),
            )
        },
    ),
    Picture(
        "crowding.similarity",
        "Places that many stand in",
        "A bar is a strategy that many follow, cut by the leverage at which they do. A faded bar "
        "was not found again among other owners of the same kind.",
        crowds.places,
        {
            "clusters": ("cluster", "strategy", "stability", "there", "share"),
            "places": ("cluster", "leverage", "owners", "leveraged_usd", "share"),
        },
    ),
    Picture(
        "crowding.map",
        "What is called at which price",
        "Left of the upright is a fall, right of it a rise; first of the whole market, then of "
        "single assets. A coloured line is what must be sold or bought up to there, by how it is "
        "known; the dashed grey line is what moves the price so far. Where colour lies above grey, "
        "the calls alone carry the price there. The red field is the densest wall.",
        edges.liquidations,
        {"cumulative": (*_MAP, "depth_usd")},
        {"crowding.map/dense": ("line", "side", "start", "end")},
    ),
    Picture(
        "crowding.map",
        "Which venue calls at which price",
        "A cell is what a venue calls between one price and the next of a common move, darker "
        "(on dark, brighter) is more; every step of the scale is ten times the one before. Empty "
        "cells call nobody.",
        edges.calling,
        {"ladder": ("venue", *_MAP)},
    ),
    Picture(
        "crowding.surface",
        "What is called when two things fall",
        "Upwards the market falls, to the right one thing falls further on top. The colour is the "
        "share of all that is leveraged that is called; red lines stand where its scale has ticks.",
        edges.surface,
        {
            "surface": (
                *("surface", "market", "other", "evidence", "debt_usd", "notional_usd"),
                "share",
            )
        },
    ),
    Picture(
        "crowding.synchrony",
        "Venues that call at once",
        "Bars are the chance that so many venues or more call within one window, with bands; red "
        "marks are that chance if each called on its own. A bar above its mark: they call "
        "together.",
        edges.together,
        {"venues_called": ("k", "probability", "low", "high", "by_chance")},
    ),
    Picture(
        "crowding.synchrony",
        "Owners who stand close together at two venues",
        "From the first price at which an owner is called on one venue (filled) to the last on "
        "another (open); the larger, the more is called. A short line leaves no time.",
        edges.twice,
        {"owners": ("owner", "side", "venues", "accounts", "called_usd", "nearest", "farthest")},
    ),
    Picture(
        "crowding.fragility",
        "The fragility curve",
        "What is closed by force, of all that was held, and what is lost beyond equity in the end, "
        "of what is leveraged, by the size of the shock; bands are markets thinner and deeper. δ* "
        "is where forced sales carry themselves on by thresholds and depth alone, the grey field "
        "its band; the knee is where the simulated cascade jumps. An open sign had not come to "
        "rest.",
        saturations.fragility,
        {"curve": _CURVE},
        {"crowding.saturation/directions": ("direction", "at", "at_low", "at_high", "knee")},
    ),
    Picture(
        "crowding.fragility",
        "What a shock becomes",
        "Above: how far prices move in the end (red, with band) against how far they were pushed "
        "(dashed). Below: how many times as far.",
        saturations.deepened,
        {"curve": _CURVE},
    ),
    Picture(
        "crowding.saturation",
        "The undertow index",
        "rho of every direction as the shock grows. Below the dashed line forced sales die out; a "
        "cross is the shock at which they carry themselves on, and the line ends there.",
        saturations.rho,
        {"path": ("direction", "settled", "swing", "fall", "shock", "rho")},
        {"crowding.saturation/directions": ("direction", "at")},
    ),
    Picture(
        "crowding.saturation",
        "How far from selling itself",
        "A point is the shock at which forced sales carry themselves on, the grey line its band "
        "(markets thinner and deeper), the red mark where the simulated cascade jumps. A triangle "
        "found none up to there.",
        saturations.reach,
        {
            "directions": (
                *("direction", "strongest", "now", "jump", "knee", "at_low", "at_high"),
                *("at", "furthest"),
            )
        },
    ),
    Picture(
        "crowding.saturation",
        "Who carries it",
        f"{_CARRIED} one direction need not add up to one.",
        saturations.carriers,
        {"assets": ("direction", "asset", "share"), "venues": ("direction", "venue", "share")},
    ),
)
