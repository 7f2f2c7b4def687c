"""How often recorded owners acted: rates of their acts, by bucket and by column, and their skill.

Rows are the spans that `behaviour` reads off records. Bands are by owner: who has many rows counts
as one piece of news.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from undertow.econometrics.checks import FloatColumn
from undertow.econometrics.hazards import HazardFit, hazards
from undertow.econometrics.scoring import brier_score
from undertow.errors import EstimationError
from undertow.stress.owners import COLUMNS as OWNER_COLUMNS


def fit_acts(
    rows: pl.DataFrame,
    columns: Sequence[str],
    acts: Sequence[str | tuple[str, ...]],
    *,
    cluster: str = "owner",
    ridge: float = 1.0,
) -> HazardFit:
    """Daily rates of acts by columns of the rows, each act or group of acts a cause.

    Whatever else ended a span is one more cause, the last: the acts asked for might have followed.
    """
    outcome = outcomes(rows, acts)
    causes = len(acts) + int((outcome > len(acts)).any())
    x = rows.select(columns).to_numpy() if columns else np.empty((rows.height, 0))
    return hazards(
        x, outcome, span=rows["span"].to_numpy(), causes=causes,
        cluster=rows[cluster].to_numpy() if rows[cluster].n_unique() > 1 else None, ridge=ridge,
    )  # fmt: skip


def outcomes(rows: pl.DataFrame, acts: Sequence[str | tuple[str, ...]]) -> FloatColumn:
    """The number of each row's act among `acts`: 0 for none, one more than there are for others."""
    groups = [(each,) if isinstance(each, str) else each for each in acts]
    code = {act: float(n) for n, group in enumerate(groups, 1) for act in group}
    other = pl.col("act").replace_strict(code, default=len(groups) + 1.0, return_dtype=pl.Float64)
    found = rows.select(code=pl.when(pl.col("act").is_null()).then(0.0).otherwise(other))
    return found["code"].to_numpy()


def hazards_by(
    rows: pl.DataFrame,
    column: str,
    edges: Sequence[float],
    acts: Sequence[str],
    *,
    level: float = 0.9,
) -> pl.DataFrame:
    """Daily rates of each act between the edges of one column, with bands by owner.

    A bucket of one owner has no band.
    """
    found: list[dict[str, Any]] = []
    for low, high in zip([-math.inf, *edges], [*edges, math.inf], strict=True):
        inside = rows.filter((pl.col(column) >= low) & (pl.col(column) < high))
        if inside.height < 2:
            continue
        fit = fit_acts(inside, (), acts)
        rates = fit.rates(np.empty((1, 0)))[0]
        ends = fit.band(np.empty((1, 0)), level)
        for n, act in enumerate(acts):
            found.append(
                {
                    "from": low, "to": high, "act": act, "owners": inside["owner"].n_unique(),
                    "days": fit.exposure, "events": int(fit.events[n]), "rate": float(rates[n]),
                    "low": float(ends[0][0, n]) if fit.clusters else None,
                    "high": float(ends[1][0, n]) if fit.clusters else None,
                }
            )  # fmt: skip
    return pl.DataFrame(found)


@dataclass(frozen=True, slots=True)
class ActSkill:
    """How much better fitted rates foretell later acts than one constant rate does."""

    rows: int  # that were foretold
    events: int
    brier: float  # of the fit, per row
    brier_constant: float
    gain: float  # of log score over the constant rate, per event; below 0 where it is worse
    low: float  # of the gain, by owner
    high: float

    @property
    def brier_skill(self) -> float:
        """1 - brier/brier_constant: 0 says no better, below 0 worse."""
        return 1.0 - self.brier / self.brier_constant


