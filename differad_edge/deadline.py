"""The time that one part has, on a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from differad_edge.errors import ConfigError, DeadlineExceeded

__all__ = ["Clock", "Deadline"]

_LONGEST_MS = 1e11

Clock = Callable[[], float]
"""Returns seconds that never run back; the zero is arbitrary."""


class Deadline:
    """A point in time after which a comparison must not be called complete.

    Wall-clock jumps do not move it. Tests inject ``clock``.
    """

    __slots__ = ("_clock", "_end_s", "budget_ms")

    def __init__(self, end_s: float, *, budget_ms: float, clock: Clock = time.monotonic) -> None:
        self._end_s = end_s
        self._clock = clock
        self.budget_ms = budget_ms
        """What was given at the start, in milliseconds."""

    @classmethod
    def after_ms(cls, ms: float, *, clock: Clock = time.monotonic) -> Deadline:
        """A deadline ``ms`` milliseconds from now; 0 is a deadline that has already passed.

        Raises ConfigError when ``ms`` is negative, not finite or not a number.
        """
        # The upper bound, three years, also keeps integers from overflowing a float.
        if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not 0 <= ms <= _LONGEST_MS:
            raise ConfigError(
                f"deadline_ms: got {ms!r}, allowed: a finite number of milliseconds from 0 to {_LONGEST_MS:g}"
            )
        return cls(clock() + ms / 1000.0, budget_ms=float(ms), clock=clock)

    @property
    def remaining_ms(self) -> float:
        """Milliseconds that are left; 0.0 once the deadline has passed, never negative."""
        return max(0.0, (self._end_s - self._clock()) * 1000.0)

    @property
    def expired(self) -> bool:
        """True from the deadline on."""
        return self._clock() >= self._end_s

    def check(self) -> None:
        """Raise DeadlineExceeded when the deadline has passed; engines call it between their stages."""
        if self.expired:
            raise DeadlineExceeded(f"the deadline of {self.budget_ms:g} ms has passed")

    def __repr__(self) -> str:
        return f"Deadline(budget_ms={self.budget_ms:g}, remaining_ms={self.remaining_ms:.1f})"
