"""How the node is doing: rates, latencies and counts, as diagnostics show them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from differad_edge import Verdict
from differad_edge_ros.outcome import Outcome
from differad_edge_ros.states import State

__all__ = ["Figures", "Health", "Level"]

WINDOW_S = 10.0
HANG_S = 5.0
_LATENCIES = 1000


class Level(IntEnum):
    """The levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Health:
    """One diagnostic status: ``values`` are names with their figures as text."""

    level: Level
    message: str
    values: tuple[tuple[str, str], ...]


class Figures:
    """Counts arrivals and outcomes. Thread-safe; ``clock_s``: monotonic."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._begin_s = clock_s()
        self._arrived_s: float | None = None
        self._times_s: deque[float] = deque()
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._told = 0
        self._last: Outcome | None = None

    def begin(self) -> None:
        """The node was activated: silence counts from here."""
        with self._lock:
            self._begin_s, self._arrived_s = self._clock_s(), None

    def arrived(self) -> None:
        """An image is here, accepted or not."""
        self._arrived_s = self._clock_s()

    def published(self, outcome: Outcome) -> None:
        """An outcome was published."""
        with self._lock:
            self._times_s.append(self._clock_s())
            self._latencies_ms.append(outcome.node_ms.get("total", 0.0))
            self._verdicts[outcome.result.verdict.value] += 1
            if outcome.result.reason is not None:
                self._reasons[outcome.result.reason] += 1
            for drop in outcome.dropped:
                self._drops[drop.cause] += drop.count
            self._last = outcome

    def health(self, state: State, *, waiting: int, dropped_total: int, busy_s: float, silence_s: float) -> Health:
        """What to tell now; ``dropped_total``: of this activation, told in an outcome or not yet."""
        with self._lock:
            now_s = self._clock_s()
            while self._times_s and self._times_s[0] < now_s - WINDOW_S:
                self._times_s.popleft()
            new_drops, self._told = max(0, dropped_total - self._told), dropped_total
            since_s = now_s - (self._arrived_s if self._arrived_s is not None else self._begin_s)
            level, message = self._judgement(state, busy_s, since_s, silence_s, new_drops)
            values = [
                ("state", state.value),
                ("rate_hz", f"{len(self._times_s) / WINDOW_S:.2f}"),
                ("latency_p50_ms", _percentile(self._latencies_ms, 0.5)),
                ("latency_p99_ms", _percentile(self._latencies_ms, 0.99)),
                ("waiting", str(waiting)),
                ("dropped", str(dropped_total)),
                *((f"dropped.{cause}", str(count)) for cause, count in sorted(self._drops.items())),
                *((f"results.{verdict}", str(self._verdicts[verdict.value])) for verdict in Verdict),
                *((f"reason.{reason}", str(count)) for reason, count in sorted(self._reasons.items())),
                ("last_detail", (self._last.result.detail or "") if self._last is not None else ""),
            ]
        return Health(level, message, tuple(values))

    def _judgement(
        self, state: State, busy_s: float, since_s: float, silence_s: float, new_drops: int
    ) -> tuple[Level, str]:
        if state is not State.ACTIVE:
            return Level.WARN, f"{state}: no parts are inspected"
        if busy_s > HANG_S:
            return Level.ERROR, f"the inspection has not answered for {busy_s:.0f} s"
        last = None if self._last is None else self._last.result
        if silence_s > 0 and since_s > silence_s:
            return Level.WARN, f"no image for {since_s:.1f} s"
        if last is not None and last.verdict is Verdict.ERROR:
            return Level.ERROR, f"{last.reason}: {last.detail}"
        if new_drops:
            return Level.WARN, f"{new_drops} images dropped since the last report"
        if last is not None and last.verdict is Verdict.UNDECIDED:
            return Level.WARN, f"{last.reason}: {last.detail}"
        return Level.OK, "inspecting"


def _percentile(values: deque[float], share: float) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.2f}"
