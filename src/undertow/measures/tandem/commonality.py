"""Is there one thing behind all leverage, and how much does it move?"""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.econometrics.absorption import Input, absorption_path, standardised_shift
from undertow.econometrics.bootstrap import Draws, correlation_block, stationary_bootstrap
from undertow.econometrics.common_factor import FactorNull, FactorTest, common_factor
from undertow.econometrics.spectrum import marchenko_pastur, spectrum
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory, Together
from undertow.measures.words import chance, known, percent, told
from undertow.state import FloatMatrix, Reading

_STRONGEST = 0.2  # of the common directions, whose share is absorbed

_READ = (
    "The absorption ratio is the share of all movement that the strongest fifth of the common "
    "directions takes. A shift above 1 says that its mean over the last steps (15, or a fifteenth "
    "of a short past) lies more than a standard deviation above that of its longer past (252). "
    "The number of independent leverages says how many separate bets the nodes really are. The "
    "largest share is published less the bias upward that every largest eigenvalue has, as its "
    "band is; that bias is largest where there is no factor, and then not all of it is taken out: "
    "whether there is one, the p-value says."
)
_MISLEADS = (
    "Even unrelated series have a largest eigenvalue well above their share; that is what the "
    "null is for. Levels, which wander, would show a common factor always: growth is used. "
    "Volatility that rises everywhere at once looks like a factor: growth is scaled by it, and "
    "what of it was missed is in the null too, which keeps how large each shock was and draws its "
    "sign; it takes shocks to be as likely up as down by the same amount."
)


