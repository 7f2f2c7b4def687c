"""Invented records with a planted skill: clustered episodes, and signals that remember."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from undertow.validate.episodes import DAY_US, Episodes, Outcomes, episodes, outcomes

HORIZON_US = 7 * DAY_US


@dataclass(frozen=True)
class Record:
    ts: np.ndarray
    begun: Episodes
    ahead: Outcomes


def clustered_record(rng: np.random.Generator, *, days: int = 1400, hot: float = 30.0) -> Record:
    """Hot days eight times as likely in busy times as in calm ones; both last for months."""
    change = rng.random(days)
    busy = np.zeros(days, dtype=bool)
    for day in range(1, days):
        busy[day] = busy[day - 1] ^ (change[day] < (1 / 60 if busy[day - 1] else 1 / 180))
    rate = np.where(busy, 4.0, 0.5)
    marked = rng.random(days) < rate * hot / rate.sum()
    ts = DAY_US * np.arange(1, days + 1)
    begun = episodes(ts, marked)
    return Record(ts, begun, outcomes(ts, begun, horizon_us=HORIZON_US))


def remembering(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """Standard normal values, each `memory` times the one before and a shock."""
    shocks = rng.standard_normal(rows) * np.sqrt(1.0 - memory**2)
    shocks[0] /= np.sqrt(1.0 - memory**2)
    values: np.ndarray = lfilter([1.0], [1.0, -memory], shocks)
    return values


def fading_record(rng: np.random.Generator, *, days: int = 1400, hot: float = 30.0) -> Record:
    """Hot days ever rarer: none are left at the end."""
    rate = np.linspace(2.0, 0.0, days)
    ts = DAY_US * np.arange(1, days + 1)
    begun = episodes(ts, rng.random(days) < rate * hot / rate.sum())
    return Record(ts, begun, outcomes(ts, begun, horizon_us=HORIZON_US))
