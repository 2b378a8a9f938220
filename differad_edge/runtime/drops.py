"""Every frame that was not inspected, by cause: counted for ever, and told with the next result."""

from __future__ import annotations

import threading
from collections.abc import Callable

from differad_edge.runtime.record import SequenceRange

__all__ = ["DropLedger"]

_MOST_RANGES = 64


class DropLedger:
    """The drops of one station. Thread-safe. ``on_drop(cause, count)`` hears of each."""

    def __init__(self, on_drop: Callable[[str, int], None] | None = None) -> None:
        self._totals: dict[str, int] = {}
        self._untold: dict[str, list[SequenceRange]] = {}
        self._on_drop = on_drop
        self._lock = threading.Lock()

    def add(self, cause: str, first: int, last: int) -> None:
        """Frames ``first`` to ``last`` (both included) of the camera were dropped because of ``cause``."""
        with self._lock:
            self._totals[cause] = self._totals.get(cause, 0) + last - first + 1
            ranges = self._untold.setdefault(cause, [])
            if ranges and first == ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], last)
            elif len(ranges) < _MOST_RANGES:
                ranges.append((first, last))
            else:
                # Months without a result must not fill the memory: the last range grows and covers some that were not.
                ranges[-1] = (min(ranges[-1][0], first), max(ranges[-1][1], last))
        if self._on_drop is not None:
            self._on_drop(cause, last - first + 1)

    def take(self) -> dict[str, tuple[SequenceRange, ...]]:
        """What was dropped since the last call, by cause."""
        with self._lock:
            told = {cause: tuple(ranges) for cause, ranges in self._untold.items()}
            self._untold.clear()
            return told

    @property
    def totals(self) -> dict[str, int]:
        """Frames by cause since the start."""
        with self._lock:
            return dict(self._totals)