def act_skill(
    rows: pl.DataFrame,
    columns: Sequence[str],
    act: str | tuple[str, ...],
    *,
    cut: float = 0.6,
    level: float = 0.9,
) -> ActSkill:
    """Fit on the first share `cut` of the events of `act`, and foretell what came later.

    Raises
    ------
    EstimationError
        When the act is on one side of the cut alone.
    """
    ordered = rows.sort("ts")
    times = ordered.filter(outcomes(ordered, [act]) == 1.0)["ts"]
    if len(times) < 2:
        raise EstimationError(f"{act} came {len(times)} times; at least 2 are needed")
    day = times[int(cut * len(times))]
    early, late = ordered.filter(pl.col("ts") < day), ordered.filter(pl.col("ts") >= day)
    truth = (outcomes(late, [act]) == 1.0).astype(np.float64)
    span = late["span"].to_numpy()
    fit, plain = fit_acts(early, columns, [act]), fit_acts(early, (), [act])
    if not fit.events[0]:
        raise EstimationError(f"{act} never came before {day}", hint="cut later")
    given = fit.chances(late.select(columns).to_numpy(), span)[:, 0]
    flat = plain.chances(np.empty((late.height, 0)), span)[:, 0]
    gain = _log_score(truth, given) - _log_score(truth, flat)
    reach = _spread_by(gain, late["owner"].to_numpy(), level)
    events = float(truth.sum())
    total = float(gain.sum())
    return ActSkill(
        late.height, int(events), float(brier_score(truth, given).mean()),
        float(brier_score(truth, flat).mean()), total / events,
        (total - reach) / events, (total + reach) / events,
    )  # fmt: skip


def rates_as_toml(
    rows: pl.DataFrame, acts: tuple[str, ...], *, kind: str, source: str, level: float = 0.9
) -> str:
    """One table `[[rates]]` of `stress/owners.toml`: a fit of some acts, and what it rests on.

    `lowest` and `highest` are the hundredth and the ninety-ninth part of each column.
    """
    fit = fit_acts(rows, OWNER_COLUMNS, [acts])
    size = len(OWNER_COLUMNS) + 1
    x = rows.select(OWNER_COLUMNS).to_numpy()
    names = ", ".join(f'"{act}"' for act in acts)
    columns = ", ".join(f'"{name}"' for name in OWNER_COLUMNS)
    covariance = ",\n".join(f"  {_row(row)}" for row in fit.covariance[:size, :size])
    first, *_, last = rows["ts"].sort().dt.strftime("%Y-%m-%d")
    return f"""[[rates]]
kind = "{kind}"
source = "{source}"
acts = [{names}]
since = {first}
until = {last}
events = {fit.events[0]}
owners = {fit.clusters}
days = {fit.exposure:.1f}
gain = {act_skill(rows, OWNER_COLUMNS, acts).gain:.4f}
level = {level}
columns = [{columns}]
lowest = {_row(np.quantile(x, 0.01, axis=0))}
highest = {_row(np.quantile(x, 0.99, axis=0))}
middle = {_row(fit.middle)}
spread = {_row(fit.spread)}
coefficients = {_row(fit.coefficients[0])}
covariance = [
{covariance},
]
"""


def _row(numbers: FloatColumn) -> str:
    return "[" + ", ".join(f"{float(each):.6g}" for each in numbers) + "]"


def _log_score(truth: FloatColumn, chance: FloatColumn) -> FloatColumn:
    inside = np.clip(chance, 1e-12, 1.0 - 1e-12)
    return np.asarray(truth * np.log(inside) + (1.0 - truth) * np.log1p(-inside))


def _spread_by(gain: FloatColumn, owner: np.ndarray[Any, Any], level: float) -> float:
    """Reach of the band of a sum whose rows are alike within owners; infinite for one owner."""
    _, codes = np.unique(owner, return_inverse=True)
    sums = np.bincount(codes, weights=gain - gain.mean())
    if len(sums) < 2:
        return math.inf
    error = math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1.0))
    return error * float(special.stdtrit(len(sums) - 1, 0.5 + level / 2.0))
