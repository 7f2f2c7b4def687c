"""The figures of who stands on whom, and the columns each of them stands on."""

from __future__ import annotations

from undertow.report import losses, webs
from undertow.report.picture import Picture

INTERCONNECTION: tuple[Picture, ...] = (
    Picture(
        "interconnection.map",
        "What leads through each keeper",
        "Bars are the share of what accounts hold that leads through a keeper on its way to the "
        "bottom, loans followed to what borrowers posted; red marks are the share of all claims "
        "told that it owes. One dollar may lead through several.",
        webs.keepers,
        {
            "keepers": (
                *("node", "kind", "claims_usd", "claims_share"),
                *("passes_usd", "passes"),
            )
        },
    ),
    Picture(
        "interconnection.map",
        "What it is made of at the bottom",
        "All that accounts hold, followed to its end; hatched red is what ends in nothing, in a "
        "circle without a way out, or where no table goes on.",
        webs.ends,
        {"ends": ("end", "usd", "share")},
    ),
    Picture(
        "interconnection.reuse",
        "Claims on each dollar at the bottom",
        "A bar is all claims that stand on a base asset over what lies at the bottom of it, layer "
        "by layer: places where it is deposited or posted, loans, tokens, keepers.",
        webs.layers,
        {"bases": ("asset", "root_usd", "places_usd", "loans_usd", "tokens_usd", "keepers_usd")},
    ),
    Picture(
        "interconnection.reuse",
        "Tokens that stand on themselves, or on nothing",
        "The circle is the share of claims on a token that can be cancelled against claims that "
        "stand on the token itself, the square the same where every claim on a pool stands on the "
        "same mix; between them nobody can know. Bars are claims that nothing told stands behind.",
        webs.self_backed,
        {
            "tokens": (
                *("asset", "backed", "self_backed", "multiplier"),
                *("self_backed_pooled", "multiplier_pooled"),
            )
        },
    ),
    Picture(
        "interconnection.reuse",
        "Claims on each dollar over time",
        "The same multiplier at every instant at which the book is known, of the largest base "
        "assets.",
        webs.over_time,
        {"over_time": ("ts", "asset", "claims_usd", "multiplier")},
    ),
    Picture(
        "interconnection.loops",
        "Loops by what is posted and owed",
        "Left: assets over equity of all loops of a tie. Right: by how much borrow rates may rise "
        "before carry is gone, the point for the median loop, the red mark for the first to go; "
        "left of zero it is gone already.",
        webs.ties,
        {
            "ties": (
                *("collateral", "debt", "accounts", "debt_usd", "leverage"),
                *("headroom_least", "headroom_median"),
            )
        },
    ),
    Picture(
        "interconnection.loops",
        "What a rise of borrow rates drives out",
        "Left: debt of loops whose carry is below nothing after the rise. Right: what selling to "
        "repay it all at once would lose to prices, over that debt.",
        webs.unwinding,
        {"unwinding": ("rise", "accounts", "debt_usd", "cost_usd", "fall")},
    ),
    Picture(
        "interconnection.calls",
        "Calls in the order of time",
        "What venues ask in each round of the cascade: hatched red of owners whom several venues "
        "call at once. Grey marks are what free assets do not meet.",
        webs.called,
        {
            "rounds": (
                *("after_us", "calls", "owners", "need_usd", "unmet_usd"),
                "synchronised_need_usd",
            )
        },
    ),
    Picture(
        "interconnection.calls",
        "Calls of several venues at once, by the size of a fall",
        "How many calls come together with another venue's on the same owner, and what they ask "
        "over all that is asked.",
        webs.ladder,
        {
            "ladder": (
                *("fall", "calls", "synchronised_calls", "synchronised_need_usd"),
                "synchronised_share",
            )
        },
    ),
    Picture(
        "interconnection.calls",
        "Which venues call together",
        "A field is what the venue of its row asks of owners whom the venue of its column calls "
        "at the same time.",
        webs.pairs,
        {"pairs": ("venue", "other", "need_usd")},
    ),
    Picture(
        "interconnection.contagion",
        "What each channel adds",
        "The loss with no channel on, by the plain cascade, with one channel more, with one less, "
        "and with all. Red is lost for good by anybody but borrowers and traders, blue is what "
        "parties of claims and those whom no claim names bear of it.",
        losses.by_channel,
        {"channels": ("way", "channel", "lost_usd", "borne_usd")},
    ),
    Picture(
        "interconnection.contagion",
        "What it hangs on that nobody knows",
        "Each line is one assumption moved to its two ends while all others stay: a range over "
        "assumptions, and no band of confidence.",
        losses.by_assumption,
        {
            "assumptions": (
                *("assumption", "low", "high"),
                *("borne_at_low_usd", "borne_at_high_usd"),
            )
        },
    ),
    Picture(
        "interconnection.contagion",
        "Who bears it, and who pays less",
        "Left: what each party bears. Right: the share of what it owes that it pays, the point by "
        "the greatest payments that fit, the red mark by the least.",
        losses.bearers,
        {"parties": ("party", "share", "least_share", "bears_usd")},
    ),
    Picture(
        "interconnection.contagion",
        "What claims lose in value",
        "A ledger apart, never added to what was lost: between clearing, where only who cannot pay "
        "costs anything, and linear marks, where every dollar of a debtor's equity does. Diamonds "
        "are what is expected by the horizon, crosses the original single hit.",
        losses.marked,
        {
            "valuation": (
                *("party", "clearing_usd", "ahead_usd", "linear_usd"),
                "single_hit_usd",
            )
        },
    ),
    Picture(
        "interconnection.paths",
        "Which channel did it",
        "Bars divide the loss among channels, over all orders in which they could be switched on; "
        "the point is what the channel does alone, the red mark how much less it would be without.",
        losses.shares,
        {"channels": ("channel", "shapley_usd", "error_usd", "share", "alone_usd", "off_usd")},
    ),
    Picture(
        "interconnection.paths",
        "Where it came from",
        "The same over the prices that were shocked and the nodes that failed.",
        losses.origins,
        {"origins": ("origin", "shapley_usd", "error_usd", "share", "alone_usd", "off_usd")},
    ),
    Picture(
        "interconnection.paths",
        "The heaviest ways from the shock to a loss",
        "From left to right: the shock (red), what was sold (blue), prices (grey), who could not "
        "pay (dark), and who bears it. As wide as what the chain carries.",
        losses.chains,
        {
            "chains": ("bearer", "rank", "usd"),
            "steps": ("bearer", "rank", "step", "kind", "name", "says", "usd"),
        },
    ),
    Picture(
        "interconnection.nodes",
        "Places by every ranking",
        "The number is a node's place by the ranking of its column, 1 the most systemic; a hole is "
        "a ranking that says nothing of the node. Rankings answer different questions, and rows "
        "whose colours differ are nodes on which they disagree.",
        losses.places,
        {"ranks": ("ranking", "node", "value", "rank", "rank_low", "rank_high")},
    ),
    Picture(
        "interconnection.nodes",
        "Do rankings agree?",
        "Kendall's tau of two rankings over the nodes that both rank: 1 the same order, -1 the "
        "reverse, about 0 none.",
        losses.agreement,
        {"agreement": ("ranking", "other", "kendall")},
    ),
    Picture(
        "interconnection.links",
        "How far it hangs on links that nobody knows",
        "Grey lines reach over all drawn networks that have the known totals, blue over most of "
        "them. The searched worst is no end of what is possible; a bound is drawn where it is "
        "proved.",
        losses.ranges,
        {
            "numbers": (
                *("number", "unit", "even", "few", "least", "low", "high", "greatest"),
                *("searched", "bound", "as_told"),
            )
        },
    ),
)
