"""Connectedness against published tables, its definition, itself in windows, and planted ties."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import polars as pl
import pytest
from bench.connectedness import plain_table, planted
from scipy.signal import lfilter

from shared import Case, check_all, shared_folder
from undertow.econometrics.autoregression import autoregression
from undertow.econometrics.connectedness import (
    TOO_FEW,
    UNFOUNDED,
    Connectedness,
    Scheme,
    connectedness,
    decomposition,
    summary,
)
from undertow.econometrics.connectedness_bands import connectedness_bands, connectedness_null
from undertow.econometrics.connectedness_rolling import (
    LeftOut,
    RollingConnectedness,
    rolling_connectedness,
    window_null,
)
from undertow.econometrics.equations import FLAT, TOLD, ElasticNet, Estimator, LeastSquares, Ridge
from undertow.econometrics.penalties import choose_penalty
from undertow.errors import EstimationError

HUB = np.array([[0.4, 0.0, 0.0, 0.0], [0.4, 0.3, 0.0, 0.0], [0.4, 0.0, 0.3, 0.0], [0.4, 0, 0, 0.3]])


def followed(step: np.ndarray, rows: int, seed: int, together: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = len(step)
    tie = np.linalg.cholesky((1.0 - together) * np.eye(n) + together)
    shocks = rng.standard_normal((rows + 50, n)) @ tie.T
    x = np.zeros_like(shocks)
    for t in range(1, len(x)):
        x[t] = step @ x[t - 1] + shocks[t]
    return x[50:]


def by_loops(
    coefficients: np.ndarray, covariance: np.ndarray, horizon: int, cholesky: bool
) -> np.ndarray:
    """The formula as it is printed, one element at a time; rows not normalised."""
    lags, n, _ = coefficients.shape
    moved = [np.eye(n)]
    for h in range(1, horizon):
        moved.append(sum(coefficients[l] @ moved[h - 1 - l] for l in range(min(lags, h))))
    root = np.linalg.cholesky(covariance)
    shares = np.zeros((n, n))
    for i in range(n):
        whole = sum(a[i] @ covariance @ a[i] for a in moved)
        for j in range(n):
            given = root[:, j] if cholesky else covariance[:, j] / np.sqrt(covariance[j, j])
            shares[i, j] = sum((a[i] @ given) ** 2 for a in moved) / whole
    return shares


# ---- published tables


def columns(name: str) -> np.ndarray:
    frame = pl.read_parquet(shared_folder() / "oracles" / name)
    return frame.select(pl.col(pl.Float64)).to_numpy()


def published(case: Case, _: dict[str, object]) -> set[str]:
    given, expected, tol = case["inputs"], case["expected"], case["tol"]
    x = columns(given["data"])
    first, last = given.get("rows", (0, len(x)))
    scheme = Scheme.GENERALISED if given["generalized"] else Scheme.CHOLESKY
    asked = {"lags": given["nlag"], "horizon": given["horizon"], "scheme": scheme}
    found = connectedness(x[first:last], **asked)
    assert found.status == ""
    compare(found, expected, tol)
    if "rows" in given:  # the same window, met on the way by one that moves
        begun, window = max(first - 90, 0), last - first
        rolled = rolling_connectedness(x[begun:last], window, tables=True, **asked)
        assert begun + rolled.end[-1] == last
        assert rolled.total[-1] == pytest.approx(found.total, rel=1e-10)
        assert np.allclose(rolled.tables[-1], found.table, rtol=1e-9)
        assert np.allclose(100.0 * rolled.net[-1], expected["NET"], tol["rel"], tol["abs"])
    return set(expected)


def compare(found: Connectedness, expected: dict[str, object], tol: dict[str, float]) -> None:
    values = {
        "TCI": 100.0 * found.total, "cTCI": 100.0 * found.corrected, "TO": 100.0 * found.to,
        "FROM": 100.0 * found.from_, "NET": 100.0 * found.net, "fevd": found.table,
        "NPT": found.transmissions,
    }  # fmt: skip
    printed = {
        "published_TCI": values["TCI"], "published_TO": values["TO"],
        "published_NET": values["NET"], "published_table_pct": 100.0 * found.table,
        "published_FROM": values["FROM"],
    }  # fmt: skip
    for name, wanted in expected.items():
        if name in printed:
            assert np.abs(printed[name] - np.array(wanted)).max() <= 0.005 + 1e-9, name
        else:
            assert np.allclose(values[name], wanted, tol["rel"], tol["abs"]), name


def test_published_tables_and_windows_come_out() -> None:
    check_all("spillover_diebold_yilmaz", published)


# ---- the formula


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize(("lags", "horizon"), [(1, 1), (1, 10), (3, 7)])
def test_shares_are_those_of_the_printed_formula(scheme: Scheme, lags: int, horizon: int) -> None:
    fit = autoregression(followed(HUB, 200, 1, together=0.4), lags)
    raw = by_loops(fit.coefficients, fit.covariance, horizon, scheme is Scheme.CHOLESKY)
    found = decomposition(fit.coefficients, fit.covariance, horizon, scheme, normalise=False)
    assert np.allclose(found, raw, rtol=1e-11)
    found = decomposition(fit.coefficients, fit.covariance, horizon, scheme)
    assert np.allclose(found, raw / raw.sum(axis=1, keepdims=True), rtol=1e-11)
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-14)


def test_a_table_adds_up_and_its_parts_agree() -> None:
    found = connectedness(followed(HUB, 300, 2))
    off = found.table - np.diag(np.diag(found.table))
    assert np.allclose(found.to, off.sum(axis=0), atol=1e-15)
    assert np.allclose(found.from_, off.sum(axis=1), atol=1e-15)
    assert found.net.sum() == pytest.approx(0.0, abs=1e-14)
    assert np.allclose(found.pairwise.sum(axis=0), found.net, atol=1e-15)
    assert (found.transmissions == (found.pairwise > 0.0).sum(axis=0)).all()
    assert found.total == pytest.approx(off.sum() / 4.0)
    assert found.corrected == pytest.approx(found.total * 4.0 / 3.0)
    assert found.net.argmax() == 0
    assert found.transmissions[0] == 3.0
    assert not found.table.flags.writeable


def test_units_change_nothing_and_the_order_of_columns_only_what_cholesky_says() -> None:
    x = followed(HUB, 250, 3, together=0.3)
    turn = np.array([2, 0, 3, 1])
    for scheme in Scheme:
        found = connectedness(x, scheme=scheme)
        louder = connectedness(x * [1e-6, 1.0, 1e5, -3.0] + 7.0, scheme=scheme)
        assert np.allclose(found.table, louder.table, rtol=1e-8)
        turned = connectedness(x[:, turn], scheme=scheme)
        same = np.allclose(turned.table, found.table[np.ix_(turn, turn)], rtol=1e-10)
        assert same == (scheme is Scheme.GENERALISED)


@pytest.mark.parametrize("estimator", [LeastSquares(), ElasticNet(0.08)])
def test_a_planted_hub_comes_back(estimator: Estimator) -> None:
    """400 rows: the hub is the one that gives, in 40 samples out of 40, and by how much."""
    truth = decomposition(HUB[None], np.eye(4))
    to, _, total, _ = summary(truth)
    found = [connectedness(followed(HUB, 400, s), estimator=estimator) for s in range(40)]
    assert all(f.net.argmax() == 0 and (f.net[1:] < 0.0).all() for f in found)
    shrunk = not isinstance(estimator, LeastSquares)
    assert np.mean([f.total for f in found]) == pytest.approx(total, abs=0.08 if shrunk else 0.02)
    assert np.mean([f.to[0] for f in found]) == pytest.approx(to[0], abs=0.3 if shrunk else 0.04)


# ---- windows


def alike(rolled: RollingConnectedness, x: np.ndarray, window: int, near: float, **asked) -> None:
    """Each window is what `connectedness` says of its rows."""
    for place, end in enumerate(rolled.end):
        one = connectedness(x[end - window : end], **asked)
        assert (one.status == "") == (rolled.status[place] == ""), (one.status, place)
        assert [bool(r) for r in one.left_out] == (rolled.left_out[place] > 0).tolist()
        assert np.allclose(rolled.tables[place], one.table, atol=near, equal_nan=True)
        assert np.allclose(rolled.net[place], one.net, atol=near * 10, equal_nan=True)
        assert rolled.corrected[place] == pytest.approx(one.corrected, abs=near, nan_ok=True)


@pytest.mark.parametrize(
    ("estimator", "near"), [(LeastSquares(), 1e-10), (Ridge(0.1), 1e-10), (ElasticNet(0.05), 1e-6)]
)
@pytest.mark.parametrize(("lags", "step"), [(1, 1), (3, 7), (2, 60)])
def test_every_window_is_what_its_rows_alone_say(
    estimator: Estimator, near: float, lags: int, step: int
) -> None:
    x = followed(HUB, 280, 4, together=0.2) * [1.0, 1e3, 1e-4, 1.0]
    rolled = rolling_connectedness(x, 100, lags, step=step, estimator=estimator, tables=True)
    assert rolled.end.tolist() == list(range(100, 281, step))
    alike(rolled, x, 100, near, lags=lags, estimator=estimator)


def test_windows_do_not_drift_from_the_truth_behind_a_spike() -> None:
    x = followed(HUB, 700, 5)
    x[40] *= 1e6
    rolled = rolling_connectedness(x, 60, tables=True)
    for place in (45, 63, 64, 100, 640):
        one = connectedness(x[place : place + 60])
        assert np.allclose(rolled.tables[place], one.table, atol=1e-9)


def test_sixty_series_roll_as_the_plain_way_says() -> None:
    x = planted(rows=262)
    for estimator, penalty, near in ((LeastSquares(), None, 1e-8), (ElasticNet(0.12), 0.12, 1e-6)):
        rolled = rolling_connectedness(x, 250, step=6, estimator=estimator, tables=True)
        assert len(rolled.end) == 3
        for place, end in enumerate(rolled.end):
            wanted = plain_table(x[end - 250 : end], penalty, exact=True)
            assert np.abs(rolled.tables[place] - wanted).max() < near


def test_a_series_that_comes_late_stops_or_repeats_is_left_out_while_it_does() -> None:
    x = followed(HUB, 260, 6)
    x = np.column_stack([x, x[:, 0]])
    x[:30, 1] = np.nan
    x[120:210, 2] = x[120, 2]
    x[200:, 4] = np.random.default_rng(7).standard_normal(60)  # a copy no longer
    x[250, 3] = np.nan
    rolled = rolling_connectedness(x, 60, step=5, tables=True)
    starts = rolled.end - 60
    assert ((rolled.left_out[:, 1] == LeftOut.MISSING) == (starts < 30)).all()
    assert ((rolled.left_out[:, 3] == LeftOut.MISSING) == (rolled.end > 250)).all()
    assert ((rolled.left_out[:, 4] == LeftOut.COPY) == (rolled.end <= 200)).all()
    still = (starts >= 119) & (rolled.end <= 211)
    assert (rolled.left_out[still, 2] == LeftOut.CONSTANT).all()
    assert not rolled.left_out[(starts < 115) | (rolled.end > 215), 2].any()
    assert set(rolled.status) == {""}
    assert np.isfinite(rolled.total).all()
    assert (np.isnan(rolled.to) == (rolled.left_out > 0)).all()
    clear = rolled.left_out[:, 2] == 0
    wanted = [connectedness(x[e - 60 : e]).corrected for e in rolled.end[clear]]
    assert np.allclose(rolled.corrected[clear], wanted, atol=1e-9)


def test_windows_that_say_nothing_have_a_reason() -> None:
    x = followed(HUB[:2, :2], 120, 8)
    x[40:, 1] = 3.0
    rolled = rolling_connectedness(x, 30, step=30)
    assert rolled.status == ("", "", TOO_FEW, TOO_FEW)
    assert np.isnan(rolled.total).tolist() == [False, False, True, True]
    tied = followed(HUB, 80, 9)
    tied = np.column_stack([tied, tied[:, 0] + tied[:, 1]])
    assert "collinear" in rolling_connectedness(tied, 40, step=40).status[0]
    assert rolling_connectedness(tied, 40, step=40, estimator=Ridge(0.05)).status == ("", "")


def test_a_tie_that_begins_at_a_date_shows_once_it_fills_the_window() -> None:
    calm, tied = followed(0.3 * np.eye(4), 300, 10), followed(HUB, 300, 11)
    rolled = rolling_connectedness(np.vstack([calm, tied]), 120, step=20)
    before, after = rolled.end <= 300, rolled.end >= 440
    assert rolled.total[before].max() < 0.6 * rolled.total[after].min()
    assert (rolled.net[after].argmax(axis=1) == 0).all()


# ---- what cannot be estimated


def test_series_that_cannot_be_used_are_left_out_with_a_reason() -> None:
    x = followed(HUB, 150, 12)
    late, gappy = x[:, 1].copy(), x[:, 2].copy()
    late[:20], gappy[70] = np.nan, np.nan
    wide = np.column_stack([x, np.full(150, 2.0), late, gappy, 5.0 - x[:, 3]])
    found, alone = connectedness(wide), connectedness(x)
    assert found.status == ""
    assert found.left_out[:4] == ("", "", "", "")
    assert found.left_out[4] == "constant"
    assert found.left_out[5].startswith("starts late: at row 20")
    assert found.left_out[6].startswith("gappy")
    assert found.left_out[7] == "a copy of column 3"
    assert np.allclose(found.table[:4, :4], alone.table, atol=1e-12)
    assert found.total == pytest.approx(alone.total, rel=1e-11)
    for values in (found.to, found.from_, found.net, found.transmissions, found.table[0]):
        assert np.isnan(values[4:]).all()
    assert found.used.tolist() == [True] * 4 + [False] * 4


def test_an_autoregression_without_a_limit_has_no_table_but_a_reason() -> None:
    x = followed(HUB, 80, 13)
    x[:, 3] += 1.1 ** np.arange(80)
    found = connectedness(x)
    assert found.status.startswith("not stationary")
    assert found.root > 1.0
    assert np.isnan(found.table).all()
    assert np.isnan(found.total)
    assert connectedness(np.column_stack([x[:, 0], np.ones(80)])).status == TOO_FEW
    sums = np.column_stack([x[:, :3], x[:, 0] + x[:, 1]])
    assert "collinear" in connectedness(sums).status
    rigid = connectedness(sums, estimator=Ridge(0.1), scheme=Scheme.CHOLESKY)
    assert rigid.status in ("", UNFOUNDED)
    assert connectedness(sums, estimator=Ridge(0.1)).status == ""


def test_a_series_that_only_repeats_another_a_step_later_leaves_nothing_to_shocks() -> None:
    x = followed(HUB, 90, 17)
    x = np.column_stack([x[1:], x[:-1, 0]])
    assert connectedness(x).status == TOLD
    assert rolling_connectedness(x, 60, step=20).status == (TOLD, TOLD)
    found = connectedness(x, estimator=Ridge(0.05))
    assert found.status == ""
    assert found.pairwise[4, 0] > 0.5


def test_a_series_that_moves_once_at_the_edge_is_an_outcome() -> None:
    x = followed(HUB, 90, 18)
    x[:, 2] = 1.0
    x[-1, 2] = 2.0
    assert connectedness(x).status == FLAT
    rolled = rolling_connectedness(x, 90)
    assert rolled.left_out[0, 2] == LeftOut.CONSTANT
    assert rolled.status == ("",)


def test_more_series_than_rows_can_be_read_when_regularised() -> None:
    x = planted(rows=40)
    with pytest.raises(EstimationError, match="60 series with 1 lags need at least 63"):
        connectedness(x)
    choice = choose_penalty(x, folds=4)
    found = connectedness(x, estimator=choice.estimator)
    assert found.status == ""
    assert np.allclose(found.table.sum(axis=1), 1.0)
    assert connectedness(x, estimator=Ridge(0.5)).status == ""


def test_misuse_is_refused_by_name() -> None:
    x = followed(HUB, 60, 14)
    rng = np.random.default_rng(0)
    infinite = x.copy()
    infinite[3, 1] = np.inf
    for given, words in (
        (lambda: connectedness(x, horizon=0), "horizon was 0"),
        (lambda: connectedness(infinite), "row 3 of column 1 is infinite"),
        (lambda: connectedness(x[:6]), "need at least 7"),
        (lambda: rolling_connectedness(x, 6), "window was 6 rows; 4 series with 1 lags need at"),
        (lambda: rolling_connectedness(x, 61), "window was 61; x has 60 rows"),
        (lambda: rolling_connectedness(x, 30, step=0), "step"),
        (lambda: rolling_connectedness(x[:, 0], 30), "1 dimensions"),
        (lambda: decomposition(HUB, np.eye(4)), "coefficients have shape"),
        (lambda: decomposition(HUB[None], np.zeros((4, 4))), "variance that is not positive"),
        (lambda: decomposition(1e200 * HUB[None], np.eye(4)), "no finite decomposition"),
        (lambda: connectedness_bands(x, rng=rng, draws=5), "draws was 5"),
        (lambda: window_null(x, 30, rng=rng, draws=5), "draws was 5"),
        (lambda: window_null(x, 61, rng=rng), "window was 61; x has 60 rows"),
        (lambda: connectedness_bands(x, rng=rng, level=1.0), "level was 1"),
    ):
        with pytest.raises(EstimationError, match=words):
            given()


# ---- bands and the null


@cache
def banded() -> tuple[np.ndarray, object]:
    x = followed(HUB, 300, 15)
    return x, connectedness_bands(x, rng=np.random.default_rng(1), draws=100)


def test_bands_hold_the_truth_of_a_planted_hub_and_are_ordered() -> None:
    x, bands = banded()
    to, from_, total, _ = summary(decomposition(HUB[None], np.eye(4)))
    assert bands.status == ""
    assert bands.draws + bands.lost == 100
    assert bands.fit.total == pytest.approx(connectedness(x).total, rel=1e-12)
    assert bands.total[0] < total < bands.total[1]
    for band, truth in ((bands.to, to), (bands.from_, from_), (bands.net, to - from_)):
        assert (band[0] < band[1]).all()
        assert ((band[0] <= truth) & (truth <= band[1])).sum() >= 3
    assert bands.net[0, 0] > 0.0  # the hub gives, beyond doubt
    assert bands.bias > 0.0
    assert bands.centred == pytest.approx(bands.fit.total - bands.bias)


@pytest.mark.parametrize("step", [0.3 * np.eye(5), HUB])
def test_the_total_without_its_bias_lies_in_its_band_and_nearer_the_truth(step: np.ndarray) -> None:
    truth = summary(decomposition(step[None], np.eye(len(step))))[2]
    rng, plain, centred = np.random.default_rng(7), [], []
    for s in range(12):
        bands = connectedness_bands(followed(step, 200, 60 + s), rng=rng, draws=60)
        assert bands.total[0] <= bands.centred <= bands.total[1]
        plain.append(bands.fit.total - truth)
        centred.append(bands.centred - truth)
    assert abs(np.mean(centred)) < 0.5 * abs(np.mean(plain))
    assert np.mean(np.square(centred)) < np.mean(np.square(plain))


def test_nine_in_ten_windows_of_independent_series_lie_below_the_null_of_their_length() -> None:
    """The null of the whole history lies below every one of them."""
    below, long = [], []
    for s in range(6):
        x = followed(0.4 * np.eye(5), 2_160, 80 + s)
        rng = np.random.default_rng(s)
        total = rolling_connectedness(x, 100, step=20).total
        below.append((total <= window_null(x, 100, rng=rng, draws=150).high).mean())
        long.append((total <= connectedness_null(x, rng=rng, draws=40).high).mean())
    assert 0.82 < np.mean(below) < 0.96
    assert np.mean(long) < 0.05
    tied = followed(HUB, 800, 90)
    null = window_null(tied, 100, rng=np.random.default_rng(3), draws=60)
    assert (rolling_connectedness(tied, 100, step=50).total > null.high).all()
    assert null.lost == 0
    assert null.expected < null.high


def unrelated(kind: str, seed: int) -> np.ndarray:
    """Five series of 2,160 rows that share nothing, but how loud a time is in the last kind."""
    rng = np.random.default_rng([seed, 23])
    shocks = rng.standard_normal((2_160, 5))
    if kind == "autoregressive":
        return np.asarray(lfilter([1.0], [1.0, -0.4], shocks, axis=0))
    if kind == "white":
        return shocks
    each = 1 if kind == "volatility shared by all" else 5
    wander = lfilter([0.15], [1.0, -0.98], rng.standard_normal((2_160, each)), axis=0)
    return np.asarray(shocks * np.exp(wander))


@pytest.mark.slow
def test_nine_in_ten_windows_lie_below_the_null_of_their_length_whatever_volatility_does() -> None:
    """Prints the shares that `docs/methods/connectedness.md` gives (`-m slow -rP`)."""
    panels = 16
    for kind in ("white", "autoregressive", "volatility of their own", "volatility shared by all"):
        whole, below = [], {100: [], 250: []}
        for seed in range(panels):
            x, rng = unrelated(kind, seed), np.random.default_rng(seed)
            high = connectedness_null(x, rng=rng, draws=99).high
            for width, shares in below.items():
                total = rolling_connectedness(x, width, step=10).total
                shares.append(float((total <= window_null(x, width, rng=rng).high).mean()))
                whole.append(float((total <= high).mean()))
        means = {width: float(np.mean(shares)) for width, shares in below.items()}
        sys.stdout.write(
            f"\n{panels} panels, {kind}: below the null of their length "
            f"{means[100]:.3f} of windows of 100 rows, {means[250]:.3f} of 250; below that of the "
            f"whole history {np.mean(whole):.3f}"
        )
        assert all(0.84 < mean < 0.96 for mean in means.values()), kind
        assert np.mean(whole) < 0.02


def test_the_same_generator_gives_the_same_bands_and_a_wider_level_wider_ones() -> None:
    x, bands = banded()
    again = connectedness_bands(x, rng=np.random.default_rng(1), draws=100)
    assert again.total == bands.total
    assert (again.to == bands.to).all()
    wide = connectedness_bands(x, rng=np.random.default_rng(1), draws=100, level=0.98)
    assert wide.total[0] < bands.total[0] < bands.total[1] < wide.total[1]


def test_independent_series_have_no_excess_and_a_hub_has() -> None:
    rng = np.random.default_rng(2)
    apart = [
        connectedness_null(followed(0.5 * np.eye(4), 150, 20 + s), rng=rng, draws=60)
        for s in range(12)
    ]
    assert np.mean([n.fit.total for n in apart]) > 0.04  # what a raw total claims of nothing
    assert abs(np.mean([n.excess for n in apart])) < 0.015
    assert 0.2 < np.mean([n.p_value for n in apart]) < 0.8
    hub = connectedness_null(followed(HUB, 150, 33), rng=rng, draws=60)
    assert hub.p_value == pytest.approx(1 / 61)
    assert hub.fit.total > hub.high > hub.expected > 0.0
    assert (np.diff(hub.totals) >= 0.0).all()


@pytest.mark.parametrize("loud", ["a spell", "clusters"])
def test_shared_loud_times_are_no_connectedness(loud: str) -> None:
    """Four times as loud for a while, or volatility that wanders for all alike."""
    p = []
    for s in range(20):
        rng = np.random.default_rng(300 + s)
        size = np.ones(600)
        if loud == "a spell":
            size[200:240] = 4.0
        else:
            wander = np.zeros(600)
            for t in range(1, 600):
                wander[t] = 0.98 * wander[t - 1] + 0.1 * rng.normal()
            size = np.exp(wander)
        x = size[:, None] * rng.normal(size=(600, 6))
        p.append(connectedness_null(x, rng=rng, draws=40).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.2
    assert 0.3 < np.mean(p) < 0.7


def test_sixty_independent_series_claim_a_fifth_of_each_other_in_two_hundred_rows() -> None:
    x = np.random.default_rng(3).standard_normal((200, 60))
    null = connectedness_null(x, rng=np.random.default_rng(4), draws=30, estimator=ElasticNet(0.4))
    assert null.expected == pytest.approx(0.23, abs=0.02)
    assert abs(null.excess) < 0.02


def test_bands_and_null_of_what_has_no_table_say_why() -> None:
    x = followed(HUB, 80, 13)
    x[:, 3] += 1.1 ** np.arange(80)
    for estimate in (connectedness_bands, connectedness_null):
        found = estimate(x, rng=np.random.default_rng(0), draws=20)
        assert found.status.startswith("not stationary")
        lone = estimate(x[:, [0]] * [[1.0, 0.0]], rng=np.random.default_rng(0), draws=20)
        assert lone.status == TOO_FEW
        assert lone.fit.left_out[1] == "constant"


def test_bands_of_what_was_left_out_are_missing() -> None:
    x = np.column_stack([np.ones(150), followed(HUB, 150, 16)])
    bands = connectedness_bands(x, rng=np.random.default_rng(5), draws=20)
    assert bands.fit.left_out == ("constant", "", "", "", "")
    for band in (bands.to, bands.from_, bands.net):
        assert np.isnan(band[:, 0]).all()
        assert np.isfinite(band[:, 1:]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "together", "least"),
    [(100, 0.0, 0.8), (200, 0.0, 0.83), (100, 0.3, 0.66), (500, 0.3, 0.75)],
)
def test_bands_cover_about_as_often_as_they_say(rows: int, together: float, least: float) -> None:
    """150 samples, bands of 0.9: measured 0.85, 0.93, 0.74 and 0.80; plain quantiles 0, 0.05, .."""
    step = np.array([[0.5, 0.2, 0, 0], [0, 0.4, 0.2, 0], [0, 0, 0.5, 0.1], [0.1, 0, 0, 0.3]])
    shocks = (1.0 - together) * np.eye(4) + together
    truth = summary(decomposition(step[None], shocks))[2]
    rng = np.random.default_rng(6)
    hits = 0
    for s in range(150):
        bands = connectedness_bands(followed(step, rows, s, together), rng=rng, draws=100)
        assert bands.total[0] <= bands.centred <= bands.total[1]
        hits += bands.total[0] <= truth <= bands.total[1]
    assert hits / 150 >= least
