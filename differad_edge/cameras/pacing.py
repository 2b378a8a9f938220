"""Time for cameras: a clock that tests can replace, and frames at a rate."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from differad_edge.errors import CameraTimeoutError

__all__ = ["Clock", "MonotonicClock", "Pace"]


class Clock(Protocol):
    """Nanoseconds that never run back, and a way to wait by them."""

    def now_ns(self) -> int:
        """As time.monotonic_ns()."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set, at most so long. Whether it is set."""
        ...


class MonotonicClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        """time.monotonic_ns()."""
        return time.monotonic_ns()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """event.wait()."""
        return event.wait(min(seconds, threading.TIMEOUT_MAX))


class Pace:
    """Frames that are due ``rate_hz`` times a second; None: at once. A late reader gets no burst to catch up with."""

    def __init__(self, rate_hz: float | None, clock: Clock) -> None:
        self._period_ns = 0 if rate_hz is None else round(1e9 / rate_hz)
        self._clock = clock
        self._due_ns: int | None = None

    def wait(self, timeout_ms: float, stop: threading.Event) -> None:
        """Until the next frame is due, or ``stop`` is set. Raises CameraTimeoutError after ``timeout_ms``."""
        if not self._period_ns:
            return
        now = self._clock.now_ns()
        due = now if self._due_ns is None else self._due_ns
        left_ns = due - now
        if left_ns > timeout_ms * 1e6:
            if self._clock.wait(stop, max(timeout_ms, 0.0) / 1e3):
                return
            raise CameraTimeoutError(f"no frame within {timeout_ms:g} ms; the next is due in {left_ns / 1e6:.0f} ms")
        if left_ns > 0:
            self._clock.wait(stop, left_ns / 1e9)
        self._due_ns = max(due, now - self._period_ns) + self._period_ns
