"""Shock one asset alone: what else unwinds, and through which channel; then hold it to history.

Rows of a matrix are what is shocked, columns the nodes that delever; see `falls` for the channels
and `agreement` for what history is asked.
"""

from __future__ import annotations

from math import isnan

from undertow.errors import StateError
from undertow.fanout import Executor, Serial
from undertow.measures.door import require_book, require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.agreement import Agreement
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.falls import CHANNELS, IMPACT, Board
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.owners import Band, Owned
from undertow.measures.words import chance, listed, many, percent, told
from undertow.rules.coverage import Coverage
from undertow.rules.leverage import GROUPS
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.stress.cascade import settle
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.shock import require_within

_WORDS = (
    "contracts closed, collateral taken and debt repaid of what stands in the node, valued before "
    "the shock, over all of it"
)
_SURE = 0.05
_TOP = 5  # pairs with a reading of their own
_READ = (
    "A row is an asset that falls alone, a column a node; a cell is the share of the node's "
    "exposure that is closed by force, 0 where that was worked out and nothing is. An asset that "
    "every venue takes at an exchange rate has a column and no row. Own price: accounts that the "
    "shock itself called, in what was shocked. Tie: the same in assets that follow it. Shared "
    "account: what else those accounts held and owed. Winners closed: positions of others, taken "
    "to cover what bankrupt accounts lacked. Impact: what forced sales closed on top by moving "
    "prices; negative where they spared somebody. Bands say how far it hangs on single owners: "
    "each is drawn anew, some twice, some not at all, with prices as they came; that of the "
    "agreement leaves out one node at a time."
)
_MISLEADS = (
    "It is what rules and holdings of one instant would do if nothing else moved: no owner "
    "responds unless asked to, and real shocks seldom come alone. It is mechanical and large "
    "where the estimated connectedness is of small daily shocks, so the two may differ and both "
    "be right. What is not seen of the book unwinds nowhere here. An owner who was not called in "
    "this book is called in no draw, so where few are called bands are too narrow, and where "
    "nobody is there is none."
)


def unwind(
    snapshot: Snapshot | Plan,
    *,
    fall: float = 0.25,
    by: str = "asset",
    options: Options | None = None,
    executor: Executor | None = None,
    history: LeverageHistory | None = None,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 999,
) -> Study:
    """Let each asset fall alone by `fall`, and say what share of every node is closed by force.

    The book is settled first, so that what was due anyway does not count. Money and receipts of
    money are never shocked, and among assets they are no nodes: what is repaid in them is the other
    side of what is closed. An asset that follows another falls against it; one that every venue
    takes at an exchange rate is a node and not shocked, since nobody would see it. Means are over
    what is shocked.

    With a `history`, the matrix is held against the connectedness of growth beyond prices: rank
    correlation over ordered pairs, with a p-value from relabelling nodes. By assets, closing in j
    after a fall of i stands against what i gives to j; by other nodes, how alike their columns are
    (cosine) against what the two give each other.

    Raises
    ------
    StateError
        When the fall is none, the division is unknown, or nothing can be shocked.

    References
    ----------
    Diebold and Yilmaz (2014), J. Econometrics 182. Krackhardt (1988), quadratic assignment.
    """
    require_book(snapshot)
    if history is not None:
        require_history(history)
    require_seed(seed)
    require_within("fall", fall, 0.0, 0.999, open_low=True)
    if by not in GROUPS:
        raise StateError(f"there is no division by {by!r}", hint=f"have {', '.join(GROUPS)}")
    options = options or Options()
    plan = snapshot if isinstance(snapshot, Plan) else Plan.of(snapshot)
    board = Board.of(settle(plan, options).plan, by, fall, options)
    owned = Owned.of(board, executor or Serial(), seed, level)
    run = owned.run
    agreed = None if history is None else Agreement.of(run, history, seed, reps, level)
    tables = {"losses": run.losses(), "matrix": run.matrix(), "channels": run.channels()}
    if agreed is not None:
        tables |= {"agreement": agreed.table(), "compared": agreed.compared}
    left_out = {**board.left_out, **({} if agreed is None else agreed.left_out)}
    return Study(
        name="tandem.unwind",
        title=f"What unwinds when one asset falls by {percent(fall)}",
        readings=tuple(_readings(owned, agreed, level)),
        tables=tables,
        says=tuple(_says(owned, agreed)),
        how_to_read=_READ if history is None else f"{_READ} {history.pace}",
        misleads=_MISLEADS if history is None else f"{_MISLEADS} {ONE_BASKET}",
        left_out=left_out,
    )


