"""undertow sees, measures, stress-tests and limits systemic leverage in crypto markets."""

from __future__ import annotations

__version__ = "0.1.0"
