"""Books in which many stand in one place: thresholds, sizes and depth as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from undertow.rules.snapshot import Snapshot
from undertow.worlds.frames import from_tuples

TS = 1_760_000_000_000_000
THRESHOLD = 0.8
MAINTENANCE = 0.025
PRICE = 100.0


def crowd(
    fall: Sequence[float] | np.ndarray,
    usd: Sequence[float] | np.ndarray,
    *,
    share: float,
    assets: int = 1,
    held: np.ndarray | None = None,
    long: np.ndarray | None = None,
    profile: str = "generic-lending",
) -> Snapshot:
    """Accounts that are called at a common `fall` (a fraction) and hold so many USD.

    `share` is how many e-folds all of an asset, sold, moves its price by. `held` (accounts, assets)
    are shares of what each holds, else all of the first. With `long`, accounts hold perps, long or
    short, and are called at a fall or a rise.
    """
    fall, usd = np.asarray(fall, dtype=np.float64), np.asarray(usd, dtype=np.float64)
    names = [f"C{i}" for i in range(assets)]
    perps = long is not None
    profile = "generic-perp" if perps else profile
    held = np.eye(1, assets).repeat(len(fall), axis=0) if held is None else held
    coin, cash = ("perp", "cash") if perps else ("reserve", "reserve")
    tables: dict[str, Any] = {}

    def put(table: str, columns: str, rows: list[tuple[object, ...]]) -> None:
        tables[table] = from_tuples(table, tuple(columns.split()), rows, ts=TS)

    put("assets", "asset symbol kind reference rate sector",
        [*((n, n, "native", None, None, "coin") for n in names),
         ("USDC", "USDC", "stable", "USD", 1.0, "stable"),
         ("USD", "USD", "fiat", None, None, "fiat")])  # fmt: skip
    put("venues", "venue kind profile",
        [("v", "perp" if perps else "lending", profile), ("x", "spot", None)])  # fmt: skip
    put("instruments", "instrument venue symbol kind asset inverse contract_size",
        [*((f"x:{n}", "x", n, "spot", n, False, 1.0) for n in names),
         *((f"v:{n}", "v", n, coin, n, False, 1.0) for n in names),
         ("v:USDC", "v", "USDC", cash, "USDC", False, 1.0)])  # fmt: skip
    put("prices", "instrument kind price",
        [*((f"x:{n}", "spot", PRICE) for n in names),
         *((f"v:{n}", "mark" if perps else "oracle", PRICE) for n in names),
         ("v:USDC", "spot" if perps else "oracle", 1.0)])  # fmt: skip
    put("accounts", "account venue label margin_group mode owner",
        [(i, "v", f"a{i}", "main", "cross", i) for i in range(len(fall))])  # fmt: skip
    put("positions", "account instrument kind qty entry", _legs(fall, usd, names, held, long))
    if perps:
        terms = [("v", f"v:{n}", "maintenance_margin_rate", MAINTENANCE) for n in names]
    else:
        values = (("ltv", 0.75), ("liquidation_threshold", THRESHOLD), ("liquidation_bonus", 0.05))
        terms = [("v", f"v:{n}", name, value) for n in (*names, "USDC") for name, value in values]
    put("risk_params", "venue instrument name value", terms)  # type: ignore[arg-type]
    depth = (usd[:, None] * held).sum(axis=0) / PRICE / share
    put("depth", "instrument band side qty",
        [(f"x:{n}", 1.0, side, float(d)) for n, d in zip(names, depth, strict=True)
         for side in ("bid", "ask") if d > 0.0])  # fmt: skip
    return Snapshot.from_tables(tables, TS)


def _legs(
    fall: np.ndarray,
    usd: np.ndarray,
    names: list[str],
    held: np.ndarray,
    long: np.ndarray | None,
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for i, (t, size) in enumerate(zip(fall.tolist(), usd.tolist(), strict=True)):
        shares = [(n, s) for n, s in zip(names, held[i].tolist(), strict=True) if s > 0.0]
        if long is None:
            rows += [(i, f"v:{n}", "collateral", s * size / PRICE, None) for n, s in shares]
            rows.append((i, "v:USDC", "debt", -size * THRESHOLD * (1.0 - t), None))
            continue
        side = 1.0 if long[i] else -1.0
        rows += [(i, f"v:{n}", "perp", side * s * size / PRICE, PRICE) for n, s in shares]
        margin = size * (t + MAINTENANCE * (1.0 - side * t))
        rows.append((i, "v:USDC", "cash", margin, None))
    return rows
