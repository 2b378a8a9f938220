"""How long to wait before the next attempt."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Doubles from ``min_ms`` to ``max_ms``, each time between half of it and all: lines that lost the same broker do
    not all come back in the same moment."""

    def __init__(self, min_ms: float, max_ms: float, *, seed: int | None = None) -> None:
        self._min_ms = min_ms
        self._max_ms = max(min_ms, max_ms)
        self._next_ms = min_ms
        self._random = random.Random(seed)

    def next_s(self) -> float:
        """Seconds to wait now."""
        now_ms = self._next_ms
        self._next_ms = min(self._max_ms, now_ms * 2)
        return now_ms * self._random.uniform(0.5, 1.0) / 1000.0

    def reset(self) -> None:
        """It worked."""
        self._next_ms = self._min_ms