def _readings(owned: Owned, agreed: Agreement | None, level: float) -> list[Reading]:
    run = owned.run
    snapshot = run.board.plan.snapshot
    covered = Coverage.of(snapshot).share
    fall = percent(run.board.fall)

    def tell(name: str, value: float, definition: str, band: Band, subject: str = "") -> Reading:
        low, high = (None if isnan(end) or isnan(value) else end for end in band)
        return Reading(
            name, None if isnan(value) else value, "1", definition, snapshot.ts, "modelled",
            snapshot.digest, subject=subject, coverage=covered, low=low, high=high,
            level=None if low is None else level,
        )  # fmt: skip

    pairs = "two different assets" if run.board.by == "asset" else f"an asset and a {run.board.by}"
    mean = (
        f"mean over all pairs of {pairs}, the first falling alone by {fall} where venues would see "
        f"that, of {_WORDS}"
    )
    sure = "; owners drawn anew, and no band where nothing is closed"
    found = [tell("tandem.spill", run.spill(), f"{mean}{sure}", owned.spill())]
    found += [
        tell("tandem.spill", run.spill(c), f"{mean}; the part through {name}{sure}",
             owned.spill(c), name)
        for c, name in enumerate(CHANNELS)
    ]  # fmt: skip
    for _, (first, second, share, band) in zip(range(_TOP), owned.pairs(), strict=False):
        found.append(
            tell(
                "tandem.unwound", share,
                f"share of the second that is closed by force when the first falls alone by "
                f"{fall}: {_WORDS}{sure}",
                band,
                f"{first} > {second}",
            )
        )  # fmt: skip
    if agreed is not None:
        found.append(
            tell(
                "tandem.agreement", agreed.spearman,
                "rank correlation over pairs of nodes between what the cascade closes in one when "
                f"the other falls and the estimated connectedness of {agreed.called} beyond "
                "prices; none where either cannot be told, and no band where both have one order",
                (agreed.low, agreed.high),
            )
        )  # fmt: skip
    return found


def _says(owned: Owned, agreed: Agreement | None) -> list[str]:
    run = owned.run
    fall = percent(run.board.fall)
    other = "other assets" if run.board.by == "asset" else f"the nodes by {run.board.by}"
    spill = run.spill()
    if isnan(spill):
        says = ["Whether one asset's fall unwinds others cannot be told: there is one asset only."]
    elif not run.usd.any():
        says = [f"Nothing unwinds: no asset that falls alone by {fall} calls anybody."]
    else:
        parts = sorted(((run.spill(c), name) for c, name in enumerate(CHANNELS)), reverse=True)
        whole = sum(max(value, 0.0) for value, _ in parts)
        through = [f"{name} ({percent(value / whole)})" for value, name in parts if value > 0.0]
        says = [
            f"An asset that falls alone by {fall} unwinds {percent(spill)}{_ends(owned.spill())} "
            f"of {other} on average" + (f", through {listed(through)}." if through else ".")
        ]
    falling = f"{many(len(run.shocked), 'asset')} fell alone: {listed(run.shocked)}."
    if run.board.unseen:
        falling += (
            f" {listed(run.board.unseen)} did not: every venue takes them at an exchange rate, "
            "which does not see them fall."
        )
    says.append(falling)
    top = [f"{b} by {percent(share)} when {a} falls" for a, b, share in run.top()]
    if top:
        says.append(f"The most: {listed(top[:3])}.")
    spared = run.spill(IMPACT)
    if spared < 0.0:
        says.append(f"Forced trades spared more than they hit: {percent(-spared)} on average.")
    selling = [name for name, rest in zip(run.shocked, run.settled, strict=True) if not rest]
    if selling:
        says.append(
            f"Still selling after {many(run.board.options.max_rounds, 'round')} when these fell: "
            f"{listed(selling)}; what they close is a lower bound."
        )
    if agreed is None:
        says.append("Not held against history: none was given.")
    else:
        says.append(_agreement_words(agreed))
    return says


def _ends(band: Band) -> str:
    low, high = band
    return "" if isnan(low) else f" ({percent(low)} to {percent(high)})"


def _agreement_words(agreed: Agreement) -> str:
    what = f"the estimated connectedness of {agreed.called}"
    if agreed.reason:
        return f"Whether {what} agrees with mechanical unwinding cannot be told: {agreed.reason}."
    ends = "" if isnan(agreed.low) else f" ({told(agreed.low)} to {told(agreed.high)})"
    numbers = (
        f"rank correlation {told(agreed.spearman)}{ends} over {many(len(agreed.nodes), 'node')}, "
        f"{chance(agreed.spearman_p)}"
    )
    if agreed.spearman_p >= _SURE:
        return (
            f"Mechanical unwinding and {what} agree no more than chance: {numbers}. That is no "
            "proof that they differ."
        )
    if agreed.spearman > 0.0:
        return f"Mechanical unwinding and {what} agree: {numbers}."
    return f"Mechanical unwinding and {what} contradict each other: {numbers}."