def commonality(
    history: LeverageHistory,
    *,
    seed: int = 0,
    level: float = 0.9,
    window: int | None = None,
    draws: int = 999,
) -> Study:
    """The common factor of growth beyond prices, its null, and how much it absorbs over time.

    The null keeps each node's memory of itself and how large every shock was, so that a time that
    was loud for all stays loud for all; only the signs of shocks are drawn. `window` is that of
    the absorption ratio, 250 steps or a quarter of those there are unless given; its shift
    compares the last 15 steps with 252, or a fifteenth with the whole of what is there where it is
    shorter.
    """
    require_history(history)
    require_seed(seed)
    used = history.usable()
    seen = used.together(Layer.OWN)
    test = common_factor(
        seen.values, rng=np.random.default_rng([seed, 3]), null=FactorNull.FLIPPED, draws=draws,
        level=level,
    )  # fmt: skip
    resampled = stationary_bootstrap(
        _largest, seen.values, rng=np.random.default_rng([seed, 4]), reps=min(draws, 499),
        block=correlation_block(seen.values),
    )  # fmt: skip
    share = max(_STRONGEST, 0.5 / len(seen.labels))  # of two nodes, one
    width = min(250, max(len(seen.ts) // 4, LEAST_ROWS)) if window is None else window
    path = absorption_path(seen.values, width, fraction=share, of=Input.CORRELATION)
    long = min(252, len(path.ratio) - 1)
    shift = np.full(len(path.ratio), np.nan)
    if long >= 30:
        moved = standardised_shift(path.ratio, short=max(2, round(long * 15 / 252)), long=long)
        shift[moved.first_row :] = moved.values
    eigenvalues = spectrum(np.corrcoef(seen.values, rowvar=False)).eigenvalues
    high = test.high if len(test.high) else np.full(len(eigenvalues), np.nan)
    edge = marchenko_pastur(len(seen.labels), len(seen.ts))[1]
    readings = _readings(
        used, test, resampled, len(seen.labels), path.ratio[-1], shift[-1], width, level
    )
    return Study(
        name="tandem.commonality",
        title=f"What all {used.called} has in common",
        readings=readings,
        tables={
            "absorption": pl.DataFrame(
                {
                    "ts": pl.Series(seen.ts[path.first_row :]).cast(pl.Datetime("us", "UTC")),
                    "ratio": path.ratio,
                    "shift": shift,
                }
            ).with_columns(pl.col(pl.Float64).fill_nan(None)),
            "spectrum": pl.DataFrame(
                {
                    "rank": np.arange(1, len(eigenvalues) + 1),
                    "eigenvalue": eigenvalues,
                    "chance_high": high,  # of that rank, by the null of the test
                    "iid_edge": np.full(len(eigenvalues), edge),  # were rows independent and normal
                    "null_high": high,
                }
            ).with_columns(pl.col(pl.Float64).fill_nan(None)),
        },
        says=tuple(_says(used, seen, test, readings[0], float(shift[-1]))),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **seen.left_out},
    )


def _largest(x: FloatMatrix) -> float:
    """Share of the largest eigenvalue of the correlation matrix."""
    return float(np.linalg.eigvalsh(np.corrcoef(x, rowvar=False))[-1] / x.shape[1])


def _centred(
    test: FactorTest, resampled: Draws, nodes: int, level: float
) -> tuple[float, float, float]:
    """The largest share less its bias, and the band that belongs to it; at least an even share."""
    drawn = resampled.draws[np.isfinite(resampled.draws)]
    value = 2.0 * test.largest - float(drawn.mean()) if drawn.size else np.nan
    least, most = (float(np.squeeze(end)) for end in resampled.band(level, basic=True))
    low, high = (float(np.clip(end, 1.0 / nodes, 1.0)) for end in (least, most))
    return float(np.clip(value, low, high)), low, high


def _readings(
    history: LeverageHistory, test: FactorTest, resampled: Draws, nodes: int, ratio: float,
    shift: float, width: int, level: float,
) -> tuple[Reading, ...]:  # fmt: skip
    value, low, high = _centred(test, resampled, nodes, level)
    effective = test.effective
    return (
        history.tell(
            "tandem.common_factor",
            value,
            f"share of the largest eigenvalue of correlations of the {Layer.OWN.words}; less the "
            "bias of the estimate (bootstrap)",
            band=(low, high),
            level=level,
        ),
        history.tell(
            "tandem.absorption",
            ratio,
            f"share of the variance of standardised growth beyond prices that the strongest "
            f"{test.top} directions took in the last {width} steps",
            rows=width,
        ),
        history.tell(
            "tandem.absorption_shift",
            shift,
            "recent mean of the absorption ratio less its longer mean, in standard deviations of "
            "the longer window; empty with less than 30 windows of past",
        ),
        history.tell(
            "tandem.effective_number",
            None if effective is None else effective.participation,
            "number of independent leverages: squared sum over sum of squares of the eigenvalues",
        ),
    )


def _says(
    history: LeverageHistory, seen: Together, test: FactorTest, share: Reading, shift: float
) -> list[str]:
    if test.status:
        return [f"Whether there is a common factor cannot be told: {test.status}."]
    there = test.p_largest < 0.05
    found = "" if there else " was found"
    verdict = (
        f"{'A' if there else 'No'} common factor of {history.called} beyond prices{found}: "
        f"the strongest direction takes {percent(test.largest)} of "
        f"all movement as measured, where unrelated series show up to "
        f"{percent(test.band_largest[1])} ({chance(test.p_largest)})."
    )
    says = [verdict]
    if share.low is not None:
        says.append(
            f"Less the bias of the estimate it is {percent(share.value)} ({percent(share.low)} to "
            f"{percent(share.high)})."
        )
    if test.effective is not None:
        says.append(
            f"The {len(seen.labels)} nodes move like {told(test.effective.participation)} "
            "independent ones."
        )
    if known(shift) is None:
        says.append("Too few windows to say if it tightened lately.")
    else:
        how = "tightened" if shift > 1.0 else "loosened" if shift < -1.0 else "did not change much"
        says.append(f"Lately it {how}: a shift of {told(shift)} standard deviations.")
    return says
