"""Is there one thing behind all leverage, and how much does it move?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import ndtri

from undertow.econometrics.absorption import (
    Input,
    absorption_path,
    counted,
    standardised_shift,
)
from undertow.econometrics.bootstrap import Draws, correlation_block, stationary_bootstrap
from undertow.econometrics.common_factor import FactorNull, FactorTest, common_factor
from undertow.econometrics.influence import absorbed_moves, weighted_error
from undertow.econometrics.spectrum import marchenko_pastur, spectrum
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory, Together
from undertow.measures.words import chance, percent, told
from undertow.state import FloatColumn, FloatMatrix, Reading

_SELDOM = 0.05  # a chance below which a factor counts as there
_STRONGEST = 0.2  # of the common directions, whose share is absorbed

_READ = (
    "The absorption ratio is the share of all movement that the strongest fifth of the common "
    "directions takes. A shift above 1 says that its mean over the last steps (15, or a fifteenth "
    "of a short past) lies more than a standard deviation above that of its longer past (252). "
    "The number of independent leverages says how many separate bets the nodes really are. The "
    "largest share is published less the bias upward that every largest eigenvalue has, as its "
    "band is; that bias is largest where there is no factor, and then not all of it is taken out: "
    "whether there is one, the p-value says, and neither that share nor absorption has a band "
    "unless it is small. Of the absorption ratio and of the number of "
    "independent leverages, which noise makes too small, the same is true; the ratio over time is "
    "as measured."
)
_MISLEADS = (
    "Even unrelated series have a largest eigenvalue well above their share; that is what the "
    "null is for. Levels, which wander, would show a common factor always: growth is used. "
    "Volatility that rises everywhere at once looks like a factor: growth is scaled by it, and "
    "what of it was missed is in the null too, which keeps how large each shock was and draws its "
    f"sign; it takes shocks to be as likely up as down by the same amount. {ONE_BASKET}"
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
        level=level, again=seen.again,
    )  # fmt: skip
    share = max(_STRONGEST, 0.5 / len(seen.labels))  # of two nodes, one
    width = min(250, max(len(seen.ts) // 4, LEAST_ROWS)) if window is None else window
    path = absorption_path(seen.values, width, fraction=share, of=Input.CORRELATION)
    shift, tightened = _shifted(seen.values, path.ratio, width, share, level)
    eigenvalues = spectrum(np.corrcoef(seen.values, rowvar=False)).eigenvalues
    high = test.high if len(test.high) else np.full(len(eigenvalues), np.nan)
    edge = marchenko_pastur(len(seen.labels), len(seen.ts))[1]
    readings = _readings(used, test, _Sure.of(seen, share, width, seed, draws, level), tightened)
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
                }
            ).with_columns(pl.col(pl.Float64).fill_nan(None)),
        },
        says=tuple(_says(used, seen, test, readings)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out={**history.left_out, **seen.left_out},
    )


Band = tuple[float, float, float]  # value, low, high


def _shifted(
    x: FloatMatrix, ratio: FloatColumn, width: int, share: float, level: float
) -> tuple[FloatColumn, Band]:
    """The standardised shift at every step, and the newest with its band.

    The shift weighs rows of the past unevenly: those that only recent windows hold by more than 0,
    older ones by less. Its band is that of the weighted sum of what each row moves absorption by,
    in units of the deviation that it is standardised with, which is taken as it is.
    """
    shift = np.full(len(ratio), np.nan)
    long = min(252, len(ratio) - 1)
    if long < 30:
        return shift, (np.nan, np.nan, np.nan)
    short = max(2, round(long * 15 / 252))
    moved = standardised_shift(ratio, short=short, long=long)
    shift[moved.first_row :] = moved.values
    spread = float(np.std(ratio[-long:], ddof=1))
    windows = np.full(long, -1.0 / long)
    windows[-short:] += 1.0 / short
    weights = np.convolve(windows, np.full(width, 1.0 / width))
    moves = absorbed_moves(x[-len(weights) :], counted(share, x.shape[1]))
    reach = float(ndtri(0.5 + 0.5 * level)) * weighted_error(moves, weights)
    reach = reach / spread if spread > 0.0 else np.nan
    newest = float(shift[-1])
    return shift, (newest, newest - reach, newest + reach)


@dataclass(frozen=True, eq=False)
class _Sure:
    """Numbers read off eigenvalues, less the bias of each, with the bands that belong to them."""

    largest: Band
    absorbed: Band
    independent: Band
    top: int
    width: int
    level: float

    @classmethod
    def of(
        cls, seen: Together, share: float, width: int, seed: int, draws: int, level: float
    ) -> _Sure:
        """Resample all steps, and those of the newest window."""
        nodes, reps = len(seen.labels), min(draws, 499)
        top = counted(share, nodes)
        block = correlation_block(seen.values)

        def drawn(statistic: Callable[[FloatMatrix], FloatColumn], rows: int, place: int) -> Draws:
            return stationary_bootstrap(
                statistic, seen.values[-rows:], rng=np.random.default_rng([seed, place]),
                reps=reps, block=block,
            )  # fmt: skip

        whole = drawn(_largest_and_squares, len(seen.ts), 4)
        newest = drawn(lambda x: _shares(x)[-top:].sum(keepdims=True), width, 44)
        largest, squares = _centred(whole, level, 1.0 / nodes)
        (absorbed,) = _centred(newest, level, top / nodes)
        independent = (1.0 / squares[0], 1.0 / squares[2], 1.0 / squares[1])
        return cls(largest, absorbed, independent, top, width, level)


def _shares(x: FloatMatrix) -> FloatColumn:
    """Eigenvalues of the correlation matrix, the smallest first, as shares of their sum."""
    return np.asarray(np.linalg.eigvalsh(np.corrcoef(x, rowvar=False)) / x.shape[1])


def _largest_and_squares(x: FloatMatrix) -> FloatColumn:
    """The largest share, and the sum of their squares: 1 over the number of independent ones."""
    shares = _shares(x)
    return np.array([shares[-1], shares @ shares])


def _centred(resampled: Draws, level: float, least: float) -> list[Band]:
    """Each statistic less its bias, and the band that belongs to it; none below `least`."""
    low, high = (np.clip(end, least, 1.0) for end in resampled.band(level, basic=True))
    mean = np.nanmean(resampled.draws, axis=0)
    value = np.clip(2.0 * resampled.estimate - mean, low, high)
    return [(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]


def _distinct(test: FactorTest) -> bool:
    """Whether chance alone would seldom have made so large a share."""
    return test.p_largest < _SELDOM


def _readings(
    history: LeverageHistory, test: FactorTest, sure: _Sure, shift: Band
) -> tuple[Reading, ...]:
    def tell(name: str, band: Band, definition: str, rows: int | None = None) -> Reading:
        return history.tell(name, band[0], definition, band=band[1:], level=sure.level, rows=rows)

    largest, absorbed, why = sure.largest, sure.absorbed, ""
    if not _distinct(test):  # all directions are alike, and noise decides which is the strongest
        largest, absorbed = (largest[0], np.nan, np.nan), (absorbed[0], np.nan, np.nan)
        why = (
            "; no band: the largest share is not distinct from chance, and where no direction is "
            "stronger than others none holds as often as it says"
        )
    return (
        tell(
            "tandem.common_factor",
            largest,
            f"share of the largest eigenvalue of correlations of the {Layer.OWN.words}; less the "
            f"bias of the estimate (bootstrap){why}",
        ),
        tell(
            "tandem.absorption",
            absorbed,
            f"share of the variance of standardised growth beyond prices that the strongest "
            f"{sure.top} directions took in the last {sure.width} steps; less the bias of the "
            f"estimate (bootstrap){why}",
            sure.width,
        ),
        tell(
            "tandem.absorption_shift",
            shift,
            "recent mean of the absorption ratio less its longer mean, in standard deviations of "
            "the longer window; empty with less than 30 windows of past. Its band says how far "
            "noise alone would have carried it",
        ),
        tell(
            "tandem.effective_number",
            sure.independent,
            "number of independent leverages: squared sum over sum of squares of the eigenvalues, "
            "less the bias of the estimate (bootstrap)",
        ),
    )


def _says(
    history: LeverageHistory, seen: Together, test: FactorTest, readings: tuple[Reading, ...]
) -> list[str]:
    share, _, shift, independent = readings
    if test.status:
        return [f"Whether there is a common factor cannot be told: {test.status}."]
    there = _distinct(test)
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
    if independent.value is not None and independent.low is not None:
        says.append(
            f"The {len(seen.labels)} nodes move like {told(independent.value)} "
            f"({told(independent.low)} to {told(independent.high)}) independent ones."
        )
    if shift.value is None:
        says.append("Too few windows to say if it tightened lately.")
    else:
        how = "tightened" if shift.value > 1.0 else "loosened" if shift.value < -1.0 else ""
        how = how or "did not change much"
        noise = shift.low is not None and shift.high is not None and shift.low < 0.0 < shift.high
        unsure = ", which noise alone may have made" if abs(shift.value) > 1.0 and noise else ""
        says.append(f"Lately it {how}: a shift of {told(shift.value)} standard deviations{unsure}.")
    return says
